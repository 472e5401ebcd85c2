//! Answers that acknowledge nothing: a page of some proxy, an empty 200, a status that is near the right one. None of them counts as a
//! delivery; each is an outage, in which nothing goes to rejects, and once the real server answers again, everything is there.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::delivery::verified;
use super::logs::{self, LogStore};
use super::support::proxy::{Fault, Proxy};
use super::support::{Metrics, Place, Running, decision_id, generated, produce, read_all, until};
use super::{address, count, pipeline};

const PAGE: &str = "<!doctype html><html><head><title>Sign in</title></head></html>";
const DELIVERY: &str = "delivery: {batch_age: 50ms, retry_initial: 50ms, retry_max: 300ms}";
/// So many decisions come while an answer is nonsense.
const EACH: usize = 20;

fn rejects(metrics: &Metrics) -> u64 {
    metrics.sum("docket_rejects_total", &[])
}

fn failing(metrics: &Metrics, sink: &str) -> u64 {
    metrics.sum("docket_sink_failing", &[&format!("sink=\"{sink}\"")])
}

/// What every sink has to bear: `settings` are its own, `$URL` stands for the proxy before `server`.
async fn takes_nothing_for_an_answer(
    sink: &str,
    server: &str,
    settings: &str,
    nonsense: &[(u16, &'static str, &'static str)],
) {
    let _servers = super::together().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("nonsense");
    let proxy = Proxy::start(server).await;
    let settings = settings.replace("$URL", &proxy.url);
    let path = pipeline(
        &place,
        1,
        &format!("docket: {{partitions: 1}}\nsinks: {{{sink}: {{{settings}, {DELIVERY}}}}}"),
    )
    .await;
    let source = format!("{}-source", place.name);
    let running = Running::start(&place, &path);
    // The server is there, and what it answers is taken. Other tests' decisions are in it, too.
    let seed = u64::from(rand::random::<u32>());
    let mut all = generated(EACH, seed);
    produce(&kafka, &source, &all);
    running.until("it is delivered", 60, |m| m.delivered(sink) == all.len() as u64).await;

    let mut taken_for_answers = Vec::new();
    for (i, (status, kind, body)) in nonsense.iter().enumerate() {
        let what = format!("{status} {kind} {body:?}");
        let before = running.metrics().await.delivered(sink);
        proxy.forget_faulted();
        proxy.set(Fault::Answer(*status, kind, body));
        let more = generated(EACH, seed + 1 + i as u64);
        produce(&kafka, &source, &more);
        all.extend(more);
        // Sent again and again, or taken for done.
        let metrics = running
            .until(&what, 30, |m| {
                m.delivered(sink) > before || proxy.faulted() >= 4 && failing(m, sink) > 0
            })
            .await;
        if metrics.delivered(sink) > before {
            taken_for_answers.push(what.clone());
        }
        if rejects(&metrics) > 0 {
            taken_for_answers.push(format!("{what}: {} rejects", rejects(&metrics)));
        }
        if failing(&metrics, sink) > 0 {
            until("/status tells it", 20, async || {
                let status = super::get(&format!("http://{}/status", running.admin)).await;
                let parts = status["parts"].as_array().unwrap();
                let told = parts.iter().any(|part| part["part"] == sink && part["well"] == false);
                if told { Ok(()) } else { Err(status.to_string()) }
            })
            .await;
        }
        proxy.set(Fault::None);
        running
            .until("the server answers again", 30, |m| {
                m.delivered(sink) == all.len() as u64 && failing(m, sink) == 0
            })
            .await;
    }
    let there = proxy.take_acknowledged();
    let missing: BTreeSet<String> =
        all.iter().map(|d| decision_id(d)).filter(|id| !there.contains(id)).collect();
    assert!(
        taken_for_answers.is_empty() && missing.is_empty(),
        "{sink}: {taken_for_answers:#?}; {} decisions never reached the server",
        missing.len()
    );
    assert!(read_all(&kafka, &format!("docket.{}.rejects", place.name)).is_empty());
    until("docket verify finds them all", 30, async || {
        if sink == "victorialogs" {
            logs::flush().await;
        }
        let (report, complete) = verified(&path, &["--sink", sink]);
        if complete { Ok(()) } else { Err(report.to_string().chars().take(2000).collect()) }
    })
    .await;
    running.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_answer_to_a_push_of_lines_is_an_outage() {
    let nonsense = [
        (200, "text/html", PAGE),
        (260, "", ""),
        (200, "", ""),
        (202, "text/plain", "Accepted\n"),
        (200, "application/json", "{\"status\":\"success\"}"),
    ];
    for store in LogStore::all().await {
        let name = store.name();
        let settings = format!(
            "type: loki, server: {name}, url: \"$URL\", labels: {{service: service, run: \"=$NAME\"}}"
        );
        takes_nothing_for_an_answer(name, &store.url, &settings, &nonsense).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_answer_to_an_export_of_spans_is_an_outage() {
    let settings = format!(
        "type: otlp, protocol: http, endpoint: \"$URL\", query: \"{}\"",
        address("JAEGER_URL")
    );
    let nonsense = [
        (200, "text/html", PAGE),
        (200, "text/plain", "Accepted\n"),
        (200, "text/plain", "hi"),
        (202, "", ""),
        (200, "text/html", ""),
        (200, "application/json", "{\"status\":\"ok\"}"),
    ];
    takes_nothing_for_an_answer("traces", &address("OTLP_HTTP_URL"), &settings, &nonsense).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_answer_to_put_log_events_is_an_outage() {
    let settings = "type: cloudwatch, region: eu-central-1, endpoint: \"$URL\", group: $NAME";
    let nonsense = [
        (200, "text/html", PAGE),
        (200, "", ""),
        (202, "", ""),
        // What was just created is not known everywhere yet.
        (400, "application/x-amz-json-1.1", "{\"__type\":\"ResourceNotFoundException\"}"),
    ];
    takes_nothing_for_an_answer("cloudwatch", &address("CLOUDWATCH_URL"), settings, &nonsense)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_answer_to_a_bulk_request_is_an_outage() {
    let settings = "type: elasticsearch, url: \"$URL\", index: $NAME";
    let nonsense = [
        (200, "text/html", PAGE),
        (200, "", ""),
        (200, "application/json", "{}"),
        (202, "text/plain", "Accepted\n"),
        (200, "application/json", "{\"took\":1,\"errors\":true,\"items\":[]}"),
    ];
    takes_nothing_for_an_answer("search", &address("OPENSEARCH_URL"), settings, &nonsense).await;
}

/// What a whole index or cluster can't take is no fault of a document.
struct Search {
    place: Place,
    running: Running,
    kafka: String,
    sent: usize,
}

impl Search {
    async fn new(test: &str) -> Search {
        let place = Place::new(test);
        let path = pipeline(
            &place,
            1,
            &format!(
                "docket: {{partitions: 1}}\nsinks: {{search: {{type: elasticsearch, url: \"{}\", index: $NAME, {DELIVERY}}}}}",
                address("OPENSEARCH_URL")
            ),
        )
        .await;
        let running = Running::start(&place, &path);
        Search { running, kafka: address("KAFKA_BOOTSTRAP"), place, sent: 0 }
    }

    fn write(&mut self) {
        produce(
            &self.kafka,
            &format!("{}-source", self.place.name),
            generated(EACH, self.sent as u64),
        );
        self.sent += EACH;
    }

    /// It is an outage, and goes on to be one.
    async fn is_refused(&self) {
        let delivered = self.running.metrics().await.delivered("search");
        let tried = |m: &Metrics| m.sum("docket_sink_requests_total", &["sink=\"search\""]);
        let before = tried(&self.running.metrics().await);
        let metrics = self
            .running
            .until("it is an outage", 30, |m| failing(m, "search") > 0 && tried(m) >= before + 6)
            .await;
        assert_eq!((metrics.delivered("search"), rejects(&metrics)), (delivered, 0));
    }

    /// All of it is there, and nothing is in rejects.
    async fn has_all(self) {
        let total = self.sent as u64;
        self.running.until("all is delivered", 60, |m| m.delivered("search") == total).await;
        assert_eq!(count(&self.place.name, json!({ "match_all": {} })).await, total);
        let name = format!("docket.{}.rejects", self.place.name);
        assert!(read_all(&self.kafka, &name).is_empty());
        self.running.stop();
    }
}

async fn change(method: reqwest::Method, path: &str, body: &Value) {
    let request = reqwest::Client::new()
        .request(method, format!("{}/{path}", address("OPENSEARCH_URL")))
        .header("content-type", "application/json");
    let answer = request.body(body.to_string()).send().await.unwrap();
    let status = answer.status();
    assert!(status.is_success(), "{path}: {status} {}", answer.text().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_index_is_an_outage() {
    let _servers = super::together().await;
    let mut search = Search::new("closed").await;
    let index = search.place.name.clone();
    search.write();
    search.running.until("it is delivered", 60, |m| m.delivered("search") == EACH as u64).await;
    change(reqwest::Method::POST, &format!("{index}/_close"), &json!({})).await;
    search.write();
    search.is_refused().await;
    change(reqwest::Method::POST, &format!("{index}/_open"), &json!({})).await;
    search.has_all().await;
}

/// Alone: no other test can create an index meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_takes_no_more_shards_is_an_outage() {
    let _servers = super::alone().await;
    super::init();
    let limit = async |most: Value| {
        let settings = json!({ "transient": { "cluster.max_shards_per_node": most } });
        change(reqwest::Method::PUT, "_cluster/settings", &settings).await;
    };
    limit(json!(1)).await;
    let tried = tokio::spawn(async {
        let mut search = Search::new("shards").await;
        search.write();
        search.is_refused().await;
        search
    })
    .await;
    // However it ended: the others need the cluster.
    limit(Value::Null).await;
    tried.unwrap().has_all().await;
}

/// Good decisions that go on coming, beside those that a server can't take.
struct Traffic {
    source: super::support::Source,
    left: Vec<String>,
    sent: Vec<String>,
}

impl Traffic {
    fn more(&mut self, n: usize) {
        let some: Vec<String> = self.left.drain(..n.min(self.left.len())).collect();
        self.source.write(&some);
        self.sent.extend(some);
    }
}

/// A record that a server answers with 500 for ever: of each sink it ends in rejects, alone and with what the server said, and nothing
/// waits for it. Others go on coming; each request of theirs takes `longer` than it would.
async fn ends_alone_in_rejects(sinks: &[&'static str], delivery: &str, longer: Duration) {
    let _servers = super::together().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("marked");
    let mark = format!("fails-for-ever-{}", place.name);
    let (mut proxies, mut settings) = (Vec::new(), String::new());
    for sink in sinks {
        let (server, kind) = match *sink {
            "victorialogs" => {
                (LogStore::victorialogs().url, "type: loki, server: victorialogs, url: $URL")
            }
            "traces" => (address("OTLP_HTTP_URL"), "type: otlp, protocol: http, endpoint: $URL"),
            "cloudwatch" => (
                address("CLOUDWATCH_URL"),
                "type: cloudwatch, region: eu-central-1, endpoint: $URL, group: $NAME",
            ),
            _ => (address("OPENSEARCH_URL"), "type: elasticsearch, url: $URL, index: $NAME"),
        };
        let proxy = Proxy::start(&server).await;
        let kind = kind.replace("$URL", &format!("\"{}\"", proxy.url));
        settings += &format!("  {sink}: {{{kind}, delivery: {{{delivery}}}}}\n");
        proxies.push((*sink, proxy));
    }
    let rest = format!("docket: {{partitions: 1}}\nsinks:\n{settings}");
    let path = pipeline(&place, 1, &rest).await;
    for (_, proxy) in &proxies {
        proxy.set(Fault::Marked(mark.clone()));
        proxy.slow_down(longer);
    }
    let at = jiff::Timestamp::now();
    let poison =
        format!(r#"{{"decision_id":"{mark}","path":"a/allow","result":true,"timestamp":"{at}"}}"#);
    let mut traffic = Traffic {
        source: super::support::Source::new(&kafka, &format!("{}-source", place.name)),
        left: generated(6_000, u64::from(rand::random::<u32>())),
        sent: Vec::new(),
    };
    traffic.more(100);
    traffic.source.write([&poison]);
    traffic.more(100);
    let running = Running::start(&place, &path);
    let rejected =
        |m: &Metrics, sink: &str| m.sum("docket_rejects_total", &[&format!("part=\"{sink}\"")]);
    until("each sink rejects it", 75, async || {
        traffic.more(10);
        let metrics = running.metrics().await;
        let state = |(sink, proxy): &(&str, Proxy)| {
            let name = format!("sink=\"{sink}\"");
            let passed = metrics.sum("docket_sink_requests_total", &[&name, "outcome=\"ok\""]);
            let rejects = rejected(&metrics, sink);
            format!("{sink}: {} failed, {passed} passed, {rejects} rejects", proxy.faulted())
        };
        let all = proxies.iter().all(|(sink, _)| rejected(&metrics, sink) > 0);
        if all {
            Ok(())
        } else {
            Err(format!("{:#?}", proxies.iter().map(state).collect::<Vec<_>>()))
        }
    })
    .await;
    let good = traffic.sent.len() as u64;
    let metrics = running
        .until("the others are delivered", 60, |m| {
            proxies.iter().all(|(sink, _)| m.delivered(sink) == good)
        })
        .await;
    assert_eq!(rejects(&metrics), proxies.len() as u64, "{}", metrics.docket());
    let letters = read_all(&kafka, &format!("docket.{}.rejects", place.name));
    let ids: HashSet<String> = traffic.sent.iter().map(|d| decision_id(d)).collect();
    for (sink, proxy) in &proxies {
        let of: Vec<_> = letters.iter().filter(|l| l.headers["docket-sink"] == *sink).collect();
        assert_eq!(of.len(), 1, "{sink}");
        assert_eq!(of[0].json()["decision_id"], mark, "{sink}");
        let detail = &of[0].headers["docket-detail"];
        assert!(detail.contains("500") && detail.contains("while others passed"), "{detail}");
        let there = proxy.take_acknowledged();
        let missing = ids.iter().filter(|id| !there.contains(*id)).count();
        assert_eq!(missing, 0, "{sink}: {missing} are neither there nor in rejects");
        assert!(!there.contains(&mark));
        println!("{sink}: {} requests failed; {detail}", proxy.faulted());
        assert!(proxy.most_alike() <= 8, "{sink}: one request {} times", proxy.most_alike());
    }
    // Nothing is behind it.
    let lag = |m: &Metrics, sink: &str| m.sum("docket_lag_records", &[&format!("part=\"{sink}\"")]);
    running
        .until("its partition goes on", 30, |m| proxies.iter().all(|(s, _)| lag(m, s) == 0))
        .await;
    running.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_makes_servers_fail_for_ever_ends_alone_in_rejects() {
    let sinks = ["victorialogs", "traces", "cloudwatch", "search"];
    let delivery = "batch_records: 50, batch_age: 100ms, retry_initial: 500ms, retry_max: 2s";
    ends_alone_in_rejects(&sinks, delivery, Duration::ZERO).await;
}

/// It is tried several times while one request of the others is on its way.
#[tokio::test(flavor = "multi_thread")]
async fn it_does_so_though_others_take_longer_than_its_pauses() {
    let delivery = "batch_records: 50, batch_age: 100ms, retry_initial: 20ms, retry_max: 100ms";
    ends_alone_in_rejects(&["search"], delivery, Duration::from_millis(500)).await;
}

/// An answer of more than docket reads acknowledges nothing; of smaller requests it is smaller.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_at_too_great_length_is_asked_in_smaller_pieces() {
    let _servers = super::together().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("wordy");
    let name = place.name.clone();
    let proxy = Proxy::start(&address("OPENSEARCH_URL")).await;
    // 16 MiB are read.
    proxy.set(Fault::Wordy(1 << 20));
    let path = pipeline(
        &place,
        1,
        &format!(
            "docket: {{partitions: 1}}
sinks:
  search: {{type: elasticsearch, url: \"{}\", index: $NAME, delivery: {{batch_records: 40, retry_initial: 20ms, retry_max: 200ms}}}}
",
            proxy.url
        ),
    )
    .await;
    produce(&kafka, &format!("{name}-source"), generated(80, 5));
    let running = Running::start(&place, &path);
    let metrics = running.until("all is delivered", 60, |m| m.delivered("search") == 80).await;
    assert_eq!(rejects(&metrics), 0);
    assert_eq!(count(&name, json!({ "match_all": {} })).await, 80);
    let most = proxy.most_alike();
    println!("{} requests, the same one {most} times at most", proxy.faulted());
    assert!(most <= 4, "the same request {most} times");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let quiet = proxy.faulted();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(proxy.faulted(), quiet, "nothing is sent any more");
    running.stop();
}
