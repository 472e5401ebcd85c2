//! The partitions that a group member reads, a queue each, and which of them is read next.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::ConsumerContext;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message as _, OwnedMessage};
use tokio::sync::Notify;

use super::{Headers, Message, client, headers};
use crate::clock;
use crate::decision::time::{self, Nanos};
use crate::order::{MAX_SKEW, Next, Order, Times};

/// Wakes the loop when librdkafka has something for it.
#[derive(Default)]
pub struct Wake {
    notify: Notify,
    main: AtomicBool,
    /// How often nobody looked at the main queue.
    passed: AtomicU32,
}

impl Wake {
    /// Something is in the main queue.
    pub fn main(&self) {
        self.look();
        self.notify.notify_one();
    }

    /// The main queue is to be looked at, whatever was told of it.
    pub fn look(&self) {
        self.main.store(true, Ordering::Release);
    }

    /// Whether the main queue is to be looked at: something is in it, or nobody looked for long.
    pub fn serve(&self) -> bool {
        let passed = self.passed.load(Ordering::Relaxed);
        self.passed.store(passed.wrapping_add(1), Ordering::Relaxed);
        (self.main.load(Ordering::Acquire) && self.main.swap(false, Ordering::AcqRel))
            || passed.is_multiple_of(1024)
    }

    pub async fn woken(&self) {
        self.notify.notified().await;
    }
}

/// What a rebalance changes.
pub enum Change<C: ConsumerContext> {
    Assigned(Queue<C>),
    Revoked(Vec<(String, i32)>),
}

/// The queue of one partition.
pub struct Queue<C: ConsumerContext> {
    topic: String,
    partition: i32,
    queue: PartitionQueue<C>,
    /// Something may be in it.
    ready: Arc<AtomicBool>,
    /// The next record, looked at already.
    head: Option<OwnedMessage>,
    /// Records that came before the partition had this queue; they go first.
    stray: VecDeque<OwnedMessage>,
    /// Behind the last record that was handed out since it is read from where it is read, and whether its end was reached since.
    handed: Option<i64>,
    ended: bool,
}

/// What a queue has next.
enum Found<'q> {
    Fetched(BorrowedMessage<'q>),
    Stray(OwnedMessage),
    End,
}

impl<C: ConsumerContext> Queue<C> {
    pub fn new(
        topic: String,
        partition: i32,
        mut queue: PartitionQueue<C>,
        wake: &Arc<Wake>,
    ) -> Queue<C> {
        let ready = Arc::new(AtomicBool::new(true));
        let (own, wake) = (ready.clone(), wake.clone());
        queue.set_nonempty_callback(move || {
            own.store(true, Ordering::Release);
            wake.notify.notify_one();
        });
        Queue {
            topic,
            partition,
            queue,
            ready,
            head: None,
            stray: VecDeque::new(),
            handed: None,
            ended: false,
        }
    }

    fn next(&mut self) -> KafkaResult<Option<Found<'_>>> {
        if let Some(stray) = self.stray.pop_front() {
            return Ok(Some(Found::Stray(stray)));
        }
        loop {
            // Before the look, so that what comes during it is not missed.
            self.ready.store(false, Ordering::Release);
            let found = match self.queue.poll(Duration::ZERO) {
                None => return Ok(None),
                Some(Ok(message)) => Found::Fetched(message),
                Some(Err(KafkaError::PartitionEOF(_))) => Found::End,
                Some(Err(error)) if client::is_outage(&error) => continue,
                Some(Err(error)) => return Err(error),
            };
            self.ready.store(true, Ordering::Release);
            return Ok(Some(found));
        }
    }
}

impl Headers for BorrowedMessage<'_> {
    fn key(&self) -> Option<&[u8]> {
        rdkafka::Message::key(self)
    }

    fn written(&self) -> Option<Nanos> {
        written(self)
    }

    fn pairs(&self) -> Vec<(&str, &[u8])> {
        headers::pairs(self)
    }
}

impl Headers for OwnedMessage {
    fn key(&self) -> Option<&[u8]> {
        rdkafka::Message::key(self)
    }

    fn written(&self) -> Option<Nanos> {
        written(self)
    }

    fn pairs(&self) -> Vec<(&str, &[u8])> {
        headers::pairs(self)
    }
}

