//! How much a reader fetches ahead, as settings of librdkafka.

use std::time::Duration;

use rdkafka::ClientConfig;

use super::ask::Asker;
use super::config::Kafka;
use super::reading::Reading;
use super::{client, resume};

/// What is compressed is so many times as large once it is read, or more: decisions are much alike.
const EXPANDS: usize = 8;
/// A record in librdkafka's queue takes about as much again as its text.
const OVERHEAD: usize = 2;

/// What is fetched ahead of one partition, and with one request for it: all of them may be this member's.
fn shares(prefetch: usize, partitions: usize) -> (usize, usize) {
    let share = prefetch / OVERHEAD / partitions.max(1);
    // A request goes out while there is any room, and comes on top.
    (share.max(16 << 10), (share / EXPANDS).clamp(16 << 10, 512 << 10))
}

/// How many partitions the topics have; as many as docket makes, where Kafka does not say in time.
fn partitions(reading: &Reading<'_>) -> usize {
    let asker = Asker::new(reading.kafka, reading.part, None);
    let count = |topic: &&str| {
        let told = asker.as_ref().ok()?.metadata(Some(topic), Duration::from_secs(5)).ok()?;
        let count = told.topics().first()?.partitions().len();
        (count > 0).then_some(count)
    };
    reading.topics.iter().map(|topic| count(topic).unwrap_or(12)).sum()
}

/// The settings of a member of a group.
pub fn member(reading: &Reading<'_>) -> ClientConfig {
    config(reading, shares(reading.prefetch, partitions(reading)))
}

/// The same, by its `shares`.
pub fn config(reading: &Reading<'_>, (share, request): (usize, usize)) -> ClientConfig {
    let mut config = fetching(reading.kafka, reading.part, reading.prefetch, (share, request));
    config.set("group.id", reading.group);
    // Kafka itself shares out where the group speaks its newer protocol, and takes neither.
    if reading.kafka.properties.get("group.protocol").is_none_or(|p| p.value() != "consumer") {
        let strategy = if reading.together { "range" } else { "cooperative-sticky" };
        config.set("partition.assignment.strategy", strategy).set("session.timeout.ms", "30000");
    }
    if let Some(id) = reading.instance_id {
        config.set("group.instance.id", format!("{id}-{}", reading.part));
    }
    resume::saying_ids(client::with_properties(config, reading.kafka))
}

/// The settings of a client that reads for several members, and joins no group itself.
pub fn apart(kafka: &Kafka, group: &str, prefetch: usize, partitions: usize) -> ClientConfig {
    let mut config = fetching(kafka, "reader", prefetch, shares(prefetch, partitions));
    // librdkafka wants one all the same, and asks for its coordinator.
    config.set("group.id", group);
    client::with_properties(config, kafka)
}

/// How each reader fetches: of committed records so much ahead.
fn fetching(
    kafka: &Kafka,
    part: &str,
    prefetch: usize,
    (share, request): (usize, usize),
) -> ClientConfig {
    let at_once = (prefetch / OVERHEAD / EXPANDS).clamp(128 << 10, 16 << 20);
    let mut config = client::long_lived(kafka, part);
    config
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        // It goes on where `resume` says, or not at all.
        .set("auto.offset.reset", "error")
        // Of each partition, since each has a queue of its own.
        .set("queued.max.messages.kbytes", (share / 1024).to_string())
        .set("queued.min.messages", "100000")
        // Once the queue is full, librdkafka looks again after a second unless told otherwise.
        .set("fetch.queue.backoff.ms", "20")
        .set("fetch.max.bytes", at_once.to_string())
        .set("message.max.bytes", "100000")
        .set("fetch.message.max.bytes", request.to_string())
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "100");
    config
}
