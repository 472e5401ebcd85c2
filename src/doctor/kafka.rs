//! Kafka: whether it can be reached and takes the login, which topics there are and how they are kept, and whether each part may read
//! what it reads.
//!
//! What librdkafka does on its own threads is waited for on threads here, too, which the process does not wait for when it ends.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::{ClientConfig, Offset};

use super::{Check, Look, PATIENCE, Seen};
use crate::log::ask::{self, Asker, Unanswered};
use crate::log::client;
use crate::log::config::Kafka;
use crate::log::scan::READER;
use crate::log::topics::nearest;
use crate::pipeline::Pipeline;
use crate::pipeline::topics::{self, Role};
use crate::sink::config::SinkConfig;
use crate::words::counted;

/// What is asked for after the cluster has answered may take so long.
const STEP: Duration = Duration::from_millis(1500);
/// A record that is stamped so far ahead was not stamped by a clock like this machine's.
const AHEAD: Duration = Duration::from_secs(60);

/// A topic of the pipeline, and what it is to it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    name: String,
    role: Role,
}

/// What the checks of topics need to know.
#[derive(Clone)]
struct About {
    kafka: Kafka,
    pipeline: String,
    file: String,
    wanted: Vec<Wanted>,
    /// Part, consumer group and topic.
    readers: Vec<(String, String, String)>,
    partitions: u32,
    retention: Duration,
    /// With a join: where decisions wait, and what requests did.
    joined: Option<(String, String)>,
}

impl About {
    fn new(pipeline: &Pipeline) -> About {
        let file = &pipeline.file;
        let (docket, rejects) = (pipeline.docket_topic(), pipeline.rejects_topic());
        let wanted = topics::all(pipeline).into_iter().map(|(name, role)| Wanted { name, role });
        let facts: Vec<String> =
            file.join.iter().flat_map(|join| &join.facts).map(|s| s.topic.clone()).collect();
        let joined = [file.pending_topic(), file.facts_topic()];
        let mut readers: Vec<_> = file
            .sources
            .iter()
            .map(|s| ("intake".to_owned(), pipeline.group("intake"), s.topic.clone()))
            .collect();
        let sinks = file.sinks.iter().filter(|(_, sink)| !sink.delivery().only_routed);
        readers.extend(sinks.map(|(name, _): (&String, &SinkConfig)| {
            (format!("sink {name}"), pipeline.group(name), docket.clone())
        }));
        if file.join.is_some() {
            let read = |part: &str, topic| (part.to_owned(), pipeline.group(part), topic);
            readers.extend(facts.into_iter().map(|topic| read("facts", topic)));
            readers.extend(joined.into_iter().map(|topic| read("join", topic)));
        }
        if file.spikes.is_some() {
            readers.push(("spikes".into(), pipeline.group("spikes"), docket.clone()));
            readers.push(("spikes".into(), pipeline.group("spikes"), file.spikes_topic()));
        }
        readers.push(("docket's commands".into(), pipeline.group(READER), rejects));
        About {
            kafka: file.kafka.clone(),
            pipeline: pipeline.name().to_owned(),
            file: pipeline.path.display().to_string(),
            wanted: wanted.collect(),
            readers,
            partitions: file.docket.partitions,
            retention: file.docket.retention.0,
            joined: file.join.is_some().then(|| (file.pending_topic(), file.facts_topic())),
        }
    }

    fn check(&self, what: impl Into<String>) -> Check {
        Check::new(what, &self.kafka.brokers)
    }

    /// The command that gives docket what it needs.
    fn acls(&self) -> String {
        let sources: Vec<&str> = self
            .wanted
            .iter()
            .filter(|w| w.role == Role::Source)
            .map(|w| w.name.as_str())
            .collect();
        let brokers = &self.kafka.brokers;
        format!(
            "as an administrator: PRINCIPAL=User:<docket's> {} {brokers} {} {}",
            ask::ACLS,
            self.pipeline,
            sources.join(" ")
        )
    }

    fn topics_command(&self, rest: &str) -> String {
        format!("kafka-topics.sh --bootstrap-server {} {rest}", self.kafka.brokers)
    }
}

