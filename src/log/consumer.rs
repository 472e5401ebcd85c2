//! A member of a consumer group. Cooperative-sticky unless the pipeline file says otherwise, reads
//! committed records only, commits nothing by itself, and fetches a bounded number of bytes ahead.
//!
//! Each partition that is assigned has a queue of its own, so that librdkafka fetches for it whatever the
//! others hold, and docket says which is read next (`queues`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{
    BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, RebalanceProtocol,
};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};

use super::closing::{Abandon, Closing};
use super::config::{Kafka, Start};
pub use super::member::{Assignments, Membership};
use super::progress::{Assigned, Progress};
use super::queues::{Change, Queue, Queues, Wake};
use super::reading::Reading;
use super::resume::{self, Resuming, TopicIds};
use super::shared::Shared;
use super::{Commits, Committed, Gap, Message, Polled, Reader, Told, client, fetch, scan, told};
use crate::decision::time::Nanos;
use crate::telemetry::Meters;
use crate::telemetry::held::Held;

/// So much that librdkafka tells is listened to at a time.
const SERVES: usize = 10_000;

pub type Client<A> = BaseConsumer<Context<A>>;

pub struct Group<A: Assignments> {
    /// Before the client, which they keep.
    queues: RefCell<Queues<Context<A>>>,
    client: Closing<Context<A>>,
    /// Partitions are read there, as long as this one keeps up.
    shared: Option<Arc<Shared>>,
    time: fn(&[u8]) -> Option<Nanos>,
}

pub struct Context<A: Assignments> {
    pub assignments: A,
    part: String,
    group: String,
    kafka: Kafka,
    meters: Arc<Meters>,
    progress: Arc<Progress>,
    /// By topic and partition: the last stable offset, below which records can be read.
    ends: Mutex<HashMap<(String, i32), i64>>,
    /// The same: where the part goes on, by what was committed when the partition was assigned.
    starts: Mutex<HashMap<(String, i32), i64>>,
    start: Start,
    resuming: Resuming,
    ids: TopicIds,
    /// Where librdkafka last came to the end of a partition.
    reached: Mutex<HashMap<(String, i32), i64>>,
    brokers: client::Brokers,
    /// What is fetched ahead.
    held: Mutex<Held>,
    wake: Arc<Wake>,
    /// What happened to the assignment and the queues do not know yet.
    changes: Mutex<Vec<Change<Context<A>>>>,
    /// How often librdkafka told something that is no record.
    served: AtomicU64,
    client: OnceLock<Weak<Client<A>>>,
    /// It reads everything itself.
    alone: bool,
    /// Another member has taken this one's place.
    abandoned: AtomicBool,
}

impl<A: Assignments> Abandon for Context<A> {
    fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}

impl<A: Assignments> Context<A> {
    fn starts(&self) -> MutexGuard<'_, HashMap<(String, i32), i64>> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn ends(&self) -> MutexGuard<'_, HashMap<(String, i32), i64>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reached(&self) -> MutexGuard<'_, HashMap<(String, i32), i64>> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, topic: &str, partition: i32) -> Assigned {
        Assigned { part: self.part.clone(), topic: topic.to_owned(), partition }
    }

    fn changes(&self) -> MutexGuard<'_, Vec<Change<Context<A>>>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is there and is not read, since the group begins at the end. Whether it has read here before, nobody knows but who runs it.
    fn tell_skipped(&self) {
        for (topic, offsets) in self.resuming.take_skipped() {
            let (part, group) = (&self.part, &self.group);
            self.meters.skipped.with_label_values(&[part, &topic]).inc_by(offsets);
            tracing::warn!(
                part,
                group,
                topic,
                offsets,
                "the group has committed nothing, and begins at the end of the topic (start: latest): what is there is not read; if it has read here before, its offsets are gone, and `docket backfill` sends a sink what it lacks"
            );
        }
    }

    /// Gives partitions queues of their own, before anything is fetched for them.
    fn split(&self, partitions: &[(String, i32)]) {
        let Some(client) = self.client.get().and_then(Weak::upgrade) else { return };
        for (topic, partition) in partitions {
            if let Some(queue) = client.split_partition_queue(topic, *partition) {
                let queue = Queue::new(topic.clone(), *partition, queue, &self.wake);
                self.changes().push(Change::Assigned(Box::new(queue)));
            }
        }
    }
}

