//! Everything goes wrong at once, on three brokers of which two must be in sync: brokers and docket are killed, stopped and frozen, sinks refuse, hang and take a part,
//! the file is reloaded, partitions are added, retention deletes what is finished. In the end the counts add up, and no process was ever larger than its budget.
//!
//! For a minute, or DOCKET_SOAK seconds; DOCKET_SOAK_SEED chooses the same troubles.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};

use super::logs::LogStore;
use super::support::proxy::{Fault, Proxy};
use super::support::{Place, Running, Source, admin, docket, generated, read_all, status};
use super::{address, count, init, local_with};

const BUDGET_MIB: u64 = 192;
/// So many decisions a second.
const RATE: usize = 400;
/// One record in so many holds no decision.
const JUNK: usize = 50;
const BROKERS: usize = 3;

/// Brokers of its own, so that nothing else is in their way.
struct Cluster {
    state: PathBuf,
    bootstrap: String,
}

impl Cluster {
    fn start() -> Cluster {
        let state = std::env::temp_dir().join(format!("docket-soak-{:08x}", rand::random::<u32>()));
        let mut cluster = Cluster { state, bootstrap: String::new() };
        let told = cluster.up();
        let line = told.lines().find_map(|line| line.strip_prefix("KAFKA_BOOTSTRAP="));
        cluster.bootstrap = line.unwrap().to_owned();
        cluster
    }

    fn local(state: &Path, script: &str, args: &[&str]) -> String {
        let state = state.to_str().unwrap();
        local_with(&[("DOCKET_LOCAL_STATE", state), ("KAFKA_HEAP", "384m")], script, args)
    }

    fn up(&self) -> String {
        Cluster::local(&self.state, "up", &["--brokers", &BROKERS.to_string(), "kafka"])
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        admin(&self.bootstrap)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        Cluster::local(&self.state, "down", &[]);
        let _ = std::fs::remove_dir_all(&self.state);
    }
}

fn signal(pid: u32, signal: &str) {
    Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
}

struct Soak {
    cluster: Arc<Cluster>,
    place: Place,
    path: PathBuf,
    text: String,
    source: String,
    partitions: i32,
    proxies: Vec<(&'static str, Proxy)>,
    instances: Vec<Running>,
    largest: u64,
    rng: SmallRng,
}

impl Soak {
    async fn looked(&mut self) {
        for instance in &self.instances {
            let pid = instance.pid();
            let largest = status(pid, "VmHWM").unwrap_or(0);
            if largest <= self.largest + 8 * 1024 {
                self.largest = self.largest.max(largest);
                continue;
            }
            self.largest = largest;
            // Who is frozen says nothing.
            let metrics = tokio::time::timeout(Duration::from_secs(2), instance.metrics()).await;
            let held = metrics.map_or(0, |m| m.sum("docket_memory_held_bytes", &[]));
            let [anonymous, file, threads] =
                ["RssAnon", "RssFile", "Threads"].map(|n| status(pid, n).unwrap_or(0));
            println!(
                "      {} MiB at most; now {} MiB and {} MiB of files, {} MiB accounted, {threads} threads",
                largest >> 10,
                anonymous >> 10,
                file >> 10,
                held >> 20
            );
        }
    }

    fn start(&mut self) {
        self.instances.push(Running::start(&self.place, &self.path));
    }

