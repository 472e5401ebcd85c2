//! Sends one batch until each of its records was acknowledged or is in rejects.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

use super::batch::Batch;
use super::{Deliver, Shared, Triage};
use crate::clock::now;
use crate::decision::record::Record;
use crate::decision::reject::{Reason, Reject};
use crate::decision::time;
use crate::http::failure::{Cause, Failure, Refusal, Retry};
use crate::log::dead_letter::{cut, cut_to_fit, dead_letter};
use crate::log::headers::{self, Origin};
use crate::log::{Outgoing, RecordWriter};
use crate::sink::Outcome;
use crate::sink::any::Request;

/// What the tasks that send share.
pub struct Sending<L> {
    pub(super) deliver: Arc<Deliver>,
    /// Without it, the records are of no assignment that could end: a replay's, or another sink's.
    offsets: Option<Shared>,
    rejects: L,
    pub(super) stop: CancellationToken,
    jitter: Mutex<rand::rngs::SmallRng>,
}

/// Records that are still to be delivered, in their order, and how often they were sent already.
struct Group {
    records: Vec<usize>,
    attempts: u32,
}

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
            let body = self.encode(batch, &records);
            self.deliver(batch, body, Triage { wanted: records, ..Triage::default() }).await
        })
    }
}

/// A group that is throttled or not answered in time so often is halved: it may be more than the server can do
/// at once, and a server that is given it again and again does nothing else. Not further than to so many records.
const HALVE_AFTER: u32 = 4;
const HALVED_TO: usize = 16;

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
        Sending { deliver, offsets: None, rejects, stop, jitter }
    }

    /// A batch's first body, and what is to become of each of its records. `is_new` tells repeats.
    pub(super) fn triage(
        &self,
        batch: &mut Batch,
        mut is_new: impl FnMut(i32, &str) -> bool,
    ) -> (Box<dyn Request>, Triage) {
        let deliver = &self.deliver;
        let oldest = deliver.max_age.map(|age| now().saturating_sub(time::nanos(age)));
        let mut triage =
            Triage { wanted: Vec::with_capacity(batch.records.len()), ..Triage::default() };
        let mut seen = Vec::with_capacity(batch.records.len());
        let mut repeats = 0;
        let body = {
            let values: Vec<_> = batch
                .records
                .iter()
                .map(|item| deliver.redaction.apply(batch.value(item)))
                .collect();
            let mut records = Vec::with_capacity(batch.records.len());
            for (i, (item, value)) in batch.records.iter().zip(&values).enumerate() {
                let record = match Record::parse(value) {
                    Ok(record) => record,
                    Err(e) => {
                        triage
                            .broken
                            .push((i, Reject::new(Reason::BadDocketRecord, e.to_string())));
                        continue;
                    }
                };
                seen.push((i, record.timestamp));
                if !is_new(item.partition, &record.decision_id) {
                    repeats += 1;
                } else if oldest.is_some_and(|oldest| record.timestamp < oldest) {
                    triage.old.push(i);
                } else {
                    records.push(record);
                    triage.wanted.push(i);
                }
            }
            deliver.sink.clone().encode(&records)
        };
        if repeats > 0 {
            deliver.meters.delivered.with_label_values(&[&deliver.name, "repeat"]).inc_by(repeats);
        }
        for (i, timestamp) in seen {
            let partition = batch.records[i].partition;
            batch.records[i].timestamp = timestamp;
            batch.saw(partition, timestamp);
        }
        (body, triage)
    }

    /// Sees every record of a batch acknowledged or in rejects, as the loop does.
    pub async fn send_all(&self, mut batch: Batch) -> bool {
        let (body, triage) = self.triage(&mut batch, |_, _| true);
        self.deliver(&batch, body, triage).await
    }

    /// Sees every record of a batch acknowledged or in rejects; `false` if the batch was given up.
    pub(super) async fn deliver(
        &self,
        batch: &Batch,
        body: Box<dyn Request>,
        triage: Triage,
    ) -> bool {
        for (i, reject) in triage.broken {
            self.reject(batch, i, &reject, None, 0).await;
        }
        if !triage.old.is_empty() && !self.too_old(batch, triage.old).await {
            return false;
        }
        // The first group comes encoded.
        let mut first = Some(body);
        let mut groups = vec![Group { records: triage.wanted, attempts: 0 }];
        while let Some(group) = groups.pop() {
            if group.records.is_empty() {
                continue;
            }
            let body = first.take().unwrap_or_else(|| self.encode(batch, &group.records));
            match self.send(batch, group, body).await {
                None => return false,
                // In their order: the last pushed is sent first.
                Some(rest) => groups.extend(rest.into_iter().rev()),
            }
        }
        true
    }

    /// Records older than the sink takes go to the sink that is set for them, or to rejects.
    async fn too_old(&self, batch: &Batch, old: Vec<usize>) -> bool {
        let deliver = &self.deliver;
        if let Some(onward) = &deliver.too_old {
            let count = old.len() as u64;
            let delivered = onward.deliver(batch, old).await;
            if delivered {
                deliver
                    .meters
                    .delivered
                    .with_label_values(&[&deliver.name, "too_old"])
                    .inc_by(count);
            }
            return delivered;
        }
        let limit = deliver.max_age.unwrap_or_default();
        for i in old {
            let reject = Reject::new(
                Reason::TooOld,
                format!(
                    "the decision is older than {} s, which is all that the sink takes (max_age)",
                    limit.as_secs()
                ),
            );
            self.reject(batch, i, &reject, None, 0).await;
        }
        true
    }

    fn encode(&self, batch: &Batch, group: &[usize]) -> Box<dyn Request> {
        let values: Vec<_> = group
            .iter()
            .map(|i| self.deliver.redaction.apply(batch.value(&batch.records[*i])))
            .collect();
        let records: Vec<Record<'_>> =
            values.iter().filter_map(|value| Record::parse(value).ok()).collect();
        self.deliver.sink.clone().encode(&records)
    }

    fn is_current(&self, batch: &Batch) -> bool {
        let Some(offsets) = &self.offsets else { return true };
        let offsets = offsets.lock();
        batch.segments.iter().any(|s| offsets.is_current(s))
    }

    /// Sends one group until it is answered; returns the groups that are left of it, or `None` if its
    /// partitions are another's now.
    async fn send(
        &self,
        batch: &Batch,
        group: Group,
        body: Box<dyn Request>,
    ) -> Option<Vec<Group>> {
        let meters = &self.deliver.meters;
        let name = self.deliver.name.as_str();
        let Group { records, mut attempts } = group;
        let halves = |attempts| {
            let (left, right) = records.split_at(records.len() / 2);
            Some(vec![
                Group { records: left.to_vec(), attempts },
                Group { records: right.to_vec(), attempts },
            ])
        };
        loop {
            if !self.is_current(batch) {
                return None;
            }
            attempts += 1;
            meters.sent_bytes.with_label_values(&[name]).inc_by(body.size() as u64);
            match body.send().await {
                Outcome::Delivered => {
                    meters.requests.with_label_values(&[name, "ok"]).inc();
                    self.recovered(attempts);
                    self.delivered(batch, &records);
                    return Some(Vec::new());
                }
                Outcome::Failed(Failure::Retry(retry)) => {
                    meters.requests.with_label_values(&[name, retry.cause.as_str()]).inc();
                    self.pause(&retry, attempts).await;
                    let too_much = matches!(retry.cause, Cause::Throttled | Cause::Timeout);
                    if too_much && attempts.is_multiple_of(HALVE_AFTER) && records.len() > HALVED_TO
                    {
                        return halves(attempts);
                    }
                }
                Outcome::Failed(Failure::Refused(refusal)) => {
                    meters.requests.with_label_values(&[name, "refused"]).inc();
                    self.recovered(attempts);
                    if let [only] = records.as_slice() {
                        self.refuse(batch, *only, &refusal, attempts).await;
                        return Some(Vec::new());
                    }
                    return halves(0);
                }
                Outcome::Each(each) => {
                    meters.requests.with_label_values(&[name, "partial"]).inc();
                    let (again, pause) = self.each(batch, &records, each, attempts).await;
                    match pause {
                        Some(retry) => self.pause(&retry, attempts).await,
                        None => self.recovered(attempts),
                    }
                    return Some(vec![Group { records: again, attempts }]);
                }
            }
        }
    }

    /// Settles an answer that tells of each record; returns those to send again, and why.
    async fn each(
        &self,
        batch: &Batch,
        group: &[usize],
        each: Vec<Result<(), Failure>>,
        attempts: u32,
    ) -> (Vec<usize>, Option<Retry>) {
        let (mut delivered, mut again, mut why) = (Vec::new(), Vec::new(), None);
        for (i, one) in group.iter().zip(each) {
            match one {
                Ok(()) => delivered.push(*i),
                Err(Failure::Refused(refusal)) => self.refuse(batch, *i, &refusal, attempts).await,
                Err(Failure::Retry(retry)) => {
                    again.push(*i);
                    why = Some(retry);
                }
            }
        }
        self.delivered(batch, &delivered);
        (again, why)
    }

    fn delivered(&self, batch: &Batch, group: &[usize]) {
        let meters = &self.deliver.meters;
        let name = self.deliver.name.as_str();
        meters.delivered.with_label_values(&[name, "delivered"]).inc_by(group.len() as u64);
        let latency = meters.latency.with_label_values(&[name]);
        let now = now();
        for i in group {
            latency.observe((now - batch.records[*i].timestamp).max(0) as f64 / 1e9);
        }
    }

    async fn refuse(&self, batch: &Batch, i: usize, refusal: &Refusal, attempts: u32) {
        let reject = Reject::new(Reason::Refused, refusal.reason.clone());
        self.reject(batch, i, &reject, Some(refusal.status), attempts).await;
    }

    /// Puts a record into rejects, however long that takes: it may not be lost.
    async fn reject(
        &self,
        batch: &Batch,
        i: usize,
        reject: &Reject,
        status: Option<u16>,
        attempts: u32,
    ) {
        let deliver = &self.deliver;
        let item = &batch.records[i];
        let topic = deliver.pipeline.docket_topic();
        let origin =
            Origin { topic: &topic, partition: item.partition, offset: item.offset, element: 0 };
        let value = batch.value(item);
        let rejects = deliver.pipeline.rejects_topic();
        let mut kept = cut_to_fit(value.len(), deliver.rejects_limit);
        let received = time::format(now());
        loop {
            let letter = dead_letter("deliver", value, reject, &origin, &received, kept);
            let mut all = headers::add(letter.headers, headers::SINK, &deliver.name);
            all = headers::add(all, headers::ATTEMPTS, &attempts.to_string());
            if let Some(status) = status {
                all = headers::add(all, headers::STATUS, &status.to_string());
            }
            let record =
                Outgoing { topic: &rejects, key: None, payload: &letter.value, headers: all };
            match self.rejects.write(record).await {
                Ok(()) => break,
                Err(error) => {
                    let too_large = error.rdkafka_error_code()
                        == Some(rdkafka::types::RDKafkaErrorCode::MessageSizeTooLarge);
                    if too_large {
                        // Less each time, whatever the topic takes.
                        kept = Some(kept.map_or(cut(deliver.rejects_limit), |kept| kept / 2));
                    }
                    tracing::error!(part = deliver.name, %error, "a refused record can't be written to rejects yet");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
        deliver.meters.delivered.with_label_values(&[&deliver.name, "refused"]).inc();
        deliver.meters.rejects.with_label_values(&[&deliver.name, reject.reason.as_str()]).inc();
        tracing::warn!(
            part = deliver.name,
            reason = reject.reason.as_str(),
            status,
            partition = item.partition,
            offset = item.offset,
            "a record went to rejects"
        );
    }

    /// Waits before sending again: exponential with full jitter, or as long as the server wants.
    async fn pause(&self, retry: &Retry, attempts: u32) {
        let delivery = &self.deliver.delivery;
        let ceiling = delivery
            .retry_initial
            .0
            .saturating_mul(1 << (attempts - 1).min(16))
            .min(delivery.retry_max.0);
        let jittered = ceiling
            .mul_f64(self.jitter.lock().unwrap_or_else(PoisonError::into_inner).random::<f64>());
        let wait =
            retry.after.map_or(jittered, |after| after + jittered.min(Duration::from_secs(1)));
        let name = self.deliver.name.as_str();
        self.deliver.meters.failing.with_label_values(&[name, retry.cause.as_str()]).set(1);
        let detail = format!("{}: {}", retry.cause.as_str(), retry.detail);
        self.deliver.health.note(&self.requests(), Err(detail));
        match attempts {
            1 => tracing::info!(
                part = name,
                cause = retry.cause.as_str(),
                detail = retry.detail,
                "the sink can't be served; trying again"
            ),
            2..=5 => tracing::warn!(
                part = name,
                cause = retry.cause.as_str(),
                detail = retry.detail,
                attempts,
                "the sink can't be served; trying again"
            ),
            _ => tracing::error!(
                part = name,
                cause = retry.cause.as_str(),
                detail = retry.detail,
                attempts,
                "the sink can't be served; its decisions wait in Kafka"
            ),
        }
        tokio::time::sleep(wait).await;
    }

    /// What health calls the sink's answers.
    fn requests(&self) -> String {
        format!("{}/{} requests", self.deliver.pipeline.name(), self.deliver.name)
    }

    fn recovered(&self, attempts: u32) {
        if attempts > 1 {
            tracing::info!(part = self.deliver.name, attempts, "the sink can be served again");
            self.deliver.health.note(&self.requests(), Ok(()));
        }
        use Cause::*;
        for cause in [Connection, Timeout, Credentials, Throttled, Server, Misconfigured] {
            self.deliver
                .meters
                .failing
                .with_label_values(&[&self.deliver.name, cause.as_str()])
                .set(0);
        }
    }
}