impl<A: Assignments> ClientContext for Context<A> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.served.fetch_add(1, Ordering::Relaxed);
        if let Some(topic) = resume::log(&self.ids, level, facility, message) {
            self.resuming.wrong(format!("the topic {topic} was deleted and created again"));
        }
        self.brokers.logged(facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.served.fetch_add(1, Ordering::Relaxed);
        // The end of a partition, which `poll` tells.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        if told::error(error.rdkafka_error_code(), reason) {
            return;
        }
        if client::is_outage(&error) {
            tracing::warn!(part = self.part, "Kafka: {reason}");
        } else {
            tracing::error!(part = self.part, "Kafka: {error}: {reason}");
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.served.fetch_add(1, Ordering::Relaxed);
        if self.abandoned.load(Ordering::Relaxed) {
            return;
        }
        self.brokers.note(&statistics);
        told::statistics(&statistics);
        let partitions = statistics.topics.values().flat_map(|topic| topic.partitions.values());
        let ahead: u64 = partitions.map(|partition| partition.fetchq_size).sum();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.set(usize::try_from(ahead).unwrap_or(usize::MAX));
        drop(held);
        let mut ends = self.ends();
        for (name, topic) in &statistics.topics {
            for (id, partition) in &topic.partitions {
                // What is read with others is heard of there, and is further on.
                let known = ends.get(&(name.clone(), *id)).copied().unwrap_or(-1);
                if *id >= 0
                    && partition.ls_offset >= 0
                    && (self.alone || partition.ls_offset > known)
                {
                    ends.insert((name.clone(), *id), partition.ls_offset);
                }
                let first = match self.start {
                    _ if partition.committed_offset >= 0 => partition.committed_offset,
                    Start::Earliest => partition.lo_offset,
                    Start::Latest => partition.ls_offset,
                };
                // Before that what was committed is not asked for yet.
                if *id >= 0 && first >= 0 && partition.fetch_state == "active" {
                    self.starts().entry((name.clone(), *id)).or_insert(first);
                }
                // `eof_offset` is past transaction markers, which no record tells of.
                let read = partition.app_offset.max(partition.eof_offset);
                if read >= 0 {
                    self.reached().insert((name.clone(), *id), partition.eof_offset);
                    self.progress.read(&self.place(name, *id), read, Instant::now());
                }
            }
        }
    }
}

