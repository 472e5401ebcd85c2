//! What one member of the group holds: the partitions that it was assigned, and the join of what stands in them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rdkafka::error::{KafkaError, KafkaResult};
use tokio::time::Instant;

use super::documents::Documents;
use super::evidence::Clear;
use super::output::{Output, Waiting};
use super::{Change, Correlate, PART, Rebalances};
use crate::correlate::missing::Missing;
use crate::correlate::{Came, Counts, Join, Place, Position, Side};
use crate::decision::record::Record;
use crate::decision::reject::{Reason, Reject};
use crate::decision::time::{Nanos, nanos};
use crate::log::progress::Assigned;
use crate::log::{Committed, Gap, Message, Reader, Transactions};
use crate::resume::Cause;
use crate::telemetry;

/// A partition of one of the two topics.
type Part = (Side, u32);

#[derive(Default)]
struct Held {
    /// What was committed when it was assigned.
    begun: Position,
    /// What is committed, if anything is that holds.
    committed: Option<Position>,
    /// Where to go back to, unless it is the first offset.
    from: Option<i64>,
    /// The first offset that was handed out, and behind the last one that was taken.
    first: Option<i64>,
    next: i64,
}

pub(super) struct Member<'c, R, T> {
    correlate: &'c Correlate,
    pub reader: &'c R,
    rebalances: Arc<Rebalances>,
    /// The topics of both sides.
    topics: [String; 2],
    documents: Documents,
    join: Join<Waiting>,
    output: Output<'c, T>,
    parts: BTreeMap<Part, Held>,
    /// Partitions that are new, or to be read again from where was committed.
    stale: BTreeSet<Part>,
    /// What is gone and is not told yet, and when that was found.
    gaps: BTreeMap<Part, (Gap, Nanos)>,
    failed: Option<KafkaError>,
    /// How far everything upstream was, by side: until that is read here, what was said since is not looked at.
    claims: [Option<Clear>; 2],
    /// What is counted already.
    counted: Counts,
    /// Its memory.
    holds: telemetry::held::Held,
    /// When the join began anew, by the wall clock.
    began: Nanos,
    committed: Instant,
    assigned: bool,
}

/// Positions that change while nothing is written are committed so often.
const REST: std::time::Duration = std::time::Duration::from_secs(1);
/// After a new beginning, what Kafka said before is not believed: how far it is told every two seconds.
const SETTLED: Nanos = 5_000_000_000;

