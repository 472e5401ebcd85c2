//! Settings of who is told of findings.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::secrets::{Called, Secret};
use crate::config::units::Span;
use crate::http::config::{Auth, Tls};

/// A notifier: where findings are sent.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Notify {
    /// Prometheus Alertmanager, which groups, silences and routes alerts.
    Alertmanager(Alertmanager),
    /// Any HTTP endpoint; receives a JSON document of the findings.
    Webhook(Webhook),
    /// A Slack incoming webhook, or a compatible one: Mattermost, Rocket.Chat, Discord with /slack.
    Slack(Slack),
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alertmanager {
    /// Base URLs of Alertmanager; /api/v2/alerts is appended. For a cluster, list every instance: alerts are sent to each.
    #[schemars(length(min = 1), inner(regex(pattern = r"^https?://.+")))]
    pub urls: Vec<String>,
    /// Labels added to every alert.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Additional HTTP headers.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Called>")]
    pub headers: BTreeMap<String, Secret>,
    /// Credentials. None by default.
    #[serde(default)]
    pub auth: Option<Auth>,
    /// TLS settings for https addresses.
    #[serde(default)]
    pub tls: Tls,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// URL that findings are posted to. May be a reference to a secret.
    #[schemars(with = "String")]
    pub url: Secret,
    /// Additional HTTP headers.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Called>")]
    pub headers: BTreeMap<String, Secret>,
    /// Credentials. None by default.
    #[serde(default)]
    pub auth: Option<Auth>,
    /// TLS settings for https addresses.
    #[serde(default)]
    pub tls: Tls,
    /// When messages are sent.
    #[serde(default)]
    pub say: Say,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slack {
    /// URL of the incoming webhook.
    pub url: Secret,
    /// Text of the message, one line per finding. {sentence}, {state}, {kind}, {service}, {policy}, {cause}, {trace_id}, {decision_id} and {onset} are replaced by the finding's values. Default: "*{state}* {sentence} (since {onset}) trace {trace_id}".
    #[serde(default = "slack_text")]
    pub text: String,
    /// TLS settings for https addresses.
    #[serde(default)]
    pub tls: Tls,
    /// When messages are sent.
    #[serde(default)]
    pub say: Say,
}

fn slack_text() -> String {
    "*{state}* {sentence} (since {onset}) trace {trace_id}".into()
}

/// When messages about findings are sent.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Say {
    /// How long to wait for further findings to send in the same message. Default: 5s.
    pub group_wait: Span,
    /// How long further findings with the same cause (one subject, tenant, bundle revision or OPA) wait after a message about it, and the ends of all but the last of them. Default: 5m.
    pub group_interval: Span,
    /// Interval at which a finding that continues is sent again. Default: 4h.
    pub repeat: Span,
    /// Send a message when a finding ends, too. Default: true.
    pub ends: bool,
}

impl Default for Say {
    fn default() -> Say {
        Say {
            group_wait: Span(Duration::from_secs(5)),
            group_interval: Span(Duration::from_secs(300)),
            repeat: Span(Duration::from_secs(4 * 3600)),
            ends: true,
        }
    }
}
