//! The end of a transaction that arrives late: sent, lost on the way, sent again, and there after all when the next one is open.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::support::kafka_proxy::KafkaProxy;
use super::support::{Place, Running, create_topic, produce, read_all, until};
use super::{address, init, pipeline};

fn decision(id: &str) -> String {
    let at = jiff::Timestamp::now();
    format!(r#"{{"decision_id":"{id}","path":"a/allow","result":true,"timestamp":"{at}"}}"#)
}

/// What librdkafka does by itself: what is aborted was committed by the late request. If this fails, it has been repaired there.
#[tokio::test(flavor = "multi_thread")]
async fn the_danger_is_real() {
    let _servers = super::together().await;
    init();
    let kafka = address("KAFKA_BOOTSTRAP");
    let topic = Place::new("late-end").name;
    create_topic(&kafka, &topic, 1, &[]).await;
    let proxy = KafkaProxy::start(&kafka).await;
    let plain = proxy.clone();
    let written = topic.clone();
    let (before, go) = (std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel::<()>());
    let (open, release) = (before.0, go.0);
    let work = tokio::task::spawn_blocking(move || {
        let wait = Duration::from_secs(30);
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &plain.bootstrap)
            .set("transactional.id", &written)
            .create()
            .unwrap();
        producer.init_transactions(wait).unwrap();
        for (i, record) in ["first", "second"].iter().enumerate() {
            producer.begin_transaction().unwrap();
            producer.send(BaseRecord::<(), str>::to(&written).payload(record)).unwrap();
            producer.flush(wait).unwrap();
            if i == 0 {
                plain.hold_the_next_end();
                producer.commit_transaction(wait).unwrap();
                assert!(plain.holds());
            }
        }
        open.send(()).unwrap();
        go.1.recv().unwrap();
        let _ = producer.abort_transaction(wait);
    });
    tokio::task::spawn_blocking(move || before.1.recv().unwrap()).await.unwrap();
    let _connection = proxy.release().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    release.send(()).unwrap();
    work.await.unwrap();
    let read: Vec<String> = read_all(&kafka, &topic)
        .into_iter()
        .map(|record| String::from_utf8(record.value).unwrap())
        .collect();
    assert_eq!(read, ["first", "second"], "what was aborted can be read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_end_of_a_transaction_does_not_end_the_next_one() {
    let _servers = super::together().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let proxy = KafkaProxy::start(&kafka).await;
    let place = Place::new("late");
    let path = pipeline(
        &place,
        1,
        &format!(
            "kafka: {{brokers: \"{}\"}}\ndocket: {{partitions: 1}}\nintake: {{transaction_interval: 4s}}\nsinks: {{}}",
            proxy.bootstrap
        ),
    )
    .await;
    let (source, docket) = (format!("{}-source", place.name), format!("docket.{}", place.name));
    let running = Running::start(&place, &path);
    proxy.hold_the_next_end();
    produce(&kafka, &source, (0..10).map(|i| decision(&format!("a{i}"))));
    running.until("the first transaction is committed", 60, |m| m.written() == 10).await;
    assert!(proxy.holds(), "its end was held back and sent again");
    // The next one is open for seconds; its records are with Kafka.
    produce(&kafka, &source, (0..10).map(|i| decision(&format!("b{i}"))));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ends = proxy.ends();
    let _connection = proxy.release().await;
    until("it was committed in order", 60, async || {
        produce(&kafka, &source, [decision("c")]);
        let count = read_all(&kafka, &docket).len();
        if count > 20 { Ok(()) } else { Err(format!("{count} records, {ends} ends")) }
    })
    .await;
    let log = running.stop();
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for record in read_all(&kafka, &docket) {
        *times.entry(record.headers["docket-source"].clone()).or_default() += 1;
    }
    assert!(times.values().all(|n| *n == 1), "each stands in the docket once: {times:?}");
    assert!(log.contains("its producer is made anew"), "{log}");
    assert!(!log.contains("a part failed"), "{log}");
}
