//! Who writes to the simulated Kafka: in transactions, under docket's own producer of them, and dead letters.

use std::cell::{Cell, RefCell};

use docket::log::client::Brokers;
use docket::log::transactional::{Deliveries, Epoch, Transactional};
use docket::log::{self, Outgoing, RecordWriter};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Headers as _;

use super::transactions::{Asked, Offsets};
use super::*;

/// A client with one epoch of a transactional id.
pub struct Client {
    world: Shared,
    id: String,
    epoch: u64,
    brokers: Brokers,
    deliveries: Deliveries,
    /// Tags of what may be in one batch with the next record, in the order of sending.
    sent: RefCell<Vec<usize>>,
    /// The next record is the first of its batch.
    flushed: Cell<bool>,
    /// It was not told how a transaction ended.
    lost: Cell<bool>,
    /// A call has not come back.
    stuck: Cell<bool>,
    /// How many bytes the open transaction has.
    open: Cell<usize>,
    alive: Alive,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.holds(0);
    }
}

/// What is late comes within so many milliseconds.
const LATE: u64 = 8_000;

pub fn producer(world: &Shared, id: &str, alive: Alive) -> Transactional<Client> {
    let id = {
        let w = world.lock();
        if w.same_ids { id.to_owned() } else { format!("{id}.{}", w.producers.len()) }
    };
    Transactional::new(Client::new(world, &id, alive))
}

fn failed(code: RDKafkaErrorCode) -> KafkaError {
    KafkaError::MessageProduction(code)
}

fn pairs(record: &Outgoing<'_>) -> Pairs {
    let pair = |h: rdkafka::message::Header<'_, &[u8]>| {
        (h.key.to_owned(), h.value.unwrap_or_default().to_vec())
    };
    record.headers.iter().map(pair).collect()
}

impl Client {
    fn new(world: &Shared, id: &str, alive: Alive) -> Client {
        let epoch = world.lock().next_epoch(id);
        Client {
            world: world.clone(),
            id: id.to_owned(),
            epoch,
            brokers: Brokers::default(),
            deliveries: Deliveries::default(),
            sent: RefCell::default(),
            flushed: Cell::new(false),
            lost: Cell::new(false),
            stuck: Cell::new(false),
            open: Cell::new(0),
            alive,
        }
    }

    /// So many bytes are in the open transaction.
    fn holds(&self, bytes: usize) {
        self.alive.take(self.open.replace(bytes));
        self.alive.add(bytes);
    }

    fn is_fenced(&self) -> bool {
        !self.world.lock().is_current(&self.id, self.epoch)
    }

    /// A request was sent twice, and the first comes late; the log tells of it.
    fn again(&self, w: &mut World, what: Asked) {
        let p = w.faults.late;
        if !w.chance(p) {
            return;
        }
        let told = match what {
            Asked::End(_) => ("ENDTXN", "EndTxn returned _TIMED_OUT"),
            Asked::Add(_) => ("FAIL", "Disconnected (after 206ms in state UP) (_TRANSPORT)"),
        };
        self.late(w, what);
        if w.sabotage != Sabotage::NeverRetires {
            self.brokers.heard(told.0, told.1);
        }
    }

    fn late(&self, w: &mut World, what: Asked) {
        let due = Instant::now() + Duration::from_millis(w.below(LATE));
        let (producer, epoch) = (self.id.clone(), self.epoch);
        w.note(format!("a request of {producer} will be late"));
        w.late.push(Late { due, producer, epoch, what });
    }
}

impl Epoch for Client {
    type Membership = Membership;

    fn next(&self) -> KafkaResult<Client> {
        Ok(Client::new(&self.world, &self.id, self.alive.clone()))
    }

    fn begin(&self) -> KafkaResult<()> {
        self.flushed.set(false);
        let mut w = self.world.lock();
        if w.producers[&self.id].epoch == self.epoch {
            w.transaction(&self.id);
        }
        Ok(())
    }

    fn send(&self, partition: Option<i32>, record: Outgoing<'_>, tag: usize) -> KafkaResult<()> {
        if self.is_fenced() {
            return Err(failed(RDKafkaErrorCode::InvalidProducerEpoch));
        }
        let first = self.flushed.replace(false);
        let takes = if record.topic == crate::REJECTS { REJECTS_TAKE } else { DOCKET_TAKES };
        let mut w = self.world.lock();
        let unwanted = record.topic == crate::DOCKET && holds(record.payload, UNWANTED);
        if record.payload.len() > takes || unwanted {
            let code = match unwanted {
                true => RDKafkaErrorCode::InvalidRecord,
                false => RDKafkaErrorCode::MessageSizeTooLarge,
            };
            // The broker refuses the batch, with what was sent just before.
            let mut refused = vec![tag];
            if !first {
                let sent = self.sent.borrow();
                let n = w.below(4) as usize;
                refused.extend(sent.iter().rev().take(n));
            }
            refused.into_iter().for_each(|tag| self.deliveries.note(&failed(code), tag));
            return Ok(());
        }
        self.sent.borrow_mut().push(tag);
        self.holds(self.open.get() + record.payload.len());
        if w.sabotage == Sabotage::LosesARecord && w.chance(0.01) {
            return Ok(());
        }
        let open = w.transaction(&self.id);
        let headers = pairs(&record);
        match partition {
            Some(partition) => {
                w.append_to((record.topic, partition), record.payload, headers, Some(open));
            }
            None => w.append(record.topic, record.key, record.payload, headers, Some(open)),
        }
        Ok(())
    }

