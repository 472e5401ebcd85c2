//! What the docket says of itself, counted as it is read.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::decision::time::{self, Nanos};
use crate::decision::verdict::Verdict;
use crate::sink::query::Decision;

/// What the docket says of itself.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Overview {
    pub decisions: usize,
    /// What docket itself found, and wrote between them.
    pub findings: usize,
    pub verdicts: BTreeMap<&'static str, usize>,
    pub first: Option<String>,
    pub last: Option<String>,
    /// Decisions that stand in the docket more than once: producers sent them again.
    pub repeated: usize,
    /// Decision ids that stand for more than one decision.
    pub reused_ids: usize,
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

/// An instance is quiet after this, or after twenty times its mean pause.
const QUIET: Nanos = 300 * SECOND;
const PAUSES: Nanos = 20;

/// So many instances are followed.
const INSTANCES: usize = 20_000;

/// Counts decisions as they come. What it holds does not grow with their number.
#[derive(Default)]
pub struct Counting {
    all: Overview,
    /// The earliest and the latest decision.
    pub times: Option<(Nanos, Nanos)>,
    /// Delays, rounded, and how many.
    delays: BTreeMap<i64, usize>,
    latest: HashMap<(String, i32), Nanos>,
    instances: HashMap<String, Instance>,
}

struct Instance {
    first: Nanos,
    last: Nanos,
    count: i64,
}

impl Counting {
    pub fn add(&mut self, decision: &Decision) {
        let (all, at) = (&mut self.all, decision.timestamp);
        if decision.verdict == Verdict::Finding {
            all.findings += 1;
            return;
        }
        all.decisions += 1;
        *all.verdicts.entry(decision.verdict.as_str()).or_default() += 1;
        self.times = Some(self.times.map_or((at, at), |(a, b)| (a.min(at), b.max(at))));
        let delay = decision.kafka.saturating_mul(1_000_000).saturating_sub(at);
        all.ahead += usize::from(delay < -SECOND);
        *self.delays.entry(rounded(delay / 1_000_000)).or_default() += 1;
        let place = (decision.instance.clone(), decision.partition);
        if self.latest.len() < INSTANCES || self.latest.contains_key(&place) {
            let last = self.latest.entry(place).or_insert(at);
            all.out_of_order += usize::from(*last - at > LATE);
            *last = (*last).max(at);
        }
        if let Some(known) = self.instances.get_mut(&decision.instance) {
            known.first = known.first.min(at);
            known.last = known.last.max(at);
            known.count += 1;
        } else if self.instances.len() < INSTANCES {
            let new = Instance { first: at, last: at, count: 1 };
            self.instances.insert(decision.instance.clone(), new);
        }
    }

    pub fn told(self) -> Overview {
        let mut all = self.all;
        all.first = self.times.map(|(first, _)| time::format(first));
        all.last = self.times.map(|(_, last)| time::format(last));
        let at = |part: f64| {
            let mut before = ((all.decisions.max(1) - 1) as f64 * part) as usize;
            self.delays.iter().find_map(|(delay, count)| {
                let found = before < *count;
                before = before.saturating_sub(*count);
                found.then_some(*delay as f64 / 1e3)
            })
        };
        all.delay_seconds = at(0.5).zip(at(0.99)).zip(at(1.0)).map(|((a, b), c)| (a, b, c));
        let end = self.times.map_or(0, |(_, last)| last);
        for (name, one) in self.instances {
            if one.count < 10 {
                continue;
            }
            let pause = (one.last - one.first) / (one.count - 1);
            if end - one.last > QUIET.max(pause.saturating_mul(PAUSES)) {
                all.quiet.insert(name, time::format(one.last));
            }
        }
        all
    }
}

/// Milliseconds, to three digits.
fn rounded(millis: i64) -> i64 {
    let mut unit = 1;
    while (millis / unit).abs() >= 1000 {
        unit *= 10;
    }
    millis / unit * unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::ids::{SpanId, TraceId};

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
        let found = decision(0, "", start + 10_000 * SECOND, 0);
        all.push(Decision { verdict: Verdict::Finding, ..found });
        let mut counting = Counting::default();
        all.iter().for_each(|decision| counting.add(decision));
        let told = counting.told();
        assert_eq!((told.decisions, told.ahead, told.out_of_order), (122, 1, 2));
        assert_eq!((told.findings, told.verdicts.len()), (1, 2), "a finding is no decision");
        assert_eq!(told.quiet.keys().collect::<Vec<_>>(), ["gone"]);
        assert_eq!(told.delay_seconds, Some((0.5, 0.5, 0.5)));
        assert_eq!(told.verdicts["deny"], 60);
    }

    #[test]
    fn delays_are_told_to_three_digits() {
        assert_eq!([0, 7, 999, 1234, -98_765].map(rounded), [0, 7, 999, 1230, -98_700]);
        let mut counting = Counting::default();
        assert_eq!(Counting::default().told().delay_seconds, None);
        let mut one = Decision {
            id: String::new(),
            timestamp: 0,
            kafka: 0,
            partition: 0,
            verdict: Verdict::Allow,
            instance: String::new(),
            trace_id: TraceId::INVALID,
            span_id: SpanId::INVALID,
        };
        for millis in 1..=100 {
            one.kafka = millis;
            counting.add(&one);
        }
        assert_eq!(counting.told().delay_seconds, Some((0.05, 0.099, 0.1)));
    }
}
