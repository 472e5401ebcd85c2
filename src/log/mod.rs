//! Kafka: how docket connects, reads as a member of a group, writes in transactions, keeps offsets, and
//! makes its topics; and a broker inside the process for the demo and the hermetic tests.
//!
//! The stages know Kafka by the traits below, so that the same loops run over a simulated log in
//! tests/simulation. `consumer` and `producer` implement them with librdkafka.

pub mod ask;
pub mod client;
pub mod closing;
pub mod config;
pub mod consumer;
pub mod dead_letter;
pub mod ended;
mod fetch;
pub mod headers;
pub mod member;
pub mod mock;
pub mod offsets;
pub mod original;
pub mod producer;
pub mod progress;
mod queues;
mod reading;
pub mod resume;
pub mod scan;
pub mod shared;
pub mod standing;
mod threaded;
mod told;
pub mod topics;
pub mod transactional;
mod tried;
pub mod value;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;

pub use reading::Reading;
pub use tried::tried;
pub use value::Value;

use crate::decision::time::Nanos;

/// A record that was read.
pub struct Message<'m> {
    pub topic: &'m str,
    pub partition: i32,
    pub offset: i64,
    pub payload: &'m [u8],
    pub headers: &'m dyn Headers,
}

impl Message<'_> {
    /// The record as a sink has it.
    pub fn value(&self) -> Arc<Value> {
        self.headers.value().unwrap_or_else(|| Arc::new(Value::new(self.payload)))
    }
}

/// Headers are looked at by few, so they are read when asked for.
pub trait Headers {
    fn pairs(&self) -> Vec<(&str, &[u8])>;

    /// The record's key.
    fn key(&self) -> Option<&[u8]> {
        None
    }

    /// When the record was written to its topic, if that is known.
    fn written(&self) -> Option<Nanos> {
        None
    }

    /// What the record is, if that was read already.
    fn value(&self) -> Option<Arc<Value>> {
        None
    }
}

/// What a group can't read any more of a partition and has not finished, and where it goes on instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    pub topic: String,
    pub partition: i32,
    pub gap: crate::resume::Gap,
    pub at: i64,
}

impl Gap {
    /// What happened, for people.
    pub fn sentence(&self) -> String {
        let said = self.gap.sentence(&self.topic, self.partition);
        match self.gap.to {
            None if self.at > 0 => {
                format!("{said}; the first record that there is has offset {}", self.at)
            }
            _ => said,
        }
    }
}

/// What a poll brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polled {
    Nothing,
    Message,
}

/// Commits offsets of the one topic that a group reads: partition and next offset.
pub trait Commits {
    fn commit(&self, topic: &str, offsets: &[(i32, i64)], wait: bool) -> KafkaResult<()>;
}

/// Gets the records that stood before a group's place in a partition, in their order, and nothing at the end of each
/// partition.
pub type Told = Box<dyn FnMut(i32, Option<&[u8]>) + Send>;

/// A member of a consumer group. Its partitions come and go while it polls.
pub trait Reader: Commits {
    /// Proves membership when offsets are committed in a transaction.
    type Membership;

