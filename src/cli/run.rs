//! `docket run`: runs pipelines until told to stop.

use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::CommandResult;
use super::stopping::{self, Signals};
use crate::config::tracked::{self, Looked};
use crate::pipeline::Pipeline;
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
    let mut errors = Vec::new();
    for path in &args.files {
        match super::load(path) {
            Ok(pipeline) => pipelines.push(pipeline),
            Err(error) => errors.push(error.to_string()),
        }
    }
    if !errors.is_empty() {
        return Err(errors.join("\n").into());
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
    let watched = watch(running, pushing, args.files, hup, &process.registry)?;
    signals.next().await;
    stopping::begins(&process);
    process.stop.cancel();
    watched.stop.cancel();
    let end = async {
        let (running, mut pushing) = watched.task.await?;
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

/// How often is looked whether files have changed; only then they are read again.
const LOOK: Duration = Duration::from_secs(2);

struct TrackedFile {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<(Vec<Parts>, Pushing)>,
}

/// Looks after changed pipeline files and what they refer to, now and then and on SIGHUP.
fn watch(
    mut running: Vec<Parts>,
    mut pushing: Pushing,
    files: Vec<PathBuf>,
    mut hup: Signal,
    registry: &prometheus::Registry,
) -> Result<TrackedFile, Box<dyn std::error::Error>> {
    let reloads = prometheus::IntCounterVec::new(
        prometheus::Opts::new(
            "docket_reloads_total",
            "Changed pipeline files: applied, or refused with the old one left in force.",
        ),
        &["file", "outcome"],
    )?;
    registry.register(Box::new(reloads.clone()))?;
    for file in &files {
        for outcome in ["applied", "refused"] {
            reloads.with_label_values(&[&file.display().to_string(), outcome]);
        }
    }
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        // What was wrong when it was last refused.
        let mut refused: Vec<Option<String>> = vec![None; files.len()];
        let mut looked: Vec<Looked> = files.iter().map(|_| Looked::default()).collect();
        loop {
            let asked = tokio::select! {
                () = stopped.cancelled() => return (running, pushing),
                _ = hup.recv() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            for (i, path) in files.iter().enumerate() {
                // A file that is gone is being replaced.
                if !asked && !path.exists() {
                    continue;
                }
                if !asked && looked[i].unchanged() {
                    continue;
                }
                let file = path.display().to_string();
                let parts = &mut running[i];
                let load = || tracked::looking(|| crate::pipeline::load(path));
                let (loaded, seen) = tokio::task::block_in_place(load);
                looked[i] = seen;
                if !asked
                    && loaded.as_ref().is_ok_and(|pipeline| pipeline.file == parts.pipeline.file)
                {
                    refused[i] = None;
                    parts.file_is(None);
                    continue;
                }
                let result = match loaded {
                    // The first pipeline's says where metrics are pushed.
                    Ok(pipeline) => reload(parts, pipeline, (i == 0).then_some(&mut pushing)).await,
                    Err(error) => Err(error.to_string()),
                };
                let error = result.as_ref().err().cloned();
                if !asked && error.is_some() && error == refused[i] {
                    continue;
                }
                parts.file_is(error.as_deref());
                refused[i] = error;
                let outcome = match result {
                    Ok(changed) if changed.is_empty() => {
                        tracing::info!(file, "the pipeline file was read again; no part changes");
                        "applied"
                    }
                    Ok(changed) => {
                        tracing::info!(
                            file,
                            parts = changed.join(", "),
                            "the changed pipeline file is in force"
                        );
                        "applied"
                    }
                    Err(error) => {
                        tracing::error!(
                            file,
                            "the changed pipeline file is refused, the old one stays in force:\n{error}"
                        );
                        "refused"
                    }
                };
                reloads.with_label_values(&[&file, outcome]).inc();
            }
        }
    });
    Ok(TrackedFile { stop, task })
}

/// Takes up a changed file, or says why not, with nothing changed. Returns what has changed.
async fn reload(
    parts: &mut Parts,
    new: Pipeline,
    pushing: Option<&mut Pushing>,
) -> Result<Vec<String>, String> {
    let to = &new.file.telemetry.push;
    let pushing = pushing.filter(|_| *to != parts.pipeline.file.telemetry.push);
    let pushers = pushing.as_ref().map(|pushing| pushing.prepare(to)).transpose()?;
    let mut changed =
        tokio::task::block_in_place(|| parts.reload(new)).map_err(|e| e.to_string())?;
    if let (Some(pushing), Some(pushers)) = (pushing, pushers) {
        pushing.change(pushers).await;
        changed.push("push".into());
    }
    Ok(changed)
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
