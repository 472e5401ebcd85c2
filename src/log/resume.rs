//! Where a member of a group goes on in the partitions that it is assigned: what the group committed is held against what the
//! log holds (`crate::resume`), before anything is read. librdkafka would jump, or read another topic of the same name on from the old
//! one's offset.
//!
//! A client of its own asks, since the member's is busy with the rebalance. A topic's id, librdkafka says nowhere but in its
//! log, so that is listened to.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

use super::closing::{Abandon, Closing};
use super::config::{Kafka, Start};
use super::progress::Progress;
use super::reading::Reading;
use super::{Gap, client};
use crate::resume::{self, Cause, Committed, Log, Past};

/// One question to Kafka may take so long,
const STEP: Duration = Duration::from_secs(5);
/// and all of them.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the first commit is tried.
const TRIES: usize = 3;

/// The ids of topics, as librdkafka learns them.
#[derive(Debug, Default)]
pub struct TopicIds(Mutex<HashMap<String, String>>);

impl TopicIds {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, topic: &str) -> Option<String> {
        self.lock().get(topic).cloned()
    }

    /// Takes an id out of librdkafka's log. The topic, if it had another one before.
    pub fn logged(&self, message: &str) -> Option<String> {
        let (before, after) = message.split_once(" changed id from ")?;
        let topic = before.rsplit_once("Topic ").map_or(before, |(_, topic)| topic);
        let (_, id) = after.split_once(" to ")?;
        let id = id.trim();
        if id.is_empty() || id.bytes().all(|b| b == b'A' || b == b'=') {
            return None;
        }
        let was = self.lock().insert(topic.to_owned(), id.to_owned());
        was.filter(|was| was != id).map(|_| topic.to_owned())
    }
}

/// Has librdkafka say the ids of topics.
pub fn saying_ids(config: ClientConfig) -> ClientConfig {
    client::saying(config, "topic")
}

/// Listens to what librdkafka logs of topics, and passes on the rest of it.
pub fn log(
    ids: &TopicIds,
    level: RDKafkaLogLevel,
    facility: &str,
    message: &str,
) -> Option<String> {
    match level {
        RDKafkaLogLevel::Debug => ids.logged(message),
        level => {
            client::log(level, facility, message);
            None
        }
    }
}

#[derive(Default)]
struct Listening {
    ids: TopicIds,
    brokers: client::Brokers,
}

impl ClientContext for Listening {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(&self.ids, level, facility, message);
        self.brokers.logged(facility, message);
    }

    fn error(&self, _: KafkaError, _: &str) {}

    fn stats(&self, statistics: rdkafka::Statistics) {
        self.brokers.note(&statistics);
    }
}

impl ConsumerContext for Listening {}

impl Abandon for Listening {}

/// A partition of a topic.
type Place = (String, i32);

/// What Kafka says of a group's topics.
#[derive(Default)]
struct Answers {
    partitions: BTreeMap<String, i32>,
    committed: BTreeMap<Place, Committed>,
    first: BTreeMap<Place, i64>,
    end: BTreeMap<Place, i64>,
}

/// The client that asks.
struct Asking {
    /// Without them librdkafka would forget the topics.
    topics: Vec<PartitionQueue<Listening>>,
    /// Who asks, waits not for ever for it to end: Kafka may be away by then.
    client: Closing<Listening>,
}

impl Asking {
    fn new(kafka: &Kafka, part: &str, group: &str) -> KafkaResult<Asking> {
        let mut config = client::long_lived(kafka, &format!("{part}-resume"));
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed");
        let config = saying_ids(client::with_properties(config, kafka));
        let client = Arc::new(config.create_with_context(Listening::default())?);
        Ok(Asking { topics: Vec::new(), client: Closing::new(client) })
    }

    /// It reads nothing; what librdkafka has to tell, it tells now.
    fn listen(&self) {
        for _ in 0..10_000 {
            // A log line is nothing, too, so that an empty queue can't be told from one; it is asked a few times more.
            if self.client.poll(Duration::ZERO).is_some() {
                break;
            }
        }
    }

