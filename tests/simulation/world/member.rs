//! A member of a consumer group of the simulated Kafka: what it is assigned, and which of its records comes next.

mod reader;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use docket::decision::{record, time};
use docket::log::Gap;
use docket::log::consumer::Assignments;
use docket::order::{MAX_SKEW, Next, Order, Times};
use docket::resume::{self, Committed, Log, Past, Start};
use docket::ring::Taken;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use tokio::time::Instant;

use super::commits::Sent;
use super::rings::{Following, Rings};
use super::*;

/// A member of a group.
pub struct Member<A> {
    pub(super) world: Shared,
    pub(super) group: String,
    /// Whose memory is looked at.
    process: String,
    pub(super) id: Cell<u64>,
    pub(super) generation: Cell<u64>,
    assignments: A,
    positions: RefCell<BTreeMap<Place, i64>>,
    /// Up to where records were fetched: a fetch brings some of some partitions.
    fetched: RefCell<BTreeMap<Place, i64>>,
    ended: RefCell<BTreeMap<Place, i64>>,
    /// Fetches that take long: until when.
    slow: RefCell<BTreeMap<Place, Instant>>,
    /// Commits that are on their way for long.
    pub(super) sent: RefCell<Vec<Sent>>,
    /// By the partition's place in the world.
    order: RefCell<Order<usize>>,
    /// A topic that only this group's readers write.
    writes: Option<&'static str>,
    /// The ids of its topics when partitions were assigned.
    pub(super) ids: RefCell<BTreeMap<String, String>>,
    gaps: RefCell<Vec<Gap>>,
    /// Partitions whose commit is on its way, and will not arrive.
    pub(super) failed: RefCell<Vec<Place>>,
    /// Where it went on in partitions that it was assigned.
    starts: RefCell<BTreeMap<Place, i64>>,
    /// When it looked last at what it is to have: the generation, and how many partitions there were, and how many of its group.
    seen: Cell<(u64, usize, usize)>,
    /// Up to which its places were looked at.
    upheavals: Cell<Option<u64>>,
    /// What the parts of its process read together.
    rings: Option<Rings>,
    following: RefCell<BTreeMap<Place, Following>>,
}

/// What is slow takes up to so many milliseconds.
pub const SLOW: u64 = 12_000;
/// So many partitions answer a fetch, with so many offsets each.
const FETCH: (u64, u64) = (3, 20);
/// How long a fetch takes.
const FETCHED: Duration = Duration::from_millis(3);

impl<A: Assignments> Member<A> {
    pub fn join(world: &Shared, group: &str, topics: &[&str], assignments: A) -> Member<A> {
        let member = Member {
            world: world.clone(),
            group: group.to_owned(),
            process: String::new(),
            id: Cell::new(0),
            generation: Cell::new(0),
            assignments,
            positions: RefCell::default(),
            fetched: RefCell::default(),
            ended: RefCell::default(),
            slow: RefCell::default(),
            sent: RefCell::default(),
            order: RefCell::new(Order::new(time::nanos(MAX_SKEW))),
            writes: topics.contains(&super::super::SOURCE).then_some(super::super::DOCKET),
            ids: RefCell::default(),
            gaps: RefCell::default(),
            failed: RefCell::default(),
            starts: RefCell::default(),
            seen: Cell::default(),
            upheavals: Cell::default(),
            rings: None,
            following: RefCell::default(),
        };
        let mut w = world.lock();
        w.groups.entry(group.to_owned()).or_default().topics =
            topics.iter().map(|t| (*t).to_owned()).collect();
        drop(w);
        member.enter();
        member
    }

    pub fn of(self, process: &str) -> Member<A> {
        Member { process: process.to_owned(), ..self }
    }

    /// With others of its process, as long as it keeps up.
    pub fn with(self, rings: &Rings) -> Member<A> {
        Member { rings: Some(rings.clone()), ..self }
    }

    fn enter(&self) {
        let mut w = self.world.lock();
        w.next_member += 1;
        let id = w.next_member;
        let group = w.groups.get_mut(&self.group).unwrap();
        group.members.insert(id, Instant::now());
        group.generation += 1;
        self.id.set(id);
        w.note(format!("{}: member {id} joined", self.group));
    }

