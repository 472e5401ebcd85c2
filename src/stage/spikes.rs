//! Spikes: reads the docket topic, all partitions of it, and says what the detector finds: to the sinks, as records in the
//! docket topic, and to people (`notify`).
//!
//! One process of a pipeline does so: the one that has partition 0 in the consumer group `docket.<pipeline>.spikes`. What
//! it learns is kept in a topic (`memory`): who takes over takes that back and reads the docket from where it ends, or,
//! where there is none, the last `history`. What was told before stands there and in the docket, so that it is not told
//! again.

mod memory;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Registry};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::decision::record::Record;
use crate::decision::time::{self, Nanos, nanos};
use crate::log::closing::Closing;
use crate::log::producer::{self, Single};
use crate::log::scan::{ScanBound, ScanError, Seen};
use crate::log::topics::TopicError;
use crate::log::{Outgoing, RecordWriter, client};
use crate::notify::{Notice, Notifiers};
use crate::pipeline::Pipeline;
use crate::pipeline::spikes::Spikes as Section;
use crate::spike::follow::Follower;
use crate::spike::record::{self, Key};
use crate::spike::{Change, Finding, Observation};
use crate::stage::events;
use crate::telemetry::{Families, Health};
use memory::{Memory, Pieces, Told};

/// What is counted of findings.
pub struct Meters {
    found: IntCounterVec,
    active: IntGaugeVec,
    late: IntCounter,
    leads: prometheus::IntGauge,
    unwatched: IntCounter,
    series: prometheus::IntGauge,
    state: IntCounterVec,
    pub told: IntCounterVec,
}

impl Meters {
    pub fn new(pipeline: &str, registry: &Registry) -> Result<Meters, prometheus::Error> {
        let all = Families { pipeline, registry };
        let meters = Meters {
            found: all.counter(
                "docket_findings_total",
                "Denial spikes and silent failures that were found.",
                &["kind", "service", "policy"],
            )?,
            active: all.gauge(
                "docket_finding_active",
                "1 while a finding goes on.",
                &["kind", "service", "policy"],
            )?,
            late: all.plain_counter(
                "docket_spikes_late_total",
                "Decisions that came later than spikes.lateness allows; they count when they come.",
            )?,
            leads: all
                .plain_gauge("docket_spikes_leader", "1 in the process that looks for spikes.")?,
            unwatched: all.plain_counter(
                "docket_spikes_unwatched_total",
                "Decisions of policies that there is no room to watch.",
            )?,
            series: all.plain_gauge(
                "docket_spikes_series",
                "Policies of services that are watched; at most 1000.",
            )?,
            state: all.counter(
                "docket_spikes_state_total",
                "Pieces of what the detector has learned: written to its topic, failed to be, restored from it, unreadable and learned anew.",
                &["outcome"],
            )?,
            told: all.counter(
                "docket_notifications_total",
                "Messages about findings: sent, retried, or given up.",
                &["notifier", "outcome"],
            )?,
        };
        for outcome in ["written", "failed", "restored", "unreadable"] {
            meters.state(outcome);
        }
        Ok(meters)
    }
}

impl Meters {
    fn state(&self, outcome: &str) -> IntCounter {
        self.state.with_label_values(&[outcome])
    }
}

pub struct Spikes {
    pub pipeline: Arc<Pipeline>,
    pub section: Section,
    pub meters: Arc<Meters>,
    pub health: Arc<Health>,
    pub runtime: Handle,
}

