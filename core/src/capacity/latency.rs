//! Evaluation times: quantiles, and which of OPA's timers they go to, for all decisions and for the slow ones.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::enough;
use crate::decision::json;
use crate::decision::record::Record;

/// Two digits of a value are kept: quantiles are right within 1 %.
const DIGITS: u8 = 2;
/// What a histogram can hold: a century.
const LONGEST: u64 = 1 << 62;

/// Kinds of timers that are told apart; OPA has some twenty.
const TIMERS: usize = 40;

#[derive(Debug)]
pub struct Latency {
    times: Histogram<u32>,
    sum: u128,
    longest: u64,
    /// OPA's timers, summed, by how long the whole took (in eighths of an octave): so that the slow can be told apart once
    /// it is known what is slow.
    timers: BTreeMap<u32, BTreeMap<String, u64>>,
    sums: BTreeMap<u32, u64>,
}

impl Default for Latency {
    fn default() -> Latency {
        let mut times = Histogram::new(DIGITS).expect("two digits are possible");
        times.auto(true);
        Latency { times, sum: 0, longest: 0, timers: BTreeMap::new(), sums: BTreeMap::new() }
    }
}

/// Evaluation time in nanoseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// Decisions of which it is known.
    pub decisions: u64,
    pub sum_ns: u64,
    pub mean_ns: f64,
    /// Quantiles, where at least ten decisions lie beyond them; never above the longest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p95_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ns: Option<u64>,
    pub max_ns: u64,
    /// What it goes to, most first; of timers that hold others, each has its own.
    pub timers: Vec<Timer>,
}

/// One of OPA's timers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timer {
    /// `rego_query_eval` of `timer_rego_query_eval_ns`.
    pub name: String,
    /// Its part of the evaluation time of all decisions, and of the slowest twentieth.
    pub part: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part_of_slowest: Option<f64>,
}

/// The timer of the whole request.
const WHOLE: &str = "server_handler";

/// What somebody else takes, while the OPA is free to do other things.
const WAITING: [&str; 2] = ["rego_builtin_http_send", "rego_builtin_net_lookup_ip_addr"];

/// How much of a decision's time is waiting.
pub fn waiting(timers: &[(&str, u64)]) -> u64 {
    let waiting = timers.iter().filter(|(name, _)| WAITING.contains(name));
    waiting.map(|(_, nanos)| *nanos).fold(0, u64::saturating_add)
}

fn octave(nanos: u64) -> u32 {
    (8.0 * (nanos.max(1) as f64).log2()) as u32
}

