//! What is to become of each record of a batch, before it is sent.

use super::batch::{Batch, Item};
use super::repeats::Noted;
use super::send::Sending;
use crate::clock::now;
use crate::decision::reject::{Reason, Reject};
use crate::decision::time;
use crate::decision::verdict::Verdict;
use crate::log::RecordWriter;
use crate::log::value::Identity;
use crate::sink::any::Request;
use crate::spike::Finding;

/// A batch tells of no more ids that were used before.
const FINDINGS: usize = 5;

/// What is to become of the records of a batch.
#[derive(Default)]
pub struct Triage {
    /// To be sent, encoded already.
    pub(super) wanted: Vec<usize>,
    /// Older than the sink takes.
    pub(super) old: Vec<usize>,
    /// No docket records.
    pub(super) broken: Vec<(usize, Reject)>,
    /// What is to be told of ids that were used before.
    pub(super) findings: Vec<Finding>,
    /// How many the sink has already.
    pub(super) repeats: usize,
}

impl<L: RecordWriter> Sending<L> {
    /// A batch's first body, and what is to become of each of its records. `note` tells repeats.
    pub(super) fn triage(
        &self,
        batch: &mut Batch,
        mut note: impl FnMut(&Item, Identity) -> Noted,
    ) -> (Box<dyn Request>, Triage) {
        let deliver = &self.deliver;
        let oldest = deliver.max_age.map(|age| now().saturating_sub(time::nanos(age)));
        let mut triage =
            Triage { wanted: Vec::with_capacity(batch.records.len()), ..Triage::default() };
        let mut seen = Vec::with_capacity(batch.records.len());
        let mut reused = Vec::new();
        let superseded = self.superseded(batch);
        let body = {
            let values: Vec<_> = batch.records.iter().map(|item| self.less(item)).collect();
            let mut records = Vec::with_capacity(batch.records.len());
            for (i, (item, value)) in batch.records.iter().zip(&values).enumerate() {
                let (record, identity) = match item.record(value.as_deref()) {
                    Ok(read) => read,
                    Err(e) => {
                        triage
                            .broken
                            .push((i, Reject::new(Reason::BadDocketRecord, e.to_string())));
                        continue;
                    }
                };
                seen.push((i, record.timestamp));
                if superseded.contains(&i) {
                    continue;
                }
                let noted = note(item, identity);
                if noted == Noted::Reused && record.verdict != Verdict::Finding {
                    reused.push(i);
                    // They are written before the batch is sent.
                    if triage.findings.len() < FINDINGS {
                        triage.findings.extend(self.reused(&record));
                    }
                }
                if noted == Noted::Repeat {
                    triage.repeats += 1;
                } else if oldest.is_some_and(|oldest| record.timestamp < oldest) {
                    triage.old.push(i);
                } else {
                    records.push(record);
                    triage.wanted.push(i);
                }
            }
            deliver.request(&records)
        };
        self.tell_reused(batch, &reused);
        for (i, timestamp) in seen {
            let partition = batch.records[i].partition;
            batch.records[i].timestamp = timestamp;
            batch.saw(partition, timestamp);
        }
        (body, triage)
    }
}
