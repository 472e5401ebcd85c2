//! A real OPA decides; a trace in Jaeger shows the caller's span, OPA's span and docket's decision span as
//! one tree.

use std::collections::HashSet;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::routing::any;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use serde_json::{Value, json};

use super::logs::{self, LogStore, logsql};
use super::support::{Place, Running, docket, produce, until};
use super::{address, count, get, init, post};

/// A real OPA that uploads its decisions and sends its spans to Jaeger.
pub struct Opa {
    child: Child,
    pub url: String,
}

impl Opa {
    pub async fn start(place: &Place, uploads: &str) -> Opa {
        Opa::start_with(place, &json!({ "url": uploads }), &json!({})).await
    }

    /// With a service to upload to, and more of a configuration.
    pub async fn start_with(place: &Place, service: &Value, more: &Value) -> Opa {
        let config = place.path("opa.json");
        let otlp = address("OTLP_GRPC_URL");
        let mut text = json!({
            "services": { "sink": service },
            "labels": { "app": place.name },
            "decision_logs": { "service": "sink", "reporting": { "min_delay_seconds": 1, "max_delay_seconds": 1 } },
            "distributed_tracing": { "type": "grpc", "address": otlp.trim_start_matches("http://"), "service_name": "opa", "sample_percentage": 100 },
        });
        for (name, value) in more.as_object().unwrap() {
            text[name] = value.clone();
        }
        std::fs::write(&config, text.to_string()).unwrap();
        let url = format!("http://127.0.0.1:{}", free_port());
        let child = Command::new(address("OPA_BIN"))
            .args([
                "run",
                "--server",
                "--skip-version-check",
                "--addr",
                url.trim_start_matches("http://"),
                "-c",
            ])
            .arg(&config)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/policies"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let opa = Opa { child, url };
        until("OPA answers", 20, async || {
            reqwest::get(format!("{}/health", opa.url)).await.map_err(|e| e.to_string())
        })
        .await;
        opa
    }
}

impl Drop for Opa {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Takes OPA's uploads and puts each into Kafka as it is: a gzipped array.
pub async fn uploads_to_kafka(kafka: String, topic: String) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let target = Arc::new((kafka, topic));
    let router = Router::new().fallback(any(move |body: Bytes| {
        let target = target.clone();
        async move {
            tokio::task::spawn_blocking(move || produce(&target.0, &target.1, [&body[..]]))
                .await
                .unwrap();
        }
    }));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}")
}

