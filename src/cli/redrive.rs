//! `docket redrive`: sends rejects round again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::rejects::{self, Which, grouped};
use super::shown::{say, sentence_columns};
use super::{CommandResult, sinks};
use crate::log::dead_letter::Letter;
use crate::pipeline::Pipeline;
use crate::pipeline::topics;
use crate::stage::redrive::{Left, Plan, Redrive, Sent};
use crate::stage::run::{Parts, Process};
use crate::words::counted;

/// Send rejects again: to intake what could not be decoded, to its sink what the sink refused. Without --send, shows what would be sent.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  docket redrive pipelines/opa.yaml --sink search             what would go
  docket redrive pipelines/opa.yaml --sink search --send      send it
  docket redrive pipelines/opa.yaml --sink intake --reason too_large --send

Rejects that were sent before are left out; --again includes them. What is refused again becomes a new reject. The record of a reject that \
holds no bytes (with protect), or only the first of them, is fetched from the topic that it came from; if retention has taken it, that is said.")]
pub struct Args {
    /// Pipeline file.
    #[arg(value_name = "PIPELINE")]
    file: PathBuf,
    #[command(flatten)]
    which: Which,
    /// Send decisions to this sink instead of the one that refused them.
    #[arg(long, value_name = "SINK")]
    to: Option<String>,
    /// Send them.
    #[arg(long)]
    send: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> CommandResult {
    let pipeline = super::load(&args.file)?;
    if let Some(name) = &args.to {
        sinks::sink(&args.file, &pipeline, name)?;
    }
    let letters = tokio::task::block_in_place(|| args.which.letters(&args.file, &pipeline))?;
    let mut plan = Plan::new(&pipeline, letters, args.to.as_deref());
    tokio::task::block_in_place(|| plan.leave_gone(&pipeline))?;
    if args.json {
        let all = if args.send { sent(pipeline, &plan).await? } else { planned(&plan) };
        anstream::println!("{all}");
        return Ok(());
    }
    left(&plan.left);
    if args.send { send(pipeline, &plan).await } else { show(&plan) }
}

/// The pipeline's parts, of which none runs.
pub(super) async fn parts(pipeline: Pipeline) -> Result<Parts, Box<dyn std::error::Error>> {
    let limits = topics::max_messages(&pipeline).await;
    Ok(Parts::new(pipeline, &Process::alone(), limits)?)
}

pub(super) fn told(name: &str, sent: Sent) -> String {
    let Sent { delivered, refused, too_old } = sent;
    format!("{name}: {delivered} delivered, {refused} refused again, {too_old} too old for it")
}

pub(super) fn counts(sent: Sent) -> Value {
    let Sent { delivered, refused, too_old } = sent;
    json!({ "delivered": delivered, "refused": refused, "too_old": too_old })
}

/// What would be sent.
fn planned(plan: &Plan) -> Value {
    let sinks: BTreeMap<&String, usize> =
        plan.to_sinks.iter().map(|(name, letters)| (name, letters.len())).collect();
    json!({ "sent": false, "intake": plan.to_intake.len(), "sinks": sinks, "fetched": plan.fetched(), "not_sent": plan.left })
}

/// What became of what was sent.
async fn sent(pipeline: Pipeline, plan: &Plan) -> Result<Value, Box<dyn std::error::Error>> {
    let (mut intake, mut sinks, mut not_sent) = (0, serde_json::Map::new(), plan.left.clone());
    if !plan.is_empty() {
        let parts = parts(pipeline).await?;
        let redrive = Redrive::new(&parts)?;
        let mut stays = Vec::new();
        let quiet: std::sync::Arc<dyn Fn(u64) + Send + Sync> = std::sync::Arc::new(|_| {});
        if !plan.to_intake.is_empty() {
            let (sent, stay) = redrive.to_intake(&plan.to_intake, quiet.clone()).await?;
            intake = sent;
            stays.push(stay);
        }
        for (name, letters) in &plan.to_sinks {
            let (sent, stay) = redrive.to_sink(name, letters, quiet.clone()).await?;
            sinks.insert(name.clone(), counts(sent));
            stays.push(stay);
        }
        for (why, n) in stays.into_iter().flatten() {
            *not_sent.entry(why).or_default() += n;
        }
    }
    Ok(json!({ "sent": true, "intake": intake, "sinks": sinks, "not_sent": not_sent }))
}

fn left(left: &Left) {
    for (why, n) in left {
        say(&format!("{} not sent: {why}", counted(*n, "reject")));
    }
}

fn show(plan: &Plan) -> CommandResult {
    let all: Vec<Letter> =
        plan.to_intake.iter().chain(plan.to_sinks.values().flatten()).cloned().collect();
    anstream::print!("{}", grouped(&all, sentence_columns()));
    if !all.is_empty() {
        let intake =
            (!plan.to_intake.is_empty()).then(|| format!("{} to intake", plan.to_intake.len()));
        let sinks =
            plan.to_sinks.iter().map(|(name, letters)| format!("{} to {name}", letters.len()));
        let all_of_them = intake.into_iter().chain(sinks).collect::<Vec<_>>().join(", ");
        say(&format!("would be sent: {all_of_them}; --send sends them"));
        if plan.fetched() > 0 {
            say(&fetched(all.iter().filter(|letter| letter.is_truncated())));
        }
    }
    Ok(())
}

/// So many places are named.
const NAMED: usize = 5;

/// Where records would be fetched from.
fn fetched<'l>(letters: impl Iterator<Item = &'l Letter>) -> String {
    let mut places: Vec<String> = letters.map(rejects::place).collect();
    places.dedup();
    let more = match places.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let records = counted(places.len(), "record");
    places.truncate(NAMED);
    format!(
        "{records} would be fetched from Kafka (topic/partition/offset): {}{more}",
        places.join(", ")
    )
}

