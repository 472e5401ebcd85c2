//! `docket capacity`: a capacity review of what the docket holds.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use rdkafka::message::Message;
use serde_json::Value;

use super::recent::{self, Recent};
use super::shown::say_aside;
use super::{CommandResult, offline};
use crate::capacity::count::Counter;
use crate::capacity::numbers::{DAY, counted};
use crate::capacity::{self, Asked, Read, Review, Volume, report, table};
use crate::decision::record::Record;
use crate::decision::time::{self, Nanos};
use crate::decision::verdict::Verdict;
use crate::http::failure::innermost;
use crate::log::scan::ScanBound;
use crate::metrics::Decisions;
use crate::pipeline::Pipeline;
use crate::sink::config::SinkConfig;
use crate::sink::{AnySink, any};

/// Write a capacity review of the decisions in the docket topic: load, growth and forecast, evaluation times, cost, headroom and data volume.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  docket capacity pipelines/opa.yaml                the last 30 days
  docket capacity pipelines/opa.yaml --since 7d --cores 2 --out reviews/2026-47
  docket capacity decisions.ndjson.gz               of files, without Kafka
  docket capacity pipelines/opa.yaml --out - | jq .conclusions
  docket capacity pipelines/opa.yaml --prometheus http://localhost:9090

Writes NAME.html (a self-contained page, suitable for printing), NAME.json and NAME.csv (by the hour). A forecast needs 14 whole days; \
docs/capacity.md says what each number needs, and what it means.")]
pub struct Args {
    /// Pipeline file (.yaml), to review its docket topic; or files of decision logs, of which it needs no Kafka, with a pipeline file before them for its rules and sinks.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Start of the review: start, a duration ago, or a time (RFC 3339). Default: 30d, but all of files.
    #[arg(long, value_parser = super::bound)]
    since: Option<ScanBound>,
    /// End of the review: end, a duration ago, or a time.
    #[arg(long, value_parser = super::bound, default_value = "end")]
    until: ScanBound,
    /// How far ahead to forecast.
    #[arg(long, value_parser = super::duration, default_value = "30d")]
    ahead: Duration,
    /// CPU cores available to each OPA, for headroom.
    #[arg(long, default_value_t = 1.0, value_parser = super::a_second)]
    cores: f64,
    /// Prometheus that scrapes docket, to query for days that the docket topic no longer has.
    #[arg(long, value_name = "URL", value_parser = super::url)]
    prometheus: Option<String>,
    /// Path and base name of the files; .html, .json and .csv are appended. - is standard output, for one format.
    #[arg(long, value_name = "NAME", default_value = "capacity")]
    out: PathBuf,
    /// Overwrite the files if they are there.
    #[arg(long)]
    force: bool,
    /// Write this format only. Default: all three; JSON to standard output.
    #[arg(long, value_enum)]
    format: Option<Format>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Html,
    Json,
    Csv,
}

impl Format {
    fn suffix(self) -> &'static str {
        match self {
            Format::Html => "html",
            Format::Json => "json",
            Format::Csv => "csv",
        }
    }

    fn text(self, review: &Review, now: Nanos) -> Result<String, serde_json::Error> {
        Ok(match self {
            Format::Html => report::html(review, now),
            Format::Json => serde_json::to_string_pretty(review)? + "\n",
            Format::Csv => table::csv(review),
        })
    }
}

/// Which files are written, each in its format.
fn paths(args: &Args) -> Vec<(Format, PathBuf)> {
    if args.out.as_os_str() == "-" {
        return Vec::new();
    }
    let formats = args.format.map_or(Format::value_variants().to_vec(), |one| vec![one]);
    let path = |format: Format| {
        let mut name = args.out.clone().into_os_string();
        name.push(format!(".{}", format.suffix()));
        (format, PathBuf::from(name))
    };
    formats.into_iter().map(path).collect()
}

/// Writes it; returns which files.
fn write(
    args: &Args,
    review: &Review,
    now: Nanos,
) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    if args.out.as_os_str() == "-" {
        let text = args.format.unwrap_or(Format::Json).text(review, now)?;
        std::io::stdout().lock().write_all(text.as_bytes())?;
        return Ok(Vec::new());
    }
    let mut written = Vec::new();
    for (format, path) in paths(args) {
        std::fs::write(&path, format.text(review, now)?)
            .map_err(|e| format!("{} can't be written: {e}", path.display()))?;
        written.push(path.display().to_string());
    }
    Ok(written)
}

