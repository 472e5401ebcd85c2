//! `docket replay`: sends rejects round again, or gives a sink its past again from the docket topic.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use rdkafka::message::{Message, OwnedHeaders};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::CommandResult;
use super::rejects::{Which, grouped};
use crate::decision::record::Record;
use crate::log::past::Past;
use crate::log::producer::{self, Single};
use crate::log::{Letters, Outgoing, headers, topics};
use crate::pipeline::Pipeline;
use crate::pipeline::model;
use crate::sink::Sink;
use crate::stage::deliver::{Batch, Sending};
use crate::stage::rejects::{Letter, receipt};
use crate::stage::run::{Parts, Process, Roles, Then, with_sink};
use crate::telemetry::Health;

/// Send rejects round again: to intake what could not be decoded, to its sink what the sink refused. Or, with --past, give a sink again what
/// the docket topic holds. Shows what it would do; --send does it.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  docket replay pipelines/opa.yaml --sink search                 what would be sent
  docket replay pipelines/opa.yaml --sink search --send          send it
  docket replay pipelines/opa.yaml --sink intake --reason too_large --send
  docket replay pipelines/opa.yaml --past --sink loki --from 2h --send

Rejects that were sent are not shown again; --again takes them, too. What is refused again becomes a new reject. A sink gets its past beside
its consumer group, whose offsets stay as they are; Loki itself and Elasticsearch keep one of several, other sinks would hold decisions twice.")]
pub struct Args {
    #[arg(value_name = "PIPELINE")]
    file: PathBuf,
    #[command(flatten)]
    which: Which,
    /// What the docket topic holds instead of rejects, for the sink named with --sink.
    #[arg(long, requires = "sink")]
    past: bool,
    /// Send rejected decisions to this sink instead of the one that refused them.
    #[arg(long, value_name = "SINK", conflicts_with = "past")]
    to: Option<String>,
    /// Do it.
    #[arg(long)]
    send: bool,
}

pub async fn run(args: Args) -> CommandResult {
    let pipeline = super::load(&args.file)?;
    let for_sink = args.to.as_ref().or(args.which.sink.as_ref().filter(|_| args.past));
    if let Some(name) = for_sink {
        let sink = pipeline.file.sinks.get(name).ok_or_else(|| {
            let names: Vec<&str> = pipeline.file.sinks.keys().map(String::as_str).collect();
            format!(
                "there is no sink {name:?} in {}; there are {}",
                args.file.display(),
                names.join(", ")
            )
        })?;
        if matches!(sink, model::Sink::Metrics(_)) {
            return Err(format!(
                "{name} counts decisions in the process that runs; there is nothing to send to"
            )
            .into());
        }
    }
    let process = Process {
        registry: prometheus::Registry::new(),
        exemplars: Arc::default(),
        health: Arc::new(Health::default()),
        stop: CancellationToken::new(),
        runtime: tokio::runtime::Handle::current(),
        drain: Duration::ZERO,
        roles: Roles::default(),
    };
    let limits = topics::max_messages(&pipeline).await;
    let parts = Parts::new(pipeline, &process, limits)?;
    match (args.past, &args.which.sink) {
        (true, Some(sink)) => past(&args, &parts, sink).await,
        _ => rejects(&args, &parts).await,
    }
}

/// What is on its way to a sink: a record with its place in the docket topic.
type Item = (Vec<u8>, i32, i64);

/// Sends the records that come, in batches, and says how many it was done with.
struct Send<'p> {
    parts: &'p Parts,
    name: &'p str,
    records: mpsc::Receiver<Item>,
    bar: ProgressBar,
}

/// How many were delivered, refused again, too old.
#[derive(Debug, Default, Clone, Copy)]
struct Sent {
    delivered: u64,
    refused: u64,
    too_old: u64,
}

impl<'p> Then for Send<'p> {
    type Output = std::pin::Pin<Box<dyn Future<Output = Result<Sent, String>> + 'p>>;

