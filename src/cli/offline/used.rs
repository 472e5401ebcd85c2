//! Decisions of files that stand under the ID of another one: made-up IDs, or one that hides behind another. `docket run` finds them by the window of
//! a sink, here they are found in all that is read.

use std::collections::BTreeMap;

use crate::decision::record::Record;
use crate::decision::time::Nanos;
use crate::log::value::identity;
use crate::spike::{Example, Finding, Kind};
use crate::stage::deliver::repeats::{Noted, Window};
use crate::stage::events;
use crate::words::counted;

/// So many decisions are remembered, the newest.
const MOST: usize = 1_000_000;

/// Which IDs were used for what.
pub struct Used {
    most: usize,
    window: Window,
    found: BTreeMap<String, Reused>,
}

/// Of a service.
struct Reused {
    decisions: u64,
    /// The first: when, and which.
    at: Nanos,
    example: Example,
}

impl Default for Used {
    fn default() -> Used {
        Used::of(MOST)
    }
}

impl Used {
    fn of(most: usize) -> Used {
        Used { most, window: Window::default(), found: BTreeMap::new() }
    }

    pub fn note(&mut self, record: &Record<'_>) {
        if self.window.note(identity(record), self.most) != Noted::Reused {
            return;
        }
        let of = self.found.entry(record.service.to_string()).or_insert_with(|| Reused {
            decisions: 0,
            at: record.timestamp,
            example: Example {
                trace_id: record.trace_id.to_string(),
                decision_id: record.decision_id.chars().take(100).collect(),
            },
        });
        of.decisions += 1;
    }

    /// A finding for each service that has any.
    pub fn findings(&self) -> Vec<Finding> {
        let finding = |(service, of): (&String, &Reused)| Finding {
            observed: of.decisions,
            detail: format!(
                "{} under an ID that was used before, for another one; the first is {}",
                counted(of.decisions, "decision"),
                of.example.decision_id
            ),
            examples: vec![of.example.clone()],
            ..events::finding(Kind::DecisionIdReused, service, "files", of.at)
        };
        self.found.iter().map(finding).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::offline::{Reader, pipeline};

    fn found(used: &mut Used, decisions: &[(&str, &str, bool)]) -> Vec<(String, u64, String)> {
        let mut reader = Reader::new(pipeline(None).unwrap());
        for (id, app, result) in decisions {
            let text = format!(
                r#"{{"decision_id":"{id}","labels":{{"app":"{app}"}},"path":"a/b","result":{result},"timestamp":"2026-11-24T12:48:50Z"}}"#
            );
            reader.read(text.as_bytes(), &mut |bytes| used.note(&Record::parse(bytes).unwrap()));
        }
        let of = |f: Finding| (f.service, f.observed, f.examples[0].decision_id.clone());
        used.findings().into_iter().map(of).collect()
    }

    #[test]
    fn another_decision_under_an_id_is_found_and_the_same_one_again_is_not() {
        let decisions = [
            ("d1", "s", true),
            ("d2", "s", true),
            ("d1", "s", true),
            ("d2", "s", false),
            ("d2", "s", false),
            ("d1", "t", true),
        ];
        assert_eq!(
            found(&mut Used::default(), &decisions),
            [("s".into(), 1, "d2".to_owned()), ("t".into(), 1, "d1".to_owned())]
        );
        let finding = {
            let mut used = Used::default();
            found(&mut used, &decisions);
            used.findings().remove(0)
        };
        assert_eq!(
            finding.sentence(),
            "decision id reused on s: 1 decision under an ID that was used before, for another one; the first is d2"
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut used = Used::of(2);
        let decisions =
            [("d1", "s", true), ("d2", "s", true), ("d3", "s", true), ("d1", "s", false)];
        assert_eq!(found(&mut used, &decisions), []);
        assert_eq!(used.window.sizes(), (2, 2, 2));
    }
}
