//! A member of a consumer group. Cooperative-sticky unless the pipeline file says otherwise, reads
//! committed records only, commits nothing by itself, and fetches a bounded number of bytes ahead.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{
    BaseConsumer, CommitMode, Consumer, ConsumerContext, ConsumerGroupMetadata, Rebalance,
};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};

use super::config::{Kafka, Start};
use super::progress::{Assigned, Progress};
use super::{Commits, Headers, Message, Polled, Reader, client, headers, scan};
use crate::telemetry::Meters;

/// What a stage does when partitions come and go. Called on the thread that polls.
pub trait Assignments: Send + Sync + 'static {
    fn assigned(&self, partitions: &[(String, i32)]);
    /// Before the partitions are given up. Offsets can still be committed for them, unless they are `lost` already.
    fn revoked(&self, commits: &dyn Commits, partitions: &[(String, i32)], lost: bool);
}

pub type Group<A> = BaseConsumer<Context<A>>;

pub struct Context<A> {
    pub assignments: A,
    part: String,
    group: String,
    kafka: Kafka,
    meters: Arc<Meters>,
    progress: Arc<Progress>,
    /// By topic and partition: the last stable offset, below which records can be read.
    ends: Mutex<HashMap<(String, i32), i64>>,
    /// The same: where the part goes on, by what was committed when the partition was assigned.
    starts: Mutex<HashMap<(String, i32), i64>>,
    start: Start,
    brokers: client::Brokers,
}

impl<A> Context<A> {
    fn starts(&self) -> MutexGuard<'_, HashMap<(String, i32), i64>> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn ends(&self) -> MutexGuard<'_, HashMap<(String, i32), i64>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, topic: &str, partition: i32) -> Assigned {
        Assigned { part: self.part.clone(), topic: topic.to_owned(), partition }
    }
}