    fn partitions(&self, topic: &str) -> KafkaResult<i32> {
        Ok(self.world.lock().partitions(topic))
    }

    fn flush(&self) -> KafkaResult<()> {
        self.sent.borrow_mut().clear();
        self.flushed.set(true);
        Ok(())
    }

    fn deliveries(&self) -> &Deliveries {
        &self.deliveries
    }

    fn brokers(&self) -> &Brokers {
        &self.brokers
    }

    fn add(&self, offsets: &[(&str, i32, log::Committed)], member: &Membership) -> KafkaResult<()> {
        if self.is_fenced() {
            return Err(failed(RDKafkaErrorCode::InvalidTransactionalState));
        }
        let mut w = self.world.lock();
        let p = w.faults.commit_fails;
        if w.chance(p) {
            w.note("a transaction fails");
            return Err(failed(RDKafkaErrorCode::InvalidTransactionalState));
        }
        let (group, id, generation, ids) = member;
        let current = w.groups[group].generation;
        if w.sabotage != Sabotage::NoFencing {
            if *generation != current {
                return Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::IllegalGeneration));
            }
            w.check_member(group, *id).map_err(KafkaError::ConsumerCommit)?;
        }
        let place = |topic: &str, partition: i32| (topic.to_owned(), partition);
        let fenced = w.sabotage != Sabotage::NoFencing;
        let keeps = w.sabotage != Sabotage::LosesMetadata;
        let texts = offsets.iter().filter(|_| keeps);
        let offsets = Offsets {
            group: group.clone(),
            offsets: offsets.iter().map(|(t, p, o)| (place(t, *p), o.offset)).collect(),
            ids: if fenced { ids.clone() } else { BTreeMap::new() },
            metadata: texts.map(|(t, p, o)| (place(t, *p), o.metadata.clone())).collect(),
        };
        let p = w.faults.late;
        if w.chance(p / 4.0) {
            w.note("a call with the offsets of a transaction does not come back");
            self.late(&mut w, Asked::Add(offsets));
            self.stuck.set(true);
            // All that it sent was acknowledged before: it is left behind with nothing.
            self.holds(0);
            return Err(failed(RDKafkaErrorCode::OperationTimedOut));
        }
        w.add_offsets(&self.id, offsets.clone());
        self.again(&mut w, Asked::Add(offsets));
        Ok(())
    }

    fn is_stuck(&self) -> bool {
        self.stuck.get()
    }

    fn commit(&self) -> KafkaResult<()> {
        assert!(!self.is_stuck(), "nothing can be asked of it any more");
        if self.is_fenced() {
            return Err(failed(RDKafkaErrorCode::InvalidProducerEpoch));
        }
        let mut w = self.world.lock();
        let p = w.faults.late;
        if w.chance(p / 2.0) {
            w.note("the end of a transaction is held back");
            self.late(&mut w, Asked::End(State::Committed));
            self.lost.set(true);
            return Err(failed(RDKafkaErrorCode::OperationTimedOut));
        }
        self.holds(0);
        w.end_of(&self.id, State::Committed);
        self.again(&mut w, Asked::End(State::Committed));
        let p = w.faults.answer_lost;
        if w.chance(p) {
            w.note("a transaction is committed, and nobody hears of it");
            self.lost.set(w.sabotage != Sabotage::GoesOnInDoubt);
            return Err(failed(RDKafkaErrorCode::OperationTimedOut));
        }
        Ok(())
    }

    fn abort(&self) -> KafkaResult<()> {
        assert!(!self.is_stuck(), "nothing can be asked of it any more");
        if self.is_fenced() || self.lost.get() {
            return Err(failed(RDKafkaErrorCode::InvalidProducerEpoch));
        }
        self.sent.borrow_mut().clear();
        self.holds(0);
        let mut w = self.world.lock();
        w.end_of(&self.id, State::Aborted);
        self.again(&mut w, Asked::End(State::Aborted));
        Ok(())
    }
}

/// Writes dead letters.
pub struct Dead(pub Shared);

impl RecordWriter for Dead {
    async fn write(&self, record: Outgoing<'_>) -> KafkaResult<()> {
        tokio::task::yield_now().await;
        let mut w = self.0.lock();
        let p = w.faults.letter_fails;
        if w.chance(p) {
            return Err(failed(RDKafkaErrorCode::MessageTimedOut));
        }
        if record.payload.len() > REJECTS_TAKE {
            return Err(failed(RDKafkaErrorCode::MessageSizeTooLarge));
        }
        w.append(record.topic, record.key, record.payload, pairs(&record), None);
        Ok(())
    }
}
