//! Follows the docket topic: the same for who reads it as it is written and for who looks back, so that both find the
//! same. Its time is when docket wrote a record. A decision counts at the time it says, but no later than it was
//! written, and no earlier than `lateness` before that; what was written a minute later still is a backlog, of which
//! nothing is said, since it is past.
//!
//! The beginning may be a backlog: OPAs that upload what they kept, or a docket that catches up. It is learned in the
//! order of its decisions, and silently. Where docket itself paused nobody watched, and no silence is known.

use std::collections::BTreeMap;

use super::backlog::{Backlog, Learn, REMEMBERED};
use super::config::Config;
use super::detector::{Detector, LATE};
use super::horizon::common;
use super::newcomers::{self, Newcomers};
use super::reorder::Reorder;
use super::snapshot::Unreadable;
use super::{BUCKET, Change, Dimension, Finding, Kind, Observation, SECOND};
use crate::decision::time::Nanos;

/// Docket paused when it wrote nothing for so long, and then what is older;
const PAUSE: Nanos = 30 * SECOND;
/// unless it wrote nothing for half as long not long ago: then OPAs upload what they decided now and then, and all of them at once.
const LATELY: Nanos = 1800 * SECOND;

/// How far a partition was read.
#[derive(Debug, Clone, Copy)]
struct Clock {
    /// When the latest record of it was written.
    written: Nanos,
    /// There is no more for now; there was no more, once.
    ended: bool,
    reached: bool,
}

/// How old decisions were when they came: by the power of two of seconds below which that is.
#[derive(Default)]
struct Ages([u64; 32]);

impl Ages {
    fn add(&mut self, age: Nanos) {
        let below = 64 - (age / SECOND).max(0).leading_zeros() as usize;
        self.0[below.min(self.0.len() - 1)] += 1;
    }

    fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// As old as 99 of a hundred at most.
    fn most(&self) -> Nanos {
        let mut left = self.count() * 99 / 100;
        let holds = |of: &u64| match left.checked_sub(*of) {
            Some(more) if more > 0 => {
                left = more;
                false
            }
            _ => true,
        };
        let below = self.0.iter().position(holds).unwrap_or_default();
        SECOND << below
    }
}

pub struct Follower {
    pub detector: Detector,
    /// Those whose past comes when others are watched already.
    newcomers: Newcomers,
    lateness: Nanos,
    clocks: BTreeMap<i32, Clock>,
    /// What was read of partitions that are ahead of others: in the order of writing.
    ahead: Reorder,
    /// The backlog in the beginning.
    backlog: Option<Backlog>,
    /// Whether every partition's end was reached, and silence is watched.
    live: bool,
    /// That the stream is quiet was told before, and not that this ended.
    told_quiet: bool,
    /// Decisions that were written later than `lateness` after they were made, whatever became of them: a number that the
    /// log alone determines.
    pub late: u64,
    /// Those that came too late to count.
    missed: Ages,
    /// When the latest record was written.
    latest: Nanos,
    /// When nothing had been written for a while last, and for how long.
    paused: Option<(Nanos, Nanos)>,
    /// It is no later than that, whatever stands in the topic.
    now: Nanos,
    changes: Vec<Change>,
    /// What a backlog holds: nobody is told, since it is past.
    past: Vec<Change>,
}

impl Follower {
    /// `partitions`: those that hold anything.
    pub fn new(config: Config, lateness: Nanos, partitions: impl Iterator<Item = i32>) -> Follower {
        let mut follower = Follower {
            detector: Detector::new(config),
            newcomers: Newcomers::default(),
            lateness,
            clocks: BTreeMap::new(),
            ahead: Reorder::default(),
            backlog: None,
            live: false,
            told_quiet: false,
            late: 0,
            missed: Ages::default(),
            latest: Nanos::MIN,
            paused: None,
            now: Nanos::MAX,
            changes: Vec::new(),
            past: Vec::new(),
        };
        follower.reads(partitions);
        follower
    }

    /// Of each partition in the order in which it stands there. `written`: the record's time in Kafka, which is when
    /// docket wrote it.
    pub fn observe(&mut self, partition: i32, seen: &Observation<'_>, written: Nanos) {
        let new = Clock { written, ended: false, reached: self.live };
        let clock = self.clocks.entry(partition).or_insert(new);
        (clock.written, clock.ended) = (clock.written.max(written), false);
        if self.live {
            self.take(seen, written, false);
        } else {
            self.ahead.push(written, written, seen);
        }
    }

