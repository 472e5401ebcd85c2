//! Which decisions a sink got lately, so that one that stands in the docket twice is sent once to a sink
//! that would keep it twice. Bounded: so many decision ids a partition, the oldest forgotten first. What
//! producers send twice has the same key, so it is in the same partition.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};

/// What the window of a partition and epoch is filled with, the oldest first.
pub(super) type Filling = (i32, u64, VecDeque<u128>);

#[derive(Default)]
struct Window {
    epoch: u64,
    /// It was filled from the log.
    filled: bool,
    order: VecDeque<u128>,
    ids: HashSet<u128>,
}

pub(super) struct Repeats {
    size: usize,
    windows: BTreeMap<i32, Window>,
}

impl Repeats {
    /// Windows of `size` decision ids; 0 looks for no repeats.
    pub(super) fn new(size: usize) -> Repeats {
        Repeats { size, windows: BTreeMap::new() }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// A partition was assigned anew: its window begins anew.
    pub(super) fn begin(&mut self, partition: i32, epoch: u64) {
        self.windows.insert(partition, Window { epoch, ..Window::default() });
    }

    /// What stood in the log before what was read first.
    pub(super) fn fill(&mut self, (partition, epoch, ids): Filling) {
        let size = self.size;
        if let Some(window) = self.windows.get_mut(&partition).filter(|w| w.epoch == epoch) {
            for id in ids {
                window.note(id, size);
            }
            window.filled = true;
        }
    }

    /// Whether the window of a partition is still being filled from the log.
    pub(super) fn is_cold(&self, partition: i32, epoch: u64) -> bool {
        self.windows.get(&partition).is_some_and(|w| w.epoch == epoch && !w.filled)
    }

    /// Takes note of a decision; `false` if it is in the window already. One that was read under an assignment that has
    /// ended may never be sent, so it is in no window.
    pub(super) fn note(&mut self, partition: i32, epoch: u64, decision_id: &str) -> bool {
        let size = self.size;
        match self.windows.get_mut(&partition).filter(|window| window.epoch == epoch) {
            Some(window) if size > 0 => window.note(fingerprint(decision_id), size),
            _ => true,
        }
    }
}

impl Window {
    fn note(&mut self, id: u128, size: usize) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > size
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

/// 128 bits of a decision id: a UUID as it is.
pub(super) fn fingerprint(id: &str) -> u128 {
    if let Ok(uuid) = uuid::Uuid::try_parse(id) {
        return uuid.as_u128();
    }
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, id).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_forgets_the_oldest_first_and_knows_partitions_apart() {
        let mut repeats = Repeats::new(2);
        repeats.begin(0, 1);
        repeats.begin(1, 2);
        let mut note = |partition, epoch, id| repeats.note(partition, epoch, id);
        assert!(note(0, 1, "a") && note(0, 1, "b") && !note(0, 1, "a"));
        assert!(note(1, 2, "a"), "another partition");
        assert!(note(0, 1, "c") && note(0, 1, "a"), "a was forgotten for c");
        repeats.begin(0, 3);
        assert!(repeats.note(0, 1, "b"), "of the assignment before");
        assert!(repeats.note(0, 3, "b") && repeats.note(0, 3, "c"), "a new one begins anew");
        let mut off = Repeats::new(0);
        assert!(off.note(0, 1, "a") && off.note(0, 1, "a"));
    }

    #[test]
    fn a_window_is_cold_until_it_is_filled_for_its_own_assignment() {
        let mut repeats = Repeats::new(9);
        repeats.begin(0, 1);
        assert!(repeats.is_cold(0, 1) && !repeats.is_cold(0, 7) && !repeats.is_cold(1, 1));
        let filling = |epoch, id| (0, epoch, VecDeque::from([fingerprint(id)]));
        repeats.begin(0, 2);
        // What was read back for the assignment before comes too late.
        repeats.fill(filling(1, "b"));
        assert!(repeats.is_cold(0, 2));
        repeats.fill(filling(2, "c"));
        assert!(!repeats.is_cold(0, 2));
        assert!(repeats.note(0, 2, "a") && repeats.note(0, 2, "b") && !repeats.note(0, 2, "c"));
    }

    #[test]
    fn ids_are_told_apart_in_any_form() {
        let uuid = "8f2d6c1e-0000-4000-8000-000000000001";
        assert_ne!(fingerprint(uuid), fingerprint("8f2d6c1e-0000-4000-8000-000000000002"));
        assert_ne!(fingerprint("a"), fingerprint("b"));
        assert_eq!(fingerprint("a"), fingerprint("a"));
    }
}
