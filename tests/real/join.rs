//! The join: access logs in one topic, decisions in another; killed again and again, two instances. The docket holds each
//! decision once, with its own request, and what was planted is found, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::support::{Place, Running, Source, create_topic, docket, read_all};
use super::{address, init};

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq)]
enum Story {
    Fine,
    DeniedButServed,
    NeverAsked,
    FailedOpen,
}

fn story(n: u32) -> Story {
    match n {
        n if n % 400 == 13 => Story::DeniedButServed,
        n if n % 400 == 77 => Story::NeverAsked,
        n if n % 400 == 201 => Story::FailedOpen,
        _ => Story::Fine,
    }
}

fn decision(n: u32, at: Timestamp) -> Option<String> {
    let result = match story(n) {
        Story::NeverAsked | Story::FailedOpen => return None,
        Story::DeniedButServed => false,
        Story::Fine => !n.is_multiple_of(3),
    };
    let headers = json!({ "x-request-id": format!("r-{n}") });
    let decision = json!({
        "decision_id": format!("d-{n}"), "labels": { "app": "orders-opa", "id": "i-1" },
        "path": "envoy/authz/allow", "result": result, "timestamp": at.to_string(),
        "input": { "attributes": { "request": { "http": { "headers": headers, "method": "GET", "path": format!("/api/{n}") } } } },
    });
    Some(decision.to_string())
}

fn line(n: u32, at: Timestamp) -> String {
    let denied = story(n) == Story::Fine && n.is_multiple_of(3);
    // OPA's clock is a second ahead of the proxy's.
    let start = at - SignedDuration::from_millis(1_005);
    let mut line = json!({
        "start_time": start.to_string(), "duration": 12, "service": "orders", "method": "GET", "path": format!("/api/{n}?token=x"),
        "response_code": if denied { 403 } else { 200 }, "request_id": format!("r-{n}"),
    });
    // Half of the proxies log it.
    if n.is_multiple_of(2) && matches!(story(n), Story::Fine | Story::DeniedButServed) {
        line["decision_id"] = format!("d-{n}").into();
    }
    if story(n) == Story::FailedOpen {
        line["failure_mode_allowed"] = "true".into();
    }
    line.to_string()
}

