//! The pipeline file's `door:` section: decision logs over HTTP.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::secrets::Secret;
use crate::config::units::{Bytes, Span};
use crate::http::config::ServerTls;

/// HTTP endpoint for what OPA uploads: decision logs (POST /logs), status (POST /status) and OTLP logs (POST /v1/logs).
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Door")]
pub struct DoorConfig {
    /// Address to listen on, host:port. Port 0 chooses a free port, which is logged.
    #[schemars(regex(pattern = r"^\S+:\d{1,5}$"))]
    pub listen: String,
    /// Topic that decisions are written to. Default: the topic of the first source.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,249}$"))]
    pub topic: Option<String>,
    /// Paths that accept decision logs, as in OPA's decision_logs.resource_path. A further segment (OPA's partition_name) is accepted after each. Default: [/logs].
    #[serde(default = "paths")]
    #[schemars(length(min = 1))]
    pub paths: Vec<String>,
    /// TLS settings. Default: plain HTTP.
    #[serde(default)]
    pub tls: Option<ServerTls>,
    /// Bearer tokens, by name of the client. If there are any, every request needs one of them. Changes take effect without closing connections.
    #[serde(default)]
    pub tokens: BTreeMap<String, Secret>,
    /// Limits on what clients may do.
    #[serde(default)]
    pub limits: DoorLimits,
}

fn paths() -> Vec<String> {
    vec!["/logs".into()]
}

/// Limits on what clients of the door may do.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DoorLimits {
    /// Maximum size of a request body as transferred; larger ones get 413. After decompression, the pipeline's limits.record_bytes applies. Default: 8MiB.
    pub body_bytes: Bytes,
    /// Maximum number of requests in progress; further ones get 503. Default: 256.
    #[schemars(range(min = 1, max = 100000))]
    pub requests: usize,
    /// Maximum total size of decompressed bodies in progress; further requests get 503. Default: 64MiB.
    pub bytes_in_flight: Bytes,
    /// Maximum amount of data awaiting acknowledgement by Kafka; further data waits. Default: 32MiB.
    pub queue_bytes: Bytes,
    /// Maximum number of connections. When another arrives, the one that has waited longest without a complete request is closed. Default: 512.
    #[schemars(range(min = 1, max = 1000000))]
    pub connections: usize,
    /// Timeout for the TLS handshake, and again for the headers of a request. Default: 60s.
    pub headers: Span,
    /// Timeout for receiving a request body. Default: 30s.
    pub body: Span,
    /// Timeout for Kafka's acknowledgement. Keep it below OPA's timeout for an answer (services[_].response_header_timeout_seconds, 10 s by default). Default: 8s.
    pub kafka: Span,
    /// Maximum number of requests per second and client; a client is a token or, without tokens, an IP address. Default: unlimited.
    #[schemars(range(min = 1, max = 1000000))]
    pub requests_per_second: Option<u32>,
    /// Maximum number of bytes per second and client, as transferred. Default: unlimited.
    pub bytes_per_second: Option<Bytes>,
}

impl Default for DoorLimits {
    fn default() -> DoorLimits {
        DoorLimits {
            body_bytes: Bytes(8 << 20),
            requests: 256,
            bytes_in_flight: Bytes(64 << 20),
            queue_bytes: Bytes(32 << 20),
            connections: 512,
            headers: Span(Duration::from_secs(60)),
            body: Span(Duration::from_secs(30)),
            kafka: Span(Duration::from_secs(8)),
            requests_per_second: None,
            bytes_per_second: None,
        }
    }
}

impl DoorConfig {
    /// Whether it takes what anybody sends from elsewhere.
    pub fn is_open(&self) -> bool {
        let known = self.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
        let own = ["127.", "localhost:", "[::1]:"].iter().any(|own| self.listen.starts_with(own));
        self.tokens.is_empty() && !known && !own
    }

    /// What an upload may be at most, where that is less than it may be compressed.
    pub fn note(&self, record: usize) -> Option<String> {
        let most = self.limits.bytes_in_flight.0;
        (most < record.min(self.limits.body_bytes.0)).then(|| {
            format!(
                "the door takes uploads of up to {most} bytes, decompressed, and refuses larger ones (413), though limits.record_bytes is {record}: it holds no more at once (door.limits.bytes_in_flight, which is made smaller where memory.budget is too small for it)"
            )
        })
    }

    /// What the schema can't say. `problem` is told what is wrong, and where.
    pub fn check(&self, problem: &mut dyn FnMut(&[&str], String)) {
        for (i, path) in self.paths.iter().enumerate() {
            let fits = path.len() > 1
                && path.starts_with('/')
                && !path.ends_with('/')
                && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.~".contains(&b));
            if !fits || path.contains("//") {
                problem(
                    &["door", "paths", &i.to_string()],
                    format!("{path:?} is not a valid path; write it like /logs"),
                );
            }
            let taken = |other: &str| {
                path == other || path.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'))
            };
            if ["/status", "/v1/logs", "/healthz"].into_iter().any(taken)
                || self.paths[..i].iter().any(|other| taken(other))
            {
                problem(&["door", "paths", &i.to_string()], format!("{path:?} is already in use"));
            }
        }
        for (name, token) in &self.tokens {
            if token.expose().len() < 16 {
                problem(
                    &["door", "tokens", name],
                    "a token of less than 16 bytes can be guessed".into(),
                );
            }
        }
        for (key, bytes) in [
            ("body_bytes", self.limits.body_bytes),
            ("bytes_in_flight", self.limits.bytes_in_flight),
            ("queue_bytes", self.limits.queue_bytes),
        ] {
            if bytes.0 == 0 {
                problem(&["door", "limits", key], "it must be greater than zero".into());
            }
        }
        for (key, span) in [
            ("headers", self.limits.headers),
            ("body", self.limits.body),
            ("kafka", self.limits.kafka),
        ] {
            if span.0.is_zero() {
                problem(&["door", "limits", key], "it must be greater than zero".into());
            }
        }
        if self.limits.bytes_per_second.is_some_and(|b| b.0 == 0 || u32::try_from(b.0).is_err()) {
            problem(&["door", "limits", "bytes_per_second"], "it must be from 1 B to 4 GiB".into());
        }
    }
}
