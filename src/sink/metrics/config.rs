//! Settings of the metrics sink.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sink::config::Delivery;

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Metrics")]
pub struct MetricsConfig {
    /// Address of the Prometheus that scrapes docket, for `docket verify`.
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub query: Option<String>,
    /// How many combinations of service, policy, verdict and bundle revision have a series of their own. The heaviest keep theirs, others are counted as `other`, the idle make room.
    #[schemars(range(min = 10, max = 1000000))]
    pub max_series: usize,
    pub delivery: Delivery,
}

impl Default for MetricsConfig {
    fn default() -> MetricsConfig {
        MetricsConfig {
            query: None,
            max_series: crate::metrics::MAX_SERIES,
            delivery: Delivery::default(),
        }
    }
}
