//! `docket doctor`: what is wrong around a pipeline, and the way out.

use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use serde_json::json;

use super::shown::{sentence_columns, wrapped};
use super::{CommandResult, Exit};
use crate::doctor::{Check, Level, examine};
use crate::words::counted;

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
    #[arg(long, value_name = "URL", env = "OPA_URL", value_parser = super::url)]
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
        let not_looked_at: &[&str] = if args.opa.is_none() { &["opa"] } else { &[] };
        let all = json!({ "pipeline": pipeline.name(), "sound": sound, "wrong": wrong, "warnings": warnings, "checks": checks, "not_looked_at": not_looked_at });
        anstream::println!("{all}");
    } else {
        let columns = sentence_columns();
        checks.iter().for_each(|check| anstream::println!("{}", line(check, columns)));
        if args.opa.is_none() {
            let line = "not looked at: OPA, whose address no pipeline file has; give it with --opa or OPA_URL";
            anstream::println!("{}", wrapped(line, 8, columns));
        }
    }
    let found = match (wrong, warnings) {
        (0, 0) => "sound".to_owned(),
        (0, n) => format!("sound, with {}", counted(n, "warning")),
        (1, _) => "1 thing is wrong".to_owned(),
        (n, _) => format!("{n} things are wrong"),
    };
    let summary = format!("{}: {found}", args.file.display());
    if !sound {
        return Err(Exit::reported(1, summary).into());
    }
    if !args.json {
        anstream::println!("{summary}");
    }
    Ok(())
}

/// What was looked at, where, and what it says; below it the way out.
fn line(check: &Check, columns: usize) -> String {
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
    let line = format!("{style}{mark:7}{style:#} {what} {dim}{address}{dim:#}: {says}");
    let mut line = wrapped(&line, 8, columns);
    if !way_out.is_empty() {
        let way_out = format!("        -> {}", super::tail::printable(way_out));
        line.push_str(&format!("\n{}", wrapped(&way_out, 11, columns)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_fits_80_columns_and_says_all_of_it() {
        let check = Check {
            what: "topic opa-decisions".into(),
            address: "kafka-0.kafka.svc.cluster.local:9092".into(),
            level: Level::Warning,
            says: "it has 1 partition, so that only one process can read it at a time".into(),
            way_out: "kafka-topics.sh --alter --topic opa-decisions --partitions 12, when nobody relies on the order".into(),
            astray: false,
        };
        let shown = anstream::adapter::strip_str(&line(&check, 80)).to_string();
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let whole = anstream::adapter::strip_str(&line(&check, usize::MAX)).to_string();
        assert_eq!((words(&shown), whole.lines().count()), (words(&whole), 2));
    }
}
