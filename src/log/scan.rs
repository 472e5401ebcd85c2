//! Reads what stands in a topic already, without a group: a stretch of a partition, or all of a topic
//! between two times.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::metadata::{Metadata, MetadataPartition, MetadataTopic};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use super::ask::{ACLS, Asker, Unanswered, hides};
use super::config::Kafka;
use super::{Told, client};
use crate::decision::time::Nanos;

const TIMEOUT: Duration = Duration::from_secs(15);
/// Who can't answer yet is asked again after so long.
const AGAIN: Duration = Duration::from_millis(200);
const LEADERLESS: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;

/// The part of a group's name for who only reads.
pub const READER: &str = "reader";

/// A client that joins no group and commits nothing.
pub fn reader(
    kafka: &Kafka,
    part: &str,
    group: &str,
) -> KafkaResult<BaseConsumer<client::Context>> {
    let mut config = client::long_lived(kafka, part);
    config
        // librdkafka wants one all the same, and asks for its coordinator; the pipeline has rights to its own groups only.
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        // By default one answer holds up to 50 MiB, which are several times as large once they are decompressed.
        .set("queued.max.messages.kbytes", "2048")
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.message.max.bytes", "65536")
        .set("fetch.max.bytes", "262144")
        .set("message.max.bytes", "200000")
        .set("fetch.wait.max.ms", "100");
    client::with_properties(config, kafka).create_with_context(client::Context::default())
}

/// Partitions that are read back, and who is told. However it ends, the end of each is told.
struct Back {
    topic: String,
    /// Where the group goes on.
    left: BTreeMap<i32, i64>,
    told: Told,
}

impl Back {
    fn end(&mut self, partition: i32) {
        if self.left.remove(&partition).is_some() {
            (self.told)(partition, None);
        }
    }

    /// Hands on up to `count` records of each partition that stand before where the group goes on in it: what it committed may be of
    /// another topic.
    fn read(&mut self, kafka: &Kafka, group: &str, count: usize) -> KafkaResult<()> {
        let reader = reader(kafka, "read-back", group)?;
        let mut from = TopicPartitionList::new();
        for (partition, before) in self.left.clone() {
            // Transaction markers take offsets, too; what they cost is read again from a little further back.
            let back = i64::try_from(count).unwrap_or(i64::MAX).saturating_add(count as i64 / 8);
            let start = before.saturating_sub(back).max(0);
            if start >= before {
                self.end(partition);
                continue;
            }
            // Where that is no more, at the oldest record (`auto.offset.reset`).
            from.add_partition_offset(&self.topic, partition, Offset::Offset(start))?;
        }
        reader.assign(&from)?;
        let mut last = Instant::now();
        while !self.left.is_empty() {
            match reader.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    last = Instant::now();
                    let partition = message.partition();
                    let Some(before) = self.left.get(&partition).copied() else { continue };
                    if message.offset() < before {
                        (self.told)(partition, Some(message.payload().unwrap_or_default()));
                    }
                    if message.offset() + 1 >= before {
                        self.end(partition);
                        let mut done = TopicPartitionList::new();
                        done.add_partition(&self.topic, partition);
                        reader.pause(&done)?;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => self.end(partition),
                Some(Err(error)) if !client::is_outage(&error) => return Err(error),
                None | Some(Err(_)) if last.elapsed() > TIMEOUT => {
                    return Err(KafkaError::MessageConsumption(
                        rdkafka::types::RDKafkaErrorCode::OperationTimedOut,
                    ));
                }
                None | Some(Err(_)) => {}
            }
        }
        Ok(())
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        for partition in self.left.keys().copied().collect::<Vec<_>>() {
            self.end(partition);
        }
    }
}

/// Reads back from where the group goes on in each partition, on a thread of its own and with one client for all of them.
pub fn read_back(
    kafka: &Kafka,
    group: &str,
    part: &str,
    topic: &str,
    left: BTreeMap<i32, i64>,
    count: usize,
    told: Told,
) {
    let mut back = Back { topic: topic.to_owned(), left, told };
    let (kafka, group, part) = (kafka.clone(), group.to_owned(), part.to_owned());
    let thread = std::thread::Builder::new().name(format!("docket-{part}-back"));
    let started = thread.spawn(move || {
        if let Err(error) = back.read(&kafka, &group, count) {
            tracing::warn!(part, partitions = ?back.left.keys(), %error, "what was sent before can't be read; a repeat may pass");
        }
    });
    if let Err(error) = started {
        tracing::warn!(%error, "what was sent before can't be read; a repeat may pass");
    }
}

/// Where reading begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanBound {
    Start,
    End,
    /// The first record that Kafka got at this time or later.
    At(Nanos),
}

/// A range of a partition: from an offset to before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetRange {
    pub partition: i32,
    pub from: i64,
    pub to: i64,
}

