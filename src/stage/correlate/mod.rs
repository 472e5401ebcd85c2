//! The join, running: decisions that wait (`docket.<pipeline>.pending`) and what requests did (`.facts`) in, docket
//! records, amendments and findings out, exactly once.
//!
//! Both topics are read by one consumer group, partitions of the same number by the same member, since both are written
//! under the same keys. What is known is `correlate::Join`, and that is built from the topics: at the start, after a
//! rebalance, and whenever a transaction fails, it is read again from where was committed.
//!
//! `member` is what one member of the group holds, `output` what it writes, `evidence` what is known of how far
//! everything upstream is.

mod documents;
pub mod evidence;
mod member;
mod meters;
mod output;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::decision::record;
use crate::decision::time::Nanos;
use crate::facts::Packed;
use crate::log::ask::Asker;
use crate::log::config::Start;
use crate::log::consumer::{self, Assignments};
use crate::log::ended::Ended;
use crate::log::progress::Progress;
use crate::log::{Commits, Reader, Reading, Transactions, transactional};
use crate::pipeline::Pipeline;
use crate::pipeline::file::LogGap;
use crate::pipeline::join::Join as Section;
use crate::stage::supervise;
use crate::telemetry::{Health, Meters};
use evidence::Evidence;
use member::Member;
pub use meters::JoinMeters;

/// The name of the part.
pub const PART: &str = "join";

#[derive(Debug, thiserror::Error)]
pub enum CorrelateError {
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    Ended(Ended),
    #[error(transparent)]
    Unanswered(#[from] crate::log::ask::Unanswered),
    #[error(
        "{pending} has {0} partitions and {facts} {1}: give both as many, or what belongs together does not meet",
        .counts.0, .counts.1
    )]
    Partitions { pending: String, facts: String, counts: (usize, usize) },
    #[error("a thread can't be started: {0}")]
    Evidence(std::io::Error),
}

pub struct Correlate {
    pub pipeline: Arc<Pipeline>,
    pub section: Section,
    pub meters: Arc<Meters>,
    pub counts: Arc<JoinMeters>,
    pub health: Arc<Health>,
    pub progress: Arc<Progress>,
    /// How far everything upstream is.
    pub evidence: Arc<Evidence>,
    /// Of its transactions, where the pipeline file names no instance. The same after each restart of the part.
    pub id: String,
    /// The wall clock.
    pub clock: fn() -> Nanos,
    /// max.message.bytes of the docket and rejects topics, where the broker told.
    pub docket_limit: Option<usize>,
    pub rejects_limit: Option<usize>,
}

/// What happened to the partitions.
pub enum Change {
    Assigned(Vec<(String, i32)>),
    Revoked(Vec<(String, i32)>),
}

/// Rebalances, for the loop.
#[derive(Default)]
pub struct Rebalances(Mutex<Vec<Change>>);

impl Rebalances {
    fn note(&self, change: Change) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(change);
    }

    pub fn take(&self) -> Vec<Change> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Assignments for Arc<Rebalances> {
    fn assigned(&self, partitions: &[(String, i32)]) {
        self.note(Change::Assigned(partitions.to_vec()));
    }

    fn revoked(&self, _: &dyn Commits, partitions: &[(String, i32)], _: bool) {
        if !partitions.is_empty() {
            self.note(Change::Revoked(partitions.to_vec()));
        }
    }
}

/// When what stands in a record of either topic happened.
fn time(bytes: &[u8]) -> Option<Nanos> {
    match bytes.first() {
        Some(b'{') => record::time(bytes),
        Some(_) => Some(Packed::of(bytes).end()),
        None => None,
    }
}

/// How long the loop waits for a record.
const POLL: Duration = Duration::from_millis(50);
/// A transaction may be open for so long; the broker aborts it after 15 s.
const PATIENCE: Duration = Duration::from_secs(5);

