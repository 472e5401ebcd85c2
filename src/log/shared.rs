//! A topic that several parts of a process read, fetched once for all of them (`docket_core::ring`). Who reads it here belongs to no
//! group: what each part was assigned, and what it commits, is its own, and so is how it reads once it has fallen off.
//!
//! Nobody runs it: whoever has taken all that is there looks whether more came, and puts it where the others find it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{ClientContext, Message as _, Offset, Statistics, TopicPartitionList};

use super::client::{self, Brokers};
use super::closing::{Abandon, Closing};
use super::config::Kafka;
use super::queues::{Wake, when};
use super::{Value, fetch, told};
use crate::clock;
use crate::decision::time::Nanos;
use crate::order::Times;
use crate::ring::{Joined, Ring, Taken, Who};
use crate::telemetry::held::Held;

/// A record that several parts read.
#[derive(Clone)]
pub struct Kept {
    pub offset: i64,
    pub times: Times,
    pub value: Arc<Value>,
}

/// So many records are taken from the ring, or put there, at a time.
const AT_ONCE: usize = 64;
/// What a record takes in a ring beside its value.
const OVERHEAD: usize = 96;
/// After a partition could not be read here, each part reads it alone for so long.
const REST: Duration = Duration::from_secs(30);

pub struct Shared {
    kafka: Kafka,
    group: String,
    topic: String,
    /// Bytes that may be kept and fetched ahead, of so many partitions.
    room: usize,
    count: usize,
    time: fn(&[u8]) -> Option<Nanos>,
    holding: Box<dyn Fn() -> Held + Send + Sync>,
    state: Mutex<State>,
    followers: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Before the client, which their queues keep.
    partitions: BTreeMap<i32, Partition>,
    /// While somebody follows.
    client: Option<Closing<Context>>,
    /// Bytes in the rings.
    kept: Option<Held>,
    /// When a partition could not be read here.
    failed: BTreeMap<i32, Instant>,
    /// Of the topic that is read, as far as its followers know it: another one may have got the name since.
    id: Option<String>,
}

impl State {
    /// Nobody is to read here any more; the client is to be dropped when nobody waits for it.
    fn end(&mut self) -> Option<Closing<Context>> {
        for of in std::mem::take(&mut self.partitions).into_values() {
            of.wakes.wake();
        }
        (self.kept, self.id) = (None, None);
        self.client.take()
    }
}

struct Partition {
    queue: PartitionQueue<Context>,
    ring: Ring<Kept>,
    wakes: Arc<Wakes>,
}

/// Who is woken when something comes.
#[derive(Default)]
struct Wakes(Mutex<Vec<(Who, Waking)>>);

/// How somebody is told that something may be there.
#[derive(Clone)]
pub struct Waking {
    pub ready: Arc<AtomicBool>,
    pub wake: Arc<Wake>,
}

impl Wakes {
    fn lock(&self) -> MutexGuard<'_, Vec<(Who, Waking)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        for (_, waking) in &*self.lock() {
            waking.ready.store(true, Ordering::Release);
            waking.wake.some();
        }
    }
}

struct Context {
    brokers: Brokers,
    /// The last stable offset of each partition, and up to where it was fetched when it was at its end, which may be behind the markers
    /// of transactions.
    ends: Mutex<BTreeMap<i32, (i64, i64)>>,
    held: Mutex<Held>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
        self.brokers.logged(facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if code != Some(RDKafkaErrorCode::PartitionEOF) && !told::error(code, reason) {
            tracing::warn!("Kafka: {error}: {reason}");
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.brokers.note(&statistics);
        told::statistics(&statistics);
        let partitions = || statistics.topics.values().flat_map(|topic| &topic.partitions);
        let ahead: u64 = partitions().map(|(_, partition)| partition.fetchq_size).sum();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.set(usize::try_from(ahead).unwrap_or(usize::MAX));
        drop(held);
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, partition) in partitions().filter(|(_, p)| p.ls_offset >= 0) {
            ends.insert(*id, (partition.ls_offset, partition.eof_offset));
        }
    }
}

impl ConsumerContext for Context {}

impl Abandon for Context {}

/// How a topic is read for several.
pub struct Settings<'s> {
    pub kafka: &'s Kafka,
    /// A name that the pipeline has rights to; nothing is committed under it.
    pub group: &'s str,
    pub topic: &'s str,
    pub room: usize,
    /// How many partitions it has.
    pub partitions: usize,
    pub time: fn(&[u8]) -> Option<Nanos>,
}