impl<A: Assignments> ClientContext for Context<A> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition, which `poll` tells.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        if client::is_outage(&error) {
            tracing::warn!(part = self.part, "Kafka: {reason}");
        } else {
            tracing::error!(part = self.part, "Kafka: {error}: {reason}");
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.brokers.note(&statistics);
        let mut ends = self.ends();
        for (name, topic) in &statistics.topics {
            for (id, partition) in &topic.partitions {
                if *id >= 0 && partition.ls_offset >= 0 {
                    ends.insert((name.clone(), *id), partition.ls_offset);
                }
                let first = match self.start {
                    _ if partition.committed_offset >= 0 => partition.committed_offset,
                    Start::Earliest => partition.lo_offset,
                    Start::Latest => partition.ls_offset,
                };
                // Before that what was committed is not asked for yet.
                if *id >= 0 && first >= 0 && partition.fetch_state == "active" {
                    self.starts().entry((name.clone(), *id)).or_insert(first);
                }
                // `eof_offset` is past transaction markers, which no record tells of.
                let read = partition.app_offset.max(partition.eof_offset);
                if read >= 0 {
                    self.progress.read(&self.place(name, *id), read, Instant::now());
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
                for (topic, partition) in &partitions {
                    self.progress.assigned(self.place(topic, *partition), Instant::now());
                }
                self.assignments.assigned(&partitions);
            }
            Rebalance::Revoke(list) => {
                let partitions = names(list);
                let lost = consumer.assignment_lost();
                tracing::info!(part = self.part, partitions = ?ids(&partitions), lost, "partitions revoked");
                self.meters
                    .rebalances
                    .with_label_values(&[self.part.as_str(), if lost { "lost" } else { "revoked" }])
                    .inc();
                self.assignments.revoked(consumer, &partitions, lost);
                for (topic, partition) in &partitions {
                    self.progress.revoked(&self.place(topic, *partition));
                    self.meters.gave_up(&self.part, topic, *partition);
                    self.starts().remove(&(topic.clone(), *partition));
                }
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

/// Joins the group.
pub fn join<A: Assignments>(
    reading: &Reading<'_>,
    assignments: A,
    meters: Arc<Meters>,
    progress: Arc<Progress>,
) -> KafkaResult<Group<A>> {
    let mut config = client::long_lived(reading.kafka, reading.part);
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
        // What is fetched at once is compressed, and several times as large once it is read.
        .set("fetch.max.bytes", (reading.prefetch / 4).clamp(512 << 10, 16 << 20).to_string())
        .set("message.max.bytes", "500000")
        .set("fetch.message.max.bytes", "524288")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "100");
    if let Some(id) = reading.instance_id {
        config.set("group.instance.id", format!("{id}-{}", reading.part));
    }
    let context = Context {
        assignments,
        part: reading.part.to_owned(),
        group: reading.group.to_owned(),
        kafka: reading.kafka.clone(),
        meters,
        progress,
        ends: Mutex::default(),
        starts: Mutex::default(),
        start: reading.start,
        brokers: client::Brokers::default(),
    };
    let consumer: Group<A> =
        client::with_properties(config, reading.kafka).create_with_context(context)?;
    consumer.subscribe(reading.topics)?;
    Ok(consumer)
}

impl<A: Assignments> Commits for Group<A> {
    fn commit(&self, topic: &str, offsets: &[(i32, i64)], wait: bool) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        Consumer::commit(self, &list, if wait { CommitMode::Sync } else { CommitMode::Async })
    }
}

impl Headers for BorrowedMessage<'_> {
    fn pairs(&self) -> Vec<(&str, &[u8])> {
        headers::pairs(self)
    }
}

/// `poll` blocks its thread: a stage's loop has one of its own.
impl<A: Assignments> Reader for Group<A> {
    type Membership = ConsumerGroupMetadata;

    async fn poll(
        &self,
        wait: Duration,
        take: &mut dyn FnMut(&Message<'_>),
    ) -> KafkaResult<Polled> {
        self.context().brokers.check()?;
        match BaseConsumer::poll(self, wait) {
            None => Ok(Polled::Nothing),
            Some(Ok(message)) => {
                take(&Message {
                    topic: message.topic(),
                    partition: message.partition(),
                    offset: message.offset(),
                    payload: message.payload().unwrap_or_default(),
                    headers: &message,
                });
                Ok(Polled::Message)
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => Ok(Polled::End(partition)),
            Some(Err(error)) if client::is_outage(&error) => Ok(Polled::Nothing),
            Some(Err(error)) => Err(error),
        }
    }

    fn pause(&self) -> KafkaResult<()> {
        Consumer::pause(self, &self.assignment()?)
    }

    fn resume(&self) -> KafkaResult<()> {
        Consumer::resume(self, &self.assignment()?)
    }

    fn seek(&self, places: &[(&str, i32, i64)]) -> KafkaResult<()> {
        let assigned = self.assignment()?;
        let mut back = TopicPartitionList::new();
        for (topic, partition, offset) in places {
            if assigned.find_partition(topic, *partition).is_some() {
                back.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
            }
        }
        if back.count() > 0 {
            let result = self.seek_partitions(back, Duration::from_secs(10))?;
            for element in result.elements() {
                element.error()?;
            }
        }
        Ok(())
    }

    fn read_back(
        &self,
        topic: &str,
        partition: i32,
        before: i64,
        count: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> KafkaResult<()> {
        let Context { kafka, group, .. } = &**self.context();
        scan::before(kafka, group, topic, partition, before, count, take)
    }

    fn end(&self, topic: &str, partition: i32) -> Option<i64> {
        self.context().ends().get(&(topic.to_owned(), partition)).copied()
    }

    fn start(&self, topic: &str, partition: i32) -> Option<i64> {
        self.context().starts().get(&(topic.to_owned(), partition)).copied()
    }

    fn membership(&self) -> Option<ConsumerGroupMetadata> {
        self.group_metadata()
    }

    fn leave(&self) {
        self.unsubscribe();
    }
}
