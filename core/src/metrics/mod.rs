//! The decision families: what Prometheus scrapes of the decisions themselves.
//!
//! `guard` keeps the number of series bounded, `exemplars` remembers a trace for what is counted, `created` when each
//! series began. The registry with them as text for who scrapes (`openmetrics`), and for those to whom it is pushed (`remote_write`, `otlp`), of single `samples`.

pub mod created;
pub mod exemplars;
pub mod guard;
pub mod openmetrics;
pub mod otlp;
pub mod remote_write;
pub mod samples;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};

use crate::decision::verdict::Verdict;
use exemplars::{Exemplar, Exemplars};
use guard::Guard;

/// What tells one series from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Series {
    pub service: String,
    pub policy: String,
    pub verdict: Verdict,
    /// The bundles that decided: `revision` for one bundle, `name@revision` joined by commas for several.
    pub revision: String,
}

/// Evaluation times of a service's policy, in seconds, and a decision for each bucket.
#[derive(Debug, Default)]
pub struct Durations {
    pub seconds: Vec<f64>,
    pub exemplars: [Option<Exemplar>; BUCKETS.len() + 1],
}

impl Durations {
    pub fn add(&mut self, seconds: f64, exemplar: Exemplar) {
        self.seconds.push(seconds);
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        self.exemplars[bucket] = Some(exemplar);
    }
}

/// Counts and evaluation times of a batch.
#[derive(Debug, Default)]
pub struct Tally {
    /// And, of what was not allowed, one of the decisions.
    pub counts: HashMap<Series, (u64, Option<Exemplar>)>,
    /// By service and policy.
    pub durations: HashMap<(String, String), Durations>,
    /// Service, bundle and revision.
    pub bundles: BTreeSet<[String; 3]>,
}

const BUCKETS: [f64; 15] = [
    25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3,
    1.0, 5.0,
];

/// How many combinations of service, policy, verdict and revision have a series of their own, unless the pipeline file says otherwise.
pub const MAX_SERIES: usize = 10_000;
/// Bundles of services.
const MAX_BUNDLES: usize = 1000;

pub struct Decisions {
    total: IntCounterVec,
    duration: HistogramVec,
    bundles: IntGaugeVec,
    folded: IntCounter,
    by_verdict: [AtomicU64; Verdict::ALL.len()],
    guards: Mutex<Guards>,
    exemplars: Arc<Exemplars>,
    pipeline: String,
}

struct Guards {
    counts: Guard<4>,
    durations: Guard<2>,
    bundles: Guard<3>,
}

impl Decisions {
    pub fn new(
        pipeline: &str,
        max_series: usize,
        registry: &Registry,
        exemplars: Arc<Exemplars>,
    ) -> Result<Decisions, prometheus::Error> {
        let constant = |opts: Opts| opts.const_label("pipeline", pipeline);
        let total = IntCounterVec::new(
            constant(Opts::new(
                TOTAL,
                "Policy decisions, by service, policy, verdict and bundle revision.",
            )),
            &["service", "policy", "verdict", "revision"],
        )?;
        let duration = HistogramVec::new(
            HistogramOpts::new(DURATION, "Time that OPA took for a decision.")
                .const_label("pipeline", pipeline)
                .buckets(BUCKETS.to_vec()),
            &["service", "policy"],
        )?;
        let bundles = IntGaugeVec::new(
            constant(Opts::new(
                "docket_bundle_info",
                "Bundle revisions that decided in the last hour; always 1. A new one is a rollout.",
            )),
            &["service", "bundle", "revision"],
        )?;
        let folded = IntCounter::with_opts(constant(Opts::new(
            "docket_decisions_folded_total",
            "Decisions that were counted under `other`, since there were too many series; heavier ones keep theirs.",
        )))?;
        registry.register(Box::new(total.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(bundles.clone()))?;
        registry.register(Box::new(folded.clone()))?;
        let guards = Guards {
            counts: Guard::new(max_series, None),
            durations: Guard::new(max_series.div_ceil(4), None),
            bundles: Guard::new(MAX_BUNDLES, Some(3600)),
        };
        Ok(Decisions {
            total,
            duration,
            bundles,
            folded,
            by_verdict: Default::default(),
            guards: Mutex::new(guards),
            exemplars,
            pipeline: pipeline.to_owned(),
        })
    }

    /// Adds a batch, at a time in seconds.
    pub fn add(&self, tally: &Tally, now: i64) {
        let mut guards = self.guards.lock().unwrap_or_else(PoisonError::into_inner);
        let Guards { counts, durations, bundles } = &mut *guards;
        for gone in counts.tick(now) {
            // What it has counted is kept for when it comes back: a counter that begins anew looks like a restart.
            let values = gone.each_ref().map(String::as_str);
            counts.park(&gone, self.total.with_label_values(&values).get());
            let _ = self.total.remove_label_values(&gone.each_ref().map(String::as_str));
            self.exemplars.forget(TOTAL, &self.pipeline, &gone);
        }
        for gone in durations.tick(now) {
            let _ = self.duration.remove_label_values(&gone.each_ref().map(String::as_str));
            self.exemplars.forget(DURATION, &self.pipeline, &gone);
        }
        for gone in bundles.tick(now) {
            let _ = self.bundles.remove_label_values(&gone.each_ref().map(String::as_str));
        }
        let other = "other".to_owned();
        for (series, (count, exemplar)) in &tally.counts {
            let verdict = series.verdict.as_str();
            if let Some(sum) = Verdict::ALL
                .iter()
                .position(|v| *v == series.verdict)
                .and_then(|i| self.by_verdict.get(i))
            {
                sum.fetch_add(*count, Ordering::Relaxed);
            }
            let mut labels = [
                series.service.clone(),
                series.policy.clone(),
                verdict.to_owned(),
                series.revision.clone(),
            ];
            let mut before = 0;
            if counts.admits(&labels, *count) {
                before = counts.unpark(&labels);
            } else {
                self.folded.inc_by(*count);
                labels = [other.clone(), other.clone(), verdict.to_owned(), other.clone()];
            }
            let count = count + before;
            self.total.with_label_values(&labels.each_ref().map(String::as_str)).inc_by(count);
            if let Some(exemplar) = exemplar {
                self.exemplars.set(TOTAL, &self.pipeline, &labels, None, exemplar);
            }
        }
        for ((service, policy), of) in &tally.durations {
            let mut labels = [service.clone(), policy.clone()];
            if !durations.admits(&labels, of.seconds.len() as u64) {
                labels = [other.clone(), other.clone()];
            }
            let histogram = self.duration.with_label_values(&labels.each_ref().map(String::as_str));
            for seconds in &of.seconds {
                histogram.observe(*seconds);
            }
            for (bucket, exemplar) in of.exemplars.iter().enumerate() {
                if let Some(exemplar) = exemplar {
                    self.exemplars.set(DURATION, &self.pipeline, &labels, Some(bucket), exemplar);
                }
            }
        }
        for bundle in &tally.bundles {
            if bundles.admits(bundle, 1) {
                self.bundles.with_label_values(&bundle.each_ref().map(String::as_str)).set(1);
            }
        }
    }

    /// Decisions counted so far, by verdict.
    pub fn by_verdict(&self) -> Vec<(Verdict, u64)> {
        Verdict::ALL
            .iter()
            .zip(&self.by_verdict)
            .map(|(verdict, sum)| (*verdict, sum.load(Ordering::Relaxed)))
            .collect()
    }
}

const TOTAL: &str = "docket_decisions_total";
const DURATION: &str = "docket_decision_duration_seconds";

#[cfg(test)]
mod tests {
    use super::*;

