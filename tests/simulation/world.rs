//! A Kafka of one's own: partitions with transactions, groups with cooperative rebalances, time that is
//! virtual and faults that follow from a seed. What it lets pass, and what it refuses, is what Kafka does.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use docket::resume::{Committed, Start};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rdkafka::error::RDKafkaErrorCode;
use tokio::time::Instant;

mod commits;
mod faults;
mod logs;
mod member;
mod memory;
mod producer;
mod rings;
mod transactions;

pub use faults::{Faults, Sabotage};
pub use member::Member;
pub use memory::{Account, Alive};
pub use producer::{Dead, producer};
pub use rings::Rings;
use transactions::{Late, Producing, State, Transaction};

pub type Place = (String, i32);
/// Group, member, generation, and the ids of its topics.
pub type Membership = (String, u64, u64, BTreeMap<String, String>);
type Pairs = Vec<(String, Vec<u8>)>;

/// Kafka's max.message.bytes of the docket topic and of rejects, here.
pub const DOCKET_TAKES: usize = 3_000;
pub const REJECTS_TAKE: usize = 6_000;

/// A member that does not poll for so long is put out of its group.
const SESSION: Duration = Duration::from_secs(6);
/// What was not committed is committed again by then.
const COMMITS_AGAIN: Duration = Duration::from_secs(30);
/// A transaction that is open for so long is aborted, and its producer fenced.
const TRANSACTION: Duration = Duration::from_secs(15);

#[derive(Clone)]
pub struct Record {
    pub offset: i64,
    pub value: Vec<u8>,
    pub headers: Pairs,
    /// When Kafka got it.
    pub written: i64,
}

impl Record {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).and_then(|(_, v)| std::str::from_utf8(v).ok())
    }
}

enum Entry {
    Record {
        value: Vec<u8>,
        headers: Pairs,
        transaction: Option<usize>,
        written: i64,
    },
    /// Ends a transaction; takes an offset and is no record.
    Marker,
}

#[derive(Default)]
struct Group {
    topics: Vec<String>,
    generation: u64,
    /// By member: when it polled last.
    members: BTreeMap<u64, Instant>,
    owners: BTreeMap<Place, u64>,
    committed: BTreeMap<Place, Committed>,
    /// What was committed with an offset.
    metadata: BTreeMap<Place, String>,
    /// Commits that did not arrive: the offset, of which member, and since when.
    unmade: BTreeMap<Place, (i64, u64, Instant)>,
}

impl Group {
    /// Who has left, or was put out.
    fn remove(&mut self, member: u64) {
        self.members.remove(&member);
        self.owners.retain(|_, owner| *owner != member);
        self.unmade.retain(|_, (_, of, _)| *of != member);
        self.generation += 1;
    }
}

pub struct World {
    rng: SmallRng,
    logs: BTreeMap<Place, Vec<Entry>>,
    /// Which of all partitions each is.
    indices: BTreeMap<Place, usize>,
    transactions: Vec<Transaction>,
    open: BTreeSet<usize>,
    /// By transactional id.
    producers: BTreeMap<String, Producing>,
    /// Requests that are on their way for long.
    late: Vec<Late>,
    /// A part has the same transactional id after it failed, as it does; otherwise what it left open takes its time.
    pub same_ids: bool,
    /// Where groups start that have committed nothing; at the beginning, unless it is said here.
    pub starts: BTreeMap<String, Start>,
    /// Groups that have looked where they start.
    pub begun: BTreeSet<String>,
    /// By process and part: what it holds, and may.
    accounts: BTreeMap<(String, String), Account>,
    /// So many times as large as decisions are they encoded.
    pub swells: usize,
    stable: RefCell<BTreeMap<Place, usize>>,
    groups: BTreeMap<String, Group>,
    /// By partition: where its log starts. Retention deletes what is before.
    pub first: BTreeMap<Place, i64>,
    /// By topic.
    pub ids: BTreeMap<String, u64>,
    /// How often a log became shorter or another.
    pub upheavals: u64,
    /// What stood in a log and is gone: its place, and the decision.
    pub deleted: Vec<(Place, i64, Vec<u8>)>,
    next_member: u64,
    pub faults: Faults,
    pub sabotage: Sabotage,
    /// By sink: decision ids that it acknowledged, and everything that it holds.
    pub acknowledged: BTreeMap<String, BTreeSet<String>>,
    pub stored: BTreeMap<String, BTreeMap<String, Vec<Vec<u8>>>>,
    /// Sinks ask for no record to be sent again.
    pub takes_all: bool,
    /// By sink: until when it answers with an outage.
    pub away: BTreeMap<String, Instant>,
    /// By sink: until when it refuses everything.
    pub refusing: BTreeMap<String, Instant>,
    /// By sink: the times of what it got, as it came.
    pub times: BTreeMap<String, Vec<i64>>,
    pub violations: Vec<String>,
    pub events: Vec<String>,
    start: Instant,
    /// The wall clock at the start.
    began: i64,
}

