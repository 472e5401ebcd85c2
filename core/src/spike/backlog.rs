//! What comes too late to be judged, and is learned instead: in the order of its decisions, and silently.

use super::detector::Detector;
use super::reorder::Reorder;
use super::{Change, Observation, SECOND};
use crate::decision::time::Nanos;

/// A backlog is over when none of it came for so long.
const SETTLED: Nanos = 10 * SECOND;
/// What is as old as before after so long is no backlog.
const STEADY: Nanos = 60 * SECOND;
/// Changes of a backlog that are kept for who asks.
pub const REMEMBERED: usize = 10_000;

pub struct Backlog {
    /// In the order of the decisions' own times.
    held: Reorder,
    since: Nanos,
    /// How old its first decision was; or, some minutes later, the oldest of the last of them.
    age: Nanos,
    /// The oldest lately.
    oldest: Nanos,
    /// It gets no shorter: some decisions always come late here.
    steady: bool,
    /// When the latest of what is old was written.
    latest: Nanos,
}

impl Backlog {
    /// With this decision.
    pub fn begins(seen: &Observation<'_>, written: Nanos) -> Backlog {
        let age = written.saturating_sub(seen.at);
        let (held, steady, oldest) = (Reorder::default(), false, 0);
        Backlog { held, since: written, age, oldest, steady, latest: written }
    }

    pub fn note(&mut self, seen: &Observation<'_>, written: Nanos, old: bool) {
        if old {
            self.latest = written;
            // One that is caught up with gets shorter.
            let passed = written - self.since;
            let age = written.saturating_sub(seen.at);
            if passed > STEADY {
                self.steady |= age > self.age - passed / 10;
                self.oldest = self.oldest.max(age);
            }
            // One that was much older than the others is no measure of them.
            if passed > 2 * STEADY {
                (self.since, self.age, self.oldest) = (written, self.oldest, 0);
            }
        }
    }

    /// Holds it; what is more than can be held is learned.
    pub fn push(&mut self, seen: &Observation<'_>, written: Nanos, to: &mut Learn<'_>) {
        self.held.push(seen.at.min(written), written, seen);
        self.held.hold(&mut |seen, written| to.take(seen, written));
    }

    /// It is all there: it is learned, in order, and what ends with that is past.
    pub fn learn(mut self, now: Nanos, to: &mut Learn<'_>) {
        self.held.release(Nanos::MAX, &mut |seen, written| to.take(seen, written));
        let ended = to.detector.skip(now.saturating_sub(to.lateness));
        to.past.extend(ended);
    }

    /// Since when it is over, by `now`.
    pub fn over_at(&self, now: Nanos) -> Nanos {
        if self.steady { now } else { now.min(self.latest + SETTLED + 1) }
    }

    /// It is over when none of it came for some seconds, or what comes is none.
    pub fn goes_on(&self, now: Nanos) -> bool {
        now - self.latest <= SETTLED && !self.steady
    }
}

/// Who learns, and what is said of what is past.
pub struct Learn<'l> {
    pub detector: &'l mut Detector,
    pub lateness: Nanos,
    pub past: &'l mut Vec<Change>,
}

impl Learn<'_> {
    fn take(&mut self, seen: &Observation<'_>, written: Nanos) {
        let watermark = seen.at.min(written).saturating_sub(self.lateness);
        let found = self.detector.advance(watermark, written);
        if self.past.len() < REMEMBERED {
            self.past.extend(found);
        }
        self.detector.observe(seen, written);
    }
}
