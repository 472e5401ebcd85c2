//! What becomes of a record, and where it goes in the open transaction.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::facts::{Found, facts};
use super::pace::Pace;
use super::transaction::{Kind, Open, Place, Produced, Suspect};
use super::trouble::{Condemned, Spot, fingerprint};
use super::{Intake, IntakeError, Work};
use crate::caught::caught;
use crate::correlate::Asked;
use crate::decision::formats::{Among, Format, RecordPlace, Within};
use crate::decision::record::Record;
use crate::decision::reject::{Reason, Reject};
use crate::log::dead_letter::{DeadLetter, cut, cut_to_fit, dead_letter};
use crate::log::headers::{self, Origin};
use crate::log::{Message, Outgoing, Transactions};
use crate::protect::record::Made;
use crate::transform::{Product, Source, transform_within};

/// Where what becomes of a record goes.
pub(super) struct Target<'r, T> {
    pub(super) intake: &'r Intake,
    pub(super) transactions: &'r T,
    pub(super) topics: &'r [&'r str],
    pub(super) docket_topic: &'r str,
    pub(super) rejects_topic: &'r str,
    pub(super) suspects: &'r BTreeMap<Place, Suspect>,
    pub(super) condemned: &'r Condemned,
    /// When the open transaction began to read.
    pub(super) received: &'r str,
    pub(super) stop: &'r CancellationToken,
    pub(super) keeping: Keeping,
}

/// A record that is made, and is sent once all of its source record are.
pub(super) struct Kept {
    topic: String,
    key: Option<String>,
    payload: Vec<u8>,
    headers: OwnedHeaders,
    tag: usize,
    alone: bool,
}

/// Records that are not sent yet, where they are kept.
pub(super) type Keeping = RefCell<Option<Vec<Kept>>>;

const TOO_LARGE: RDKafkaErrorCode = RDKafkaErrorCode::MessageSizeTooLarge;

/// Bytes of a reject beside its content.
const REJECT: usize = 512;

fn origin<'m>(message: &Message<'m>, element: usize) -> Origin<'m> {
    let Message { topic, partition, offset, .. } = *message;
    Origin { topic, partition, offset, element }
}

