//! Settings of the OTLP sink.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::secrets::{Called, Secret};
use crate::http::config::{Auth, HttpCompression, Tls};
use crate::sink::config::Delivery;

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Otlp")]
pub struct OtlpConfig {
    /// http://host:4317 for gRPC, http://host:4318 for HTTP (/v1/traces and /v1/logs are added).
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub endpoint: String,
    #[serde(default)]
    pub protocol: OtlpProtocol,
    /// What a decision becomes.
    #[serde(default = "only_traces")]
    #[schemars(length(min = 1))]
    pub signals: Vec<Signal>,
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Called>")]
    pub headers: BTreeMap<String, Secret>,
    #[serde(default)]
    pub auth: Option<Auth>,
    #[serde(default)]
    pub tls: Tls,
    #[serde(default)]
    pub compression: HttpCompression,
    /// Where traces can be asked for, for `docket verify`: the query address of Jaeger or Tempo; /api/traces/<trace id> is added. The sink's credentials are sent there only if it is the same host.
    #[serde(default)]
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub query: Option<String>,
    #[serde(default)]
    pub delivery: Delivery,
}

fn only_traces() -> Vec<Signal> {
    vec![Signal::Traces]
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OtlpProtocol {
    #[default]
    Grpc,
    /// HTTP with protobuf.
    Http,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    Traces,
    Logs,
}
