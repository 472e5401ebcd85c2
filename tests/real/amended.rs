//! A log line that comes when its decision was delivered: the document in OpenSearch is as if it had come in time, and the trace in
//! Jaeger has a span that links to the decision's. Also where the sink gets the amendment first, and where the document is gone.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::support::{Place, Running, create_topic, docket, produce};
use super::{address, get, pipeline, post};

fn decision(n: u32) -> String {
    let headers = json!({ "x-request-id": format!("r-{n}") });
    let decision = json!({
        "decision_id": format!("d-{n}"), "labels": { "app": "orders-opa", "id": "i-1" },
        "path": "envoy/authz/allow", "result": true, "timestamp": Timestamp::now().to_string(),
        "input": { "secret": n, "attributes": { "request": { "http": { "headers": headers, "method": "GET" } } } },
    });
    decision.to_string()
}

fn trace(n: u32) -> String {
    format!("4bf92f3577b34da6a3ce929d{n:08x}")
}

fn line(n: u32) -> String {
    let start = Timestamp::now() - SignedDuration::from_millis(1_500);
    let line = json!({
        "start_time": start.to_string(), "duration": 12, "service": "orders", "method": "GET", "path": format!("/api/{n}"),
        "response_code": 200, "request_id": format!("r-{n}"), "traceparent": format!("00-{}-00f067aa0ba902b7-01", trace(n)),
    });
    line.to_string()
}

/// The documents of a decision.
async fn documents(index: &str, n: u32) -> Vec<Value> {
    let url = format!("{}/{index}", address("OPENSEARCH_URL"));
    post(&format!("{url}/_refresh"), json!({})).await;
    let query = json!({ "query": { "prefix": { "decision_id": format!("d-{n}") } } });
    let found = post(&format!("{url}/_search"), query).await;
    found["hits"]["hits"].as_array().unwrap().clone()
}

