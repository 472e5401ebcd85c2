//! `docket run`: runs pipelines until told to stop.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::CommandResult;
use crate::stage::run::{self, Process};
use crate::telemetry::Health;
use crate::{admin, telemetry};

/// Run pipelines until SIGTERM or SIGINT; then deliver what was read, commit, and end.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  docket run pipelines/opa.yaml
  DOCKET_LOG=debug docket run --log-json a.yaml b.yaml

The admin port (admin.listen, 127.0.0.1:9464 unless set) of the first pipeline serves /metrics, /healthz and /readyz for all.")]
pub struct Args {
    #[arg(required = true, value_name = "PIPELINE")]
    files: Vec<PathBuf>,
    /// How long a stop may take to deliver what was read.
    #[arg(long, value_parser = super::duration, default_value = "20s")]
    drain: Duration,
    /// Write the log as JSON.
    #[arg(long)]
    log_json: bool,
}

pub async fn run(args: Args) -> CommandResult {
    let mut pipelines = Vec::new();
    let mut errors = Vec::new();
    for path in &args.files {
        match crate::pipeline::load(path) {
            Ok(pipeline) => pipelines.push(pipeline),
            Err(error) => errors.push(error.to_string()),
        }
    }
    if !errors.is_empty() {
        return Err(errors.join("\n").into());
    }
    let Some(first) = pipelines.first() else { return Ok(()) };
    let listen = first.file.admin.listen.clone();
    let otlp = first.file.telemetry.otlp.clone();
    let _telemetry = telemetry::start(args.log_json, otlp.as_deref())?;

    let process = Process {
        registry: prometheus::Registry::new(),
        health: Arc::new(Health::default()),
        stop: CancellationToken::new(),
        runtime: tokio::runtime::Handle::current(),
        drain: args.drain,
    };
    register_process(&process.registry)?;
    let served = CancellationToken::new();
    let address = admin::serve(&listen, process.registry.clone(), process.health.clone(), served.clone())
        .await
        .map_err(|e| format!("the admin port {listen} can't be opened: {e}; set admin.listen in {}", first.path.display()))?;
    tracing::info!(%address, "admin port open");

    let mut running = Vec::new();
    for pipeline in pipelines {
        let name = pipeline.name().to_owned();
        tracing::info!(pipeline = name, file = %pipeline.path.display(), "starting");
        let started = tokio::select! {
            started = run::start(pipeline, &process) => started,
            stopped = super::asked_to_stop() => return Ok(stopped?),
        };
        running.push(started.map_err(|e| format!("pipeline {name}: {e}"))?);
    }
    super::asked_to_stop().await?;
    tracing::info!("stopping: delivering what was read");
    process.stop.cancel();
    tokio::task::spawn_blocking(move || running.into_iter().for_each(run::Running::join)).await?;
    served.cancel();
    tracing::info!("stopped");
    Ok(())
}

/// CPU, memory and file descriptors of the process, and which docket it is.
fn register_process(registry: &prometheus::Registry) -> Result<(), prometheus::Error> {
    #[cfg(target_os = "linux")]
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    let opts = prometheus::Opts::new("docket_build_info", "Which docket runs; always 1.").const_label("version", env!("CARGO_PKG_VERSION"));
    let info = prometheus::IntGauge::with_opts(opts)?;
    info.set(1);
    registry.register(Box::new(info))
}
