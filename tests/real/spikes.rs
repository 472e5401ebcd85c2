//! A made-up attack in real time: found within 30 s, told to a real Alertmanager and a webhook, written to the sinks, not told
//! twice when docket is killed, over when it is over. And exemplars: from real Prometheus to real Jaeger.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use docket::clock;
use docket::generate::scenario::{Day, Scenario};
use rdkafka::admin::{AdminOptions, NewPartitions};
use serde_json::{Value, json};

use super::logs::{self, LogStore, logsql};
use super::memory::{Scribe, findings};
use super::support::{Place, Running, Source, admin, docket, produce, until};
use super::{address, count, get, pipeline};

const SECOND: i64 = 1_000_000_000;

/// An HTTP endpoint that remembers what it got, and when.
pub async fn listener() -> (String, Arc<Mutex<Vec<(Instant, Value)>>>) {
    let got: Arc<Mutex<Vec<(Instant, Value)>>> = Arc::default();
    let seen = got.clone();
    let take = move |body: String| {
        seen.lock().unwrap().push((Instant::now(), serde_json::from_str(&body).unwrap()));
        async { "ok" }
    };
    let router = axum::Router::new().route("/{*path}", axum::routing::post(take));
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(socket, router).await });
    (url, got)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attack_is_told_and_its_end() {
    let _servers = super::together().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let (webhook, got) = listener().await;
    let place = Place::new("spikes");
    let name = place.name.clone();
    let alertmanager = address("ALERTMANAGER_URL");
    let stores = LogStore::all().await;
    let path = pipeline(
        &place,
        4,
        &format!(
            "docket: {{partitions: 4}}
sinks:
  search: {{type: elasticsearch, url: \"{}\", index: $NAME}}
  traces: {{type: otlp, endpoint: \"{}\"}}
  metrics: {{type: metrics}}
{}  broken: {{type: loki, url: \"http://127.0.0.1:9\", delivery: {{timeout: 1s, retry_max: 1s}}}}
spikes:
  notify:
    alertmanager: {{type: alertmanager, urls: [\"{alertmanager}\"], labels: {{run: $NAME}}}}
    webhook: {{type: webhook, url: \"{webhook}/hook\"}}
    chat: {{type: slack, url: {slack}}}
",
            address("OPENSEARCH_URL"),
            address("OTLP_GRPC_URL"),
            logs::sinks(&stores, "labels: {service: service, verdict: verdict, run: \"=$NAME\"}"),
            slack = place.secret("slack", &format!("{webhook}/slack")),
        ),
    )
    .await;

    // The attack begins in a while; what was before is in the docket already.
    let soon = clock::now() + 60 * SECOND;
    let offset = Day::new(Scenario::Attack, 3, 0, 0.5).event_at();
    let mut day = Day::new(Scenario::Attack, 3, soon - offset, 0.5);
    let event = day.events().remove(0);
    let attacker = event.cause.clone().unwrap().1;
    day.skip_to(soon - 2700 * SECOND);
    let topic = format!("{name}-source");
    let mut before: Vec<String> = Vec::new();
    let mut second = Vec::new();
    let mut now = soon - 2700 * SECOND;
    while now < clock::now() {
        day.second(&mut second);
        now += SECOND;
        before.extend(second.iter().map(|made| day.json(made).to_string()));
    }
    produce(&kafka, &topic, &before);
    let intake = Running::start_with(&place, &path, &["--only", "intake"]);
    intake
        .until("what was before is in the docket", 60, |m| m.written() == before.len() as u64)
        .await;
    intake.stop();

    let over = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicBool::new(false));
    let feeding = {
        let (source, attacker, over, done) =
            (Source::new(&kafka, &topic), attacker.clone(), over.clone(), done.clone());
        std::thread::spawn(move || {
            let mut now = now;
            let mut second = Vec::new();
            while !done.load(Ordering::Relaxed) {
                while clock::now() < now + SECOND {
                    std::thread::sleep(Duration::from_millis(20));
                }
                day.second(&mut second);
                now += SECOND;
                let texts: Vec<String> =
                    second.iter().map(|made| day.json(made).to_string()).collect();
                let kept: Vec<String> = texts
                    .into_iter()
                    .filter(|text| !over.load(Ordering::Relaxed) || !text.contains(&attacker))
                    .collect();
                source.write(&kept);
            }
        })
    };
    let running = Running::start(&place, &path);
    super::scrape(&name, &running.admin);
    running.until("it looks for spikes", 30, |m| m.sum("docket_spikes_leader", &[]) == 1).await;

    let findings = |state: &str| -> Vec<(Instant, Value)> {
        let got = got.lock().unwrap();
        let all = got.iter().flat_map(|(at, body)| {
            body["findings"].as_array().into_iter().flatten().map(|f| (*at, f.clone()))
        });
        all.filter(|(_, f)| f["state"] == state).collect()
    };
    let wait = Duration::from_nanos(u64::try_from(soon - clock::now()).unwrap_or(0));
    let begins = Instant::now() + wait;
    let (at, finding) = until("the attack is told", 120, async || {
        findings("firing").first().cloned().ok_or_else(|| running.log())
    })
    .await;
    let took = at.saturating_duration_since(begins);
    println!("told {:.1} s after it began: {}", took.as_secs_f64(), finding["sentence"]);
    assert_eq!(
        (&finding["kind"], &finding["service"]),
        (&json!("denial_spike"), &json!(event.service)),
        "{finding}"
    );
    assert_eq!(
        (&finding["causes"][0]["dimension"], &finding["causes"][0]["value"]),
        (&json!("subject"), &json!(attacker)),
        "{finding}"
    );
    // What was before the run is a backlog, so little is known when the attack begins; `docket spikes --evaluate` holds the detector to
    // its goals where it has watched for longer.
    assert!(
        at >= begins && took <= Duration::from_secs(60 + 5),
        "{took:?}; group_wait is 5 s of it"
    );

    let alerts = async || {
        let all = get(&format!("{alertmanager}/api/v2/alerts?filter=run%3D%22{name}%22")).await;
        all.as_array().unwrap().clone()
    };
    let alert = until("Alertmanager has it", 20, async || {
        alerts().await.first().cloned().ok_or_else(String::new)
    })
    .await;
    assert_eq!(alert["labels"]["alertname"], "DocketDenialSpike", "{alert}");
    assert_eq!(alert["status"]["state"], "active");
    assert!(alert["annotations"]["causes"].as_str().unwrap().contains(&attacker), "{alert}");
    let trace =
        alert["annotations"]["traces"].as_str().unwrap().split(' ').next().unwrap().to_owned();
    until("the alert's trace is in Jaeger", 30, async || {
        let found =
            reqwest::get(format!("{}/api/traces/{trace}", address("JAEGER_URL"))).await.unwrap();
        if found.status().is_success() { Ok(()) } else { Err(found.status().to_string()) }
    })
    .await;
    let written = json!({ "bool": { "filter": [{ "term": { "docket.verdict": "finding" } }, { "term": { "finding.id": finding["id"] } }, { "term": { "finding.state": "begins" } }] } });
    until("the finding is in OpenSearch", 20, async || {
        if count(&name, written.clone()).await == 1 { Ok(()) } else { Err(String::new()) }
    })
    .await;
    for store in &stores {
        until(&format!("the finding is in {}", store.name()), 20, async || {
            let findings = store.lines("{verdict=\"finding\"}").await;
            let id = finding["id"].as_str().unwrap();
            if findings.iter().any(|line| line.contains(id)) { Ok(()) } else { Err(String::new()) }
        })
        .await;
    }
    // Who is denied most, as the dashboards ask Loki; of this run, since others deny in services of that name, too.
    let denied = logsql(&format!(
        "{{verdict=\"deny\", service=\"{}\", run=\"{name}\"}} | unpack_json fields (docket.subject) | stats by (docket.subject) count() n | sort by (n desc) | limit 1",
        event.service
    ))
    .await;
    assert_eq!(denied[0]["docket.subject"], attacker, "{denied:?}");
    let text = got
        .lock()
        .unwrap()
        .iter()
        .find_map(|(_, body)| body["text"].as_str().map(str::to_owned))
        .unwrap();
    assert!(text.contains("denial spike") && text.contains(&attacker), "{text}");

    // Exemplars, on the way.
    until("Prometheus has exemplars whose traces Jaeger has", 30, async || {
        let mut url = reqwest::Url::parse(&format!("{}/api/v1/query_exemplars", address("PROMETHEUS_URL"))).unwrap();
        let from = (clock::now() / SECOND - 600).to_string();
        let query = format!("{{__name__=~\"docket_decisions_total|docket_decision_duration_seconds_bucket\",pipeline=\"{name}\"}}");
        url.query_pairs_mut().append_pair("query", &query).append_pair("start", &from).append_pair("end", &(clock::now() / SECOND + 5).to_string());
        let answer = get(url.as_str()).await;
        let families: std::collections::BTreeSet<&str> =
            answer["data"].as_array().unwrap().iter().filter_map(|s| s["seriesLabels"]["__name__"].as_str()).collect();
        let traces: Vec<&str> = answer["data"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|s| s["exemplars"].as_array().unwrap())
            .filter_map(|e| e["labels"]["trace_id"].as_str())
            .collect();
        if traces.len() < 10 || families.len() < 2 {
            return Err(format!("{} exemplars of {families:?}", traces.len()));
        }
        for trace in traces.iter().take(10) {
            let found = reqwest::get(format!("{}/api/traces/{trace}", address("JAEGER_URL"))).await.unwrap();
            if !found.status().is_success() {
                return Err(format!("Jaeger has no {trace}"));
            }
        }
        Ok(())
    })
    .await;

    until("something was rejected", 20, async || {
        produce(&kafka, &topic, &["{}".to_owned()]);
        if running.metrics().await.rejected() > 3 { Ok(()) } else { Err(String::new()) }
    })
    .await;
    super::dashboards::every_panel_has_data(&name).await;

    // Who takes over knows what was told.
    running.kill();
    let running = Running::start(&place, &path);
    running
        .until("it goes on", 60, |m| m.sum("docket_finding_active", &["denial_spike"]) == 1)
        .await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(findings("firing").len(), 1, "{:?}", findings("firing"));
    let active = alerts().await;
    assert_eq!(active.len(), 1, "{active:#?}");

    over.store(true, Ordering::Relaxed);
    let ended = Instant::now();
    let (at, end) = until("the end is told", 180, async || {
        findings("ended").first().cloned().ok_or_else(|| running.log())
    })
    .await;
    println!("its end was told {:.0} s after it", at.duration_since(ended).as_secs_f64());
    assert_eq!((&end["id"], &end["kind"]), (&finding["id"], &json!("denial_spike")));
    until("Alertmanager has its end", 20, async || {
        if alerts().await.is_empty() { Ok(()) } else { Err(String::new()) }
    })
    .await;
    assert_eq!(findings("firing").len(), 1, "{:?}", findings("firing"));
    done.store(true, Ordering::Relaxed);
    feeding.join().unwrap();
    running
        .until("all delivered", 60, |m| {
            ["search", "traces", "metrics", "victorialogs", "loki"]
                .iter()
                .all(|s| m.sum("docket_lag_records", &[&format!("part=\"{s}\"")]) == 0)
        })
        .await;
    running.stop();

    // The past tells the same.
    let out = docket().args(["spikes", "--since", "start", "--json"]).arg(&path).output().unwrap();
    let told = String::from_utf8_lossy(&out.stdout).into_owned();
    let past: Vec<Value> = told.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(past.len(), 1, "{told}{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(
        (&past[0]["service"], &past[0]["causes"][0]["value"]),
        (&json!(event.service), &json!(attacker))
    );
    assert!(past[0]["ended"].is_string());
    let denied = count(&name, json!({ "term": { "docket.subject": attacker } })).await;
    assert!(denied > 20, "{denied}");
}

/// What stands only in a partition that was added while docket watched is found as elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_added_is_watched_too() {
    let _servers = super::together().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("added");
    let topic = format!("docket.{}", place.name);
    let rest = "docket: {partitions: 1}\nsinks: {metrics: {type: metrics}}\nspikes: {}\n";
    let path = pipeline(&place, 1, rest).await;
    let mut scribe = Scribe::new(&topic);
    let now = clock::now();
    for second in -2700..0 {
        for subject in ["a", "b", "c"] {
            scribe.write_to(Some(0), now + second * SECOND, "app/allow", "allow", subject);
        }
    }
    scribe.flush();
    // What is usual goes on; once there is a second partition, somebody is denied, and that stands there alone.
    let (added, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let writing = {
        let (added, done, to) = (added.clone(), done.clone(), topic.clone());
        std::thread::spawn(move || {
            let mut other = None;
            while !done.load(Ordering::Relaxed) {
                let at = clock::now();
                for subject in ["a", "b", "c"] {
                    scribe.write_to(Some(0), at, "app/allow", "allow", subject);
                }
                // A producer of its own: one that has been at work knows of partitions that are added minutes later.
                if added.load(Ordering::Relaxed) {
                    let other = other.get_or_insert_with(|| Scribe::new(&to));
                    for _ in 0..8 {
                        other.write_to(Some(1), at, "app/allow", "deny", "mallory");
                    }
                    other.flush();
                }
                scribe.flush();
                std::thread::sleep(Duration::from_secs(1));
            }
        })
    };
    let running = Running::start_with(&place, &path, &["--only", "spikes"]);
    running
        .until("it has learned", 60, |m| {
            m.sum("docket_spikes_leader", &[]) == 1 && m.sum("docket_spikes_series", &[]) == 1
        })
        .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let more = NewPartitions::new(&topic, 2);
    let told = admin(&kafka).create_partitions([&more], &AdminOptions::new()).await.unwrap();
    told[0].as_ref().unwrap();
    added.store(true, Ordering::Relaxed);
    let found = until("the denials in it are found", 75, async || {
        let found = findings(&topic);
        if found.is_empty() { Err(running.log()) } else { Ok(found) }
    })
    .await;
    done.store(true, Ordering::Relaxed);
    writing.join().unwrap();
    let found: Vec<_> = found.iter().map(|(kind, policy, _)| (&kind[..], &policy[..])).collect();
    assert_eq!(found, [("denial_spike", "app/allow")]);
    running.stop();
}
