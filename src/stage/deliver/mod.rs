//! Deliver: the docket topic to one sink, as a consumer group of its own. Batches by bytes, count and age;
//! a bounded number in flight; an offset is committed only when every record below it was acknowledged or
//! is in rejects.
//!
//! Requests are sent again without end while the cause is an outage. A batch that is refused is halved
//! until the refused records stand alone; they go to rejects, the others through.

mod batch;
mod repeats;
mod send;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::error::{KafkaError, KafkaResult};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub use batch::Batch;
use repeats::Repeats;
pub use send::{Fallback, Sending};

use crate::clock::now;
use crate::decision::record::Record;
use crate::decision::reject::Reject;
use crate::log::consumer::{self, Assignments, Reading};
use crate::log::offsets::{Offsets, Segment};
use crate::log::progress::{Assigned, Progress};
use crate::log::{Commits, Message, Polled, Reader, RecordWriter, producer};
use crate::pipeline::Pipeline;
use crate::protect::redact::Redaction;
use crate::sink::AnySink;
use crate::sink::delivery::Delivery;
use crate::telemetry::{Health, Meters};

#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
}

/// Everything a sink's part is made of.
pub struct Deliver {
    pub name: String,
    pub sink: Arc<dyn AnySink>,
    pub delivery: Delivery,
    /// What this sink alone does not get.
    pub redaction: Redaction,
    /// How many batches are in flight at once.
    pub concurrency: usize,
    /// How many decision ids a partition are remembered, to send none twice.
    pub repeat_window: usize,
    /// What is older is not sent to this sink,
    pub max_age: Option<Duration>,
    /// but to this one, or to rejects.
    pub too_old: Option<Arc<dyn Fallback>>,
    pub pipeline: Arc<Pipeline>,
    pub meters: Arc<Meters>,
    pub health: Arc<Health>,
    pub progress: Arc<Progress>,
    pub runtime: Handle,
    pub rejects_limit: Option<usize>,
    /// How long a stop may take.
    pub drain: Duration,
    /// For the jitter.
    pub seed: u64,
}

/// The watermarks, shared by the loop, the rebalances and the tasks that send.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<Offsets>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Offsets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows a group's rebalances.
pub struct Watch {
    topic: String,
    offsets: Shared,
    /// Partitions were assigned once, perhaps none: there may be more members than partitions.
    joined: Arc<AtomicBool>,
}

impl Assignments for Watch {
    fn assigned(&self, partitions: &[(String, i32)]) {
        self.joined.store(true, Ordering::Relaxed);
        let mut offsets = self.offsets.lock();
        for (_, partition) in partitions {
            offsets.assign(*partition);
        }
    }

    fn revoked(&self, commits: &dyn Commits, partitions: &[(String, i32)], lost: bool) {
        if !lost {
            commit(commits, &self.topic, &self.offsets, true);
        }
        let mut offsets = self.offsets.lock();
        for (_, partition) in partitions {
            offsets.revoke(*partition);
        }
    }
}