impl Shared {
    pub fn new(
        settings: &Settings<'_>,
        holding: impl Fn() -> Held + Send + Sync + 'static,
    ) -> Shared {
        Shared {
            kafka: settings.kafka.clone(),
            group: settings.group.to_owned(),
            topic: settings.topic.to_owned(),
            room: settings.room,
            count: settings.partitions,
            time: settings.time,
            holding: Box::new(holding),
            state: Mutex::default(),
            followers: AtomicU64::new(0),
        }
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody wants to go on at an offset of a partition, in the topic with this id, and to be woken when something comes. Nothing if
    /// it has to read alone.
    pub fn follow(
        self: &Arc<Shared>,
        (partition, at): (i32, i64),
        id: Option<&str>,
        waking: Waking,
    ) -> Option<Following> {
        let who = self.followers.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        if let (Some(of), Some(id)) = (&state.id, id)
            && of != id
        {
            // Who still follows in the other topic reads alone, and finds out.
            let ended = state.end();
            drop(state);
            drop(ended);
            return None;
        }
        if state.id.is_none() {
            state.id = id.map(str::to_owned);
        }
        let rests = state.failed.get(&partition).is_some_and(|at| at.elapsed() < REST);
        if rests || !self.has(&mut state, partition) {
            return None;
        }
        let State { partitions, client, .. } = &mut *state;
        let of = partitions.get_mut(&partition)?;
        match of.ring.follow(who, at) {
            Joined::Alone => return None,
            Joined::Follows => {}
            Joined::Begins => {
                if let Err(error) = self.begin(client.as_ref()?, partition, at) {
                    self.fail(&mut state, partition, &error);
                    return None;
                }
            }
        }
        of.wakes.lock().push((who, waking.clone()));
        waking.ready.store(true, Ordering::Release);
        let (shared, ready) = (self.clone(), waking.ready);
        Some(Following {
            shared,
            partition,
            who,
            ready,
            next: at,
            ahead: VecDeque::new(),
            told: false,
            gone: false,
        })
    }

    /// Sees that there is a client, and a queue for the partition.
    fn has(&self, state: &mut State, partition: i32) -> bool {
        if state.client.is_none() {
            match self.client() {
                Ok(client) => {
                    (state.client, state.kept) = (Some(client), Some((self.holding)()));
                }
                Err(error) => {
                    tracing::warn!(topic = self.topic, %error, "the topic can't be read once for all sinks; each reads it");
                    return false;
                }
            }
        }
        let State { partitions, client: Some(client), .. } = state else { return false };
        if let Entry::Vacant(free) = partitions.entry(partition) {
            let Some(mut queue) = client.member().split_partition_queue(&self.topic, partition)
            else {
                return false;
            };
            let wakes = Arc::<Wakes>::default();
            let woken = wakes.clone();
            queue.set_nonempty_callback(move || woken.wake());
            free.insert(Partition { queue, ring: Ring::new(0), wakes });
            // Half of it is kept; the other half, and what comes with the next answer, is fetched ahead.
            let share = self.room / 2 / partitions.len().max(self.count);
            partitions.values_mut().for_each(|of| of.ring.hold(share));
        }
        true
    }

    fn client(&self) -> KafkaResult<Closing<Context>> {
        let config = fetch::apart(&self.kafka, &self.group, self.room / 4, self.count);
        let context = Context {
            brokers: Brokers::default(),
            ends: Mutex::default(),
            held: Mutex::new((self.holding)()),
        };
        let client: BaseConsumer<Context> = config.create_with_context(context)?;
        Ok(Closing::new(Arc::new(client)))
    }

    /// Has a partition fetched from an offset, and from nowhere else.
    fn begin(&self, client: &Closing<Context>, partition: i32, at: i64) -> KafkaResult<()> {
        self.end(client, partition)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition, Offset::Offset(at))?;
        client.incremental_assign(&list)
    }

    fn end(&self, client: &Closing<Context>, partition: i32) -> KafkaResult<()> {
        let assigned = client.assignment()?;
        if assigned.find_partition(&self.topic, partition).is_none() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        client.incremental_unassign(&list)
    }

    fn leave(&self, partition: i32, who: Who) {
        let mut state = self.lock();
        let State { partitions, client, .. } = &mut *state;
        let Some(of) = partitions.get_mut(&partition) else { return };
        of.wakes.lock().retain(|(other, _)| *other != who);
        of.ring.leave(who);
        if of.ring.is_followed() {
            return;
        }
        // Nobody reads it here any more.
        if let Some(client) = client
            && let Err(error) = self.end(client, partition)
        {
            self.fail(&mut state, partition, &error);
        }
        if state.partitions.values().all(|of| !of.ring.is_followed()) {
            let ended = state.end();
            drop(state);
            // That may take a while.
            drop(ended);
        }
    }

