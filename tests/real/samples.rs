//! The decisions that a real OPA wrote, through real Kafka, into every real backend, each exactly once.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::logs::{self, LogStore};
use super::support::{Place, Running, docket, produce, read_all, samples, until};
use super::{address, count, documents, get, init};

/// What a decision's trace and parent must be, worked out from the sample alone.
fn expected(sample: &Value) -> (String, Option<String>) {
    if let (Some(trace), Some(span)) = (sample["trace_id"].as_str(), sample["span_id"].as_str()) {
        return (trace.to_owned(), Some(span.to_owned()));
    }
    let header =
        sample["request_context"]["http"]["headers"]["traceparent"][0].as_str().or_else(|| {
            sample["input"]["attributes"]["request"]["http"]["headers"]["traceparent"].as_str()
        });
    match header {
        Some(header) => {
            let parts: Vec<&str> = header.split('-').collect();
            (parts[1].to_owned(), Some(parts[2].to_owned()))
        }
        None => {
            use sha2::Digest;
            let digest =
                sha2::Sha256::digest(format!("docket{}", sample["decision_id"].as_str().unwrap()));
            (digest[8..24].iter().map(|b| format!("{b:02x}")).collect(), None)
        }
    }
}

fn traces_of(samples: &[Value], trace: &str) -> usize {
    samples.iter().filter(|s| expected(s).0 == trace).count()
}

fn span_of(sample: &Value) -> String {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(format!("docket{}", sample["decision_id"].as_str().unwrap()));
    digest[..8].iter().map(|b| format!("{b:02x}")).collect()
}

