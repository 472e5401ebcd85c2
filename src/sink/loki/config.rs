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
    /// Address of the server; /loki/api/v1/push is added, for VictoriaLogs /insert/loki/api/v1/push.
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub url: String,
    /// Which server takes the lines. VictoriaLogs is told to keep each as it is, and `docket verify` asks it in LogsQL.
    #[serde(default)]
    pub server: LogServer,
    /// X-Scope-OrgID; for VictoriaLogs <AccountID>:<ProjectID>.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Stream labels and where they come from: service, verdict, engine, policy, instance, label.<OPA label>, or =<fixed text>. Keep them few: each combination is a stream.
    #[serde(default = "loki_labels")]
    #[schemars(length(min = 1), extend("propertyNames" = { "pattern": LABEL_NAME }))]
    pub labels: BTreeMap<String, Label>,
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Called>")]
    pub headers: BTreeMap<String, Secret>,
    #[serde(default)]
    pub auth: Option<Auth>,
    #[serde(default)]
    pub tls: Tls,
    #[serde(default)]
    pub delivery: Delivery,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogServer {
    #[default]
    Loki,
    Victorialogs,
}

fn loki_labels() -> BTreeMap<String, Label> {
    let named = |name: &str| Some((name.to_owned(), Label::new(name).ok()?));
    ["service", "verdict", "engine"].into_iter().filter_map(named).collect()
}
