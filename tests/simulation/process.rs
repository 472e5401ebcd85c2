//! A process of the simulation.

use std::sync::Arc;
use std::time::Duration;

use docket::log::progress::Progress;
use docket::pipeline::Pipeline;
use docket::stage::deliver::{Deliver, Fallback, Sending};
use docket::stage::intake::Intake;
use docket::telemetry::{Health, Meters};
use tokio::task::{JoinHandle, spawn_local};
use tokio_util::sync::CancellationToken;

use super::sink::{Manner, SimSink};
use super::world::{self, Dead, Member, Producer, Sabotage, Shared};
use super::{DOCKET, SOURCE};

/// One process: intake and three sinks, each started again when it fails.
pub struct Process {
    tasks: Vec<JoinHandle<()>>,
    stop: CancellationToken,
    pub meters: Arc<Meters>,
}

impl Process {
    pub fn start(world: &Shared, pipeline: &Arc<Pipeline>, seed: u64) -> Process {
        let stop = CancellationToken::new();
        let meters = Arc::new(Meters::new("sim", &prometheus::Registry::new()).unwrap());
        let (health, progress) = (Arc::new(Health::default()), Arc::new(Progress::default()));
        let intake = Intake {
            work: docket::stage::intake::Work::Decisions,
            facts: None,
            pipeline: pipeline.clone(),
            meters: meters.clone(),
            health: health.clone(),
            progress: progress.clone(),
            docket_limit: Some(world::DOCKET_TAKES),
            rejects_limit: None,
            trouble: docket::stage::intake::Trouble::default(),
            id: String::new(),
        };
        let (w, s) = (world.clone(), stop.clone());
        let mut tasks = vec![spawn_local(async move {
            while !s.is_cancelled() {
                let join = |seen| Ok(Member::join(&w, "docket.sim.intake", &[SOURCE], seen));
                if let Err(error) = intake.over(join, Producer::new(&w), &s).await {
                    w.lock().note(format!("intake failed: {error}"));
                    if w.lock().sabotage == Sabotage::StaysDead {
                        return;
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        })];
        let no_room = world.lock().sabotage == Sabotage::NoRoom;
        let deliver = |name: &str, seed: u64, too_old| {
            let model = &pipeline.file.sinks[name];
            let manner = if name == "whole" { Manner::Whole } else { Manner::Items };
            let mut delivery = model.delivery().clone();
            if no_room {
                delivery.batch_bytes.0 = 1;
            }
            Deliver {
                name: name.to_owned(),
                sink: Arc::new(SimSink::new(name, manner, world)),
                delivery,
                redaction: docket::protect::redact::Redaction::default(),
                concurrency: model.concurrency(),
                repeat_window: model.repeat_window(),
                reuse_window: model.reuse_window(),
                share: docket::pipeline::memory::shares(&pipeline.file)[name],
                max_age: model.max_age(),
                too_old,
                pipeline: pipeline.clone(),
                meters: meters.clone(),
                health: health.clone(),
                progress: progress.clone(),
                events: Arc::default(),
                runtime: tokio::runtime::Handle::current(),
                rejects_limit: Some(world::REJECTS_TAKE),
                drain: Duration::from_secs(5),
                seed,
            }
        };
        for (i, name) in (0..).zip(["whole", "items", "once"]) {
            let late = (name == "once").then(|| -> Arc<dyn Fallback> {
                let late = Arc::new(deliver("late", seed + 3, None));
                Arc::new(Sending::apart(late, Dead(world.clone()), stop.clone()))
            });
            let deliver = Arc::new(deliver(name, seed + i, late));
            let (w, s) = (world.clone(), stop.clone());
            tasks.push(spawn_local(async move {
                while !s.is_cancelled() {
                    let join = |watch| {
                        Ok(Member::join(
                            &w,
                            &format!("docket.sim.{}", deliver.name),
                            &[DOCKET],
                            watch,
                        ))
                    };
                    if let Err(error) = deliver.over(join, Dead(w.clone()), &s).await {
                        w.lock().note(format!("{} failed: {error}", deliver.name));
                        if w.lock().sabotage == Sabotage::StaysDead {
                            return;
                        }
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            }));
        }
        Process { tasks, stop, meters }
    }

    pub fn kill(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }

    pub async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            let _ = task.await;
        }
    }
}
