//! What an open transaction of intake holds, and what of it the broker may refuse.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use tokio::time::Instant;

use super::missing::Lost;
use crate::decision::formats::{Ignored, Parts};
use crate::decision::reject::Reason;
use crate::decision::verdict::{Basis, Verdict};
use crate::protect::detector::Hit;
use crate::protect::record::Made;

/// A piece of a source record: topic (by number), partition, offset, element.
pub type Place = (usize, i32, i64, usize);

/// What a piece became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Docket,
    Reject,
}

/// A piece that was in a batch which the broker refused for what is in it.
#[derive(Debug, Clone, Copy)]
pub struct Suspect {
    pub kind: Kind,
    /// It was alone in its batch, so it is the one: its docket record becomes a reject, of its reject, if it was too large,
    /// only the start is kept. Until then it is sent again, alone.
    pub proven: bool,
    pub code: RDKafkaErrorCode,
}

/// What was produced, by tag.
#[derive(Debug, Clone, Copy)]
pub struct Produced {
    pub place: Place,
    pub kind: Kind,
    pub alone: bool,
}

/// What an open transaction holds.
#[derive(Default)]
pub struct Open {
    /// There is a transaction; without one, only places to go back to.
    pub begun: bool,
    /// By topic and partition: the first offset read, and the one after the last.
    pub offsets: BTreeMap<(usize, i32), (i64, i64)>,
    /// When it was begun.
    pub began: Option<Instant>,
    pub records: usize,
    /// By tag.
    pub produced: Vec<Produced>,
    /// Of source records or of what they became, whichever is more.
    pub bytes: usize,
    /// A record could not be produced.
    pub refused: bool,
    pub tally: Tally,
    /// How much longer it is open for parts of lines.
    pub waited: Duration,
    /// Parts of lines. None wait when the transaction is committed, so that its offsets are all there is to keep.
    pub parts: Parts,
    /// Where partitions go on in the next transaction that had no more part in this one.
    pub later: BTreeMap<(usize, i32), i64>,
    /// What the join is to be told that it lacks.
    pub lost: Lost,
}

/// Counts of an open transaction, added to the counters once it is committed.
#[derive(Default)]
pub struct Tally {
    pub topics: HashMap<usize, TopicTally>,
    pub verdicts: HashMap<Verdict, u64>,
    pub rejects: HashMap<Reason, u64>,
    pub hits: HashMap<Hit, u64>,
}

#[derive(Default)]
pub struct TopicTally {
    pub records: u64,
    pub bytes: u64,
    pub ignored: BTreeMap<Ignored, u64>,
    pub dropped: u64,
    pub malformed: u64,
    pub mismatches: u64,
    pub unjudged: u64,
    pub facts: BTreeMap<crate::facts::Kind, u64>,
    pub keyless: u64,
}

impl Tally {
    pub fn topic(&mut self, topic: usize) -> &mut TopicTally {
        self.topics.entry(topic).or_default()
    }

    pub fn made(&mut self, topic: usize, made: &Made) {
        *self.verdicts.entry(made.written.verdict).or_default() += 1;
        for hit in &made.hits {
            *self.hits.entry(hit.clone()).or_default() += 1;
        }
        let tally = self.topic(topic);
        tally.malformed += u64::from(made.written.malformed_ids);
        tally.mismatches += u64::from(made.written.trace_mismatch);
        tally.unjudged += u64::from(made.written.judged_by == Basis::Nothing);
    }
}