impl Latency {
    /// A decision's timers that are not the whole: name and nanoseconds.
    pub fn timers<'a>(record: &Record<'a>) -> Vec<(&'a str, u64)> {
        let members = record.get("metrics").into_iter().flat_map(json::members);
        members
            .filter_map(|m| {
                Some((m.name.strip_prefix("timer_")?.strip_suffix("_ns")?, json::as_u64(m.value)?))
            })
            .filter(|(name, _)| *name != WHOLE)
            .collect()
    }

    pub fn add(&mut self, nanos: u64, timers: &[(&str, u64)]) {
        let nanos = nanos.min(LONGEST);
        // It grows up to any value.
        let _ = self.times.record(nanos);
        self.longest = self.longest.max(nanos);
        self.sum += u128::from(nanos);
        if timers.is_empty() {
            return;
        }
        let octave = octave(nanos);
        *self.sums.entry(octave).or_default() += nanos;
        let sums = self.timers.entry(octave).or_default();
        for (name, nanos) in timers {
            if let Some(sum) = sums.get_mut(*name) {
                *sum = sum.saturating_add(*nanos);
            } else if sums.len() < TIMERS {
                sums.insert((*name).to_owned(), *nanos);
            }
        }
    }

    pub fn evaluation(&self) -> Option<Evaluation> {
        let decisions = self.times.len();
        if decisions == 0 {
            return None;
        }
        // A bucket's bound may lie above the longest that is in it.
        let at = |parts: u64| {
            (decisions >= enough::beyond(parts))
                .then(|| self.times.value_at_quantile(parts as f64 / 100.0).min(self.longest))
        };
        let p95 = at(95);
        Some(Evaluation {
            decisions,
            sum_ns: u64::try_from(self.sum).unwrap_or(u64::MAX),
            mean_ns: self.sum as f64 / decisions as f64,
            p50_ns: at(50),
            p95_ns: p95,
            p99_ns: at(99),
            max_ns: self.longest,
            timers: if decisions >= enough::TIMERS {
                self.parts(p95.map(octave))
            } else {
                Vec::new()
            },
        })
    }

    fn parts(&self, slow: Option<u32>) -> Vec<Timer> {
        let parts = |from: u32| -> BTreeMap<&str, f64> {
            let whole: u64 = self.sums.range(from..).map(|(_, n)| n).sum();
            let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
            for (name, nanos) in self.timers.range(from..).flat_map(|(_, sums)| sums) {
                *sums.entry(name).or_default() += nanos;
            }
            sums.into_iter()
                .map(|(name, nanos)| (name, nanos as f64 / whole.max(1) as f64))
                .collect()
        };
        let (all, slowest) = (parts(0), slow.map(parts));
        let timer = |(name, part): (&&str, &f64)| Timer {
            name: (*name).to_owned(),
            part: *part,
            part_of_slowest: slowest
                .as_ref()
                .map(|slowest| slowest.get(name).copied().unwrap_or_default()),
        };
        let mut timers: Vec<Timer> = all.iter().map(timer).collect();
        timers.sort_by(|a, b| b.part.total_cmp(&a.part));
        timers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_slow_spend_their_time_on() {
        let mut latency = Latency::default();
        for _ in 0..950 {
            latency.add(100_000, &[("rego_query_eval", 60_000), ("rego_input_parse", 20_000)]);
        }
        for _ in 0..50 {
            latency
                .add(50_000_000, &[("rego_query_eval", 49_000_000), ("rego_input_parse", 20_000)]);
        }
        let seen = latency.evaluation().unwrap();
        assert_eq!((seen.decisions, seen.sum_ns), (1000, 2_595_000_000));
        assert!((seen.p50_ns.unwrap() as f64 / 100_000.0 - 1.0).abs() < 0.01, "{seen:?}");
        assert!((seen.p99_ns.unwrap() as f64 / 50_000_000.0 - 1.0).abs() < 0.01, "{seen:?}");
        assert_eq!(seen.timers[0].name, "rego_query_eval");
        let parse = &seen.timers[1];
        assert!(parse.part > 0.007 && parse.part < 0.008, "{parse:?}");
        assert_eq!(Latency::default().evaluation(), None);
    }

    #[test]
    fn no_quantile_is_above_the_longest_and_what_takes_hours_is_not_cut() {
        for nanos in [200_000, 30_000_000, 5 * 3_600_000_000_000] {
            let mut latency = Latency::default();
            (0..1000).for_each(|_| latency.add(nanos, &[]));
            let seen = latency.evaluation().unwrap();
            let quantiles = [seen.p50_ns, seen.p95_ns, seen.p99_ns, Some(seen.max_ns)];
            assert_eq!(quantiles, [Some(nanos); 4], "{seen:?}");
            assert_eq!(seen.mean_ns, nanos as f64);
        }
    }

    #[test]
    fn a_quantile_needs_decisions_beyond_it() {
        let quantiles = |decisions: usize| {
            let mut latency = Latency::default();
            (0..decisions).for_each(|_| latency.add(1000, &[("rego_query_eval", 900)]));
            let seen = latency.evaluation().unwrap();
            let known = [seen.p50_ns, seen.p95_ns, seen.p99_ns].map(|q| q.is_some());
            (known, seen.timers.first().map(|t| t.part_of_slowest.is_some()))
        };
        assert_eq!(quantiles(1), ([false; 3], None));
        assert_eq!(quantiles(20), ([true, false, false], Some(false)));
        assert_eq!(quantiles(999), ([true, true, false], Some(true)));
        assert_eq!(quantiles(1000).0, [true; 3]);
    }
}
