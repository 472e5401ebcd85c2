//! A service: its load, and the OPAs that carry it. Replicas come and go; what counts is whether the service's decisions
//! go on. An OPA is missed when the load fell by its part as it went, and no other took it.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::baseline::bucket;
use super::config::Config;
use super::heartbeat::{Fading, Heartbeat, ONE};
use super::series::Series;
use super::window::FIVE_MINUTES;
use super::{BUCKET, Cause, Change, Finding, Kind, SECOND};
use crate::decision::time::Nanos;

mod lost;

/// OPAs of a service that are known; of more each one carries too little to be missed.
const OPAS: usize = 64;
/// An OPA that was quiet for so long is gone: 1 h.
const GONE: u32 = (3600 * SECOND / BUCKET) as u32;
const MINUTE: usize = super::baseline::MINUTE as usize;
/// What a load was in half an hour.
const PAST: usize = 6 * FIVE_MINUTES;
/// What is missed for so long is how things are: 12 h.
const LASTS: i64 = 43_200 * SECOND / BUCKET;
/// Decisions that were due when a service is out.
const OUT: f64 = 20.0;
/// Decisions that show that a load is back, over the square of the part that was missed: more, the more is left without it.
const RETURNS: f64 = 51.0;
/// Why nobody is missed any more.
const BACK: &str = "over: decisions come again";
const REPLACED: &str = "over: the service's load is back, but not what carried it";
const GIVEN_UP: &str = "taken for gone after 12 h: neither decisions nor the load came back";
const UNWATCHED: &str = "nobody watched for a while: whether it is over is not known";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Service {
    pub name: String,
    /// The first bucket that is not closed.
    pub next: i64,
    heart: Heartbeat,
    mean: Fading,
    /// Closed buckets, the latest last.
    loads: VecDeque<u32>,
    opas: BTreeMap<String, Opa>,
    /// Buckets since it was quiet as a whole.
    #[serde(default)]
    up: u32,
    /// There is no room for more of them, as of this bucket.
    #[serde(skip)]
    crowded: bool,
    #[serde(default)]
    missed: Vec<Missing>,
    #[serde(skip)]
    pub late: Late,
}

/// Which part of what comes is too late to count, lately: in a time that has many uploads, since the last of what one holds is always fresh.
#[derive(Debug, Clone, Copy, Default)]
pub struct Late {
    late: f64,
    seen: f64,
    at: Nanos,
}

/// What came so long ago counts a third.
const LATELY: f64 = 1800.0;

impl Late {
    pub fn came(&mut self, late: bool, written: Nanos) {
        if written - self.at > SECOND {
            let fades = (-((written - self.at) as f64 / SECOND as f64) / LATELY).exp();
            (self.late, self.seen) = (self.late * fades, self.seen * fades);
            self.at = written;
        }
        self.seen += 1.0;
        self.late += f64::from(u8::from(late));
    }

