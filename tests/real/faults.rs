//! Each sink, each fault, 30,000 decisions: none is lost, none is unaccounted for, and the sinks beside it
//! finish as fast as without.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use serde_json::{Value, json};

use super::logs::LogStore;
use super::support::proxy::{Fault, Proxy};
use super::support::{Place, Running, Source, decision_id, docket, generated, read_all};
use super::{Stopped, address, count, pipeline};

/// Beside the log stores: the sink, its server in deploy/local and where that says its address.
const OTHERS: [(&str, &str, &str); 3] = [
    ("search", "opensearch", "OPENSEARCH_URL"),
    ("traces", "jaeger", "OTLP_HTTP_URL"),
    ("cloudwatch", "moto", "CLOUDWATCH_URL"),
];
const DECISIONS: usize = 30_000;
/// The decisions come over this time.
const OVER: Duration = Duration::from_secs(9);
const FAULT: Duration = Duration::from_secs(8);

/// What a fault does, to one sink's proxy or to its server.
enum Trouble {
    Proxy(Fault),
    /// SIGKILL, and started again.
    Kill,
}

fn faults() -> Vec<(&'static str, Trouble)> {
    vec![
        ("401", Trouble::Proxy(Fault::Status(401, ""))),
        ("503", Trouble::Proxy(Fault::Status(503, ""))),
        ("429 with Retry-After", Trouble::Proxy(Fault::Status(429, "2"))),
        ("hangs", Trouble::Proxy(Fault::Hang)),
        ("resets", Trouble::Proxy(Fault::Reset)),
        ("1 byte/s", Trouble::Proxy(Fault::Slow)),
        ("partial", Trouble::Proxy(Fault::Partial)),
        ("413", Trouble::Proxy(Fault::TooLarge(20_000))),
        ("kill -9", Trouble::Kill),
    ]
}

/// A sink, the proxy it sends to and the server behind it.
struct Sink {
    name: &'static str,
    proxy: Proxy,
    server: &'static str,
}

struct Rig {
    kafka: String,
    name: String,
    running: Running,
    sinks: Vec<Sink>,
    /// Decisions produced so far.
    total: u64,
    rejected: usize,
}

/// How one round went.
struct Round {
    /// By sink: seconds from the first decision to the last that was delivered or rejected.
    seconds: Vec<f64>,
}

impl Rig {
    /// Produces decisions evenly over a time, in a thread of its own.
    fn feed(&mut self, seed: u64) -> (std::thread::JoinHandle<()>, HashSet<String>) {
        let decisions = generated(DECISIONS, seed);
        let ids = decisions.iter().map(|decision| decision_id(decision)).collect();
        let source = Source::new(&self.kafka, &format!("{}-source", self.name));
        self.total += DECISIONS as u64;
        let feeding = std::thread::spawn(move || {
            let started = Instant::now();
            for (i, chunk) in decisions.chunks(DECISIONS / 60).enumerate() {
                let due = OVER * i as u32 / 60;
                std::thread::sleep(due.saturating_sub(started.elapsed()));
                source.write(chunk);
            }
        });
        (feeding, ids)
    }

