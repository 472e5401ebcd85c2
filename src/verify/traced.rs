//! What became of source records whose decisions are not in the docket as today's rules make them: looked for by their place, which docket
//! records and rejects name. Only what left no trace at all, and would have, is lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;

use rdkafka::message::Message;
use serde::Serialize;

use super::Ids;
use super::docket::original;
use super::place::{Decided, Spot, id_hash, mark, number, read_spot, write_spot};
use super::scope::{VerifyError, Watch};
use super::spill::{Portions, Reading, Spill};
use crate::clock::now;
use crate::decision::json;
use crate::decision::record::Record;
use crate::decision::reject::Reason;
use crate::log::config::Start;
use crate::log::headers;
use crate::log::scan::ScanBound;
use crate::pipeline::Pipeline;
use crate::sink::query::hash;

/// Offsets, one bit each.
#[derive(Default)]
pub(super) struct Marks(HashMap<(usize, i32, i64), Box<[u64; 64]>>);

impl Marks {
    fn place((topic, partition, offset): Spot) -> ((usize, i32, i64), usize, u64) {
        let bit = offset.rem_euclid(4096) as usize;
        ((topic, partition, offset.div_euclid(4096)), bit / 64, 1 << (bit % 64))
    }

    pub(super) fn add(&mut self, spot: Spot) {
        let (block, word, bit) = Marks::place(spot);
        self.0.entry(block).or_insert_with(|| Box::new([0; 64]))[word] |= bit;
    }

    pub(super) fn has(&self, spot: Spot) -> bool {
        let (block, word, bit) = Marks::place(spot);
        self.0.get(&block).is_some_and(|block| block[word] & bit != 0)
    }

    pub(super) fn count(&self) -> usize {
        let words = self.0.values().flat_map(|block| block.iter());
        words.map(|word| word.count_ones() as usize).sum()
    }
}

/// Ids, one bit each: of few that were not added it says that they may have been.
#[derive(Default)]
pub(super) struct Sieve(Option<Box<[u64]>>);

impl Sieve {
    const WORDS: usize = 1 << 20;

    fn place(id: &str) -> (usize, u64) {
        let hash = hash(id.as_bytes()) as usize;
        (hash / 64 % Sieve::WORDS, 1 << (hash % 64))
    }

    pub(super) fn add(&mut self, id: &str) {
        let (word, bit) = Sieve::place(id);
        let words = self.0.get_or_insert_with(|| vec![0; Sieve::WORDS].into());
        words[word] |= bit;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn has(&self, id: &str) -> bool {
        let (word, bit) = Sieve::place(id);
        self.0.as_ref().is_some_and(|words| words[word] & bit != 0)
    }
}

fn key((topic, partition, offset): Spot) -> String {
    format!("{topic}/{partition}/{offset}")
}

/// Decisions of the source that the docket does not have as they should be.
pub struct Candidates {
    entries: Spill,
    portions: Portions,
    places: Marks,
    pub count: usize,
}

impl Candidates {
    pub fn new(portions: &Portions) -> Candidates {
        Candidates {
            entries: Spill::new(portions),
            portions: portions.clone(),
            places: Marks::default(),
            count: 0,
        }
    }

    pub fn add(&mut self, decided: &Decided<'_>) -> io::Result<()> {
        self.count += 1;
        self.places.add(decided.spot);
        self.entries.add(&key(decided.spot), |out| decided.write(out))
    }

