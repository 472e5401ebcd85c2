//! Takes up a changed pipeline file. Whatever of it can fail is made while the old parts run; only then they make room.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;

use super::super::changes::{Changes, changes};
use super::super::deliver::Deliver;
use super::super::handover::Step;
use super::super::supervise::Part;
use super::{Parts, RunError};
use crate::caught::caught;
use crate::door::config::DoorConfig;
use crate::door::{self, DoorError};
use crate::http::server::Certificates;
use crate::notify::Notifiers;
use crate::pipeline::file::amending;
use crate::pipeline::{File, Pipeline};

/// What the changed parts are made of.
struct Made {
    sinks: BTreeMap<String, Vec<Deliver>>,
    /// The door's address, unless it has to wait until the old door has left its port.
    bound: Option<TcpListener>,
}

impl Parts {
    /// Why the changed pipeline file is refused, if it is: `/status` says so, since what runs is not what stands there.
    pub fn file_is(&self, refused: Option<&str>) {
        let part = format!("{}/reload", self.pipeline.name());
        match refused {
            Some(error) => {
                let why = format!(
                    "the changed pipeline file is refused, the old one stays in force: {error}"
                );
                self.process.health.note(&part, Err(why));
            }
            None => self.process.health.remove(&part),
        }
    }

    /// Takes up a changed pipeline file: the parts that it changes are stopped, with what they read
    /// delivered and committed, and started again. Their records wait in Kafka meanwhile. Returns their names.
    ///
    /// With an error the old file is in force. The parts were not touched, unless the new ones could not be started though all that they
    /// are made of was there: then they were started again.
    pub fn reload(&mut self, mut new: Pipeline) -> Result<Vec<String>, RunError> {
        super::fit(&mut new, self.partitions);
        let mut changes = changes(&self.pipeline.file, &new.file)?;
        let roles = &self.process.roles;
        if let Some(unknown) = roles.unknown(&new) {
            return Err(RunError::Role(unknown));
        }
        changes.intake &= roles.intake();
        changes.door &= roles.door();
        changes.spikes &= roles.spikes();
        changes.facts &= roles.facts();
        changes.join &= roles.join();
        let one = |changed: bool, name: &'static str| changed.then(|| name.to_owned());
        let files = [&self.pipeline.file, &new.file];
        let amended = |part: &String| files.iter().any(|file| file.amended_by(part).is_some());
        let names: Vec<String> = one(changes.intake, "intake")
            .into_iter()
            .chain(one(changes.facts, "facts"))
            .chain(one(changes.join, "join"))
            .chain(changes.sinks.iter().cloned())
            .chain(changes.sinks.iter().map(|name| amending(name)).filter(amended))
            .chain(one(changes.spikes, "spikes"))
            .chain(one(changes.door, "door"))
            .collect();
        let is_gone = |part: &&String| {
            let [old, new] = files;
            old.amended_by(part).is_some()
                && new.amended_by(part).is_none()
                && !new.sinks.contains_key(*part)
        };
        let gone: Vec<String> = names.iter().filter(is_gone).cloned().collect();
        let old = std::mem::replace(&mut self.pipeline, Arc::new(new));
        self.hand_over(&changes, &names, &old)?;
        for part in &gone {
            self.forget(part);
            self.settled(part);
        }
        if let (true, Some(clients), Some(door)) =
            (changes.tokens, &self.clients, &self.pipeline.file.door)
        {
            clients.set(&door.tokens);
        }
        Ok(names)
    }