    fn then<S: Sink>(self, sink: S) -> Self::Output {
        let Send { parts, name, mut records, bar } = self;
        Box::pin(async move {
            let model = &parts.pipeline.file.sinks[name];
            let deliver = Arc::new(parts.deliver(name, model, sink, None));
            let delivery = model.delivery();
            let rejects = deliver.rejects().map_err(|e| e.to_string())?;
            let sending = Arc::new(Sending::apart(deliver, rejects, CancellationToken::new()));
            let mut tasks = JoinSet::new();
            let mut batch = Batch::default();
            loop {
                let next = records.recv().await;
                let ended = next.is_none();
                if let Some((value, partition, offset)) = next {
                    batch.push(&value, partition, offset, 0);
                }
                if !batch.is_empty()
                    && (ended
                        || batch.len() >= delivery.batch_records
                        || batch.size() >= delivery.batch_bytes.0)
                {
                    while tasks.len() >= model.concurrency() {
                        tasks.join_next().await;
                    }
                    let (full, sending, bar) =
                        (std::mem::take(&mut batch), sending.clone(), bar.clone());
                    tasks.spawn(async move {
                        let n = full.len() as u64;
                        sending.send_all(full).await;
                        bar.inc(n);
                    });
                }
                if ended {
                    break;
                }
            }
            while tasks.join_next().await.is_some() {}
            let count =
                |outcome: &str| parts.meters.delivered.with_label_values(&[name, outcome]).get();
            let too_old = parts.meters.rejects.with_label_values(&[name, "too_old"]).get();
            Ok(Sent { delivered: count("delivered"), refused: count("refused") - too_old, too_old })
        })
    }
}

fn told(name: &str, sent: Sent) -> String {
    let Sent { delivered, refused, too_old } = sent;
    format!("{name}: {delivered} delivered, {refused} refused again, {too_old} too old for it")
}

/// Sends a sink its past.
async fn past(args: &Args, parts: &Parts, name: &str) -> CommandResult {
    let pipeline = parts.pipeline.clone();
    let from = args.which.from;
    let open = |edge| Past::open(&pipeline, "replay", &pipeline.docket_topic(), from, edge);
    let past = tokio::task::block_in_place(|| open(args.which.until))?;
    if !args.send {
        let mut records = 0u64;
        let bar = super::progress(past.offsets(), "counting");
        tokio::task::block_in_place(|| {
            past.read(&mut |n| bar.inc(n), &mut |_| {
                records += 1;
                true
            })
        })?;
        bar.finish_and_clear();
        let twice = if pipeline.file.sinks[name].repeat_window() > 0 {
            ", which may hold them twice then"
        } else {
            ""
        };
        anstream::println!("{records} decisions would be sent to {name}{twice}; --send sends them");
        return Ok(());
    }
    let (sender, records) = mpsc::channel(1000);
    let bar = super::progress(past.offsets(), "sending");
    let reading = tokio::task::spawn_blocking(move || {
        past.read(&mut |_| {}, &mut |message| {
            sender
                .blocking_send((
                    message.payload().unwrap_or_default().to_vec(),
                    message.partition(),
                    message.offset(),
                ))
                .is_ok()
        })
    });
    let sent = with_sink(
        name,
        &pipeline.file.sinks[name],
        &parts.decisions,
        Send { parts, name, records, bar: bar.clone() },
    )?
    .await?;
    reading.await??;
    bar.finish_and_clear();
    anstream::println!("{}", told(name, sent));
    Ok(())
}

