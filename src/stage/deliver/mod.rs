//! Deliver: the docket topic to one sink, as a consumer group of its own. Batches by bytes, count and age;
//! a bounded number in flight; an offset is committed only when every record below it was acknowledged or
//! is in rejects.
//!
//! Requests are sent again without end while the cause is an outage. A batch that is refused, or fails while others pass, is halved
//! until the records that are the cause stand alone; they go to rejects, the others through. Meanwhile they wait beside the next
//! batches, and so does what is for another sink. `group` says what a failure means.

pub mod amends;
mod batch;
mod gaps;
mod group;
mod lag;
mod letters;
mod pauses;
mod rejected;
pub(crate) mod repeats;
mod request;
mod reused;
mod send;
mod triage;
mod waiting;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rdkafka::error::{KafkaError, KafkaResult};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub use amends::Amends;
pub use batch::Batch;
use repeats::{Filling, Repeats};
pub use send::{Fallback, Sending};
pub use triage::Triage;

use crate::clock::now;
use crate::decision::record::{self, Record};
use crate::http::failure;
use crate::log::consumer::{self, Assignments};
use crate::log::offsets::{Offsets, Segment};
use crate::log::progress::{Assigned, Progress};
use crate::log::value::{Identity, identity};
use crate::log::{Commits, Message, Polled, Reader, Reading, RecordWriter, producer, shared};
use crate::pipeline::Pipeline;
use crate::pipeline::file::LogGap;
use crate::protect::redact::Redaction;
use crate::sink::AnySink;
use crate::sink::delivery::Delivery;
use crate::stage::events::Events;
use crate::telemetry::held::Held;
use crate::telemetry::{Health, Meters};

#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    #[error("a batch on its way panicked")]
    Died,
}

/// Everything a sink's part is made of.
pub struct Deliver {
    pub name: String,
    pub sink: Arc<dyn AnySink>,
    /// What it reads: the docket, or amendments.
    pub topic: String,
    /// It adds late matches to what the sink holds.
    pub amends: Option<Amends>,
    pub delivery: Delivery,
    /// What this sink alone does not get.
    pub redaction: Redaction,
    /// How many batches are in flight at once.
    pub concurrency: usize,
    /// How many decision ids a partition are remembered, to send none twice.
    pub repeat_window: usize,
    /// The same, to notice other decisions under them; at least as many.
    pub reuse_window: usize,
    /// How many bytes it may hold; at least a batch.
    pub share: usize,
    /// What is older is not sent to this sink,
    pub max_age: Option<Duration>,
    /// but to this one, or to rejects.
    pub too_old: Option<Arc<dyn Fallback>>,
    pub pipeline: Arc<Pipeline>,
    pub meters: Arc<Meters>,
    pub health: Arc<Health>,
    pub progress: Arc<Progress>,
    pub events: Arc<Events>,
    pub runtime: Handle,
    pub rejects_limit: Option<usize>,
    /// Where the docket topic is read for all sinks of the process, if it is.
    pub shared: Option<Arc<shared::Shared>>,
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
    /// Assigned since the loop looked last: partition and epoch.
    fresh: UnboundedSender<(i32, u64)>,
}

