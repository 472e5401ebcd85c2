//! The state machine.

mod judge;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use super::asked::object_key;
use super::finding::{Gaps, Rates};
use super::missing::Missing;
use super::position::Open;
use super::rank::{self, Rank};
use super::store::{DECISION, Keys, OBJECT, REQUEST, Store, TRACE, When};
use super::watermark::Watermarks;
use super::{
    Asked, Came, Class, Finding, FindingKind, Place, Position, Settings, Side, Undecidable, Watch,
};
use crate::decision::time::Nanos;
use crate::facts::{Fact, Kind, Packed};

/// A decision's match.
#[derive(Debug, Clone, Copy)]
pub struct Matched<'a> {
    pub class: Class,
    pub fact: Packed<'a>,
}

/// What is to be written. `D` is what the caller gave with a decision.
#[derive(Debug)]
pub enum Out<'a, D> {
    /// The decision goes on; each does so once.
    Decision {
        asked: &'a Asked,
        payload: D,
        matched: Option<Matched<'a>>,
        evicted: bool,
    },
    /// A match that came after the decision had gone on, or a better one. After a crash the last one may be told
    /// again. `replaces` is one of a decision that had another match, as far as is known after a crash.
    Amendment {
        asked: &'a Asked,
        matched: Matched<'a>,
        replaces: bool,
    },
    Finding(Finding),
}

/// Facts keep so much of a text.
fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(255)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

