//! What is too old goes to another sink, and that one is down: it holds up what is for it, and nothing else.

use std::collections::BTreeSet;

use serde_json::json;

use super::support::proxy::{Fault, Proxy};
use super::support::{Metrics, Place, Running, Source, decision_id};
use super::{address, count, pipeline};

fn decision(id: &str, at: jiff::Timestamp) -> String {
    format!(r#"{{"decision_id":"{id}","path":"a/allow","result":true,"timestamp":"{at}"}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_for_what_is_too_old_that_is_down_holds_up_nothing_else() {
    let _servers = super::together().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("fallback");
    let name = place.name.clone();
    let proxy = Proxy::start(&address("OPENSEARCH_URL")).await;
    let path = pipeline(
        &place,
        1,
        &format!(
            "docket: {{partitions: 1}}
sinks:
  out: {{type: file, path: $DIR/out, delivery: {{batch_records: 50, batch_age: 50ms, max_age: 1d, too_old: archive}}}}
  archive: {{type: elasticsearch, url: \"{}\", index: $NAME, delivery: {{only_routed: true, retry_initial: 50ms, retry_max: 300ms}}}}
",
            proxy.url
        ),
    )
    .await;
    proxy.set(Fault::Status(503, ""));
    let now = jiff::Timestamp::now();
    let then = now - jiff::SignedDuration::from_hours(72);
    let source = Source::new(&kafka, &format!("{name}-source"));
    // Old ones among new ones, in many batches.
    let write = |numbers: std::ops::Range<usize>| {
        source.write(numbers.map(|i| match i % 10 {
            0 => decision(&format!("old-{i}"), then),
            _ => decision(&format!("new-{i}"), now),
        }));
    };
    let there = || -> BTreeSet<String> {
        let text = std::fs::read_to_string(place.path("out")).unwrap_or_default();
        text.lines().map(decision_id).collect()
    };
    let has = |new: usize| move |m: &Metrics| m.delivered("out") == new as u64;
    let running = Running::start(&place, &path);
    write(0..500);
    running.until("the new ones are delivered", 30, has(450)).await;
    // And it goes on, however long the other is away.
    write(500..1000);
    let metrics = running.until("the new ones go on", 30, has(900)).await;
    assert!(proxy.faulted() > 3, "{} requests met the outage", proxy.faulted());
    assert_eq!(
        (
            metrics.sum("docket_rejects_total", &[]),
            metrics.sum("docket_sink_failing", &["archive"])
        ),
        (0, 1),
        "{}",
        metrics.docket()
    );
    assert_eq!(there().len(), 900);
    // Killed meanwhile: what is not in the archive yet is still to be sent.
    running.kill();
    let running = Running::start(&place, &path);
    write(1000..1100);
    // What is sent again is told as a repeat, or written again.
    super::support::until("the new ones go on after the kill", 60, async || {
        let n = there().len();
        if n == 990 { Ok(()) } else { Err(format!("{n} of 990\n{}", running.log())) }
    })
    .await;
    assert_eq!(running.metrics().await.sum("docket_sink_records_total", &["too_old"]), 0);

    proxy.set(Fault::None);
    let metrics = running
        .until("the old ones are in the archive", 60, |m| {
            m.sum("docket_sink_records_total", &["sink=\"out\"", "outcome=\"too_old\""]) == 110
        })
        .await;
    assert_eq!(metrics.sum("docket_rejects_total", &[]), 0);
    assert_eq!(count(&name, json!({ "match_all": {} })).await, 110);
    running
        .until("nothing is left", 30, |m| m.sum("docket_lag_records", &["part=\"out\""]) == 0)
        .await;
    assert!(there().iter().all(|id| id.starts_with("new-")));
    running.stop();
}
