//! Metrics that are pushed: to a Prometheus that takes remote write 1.0 only, to one that takes 2.0, and as OTLP.

use std::time::Duration;

use serde_json::Value;

use super::support::{Place, Running, generated, produce, until};
use super::{address, get, pipeline};
use docket::clock;

async fn query(base: &str, expr: &str) -> Vec<Value> {
    let mut url = reqwest::Url::parse(&format!("{base}/api/v1/query")).unwrap();
    url.query_pairs_mut().append_pair("query", expr);
    get(url.as_str()).await["data"]["result"].as_array().unwrap().clone()
}

fn value(series: &[Value]) -> f64 {
    series.first().map_or(0.0, |s| s["value"][1].as_str().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_pushed_where_nobody_scrapes() {
    let _servers = super::together().await;
    let place = Place::new("push");
    let name = place.name.clone();
    let (old, new) = (address("PROMETHEUS_URL"), address("RECEIVER_URL"));
    // One that is away harms nobody.
    let rest = format!(
        "docket: {{partitions: 2}}
sinks: {{metrics: {{type: metrics}}}}
telemetry:
  push:
    old: {{type: remote_write, url: \"{old}/api/v1/write\", interval: 1s, labels: {{job: old, instance: $NAME}}}}
    new: {{type: remote_write, url: \"{new}/api/v1/write\", interval: 1s, labels: {{job: new, instance: $NAME}}}}
    otlp: {{type: otlp, endpoint: \"{new}/api/v1/otlp\", interval: 1s, resource: {{service.instance.id: $NAME}}}}
    away: {{type: remote_write, url: \"http://127.0.0.1:9/api/v1/write\", interval: 1s}}
"
    );
    let path = pipeline(&place, 2, &rest).await;
    let running = Running::start(&place, &path);
    produce(&address("KAFKA_BOOTSTRAP"), &format!("{name}-source"), generated(700, 3));
    let counted =
        running.until("all are counted", 30, |m| m.sum("docket_decisions_total", &[]) == 700).await;
    let denied = counted.sum("docket_decisions_total", &["verdict=\"deny\""]) as f64;

    for (base, job) in [(&old, "old"), (&new, "new"), (&new, "docket")] {
        let selector = format!("{{job=\"{job}\", instance=\"{name}\", pipeline=\"{name}\"}}");
        until(&format!("{job}: all are there"), 20, || async {
            let sum = value(&query(base, &format!("sum(docket_decisions_total{selector})")).await);
            if sum == 700.0 { Ok(()) } else { Err(sum.to_string()) }
        })
        .await;
        let of = async |expr: &str| query(base, &expr.replace("$$", &selector)).await;
        assert_eq!(value(&of("sum(docket_decisions_total$$)").await), 700.0);
        let deny = selector.replace('}', ", verdict=\"deny\"}");
        assert_eq!(
            value(&query(base, &format!("sum(docket_decisions_total{deny})")).await),
            denied
        );
        assert_eq!(value(&of("sum(docket_decision_duration_seconds_count$$)").await), 700.0);
        let infinite = selector.replace('}', ", le=\"+Inf\"}");
        assert_eq!(
            value(
                &query(base, &format!("sum(docket_decision_duration_seconds_bucket{infinite})"))
                    .await
            ),
            700.0
        );
        let quantile = value(
            &of("histogram_quantile(0.5, sum by (le) (docket_decision_duration_seconds_bucket$$))")
                .await,
        );
        assert!((50e-6..2e-3).contains(&quantile), "{job}: {quantile}");
        assert!(!of("docket_bundle_info$$").await.is_empty(), "{job}");
        // The trace of a denial is with it.
        let mut url = reqwest::Url::parse(&format!("{base}/api/v1/query_exemplars")).unwrap();
        let now = clock::now() / 1_000_000_000;
        url.query_pairs_mut()
            .append_pair("query", &format!("docket_decisions_total{deny}"))
            .append_pair("start", &(now - 600).to_string())
            .append_pair("end", &(now + 60).to_string());
        let exemplars = get(url.as_str()).await;
        let trace =
            exemplars["data"][0]["exemplars"][0]["labels"]["trace_id"].as_str().unwrap_or_default();
        assert_eq!(trace.len(), 32, "{job}: {exemplars}");
    }
    // Types came along.
    let metadata = get(&format!("{new}/api/v1/metadata?metric=docket_decisions_total")).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let metrics = running.metrics().await;
    let pushes = |to: &str, outcome: &str| {
        metrics.sum(
            "docket_metric_pushes_total",
            &[&format!("to=\"{to}\""), &format!("outcome=\"{outcome}\"")],
        )
    };
    for to in ["old", "new", "otlp"] {
        assert!(
            pushes(to, "sent") > 0 && pushes(to, "failed") == 0,
            "{to}: {}\n{metadata}",
            metrics.0
        );
    }
    assert!(pushes("away", "failed") > 0 && pushes("away", "sent") == 0);
    let log = running.stop();
    assert_eq!(
        log.matches("going on with 1.0").count(),
        1,
        "only the old one does not take 2.0:\n{log}"
    );
}
