//! A process of the simulation.

use std::sync::Arc;
use std::time::Duration;

use docket::log::progress::Progress;
use docket::pipeline::{Pipeline, memory};
use docket::stage::changes::{Changes, changes};
use docket::stage::deliver::{Deliver, Fallback, Sending};
use docket::stage::handover::Step;
use docket::stage::intake::{Intake, Trouble, Work};
use docket::telemetry::{Health, Meters};
use tokio::task::{JoinHandle, spawn_local};
use tokio_util::sync::CancellationToken;

use super::sink::{Manner, SimSink};
use super::world::{self, Account, Alive, Dead, Member, Rings, Sabotage, Shared, producer};
use super::{DOCKET, SOURCE};

/// One process: intake and three sinks, each started again when it fails.
pub struct Process {
    world: Shared,
    pipeline: Arc<Pipeline>,
    seed: u64,
    /// Of its transactions.
    id: String,
    parts: Vec<Part>,
    stop: CancellationToken,
    pub meters: Arc<Meters>,
    health: Arc<Health>,
    progress: Arc<Progress>,
    /// What its sinks read together.
    rings: Rings,
}

struct Part {
    name: String,
    task: JoinHandle<()>,
    stop: CancellationToken,
}

/// What can't be of a changed pipeline file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fails {
    Nothing,
    /// A part can't be made,
    Making,
    /// or can't begin though it was made, when others have begun already.
    Beginning,
}

const SINKS: [&str; 3] = ["whole", "items", "once"];

impl Process {
    pub fn start(world: &Shared, pipeline: &Arc<Pipeline>, seed: u64) -> Process {
        let meters = Arc::new(Meters::new("sim", &prometheus::Registry::new()).unwrap());
        let mut process = Process {
            world: world.clone(),
            pipeline: pipeline.clone(),
            seed,
            id: format!("intake-{seed:x}"),
            parts: Vec::new(),
            stop: CancellationToken::new(),
            meters,
            health: Arc::default(),
            progress: Arc::default(),
            rings: Rings::default(),
        };
        process.intake();
        SINKS.iter().for_each(|name| process.sink(name));
        process
    }

    /// Whether a sink has not answered yet.
    pub fn is_sending(&self) -> bool {
        SINKS.iter().any(|name| self.meters.in_flight.with_label_values(&[name]).get() > 0)
    }

    fn account(&self, part: &str, largest: usize) -> Alive {
        let alive = Alive::default();
        let share = memory::shares(&self.pipeline.file)[part];
        let account = Account {
            part: part.to_owned(),
            held: self.meters.held.with_label_values(&[part]),
            alive: alive.clone(),
            // It reads on below its share only.
            most: share + largest,
        };
        self.world.lock().account(&self.id, account);
        alive
    }

