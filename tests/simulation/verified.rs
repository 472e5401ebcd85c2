//! What `docket verify` says of worlds at their end, when their topics stand in a Kafka and what a sink has in a file: that they are
//! complete; and where a decision is then taken out of the docket or of a sink, which one it is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use docket::decision::record::Record;
use docket::log::headers;
use docket::log::mock::Mock;
use docket::log::scan::ScanBound;
use docket::pipeline::{self, Pipeline};
use docket::sink::Sink;
use docket::sink::config::SinkConfig;
use docket::verify::run::{Outcome, Verified, verify};
use docket::verify::scope::{Scope, Watch};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::settings::PIPELINE;
use super::world::{self, World};
use super::{DOCKET, Ended, REJECTS, SOURCE, decision_id};

struct Silent;

impl Watch for Silent {
    fn begin(&self, _what: &str, _total: u64) {}
    fn step(&self, _n: u64) {}
    fn end(&self) {}
}

type Records = Vec<(i32, world::Record)>;
/// By sink, under each id what is stored there.
type Stored = BTreeMap<String, BTreeMap<String, BTreeSet<Vec<u8>>>>;

/// Asks about one world, whole and with losses of its own. What was wrong with the answers.
pub fn judged(ended: &Ended, seed: u64) -> Vec<String> {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x7e21f);
    let world = ended.world.lock();
    let docket = world.committed(DOCKET);
    let stored: Stored = world.stored.iter().map(|(sink, ids)| (sink.clone(), each(ids))).collect();
    let mut wrong = Vec::new();

    let whole = ask(ended, &world, &docket, &stored);
    if whole.outcome() != Outcome::Complete || !lost(&whole).is_empty() {
        wrong.push(format!("a complete world is {}", told(&whole)));
    }

    let firsts = if ended.latest { firsts(&docket) } else { BTreeSet::new() };
    let known = |id: &String| !ended.input.reused.contains(id) && !firsts.contains(id);
    let mut ids: Vec<String> =
        docket.iter().map(|(_, record)| decision_id(&record.value)).collect();
    ids.retain(known);
    ids.sort();
    ids.dedup();
    let gone = ids.swap_remove(rng.random_range(0..ids.len()));
    ids.retain(|id| stored["whole"].contains_key(id));
    let missing = ids.swap_remove(rng.random_range(0..ids.len()));
    let mut less = docket;
    less.retain(|(_, record)| decision_id(&record.value) != gone);
    let mut fewer = stored;
    fewer.get_mut("whole").unwrap().remove(&missing);
    let lossy = ask(ended, &world, &less, &fewer);
    if lossy.outcome() != Outcome::Gap || lost(&lossy) != [gone.as_str()] {
        wrong.push(format!("without {gone} in the docket it is {}", told(&lossy)));
    }
    let of_sinks: Vec<(&str, &Vec<String>)> = lossy
        .sinks
        .iter()
        .filter(|sink| sink.gaps > 0)
        .map(|sink| (sink.sink.as_str(), &sink.compared.missing.listed))
        .collect();
    if of_sinks != [("whole", &vec![missing.clone()])] {
        wrong.push(format!("without {missing} in whole it is {}", told(&lossy)));
    }
    wrong
}

/// The first decisions that came from each partition of the source: where a group begins at the end, they alone say where that was.
fn firsts(docket: &Records) -> BTreeSet<String> {
    let mut firsts: BTreeMap<i32, (i64, Vec<String>)> = BTreeMap::new();
    for (_, record) in docket {
        let source = record.headers.iter().find(|(key, _)| key == headers::SOURCE).unwrap();
        let origin = headers::place(std::str::from_utf8(&source.1).unwrap()).unwrap();
        let first = firsts.entry(origin.partition).or_insert((origin.offset, Vec::new()));
        if origin.offset < first.0 {
            *first = (origin.offset, Vec::new());
        }
        if origin.offset == first.0 {
            first.1.push(decision_id(&record.value));
        }
    }
    firsts.into_values().flat_map(|(_, ids)| ids).collect()
}

fn each(ids: &BTreeMap<String, Vec<Vec<u8>>>) -> BTreeMap<String, BTreeSet<Vec<u8>>> {
    ids.iter().map(|(id, copies)| (id.clone(), copies.iter().cloned().collect())).collect()
}

