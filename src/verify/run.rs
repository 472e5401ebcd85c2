//! Reads the docket topic and rejects, asks each sink, and compares.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use rdkafka::message::Message;
use serde::Serialize;

use super::{Compared, Overview, Wanted, compare, overview};
use crate::clock::now;
use crate::decision::json;
use crate::decision::record::Record;
use crate::decision::time::nanos;
use crate::log::dead_letter::{Letter, without_receipts};
use crate::log::scan::{ScanBound, ScanError};
use crate::pipeline::Pipeline;
use crate::protect::redact::Redaction;
use crate::sink::any;
use crate::sink::config::SinkConfig;
use crate::sink::query::{Answer, Decision, Hash, QueryError, Question, SinkQuery};

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Scan(#[from] ScanError),
    #[error("sink {sink}: {error}")]
    Sink { sink: String, error: QueryError },
    #[error("{0}")]
    Opa(String),
}

/// What is compared.
pub struct Scope {
    /// Decisions that Kafka got between these.
    pub from: ScanBound,
    pub until: ScanBound,
    /// Only these sinks; all if there are none.
    pub sinks: Vec<String>,
    /// How many are asked for where each is a request of its own.
    pub sample: usize,
    /// How long what is missing may still be on its way.
    pub settle: Duration,
}

/// Is told how a step goes on.
pub trait Watch: Sync {
    /// A step begins: what it is, and how much there is to do.
    fn begin(&self, what: &str, total: u64);
    fn step(&self, n: u64);
    fn end(&self);
}

/// A sink that is checked.
pub(super) struct Checked<'p> {
    pub name: &'p str,
    config: &'p SinkConfig,
    pub query: Result<Box<dyn SinkQuery>, &'static str>,
    /// What the sink alone does not get.
    redaction: Redaction,
    /// By decision, in their order.
    wanted: Vec<Hash>,
}

pub(super) fn checked<'p>(
    pipeline: &'p Pipeline,
    scope: &Scope,
) -> Result<Vec<Checked<'p>>, VerifyError> {
    let sinks = pipeline.file.sinks.iter();
    let sinks = sinks.filter(|(name, _)| scope.sinks.is_empty() || scope.sinks.contains(name));
    let one = |(name, config): (&'p String, &'p SinkConfig)| {
        let query = any::query(pipeline.name(), config)
            .map_err(|error| VerifyError::Sink { sink: name.clone(), error })?;
        Ok(Checked { name, config, query, redaction: config.redaction(), wanted: Vec::new() })
    };
    sinks.map(one).collect()
}

impl Checked<'_> {
    /// Takes note of what the sink is to hold of a record.
    pub fn want(&mut self, record: &Record<'_>) {
        let Ok(query) = &mut self.query else { return };
        let value = self.redaction.apply(record.raw.as_bytes());
        let hash = match Record::parse(&value) {
            Ok(redacted) => query.wanted(&redacted),
            Err(_) => query.wanted(record),
        };
        self.wanted.push(hash);
    }
}

/// The result for one sink.
#[derive(Serialize)]
pub struct Report {
    pub sink: String,
    pub r#type: &'static str,
    /// Set if it was not compared, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// Set if only a sample was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts: Option<BTreeMap<String, f64>>,
    #[serde(flatten)]
    pub compared: Compared,
    pub gaps: usize,
}

/// The result.
pub struct Verified {
    pub about: Overview,
    /// How many records of the docket topic are none.
    pub unreadable: usize,
    pub sinks: Vec<Report>,
}

impl Verified {
    pub fn gaps(&self) -> usize {
        self.unreadable + self.sinks.iter().map(|report| report.gaps).sum::<usize>()
    }
}

pub async fn verify(
    pipeline: &Pipeline,
    scope: &Scope,
    watch: &dyn Watch,
) -> Result<Verified, VerifyError> {
    let mut sinks = checked(pipeline, scope)?;
    let (decisions, unreadable) =
        tokio::task::block_in_place(|| read(pipeline, scope, &mut sinks, watch))?;
    let rejected = tokio::task::block_in_place(|| rejected(pipeline, watch))?;
    let mut reports = Vec::new();
    for sink in &sinks {
        let report = report(scope, sink, &decisions, &rejected, watch).await;
        let wrong = |error| VerifyError::Sink { sink: sink.name.to_owned(), error };
        reports.push(report.map_err(wrong)?);
    }
    Ok(Verified { about: overview(&decisions), unreadable, sinks: reports })
}

/// A decision as it stands in the docket topic.
pub(super) fn decision(record: &Record<'_>, message: &impl Message) -> Decision {
    let kafka = message.timestamp().to_millis().unwrap_or(0);
    Decision::new(record, message.partition(), kafka)
}

