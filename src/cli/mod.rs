//! The commands, one file each.

mod check;
mod demo;
mod feed;
mod generate;
mod run;
mod schema;
mod setup;
mod tail;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::pipeline::{self, Pipeline};

/// The flight recorder for policy decisions.
///
/// docket reads OPA decision logs from Kafka, joins them with traces, and hands each decision to the
/// tools that platform teams already watch: OpenTelemetry, Prometheus, Loki, Elasticsearch.
#[derive(Parser)]
#[command(
    name = "docket",
    version,
    arg_required_else_help = true,
    after_help = "Examples:
  docket demo --for 30s                      see it work, without any server
  docket demo decisions.ndjson               the same with your own decision logs
  docket check pipelines/opa.yaml            validate a pipeline file and run its tests
  docket setup pipelines/opa.yaml            create topics and index templates
  docket run pipelines/opa.yaml              run it
  docket tail pipelines/opa.yaml --verdict deny"
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
    Schema,
    Setup(setup::Args),
    Generate(generate::Args),
    Tail(tail::Args),
    /// Print shell completions, e.g. `docket completions bash > /etc/bash_completion.d/docket`.
    Completions {
        shell: clap_complete::Shell,
    },
}

/// An error for people; the process ends with it.
type CommandResult = Result<(), Box<dyn std::error::Error>>;

pub fn main() -> ExitCode {
    // One TLS implementation for everything that speaks HTTP or gRPC.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = match Cli::parse().command {
        Command::Run(args) => runtime(run::run(args)),
        Command::Demo(args) => runtime(demo::run(args)),
        Command::Check(args) => check::run(&args),
        Command::Schema => schema::run(),
        Command::Setup(args) => runtime(setup::run(args)),
        Command::Generate(args) => generate::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "docket", &mut std::io::stdout());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Reading only the head of the output is no error.
            if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) {
                return ExitCode::SUCCESS;
            }
            anstream::eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn runtime(command: impl Future<Output = CommandResult>) -> CommandResult {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(command)
}

fn load(path: &std::path::Path) -> Result<Pipeline, Box<dyn std::error::Error>> {
    Ok(pipeline::load(path)?)
}

/// A duration as the pipeline file has them.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    text.parse::<pipeline::units::Span>().map(|span| span.0)
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
