//! Settings of HTTP clients and ports: credentials, TLS, compression.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::secrets::Secret;
use crate::config::tracked::TrackedFile;

/// Credentials for an HTTP request.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Auth {
    /// HTTP basic authentication.
    Basic(Basic),
    /// A bearer token.
    Bearer(Bearer),
    /// An API key of Elasticsearch, in its encoded form.
    ApiKey(ApiKey),
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    /// User name.
    #[schemars(with = "String")]
    pub username: Secret,
    /// Password.
    pub password: Secret,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bearer {
    /// Token, sent as Authorization: Bearer <token>.
    pub token: Secret,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// Encoded API key, sent as Authorization: ApiKey <key>.
    pub key: Secret,
}

/// TLS settings for connections to a server. Certificates are verified against the system's certificate authorities unless ca_file is set.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the certificate authorities to trust instead of the system's.
    pub ca_file: Option<TrackedFile>,
    /// PEM file of the client certificate; needs key_file.
    pub cert_file: Option<TrackedFile>,
    /// PEM file of the private key of the client certificate.
    pub key_file: Option<TrackedFile>,
    /// Do not verify the server's certificate. For tests only. Default: false.
    pub insecure_skip_verify: bool,
}

impl Tls {
    /// The files that it names, by setting.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let files = [
            ("ca_file", &self.ca_file),
            ("cert_file", &self.cert_file),
            ("key_file", &self.key_file),
        ];
        files.into_iter().filter_map(|(name, file)| Some((name, &**file.as_ref()?)))
    }
}

/// TLS settings of a port. The files are reloaded when they change.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// PEM file of the certificate, followed by its intermediate certificates.
    #[schemars(length(min = 1))]
    pub cert_file: PathBuf,
    /// PEM file of the certificate's private key.
    #[schemars(length(min = 1))]
    pub key_file: PathBuf,
    /// PEM file of the certificate authorities for client certificates. If set, every client needs a certificate issued by one of them.
    #[schemars(length(min = 1))]
    pub client_ca_file: Option<PathBuf>,
}

impl ServerTls {
    /// The files that it names, by setting.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let client_ca = self.client_ca_file.as_deref().map(|file| ("client_ca_file", file));
        let own = [("cert_file", &*self.cert_file), ("key_file", &*self.key_file)];
        own.into_iter().chain(client_ca)
    }
}

/// Compression of request bodies. Default: gzip.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HttpCompression {
    None,
    #[default]
    Gzip,
}
