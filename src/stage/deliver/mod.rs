//! Deliver: the docket topic to one sink, as a consumer group of its own. Batches by bytes, count and age;
//! a bounded number in flight; an offset is committed only when every record below it was acknowledged or
//! is in rejects.
//!
//! Requests are sent again without end while the cause is an outage. A batch that is refused is halved
//! until the refused records stand alone; they go to rejects, the others through.

mod batch;
mod send;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use batch::Batch;
use send::Sending;

use crate::clock::now;
use crate::decision::record::Record;
use crate::decision::reject::{Reason, Reject};
use crate::log::consumer::{self, Assignments, Group, Reading};
use crate::log::offsets::{Offsets, Segment};
use crate::log::producer;
use crate::pipeline::Pipeline;
use crate::pipeline::model::Delivery;
use crate::sink::Sink;
use crate::telemetry::{Health, Meters};

#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
}

/// Everything a sink's part is made of.
pub struct Deliver<S> {
    pub name: String,
    pub sink: Arc<S>,
    pub delivery: Delivery,
    pub pipeline: Arc<Pipeline>,
    pub meters: Arc<Meters>,
    pub health: Arc<Health>,
    pub runtime: Handle,
    pub rejects_limit: Option<usize>,
    /// How long a stop may take.
    pub drain: Duration,
}

/// The watermarks, shared by the loop, the rebalances and the tasks that send.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Offsets>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Offsets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Watch {
    topic: String,
    offsets: Shared,
    /// Partitions were assigned once, perhaps none: there may be more members than partitions.
    joined: AtomicBool,
}

impl Assignments for Watch {
    fn assigned(&self, partitions: &[(String, i32)]) {
        self.joined.store(true, Ordering::Relaxed);
        let mut offsets = self.offsets.lock();
        for (_, partition) in partitions {
            offsets.assign(*partition);
        }
    }

    fn revoked(&self, consumer: &Group<Watch>, partitions: &[(String, i32)], lost: bool) {
        if !lost {
            commit(consumer, &self.topic, &self.offsets, CommitMode::Sync);
        }
        let mut offsets = self.offsets.lock();
        for (_, partition) in partitions {
            offsets.revoke(*partition);
        }
    }
}

/// Commits what may be committed.
fn commit(consumer: &Group<Watch>, topic: &str, offsets: &Shared, mode: CommitMode) {
    let ready = offsets.lock().committable();
    if ready.is_empty() {
        return;
    }
    let mut list = TopicPartitionList::new();
    for (partition, offset) in &ready {
        if let Err(error) = list.add_partition_offset(topic, *partition, Offset::Offset(*offset)) {
            tracing::warn!(%error, "an offset can't be committed");
        }
    }
    match consumer.commit(&list, mode) {
        Ok(()) => {
            let mut offsets = offsets.lock();
            for (partition, offset) in ready {
                offsets.committed(partition, offset);
            }
        }
        // It is tried again with the next one.
        Err(error) => tracing::warn!(%error, "offsets can't be committed now"),
    }
}

const POLL: Duration = Duration::from_millis(20);
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// A sink that takes nothing for so long gets its partitions paused, so that Kafka is still polled.
const PAUSE_AFTER: Duration = Duration::from_secs(5);
/// Records taken from librdkafka before looking after anything else.
const BURST: usize = 1000;

impl<S: Sink> Deliver<S> {
    /// Delivers until told to stop, then sends what it has within the deadline.
    pub fn run(self: &Arc<Self>, stop: &CancellationToken) -> Result<(), DeliverError> {
        let offsets = Shared::default();
        let topic = self.pipeline.docket_topic();
        let reading = Reading {
            kafka: &self.pipeline.file.kafka,
            part: &self.name,
            group: &self.pipeline.group(&self.name),
            topics: &[&topic],
            start: self.delivery.start,
            instance_id: self.pipeline.file.intake.instance_id.as_deref(),
            prefetch: self.delivery.prefetch.0,
        };
        let watch = Watch { topic: topic.clone(), offsets: offsets.clone(), joined: AtomicBool::new(false) };
        let consumer = consumer::join(&reading, watch, self.meters.clone())?;
        let rejects =
            producer::single(&self.pipeline.file.kafka, &format!("{}-{}-rejects", self.pipeline.name(), self.name), self.pipeline.file.docket.compression)?;
        let (done, finished) = channel();
        // Dropped when the loop ends, however it ends: what is still being sent is given up.
        let sending = CancellationToken::new();
        let _end = sending.clone().drop_guard();
        let sender = Arc::new(Sending { deliver: self.clone(), offsets: offsets.clone(), rejects, stop: sending });
        let mut running = Loop {
            deliver: self,
            consumer,
            topic,
            offsets,
            sender,
            done,
            finished,
            batch: Batch::default(),
            since: None,
            in_flight: 0,
            blocked: None,
            paused: false,
        };
        running.until(stop)
    }
}

