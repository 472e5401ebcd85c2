//! Settings of the CloudWatch Logs sink.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::forms::Template;
use crate::http::config::Tls;
use crate::sink::delivery::Delivery;

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Cloudwatch")]
pub struct CloudwatchConfig {
    /// AWS region. Default: that of AWS_REGION, the profile or the instance.
    #[serde(default)]
    pub region: Option<String>,
    /// Profile in the AWS configuration files. Default: AWS_PROFILE, or default.
    #[serde(default)]
    pub profile: Option<String>,
    /// URL of the service, such as a VPC endpoint. Default: the public endpoint of the region.
    #[serde(default)]
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub endpoint: Option<String>,
    /// Name of the log group.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_./#-]{1,512}$"))]
    pub group: String,
    /// Name of the log stream. {service}, {verdict}, {engine}, {policy}, {instance} and {label.<OPA label>} are replaced by the decision's values, and characters that are not allowed by _. Default: "{service}".
    #[serde(default = "stream")]
    #[schemars(length(min = 1))]
    pub stream: Template,
    /// Create log groups and streams that are missing. Default: true.
    #[serde(default = "yes")]
    pub create: bool,
    /// Retention in days of a log group that docket creates; one of the values that CloudWatch accepts: 1, 3, 5, 7, 14, 30, .. 3653. Default: unlimited.
    #[serde(default)]
    #[schemars(range(min = 1, max = 3653))]
    pub retention_days: Option<u32>,
    /// CloudWatch namespace for the metrics Decisions and Duration by Service, Policy and Verdict, written into each event in the embedded metric format. Default: no metrics.
    #[serde(default)]
    pub emf_namespace: Option<String>,
    /// TLS settings for https addresses.
    #[serde(default)]
    pub tls: Tls,
    /// How batches are formed and sent.
    #[serde(default)]
    pub delivery: Delivery,
}

fn stream() -> Template {
    Template::new("{service}").expect("it is one")
}

fn yes() -> bool {
    true
}

/// <https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html>
const RETENTIONS: [u32; 22] = [
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922,
    3288, 3653,
];

impl CloudwatchConfig {
    pub fn check(&self, problem: &mut dyn FnMut(&[&str], String)) {
        if let Some(days) = self.retention_days.filter(|days| !RETENTIONS.contains(days)) {
            problem(
                &["retention_days"],
                format!("CloudWatch has no retention of {days} days; it has {RETENTIONS:?}"),
            );
        }
    }
}