/// Reads the docket topic; also how many of its records are none.
fn read(
    pipeline: &Pipeline,
    scope: &Scope,
    sinks: &mut [Checked<'_>],
    watch: &dyn Watch,
) -> Result<(Vec<Decision>, usize), ScanError> {
    let past = pipeline.scan("verify", &pipeline.docket_topic(), scope.from, scope.until)?;
    watch.begin("reading the docket", past.offsets());
    let (mut decisions, mut unreadable) = (Vec::new(), 0);
    past.read(&mut |n| watch.step(n), &mut |message| {
        match Record::parse(message.payload().unwrap_or_default()) {
            Ok(record) => {
                sinks.iter_mut().for_each(|sink| sink.want(&record));
                decisions.push(decision(&record, message));
            }
            Err(_) => unreadable += 1,
        }
        true
    })?;
    watch.end();
    Ok((decisions, unreadable))
}

/// What stands in rejects: sink and decision id.
fn rejected(
    pipeline: &Pipeline,
    watch: &dyn Watch,
) -> Result<BTreeSet<(String, String)>, ScanError> {
    let (from, until) = (ScanBound::Start, ScanBound::End);
    let past = pipeline.scan("verify", &pipeline.rejects_topic(), from, until)?;
    watch.begin("reading rejects", past.offsets());
    let mut letters = Vec::new();
    past.read(&mut |n| watch.step(n), &mut |message| {
        letters.push(Letter::read(message));
        true
    })?;
    watch.end();
    let (letters, _) = without_receipts(letters);
    let pair = |letter: &Letter| {
        let text = std::str::from_utf8(&letter.value).ok()?;
        let id = json::get(text, "decision_id").and_then(json::as_str)?;
        Some((letter.sink()?.to_owned(), id.into_owned()))
    };
    Ok(letters.iter().filter_map(pair).collect())
}

async fn report(
    scope: &Scope,
    sink: &Checked<'_>,
    decisions: &[Decision],
    rejected: &BTreeSet<(String, String)>,
    watch: &dyn Watch,
) -> Result<Report, QueryError> {
    let mut report = Report {
        sink: sink.name.to_owned(),
        r#type: sink.config.type_name(),
        skipped: None,
        sample: None,
        counts: None,
        compared: Compared::default(),
        gaps: 0,
    };
    let query = match &sink.query {
        Ok(query) => query,
        Err(why) => {
            report.skipped = Some((*why).to_owned());
            return Ok(report);
        }
    };
    // What the docket got last may still be on its way.
    let newest = decisions.iter().map(|d| d.kafka).max().unwrap_or(0) * 1_000_000;
    let deadline = newest.saturating_add(nanos(scope.settle));
    loop {
        watch.begin(&format!("asking {}", sink.name), decisions.len() as u64);
        let step = |n| watch.step(n);
        let question = Question { decisions, sample: scope.sample, step: &step };
        let answer = query.ask(question).await?;
        watch.end();
        match answer {
            Answer::All(found) => {
                report.compared = compare(wanted(sink, decisions, rejected, None), &found);
                report.gaps = report.compared.gaps();
            }
            Answer::Sample(found, ids) => {
                report.compared = compare(wanted(sink, decisions, rejected, Some(&ids)), &found);
                report.gaps = report.compared.gaps();
                report.sample = Some(ids.len());
            }
            Answer::Counts(counts) => counted(counts, decisions, &mut report),
        }
        if report.gaps == 0 || now() > deadline {
            return Ok(report);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// What the sink should hold; of a sample only what is in it.
fn wanted<'a>(
    sink: &'a Checked<'_>,
    decisions: &'a [Decision],
    rejected: &'a BTreeSet<(String, String)>,
    sample: Option<&'a BTreeSet<String>>,
) -> impl Iterator<Item = Wanted<'a>> {
    let age = sink.config.max_age().map(nanos);
    let routed = sink.config.delivery().too_old != "rejects";
    decisions
        .iter()
        .zip(&sink.wanted)
        .filter(move |(d, _)| sample.is_none_or(|ids| ids.contains(&d.id)))
        .map(move |(d, hash)| Wanted {
            id: &d.id,
            hash: *hash,
            rejected: rejected.contains(&(sink.name.to_owned(), d.id.clone())),
            elsewhere: routed && age.is_some_and(|age| now() - d.timestamp > age),
        })
}

/// Counts are compared as a whole: a gap if they differ by more than a hundredth.
fn counted(counts: BTreeMap<String, f64>, decisions: &[Decision], report: &mut Report) {
    let mut distinct: HashMap<&str, &'static str> = HashMap::new();
    for decision in decisions {
        distinct.insert(&decision.id, decision.verdict.as_str());
    }
    report.compared.expected = distinct.len();
    report.compared.present = counts.values().sum::<f64>().round() as usize;
    report.gaps = 0;
    for verdict in ["allow", "deny", "undefined", "error"] {
        let expected = distinct.values().filter(|v| **v == verdict).count() as f64;
        let got = counts.get(verdict).copied().unwrap_or(0.0);
        if (expected - got).abs() > (expected / 100.0).max(0.5) {
            report.gaps += 1;
        }
    }
    report.counts = Some(counts);
}
