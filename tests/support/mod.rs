//! What the suites share: docket as a process, topics to write and read, and waiting with a deadline.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

pub mod canaries;
pub mod kafka_proxy;
pub mod loki_double;
pub mod proxy;
mod samples;

// Not every suite asks for them.
#[allow(unused_imports)]
pub use samples::samples;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

/// docket, without an `opa` on its PATH, which `docket why` would ask.
pub fn docket() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_docket"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::split_paths(&path).filter(|folder| !folder.join("opa").exists());
    command
        .env("PATH", std::env::join_paths(path).unwrap())
        .env_remove("DOCKET_LOG")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

/// A folder of the test's own, and names that no other test has.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub name: String,
}

impl Place {
    pub fn new(test: &str) -> Place {
        let dir = tempfile::Builder::new().prefix("docket-test-").tempdir().unwrap();
        Place { dir, name: format!("{test}-{:08x}", rand::random::<u32>()) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a pipeline file; `$NAME` and `$DIR` stand for the place's.
    /// A secret as a pipeline file names it: a reference to a file.
    pub fn secret(&self, name: &str, value: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, value).unwrap();
        format!("\"${{file:{}}}\"", path.display())
    }

    pub fn pipeline(&self, text: &str) -> PathBuf {
        let path = self.path("pipeline.yaml");
        let text = text
            .replace("$NAME", &self.name)
            .replace("$DIR", &self.dir.path().display().to_string());
        let admin = match text.contains("\nadmin:") {
            true => "",
            false => "\nadmin: {listen: \"127.0.0.1:0\"}\n",
        };
        std::fs::write(&path, text + admin).unwrap();
        path
    }
}

/// `docket run`, killed when dropped.
pub struct Running {
    child: Child,
    pub log: PathBuf,
    pub admin: String,
}

impl Running {
    pub fn start(place: &Place, pipeline: &Path) -> Running {
        Running::start_with(place, pipeline, &[])
    }

    pub fn start_with(place: &Place, pipeline: &Path, args: &[&str]) -> Running {
        Running::start_env(place, pipeline, args, &[])
    }

