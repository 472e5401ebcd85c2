//! Reads the docket topic and rejects, and the source; asks each sink, and compares.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::docket::{Docket, Entry};
use super::lost::SourceReport;
use super::only::OnlyThere;
use super::overview::Overview;
use super::rejected::{Gone, Rejected};
use super::report::Report;
use super::scope::{Checked, NotAsked, Scope, VerifyError, Watch, checked};
use super::source::Source;
use super::spill::{Reading, Spill, write_text};
use super::{Compared, Held, Wanted};
use crate::clock::now;
use crate::decision::time::{Nanos, nanos};
use crate::decision::verdict::Verdict;
use crate::pipeline::Pipeline;
use crate::sink::query::{Answer, Hash, Present, Question, SinkQuery};

/// The result.
pub struct Verified {
    pub about: Overview,
    /// How many records of the docket topic are none.
    pub unreadable: usize,
    /// Nothing if it was not asked for, or if there is none.
    pub source: Option<SourceReport>,
    /// How many records are in rejects that no sink refused, by the part that did.
    pub rejects: BTreeMap<&'static str, usize>,
    /// What was gone from a log before intake, or a sink, had finished it.
    pub gone: Vec<Gone>,
    pub sinks: Vec<Report>,
}

/// What there is to say in one word, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Something is missing, altered or unreadable.
    Gap,
    /// Everything is there, and something more than once.
    Repeated,
    /// A sink, or Kafka, could not be asked.
    Unreachable,
    /// A sink can't tell what it holds, or has yet to be sent some, or something of the source can't be compared, or something was gone
    /// before it was finished.
    NotCompared,
    Complete,
}

impl Verified {
    /// Of the source and of the sinks.
    pub fn reports(&self) -> impl Iterator<Item = &Report> {
        self.source.iter().map(|source| &source.report).chain(&self.sinks)
    }

    pub fn gaps(&self) -> usize {
        self.unreadable + self.reports().map(|report| report.gaps).sum::<usize>()
    }

    fn is_partial(&self) -> bool {
        self.sinks.is_empty()
            || !self.gone.is_empty()
            || self.source.as_ref().is_some_and(SourceReport::is_partial)
            || self.reports().any(|report| report.skipped.is_some() || report.compared.unsent > 0)
    }

    /// How many decisions stand in a sink more than once.
    pub fn repeats(&self) -> usize {
        self.sinks.iter().map(|report| report.compared.repeated.count).sum()
    }

    pub fn outcome(&self) -> Outcome {
        if self.gaps() > 0 {
            Outcome::Gap
        } else if self.repeats() > 0 {
            Outcome::Repeated
        } else if self.reports().any(|report| report.error.is_some()) {
            Outcome::Unreachable
        } else if self.is_partial() {
            Outcome::NotCompared
        } else {
            Outcome::Complete
        }
    }
}

pub async fn verify(
    pipeline: &Pipeline,
    scope: &Scope,
    watch: &dyn Watch,
) -> Result<Verified, VerifyError> {
    let mut sinks = checked(pipeline, scope);
    let (docket, rejected, source) = tokio::task::block_in_place(|| {
        let compares = scope.source && !pipeline.file.sources.is_empty();
        let source = compares.then(|| Source::open(pipeline, scope)).transpose()?;
        let behind = source.iter().flatten().any(|source| source.unread > 0);
        let offsets = source.iter().flatten().map(Source::offsets).sum();
        let docket = Docket::read(pipeline, scope, &mut sinks, (offsets, behind), watch)?;
        let of = source.as_ref().and_then(|source| source.as_ref().ok());
        let rejected = Rejected::read(pipeline, scope, (docket.portions(), of), watch)?;
        let source = match source {
            Some(Ok(mut source)) => {
                let there = (&docket, &rejected);
                Some(SourceReport::of(pipeline, scope, &mut source, there, watch)?)
            }
            Some(Err(why)) => Some(SourceReport::without(why)),
            None => None,
        };
        Ok::<_, VerifyError>((docket, rejected, source))
    })?;
    // What goes to a sink only because others do not take it is known once they were asked.
    sinks.sort_by_key(|sink| sink.config.delivery().only_routed);
    let (routed, only) = (BTreeMap::new(), BTreeMap::new());
    let mut asking = Asking { docket: &docket, rejected: &rejected, routed, only, scope, watch };
    let mut reports = Vec::new();
    for sink in &sinks {
        reports.push(asking.report(sink).await?);
    }
    let only = OnlyThere::new(std::mem::take(&mut asking.only), &docket)?;
    tokio::task::block_in_place(|| only.tell(pipeline, scope, &mut reports, watch))?;
    let lost: BTreeSet<&String> =
        source.iter().flat_map(|source| &source.report.compared.missing.listed).collect();
    for report in &mut reports {
        let there = report.compared.only_there.listed.iter().filter(|id| lost.contains(id));
        report.in_source = there.cloned().collect();
    }
    reports.sort_by(|a, b| a.sink.cmp(&b.sink));
    let (unreadable, rejects) = (docket.unreadable, rejected.refused());
    let compared = |gone: &&Gone| match gone.part.as_str() {
        "intake" => source.is_some(),
        part => reports.iter().any(|report| report.sink == part),
    };
    let gone = rejected.gone.iter().filter(compared).cloned().collect();
    Ok(Verified { about: docket.told(), unreadable, source, rejects, gone, sinks: reports })
}

