//! Whether something still beats: a policy, an OPA, the stream as a whole.

use std::collections::VecDeque;

use super::baseline::{Dispersion, MINUTE};
use super::config::Config;
use super::{BUCKET, Change, Finding, SECOND};
use crate::decision::time::Nanos;

/// A gap is at least so long: of an OPA or a policy, and of all of them, which may be docket's own intake that moves to
/// another process.
pub const ONE: Nanos = 10 * SECOND;
pub const STREAM: Nanos = 90 * SECOND;

/// A mean a bucket that fades with a half-life of ten minutes.
#[derive(Default, Clone, Copy)]
pub struct Fading {
    count: f64,
    buckets: f64,
}

impl Fading {
    const FADE: f64 = 0.997_69;

    pub fn add(&mut self, count: f64) {
        self.count = self.count * Fading::FADE + count;
        self.buckets = self.buckets * Fading::FADE + 1.0;
    }

    pub fn get(&self) -> f64 {
        self.count / self.buckets.max(1.0)
    }
}

/// Whether something still beats.
pub struct Heartbeat {
    /// Decisions of the buckets that are not closed.
    open: VecDeque<u32>,
    pub born: i64,
    pub mean: Fading,
    /// Of an OPA: its part of its service's decisions, while it sent some.
    pub share: f64,
    dispersion: Dispersion,
    /// Buckets without a decision until now, what they should have brought, and how improbable that is; and the longest
    /// gap that there was before.
    pub gap: u32,
    due: f64,
    doubt: f64,
    longest: f64,
    /// Buckets with decisions since it went quiet: one alone does not mean that it is back.
    back: u32,
    pub active: Option<Finding>,
}

impl Heartbeat {
    pub fn new(born: i64) -> Heartbeat {
        Heartbeat {
            open: VecDeque::new(),
            born,
            mean: Fading::default(),
            share: 0.0,
            dispersion: Dispersion::default(),
            gap: 0,
            due: 0.0,
            doubt: 0.0,
            longest: 0.0,
            back: 0,
            active: None,
        }
    }

    pub fn note(&mut self, at: i64, next: i64) {
        let index = usize::try_from(at - next).unwrap_or(0);
        while self.open.len() <= index {
            self.open.push_back(0);
        }
        self.open[index] += 1;
    }

    /// Learns a bucket; whether there was anything in it.
    pub fn close(&mut self, at: i64, due: Option<(f64, f64)>) -> bool {
        let count = self.open.pop_front().unwrap_or(0);
        self.beat(at, count, due)
    }

    /// `due`: what it should have been, and how improbable nothing instead is; by the rate unless that is known better.
    pub fn beat(&mut self, at: i64, count: u32, due: Option<(f64, f64)>) -> bool {
        if self.born == 0 && count > 0 {
            self.born = at;
        }
        let (due, doubt) = due.unwrap_or((self.mean.get(), self.mean.get()));
        if count == 0 {
            self.gap += 1;
            if i64::from(self.gap) > MINUTE {
                self.back = 0;
            }
            self.due += due;
            self.doubt += doubt;
            return false;
        }
        if self.mean.buckets > 30.0 {
            self.dispersion.learn(f64::from(count), due);
            // What was quiet and is back was a gap like others to come; less so if it was a finding.
            let gap =
                if self.active.is_some() { f64::from(self.gap) / 4.0 } else { f64::from(self.gap) };
            self.longest = self.longest.max(gap) * 0.99996;
        }
        // A gap that is no finding is a part of the rate.
        let quiet = if self.active.is_some() { 0 } else { self.gap };
        for _ in 0..quiet.min(1800) {
            self.mean.add(0.0);
        }
        self.mean.add(f64::from(count));
        (self.gap, self.due, self.doubt) = (0, 0.0, 0.0);
        self.back += 1;
        true
    }

    pub fn judge(
        &mut self,
        at: i64,
        config: &Config,
        usual: Option<f64>,
        least: Nanos,
        finding: impl FnOnce() -> Finding,
    ) -> Option<Change> {
        if let Some(active) = &mut self.active {
            if self.back < 3 {
                return None;
            }
            active.ended = Some(at * BUCKET);
            return self.active.take().map(Change::Ends);
        }
        let gap = f64::from(self.gap);
        let (mut due, mut doubt) = (self.due, self.doubt);
        if let Some(usual) = usual {
            (due, doubt) = (due.min(usual * gap), doubt.min(usual * gap));
        }
        let score = doubt / self.dispersion.get();
        let old = (at - self.born) * BUCKET > config.learn;
        // A gap is one event, not a scan of many counts: less is as sure.
        if old
            && gap * BUCKET as f64 >= least as f64
            && gap > 2.0 * self.longest
            && score >= config.certainty * 0.7
        {
            let mut new = finding();
            new.begin(at + 1 - i64::from(self.gap), at);
            (new.expected, new.score) = (due, score);
            self.active = Some(new.clone());
            self.back = 0;
            return Some(Change::Begins(new));
        }
        None
    }
}