impl<'c, R, T> Member<'c, R, T>
where
    R: Reader,
    T: Transactions<Membership = R::Membership>,
{
    pub fn new(
        correlate: &'c Correlate,
        reader: &'c R,
        transactions: &'c T,
        rebalances: Arc<Rebalances>,
    ) -> Self {
        let file = &correlate.pipeline.file;
        let mut member = Member {
            correlate,
            reader,
            rebalances,
            topics: [file.pending_topic(), file.facts_topic()],
            documents: Documents::of(file),
            join: Join::new(correlate.section.settings(), correlate.section.watch()),
            output: Output::new(correlate, transactions),
            parts: BTreeMap::new(),
            stale: BTreeSet::new(),
            gaps: BTreeMap::new(),
            failed: None,
            claims: [None, None],
            counted: Counts::default(),
            holds: correlate.meters.holding(PART),
            began: 0,
            committed: Instant::now(),
            assigned: false,
        };
        member.begin_anew();
        member
    }

    /// What it reads.
    pub fn topics(&self) -> &[String] {
        &self.topics
    }

    /// Nothing is known, and what is committed is read again.
    fn begin_anew(&mut self) {
        let section = &self.correlate.section;
        self.join = Join::new(section.settings(), section.watch());
        self.counted = Counts::default();
        self.output.clear();
        self.doubt();
        self.stale = self.parts.keys().copied().collect();
    }

    /// Whether all is here is not known, of either side.
    fn doubt(&mut self) {
        for side in [Side::Decisions, Side::Facts] {
            self.join.complete(side, Nanos::MIN);
        }
        self.claims = [None, None];
        self.began = (self.correlate.clock)();
    }

    fn side(&self, topic: &str) -> Option<Side> {
        match self.topics.iter().position(|t| t == topic)? {
            0 => Some(Side::Decisions),
            _ => Some(Side::Facts),
        }
    }

    fn part(&self, topic: &str, partition: i32) -> Option<Part> {
        Some((self.side(topic)?, u32::try_from(partition).ok()?))
    }

    fn name(&self, (side, partition): Part) -> (String, i32) {
        (self.topics[side as usize].clone(), partition as i32)
    }

    /// Takes up what happened to the partitions, in its order. Those that are new begin with `settle`.
    fn rebalanced(&mut self) {
        for change in self.rebalances.take() {
            match change {
                Change::Revoked(partitions) => {
                    for (topic, partition) in &partitions {
                        if let Some(part) = self.part(topic, *partition) {
                            self.parts.remove(&part);
                            self.gaps.remove(&part);
                        }
                    }
                    if let Err(error) = self.output.abort() {
                        self.failed.get_or_insert(error);
                    }
                    self.begin_anew();
                }
                Change::Assigned(partitions) => {
                    self.assigned = true;
                    self.doubt();
                    for (topic, partition) in &partitions {
                        if let Some(part) = self.part(topic, *partition) {
                            self.parts.insert(part, Held::default());
                            self.stale.insert(part);
                        }
                    }
                }
            }
        }
    }

    /// Takes note of what is gone in partitions that were assigned.
    fn look_for_gaps(&mut self) {
        let now = (self.correlate.clock)();
        for gap in self.reader.gaps() {
            if let Some(part) = self.part(&gap.topic, gap.partition) {
                self.gaps.insert(part, (gap, now));
            }
        }
    }

    /// Partitions begin, where was committed, or behind what is gone.
    fn begin(&mut self, parts: &[Part], names: &[(String, i32)]) -> KafkaResult<()> {
        let now = (self.correlate.clock)();
        for (part, committed) in parts.iter().zip(self.reader.committed(names)?) {
            let mut position = committed.as_ref().map(position);
            let gap = self.gaps.get(part);
            if let Some((gap, found)) = gap {
                let another = gap.gap.cause != Cause::Retention;
                position = Some(position.unwrap_or_default().gone(gap.at, another, *found));
            }
            let told = gap.is_none();
            let held = self.parts.entry(*part).or_default();
            held.committed = position.clone().filter(|_| told);
            held.from = position.as_ref().map(|position| position.offset);
            held.begun = position.unwrap_or_default();
            held.next = held.begun.offset;
            self.join.assign(part.0, part.1, held.begun.clone(), now);
        }
        Ok(())
    }

    /// Partitions that are new, or to be read again, begin; where something was read of them already, that goes back.
    pub fn settle(&mut self) -> KafkaResult<()> {
        self.rebalanced();
        self.look_for_gaps();
        if let Some(error) = self.failed.take().or_else(|| self.output.failed()) {
            return Err(error);
        }
        if self.stale.is_empty() {
            return Ok(());
        }
        let parts: Vec<Part> = self.stale.iter().copied().collect();
        let names: Vec<(String, i32)> = parts.iter().map(|part| self.name(*part)).collect();
        self.begin(&parts, &names)?;
        let back = |(part, (topic, partition)): (&Part, &'_ (String, i32))| {
            let held = &self.parts[part];
            let first = held.first?;
            Some((topic.clone(), *partition, held.from.unwrap_or(first)))
        };
        let places: Vec<_> = parts.iter().zip(&names).filter_map(back).collect();
        let places: Vec<(&str, i32, i64)> =
            places.iter().map(|(topic, partition, at)| (topic.as_str(), *partition, *at)).collect();
        self.reader.seek(&places)?;
        self.stale.clear();
        Ok(())
    }

    /// More waits for its request than there is room for.
    pub fn is_full(&self) -> bool {
        self.output.waiting > self.correlate.section.memory.0 / 2
    }

    /// Bytes of the open transaction.
    pub fn written(&self) -> usize {
        self.output.bytes
    }

    pub fn take(&mut self, message: &Message<'_>) {
        self.rebalanced();
        let Some(part) = self.part(message.topic, message.partition) else { return };
        let Some(held) = self.parts.get_mut(&part) else { return };
        held.first.get_or_insert(message.offset);
        // It is read again.
        if self.failed.is_some() || self.stale.contains(&part) {
            return;
        }
        held.next = message.offset + 1;
        let place = Place { partition: part.1, offset: message.offset };
        let known = message.offset < held.begun.next;
        let given_out = held.begun.given_out(message.offset);
        let (output, now) = (&mut self.output, (self.correlate.clock)());
        let came = Came { now, written: message.headers.written().unwrap_or(now).min(now) };
        if let Some(missing) = Missing::of_record(message.payload) {
            return self.join.missing(part.0, place, missing, came);
        }
        match part.0 {
            Side::Decisions => match Record::parse(message.payload) {
                Ok(record) => {
                    let waiting = match given_out {
                        true => Waiting::default(),
                        false => Waiting::new(message, place),
                    };
                    output.waiting += waiting.bytes.len();
                    let asked = self.documents.asked(&record);
                    self.join.decision(place, asked, waiting, came, &mut |out| {
                        output.take(out);
                    });
                }
                Err(error) => {
                    self.join.lost(Side::Decisions, place, came);
                    if !known {
                        let reject = Reject::new(Reason::BadDocketRecord, error.to_string());
                        output.reject(message.topic, place, message.payload, &reject);
                    }
                }
            },
            Side::Facts => {
                let is_one =
                    self.join.fact(place, message.payload, came, &mut |out| output.take(out));
                if !is_one {
                    self.join.lost(Side::Facts, place, came);
                }
                if !is_one && !known {
                    let reject = Reject::new(Reason::BadFact, "not as docket writes facts");
                    output.reject(message.topic, place, message.payload, &reject);
                }
            }
        }
    }

    /// Time passes.
    pub fn tick(&mut self) {
        let now = (self.correlate.clock)();
        for side in [Side::Decisions, Side::Facts] {
            if let Some(at) = self.is_whole(side) {
                let through = at.saturating_sub(nanos(self.correlate.section.delay.0));
                self.join.complete(side, through);
                self.correlate.counts.complete(side, through);
            }
        }
        let output = &mut self.output;
        self.join.tick(now, &mut |out| output.take(out));
    }

    /// Up to when all that came to a side's source topics has been read here, if that is known.
    fn is_whole(&mut self, side: Side) -> Option<Nanos> {
        let settled = self.began.saturating_add(SETTLED);
        let claim = self.claims[side as usize].take();
        let clear =
            claim.or_else(|| self.correlate.evidence.of(side)).filter(|c| c.at >= settled)?;
        // One whose other half is elsewhere for now lacks what that has.
        let has = |part: Part| self.parts.contains_key(&part);
        let both = |p: u32| has((Side::Decisions, p)) && has((Side::Facts, p));
        if !self.parts.keys().all(|(_, partition)| both(*partition)) {
            return None;
        }
        let mine = self.parts.iter().filter(|((s, _), _)| *s == side);
        let read = |((_, partition), held): (&Part, &Held)| {
            let (topic, partition) = (&self.topics[side as usize], *partition as i32);
            let end = clear.ends.get(&partition).copied().unwrap_or(i64::MAX);
            let through = self.reader.read_through(topic, partition).unwrap_or_default();
            held.next.max(through) >= end
        };
        if mine.into_iter().all(read) {
            return Some(clear.at);
        }
        self.claims[side as usize] = Some(clear);
        None
    }

    /// Commits what was written, and where to go on, if there is anything new.
    pub fn commit(&mut self) -> KafkaResult<()> {
        let mut offsets = Vec::new();
        for (part, held) in &self.parts {
            let position = self.join.position(part.0, part.1);
            // Nothing was ever read of it.
            let untouched =
                held.committed.is_none() && held.first.is_none() && !self.gaps.contains_key(part);
            if !untouched && held.committed.as_ref() != Some(&position) {
                offsets.push((*part, position));
            }
        }
        for (gap, found) in self.gaps.values() {
            self.output.tell(gap, *found);
        }
        if let Some(error) = self.output.failed() {
            return Err(error);
        }
        if !self.output.begun && (offsets.is_empty() || self.committed.elapsed() < REST) {
            self.count();
            return Ok(());
        }
        let member = self.reader.membership().ok_or(KafkaError::Canceled)?;
        let list: Vec<(&str, i32, Committed)> = offsets
            .iter()
            .map(|((side, partition), position)| {
                let committed =
                    Committed { offset: position.offset, metadata: position.metadata() };
                (self.topics[*side as usize].as_str(), *partition as i32, committed)
            })
            .collect();
        self.output.commit(&list, &member)?;
        self.gaps.clear();
        for (part, position) in offsets {
            if let Some(held) = self.parts.get_mut(&part) {
                held.from = Some(position.offset);
                held.committed = Some(position);
            }
        }
        self.committed = Instant::now();
        self.count();
        Ok(())
    }

    fn count(&mut self) {
        let counts = self.join.counts().clone();
        self.correlate.counts.count(&self.counted, &counts);
        self.counted = counts;
        let (bytes, entries) = self.join.size();
        self.correlate.counts.size(bytes, entries, self.output.waiting);
        self.holds.set(bytes + self.output.waiting + self.output.bytes);
    }

    /// Undoes what was written, and reads again. Whether it was for records that Kafka refuses.
    pub fn abort(&mut self, error: &KafkaError) -> KafkaResult<bool> {
        if matches!(error, KafkaError::Transaction(e) if e.is_fatal()) {
            return Err(error.clone());
        }
        let refused = self.output.abort()?;
        if !refused && !matches!(error, KafkaError::Canceled) {
            tracing::warn!(part = PART, %error, "a transaction was aborted; what it was made of is read again");
        }
        self.failed = None;
        self.begin_anew();
        Ok(refused)
    }

    /// Offsets, lag and health.
    pub fn report(&self) {
        let ready = self.reader.joined(self.assigned);
        let correlate = self.correlate;
        correlate.health.set(&format!("{}/{PART}", correlate.pipeline.name()), ready);
        let at = std::time::Instant::now();
        for (part, held) in &self.parts {
            let (topic, partition) = self.name(*part);
            let place = Assigned { part: PART.to_owned(), topic, partition };
            correlate.progress.finished(&place, Some(held.next), false, at);
            if !correlate.progress.has(&place) {
                continue;
            }
            // What is below is not read again.
            correlate.progress.stands(&place, held.from.unwrap_or(held.begun.offset));
            let labels = [PART, &place.topic, &partition.to_string()];
            correlate.meters.offset.with_label_values(&labels).set(held.next);
            if let Some(end) = self.reader.end(&place.topic, partition) {
                let read = self.reader.read_through(&place.topic, partition).unwrap_or(0);
                let lag = (end - held.next.max(read)).max(0);
                correlate.meters.lag.with_label_values(&labels).set(lag);
            }
        }
    }
}

/// Where a partition stands; one that something else committed has nothing before it.
fn position(committed: &Committed) -> Position {
    let Committed { offset, metadata } = committed;
    Position::parse(*offset, metadata).unwrap_or_else(|| Position {
        offset: *offset,
        judged: *offset,
        next: *offset,
        since: 0,
        open: Vec::new(),
    })
}
