//! The settings of a sink: its kind's, and how batches are made and sent.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::cloudwatch::config::CloudwatchConfig;
use super::elasticsearch::config::ElasticsearchConfig;
use super::file::FileConfig;
use super::loki::config::{LogServer, LokiConfig};
use super::metrics::config::MetricsConfig;
use super::otlp::config::OtlpConfig;
use crate::config::forms::{RedactPath, redaction};
use crate::config::units::{Bytes, Span};
use crate::log::config::Start;
use crate::protect::redact::Redaction;

/// A sink: where decisions are delivered.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(rename = "Sink")]
pub enum SinkConfig {
    /// OpenTelemetry (OTLP): each decision becomes a span in the trace of its request, a log record, or both.
    Otlp(OtlpConfig),
    /// Grafana Loki, or VictoriaLogs by way of Loki's push protocol.
    Loki(LokiConfig),
    /// Elasticsearch or OpenSearch.
    Elasticsearch(ElasticsearchConfig),
    /// Amazon CloudWatch Logs.
    Cloudwatch(CloudwatchConfig),
    /// A file or standard output: one docket record per line.
    File(FileConfig),
    /// Prometheus metrics of the decisions, on the admin port.
    Metrics(MetricsConfig),
}

impl SinkConfig {
    pub fn type_name(&self) -> &'static str {
        match self {
            SinkConfig::Otlp(_) => "otlp",
            SinkConfig::Loki(_) => "loki",
            SinkConfig::Elasticsearch(_) => "elasticsearch",
            SinkConfig::Cloudwatch(_) => "cloudwatch",
            SinkConfig::File(_) => "file",
            SinkConfig::Metrics(_) => "metrics",
        }
    }

    pub fn delivery(&self) -> &Delivery {
        match self {
            SinkConfig::Otlp(s) => &s.delivery,
            SinkConfig::Loki(s) => &s.delivery,
            SinkConfig::Elasticsearch(s) => &s.delivery,
            SinkConfig::Cloudwatch(s) => &s.delivery,
            SinkConfig::File(s) => &s.delivery,
            SinkConfig::Metrics(s) => &s.delivery,
        }
    }

    pub fn delivery_mut(&mut self) -> &mut Delivery {
        match self {
            SinkConfig::Otlp(s) => &mut s.delivery,
            SinkConfig::Loki(s) => &mut s.delivery,
            SinkConfig::Elasticsearch(s) => &mut s.delivery,
            SinkConfig::Cloudwatch(s) => &mut s.delivery,
            SinkConfig::File(s) => &mut s.delivery,
            SinkConfig::Metrics(s) => &mut s.delivery,
        }
    }

    /// How many decision ids a partition are remembered to send none twice. Elasticsearch keeps one of several by itself;
    /// Loki only while it does not spread a stream over shards.
    pub fn repeat_window(&self) -> usize {
        self.delivery().repeat_window.unwrap_or(match self {
            SinkConfig::Elasticsearch(_) => 0,
            SinkConfig::Loki(_)
            | SinkConfig::Otlp(_)
            | SinkConfig::Cloudwatch(_)
            | SinkConfig::File(_)
            | SinkConfig::Metrics(_) => 10_000,
        })
    }

    /// How many batches are in flight at once. Loki's ingester puts what requests wrote to a stream into its log in any order, and when it reads
    /// that log after a crash, it takes what stands behind something newer for a repeat and drops it.
    pub fn concurrency(&self) -> usize {
        self.delivery().concurrency.unwrap_or(match self {
            SinkConfig::Loki(s) if s.server == LogServer::Loki => 1,
            _ => 4,
        })
    }

    /// What is older is not sent. Loki refuses after a week unless it is told otherwise, CloudWatch after two weeks; VictoriaLogs drops it after a
    /// week, without a word.
    pub fn max_age(&self) -> Option<Duration> {
        const DAY: u64 = 86_400;
        let default = match self {
            SinkConfig::Loki(_) => Some(7 * DAY),
            SinkConfig::Cloudwatch(_) => Some(14 * DAY),
            _ => None,
        };
        self.delivery().max_age.map(|span| span.0).or(default.map(Duration::from_secs))
    }

    /// What this sink alone does not get.
    pub fn redaction(&self) -> Redaction {
        redaction(&self.delivery().redact)
    }

    /// What the schema can't say. `problem` is told what is wrong, and where.
    pub fn check(&self, problem: &mut dyn FnMut(&[&str], String)) {
        if let SinkConfig::Cloudwatch(config) = self {
            config.check(problem);
        }
        self.delivery().check(&mut |key, message| problem(&["delivery", key], message));
    }
}

