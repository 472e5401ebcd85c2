//! Which offsets may be committed. Records are taken in order and finished in any order; an offset is
//! safe to commit only when every record below it is finished.

use std::collections::{BTreeMap, VecDeque};

/// A stretch of one partition that a batch took, from the first to the last record, under one assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub partition: i32,
    /// Tells assignments of the same partition apart: what finishes after a revoke must not count for the next owner.
    pub epoch: u64,
    pub first: i64,
    pub last: i64,
}

#[derive(Debug, Default)]
struct Partition {
    epoch: u64,
    /// Taken and not committable yet, in order; with the time of its oldest decision.
    open: VecDeque<Open>,
    /// All below it is finished; nothing is, before the first segment.
    done: Option<i64>,
    committed: Option<i64>,
}

#[derive(Debug)]
struct Open {
    first: i64,
    last: i64,
    oldest: i64,
    finished: bool,
}

/// The low watermarks of one group member on one topic.
#[derive(Debug, Default)]
pub struct Offsets {
    partitions: BTreeMap<i32, Partition>,
    epochs: u64,
}

impl Offsets {
    /// A partition was assigned. Returns its epoch.
    pub fn assign(&mut self, partition: i32) -> u64 {
        self.epochs += 1;
        let epoch = self.epochs;
        self.partitions.insert(partition, Partition { epoch, ..Partition::default() });
        epoch
    }

    /// A partition was revoked: what is in flight of it will count no more.
    pub fn revoke(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }

    pub fn epoch(&self, partition: i32) -> Option<u64> {
        self.partitions.get(&partition).map(|p| p.epoch)
    }

    pub fn is_current(&self, segment: &Segment) -> bool {
        self.epoch(segment.partition) == Some(segment.epoch)
    }

    /// A batch took a segment; segments of a partition come in order. `oldest` is the time of its oldest
    /// decision, in nanoseconds.
    pub fn take(&mut self, segment: Segment, oldest: i64) {
        let Some(partition) = self.partitions.get_mut(&segment.partition) else { return };
        if partition.epoch != segment.epoch {
            return;
        }
        debug_assert!(partition.open.back().is_none_or(|open| open.last < segment.first));
        partition.open.push_back(Open {
            first: segment.first,
            last: segment.last,
            oldest,
            finished: false,
        });
    }

    /// Nothing below this is there to be read any more, and that was told: it is done with.
    pub fn begin_at(&mut self, partition: i32, epoch: u64, offset: i64) {
        let current = self.partitions.get_mut(&partition).filter(|p| p.epoch == epoch);
        if let Some(partition) = current.filter(|p| p.done.is_none()) {
            partition.done = Some(offset);
        }
    }

    /// What was on its way to Kafka did not get there.
    pub fn not_committed(&mut self, partition: i32) {
        if let Some(partition) = self.partitions.get_mut(&partition) {
            partition.committed = None;
        }
    }

    /// Every record of a segment was delivered or is in rejects.
    pub fn finish(&mut self, segment: &Segment) {
        let Some(partition) = self.partitions.get_mut(&segment.partition) else { return };
        if partition.epoch != segment.epoch {
            return;
        }
        if let Some(open) = partition.open.iter_mut().find(|open| open.first == segment.first) {
            open.finished = true;
        }
        while partition.open.front().is_some_and(|open| open.finished) {
            if let Some(open) = partition.open.pop_front() {
                partition.done = Some(open.last + 1);
            }
        }
    }

    /// Offsets that may be committed and are not yet.
    pub fn committable(&self) -> Vec<(i32, i64)> {
        let ready = |(id, partition): (&i32, &Partition)| {
            let done = partition.done?;
            (partition.committed != Some(done)).then_some((*id, done))
        };
        self.partitions.iter().filter_map(ready).collect()
    }

    pub fn committed(&mut self, partition: i32, offset: i64) {
        if let Some(partition) = self.partitions.get_mut(&partition) {
            partition.committed = Some(offset);
        }
    }

