//! Runs a pipeline: its topics, its parts, each on a thread, each started again when it fails. A changed
//! pipeline file is taken up by starting again the parts that it changes.

mod amending;
mod reload;
mod sinks;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus::Registry;
use rdkafka::error::KafkaError;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::changes::Fixed;
use super::correlate::evidence::Evidence;
use super::correlate::{Correlate, JoinMeters};
use super::events::Events;
use super::intake::{FactMeters, Intake, Trouble, Work};
use super::roles::Roles;
use super::spikes::{self, Spikes};
use super::supervise::{self, Part, Reports};
use super::watchdog::Watchdog;
use crate::door::clients::Clients;
use crate::door::config::DoorConfig;
use crate::door::{self, Door, DoorError};
use crate::http::client::HttpError;
use crate::log::progress::Progress;
use crate::log::shared::Shared;
use crate::log::topics::TopicError;
use crate::metrics::Decisions;
use crate::metrics::exemplars::Exemplars;
use crate::pipeline::Pipeline;
use crate::pipeline::file::amending;
use crate::pipeline::memory;
use crate::pipeline::topics::{self, Limits};
use crate::sink::config::SinkConfig;
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
    #[error("sink {sink}: Kafka: {error}")]
    Kafka { sink: String, error: KafkaError },
    #[error("{0}")]
    Role(String),
    #[error(transparent)]
    Fixed(#[from] Fixed),
    #[error(transparent)]
    Door(#[from] DoorError),
    #[error("spikes.notify.{notifier}: {error}")]
    Notifier { notifier: String, error: HttpError },
    #[error("docket itself failed at it, a bug: {0}")]
    Panicked(String),
}

/// What the pipelines of a process share.
#[derive(Clone)]
pub struct Process {
    pub registry: Registry,
    pub exemplars: Arc<Exemplars>,
    pub health: Arc<Health>,
    pub stop: CancellationToken,
    pub runtime: Handle,
    pub drain: Duration,
    pub roles: Roles,
}

impl Process {
    /// Of a command that runs no part, and ends when it is done; others say what they have beside that.
    pub fn alone() -> Process {
        Process {
            registry: Registry::new(),
            exemplars: Arc::default(),
            health: Arc::default(),
            stop: CancellationToken::new(),
            runtime: Handle::current(),
            drain: Duration::ZERO,
            roles: Roles::default(),
        }
    }
}

/// Starts the parts of a pipeline that this process is to run.
pub async fn start(mut pipeline: Pipeline, process: &Process) -> Result<Parts, RunError> {
    if let Some(unknown) = process.roles.unknown(&pipeline) {
        return Err(RunError::Role(unknown));
    }
    let made = reachable(&pipeline, process).await?;
    if !made.is_empty() {
        tracing::info!(topics = made.join(", "), "topics created");
    }
    let limits = topics::max_messages(&pipeline).await;
    let partitions = topics::docket_partitions(&pipeline);
    fit(&mut pipeline, partitions);
    let mut parts = Parts::new(pipeline, process, limits)?;
    parts.partitions = partitions;
    parts.all()?;
    parts.watchdog()?;
    Ok(parts)
}

/// The memory budget counts the partitions that the docket topic has, which may be more than the file would make.
fn fit(pipeline: &mut Pipeline, partitions: Option<u32>) {
    let Some(partitions) = partitions else { return };
    if let Err(error) = memory::fit_to(&mut pipeline.file, partitions) {
        let topic = pipeline.docket_topic();
        tracing::warn!(
            topic,
            partitions,
            "memory.budget is too small for so many partitions: {error}"
        );
    }
}

/// Counters of a part, registered when they are needed first and kept from then on.
fn once<M: Clone>(
    kept: &mut Option<M>,
    pipeline: &str,
    make: impl FnOnce() -> Result<M, prometheus::Error>,
) -> Result<M, RunError> {
    if let Some(kept) = kept {
        return Ok(kept.clone());
    }
    let made =
        make().map_err(|error| RunError::Metrics { pipeline: pipeline.to_owned(), error })?;
    Ok(kept.insert(made).clone())
}

/// Before it was asked, Kafka is not known to be there: nothing is ready from the first second.
pub fn announce(pipeline: &Pipeline, health: &Health) {
    health.set(&format!("{}/kafka", pipeline.name()), Err("not reached yet".into()));
}

/// Makes the topics that are missing; waits for Kafka as long as it takes.
async fn reachable(pipeline: &Pipeline, process: &Process) -> Result<Vec<String>, TopicError> {
    let part = format!("{}/kafka", pipeline.name());
    let mut said: Option<(String, tokio::time::Instant)> = None;
    loop {
        match topics::ensure(pipeline, topics::Which::Own).await {
            Err(error @ TopicError::Unreachable { .. }) => {
                let error = error.to_string();
                let news = said.as_ref().is_none_or(|(last, at)| {
                    *last != error && at.elapsed() > Duration::from_secs(10)
                        || at.elapsed() > Duration::from_secs(60)
                });
                if news {
                    tracing::warn!(error, "waiting for Kafka");
                    said = Some((error.clone(), tokio::time::Instant::now()));
                }
                process.health.set(&part, Err(error));
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            result => {
                process.health.set(&part, Ok(()));
                return result;
            }
        }
    }
}

/// A pipeline's parts that run.
pub struct Parts {
    pub pipeline: Arc<Pipeline>,
    pub meters: Arc<Meters>,
    pub decisions: Arc<Decisions>,
    /// Of findings, once they are looked for.
    findings: Option<Arc<spikes::Meters>>,
    /// Of facts, once they are read.
    facts: Option<FactMeters>,
    /// Of the join, once it runs.
    joins: Option<Arc<JoinMeters>>,
    /// Of the door, once there is one,
    door: Option<Arc<door::meters::Meters>>,
    /// and who may come in.
    clients: Option<Arc<Clients>>,
    progress: Arc<Progress>,
    events: Arc<Events>,
    process: Process,
    /// What the topics take.
    limits: Limits,
    /// How many the docket topic has, where Kafka said so.
    partitions: Option<u32>,
    /// The docket topic, once several sinks read it here.
    shared: Option<Arc<Shared>>,
    running: BTreeMap<String, Part>,
}

impl Parts {
    pub fn new(pipeline: Pipeline, process: &Process, limits: Limits) -> Result<Parts, RunError> {
        let metrics_error =
            |error| RunError::Metrics { pipeline: pipeline.name().to_owned(), error };
        let meters =
            Arc::new(Meters::new(pipeline.name(), &process.registry).map_err(metrics_error)?);
        let max_series = pipeline.file.sinks.values().find_map(|sink| match sink {
            SinkConfig::Metrics(config) => Some(config.max_series),
            _ => None,
        });
        let max_series = max_series.unwrap_or(crate::metrics::MAX_SERIES);
        let decisions = Arc::new(
            Decisions::new(
                pipeline.name(),
                max_series,
                &process.registry,
                process.exemplars.clone(),
            )
            .map_err(metrics_error)?,
        );
        let progress = Arc::new(Progress::default());
        Ok(Parts {
            pipeline: Arc::new(pipeline),
            meters,
            decisions,
            findings: None,
            facts: None,
            joins: None,
            door: None,
            clients: None,
            progress,
            events: Arc::default(),
            process: process.clone(),
            limits,
            partitions: None,
            shared: None,
            running: BTreeMap::new(),
        })
    }

    /// Waits until every part has stopped.
    pub fn join(self) {
        self.running.into_values().for_each(Part::join);
    }

    /// Says which parts the pipeline has, so that one that runs nowhere is missed.
    fn expect(&self) {
        let file = &self.pipeline.file;
        let amending: Vec<String> = file.amended().map(|(name, _)| amending(name)).collect();
        let sinks = file.sinks.keys().chain(&amending).map(String::as_str);
        let spikes = file.spikes.as_ref().map(|_| "spikes");
        let door = file.door.as_ref().map(|_| "door");
        let join = file.join.iter().flat_map(|_| ["facts", "join"]);
        let others = spikes.into_iter().chain(door).chain(join);
        self.meters.expect(std::iter::once("intake").chain(sinks).chain(others));
    }

    /// Starts intake and the sinks, as far as the process is to run them.
    pub fn all(&mut self) -> Result<(), RunError> {
        self.expect();
        if self.process.roles.intake() {
            self.intake()?;
        }
        self.read_facts()?;
        self.correlate()?;
        self.read_once();
        let names: Vec<String> = self.pipeline.file.sinks.keys().cloned().collect();
        names.iter().try_for_each(|name| self.start_sink(name))?;
        self.spikes()?;
        self.open_door(None)
    }

    /// What this process is to know of the door, if the pipeline file has one.
    fn door_config(&self) -> Option<DoorConfig> {
        self.pipeline.file.door.clone().filter(|_| self.process.roles.door())
    }

    fn door_counts(&mut self) -> Result<Arc<door::meters::Meters>, RunError> {
        let (name, registry) = (self.pipeline.name(), &self.process.registry);
        once(&mut self.door, name, || door::meters::Meters::new(name, registry).map(Arc::new))
    }

    /// Opens the door, if the pipeline file has one and this process is to do it: at an address that was taken before, or that it takes itself.
    fn open_door(&mut self, bound: Option<TcpListener>) -> Result<(), RunError> {
        let Some(config) = self.door_config() else { return Ok(()) };
        let counts = self.door_counts()?;
        let clients = Arc::new(Clients::new(&config.tokens, &config.limits));
        self.clients = Some(clients.clone());
        let (pipeline, kafka) = (&self.pipeline, &self.pipeline.file.kafka);
        self.share("door");
        let door = Arc::new(Door {
            pipeline: pipeline.name().to_owned(),
            config,
            kafka: kafka.clone(),
            compression: pipeline.file.docket.compression,
            topic: pipeline.door_topic().unwrap_or_default().to_owned(),
            rejects_topic: pipeline.rejects_topic(),
            limits: pipeline.limits,
            rules: pipeline.rules.record.clone(),
            withholds: pipeline.rules.protection.is_some(),
            joins: pipeline.file.join.is_some(),
            clients,
            counts,
            meters: self.meters.clone(),
            health: self.process.health.clone(),
            topic_limit: self.limits.door,
            rejects_limit: self.limits.rejects,
            bound: Mutex::new(bound),
        });
        let runtime = self.process.runtime.clone();
        self.spawn("door", move |stop| runtime.block_on(door.run(stop)).map_err(|e| e.to_string()))
    }

    fn intake(&mut self) -> Result<(), RunError> {
        let intake = Intake {
            work: Work::Decisions,
            pipeline: self.pipeline.clone(),
            meters: self.meters.clone(),
            health: self.process.health.clone(),
            progress: self.progress.clone(),
            facts: None,
            docket_limit: self.limits.decided,
            rejects_limit: self.limits.rejects,
            trouble: Trouble::default(),
            id: uuid::Uuid::new_v4().to_string(),
        };
        self.share("intake");
        let runtime = self.process.runtime.clone();
        self.spawn("intake", move |stop| {
            runtime.block_on(intake.run(stop)).map_err(|e| e.to_string())
        })
    }

    /// Reads what requests did, if the pipeline file says so and this process is to do it.
    fn read_facts(&mut self) -> Result<(), RunError> {
        if self.pipeline.file.join.is_none() || !self.process.roles.facts() {
            return Ok(());
        }
        let (name, registry) = (self.pipeline.name(), &self.process.registry);
        let meters = once(&mut self.facts, name, || FactMeters::new(name, registry))?;
        let facts = Intake {
            work: Work::Facts,
            pipeline: self.pipeline.clone(),
            meters: self.meters.clone(),
            health: self.process.health.clone(),
            progress: self.progress.clone(),
            facts: Some(meters),
            docket_limit: None,
            rejects_limit: self.limits.rejects,
            trouble: Trouble::default(),
            id: uuid::Uuid::new_v4().to_string(),
        };
        self.share("facts");
        let runtime = self.process.runtime.clone();
        self.spawn("facts", move |stop| {
            runtime.block_on(facts.run(stop)).map_err(|e| e.to_string())
        })
    }

    /// Joins decisions with their requests, if the pipeline file says so and this process is to do it.
    fn correlate(&mut self) -> Result<(), RunError> {
        let Some(section) = self.pipeline.file.join.clone().filter(|_| self.process.roles.join())
        else {
            return Ok(());
        };
        self.share("join");
        let (name, registry) = (self.pipeline.name(), &self.process.registry);
        let counts = once(&mut self.joins, name, || JoinMeters::new(name, registry).map(Arc::new))?;
        let correlate = Correlate {
            pipeline: self.pipeline.clone(),
            section,
            meters: self.meters.clone(),
            counts,
            health: self.process.health.clone(),
            progress: self.progress.clone(),
            evidence: Arc::new(Evidence::default()),
            id: uuid::Uuid::new_v4().to_string(),
            clock: crate::clock::now,
            docket_limit: self.limits.docket,
            rejects_limit: self.limits.rejects,
        };
        let runtime = self.process.runtime.clone();
        self.spawn("join", move |stop| {
            runtime.block_on(correlate.run(stop)).map_err(|e| e.to_string())
        })
    }

    fn spike_counts(&mut self) -> Result<Arc<spikes::Meters>, RunError> {
        let (name, registry) = (self.pipeline.name(), &self.process.registry);
        once(&mut self.findings, name, || spikes::Meters::new(name, registry).map(Arc::new))
    }

    /// Looks for spikes, if the pipeline file says so and this process is to do it.
    fn spikes(&mut self) -> Result<(), RunError> {
        let Some(section) =
            self.pipeline.file.spikes.clone().filter(|_| self.process.roles.spikes())
        else {
            return Ok(());
        };
        let meters = self.spike_counts()?;
        let (pipeline, health, runtime) =
            (self.pipeline.clone(), self.process.health.clone(), self.process.runtime.clone());
        let spikes = Spikes { pipeline, section, meters, health, runtime };
        self.spawn("spikes", move |stop| spikes.run(stop).map_err(|e| e.to_string()))
    }

    /// How much of the memory budget a part may hold.
    fn share(&self, part: &str) -> usize {
        let shares = memory::shares(&self.pipeline.file);
        let share = shares.get(part).copied().unwrap_or(usize::MAX);
        let gauge = self.meters.share.with_label_values(&[part]);
        gauge.set(i64::try_from(share).unwrap_or(i64::MAX));
        share
    }

    fn watchdog(&mut self) -> Result<(), RunError> {
        let watchdog = Watchdog {
            pipeline: self.pipeline.clone(),
            progress: self.progress.clone(),
            meters: self.meters.clone(),
            health: self.process.health.clone(),
            after: self.pipeline.file.watchdog.stalled_after.0,
            runtime: self.process.runtime.clone(),
        };
        self.spawn("watchdog", move |stop| {
            watchdog.watch(stop);
            Ok(())
        })
    }

    /// What a sink failed for is over: it begins anew, or is gone.
    fn settled(&self, name: &str) {
        self.meters.sink(name);
        self.process.health.remove(&format!("{}/{name} requests", self.pipeline.name()));
    }

    /// A part that may not be there any more has no health either.
    fn forget(&self, name: &str) {
        self.process.health.remove(&format!("{}/{name}", self.pipeline.name()));
    }

    /// Runs a part on a thread of its own, again and again until it is stopped.
    fn spawn(
        &mut self,
        name: &str,
        part: impl Fn(&CancellationToken) -> Result<(), String> + Send + 'static,
    ) -> Result<(), RunError> {
        let reports = Reports {
            full_name: format!("{}/{name}", self.pipeline.name()),
            name: name.to_owned(),
            meters: self.meters.clone(),
            health: self.process.health.clone(),
        };
        if name != "watchdog" {
            self.meters.part(name);
            if name == "intake" {
                let sources = &self.pipeline.file.sources;
                self.meters.intake(sources.iter().map(|source| source.topic.as_str()));
            }
            reports.health.set(&reports.full_name, Err("starting".into()));
        }
        let stop = self.process.stop.child_token();
        let part = supervise::spawn(reports, stop, part).map_err(RunError::Thread)?;
        self.running.insert(name.to_owned(), part);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
