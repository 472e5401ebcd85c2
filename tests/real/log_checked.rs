//! The log is checked: what retention took, a topic that was made anew, partitions that were added, offsets that are gone. Nothing is passed over in silence, and nothing
//! that can be read is left out.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;

use super::support::{
    Metrics, Place, Read1, Running, Source, commit, decision_id, docket, produce, read_all, until,
};
use super::{address, init, pipeline};

fn admin() -> AdminClient<DefaultClientContext> {
    super::support::admin(&address("KAFKA_BOOTSTRAP"))
}

fn decision(id: &str) -> String {
    let at = jiff::Timestamp::now();
    format!(r#"{{"decision_id":"{id}","path":"a/allow","result":true,"timestamp":"{at}"}}"#)
}

fn decisions(ids: std::ops::Range<usize>) -> Vec<String> {
    ids.map(|i| decision(&format!("d{i}"))).collect()
}

/// Deletes what stands before an offset, as retention does.
async fn delete_before(topic: &str, partition: i32, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    let told = admin().delete_records(&list, &AdminOptions::new()).await.unwrap();
    told.elements()[0].error().unwrap();
}

/// Deletes a topic and makes it anew.
async fn recreate(topic: &str, partitions: i32) {
    let kafka = address("KAFKA_BOOTSTRAP");
    admin().delete_topics(&[topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    until("the topic is gone", 30, async || {
        let new = rdkafka::admin::NewTopic::new(
            topic,
            partitions,
            rdkafka::admin::TopicReplication::Fixed(1),
        );
        match &admin().create_topics([&new], &AdminOptions::new()).await.unwrap()[0] {
            Ok(_) => Ok(()),
            Err((_, code)) => Err(format!("{code} at {kafka}")),
        }
    })
    .await;
}

struct Case {
    place: Place,
    path: PathBuf,
    kafka: String,
    source: String,
    docket: String,
}

impl Case {
    async fn new(name: &str, partitions: i32, rest: &str) -> Case {
        init();
        let place = Place::new(name);
        let rest = format!(
            "docket: {{partitions: 1}}\nsinks: {{out: {{type: file, path: $DIR/out, delivery: {{batch_age: 20ms}}}}}}\n{rest}"
        );
        let path = pipeline(&place, partitions, &rest).await;
        let (source, docket) = (format!("{}-source", place.name), format!("docket.{}", place.name));
        Case { path, kafka: address("KAFKA_BOOTSTRAP"), source, docket, place }
    }

    fn start(&self, args: &[&str]) -> Running {
        Running::start_with(&self.place, &self.path, args)
    }

    fn ids(&self) -> BTreeSet<String> {
        let text = std::fs::read_to_string(self.place.path("out")).unwrap_or_default();
        text.lines().map(decision_id).collect()
    }

    async fn has(&self, ids: &[String]) {
        let wanted: BTreeSet<String> = ids.iter().map(|id| decision_id(id)).collect();
        until("everything is in the sink", 60, async || {
            let missing: Vec<_> = wanted.difference(&self.ids()).cloned().collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} are missing")) }
        })
        .await;
    }

    /// Decisions come, and docket has read them and is stopped.
    async fn has_read(&self, decisions: &[String]) {
        produce(&self.kafka, &self.source, decisions);
        let running = self.start(&[]);
        self.has(decisions).await;
        running.stop();
    }

    /// Ten have been read, and of ten more retention takes five unread. The ten.
    async fn overtaken(&self) -> Vec<String> {
        self.has_read(&decisions(0..10)).await;
        let second = decisions(10..20);
        produce(&self.kafka, &self.source, &second);
        delete_before(&self.source, 0, 15).await;
        second
    }

    /// The letters that name what is gone: part, topic, and what they say.
    fn letters(&self) -> Vec<(Read1, Value)> {
        let all = read_all(&self.kafka, &format!("{}.rejects", self.docket));
        let gaps = all.into_iter().filter(|letter| letter.headers["docket-reason"] == "log_gap");
        gaps.map(|letter| (letter.clone(), letter.json())).collect()
    }
}

const GAPS: &str = "docket_log_gaps_total";
const LOST: &str = "docket_log_lost_offsets_total";

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_took_is_told_once_and_the_rest_is_read() {
    let _servers = super::together().await;
    let case = Case::new("retention", 1, "spikes: {}").await;
    // Intake is overtaken: of 10 to 19 the first five are gone.
    case.overtaken().await;
    let running = case.start(&["--only", "intake"]);
    let part = &["part=\"intake\"", "cause=\"retention\""];
    let metrics = running.until("a gap is counted", 60, |m| m.sum(GAPS, part) == 1).await;
    assert_eq!(metrics.sum(LOST, part), 5);
    running.until("the rest is read", 60, |m| m.written() == 5).await;
    running.stop();
    let letters = case.letters();
    assert_eq!(letters.len(), 1);
    let (letter, says) = &letters[0];
    assert_eq!(letter.headers["docket-source-topic"], case.source);
    assert_eq!(
        (&says["from"], &says["to"], &says["partition"]),
        (&10.into(), &15.into(), &0.into())
    );
    let detail = &letter.headers["docket-detail"];
    assert!(detail.contains("offsets 10 to 14 were deleted by retention"), "{detail}");
    let findings = |topic: &str| {
        let all = read_all(&case.kafka, topic);
        all.iter().filter(|r| r.json()["finding"]["kind"] == "log_gap").count()
    };
    assert_eq!(findings(&case.docket), 1, "it is a finding, too");

    // The sink is overtaken in the docket topic.
    let all = read_all(&case.kafka, &case.docket).len();
    assert_eq!(all, 16);
    let metadata = end(&case.docket);
    delete_before(&case.docket, 0, metadata - 2).await;
    let running = case.start(&["--only", "sinks"]);
    let part = &["part=\"out\"", "cause=\"retention\""];
    running.until("a gap is counted", 60, |m| m.sum(GAPS, part) == 1).await;
    until("it is told", 30, async || match case.letters().len() {
        2 => Ok(()),
        n => Err(n.to_string()),
    })
    .await;
    running.stop();
    // Once.
    let running = case.start(&[]);
    produce(&case.kafka, &case.source, [decision("last")]);
    case.has(&[decision("last")]).await;
    assert_eq!(running.metrics().await.sum(GAPS, &[]), 0);
    running.stop();
    assert_eq!(case.letters().len(), 2);
    let out = docket().args(["redrive"]).arg(&case.path).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("they name what is gone"), "{said}");
    // Nobody can say that all of it is there.
    let args = ["verify", "--from", "start", "--settle", "0s", "--json"];
    let out = docket().args(args).arg(&case.path).output().unwrap();
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(report["complete"], false, "{report}");
    let parts: Vec<&Value> =
        report["gone"].as_array().unwrap().iter().map(|gone| &gone["part"]).collect();
    assert_eq!(parts, ["intake", "out"], "{report}");
    assert!(String::from_utf8_lossy(&out.stderr).contains("deleted by retention"));
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_tells_what_intake_lost_from_what_retention_took() {
    let _servers = super::together().await;
    let case = Case::new("unread", 1, "").await;
    let verified = || {
        let args = ["verify", "--from", "start", "--settle", "0s", "--json"];
        let out = docket().args(args).arg(&case.path).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        let report: Value = serde_json::from_str(&said)
            .unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&out.stderr)));
        (out.status.code().unwrap(), report["source"].clone())
    };
    std::fs::write(case.place.path("out"), "").unwrap();
    produce(&case.kafka, &case.source, [decision("early")]);
    let (code, source) = verified();
    let why = source["skipped"].as_str().unwrap();
    assert!(code == 3 && why.contains("has committed nothing of"), "{source}");

    let all = [vec![decision("early")], decisions(0..9)].concat();
    produce(&case.kafka, &case.source, &all[1..]);
    let running = case.start(&[]);
    case.has(&all).await;
    running.stop();
    let (code, source) = verified();
    assert_eq!((code, &source["present"], &source["removed"]), (0, &10.into(), &0.into()));
    delete_before(&case.source, 0, 4).await;
    let (code, source) = verified();
    assert_eq!((code, &source["present"], &source["removed"]), (0, &6.into(), &4.into()));
    assert!(source["notes"][0].as_str().unwrap().contains("4 records were removed by retention"));

    produce(&case.kafka, &case.source, [decision("gone")]);
    let group = format!("docket.{}.intake", case.place.name);
    commit(&case.kafka, &group, &case.source, &[(0, end(&case.source))]);
    let (code, source) = verified();
    assert_eq!((code, &source["present"]), (1, &6.into()), "{source}");
    assert_eq!(source["lost"][0]["decision_id"], "gone");
    assert_eq!((&source["lost"][0]["offset"], &source["lost"][1]), (&10.into(), &Value::Null));
    // Of what retention took of the docket, nothing can be told any more.
    delete_before(&case.docket, 0, end(&case.docket)).await;
    let (code, source) = verified();
    assert_eq!((code, &source["not_compared"]), (3, &7.into()), "{source}");
    assert_eq!(source["lost"], serde_json::json!([]));
}

