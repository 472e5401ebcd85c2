//! One side of the join: entries in the order of their offsets, found by up to four keys.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::Place;
use crate::decision::time::Nanos;

/// By decision id, by trace, by request id, by object of Kubernetes. A key is the hash of an id under a seed of this
/// process; 0 is none. Of ten million entries one look-up in 10^12 meets a stranger.
pub type Keys = [u64; 4];
pub const DECISION: usize = 0;
pub const TRACE: usize = 1;
pub const REQUEST: usize = 2;
pub const OBJECT: usize = 3;

/// Not a slot.
const NONE: u32 = u32::MAX;

/// The keys are hashes already.
#[derive(Default)]
pub struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*b);
        }
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

/// The entries of one key, the oldest first: the first and the last.
type Chains = HashMap<u64, (u32, u32), BuildHasherDefault<AsItIs>>;

pub struct Store<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    chains: [Chains; 4],
    parts: BTreeMap<u32, Part>,
    bytes: usize,
}

struct Entry<T> {
    keys: Keys,
    next: [u32; 4],
    place: Place,
    time: Nanos,
    bytes: u32,
    item: Option<T>,
}

/// The entries of a partition, in the order of their offsets.
#[derive(Default)]
struct Part {
    order: VecDeque<u32>,
    /// How many at the front have been judged.
    judged: usize,
    /// Behind the last offset that was seen.
    next: i64,
    /// The latest time of what is not here any more; 0 is none.
    since: Nanos,
    /// Of what has not been judged: from when on the other side is needed, each with its offset. What comes after an
    /// entry and needs more stands for it.
    needs: VecDeque<(i64, Nanos)>,
}

/// When an entry happened, and from when on its judgement needs the other side.
#[derive(Debug, Clone, Copy)]
pub struct When {
    pub time: Nanos,
    pub needs: Nanos,
}

impl Part {
    /// Up to there nothing is needed any more.
    fn over(&mut self, offset: i64) {
        while self.needs.front().is_some_and(|(at, _)| *at <= offset) {
            self.needs.pop_front();
        }
    }
}

/// What an entry takes beside what its item does: itself, its place in the order, what it needs, and each key in its
/// index.
const fn own<T>() -> usize {
    size_of::<Entry<T>>() + size_of::<u32>() + size_of::<(i64, Nanos)>()
}
const KEY: usize = 20;

impl<T> Store<T> {
    pub fn new() -> Store<T> {
        Store {
            entries: Vec::new(),
            free: Vec::new(),
            chains: [const { HashMap::with_hasher(BuildHasherDefault::new()) }; 4],
            parts: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Takes an item whose heap has so many bytes.
    pub fn insert(&mut self, place: Place, when: When, keys: Keys, item: T, heap: usize) -> u32 {
        let time = when.time;
        let bytes = own::<T>() + heap + KEY * keys.iter().filter(|key| **key != 0).count();
        self.bytes += bytes;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let entry = Entry { keys, next: [NONE; 4], place, time, bytes, item: Some(item) };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.entries[slot as usize] = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        for (which, key) in keys.into_iter().enumerate().filter(|(_, key)| *key != 0) {
            let chain = self.chains[which].entry(key).or_insert((slot, NONE));
            if chain.1 != NONE {
                self.entries[chain.1 as usize].next[which] = slot;
            }
            chain.1 = slot;
        }
        let part = self.parts.entry(place.partition).or_default();
        part.order.push_back(slot);
        part.next = part.next.max(place.offset + 1);
        while part.needs.back().is_some_and(|(_, needs)| *needs >= when.needs) {
            part.needs.pop_back();
        }
        part.needs.push_back((place.offset, when.needs));
        slot
    }

    /// An offset that holds nothing for the join.
    pub fn passed(&mut self, place: Place) {
        let part = self.parts.entry(place.partition).or_default();
        part.next = part.next.max(place.offset + 1);
    }

    pub fn get(&self, slot: u32) -> Option<&T> {
        self.entries.get(slot as usize)?.item.as_ref()
    }

    pub fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.entries.get_mut(slot as usize)?.item.as_mut()
    }

    pub fn keys(&self, slot: u32) -> Keys {
        self.entries[slot as usize].keys
    }

    pub fn place(&self, slot: u32) -> Place {
        self.entries[slot as usize].place
    }

    pub fn time(&self, slot: u32) -> Nanos {
        self.entries[slot as usize].time
    }

    /// The entries with a key, the oldest first.
    pub fn with(&self, which: usize, key: u64) -> impl Iterator<Item = u32> + '_ {
        let there = |slot: u32| (slot != NONE).then_some(slot);
        let first = match key {
            0 => None,
            _ => self.chains[which].get(&key).map(|chain| chain.0),
        };
        std::iter::successors(first, move |slot| there(self.entries[*slot as usize].next[which]))
    }

