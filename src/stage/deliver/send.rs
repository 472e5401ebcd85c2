//! Sends one batch until each of its records was acknowledged or is in rejects.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rand::SeedableRng;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, Item};
use super::group::{AT_ONCE, Absent, Group, Letter, Next, Seen};
use super::rejected::Rejected;
use super::repeats::Noted;
use super::waiting::{Awaiting, Newest};
use super::{Deliver, Shared, Triage};
use crate::clock::now;
use crate::decision::record::Record;
use crate::decision::reject::{Reason, Reject};
use crate::http::answer;
use crate::http::failure::{Cause, Failure, Refusal, Retry};
use crate::log::RecordWriter;
use crate::sink::Outcome;
use crate::sink::any::Request;
use crate::stage::events;
use crate::telemetry::REFUSED;
use crate::telemetry::outage::Outage;

/// What the tasks that send share.
pub struct Sending<L> {
    pub(super) deliver: Arc<Deliver>,
    /// Without it, the records are of no assignment that could end: a replay's, or another sink's.
    offsets: Option<Shared>,
    pub(super) rejects: L,
    pub(super) stop: CancellationToken,
    pub(super) jitter: Mutex<rand::rngs::SmallRng>,
    pub(super) outage: Mutex<Outage<Cause>>,
    /// IDs that other decisions had before.
    pub(super) reused: Mutex<Outage<()>>,
    /// Records that went to rejects.
    pub(super) rejected: Mutex<Rejected>,
    /// So many requests are on their way at once.
    requests: Semaphore,
    /// Room for batches that wait beside the others.
    room: Arc<Semaphore>,
    /// How many requests were sent, and which was the last of those that the sink took, in whole or in part.
    sent: AtomicU64,
    taken: AtomicU64,
    /// Of amendments that wait, whether newer ones of their decisions came.
    pub(super) newest: Newest,
    pub(super) awaiting: Awaiting,
    /// The sink refuses whatever it is sent, with this status, and so many records alone.
    refuses: Mutex<Option<(u16, u32)>>,
}

/// Told when a batch waits beside others: its room, and the bytes that are left of it.
pub(super) type Park<'p> = dyn Fn(OwnedSemaphorePermit, usize) + Send + Sync + 'p;

/// How a batch is sent.
#[derive(Clone, Copy)]
struct Manner<'m> {
    /// It may wait beside others, for what others pass or for a sink that takes what is too old: told when it does.
    park: Option<&'m Park<'m>>,
    /// A record that is refused alone is rejected, whatever the sink says of others.
    hasty: bool,
}

const PLAIN: Manner<'static> = Manner { park: None, hasty: false };

/// What became of a batch.
#[derive(PartialEq)]
enum Sent {
    All,
    /// Its partitions are another's now.
    GivenUp,
    /// What is left stands alone, and waits for others to pass.
    Waits,
}

/// Units of room for batches that wait.
const ROOM: usize = 64;

/// A sink that takes what is too old for another.
pub trait Fallback: Send + Sync {
    fn deliver<'a>(
        &'a self,
        batch: &'a Batch,
        records: Vec<usize>,
    ) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>>;
}

impl<L: RecordWriter> Fallback for Sending<L> {
    fn deliver<'a>(
        &'a self,
        batch: &'a Batch,
        records: Vec<usize>,
    ) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(async move {
            let mut queue = VecDeque::from([Group::new(records, None)]);
            self.work_off(batch, &mut queue, PLAIN).await == Sent::All
        })
    }
}

impl<L: RecordWriter> Sending<L> {
    pub(super) fn new(
        deliver: Arc<Deliver>,
        offsets: Shared,
        rejects: L,
        stop: CancellationToken,
    ) -> Sending<L> {
        Sending { offsets: Some(offsets), ..Sending::apart(deliver, rejects, stop) }
    }

