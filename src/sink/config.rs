//! The settings of a sink, of whatever kind.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::cloudwatch::config::CloudwatchConfig;
use super::delivery::Delivery;
use super::elasticsearch::config::ElasticsearchConfig;
use super::file::FileConfig;
use super::loki::config::{LogServer, LokiConfig};
use super::metrics::config::MetricsConfig;
use super::otlp::config::OtlpConfig;
use crate::config::forms::redaction;
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
