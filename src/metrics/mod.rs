//! The decision families: what Prometheus scrapes of the decisions themselves.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use crate::decision::verdict::Verdict;

/// What tells one series from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Series {
    pub service: String,
    pub policy: String,
    pub verdict: Verdict,
    /// The bundles that decided: `revision` for one bundle, `name@revision` joined by commas for several.
    pub revision: String,
}

/// Counts and evaluation times of a batch.
#[derive(Debug, Default)]
pub struct Tally {
    pub counts: HashMap<Series, u64>,
    /// By service and policy: durations in seconds.
    pub durations: HashMap<(String, String), Vec<f64>>,
}

/// At most so many combinations of service, policy, verdict and revision have a series of their own; the
/// rest is counted under `other`.
pub const MAX_SERIES: usize = 10_000;

pub struct Decisions {
    total: IntCounterVec,
    duration: HistogramVec,
    known: Mutex<HashSet<u64>>,
}

impl Decisions {
    pub fn new(pipeline: &str, registry: &Registry) -> Result<Decisions, prometheus::Error> {
        let constant = |opts: Opts| opts.const_label("pipeline", pipeline);
        let total = IntCounterVec::new(
            constant(Opts::new("docket_decisions_total", "Policy decisions, by service, policy, verdict and bundle revision.")),
            &["service", "policy", "verdict", "revision"],
        )?;
        let buckets = vec![25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1.0, 5.0];
        let duration = HistogramVec::new(
            HistogramOpts::new("docket_decision_duration_seconds", "Time that OPA took for a decision.").const_label("pipeline", pipeline).buckets(buckets),
            &["service", "policy"],
        )?;
        registry.register(Box::new(total.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        Ok(Decisions { total, duration, known: Mutex::default() })
    }

    pub fn add(&self, tally: &Tally) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut room = |labels: &[&str]| {
            use std::hash::{DefaultHasher, Hash, Hasher};
            let mut hasher = DefaultHasher::new();
            labels.hash(&mut hasher);
            let key = hasher.finish();
            known.contains(&key) || (known.len() < MAX_SERIES && known.insert(key))
        };
        for (series, count) in &tally.counts {
            let verdict = series.verdict.as_str();
            let labels = [series.service.as_str(), &series.policy, verdict, &series.revision];
            let labels = if room(&labels) { labels } else { ["other", "other", verdict, "other"] };
            self.total.with_label_values(&labels).inc_by(*count);
        }
        for ((service, policy), durations) in &tally.durations {
            let labels = [service.as_str(), policy.as_str()];
            let histogram = self.duration.with_label_values(&if room(&labels) { labels } else { ["other", "other"] });
            for seconds in durations {
                histogram.observe(*seconds);
            }
        }
    }

    /// Decisions counted so far, by verdict.
    pub fn by_verdict(&self) -> Vec<(Verdict, u64)> {
        use prometheus::core::Collector;
        let mut sums: Vec<_> = Verdict::ALL.iter().map(|v| (*v, 0)).collect();
        for family in self.total.collect() {
            for metric in family.get_metric() {
                let verdict = metric.get_label().iter().find(|l| l.name() == "verdict").map(|l| l.value().to_owned());
                if let Some((_, sum)) = sums.iter_mut().find(|(v, _)| Some(v.as_str()) == verdict.as_deref()) {
                    *sum += metric.get_counter().get_value() as u64;
                }
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// contrib 21290, 39084: series without bound.
    #[test]
    fn series_are_bounded_and_no_decision_is_lost_from_the_counts() {
        let registry = Registry::new();
        let decisions = Decisions::new("p", &registry).unwrap();
        let mut tally = Tally::default();
        for i in 0..MAX_SERIES + 500 {
            let series = Series { service: "s".into(), policy: format!("p{i}"), verdict: Verdict::Deny, revision: "r".into() };
            tally.counts.insert(series, 2);
        }
        decisions.add(&tally);
        decisions.add(&tally);
        let family = registry.gather().into_iter().find(|f| f.name() == "docket_decisions_total").unwrap();
        assert_eq!(family.get_metric().len(), MAX_SERIES + 1);
        let denied = decisions.by_verdict().into_iter().find(|(v, _)| *v == Verdict::Deny).unwrap();
        assert_eq!(denied.1, 4 * (MAX_SERIES as u64 + 500));
    }
}
