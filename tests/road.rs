//! The road without any server: docket's own Kafka inside the test process, docket as a process of its own.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::HashSet;
use std::process::Stdio;

use docket::log::mock::Mock;
use serde_json::Value;
use support::{Place, Running, docket, generated, produce, read_all, samples};

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
    let metrics = running.until("1,960 in the file and in the metrics", 60, |m| m.delivered("file") == 1960 && m.delivered("metrics") == 1960).await;
    assert_eq!(metrics.sum("docket_decisions_total", &[]), 1960);
    assert_eq!(metrics.sum("docket_decisions_total", &["verdict=\"undefined\""]), 60);
    let ready = reqwest::get(format!("http://{}/readyz", running.admin)).await.unwrap();
    assert_eq!(ready.status(), 200);
    let log = running.stop();
    assert!(!log.contains("ERROR"), "{log}");

    let text = std::fs::read_to_string(place.path("out.ndjson")).unwrap();
    let ids: HashSet<String> = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["decision_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!((text.lines().count(), ids.len()), (1960, 1960));
    let first = samples[0].strip_suffix('}').unwrap();
    assert!(text.lines().any(|line| line.starts_with(first)), "the original stands in the record, byte for byte");
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
    let metrics = running.until("50 delivered", 60, |m| m.delivered("file") == 50 && m.rejected() == 2).await;
    assert_eq!(metrics.sum("docket_intake_ignored_total", &[]), 1);
    assert_eq!(metrics.sum("docket_intake_records_total", &[]), 53);
    running.stop();
    let mut rejects: Vec<_> = read_all(&mock.bootstrap(), "rejects").into_iter().map(|r| (r.headers["docket-reason"].clone(), r.value)).collect();
    rejects.sort();
    assert_eq!(rejects, [("missing_decision_id".to_owned(), records[20].clone()), ("not_json".to_owned(), records[10].clone())]);
}

#[test]
fn the_demo_ends_by_itself_and_shows_what_a_user_came_for() {
    let out = docket().args(["demo", "--for", "4s", "--rate", "100"]).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{text}\n{}", String::from_utf8_lossy(&out.stderr));
    for wanted in ["Metrics: http://127.0.0.1:", "denied most", "ledger http/authz/decision", "decisions as spans", "└─ policy.decision"] {
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
    std::fs::write(&cri, lines[100..200].iter().map(|l| format!("2026-11-24T12:48:50.000000000Z stdout F {l}\n")).collect::<String>() + "what is this\n")
        .unwrap();
    let gz = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/decisions-opa-1.22.2.ndjson.gz");
    let mut child =
        docket().arg("demo").args([array.to_str().unwrap(), cri.to_str().unwrap(), gz, "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    use std::io::Write;
    child.stdin.take().unwrap().write_all((lines[200..].join("\n") + "\n").as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success());
    assert!(text.contains("2260 decisions"), "{text}");
    assert!(text.contains("rejected         1  not_json"), "{text}");
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
    assert!(error.contains("bad.yaml:4:19: unknown type \"lokki\"; did you mean \"loki\"?"), "{error}");
    assert!(run(&["check", "/no/such/file.yaml"]).contains("/no/such/file.yaml: can't be read"));
    std::fs::write(&bad, "name: x\nkafka: {brokers: \"127.0.0.1:1\"}\nsources: [{topic: t}]\n").unwrap();
    let error = run(&["setup", bad.to_str().unwrap()]);
    assert!(error.contains("Kafka at 127.0.0.1:1 can't be reached"), "{error}");
}

#[test]
fn ready_made_pipelines_are_valid_and_pass_their_own_tests() {
    let files = ["opa", "envoy", "kubernetes"].map(|name| format!("{}/pipelines/{name}.yaml", env!("CARGO_MANIFEST_DIR")));
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
        error.contains("docket, rejects are missing and docket.create is false") && error.contains("kafka-topics.sh") && error.contains("--topic rejects"),
        "{error}"
    );
}
