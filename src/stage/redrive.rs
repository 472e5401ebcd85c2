//! Sends records again that were read already: rejects round again, or a sink's past from the docket topic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rdkafka::error::KafkaError;
use rdkafka::message::{Message, OwnedHeaders};
use rdkafka::types::RDKafkaErrorCode;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::deliver::{Batch, Sending};
use super::run::{Parts, RunError};
use crate::decision::formats::{self, Piece, Reading};
use crate::decision::ids::hex;
use crate::decision::record::Record;
use crate::log::dead_letter::{Letter, receipt};
use crate::log::original::{Original, Originals};
use crate::log::producer::{self, Single};
use crate::log::scan::{READER, ScanError, TopicScan};
use crate::log::{Outgoing, RecordWriter, Value, headers};
use crate::pipeline::Pipeline;

#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    Scan(#[from] ScanError),
    #[error("a reject can't be written to {topic}: {error}")]
    Write { topic: String, error: KafkaError },
    #[error("reading the docket topic ended before its end: {0}")]
    Reading(#[from] tokio::task::JoinError),
}

/// Is told of each record that is done with.
pub type Step = Arc<dyn Fn(u64) + Send + Sync>;

/// How many were delivered, refused again, too old.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    pub delivered: u64,
    pub refused: u64,
    pub too_old: u64,
}

/// So many letters are looked at together: of those without bytes, so many records are held.
const CHUNK: usize = 100;

/// A record with its place in the docket topic.
struct Item {
    value: Vec<u8>,
    partition: i32,
    offset: i64,
}

/// Why rejects stay where they are, and how many.
pub type Left = BTreeMap<String, usize>;

/// What is to be done with rejects.
#[derive(Default)]
pub struct Plan {
    /// What could not be decoded.
    pub to_intake: Vec<Letter>,
    /// What sinks refused.
    pub to_sinks: BTreeMap<String, Vec<Letter>>,
    /// What stays where it is.
    pub left: Left,
}

impl Plan {
    /// `to` names another sink than the one that refused them.
    pub fn new(pipeline: &Pipeline, letters: Vec<Letter>, to: Option<&str>) -> Plan {
        let mut plan = Plan::default();
        for letter in letters {
            if let Err(why) = plan.take(pipeline, letter, to) {
                plan.leave(why);
            }
        }
        plan
    }

    fn leave(&mut self, why: String) {
        *self.left.entry(why).or_default() += 1;
    }

    fn take(
        &mut self,
        pipeline: &Pipeline,
        letter: Letter,
        to: Option<&str>,
    ) -> Result<(), String> {
        if letter.is_gap() {
            return Err("they name what is gone from a topic, and hold no record".into());
        }
        if letter.is_truncated() && place(&letter).is_none() {
            return Err("they hold no record, or its start only, and the door knows no place that it could be fetched from; their OPA has logged them, perhaps".into());
        }
        let Some(sink) = letter.sink() else {
            let topic = letter.header(headers::SOURCE_TOPIC);
            let facts = pipeline.file.join.iter().flat_map(|join| &join.facts);
            let mut sources = pipeline.file.sources.iter().map(|source| &source.topic);
            if !sources.any(|s| s == topic) && !facts.into_iter().any(|s| s.topic == topic) {
                return Err(format!("they are of {topic}, which is not a source of this pipeline"));
            }
            self.to_intake.push(letter);
            return Ok(());
        };
        let to = to.unwrap_or(sink).to_owned();
        if !letter.is_truncated() && Record::parse(&letter.value).is_err() {
            return Err("they are not docket records".into());
        }
        let amends = |part: &str| pipeline.file.amended_by(part).is_some();
        // Who takes a decision can't take what amends one, nor the other way round.
        let is_amendment = letter.header(headers::SOURCE_TOPIC) == pipeline.file.amendments_topic();
        if is_amendment != amends(&to) {
            return Err(match is_amendment {
                true => format!("they are amendments, which {to} does not take"),
                false => format!("{to} takes amendments only"),
            });
        }
        if !is_amendment && !pipeline.file.sinks.contains_key(&to) {
            return Err(format!(
                "they are of {to}, which is not a sink of this pipeline (--to names another)"
            ));
        }
        self.to_sinks.entry(to).or_default().push(letter);
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.to_intake.is_empty() && self.to_sinks.is_empty()
    }

