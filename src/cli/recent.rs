//! Decisions that come more than once count once, wherever decisions are counted.

use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasher;

use super::offline::Timed;
use crate::decision::record::Record;
use crate::words::counted;

/// The last decisions, so that one that came twice, as when OPA uploads it again, counts once. A sink's window of repeats knows who has
/// which ID, too, and takes eight times as much for each.
#[derive(Default)]
pub struct Recent {
    hasher: std::hash::RandomState,
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Recent {
    const MOST: usize = 1 << 20;

    /// Whether it came before.
    pub fn has(&mut self, record: &Record<'_>) -> bool {
        let one = self.hasher.hash_one((&record.decision_id, record.original()));
        if !self.known.insert(one) {
            return true;
        }
        self.order.push_back(one);
        if self.order.len() > Recent::MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        false
    }
}

/// Leaves out what came before; returns how many that were.
pub fn once(all: &mut Vec<Timed>) -> u64 {
    let (before, mut recent) = (all.len(), Recent::default());
    all.retain(|(_, bytes)| !Record::parse(bytes).is_ok_and(|record| recent.has(&record)));
    (before - all.len()) as u64
}

/// What is said of repeats, behind what else there is to say.
pub fn left_out(repeats: u64) -> String {
    match repeats {
        0 => String::new(),
        n => format!("; {} of what came before, left out", counted(n, "repeat")),
    }
}
