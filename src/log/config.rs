//! Settings of Kafka: the cluster, the topics that are read and written.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::secrets::{Called, Secret};
use crate::config::units::{Bytes, Span};
use crate::decision::formats::Format;

/// The Kafka cluster.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// Bootstrap servers: comma-separated list of host:port.
    #[schemars(length(min = 1))]
    pub brokers: String,
    /// librdkafka properties, passed on unchanged, such as security.protocol, sasl.* and ssl.*. They are listed in librdkafka's CONFIGURATION.md. Those that docket's guarantees rest on (commits, transactions, acknowledgements, group names) can't be set.
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

    /// Whether librdkafka knows a property and takes its value, and docket leaves it to others. The answer does not quote the value.
    pub fn check(&self, name: &str) -> Result<(), String> {
        // librdkafka knows what is a topic's with this before it, too.
        let plain = name.strip_prefix("topic.").unwrap_or(name);
        let own = OWN.iter().find(|(own, _)| *own == plain || *own == name).map(|(_, why)| *why);
        if let Some(why) = own.or(plain.starts_with("test.").then_some(TEST)) {
            return Err(format!("{name:?} can't be set here: {why}"));
        }
        let timeout = matches!(plain, "message.timeout.ms" | "delivery.timeout.ms");
        if timeout && self.value().parse().is_ok_and(|ms: u64| ms < LEAST_TIMEOUT_MS) {
            return Err(format!(
                "{name:?} must be {LEAST_TIMEOUT_MS} at least: what Kafka has not acknowledged by then is given up"
            ));
        }
        let mut config = ClientConfig::new();
        config.set(name, self.value());
        match config.create_native_config() {
            Ok(_) => Ok(()),
            Err(KafkaError::ClientConfig(
                rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN,
                ..,
            )) => Err(format!("librdkafka has no property {name:?}; see its CONFIGURATION.md")),
            Err(_) => Err(format!(
                "librdkafka does not take this value for {name:?}; see its CONFIGURATION.md"
            )),
        }
    }
}

/// Properties that docket's guarantees rest on, and which of them.
const OWN: [(&str, &str); 20] = [
    ("enable.auto.commit", COMMITS),
    ("auto.commit.enable", COMMITS),
    ("enable.auto.offset.store", COMMITS),
    ("isolation.level", "docket never reads what a transaction has aborted"),
    (
        "auto.offset.reset",
        "docket never jumps in a topic; intake.start and delivery.start say where a new group starts",
    ),
    ("transactional.id", TRANSACTIONS),
    ("transaction.timeout.ms", TRANSACTIONS),
    ("enable.idempotence", ACKNOWLEDGED),
    ("enable.gapless.guarantee", ACKNOWLEDGED),
    ("acks", ACKNOWLEDGED),
    ("request.required.acks", ACKNOWLEDGED),
    ("delivery.report.only.error", ACKNOWLEDGED),
    ("partitioner", "what is sent twice goes to one partition, where it is known as a repeat"),
    (
        "enable.partition.eof",
        "docket reads partitions in the order of time, and has to know where each ends",
    ),
    ("group.id", "each part has a consumer group of its own; intake.group names intake's"),
    ("group.instance.id", "each part is a member of its own; intake.instance_id names them"),
    ("bootstrap.servers", BROKERS),
    ("metadata.broker.list", BROKERS),
    (
        "message.max.bytes",
        "max.message.bytes of a topic (docket.max_message where docket creates it) says how large its records may be, and what is larger goes to rejects",
    ),
    ("topic.blacklist", "docket reads all topics that the pipeline file names"),
];

const TEST: &str =
    "it is for tests of librdkafka, and puts a Kafka of its own in the place of yours";
/// An acknowledgement takes longer whenever another broker becomes a partition's leader.
const LEAST_TIMEOUT_MS: u64 = 5000;
const BROKERS: &str = "kafka.brokers says which brokers there are";
const COMMITS: &str =
    "docket commits an offset only when everything below it is delivered or in rejects";
const TRANSACTIONS: &str = "intake writes decisions exactly once by transactions of its own";
const ACKNOWLEDGED: &str =
    "docket takes nothing for written that not all replicas have, once and in order";

/// A topic to read decision logs from.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Name of the topic.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,249}$"))]
    pub topic: String,
    /// Format of its records. Default: auto.
    #[serde(default)]
    pub format: Format,
    /// Member of the log agent's envelope that holds the decision. Needed only if it is not recognized, or if two members could hold one.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub envelope: Option<String>,
}

/// Where to start reading a topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At the oldest record.
    #[default]
    Earliest,
    /// At the end: only records that arrive from now on.
    Latest,
}

/// The topics that docket writes: the docket topic and the rejects topic.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Docket {
    /// Name of the docket topic. Default: docket.<pipeline>.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,249}$"))]
    pub topic: Option<String>,
    /// Name of the topic for records that can't be decoded or delivered. Default: <docket topic>.rejects.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,249}$"))]
    pub rejects: Option<String>,
    /// Create topics that are missing. Default: true.
    pub create: bool,
    /// Number of partitions of created topics. Default: 12.
    #[schemars(range(min = 1, max = 10000))]
    pub partitions: u32,
    /// Replication factor of created topics. Default: 3, or as many as there are brokers; with one broker, the broker's own default.
    #[schemars(range(min = 1, max = 15))]
    pub replication: Option<u32>,
    /// Retention time (retention.ms) of created topics. Default: 7d.
    pub retention: Span,
    /// Maximum size of a record batch (max.message.bytes) of created topics. Default: 4MiB.
    pub max_message: Bytes,
    /// Compression of records that docket writes. Default: lz4.
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