    /// How many hold no record, or its start only: it is fetched from where it came from.
    pub fn fetched(&self) -> usize {
        let all = self.to_intake.iter().chain(self.to_sinks.values().flatten());
        all.filter(|letter| letter.is_truncated()).count()
    }

    /// Leaves where they are those whose records are not there any more, as far as the broker can say without reading.
    pub fn leave_gone(&mut self, pipeline: &Pipeline) -> Result<(), RedriveError> {
        if self.fetched() == 0 {
            return Ok(());
        }
        let originals = originals(pipeline)?;
        let all = self.to_intake.iter().chain(self.to_sinks.values().flatten());
        let mut gone = BTreeMap::new();
        for ((topic, partition), offsets) in places(all) {
            for (offset, why) in originals.gone(&topic, partition, &offsets)? {
                gone.insert((topic.clone(), partition, offset), why);
            }
        }
        let mut left = Vec::new();
        let mut there = |letter: &Letter| match place(letter).and_then(|place| gone.get(&place)) {
            Some(why) if letter.is_truncated() => {
                left.push(why.to_string());
                false
            }
            _ => true,
        };
        self.to_intake.retain(&mut there);
        for letters in self.to_sinks.values_mut() {
            letters.retain(&mut there);
        }
        self.to_sinks.retain(|_, letters| !letters.is_empty());
        left.into_iter().for_each(|why| self.leave(why));
        Ok(())
    }
}

fn originals(pipeline: &Pipeline) -> Result<Originals, KafkaError> {
    Originals::new(&pipeline.file.kafka, &pipeline.group(READER))
}

/// Where the record stands that a letter was made of.
fn place(letter: &Letter) -> Option<(String, i32, i64)> {
    let number = |name| letter.header(name).parse::<i64>().ok().filter(|n| *n >= 0);
    let partition = i32::try_from(number(headers::SOURCE_PARTITION)?).ok()?;
    let topic = letter.header(headers::SOURCE_TOPIC).to_owned();
    Some((topic, partition, number(headers::SOURCE_OFFSET)?))
}

/// The places of letters that hold no record, or its start only.
fn places<'l>(letters: impl Iterator<Item = &'l Letter>) -> BTreeMap<(String, i32), BTreeSet<i64>> {
    let mut all: BTreeMap<_, BTreeSet<i64>> = BTreeMap::new();
    for (topic, partition, offset) in letters.filter(|l| l.is_truncated()).filter_map(place) {
        all.entry((topic, partition)).or_default().insert(offset);
    }
    all
}

/// What a letter is sent as.
struct Again {
    value: Vec<u8>,
    key: Option<String>,
    headers: OwnedHeaders,
}

/// What letters are sent as, in their order: their own bytes, or those that are fetched; or why they stay where they are.
fn again(
    pipeline: &Pipeline,
    letters: &[Letter],
) -> Result<Vec<Result<Again, String>>, KafkaError> {
    let mut fetched = BTreeMap::new();
    let wanted = places(letters.iter());
    if !wanted.is_empty() {
        let originals = originals(pipeline)?;
        for ((topic, partition), offsets) in wanted {
            for (offset, record) in originals.fetch(&topic, partition, &offsets)? {
                fetched.insert((topic.clone(), partition, offset), record);
            }
        }
    }
    let one = |letter: &Letter| {
        if !letter.is_truncated() {
            let value = letter.value.clone();
            return Ok(Again { value, key: None, headers: OwnedHeaders::new() });
        }
        match place(letter).and_then(|place| fetched.get(&place)) {
            Some(Ok(record)) => piece(pipeline, letter, record),
            Some(Err(why)) => Err(why.to_string()),
            None => Err("their place is not known".into()),
        }
    };
    Ok(letters.iter().map(one).collect())
}

