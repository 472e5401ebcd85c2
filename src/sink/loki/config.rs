//! Settings of the Loki sink.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::forms::{LABEL_NAME, Label};
use crate::config::secrets::{Called, Secret};
use crate::http::config::{Auth, Tls};
use crate::sink::config::Delivery;

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Loki")]
pub struct LokiConfig {
    /// Base URL of the server; /loki/api/v1/push is appended, or /insert/loki/api/v1/push for VictoriaLogs.
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub url: String,
    /// Kind of server. VictoriaLogs is told to keep each line unchanged, and is queried in LogsQL by `docket verify`. Default: loki.
    #[serde(default)]
    pub server: LogServer,
    /// Tenant: the value of X-Scope-OrgID, or <AccountID>:<ProjectID> for VictoriaLogs.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Stream labels and the source of their values: service, verdict, engine, policy, instance, label.<OPA label>, or =<fixed text>. Keep them few, since each combination of values is a stream. Default: service, verdict and engine.
    #[serde(default = "loki_labels")]
    #[schemars(length(min = 1), extend("propertyNames" = { "pattern": LABEL_NAME }))]
    pub labels: BTreeMap<String, Label>,
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
    /// How batches are formed and sent.
    #[serde(default)]
    pub delivery: Delivery,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogServer {
    /// Grafana Loki.
    #[default]
    Loki,
    /// VictoriaLogs.
    Victorialogs,
}

fn loki_labels() -> BTreeMap<String, Label> {
    let named = |name: &str| Some((name.to_owned(), Label::new(name).ok()?));
    ["service", "verdict", "engine"].into_iter().filter_map(named).collect()
}