impl Correlate {
    /// Reads from Kafka until told to stop.
    pub async fn run(&self, stop: &CancellationToken) -> Result<(), CorrelateError> {
        let file = &self.pipeline.file;
        let topics = [file.pending_topic(), file.facts_topic()];
        self.same_partitions(&topics)?;
        let instance = file.intake.instance_id.clone();
        let id = format!("docket.{}.{PART}.{}", file.name, instance.as_ref().unwrap_or(&self.id));
        let amendments = file.amendments_topic();
        let producer = transactional::transactional(
            &file.kafka,
            &format!("{}-{PART}", file.name),
            &id,
            file.docket.compression,
            self.docket_limit.into_iter().chain(self.rejects_limit).min(),
        )?;
        let reading = Reading {
            kafka: &file.kafka,
            part: PART,
            group: &self.pipeline.group(PART),
            topics: &topics.each_ref().map(String::as_str),
            start: Start::Earliest,
            writes: Some(&amendments),
            stops_at_gaps: file.watchdog.log_gap == LogGap::Stop,
            instance_id: instance.as_deref(),
            prefetch: file.intake.prefetch.0,
            shared: None,
            together: true,
            time,
        };
        // It ends with this run, however that ends.
        let watching = stop.child_token();
        let _ended = watching.clone().drop_guard();
        let restarts = self.meters.restarts.with_label_values(&[PART]);
        let failed = move |error: &str| {
            restarts.inc();
            tracing::error!(
                part = PART,
                error,
                "what watches how far the sources are failed, and is started again"
            );
        };
        evidence::watch(self.pipeline.clone(), self.evidence.clone(), failed, watching)
            .map_err(CorrelateError::Evidence)?;
        self.over(
            |seen| consumer::join(&reading, seen, self.meters.clone(), self.progress.clone()),
            producer,
            stop,
        )
        .await
    }

    /// Otherwise a key's decisions come to one process and its requests to another.
    fn same_partitions(&self, topics: &[String; 2]) -> Result<(), CorrelateError> {
        let asker = Asker::new(&self.pipeline.file.kafka, PART, None)?;
        let count = |topic: &String| {
            let told = asker.metadata(Some(topic), Duration::from_secs(15))?;
            Ok(told.topics().first().map_or(0, |topic| topic.partitions().len()))
        };
        let counts: Result<Vec<usize>, CorrelateError> = topics.iter().map(count).collect();
        let counts = counts?;
        if counts[0] != counts[1] {
            let [pending, facts] = topics.clone();
            let counts = (counts[0], counts[1]);
            return Err(CorrelateError::Partitions { pending, facts, counts });
        }
        Ok(())
    }

    /// Reads from any log until told to stop.
    pub async fn over<R, T>(
        &self,
        join: impl FnOnce(Arc<Rebalances>) -> KafkaResult<R>,
        transactions: T,
        stop: &CancellationToken,
    ) -> Result<(), CorrelateError>
    where
        R: Reader,
        T: Transactions<Membership = R::Membership>,
    {
        let rebalances = Arc::new(Rebalances::default());
        let reader = join(rebalances.clone())?;
        let mut member = Member::new(self, &reader, &transactions, rebalances);
        member.topics().iter().for_each(|topic| self.meters.reads(PART, topic));
        let mut failures = 0u32;
        while !stop.is_cancelled() {
            let result = match self.collect(&mut member, stop).await {
                Ok(()) => member.commit(),
                Err(error) => Err(error),
            };
            match result {
                Ok(()) => failures = 0,
                Err(error) => {
                    // However many are refused, each time it is known of some more.
                    let refused = member.abort(&error).map_err(|error| {
                        let instance = self.pipeline.file.intake.instance_id.as_deref();
                        let denied = transactions.denied();
                        CorrelateError::Ended(Ended::new(error, instance, denied))
                    })?;
                    if is_out_of_its_log(&error) {
                        return Err(error.into());
                    }
                    failures += u32::from(!refused);
                    if failures > 20 {
                        return Err(error.into());
                    }
                    supervise::pause(failures.checked_sub(3), stop).await;
                }
            }
            member.report();
        }
        reader.leave();
        self.progress.forget(PART);
        Ok(())
    }

    /// Reads, and writes what follows, until a transaction is due.
    async fn collect<R, T>(
        &self,
        member: &mut Member<'_, R, T>,
        stop: &CancellationToken,
    ) -> KafkaResult<()>
    where
        R: Reader,
        T: Transactions<Membership = R::Membership>,
    {
        let config = &self.pipeline.file.intake;
        let due = Instant::now() + config.transaction_interval.0.min(PATIENCE);
        let reader = member.reader;
        while Instant::now() < due && !stop.is_cancelled() {
            if member.is_full() {
                // What waits goes on after a while, and then there is room.
                reader.idle()?;
                tokio::time::sleep(POLL.min(due.saturating_duration_since(Instant::now()))).await;
            } else {
                let wait = POLL.min(due.saturating_duration_since(Instant::now()));
                reader.poll(wait, &mut |message| member.take(message)).await?;
            }
            member.settle()?;
            if member.written() >= config.transaction_bytes.0 {
                break;
            }
        }
        member.tick();
        member.settle()
    }
}

/// Where to go on is to be looked up anew, or by somebody.
fn is_out_of_its_log(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Subscription(_))
        || error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset)
}
