//! Rejects that hold no bytes: their records are fetched from their topic, unless retention took them or the topic was made again.

use rdkafka::admin::AdminOptions;
use rdkafka::{Offset, TopicPartitionList};

use super::support::{Place, Running, admin, create_topic, generated, produce, read_all, said};
use super::{address, pipeline};

#[tokio::test(flavor = "multi_thread")]
async fn rejects_whose_records_are_gone_are_named_and_the_others_are_sent() {
    let _servers = super::together().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("withheld");
    let name = place.name.clone();
    let sinks = "sinks:
  file: {type: file, path: $DIR/out.ndjson}
protect: {rules: [{path: /input/token, action: erase}]}
";
    let pipeline = pipeline(&place, 1, sinks).await;
    let source = format!("{name}-source");
    let running = Running::start(&place, &pipeline);
    let bad = |i: usize| format!(r#"{{"decision_id":"bad-{i}","path":"a","n": {i}}}"#);
    let mut records = generated(5_000, 3);
    for (place, i) in [(0, 0), (10, 1), (2_500, 2), (4_990, 3)] {
        records.insert(place, bad(i));
    }
    produce(&kafka, &source, &records);
    running.until("four rejects", 60, |m| m.rejected() == 4 && m.delivered("file") == 5_000).await;
    running.stop();
    let run = |args: &[&str]| said(&pipeline, args);
    // Retention takes the first two.
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&source, 0, Offset::Offset(20)).unwrap();
    admin(&kafka).delete_records(&before, &AdminOptions::new()).await.unwrap();
    let dry = tokio::task::block_in_place(|| run(&["redrive"]));
    assert!(
        dry.contains("2 rejects not sent: retention has taken the records")
            && dry.contains("would be sent: 2 to intake"),
        "{dry}"
    );
    let sent = tokio::task::block_in_place(|| run(&["redrive", "--send"]));
    assert!(sent.contains("2 rejects not sent") && sent.contains("intake: 2 sent"), "{sent}");
    let values = read_all(&kafka, &source);
    let times = |i| values.iter().filter(|r| r.value == bad(i).as_bytes()).count();
    assert_eq!((times(2), times(3)), (2, 2));

    // The topic is made again, with other records at these places.
    admin(&kafka).delete_topics(&[&source], &AdminOptions::new()).await.unwrap();
    let told = tokio::task::block_in_place(|| run(&["redrive", "--send"]));
    assert!(told.contains("is not there any more") && !told.contains("intake:"), "{told}");
    create_topic(&kafka, &source, 1, &[]).await;
    produce(&kafka, &source, generated(11, 4));
    let told = tokio::task::block_in_place(|| run(&["redrive", "--send", "--again"]));
    assert!(told.contains("ends before the place") && told.contains("another record"), "{told}");
    assert_eq!(read_all(&kafka, &source).len(), 11, "nothing else was sent");
}
