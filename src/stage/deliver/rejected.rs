//! What people are told of records that go to rejects: a sink that refuses one often refuses many. All are counted, a line is written of each
//! reason when it begins, now and then while it lasts, and when it is over.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::decision::reject::Reason;
use crate::telemetry::outage::{Line, Outage};

/// Without one for so long, that is over.
const OVER: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Rejected(BTreeMap<Reason, Outage<()>>);

/// A line to be written.
#[derive(Debug)]
pub(super) enum Told {
    Goes(Reason, Line),
    Over(Reason, Line),
}

impl Rejected {
    /// So many more went there, by reason.
    pub fn seen(&mut self, more: &BTreeMap<Reason, u64>, now: Instant) -> Vec<Told> {
        let quiet = self.0.iter_mut().filter(|(reason, _)| !more.contains_key(reason));
        let over = quiet.filter_map(|(reason, of)| Some(Told::Over(*reason, of.quiet(OVER, now)?)));
        let mut told: Vec<Told> = over.collect();
        for (reason, records) in more {
            let of = self.0.entry(*reason).or_default();
            told.extend(of.seen((), *records, now).map(|line| Told::Goes(*reason, line)));
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_rejects_are_a_line_of_each_reason_and_then_counts() {
        let (mut rejected, began) = (Rejected::default(), Instant::now());
        let mut told = |millis: u64, more: &[(Reason, u64)]| -> Vec<String> {
            let now = began + Duration::from_millis(millis);
            let said = rejected.seen(&more.iter().copied().collect(), now).into_iter();
            let said = said.map(|told| match told {
                Told::Goes(reason, line) => format!("{} {}", reason.as_str(), line.failures),
                Told::Over(reason, line) => {
                    format!("no more {} {}", reason.as_str(), line.failures)
                }
            });
            said.collect()
        };
        let batches: Vec<Vec<String>> =
            (0..49).map(|i| told(i, &[(Reason::Refused, 10)])).collect();
        assert_eq!(batches.concat(), ["refused 10"]);
        assert_eq!(told(50, &[(Reason::TooOld, 1)]), ["too_old 1"]);
        assert_eq!(told(30_000, &[(Reason::Refused, 5)]), ["refused 495"]);
        assert_eq!(told(80_000, &[]), ["no more too_old 1"]);
        assert_eq!(told(90_001, &[]), ["no more refused 495"]);
        assert_eq!(told(200_000, &[]), Vec::<String>::new());
    }
}
