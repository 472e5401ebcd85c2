//! What a policy of a service has taught: puts the baselines to work on its window.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::baseline::{Counts, Days, Dispersion, Level, MINUTE, SIGNALS};
use super::config::{Config, HOUR};
use super::window::{DELAY, FIVE_MINUTES, LONGEST, SPANS, Window};
use super::{BUCKET, SECOND};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Learner {
    /// The first bucket that is not learned yet.
    learned_to: i64,
    pub level: Level,
    /// For the longest span: what grows slowly is not learned at once.
    slow: Level,
    /// What is not learned of that yet, and how many blocks of five minutes there were.
    #[serde(default)]
    ahead: Ahead,
    pub days: Days,
    pub dispersion: [[Dispersion; SPANS.len()]; SIGNALS],
    /// Buckets that are not learned, since a finding covers them: from, and to.
    flagged: [(i64, i64); SIGNALS],
    /// Learned buckets that held decisions.
    #[serde(default)]
    busy: u32,
}

/// What counts as how things were is some hours old: what creeps would be learned on its way otherwise. It grows older with what
/// is known.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Ahead {
    /// Of five minutes each, the last one incomplete, which holds so many buckets.
    blocks: VecDeque<Level>,
    filled: usize,
    known: usize,
}

const BLOCK: usize = FIVE_MINUTES;
/// So many blocks are ahead at most (three hours), and none before so many are known (an hour).
const AHEAD: usize = 36;
const EARLY: usize = 12;

impl Ahead {
    fn learn(&mut self, level: &mut Level, counts: Counts, signals: [bool; SIGNALS]) {
        if self.filled == 0 {
            self.blocks.push_back(Level::block());
        }
        if let Some(block) = self.blocks.back_mut() {
            block.learn(counts, signals);
        }
        self.filled += 1;
        if self.known < EARLY {
            // At first there is nothing older.
            level.learn(counts, signals);
            self.blocks.clear();
        }
        if self.filled < BLOCK {
            return;
        }
        self.filled = 0;
        self.known += 1;
        while self.blocks.len() > AHEAD.min(self.known / 2) {
            if let Some(block) = self.blocks.pop_front() {
                level.add(&block, BLOCK);
            }
        }
    }

    fn forget(&mut self, signal: usize) {
        self.blocks.iter_mut().for_each(|block| block.forget(signal));
        self.known = 0;
    }
}

/// So many buckets with decisions, or quarters of an hour with some, tell how a policy is used: two minutes of traffic,
/// or some calls an hour. A few calls, long ago, do not.
const BUSY: u32 = 2 * MINUTE as u32;
const QUARTERS: usize = 8;
/// A revision is compared with so many decisions of others.
const OTHERS: f64 = 100.0;

impl Learner {
    pub fn new(born: i64) -> Learner {
        Learner {
            learned_to: born,
            level: Level::new(HOUR),
            slow: Level::new(6 * HOUR),
            ahead: Ahead::default(),
            days: Days::default(),
            dispersion: Default::default(),
            flagged: [(i64::MAX, i64::MIN); SIGNALS],
            busy: 0,
        }
    }

    /// Whether it knows enough for anything to be said.
    pub fn knows(&self, config: &Config) -> bool {
        self.level.buckets[0] * BUCKET as f64 >= config.learn as f64 * 0.8 && self.is_used()
    }

    /// Whether it saw real traffic, and not just some early calls.
    pub fn is_used(&self) -> bool {
        self.busy >= BUSY || self.days.quarters() >= QUARTERS
    }

    /// Whether there was real traffic with which a revision can be compared.
    pub fn compares(&self) -> bool {
        self.level.buckets[0] * BUCKET as f64 >= 300.0 * SECOND as f64
            && self.decisions() >= OTHERS
            && self.is_used()
    }

    /// The decisions that `denied` is a part of.
    pub fn decisions(&self) -> f64 {
        self.level.bad[0] + self.level.good_with[0]
    }

    /// A finding began: what it is about is not learned, until it is over.
    pub fn flag(&mut self, signal: usize, from: i64) {
        self.flagged[signal] = (from, i64::MAX);
    }

    pub fn flagged_to(&mut self, signal: usize, to: i64) {
        self.flagged[signal].1 = to;
    }

    /// Such a part of what was learned so far is not usual.
    pub fn without(&mut self, signal: usize, part: f64) {
        self.level.bad[signal] *= 1.0 - part;
        self.slow.bad[signal] *= 1.0 - part;
        self.ahead.blocks.iter_mut().for_each(|block| block.bad[signal] *= 1.0 - part);
        self.days.flag(signal);
    }

