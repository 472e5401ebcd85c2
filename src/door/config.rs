//! The pipeline file's `door:` section: decision logs over HTTP.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::secrets::Secret;
use crate::config::units::{Bytes, Span};
use crate::http::config::ServerTls;

/// A port that takes what OPA uploads: its decision logs (POST /logs), its status (POST /status), and OTLP logs (POST /v1/logs).
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Door")]
pub struct DoorConfig {
    /// host:port to listen on; port 0 takes a free one, which the log names.
    #[schemars(regex(pattern = r"^\S+:\d{1,5}$"))]
    pub listen: String,
    /// The topic that decisions are written to; the first source's unless set.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,249}$"))]
    pub topic: Option<String>,
    /// Paths that decision logs are posted to: OPA's decision_logs.resource_path. What follows one (OPA's partition_name) is taken, too.
    #[serde(default = "paths")]
    #[schemars(length(min = 1))]
    pub paths: Vec<String>,
    /// Plain HTTP unless set.
    #[serde(default)]
    pub tls: Option<ServerTls>,
    /// Bearer tokens by the name of who has it; one of them is needed once there are any. A change is in force without a restart.
    #[serde(default)]
    pub tokens: BTreeMap<String, Secret>,
    #[serde(default)]
    pub limits: DoorLimits,
}

fn paths() -> Vec<String> {
    vec!["/logs".into()]
}

/// Bounds on what clients of the door may do.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DoorLimits {
    /// A larger body is refused, as it comes over the wire. What it may be once decompressed is limits.record_bytes.
    pub body_bytes: Bytes,
    /// Requests whose body is being read or written to Kafka at once; others are told to come again.
    #[schemars(range(min = 1, max = 100000))]
    pub requests: usize,
    /// Bytes of bodies, decompressed, that are held at once; others are told to come again.
    pub bytes_in_flight: Bytes,
    /// Bytes that wait for Kafka's acknowledgement at once; others wait for theirs to be sent.
    pub queue_bytes: Bytes,
    /// Connections at once. One more, and the one that has waited longest without a whole request is closed.
    #[schemars(range(min = 1, max = 1000000))]
    pub connections: usize,
    /// How long a TLS handshake, and then a request's headers, may take.
    pub headers: Span,
    /// How long a body may take.
    pub body: Span,
    /// How long Kafka may take to acknowledge it. OPA waits 10 s for an answer (services[_].response_header_timeout_seconds).
    pub kafka: Span,
    /// Requests a second of one client: whoever has a token or, without tokens, an address. No bound unless set.
    #[schemars(range(min = 1, max = 1000000))]
    pub requests_per_second: Option<u32>,
    /// Bytes a second of one client, over the wire. No bound unless set.
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
                    format!("{path:?} is no path that can be posted to; write it like /logs"),
                );
            }
            let taken = |other: &str| {
                path == other || path.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'))
            };
            if ["/status", "/v1/logs", "/healthz"].into_iter().any(taken)
                || self.paths[..i].iter().any(|other| taken(other))
            {
                problem(&["door", "paths", &i.to_string()], format!("{path:?} is taken already"));
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
                problem(&["door", "limits", key], "it must be more than nothing".into());
            }
        }
        for (key, span) in [
            ("headers", self.limits.headers),
            ("body", self.limits.body),
            ("kafka", self.limits.kafka),
        ] {
            if span.0.is_zero() {
                problem(&["door", "limits", key], "it must be more than nothing".into());
            }
        }
        if self.limits.bytes_per_second.is_some_and(|b| b.0 == 0 || u32::try_from(b.0).is_err()) {
            problem(&["door", "limits", "bytes_per_second"], "it is between 1 B and 4 GiB".into());
        }
    }
}
