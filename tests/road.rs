//! The road without any server: docket's own Kafka inside the test process, docket as a process of its own.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

#[path = "road/first_scrape.rs"]
mod first_scrape;
#[path = "road/setup.rs"]
mod setup;
#[path = "road/status.rs"]
mod status;

use std::collections::HashSet;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use docket::log::mock::Mock;
use serde_json::Value;
use support::{Place, Running, canaries, docket, generated, produce, read_all, samples};

fn file_pipeline(place: &Place, mock: &Mock, more: &str) -> std::path::PathBuf {
    place.pipeline(&format!(
        "name: $NAME
kafka: {{brokers: \"{}\"}}
sources: [{{topic: source}}]
docket: {{topic: docket, rejects: rejects, create: false}}
sinks:
  file: {{type: file, path: $DIR/out.ndjson}}
  metrics: {{type: metrics}}
{more}",
        mock.bootstrap()
    ))
}

fn mock() -> Mock {
    Mock::start(&[("source", 2), ("docket", 2), ("rejects", 1)]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_of_a_real_opa_arrive_whole_and_in_the_metrics() {
    let mock = mock();
    let place = Place::new("road");
    let pipeline = file_pipeline(&place, &mock, "");
    let running = Running::start(&place, &pipeline);
    let samples = samples();
    produce(&mock.bootstrap(), "source", &samples);
    let metrics = running
        .until("1,960 in the file and in the metrics", 60, |m| {
            m.delivered("file") == 1960 && m.delivered("metrics") == 1960
        })
        .await;
    assert_eq!(metrics.sum("docket_decisions_total", &[]), 1960);
    assert_eq!(metrics.sum("docket_decisions_total", &["verdict=\"undefined\""]), 60);
    let ready = reqwest::get(format!("http://{}/readyz", running.admin)).await.unwrap();
    let (status, why) = (ready.status(), ready.text().await.unwrap());
    assert_eq!(status, 200, "{why}");
    let log = running.stop();
    assert!(!log.contains("ERROR"), "{log}");

    let text = std::fs::read_to_string(place.path("out.ndjson")).unwrap();
    let ids: HashSet<String> = text
        .lines()
        .map(|l| {
            serde_json::from_str::<Value>(l).unwrap()["decision_id"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!((text.lines().count(), ids.len()), (1960, 1960));
    let first = samples[0].strip_suffix('}').unwrap();
    assert!(
        text.lines().any(|line| line.starts_with(first)),
        "the original stands in the record, byte for byte"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rejects_keep_bytes_and_reasons_and_the_rest_passes() {
    let mock = mock();
    let place = Place::new("rejects");
    let running = Running::start(&place, &file_pipeline(&place, &mock, ""));
    let mut records: Vec<Vec<u8>> = generated(50, 3).into_iter().map(String::into_bytes).collect();
    records.insert(10, b"{\"broken\":".to_vec());
    records.insert(20, br#"{"path":"a","result":true}"#.to_vec());
    records.insert(30, br#"{"level":"info","msg":"Initializing server."}"#.to_vec());
    produce(&mock.bootstrap(), "source", &records);
    let metrics =
        running.until("50 delivered", 60, |m| m.delivered("file") == 50 && m.rejected() == 2).await;
    assert_eq!(metrics.sum("docket_intake_ignored_total", &[]), 1);
    assert_eq!(metrics.sum("docket_intake_records_total", &[]), 53);
    running.stop();
    let mut rejects: Vec<_> = read_all(&mock.bootstrap(), "rejects")
        .into_iter()
        .map(|r| (r.headers["docket-reason"].clone(), r.value))
        .collect();
    rejects.sort();
    assert_eq!(
        rejects,
        [
            ("missing_decision_id".to_owned(), records[20].clone()),
            ("not_json".to_owned(), records[10].clone())
        ]
    );
}

const MASK: &str = r#"package system.log

mask contains "/input/password"

mask contains {"op": "upsert", "path": "/input/card", "value": "****"} if input.input.card

drop if input.path == "health"

mask contains "nowhere" if input.input.broken
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_spread_is_in_no_topic_that_docket_writes() {
    let mock = mock();
    let place = Place::new("protect");
    std::fs::write(place.path("mask.rego"), MASK).unwrap();
    let _ = place.secret("hash.key", "0123456789abcdef");
    let protect = "protect:
  opa: {policies: [mask.rego]}
  hash_key: \"${file:$DIR/hash.key}\"
  rules:
    - {path: /input/**/token, action: erase}
    - {path: /input/user, action: hash}
    - {path: /result/reason, action: replace, value: withheld, policy: app/allow}
";
    let pipeline = file_pipeline(&place, &mock, protect);
    let running = Running::start(&place, &pipeline);
    let decision = |id: &str, more: &str| {
        format!(
            r#"{{"decision_id":"{id}","path":"app/allow","timestamp":"2026-11-24T12:48:50Z",{more}}}"#
        )
    };
    let records = [
        decision(
            "d-1",
            r#""input":{"user":"bob","password":"canary","card":"canary","n":1.0e2,"deep":[{"token":"canary"}]},"result":{"allow":false,"reason":"canary"}"#,
        ),
        decision("d-2", r#""input":{"user":"bob","other":1},"result":true"#),
        decision("d-3", r#""input":{"broken":true,"password":"canary"},"result":true"#),
        r#"{"decision_id":"d-4","path":"health","input":{"password":"canary"},"timestamp":"2026-11-24T12:48:50Z"}"#.to_owned(),
        r#"{"path":"app/allow","input":{"password":"canary"}}"#.to_owned(),
        r#"{"canary"#.to_owned(),
    ];
    produce(&mock.bootstrap(), "source", &records);
    let metrics = running
        .until("all are through", 60, |m| m.delivered("file") == 2 && m.rejected() == 3)
        .await;
    assert_eq!(metrics.sum("docket_intake_dropped_total", &[]), 1);
    assert_eq!(
        metrics.sum("docket_intake_records_total", &[]),
        6,
        "what is dropped is counted, too"
    );
    let log = running.stop();

    let written = std::fs::read_to_string(place.path("out.ndjson")).unwrap();
    let rejects = read_all(&mock.bootstrap(), "rejects");
    let docket_topic: Vec<String> = read_all(&mock.bootstrap(), "docket")
        .iter()
        .map(|r| String::from_utf8_lossy(&r.value).into_owned())
        .collect();
    for text in [&written, &log, &docket_topic.join("\n"), &metrics.0] {
        assert!(!text.contains("canary"), "{text}");
    }
    for reject in &rejects {
        assert!(reject.value.is_empty(), "its source has it still, and nothing else");
        assert!(
            !reject.headers.values().any(|value| value.contains("canary")),
            "{:?}",
            reject.headers
        );
        assert_eq!(reject.headers["docket-sha256"].len(), 64);
    }
    let mut reasons: Vec<&str> =
        rejects.iter().map(|r| r.headers["docket-reason"].as_str()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["mask_failed", "missing_decision_id", "not_json"]);

    let of = |id: &str| {
        written
            .lines()
            .map(|l| serde_json::from_str::<Value>(l).unwrap())
            .find(|r| r["decision_id"] == id)
            .unwrap()
    };
    let (first, second) = (of("d-1"), of("d-2"));
    assert!(
        written.contains(r#""n":1.0e2"#),
        "what is not touched stays as it was written: {written}"
    );
    assert_eq!(
        (&first["docket"]["verdict"], &first["docket"]["reasons"][0]),
        (&"deny".into(), &"withheld".into())
    );
    assert_eq!(first["input"]["user"], second["input"]["user"], "a pseudonym joins");
    assert_eq!(first["docket"]["subject"], first["input"]["user"]);
    assert_eq!(first["erased"], serde_json::json!(["/input/password", "/input/deep/0/token"]));
    assert_eq!(
        first["masked"],
        serde_json::json!(["/input/card", "/input/user", "/result/reason"])
    );

    // What a team sees before it trusts it.
    let decisions = place.path("decisions.ndjson");
    std::fs::write(&decisions, records[..4].join("\n")).unwrap();
    let shown =
        docket().arg("protect").arg(&pipeline).arg(&decisions).arg("--count").output().unwrap();
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    let rows: Vec<String> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for row in [
        "erased by opa /input/password 1",
        "erased by rule 0 /input/deep/0/token 1",
        "masked by rule 1 /input/user 2",
    ] {
        assert!(shown.status.success() && rows.iter().any(|r| r == row), "{row}:\n{text}");
    }
    assert!(text.contains("d-3: mask_failed") && !text.contains("canary"), "{text}");
}

/// Secrets in every encoding, and copies that collectors leave: none comes out of docket, in no encoding.
#[tokio::test(flavor = "multi_thread")]
async fn no_canary_comes_out_in_any_encoding() {
    let mock = mock();
    let place = Place::new("canaries");
    let _ = place.secret("hash.key", "0123456789abcdef");
    let protect = "protect:
  hash_key: \"${file:$DIR/hash.key}\"
  rules:
    - {path: /input/ruled, action: erase}
";
    let pipeline = file_pipeline(&place, &mock, protect);
    let running = Running::start_env(&place, &pipeline, &[], &[("DOCKET_LOG", "debug")]);
    let mut planted: Vec<(String, String)> = Vec::new();
    let mut records: Vec<String> = Vec::new();
    let decision = |id: usize, input: &Value| {
        serde_json::json!({"decision_id": format!("d-{id}"), "path": "app/allow", "result": true,
            "timestamp": "2026-11-24T12:48:50Z", "input": input})
    };
    for length in [7, 12, 20] {
        for (i, (how, _)) in canaries::inputs("x").into_iter().enumerate() {
            let secret = canaries::noise(length);
            let input = canaries::inputs(&secret).swap_remove(i).1;
            records.push(decision(records.len(), &input).to_string());
            // In a result, an error, and what an agent adds.
            let mut elsewhere = decision(records.len(), &serde_json::json!({}));
            elsewhere["result"] = input.clone();
            elsewhere["error"] = serde_json::json!({"message": input.to_string()});
            elsewhere["kubernetes"] = serde_json::json!({"annotations": input});
            records.push(elsewhere.to_string());
            planted.push((how.to_owned(), secret));
        }
    }
    for i in 0..canaries::copies(&decision(0, &Value::Null)).len() {
        let (found, ruled) = (canaries::noise(12), canaries::noise(7));
        let input =
            serde_json::json!({"body": format!("a=1&password={found}"), "ruled": {"pin": ruled}});
        let whole = decision(records.len(), &input);
        records.push(canaries::copies(&whole).swap_remove(i).to_string());
        planted.push((format!("copy {i}"), found));
        planted.push((format!("copy {i}, by a rule"), ruled));
    }
    let good = records.len() as u64;
    // Broken: rejects have no content.
    for (how, input) in canaries::inputs("broken7Canary7") {
        let text = decision(records.len(), &input).to_string();
        records.push(text.replace("\"2026-11-24T12:48:50Z\"", "5"));
        planted.push((format!("broken: {how}"), "broken7Canary7".to_owned()));
    }
    let bad = records.len() as u64 - good;
    produce(&mock.bootstrap(), "source", &records);
    let metrics = running
        .until("all are through", 60, |m| m.delivered("file") == good && m.rejected() == bad)
        .await;
    let mut outputs = vec![("metrics".to_owned(), metrics.0.clone())];
    outputs.push(("log".into(), running.stop()));
    let written = std::fs::read_to_string(place.path("out.ndjson")).unwrap();
    outputs.extend(written.lines().map(|line| ("file".to_owned(), line.to_owned())));
    for topic in ["docket", "rejects"] {
        for record in read_all(&mock.bootstrap(), topic) {
            let all = format!("{:?} {:?}", record.key, record.headers);
            outputs
                .push((topic.into(), String::from_utf8_lossy(&record.value).into_owned() + &all));
        }
    }
    for command in ["rejects", "protect"] {
        let decisions = place.path("decisions.ndjson");
        std::fs::write(&decisions, records.join("\n")).unwrap();
        let mut asked = docket();
        asked.arg(command).arg(&pipeline);
        if command == "protect" {
            asked.arg(&decisions).arg("--count");
        }
        let shown = asked.output().unwrap();
        let text = [shown.stdout, shown.stderr].concat();
        outputs.push((command.into(), String::from_utf8_lossy(&text).into_owned()));
    }
    for (of, text) in &outputs {
        let told: Vec<&str> = planted
            .iter()
            .filter(|(_, secret)| canaries::tells(text, secret))
            .map(|(how, _)| how.as_str())
            .collect();
        assert!(told.is_empty(), "{of} tells {told:?}: {text}");
    }
    // What was looked through was no empty room.
    assert!(written.matches("[erased:").count() as u64 > good, "{written}");
}

#[test]
fn the_demo_ends_by_itself_and_shows_what_a_user_came_for() {
    let out = docket().args(["demo", "--for", "4s", "--rate", "100"]).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{text}\n{}", String::from_utf8_lossy(&out.stderr));
    for wanted in [
        "Metrics: http://127.0.0.1:",
        "denied most",
        "ledger http/authz/decision",
        "what the spike detector says",
        " on http/authz/decision of ledger: ",
        "revision bad4f1c2a09e37d5b681",
        "decisions as spans",
        "└─ policy.decision",
    ] {
        assert!(text.contains(wanted), "{wanted} is not in\n{text}");
    }
}

#[test]
fn the_demo_takes_the_users_own_logs_in_any_format() {
    let place = Place::new("demo");
    let lines = generated(300, 5);
    let array = place.path("array.json");
    std::fs::write(&array, format!("[{}]", lines[..100].join(","))).unwrap();
    let cri = place.path("opa.log");
    std::fs::write(
        &cri,
        lines[100..200]
            .iter()
            .map(|l| format!("2026-11-24T12:48:50.000000000Z stdout F {l}\n"))
            .collect::<String>()
            + "what is this\n",
    )
    .unwrap();
    let gz = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/decisions-opa-1.22.2.ndjson.gz");
    let mut child = docket()
        .arg("demo")
        .args([array.to_str().unwrap(), cri.to_str().unwrap(), gz, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    use std::io::Write;
    child.stdin.take().unwrap().write_all((lines[200..].join("\n") + "\n").as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success());
    assert!(text.contains("2260 decisions"), "{text}");
    assert!(text.contains("ignored          1  line that is no decision"), "{text}");
}

#[test]
fn commands_say_what_is_wrong_and_the_way_out() {
    let place = Place::new("errors");
    let run = |args: &[&str]| {
        let out = docket().args(args).output().unwrap();
        assert!(!out.status.success());
        String::from_utf8(out.stderr).unwrap()
    };
    let bad = place.path("bad.yaml");
    std::fs::write(&bad, "name: x\nkafka: {brokers: \"127.0.0.1:1\"}\nsources: [{topic: t}]\nsinks: {a: {type: lokki}}\n").unwrap();
    let error = run(&["check", bad.to_str().unwrap()]);
    assert!(
        error.contains("bad.yaml:4:19: unknown type \"lokki\"; did you mean \"loki\"?"),
        "{error}"
    );
    assert!(
        run(&["check", "/no/such/file.yaml"]).contains("/no/such/file.yaml: there is no such file")
    );
    std::fs::write(&bad, "name: x\nkafka: {brokers: \"127.0.0.1:1\"}\nsources: [{topic: t}]\n")
        .unwrap();
    let error = run(&["setup", bad.to_str().unwrap()]);
    assert!(error.contains("Kafka at 127.0.0.1:1 can't be reached"), "{error}");
}

#[test]
fn ready_made_pipelines_are_valid_and_pass_their_own_tests() {
    let files = ["opa", "envoy", "kubernetes"]
        .map(|name| format!("{}/pipelines/{name}.yaml", env!("CARGO_MANIFEST_DIR")));
    let out = docket().arg("check").args(&files).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn missing_topics_are_named_with_the_command_that_makes_them() {
    let mock = Mock::start(&[("source", 1)]).unwrap();
    let place = Place::new("topics");
    let pipeline = file_pipeline(&place, &mock, "");
    let out = docket().arg("setup").arg(&pipeline).output().unwrap();
    let error = String::from_utf8(out.stderr).unwrap();
    assert!(!out.status.success());
    assert!(
        error.contains("docket, rejects are missing and docket.create is false")
            && error.contains("kafka-topics.sh")
            && error.contains("--topic rejects"),
        "{error}"
    );
}

#[test]
fn setup_names_topics_of_which_there_is_one_copy() {
    let topics = [("source", 1), ("docket", 1), ("rejects", 1)];
    let said = |brokers, topics: &[(&str, i32)]| {
        let (mock, place) = (Mock::start_brokers(brokers, topics).unwrap(), Place::new("copies"));
        let pipeline = file_pipeline(&place, &mock, "");
        let out = docket().arg("setup").arg(&pipeline).output().unwrap();
        (out.status.success(), support::unhurried(out.stderr))
    };
    let (well, told) = said(1, &topics);
    assert!(well && told.lines().count() == 1, "{told}");
    assert!(
        told.contains("replication factor 1: docket, rejects, source: ")
            && told.contains("run three brokers or more"),
        "{told}"
    );
    assert_eq!(said(3, &topics), (true, String::new()));
    // What would be made there gets three.
    let (well, told) = said(3, &topics[..1]);
    assert!(
        !well && told.contains("--topic docket --partitions 12 --replication-factor 3"),
        "{told}"
    );
}

/// A Loki that refuses credentials at first, then asks for patience, and never takes a line that holds `poison`.
async fn fussy_loki() -> (String, Arc<Mutex<Vec<String>>>) {
    let taken: Arc<Mutex<Vec<String>>> = Arc::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, kept) = (Arc::new(AtomicUsize::new(0)), taken.clone());
    let answer = move |body: axum::body::Bytes| {
        let (n, kept) = (seen.fetch_add(1, Ordering::SeqCst), kept.clone());
        async move {
            match n {
                0..2 => return (StatusCode::UNAUTHORIZED, [("retry-after", "0")]),
                2 => return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]),
                3 => return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")]),
                _ => {}
            }
            let plain = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
            let text = String::from_utf8_lossy(&plain).into_owned();
            if text.contains("poison") {
                return (StatusCode::BAD_REQUEST, [("retry-after", "0")]);
            }
            kept.lock().unwrap().push(text);
            (StatusCode::NO_CONTENT, [("retry-after", "0")])
        }
    };
    let router = axum::Router::new().fallback(axum::routing::post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (format!("http://{address}"), taken)
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_lose_nothing_and_a_refused_batch_is_bisected_to_the_one_bad_record() {
    let mock = mock();
    let place = Place::new("fussy");
    let (loki, taken) = fussy_loki().await;
    let sink = format!(
        "  loki: {{type: loki, url: \"{loki}\", delivery: {{concurrency: 1, retry_initial: 50ms}}}}\n"
    );
    let running = Running::start(&place, &file_pipeline(&place, &mock, &sink));
    let mut decisions = generated(64, 9);
    let poisoned =
        decisions[20].replacen("{\"labels\"", "{\"custom\":{\"poison\":1},\"labels\"", 1);
    assert_ne!(poisoned, decisions[20]);
    decisions[20] = poisoned.clone();
    produce(&mock.bootstrap(), "source", &decisions);
    let refused = ["sink=\"loki\"", "outcome=\"refused\""];
    let metrics = running
        .until("63 delivered, one refused", 60, |m| {
            m.delivered("loki") == 63 && m.sum("docket_sink_records_total", &refused) == 1
        })
        .await;
    assert_eq!(metrics.delivered("file"), 64, "the sink beside it has them all");
    assert_eq!(
        metrics.sum("docket_sink_requests_total", &["sink=\"loki\"", "outcome=\"credentials\""]),
        2
    );
    assert_eq!(
        metrics.sum("docket_sink_requests_total", &["sink=\"loki\"", "outcome=\"throttled\""]),
        1
    );
    assert_eq!(
        metrics.sum("docket_sink_requests_total", &["sink=\"loki\"", "outcome=\"server\""]),
        1
    );
    assert_eq!(metrics.sum("docket_sink_failing", &["sink=\"loki\""]), 0);
    running.stop();

    let text = taken.lock().unwrap().join("\n");
    for (i, decision) in decisions.iter().enumerate() {
        let id = serde_json::from_str::<Value>(decision).unwrap()["decision_id"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(text.contains(&format!("\"decision_id\":\"{id}\"")), i != 20, "{i}");
    }
    let rejects = read_all(&mock.bootstrap(), "rejects");
    assert_eq!(rejects.len(), 1);
    assert!(rejects[0].value.starts_with(poisoned.strip_suffix('}').unwrap().as_bytes()));
    let headers = &rejects[0].headers;
    assert_eq!(
        (
            headers["docket-stage"].as_str(),
            headers["docket-sink"].as_str(),
            headers["docket-status"].as_str()
        ),
        ("deliver", "loki", "400")
    );
}

/// A sink that hangs, and decisions on their way to it.
async fn hanging(place: &Place, mock: &Mock, drain: &str) -> Running {
    // Takes connections, and never answers.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sink =
        format!("  loki: {{type: loki, url: \"http://{}\"}}\n", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    let running =
        Running::start_with(place, &file_pipeline(place, mock, &sink), &["--drain", drain]);
    produce(&mock.bootstrap(), "source", generated(100, 2));
    running
        .until("the other sink has them all, and Loki's are on their way", 60, |m| {
            m.delivered("file") == 100
                && m.sum("docket_sink_in_flight_records", &["sink=\"loki\""]) == 100
        })
        .await;
    running
}

/// Who would wait for ten minutes is told for whom, and can end it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_says_at_once_whom_it_waits_for_and_a_second_one_ends_it() {
    let mock = mock();
    let place = Place::new("twice");
    let mut running = hanging(&place, &mock, "600s").await;
    running.signal("INT");
    let said = support::until("it says for whom", 30, async || {
        let log = running.log();
        if log.contains("is waited for") { Ok(log) } else { Err(log) }
    })
    .await;
    assert!(said.contains("for 600s at most (--drain)"), "{said}");
    assert!(said.contains(&format!("part=\"{}/loki\" records=100", place.name)), "{said}");
    running.signal("INT");
    let (code, log) = running.ended();
    assert_eq!(code, Some(130), "{log}");
    assert!(log.contains("not delivered; it is in Kafka"), "{log}");
    assert!(log.contains("100 decisions were on their way"), "{log}");
}

/// Vector 9251: a process that can't be stopped while a sink takes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_in_time_though_a_sink_hangs() {
    let mock = mock();
    let place = Place::new("hangs");
    let running = hanging(&place, &mock, "2s").await;
    let asked = std::time::Instant::now();
    let log = running.stop();
    assert!(asked.elapsed() < std::time::Duration::from_secs(20), "{:?}", asked.elapsed());
    assert!(log.contains("not everything was delivered before the deadline"), "{log}");
}
