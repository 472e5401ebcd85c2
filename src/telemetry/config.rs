//! Settings of docket's own telemetry: the admin port, OTLP, where metrics are pushed.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::secrets::{Called, Secret};
use crate::config::units::Span;
use crate::http::config::{Auth, HttpCompression, ServerTls, Tls};

/// The admin port: /metrics, /healthz, /readyz.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// host:port to listen on; port 0 takes a free one, which the log names.
    #[schemars(regex(pattern = r"^\S+:\d{1,5}$"))]
    pub listen: String,
    /// Plain HTTP unless set.
    pub tls: Option<ServerTls>,
}

impl Default for Admin {
    fn default() -> Admin {
        Admin { listen: "127.0.0.1:9464".into(), tls: None }
    }
}

/// docket's own logs and traces.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// OTLP/gRPC endpoint for docket's own traces and logs.
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub otlp: Option<String>,
    /// Where the metrics are pushed, by name, for those who can't scrape the admin port.
    pub push: BTreeMap<String, Push>,
}

/// Where metrics are pushed.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Push {
    /// Prometheus remote write.
    RemoteWrite(RemoteWrite),
    /// OTLP metrics over HTTP with protobuf.
    Otlp(Otlp),
}

impl Push {
    pub fn interval(&self) -> Span {
        match self {
            Push::RemoteWrite(r) => r.interval,
            Push::Otlp(o) => o.interval,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoteWrite {
    /// The whole address, such as https://mimir/api/v1/push or http://prometheus:9090/api/v1/write.
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub url: String,
    #[serde(default)]
    pub version: Version,
    #[serde(default = "often")]
    pub interval: Span,
    /// Labels of every series. job (docket) and instance (the host's name) unless set.
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

/// The version of remote write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Version {
    /// 2.0, and 1.0 for a server that does not take it.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    #[serde(rename = "1.0")]
    V1,
    #[serde(rename = "2.0")]
    V2,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Otlp {
    /// http://host:4318; /v1/metrics is added. For Prometheus, http://host:9090/api/v1/otlp.
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub endpoint: String,
    #[serde(default = "often")]
    pub interval: Span,
    /// Attributes of the resource. service.name (docket), service.instance.id (the host's name) and service.version unless set.
    #[serde(default)]
    pub resource: BTreeMap<String, String>,
    #[serde(default)]
    pub compression: HttpCompression,
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Called>")]
    pub headers: BTreeMap<String, Secret>,
    #[serde(default)]
    pub auth: Option<Auth>,
    #[serde(default)]
    pub tls: Tls,
}

fn often() -> Span {
    Span(Duration::from_secs(15))
}