/// About so many decisions are encoded for each sink to see what they weigh.
const WEIGHED: u64 = 50_000;

/// Why nothing can be written to the folder, which is better known before the work than after it.
fn no_folder(out: &Path) -> Option<String> {
    if out.as_os_str() == "-" {
        return None;
    }
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    if !folder.is_dir() {
        let made = crate::words::shell(&folder.display());
        return Some(format!(
            "the folder {} is not there; `mkdir -p {made}` makes it",
            folder.display()
        ));
    }
    let tried = folder.join(format!(".docket-{}", std::process::id()));
    let written = std::fs::write(&tried, "").and_then(|()| std::fs::remove_file(&tried));
    let told =
        |e| format!("nothing can be written to {}: {e}; --out says where to", folder.display());
    written.err().map(told)
}

pub async fn run(args: Args) -> CommandResult {
    super::window(args.since.unwrap_or(ScanBound::Start), args.until)?;
    // What it is of comes before where it goes.
    let (file, decisions) = offline::told_apart("capacity", &args.files)?;
    let pipeline = offline::pipeline(file)?;
    decisions.iter().try_for_each(|path| super::there(path))?;
    if let Some(told) = no_folder(&args.out) {
        return Err(told.into());
    }
    if let Some(there) = paths(&args).into_iter().map(|(_, path)| path).find(|path| path.exists())
        && !args.force
    {
        let there = there.display();
        return Err(format!(
            "{there} is there already; --force overwrites it, --out NAME writes others"
        )
        .into());
    }
    let now = crate::clock::now();
    let history = match &args.prometheus {
        Some(url) => history(url, pipeline.name(), now).await?,
        None => BTreeMap::new(),
    };
    let mut counter = Counter::new(capacity::believed(now));
    let mut read = Read {
        topic: pipeline.docket_topic(),
        history: args.prometheus.as_deref().map(without_credentials),
        ..Read::default()
    };
    let scales = if decisions.is_empty() {
        of_topic(&args, &pipeline, &mut counter, &mut read)?
    } else {
        of_files(&args, &pipeline, decisions, &mut counter, &mut read)?
    };
    let volumes = scales.into_iter().map(Scale::volume).collect();
    let ahead = (args.ahead.as_secs() / 86_400).clamp(1, 730);
    let (unreadable, repeats) = (read.unreadable, read.repeats);
    let asked = Asked {
        pipeline: pipeline.name().to_owned(),
        cores: args.cores,
        ahead,
        history,
        volumes,
        read,
        now,
        current: decisions.is_empty() && args.until == ScanBound::End,
    };
    let Some(review) = capacity::review(counter, asked) else {
        let all = "--since start reads everything it holds";
        let topic = pipeline.docket_topic();
        return Err(if decisions.is_empty() {
            format!("there are no decisions in {topic} in that period; {all}").into()
        } else {
            "no decision was found in that period".into()
        });
    };
    let mut left_out = String::new();
    if unreadable > 0 {
        let records = counted(unreadable, "record");
        left_out.push_str(&format!("; {records} not written by docket, left out"));
    }
    if review.read.odd > 0 {
        let odd = counted(review.read.odd, "decision");
        left_out.push_str(&format!("; {odd} of the future, or more than 400 days old, left out"));
    }
    say_aside(&format!(
        "{} from {} to {}{left_out}{}",
        counted(review.total.decisions, "decision"),
        time::format(review.from),
        time::format(review.to),
        recent::left_out(repeats)
    ));
    for conclusion in &review.conclusions {
        say_aside(&format!("- {}", conclusion.sentence));
    }
    for path in write(&args, &review, now)? {
        anstream::println!("{path}");
    }
    Ok(())
}

