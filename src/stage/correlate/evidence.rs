//! How far everything upstream is. What is missing says something only once all that came to the source topics was read
//! by intake or the reader of facts, and by the join.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::Offset;
use rdkafka::error::KafkaResult;
use tokio_util::sync::CancellationToken;

use super::PART;
use crate::caught::caught;
use crate::clock;
use crate::correlate::Side;
use crate::decision::time::Nanos;
use crate::log::config::Start;
use crate::log::standing::{Ranges, Standing};
use crate::pipeline::Pipeline;

/// At a time, everything that had come to a side's source topics stood in its topic, which ended there: where it is
/// written, open transactions among it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clear {
    pub at: Nanos,
    /// By partition.
    pub ends: BTreeMap<i32, i64>,
}

/// The last such time of each side.
#[derive(Debug, Default)]
pub struct Evidence(Mutex<[Option<Clear>; 2]>);

impl Evidence {
    pub fn of(&self, side: Side) -> Option<Clear> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[side as usize].clone()
    }

    pub fn set(&self, side: Side, clear: Clear) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[side as usize] = Some(clear);
    }
}

const EVERY: Duration = Duration::from_secs(3);

/// Asks Kafka now and then, on a thread of its own, until told to stop. `failed` is told of docket's own failures.
pub fn watch(
    pipeline: Arc<Pipeline>,
    evidence: Arc<Evidence>,
    failed: impl Fn(&str) + Send + 'static,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name("docket-join-evidence".into());
    let mut watches: [Option<Watch>; 2] = [None, None];
    let ask = move |side: Side| {
        let watch = &mut watches[side as usize];
        let asked = caught(|| ask(&pipeline, side, watch, &evidence));
        // A client that failed is made anew.
        if !matches!(asked, Ok(Ok(()))) {
            *watch = None;
        }
        asked
    };
    thread.spawn(move || turns(ask, failed, EVERY, &stop)).map(drop)
}

fn turns(
    mut ask: impl FnMut(Side) -> Result<KafkaResult<()>, String>,
    failed: impl Fn(&str),
    every: Duration,
    stop: &CancellationToken,
) {
    while !stop.is_cancelled() {
        for side in [Side::Decisions, Side::Facts] {
            match ask(side) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(part = PART, %error, "how far the sources are is not known");
                }
                Err(panic) => failed(&panic),
            }
        }
        let began = std::time::Instant::now();
        while began.elapsed() < every && !stop.is_cancelled() {
            std::thread::sleep(Duration::from_millis(100).min(every));
        }
    }
}

/// Who reads a side's source topics, and what it writes to.
struct Watch {
    group: Standing,
    sources: Vec<String>,
    start: Start,
    target: String,
    /// What has to be read before the next word.
    asked: Option<Asked>,
}

fn ask(
    pipeline: &Pipeline,
    side: Side,
    watch: &mut Option<Watch>,
    evidence: &Evidence,
) -> KafkaResult<()> {
    let watch = match watch {
        Some(watch) => watch,
        None => watch.insert(Watch::new(pipeline, side)?),
    };
    watch.group.hear()?;
    // Under load the end is never reached: it is asked whether that of before was.
    if let Some(asked) = &watch.asked
        && watch.is_read(&asked.ends)?
    {
        evidence.set(side, Clear { at: asked.at, ends: watch.ends(&watch.target)? });
        watch.asked = None;
    }
    if watch.asked.is_none() {
        let at = clock::now();
        watch.asked = watch.source_ends()?.map(|ends| Asked { at, ends });
    }
    Ok(())
}

/// Where the source topics ended at a time, by topic and partition: their first offset, and behind the last.
struct Asked {
    at: Nanos,
    ends: Ranges,
}

impl Watch {
    fn new(pipeline: &Pipeline, side: Side) -> KafkaResult<Watch> {
        let file = &pipeline.file;
        let (part, sources, start, target) = match (side, &file.join) {
            (Side::Facts, Some(join)) => {
                let sources = join.facts.iter().map(|source| source.topic.clone()).collect();
                ("facts", sources, join.start, file.facts_topic())
            }
            _ => {
                let sources = file.sources.iter().map(|source| source.topic.clone()).collect();
                ("intake", sources, file.intake.start, file.pending_topic())
            }
        };
        let group = Standing::of(&file.kafka, PART, &pipeline.group(part))?;
        Ok(Watch { group, sources, start, target, asked: None })
    }

    /// Where the partitions of a topic end.
    fn ends(&self, topic: &str) -> KafkaResult<BTreeMap<i32, i64>> {
        let end = |partition: i32| {
            let (_, end) = self.group.range(topic, partition)?;
            Ok((partition, end))
        };
        self.group.partitions(topic)?.into_iter().map(end).collect()
    }

    /// Not if something is committed behind the end of a log: then it was another log's, or more than this one has now.
    fn source_ends(&self) -> KafkaResult<Option<Ranges>> {
        let mut places = Vec::new();
        for topic in &self.sources {
            let all = self.group.partitions(topic)?.into_iter();
            places.extend(all.map(|partition| (topic.clone(), partition)));
        }
        // Before the ends, so that it is not behind them since these were told.
        let committed = self.group.committed(places.iter())?;
        let mut all = BTreeMap::new();
        for (topic, partition) in places {
            let range = self.group.range(&topic, partition)?;
            let read = committed.find_partition(&topic, partition).map(|e| e.offset());
            if matches!(read, Some(Offset::Offset(read)) if read > range.1) {
                return Ok(None);
            }
            all.insert((topic, partition), range);
        }
        Ok(Some(all))
    }

    /// Whether everything up to there was read. Where there is nothing at all, topics are not known yet.
    fn is_read(&self, ends: &Ranges) -> KafkaResult<bool> {
        let committed = self.group.committed(ends.keys())?;
        for ((topic, partition), (low, end)) in ends {
            let Some(element) = committed.find_partition(topic, *partition) else {
                return Ok(false);
            };
            element.error()?;
            let read = match (element.offset(), self.start) {
                (Offset::Offset(offset), _) => offset,
                (_, Start::Earliest) => *low,
                (_, Start::Latest) => *end,
            };
            if read < *end {
                return Ok(false);
            }
        }
        Ok(!ends.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_panic_is_told_and_asked_is_all_the_same() {
        let (asked, told) = (Cell::new(0), Cell::new(0));
        let stop = CancellationToken::new();
        let ask = |_| {
            asked.set(asked.get() + 1);
            match asked.get() {
                1 => caught(|| panic!("a bug")),
                4 => {
                    stop.cancel();
                    Ok(Ok(()))
                }
                _ => Ok(Ok(())),
            }
        };
        turns(ask, |_| told.set(told.get() + 1), Duration::ZERO, &stop);
        assert_eq!((asked.get(), told.get()), (4, 1));
    }
}
