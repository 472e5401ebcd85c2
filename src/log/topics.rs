//! docket's topics: which there must be, and how they are made.

use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;

use super::ask::{self, Asker, Unanswered};
use super::client;
use super::config::{Docket, Kafka};

#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    #[error(transparent)]
    Unreachable(#[from] Unanswered),
    #[error("Kafka at {brokers} hides the topics {} for want of rights (TopicAuthorizationFailed): they may be there; {} gives docket the rights it needs", hidden.join(", "), ask::ACLS)]
    Hidden { brokers: String, hidden: Vec<String> },
    #[error("the topics {} are missing and {why}. Create them:\n{}", missing.join(", "), commands.join("\n"))]
    Missing { missing: Vec<String>, why: String, commands: Vec<String> },
    #[error(transparent)]
    Kafka(#[from] KafkaError),
}

const TIMEOUT: Duration = Duration::from_secs(15);
/// What docket can do without, it does not wait for for long: not every Kafka answers that.
const OPTIONAL: Duration = Duration::from_secs(2);

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

/// Makes the topics that are missing, if the settings allow it. Returns the names of those made.
pub async fn ensure(
    kafka: &Kafka,
    docket: &Docket,
    topics: Vec<Topic>,
) -> Result<Vec<String>, TopicError> {
    let (missing, hidden) = tokio::task::block_in_place(|| missing(kafka, topics))?;
    if !hidden.is_empty() {
        return Err(TopicError::Hidden { brokers: kafka.brokers.clone(), hidden });
    }
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let brokers = tokio::task::block_in_place(|| brokers(kafka))?;
    let copies = copies(docket.replication, brokers);
    let not_made = |why| not_made(kafka, docket, copies, &missing, why);
    if !docket.create {
        return Err(not_made("docket.create is false".into()));
    }
    let replication = copies.map_or(-1, |n| n as i32);
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
    let admin = admin(kafka)?;
    let mut made = Vec::new();
    for result in admin.create_topics(&topics, &options).await? {
        match result {
            Ok(name) => made.push(name),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => {
                return Err(not_made(format!("{name} can't be created: {code}")));
            }
        }
    }
    Ok(made)
}

/// Which of these topics are not there.
pub async fn absent(kafka: &Kafka, topics: Vec<Topic>) -> Result<Vec<String>, TopicError> {
    let (missing, _) = tokio::task::block_in_place(|| missing(kafka, topics))?;
    Ok(missing.into_iter().map(|topic| topic.name).collect())
}

/// A topic that is not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absent {
    pub name: String,
    /// One of another name, much like it.
    pub near: Option<String>,
    /// It may be there, but docket has no right to see it.
    pub hidden: bool,
}

/// Which of these topics are not shown. Blocks.
pub fn unseen(kafka: &Kafka, names: &[String]) -> Result<Vec<Absent>, Unanswered> {
    let asker = Asker::new(kafka, "topics", None)?;
    let all = asker.metadata(None, TIMEOUT)?;
    let mut absent = Vec::new();
    for name in names {
        if all.topics().iter().any(|t| t.name() == name && t.error().is_none()) {
            continue;
        }
        // Of all topics a broker lists those that one may see; of one that is asked for by name it says so.
        let one = asker.metadata(Some(name), TIMEOUT)?;
        let hidden = one.topics().iter().any(|t| ask::hides(t.error()));
        if hidden || one.topics().iter().all(|t| t.error().is_some()) {
            let near = nearest(name, all.topics().iter().map(MetadataTopic::name));
            absent.push(Absent { name: name.clone(), near: near.map(str::to_owned), hidden });
        }
    }
    Ok(absent)
}

/// The topic whose name is most like one, if it is much like it.
pub fn nearest<'t>(name: &str, topics: impl Iterator<Item = &'t str>) -> Option<&'t str> {
    let likeness = |other: &str| (strsim::jaro_winkler(name, other) * 1000.0) as u32;
    topics
        .filter(|other| !other.starts_with("__"))
        .map(|other| (likeness(other), other))
        .filter(|(likeness, _)| *likeness > 850)
        .max()
        .map(|(_, other)| other)
}

