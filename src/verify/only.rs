//! What a sink holds, and what was read of the docket has not: it may have come to the docket after that, or before. Only what the docket
//! has at no time is another's.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use rdkafka::message::Message;

use super::docket::Docket;
use super::report::Report;
use super::scope::{Scope, VerifyError, Watch};
use super::spill::{Portions, Reading, Spill, write_text};
use super::traced::Sieve;
use super::{Compared, Ids};
use crate::clock::now;
use crate::decision::record::Record;
use crate::log::scan::ScanBound;
use crate::pipeline::Pipeline;

pub(super) struct OnlyThere {
    /// Ids, by the sink's name.
    sinks: BTreeMap<String, Spill>,
    /// Of these ids some are in the sinks.
    sieve: Sieve,
    /// What the rest of the docket has of them.
    elsewhen: Spill,
    portions: Portions,
}

impl OnlyThere {
    pub fn new(sinks: BTreeMap<String, Spill>, docket: &Docket) -> io::Result<OnlyThere> {
        let portions = docket.portions().clone();
        let mut sieve = Sieve::default();
        for spill in sinks.values() {
            for at in 0..portions.count() {
                ids(&spill.portion(at)?).for_each(|id| sieve.add(id));
            }
        }
        Ok(OnlyThere { sinks, sieve, elsewhen: Spill::new(&portions), portions })
    }

    /// Looks through the rest of the docket, and tells each report what is left.
    pub fn tell(
        mut self,
        pipeline: &Pipeline,
        scope: &Scope,
        reports: &mut [Report],
        watch: &dyn Watch,
    ) -> Result<(), VerifyError> {
        // From what comes soonest after the time that was asked for on, then the rest.
        let middle = match scope.until {
            ScanBound::At(time) => ScanBound::At(time),
            _ => ScanBound::At(now() - 600_000_000_000),
        };
        let mut any = !self.sieve.is_empty();
        for (from, until) in [(middle, ScanBound::End), (ScanBound::Start, middle)] {
            if !any {
                return Ok(());
            }
            let past = pipeline.scan("verify", &pipeline.docket_topic(), from, until)?;
            watch.begin("looking for the rest", past.offsets());
            let mut failed = Ok(());
            past.read(&mut |n| watch.step(n), &mut |message| {
                if let Ok(record) = Record::parse(message.payload().unwrap_or_default())
                    && self.sieve.has(&record.decision_id)
                {
                    let id = &*record.decision_id;
                    failed = self.elsewhen.add(id, |out| write_text(out, id));
                }
                failed.is_ok()
            })?;
            watch.end();
            failed?;
            any = self.left(reports)?;
        }
        Ok(())
    }

    /// Writes down what is left, and whether that is anything.
    fn left(&self, reports: &mut [Report]) -> io::Result<bool> {
        let mut any = false;
        for report in reports {
            let Some(spill) = self.sinks.get(&report.sink) else { continue };
            let Compared { only_there, .. } = &mut report.compared;
            *only_there = Ids::default();
            for at in 0..self.portions.count() {
                let (found, there) = (self.elsewhen.portion(at)?, spill.portion(at)?);
                let found: BTreeSet<&str> = ids(&found).collect();
                ids(&there).filter(|id| !found.contains(id)).for_each(|id| only_there.push(id));
            }
            any |= only_there.count > 0;
            report.compared.ended();
        }
        Ok(any)
    }
}

fn ids(entries: &[u8]) -> impl Iterator<Item = &str> {
    let mut reading = Reading(entries);
    std::iter::from_fn(move || (!reading.is_empty()).then(|| reading.text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_docket_has_at_another_time_is_no_others_however_much_it_is() {
        let docket = Docket::new(0, std::iter::empty());
        let mut spill = Spill::new(docket.portions());
        let all: Vec<String> = (0..30_000).map(|i| format!("d{i}")).chain(["x".into()]).collect();
        for id in &all {
            spill.add(id, |out| write_text(out, id)).unwrap();
        }
        let mut only = OnlyThere::new([("s".to_owned(), spill)].into(), &docket).unwrap();
        let mut reports = [Report::new("s", "file"), Report::new("t", "file")];
        assert!(!only.sieve.is_empty() && only.left(&mut reports).unwrap());
        assert_eq!(reports[0].compared.only_there.count, 30_001);
        for id in all.iter().filter(|id| *id != "x" && only.sieve.has(id)) {
            only.elsewhen.add(id, |out| write_text(out, id)).unwrap();
        }
        assert!(only.left(&mut reports).unwrap());
        assert_eq!(reports[0].compared.only_there.listed, ["x"]);
        assert_eq!(reports[0].compared.unlisted, 0);
    }
}