/// Commits what may be committed.
fn commit(commits: &dyn Commits, topic: &str, offsets: &Shared, wait: bool) {
    let ready = offsets.lock().committable();
    if ready.is_empty() {
        return;
    }
    match commits.commit(topic, &ready, wait) {
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

impl Deliver {
    /// Delivers from Kafka until told to stop, then sends what it has within the deadline.
    pub async fn run(self: &Arc<Self>, stop: &CancellationToken) -> Result<(), DeliverError> {
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
        self.over(
            |watch| consumer::join(&reading, watch, self.meters.clone(), self.progress.clone()),
            self.rejects()?,
            stop,
        )
        .await
    }

    /// Where its rejects go.
    pub fn rejects(&self) -> KafkaResult<producer::Single> {
        let file = &self.pipeline.file;
        producer::single(
            &file.kafka,
            &format!("{}-{}-rejects", file.name, self.name),
            file.docket.compression,
        )
    }

    /// The same over any log.
    pub async fn over<R: Reader, L: RecordWriter>(
        self: &Arc<Self>,
        join: impl FnOnce(Watch) -> KafkaResult<R>,
        rejects: L,
        stop: &CancellationToken,
    ) -> Result<(), DeliverError> {
        let offsets = Shared::default();
        let topic = self.pipeline.docket_topic();
        let joined = Arc::new(AtomicBool::new(false));
        let reader =
            join(Watch { topic: topic.clone(), offsets: offsets.clone(), joined: joined.clone() })?;
        let (done, finished) = unbounded_channel();
        // Dropped when the loop ends, however it ends: what is still being sent is given up.
        let sending = CancellationToken::new();
        let _end = sending.clone().drop_guard();
        let sender = Arc::new(Sending::new(self.clone(), offsets.clone(), rejects, sending));
        let mut running = Loop {
            deliver: self,
            reader,
            topic,
            offsets,
            joined,
            sender,
            done,
            finished,
            repeats: Repeats::new(self.repeat_window),
            batch: Batch::default(),
            since: None,
            in_flight: 0,
            blocked: None,
            paused: false,
        };
        running.until(stop).await
    }
}

struct Loop<'d, R, L> {
    deliver: &'d Arc<Deliver>,
    reader: R,
    topic: String,
    offsets: Shared,
    joined: Arc<AtomicBool>,
    sender: Arc<Sending<L>>,
    done: UnboundedSender<Vec<Segment>>,
    /// Never more than what is in flight.
    finished: UnboundedReceiver<Vec<Segment>>,
    repeats: Repeats,
    batch: Batch,
    /// When the batch got its first record.
    since: Option<Instant>,
    in_flight: usize,
    blocked: Option<Instant>,
    paused: bool,
}

/// What is to become of the records of a batch.
#[derive(Default)]
pub struct Triage {
    /// To be sent, encoded already.
    wanted: Vec<usize>,
    /// Older than the sink takes.
    old: Vec<usize>,
    /// No docket records.
    broken: Vec<(usize, Reject)>,
}

impl<R: Reader, L: RecordWriter> Loop<'_, R, L> {
    async fn until(&mut self, stop: &CancellationToken) -> Result<(), DeliverError> {
        let mut committed = Instant::now();
        while !stop.is_cancelled() {
            self.settle(Duration::ZERO).await;
            if self.in_flight < self.deliver.concurrency {
                self.unblock()?;
                self.fill(BURST, POLL).await?;
                if self.is_due() {
                    self.send();
                }
            } else {
                self.block().await?;
            }
            if committed.elapsed() >= COMMIT_EVERY {
                commit(&self.reader, &self.topic, &self.offsets, false);
                self.report();
                committed = Instant::now();
            }
        }
        self.drain().await;
        Ok(())
    }

    /// Takes note of batches that are finished; waits for one as long as told.
    async fn settle(&mut self, wait: Duration) {
        let mut first = match wait {
            Duration::ZERO => None,
            wait => tokio::time::timeout(wait, self.finished.recv()).await.ok().flatten(),
        };
        while let Some(segments) = first.take().or_else(|| self.finished.try_recv().ok()) {
            self.in_flight -= 1;
            let mut offsets = self.offsets.lock();
            segments.iter().for_each(|segment| offsets.finish(segment));
        }
    }

    fn is_full(&self) -> bool {
        let delivery = &self.deliver.delivery;
        self.batch.records.len() >= delivery.batch_records
            || self.batch.bytes.len() >= delivery.batch_bytes.0
    }

    fn is_due(&self) -> bool {
        self.is_full()
            || self.since.is_some_and(|since| since.elapsed() >= self.deliver.delivery.batch_age.0)
    }

    /// Reads up to `count` records into the batch.
    async fn fill(&mut self, count: usize, wait: Duration) -> Result<(), DeliverError> {
        let mut wait = wait;
        for _ in 0..count {
            if self.is_full() {
                break;
            }
            let (offsets, batch, since) = (&self.offsets, &mut self.batch, &mut self.since);
            let mut take = |message: &Message<'_>| {
                // A record of a partition that was revoked while it waited is its next owner's.
                if let Some(epoch) = offsets.lock().epoch(message.partition) {
                    batch.push(message.payload, message.partition, message.offset, epoch);
                    since.get_or_insert_with(Instant::now);
                }
            };
            match self.reader.poll(wait, &mut take).await? {
                Polled::Message => wait = Duration::ZERO,
                Polled::End(_) => {}
                Polled::Nothing => break,
            }
        }
        Ok(())
    }

    /// Encodes the batch and sends it on its way.
    fn send(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        self.since = None;
        for segment in &batch.segments {
            if self.repeats.is_cold(segment.partition, segment.epoch) {
                self.warm(segment);
            }
        }
        let repeats = &mut self.repeats;
        let (body, triage) =
            self.sender.triage(&mut batch, |partition, id| repeats.note(partition, id));
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
        let span = tracing::info_span!(
            "deliver",
            pipeline = self.deliver.pipeline.name(),
            sink = self.deliver.name,
            records
        );
        let work = async move {
            let stop = sender.stop.clone();
            let delivered = tokio::select! {
                biased;
                () = stop.cancelled() => false,
                delivered = sender.deliver(&batch, body, triage) => delivered,
            };
            gauge.sub(records);
            // A batch that was given up frees its place, too, and finishes nothing. The loop may have ended;
            // then nothing is committed any more.
            let _ = done.send(if delivered { batch.segments } else { Vec::new() });
        };
        self.deliver.runtime.spawn(work.instrument(span));
    }

    /// Fills a window with what stands before what was read first.
    fn warm(&mut self, segment: &Segment) {
        let (repeats, reader) = (&mut self.repeats, &self.reader);
        let size = repeats.size();
        let read =
            reader.read_back(&self.topic, segment.partition, segment.first, size, &mut |value| {
                if let Ok(record) = Record::parse(value) {
                    repeats.note(segment.partition, &record.decision_id);
                }
            });
        if let Err(error) = read {
            tracing::warn!(part = self.deliver.name, partition = segment.partition, %error, "what was sent before can't be read; a repeat may pass");
        }
    }

    /// The sink takes no more for now: waits for it, and goes on polling Kafka.
    async fn block(&mut self) -> Result<(), DeliverError> {
        let since = *self.blocked.get_or_insert_with(Instant::now);
        self.settle(Duration::from_millis(50)).await;
        if since.elapsed() < PAUSE_AFTER || self.in_flight < self.deliver.concurrency {
            return Ok(());
        }
        // Also for partitions that were assigned since.
        self.reader.pause()?;
        self.paused = true;
        // There may be one that was handed out before the pause took hold.
        self.fill(1, Duration::ZERO).await
    }

    fn unblock(&mut self) -> Result<(), DeliverError> {
        self.blocked = None;
        if self.paused {
            self.reader.resume()?;
            self.paused = false;
        }
        Ok(())
    }

    /// The end: sends what is read, waits for what is sent, commits.
    async fn drain(&mut self) {
        let deadline = Instant::now() + self.deliver.drain;
        if !self.batch.records.is_empty() && self.in_flight < self.deliver.concurrency {
            self.send();
        }
        while self.in_flight > 0 && Instant::now() < deadline {
            self.settle(Duration::from_millis(50)).await;
        }
        if self.in_flight > 0 {
            tracing::warn!(
                part = self.deliver.name,
                batches = self.in_flight,
                "not everything was delivered before the deadline; it will be after the next start"
            );
        }
        commit(&self.reader, &self.topic, &self.offsets, true);
        self.report();
        self.reader.leave();
        self.deliver.progress.forget(&self.deliver.name);
    }

    /// Offsets, lag, the age of the oldest undelivered decision, health.
    fn report(&self) {
        let deliver = self.deliver;
        let meters = &deliver.meters;
        let now = now();
        let progress = self.offsets.lock().progress();
        let mut place =
            Assigned { part: deliver.name.clone(), topic: self.topic.clone(), partition: 0 };
        for (partition, done, oldest) in &progress {
            let id = partition.to_string();
            let labels = [deliver.name.as_str(), &self.topic, &id];
            let end = self.reader.end(&self.topic, *partition);
            // A sink that has finished nothing yet is behind by all that is new since it was here last.
            if let Some(done) = done.or_else(|| self.reader.start(&self.topic, *partition)).as_ref()
            {
                meters.offset.with_label_values(&labels).set(*done);
                // A transaction ends with a marker that takes an offset and is no record.
                let left = end.map_or(0, |end| end - done);
                let caught_up = oldest.is_none() && left <= 1;
                meters.lag.with_label_values(&labels).set(if caught_up { 0 } else { left.max(0) });
            }
            place.partition = *partition;
            deliver.progress.finished(&place, *done, oldest.is_some(), std::time::Instant::now());
            let age = oldest.map_or(0.0, |at| (now - at).max(0) as f64 / 1e9);
            meters.oldest.with_label_values(&[&deliver.name, &id]).set(age);
        }
        let joined = self.joined.load(Ordering::Relaxed);
        let ready = if joined { Ok(()) } else { Err("not in its consumer group yet".to_owned()) };
        deliver.health.set(&format!("{}/{}", deliver.pipeline.name(), deliver.name), ready);
    }
}
