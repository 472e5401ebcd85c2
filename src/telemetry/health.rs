//! How each part of each pipeline is doing: whether this process can take what a Service sends it (`/readyz`), and what
//! is wrong otherwise (`/status`, `docket_part_up`).
//!
//! A worker is ready once it has joined its group: nobody sends it anything, and what fails later waits in Kafka. Who
//! takes requests is ready while it can answer them. A sink that is away makes nobody unready.
//!
//! A part that is well says so again and again. One that falls silent hangs, whatever it hangs in; if that lasts, the process says that it is to be restarted
//! (`/healthz`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts, Registry};

use crate::clock;
use crate::decision::time::Nanos;

/// What a part is to readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It is ready once it was well.
    Worker,
    /// It takes requests, and is ready while it is well.
    Server,
    /// It says what is wrong, and is nothing to readiness.
    Note,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    pub role: Role,
    pub state: Result<(), String>,
    /// Since when it is well, or is not.
    pub since: Nanos,
    /// It was well once.
    joined: bool,
    /// When it said so last.
    heard: Instant,
}

/// Loops come round every second or so; nothing that is waited for there takes so long while all is well.
const SILENT: Duration = Duration::from_secs(90);
/// What is silent for so long does not come back by itself: it is as dead as the process that it is in.
const DEAD: Duration = Duration::from_secs(300);

impl Condition {
    pub fn is_ready(&self) -> bool {
        match self.role {
            Role::Worker => self.joined,
            Role::Server => self.state.is_ok(),
            Role::Note => true,
        }
    }

    /// Whether it is noted of something that had gone wrong before it: what comes of that.
    pub fn follows(&self, other: &Condition) -> bool {
        self.role == Role::Note && other.since <= self.since
    }

    /// For how long it says nothing, though it was well; nothing if it may.
    fn silent(&self, now: Instant) -> Option<Duration> {
        let silent = now.saturating_duration_since(self.heard);
        let speaks = self.role != Role::Note && self.state.is_ok();
        (speaks && silent > SILENT).then_some(silent)
    }

    /// As it is now: what was well and has fallen silent is not.
    fn seen(&self, now: Instant) -> Condition {
        let mut seen = self.clone();
        if let Some(silent) = self.silent(now) {
            seen.since = clock::now() - i64::try_from(silent.as_nanos()).unwrap_or(i64::MAX);
            seen.state = Err(format!(
                "it hangs: its loop has not come round for {} s; if that goes on, restart this process",
                silent.as_secs()
            ));
        }
        seen
    }
}

type Parts = Mutex<BTreeMap<String, Condition>>;

fn seen(parts: &Parts, now: Instant) -> BTreeMap<String, Condition> {
    let parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
    parts.iter().map(|(name, condition)| (name.clone(), condition.seen(now))).collect()
}

/// `docket_part_up`, as it is when it is asked for: who hangs sets nothing.
struct Up {
    parts: Arc<Parts>,
    /// What it is called.
    empty: IntGaugeVec,
}

fn gauge() -> Result<IntGaugeVec, prometheus::Error> {
    let opts = Opts::new(
        "docket_part_up",
        "1 for each part that runs in this process and is well, 0 while it starts, fails or hangs; kafka is the connection to Kafka.",
    );
    IntGaugeVec::new(opts, &["pipeline", "part"])
}

impl Collector for Up {
    fn desc(&self) -> Vec<&Desc> {
        self.empty.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(gauge) = gauge() else { return Vec::new() };
        for (part, condition) in seen(&self.parts, Instant::now()) {
            if condition.role != Role::Note
                && let Some((pipeline, name)) = part.split_once('/')
            {
                let up = i64::from(condition.state.is_ok());
                gauge.with_label_values(&[pipeline, name]).set(up);
            }
        }
        gauge.collect()
    }
}

/// Of all parts, by the pipeline's name, a slash and the part's.
#[derive(Default)]
pub struct Health {
    parts: Arc<Parts>,
}

