//! Commits of a member of the simulated Kafka: some take long, and some who committed gives up before their answer comes.

use std::time::Duration;

use docket::log::Commits;
use docket::log::consumer::Assignments;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use tokio::time::Instant;

use super::member::{Member, SLOW};
use super::*;

/// Offsets that a member committed, and Kafka has not looked at yet.
pub struct Sent {
    due: Instant,
    member: u64,
    generation: u64,
    offsets: Vec<(Place, i64)>,
    ids: BTreeMap<String, String>,
    /// Who sent them gave up before the answer came.
    given_up: bool,
}

impl<A> Member<A> {
    /// Kafka takes note of commits that were on their way until then, in their order.
    pub fn arrive(&self, then: Instant) {
        let due = self.sent.borrow().iter().take_while(|sent| sent.due <= then).count();
        let due: Vec<Sent> = self.sent.borrow_mut().drain(..due).collect();
        for Sent { member, generation, offsets, ids, given_up, .. } in due {
            let mut w = self.world.lock();
            let current = w.groups[&self.group].generation == generation;
            let taken = current && w.take_offsets(&self.group, member, &offsets, &ids).is_ok();
            if given_up || !taken {
                w.note(format!("{}: {offsets:?} was committed late: {taken}", self.group));
                self.failed.borrow_mut().extend(offsets.into_iter().map(|(place, _)| place));
            }
        }
    }
}

impl<A: Assignments> Commits for Member<A> {
    fn commit(&self, topic: &str, offsets: &[(i32, i64)], wait: bool) -> KafkaResult<()> {
        let mut w = self.world.lock();
        let p = w.faults.commit_fails;
        if !wait && w.chance(p) {
            for (partition, offset) in offsets {
                let place = (topic.to_owned(), *partition);
                w.loses_commit(&self.group, self.id.get(), place.clone(), *offset);
                self.failed.borrow_mut().push(place);
            }
            return Ok(());
        }
        if w.chance(p) {
            return Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::CoordinatorNotAvailable));
        }
        let more = i64::from(w.sabotage == Sabotage::CommitsTooMuch);
        let offsets: Vec<(Place, i64)> =
            offsets.iter().map(|(p, o)| ((topic.to_owned(), *p), o + more)).collect();
        let ids = self.ids.borrow().clone();
        let p = w.faults.slow;
        if !wait && w.chance(p) {
            let due = Instant::now() + Duration::from_millis(w.below(SLOW));
            let due = self.sent.borrow().last().map_or(due, |before| due.max(before.due));
            let given_up = w.chance(0.3);
            let (member, generation) = (self.id.get(), self.generation.get());
            self.sent.borrow_mut().push(Sent { due, member, generation, offsets, ids, given_up });
            return Ok(());
        }
        // What was sent before comes before.
        drop(w);
        self.arrive(Instant::now() + Duration::from_millis(SLOW));
        let mut w = self.world.lock();
        w.take_offsets(&self.group, self.id.get(), &offsets, &ids)
            .map_err(KafkaError::ConsumerCommit)
    }
}
