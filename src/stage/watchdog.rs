//! Notices what stalls silently: a partition that a part was assigned, that has records to read or records
//! read and not finished, and that makes no progress. The log's end is asked for by a client of the
//! watchdog's own, since a reader that sleeps does not learn of it.

mod aging;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::log::progress::{Assigned, Progress};
use crate::log::{client, scan, topics};
use crate::pipeline::Pipeline;
use crate::telemetry::{Health, Meters};
use crate::words::counted;
use aging::Aging;

type Client = BaseConsumer<client::Context>;

const EVERY: Duration = Duration::from_secs(5);
/// For an answer.
const WAIT: Duration = Duration::from_secs(5);
const RETENTION_EVERY: Duration = Duration::from_secs(300);
/// How often rejects are looked at, and for how long at a time.
const REJECTS_EVERY: Duration = Duration::from_secs(120);
const REJECTS_WITHIN: Duration = Duration::from_secs(10);

/// Watches the parts of a pipeline.
pub struct Watchdog {
    pub pipeline: Arc<Pipeline>,
    pub progress: Arc<Progress>,
    pub meters: Arc<Meters>,
    pub health: Arc<Health>,
    /// No progress for so long is a stall.
    pub after: Duration,
    pub runtime: Handle,
}

/// What was told, so that it is told once.
#[derive(Default)]
struct Told {
    stalled: Vec<Assigned>,
    parts: BTreeSet<String>,
    hanging: BTreeSet<String>,
}

/// Rejects that age, looked at on a thread of its own: it reads, and what stalls is not to wait for that.
#[derive(Default)]
struct Rejects {
    aging: Aging,
    looking: Option<JoinHandle<(Aging, Option<u64>)>>,
    looked: Option<Instant>,
    /// How many were told.
    told: u64,
}

/// Partitions of a part and topic, told in one line.
#[derive(Debug, PartialEq, Eq)]
struct Group<'p> {
    part: &'p str,
    topic: &'p str,
    count: usize,
    /// The first of them.
    first: String,
    /// What is to be said of the first.
    why: &'p str,
}

