//! Is the record complete and true? Compares what the docket topic holds with what each sink holds, by
//! decision id and by a hash of what was sent; and looks at the record itself. Sinks are asked by
//! their own `query`; `run` brings both together, `probe` follows one question through everything.

pub mod probe;
pub mod run;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use crate::decision::time::{self, Nanos};
use crate::sink::query::{Decision, Found, Hash};

/// What a sink should hold of one decision.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub id: &'a str,
    pub hash: Hash,
    /// It is in rejects for this sink.
    pub rejected: bool,
    /// It is older than the sink takes, and went to another.
    pub elsewhere: bool,
}

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Compared {
    pub expected: usize,
    pub present: usize,
    pub rejected: usize,
    pub elsewhere: usize,
    pub missing: Vec<String>,
    pub altered: Vec<String>,
    pub repeated: Vec<String>,
}

impl Compared {
    pub fn gaps(&self) -> usize {
        self.missing.len() + self.altered.len() + self.repeated.len()
    }
}

/// Compares what should be there with what is.
pub fn compare<'a>(wanted: impl Iterator<Item = Wanted<'a>>, found: &Found) -> Compared {
    let mut compared = Compared::default();
    let mut seen: HashMap<&str, Hash> = HashMap::new();
    for want in wanted {
        // A producer that sent twice: the sink holds one, and the first hash counts.
        if seen.insert(want.id, want.hash).is_some() {
            continue;
        }
        compared.expected += 1;
        match found.get(want.id).map(Vec::as_slice) {
            None | Some([]) if want.rejected => compared.rejected += 1,
            None | Some([]) if want.elsewhere => compared.elsewhere += 1,
            None | Some([]) => compared.missing.push(want.id.to_owned()),
            Some(hashes) => {
                compared.present += 1;
                if hashes.iter().any(|hash| *hash != want.hash) {
                    compared.altered.push(want.id.to_owned());
                }
                if hashes.len() > 1 {
                    compared.repeated.push(want.id.to_owned());
                }
            }
        }
    }
    compared
}

/// What the docket says of itself.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Overview {
    pub decisions: usize,
    pub verdicts: BTreeMap<&'static str, usize>,
    pub first: Option<String>,
    pub last: Option<String>,
    /// Decisions that stand in the docket more than once: producers sent them again.
    pub repeated: usize,
    /// Seconds from a decision to Kafka: median, 99th percentile, greatest.
    pub delay_seconds: Option<(f64, f64, f64)>,
    /// Decisions whose time is later than the time that Kafka got them, by more than a second: a clock is ahead.
    pub ahead: usize,
    /// Decisions that came after one of the same OPA instance and partition that was decided ten seconds later, or more: several source
    /// partitions are read side by side, so a little is usual.
    pub out_of_order: usize,
    /// OPA instances that decided regularly and then no more, and when last.
    pub quiet: BTreeMap<String, String>,
}

const SECOND: Nanos = 1_000_000_000;

const LATE: Nanos = 10 * SECOND;

/// An instance is quiet after this, or after ten times its usual pause.
const QUIET: Nanos = 300 * SECOND;

