//! Records that are made to stop intake, beside good ones in one partition: bombs of gzip, and fields at which a policy in Rego panics or
//! never ends. Each becomes one reject, the good ones are all there, the process lives and its memory stays within bounds.

use std::collections::BTreeSet;
use std::io::Write;

use super::support::{
    Metrics, Place, Running, decision_id, docket, generated, produce, read_all, status, until,
};
use super::{address, create_topic, init};

/// In KiB.
const BUDGET: u64 = 256 << 10;

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// A list of so many times this, compressed.
fn list(of: &str, times: usize) -> Vec<u8> {
    let all = vec![of; times].join(",");
    gzip(format!("[{all}]").as_bytes())
}

fn decision(id: &str, input: &str) -> String {
    let at = jiff::Timestamp::now();
    format!(
        r#"{{"decision_id":"{id}","path":"a/allow","result":true,"timestamp":"{at}","input":{input}}}"#
    )
}

fn ids(decisions: &[String]) -> BTreeSet<String> {
    decisions.iter().map(|d| decision_id(d)).collect()
}

fn restarts(metrics: &Metrics) -> u64 {
    metrics.sum("docket_part_restarts_total", &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_of_gzip_are_one_reject_each_and_the_process_lives() {
    let _servers = super::together().await;
    init();
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("bombs");
    let (source, topic) = (format!("{}-source", place.name), format!("docket.{}", place.name));
    create_topic(&kafka, &source, 1, &[]).await;
    let path = place.pipeline(&format!(
        "name: $NAME
kafka: {{brokers: \"{kafka}\"}}
sources: [{{topic: $NAME-source}}]
docket: {{partitions: 1}}
memory: {{budget: {BUDGET}KiB}}
sinks: {{out: {{type: file, path: $DIR/out}}}}
"
    ));
    assert!(docket().args(["setup", "--yes"]).arg(&path).status().unwrap().success());
    // Eight million elements in 15.6 kB; half as many objects; 150 MB of nothing, once more compressed and not.
    let spaces = vec![b' '; 150 << 20];
    let nothing = gzip(&spaces);
    let bombs = [list("1", 8_000_000), list("{}", 4_000_000), gzip(&nothing), nothing];
    drop(spaces);
    println!("bombs of {:?} bytes", bombs.each_ref().map(Vec::len));
    assert!(bombs[0].len() < 16_000);
    let good = generated(500, 71);
    let mut records: Vec<Vec<u8>> = Vec::new();
    for (i, some) in good.chunks(100).enumerate() {
        records.extend(some.iter().map(|d| d.clone().into_bytes()));
        records.extend(bombs.get(i).cloned());
    }
    produce(&kafka, &source, &records);
    let running = Running::start(&place, &path);
    let metrics = running
        .until("all is accounted for", 90, |m| {
            m.written() == 500 && m.rejected() >= 4 && m.delivered("out") == 500
        })
        .await;
    assert_eq!((metrics.rejected(), restarts(&metrics)), (4, 0), "{}", metrics.docket());
    let letters = read_all(&kafka, &format!("{topic}.rejects"));
    assert_eq!(letters.len(), 4);
    for letter in &letters {
        assert_eq!(letter.headers["docket-reason"], "too_large", "{:?}", letter.headers);
        assert!(bombs.contains(&letter.value), "with its bytes");
    }
    let written = std::fs::read_to_string(place.path("out")).unwrap();
    assert_eq!(written.lines().map(decision_id).collect::<BTreeSet<_>>(), ids(&good));
    // A process that was killed and began again would have forgotten how much it held.
    let most = status(running.pid(), "VmHWM").unwrap();
    println!("at most {} MiB of {}", most >> 10, BUDGET >> 10);
    assert!(most < BUDGET, "{most} KiB of {BUDGET}");
    produce(&kafka, &source, [decision("after", "{}")]);
    running.until("it goes on", 30, |m| m.delivered("out") == 501).await;
    running.stop();
}

/// Three nested ranges never end. `strings.count` of nothing, at which regorus 0.14.1 panics, is answered as OPA does.
const MASK: &str = r#"package system.log
import rego.v1

mask contains "/input/text" if {
	input.input.of == "mask"
	strings.count(input.input.text, input.input.part) > 0
}

mask contains "/input/n" if {
	input.input.of == "mask"
	some a in numbers.range(1, input.input.n)
	some b in numbers.range(1, input.input.n)
	some c in numbers.range(1, input.input.n)
	a + b + c == -1
}
"#;
const VERDICT: &str = r#"package docket
import rego.v1

verdict := "deny" if {
	input.input.of == "verdict"
	strings.count(input.input.text, input.input.part) > 0
}

verdict := "allow" if {
	input.input.of == "verdict"
	some a in numbers.range(1, input.input.n)
	some b in numbers.range(1, input.input.n)
	some c in numbers.range(1, input.input.n)
	a + b + c == -1
}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_field_at_which_a_policy_never_ends_stops_nothing() {
    let _servers = super::together().await;
    init();
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("rego");
    let (source, topic) = (format!("{}-source", place.name), format!("docket.{}", place.name));
    create_topic(&kafka, &source, 1, &[]).await;
    std::fs::write(place.path("mask.rego"), MASK).unwrap();
    std::fs::write(place.path("verdict.rego"), VERDICT).unwrap();
    let path = place.pipeline(&format!(
        "name: $NAME
kafka: {{brokers: \"{kafka}\"}}
sources: [{{topic: $NAME-source}}]
docket: {{partitions: 1}}
protect: {{opa: {{policies: [mask.rego]}}}}
verdict_policy: {{policies: [verdict.rego]}}
sinks: {{out: {{type: file, path: $DIR/out}}}}
"
    ));
    assert!(docket().args(["setup", "--yes"]).arg(&path).status().unwrap().success());
    let input = |of: &str, part: &str, n: u32| {
        format!(r#"{{"of":"{of}","text":"sesame","part":"{part}","n":{n}}}"#)
    };
    let good = generated(200, 72);
    let mut records = good.clone();
    for (at, id, input) in [
        (20, "masked", input("mask", "s", 1)),
        (50, "masked-by-nothing", input("mask", "", 1)),
        (80, "mask-never-ends", input("mask", "x", 3000)),
        (110, "denied", input("verdict", "s", 1)),
        (140, "verdict-never-ends", input("verdict", "x", 3000)),
    ] {
        records.insert(at, decision(id, &input));
    }
    produce(&kafka, &source, &records);
    let running = Running::start(&place, &path);
    let metrics = running
        .until("all is accounted for", 90, |m| {
            m.written() == 204 && m.rejected() == 1 && m.delivered("out") == 204
        })
        .await;
    assert_eq!(restarts(&metrics), 0, "{}", metrics.docket());
    assert_eq!(metrics.sum("docket_results_unjudged_total", &[]), 1);
    let letters = read_all(&kafka, &format!("{topic}.rejects"));
    assert_eq!(letters.len(), 1);
    let text = std::fs::read_to_string(place.path("out")).unwrap();
    for letter in &letters {
        assert_eq!(letter.headers["docket-reason"], "mask_failed", "{:?}", letter.headers);
        // What was to be masked is told nowhere.
        let told = format!("{:?} {}", letter.headers, String::from_utf8_lossy(&letter.value));
        assert!(!told.contains("sesame"), "{told}");
    }
    let line = |id: &str| -> serde_json::Value {
        let mut all = text.lines().filter(|line| decision_id(line) == id);
        let one = all.next().unwrap_or_else(|| panic!("{id} is missing"));
        assert!(all.next().is_none(), "{id}");
        serde_json::from_str(one).unwrap()
    };
    for masked in ["masked", "masked-by-nothing"] {
        assert!(line(masked)["input"].get("text").is_none());
    }
    assert_eq!(line("denied")["docket"]["verdict"], "deny");
    assert_eq!(line("verdict-never-ends")["docket"]["verdict"], "undefined");
    let there: BTreeSet<String> = text.lines().map(decision_id).collect();
    assert!(ids(&good).is_subset(&there));
    until("it is ready", 20, async || {
        let ready = reqwest::get(format!("http://{}/readyz", running.admin)).await.unwrap();
        if ready.status() == 200 { Ok(()) } else { Err(ready.text().await.unwrap()) }
    })
    .await;
    running.stop();
}

/// Writes lines with a header whose name is no UTF-8, which rdkafka neither writes nor reads.
fn produce_with_a_strange_header(kafka: &str, topic: &str, lines: &str) {
    use std::os::unix::ffi::OsStrExt;
    let header = std::ffi::OsStr::from_bytes(b"\xff\xfe=a");
    let kcat = std::process::Command::new("kcat")
        .args(["-b", kafka, "-t", topic, "-P", "-H"])
        .arg(header)
        .args(["-H", "sound=yes"])
        .stdin(std::process::Stdio::piped())
        .spawn();
    let mut kcat = kcat.expect("kcat");
    kcat.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(kcat.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_whose_name_is_no_utf_8_stops_nothing_and_blinds_nobody() {
    let _servers = super::together().await;
    init();
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("headers");
    let (source, topic) = (format!("{}-source", place.name), format!("docket.{}", place.name));
    create_topic(&kafka, &source, 2, &[]).await;
    let path = place.pipeline(&format!(
        "name: $NAME
kafka: {{brokers: \"{kafka}\"}}
sources: [{{topic: $NAME-source}}]
sinks: {{out: {{type: file, path: $DIR/out}}}}
"
    ));
    assert!(docket().args(["setup", "--yes"]).arg(&path).status().unwrap().success());
    let decisions = generated(40, 73);
    let (strange, plain) = decisions.split_at(20);
    produce_with_a_strange_header(&kafka, &source, &strange.join("\n"));
    produce_with_a_strange_header(&kafka, &source, "no decision\n");
    produce(&kafka, &source, plain);
    let running = Running::start(&place, &path);
    let metrics = running
        .until("all is accounted for", 60, |m| {
            m.written() == 40 && m.rejected() == 1 && m.delivered("out") == 40
        })
        .await;
    assert_eq!(restarts(&metrics), 0, "{}", metrics.docket());
    running.stop();
    let written = std::fs::read_to_string(place.path("out")).unwrap();
    assert_eq!(written.lines().map(decision_id).collect::<BTreeSet<_>>(), ids(&decisions));
    // Among rejects, too.
    produce_with_a_strange_header(&kafka, &format!("{topic}.rejects"), "one");
    for command in [&["verify"][..], &["rejects"], &["rejects", "--list"], &["redrive"]] {
        let out = docket().args(command).arg(&path).output().unwrap();
        let told = String::from_utf8_lossy(&out.stderr);
        assert!(!told.contains("panicked"), "{command:?}: {told}");
        assert!(matches!(out.status.code(), Some(0..=3)), "{command:?}: {told}");
    }
}
