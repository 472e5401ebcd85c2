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

use super::shared::{Following, Kept, Shared, Step, Waking};
use super::{Headers, Message, Value, client, headers};
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

    /// Something is in a partition's queue.
    pub fn some(&self) {
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
    Assigned(Box<Queue<C>>),
    Revoked(Vec<(String, i32)>),
}

/// The queue of one partition.
pub struct Queue<C: ConsumerContext> {
    topic: String,
    partition: i32,
    queue: PartitionQueue<C>,
    /// While it is read with others, instead of the queue.
    following: Option<Following>,
    /// Something may be in it.
    ready: Arc<AtomicBool>,
    /// The next record, looked at already.
    head: Option<Head>,
    /// Records that came before the partition had this queue; they go first.
    stray: VecDeque<OwnedMessage>,
    /// Behind the last record that was handed out since it is read from where it is read, and whether its end was reached since.
    handed: Option<i64>,
    ended: bool,
}

/// A record that is looked at before it is handed out.
enum Head {
    Fetched(OwnedMessage),
    Kept(Kept),
}

impl Head {
    fn offset(&self) -> i64 {
        match self {
            Head::Fetched(message) => message.offset(),
            Head::Kept(kept) => kept.offset,
        }
    }

    fn times(&self, time: fn(&[u8]) -> Option<Nanos>, now: Nanos) -> Times {
        match self {
            Head::Fetched(message) => when(message, time, now),
            Head::Kept(kept) => kept.times,
        }
    }