#[derive(Clone)]
pub struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub fn new(seed: u64, faults: Faults, sabotage: Sabotage) -> Shared {
        Shared(Arc::new(Mutex::new(World {
            rng: SmallRng::seed_from_u64(seed),
            logs: BTreeMap::new(),
            indices: BTreeMap::new(),
            transactions: Vec::new(),
            open: BTreeSet::new(),
            producers: BTreeMap::new(),
            late: Vec::new(),
            same_ids: false,
            starts: BTreeMap::new(),
            begun: BTreeSet::new(),
            accounts: BTreeMap::new(),
            swells: 1,
            stable: RefCell::default(),
            groups: BTreeMap::new(),
            first: BTreeMap::new(),
            ids: BTreeMap::new(),
            upheavals: 0,
            deleted: Vec::new(),
            next_member: 0,
            faults,
            sabotage,
            acknowledged: BTreeMap::new(),
            stored: BTreeMap::new(),
            takes_all: false,
            away: BTreeMap::new(),
            refusing: BTreeMap::new(),
            times: BTreeMap::new(),
            violations: Vec::new(),
            events: Vec::new(),
            start: Instant::now(),
            began: docket::clock::now() / 1_000_000_000 * 1_000_000_000,
        })))
    }

    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

impl World {
    pub fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && self.rng.random_bool(p)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.rng.random_range(0..n)
    }

    pub fn now(&self) -> i64 {
        self.began + docket::decision::time::nanos(self.start.elapsed())
    }

    pub fn note(&mut self, event: impl Into<String>) {
        let at = self.start.elapsed().as_millis();
        self.events.push(format!("{at:>8} ms  {}", event.into()));
    }

    pub fn violation(&mut self, what: String) {
        self.note(format!("VIOLATION {what}"));
        self.violations.push(what);
    }

    pub fn create(&mut self, topic: &str, partitions: i32) {
        for partition in 0..partitions {
            self.logs.insert((topic.to_owned(), partition), Vec::new());
        }
        *self.ids.entry(topic.to_owned()).or_default() += 1;
        self.count();
    }

    fn count(&mut self) {
        self.indices = self.logs.keys().cloned().zip(0..).collect();
    }

    /// A producer outside that chooses the partition.
    pub fn produce_to(&mut self, topic: &str, partition: i32, value: &[u8]) {
        let (value, written) = (value.to_vec(), self.now());
        let log = self.logs.get_mut(&(topic.to_owned(), partition)).unwrap();
        log.push(Entry::Record { value, headers: Vec::new(), transaction: None, written });
    }

    /// Which of all partitions it is.
    fn index(&self, place: &Place) -> usize {
        self.indices[place]
    }

    pub fn partitions(&self, topic: &str) -> i32 {
        self.logs.keys().filter(|(t, _)| t == topic).count() as i32
    }

    fn append(
        &mut self,
        topic: &str,
        key: Option<&str>,
        value: &[u8],
        headers: Pairs,
        transaction: Option<usize>,
    ) {
        let n = self.partitions(topic) as u64;
        let partition = match key {
            Some(key) => {
                key.bytes().fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b))) % n
            }
            None => self.below(n),
        };
        self.append_to((topic, partition as i32), value, headers, transaction);
    }

    fn append_to(
        &mut self,
        (topic, partition): (&str, i32),
        value: &[u8],
        headers: Pairs,
        transaction: Option<usize>,
    ) {
        let place = (topic.to_owned(), partition);
        if let Some(id) = transaction {
            self.transactions[id].touched.insert(place.clone());
        }
        let (value, written) = (value.to_vec(), self.now());
        let record = Entry::Record { value, headers, transaction, written };
        self.logs.get_mut(&place).unwrap().push(record);
    }

    /// A producer outside, which has no transactions.
    pub fn produce(&mut self, topic: &str, value: &[u8]) {
        self.append(topic, None, value, Vec::new(), None);
    }

    /// The parts of one or two lines, each between the other's, in one partition.
    pub fn split(&mut self, lines: &mut Vec<Vec<Vec<u8>>>) {
        let mut two =
            [lines.pop().unwrap_or_default(), lines.pop().unwrap_or_default()].map(Vec::into_iter);
        let key = format!("k{}", self.below(9));
        loop {
            let parts = [two[0].next(), two[1].next()];
            if parts.iter().all(Option::is_none) {
                return;
            }
            for part in parts.into_iter().flatten() {
                self.append(super::SOURCE, Some(&key), &part, Vec::new(), None);
            }
        }
    }

    fn state(&self, entry: &Entry) -> State {
        match entry {
            Entry::Record { transaction: Some(id), .. } => self.transactions[*id].state,
            _ => State::Committed,
        }
    }

    /// The last stable offset.
    fn stable(&self, place: &Place) -> i64 {
        let log = &self.logs[place];
        // What was stable once stays so.
        let mut stable = self.stable.borrow_mut();
        let known = stable.entry(place.clone()).or_default();
        while *known < log.len() && self.state(&log[*known]) != State::Open {
            *known += 1;
        }
        *known as i64
    }

    /// The next committed record from an offset on.
    fn read(&self, place: &Place, from: i64) -> Option<Record> {
        let (log, stable) = (&self.logs[place], self.stable(place));
        (from.max(self.start(place))..stable).find_map(|offset| match &log[offset as usize] {
            Entry::Record { value, headers, written, .. }
                if self.sabotage == Sabotage::ReadsUncommitted
                    || self.state(&log[offset as usize]) == State::Committed =>
            {
                let (value, headers) = (value.clone(), headers.clone());
                Some(Record { offset, value, headers, written: *written })
            }
            _ => None,
        })
    }

    /// All committed records of a topic.
    pub fn committed(&self, topic: &str) -> Vec<(i32, Record)> {
        let mut all = Vec::new();
        for place in self.logs.keys().filter(|(t, _)| t == topic) {
            let mut from = 0;
            while let Some(record) = self.read(place, from) {
                from = record.offset + 1;
                all.push((place.1, record));
            }
        }
        all
    }

    /// Puts out members that are silent, and aborts transactions that take too long.
    fn tick(&mut self) {
        let now = Instant::now();
        self.arrive(now);
        let mut moved = Vec::new();
        for (name, group) in &mut self.groups {
            let dead: Vec<u64> = group
                .members
                .iter()
                .filter(|(_, seen)| now - **seen > SESSION)
                .map(|(id, _)| *id)
                .collect();
            for id in dead {
                group.remove(id);
                moved.push(format!("{name}: member {id} was put out"));
            }
        }
        for id in self.open.clone() {
            if now - self.transactions[id].begun > TRANSACTION {
                self.time_out(id);
                moved.push(format!("transaction {id} timed out"));
            }
        }
        moved.into_iter().for_each(|event| self.note(event));
    }

    /// Which member is to have a partition: round robin, in the order of the members.
    fn wanted(&self, group: &str, place: &Place) -> Option<u64> {
        let group = &self.groups[group];
        let members: Vec<u64> = group.members.keys().copied().collect();
        // As `range` does it: of several topics, partitions of one number go to one member.
        let index = match group.topics.len() {
            1 => {
                self.logs.keys().filter(|(t, _)| *t == group.topics[0]).position(|p| p == place)?
            }
            _ => place.1 as usize,
        };
        members.get(index % members.len().max(1)).copied()
    }

    fn take_offsets(
        &mut self,
        group: &str,
        member: u64,
        offsets: &[(Place, i64)],
        ids: &BTreeMap<String, String>,
    ) -> Result<(), RDKafkaErrorCode> {
        self.check_member(group, member)?;
        self.put_offsets(group, offsets, ids);
        Ok(())
    }

    fn check_member(&mut self, group: &str, member: u64) -> Result<(), RDKafkaErrorCode> {
        self.tick();
        let known = self.groups.get(group).is_some_and(|g| g.members.contains_key(&member));
        if known { Ok(()) } else { Err(RDKafkaErrorCode::UnknownMemberId) }
    }

    fn put_offsets(
        &mut self,
        group: &str,
        offsets: &[(Place, i64)],
        ids: &BTreeMap<String, String>,
    ) {
        let sink = group.rsplit('.').next().unwrap_or_default().to_owned();
        for (place, offset) in offsets {
            let topic_id = ids.get(&place.0).cloned();
            // What is said of a topic that is no more is taken for what it is by who reads it next.
            if !["intake", "facts", "join"].contains(&sink.as_str())
                && topic_id.as_ref().is_none_or(|id| *id == self.id(&place.0))
            {
                self.check_commit(&sink, place, *offset);
            }
            let committed = Committed { next: *offset, topic_id };
            let group = self.groups.get_mut(group).unwrap();
            group.committed.insert(place.clone(), committed);
            if group.unmade.get(place).is_some_and(|(unmade, ..)| unmade <= offset) {
                group.unmade.remove(place);
            }
        }
    }

    /// A member's commit does not arrive, and who made it is to make it again.
    fn loses_commit(&mut self, group: &str, member: u64, place: Place, offset: i64) {
        let unmade = &mut self.groups.get_mut(group).unwrap().unmade;
        if unmade.get(&place).is_none_or(|(_, of, _)| *of != member) {
            unmade.insert(place, (offset, member, Instant::now()));
        }
    }

    /// Whether a member left a commit at that it was told had failed.
    fn check_unmade(&mut self, group: &str, member: u64) {
        let unmade = &self.groups[group].unmade;
        let long =
            |(_, of, since): &(i64, u64, Instant)| *of == member && since.elapsed() > COMMITS_AGAIN;
        let left: Vec<Place> =
            unmade.iter().filter(|(_, one)| long(one)).map(|(place, _)| place.clone()).collect();
        for place in left {
            self.groups.get_mut(group).unwrap().unmade.remove(&place);
            self.violation(format!("{group} does not commit {place:?} again"));
        }
    }

    /// Everything below a committed offset was acknowledged by the sink or is in rejects.
    fn check_commit(&mut self, sink: &str, place: &Place, offset: i64) {
        let mut from = 0;
        let mut missing = Vec::new();
        while let Some(record) = self.read(place, from).filter(|r| r.offset < offset) {
            from = record.offset + 1;
            let id = super::decision_id(&record.value);
            let taken = |by: &str| self.acknowledged.get(by).is_some_and(|ids| ids.contains(&id));
            let finished =
                taken(sink) || sink == "once" && taken("late") || self.is_rejected(sink, &id);
            if !finished {
                missing.push(format!("{id} at {}", record.offset));
            }
        }
        if !missing.is_empty() {
            self.violation(format!(
                "{sink} committed {offset} of {place:?} without {}",
                missing.join(", ")
            ));
        }
    }

    /// Dead letters of sinks are written outside of transactions; that intake's open one hides them for a while is no matter.
    pub fn is_rejected(&self, sink: &str, id: &str) -> bool {
        let rejects = self
            .logs
            .iter()
            .filter(|((topic, _), _)| topic == super::REJECTS)
            .flat_map(|(_, log)| log);
        rejects.into_iter().any(|entry| match entry {
            Entry::Record { value, headers, transaction: None, .. } => {
                headers.iter().any(|(n, v)| n == "docket-sink" && v == sink.as_bytes())
                    && super::decision_id(value) == id
            }
            _ => false,
        })
    }

    /// Where a topic's partitions end, whoever can read that.
    pub fn ends(&self, topic: &str) -> BTreeMap<i32, i64> {
        let places = self.logs.keys().filter(|(t, _)| t == topic);
        places.map(|place| (place.1, self.logs[place].len() as i64)).collect()
    }

    /// Whether a group has committed all of a topic up to there.
    pub fn has_read(&self, group: &str, topic: &str, ends: &BTreeMap<i32, i64>) -> bool {
        let committed = self.groups.get(group).map(|g| &g.committed);
        ends.iter().all(|(partition, end)| {
            let place = (topic.to_owned(), *partition);
            committed.and_then(|c| c.get(&place)).map_or(0, |c| c.next) >= *end
        })
    }

    pub fn members(&self, group: &str) -> usize {
        self.groups.get(group).map_or(0, |group| group.members.len())
    }

    /// How many committed records a group has not finished.
    pub fn lag(&self, group: &str, topic: &str) -> usize {
        let committed = self.groups.get(group).map(|g| &g.committed);
        let places = self.logs.keys().filter(|(t, _)| t == topic);
        // Who has nothing of it, or of another of its name, has not looked yet.
        let careful = self.sabotage != Sabotage::NoTopicId;
        let (id, none) = (self.id(topic), i64::MAX);
        let is_of = |c: &Committed| !careful || c.topic_id.as_ref().is_none_or(|of| *of == id);
        let next = |c: &Committed| if is_of(c) { c.next } else { none };
        places
            .filter(|place| {
                let next = committed.and_then(|c| c.get(*place)).map_or(none, next);
                next == none
                    || self.read(place, next).is_some()
                    || self.stable(place) < self.logs[*place].len() as i64
            })
            .count()
    }
}

/// Kafka refuses docket records that hold this,
pub const UNWANTED: &str = "unwanted-";
/// and docket panics at source records that hold this.
pub const PANICS: &str = "panics-";

fn holds(value: &[u8], text: &str) -> bool {
    value.windows(text.len()).any(|window| window == text.as_bytes())
}