struct Asking<'v> {
    docket: &'v Docket,
    rejected: &'v Rejected,
    /// What sinks passed on to another: id and original, by its name.
    routed: BTreeMap<String, Spill>,
    /// Ids that stand in a sink, and not in what was read of the docket, by the sink's name.
    only: BTreeMap<String, Spill>,
    scope: &'v Scope,
    watch: &'v dyn Watch,
}

impl Asking<'_> {
    async fn report(&mut self, sink: &Checked<'_>) -> Result<Report, VerifyError> {
        let mut report = Report::new(sink.name, sink.config.type_name());
        let query = match &sink.query {
            Ok(query) => query,
            Err(NotAsked::Mute(why)) => {
                report.skipped = Some((*why).to_owned());
                return Ok(report);
            }
            Err(NotAsked::Unreachable(why)) => {
                report.error = Some(why.clone());
                return Ok(report);
            }
        };
        // What the docket got last may still be on its way.
        let newest = self.docket.written.map_or(0, |(_, last)| last) * 1_000_000;
        let deadline = newest.saturating_add(nanos(self.scope.settle));
        loop {
            self.ask(sink, query.as_ref(), &mut report).await?;
            let waits = report.gaps + report.compared.unsent > 0;
            if report.error.is_some() || !waits || now() > deadline {
                return Ok(report);
            }
            self.watch.begin(&format!("waiting for what may be on its way to {}", sink.name), 0);
            tokio::time::sleep(Duration::from_secs(2)).await;
            self.watch.end();
        }
    }

    async fn ask(
        &mut self,
        sink: &Checked<'_>,
        query: &dyn SinkQuery,
        report: &mut Report,
    ) -> Result<(), VerifyError> {
        let Asking { docket, watch, .. } = *self;
        watch.begin(&format!("asking {}", sink.name), docket.count() as u64);
        let found = Mutex::new((Spill::new(docket.portions()), Ok(())));
        let take = |present: Present<'_>| {
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            let (spill, written) = &mut *found;
            if written.is_ok() {
                *written = write_held(spill, present, docket.others);
            }
        };
        let step = |n| watch.step(n);
        let ids = |at| docket.ids(at);
        let question = Question {
            days: &docket.days,
            written: docket.written,
            ids: &ids,
            sample: &docket.sample,
            others: docket.others,
            step: &step,
            take: &take,
        };
        let answer = query.ask(question).await;
        watch.end();
        let (found, written) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        written?;
        match answer {
            Err(error) => report.error = Some(error.to_string()),
            Ok(Answer::All(others)) => {
                report.others_unknown = others.err();
                self.compare(sink, &found, None, report)?;
            }
            Ok(Answer::Sample(ids)) => {
                report.sample = Some(ids.len());
                self.compare(sink, &found, Some(&ids), report)?;
            }
            Ok(Answer::Counts { least, most }) => {
                let due = self.due(sink)?;
                counted((&least, &most), &due, report);
            }
        }
        Ok(())
    }

    /// How many decisions a sink should have counted, by verdict. What docket found itself is none.
    fn due(&self, sink: &Checked<'_>) -> Result<BTreeMap<&'static str, Due>, VerifyError> {
        let mut due: BTreeMap<&'static str, Due> = BTreeMap::new();
        for at in 0..self.docket.portions().count() {
            let entries = self.docket.portion(at)?;
            let rejected = self.rejected.portion(at, sink.name)?;
            let mut all: Vec<Entry<'_>> = self.docket.entries(&entries, sink.name).collect();
            all.sort_by(|a, b| (a.id, a.original).cmp(&(b.id, b.original)));
            for same in all.chunk_by(|a, b| (a.id, a.original) == (b.id, b.original)) {
                let one = &same[0];
                if one.verdict == Verdict::Finding {
                    continue;
                }
                let due = due.entry(one.verdict.as_str()).or_default();
                due.all += 1;
                if rejected.contains(one.id) {
                    due.rejected += 1;
                } else if same.iter().all(|entry| !entry.due.finished) {
                    due.unsent += 1;
                }
            }
        }
        Ok(due)
    }

    /// Compares what the sink holds with what it should, portion by portion; of a sample only what is in it.
    fn compare(
        &mut self,
        sink: &Checked<'_>,
        found: &Spill,
        sample: Option<&BTreeSet<String>>,
        report: &mut Report,
    ) -> Result<(), VerifyError> {
        let age = sink.config.max_age().map(nanos);
        let delivery = sink.config.delivery();
        let target = Some(delivery.too_old.as_str()).filter(|to| *to != "rejects");
        let mut routed = Spill::new(self.docket.portions());
        let mut only = Spill::new(self.docket.portions());
        let (mut failed, mut unwritten) = (Ok(()), Ok(()));
        report.compared = Compared::default();
        for at in 0..self.docket.portions().count() {
            let entries = self.docket.portion(at)?;
            let rejected = self.rejected.portion(at, sink.name)?;
            let onward = match self.routed.get(sink.name) {
                Some(spill) => passed_on(&spill.portion(at)?),
                None => BTreeSet::new(),
            };
            let mut wanted: Vec<Wanted<'_>> = self
                .docket
                .entries(&entries, sink.name)
                .filter(|e| sample.is_none_or(|ids| ids.contains(e.id)))
                .filter(|e| !delivery.only_routed || onward.contains(&(e.id.into(), e.original)))
                .map(|e| Wanted {
                    id: e.id,
                    original: e.original,
                    hash: e.due.hash,
                    rejected: rejected.contains(e.id),
                    unsent: !e.due.finished,
                    elsewhere: target.is_some() && age.is_some_and(|age| now() - e.at > age),
                })
                .collect();
            let held = found.portion(at)?;
            let mut held = read_held(&held);
            let mut elsewhere = |id: &str, original: u64| {
                let written = routed.add(id, |out| {
                    write_text(out, id);
                    out.extend_from_slice(&original.to_le_bytes());
                });
                if failed.is_ok() {
                    failed = written;
                }
            };
            report.compared.add(&mut wanted, &mut held, &mut elsewhere, &mut |id| {
                let written = only.add(id, |out| write_text(out, id));
                if unwritten.is_ok() {
                    unwritten = written;
                }
            });
        }
        failed.and(unwritten)?;
        if let Some(target) = target {
            self.routed.insert(target.to_owned(), routed);
        }
        // What gets only what others pass on holds what was passed on at other times, too.
        if !delivery.only_routed {
            self.only.insert(sink.name.to_owned(), only);
        }
        report.compared.ended();
        report.gaps = report.compared.gaps();
        Ok(())
    }
}

