//! Parts that fail are told, and those that do not are not; a reload that fails half way changes nothing: what ran goes on, the file is counted as
//! refused, and the next good one is taken.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use super::door::{door, opened};
use super::support::kafka_proxy::KafkaProxy;
use super::support::{Metrics, Place, Running, decision_id, generated, produce};
use super::{address, certificate, pipeline};

fn reloads(metrics: &Metrics, outcome: &str) -> u64 {
    metrics.sum("docket_reloads_total", &[&format!("outcome=\"{outcome}\"")])
}

/// Writes the file with something else in it.
fn change(path: &Path, changes: &[(&str, &str)]) {
    let mut text = std::fs::read_to_string(path).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}: {text}");
        text = text.replacen(from, to, 1);
    }
    std::fs::write(path, text).unwrap();
}

async fn refused(running: &Running, times: u64) {
    running.until("the changed file is refused", 30, |m| reloads(m, "refused") == times).await;
    assert!(running.log().contains("the old one stays in force"), "{}", running.log());
    // It is told as long as it stands there, and the process is ready all the same.
    let status = super::get(&format!("http://{}/status", running.admin)).await;
    assert!(status.to_string().contains("is refused"), "{status}");
    let ready = reqwest::get(format!("http://{}/readyz", running.admin)).await.unwrap();
    let (code, body) = (ready.status(), ready.text().await.unwrap());
    assert_eq!(code, 200, "{body}\n{}", running.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_whose_authority_is_gone_is_refused_with_all_else_in_the_file() {
    let _servers = super::together().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("halfway");
    let name = place.name.clone();
    // The address is plain HTTP: what counts is that the file is read.
    let authority = place.path("ca.pem");
    std::fs::copy(certificate("ca.pem"), &authority).unwrap();
    let path = pipeline(
        &place,
        1,
        &format!(
            "docket: {{partitions: 1}}
intake: {{transaction_interval: 200ms}}
sinks:
  out: {{type: file, path: $DIR/out, delivery: {{batch_records: 100}}}}
  search: {{type: elasticsearch, url: \"{}\", index: $NAME, tls: {{ca_file: $DIR/ca.pem}}}}
",
            address("OPENSEARCH_URL")
        ),
    )
    .await;
    let source = format!("{name}-source");
    let all = generated(300, 61);
    let running = Running::start(&place, &path);
    let has = async |total: usize| {
        produce(&kafka, &source, &all[total - 100..total]);
        let both = |m: &Metrics| ["out", "search"].iter().all(|s| m.delivered(s) == total as u64);
        running.until("both sinks deliver", 60, both).await;
    };
    has(100).await;

    std::fs::remove_file(&authority).unwrap();
    change(
        &path,
        &[
            ("batch_records: 100", "batch_records: 50"),
            ("transaction_interval: 200ms", "transaction_interval: 100ms"),
            ("index:", "compression: none, index:"),
        ],
    );
    refused(&running, 1).await;
    assert!(running.log().contains("ca.pem"), "{}", running.log());
    has(200).await;
    let metrics = running.metrics().await;
    assert_eq!((reloads(&metrics, "applied"), reloads(&metrics, "refused")), (0, 1));

    // It is there again, and the same file is good.
    std::fs::copy(certificate("ca.pem"), &authority).unwrap();
    running.until("the good file is taken", 30, |m| reloads(m, "applied") == 1).await;
    has(300).await;
    let metrics = running.metrics().await;
    assert_eq!(metrics.sum("docket_part_restarts_total", &[]), 0, "{}", running.log());
    running.stop();
    let lines = std::fs::read_to_string(place.path("out")).unwrap();
    let mut there: Vec<String> = lines.lines().map(decision_id).collect();
    let mut wanted: Vec<String> = all.iter().map(|d| decision_id(d)).collect();
    there.sort();
    wanted.sort();
    assert_eq!(there, wanted, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_whose_new_address_is_taken_stays_open_at_the_old_one() {
    let _servers = super::together().await;
    let place = Place::new("taken");
    let path = pipeline(
        &place,
        1,
        "docket: {partitions: 1}
door: {listen: \"127.0.0.1:0\"}
sinks: {out: {type: file, path: $DIR/out}}
",
    )
    .await;
    let running = Running::start(&place, &path);
    let first = opened(&running).await;
    let client = reqwest::Client::new();
    let all = generated(30, 62);
    let uploads = async |at: &str, total: usize| {
        let some = format!("[{}]", all[total - 10..total].join(","));
        let answer = client.post(format!("http://{at}/logs")).body(some).send().await;
        let status = answer.map(|a| a.status().as_u16()).map_err(|e| format!("{e:?}"));
        assert_eq!(status, Ok(200), "the door at {at}:\n{}", running.log());
        running.until("it is delivered", 30, |m| m.delivered("out") == total as u64).await;
    };
    uploads(&first, 10).await;

    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    change(&path, &[("127.0.0.1:0", &taken)]);
    running
        .until("the file was read again", 30, |m| reloads(m, "refused") + reloads(m, "applied") > 0)
        .await;
    uploads(&first, 20).await;
    refused(&running, 1).await;

    // Another is named: the good file is taken.
    change(&path, &[(&taken, "localhost:0")]);
    running.until("the good file is taken", 30, |m| reloads(m, "applied") >= 1).await;
    let now = super::support::until("the door is open elsewhere", 30, async || {
        let now = door(&running);
        if now == first { Err(running.log()) } else { Ok(now) }
    })
    .await;
    uploads(&now, 30).await;
    drop(other);
    running.stop();
    let lines = std::fs::read_to_string(place.path("out")).unwrap();
    assert_eq!(lines.lines().count(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_put_out_of_its_group_and_does_not_come_back_is_not_well() {
    let _servers = super::together().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let proxy = KafkaProxy::start(&kafka).await;
    let place = Place::new("outside");
    let path = pipeline(
        &place,
        1,
        &format!(
            "kafka: {{brokers: \"{}\", properties: {{session.timeout.ms: 6000, heartbeat.interval.ms: 1000}}}}
docket: {{partitions: 1}}
intake: {{transaction_interval: 200ms}}
sinks:
  out: {{type: file, path: $DIR/out}}
  metrics: {{type: metrics}}
",
            proxy.bootstrap
        ),
    )
    .await;
    let (source, all) = (format!("{}-source", place.name), generated(200, 62));
    let running = Running::start(&place, &path);
    let up = |m: &Metrics, part: &str| m.sum("docket_part_up", &[&format!("part=\"{part}\"")]);
    produce(&kafka, &source, &all[..100]);
    running.until("the first are delivered", 60, |m| m.delivered("out") == 100).await;
    proxy.shut(Some(&format!("docket.{}.out", place.name)));
    running.until("it is not well", 120, |m| up(m, "out") == 0).await;
    let status = super::get(&format!("http://{}/status", running.admin)).await;
    let parts = status["parts"].as_array().unwrap();
    let part = parts.iter().find(|part| part["part"] == "out").unwrap();
    let cause = part["cause"].as_str().unwrap();
    assert!(cause.starts_with("not in its consumer group for "), "{status}");
    let metrics = running.metrics().await;
    for other in ["intake", "kafka", "metrics"] {
        assert_eq!(up(&metrics, other), 1, "{other}: {status}");
    }
    proxy.shut(None);
    produce(&kafka, &source, &all[100..]);
    running.until("it is back", 60, |m| m.delivered("out") == 200 && up(m, "out") == 1).await;
    running.stop();
}

/// What a transaction ends with takes an offset that no reader is handed.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_log_that_ends_with_a_transaction_is_no_stall() {
    let _servers = super::together().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("idle");
    let path = pipeline(
        &place,
        1,
        "docket: {partitions: 3}
intake: {transaction_interval: 200ms}
watchdog: {stalled_after: 5s}
sinks:
  out: {type: file, path: $DIR/out}
  metrics: {type: metrics}
",
    )
    .await;
    let (source, all) = (format!("{}-source", place.name), generated(40, 63));
    let running = Running::start(&place, &path);
    for (round, decisions) in all.chunks(20).enumerate() {
        produce(&kafka, &source, decisions);
        let delivered = 20 * (round as u64 + 1);
        running.until("they are delivered", 60, |m| m.delivered("out") == delivered).await;
        for _ in 0..15 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let metrics = running.metrics().await;
            let stalled = metrics.sum("docket_stalled_partitions", &[]);
            assert_eq!(stalled, 0, "{}", running.log());
        }
    }
    running.stop();
}
