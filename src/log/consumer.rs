//! A member of a consumer group. Cooperative-sticky unless the pipeline file says otherwise, reads
//! committed records only, commits nothing by itself, and fetches a bounded number of bytes ahead.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientContext, Statistics, TopicPartitionList};

use super::client;
use crate::pipeline::model::{Kafka, Start};
use crate::telemetry::Meters;

/// What a stage does when partitions come and go. Called on the thread that polls.
pub trait Assignments: Send + Sync + 'static {
    fn assigned(&self, partitions: &[(String, i32)]);
    /// Before the partitions are given up. `consumer` can still commit for them, unless they are `lost` already.
    fn revoked(&self, consumer: &Group<Self>, partitions: &[(String, i32)], lost: bool)
    where
        Self: Sized;
}

pub type Group<A> = BaseConsumer<Context<A>>;

pub struct Context<A> {
    pub assignments: A,
    part: String,
    meters: Arc<Meters>,
    /// By topic and partition: the last stable offset, below which records can be read.
    ends: Mutex<HashMap<(String, i32), i64>>,
}

impl<A> Context<A> {
    pub fn ends(&self) -> MutexGuard<'_, HashMap<(String, i32), i64>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A: Assignments> ClientContext for Context<A> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if client::is_outage(&error) {
            tracing::warn!(part = self.part, "Kafka: {reason}");
        } else {
            tracing::error!(part = self.part, "Kafka: {error}: {reason}");
        }
    }

    fn stats(&self, statistics: Statistics) {
        let mut ends = self.ends();
        for (name, topic) in &statistics.topics {
            for (id, partition) in &topic.partitions {
                if *id >= 0 && partition.ls_offset >= 0 {
                    ends.insert((name.clone(), *id), partition.ls_offset);
                }
            }
        }
    }
}

impl<A: Assignments> ConsumerContext for Context<A> {
    fn pre_rebalance(&self, consumer: &Group<A>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                let partitions = names(list);
                tracing::info!(part = self.part, partitions = ?ids(&partitions), "partitions assigned");
                self.meters.rebalances.with_label_values(&[&self.part, "assigned"]).inc();
                self.assignments.assigned(&partitions);
            }
            Rebalance::Revoke(list) => {
                let partitions = names(list);
                let lost = consumer.assignment_lost();
                tracing::info!(part = self.part, partitions = ?ids(&partitions), lost, "partitions revoked");
                self.meters.rebalances.with_label_values(&[self.part.as_str(), if lost { "lost" } else { "revoked" }]).inc();
                self.assignments.revoked(consumer, &partitions, lost);
            }
            Rebalance::Error(error) => {
                tracing::warn!(part = self.part, %error, "rebalance failed");
                self.meters.rebalances.with_label_values(&[&self.part, "failed"]).inc();
            }
        }
    }
}

fn names(list: &TopicPartitionList) -> Vec<(String, i32)> {
    list.elements().iter().map(|e| (e.topic().to_owned(), e.partition())).collect()
}

fn ids(partitions: &[(String, i32)]) -> Vec<i32> {
    partitions.iter().map(|(_, id)| *id).collect()
}

/// How a group member reads.
pub struct Reading<'a> {
    pub kafka: &'a Kafka,
    pub part: &'a str,
    pub group: &'a str,
    pub topics: &'a [&'a str],
    pub start: Start,
    pub instance_id: Option<&'a str>,
    pub prefetch: usize,
}

/// How often librdkafka reports where each partition ends.
const STATISTICS: Duration = Duration::from_secs(2);

/// Joins the group.
pub fn join<A: Assignments>(reading: &Reading<'_>, assignments: A, meters: Arc<Meters>) -> KafkaResult<Group<A>> {
    let mut config = client::config(reading.kafka, reading.part);
    config
        .set("group.id", reading.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set(
            "auto.offset.reset",
            match reading.start {
                Start::Earliest => "earliest",
                Start::Latest => "latest",
            },
        )
        .set("session.timeout.ms", "30000")
        .set("queued.max.messages.kbytes", (reading.prefetch / 1024).max(64).to_string())
        .set("queued.min.messages", "100000")
        // Once the queue is full, librdkafka looks again after a second unless told otherwise.
        .set("fetch.queue.backoff.ms", "20")
        .set("fetch.message.max.bytes", "1048576")
        .set("fetch.wait.max.ms", "100")
        .set("statistics.interval.ms", STATISTICS.as_millis().to_string());
    if let Some(id) = reading.instance_id {
        config.set("group.instance.id", format!("{id}-{}", reading.part));
    }
    let context = Context { assignments, part: reading.part.to_owned(), meters, ends: Mutex::default() };
    let consumer: Group<A> = client::with_properties(config, reading.kafka).create_with_context(context)?;
    consumer.subscribe(reading.topics)?;
    Ok(consumer)
}

/// The next record, if one comes in time. Errors that pass by themselves are logged by the context and
/// are nothing here.
pub fn poll<'c, A: Assignments>(consumer: &'c Group<A>, wait: Duration) -> KafkaResult<Option<BorrowedMessage<'c>>> {
    match consumer.poll(wait) {
        None => Ok(None),
        Some(Ok(message)) => Ok(Some(message)),
        Some(Err(KafkaError::PartitionEOF(_))) => Ok(None),
        Some(Err(error)) if client::is_outage(&error) => Ok(None),
        Some(Err(error)) => Err(error),
    }
}
