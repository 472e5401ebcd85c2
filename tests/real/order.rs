//! A backlog on many partitions and a slow sink: each partition moves, in the order of time.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::json;

use super::support::{Place, Running, Source};
use super::{address, pipeline};

const PARTITIONS: i32 = 12;

/// Takes everything, in its own time.
async fn slow_loki() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let push = axum::routing::post(|| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        StatusCode::NO_CONTENT
    });
    let router = axum::Router::new()
        .route("/loki/api/v1/push", push)
        .layer(axum::extract::DefaultBodyLimit::disable());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_backlog_every_partition_moves() {
    let _servers = super::together().await;
    let place = Place::new("order");
    let (kafka, name) = (address("KAFKA_BOOTSTRAP"), place.name.clone());
    let delivery = "delivery: {batch_records: 300, concurrency: 1}";
    let rest = format!(
        "docket: {{partitions: {PARTITIONS}}}\nsinks:\n  slow: {{type: loki, url: \"{}\", {delivery}}}\n",
        slow_loki().await
    );
    let path = pipeline(&place, PARTITIONS, &rest).await;
    // Of each partition more than a fetch brings, an hour of it.
    let each = 1_500;
    let noise = || (0..40).map(|_| format!("{:032x}", rand::random::<u128>())).collect::<String>();
    let source = Source::new(&kafka, &format!("{name}-source"));
    let start = docket::clock::now() - 3_600_000_000_000;
    for i in 0..each * PARTITIONS {
        let at = start + i64::from(i) * 3_600_000_000_000 / i64::from(each * PARTITIONS);
        let decision = json!({
            "decision_id": format!("d-{i}"), "labels": {"app": "a"}, "path": "a/allow", "result": true,
            "input": {"noise": noise()}, "timestamp": docket::decision::time::format(at),
        });
        source.write_to(i % PARTITIONS, &decision.to_string());
    }
    source.flush();
    let total = (each * PARTITIONS) as u64;
    let intake = Running::start_with(&place, &path, &["--only", "intake"]);
    intake.until("all is in the docket", 60, |m| m.written() == total).await;
    intake.stop();
    let records = super::support::read_all(&kafka, &format!("docket.{name}"));
    assert_eq!(records.len() as u64, total);

    let sink = Running::start_with(&place, &path, &["--only", "sink:slow"]);
    let half =
        sink.until("half of it is delivered", 60, |m| m.delivered("slow") >= total / 2).await;
    let delivered = half.delivered("slow");
    // Offsets are told each second.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    let later = sink.metrics().await;
    assert!(delivered < total * 4 / 5, "too fast to tell: {delivered} of {total}");
    for partition in 0..PARTITIONS {
        let labels = ["part=\"slow\"".to_owned(), format!("partition=\"{partition}\"")];
        let labels = labels.each_ref().map(String::as_str);
        let done = later.sum("docket_offset", &labels);
        // Each has about as many: by trace, or without one by decision ID.
        assert!(
            done > each as u64 / 3,
            "partition {partition} stands at {done}\n{}",
            later.docket()
        );
    }
    sink.until("all of it is delivered", 60, |m| m.delivered("slow") == total).await;
    sink.stop();
}

/// What was sent before a start is read back of all partitions at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_sink_of_a_hundred_partitions_starts_at_once() {
    let _servers = super::together().await;
    let place = Place::new("cold");
    let (kafka, name) = (address("KAFKA_BOOTSTRAP"), place.name.clone());
    let rest = "docket: {partitions: 100}
sinks:
  lines: {type: file, path: $DIR/lines.ndjson}
";
    let path = pipeline(&place, 1, rest).await;
    let source = Source::new(&kafka, &format!("{name}-source"));
    let begun = docket::clock::now();
    let write = |from: u64, to: u64| {
        // The same again is a repeat.
        let decision = |i: u64| {
            let at = docket::decision::time::format(begun + i as i64);
            let labels = json!({"app": "a"});
            json!({"decision_id": format!("d-{i}"), "labels": labels, "path": "a/allow", "result": true, "timestamp": at})
        };
        source.write((from..to).map(|i| decision(i).to_string()));
    };
    write(0, 3_000);
    let first = Running::start(&place, &path);
    first.until("all is delivered", 60, |m| m.delivered("lines") == 3_000).await;
    first.stop();
    // Repeats of what was sent before, and as many that are new.
    write(2_000, 4_000);
    let intake = Running::start_with(&place, &path, &["--only", "intake"]);
    intake.until("it is in the docket", 60, |m| m.written() == 2_000).await;
    intake.stop();

    let again = Running::start_with(&place, &path, &["--only", "sink:lines"]);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !again.log().contains("partitions assigned") {
        assert!(Instant::now() < deadline, "{}", again.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let assigned = Instant::now();
    again.until("the first is delivered", 30, |m| m.delivered("lines") > 0).await;
    let took = assigned.elapsed();
    println!("{} ms to the first delivery", took.as_millis());
    assert!(took < Duration::from_secs(4), "{took:?}\n{}", again.log());
    let all =
        again.until("the new ones are delivered", 30, |m| m.delivered("lines") == 1_000).await;
    let repeats = ["sink=\"lines\"", "outcome=\"repeat\""];
    assert_eq!(all.sum("docket_sink_records_total", &repeats), 1_000);
    again.stop();
}