pub fn look(pipeline: &Pipeline) -> Look {
    let about = About::new(pipeline);
    let brokers = about.kafka.brokers.clone();
    Look::new("kafka", brokers, async move {
        let (done, wait) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Handle::current();
        std::thread::spawn(move || {
            let _ = done.send(cluster(&about, &runtime));
        });
        Seen { checks: wait.await.unwrap_or_default(), clock: None }
    })
}

fn cluster(about: &About, runtime: &tokio::runtime::Handle) -> Vec<Check> {
    let answer = Asker::new(&about.kafka, "doctor", None).and_then(|asker| {
        let all = asker.metadata(None, PATIENCE - Duration::from_millis(500))?;
        Ok((asker, all))
    });
    let (asker, all) = match answer {
        Ok(answer) => answer,
        Err(error) => return vec![unanswered(about.check("kafka"), error)],
    };
    let brokers = all.brokers().len();
    let login = if about.kafka.properties.keys().any(|name| name.starts_with("sasl.")) {
        ", takes the login"
    } else {
        ""
    };
    let says = format!("{} answering{login}", counted(brokers as u64, "broker"));
    let mut checks = vec![about.check("kafka").ok(says)];
    let readers: Vec<_> = about
        .readers
        .iter()
        .map(|reader| {
            let (about, reader) = (about.clone(), reader.clone());
            std::thread::spawn(move || may_read(&about, &reader))
        })
        .collect();
    let configs = configs(about, runtime);
    let mut there = Vec::new();
    for (wanted, config) in about.wanted.iter().zip(configs) {
        let seen = all.topics().iter().find(|t| t.name() == wanted.name && t.error().is_none());
        match seen {
            Some(topic) => {
                there.push(wanted.name.clone());
                checks.extend(kept(about, wanted, topic, brokers, config.as_ref()));
            }
            None => checks.push(absent(about, wanted, &asker, &all)),
        }
    }
    checks.extend(together(about, &all));
    checks.extend(stamps(about, &asker, &all, &there));
    let mut may = 0;
    for reader in readers {
        match reader.join() {
            Ok(Err(check)) => checks.push(check),
            Ok(Ok(known)) => may += usize::from(known.is_some()),
            Err(_) => {}
        }
    }
    if may > 0 && checks.iter().all(|check| !check.what.starts_with("rights")) {
        let says = format!("{} may read their topics", counted(may as u64, "consumer group"));
        checks.push(about.check("rights").ok(says));
    }
    checks
}

fn unanswered(check: Check, error: Unanswered) -> Check {
    match error {
        Unanswered::Login { why, .. } => {
            check.wrong(format!("it refused the login: {why}"), format!("correct {}", ask::LOGIN))
        }
        Unanswered::Properties(why) => {
            check.wrong(why, "correct kafka.properties in the pipeline file")
        }
        Unanswered::Unreachable { why, .. } => {
            let lower = why.to_ascii_lowercase();
            let way_out = if lower.contains("certificate") || lower.contains("ssl") {
                "see security.protocol, ssl.ca.location and ssl.certificate.location under kafka.properties, and the broker's certificate"
            } else if lower.contains("security.protocol") || lower.contains("disconnected") {
                "the port may want another security.protocol (SSL, SASL_SSL, SASL_PLAINTEXT) under kafka.properties"
            } else if lower.contains("resolve") {
                "there is no such host: correct kafka.brokers"
            } else {
                "correct kafka.brokers, or start Kafka; it must be reachable from here, under the names that it advertises"
            };
            check.wrong(why, way_out)
        }
    }
}

