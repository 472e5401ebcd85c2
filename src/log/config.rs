//! Settings of Kafka: the cluster, the topics that are read and written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::secrets::{Called, Secret};
use crate::config::units::{Bytes, Span};
use crate::decision::formats::Format;

/// The Kafka cluster.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// Bootstrap servers, host:port, separated by commas.
    #[schemars(length(min = 1))]
    pub brokers: String,
    /// Any librdkafka property, as it is (security.protocol, sasl.*, ssl.*, ..). See librdkafka's CONFIGURATION.md.
    #[serde(default)]
    pub properties: BTreeMap<String, Property>,
}

/// The value of a librdkafka property.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Property {
    Bool(bool),
    Number(i64),
    Text(#[schemars(with = "Called")] Secret),
}

impl Property {
    pub fn value(&self) -> String {
        match self {
            Property::Bool(b) => b.to_string(),
            Property::Number(n) => n.to_string(),
            Property::Text(secret) => secret.expose().to_owned(),
        }
    }

    /// Whether librdkafka knows a property and takes its value. The answer does not quote the value.
    pub fn check(&self, name: &str) -> Result<(), String> {
        super::client::check_property(name, &self.value())
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The topic.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,249}$"))]
    pub topic: String,
    /// How its records are written.
    #[serde(default)]
    pub format: Format,
    /// The member of the collecting agent's envelope that holds the decision, where it is not found by itself or there are two.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub envelope: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With the oldest record.
    #[default]
    Earliest,
    /// With what comes from now on.
    Latest,
}

/// The topics that docket writes.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Docket {
    /// The docket topic; docket.<pipeline> unless set.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,249}$"))]
    pub topic: Option<String>,
    /// The topic for what can't be decoded or delivered; <docket topic>.rejects unless set.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,249}$"))]
    pub rejects: Option<String>,
    /// Create missing topics.
    pub create: bool,
    /// Partitions of topics that are created.
    #[schemars(range(min = 1, max = 10000))]
    pub partitions: u32,
    /// Replicas of topics that are created; the broker's default unless set.
    #[schemars(range(min = 1, max = 15))]
    pub replication: Option<u32>,
    /// How long topics that are created keep records.
    pub retention: Span,
    /// max.message.bytes of topics that are created.
    pub max_message: Bytes,
    /// Compression of what docket writes.
    pub compression: Compression,
}

impl Default for Docket {
    fn default() -> Docket {
        Docket {
            topic: None,
            rejects: None,
            create: true,
            partitions: 12,
            replication: None,
            retention: Span(std::time::Duration::from_secs(7 * 86_400)),
            max_message: Bytes(4 << 20),
            compression: Compression::Lz4,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    None,
    Lz4,
    Zstd,
    Snappy,
    Gzip,
}

impl Compression {
    pub fn as_str(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
            Compression::Snappy => "snappy",
            Compression::Gzip => "gzip",
        }
    }
}