fn passed_on(entries: &[u8]) -> BTreeSet<(String, u64)> {
    let (mut all, mut reading) = (BTreeSet::new(), Reading(entries));
    while !reading.is_empty() {
        let id = reading.text().to_owned();
        all.insert((id, u64::from_le_bytes(reading.bytes())));
    }
    all
}

/// Keeps what a sink holds; `time` is when everything that was decided is in the docket.
pub fn write_held(
    spill: &mut Spill,
    present: Present<'_>,
    time: Option<(Nanos, Nanos)>,
) -> std::io::Result<()> {
    // Asked for by that time, or decided in it.
    let within = |at| time.is_some_and(|(from, until)| (from..until).contains(&at));
    let of_the_time = present.at.map_or(present.hash.is_none(), within);
    spill.add(present.id, |out| {
        write_text(out, present.id);
        out.extend_from_slice(&[u8::from(of_the_time), u8::from(present.hash.is_some())]);
        out.extend_from_slice(&present.hash.unwrap_or_default().to_le_bytes());
    })
}

pub fn read_held(entries: &[u8]) -> Vec<Held<'_>> {
    let (mut all, mut reading) = (Vec::new(), Reading(entries));
    while !reading.is_empty() {
        let id = reading.text();
        let [of_the_time, known] = reading.bytes().map(|flag| flag == 1);
        let hash = Hash::from_le_bytes(reading.bytes());
        all.push(Held { id, hash: known.then_some(hash), of_the_time });
    }
    all
}

