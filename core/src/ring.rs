//! The newest records of a partition, read once for all who follow it. Each follower has a place of its own, and nobody waits for
//! anybody: whoever falls off the ring's end reads alone until it has caught up, and comes back.
//!
//! What is in a ring is without a gap: each record from its beginning to its end is there. It holds so many bytes, and what is
//! oldest makes room.

use std::collections::{BTreeMap, VecDeque};

/// Who follows.
pub type Who = u64;

/// One in so many bytes of the ring has to stand before who comes back: at its very end it would fall off at once.
const MARGIN: usize = 4;
/// Who is ahead by less does not take the ring along: the others are about to come there.
const NEAR: i64 = 1000;

#[derive(Debug)]
struct Entry<T> {
    offset: i64,
    bytes: usize,
    record: T,
}

#[derive(Debug)]
pub struct Ring<T> {
    room: usize,
    /// Every record from here
    from: i64,
    /// to before here is in `entries`.
    to: i64,
    entries: VecDeque<Entry<T>>,
    bytes: usize,
    /// The log had no more when it was read last.
    ended: bool,
    followers: BTreeMap<Who, i64>,
}

/// How somebody goes on who asks to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// What it needs next is not here, nor about to be.
    Alone,
    Follows,
    /// The ring begins anew at its place: the log is to be read from there.
    Begins,
}

/// What is there for a follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// So many records.
    Records(usize),
    /// Nothing yet; `ended` where the log had no more.
    Nothing { ended: bool },
    /// It fell off, and reads alone from its place.
    Gone,
}

impl<T: Clone> Ring<T> {
    /// It holds so many bytes, or the newest record.
    pub fn new(room: usize) -> Ring<T> {
        Ring {
            room,
            from: 0,
            to: 0,
            entries: VecDeque::new(),
            bytes: 0,
            ended: false,
            followers: BTreeMap::new(),
        }
    }

    /// Somebody wants to go on at an offset. The ring is where the foremost is: who is ahead of all that it holds and all that it
    /// could, takes it along.
    pub fn follow(&mut self, who: Who, at: i64) -> Joined {
        let far = NEAR.max(self.to - self.from);
        let begins = self.followers.is_empty() || at.saturating_sub(self.to) > far;
        if begins {
            self.begin(at);
        } else if at > self.to || !self.holds(at) {
            return Joined::Alone;
        }
        self.followers.insert(who, at);
        if begins { Joined::Begins } else { Joined::Follows }
    }

    /// Whether who goes on here is far enough from the end at which records make room.
    fn holds(&self, at: i64) -> bool {
        let before = || self.entries.iter().take_while(|entry| entry.offset < at);
        let roomy = self.bytes < self.room / 2;
        at >= self.from
            && (roomy || before().map(|entry| entry.bytes).sum::<usize>() > self.room / MARGIN)
    }

    fn begin(&mut self, at: i64) {
        (self.from, self.to, self.bytes, self.ended) = (at, at, 0, false);
        self.entries.clear();
    }

    /// Somebody follows no more.
    pub fn leave(&mut self, who: Who) {
        self.followers.remove(&who);
        if self.followers.is_empty() {
            self.begin(0);
        }
    }

    /// The log can't be read any more: everybody is to go on alone.
    pub fn fail(&mut self) {
        self.followers.clear();
        self.begin(0);
    }

    pub fn is_followed(&self) -> bool {
        !self.followers.is_empty()
    }

    /// Whether a follower has taken all that is there.
    pub fn is_drained(&self, who: Who) -> bool {
        self.followers.get(&who).is_some_and(|at| *at >= self.to)
    }

    /// The next record of the log. What was read before the ring began where it is now is passed over.
    pub fn push(&mut self, offset: i64, bytes: usize, record: T) {
        if offset < self.to || self.followers.is_empty() {
            return;
        }
        self.to = offset + 1;
        self.bytes += bytes;
        self.ended = false;
        self.entries.push_back(Entry { offset, bytes, record });
        self.trim();
    }

