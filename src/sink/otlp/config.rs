//! Settings of the OTLP sink.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::secrets::{Called, Secret};
use crate::http::client::{Client, HttpError};
use crate::http::config::{Auth, HttpCompression, Tls};
use crate::sink::delivery::Delivery;

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Otlp")]
pub struct OtlpConfig {
    /// Endpoint: http://host:4317 for gRPC, http://host:4318 for HTTP (/v1/traces and /v1/logs are appended).
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub endpoint: String,
    /// OTLP transport. Default: grpc.
    #[serde(default)]
    pub protocol: OtlpProtocol,
    /// Signals to send for each decision. Default: [traces].
    #[serde(default = "only_traces")]
    #[schemars(length(min = 1))]
    pub signals: Vec<Signal>,
    /// Whether a match that comes after its decision was delivered (see join) is sent as a span docket.amendment, with a link to the decision's span. Default: true, but false without the signal traces.
    #[serde(default)]
    pub amendments: Option<bool>,
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
    /// Compression of requests. Default: gzip.
    #[serde(default)]
    pub compression: HttpCompression,
    /// Base URL of the query API of Jaeger or Tempo, for `docket verify`; /api/traces/<trace ID> is appended. The sink's credentials are sent there only if the host is the same. Without it, the sink is not verified.
    #[serde(default)]
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub query: Option<String>,
    /// How batches are formed and sent.
    #[serde(default)]
    pub delivery: Delivery,
}

impl OtlpConfig {
    pub fn client(&self) -> Result<Client, HttpError> {
        Client::new(&self.tls, self.auth.as_ref(), &self.headers, self.delivery.timeout.0)
    }

    /// Whether late matches are sent.
    pub fn amends(&self) -> bool {
        self.amendments.unwrap_or(self.signals.contains(&Signal::Traces))
    }

    pub fn check(&self, problem: &mut dyn FnMut(&[&str], String)) {
        if !self.signals.contains(&Signal::Traces) && self.amendments == Some(true) {
            let message = "an amendment is a span, and this sink gets no traces (signals)";
            problem(&["amendments"], message.into());
        }
    }
}

fn only_traces() -> Vec<Signal> {
    vec![Signal::Traces]
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OtlpProtocol {
    /// OTLP over gRPC.
    #[default]
    Grpc,
    /// OTLP over HTTP, encoded as protobuf.
    Http,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// A span in the trace of the request.
    Traces,
    /// A log record.
    Logs,
}
