//! Drives a world: processes and logs, trouble, and peace at the end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use docket::pipeline::Pipeline;
use docket::resume::Start;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::input::{Input, input};
use super::process::{Fails, Process};
use super::world::{Faults, Sabotage, Shared};
use super::{DOCKET, Ended, REJECTS, SOURCE, check, gone, settings, sink};

const GROUPS: [(&str, &str); 4] = [
    ("docket.sim.intake", SOURCE),
    ("docket.sim.whole", DOCKET),
    ("docket.sim.items", DOCKET),
    ("docket.sim.once", DOCKET),
];

/// What stood in the source before anybody was to read it.
pub const HISTORY: &str = "history-";

pub struct Drive {
    world: Shared,
    seed: u64,
    pub rng: SmallRng,
    /// Of what came later, so that other worlds stay as they are.
    own: SmallRng,
    /// In some worlds, logs don't stay as they were written;
    fickle: bool,
    /// offsets of records may have been used twice.
    anew: bool,
    /// In some, groups start at the end,
    latest: bool,
    /// and in some, the pipeline file is changed while processes run.
    changes: bool,
    pipelines: Vec<Arc<Pipeline>>,
    input: Input,
    waiting: Vec<Vec<u8>>,
    split: Vec<Vec<Vec<u8>>>,
    running: Vec<Process>,
    most: usize,
    refuses: BTreeSet<&'static str>,
}

impl Drive {
    pub fn new(seed: u64, sabotage: Sabotage) -> Drive {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut likely =
            |most: f64| if rng.random_bool(0.5) { 0.0 } else { rng.random_range(0.0..most) };
        // Those that are not drawn are of numbers of their own, so that other worlds stay as they are.
        let late = seed % 5 == 2;
        let faults = Faults {
            commit_fails: likely(0.1),
            poll_stalls: likely(0.01),
            letter_fails: likely(0.3),
            send_panics: likely(0.03),
            answer_lost: if seed % 3 == 1 { 0.05 } else { 0.0 },
            late: if late { 0.1 } else { 0.0 },
            slow: if seed % 7 == 4 { 0.15 } else { 0.0 },
        };
        let world = Shared::new(seed ^ 0x5eed, faults, sabotage);
        let mut partitions = || if rng.random_bool(0.02) { 64 } else { rng.random_range(1..5) };
        let (sources, partitions) = (partitions(), partitions());
        let fickle = rng.random_bool(0.4);
        let latest = seed % 8 == 5 && !fickle;
        let little = seed % 6 == 1;
        {
            let mut w = world.lock();
            w.create(SOURCE, sources);
            w.create(DOCKET, partitions);
            w.create(REJECTS, 2);
            w.note(format!("{faults:?}"));
            w.same_ids = late;
            w.swells = if little { 12 } else { 1 };
            if latest {
                let groups = ["docket.sim.intake", "docket.sim.whole"];
                w.starts = groups.map(|group| (group.to_owned(), Start::Latest)).into();
            }
        }
        let input = input(&mut rng);
        let mut waiting = input.records.clone();
        waiting.reverse();
        let split = input.split.clone();
        Drive {
            world,
            seed,
            rng,
            own: SmallRng::seed_from_u64(seed ^ 0x0e7),
            fickle,
            anew: false,
            latest,
            changes: seed % 4 == 3,
            pipelines: settings::all(little),
            input,
            waiting,
            split,
            running: Vec::new(),
            most: 0,
            refuses: ["whole", "items", "once"].into(),
        }
    }

    fn starts(&mut self, seed: u64) {
        let process = Process::start(&self.world, &self.pipelines[0], seed);
        self.running.push(process);
    }

    pub fn begins(&mut self) {
        if self.latest {
            let mut w = self.world.lock();
            for i in 0..5 {
                let text = format!(
                    r#"{{"decision_id":"{HISTORY}{i}","timestamp":"2026-01-01T00:00:00Z"}}"#
                );
                w.produce(SOURCE, text.as_bytes());
            }
        }
        self.starts(self.seed);
        self.most = self.rng.random_range(1..4usize);
    }

    /// What is produced from now on is to be read.
    fn has_begun(&self) -> bool {
        let w = self.world.lock();
        w.starts.keys().all(|group| w.begun.contains(group))
    }

