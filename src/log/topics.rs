//! docket's topics: which there must be, and how they are made.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use rdkafka::ClientContext;
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext};

use super::client;
use super::config::{Docket, Kafka};

#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    #[error("Kafka at {brokers} can't be reached: {why}")]
    Unreachable { brokers: String, why: String },
    #[error("the topics {} are missing and {why}. Create them:\n{}", missing.join(", "), commands.join("\n"))]
    Missing { missing: Vec<String>, why: String, commands: Vec<String> },
    #[error(transparent)]
    Kafka(#[from] KafkaError),
}

const TIMEOUT: Duration = Duration::from_secs(15);

/// A topic that there must be, and how it is made.
pub struct Topic {
    pub name: String,
    /// As the settings say, unless it needs so many.
    pub partitions: Option<u32>,
    pub settings: Vec<(&'static str, String)>,
}

fn admin(kafka: &Kafka) -> Result<AdminClient<DefaultClientContext>, KafkaError> {
    client::with_properties(client::config(kafka, "admin"), kafka).create()
}

/// Keeps the last thing that librdkafka says of a connection that fails.
#[derive(Default)]
struct LastError(Mutex<Option<String>>);

impl ClientContext for LastError {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        // That all are down says less than why one is.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }
}

impl ProducerContext for LastError {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// Why Kafka can't be reached: a certificate, a password. The client for administration does not tell.
fn why(kafka: &Kafka) -> Option<String> {
    let config = client::with_properties(client::config(kafka, "why"), kafka);
    let producer: BaseProducer<LastError> =
        config.create_with_context(LastError::default()).ok()?;
    let _ = producer.client().fetch_metadata(None, Duration::from_secs(2));
    producer.poll(Duration::from_millis(100));
    producer.context().0.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Makes the topics that are missing, if the settings allow it. Returns the names of those made.
pub async fn ensure(
    kafka: &Kafka,
    docket: &Docket,
    topics: Vec<Topic>,
) -> Result<Vec<String>, TopicError> {
    let admin = admin(kafka)?;
    let metadata = tokio::task::block_in_place(|| {
        let unreachable = |error: KafkaError| TopicError::Unreachable {
            brokers: kafka.brokers.clone(),
            why: why(kafka).map_or_else(|| error.to_string(), |why| format!("{error}: {why}")),
        };
        admin.inner().fetch_metadata(None, TIMEOUT).map_err(unreachable)
    })?;
    let exists =
        |name: &str| metadata.topics().iter().any(|t| t.name() == name && t.error().is_none());
    let missing: Vec<Topic> = topics.into_iter().filter(|topic| !exists(&topic.name)).collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    if !docket.create {
        return Err(not_made(kafka, docket, &missing, "docket.create is false".into()));
    }
    let replication = docket.replication.map_or(-1, |n| n as i32);
    let topics: Vec<NewTopic<'_>> = missing
        .iter()
        .map(|w| {
            let topic = NewTopic::new(
                &w.name,
                w.partitions.unwrap_or(docket.partitions) as i32,
                TopicReplication::Fixed(replication),
            );
            w.settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
        })
        .collect();
    let options =
        AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
    let mut made = Vec::new();
    for result in admin.create_topics(&topics, &options).await? {
        match result {
            Ok(name) => made.push(name),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => {
                return Err(not_made(
                    kafka,
                    docket,
                    &missing,
                    format!("{name} can't be created: {code}"),
                ));
            }
        }
    }
    Ok(made)
}

fn not_made(kafka: &Kafka, docket: &Docket, missing: &[Topic], why: String) -> TopicError {
    let command = |w: &Topic| {
        let settings: String =
            w.settings.iter().map(|(key, value)| format!(" --config {key}={value}")).collect();
        let replication =
            docket.replication.map_or_else(String::new, |n| format!(" --replication-factor {n}"));
        format!(
            "  kafka-topics.sh --bootstrap-server {} --create --topic {} --partitions {}{replication}{settings}",
            kafka.brokers,
            w.name,
            w.partitions.unwrap_or(docket.partitions)
        )
    };
    TopicError::Missing {
        missing: missing.iter().map(|w| w.name.clone()).collect(),
        why,
        commands: missing.iter().map(command).collect(),
    }
}

/// The largest record batch that each topic takes (max.message.bytes), where the broker tells.
pub async fn max_messages(kafka: &Kafka, topics: &[&str]) -> Vec<Option<usize>> {
    let Ok(admin) = admin(kafka) else { return vec![None; topics.len()] };
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let asked: Vec<ResourceSpecifier<'_>> =
        topics.iter().copied().map(ResourceSpecifier::Topic).collect();
    let told = admin.describe_configs(&asked, &options).await.unwrap_or_default();
    let of = |topic: &&str| {
        let config = told.iter().flatten().find(|config| matches!(&config.specifier, OwnedResourceSpecifier::Topic(name) if name == topic))?;
        config.get("max.message.bytes")?.value.as_ref()?.parse().ok()
    };
    topics.iter().map(of).collect()
}
