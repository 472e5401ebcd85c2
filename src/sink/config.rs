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
use crate::http::client::place;
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

    /// Where it is, for people: no credentials, and no path of a URL, which may hold a secret.
    pub fn address(&self) -> String {
        let url = match self {
            SinkConfig::Otlp(s) => s.endpoint.as_str(),
            SinkConfig::Loki(s) => &s.url,
            SinkConfig::Elasticsearch(s) => &s.url,
            SinkConfig::Cloudwatch(s) => match (&s.endpoint, &s.region) {
                (Some(endpoint), _) => endpoint,
                (None, region) => return region.clone().unwrap_or_else(|| "CloudWatch".into()),
            },
            SinkConfig::File(s) => return s.path.display().to_string(),
            SinkConfig::Metrics(_) => return "this process".into(),
        };
        reqwest::Url::parse(url)
            .map_or_else(|_| "an address that is none".into(), |url| place(&url))
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
            | SinkConfig::Metrics(_) => self.delivery().remembered,
        })
    }

    /// How many decision ids a partition are remembered to notice another decision under one of them, also where repeats are not dropped.
    pub fn reuse_window(&self) -> usize {
        match self.delivery().repeat_window {
            None => self.delivery().remembered,
            Some(window) => window,
        }
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

    /// Whether it gets matches that came after their decisions; what is passed on to it by others, it has without.
    pub fn amends(&self) -> bool {
        !self.delivery().only_routed
            && match self {
                SinkConfig::Elasticsearch(s) => s.amends(),
                SinkConfig::Otlp(s) => s.amends(),
                SinkConfig::Loki(_)
                | SinkConfig::Cloudwatch(_)
                | SinkConfig::File(_)
                | SinkConfig::Metrics(_) => false,
            }
    }

    /// Whether an amendment names the document that it is of.
    pub fn has_documents(&self) -> bool {
        matches!(self, SinkConfig::Elasticsearch(_))
    }

    /// What the schema can't say. `problem` is told what is wrong, and where.
    pub fn check(&self, problem: &mut dyn FnMut(&[&str], String)) {
        match self {
            SinkConfig::Cloudwatch(config) => config.check(problem),
            SinkConfig::File(config) => config.check(problem),
            SinkConfig::Elasticsearch(config) => config.check(problem),
            SinkConfig::Otlp(config) => config.check(problem),
            _ => {}
        }
        self.delivery().check(&mut |key, message| problem(&["delivery", key], message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_without_what_may_be_secret() {
        use serde_json::json;
        for (config, address) in [
            (json!({"type": "loki", "url": "https://u:canary@l:3100/canary"}), "https://l:3100"),
            (json!({"type": "otlp", "endpoint": "http://tempo:4317"}), "http://tempo:4317"),
            (json!({"type": "cloudwatch", "region": "eu-central-1", "group": "g"}), "eu-central-1"),
            (json!({"type": "file", "path": "/tmp/x"}), "/tmp/x"),
            (json!({"type": "metrics"}), "this process"),
        ] {
            let config: SinkConfig = serde_json::from_value(config).unwrap();
            assert_eq!(config.address(), address);
        }
    }
}