    fn trim(&mut self) {
        while self.bytes > self.room
            && self.entries.len() > 1
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= oldest.bytes;
            self.from = oldest.offset + 1;
        }
    }

    /// It holds so many bytes from now on.
    pub fn hold(&mut self, room: usize) {
        self.room = room;
        self.trim();
    }

    /// The log has no more for now.
    pub fn ended(&mut self) {
        self.ended = true;
    }

    /// What it holds now.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Hands the next records to a follower, up to so many.
    pub fn take(&mut self, who: Who, most: usize, take: &mut dyn FnMut(T)) -> Taken {
        let Ring { followers, entries, from, to, ended, .. } = self;
        let Some(at) = followers.get_mut(&who) else { return Taken::Gone };
        if *at < *from {
            followers.remove(&who);
            return Taken::Gone;
        }
        let first = entries.partition_point(|entry| entry.offset < *at);
        let mut taken = 0;
        for entry in entries.range(first..).take(most) {
            *at = entry.offset + 1;
            taken += 1;
            take(entry.record.clone());
        }
        match taken {
            0 => {
                *at = *to;
                Taken::Nothing { ended: *ended }
            }
            taken => Taken::Records(taken),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nobody_waits_for_anybody_and_who_falls_off_comes_back() {
        let mut ring = Ring::new(100);
        assert_eq!([ring.follow(1, 7), ring.follow(2, 7)], [Joined::Begins, Joined::Follows]);
        for offset in 7..27 {
            ring.push(offset, 10, offset);
        }
        let mut got = Vec::new();
        assert_eq!(ring.take(1, 99, &mut |r| got.push(r)), Taken::Gone, "it holds ten");
        assert_eq!(ring.follow(1, 7), Joined::Alone);
        assert_eq!(ring.follow(1, 18), Joined::Alone, "it would fall off at once");
        assert_eq!(ring.follow(1, 21), Joined::Follows);
        assert_eq!(ring.take(1, 2, &mut |r| got.push(r)), Taken::Records(2));
        assert_eq!(ring.take(1, 99, &mut |r| got.push(r)), Taken::Records(4));
        assert_eq!(got, [21, 22, 23, 24, 25, 26]);
        assert_eq!(ring.take(1, 99, &mut |_| ()), Taken::Nothing { ended: false });
        ring.ended();
        assert_eq!(ring.take(1, 99, &mut |_| ()), Taken::Nothing { ended: true });
        ring.push(27, 10, 27);
        assert_eq!(ring.take(1, 99, &mut |r| got.push(r)), Taken::Records(1));
        assert_eq!(ring.take(1, 99, &mut |_| ()), Taken::Nothing { ended: false });
    }

    #[test]
    fn who_is_far_ahead_takes_the_ring_along() {
        let mut ring = Ring::new(100);
        ring.follow(1, 0);
        ring.push(0, 10, ());
        assert_eq!(ring.follow(2, 900), Joined::Alone, "the first is about to come there");
        assert_eq!(ring.follow(2, 5000), Joined::Begins);
        assert_eq!(ring.take(1, 9, &mut |()| ()), Taken::Gone);
        // What was on its way from where it was before is passed over.
        ring.push(1, 10, ());
        assert_eq!((ring.is_drained(2), ring.bytes()), (true, 0));
        ring.leave(2);
        assert!(!ring.is_followed());
        assert_eq!(ring.follow(1, 1), Joined::Begins);
        ring.fail();
        assert_eq!(ring.take(1, 9, &mut |()| ()), Taken::Gone);
    }

    /// A reader: where it goes on, and whether it follows.
    #[derive(Debug, Clone, Copy)]
    struct Reader {
        at: i64,
        follows: bool,
    }

    proptest! {
        /// Whatever the order of events, each reader gets each record of the log once and in order.
        #[test]
        fn each_reader_gets_each_record_once(
            room in 1usize..400,
            marks in proptest::collection::vec(any::<bool>(), 1..300),
            steps in proptest::collection::vec((0usize..3, 0u8..6, 1usize..20), 1..600),
        ) {
            // Offsets of records; the others are marks of transactions.
            let log: Vec<i64> = (0..).zip(&marks).filter(|(_, mark)| !**mark).map(|(at, _)| at).collect();
            let mut ring = Ring::new(room);
            let mut readers = [Reader { at: 0, follows: false }; 3];
            let mut got = [const { Vec::new() }; 3];
            // Where the ring's own reader goes on.
            let mut fetched = 0;
            for (who, what, n) in steps {
                let reader = &mut readers[who];
                match what {
                    0 if !reader.follows => match ring.follow(who as Who, reader.at) {
                        Joined::Alone => {}
                        Joined::Follows => reader.follows = true,
                        Joined::Begins => (reader.follows, fetched) = (true, reader.at),
                    },
                    1 if reader.follows && n == 1 => {
                        ring.leave(who as Who);
                        reader.follows = false;
                    }
                    2 if who == 0 && n == 1 => ring.fail(),
                    _ if reader.follows => {
                        if ring.is_drained(who as Who) {
                            let from = log.partition_point(|at| *at < fetched);
                            for at in log[from..].iter().take(n) {
                                ring.push(*at, 17, *at);
                                fetched = at + 1;
                            }
                        }
                        let took = ring.take(who as Who, n, &mut |at| got[who].push(at));
                        reader.at = got[who].last().map_or(reader.at, |last| (last + 1).max(reader.at));
                        reader.follows = took != Taken::Gone;
                    }
                    _ => {
                        let from = log.partition_point(|at| *at < reader.at);
                        got[who].extend(log[from..].iter().take(n));
                        reader.at = got[who].last().map_or(reader.at, |last| last + 1);
                    }
                }
                prop_assert!(ring.bytes() <= room.max(17));
            }
            for (reader, got) in readers.iter().zip(&got) {
                let due: Vec<i64> = log.iter().copied().filter(|at| *at < reader.at).collect();
                prop_assert_eq!(got, &due);
            }
        }
    }
}
