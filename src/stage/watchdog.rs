//! Notices what stalls silently: a partition that a part was assigned, that has records to read or records
//! read and not finished, and that makes no progress. The log's end is asked for by a client of the
//! watchdog's own, since a reader that sleeps does not learn of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use tokio_util::sync::CancellationToken;

use crate::log::past;
use crate::pipeline::Pipeline;
use crate::telemetry::{Health, Meters};

/// A partition of a topic, as one part reads it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Assigned {
    pub part: String,
    pub topic: String,
    pub partition: i32,
}

#[derive(Debug)]
struct Seen {
    /// Up to where it was read.
    read: i64,
    /// When that moved last.
    moved: Instant,
    /// Below it all is finished.
    done: Option<i64>,
    /// When that moved last, or nothing was open.
    advanced: Instant,
    open: bool,
    end: i64,
    /// Since when there is more than was read.
    behind: Option<Instant>,
}

/// How far each part has come in each of its partitions.
#[derive(Debug, Default)]
pub struct Progress {
    seen: Mutex<BTreeMap<Assigned, Seen>>,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Assigned, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn assigned(&self, place: Assigned, now: Instant) {
        let seen = Seen {
            read: -1,
            moved: now,
            done: None,
            advanced: now,
            open: false,
            end: -1,
            behind: None,
        };
        self.lock().insert(place, seen);
    }

    pub fn revoked(&self, place: &Assigned) {
        self.lock().remove(place);
    }

    /// The part stopped.
    pub fn forget(&self, part: &str) {
        self.lock().retain(|place, _| place.part != part);
    }

    /// Everything below `read` was handed to the part.
    pub fn read(&self, place: &Assigned, read: i64, now: Instant) {
        if let Some(seen) = self.lock().get_mut(place)
            && read > seen.read
        {
            seen.read = read;
            seen.moved = now;
            if seen.read >= seen.end {
                seen.behind = None;
            }
        }
    }

    /// Everything below `done` is finished; `open` says whether more was read.
    pub fn finished(&self, place: &Assigned, done: Option<i64>, open: bool, now: Instant) {
        if let Some(seen) = self.lock().get_mut(place) {
            if done != seen.done || !open {
                seen.advanced = now;
            }
            seen.done = done;
            seen.open = open;
        }
    }

    /// The log ends here.
    pub fn ends(&self, place: &Assigned, end: i64, now: Instant) {
        if let Some(seen) = self.lock().get_mut(place) {
            seen.end = end;
            seen.behind = if end > seen.read { Some(seen.behind.unwrap_or(now)) } else { None };
        }
    }

    fn places(&self) -> Vec<Assigned> {
        self.lock().keys().cloned().collect()
    }

    /// What made no progress for so long, and how that shows.
    pub fn stalled(&self, after: Duration, now: Instant) -> Vec<(Assigned, String)> {
        let long = |since: Instant| now.saturating_duration_since(since) > after;
        let why = |seen: &Seen| {
            if seen.open && long(seen.advanced) {
                return Some(format!(
                    "records were read and none was finished for {} s",
                    now.saturating_duration_since(seen.advanced).as_secs()
                ));
            }
            let since = seen.behind?.max(seen.moved);
            (!seen.open && long(since)).then(|| {
                format!(
                    "{} records wait and none was read for {} s",
                    seen.end - seen.read.max(0),
                    now.saturating_duration_since(since).as_secs()
                )
            })
        };
        self.lock().iter().filter_map(|(place, seen)| Some((place.clone(), why(seen)?))).collect()
    }
}

const EVERY: Duration = Duration::from_secs(5);

