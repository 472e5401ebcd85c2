//! Settings of docket's own telemetry: the admin port, OTLP, where metrics are pushed.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::secrets::{Called, Secret};
use crate::config::units::Span;
use crate::http::config::{Auth, HttpCompression, ServerTls, Tls};

/// The admin port, which serves /metrics, /healthz, /readyz, /status and, if it is told who may ask, /why/ID.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address to listen on, host:port. Port 0 chooses a free port, which is logged. Default: 127.0.0.1:9464.
    #[schemars(regex(pattern = r"^\S+:\d{1,5}$"))]
    pub listen: String,
    /// TLS settings. Default: plain HTTP.
    pub tls: Option<ServerTls>,
    /// Token for /why/ID, which shows decisions: as a bearer token, or as the password that a browser asks for. Without it and without tls.client_ca_file there is no /why.
    pub why_token: Option<Secret>,
}

impl Default for Admin {
    fn default() -> Admin {
        Admin { listen: "127.0.0.1:9464".into(), tls: None, why_token: None }
    }
}

/// Where docket sends its own traces, logs and metrics.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// OTLP/gRPC endpoint for docket's own traces and logs, such as http://collector:4317. Not sent by default.
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub otlp: Option<String>,
    /// Destinations, by name, that metrics are pushed to, for environments where the admin port can't be scraped.
    pub push: BTreeMap<String, Push>,
}

/// A destination that metrics are pushed to.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Push {
    /// Prometheus remote write.
    RemoteWrite(RemoteWrite),
    /// OTLP metrics over HTTP, encoded as protobuf.
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
    /// Complete URL, such as https://mimir/api/v1/push or http://prometheus:9090/api/v1/write.
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub url: String,
    /// Version of the remote write protocol. Default: auto.
    #[serde(default)]
    pub version: Version,
    /// Interval between pushes. Default: 15s.
    #[serde(default = "often")]
    pub interval: Span,
    /// Labels added to every series. Default: job=docket, and instance, the name of the host.
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

/// Version of the Prometheus remote write protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Version {
    /// 2.0, with a fallback to 1.0 for servers that do not support it.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// Remote write 1.0.
    #[serde(rename = "1.0")]
    V1,
    /// Remote write 2.0.
    #[serde(rename = "2.0")]
    V2,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Otlp {
    /// Base URL, such as http://host:4318, or http://host:9090/api/v1/otlp for Prometheus; /v1/metrics is appended.
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub endpoint: String,
    /// Interval between pushes. Default: 15s.
    #[serde(default = "often")]
    pub interval: Span,
    /// Resource attributes. Default: service.name (docket), service.instance.id (the name of the host) and service.version.
    #[serde(default)]
    pub resource: BTreeMap<String, String>,
    /// Compression of requests. Default: gzip.
    #[serde(default)]
    pub compression: HttpCompression,
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

fn often() -> Span {
    Span(Duration::from_secs(15))
}
