//! Which decisions a sink got lately, so that one that stands in the docket twice is sent once to a sink
//! that would keep it twice. Bounded: so many decision ids a partition, the oldest forgotten first. What
//! producers send twice has the same key, so it is in the same partition.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};

#[derive(Default)]
struct Window {
    epoch: u64,
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

    /// Whether the window of a partition has to be filled from the log: it was assigned anew.
    pub(super) fn is_cold(&mut self, partition: i32, epoch: u64) -> bool {
        if self.size == 0 || self.windows.get(&partition).is_some_and(|w| w.epoch == epoch) {
            return false;
        }
        self.windows.insert(partition, Window { epoch, ..Window::default() });
        true
    }

    /// Takes note of a decision; `false` if it is in the window already.
    pub(super) fn note(&mut self, partition: i32, decision_id: &str) -> bool {
        if self.size == 0 {
            return true;
        }
        let id = fingerprint(decision_id);
        let window = self.windows.entry(partition).or_default();
        if !window.ids.insert(id) {
            return false;
        }
        window.order.push_back(id);
        if window.order.len() > self.size
            && let Some(oldest) = window.order.pop_front()
        {
            window.ids.remove(&oldest);
        }
        true
    }
}

/// 128 bits of a decision id: a UUID as it is.
fn fingerprint(id: &str) -> u128 {
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
        assert!(repeats.is_cold(0, 1) && !repeats.is_cold(0, 1));
        assert!(repeats.note(0, "a") && repeats.note(0, "b") && !repeats.note(0, "a"));
        assert!(repeats.note(1, "a"), "another partition");
        assert!(repeats.note(0, "c") && repeats.note(0, "a"), "a was forgotten for c");
        assert!(repeats.is_cold(0, 2) && repeats.note(0, "c"), "a new assignment begins anew");
        let mut off = Repeats::new(0);
        assert!(!off.is_cold(0, 1) && off.note(0, "a") && off.note(0, "a"));
    }

    #[test]
    fn ids_are_told_apart_in_any_form() {
        let uuid = "8f2d6c1e-0000-4000-8000-000000000001";
        assert_ne!(fingerprint(uuid), fingerprint("8f2d6c1e-0000-4000-8000-000000000002"));
        assert_ne!(fingerprint("a"), fingerprint("b"));
        assert_eq!(fingerprint("a"), fingerprint("a"));
    }
}
