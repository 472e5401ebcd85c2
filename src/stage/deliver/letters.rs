//! Writes what goes to rejects, each with all that is known of it; people are told of the first, and now and then of how many there were.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::Batch;
use super::group::{AT_ONCE, Letter};
use super::rejected::Told;
use super::send::Sending;
use crate::clock::now;
use crate::decision::reject::Reason;
use crate::decision::time;
use crate::log::dead_letter::{cut, cut_to_fit, dead_letter};
use crate::log::headers::{self, Origin};
use crate::log::{Outgoing, RecordWriter};

impl<L: RecordWriter> Sending<L> {
    /// Puts records into rejects, many at once and however long that takes: they may not be lost.
    pub(super) async fn reject(&self, batch: &Batch, letters: Vec<Letter>) {
        for some in letters.chunks(AT_ONCE) {
            together(some.iter().map(|letter| Box::pin(self.write(batch, letter))).collect()).await;
        }
        self.tell_rejected(batch, &letters);
    }

    fn tell_rejected(&self, batch: &Batch, letters: &[Letter]) {
        let (part, now) = (&self.deliver.name, Instant::now());
        let mut more: BTreeMap<Reason, u64> = BTreeMap::new();
        for letter in letters {
            *more.entry(letter.reject.reason).or_default() += 1;
        }
        let told = self.rejected.lock().unwrap_or_else(PoisonError::into_inner).seen(&more, now);
        for told in told {
            match told {
                Told::Over(reason, line) => tracing::info!(
                    part,
                    reason = reason.as_str(),
                    records = line.failures,
                    seconds = line.lasted.as_secs(),
                    "no more records go to rejects"
                ),
                Told::Goes(reason, line) => {
                    let first = letters.iter().find(|letter| letter.reject.reason == reason);
                    let item = first.map(|letter| &batch.records[letter.record]);
                    tracing::warn!(
                        part,
                        reason = reason.as_str(),
                        status = first.and_then(|letter| letter.status),
                        partition = item.map(|item| item.partition),
                        offset = item.map(|item| item.offset),
                        records = line.failures,
                        seconds = line.lasted.as_secs(),
                        "records went to rejects; docket rejects shows them"
                    );
                }
            }
        }
    }

    async fn write(&self, batch: &Batch, letter: &Letter) {
        let Letter { record, reject, status, attempts } = letter;
        let i = *record;
        let deliver = &self.deliver;
        let item = &batch.records[i];
        let origin = Origin {
            topic: &deliver.topic,
            partition: item.partition,
            offset: item.offset,
            element: 0,
        };
        let value = item.bytes();
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
        self.count("refused", 1);
        deliver.meters.rejects.with_label_values(&[&deliver.name, reject.reason.as_str()]).inc();
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
