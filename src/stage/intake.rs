//! Intake: decision logs in, docket records out, exactly once. Records are consumed, produced and their
//! offsets committed in one Kafka transaction.
//!
//! When partitions are taken away, or anything about a transaction fails, the transaction is aborted and
//! the records are read again: what they become is a pure function of their bytes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message, ToBytes};
use rdkafka::producer::{BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::rejects::{dead_letter, may_not_fit};
use crate::clock::now;
use crate::decision::docket;
use crate::decision::formats::{self, Format, Piece};
use crate::decision::reject::{Reason, Reject};
use crate::decision::time;
use crate::decision::verdict::{From, Verdict};
use crate::log::consumer::{self, Assignments, Group, Reading};
use crate::log::headers::{self, Origin};
use crate::log::producer::{self, Transactional};
use crate::pipeline::Pipeline;
use crate::telemetry::{Health, Meters};

#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    #[error("the producer was fenced or failed for good: {0}")]
    Fatal(KafkaError),
}

pub struct Intake {
    pub pipeline: Arc<Pipeline>,
    pub meters: Arc<Meters>,
    pub health: Arc<Health>,
    /// max.message.bytes of the docket and rejects topics, where the broker told.
    pub docket_limit: Option<usize>,
    pub rejects_limit: Option<usize>,
}

/// Rebalances, as the loop needs to know of them.
#[derive(Default)]
struct Seen {
    /// Partitions were taken away: the open transaction may hold records that are another's now.
    disturbed: AtomicBool,
    assigned: AtomicBool,
}

impl Assignments for Arc<Seen> {
    fn assigned(&self, _: &[(String, i32)]) {
        self.assigned.store(true, Ordering::Relaxed);
    }

    fn revoked(&self, _: &Group<Arc<Seen>>, partitions: &[(String, i32)], _: bool) {
        if !partitions.is_empty() {
            self.disturbed.store(true, Ordering::Relaxed);
        }
    }
}

/// A piece of a source record: topic (by number), partition, offset, element.
type Place = (usize, i32, i64, usize);

/// What a piece became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Product {
    Docket,
    Reject,
}

/// A piece that was in a batch which the broker found too large.
#[derive(Debug, Clone, Copy)]
struct Suspect {
    product: Product,
    /// It was alone in its batch, so it is the one: its docket record becomes a reject, of its reject
    /// only the start is kept. Until then it is sent again, alone.
    proven: bool,
}

/// What was produced, by tag.
#[derive(Debug, Clone, Copy)]
struct Produced {
    place: Place,
    product: Product,
    alone: bool,
}

/// What an open transaction holds.
#[derive(Default)]
struct Open {
    /// By topic and partition: the first offset read, and the one after the last.
    offsets: HashMap<(usize, i32), (i64, i64)>,
    /// By tag.
    produced: Vec<Produced>,
    bytes: usize,
    /// A record could not be produced.
    refused: bool,
    tally: Tally,
}

/// Counts of an open transaction, added to the counters once it is committed.
#[derive(Default)]
struct Tally {
    topics: HashMap<usize, TopicTally>,
    verdicts: HashMap<Verdict, u64>,
    rejects: HashMap<Reason, u64>,
}

#[derive(Default)]
struct TopicTally {
    records: u64,
    bytes: u64,
    ignored: u64,
    malformed: u64,
    mismatches: u64,
    unjudged: u64,
}

/// After what the loop starts a new producer and consumer.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

impl Intake {
    /// Reads until told to stop.
    pub fn run(&self, stop: &CancellationToken) -> Result<(), IntakeError> {
        let file = &self.pipeline.file;
        let instance = file.intake.instance_id.clone();
        let transactional_id = format!("docket.{}.intake.{}", file.name, instance.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string()));
        let producer = {
            let limit = self.docket_limit.into_iter().chain(self.rejects_limit).min();
            producer::transactional(&file.kafka, &format!("{}-intake", file.name), &transactional_id, file.docket.compression, limit)?
        };
        let seen = Arc::new(Seen::default());
        let topics: Vec<&str> = file.sources.iter().map(|s| s.topic.as_str()).collect();
        let reading = Reading {
            kafka: &file.kafka,
            part: "intake",
            group: &self.pipeline.group("intake"),
            topics: &topics,
            start: file.intake.start,
            instance_id: instance.as_deref(),
            prefetch: file.intake.prefetch.0,
        };
        let consumer = consumer::join(&reading, seen.clone(), self.meters.clone())?;
        let (docket_topic, rejects_topic) = (self.pipeline.docket_topic(), self.pipeline.rejects_topic());
        let run = Run {
            intake: self,
            consumer,
            producer,
            seen,
            topics,
            docket_topic,
            rejects_topic,
            suspects: HashMap::new(),
            out: Vec::new(),
            progress: HashMap::new(),
        };
        run.until(stop)
    }
}

