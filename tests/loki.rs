//! The Loki sink and `docket verify` on a double of Loki, and the double itself.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use docket::log::mock::Mock;
use prost::Message;
use serde_json::{Value, json};
use support::loki_double::{Entry, Limits, LokiDouble, Pair, PushRequest, PushStream};
use support::{Place, Running, Source, docket, produce, read_all};

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;

fn now() -> i64 {
    docket::clock::now()
}

fn entry(at: i64, line: &str) -> Entry {
    let timestamp = prost_types::Timestamp {
        seconds: at.div_euclid(SECOND),
        nanos: at.rem_euclid(SECOND) as i32,
    };
    Entry { timestamp: Some(timestamp), line: line.into(), metadata: Vec::new() }
}

fn pairs(count: usize, size: usize) -> Vec<Pair> {
    (0..count).map(|i| Pair { name: format!("n{i}"), value: "x".repeat(size) }).collect()
}

/// Status and text.
async fn push(loki: &LokiDouble, streams: Vec<(&str, Vec<Entry>)>) -> (u16, String) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let streams =
        streams.into_iter().map(|(labels, entries)| PushStream { labels: labels.into(), entries });
    let plain = PushRequest { streams: streams.collect() }.encode_to_vec();
    let body = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
    let request = reqwest::Client::new().post(format!("{}/loki/api/v1/push", loki.url));
    let response = request.body(body).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

