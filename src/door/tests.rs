use prometheus::{IntCounterVec, Opts, Registry};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::correlate::missing::Missing;
use crate::log::mock::Mock;

/// A door to a Kafka of its own. With `bug` it panics once a decision is written.
fn door(mock: &Mock, bug: bool) -> Arc<Door> {
    let registry = Registry::new();
    let config: DoorConfig = serde_json::from_value(json!({ "listen": "127.0.0.1:0" })).unwrap();
    let mut counts = meters::Meters::new("p", &registry).unwrap();
    if bug {
        counts.decisions = IntCounterVec::new(Opts::new("a", "a"), &["one", "more"]).unwrap();
    }
    Arc::new(Door {
        pipeline: "p".into(),
        kafka: Kafka { brokers: mock.bootstrap(), properties: Default::default() },
        compression: Compression::None,
        topic: "logs".into(),
        rejects_topic: "rejects".into(),
        limits: formats::Limits::default(),
        rules: record::Rules::default(),
        withholds: false,
        joins: true,
        clients: Arc::new(Clients::new(&config.tokens, &config.limits)),
        meters: Arc::new(Meters::new("p", &registry).unwrap()),
        counts: Arc::new(counts),
        health: Arc::default(),
        topic_limit: None,
        rejects_limit: None,
        bound: Mutex::default(),
        config,
    })
}

async fn status_of_an_upload(line: &mut TcpStream) -> String {
    let body = r#"[{"decision_id":"d1","timestamp":"2026-11-24T12:00:00Z"}]"#;
    let request = format!(
        "POST /logs HTTP/1.1\r\nhost: door\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    line.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = line.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..length]).split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_answered_and_counted_and_the_connection_goes_on() {
    let mock = Mock::start(&[("logs", 1), ("rejects", 1)]).unwrap();
    for (bug, status) in [(false, "200"), (true, "500")] {
        let door = door(&mock, bug);
        let bound = listen("127.0.0.1:0").unwrap();
        let address = bound.local_addr().unwrap();
        *door.bound.lock().unwrap() = Some(bound);
        let (stop, runs) = (CancellationToken::new(), door.clone());
        let stopped = stop.clone();
        let served = tokio::spawn(async move { runs.run(&stopped).await });
        let mut line = TcpStream::connect(address).await.unwrap();
        for _ in 0..2 {
            assert_eq!(status_of_an_upload(&mut line).await, status);
        }
        drop(line);
        assert_eq!(door.counts.requests.with_label_values(&["logs", status]).get(), 2);
        assert_eq!(door.counts.panics.with_label_values(&["logs"]).get(), if bug { 2 } else { 0 });
        stop.cancel();
        served.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_at_which_docket_panics_goes_on_as_a_whole() {
    let mock = Mock::start(&[("logs", 1), ("rejects", 1)]).unwrap();
    let door = door(&mock, false);
    let at = door.open(&CancellationToken::new()).unwrap();
    let records = at.apart("logs", b"[1,2]", |_| panic!("a bug")).unwrap();
    assert_eq!(records.len(), 1);
    assert!(records[0].key.is_none() && records[0].bytes.as_ref() == b"[1,2]");
    assert_eq!(door.counts.panics.with_label_values(&["logs"]).get(), 1);
    at.write("c", &records).await.unwrap();
    assert_eq!(door.counts.decisions.with_label_values(&["c"]).get(), 1);
}

/// What stands in the topic, up to so many.
fn written(mock: &Mock, count: usize) -> Vec<Vec<u8>> {
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", mock.bootstrap()).set("group.id", "g");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut all = TopicPartitionList::new();
    all.add_partition_offset("logs", 0, Offset::Beginning).unwrap();
    consumer.assign(&all).unwrap();
    let began = Instant::now();
    let mut read = Vec::new();
    while read.len() < count && began.elapsed() < Duration::from_secs(60) {
        let polled = consumer.poll(Duration::from_millis(100));
        read.extend(polled.and_then(|record| Some(record.unwrap().payload()?.to_vec())));
    }
    read
}

/// In the topic of the decisions, in its turn, and once.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_opa_or_the_door_lost_is_told_to_the_join() {
    let mock = Mock::start(&[("logs", 1), ("rejects", 1)]).unwrap();
    let at = door(&mock, false).open(&CancellationToken::new()).unwrap();
    let status = |dropped: u32| {
        let count = format!(r#""counter_decision_logs_dropped_rate_limit_exceeded":{dropped}"#);
        let text = format!(r#"{{"labels":{{"id":"o"}},"metrics":{{"prometheus":{{{count}}}}}}}"#);
        status::Status::parse(text.as_bytes(), "app", "id").unwrap()
    };
    let before = now();
    for dropped in [0, 7, 7, 9] {
        at.lost_by(&status(dropped)).await.unwrap();
        at.door.counts.status.tell(status(dropped), Instant::now());
    }
    let reject = Reject::new(Reason::TooLarge, "it is");
    at.reject(&reject, b"[]", 0).await.unwrap();
    let read = written(&mock, 3);
    let told: Vec<Missing> = read.iter().map(|line| Missing::of_line(line).unwrap()).collect();
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|one| before <= one.from && one.from <= one.to), "{told:?}");
    // Since the status before.
    assert!(told[0].from < told[0].to && told[1].from > told[0].from, "{told:?}");
    assert_eq!(told[2].from, told[2].to);
}