    /// What became of each, by the traces that there are.
    pub fn judge(&self, traces: &Traces, pipeline: &Pipeline) -> io::Result<Judged> {
        let mut judged = Judged::default();
        for at in 0..self.portions.count() {
            let (bytes, found) = (self.entries.portion(at)?, traces.portion(at)?);
            let mut reading = Reading(&bytes);
            let mut by_spot: BTreeMap<Spot, Vec<Decided<'_>>> = BTreeMap::new();
            while !reading.is_empty() {
                let decided = Decided::read(&mut reading);
                by_spot.entry(decided.spot).or_default().push(decided);
            }
            for (spot, left) in by_spot {
                let found = found.get(&spot).map_or(&[][..], Vec::as_slice);
                let agrees = agrees(&left, found);
                let mut refused = BTreeSet::new();
                for decided in left {
                    let became = traces.became(&decided, found, agrees);
                    judged.add(&decided, became, pipeline);
                    refused.extend((became == Became::Rejected).then_some(decided.element));
                }
                judged.letters += letters_of(&refused, found);
            }
        }
        Ok(judged)
    }
}

/// How many of a record's rejects are of decisions that count as rejected.
fn letters_of(refused: &BTreeSet<usize>, found: &[Trace]) -> usize {
    let whole = found.iter().all(|trace| trace.kind == Kind::Reject) && !refused.is_empty();
    let rejects = found.iter().filter(|trace| trace.kind == Kind::Reject);
    rejects.filter(|trace| whole || refused.contains(&trace.element)).count()
}

/// Whether what came of a record is what today's rules make of it, but for what is missing: then nothing else explains that.
fn agrees(left: &[Decided<'_>], found: &[Trace]) -> bool {
    let there: BTreeSet<(usize, u64)> = found
        .iter()
        .filter(|trace| trace.kind != Kind::Reject)
        .map(|t| (t.element, t.id))
        .collect();
    let missing = left.iter().filter(|one| !there.contains(&(one.element, id_hash(one.id))));
    let marks =
        there.iter().map(|(element, id)| mark(*element, *id)).chain(missing.map(Decided::mark));
    let all = marks.fold(0, u64::wrapping_add);
    left.first().is_some_and(|one| one.record == all)
}

/// What became of a decision that the docket does not have as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Became {
    /// It is in the docket as it should be, and came there at another time than was asked for.
    Elsewhen,
    /// It is in the docket, as other rules made it.
    Other,
    Rejected,
    /// It waits to be joined.
    Waits,
    /// Its record became something, and not this.
    Differs,
    /// It came in parts.
    Joined,
    /// It may have been there: retention took what would tell.
    Untold,
    /// Intake had not started.
    Before,
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Docket,
    Pending,
    Reject,
}

#[derive(Debug, Clone, Copy)]
struct Trace {
    element: usize,
    kind: Kind,
    /// Of a decision: of its id, and of its original.
    id: u64,
    original: u64,
}

/// What the docket and rejects name of the places of candidates.
pub struct Traces {
    entries: Spill,
    /// Ids of decisions in the docket that do not say where they came from.
    placeless: Sieve,
    /// From these offsets on what intake wrote is all there still.
    whole: BTreeMap<(usize, i32), i64>,
    /// Before them it may not be, and why.
    bounded: Option<Became>,
}

/// Clocks of intakes agree as far as this, and what is written late is.
const MARGIN_MS: i64 = 15 * 60_000;

impl Traces {
    fn new(portions: &Portions) -> Traces {
        Traces {
            entries: Spill::new(portions),
            placeless: Sieve::default(),
            whole: BTreeMap::new(),
            bounded: None,
        }
    }

    /// Reads the docket and rejects for them: all of it, or what was written from some time on.
    pub(super) fn read(
        pipeline: &Pipeline,
        candidates: &Candidates,
        from: ScanBound,
        watch: &dyn Watch,
    ) -> Result<Traces, VerifyError> {
        let mut traces = Traces::new(&candidates.portions);
        let decided = pipeline.decided_topic();
        let known = known_since(pipeline, &[&decided, &pipeline.rejects_topic()])?;
        traces.bounded = match (known, pipeline.file.intake.start) {
            (Some(_), _) => Some(Became::Untold),
            (None, Start::Latest) => Some(Became::Before),
            (None, Start::Earliest) => None,
        };
        let since = known.unwrap_or(i64::MIN);
        traces.decisions(pipeline, candidates, &decided, (from, since), watch)?;
        let docket = pipeline.docket_topic();
        if docket != decided {
            // What is joined is in no order of the source.
            traces.decisions(pipeline, candidates, &docket, (from, i64::MAX), watch)?;
        }
        traces.rejects(pipeline, candidates, since, watch)?;
        Ok(traces)
    }