async fn send(pipeline: Pipeline, plan: &Plan) -> CommandResult {
    if plan.is_empty() {
        anstream::println!("no rejects to send");
        return Ok(());
    }
    let parts = parts(pipeline).await?;
    let redrive = Redrive::new(&parts)?;
    if !plan.to_intake.is_empty() {
        let bar = super::progress(plan.to_intake.len() as u64, "sending to intake");
        let (sent, stay) = redrive.to_intake(&plan.to_intake, super::step(&bar)).await?;
        bar.finish_and_clear();
        anstream::println!("intake: {sent} sent");
        left(&stay);
    }
    for (name, letters) in &plan.to_sinks {
        let bar = super::progress(letters.len() as u64, "sending");
        let (sent, stay) = redrive.to_sink(name, letters, super::step(&bar)).await?;
        bar.finish_and_clear();
        say(&told(name, sent));
        left(&stay);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::reject::{Reason, Reject};
    use crate::log::dead_letter::dead_letter;
    use crate::log::headers::Origin;

    #[test]
    fn where_records_are_fetched_from_is_said_plainly() {
        let reject = Reject::new(Reason::NotJson, "no JSON");
        let letter = |offset| {
            let origin = Origin { topic: "decisions", partition: 3, offset, element: 0 };
            let letter =
                dead_letter("intake", b"x", &reject, &origin, "2026-11-24T12:48:50Z", None);
            Letter::of(&letter, 0, offset, 0)
        };
        let said = |n: i64| fetched((0..n).map(letter).collect::<Vec<_>>().iter());
        let of = "would be fetched from Kafka (topic/partition/offset): decisions/3/0";
        assert_eq!(said(1), format!("1 record {of}"));
        assert_eq!(said(2), format!("2 records {of}, decisions/3/1"));
        assert!(said(9).starts_with("9 records ") && said(9).ends_with("/4, and 4 more"));
    }
}
