//! `docket tail`: follows the docket topic.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use globset::{GlobBuilder, GlobMatcher};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::CommandResult;
use crate::decision::json;
use crate::decision::record::Record;
use crate::decision::time;
use crate::decision::verdict::Verdict;
use crate::log::client;
use crate::pipeline::Pipeline;

/// Follow the decisions in the docket topic.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  docket tail pipelines/opa.yaml
  docket tail pipelines/opa.yaml --from 1h --verdict deny --policy 'http/**'
  docket tail pipelines/opa.yaml --from start --until-end --json | jq .docket")]
pub struct Args {
    #[arg(value_name = "PIPELINE")]
    file: PathBuf,
    /// Where to begin: `end`, `start`, or how long ago, such as 10m.
    #[arg(long, default_value = "end", value_parser = from)]
    from: From,
    /// End at what is the end of the topic now, instead of following it.
    #[arg(long)]
    until_end: bool,
    /// Only these verdicts: allow, deny, undefined, error.
    #[arg(long, value_delimiter = ',', value_parser = verdict)]
    verdict: Vec<Verdict>,
    /// Only policies that match this glob.
    #[arg(long)]
    policy: Option<String>,
    /// Only decisions of this trace.
    #[arg(long)]
    trace: Option<String>,
    /// Only decisions of this service.
    #[arg(long)]
    service: Option<String>,
    /// Stop after so many.
    #[arg(short = 'n', long)]
    count: Option<u64>,
    /// Print whole docket records, one a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy)]
enum From {
    Start,
    End,
    Ago(Duration),
}

fn from(text: &str) -> Result<From, String> {
    match text {
        "start" | "earliest" | "beginning" => Ok(From::Start),
        "end" | "latest" | "now" => Ok(From::End),
        ago => super::duration(ago).map(From::Ago),
    }
}

fn verdict(text: &str) -> Result<Verdict, String> {
    Verdict::parse(text).ok_or_else(|| "one of allow, deny, undefined, error".to_owned())
}

const TIMEOUT: Duration = Duration::from_secs(15);

pub fn run(args: &Args) -> CommandResult {
    let pipeline = super::load(&args.file)?;
    let policy = match &args.policy {
        None => None,
        Some(text) => Some(GlobBuilder::new(text.trim_start_matches('/')).literal_separator(true).build()?.compile_matcher()),
    };
    let (consumer, ends) = open(&pipeline, args.from)?;
    let mut left: Vec<(i32, i64)> = ends;
    let mut out = anstream::AutoStream::auto(std::io::stdout()).lock();
    let mut shown = 0;
    let mut idle = Instant::now();
    while args.count.is_none_or(|count| shown < count) {
        if args.until_end && left.is_empty() {
            break;
        }
        let message = match consumer.poll(Duration::from_millis(200)) {
            // Past what is stable now: the rest of the topic is transaction markers.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                left.retain(|(p, _)| *p != partition);
                continue;
            }
            None => {
                if idle.elapsed() > Duration::from_millis(500) {
                    out.flush()?;
                    idle = Instant::now();
                }
                continue;
            }
            Some(Err(error)) if client::is_outage(&error) => continue,
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(message)) => message,
        };
        left.retain(|(p, end)| *p != message.partition() || message.offset() + 1 < *end);
        let payload = message.payload().unwrap_or_default();
        let Ok(record) = Record::parse(payload) else { continue };
        if !wanted(args, policy.as_ref(), &record) {
            continue;
        }
        if args.json {
            let mut line = payload.to_vec();
            json::one_line(&mut line);
            line.push(b'\n');
            out.write_all(&line)?;
        } else {
            writeln!(out, "{}", line(&record))?;
        }
        shown += 1;
    }
    out.flush()?;
    Ok(())
}

/// A partition, and its end.
type End = (i32, i64);

/// A consumer at the wanted place of each partition, and where each partition ends that is not at its end.
fn open(pipeline: &Pipeline, from: From) -> Result<(BaseConsumer, Vec<End>), Box<dyn std::error::Error>> {
    let topic = pipeline.docket_topic();
    let mut config = client::config(&pipeline.file.kafka, "tail");
    // No group is joined and nothing committed; librdkafka wants a name all the same.
    config
        .set("group.id", pipeline.group("tail"))
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "100");
    let consumer: BaseConsumer = client::with_properties(config, &pipeline.file.kafka).create()?;
    let metadata = consumer.fetch_metadata(Some(&topic), TIMEOUT).map_err(|e| format!("Kafka at {} can't be reached: {e}", pipeline.file.kafka.brokers))?;
    let partitions = metadata.topics().first().map(rdkafka::metadata::MetadataTopic::partitions).unwrap_or_default();
    if partitions.is_empty() {
        return Err(format!("there is no topic {topic}; `docket setup {}` creates it", pipeline.path.display()).into());
    }
    let mut list = TopicPartitionList::new();
    let mut ends = Vec::new();
    for partition in partitions {
        let (low, high) = consumer.fetch_watermarks(&topic, partition.id(), TIMEOUT)?;
        if low < high {
            ends.push((partition.id(), high));
        }
        let offset = match from {
            From::Start => Offset::Beginning,
            From::End => Offset::End,
            From::Ago(ago) => Offset::Offset((crate::clock::now() / 1_000_000).saturating_sub(i64::try_from(ago.as_millis())?)),
        };
        list.add_partition_offset(&topic, partition.id(), offset)?;
    }
    if let From::Ago(_) = from {
        list = consumer.offsets_for_times(list, TIMEOUT)?;
    }
    consumer.assign(&list)?;
    Ok((consumer, ends))
}

fn wanted(args: &Args, policy: Option<&GlobMatcher>, record: &Record<'_>) -> bool {
    let trace = || crate::decision::docket::hex(&record.trace_id.to_bytes());
    (args.verdict.is_empty() || args.verdict.contains(&record.verdict))
        && policy.is_none_or(|glob| glob.is_match(&*record.policy))
        && args.service.as_ref().is_none_or(|service| *service == record.service)
        && args.trace.as_ref().is_none_or(|wanted| trace().starts_with(&wanted.to_ascii_lowercase()))
}

/// The colour of a verdict.
pub fn style(verdict: Verdict) -> Style {
    let color = match verdict {
        Verdict::Allow => AnsiColor::Green,
        Verdict::Deny => AnsiColor::Red,
        Verdict::Undefined => AnsiColor::Yellow,
        Verdict::Error => AnsiColor::Magenta,
    };
    Style::new().fg_color(Some(color.into())).bold()
}

/// A decision on a line.
fn line(record: &Record<'_>) -> String {
    let style = style(record.verdict);
    let dim = Style::new().dimmed();
    let duration = record.duration.map_or_else(String::new, |ns| format!(" {:.2} ms", ns as f64 / 1e6));
    let reasons: Vec<String> = json::elements(record.reasons).filter_map(json::as_str).map(|r| printable(&r)).collect();
    let reasons = if reasons.is_empty() { String::new() } else { format!("  {}", reasons.join("; ")) };
    let trace = crate::decision::docket::hex(&record.trace_id.to_bytes());
    format!(
        "{dim}{}{dim:#} {style}{:9}{style:#} {} {}{duration}{reasons} {dim}trace={trace} decision={}{dim:#}",
        time::format(record.timestamp),
        record.verdict.as_str(),
        printable(&record.service),
        printable(&record.policy),
        printable(&record.decision_id),
    )
}

/// Decisions hold what users sent: no control characters reach the terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