/// Writes requests as they happen; each side is late by as much as it likes, the access log now and then by more than
/// a decision waits. Returns by how much the machine was slower.
fn drive(kafka: &str, name: &str, total: u32) -> Duration {
    let decisions = Source::new(kafka, &format!("{name}-source"));
    let lines = Source::new(kafka, &format!("{name}-access"));
    let mut due: BTreeMap<Timestamp, Vec<(bool, String)>> = BTreeMap::new();
    let begin = Timestamp::now();
    for n in 0..total {
        let at = begin + SignedDuration::from_millis(i64::from(n) * 10);
        let late = |most: u32| SignedDuration::from_millis(i64::from(n * 7919 % most));
        if let Some(decision) = decision(n, at) {
            due.entry(at + late(1_500)).or_default().push((true, decision));
        }
        let most = if n % 50 == 7 { 6_000 } else { 1_500 };
        due.entry(at + late(most)).or_default().push((false, line(n, at)));
    }
    let mut slower = SignedDuration::ZERO;
    for (at, records) in due {
        let left = at.duration_since(Timestamp::now());
        std::thread::sleep(Duration::try_from(left).unwrap_or_default());
        slower = slower.max(Timestamp::now().duration_since(at));
        for (decided, record) in records {
            if decided { &decisions } else { &lines }.write_to(rand::random_range(0..3), &record);
        }
    }
    decisions.flush();
    lines.flush();
    slower.unsigned_abs()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_decision_meets_its_request_once_whoever_is_killed() {
    let _servers = super::together().await;
    init();
    let kafka = address("KAFKA_BOOTSTRAP");
    let (webhook, heard) = super::spikes::listener().await;
    let place = Place::new("join");
    let name = place.name.clone();
    let pipeline = place.pipeline(&format!(
        "name: $NAME
kafka: {{brokers: \"{kafka}\", properties: {{session.timeout.ms: 6000}}}}
sources: [{{topic: $NAME-source}}]
intake: {{transaction_interval: 50ms}}
docket: {{partitions: 4}}
join:
  facts: [{{topic: $NAME-access, format: access_log}}]
  wait: 3s
  window: 5s
  delay: 10s
  findings: {{requests: [{{path: \"/api/**\"}}]}}
spikes: {{notify: {{hook: {{type: webhook, url: \"{webhook}/hook\"}}}}}}
"
    ));
    for topic in ["source", "access"] {
        create_topic(&kafka, &format!("{name}-{topic}"), 3, &[]).await;
    }
    assert!(docket().args(["setup", "--yes"]).arg(&pipeline).status().unwrap().success());
    let total = 3_000;
    let driver = {
        let (kafka, name) = (kafka.clone(), name.clone());
        tokio::task::spawn_blocking(move || drive(&kafka, &name, total))
    };
    let mut instances = vec![Running::start(&place, &pipeline), Running::start(&place, &pipeline)];
    for round in 0..3 {
        tokio::time::sleep(Duration::from_millis(5_000 + 900 * round)).await;
        instances.remove(0).kill();
        instances.push(Running::start(&place, &pipeline));
    }
    let slower = driver.await.unwrap();
    assert!(slower < Duration::from_secs(3), "later than `delay` allows: {slower:?}");

    let decided: BTreeSet<String> = (0..total)
        .filter(|n| decision(*n, Timestamp::now()).is_some())
        .map(|n| format!("d-{n}"))
        .collect();
    let planted: BTreeSet<(String, String)> = (0..total)
        .filter_map(|n| {
            let kind = match story(n) {
                Story::Fine => return None,
                Story::DeniedButServed => "denied_but_served",
                Story::NeverAsked => "served_without_decision",
                Story::FailedOpen => "failed_open",
            };
            Some((kind.to_owned(), format!("r-{n}")))
        })
        .collect();
    let docket_topic = format!("docket.{name}");
    let deadline = std::time::Instant::now() + Duration::from_secs(90);
    let records = loop {
        let records = read_all(&kafka, &docket_topic);
        if records.len() >= decided.len() + planted.len() {
            break records;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "{} records\n{}\n{}",
            records.len(),
            instances[0].metrics().await.docket(),
            instances[0].log()
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    // Nothing comes afterwards.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = records.len();
    let records = read_all(&kafka, &docket_topic);
    let more = records.len() - before;

    let amended: BTreeMap<String, Value> = read_all(&kafka, &format!("{docket_topic}.amendments"))
        .iter()
        .map(|record| (record.key.clone().unwrap(), record.json()["docket"]["request"].clone()))
        .collect();
    let (mut seen, mut found) = (BTreeSet::new(), BTreeSet::new());
    let mut with = [0, 0];
    for record in &records {
        let record = record.json();
        if record["docket"]["verdict"] == "finding" {
            let finding = &record["finding"];
            assert!(
                found.insert((text(&finding["kind"]), text(&finding["request_id"]))),
                "{finding}"
            );
            continue;
        }
        let id = text(&record["decision_id"]);
        let at_once = &record["docket"]["request"];
        with[usize::from(at_once.is_null())] += 1;
        let request = if at_once.is_null() { &amended[&id] } else { at_once };
        assert_eq!(text(&request["path"]), id.replace("d-", "/api/"), "{record}");
        assert!(seen.insert(id), "twice: {record}");
    }
    println!(
        "{} with their request at once, {} amended, {} findings",
        with[0],
        with[1],
        found.len()
    );
    assert_eq!(seen, decided);
    let false_ones: Vec<_> = found.difference(&planted).collect();
    assert!(false_ones.is_empty(), "false: {false_ones:?}");
    assert_eq!(found, planted);
    assert_eq!(more, 0, "some came afterwards");
    assert!(read_all(&kafka, &format!("{docket_topic}.rejects")).is_empty());
    for instance in instances {
        instance.stop();
    }
    // People heard of each kind, and not of each request.
    let heard: Vec<Value> = heard.lock().unwrap().iter().map(|(_, body)| body.clone()).collect();
    let findings = heard.iter().flat_map(|body| body["findings"].as_array().unwrap());
    let firing = findings.filter(|finding| finding["state"] == "firing");
    let mut told_of: BTreeMap<String, usize> = BTreeMap::new();
    for finding in firing {
        assert_eq!(text(&finding["service"]), "orders", "{finding}");
        *told_of.entry(text(&finding["kind"])).or_default() += 1;
    }
    let kinds: BTreeSet<&String> = planted.iter().map(|(kind, _)| kind).collect();
    assert_eq!(told_of.keys().collect::<BTreeSet<_>>(), kinds, "{heard:?}");
    // Once more, if who told it was killed at that moment.
    assert!(told_of.values().all(|times| *times <= 4), "{told_of:?}");
    let later = amended.keys().next().unwrap();
    let number = later.trim_start_matches("d-");
    told(&pipeline, "d-13", "/api/13", Some("denied_but_served"));
    told(&pipeline, "r-14", "/api/14", None);
    told(&pipeline, later, &format!("/api/{number}"), None);
    let nobody = docket().args(["why", "d-nobody"]).arg(&pipeline).output().unwrap();
    let said = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(!nobody.status.success() && said.contains("has the ID d-nobody"), "{said}");
}

/// `docket why` tells of the request, whether it came with the decision or later, and of what was found.
fn told(pipeline: &std::path::Path, id: &str, path: &str, found: Option<&str>) {
    let out = docket().args(["why", id, "--json"]).arg(pipeline).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{id}: {}", String::from_utf8_lossy(&out.stderr));
    let all: Value = serde_json::from_str(&text).unwrap();
    let [one] = &all.as_array().unwrap()[..] else { panic!("{id}: {text}") };
    assert_eq!(one["decision"]["docket"]["request"]["path"], path, "{id}: {text}");
    let findings = one["findings"].as_array().map_or(0, Vec::len);
    assert_eq!(findings, usize::from(found.is_some()), "{id}: {text}");
    let shown = docket().args(["why", id]).arg(pipeline).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains(&format!("GET {path} of orders: ")), "{shown}");
    assert_eq!(shown.contains("FOUND: "), found.is_some(), "{shown}");
}