    fn places(places: &[Place]) -> Vec<(String, i32)> {
        places.to_vec()
    }

    /// What librdkafka tells: commits that failed, a topic that is another, a place that is no more.
    fn told(&self) -> KafkaResult<()> {
        self.arrive(Instant::now());
        let failed = std::mem::take(&mut *self.failed.borrow_mut());
        if !failed.is_empty() && self.world.lock().sabotage != Sabotage::TakenForMade {
            self.assignments.not_committed(&failed);
        }
        let mut w = self.world.lock();
        w.check_unmade(&self.group, self.id.get());
        if self.upheavals.replace(Some(w.upheavals)) == Some(w.upheavals) {
            return Ok(());
        }
        let careful = w.sabotage != Sabotage::NoTopicId;
        let another = self.ids.borrow().iter().any(|(topic, id)| careful && w.id(topic) != *id);
        let gone = |(place, at): (&Place, &i64)| *at < w.start(place) || *at > w.length(place);
        let gone = self.positions.borrow().iter().any(gone);
        if another || gone {
            w.note(format!("{}: member {} is out of its log", self.group, self.id.get()));
            w.groups.get_mut(&self.group).unwrap().remove(self.id.get());
            return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset));
        }
        Ok(())
    }

    /// Where it goes on in a partition, as `log::resume` finds it out.
    fn resume(&self, w: &mut World, place: &Place) -> i64 {
        let topic_id = w.id(&place.0);
        self.ids.borrow_mut().insert(place.0.clone(), topic_id.clone());
        let group = &w.groups[&self.group];
        let forgotten =
            self.writes.is_some_and(|topic| group.committed.is_empty() && w.is_written(topic));
        let careful = w.sabotage != Sabotage::NoTopicId;
        let seen = |c: &Committed| Committed {
            topic_id: c.topic_id.clone().filter(|_| careful),
            ..c.clone()
        };
        let of_it = group.committed.iter().filter(|((t, _), _)| *t == place.0);
        let of_it: Vec<Committed> = of_it.map(|(_, c)| seen(c)).collect();
        let past = Past::new(of_it.iter(), Some(&topic_id), forgotten, None);
        let start = w.starts.get(&self.group).copied().unwrap_or(Start::Earliest);
        let (mut resumed, mut begins) = (None, Vec::new());
        for one in w.places(&place.0) {
            let committed = group.committed.get(&one).map(seen);
            // Others' are asked for by a group that begins.
            let asked = one == *place || !past.begun;
            let log = asked.then(|| Log {
                topic_id: Some(&topic_id),
                first: w.start(&one),
                end: w.stable(&one),
            });
            let (mut to, mut first) = resume::decide(committed.as_ref(), log, &past, start);
            if w.sabotage == Sabotage::AddedAtTheEnd
                && let (Some(log), Some(to), Some(first)) = (log, &mut to, &mut first)
                && past.begun
                && to.begins
            {
                (to.at, first.next) = (log.end, log.end);
            }
            begins.extend(first.map(|first| (one.clone(), first)));
            resumed = to.filter(|_| one == *place).or(resumed);
        }
        let to = resumed.unwrap();
        let at = to.at;
        w.begun.insert(self.group.clone());
        if w.sabotage != Sabotage::ForgetsTheStart || start == Start::Earliest {
            let committed = &mut w.groups.get_mut(&self.group).unwrap().committed;
            for (one, first) in begins {
                committed.entry(one).or_insert(first);
            }
        }
        if let Some(gap) = to.gap.filter(|_| w.sabotage != Sabotage::PassesOver) {
            let (topic, partition) = place.clone();
            w.note(format!("{}: {}", self.group, gap.sentence(&topic, partition)));
            self.gaps.borrow_mut().push(Gap { topic, partition, gap, at });
        }
        at
    }

    fn give_up(&self, out: &[Place], lost: bool) {
        // The callback may commit, so nothing is locked.
        self.assignments.revoked(self, &Self::places(out), lost);
        let mut w = self.world.lock();
        for place in out {
            self.positions.borrow_mut().remove(place);
            self.gaps.borrow_mut().retain(|gap| (&gap.topic, gap.partition) != (&place.0, place.1));
            self.forget(place);
            self.order.borrow_mut().remove(&w.index(place));
            let group = w.groups.get_mut(&self.group).unwrap();
            if group.owners.get(place) == Some(&self.id.get()) {
                group.owners.remove(place);
                group.unmade.remove(place);
            }
        }
        w.note(format!(
            "{}: member {} gave up {out:?}{}",
            self.group,
            self.id.get(),
            if lost { " (lost)" } else { "" }
        ));
    }

    /// Gives up and takes over what the group wants it to.
    fn rebalance(&self) {
        let (out, lost, seen) = {
            let mut w = self.world.lock();
            w.tick();
            let group = &w.groups[&self.group];
            let alive = group.members.contains_key(&self.id.get());
            let (generation, partitions) = (group.generation, w.logs.len());
            let seen = self.seen.get();
            let same = alive && (seen.0, seen.1) == (generation, partitions);
            let is_settled = same && group.owners.len() == seen.2;
            if alive {
                w.groups
                    .get_mut(&self.group)
                    .unwrap()
                    .members
                    .insert(self.id.get(), Instant::now());
            }
            if is_settled {
                return;
            }
            let own: Vec<Place> = self.positions.borrow().keys().cloned().collect();
            let out: Vec<Place> = own
                .into_iter()
                .filter(|place| !alive || w.wanted(&self.group, place) != Some(self.id.get()))
                .collect();
            (out, !alive, (generation, partitions))
        };
        if !out.is_empty() {
            self.give_up(&out, lost);
        }
        if lost {
            self.enter();
        }
        let new: Vec<Place> = {
            let mut w = self.world.lock();
            let places: Vec<Place> = w
                .logs
                .keys()
                .filter(|(t, _)| w.groups[&self.group].topics.contains(t))
                .cloned()
                .collect();
            let free = |place: &Place| {
                !w.groups[&self.group].owners.contains_key(place)
                    && w.wanted(&self.group, place) == Some(self.id.get())
                    && !w.is_unstable(&self.group, place)
            };
            self.seen.set((seen.0, seen.1, places.len()));
            let new: Vec<Place> = places.into_iter().filter(free).collect();
            self.generation.set(w.groups[&self.group].generation);
            for place in &new {
                self.forget(place);
                self.order.borrow_mut().begin(w.index(place));
                let group = w.groups.get_mut(&self.group).unwrap();
                group.owners.insert(place.clone(), self.id.get());
                let from = self.resume(&mut w, place);
                self.starts.borrow_mut().insert(place.clone(), from);
                self.positions.borrow_mut().insert(place.clone(), from);
            }
            new
        };
        if !new.is_empty() {
            self.assignments.assigned(&Self::places(&new));
        }
    }
}

