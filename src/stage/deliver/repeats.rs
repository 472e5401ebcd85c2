//! Which decisions a sink got lately, so that one that stands in the docket twice is sent once to a sink
//! that would keep it twice. Bounded: so many decisions a partition, the oldest forgotten first. What
//! producers send twice has the same key, so it is in the same partition.
//!
//! A decision is its id and what is in it: another one under an id that was used is no repeat.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use foldhash::fast::RandomState as Fast;

use crate::log::value::Identity;

/// What the window of a partition and epoch is filled with, the oldest first.
pub(super) type Filling = (i32, u64, VecDeque<Identity>);

/// The latest decisions, so many of them.
#[derive(Default)]
pub(crate) struct Window {
    epoch: u64,
    /// It was filled from the log.
    filled: bool,
    order: VecDeque<Identity>,
    /// By id, which is its decision's alone but for few.
    known: HashMap<u128, Known, Fast>,
    /// Decisions under an id that another one had.
    others: HashSet<Identity, Fast>,
}

/// What is known under an id.
struct Known {
    /// Of one decision,
    content: u64,
    /// which may have been forgotten.
    forgotten: bool,
    /// How many others there are.
    others: u32,
}

/// What a decision is to the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noted {
    New,
    Repeat,
    /// Another decision had its id.
    Reused,
}

pub(super) struct Repeats {
    /// How many decisions are remembered to drop repeats; 0 drops none.
    size: usize,
    /// How many are remembered; at least as many.
    known: usize,
    windows: BTreeMap<i32, Window>,
}

impl Repeats {
    /// Windows of `known` decisions, to notice other decisions under their IDs; and to drop repeats, unless `size` is 0.
    pub(super) fn new(size: usize, known: usize) -> Repeats {
        Repeats { size, known, windows: BTreeMap::new() }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// A partition was assigned anew: its window begins anew.
    pub(super) fn begin(&mut self, partition: i32, epoch: u64) {
        self.windows.insert(partition, Window { epoch, ..Window::default() });
    }

    /// What stood in the log before what was read first.
    pub(super) fn fill(&mut self, (partition, epoch, decisions): Filling) {
        let size = self.size;
        if let Some(window) = self.windows.get_mut(&partition).filter(|w| w.epoch == epoch) {
            for identity in decisions {
                window.note(identity, size);
            }
            window.filled = true;
        }
    }

    /// Whether the window of a partition is still being filled from the log.
    pub(super) fn is_cold(&self, partition: i32, epoch: u64) -> bool {
        let unfilled = |w: &Window| w.epoch == epoch && !w.filled;
        self.size > 0 && self.windows.get(&partition).is_some_and(unfilled)
    }

    /// Takes note of a decision. One that was read under an assignment that has ended may never be sent, so it is in no window.
    pub(super) fn note(&mut self, partition: i32, epoch: u64, identity: Identity) -> Noted {
        let Repeats { size, known, .. } = *self;
        match self.windows.get_mut(&partition).filter(|window| window.epoch == epoch) {
            Some(window) if known > 0 => match window.note(identity, known) {
                Noted::Repeat if size == 0 => Noted::New,
                noted => noted,
            },
            _ => Noted::New,
        }
    }
}

impl Window {
    pub(crate) fn note(&mut self, identity: Identity, size: usize) -> Noted {
        let (id, content) = identity;
        let noted = match self.known.entry(id) {
            Entry::Vacant(free) => {
                free.insert(Known { content, forgotten: false, others: 0 });
                Noted::New
            }
            Entry::Occupied(mut used) => {
                let known = used.get_mut();
                let repeat = known.content == content && !known.forgotten
                    || known.others > 0 && self.others.contains(&identity);
                if repeat {
                    return Noted::Repeat;
                }
                if known.forgotten {
                    (known.content, known.forgotten) = (content, false);
                } else {
                    self.others.insert(identity);
                    known.others += 1;
                }
                Noted::Reused
            }
        };
        self.order.push_back(identity);
        if self.order.len() > size
            && let Some(oldest) = self.order.pop_front()
        {
            self.forget(oldest);
        }
        noted
    }

    fn forget(&mut self, oldest: Identity) {
        let Entry::Occupied(mut used) = self.known.entry(oldest.0) else { return };
        let known = used.get_mut();
        if known.content == oldest.1 && !known.forgotten {
            known.forgotten = true;
        } else if self.others.remove(&oldest) {
            known.others -= 1;
        }
        if known.forgotten && known.others == 0 {
            used.remove();
        }
    }

