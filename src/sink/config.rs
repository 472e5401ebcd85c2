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

/// Where decisions go.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(rename = "Sink")]
pub enum SinkConfig {
    /// OTLP: each decision a span in its request's trace, or a log record, or both.
    Otlp(OtlpConfig),
    /// Grafana Loki, or VictoriaLogs, which speaks its push protocol.
    Loki(LokiConfig),
    /// Elasticsearch or OpenSearch.
    Elasticsearch(ElasticsearchConfig),
    /// Amazon CloudWatch Logs.
    Cloudwatch(CloudwatchConfig),
    /// A file, or standard output: one docket record a line.
    File(FileConfig),
    /// Prometheus metrics on the admin port.
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

/// How a sink's batches are made and sent.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Delivery {
    /// Where a sink without offsets begins in the docket topic.
    pub start: Start,
    /// A batch is sent when it has so many records,
    #[schemars(range(min = 1, max = 100000))]
    pub batch_records: usize,
    /// or so many bytes of docket records,
    pub batch_bytes: Bytes,
    /// or its first record waits so long.
    pub batch_age: Span,
    /// Batches in flight at once. 1 for Loki itself, which may lose lines when it crashes that several requests wrote to one stream at once, 4 for the others unless set.
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: Option<usize>,
    /// A request that takes longer is given up and sent again.
    pub timeout: Span,
    /// The first pause before sending again; it doubles each time,
    pub retry_initial: Span,
    /// up to this.
    pub retry_max: Span,
    /// At most so much is fetched ahead of batching.
    pub prefetch: Bytes,
    /// So many decision ids of each partition are remembered, so that a decision that stands twice in the docket is sent once; 0 for none. 0 for Elasticsearch, which keeps one of several by itself, 10000 for the others unless set.
    #[schemars(range(max = 10000000))]
    pub repeat_window: Option<usize>,
    /// Older decisions are not sent to this sink. 7d for Loki and VictoriaLogs, which do not take them from there on by default, 14d for CloudWatch.
    pub max_age: Option<Span>,
    /// Where they go: rejects, or the name of a sink.
    #[serde(default = "rejects")]
    pub too_old: String,
    /// The sink gets only what others name it for (too_old).
    pub only_routed: bool,
    /// What this sink alone does not get, beside what protect takes out for all: JSON pointers with * and **, such as /input or /docket/subject.
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
                problem(key, "it must be more than nothing".into());
            }
        }
    }
}
