//! `docket verify` and `docket redrive` without any server: docket's own Kafka inside the test process, docket as a process of its own.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::path::{Path, PathBuf};

use docket::decision::record::Record;
use docket::log::mock::Mock;
use docket::sink::query::{Decision, Present};
use docket::spike::{Finding, Kind};
use docket::verify::docket::{Docket, Due, original};
use docket::verify::place::Decided;
use docket::verify::run::{read_held, write_held};
use docket::verify::source::Expected;
use docket::verify::spill::Spill;
use docket::verify::traced::Candidates;
use docket::verify::{Compared, Wanted};
use serde_json::Value;
use support::{
    Place, Running, Source, commit, docket, ends, generated, produce, read_all, said, status,
    unhurried,
};

fn mock() -> Mock {
    Mock::start(&[("source", 2), ("docket", 2), ("rejects", 1)]).unwrap()
}

fn pipeline(place: &Place, mock: &Mock, more: &str) -> PathBuf {
    place.pipeline(&format!(
        "name: $NAME
kafka: {{brokers: \"{}\"}}
sources: [{{topic: source}}]
docket: {{topic: docket, rejects: rejects, create: false}}
{more}",
        mock.bootstrap()
    ))
}

/// The report, the exit code, and what it says to people.
fn verified(pipeline: &Path, more: &[&str]) -> (Value, i32, String) {
    let run = |json: &[&str]| {
        let mut command = docket();
        command.args(["verify", "--from", "start", "--settle", "0s"]).args(json).args(more);
        command.arg(pipeline).output().unwrap()
    };
    let (json, text) = (run(&["--json"]), run(&[]));
    let table = String::from_utf8_lossy(&text.stdout);
    assert!(table.lines().all(|line| line.chars().count() <= 160), "{table}");
    let told = unhurried([text.stdout, text.stderr].concat());
    assert_eq!(json.status.code(), text.status.code(), "{told}");
    let report = serde_json::from_slice(&json.stdout).unwrap_or_default();
    (report, json.status.code().unwrap(), told)
}

fn sink<'r>(report: &'r Value, name: &str) -> &'r Value {
    report["sinks"].as_array().unwrap().iter().find(|sink| sink["sink"] == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_tell_complete_a_gap_a_sink_that_cannot_tell_and_one_that_is_away() {
    let (mock, place) = (mock(), Place::new("exit"));
    let sinks = "sinks:
  file: {type: file, path: $DIR/out.ndjson}
  metrics: {type: metrics}
  away: {type: elasticsearch, url: \"http://127.0.0.1:9\", delivery: {only_routed: true}}
";
    let pipeline = pipeline(&place, &mock, sinks);
    let running = Running::start(&place, &pipeline);
    let mut decisions = generated(300, 5);
    // A decision again, another decision under a used id, and numbers that no type here holds.
    decisions.push(decisions[7].clone());
    let huge = r#"{"decision_id":"huge","path":"a","result":true,"timestamp":"2026-11-24T12:48:50Z","input":{"n":1e999}}"#;
    decisions.push(huge.into());
    produce(&mock.bootstrap(), "source", &decisions);
    running.until("delivered", 60, |m| m.delivered("file") == 301).await;
    running.stop();
    has_read(&place, &mock);
    let out = place.path("out.ndjson");
    let whole = std::fs::read_to_string(&out).unwrap();

    let (report, code, told) = verified(&pipeline, &["--sink", "file"]);
    assert_eq!(
        (code, &report["complete"], &report["outcome"]),
        (0, &true.into(), &"complete".into()),
        "{told}"
    );
    assert_eq!(
        (&report["docket"]["decisions"], &report["docket"]["repeated"]),
        (&302.into(), &1.into())
    );
    assert_eq!(
        (&sink(&report, "file")["expected"], &sink(&report, "file")["present"]),
        (&301.into(), &301.into())
    );
    assert!(told.ends_with("complete; other sinks were not compared (--sink)\n"), "{told}");

    let (report, code, told) = verified(&pipeline, &["--sink", "file,metrics"]);
    assert_eq!(
        (code, &report["complete"], &report["outcome"]),
        (3, &false.into(), &"not_compared".into()),
        "{told}"
    );
    assert!(told.contains("metrics: not compared: its setting query"), "{told}");

    // What can't be asked does not take the answer of what can.
    let (report, code, told) = verified(&pipeline, &[]);
    assert_eq!((code, &report["outcome"]), (4, &"unreachable".into()), "{told}");
    assert_eq!(sink(&report, "file")["present"], 301);
    assert!(sink(&report, "away")["error"].is_string(), "{report}");

    // One line lost, one altered, one twice, one that nobody decided.
    let mut lines: Vec<String> = whole.lines().map(str::to_owned).collect();
    lines.remove(3);
    lines[5] = lines[5].replacen("true", "false", 1).replacen("\"path\":\"", "\"path\":\"x", 1);
    lines.push(lines[9].clone());
    let forged = lines[11].replacen("\"decision_id\":\"", "\"decision_id\":\"forged-", 1);
    lines.push(forged.replacen("\"@timestamp\":\"2", "\"@timestamp\":\"1", 1));
    std::fs::write(&out, lines.join("\n") + "\n").unwrap();
    let (report, code, told) = verified(&pipeline, &["--sink", "file"]);
    let file = sink(&report, "file");
    let n = |what: &str| file[what].as_array().unwrap().len();
    assert_eq!((code, n("missing"), n("altered"), n("repeated")), (1, 1, 1, 1), "{told}");
    assert!(told.contains("not complete: file: 1 missing, 1 altered, 1 repeated"), "{told}");
    let again = format!("docket backfill {} --sink file --send", pipeline.display());
    assert!(told.replace('\n', " ").contains(&again), "{told}");
    assert!(told.contains("file: OTHERS is no gap: 1 decision that another pipeline, "), "{told}");
    let table = told.lines().filter(|line| line.starts_with("SINK ") || line.starts_with("file  "));
    assert!(table.clone().count() == 2 && table.clone().all(|line| line.len() <= 80), "{told}");
    let only: Vec<&str> =
        file["only_there"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    assert!(only.len() == 1 && only[0].starts_with("forged-"), "{told}");

    // Twice is no gap, and neither is it once.
    std::fs::write(&out, format!("{whole}{}\n", whole.lines().next().unwrap())).unwrap();
    let (report, code, told) = verified(&pipeline, &["--sink", "file"]);
    assert_eq!(
        (code, &report["outcome"], &report["gaps"], &report["repeats"]),
        (1, &"repeated".into(), &0.into(), &1.into()),
        "{told}"
    );
    assert!(told.contains("everything is there, but not only once: file: 1 repeated\n"), "{told}");
    assert!(told.contains("file: REPEATED is no gap: "), "{told}");
    std::fs::write(&out, &whole).unwrap();

    // What a sink has yet to be sent is not lost.
    let group = format!("docket.{}.file", place.name);
    let all = ends(&mock.bootstrap(), "docket");
    let begin: Vec<(i32, i64)> = all.iter().map(|(partition, _)| (*partition, 0)).collect();
    commit(&mock.bootstrap(), &group, "docket", &begin);
    std::fs::write(&out, whole.split_once('\n').unwrap().1).unwrap();
    let (report, code, told) = verified(&pipeline, &["--sink", "file"]);
    let file = sink(&report, "file");
    assert_eq!((code, &file["unsent"], &report["gaps"]), (3, &1.into(), &0.into()), "{told}");
    assert!(told.contains("not complete: file: 1 yet to be sent\n"), "{told}");
    assert!(
        told.contains("file: 1 decision in the docket that the sink has yet to be sent"),
        "{told}"
    );
    std::fs::write(&out, &whole).unwrap();
    commit(&mock.bootstrap(), &group, "docket", &all);

    // What intake has yet to read.
    assert_eq!(report["intake"], serde_json::json!({ "unread": {} }), "{told}");
    produce(&mock.bootstrap(), "source", generated(3, 6));
    let (report, code, told) = verified(&pipeline, &["--sink", "file"]);
    assert_eq!((code, &report["intake"]["unread"]["source"]), (0, &3.into()), "{told}");
    let last = "complete of what intake has read; 3 records of source yet to be read; other sinks were not compared (--sink)\n";
    assert!(told.ends_with(last), "{told}");

    // Kafka itself.
    drop(mock);
    let (_, code, told) = verified(&pipeline, &["--sink", "file"]);
    assert_eq!(code, 4, "{told}");
    let (_, code, told) = verified(&pipeline, &["--sink", "nobody"]);
    assert!(code == 2 && told.contains("there are away, file, metrics"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_decision_under_a_used_id_is_missed_where_it_is_missing() {
    let (mock, place) = (mock(), Place::new("reused"));
    let url = prometheus(&[("allow", 1), ("deny", 1)]);
    let counts = format!("{FILE}  metrics: {{type: metrics, query: \"{url}\"}}\n");
    let pipeline = pipeline(&place, &mock, &counts);
    let running = Running::start(&place, &pipeline);
    let decision = |verdict: bool| {
        format!(
            r#"{{"decision_id":"used","path":"a","result":{verdict},"timestamp":"2026-11-24T12:48:50Z"}}"#
        )
    };
    produce(&mock.bootstrap(), "source", [decision(true), decision(false)]);
    running.until("both are in the docket", 60, |m| m.written() == 2).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    running.stop();
    let lines = std::fs::read_to_string(place.path("out.ndjson")).unwrap().lines().count();
    let (report, code, told) = verified(&pipeline, &[]);
    assert_eq!(report["docket"]["reused_ids"], 1, "{told}");
    let file = sink(&report, "file");
    assert_eq!((&file["expected"], &file["present"]), (&2.into(), &lines.into()), "{told}");
    assert_eq!(code, i32::from(lines < 2), "{told}");

    // What docket found is no decision, to nobody who counts; and people who look back see it.
    let found = Finding {
        id: "0011223344556677".into(),
        onset: docket::clock::now(),
        detected: docket::clock::now(),
        detail: "another decision under used".into(),
        ..Finding::new(Kind::DecisionIdReused, "orders", "")
    };
    produce(&mock.bootstrap(), "docket", [docket::spike::record::write(&found).1]);
    let (report, code, told) = verified(&pipeline, &["--sink", "metrics"]);
    assert_eq!(
        (&report["docket"]["decisions"], &report["docket"]["findings"]),
        (&2.into(), &1.into()),
        "{told}"
    );
    assert!(told.contains(": 2 decisions: 1 allow, 1 deny, decided from "), "{told}");
    assert!(told.contains("; and 1 finding\n"), "{told}");
    let metrics = sink(&report, "metrics");
    assert_eq!((&metrics["expected"], &metrics["present"]), (&2.into(), &2.into()), "{told}");
    assert_eq!((code, &metrics["gaps"]), (0, &0.into()), "{told}");
    let out = docket().args(["spikes", "--json", "--since", "start"]).arg(&pipeline).output();
    let out = out.unwrap();
    let shown: Value = serde_json::from_slice(&out.stdout).unwrap();
    let told = String::from_utf8_lossy(&out.stderr);
    assert_eq!((&shown["id"], &shown["kind"]), (&found.id.into(), &"decision_id_reused".into()));
    assert!(
        told.contains("1 finding in 2 decisions") && told.contains("1 of the findings came from "),
        "{told}"
    );
}

/// The URL of a Prometheus that counted so many decisions of each verdict.
fn prometheus(counted: &[(&str, u32)]) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let counted: Vec<(String, u32)> = counted.iter().map(|(v, n)| ((*v).into(), *n)).collect();
    std::thread::spawn(move || {
        for mut asked in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 8192];
            let read = asked.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            let start = request.split("start=").nth(1).and_then(|rest| rest.split('&').next());
            let at = start.and_then(|start| start.parse::<i64>().ok()).unwrap_or(0) + 1;
            let series = counted.iter().map(
                |(verdict, n)| serde_json::json!({"metric": {"verdict": verdict}, "values": [[at, n.to_string()]]}),
            );
            let series: Vec<Value> = series.collect();
            let body = serde_json::json!({"status": "success", "data": {"result": series}});
            let body = body.to_string();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
            let _ = write!(asked, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn rejects_without_bytes_are_fetched_from_where_they_came_from() {
    let (mock, place) = (mock(), Place::new("withheld"));
    let more = "sinks:\n  file: {type: file, path: $DIR/out.ndjson}\nprotect: {rules: [{path: /input/token, action: erase}]}\n";
    let pipeline = pipeline(&place, &mock, more);
    let running = Running::start(&place, &pipeline);
    let good = generated(2, 8);
    let bad = r#"{"decision_id":"no-time","path":"a","input":{"password":"hunter2-hunter2"}}"#;
    let element = r#"{"decision_id":"no-time-either","n":  1e999}"#;
    let array = format!("[{},{element},{}]", good[0], good[1]);
    let broken = "{\"decision_id\": \"broken\", ";
    produce(&mock.bootstrap(), "source", [bad.to_owned(), array.clone(), broken.to_owned()]);
    running.until("three rejects", 60, |m| m.rejected() == 3 && m.delivered("file") == 2).await;
    for reject in read_all(&mock.bootstrap(), "rejects") {
        assert!(reject.value.is_empty() && reject.headers.contains_key("docket-sha256"));
    }
    running.stop();
    let run = |args: &[&str]| said(&pipeline, args);
    let dry = run(&["redrive"]);
    assert!(
        dry.contains("would be sent: 3 to intake") && dry.contains("3 records would be fetched"),
        "{dry}"
    );
    assert_eq!(read_all(&mock.bootstrap(), "source").len(), 3);
    let sent = run(&["redrive", "--send"]);
    assert!(sent.contains("intake: 3 sent"), "{sent}");
    let values: Vec<String> = read_all(&mock.bootstrap(), "source")
        .into_iter()
        .map(|record| String::from_utf8(record.value).unwrap())
        .collect();
    let times = |text: &str| values.iter().filter(|value| *value == text).count();
    assert_eq!(
        (times(bad), times(broken), times(element), times(&array)),
        (2, 2, 1, 1),
        "{values:?}"
    );
    let again = run(&["redrive"]);
    assert!(again.contains("no rejects"), "{again}");
}

/// The double of Kafka does not keep what intake commits; what it has read is committed for it.
fn has_read(place: &Place, mock: &Mock) {
    let group = format!("docket.{}.intake", place.name);
    commit(&mock.bootstrap(), &group, "source", &ends(&mock.bootstrap(), "source"));
}

const FILE: &str = "sinks:\n  file: {type: file, path: $DIR/out.ndjson}\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_intake_lost_is_named_and_what_is_in_rejects_is_not_lost() {
    let (mock, place) = (mock(), Place::new("lost"));
    let kafka = mock.bootstrap();
    let limited = format!("limits: {{decision_bytes: 20000}}\n{FILE}");
    let path = pipeline(&place, &mock, &limited);
    let mut decisions = generated(40, 3);
    produce(&kafka, "source", &decisions);
    std::fs::write(place.path("out.ndjson"), "").unwrap();
    let (report, code, told) = verified(&path, &[]);
    assert_eq!((code, &report["outcome"]), (3, &"not_compared".into()), "{told}");
    assert!(told.contains("has committed nothing of source"), "{told}");
    assert!(
        told.contains("(source)") && report["source"]["lost"] == serde_json::json!([]),
        "{told}"
    );
    let (report, code, told) = verified(&path, &["--no-source"]);
    assert_eq!((code, &report["source"]), (0, &Value::Null), "{told}");

    let running = Running::start(&place, &path);
    // Two in one record, one again, one too large for now, and one that is none.
    let pair = generated(2, 4);
    let again = decisions[7].clone();
    let large = format!(
        r#"{{"decision_id":"large","path":"a","input":"{}","timestamp":"2026-11-24T12:48:50Z"}}"#,
        "x".repeat(30_000)
    );
    decisions.extend([format!("[{}]", pair.join(",")), again, large, "{\"decision_id\":1}".into()]);
    produce(&kafka, "source", &decisions[40..]);
    let done = |m: &support::Metrics| m.delivered("file") == 42 && m.rejected() == 2;
    running.until("delivered", 60, done).await;
    running.stop();
    has_read(&place, &mock);
    let (report, code, told) = verified(&path, &[]);
    let n = |report: &Value, what: &str| report["source"][what].as_u64().unwrap();
    let counts = |report: &Value| {
        ["expected", "present", "rejected", "not_compared"].map(|what| n(report, what))
    };
    assert_eq!((code, counts(&report)), (0, [44, 42, 2, 0]), "{told}");
    assert!(told.ends_with("complete\n"), "{told}");
    // What intake refused is said, with where it is, and to who asks for a decision that is none.
    assert_eq!(report["rejects"], serde_json::json!({"intake": 2}), "{told}");
    let rejects = format!("docket rejects {}", path.display());
    assert!(
        told.contains("rejects: 2 records of the source,") && told.contains(&rejects),
        "{told}"
    );
    for (id, words) in [
        ("large", "; 1 reject holds it (intake: too_large, "),
        ("nowhere", "; there are 2 rejects of that time, too:\n  docket rejects "),
    ] {
        let out = docket().args(["why", id, "--since", "start"]).arg(&path).output().unwrap();
        let told = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.code() == Some(1) && told.contains(words), "{id}: {told}");
    }

    // Rules that changed: what was too large is none now, and something is taken out.
    let protected = format!("protect: {{rules: [{{path: /input, action: erase}}]}}\n{FILE}");
    let (report, code, told) = verified(&pipeline(&place, &mock, &protected), &[]);
    // Those that have an input; what came twice is looked for at both places.
    assert_eq!((code, counts(&report)), (0, [45, 43, 2, 0]), "{told}");
    assert!(told.contains("another content than today's"), "{told}");
    let path = pipeline(&place, &mock, &limited);

    // What was written to the source, and intake passed over.
    let lost =
        r#"{"decision_id":"gone","path":"a","result":true,"timestamp":"2026-11-24T12:48:50Z"}"#;
    let offset = ends(&kafka, "source")[1].1;
    let source = Source::new(&kafka, "source");
    source.write_to(1, lost);
    source.flush();
    let (report, code, told) = verified(&path, &[]);
    assert_eq!((code, n(&report, "unread")), (0, 1), "{told}");
    has_read(&place, &mock);
    let (report, code, told) = verified(&path, &[]);
    assert_eq!(
        (code, &report["outcome"], &report["gaps"]),
        (1, &"gap".into(), &1.into()),
        "{told}"
    );
    let named = serde_json::json!([{"decision_id": "gone", "topic": "source", "partition": 1, "offset": offset, "element": 0}]);
    assert_eq!(report["source"]["lost"], named);
    assert_eq!(report["source"]["missing"], serde_json::json!(["gone"]));
    let place_told = format!("lost: gone (topic source, partition 1, offset {offset})");
    assert!(told.contains(&place_told), "{told}");
    let (_, code, told) = verified(&path, &["--no-source"]);
    assert_eq!(code, 0, "{told}");

    // A sink that has it all the same is not somebody else's.
    let mut out = std::fs::OpenOptions::new().append(true).open(place.path("out.ndjson")).unwrap();
    let held = std::fs::read_to_string(place.path("out.ndjson")).unwrap();
    let first: Value = serde_json::from_str(held.lines().next().unwrap()).unwrap();
    let id = first["decision_id"].as_str().unwrap();
    let copy = held.lines().next().unwrap().replace(id, "gone");
    std::io::Write::write_all(&mut out, format!("{copy}\n").as_bytes()).unwrap();
    let (report, code, told) = verified(&path, &[]);
    assert_eq!(
        (code, &sink(&report, "file")["in_source"]),
        (1, &serde_json::json!(["gone"])),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_came_in_several_records_are_found_where_they_ended() {
    let (mock, place) = (mock(), Place::new("parts"));
    let path = pipeline(&place, &mock, FILE);
    let running = Running::start(&place, &path);
    let decision = |id: &str| {
        format!(
            r#"{{"decision_id":"{id}","path":"a","result":true,"timestamp":"2026-11-24T12:48:50Z"}}"#
        )
    };
    let part = |id: &str, (from, to): (usize, usize), last: bool| {
        let log = &decision(id)[from..to];
        serde_json::json!({"container_id": "c1", "log": log, "partial_message": "true", "partial_last": last.to_string()}).to_string()
    };
    let len = decision("split").len();
    let source = Source::new(&mock.bootstrap(), "source");
    source.write_to(0, &part("split", (0, 40), false));
    source.write_to(0, &decision("between"));
    source.write_to(0, &part("split", (40, len), true));
    source.flush();
    running.until("both", 60, |m| m.delivered("file") == 2).await;
    // Its end does not come in time: a reject, and what comes then is none.
    source.write_to(0, &part("late", (0, 40), false));
    source.flush();
    running.until("given up", 60, |m| m.rejected() == 1).await;
    source.write_to(0, &part("late", (40, len - 1), true));
    source.write_to(0, &decision("after"));
    source.flush();
    running.until("all", 60, |m| m.delivered("file") == 3).await;
    running.stop();
    has_read(&place, &mock);
    let (report, code, told) = verified(&path, &[]);
    let source = &report["source"];
    assert_eq!(
        (&source["present"], &source["lost"]),
        (&3.into(), &serde_json::json!([])),
        "{told}"
    );
    // Put together after all, it is no decision that intake could have made, and is not called one that it lost.
    assert!(code == 0 || code == 3 && source["not_compared"] == 1, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stood_there_before_intake_started_at_the_end_is_not_wanted() {
    let (mock, place) = (mock(), Place::new("latest"));
    let path = pipeline(&place, &mock, &format!("intake: {{start: latest}}\n{FILE}"));
    produce(&mock.bootstrap(), "source", generated(20, 1));
    let running = Running::start(&place, &path);
    let decisions = generated(300, 2);
    for decision in &decisions {
        produce(&mock.bootstrap(), "source", [decision]);
        if running.metrics().await.written() > 4 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    running.stop();
    has_read(&place, &mock);
    let written = read_all(&mock.bootstrap(), "docket").len();
    let (report, code, told) = verified(&path, &[]);
    assert_eq!((code, &report["source"]["present"]), (0, &written.into()), "{told}");
    assert_eq!(report["source"]["expected"], written);
    assert!(told.contains("from before intake's first record"), "{told}");
}

/// By hand: `cargo test --test verify -- --ignored`.
#[test]
#[ignore = "it takes a minute, and 2 GB of TMPDIR"]
fn ten_million_decisions_are_compared_in_200_mb() {
    let total: usize = std::env::var("DOCKET_DECISIONS").map_or(10_000_000, |n| n.parse().unwrap());
    let peak = || status(std::process::id(), "VmHWM").unwrap() >> 10;
    let mut raw = Vec::new();
    let decision =
        br#"{"decision_id":"d","timestamp":"2026-11-24T12:48:50Z","path":"a/allow","result":true}"#;
    let event = docket::decision::event::Event::parse(decision).unwrap();
    docket::decision::record::write(&event, &[], None, &Default::default(), &mut raw);
    let record = Record::parse(&raw).unwrap();
    let began = std::time::Instant::now();
    let mut all = Docket::new(total as u64, ["one", "two"].map(str::to_owned).into_iter());
    let id = |i: usize| format!("{i:08x}-0122-435d-8e2e-4046910e1c1b");
    for i in 0..total {
        let mut decision = Decision::new(&record, 0, 1_795_524_531_000 + i as i64);
        decision.id = id(i);
        decision.timestamp += i as i64 * 1_000_000;
        let due = [i as u128, 7].map(|hash| Due { hash, finished: true });
        all.add(&record, decision, &due, 200).unwrap();
    }
    all.look().unwrap();
    let mut source = Expected::new(all.portions());
    fn of(id: &str, i: usize, original: u64) -> Decided<'_> {
        let spot = (0, i as i32 % 12, i as i64 / 12);
        Decided { spot, element: 0, id, original, record: 0, joined: false }
    }
    let same = original(&record);
    for i in 0..total {
        source.add(&of(&id(i), i, same)).unwrap();
    }
    source.add(&of("lost", total, same)).unwrap();
    let (mut left, mut there) = (Candidates::new(all.portions()), 0);
    for at in 0..all.portions().count() {
        there += source.compare(at, &all, &mut left).unwrap().1;
    }
    assert_eq!((source.count, there, left.count), (total + 1, total, 1));
    drop(source);
    let mut found = Spill::new(all.portions());
    for i in (0..total).rev().filter(|i| *i != total / 2) {
        let hash = Some(if i == 5 { 0 } else { i as u128 });
        write_held(&mut found, Present { id: &id(i), hash, at: None }, None).unwrap();
    }
    let mut compared = Compared::default();
    for at in 0..all.portions().count() {
        let (entries, held) = (all.portion(at).unwrap(), found.portion(at).unwrap());
        let want = |e: docket::verify::docket::Entry<'_>| (e.id.to_owned(), e.original, e.due.hash);
        let wanted: Vec<_> = all.entries(&entries, "one").map(want).collect();
        let mut wanted: Vec<Wanted<'_>> = wanted
            .iter()
            .map(|(id, original, hash)| Wanted {
                id,
                original: *original,
                hash: *hash,
                rejected: false,
                elsewhere: false,
                unsent: false,
            })
            .collect();
        compared.add(&mut wanted, &mut read_held(&held), &mut |_, _| (), &mut |_| ());
    }
    println!("{total} decisions: {} MB, {:.0} s", peak(), began.elapsed().as_secs_f64());
    assert_eq!(
        (compared.missing.listed, compared.altered.listed),
        (vec![id(total / 2)], vec![id(5)])
    );
    assert_eq!((compared.expected, compared.present), (total, total - 1));
    assert!(peak() < 200, "{} MB", peak());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_of_nothing_says_what_it_waits_for_and_ends_with_its_reader() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    let (mock, place) = (mock(), Place::new("tail"));
    let pipeline = pipeline(&place, &mock, "sinks:\n  metrics: {type: metrics}\n");
    let mut command = docket();
    command.arg("tail").arg(&pipeline).args(["--verdict", "deny"]);
    let mut tail = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(tail.stderr.take().unwrap()).lines().map(Result::unwrap);
    let waits = "waiting for decisions that match in the topic docket ..; --from 1h shows ";
    let first = said.find(|line| !line.starts_with("waiting for Kafka at ")).unwrap();
    assert!(first.starts_with(waits), "{first}");
    // Nothing comes that would have to be written.
    drop(tail.stdout.take());
    assert!(tail.wait().unwrap().success());
    let none = docket().arg("tail").arg(&pipeline).arg("--until-end").output().unwrap();
    let said = unhurried(none.stderr);
    assert!(
        none.status.success() && said.starts_with("no decisions in the topic docket "),
        "{said}"
    );
}
