//! `docket backfill`: gives a sink its past again, from the docket topic.

use std::path::PathBuf;

use serde_json::json;

use super::shown::say;
use super::{CommandResult, Exit, redrive, sinks};
use crate::log::scan::{ScanBound, TopicScan};
use crate::stage::redrive::backfill;
use crate::words::counted;

/// Send a sink the decisions of the docket topic again. Without --send, shows how many that would be.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  docket backfill pipelines/opa.yaml --sink loki --from 2h           how much?
  docket backfill pipelines/opa.yaml --sink loki --from 2h --send    send it

The sink's consumer group and its offsets are not touched. Elasticsearch stores repeated decisions once, and so does Loki in most cases; \
other sinks would hold them twice.")]
pub struct Args {
    /// Pipeline file.
    #[arg(value_name = "PIPELINE")]
    file: PathBuf,
    /// Name of the sink; without one, those of the file are listed.
    #[arg(long, default_value = "", hide_default_value = true)]
    sink: String,
    /// Only decisions written to the docket topic from here on: start, a duration ago such as 2h, or a time (RFC 3339).
    #[arg(long, default_value = "start", value_parser = super::bound)]
    from: ScanBound,
    /// Only decisions written before this: end, a duration ago, or a time.
    #[arg(long, default_value = "end", value_parser = super::bound)]
    until: ScanBound,
    /// Send them.
    #[arg(long)]
    send: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> CommandResult {
    let pipeline = super::load(&args.file)?;
    super::window(args.from, args.until)?;
    if args.sink.is_empty() {
        return Err(Exit::wrong(sinks::no_sink(&args.file, &pipeline, "")).into());
    }
    let twice = sinks::sink(&args.file, &pipeline, &args.sink)?.repeat_window() > 0;
    let past = tokio::task::block_in_place(|| {
        pipeline.scan("backfill", &pipeline.docket_topic(), args.from, args.until)
    })?;
    if !args.send {
        let records = tokio::task::block_in_place(|| count(&past))?;
        if args.json {
            let all = json!({ "sink": args.sink, "sent": false, "decisions": records, "may_hold_twice": twice });
            anstream::println!("{all}");
            return Ok(());
        }
        let twice = if twice { ", which may hold them twice then" } else { "" };
        let decisions = counted(records, "decision");
        say(&format!("{decisions} would be sent to {}{twice}; --send sends them", args.sink));
        return Ok(());
    }
    let parts = redrive::parts(pipeline).await?;
    let bar = super::progress(past.offsets(), "sending");
    let sent = backfill(&parts, &args.sink, past, super::step(&bar)).await?;
    bar.finish_and_clear();
    if args.json {
        let all = json!({ "sink": args.sink, "sent": true, "result": redrive::counts(sent) });
        anstream::println!("{all}");
    } else {
        say(&redrive::told(&args.sink, sent));
    }
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
