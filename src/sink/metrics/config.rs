//! Settings of the metrics sink.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sink::delivery::Delivery;

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Metrics")]
pub struct MetricsConfig {
    /// Base URL of the Prometheus that scrapes docket, for `docket verify`. Without it, the sink is not verified.
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub query: Option<String>,
    /// Maximum number of combinations of service, policy, verdict and bundle revision with a series of their own. The busiest keep theirs, others are counted under `other`, and idle ones make room. Default: 10000.
    #[schemars(range(min = 10, max = 1000000))]
    pub max_series: usize,
    /// How batches are formed and counted.
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