fn together<'p>(places: impl Iterator<Item = (&'p Assigned, &'p str)>) -> Vec<Group<'p>> {
    const SHOWN: usize = 5;
    let mut groups: BTreeMap<(&str, &str), Vec<(i32, &str)>> = BTreeMap::new();
    for (place, why) in places {
        let group = groups.entry((&place.part, &place.topic)).or_default();
        group.push((place.partition, why));
    }
    let group = |((part, topic), mut of): ((&'p str, &'p str), Vec<(i32, &'p str)>)| {
        of.sort_unstable();
        let first: Vec<String> = of.iter().take(SHOWN).map(|(n, _)| n.to_string()).collect();
        let rest = if of.len() > SHOWN { ", .." } else { "" };
        let why = of.first().map_or("", |(_, why)| why);
        Group { part, topic, count: of.len(), first: first.join(", ") + rest, why }
    };
    groups.into_iter().map(group).collect()
}

impl Watchdog {
    /// Watches until told to stop. Runs on a thread of its own.
    pub fn watch(&self, stop: &CancellationToken) {
        let mut client = None;
        let mut told = Told::default();
        let mut retention: Option<Instant> = None;
        let mut rejects = Rejects::default();
        while !stop.is_cancelled() {
            std::thread::sleep(Duration::from_millis(100));
            let started = Instant::now();
            client = client.or_else(|| self.client());
            let asked = match &client {
                Some(client) => self.ask(client, stop),
                None => Err("there is no client for it".into()),
            };
            let answered = asked.is_ok();
            if !answered {
                client = None;
                // What was asked may have changed when it is back.
                retention = None;
            }
            if !stop.is_cancelled() {
                self.health.set(&format!("{}/kafka", self.pipeline.name()), asked);
            }
            if stop.is_cancelled() {
                return;
            }
            self.tell(&mut told);
            if answered && retention.is_none_or(|asked| asked.elapsed() > RETENTION_EVERY) {
                retention = Some(Instant::now());
                self.retention();
            }
            if answered {
                self.rejects(&mut rejects, stop);
            }
            while started.elapsed() < EVERY && !stop.is_cancelled() {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// Says how long the topics that are read keep their records.
    fn retention(&self) {
        let all: BTreeSet<String> = self.progress.places().into_iter().map(|p| p.topic).collect();
        let topics: Vec<&str> = all.iter().map(String::as_str).collect();
        let kafka = &self.pipeline.file.kafka;
        let told = self.runtime.block_on(topics::retentions(kafka, &topics));
        for (topic, ms) in topics.iter().zip(told) {
            if let Some(ms) = ms {
                let seconds = if ms < 0 { -1 } else { ms / 1000 };
                self.meters.retention.with_label_values(&[topic]).set(seconds);
            }
        }
    }

    /// Whether this process looks at what all share: intake has the first partition of the first source in one of them.
    fn is_first(&self) -> bool {
        let first = self.pipeline.file.sources.first();
        first.is_some_and(|source| {
            let (part, topic) = ("intake".to_owned(), source.topic.clone());
            self.progress.has(&Assigned { part, topic, partition: 0 })
        })
    }

    /// Tells of rejects that nobody sent again and that retention will take soon.
    fn rejects(&self, rejects: &mut Rejects, stop: &CancellationToken) {
        let topic = self.pipeline.rejects_topic();
        if let Some(looking) = rejects.looking.take_if(|looking| looking.is_finished()) {
            // One that panicked has said so, and begins anew.
            let (aging, count) = looking.join().unwrap_or_default();
            rejects.aging = aging;
            if self.is_first() {
                self.age(rejects, &topic, count);
            }
        }
        if rejects.looking.is_some() {
            return;
        }
        if !self.is_first() {
            *rejects = Rejects::default();
            return self.age(rejects, &topic, None);
        }
        if rejects.looked.is_some_and(|looked| looked.elapsed() < REJECTS_EVERY) {
            return;
        }
        rejects.looked = Some(Instant::now());
        let kafka = &self.pipeline.file.kafka;
        let told = self.runtime.block_on(topics::retentions(kafka, &[&topic]));
        match told.first().copied().flatten() {
            None => self.age(rejects, &topic, None),
            Some(ms) => match u64::try_from(ms) {
                Ok(ms) => {
                    let aging = std::mem::take(&mut rejects.aging);
                    rejects.looking = self.look(aging, Duration::from_millis(ms), stop);
                }
                // They are kept for ever.
                Err(_) => self.age(rejects, &topic, Some(0)),
            },
        }
    }

    fn look(
        &self,
        mut aging: Aging,
        retention: Duration,
        stop: &CancellationToken,
    ) -> Option<JoinHandle<(Aging, Option<u64>)>> {
        let (pipeline, stop) = (self.pipeline.clone(), stop.clone());
        let thread = std::thread::Builder::new().name("docket-rejects".to_owned());
        let look = move || {
            let until = Instant::now() + REJECTS_WITHIN;
            let goes_on = || Instant::now() < until && !stop.is_cancelled();
            match aging.look(&pipeline, retention, clock::now(), &goes_on) {
                Ok(count) => (aging, count),
                Err(error) => {
                    tracing::warn!(%error, "whether rejects are about to be deleted is not known");
                    (Aging::default(), None)
                }
            }
        };
        thread.spawn(look).inspect_err(|error| tracing::warn!(%error, "no thread")).ok()
    }

    fn age(&self, rejects: &mut Rejects, topic: &str, count: Option<u64>) {
        self.meters.aging(topic, count);
        let Some(count) = count else { return };
        if count > 0 && rejects.told == 0 {
            let what = counted(count, "reject");
            tracing::warn!(topic, count, "{what} not sent again will be deleted by retention soon");
        }
        rejects.told = count;
    }

    fn client(&self) -> Option<Client> {
        let group = self.pipeline.group(scan::READER);
        scan::reader(&self.pipeline.file.kafka, "watchdog", &group)
            .inspect_err(|error| tracing::warn!(%error, "the watchdog has no Kafka client"))
            .ok()
    }

    /// Asks where partitions end; why not, if Kafka does not answer.
    fn ask(&self, client: &Client, stop: &CancellationToken) -> Result<(), String> {
        // It reads nothing, but what librdkafka tells it in between would pile up.
        for _ in 0..20 {
            let _ = client.poll(Duration::ZERO);
        }
        let mut ends: BTreeMap<(String, i32), Option<(i64, i64)>> = BTreeMap::new();
        let mut answered = Ok(());
        let places = self.progress.places();
        if places.is_empty() {
            // Who has no partition wants to know it, too.
            let topic = self.pipeline.docket_topic();
            answered = client
                .fetch_metadata(Some(&topic), WAIT)
                .map_or_else(|error| Err(self.away(&error, &topic)), |_| Ok(()));
        }
        for place in places {
            // Once it does not answer, each would wait as long.
            let end = *ends.entry((place.topic.clone(), place.partition)).or_insert_with(|| {
                answered.as_ref().ok()?;
                let told = client.fetch_watermarks(&place.topic, place.partition, WAIT);
                told.inspect_err(|error| answered = Err(self.away(error, &place.topic))).ok()
            });
            if stop.is_cancelled() {
                break;
            }
            if let Some((_, end)) = end {
                self.progress.ends(&place, end, Instant::now());
            }
            let headroom = end.and_then(|(first, _)| self.progress.headroom(&place, first));
            let partition = place.partition.to_string();
            self.meters.headroom(&[&place.part, &place.topic, &partition], headroom);
        }
        answered
    }

    /// Why Kafka does not answer.
    fn away(&self, error: &KafkaError, topic: &str) -> String {
        let brokers = &self.pipeline.file.kafka.brokers;
        if client::is_outage(error) {
            let why = client::failing(brokers).unwrap_or_else(|| error.to_string());
            format!("Kafka at {brokers} can't be reached: {why}")
        } else {
            format!("Kafka at {brokers} does not say where {topic} ends: {error}")
        }
    }

    /// Says what is stalled, and what is not any more: log, metrics, health.
    fn tell(&self, told: &mut Told) {
        let stalled = self.progress.stalled(self.after, Instant::now());
        let is_stalled = |place: &Assigned| stalled.iter().any(|(stalled, _)| stalled == place);
        let again = told.stalled.iter().filter(|place| !is_stalled(place));
        for group in together(again.map(|place| (place, ""))) {
            let Group { part, topic, count, first, .. } = group;
            let what = counted(count, "partition");
            tracing::info!(part, topic, count, partitions = first, "no longer stalled: {what}");
        }
        let fresh = stalled.iter().filter(|(place, _)| !told.stalled.contains(place));
        for group in together(fresh.map(|(place, why)| (place, why.as_str()))) {
            let Group { part, topic, count, first, why } = group;
            let what = counted(count, "assigned partition");
            tracing::error!(part, topic, count, partitions = first, why, "{what} stalled");
        }
        let parts: BTreeSet<String> =
            self.progress.places().into_iter().map(|place| place.part).collect();
        for part in told.parts.difference(&parts) {
            self.meters.stalled.with_label_values(&[part]).set(0);
            self.health.remove(&self.name(part));
        }
        for part in &parts {
            let mut of_part = stalled.iter().filter(|(place, _)| place.part == *part);
            let count = of_part.clone().count();
            self.meters.stalled.with_label_values(&[part]).set(count as i64);
            let more = match count {
                0 | 1 => String::new(),
                n => format!(", and {} more", n - 1),
            };
            let state = of_part.next().map_or(Ok(()), |(place, why)| {
                Err(format!(
                    "partition {} of {} is stalled: {why}{more}",
                    place.partition, place.topic
                ))
            });
            self.health.note(&self.name(part), state);
        }
        let stalled = stalled.into_iter().map(|(place, _)| place).collect();
        *told = Told { stalled, parts, hanging: self.hanging(&told.hanging) };
    }

    /// Says which parts hang, and which do not any more.
    fn hanging(&self, told: &BTreeSet<String>) -> BTreeSet<String> {
        let hanging: BTreeMap<String, Duration> =
            self.health.hanging(self.pipeline.name()).into_iter().collect();
        for (part, silent) in hanging.iter().filter(|(part, _)| !told.contains(*part)) {
            tracing::error!(
                part,
                seconds = silent.as_secs(),
                "a part hangs: its loop does not come round; if that goes on, restart this process"
            );
        }
        for part in told.iter().filter(|part| !hanging.contains_key(*part)) {
            tracing::info!(part, "it does not hang any more");
        }
        hanging.into_keys().collect()
    }

    fn name(&self, part: &str) -> String {
        format!("{}/{part} progress", self.pipeline.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stalls_together_is_one_line_a_part_and_topic() {
        let place = |part: &str, partition| Assigned {
            part: part.into(),
            topic: "docket".into(),
            partition,
        };
        let places: Vec<Assigned> = (0..12).rev().map(|n| place("loki", n)).collect();
        let search = place("search", 7);
        let all = places.iter().chain([&search]).map(|place| (place, "why"));
        let told = together(all);
        let shown: Vec<_> = told.iter().map(|g| (g.part, g.count, g.first.as_str())).collect();
        assert_eq!(shown, [("loki", 12, "0, 1, 2, 3, 4, .."), ("search", 1, "7")]);
        assert_eq!(told[0].why, "why");
    }
}
