//! A member of a consumer group of the simulated Kafka.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use docket::log::consumer::Assignments;
use docket::log::{Commits, Headers, Message, Polled, Reader};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use tokio::time::Instant;

use super::*;

/// A member of a group.
pub struct Member<A> {
    world: Shared,
    group: String,
    id: Cell<u64>,
    generation: Cell<u64>,
    assignments: A,
    positions: RefCell<BTreeMap<Place, i64>>,
    paused: RefCell<BTreeSet<Place>>,
    ended: RefCell<BTreeMap<Place, i64>>,
}

impl<A: Assignments> Member<A> {
    pub fn join(world: &Shared, group: &str, topics: &[&str], assignments: A) -> Member<A> {
        let member = Member {
            world: world.clone(),
            group: group.to_owned(),
            id: Cell::new(0),
            generation: Cell::new(0),
            assignments,
            positions: RefCell::default(),
            paused: RefCell::default(),
            ended: RefCell::default(),
        };
        let mut w = world.lock();
        w.groups.entry(group.to_owned()).or_default().topics =
            topics.iter().map(|t| (*t).to_owned()).collect();
        drop(w);
        member.enter();
        member
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

    /// Gives up and takes over what the group wants it to.
    fn rebalance(&self) {
        let (out, lost) = {
            let mut w = self.world.lock();
            w.tick();
            let alive = w.groups[&self.group].members.contains_key(&self.id.get());
            if alive {
                w.groups
                    .get_mut(&self.group)
                    .unwrap()
                    .members
                    .insert(self.id.get(), Instant::now());
            }
            let own: Vec<Place> = self.positions.borrow().keys().cloned().collect();
            let out: Vec<Place> = own
                .into_iter()
                .filter(|place| !alive || w.wanted(&self.group, place) != Some(self.id.get()))
                .collect();
            (out, !alive)
        };
        if !out.is_empty() {
            // The callback may commit, so nothing is locked.
            self.assignments.revoked(self, &Self::places(&out), lost);
            let mut w = self.world.lock();
            let group = w.groups.get_mut(&self.group).unwrap();
            for place in &out {
                self.positions.borrow_mut().remove(place);
                self.paused.borrow_mut().remove(place);
                self.ended.borrow_mut().remove(place);
                if group.owners.get(place) == Some(&self.id.get()) {
                    group.owners.remove(place);
                }
            }
            w.note(format!(
                "{}: member {} gave up {out:?}{}",
                self.group,
                self.id.get(),
                if lost { " (lost)" } else { "" }
            ));
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
            };
            let new: Vec<Place> = places.into_iter().filter(free).collect();
            self.generation.set(w.groups[&self.group].generation);
            let group = w.groups.get_mut(&self.group).unwrap();
            for place in &new {
                group.owners.insert(place.clone(), self.id.get());
                let from = group.committed.get(place).copied().unwrap_or(0);
                self.positions.borrow_mut().insert(place.clone(), from);
            }
            new
        };
        if !new.is_empty() {
            self.assignments.assigned(&Self::places(&new));
        }
    }
}

struct Owned {
    pairs: Pairs,
    panics: bool,
}

impl Headers for Owned {
    fn pairs(&self) -> Vec<(&str, &[u8])> {
        assert!(!self.panics, "simulated: docket has a bug");
        self.pairs.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect()
    }
}

impl<A: Assignments> Commits for Member<A> {
    fn commit(&self, topic: &str, offsets: &[(i32, i64)], _: bool) -> KafkaResult<()> {
        let mut w = self.world.lock();
        let p = w.faults.commit_fails;
        if w.chance(p) {
            return Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::CoordinatorNotAvailable));
        }
        let more = i64::from(w.sabotage == Sabotage::CommitsTooMuch);
        let offsets: Vec<(Place, i64)> =
            offsets.iter().map(|(p, o)| ((topic.to_owned(), *p), o + more)).collect();
        w.take_offsets(&self.group, self.id.get(), &offsets).map_err(KafkaError::ConsumerCommit)
    }
}

impl<A: Assignments> Reader for Member<A> {
    type Membership = (String, u64, u64);