impl Health {
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(Up { parts: self.parts.clone(), empty: gauge()? }))
    }

    /// How a part is doing that works for nobody in particular.
    pub fn set(&self, part: &str, state: Result<(), String>) {
        self.put(part, None, state);
    }

    /// How a part is doing that takes requests.
    pub fn serve(&self, part: &str, state: Result<(), String>) {
        self.put(part, Some(Role::Server), state);
    }

    /// What is wrong with something that a part needs, or that this is over.
    pub fn note(&self, what: &str, state: Result<(), String>) {
        self.put(what, Some(Role::Note), state);
    }

    fn put(&self, part: &str, role: Option<Role>, state: Result<(), String>) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = Instant::now();
        let new = || Condition {
            role: Role::Worker,
            state: Ok(()),
            since: clock::now(),
            joined: false,
            heard,
        };
        let known = parts.contains_key(part);
        let condition = parts.entry(part.to_owned()).or_insert_with(new);
        if known && condition.state.is_ok() != state.is_ok() {
            condition.since = clock::now();
        }
        condition.role = role.unwrap_or(condition.role);
        condition.joined |= state.is_ok();
        condition.heard = heard;
        condition.state = state;
    }

    /// What is noted to be wrong.
    pub fn noted(&self, what: &str) -> Option<String> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.get(what)?.state.clone().err()
    }

    /// The part is no more, nor what was noted of it.
    pub fn remove(&self, part: &str) {
        let of_it = |name: &str| {
            name.strip_prefix(part).is_some_and(|n| n.is_empty() || n.starts_with(' '))
        };
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| !of_it(name));
    }

    /// Each part that is not ready, and why.
    pub fn not_ready(&self) -> Vec<(String, String)> {
        let why = |of: &Condition| of.state.clone().err().unwrap_or_default();
        let all = self.all().into_iter().filter(|(_, of)| !of.is_ready());
        all.map(|(part, of)| (part, why(&of))).collect()
    }

    pub fn all(&self) -> BTreeMap<String, Condition> {
        seen(&self.parts, Instant::now())
    }

    /// Each part of a pipeline that has fallen silent, and for how long.
    pub fn hanging(&self, pipeline: &str) -> Vec<(String, Duration)> {
        self.hanging_at(pipeline, Instant::now())
    }

    /// Each part that has been silent for so long that only a restart helps.
    pub fn dead(&self) -> Vec<(String, String)> {
        self.dead_at(Instant::now())
    }

    fn dead_at(&self, now: Instant) -> Vec<(String, String)> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let dead = |of: &Condition| of.silent(now).is_some_and(|silent| silent > DEAD);
        let dead = parts.iter().filter(|(_, of)| dead(of));
        dead.filter_map(|(part, of)| Some((part.clone(), of.seen(now).state.err()?))).collect()
    }

    fn hanging_at(&self, pipeline: &str, now: Instant) -> Vec<(String, Duration)> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = parts.iter().filter_map(|(name, condition)| {
            let part = name.strip_prefix(pipeline)?.strip_prefix('/')?;
            Some((part.to_owned(), condition.silent(now)?))
        });
        of_it.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_ready_once_joined_and_servers_while_they_are_well() {
        let health = Health::default();
        let wrong = || Err("Kafka: refused".to_owned());
        assert_eq!(health.not_ready(), []);
        health.set("p/kafka", wrong());
        assert_eq!(health.not_ready(), [("p/kafka".to_owned(), "Kafka: refused".to_owned())]);
        health.set("p/kafka", Ok(()));
        health.set("p/loki", Err("starting".into()));
        health.set("p/door", Err("starting".into()));
        assert_eq!(health.not_ready().len(), 2);
        health.set("p/loki", Ok(()));
        health.serve("p/door", Ok(()));
        assert_eq!(health.not_ready(), []);

        health.note("p/loki requests", Err("connection refused".into()));
        health.set("p/loki", wrong());
        assert_eq!(health.not_ready(), [], "a sink that is away makes nobody unready");
        health.set("p/door", wrong());
        assert_eq!(health.not_ready().len(), 1, "the door takes requests, whoever says how it is");
        health.serve("p/door", Ok(()));
        assert_eq!(health.not_ready(), []);
    }

    #[test]
    fn since_when_and_the_gauge_follow_the_state() {
        let (health, registry) = (Health::default(), Registry::new());
        health.register(&registry).unwrap();
        health.set("p/loki", Err("one".into()));
        let began = health.all()["p/loki"].since;
        health.set("p/loki", Err("another".into()));
        assert_eq!(health.all()["p/loki"].since, began, "it is not well since then");
        let up = || registry.gather()[0].get_metric()[0].get_gauge().get_value();
        assert_eq!(up(), 0.0);
        std::thread::sleep(std::time::Duration::from_millis(2));
        health.set("p/loki", Ok(()));
        assert!(health.all()["p/loki"].since > began && up() == 1.0);
        health.note("p/loki requests", Err("away".into()));
        assert_eq!(registry.gather()[0].get_metric().len(), 1, "a note is no part");
        health.remove("p/loki");
        assert!(health.all().is_empty());
        assert!(registry.gather().is_empty());
    }

    #[test]
    fn who_was_well_and_falls_silent_hangs() {
        let health = Health::default();
        health.set("p/loki", Ok(()));
        health.set("p/search", Err("starting".into()));
        health.serve("p/door", Ok(()));
        health.note("p/loki requests", Ok(()));
        health.set("other/loki", Ok(()));
        let at = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert_eq!(health.hanging_at("p", at(80)), []);
        let hanging: Vec<String> =
            health.hanging_at("p", at(120)).into_iter().map(|(part, _)| part).collect();
        assert_eq!(hanging, ["door", "loki"]);
        let later = seen(&health.parts, at(120));
        let why = later["p/loki"].state.clone().unwrap_err();
        assert!(why.starts_with("it hangs: its loop has not come round for 1"), "{why}");
        assert!(later["p/loki"].is_ready(), "it has joined");
        assert!(!later["p/door"].is_ready(), "nobody is to be sent there");
        assert_eq!(later["p/search"].state, Err("starting".into()));
        assert_eq!(later["p/loki requests"].state, Ok(()));
        assert_eq!(health.dead_at(at(290)), []);
        let dead: Vec<String> = health.dead_at(at(310)).into_iter().map(|(part, _)| part).collect();
        assert_eq!(dead, ["other/loki", "p/door", "p/loki"]);
        // It comes round again.
        health.set("p/loki", Ok(()));
        assert_eq!(health.all()["p/loki"].state, Ok(()));
    }
}
