//! Which partition is read next: the one that is furthest behind in record time, so that a backlog leaves in the order of
//! events to within a bound, and every partition with something to read moves.
//!
//! What is known of a partition is the time of its next record. One whose next record is still on its way holds the others
//! back where they would run ahead of it by more than the bound; one that is at its end, or from which nothing came for a
//! while, holds back nobody. What is behind all that has left by more than the bound comes too late for the order, and is
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is known yet.
    Unknown,
    /// The next record is at hand, and is of this time.
    Head(Nanos),
    /// More is on its way, or not; the last record was of this time.
    Waiting(Nanos),
    /// At its end, or silent for too long.
    Idle,
}

#[derive(Debug)]
struct Partition {
    state: State,
    /// The turn that it had last.
    turn: u64,
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
    /// Since when records at hand wait for others.
    held: Option<Nanos>,
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
            held: None,
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
    pub fn head(&mut self, key: K, time: Nanos) -> bool {
        let Some(partition) = self.partitions.get_mut(&key) else { return false };
        partition.state = State::Head(time);
        self.run.as_ref().is_some_and(|run| run.key == key && run.left > 0 && time <= run.until)
    }

    /// The record at hand was taken.
    pub fn took(&mut self, key: K) {
        let Some(partition) = self.partitions.get_mut(&key) else { return };
        if let State::Head(time) = partition.state {
            partition.state = State::Waiting(time);
            self.newest = self.newest.max(time);
        }
        if let Some(run) = self.run.as_mut().filter(|run| run.key == key) {
            run.left = run.left.saturating_sub(1);
        }
    }

    /// A partition has no more for now.
    pub fn end(&mut self, key: K) {
        if let Some(partition) = self.partitions.get_mut(&key)
            && !matches!(partition.state, State::Head(_))
        {
            partition.state = State::Idle;
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

    /// Whose turn it is. `now` is of any clock that goes on.
    pub fn next(&mut self, now: Nanos) -> Next<K> {
        self.run = None;
        let Some(choice) = self.choose() else {
            if self.held().next().is_none() {
                self.held = None;
                return Next::Nothing;
            }
            let since = self.held.filter(|since| *since <= now).unwrap_or(now);
            self.held = Some(since);
            let until = since.saturating_add(PATIENCE);
            if now < until {
                return Next::Wait(until);
            }
            // Whoever they wait for is not waited for any more.
            for partition in self.partitions.values_mut() {
                if matches!(partition.state, State::Unknown | State::Waiting(_)) {
                    partition.state = State::Idle;
                }
            }
            return self.next(now);
        };
        self.held = None;
        self.turn += 1;
        if let Some(partition) = self.partitions.get_mut(&choice) {
            partition.turn = self.turn;
        }
        self.run = Some(Run { key: choice, left: RUN, until: self.until(&choice) });
        Next::Take(choice)
    }

    fn choose(&self) -> Option<K> {
        let bound = self.bound(None);
        // The one furthest behind of those that come too late, and of the others; of equals the one that waited longest.
        let mut least: [Option<(Nanos, u64, K)>; 2] = [None, None];
        for (key, partition) in &self.partitions {
            let State::Head(time) = partition.state else { continue };
            let late = self.is_late(time);
            if late || time <= bound {
                let (place, one) = (&mut least[usize::from(late)], (time, partition.turn, *key));
                *place = Some(place.map_or(one, |best| best.min(one)));
            }
        }
        let [timely, late] = least.map(|best| best.map(|(_, _, key)| key));
        if self.turn % SHARE == SHARE - 1 { timely.or(late) } else { late.or(timely) }
    }

    /// Up to which time what is in time may leave, so that nothing that is known of, or may be on its way, comes too
    /// late. A partition does not hold back itself.
    fn bound(&self, but: Option<&K>) -> Nanos {
        let mut bound = Nanos::MAX;
        for (key, partition) in &self.partitions {
            let time = match partition.state {
                _ if but == Some(key) => continue,
                State::Unknown => return Nanos::MIN,
                State::Idle => continue,
                State::Head(time) | State::Waiting(time) if self.is_late(time) => continue,
                State::Head(time) | State::Waiting(time) => time,
            };
            bound = bound.min(time);
        }
        bound.saturating_add(self.skew)
    }

    fn until(&self, key: &K) -> Nanos {
        match self.partitions.get(key).map(|partition| partition.state) {
            // Until it has caught up.
            Some(State::Head(time)) if self.is_late(time) => self.newest.saturating_sub(self.skew),
            _ => self.bound(Some(key)),
        }
    }
}

#[cfg(test)]
mod tests;