struct Run<'i> {
    intake: &'i Intake,
    consumer: Group<Arc<Seen>>,
    producer: Transactional,
    seen: Arc<Seen>,
    topics: Vec<&'i str>,
    docket_topic: String,
    rejects_topic: String,
    /// Pieces that a transaction failed over, until they are through.
    suspects: HashMap<Place, Suspect>,
    out: Vec<u8>,
    /// The next offset of each partition, for the lag.
    progress: HashMap<(usize, i32), i64>,
}

impl Run<'_> {
    fn until(mut self, stop: &CancellationToken) -> Result<(), IntakeError> {
        while !stop.is_cancelled() {
            let Some(open) = self.collect(stop)? else {
                self.report();
                continue;
            };
            match self.commit(&open) {
                Ok(()) => self.committed(&open),
                Err(error) => self.abort(&open, &error)?,
            }
            self.report();
        }
        self.consumer.unsubscribe();
        Ok(())
    }

    /// Reads and produces until the transaction is due. `None` if there was nothing to read.
    fn collect(&mut self, stop: &CancellationToken) -> Result<Option<Open>, IntakeError> {
        let config = &self.intake.pipeline.file.intake;
        self.seen.disturbed.store(false, Ordering::Relaxed);
        let mut open: Option<Open> = None;
        let mut received = String::new();
        let mut due = Instant::now() + config.transaction_interval.0;
        loop {
            let wait = match &open {
                None => POLL,
                Some(_) => due.saturating_duration_since(Instant::now()).min(POLL),
            };
            // A clone of the reference to the consumer lets the message live beside `self`.
            let consumer = &self.consumer;
            let message = match consumer::poll(consumer, wait) {
                Ok(message) => message,
                Err(error) => {
                    if let Some(open) = open.take() {
                        self.abort(&open, &error)?;
                    }
                    return Err(error.into());
                }
            };
            if self.seen.disturbed.load(Ordering::Relaxed) {
                let begun = open.is_some();
                let mut open = open.unwrap_or_default();
                // The message that came with it is read again.
                if let Some(message) = &message
                    && let Some(topic) = self.topics.iter().position(|t| *t == message.topic())
                {
                    open.offsets.entry((topic, message.partition())).or_insert((message.offset(), message.offset()));
                }
                drop(message);
                if begun {
                    self.abort(&open, &KafkaError::Canceled)?;
                } else {
                    self.rewind(&open)?;
                }
                return Ok(None);
            }
            if let Some(message) = message {
                if open.is_none() {
                    self.producer.begin_transaction()?;
                    received = time::format(now());
                    due = Instant::now() + config.transaction_interval.0;
                }
                let open = open.get_or_insert_with(Open::default);
                let target = Target {
                    intake: self.intake,
                    producer: &self.producer,
                    topics: &self.topics,
                    docket_topic: &self.docket_topic,
                    rejects_topic: &self.rejects_topic,
                    suspects: &self.suspects,
                    received: &received,
                };
                let taken = target.take(&message, &mut self.out, open);
                // A transaction that failed already takes no more; its commit will say so.
                if taken.is_err() || self.producer.context().any_failed() {
                    break;
                }
            }
            let full = open.as_ref().is_some_and(|o| o.bytes >= config.transaction_bytes.0);
            if full || stop.is_cancelled() || Instant::now() >= due {
                break;
            }
        }
        Ok(open)
    }

    /// Sees that everything was taken, and commits it with the offsets.
    fn commit(&self, open: &Open) -> Result<(), KafkaError> {
        let _span = tracing::info_span!("transaction", pipeline = self.intake.pipeline.name(), records = open.produced.len(), bytes = open.bytes).entered();
        self.producer.flush(COMMIT_TIMEOUT)?;
        if let Some(error) = self.producer.context().error() {
            return Err(error);
        }
        // Nothing failed, and something could not even be produced: then the transaction is over.
        if open.refused {
            return Err(KafkaError::Canceled);
        }
        let group = self.consumer.group_metadata().ok_or(KafkaError::Canceled)?;
        let mut offsets = TopicPartitionList::new();
        for ((topic, partition), (_, next)) in &open.offsets {
            offsets.add_partition_offset(self.topics[*topic], *partition, Offset::Offset(*next))?;
        }
        retried(|| self.producer.send_offsets_to_transaction(&offsets, &group, COMMIT_TIMEOUT))?;
        retried(|| self.producer.commit_transaction(COMMIT_TIMEOUT))
    }

    fn committed(&mut self, open: &Open) {
        for ((topic, partition), (_, next)) in &open.offsets {
            self.progress.insert((*topic, *partition), *next);
            self.suspects.retain(|place, _| (place.0, place.1) != (*topic, *partition) || place.2 >= *next);
        }
        let meters = &self.intake.meters;
        meters.transactions.with_label_values(&["committed"]).inc();
        for (topic, tally) in &open.tally.topics {
            let topic = &[self.topics[*topic]];
            meters.records.with_label_values(topic).inc_by(tally.records);
            meters.bytes.with_label_values(topic).inc_by(tally.bytes);
            meters.ignored.with_label_values(topic).inc_by(tally.ignored);
            meters.malformed_ids.with_label_values(topic).inc_by(tally.malformed);
            meters.mismatches.with_label_values(topic).inc_by(tally.mismatches);
            meters.unjudged.with_label_values(topic).inc_by(tally.unjudged);
        }
        for (verdict, count) in &open.tally.verdicts {
            meters.decisions.with_label_values(&[verdict.as_str()]).inc_by(*count);
        }
        for (reason, count) in &open.tally.rejects {
            meters.rejects.with_label_values(&["intake", reason.as_str()]).inc_by(*count);
        }
    }

    /// Undoes the transaction and goes back to where it began.
    fn abort(&mut self, open: &Open, error: &KafkaError) -> Result<(), IntakeError> {
        self.intake.meters.transactions.with_label_values(&["aborted"]).inc();
        if matches!(error, KafkaError::Transaction(e) if e.is_fatal()) {
            return Err(IntakeError::Fatal(error.clone()));
        }
        retried(|| self.producer.abort_transaction(COMMIT_TIMEOUT)).map_err(IntakeError::Fatal)?;
        let too_large = self.producer.context().take();
        for tag in &too_large {
            if let Some(produced) = open.produced.get(*tag) {
                self.suspects.insert(produced.place, Suspect { product: produced.product, proven: produced.alone });
            }
        }
        if too_large.is_empty() && !matches!(error, KafkaError::Canceled) {
            tracing::warn!(%error, "a transaction was aborted; its records are read again");
        }
        self.rewind(open)
    }

    fn rewind(&self, open: &Open) -> Result<(), IntakeError> {
        let assigned = self.consumer.assignment()?;
        let mut back = TopicPartitionList::new();
        for ((topic, partition), (first, _)) in &open.offsets {
            if assigned.find_partition(self.topics[*topic], *partition).is_some() {
                back.add_partition_offset(self.topics[*topic], *partition, Offset::Offset(*first))?;
            }
        }
        if back.count() > 0 {
            let result = self.consumer.seek_partitions(back, Duration::from_secs(10))?;
            for element in result.elements() {
                element.error()?;
            }
        }
        Ok(())
    }

    /// Offsets, lag and health.
    fn report(&self) {
        let ready = if self.seen.assigned.load(Ordering::Relaxed) { Ok(()) } else { Err("not in its consumer group yet".to_owned()) };
        self.intake.health.set(&format!("{}/intake", self.intake.pipeline.name()), ready);
        let ends = self.consumer.context().ends();
        for ((topic, partition), next) in &self.progress {
            let name = self.topics[*topic];
            let labels = ["intake", name, &partition.to_string()];
            self.intake.meters.offset.with_label_values(&labels).set(*next);
            if let Some(end) = ends.get(&(name.to_owned(), *partition)) {
                self.intake.meters.lag.with_label_values(&labels).set((end - next).max(0));
            }
        }
    }
}

