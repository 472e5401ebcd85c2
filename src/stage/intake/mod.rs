//! Intake: decision logs in, docket records out, exactly once. Records are consumed, produced and their
//! offsets committed in one Kafka transaction.
//!
//! What requests did is read the same way (`Work::Facts`): access logs, spans and audit events in, facts out.
//!
//! When partitions are taken away, or anything about a transaction fails, the transaction is aborted and
//! the records are read again: what they become is a pure function of their bytes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::error::{KafkaError, KafkaResult};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::now;
use crate::decision::time;
use crate::log::consumer::{self, Assignments};
use crate::log::ended::Ended;
use crate::log::progress::{Assigned, Progress};
use crate::log::{Commits, Gap, Message, Reader, Reading, Transactions, transactional};
use crate::pipeline::Pipeline;
use crate::pipeline::file::LogGap;
use crate::stage::supervise;
use crate::telemetry::held::Held;
use crate::telemetry::{Health, Meters};
use alone::Alone;
use pace::PATIENCE;
use target::Target;
use transaction::{Open, Place, Suspect};
use trouble::Condemned;

mod alone;
mod facts;
mod gaps;
mod missing;
mod pace;
mod parts;
mod sources;
mod target;
#[cfg(test)]
mod tests;
mod transaction;
mod trouble;

pub use facts::FactMeters;
pub use trouble::Trouble;

#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    Ended(Ended),
}

/// What is read, and what it becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Decision logs: docket records.
    Decisions,
    /// What says what requests did: facts, for the join.
    Facts,
}

impl Work {
    /// The name of the part.
    pub fn part(self) -> &'static str {
        match self {
            Work::Decisions => "intake",
            Work::Facts => "facts",
        }
    }
}

pub struct Intake {
    pub work: Work,
    pub pipeline: Arc<Pipeline>,
    pub meters: Arc<Meters>,
    pub health: Arc<Health>,
    pub progress: Arc<Progress>,
    /// Of facts, where they are read.
    pub facts: Option<FactMeters>,
    /// max.message.bytes of the topic that is written to and of rejects, where the broker told.
    pub docket_limit: Option<usize>,
    pub rejects_limit: Option<usize>,
    /// Records that it failed at.
    pub trouble: Trouble,
    /// Of its transactions, where the pipeline file names no instance. The same after each restart of the part, so that what the run
    /// before left open is aborted.
    pub id: String,
}

/// Rebalances, as the loop needs to know of them.
#[derive(Default)]
pub struct Seen {
    /// Partitions were taken away: the open transaction may hold records that are another's now.
    disturbed: AtomicBool,
    /// Which; they may have been assigned anew since, and then begin where the group committed.
    revoked: Mutex<Vec<(String, i32)>>,
    /// The same, since gaps were looked for last.
    lost: Mutex<Vec<(String, i32)>>,
    assigned: AtomicBool,
}

impl Assignments for Arc<Seen> {
    fn assigned(&self, _: &[(String, i32)]) {
        self.assigned.store(true, Ordering::Relaxed);
    }

    fn revoked(&self, _: &dyn Commits, partitions: &[(String, i32)], _: bool) {
        if !partitions.is_empty() {
            for list in [&self.revoked, &self.lost] {
                list.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(partitions);
            }
            self.disturbed.store(true, Ordering::Relaxed);
        }
    }
}

impl Seen {
    /// Forgets where to go back to in partitions that were taken away.
    fn settle(&self, topics: &[&str], open: &mut Open) {
        for (topic, partition) in
            self.revoked.lock().unwrap_or_else(PoisonError::into_inner).drain(..)
        {
            if let Some(topic) = topics.iter().position(|t| *t == topic) {
                open.offsets.remove(&(topic, partition));
                open.later.remove(&(topic, partition));
            }
        }
    }
}

/// How long the loop waits for a record in a transaction, and while there is none.
const POLL: Duration = Duration::from_millis(50);
const REST: Duration = Duration::from_millis(250);

