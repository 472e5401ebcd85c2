//! Settings of who is told of findings.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::secrets::{Called, Secret};
use crate::config::units::Span;
use crate::http::config::{Auth, Tls};

/// Who is told of findings.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Notify {
    /// Prometheus' Alertmanager, which groups, silences and routes.
    Alertmanager(Alertmanager),
    /// Any HTTP endpoint: a JSON document of the findings.
    Webhook(Webhook),
    /// Slack's incoming webhooks, and what takes the same: Mattermost, Rocket.Chat, Discord with /slack.
    Slack(Slack),
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alertmanager {
    /// Addresses of Alertmanager; /api/v2/alerts is added. Of a cluster name every instance: each is told.
    #[schemars(length(min = 1), inner(regex(pattern = r"^https?://.+")))]
    pub urls: Vec<String>,
    /// Labels that every alert gets.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Called>")]
    pub headers: BTreeMap<String, Secret>,
    #[serde(default)]
    pub auth: Option<Auth>,
    #[serde(default)]
    pub tls: Tls,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// POSTed to; it may be a secret.
    #[schemars(with = "String")]
    pub url: Secret,
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Called>")]
    pub headers: BTreeMap<String, Secret>,
    #[serde(default)]
    pub auth: Option<Auth>,
    #[serde(default)]
    pub tls: Tls,
    #[serde(default)]
    pub say: Say,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slack {
    /// The incoming webhook, which is a secret.
    pub url: Secret,
    /// One line of text for each finding; {sentence}, {state}, {kind}, {service}, {policy}, {cause}, {trace_id}, {decision_id}, {onset} stand for what was found.
    #[serde(default = "slack_text")]
    pub text: String,
    #[serde(default)]
    pub tls: Tls,
    #[serde(default)]
    pub say: Say,
}

fn slack_text() -> String {
    "*{state}* {sentence} (since {onset}) trace {trace_id}".into()
}

/// When people are told.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Say {
    /// Findings that come within so long of each other are one message.
    pub group_wait: Span,
    /// What goes on is said again after so long.
    pub repeat: Span,
    /// Say also when it has ended.
    pub ends: bool,
}

impl Default for Say {
    fn default() -> Say {
        Say {
            group_wait: Span(Duration::from_secs(5)),
            repeat: Span(Duration::from_secs(4 * 3600)),
            ends: true,
        }
    }
}
