//! What the docket topic holds, in portions.

use std::collections::BTreeMap;
use std::io;

use rdkafka::message::Message;

use super::behind::finished;
use super::overview::{Counting, Overview};
use super::place::number;
use super::scope::{Checked, Scope, VerifyError, Watch, decision};
use super::spill::{Portions, Reading, Spill, write_text};
use crate::clock::now;
use crate::decision::record::Record;
use crate::decision::time::Nanos;
use crate::decision::verdict::Verdict;
use crate::log::headers;
use crate::log::scan::ScanBound;
use crate::pipeline::Pipeline;
use crate::pipeline::file::File;
use crate::sink::query::{Days, Decision, Hash, hash};

const VERDICTS: [Verdict; 5] =
    [Verdict::Allow, Verdict::Deny, Verdict::Undefined, Verdict::Error, Verdict::Finding];

/// What intake reads while it is behind may be so much older than what it has read.
const NEAR: Nanos = 120_000_000_000;

/// Days without decisions are asked for what only the sinks hold, if they are not too many.
const DAYS: Nanos = 31 * 24 * 3600 * 1_000_000_000;

/// What the docket topic holds.
pub struct Docket {
    portions: Portions,
    entries: Spill,
    /// The sinks, in the order of an entry's hashes.
    sinks: Vec<String>,
    counting: Counting,
    pub unreadable: usize,
    pub days: Vec<(Nanos, Nanos)>,
    /// When Kafka got the first and the last, in milliseconds.
    pub written: Option<(i64, i64)>,
    /// When the last was decided.
    newest: Option<Nanos>,
    pub sample: Vec<Decision>,
    /// What was decided between these times should all be there.
    pub others: Option<(Nanos, Nanos)>,
    /// The first offset that a record names of each partition of a source.
    pub origins: BTreeMap<(usize, i32), i64>,
    count: usize,
    repeated: usize,
    reused: usize,
}

/// What tells a decision that came twice from another under the same id.
pub fn original(record: &Record<'_>) -> u64 {
    hash(record.original().as_bytes()) as u64
}

/// A decision of the docket, for one sink.
pub struct Entry<'e> {
    pub id: &'e str,
    pub original: u64,
    pub at: Nanos,
    pub verdict: Verdict,
    pub due: Due,
}

fn verdict(reading: &mut Reading<'_>) -> Verdict {
    let [number] = reading.bytes();
    VERDICTS.get(usize::from(number)).copied().unwrap_or(Verdict::Finding)
}

/// What a sink should hold of a decision.
#[derive(Debug, Clone, Copy)]
pub struct Due {
    pub hash: Hash,
    /// It has finished the decision: it is there, or in rejects.
    pub finished: bool,
}

impl Due {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.hash.to_le_bytes());
        out.push(u8::from(self.finished));
    }

    fn read(reading: &mut Reading<'_>) -> Due {
        let hash = Hash::from_le_bytes(reading.bytes());
        let [finished] = reading.bytes();
        Due { hash, finished: finished == 1 }
    }
}