    /// For each partition the offset below which all is finished (none before the first), and the time of its
    /// oldest decision that is in flight.
    pub fn progress(&self) -> Vec<(i32, Option<i64>, Option<i64>)> {
        let mut all: Vec<_> = self
            .partitions
            .iter()
            .map(|(id, p)| {
                (*id, p.done, p.open.iter().filter(|o| !o.finished).map(|o| o.oldest).min())
            })
            .collect();
        all.sort_unstable();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_hole_holds_the_commit_back() {
        let mut offsets = Offsets::default();
        let epoch = offsets.assign(0);
        let segment = |first, last| Segment { partition: 0, epoch, first, last };
        for (first, last) in [(5, 9), (10, 12), (20, 20)] {
            offsets.take(segment(first, last), first);
        }
        assert_eq!(offsets.committable(), []);
        offsets.finish(&segment(10, 12));
        assert_eq!(offsets.committable(), []);
        offsets.finish(&segment(5, 9));
        assert_eq!(offsets.committable(), [(0, 13)]);
        assert_eq!(offsets.progress(), [(0, Some(13), Some(20))]);
        offsets.committed(0, 13);
        assert_eq!(offsets.committable(), []);
        offsets.finish(&segment(20, 20));
        assert_eq!(offsets.committable(), [(0, 21)]);
    }

    #[test]
    fn what_finishes_after_a_revoke_does_not_count_for_the_next_assignment() {
        let mut offsets = Offsets::default();
        let old = Segment { partition: 0, epoch: offsets.assign(0), first: 0, last: 9 };
        offsets.take(old, 0);
        offsets.revoke(0);
        let new = Segment { epoch: offsets.assign(0), ..old };
        offsets.take(new, 0);
        offsets.finish(&old);
        assert!(!offsets.is_current(&old));
        assert_eq!(offsets.committable(), []);
        offsets.finish(&new);
        assert_eq!(offsets.committable(), [(0, 10)]);
    }

    #[test]
    fn what_is_gone_is_done_with_once_and_a_commit_that_fails_is_made_again() {
        let mut offsets = Offsets::default();
        let (old, epoch) = (offsets.assign(0), offsets.assign(0));
        offsets.begin_at(0, old, 7);
        assert_eq!(offsets.committable(), [], "of the assignment before");
        offsets.begin_at(0, epoch, 5);
        assert_eq!(offsets.committable(), [(0, 5)]);
        offsets.committed(0, 5);
        let segment = Segment { partition: 0, epoch, first: 5, last: 9 };
        offsets.take(segment, 0);
        offsets.begin_at(0, epoch, 3);
        assert_eq!(offsets.committable(), []);
        offsets.not_committed(0);
        assert_eq!(offsets.committable(), [(0, 5)]);
        offsets.committed(0, 5);
        offsets.finish(&segment);
        assert_eq!(offsets.committable(), [(0, 10)]);
        offsets.not_committed(1);
    }

    proptest! {
        /// Whatever order segments finish in: never past an unfinished one, and past all when all are finished.
        #[test]
        fn the_low_watermark_never_passes_an_unfinished_record(sizes in prop::collection::vec(1i64..5, 1..30), order in any::<prop::sample::Index>(), seed in any::<u64>()) {
            let mut offsets = Offsets::default();
            let epoch = offsets.assign(3);
            let mut next = 100;
            let mut segments = Vec::new();
            for size in sizes {
                let segment = Segment { partition: 3, epoch, first: next, last: next + size - 1 };
                offsets.take(segment, 0);
                segments.push(segment);
                next += size + 1; // a gap, as transaction markers leave
            }
            let mut left = segments.clone();
            let mut state = seed.wrapping_add(order.index(1 << 20) as u64);
            while !left.is_empty() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let segment = left.remove((state >> 33) as usize % left.len());
                offsets.finish(&segment);
                for (_, offset) in offsets.committable() {
                    prop_assert!(left.iter().all(|s| s.first >= offset));
                    offsets.committed(3, offset);
                }
            }
            prop_assert_eq!(offsets.progress()[0].1, Some(segments.last().unwrap().last + 1));
        }
    }
}
