//! A service: its load, and the OPAs that carry it. Replicas come and go; what counts is whether the service's decisions
//! go on. An OPA is missed when the load fell by its part as it went, and no other took it.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::baseline::improbable;
use super::config::Config;
use super::heartbeat::{Fading, Heartbeat, ONE};
use super::series::Series;
use super::window::{FIVE_MINUTES, LONGEST};
use super::{BUCKET, Cause, Change, Dimension, Finding, Kind, SECOND};
use crate::decision::time::Nanos;

/// OPAs of a service that are known; of more each one carries too little to be missed.
const OPAS: usize = 64;
/// An OPA that was quiet for so long is gone: 1 h.
const GONE: u32 = (3600 * SECOND / BUCKET) as u32;
const MINUTE: usize = super::baseline::MINUTE as usize;
/// What a load was in half an hour.
const PAST: usize = 6 * FIVE_MINUTES;
/// A load falls by so much within minutes without anybody being missing.
const DRIFT: f64 = 0.03;

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
    missing: Option<Missing>,
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
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Missing {
    finding: Finding,
    since: i64,
    /// The load a bucket that says that others have taken it.
    enough: f64,
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
            missing: None,
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
        self.heart.active.iter().chain(self.missing.as_ref().map(|m| &m.finding))
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
            let gone = self.heart.active.take().into_iter();
            for mut finding in gone.chain(self.missing.take().map(|m| m.finding)) {
                finding.ended = Some(self.next * BUCKET);
                changes.push(Change::Ends(finding));
            }
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
        if self.loads.len() == PAST.max(LONGEST) + FIVE_MINUTES {
            self.loads.pop_front();
        }
        self.loads.push_back(load);
        self.up = if hole > 0 || self.heart.is_silent() { 0 } else { self.up.saturating_add(1) };
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
        if self.missing.is_some() {
            changes.extend(self.found_again(at));
        } else if load > 0 && self.heart.active.is_none() {
            let usual = || its().filter_map(|s| s.fewest(at)).reduce(|a, b| a + b);
            changes.extend(self.miss(at, config, usual));
        }
    }

    /// Whether the load is back, or who was missed; or nobody waits any more.
    fn found_again(&mut self, at: i64) -> Option<Change> {
        let missing = self.missing.as_ref()?;
        let back = missing
            .finding
            .causes
            .iter()
            .all(|c| self.opas.get(&c.value).is_some_and(|o| o.back >= 3 && o.gap < 3));
        let now = self.load(0, MINUTE) / MINUTE as f64;
        if back || now >= missing.enough || at - missing.since > i64::from(GONE) {
            let mut finding = self.missing.take()?.finding;
            finding.ended = Some((at + 1) * BUCKET);
            return Some(Change::Ends(finding));
        }
        None
    }

    /// Decisions in so many buckets, so far back.
    fn load(&self, back: usize, buckets: usize) -> f64 {
        self.loads.iter().rev().skip(back).take(buckets).map(|n| f64::from(*n)).sum()
    }

    /// The second least load of five minutes in the half hour before: the least may be chance.
    fn little(&self, back: usize) -> Option<f64> {
        let spans = (0..PAST / FIVE_MINUTES).map(|i| back + i * FIVE_MINUTES);
        let full = spans.filter(|back| back + FIVE_MINUTES <= self.loads.len());
        let mut loads: Vec<f64> = full.map(|back| self.load(back, FIVE_MINUTES)).collect();
        loads.sort_by(f64::total_cmp);
        loads.get(1).copied()
    }

    /// Whether OPAs went quiet and the service's load fell by their part. `usual`: the least load a bucket at this time of other days.
    fn miss(
        &mut self,
        at: i64,
        config: &Config,
        usual: impl FnOnce() -> Option<f64>,
    ) -> Option<Change> {
        let least = (ONE / BUCKET) as u32;
        let quiet: Vec<(&String, &Opa)> = self
            .opas
            .iter()
            .filter(|(_, o)| {
                (least..=FIVE_MINUTES as u32).contains(&o.gap)
                    && i64::from(o.heard) * BUCKET >= config.learn
                    // That it sent nothing is no chance.
                    && o.share * self.load(0, o.gap as usize) >= config.certainty * 0.7
            })
            .collect();
        let share: f64 = quiet.iter().map(|(_, o)| o.share).sum();
        let gap = quiet.iter().map(|(_, o)| o.gap).max()? as usize;
        if share < 2.5 * DRIFT {
            return None;
        }
        // While all of the service was quiet none of its OPAs was missed: all may have been replaced. The load of a whole
        // minute after it says whether they were.
        let hole = (self.up as usize) < gap;
        if hole && (self.up as usize) < MINUTE {
            return None;
        }
        let look = if hole { MINUTE } else { gap };
        let seen = self.load(0, look);
        // What it was before, in the last minute and in the last five: less of both, and somewhat less for chance.
        let dispersion = self.heart.scatter();
        let of = |n: f64, span: usize| {
            let part = look as f64 / span as f64;
            (n * part, (n - 2.0 * (n * dispersion).sqrt()).max(0.0) * part)
        };
        let before = |span: usize| {
            let span = span.max(gap);
            (self.loads.len() >= gap + span).then(|| of(self.load(gap, span), span))
        };
        let ((long, surely_long), (short, surely_short)) = (before(FIVE_MINUTES)?, before(MINUTE)?);
        // A job that is over, which one of them had all of, is nobody's loss: the load is what it was before the job.
        let (little, surely_little) =
            self.little(gap).map_or((f64::INFINITY, f64::INFINITY), |n| of(n, FIVE_MINUTES));
        // At noon, day after day, there is less to do, and fewer do it.
        let at_noon = usual().map_or(f64::INFINITY, |usual| usual * look as f64);
        let expected = long.min(short).min(little).min(at_noon);
        let surely = surely_long.min(surely_short).min(surely_little).min(at_noon);
        let score = improbable(seen, surely, dispersion);
        let fell = seen < surely && seen <= expected * (1.0 - 0.6 * share - DRIFT);
        if !fell || score < config.certainty * 0.7 {
            return None;
        }
        let mut finding = Finding::new(Kind::InstanceQuiet, &self.name, "");
        let mut causes: Vec<Cause> = quiet
            .iter()
            .map(|(name, o)| Cause {
                share: o.share / share,
                before: o.share,
                ..Cause::whole(Dimension::Instance, name)
            })
            .collect();
        causes.sort_by(|a, b| b.share.total_cmp(&a.share).then_with(|| a.value.cmp(&b.value)));
        causes.truncate(6);
        finding.causes = causes;
        finding.begin(at + 1 - gap as i64, at);
        (finding.expected, finding.score) = (expected - seen, score);
        let enough = expected / look as f64 * (1.0 - 0.3 * share);
        self.missing = Some(Missing { finding: finding.clone(), since: at, enough });
        Some(Change::Begins(finding))
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
            self.gap = 0;
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
mod tests {
    use super::*;

    /// Decisions a bucket of two OPAs, for so many buckets each; who is said to be missing, and at which bucket.
    fn missed(phases: &[(i64, [u32; 2])]) -> Vec<(i64, Kind)> {
        let (mut service, mut said, mut at) = (Service::new("shop", 0), Vec::new(), 0);
        for (buckets, [a, b]) in phases {
            for _ in 0..*buckets {
                (0..*a).for_each(|_| service.observe("a", at));
                (0..*b).for_each(|_| service.observe("b", at));
                let mut changes = Vec::new();
                let none = || std::iter::empty::<&Series>();
                service.close(&Config::default(), none, (false, 0), &mut changes);
                at += 1;
                said.extend(changes.into_iter().filter_map(|change| match change {
                    Change::Begins(finding) => Some((at, finding.kind)),
                    _ => None,
                }));
            }
        }
        said
    }

    #[test]
    fn an_opa_that_stops_is_missed() {
        let said = missed(&[(1800, [3, 3]), (150, [3, 0])]);
        assert!(matches!(said[..], [(1801..1860, Kind::InstanceQuiet)]), "{said:?}");
    }

    #[test]
    fn the_end_of_a_job_that_one_opa_had_is_nobodys_loss() {
        for minutes in [2, 5, 10, 15] {
            let mut phases = vec![(1, [3, 1]), (1800, [3, 0]), (30 * minutes, [3, 20])];
            phases.extend([(300, [3, 0]), (1, [3, 1]), (300, [3, 0])]);
            assert_eq!(missed(&phases), [], "{minutes} min");
        }
    }
}