    async fn round(
        &mut self,
        seed: u64,
        faulty: Option<(usize, &Trouble)>,
    ) -> (Round, HashSet<String>) {
        let (feeding, ids) = self.feed(seed);
        let started = Instant::now();
        let trouble = faulty.map(|(sink, trouble)| {
            let (proxy, server) = (self.sinks[sink].proxy.clone(), self.sinks[sink].server);
            match trouble {
                Trouble::Proxy(fault) => {
                    let fault = fault.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(500)).await;
                        proxy.set(fault);
                        tokio::time::sleep(FAULT).await;
                        proxy.set(Fault::None);
                    })
                }
                Trouble::Kill => tokio::task::spawn_blocking(move || {
                    std::thread::sleep(Duration::from_secs(2));
                    let _stopped = Stopped::killed(server);
                    std::thread::sleep(Duration::from_secs(2));
                }),
            }
        });
        let mut seconds = vec![0.0; self.sinks.len()];
        // OpenSearch, killed, first reads what it had not written to its index; that takes its time.
        let deadline = started + Duration::from_secs(240);
        while seconds.contains(&0.0) {
            let metrics = self.running.metrics().await;
            for (i, Sink { name, .. }) in self.sinks.iter().enumerate() {
                let done = metrics.sum("docket_sink_records_total", &[&format!("sink=\"{name}\"")]);
                if seconds[i] == 0.0 && done >= self.total {
                    seconds[i] = started.elapsed().as_secs_f64();
                }
            }
            assert!(
                Instant::now() < deadline,
                "not all was delivered: {seconds:?}\n{}\n{}",
                metrics.docket(),
                tail(&self.running.log())
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        feeding.join().unwrap();
        if let Some(trouble) = trouble {
            trouble.await.unwrap();
        }
        (Round { seconds }, ids)
    }

    /// Every decision of the round is in each sink or in rejects for it. Returns how many were rejected.
    async fn account(&mut self, ids: &HashSet<String>, what: &str) -> usize {
        let letters = read_all(&self.kafka, &format!("docket.{}.rejects", self.name));
        let new = letters.len() - self.rejected;
        self.rejected = letters.len();
        for Sink { name: sink, proxy, .. } in &self.sinks {
            let mut there = proxy.take_acknowledged();
            let refused: HashSet<String> = letters
                .iter()
                .filter(|l| l.headers["docket-sink"] == *sink)
                .map(|l| l.json()["decision_id"].as_str().unwrap().to_owned())
                .collect();
            there.extend(refused);
            let lost = ids.iter().filter(|id| !there.contains(*id)).count();
            assert_eq!(lost, 0, "{what}: {lost} decisions are neither in {sink} nor in rejects");
        }
        new
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_every_sink_loses_nothing_and_slows_no_other() {
    let _servers = super::alone().await;
    let kafka = address("KAFKA_BOOTSTRAP");
    let place = Place::new("faults");
    let name = place.name.clone();
    let delivery = "delivery: {timeout: 5s, retry_max: 2s}";
    let (mut sinks, mut log_sinks) = (Vec::new(), String::new());
    for store in LogStore::servers() {
        let proxy = Proxy::start(&store.url).await;
        let labels = "labels: {service: service, run: \"=$NAME\"}";
        log_sinks += &store.sink(&proxy.url, &format!("{labels}, {delivery}"));
        sinks.push(Sink { name: store.name(), proxy, server: store.name() });
    }
    let log_stores: Vec<&str> = sinks.iter().map(|s| s.name).collect();
    for (name, server, at) in OTHERS {
        sinks.push(Sink { name, proxy: Proxy::start(&address(at)).await, server });
    }
    let [search, traces, cloudwatch] = [3, 2, 1].map(|i| sinks[sinks.len() - i].proxy.url.clone());
    let pipeline = pipeline(
        &place,
        4,
        &format!(
            "docket: {{partitions: 4}}
sinks:
{log_sinks}  search: {{type: elasticsearch, url: \"{search}\", index: $NAME, {delivery}}}
  traces: {{type: otlp, protocol: http, endpoint: \"{traces}\", {delivery}}}
  cloudwatch: {{type: cloudwatch, region: eu-central-1, endpoint: \"{cloudwatch}\", group: $NAME, {delivery}}}
"
        ),
    )
    .await;
    let running = Running::start(&place, &pipeline);
    let mut rig = Rig { kafka, name: name.clone(), running, sinks, total: 0, rejected: 0 };

    // Once to warm up; then the measure of all things.
    rig.round(1, None).await;
    let (mut base, ids) = {
        rig.sinks.iter().for_each(|s| drop(s.proxy.take_acknowledged()));
        rig.round(2, None).await
    };
    assert_eq!(rig.account(&ids, "no fault").await, 0);
    println!("no fault: {:?} s", base.seconds);
    let only = std::env::var("DOCKET_FAULT").unwrap_or_default();
    let chosen = chosen(!only.is_empty(), rig.sinks.len());
    let mut seed = 10;
    let mut searched = 2 * DECISIONS as u64;
    let mut last = String::new();
    // How often VictoriaLogs was killed in the last fault's rounds.
    let mut kills = 0;
    for (fault, trouble) in faults() {
        if !fault.contains(&only) {
            continue;
        }
        let (here, left): (Vec<_>, Vec<_>) =
            (0..rig.sinks.len()).partition(|sink| chosen(fault, *sink));
        for sink in left {
            println!("{} {fault}: not run", rig.sinks[sink].name);
        }
        last = jiff::Timestamp::now().to_string();
        kills = 0;
        for sink in here {
            let server = rig.sinks[sink].name;
            seed += 1;
            let what = format!("{server} {fault}");
            let killed = usize::from(server == "victorialogs" && matches!(trouble, Trouble::Kill));
            kills += killed;
            rig.sinks.iter().for_each(|s| s.proxy.forget_faulted());
            let (mut round, ids) = rig.round(seed, Some((sink, &trouble))).await;
            let met = rig.sinks[sink].proxy.faulted();
            let mut new = rig.account(&ids, &what).await;
            searched += DECISIONS as u64;
            let others = |round: &Round, base: &Round| {
                (0..base.seconds.len())
                    .filter(|i| *i != sink)
                    .map(|i| round.seconds[i] / base.seconds[i])
                    .fold(0.0, f64::max)
            };
            let mut slowest = others(&round, &base);
            // The machine does other things, too, and the indexes grow: what was slow is measured again, next to
            // a round without the fault.
            for again in 1..=2 {
                if slowest <= 1.3 {
                    break;
                }
                println!("{what}: the others took {slowest:.2} times as long; once more");
                kills += killed;
                let (fresh, ids) = rig.round(seed + 1000 * again, None).await;
                assert_eq!(rig.account(&ids, "no fault").await, 0);
                let (faulty, ids) =
                    rig.round(seed + 1000 * again + 500, Some((sink, &trouble))).await;
                new += rig.account(&ids, &what).await;
                searched += 2 * DECISIONS as u64;
                (slowest, round, base) = (others(&faulty, &fresh), faulty, fresh);
            }
            println!(
                "{what}: {met} requests met it, {:.1} s, the others {slowest:.2} of without, {new} to rejects",
                round.seconds[sink]
            );
            assert!(
                matches!(trouble, Trouble::Kill) || met > 0,
                "{what}: no request met the fault"
            );
            assert!(
                slowest <= 1.3,
                "{what}: the others took {slowest:.2} times as long: {:?} s, without {:?} s",
                round.seconds,
                base.seconds
            );
            let may_reject = fault == "partial" && server == "cloudwatch";
            assert!(may_reject || new == 0, "{what}: {new} rejects");
            // By the server's own count, after kill -9, too.
            assert_eq!(
                count(&name, json!({ "match_all": {} })).await,
                searched,
                "{what}: documents in OpenSearch"
            );
            forget_log_group(&name).await;
        }
    }
    let metrics = rig.running.metrics().await;
    assert_eq!(metrics.sum("docket_sink_failing", &[]), 0);
    // What the log stores and OpenSearch themselves hold of the last fault's rounds, kill -9, line by line.
    let checked = |more: &[&str]| {
        let out = docket()
            .args(["verify", "--from", &last, "--json", "--sink"])
            .args(more)
            .arg(&pipeline)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&out.stdout).into_owned();
        let report: Value = serde_json::from_str(&told)
            .unwrap_or_else(|_| panic!("{told}\n{}", String::from_utf8_lossy(&out.stderr)));
        report["sinks"].as_array().unwrap().clone()
    };
    let n = |sink: &Value, what: &str| sink[what].as_array().unwrap().len();
    let sinks = [log_stores.as_slice(), &["search"]].concat().join(",");
    for sink in checked(&[&sinks]) {
        println!(
            "{}: {} of {} present, {} more than once",
            sink["sink"],
            sink["present"],
            sink["expected"],
            n(&sink, "repeated")
        );
        let told = || sink.to_string().chars().take(2000).collect::<String>();
        assert_eq!(n(&sink, "altered"), 0, "{}", told());
        assert!(sink["sink"] != "search" || n(&sink, "repeated") == 0, "{}", told());
        if sink["sink"] == "victorialogs" && kills > 0 {
            // It acknowledges what it holds in memory and writes to disk every second: so much is lost each time.
            let most = kills * 3 * DECISIONS / OVER.as_secs() as usize;
            println!("{} missing after {kills} kills, at most {most}", n(&sink, "missing"));
            assert!(n(&sink, "missing") <= most, "{}", told());
        } else {
            assert_eq!(n(&sink, "missing"), 0, "{}", told());
        }
    }
    if kills > 0 {
        let again = ["backfill", "--sink", "victorialogs", "--from", &last, "--send"];
        let out = docket().args(again).arg(&pipeline).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let sink = &checked(&["victorialogs"])[0];
        assert_eq!((n(sink, "missing"), n(sink, "altered")), (0, 0), "{sink}");
    }
    rig.running.stop();
}

/// Which rounds are run: all with DOCKET_FULL or when one fault is asked for; else each fault once and each sink at least once, by a seed.
fn chosen(all: bool, sinks: usize) -> impl Fn(&str, usize) -> bool {
    let all = all || std::env::var_os("DOCKET_FULL").is_some();
    let seed =
        std::env::var("DOCKET_SAMPLE").map_or_else(|_| rand::random(), |s| s.parse().unwrap());
    let mut sinks: Vec<usize> = (0..sinks).collect();
    let mut order: Vec<usize> = (0..faults().len()).collect();
    let mut rng = SmallRng::seed_from_u64(seed);
    sinks.shuffle(&mut rng);
    order.shuffle(&mut rng);
    if !all {
        println!(
            "one round a fault; DOCKET_SAMPLE={seed} chooses the same, DOCKET_FULL=1 runs all"
        );
    }
    move |fault, sink| {
        let at = faults().iter().position(|(name, _)| *name == fault).unwrap();
        all || sinks[order[at] % sinks.len()] == sink
    }
}

/// moto keeps all it got in memory.
async fn forget_log_group(group: &str) {
    let request = reqwest::Client::new()
        .post(address("CLOUDWATCH_URL"))
        .header("x-amz-target", "Logs_20140328.DeleteLogGroup");
    let request = request
        .header("content-type", "application/x-amz-json-1.1")
        .header("authorization", "AWS4-HMAC-SHA256 Credential=t/20260101/eu-central-1/logs/aws4_request, SignedHeaders=host, Signature=x");
    let _ = request.body(json!({ "logGroupName": group }).to_string()).send().await;
}