    /// Sends records that no consumer group of this sink has read.
    pub fn apart(deliver: Arc<Deliver>, rejects: L, stop: CancellationToken) -> Sending<L> {
        let jitter = Mutex::new(rand::rngs::SmallRng::seed_from_u64(deliver.seed));
        Sending {
            requests: Semaphore::new(deliver.concurrency.max(1)),
            deliver,
            offsets: None,
            rejects,
            stop,
            jitter,
            outage: Mutex::default(),
            reused: Mutex::default(),
            rejected: Mutex::default(),
            room: Arc::new(Semaphore::new(ROOM)),
            sent: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            newest: Newest::default(),
            awaiting: Awaiting::default(),
            refuses: Mutex::default(),
        }
    }

    /// Sees every record of a batch acknowledged or in rejects, as the loop does. There are no others to wait for.
    pub async fn send_all(&self, mut batch: Batch) -> bool {
        let (body, triage) = self.triage(&mut batch, |_, _| Noted::New);
        self.all(&mut batch, body, triage, Manner { park: None, hasty: true }).await
    }

    /// Sees every record of a batch acknowledged or in rejects; `false` if the batch was given up. `park` is told when the batch
    /// waits beside others from now on.
    pub(super) async fn deliver(
        &self,
        batch: &mut Batch,
        body: Box<dyn Request>,
        triage: Triage,
        park: &Park<'_>,
    ) -> bool {
        self.all(batch, body, triage, Manner { park: Some(park), hasty: false }).await
    }

    async fn all(
        &self,
        batch: &mut Batch,
        body: Box<dyn Request>,
        triage: Triage,
        manner: Manner<'_>,
    ) -> bool {
        let Triage { wanted, mut old, broken, findings, repeats } = triage;
        let docket = self.deliver.pipeline.docket_topic();
        for finding in &findings {
            events::write(&self.rejects, &docket, &self.deliver.name, finding).await;
        }
        let unsent = |(record, reject)| Letter { record, reject, status: None, attempts: 0 };
        let mut letters: Vec<Letter> = broken.into_iter().map(unsent).collect();
        if self.deliver.too_old.is_none() {
            letters.extend(old.drain(..).map(|record| unsent((record, self.old()))));
        }
        self.reject(batch, letters).await;
        // The first group comes encoded.
        let mut queue = VecDeque::from([Group::new(wanted, Some(body))]);
        let sent = self.work_off(batch, &mut queue, manner).await;
        if sent == Sent::GivenUp {
            return false;
        }
        if queue.is_empty() && old.is_empty() {
            self.count("repeat", repeats);
            return true;
        }
        // What is left holds up only itself: what others pass, what is not there yet, or the other sink.
        let _waiting = self.waiting(batch, &queue);
        if let Some(park) = manner.park
            && let Some(room) = self.room_for(batch, &queue, &old)
        {
            batch.keep(queue.iter_mut().map(|group| &mut group.records).chain([&mut old]));
            park(room, batch.held());
        }
        let batch = &*batch;
        let manner = Manner { park: None, ..manner };
        let (sent, taken) =
            tokio::join!(self.work_off(batch, &mut queue, manner), self.too_old(batch, old));
        let all = sent == Sent::All && taken;
        // What is given up is read again, and then looks like a repeat again.
        if all {
            self.count("repeat", repeats);
        }
        all
    }

    pub(super) fn count(&self, outcome: &str, records: usize) {
        let delivered = &self.deliver.meters.delivered;
        delivered.with_label_values(&[&self.deliver.name, outcome]).inc_by(records as u64);
    }

    /// Room for what is left of a batch, if there is any.
    fn room_for(
        &self,
        batch: &Batch,
        queue: &VecDeque<Group>,
        old: &[usize],
    ) -> Option<OwnedSemaphorePermit> {
        let left = queue.iter().flat_map(|group| &group.records).chain(old);
        let bytes: usize = left.map(|i| batch.records[*i].bytes().len()).sum();
        let all = self.deliver.delivery.batch_bytes.0.saturating_mul(2).max(1);
        let units = bytes.saturating_mul(ROOM).div_ceil(all).max(1);
        self.room.clone().try_acquire_many_owned(u32::try_from(units).ok()?).ok()
    }