async fn document(index: &str, n: u32) -> Value {
    let all = documents(index, n).await;
    assert_eq!(all.len(), 1, "{index} d-{n}: {all:?}");
    all[0]["_source"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_comes_late_amends_what_sinks_hold() {
    let _servers = super::together().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let (search, jaeger) = (address("OPENSEARCH_URL"), address("JAEGER_URL"));
    let place = Place::new("amended");
    let name = place.name.clone();
    let search_index = format!("{name}-search");
    create_topic(&kafka, &format!("{name}-access"), 2, &[]).await;
    let pipeline = pipeline(
        &place,
        2,
        &format!(
            "docket: {{partitions: 2}}
intake: {{transaction_interval: 50ms}}
join: {{facts: [{{topic: $NAME-access, format: access_log}}], wait: 1s, window: 20s, delay: 30s}}
sinks:
  search: {{type: elasticsearch, url: \"{search}\", index: $NAME-search}}
  less: {{type: elasticsearch, url: \"{search}\", index: $NAME-less, delivery: {{redact: [/input/secret, /docket/request]}}}}
  stream: {{type: elasticsearch, url: \"{search}\", index: $NAME-stream, data_stream: true}}
  traces: {{type: otlp, endpoint: \"{}\", query: \"{jaeger}\"}}
",
            address("OTLP_GRPC_URL"),
        ),
    )
    .await;
    let checked = docket().arg("check").arg(&pipeline).output().unwrap();
    let said = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
    assert!(said.contains("sinks.stream: matches that come late"), "{said}");
    let (source, access) = (format!("{name}-source"), format!("{name}-access"));
    let running = Running::start(&place, &pipeline);
    produce(&kafka, &source, [decision(1), decision(2)]);
    let sinks = ["search", "less", "stream", "traces"];
    running
        .until("decisions delivered", 60, |m| sinks.iter().all(|sink| m.delivered(sink) == 2))
        .await;
    let before = document(&search_index, 1).await;
    assert!(before["docket"]["request"].is_null() && before["docket"]["trace_from"] == "none");
    // One of them is deleted behind docket's back.
    let gone = documents(&search_index, 2).await[0]["_id"].as_str().unwrap().to_owned();
    let client = reqwest::Client::new();
    let deleted =
        client.delete(format!("{search}/{search_index}/_doc/{gone}")).send().await.unwrap();
    assert!(deleted.status().is_success());
    produce(&kafka, &access, [line(1), line(2)]);
    let outcome = |sink: &str, outcome: &str| {
        let labels = [format!("sink=\"{sink}-amendments\""), format!("outcome=\"{outcome}\"")];
        move |m: &super::support::Metrics| {
            m.sum("docket_sink_records_total", &labels.each_ref().map(String::as_str))
        }
    };
    running
        .until("amended", 90, |m| {
            outcome("search", "delivered")(m) == 1
                && outcome("search", "missing")(m) == 1
                && outcome("less", "delivered")(m) == 2
                && outcome("traces", "delivered")(m) == 2
        })
        .await;
    let after = document(&search_index, 1).await;
    let docket_of = &after["docket"];
    assert_eq!(docket_of["request"]["path"], "/api/1", "{after}");
    assert_eq!(docket_of["match"], json!({ "class": "request_id", "key": "r-1" }));
    assert_eq!(
        (&docket_of["trace_from"], &after["trace"]["id"]),
        (&json!("join"), &json!(trace(1)))
    );
    assert_eq!((&after["input"], &after["event"]), (&before["input"], &before["event"]));
    assert_eq!(documents(&search_index, 2).await, Vec::<Value>::new(), "no stub");
    // What a sink does not get it does not get later either.
    let less = document(&format!("{name}-less"), 1).await;
    assert_eq!(less["docket"]["match"]["class"], "request_id");
    assert!(less["docket"]["request"].is_null() && less["input"]["secret"].is_null(), "{less}");
    let kept = documents(&format!("{name}-stream"), 1).await;
    assert!(kept[0]["_source"]["docket"]["match"].is_null());

    let spans = get(&format!("{jaeger}/api/traces/{}", trace(1))).await;
    let spans = spans["data"][0]["spans"].as_array().unwrap().clone();
    let amendment = spans.iter().find(|span| span["operationName"] == "docket.amendment").unwrap();
    let decided = &before["docket"];
    let linked =
        amendment["references"].as_array().unwrap().iter().any(|link| {
            link["traceID"] == decided["trace_id"] && link["spanID"] == decided["span_id"]
        });
    assert!(linked, "{amendment}\n{decided}");
    running.stop();

    // Decisions and their amendments are there before the sinks are.
    let parts = ["--only", "intake", "--only", "facts", "--only", "join"];
    let joining = Running::start_with(&place, &pipeline, &parts);
    let many: Vec<u32> = (100..140).collect();
    produce(&kafka, &source, many.iter().map(|n| decision(*n)));
    joining
        .until("gone on", 60, |m| m.sum("docket_join_decisions_total", &["match=\"none\""]) == 40)
        .await;
    produce(&kafka, &access, many.iter().map(|n| line(*n)));
    // After a start, those of what is still in the window may be told again.
    let told = |m: &super::support::Metrics| m.sum("docket_join_amendments_total", &[]);
    joining.until("amendments", 60, |m| told(m) >= 40).await;
    joining.stop();
    let running = Running::start(&place, &pipeline);
    super::support::until("all are amended", 90, async || {
        for n in &many {
            let found = documents(&search_index, *n).await;
            let path = format!("/api/{n}");
            if found.len() != 1 || found[0]["_source"]["docket"]["request"]["path"] != path {
                return Err(format!("d-{n}: {found:?}"));
            }
        }
        Ok(())
    })
    .await;
    let metrics = running.metrics().await;
    assert_eq!(metrics.sum("docket_rejects_total", &[]), 0);
    // They are the decisions that were delivered, all but the one that was deleted.
    let (report, _) = super::delivery::verified(&pipeline, &["--sink", "search,less,traces"]);
    for sink in report["sinks"].as_array().unwrap() {
        let lacks = if sink["sink"] == "search" { json!(["d-2"]) } else { json!([]) };
        assert_eq!((&sink["missing"], &sink["altered"]), (&lacks, &json!([])), "{report}");
    }
    let doctor = docket().args(["doctor", "--json"]).arg(&pipeline).output().unwrap();
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(
        said.contains("takes late matches") && said.contains("a data stream takes no"),
        "{said}"
    );
    running.stop();
}
