//! Settings that every Kafka client of docket has, and what librdkafka says.

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::pipeline::model::Kafka;

/// A client's configuration: docket's defaults, then the pipeline file's properties.
/// `part` tells the clients of one process apart in the broker's logs and metrics.
pub fn config(kafka: &Kafka, part: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &kafka.brokers)
        .set("client.id", format!("docket-{part}"))
        .set("socket.keepalive.enable", "true")
        .set("topic.metadata.refresh.interval.ms", "30000")
        .set("reconnect.backoff.max.ms", "5000");
    config.set_log_level(RDKafkaLogLevel::Info);
    config
}

/// Puts the pipeline file's properties on top: last, so that they win.
pub fn with_properties(mut config: ClientConfig, kafka: &Kafka) -> ClientConfig {
    for (name, value) in &kafka.properties {
        config.set(name, value.value());
    }
    config
}

/// Whether librdkafka knows a property and takes its value. The answer does not quote the value.
pub fn check_property(name: &str, value: &str) -> Result<(), String> {
    let mut config = ClientConfig::new();
    config.set(name, value);
    match config.create_native_config() {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            Err(format!("librdkafka has no property {name:?}; see its CONFIGURATION.md"))
        }
        Err(_) => Err(format!("librdkafka does not take this value for {name:?}; see its CONFIGURATION.md")),
    }
}

/// librdkafka's log goes to docket's log, quieter by one level: it reports each lost connection as an error.
pub fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => tracing::error!(facility, "{message}"),
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::warn!(facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(facility, "{message}"),
        RDKafkaLogLevel::Debug => tracing::debug!(facility, "{message}"),
    }
}

/// Whether an error says that Kafka is away or slow, so that trying again is all there is to do.
pub fn is_outage(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::*;
    matches!(
        error.rdkafka_error_code(),
        Some(
            BrokerTransportFailure
                | AllBrokersDown
                | OperationTimedOut
                | RequestTimedOut
                | Resolve
                | NetworkException
                | BrokerNotAvailable
                | LeaderNotAvailable
                | NotLeaderForPartition
                | CoordinatorNotAvailable
                | CoordinatorLoadInProgress
                | NotCoordinator
                | NotEnoughReplicas
                | NotEnoughReplicasAfterAppend
                | MessageTimedOut
                | UnknownTopicOrPartition
                | UnknownTopic
                | UnknownPartition
        )
    )
}
