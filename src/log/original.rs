//! Fetches single records by their place: what a dead letter was made of that keeps no bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message, OwnedHeaders};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::client;
use super::config::Kafka;
use super::scan::reader;

const TIMEOUT: Duration = Duration::from_secs(15);
/// Records in between are read and passed over, up to so many.
const NEAR: i64 = 1000;

/// A record as it was written.
#[derive(Debug, Clone)]
pub struct Original {
    pub value: Vec<u8>,
    pub key: Option<Vec<u8>>,
    pub headers: OwnedHeaders,
}

impl Original {
    fn of(message: &BorrowedMessage<'_>) -> Original {
        Original {
            value: message.payload().unwrap_or_default().to_vec(),
            key: message.key().map(<[u8]>::to_vec),
            headers: message
                .headers()
                .map_or_else(OwnedHeaders::new, rdkafka::message::BorrowedHeaders::detach),
        }
    }
}

/// Why there is no record at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    #[error("retention has taken the records that they were made of")]
    Taken,
    #[error("their topic ends before the place that they name: it was deleted and made again")]
    Beyond,
    #[error("their topic, or its partition, is not there any more")]
    NoTopic,
}

/// Reads single records of a cluster.
pub struct Originals(BaseConsumer<client::Context>);

impl Originals {
    pub fn new(kafka: &Kafka, group: &str) -> KafkaResult<Originals> {
        Ok(Originals(reader(kafka, "originals", group)?))
    }

    /// Those of the places that can't be there any more, by what the broker says of the partition's ends.
    pub fn gone(
        &self,
        topic: &str,
        partition: i32,
        offsets: &BTreeSet<i64>,
    ) -> KafkaResult<BTreeMap<i64, Gone>> {
        let all = |why| Ok(offsets.iter().map(|offset| (*offset, why)).collect());
        let metadata = self.0.fetch_metadata(Some(topic), TIMEOUT)?;
        let known = metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions);
        if !known.into_iter().any(|p| p.id() == partition) {
            return all(Gone::NoTopic);
        }
        let (low, high) = self.0.fetch_watermarks(topic, partition, TIMEOUT)?;
        let why = |offset: i64| match offset {
            _ if offset < low => Some(Gone::Taken),
            _ if offset >= high => Some(Gone::Beyond),
            _ => None,
        };
        Ok(offsets.iter().filter_map(|offset| Some((*offset, why(*offset)?))).collect())
    }

    /// The records at some places of a partition, or why there is none.
    pub fn fetch(
        &self,
        topic: &str,
        partition: i32,
        offsets: &BTreeSet<i64>,
    ) -> KafkaResult<BTreeMap<i64, Result<Original, Gone>>> {
        let gone = self.gone(topic, partition, offsets)?;
        let mut all: BTreeMap<i64, Result<Original, Gone>> =
            gone.into_iter().map(|(offset, why)| (offset, Err(why))).collect();
        let mut left: BTreeSet<i64> =
            offsets.iter().copied().filter(|offset| !all.contains_key(offset)).collect();
        let (mut at, mut deadline) = (None, Instant::now() + TIMEOUT);
        while let Some(next) = left.first().copied() {
            if at.is_none_or(|at| next - at > NEAR) {
                let mut list = TopicPartitionList::new();
                list.add_partition_offset(topic, partition, Offset::Offset(next))?;
                self.0.assign(&list)?;
                at = Some(next);
            }
            match self.0.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let offset = message.offset();
                    (at, deadline) = (Some(offset), Instant::now() + TIMEOUT);
                    // What the log passes over was compacted, or is a marker.
                    while let Some(passed) = left.first().copied().filter(|o| *o < offset) {
                        left.remove(&passed);
                        all.insert(passed, Err(Gone::Taken));
                    }
                    if left.remove(&offset) {
                        all.insert(offset, Ok(Original::of(&message)));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    all.extend(left.iter().map(|offset| (*offset, Err(Gone::Taken))));
                    left.clear();
                }
                Some(Err(error)) if !client::is_outage(&error) => return Err(error),
                None | Some(Err(_)) if Instant::now() > deadline => {
                    return Err(KafkaError::MessageConsumption(
                        RDKafkaErrorCode::OperationTimedOut,
                    ));
                }
                None | Some(Err(_)) => {}
            }
        }
        self.0.unassign()?;
        Ok(all)
    }
}
