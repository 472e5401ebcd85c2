//! Which partition is read next: the one that is furthest behind in record time, so that a backlog leaves in the order of
//! events to within a bound, and every partition with something to read moves.
//!
//! What is known of a partition is the time of its next record. One whose next record is still on its way holds the others
//! back where they would run ahead of it by more than the bound; one that is at its end, or from which nothing came for a
//! while, holds back nobody. But who is at the end of a log to which old events are being written must not take what came
//! to one partition before it can be seen what came to the others: what is old and was just written settles first. What is behind all that has left by more than the bound comes too late for the order, and is
//! not waited for either: it gets most of the turns until it has caught up, and the others the rest.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::decision::time::Nanos;

/// How far out of order what leaves may be.
pub const MAX_SKEW: Duration = Duration::from_secs(60);
/// Records of one partition that are taken one after the other before another gets its turn.
pub const RUN: u32 = 100;
/// While some come too late, every so many turns are the others'.
const SHARE: u64 = 8;
/// For so long the others wait for a partition from which nothing comes.
pub const PATIENCE: Nanos = 2_000_000_000;
/// After so long what was written at one time, in one transaction perhaps, can be seen in all partitions.
pub const SETTLE: Nanos = 2_000_000_000;

/// When what stands in a record happened, and when the log got it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub happened: Nanos,
    pub written: Nanos,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is known yet.
    Unknown,
    /// The next record is at hand.
    Head(Times),
    /// More is on its way, or not; the last record was of this time.
    Waiting(Nanos),
    /// At its end, or silent for too long; the last record was of this time.
    Idle(Option<Nanos>),
}

#[derive(Debug)]
struct Partition {
    state: State,
    /// The turn that it had last.
    turn: u64,
}

impl Partition {
    /// It holds back nobody any more.
    fn rests(&mut self) {
        match self.state {
            State::Unknown => self.state = State::Idle(None),
            State::Waiting(last) => self.state = State::Idle(Some(last)),
            State::Head(_) | State::Idle(_) => {}
        }
    }
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next<K> {
    /// The record at hand of this partition.
    Take(K),
    /// There are records at hand, and others have to come first. To be asked again when something comes, or at this time.
    Wait(Nanos),
    /// No record is at hand.
    Nothing,
}

/// The partition that has its turn.
#[derive(Debug)]
struct Run<K> {
    key: K,
    left: u32,
    /// Up to this time.
    until: Nanos,
    /// And up to this one, if it has to settle first.
    unsettled: Nanos,
    began: Nanos,
}

/// The order of a reader's partitions.
#[derive(Debug)]
pub struct Order<K> {
    skew: Nanos,
    partitions: BTreeMap<K, Partition>,
    run: Option<Run<K>>,
    turn: u64,
    /// The newest time that has left.
    newest: Nanos,
    /// What left last was old when it was written: days may be written in a moment.
    replay: bool,
    /// Since when records at hand wait for others.
    held: Option<Nanos>,
    /// When it was asked last whose turn it is.
    asked: Nanos,
}

impl<K: Ord + Copy> Order<K> {
    /// What leaves is at most `skew` out of order, as far as each partition is in order.
    pub fn new(skew: Nanos) -> Order<K> {
        Order {
            skew,
            partitions: BTreeMap::new(),
            run: None,
            turn: 0,
            newest: Nanos::MIN,
            replay: false,
            held: None,
            asked: Nanos::MIN,
        }
    }

    /// A partition is read from now on, or from another place.
    pub fn begin(&mut self, key: K) {
        self.drop_run(&key);
        self.partitions.insert(key, Partition { state: State::Unknown, turn: 0 });
    }

    pub fn remove(&mut self, key: &K) {
        self.drop_run(key);
        self.partitions.remove(key);
    }

    fn drop_run(&mut self, key: &K) {
        if self.run.as_ref().is_some_and(|run| run.key == *key) {
            self.run = None;
        }
    }

    /// The next record of a partition is at hand. Whether it may be taken right away, because its partition has its turn.
    pub fn head(&mut self, key: K, times: Times) -> bool {
        let Some(partition) = self.partitions.get_mut(&key) else { return false };
        partition.state = State::Head(times);
        let Some(run) = self.run.as_ref().filter(|run| run.key == key && run.left > 0) else {
            return false;
        };
        times.happened <= run.until
            && (times.happened <= run.unsettled || self.settles(times, run.began).is_none())
    }

    /// The record at hand was taken.
    pub fn took(&mut self, key: K) {
        let Some(partition) = self.partitions.get_mut(&key) else { return };
        if let State::Head(times) = partition.state {
            partition.state = State::Waiting(times.happened);
            self.newest = self.newest.max(times.happened);
            self.replay = self.is_old(times);
        }
        if let Some(run) = self.run.as_mut().filter(|run| run.key == key) {
            run.left = run.left.saturating_sub(1);
        }
    }

    /// A partition has no more for now.
    pub fn end(&mut self, key: K) {
        if let Some(partition) = self.partitions.get_mut(&key) {
            partition.rests();
        }
    }