    fn hand(&self, topic: &str, partition: i32, take: &mut dyn FnMut(&Message<'_>)) {
        match self {
            Head::Fetched(message) => hand(message, take),
            Head::Kept(kept) => take(&Message {
                topic,
                partition,
                offset: kept.offset,
                payload: kept.value.bytes(),
                headers: kept,
            }),
        }
    }
}

/// What a queue has next.
enum Found<'q> {
    Fetched(BorrowedMessage<'q>),
    Read(Head),
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
            wake.some();
        });
        Queue {
            topic,
            partition,
            queue,
            following: None,
            ready,
            head: None,
            stray: VecDeque::new(),
            handed: None,
            ended: false,
        }
    }

    fn next(&mut self) -> KafkaResult<Option<Found<'_>>> {
        if let Some(stray) = self.stray.pop_front() {
            return Ok(Some(Found::Read(Head::Fetched(stray))));
        }
        if let Some(following) = &mut self.following {
            return Ok(following.next().map(|step| match step {
                Step::Record(kept) => Found::Read(Head::Kept(kept)),
                Step::End => Found::End,
            }));
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

    /// Below this offset everything was handed out, given where librdkafka said that the partition ends.
    /// That may be from before it was sent back: it counts once the end was reached since.
    fn through(&self, ended: i64) -> Option<i64> {
        // What came before its end may be in the queue still.
        let over = self.ended && !self.ready.load(Ordering::Acquire);
        let next = self.head.as_ref().map(Head::offset);
        next.or_else(|| self.stray.front().map(OwnedMessage::offset))
            .or(self.handed.max(over.then_some(ended)))
    }

    /// The offset of what comes next, if something was read here since it is read from where it is read.
    fn next_offset(&self) -> Option<i64> {
        let stray = || self.stray.front().map(OwnedMessage::offset);
        self.head.as_ref().map(Head::offset).or_else(stray).or(self.handed)
    }

    /// What was looked at is read again, or not at all.
    fn begin(&mut self) {
        (self.head, self.stray) = (None, VecDeque::new());
        (self.handed, self.ended) = (None, false);
        self.ready.store(true, Ordering::Release);
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

/// Of what is read with others there are none: who reads so looks at no header.
impl Headers for Kept {
    fn pairs(&self) -> Vec<(&str, &[u8])> {
        Vec::new()
    }

    fn written(&self) -> Option<Nanos> {
        Some(self.times.written)
    }

    fn value(&self) -> Option<Arc<Value>> {
        Some(self.value.clone())
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
    /// Some can't be read with others any more, as was seen when the last turn ended.
    gone: bool,
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
            gone: false,
        }
    }

    pub fn change(&mut self, change: Change<C>) {
        match change {
            Change::Assigned(queue) => {
                self.remove(&queue.topic, queue.partition);
                self.ever += 1;
                self.order.begin(self.ever);
                self.queues.insert(self.ever, *queue);
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

    /// The same of a partition by its name.
    pub fn through(&self, topic: &str, partition: i32, ended: i64) -> Option<i64> {
        self.queues.get(&self.find(topic, partition)?)?.through(ended)
    }

    pub fn stray(&mut self, message: OwnedMessage) {
        let id = self.find(message.topic(), message.partition());
        if let Some(queue) = id.and_then(|id| self.queues.get_mut(&id)) {
            queue.stray.push_back(message);
            queue.ready.store(true, Ordering::Release);
        }
    }

    /// A partition is read from another place: what was looked at is read again, or not at all.
    /// Whether others read it, too, and no more with this one.
    pub fn moved(&mut self, topic: &str, partition: i32, at: i64) -> bool {
        let Some(id) = self.find(topic, partition) else { return false };
        self.order.begin(id);
        let Some(queue) = self.queues.get_mut(&id) else { return false };
        queue.begin();
        queue.handed = Some(at);
        queue.following.take().is_some()
    }

    /// Has partitions that are read alone read with others from now on, where that can be; says which. `start` tells where a partition
    /// begins of which nothing was read.
    pub fn meet(
        &mut self,
        shared: &Arc<Shared>,
        topic_id: Option<&str>,
        wake: &Arc<Wake>,
        start: impl Fn(i32) -> Option<i64>,
    ) -> Vec<i32> {
        let mut met = Vec::new();
        for (id, queue) in &mut self.queues {
            if queue.following.is_some() || queue.topic != shared.topic() {
                continue;
            }
            let Some(at) = queue.next_offset().or_else(|| start(queue.partition)) else { continue };
            let waking = Waking { ready: queue.ready.clone(), wake: wake.clone() };
            if let Some(following) = shared.follow((queue.partition, at), topic_id, waking) {
                queue.begin();
                queue.handed = Some(at);
                queue.following = Some(following);
                self.order.begin(*id);
                met.push(queue.partition);
            }
        }
        met
    }

    pub fn is_any_gone(&self) -> bool {
        self.gone
    }

    /// Partitions that can't be read with others any more, and where each goes on.
    pub fn gone(&self) -> Vec<(String, i32, i64)> {
        let gone = |queue: &Queue<C>| {
            let following = queue.following.as_ref().filter(|following| following.gone)?;
            let at = queue.head.as_ref().map_or(following.next, Head::offset);
            Some((queue.topic.clone(), queue.partition, at))
        };
        self.queues.values().filter_map(gone).collect()
    }

    /// A partition is read alone from now on, from where it was.
    pub fn alone(&mut self, topic: &str, partition: i32) {
        let Some(id) = self.find(topic, partition) else { return };
        self.order.begin(id);
        if let Some(queue) = self.queues.get_mut(&id) {
            let handed = queue.next_offset();
            queue.following = None;
            queue.begin();
            queue.handed = handed;
        }
    }

    /// Where partitions end that are read with others, and up to where each was read.
    pub fn met(&self) -> Vec<(String, i32, Option<i64>, i64)> {
        let met = |queue: &Queue<C>| {
            let following = queue.following.as_ref()?;
            let ends = following.ends();
            let read = queue.through(ends.map_or(-1, |(_, reached)| reached));
            let read = read.unwrap_or(following.next);
            Some((queue.topic.clone(), queue.partition, ends.map(|(end, _)| end), read))
        };
        self.queues.values().filter_map(met).collect()
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
        let Queues { queues, order, now, turn, gone, .. } = self;
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
                    Some(Head::Fetched(message.detach()))
                }
                Some(Found::Read(head)) => {
                    if order.head(id, head.times(time, *now)) {
                        head.hand(&queue.topic, queue.partition, take);
                        order.took(id);
                        queue.handed = Some(head.offset() + 1);
                        return Ok(None);
                    }
                    Some(head)
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
                    Some(Found::Fetched(message)) => Head::Fetched(message.detach()),
                    Some(Found::Read(head)) => head,
                    Some(Found::End) => {
                        order.end(*id);
                        queue.ended = true;
                        continue;
                    }
                    None => continue,
                };
                order.head(*id, next.times(time, *now));
                queue.head = Some(next);
                break;
            }
        }
        let is_gone = |queue: &Queue<C>| queue.following.as_ref().is_some_and(|f| f.gone);
        *gone = queues.values().any(is_gone);
        let until = match order.next(*now) {
            Next::Take(id) => {
                *turn = Some(id);
                let Some((queue, head)) = queues
                    .get_mut(&id)
                    .and_then(|queue| queue.head.take().map(|head| (queue, head)))
                else {
                    return Ok(Some(Duration::ZERO));
                };
                queue.handed = Some(head.offset() + 1);
                head.hand(&queue.topic, queue.partition, take);
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
pub fn when<M: rdkafka::Message>(
    message: &M,
    time: fn(&[u8]) -> Option<Nanos>,
    now: Nanos,
) -> Times {
    let written = written(message).unwrap_or(now).min(now);
    let believed = |said: &Nanos| (written.saturating_sub(OLDEST)..=written).contains(said);
    let said = message.payload().and_then(time).filter(believed);
    Times { happened: said.unwrap_or(written), written }
}
