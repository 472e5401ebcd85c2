//! A finding that goes on: how long it must be calm until it is over, and what is another one in its midst.

use serde::{Deserialize, Serialize};

use super::{Series, much};
use crate::decision::time::Nanos;
use crate::spike::baseline::{MINUTE, improbable};
use crate::spike::config::Config;
use crate::spike::window::LONGEST;
use crate::spike::{BUCKET, Finding, Kind, SECOND};

/// A finding ends when the last minute was usual for so long: half a minute,
const CALM: u32 = MINUTE as u32 / 2;
/// eight times as long whenever it came again within so long of its end (an hour and a half), up to this (75 min): what comes again
/// and again is one finding.
const AGAIN: u32 = 8;
const SOON: i64 = 5400 * SECOND / BUCKET;
const LONGEST_CALM: u32 = (4500 * SECOND / BUCKET) as u32;
/// In the midst of it so many times as much is another one.
const TIMES: f64 = 3.0;
/// What comes after a calm is looked at after so long: half a minute.
const LOOK: i64 = MINUTE / 2;
/// What goes on is as much as in the last ten minutes, newer ones weigh more.
const FADE: f64 = 0.0023;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Watch {
    pub active: Option<Finding>,
    /// The span that showed it.
    pub span: usize,
    pub calm: u32,
    pub since: i64,
    /// Nothing usual is known: it is over when there is little left of it.
    #[serde(default)]
    pub flood: bool,
    /// It is what comes at this time on other days, and nobody is told.
    #[serde(default)]
    pub known: bool,
    /// How much of it there is in a bucket.
    #[serde(default)]
    level: f64,
    /// How often it came again, and when it was over last.
    #[serde(default)]
    again: u32,
    #[serde(default)]
    over: i64,
    /// When it came back after a calm, and nobody has looked yet who that is.
    #[serde(default)]
    back: Option<i64>,
}

impl Watch {
    /// Whether a calm of so long is its end.
    pub fn is_over(&self) -> bool {
        self.calm >= CALM.saturating_mul(AGAIN.saturating_pow(self.again)).min(LONGEST_CALM)
    }

    /// What goes on, as far as people are told.
    pub fn told(&self) -> Option<&Finding> {
        self.active.as_ref().filter(|_| !self.known)
    }

    pub fn into_told(self) -> Option<Finding> {
        self.active.filter(|_| !self.known)
    }

    /// One that `span` shows, in so many buckets.
    pub fn begins(&mut self, finding: &Finding, span: usize, at: i64) {
        let soon = at - self.over <= SOON;
        let long = ((finding.detected - finding.onset) / BUCKET).max(1);
        *self = Watch {
            active: Some(finding.clone()),
            span,
            since: at,
            level: finding.observed as f64 / long as f64,
            again: if soon { self.again + 1 } else { 0 },
            over: self.over,
            ..Watch::default()
        };
    }

    pub fn ends(&mut self, at: i64) -> Option<Finding> {
        self.over = at;
        self.active.take()
    }

    /// The next bucket has so many of it.
    pub fn goes_on(&mut self, at: i64, usual: bool, count: u32) {
        if usual {
            self.calm += 1;
            return;
        }
        if self.calm > CALM {
            self.back = Some(at);
        }
        self.calm = 0;
        self.level += (f64::from(count) - self.level) * FADE;
    }
}

impl Series {
    /// What is another finding in the midst of one: much more of it, or what came back is of somebody else.
    pub(super) fn another(&mut self, signal: usize, at: i64, config: &Config) -> Option<Finding> {
        let watch = &self.spikes[signal];
        let old = watch.active.as_ref()?;
        let floor = config.floor_of(signal);
        if let Some(back) = watch.back.filter(|back| at - back >= LOOK) {
            let long = usize::try_from(at + 1 - back + LOOK / 2).unwrap_or(LONGEST).min(LONGEST);
            let usual = self.learner.most(signal, at, long, self.window.span(long).good as f64);
            let new = self.in_the_midst(signal, at, long, usual);
            let (seen, all) = (new.observed as f64, new.decisions as f64);
            let enough = new.excess() >= floor && much(long, seen, usual, all);
            if !enough && at - back < 5 * MINUTE {
                return None;
            }
            let of = |finding: &Finding| finding.causes.first().map(|c| c.value.clone());
            let (was, is) = (of(old), of(&new));
            let other = enough && was.is_some() && is.is_some() && was != is;
            self.spikes[signal].back = None;
            return other.then_some(new);
        }
        let minute = MINUTE as usize;
        let (seen, level) = (self.window.span(minute).bad[signal] as f64, watch.level);
        let most = TIMES * level * minute as f64;
        let dispersion = self.learner.scatter_of(signal, 3);
        let more = at - watch.since >= MINUTE
            && level > 0.0
            && seen - most >= 2.0 * floor
            && improbable(seen, most, dispersion) >= config.certainty;
        if !more {
            return None;
        }
        let now = seen / minute as f64;
        let long = self.changed(signal, at, 1.5 * level, now.max(2.0 * level));
        Some(self.in_the_midst(signal, at, long, level * long as f64))
    }

    pub(super) fn in_the_midst(
        &self,
        signal: usize,
        at: i64,
        long: usize,
        expected: f64,
    ) -> Finding {
        let kind = if signal == 0 { Kind::DenialSpike } else { Kind::FailureSpike };
        let sum = self.window.span(long);
        let mut finding = Finding::new(kind, &self.service, &self.policy);
        finding.begin(at + 1 - long as i64, at);
        (finding.observed, finding.expected, finding.decisions) =
            (sum.bad[signal], expected, sum.all);
        finding.score =
            improbable(finding.observed as f64, expected, self.learner.scatter_of(signal, 3));
        self.explained(signal, &mut finding);
        finding
    }

    /// Names causes and examples, and the first that is of it.
    pub(super) fn explained(&self, signal: usize, finding: &mut Finding) {
        (finding.causes, finding.examples) =
            self.memory.causes(signal, finding.onset, finding.observed, finding.expected, &[]);
        if self.memory.remembers(signal, finding.onset) {
            // Of what else was denied in that bucket nothing departs.
            let cause = finding.causes.first().filter(|c| c.share >= 0.5);
            let first: Option<Nanos> = self.memory.first(signal, finding.onset, cause);
            finding.onset = first.unwrap_or(finding.onset).min(finding.detected);
        }
    }
}