/// Counts what the docket topic holds.
fn of_topic(
    args: &Args,
    pipeline: &Pipeline,
    counter: &mut Counter,
    read: &mut Read,
) -> Result<Vec<Scale>, Box<dyn std::error::Error>> {
    let since = match args.since {
        Some(since) => since,
        None => super::bound("30d")?,
    };
    let waiting = super::waiting(&format!("Kafka at {}", pipeline.file.kafka.brokers));
    let past = pipeline.scan("capacity", &pipeline.docket_topic(), since, args.until)?;
    drop(waiting);
    let mut counting = Counting::new(counter, scales(pipeline, past.offsets())?);
    let bar = super::progress(past.offsets(), "counting");
    past.read(&mut |n| bar.inc(n), &mut |message| {
        let value = message.payload().unwrap_or_default();
        match Record::parse(value) {
            Ok(record) if record.verdict == Verdict::Finding => read.findings += 1,
            Ok(record) => counting.take(&record, value, read),
            Err(_) => read.unreadable += 1,
        }
        true
    })?;
    bar.finish_and_clear();
    Ok(counting.scales)
}

/// Counts what files of decision logs hold.
fn of_files(
    args: &Args,
    pipeline: &Pipeline,
    files: &[PathBuf],
    counter: &mut Counter,
    read: &mut Read,
) -> Result<Vec<Scale>, Box<dyn std::error::Error>> {
    let (mut all, tally) = offline::in_order(pipeline, files)?;
    if let Some(ScanBound::At(since)) = args.since {
        all.retain(|(at, _)| *at >= since);
    }
    if let ScanBound::At(until) = args.until {
        all.retain(|(at, _)| *at < until);
    }
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    read.topic = names.join(", ");
    read.findings = tally.findings;
    let rejects: u64 = tally.rejects.values().map(|(n, _)| n).sum();
    if rejects > 0 {
        say_aside(&format!("{} can't be read (docket demo shows why)", counted(rejects, "piece")));
    }
    for finding in offline::reused(&all) {
        say_aside(&super::tail::printable(&finding.sentence()));
    }
    let mut counting = Counting::new(counter, scales(pipeline, all.len() as u64)?);
    for (_, bytes) in &all {
        if let Ok(record) = Record::parse(bytes) {
            counting.take(&record, bytes, read);
        }
    }
    Ok(counting.scales)
}

/// Decisions as they are read, wherever that is.
struct Counting<'c> {
    counter: &'c mut Counter,
    scales: Vec<Scale>,
    recent: Recent,
}

impl Counting<'_> {
    fn new(counter: &mut Counter, scales: Vec<Scale>) -> Counting<'_> {
        Counting { counter, scales, recent: Recent::default() }
    }

    fn take(&mut self, record: &Record<'_>, value: &[u8], read: &mut Read) {
        if self.recent.has(record) {
            read.repeats += 1;
            return;
        }
        self.counter.add(record);
        self.scales.iter_mut().for_each(|scale| scale.take(value));
    }
}

/// What decisions weigh on their way to a sink: some batches are encoded as they would be.
struct Scale {
    sink: String,
    weigh: Result<Arc<dyn AnySink>, String>,
    batch_records: usize,
    /// One of so many batches.
    one_of: u64,
    batch: Vec<Vec<u8>>,
    seen: u64,
    bytes: u64,
    decisions: u64,
}

impl Scale {
    fn take(&mut self, value: &[u8]) {
        self.seen += 1;
        let batch = (self.seen - 1) / self.batch_records as u64;
        if self.weigh.is_err() || !batch.is_multiple_of(self.one_of) {
            return;
        }
        self.batch.push(value.to_owned());
        if self.batch.len() >= self.batch_records {
            self.encode();
        }
    }

    fn encode(&mut self) {
        let records: Vec<Record<'_>> =
            self.batch.iter().filter_map(|value| Record::parse(value).ok()).collect();
        if let (Ok(sink), false) = (&self.weigh, records.is_empty()) {
            self.bytes += sink.clone().encode(&records).size() as u64;
            self.decisions += records.len() as u64;
        }
        self.batch.clear();
    }

    fn volume(mut self) -> Volume {
        self.encode();
        Volume {
            sink: self.sink,
            bytes_per_decision: self.bytes as f64 / self.decisions.max(1) as f64,
            bytes_per_day: None,
            bytes: 0.0,
            of: self.decisions,
            unknown: self.weigh.err(),
        }
    }
}

