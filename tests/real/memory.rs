//! What the detector has learned outlives docket: a nightly job that took days to learn is known after a restart, though
//! little of the past is read again; who has lost what was kept calls it an attack; and both find what is none.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use docket::clock;
use docket::decision::time;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use super::support::{Place, Running, create_topic, docket, read_all, until};
use super::{address, init};

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400;

/// A decision as it stands in the docket.
fn decision(at: i64, n: i64, policy: &str, verdict: &str, subject: &str) -> String {
    let at = time::format(at);
    format!(
        "{{\"decision_id\":\"d{n}\",\"timestamp\":\"{at}\",\"@timestamp\":\"{at}\",\"docket\":{{\"v\":1,\"verdict\":\"{verdict}\",\
         \"reasons\":[],\"engine\":\"opa\",\"policy\":\"{policy}\",\"trace_id\":\"{n:032x}\",\"span_id\":\"{n:016x}\",\
         \"trace_from\":\"decision\",\"subject\":\"{subject}\",\"service\":{{\"name\":\"shop\",\"instance\":\"opa-1\"}}}}}}"
    )
}

/// Writes the docket topic, as if docket had written it at the times that decisions say.
pub(super) struct Scribe(BaseProducer, String, i64);

impl Scribe {
    pub(super) fn new(topic: &str) -> Scribe {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", address("KAFKA_BOOTSTRAP")).set("linger.ms", "20");
        Scribe(config.create().unwrap(), topic.to_owned(), 0)
    }

    fn write(&mut self, at: i64, policy: &str, verdict: &str, subject: &str) {
        self.write_to(None, at, policy, verdict, subject);
    }

    /// To a partition, or to any.
    pub(super) fn write_to(
        &mut self,
        partition: Option<i32>,
        at: i64,
        policy: &str,
        verdict: &str,
        subject: &str,
    ) {
        self.2 += 1;
        let text = decision(at, self.2 + 1, policy, verdict, subject);
        let mut record =
            BaseRecord::<(), _>::to(&self.1).payload(text.as_bytes()).timestamp(at / 1_000_000);
        record.partition = partition;
        while let Err((_, back)) = self.0.send(record) {
            self.0.poll(Duration::from_millis(20));
            record = back;
        }
    }

    pub(super) fn flush(&self) {
        self.0.flush(Duration::from_secs(60)).unwrap();
    }
}

/// Five days, at this hour of each of which a job is denied once in two seconds; and the last half hour without it.
fn past(scribe: &mut Scribe, now: i64) {
    for back in (1..=5).rev() {
        for second in (-3600..5400).step_by(2) {
            let at = now - (back * DAY - second) * SECOND;
            scribe.write(at, "app/allow", "allow", "a");
            if (-1200..2400).contains(&second) {
                scribe.write(at, "app/allow", "deny", "job");
            }
        }
    }
    for second in (-1800..0).step_by(2) {
        scribe.write(now + second * SECOND, "app/allow", "allow", "a");
        scribe.write(now + second * SECOND, "app/other", "allow", "a");
    }
    scribe.flush();
}