impl Intake {
    /// Reads from Kafka until told to stop.
    pub async fn run(&self, stop: &CancellationToken) -> Result<(), IntakeError> {
        let file = &self.pipeline.file;
        let part = self.work.part();
        let start = match (self.work, &file.join) {
            (Work::Facts, Some(join)) => join.start,
            _ => file.intake.start,
        };
        let instance = file.intake.instance_id.clone();
        let id = instance.as_ref().unwrap_or(&self.id);
        let transactional_id = format!("docket.{}.{part}.{id}", file.name);
        let producer = {
            let limit = self.docket_limit.into_iter().chain(self.rejects_limit).min();
            transactional::transactional(
                &file.kafka,
                &format!("{}-{part}", file.name),
                &transactional_id,
                file.docket.compression,
                limit,
            )?
        };
        let (topics, written) = (self.topics(), self.writes_to());
        let reading = Reading {
            kafka: &file.kafka,
            part,
            group: &self.pipeline.group(part),
            topics: &topics,
            start,
            writes: Some(&written),
            stops_at_gaps: file.watchdog.log_gap == LogGap::Stop,
            instance_id: instance.as_deref(),
            prefetch: file.intake.prefetch.0,
            shared: None,
            together: false,
            time: time::guess,
        };
        let _watching = sources::Sources {
            kafka: file.kafka.clone(),
            pipeline: self.pipeline.name().to_owned(),
            part,
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            health: self.health.clone(),
            progress: self.progress.clone(),
        }
        .watch();
        self.over(
            |seen| consumer::join(&reading, seen, self.meters.clone(), self.progress.clone()),
            producer,
            stop,
        )
        .await
    }

    fn topics(&self) -> Vec<&str> {
        let file = &self.pipeline.file;
        match self.work {
            Work::Decisions => file.sources.iter().map(|s| s.topic.as_str()).collect(),
            Work::Facts => {
                let facts = file.join.iter().flat_map(|join| &join.facts);
                facts.map(|source| source.topic.as_str()).collect()
            }
        }
    }

    /// The topic of what it makes.
    fn writes_to(&self) -> String {
        match self.work {
            Work::Decisions => self.pipeline.decided_topic(),
            Work::Facts => self.pipeline.file.facts_topic(),
        }
    }

    /// Reads from any log until told to stop.
    pub async fn over<R, T>(
        &self,
        join: impl FnOnce(Arc<Seen>) -> KafkaResult<R>,
        transactions: T,
        stop: &CancellationToken,
    ) -> Result<(), IntakeError>
    where
        R: Reader,
        T: Transactions<Membership = R::Membership>,
    {
        let seen = Arc::new(Seen::default());
        let reader = join(seen.clone())?;
        let rejects_topic = self.pipeline.rejects_topic();
        let docket_topic = self.writes_to();
        let run = Run {
            intake: self,
            reader,
            transactions,
            seen,
            topics: self.topics(),
            docket_topic,
            rejects_topic,
            suspects: BTreeMap::new(),
            out: Vec::new(),
            next: BTreeMap::new(),
            failures: 0,
            gaps: Vec::new(),
            held: self.meters.holding(self.work.part()),
        };
        run.topics.iter().for_each(|topic| self.meters.reads(self.work.part(), topic));
        run.until(stop).await
    }
}

struct Run<'i, R, T> {
    intake: &'i Intake,
    reader: R,
    transactions: T,
    seen: Arc<Seen>,
    topics: Vec<&'i str>,
    docket_topic: String,
    rejects_topic: String,
    /// Pieces that a transaction failed over, until they are through.
    suspects: BTreeMap<Place, Suspect>,
    out: Vec<u8>,
    /// The next offset of each partition, for the lag.
    next: BTreeMap<(usize, i32), i64>,
    /// How many transactions failed one after the other.
    failures: u32,
    /// What is gone and is not told yet.
    gaps: Vec<Gap>,
    held: Held,
}