fn hand<M: rdkafka::Message + Headers>(message: &M, take: &mut dyn FnMut(&Message<'_>)) {
    take(&Message {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        payload: message.payload().unwrap_or_default(),
        headers: message,
    });
}

pub struct Queues<C: ConsumerContext> {
    /// By the number that they have in the order.
    queues: BTreeMap<usize, Queue<C>>,
    order: Order<usize>,
    /// How many there ever were.
    ever: usize,
    /// Whose turn it is.
    turn: Option<usize>,
    /// The wall clock when it was looked at last: no record is taken for newer.
    now: Nanos,
    /// When what waits was told of last.
    told: Instant,
}

impl<C: ConsumerContext> Queues<C> {
    pub fn new() -> Queues<C> {
        Queues {
            queues: BTreeMap::new(),
            order: Order::new(time::nanos(MAX_SKEW)),
            ever: 0,
            turn: None,
            now: clock::now(),
            told: Instant::now(),
        }
    }

    pub fn change(&mut self, change: Change<C>) {
        match change {
            Change::Assigned(queue) => {
                self.remove(&queue.topic, queue.partition);
                self.ever += 1;
                self.order.begin(self.ever);
                self.queues.insert(self.ever, queue);
            }
            Change::Revoked(partitions) => {
                for (topic, partition) in &partitions {
                    self.remove(topic, *partition);
                }
            }
        }
    }

    fn find(&self, topic: &str, partition: i32) -> Option<usize> {
        let found = self.queues.iter().find(|(_, q)| q.partition == partition && q.topic == topic);
        found.map(|(id, _)| *id)
    }

    fn remove(&mut self, topic: &str, partition: i32) {
        if let Some(id) = self.find(topic, partition) {
            self.queues.remove(&id);
            self.order.remove(&id);
        }
    }

    /// Below this offset of a partition everything was handed out, given where librdkafka said that the partition ends.
    /// That may be from before it was sent back: it counts once the end was reached since.
    pub fn through(&self, topic: &str, partition: i32, ended: i64) -> Option<i64> {
        let queue = self.queues.get(&self.find(topic, partition)?)?;
        let next = queue.head.as_ref().or(queue.stray.front()).map(OwnedMessage::offset);
        // What came before its end may be in the queue still.
        let over = queue.ended && !queue.ready.load(Ordering::Acquire);
        next.or(queue.handed.max(over.then_some(ended)))
    }

    pub fn stray(&mut self, message: OwnedMessage) {
        let id = self.find(message.topic(), message.partition());
        if let Some(queue) = id.and_then(|id| self.queues.get_mut(&id)) {
            queue.stray.push_back(message);
            queue.ready.store(true, Ordering::Release);
        }
    }

    /// A partition is read from another place: what was looked at is read again, or not at all.
    pub fn moved(&mut self, topic: &str, partition: i32) {
        let Some(id) = self.find(topic, partition) else { return };
        self.order.begin(id);
        if let Some(queue) = self.queues.get_mut(&id) {
            (queue.head, queue.stray) = (None, VecDeque::new());
            (queue.handed, queue.ended) = (None, false);
            queue.ready.store(true, Ordering::Release);
        }
    }

    /// Partitions whose next record waits for its turn, now and then.
    pub fn held(&mut self) -> Vec<(String, i32)> {
        if self.told.elapsed() < Duration::from_secs(1) {
            return Vec::new();
        }
        self.told = Instant::now();
        let place = |id| self.queues.get(&id).map(|q| (q.topic.clone(), q.partition));
        self.order.held().filter_map(place).collect()
    }

    /// Hands out the record whose turn it is. If there is none: after how long to ask again, if nothing comes before.
    pub fn take(
        &mut self,
        time: fn(&[u8]) -> Option<Nanos>,
        take: &mut dyn FnMut(&Message<'_>),
    ) -> KafkaResult<Option<Duration>> {
        let Queues { queues, order, now, turn, .. } = self;
        if let Some((id, queue)) = turn.and_then(|id| Some((id, queues.get_mut(&id)?))) {
            let next = match queue.next()? {
                Some(Found::Fetched(message)) => {
                    if order.head(id, when(&message, time, *now)) {
                        hand(&message, take);
                        order.took(id);
                        let next = message.offset() + 1;
                        drop(message);
                        queue.handed = Some(next);
                        return Ok(None);
                    }
                    Some(message.detach())
                }
                Some(Found::Stray(message)) => {
                    order.head(id, when(&message, time, *now));
                    Some(message)
                }
                Some(Found::End) => {
                    order.end(id);
                    queue.ended = true;
                    None
                }
                None => None,
            };
            queue.head = next;
        }
        *turn = None;
        *now = clock::now();
        for (id, queue) in queues.iter_mut().filter(|(_, queue)| queue.head.is_none()) {
            while queue.ready.load(Ordering::Acquire) {
                let next = match queue.next()? {
                    Some(Found::Fetched(message)) => message.detach(),
                    Some(Found::Stray(message)) => message,
                    Some(Found::End) => {
                        order.end(*id);
                        queue.ended = true;
                        continue;
                    }
                    None => continue,
                };
                order.head(*id, when(&next, time, *now));
                queue.head = Some(next);
                break;
            }
        }
        let until = match order.next(*now) {
            Next::Take(id) => {
                *turn = Some(id);
                let queue = queues.get_mut(&id);
                let head = queue.and_then(|queue| {
                    let head = queue.head.take()?;
                    queue.handed = Some(head.offset() + 1);
                    Some(head)
                });
                let Some(message) = head else { return Ok(Some(Duration::ZERO)) };
                hand(&message, take);
                order.took(id);
                return Ok(None);
            }
            Next::Wait(until) => u64::try_from(until - *now).unwrap_or_default(),
            Next::Nothing => u64::MAX >> 4,
        };
        Ok(Some(Duration::from_nanos(until)))
    }
}

/// A record that says it is older than that when Kafka gets it is not believed.
const OLDEST: Nanos = 31 * 86_400 * 1_000_000_000;

/// When Kafka had it.
fn written<M: rdkafka::Message>(message: &M) -> Option<Nanos> {
    message.timestamp().to_millis().map(|ms| ms.saturating_mul(1_000_000))
}

/// When what stands in a record happened: what the record says, but not later than Kafka had it.
fn when<M: rdkafka::Message>(message: &M, time: fn(&[u8]) -> Option<Nanos>, now: Nanos) -> Times {
    let written = written(message).unwrap_or(now).min(now);
    let believed = |said: &Nanos| (written.saturating_sub(OLDEST)..=written).contains(said);
    let said = message.payload().and_then(time).filter(believed);
    Times { happened: said.unwrap_or(written), written }
}