    pub fn start_env(
        place: &Place,
        pipeline: &Path,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Running {
        // One TLS implementation for this process's clients, as in docket itself.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let log = place.path(&format!("run-{:08x}.log", rand::random::<u32>()));
        let file = std::fs::File::create(&log).unwrap();
        let child = docket()
            .envs(env.iter().copied())
            .arg("run")
            .args(args)
            .arg(pipeline)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        let mut running = Running { child, log, admin: String::new() };
        let deadline = Instant::now() + Duration::from_secs(30);
        while running.admin.is_empty() {
            let text = running.log();
            if let Some(at) = text.find("admin port open address=") {
                running.admin = text[at + 24..].split_whitespace().next().unwrap().to_owned();
                break;
            }
            assert!(
                Instant::now() < deadline && running.child.try_wait().unwrap().is_none(),
                "docket did not start:\n{text}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        running
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub async fn metrics(&self) -> Metrics {
        let text = match reqwest::get(format!("http://{}/metrics", self.admin)).await {
            Ok(response) => response.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        };
        Metrics(text)
    }

    /// Waits until what the metrics say is true.
    pub async fn until(
        &self,
        what: &str,
        seconds: u64,
        holds: impl Fn(&Metrics) -> bool,
    ) -> Metrics {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            let metrics = self.metrics().await;
            if holds(&metrics) {
                return metrics;
            }
            assert!(
                Instant::now() < deadline,
                "not after {seconds} s: {what}\n{}\n{}",
                metrics.docket(),
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; must end by itself, with success.
    pub fn stop(mut self) -> String {
        self.signal("TERM");
        let (code, log) = self.ended();
        assert_eq!(code, Some(0), "{log}");
        log
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        Command::new("kill").args(["-s", name, &id]).status().unwrap();
    }

    /// Waits for its end: exit code and log.
    pub fn ended(&mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), self.log());
            }
            assert!(Instant::now() < deadline, "docket did not stop:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line of a process' status, in KiB: VmRSS is what it has, VmHWM the most that it had. Nothing of one that is gone.
pub fn status(pid: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line?.split_whitespace().next()?.parse().ok()
}

/// What /metrics says.
pub struct Metrics(pub String);

impl Metrics {
    /// The sum of a family's series whose labels contain all of `labels`.
    pub fn sum(&self, family: &str, labels: &[&str]) -> u64 {
        let fits = |line: &&str| {
            line.strip_prefix(family).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|l| line.contains(l))
        };
        self.0
            .lines()
            .filter(fits)
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>() as u64
    }

    pub fn written(&self) -> u64 {
        self.sum("docket_intake_decisions_total", &[])
    }

    pub fn rejected(&self) -> u64 {
        self.sum("docket_rejects_total", &["part=\"intake\""])
    }

    pub fn delivered(&self, sink: &str) -> u64 {
        self.sum(
            "docket_sink_records_total",
            &[&format!("sink=\"{sink}\""), "outcome=\"delivered\""],
        )
    }

    pub fn docket(&self) -> String {
        self.0
            .lines()
            .filter(|l| l.starts_with("docket_") && !l.contains("_bucket"))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config
}

pub fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    client(bootstrap).create().unwrap()
}

pub async fn create_topic(
    bootstrap: &str,
    topic: &str,
    partitions: i32,
    settings: &[(&str, &str)],
) {
    let admin = admin(bootstrap);
    let topic = settings
        .iter()
        .fold(NewTopic::new(topic, partitions, TopicReplication::Fixed(1)), |t, (k, v)| {
            t.set(k, v)
        });
    admin.create_topics([&topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
}

/// The first record that could not be written.
#[derive(Default)]
struct Failure(Mutex<Option<KafkaError>>);

impl ClientContext for Failure {}

impl ProducerContext for Failure {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().unwrap().get_or_insert(error.clone());
        }
    }
}

/// Who writes to a topic, over its partitions: each record once, whatever becomes of the broker meanwhile.
pub struct Source {
    producer: BaseProducer<Failure>,
    topic: String,
}

impl Source {
    pub fn new(bootstrap: &str, topic: &str) -> Source {
        let mut config = client(bootstrap);
        config
            .set("message.max.bytes", "100000000")
            .set("linger.ms", "10")
            .set("compression.type", "lz4")
            .set("enable.idempotence", "true");
        Source {
            producer: config.create_with_context(Failure::default()).unwrap(),
            topic: topic.to_owned(),
        }
    }

    /// To a partition; `flush` waits until Kafka has it.
    pub fn write_to(&self, partition: i32, record: &(impl AsRef<[u8]> + ?Sized)) {
        let mut message =
            BaseRecord::<(), [u8]>::to(&self.topic).payload(record.as_ref()).partition(partition);
        while let Err((error, back)) = self.producer.send(message) {
            assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull));
            self.producer.poll(Duration::from_millis(50));
            message = back;
        }
        self.producer.poll(Duration::ZERO);
    }

    pub fn flush(&self) {
        self.producer.flush(Duration::from_secs(120)).unwrap();
        assert_eq!(*self.producer.context().0.lock().unwrap(), None, "{}", self.topic);
    }

    /// Waits until Kafka has them.
    pub fn write<R: AsRef<[u8]>>(&self, records: impl IntoIterator<Item = R>) {
        let producer = &self.producer;
        for record in records {
            let mut message = BaseRecord::<(), [u8]>::to(&self.topic).payload(record.as_ref());
            while let Err((error, back)) = producer.send(message) {
                assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull));
                producer.poll(Duration::from_millis(50));
                message = back;
            }
            producer.poll(Duration::ZERO);
        }
        self.flush();
    }
}

pub fn produce<R: AsRef<[u8]>>(bootstrap: &str, topic: &str, records: impl IntoIterator<Item = R>) {
    Source::new(bootstrap, topic).write(records);
}

/// A record that was read back.
#[derive(Debug, Clone)]
pub struct Read1 {
    pub key: Option<String>,
    pub value: Vec<u8>,
    pub headers: HashMap<String, String>,
}

impl Read1 {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.value).unwrap()
    }
}