impl<R, T> Run<'_, R, T>
where
    R: Reader,
    T: Transactions<Membership = R::Membership>,
{
    async fn until(mut self, stop: &CancellationToken) -> Result<(), IntakeError> {
        while !stop.is_cancelled() {
            let collected = self.collect(stop).await?;
            let Some(open) = self.with_gaps(collected)? else {
                self.report();
                continue;
            };
            match self.commit(&open) {
                Ok(()) => {
                    self.committed(&open);
                    self.told_gaps();
                    self.intake.trouble.passed(&open);
                    self.go_on(&open)?;
                    self.failures = 0;
                }
                Err(error) => {
                    self.intake.trouble.failed(&open);
                    self.abort(&open, &error)?;
                    self.failures += 1;
                    supervise::pause(self.failures.checked_sub(4), stop).await;
                }
            }
            self.report();
        }
        self.reader.leave();
        self.intake.progress.forget(self.intake.work.part());
        Ok(())
    }

    /// Reads and produces until the transaction is due. `None` if there was nothing to read.
    async fn collect(&mut self, stop: &CancellationToken) -> Result<Option<Open>, IntakeError> {
        let config = &self.intake.pipeline.file.intake;
        self.seen.disturbed.store(false, Ordering::Relaxed);
        self.seen.revoked.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let (condemned, most) = (self.intake.trouble.condemned(), self.intake.trouble.most());
        let mut alone = Alone::new(&self.intake.trouble);
        let mut open: Option<Open> = None;
        let mut received = String::new();
        let interval = config.transaction_interval.0.min(PATIENCE);
        let mut due = Instant::now() + interval;
        let mut waiting = None;
        loop {
            let wait = match &open {
                None => REST,
                Some(_) if waiting.is_some() => POLL,
                Some(_) => due.saturating_duration_since(Instant::now()).min(POLL),
            };
            let mut begin = Ok(());
            let mut taken = Ok(());
            let mut took = false;
            let mut out = std::mem::take(&mut self.out);
            let this = &*self;
            let mut take = |message: &Message<'_>| {
                if this.seen.disturbed.load(Ordering::Relaxed) {
                    // The record that came with it is read again.
                    let open = open.get_or_insert_default();
                    this.seen.settle(&this.topics, open);
                    if let Some(place) = this.place(message) {
                        open.offsets.entry(place).or_insert((message.offset, message.offset));
                    }
                    return;
                }
                if waiting.is_some()
                    && let Some(open) = &mut open
                    && this.put_off(message, open)
                {
                    return;
                }
                if this.parted(message, open.as_mut(), &mut alone) {
                    return;
                }
                if !open.as_ref().is_some_and(|o| o.begun) {
                    begin = this.transactions.begin();
                    if begin.is_err() {
                        return;
                    }
                    received = time::format(now());
                    due = Instant::now() + interval;
                }
                let open = open.get_or_insert_default();
                open.begun = true;
                open.began.get_or_insert_with(Instant::now);
                took = true;
                taken = this.target(&condemned, &received, stop).take(message, &mut out, open);
            };
            let polled = this.reader.poll(wait, &mut take).await;
            self.out = out;
            // As it was read and as it is written.
            self.held.set(open.as_ref().map_or(0, |open| open.bytes * 2));
            begin?;
            if let Err(error) = polled {
                if let Some(open) = open.take_if(|o| o.begun) {
                    self.abort(&open, &error)?;
                }
                return Err(error.into());
            }
            if self.seen.disturbed.load(Ordering::Relaxed) {
                let mut open = open;
                if let Some(open) = &mut open {
                    self.seen.settle(&self.topics, open);
                }
                match open {
                    Some(open) if open.begun => self.abort(&open, &KafkaError::Canceled)?,
                    Some(open) => self.rewind(&open)?,
                    None => {}
                }
                return Ok(None);
            }
            // A transaction that failed already takes no more; its commit will say so.
            let failed = taken.is_err() || (open.is_some() && self.transactions.any_failed());
            let full = open
                .as_ref()
                .is_some_and(|o| o.bytes >= config.transaction_bytes.0 || o.records >= most);
            let over = full || alone.ends || stop.is_cancelled() || Instant::now() >= due;
            let mut waits = |o: &mut Open| self.waits_for_parts(o, took, &mut waiting);
            if !failed && (!over || open.as_mut().is_some_and(&mut waits)) {
                continue;
            }
            if let Some(open) = open.as_mut().filter(|o| !failed && o.parts.wait()) {
                // After a restart they are read again.
                if stop.is_cancelled() {
                    self.abort(open, &KafkaError::Canceled)?;
                    return Ok(None);
                }
                self.target(&condemned, &received, stop).give_up(open);
            }
            return Ok(open);
        }
    }

    fn target<'t>(
        &'t self,
        condemned: &'t Condemned,
        received: &'t str,
        stop: &'t CancellationToken,
    ) -> Target<'t, T> {
        Target {
            intake: self.intake,
            transactions: &self.transactions,
            topics: &self.topics,
            docket_topic: &self.docket_topic,
            rejects_topic: &self.rejects_topic,
            suspects: &self.suspects,
            condemned,
            received,
            stop,
            keeping: Default::default(),
        }
    }

    /// Sees that everything was taken, and commits it with the offsets.
    fn commit(&self, open: &Open) -> Result<(), KafkaError> {
        let _span = tracing::info_span!(
            "transaction",
            pipeline = self.intake.pipeline.name(),
            records = open.produced.len(),
            bytes = open.bytes
        )
        .entered();
        let member = self.reader.membership().ok_or(KafkaError::Canceled)?;
        let offsets: Vec<(&str, i32, i64)> = open
            .offsets
            .iter()
            .map(|((topic, partition), (_, next))| (self.topics[*topic], *partition, *next))
            .collect();
        // Something could not even be produced: then the transaction is over.
        // Parts still wait only where the producer failed, and its commit says at what.
        if open.refused || open.parts.wait() && !self.transactions.any_failed() {
            return Err(KafkaError::Canceled);
        }
        self.transactions.commit(&offsets, &member)
    }

    fn committed(&mut self, open: &Open) {
        for ((topic, partition), (_, next)) in &open.offsets {
            self.next.insert((*topic, *partition), *next);
            self.finished(*topic, *partition, Some(*next), false);
            self.suspects
                .retain(|place, _| (place.0, place.1) != (*topic, *partition) || place.2 >= *next);
        }
        let (meters, part) = (&self.intake.meters, self.intake.work.part());
        meters.transactions.with_label_values(&["committed"]).inc();
        for (topic, tally) in &open.tally.topics {
            let topic = &[self.topics[*topic]];
            if let Some(facts) = &self.intake.facts {
                facts.count(topic[0], tally);
                continue;
            }
            meters.records.with_label_values(topic).inc_by(tally.records);
            meters.bytes.with_label_values(topic).inc_by(tally.bytes);
            for (kind, count) in &tally.ignored {
                meters.ignored.with_label_values(&[topic[0], kind.as_str()]).inc_by(*count);
            }
            meters.dropped.with_label_values(topic).inc_by(tally.dropped);
            meters.malformed_ids.with_label_values(topic).inc_by(tally.malformed);
            meters.mismatches.with_label_values(topic).inc_by(tally.mismatches);
            meters.unjudged.with_label_values(topic).inc_by(tally.unjudged);
        }
        for (verdict, count) in &open.tally.verdicts {
            meters.decisions.with_label_values(&[verdict.as_str()]).inc_by(*count);
        }
        for (hit, count) in &open.tally.hits {
            meters.detected(hit.detector.name(), &hit.place, *count);
        }
        for (reason, count) in &open.tally.rejects {
            meters.rejects.with_label_values(&[part, reason.as_str()]).inc_by(*count);
        }
    }

    /// Undoes the transaction and goes back to where it began.
    fn abort(&mut self, open: &Open, error: &KafkaError) -> Result<(), IntakeError> {
        self.intake.meters.transactions.with_label_values(&["aborted"]).inc();
        if matches!(error, KafkaError::Transaction(e) if e.is_fatal()) {
            return Err(self.ended(error.clone()));
        }
        for (topic, partition) in open.offsets.keys() {
            self.finished(*topic, *partition, self.next.get(&(*topic, *partition)).copied(), true);
        }
        let refused = self.transactions.abort().map_err(|error| self.ended(error))?;
        for (tag, code) in &refused {
            if let Some(produced) = open.produced.get(*tag) {
                self.suspects.insert(
                    produced.place,
                    Suspect { kind: produced.kind, proven: produced.alone, code: *code },
                );
            }
        }
        if refused.is_empty() && !matches!(error, KafkaError::Canceled) {
            tracing::warn!(%error, "a transaction was aborted; its records are read again");
        }
        self.rewind(open)
    }

    fn ended(&self, error: KafkaError) -> IntakeError {
        let instance = self.intake.pipeline.file.intake.instance_id.as_deref();
        IntakeError::Ended(Ended::new(error, instance, self.transactions.denied()))
    }

    /// Tells the watchdog.
    fn finished(&self, topic: usize, partition: i32, done: Option<i64>, open: bool) {
        let part = self.intake.work.part().to_owned();
        let place = Assigned { part, topic: self.topics[topic].to_owned(), partition };
        self.intake.progress.finished(&place, done, open, std::time::Instant::now());
    }

    fn rewind(&self, open: &Open) -> Result<(), IntakeError> {
        let mut back = open.later.clone();
        for (place, (first, _)) in &open.offsets {
            // What was put off may stand before a record that a rebalance interrupted, or behind what was read.
            back.entry(*place)
                .and_modify(|offset| *offset = (*offset).min(*first))
                .or_insert(*first);
        }
        self.seek(&back)
    }

    fn seek(&self, places: &BTreeMap<(usize, i32), i64>) -> Result<(), IntakeError> {
        let named: Vec<(&str, i32, i64)> = places
            .iter()
            .map(|((topic, partition), offset)| (self.topics[*topic], *partition, *offset))
            .collect();
        Ok(self.reader.seek(&named)?)
    }

    /// Offsets, lag and health.
    fn report(&self) {
        let part = self.intake.work.part();
        let ready = self.reader.joined(self.seen.assigned.load(Ordering::Relaxed));
        let ready = ready.map_err(|outside| {
            let missing = sources::note(self.intake.pipeline.name(), part);
            self.intake.health.noted(&missing).unwrap_or(outside)
        });
        self.intake.health.set(&format!("{}/{part}", self.intake.pipeline.name()), ready);
        let mine = self.intake.progress.places().into_iter().filter(|p| p.part == part);
        let unread = mine.filter_map(|place| {
            let topic = self.topics.iter().position(|t| *t == place.topic)?;
            let start = self.reader.start(&place.topic, place.partition)?;
            let known = self.next.contains_key(&(topic, place.partition));
            (!known).then_some(((topic, place.partition), start))
        });
        let unread: Vec<((usize, i32), i64)> = unread.collect();
        let unread = unread.iter().map(|(place, start)| (place, start));
        for ((topic, partition), next) in self.next.iter().chain(unread) {
            let name = self.topics[*topic];
            let assigned =
                Assigned { part: part.to_owned(), topic: name.to_owned(), partition: *partition };
            if !self.intake.progress.has(&assigned) {
                continue;
            }
            let labels = [part, name, &partition.to_string()];
            self.intake.progress.stands(&assigned, *next);
            self.intake.meters.offset.with_label_values(&labels).set(*next);
            if let Some(end) = self.reader.end(name, *partition) {
                self.intake.meters.lag.with_label_values(&labels).set((end - next).max(0));
            }
        }
    }
}
