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
use crate::pipeline::Pipeline;
use crate::pipeline::model::Kafka;

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

/// A rejected record keeps its original bytes and gets headers, so its topic takes more than the others.
const REJECT_ROOM: usize = 64 << 10;

struct Wanted {
    name: String,
    settings: Vec<(&'static str, String)>,
}

fn wanted(pipeline: &Pipeline, with_sources: bool) -> Vec<Wanted> {
    let docket = &pipeline.file.docket;
    let retention = docket.retention.0.as_millis().to_string();
    let settings = |max_message: usize| {
        vec![
            ("retention.ms", retention.clone()),
            ("max.message.bytes", max_message.to_string()),
            ("cleanup.policy", "delete".to_owned()),
        ]
    };
    let mut all = vec![
        Wanted { name: pipeline.docket_topic(), settings: settings(docket.max_message.0) },
        Wanted {
            name: pipeline.rejects_topic(),
            settings: settings(pipeline.limits.record.max(docket.max_message.0) + REJECT_ROOM),
        },
    ];
    if with_sources {
        all.extend(
            pipeline
                .file
                .sources
                .iter()
                .map(|source| Wanted { name: source.topic.clone(), settings: Vec::new() }),
        );
    }
    all
}

fn admin(pipeline: &Pipeline) -> Result<AdminClient<DefaultClientContext>, KafkaError> {
    client::with_properties(client::config(&pipeline.file.kafka, "admin"), &pipeline.file.kafka)
        .create()
}

/// Keeps the last thing that librdkafka says of a connection that fails.
#[derive(Default)]
struct Heard(Mutex<Option<String>>);

impl ClientContext for Heard {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        // That all are down says less than why one is.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }
}

impl ProducerContext for Heard {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// Why Kafka can't be reached: a certificate, a password. The client for administration does not tell.
fn why(kafka: &Kafka) -> Option<String> {
    let config = client::with_properties(client::config(kafka, "why"), kafka);
    let producer: BaseProducer<Heard> = config.create_with_context(Heard::default()).ok()?;
    let _ = producer.client().fetch_metadata(None, Duration::from_secs(2));
    producer.poll(Duration::from_millis(100));
    producer.context().0.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Makes the topics that are missing, if the pipeline file allows it. Returns the names of those made.
pub async fn ensure(pipeline: &Pipeline, with_sources: bool) -> Result<Vec<String>, TopicError> {
    let admin = admin(pipeline)?;
    let metadata = tokio::task::block_in_place(|| {
        let unreachable = |error: KafkaError| {
            let kafka = &pipeline.file.kafka;
            TopicError::Unreachable {
                brokers: kafka.brokers.clone(),
                why: why(kafka).map_or_else(|| error.to_string(), |why| format!("{error}: {why}")),
            }
        };
        admin.inner().fetch_metadata(None, TIMEOUT).map_err(unreachable)
    })?;
    let exists =
        |name: &str| metadata.topics().iter().any(|t| t.name() == name && t.error().is_none());
    let missing: Vec<Wanted> =
        wanted(pipeline, with_sources).into_iter().filter(|w| !exists(&w.name)).collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let docket = &pipeline.file.docket;
    if !docket.create {
        return Err(not_made(pipeline, &missing, "docket.create is false".into()));
    }
    let replication = docket.replication.map_or(-1, |n| n as i32);
    let topics: Vec<NewTopic<'_>> = missing
        .iter()
        .map(|w| {
            let topic = NewTopic::new(
                &w.name,
                docket.partitions as i32,
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
                    pipeline,
                    &missing,
                    format!("{name} can't be created: {code}"),
                ));
            }
        }
    }
    Ok(made)
}

fn not_made(pipeline: &Pipeline, missing: &[Wanted], why: String) -> TopicError {
    let docket = &pipeline.file.docket;
    let command = |w: &Wanted| {
        let settings: String =
            w.settings.iter().map(|(key, value)| format!(" --config {key}={value}")).collect();
        let replication =
            docket.replication.map_or_else(String::new, |n| format!(" --replication-factor {n}"));
        format!(
            "  kafka-topics.sh --bootstrap-server {} --create --topic {} --partitions {}{replication}{settings}",
            pipeline.file.kafka.brokers, w.name, docket.partitions
        )
    };
    TopicError::Missing {
        missing: missing.iter().map(|w| w.name.clone()).collect(),
        why,
        commands: missing.iter().map(command).collect(),
    }
}

/// The largest record batch that topics take (max.message.bytes), where the broker tells.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    pub docket: Option<usize>,
    pub rejects: Option<usize>,
    /// The topic that the door writes to.
    pub door: Option<usize>,
}

pub async fn max_messages(pipeline: &Pipeline) -> Limits {
    let (docket, rejects, door) =
        (pipeline.docket_topic(), pipeline.rejects_topic(), pipeline.door_topic());
    let Ok(admin) = admin(pipeline) else { return Limits::default() };
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let asked = [Some(docket.as_str()), Some(&rejects), door];
    let asked: Vec<ResourceSpecifier<'_>> =
        asked.into_iter().flatten().map(ResourceSpecifier::Topic).collect();
    let told = admin.describe_configs(&asked, &options).await.unwrap_or_default();
    let of = |topic: &str| {
        let config = told.iter().flatten().find(|config| matches!(&config.specifier, OwnedResourceSpecifier::Topic(name) if name == topic))?;
        config.get("max.message.bytes")?.value.as_ref()?.parse().ok()
    };
    Limits { docket: of(&docket), rejects: of(&rejects), door: door.and_then(of) }
}