    fn decisions(
        &mut self,
        pipeline: &Pipeline,
        candidates: &Candidates,
        topic: &str,
        (from, since): (ScanBound, i64),
        watch: &dyn Watch,
    ) -> Result<(), VerifyError> {
        let kind = if topic == pipeline.docket_topic() { Kind::Docket } else { Kind::Pending };
        let past = pipeline.scan("verify", topic, from, ScanBound::End)?;
        watch.begin("looking for what seems to be lost", past.offsets());
        let mut failed = Ok(());
        past.read(&mut |n| watch.step(n), &mut |message| {
            let id = || {
                let text = std::str::from_utf8(message.payload().unwrap_or_default()).ok()?;
                json::get(text, "decision_id").and_then(json::as_str)
            };
            let Some(place) = headers::text(message, headers::SOURCE).and_then(headers::place)
            else {
                id().iter().for_each(|id| self.placeless.add(id));
                return true;
            };
            let Some(topic) = number(&pipeline.file, place.topic) else { return true };
            let spot = (topic, place.partition, place.offset);
            if message.timestamp().to_millis().is_some_and(|at| at >= since) {
                self.whole_from(spot);
            }
            if candidates.places.has(spot) {
                let id = id_hash(&id().unwrap_or_default());
                let record = Record::parse(message.payload().unwrap_or_default());
                let original = record.map_or(0, |record| original(&record));
                failed = self.add(spot, Trace { element: place.element, kind, id, original });
            }
            failed.is_ok()
        })?;
        watch.end();
        Ok(failed?)
    }

    fn rejects(
        &mut self,
        pipeline: &Pipeline,
        candidates: &Candidates,
        since: i64,
        watch: &dyn Watch,
    ) -> Result<(), VerifyError> {
        let (topic, all) = (pipeline.rejects_topic(), (ScanBound::Start, ScanBound::End));
        let past = pipeline.scan("verify", &topic, all.0, all.1)?;
        watch.begin("looking in rejects", past.offsets());
        let mut failed = Ok(());
        past.read(&mut |n| watch.step(n), &mut |message| {
            let Some((spot, element)) = refused(pipeline, message) else { return true };
            if message.timestamp().to_millis().is_some_and(|at| at >= since) {
                self.whole_from(spot);
            }
            if candidates.places.has(spot) {
                failed = self.add(spot, Trace { element, kind: Kind::Reject, id: 0, original: 0 });
            }
            failed.is_ok()
        })?;
        watch.end();
        Ok(failed?)
    }

    /// What intake wrote of a record is there.
    fn whole_from(&mut self, (topic, partition, offset): Spot) {
        let from = self.whole.entry((topic, partition)).or_insert(offset);
        *from = (*from).min(offset);
    }

    fn add(&mut self, spot: Spot, trace: Trace) -> io::Result<()> {
        let key = key(spot);
        self.entries.add(&key, |out| {
            write_spot(out, spot);
            out.extend_from_slice(&(trace.element as u32).to_le_bytes());
            out.push(trace.kind as u8);
            out.extend_from_slice(&trace.id.to_le_bytes());
            out.extend_from_slice(&trace.original.to_le_bytes());
        })
    }

    fn portion(&self, at: usize) -> io::Result<HashMap<Spot, Vec<Trace>>> {
        let bytes = self.entries.portion(at)?;
        let (mut all, mut reading) = (HashMap::new(), Reading(&bytes));
        while !reading.is_empty() {
            let spot = read_spot(&mut reading);
            let element = u32::from_le_bytes(reading.bytes()) as usize;
            let kind = match reading.bytes() {
                [0] => Kind::Docket,
                [1] => Kind::Pending,
                _ => Kind::Reject,
            };
            let id = u64::from_le_bytes(reading.bytes());
            let original = u64::from_le_bytes(reading.bytes());
            all.entry(spot).or_insert_with(Vec::new).push(Trace { element, kind, id, original });
        }
        Ok(all)
    }

