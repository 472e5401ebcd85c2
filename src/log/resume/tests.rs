use super::*;

#[test]
fn ids_are_taken_out_of_the_log() {
    let ids = TopicIds::default();
    let none = "AAAAAAAAAAAAAAAAAAAAAA";
    let says = |topic: &str, was: &str, is: &str| {
        ids.logged(&format!("[thrd:main]: Topic {topic} changed id from {was} to {is}"))
    };
    assert_eq!(says("a.b", none, "x5Gd-_0AAAAAAAAAAAAAAA"), None, "it had none");
    assert_eq!(ids.get("a.b").as_deref(), Some("x5Gd-_0AAAAAAAAAAAAAAA"));
    assert_eq!(says("a.b", "x", "x5Gd-_0AAAAAAAAAAAAAAA"), None, "the same");
    assert_eq!(says("a.b", "x", "y").as_deref(), Some("a.b"));
    assert_eq!(says("a.b", "y", none), None, "a broker that says none");
    assert_eq!(ids.get("a.b").as_deref(), Some("y"));
    assert_eq!(ids.logged("[thrd:main]: Topic a [0] Leader 1 Epoch 0"), None);
}

fn resuming(mock: &crate::log::mock::Mock) -> (Resuming, TopicPartitionList) {
    let kafka = Kafka { brokers: mock.bootstrap(), properties: BTreeMap::new() };
    let reading = Reading {
        kafka: &kafka,
        part: "intake",
        group: "docket.x.intake",
        topics: &["source"],
        start: Start::Latest,
        writes: None,
        stops_at_gaps: false,
        instance_id: None,
        prefetch: 1 << 20,
        shared: None,
        together: false,
        time: |_| None,
    };
    let mut assigned = TopicPartitionList::new();
    assigned.add_partition("source", 0);
    (Resuming::new(&reading, Arc::default()), assigned)
}

/// A sink whose group is gone looks like a new one.
#[test]
fn what_a_start_at_the_end_leaves_out_is_told_once() {
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    let mock = crate::log::mock::Mock::start(&[("source", 1)]).unwrap();
    let (resuming, assigned) = resuming(&mock);
    let begin = |_: &TopicPartitionList| Ok(());
    let begins = || resuming.assigned(&assigned, &begin).elements()[0].offset();
    assert_eq!(begins(), Offset::Offset(0));
    assert!(resuming.take_skipped().is_empty(), "nothing is there");
    let mut config = ClientConfig::new();
    let producer: BaseProducer =
        config.set("bootstrap.servers", mock.bootstrap()).create().unwrap();
    for _ in 0..3 {
        let record = BaseRecord::<str, str>::to("source").partition(0).payload("x");
        producer.send(record).map_err(|(e, _)| e).unwrap();
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    assert_eq!(begins(), Offset::Offset(3));
    assert_eq!(resuming.take_skipped(), [("source".to_owned(), 3)].into());
    assert!(resuming.take_skipped().is_empty());
}

/// A group that has read and is killed would begin at a later end, and nobody would know of what is between.
#[test]
fn nothing_is_read_from_a_start_that_is_not_committed() {
    let mock = crate::log::mock::Mock::start(&[("source", 1)]).unwrap();
    let (resuming, assigned) = resuming(&mock);
    let refused = KafkaError::ConsumerCommit(RDKafkaErrorCode::CoordinatorNotAvailable);
    let tries = std::cell::Cell::new(0);
    let begin = |_: &TopicPartitionList| {
        tries.set(tries.get() + 1);
        if tries.get() > 2 * TRIES { Ok(()) } else { Err(refused.clone()) }
    };
    let list = resuming.assigned(&assigned, &begin);
    assert_eq!(tries.get(), 2 * TRIES + 1, "as long as it takes");
    assert_eq!(list.elements()[0].offset(), Offset::Offset(0));
    assert_eq!(resuming.check(), Ok(()));

    // A Kafka that never takes it: the part fails, is told, and is begun again.
    let list = resuming.assigned_within(Duration::ZERO, &assigned, &|_| Err(refused.clone()));
    assert_eq!(list.elements()[0].offset(), Offset::Invalid, "nothing to read from");
    let why = resuming.check().unwrap_err().to_string();
    assert!(why.contains("committed") && why.contains("CoordinatorNotAvailable"), "{why}");
}