    /// One trouble, and its end; says what it was.
    async fn trouble(&mut self) -> String {
        let lasts = Duration::from_millis(self.rng.random_range(500..6000));
        let one = self.rng.random_range(0..self.instances.len());
        match self.rng.random_range(0..10) {
            0 | 1 => {
                let broker = self.rng.random_range(0..BROKERS);
                let name =
                    if broker == 0 { "kafka".to_owned() } else { format!("kafka-{}", broker + 1) };
                let killed = self.rng.random_bool(0.5);
                let cluster = self.cluster.clone();
                let what = format!("{name} {}", if killed { "killed" } else { "restarted" });
                let work = tokio::task::spawn_blocking(move || {
                    let args: &[&str] = if killed { &["--keep", "--kill"] } else { &["--keep"] };
                    Cluster::local(&cluster.state, "down", &[args, &[name.as_str()]].concat());
                    std::thread::sleep(lasts);
                    cluster.up();
                });
                work.await.unwrap();
                what
            }
            2 => {
                self.looked().await;
                self.instances.remove(one).kill();
                tokio::time::sleep(lasts / 4).await;
                self.start();
                "docket killed".to_owned()
            }
            3 => {
                self.looked().await;
                let instance = self.instances.remove(one);
                tokio::task::spawn_blocking(move || instance.stop()).await.unwrap();
                self.start();
                "docket stopped in order".to_owned()
            }
            4 => {
                // Long enough to be put out of its groups, and to have its transaction ended by Kafka.
                let pid = self.instances[one].pid();
                let frozen = lasts * 4;
                signal(pid, "-STOP");
                tokio::time::sleep(frozen).await;
                signal(pid, "-CONT");
                format!("docket frozen for {frozen:?}")
            }
            5 => {
                let records = self.rng.random_range(50..500);
                let text =
                    self.text.replace("batch_records: 300", &format!("batch_records: {records}"));
                std::fs::write(&self.path, text).unwrap();
                format!("reload: batches of {records}")
            }
            6 if self.partitions < 8 => {
                self.partitions += 1;
                let new = NewPartitions::new(&self.source, self.partitions as usize);
                let told =
                    self.cluster.admin().create_partitions([&new], &AdminOptions::new()).await;
                format!("a partition is added: {told:?}")
            }
            7 => {
                let told = self.retain().await;
                format!("retention: {told}")
            }
            _ => {
                let (name, proxy) = &self.proxies[self.rng.random_range(0..self.proxies.len())];
                let faults = [
                    Fault::Status(503, ""),
                    Fault::Status(401, ""),
                    Fault::Status(429, "1"),
                    Fault::Hang,
                    Fault::Reset,
                    Fault::Slow,
                    Fault::Partial,
                    Fault::TooLarge(20_000),
                ];
                let fault = faults[self.rng.random_range(0..faults.len())].clone();
                let what = format!("{name} {fault:?}");
                proxy.set(fault);
                // Other troubles come meanwhile.
                let proxy = proxy.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(lasts).await;
                    proxy.set(Fault::None);
                });
                what
            }
        }
    }

    /// Deletes what intake has finished.
    async fn retain(&self) -> String {
        let group = format!("docket.{}.intake", self.place.name);
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&self.source, 0, self.partitions - 1);
        let bootstrap = self.cluster.bootstrap.clone();
        let committed = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", bootstrap)
                .set("group.id", group)
                .create()
                .unwrap();
            consumer.committed_offsets(list, Duration::from_secs(10))
        });
        let Ok(committed) = committed.await.unwrap() else { return "Kafka is away".to_owned() };
        let mut finished = TopicPartitionList::new();
        for element in committed.elements() {
            if let Offset::Offset(at) = element.offset() {
                let _ = finished.add_partition_offset(
                    element.topic(),
                    element.partition(),
                    Offset::Offset(at),
                );
            }
        }
        let told = self.cluster.admin().delete_records(&finished, &AdminOptions::new()).await;
        format!("{:?}", told.map(|told| told.count()))
    }
}