/// What comes while a topic is watched.
pub enum Seen<'m> {
    Message(&'m BorrowedMessage<'m>),
    /// A partition has no more for now.
    End(i32),
    /// The topic has got this partition; what stands in it comes from its beginning on.
    Added(i32),
    Nothing,
}

/// How often who watches looks for partitions that were added.
const LOOK: Duration = Duration::from_secs(10);
/// And for how long it waits for the answer.
const ANSWER: Duration = Duration::from_secs(1);

/// A topic's partitions between two bounds, and a reader of them.
pub struct TopicScan {
    reader: BaseConsumer<client::Context>,
    topic: String,
    /// Of every partition, empty ones among them.
    ranges: Vec<OffsetRange>,
}

/// Why a topic can't be read. Says the way out.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    #[error(
        "Kafka at {brokers} hides the topic {topic} for want of rights (TopicAuthorizationFailed): it may be there; {ACLS} gives docket the rights it needs"
    )]
    Hidden { brokers: String, topic: String },
    #[error("there is no topic {0}; `docket setup` creates it")]
    NoTopic(String),
    #[error("{topic} can't be read to its end: {error}")]
    Kafka { topic: String, error: KafkaError },
    #[error("{topic} can't be read to its end: nothing came for {} s", .0.as_secs(), topic = .1)]
    Silent(Duration, String),
}

/// Asks until Kafka can answer, for so long: just after a start, partitions have no leader yet, or another than it says.
fn patiently<T>(
    patience: Duration,
    mut ask: impl FnMut(Duration) -> KafkaResult<T>,
) -> KafkaResult<T> {
    let began = Instant::now();
    loop {
        let left = patience.saturating_sub(began.elapsed()).max(AGAIN);
        match ask(left) {
            Err(error) if client::is_outage(&error) && began.elapsed() + AGAIN < patience => {
                std::thread::sleep(AGAIN);
            }
            answer => return answer,
        }
    }
}

/// What Kafka says of a topic, with its partitions if they are there.
fn shown(asker: &Asker, topic: &str) -> Result<Metadata, ScanError> {
    let began = Instant::now();
    loop {
        let metadata = asker.metadata(Some(topic), TIMEOUT)?;
        // One that was just made.
        let made = |topic: &MetadataTopic| topic.error() == Some(LEADERLESS);
        if !metadata.topics().iter().any(made) || began.elapsed() + AGAIN >= TIMEOUT {
            return Ok(metadata);
        }
        std::thread::sleep(AGAIN);
    }
}

impl TopicScan {
    pub fn open(
        kafka: &Kafka,
        group: &str,
        part: &str,
        topic: &str,
        from: ScanBound,
        to: ScanBound,
    ) -> Result<TopicScan, ScanError> {
        let wrong = |error| ScanError::Kafka { topic: topic.to_owned(), error };
        let metadata = shown(&Asker::new(kafka, part, None)?, topic)?;
        if metadata.topics().iter().any(|topic| hides(topic.error())) {
            return Err(ScanError::Hidden {
                brokers: kafka.brokers.clone(),
                topic: topic.to_owned(),
            });
        }
        let reader = reader(kafka, part, group).map_err(wrong)?;
        let partitions: Vec<i32> = metadata
            .topics()
            .iter()
            .flat_map(MetadataTopic::partitions)
            .map(MetadataPartition::id)
            .collect();
        if partitions.is_empty() {
            return Err(ScanError::NoTopic(topic.to_owned()));
        }
        let mut ends = Vec::new();
        for partition in &partitions {
            let ask = |left| reader.fetch_watermarks(topic, *partition, left);
            let (low, high) = patiently(TIMEOUT, ask).map_err(wrong)?;
            ends.push((*partition, low, high));
        }
        let at = |bound: ScanBound| -> Result<Vec<i64>, ScanError> {
            let time = match bound {
                ScanBound::Start => return Ok(ends.iter().map(|(_, low, _)| *low).collect()),
                ScanBound::End => return Ok(ends.iter().map(|(_, _, high)| *high).collect()),
                ScanBound::At(time) => time,
            };
            let mut list = TopicPartitionList::new();
            for partition in &partitions {
                list.add_partition_offset(topic, *partition, Offset::Offset(time / 1_000_000))
                    .map_err(wrong)?;
            }
            let found = patiently(TIMEOUT, |left| {
                let found = reader.offsets_for_times(list.clone(), left)?;
                found.elements().iter().try_for_each(TopicPartitionListElem::error)?;
                Ok(found)
            });
            let found = found.map_err(wrong)?;
            let offset = |(partition, low, high): &(i32, i64, i64)| match found
                .find_partition(topic, *partition)
                .map(|e| e.offset())
            {
                Some(Offset::Offset(offset)) => offset.clamp(*low, *high),
                _ => *high,
            };
            Ok(ends.iter().map(offset).collect())
        };
        let (from, to) = (at(from)?, at(to)?);
        let range = |(partition, (from, to)): (&i32, (&i64, &i64))| OffsetRange {
            partition: *partition,
            from: *from,
            to: (*to).max(*from),
        };
        let ranges = partitions.iter().zip(from.iter().zip(&to)).map(range).collect();
        Ok(TopicScan { reader, topic: topic.to_owned(), ranges })
    }