fn end(topic: &str) -> i64 {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address("KAFKA_BOOTSTRAP"))
        .set("group.id", "docket-tests")
        .create()
        .unwrap();
    consumer.fetch_watermarks(topic, 0, Duration::from_secs(10)).unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_is_read_from_its_first_record_whatever_was_committed() {
    let _servers = super::together().await;
    let case = Case::new("recreated", 1, "").await;
    case.has_read(&decisions(0..10)).await;

    // More is in the new one than was read of the old.
    recreate(&case.source, 1).await;
    let new: Vec<String> = (0..30).map(|i| decision(&format!("new{i}"))).collect();
    produce(&case.kafka, &case.source, &new);
    let running = case.start(&[]);
    case.has(&new).await;
    // Kafka deletes a topic's offsets with it; whether it has, it is told.
    let part = &["part=\"intake\""];
    assert_eq!(running.metrics().await.sum(GAPS, part), 1);

    // And while docket runs.
    recreate(&case.source, 1).await;
    let newer: Vec<String> = (0..50).map(|i| decision(&format!("newer{i}"))).collect();
    produce(&case.kafka, &case.source, &newer);
    case.has(&newer).await;
    running.until("it is counted", 30, |m| m.sum(GAPS, part) == 2).await;
    running.stop();
    let letters = case.letters();
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[1].1["cause"], "recreated");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_join_takes_no_place_in_another_pending_topic_for_its_own() {
    let _servers = super::together().await;
    let join = "join: {facts: [{topic: $NAME-access, format: access_log}], wait: 100ms, window: 1s, delay: 2s}";
    let case = Case::new("rejoined", 1, join).await;
    let pending = format!("{}.pending", case.docket);
    let part = &["part=\"join\""];
    let (mut told, mut all) = (0, Vec::new());
    let running = case.start(&[]);
    let old = decisions(0..40);
    produce(&case.kafka, &case.source, &old);
    case.has(&old).await;
    assert_eq!(running.metrics().await.sum(GAPS, &[]), 0);
    running.stop();
    all.extend(old);

    // Fewer are in the new one than were given out of the old. Then the same while docket runs.
    recreate(&pending, 1).await;
    let running = case.start(&[]);
    for name in ["new", "newer"] {
        let new: Vec<String> = (0..20).map(|i| decision(&format!("{name}{i}"))).collect();
        produce(&case.kafka, &case.source, &new);
        case.has(&new).await;
        told += 1;
        running.until("it is counted", 60, |m| m.sum(GAPS, part) == told).await;
        all.extend(new);
        if told == 1 {
            recreate(&pending, 1).await;
        }
    }
    running.stop();
    let letters = case.letters();
    assert_eq!(letters.len(), 2);
    for (letter, says) in &letters {
        assert_eq!(
            (&*letter.headers["docket-stage"], &says["topic"]),
            ("join", &pending.clone().into())
        );
    }
    let docket = read_all(&case.kafka, &case.docket);
    assert_eq!(docket.len(), all.len(), "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_at_the_end_is_kept_and_partitions_added_later_are_read_whole() {
    let _servers = super::together().await;
    let case = Case::new("latest", 1, "intake: {start: latest}").await;
    produce(&case.kafka, &case.source, decisions(0..5));
    // Nothing comes while it runs, and it is killed.
    let running = case.start(&[]);
    let ready = |m: &super::support::Metrics| m.sum("docket_part_up", &["part=\"intake\""]) == 1;
    running.until("intake has joined", 60, ready).await;
    running.kill();
    let while_away = decisions(5..10);
    produce(&case.kafka, &case.source, &while_away);
    let running = case.start(&[]);
    case.has(&while_away).await;
    admin()
        .create_partitions([&NewPartitions::new(&case.source, 3)], &AdminOptions::new())
        .await
        .unwrap()[0]
        .as_ref()
        .unwrap();
    let added = Source::new(&case.kafka, &case.source);
    let later = decisions(10..20);
    for (i, record) in later.iter().enumerate() {
        added.write_to(1 + (i % 2) as i32, record);
    }
    added.flush();
    case.has(&later).await;
    assert_eq!(running.metrics().await.sum(GAPS, &[]), 0);
    running.stop();
    assert!(case.ids().iter().all(|id| id[1..].parse::<usize>().unwrap() >= 5), "{:?}", case.ids());
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_are_gone_are_told() {
    let _servers = super::together().await;
    let case = Case::new("expired", 1, "").await;
    case.has_read(&decisions(0..10)).await;
    let group = format!("docket.{}.intake", case.place.name);
    until("the group is deleted", 60, async || {
        admin().delete_groups(&[&group], &AdminOptions::new()).await.unwrap()[0]
            .as_ref()
            .map(|_| ())
            .map_err(|(_, code)| code.to_string())
    })
    .await;
    delete_before(&case.source, 0, 4).await;
    let running = case.start(&[]);
    let part = &["part=\"intake\"", "cause=\"expired\""];
    running.until("a gap is counted", 60, |m| m.sum(GAPS, part) == 1 && m.written() == 6).await;
    running.stop();
    let letters = case.letters();
    assert_eq!((&letters[0].1["from"], &letters[0].1["to"]), (&0.into(), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_it_stops_at_a_gap_until_somebody_has_looked() {
    let _servers = super::together().await;
    let case = Case::new("stop", 1, "watchdog: {log_gap: stop}").await;
    let second = case.overtaken().await;
    let running = case.start(&[]);
    let restarts = "docket_part_restarts_total";
    let metrics = running.until("it stops", 60, |m| m.sum(restarts, &["intake"]) >= 2).await;
    assert_eq!((metrics.written(), metrics.sum("docket_part_up", &["part=\"intake\""])), (0, 0));
    assert!(running.log().contains("offsets 10 to 14 were deleted by retention"));
    running.stop();
    let text = std::fs::read_to_string(&case.path).unwrap();
    std::fs::write(&case.path, text.replace("log_gap: stop", "log_gap: go_on")).unwrap();
    let running = case.start(&[]);
    case.has(&second[5..]).await;
    running.stop();
    assert_eq!(case.letters().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_not_there_is_in_no_others_way_and_what_a_dead_sink_lacks_is_counted() {
    let _servers = super::together().await;
    init();
    let (place, kafka) = (Place::new("misspelt"), address("KAFKA_BOOTSTRAP"));
    let (source, sourec) = (format!("{}-source", place.name), format!("{}-sourec", place.name));
    super::create_topic(&kafka, &source, 2, &[]).await;
    let path = place.pipeline(&format!(
        "name: $NAME
kafka: {{brokers: \"{kafka}\"}}
sources: [{{topic: {source}}}, {{topic: {sourec}}}]
docket: {{partitions: 1}}
sinks:
  out: {{type: file, path: $DIR/out}}
  dead: {{type: loki, url: \"http://127.0.0.1:9\", delivery: {{batch_records: 10, prefetch: 64KiB}}}}
"
    ));
    let running = Running::start(&place, &path);
    produce(&kafka, &source, decisions(0..2_000));
    running.until("the other source is read", 30, |m| m.delivered("out") == 2_000).await;
    until("it is said which one is not there", 60, async || {
        let page = reqwest::get(format!("http://{}/status", running.admin)).await.unwrap();
        let page = page.text().await.unwrap();
        if page.contains(&sourec) { Ok(()) } else { Err(page) }
    })
    .await;
    // In the topic are some markers, too.
    let lag = |m: &super::support::Metrics| m.sum("docket_lag_records", &["part=\"dead\""]);
    running.until("what the dead sink lacks is its lag", 60, |m| lag(m) >= 2_000).await;
    produce(&kafka, &source, decisions(2_000..20_000));
    running.until("and grows", 60, |m| lag(m) >= 20_000).await;

    // It is made after all.
    super::create_topic(&kafka, &sourec, 1, &[]).await;
    produce(&kafka, &sourec, [decision("late")]);
    running.until("it is read, too", 90, |m| m.delivered("out") == 20_001).await;
    running.stop();
}

/// A reject as intake writes it, of so long ago.
fn reject(producer: &BaseProducer, topic: &str, source: &str, ago: Duration) {
    let written = jiff::Timestamp::now().as_millisecond() - ago.as_millis() as i64;
    let header = |key, value| Header { key, value: Some(value) };
    let headers = OwnedHeaders::new()
        .insert(header("docket-stage", "intake"))
        .insert(header("docket-reason", "not_json"))
        .insert(header("docket-source-topic", source));
    let record = BaseRecord::<(), str>::to(topic).payload("{").timestamp(written).headers(headers);
    producer.send(record).map_err(|(error, _)| error).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rejects_that_retention_will_take_soon_are_told_until_they_are_sent_again() {
    let _servers = super::together().await;
    let case = Case::new("aging", 1, "").await;
    let rejects = format!("{}.rejects", case.docket);
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &case.kafka).create().unwrap();
    // They are kept for 14 days.
    for days in [13, 12, 11, 9, 0] {
        let ago = Duration::from_secs(days * 86_400);
        reject(&producer, &rejects, &case.source, ago);
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    let told = |count: u64| {
        let topic = format!("topic=\"{rejects}\"");
        move |m: &Metrics| {
            let mut lines = m.0.lines().filter(|l| l.starts_with("docket_rejects_aging_records"));
            lines.any(|l| l.contains(&topic) && l.ends_with(&format!(" {count}")))
        }
    };
    let running = case.start(&[]);
    running.until("three are about to be deleted", 60, told(3)).await;
    let log = running.stop();
    assert!(log.contains("3 rejects not sent again"), "{log}");
    let path = case.path.to_str().unwrap();
    let sent = docket().args(["redrive", path, "--sink", "intake", "--send"]).output().unwrap();
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let running = case.start(&[]);
    running.until("none is", 60, told(0)).await;
}