    /// `agrees` says that the others of its record are there as today's rules make them.
    fn became(&self, decided: &Decided<'_>, found: &[Trace], agrees: bool) -> Became {
        let id = id_hash(decided.id);
        let is = |kind| move |trace: &&Trace| trace.kind == kind;
        let of_it = |kind| found.iter().filter(is(kind)).any(|trace| trace.id == id);
        let decisions = found.iter().any(|trace| trace.kind != Kind::Reject);
        let mut rejects = found.iter().filter(is(Kind::Reject));
        // Where no decision was made of a record, its reject is of all of it.
        let rejected = rejects.any(|trace| !decisions || trace.element == decided.element);
        let mut docket = found.iter().filter(is(Kind::Docket));
        if docket.any(|trace| (trace.id, trace.original) == (id, decided.original)) {
            return Became::Elsewhen;
        }
        if of_it(Kind::Docket) || self.placeless.has(decided.id) {
            return Became::Other;
        }
        if of_it(Kind::Pending) {
            return Became::Waits;
        }
        if rejected {
            return Became::Rejected;
        }
        let explained = !agrees || !decisions;
        if !found.is_empty() && explained {
            return Became::Differs;
        }
        if decided.joined {
            return Became::Joined;
        }
        let (topic, partition, offset) = decided.spot;
        let whole = self.whole.get(&(topic, partition)).is_some_and(|from| offset >= *from);
        self.bounded.filter(|_| !whole).unwrap_or(Became::Lost)
    }
}

/// The source record, and the piece of it, that a reject of intake is of.
fn refused(pipeline: &Pipeline, message: &impl Message) -> Option<(Spot, usize)> {
    let text = |name| headers::text(message, name);
    if text(headers::REASON) == Some(Reason::LogGap.as_str()) || text(headers::SINK).is_some() {
        return None;
    }
    let topic = number(&pipeline.file, text(headers::SOURCE_TOPIC)?)?;
    let partition = text(headers::SOURCE_PARTITION)?.parse().ok()?;
    let offset = text(headers::SOURCE_OFFSET)?.parse().ok()?;
    let element = text(headers::SOURCE_ELEMENT)?.parse().ok()?;
    Some(((topic, partition, offset), element))
}

/// Since when all that was written to topics is there still, in milliseconds; nothing if retention took nothing.
fn known_since(pipeline: &Pipeline, topics: &[&str]) -> Result<Option<i64>, VerifyError> {
    let mut since = None;
    for topic in topics {
        let mut past = pipeline.scan("verify", topic, ScanBound::Start, ScanBound::End)?;
        let cut: BTreeSet<i32> =
            past.ranges().iter().filter(|r| r.from > 0).map(|r| r.partition).collect();
        if cut.is_empty() {
            continue;
        }
        past.narrow(|range| match cut.contains(&range.partition) {
            true => *range,
            false => crate::log::scan::OffsetRange { to: range.from, ..*range },
        });
        let mut oldest: BTreeMap<i32, i64> = BTreeMap::new();
        past.read(&mut |_| {}, &mut |message| {
            let at = message.timestamp().to_millis().unwrap_or(i64::MAX);
            oldest.entry(message.partition()).or_insert(at);
            oldest.len() < cut.len()
        })?;
        let of = |partition| oldest.get(partition).copied().unwrap_or(now() / 1_000_000);
        since = since.max(cut.iter().map(of).max());
    }
    Ok(since.map(|at: i64| at.saturating_add(MARGIN_MS)))
}

/// A decision that intake lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lost {
    pub decision_id: String,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Which decision of the record, from 0.
    pub element: usize,
}

/// What became of candidates.
#[derive(Debug, Default)]
pub struct Judged {
    pub counts: BTreeMap<Became, usize>,
    pub missing: Ids,
    pub lost: Vec<Lost>,
    /// How many rejects those that were rejected stand in.
    pub letters: usize,
}

impl Judged {
    fn add(&mut self, decided: &Decided<'_>, became: Became, pipeline: &Pipeline) {
        *self.counts.entry(became).or_default() += 1;
        if became != Became::Lost {
            return;
        }
        let listed = self.missing.listed.len();
        self.missing.push(decided.id);
        if self.missing.listed.len() > listed {
            let (topic, partition, offset) = decided.spot;
            let source = pipeline.file.sources.get(topic);
            self.lost.push(Lost {
                decision_id: decided.id.to_owned(),
                topic: source.map(|source| source.topic.clone()).unwrap_or_default(),
                partition,
                offset,
                element: decided.element,
            });
        }
    }

    pub fn of(&self, became: Became) -> usize {
        self.counts.get(&became).copied().unwrap_or(0)
    }

    /// Whether more may be found of them elsewhere.
    pub fn untraced(&self) -> usize {
        [Became::Lost, Became::Untold, Became::Before, Became::Joined, Became::Waits]
            .map(|became| self.of(became))
            .iter()
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPOT: Spot = (0, 1, 7);

    fn decided(id: &str) -> Decided<'_> {
        Decided { spot: SPOT, element: 2, id, original: 1, record: 0, joined: false }
    }

    fn trace(element: usize, kind: Kind, id: &str) -> Trace {
        Trace { element, kind, id: id_hash(id), original: 0 }
    }