    /// A topic that is not there is nobody's to read, and in nobody's way: one of which something is assigned has to be.
    fn partitions(
        &mut self,
        topics: &[String],
        assigned: &[Place],
    ) -> KafkaResult<BTreeMap<String, i32>> {
        if self.topics.is_empty() {
            let queues =
                topics.iter().filter_map(|t| self.client.member().split_partition_queue(t, 0));
            self.topics = queues.collect();
        }
        let mut all = BTreeMap::new();
        for topic in topics {
            let metadata = self.client.fetch_metadata(Some(topic), STEP)?;
            let count = metadata.topics().first().map_or(0, |t| t.partitions().len());
            if count == 0 && !assigned.iter().any(|(assigned, _)| assigned == topic) {
                continue;
            }
            if count == 0 {
                return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition));
            }
            all.insert(topic.clone(), i32::try_from(count).unwrap_or(i32::MAX));
        }
        self.listen();
        Ok(all)
    }

    fn offsets(&self, places: &[Place], at: Offset) -> KafkaResult<BTreeMap<Place, i64>> {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in places {
            list.add_partition_offset(topic, *partition, at)?;
        }
        let mut all = BTreeMap::new();
        for told in self.client.offsets_for_times(list, STEP)?.elements() {
            told.error()?;
            let Offset::Offset(offset) = told.offset() else {
                return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::NoOffset));
            };
            all.insert((told.topic().to_owned(), told.partition()), offset);
        }
        Ok(all)
    }

    fn committed(
        &self,
        partitions: &BTreeMap<String, i32>,
    ) -> KafkaResult<BTreeMap<Place, Committed>> {
        let mut list = TopicPartitionList::new();
        for (topic, count) in partitions {
            for partition in 0..*count {
                list.add_partition(topic, partition);
            }
        }
        let mut all = BTreeMap::new();
        for told in self.client.committed_offsets(list, STEP)?.elements() {
            told.error()?;
            if let Offset::Offset(next) = told.offset() {
                let topic_id = resume::beside(told.metadata()).0.map(str::to_owned);
                let place = (told.topic().to_owned(), told.partition());
                all.insert(place, Committed { next, topic_id });
            }
        }
        Ok(all)
    }

    fn ask(&mut self, topics: &[String], assigned: &[Place]) -> KafkaResult<Answers> {
        self.client.context().brokers.check()?;
        let partitions = self.partitions(topics, assigned)?;
        let committed = self.committed(&partitions)?;
        let begun = |topic: &String| committed.keys().any(|(t, _)| t == topic);
        // A new group commits where it starts in all partitions, whoever is to read them.
        let mut places = assigned.to_vec();
        for (topic, count) in partitions.iter().filter(|(topic, _)| !begun(topic)) {
            places.extend((0..*count).map(|partition| (topic.clone(), partition)));
        }
        places.sort_unstable();
        places.dedup();
        let first = self.offsets(&places, Offset::Beginning)?;
        let end = self.offsets(&places, Offset::End)?;
        Ok(Answers { partitions, committed, first, end })
    }

    /// Whether anything was ever written to a topic.
    fn is_written(&self, topic: &str) -> KafkaResult<bool> {
        let metadata = self.client.fetch_metadata(Some(topic), STEP)?;
        let partitions =
            metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions);
        let places: Vec<Place> = partitions.map(|p| (topic.to_owned(), p.id())).collect();
        Ok(!places.is_empty() && self.offsets(&places, Offset::End)?.values().any(|end| *end > 0))
    }
}

/// Where a group stands in a partition, for who only asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The first offset that is there.
    pub first: i64,
    /// Everything below it is finished; nothing if the group has committed nothing. Or why what it committed says nothing of what
    /// is there now.
    pub next: Result<Option<i64>, String>,
}

/// Where a group stands in each partition of a topic. Nothing is joined or committed.
pub fn standing(
    kafka: &Kafka,
    part: &str,
    group: &str,
    topic: &str,
) -> KafkaResult<BTreeMap<i32, Standing>> {
    let until = Instant::now() + PATIENCE;
    loop {
        match stands(kafka, part, group, topic) {
            Err(error) if client::is_outage(&error) && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(300));
            }
            told => return told,
        }
    }
}

fn stands(
    kafka: &Kafka,
    part: &str,
    group: &str,
    topic: &str,
) -> KafkaResult<BTreeMap<i32, Standing>> {
    let mut client = Asking::new(kafka, part, group)?;
    let partitions = client.partitions(&[topic.to_owned()], &[(topic.to_owned(), 0)])?;
    let committed = client.committed(&partitions)?;
    let count = partitions.get(topic).copied().unwrap_or(0);
    let places: Vec<Place> = (0..count).map(|partition| (topic.to_owned(), partition)).collect();
    let first = client.offsets(&places, Offset::Beginning)?;
    let end = client.offsets(&places, Offset::End)?;
    client.listen();
    let id = client.client.context().ids.get(topic);
    let past = Past { begun: true, instead: None };
    let one = |place: &Place| {
        let log = Log { topic_id: id.as_deref(), first: *first.get(place)?, end: *end.get(place)? };
        let committed = committed.get(place);
        let to = resume::resume(committed, log, &past, resume::Start::Earliest);
        let next = match (committed, to.gap) {
            // What retention took, it has not read; what is there it will read.
            (Some(_), Some(gap)) if gap.cause != Cause::Retention => {
                Err(gap.sentence(topic, place.1))
            }
            (committed, _) => Ok(committed.map(|committed| committed.next)),
        };
        Some((place.1, Standing { first: log.first, next }))
    };
    Ok(places.iter().filter_map(one).collect())
}