/// How batches for a sink are formed and sent.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Delivery {
    /// Where to start in the docket topic when the sink has no committed offsets. Default: earliest.
    pub start: Start,
    /// Number of records at which a batch is sent. Default: 2000.
    #[schemars(range(min = 1, max = 100000))]
    pub batch_records: usize,
    /// Size of docket records, before encoding, at which a batch is sent. Default: 2MiB.
    pub batch_bytes: Bytes,
    /// Time after its first record at which a batch is sent. Default: 500ms.
    pub batch_age: Span,
    /// Maximum number of batches in flight. Default: 4, but 1 for Loki itself: if it crashes, it may lose lines that several concurrent requests wrote to the same stream.
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: Option<usize>,
    /// Timeout of a request, after which it is retried. Default: 30s.
    pub timeout: Span,
    /// Initial backoff before a retry; it doubles with each further attempt. Default: 200ms.
    pub retry_initial: Span,
    /// Maximum backoff between retries. Default: 30s.
    pub retry_max: Span,
    /// Maximum amount of data fetched from Kafka ahead of batching. Default: 8MiB.
    pub prefetch: Bytes,
    /// Number of recent decision IDs remembered per partition, so that a decision that is in the docket topic twice is sent once; 0 disables this. Default: 10000, but 0 for Elasticsearch, which discards repeats itself.
    #[schemars(range(max = 10000000))]
    pub repeat_window: Option<usize>,
    /// Maximum age of decisions sent to this sink; older ones go where too_old says. Default: 7d for Loki and VictoriaLogs and 14d for CloudWatch, which are their own limits; unlimited for other sinks.
    pub max_age: Option<Span>,
    /// Where decisions older than max_age go: rejects, or the name of another sink. Default: rejects.
    #[serde(default = "rejects")]
    pub too_old: String,
    /// Deliver to this sink only what other sinks pass on to it by too_old. Default: false.
    pub only_routed: bool,
    /// Parts of decisions to withhold from this sink, in addition to what protect removes for all sinks: JSON pointers, in which * matches one segment and ** any number, such as /input or /docket/subject.
    pub redact: Vec<RedactPath>,
}

fn rejects() -> String {
    "rejects".into()
}

impl Default for Delivery {
    fn default() -> Delivery {
        Delivery {
            start: Start::Earliest,
            batch_records: 2000,
            batch_bytes: Bytes(2 << 20),
            batch_age: Span(Duration::from_millis(500)),
            concurrency: None,
            timeout: Span(Duration::from_secs(30)),
            retry_initial: Span(Duration::from_millis(200)),
            retry_max: Span(Duration::from_secs(30)),
            prefetch: Bytes(8 << 20),
            repeat_window: None,
            max_age: None,
            too_old: rejects(),
            only_routed: false,
            redact: Vec::new(),
        }
    }
}

impl Delivery {
    fn check(&self, problem: &mut dyn FnMut(&str, String)) {
        for (key, is_nothing) in [
            ("batch_bytes", self.batch_bytes.0 == 0),
            ("prefetch", self.prefetch.0 == 0),
            ("timeout", self.timeout.0.is_zero()),
            ("retry_initial", self.retry_initial.0.is_zero()),
            ("retry_max", self.retry_max.0.is_zero()),
        ] {
            if is_nothing {
                problem(key, "it must be greater than zero".into());
            }
        }
    }
}