    #[test]
    fn only_what_left_no_trace_is_lost() {
        let traces = Traces::new(&Portions::of(1));
        let became = |found: &[Trace]| traces.became(&decided("a"), found, false);
        assert_eq!(traces.became(&decided("a"), &[], false), Became::Lost);
        assert_eq!(became(&[trace(0, Kind::Docket, "a")]), Became::Other);
        let as_it_is = Trace { original: 1, ..trace(0, Kind::Docket, "a") };
        assert_eq!(became(&[as_it_is]), Became::Elsewhen, "of another time");
        assert_eq!(became(&[trace(2, Kind::Docket, "b")]), Became::Differs);
        assert_eq!(became(&[trace(0, Kind::Reject, "")]), Became::Rejected, "the whole");
        let beside = trace(0, Kind::Docket, "b");
        assert_eq!(became(&[beside, trace(2, Kind::Reject, "")]), Became::Rejected);
        assert_eq!(became(&[beside, trace(1, Kind::Reject, "")]), Became::Differs);
        assert_eq!(became(&[trace(2, Kind::Pending, "a")]), Became::Waits);
        let joined = Decided { joined: true, ..decided("a") };
        assert_eq!(traces.became(&joined, &[], false), Became::Joined);
    }

    #[test]
    fn one_of_several_of_a_record_is_lost_where_the_others_are_as_they_should_be() {
        let traces = Traces::new(&Portions::of(1));
        let record = [(0, "x"), (1, "y"), (2, "a")]
            .map(|(element, id)| mark(element, id_hash(id)))
            .into_iter()
            .fold(0, u64::wrapping_add);
        let left = [Decided { record, ..decided("a") }];
        let became = |found: &[Trace]| traces.became(&left[0], found, agrees(&left, found));
        let (x, y) = (trace(0, Kind::Docket, "x"), trace(1, Kind::Docket, "y"));
        assert_eq!(became(&[x, y]), Became::Lost);
        assert_eq!(became(&[x, x, y]), Became::Lost, "twice, after a crash");
        // Other rules made other decisions of it, or numbered them in another way.
        assert_eq!(became(&[x]), Became::Differs);
        assert_eq!(became(&[x, trace(2, Kind::Docket, "y")]), Became::Differs);
        assert_eq!(became(&[x, y, trace(3, Kind::Docket, "z")]), Became::Differs);
        assert_eq!(became(&[x, y, trace(2, Kind::Reject, "")]), Became::Rejected);
    }

    #[test]
    fn what_retention_may_have_taken_is_not_lost_and_neither_is_what_says_no_place() {
        let mut traces = Traces::new(&Portions::of(1));
        traces.bounded = Some(Became::Untold);
        assert_eq!(traces.became(&decided("a"), &[], false), Became::Untold);
        traces.whole_from((0, 1, 8));
        assert_eq!(traces.became(&decided("a"), &[], false), Became::Untold);
        traces.whole_from((0, 1, 5));
        traces.whole_from((0, 1, 6));
        assert_eq!(traces.became(&decided("a"), &[], false), Became::Lost);
        traces.placeless.add("a");
        assert_eq!(traces.became(&decided("a"), &[], false), Became::Other);
        assert_eq!(traces.became(&decided("b"), &[], false), Became::Lost);
    }

    #[test]
    fn traces_are_kept_by_place_and_marks_know_theirs() {
        let portions = Portions::of(1_000_000);
        let mut traces = Traces::new(&portions);
        let mut left = Candidates::new(&portions);
        for offset in [0, 63, 64, 4095, 4096, 1 << 40] {
            let spot = (1, 3, offset);
            left.add(&Decided { spot, ..decided("a") }).unwrap();
            traces.add(spot, trace(4, Kind::Pending, "a")).unwrap();
            assert!(left.places.has(spot) && !left.places.has((1, 3, offset + 1)), "{offset}");
            assert!(!left.places.has((0, 3, offset)) && !left.places.has((1, 2, offset)));
        }
        let mut seen = 0;
        for at in 0..portions.count() {
            for (spot, found) in traces.portion(at).unwrap() {
                assert!(left.places.has(spot));
                let [Trace { element: 4, kind: Kind::Pending, id, .. }] = found[..] else {
                    panic!()
                };
                assert_eq!(id, id_hash("a"));
                seen += 1;
            }
        }
        assert_eq!((seen, left.count), (6, 6));
    }
}