/// What a member knows of where it goes on.
pub struct Resuming {
    kafka: Kafka,
    part: String,
    group: String,
    topics: Vec<String>,
    start: resume::Start,
    /// A topic that only this group's readers write: if something is in it, the group has read before.
    writes: Option<String>,
    /// Who has read one of its topics has read all.
    together: bool,
    /// A gap ends the part, until somebody has looked.
    stops: bool,
    progress: Arc<Progress>,
    /// As they were when partitions were assigned.
    ids: Mutex<HashMap<String, String>>,
    gaps: Mutex<Vec<Gap>>,
    /// By topic: how many offsets stand before where the group begins.
    skipped: Mutex<BTreeMap<String, u64>>,
    wrong: Mutex<Option<String>>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn begin_at(
    list: &mut TopicPartitionList,
    (topic, partition): &Place,
    at: i64,
    topic_id: Option<&str>,
) -> KafkaResult<()> {
    let mut element = list.add_partition(topic, *partition);
    element.set_offset(Offset::Offset(at))?;
    element.set_metadata(resume::metadata(topic_id, ""));
    Ok(())
}

/// Where to go on.
struct Decided {
    list: TopicPartitionList,
    /// What is to be committed before.
    begins: TopicPartitionList,
    gaps: Vec<Gap>,
    /// By topic: what begins at the end leaves out.
    skipped: BTreeMap<String, u64>,
}

/// Commits offsets for the first time.
type Begin<'b> = &'b dyn Fn(&TopicPartitionList) -> KafkaResult<()>;

impl Resuming {
    pub fn new(reading: &Reading<'_>, progress: Arc<Progress>) -> Resuming {
        Resuming {
            kafka: reading.kafka.clone(),
            part: reading.part.to_owned(),
            group: reading.group.to_owned(),
            topics: reading.topics.iter().map(|t| (*t).to_owned()).collect(),
            start: match reading.start {
                Start::Earliest => resume::Start::Earliest,
                Start::Latest => resume::Start::Latest,
            },
            writes: reading.writes.map(str::to_owned),
            together: reading.together,
            stops: reading.stops_at_gaps,
            progress,
            ids: Mutex::default(),
            gaps: Mutex::default(),
            skipped: Mutex::default(),
            wrong: Mutex::default(),
        }
    }

    /// What stands beside an offset of a topic.
    pub fn metadata(&self, topic: &str) -> String {
        resume::metadata(lock(&self.ids).get(topic).map(String::as_str), "")
    }

    pub fn ids(&self) -> HashMap<String, String> {
        lock(&self.ids).clone()
    }

    /// What was found to be gone and is not told yet.
    pub fn take_gaps(&self) -> Vec<Gap> {
        std::mem::take(&mut lock(&self.gaps))
    }

    /// What was found to be left out, by topic, and is not told yet.
    pub fn take_skipped(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut lock(&self.skipped))
    }

    /// Another's to tell.
    pub fn revoked(&self, partitions: &[Place]) {
        lock(&self.gaps).retain(|gap| {
            !partitions.iter().any(|(topic, p)| *topic == gap.topic && *p == gap.partition)
        });
    }

    /// The part can't go on: its place in the log is not known, or not there.
    pub fn wrong(&self, why: String) {
        lock(&self.wrong).get_or_insert(why);
    }

    pub fn check(&self) -> KafkaResult<()> {
        match lock(&self.wrong).as_ref() {
            Some(why) => Err(KafkaError::Subscription(why.clone())),
            None => Ok(()),
        }
    }

    /// Says where to go on in what was assigned, and commits that, where nothing is committed yet. Blocks until Kafka has answered.
    pub fn assigned(&self, assigned: &TopicPartitionList, begin: Begin<'_>) -> TopicPartitionList {
        self.assigned_within(PATIENCE, assigned, begin)
    }

