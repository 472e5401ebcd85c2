//! Prometheus metrics of decisions, as a projection of the docket like any other sink: counted once when
//! delivered, from its own consumer group. `encode` tallies, `send` adds the tally to the registry.

pub mod config;
pub mod query;

use std::sync::Arc;

use super::{Outcome, Sink};
use crate::decision::record::Record;
use crate::decision::verdict::Verdict;
use crate::metrics::exemplars::Exemplar;
use crate::metrics::{Decisions, Series, Tally};

pub struct Metrics {
    decisions: Arc<Decisions>,
}

impl Metrics {
    pub fn new(decisions: Arc<Decisions>) -> Metrics {
        Metrics { decisions }
    }
}

pub fn tally(batch: &[Record<'_>]) -> Tally {
    let mut tally = Tally::default();
    for record in batch.iter().filter(|r| r.verdict != Verdict::Finding) {
        let exemplar = |value| Exemplar {
            trace_id: record.trace_id,
            span_id: record.span_id,
            at: record.timestamp,
            value,
        };
        let series = Series {
            service: record.service.to_string(),
            policy: record.policy.to_string(),
            verdict: record.verdict,
            revision: record.revision(),
        };
        let (count, denied) = tally.counts.entry(series).or_default();
        if *count == 0 {
            let bundles = record.revisions().into_iter().map(|(bundle, revision)| {
                [record.service.to_string(), bundle.into_owned(), revision.into_owned()]
            });
            tally.bundles.extend(bundles);
        }
        *count += 1;
        if record.verdict != Verdict::Allow {
            *denied = Some(exemplar(1.0));
        }
        if let Some(duration) = record.duration {
            let seconds = duration as f64 / 1e9;
            tally
                .durations
                .entry((record.service.to_string(), record.policy.to_string()))
                .or_default()
                .add(seconds, exemplar(seconds));
        }
    }
    tally
}

impl Sink for Metrics {
    type Body = Tally;

    fn encode(&self, batch: &[Record<'_>]) -> Tally {
        tally(batch)
    }

    fn size(_: &Tally) -> usize {
        0
    }

    async fn send(&self, tally: &Tally) -> Outcome {
        self.decisions.add(tally, crate::clock::now() / 1_000_000_000);
        Outcome::Delivered
    }
}
