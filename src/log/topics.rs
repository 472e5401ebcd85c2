//! docket's topics: which there must be, and how they are made.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client;
use crate::pipeline::Pipeline;

#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    #[error("Kafka at {brokers} can't be reached: {error}")]
    Unreachable { brokers: String, error: KafkaError },
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
    let settings =
        |max_message: usize| vec![("retention.ms", retention.clone()), ("max.message.bytes", max_message.to_string()), ("cleanup.policy", "delete".to_owned())];
    let mut all = vec![
        Wanted { name: pipeline.docket_topic(), settings: settings(docket.max_message.0) },
        Wanted { name: pipeline.rejects_topic(), settings: settings(pipeline.limits.record.max(docket.max_message.0) + REJECT_ROOM) },
    ];
    if with_sources {
        all.extend(pipeline.file.sources.iter().map(|source| Wanted { name: source.topic.clone(), settings: Vec::new() }));
    }
    all
}

fn admin(pipeline: &Pipeline) -> Result<AdminClient<DefaultClientContext>, KafkaError> {
    client::with_properties(client::config(&pipeline.file.kafka, "admin"), &pipeline.file.kafka).create()
}

/// Makes the topics that are missing, if the pipeline file allows it. Returns the names of those made.
pub async fn ensure(pipeline: &Pipeline, with_sources: bool) -> Result<Vec<String>, TopicError> {
    let admin = admin(pipeline)?;
    let metadata = tokio::task::block_in_place(|| admin.inner().fetch_metadata(None, TIMEOUT))
        .map_err(|error| TopicError::Unreachable { brokers: pipeline.file.kafka.brokers.clone(), error })?;
    let exists = |name: &str| metadata.topics().iter().any(|t| t.name() == name && t.error().is_none());
    let missing: Vec<Wanted> = wanted(pipeline, with_sources).into_iter().filter(|w| !exists(&w.name)).collect();
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
            let topic = NewTopic::new(&w.name, docket.partitions as i32, TopicReplication::Fixed(replication));
            w.settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
        })
        .collect();
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
    let mut made = Vec::new();
    for result in admin.create_topics(&topics, &options).await? {
        match result {
            Ok(name) => made.push(name),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => return Err(not_made(pipeline, &missing, format!("{name} can't be created: {code}"))),
        }
    }
    Ok(made)
}

fn not_made(pipeline: &Pipeline, missing: &[Wanted], why: String) -> TopicError {
    let docket = &pipeline.file.docket;
    let command = |w: &Wanted| {
        let settings: String = w.settings.iter().map(|(key, value)| format!(" --config {key}={value}")).collect();
        let replication = docket.replication.map_or_else(String::new, |n| format!(" --replication-factor {n}"));
        format!(
            "  kafka-topics.sh --bootstrap-server {} --create --topic {} --partitions {}{replication}{settings}",
            pipeline.file.kafka.brokers, w.name, docket.partitions
        )
    };
    TopicError::Missing { missing: missing.iter().map(|w| w.name.clone()).collect(), why, commands: missing.iter().map(command).collect() }
}

/// The largest record batch that the docket topic and the rejects topic take (max.message.bytes), where the
/// broker tells.
pub async fn max_messages(pipeline: &Pipeline) -> (Option<usize>, Option<usize>) {
    let (docket, rejects) = (pipeline.docket_topic(), pipeline.rejects_topic());
    let Ok(admin) = admin(pipeline) else { return (None, None) };
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let asked = [&ResourceSpecifier::Topic(&docket), &ResourceSpecifier::Topic(&rejects)];
    let told = admin.describe_configs(asked, &options).await.unwrap_or_default();
    let of = |topic: &str| {
        let config = told.iter().flatten().find(|config| matches!(&config.specifier, OwnedResourceSpecifier::Topic(name) if name == topic))?;
        config.get("max.message.bytes")?.value.as_ref()?.parse().ok()
    };
    (of(&docket), of(&rejects))
}