/// Calls again while the error says that this is all it takes.
fn retried(mut call: impl FnMut() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        match call() {
            Err(KafkaError::Transaction(e)) if e.is_retriable() && !e.txn_requires_abort() && Instant::now() < deadline => {
                tracing::warn!(error = %e, "a transaction waits for Kafka");
                std::thread::sleep(Duration::from_millis(200));
            }
            other => return other,
        }
    }
}

/// Where what becomes of a record goes.
struct Target<'r> {
    intake: &'r Intake,
    producer: &'r Transactional,
    topics: &'r [&'r str],
    docket_topic: &'r str,
    rejects_topic: &'r str,
    suspects: &'r HashMap<Place, Suspect>,
    /// When the open transaction began to read.
    received: &'r str,
}

impl Target<'_> {
    /// Turns one Kafka record into docket records and rejects, and produces them.
    fn take(&self, message: &BorrowedMessage<'_>, out: &mut Vec<u8>, open: &mut Open) -> Result<(), IntakeError> {
        let pipeline = &self.intake.pipeline;
        let Some(topic) = self.topics.iter().position(|t| *t == message.topic()) else { return Ok(()) };
        let (partition, offset) = (message.partition(), message.offset());
        open.offsets.entry((topic, partition)).or_insert((offset, offset)).1 = offset + 1;
        let value = message.payload().unwrap_or_default();
        let format = pipeline.file.sources.get(topic).map_or(Format::Auto, |s| s.format);
        let record_headers = headers::pairs(message);
        open.bytes += value.len();
        let tally = open.tally.topics.entry(topic).or_default();
        tally.records += 1;
        tally.bytes += value.len() as u64;
        let mut element = 0;
        let mut failure = None;
        formats::split(value, format, &pipeline.limits, &mut |piece| {
            if failure.is_some() {
                return;
            }
            let place = (topic, partition, offset, element);
            let origin = Origin { topic: message.topic(), partition, offset, element };
            let suspect = if self.suspects.is_empty() { None } else { self.suspects.get(&place) };
            let proven = suspect.filter(|s| s.proven).map(|s| s.product);
            let alone = suspect.is_some_and(|s| !s.proven);
            let rejected = match piece {
                Piece::Ignored => {
                    tally.ignored += 1;
                    return;
                }
                Piece::Reject { bytes, reject } => Some((bytes, reject)),
                Piece::Decision { event, .. } if proven.is_some() || suspect.is_some_and(|s| s.product == Product::Reject) => {
                    Some((event.raw.as_bytes().into(), self.outgrown()))
                }
                Piece::Decision { event, agent } => {
                    out.clear();
                    let written = docket::write(&event, &record_headers, agent.as_ref(), &pipeline.rules, out);
                    *open.tally.verdicts.entry(written.verdict).or_default() += 1;
                    tally.malformed += u64::from(written.malformed_ids);
                    tally.mismatches += u64::from(written.trace_mismatch);
                    tally.unjudged += u64::from(written.judged_by == From::Nothing);
                    open.produced.push(Produced { place, product: Product::Docket, alone });
                    let record = BaseRecord::with_opaque_to(self.docket_topic, open.produced.len() - 1)
                        .key(&written.key)
                        .payload(out.as_slice())
                        .headers(headers::docket(&origin, self.received));
                    failure = self.send(record, alone).err();
                    None
                }
            };
            if let Some((bytes, reject)) = rejected {
                *open.tally.rejects.entry(reject.reason).or_default() += 1;
                let cut = proven == Some(Product::Reject) || may_not_fit(bytes.len(), self.intake.rejects_limit);
                let letter = dead_letter("intake", &bytes, &reject, &origin, self.received, cut);
                open.produced.push(Produced { place, product: Product::Reject, alone });
                let record =
                    BaseRecord::<(), [u8], usize>::with_opaque_to(self.rejects_topic, open.produced.len() - 1).payload(&letter.value).headers(letter.headers);
                failure = self.send(record, alone).err();
            }
            element += 1;
        });
        match failure {
            None => Ok(()),
            Some(error) => {
                open.refused = true;
                Err(error.into())
            }
        }
    }

    /// Produces; alone in a batch of its own, if told.
    fn send<K, P>(&self, record: BaseRecord<'_, K, P, usize>, alone: bool) -> Result<(), KafkaError>
    where
        K: ToBytes + ?Sized,
        P: ToBytes + ?Sized,
    {
        if alone {
            self.producer.flush(COMMIT_TIMEOUT)?;
        }
        send(self.producer, record)?;
        if alone {
            self.producer.flush(COMMIT_TIMEOUT)?;
        }
        Ok(())
    }

    /// Why a decision that the broker would not take goes to rejects.
    fn outgrown(&self) -> Reject {
        let limit = self.intake.docket_limit.map_or_else(String::new, |n| format!(", which takes {n} bytes (max.message.bytes)"));
        Reject::new(Reason::TooLarge, format!("the decision outgrows the topic {}{limit} once docket's members are added", self.docket_topic))
    }
}

/// Produces, waiting while librdkafka's queue is full.
fn send<K, P>(producer: &Transactional, record: BaseRecord<'_, K, P, usize>) -> Result<(), KafkaError>
where
    K: ToBytes + ?Sized,
    P: ToBytes + ?Sized,
{
    let mut record = record;
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                std::thread::sleep(Duration::from_millis(10));
                record = back;
            }
            Err((error, _)) => return Err(error),
        }
    }
}