impl<A: Assignments> ConsumerContext for Context<A> {
    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        self.served.fetch_add(1, Ordering::Relaxed);
        if self.abandoned.load(Ordering::Relaxed) {
            return;
        }
        let failed = |e: &TopicPartitionListElem<'_>| result.is_err() || e.error().is_err();
        let failed: Vec<(String, i32)> = offsets
            .elements()
            .iter()
            .filter(|e| failed(e))
            .map(|e| (e.topic().to_owned(), e.partition()))
            .collect();
        if result.is_err() || !failed.is_empty() {
            let error = result.err().map(|error| error.to_string());
            tracing::warn!(part = self.part, error, partitions = ?ids(&failed), "offsets were not committed; they are again");
            self.assignments.not_committed(&failed);
        }
    }

    /// As librdkafka does it, but with places that are looked up, and told.
    fn rebalance(&self, consumer: &Client<A>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let unassign = |list: &TopicPartitionList| match cooperative {
            true => consumer.incremental_unassign(list),
            false => consumer.unassign(),
        };
        let done = match code {
            _ if self.abandoned.load(Ordering::Relaxed) => unassign(list),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.pre_rebalance(consumer, &Rebalance::Assign(list));
                let begin = |offsets: &TopicPartitionList| {
                    Consumer::commit(consumer, offsets, CommitMode::Sync)
                };
                let list = self.resuming.assigned(list, &begin);
                self.tell_skipped();
                for place in list.elements() {
                    if let Offset::Offset(at) = place.offset() {
                        self.starts().insert((place.topic().to_owned(), place.partition()), at);
                    }
                }
                let assigned = if cooperative {
                    consumer.incremental_assign(&list)
                } else {
                    consumer.assign(&list)
                };
                // What it was not reading itself when it was given up, it does from now on.
                assigned.and_then(|()| if self.alone { Ok(()) } else { consumer.resume(&list) })
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                self.pre_rebalance(consumer, &Rebalance::Revoke(list));
                unassign(list)
            }
            code => {
                self.pre_rebalance(consumer, &Rebalance::Error(KafkaError::Rebalance(code.into())));
                unassign(list)
            }
        };
        if let Err(error) = done {
            self.resuming.wrong(format!("partitions can't be taken over or given up: {error}"));
        }
    }

    fn pre_rebalance(&self, consumer: &Client<A>, rebalance: &Rebalance<'_>) {
        self.served.fetch_add(1, Ordering::Relaxed);
        match rebalance {
            Rebalance::Assign(list) => {
                let partitions = names(list);
                tracing::info!(part = self.part, partitions = ?ids(&partitions), "partitions assigned");
                self.meters.rebalances.with_label_values(&[&self.part, "assigned"]).inc();
                for (topic, partition) in &partitions {
                    self.progress.assigned(self.place(topic, *partition), Instant::now());
                }
                self.split(&partitions);
                self.assignments.assigned(&partitions);
            }
            Rebalance::Revoke(list) => {
                let partitions = names(list);
                let lost = consumer.assignment_lost();
                tracing::info!(part = self.part, partitions = ?ids(&partitions), lost, "partitions revoked");
                self.meters
                    .rebalances
                    .with_label_values(&[self.part.as_str(), if lost { "lost" } else { "revoked" }])
                    .inc();
                self.assignments.revoked(consumer, &partitions, lost);
                self.resuming.revoked(&partitions);
                for (topic, partition) in &partitions {
                    self.progress.revoked(&self.place(topic, *partition));
                    self.meters.gave_up(&self.part, topic, *partition);
                    self.starts().remove(&(topic.clone(), *partition));
                    self.reached().remove(&(topic.clone(), *partition));
                }
                self.changes().push(Change::Revoked(partitions));
            }
            Rebalance::Error(error) => {
                tracing::warn!(part = self.part, %error, "rebalance failed");
                self.meters.rebalances.with_label_values(&[&self.part, "failed"]).inc();
            }
        }
    }
}

fn names(list: &TopicPartitionList) -> Vec<(String, i32)> {
    list.elements().iter().map(|e| (e.topic().to_owned(), e.partition())).collect()
}

fn ids(partitions: &[(String, i32)]) -> Vec<i32> {
    partitions.iter().map(|(_, id)| *id).collect()
}

/// Joins the group.
pub fn join<A: Assignments>(
    reading: &Reading<'_>,
    assignments: A,
    meters: Arc<Meters>,
    progress: Arc<Progress>,
) -> KafkaResult<Group<A>> {
    let config = fetch::member(reading);
    let context = Context {
        assignments,
        part: reading.part.to_owned(),
        group: reading.group.to_owned(),
        kafka: reading.kafka.clone(),
        held: Mutex::new(meters.holding(reading.part)),
        meters,
        resuming: Resuming::new(reading, progress.clone()),
        progress,
        ends: Mutex::default(),
        starts: Mutex::default(),
        start: reading.start,
        ids: TopicIds::default(),
        reached: Mutex::default(),
        brokers: client::Brokers::default(),
        wake: Arc::default(),
        changes: Mutex::default(),
        served: AtomicU64::new(0),
        client: OnceLock::new(),
        alone: reading.shared.is_none(),
        abandoned: AtomicBool::new(false),
    };
    let wake = context.wake.clone();
    let mut client: Client<A> = config.create_with_context(context)?;
    let own = wake.clone();
    client.set_nonempty_callback(move || own.main());
    let client = Arc::new(client);
    let _ = client.context().client.set(Arc::downgrade(&client));
    client.subscribe(reading.topics)?;
    let client = Closing::new(client);
    let shared = reading.shared.cloned();
    Ok(Group { queues: RefCell::new(Queues::new()), client, shared, time: reading.time })
}