    /// The partitions whose record at hand waits for its turn.
    pub fn held(&self) -> impl Iterator<Item = K> + '_ {
        let at_hand = |(key, partition): (&K, &Partition)| {
            matches!(partition.state, State::Head(_)).then_some(*key)
        };
        self.partitions.iter().filter_map(at_hand)
    }

    fn is_late(&self, time: Nanos) -> bool {
        time < self.newest.saturating_sub(self.skew)
    }

    fn is_old(&self, times: Times) -> bool {
        times.happened < times.written.saturating_sub(self.skew)
    }

    /// When what is old and was just written has settled; nothing if that is not waited for. What is new is not, unless old
    /// events lead up to it.
    fn settles(&self, times: Times, now: Nanos) -> Option<Nanos> {
        let leap = self.replay && times.happened > self.newest.saturating_add(self.skew);
        let old = self.is_old(times) || leap;
        let settled = times.written.saturating_add(SETTLE);
        // The clock of who wrote it may be wrong.
        let ahead = times.written > now.saturating_add(SETTLE);
        (old && now < settled && !ahead).then_some(settled)
    }

    /// Whose turn it is. `now` is of the clock by which records are written.
    pub fn next(&mut self, now: Nanos) -> Next<K> {
        self.run = None;
        // Who did not look for a while can't tell who was silent.
        if now.saturating_sub(self.asked) > PATIENCE / 2 {
            self.held = None;
        }
        self.asked = now;
        let unsettled = self.unsettled();
        let choice = match self.choose(now, unsettled) {
            Ok(choice) => choice,
            Err(Some(settled)) => return Next::Wait(settled),
            Err(None) if self.held().next().is_none() => {
                self.held = None;
                return Next::Nothing;
            }
            Err(None) => {
                let since = self.held.filter(|since| *since <= now).unwrap_or(now);
                self.held = Some(since);
                let until = since.saturating_add(PATIENCE);
                if now < until {
                    return Next::Wait(until.min(now.saturating_add(PATIENCE / 8)));
                }
                // Whoever they wait for is not waited for any more.
                self.partitions.values_mut().for_each(Partition::rests);
                self.held = None;
                return self.next(now);
            }
        };
        self.held = None;
        self.turn += 1;
        if let Some(partition) = self.partitions.get_mut(&choice) {
            partition.turn = self.turn;
        }
        let until = self.until(&choice);
        self.run = Some(Run { key: choice, left: RUN, until, unsettled, began: now });
        Next::Take(choice)
    }

    /// Or until when what could leave has to settle.
    fn choose(&self, now: Nanos, unsettled: Nanos) -> Result<K, Option<Nanos>> {
        let bound = self.bound(None);
        // The one furthest behind of those that come too late, and of the others; of equals the one that waited longest.
        let mut least: [Option<(Nanos, u64, K)>; 2] = [None, None];
        let mut wait: Option<Nanos> = None;
        for (key, partition) in &self.partitions {
            let State::Head(times) = partition.state else { continue };
            let time = times.happened;
            let late = self.is_late(time);
            if !late && time > bound {
                continue;
            }
            if !late
                && time > unsettled
                && let Some(settled) = self.settles(times, now)
            {
                wait = Some(wait.map_or(settled, |first| first.min(settled)));
                continue;
            }
            let (place, one) = (&mut least[usize::from(late)], (time, partition.turn, *key));
            *place = Some(place.map_or(one, |best| best.min(one)));
        }
        let [timely, late] = least.map(|best| best.map(|(_, _, key)| key));
        let choice = if self.turn % SHARE == SHARE - 1 { timely.or(late) } else { late.or(timely) };
        choice.ok_or(wait)
    }

    /// Up to which time nothing has to settle: no partition at its end may have got anything that belongs before it.
    fn unsettled(&self) -> Nanos {
        let mut least = Nanos::MAX;
        for partition in self.partitions.values() {
            if let State::Idle(last) = partition.state {
                least = least.min(last.unwrap_or(Nanos::MIN));
            }
        }
        least.saturating_add(self.skew)
    }

    /// Up to which time what is in time may leave, so that nothing that is known of, or may be on its way, comes too
    /// late. A partition does not hold back itself.
    fn bound(&self, but: Option<&K>) -> Nanos {
        let mut bound = Nanos::MAX;
        for (key, partition) in &self.partitions {
            let time = match partition.state {
                _ if but == Some(key) => continue,
                State::Unknown => return Nanos::MIN,
                State::Idle(_) => continue,
                State::Head(Times { happened: time, .. }) | State::Waiting(time) => time,
            };
            if self.is_late(time) {
                continue;
            }
            bound = bound.min(time);
        }
        bound.saturating_add(self.skew)
    }

    fn until(&self, key: &K) -> Nanos {
        match self.partitions.get(key).map(|partition| partition.state) {
            // Until it has caught up.
            Some(State::Head(times)) if self.is_late(times.happened) => {
                self.newest.saturating_sub(self.skew)
            }
            _ => self.bound(Some(key)),
        }
    }
}

#[cfg(test)]
mod tests;
