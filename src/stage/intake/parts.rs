//! Parts of lines that agents send in records of their own. They wait within a transaction, and it is not committed while
//! some do: so there is nothing to keep beside offsets, and after a restart they are read again.

use std::time::Duration;

use rdkafka::error::KafkaError;
use tokio::time::Instant;

use super::target::Target;
use super::transaction::Open;
use super::{IntakeError, Run};
use crate::decision::formats::RecordPlace;
use crate::log::headers::Origin;
use crate::log::{Message, Reader, Transactions};
use crate::transform::Product;

/// A transaction that is over is open so much longer for parts that did not come, from when the last record came where
/// they may be; and so long in all, which is within the producer's `transaction.timeout.ms`.
const PATIENCE: Duration = Duration::from_secs(2);
const MOST: Duration = Duration::from_secs(4);

/// Since when a transaction waits for parts, how large it was then, and when the last record came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    since: Instant,
    bytes: usize,
    last: Instant,
}

impl<R, T> Run<'_, R, T>
where
    R: Reader,
    T: Transactions<Membership = R::Membership>,
{
    /// Whether a transaction that is over is open longer, for parts that may come. `took` says that a record came.
    pub(super) fn waits_for_parts(
        &self,
        open: &mut Open,
        took: bool,
        waiting: &mut Option<Waiting>,
    ) -> bool {
        if !open.parts.wait() || self.intake.trouble.apart() {
            return false;
        }
        let now = Instant::now();
        let waiting = waiting.get_or_insert(Waiting { since: now, bytes: open.bytes, last: now });
        if took {
            waiting.last = now;
        }
        let patient = now - waiting.last < PATIENCE;
        open.waited = now - waiting.since;
        let limit = self.intake.pipeline.file.intake.transaction_bytes.0;
        // What made it large may have come from elsewhere, while the next part is there to be read.
        let small = open.bytes - waiting.bytes < limit;
        patient && now - waiting.since < MOST && small
    }

    /// Whether a record is left to the next transaction: its partition has no parts that this one waits for.
    pub(super) fn put_off(&self, message: &Message<'_>, open: &mut Open) -> bool {
        let Some(place) = self.place(message) else { return false };
        let off = !open.parts.wait_in(place.0, place.1) || open.later.contains_key(&place);
        if off {
            self.leave(message, open);
        }
        off
    }

    /// Leaves a record to the next transaction.
    pub(super) fn leave(&self, message: &Message<'_>, open: &mut Open) {
        let Some(place) = self.place(message) else { return };
        open.later.entry(place).or_insert(message.offset);
    }

    /// The topic, by number, and the partition.
    pub(super) fn place(&self, message: &Message<'_>) -> Option<(usize, i32)> {
        let topic = self.topics.iter().position(|t| *t == message.topic)?;
        Some((topic, message.partition))
    }

    /// Goes back to what was left to the next transaction.
    pub(super) fn go_on(&self, open: &Open) -> Result<(), IntakeError> {
        if open.later.is_empty() { Ok(()) } else { self.seek(&open.later) }
    }
}

impl<T: Transactions> Target<'_, T> {
    /// Waits no longer.
    pub(super) fn give_up(&self, open: &mut Open) {
        open.parts.give_up();
        open.lost.of_any();
        open.refused |= self.missing(open).is_err();
    }

    /// Sends lines to rejects whose parts will not come: each as the record's that its last part came in.
    pub(super) fn missing(&self, open: &mut Open) -> Result<(), KafkaError> {
        for line in open.parts.missing() {
            let RecordPlace { topic, partition, offset } = line.place;
            let Some(name) = self.topics.get(topic) else { continue };
            let origin = Origin { topic: name, partition, offset, element: line.element };
            let product = Product::Reject { bytes: &line.bytes, reject: line.reject };
            open.bytes += self.produce(&origin, topic, product, open)?;
        }
        Ok(())
    }
}
