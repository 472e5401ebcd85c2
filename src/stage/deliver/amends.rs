//! What is different where a part delivers amendments: what they are of may not be there yet, and of several of one decision the last
//! holds, in whatever order they pass.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::Batch;
use super::group::{Absent, Group};
use super::send::Sending;
use super::waiting::Waiting;
use crate::decision::json;
use crate::log::RecordWriter;

/// What a part that delivers amendments knows of its sink.
pub struct Amends {
    /// The name in the pipeline file.
    pub sink: String,
    /// How far its decisions are, where these have to be there before. Without, nothing is waited for.
    pub decisions: Option<Arc<dyn Decisions>>,
    /// The group that brings them is taken to be done if it has not moved for so long.
    pub patience: Duration,
}

/// Offsets by partition.
pub type Places = BTreeMap<i32, i64>;
/// Nothing while Kafka does not say.
pub type Told<'a> = Pin<Box<dyn Future<Output = Option<Places>> + Send + 'a>>;

/// How far the decisions of a sink are.
pub trait Decisions: Send + Sync {
    /// Where the docket ends, of partitions that hold anything.
    fn ends(&self) -> Told<'_>;
    /// Up to where the sink's own group has finished them.
    fn finished<'a>(&'a self, ends: &'a Places) -> Told<'a>;
}

/// It is asked so often.
const EVERY: Duration = Duration::from_secs(1);
/// A request that is answered in this time was not held up by an outage, in which the decisions would stand still, too.
const SOON: Duration = Duration::from_secs(10);

fn decision_id(value: &[u8]) -> Option<Cow<'_, str>> {
    json::as_str(json::get(std::str::from_utf8(value).ok()?, "decision_id")?)
}

impl<L: RecordWriter> Sending<L> {
    /// Of a batch of amendments, those after which another of the same decision comes in it. Those that wait learn of newer ones.
    pub(super) fn superseded(&self, batch: &Batch) -> HashSet<usize> {
        let mut superseded = HashSet::new();
        if self.deliver.amends.is_none() {
            return superseded;
        }
        let (mut last, mut newest) = (HashMap::new(), self.newest.lock());
        for (i, item) in batch.records.iter().enumerate() {
            let Some(id) = decision_id(item.bytes()) else { continue };
            if let Some((_, offset)) = newest.get_mut(&*id) {
                *offset = item.offset.max(*offset);
            }
            superseded.extend(last.insert(id, i));
        }
        self.count("superseded", superseded.len());
        superseded
    }

    /// Takes note of amendments that will be sent later, when newer ones may have been.
    pub(super) fn waiting(&self, batch: &Batch, queue: &VecDeque<Group>) -> Option<Waiting<'_>> {
        self.deliver.amends.as_ref()?;
        let (mut ids, mut newest) = (Vec::new(), self.newest.lock());
        for i in queue.iter().flat_map(|group| &group.records) {
            let item = &batch.records[*i];
            let Some(id) = decision_id(item.bytes()) else { continue };
            let (waiting, offset) = newest.entry(id.to_string()).or_insert((0, item.offset));
            (*waiting, *offset) = (*waiting + 1, item.offset.max(*offset));
            ids.push(id.into_owned());
        }
        Some(Waiting(&self.newest, ids))
    }

    /// What has waited, and of whose decision a newer one has come, is not sent any more.
    pub(super) fn leave_superseded(&self, batch: &Batch, group: &mut Group) {
        if self.deliver.amends.is_none() {
            return;
        }
        let before = group.records.len();
        {
            let newest = self.newest.lock();
            group.records.retain(|i| {
                let item = &batch.records[*i];
                let id = decision_id(item.bytes());
                let known = id.and_then(|id| newest.get(&*id));
                known.is_none_or(|(_, newest)| *newest <= item.offset)
            });
        }
        if group.records.len() < before {
            group.body = None;
            self.count("superseded", before - group.records.len());
        }
    }

    /// Waits until the sink's own group is past all that stands in the docket now, and so past the decisions whose amendments are known:
    /// these were written after them. Or until it does not move any more: the end of a partition may be what nobody reads.
    pub(super) async fn until_past(&self) -> Absent {
        let past = |sure| Absent::Past { at: Instant::now(), sure };
        let Some(amends) = &self.deliver.amends else { return past(true) };
        let Some(decisions) = &amends.decisions else { return past(true) };
        let ends = loop {
            match decisions.ends().await {
                Some(ends) => break ends,
                None => tokio::time::sleep(EVERY).await,
            }
        };
        let (mut last, mut moved, mut awaits) = (None, Instant::now(), None);
        loop {
            let finished = decisions.finished(&ends).await;
            awaits =
                finished.is_some().then(|| awaits.take().unwrap_or_else(|| self.awaiting.one()));
            if finished.is_none() || finished != last {
                moved = Instant::now();
            }
            // The last offset may be a transaction's marker.
            let is_past = |finished: &Places| {
                ends.iter().all(|(partition, end)| finished.get(partition) >= Some(&(end - 1)))
            };
            match &finished {
                Some(finished) if is_past(finished) => return past(true),
                Some(_) if moved.elapsed() >= amends.patience => return past(false),
                _ => last = finished,
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Whether what is not finished waits on purpose.
    pub(super) fn awaits(&self) -> bool {
        self.awaiting.any()
    }

    /// What these are of is not there: they wait until it must be, and are counted then.
    pub(super) fn missing(
        &self,
        records: Vec<usize>,
        absent: Option<Absent>,
        queue: &mut VecDeque<Group>,
    ) {
        let is_over = match absent {
            Some(Absent::Past { at, sure }) => sure || at.elapsed() < SOON,
            Some(Absent::Waits) | None => false,
        };
        if is_over {
            self.count("missing", records.len());
        } else {
            let mut group = Group::new(records, None);
            group.absent = Some(Absent::Waits);
            queue.push_back(group);
        }
    }
}