async fn query(loki: &LokiDouble, pairs: &[(&str, &str)]) -> (u16, Value) {
    let url = format!("{}/loki/api/v1/query_range", loki.url);
    let mut url = reqwest::Url::parse(&url).unwrap();
    url.query_pairs_mut().extend_pairs(pairs);
    let response = reqwest::get(url).await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

#[tokio::test]
async fn the_double_names_what_it_refuses_and_stores_the_rest() {
    let now = now();
    let labels = |n: usize| {
        let all: Vec<String> = (0..n).map(|i| format!("l{i}=\"v\"")).collect();
        format!("{{{}}}", all.join(","))
    };
    let (many, name, value) = (
        labels(16),
        format!("{{{}=\"v\"}}", "n".repeat(1025)),
        format!("{{a=\"{}\"}}", "v".repeat(2049)),
    );
    let fine = || entry(now, "fine");
    for (labels, bad, text) in [
        ("{a=\"b\"}", entry(now - 8 * 24 * 60 * MINUTE, "x"), "has timestamp too old: "),
        ("{a=\"b\"}", entry(now + 11 * MINUTE, "x"), "has timestamp too new: "),
        (
            "{a=\"b\"}",
            entry(now, &"x".repeat((256 << 10) + 1)),
            "max entry size '262144' bytes exceeded for stream '{a=\"b\", service_name=\"unknown_service\"}' while adding an entry with length '262145' bytes",
        ),
        (
            "{a=\"b\"}",
            Entry { metadata: pairs(2, 33_000), ..fine() },
            "has structured metadata too large: '66004' bytes, limit: '65536' bytes",
        ),
        (
            "{a=\"b\"}",
            Entry { metadata: pairs(129, 1), ..fine() },
            "has too many structured metadata labels: '129', limit: '128'",
        ),
        (&many, fine(), "has 16 label names; limit 15"),
        (&name, fine(), "has label name too long: 'nnn"),
        (&value, fine(), "has label value too long: 'vvv"),
        ("{}", fine(), "error at least one label pair is required per stream"),
        ("{a=\"b\"", fine(), "error parsing labels '{a=\"b\"' with error: "),
        ("{1a=\"b\"}", fine(), "error parsing labels '{1a=\"b\"}' with error: "),
        ("{a=\"b\",a=\"c\"}", fine(), "has duplicate label name: 'a'"),
    ] {
        let loki = LokiDouble::start(Limits::default()).await;
        let good = vec![entry(now, "good"), entry(now - MINUTE, "good, too")];
        let (status, told) = push(&loki, vec![("{a=\"c\"}", good), (labels, vec![bad])]).await;
        assert!(status == 400 && told.contains(text), "{text}: {status} {told}");
        assert_eq!(loki.len(), 2, "{text}");
    }
    // Of several of one kind one is quoted, and how many they were.
    let loki = LokiDouble::start(Limits::default()).await;
    let new = (0..3).map(|i| entry(now + 11 * MINUTE + i, "x")).collect();
    let (_, told) = push(&loki, vec![("{a=\"b\"}", new)]).await;
    assert!(told.starts_with("3 errors like: entry for stream '{a=\"b\""), "{told}");
    assert_eq!(push(&loki, vec![("{a=\"b\"}", vec![fine()])]).await.0, 204);
}

#[tokio::test]
async fn the_double_takes_an_hour_of_disorder_and_no_more() {
    let loki = LokiDouble::start(Limits::default()).await;
    // A time whose fraction is written in full.
    let now = now() / SECOND * SECOND + 405_000_000;
    let at = |minutes: i64| entry(now - minutes * MINUTE, &format!("{minutes}"));
    assert_eq!(push(&loki, vec![("{a=\"b\"}", vec![at(0), at(59), at(30)])]).await.0, 204);
    let (status, told) = push(&loki, vec![("{a=\"b\"}", vec![at(61), at(2), at(70)])]).await;
    let time = |minutes: i64, form: &str| {
        let at = jiff::Timestamp::from_nanosecond(i128::from(now - minutes * MINUTE)).unwrap();
        at.strftime(form).to_string()
    };
    let line = |minutes: i64| {
        format!(
            "entry with timestamp {}.405 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: {}, oldest acceptable timestamp is: {}',\n",
            time(minutes, "%Y-%m-%d %H:%M:%S"),
            time(minutes, "%Y-%m-%dT%H:%M:%SZ"),
            time(60, "%Y-%m-%dT%H:%M:%SZ"),
        )
    };
    assert_eq!(
        (status, told),
        (
            400,
            format!(
                "{}{}user 'fake', total ignored: 2 out of 3 for stream: {{a=\"b\", service_name=\"unknown_service\"}}\n",
                line(61),
                line(70)
            )
        )
    );
    assert_eq!(loki.len(), 4);
    // Another stream has an hour of its own.
    assert_eq!(push(&loki, vec![("{a=\"c\"}", vec![at(70)])]).await.0, 204);
}

#[tokio::test]
async fn the_double_bounds_streams_and_bytes() {
    let limits = Limits { max_streams: 1, rate: (1e6, 1000.0), ..Limits::default() };
    let loki = LokiDouble::start(limits).await;
    let one = |labels, size: usize| vec![(labels, vec![entry(now(), &"x".repeat(size))])];
    assert_eq!(push(&loki, one("{a=\"b\"}", 600)).await.0, 204);
    let (status, told) = push(&loki, one("{a=\"c\"}", 10)).await;
    assert!(
        status == 429
            && told.contains("maximum active stream limit exceeded when trying to create stream"),
        "{told}"
    );
    let (status, told) = push(&loki, one("{a=\"b\"}", 2000)).await;
    assert!(
        status == 429
            && told.contains("ingestion rate limit exceeded for user fake (limit: 1000000 bytes/sec) while attempting to ingest '1' lines totaling '2000' bytes"),
        "{told}"
    );
    assert_eq!(loki.len(), 1);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(push(&loki, one("{a=\"b\"}", 900)).await.0, 204);
}

#[tokio::test]
async fn the_double_keeps_a_repeat_once_unless_its_stream_is_spread_over_shards() {
    let now = now();
    for (shards, times) in [(1, 1), (50, 2)] {
        let loki = LokiDouble::start(Limits { shards, ..Limits::default() }).await;
        let batch = || vec![("{a=\"b\"}", vec![entry(now, "x"), entry(now, "y")])];
        // That a shard is met again each time is out of the question.
        for _ in 0..if shards == 1 { 2 } else { 20 } {
            assert_eq!(push(&loki, batch()).await.0, 204);
        }
        assert!(if times == 1 { loki.len() == 2 } else { loki.len() > 2 }, "{}", loki.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_double_loses_lines_in_a_crash_only_if_several_wrote_to_one_stream() {
    for writers in [1, 8] {
        let loki = LokiDouble::start(Limits::default()).await;
        let mut all = tokio::task::JoinSet::new();
        for writer in 0..writers {
            let loki = loki.clone();
            all.spawn(async move {
                for i in 0..40 {
                    let one = vec![entry(now(), &format!("{writer} {i}"))];
                    assert_eq!(push(&loki, vec![("{a=\"b\"}", one)]).await.0, 204);
                }
            });
        }
        all.join_all().await;
        assert_eq!(loki.len(), writers * 40);
        loki.crash();
        assert_eq!(loki.len() == writers * 40, writers == 1, "{} of {}", loki.len(), writers * 40);
        // What it knows after a crash, it knows after another.
        let known = loki.len();
        loki.crash();
        assert_eq!(loki.len(), known);
    }
}

#[tokio::test]
async fn the_double_answers_queries_page_by_page_and_within_its_bounds() {
    let loki = LokiDouble::start(Limits::local()).await;
    let now = now();
    let mut lines: Vec<Entry> = (0..10).map(|i| entry(now + i, &format!("line {i}"))).collect();
    lines[3].metadata = vec![Pair { name: "trace_id".into(), value: "t".into() }];
    push(&loki, vec![("{a=\"b\",c=\"d\"}", lines)]).await;
    push(&loki, vec![("{a=\"c\"}", vec![entry(now, &"x".repeat(250_000))])]).await;
    let (start, end) = (now.to_string(), (now + 100).to_string());
    let ask = |text: &'static str, limit: &'static str| {
        let (loki, start, end) = (loki.clone(), start.clone(), end.clone());
        async move {
            let range = [("query", text), ("start", &start), ("end", &end), ("limit", limit)];
            let pairs = [range.as_slice(), &[("direction", "forward")]].concat();
            let (status, answer) = query(&loki, &pairs).await;
            assert_eq!(status, 200, "{answer}");
            let streams = answer["data"]["result"].as_array().unwrap().clone();
            let values = streams.iter().flat_map(|s| s["values"].as_array().unwrap().clone());
            values.map(|v| v[1].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        }
    };
    assert_eq!(ask("{a=\"b\"}", "2").await, ["line 0", "line 1"]);
    assert_eq!(ask("{a=\"b\",c=\"x\"}", "2").await.len(), 0);
    assert_eq!(ask("{a=~\"b|c\"}", "100").await.len(), 11);
    assert_eq!(ask("{a=\"b\"} |~ `line [5-7]` |= \"6\"", "100").await, ["line 6"]);
    assert_eq!(ask("{a=\"b\"} | trace_id=\"t\"", "100").await, ["line 3"]);
    // The start belongs to the range, the end does not.
    let (from, until) = ((now + 2).to_string(), (now + 4).to_string());
    let range = [("query", "{a=\"b\"}"), ("start", &from), ("end", &until)];
    let (_, answer) = query(&loki, &range).await;
    let found = answer["data"]["result"].as_array().unwrap();
    assert_eq!(found.len(), 2, "metadata tells streams apart: {answer}");
    let (status, told) = query(&loki, &[("query", "{a=\"b\"}"), ("limit", "100001")]).await;
    assert_eq!((status, told.as_str().unwrap().starts_with("max entries limit")), (400, true));
    assert_eq!(query(&loki, &[("query", "{a=}")]).await.0, 400);
    // An answer of more than 4 MiB.
    for i in 0..20 {
        push(&loki, vec![("{a=\"c\"}", vec![entry(now + 1 + i, &"y".repeat(250_000))])]).await;
    }
    let large = [("query", "{a=\"c\"}"), ("start", &*start), ("end", &*end), ("limit", "100")];
    let (status, told) = query(&loki, &large).await;
    assert!(status == 500 && told.as_str().unwrap().contains("ResourceExhausted"), "{told}");
}

fn mock() -> Mock {
    Mock::start(&[("source", 1), ("docket", 1), ("rejects", 1)]).unwrap()
}

fn pipeline(place: &Place, mock: &Mock, loki: &LokiDouble, delivery: &str) -> std::path::PathBuf {
    place.pipeline(&format!(
        "name: $NAME
kafka: {{brokers: \"{}\"}}
sources: [{{topic: source}}]
docket: {{topic: docket, rejects: rejects, create: false}}
sinks:
  loki: {{type: loki, url: \"{}\", delivery: {{retry_initial: 20ms, retry_max: 200ms, {delivery}}}}}
",
        mock.bootstrap(),
        loki.url
    ))
}

fn decision(id: &str, at: i64) -> String {
    json!({
        "decision_id": id,
        "labels": { "app": "a" },
        "path": "a/allow",
        "result": true,
        "timestamp": docket::decision::time::format(at),
    })
    .to_string()
}

fn decisions(count: usize) -> Vec<String> {
    let now = now();
    (0..count).map(|i| decision(&format!("d-{i}"), now + i as i64 * 1000)).collect()
}

/// What `docket verify` finds: how many are there, which are missing, which stand there twice.
fn verified(pipeline: &Path) -> (u64, usize, usize) {
    let out = docket()
        .args(["verify", "--from", "start", "--settle", "0s", "--json"])
        .arg(pipeline)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&out.stdout).into_owned();
    let report: Value = serde_json::from_str(&told)
        .unwrap_or_else(|_| panic!("{told}\n{}", String::from_utf8_lossy(&out.stderr)));
    let sink = &report["sinks"][0];
    let n = |what: &str| sink[what].as_array().unwrap().len();
    assert_eq!(n("altered"), 0, "{sink}");
    (sink["present"].as_u64().unwrap(), n("missing"), n("repeated"))
}

/// Of which all is read at once after an outage, or moved from another cluster.
#[tokio::test(flavor = "multi_thread")]
async fn six_days_are_replayed_in_order_and_nothing_is_refused() {
    let topics = [("source", 12), ("docket", 12), ("rejects", 1)];
    let (mock, place) = (Mock::start(&topics).unwrap(), Place::new("replay"));
    let loki = LokiDouble::start(Limits { rate: (1e9, 1e9), ..Limits::default() }).await;
    let pipeline = pipeline(&place, &mock, &loki, "batch_age: 50ms");
    let (now, count) = (now(), 20_000);
    let days = 6 * 24 * 60 * MINUTE;
    let decisions: Vec<String> =
        (0..count).map(|i| decision(&format!("d-{i}"), now - days + days / count * i)).collect();
    // Some partitions get an hour at a time, others each tenth decision, one nothing.
    let source = Source::new(&mock.bootstrap(), "source");
    for (i, decision) in decisions.iter().enumerate() {
        source.write_to(if i % 10 == 0 { 10 } else { i as i32 / 200 % 10 }, decision);
    }
    source.flush();
    let running = Running::start(&place, &pipeline);
    let outcome = |outcome: &str| format!("outcome=\"{outcome}\"");
    let all = running
        .until("all came to an end", 60, |m| {
            m.sum("docket_sink_records_total", &["sink=\"loki\""]) == count as u64
        })
        .await;
    assert_eq!(all.sum("docket_sink_records_total", &[&outcome("refused")]), 0, "{}", all.docket());
    assert_eq!((all.delivered("loki"), loki.len()), (count as u64, count as usize));
    running.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_loki_refuses_goes_to_rejects_with_the_reason_and_the_rest_is_delivered() {
    let (mock, place) = (mock(), Place::new("refuses"));
    let loki = LokiDouble::start(Limits::default()).await;
    let pipeline = pipeline(&place, &mock, &loki, "batch_age: 1s");
    let running = Running::start(&place, &pipeline);
    let now = now();
    produce(&mock.bootstrap(), "source", [decision("newest", now)]);
    running.until("the newest is there", 30, |m| m.delivered("loki") == 1).await;
    let mut later: Vec<String> = (0..50)
        .map(|i| decision(&format!("within the hour {i}"), now - 59 * MINUTE + i * SECOND))
        .collect();
    later[10] = decision("behind", now - 65 * MINUTE);
    later[20] = decision("ahead", now + 20 * MINUTE);
    later[30] = decision("long", now).replacen(
        '{',
        &format!("{{\"custom\":{{\"note\":\"{}\"}},", "x".repeat(300_000)),
        1,
    );
    produce(&mock.bootstrap(), "source", &later);
    let refused = ["sink=\"loki\"", "outcome=\"refused\""];
    running
        .until("48 delivered, 3 refused", 30, |m| {
            m.delivered("loki") == 48 && m.sum("docket_sink_records_total", &refused) == 3
        })
        .await;
    // The halves of a refused batch were sent again, and Loki keeps one.
    assert!(loki.pushes() > 3, "{}", loki.pushes());
    assert_eq!(loki.len(), 48);
    running.stop();
    let reasons: BTreeMap<String, String> = read_all(&mock.bootstrap(), "rejects")
        .iter()
        .map(|r| {
            let id = r.json()["decision_id"].as_str().unwrap().to_owned();
            assert_eq!(r.headers["docket-status"], "400", "{:?}", r.headers);
            (id, format!("{} {:?}", r.headers["docket-reason"], r.headers.get("docket-detail")))
        })
        .collect();
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    for (id, reason) in [
        ("behind", "entry too far behind, entry timestamp is: "),
        ("ahead", "has timestamp too new: "),
        ("long", "max entry size '262144' bytes exceeded"),
    ] {
        assert!(reasons[id].contains(reason), "{reasons:?}");
    }
    assert_eq!(verified(&pipeline), (48, 0, 0), "what is in rejects is accounted for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_beyond_lokis_rate_is_sent_in_smaller_ones() {
    let (mock, place) = (mock(), Place::new("throttled"));
    // Less at once than the batch has.
    let loki = LokiDouble::start(Limits { rate: (1e6, 60e3), ..Limits::default() }).await;
    let pipeline = pipeline(&place, &mock, &loki, "batch_age: 1s");
    produce(&mock.bootstrap(), "source", decisions(500));
    let running = Running::start(&place, &pipeline);
    let metrics = running.until("all are delivered", 60, |m| m.delivered("loki") == 500).await;
    let throttled = ["sink=\"loki\"", "outcome=\"throttled\""];
    assert!(metrics.sum("docket_sink_requests_total", &throttled) >= 4, "{}", metrics.docket());
    assert_eq!(loki.len(), 500);
    running.stop();
    assert!(read_all(&mock.bootstrap(), "rejects").is_empty());
}

/// 1,500 decisions in batches of ten, then a crash of Loki: how many are missing.
async fn missing_after_a_crash(concurrency: usize) -> usize {
    let (mock, place) = (mock(), Place::new("crashes"));
    let loki = LokiDouble::start(Limits::default()).await;
    let delivery = format!("concurrency: {concurrency}, batch_records: 10");
    let pipeline = pipeline(&place, &mock, &loki, &delivery);
    produce(&mock.bootstrap(), "source", decisions(1500));
    let running = Running::start(&place, &pipeline);
    running.until("all are delivered", 60, |m| m.delivered("loki") == 1500).await;
    running.stop();
    assert_eq!(verified(&pipeline), (1500, 0, 0));
    loki.crash();
    let (present, missing, _) = verified(&pipeline);
    assert_eq!(present as usize + missing, 1500);
    missing
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_loki_loses_nothing_that_was_sent_batch_after_batch() {
    assert_eq!(missing_after_a_crash(1).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_tells_what_a_crash_of_loki_lost_that_was_sent_at_once() {
    assert!(missing_after_a_crash(8).await > 0);
}

/// 300 decisions, sent again from the docket topic: how many stand there twice.
async fn repeated(shards: usize) -> usize {
    let (mock, place) = (mock(), Place::new("repeats"));
    let loki = LokiDouble::start(Limits { shards, ..Limits::default() }).await;
    let pipeline = pipeline(&place, &mock, &loki, "batch_records: 100");
    produce(&mock.bootstrap(), "source", decisions(300));
    let running = Running::start(&place, &pipeline);
    running.until("all are delivered", 60, |m| m.delivered("loki") == 300).await;
    running.stop();
    assert_eq!(verified(&pipeline), (300, 0, 0));
    let again = docket()
        .args(["backfill", "--sink", "loki", "--from", "start", "--send"])
        .arg(&pipeline)
        .output()
        .unwrap();
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    let (present, missing, repeated) = verified(&pipeline);
    assert_eq!((present, missing), (300, 0));
    repeated
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_loki_keeps_once() {
    assert_eq!(repeated(1).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_tells_what_loki_keeps_twice_in_shards() {
    assert!(repeated(16).await > 0);
}
