//! Another decision under an ID that was used: a denial under the ID of something allowed is a second record, in the docket and in every
//! sink, counted and told; what is sent twice is not.

use serde_json::{Value, json};

use super::delivery::verified;
use super::logs::{self, LogStore};
use super::support::{Metrics, Place, Running, generated, produce, read_all, until};
use super::{address, count, pipeline};

const REUSED: &str = "docket_decision_ids_reused_total";

fn decision(id: &str, at: jiff::Timestamp, allow: bool) -> String {
    format!(
        r#"{{"decision_id":"{id}","path":"vault/allow","result":{allow},"timestamp":"{at}","labels":{{"app":"vault","id":"opa-1"}}}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn another_decision_under_a_used_id_is_a_second_record_everywhere() {
    let _servers = super::together().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("reused");
    let name = place.name.clone();
    let store = LogStore::victorialogs();
    let path = pipeline(
        &place,
        2,
        &format!(
            "docket: {{partitions: 2}}
spikes: {{}}
sinks:
{}  search: {{type: elasticsearch, url: \"{}\", index: $NAME}}
  file: {{type: file, path: $DIR/out}}
",
            store.sink(&store.url, "labels: {service: service, verdict: verdict, run: \"=$NAME\"}"),
            address("OPENSEARCH_URL")
        ),
    )
    .await;
    let source = format!("{name}-source");
    let at = jiff::Timestamp::now();
    let (id, other) = (format!("{name}-used"), format!("{name}-sent-twice"));
    let mut records = generated(300, 31);
    records.insert(50, decision(&id, at, true));
    records.insert(100, decision(&other, at, true));
    // Sent twice: the same decision.
    records.insert(150, decision(&other, at, true));
    // A denial under the ID of what was allowed, and as often as it likes.
    records.insert(200, decision(&id, at, false));
    records.insert(250, decision(&id, at, false));
    let running = Running::start(&place, &path);
    produce(&kafka, &source, &records);
    // With windows: what is sent twice is sent on once.
    let sinks = ["victorialogs", "file"];
    let of = |m: &Metrics, family: &str, sink: &str, more: &str| {
        m.sum(family, &[&format!("sink=\"{sink}\""), more])
    };
    let records_of = "docket_sink_records_total";
    let metrics = running
        .until("all is delivered, and what is told of it", 60, |m| {
            sinks.iter().all(|sink| {
                of(m, records_of, sink, "outcome=\"repeat\"") == 2 && m.delivered(sink) >= 304
            }) && m.delivered("search") >= 306
        })
        .await;
    for sink in sinks {
        assert_eq!(of(&metrics, REUSED, sink, ""), 1, "{sink}: {}", metrics.docket());
    }
    assert!(running.log().contains("decision_id_reused"), "{}", running.log());
    assert_eq!(metrics.sum("docket_rejects_total", &[]), 0);

    let docket = read_all(&kafka, &format!("docket.{name}"));
    let of_id = |all: &[Value]| -> Vec<Value> {
        let mut verdicts: Vec<Value> = all
            .iter()
            .filter(|r| r["decision_id"] == *id)
            .map(|r| r["docket"]["verdict"].clone())
            .collect();
        verdicts.sort_by_key(Value::to_string);
        verdicts
    };
    let all: Vec<Value> = docket.iter().map(super::support::Read1::json).collect();
    let (allow, deny) = (json!("allow"), json!("deny"));
    assert_eq!(of_id(&all), [&allow, &deny, &deny].map(Clone::clone));
    let findings: Vec<&Value> =
        all.iter().filter(|r| r["finding"]["kind"] == "decision_id_reused").collect();
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0]["finding"]["service"], "vault", "{}", findings[0]);

    let text = std::fs::read_to_string(place.path("out")).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(of_id(&lines), [&allow, &deny].map(Clone::clone), "in the file");
    assert_eq!(lines.iter().filter(|l| l["decision_id"] == *other).count(), 1);
    let stored = super::documents(&name).await;
    assert_eq!(of_id(&stored), [&allow, &deny].map(Clone::clone), "in OpenSearch");
    assert_eq!(count(&name, json!({ "term": { "decision_id": other } })).await, 1);
    logs::flush().await;
    let lines = store.lines(&format!("{{run=\"{name}\"}}")).await;
    let lines: Vec<Value> = lines.iter().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(of_id(&lines), [&allow, &deny].map(Clone::clone), "in VictoriaLogs");

    complete(&path).await;
    running.stop();

    // Known after a restart, too; a third one is told from both.
    let running = Running::start(&place, &path);
    let third = decision(&id, at, true).replace("true", "{\"allow\":true,\"why\":\"a guest\"}");
    produce(&kafka, &source, [&decision(&id, at, false), &third]);
    let metrics = running
        .until("the third is delivered", 60, |m| {
            sinks.iter().all(|sink| {
                of(m, records_of, sink, "outcome=\"repeat\"") == 1 && m.delivered(sink) >= 2
            }) && m.delivered("search") >= 3
        })
        .await;
    for sink in sinks {
        assert_eq!(of(&metrics, REUSED, sink, ""), 1, "{sink}: {}", metrics.docket());
    }
    assert_eq!(count(&name, json!({ "term": { "decision_id": id } })).await, 3);
    complete(&path).await;
    running.stop();
}

/// Everything is there, and each in its own right; what stands twice in the docket stands in each sink once.
async fn complete(path: &std::path::Path) {
    until("docket verify finds it complete", 30, async || {
        logs::flush().await;
        let (report, complete) = verified(path, &["--sink", "search,victorialogs,file"]);
        let told = || report.to_string().chars().take(3000).collect::<String>();
        if !complete {
            return Err(told());
        }
        assert_eq!(
            (&report["docket"]["reused_ids"], &report["gaps"]),
            (&json!(1), &json!(0)),
            "{}",
            told()
        );
        Ok(())
    })
    .await;
}