    /// A partition went elsewhere.
    pub fn forget(&mut self, partition: u32) {
        self.parts.remove(&partition);
    }

    /// The first entry of a partition that has not been judged.
    pub fn unjudged(&self, partition: u32) -> Option<u32> {
        let part = self.parts.get(&partition)?;
        part.order.get(part.judged).copied()
    }

    pub fn judged(&mut self, partition: u32) {
        let Some(part) = self.parts.get_mut(&partition) else { return };
        let Some(slot) = part.order.get(part.judged) else { return };
        part.judged += 1;
        part.over(self.entries[*slot as usize].place.offset);
    }

    /// From when on the other side is needed by what has not been judged.
    pub fn needs(&self) -> Nanos {
        let firsts = self.parts.values().filter_map(|part| part.needs.front());
        firsts.map(|(_, needs)| *needs).min().unwrap_or(Nanos::MAX)
    }

    /// What is older may be missing: of a partition, or of all.
    pub fn since(&self, partition: Option<u32>) -> Nanos {
        match partition {
            Some(partition) => self.parts.get(&partition).map_or(0, |part| part.since),
            None => self.parts.values().map(|part| part.since).max().unwrap_or(0),
        }
    }

    /// What is older was known once and is not here any more.
    pub fn begins(&mut self, partition: u32, since: Nanos) {
        self.parts.entry(partition).or_default().since = since;
    }

    /// The first entry of a partition, and whether it has been judged.
    pub fn front(&self, partition: u32) -> Option<(u32, bool)> {
        let part = self.parts.get(&partition)?;
        Some((*part.order.front()?, part.judged > 0))
    }

    pub fn pop(&mut self, partition: u32) -> Option<T> {
        let part = self.parts.get_mut(&partition)?;
        let slot = part.order.pop_front()?;
        part.judged = part.judged.saturating_sub(1);
        let Place { offset, .. } = self.entries[slot as usize].place;
        part.over(offset);
        part.since = part.since.max(self.entries[slot as usize].time);
        for which in 0..4 {
            self.unlink(slot, which);
        }
        let entry = &mut self.entries[slot as usize];
        self.bytes -= entry.bytes as usize;
        self.free.push(slot);
        entry.item.take()
    }

    fn unlink(&mut self, slot: u32, which: usize) {
        let key = self.entries[slot as usize].keys[which];
        if key == 0 {
            return;
        }
        let after = self.entries[slot as usize].next[which];
        let Some(chain) = self.chains[which].get_mut(&key) else { return };
        if chain.0 == slot {
            match after {
                NONE => _ = self.chains[which].remove(&key),
                after => chain.0 = after,
            }
            return;
        }
        let mut before = chain.0;
        while self.entries[before as usize].next[which] != slot {
            before = self.entries[before as usize].next[which];
        }
        self.entries[before as usize].next[which] = after;
        if chain.1 == slot {
            chain.1 = before;
        }
    }

    pub fn partitions(&self) -> Vec<u32> {
        self.parts.keys().copied().collect()
    }

    /// The offset of the first entry of a partition, or the next one to come.
    pub fn lowest(&self, partition: u32) -> i64 {
        let Some(part) = self.parts.get(&partition) else { return 0 };
        part.order.front().map_or(part.next, |slot| self.place(*slot).offset)
    }

    pub fn lowest_unjudged(&self, partition: u32) -> i64 {
        let Some(part) = self.parts.get(&partition) else { return 0 };
        part.order.get(part.judged).map_or(part.next, |slot| self.place(*slot).offset)
    }

    pub fn next(&self, partition: u32) -> i64 {
        self.parts.get(&partition).map_or(0, |part| part.next)
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}
