//! Runs a pipeline: its topics, its parts, each on a thread, each started again when it fails. A changed
//! pipeline file is taken up by starting again the parts that it changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use prometheus::Registry;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::deliver::{Deliver, Onward, Sending};
use super::intake::Intake;
use super::spikes::{self, Spikes};
use super::watchdog::{self, Progress};
use crate::door::clients::Clients;
use crate::door::{self, Door};
use crate::log::topics::{self, Limits, TopicError};
use crate::metrics::Decisions;
use crate::metrics::exemplars::Exemplars;
use crate::pipeline::Pipeline;
use crate::pipeline::model;
use crate::sink::Sink;
use crate::sink::cloudwatch::Cloudwatch;
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
    #[error("sink {sink}: Kafka: {error}")]
    Kafka { sink: String, error: rdkafka::error::KafkaError },
    #[error("{0}")]
    Role(String),
    #[error("{0} can't be changed while docket runs; start it again")]
    Fixed(&'static str),
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

/// Which parts a process runs: all, unless some are named.
#[derive(Debug, Clone, Default)]
pub struct Roles(Vec<Role>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Role {
    Intake,
    Sinks,
    Spikes,
    Door,
    Sink(String),
}

impl Roles {
    /// From `door`, `intake`, `sinks`, `spikes` and `sink:NAME`.
    pub fn parse(names: &[String]) -> Result<Roles, String> {
        let role = |name: &String| match name.as_str() {
            "intake" => Ok(Role::Intake),
            "sinks" => Ok(Role::Sinks),
            "spikes" => Ok(Role::Spikes),
            "door" => Ok(Role::Door),
            other => match other.strip_prefix("sink:") {
                Some(sink) if !sink.is_empty() => Ok(Role::Sink(sink.to_owned())),
                _ => Err(format!(
                    "{other:?} is no part; there are door, intake, sinks, spikes and sink:NAME"
                )),
            },
        };
        names.iter().map(role).collect::<Result<_, _>>().map(Roles)
    }

    fn intake(&self) -> bool {
        self.0.is_empty() || self.0.contains(&Role::Intake)
    }

    fn door(&self) -> bool {
        self.0.is_empty() || self.0.contains(&Role::Door)
    }

    fn spikes(&self) -> bool {
        self.0.is_empty() || self.0.contains(&Role::Spikes)
    }

    fn sink(&self, name: &str) -> bool {
        self.0.is_empty()
            || self.0.contains(&Role::Sinks)
            || self.0.iter().any(|role| matches!(role, Role::Sink(sink) if sink == name))
    }

    /// A role that no part of the pipeline has.
    fn unknown(&self, pipeline: &Pipeline) -> Option<String> {
        let missing = |role: &&Role| matches!(role, Role::Sink(name) if !pipeline.file.sinks.contains_key(name));
        let Some(Role::Sink(name)) = self.0.iter().find(missing) else { return None };
        let names: Vec<&str> = pipeline.file.sinks.keys().map(String::as_str).collect();
        Some(format!("there is no sink {name:?}; there are {}", names.join(", ")))
    }
}

/// Starts the parts of a pipeline that this process is to run.
pub async fn start(pipeline: Pipeline, process: &Process) -> Result<Parts, RunError> {
    if let Some(unknown) = process.roles.unknown(&pipeline) {
        return Err(RunError::Role(unknown));
    }
    let made = reachable(&pipeline, process).await?;
    if !made.is_empty() {
        tracing::info!(topics = made.join(", "), "topics created");
    }
    let limits = topics::max_messages(&pipeline).await;
    let mut parts = Parts::new(pipeline, process, limits)?;
    parts.all()?;
    parts.watchdog()?;
    Ok(parts)
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

/// A pipeline's parts that run.
pub struct Parts {
    pub pipeline: Arc<Pipeline>,
    pub meters: Arc<Meters>,
    pub decisions: Arc<Decisions>,
    /// Of findings, once they are looked for.
    findings: Option<Arc<spikes::Meters>>,
    /// Of the door, once there is one, and who may come in.
    door: Option<(Arc<door::meters::Meters>, Arc<Clients>)>,
    progress: Arc<Progress>,
    process: Process,
    /// What the topics take.
    limits: Limits,
    running: BTreeMap<String, Part>,
}

struct Part {
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

type Parted = Result<(), String>;

impl Parts {
    pub fn new(pipeline: Pipeline, process: &Process, limits: Limits) -> Result<Parts, RunError> {
        let metrics_error =
            |error| RunError::Metrics { pipeline: pipeline.name().to_owned(), error };
        let meters =
            Arc::new(Meters::new(pipeline.name(), &process.registry).map_err(metrics_error)?);
        let max_series = pipeline.file.sinks.values().find_map(|sink| match sink {
            model::Sink::Metrics(config) => Some(config.max_series),
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
            door: None,
            progress,
            process: process.clone(),
            limits,
            running: BTreeMap::new(),
        })
    }

    /// Waits until every part has stopped.
    pub fn join(self) {
        for part in self.running.into_values() {
            // A part that panicked has said so; the others are still waited for.
            let _ = part.thread.join();
        }
    }

    /// Starts intake and the sinks, as far as the process is to run them.
    pub fn all(&mut self) -> Result<(), RunError> {
        if self.process.roles.intake() {
            self.intake()?;
        }
        let names: Vec<String> = self.pipeline.file.sinks.keys().cloned().collect();
        names.iter().try_for_each(|name| self.start_sink(name))?;
        self.spikes()?;
        self.open_door()
    }

    /// Opens the door, if the pipeline file has one and this process is to do it.
    fn open_door(&mut self) -> Result<(), RunError> {
        let Some(section) = self.pipeline.file.door.clone().filter(|_| self.process.roles.door())
        else {
            return Ok(());
        };
        let counts = match &self.door {
            Some((counts, _)) => counts.clone(),
            None => {
                let error =
                    |error| RunError::Metrics { pipeline: self.pipeline.name().to_owned(), error };
                Arc::new(
                    door::meters::Meters::new(self.pipeline.name(), &self.process.registry)
                        .map_err(error)?,
                )
            }
        };
        let clients = Arc::new(Clients::new(&section.tokens, &section.limits));
        self.door = Some((counts.clone(), clients.clone()));
        let door = Arc::new(Door {
            pipeline: self.pipeline.clone(),
            section,
            clients,
            counts,
            meters: self.meters.clone(),
            health: self.process.health.clone(),
            topic_limit: self.limits.door,
            rejects_limit: self.limits.rejects,
        });
        let runtime = self.process.runtime.clone();
        self.spawn("door", move |stop| runtime.block_on(door.run(stop)).map_err(|e| e.to_string()))
    }

    fn intake(&mut self) -> Result<(), RunError> {
        let intake = Intake {
            pipeline: self.pipeline.clone(),
            meters: self.meters.clone(),
            health: self.process.health.clone(),
            progress: self.progress.clone(),
            docket_limit: self.limits.docket,
            rejects_limit: self.limits.rejects,
        };
        let runtime = self.process.runtime.clone();
        self.spawn("intake", move |stop| {
            runtime.block_on(intake.run(stop)).map_err(|e| e.to_string())
        })
    }

    /// Looks for spikes, if the pipeline file says so and this process is to do it.
    fn spikes(&mut self) -> Result<(), RunError> {
        let Some(section) =
            self.pipeline.file.spikes.clone().filter(|_| self.process.roles.spikes())
        else {
            return Ok(());
        };
        let meters = match &self.findings {
            Some(meters) => meters.clone(),
            None => {
                let error =
                    |error| RunError::Metrics { pipeline: self.pipeline.name().to_owned(), error };
                let meters = Arc::new(
                    spikes::Meters::new(self.pipeline.name(), &self.process.registry)
                        .map_err(error)?,
                );
                self.findings.insert(meters).clone()
            }
        };
        let (pipeline, health, runtime) =
            (self.pipeline.clone(), self.process.health.clone(), self.process.runtime.clone());
        let spikes = Spikes { pipeline, section, meters, health, runtime };
        self.spawn("spikes", move |stop| spikes.run(stop).map_err(|e| e.to_string()))
    }

    /// A sink of the pipeline file, if this process is to run it.
    fn start_sink(&mut self, name: &str) -> Result<(), RunError> {
        let pipeline = self.pipeline.clone();
        let Some(sink) = pipeline.file.sinks.get(name) else { return Ok(()) };
        if sink.delivery().only_routed || !self.process.roles.sink(name) {
            return Ok(());
        }
        let too_old = match sink.delivery().too_old.as_str() {
            "rejects" => None,
            other => Some(self.onward(other)?),
        };
        let decisions = self.decisions.clone();
        with_sink(name, sink, &decisions, Started { parts: self, name, model: sink, too_old })?
    }

    /// A sink that takes what is too old for another.
    fn onward(&self, name: &str) -> Result<Arc<dyn Onward>, RunError> {
        let pipeline = self.pipeline.clone();
        let Some(sink) = pipeline.file.sinks.get(name) else {
            return Err(RunError::Role(format!("there is no sink {name:?}")));
        };
        with_sink(name, sink, &self.decisions, Apart { parts: self, name, model: sink })?
    }

    pub fn deliver<S: Sink>(
        &self,
        name: &str,
        model: &model::Sink,
        sink: S,
        too_old: Option<Arc<dyn Onward>>,
    ) -> Deliver<S> {
        Deliver {
            name: name.to_owned(),
            sink: Arc::new(sink),
            delivery: model.delivery().clone(),
            redaction: model.redaction(),
            concurrency: model.concurrency(),
            repeat_window: model.repeat_window(),
            max_age: model.max_age(),
            too_old,
            pipeline: self.pipeline.clone(),
            meters: self.meters.clone(),
            health: self.process.health.clone(),
            progress: self.progress.clone(),
            runtime: self.process.runtime.clone(),
            rejects_limit: self.limits.rejects,
            drain: self.process.drain,
            seed: rand::random(),
        }
    }

    /// Runs a sink as a part.
    pub fn sink<S: Sink>(&mut self, deliver: Deliver<S>) -> Result<(), RunError> {
        let name = deliver.name.clone();
        let (deliver, runtime) = (Arc::new(deliver), self.process.runtime.clone());
        self.spawn(&name, move |stop| {
            runtime.block_on(deliver.run(stop)).map_err(|e| e.to_string())
        })
    }

    fn watchdog(&mut self) -> Result<(), RunError> {
        let (pipeline, progress, meters) =
            (self.pipeline.clone(), self.progress.clone(), self.meters.clone());
        let (health, after) =
            (self.process.health.clone(), self.pipeline.file.watchdog.stalled_after.0);
        self.spawn("watchdog", move |stop| {
            watchdog::watch(&pipeline, &progress, &meters, &health, after, stop);
            Ok(())
        })
    }

    /// Takes up a changed pipeline file: the parts that it changes are stopped, with what they read
    /// delivered and committed, and started again. Their records wait in Kafka meanwhile. Returns their names.
    pub fn reload(&mut self, new: Pipeline) -> Result<Vec<String>, RunError> {
        let old = self.pipeline.clone();
        let (was, is) = (&old.file, &new.file);
        for (what, same) in [
            ("name", was.name == is.name),
            ("admin", was.admin == is.admin),
            ("telemetry.otlp", was.telemetry.otlp == is.telemetry.otlp),
            ("kafka", was.kafka == is.kafka),
            ("docket", was.docket == is.docket),
            ("watchdog", was.watchdog == is.watchdog),
        ] {
            if !same {
                return Err(RunError::Fixed(what));
            }
        }
        if let Some(unknown) = self.process.roles.unknown(&new) {
            return Err(RunError::Role(unknown));
        }
        // Everything that can be wrong is found before anything is stopped.
        for (name, sink) in &is.sinks {
            with_sink(name, sink, &self.decisions, Tried)?;
        }
        let intake = (
            &was.sources,
            &was.intake,
            &was.limits,
            &was.verdict,
            &was.verdict_policy,
            &was.trace,
            &was.service,
            &was.request,
            &was.protect,
        ) != (
            &is.sources,
            &is.intake,
            &is.limits,
            &is.verdict,
            &is.verdict_policy,
            &is.trace,
            &is.service,
            &is.request,
            &is.protect,
        );
        // A sink changes with the one that it hands on to.
        let whole = |file: &model::File, name: &String| {
            let sink = file.sinks.get(name)?.clone();
            let onward = file.sinks.get(&sink.delivery().too_old).cloned();
            Some((sink, onward))
        };
        let mut changed: Vec<String> = was
            .sinks
            .keys()
            .chain(is.sinks.keys())
            .filter(|name| whole(was, name) != whole(is, name))
            .cloned()
            .collect();
        changed.sort();
        changed.dedup();
        if intake && self.process.roles.intake() {
            changed.insert(0, "intake".into());
        }
        if was.spikes != is.spikes && self.process.roles.spikes() {
            changed.push("spikes".into());
        }
        let (door_was, door_is) = (door_but_tokens(&was.door), door_but_tokens(&is.door));
        // With protect, what the door rejects is without its content, too.
        let door_changes =
            (&door_was, &was.limits, &was.trace, &was.service, &was.sources, was.protect.is_some())
                != (
                    &door_is,
                    &is.limits,
                    &is.trace,
                    &is.service,
                    &is.sources,
                    is.protect.is_some(),
                );
        if door_changes {
            if self.process.roles.door() && (door_was.is_some() || door_is.is_some()) {
                changed.push("door".into());
            }
        } else if let (Some((_, clients)), Some(section)) = (&self.door, &is.door) {
            clients.set(&section.tokens);
        }
        let stopped: Vec<Part> =
            changed.iter().filter_map(|name| self.running.remove(name)).collect();
        stopped.iter().for_each(|part| part.stop.cancel());
        for part in stopped {
            let _ = part.thread.join();
        }
        self.pipeline = Arc::new(new);
        for name in &changed {
            match name.as_str() {
                "intake" => self.intake()?,
                "door" => {
                    self.process.health.remove(&format!("{}/door", self.pipeline.name()));
                    self.open_door()?;
                }
                "spikes" => {
                    self.process.health.remove(&format!("{}/spikes", self.pipeline.name()));
                    self.spikes()?;
                }
                gone if !self.pipeline.file.sinks.contains_key(gone) => {
                    self.process.health.remove(&format!("{}/{gone}", self.pipeline.name()));
                }
                name => self.start_sink(name)?,
            }
        }
        Ok(changed)
    }

    /// Runs a part on a thread of its own, again and again until it is stopped.
    fn spawn(
        &mut self,
        name: &str,
        part: impl Fn(&CancellationToken) -> Parted + Send + 'static,
    ) -> Result<(), RunError> {
        let stop = self.process.stop.child_token();
        let (token, meters, health) =
            (stop.clone(), self.meters.clone(), self.process.health.clone());
        let full = format!("{}/{name}", self.pipeline.name());
        if name != "watchdog" {
            health.set(&full, Err("starting".into()));
        }
        let label = name.to_owned();
        let body = move || {
            let mut pause = Duration::from_millis(500);
            while !stop.is_cancelled() {
                let started = std::time::Instant::now();
                let Err(error) = part(&stop) else { continue };
                health.set(&full, Err(error.clone()));
                meters.restarts.with_label_values(&[&label]).inc();
                tracing::error!(part = full, error, "a part failed and is started again");
                pause = if started.elapsed() > Duration::from_secs(60) {
                    Duration::from_millis(500)
                } else {
                    (pause * 2).min(Duration::from_secs(15))
                };
                let until = std::time::Instant::now() + pause;
                while !stop.is_cancelled() && std::time::Instant::now() < until {
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name(format!("docket-{name}"))
            .spawn(body)
            .map_err(RunError::Thread)?;
        self.running.insert(name.to_owned(), Part { stop: token, thread });
        Ok(())
    }
}

/// The door without its tokens, which may change while it is open.
fn door_but_tokens(door: &Option<model::Door>) -> Option<model::Door> {
    door.clone().map(|door| model::Door { tokens: BTreeMap::new(), ..door })
}

/// What is done with a sink, of whatever type it is.
pub trait Then {
    type Output;
    fn then<S: Sink>(self, sink: S) -> Self::Output;
}

/// Makes a sink from the pipeline file: the one list of the types that there are.
pub fn with_sink<T: Then>(
    name: &str,
    sink: &model::Sink,
    decisions: &Arc<Decisions>,
    then: T,
) -> Result<T::Output, RunError> {
    let wrong = |error| RunError::Sink { sink: name.to_owned(), error };
    Ok(match sink {
        model::Sink::Otlp(config) => then.then(Otlp::new(config).map_err(wrong)?),
        model::Sink::Loki(config) => then.then(Loki::new(config).map_err(wrong)?),
        model::Sink::Elasticsearch(config) => then.then(Elasticsearch::new(config).map_err(wrong)?),
        model::Sink::Cloudwatch(config) => then.then(Cloudwatch::new(config).map_err(wrong)?),
        model::Sink::File(config) => then.then(File::new(config)),
        model::Sink::Metrics(_) => then.then(Metrics::new(decisions.clone())),
    })
}

/// Started as a part.
struct Started<'p> {
    parts: &'p mut Parts,
    name: &'p str,
    model: &'p model::Sink,
    too_old: Option<Arc<dyn Onward>>,
}

impl Then for Started<'_> {
    type Output = Result<(), RunError>;

    fn then<S: Sink>(self, sink: S) -> Result<(), RunError> {
        let deliver = self.parts.deliver(self.name, self.model, sink, self.too_old);
        self.parts.sink(deliver)
    }
}

/// Made to be handed what others do not take.
struct Apart<'p> {
    parts: &'p Parts,
    name: &'p str,
    model: &'p model::Sink,
}

impl Then for Apart<'_> {
    type Output = Result<Arc<dyn Onward>, RunError>;

    fn then<S: Sink>(self, sink: S) -> Result<Arc<dyn Onward>, RunError> {
        let deliver = Arc::new(self.parts.deliver(self.name, self.model, sink, None));
        let rejects = deliver
            .rejects()
            .map_err(|error| RunError::Kafka { sink: self.name.to_owned(), error })?;
        Ok(Arc::new(Sending::apart(deliver, rejects, self.parts.process.stop.clone())))
    }
}

/// Only made, to see whether it can be.
struct Tried;

impl Then for Tried {
    type Output = ();

    fn then<S: Sink>(self, _: S) {}
}