    /// Hands records that are older than the sink takes to the sink that is set for them.
    async fn too_old(&self, batch: &Batch, old: Vec<usize>) -> bool {
        let deliver = &self.deliver;
        let Some(onward) = deliver.too_old.as_ref().filter(|_| !old.is_empty()) else {
            return true;
        };
        let count = old.len();
        let delivered = onward.deliver(batch, old).await;
        if delivered {
            self.count("too_old", count);
        }
        delivered
    }

    /// Why a record goes to rejects that is older than the sink takes.
    fn old(&self) -> Reject {
        let limit = self.deliver.max_age.unwrap_or_default().as_secs();
        let detail = format!(
            "the decision is older than {limit} s, which is all that the sink takes (max_age)"
        );
        Reject::new(Reason::TooOld, detail)
    }

    /// What is left of a record for the sink, if that is less than all.
    pub(super) fn less(&self, item: &Item) -> Option<Vec<u8>> {
        match self.deliver.redaction.apply(item.bytes()) {
            Cow::Borrowed(_) => None,
            Cow::Owned(less) => Some(less),
        }
    }

    fn encode(&self, batch: &Batch, group: &[usize]) -> Box<dyn Request> {
        let items = || group.iter().map(|i| &batch.records[*i]);
        let values: Vec<_> = items().map(|item| self.less(item)).collect();
        let records: Vec<Record<'_>> = items()
            .zip(&values)
            .filter_map(|(item, value)| item.record(value.as_deref()).ok())
            .map(|(record, _)| record)
            .collect();
        self.deliver.request(&records)
    }

    fn is_current(&self, batch: &Batch) -> bool {
        let Some(offsets) = &self.offsets else { return true };
        let offsets = offsets.lock();
        batch.segments.iter().any(|s| offsets.is_current(s))
    }

    /// Sends groups until none is left.
    async fn work_off(
        &self,
        batch: &Batch,
        queue: &mut VecDeque<Group>,
        manner: Manner<'_>,
    ) -> Sent {
        let mut letters = Vec::new();
        let sent = loop {
            let Some(mut group) = queue.pop_front() else { break Sent::All };
            if group.records.is_empty() {
                continue;
            }
            if manner.park.is_some() && group.waits() && queue.iter().all(Group::waits) {
                queue.push_front(group);
                break Sent::Waits;
            }
            if let Some(at) = group.not_before.take() {
                tokio::time::sleep_until(at).await;
            }
            if group.absent == Some(Absent::Waits) {
                group.absent = Some(self.until_past().await);
            }
            self.leave_superseded(batch, &mut group);
            if group.records.is_empty() {
                continue;
            }
            if !self.is_current(batch) {
                break Sent::GivenUp;
            }
            self.one(batch, group, queue, &mut letters, manner.hasty).await;
            if letters.len() >= AT_ONCE {
                self.reject(batch, std::mem::take(&mut letters)).await;
            }
        };
        if sent != Sent::GivenUp {
            self.reject(batch, letters).await;
        }
        sent
    }

