//! Intake is exactly once: killed with SIGKILL at twenty moments under load, with rebalances between two
//! instances, the docket holds each decision once, and so does OpenSearch. What other sinks hold twice is told.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::json;

use super::support::{Place, Running, create_topic, docket, generated, produce, read_all};
use super::{address, count, init, loki_lines};

#[tokio::test(flavor = "multi_thread")]
async fn killed_under_load_every_decision_is_in_the_docket_once() {
    init();
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("crash");
    let name = place.name.clone();
    // Small transactions, so that a kill hits one.
    let pipeline = place.pipeline(&format!(
        "name: $NAME
kafka: {{brokers: \"{kafka}\", properties: {{session.timeout.ms: 6000}}}}
sources: [{{topic: $NAME-source}}]
intake: {{transaction_interval: 50ms, transaction_bytes: 200KiB}}
docket: {{partitions: 4}}
sinks:
  search: {{type: elasticsearch, url: \"{}\", index: $NAME, delivery: {{batch_records: 500}}}}
  loki: {{type: loki, url: \"{}\", labels: {{run: \"=$NAME\"}}, delivery: {{batch_records: 500}}}}
  file: {{type: file, path: \"$DIR/out.ndjson\", delivery: {{batch_records: 500}}}}
",
        address("OPENSEARCH_URL"),
        address("LOKI_URL")
    ));
    create_topic(&kafka, &format!("{name}-source"), 4, &[]).await;
    assert!(docket().arg("setup").arg(&pipeline).status().unwrap().success());
    let total = 30_000;
    let decisions = generated(total, 13);
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let producer = {
        let (kafka, topic, decisions) = (kafka.clone(), format!("{name}-source"), decisions.clone());
        tokio::task::spawn_blocking(move || {
            for chunk in decisions.chunks(500) {
                produce(&kafka, &topic, chunk);
                std::thread::sleep(Duration::from_millis(700));
            }
        })
    };
    let mut instances = vec![Running::start(&place, &pipeline), Running::start(&place, &pipeline)];
    let mut state = seed;
    for round in 0..20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        tokio::time::sleep(Duration::from_millis(300 + (state >> 33) % 3000)).await;
        instances.remove(round % 2).kill();
        instances.push(Running::start(&place, &pipeline));
    }
    producer.await.unwrap();

    let deadline = std::time::Instant::now() + Duration::from_secs(150);
    let lines = || std::fs::read_to_string(place.path("out.ndjson")).unwrap_or_default();
    let written = || lines().lines().filter_map(|l| l.split("\"decision_id\":\"").nth(1)?.split('"').next().map(str::to_owned)).collect::<HashSet<String>>();
    loop {
        let found = (count(&name, json!({ "match_all": {} })).await, written().len(), loki_lines(&format!("{{run=\"{name}\"}}")).await.len());
        if found.0 >= total as u64 && found.1 >= total && found.2 >= total {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "seed {seed}: OpenSearch, file and Loki hold {found:?}\n{}", instances[0].log());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let in_loki = loki_lines(&format!("{{run=\"{name}\"}}")).await.len();
    println!("seed {seed}: repeats in the file {}, in Loki {}", lines().lines().count() - total, in_loki - total);
    for instance in instances {
        instance.stop();
    }
    let mut seen: HashMap<String, u32> = HashMap::new();
    for record in read_all(&kafka, &format!("docket.{name}")) {
        *seen.entry(record.json()["decision_id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let repeated = seen.values().filter(|n| **n > 1).count();
    assert_eq!((seen.len(), repeated), (total, 0), "seed {seed}: distinct decisions in the docket, and repeated ones");
    assert_eq!(count(&name, json!({ "match_all": {} })).await, total as u64, "seed {seed}");
    assert!(read_all(&kafka, &format!("docket.{name}.rejects")).is_empty());
}