impl<A: Assignments> Commits for Group<A> {
    fn commit(&self, topic: &str, offsets: &[(i32, i64)], wait: bool) -> KafkaResult<()> {
        Commits::commit(&*self.client, topic, offsets, wait)
    }
}

impl<A: Assignments> Commits for Client<A> {
    fn commit(&self, topic: &str, offsets: &[(i32, i64)], wait: bool) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            let mut element = list.add_partition(topic, *partition);
            element.set_offset(Offset::Offset(*offset))?;
            element.set_metadata(self.context().resuming.metadata(topic));
        }
        Consumer::commit(self, &list, if wait { CommitMode::Sync } else { CommitMode::Async })
    }
}

impl<A: Assignments> Group<A> {
    /// Serves rebalances and whatever else librdkafka has to tell; whether it was asked.
    fn serve(&self) -> KafkaResult<bool> {
        let context = self.client.context();
        context.brokers.check()?;
        context.resuming.check()?;
        if !context.wake.serve() {
            return Ok(false);
        }
        for _ in 0..SERVES {
            let served = context.served.load(Ordering::Relaxed);
            let told = BaseConsumer::poll(&*self.client, Duration::ZERO);
            let mut queues = self.queues.borrow_mut();
            for change in context.changes().drain(..) {
                queues.change(change);
            }
            match told {
                // From before its partition had a queue of its own.
                Some(Ok(message)) => queues.stray(message.detach()),
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) if client::is_outage(&error) => {}
                Some(Err(error)) => return Err(error),
                None if context.served.load(Ordering::Relaxed) == served => return Ok(true),
                None => {}
            }
        }
        // It goes on telling: the loop has more to do than to listen.
        context.wake.main();
        Ok(true)
    }

    /// Partitions are read with others where that can be, and no more by this client.
    fn meet(&self) -> KafkaResult<()> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let context = self.client.context();
        let start =
            |partition| context.starts().get(&(shared.topic().to_owned(), partition)).copied();
        let mut queues = self.queues.borrow_mut();
        let mut met = TopicPartitionList::new();
        let id = context.ids.get(shared.topic());
        for partition in queues.meet(shared, id.as_deref(), &context.wake, start) {
            met.add_partition(shared.topic(), partition);
        }
        if met.count() > 0 {
            self.client.pause(&met)?;
        }
        // This client hears nothing of what it does not fetch.
        let all = queues.met();
        let shared = context.meters.shared.with_label_values(&[&context.part]);
        shared.set(i64::try_from(all.len()).unwrap_or(i64::MAX));
        for (topic, partition, end, read) in all {
            context.progress.read(&context.place(&topic, partition), read, Instant::now());
            if let Some(end) = end {
                context.ends().insert((topic, partition), end);
            }
        }
        Ok(())
    }

    /// What can't be read with others any more is read by this client, from where it was.
    fn part(&self) -> KafkaResult<()> {
        let mut queues = self.queues.borrow_mut();
        if !queues.is_any_gone() {
            return Ok(());
        }
        for (topic, partition, at) in queues.gone() {
            let mut back = TopicPartitionList::new();
            back.add_partition_offset(&topic, partition, Offset::Offset(at))?;
            let told = self.client.seek_partitions(back, Duration::from_secs(10))?;
            let state = KafkaError::OffsetFetch(RDKafkaErrorCode::State);
            match told.elements().first().map(TopicPartitionListElem::error) {
                // It was assigned just now, and fetching has not begun.
                Some(Err(error)) if error.rdkafka_error_code() == state.rdkafka_error_code() => {
                    continue;
                }
                Some(Err(error)) => return Err(error),
                _ => {}
            }
            let mut list = TopicPartitionList::new();
            list.add_partition(&topic, partition);
            self.client.resume(&list)?;
            queues.alone(&topic, partition);
        }
        Ok(())
    }

    /// What waits for others in the order of time does not stall.
    fn excuse(&self) {
        let context = self.client.context();
        for (topic, partition) in self.queues.borrow_mut().held() {
            context.progress.waits(&context.place(&topic, partition), Instant::now());
        }
    }
}

impl<A: Assignments> Reader for Group<A> {
    type Membership = Membership;