impl Docket {
    /// `source` is how many offsets of the source it is compared with, `behind` whether intake has yet to read some.
    pub(super) fn read(
        pipeline: &Pipeline,
        scope: &Scope,
        sinks: &mut [Checked<'_>],
        (source, behind): (u64, bool),
        watch: &dyn Watch,
    ) -> Result<Docket, VerifyError> {
        let (begun, topic) = (now(), pipeline.docket_topic());
        let past = pipeline.scan("verify", &topic, scope.from, scope.until)?;
        let first = pipeline.scan("verify", &topic, ScanBound::Start, ScanBound::Start)?;
        // Retention took what was before.
        let cut =
            past.ranges().iter().zip(first.ranges()).any(|(a, b)| b.from > 0 && a.from == b.from);
        // Before the sinks are asked, so that what they have finished is there.
        let to: Vec<Option<BTreeMap<i32, i64>>> = sinks
            .iter()
            .map(|sink| finished(pipeline, sink.name, sink.config.delivery(), &past))
            .collect();
        let names = sinks.iter().map(|s| s.name.to_owned());
        let mut docket = Docket::new(past.offsets().max(source), names);
        let mut days = Days::default();
        let mut failed = Ok(());
        watch.begin("reading the docket", past.offsets());
        past.read(&mut |n| watch.step(n), &mut |message| {
            let Ok(record) = Record::parse(message.payload().unwrap_or_default()) else {
                docket.unreadable += 1;
                return true;
            };
            let (partition, offset) = (message.partition(), message.offset());
            let due = |(sink, to): (&mut Checked<'_>, &Option<BTreeMap<i32, i64>>)| Due {
                hash: sink.want(&record),
                finished: to
                    .as_ref()
                    .is_none_or(|to| to.get(&partition).is_some_and(|next| offset < *next)),
            };
            let due: Vec<Due> = sinks.iter_mut().zip(&to).map(due).collect();
            days.add(record.timestamp);
            docket.came_from(&pipeline.file, message);
            failed = docket.add(&record, decision(&record, message), &due, scope.sample);
            failed.is_ok()
        })?;
        watch.end();
        failed?;
        docket.look()?;
        let known = docket.written.map_or(begun, |(first, _)| (first + 1) * 1_000_000);
        let from = match scope.from {
            _ if cut => known,
            ScanBound::At(time) => time,
            ScanBound::Start => 0,
            ScanBound::End => begun,
        };
        let until = match scope.until {
            ScanBound::At(time) => time.min(begun),
            _ => begun,
        };
        // What intake reads meanwhile is about as old as what it has read last.
        let until = match docket.newest.filter(|_| behind) {
            Some(newest) => until.min(newest.saturating_sub(NEAR)),
            None => until,
        };
        docket.others = Some((from, until)).filter(|(from, until)| from < until);
        if let Some((from, until)) = docket.others.filter(|(from, until)| until - from < DAYS) {
            (from..until).step_by(DAYS as usize / 31).for_each(|at| days.whole(at, from, until));
            days.whole(until - 1, from, until);
        }
        docket.days = days.stretches();
        Ok(docket)
    }

    pub fn new(records: u64, sinks: impl Iterator<Item = String>) -> Docket {
        let portions = Portions::of(records);
        Docket {
            entries: Spill::new(&portions),
            portions,
            sinks: sinks.collect(),
            counting: Counting::default(),
            unreadable: 0,
            days: Vec::new(),
            written: None,
            newest: None,
            sample: Vec::new(),
            others: None,
            origins: BTreeMap::new(),
            count: 0,
            repeated: 0,
            reused: 0,
        }
    }

    /// Takes note of where a record came from.
    fn came_from(&mut self, file: &File, message: &impl Message) {
        let place = headers::text(message, headers::SOURCE).and_then(headers::place);
        let Some(origin) = place else { return };
        let Some(topic) = number(file, origin.topic) else { return };
        let first = self.origins.entry((topic, origin.partition)).or_insert(origin.offset);
        *first = (*first).min(origin.offset);
    }

    pub fn add(
        &mut self,
        record: &Record<'_>,
        decision: Decision,
        due: &[Due],
        sample: usize,
    ) -> io::Result<()> {
        let original = original(record);
        self.entries.add(&decision.id, |out| {
            write_text(out, &decision.id);
            out.extend_from_slice(&original.to_le_bytes());
            out.extend_from_slice(&decision.timestamp.to_le_bytes());
            let verdict = VERDICTS.iter().position(|v| *v == decision.verdict).unwrap_or(0);
            out.push(verdict as u8);
            due.iter().for_each(|due| due.write(out));
        })?;
        self.newest = self.newest.max(Some(decision.timestamp));
        let at = decision.kafka;
        self.written = Some(self.written.map_or((at, at), |(a, b)| (a.min(at), b.max(at))));
        self.counting.add(&decision);
        self.count += 1;
        // Each has the same chance.
        if self.sample.len() < sample {
            self.sample.push(decision);
        } else if let Some(kept) = self.sample.get_mut(rand::random_range(0..self.count)) {
            *kept = decision;
        }
        Ok(())
    }

    /// Looks through all portions: what stands there more than once.
    pub fn look(&mut self) -> io::Result<()> {
        for at in 0..self.portions.count() {
            let bytes = self.portion(at)?;
            let mut all: Vec<(&str, u64)> = Vec::new();
            let mut reading = Reading(&bytes);
            while !reading.is_empty() {
                let (id, original, _, verdict) = self.one(&mut reading);
                if verdict != Verdict::Finding {
                    all.push((id, original));
                }
            }
            all.sort_unstable();
            for same in all.chunk_by(|a, b| a.0 == b.0) {
                let originals = same.chunk_by(|a, b| a.1 == b.1).count();
                self.repeated += same.len() - originals;
                self.reused += usize::from(originals > 1);
            }
        }
        Ok(())
    }

    /// An entry up to its hashes, which are passed over.
    fn one<'e>(&self, reading: &mut Reading<'e>) -> (&'e str, u64, Nanos, Verdict) {
        let id = reading.text();
        let original = u64::from_le_bytes(reading.bytes());
        let at = Nanos::from_le_bytes(reading.bytes());
        let verdict = verdict(reading);
        for _ in &self.sinks {
            Due::read(reading);
        }
        (id, original, at, verdict)
    }

    pub fn portions(&self) -> &Portions {
        &self.portions
    }

    pub fn portion(&self, at: usize) -> io::Result<Vec<u8>> {
        self.entries.portion(at)
    }

    /// The entries of a portion, with the hash of what this sink should hold.
    pub fn entries<'e>(&self, portion: &'e [u8], sink: &str) -> impl Iterator<Item = Entry<'e>> {
        let number = self.sinks.iter().position(|name| name == sink).unwrap_or(0);
        let (mut reading, sinks) = (Reading(portion), self.sinks.len());
        std::iter::from_fn(move || {
            if reading.is_empty() {
                return None;
            }
            let id = reading.text();
            let original = u64::from_le_bytes(reading.bytes());
            let at = Nanos::from_le_bytes(reading.bytes());
            let verdict = verdict(&mut reading);
            let mut its = Due { hash: 0, finished: true };
            for i in 0..sinks {
                let due = Due::read(&mut reading);
                if i == number {
                    its = due;
                }
            }
            Some(Entry { id, original, at, verdict, due: its })
        })
    }

    /// Id and original of each entry of a portion.
    pub fn originals<'e>(&self, portion: &'e [u8]) -> Vec<(&'e str, u64)> {
        let (mut all, mut reading) = (Vec::new(), Reading(portion));
        while !reading.is_empty() {
            let (id, original, ..) = self.one(&mut reading);
            all.push((id, original));
        }
        all
    }

    /// The ids of a portion, each once; nothing after the last portion.
    pub fn ids(&self, at: usize) -> io::Result<Option<Vec<String>>> {
        if at >= self.portions.count() {
            return Ok(None);
        }
        let bytes = self.portion(at)?;
        let (mut ids, mut reading) = (Vec::new(), Reading(&bytes));
        while !reading.is_empty() {
            ids.push(self.one(&mut reading).0);
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(Some(ids.into_iter().map(str::to_owned).collect()))
    }

    /// How many records it has.
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn told(self) -> Overview {
        let mut told = self.counting.told();
        (told.repeated, told.reused_ids) = (self.repeated, self.reused);
        told
    }
}
