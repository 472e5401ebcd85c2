//! What somebody does on most days, though not at the same minute: a job that is denied for some minutes of each night, now at one
//! and now at three. The hours of other days (`baseline::Days`) don't tell it, since each of them had it once.
//!
//! Each spike is remembered by its first cause, and how high it was. One is known if the same cause was behind as much within three
//! hours of this time on three of the last seven days. It goes on silently then, as long as it is no more than that: what is
//! twice as high, or somebody else's, is told.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Series, much};
use crate::spike::baseline::{MINUTE, SIGNALS, bucket};
use crate::spike::config::{Config, HOUR};
use crate::spike::window::{FIVE_MINUTES, LONGEST};
use crate::spike::{BUCKET, Cause, Change, Dimension, Finding};

/// So many spikes are remembered of each signal, the latest.
const MOST: usize = 32;
const DAY: i64 = 24 * HOUR / BUCKET;
/// So near it is the same time of day.
const AROUND: i64 = 3 * HOUR / BUCKET;
/// On so many of so many days.
const TIMES: usize = 3;
const DAYS: i64 = 7;
/// What comes again so soon is the same spike: half an hour.
const SAME: i64 = HOUR / BUCKET / 2;
/// So many times as high is more than is known; and so much less of it is not that cause's any more.
const HIGHER: f64 = 2.0;
const LESS: f64 = 0.6;
/// What other days explain is looked at twice a minute.
const LOOK: i64 = MINUTE / 2;
/// The span of a minute.
const OF_MINUTE: usize = 3;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Habits([VecDeque<Habit>; SIGNALS]);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Habit {
    from: i64,
    to: i64,
    dimension: Dimension,
    value: String,
    share: f64,
    height: Height,
}

/// The most in a minute, and in half an hour.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Height(u64, u64);

impl Height {
    fn is_within(self, other: Height) -> bool {
        let within = |this: u64, other: u64| this as f64 <= HIGHER * other as f64;
        within(self.0, other.0) && within(self.1, other.1)
    }
}

impl Habit {
    fn is(&self, cause: &Cause) -> bool {
        self.dimension == cause.dimension && self.value == cause.value
    }
}

impl Habits {
    fn note(&mut self, signal: usize, at: i64, cause: &Cause, height: Height) {
        let all = &mut self.0[signal];
        let last = all.iter_mut().rev().find(|h| h.is(cause) && at - h.to <= SAME);
        if let Some(habit) = last {
            habit.to = at;
            habit.height.0 = habit.height.0.max(height.0);
            habit.height.1 = habit.height.1.max(height.1);
            return;
        }
        if all.len() == MOST {
            all.pop_front();
        }
        let (dimension, value, share) = (cause.dimension, cause.value.clone(), cause.share);
        all.push_back(Habit { from: at, to: at, dimension, value, share, height });
    }

    /// Whether its first cause does so at this time of day.
    fn know(&self, signal: usize, at: i64, finding: &Finding, height: Height) -> bool {
        let Some(cause) = finding.causes.first() else { return false };
        let then = |day: &i64| {
            self.0[signal].iter().any(|habit| {
                let near = |other: i64| (at - other - day * DAY).abs() <= AROUND;
                habit.is(cause)
                    && (near(habit.from) || near(habit.to))
                    && cause.share >= LESS * habit.share
                    && height.is_within(habit.height)
            })
        };
        (1..=DAYS).filter(then).count() >= TIMES
    }
}

impl Series {
    fn height(&self, signal: usize) -> Height {
        let of = |span: usize| self.window.span(span).bad[signal];
        Height(of(MINUTE as usize), of(LONGEST))
    }

