//! The first day with docket: old samples, a reload, a restart, a scale-in, and a drill in the midst of it.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use super::pipeline;
use super::spikes::listener;
use super::support::{Metrics, Place, Running, Source, docket};

/// What is old is no silence, a reload, a restart and a scale-in are no news, and the drill is.
#[tokio::test(flavor = "multi_thread")]
async fn on_the_first_day_the_drill_alone_pages() {
    let _servers = super::together().await;
    let (webhook, got) = listener().await;
    let place = Place::new("first-day");
    let text = |floor: u32| {
        format!(
            "docket: {{partitions: 2}}\nsinks: {{metrics: {{type: metrics}}}}\nspikes: {{floor: {floor}, notify: {{webhook: {{type: webhook, url: \"{webhook}/hook\"}}}}}}\n"
        )
    };
    let path = pipeline(&place, 2, &text(10)).await;
    let kafka = super::address("KAFKA_BOOTSTRAP");
    let source = Source::new(&kafka, &format!("{}-source", place.name));
    // Eight seconds, three days ago.
    let day = 24 * 3600 * 1_000_000_000_i64;
    let decision = |at: i64, instance: &str, n: usize| {
        json!({
            "decision_id": uuid::Uuid::new_v4().to_string(), "path": "shop/allow", "result": !n.is_multiple_of(12),
            "input": { "user": format!("u{}", n % 7) }, "labels": { "app": "shop", "id": instance },
            "timestamp": docket::decision::time::format(at),
        })
        .to_string()
    };
    let now = docket::clock::now();
    source.write((0..4_000).map(|n| decision(now - 3 * day + n as i64 * 2_000_000, "opa-1", n)));
    let leads = |m: &Metrics| m.sum("docket_spikes_leader", &[]) == 1;
    let running = Running::start(&place, &path);
    running.until("it has read them", 60, |m| leads(m) && m.written() == 4_000).await;
    place.pipeline(&format!(
        "name: $NAME\nsources: [{{topic: $NAME-source}}]\nkafka: {{brokers: \"{kafka}\"}}\n{}",
        text(11)
    ));
    running
        .until("the changed file is in force", 30, |m| {
            m.sum("docket_reloads_total", &["outcome=\"applied\""]) == 1
        })
        .await;
    running.stop();
    let running = Running::start(&place, &path);
    running.until("it is back", 60, leads).await;
    // Silence is told after 90 s.
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(got.lock().unwrap().is_empty(), "{:?}", got.lock().unwrap());

    // Two OPAs share the load; then one does it all. And the drill.
    let mut drill = docket()
        .args(["generate", "--scenario", "attack", "--for", "4m", "--to"])
        .arg(&path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = std::time::Instant::now();
    let mut n = 0;
    let told = loop {
        let two = began.elapsed() < Duration::from_secs(40);
        let at = docket::clock::now();
        let opa = |n: usize| if two && n.is_multiple_of(2) { "opa-1" } else { "opa-2" };
        source.write((n..n + 20).map(|n| decision(at, opa(n), n)));
        n += 20;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let told = got.lock().unwrap().clone();
        if !told.is_empty() && began.elapsed() > Duration::from_secs(120) {
            break told;
        }
        assert!(began.elapsed() < Duration::from_secs(240), "{}", running.log());
    };
    let _ = drill.kill();
    let _ = drill.wait();
    let findings: Vec<&Value> = told
        .iter()
        .flat_map(|(_, body)| body["findings"].as_array().into_iter().flatten())
        .filter(|f| f["state"] == "firing")
        .collect();
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0]["kind"], "denial_spike");
    assert_ne!(findings[0]["service"], "shop");
    running.stop();
}