/// How many decisions of a verdict a sink should have counted.
#[derive(Debug, Clone, Copy, Default)]
struct Due {
    /// Another one under a used id is one of its own; what stands in the docket twice is one.
    all: usize,
    /// Of them, in rejects for this sink; and those that it has yet to be sent.
    rejected: usize,
    unsent: usize,
}

/// Counts are compared as a whole: a gap if they differ by more than a hundredth. What was counted when the last decision was written, and what
/// was once it was seen, are not the same where decisions go on coming; what is expected lies between them.
fn counted(
    (least, most): (&BTreeMap<String, f64>, &BTreeMap<String, f64>),
    due: &BTreeMap<&'static str, Due>,
    report: &mut Report,
) {
    let mut counts = BTreeMap::new();
    report.gaps = 0;
    let mut compared = Compared::default();
    for verdict in ["allow", "deny", "undefined", "error"] {
        let of = |counts: &BTreeMap<String, f64>| counts.get(verdict).copied().unwrap_or(0.0);
        let due = due.get(verdict).copied().unwrap_or_default();
        let wanted = due.all - due.rejected;
        let got = (wanted as f64).max(of(least)).min(of(most));
        counts.insert(verdict.to_owned(), got);
        let got = got.round() as usize;
        let short = wanted.saturating_sub(got);
        let (unsent, others) = (short.min(due.unsent), got.saturating_sub(wanted));
        let missing = short - unsent;
        report.gaps += usize::from((missing + others) as f64 > (wanted as f64 / 100.0).max(0.5));
        compared.expected += due.all;
        compared.present += wanted - short;
        compared.rejected += due.rejected;
        compared.unsent += unsent;
        compared.missing.count += missing;
        compared.only_there.count += others;
    }
    (report.compared, report.counts) = (compared, Some(counts));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_while_it_is_verified_is_no_gap_and_what_was_not_counted_is() {
        let gaps = |least: f64, most: f64| {
            let mut report = Report::new("metrics", "metrics");
            let of = |n: f64| BTreeMap::from([("allow".to_owned(), n)]);
            let due = Due { all: 1000, ..Due::default() };
            counted((&of(least), &of(most)), &BTreeMap::from([("allow", due)]), &mut report);
            let c = &report.compared;
            assert_eq!(c.expected, c.present + c.missing.count, "the row adds up");
            (report.gaps, c.present + c.only_there.count)
        };
        assert_eq!(gaps(1000.0, 1000.0), (0, 1000));
        assert_eq!(gaps(900.0, 3000.0), (0, 1000));
        assert_eq!(gaps(900.0, 995.0), (0, 995));
        assert_eq!(gaps(900.0, 980.0), (1, 980));
        assert_eq!(gaps(1020.0, 3000.0), (1, 1020));
        assert_eq!(gaps(0.0, 0.0), (1, 0));
    }

    #[test]
    fn a_row_of_counts_adds_up_and_what_is_yet_to_be_sent_is_no_gap() {
        let row = |due: Due, got: f64| {
            let mut report = Report::new("metrics", "metrics");
            let got = BTreeMap::from([("deny".to_owned(), got)]);
            counted((&got, &got), &BTreeMap::from([("deny", due)]), &mut report);
            let c = &report.compared;
            assert_eq!(c.expected, c.present + c.rejected + c.unsent + c.missing.count);
            (report.gaps, [c.present, c.rejected, c.unsent, c.missing.count, c.only_there.count])
        };
        let due = Due { all: 100, rejected: 10, unsent: 20 };
        assert_eq!(row(due, 90.0), (0, [90, 10, 0, 0, 0]));
        assert_eq!(row(due, 75.0), (0, [75, 10, 15, 0, 0]));
        assert_eq!(row(due, 60.0), (1, [60, 10, 20, 10, 0]));
        assert_eq!(row(due, 95.0), (1, [90, 10, 0, 0, 5]));
    }
}