struct Loop<'d, S: Sink> {
    deliver: &'d Arc<Deliver<S>>,
    consumer: Group<Watch>,
    topic: String,
    offsets: Shared,
    sender: Arc<Sending<S>>,
    done: Sender<Vec<Segment>>,
    finished: Receiver<Vec<Segment>>,
    batch: Batch,
    /// When the batch got its first record.
    since: Option<Instant>,
    in_flight: usize,
    blocked: Option<Instant>,
    paused: bool,
}

impl<S: Sink> Loop<'_, S> {
    fn until(&mut self, stop: &CancellationToken) -> Result<(), DeliverError> {
        let mut committed = Instant::now();
        while !stop.is_cancelled() {
            self.settle(Duration::ZERO);
            if self.in_flight < self.deliver.delivery.concurrency {
                self.unblock()?;
                self.fill()?;
                if self.is_due() {
                    self.send();
                }
            } else {
                self.block()?;
            }
            if committed.elapsed() >= COMMIT_EVERY {
                commit(&self.consumer, &self.topic, &self.offsets, CommitMode::Async);
                self.report();
                committed = Instant::now();
            }
        }
        self.drain();
        Ok(())
    }

    /// Takes note of batches that are finished; waits for one as long as told.
    fn settle(&mut self, wait: Duration) {
        let mut first = wait;
        loop {
            match self.finished.recv_timeout(first) {
                Ok(segments) => {
                    self.in_flight -= 1;
                    let mut offsets = self.offsets.lock();
                    segments.iter().for_each(|segment| offsets.finish(segment));
                    first = Duration::ZERO;
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn is_full(&self) -> bool {
        let delivery = &self.deliver.delivery;
        self.batch.records.len() >= delivery.batch_records || self.batch.bytes.len() >= delivery.batch_bytes.0
    }

    fn is_due(&self) -> bool {
        self.is_full() || self.since.is_some_and(|since| since.elapsed() >= self.deliver.delivery.batch_age.0)
    }

    /// Reads into the batch.
    fn fill(&mut self) -> Result<(), DeliverError> {
        let mut wait = POLL;
        for _ in 0..BURST {
            if self.is_full() {
                break;
            }
            match consumer::poll(&self.consumer, wait)? {
                None => break,
                Some(message) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    // A record of a partition that was revoked while it waited is its next owner's.
                    if let Some(epoch) = self.offsets.lock().epoch(partition) {
                        self.batch.push(message.payload().unwrap_or_default(), partition, offset, epoch);
                        self.since.get_or_insert_with(Instant::now);
                    }
                    wait = Duration::ZERO;
                }
            }
        }
        Ok(())
    }

    /// Encodes the batch and sends it on its way.
    fn send(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        self.since = None;
        let (body, wanted, broken) = self.encode(&mut batch);
        {
            let mut offsets = self.offsets.lock();
            for (segment, oldest) in batch.segments.iter().zip(&batch.oldest) {
                offsets.take(*segment, *oldest);
            }
        }
        self.in_flight += 1;
        let records = batch.records.len() as i64;
        let meters = &self.deliver.meters;
        let gauge = meters.in_flight.with_label_values(&[&self.deliver.name]);
        gauge.add(records);
        let sender = self.sender.clone();
        let done = self.done.clone();
        let span = tracing::info_span!("deliver", pipeline = self.deliver.pipeline.name(), sink = self.deliver.name, records);
        let work = async move {
            let stop = sender.stop.clone();
            let delivered = tokio::select! {
                delivered = sender.deliver(&batch, body, wanted, broken) => delivered,
                () = stop.cancelled() => false,
            };
            gauge.sub(records);
            if delivered {
                // The loop may have ended; then nothing is committed any more.
                let _ = done.send(batch.segments);
            }
        };
        self.deliver.runtime.spawn(work.instrument(span));
    }

    /// The batch's first body, the records that are in it, and those that are no docket records.
    fn encode(&self, batch: &mut Batch) -> (S::Body, Vec<usize>, Vec<(usize, Reject)>) {
        let (mut wanted, mut broken, mut seen) = (Vec::with_capacity(batch.records.len()), Vec::new(), Vec::with_capacity(batch.records.len()));
        let body = {
            let mut records = Vec::with_capacity(batch.records.len());
            for (i, item) in batch.records.iter().enumerate() {
                match Record::parse(batch.value(item)) {
                    Ok(record) => {
                        seen.push((i, record.timestamp));
                        records.push(record);
                        wanted.push(i);
                    }
                    Err(e) => broken.push((i, Reject::new(Reason::BadDocketRecord, e.to_string()))),
                }
            }
            self.deliver.sink.encode(&records)
        };
        for (i, timestamp) in seen {
            let partition = batch.records[i].partition;
            batch.records[i].timestamp = timestamp;
            batch.saw(partition, timestamp);
        }
        (body, wanted, broken)
    }

    /// The sink takes no more for now: waits for it, and goes on polling Kafka.
    fn block(&mut self) -> Result<(), DeliverError> {
        let since = *self.blocked.get_or_insert_with(Instant::now);
        self.settle(Duration::from_millis(50));
        if since.elapsed() < PAUSE_AFTER || self.in_flight < self.deliver.delivery.concurrency {
            return Ok(());
        }
        // Also for partitions that were assigned since.
        self.consumer.pause(&self.consumer.assignment()?)?;
        self.paused = true;
        if let Some(message) = consumer::poll(&self.consumer, Duration::ZERO)? {
            // One that was handed out before the pause took hold.
            if let Some(epoch) = self.offsets.lock().epoch(message.partition()) {
                self.batch.push(message.payload().unwrap_or_default(), message.partition(), message.offset(), epoch);
                self.since.get_or_insert_with(Instant::now);
            }
        }
        Ok(())
    }

    fn unblock(&mut self) -> Result<(), DeliverError> {
        self.blocked = None;
        if self.paused {
            self.consumer.resume(&self.consumer.assignment()?)?;
            self.paused = false;
        }
        Ok(())
    }

    /// The end: sends what is read, waits for what is sent, commits.
    fn drain(&mut self) {
        let deadline = Instant::now() + self.deliver.drain;
        if !self.batch.records.is_empty() && self.in_flight < self.deliver.delivery.concurrency {
            self.send();
        }
        while self.in_flight > 0 && Instant::now() < deadline {
            self.settle(Duration::from_millis(50));
        }
        if self.in_flight > 0 {
            tracing::warn!(
                part = self.deliver.name,
                batches = self.in_flight,
                "not everything was delivered before the deadline; it will be after the next start"
            );
        }
        commit(&self.consumer, &self.topic, &self.offsets, CommitMode::Sync);
        self.report();
        self.consumer.unsubscribe();
    }

    /// Offsets, lag, the age of the oldest undelivered decision, health.
    fn report(&self) {
        let deliver = self.deliver;
        let meters = &deliver.meters;
        let now = now();
        let progress = self.offsets.lock().progress();
        let ends = self.consumer.context().ends();
        for (partition, done, oldest) in &progress {
            let id = partition.to_string();
            let labels = [deliver.name.as_str(), &self.topic, &id];
            let end = ends.get(&(self.topic.clone(), *partition)).copied();
            if let Some(done) = done {
                meters.offset.with_label_values(&labels).set(*done);
                // A transaction ends with a marker that takes an offset and is no record.
                let left = end.map_or(0, |end| end - done);
                let caught_up = oldest.is_none() && left <= 1;
                meters.lag.with_label_values(&labels).set(if caught_up { 0 } else { left.max(0) });
            }
            let age = oldest.map_or(0.0, |at| (now - at).max(0) as f64 / 1e9);
            meters.oldest.with_label_values(&[&deliver.name, &id]).set(age);
        }
        let joined = self.consumer.context().assignments.joined.load(Ordering::Relaxed);
        let ready = if joined { Ok(()) } else { Err("not in its consumer group yet".to_owned()) };
        deliver.health.set(&format!("{}/{}", deliver.pipeline.name(), deliver.name), ready);
    }
}
