//! Which topics a pipeline needs, and what they take.

use super::Pipeline;
use crate::log::topics::{self, Topic, TopicError};

/// A rejected record keeps its original bytes and gets headers, so its topic takes more than the others.
const REJECT_ROOM: usize = 64 << 10;

/// Rejects are kept so many times as long as the docket.
const REJECTS_LONGER: u128 = 2;

/// What the join adds to a decision, at most: its request has texts of 255 bytes, and nine of them.
const MATCH_ROOM: usize = 16 << 10;

/// What a topic is to a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Somebody else writes to it.
    Source,
    /// The docket, and what lies before it.
    Docket,
    Rejects,
    /// What comes after decisions, and is kept as long as they are.
    Amendments,
    /// What the detector of spikes has learned.
    Learned,
}

/// Every topic that a pipeline reads or writes, each once: those that are made, and its sources.
pub fn all(pipeline: &Pipeline) -> Vec<(String, Role)> {
    let file = &pipeline.file;
    let sources: Vec<String> = sources(pipeline).map(|topic| topic.name).collect();
    let role = |name: &String| match name {
        name if sources.contains(name) => Role::Source,
        name if *name == pipeline.rejects_topic() => Role::Rejects,
        name if *name == file.amendments_topic() => Role::Amendments,
        name if *name == file.spikes_topic() => Role::Learned,
        _ => Role::Docket,
    };
    let mut all: Vec<(String, Role)> = Vec::new();
    for name in
        sources.iter().cloned().chain(wanted(pipeline, Which::All).into_iter().map(|t| t.name))
    {
        if all.iter().all(|(known, _)| *known != name) {
            let role = role(&name);
            all.push((name, role));
        }
    }
    all
}

fn wanted(pipeline: &Pipeline, which: Which) -> Vec<Topic> {
    let docket = &pipeline.file.docket;
    let retention = docket.retention.0.as_millis();
    let settings = |max_message: usize, retention: u128| {
        vec![
            ("retention.ms", retention.min(i64::MAX as u128).to_string()),
            ("max.message.bytes", max_message.to_string()),
            ("cleanup.policy", "delete".to_owned()),
        ]
    };
    let rejects = pipeline.limits.record.max(docket.max_message.0) + REJECT_ROOM;
    let topic = |name, settings| Topic { name, partitions: None, settings };
    let mut all = vec![
        topic(pipeline.docket_topic(), settings(docket.max_message.0, retention)),
        // What could not be delivered is there longer than what could.
        topic(
            pipeline.rejects_topic(),
            settings(rejects, retention.saturating_mul(REJECTS_LONGER)),
        ),
    ];
    let file = &pipeline.file;
    if file.join.is_some() {
        // What fits there fits the docket, too, with its request.
        let room = docket.max_message.0.saturating_sub(MATCH_ROOM).max(docket.max_message.0 / 2);
        all.push(topic(file.pending_topic(), settings(room, retention)));
        all.push(topic(file.facts_topic(), settings(1 << 20, retention)));
        all.push(topic(file.amendments_topic(), settings(1 << 20, retention)));
    }
    if which != Which::Own {
        let doors = |t: &Topic| Some(t.name.as_str()) == pipeline.door_topic();
        all.extend(sources(pipeline).filter(|t| which == Which::All || doors(t)));
        all.extend(pipeline.file.spikes.as_ref().map(|_| learned(pipeline)));
    }
    all
}

fn sources(pipeline: &Pipeline) -> impl Iterator<Item = Topic> {
    let facts = pipeline.file.join.iter().flat_map(|join| &join.facts).map(|s| &s.topic);
    let names = pipeline.file.sources.iter().map(|source| &source.topic).chain(facts).cloned();
    names.map(|name| Topic { name, partitions: None, settings: Vec::new() })
}

/// The sources that are not there, and that docket's door doesn't write to: whoever does may know them by another name.
pub async fn absent_sources(pipeline: &Pipeline) -> Result<Vec<String>, TopicError> {
    let others = sources(pipeline).filter(|t| Some(t.name.as_str()) != pipeline.door_topic());
    let absent = topics::absent(&pipeline.file.kafka, others.collect()).await;
    absent.map_err(|error| match error {
        TopicError::Unreachable(error) => pipeline.kafka_astray(error).into(),
        other => other,
    })
}

/// Which topics are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that docket can't run without and that are its own.
    Own,
    /// And what the detector has learned, and the topic that the door writes to.
    Setup,
    /// And the other sources.
    All,
}

/// What the detector of spikes has learned: the latest piece by key. It is written again and again, so it is compacted
/// often.
fn learned(pipeline: &Pipeline) -> Topic {
    let settings = [
        ("cleanup.policy", "compact"),
        ("max.message.bytes", "4194304"),
        ("segment.bytes", "67108864"),
        ("segment.ms", "3600000"),
        ("min.cleanable.dirty.ratio", "0.1"),
    ];
    Topic {
        name: pipeline.file.spikes_topic(),
        partitions: Some(1),
        settings: settings.map(|(name, value)| (name, value.to_owned())).to_vec(),
    }
}

/// Makes the topic that keeps what the detector has learned; whether it was missing. Who has none learns anew each time,
/// so this is no condition for running.
pub async fn ensure_spikes(pipeline: &Pipeline) -> Result<bool, TopicError> {
    let file = &pipeline.file;
    let made = topics::ensure(&file.kafka, &file.docket, vec![learned(pipeline)]).await?;
    Ok(!made.is_empty())
}

/// Makes the topics that are missing, if the pipeline file allows it. Returns the names of those made.
pub async fn ensure(pipeline: &Pipeline, which: Which) -> Result<Vec<String>, TopicError> {
    let file = &pipeline.file;
    topics::ensure(&file.kafka, &file.docket, wanted(pipeline, which)).await
}

/// How many partitions the docket topic has, if Kafka says so soon.
pub fn docket_partitions(pipeline: &Pipeline) -> Option<u32> {
    topics::partitions(&pipeline.file.kafka, &pipeline.docket_topic())
}

/// Topics of the pipeline of which Kafka keeps one copy, and how many brokers it has.
pub fn single(pipeline: &Pipeline) -> Result<(Vec<String>, usize), TopicError> {
    let names: Vec<String> = all(pipeline).into_iter().map(|(name, _)| name).collect();
    Ok(topics::single(&pipeline.file.kafka, &names)?)
}

/// The largest record batch that topics take (max.message.bytes), where the broker tells.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    pub docket: Option<usize>,
    /// The topic that intake writes to: the docket, or the one before the join.
    pub decided: Option<usize>,
    pub rejects: Option<usize>,
    /// The topic that the door writes to.
    pub door: Option<usize>,
}

pub async fn max_messages(pipeline: &Pipeline) -> Limits {
    let (docket, rejects) = (pipeline.docket_topic(), pipeline.rejects_topic());
    let decided = pipeline.decided_topic();
    let mut asked = vec![docket.as_str(), &rejects];
    asked.extend(pipeline.file.join.as_ref().map(|_| decided.as_str()));
    asked.extend(pipeline.door_topic());
    let told = topics::max_messages(&pipeline.file.kafka, &asked).await;
    let of = |name: &str| told[asked.iter().position(|topic| *topic == name)?];
    Limits {
        docket: told[0],
        decided: of(&decided),
        rejects: told[1],
        door: pipeline.door_topic().and_then(of),
    }
}
