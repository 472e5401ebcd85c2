//! `docket run`: runs pipelines until told to stop.

use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::reloading::Watcher;
use super::stopping::{self, Signals};
use super::{CommandResult, Exit, check};
use crate::stage::roles::Roles;
use crate::stage::run::{self, Parts, Process};
use crate::telemetry::push::Pushing;
use crate::telemetry::{self, admin, push};

/// Run pipelines until SIGTERM or SIGINT; then deliver what was read, commit, and exit.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  docket run pipelines/opa.yaml
  docket run --only intake pipelines/opa.yaml            scale intake
  docket run --only sink:loki pipelines/opa.yaml         and a sink separately
  DOCKET_LOG=debug docket run --log-json a.yaml b.yaml

A changed pipeline file, or a change of what it refers to (secrets, certificates, policies), is reloaded within a few seconds, or at once on \
SIGHUP: the parts that it affects are restarted, the others keep running. If the file has errors, they are logged, and the old one stays in force.

The admin port of the first pipeline (admin.listen, 127.0.0.1:9464 by default) serves /metrics, /healthz, /readyz and /status for all pipelines; \
its telemetry section says where metrics are pushed.")]
pub struct Args {
    /// Pipeline files.
    #[arg(required = true, value_name = "PIPELINE")]
    files: Vec<PathBuf>,
    /// Run only these parts, separated by commas: door, intake, facts, join, spikes, sinks, sink:NAME. Default: all.
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    only: Vec<String>,
    /// Maximum time to deliver what was read after SIGTERM or SIGINT; a second one ends at once, with exit code 143 or 130.
    #[arg(long, value_parser = super::duration, default_value = "20s")]
    drain: Duration,
    /// Write the log as JSON.
    #[arg(long)]
    log_json: bool,
}

pub async fn run(args: Args) -> CommandResult {
    let mut pipelines = Vec::new();
    let mut errors: Vec<Box<dyn std::error::Error>> = Vec::new();
    let mut names = Vec::new();
    for path in &args.files {
        match super::load(path) {
            Ok(pipeline) => {
                let name = pipeline.name().to_owned();
                if let Some(told) = check::same_name(path, &name, &names) {
                    errors.push(told.into());
                }
                names.push((path.clone(), name));
                pipelines.push(pipeline);
            }
            Err(error) => errors.push(error),
        }
    }
    match errors.len() {
        0 => {}
        // With its exit code.
        1 => return Err(errors.remove(0)),
        _ => {
            let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let code = errors.iter().filter_map(|e| e.downcast_ref::<Exit>()).map(|e| e.code).max();
            return Err(Exit::new(code.unwrap_or(1), all.join("\n")).into());
        }
    }
    let Some(first) = pipelines.first() else { return Ok(()) };
    let listen = first.file.admin.clone();
    let otlp = first.file.telemetry.otlp.clone();
    let push = first.file.telemetry.push.clone();
    let _telemetry = telemetry::start(args.log_json, otlp.as_deref())?;

    let roles = Roles::parse(&args.only)?;
    // From now on SIGHUP does not end the process.
    let hup = signal(SignalKind::hangup())?;
    let mut signals = Signals::new()?;
    let process = Process { drain: args.drain, roles, ..Process::alone() };
    register_process(&process.registry)?;
    process.health.register(&process.registry)?;
    pipelines.iter().for_each(|pipeline| run::announce(pipeline, &process.health));
    let served = CancellationToken::new();
    let address = admin::serve(
        &listen,
        process.registry.clone(),
        process.exemplars.clone(),
        process.health.clone(),
        super::why::served::router(&args.files, &listen),
        served.clone(),
    )
    .await
    .map_err(|e| {
        format!(
            "the admin port {} can't be opened: {e}; for another write `admin: {{listen: \"127.0.0.1:9465\"}}` in {}",
            listen.listen,
            first.path.display()
        )
    })?;
    tracing::info!(%address, "admin port open");
    let source = push::Source {
        registry: process.registry.clone(),
        exemplars: process.exemplars.clone(),
        began: crate::clock::now(),
    };
    let pushing =
        Pushing::start(&push, source).map_err(|e| format!("{}: {e}", args.files[0].display()))?;

    let mut running = Vec::new();
    for pipeline in pipelines {
        let name = pipeline.name().to_owned();
        tracing::info!(pipeline = name, file = %pipeline.path.display(), "starting");
        let started = tokio::select! {
            started = run::start(pipeline, &process) => started,
            _ = signals.next() => return Ok(()),
        };
        running.push(started.map_err(|e| format!("pipeline {name}: {e}"))?);
    }
    let watched = Watcher::new(running, pushing, args.files, &process.registry)?.watch(hup);
    signals.next().await;
    stopping::begins(&process);
    process.stop.cancel();
    let end = async {
        let Watcher { running, mut pushing, .. } = watched.end().await;
        tokio::task::spawn_blocking(move || running.into_iter().for_each(Parts::join)).await?;
        served.cancel();
        pushing.end().await;
        tracing::info!("stopped");
        Ok(())
    };
    tokio::select! {
        ended = end => ended,
        code = signals.next() => Err(stopping::at_once(&process, code).into()),
        () = tokio::time::sleep(process.drain + stopping::LAST) => {
            stopping::overdue(&process);
            Ok(())
        }
    }
}

/// CPU, memory and file descriptors of the process, and which docket it is.
fn register_process(registry: &prometheus::Registry) -> Result<(), prometheus::Error> {
    #[cfg(target_os = "linux")]
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    let opts = prometheus::Opts::new("docket_build_info", "Which docket runs; always 1.")
        .const_label("version", env!("CARGO_PKG_VERSION"));
    let info = prometheus::IntGauge::with_opts(opts)?;
    info.set(1);
    registry.register(Box::new(info))
}