/// Decisions that wait and facts need as many partitions: what belongs together is in partitions of the same number.
fn together(about: &About, all: &Metadata) -> Option<Check> {
    let count = |name: &String| {
        let topic = all.topics().iter().find(|topic| topic.name() == name)?;
        Some(topic.partitions().len()).filter(|count| *count > 0)
    };
    let (pending, facts) = about.joined.as_ref()?;
    let (waiting, said) = (count(pending)?, count(facts)?);
    let most = waiting.max(said);
    let fewer = if waiting < said { pending } else { facts };
    (waiting != said).then(|| {
        about.check(format!("topic {fewer}")).wrong(
            format!(
                "{pending} has {}, {facts} has {said}: decisions don't meet their requests",
                counted(waiting as u64, "partition")
            ),
            about.topics_command(&format!("--alter --topic {fewer} --partitions {most}")),
        )
    })
}

/// A topic that is not shown: is it missing, misspelt, or hidden?
fn absent(about: &About, wanted: &Wanted, asker: &Asker, all: &Metadata) -> Check {
    let Wanted { name, role } = wanted;
    let check = about.check(format!("topic {name}"));
    let one = match asker.metadata(Some(name), STEP) {
        Ok(one) => one,
        Err(error) => return unanswered(check, error),
    };
    if one.topics().iter().any(|t| ask::hides(t.error())) {
        return check.wrong(
            "Kafka hides it for want of rights (TopicAuthorizationFailed); it may be there",
            about.acls(),
        );
    }
    let create = match role {
        Role::Source => about.topics_command(&format!("--create --topic {name}")),
        Role::Docket | Role::Rejects | Role::Learned => format!("docket setup {}", about.file),
    };
    if *role == Role::Learned {
        // docket makes it when it runs, if it may.
        return check.warning("there is no such topic: what the detector of spikes has learned is lost with the process", create);
    }
    match (role, nearest(name, all.topics().iter().map(MetadataTopic::name))) {
        (Role::Source, Some(near)) => check.wrong(
            format!("there is no such topic; did you mean {near}?"),
            format!("correct sources.topic in {}, or {create}", about.file),
        ),
        _ => check.wrong("there is no such topic", create),
    }
}

/// What the broker says of how each topic is kept, where docket may ask (DescribeConfigs).
fn configs(about: &About, runtime: &tokio::runtime::Handle) -> Vec<Option<ConfigResource>> {
    let config: ClientConfig =
        client::with_properties(client::config(&about.kafka, "doctor"), &about.kafka);
    let none = || about.wanted.iter().map(|_| None).collect();
    let Ok(admin) = config.create::<AdminClient<DefaultClientContext>>() else { return none() };
    let options = AdminOptions::new().request_timeout(Some(STEP));
    let asked: Vec<_> = about.wanted.iter().map(|w| ResourceSpecifier::Topic(&w.name)).collect();
    match runtime.block_on(admin.describe_configs(&asked, &options)) {
        Ok(told) => told.into_iter().map(Result::ok).collect(),
        Err(_) => none(),
    }
}

/// How a topic that is there is kept: one line of what is wrong each, or one that says how it is.
fn kept(
    about: &About,
    wanted: &Wanted,
    topic: &MetadataTopic,
    brokers: usize,
    config: Option<&ConfigResource>,
) -> Vec<Check> {
    let setting = |name: &str| config?.get(name)?.value.clone();
    let number = |name: &str| setting(name)?.parse::<i64>().ok();
    let each = topic.partitions();
    let shape = Shape {
        partitions: each.len(),
        replicas: each.iter().map(|p| p.replicas().len()).min().unwrap_or(0),
        behind: each.iter().filter(|p| p.isr().len() < p.replicas().len()).count(),
        leaderless: each.iter().filter(|p| p.leader() < 0).count(),
        retention: number("retention.ms"),
        cleanup: setting("cleanup.policy"),
        min_insync: number("min.insync.replicas"),
        brokers,
    };
    shape.judged(about, wanted)
}

#[derive(Debug, Clone)]
struct Shape {
    partitions: usize,
    replicas: usize,
    behind: usize,
    leaderless: usize,
    /// In milliseconds; less than 0 is for ever. None if docket may not ask.
    retention: Option<i64>,
    cleanup: Option<String>,
    min_insync: Option<i64>,
    brokers: usize,
}

