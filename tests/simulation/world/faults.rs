//! What may go wrong in the simulated Kafka, and what is made to, to see that it is noticed.

/// How likely each fault is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub commit_fails: f64,
    pub poll_stalls: f64,
    pub letter_fails: f64,
    /// A request to a sink meets a bug of docket's.
    pub send_panics: f64,
    /// Kafka commits a transaction, and its answer does not come.
    pub answer_lost: f64,
    /// A request of a transaction is on its way for long: it was sent again meanwhile, or nobody waits for its answer any more.
    pub late: f64,
    /// Kafka takes seconds for a fetch, or for a commit.
    pub slow: f64,
}

/// What the simulation is made to do wrong, to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sabotage {
    Nothing,
    /// Deliver commits one more than it may.
    CommitsTooMuch,
    /// A transaction loses a record.
    LosesARecord,
    /// A zombie's transactional offsets are taken.
    NoFencing,
    /// What was aborted can be read.
    ReadsUncommitted,
    /// Partitions are read in no order of time.
    NoOrder,
    /// What is gone is passed over.
    PassesOver,
    /// No topic id stands beside a committed offset, and none is remembered.
    NoTopicId,
    /// Partitions that were added are read from their end.
    AddedAtTheEnd,
    /// Commits on their way are taken for made.
    TakenForMade,
    /// What stands before a committed offset is taken for sent, though another topic has the name now.
    TakenForSent,
    /// What was committed with offsets is lost.
    LosesMetadata,
    /// A success that is no answer of the sink's is taken for one.
    TakesAnyAnswer,
    /// A request is sent again as it was, however few records are left to send.
    SameShape,
    /// A record that docket fails at is never the same one again.
    NeverCondemns,
    /// A batch never waits beside others.
    NoRoom,
    /// Another decision under the ID of one before is taken for that one.
    ByIdAlone,
    /// A part that failed is not started again.
    StaysDead,
    /// Who heard no answer to a commit goes on as if nothing had been committed.
    GoesOnInDoubt,
    /// A producer is not retired though a request of its last transaction may be on its way.
    NeverRetires,
    /// Where a group starts is not committed before it reads.
    ForgetsTheStart,
    /// What runs is stopped before what a changed pipeline file asks for is made.
    StopsFirst,
    /// What is read together is told by the name of its topic only.
    SharesByName,
    /// A sink reads on however much it holds.
    HoldsTooMuch,
    /// A file sink writes to the file that it opened first.
    KeepsTheFile,
}