fn scales(pipeline: &Pipeline, offsets: u64) -> Result<Vec<Scale>, prometheus::Error> {
    let registry = prometheus::Registry::new();
    let decisions = Arc::new(Decisions::new(pipeline.name(), 1, &registry, Arc::default())?);
    // The metrics sink sends nothing anywhere.
    let sinks =
        pipeline.file.sinks.iter().filter(|(_, sink)| !matches!(sink, SinkConfig::Metrics(_)));
    let scale = |(name, sink): (&String, &SinkConfig)| Scale {
        sink: name.clone(),
        weigh: any::sink(sink, &decisions).map_err(|e| format!("sink {name}: {e}")),
        // A batch is not filled unless there is a lot to do; it is then smaller, and compresses a little less.
        batch_records: sink.delivery().batch_records.clamp(1, 2000),
        one_of: offsets.div_ceil(WEIGHED).max(1),
        batch: Vec::new(),
        seen: 0,
        bytes: 0,
        decisions: 0,
    };
    Ok(sinks.map(scale).collect())
}

/// Decisions of each whole day that Prometheus has, up to 400 days back.
async fn history(url: &str, pipeline: &str, now: Nanos) -> Result<BTreeMap<i64, f64>, String> {
    let wrong = |what: String| format!("Prometheus at {}: {what}", without_credentials(url));
    let mut address =
        reqwest::Url::parse(&format!("{}/api/v1/query_range", url.trim_end_matches('/')))
            .map_err(|e| wrong(e.to_string()))?;
    let midnight = now.div_euclid(DAY);
    let query = format!("sum(increase(docket_decisions_total{{pipeline=\"{pipeline}\"}}[1d]))");
    address
        .query_pairs_mut()
        .append_pair("query", &query)
        .append_pair("start", &((midnight - 400) * 86_400).to_string())
        .append_pair("end", &(midnight * 86_400).to_string())
        .append_pair("step", "86400");
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(120))
        .build()
        .map_err(|e| wrong(e.to_string()))?;
    let answer =
        client.get(address).send().await.map_err(|e| wrong(innermost(&e.without_url())))?;
    let status = answer.status();
    let text = answer.text().await.map_err(|e| wrong(innermost(&e.without_url())))?;
    let answer: Value = serde_json::from_str(&text).map_err(|_| {
        wrong(format!("answered {status}, not in JSON; is it Prometheus' address?"))
    })?;
    if answer["status"] != "success" {
        return Err(wrong(answer["error"].as_str().unwrap_or("no success").to_owned()));
    }
    Ok(days(&answer["data"]["result"][0]["values"]))
}

/// The value at a midnight is of the day before.
fn days(values: &Value) -> BTreeMap<i64, f64> {
    let day = |pair: &Value| {
        Some((
            pair[0].as_f64()? as i64 / 86_400 - 1,
            pair[1].as_str()?.parse::<f64>().ok().filter(|n| n.is_finite())?,
        ))
    };
    let mut days: BTreeMap<i64, f64> =
        values.as_array().into_iter().flatten().filter_map(day).collect();
    // Prometheus may have begun to scrape in the middle of the first day.
    days.pop_first();
    days
}

fn without_credentials(url: &str) -> String {
    let Ok(mut url) = reqwest::Url::parse(url) else { return "that address".into() };
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_tells_of_the_day_before_each_midnight() {
        let values = serde_json::json!([
            [1_795_478_400, "5"],
            [1_795_564_800, "10"],
            [1_795_651_200, "NaN"],
            [1_795_737_600, "20.5"]
        ]);
        let first = 1_795_478_400 / 86_400;
        assert_eq!(days(&values), BTreeMap::from([(first, 10.0), (first + 2, 20.5)]));
    }

    #[test]
    fn the_help_and_the_page_ask_for_as_many_days_as_the_forecast() {
        use clap::Args as _;
        let help = Args::augment_args(clap::Command::new("capacity"));
        let help = help.get_after_help().map(ToString::to_string).unwrap_or_default();
        let needs = format!("{} whole days", capacity::forecast::FEWEST);
        assert!(help.contains(&needs), "{help}");
        let page = include_str!("../../docs/capacity.md");
        assert!(page.contains(&needs) && page.matches("whole days with").count() == 1, "{page}");
    }

    #[test]
    fn credentials_in_an_address_are_not_shown() {
        assert_eq!(without_credentials("http://user:canary@host:9090"), "http://host:9090/");
    }
}
