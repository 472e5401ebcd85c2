//! Settings of the Elasticsearch sink.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::secrets::{Called, Secret};
use crate::http::client::{Client, HttpError};
use crate::http::config::{Auth, HttpCompression, Tls};
use crate::sink::delivery::Delivery;

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Elasticsearch")]
pub struct ElasticsearchConfig {
    /// Base URL of Elasticsearch or OpenSearch.
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub url: String,
    /// Index or data stream in which documents are created. Default: docket-decisions.
    #[serde(default = "index")]
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9._-]{0,254}$"))]
    pub index: String,
    /// Whether `docket setup` makes the index a data stream. Document IDs are unique only within one backing index of a data stream, so a repeat after a rollover is stored again. Default: false.
    #[serde(default)]
    pub data_stream: bool,
    /// Whether a match that comes after its decision was delivered (see join) is added to the decision's document, by an update: that needs the privilege index rather than create_doc, and an index of this name, since neither a data stream nor an index behind an alias is updated. Default: true, but false for a data stream.
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
    /// How batches are formed and sent.
    #[serde(default)]
    pub delivery: Delivery,
}

impl ElasticsearchConfig {
    pub fn client(&self) -> Result<Client, HttpError> {
        Client::new(&self.tls, self.auth.as_ref(), &self.headers, self.delivery.timeout.0)
    }

    /// Whether late matches are added to documents.
    pub fn amends(&self) -> bool {
        self.amendments.unwrap_or(!self.data_stream)
    }

    pub fn check(&self, problem: &mut dyn FnMut(&[&str], String)) {
        if self.data_stream && self.amendments == Some(true) {
            let message = "a data stream takes no updates; set amendments: false, or data_stream: false for an index of its own";
            problem(&["amendments"], message.into());
        }
    }

    /// The name of the index template that `docket setup` installs.
    pub fn template(&self) -> String {
        format!("docket-{}", self.index)
    }
}

fn index() -> String {
    "docket-decisions".into()
}