/// Finds in a record what a letter was made of. It knows its hash; a record with one piece is sent whole, whatever it is read
/// as now.
fn piece(pipeline: &Pipeline, letter: &Letter, record: &Original) -> Result<Again, String> {
    let topic = letter.header(headers::SOURCE_TOPIC);
    let sha256 = letter.header(headers::SHA256);
    let is_it = |bytes: &[u8]| hex(&Sha256::digest(bytes)) == sha256;
    let key = record.key.clone().and_then(|key| String::from_utf8(key).ok());
    let whole = || Again { value: record.value.clone(), key, headers: record.headers.clone() };
    if is_it(&record.value) {
        return Ok(whole());
    }
    let source = pipeline.file.sources.iter().find(|source| source.topic == topic);
    let Some(source) = source.filter(|_| letter.sink().is_none()) else {
        return Err(
            "another record stands at their place: the topic was deleted and made again".into()
        );
    };
    let reading = Reading { format: source.format, envelope: source.envelope.as_deref() };
    let (mut found, mut count) = (None, 0);
    formats::split(&record.value, reading, &pipeline.limits, &mut |piece| {
        let bytes: &[u8] = match &piece {
            Piece::Ignored(_) => return,
            Piece::Decision { event, .. } => event.raw.as_bytes(),
            Piece::Reject { bytes, .. } => bytes,
        };
        count += 1;
        if found.is_none() && is_it(bytes) {
            found = Some(bytes.to_vec());
        }
    });
    match (found, count) {
        // What stands around it says how it is read, and what an agent knew of it.
        (Some(_), 1) => Ok(whole()),
        (Some(value), _) => Ok(Again { value, key: None, headers: record.headers.clone() }),
        (None, _) => Err(
            "their record holds no such piece: it is another record, or it is read otherwise since"
                .into(),
        ),
    }
}

/// A client that writes rejects to their source topics, and notes in the rejects topic that it did.
pub struct Redrive<'p> {
    parts: &'p Parts,
    out: Single,
}

impl<'p> Redrive<'p> {
    pub fn new(parts: &'p Parts) -> Result<Redrive<'p>, RedriveError> {
        let file = &parts.pipeline.file;
        let out = producer::single(&file.kafka, "redrive", file.docket.compression)?;
        Ok(Redrive { parts, out })
    }

    /// Writes what could not be decoded to its source topic again; how many, and what stays where it is.
    pub async fn to_intake(
        &self,
        letters: &[Letter],
        step: Step,
    ) -> Result<(u64, Left), RedriveError> {
        let (mut count, mut left) = (0, Left::new());
        for letters in letters.chunks(CHUNK) {
            let pipeline = &self.parts.pipeline;
            let again = tokio::task::block_in_place(|| again(pipeline, letters))?;
            let mut sent = Vec::new();
            for (letter, again) in letters.iter().zip(again) {
                let outcome = match again {
                    Ok(again) => self.write(letter.header(headers::SOURCE_TOPIC), again).await?,
                    Err(why) => Err(why),
                };
                match outcome {
                    Ok(()) => sent.push(letter),
                    Err(why) => *left.entry(why).or_default() += 1,
                }
                step(1);
            }
            count += sent.len() as u64;
            self.note(sent.into_iter()).await?;
        }
        Ok((count, left))
    }

    /// Writes a record, or says why the topic does not take it.
    async fn write(&self, topic: &str, again: Again) -> Result<Result<(), String>, RedriveError> {
        let Again { value, key, headers } = again;
        let record = Outgoing { topic, key: key.as_deref(), payload: &value, headers };
        match self.out.write(record).await {
            Ok(()) => Ok(Ok(())),
            Err(error)
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) =>
            {
                Ok(Err(format!("{topic} does not take records of their size any more")))
            }
            Err(error) => Err(RedriveError::Write { topic: topic.to_owned(), error }),
        }
    }