/// By hand, for these policies.
fn verdict_of(sample: &Value) -> &'static str {
    match (&sample["result"], sample["path"].as_str().unwrap()) {
        _ if sample.get("result").is_none() => "undefined",
        (Value::Bool(true), _) => "allow",
        (Value::Bool(false), _) => "deny",
        (Value::Array(messages), "kubernetes/admission/deny") => {
            if messages.is_empty() {
                "allow"
            } else {
                "deny"
            }
        }
        (Value::Object(result), _) => {
            if result["allow"] == true {
                "allow"
            } else {
                "deny"
            }
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_is_in_every_backend_exactly_once() {
    let _servers = super::together().await;
    init();
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("samples");
    let (name, index) = (place.name.clone(), place.name.clone());
    let stores = LogStore::all().await;
    let pipeline = place.pipeline(&format!(
        "name: $NAME
kafka: {{brokers: \"{kafka}\"}}
sources: [{{topic: $NAME-source}}]
docket: {{partitions: 4}}
sinks:
  traces: {{type: otlp, endpoint: \"{}\"}}
{}  search: {{type: elasticsearch, url: \"{}\", index: $NAME}}
  metrics: {{type: metrics}}
  file: {{type: file, path: $DIR/out.ndjson}}
",
        address("OTLP_GRPC_URL"),
        logs::sinks(
            &stores,
            "labels: {service: service, verdict: verdict, engine: engine, run: =$NAME}"
        ),
        address("OPENSEARCH_URL")
    ));
    let setup = docket().args(["setup", "--yes"]).arg(&pipeline).output().unwrap();
    assert!(setup.status.success(), "{}", String::from_utf8_lossy(&setup.stderr));
    let samples = samples();
    assert_eq!(samples.len(), 1960);
    produce(&kafka, &format!("{name}-source"), &samples);

    let running = Running::start(&place, &pipeline);
    let sinks = ["traces", "victorialogs", "loki", "search", "metrics", "file"];
    let all_there = |m: &super::support::Metrics, n| {
        m.written() == n && sinks.iter().all(|s| m.delivered(s) == n)
    };
    let metrics = running.until("1,960 decisions in every sink", 90, |m| all_there(m, 1960)).await;
    assert_eq!(metrics.rejected(), 0);
    let parsed: Vec<Value> = samples.iter().map(|s| serde_json::from_str(s).unwrap()).collect();
    let ids: HashSet<&str> = parsed.iter().map(|s| s["decision_id"].as_str().unwrap()).collect();

    // The docket topic: the original, byte for byte, with the two members; keyed by trace id.
    let records = read_all(&kafka, &format!("docket.{name}"));
    assert_eq!(records.len(), 1960);
    let by_id: HashMap<&str, &String> =
        parsed.iter().zip(&samples).map(|(p, s)| (p["decision_id"].as_str().unwrap(), s)).collect();
    for record in &records {
        let value = record.json();
        let original = by_id[value["decision_id"].as_str().unwrap()];
        assert!(record.value.starts_with(&original.as_bytes()[..original.len() - 1]));
        assert_eq!(
            value["docket"]["trace_from"] == "none",
            record.key.as_deref() == value["decision_id"].as_str()
        );
        assert!(record.headers["docket-source"].starts_with(&format!("{name}-source/")));
    }

    // OpenSearch.
    let found = documents(&index).await;
    assert_eq!(found.len(), 1960);
    assert_eq!(
        found.iter().map(|d| d["decision_id"].as_str().unwrap()).collect::<HashSet<_>>(),
        ids
    );
    let wanted = |verdict: &str| parsed.iter().filter(|s| verdict_of(s) == verdict).count() as u64;
    for verdict in ["allow", "deny", "undefined"] {
        assert_eq!(
            count(&index, json!({ "term": { "docket.verdict": verdict } })).await,
            wanted(verdict),
            "{verdict}"
        );
    }
    let mallory = parsed.iter().filter(|s| s["input"]["user"] == "mallory").count() as u64;
    assert!(mallory > 0);
    assert_eq!(
        count(&index, json!({ "term": { "input.user": "mallory" } })).await,
        mallory,
        "inputs can be searched"
    );
    assert_eq!(
        count(&index, json!({ "term": { "event.outcome": "failure" } })).await,
        wanted("deny")
    );

    // VictoriaLogs and Loki: each line as it stands in the docket.
    let one = &parsed[0];
    let selector = format!("{{run=\"{name}\"}}");
    let written: HashSet<String> =
        records.iter().map(|r| String::from_utf8(r.value.clone()).unwrap()).collect();
    for store in &stores {
        let lines = until(&format!("all lines in {}", store.name()), 30, async || {
            let lines = store.lines(&selector).await;
            if lines.len() == 1960 { Ok(lines) } else { Err(format!("{} lines", lines.len())) }
        })
        .await;
        assert!(lines.into_iter().collect::<HashSet<_>>() == written, "{}", store.name());
        let by_trace = store.lines_with(&selector, "trace_id", &expected(one).0).await;
        assert!(
            by_trace.len() == traces_of(&parsed, &expected(one).0)
                && by_trace.iter().any(|line| line.contains(one["decision_id"].as_str().unwrap())),
            "a trace id finds its decisions in {}",
            store.name()
        );
        let denied =
            store.lines(&format!("{{run=\"{name}\", verdict=\"deny\"}}")).await.len() as u64;
        assert_eq!(denied, wanted("deny"), "{}", store.name());
    }

    // Jaeger: each decision's span under its right trace and parent.
    let jaeger = address("JAEGER_URL");
    let mut traces: HashMap<String, Vec<&Value>> = HashMap::new();
    for sample in &parsed {
        traces.entry(expected(sample).0).or_default().push(sample);
    }
    for (trace, decisions) in &traces {
        let found = get(&format!("{jaeger}/api/traces/{trace}")).await;
        let spans = found["data"][0]["spans"].as_array().unwrap();
        for sample in decisions {
            let id = span_of(sample);
            let of_it: Vec<&Value> = spans.iter().filter(|s| s["spanID"] == id.as_str()).collect();
            assert_eq!(of_it.len(), 1, "{trace} {id}");
            let parent = of_it[0]["references"]
                .as_array()
                .and_then(|r| {
                    r.iter().find(|r| r["refType"] == "CHILD_OF" && r["traceID"] == trace.as_str())
                })
                .map(|r| r["spanID"].as_str().unwrap().to_owned());
            assert_eq!(parent, expected(sample).1, "{trace} {id}");
            assert_eq!(
                of_it[0]["operationName"],
                format!("policy.decision {}", sample["path"].as_str().unwrap())
            );
        }
    }

    // Prometheus scrapes counts that add up.
    super::scrape(&name, &running.admin);
    let prometheus = address("PROMETHEUS_URL");
    for verdict in ["allow", "deny", "undefined"] {
        until("Prometheus has the counts", 30, async || {
            let query =
                format!("sum(docket_decisions_total{{pipeline=\"{name}\",verdict=\"{verdict}\"}})");
            let mut url = reqwest::Url::parse(&format!("{prometheus}/api/v1/query")).unwrap();
            url.query_pairs_mut().append_pair("query", &query);
            let answer = get(url.as_str()).await;
            let value = answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned);
            if value == Some(wanted(verdict).to_string()) {
                Ok(())
            } else {
                Err(format!("{verdict}: {value:?}"))
            }
        })
        .await;
    }
    promtool_has_no_complaint(&running.metrics().await.0);

    // tail shows them.
    let tail = |args: &[&str]| {
        let out = docket()
            .arg("tail")
            .arg(&pipeline)
            .args(["--from", "start", "--until-end"])
            .args(args)
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().lines().count() as u64
    };
    assert_eq!(tail(&["--json"]), 1960);
    assert_eq!(tail(&["--verdict", "deny"]), wanted("deny"));
    assert_eq!(tail(&["--trace", &expected(one).0]), traces[&expected(one).0].len() as u64);

    // The same input once more: nothing new.
    produce(&kafka, &format!("{name}-source"), &samples);
    let outcome = |m: &super::support::Metrics, sink: &str, outcome: &str| {
        m.sum(
            "docket_sink_records_total",
            &[&format!("sink=\"{sink}\""), &format!("outcome=\"{outcome}\"")],
        )
    };
    running
        .until("3,920 decisions in every sink", 90, |m| {
            // OpenSearch knows a repeat by its id; from the others it is kept away.
            let others = ["traces", "victorialogs", "loki", "metrics", "file"]
                .iter()
                .all(|s| outcome(m, s, "delivered") == 1960 && outcome(m, s, "repeat") == 1960);
            m.written() == 3920 && outcome(m, "search", "delivered") == 3920 && others
        })
        .await;
    assert_eq!(count(&index, json!({ "match_all": {} })).await, 1960);
    for store in &stores {
        assert_eq!(store.lines(&selector).await.len(), 1960, "{}", store.name());
    }
    let repeats: HashSet<Vec<u8>> =
        read_all(&kafka, &format!("docket.{name}")).into_iter().map(|r| r.value).collect();
    assert_eq!(repeats.len(), 1960, "a repeat is byte-identical");
    let log = running.stop();
    assert!(!log.contains("ERROR"), "{log}");
    assert_eq!(std::fs::read_to_string(place.path("out.ndjson")).unwrap().lines().count(), 1960);
}

fn promtool_has_no_complaint(metrics: &str) {
    use std::io::Write;
    let mut child = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