fn caller_span(trace: &str, span: &str) -> Vec<u8> {
    let bytes = |hex: &str| {
        (0..hex.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
            .collect::<Vec<u8>>()
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()
        as u64;
    let name = AnyValue { value: Some(any_value::Value::StringValue("caller".into())) };
    let span = Span {
        trace_id: bytes(trace),
        span_id: bytes(span),
        name: "GET /salary".into(),
        kind: 3,
        start_time_unix_nano: now - 5_000_000,
        end_time_unix_nano: now,
        ..Default::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![KeyValue {
                    key: "service.name".into(),
                    value: Some(name),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            scope_spans: vec![ScopeSpans { spans: vec![span], ..Default::default() }],
            schema_url: String::new(),
        }],
    }
    .encode_to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn caller_opa_and_decision_are_one_tree() {
    let _servers = super::together().await;
    init();
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("opa");
    let name = place.name.clone();
    let stores = LogStore::all().await;
    // As OTLP log records, too, which VictoriaLogs takes, and Loki.
    let loki = LogStore::loki();
    let otlp = |name: &str, url: &str| {
        format!("  {name}: {{type: otlp, endpoint: \"{url}\", protocol: http, signals: [logs]}}\n")
    };
    let victorialogs = LogStore::victorialogs().url;
    let mut otlp_logs = otlp("otlp-victorialogs", &format!("{victorialogs}/insert/opentelemetry"));
    if let Some(loki) = &loki {
        otlp_logs += &otlp("otlp-loki", &format!("{}/otlp", loki.url));
    }
    let pipeline = place.pipeline(&format!(
        "name: $NAME
kafka: {{brokers: \"{kafka}\"}}
sources: [{{topic: $NAME-source}}]
docket: {{partitions: 2}}
sinks:
  traces: {{type: otlp, endpoint: \"{}\", protocol: http}}
{}  search: {{type: elasticsearch, url: \"{}\", index: $NAME}}
{otlp_logs}telemetry: {{otlp: \"{}\"}}
",
        address("OTLP_HTTP_URL"),
        logs::sinks(&stores, "labels: {service: service, verdict: verdict, run: =$NAME}"),
        address("OPENSEARCH_URL"),
        address("OTLP_GRPC_URL")
    ));
    assert!(docket().args(["setup", "--yes"]).arg(&pipeline).status().unwrap().success());
    let running = Running::start(&place, &pipeline);
    let uploads = uploads_to_kafka(kafka.clone(), format!("{name}-source")).await;

    let opa = Opa::start(&place, &uploads).await;

    let client = reqwest::Client::new();
    let mut traces = Vec::new();
    for i in 0..200 {
        let (trace, span) = (
            format!("{:032x}", rand::random::<u128>() | 1),
            format!("{:016x}", rand::random::<u64>() | 1),
        );
        let body = caller_span(&trace, &span);
        client
            .post(format!("{}/v1/traces", address("OTLP_HTTP_URL")))
            .header("content-type", "application/x-protobuf")
            .body(body)
            .send()
            .await
            .unwrap()
            .error_for_status()
            .unwrap();
        let (path, input) = match i % 4 {
            0 => (
                "http/authz/decision",
                json!({ "method": "GET", "path": ["salary", "bob"], "user": "bob" }),
            ),
            1 => (
                "http/authz/decision",
                json!({ "method": "GET", "path": ["salary", "bob"], "user": "mallory" }),
            ),
            2 => (
                "app/rbac/allow",
                json!({ "subject": { "roles": ["admin"] }, "action": "read", "object": { "type": "dog" } }),
            ),
            _ => (
                "kubernetes/admission/deny",
                json!({ "request": { "kind": { "kind": "Pod" }, "object": { "spec": { "containers": [{ "image": "docker.io/x" }] } } } }),
            ),
        };
        let request = client
            .post(format!("{}/v1/data/{path}", opa.url))
            .header("traceparent", format!("00-{trace}-{span}-01"));
        let answer = request
            .header("content-type", "application/json")
            .body(json!({ "input": input }).to_string())
            .send()
            .await
            .unwrap();
        let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        traces.push((
            trace,
            span,
            answer["decision_id"].as_str().unwrap().to_owned(),
            path,
            i % 4 == 1 || i % 4 == 3,
        ));
    }
    running
        .until("200 decisions everywhere", 60, |m| {
            let mut sinks = vec!["traces", "victorialogs", "loki", "search", "otlp-victorialogs"];
            sinks.extend(loki.as_ref().map(|_| "otlp-loki"));
            sinks.iter().all(|s| m.delivered(s) == 200)
        })
        .await;
    assert_eq!(count(&name, json!({ "match_all": {} })).await, 200);
    assert_eq!(count(&name, json!({ "term": { "docket.verdict": "deny" } })).await, 100);
    let mut lines = HashSet::new();
    for store in &stores {
        let all = until(&format!("200 lines in {}", store.name()), 10, async || {
            let all = store.lines(&format!("{{run=\"{name}\"}}")).await;
            if all.len() == 200 { Ok(all) } else { Err(all.len().to_string()) }
        })
        .await;
        lines = all.into_iter().collect::<HashSet<String>>();
        assert_eq!(lines.len(), 200, "{}", store.name());
    }
    // The log records: a stream of their own, without our label.
    let records = until("200 log records in VictoriaLogs", 10, async || {
        let rows = logsql(&format!("{{service.name=\"{name}\"}} | fields _msg")).await;
        let all: Vec<String> =
            rows.iter().map(|row| row["_msg"].as_str().unwrap().to_owned()).collect();
        if all.len() == 200 { Ok(all) } else { Err(all.len().to_string()) }
    })
    .await;
    assert_eq!(records.into_iter().collect::<HashSet<_>>(), lines);
    if let Some(loki) = &loki {
        let records = loki.lines(&format!("{{service_name=\"{name}\",run=\"\"}}")).await;
        assert_eq!(records.into_iter().collect::<HashSet<_>>(), lines);
    }

    for (trace, caller, decision, path, _) in &traces {
        let tree = async || {
            let found = get(&format!("{}/api/traces/{trace}", address("JAEGER_URL"))).await;
            let spans = found["data"][0]["spans"].as_array().cloned().unwrap_or_default();
            let parent = |span: &Value| span["references"][0]["spanID"].as_str().map(str::to_owned);
            let ours = spans
                .iter()
                .find(|s| s["operationName"] == format!("policy.decision {path}"))
                .ok_or("no decision span")?;
            let has_id = ours["tags"]
                .as_array()
                .unwrap()
                .iter()
                .any(|t| t["key"] == "policy.decision.id" && t["value"] == decision.as_str());
            let opa = spans
                .iter()
                .find(|s| s["spanID"] == parent(ours).unwrap_or_default())
                .ok_or("OPA's span is not there yet")?;
            let callers = spans
                .iter()
                .find(|s| s["spanID"] == caller.as_str())
                .ok_or("the caller's span is not there")?;
            assert!(
                has_id
                    && parent(opa).as_deref() == Some(caller.as_str())
                    && parent(callers).is_none(),
                "{found}"
            );
            Ok::<(), String>(())
        };
        until("caller, OPA and decision are one tree", 30, tree).await;
    }
    // What an auditor would ask OpenSearch: which decision was made in this request, and why.
    let one = &traces[1];
    let found = post(
        &format!("{}/{name}/_search", address("OPENSEARCH_URL")),
        json!({ "query": { "term": { "trace.id": one.0 } } }),
    )
    .await;
    assert_eq!(found["hits"]["hits"][0]["_source"]["decision_id"], one.2.as_str());
    assert_eq!(found["hits"]["hits"][0]["_source"]["docket"]["reasons"][0], "frozen account");
    drop(opa);
    running.stop();

    // docket's own spans.
    until("docket's own telemetry is in Jaeger", 20, async || {
        let found = get(&format!(
            "{}/api/traces?service=docket&operation=deliver&limit=5",
            address("JAEGER_URL")
        ))
        .await;
        if found["data"].as_array().is_some_and(|traces| !traces.is_empty()) {
            Ok(())
        } else {
            Err(found.to_string())
        }
    })
    .await;
}
