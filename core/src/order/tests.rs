use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const SECOND: Nanos = 1_000_000_000;
const SKEW: Nanos = 60 * SECOND;

/// Written when it happened, long ago.
fn at(time: Nanos) -> Times {
    Times { happened: time, written: time }
}

/// Partitions in a log, a fetch that brings some records of some of them at a time, and a reader.
struct Log {
    /// Not fetched yet, by partition.
    far: Vec<VecDeque<Nanos>>,
    near: Vec<VecDeque<Nanos>>,
    /// Whether the end was told.
    told: Vec<bool>,
    order: Order<usize>,
    now: Nanos,
    out: Vec<(usize, Nanos)>,
    random: u64,
}

impl Log {
    fn new(partitions: Vec<Vec<Nanos>>, seed: u64) -> Log {
        let count = partitions.len();
        let mut order = Order::new(SKEW);
        (0..count).for_each(|key| order.begin(key));
        Log {
            far: partitions.into_iter().map(VecDeque::from).collect(),
            near: vec![VecDeque::new(); count],
            told: vec![false; count],
            order,
            now: 0,
            out: Vec::new(),
            random: seed | 1,
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % n
    }

    /// Brings up to so many records of some partitions that have none here.
    fn fetch(&mut self, most: u64, likely: u64) {
        for key in 0..self.far.len() {
            if self.near[key].is_empty() && self.below(100) < likely {
                let count = self.below(most) as usize + 1;
                let count = count.min(self.far[key].len());
                self.near[key].extend(self.far[key].drain(..count));
            }
        }
    }

    /// Tells what came.
    fn look(&mut self) {
        let heads: Vec<usize> = self.order.held().collect();
        for key in 0..self.near.len() {
            match self.near[key].front() {
                Some(time) if !heads.contains(&key) => {
                    self.order.head(key, at(*time));
                }
                None if self.far[key].is_empty() && !self.told[key] => {
                    self.told[key] = true;
                    self.order.end(key);
                }
                _ => {}
            }
        }
    }

    fn take(&mut self, key: usize) {
        let time = self.near[key].pop_front().unwrap();
        self.order.took(key);
        self.out.push((key, time));
    }

    /// One turn. Whether anything was taken.
    fn turn(&mut self) -> bool {
        self.look();
        let Next::Take(key) = self.order.next(self.now) else { return false };
        self.take(key);
        while let Some(time) = self.near[key].front().copied() {
            if !self.order.head(key, at(time)) {
                break;
            }
            self.take(key);
        }
        true
    }

    fn left(&self) -> usize {
        self.far.iter().chain(&self.near).map(VecDeque::len).sum()
    }

    /// The largest time by which anything left after something newer.
    fn disorder(&self) -> Nanos {
        let (mut newest, mut worst) = (Nanos::MIN, 0);
        for (_, time) in &self.out {
            worst = worst.max(newest.saturating_sub(*time));
            newest = newest.max(*time);
        }
        worst
    }
}

/// A partition in order: gaps in seconds.
fn partition(most: i64) -> impl Strategy<Value = Vec<Nanos>> {
    let gap = prop_oneof![8 => 0..=most, 1 => Just(0), 1 => 0..=most * 500];
    (0..3600i64, prop::collection::vec(gap, 0..300)).prop_map(|(start, gaps)| {
        let mut at = start * SECOND;
        let next = |gap| {
            at += gap * SECOND;
            at
        };
        gaps.into_iter().map(next).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever partitions hold and however fetches bring it: what leaves is at most the bound out of order, and all of it
    /// leaves without patience coming to an end.
    #[test]
    fn a_backlog_leaves_in_order_to_within_the_bound(
        partitions in prop::collection::vec(
            prop_oneof![partition(1), partition(30), partition(4000), Just(Vec::new())], 1..13),
        most in 1u64..400,
        likely in 1u64..100,
        seed in any::<u64>(),
    ) {
        let total: usize = partitions.iter().map(Vec::len).sum();
        let mut log = Log::new(partitions, seed);
        let mut idle = 0;
        while log.left() > 0 {
            log.fetch(most, likely);
            idle = if log.turn() { 0 } else { idle + 1 };
            prop_assert!(idle < 20_000, "it stands still with {} left", log.left());
        }
        prop_assert_eq!(log.out.len(), total);
        prop_assert!(log.disorder() <= SKEW, "{} s", log.disorder() / SECOND);
        for key in 0..log.near.len() {
            let own: Vec<Nanos> =
                log.out.iter().filter(|(k, _)| *k == key).map(|(_, time)| *time).collect();
            prop_assert!(own.is_sorted());
        }
    }

    /// Partitions come and go, and go back to an earlier place: nothing is lost, and what is not waited for is late only.
    #[test]
    fn rebalances_leave_nothing_behind(
        partitions in prop::collection::vec(partition(30), 2..13),
        changes in prop::collection::vec((0usize..13, 1usize..30), 0..20),
        seed in any::<u64>(),
    ) {
        let whole = partitions.clone();
        let count = partitions.len();
        let mut log = Log::new(partitions, seed);
        for (key, turns) in changes {
            let key = key % count;
            for _ in 0..turns {
                log.fetch(50, 50);
                log.turn();
            }
            // As a rebalance, or an aborted transaction, has it: read from the start again.
            log.order.remove(&key);
            log.order.begin(key);
            log.near[key].clear();
            log.far[key] = whole[key].clone().into();
            log.told[key] = false;
        }
        for _ in 0..200_000 {
            log.fetch(50, 50);
            log.turn();
            if log.left() == 0 { break }
        }
        prop_assert_eq!(log.left(), 0);
        for (key, records) in whole.iter().enumerate() {
            let own: Vec<Nanos> =
                log.out.iter().filter(|(k, _)| *k == key).map(|(_, time)| *time).collect();
            prop_assert!(own.ends_with(records));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Days of old events are being written, a few in a transaction, and can be seen here earlier, there later: who follows at
    /// the end of the log reads them in order all the same.
    #[test]
    fn who_follows_a_replay_reads_it_in_order(
        events in prop::collection::vec((0usize..6, 0i64..20_000), 1..300),
        together in 1usize..60,
        seed in any::<u64>(),
    ) {
        let mut log = Log::new(vec![Vec::new(); 7], seed);
        let mut now = 1_000_000_000 * SECOND;
        // Up to the present, from long before it.
        let events: Vec<_> = (0..7).map(|key| (key, 20)).chain([(0, 3600)]).chain(events).collect();
        let mut time = now - events.iter().map(|(_, gap)| gap * SECOND).sum::<Nanos>();
        let step = SECOND / 20;
        // By partition: when it can be seen, and its times.
        let mut coming: Vec<VecDeque<(Nanos, Times)>> = vec![VecDeque::new(); 7];
        let mut chunks = events.chunks(together);
        for _ in 0..100_000 {
            if let Some(chunk) = chunks.next() {
                let seen: Vec<Nanos> =
                    (0..7).map(|_| now + log.below((SETTLE - step) as u64) as i64).collect();
                for (key, gap) in chunk {
                    time += gap * SECOND;
                    // Not before what was written to the partition earlier.
                    let seen = coming[*key].back().map_or(seen[*key], |last| last.0.max(seen[*key]));
                    coming[*key].push_back((seen, Times { happened: time, written: now }));
                }
            }
            loop {
                let held: Vec<usize> = log.order.held().collect();
                for (key, queue) in coming.iter().enumerate() {
                    match queue.front().filter(|(seen, _)| *seen <= now) {
                        Some((_, times)) if !held.contains(&key) => {
                            log.order.head(key, *times);
                        }
                        Some(_) => {}
                        None => log.order.end(key),
                    }
                }
                let Next::Take(key) = log.order.next(now) else { break };
                loop {
                    let (_, times) = coming[key].pop_front().unwrap();
                    log.order.took(key);
                    log.out.push((key, times.happened));
                    match coming[key].front().filter(|(seen, _)| *seen <= now) {
                        Some((_, times)) if log.order.head(key, *times) => {}
                        _ => break,
                    }
                }
            }
            if log.out.len() == events.len() { break }
            now += step;
        }
        prop_assert_eq!(log.out.len(), events.len());
        // Where the old ends and the new begins, what is new is taken for in order.
        prop_assert!(log.disorder() <= 2 * SKEW, "{} s", log.disorder() / SECOND);
    }
}

#[test]
fn what_is_new_waits_for_nobody_at_the_end_of_the_log() {
    let mut order = Order::new(SKEW);
    order.begin(1);
    order.begin(2);
    order.end(2);
    let now = 1_000_000 * SECOND;
    order.head(1, Times { happened: now - 59 * SECOND, written: now });
    assert_eq!(order.next(now), Next::Take(1));
    order.took(1);
    // Of an hour ago, and written just now: 2 may have got some, too.
    let old = Times { happened: now - 1800 * SECOND, written: now };
    let mut order = Order::new(SKEW);
    order.begin(1);
    order.begin(2);
    order.end(2);
    order.head(1, old);
    assert_eq!(order.next(now), Next::Wait(now + SETTLE));
    assert_eq!(order.next(now + SETTLE), Next::Take(1));
}

#[test]
fn what_is_furthest_behind_goes_first() {
    let mut order = Order::new(SKEW);
    for (key, time) in [(1, 300), (2, 100), (3, 200)] {
        order.begin(key);
        order.head(key, at(time * SECOND));
    }
    assert_eq!(order.next(0), Next::Take(2));
    order.took(2);
    assert!(order.head(2, at(260 * SECOND)), "60 s ahead of the next");
    order.took(2);
    assert!(!order.head(2, at(261 * SECOND)));
    assert_eq!(order.next(0), Next::Take(3));
}

#[test]
fn one_that_is_silent_is_waited_for_no_longer_than_patience_lasts() {
    let mut order = Order::new(SKEW);
    order.begin(1);
    order.begin(2);
    assert_eq!(order.next(5), Next::Nothing);
    order.head(1, at(0));
    let step = PATIENCE / 8;
    for i in 0..8 {
        let now = 10 + i * step;
        assert_eq!(order.next(now), Next::Wait(now + step), "of 2 nothing is known");
    }
    assert_eq!(order.next(10 + PATIENCE), Next::Take(1));
    order.took(1);
    // Of 1 it is known where it stands.
    order.head(2, at(61 * SECOND));
    assert_eq!(order.next(PATIENCE * 2), Next::Wait(PATIENCE * 2 + step));
    // The reader itself was elsewhere.
    assert_eq!(order.next(PATIENCE * 9), Next::Wait(PATIENCE * 9 + step));
    order.end(1);
    assert_eq!(order.next(PATIENCE * 9), Next::Take(2), "at its end it holds back nobody");
}

#[test]
fn what_comes_too_late_does_not_stop_the_others_and_catches_up() {
    let mut order = Order::new(SKEW);
    order.begin(1);
    order.head(1, at(100_000 * SECOND));
    assert_eq!(order.next(0), Next::Take(1));
    order.took(1);
    // A partition of a broker that was away for a day.
    order.begin(2);
    let (mut old, mut new, mut late, mut live) = (0, 100_000 * SECOND, 0, 0);
    order.head(1, at(new));
    order.head(2, at(old));
    for _ in 0..80 {
        match order.next(0) {
            Next::Take(1) => {
                live += 1;
                order.took(1);
                new += SECOND;
                order.head(1, at(new));
            }
            Next::Take(2) => {
                late += 1;
                order.took(2);
                old += SECOND;
                order.head(2, at(old));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((late, live), (70, 10));
}

#[test]
fn of_equals_each_has_its_turn() {
    let mut order = Order::new(SKEW);
    for key in 0..5 {
        order.begin(key);
        order.head(key, at(7));
    }
    let mut turns = Vec::new();
    for _ in 0..10 {
        let Next::Take(key) = order.next(0) else { panic!() };
        order.took(key);
        order.head(key, at(7));
        turns.push(key);
    }
    let mut first = turns[..5].to_vec();
    first.sort_unstable();
    assert_eq!(first, [0, 1, 2, 3, 4]);
    assert_eq!(turns[..5], turns[5..]);
}