    /// Everybody reads a partition alone for a while.
    fn fail(&self, state: &mut State, partition: i32, error: &KafkaError) {
        let topic = &self.topic;
        tracing::warn!(topic, partition, %error, "a partition can't be read once for all sinks; each reads it");
        state.failed.insert(partition, Instant::now());
        if let Some(of) = state.partitions.get_mut(&partition) {
            of.ring.fail();
            of.wakes.wake();
        }
    }

    /// Where a partition ends, and up to where it was fetched when it was at its end, as far as these are known.
    fn ends(&self, partition: i32) -> Option<(i64, i64)> {
        let state = self.lock();
        let client = state.client.as_ref()?;
        // Whoever reads says if it can't.
        let _ = serve(client);
        let context = client.context();
        context.ends.lock().unwrap_or_else(PoisonError::into_inner).get(&partition).copied()
    }

    fn take(&self, partition: i32, who: Who, ahead: &mut VecDeque<Kept>) -> Taken {
        let mut state = self.lock();
        let State { partitions, client, kept, .. } = &mut *state;
        let (Some(of), Some(client)) = (partitions.get_mut(&partition), client) else {
            return Taken::Gone;
        };
        if of.ring.is_drained(who) {
            let fetched = serve(client).and_then(|()| of.fetch(self.time));
            if let Some(kept) = kept {
                kept.set(partitions.values().map(|of| of.ring.bytes()).sum());
            }
            if let Err(error) = fetched {
                self.fail(&mut state, partition, &error);
                return Taken::Gone;
            }
        }
        match state.partitions.get_mut(&partition) {
            Some(of) => of.ring.take(who, AT_ONCE, &mut |kept| ahead.push_back(kept)),
            None => Taken::Gone,
        }
    }
}

/// Hears what librdkafka has to tell.
fn serve(client: &Closing<Context>) -> KafkaResult<()> {
    client.context().brokers.check()?;
    while let Some(told) = client.poll(Duration::ZERO) {
        match told {
            Err(error) if !client::is_outage(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

impl Partition {
    /// Puts into the ring what has come.
    fn fetch(&mut self, time: fn(&[u8]) -> Option<Nanos>) -> KafkaResult<()> {
        let now = clock::now();
        for _ in 0..AT_ONCE {
            match self.queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => {
                    // Whoever comes to it reads it for all.
                    let value = Arc::new(Value::new(message.payload().unwrap_or_default()));
                    let (offset, times) = (message.offset(), when(&message, time, now));
                    let bytes = value.size() + OVERHEAD;
                    self.ring.push(offset, bytes, Kept { offset, times, value });
                }
                Some(Err(KafkaError::PartitionEOF(_))) => self.ring.ended(),
                Some(Err(error)) if client::is_outage(&error) => {}
                Some(Err(error)) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Somebody's place in a partition that is read for several.
pub struct Following {
    shared: Arc<Shared>,
    partition: i32,
    who: Who,
    ready: Arc<AtomicBool>,
    /// The offset behind what was handed out.
    pub next: i64,
    ahead: VecDeque<Kept>,
    /// The end of the log was told, and nothing came since.
    told: bool,
    /// It fell off, and goes on alone.
    pub gone: bool,
}

/// What comes next for a follower.
pub enum Step {
    Record(Kept),
    End,
}

impl Iterator for Following {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.gone {
            // It may be woken all the same.
            self.ready.store(false, Ordering::Release);
            return None;
        }
        if self.ahead.is_empty() {
            // Before the look, so that what comes during it is not missed.
            self.ready.store(false, Ordering::Release);
            match self.shared.take(self.partition, self.who, &mut self.ahead) {
                Taken::Records(_) => {
                    self.told = false;
                    self.ready.store(true, Ordering::Release);
                }
                Taken::Nothing { ended: true } if !self.told => {
                    self.told = true;
                    return Some(Step::End);
                }
                Taken::Nothing { .. } => {}
                Taken::Gone => self.gone = true,
            }
        }
        let kept = self.ahead.pop_front()?;
        self.next = kept.offset + 1;
        Some(Step::Record(kept))
    }
}

impl Following {
    pub fn ends(&self) -> Option<(i64, i64)> {
        self.shared.ends(self.partition)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.shared.leave(self.partition, self.who);
    }
}

#[cfg(test)]
mod tests;