    async fn poll(
        &self,
        wait: Duration,
        take: &mut dyn FnMut(&Message<'_>),
    ) -> KafkaResult<Polled> {
        let stall = {
            let mut w = self.world.lock();
            let p = w.faults.poll_stalls;
            if w.chance(p) {
                w.note(format!("{}: member {} stalls", self.group, self.id.get()));
                Some(Duration::from_millis(w.below(20_000)))
            } else {
                None
            }
        };
        match stall {
            Some(stall) => tokio::time::sleep(stall).await,
            None => tokio::task::yield_now().await,
        }
        self.rebalance();
        let next = |this: &Self| {
            let mut w = this.world.lock();
            let mut places: Vec<(Place, i64)> = this
                .positions
                .borrow()
                .iter()
                .filter(|(p, _)| !this.paused.borrow().contains(*p))
                .map(|(p, o)| (p.clone(), *o))
                .collect();
            if !places.is_empty() {
                let at = w.below(places.len() as u64) as usize;
                places.rotate_left(at);
            }
            for (place, from) in places {
                match w.read(&place, from) {
                    Some(record) => return Some((place, Some(record))),
                    None => {
                        let stable = w.stable(&place);
                        if this.ended.borrow_mut().insert(place.clone(), stable) != Some(stable) {
                            return Some((place, None));
                        }
                    }
                }
            }
            None
        };
        let mut found = next(self);
        if found.is_none() && !wait.is_zero() {
            tokio::time::sleep(wait).await;
            self.rebalance();
            found = next(self);
        }
        Ok(match found {
            None => Polled::Nothing,
            Some((place, None)) => Polled::End(place.1),
            Some((place, Some(record))) => {
                self.positions.borrow_mut().insert(place.clone(), record.offset + 1);
                let panics = place.0 == super::super::SOURCE && holds(&record.value, PANICS);
                let headers = Owned { pairs: record.headers.clone(), panics };
                take(&Message {
                    topic: &place.0,
                    partition: place.1,
                    offset: record.offset,
                    payload: &record.value,
                    headers: &headers,
                });
                // The process may be stopped right after, and go on when others have what it has.
                let stall = {
                    let mut w = self.world.lock();
                    let p = w.faults.poll_stalls;
                    w.chance(p).then(|| Duration::from_millis(w.below(20_000)))
                };
                if let Some(stall) = stall {
                    tokio::time::sleep(stall).await;
                }
                Polled::Message
            }
        })
    }

    fn pause(&self) -> KafkaResult<()> {
        *self.paused.borrow_mut() = self.positions.borrow().keys().cloned().collect();
        Ok(())
    }

    fn resume(&self) -> KafkaResult<()> {
        self.paused.borrow_mut().clear();
        Ok(())
    }

    fn seek(&self, places: &[(&str, i32, i64)]) -> KafkaResult<()> {
        for (topic, partition, offset) in places {
            if let Some(position) =
                self.positions.borrow_mut().get_mut(&((*topic).to_owned(), *partition))
            {
                *position = *offset;
            }
        }
        Ok(())
    }

    fn read_back(
        &self,
        topic: &str,
        partition: i32,
        before: i64,
        count: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> KafkaResult<()> {
        let w = self.world.lock();
        let place = (topic.to_owned(), partition);
        let mut from = (before - count as i64).max(0);
        while let Some(record) = w.read(&place, from).filter(|r| r.offset < before) {
            from = record.offset + 1;
            take(&record.value);
        }
        Ok(())
    }

    fn end(&self, topic: &str, partition: i32) -> Option<i64> {
        Some(self.world.lock().stable(&(topic.to_owned(), partition)))
    }

    fn membership(&self) -> Option<(String, u64, u64)> {
        Some((self.group.clone(), self.id.get(), self.generation.get()))
    }

    fn leave(&self) {
        let mut w = self.world.lock();
        let group = w.groups.get_mut(&self.group).unwrap();
        group.members.remove(&self.id.get());
        group.owners.retain(|_, owner| *owner != self.id.get());
        group.generation += 1;
        w.note(format!("{}: member {} left", self.group, self.id.get()));
    }
}
