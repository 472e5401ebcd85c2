use std::collections::BTreeMap;

use prometheus::Registry;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::*;
use crate::log::config::Start;
use crate::log::consumer::{Assignments, Group, join};
use crate::log::mock::Mock;
use crate::log::{Commits, Polled, Reader, Reading};
use crate::telemetry::Meters;

const PARTITIONS: i32 = 3;

struct Watch;

impl Assignments for Watch {
    fn assigned(&self, _: &[(String, i32)]) {}
    fn revoked(&self, _: &dyn Commits, _: &[(String, i32)], _: bool) {}
}

struct World {
    kafka: Kafka,
    meters: Arc<Meters>,
    shared: Arc<Shared>,
    producer: BaseProducer,
    _mock: Mock,
}

impl World {
    /// A ring of so many bytes.
    fn new(room: usize) -> World {
        let mock = Mock::start(&[("docket", PARTITIONS)]).unwrap();
        let kafka = Kafka { brokers: mock.bootstrap(), properties: BTreeMap::new() };
        let meters = Arc::new(Meters::new("p", &Registry::new()).unwrap());
        let settings = Settings {
            kafka: &kafka,
            group: "docket.p.reader",
            topic: "docket",
            room,
            partitions: PARTITIONS as usize,
            time: |_| None,
        };
        let holding = meters.clone();
        let shared = Arc::new(Shared::new(&settings, move || holding.holding("reader")));
        let mut config = rdkafka::ClientConfig::new();
        let producer = config.set("bootstrap.servers", mock.bootstrap()).create().unwrap();
        World { kafka, meters, shared, producer, _mock: mock }
    }

    /// Writes records with these numbers.
    fn write(&self, numbers: std::ops::Range<usize>) {
        for number in numbers {
            let payload = format!("{number:0>500}");
            let partition = number as i32 % PARTITIONS;
            let record = BaseRecord::<str, str>::to("docket").partition(partition);
            self.producer.send(record.payload(&payload)).map_err(|(e, _)| e).unwrap();
        }
        self.producer.flush(Duration::from_secs(60)).unwrap();
    }

    fn join(&self, part: &str) -> Member {
        let group = format!("docket.p.{part}");
        let reading = Reading {
            kafka: &self.kafka,
            part,
            group: &group,
            topics: &["docket"],
            start: Start::Earliest,
            writes: None,
            stops_at_gaps: false,
            instance_id: None,
            prefetch: 1 << 20,
            together: false,
            shared: Some(&self.shared),
            time: |_| None,
        };
        let group = join(&reading, Watch, self.meters.clone(), Arc::default()).unwrap();
        Member { group, got: Vec::new(), part: part.to_owned() }
    }

    fn follows(&self, member: &Member) -> i64 {
        self.meters.shared.with_label_values(&[&member.part]).get()
    }
}

struct Member {
    group: Group<Watch>,
    got: Vec<(i32, usize)>,
    part: String,
}

impl Member {
    /// Reads until it has so many records in all.
    async fn read(&mut self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.got.len() < count {
            assert!(Instant::now() < deadline, "{}: {} of {count}", self.part, self.got.len());
            let got = &mut self.got;
            let mut take = |message: &crate::log::Message<'_>| {
                let number = std::str::from_utf8(message.payload).unwrap().parse().unwrap();
                got.push((message.partition, number));
            };
            let polled = self.group.poll(Duration::from_millis(50), &mut take).await;
            assert!(matches!(polled, Ok(Polled::Message | Polled::Nothing)));
        }
    }

    /// Each record once, in order in its partition.
    fn is_whole(&self, count: usize) {
        for partition in 0..PARTITIONS {
            let got: Vec<usize> =
                self.got.iter().filter(|(p, _)| *p == partition).map(|(_, n)| *n).collect();
            let due: Vec<usize> =
                (partition as usize..count).step_by(PARTITIONS as usize).collect();
            assert_eq!(got, due, "{}, partition {partition}", self.part);
        }
    }
}

/// Reads on until something is so.
async fn until(members: &mut [&mut Member], what: &str, is: impl Fn(&[&mut Member]) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is(members) {
        assert!(Instant::now() < deadline, "{what}");
        for member in &mut *members {
            let has = member.got.len();
            let got = &mut member.got;
            let mut take = |message: &crate::log::Message<'_>| {
                let number = std::str::from_utf8(message.payload).unwrap().parse().unwrap();
                got.push((message.partition, number));
            };
            member.group.poll(Duration::from_millis(20), &mut take).await.unwrap();
            assert!(member.got.len() <= has + 1);
        }
    }
}

#[tokio::test]
async fn what_several_read_is_fetched_once_and_who_falls_off_comes_back() {
    let world = World::new(400_000);
    let (mut quick, mut slow) = (world.join("quick"), world.join("slow"));
    until(&mut [&mut quick, &mut slow], "both follow", |members| {
        members.iter().all(|m| world.follows(m) == i64::from(PARTITIONS))
    })
    .await;
    world.write(0..300);
    quick.read(300).await;
    slow.read(300).await;
    assert!(world.meters.held.with_label_values(&["reader"]).get() > 100_000);
    // More than the ring holds, in front of one of them only.
    world.write(300..3000);
    quick.read(3000).await;
    slow.read(3000).await;
    world.write(3000..3300);
    until(&mut [&mut quick, &mut slow], "both follow again", |members| {
        members.iter().all(|m| world.follows(m) == i64::from(PARTITIONS) && m.got.len() == 3300)
    })
    .await;
    quick.is_whole(3300);
    slow.is_whole(3300);
    drop((quick, slow));
    assert_eq!(world.meters.held.with_label_values(&["reader"]).get(), 0);
}

#[tokio::test]
async fn one_that_comes_later_begins_alone_and_one_that_leaves_takes_nothing_along() {
    let world = World::new(400_000);
    world.write(0..3000);
    let mut first = world.join("first");
    first.read(3000).await;
    let mut second = world.join("second");
    second.read(1000).await;
    drop(first);
    world.write(3000..4000);
    second.read(4000).await;
    second.is_whole(4000);
}

#[tokio::test]
async fn a_member_that_goes_back_reads_again_from_there() {
    let world = World::new(400_000);
    let (mut one, mut other) = (world.join("one"), world.join("other"));
    world.write(0..600);
    one.read(600).await;
    other.read(600).await;
    one.group.seek(&[("docket", 1, 100)]).unwrap();
    let has = one.got.len();
    one.read(700).await;
    let again: Vec<usize> = one.got[has..].iter().map(|(_, n)| *n).collect();
    assert_eq!(again, (301..600).step_by(3).collect::<Vec<_>>());
    other.is_whole(600);
}

#[test]
fn who_has_fallen_off_and_is_woken_has_nothing_to_look_for() {
    let world = World::new(400_000);
    let waking = Waking { ready: Arc::default(), wake: Arc::default() };
    let mut following = world.shared.follow((0, 0), None, waking.clone()).unwrap();
    world.shared.fail(&mut world.shared.lock(), 0, &KafkaError::Canceled);
    assert!(following.next().is_none() && following.gone);
    // By what still came, before it reads alone.
    waking.ready.store(true, Ordering::Release);
    assert!(following.next().is_none() && !waking.ready.load(Ordering::Acquire));
}
