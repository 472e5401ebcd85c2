//! What becomes of a record, and where it goes in the open transaction.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rdkafka::error::KafkaError;
use rdkafka::message::OwnedHeaders;
use tokio::time::Instant;

use super::facts::{Found, facts};
use super::transaction::{Kind, Open, Oversized, Place, Produced};
use super::trouble::{PATIENCE, Spot};
use super::{Intake, IntakeError, Work};
use crate::correlate::Asked;
use crate::decision::formats::Format;
use crate::decision::record::Record;
use crate::decision::reject::{Reason, Reject};
use crate::log::dead_letter::{DeadLetter, cut, cut_to_fit, dead_letter};
use crate::log::headers::{self, Origin};
use crate::log::{Message, Outgoing, Transactions};
use crate::protect::record::Made;
use crate::transform::{Product, Source, transform_until};

/// Where what becomes of a record goes.
pub(super) struct Target<'r, T> {
    pub(super) intake: &'r Intake,
    pub(super) transactions: &'r T,
    pub(super) topics: &'r [&'r str],
    pub(super) docket_topic: &'r str,
    pub(super) rejects_topic: &'r str,
    pub(super) oversized: &'r BTreeMap<Place, Oversized>,
    pub(super) condemned: &'r BTreeMap<Spot, Reject>,
    /// When the open transaction began to read.
    pub(super) received: &'r str,
}

/// Bytes of a reject beside its content.
const REJECT: usize = 512;

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
        let tally = open.tally.topic(topic);
        tally.records += 1;
        tally.bytes += bytes as u64;
        let mut produced = 0;
        let result = match self.condemned.get(&spot) {
            Some(reject) => {
                let product = Product::Reject { bytes: message.payload, reject: reject.clone() };
                self.produce(message, topic, 0, product, open).map(|_| ())
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
        let began = open.began.unwrap_or_else(Instant::now);
        let (over, mut slow, mut failure) = (Cell::new(false), false, None);
        let made = catch_unwind(AssertUnwindSafe(|| {
            let mut sent = |result| {
                match result {
                    Ok(bytes) => *produced += bytes,
                    Err(error) => failure = Some(error),
                }
                slow = began.elapsed() > PATIENCE;
                over.set(slow || failure.is_some() || *produced > most);
            };
            if self.intake.work == Work::Facts {
                self.facts(message, spot, out, &over, open, &mut sent);
                return None;
            }
            self.transform(message, spot, out, &over, &mut |element, product| {
                sent(self.produce(message, spot.0, element, product, open));
            })
        }));
        match made {
            Err(_) => trouble.strike(spot, "it panicked"),
            Ok(Some(reject)) => trouble.condemn(spot, reject),
            Ok(None) if failure.is_none() && *produced > most => {
                let detail = format!("it becomes more than {most} bytes");
                trouble.condemn(spot, Reject::new(Reason::TooLarge, detail));
            }
            Ok(None) if slow || began.elapsed() > PATIENCE => match open.records {
                1 => trouble.strike(spot, "it takes longer than a transaction may"),
                records => trouble.shrink(records),
            },
            Ok(None) => return failure.map_or(Ok(()), Err),
        }
        Err(KafkaError::Canceled)
    }

    fn transform(
        &self,
        message: &Message<'_>,
        (topic, partition, offset): Spot,
        out: &mut Vec<u8>,
        over: &Cell<bool>,
        take: &mut dyn FnMut(usize, Product<'_>),
    ) -> Option<Reject> {
        let pipeline = &self.intake.pipeline;
        let (format, envelope) = match pipeline.file.sources.get(topic) {
            Some(source) => (source.format, source.envelope.as_deref()),
            None => (Format::Auto, None),
        };
        let headers = message.headers.pairs();
        let source = Source { value: message.payload, headers: &headers, format, envelope };
        // Found too large as docket records, or on their way to rejects already.
        let refused = |element| {
            let known = self.oversized.get(&(topic, partition, offset, element));
            known.filter(|o| o.proven || o.kind == Kind::Reject).map(|_| self.outgrown())
        };
        transform_until(over, source, &pipeline.limits, &pipeline.rules, out, &refused, take)
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
                    self.produce(message, topic, element, product, open)
                }
                Found::Fact { kind, key, bytes } => {
                    let tally = open.tally.topic(topic);
                    *tally.facts.entry(kind).or_default() += 1;
                    tally.keyless += u64::from(key.is_none());
                    let place = (topic, partition, offset, element);
                    open.produced.push(Produced { place, kind: Kind::Docket, alone: false });
                    let record = Outgoing {
                        topic: self.docket_topic,
                        key: key.as_deref(),
                        payload: bytes,
                        headers: OwnedHeaders::new(),
                    };
                    let tag = open.produced.len() - 1;
                    self.transactions.send(record, tag, false).map(|()| bytes.len())
                }
            });
        };
        let quote = pipeline.rules.protection.is_none();
        facts(message.payload, (format, join.key), &pipeline.limits, quote, out, take);
    }

    /// Under which key a decision is written: where it waits to be joined, that by which it meets its request.
    fn key(&self, made: &Made, bytes: &[u8]) -> String {
        let joined = self.intake.pipeline.file.join.as_ref().and_then(|join| {
            let record = Record::parse(bytes).ok()?;
            Some(join.key.of_decision(&Asked::of(&record)))
        });
        joined.unwrap_or_else(|| made.written.key.clone())
    }

    /// Produces what became of a piece of a record; says how many bytes that were.
    fn produce(
        &self,
        message: &Message<'_>,
        topic: usize,
        element: usize,
        product: Product<'_>,
        open: &mut Open,
    ) -> Result<usize, KafkaError> {
        let (partition, offset) = (message.partition, message.offset);
        let place = (topic, partition, offset, element);
        let origin = Origin { topic: message.topic, partition, offset, element };
        let oversized = self.oversized.get(&place).copied();
        let alone = oversized.is_some_and(|o| !o.proven);
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
                    headers: headers::docket(&origin, self.received),
                };
                self.transactions.send(record, open.produced.len() - 1, alone)?;
                Ok(bytes.len())
            }
            Product::Reject { bytes, reject } => {
                *open.tally.rejects.entry(reject.reason).or_default() += 1;
                let proven = oversized.filter(|o| o.proven).map(|o| o.kind);
                open.produced.push(sent(Kind::Reject));
                let letter = self.letter(bytes, &reject, &origin, proven);
                let record = Outgoing {
                    topic: self.rejects_topic,
                    key: None,
                    payload: &letter.value,
                    headers: letter.headers,
                };
                self.transactions.send(record, open.produced.len() - 1, alone)?;
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
        proven: Option<Kind>,
    ) -> DeadLetter {
        let limit = self.intake.rejects_limit;
        let cut = match proven {
            // What is protected does not get out by the back door; its source still has it.
            _ if self.intake.pipeline.rules.protection.is_some() => Some(0),
            Some(Kind::Reject) => Some(cut(limit)),
            _ => cut_to_fit(bytes.len(), limit),
        };
        dead_letter(self.intake.work.part(), bytes, reject, origin, self.received, cut)
    }

    /// Why a decision that the broker would not take goes to rejects.
    fn outgrown(&self) -> Reject {
        let limit = self
            .intake
            .docket_limit
            .map_or_else(String::new, |n| format!(", which takes {n} bytes (max.message.bytes)"));
        Reject::new(
            Reason::TooLarge,
            format!(
                "the decision outgrows the topic {}{limit} once docket's members are added",
                self.docket_topic
            ),
        )
    }
}
