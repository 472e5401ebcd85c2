//! What producers get wrong, on real Kafka: each ends in rejects with its bytes and its reason, nothing
//! else is lost, the pipeline lives, and the counts add up.

use std::collections::HashMap;
use std::io::Write;

use serde_json::json;

use super::support::{Place, Running, create_topic, docket, generated, produce, read_all};
use super::{address, count, init};

fn decision(id: &str, more: &str) -> String {
    format!(
        r#"{{"decision_id":"{id}","path":"a/allow","result":true,"timestamp":"2026-11-24T12:48:50Z"{more}}}"#
    )
}

/// Text that LZ4 can't make smaller.
fn noise(len: usize) -> String {
    (0..len).map(|_| char::from(b'a' + rand::random::<u8>() % 26)).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_rejected_with_its_bytes_and_reason_and_nothing_else_is_lost() {
    let _servers = super::together().await;
    init();
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("bad");
    let name = place.name.clone();
    let pipeline = place.pipeline(&format!(
        "name: $NAME
kafka: {{brokers: \"{kafka}\"}}
sources: [{{topic: $NAME-source}}]
docket: {{partitions: 2, max_message: 200kB, compression: none}}
sinks:
  search: {{type: elasticsearch, url: \"{}\", index: $NAME}}
",
        address("OPENSEARCH_URL")
    ));
    create_topic(&kafka, &format!("{name}-source"), 2, &[("max.message.bytes", "40000000")]).await;
    assert!(docket().args(["setup", "--yes"]).arg(&pipeline).status().unwrap().success());

    let truncated = gzip(&decision("gz", ""));
    let bad: Vec<(Vec<u8>, &str)> = vec![
        (b"not json".to_vec(), "not_json"),
        (b"".to_vec(), "empty"),
        (truncated[..truncated.len() / 2].to_vec(), "bad_gzip"),
        (
            decision("huge", &format!(",\"input\":\"{}\"", noise(20 << 20))).into_bytes(),
            "too_large",
        ),
        // Fits its own topic, and not the docket topic once docket's members are added.
        (
            decision("outgrows", &format!(",\"input\":\"{}\"", noise(199_700))).into_bytes(),
            "too_large",
        ),
        (
            br#"{"path":"a/allow","result":true,"timestamp":"2026-11-24T12:48:50Z"}"#.to_vec(),
            "missing_decision_id",
        ),
        (br#"{"decision_id":"x","path":"a/allow","result":true}"#.to_vec(), "missing_timestamp"),
        (br#"{"decision_id":"x","timestamp":"tomorrow"}"#.to_vec(), "bad_timestamp"),
        (decision("x", r#","labels":["a"]"#).into_bytes(), "wrong_type"),
        (decision("x", r#","decision_id":"y""#).into_bytes(), "duplicate_key"),
        (decision("x", r#","input":{"a":{"b":1,"b":2}}"#).into_bytes(), "duplicate_key"),
        (
            [
                b"{\"decision_id\":\"\xff\xfe\",".as_slice(),
                b"\"timestamp\":\"2026-11-24T12:48:50Z\"}",
            ]
            .concat(),
            "invalid_utf8",
        ),
        (
            decision("x", &format!(",\"input\":{}{}", "[".repeat(200), "]".repeat(200)))
                .into_bytes(),
            "too_deep",
        ),
        (decision("00000000-0000-0000-0000-000000000000", "").into_bytes(), "bad_decision_id"),
        (br#"{"decision_id":}"#.to_vec(), "not_json"),
    ];
    let mut input: Vec<Vec<u8>> = bad.iter().map(|(bytes, _)| bytes.clone()).collect();
    // The good elements of an array with one bad element still pass.
    input.pop();
    input.push(
        format!("[{},{{\"decision_id\":}},{}]", decision("array-1", ""), decision("array-2", ""))
            .into_bytes(),
    );
    // Ids of zeros are no trace; the decision goes through.
    input.push(
        decision(
            "zero-trace",
            r#","trace_id":"00000000000000000000000000000000","span_id":"0000000000000000""#,
        )
        .into_bytes(),
    );
    input.push(br#"{"level":"info","msg":"Initializing server."}"#.to_vec());
    let good = generated(200, 11);
    let mut mixed: Vec<Vec<u8>> = good.iter().map(|g| g.clone().into_bytes()).collect();
    for (i, record) in input.iter().enumerate() {
        mixed.insert(i * 12, record.clone());
    }
    produce(&kafka, &format!("{name}-source"), &mixed);

    let running = Running::start(&place, &pipeline);
    let through = 200 + 2 + 1;
    let metrics = running
        .until("all accounted for", 90, |m| {
            m.written() + m.rejected() == through + bad.len() as u64
                && m.delivered("search") == through
        })
        .await;
    assert_eq!(metrics.sum("docket_intake_records_total", &[]), mixed.len() as u64);
    assert_eq!(metrics.sum("docket_intake_ignored_total", &[]), 1);
    assert_eq!(metrics.sum("docket_trace_ids_malformed_total", &[]), 1);

    let rejects = read_all(&kafka, &format!("docket.{name}.rejects"));
    let mut by_reason: HashMap<&str, Vec<&[u8]>> = HashMap::new();
    for reject in &rejects {
        assert_eq!(reject.headers["docket-stage"], "intake");
        assert_eq!(reject.headers["docket-source-topic"], format!("{name}-source"));
        for header in [
            "docket-source-partition",
            "docket-source-offset",
            "docket-source-element",
            "docket-received",
            "docket-detail",
        ] {
            assert!(reject.headers.contains_key(header), "{header}");
        }
        by_reason.entry(&reject.headers["docket-reason"]).or_default().push(&reject.value);
    }
    assert_eq!(rejects.len(), bad.len());
    for (bytes, reason) in &bad {
        let of_reason =
            &by_reason.get(reason).unwrap_or_else(|| panic!("{reason}: {:?}", by_reason.keys()));
        assert!(
            of_reason.iter().any(|kept| kept == bytes),
            "{reason}: its {} bytes are not in rejects",
            bytes.len()
        );
    }
    assert_eq!(count(&name, json!({ "match_all": {} })).await, through);
    assert_eq!(read_all(&kafka, &format!("docket.{name}")).len() as u64, through);

    // It still lives.
    produce(&kafka, &format!("{name}-source"), [decision("after", "")]);
    running.until("a decision after all that", 30, |m| m.delivered("search") == through + 1).await;
    running.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_opensearch_refuses_goes_to_rejects_alone() {
    let _servers = super::together().await;
    init();
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("refused");
    let name = place.name.clone();
    let pipeline = place.pipeline(&format!(
        "name: $NAME
kafka: {{brokers: \"{kafka}\"}}
sources: [{{topic: $NAME-source}}]
docket: {{partitions: 1}}
sinks:
  search: {{type: elasticsearch, url: \"{}\", index: $NAME}}
",
        address("OPENSEARCH_URL")
    ));
    assert!(docket().args(["setup", "--yes"]).arg(&pipeline).status().unwrap().success());
    // A mapping that is somebody's own: unknown members of `tier` are refused.
    let tier = json!({ "dynamic": "strict", "properties": { "level": { "type": "keyword" } } });
    let mapping = json!({ "mappings": { "properties": { "tier": tier } } });
    let put = reqwest::Client::new()
        .put(format!("{}/{name}", address("OPENSEARCH_URL")))
        .header("content-type", "application/json")
        .body(mapping.to_string());
    assert!(put.send().await.unwrap().status().is_success());
    let mut input = generated(99, 12);
    input.insert(50, decision("conflict", ",\"tier\":{\"color\":\"gold\"}"));
    produce(&kafka, &format!("{name}-source"), &input);
    let running = Running::start(&place, &pipeline);
    let metrics = running
        .until("99 delivered, one refused", 60, |m| {
            m.delivered("search") == 99
                && m.sum("docket_rejects_total", &["part=\"search\"", "reason=\"refused\""]) == 1
        })
        .await;
    assert_eq!(metrics.written(), 100);
    let rejects = read_all(&kafka, &format!("docket.{name}.rejects"));
    assert_eq!(rejects.len(), 1);
    assert_eq!(rejects[0].json()["decision_id"], "conflict");
    let headers = &rejects[0].headers;
    assert_eq!(
        (
            headers["docket-stage"].as_str(),
            headers["docket-sink"].as_str(),
            headers["docket-status"].as_str()
        ),
        ("deliver", "search", "400")
    );
    assert_eq!(count(&name, json!({ "match_all": {} })).await, 99);
    running.stop();
}
