//! Killed, restarted, cut off, reloaded, and for a long time without a sink: what docket promises, on real servers.

use std::collections::{HashMap, HashSet};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::logs::{self, LogStore};
use super::support::proxy::{Fault, Proxy};
use super::support::{Place, Running, Source, docket, generated, produce, read_all};
use super::{Stopped, address, count, init, pipeline, post};

pub(super) fn signal(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

/// How often each decision stands in the docket (read committed).
pub(super) fn times(kafka: &str, topic: &str) -> HashMap<String, u32> {
    let mut seen = HashMap::new();
    for record in read_all(kafka, topic) {
        *seen.entry(record.json()["decision_id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    seen
}

pub(super) fn feed(
    kafka: &str,
    topic: &str,
    decisions: Vec<String>,
    over: Duration,
) -> std::thread::JoinHandle<()> {
    let source = Source::new(kafka, topic);
    std::thread::spawn(move || {
        let started = Instant::now();
        for (i, chunk) in decisions.chunks(decisions.len().div_ceil(100)).enumerate() {
            std::thread::sleep((over * i as u32 / 100).saturating_sub(started.elapsed()));
            source.write(chunk);
        }
    })
}

/// Waits until the index holds so many.
pub(super) async fn documents(index: &str, total: u64, seconds: u64, log: impl Fn() -> String) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        let n = count(index, json!({ "match_all": {} })).await;
        if n >= total {
            assert_eq!(n, total);
            return;
        }
        assert!(Instant::now() < deadline, "{n} documents of {total}\n{}", log());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

pub(super) fn verified(pipeline: &std::path::Path, more: &[&str]) -> (Value, bool) {
    let out = docket()
        .args(["verify", "--from", "start", "--json"])
        .args(more)
        .arg(pipeline)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&out.stdout).into_owned();
    let report = serde_json::from_str(&told)
        .unwrap_or_else(|_| panic!("{told}\n{}", String::from_utf8_lossy(&out.stderr)));
    (report, out.status.success())
}

/// Each time for two seconds, or as many as DOCKET_AWAY says.
#[tokio::test(flavor = "multi_thread")]
async fn the_broker_is_restarted_again_and_again_and_a_transaction_times_out_under_load() {
    let _servers = super::alone().await;
    let away = Duration::from_secs(std::env::var("DOCKET_AWAY").map_or(2, |s| s.parse().unwrap()));
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("broker");
    let name = place.name.clone();
    let pipeline = pipeline(
        &place,
        4,
        &format!(
            "kafka: {{brokers: \"{kafka}\", properties: {{session.timeout.ms: 6000}}}}
intake: {{transaction_interval: 50ms}}
docket: {{partitions: 4}}
sinks:
  search: {{type: elasticsearch, url: \"{}\", index: $NAME}}
",
            address("OPENSEARCH_URL")
        ),
    )
    .await;
    let running = Running::start(&place, &pipeline);
    let total = 30_000;
    let feeding =
        feed(&kafka, &format!("{name}-source"), generated(total, 77), Duration::from_secs(65));
    tokio::time::sleep(Duration::from_secs(4)).await;
    for (hard, up) in [(true, 5), (false, 1), (false, 1), (false, 5)] {
        let stopped = if hard { Stopped::killed("kafka") } else { Stopped::in_order("kafka") };
        tokio::time::sleep(away).await;
        drop(stopped);
        // The only broker, while it stops, may say that there are none: librdkafka takes it at its word.
        tokio::time::sleep(Duration::from_secs(up)).await;
    }
    // Stopped for longer than a transaction may take: the coordinator aborts it, and the group puts the member out.
    signal(running.pid(), "-STOP");
    tokio::time::sleep(Duration::from_secs(20)).await;
    signal(running.pid(), "-CONT");
    tokio::task::spawn_blocking(move || feeding.join().unwrap()).await.unwrap();
    documents(&name, total as u64, 120, || running.log()).await;
    let seen = times(&kafka, &format!("docket.{name}"));
    assert_eq!(
        (seen.len(), seen.values().filter(|n| **n > 1).count()),
        (total, 0),
        "decisions in the docket, and repeated ones"
    );
    assert!(read_all(&kafka, &format!("docket.{name}.rejects")).is_empty());
    running.stop();
}

/// By default two minutes; DOCKET_OUTAGE=600 makes it ten.
#[tokio::test(flavor = "multi_thread")]
async fn a_sink_is_away_for_long_and_memory_stays_within_the_budget() {
    let _servers = super::alone().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let outage =
        Duration::from_secs(std::env::var("DOCKET_OUTAGE").map_or(60, |s| s.parse().unwrap()));
    let place = Place::new("outage");
    let name = place.name.clone();
    let store = LogStore::victorialogs();
    let proxy = Proxy::start(&store.url).await;
    let budget = 192;
    let pipeline = pipeline(
        &place,
        4,
        &format!(
            "docket: {{partitions: 4}}
memory: {{budget: {budget}MiB}}
watchdog: {{stalled_after: 20s}}
sinks:
{}  search: {{type: elasticsearch, url: \"{}\", index: $NAME}}
",
            store.sink(
                &proxy.url,
                "labels: {service: service, run: \"=$NAME\"}, delivery: {retry_max: 5s}"
            ),
            address("OPENSEARCH_URL")
        ),
    )
    .await;
    let running = Running::start(&place, &pipeline);
    running
        .until("it is ready", 30, |m| m.sum("docket_rebalances_total", &["assigned"]) >= 3)
        .await;
    proxy.set(Fault::Status(503, ""));
    let total = 200_000;
    let started = Instant::now();
    let feeding = feed(&kafka, &format!("{name}-source"), generated(total, 5), outage.mul_f64(0.9));
    let (mut most, mut behind, mut stalled, mut told) = (0, 0, false, false);
    while started.elapsed() < outage {
        let metrics = running.metrics().await;
        most = most.max(metrics.sum("process_resident_memory_bytes", &[]));
        behind = behind.max(metrics.sum("docket_lag_records", &["part=\"search\""]));
        stalled |= metrics.sum("docket_stalled_partitions", &["part=\"victorialogs\""]) > 0;
        let ready = reqwest::get(format!("http://{}/readyz", running.admin)).await.unwrap();
        assert_eq!(ready.status(), 200, "a sink that is away makes nobody unready");
        let status = super::get(&format!("http://{}/status", running.admin)).await;
        let parts = status["parts"].as_array().unwrap();
        told |= parts.iter().any(|part| part["part"] == "victorialogs" && part["well"] == false);
        assert_eq!(metrics.delivered("victorialogs"), 0);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    feeding.join().unwrap();
    let metrics = running
        .until("the sink beside it is up to date", 300, |m| m.delivered("search") == total as u64)
        .await;
    assert_eq!(
        metrics.sum("docket_sink_failing", &["sink=\"victorialogs\"", "cause=\"server\""]),
        1
    );
    assert!(stalled && told, "the watchdog said nothing: metric {stalled}, status {told}");
    proxy.set(Fault::None);
    let back = Instant::now();
    let metrics = running
        .until("the sink caught up", 120, |m| m.delivered("victorialogs") == total as u64)
        .await;
    let caught_up = back.elapsed();
    most = most.max(metrics.sum("process_resident_memory_bytes", &[]));
    println!(
        "away for {} s, {total} decisions: at most {} MiB of a budget of {budget}; the sink beside it at most {behind} records behind; caught up in {:.1} s",
        outage.as_secs(),
        most >> 20,
        caught_up.as_secs_f64()
    );
    assert!(most < budget << 20, "{} MiB", most >> 20);
    running.until("nothing is stalled", 30, |m| m.sum("docket_stalled_partitions", &[]) == 0).await;
    assert_eq!(metrics.sum("docket_rejects_total", &[]), 0);
    running.stop();
}

/// OpenSearch refuses documents for a mapping; the mapping is repaired, the rejects sent round again.
#[tokio::test(flavor = "multi_thread")]
async fn rejects_are_shown_repaired_and_replayed() {
    let _servers = super::together().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("replay");
    let name = place.name.clone();
    let url = address("OPENSEARCH_URL");
    let pipeline = pipeline(
        &place,
        2,
        &format!(
            "docket: {{partitions: 2}}
sinks:
  search: {{type: elasticsearch, url: \"{url}\", index: $NAME}}
{}",
            logs::sinks(&LogStore::all().await, "labels: {run: \"=$NAME\"}")
        ),
    )
    .await;
    let client = reqwest::Client::new();
    // Unknown members of `tier` are refused.
    let mapping = json!({ "mappings": { "properties": { "tier": { "dynamic": "strict", "properties": { "level": { "type": "keyword" } } } } } }).to_string();
    let put = |index: String, body: String| {
        client
            .put(format!("{url}/{index}"))
            .header("content-type", "application/json")
            .body(body)
            .send()
    };
    assert!(put(name.clone(), mapping).await.unwrap().status().is_success());
    let running = Running::start(&place, &pipeline);
    let mut decisions = generated(500, 3);
    for decision in decisions.iter_mut().take(40) {
        *decision =
            decision.replacen("{\"labels\"", "{\"tier\":{\"color\":\"gold\"},\"labels\"", 1);
    }
    decisions.push("not json".into());
    produce(&kafka, &format!("{name}-source"), &decisions);
    running
        .until("460 delivered, 40 refused", 60, |m| {
            m.delivered("search") == 460
                && m.sum("docket_rejects_total", &["part=\"search\""]) == 40
        })
        .await;
    let others = ["victorialogs", "loki"];
    running
        .until("the other sinks have all", 60, |m| others.iter().all(|s| m.delivered(s) == 500))
        .await;

    let run = |args: &[&str]| {
        let out = docket().args(args).arg(&pipeline).output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let shown = run(&["rejects"]);
    assert!(
        shown.contains("41 in all")
            && shown.contains("strict_dynamic_mapping_exception")
            && shown.contains("not_json"),
        "{shown}"
    );
    assert_eq!(run(&["rejects", "--sink", "search", "--list"]).lines().count(), 40);
    let (report, complete) = verified(&pipeline, &["--sink", "search"]);
    assert!(complete, "what is in rejects is accounted for: {report}");
    assert_eq!(report["sinks"][0]["rejected"], 40);

    // The mapping is repaired.
    let more =
        json!({ "properties": { "tier": { "properties": { "color": { "type": "keyword" } } } } });
    assert!(put(format!("{name}/_mapping"), more.to_string()).await.unwrap().status().is_success());

    let dry = run(&["redrive", "--sink", "search"]);
    assert!(dry.contains("would be sent: 40 to search"), "{dry}");
    assert_eq!(count(&name, json!({ "match_all": {} })).await, 460, "a dry run sends nothing");
    let sent = run(&["redrive", "--sink", "search", "--send"]);
    assert!(sent.contains("search: 40 delivered, 0 refused again"), "{sent}");
    documents(&name, 500, 10, String::new).await;
    assert!(
        run(&["redrive", "--sink", "search"]).contains("no rejects"),
        "what was sent is not sent again"
    );
    assert!(run(&["rejects", "--sink", "search", "--again"]).contains("40 in all"));
    // What intake rejected goes to its source topic, and is rejected again.
    assert!(run(&["redrive", "--send"]).contains("intake: 1 sent"));
    running.until("rejected again", 30, |m| m.rejected() == 2).await;

    // The past of a sink that lost its index.
    assert!(client.delete(format!("{url}/{name}")).send().await.unwrap().status().is_success());
    assert!(
        run(&["backfill", "--sink", "search", "--from", "1h"])
            .contains("500 decisions would be sent to search")
    );
    assert!(
        run(&["backfill", "--sink", "search", "--from", "1h", "--send"])
            .contains("search: 500 delivered")
    );
    documents(&name, 500, 10, String::new).await;
    assert!(verified(&pipeline, &[]).1);
    running.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_accuses_nobody_of_what_came_at_another_time() {
    let _servers = super::together().await;
    let (kafka, place) = (address("KAFKA_BOOTSTRAP"), Place::new("until"));
    let sinks = "sinks:\n  file: {type: file, path: \"$DIR/out.ndjson\"}\n";
    let pipeline = pipeline(&place, 2, sinks).await;
    // More than are listed one by one, and all of them in the source before they are in the docket.
    let total = 12_000;
    produce(&kafka, &format!("{}-source", place.name), generated(total, 31));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let between = docket::decision::time::format(docket::clock::now());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let running = Running::start(&place, &pipeline);
    running.until("all delivered", 90, |m| m.delivered("file") == total as u64).await;
    running.stop();
    let (report, _) = verified(&pipeline, &["--until", &between]);
    assert_eq!(report["docket"]["decisions"], 0, "{report}");
    let (source, file) = (&report["source"], &report["sinks"][0]);
    assert_eq!((&source["expected"], &source["present"]), (&total.into(), &total.into()));
    assert_eq!((&source["notes"], &file["only_there"]), (&json!([]), &json!([])), "{report}");
    assert_eq!((&report["gaps"], &file["unlisted"]), (&0.into(), &0.into()), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_exactly_what_was_damaged() {
    let _servers = super::together().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("verify");
    let name = place.name.clone();
    let url = address("OPENSEARCH_URL");
    // Lines of log stores can't be altered: those that are missing are dropped on the way, by a proxy of ours. Each store has a sink
    // that gets all, and one that does not.
    let stores = LogStore::all().await;
    let mut log_sinks = String::new();
    for store in &stores {
        let dropping = dropping(store.url.clone()).await;
        let whole = "labels: {service: service, verdict: verdict, run: \"=$NAME\"}";
        log_sinks += &store.sink(&store.url, whole).replacen("  ", "  whole-", 1);
        log_sinks += &store.sink(&dropping, "labels: {service: service, run: \"=$NAME-2\"}");
    }
    let pipeline = pipeline(
        &place,
        4,
        &format!(
            "docket: {{partitions: 4}}
sinks:
  search: {{type: elasticsearch, url: \"{url}\", index: $NAME}}
{log_sinks}  cloudwatch: {{type: cloudwatch, region: eu-central-1, endpoint: \"{}\", group: $NAME}}
  traces: {{type: otlp, endpoint: \"{}\", query: \"{}\"}}
  file: {{type: file, path: \"$DIR/out.ndjson\"}}
",
            address("CLOUDWATCH_URL"),
            address("OTLP_GRPC_URL"),
            address("JAEGER_URL"),
        ),
    )
    .await;
    let running = Running::start(&place, &pipeline);
    let total = 5_000;
    let mut decisions = generated(total, 21);
    for decision in decisions.iter_mut().skip(100).take(5) {
        *decision = decision.replacen("{\"labels\"", "{\"vanishes\":true,\"labels\"", 1);
    }
    let id = |text: &str| {
        serde_json::from_str::<Value>(text).unwrap()["decision_id"].as_str().unwrap().to_owned()
    };
    let vanished: HashSet<String> = decisions[100..105].iter().map(|d| id(d)).collect();
    produce(&kafka, &format!("{name}-source"), &decisions);
    let sinks = [
        "search",
        "whole-victorialogs",
        "whole-loki",
        "victorialogs",
        "loki",
        "cloudwatch",
        "traces",
        "file",
    ];
    running
        .until("all delivered", 90, |m| sinks.iter().all(|sink| m.delivered(sink) == total as u64))
        .await;
    let (report, complete) = verified(
        &pipeline,
        &["--sink", "search,whole-victorialogs,whole-loki,cloudwatch,traces,file"],
    );
    assert!(complete && report["complete"] == true && report["gaps"] == 0, "{report}");
    assert_eq!(report["docket"]["decisions"], total);

    // Behind its back: 7 deleted, 3 altered, 2 doubled.
    let ids: Vec<String> = decisions.iter().step_by(400).take(12).map(|d| id(d)).collect();
    let client = reqwest::Client::new();
    post(&format!("{url}/{name}/_refresh"), json!({})).await;
    let document = async |id: &str| {
        let one = json!({ "query": { "prefix": { "decision_id": id } } });
        let found = post(&format!("{url}/{name}/_search"), one).await;
        found["hits"]["hits"][0]["_id"].as_str().unwrap().to_owned()
    };
    for id in &ids[..7] {
        let id = document(id).await;
        assert!(
            client
                .delete(format!("{url}/{name}/_doc/{id}"))
                .send()
                .await
                .unwrap()
                .status()
                .is_success()
        );
    }
    for id in &ids[7..10] {
        let id = document(id).await;
        post(&format!("{url}/{name}/_update/{id}"), json!({ "doc": { "path": "forged" } })).await;
    }
    for id in &ids[10..12] {
        let id = document(id).await;
        let source = super::get(&format!("{url}/{name}/_source/{id}")).await;
        post(&format!("{url}/{name}/_doc"), source).await;
    }
    let (report, complete) =
        verified(&pipeline, &["--settle", "0s", "--sink", "search,victorialogs,loki"]);
    assert!(!complete && report["gaps"] == 20 && report["repeats"] == 2, "{report}");
    let of = |sink: &str, what: &str| -> HashSet<String> {
        let found = report["sinks"].as_array().unwrap().iter().find(|s| s["sink"] == sink).unwrap();
        found[what].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    };
    let set = |ids: &[String]| ids.iter().cloned().collect::<HashSet<_>>();
    assert_eq!(of("search", "missing"), set(&ids[..7]));
    assert_eq!(of("search", "altered"), set(&ids[7..10]));
    assert_eq!(of("search", "repeated"), set(&ids[10..12]));
    assert_eq!(of("victorialogs", "missing"), vanished);
    assert_eq!(of("loki", "missing"), vanished);
    running.stop();
}

/// A proxy before a log store that loses the lines which say that they vanish, and answers as if all were well.
async fn dropping(target: String) -> String {
    init();
    use axum::body::Bytes;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = reqwest::Client::new();
    let handler = move |method: axum::http::Method,
                        uri: axum::http::Uri,
                        headers: axum::http::HeaderMap,
                        body: Bytes| {
        let (client, target) = (client.clone(), target.clone());
        async move {
            let path = uri.path_and_query().unwrap().as_str();
            let mut request = client
                .request(method, format!("{target}{path}"))
                .header("content-type", "application/x-protobuf");
            if let Some(whole) = headers.get("vl-loki-disable-message-parsing") {
                request = request.header("vl-loki-disable-message-parsing", whole);
            }
            if path.ends_with("/push") {
                let plain = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
                let kept = without(&plain);
                request = request.body(snap::raw::Encoder::new().compress_vec(&kept).unwrap());
            }
            let response = request.send().await.unwrap();
            let status = response.status();
            (status, response.bytes().await.unwrap())
        }
    };
    let router = axum::Router::new().fallback(axum::routing::any(handler));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}")
}

/// A push request without the entries that hold the word: length-delimited fields, two levels deep.
fn without(request: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (field, stream) in fields(request) {
        let mut kept = Vec::new();
        for (inner, entry) in fields(stream) {
            if !(inner == 2 && entry.windows(8).any(|w| w == b"vanishes")) {
                docket::sink::wire::bytes(&mut kept, inner, entry);
            }
        }
        docket::sink::wire::bytes(&mut out, field, &kept);
    }
    out
}

fn fields(mut bytes: &[u8]) -> Vec<(u32, &[u8])> {
    let mut all = Vec::new();
    let varint = |bytes: &mut &[u8]| {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    };
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        assert_eq!(tag & 7, 2, "Loki's request has length-delimited fields only");
        let len = varint(&mut bytes) as usize;
        all.push(((tag >> 3) as u32, &bytes[..len]));
        bytes = &bytes[len..];
    }
    all
}

/// A real OPA is asked, and its decisions are followed to every sink.
#[tokio::test(flavor = "multi_thread")]
async fn a_probe_follows_real_decisions_to_every_sink() {
    let _servers = super::together().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("probe");
    let name = place.name.clone();
    let pipeline = pipeline(
        &place,
        2,
        &format!(
            "docket: {{partitions: 2}}
sinks:
  search: {{type: elasticsearch, url: \"{}\", index: $NAME}}
{}  cloudwatch: {{type: cloudwatch, region: eu-central-1, endpoint: \"{}\", group: $NAME}}
  traces: {{type: otlp, endpoint: \"{}\", query: \"{}\"}}
probes:
  - {{path: http/authz/decision, input: {{method: GET, path: [salary, bob], user: bob}}, expect: allow}}
  - {{path: http/authz/decision, input: {{user: mallory}}, expect: deny}}
",
            address("OPENSEARCH_URL"),
            logs::sinks(&LogStore::all().await, "labels: {run: \"=$NAME\"}"),
            address("CLOUDWATCH_URL"),
            address("OTLP_GRPC_URL"),
            address("JAEGER_URL"),
        ),
    )
    .await;
    let uploads = super::opa::uploads_to_kafka(kafka.clone(), format!("{name}-source")).await;
    let opa = super::opa::Opa::start(&place, &uploads).await;
    let running = Running::start(&place, &pipeline);
    running
        .until("it is ready", 30, |m| m.sum("docket_rebalances_total", &["assigned"]) >= 6)
        .await;
    let run = || {
        let out = docket()
            .args(["verify", "--json", "--settle", "40s", "--probe", &opa.url])
            .arg(&pipeline)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&out.stdout).into_owned();
        let report: Value = serde_json::from_str(&told)
            .unwrap_or_else(|_| panic!("{told}\n{}", String::from_utf8_lossy(&out.stderr)));
        (report, out.status.success())
    };
    let (report, ok) = tokio::task::block_in_place(run);
    assert!(ok, "{report}\n{}", running.log());
    let verdicts: Vec<&str> = report["probes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["verdict"].as_str().unwrap())
        .collect();
    assert_eq!(verdicts, ["allow", "deny"]);
    for probe in report["probes"].as_array().unwrap() {
        println!("{} {}: {}", probe["path"], probe["verdict"], probe["seconds"]);
        for place in ["docket", "search", "victorialogs", "loki", "cloudwatch", "traces"] {
            assert!(probe["seconds"][place].as_f64().unwrap() > 0.0, "{probe}");
        }
    }
    // Without docket, nothing arrives, and the probe says so.
    running.stop();
    let out = docket()
        .args(["verify", "--settle", "3s", "--probe", &opa.url])
        .arg(&pipeline)
        .output()
        .unwrap();
    assert!(!out.status.success());
    assert!(String::from_utf8_lossy(&out.stdout).contains("not there"));
}
