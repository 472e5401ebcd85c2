//! `docket tail`: follows the docket topic.

use std::io::Write;
use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use globset::{GlobBuilder, GlobMatcher};
use rdkafka::message::{BorrowedMessage, Message};

use super::CommandResult;
use crate::decision::json;
use crate::decision::record::Record;
use crate::decision::time;
use crate::decision::verdict::Verdict;
use crate::log::scan::ScanBound;
use crate::words;

/// Print decisions of the docket topic as they arrive.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  docket tail pipelines/opa.yaml
  docket tail pipelines/opa.yaml --from 1h --verdict deny --policy 'http/**'
  docket tail pipelines/opa.yaml --from start --until-end --json | jq .docket

A decision is a line as wide as the terminal, or 80 columns: its time (UTC), verdict, duration, service, policy, the reasons as far as they fit, \
and how its id begins; below 60 columns without date, duration and id. --long prints all of each.

What is new comes as it is written. Of the past, each partition of the topic is in its own order; several are not put in order of time.")]
pub struct Args {
    /// Pipeline file.
    #[arg(value_name = "PIPELINE")]
    file: PathBuf,
    /// Where to start: end, start, a duration ago such as 10m, or a time (RFC 3339).
    #[arg(long, default_value = "end", value_parser = super::bound)]
    from: ScanBound,
    /// Stop at the current end of the topic instead of following it.
    #[arg(long)]
    until_end: bool,
    /// Only decisions with these verdicts, separated by commas; finding is what docket found itself.
    #[arg(long, value_delimiter = ',', value_parser = verdicts())]
    verdict: Vec<Verdict>,
    /// Only decisions of policies that match this glob: * matches within a segment, ** across segments.
    #[arg(long)]
    policy: Option<String>,
    /// Only decisions of traces whose ID starts with this.
    #[arg(long)]
    trace: Option<String>,
    /// Only decisions of this service.
    #[arg(long)]
    service: Option<String>,
    /// Stop after this many decisions.
    #[arg(short = 'n', long)]
    count: Option<u64>,
    /// Print all there is to a decision on its line: whole times, ids and reasons.
    #[arg(long, conflicts_with = "json")]
    long: bool,
    /// Print complete docket records as JSON, one per line.
    #[arg(long)]
    json: bool,
}

/// What a shell can complete, too.
fn verdicts() -> impl TypedValueParser<Value = Verdict> {
    // The last is no verdict of OPA's.
    let all = Verdict::ALL.into_iter().chain([Verdict::Finding]);
    PossibleValuesParser::new(all.map(Verdict::as_str))
        .map(|name| Verdict::parse(&name).unwrap_or(Verdict::Finding))
}

pub fn run(args: &Args) -> CommandResult {
    let pipeline = super::load(&args.file)?;
    let policy = match &args.policy {
        None => None,
        Some(text) => Some(
            GlobBuilder::new(text.trim_start_matches('/'))
                .literal_separator(true)
                .build()?
                .compile_matcher(),
        ),
    };
    super::end_with_the_reader();
    let waiting = super::waiting(&format!("Kafka at {}", pipeline.file.kafka.brokers));
    let past = pipeline.scan("tail", &pipeline.docket_topic(), args.from, ScanBound::End)?;
    drop(waiting);
    let mut out = anstream::AutoStream::auto(std::io::stdout()).lock();
    let topic = pipeline.docket_topic();
    let mut nothing = (!args.until_end).then(|| super::slow(args.waits_for(&topic)));
    let mut shown = 0;
    let mut failed = None;
    let mut take = |message: Option<&BorrowedMessage<'_>>| {
        let written = match message {
            None => out.flush(),
            Some(message) => {
                show(args, policy.as_ref(), message.payload().unwrap_or_default(), &mut out).map(
                    |wrote| {
                        shown += u64::from(wrote);
                        nothing.take_if(|_| wrote);
                    },
                )
            }
        };
        failed = written.err();
        failed.is_none() && args.count.is_none_or(|count| shown < count)
    };
    if args.until_end {
        past.read(&mut |_| {}, &mut |message| take(Some(message)))?;
    } else {
        past.follow(&mut take)?;
    }
    if let Some(error) = failed {
        return Err(error.into());
    }
    out.flush()?;
    if args.until_end && shown == 0 {
        anstream::eprintln!("{}", args.nothing_in(&topic));
    }
    Ok(())
}