/// Sends rejects round again.
async fn rejects(args: &Args, parts: &Parts) -> CommandResult {
    let pipeline = parts.pipeline.clone();
    let letters = tokio::task::block_in_place(|| args.which.letters(&pipeline))?;
    let (whole, cut): (Vec<Letter>, Vec<Letter>) =
        letters.into_iter().partition(|letter| !letter.is_truncated());
    if !cut.is_empty() {
        anstream::println!(
            "{} rejects hold only the start of their record, which is in its source topic still, perhaps; they are left",
            cut.len()
        );
    }
    let mut to_intake = Vec::new();
    let mut to_sinks: BTreeMap<String, Vec<Letter>> = BTreeMap::new();
    let mut left: BTreeMap<String, usize> = BTreeMap::new();
    for letter in whole {
        let Some(sink) = letter.sink() else {
            let topic = letter.header(headers::SOURCE_TOPIC);
            if pipeline.file.sources.iter().any(|s| s.topic == topic) {
                to_intake.push(letter);
            } else {
                *left
                    .entry(format!("of {topic}, which is no source of this pipeline"))
                    .or_default() += 1;
            }
            continue;
        };
        let to = args.to.as_deref().unwrap_or(sink).to_owned();
        match pipeline.file.sinks.get(&to) {
            _ if Record::parse(&letter.value).is_err() => {
                *left.entry("that are no docket records".into()).or_default() += 1
            }
            None => {
                *left
                    .entry(format!(
                        "of {to}, which is no sink of this pipeline (--to names another)"
                    ))
                    .or_default() += 1
            }
            Some(_) => to_sinks.entry(to).or_default().push(letter),
        }
    }
    for (why, count) in left {
        anstream::println!("{count} rejects are left: {why}");
    }
    if !args.send {
        let all: Vec<Letter> =
            to_intake.iter().chain(to_sinks.values().flatten()).cloned().collect();
        anstream::print!("{}", grouped(&all));
        if !all.is_empty() {
            let sinks: Vec<String> = to_sinks
                .iter()
                .map(|(name, letters)| format!("{} to {name}", letters.len()))
                .collect();
            let intake = (!to_intake.is_empty()).then(|| format!("{} to intake", to_intake.len()));
            anstream::println!(
                "would be sent: {}; --send sends them",
                intake.into_iter().chain(sinks).collect::<Vec<_>>().join(", ")
            );
        }
        return Ok(());
    }
    let out = producer::single(&pipeline.file.kafka, "replay", pipeline.file.docket.compression)?;
    if !to_intake.is_empty() {
        let bar = super::progress(to_intake.len() as u64, "sending to intake");
        for letters in to_intake.chunks(500) {
            for letter in letters {
                let record = Outgoing {
                    topic: letter.header(headers::SOURCE_TOPIC),
                    key: None,
                    payload: &letter.value,
                    headers: OwnedHeaders::new(),
                };
                out.write(record).await.map_err(|e| {
                    format!(
                        "a reject can't be written to {}: {e}",
                        letter.header(headers::SOURCE_TOPIC)
                    )
                })?;
                bar.inc(1);
            }
            receipts(&pipeline, &out, letters).await?;
        }
        bar.finish_and_clear();
        anstream::println!("intake: {} sent", to_intake.len());
    }
    for (name, letters) in &to_sinks {
        let bar = super::progress(letters.len() as u64, "sending");
        let (sender, records) = mpsc::channel(1000);
        let place = |letter: &Letter, name| letter.header(name).parse::<i64>().unwrap_or_default();
        let items: Vec<Item> = letters
            .iter()
            .map(|l| {
                (
                    l.value.clone(),
                    place(l, headers::SOURCE_PARTITION) as i32,
                    place(l, headers::SOURCE_OFFSET),
                )
            })
            .collect();
        let feeding = tokio::spawn(async move {
            for item in items {
                if sender.send(item).await.is_err() {
                    return;
                }
            }
        });
        let sent = with_sink(
            name,
            &pipeline.file.sinks[name],
            &parts.decisions,
            Send { parts, name, records, bar: bar.clone() },
        )?
        .await?;
        feeding.await?;
        receipts(&pipeline, &out, letters).await?;
        bar.finish_and_clear();
        anstream::println!("{}", told(name, sent));
    }
    if to_intake.is_empty() && to_sinks.is_empty() {
        anstream::println!("no rejects to send");
    }
    Ok(())
}

/// Notes in the rejects topic that these were sent.
async fn receipts(pipeline: &Pipeline, out: &Single, letters: &[Letter]) -> CommandResult {
    let topic = pipeline.rejects_topic();
    let places: Vec<(i32, i64)> = letters.iter().map(|l| (l.partition, l.offset)).collect();
    for places in places.chunks(1000) {
        let note = receipt(places);
        out.write(Outgoing {
            topic: &topic,
            key: None,
            payload: &note.value,
            headers: note.headers,
        })
        .await?;
    }
    Ok(())
}
