//! Settings of the CloudWatch Logs sink.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::forms::Template;
use crate::http::config::Tls;
use crate::sink::config::Delivery;

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Cloudwatch")]
pub struct CloudwatchConfig {
    /// Region; from AWS_REGION, the profile or the instance unless set.
    #[serde(default)]
    pub region: Option<String>,
    /// Profile of the AWS configuration files.
    #[serde(default)]
    pub profile: Option<String>,
    /// Address of the service instead of the region's: a VPC endpoint, a proxy.
    #[serde(default)]
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub endpoint: Option<String>,
    /// Log group.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_./#-]{1,512}$"))]
    pub group: String,
    /// Log stream; {service}, {verdict}, {engine}, {policy}, {instance} and {label.<OPA label>} stand for the decision's. Characters that a stream can't have become _.
    #[serde(default = "stream")]
    #[schemars(length(min = 1))]
    pub stream: Template,
    /// Create missing groups and streams.
    #[serde(default = "yes")]
    pub create: bool,
    /// Days that a group keeps its events, once it is created here, as CloudWatch has them: 1, 3, 5, 7, 14, 30, .. 3653; for ever unless set.
    #[serde(default)]
    #[schemars(range(min = 1, max = 3653))]
    pub retention_days: Option<u32>,
    /// Metrics in each event, in the embedded metric format: a namespace for Decisions and Duration by Service, Policy and Verdict.
    #[serde(default)]
    pub emf_namespace: Option<String>,
    #[serde(default)]
    pub tls: Tls,
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
