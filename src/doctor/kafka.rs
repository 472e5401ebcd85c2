//! Kafka: whether it can be reached and takes the login, which topics there are and how they are kept, and whether each part may read
//! what it reads.
//!
//! What librdkafka does on its own threads is waited for on threads here, too, which the process does not wait for when it ends.

mod kept;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

#[cfg(test)]
use kept::Shape;
use kept::kept;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::{ClientConfig, Offset};

use super::{Check, Level, Look, PATIENCE, Seen};
use crate::log::ask::{self, Asker, Unanswered};
use crate::log::client;
use crate::log::config::{Kafka, Property};
use crate::log::scan::READER;
use crate::log::topics::nearest;
use crate::pipeline::Pipeline;
use crate::pipeline::file::amending;
use crate::pipeline::topics::{self, Role};
use crate::sink::config::SinkConfig;
use crate::words::counted;

/// What is asked for after the cluster has answered may take so long.
const STEP: Duration = Duration::from_millis(1500);
/// A record that is stamped so far ahead was not stamped by a clock like this machine's.
const AHEAD: Duration = Duration::from_secs(60);

/// Who reads without being in a group.
const COMMANDS: &str = "docket's commands";

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
    file: String,
    wanted: Vec<Wanted>,
    /// Part, consumer group and topic.
    readers: Vec<(String, String, String)>,
    partitions: u32,
    retention: Duration,
    /// With a join: where decisions wait, and what requests did.
    joined: Option<(String, String)>,
    /// The command that gives docket the rights it needs.
    acls: String,
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
        readers.extend(file.amended().map(|(name, _)| {
            let part = amending(name);
            (format!("sink {name}, amendments"), pipeline.group(&part), file.amendments_topic())
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
        readers.push((COMMANDS.into(), pipeline.group(READER), rejects));
        About {
            kafka: file.kafka.clone(),
            file: pipeline.path.display().to_string(),
            wanted: wanted.collect(),
            readers,
            partitions: file.docket.partitions,
            retention: file.docket.retention.0,
            joined: file.join.is_some().then(|| (file.pending_topic(), file.facts_topic())),
            acls: acls(pipeline),
        }
    }

    fn check(&self, what: impl Into<String>) -> Check {
        Check::new(what, &self.kafka.brokers)
    }

    fn topics_command(&self, rest: &str) -> String {
        format!("kafka-topics.sh --bootstrap-server {} {rest}", self.kafka.brokers)
    }
}

/// The command that gives docket what it needs.
fn acls(pipeline: &Pipeline) -> String {
    let file = &pipeline.file;
    let (who, mut before) = match principal(&file.kafka) {
        Some(principal) => ("", format!("PRINCIPAL={}", quoted(&principal))),
        None => (", with NAME as Kafka calls docket", "PRINCIPAL=User:NAME".to_owned()),
    };
    let mut set = |name: &str, value: &str| before += &format!(" {name}={}", quoted(value));
    if file.door.is_some() {
        set("DOOR", "1");
    }
    if let Some(join) = &file.join {
        let facts: Vec<&str> = join.facts.iter().map(|source| source.topic.as_str()).collect();
        set("FACTS", &facts.join(" "));
    }
    let docket = file.docket_topic();
    for (name, topic, usual) in [
        ("DOCKET_TOPIC", docket.clone(), format!("docket.{}", file.name)),
        ("REJECTS_TOPIC", file.rejects_topic(), format!("{docket}.rejects")),
        ("SPIKES_TOPIC", file.spikes_topic(), format!("{docket}.spikes")),
    ] {
        if topic != usual {
            set(name, &topic);
        }
    }
    let sources: Vec<&str> = file.sources.iter().map(|source| source.topic.as_str()).collect();
    let (brokers, name, sources) = (&file.kafka.brokers, pipeline.name(), sources.join(" "));
    format!("as an administrator{who}: {before} {} {brokers} {name} {sources}", ask::ACLS)
}

/// What Kafka calls who logs in, where the login says so.
fn principal(kafka: &Kafka) -> Option<String> {
    let property = |name: &str| kafka.properties.get(name).map(Property::value);
    let by_name = property("sasl.mechanism").or_else(|| property("sasl.mechanisms"));
    let by_name = by_name.is_some_and(|how| how == "PLAIN" || how.starts_with("SCRAM-"));
    property("sasl.username").filter(|_| by_name).map(|name| format!("User:{name}"))
}

/// For a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.:/@".contains(c);
    if text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

pub fn look(pipeline: &Pipeline) -> Look {
    let about = About::new(pipeline);
    let brokers = about.kafka.brokers.clone();
    let look = Look::new("kafka", brokers, async move {
        let (done, wait) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Handle::current();
        let found: Arc<Mutex<Vec<Check>>> = Arc::default();
        let (asked, told) = (about.clone(), found.clone());
        std::thread::spawn(move || {
            cluster(&asked, &runtime, &|check| {
                told.lock().unwrap_or_else(PoisonError::into_inner).push(check);
            });
            let _ = done.send(());
        });
        let whole = tokio::time::timeout(PATIENCE + Duration::from_millis(300), wait).await;
        let mut checks = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
        if whole.is_err() && !checks.is_empty() {
            checks.push(late(&about, &checks));
        }
        Seen { checks, clock: None }
    });
    look.set_by(&["kafka", "brokers"])
}

/// Time is up: what was answered is known, and what was not.
fn late(about: &About, checks: &[Check]) -> Check {
    let seen = |name: &str| checks.iter().any(|check| check.what == format!("topic {name}"));
    let missed: Vec<&str> =
        about.wanted.iter().map(|w| w.name.as_str()).filter(|name| !seen(name)).collect();
    let missed = match missed[..] {
        [] => "rights and clocks".to_owned(),
        _ => missed.join(", "),
    };
    about
        .check("kafka")
        .warning(format!("it answers slowly: in 4 s, what was left to look at is {missed}"), SLOW)
}

/// What to do about a Kafka that answers, and takes its time.
const SLOW: &str =
    "run docket doctor again; if that stays, see how busy the brokers and the network to them are";

/// Looks at all of it, and tells each check as it comes.
fn cluster(about: &About, runtime: &tokio::runtime::Handle, tell: &dyn Fn(Check)) {
    let answer = Asker::new(&about.kafka, "doctor", None).and_then(|asker| {
        let all = asker.metadata(None, PATIENCE - Duration::from_millis(500))?;
        Ok((asker, all))
    });
    let (asker, all) = match answer {
        Ok(answer) => answer,
        Err(error) => return tell(unanswered(about.check("kafka"), error, Level::Wrong)),
    };
    let brokers = all.brokers().len();
    let login = if about.kafka.properties.keys().any(|name| name.starts_with("sasl.")) {
        ", takes the login"
    } else {
        ""
    };
    let says = format!("{} answering{login}", counted(brokers as u64, "broker"));
    tell(about.check("kafka").ok(says));
    let readers: Vec<_> = about
        .readers
        .iter()
        .map(|reader| {
            let (about, reader) = (about.clone(), reader.clone());
            std::thread::spawn(move || may_read(&about, &reader))
        })
        .collect();
    let configs = configs(about, runtime);
    let apart = together(about, &all);
    let mut there = Vec::new();
    for (wanted, config) in about.wanted.iter().zip(configs) {
        let seen = all.topics().iter().find(|t| t.name() == wanted.name && t.error().is_none());
        match seen {
            Some(topic) => {
                there.push(wanted.name.clone());
                // How many partitions it needs is said once.
                let apart = apart
                    .as_ref()
                    .filter(|apart| apart.what.ends_with(&format!(" {}", wanted.name)));
                let again =
                    |check: &Check| apart.is_some() && check.way_out.contains("--partitions");
                let all = kept(about, wanted, topic, brokers, config.as_ref());
                all.into_iter().filter(|check| !again(check)).for_each(tell);
            }
            None => tell(absent(about, wanted, &asker, &all)),
        }
    }
    apart.into_iter().for_each(tell);
    stamps(about, &asker, &all, &there).into_iter().for_each(tell);
    rights(about, readers, tell);
}

/// What the parts may read, of which each was tried beside the others.
fn rights(
    about: &About,
    readers: Vec<std::thread::JoinHandle<Result<Option<()>, Check>>>,
    tell: &dyn Fn(Check),
) {
    let (mut may, mut all) = (BTreeSet::new(), true);
    for (reader, (part, group, _)) in readers.into_iter().zip(&about.readers) {
        match reader.join() {
            Ok(Err(check)) => {
                all = false;
                tell(check);
            }
            // A group may read several topics; docket's commands are in none.
            Ok(Ok(Some(()))) if part != COMMANDS => {
                may.insert(group);
            }
            Ok(Ok(_)) | Err(_) => {}
        }
    }
    if !may.is_empty() && all {
        let says = format!("{} may read their topics", counted(may.len() as u64, "consumer group"));
        tell(about.check("rights").ok(says));
    }
}

/// Why there is no answer; `slow` is how bad it is that it does not come in time.
fn unanswered(check: Check, error: Unanswered, slow: Level) -> Check {
    match error {
        Unanswered::Slow { why, .. } => {
            Check { level: slow, ..check.warning(format!("it is slow: {why}"), SLOW) }
        }
        Unanswered::Login { why, .. } => {
            check.wrong(format!("it refused the login: {why}"), format!("correct {}", ask::LOGIN))
        }
        Unanswered::Properties(why) => {
            check.wrong(why, "correct kafka.properties in the pipeline file")
        }
        Unanswered::Unreachable { why, .. } => {
            let lower = why.to_ascii_lowercase();
            let way_out = if lower.contains("no answer") {
                "see whether it is overloaded, or something else listens there; then security.protocol under kafka.properties"
            } else if lower.contains("certificate") || lower.contains("handshake") {
                "see security.protocol, ssl.ca.location and ssl.certificate.location under kafka.properties, and the broker's certificate"
            } else if lower.contains("security.protocol") || lower.contains("disconnected") {
                "the port may want another security.protocol (SSL, SASL_SSL, SASL_PLAINTEXT) under kafka.properties"
            } else if lower.contains("resolve") {
                "there is no such host: correct kafka.brokers"
            } else {
                "correct kafka.brokers, or start Kafka; it must be reachable from here, under the names that it advertises"
            };
            check.astray(why, way_out)
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
        Err(error) => return unanswered(check, error, Level::Warning),
    };
    if one.topics().iter().any(|t| ask::hides(t.error())) {
        return check.wrong(
            "Kafka hides it for want of rights (TopicAuthorizationFailed); it may be there",
            about.acls.clone(),
        );
    }
    let file = crate::words::shell(&about.file);
    let create = match role {
        // Who sends decisions may make it, too; without --yes it asks.
        Role::Source => format!("docket setup {file} --yes"),
        Role::Docket | Role::Rejects | Role::Amendments | Role::Learned => {
            format!("docket setup {file}")
        }
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
        Err(error) => return Err(unanswered(check, error, Level::Wrong)),
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
            return Err(check.wrong(says, about.acls.clone()));
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
                    return Err(check.wrong(says, about.acls.clone()));
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
