//! What is told of decisions under IDs that other decisions had before.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::Batch;
use super::send::Sending;
use crate::clock::now;
use crate::decision::record::Record;
use crate::log::RecordWriter;
use crate::spike::{Example, Finding, Kind};
use crate::stage::events;

/// Without one for so long, that is over.
const OVER: Duration = Duration::from_secs(60);

impl<L: RecordWriter> Sending<L> {
    /// What people are told of a decision under the id of another; not of every one.
    pub(super) fn reused(&self, record: &Record<'_>) -> Option<Finding> {
        let deliver = &self.deliver;
        let (kind, service) = (Kind::DecisionIdReused, &*record.service);
        if deliver.pipeline.file.spikes.is_none() || !deliver.events.is_due(kind, service) {
            return None;
        }
        let id: String = record.decision_id.chars().take(100).collect();
        let detail = format!(
            "the decision id {id} was used before, for another decision; both are stored, and more may follow"
        );
        let (decision_id, trace_id) = (record.decision_id.to_string(), record.trace_id.to_string());
        let examples = vec![Example { trace_id, decision_id }];
        Some(Finding {
            observed: 1,
            detail,
            examples,
            ..events::finding(kind, service, &deliver.name, now())
        })
    }

    /// A producer that gives IDs twice does so again and again: counted all, told now and then.
    pub(super) fn tell_reused(&self, batch: &Batch, reused: &[usize]) {
        let (deliver, now) = (&self.deliver, Instant::now());
        let mut told = self.reused.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(first) = reused.first().map(|i| &batch.records[*i]) else {
            if let Some(line) = told.quiet(OVER, now) {
                tracing::info!(
                    part = deliver.name,
                    decisions = line.failures,
                    seconds = line.lasted.as_secs(),
                    "decision_id_reused: no more of it"
                );
            }
            return;
        };
        deliver.meters.reused.with_label_values(&[&deliver.name]).inc_by(reused.len() as u64);
        if let Some(line) = told.seen((), reused.len() as u64, now) {
            tracing::warn!(
                part = deliver.name,
                partition = first.partition,
                offset = first.offset,
                decisions = line.failures,
                seconds = line.lasted.as_secs(),
                "decision_id_reused: other decisions under ids that were used before; all of them are delivered"
            );
        }
    }
}
