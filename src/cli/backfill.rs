//! `docket backfill`: gives a sink its past again, from the docket topic.

use std::path::PathBuf;

use super::CommandResult;
use super::redrive;
use crate::log::scan::{ScanBound, TopicScan};
use crate::stage::redrive::backfill;

/// Send a sink again what the docket topic holds. Shows how much that is; --send does it.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  docket backfill pipelines/opa.yaml --sink loki --from 2h            how much would be sent
  docket backfill pipelines/opa.yaml --sink loki --from 2h --send     send it

This runs beside the sink's consumer group, whose offsets stay as they are. Loki itself and Elasticsearch keep one of several copies of a
decision; other sinks would hold it twice.")]
pub struct Args {
    #[arg(value_name = "PIPELINE")]
    file: PathBuf,
    /// The sink.
    #[arg(long)]
    sink: String,
    /// What Kafka got since: `start`, a duration ago (2h), or a time (RFC 3339).
    #[arg(long, default_value = "start", value_parser = super::bound)]
    from: ScanBound,
    /// And before.
    #[arg(long, default_value = "end", value_parser = super::bound)]
    until: ScanBound,
    /// Do it.
    #[arg(long)]
    send: bool,
}

pub async fn run(args: Args) -> CommandResult {
    let pipeline = super::load(&args.file)?;
    let twice = redrive::sink(&args.file, &pipeline, &args.sink)?.repeat_window() > 0;
    let past = tokio::task::block_in_place(|| {
        pipeline.scan("backfill", &pipeline.docket_topic(), args.from, args.until)
    })?;
    if !args.send {
        let records = tokio::task::block_in_place(|| count(&past))?;
        let twice = if twice { ", which may hold them twice then" } else { "" };
        anstream::println!(
            "{records} decisions would be sent to {}{twice}; --send sends them",
            args.sink
        );
        return Ok(());
    }
    let parts = redrive::parts(pipeline).await?;
    let bar = super::progress(past.offsets(), "sending");
    let sent = backfill(&parts, &args.sink, past, super::step(&bar)).await?;
    bar.finish_and_clear();
    anstream::println!("{}", redrive::told(&args.sink, sent));
    Ok(())
}

fn count(past: &TopicScan) -> CommandResult<u64> {
    let mut records = 0;
    let bar = super::progress(past.offsets(), "counting");
    past.read(&mut |n| bar.inc(n), &mut |_| {
        records += 1;
        true
    })?;
    bar.finish_and_clear();
    Ok(records)
}