impl<A> Member<A> {
    fn forget(&self, place: &Place) {
        self.following.borrow_mut().remove(place);
        self.slow.borrow_mut().remove(place);
        self.fetched.borrow_mut().remove(place);
        self.ended.borrow_mut().remove(place);
    }

    /// Goes on with others in partitions that it reads alone, now and then, where it can.
    fn meet(&self) {
        let Some(rings) = &self.rings else { return };
        let mut w = self.world.lock();
        let mut following = self.following.borrow_mut();
        for (place, at) in &*self.positions.borrow() {
            if following.contains_key(place) || !w.chance(0.2) {
                continue;
            }
            let ids = self.ids.borrow();
            let Some(id) = ids.get(&place.0) else { continue };
            if let Some(met) = rings.follow(&w, place, id, *at) {
                let member = self.id.get();
                w.note(format!(
                    "{}: member {member} reads {place:?} with others from {at}",
                    self.group
                ));
                following.insert(place.clone(), met);
                self.fetched.borrow_mut().remove(place);
                self.order.borrow_mut().begin(w.index(place));
            }
        }
    }

    /// Looks at what is next where it goes on with others.
    fn look(&self) {
        let mut w = self.world.lock();
        let mut order = self.order.borrow_mut();
        let mut gone = Vec::new();
        for (place, met) in &mut *self.following.borrow_mut() {
            let index = w.index(place);
            let known = met.ahead.is_some();
            match met.look(&mut w) {
                Taken::Records(_) => {
                    if let Some(record) = met.ahead.as_ref().filter(|_| !known) {
                        order.head(index, when(record));
                    }
                }
                Taken::Nothing { ended: true } => order.end(index),
                Taken::Nothing { ended: false } => {}
                Taken::Gone => gone.push(place.clone()),
            }
        }
        for place in gone {
            order.begin(w.index(&place));
            self.forget(&place);
        }
    }

