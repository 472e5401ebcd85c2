//! What the join writes: decisions to the docket, amendments, findings, and what it can't read, in one transaction with
//! where it goes on.

use std::collections::BTreeMap;

use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::OwnedHeaders;

use super::{Correlate, PART};
use crate::clock;
use crate::correlate::record::{amendment, joined};
use crate::correlate::{FindingKind, Out, Place};
use crate::decision::record::Record;
use crate::decision::reject::{Reason, Reject};
use crate::decision::time;
use crate::log::dead_letter::{cut_to_fit, dead_letter};
use crate::log::headers::{self, Origin};
use crate::log::{Committed, Message, Outgoing, Transactions};

/// A decision that waits for its request.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub bytes: Vec<u8>,
    place: Option<Place>,
    /// Its headers, which say where it came from.
    headers: Vec<(String, String)>,
}

impl Waiting {
    pub fn new(message: &Message<'_>, place: Place) -> Waiting {
        let text = |(name, value): &(&str, &[u8])| {
            ((*name).to_owned(), String::from_utf8_lossy(value).into_owned())
        };
        Waiting {
            bytes: message.payload.to_vec(),
            place: Some(place),
            headers: message.headers.pairs().iter().map(text).collect(),
        }
    }
}

struct Topics {
    pending: String,
    docket: String,
    amendments: String,
    rejects: String,
}

pub(super) struct Output<'c, T> {
    correlate: &'c Correlate,
    transactions: &'c T,
    topics: Topics,
    /// There is an open transaction.
    pub begun: bool,
    /// Bytes of decisions that wait.
    pub waiting: usize,
    /// Bytes of the open transaction.
    pub bytes: usize,
    /// By tag: of which decision it is, if it is one, and whether it was sent alone.
    sent: Vec<Option<(Place, bool)>>,
    /// Decisions that are larger than the docket takes with their match, or were in one batch with such.
    large: BTreeMap<Place, bool>,
    findings: Vec<(FindingKind, String)>,
    rejects: Vec<Reason>,
    error: Option<KafkaError>,
}

impl<'c, T: Transactions> Output<'c, T> {
    pub fn new(correlate: &'c Correlate, transactions: &'c T) -> Self {
        let file = &correlate.pipeline.file;
        let topics = Topics {
            pending: file.pending_topic(),
            docket: file.docket_topic(),
            amendments: file.amendments_topic(),
            rejects: file.rejects_topic(),
        };
        Output {
            correlate,
            transactions,
            topics,
            begun: false,
            waiting: 0,
            bytes: 0,
            sent: Vec::new(),
            large: BTreeMap::new(),
            findings: Vec::new(),
            rejects: Vec::new(),
            error: None,
        }
    }

    /// Nothing waits, and nothing was written.
    pub fn clear(&mut self) {
        (self.waiting, self.bytes, self.begun) = (0, 0, false);
        (self.sent, self.findings, self.rejects) = (Vec::new(), Vec::new(), Vec::new());
        self.error = None;
    }

    /// Why the open transaction can't be committed, if it is known already.
    pub fn failed(&mut self) -> Option<KafkaError> {
        let known = self.begun && self.transactions.any_failed();
        self.error.take().or(known.then_some(KafkaError::Canceled))
    }