    fn assigned_within(
        &self,
        patience: Duration,
        assigned: &TopicPartitionList,
        begin: Begin<'_>,
    ) -> TopicPartitionList {
        let places: Vec<Place> =
            assigned.elements().iter().map(|e| (e.topic().to_owned(), e.partition())).collect();
        if places.is_empty() {
            return assigned.clone();
        }
        let until = Instant::now() + patience;
        loop {
            match self.look(&places, begin) {
                Ok(Some(list)) => return list,
                // Others began meanwhile: what they committed holds.
                Ok(None) if Instant::now() < until => {}
                Ok(None) => {
                    self.wrong("where to go on changes whenever it is asked for".to_owned());
                    return assigned.clone();
                }
                Err(error) if Instant::now() >= until => {
                    self.wrong(format!("where to go on can't be found out or committed: {error}"));
                    return assigned.clone();
                }
                Err(error) => {
                    tracing::warn!(part = self.part, %error, "where to go on is not found out or committed yet");
                    std::thread::sleep(Duration::from_millis(300));
                }
            }
        }
    }

    fn look(&self, places: &[Place], begin: Begin<'_>) -> KafkaResult<Option<TopicPartitionList>> {
        // Made anew each time: nobody would hear what it has to say meanwhile, and that would pile up.
        let mut client = Asking::new(&self.kafka, &self.part, &self.group)?;
        let answers = client.ask(&self.topics, places)?;
        let forgotten = match &self.writes {
            Some(topic) if answers.committed.is_empty() => client.is_written(topic)?,
            _ => false,
        };
        for topic in &self.topics {
            if let Some(id) = client.client.context().ids.get(topic) {
                lock(&self.ids).insert(topic.clone(), id);
            }
        }
        let decided = self.decide(&answers, places, forgotten)?;
        if decided.begins.count() > 0 {
            let now = client.committed(&answers.partitions)?;
            let others = |e: &TopicPartitionListElem<'_>| {
                now.contains_key(&(e.topic().to_owned(), e.partition()))
            };
            if decided.begins.elements().iter().any(others) {
                return Ok(None);
            }
            self.begin(&decided, begin)?;
            lock(&self.skipped).extend(decided.skipped);
        }
        // From now on each partition has an offset that tells of a topic that was before.
        for (topic, id) in &*lock(&self.ids) {
            self.progress.topic_id(&self.part, topic, id);
        }
        decided.gaps.into_iter().for_each(|gap| self.found(gap));
        Ok(Some(decided.list))
    }

    /// Commits where the group starts. What is not committed is not begun: whoever reads it next would start elsewhere, and say nothing.
    fn begin(&self, decided: &Decided, begin: Begin<'_>) -> KafkaResult<()> {
        for _ in 1..TRIES {
            if begin(&decided.begins).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        begin(&decided.begins)
    }

    fn decide(&self, answers: &Answers, places: &[Place], forgotten: bool) -> KafkaResult<Decided> {
        let ids = lock(&self.ids).clone();
        let (mut list, mut begins) = (TopicPartitionList::new(), TopicPartitionList::new());
        let (mut gaps, mut skipped) = (Vec::new(), BTreeMap::new());
        for (topic, count) in &answers.partitions {
            let topic_id = ids.get(topic).map(String::as_str);
            let of_it = answers.committed.iter().filter(|((t, _), _)| t == topic);
            let known = self.progress.known_id(&self.part, topic);
            let lacks_one = self.together && !answers.committed.is_empty();
            let forgotten = forgotten || lacks_one;
            let past = Past::new(of_it.map(|(_, c)| c), topic_id, forgotten, known.as_deref());
            for partition in 0..*count {
                let place = (topic.clone(), partition);
                let first_and_end = answers.first.get(&place).zip(answers.end.get(&place));
                let log = first_and_end.map(|(&first, &end)| Log { topic_id, first, end });
                let committed = answers.committed.get(&place);
                let (to, first_commit) = resume::decide(committed, log, &past, self.start);
                if let Some(Committed { next, topic_id }) = first_commit {
                    begin_at(&mut begins, &place, next, topic_id.as_deref())?;
                }
                let Some((log, to)) = log.zip(to) else { continue };
                if to.begins {
                    let left_out = u64::try_from(to.at.saturating_sub(log.first)).unwrap_or(0);
                    *skipped.entry(topic.clone()).or_default() += left_out;
                }
                if places.contains(&place) {
                    list.add_partition_offset(topic, partition, Offset::Offset(to.at))?;
                    if let Some(gap) = to.gap {
                        gaps.push(Gap { topic: topic.clone(), partition, gap, at: to.at });
                    }
                }
            }
        }
        skipped.retain(|_, left_out| *left_out > 0);
        Ok(Decided { list, begins, gaps, skipped })
    }

    fn found(&self, gap: Gap) {
        if self.stops {
            self.wrong(format!("{} (watchdog.log_gap: stop)", gap.sentence()));
        } else {
            lock(&self.gaps).push(gap);
        }
    }
}

#[cfg(test)]
mod tests;
