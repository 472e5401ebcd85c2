//! What is compared, how that can fail, and who is told how it goes on.

use std::time::Duration;

use rdkafka::message::Message;

use crate::decision::record::Record;
use crate::log::scan::{ScanBound, ScanError};
use crate::pipeline::Pipeline;
use crate::protect::redact::Redaction;
use crate::sink::any;
use crate::sink::config::SinkConfig;
use crate::sink::query::{Decision, Hash, SinkQuery};

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Scan(#[from] ScanError),
    #[error("what was read can't be kept for the comparison: {0}; TMPDIR says where")]
    Scratch(#[from] std::io::Error),
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
    /// Whether the source is compared with the docket.
    pub source: bool,
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
    pub config: &'p SinkConfig,
    pub query: Result<Box<dyn SinkQuery>, NotAsked>,
    /// What the sink alone does not get.
    redaction: Redaction,
}

/// Why a sink is not asked.
pub(super) enum NotAsked {
    /// It can't tell.
    Mute(&'static str),
    Unreachable(String),
}

pub(super) fn checked<'p>(pipeline: &'p Pipeline, scope: &Scope) -> Vec<Checked<'p>> {
    let sinks = pipeline.file.sinks.iter();
    let sinks = sinks.filter(|(name, _)| scope.sinks.is_empty() || scope.sinks.contains(name));
    let one = |(name, config): (&'p String, &'p SinkConfig)| {
        let amended = pipeline.file.join.is_some() && config.amends();
        let query = match any::query(pipeline.name(), config, amended) {
            Ok(query) => query.map_err(NotAsked::Mute),
            Err(error) => Err(NotAsked::Unreachable(error.to_string())),
        };
        Checked { name, config, query, redaction: config.redaction() }
    };
    sinks.map(one).collect()
}

impl Checked<'_> {
    /// The hash of what the sink is to hold of a record, of which it takes note.
    pub fn want(&mut self, record: &Record<'_>) -> Hash {
        let Ok(query) = &mut self.query else { return 0 };
        let value = self.redaction.apply(record.raw.as_bytes());
        match Record::parse(&value) {
            Ok(redacted) => query.wanted(&redacted),
            Err(_) => query.wanted(record),
        }
    }
}

/// A decision as it stands in the docket topic.
pub(super) fn decision(record: &Record<'_>, message: &impl Message) -> Decision {
    let kafka = message.timestamp().to_millis().unwrap_or(0);
    Decision::new(record, message.partition(), kafka)
}