/// The topics that are not there, and the names of those that may be, but are not shown to docket.
fn missing(kafka: &Kafka, topics: Vec<Topic>) -> Result<(Vec<Topic>, Vec<String>), Unanswered> {
    let names: Vec<String> = topics.iter().map(|topic| topic.name.clone()).collect();
    let (hidden, absent): (Vec<Absent>, Vec<Absent>) =
        unseen(kafka, &names)?.into_iter().partition(|topic| topic.hidden);
    let is_absent = |topic: &Topic| absent.iter().any(|absent| absent.name == topic.name);
    let missing = topics.into_iter().filter(is_absent).collect();
    Ok((missing, hidden.into_iter().map(|topic| topic.name).collect()))
}

fn brokers(kafka: &Kafka) -> Result<usize, Unanswered> {
    Ok(Asker::new(kafka, "topics", None)?.metadata(None, TIMEOUT)?.brokers().len())
}

/// A topic outlives the loss of a broker with so many copies, and that of another meanwhile.
const COPIES: u32 = 3;

/// How many copies a topic that is made gets: as many as the file says, or else three, if there are so many brokers. One broker says that itself: it may
/// stand for more.
fn copies(asked: Option<u32>, brokers: usize) -> Option<u32> {
    let sensible = || u32::try_from(brokers).ok().filter(|n| *n > 1).map(|n| n.min(COPIES));
    asked.or_else(sensible)
}

/// Those of these topics of which there is one copy, and how many brokers there are. Blocks.
pub fn single(kafka: &Kafka, names: &[String]) -> Result<(Vec<String>, usize), Unanswered> {
    let all =
        tokio::task::block_in_place(|| Asker::new(kafka, "topics", None)?.metadata(None, TIMEOUT))?;
    let single = |topic: &&MetadataTopic| {
        let partitions = topic.partitions();
        names.iter().any(|name| name == topic.name())
            && partitions.iter().any(|p| p.replicas().len() == 1)
    };
    let mut found: Vec<String> =
        all.topics().iter().filter(single).map(|topic| topic.name().to_owned()).collect();
    found.sort_unstable();
    Ok((found, all.brokers().len()))
}

/// How many partitions a topic has, if Kafka says so soon.
pub fn partitions(kafka: &Kafka, topic: &str) -> Option<u32> {
    let told = tokio::task::block_in_place(|| {
        Asker::new(kafka, "topics", None)?.metadata(Some(topic), OPTIONAL)
    });
    let count = told.ok()?.topics().first()?.partitions().len();
    u32::try_from(count).ok().filter(|count| *count > 0)
}

fn not_made(
    kafka: &Kafka,
    docket: &Docket,
    copies: Option<u32>,
    missing: &[Topic],
    why: String,
) -> TopicError {
    let command = |w: &Topic| {
        let settings: String =
            w.settings.iter().map(|(key, value)| format!(" --config {key}={value}")).collect();
        let replication = copies.map_or_else(String::new, |n| format!(" --replication-factor {n}"));
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
    settings(kafka, topics, "max.message.bytes").await
}

/// How many milliseconds each topic keeps records (retention.ms), where the broker tells; -1 for ever.
pub async fn retentions(kafka: &Kafka, topics: &[&str]) -> Vec<Option<i64>> {
    settings(kafka, topics, "retention.ms").await
}

async fn settings<T: std::str::FromStr>(
    kafka: &Kafka,
    topics: &[&str],
    name: &str,
) -> Vec<Option<T>> {
    let Ok(admin) = admin(kafka) else { return topics.iter().map(|_| None).collect() };
    let options = AdminOptions::new().request_timeout(Some(OPTIONAL));
    let asked: Vec<ResourceSpecifier<'_>> =
        topics.iter().copied().map(ResourceSpecifier::Topic).collect();
    let told = admin.describe_configs(&asked, &options).await.unwrap_or_default();
    let of = |topic: &&str| {
        let config = told.iter().flatten().find(|config| matches!(&config.specifier, OwnedResourceSpecifier::Topic(name) if name == topic))?;
        config.get(name)?.value.as_ref()?.parse().ok()
    };
    topics.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_gets_three_copies_where_there_are_brokers_for_them() {
        let by_brokers = |asked| [1, 2, 3, 9].map(|brokers| copies(asked, brokers));
        // Where one is seen, it decides by its own default: a service may show one address for many.
        assert_eq!(by_brokers(None), [None, Some(2), Some(3), Some(3)]);
        assert_eq!(by_brokers(Some(1)), [Some(1); 4]);
        assert_eq!(by_brokers(Some(5)), [Some(5); 4]);
    }
}