    /// What goes on is remembered of its cause; also what is no spike since it was so at this very time before.
    pub(super) fn remember(&mut self, signal: usize, at: i64, config: &Config) {
        let height = self.height(signal);
        let watch = &self.spikes[signal];
        let explained;
        let finding = match &watch.active {
            Some(finding) => Some(finding).filter(|_| watch.calm == 0),
            // Who that is takes some work.
            None if at % LOOK == 0 && self.is_new(signal, OF_MINUTE, config) => {
                let good = self.window.span(MINUTE as usize).good as f64;
                let recent = self.learner.recent(signal, MINUTE as usize, good);
                explained = self.in_the_midst(signal, at, MINUTE as usize, recent);
                Some(&explained)
            }
            None => None,
        };
        if let Some(cause) = finding.and_then(|finding| finding.causes.first()) {
            self.habits.note(signal, at, cause, height);
        }
    }

    pub(super) fn is_habit(&self, signal: usize, at: i64, finding: &Finding) -> bool {
        self.habits.know(signal, at, finding, self.height(signal))
    }

    /// Tells of what went on silently, since it was known, and is more than that by now, or somebody else's.
    pub(super) fn departs(
        &mut self,
        signal: usize,
        at: i64,
        config: &Config,
        changes: &mut Vec<Change>,
    ) {
        let watch = &self.spikes[signal];
        let Some(known) = watch.active.as_ref().filter(|_| watch.known) else { return };
        let long = usize::try_from(at + 1 - bucket(known.onset)).unwrap_or(1);
        let long = long.clamp(1, FIVE_MINUTES);
        let sum = self.window.span(long);
        let usual = self.learner.most(signal, at, long, sum.good as f64);
        if !much(long, sum.bad[signal] as f64, usual, sum.all as f64) {
            return;
        }
        let new = self.in_the_midst(signal, at, long, usual);
        let is_told = new.score >= config.certainty && new.excess() >= config.floor_of(signal);
        if !is_told || self.is_habit(signal, at, &new) {
            return;
        }
        self.spikes[signal].begins(&new, MINUTE as usize, at);
        changes.push(Change::Begins(new));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spike::Kind;

    #[test]
    fn what_the_same_did_on_three_days_at_this_time_is_known() {
        let cause = |value: &str, share| {
            let cause = Cause::whole(Dimension::Subject, value);
            Finding {
                causes: vec![Cause { share, ..cause }],
                ..Finding::new(Kind::DenialSpike, "s", "p")
            }
        };
        let hour = HOUR / BUCKET;
        let mut habits = Habits::default();
        let job = cause("batch", 0.9);
        let knows = |habits: &Habits, at: i64, finding: &Finding, minute, half| {
            habits.know(0, at, finding, Height(minute, half))
        };
        for (day, at) in [(20, hour), (21, 3 * hour), (23, 2 * hour)] {
            let at = day * DAY + at;
            assert!(!knows(&habits, at, &job, 60, 300), "day {day}");
            habits.note(0, at, &job.causes[0], Height(30, 30));
            habits.note(0, at + MINUTE, &job.causes[0], Height(60, 300));
        }
        let at = 24 * DAY + 3 * hour;
        assert!(knows(&habits, at, &job, 110, 500));
        assert!(!knows(&habits, at, &job, 130, 300), "so many in a minute");
        assert!(!knows(&habits, at, &job, 60, 700), "for so long");
        assert!(!knows(&habits, at, &cause("mallory", 0.9), 60, 300), "somebody else");
        assert!(!knows(&habits, at, &cause("batch", 0.5), 60, 300), "and others beside it");
        assert!(!knows(&habits, at + 9 * hour, &job, 60, 300), "at another time");
        assert!(!knows(&habits, 28 * DAY + hour, &job, 60, 300), "long ago");
        assert!(!habits.know(1, at, &job, Height(60, 300)), "of something else");
        assert_eq!(habits.0[0].len(), 3);
        (0..100).for_each(|i| {
            habits.note(0, at + i, &cause(&i.to_string(), 1.0).causes[0], Height(1, 1));
        });
        assert_eq!(habits.0[0].len(), MOST);
    }
}
