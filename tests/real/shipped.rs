//! The pipeline files that docket ships, as they are: addresses by the names that deploy/local/up gives.

use std::path::PathBuf;
use std::time::Duration;

use super::support::{Metrics, Place, Running, Source, docket};
use super::{address, create_topic, scrape};

/// The environment that `eval "$(deploy/local/up --export ..)"` leaves.
fn exported() -> [(&'static str, String); 7] {
    [
        ("KAFKA_BOOTSTRAP", address("KAFKA_BOOTSTRAP")),
        ("OTLP_GRPC_URL", address("OTLP_GRPC_URL")),
        ("JAEGER_URL", address("JAEGER_URL")),
        ("LOKI_URL", address("VICTORIALOGS_URL")),
        ("LOKI_SERVER", "victorialogs".to_owned()),
        ("ELASTICSEARCH_URL", address("OPENSEARCH_URL")),
        ("PROMETHEUS_URL", address("PROMETHEUS_URL")),
    ]
}

/// `pipelines/opa.yaml`, with names and an admin port of the test's own, and nothing else changed.
fn shipped(place: &Place) -> PathBuf {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/opa.yaml");
    let mut text = std::fs::read_to_string(path).unwrap();
    for (from, to) in
        [("\nname: opa\n", "\nname: $NAME\n"), ("topic: opa-decisions", "topic: $NAME-source")]
    {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        text = text.replace(from, to);
    }
    place.pipeline(&text)
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_compares_every_sink_of_what_is_shipped() {
    // Whoever shares its index and its streams is away.
    let _servers = super::alone().await;
    super::init();
    let env = exported();
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let place = Place::new("shipped");
    let path = shipped(&place);
    let source = format!("{}-source", place.name);
    create_topic(&address("KAFKA_BOOTSTRAP"), &source, 2, &[]).await;
    let setup =
        docket().envs(env.iter().copied()).args(["setup", "--yes"]).arg(&path).output().unwrap();
    assert!(setup.status.success(), "{}", String::from_utf8_lossy(&setup.stderr));
    let running = Running::start_env(&place, &path, &[], &env);
    scrape(&place.name, &running.admin);
    // Scraped before it counts anything.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let total = 3_000;
    let decisions = docket().args(["generate", "--count", &total.to_string()]).output().unwrap();
    let decisions = String::from_utf8(decisions.stdout).unwrap();
    Source::new(&address("KAFKA_BOOTSTRAP"), &source).write(decisions.lines().map(str::to_owned));
    let everywhere = |m: &Metrics| {
        ["traces", "loki", "search", "metrics"].iter().all(|sink| {
            let labels = [format!("sink=\"{sink}\""), "outcome=\"delivered\"".to_owned()];
            m.sum("docket_sink_records_total", &[&labels[0], &labels[1]]) >= total
        })
    };
    running.until("every sink has them", 60, everywhere).await;
    let verified = docket()
        .envs(env.iter().copied())
        .args(["verify", "--from", "start"])
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verified.stdout).into_owned()
        + &String::from_utf8_lossy(&verified.stderr);
    assert_eq!(verified.status.code(), Some(0), "{said}\n{}", running.log());
    assert!(said.contains("complete") && !said.contains("not compared"), "{said}");
    running.stop();
}
