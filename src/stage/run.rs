//! Runs a pipeline: its topics, its parts, each on a thread, each started again when it fails.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use prometheus::Registry;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::deliver::Deliver;
use super::intake::Intake;
use crate::log::topics::{self, TopicError};
use crate::metrics::Decisions;
use crate::pipeline::Pipeline;
use crate::pipeline::model;
use crate::sink::Sink;
use crate::sink::elasticsearch::Elasticsearch;
use crate::sink::file::File;
use crate::sink::http::HttpError;
use crate::sink::loki::Loki;
use crate::sink::metrics::Metrics;
use crate::sink::otlp::Otlp;
use crate::telemetry::{Health, Meters};

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Topics(#[from] TopicError),
    #[error("sink {sink}: {error}")]
    Sink { sink: String, error: HttpError },
    #[error("the metrics of pipeline {pipeline} can't be registered: {error}")]
    Metrics { pipeline: String, error: prometheus::Error },
    #[error("a thread can't be started: {0}")]
    Thread(std::io::Error),
}

/// What the pipelines of a process share.
#[derive(Clone)]
pub struct Process {
    pub registry: Registry,
    pub health: Arc<Health>,
    pub stop: CancellationToken,
    pub runtime: Handle,
    pub drain: Duration,
}

/// A pipeline that runs.
pub struct Running {
    pub decisions: Arc<Decisions>,
    pub meters: Arc<Meters>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// Waits until every part has stopped.
    pub fn join(self) {
        for thread in self.threads {
            // A part that panicked has said so; the others are still waited for.
            let _ = thread.join();
        }
    }
}

/// Starts intake and all sinks of a pipeline.
pub async fn start(pipeline: Pipeline, process: &Process) -> Result<Running, RunError> {
    let made = reachable(&pipeline, process).await?;
    if !made.is_empty() {
        tracing::info!(topics = made.join(", "), "topics created");
    }
    let (docket_limit, rejects_limit) = topics::max_messages(&pipeline).await;
    let mut parts = Parts::new(pipeline, process, rejects_limit)?;
    parts.intake(docket_limit)?;
    parts.sinks()?;
    Ok(parts.running())
}

/// Makes the topics that are missing; waits for Kafka as long as it takes.
async fn reachable(pipeline: &Pipeline, process: &Process) -> Result<Vec<String>, TopicError> {
    let part = format!("{}/kafka", pipeline.name());
    loop {
        match topics::ensure(pipeline, false).await {
            Err(error @ TopicError::Unreachable { .. }) => {
                tracing::warn!(%error, "waiting for Kafka");
                process.health.set(&part, Err(error.to_string()));
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            result => {
                process.health.set(&part, Ok(()));
                return result;
            }
        }
    }
}

/// The parts of a pipeline that were started.
pub struct Parts {
    pipeline: Arc<Pipeline>,
    pub meters: Arc<Meters>,
    pub decisions: Arc<Decisions>,
    process: Process,
    rejects_limit: Option<usize>,
    threads: Vec<JoinHandle<()>>,
}

impl Parts {
    pub fn new(pipeline: Pipeline, process: &Process, rejects_limit: Option<usize>) -> Result<Parts, RunError> {
        let metrics_error = |error| RunError::Metrics { pipeline: pipeline.name().to_owned(), error };
        let meters = Arc::new(Meters::new(pipeline.name(), &process.registry).map_err(metrics_error)?);
        let decisions = Arc::new(Decisions::new(pipeline.name(), &process.registry).map_err(metrics_error)?);
        Ok(Parts { pipeline: Arc::new(pipeline), meters, decisions, process: process.clone(), rejects_limit, threads: Vec::new() })
    }

    pub fn running(self) -> Running {
        Running { decisions: self.decisions, meters: self.meters, threads: self.threads }
    }

    pub fn intake(&mut self, docket_limit: Option<usize>) -> Result<(), RunError> {
        let intake = Intake {
            pipeline: self.pipeline.clone(),
            meters: self.meters.clone(),
            health: self.process.health.clone(),
            docket_limit,
            rejects_limit: self.rejects_limit,
        };
        self.spawn("intake", move |stop| intake.run(stop).map_err(|e| e.to_string()))
    }

    /// The sinks of the pipeline file.
    pub fn sinks(&mut self) -> Result<(), RunError> {
        let pipeline = self.pipeline.clone();
        for (name, sink) in &pipeline.file.sinks {
            let delivery = sink.delivery();
            let wrong = |error| RunError::Sink { sink: name.clone(), error };
            match sink {
                model::Sink::Otlp(config) => self.sink(name, delivery, Otlp::new(config).map_err(wrong)?)?,
                model::Sink::Loki(config) => self.sink(name, delivery, Loki::new(config).map_err(wrong)?)?,
                model::Sink::Elasticsearch(config) => self.sink(name, delivery, Elasticsearch::new(config).map_err(wrong)?)?,
                model::Sink::File(config) => self.sink(name, delivery, File::new(config))?,
                model::Sink::Metrics(_) => self.sink(name, delivery, Metrics::new(self.decisions.clone()))?,
            }
        }
        Ok(())
    }

    pub fn sink<S: Sink>(&mut self, name: &str, delivery: &model::Delivery, sink: S) -> Result<(), RunError> {
        let deliver = Arc::new(Deliver {
            name: name.to_owned(),
            sink: Arc::new(sink),
            delivery: delivery.clone(),
            pipeline: self.pipeline.clone(),
            meters: self.meters.clone(),
            health: self.process.health.clone(),
            runtime: self.process.runtime.clone(),
            rejects_limit: self.rejects_limit,
            drain: self.process.drain,
        });
        self.spawn(name, move |stop| deliver.run(stop).map_err(|e| e.to_string()))
    }

    /// Runs a part on a thread of its own, again and again until the process stops.
    fn spawn(&mut self, name: &str, part: impl Fn(&CancellationToken) -> Result<(), String> + Send + 'static) -> Result<(), RunError> {
        let (stop, meters, health) = (self.process.stop.clone(), self.meters.clone(), self.process.health.clone());
        let full = format!("{}/{name}", self.pipeline.name());
        health.set(&full, Err("starting".into()));
        let label = name.to_owned();
        let body = move || {
            let mut pause = Duration::from_millis(500);
            while !stop.is_cancelled() {
                let started = std::time::Instant::now();
                let Err(error) = part(&stop) else { continue };
                health.set(&full, Err(error.clone()));
                meters.restarts.with_label_values(&[&label]).inc();
                tracing::error!(part = full, error, "a part failed and is started again");
                pause = if started.elapsed() > Duration::from_secs(60) { Duration::from_millis(500) } else { (pause * 2).min(Duration::from_secs(15)) };
                let until = std::time::Instant::now() + pause;
                while !stop.is_cancelled() && std::time::Instant::now() < until {
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("docket-{name}")).spawn(body).map_err(RunError::Thread)?;
        self.threads.push(thread);
        Ok(())
    }
}