    /// Sends one group once. What is left of it goes back to the queue, what is refused for good to the letters.
    async fn one(
        &self,
        batch: &Batch,
        mut group: Group,
        queue: &mut VecDeque<Group>,
        letters: &mut Vec<Letter>,
        hasty: bool,
    ) {
        let meters = &self.deliver.meters;
        let name = self.deliver.name.as_str();
        let body = group.body.take().unwrap_or_else(|| self.encode(batch, &group.records));
        let (number, taken, took, outcome) = {
            // It is never closed.
            let _permit = self.requests.acquire().await;
            let taken = self.taken.load(Ordering::Relaxed);
            let number = self.sent.fetch_add(1, Ordering::Relaxed) + 1;
            meters.sent_bytes.with_label_values(&[name]).inc_by(body.size() as u64);
            let began = Instant::now();
            let outcome = body.send().await;
            (number, taken, began.elapsed(), outcome)
        };
        group.took = took;
        group.attempts += 1;
        let seen = Seen { sent: self.sent.load(Ordering::Relaxed), taken };
        let requests = |outcome| meters.requests.with_label_values(&[name, outcome]).inc();
        match outcome {
            Outcome::Delivered => {
                requests("ok");
                self.took(number);
                self.recovered();
                self.delivered(batch, &group.records);
            }
            Outcome::Failed(Failure::Retry(retry)) => {
                requests(retry.cause.as_str());
                group.body = Some(body);
                self.failed(group, &retry, seen, queue, letters).await;
            }
            Outcome::Failed(Failure::Refused(refusal)) => {
                requests("refused");
                group.body = Some(body);
                self.refused(group, refusal, seen, queue, letters, hasty).await;
            }
            Outcome::Each(each) => {
                requests("partial");
                let each = each.into_iter().map(|one| one.map(|()| true)).collect();
                self.each(batch, group, (number, seen, each), queue, letters, hasty).await;
            }
            Outcome::Changed(each) => {
                requests("partial");
                self.each(batch, group, (number, seen, each), queue, letters, hasty).await;
            }
        }
    }

    /// Settles an answer that tells of each record.
    async fn each(
        &self,
        batch: &Batch,
        mut group: Group,
        (number, seen, each): (u64, Seen, Vec<Result<bool, Failure>>),
        queue: &mut VecDeque<Group>,
        letters: &mut Vec<Letter>,
        hasty: bool,
    ) {
        let (mut delivered, mut refused, mut again) = (Vec::new(), Vec::new(), Vec::new());
        let (mut why, mut missing) = (None, Vec::new());
        for (i, one) in group.records.iter().zip(each) {
            match one {
                Ok(true) => delivered.push(*i),
                Ok(false) => missing.push(*i),
                Err(Failure::Refused(refusal)) => refused.push((*i, refusal)),
                Err(Failure::Retry(retry)) => {
                    again.push(*i);
                    why = Some(retry);
                }
            }
        }
        let believed = hasty || !delivered.is_empty();
        if !missing.is_empty() {
            if why.is_none() && refused.is_empty() {
                self.recovered();
            }
            self.missing(missing, group.absent, queue);
            if again.is_empty() {
                group = group.left(refused.iter().map(|(i, _)| *i).collect());
            }
        }
        if !delivered.is_empty() {
            self.took(number);
            if why.is_none() {
                self.recovered();
            }
            self.delivered(batch, &delivered);
        }
        let attempts = group.attempts;
        match refused.first() {
            Some(_) if believed => letters.extend(
                refused.into_iter().map(|(record, refusal)| Letter::of(record, refusal, attempts)),
            ),
            // Everything is refused: perhaps that is what the sink does with whatever it gets.
            Some((_, refusal)) if again.is_empty() => {
                let refusal = refusal.clone();
                return self.refused(group, refusal, seen, queue, letters, hasty).await;
            }
            // These are sent again with the others, which are not known yet.
            Some(_) => again.extend(refused.into_iter().map(|(i, _)| i)),
            None => {}
        }
        if let Some(retry) = why {
            again.sort_unstable();
            self.failed(group.left(again), &retry, seen, queue, letters).await;
        }
    }

    /// A group was not taken, and the cause may be an outage.
    async fn failed(
        &self,
        mut group: Group,
        retry: &Retry,
        seen: Seen,
        queue: &mut VecDeque<Group>,
        letters: &mut Vec<Letter>,
    ) {
        let others = group.others_passed(seen);
        let next = group.failed(retry.cause, &retry.detail, seen);
        let wait = self.wait(retry.after, group.backoff);
        if next != Next::Reject {
            self.tell(retry, wait, group.attempts, others);
            if others {
                // The others need not wait for it.
                group.not_before = Some(Instant::now() + group.pause(wait));
            } else {
                tokio::time::sleep(wait).await;
            }
        }
        match next {
            Next::Again if !others => queue.push_front(group),
            Next::AfterOther => queue.insert(queue.len().min(1), group),
            Next::Again | Next::Later => queue.push_back(group),
            Next::Halve => halved(group, queue),
            Next::Reject => {
                let Group { records, attempts, answers, .. } = group;
                let answers = answers.join("; ");
                let reason = format!(
                    "failed {attempts} times, in the end alone, while others passed: {answers}"
                );
                let refusal = Refusal { status: 0, reason };
                letters
                    .extend(records.into_iter().map(|i| Letter::of(i, refusal.clone(), attempts)));
            }
        }
    }

