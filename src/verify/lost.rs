//! Compares the source with the docket: what intake lost, and what can't be told.

use std::time::Duration;

use serde::Serialize;

use super::docket::Docket;
use super::rejected::Rejected;
use super::report::Report;
use super::scope::{Scope, VerifyError, Watch};
use super::source::{Expected, Source, Why};
use super::traced::{Became, Candidates, Judged, Lost, Traces};
use crate::decision::time::Nanos;
use crate::log::scan::ScanBound;
use crate::pipeline::Pipeline;
use crate::words::counted;

/// The result for the source.
#[derive(Serialize)]
pub struct SourceReport {
    #[serde(flatten)]
    pub report: Report,
    /// Decisions that intake has read, and of which neither the docket nor rejects has a trace.
    pub lost: Vec<Lost>,
    /// Decisions of which it can't be told whether they are in the docket.
    pub not_compared: usize,
    /// Why they, or parts of the source, are not compared.
    pub reasons: Vec<String>,
    /// Records that were removed by retention since they came to the docket.
    pub removed: u64,
    /// Records that intake has not read yet.
    pub unread: u64,
    /// What else there is to say.
    pub notes: Vec<String>,
}

/// So far behind the scope the docket is looked through for what seems to be lost, before it is for all of it: clocks differ.
const NEAR: Nanos = 600_000_000_000;
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(2);

impl SourceReport {
    fn new() -> SourceReport {
        SourceReport {
            report: Report::new("(source)", "kafka"),
            lost: Vec::new(),
            not_compared: 0,
            reasons: Vec::new(),
            removed: 0,
            unread: 0,
            notes: Vec::new(),
        }
    }

    /// Nothing could be compared.
    pub(super) fn without(why: Why) -> SourceReport {
        let mut all = SourceReport::new();
        all.not(why);
        all
    }

    fn not(&mut self, why: Why) {
        match why {
            Why::Skipped(why) => self.report.skipped = Some(why),
            Why::Error(why) => self.report.error = Some(why),
        }
    }

    /// Whether a part of it is not compared.
    pub fn is_partial(&self) -> bool {
        !self.reasons.is_empty()
    }

    /// Compares all that intake has read with the docket.
    pub(super) fn of(
        pipeline: &Pipeline,
        scope: &Scope,
        source: &mut Source<'_>,
        (docket, rejected): (&Docket, &Rejected),
        watch: &dyn Watch,
    ) -> Result<SourceReport, VerifyError> {
        let mut all = SourceReport::new();
        all.reasons.clone_from(&source.apart);
        let mut expected = Expected::new(docket.portions());
        if let Err(why) = source.read(&mut expected, watch)? {
            all.not(why);
            return Ok(all);
        }
        (all.removed, all.unread) = (source.removed(docket), source.unread);
        let mut left = Candidates::new(docket.portions());
        for at in 0..docket.portions().count() {
            let (wanted, present) = expected.compare(at, docket, &mut left)?;
            all.report.compared.expected += wanted;
            all.report.compared.present += present;
        }
        drop(expected);
        let mut told = 0;
        if left.count > 0 {
            let judged = judged(pipeline, scope, source, &left, watch)?;
            told = judged.letters;
            all.became(judged);
        }
        // What is no decision by today's rules either, and may be nothing that could be one.
        let refused = rejected.refused().get("intake").copied().unwrap_or(0).saturating_sub(told);
        all.report.compared.expected += refused;
        all.report.compared.rejected += refused;
        all.note();
        Ok(all)
    }

    fn became(&mut self, judged: Judged) {
        let compared = &mut self.report.compared;
        compared.present += judged.of(Became::Other) + judged.of(Became::Elsewhen);
        compared.rejected += judged.of(Became::Rejected);
        // Before intake's start nothing is wanted.
        compared.expected -= judged.of(Became::Before);
        for (became, what) in [
            (Became::Differs, "whose record became something else than today's rules make of it"),
            (Became::Waits, "not in the docket yet: the join has them, or has refused them"),
            (
                Became::Joined,
                "in lines that came in several records, and neither in the docket nor in rejects",
            ),
            (
                Became::Untold,
                "older than what retention has left of the docket or of rejects: whether they were there can't be told",
            ),
        ] {
            let count = judged.of(became);
            if count > 0 {
                self.not_compared += count;
                self.reasons.push(format!("{} {what}", counted(count, "decision")));
            }
        }
        for (became, what) in [
            (
                Became::Other,
                "in the docket with another content than today's rules give them: the pipeline file has changed, or they have",
            ),
            (Became::Before, "from before intake's first record (intake.start: latest)"),
        ] {
            let count = judged.of(became);
            if count > 0 {
                self.notes.push(format!("{} {what}", counted(count, "decision")));
            }
        }
        self.lost = judged.lost;
        compared.missing = judged.missing;
        compared.ended();
        self.report.gaps = self.report.compared.gaps();
    }

    fn note(&mut self) {
        if self.removed > 0 {
            let records = counted(self.removed, "record");
            let (were, them) = if self.removed == 1 { ("was", "it") } else { ("were", "them") };
            self.notes.push(format!(
                "{records} {were} removed by retention before verify could read {them}"
            ));
        }
    }
}

/// What became of those that the docket does not have, of the time that was asked for. What is written late, or by other clocks, is looked
/// for before and behind that; what seems to be lost then, once more after a while.
fn judged(
    pipeline: &Pipeline,
    scope: &Scope,
    source: &Source<'_>,
    left: &Candidates,
    watch: &dyn Watch,
) -> Result<Judged, VerifyError> {
    let look = |from| -> Result<Judged, VerifyError> {
        let traces = Traces::read(pipeline, left, from, watch)?;
        Ok(left.judge(&traces, pipeline)?)
    };
    if let ScanBound::At(time) = scope.from {
        let judged = look(ScanBound::At(time.saturating_sub(NEAR)))?;
        if judged.untraced() == 0 {
            return Ok(judged);
        }
    }
    loop {
        let judged = look(ScanBound::Start)?;
        let may_come = judged.of(Became::Lost) + judged.of(Became::Waits) > 0;
        if !may_come || source.asked.elapsed() >= scope.settle {
            return Ok(judged);
        }
        std::thread::sleep(PAUSE);
    }
}
