//! Which decisions a sink got lately, so that one that stands in the docket twice is sent once to a sink
//! that would keep it twice. Bounded: so many decisions a partition, the oldest forgotten first. What
//! producers send twice has the same key, so it is in the same partition.
//!
//! A decision is its id and what is in it: another one under an id that was used is no repeat.

use std::collections::hash_map::{DefaultHasher, RandomState};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash, Hasher};

use crate::decision::record::Record;

/// A decision: its id and its content.
type Identity = (u128, u64);

#[derive(Default)]
struct Window {
    epoch: u64,
    order: VecDeque<Identity>,
    known: HashSet<Identity>,
    /// How many of them have this id.
    ids: HashMap<u128, u32>,
}

/// What a decision is to the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    New,
    Repeat,
    /// Another decision had its id.
    Reused,
}

pub(super) struct Repeats {
    size: usize,
    windows: BTreeMap<i32, Window>,
    /// Its key is this process' own: nobody can make up two contents that look alike.
    contents: RandomState,
}

impl Repeats {
    /// Windows of `size` decisions; 0 looks for no repeats.
    pub(super) fn new(size: usize) -> Repeats {
        Repeats { size, windows: BTreeMap::new(), contents: RandomState::new() }
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

    /// Takes note of a decision.
    pub(super) fn note(&mut self, partition: i32, record: &Record<'_>) -> Noted {
        self.noted(partition, &record.decision_id, record.original())
    }

    fn noted(&mut self, partition: i32, decision_id: &str, content: &str) -> Noted {
        if self.size == 0 {
            return Noted::New;
        }
        let identity = (fingerprint(decision_id), self.contents.hash_one(content));
        let window = self.windows.entry(partition).or_default();
        if !window.known.insert(identity) {
            return Noted::Repeat;
        }
        let same = window.ids.entry(identity.0).or_default();
        *same += 1;
        let noted = if *same > 1 { Noted::Reused } else { Noted::New };
        window.order.push_back(identity);
        if window.order.len() > self.size
            && let Some(oldest) = window.order.pop_front()
        {
            window.known.remove(&oldest);
            if let Some(same) = window.ids.get_mut(&oldest.0) {
                *same -= 1;
                if *same == 0 {
                    window.ids.remove(&oldest.0);
                }
            }
        }
        noted
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
        let is_new = |r: &mut Repeats, partition, id| r.noted(partition, id, "{}") == Noted::New;
        assert!(repeats.is_cold(0, 1) && !repeats.is_cold(0, 1));
        assert!(is_new(&mut repeats, 0, "a") && is_new(&mut repeats, 0, "b"));
        assert!(!is_new(&mut repeats, 0, "a"));
        assert!(is_new(&mut repeats, 1, "a"), "another partition");
        assert!(
            is_new(&mut repeats, 0, "c") && is_new(&mut repeats, 0, "a"),
            "a was forgotten for c"
        );
        assert!(
            repeats.is_cold(0, 2) && is_new(&mut repeats, 0, "c"),
            "a new assignment begins anew"
        );
        let mut off = Repeats::new(0);
        assert!(!off.is_cold(0, 1) && is_new(&mut off, 0, "a") && is_new(&mut off, 0, "a"));
    }

    #[test]
    fn another_decision_under_a_used_id_is_no_repeat() {
        let mut repeats = Repeats::new(3);
        let mut note = |id: &str, content: &str| repeats.noted(0, id, content);
        assert_eq!(note("a", "allowed"), Noted::New);
        assert_eq!(note("a", "denied"), Noted::Reused);
        assert_eq!(note("a", "denied"), Noted::Repeat);
        assert_eq!(note("a", "allowed"), Noted::Repeat);
        assert_eq!(note("b", "allowed"), Noted::New);
        // The first is forgotten for the fourth; the second still has the id, and then nobody.
        assert_eq!(note("c", ""), Noted::New);
        assert_eq!(note("a", "allowed"), Noted::Reused);
        (0..3).for_each(|i| assert_eq!(note(&format!("d{i}"), ""), Noted::New));
        assert_eq!(note("a", "denied"), Noted::New);
    }

    #[test]
    fn ids_are_told_apart_in_any_form() {
        let uuid = "8f2d6c1e-0000-4000-8000-000000000001";
        assert_ne!(fingerprint(uuid), fingerprint("8f2d6c1e-0000-4000-8000-000000000002"));
        assert_ne!(fingerprint("a"), fingerprint("b"));
        assert_eq!(fingerprint("a"), fingerprint("a"));
    }
}
