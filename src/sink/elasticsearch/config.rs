//! Settings of the Elasticsearch sink.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::secrets::{Called, Secret};
use crate::http::config::{Auth, HttpCompression, Tls};
use crate::sink::config::Delivery;

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Elasticsearch")]
pub struct ElasticsearchConfig {
    /// Address of Elasticsearch or OpenSearch.
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub url: String,
    /// The data stream or index that documents are created in.
    #[serde(default = "index")]
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9._-]{0,254}$"))]
    pub index: String,
    /// Whether `docket setup` makes the index a data stream. A data stream's backing index changes at a rollover, and document ids are unique within one only.
    #[serde(default)]
    pub data_stream: bool,
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Called>")]
    pub headers: BTreeMap<String, Secret>,
    #[serde(default)]
    pub auth: Option<Auth>,
    #[serde(default)]
    pub tls: Tls,
    #[serde(default)]
    pub compression: HttpCompression,
    #[serde(default)]
    pub delivery: Delivery,
}

fn index() -> String {
    "docket-decisions".into()
}