    pub fn is_more_than(&self, part: f64) -> bool {
        self.seen >= 20.0 && self.late > part * self.seen
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Opa {
    #[serde(skip)]
    open: VecDeque<u32>,
    mean: Fading,
    /// Its part of the service's decisions, while it sent some.
    share: f64,
    /// Buckets since it was first seen, and those without any decision until now.
    heard: u32,
    gap: u32,
    /// Buckets with decisions since it was missed.
    back: u32,
    #[serde(default)]
    fate: Fate,
}

/// What became of the load of an OPA that sends nothing; it is asked no more once that is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Fate {
    #[default]
    Open,
    Replaced,
    Missed,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Missing {
    finding: Finding,
    since: i64,
    /// The load a bucket that says that others have taken it, if it is so for so many buckets.
    enough: f64,
    span: usize,
}

impl Service {
    pub fn new(name: &str, next: i64) -> Service {
        Service {
            name: name.into(),
            next,
            heart: Heartbeat::default(),
            mean: Fading::default(),
            loads: VecDeque::new(),
            opas: BTreeMap::new(),
            up: 0,
            crowded: false,
            missed: Vec::new(),
            late: Late::default(),
        }
    }

    pub fn observe(&mut self, opa: &str, at: i64) {
        let Ok(index) = usize::try_from(at - self.next) else { return };
        self.heart.note(index);
        if opa.is_empty() {
            return;
        }
        if let Some(known) = self.opas.get_mut(opa) {
            known.note(index);
        } else if !self.crowded && self.make_room() {
            self.opas.entry(opa.to_owned()).or_default().note(index);
        }
    }

    /// Who was quiet for longest goes, where there are too many.
    fn make_room(&mut self) -> bool {
        if self.opas.len() < OPAS {
            return true;
        }
        let longest = self.opas.iter().max_by_key(|(_, o)| o.gap).filter(|(_, o)| o.gap > 0);
        let longest = longest.map(|(name, _)| name.clone());
        self.crowded = longest.is_none();
        longest.is_some_and(|name| self.opas.remove(&name).is_some())
    }

    pub fn excuse(&mut self, opa: &str) {
        self.heart.excuse();
        if let Some(opa) = self.opas.get_mut(opa) {
            opa.gap = 0;
        }
    }

    /// Nobody of it is missed for what was not heard until now.
    pub fn excuse_all(&mut self) {
        self.heart.excuse();
        self.opas.values_mut().for_each(|opa| opa.gap = 0);
    }

    /// So many decisions were of a finding.
    pub fn discount(&mut self, count: f64) {
        self.heart.discount(count);
    }

    /// Whether an OPA has been with it for as long as is learned.
    pub fn knows(&self, opa: &str, config: &Config) -> bool {
        self.opas.get(opa).is_some_and(|o| i64::from(o.heard) * BUCKET >= config.learn)
    }

    pub fn gap(&self) -> u32 {
        self.heart.gap
    }

    /// How many of the latest buckets are a silence that is no chance.
    pub fn hole(&self) -> u32 {
        self.heart.silent_buckets()
    }

    pub fn is_silent(&self) -> bool {
        self.heart.active.is_some()
    }

    pub fn active(&self) -> impl Iterator<Item = &Finding> {
        self.heart.active.iter().chain(self.missed.iter().map(|m| &m.finding))
    }

    /// Nobody watched from the first open bucket to `to`.
    pub fn skip(&mut self, to: i64, changes: &mut Vec<Change>) {
        let Ok(buckets) = usize::try_from(to - self.next) else { return };
        self.heart.skip(buckets);
        self.loads.clear();
        for opa in self.opas.values_mut() {
            opa.open.drain(..buckets.min(opa.open.len()));
            opa.gap = 0;
        }
        if buckets > FIVE_MINUTES {
            self.opas.clear();
            if let Some(mut finding) = self.heart.active.take() {
                finding.ended = Some(self.next * BUCKET);
                changes.push(Change::Ends(finding));
            }
            let missed = std::mem::take(&mut self.missed).into_iter();
            changes.extend(missed.map(|missing| missing.ends(self.next, UNWATCHED)));
        }
        self.next = to;
    }

    /// The next bucket is complete. `its`: the service's policies; `hushed`: all of the stream is quiet, which is not
    /// said of each service; `hole`: in so many of the latest buckets, and that is no chance.
    pub fn close<'s, P: Iterator<Item = &'s Series>>(
        &mut self,
        config: &Config,
        its: impl Fn() -> P,
        (hushed, hole): (bool, u32),
        changes: &mut Vec<Change>,
    ) {
        let at = self.next;
        self.next += 1;
        self.crowded = false;
        let load = self.heart.close_beside(its().map(|s| s.excess).sum());
        self.heart.hold(hole);
        self.mean.add(f64::from(load));
        if self.loads.len() == PAST + lost::OLDEST {
            self.loads.pop_front();
        }
        self.loads.push_back(load);
        // A pause that is no chance, even where half of the load is gone.
        let dark = self.loads.iter().rev().take_while(|load| **load == 0).count() as f64;
        let out = dark * self.heart.rate() >= OUT * self.heart.scatter();
        self.up = if out { 0 } else { self.up.saturating_add(1) };
        let mean = self.mean.get().max(1e-9);
        self.opas.retain(|_, opa| opa.close(mean));
        if !hushed || self.heart.active.is_some() {
            let usual = || its().filter_map(|s| s.fewest(at)).reduce(|a, b| a + b);
            changes.extend(self.heart.judge(at, config, usual, ONE, || {
                let mut its = its();
                let policy = match (its.next(), its.next()) {
                    (Some(one), None) => one.policy.as_str(),
                    _ => "",
                };
                Finding::new(Kind::PolicyQuiet, &self.name, policy)
            }));
        }
        for missing in std::mem::take(&mut self.missed) {
            match self.found_again(at, &missing) {
                Some(why) => changes.push(missing.ends(at + 1, why)),
                None => self.missed.push(missing),
            }
        }
        if load > 0 && self.heart.active.is_none() {
            let usual = || its().filter_map(|s| s.fewest(at)).reduce(|a, b| a + b);
            if let Some(missing) = self.miss(at, config, usual) {
                changes.push(Change::Begins(missing.finding.clone()));
                self.missed.push(missing);
            }
        }
    }

    /// Why nobody is missed any more: who went is back, or the load is, or both have been gone for so long that this is how things are.
    fn found_again(&self, at: i64, missing: &Missing) -> Option<&'static str> {
        let is_back = |c: &Cause| self.opas.get(&c.value).is_some_and(|o| o.back >= 3 && o.gap < 3);
        if missing.finding.causes.iter().all(is_back) {
            return Some(BACK);
        }
        let span = missing.span.max(MINUTE);
        let gone = (at + 1 - bucket(missing.finding.onset)) as usize;
        if gone >= span && self.load(0, span) / span as f64 >= missing.enough {
            return Some(REPLACED);
        }
        (at - missing.since > LASTS).then_some(GIVEN_UP)
    }

    /// Decisions in so many buckets, so far back.
    fn load(&self, back: usize, buckets: usize) -> f64 {
        let to = self.loads.len().saturating_sub(back);
        let loads = self.loads.range(to.saturating_sub(buckets)..to);
        loads.map(|n| f64::from(*n)).sum()
    }
}

impl Missing {
    /// `usual`: the load a bucket with them, of which they had this part.
    fn new(finding: Finding, at: i64, usual: f64, share: f64, scatter: f64) -> Missing {
        // Five standard deviations from what is left without them: it is looked at again and again.
        let shows = RETURNS * (1.0 - share) * scatter / (share * share) / usual.max(1e-9);
        let span = (shows as usize).clamp(MINUTE, PAST);
        Missing { finding, since: at, enough: usual * (1.0 - 0.3 * share), span }
    }

    /// It is over, and why.
    fn ends(mut self, at: i64, why: &str) -> Change {
        self.finding.ended = Some(at * BUCKET);
        self.finding.detail = why.into();
        Change::Ends(self.finding)
    }
}

impl Opa {
    fn note(&mut self, index: usize) {
        while self.open.len() <= index {
            self.open.push_back(0);
        }
        self.open[index] += 1;
    }

    /// Whether it is not gone for good.
    fn close(&mut self, mean: f64) -> bool {
        let count = self.open.pop_front().unwrap_or(0);
        self.heard = self.heard.saturating_add(1);
        if count > 0 {
            for _ in 0..self.gap.min(FIVE_MINUTES as u32) {
                self.mean.add(0.0);
            }
            self.mean.add(f64::from(count));
            self.back = if self.gap as usize > MINUTE { 1 } else { self.back.saturating_add(1) };
            (self.gap, self.fate) = (0, Fate::Open);
            self.share = (self.mean.get() / mean).min(1.0);
        } else {
            self.gap += 1;
            if self.gap as usize > MINUTE {
                self.back = 0;
            }
        }
        self.gap <= GONE
    }
}

#[cfg(test)]
mod tests;