fn lost(verified: &Verified) -> Vec<&str> {
    let ids = verified.source.iter().flat_map(|source| &source.report.compared.missing.listed);
    ids.map(String::as_str).collect()
}

fn told(verified: &Verified) -> String {
    let source = serde_json::to_string(&verified.source).unwrap();
    format!(
        "{:?}: {source}, {}",
        verified.outcome(),
        serde_json::to_string(&verified.sinks).unwrap()
    )
}

/// Puts all of it where verify looks for it, and asks.
fn ask(ended: &Ended, world: &World, docket: &Records, stored: &Stored) -> Verified {
    let (source, rejects) = (world.committed(SOURCE), world.committed(REJECTS));
    let [sources, partitions] = [SOURCE, DOCKET].map(|topic| world.partitions(topic));
    let topics = [(SOURCE, sources), (DOCKET, partitions), (REJECTS, world.partitions(REJECTS))];
    let mock = Mock::start(&topics).unwrap();
    let kafka = mock.bootstrap();
    // The world's clock has run ahead of this one, and nobody waits for what may still come.
    let newest = docket.iter().map(|(_, record)| record.written).max().unwrap_or(0);
    let ahead = (newest - docket::clock::now()).max(0);
    for (topic, records) in [(SOURCE, &source), (DOCKET, docket), (REJECTS, &rejects)] {
        produce(&kafka, topic, records, ahead);
    }
    has_finished(&kafka, "intake", SOURCE, sources, &source);
    for sink in ["whole", "items", "once"] {
        has_finished(&kafka, sink, DOCKET, partitions, docket);
    }
    let place =
        std::env::temp_dir().join(format!("docket-simulated-{:016x}", rand::random::<u64>()));
    std::fs::create_dir_all(&place).unwrap();
    let pipeline = pipeline(&place, &kafka, ended.latest);
    for (name, config) in &pipeline.file.sinks {
        let SinkConfig::File(file) = config else { panic!("{name} is no file") };
        let none = BTreeMap::new();
        let copies = stored.get(name).unwrap_or(&none).values().flatten();
        let records: Vec<Record<'_>> = copies.map(|copy| Record::parse(copy).unwrap()).collect();
        let lines = docket::sink::file::File::new(file).encode(&records);
        std::fs::File::create(&file.path).unwrap().write_all(&lines).unwrap();
    }
    let scope = Scope {
        from: ScanBound::Start,
        until: ScanBound::End,
        sinks: Vec::new(),
        sample: 1000,
        settle: Duration::ZERO,
        source: true,
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let verified = runtime.unwrap().block_on(verify(&pipeline, &scope, &Silent)).unwrap();
    std::fs::remove_dir_all(&place).unwrap();
    verified
}

fn pipeline(place: &Path, kafka: &str, latest: bool) -> Pipeline {
    let mut text = PIPELINE.replace("nowhere", &format!("\"{kafka}\""));
    if latest {
        text = text.replace("intake: {", "intake: {start: latest, ");
    }
    for file in ["x", "y", "z", "o"] {
        let path = place.join(file);
        text = text.replace(&format!("path: {file}"), &format!("path: {}", path.display()));
    }
    let path = PathBuf::from("simulated.yaml");
    pipeline::parse(&path, &text, &docket::config::secrets::Real)
        .map_err(|e| e.to_string())
        .unwrap()
}

fn produce(kafka: &str, topic: &str, records: &Records, ahead: i64) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("enable.idempotence", "true")
        .create()
        .unwrap();
    for (partition, record) in records {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let one = BaseRecord::<[u8], [u8]>::to(topic)
            .partition(*partition)
            .payload(record.value.as_slice())
            .headers(headers)
            .timestamp((record.written - ahead) / 1_000_000);
        producer.send(one).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

/// A part has committed all of a topic.
fn has_finished(kafka: &str, part: &str, topic: &str, partitions: i32, records: &Records) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("group.id", format!("docket.sim.{part}"))
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        let end = records.iter().filter(|(p, _)| *p == partition).count() as i64;
        list.add_partition_offset(topic, partition, Offset::Offset(end)).unwrap();
    }
    consumer.assign(&list).unwrap();
    consumer.commit(&list, CommitMode::Sync).unwrap();
}
