//! What is in rejects: decisions that a sink refused, in portions, and how many records nobody made a decision of.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use serde::Serialize;

use super::place::number;
use super::scope::{Scope, VerifyError, Watch};
use super::source::Source;
use super::spill::{Portions, Reading, Spill, write_text};
use super::traced::Marks;
use crate::decision::json;
use crate::log::dead_letter::{Letter, without_receipts};
use crate::log::headers;
use crate::log::scan::ScanBound;
use crate::pipeline::Pipeline;

/// The part that refused a record, if it is of what is compared. Of the source that is by where the record stands, of others by when they
/// were refused.
fn refused_by(
    letter: &Letter,
    pipeline: &Pipeline,
    scope: &Scope,
    source: Option<&Source<'_>>,
) -> Option<&'static str> {
    if letter.sink().is_some() || letter.is_gap() {
        return None;
    }
    let part = ["door", "facts", "join"].into_iter().find(|part| letter.part() == *part);
    if let (None, Some(source)) = (part, source) {
        let of = |name| letter.header(name).parse::<i64>().ok();
        let topic = number(&pipeline.file, letter.header(headers::SOURCE_TOPIC))?;
        let partition = i32::try_from(of(headers::SOURCE_PARTITION)?).ok()?;
        let spot = (topic, partition, of(headers::SOURCE_OFFSET)?);
        return source.compares(spot).then_some("intake");
    }
    is_of_the_time(letter, scope).then_some(part.unwrap_or("intake"))
}

/// Whether a letter was written in the time that is looked at.
fn is_of_the_time(letter: &Letter, scope: &Scope) -> bool {
    let at = letter.written.saturating_mul(1_000_000);
    let late_enough = match scope.from {
        ScanBound::Start => true,
        ScanBound::At(from) => at >= from,
        ScanBound::End => false,
    };
    let early_enough = match scope.until {
        ScanBound::Start => false,
        ScanBound::At(until) => at < until,
        ScanBound::End => true,
    };
    late_enough && early_enough
}

/// What was gone from a log before a part had finished it: nobody can tell whether the part has it all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Gone {
    /// A sink, or intake.
    pub part: String,
    /// Which records, and why.
    pub what: String,
}

/// So many are kept.
const GONE: usize = 1000;

/// What stands in rejects.
pub struct Rejected {
    letters: Spill,
    /// Those that were sent round again since: where they stand.
    replayed: BTreeSet<(i32, i64)>,
    /// What no sink refused, by the part that did, and where it stands: of the source that is compared, or of the time.
    refused: BTreeMap<&'static str, Marks>,
    /// What was gone, in this time.
    pub gone: BTreeSet<Gone>,
}

impl Rejected {
    pub(super) fn read(
        pipeline: &Pipeline,
        scope: &Scope,
        (portions, source): (&Portions, Option<&Source<'_>>),
        watch: &dyn Watch,
    ) -> Result<Rejected, VerifyError> {
        let (from, until) = (ScanBound::Start, ScanBound::End);
        let past = pipeline.scan("verify", &pipeline.rejects_topic(), from, until)?;
        watch.begin("reading rejects", past.offsets());
        let mut rejected = Rejected {
            letters: Spill::new(portions),
            replayed: BTreeSet::new(),
            refused: BTreeMap::new(),
            gone: BTreeSet::new(),
        };
        let mut failed = Ok(());
        past.read(&mut |n| watch.step(n), &mut |message| {
            let (letters, receipts) = without_receipts(vec![Letter::read(message)]);
            rejected.replayed.extend(receipts);
            for letter in &letters {
                if let Err(error) = rejected.add(letter) {
                    failed = Err(error);
                }
                if letter.is_gap() && is_of_the_time(letter, scope) && rejected.gone.len() < GONE {
                    let (part, what) = (letter.part(), letter.header(headers::DETAIL));
                    rejected.gone.insert(Gone { part: part.to_owned(), what: what.to_owned() });
                }
                if let Some(part) = refused_by(letter, pipeline, scope, source) {
                    let marks = rejected.refused.entry(part).or_default();
                    marks.add((0, letter.partition, letter.offset));
                }
            }
            failed.is_ok()
        })?;
        watch.end();
        failed?;
        Ok(rejected)
    }

    fn add(&mut self, letter: &Letter) -> io::Result<()> {
        let Some(sink) = letter.sink() else { return Ok(()) };
        let text = String::from_utf8_lossy(&letter.value);
        let Some(id) = json::get(&text, "decision_id").and_then(json::as_str) else {
            return Ok(());
        };
        self.letters.add(&id, |out| {
            write_text(out, sink);
            write_text(out, &id);
            out.extend_from_slice(&letter.partition.to_le_bytes());
            out.extend_from_slice(&letter.offset.to_le_bytes());
        })
    }

    /// How many records no sink refused, by the part that did: intake, the door, facts or the join. What was sent round again is none.
    pub fn refused(&self) -> BTreeMap<&'static str, usize> {
        let left = self.refused.iter().map(|(part, marks)| {
            let again = self.replayed.iter().filter(|(p, offset)| marks.has((0, *p, *offset)));
            (*part, marks.count() - again.count())
        });
        left.filter(|(_, n)| *n > 0).collect()
    }

    /// The decisions of a portion that a sink refused.
    pub fn portion(&self, at: usize, of: &str) -> io::Result<BTreeSet<String>> {
        let bytes = self.letters.portion(at)?;
        let (mut ids, mut reading) = (BTreeSet::new(), Reading(&bytes));
        while !reading.is_empty() {
            let (sink, id) = (reading.text(), reading.text());
            let place = (i32::from_le_bytes(reading.bytes()), i64::from_le_bytes(reading.bytes()));
            if sink == of && !self.replayed.contains(&place) {
                ids.insert(id.to_owned());
            }
        }
        Ok(ids)
    }
}
