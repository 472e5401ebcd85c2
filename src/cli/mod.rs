//! The commands, one file each.

mod backfill;
mod capacity;
mod check;
mod decrypt;
mod demo;
mod doctor;
mod feed;
mod generate;
mod init;
mod offline;
mod protect;
mod redrive;
mod rejects;
mod run;
mod schema;
mod setup;
mod spikes;
mod tail;
mod top;
mod verify;
mod why;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::log::scan::ScanBound;
use crate::pipeline::{self, Pipeline};

/// Which docket this is.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("DOCKET_COMMIT"), ")");

/// The flight recorder for policy decisions.
///
/// docket reads OPA decision logs from Kafka, joins them with traces, and delivers each decision to the
/// tools that platform teams already watch: OpenTelemetry, Prometheus, Loki, Elasticsearch.
#[derive(Parser)]
#[command(
    name = "docket",
    version = VERSION,
    arg_required_else_help = true,
    after_help = "Examples:
  docket demo --for 30s                     see it work, without any server
  docket demo decisions.ndjson              the same, with your own decisions
  docket init my.yaml                       write a pipeline file to begin with
  docket check pipelines/opa.yaml           is it valid? its test cases, too
  docket setup pipelines/opa.yaml           create topics and index templates
  docket doctor pipelines/opa.yaml          what is wrong, and the way out
  docket run pipelines/opa.yaml             run the pipeline
  docket top pipelines/opa.yaml             what each part does, what fails
  docket tail pipelines/opa.yaml --verdict deny
  docket rejects pipelines/opa.yaml         what was refused, and why
  docket redrive pipelines/opa.yaml         send rejects again
  docket verify pipelines/opa.yaml          is every decision in every sink?
  docket spikes pipelines/opa.yaml          what the detector would have said
  docket capacity pipelines/opa.yaml        load, growth, cost, headroom
  docket protect my.yaml decisions.ndjson   what is removed, and by which rule
  docket why ID --from decisions.ndjson --bundle policies/   why was it denied?"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Args),
    Demo(demo::Args),
    Check(check::Args),
    Schema(schema::Args),
    Init(init::Args),
    Setup(setup::Args),
    Doctor(doctor::Args),
    Generate(generate::Args),
    Tail(tail::Args),
    Top(top::Args),
    Rejects(rejects::Args),
    Redrive(redrive::Args),
    Backfill(backfill::Args),
    /// Renamed to `docket redrive` and `docket backfill`.
    #[command(hide = true)]
    Replay {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    Verify(verify::Args),
    Spikes(spikes::Args),
    Capacity(capacity::Args),
    Protect(protect::Args),
    Why(why::Args),
    Decrypt(decrypt::Args),
    /// Write a manual page for each command into a folder.
    #[command(hide = true)]
    Man {
        /// Folder to write to.
        folder: std::path::PathBuf,
    },
    /// Print shell completions, e.g. `docket completions bash > /etc/bash_completion.d/docket`.
    Completions {
        /// Shell to complete for.
        shell: clap_complete::Shell,
    },
}

/// An error for people; the process ends with it.
type CommandResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// An error with an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{told}")]
struct Exit {
    code: u8,
    told: String,
}

pub fn main() -> ExitCode {
    // One TLS implementation for everything that speaks HTTP or gRPC.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = match Cli::parse().command {
        Command::Run(args) => runtime(run::run(args)),
        Command::Demo(args) => runtime(demo::run(args)),
        Command::Check(args) => check::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Top(args) => runtime(top::run(args)),
        Command::Setup(args) => runtime(setup::run(args)),
        Command::Doctor(args) => runtime(doctor::run(args)),
        Command::Generate(args) => generate::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Rejects(args) => rejects::run(&args),
        Command::Redrive(args) => runtime(redrive::run(args)),
        Command::Backfill(args) => runtime(backfill::run(args)),
        Command::Replay { rest } => Err(if rest.iter().any(|arg| arg == "--past") {
            "docket replay --past is now docket backfill, with the same options".into()
        } else {
            "docket replay is now docket redrive (rejects, with the same options) and docket backfill (a sink's past)".into()
        }),
        Command::Verify(args) => runtime(verify::run(args)),
        Command::Spikes(args) => spikes::run(&args),
        Command::Protect(args) => protect::run(&args),
        Command::Why(args) => match why::run(&args) {
            Ok(code) => return code,
            Err(e) => Err(e),
        },
        Command::Decrypt(args) => decrypt::run(&args),
        Command::Capacity(args) => runtime(capacity::run(args)),
        Command::Man { folder } => manual(&folder),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "docket", &mut std::io::stdout());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Reading only the head of the output is no error.
            if error
                .downcast_ref::<std::io::Error>()
                .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
            {
                return ExitCode::SUCCESS;
            }
            anstream::eprintln!("{error}");
            error.downcast_ref::<Exit>().map_or(ExitCode::FAILURE, |exit| exit.code.into())
        }
    }
}