    /// contrib 21290, 39084: series without bound.
    #[test]
    fn series_are_bounded_and_no_decision_is_lost_from_the_counts() {
        let registry = Registry::new();
        let decisions = Decisions::new("p", 100, &registry, Arc::default()).unwrap();
        let mut tally = Tally::default();
        for i in 0..150 {
            let series = Series {
                service: "s".into(),
                policy: format!("p{i}"),
                verdict: Verdict::Deny,
                revision: "r".into(),
            };
            tally.counts.insert(series, (2, None));
        }
        let series = || {
            registry.gather().into_iter().find(|f| f.name() == "docket_decisions_total").unwrap()
        };
        decisions.add(&tally, 0);
        decisions.add(&tally, 1);
        assert_eq!(series().get_metric().len(), 101);
        assert_eq!(decisions.by_verdict()[1], (Verdict::Deny, 600));
        assert_eq!(decisions.folded.get(), 200);

        // What became heavy gets a series of its own; what became light goes.
        let mut heavy = Tally::default();
        heavy.counts.insert(
            Series {
                service: "s".into(),
                policy: "heavy".into(),
                verdict: Verdict::Deny,
                revision: "r".into(),
            },
            (1000, None),
        );
        decisions.add(&heavy, 2);
        decisions.add(&heavy, 120);
        let has = |policy: &str| {
            series().get_metric().iter().any(|m| m.get_label().iter().any(|l| l.value() == policy))
        };
        assert!(has("heavy") && series().get_metric().len() <= 101);
        decisions.add(&heavy, 8000);
        assert!(series().get_metric().len() > 50, "what is idle stays while there is room");
    }

    /// Twice in six hours: `increase` has to say two, not nothing.
    #[test]
    fn rare_denials_keep_their_count() {
        let registry = Registry::new();
        let decisions = Decisions::new("p", 2, &registry, Arc::default()).unwrap();
        let tally = |policy: &str, count: u64| {
            let mut tally = Tally::default();
            let series = Series {
                service: "s".into(),
                policy: policy.into(),
                verdict: Verdict::Deny,
                revision: "r".into(),
            };
            tally.counts.insert(series, (count, None));
            tally
        };
        let value = |policy: &str| {
            let families = registry.gather();
            let total = families.iter().find(|f| f.name() == TOTAL).unwrap();
            let of =
                |m: &&prometheus::proto::Metric| m.get_label().iter().any(|l| l.value() == policy);
            total.get_metric().iter().find(of).map(|m| m.get_counter().get_value())
        };
        decisions.add(&tally("rare", 1), 0);
        for hour in 1..6 {
            decisions.add(&tally("busy", 100), hour * 3600);
        }
        assert_eq!(value("rare"), Some(1.0), "there is room");
        decisions.add(&tally("rare", 1), 6 * 3600);
        assert_eq!(value("rare"), Some(2.0));
        // Another one takes its place, and it comes back.
        decisions.add(&tally("loud", 500), 6 * 3600 + 100);
        decisions.add(&tally("loud", 500), 6 * 3600 + 200);
        assert_eq!((value("rare"), value("loud")), (None, Some(500.0)));
        decisions.add(&tally("rare", 9000), 6 * 3600 + 300);
        decisions.add(&tally("rare", 9000), 6 * 3600 + 400);
        assert_eq!(value("rare"), Some(9002.0), "it goes on where it was");
    }
}