impl Args {
    /// What is looked for.
    fn decisions(&self) -> &'static str {
        let all = self.verdict.is_empty()
            && self.policy.is_none()
            && self.trace.is_none()
            && self.service.is_none();
        if all { "decisions" } else { "decisions that match" }
    }

    /// How older ones are seen.
    fn older(&self) -> &'static str {
        match self.from {
            ScanBound::End => {
                "--from 1h shows those of the last hour, --from start all that it holds; new ones come while docket run runs"
            }
            ScanBound::At(_) => "--from start begins with the oldest that it holds",
            ScanBound::Start => "docket top shows what intake reads",
        }
    }

    fn waits_for(&self, topic: &str) -> String {
        format!("waiting for {} in the topic {topic} ..; {}", self.decisions(), self.older())
    }

    fn nothing_in(&self, topic: &str) -> String {
        format!("no {} in the topic {topic} from there on; {}", self.decisions(), self.older())
    }
}

/// Writes a record, if it is wanted.
fn show(
    args: &Args,
    policy: Option<&GlobMatcher>,
    payload: &[u8],
    out: &mut impl Write,
) -> std::io::Result<bool> {
    let Some(record) = Record::parse(payload).ok().filter(|record| wanted(args, policy, record))
    else {
        return Ok(false);
    };
    if args.json {
        let mut line = payload.to_vec();
        json::one_line(&mut line);
        line.push(b'\n');
        out.write_all(&line)?;
    } else if args.long {
        writeln!(out, "{}", long(&record))?;
    } else {
        writeln!(out, "{}", line(&record, super::columns()))?;
    }
    Ok(true)
}

fn wanted(args: &Args, policy: Option<&GlobMatcher>, record: &Record<'_>) -> bool {
    let trace = || crate::decision::ids::hex(&record.trace_id.to_bytes());
    (args.verdict.is_empty() || args.verdict.contains(&record.verdict))
        && policy.is_none_or(|glob| glob.is_match(&*record.policy))
        && args.service.as_ref().is_none_or(|service| *service == record.service)
        && args
            .trace
            .as_ref()
            .is_none_or(|wanted| trace().starts_with(&wanted.to_ascii_lowercase()))
}

/// The colour of a verdict.
pub fn style(verdict: Verdict) -> Style {
    let color = match verdict {
        Verdict::Allow => AnsiColor::Green,
        Verdict::Deny => AnsiColor::Red,
        Verdict::Undefined => AnsiColor::Yellow,
        Verdict::Error | Verdict::Finding => AnsiColor::Magenta,
    };
    Style::new().fg_color(Some(color.into())).bold()
}

/// So much of a decision's id tells it from others in sight.
const ID: usize = 8;

/// A decision on a line of so many columns.
pub fn line(record: &Record<'_>, columns: usize) -> String {
    let (style, dim) = (style(record.verdict), Style::new().dimmed());
    let time = time::format(record.timestamp);
    let verdict = record.verdict.as_str();
    // A finding's sentence names both; ids of findings all begin alike.
    let finding = record.verdict == Verdict::Finding;
    let about = match finding {
        true => reasons(record).trim_start().to_owned(),
        false => {
            let (service, policy) = (printable(&record.service), printable(&record.policy));
            let service = if columns < NARROW { service } else { format!("{service:10}") };
            format!("{service} {policy}{}", reasons(record))
        }
    };
    if columns < NARROW {
        let time = time.get(11..19).unwrap_or(&time);
        let room = columns.saturating_sub(time.len() + 1 + VERDICT + 1);
        let said = cut(about, room);
        return format!("{dim}{time}{dim:#} {style}{verdict:VERDICT$}{style:#} {said}");
    }
    let time = time.get(5..19).unwrap_or(&time).replace('T', " ");
    let took = duration(record);
    let id = printable(&record.decision_id);
    let id = id.strip_prefix("finding-").filter(|_| finding).unwrap_or(&id);
    let id: String = id.chars().take(ID).collect();
    // What is left between the verdict and the id. What has no usual length stands last.
    let room = columns.saturating_sub(time.len() + 1 + VERDICT + 1 + 2 + ID);
    let said = if finding { about } else { format!("{:>8} {about}", took.trim()) };
    let said = cut(said, room);
    format!("{dim}{time}{dim:#} {style}{verdict:VERDICT$}{style:#} {said:room$}  {dim}{id}{dim:#}")
}