impl Shape {
    fn judged(&self, about: &About, wanted: &Wanted) -> Vec<Check> {
        let Wanted { name, role } = wanted;
        let check = || about.check(format!("topic {name}"));
        let alter = |setting: &str| {
            format!(
                "kafka-configs.sh --bootstrap-server {} --alter --topic {name} --add-config {setting}",
                about.kafka.brokers
            )
        };
        let mut checks = Vec::new();
        if self.leaderless > 0 {
            checks.push(check().wrong(
                format!("{} without a leader", counted(self.leaderless as u64, "partition")),
                "bring back the brokers that hold it",
            ));
        }
        if self.partitions == 1 && !matches!(role, Role::Rejects | Role::Learned) {
            checks.push(check().warning(
                "it has one partition: one process reads it, and no more of them help",
                about.topics_command(&format!(
                    "--alter --topic {name} --partitions {}",
                    about.partitions
                )),
            ));
        }
        if self.replicas == 1 {
            let (says, way_out) = if self.brokers == 1 {
                (
                    "its replication factor is 1: what is in it is lost with Kafka's one broker",
                    "for production, run three brokers or more, and create it with replication factor 3".to_owned(),
                )
            } else {
                (
                    "its replication factor is 1: a broker that is lost takes decisions with it, one that restarts stops docket",
                    "kafka-reassign-partitions.sh, with three replicas for each partition; docket.replication: 3 for topics that docket makes".to_owned(),
                )
            };
            checks.push(check().warning(says, way_out));
        }
        if let Some(min) = self.min_insync.filter(|min| *min > self.replicas as i64) {
            checks.push(check().wrong(
                format!(
                    "min.insync.replicas is {min}, and it has {}: nothing can be written to it",
                    counted(self.replicas as u64, "replica")
                ),
                alter(&format!("min.insync.replicas={}", self.replicas.max(1))),
            ));
        }
        if self.behind > 0 {
            checks.push(check().warning(
                format!(
                    "{} with replicas that are behind or away",
                    counted(self.behind as u64, "partition")
                ),
                "see which broker is away",
            ));
        }
        let compacted = self.cleanup.as_deref().map(|policy| policy.contains("compact"));
        if *role == Role::Learned {
            if compacted == Some(false) {
                checks.push(check().wrong(
                    "it is not compacted (cleanup.policy): what the detector of spikes has learned is gone after retention.ms",
                    alter("cleanup.policy=compact"),
                ));
            }
        } else if compacted == Some(true) {
            checks.push(check().wrong(
                "it is compacted (cleanup.policy): of decisions with one key, all but the last are lost",
                alter("cleanup.policy=delete"),
            ));
        }
        checks.extend(self.retained(about, wanted, check(), &alter));
        if checks.is_empty() {
            let replicas = counted(self.replicas as u64, "replica");
            let retention = self.retention.map_or_else(
                || "retention not known (DescribeConfigs is not granted)".to_owned(),
                |ms| format!("kept {}", span(ms)),
            );
            let partitions = counted(self.partitions as u64, "partition");
            checks.push(check().ok(format!("{partitions}, {replicas}, {retention}")));
        }
        checks
    }

    fn retained(
        &self,
        about: &About,
        wanted: &Wanted,
        check: Check,
        alter: &dyn Fn(&str) -> String,
    ) -> Option<Check> {
        let ms = self.retention.filter(|ms| *ms >= 0)?;
        let (least, why) = match wanted.role {
            // The latest piece by key stays.
            Role::Learned => return None,
            // What is away for a day loses nothing.
            Role::Source => (86_400_000, "docket can be away for no longer".to_owned()),
            Role::Rejects => {
                let docket = i64::try_from(about.retention.as_millis()).unwrap_or(i64::MAX);
                let why = format!(
                    "rejects go before what they are of; docket.retention says {}",
                    span(docket)
                );
                (docket.saturating_add(1), why)
            }
            Role::Docket => {
                let wanted = i64::try_from(about.retention.as_millis()).unwrap_or(i64::MAX);
                (wanted, format!("docket.retention says {}", span(wanted)))
            }
        };
        (ms < least).then(|| {
            check.warning(
                format!("it is kept for {} only: {why}", span(ms)),
                alter(&format!(
                    "retention.ms={}",
                    if wanted.role == Role::Rejects {
                        (least - 1).saturating_mul(2)
                    } else {
                        least
                    }
                )),
            )
        })
    }
}