    /// A group was refused as a whole.
    async fn refused(
        &self,
        mut group: Group,
        refusal: Refusal,
        seen: Seen,
        queue: &mut VecDeque<Group>,
        letters: &mut Vec<Letter>,
        hasty: bool,
    ) {
        match group.refused(refusal.reason.clone(), seen, hasty) {
            Next::Reject => {
                let attempts = group.attempts;
                letters.extend(
                    group.records.into_iter().map(|i| Letter::of(i, refusal.clone(), attempts)),
                );
            }
            Next::Halve if self.refuses().is_none() => halved(group, queue),
            next => {
                // It stands alone, or the one that did was refused, too, and nothing was taken since.
                self.refuses_all(&refusal, seen, group.is_refused_first());
                let wait = self.wait(None, group.backoff);
                if queue.is_empty() || group.attempts > 1 || next == Next::Halve {
                    tokio::time::sleep(wait).await;
                }
                match next {
                    Next::Halve => halved(group, queue),
                    _ => queue.push_back(group),
                }
            }
        }
    }

    /// Until a request passes, the sink is taken to refuse everything.
    fn refuses_all(&self, refusal: &Refusal, seen: Seen, another: bool) {
        let mut refuses = self.refuses.lock().unwrap_or_else(PoisonError::into_inner);
        // What passed meanwhile proves otherwise.
        if seen.taken < self.taken.load(Ordering::Relaxed) {
            return;
        }
        let records = refuses.map_or(0, |(_, records)| records) + u32::from(another);
        if refuses.replace((refusal.status, records)).is_none() {
            let name = self.deliver.name.as_str();
            self.deliver.meters.failing.with_label_values(&[name, REFUSED]).set(1);
            let address = self.address();
            // Only what is about the address quotes no decision.
            let said = answer::of_address(&refusal.reason).unwrap_or_default();
            let status = refusal.status;
            let named = refusal.named();
            let why = format!("{address}: it refuses what it is sent, with {named}{said}");
            self.deliver.health.note(&self.requests(), Err(format!("{REFUSED}: {why}")));
            tracing::error!(
                part = name,
                address,
                status,
                detail = format!("{named}{said}"),
                "the sink refuses what it is sent, and has taken nothing since; until it takes something, that is an outage: nothing goes to rejects (docket doctor tries it)"
            );
        }
    }

    /// The status with which the sink refuses everything, if it does, and how many records it refused alone.
    pub(super) fn refuses(&self) -> Option<(u16, u32)> {
        *self.refuses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sink took a request, at least in part.
    fn took(&self, number: u64) {
        let mut refuses = self.refuses.lock().unwrap_or_else(PoisonError::into_inner);
        self.taken.fetch_max(number, Ordering::Relaxed);
        if refuses.take().is_some() {
            let name = self.deliver.name.as_str();
            self.deliver.meters.failing.with_label_values(&[name, REFUSED]).set(0);
            self.deliver.health.note(&self.requests(), Ok(()));
            tracing::info!(part = name, "the sink takes records again");
        }
    }

    fn delivered(&self, batch: &Batch, group: &[usize]) {
        let meters = &self.deliver.meters;
        let name = self.deliver.name.as_str();
        self.count("delivered", group.len());
        let latency = meters.latency.with_label_values(&[name]);
        let now = now();
        for i in group {
            latency.observe((now - batch.records[*i].timestamp).max(0) as f64 / 1e9);
        }
    }
}

/// In their order: the left half is the next.
fn halved(group: Group, queue: &mut VecDeque<Group>) {
    let [left, right] = group.halves();
    queue.push_front(right);
    queue.push_front(left);
}
