//! Transactions of the simulated Kafka, as brokers know them that don't change the epoch with each one: a request is taken by its producer's
//! id and epoch, and belongs to whichever transaction is open when it arrives.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum State {
    Open,
    Committed,
    Aborted,
}

pub struct Transaction {
    pub state: State,
    pub begun: Instant,
    pub touched: BTreeSet<Place>,
    producer: String,
    offsets: Vec<Offsets>,
}

/// What is known of a transactional id.
#[derive(Default)]
pub struct Producing {
    pub epoch: u64,
    pub open: Option<usize>,
}

/// Offsets of a group that a transaction commits.
#[derive(Clone)]
pub struct Offsets {
    pub group: String,
    pub offsets: Vec<(Place, i64)>,
    pub ids: BTreeMap<String, String>,
    pub metadata: Vec<(Place, String)>,
}

/// A request that is on its way for long.
pub struct Late {
    pub due: Instant,
    pub producer: String,
    pub epoch: u64,
    pub what: Asked,
}

pub enum Asked {
    End(State),
    Add(Offsets),
}

impl World {
    /// A new epoch; what the one before left open is aborted.
    pub fn next_epoch(&mut self, id: &str) -> u64 {
        if self.same_ids {
            self.tick();
        }
        self.end_of(id, State::Aborted);
        let producing = self.producers.entry(id.to_owned()).or_default();
        producing.epoch += 1;
        producing.epoch
    }

    pub fn is_current(&mut self, id: &str, epoch: u64) -> bool {
        self.tick();
        self.producers.get(id).is_some_and(|producing| producing.epoch == epoch)
    }

    /// The open transaction of an id; a new one if there is none.
    pub fn transaction(&mut self, id: &str) -> usize {
        if let Some(open) = self.producers.get(id).and_then(|producing| producing.open) {
            return open;
        }
        self.transactions.push(Transaction {
            state: State::Open,
            begun: Instant::now(),
            touched: BTreeSet::new(),
            producer: id.to_owned(),
            offsets: Vec::new(),
        });
        let new = self.transactions.len() - 1;
        self.open.insert(new);
        self.producers.entry(id.to_owned()).or_default().open = Some(new);
        new
    }

    pub fn add_offsets(&mut self, id: &str, offsets: Offsets) {
        let open = self.transaction(id);
        self.transactions[open].offsets.push(offsets);
    }

    /// Ends the transaction of an id that is open now.
    pub fn end_of(&mut self, id: &str, state: State) {
        let open = self.producers.get_mut(id).and_then(|producing| producing.open.take());
        let Some(open) = open else { return };
        self.transactions[open].state = state;
        self.open.remove(&open);
        for of in std::mem::take(&mut self.transactions[open].offsets) {
            if state == State::Committed {
                self.put_offsets(&of.group, &of.offsets, &of.ids);
                self.groups.get_mut(&of.group).unwrap().metadata.extend(of.metadata);
            }
        }
        for place in std::mem::take(&mut self.transactions[open].touched) {
            self.logs.get_mut(&place).unwrap().push(Entry::Marker);
        }
    }

    /// It was open for too long, and its producer is fenced.
    pub fn time_out(&mut self, transaction: usize) {
        let id = self.transactions[transaction].producer.clone();
        self.end_of(&id, State::Aborted);
        self.producers.get_mut(&id).unwrap().epoch += 1;
    }

    /// What was on its way for long is there.
    pub fn arrive(&mut self, now: Instant) {
        let is_due = |late: &Late| late.due <= now;
        let (due, later): (Vec<Late>, Vec<Late>) =
            std::mem::take(&mut self.late).into_iter().partition(is_due);
        self.late = later;
        for Late { producer, epoch, what, .. } in due {
            let of = self.producers.get(&producer).filter(|of| of.epoch == epoch);
            let is_open = of.is_some_and(|of| of.open.is_some());
            match what {
                _ if !is_open => self.note(format!("a late request of {producer} is refused")),
                Asked::End(state) => {
                    self.note(format!("a late request of {producer} has it {state:?}"));
                    self.end_of(&producer, state);
                }
                Asked::Add(offsets) => {
                    self.note(format!("a late request of {producer} adds {:?}", offsets.offsets));
                    self.add_offsets(&producer, offsets);
                }
            }
        }
    }

    /// Whether an open transaction is to commit a group's offset of a partition: who asks for it waits.
    pub fn is_unstable(&self, group: &str, place: &Place) -> bool {
        let mut open = self.open.iter().flat_map(|id| &self.transactions[*id].offsets);
        open.any(|of| of.group == group && of.offsets.iter().any(|(p, _)| p == place))
    }
}
