//! Sends records again that were read already: rejects round again, or a sink's past from the docket topic.

use std::collections::BTreeMap;
use std::sync::Arc;

use rdkafka::error::KafkaError;
use rdkafka::message::{Message, OwnedHeaders};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::deliver::{Batch, Sending};
use super::run::{Parts, RunError};
use crate::decision::record::Record;
use crate::log::dead_letter::{Letter, receipt};
use crate::log::producer::{self, Single};
use crate::log::scan::{ScanError, TopicScan};
use crate::log::{Outgoing, RecordWriter, headers};
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

/// A record with its place in the docket topic.
struct Item {
    value: Vec<u8>,
    partition: i32,
    offset: i64,
}

/// What is to be done with rejects.
#[derive(Default)]
pub struct Plan {
    /// What could not be decoded.
    pub to_intake: Vec<Letter>,
    /// What sinks refused.
    pub to_sinks: BTreeMap<String, Vec<Letter>>,
    /// What stays where it is: why, and how many.
    pub left: BTreeMap<String, usize>,
}

impl Plan {
    /// `to` names another sink than the one that refused them.
    pub fn new(pipeline: &Pipeline, letters: Vec<Letter>, to: Option<&str>) -> Plan {
        let mut plan = Plan::default();
        for letter in letters {
            if let Err(why) = plan.take(pipeline, letter, to) {
                *plan.left.entry(why).or_default() += 1;
            }
        }
        plan
    }

    fn take(
        &mut self,
        pipeline: &Pipeline,
        letter: Letter,
        to: Option<&str>,
    ) -> Result<(), String> {
        if letter.is_truncated() {
            return Err("they hold only the start of their record, which is in its source topic still, perhaps".into());
        }
        let Some(sink) = letter.sink() else {
            let topic = letter.header(headers::SOURCE_TOPIC);
            if !pipeline.file.sources.iter().any(|source| source.topic == topic) {
                return Err(format!("they are of {topic}, which is not a source of this pipeline"));
            }
            self.to_intake.push(letter);
            return Ok(());
        };
        let to = to.unwrap_or(sink).to_owned();
        if Record::parse(&letter.value).is_err() {
            return Err("they are not docket records".into());
        }
        if !pipeline.file.sinks.contains_key(&to) {
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

    /// Writes what could not be decoded to its source topic again.
    pub async fn to_intake(&self, letters: &[Letter], step: Step) -> Result<(), RedriveError> {
        for letters in letters.chunks(500) {
            for letter in letters {
                let topic = letter.header(headers::SOURCE_TOPIC);
                let record = Outgoing {
                    topic,
                    key: None,
                    payload: &letter.value,
                    headers: OwnedHeaders::new(),
                };
                let wrong = |error| RedriveError::Write { topic: topic.to_owned(), error };
                self.out.write(record).await.map_err(wrong)?;
                step(1);
            }
            self.note(letters).await?;
        }
        Ok(())
    }

    /// Sends a sink what was refused.
    pub async fn to_sink(
        &self,
        name: &str,
        letters: &[Letter],
        step: Step,
    ) -> Result<Sent, RedriveError> {
        let (sender, records) = mpsc::channel(1000);
        let place = |letter: &Letter, name| letter.header(name).parse::<i64>().unwrap_or_default();
        let feed = async move {
            for letter in letters {
                let item = Item {
                    value: letter.value.clone(),
                    partition: place(letter, headers::SOURCE_PARTITION) as i32,
                    offset: place(letter, headers::SOURCE_OFFSET),
                };
                if sender.send(item).await.is_err() {
                    return;
                }
            }
        };
        let (sent, ()) = tokio::join!(send(self.parts, name, records, step), feed);
        self.note(letters).await?;
        sent
    }

    /// Notes in the rejects topic that these were sent.
    async fn note(&self, letters: &[Letter]) -> Result<(), RedriveError> {
        let topic = self.parts.pipeline.rejects_topic();
        let places: Vec<(i32, i64)> = letters.iter().map(|l| (l.partition, l.offset)).collect();
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
            batch.push(&item.value, item.partition, item.offset, 0);
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
