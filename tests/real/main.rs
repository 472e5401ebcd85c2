//! The road on real servers. `tests/real/run` starts them and runs this.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

#[path = "../support/mod.rs"]
mod support;

use std::path::PathBuf;

use support::{Place, create_topic, docket};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

mod acls;
mod alerts;
mod amended;
mod bad_input;
mod canary;
mod capacity;
mod crash;
mod dashboards;
mod delivery;
mod doctor;
mod door;
mod door_limits;
mod envoy;
mod fallback;
mod faults;
mod files;
mod first_day;
mod join;
mod late_end;
mod log_checked;
mod logs;
mod mask;
mod memory;
mod nonsense;
mod opa;
mod order;
mod parts;
mod poison;
mod push;
mod reused;
mod samples;
mod shipped;
mod soak;
mod spikes;
mod stored_whole;
mod supervised;
mod tls;
mod why;
mod withheld;

/// Tests run beside each other, but not beside one that stops servers, or that measures what they would disturb.
static SERVERS: RwLock<()> = RwLock::const_new(());

async fn together() -> RwLockReadGuard<'static, ()> {
    SERVERS.read().await
}

async fn alone() -> RwLockWriteGuard<'static, ()> {
    SERVERS.write().await
}

/// Has Prometheus scrape an admin port, as long as there is one.
fn scrape(name: &str, admin: &str) {
    let targets = PathBuf::from(address("PROMETHEUS_TARGETS_FILE"));
    let targets = targets.with_file_name(format!("targets-{name}.json"));
    std::fs::write(targets, serde_json::json!([{ "targets": [admin] }]).to_string()).unwrap();
}

/// Runs deploy/local/up or down.
fn local(script: &str, args: &[&str]) {
    local_with(&[], script, args);
}

/// The same with more in the environment; what it printed.
fn local_with(env: &[(&str, &str)], script: &str, args: &[&str]) -> String {
    let path = format!("{}/deploy/local/{script}", env!("CARGO_MANIFEST_DIR"));
    let mut command = std::process::Command::new(path);
    let out = command.envs(env.iter().copied()).args(args).output().unwrap();
    assert!(out.status.success(), "{script} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// A server that was stopped. It is started again when this is dropped, however the test ends: the others need it, too.
struct Stopped(&'static str);

impl Stopped {
    fn in_order(server: &'static str) -> Stopped {
        local("down", &["--keep", server]);
        Stopped(server)
    }

    /// With SIGKILL.
    fn killed(server: &'static str) -> Stopped {
        local("down", &["--keep", "--kill", server]);
        Stopped(server)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        local("up", &[self.0]);
    }
}

/// A pipeline file with one source, `$NAME-source`, whose topics and index templates are set up.
async fn pipeline(place: &Place, partitions: i32, rest: &str) -> PathBuf {
    init();
    let kafka = address("KAFKA_BOOTSTRAP");
    let text = format!("name: $NAME\nsources: [{{topic: $NAME-source}}]\n{rest}");
    let text = if rest.contains("\nkafka:") || rest.starts_with("kafka:") {
        text
    } else {
        format!("{text}\nkafka: {{brokers: \"{kafka}\"}}")
    };
    let path = place.pipeline(&text);
    create_topic(&kafka, &format!("{}-source", place.name), partitions, &[]).await;
    assert!(docket().args(["setup", "--yes"]).arg(&path).status().unwrap().success());
    path
}

/// The address of a server that `deploy/local/up` started.
fn address(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set; run this suite with tests/real/run"))
}

/// A file of the local authority: ca.pem, server.pem, server.key, client.pem, client.key, client.both.pem.
fn certificate(file: &str) -> String {
    format!("{}/{file}", address("KAFKA_TLS"))
}

/// A client that trusts the local authority only, with a certificate of its own or without.
fn tls_client(own: bool) -> reqwest::Client {
    init();
    let authority =
        reqwest::Certificate::from_pem(&std::fs::read(certificate("ca.pem")).unwrap()).unwrap();
    let mut builder = reqwest::Client::builder()
        .tls_certs_only([authority])
        .timeout(std::time::Duration::from_secs(60));
    if own {
        builder = builder.identity(
            reqwest::Identity::from_pem(&std::fs::read(certificate("client.both.pem")).unwrap())
                .unwrap(),
        );
    }
    builder.build().unwrap()
}

async fn get(url: &str) -> serde_json::Value {
    let response = reqwest::get(url).await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    assert!(status.is_success(), "{url}: {status} {text}");
    serde_json::from_str(&text).unwrap()
}

async fn post(url: &str, body: serde_json::Value) -> serde_json::Value {
    let client = reqwest::Client::new();
    let response = client
        .post(url)
        .header("content-type", "application/json")
        .body(body.to_string())
        .send()
        .await
        .unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    assert!(status.is_success(), "{url}: {status} {text}");
    serde_json::from_str(&text).unwrap()
}

/// One TLS implementation for every client in this process, as in docket itself.
fn init() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The decision ids of an index, sorted, repeats included.
async fn documents(index: &str) -> Vec<serde_json::Value> {
    let base = address("OPENSEARCH_URL");
    post(&format!("{base}/{index}/_refresh"), serde_json::json!({})).await;
    let found = post(
        &format!("{base}/{index}/_search"),
        serde_json::json!({ "size": 10000, "query": { "match_all": {} } }),
    )
    .await;
    found["hits"]["hits"].as_array().unwrap().iter().map(|hit| hit["_source"].clone()).collect()
}

async fn count(index: &str, query: serde_json::Value) -> u64 {
    let base = address("OPENSEARCH_URL");
    post(&format!("{base}/{index}/_refresh"), serde_json::json!({})).await;
    post(&format!("{base}/{index}/_count"), serde_json::json!({ "query": query })).await["count"]
        .as_u64()
        .unwrap()
}
