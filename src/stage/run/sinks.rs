//! Delivers to the sinks of a pipeline, each a part of its own.

use std::sync::Arc;

use super::{Parts, RunError};
use crate::decision::record;
use crate::log::scan::READER;
use crate::log::shared::{self, Shared};
use crate::pipeline::memory;
use crate::sink::config::SinkConfig;
use crate::sink::{self, AnySink};
use crate::stage::deliver::{Deliver, Fallback, Sending};

impl Parts {
    /// A sink of the pipeline file, if this process is to run it.
    pub(super) fn start_sink(&mut self, name: &str) -> Result<(), RunError> {
        self.delivering(name)?.into_iter().try_for_each(|deliver| self.sink(deliver))
    }

    /// Whether this process reads for a sink.
    fn reads(&self, name: &str) -> bool {
        let sink = self.pipeline.file.sinks.get(name);
        sink.is_some_and(|s| !s.delivery().only_routed) && self.process.roles.sink(name)
    }

    /// The docket topic, read once for all sinks of the process, if there are several.
    pub(super) fn read_once(&mut self) {
        let sinks = self.pipeline.file.sinks.keys().filter(|name| self.reads(name)).count();
        if sinks < 2 || self.shared.is_some() {
            return;
        }
        let pipeline = &self.pipeline;
        let room = memory::shared(&pipeline.file);
        self.meters
            .share
            .with_label_values(&["reader"])
            .set(i64::try_from(room).unwrap_or(i64::MAX));
        let settings = shared::Settings {
            kafka: &pipeline.file.kafka,
            group: &pipeline.group(READER),
            topic: &pipeline.docket_topic(),
            room,
            partitions: self.partitions.unwrap_or(pipeline.file.docket.partitions) as usize,
            time: record::time,
        };
        let meters = self.meters.clone();
        self.shared = Some(Arc::new(Shared::new(&settings, move || meters.holding("reader"))));
    }

    /// What delivers to it, decisions and what amends them; not started yet.
    pub(super) fn delivering(&self, name: &str) -> Result<Vec<Deliver>, RunError> {
        if !self.reads(name) {
            return Ok(Vec::new());
        }
        let Some(sink) = self.pipeline.file.sinks.get(name) else { return Ok(Vec::new()) };
        let too_old = match sink.delivery().too_old.as_str() {
            "rejects" => None,
            other => Some(self.fallback(other)?),
        };
        let decisions = self.deliver(name, sink, self.made(name, sink)?, too_old);
        Ok([decisions].into_iter().chain(self.amending(name, sink)?).collect())
    }

    fn made(&self, name: &str, config: &SinkConfig) -> Result<Arc<dyn AnySink>, RunError> {
        let wrong = |error| RunError::Sink { sink: name.to_owned(), error };
        sink::any::sink(config, &self.decisions).map_err(wrong)
    }

    /// A sink that takes what is too old for another.
    fn fallback(&self, name: &str) -> Result<Arc<dyn Fallback>, RunError> {
        let deliver = Arc::new(self.apart(name)?.1);
        let wrong = |error| RunError::Kafka { sink: name.to_owned(), error };
        let rejects = deliver.rejects().map_err(wrong)?;
        Ok(Arc::new(Sending::apart(deliver, rejects, self.process.stop.clone())))
    }

    /// What delivers to a sink, without reading for it.
    pub fn apart(&self, name: &str) -> Result<(&SinkConfig, Deliver), RunError> {
        if let Some((sink, config)) = self.pipeline.file.amended_by(name)
            && let Some(deliver) = self.amending(sink, config)?
        {
            return Ok((config, deliver));
        }
        let Some(config) = self.pipeline.file.sinks.get(name) else {
            return Err(RunError::Role(format!("there is no sink {name:?}")));
        };
        Ok((config, self.deliver(name, config, self.made(name, config)?, None)))
    }

    pub fn deliver(
        &self,
        name: &str,
        config: &SinkConfig,
        sink: Arc<dyn AnySink>,
        too_old: Option<Arc<dyn Fallback>>,
    ) -> Deliver {
        Deliver {
            name: name.to_owned(),
            sink,
            topic: self.pipeline.docket_topic(),
            amends: None,
            delivery: config.delivery().clone(),
            redaction: config.redaction(),
            concurrency: config.concurrency(),
            repeat_window: config.repeat_window(),
            reuse_window: config.reuse_window(),
            share: self.share(name),
            max_age: config.max_age(),
            too_old,
            pipeline: self.pipeline.clone(),
            meters: self.meters.clone(),
            health: self.process.health.clone(),
            progress: self.progress.clone(),
            events: self.events.clone(),
            runtime: self.process.runtime.clone(),
            rejects_limit: self.limits.rejects,
            shared: self.shared.clone(),
            drain: self.process.drain,
            seed: rand::random(),
        }
    }

    /// Runs a sink, or what amends it, as a part.
    pub fn sink(&mut self, deliver: Deliver) -> Result<(), RunError> {
        let name = deliver.name.clone();
        self.settled(&name);
        if deliver.amends.is_some() {
            self.meters.amending(&name);
        }
        let (deliver, runtime) = (Arc::new(deliver), self.process.runtime.clone());
        self.spawn(&name, move |stop| {
            runtime.block_on(deliver.run(stop)).map_err(|e| e.to_string())
        })
    }
}