fn manual(folder: &std::path::Path) -> CommandResult {
    std::fs::create_dir_all(folder)
        .map_err(|e| format!("{} can't be made: {e}", folder.display()))?;
    Ok(clap_mangen::generate_to(Cli::command(), folder)?)
}

fn runtime(command: impl Future<Output = CommandResult>) -> CommandResult {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(command);
    // Nobody waits for a name that is still looked up.
    runtime.shutdown_background();
    result
}

fn load(path: &std::path::Path) -> Result<Pipeline, Box<dyn std::error::Error>> {
    Ok(pipeline::load(path)?)
}

/// A file, or standard input for -.
fn input(path: &std::path::Path) -> Result<Box<dyn std::io::Read>, String> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    let file =
        std::fs::File::open(path).map_err(|e| format!("{} can't be read: {e}", path.display()))?;
    Ok(Box::new(file))
}

/// A duration as the pipeline file has them.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    text.parse::<crate::config::units::Span>().map(|span| span.0)
}

/// A place in a topic: `start`, `end`, how long ago, or a time.
fn bound(text: &str) -> Result<ScanBound, String> {
    match text {
        "start" | "earliest" | "beginning" => Ok(ScanBound::Start),
        "end" | "latest" | "now" => Ok(ScanBound::End),
        text => match crate::decision::time::parse(text) {
            Some(time) => Ok(ScanBound::At(time)),
            None => {
                let ago =
                    duration(text).map_err(|_| format!("{text:?} is neither start, end, a duration such as 10m, nor a time such as 2026-11-24T12:00:00Z"))?;
                Ok(ScanBound::At(
                    crate::clock::now().saturating_sub(crate::decision::time::nanos(ago)),
                ))
            }
        },
    }
}

/// A bar for what is read of a topic, or sent.
fn progress(total: u64, what: &'static str) -> indicatif::ProgressBar {
    let style =
        indicatif::ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {per_sec} {eta}")
            .unwrap_or_else(|_| indicatif::ProgressStyle::default_bar());
    // Standard error; hidden unless it is a terminal.
    indicatif::ProgressBar::new(total).with_style(style).with_message(what)
}

/// Moves a bar.
fn step(bar: &indicatif::ProgressBar) -> std::sync::Arc<dyn Fn(u64) + Send + Sync> {
    let bar = bar.clone();
    std::sync::Arc::new(move |n| bar.inc(n))
}

/// So many of something, whose name is given for one.
fn count(n: usize, one: &str) -> String {
    match n {
        1 => format!("1 {one}"),
        n => format!("{n} {one}s"),
    }
}

/// Says what is waited for, if that takes long, until it is dropped.
struct Waiting(#[allow(dead_code)] std::sync::mpsc::Sender<()>);

fn waiting(what: String) -> Waiting {
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let timeout = std::sync::mpsc::RecvTimeoutError::Timeout;
        if wait.recv_timeout(std::time::Duration::from_millis(1500)) == Err(timeout) {
            anstream::eprintln!("waiting for {what} ..");
        }
    });
    Waiting(done)
}

/// Rows with aligned columns.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| {
        rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(i, cell)| format!("{cell:<width$}", width = widths[i]))
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// How wide a line may be: as the terminal is, or what fits everywhere.
fn columns() -> usize {
    terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0).max(40))
}

/// SIGTERM, SIGINT.
async fn asked_to_stop() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_fit_a_terminal_and_whatever_a_person_reads_a_program_can_read() {
        let cli = Cli::command();
        let all = std::iter::once(&cli).chain(cli.get_subcommands());
        let (mut examples, mut wide) = (0, Vec::new());
        for command in all {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter(|line| line.starts_with("  ")) {
                examples += 1;
                wide.extend((line.chars().count() > 80).then(|| line.to_owned()));
            }
        }
        assert!(examples > 40 && wide.is_empty(), "{examples}, {wide:#?}");
        // What prints JSON as it is, draws, runs on, or writes a file, has nothing to say in JSON.
        let without = [
            "run",
            "demo",
            "schema",
            "init",
            "setup",
            "generate",
            "completions",
            "capacity",
            "decrypt",
        ];
        for command in
            cli.get_subcommands().filter(|c| !c.is_hide_set() && !without.contains(&c.get_name()))
        {
            let json = |arg: &clap::Arg| {
                arg.get_long() == Some("json") || arg.get_long() == Some("format")
            };
            assert!(command.get_arguments().any(json), "{}", command.get_name());
        }
    }
}