type Sink<'s, D> = &'s mut dyn FnMut(Out<'_, D>);

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Counts {
    pub decisions: u64,
    pub facts: u64,
    /// Decisions by the class with which they went on; `None` is without.
    pub matched: BTreeMap<Option<Class>, u64>,
    pub amended: BTreeMap<Class, u64>,
    pub late: BTreeMap<Side, u64>,
    pub evicted: BTreeMap<Side, u64>,
    pub findings: BTreeMap<FindingKind, u64>,
    /// Findings that were not told, since there were too many.
    pub suppressed: u64,
    pub undecidable: BTreeMap<Undecidable, u64>,
    /// Requests and decisions of which there is something to be said: that all is well, a finding, or that it can't be told.
    pub judged: u64,
    /// Denied and served as a dry run does.
    pub by_design: u64,
    /// How often decisions with a match began to wait for those before them, since a commit's metadata was full.
    pub held: u64,
}

struct Waiting<D> {
    asked: Asked,
    /// Until it goes on.
    payload: Option<D>,
    /// Of the match that was told.
    rank: Option<Rank>,
    /// By the wall clock.
    arrived: Nanos,
    was_judged: bool,
}

impl<D> Waiting<D> {
    fn given_out(&self) -> bool {
        self.payload.is_none()
    }
}

pub struct Join<D> {
    settings: Settings,
    watch: Watch,
    hash: RandomState,
    decisions: Store<Waiting<D>>,
    facts: Store<Box<[u8]>>,
    /// Decisions that have not gone on, of each partition: as offsets for the commit, and in the order in which
    /// they are due.
    open: BTreeMap<u32, Open>,
    due: BTreeMap<u32, VecDeque<u32>>,
    held: bool,
    restored: HashMap<(Side, u32), Position>,
    watermarks: [Watermarks; 2],
    gaps: [Gaps; 2],
    /// Of each side nothing that is older is still to come, as far as the caller knows.
    complete: [Nanos; 2],
    rates: Rates,
    counts: Counts,
}

impl<D> Join<D> {
    pub fn new(settings: Settings, watch: Watch) -> Join<D> {
        Join {
            settings,
            watch,
            hash: RandomState::new(),
            decisions: Store::new(),
            facts: Store::new(),
            open: BTreeMap::new(),
            due: BTreeMap::new(),
            held: false,
            restored: HashMap::new(),
            watermarks: Default::default(),
            gaps: Default::default(),
            complete: [Nanos::MAX; 2],
            rates: Rates::default(),
            counts: Counts::default(),
        }
    }

    /// A partition begins, at what was committed. It is to be read from `position.offset`.
    pub fn assign(&mut self, side: Side, partition: u32, position: Position, now: Nanos) {
        self.watermarks[side as usize].assign(partition, now);
        let before = Place { partition, offset: position.offset - 1 };
        match side {
            Side::Decisions => {
                self.decisions.passed(before);
                self.decisions.begins(partition, position.since);
            }
            Side::Facts => {
                self.facts.passed(before);
                self.facts.begins(partition, position.since);
            }
        }
        self.restored.insert((side, partition), position);
    }

    /// A partition went elsewhere: what is known of it is forgotten, since it is built again there.
    pub fn unassign(&mut self, side: Side, partition: u32) {
        self.watermarks[side as usize].remove(partition);
        self.restored.remove(&(side, partition));
        match side {
            Side::Decisions => {
                while self.decisions.pop(partition).is_some() {}
                self.decisions.forget(partition);
                self.open.remove(&partition);
                self.due.remove(&partition);
            }
            Side::Facts => {
                while self.facts.pop(partition).is_some() {}
                self.facts.forget(partition);
            }
        }
    }

    /// Takes a decision, and tells what follows.
    pub fn decision(
        &mut self,
        place: Place,
        asked: Asked,
        payload: D,
        came: impl Into<Came>,
        out: Sink<'_, D>,
    ) {
        let came @ Came { now, .. } = came.into();
        self.counts.decisions += 1;
        if self.settings.key.is_some_and(|key| !key.has_decision(&asked))
            && self.watch.enforces(&asked)
        {
            let around = self.settings.window + self.settings.skew;
            let (from, to) = (asked.time - around, asked.time + around);
            self.gaps[Side::Decisions as usize].add(from, to, Undecidable::NoKey);
        }
        self.saw(Side::Decisions, place.partition, asked.time, now);
        let keys = [
            self.key(cut(&asked.id).as_bytes()),
            asked.trace.map_or(0, |trace| self.key(&trace.to_bytes())),
            self.key(cut(&asked.request_id).as_bytes()),
            self.key(asked.object.as_bytes()),
        ];
        let restored = self.restored.get(&(Side::Decisions, place.partition));
        let given_out = restored.is_some_and(|position| position.given_out(place.offset));
        let was_judged = restored.is_some_and(|position| place.offset < position.judged);
        let (time, heap) = (self.happened(asked.time, came), asked.heap());
        // A request may begin so much before its decision.
        let before = 2 * self.settings.window + self.settings.skew;
        let needs = match self.watch.expects_requests {
            true => time.min(asked.time).saturating_sub(before),
            false => Nanos::MAX,
        };
        let needs = Self::if_there(needs, self.facts.since(None));
        let payload = (!given_out).then_some(payload);
        let waiting = Waiting { asked, payload, rank: None, arrived: now, was_judged };
        let slot = self.decisions.insert(place, When { time, needs }, keys, waiting, heap);
        let open = self.open.entry(place.partition).or_default();
        if given_out {
            open.add_done(place.offset);
        } else {
            open.add(place.offset);
            self.due.entry(place.partition).or_default().push_back(slot);
        }
        self.matched(slot, out);
        self.evict(out);
    }

    /// Takes a fact as it stands in its topic. Whether it is one.
    pub fn fact(
        &mut self,
        place: Place,
        bytes: &[u8],
        came: impl Into<Came>,
        out: Sink<'_, D>,
    ) -> bool {
        let Ok(fact) = Packed::of(bytes).fact() else {
            self.facts.passed(place);
            return false;
        };
        let came = came.into();
        self.counts.facts += 1;
        self.saw(Side::Facts, place.partition, fact.end, came.now);
        let time = self.happened(fact.end, came);
        let needs = Self::if_there(self.needs(&fact, time), self.decisions.since(None));
        let keys = self.keys_of(&fact);
        let boxed: Box<[u8]> = bytes.into();
        self.facts.insert(place, When { time, needs }, keys, boxed, bytes.len());
        let mut met: Vec<u32> = Vec::new();
        for (which, key) in keys.into_iter().enumerate() {
            for slot in self.decisions.with(which, key) {
                if !met.contains(&slot) {
                    met.push(slot);
                }
            }
        }
        for slot in met {
            self.matched(slot, out);
        }
        self.evict(out);
        true
    }

    /// An offset that holds no decision or fact.
    pub fn passed(&mut self, side: Side, place: Place) {
        match side {
            Side::Decisions => self.decisions.passed(place),
            Side::Facts => self.facts.passed(place),
        }
    }

    /// Takes a record that says that others of a time are missing: an OPA dropped them, or they went to rejects. It stays as
    /// long as what it bears on, so that a join that is built again from there knows it, too.
    pub fn missing(
        &mut self,
        side: Side,
        place: Place,
        Missing { from, to }: Missing,
        came: impl Into<Came>,
    ) {
        let came = came.into();
        self.gaps[side as usize].add(from, to, Undecidable::Gap);
        let when = When { time: self.happened(to, came), needs: Nanos::MAX };
        let keys = Keys::default();
        match side {
            Side::Decisions => {
                let asked = Asked::nothing(when.time);
                let arrived = came.now;
                let judged =
                    Waiting { asked, payload: None, rank: None, arrived, was_judged: true };
                self.decisions.insert(place, when, keys, judged, 0);
                self.open.entry(place.partition).or_default().add_done(place.offset);
            }
            Side::Facts => _ = self.facts.insert(place, when, keys, Box::default(), 0),
        }
    }

    /// A record that can't be read, of which nobody knows what it was: like one that went to rejects.
    pub fn lost(&mut self, side: Side, place: Place, came: impl Into<Came>) {
        let came = came.into();
        let from = came.written.saturating_sub(self.settings.delay);
        self.missing(side, place, Missing { from, to: came.written }, came);
    }

    /// What the caller knows of a side beyond its watermarks: all that happened before `through` is here. Nothing later
    /// than that is missed by anybody, so nothing of it is judged.
    pub fn complete(&mut self, side: Side, through: Nanos) {
        self.complete[side as usize] = through;
    }

    /// Time passes: what has waited long enough goes on, what is complete is judged, what is over is forgotten.
    /// To be called after each batch, and a few times a second.
    pub fn tick(&mut self, now: Nanos, out: Sink<'_, D>) {
        let low = self.lowest(now);
        self.release(now, low[Side::Facts as usize], out);
        // Of either side, whichever is judged: what else bears on a request may be of its own.
        let whole = low[0].min(low[1]).min(self.complete[0]).min(self.complete[1]);
        self.judge_facts(whole, out);
        self.judge_decisions(whole, out);
        self.forget(whole);
    }

    /// When something happened, as far as that can be: not after it was written down, and not longer ago than records
    /// may be late. Otherwise one wrong clock would hold up what comes after it, or be forgotten before it is needed.
    fn happened(&self, said: Nanos, came: Came) -> Nanos {
        let may = came.written.saturating_sub(self.settings.delay)..=came.written;
        if may.contains(&said) { said } else { came.written }
    }

    /// What is needed of the other side, if it is there.
    fn if_there(needs: Nanos, since: Nanos) -> Nanos {
        if needs <= since { Nanos::MAX } else { needs }
    }

    /// From when on decisions are needed to judge a request. One that took longer than the window isn't.
    fn needs(&self, fact: &Fact<'_>, happened: Nanos) -> Nanos {
        let Settings { window, skew, .. } = self.settings;
        let end = fact.end.min(happened);
        fact.start.min(end).max(end.saturating_sub(window)).saturating_sub(window + skew)
    }

    /// Where to commit a partition, with what was told so far, in one transaction.
    pub fn position(&self, side: Side, partition: u32) -> Position {
        let restored = self.restored.get(&(side, partition));
        let (offset, next, judged) = match side {
            Side::Decisions => {
                let store = &self.decisions;
                (store.lowest(partition), store.next(partition), store.lowest_unjudged(partition))
            }
            Side::Facts => {
                let store = &self.facts;
                (store.lowest(partition), store.next(partition), store.lowest_unjudged(partition))
            }
        };
        let mut open = match side {
            Side::Decisions => self.open.get(&partition).map(Open::runs).unwrap_or_default(),
            Side::Facts => Vec::new(),
        };
        // What is not read again yet is as it was.
        let unread = restored.into_iter().flat_map(|position| &position.open);
        for (first, last) in unread.filter(|(_, last)| *last >= next) {
            open.push(((*first).max(next), *last));
        }
        let since = match side {
            Side::Decisions => self.decisions.since(Some(partition)),
            Side::Facts => self.facts.since(Some(partition)),
        };
        Position {
            offset,
            since,
            judged: restored.map_or(judged, |position| position.judged.max(judged)),
            next: restored.map_or(next, |position| position.next.max(next)),
            open,
        }
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Bytes of memory, and entries, of both sides.
    pub fn size(&self) -> (usize, usize) {
        (self.decisions.bytes() + self.facts.bytes(), self.decisions.len() + self.facts.len())
    }

    fn saw(&mut self, side: Side, partition: u32, time: Nanos, now: Nanos) {
        if self.watermarks[side as usize].saw(partition, time, now, &self.settings) {
            *self.counts.late.entry(side).or_default() += 1;
        }
    }

    fn lowest(&self, now: Nanos) -> [Nanos; 2] {
        [0, 1].map(|side: usize| self.watermarks[side].lowest(now, &self.settings))
    }

    fn key(&self, id: &[u8]) -> u64 {
        if id.is_empty() { 0 } else { self.hash.hash_one(id).max(1) }
    }

    fn keys_of(&self, fact: &Fact<'_>) -> Keys {
        let mut keys = [0; 4];
        keys[DECISION] = self.key(fact.decision_id.as_bytes());
        keys[TRACE] = fact.trace.map_or(0, |trace| self.key(&trace.to_bytes()));
        // The id of an audit event is its own, and no decision has it.
        keys[REQUEST] = match fact.kind {
            Kind::Audit => self.key(fact.uid.as_bytes()),
            _ => self.key(fact.request_id.as_bytes()),
        };
        if fact.kind == Kind::Audit && !fact.user.is_empty() {
            keys[OBJECT] = self.key(object_key(&fact.user, &fact.method, &fact.path).as_bytes());
        }
        keys
    }

    /// Something came that may be a decision's request: it goes on with it, or is amended.
    fn matched(&mut self, slot: u32, out: Sink<'_, D>) {
        let Some(waiting) = self.decisions.get(slot) else { return };
        let keys = self.decisions.keys(slot);
        let best = rank::best(&self.facts, &waiting.asked, keys, &self.settings);
        let Some((rank, fact)) = best else { return };
        if !waiting.given_out() {
            let place = self.decisions.place(slot);
            let open = self.open.get(&place.partition);
            let may = open.is_none_or(|open| open.may_leave(place.offset, self.settings.runs));
            if rank.is_exact() && may {
                self.give_out(slot, false, out);
            } else if rank.is_exact() && !self.held {
                self.held = true;
                self.counts.held += 1;
            }
            return;
        }
        let place = self.decisions.place(slot);
        let restored = self.restored.get(&(Side::Decisions, place.partition));
        let restored = restored.is_some_and(|position| position.given_out(place.offset));
        if waiting.rank.is_none_or(|told| rank < told)
            && let Some(waiting) = self.decisions.get_mut(slot)
            && let Some(bytes) = self.facts.get(fact)
        {
            let replaces = waiting.rank.replace(rank).is_some() || restored;
            *self.counts.amended.entry(rank.class).or_default() += 1;
            let matched = Matched { class: rank.class, fact: Packed::of(bytes) };
            out(Out::Amendment { asked: &waiting.asked, matched, replaces });
        }
    }

    /// A decision goes on, with the best that there is.
    fn give_out(&mut self, slot: u32, evicted: bool, out: Sink<'_, D>) {
        let keys = self.decisions.keys(slot);
        let place = self.decisions.place(slot);
        let Some(waiting) = self.decisions.get_mut(slot) else { return };
        let Some(payload) = waiting.payload.take() else { return };
        let best = rank::best(&self.facts, &waiting.asked, keys, &self.settings);
        waiting.rank = best.map(|(rank, _)| rank);
        let matched = best.and_then(|(rank, fact)| {
            Some(Matched { class: rank.class, fact: Packed::of(self.facts.get(fact)?) })
        });
        *self.counts.matched.entry(matched.map(|m| m.class)).or_default() += 1;
        if let Some(open) = self.open.get_mut(&place.partition) {
            open.remove(place.offset);
        }
        out(Out::Decision { asked: &waiting.asked, payload, matched, evicted });
    }

    /// What waited long enough goes on: by the wall clock, or since the facts are beyond it. In the order of the
    /// offsets, so that one whose time is wrong delays others by `wait` at most.
    fn release(&mut self, now: Nanos, facts: Nanos, out: Sink<'_, D>) {
        for partition in self.decisions.partitions() {
            while let Some(slot) = self.due.get(&partition).and_then(|due| due.front().copied()) {
                let Some(waiting) = self.decisions.get(slot) else { break };
                let waited = now.saturating_sub(waiting.arrived) >= self.settings.wait;
                let beyond = facts >= waiting.asked.time.saturating_add(self.settings.wait);
                if !waiting.given_out() && !waited && !beyond {
                    break;
                }
                self.give_out(slot, false, out);
                self.due.get_mut(&partition).and_then(VecDeque::pop_front);
            }
        }
        if std::mem::take(&mut self.held) {
            let held = self.counts.held;
            let slots: Vec<u32> = self.due.values().flatten().copied().collect();
            for slot in slots {
                if self.decisions.get(slot).is_some_and(|waiting| !waiting.given_out()) {
                    self.matched(slot, out);
                }
            }
            self.counts.held = held;
        }
    }

    /// What is judged is kept for two windows more, and as long as anything that is not judged may need it: a join that is
    /// built again from there has all that.
    fn forget(&mut self, whole: Nanos) {
        let after = 3 * self.settings.window + 2 * self.settings.skew;
        let needed = self.facts.needs().min(self.decisions.needs());
        let until = whole.saturating_sub(after).min(needed.saturating_sub(1));
        for partition in self.decisions.partitions() {
            while let Some((slot, true)) = self.decisions.front(partition) {
                if self.decisions.time(slot) > until {
                    break;
                }
                self.decisions.pop(partition);
            }
        }
        for partition in self.facts.partitions() {
            while let Some((slot, true)) = self.facts.front(partition) {
                if self.facts.time(slot) > until {
                    break;
                }
                self.facts.pop(partition);
            }
        }
        let before = until.saturating_sub(after);
        self.gaps.iter_mut().for_each(|gaps| gaps.forget(before));
    }

    /// The oldest goes where there is no room, counted; of its time nothing is judged.
    fn evict(&mut self, out: Sink<'_, D>) {
        while self.decisions.bytes() + self.facts.bytes() > self.settings.bytes {
            let side = match self.decisions.bytes() > self.facts.bytes() {
                true => Side::Decisions,
                false => Side::Facts,
            };
            let partitions = match side {
                Side::Decisions => self.decisions.partitions(),
                Side::Facts => self.facts.partitions(),
            };
            let time = |partition: &u32| {
                let time = match side {
                    Side::Decisions => {
                        self.decisions.front(*partition).map(|f| self.decisions.time(f.0))
                    }
                    Side::Facts => self.facts.front(*partition).map(|f| self.facts.time(f.0)),
                };
                time.map(|time| (time, *partition))
            };
            let Some((time, partition)) = partitions.iter().filter_map(time).min() else { return };
            if side == Side::Decisions {
                if let Some((slot, _)) = self.decisions.front(partition) {
                    self.give_out(slot, true, out);
                    let due = self.due.entry(partition).or_default();
                    if due.front() == Some(&slot) {
                        due.pop_front();
                    }
                }
                self.decisions.pop(partition);
            } else {
                if self
                    .facts
                    .front(partition)
                    .is_some_and(|(slot, judged)| !judged && self.is_evidence(slot))
                {
                    *self.counts.undecidable.entry(Undecidable::Evicted).or_default() += 1;
                    self.counts.judged += 1;
                }
                self.facts.pop(partition);
            }
            *self.counts.evicted.entry(side).or_default() += 1;
            let around = self.settings.window + self.settings.skew;
            self.gaps[side as usize].add(time - around, time + around, Undecidable::Evicted);
        }
    }
}