    /// Takes back what was kept (`snapshot`), each piece by its key; `from` says from when on the docket is read, of
    /// what the pieces know. Returns that, if there is anything to go on with, and what can't be read and is learned
    /// anew.
    pub fn restore<'p>(
        &mut self,
        pieces: impl Iterator<Item = (&'p str, &'p [u8])>,
        now: Nanos,
        from: impl FnOnce(Nanos) -> Nanos,
    ) -> (Option<Nanos>, Vec<(String, Unreadable)>) {
        let wrong = self.detector.restore(pieces, now);
        let from = self.detector.through().map(from);
        if let Some(from) = from {
            self.detector.resume(from);
        }
        (from, wrong)
    }

    /// Partitions that are read from here on.
    pub fn reads(&mut self, partitions: impl Iterator<Item = i32>) {
        let clock = Clock { written: Nanos::MIN, ended: false, reached: false };
        self.clocks.extend(partitions.map(|p| (p, clock)));
    }

    /// A finding that stands in the docket, told by who looked before.
    pub fn told(&mut self, kind: Kind, over: bool) {
        if kind == Kind::StreamQuiet {
            self.told_quiet = !over;
        }
    }

    /// A partition's end was reached: there is nothing more in it for now.
    pub fn ended(&mut self, partition: i32) {
        let new = Clock { written: Nanos::MIN, ended: true, reached: true };
        let clock = self.clocks.entry(partition).or_insert(new);
        (clock.ended, clock.reached) = (true, true);
    }

    /// Whether every partition's end was reached, and `advance` said so: what is found from then on is news, and
    /// `active` is what goes on.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// What is certain by `now`.
    pub fn advance(&mut self, now: Nanos) -> Vec<Change> {
        self.now = now;
        let clocks = self.clocks.values();
        let slowest = clocks.map(|c| if c.ended { now } else { c.written.min(now) }).min();
        let slowest = slowest.unwrap_or(now);
        if self.live {
            self.pass(slowest);
        } else if self.clocks.values().all(|c| c.reached) {
            self.in_order(Nanos::MAX);
            self.live = true;
            self.pass(self.latest);
            if !self.told_quiet {
                // Whether anybody would have written since the latest record is not known.
                let skipped = self.detector.skip(now.saturating_sub(self.lateness));
                self.changes.extend(skipped);
            }
            self.pass(now);
        } else {
            self.in_order(slowest);
        }
        std::mem::take(&mut self.changes)
    }

    /// Of who looks back: what is certain by what was read; everything, when it was read to the end.
    pub fn look_back(&mut self, all: bool) -> Vec<Change> {
        let slowest = self.clocks.values().map(|c| c.written).filter(|w| *w < Nanos::MAX).min();
        self.in_order(if all { Nanos::MAX } else { slowest.unwrap_or(Nanos::MIN) });
        if all && self.latest > Nanos::MIN {
            self.settle(self.latest);
            self.pass(self.latest);
        }
        std::mem::take(&mut self.changes)
    }

    /// Looks back on the decisions of a file, which says nothing of when they came. `times` are theirs, in order; `see` hands on the one of
    /// that number.
    pub fn look_at_file(
        &mut self,
        times: &[Nanos],
        see: impl Fn(usize, &mut dyn FnMut(&Observation<'_>)),
    ) -> Vec<Change> {
        let who = |i| {
            let mut who = None;
            let opa = Dimension::Instance as usize;
            see(i, &mut |seen| who = Some(format!("{}\0{}", seen.service, seen.who[opa])));
            who
        };
        let end = common(times, who).unwrap_or(Nanos::MAX);
        self.detector.doubt_first();
        let mut changes = Vec::new();
        for (i, at) in times.iter().enumerate() {
            let written = end.min(*at);
            see(i, &mut |seen| self.observe(0, seen, written));
            if i % 64 == 63 {
                changes.extend(self.look_back(false));
            }
        }
        self.closed(0);
        changes.extend(self.look_back(true));
        changes
    }

    /// Who looks back says how late it is.
    pub fn is_now(&mut self, now: Nanos) {
        self.now = now;
    }

    /// Nothing more will come of a partition that is looked back on.
    pub fn closed(&mut self, partition: i32) {
        self.clocks.remove(&partition);
    }

    /// What went on and ended in a backlog, until now. It is no news.
    pub fn past(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.past)
    }

    /// Where more than one of a hundred of so many decisions came too late to count: for how long they would have to be waited for. For an
    /// hour at most.
    pub fn waits(&self, decisions: u64) -> Option<Nanos> {
        (self.missed.count() > decisions / 100).then(|| self.missed.most().min(3600 * SECOND))
    }

    /// When the latest record was written; the least there is, if there was none.
    pub fn latest(&self) -> Nanos {
        self.latest
    }

    /// What goes on.
    pub fn active(&self) -> Vec<Finding> {
        self.detector.active()
    }

    fn in_order(&mut self, to: Nanos) {
        let mut ahead = std::mem::take(&mut self.ahead);
        let now = self.now;
        ahead.release(to, &mut |seen, written| self.take(seen, written.min(now), true));
        self.ahead = ahead;
    }

    /// The next record; `ordered`, if all that was written before it was taken.
    fn take(&mut self, seen: &Observation<'_>, written: Nanos, ordered: bool) {
        let before = self.latest;
        self.latest = before.max(written);
        let age = written.saturating_sub(seen.at);
        self.late += u64::from(age > self.lateness);
        let old = age > self.lateness + LATE * BUCKET;
        if old && before == Nanos::MIN && self.detector.is_new() {
            self.backlog = Some(Backlog::begins(seen, written));
        }
        // Who reads as it is written is told so by the clock.
        let is_over = self.backlog.as_ref().is_some_and(|backlog| !backlog.goes_on(written));
        if let Some(backlog) = self.backlog.as_mut().filter(|_| !is_over) {
            backlog.note(seen, written, old);
            if backlog.goes_on(written) {
                let (detector, past) = (&mut self.detector, &mut self.past);
                let to = &mut Learn { detector, lateness: self.lateness, past };
                return backlog.push(seen, written, to);
            }
        }
        self.settle(written);
        self.detector.came(seen, old, written);
        if self.newcomers.are_over(written) {
            self.settle_newcomers(written);
        }
        let paused = before > Nanos::MIN && self.is_pause(before, written);
        if old && ordered && paused {
            // Docket wrote nothing, but there were decisions: it paused.
            self.changes.extend(self.detector.skip(written.saturating_sub(self.lateness)));
        }
        if self.newcomers.take(&self.detector, self.lateness, seen, written, old) {
            self.detector.excuse(seen);
            if ordered {
                self.pass(written);
            }
            return;
        }
        // Who was silent until then was, for whoever reads it as it is written.
        if ordered {
            self.pass(written);
        }
        if old {
            self.missed.add(age);
            self.detector.excuse(seen);
            return;
        }
        let from = written.saturating_sub(self.lateness);
        let at = seen.at.max(from);
        self.detector.observe(&Observation { at, ..*seen }, written);
    }

    /// Whether docket may have paused from `before` on: it wrote nothing, which is not usual.
    fn is_pause(&mut self, before: Nanos, written: Nanos) -> bool {
        let long = written - before;
        if long <= PAUSE {
            return false;
        }
        let last = self.paused.replace((written, long));
        last.is_none_or(|(at, last)| before - at > LATELY || long > 2 * last)
    }

    /// It is so late.
    fn pass(&mut self, now: Nanos) {
        if self.backlog.as_ref().is_some_and(|b| b.goes_on(now)) {
            return;
        }
        self.settle(now);
        if self.newcomers.are_over(now) {
            self.settle_newcomers(now);
        }
        let watermark = now.saturating_sub(self.lateness);
        self.changes.extend(self.detector.advance(watermark, now));
    }

    /// The backlog is all there: it is learned, and what it says is past, but for what goes on.
    fn settle(&mut self, now: Nanos) {
        let Some(backlog) = self.backlog.take() else { return };
        let now = backlog.over_at(now);
        let (detector, past) = (&mut self.detector, &mut self.past);
        backlog.learn(now, &mut Learn { detector, lateness: self.lateness, past });
        self.changes.extend(self.detector.active().into_iter().map(Change::Begins));
    }

    /// The newcomers' past is learned; they are watched with the others from here on.
    fn settle_newcomers(&mut self, now: Nanos) {
        let Some((detector, past)) = self.newcomers.settle(now, self.lateness) else { return };
        let room = REMEMBERED.saturating_sub(self.past.len());
        self.past.extend(past.into_iter().take(room));
        let active = detector.active().into_iter().filter(newcomers::is_own);
        let active: Vec<Change> = active.map(Change::Begins).collect();
        self.changes.extend(self.detector.adopt(detector));
        self.changes.extend(active);
    }
}

#[cfg(test)]
mod tests;