impl<T: Transactions> Target<'_, T> {
    /// Turns one Kafka record into docket records and rejects, and produces them.
    pub(super) fn take(
        &self,
        message: &Message<'_>,
        out: &mut Vec<u8>,
        open: &mut Open,
    ) -> Result<(), IntakeError> {
        let Some(topic) = self.topics.iter().position(|t| *t == message.topic) else {
            return Ok(());
        };
        let spot = (topic, message.partition, message.offset);
        let next = message.offset + 1;
        open.offsets.entry((topic, message.partition)).or_insert((message.offset, next)).1 = next;
        open.records += 1;
        let bytes = message.payload.len();
        if let Some(delay) = self.intake.delay() {
            open.lost.takes(message, self.intake.work, delay);
        }
        let tally = open.tally.topic(topic);
        tally.records += 1;
        tally.bytes += bytes as u64;
        let mut produced = 0;
        let condemned = self.condemned.get(&spot);
        let result = match condemned.filter(|(of, _)| *of == fingerprint(message.payload)) {
            Some((_, reject)) => {
                let product = Product::Reject { bytes: message.payload, reject: reject.clone() };
                let origin = origin(message, 0);
                self.produce(&origin, topic, product, open).map(|_| ())
            }
            None => self.make(message, spot, out, open, &mut produced),
        };
        open.bytes += bytes.max(produced);
        open.refused |= result.is_err();
        Ok(result?)
    }

    /// Makes of a record what is in it. What goes wrong because of the record is held against it.
    fn make(
        &self,
        message: &Message<'_>,
        spot: Spot,
        out: &mut Vec<u8>,
        open: &mut Open,
        produced: &mut usize,
    ) -> Result<(), KafkaError> {
        let pipeline = &self.intake.pipeline;
        let (limits, trouble) = (&pipeline.limits, &self.intake.trouble);
        // What it becomes is larger than it, by docket's members and what agents put around each.
        let most = limits.record.saturating_mul(2).max(16 << 20);
        let of = || fingerprint(message.payload);
        // What others wait for, too, is in time or split; what is known to take longer stands alone.
        let before = open.records == 1 && trouble.is_slow(spot, of);
        let pace = if before { self.pace_before() } else { Pace::of(open) };
        self.keeping.replace(before.then(Vec::new));
        let mut parts = std::mem::take(&mut open.parts);
        let (over, mut outlasted, mut failure) = (Cell::new(false), None, None);
        let made = caught(|| {
            let mut sent = |result| {
                match result {
                    Ok(bytes) => *produced += bytes,
                    Err(error) => failure = Some(error),
                }
                outlasted = outlasted.or_else(|| pace.outlasted());
                over.set(outlasted.is_some() || failure.is_some() || *produced > most);
            };
            if self.intake.work == Work::Facts {
                self.facts(message, spot, out, &over, open, &mut sent);
                return None;
            }
            let among = Among {
                parts: &mut parts,
                place: RecordPlace { topic: spot.0, partition: spot.1, offset: spot.2 },
                key: message.headers.key().unwrap_or_default(),
            };
            let within = Within { over: &over, among: Some(among) };
            self.transform(message, spot, out, within, &mut |element, product| {
                sent(self.produce(&origin(message, element), spot.0, product, open));
            })
        });
        open.parts = parts;
        match made {
            Err(_) => trouble.strike(spot, of(), "it panicked"),
            Ok(Some(reject)) => trouble.condemn(spot, of(), reject),
            Ok(None) if failure.is_none() && *produced > most => {
                let detail = format!(
                    "its {} bytes become more than the {most} that a transaction may hold: see limits.record_bytes",
                    message.payload.len()
                );
                trouble.condemn(spot, of(), Reject::new(Reason::TooLarge, detail));
            }
            Ok(None) => match outlasted.or_else(|| pace.outlasted()) {
                Some(what) => trouble.outlasted(spot, of(), what, open.records),
                None => {
                    if before {
                        open.began = Some(Instant::now());
                    }
                    failure.map_or_else(|| self.send_kept(), Err)?;
                    return self.missing(open);
                }
            },
        }
        self.keeping.take();
        Err(KafkaError::Canceled)
    }

    /// Sends a record in the open transaction, or keeps it until it may begin.
    fn send(&self, record: Outgoing<'_>, tag: usize, alone: bool) -> Result<(), KafkaError> {
        let mut keeping = self.keeping.borrow_mut();
        let Some(kept) = keeping.as_mut() else {
            return self.transactions.send(record, tag, alone);
        };
        kept.push(Kept {
            topic: record.topic.to_owned(),
            key: record.key.map(str::to_owned),
            payload: record.payload.to_owned(),
            headers: record.headers,
            tag,
            alone,
        });
        Ok(())
    }

    /// Sends what was kept. The broker counts a transaction's time from the first record on that is sent in it.
    fn send_kept(&self) -> Result<(), KafkaError> {
        for kept in self.keeping.take().into_iter().flatten() {
            let record = Outgoing {
                topic: &kept.topic,
                key: kept.key.as_deref(),
                payload: &kept.payload,
                headers: kept.headers,
            };
            self.transactions.send(record, kept.tag, kept.alone)?;
        }
        Ok(())
    }

    fn pace_before(&self) -> Pace {
        let set = self.intake.pipeline.file.kafka.properties.get("max.poll.interval.ms");
        let poll_interval = set.and_then(|set| set.value().parse().ok()).map(Duration::from_millis);
        Pace::before(poll_interval, self.stop.clone())
    }

    fn transform(
        &self,
        message: &Message<'_>,
        (topic, partition, offset): Spot,
        out: &mut Vec<u8>,
        within: Within<'_>,
        take: &mut dyn FnMut(usize, Product<'_>),
    ) -> Option<Reject> {
        let pipeline = &self.intake.pipeline;
        let (format, envelope) = match pipeline.file.sources.get(topic) {
            Some(source) => (source.format, source.envelope.as_deref()),
            None => (Format::Auto, None),
        };
        let headers = message.headers.pairs();
        let source = Source { value: message.payload, headers: &headers, format, envelope };
        // Refused as docket records, or on their way to rejects already.
        let refused = |element| {
            let known = self.suspects.get(&(topic, partition, offset, element));
            known.filter(|o| o.proven || o.kind == Kind::Reject).map(|o| self.refused(o.code))
        };
        transform_within(within, source, &pipeline.limits, &pipeline.rules, out, &refused, take)
    }

    /// Writes the facts that are in a record.
    fn facts(
        &self,
        message: &Message<'_>,
        (topic, partition, offset): Spot,
        out: &mut Vec<u8>,
        over: &Cell<bool>,
        open: &mut Open,
        sent: &mut dyn FnMut(Result<usize, KafkaError>),
    ) {
        let pipeline = &self.intake.pipeline;
        let Some(join) = &pipeline.file.join else { return };
        let format = join.facts.get(topic).map(|source| source.format).unwrap_or_default();
        let take = &mut |element, found: Found<'_>| {
            if over.get() {
                return;
            }
            sent(match found {
                Found::Reject(reject) => {
                    let product = Product::Reject { bytes: message.payload, reject };
                    self.produce(&origin(message, element), topic, product, open)
                }
                Found::Fact { kind, key, bytes } => {
                    let tally = open.tally.topic(topic);
                    *tally.facts.entry(kind).or_default() += 1;
                    tally.keyless += u64::from(key.is_none());
                    let place = (topic, partition, offset, element);
                    let suspect = self.suspects.get(&place);
                    if let Some(suspect) = suspect.filter(|s| s.proven || s.kind == Kind::Reject) {
                        let reject = self.refused(suspect.code);
                        let product = Product::Reject { bytes: message.payload, reject };
                        return sent(self.produce(&origin(message, element), topic, product, open));
                    }
                    let alone = suspect.is_some();
                    open.produced.push(Produced { place, kind: Kind::Docket, alone });
                    let record = Outgoing {
                        topic: self.docket_topic,
                        key: key.as_deref(),
                        payload: bytes,
                        headers: OwnedHeaders::new(),
                    };
                    let tag = open.produced.len() - 1;
                    self.send(record, tag, alone).map(|()| bytes.len())
                }
            });
        };
        let quote = pipeline.rules.protection.is_none();
        facts(message.payload, (format, join.key), &pipeline.limits, quote, out, take);
    }

    /// Under which key a decision is written: where it waits to be joined, that by which it meets its request.
    fn key<'k>(&self, made: &'k Made, bytes: &[u8]) -> Cow<'k, str> {
        let joined = self.intake.pipeline.file.join.as_ref().and_then(|join| {
            let record = Record::parse(bytes).ok()?;
            Some(join.key.of_decision(&Asked::of(&record)))
        });
        joined.map_or_else(|| Cow::from(&made.written.key), Cow::from)
    }

    /// Produces what became of a piece of a record; says how many bytes that were.
    pub(super) fn produce(
        &self,
        origin: &Origin<'_>,
        topic: usize,
        product: Product<'_>,
        open: &mut Open,
    ) -> Result<usize, KafkaError> {
        let place = (topic, origin.partition, origin.offset, origin.element);
        let suspect = self.suspects.get(&place).copied();
        let alone = suspect.is_some_and(|o| !o.proven);
        let sent = |kind| Produced { place, kind, alone };
        match product {
            Product::Ignored(kind) => {
                *open.tally.topic(topic).ignored.entry(kind).or_default() += 1;
                Ok(0)
            }
            Product::Dropped => {
                open.tally.topic(topic).dropped += 1;
                Ok(0)
            }
            Product::Docket { made, bytes } => {
                open.tally.made(topic, &made);
                open.produced.push(sent(Kind::Docket));
                let key = self.key(&made, bytes);
                let record = Outgoing {
                    topic: self.docket_topic,
                    key: Some(&key),
                    payload: bytes,
                    headers: headers::docket(origin, self.received),
                };
                self.send(record, open.produced.len() - 1, alone)?;
                Ok(bytes.len())
            }
            Product::Reject { bytes, reject } => {
                *open.tally.rejects.entry(reject.reason).or_default() += 1;
                if let Some(delay) = self.intake.delay() {
                    open.lost.rejects(delay);
                }
                let proven = suspect.filter(|o| o.proven);
                open.produced.push(sent(Kind::Reject));
                let letter = self.letter(bytes, &reject, origin, proven);
                let record = Outgoing {
                    topic: self.rejects_topic,
                    key: None,
                    payload: &letter.value,
                    headers: letter.headers,
                };
                self.send(record, open.produced.len() - 1, alone)?;
                Ok(letter.value.len() + REJECT)
            }
        }
    }

    /// The dead letter of a piece.
    fn letter(
        &self,
        bytes: &[u8],
        reject: &Reject,
        origin: &Origin<'_>,
        proven: Option<Suspect>,
    ) -> DeadLetter {
        let limit = self.intake.rejects_limit;
        let cut = match proven {
            // What is protected does not get out by the back door; its source still has it.
            _ if self.intake.pipeline.rules.protection.is_some() => Some(0),
            Some(Suspect { kind: Kind::Reject, code: TOO_LARGE, .. }) => Some(cut(limit)),
            _ => cut_to_fit(bytes.len(), limit),
        };
        dead_letter(self.intake.work.part(), bytes, reject, origin, self.received, cut)
    }

    /// Why a decision that the broker would not take goes to rejects.
    fn refused(&self, code: RDKafkaErrorCode) -> Reject {
        let topic = self.docket_topic;
        if code != TOO_LARGE {
            return Reject::new(Reason::Failed, format!("the topic {topic} refuses it: {code}"));
        }
        let limit = self
            .intake
            .docket_limit
            .map_or_else(String::new, |n| format!(", which takes {n} bytes (max.message.bytes)"));
        let detail = format!(
            "the decision outgrows the topic {topic}{limit} once docket's members are added"
        );
        Reject::new(Reason::TooLarge, detail)
    }
}