    /// Hands the next record to `take`, if one comes in time. Errors that pass by themselves are nothing here.
    /// Which partition it is of, the reader decides: the one furthest behind in record time.
    fn poll(
        &self,
        wait: Duration,
        take: &mut dyn FnMut(&Message<'_>),
    ) -> impl Future<Output = KafkaResult<Polled>>;

    /// Stays a member, and reads nothing.
    fn idle(&self) -> KafkaResult<()>;

    /// Goes back: topic, partition, offset. Partitions that are not assigned any more are passed over.
    fn seek(&self, places: &[(&str, i32, i64)]) -> KafkaResult<()>;

    /// Reads up to `count` records of each partition that stand before the group's place in it, and tells of each
    /// partition once it is read, or can't be. Off the loop: it returns at once.
    fn read_back(&self, topic: &str, partitions: Vec<i32>, count: usize, told: Told);

    /// The end of a partition, as far as it is known.
    fn end(&self, topic: &str, partition: i32) -> Option<i64>;

    /// Where it goes on in a partition that it was assigned, as far as it is known: what was committed before.
    fn start(&self, _topic: &str, _partition: i32) -> Option<i64> {
        None
    }

    /// What was found to be gone in partitions that were assigned since it was asked last. Nothing is committed past a gap
    /// before it is told.
    fn gaps(&self) -> Vec<Gap> {
        Vec::new()
    }

    /// Below this offset of a partition everything was handed out, as far as it is known; markers of transactions, of
    /// which no record tells, count.
    fn read_through(&self, topic: &str, partition: i32) -> Option<i64>;

    /// What is committed of partitions, in their order, with the text that was committed with it. Of a partition of which
    /// something is gone that may be another log's. Waits for Kafka.
    fn committed(&self, partitions: &[(String, i32)]) -> KafkaResult<Vec<Option<Committed>>>;

    fn membership(&self) -> Option<Self::Membership>;

    /// Why it is not in its group, if that lasts.
    fn outside(&self) -> Option<String> {
        None
    }

    /// Whether it is in its group; it was once if it was `assigned` partitions.
    fn joined(&self, assigned: bool) -> Result<(), String> {
        match self.outside() {
            Some(why) => Err(why),
            None if !assigned => Err("not in its consumer group yet".to_owned()),
            None => Ok(()),
        }
    }

    fn leave(&self);
}

/// A committed offset, and the text that was committed with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    pub offset: i64,
    pub metadata: String,
}

/// A record to be written.
pub struct Outgoing<'r> {
    pub topic: &'r str,
    pub key: Option<&'r str>,
    pub payload: &'r [u8],
    pub headers: OwnedHeaders,
}

/// Writes records and commits the offsets that they came from, all or nothing.
pub trait Transactions {
    type Membership;

    fn begin(&self) -> KafkaResult<()>;

    /// Writes a record in the open transaction. `tag` names it if it fails; `alone` has it sent in a batch of its own.
    fn send(&self, record: Outgoing<'_>, tag: usize, alone: bool) -> KafkaResult<()> {
        self.send_to(None, record, tag, alone)
    }

    /// The same, to a partition of the caller's choice, if one is named.
    fn send_to(
        &self,
        partition: Option<i32>,
        record: Outgoing<'_>,
        tag: usize,
        alone: bool,
    ) -> KafkaResult<()>;

    /// How many partitions a topic has. Waits for Kafka.
    fn partitions(&self, topic: &str) -> KafkaResult<i32>;

    /// Whether a record of the open transaction failed already.
    fn any_failed(&self) -> bool;

    fn commit(&self, offsets: &[(&str, i32, i64)], member: &Self::Membership) -> KafkaResult<()> {
        let plain = |(topic, partition, offset): &(_, i32, i64)| {
            (*topic, *partition, Committed { offset: *offset, metadata: String::new() })
        };
        let offsets: Vec<_> = offsets.iter().map(plain).collect();
        self.commit_with(&offsets, member)
    }

    /// The same, with a text for each offset.
    fn commit_with(
        &self,
        offsets: &[(&str, i32, Committed)],
        member: &Self::Membership,
    ) -> KafkaResult<()>;

    /// The topic that it had no right to write to.
    fn denied(&self) -> Option<String> {
        None
    }

    /// Undoes the open transaction. Returns the tags of records that were too large for their topic.
    fn abort(&self) -> KafkaResult<Vec<(usize, RDKafkaErrorCode)>>;
}

/// Writes single records, each acknowledged.
pub trait RecordWriter: Send + Sync + 'static {
    fn write(&self, record: Outgoing<'_>) -> impl Future<Output = KafkaResult<()>> + Send;
}