#[derive(Debug, thiserror::Error)]
pub enum SpikesError {
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    TopicScan(#[from] ScanError),
    #[error(transparent)]
    Topics(#[from] TopicError),
    #[error("notify: {0}")]
    Notify(#[from] crate::http::client::HttpError),
}

type Member = BaseConsumer<client::Context>;

/// So many different events go on at a time.
const EVENTS: usize = 1000;
/// How often who leads is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// What was learned is written for so long when this process stops.
const FAREWELL: Duration = Duration::from_secs(10);

impl Spikes {
    pub fn run(&self, stop: &CancellationToken) -> Result<(), SpikesError> {
        let part = format!("{}/spikes", self.pipeline.name());
        let notifiers = Notifiers::start(
            &self.section.notify,
            self.pipeline.name(),
            &self.meters.told,
            &self.runtime,
        )?;
        let member = Closing::new(Arc::new(self.member()?));
        let producer = producer::single(
            &self.pipeline.file.kafka,
            "spikes",
            self.pipeline.file.docket.compression,
        )?;
        while !stop.is_cancelled() {
            member.context().brokers.check()?;
            if !leads(&member, LOOK) {
                self.health.set(&part, standing(&member));
                self.meters.leads.set(0);
                continue;
            }
            self.meters.leads.set(1);
            tracing::info!(part = "spikes", "this process looks for spikes");
            let led = self.lead(&member, &producer, &notifiers, stop);
            self.meters.active.reset();
            led?;
        }
        notifiers.stop();
        Ok(())
    }

    /// A member of the group that says who leads. It reads nothing.
    fn member(&self) -> Result<Member, KafkaError> {
        let kafka = &self.pipeline.file.kafka;
        let mut config = client::long_lived(kafka, "spikes");
        config
            .set("group.id", self.pipeline.group("spikes"))
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "latest");
        // Who leads and dies is to be followed soon.
        config.set("session.timeout.ms", "10000").set("heartbeat.interval.ms", "3000");
        config.set("queued.max.messages.kbytes", "64").set("fetch.wait.max.ms", "500");
        let member: Member = client::with_properties(config, kafka)
            .create_with_context(client::Context::default())?;
        member.subscribe(&[&self.pipeline.docket_topic()])?;
        Ok(member)
    }

    fn lead(
        &self,
        member: &Member,
        producer: &Single,
        notifiers: &Notifiers,
        stop: &CancellationToken,
    ) -> Result<(), SpikesError> {
        let part = format!("{}/spikes", self.pipeline.name());
        // It has joined. That it catches up is nothing to readiness.
        self.health.set(&part, Ok(()));
        let mut memory = Memory::new(self, producer);
        let pieces = memory.recall(&|| {
            self.health.set(&part, standing(member));
            !stop.is_cancelled()
        })?;
        let now = clock::now();
        let mut watch = Watch::new(self);
        let from = watch.remember(pieces, now, &mut memory);
        let past = self.pipeline.scan(
            "spikes",
            &self.pipeline.docket_topic(),
            ScanBound::At(from),
            ScanBound::End,
        )?;
        watch.follower.reads(past.ranges().iter().map(|s| s.partition));
        let mut leading = true;
        let (mut looked, mut advanced) = (Instant::now(), Instant::now());
        past.watch(&mut |seen| {
            match seen {
                Seen::Message(message) => {
                    let written = message.timestamp().to_millis().map(|ms| ms * 1_000_000);
                    let payload = message.payload().unwrap_or_default();
                    watch.message(message.partition(), payload, written);
                }
                Seen::End(partition) => watch.follower.ended(partition),
                Seen::Added(partition) => watch.added(partition),
                Seen::Nothing => {}
            }
            // While there is much to read, now and then.
            if advanced.elapsed() >= Duration::from_millis(if watch.live { 200 } else { 20 })
                || matches!(seen, Seen::Nothing)
            {
                advanced = Instant::now();
                let notices = watch.advance(clock::now());
                self.health.set(&part, standing(member));
                let heard = std::mem::take(&mut watch.heard);
                let changed = !notices.is_empty() || !heard.is_empty();
                heard.into_iter().for_each(|finding| self.hear(notifiers, finding));
                for notice in notices {
                    self.tell(producer, notifiers, &notice);
                }
                if changed {
                    memory.told(&watch.going);
                }
                if watch.live {
                    memory.tick(&mut watch.follower.detector, &watch.going);
                }
            }
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                if !leads(member, Duration::ZERO) {
                    tracing::info!(
                        part = "spikes",
                        "its group is shared out anew: who gets partition 0 looks for spikes"
                    );
                    leading = false;
                    return false;
                }
            }
            !stop.is_cancelled()
        })?;
        // Who took over has read it already.
        if leading && watch.live {
            memory.finish(&mut watch.follower.detector, &watch.going, FAREWELL);
        }
        notifiers.forget();
        Ok(())
    }

    /// People are told of what a part came upon; in the docket it stands already.
    fn hear(&self, notifiers: &Notifiers, finding: Finding) {
        let labels = [finding.kind.as_str(), finding.service.as_str(), finding.policy.as_str()];
        self.meters.active.with_label_values(&labels).set(1);
        self.meters.found.with_label_values(&labels).inc();
        tracing::warn!(
            part = "spikes",
            id = finding.id,
            state = "begins",
            "{}",
            finding.sentence()
        );
        notifiers.tell(&Notice { finding, again: false });
    }

    fn tell(&self, producer: &Single, notifiers: &Notifiers, notice: &Notice) {
        let finding = &notice.finding;
        let labels = [finding.kind.as_str(), finding.service.as_str(), finding.policy.as_str()];
        let begins = finding.ended.is_none();
        self.meters.active.with_label_values(&labels).set(i64::from(begins));
        if begins && !notice.again {
            self.meters.found.with_label_values(&labels).inc();
        }
        tracing::warn!(
            part = "spikes",
            id = finding.id,
            state = if begins { "begins" } else { "ends" },
            "{}",
            finding.sentence()
        );
        if !notice.again {
            let (id, payload) = record::write(finding);
            let topic = self.pipeline.docket_topic();
            let headers = rdkafka::message::OwnedHeaders::new();
            let written = self.runtime.block_on(RecordWriter::write(
                producer,
                Outgoing { topic: &topic, key: Some(&id), payload: &payload, headers },
            ));
            if let Err(error) = written {
                tracing::error!(part = "spikes", id = finding.id, %error, "a finding could not be written to the docket topic");
            }
        }
        notifiers.tell(notice);
    }
}

/// Another id for a finding that goes on, where the docket says already that it is over, as whoever led before saw it: no finding ends
/// twice.
fn another(id: &str, ended: &BTreeSet<String>) -> Option<String> {
    let mut other = ended.contains(id).then(|| format!("{id}-2"))?;
    let mut n = 2;
    while ended.contains(&other) {
        n += 1;
        other = format!("{id}-{n}");
    }
    Some(other)
}

/// Whether it is in its group.
fn standing(member: &Member) -> Result<(), String> {
    member.context().brokers.outside().map_or(Ok(()), Err)
}

/// Whether this process has partition 0; asks the group so long.
fn leads(member: &Member, wait: Duration) -> bool {
    // What comes is an event of the group: it is paused as soon as it is assigned.
    let _ = member.poll(wait);
    let Ok(mine) = member.assignment() else { return false };
    if mine.count() > 0 {
        let _ = member.pause(&mine);
    }
    mine.elements().iter().any(|e| e.partition() == 0)
}

/// What a leader knows.
struct Watch<'s> {
    section: &'s Section,
    meters: &'s Meters,
    follower: Follower,
    /// The end of every partition was reached once.
    live: bool,
    late: u64,
    unwatched: u64,
    /// What was told before, by whoever led then, and has not ended.
    before: BTreeMap<Key, Told>,
    /// What was told and has not ended.
    going: BTreeMap<Key, Told>,
    /// As what findings were told, by their own ids, where that is not what they are called by themselves.
    as_told: HashMap<String, Told>,
    /// Those that the docket says are over.
    ended: BTreeSet<String>,
    /// What parts came upon: until when it goes on.
    events: BTreeMap<Key, (Nanos, Finding)>,
    /// What is to be told of that.
    heard: Vec<Finding>,
}