    /// It is how things are now: learned anew from what was last.
    pub fn adapt(&mut self, signal: usize, at: i64) {
        self.flagged[signal].1 = self.flagged[signal].0;
        self.level.forget(signal);
        self.slow.forget(signal);
        self.ahead.forget(signal);
        self.learned_to = at - DELAY;
    }

    /// The most of a signal that is usual for so many buckets until `at` with so many good decisions.
    pub fn most(&self, signal: usize, at: i64, span: usize, good: f64) -> f64 {
        self.most_as(span, signal, at, span, good)
    }

    /// The same by the level that the span `shown` is held to.
    pub fn most_as(&self, shown: usize, signal: usize, at: i64, span: usize, good: f64) -> f64 {
        let recent = self.recent_as(shown, signal, span, good);
        recent.max(self.days.most(at, signal, span as f64, good))
    }

    /// What the recent level alone explains, which is sooner said; never more.
    pub fn recent(&self, signal: usize, span: usize, good: f64) -> f64 {
        self.recent_as(span, signal, span, good)
    }

    /// The same by the level that the span `shown` is held to.
    pub fn recent_as(&self, shown: usize, signal: usize, span: usize, good: f64) -> f64 {
        let level = if shown == LONGEST { &self.slow } else { &self.level };
        let (by_time, by_traffic) = level.expected(signal, span as f64, good);
        by_time.max(by_traffic) * level.doubt(signal)
    }

    /// How much counts of a span scatter. What creeps scatters half hours more and more, and must not hide in that: they
    /// scatter no more than twice as much as minutes.
    pub fn scatter_of(&self, signal: usize, index: usize) -> f64 {
        let this = self.dispersion[signal][index].get();
        let minutes = self.dispersion[signal][3].get();
        if SPANS[index] == LONGEST { this.min(2.0 * minutes) } else { this }
    }

    /// The fewest denials that are usual.
    pub fn least(&self, at: i64, span: usize, good: f64) -> f64 {
        let (by_time, by_traffic) = self.level.expected(0, span as f64, good);
        let recent = by_time.min(by_traffic);
        let least = self.days.least(at, 0, good).map_or(recent, |usual| recent.min(usual));
        least / self.level.doubt(0)
    }

    /// The part of decisions that are denied.
    pub fn denied(&self) -> f64 {
        self.part(FIVE_MINUTES, 0)
    }

    /// The part of decisions that a signal has, by the level that a span is held to.
    pub fn part(&self, span: usize, signal: usize) -> f64 {
        let level = if span == LONGEST { &self.slow } else { &self.level };
        (level.bad[signal] + 0.5) / (level.bad[signal] + level.good_with[signal] + 1.0)
    }

    /// Nobody watched until `to`: there is nothing to learn from.
    pub fn skip(&mut self, to: i64) {
        self.learned_to = self.learned_to.max(to);
    }

    /// Learns what is old enough, and what was not part of a finding; `quiet` buckets without decisions are none.
    pub fn learn(
        &mut self,
        at: i64,
        window: &Window,
        quiet: bool,
        calm: [bool; SIGNALS],
        config: &Config,
    ) {
        let young = self.level.buckets[0] * (BUCKET as f64) < config.learn as f64;
        let delay = if young { 2 } else { DELAY };
        while self.learned_to <= at - delay {
            let one = self.learned_to;
            self.learned_to += 1;
            let Ok(back) = usize::try_from(at - one) else { continue };
            if back + 1 >= window.known() {
                continue;
            }
            let counts = window.one(back);
            let flagged = self.flagged.map(|(from, to)| from <= one && one <= to);
            self.busy = self.busy.saturating_add(u32::from(counts.all > 0));
            if !quiet || counts.all > 0 {
                self.level.learn(counts, flagged.map(|f| !f));
                self.ahead.learn(&mut self.slow, counts, flagged.map(|f| !f));
            }
            let minute = window.until(back, MINUTE as usize);
            let minutes = window.until(back, FIVE_MINUTES);
            self.days.learn(one, counts, [minute, minutes], flagged);
        }
        if !young {
            self.scatter(at, window, calm);
        }
    }

    /// Learns how much counts scatter.
    fn scatter(&mut self, at: i64, window: &Window, calm: [bool; SIGNALS]) {
        for (i, span) in SPANS.into_iter().enumerate() {
            if at % span as i64 != 0 || window.known() <= span {
                continue;
            }
            let sum = window.span(span);
            for signal in (0..SIGNALS).filter(|s| calm[*s]) {
                let (by_time, by_traffic) =
                    self.level.expected(signal, span as f64, sum.good as f64);
                let seen = sum.bad[signal] as f64;
                // The nearer of both models.
                let expected = if (seen - by_time).abs() < (seen - by_traffic).abs() {
                    by_time
                } else {
                    by_traffic
                };
                self.dispersion[signal][i].learn(seen, expected);
            }
        }
    }
}
