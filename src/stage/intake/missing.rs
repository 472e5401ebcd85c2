//! What was lost on the way to the join: what went to rejects may have been a decision or a fact, what an OPA says that it
//! dropped was one, and so was what is gone from a source topic. Each partition of what is written gets a record that says of
//! which time that is, in the transaction that loses it, so that nothing is found of that time for want of it.

use rdkafka::error::KafkaError;
use rdkafka::message::OwnedHeaders;

use super::transaction::{Kind, Open, Produced};
use super::{Run, Work};
use crate::clock::now;
use crate::correlate::missing::{Missing, Times};
use crate::decision::time::{Nanos, nanos};
use crate::log::{Message, Outgoing, Reader, Transactions};

/// What is missing of an open transaction, where there is a join.
#[derive(Default)]
pub struct Lost {
    times: Times,
    /// When the record was written that is taken now, and all of the transaction: from when to when.
    now: (Nanos, Nanos),
    all: Option<(Nanos, Nanos)>,
}

impl Lost {
    /// A record is taken. One of a source topic may say what an OPA lost.
    pub fn takes(&mut self, message: &Message<'_>, work: Work, delay: Nanos) {
        let at = message.headers.written().unwrap_or_else(now);
        self.now = (at, at);
        self.all = Some(self.all.map_or(self.now, |(from, to)| (from.min(at), to.max(at))));
        if work == Work::Decisions
            && let Some(Missing { from, to }) = Missing::of_line(message.payload)
        {
            self.times.add(Missing { from: from.saturating_sub(delay), to });
        }
    }

    /// What is told from now on may be of any of the records that were taken.
    pub fn of_any(&mut self) {
        self.now = self.all.unwrap_or(self.now);
    }

    /// Something of what is taken now goes to rejects: it may have been of up to `delay` before it was written.
    pub fn rejects(&mut self, delay: Nanos) {
        let (from, to) = self.now;
        self.times.add(Missing { from: from.saturating_sub(delay), to });
    }

    /// Something is gone, and nobody knows of what time.
    pub fn gone(&mut self) {
        self.times.add(Missing { from: 0, to: now() });
    }
}

impl<R, T> Run<'_, R, T>
where
    R: Reader,
    T: Transactions<Membership = R::Membership>,
{
    /// Writes what is missing to each partition.
    pub(super) fn tell_missing(&self, open: &mut Open) -> Result<(), KafkaError> {
        let times = std::mem::take(&mut open.lost.times);
        let Some((&(source, partition), &(offset, _))) = open.offsets.first_key_value() else {
            return Ok(());
        };
        if times.all().is_empty() || open.refused {
            return Ok(());
        }
        let topic = self.docket_topic.as_str();
        let targets = self.transactions.partitions(topic)?;
        let each = (0..targets).flat_map(|target| times.all().iter().map(move |one| (target, one)));
        for (n, (target, one)) in each.enumerate() {
            // Of no record's element; a letter and a finding of what is gone have the two above.
            let place = (source, partition, offset, usize::MAX - 2 - n);
            let suspect = self.suspects.get(&place);
            if suspect.is_some_and(|suspect| suspect.proven) {
                tracing::error!(topic, "the topic refuses what says that decisions are missing");
                continue;
            }
            let alone = suspect.is_some();
            open.produced.push(Produced { place, kind: Kind::Docket, alone });
            let (payload, headers) = (&one.record()[..], OwnedHeaders::new());
            let record = Outgoing { topic, key: None, payload, headers };
            self.transactions.send_to(Some(target), record, open.produced.len() - 1, alone)?;
        }
        Ok(())
    }
}

impl super::Intake {
    /// How late decisions and facts may be, where there is a join.
    pub(super) fn delay(&self) -> Option<Nanos> {
        self.pipeline.file.join.as_ref().map(|join| nanos(join.delay.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Headers;

    struct Written(Nanos);

    impl Headers for Written {
        fn pairs(&self) -> Vec<(&str, &[u8])> {
            Vec::new()
        }

        fn written(&self) -> Option<Nanos> {
            Some(self.0)
        }
    }

    fn takes(lost: &mut Lost, written: Nanos, payload: &[u8], work: Work) {
        let headers = &Written(written);
        let message = Message { topic: "source", partition: 0, offset: 7, payload, headers };
        lost.takes(&message, work, 100);
    }

    #[test]
    fn what_went_to_rejects_or_was_dropped_is_missing_of_the_time_before() {
        let one = |from, to| Missing { from, to };
        let line = one(400, 500).line("o");
        let mut lost = Lost::default();
        takes(&mut lost, 1_000, b"{}", Work::Decisions);
        takes(&mut lost, 9_000, b"{", Work::Decisions);
        lost.rejects(100);
        takes(&mut lost, 9_050, line.as_bytes(), Work::Facts);
        assert_eq!(lost.times.all(), [one(8_900, 9_000)]);
        takes(&mut lost, 9_050, line.as_bytes(), Work::Decisions);
        assert_eq!(lost.times.all(), [one(8_900, 9_000), one(300, 500)]);
        // Parts of lines that never came may have been of any record.
        let mut lost = Lost::default();
        takes(&mut lost, 9_000, b"{", Work::Decisions);
        takes(&mut lost, 1_000, b"{", Work::Decisions);
        lost.of_any();
        lost.rejects(100);
        assert_eq!(lost.times.all(), [one(900, 9_000)]);
    }
}