pub fn overview(decisions: &[Decision]) -> Overview {
    let mut all = Overview { decisions: decisions.len(), ..Overview::default() };
    let (mut ids, mut delays) = (BTreeSet::new(), Vec::with_capacity(decisions.len()));
    let mut latest: HashMap<(&str, i32), Nanos> = HashMap::new();
    let mut instances: HashMap<&str, Vec<Nanos>> = HashMap::new();
    for decision in decisions {
        *all.verdicts.entry(decision.verdict.as_str()).or_default() += 1;
        all.repeated += usize::from(!ids.insert(decision.id.as_str()));
        let delay = decision.kafka * 1_000_000 - decision.timestamp;
        all.ahead += usize::from(delay < -SECOND);
        delays.push(delay);
        let last =
            latest.entry((&decision.instance, decision.partition)).or_insert(decision.timestamp);
        if *last - decision.timestamp > LATE {
            all.out_of_order += 1;
        }
        *last = (*last).max(decision.timestamp);
        instances.entry(&decision.instance).or_default().push(decision.timestamp);
    }
    let times = || decisions.iter().map(|d| d.timestamp);
    all.first = times().min().map(time::format);
    all.last = times().max().map(time::format);
    delays.sort_unstable();
    let at = |part: f64| {
        delays.get(((delays.len().max(1) - 1) as f64 * part) as usize).map(|d| *d as f64 / 1e9)
    };
    all.delay_seconds = at(0.5).zip(at(0.99)).zip(at(1.0)).map(|((a, b), c)| (a, b, c));
    let end = times().max().unwrap_or(0);
    for (instance, mut times) in instances {
        times.sort_unstable();
        let (Some(last), true) = (times.last().copied(), times.len() >= 10) else { continue };
        let mut pauses: Vec<Nanos> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        pauses.sort_unstable();
        let usual = pauses[pauses.len() * 9 / 10];
        if end - last > QUIET.max(usual.saturating_mul(10)) {
            all.quiet.insert(instance.to_owned(), time::format(last));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::ids::{SpanId, TraceId};
    use crate::decision::verdict::Verdict;

    fn want(id: &str, hash: Hash) -> Wanted<'_> {
        Wanted { id, hash, rejected: false, elsewhere: false }
    }

    #[test]
    fn a_comparison_finds_what_is_missing_altered_and_repeated() {
        let found: Found = [
            ("a", vec![1]),
            ("b", vec![9]),
            ("c", vec![3, 3]),
            ("d", vec![4, 9]),
            ("foreign", vec![1]),
        ]
        .into_iter()
        .map(|(id, hashes)| (id.to_owned(), hashes))
        .collect();
        let wanted = [
            want("a", 1),
            want("a", 7),
            want("b", 2),
            want("c", 3),
            want("d", 4),
            want("e", 5),
            Wanted { rejected: true, ..want("f", 6) },
            Wanted { elsewhere: true, ..want("g", 7) },
        ];
        let compared = compare(wanted.into_iter(), &found);
        assert_eq!(
            (compared.expected, compared.present, compared.rejected, compared.elsewhere),
            (7, 4, 1, 1)
        );
        assert_eq!(
            (
                compared.missing.as_slice(),
                compared.altered.as_slice(),
                compared.repeated.as_slice()
            ),
            (
                &["e".to_owned()][..],
                &["b".to_owned(), "d".to_owned()][..],
                &["c".to_owned(), "d".to_owned()][..]
            )
        );
        assert_eq!(compared.gaps(), 5);
    }

    #[test]
    fn the_overview_tells_clocks_order_and_silence() {
        let start = 1_795_000_000 * SECOND;
        let decision = |i: i64, instance: &str, at: Nanos, late: i64| Decision {
            id: format!("{instance}{i}"),
            timestamp: at,
            kafka: at / 1_000_000 + late,
            partition: 0,
            verdict: if i % 2 == 0 { Verdict::Allow } else { Verdict::Deny },
            instance: instance.into(),
            trace_id: TraceId::INVALID,
            span_id: SpanId::INVALID,
        };
        let mut all: Vec<Decision> =
            (0..100).map(|i| decision(i, "steady", start + i * 10 * SECOND, 500)).collect();
        all.extend((0..20).map(|i| decision(i, "gone", start + i * SECOND, 500)));
        all.push(decision(100, "steady", start, -5_000));
        all.push(all[0].clone());
        let told = overview(&all);
        assert_eq!((told.decisions, told.repeated, told.ahead), (122, 1, 1));
        assert_eq!(told.out_of_order, 2);
        assert_eq!(told.quiet.keys().collect::<Vec<_>>(), ["gone"]);
        assert_eq!(told.delay_seconds.unwrap().0, 0.5);
        assert_eq!(told.verdicts["deny"], 60);
    }
}
