//! Tells what of a source topic is gone that was not read: in the transaction that goes on behind it, so that it is told once. And tells the
//! join of which times something is missing, in the transaction that loses it, so that nothing is found of these for want of it.

use std::sync::PoisonError;

use rdkafka::error::KafkaError;
use rdkafka::message::OwnedHeaders;
use tokio::time::Instant;

use super::transaction::{Kind, Open, Produced};
use super::{IntakeError, Run};
use crate::clock::now;
use crate::decision::time;
use crate::log::{Gap, Outgoing, Reader, Transactions};
use crate::resume::Cause;
use crate::spike::record;
use crate::stage::gaps;

impl<R, T> Run<'_, R, T>
where
    R: Reader,
    T: Transactions<Membership = R::Membership>,
{
    /// The transaction with a letter for each gap in it; one of its own if there is none.
    pub(super) fn with_gaps(&mut self, open: Option<Open>) -> Result<Option<Open>, IntakeError> {
        // What was taken away since is another's to tell, or is found again.
        let lost =
            std::mem::take(&mut *self.seen.lost.lock().unwrap_or_else(PoisonError::into_inner));
        let is_lost = |gap: &Gap| lost.iter().any(|(t, p)| *t == gap.topic && *p == gap.partition);
        self.gaps.retain(|gap| !is_lost(gap));
        let found = self.reader.gaps();
        // Other records stand where suspects stood.
        for gap in found.iter().filter(|gap| gap.gap.cause != Cause::Retention) {
            let topics = &self.topics;
            self.suspects.retain(|(topic, partition, ..), _| {
                (topics[*topic], *partition) != (gap.topic.as_str(), gap.partition)
            });
        }
        self.gaps.extend(found);
        if self.gaps.is_empty() || open.as_ref().is_some_and(|open| open.refused) {
            return Ok(self.with_missing(open));
        }
        let mut open = open.unwrap_or_default();
        if !open.begun {
            self.transactions.begin()?;
            (open.begun, open.began) = (true, Some(Instant::now()));
        }
        for gap in &self.gaps {
            if let Err(error) = self.tell(gap, &mut open) {
                tracing::warn!(%error, "what is gone can't be told yet");
                open.refused = true;
            }
        }
        Ok(self.with_missing(Some(open)))
    }

    /// The transaction with what the join is to be told that it lacks.
    fn with_missing(&self, open: Option<Open>) -> Option<Open> {
        let mut open = open?;
        if self.intake.delay().is_none() {
            return Some(open);
        }
        if !self.gaps.is_empty() {
            open.lost.gone();
        }
        if let Err(error) = self.tell_missing(&mut open) {
            tracing::warn!(%error, "what is missing can't be told to the join yet");
            open.refused = true;
        }
        Some(open)
    }

    /// Writes what is missing to each partition of the join's topic, whichever it may have belonged to.
    fn tell_missing(&self, open: &mut Open) -> Result<(), KafkaError> {
        let times = open.lost.take();
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

    fn tell(&self, gap: &Gap, open: &mut Open) -> Result<(), KafkaError> {
        let Some(topic) = self.topics.iter().position(|topic| *topic == gap.topic) else {
            return Ok(());
        };
        open.offsets.entry((topic, gap.partition)).or_insert((gap.at, gap.at));
        // Of no record's element.
        let place = |element| (topic, gap.partition, gap.at, element);
        let (of_letter, of_finding) = (place(usize::MAX), place(usize::MAX - 1));
        let part = self.intake.work.part();
        let letter = gaps::letter(part, None, gap, &time::format(now()));
        let alone = self.suspects.contains_key(&of_letter);
        open.produced.push(Produced { place: of_letter, kind: Kind::Reject, alone });
        let headers = letter.headers;
        let (payload, rejects) = (&letter.value[..], self.rejects_topic.as_str());
        let record = Outgoing { topic: rejects, key: None, payload, headers };
        self.transactions.send(record, open.produced.len() - 1, alone)?;
        // One that Kafka refuses is told by the letter alone.
        let suspect = self.suspects.get(&of_finding);
        if self.intake.pipeline.file.spikes.is_some() && suspect.is_none_or(|s| !s.proven) {
            let (id, payload) = record::write(&gaps::finding(part, gap, now()));
            let alone = suspect.is_some();
            open.produced.push(Produced { place: of_finding, kind: Kind::Docket, alone });
            // It waits for no request.
            let docket = self.intake.pipeline.docket_topic();
            let headers = OwnedHeaders::new();
            let record = Outgoing { topic: &docket, key: Some(&id), payload: &payload, headers };
            self.transactions.send(record, open.produced.len() - 1, alone)?;
        }
        Ok(())
    }

    /// The transaction that told them is committed.
    pub(super) fn told_gaps(&mut self) {
        for gap in std::mem::take(&mut self.gaps) {
            gaps::count(&self.intake.meters, self.intake.work.part(), &gap);
        }
    }
}
