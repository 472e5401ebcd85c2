//! `docket doctor`: what is wrong around a pipeline, and the way out.

use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use serde_json::json;

use super::CommandResult;
use crate::doctor::{Check, Level, examine};

/// Look at everything a pipeline needs, all at once and within 5 s, and say what is wrong and the way out.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  docket doctor pipelines/opa.yaml
  docket doctor pipelines/opa.yaml --opa http://localhost:8181
  docket doctor my.yaml --json | jq '.checks[] | select(.level != \"ok\")'

Kafka, the login, topics and how they are kept, rights to read; every sink with its address, login and index template; notifiers; OPA; \
clocks; certificates of servers and in files. Nothing is written and no consumer group is joined; whether docket may write to its topics shows \
only when it runs. Exits with code 1 if something is wrong; with --strict, also if there is a warning.")]
pub struct Args {
    /// Pipeline file.
    #[arg(value_name = "PIPELINE")]
    file: PathBuf,
    /// Address of an OPA to look at, too: whether it logs its decisions.
    #[arg(long, value_name = "URL", env = "OPA_URL")]
    opa: Option<String>,
    /// Print one JSON object: sound, and all checks.
    #[arg(long)]
    json: bool,
    /// Exit with code 1 if there are warnings, too.
    #[arg(long)]
    strict: bool,
}

pub async fn run(args: Args) -> CommandResult {
    let pipeline = super::load(&args.file)?;
    let checks = examine(&pipeline, args.opa.as_deref()).await;
    let count = |level: Level| checks.iter().filter(|check| check.level == level).count();
    let (wrong, warnings) = (count(Level::Wrong), count(Level::Warning));
    let sound = wrong == 0 && (warnings == 0 || !args.strict);
    if args.json {
        let all = json!({ "pipeline": pipeline.name(), "sound": sound, "wrong": wrong, "warnings": warnings, "checks": checks });
        anstream::println!("{all}");
    } else {
        checks.iter().for_each(|check| anstream::println!("{}", line(check)));
    }
    let found = match (wrong, warnings) {
        (0, 0) => "sound".to_owned(),
        (0, 1) => "sound, with 1 warning".to_owned(),
        (0, n) => format!("sound, with {n} warnings"),
        (1, _) => "1 thing is wrong".to_owned(),
        (n, _) => format!("{n} things are wrong"),
    };
    let summary = format!("{}: {found}", args.file.display());
    if !sound {
        return Err(summary.into());
    }
    if !args.json {
        anstream::println!("{summary}");
    }
    Ok(())
}

/// What was looked at, where, and what it says; below it the way out.
fn line(check: &Check) -> String {
    let (mark, color) = match check.level {
        Level::Ok => ("ok", AnsiColor::Green),
        Level::Warning => ("warning", AnsiColor::Yellow),
        Level::Wrong => ("wrong", AnsiColor::Red),
    };
    let style = Style::new().fg_color(Some(color.into())).bold();
    let dim = Style::new().dimmed();
    let Check { what, address, says, way_out, .. } = check;
    let (what, address) = (super::tail::printable(what), super::tail::printable(address));
    let says = super::tail::printable(says);
    let mut line = format!("{style}{mark:7}{style:#} {what} {dim}{address}{dim:#}: {says}");
    if !way_out.is_empty() {
        line.push_str(&format!("\n        -> {}", super::tail::printable(way_out)));
    }
    line
}
