//! The parts of a pipeline: changed while they run, in processes of their own.

use std::time::Duration;

use serde_json::json;

use super::delivery::{feed, signal, times, verified};
use super::support::{Place, Running, create_topic, docket, generated, produce};
use super::{address, count, init, pipeline};

/// A changed file is taken up without a gap; a broken one is refused with its errors.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_pipeline_file_is_taken_up_while_it_runs() {
    let _servers = super::together().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("reload");
    let name = place.name.clone();
    let text = |more: &str| {
        format!(
            "name: $NAME
kafka: {{brokers: \"{kafka}\"}}
sources: [{{topic: $NAME-source}}]
docket: {{partitions: 2}}
sinks:
  search: {{type: elasticsearch, url: \"{}\", index: $NAME}}
{more}",
            address("OPENSEARCH_URL")
        )
    };
    let pipeline = place.pipeline(&text(""));
    init();
    create_topic(&kafka, &format!("{name}-source"), 2, &[]).await;
    assert!(docket().args(["setup", "--yes"]).arg(&pipeline).status().unwrap().success());
    let running = Running::start(&place, &pipeline);
    let total = 20_000;
    let feeding =
        feed(&kafka, &format!("{name}-source"), generated(total, 8), Duration::from_secs(16));
    tokio::time::sleep(Duration::from_secs(3)).await;
    // A second sink, by itself; it begins with what was there before.
    place.pipeline(&text("  file: {type: file, path: \"$DIR/out.ndjson\"}\n"));
    running.until("the new sink delivers", 20, |m| m.delivered("file") > 0).await;
    // A broken file, on SIGHUP.
    std::fs::write(&pipeline, "name: [\n").unwrap();
    signal(running.pid(), "-HUP");
    running
        .until("the broken file is refused", 10, |m| {
            m.sum("docket_reloads_total", &["outcome=\"refused\""]) >= 1
        })
        .await;
    assert!(running.log().contains("pipeline.yaml:"), "{}", running.log());
    // Another rule for verdicts, and other batches.
    let changed = text(
        "  file: {type: file, path: \"$DIR/out.ndjson\", delivery: {batch_records: 100}}\nverdict: [{path: \"nothing/**\", pointer: /x}]\n",
    );
    place.pipeline(&changed);
    running
        .until("the changed file is in force", 20, |m| {
            m.sum("docket_reloads_total", &["outcome=\"applied\""]) >= 2
        })
        .await;
    assert!(running.log().contains("intake, file"), "{}", running.log());
    feeding.join().unwrap();
    running
        .until("all delivered", 60, |m| {
            m.delivered("search") == total as u64 && m.delivered("file") == total as u64
        })
        .await;
    let seen = times(&kafka, &format!("docket.{name}"));
    assert_eq!((seen.len(), seen.values().filter(|n| **n > 1).count()), (total, 0));
    let lines = std::fs::read_to_string(place.path("out.ndjson")).unwrap();
    assert_eq!(lines.lines().count(), total);
    running.stop();
}

/// Intake in one process, each sink in another: together they do what one does.
#[tokio::test(flavor = "multi_thread")]
async fn parts_run_in_processes_of_their_own_and_repeats_are_sent_once() {
    let _servers = super::together().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("roles");
    let name = place.name.clone();
    let pipeline = pipeline(
        &place,
        2,
        &format!(
            "docket: {{partitions: 2}}
sinks:
  search: {{type: elasticsearch, url: \"{}\", index: $NAME}}
  file: {{type: file, path: \"$DIR/out.ndjson\", delivery: {{max_age: 30d, too_old: archive}}}}
  archive: {{type: file, path: \"$DIR/old.ndjson\", delivery: {{only_routed: true}}}}
",
            address("OPENSEARCH_URL")
        ),
    )
    .await;
    let start = |only: &str| Running::start_with(&place, &pipeline, &["--only", only]);
    let (intake, search, file) = (start("intake"), start("sink:search"), start("sink:file"));
    let mut decisions = generated(2_000, 4);
    let old = r#"{"decision_id":"old","path":"a/allow","result":true,"timestamp":"2020-01-01T00:00:00Z"}"#;
    decisions.push(old.into());
    produce(&kafka, &format!("{name}-source"), &decisions);
    file.until("all delivered", 60, |m| m.delivered("file") == 2_000).await;
    search.until("all delivered", 60, |m| m.delivered("search") == 2_001).await;
    assert_eq!(intake.metrics().await.written(), 2_001);
    assert_eq!(search.metrics().await.written(), 0);
    // The same again, after a restart: the window is read back from the docket.
    file.stop();
    let file = start("sink:file");
    produce(&kafka, &format!("{name}-source"), &decisions);
    file.until("repeats are told apart", 60, |m| {
        m.sum("docket_sink_records_total", &["sink=\"file\"", "outcome=\"repeat\""]) == 2_001
    })
    .await;
    search.until("all again", 60, |m| m.delivered("search") == 4_002).await;
    assert_eq!(count(&name, json!({ "match_all": {} })).await, 2_001);
    assert_eq!(std::fs::read_to_string(place.path("out.ndjson")).unwrap().lines().count(), 2_000);
    let archived = std::fs::read_to_string(place.path("old.ndjson")).unwrap();
    assert!(
        archived.lines().count() == 1 && archived.contains("\"decision_id\":\"old\""),
        "{archived}"
    );
    let (report, complete) = verified(&pipeline, &[]);
    assert!(complete, "{report}");
    for running in [intake, search, file] {
        running.stop();
    }
    let wrong = docket().args(["run", "--only", "sink:lokki"]).arg(&pipeline).output().unwrap();
    assert!(
        String::from_utf8_lossy(&wrong.stderr)
            .contains("there is no sink \"lokki\"; there are archive, file, search")
    );
}