/// Watches the parts of a pipeline until told to stop. Runs on a thread of its own.
pub fn watch(
    pipeline: &Pipeline,
    progress: &Arc<Progress>,
    meters: &Meters,
    health: &Health,
    after: Duration,
    stop: &CancellationToken,
) {
    let mut client = None;
    let mut known: Vec<Assigned> = Vec::new();
    let mut watched: BTreeSet<String> = BTreeSet::new();
    while !stop.is_cancelled() {
        std::thread::sleep(Duration::from_millis(100));
        let started = Instant::now();
        if client.is_none() {
            client = past::reader(&pipeline.file.kafka, "watchdog", &pipeline.group(past::READER))
                .inspect_err(|error| tracing::warn!(%error, "the watchdog has no Kafka client"))
                .ok();
        }
        // It reads nothing, but what librdkafka tells it in between would pile up.
        if let Some(client) = &client {
            for _ in 0..20 {
                let _ = client.poll(Duration::ZERO);
            }
        }
        let mut ends: BTreeMap<(String, i32), Option<i64>> = BTreeMap::new();
        let places = progress.places();
        let mut answered = true;
        for place in &places {
            let end = *ends.entry((place.topic.clone(), place.partition)).or_insert_with(|| {
                let told = client.as_ref()?.fetch_watermarks(
                    &place.topic,
                    place.partition,
                    Duration::from_secs(5),
                );
                answered &= told.is_ok();
                told.ok().map(|(_, end)| end)
            });
            if let Some(end) = end {
                progress.ends(place, end, Instant::now());
            }
            if stop.is_cancelled() {
                return;
            }
        }
        if !answered {
            client = None;
        }
        let stalled = progress.stalled(after, Instant::now());
        for place in known.iter().filter(|k| !stalled.iter().any(|(place, _)| place == *k)) {
            tracing::info!(
                part = place.part,
                topic = place.topic,
                partition = place.partition,
                "the partition makes progress again"
            );
        }
        let mut parts: BTreeMap<&str, i64> = places.iter().map(|p| (p.part.as_str(), 0)).collect();
        let gone: Vec<String> =
            watched.iter().filter(|part| !parts.contains_key(part.as_str())).cloned().collect();
        for part in gone {
            meters.stalled.with_label_values(&[&part]).set(0);
            health.remove(&format!("{}/{part} progress", pipeline.name()));
            watched.remove(&part);
        }
        watched.extend(parts.keys().map(|part| (*part).to_owned()));
        for (place, why) in &stalled {
            *parts.entry(&place.part).or_default() += 1;
            if !known.contains(place) {
                tracing::error!(
                    part = place.part,
                    topic = place.topic,
                    partition = place.partition,
                    why,
                    "an assigned partition is stalled"
                );
            }
        }
        for (part, count) in parts {
            meters.stalled.with_label_values(&[part]).set(count);
            let first = stalled.iter().find(|(place, _)| place.part == part);
            let state = first.map_or(Ok(()), |(place, why)| {
                Err(format!("partition {} of {} is stalled: {why}", place.partition, place.topic))
            });
            health.set(&format!("{}/{part} progress", pipeline.name()), state);
        }
        known = stalled.into_iter().map(|(place, _)| place).collect();
        while started.elapsed() < EVERY && !stop.is_cancelled() {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(60);

    fn place() -> Assigned {
        Assigned { part: "loki".into(), topic: "docket".into(), partition: 3 }
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    /// Vector 26438, franz-go 1272, Redpanda Connect 3410: assigned, nothing is fetched, nothing is said.
    #[test]
    fn a_partition_that_is_assigned_and_never_read_is_noticed() {
        let (progress, start) = (Progress::default(), Instant::now());
        progress.assigned(place(), start);
        progress.ends(&place(), 100, at(start, 5));
        assert_eq!(progress.stalled(AFTER, at(start, 60)), []);
        let stalled = progress.stalled(AFTER, at(start, 66));
        assert_eq!(stalled, [(place(), "100 records wait and none was read for 61 s".to_owned())]);
        progress.read(&place(), 40, at(start, 67));
        assert_eq!(progress.stalled(AFTER, at(start, 120)), []);
        assert_eq!(progress.stalled(AFTER, at(start, 128)).len(), 1);
        progress.read(&place(), 100, at(start, 130));
        assert_eq!(progress.stalled(AFTER, at(start, 900)), []);
    }

    #[test]
    fn a_quiet_log_is_no_stall_and_one_that_wakes_up_gets_its_time() {
        let (progress, start) = (Progress::default(), Instant::now());
        progress.assigned(place(), start);
        progress.ends(&place(), 10, start);
        progress.read(&place(), 10, at(start, 1));
        progress.ends(&place(), 10, at(start, 500));
        assert_eq!(progress.stalled(AFTER, at(start, 1000)), []);
        progress.ends(&place(), 11, at(start, 1000));
        assert_eq!(progress.stalled(AFTER, at(start, 1050)), []);
        assert_eq!(progress.stalled(AFTER, at(start, 1061)).len(), 1);
    }

    #[test]
    fn records_that_were_read_and_are_never_finished_are_noticed() {
        let (progress, start) = (Progress::default(), Instant::now());
        progress.assigned(place(), start);
        progress.ends(&place(), 100, start);
        progress.read(&place(), 50, start);
        progress.finished(&place(), None, true, at(start, 1));
        progress.finished(&place(), Some(10), true, at(start, 30));
        assert_eq!(progress.stalled(AFTER, at(start, 80)), []);
        progress.finished(&place(), Some(10), true, at(start, 89));
        let stalled = progress.stalled(AFTER, at(start, 91));
        assert_eq!(stalled[0].1, "records were read and none was finished for 61 s");
        progress.revoked(&place());
        assert_eq!(progress.stalled(AFTER, at(start, 900)), []);
    }
}
