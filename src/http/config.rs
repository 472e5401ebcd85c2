//! Settings of HTTP clients and ports: credentials, TLS, compression.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::secrets::Secret;
use crate::config::tracked::TrackedFile;

/// Credentials for an HTTP request.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Auth {
    Basic(Basic),
    Bearer(Bearer),
    /// Elasticsearch's API key, as it is encoded there.
    ApiKey(ApiKey),
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    #[schemars(with = "String")]
    pub username: Secret,
    pub password: Secret,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bearer {
    pub token: Secret,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    pub key: Secret,
}

/// TLS towards a server. Certificates are verified against the system's authorities unless told otherwise.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the authorities to trust instead of the system's.
    pub ca_file: Option<TrackedFile>,
    /// PEM files of a client certificate and its key.
    pub cert_file: Option<TrackedFile>,
    pub key_file: Option<TrackedFile>,
    /// Do not verify the server's certificate. For tests only.
    pub insecure_skip_verify: bool,
}

/// TLS of a port. The files are read again when they change.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// PEM file with the certificate, and those between it and the authority.
    pub cert_file: PathBuf,
    /// PEM file with its key.
    pub key_file: PathBuf,
    /// PEM file with the authorities whose client certificates are let in; others are not. No client certificate is asked for unless set.
    pub client_ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HttpCompression {
    None,
    #[default]
    Gzip,
}
