//! What the join writes: decisions to the docket, amendments, findings, and what it can't read, in one transaction with
//! where it goes on.

use std::collections::BTreeMap;

use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;

use super::documents::Documents;
use super::{Correlate, PART};
use crate::clock;
use crate::correlate::record::{amendment, joined};
use crate::correlate::{FindingKind, Out, Place};
use crate::decision::record::Record;
use crate::decision::reject::{Reason, Reject};
use crate::decision::time::{self, Nanos};
use crate::log::dead_letter::{cut, cut_to_fit, dead_letter};
use crate::log::headers::{self, Origin};
use crate::log::{Committed, Gap, Message, Outgoing, Transactions};
use crate::spike;
use crate::stage::gaps;

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

/// What was written, by what it is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Decision(Place),
    /// Of a record of either topic.
    Reject(String, Place),
    /// By its key, and the text of what is said.
    Said(String),
}

/// What was in a batch which the broker refused for what is in it.
#[derive(Debug, Clone, Copy)]
struct Suspect {
    /// It was alone in its batch, so it is the one. Until then it is sent again, alone.
    proven: bool,
    code: RDKafkaErrorCode,
}

const TOO_LARGE: RDKafkaErrorCode = RDKafkaErrorCode::MessageSizeTooLarge;

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
    /// The sinks whose documents amendments name.
    amended: Vec<String>,
    /// There is an open transaction.
    pub begun: bool,
    /// Bytes of decisions that wait.
    pub waiting: usize,
    /// Bytes of the open transaction.
    pub bytes: usize,
    /// By tag: what it is, and whether it was sent alone.
    sent: Vec<(What, bool)>,
    suspects: BTreeMap<What, Suspect>,
    /// Of these something else was made in the open transaction.
    settled: Vec<What>,
    findings: Vec<(FindingKind, String)>,
    rejects: Vec<Reason>,
    gaps: Vec<Gap>,
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
            amended: Documents::of(file).sinks,
            begun: false,
            waiting: 0,
            bytes: 0,
            sent: Vec::new(),
            suspects: BTreeMap::new(),
            settled: Vec::new(),
            findings: Vec::new(),
            rejects: Vec::new(),
            gaps: Vec::new(),
            error: None,
        }
    }

    /// Nothing waits, and nothing was written.
    pub fn clear(&mut self) {
        (self.waiting, self.bytes, self.begun) = (0, 0, false);
        (self.sent, self.findings, self.rejects) = (Vec::new(), Vec::new(), Vec::new());
        self.settled.clear();
        self.gaps.clear();
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
                let (Ok(record), Some(place)) = (Record::parse(&payload.bytes), payload.place)
                else {
                    return;
                };
                let what = What::Decision(place);
                if let Some(code) = self.refused(&what) {
                    self.settled.push(what);
                    return self.refuse(place, &payload.bytes, code);
                }
                let mut bytes = Vec::with_capacity(payload.bytes.len() + 512);
                let key = joined(&record, matched.as_ref(), evicted, &mut bytes);
                let all = payload.headers.iter();
                let headers = all.fold(OwnedHeaders::new(), |all, (k, v)| headers::add(all, k, v));
                let topic = self.topics.docket.clone();
                self.write(
                    Outgoing { topic: &topic, key: Some(&key), payload: &bytes, headers },
                    what,
                );
            }
            Out::Amendment { asked, matched, replaces } => {
                let bytes = amendment(asked, &matched, replaces, &self.amended);
                let topic = self.topics.amendments.clone();
                self.say(&topic, &asked.id, &bytes);
            }
            Out::Finding(finding) => {
                tracing::warn!(part = PART, kind = finding.kind.as_str(), "{}", finding.sentence());
                let (key, bytes) = finding.record();
                let topic = self.topics.docket.clone();
                if self.say(&topic, &key, &bytes) {
                    self.findings.push((finding.kind, finding.service));
                }
            }
        }
    }

    /// Says what is gone of a partition: by a letter and a finding.
    pub fn tell(&mut self, gap: &Gap, found: Nanos) {
        let what = What::Said(format!("{gap:?}"));
        if let Some(code) = self.refused(&what) {
            tracing::error!(part = PART, %code, "rejects refuses what is to be said of a gap");
            self.settled.push(what);
        } else {
            let letter = gaps::letter(PART, None, gap, &time::format(found));
            let topic = self.topics.rejects.clone();
            let (payload, headers) = (&letter.value[..], letter.headers);
            self.write(Outgoing { topic: &topic, key: None, payload, headers }, what);
        }
        if self.correlate.pipeline.file.spikes.is_some() {
            let (id, bytes) = spike::record::write(&gaps::finding(PART, gap, found));
            let topic = self.topics.docket.clone();
            self.say(&topic, &id, &bytes);
        }
        self.gaps.push(gap.clone());
    }

    /// Writes what docket says itself; whether it may. What Kafka refuses of it is told here only.
    fn say(&mut self, topic: &str, key: &str, bytes: &[u8]) -> bool {
        let what = What::Said(format!("{key} {}", String::from_utf8_lossy(bytes)));
        if let Some(code) = self.refused(&what) {
            tracing::error!(part = PART, %code, "the topic {topic} refuses what is to be said of {key}");
            self.settled.push(what);
            return false;
        }
        let record =
            Outgoing { topic, key: Some(key), payload: bytes, headers: OwnedHeaders::new() };
        self.write(record, what);
        true
    }

    /// Why Kafka refuses it, where it was found that it does.
    fn refused(&self, what: &What) -> Option<RDKafkaErrorCode> {
        self.suspects.get(what).filter(|suspect| suspect.proven).map(|suspect| suspect.code)
    }

    /// A decision that Kafka refuses goes to rejects.
    fn refuse(&mut self, place: Place, bytes: &[u8], code: RDKafkaErrorCode) {
        let docket = &self.topics.docket;
        let reject = match code {
            TOO_LARGE => Reject::new(
                Reason::TooLarge,
                format!(
                    "the decision, of {} bytes with its request, outgrows the topic {docket} (max.message.bytes)",
                    bytes.len()
                ),
            ),
            code => Reject::new(Reason::Failed, format!("the topic {docket} refuses it: {code}")),
        };
        let topic = self.topics.pending.clone();
        self.reject(&topic, place, bytes, &reject);
    }

    pub fn reject(&mut self, topic: &str, place: Place, bytes: &[u8], reject: &Reject) {
        let (partition, offset) = (place.partition as i32, place.offset);
        let origin = Origin { topic, partition, offset, element: 0 };
        let what = What::Reject(topic.to_owned(), place);
        let limit = self.correlate.rejects_limit;
        let keep = match (&self.correlate.pipeline.rules.protection, self.refused(&what)) {
            // What is protected does not get out by the back door; its source still has it.
            (Some(_), _) => Some(0),
            (None, Some(_)) => Some(cut(limit)),
            (None, None) => cut_to_fit(bytes.len(), limit),
        };
        let received = time::format(clock::now());
        let letter = dead_letter(PART, bytes, reject, &origin, &received, keep);
        self.rejects.push(reject.reason);
        let topic = self.topics.rejects.clone();
        let (payload, headers) = (letter.value, letter.headers);
        self.write(Outgoing { topic: &topic, key: None, payload: &payload, headers }, what);
    }

    fn write(&mut self, record: Outgoing<'_>, what: What) {
        if self.error.is_some() {
            return;
        }
        self.bytes += record.payload.len();
        let alone = self.suspects.contains_key(&what);
        self.sent.push((what, alone));
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
        let sent = self.sent.drain(..).map(|(what, _)| what);
        for what in sent.chain(self.settled.drain(..)) {
            self.suspects.remove(&what);
        }
        self.correlate.meters.transactions.with_label_values(&["committed"]).inc();
        for (kind, service) in &self.findings {
            self.correlate.counts.found(*kind, service);
        }
        for reason in &self.rejects {
            self.correlate.meters.rejects.with_label_values(&[PART, reason.as_str()]).inc();
        }
        self.gaps.iter().for_each(|gap| gaps::count(&self.correlate.meters, PART, gap));
        let waiting = self.waiting;
        self.clear();
        self.waiting = waiting;
        Ok(())
    }

    /// Undoes the open transaction, if there is one; whether that was for records that Kafka refuses.
    pub fn abort(&mut self) -> KafkaResult<bool> {
        if !self.begun {
            return Ok(false);
        }
        self.correlate.meters.transactions.with_label_values(&["aborted"]).inc();
        let tags = self.transactions.abort()?;
        for (tag, code) in &tags {
            if let Some((what, alone)) = self.sent.get(*tag) {
                self.suspects.insert(what.clone(), Suspect { proven: *alone, code: *code });
            }
        }
        self.begun = false;
        Ok(!tags.is_empty())
    }
}