impl Assignments for Watch {
    fn assigned(&self, partitions: &[(String, i32)]) {
        self.joined.store(true, Ordering::Relaxed);
        let mut offsets = self.offsets.lock();
        for (_, partition) in partitions {
            // The loop may have ended.
            let _ = self.fresh.send((*partition, offsets.assign(*partition)));
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

    fn not_committed(&self, partitions: &[(String, i32)]) {
        let mut offsets = self.offsets.lock();
        partitions.iter().for_each(|(_, partition)| offsets.not_committed(*partition));
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

/// How long the loop waits for a record while there is something else to look after, and while there is nothing.
const POLL: Duration = Duration::from_millis(20);
const REST: Duration = Duration::from_millis(250);
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// So many records refused one by one, and none taken, are no coincidence. Fewer may wait for the next that passes, in a pipeline that
/// has little to do: it is as ready as ever.
const MANY_REFUSED: u32 = 10;
/// Records taken from librdkafka before looking after anything else.
const BURST: usize = 1000;

impl Deliver {
    /// Delivers from Kafka until told to stop, then sends what it has within the deadline.
    pub async fn run(self: &Arc<Self>, stop: &CancellationToken) -> Result<(), DeliverError> {
        let reading = Reading {
            kafka: &self.pipeline.file.kafka,
            part: &self.name,
            group: &self.pipeline.group(&self.name),
            topics: &[&self.topic],
            start: self.delivery.start,
            writes: None,
            stops_at_gaps: self.pipeline.file.watchdog.log_gap == LogGap::Stop,
            instance_id: self.pipeline.file.intake.instance_id.as_deref(),
            prefetch: self.delivery.prefetch.0,
            time: record::time,
            shared: self.shared.as_ref(),
            together: false,
        };
        self.over(
            |watch| consumer::join(&reading, watch, self.meters.clone(), self.progress.clone()),
            self.rejects()?,
            stop,
        )
        .await
    }

    /// The sink's name in the pipeline file.
    pub fn sink_name(&self) -> &str {
        self.amends.as_ref().map_or(&self.name, |amends| &amends.sink)
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
        let topic = self.topic.clone();
        self.meters.reads(&self.name, &topic);
        let joined = Arc::new(AtomicBool::new(false));
        let (fresh, assigned) = unbounded_channel();
        let reader = join(Watch {
            topic: topic.clone(),
            offsets: offsets.clone(),
            joined: joined.clone(),
            fresh,
        })?;
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
            repeats: Repeats::new(self.repeat_window, self.reuse_window),
            assigned,
            filling: unbounded_channel(),
            batch: Batch::default(),
            held: self.meters.holding(&self.name),
            since: None,
            in_flight: 0,
            died: false,
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
    done: UnboundedSender<Told>,
    /// Never more than two of each batch in flight or waiting.
    finished: UnboundedReceiver<Told>,
    repeats: Repeats,
    assigned: UnboundedReceiver<(i32, u64)>,
    /// What the windows of repeats are filled with.
    filling: (UnboundedSender<Filling>, UnboundedReceiver<Filling>),
    batch: Batch,
    held: Held,
    /// When the batch got its first record.
    since: Option<Instant>,
    in_flight: usize,
    /// A batch ended without a word.
    died: bool,
}

/// What is told of a batch on its way.
enum Told {
    /// It waits beside the others from now on.
    Waits,
    /// It is over; what it finishes is taken note of.
    Over { waited: bool },
    /// It panicked, and finishes nothing, ever.
    Died,
}

/// However a batch ends, the loop learns of it.
struct Ending {
    done: UnboundedSender<Told>,
    gauge: prometheus::IntGauge,
    records: i64,
    told: Option<Told>,
}

impl Ending {
    fn over(mut self, waited: bool) {
        self.told = Some(Told::Over { waited });
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.gauge.sub(self.records);
        // The loop may have ended; then nothing is committed any more.
        let _ = self.done.send(self.told.take().unwrap_or(Told::Died));
    }
}

impl<R: Reader, L: RecordWriter> Loop<'_, R, L> {
    async fn until(&mut self, stop: &CancellationToken) -> Result<(), DeliverError> {
        let mut committed = Instant::now();
        let mut ready = false;
        while !stop.is_cancelled() {
            self.settle(Duration::ZERO).await;
            if self.died {
                return Err(DeliverError::Died);
            }
            self.look_back();
            // What is on its way will be less.
            let enough = self.in_flight > 0 && self.held.all() >= self.deliver.share;
            if self.in_flight < self.deliver.concurrency && !enough {
                let busy = self.in_flight > 0 || !self.batch.is_empty();
                self.fill(BURST, if busy { POLL } else { REST }).await?;
                self.tell_gaps(stop).await?;
                self.look_back();
                if self.is_due() && self.is_warm() {
                    self.send();
                } else if self.is_full() {
                    self.warm().await?;
                }
            } else {
                self.block().await?;
            }
            // Who is waited for says so at once.
            let joined = self.joined.load(Ordering::Relaxed);
            if committed.elapsed() >= COMMIT_EVERY || joined != ready {
                ready = joined;
                self.settled(false);
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
        while let Some(told) = first.take().or_else(|| self.finished.try_recv().ok()) {
            match told {
                Told::Waits | Told::Over { waited: false } => self.in_flight -= 1,
                Told::Over { waited: true } => {}
                Told::Died => self.died = true,
            }
        }
    }

    fn is_full(&self) -> bool {
        let delivery = &self.deliver.delivery;
        self.batch.records.len() >= delivery.batch_records
            || self.batch.size() >= delivery.batch_bytes.0
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
                    batch.push(message.value(), message.partition, message.offset, epoch);
                    since.get_or_insert_with(Instant::now);
                }
            };
            match self.reader.poll(wait, &mut take).await? {
                Polled::Message => wait = Duration::ZERO,
                Polled::Nothing => break,
            }
        }
        self.held.set(self.batch.held());
        Ok(())
    }

    /// Encodes the batch and sends it on its way.
    fn send(&mut self) {
        let next = self.batch.another();
        let mut batch = std::mem::replace(&mut self.batch, next);
        let mut held =
            std::mem::replace(&mut self.held, self.deliver.meters.holding(&self.deliver.name));
        self.since = None;
        let repeats = &mut self.repeats;
        let (body, triage) =
            self.sender.triage(&mut batch, |item, id| repeats.note(item.partition, item.epoch, id));
        {
            let mut offsets = self.offsets.lock();
            for (segment, oldest) in batch.segments.iter().zip(&batch.oldest) {
                offsets.take(*segment, *oldest);
            }
        }
        self.in_flight += 1;
        held.set(batch.held());
        let held = Mutex::new(held);
        let records = batch.records.len() as i64;
        let meters = &self.deliver.meters;
        let gauge = meters.in_flight.with_label_values(&[&self.deliver.name]);
        gauge.add(records);
        let sender = self.sender.clone();
        let (done, offsets) = (self.done.clone(), self.offsets.clone());
        let ending = Ending { done: done.clone(), gauge, records, told: None };
        let span = tracing::info_span!(
            "deliver",
            pipeline = self.deliver.pipeline.name(),
            sink = self.deliver.name,
            records
        );
        let work = async move {
            let stop = sender.stop.clone();
            // The room that it waits in, if it does.
            let room = OnceLock::new();
            let park = |permit, kept: usize| {
                held.lock().unwrap_or_else(PoisonError::into_inner).set(kept);
                let _ = room.set(permit);
                let _ = done.send(Told::Waits);
            };
            let delivered = tokio::select! {
                biased;
                () = stop.cancelled() => false,
                delivered = sender.deliver(&mut batch, body, triage, &park) => delivered,
            };
            // A batch that was given up frees its place, too, and finishes nothing. What is finished counts at once: a
            // revoke commits it.
            if delivered {
                let mut offsets = offsets.lock();
                batch.segments.iter().for_each(|segment| offsets.finish(segment));
            }
            ending.over(room.get().is_some());
        };
        self.deliver.runtime.spawn(work.instrument(span));
    }

    /// Has the windows of partitions that were assigned filled with what stands before the group's place in them, of all
    /// at once, and takes what came for those that are being filled.
    fn look_back(&mut self) {
        let mut fresh = BTreeMap::new();
        while let Ok((partition, epoch)) = self.assigned.try_recv() {
            fresh.insert(partition, epoch);
        }
        fresh.iter().for_each(|(partition, epoch)| self.repeats.begin(*partition, *epoch));
        if !fresh.is_empty() && self.repeats.size() > 0 {
            let partitions = fresh.keys().copied().collect();
            let (fill, size) = (self.filling.0.clone(), self.repeats.size());
            let redaction = self.deliver.redaction.clone();
            let mut windows: BTreeMap<i32, VecDeque<Identity>> = BTreeMap::new();
            let told = Box::new(move |partition: i32, value: Option<&[u8]>| {
                let window = windows.entry(partition).or_default();
                let Some(value) = value else {
                    let epoch = fresh.get(&partition).copied().unwrap_or_default();
                    // The loop may have ended.
                    let _ = fill.send((partition, epoch, std::mem::take(window)));
                    return;
                };
                // As it was sent.
                if let Ok(record) = Record::parse(&redaction.apply(value)) {
                    window.push_back(identity(&record));
                }
                if window.len() > size {
                    window.pop_front();
                }
            });
            self.reader.read_back(&self.topic, partitions, self.repeats.size(), told);
        }
        while let Ok(filling) = self.filling.1.try_recv() {
            self.repeats.fill(filling);
        }
    }

    /// Whether the windows are filled that the batch needs.
    fn is_warm(&self) -> bool {
        self.batch.segments.iter().all(|s| !self.repeats.is_cold(s.partition, s.epoch))
    }

    /// Waits for windows that are being filled, and stays in the group.
    async fn warm(&mut self) -> Result<(), DeliverError> {
        if let Ok(Some(filling)) = tokio::time::timeout(POLL, self.filling.1.recv()).await {
            self.repeats.fill(filling);
        }
        Ok(self.reader.idle()?)
    }

    /// The sink takes no more for now: waits for it, and stays in the group.
    async fn block(&mut self) -> Result<(), DeliverError> {
        self.settle(Duration::from_millis(50)).await;
        Ok(self.reader.idle()?)
    }

    /// The end: sends what is read, waits for what is sent, commits.
    async fn drain(&mut self) {
        let deadline = Instant::now() + self.deliver.drain;
        if !self.batch.is_empty() && self.in_flight < self.deliver.concurrency && self.is_warm() {
            self.send();
        }
        let mut committed = Instant::now();
        while self.in_flight > 0 && !self.died && Instant::now() < deadline {
            self.settle(Duration::from_millis(50)).await;
            if committed.elapsed() >= COMMIT_EVERY {
                self.settled(false);
                committed = Instant::now();
            }
        }
        if self.in_flight > 0 {
            tracing::warn!(
                part = self.deliver.name,
                batches = self.in_flight,
                "not everything was delivered before the deadline; it will be after the next start"
            );
        }
        self.settled(true);
        self.reader.leave();
        self.deliver.progress.forget(&self.deliver.name);
    }

    /// Commits what is finished, and tells.
    fn settled(&self, wait: bool) {
        commit(&self.reader, &self.topic, &self.offsets, wait);
        self.report();
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
            place.partition = *partition;
            let mut end = self.reader.end(&self.topic, *partition);
            // Who fetches no more, since what was read can't be delivered, hears of no new end.
            if oldest.is_some() {
                end = end.max(deliver.progress.end(&place));
            }
            // A sink that has finished nothing yet is behind by all that is new since it was here last.
            if let Some(done) = done.or_else(|| self.reader.start(&self.topic, *partition)).as_ref()
            {
                meters.offset.with_label_values(&labels).set(*done);
                let waits = |s: &Segment| s.partition == *partition;
                let idle = oldest.is_none() && !self.batch.segments.iter().any(waits);
                let read = idle.then(|| self.reader.read_through(&self.topic, *partition));
                let lag = lag::lag(end.unwrap_or(*done), *done, read);
                meters.lag.with_label_values(&labels).set(lag);
            }
            if let Some(at) = done.or_else(|| self.reader.start(&self.topic, *partition)) {
                deliver.progress.stands(&place, at);
            }
            let open = oldest.is_some() && !self.sender.awaits();
            deliver.progress.finished(&place, *done, open, std::time::Instant::now());
            let age = oldest.map_or(0.0, |at| (now - at).max(0) as f64 / 1e9);
            meters.oldest.with_label_values(&[&deliver.name, &id]).set(age);
        }
        let joined = self.reader.joined(self.joined.load(Ordering::Relaxed));
        let ready = joined.and_then(|()| match self.sender.refuses() {
            Some((status, records)) if records >= MANY_REFUSED => {
                let (at, with) = (self.sender.address(), failure::named(status));
                Err(format!("{at}: it refuses whatever it is sent, with {with}"))
            }
            _ => Ok(()),
        });
        deliver.health.set(&format!("{}/{}", deliver.pipeline.name(), deliver.name), ready);
    }
}

#[cfg(test)]
#[allow(clippy::panic, clippy::unwrap_used)]
mod tests;