    pub fn take(&mut self, out: Out<'_, Waiting>) {
        match out {
            Out::Decision { payload, matched, evicted, .. } => {
                self.waiting = self.waiting.saturating_sub(payload.bytes.len());
                let Ok(record) = Record::parse(&payload.bytes) else { return };
                let alone = match payload.place.and_then(|place| self.large.get(&place)) {
                    Some(true) => return self.outgrown(&payload),
                    alone => alone.is_some(),
                };
                let mut bytes = Vec::with_capacity(payload.bytes.len() + 512);
                let key = joined(&record, matched.as_ref(), evicted, &mut bytes);
                let all = payload.headers.iter();
                let headers = all.fold(OwnedHeaders::new(), |all, (k, v)| headers::add(all, k, v));
                self.sent.push(payload.place.map(|place| (place, alone)));
                let topic = self.topics.docket.clone();
                self.write(
                    Outgoing { topic: &topic, key: Some(&key), payload: &bytes, headers },
                    alone,
                );
            }
            Out::Amendment { asked, matched } => {
                let (bytes, headers) = (amendment(asked, &matched), OwnedHeaders::new());
                self.sent.push(None);
                let topic = self.topics.amendments.clone();
                let key = Some(&*asked.id);
                self.write(Outgoing { topic: &topic, key, payload: &bytes, headers }, false);
            }
            Out::Finding(finding) => {
                tracing::warn!(part = PART, kind = finding.kind.as_str(), "{}", finding.sentence());
                let ((key, bytes), headers) = (finding.record(), OwnedHeaders::new());
                self.findings.push((finding.kind, finding.service));
                self.sent.push(None);
                let topic = self.topics.docket.clone();
                let record = Outgoing { topic: &topic, key: Some(&key), payload: &bytes, headers };
                self.write(record, false);
            }
        }
    }

    /// A decision that does not fit the docket goes to rejects.
    fn outgrown(&mut self, payload: &Waiting) {
        let detail = format!(
            "the decision outgrows the topic {} once its request is added",
            self.topics.docket
        );
        let reject = Reject::new(Reason::TooLarge, detail);
        let topic = self.topics.pending.clone();
        if let Some(place) = payload.place {
            self.reject(&topic, place, &payload.bytes, &reject);
        }
    }

    pub fn reject(&mut self, topic: &str, place: Place, bytes: &[u8], reject: &Reject) {
        let (partition, offset) = (place.partition as i32, place.offset);
        let origin = Origin { topic, partition, offset, element: 0 };
        let cut = match self.correlate.pipeline.rules.protection {
            // What is protected does not get out by the back door; its source still has it.
            Some(_) => Some(0),
            None => cut_to_fit(bytes.len(), self.correlate.rejects_limit),
        };
        let received = time::format(clock::now());
        let letter = dead_letter(PART, bytes, reject, &origin, &received, cut);
        self.rejects.push(reject.reason);
        self.sent.push(None);
        let topic = self.topics.rejects.clone();
        let (payload, headers) = (letter.value, letter.headers);
        self.write(Outgoing { topic: &topic, key: None, payload: &payload, headers }, false);
    }

    fn write(&mut self, record: Outgoing<'_>, alone: bool) {
        if self.error.is_some() {
            return;
        }
        self.bytes += record.payload.len();
        let tag = self.sent.len() - 1;
        let begin = if self.begun { Ok(()) } else { self.transactions.begin() };
        self.begun |= begin.is_ok();
        self.error = begin.and_then(|()| self.transactions.send(record, tag, alone)).err();
    }

    pub fn commit(
        &mut self,
        offsets: &[(&str, i32, Committed)],
        member: &T::Membership,
    ) -> KafkaResult<()> {
        if !self.begun {
            self.transactions.begin()?;
            self.begun = true;
        }
        self.transactions.commit_with(offsets, member)?;
        for (place, _) in self.sent.iter().flatten() {
            self.large.remove(place);
        }
        self.correlate.meters.transactions.with_label_values(&["committed"]).inc();
        for (kind, service) in &self.findings {
            self.correlate.counts.found(*kind, service);
        }
        for reason in &self.rejects {
            self.correlate.meters.rejects.with_label_values(&[PART, reason.as_str()]).inc();
        }
        let waiting = self.waiting;
        self.clear();
        self.waiting = waiting;
        Ok(())
    }

    /// Undoes the open transaction, if there is one; whether that was for records that were too large.
    pub fn abort(&mut self) -> KafkaResult<bool> {
        if !self.begun {
            return Ok(false);
        }
        self.correlate.meters.transactions.with_label_values(&["aborted"]).inc();
        let tags = self.transactions.abort()?;
        for (tag, _) in &tags {
            if let Some(Some((place, alone))) = self.sent.get(*tag) {
                self.large.insert(*place, *alone);
            }
        }
        self.begun = false;
        Ok(!tags.is_empty())
    }
}
