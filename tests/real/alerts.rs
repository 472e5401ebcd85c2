//! The alert rules, in a real Prometheus that scrapes docket from its first second. A minute of theirs is a second here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use regex_lite::Regex;
use serde_json::{Value, json};

use super::support::{Place, Running, Source, create_topic, generated, produce, until};
use super::{get, pipeline};

const RULES: &str = "deploy/prometheus/docket.rules.yaml";

/// A Prometheus with docket's rules, a minute of which is a second.
struct Prometheus {
    child: Child,
    url: String,
    targets: PathBuf,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn rules() -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(RULES)).unwrap();
    let minutes = Regex::new(r"(for: |\[|offset )(\d+)m").unwrap();
    let hours = Regex::new(r"(\[|offset )(\d+)h").unwrap();
    let ago = Regex::new(r"time\(\) - (\d+)").unwrap();
    let text = minutes.replace_all(&text, "${1}${2}s");
    assert!(!minutes.is_match(&text) && text.contains("for: 5s") && text.contains("[15s]"));
    let text = hours.replace_all(&text, "${1}${2}m");
    let sixtieth = |of: &regex_lite::Captures<'_>| {
        format!("time() - {}", of[1].parse::<u32>().unwrap().div_ceil(60))
    };
    let text = ago.replace_all(&text, sixtieth).into_owned();
    assert!(text.contains("process_start_time_seconds > time() - 15)"));
    text
}