    pub async fn trouble(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(1..3_000))).await;
        let begun = self.has_begun();
        for _ in 0..self.rng.random_range(0..15) {
            if begun && let Some(record) = self.waiting.pop() {
                self.world.lock().produce(SOURCE, &record);
            }
        }
        if self.rng.random_bool(0.3) && begun {
            self.world.lock().split(&mut self.split);
        }
        match self.rng.random_range(0..6) {
            0 if self.running.len() < self.most => {
                self.world.lock().note("a process starts");
                let seed = self.rng.random();
                self.starts(seed);
            }
            1 if !self.running.is_empty() => {
                let n = self.rng.random_range(0..self.running.len());
                let process = self.running.swap_remove(n);
                self.world.lock().note("a process is killed");
                process.kill();
            }
            2 if self.running.len() > 1 => {
                let n = self.rng.random_range(0..self.running.len());
                let process = self.running.swap_remove(n);
                self.world.lock().note("a process is stopped");
                process.stop().await;
            }
            3 => self.a_sink_fails(),
            4 | 5 if self.fickle => self.anew |= gone::happens(&self.world, &mut self.rng),
            _ => {}
        }
        if self.latest && self.own.random_bool(0.1) {
            self.world.lock().grow(SOURCE);
        }
        if self.changes && self.own.random_bool(0.3) && !self.running.is_empty() {
            self.a_file_changes().await;
        }
    }

    fn a_sink_fails(&mut self) {
        let sink = ["whole", "items", "once", "late"][self.rng.random_range(0..4)];
        let until = Duration::from_millis(self.rng.random_range(1..20_000));
        // Once at most, so that no two such times look like one record's fault.
        let all = self.rng.random_bool(0.3) && self.refuses.remove(sink);
        let what = if all { "refuses everything" } else { "is away" };
        self.world.lock().note(format!("{sink} {what} for {} ms", until.as_millis()));
        sink::away(&self.world, sink, until, all);
    }

    async fn a_file_changes(&mut self) {
        let n = self.own.random_range(0..self.running.len());
        let to = self.own.random_range(0..self.pipelines.len());
        let fails = match self.own.random_range(0..3) {
            0 => Fails::Making,
            1 => Fails::Beginning,
            _ => Fails::Nothing,
        };
        self.world.lock().note(format!("a file is changed to {to}; what fails: {fails:?}"));
        self.running[n].reload(&self.pipelines[to], fails).await;
    }

    /// And then there is peace.
    pub async fn peace(&mut self) {
        while !self.has_begun() && !self.running.is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        {
            let mut w = self.world.lock();
            w.faults = Faults::default();
            w.note("no more faults");
        }
        if self.running.is_empty() {
            self.starts(self.seed + 1);
        }
        while !self.has_begun() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        for process in &mut self.running {
            process.reload(&self.pipelines[0], Fails::Nothing).await;
        }
        let mut w = self.world.lock();
        while let Some(record) = self.waiting.pop() {
            w.produce(SOURCE, &record);
        }
        while !self.split.is_empty() {
            w.split(&mut self.split);
        }
    }

    /// Until everything is finished, and told.
    pub async fn ends(mut self) -> Ended {
        let world = self.world.clone();
        let held_up = self.rng.random_bool(0.2);
        if held_up {
            sink::away(&world, "late", check::HELD_UP, false);
        }
        let mut peace: usize = 0;
        // What nothing is left of has no lag, and is told all the same.
        let behind =
            |world: &Shared| GROUPS.iter().any(|(g, topic)| world.lock().lag(g, topic) > 0);
        // What was deleted while it was on its way has no lag either.
        while peace < 10 || behind(&world) || self.running.iter().any(Process::is_sending) {
            tokio::time::sleep(Duration::from_secs(1)).await;
            peace += 1;
            // What fails alone waits for others to pass.
            let most = GROUPS.iter().map(|(group, topic)| world.lock().lag(group, topic)).max();
            let every = if most > Some(3) { 2 } else { 10 };
            if peace < 600 && peace.is_multiple_of(every) {
                let id = format!("peace{peace}");
                let at = jiff::Timestamp::now();
                let text = format!(r#"{{"decision_id":"{id}","timestamp":"{at}"}}"#);
                world.lock().produce(SOURCE, text.as_bytes());
                *self.input.times.entry(id.clone()).or_default() += 1;
                self.input.decisions.insert(id);
            }
            if held_up && peace as u64 == check::HELD_UP.as_secs() {
                check::passed(&world, &self.input);
            }
            if peace > 900 {
                let what = "not everything was finished after 15 minutes without a fault";
                world.lock().violation(what.into());
                break;
            }
        }
        self.lives().await;
        self.stop().await;
        if self.fickle {
            gone::check(&world, &self.input, self.anew);
        } else {
            check::whole(&world, &self.input);
        }
        Ended { world, input: self.input, fickle: self.fickle, latest: self.latest }
    }

    /// Each part of each process is a member of its group.
    async fn lives(&self) {
        let wanted = self.running.len();
        let missing =
            |world: &Shared| GROUPS.iter().find(|(group, _)| world.lock().members(group) != wanted);
        for _ in 0..30 {
            if missing(&self.world).is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        if let Some((group, _)) = missing(&self.world) {
            let mut w = self.world.lock();
            let members = w.members(group);
            w.violation(format!("{group} has {members} members of {wanted} processes"));
        }
    }

    async fn stop(&mut self) {
        for process in std::mem::take(&mut self.running) {
            let meters = process.meters.clone();
            process.stop().await;
            // What was on its way hears of it.
            tokio::time::sleep(Duration::from_secs(1)).await;
            for part in ["intake", "whole", "items", "once", "late"] {
                let held = meters.held.with_label_values(&[part]).get();
                if held != 0 {
                    let what = format!("{part} has stopped and holds {held} bytes");
                    self.world.lock().violation(what);
                }
            }
        }
    }
}