    /// Sends a sink what was refused; also what stays where it is.
    pub async fn to_sink(
        &self,
        name: &str,
        letters: &[Letter],
        step: Step,
    ) -> Result<(Sent, Left), RedriveError> {
        let (sender, records) = mpsc::channel(CHUNK);
        let feed = async move {
            let (mut fed, mut left) = (Vec::new(), Left::new());
            for letters in letters.chunks(CHUNK) {
                let pipeline = &self.parts.pipeline;
                let again = tokio::task::block_in_place(|| again(pipeline, letters))?;
                for (letter, again) in letters.iter().zip(again) {
                    let value = match again {
                        Ok(again) => again.value,
                        Err(why) => {
                            *left.entry(why).or_default() += 1;
                            continue;
                        }
                    };
                    let (_, partition, offset) = place(letter).unwrap_or_default();
                    if sender.send(Item { value, partition, offset }).await.is_err() {
                        return Ok((fed, left));
                    }
                    fed.push(letter);
                }
            }
            Ok::<_, KafkaError>((fed, left))
        };
        let (sent, fed) = tokio::join!(send(self.parts, name, records, step), feed);
        let (fed, left) = fed?;
        self.note(fed.into_iter()).await?;
        Ok((sent?, left))
    }

    /// Notes in the rejects topic that these were sent.
    async fn note(&self, letters: impl Iterator<Item = &Letter>) -> Result<(), RedriveError> {
        let topic = self.parts.pipeline.rejects_topic();
        let places: Vec<(i32, i64)> = letters.map(|l| (l.partition, l.offset)).collect();
        for places in places.chunks(1000) {
            let note = receipt(places);
            let record =
                Outgoing { topic: &topic, key: None, payload: &note.value, headers: note.headers };
            self.out.write(record).await?;
        }
        Ok(())
    }
}

/// Sends a sink again what was read of the docket topic.
pub async fn backfill(
    parts: &Parts,
    name: &str,
    past: TopicScan,
    step: Step,
) -> Result<Sent, RedriveError> {
    let (sender, records) = mpsc::channel(1000);
    let reading = tokio::task::spawn_blocking(move || {
        past.read(&mut |_| {}, &mut |message| {
            let item = Item {
                value: message.payload().unwrap_or_default().to_vec(),
                partition: message.partition(),
                offset: message.offset(),
            };
            sender.blocking_send(item).is_ok()
        })
    });
    let sent = send(parts, name, records, step).await?;
    reading.await??;
    Ok(sent)
}

/// Sends the records that come, in batches.
async fn send(
    parts: &Parts,
    name: &str,
    mut records: mpsc::Receiver<Item>,
    step: Step,
) -> Result<Sent, RedriveError> {
    let (config, deliver) = parts.apart(name)?;
    let delivery = config.delivery();
    let rejects = deliver.rejects()?;
    let sending = Arc::new(Sending::apart(Arc::new(deliver), rejects, CancellationToken::new()));
    let mut tasks = JoinSet::new();
    let mut batch = Batch::default();
    loop {
        let next = records.recv().await;
        let ended = next.is_none();
        if let Some(item) = next {
            batch.push(Arc::new(Value::new(&item.value)), item.partition, item.offset, 0);
        }
        let full = batch.len() >= delivery.batch_records || batch.size() >= delivery.batch_bytes.0;
        if !batch.is_empty() && (ended || full) {
            while tasks.len() >= config.concurrency() {
                tasks.join_next().await;
            }
            let (full, sending, step) = (std::mem::take(&mut batch), sending.clone(), step.clone());
            tasks.spawn(async move {
                let n = full.len() as u64;
                sending.send_all(full).await;
                step(n);
            });
        }
        if ended {
            break;
        }
    }
    while tasks.join_next().await.is_some() {}
    let count = |outcome: &str| parts.meters.delivered.with_label_values(&[name, outcome]).get();
    let too_old = parts.meters.rejects.with_label_values(&[name, "too_old"]).get();
    Ok(Sent { delivered: count("delivered"), refused: count("refused") - too_old, too_old })
}
