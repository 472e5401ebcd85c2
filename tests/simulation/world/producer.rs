//! Who writes to the simulated Kafka: in transactions, and dead letters.

use std::cell::{Cell, RefCell};

use docket::log::{self, Outgoing, RecordWriter, Transactions};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Headers as _;

use super::*;

/// A transactional producer.
pub struct Producer {
    world: Shared,
    open: Cell<Option<usize>>,
    /// Tags of the open transaction, in the order of sending.
    sent: RefCell<Vec<usize>>,
    refused: RefCell<Vec<(usize, RDKafkaErrorCode)>>,
    /// It is not known how a transaction ended.
    doubtful: Cell<bool>,
}

impl Producer {
    pub fn new(world: &Shared) -> Producer {
        Producer {
            world: world.clone(),
            open: Cell::new(None),
            sent: RefCell::default(),
            refused: RefCell::default(),
            doubtful: Cell::new(false),
        }
    }

    fn is_fenced(&self) -> bool {
        let mut w = self.world.lock();
        w.tick();
        self.open.get().is_some_and(|id| w.transactions[id].state != State::Open)
    }
}

impl Transactions for Producer {
    type Membership = Membership;

    fn begin(&self) -> KafkaResult<()> {
        let mut w = self.world.lock();
        w.transactions.push(Transaction {
            state: State::Open,
            begun: Instant::now(),
            touched: BTreeSet::new(),
        });
        let id = w.transactions.len() - 1;
        w.open.insert(id);
        self.open.set(Some(id));
        Ok(())
    }

    fn send(&self, record: Outgoing<'_>, tag: usize, alone: bool) -> KafkaResult<()> {
        if self.is_fenced() {
            return Err(KafkaError::MessageProduction(RDKafkaErrorCode::InvalidProducerEpoch));
        }
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
            if !alone {
                let sent = self.sent.borrow();
                let n = w.below(4) as usize;
                refused.extend(sent.iter().rev().take(n));
            }
            self.refused.borrow_mut().extend(refused.into_iter().map(|tag| (tag, code)));
            return Ok(());
        }
        // What is sent alone is in no batch with others.
        if alone {
            self.sent.borrow_mut().clear();
        } else {
            self.sent.borrow_mut().push(tag);
        }
        if w.sabotage == Sabotage::LosesARecord && w.chance(0.01) {
            return Ok(());
        }
        let headers: Pairs = record
            .headers
            .iter()
            .map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec()))
            .collect();
        w.append(record.topic, record.key, record.payload, headers, self.open.get());
        Ok(())
    }

    fn any_failed(&self) -> bool {
        !self.refused.borrow().is_empty()
    }

    fn commit_with(
        &self,
        offsets: &[(&str, i32, log::Committed)],
        member: &Membership,
    ) -> KafkaResult<()> {
        if self.is_fenced() || !self.refused.borrow().is_empty() {
            return Err(KafkaError::MessageProduction(RDKafkaErrorCode::InvalidTransactionalState));
        }
        let mut w = self.world.lock();
        let p = w.faults.commit_fails;
        if w.chance(p) {
            w.note("a transaction fails");
            return Err(KafkaError::MessageProduction(RDKafkaErrorCode::InvalidTransactionalState));
        }
        let (group, id, generation, ids) = member;
        let current = w.groups[group].generation;
        if w.sabotage != Sabotage::NoFencing && *generation != current {
            return Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::IllegalGeneration));
        }
        let metadata: Vec<(Place, String)> = offsets
            .iter()
            .map(|(t, p, o)| (((*t).to_owned(), *p), o.metadata.clone()))
            .filter(|_| w.sabotage != Sabotage::LosesMetadata)
            .collect();
        let offsets: Vec<(Place, i64)> =
            offsets.iter().map(|(t, p, o)| (((*t).to_owned(), *p), o.offset)).collect();
        if w.sabotage == Sabotage::NoFencing {
            for (place, offset) in &offsets {
                let committed = Committed { next: *offset, topic_id: None };
                w.groups.get_mut(group).unwrap().committed.insert(place.clone(), committed);
            }
        } else {
            w.take_offsets(group, *id, &offsets, ids).map_err(KafkaError::ConsumerCommit)?;
        }
        w.groups.get_mut(group).unwrap().metadata.extend(metadata);
        if let Some(id) = self.open.take() {
            w.end(id, State::Committed);
        }
        self.sent.borrow_mut().clear();
        let p = w.faults.answer_lost;
        if w.chance(p) {
            w.note("a transaction is committed, and nobody hears of it");
            self.doubtful.set(w.sabotage != Sabotage::GoesOnInDoubt);
            return Err(KafkaError::MessageProduction(RDKafkaErrorCode::OperationTimedOut));
        }
        Ok(())
    }

    fn abort(&self) -> KafkaResult<Vec<(usize, RDKafkaErrorCode)>> {
        if self.is_fenced() || self.doubtful.get() {
            return Err(KafkaError::MessageProduction(RDKafkaErrorCode::InvalidProducerEpoch));
        }
        if let Some(id) = self.open.take() {
            self.world.lock().end(id, State::Aborted);
        }
        self.sent.borrow_mut().clear();
        Ok(self.refused.take())
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
            return Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut));
        }
        if record.payload.len() > REJECTS_TAKE {
            return Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge));
        }
        let headers: Pairs = record
            .headers
            .iter()
            .map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec()))
            .collect();
        w.append(record.topic, record.key, record.payload, headers, None);
        Ok(())
    }
}