    async fn poll(
        &self,
        wait: Duration,
        take: &mut dyn FnMut(&Message<'_>),
    ) -> KafkaResult<Polled> {
        let mut deadline = None;
        loop {
            if self.serve()? {
                self.excuse();
                self.meet()?;
            }
            let taken = self.queues.borrow_mut().take(self.time, take)?;
            self.part()?;
            let Some(until) = taken else { return Ok(Polled::Message) };
            if wait.is_zero() {
                return Ok(Polled::Nothing);
            }
            let now = tokio::time::Instant::now();
            let deadline = *deadline.get_or_insert(now + wait);
            let until = deadline.min(now + until);
            let wake = &self.client.context().wake;
            let _ = tokio::time::timeout_at(until, wake.woken()).await;
            wake.look();
            // Who is woken again and again for nothing comes back in time, too.
            if tokio::time::Instant::now() >= deadline {
                self.serve()?;
                return Ok(Polled::Nothing);
            }
        }
    }

    fn idle(&self) -> KafkaResult<()> {
        self.client.context().wake.look();
        if self.serve()? { self.meet() } else { Ok(()) }
    }

    fn seek(&self, places: &[(&str, i32, i64)]) -> KafkaResult<()> {
        let assigned = self.client.assignment()?;
        let mut back = TopicPartitionList::new();
        for (topic, partition, offset) in places {
            if assigned.find_partition(topic, *partition).is_some() {
                back.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
            }
        }
        if back.count() > 0 {
            let result = self.client.seek_partitions(back, Duration::from_secs(10))?;
            for element in result.elements() {
                element.error()?;
            }
        }
        let mut alone = TopicPartitionList::new();
        for (topic, partition, at) in places {
            if self.queues.borrow_mut().moved(topic, *partition, *at) {
                alone.add_partition(topic, *partition);
            }
        }
        if alone.count() > 0 { self.client.resume(&alone) } else { Ok(()) }
    }

    fn read_back(&self, topic: &str, partitions: Vec<i32>, count: usize, told: Told) {
        let context = self.client.context();
        let Context { kafka, group, part, .. } = &**context;
        let before = {
            let starts = context.starts();
            let start = |p: i32| starts.get(&(topic.to_owned(), p)).copied().unwrap_or_default();
            partitions.into_iter().map(|p| (p, start(p))).collect()
        };
        scan::read_back(kafka, group, part, topic, before, count, told);
    }

    fn end(&self, topic: &str, partition: i32) -> Option<i64> {
        self.client.context().ends().get(&(topic.to_owned(), partition)).copied()
    }

    fn start(&self, topic: &str, partition: i32) -> Option<i64> {
        self.client.context().starts().get(&(topic.to_owned(), partition)).copied()
    }

    fn gaps(&self) -> Vec<Gap> {
        self.client.context().resuming.take_gaps()
    }

    fn read_through(&self, topic: &str, partition: i32) -> Option<i64> {
        let place = (topic.to_owned(), partition);
        let ended = self.client.context().reached().get(&place).copied().unwrap_or(-1);
        self.queues.borrow().through(topic, partition, ended)
    }

    fn committed(&self, partitions: &[(String, i32)]) -> KafkaResult<Vec<Option<Committed>>> {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in partitions {
            list.add_partition(topic, *partition);
        }
        let told = self.client.committed_offsets(list, Duration::from_secs(30))?;
        let of = |(topic, partition): &(String, i32)| {
            let Some(element) = told.find_partition(topic, *partition) else { return Ok(None) };
            element.error()?;
            let metadata = crate::resume::beside(element.metadata()).1.to_owned();
            Ok(match element.offset() {
                Offset::Offset(offset) => Some(Committed { offset, metadata }),
                _ => None,
            })
        };
        partitions.iter().map(of).collect()
    }

    fn membership(&self) -> Option<Membership> {
        // Who was put out of the group may be left without an ID and a generation, and Kafka takes what such a one commits.
        if self.client.assignment_lost() {
            return None;
        }
        let ids = self.client.context().resuming.ids();
        Some(Membership { group: Arc::new(self.client.group_metadata()?), ids })
    }

    fn outside(&self) -> Option<String> {
        self.client.context().brokers.outside()
    }

    fn leave(&self) {
        self.client.unsubscribe();
    }
}