const VERDICT: usize = 9;
/// In fewer columns a line has room for the most important only.
const NARROW: usize = 60;

/// All of it on a line.
fn long(record: &Record<'_>) -> String {
    let (style, dim) = (style(record.verdict), Style::new().dimmed());
    let trace = crate::decision::ids::hex(&record.trace_id.to_bytes());
    format!(
        "{dim}{}{dim:#} {style}{:VERDICT$}{style:#} {} {}{}{} {dim}trace={trace} decision={}{dim:#}",
        time::format(record.timestamp),
        record.verdict.as_str(),
        printable(&record.service),
        printable(&record.policy),
        duration(record),
        reasons(record),
        printable(&record.decision_id),
    )
}

fn duration(record: &Record<'_>) -> String {
    record.duration.map_or_else(String::new, |ns| format!(" {:.2} ms", ns as f64 / 1e6))
}

fn reasons(record: &Record<'_>) -> String {
    let reasons: Vec<String> =
        json::elements(record.reasons).filter_map(json::as_str).map(|r| printable(&r)).collect();
    if reasons.is_empty() { String::new() } else { format!("  {}", reasons.join("; ")) }
}

/// A text in so many columns.
fn cut(text: String, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text;
    }
    let kept: String = text.chars().take(columns.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// Decisions hold what users sent: no control characters reach the terminal.
pub fn printable(text: &str) -> String {
    words::visible(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_align_and_narrow_ones_keep_the_policy() {
        let of = |service: &str, policy: &str, took: u64| {
            format!(
                r#"{{"decision_id":"0f4323bb-1","labels":{{"service":"{service}"}},"path":"{policy}","result":true,"timestamp":"2026-11-24T12:48:50Z","metrics":{{"timer_server_handler_ns":{took}}}}}"#
            )
        };
        let lines = |columns: usize| {
            let all = [of("orders", "app/allow", 130_000), of("admission", "x/y", 12_130_000)];
            all.map(|decision| {
                let event = crate::decision::event::Event::parse(decision.as_bytes()).unwrap();
                let (rules, mut out) = (crate::decision::record::Rules::default(), Vec::new());
                crate::decision::record::write(&event, &[], None, &rules, &mut out);
                let line = line(&Record::parse(&out).unwrap(), columns);
                anstream::adapter::strip_str(&line).to_string()
            })
        };
        let [a, b] = lines(80);
        assert_eq!(a.find("app/allow"), b.find("x/y"), "{a}\n{b}");
        assert_eq!(a.find(" ms "), b.find(" ms "), "{a}\n{b}");
        assert!(a.chars().count() == 80 && a.ends_with("  0f4323bb"), "{a}");
        let found = crate::decision::record::finding(crate::decision::record::Found {
            id: "finding-5a76131eb4faa59d-begins",
            at: 1_795_524_530_000_000_000,
            body: serde_json::json!({}),
            sentence: "denial spike on http/authz/decision of orders: 50 denials of 102 decisions",
            by: "spikes",
            policy: "http/authz/decision",
            trace: None,
            links: Vec::new(),
            service: "orders",
        });
        let said = line(&Record::parse(&found).unwrap(), 80);
        let said = anstream::adapter::strip_str(&said).to_string();
        assert!(said.contains(" finding   denial spike on http/authz/decision of ord"), "{said}");
        assert!(said.chars().count() == 80 && said.ends_with("…  5a76131e"), "{said}");
        for line in lines(40) {
            assert!(line.chars().count() <= 40 && line.contains('/'), "{line}");
        }
    }
}