/// Milliseconds for people.
fn span(ms: i64) -> String {
    let (day, hour, minute) = (86_400_000, 3_600_000, 60_000);
    match ms {
        ..0 => "for ever".into(),
        ms if ms >= day && ms % day == 0 => format!("{}d", ms / day),
        ms if ms >= hour && ms % hour == 0 => format!("{}h", ms / hour),
        ms if ms >= minute && ms % minute == 0 => format!("{}m", ms / minute),
        ms => format!("{}s", ms / 1000),
    }
}

/// Records that are stamped ahead of this machine's time: its own clock is behind, or that of who writes them is ahead.
fn stamps(about: &About, asker: &Asker, all: &Metadata, there: &[String]) -> Vec<Check> {
    let ahead = (crate::clock::now() / 1_000_000) + AHEAD.as_millis() as i64;
    let mut checks = Vec::new();
    for topic in all.topics().iter().filter(|t| there.iter().any(|name| name == t.name())) {
        let mut list = TopicPartitionList::new();
        for partition in topic.partitions() {
            let _ = list.add_partition_offset(topic.name(), partition.id(), Offset::Offset(ahead));
        }
        let Ok(found) = asker.client.offsets_for_times(list, STEP) else { continue };
        let later = found.elements().iter().any(|e| matches!(e.offset(), Offset::Offset(_)));
        if later {
            checks.push(about.check(format!("clock of {}", topic.name())).wrong(
                "records in it are stamped more than a minute ahead of this machine's time",
                "have this machine and those that write to the topic keep time with NTP (timedatectl set-ntp true, or chrony)",
            ));
        }
    }
    checks
}

/// Whether a part's group may be used, and read the topic; not known if the topic is not there, or does not answer.
fn may_read(
    about: &About,
    (part, group, topic): &(String, String, String),
) -> Result<Option<()>, Check> {
    let check = about.check(format!("rights of {part}"));
    let asker = match Asker::new(&about.kafka, "doctor", Some(group)) {
        Ok(asker) => asker,
        Err(error) => return Err(unanswered(check, error)),
    };
    let Some(list) = last_record(&asker, topic) else { return Ok(None) };
    if let Err(error) = asker.client.committed_offsets(list.clone(), STEP) {
        asker.hear();
        let heard = asker.client.context().last();
        let denied = RDKafkaErrorCode::GroupAuthorizationFailed;
        if error.rdkafka_error_code() == Some(denied)
            || heard.is_some_and(|(code, _)| code == denied)
        {
            let says =
                format!("no right to use the consumer group {group} (GroupAuthorizationFailed)");
            return Err(check.wrong(says, about.acls()));
        }
    }
    if asker.client.assign(&list).is_err() {
        return Ok(None);
    }
    let began = Instant::now();
    while began.elapsed() < STEP {
        match asker.client.poll(Duration::from_millis(100)) {
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok(Some(())),
            Some(Err(error)) => {
                let denied = RDKafkaErrorCode::TopicAuthorizationFailed;
                if error.rdkafka_error_code() == Some(denied) {
                    let says = format!("no right to read {topic} (TopicAuthorizationFailed)");
                    return Err(check.wrong(says, about.acls()));
                }
            }
            None => {}
        }
    }
    Ok(None)
}

/// Where the last record of a topic's first partition is.
fn last_record(asker: &Asker, topic: &str) -> Option<TopicPartitionList> {
    let metadata = asker.metadata(Some(topic), STEP).ok()?;
    let topic = metadata.topics().iter().find(|t| t.name() == topic)?;
    let mut list = TopicPartitionList::new();
    let first = topic.partitions().first()?.id();
    list.add_partition_offset(topic.name(), first, Offset::OffsetTail(1)).ok()?;
    Some(list)
}

#[cfg(test)]
mod tests;
