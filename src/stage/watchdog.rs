//! Notices what stalls silently: a partition that a part was assigned, that has records to read or records
//! read and not finished, and that makes no progress. The log's end is asked for by a client of the
//! watchdog's own, since a reader that sleeps does not learn of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use tokio_util::sync::CancellationToken;

use crate::log::progress::{Assigned, Progress};
use crate::log::scan;
use crate::pipeline::Pipeline;
use crate::telemetry::{Health, Meters};

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
            client = scan::reader(&pipeline.file.kafka, "watchdog", &pipeline.group(scan::READER))
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