    /// Brings more of partitions of which nothing is here.
    fn fetch(&self) {
        self.meet();
        self.look();
        let mut w = self.world.lock();
        let positions = self.positions.borrow();
        let mut fetched = self.fetched.borrow_mut();
        let here = |place: &Place, at: i64| fetched.get(place).is_some_and(|to| *to > at);
        let mut empty: Vec<(Place, i64)> = positions
            .iter()
            .map(|(p, at)| (p.clone(), *at))
            .filter(|(p, at)| !here(p, *at) && !self.following.borrow().contains_key(p))
            .collect();
        if !empty.is_empty() {
            let first = w.below(empty.len() as u64) as usize;
            empty.rotate_left(first);
        }
        let (now, p) = (Instant::now(), w.faults.slow);
        let mut slow = self.slow.borrow_mut();
        for (place, at) in empty.into_iter().take(FETCH.0 as usize) {
            if slow.get(&place).is_some_and(|until| now < *until) {
                continue;
            }
            if w.chance(p) && slow.remove(&place).is_none() {
                slow.insert(place, now + Duration::from_millis(w.below(SLOW)));
                continue;
            }
            let count = 1 + w.below(FETCH.1) as i64;
            fetched.insert(place.clone(), (at + count).min(w.stable(&place)));
        }
    }

    fn has_more(&self) -> bool {
        let w = self.world.lock();
        self.positions.borrow().iter().any(|(place, at)| *at < w.stable(place))
    }

    /// The record whose turn it is, of those that are here.
    fn next(&self) -> Option<(Place, Record)> {
        let w = self.world.lock();
        let mut order = self.order.borrow_mut();
        let held: Vec<usize> = order.held().collect();
        for (place, at) in &*self.positions.borrow() {
            let (index, to) = (w.index(place), self.fetched.borrow().get(place).copied());
            let Some(to) = to.filter(|_| !held.contains(&index)) else { continue };
            match w.read(place, *at).filter(|record| record.offset < to) {
                Some(record) => {
                    order.head(index, when(&record));
                }
                // What is fetched is nothing but markers and aborted records, or there is no more.
                None if to < w.stable(place) => {
                    let more = (to + FETCH.1 as i64).min(w.stable(place));
                    self.fetched.borrow_mut().insert(place.clone(), more);
                }
                None if self.ended.borrow_mut().insert(place.clone(), to) != Some(to) => {
                    order.end(index);
                }
                None => {}
            }
        }
        if w.sabotage == Sabotage::NoOrder {
            let index = order.held().next()?;
            order.took(index);
            return self.at(&w, index);
        }
        match order.next(w.now()) {
            Next::Take(index) => {
                order.took(index);
                self.at(&w, index)
            }
            Next::Wait(_) | Next::Nothing => None,
        }
    }

    fn at(&self, w: &World, index: usize) -> Option<(Place, Record)> {
        let place = w.logs.keys().nth(index)?.clone();
        if let Some(met) = self.following.borrow_mut().get_mut(&place) {
            return Some((place, met.ahead.take()?));
        }
        let from = *self.positions.borrow().get(&place)?;
        Some((place.clone(), w.read(&place, from)?))
    }
}

fn when(record: &Record) -> Times {
    let said = record::time(&record.value).or_else(|| time::guess(&record.value));
    Times { happened: said.unwrap_or(record.written).min(record.written), written: record.written }
}