/// Decisions, evenly, until it is stopped; says how many, and how many records were none.
fn feed(
    bootstrap: &str,
    topic: &str,
    seed: u64,
    stop: &AtomicBool,
    fed: &AtomicU64,
) -> (usize, usize) {
    let source = Source::new(bootstrap, topic);
    let (mut decisions, mut junk) = (0, 0);
    let started = Instant::now();
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        for decision in generated(RATE, seed.wrapping_add(round)) {
            source.write_to(-1, &decision);
            decisions += 1;
            if decisions % JUNK == 0 {
                source.write_to(-1, &format!("{{\"decision_id\":\"cut {decisions}\",\"path\":"));
                junk += 1;
            }
        }
        fed.store(decisions as u64, Ordering::Relaxed);
        let due = Duration::from_secs(round + 1);
        std::thread::sleep(due.saturating_sub(started.elapsed()));
    }
    source.flush();
    (decisions, junk)
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_goes_wrong_at_once_and_the_counts_add_up() {
    let _servers = super::alone().await;
    init();
    let number = |name: &str| std::env::var(name).ok().map(|s| s.parse::<u64>().unwrap());
    let seconds = number("DOCKET_SOAK").unwrap_or(60);
    let seed = number("DOCKET_SOAK_SEED").unwrap_or_else(rand::random);
    println!("{seconds} s; DOCKET_SOAK_SEED={seed} chooses the same troubles");
    let cluster = Arc::new(tokio::task::spawn_blocking(Cluster::start).await.unwrap());
    let place = Place::new("soak");
    let (name, source) = (place.name.clone(), format!("{}-source", place.name));
    let store = LogStore::victorialogs();
    let proxies = [
        ("search", address("OPENSEARCH_URL")),
        (store.name(), store.url.clone()),
        ("traces", address("OTLP_HTTP_URL")),
    ];
    let mut all = Vec::new();
    for (sink, target) in proxies {
        all.push((sink, Proxy::start(&target).await));
    }
    let delivery = "delivery: {batch_records: 300, timeout: 5s, retry_max: 2s}";
    let text = format!(
        "name: $NAME
kafka: {{brokers: \"{}\", properties: {{session.timeout.ms: 6000}}}}
sources: [{{topic: $NAME-source}}]
intake: {{transaction_interval: 100ms, transaction_bytes: 200KiB}}
docket: {{partitions: 6}}
memory: {{budget: {BUDGET_MIB}MiB}}
protect: {{}}
sinks:
  search: {{type: elasticsearch, url: \"{}\", index: $NAME, {delivery}}}
{}  traces: {{type: otlp, protocol: http, endpoint: \"{}\", {delivery}}}
",
        cluster.bootstrap,
        all[0].1.url,
        store.sink(&all[1].1.url, &format!("labels: {{run: \"=$NAME\"}}, {delivery}")),
        all[2].1.url,
    );
    let path = place.pipeline(&text);
    let text = std::fs::read_to_string(&path).unwrap();
    let new = NewTopic::new(&source, 4, TopicReplication::Fixed(3));
    cluster.admin().create_topics([&new], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    assert!(docket().args(["setup", "--yes"]).arg(&path).status().unwrap().success());

    let stop = Arc::new(AtomicBool::new(false));
    let fed = Arc::new(AtomicU64::new(0));
    let feeding = {
        let (bootstrap, topic) = (cluster.bootstrap.clone(), source.clone());
        let (stop, fed) = (stop.clone(), fed.clone());
        std::thread::spawn(move || feed(&bootstrap, &topic, seed, &stop, &fed))
    };
    let mut soak = Soak {
        cluster: cluster.clone(),
        place,
        path: path.clone(),
        text,
        source,
        partitions: 4,
        proxies: all,
        instances: Vec::new(),
        largest: 0,
        rng: SmallRng::seed_from_u64(seed),
    };
    soak.start();
    soak.start();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        let rest = Duration::from_millis(soak.rng.random_range(0..2500));
        tokio::time::sleep(rest).await;
        let what = soak.trouble().await;
        let at = begun.elapsed().as_secs();
        println!("{at:4} s, {:7} fed: {what}", fed.load(Ordering::Relaxed));
        soak.looked().await;
    }
    stop.store(true, Ordering::Relaxed);
    soak.proxies.iter().for_each(|(_, proxy)| proxy.set(Fault::None));
    let (decisions, junk) = tokio::task::spawn_blocking(|| feeding.join().unwrap()).await.unwrap();
    println!("{decisions} decisions, {junk} records that are none");

    let everything = || count(&name, json!({ "match_all": {} }));
    let deadline = Instant::now() + Duration::from_secs(120 + seconds);
    while everything().await < decisions as u64 {
        let logs: Vec<String> = soak.instances.iter().map(Running::log).collect();
        let n = everything().await;
        assert!(Instant::now() < deadline, "seed {seed}: {n} documents\n{}", logs.join("\n\n"));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let args = ["verify", "--from", "start", "--settle", "60s", "--json", "--sink"];
    let sinks = format!("search,{}", store.name());
    let out = docket().args(args).arg(&sinks).arg(&path).output().unwrap();
    let report: Value = serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&out.stderr)));
    // Nothing is lost on the way from the source, either; what was delivered twice is no gap.
    let source = &report["source"];
    assert_eq!(
        (&report["gaps"], &source["lost"]),
        (&0.into(), &json!([])),
        "seed {seed}: {source}"
    );
    for sink in report["sinks"].as_array().unwrap() {
        let n = |what: &str| sink[what].as_array().unwrap().len();
        println!("{}: {} present, {} more than once", sink["sink"], sink["present"], n("repeated"));
        let told = || sink.to_string().chars().take(3000).collect::<String>();
        let present = sink["present"].as_u64().unwrap();
        assert_eq!(
            (present, n("missing"), n("altered")),
            (decisions as u64, 0, 0),
            "seed {seed}: {}",
            told()
        );
        assert!(sink["sink"] != "search" || n("repeated") == 0, "seed {seed}: {}", told());
    }
    soak.looked().await;
    println!("at most {} MiB of {BUDGET_MIB}", soak.largest / 1024);
    for instance in std::mem::take(&mut soak.instances) {
        instance.stop();
    }
    let mut seen: HashMap<String, u32> = HashMap::new();
    for record in read_all(&cluster.bootstrap, &format!("docket.{name}")) {
        let id = record.json()["decision_id"].as_str().unwrap().to_owned();
        *seen.entry(id).or_default() += 1;
    }
    let repeated = seen.values().filter(|n| **n > 1).count();
    assert_eq!((seen.len(), repeated), (decisions, 0), "seed {seed}: in the docket, and twice");
    let letters = read_all(&cluster.bootstrap, &format!("docket.{name}.rejects"));
    let of_sinks = letters.iter().filter(|letter| letter.headers.contains_key("docket-sink"));
    let of_sinks: Vec<_> = of_sinks.map(|letter| &letter.headers).collect();
    assert!(of_sinks.is_empty(), "seed {seed}: {of_sinks:?}");
    assert_eq!(letters.len(), junk, "seed {seed}: records that are none are rejects, once each");
    // Traces have no list of their own to be compared with: the proxy saw what Jaeger acknowledged.
    let traced = soak.proxies[2].1.take_acknowledged();
    let missing = seen.keys().filter(|id| !traced.contains(*id)).count();
    assert_eq!(missing, 0, "seed {seed}: decisions that Jaeger never acknowledged");
    assert!(soak.largest < BUDGET_MIB * 1024, "seed {seed}: a process had {} KiB", soak.largest);
}
