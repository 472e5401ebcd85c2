//! Prometheus metrics of decisions, as a projection of the docket like any other sink: counted once when
//! delivered, from its own consumer group. `encode` tallies, `send` adds the tally to the registry.

use std::sync::Arc;

use super::{Outcome, Sink};
use crate::decision::record::Record;
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
    for record in batch {
        let series = Series { service: record.service.to_string(), policy: record.policy.to_string(), verdict: record.verdict, revision: revision(record) };
        *tally.counts.entry(series).or_default() += 1;
        if let Some(duration) = record.duration {
            let key = (record.service.to_string(), record.policy.to_string());
            tally.durations.entry(key).or_default().push(duration as f64 / 1e9);
        }
    }
    tally
}

fn revision(record: &Record<'_>) -> String {
    match record.revisions().as_slice() {
        [] => String::new(),
        [(_, revision)] => revision.to_string(),
        several => {
            let mut pairs: Vec<String> = several.iter().map(|(name, revision)| format!("{name}@{revision}")).collect();
            pairs.sort_unstable();
            pairs.join(",")
        }
    }
}

impl Sink for Metrics {
    type Body = Tally;

    fn encode(&self, batch: &[Record<'_>]) -> Tally {
        tally(batch)
    }

    async fn send(&self, tally: &Tally) -> Outcome {
        self.decisions.add(tally);
        Outcome::Delivered
    }
}