    fn intake(&mut self) {
        let intake = Intake {
            work: Work::Decisions,
            facts: None,
            pipeline: self.pipeline.clone(),
            meters: self.meters.clone(),
            health: self.health.clone(),
            progress: self.progress.clone(),
            docket_limit: Some(world::DOCKET_TAKES),
            rejects_limit: None,
            trouble: Trouble::default(),
            id: String::new(),
        };
        // A transaction waits for parts of lines until it is twice as large; and is held as it is read and as it is written.
        let transaction = self.pipeline.file.intake.transaction_bytes.0 + LARGEST;
        let alive = self.account("intake", 4 * transaction);
        let (w, s, id) = (self.world.clone(), self.stop.child_token(), self.id.clone());
        self.run("intake", s.clone(), async move {
            while !s.is_cancelled() {
                let join =
                    |seen| Ok(Member::join(&w, "docket.sim.intake", &[SOURCE], seen).of(&id));
                let producer = producer(&w, &id, alive.clone());
                if let Err(error) = intake.over(join, producer, &s).await {
                    w.lock().note(format!("intake failed: {error}"));
                    if w.lock().sabotage == Sabotage::StaysDead {
                        return;
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        });
    }

    fn deliver(&self, name: &str, seed: u64, too_old: Option<Arc<dyn Fallback>>) -> Deliver {
        let model = &self.pipeline.file.sinks[name];
        let manner = if name == "whole" { Manner::Whole } else { Manner::Items };
        let mut delivery = model.delivery().clone();
        let sabotage = self.world.lock().sabotage;
        if sabotage == Sabotage::NoRoom {
            delivery.batch_bytes.0 = 1;
        }
        let share = memory::shares(&self.pipeline.file)[name];
        // A batch as it was read, in a buffer that grows by doubling, and encoded.
        let swells = self.world.lock().swells;
        let batch = delivery.batch_bytes.0.min(BATCH) + world::DOCKET_TAKES;
        let alive = self.account(name, batch * (2 + swells));
        Deliver {
            name: name.to_owned(),
            sink: Arc::new(SimSink::new(name, manner, &self.world, alive)),
            topic: self.pipeline.docket_topic(),
            amends: None,
            delivery,
            redaction: docket::protect::redact::Redaction::default(),
            concurrency: model.concurrency(),
            repeat_window: model.repeat_window(),
            reuse_window: model.reuse_window(),
            share: if sabotage == Sabotage::HoldsTooMuch { usize::MAX } else { share },
            max_age: model.max_age(),
            too_old,
            pipeline: self.pipeline.clone(),
            meters: self.meters.clone(),
            health: self.health.clone(),
            progress: self.progress.clone(),
            events: Arc::default(),
            runtime: tokio::runtime::Handle::current(),
            rejects_limit: Some(world::REJECTS_TAKE),
            shared: None,
            drain: Duration::from_secs(5),
            seed,
        }
    }

    fn sink(&mut self, name: &str) {
        let late = (name == "once").then(|| -> Arc<dyn Fallback> {
            let late = Arc::new(self.deliver("late", self.seed + 3, None));
            Arc::new(Sending::apart(late, Dead(self.world.clone()), self.stop.clone()))
        });
        let i = SINKS.iter().position(|one| *one == name).unwrap();
        let deliver = Arc::new(self.deliver(name, self.seed + i as u64, late));
        let (w, s, id) = (self.world.clone(), self.stop.child_token(), self.id.clone());
        let rings = self.rings.clone();
        self.run(name, s.clone(), async move {
            while !s.is_cancelled() {
                let group = format!("docket.sim.{}", deliver.name);
                let join =
                    |watch| Ok(Member::join(&w, &group, &[DOCKET], watch).of(&id).with(&rings));
                if let Err(error) = deliver.over(join, Dead(w.clone()), &s).await {
                    w.lock().note(format!("{} failed: {error}", deliver.name));
                    if w.lock().sabotage == Sabotage::StaysDead {
                        return;
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        });
    }

    fn run(
        &mut self,
        name: &str,
        stop: CancellationToken,
        part: impl Future<Output = ()> + 'static,
    ) {
        self.parts.push(Part { name: name.to_owned(), task: spawn_local(part), stop });
    }

    /// Takes up a changed pipeline file as docket does, step by step.
    pub async fn reload(&mut self, new: &Arc<Pipeline>, fails: Fails) {
        let changes = changes(&self.pipeline.file, &new.file).unwrap();
        let mut names: Vec<String> = changes.sinks.iter().cloned().collect();
        names.extend(changes.intake.then(|| "intake".to_owned()));
        if self.world.lock().sabotage == Sabotage::StopsFirst {
            self.end(&names).await;
        }
        let old = std::mem::replace(&mut self.pipeline, new.clone());
        let mut next = Some(Step::FIRST);
        while let Some(step) = next {
            let failed = match step {
                Step::Make => fails == Fails::Making,
                Step::End | Step::EndAgain => {
                    self.end(&names).await;
                    false
                }
                Step::Begin => {
                    let fails = fails == Fails::Beginning;
                    self.begin(&changes, fails);
                    fails
                }
                Step::BeginAgain => {
                    self.pipeline = old.clone();
                    self.begin(&changes, false);
                    false
                }
            };
            if step == Step::Make && failed {
                self.pipeline = old.clone();
            }
            next = step.next(failed);
        }
    }

    async fn end(&mut self, names: &[String]) {
        let of_it = |part: &mut Part| names.contains(&part.name);
        let ended: Vec<Part> = self.parts.extract_if(.., of_it).collect();
        ended.iter().for_each(|part| part.stop.cancel());
        for part in ended {
            let _ = part.task.await;
        }
    }

    /// Begins what a change is of; all but the last if it can't.
    fn begin(&mut self, changes: &Changes, fails: bool) {
        let file = &self.pipeline.file;
        let is_there =
            |name: &&&str| changes.sinks.contains(**name) && file.sinks.contains_key(**name);
        let mut sinks: Vec<&str> = SINKS.iter().filter(is_there).copied().collect();
        if changes.intake {
            self.intake();
        }
        if fails {
            sinks.pop();
        }
        sinks.into_iter().for_each(|name| self.sink(name));
    }

    pub fn kill(self) {
        self.parts.iter().for_each(|part| part.task.abort());
    }

    pub async fn stop(self) {
        self.stop.cancel();
        for part in self.parts {
            let _ = part.task.await;
        }
    }
}

/// No record of the simulation is larger, nor what it becomes.
const LARGEST: usize = 12 << 10;
/// Nor are batches, which are limited by their number of records where they may be large.
const BATCH: usize = 64 << 10;