impl<'s> Watch<'s> {
    fn new(of: &'s Spikes) -> Watch<'s> {
        let (section, none) = (&of.section, std::iter::empty());
        Watch {
            section: &of.section,
            meters: &of.meters,
            follower: Follower::new(section.config(), nanos(section.lateness.0), none),
            live: false,
            late: 0,
            unwatched: 0,
            before: BTreeMap::new(),
            going: BTreeMap::new(),
            as_told: HashMap::new(),
            ended: BTreeSet::new(),
            events: BTreeMap::new(),
            heard: Vec::new(),
        }
    }

    /// Takes back what was kept. From when on the docket is to be read.
    fn remember(&mut self, mut pieces: Pieces, now: Nanos, memory: &mut Memory<'_>) -> Nanos {
        let earliest = now.saturating_sub(nanos(self.section.history.0));
        let told = memory::take_told(&mut pieces);
        let all = pieces.iter().map(|(key, piece)| (key.as_str(), piece.as_slice()));
        let (from, wrong) = self.follower.restore(all, now, |through| through.max(earliest));
        for (key, error) in &wrong {
            self.meters.state("unreadable").inc();
            let key = key.replace('\0', " ");
            tracing::warn!(part = "spikes", key, %error, "what was learned is learned anew");
        }
        wrong.iter().for_each(|(key, _)| memory.write(key, None));
        self.meters.state("restored").inc_by((pieces.len() - wrong.len()) as u64);
        if let Some(from) = from {
            let from = time::format(from);
            tracing::info!(
                part = "spikes",
                pieces = pieces.len(),
                from,
                "goes on with what was learned"
            );
        }
        let active = self.follower.active();
        // Whoever wrote a piece with a finding in it has told that.
        let told = told.unwrap_or_else(|| {
            let active = active.into_iter().filter(|f| !self.section.ignores(f));
            active.map(|f| Told::of(&f, f.id.clone())).collect()
        });
        for told in told {
            self.follower.told(told.key.0, false);
            self.before.insert(told.key.clone(), told.clone());
            self.as_told.insert(told.own.clone(), told);
        }
        from.unwrap_or(earliest)
    }

    /// The past is complete when this partition was read, too. Who is live waits for nothing: a partition without a leader would blind it.
    fn added(&mut self, partition: i32) {
        if !self.live {
            self.follower.reads(std::iter::once(partition));
        }
    }

    fn message(&mut self, partition: i32, payload: &[u8], written: Option<Nanos>) {
        let Ok(record) = Record::parse(payload) else { return };
        let written = written.unwrap_or(record.timestamp);
        if let Some(finding) = record::event(&record, written) {
            return self.came_upon(finding);
        }
        let follower = &mut self.follower;
        let seen = Observation::with(&record, |seen| follower.observe(partition, seen, written));
        if seen.is_none()
            && !self.live
            && let Some(record::Told { key, id, onset, causes, over }) = record::told(&record)
        {
            self.follower.told(key.0, over);
            if over {
                self.heard.retain(|finding| finding.key() != key);
                self.events.remove(&key);
                self.going.remove(&key);
                self.before.remove(&key);
                self.ended.insert(id);
            } else {
                let told = Told { key: key.clone(), own: id.clone(), id, onset, causes };
                self.before.insert(key, told);
            }
        }
    }

    /// A part of docket came upon it. One of its kind and service is told once in a while.
    fn came_upon(&mut self, finding: Finding) {
        let key = finding.key();
        let until = finding.detected.saturating_add(nanos(events::QUIET));
        if self.section.ignores(&finding) {
            return;
        }
        if let Some((end, first)) = self.events.get_mut(&key) {
            *end = until.max(*end);
            first.observed += u64::from(first.kind.is_enforcement());
            return;
        }
        // Services and policies of requests are anybody's; the join counts them all.
        if self.events.len() >= EVENTS {
            return;
        }
        // Whoever led before has told it.
        if self.before.remove(&key).is_none() && until > clock::now() {
            self.heard.push(finding.clone());
        }
        self.going(finding.id.clone(), &finding);
        self.events.insert(key, (until, finding));
    }

    /// What parts came upon is over after a while.
    fn over(&mut self, now: Nanos) -> Vec<Notice> {
        let mut over = Vec::new();
        self.events.retain(|_, (until, finding)| {
            if *until <= now {
                over.push(finding.clone());
            }
            *until > now
        });
        let end = |finding: Finding| {
            self.going.remove(&finding.key());
            Notice { finding: Finding { ended: Some(now), ..finding }, again: false }
        };
        over.into_iter().map(end).collect()
    }

    /// What is to be told now.
    fn advance(&mut self, now: Nanos) -> Vec<Notice> {
        let changes = self.follower.advance(now);
        let (late, unwatched) = (self.follower.late, self.follower.detector.unwatched());
        self.meters.series.set(self.follower.detector.watched() as i64);
        if !self.live {
            // What was found and is over is past; what goes on is looked up in the end.
            (self.late, self.unwatched) = (late, unwatched);
            self.live = self.follower.is_live();
            return if self.live { self.begin(now) } else { Vec::new() };
        }
        self.meters.late.inc_by(late - self.late);
        self.meters.unwatched.inc_by(unwatched - self.unwatched);
        (self.late, self.unwatched) = (late, unwatched);
        let mut notices = self.over(now);
        for change in changes {
            let (Change::Begins(mut finding) | Change::Ends(mut finding)) = change;
            if self.section.ignores(&finding) {
                continue;
            }
            let own = finding.id.clone();
            if let Some(told) = self.as_told.get(&own) {
                told.rename(&mut finding);
            }
            if finding.ended.is_some() {
                self.as_told.remove(&own);
                self.going.remove(&finding.key());
            } else {
                self.going(own, &finding);
            }
            notices.push(Notice { finding, again: false });
        }
        notices
    }

    fn going(&mut self, own: String, finding: &Finding) {
        self.going.insert(finding.key(), Told::of(finding, own));
    }

    /// Everything that stands in the docket is read: what goes on and was not told is told; what was told and is over, too.
    fn begin(&mut self, now: Nanos) -> Vec<Notice> {
        let mut notices = Vec::new();
        let active: Vec<Finding> =
            self.follower.active().into_iter().filter(|f| !self.section.ignores(f)).collect();
        for mut finding in active {
            let told = self.before.remove(&finding.key());
            let (again, own) = (told.is_some(), finding.id.clone());
            if let Some(told) = told {
                told.rename(&mut finding);
                finding.onset = told.onset;
                self.as_told.insert(own.clone(), told);
            } else if let Some(id) = another(&own, &self.ended) {
                finding.id = id;
                self.as_told.insert(own.clone(), Told::of(&finding, own.clone()));
            }
            self.going(own, &finding);
            notices.push(Notice { finding, again });
        }
        let over = std::mem::take(&mut self.before).into_values();
        notices.extend(over.map(|told| Notice { finding: told.over(now), again: false }));
        notices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_finding_ends_twice() {
        let mut ended = BTreeSet::new();
        assert_eq!(another("f", &ended), None);
        ended.insert("f".to_owned());
        assert_eq!(another("f", &ended).as_deref(), Some("f-2"));
        ended.insert("f-2".to_owned());
        assert_eq!(another("f", &ended).as_deref(), Some("f-3"));
    }
}
