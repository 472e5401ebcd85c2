//! How far intake is behind its sources: what it has yet to read can be in no sink, and the docket knows nothing of it. And how far each sink
//! is behind the docket: what it has yet to be sent is not lost.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};
use serde::Serialize;

use crate::correlate::Position;
use crate::log::ask::Asker;
use crate::log::config::Start;
use crate::log::scan::{OffsetRange, ScanBound, ScanError, TopicScan};
use crate::pipeline::Pipeline;
use crate::sink::delivery::Delivery;

const TIMEOUT: Duration = Duration::from_secs(15);

/// Up to so many offsets are read, to tell records from transaction markers; more are counted as they are.
const COUNTED: u64 = 10_000;

/// What is on its way to the docket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Behind {
    /// How many records are yet to be read, by topic; those without any are left out.
    pub unread: BTreeMap<String, u64>,
    /// Of which topics that is not known, and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unknown: BTreeMap<String, String>,
}

impl Behind {
    pub fn records(&self) -> u64 {
        self.unread.values().sum()
    }
}

/// Asked before the docket is read: what was read by then is in it. An error is that Kafka does not answer.
pub fn behind(pipeline: &Pipeline) -> Result<Behind, ScanError> {
    let sources = pipeline.file.sources.iter().map(|source| ("intake", source.topic.clone()));
    let joined = pipeline.file.join.iter().map(|_| ("join", pipeline.file.pending_topic()));
    let mut behind = Behind::default();
    for (part, topic) in sources.chain(joined) {
        match unread(pipeline, part, &topic) {
            Ok(0) => {}
            Ok(records) => {
                behind.unread.insert(topic, records);
            }
            Err(error @ ScanError::Unanswered(_)) => return Err(error),
            Err(error) => {
                behind.unknown.insert(topic, error.to_string());
            }
        }
    }
    Ok(behind)
}

/// Up to which offset of each partition of the docket a sink has finished everything; nothing if that is not known.
pub(super) fn finished(
    pipeline: &Pipeline,
    sink: &str,
    delivery: &Delivery,
    docket: &TopicScan,
) -> Option<BTreeMap<i32, i64>> {
    // What it gets only from others is theirs.
    if delivery.only_routed {
        return None;
    }
    let latest = delivery.start == Start::Latest;
    next(pipeline, sink, &pipeline.docket_topic(), docket, latest).ok()
}

/// Records of a topic that a part has yet to read.
fn unread(pipeline: &Pipeline, part: &str, topic: &str) -> Result<u64, ScanError> {
    let all = pipeline.scan("verify", topic, ScanBound::Start, ScanBound::End)?;
    let latest = part == "intake" && pipeline.file.intake.start == Start::Latest;
    let next = next(pipeline, part, topic, &all, latest)?;
    let left = all.starting_at(&next);
    if left.offsets() == 0 || left.offsets() > COUNTED {
        return Ok(left.offsets());
    }
    let mut records = 0;
    left.read(&mut |_| {}, &mut |_| {
        records += 1;
        true
    })?;
    Ok(records)
}

/// Where a part goes on in each partition.
fn next(
    pipeline: &Pipeline,
    part: &str,
    topic: &str,
    all: &TopicScan,
    latest: bool,
) -> Result<BTreeMap<i32, i64>, ScanError> {
    let asker = Asker::new(&pipeline.file.kafka, "verify", Some(&pipeline.group(part)))?;
    let mut list = TopicPartitionList::new();
    for range in all.ranges() {
        list.add_partition(topic, range.partition);
    }
    let committed = asker
        .client
        .committed_offsets(list, TIMEOUT)
        .map_err(|error| ScanError::Kafka { topic: topic.to_owned(), error })?;
    let of = |range: &OffsetRange| {
        let element = committed.find_partition(topic, range.partition);
        let told = element.as_ref().map(|e| (e.offset(), crate::resume::beside(e.metadata()).1));
        let next = match told {
            Some((Offset::Offset(offset), text)) if offset <= range.to => {
                Position::parse(offset, text).map_or(offset, |position| position.next)
            }
            // What was committed is of another topic of this name.
            Some((Offset::Offset(_), _)) => range.from,
            _ if latest => range.to,
            _ => range.from,
        };
        (range.partition, next)
    };
    Ok(all.ranges().iter().map(of).collect())
}
