//! Writes what goes to rejects.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use super::batch::Batch;
use super::send::Sending;
use crate::clock::now;
use crate::decision::reject::{Reason, Reject};
use crate::decision::time;
use crate::http::failure::Refusal;
use crate::log::dead_letter::{cut, cut_to_fit, dead_letter};
use crate::log::headers::{self, Origin};
use crate::log::{Outgoing, RecordWriter};

/// A record on its way to rejects.
pub(super) struct Letter {
    pub record: usize,
    pub reject: Reject,
    pub status: Option<u16>,
    pub attempts: u32,
}

/// So many are written at once.
pub(super) const AT_ONCE: usize = 64;

impl Letter {
    /// Of a record that the sink refused.
    pub fn of(record: usize, refusal: Refusal, attempts: u32) -> Letter {
        let reject = Reject::new(Reason::Refused, refusal.reason);
        // What was no refusal has no status.
        let status = Some(refusal.status).filter(|status| *status > 0);
        Letter { record, reject, status, attempts }
    }
}

impl<L: RecordWriter> Sending<L> {
    /// Puts records into rejects, many at once and however long that takes: they may not be lost.
    pub(super) async fn reject(&self, batch: &Batch, letters: Vec<Letter>) {
        for some in letters.chunks(AT_ONCE) {
            together(some.iter().map(|letter| Box::pin(self.write(batch, letter))).collect()).await;
        }
    }

    async fn write(&self, batch: &Batch, letter: &Letter) {
        let Letter { record, reject, status, attempts } = letter;
        let i = *record;
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
            let dead = dead_letter("deliver", value, reject, &origin, &received, kept);
            let mut all = headers::add(dead.headers, headers::SINK, &deliver.name);
            all = headers::add(all, headers::ATTEMPTS, &attempts.to_string());
            if let Some(status) = status {
                all = headers::add(all, headers::STATUS, &status.to_string());
            }
            let record =
                Outgoing { topic: &rejects, key: None, payload: &dead.value, headers: all };
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
}

/// Waits for all of them at once.
async fn together<F: Future<Output = ()> + Unpin>(mut futures: Vec<F>) {
    poll_fn(|context| {
        futures.retain_mut(|future| Pin::new(future).poll(context).is_pending());
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