fn file(place: &Place, history: &str) -> PathBuf {
    place.pipeline(&format!(
        "name: $NAME
kafka: {{brokers: \"{}\"}}
sources: [{{topic: $NAME-source}}]
docket: {{partitions: 2, retention: 30d}}
sinks: {{metrics: {{type: metrics}}}}
spikes: {{history: {history}}}
",
        address("KAFKA_BOOTSTRAP")
    ))
}

/// Kind, policy and first cause of what stands in the docket topic.
pub(super) fn findings(topic: &str) -> BTreeSet<(String, String, String)> {
    let all = read_all(&address("KAFKA_BOOTSTRAP"), topic);
    let findings =
        all.iter().map(super::support::Read1::json).filter(|r| r["type"] == "docket.finding");
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    findings
        .filter(|r| r["finding"]["state"] == "begins")
        .map(|r| {
            let f = &r["finding"];
            (text(&f["kind"]), text(&f["policy"]), text(&f["causes"][0]["value"]))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_nothing() {
    let _servers = super::together().await;
    init();
    let kafka = address("KAFKA_BOOTSTRAP");
    // One that runs on, one that is started again, and one that has lost what was kept.
    let places = ["goes-on", "restarts", "forgets"].map(Place::new);
    let now = clock::now();
    let mut scribes = Vec::new();
    let mut files = Vec::new();
    for place in &places {
        let path = file(place, "6d");
        create_topic(&kafka, &format!("{}-source", place.name), 1, &[]).await;
        let said = docket().args(["setup", "--yes"]).arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains(&format!("docket.{}.spikes", place.name)), "{said}");
        let mut scribe = Scribe::new(&format!("docket.{}", place.name));
        past(&mut scribe, now);
        scribes.push(scribe);
        files.push(path);
    }
    let start = |n: usize| Running::start_with(&places[n], &files[n], &["--only", "spikes"]);
    let kept = |m: &super::support::Metrics| {
        m.sum("docket_spikes_state_total", &["outcome=\"written\""]) >= 6
    };
    let goes_on = start(0);
    let restarts = start(1);
    goes_on.until("it has learned and kept it", 120, kept).await;
    // Killed, so that only what was written as it learned is there.
    restarts.until("it has learned and kept it", 120, kept).await;
    restarts.kill();
    for (n, place) in places.iter().enumerate().skip(1) {
        files[n] = file(place, "1h");
    }
    let start = |n: usize| Running::start_with(&places[n], &files[n], &["--only", "spikes"]);
    let (restarted, forgets) = (start(1), start(2));
    let restored =
        |m: &super::support::Metrics| m.sum("docket_spikes_state_total", &["outcome=\"restored\""]);
    let leads = |m: &super::support::Metrics| m.sum("docket_spikes_series", &[]) == 2;
    let metrics = restarted.until("it goes on", 180, leads).await;
    assert!(restored(&metrics) >= 4, "{}", metrics.docket());
    let metrics = forgets.until("it begins anew", 180, leads).await;
    assert_eq!(restored(&metrics), 0);

    // The job of this hour, and an attack on the other policy.
    let begun = clock::now();
    let both = BTreeSet::from(["app/allow", "app/other"]);
    let found = |n: usize| findings(&format!("docket.{}", places[n].name));
    let over = Arc::new(AtomicBool::new(false));
    let writing = {
        let over = over.clone();
        // Beside, since it takes long to look.
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let at = clock::now();
                for scribe in &mut scribes {
                    scribe.write(at, "app/allow", "allow", "a");
                    scribe.write(at, "app/other", "allow", "a");
                    if at / SECOND % 2 == 0 {
                        scribe.write(at, "app/allow", "deny", "job");
                    }
                    if at - begun > 20 * SECOND {
                        scribe.write(at, "app/other", "deny", "mallory");
                    }
                    scribe.flush();
                }
                std::thread::sleep(Duration::from_secs(1));
            }
        })
    };
    until("the attack is found by all", 120, async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let policies = |n| found(n).into_iter().map(|(_, policy, _)| policy).collect();
        let all: [BTreeSet<String>; 3] = [0, 1, 2].map(policies);
        let done = all[0].contains("app/other")
            && all[1].contains("app/other")
            && both.iter().all(|policy| all[2].contains(*policy));
        if done { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
    over.store(true, Ordering::Relaxed);
    writing.join().unwrap();
    let attack = ("denial_spike".to_owned(), "app/other".to_owned(), "mallory".to_owned());
    assert_eq!(found(0), BTreeSet::from([attack]), "the job is known");
    assert_eq!(found(1), found(0), "as without a restart");

    // Stopped in order while the finding goes on, and started again: nobody is told twice.
    let told = |n: usize| {
        let all = read_all(&kafka, &format!("docket.{}", places[n].name));
        all.iter().filter(|r| r.json()["type"] == "docket.finding").count()
    };
    assert_eq!(told(1), 1);
    let log = restarted.stop();
    assert!(!log.contains("learned anew"), "{log}");
    let again = start(1);
    again.until("it goes on", 180, |m| m.sum("docket_finding_active", &["app/other"]) == 1).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(told(1), 1, "{}", again.log());
    drop((goes_on, again, forgets));
}