    /// How many offsets there are; transaction markers among them.
    pub fn offsets(&self) -> u64 {
        self.ranges.iter().map(|s| u64::try_from(s.to - s.from).unwrap_or_default()).sum()
    }

    /// Reads less of each partition.
    pub fn narrow(&mut self, less: impl Fn(&OffsetRange) -> OffsetRange) {
        for range in &mut self.ranges {
            *range = less(range);
        }
    }

    pub fn ranges(&self) -> &[OffsetRange] {
        &self.ranges
    }

    /// The same, but of each partition only what stands at this offset or later.
    pub fn starting_at(mut self, offsets: &BTreeMap<i32, i64>) -> TopicScan {
        for range in &mut self.ranges {
            if let Some(offset) = offsets.get(&range.partition) {
                range.from = (*offset).clamp(range.from, range.to);
            }
        }
        self
    }

    /// Hands every record to `take`, which says whether to go on; `step` is told of progress in offsets.
    pub fn read(
        &self,
        step: &mut dyn FnMut(u64),
        take: &mut dyn FnMut(&BorrowedMessage<'_>) -> bool,
    ) -> Result<(), ScanError> {
        self.read_ends(step, &mut |_, message| message.is_none_or(&mut *take))
    }

    /// As `read`, and hands on a partition without a record when it was read to its end.
    pub fn read_ends(
        &self,
        step: &mut dyn FnMut(u64),
        take: &mut dyn FnMut(i32, Option<&BorrowedMessage<'_>>) -> bool,
    ) -> Result<(), ScanError> {
        let wrong = |error| ScanError::Kafka { topic: self.topic.clone(), error };
        let mut left: Vec<OffsetRange> =
            self.ranges.iter().copied().filter(|s| s.from < s.to).collect();
        self.assign(&left)?;
        let mut last = Instant::now();
        while !left.is_empty() {
            match self.reader.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    last = Instant::now();
                    let Some(at) = left.iter().position(|s| s.partition == message.partition())
                    else {
                        continue;
                    };
                    let s = &mut left[at];
                    let next = (message.offset() + 1).min(s.to);
                    step(u64::try_from(next - s.from).unwrap_or_default());
                    s.from = next;
                    let done = s.from >= s.to;
                    if message.offset() < s.to && !take(message.partition(), Some(&message)) {
                        return Ok(());
                    }
                    if done {
                        left.swap_remove(at);
                        take(message.partition(), None);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    last = Instant::now();
                    // What is left of it are transaction markers, or is not committed yet.
                    if let Some(at) = left.iter().position(|s| s.partition == partition) {
                        let s = left.swap_remove(at);
                        step(u64::try_from(s.to - s.from).unwrap_or_default());
                        take(partition, None);
                    }
                }
                Some(Err(error)) if !client::is_outage(&error) => return Err(wrong(error)),
                None | Some(Err(_)) if last.elapsed() > TIMEOUT * 2 => {
                    return Err(ScanError::Silent(TIMEOUT * 2, self.topic.clone()));
                }
                None | Some(Err(_)) => {}
            }
        }
        Ok(())
    }

    /// Hands every record from the beginning on to `take`, and goes on with what comes, until it says to stop. It
    /// is called with nothing while nothing comes.
    pub fn follow(
        &self,
        take: &mut dyn FnMut(Option<&BorrowedMessage<'_>>) -> bool,
    ) -> Result<(), ScanError> {
        self.watch(&mut |seen| match seen {
            Seen::Message(message) => take(Some(message)),
            Seen::End(_) | Seen::Added(_) => true,
            Seen::Nothing => take(None),
        })
    }

    /// As `follow`, and says when the end of a partition is reached, each time, and which partitions were added meanwhile.
    pub fn watch(&self, take: &mut dyn FnMut(Seen<'_>) -> bool) -> Result<(), ScanError> {
        self.watch_looking(LOOK, take)
    }

    fn watch_looking(
        &self,
        every: Duration,
        take: &mut dyn FnMut(Seen<'_>) -> bool,
    ) -> Result<(), ScanError> {
        let wrong = |error| ScanError::Kafka { topic: self.topic.clone(), error };
        self.assign(&self.ranges)?;
        let mut known: BTreeSet<i32> = self.ranges.iter().map(|s| s.partition).collect();
        let mut looked = Instant::now();
        loop {
            self.reader.context().brokers.check().map_err(wrong)?;
            if looked.elapsed() >= every {
                looked = Instant::now();
                for partition in self.added(&mut known).map_err(wrong)? {
                    if !take(Seen::Added(partition)) {
                        return Ok(());
                    }
                }
            }
            let go_on = match self.reader.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => take(Seen::Message(&message)),
                Some(Err(KafkaError::PartitionEOF(partition))) => take(Seen::End(partition)),
                Some(Err(error)) if !client::is_outage(&error) => return Err(wrong(error)),
                None | Some(Err(_)) => take(Seen::Nothing),
            };
            if !go_on {
                return Ok(());
            }
        }
    }

    /// Reads partitions that are not known yet, too, from their beginning. A Kafka that is away is asked again.
    fn added(&self, known: &mut BTreeSet<i32>) -> KafkaResult<Vec<i32>> {
        let Ok(metadata) = self.reader.fetch_metadata(Some(&self.topic), ANSWER) else {
            return Ok(Vec::new());
        };
        let all = metadata.topics().iter().flat_map(MetadataTopic::partitions);
        let fresh: Vec<i32> = all.map(MetadataPartition::id).filter(|p| known.insert(*p)).collect();
        if !fresh.is_empty() {
            let mut list = TopicPartitionList::new();
            for partition in &fresh {
                list.add_partition_offset(&self.topic, *partition, Offset::Beginning)?;
            }
            self.reader.incremental_assign(&list)?;
            tracing::info!(topic = self.topic, partitions = ?fresh, "partitions were added; they are read from their beginning");
        }
        Ok(fresh)
    }

    fn assign(&self, ranges: &[OffsetRange]) -> Result<(), ScanError> {
        let wrong = |error| ScanError::Kafka { topic: self.topic.clone(), error };
        let mut list = TopicPartitionList::new();
        for s in ranges {
            list.add_partition_offset(&self.topic, s.partition, Offset::Offset(s.from))
                .map_err(wrong)?;
        }
        self.reader.assign(&list).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    use super::*;

    #[test]
    fn who_can_not_answer_yet_is_asked_again() {
        let mock = crate::log::mock::Mock::start(&[("docket", 2)]).unwrap();
        let kafka = Kafka { brokers: mock.bootstrap(), properties: BTreeMap::new() };
        let open = |from| TopicScan::open(&kafka, "g", "test", "docket", from, ScanBound::End);
        for from in [ScanBound::Start, ScanBound::At(1_795_524_530_000_000_000)] {
            mock.leads_not(3);
            let scan = open(from).unwrap_or_else(|e| panic!("{from:?}: {e}"));
            assert_eq!(scan.ranges().len(), 2);
        }
        // What asking again does not mend is said at once, and what stays is said in the end.
        use rdkafka::error::RDKafkaErrorCode::{NotLeaderForPartition, TopicAuthorizationFailed};
        for (code, patience) in [
            (TopicAuthorizationFailed, Duration::from_secs(3600)),
            (NotLeaderForPartition, Duration::from_millis(500)),
        ] {
            let mut asked = 0;
            let answer: KafkaResult<()> = patiently(patience, |_| {
                asked += 1;
                Err(KafkaError::MetadataFetch(code))
            });
            assert_eq!(answer, Err(KafkaError::MetadataFetch(code)));
            assert!(asked == 1 || code == NotLeaderForPartition, "{asked}");
        }
    }

    #[test]
    fn a_partition_that_is_added_is_read_from_its_beginning() {
        let mock = crate::log::mock::Mock::start(&[("docket", 3)]).unwrap();
        let kafka = Kafka { brokers: mock.bootstrap(), properties: BTreeMap::new() };
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", mock.bootstrap()).create().unwrap();
        for (partition, payload) in [(0, "old"), (2, "first"), (2, "second")] {
            let record = BaseRecord::<(), str>::to("docket").partition(partition).payload(payload);
            producer.send(record).unwrap();
        }
        producer.flush(TIMEOUT).unwrap();
        let (from, to) = (ScanBound::End, ScanBound::End);
        let mut scan = TopicScan::open(&kafka, "g", "test", "docket", from, to).unwrap();
        // When it was opened there were two.
        scan.ranges.truncate(2);
        let (mut seen, until) = (Vec::new(), Instant::now() + 4 * TIMEOUT);
        scan.watch_looking(Duration::from_millis(10), &mut |what| {
            match what {
                Seen::Message(message) => {
                    let payload = message.payload().unwrap_or_default();
                    seen.push(String::from_utf8_lossy(payload).into_owned());
                }
                Seen::Added(partition) => seen.push(format!("added {partition}")),
                Seen::End(2) => return false,
                Seen::End(_) | Seen::Nothing => {}
            }
            Instant::now() < until
        })
        .unwrap();
        assert_eq!(seen, ["added 2", "first", "second"]);
    }
}