/// Commits where a group goes on that has no other members: partition and next offset.
pub fn commit(bootstrap: &str, group: &str, topic: &str, offsets: &[(i32, i64)]) {
    let consumer: BaseConsumer = client(bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while consumer.assignment().unwrap().count() < offsets.len() {
        assert!(Instant::now() < deadline, "{group} has not got its partitions");
        let _ = consumer.poll(Duration::from_millis(100));
    }
    let mut list = TopicPartitionList::new();
    for (partition, next) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*next)).unwrap();
    }
    consumer.commit(&list, rdkafka::consumer::CommitMode::Sync).unwrap();
}

/// The ends of a topic's partitions.
pub fn ends(bootstrap: &str, topic: &str) -> Vec<(i32, i64)> {
    let consumer: BaseConsumer =
        client(bootstrap).set("group.id", "docket-tests").create().unwrap();
    let wait = Duration::from_secs(10);
    let metadata = consumer.fetch_metadata(Some(topic), wait).unwrap();
    let ids =
        metadata.topics()[0].partitions().iter().map(rdkafka::metadata::MetadataPartition::id);
    ids.map(|id| (id, consumer.fetch_watermarks(topic, id, wait).unwrap().1)).collect()
}

/// Every committed record of a topic.
pub fn read_all(bootstrap: &str, topic: &str) -> Vec<Read1> {
    let consumer: BaseConsumer = client(bootstrap)
        .set("group.id", "docket-tests")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
    let partitions: Vec<i32> = metadata.topics()[0]
        .partitions()
        .iter()
        .map(rdkafka::metadata::MetadataPartition::id)
        .collect();
    let mut list = TopicPartitionList::new();
    for partition in &partitions {
        list.add_partition_offset(topic, *partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut left = partitions.len();
    let mut all = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while left > 0 {
        assert!(Instant::now() < deadline, "{topic} can't be read to its end");
        match consumer.poll(Duration::from_millis(200)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
            Some(Err(e)) => panic!("{topic}: {e}"),
            Some(Ok(message)) => all.push(Read1 {
                key: message.key().map(|k| String::from_utf8_lossy(k).into_owned()),
                value: message.payload().unwrap_or_default().to_vec(),
                headers: message.headers().map_or_else(HashMap::new, |headers| {
                    headers
                        .iter()
                        .map(|h| {
                            (
                                h.key.to_owned(),
                                String::from_utf8_lossy(h.value.unwrap_or_default()).into_owned(),
                            )
                        })
                        .collect()
                }),
            }),
        }
    }
    all
}

/// What a command wrote, without what it only says while Kafka answers slowly.
pub fn unhurried(written: Vec<u8>) -> String {
    let text = String::from_utf8(written).unwrap();
    let lines = text.split_inclusive('\n');
    lines.filter(|line| !line.starts_with("waiting for Kafka at ")).collect()
}

/// What a command says of a pipeline; it must end well.
pub fn said(pipeline: &Path, args: &[&str]) -> String {
    let out = docket().args(args).arg(pipeline).output().unwrap();
    let told = unhurried([out.stdout, out.stderr].concat());
    assert!(out.status.success(), "{told}");
    told
}

/// The ID of a decision as OPA logs it.
pub fn decision_id(decision: &str) -> String {
    let decision: serde_json::Value = serde_json::from_str(decision).unwrap();
    decision["decision_id"].as_str().unwrap().to_owned()
}

/// Made-up decisions, as `docket generate` writes them.
pub fn generated(count: usize, seed: u64) -> Vec<String> {
    let out = docket()
        .args(["generate", "--count", &count.to_string(), "--seed", &seed.to_string()])
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert!(out.status.success());
    String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
}

pub async fn until<T>(
    what: &str,
    seconds: u64,
    mut attempt: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(why) => assert!(Instant::now() < deadline, "not after {seconds} s: {what}: {why}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
