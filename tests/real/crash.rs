//! Intake is exactly once: killed with SIGKILL at twenty moments under load, with rebalances between two
//! instances, the docket holds each decision once, and so does OpenSearch. What other sinks hold twice is told.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;

use super::logs::{self, LogStore};
use super::support::{Place, Running, Source, create_topic, docket, generated, read_all};
use super::{address, count, init};

#[tokio::test(flavor = "multi_thread")]
async fn killed_under_load_every_decision_is_in_the_docket_once() {
    let _servers = super::together().await;
    init();
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("crash");
    let name = place.name.clone();
    let stores = LogStore::all().await;
    // Small transactions, so that a kill hits one.
    let pipeline = place.pipeline(&format!(
        "name: $NAME
kafka: {{brokers: \"{kafka}\", properties: {{session.timeout.ms: 6000}}}}
sources: [{{topic: $NAME-source}}]
intake: {{transaction_interval: 50ms, transaction_bytes: 200KiB}}
docket: {{partitions: 4}}
sinks:
  search: {{type: elasticsearch, url: \"{}\", index: $NAME, delivery: {{batch_records: 500}}}}
{}  file: {{type: file, path: \"$DIR/out.ndjson\", delivery: {{batch_records: 500}}}}
",
        address("OPENSEARCH_URL"),
        logs::sinks(&stores, "labels: {run: \"=$NAME\"}, delivery: {batch_records: 500}")
    ));
    create_topic(&kafka, &format!("{name}-source"), 4, &[]).await;
    assert!(docket().args(["setup", "--yes"]).arg(&pipeline).status().unwrap().success());
    let total = 30_000;
    let decisions = generated(total, 13);
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let producer = {
        let (source, decisions) =
            (Source::new(&kafka, &format!("{name}-source")), decisions.clone());
        tokio::task::spawn_blocking(move || {
            for chunk in decisions.chunks(500) {
                source.write(chunk);
                std::thread::sleep(Duration::from_millis(700));
            }
        })
    };
    let mut instances = vec![Running::start(&place, &pipeline), Running::start(&place, &pipeline)];
    let mut state = seed;
    for round in 0..20 {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        tokio::time::sleep(Duration::from_millis(300 + (state >> 33) % 3000)).await;
        instances.remove(round % 2).kill();
        instances.push(Running::start(&place, &pipeline));
    }
    producer.await.unwrap();

    let deadline = std::time::Instant::now() + Duration::from_secs(150);
    while count(&name, json!({ "match_all": {} })).await < total as u64 {
        assert!(
            std::time::Instant::now() < deadline,
            "seed {seed}: {} documents\n{}",
            count(&name, json!({ "match_all": {} })).await,
            instances[0].log()
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // The file and the log stores get what the killed instances had in flight once more.
    let out = docket()
        .args(["verify", "--from", "start", "--settle", "90s", "--json"])
        .arg(&pipeline)
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    for sink in report["sinks"].as_array().unwrap() {
        let n = |what: &str| sink[what].as_array().unwrap().len();
        println!(
            "seed {seed}: {}: {} of {total} present, {} more than once",
            sink["sink"],
            sink["present"],
            n("repeated")
        );
        assert_eq!(
            (sink["present"].as_u64().unwrap(), n("missing"), n("altered")),
            (total as u64, 0, 0),
            "seed {seed}: {}",
            sink["sink"]
        );
        assert!(sink["sink"] != "search" || n("repeated") == 0, "seed {seed}: {}", sink["sink"]);
    }
    for instance in instances {
        instance.stop();
    }
    let mut seen: HashMap<String, u32> = HashMap::new();
    for record in read_all(&kafka, &format!("docket.{name}")) {
        *seen.entry(record.json()["decision_id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let repeated = seen.values().filter(|n| **n > 1).count();
    assert_eq!(
        (seen.len(), repeated),
        (total, 0),
        "seed {seed}: distinct decisions in the docket, and repeated ones"
    );
    assert_eq!(count(&name, json!({ "match_all": {} })).await, total as u64, "seed {seed}");
    assert!(read_all(&kafka, &format!("docket.{name}.rejects")).is_empty());
}