impl Prometheus {
    async fn start(place: &Place) -> Prometheus {
        let dir = place.path("prometheus");
        std::fs::create_dir(&dir).unwrap();
        let targets = dir.join("targets.json");
        std::fs::write(&targets, "[]").unwrap();
        std::fs::write(dir.join("rules.yaml"), rules()).unwrap();
        let config = json!({
            "global": { "scrape_interval": "500ms", "evaluation_interval": "500ms" },
            "rule_files": [dir.join("rules.yaml")],
            "scrape_configs": [{ "job_name": "docket",
                "file_sd_configs": [{ "files": [&targets], "refresh_interval": "500ms" }] }],
        });
        std::fs::write(dir.join("prometheus.yml"), config.to_string()).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=error")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let prometheus = Prometheus { child, url: format!("http://127.0.0.1:{port}"), targets };
        let ready = format!("{}/-/ready", prometheus.url);
        until("Prometheus answers", 30, async || match reqwest::get(&ready).await {
            Ok(response) if response.status().is_success() => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        prometheus
    }

    fn scrape<'r>(&self, running: impl IntoIterator<Item = &'r Running>) {
        let all: Vec<Value> =
            running.into_iter().map(|r| json!({ "targets": [r.admin] })).collect();
        // In one step: it may be read at any time.
        let new = self.targets.with_extension("new");
        std::fs::write(&new, Value::from(all).to_string()).unwrap();
        std::fs::rename(new, &self.targets).unwrap();
    }

    /// The alerts that fire, each with the labels that say what it is about.
    async fn firing(&self) -> BTreeSet<String> {
        let all = get(&format!("{}/api/v1/alerts", self.url)).await;
        let firing = all["data"]["alerts"].as_array().unwrap().clone();
        let about = |a: &Value| {
            let label = |name: &str| a["labels"][name].as_str().map(str::to_owned);
            let names = ["alertname", "part", "sink", "cause", "reason", "notifier"];
            names.iter().filter_map(|name| label(name)).collect::<Vec<_>>().join(" ")
        };
        // The decisions of these tests were made long ago.
        let told =
            |a: &&Value| a["state"] == "firing" && a["labels"]["alertname"] != "DocketSpikesLate";
        firing.iter().filter(told).map(about).collect()
    }

    /// Waits until these fire, and no other.
    async fn fire(&self, what: &str, wanted: &[&str]) {
        let wanted: BTreeSet<String> = wanted.iter().map(|w| (*w).to_owned()).collect();
        until(&format!("{what}: {wanted:?}"), 60, async || {
            let firing = self.firing().await;
            if firing == wanted { Ok(()) } else { Err(format!("{firing:?}")) }
        })
        .await;
    }
}

/// Decisions that keep coming.
struct Load(std::sync::Arc<std::sync::atomic::AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl Load {
    fn begin(name: &str) -> Load {
        let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let source = Source::new(&super::address("KAFKA_BOOTSTRAP"), &format!("{name}-source"));
        let stop = over.clone();
        let thread = std::thread::spawn(move || {
            for seed in 0.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                source.write(generated(10, seed));
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        Load(over, Some(thread))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(thread) = self.1.take() {
            let _ = thread.join();
        }
    }
}

/// Each part in a process of its own: whichever is killed, the alert that names it fires, no other, and ends once it is back.
#[tokio::test(flavor = "multi_thread")]
async fn the_part_that_was_killed_is_the_one_that_is_told() {
    let _servers = super::together().await;
    let place = Place::new("dies");
    let kafka = super::address("KAFKA_BOOTSTRAP");
    create_topic(&kafka, &format!("{}-access", place.name), 2, &[]).await;
    let path = pipeline(
        &place,
        2,
        "docket: {partitions: 2}
door: {listen: \"127.0.0.1:0\"}
join: {facts: [{topic: $NAME-access, format: access_log}]}
sinks:
  first: {type: file, path: \"$DIR/first.ndjson\"}
  second: {type: file, path: \"$DIR/second.ndjson\"}
spikes: {}
",
    )
    .await;
    let prometheus = Prometheus::start(&place).await;
    prometheus.fire("nothing is there", &["DocketDown"]).await;
    let parts = ["intake", "facts", "join", "first", "second", "spikes", "door"];
    let start = |part: &str| {
        let only = match part {
            "first" | "second" => format!("sink:{part}"),
            part => part.to_owned(),
        };
        Running::start_with(&place, &path, &["--only", &only])
    };
    let mut running: Vec<Option<Running>> = parts.iter().map(|part| Some(start(part))).collect();
    let _load = Load::begin(&place.name);
    prometheus.scrape(running.iter().flatten());
    prometheus.fire("all is well", &[]).await;
    for (n, part) in parts.iter().enumerate() {
        running[n].take().unwrap().kill();
        prometheus.fire(part, &[&format!("DocketPartMissing {part}")]).await;
        // Others stay away while it does.
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let firing = prometheus.firing().await;
            assert!(firing.iter().eq([&format!("DocketPartMissing {part}")]), "{part}: {firing:?}");
        }
        running[n] = Some(start(part));
        prometheus.scrape(running.iter().flatten());
        prometheus.fire(part, &[]).await;
    }
    drop(running);
    prometheus.fire("nothing is there", &["DocketDown"]).await;
}

/// What happens once, in a process that was just started: its counters were there before, so that their increase is seen.
#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_told_and_over_when_it_is_over() {
    let _servers = super::together().await;
    let place = Place::new("happens");
    let refuses = axum::Router::new().fallback(|| async { axum::http::StatusCode::UNAUTHORIZED });
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refusing = socket.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(socket, refuses).await });
    let text = |sink: &str| {
        format!(
            "docket: {{partitions: 2}}\nsinks:\n  file: {{type: file, path: \"$DIR/out.ndjson\"}}\n{sink}"
        )
    };
    let sink = |url: &str| {
        format!(
            "  lines: {{type: loki, url: \"http://{url}\", delivery: {{timeout: 1s, retry_max: 1s}}}}\n"
        )
    };
    let path = pipeline(&place, 2, &text("")).await;
    let write = |rest: &str| {
        let kafka = super::address("KAFKA_BOOTSTRAP");
        place.pipeline(&format!(
            "name: $NAME\nsources: [{{topic: $NAME-source}}]\nkafka: {{brokers: \"{kafka}\"}}\n{rest}"
        ))
    };
    write(&text(""));
    let prometheus = Prometheus::start(&place).await;
    prometheus.fire("nothing is there", &["DocketDown"]).await;
    let running = Running::start(&place, &path);
    prometheus.scrape([&running]);
    let load = Load::begin(&place.name);
    prometheus.fire("all is well", &[]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;

    let source = format!("{}-source", place.name);
    produce(&super::address("KAFKA_BOOTSTRAP"), &source, [r#"{"decision_id":"#]);
    prometheus.fire("a reject", &["DocketRejects intake not_json"]).await;
    prometheus.fire("it was one", &[]).await;

    std::fs::write(&path, "name: [\n").unwrap();
    prometheus.fire("a broken file", &["DocketPipelineFileRefused"]).await;
    write(&text(&sink(&refusing.to_string())));
    prometheus.fire("no credentials", &["DocketSinkRefusesCredentials lines"]).await;
    write(&text(&sink("127.0.0.1:9")));
    prometheus.fire("nobody is there", &["DocketSinkFailing lines connection"]).await;
    write(&text(""));
    prometheus.fire("without it", &[]).await;
    drop(load);
    running.stop();
}