    /// How many decisions it knows, in what order, and of how many ids.
    #[cfg(test)]
    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        {
            let first = self.known.values().filter(|known| !known.forgotten).count();
            (first + self.others.len(), self.known.len(), self.order.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::value::identity_of;

    fn is_new(repeats: &mut Repeats, partition: i32, epoch: u64, id: &str) -> bool {
        repeats.note(partition, epoch, identity_of(id, "{}")) == Noted::New
    }

    #[test]
    fn a_window_forgets_the_oldest_first_and_knows_partitions_apart() {
        let mut repeats = Repeats::new(2, 2);
        repeats.begin(0, 1);
        repeats.begin(1, 2);
        let (r, note) = (&mut repeats, is_new);
        assert!(note(r, 0, 1, "a") && note(r, 0, 1, "b") && !note(r, 0, 1, "a"));
        assert!(note(r, 1, 2, "a"), "another partition");
        assert!(note(r, 0, 1, "c") && note(r, 0, 1, "a"), "a was forgotten for c");
        r.begin(0, 3);
        assert!(note(r, 0, 1, "b"), "of the assignment before");
        assert!(note(r, 0, 3, "b") && note(r, 0, 3, "c"), "a new one begins anew");
        let mut off = Repeats::new(0, 0);
        assert!(note(&mut off, 0, 1, "a") && note(&mut off, 0, 1, "a"));
    }

    #[test]
    fn a_window_is_cold_until_it_is_filled_for_its_own_assignment() {
        let mut repeats = Repeats::new(9, 9);
        repeats.begin(0, 1);
        assert!(repeats.is_cold(0, 1) && !repeats.is_cold(0, 7) && !repeats.is_cold(1, 1));
        let filling = |epoch, id| (0, epoch, VecDeque::from([identity_of(id, "{}")]));
        repeats.begin(0, 2);
        // What was read back for the assignment before comes too late.
        repeats.fill(filling(1, "b"));
        assert!(repeats.is_cold(0, 2));
        repeats.fill(filling(2, "c"));
        assert!(!repeats.is_cold(0, 2));
        let r = &mut repeats;
        assert!(is_new(r, 0, 2, "a") && is_new(r, 0, 2, "b") && !is_new(r, 0, 2, "c"));
    }

    #[test]
    fn another_decision_under_a_used_id_is_no_repeat() {
        let mut repeats = Repeats::new(3, 3);
        repeats.begin(0, 1);
        let mut note = |id: &str, content: &str| repeats.note(0, 1, identity_of(id, content));
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

    /// The budget counts windows by what they take, not by what is in them.
    #[test]
    fn a_window_takes_what_the_budget_counts() {
        let table = |capacity: usize, entry: usize| capacity.div_ceil(7) * 8 * (entry + 1);
        for size in [1000, 7000, 10_000] {
            let (mut window, mut most) = (Window::default(), (0, 0, 0));
            for n in 0..20 * size as u64 {
                // In the end all decisions have one id.
                let (id, _) = identity_of(&n.min(10 * size as u64).to_string(), "");
                window.note((id, n), size);
                let Window { order, known, others, .. } = &window;
                most.0 = order.capacity().max(most.0);
                // With what was forgotten in between it is less.
                most.1 = known.capacity().max(most.1);
                most.2 = others.capacity().max(most.2);
            }
            let taken = most.0 * size_of::<Identity>()
                + table(most.1, size_of::<(u128, Known)>())
                + table(most.2, size_of::<Identity>());
            let counted = crate::pipeline::memory::window(size);
            assert!((counted / 2..=counted).contains(&taken), "{size}: {taken} of {counted}");
        }
    }

    #[test]
    fn where_repeats_are_kept_another_decision_under_a_used_id_is_noticed() {
        let mut repeats = Repeats::new(0, 2);
        repeats.begin(0, 1);
        assert!(!repeats.is_cold(0, 1), "nothing is read back");
        let mut note = |id: &str, content: &str| repeats.note(0, 1, identity_of(id, content));
        assert_eq!(note("a", "allowed"), Noted::New);
        assert_eq!(note("a", "allowed"), Noted::New);
        assert_eq!(note("a", "denied"), Noted::Reused);
    }
}
