//! The join behind a real Envoy that asks real OPA, with what deploy/envoy has: each decision meets its request, and what
//! enforcement does wrong is found, and nothing else.
//!
//! Envoy writes its access log to its standard output; an agent's part, bringing the lines to Kafka, is the test's, so that it
//! can be as late and as disorderly as it wants.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::door::opened;
use super::support::{Metrics, Place, Read1, Running, create_topic, docket, read_all};
use super::{address, init};
use fleet::{Agent, Fleet, Lateness, Manner, Opa};

mod fleet;

const FINE: &str = "";
/// Envoy asks, and serves whatever the answer is.
const SHADOW: &str = "shadow";
const TOKEN: &str = "who-may-see-decisions";

/// A request, by its number: who has to ask for it, and how it goes wrong.
#[derive(Clone)]
struct Request {
    n: u32,
    path: String,
    /// `ignore` and `skip` are the service's, `open` is while OPA is stopped.
    wrong: &'static str,
    grpc: bool,
}

impl Request {
    fn new(n: u32, path: String, wrong: &'static str) -> Request {
        // Of some requests the answer is gRPC's, whose denials have the HTTP status 200.
        let grpc = n % 10 == 4 && path.starts_with("/orders/");
        Request { n, path, wrong, grpc }
    }

    fn denied(&self) -> bool {
        self.n.is_multiple_of(3)
    }

    /// Whether OPA is asked.
    fn decided(&self) -> bool {
        matches!(self.wrong, FINE | "ignore" | SHADOW)
    }

    fn status(&self) -> u16 {
        if self.wrong == FINE && self.denied() && !self.grpc { 403 } else { 200 }
    }

    fn finding(&self) -> Option<(String, String)> {
        let kind = match self.wrong {
            "ignore" => "denied_but_served",
            "skip" => "served_without_decision",
            "open" => "failed_open",
            _ => return None,
        };
        Some((kind.to_owned(), self.path.clone()))
    }
}

/// Whether the client put it into a trace that has other requests, too.
fn in_shared_trace(path: &str) -> bool {
    path.rsplit('/').next().unwrap().parse::<u32>().unwrap() % 8 < 2
}

