//! Sends one batch until each of its records was acknowledged or is in rejects.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio_util::sync::CancellationToken;

use super::batch::Batch;
use super::{Deliver, Shared};
use crate::clock::now;
use crate::decision::record::Record;
use crate::decision::reject::{Reason, Reject};
use crate::decision::time;
use crate::log::headers::{self, Origin};
use crate::sink::{One, Outcome, Refusal, Retry, Sink};
use crate::stage::rejects::{dead_letter, may_not_fit};

/// What the tasks that send share.
pub(super) struct Sending<S> {
    pub(super) deliver: Arc<Deliver<S>>,
    pub(super) offsets: Shared,
    pub(super) rejects: FutureProducer,
    pub(super) stop: CancellationToken,
}

impl<S: Sink> Sending<S> {
    /// Sees every record of a batch acknowledged or in rejects; `false` if the batch was given up.
    pub(super) async fn deliver(&self, batch: &Batch, body: S::Body, wanted: Vec<usize>, broken: Vec<(usize, Reject)>) -> bool {
        for (i, reject) in broken {
            self.reject(batch, i, &reject, None, 0).await;
        }
        // Groups of records that are still to be delivered. The first comes encoded.
        let mut first = Some(body);
        let mut groups = vec![wanted];
        while let Some(group) = groups.pop() {
            if group.is_empty() {
                continue;
            }
            let body = first.take().unwrap_or_else(|| self.encode(batch, &group));
            match self.send(batch, group, body).await {
                None => return false,
                // The halves in their order: the last pushed is sent first.
                Some(rest) => groups.extend(rest.into_iter().rev()),
            }
        }
        true
    }

    fn encode(&self, batch: &Batch, group: &[usize]) -> S::Body {
        let records: Vec<Record<'_>> = group.iter().filter_map(|i| Record::parse(batch.value(&batch.records[*i])).ok()).collect();
        self.deliver.sink.encode(&records)
    }

    /// Sends one group until it is answered; returns the groups that are left of it, or `None` if its
    /// partitions are another's now.
    async fn send(&self, batch: &Batch, group: Vec<usize>, body: S::Body) -> Option<Vec<Vec<usize>>> {
        let meters = &self.deliver.meters;
        let name = self.deliver.name.as_str();
        let mut attempts = 0u32;
        loop {
            if !batch.segments.iter().any(|s| self.offsets.lock().is_current(s)) {
                return None;
            }
            attempts += 1;
            match self.deliver.sink.send(&body).await {
                Outcome::Delivered => {
                    meters.requests.with_label_values(&[name, "ok"]).inc();
                    self.recovered(attempts);
                    self.delivered(batch, &group);
                    return Some(Vec::new());
                }
                Outcome::Retry(retry) => {
                    meters.requests.with_label_values(&[name, retry.cause.as_str()]).inc();
                    self.pause(&retry, attempts).await;
                }
                Outcome::Refused(refusal) => {
                    meters.requests.with_label_values(&[name, "refused"]).inc();
                    self.recovered(attempts);
                    if let [only] = group.as_slice() {
                        self.refuse(batch, *only, &refusal, attempts).await;
                        return Some(Vec::new());
                    }
                    let (left, right) = group.split_at(group.len() / 2);
                    return Some(vec![left.to_vec(), right.to_vec()]);
                }
                Outcome::Each(each) => {
                    meters.requests.with_label_values(&[name, "partial"]).inc();
                    let (again, pause) = self.each(batch, &group, each, attempts).await;
                    match pause {
                        Some(retry) => self.pause(&retry, attempts).await,
                        None => self.recovered(attempts),
                    }
                    return Some(vec![again]);
                }
            }
        }
    }

    /// Settles an answer that tells of each record; returns those to send again, and why.
    async fn each(&self, batch: &Batch, group: &[usize], each: Vec<One>, attempts: u32) -> (Vec<usize>, Option<Retry>) {
        let (mut delivered, mut again, mut why) = (Vec::new(), Vec::new(), None);
        for (i, one) in group.iter().zip(each) {
            match one {
                One::Delivered => delivered.push(*i),
                One::Refused(refusal) => self.refuse(batch, *i, &refusal, attempts).await,
                One::Retry(retry) => {
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
    async fn reject(&self, batch: &Batch, i: usize, reject: &Reject, status: Option<u16>, attempts: u32) {
        let deliver = &self.deliver;
        let item = &batch.records[i];
        let topic = deliver.pipeline.docket_topic();
        let origin = Origin { topic: &topic, partition: item.partition, offset: item.offset, element: 0 };
        let value = batch.value(item);
        let rejects = deliver.pipeline.rejects_topic();
        let mut cut = may_not_fit(value.len(), deliver.rejects_limit);
        let received = time::format(now());
        loop {
            let letter = dead_letter("deliver", value, reject, &origin, &received, cut);
            let mut all = headers::add(letter.headers, headers::SINK, &deliver.name);
            all = headers::add(all, headers::ATTEMPTS, &attempts.to_string());
            if let Some(status) = status {
                all = headers::add(all, headers::STATUS, &status.to_string());
            }
            let record = FutureRecord::<(), [u8]>::to(&rejects).payload(&letter.value).headers(all);
            match self.rejects.send(record, Duration::from_secs(30)).await {
                Ok(_) => break,
                Err((error, _)) => {
                    let too_large = error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::MessageSizeTooLarge);
                    cut = cut || too_large;
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
        let ceiling = delivery.retry_initial.0.saturating_mul(1 << (attempts - 1).min(16)).min(delivery.retry_max.0);
        let jittered = ceiling.mul_f64(rand::random::<f64>());
        let wait = retry.after.map_or(jittered, |after| after + jittered.min(Duration::from_secs(1)));
        let name = self.deliver.name.as_str();
        self.deliver.meters.failing.with_label_values(&[name, retry.cause.as_str()]).set(1);
        match attempts {
            1 => tracing::info!(part = name, cause = retry.cause.as_str(), detail = retry.detail, "the sink can't be served; trying again"),
            2..=5 => tracing::warn!(part = name, cause = retry.cause.as_str(), detail = retry.detail, attempts, "the sink can't be served; trying again"),
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

    fn recovered(&self, attempts: u32) {
        if attempts > 1 {
            tracing::info!(part = self.deliver.name, attempts, "the sink can be served again");
        }
        use crate::sink::Cause::*;
        for cause in [Connection, Timeout, Credentials, Throttled, Server, Misconfigured] {
            self.deliver.meters.failing.with_label_values(&[&self.deliver.name, cause.as_str()]).set(0);
        }
    }
}