    /// From the old parts to the new ones; or back, with why.
    fn hand_over(
        &mut self,
        changes: &Changes,
        names: &[String],
        old: &Arc<Pipeline>,
    ) -> Result<(), RunError> {
        let (mut made, mut failure) = (None, None);
        let mut next = Some(Step::FIRST);
        while let Some(step) = next {
            let result = match step {
                Step::Make => {
                    without_panic(|| self.make(changes, &old.file)).map(|new| made = Some(new))
                }
                Step::End | Step::EndAgain => {
                    self.end(names);
                    Ok(())
                }
                Step::Begin => without_panic(|| self.begin(changes, made.take())),
                Step::BeginAgain => {
                    self.pipeline = old.clone();
                    without_panic(|| self.begin(changes, None))
                }
            };
            next = step.next(result.is_err());
            match result {
                Err(error) if step == Step::BeginAgain => {
                    let pipeline = self.pipeline.name();
                    tracing::error!(pipeline, %error, "a part of the old file can't be started again either");
                }
                Err(error) => {
                    if step == Step::Make {
                        self.as_before(names, old);
                    }
                    failure = Some(error);
                }
                Ok(()) => {}
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// The old file is in force, and its parts were not touched.
    fn as_before(&mut self, names: &[String], old: &Arc<Pipeline>) {
        self.pipeline = old.clone();
        for name in names {
            let _ = self.meters.share.remove_label_values(&[name]);
            if self.running.contains_key(name) {
                self.share(name);
            }
        }
    }

    /// Everything of the changed parts that can be wrong, while the old ones run.
    fn make(&mut self, changes: &Changes, old: &File) -> Result<Made, RunError> {
        self.read_once();
        let mut sinks = BTreeMap::new();
        for name in &changes.sinks {
            sinks.insert(name.clone(), self.delivering(name)?);
        }
        if changes.spikes
            && let Some(spikes) = self.pipeline.file.spikes.clone()
        {
            self.spike_counts()?;
            Notifiers::check(&spikes.notify)
                .map_err(|(notifier, error)| RunError::Notifier { notifier, error })?;
        }
        let mut bound = None;
        if changes.door
            && let Some(door) = self.door_config()
        {
            self.door_counts()?;
            door.tls.as_ref().map(Certificates::new).transpose().map_err(DoorError::from)?;
            let port = |door: &DoorConfig| door.listen.rsplit(':').next().map(str::to_owned);
            if old.door.as_ref().and_then(port) != port(&door) {
                bound = Some(door::listen(&door.listen)?);
            }
        }
        Ok(Made { sinks, bound })
    }

    fn end(&mut self, names: &[String]) {
        let ended: Vec<Part> = names.iter().filter_map(|name| self.running.remove(name)).collect();
        ended.iter().for_each(Part::stop);
        ended.into_iter().for_each(Part::join);
    }

    /// Starts the parts that a change is of: each, though another can't be. The first error. Without what they are made of, they are
    /// those of before, and the door opens as soon as it can.
    fn begin(&mut self, changes: &Changes, mut made: Option<Made>) -> Result<(), RunError> {
        self.expect();
        let mut results = Vec::new();
        if changes.intake {
            results.push(("intake", self.intake()));
        }
        if changes.facts {
            results.push(("facts", self.read_facts()));
        }
        if changes.join {
            results.push(("join", self.correlate()));
        }
        for name in &changes.sinks {
            if self.pipeline.file.sinks.contains_key(name) {
                let started = match made.as_mut() {
                    Some(made) => {
                        let mut made = made.sinks.remove(name).unwrap_or_default().into_iter();
                        made.try_for_each(|deliver| self.sink(deliver))
                    }
                    None => self.start_sink(name),
                };
                results.push((name, started));
            } else {
                self.forget(name);
                self.settled(name);
            }
        }
        if changes.spikes {
            self.forget("spikes");
            results.push(("spikes", self.spikes()));
        }
        if changes.door {
            self.forget("door");
            let bound = made.map(|made| self.bound(made)).transpose();
            results.push(("door", bound.and_then(|bound| self.open_door(bound.flatten()))));
        }
        for (name, result) in &results {
            if let Err(error) = result {
                let part = format!("{}/{name}", self.pipeline.name());
                self.process.health.set(&part, Err(error.to_string()));
            }
        }
        results.into_iter().try_for_each(|(_, result)| result)
    }

    /// The address of the door, which the old one has left by now.
    fn bound(&self, made: Made) -> Result<Option<TcpListener>, RunError> {
        match (made.bound, self.door_config()) {
            (None, Some(door)) => Ok(Some(door::listen(&door.listen)?)),
            (bound, _) => Ok(bound),
        }
    }
}

fn without_panic<T>(call: impl FnOnce() -> Result<T, RunError>) -> Result<T, RunError> {
    caught(call).map_err(RunError::Panicked).flatten()
}
