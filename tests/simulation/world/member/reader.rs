//! A member of a group as docket reads by it.

use std::time::Duration;

use docket::log::consumer::Assignments;
use docket::log::{self, Gap, Headers, Message, Polled, Reader, Told};
use rdkafka::error::KafkaResult;
use tokio::time::Instant;

use super::super::*;
use super::{FETCHED, Member};

struct Owned {
    pairs: Pairs,
    written: i64,
    panics: bool,
}

impl Headers for Owned {
    fn pairs(&self) -> Vec<(&str, &[u8])> {
        assert!(!self.panics, "simulated: docket has a bug");
        self.pairs.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect()
    }

    fn written(&self) -> Option<i64> {
        Some(self.written)
    }
}

impl<A: Assignments> Reader for Member<A> {
    type Membership = Membership;

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
        let part = self.group.rsplit('.').next().unwrap_or_default();
        self.world.lock().check_memory(&self.process, part);
        self.told()?;
        self.rebalance();
        let deadline = Instant::now() + wait;
        let found = loop {
            self.fetch();
            let found = self.next();
            if found.is_some() || Instant::now() >= deadline {
                break found;
            }
            let rest = if self.has_more() { FETCHED } else { FETCHED * 10 };
            tokio::time::sleep(rest.min(deadline - Instant::now())).await;
            self.told()?;
            self.rebalance();
        };
        Ok(match found {
            None => Polled::Nothing,
            Some((place, record)) => {
                self.positions.borrow_mut().insert(place.clone(), record.offset + 1);
                let panics = place.0 == crate::SOURCE && holds(&record.value, PANICS);
                let mut value = record.value.clone();
                if panics && self.world.lock().sabotage == Sabotage::NeverCondemns {
                    let n = self.world.lock().below(1 << 20);
                    value.extend_from_slice(n.to_string().as_bytes());
                }
                let headers =
                    Owned { pairs: record.headers.clone(), written: record.written, panics };
                take(&Message {
                    topic: &place.0,
                    partition: place.1,
                    offset: record.offset,
                    payload: &value,
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

    fn idle(&self) -> KafkaResult<()> {
        self.told()?;
        self.rebalance();
        Ok(())
    }

    fn seek(&self, places: &[(&str, i32, i64)]) -> KafkaResult<()> {
        for (topic, partition, offset) in places {
            if let Some(position) =
                self.positions.borrow_mut().get_mut(&((*topic).to_owned(), *partition))
            {
                *position = *offset;
                self.upheavals.set(None);
                let place = ((*topic).to_owned(), *partition);
                self.forget(&place);
                self.order.borrow_mut().begin(self.world.lock().index(&place));
            }
        }
        Ok(())
    }

    fn read_back(&self, topic: &str, partitions: Vec<i32>, count: usize, mut told: Told) {
        let (world, group, topic) = (self.world.clone(), self.group.clone(), topic.to_owned());
        let late = Duration::from_millis(world.lock().below(300));
        let starts = match world.lock() {
            w if w.sabotage == Sabotage::TakenForSent => {
                let committed = w.groups[&group].committed.iter();
                committed.map(|(place, c)| (place.clone(), c.next)).collect()
            }
            _ => self.starts.borrow().clone(),
        };
        tokio::task::spawn_local(async move {
            tokio::time::sleep(late).await;
            for partition in partitions {
                let w = world.lock();
                let place = (topic.clone(), partition);
                let before = starts.get(&place).copied().unwrap_or(0);
                let mut from = (before - count as i64).max(0);
                while let Some(record) = w.read(&place, from).filter(|r| r.offset < before) {
                    from = record.offset + 1;
                    told(partition, Some(&record.value));
                }
                told(partition, None);
            }
        });
    }

    fn end(&self, topic: &str, partition: i32) -> Option<i64> {
        Some(self.world.lock().stable(&(topic.to_owned(), partition)))
    }

    fn gaps(&self) -> Vec<Gap> {
        self.gaps.take()
    }

    fn read_through(&self, topic: &str, partition: i32) -> Option<i64> {
        let place = (topic.to_owned(), partition);
        let at = *self.positions.borrow().get(&place)?;
        let w = self.world.lock();
        // What is left may be nothing but markers.
        Some(w.read(&place, at).map_or(w.stable(&place), |next| next.offset))
    }

    fn committed(&self, partitions: &[(String, i32)]) -> KafkaResult<Vec<Option<log::Committed>>> {
        let w = self.world.lock();
        let group = &w.groups[&self.group];
        let of = |place: &Place| {
            let metadata = group.metadata.get(place).cloned().unwrap_or_default();
            Some(log::Committed { offset: group.committed.get(place)?.next, metadata })
        };
        Ok(partitions.iter().map(of).collect())
    }

    fn membership(&self) -> Option<Membership> {
        let ids = self.ids.borrow().clone();
        Some((self.group.clone(), self.id.get(), self.generation.get(), ids))
    }

    fn leave(&self) {
        let mut w = self.world.lock();
        w.groups.get_mut(&self.group).unwrap().remove(self.id.get());
        w.note(format!("{}: member {} left", self.group, self.id.get()));
    }
}