/// Sends requests, so many a second, and holds Envoy and the service to what they are to answer.
async fn drive(url: &str, requests: &[Request], per_second: u64) {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
    let few = Arc::new(Semaphore::new(32));
    let mut pace = tokio::time::interval(Duration::from_micros(1_000_000 / per_second));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut all = tokio::task::JoinSet::new();
    for request in requests.iter().cloned() {
        pace.tick().await;
        let permit = few.clone().acquire_owned().await.unwrap();
        let (client, url) = (client.clone(), format!("{url}{}?token=secret", request.path));
        all.spawn(async move {
            let mut sent = if request.grpc {
                client.post(url).header("content-type", "application/grpc")
            } else {
                client.get(url)
            };
            if !request.wrong.is_empty() {
                sent = sent.header("x-wrong", request.wrong);
            }
            // Clients say that they were let pass, which only Envoy may say.
            if request.n % 50 == 1 {
                sent = sent.header("x-envoy-auth-failure-mode-allowed", "true");
            }
            // Clients that trace: several requests in one trace.
            if in_shared_trace(&request.path) {
                let (trace, span) = (request.n / 16 + 1, request.n + 1);
                let flags = if request.n.is_multiple_of(2) { "01" } else { "00" };
                sent = sent.header("traceparent", format!("00-{trace:032x}-{span:016x}-{flags}"));
            }
            let answer = sent.send().await.unwrap();
            let open = answer.headers().get("x-failure-mode-allowed").cloned();
            drop(permit);
            let status = answer.status().as_u16();
            let open = open.is_some_and(|value| value == "true");
            let wanted = (request.status(), request.wrong == "open");
            assert_eq!((status, open), wanted, "{}: is the machine too slow?", request.path);
        });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
}

/// A pipeline with a door, and a join of what the agent brings.
async fn pipeline(place: &Place, settings: &str) -> PathBuf {
    init();
    let kafka = address("KAFKA_BOOTSTRAP");
    let token = place.secret("why-token", TOKEN);
    let path = place.pipeline(&format!(
        "name: $NAME
kafka: {{brokers: \"{kafka}\"}}
sources: [{{topic: $NAME-source}}]
door: {{listen: \"127.0.0.1:0\"}}
intake: {{transaction_interval: 50ms}}
docket: {{partitions: 4}}
admin: {{listen: \"127.0.0.1:0\", why_token: {token}}}
join:
  facts:
    - {{topic: $NAME-access, format: access_log}}
    - {{topic: $NAME-spans, format: otlp}}
  findings: {{requests: [{{path: \"/**\"}}]}}
{settings}"
    ));
    for topic in ["source", "access", "spans"] {
        create_topic(&kafka, &format!("{}-{topic}", place.name), 3, &[]).await;
    }
    assert!(docket().args(["setup", "--yes"]).arg(&path).status().unwrap().success());
    path
}

/// Waits until both sides are known to be complete up to a time.
async fn complete(running: &Running, until: Timestamp, seconds: u64) -> Metrics {
    let until = u64::try_from(until.as_second()).unwrap();
    running
        .until("both sides are complete", seconds, |metrics| {
            let sides = ["side=\"decisions\"", "side=\"facts\""];
            sides
                .iter()
                .all(|side| metrics.sum("docket_join_complete_timestamp_seconds", &[side]) >= until)
        })
        .await;
    // What was told is written with the next transaction.
    tokio::time::sleep(Duration::from_secs(2)).await;
    running.metrics().await
}

/// What the docket has of a run.
struct Outcome {
    decisions: Vec<Value>,
    findings: BTreeSet<(String, String)>,
    amended: BTreeMap<String, Vec<Value>>,
}

fn outcome(kafka: &str, place: &Place) -> Outcome {
    let topic = format!("docket.{}", place.name);
    assert!(read_all(kafka, &format!("{topic}.rejects")).is_empty());
    let (mut decisions, mut findings, mut amended) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
    for record in read_all(kafka, &topic).iter().map(Read1::json) {
        if record["docket"]["verdict"] == "finding" {
            let finding = &record["finding"];
            let found = (text(&finding["kind"]), text(&finding["path"]));
            assert!(findings.insert(found), "twice: {finding}");
        } else {
            decisions.push(record);
        }
    }
    for amendment in read_all(kafka, &format!("{topic}.amendments")).iter().map(Read1::json) {
        let id = text(&amendment["decision_id"]);
        amended.entry(id).or_insert_with(Vec::new).push(amendment["docket"].clone());
    }
    Outcome { decisions, findings, amended }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The path that was asked about: Envoy and the service have inputs of their own.
fn asked(decision: &Value) -> String {
    let input = &decision["input"];
    let path = match &input["attributes"]["request"]["http"]["path"] {
        Value::Null => text(&input["path"]),
        path => text(path),
    };
    path.split('?').next().unwrap().to_owned()
}

/// Each decision is there once, and each request that it has, at once or later, is its own. How many there were, by who
/// decided and how they met.
fn right(outcome: &Outcome, requests: &[Request]) -> BTreeMap<String, u32> {
    let mut wanted: BTreeSet<&str> =
        requests.iter().filter(|r| r.decided()).map(|r| &*r.path).collect();
    let (mut classes, mut wrong_guesses) = (BTreeMap::new(), 0);
    for decision in &outcome.decisions {
        let path = asked(decision);
        assert!(wanted.remove(&*path), "twice, or by nobody asked: {decision}");
        let id = text(&decision["decision_id"]);
        let later = outcome.amended.get(&id).into_iter().flatten();
        let at_once = Some(&decision["docket"]).filter(|docket| !docket["request"].is_null());
        let mut all = at_once.into_iter().chain(later).peekable();
        assert!(all.peek().is_some(), "without a request: {decision}");
        let (mut last, mut right) = ("", false);
        for met in all {
            last = met["match"]["class"].as_str().unwrap();
            right = text(&met["request"]["path"]) == path;
            // What is likely is taken back, and is of the same trace: only where clients send several requests in one.
            let guessed = last == "likely" && in_shared_trace(&path);
            assert!(right || guessed, "{met}\nof {decision}");
            wrong_guesses += u32::from(!right);
        }
        assert!(right, "{decision}");
        let when = if at_once.is_some() { "at once" } else { "later" };
        let by = text(&decision["labels"]["app"]);
        *classes.entry(format!("{by}, {last}, {when}")).or_default() += 1;
    }
    assert!(wanted.is_empty(), "not decided, or lost: {wanted:?}");
    println!("likely was another request of the trace {wrong_guesses} times, and was taken back");
    classes
}

#[tokio::test(flavor = "multi_thread")]
async fn each_decision_of_a_real_envoy_meets_its_own_request() {
    let _servers = super::together().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("envoy");
    let path = pipeline(&place, "  wait: 3s\n  window: 10s\n  delay: 30s\n").await;
    let running = Running::start(&place, &path);
    let door = opened(&running).await;
    let (port, spans) = fleet::collector().await;
    // One traces itself and one doesn't; one is slow to tell.
    let opas = [Opa::new("traced", true, (1, 2)), Opa::new("untraced", false, (3, 8))];
    let mut processes = Vec::new();
    for opa in &opas {
        processes.push(opa.start(&place, &door, port).await);
    }
    let fleet = Fleet::start(&place, port, [&opas, &opas], Manner::Sampled(100)).await;
    let late = Lateness { lines: (0, 10_000), clock: SignedDuration::ZERO, spans: 10_000 };
    let agent = Agent::start(&kafka, &place, fleet.access_log.clone(), spans, late);
    let requests: Vec<Request> = (0..5_000)
        .map(|n| {
            let way = ["/orders", "/orders", "/own", "/own/trace"][n as usize % 4];
            Request::new(n, format!("{way}/{n}"), FINE)
        })
        .collect();
    drive(&fleet.url, &requests, 120).await;
    let end = Timestamp::now();
    // OPA sends its spans every 5 s, and not when it ends.
    tokio::time::sleep(Duration::from_secs(7)).await;
    processes.into_iter().for_each(fleet::Process::stop);
    let lines = tokio::task::spawn_blocking(|| agent.finish()).await.unwrap();
    assert_eq!(lines.len(), requests.len());
    complete(&running, end + SignedDuration::from_secs(13), 120).await;

    let outcome = outcome(&kafka, &place);
    let classes = right(&outcome, &requests);
    println!("{classes:#?}");
    assert_eq!(outcome.findings, BTreeSet::new());
    for start in [
        "traced, decision_id",
        "untraced, decision_id",
        "traced, trace_and_parent",
        "untraced, trace_and_parent",
    ] {
        assert!(classes.keys().any(|name| name.starts_with(start)), "{start}: {classes:?}");
    }
    assert!(!classes.keys().any(|name| name.contains("likely")), "{classes:?}");
    running.stop();
}

/// Requests of the second test: 25 whose denial the service ignores, 25 for which it doesn't ask, and 25 while OPA is
/// stopped, which `at` begins.
fn wrong(total: u32, at: u32) -> Vec<Request> {
    let mut left = BTreeMap::from([("ignore", 25), ("skip", 25)]);
    let mut requests: Vec<Request> = (0..total)
        .map(|n| {
            let own = n % 4 >= 2;
            let path = format!("/{}/{n}", if own { "own" } else { "orders" });
            let wish = match n % 72 {
                6 => "ignore",
                14 | 42 => "skip",
                _ => FINE,
            };
            let take = left.get_mut(wish).is_some_and(|left| {
                *left -= 1;
                *left >= 0
            });
            Request::new(n, path, if take { wish } else { FINE })
        })
        .collect();
    for request in (total..total + 25).rev() {
        let request = Request::new(request, format!("/orders/{request}"), "open");
        requests.insert(at as usize, Request { grpc: false, ..request });
    }
    requests
}

#[tokio::test(flavor = "multi_thread")]
async fn what_enforcement_does_wrong_behind_a_real_envoy_is_found_and_nothing_else() {
    let _servers = super::together().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("enforce");
    let path = pipeline(&place, "  wait: 3s\n  window: 5s\n  skew: 2s\n  delay: 75s\n").await;
    let running = Running::start(&place, &path);
    let door = opened(&running).await;
    let (port, spans) = fleet::collector().await;
    let opas = [Opa::new("envoys", true, (1, 2)), Opa::new("services", true, (1, 4))];
    let envoys = opas[0].start(&place, &door, port).await;
    let services = opas[1].start(&place, &door, port).await;
    let fleet = Fleet::start(&place, port, [&opas[..1], &opas[1..]], Manner::Sampled(1)).await;
    // The access log is a minute late, and its clock is two seconds behind.
    let clock = SignedDuration::from_secs(-2);
    let late = Lateness { lines: (60_000, 63_000), clock, spans: 3_000 };
    let agent = Agent::start(&kafka, &place, fleet.access_log.clone(), spans, late);
    let (total, half) = (2_400, 1_200);
    let requests = wrong(total, half);
    let (before, rest) = requests.split_at(half as usize);
    let (open, after) = rest.split_at(25);
    drive(&fleet.url, before, 100).await;
    envoys.stop();
    drive(&fleet.url, open, 100).await;
    let envoys = opas[0].start(&place, &door, port).await;
    drive(&fleet.url, after, 100).await;
    let end = Timestamp::now();
    for opa in [envoys, services] {
        opa.stop();
    }
    let lines = tokio::task::spawn_blocking(|| agent.finish()).await.unwrap();
    assert_eq!(lines.len(), requests.len());
    let metrics = complete(&running, end + SignedDuration::from_secs(8), 150).await;

    let outcome = outcome(&kafka, &place);
    println!("{:#?}", right(&outcome, &requests));
    let planted: BTreeSet<_> = requests.iter().filter_map(Request::finding).collect();
    assert_eq!(planted.len(), 75);
    let added: Vec<_> = outcome.findings.difference(&planted).collect();
    assert!(added.is_empty(), "false: {added:?}");
    let undecidable = metrics.docket();
    assert_eq!(outcome.findings, planted, "{undecidable}");
    assert_eq!(metrics.sum("docket_enforcement_undecidable_total", &[]), 0, "{undecidable}");
    assert_eq!(metrics.sum("docket_enforcement_findings_total", &[]), 75, "{undecidable}");
    let ignored = requests.iter().find(|request| request.wrong == "ignore").unwrap();
    let decision = outcome.decisions.iter().find(|one| asked(one) == ignored.path).unwrap();
    told(&running, &text(&decision["decision_id"]), &ignored.path).await;
    running.stop();
}

/// A policy that is tried out: what it denies is served by design, and said so.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_real_envoy_denies_in_shadow_mode_is_no_finding() {
    let _servers = super::together().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("shadow");
    let path = pipeline(&place, "  wait: 3s\n  window: 5s\n  delay: 15s\n").await;
    let running = Running::start(&place, &path);
    let door = opened(&running).await;
    let (port, spans) = fleet::collector().await;
    let opas = [Opa::new("tried", false, (1, 2))];
    let opa = opas[0].start(&place, &door, port).await;
    let fleet = Fleet::start(&place, port, [&opas, &opas], Manner::Shadow).await;
    let late = Lateness { lines: (0, 2_000), clock: SignedDuration::ZERO, spans: 2_000 };
    let agent = Agent::start(&kafka, &place, fleet.access_log.clone(), spans, late);
    let request = |n| Request::new(n, format!("/orders/{n}"), SHADOW);
    let requests: Vec<Request> = (0..600).map(request).collect();
    drive(&fleet.url, &requests, 100).await;
    let end = Timestamp::now();
    opa.stop();
    let lines = tokio::task::spawn_blocking(|| agent.finish()).await.unwrap();
    assert_eq!(lines.len(), requests.len());
    let metrics = complete(&running, end + SignedDuration::from_secs(8), 90).await;

    let outcome = outcome(&kafka, &place);
    println!("{:#?}", right(&outcome, &requests));
    assert_eq!(outcome.findings, BTreeSet::new());
    let count = |name: &str| metrics.sum(name, &[]);
    // The service speaks no gRPC: who asks by it gets no status that says that it was served.
    let served = requests.iter().filter(|request| request.denied() && !request.grpc);
    assert_eq!(count("docket_enforcement_dry_run_total"), served.count() as u64);
    assert_eq!(count("docket_enforcement_undecidable_total"), 0, "{}", metrics.docket());
    assert_eq!(count("docket_enforcement_judged_total"), requests.len() as u64);
    running.stop();
}

/// An OPA that may log few decisions drops the others, and says in its status how many: nobody takes them for what was never
/// asked.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_opa_dropped_is_not_taken_for_what_nobody_asked() {
    let _servers = super::together().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("dropped");
    let path = pipeline(&place, "  wait: 3s\n  window: 5s\n  delay: 15s\n").await;
    let running = Running::start(&place, &path);
    let door = opened(&running).await;
    let (port, spans) = fleet::collector().await;
    let opas = [Opa { most: Some(5), ..Opa::new("dropping", false, (1, 2)) }];
    let opa = opas[0].start(&place, &door, port).await;
    let fleet = Fleet::start(&place, port, [&opas, &opas], Manner::Sampled(1)).await;
    let late = Lateness { lines: (0, 2_000), clock: SignedDuration::ZERO, spans: 2_000 };
    let agent = Agent::start(&kafka, &place, fleet.access_log.clone(), spans, late);
    let request = |n: u32| Request::new(3 * n + 1, format!("/own/{}", 3 * n + 1), FINE);
    let requests: Vec<Request> = (0..300).map(request).collect();
    drive(&fleet.url, &requests, 50).await;
    let end = Timestamp::now();
    // Its status comes after an upload.
    let dropped = ["event=\"dropped_rate_limit_exceeded\""];
    running
        .until("OPA says what it dropped", 30, |m| {
            m.sum("docket_opa_decision_logs_total", &dropped) > 100
        })
        .await;
    opa.stop();
    let lines = tokio::task::spawn_blocking(|| agent.finish()).await.unwrap();
    assert_eq!(lines.len(), requests.len());
    let metrics = complete(&running, end + SignedDuration::from_secs(8), 90).await;

    let outcome = outcome(&kafka, &place);
    let lost = requests.len() - outcome.decisions.len();
    assert!(lost > 100, "{lost}");
    assert_eq!(outcome.findings, BTreeSet::new());
    let gap = metrics.sum("docket_enforcement_undecidable_total", &["reason=\"gap\""]);
    assert_eq!(gap, lost as u64, "{}", metrics.docket());
    assert_eq!(metrics.sum("docket_enforcement_judged_total", &[]), requests.len() as u64);
    running.stop();
}

/// The admin port tells who has the token of a decision, its request and what was found.
async fn told(running: &Running, id: &str, path: &str) {
    let client = reqwest::Client::new();
    let why = |id: &str| client.get(format!("http://{}/why/{id}", running.admin));
    assert_eq!(why(id).send().await.unwrap().status(), 401);
    assert_eq!(why(id).basic_auth("me", Some("guess")).send().await.unwrap().status(), 401);
    assert_eq!(why("d-nobody").bearer_auth(TOKEN).send().await.unwrap().status(), 404);
    let page = why(id).basic_auth("me", Some(TOKEN)).send().await.unwrap();
    assert_eq!(page.status(), 200);
    assert_eq!(page.headers()["cache-control"], "no-store");
    let page = page.text().await.unwrap();
    let found =
        format!("Found: orders/allow denied GET {path} of orders, and it was served with 200");
    assert!(
        page.contains(&found) && page.contains(&format!("GET {path} of orders: 200")),
        "{page}"
    );
}
