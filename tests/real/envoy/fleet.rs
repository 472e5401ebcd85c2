//! A service behind a real Envoy, OPAs that both ask, and the agent that brings access log and spans to Kafka.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::routing::any;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::address;
use crate::support::{Place, Source, until};

/// Stopped when dropped, by its process id.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(place: &Place, name: &str, command: &mut Command) -> Process {
        let log = place.path(&format!("{name}.log"));
        let errors = File::options().append(true).create(true).open(&log).unwrap();
        let child = command.stdin(Stdio::null()).stderr(errors).spawn().unwrap();
        Process { child, log }
    }

    async fn listens(&mut self, port: u16) {
        let (log, child) = (self.log.clone(), &mut self.child);
        until("a server listens", 60, async || {
            let over = child.try_wait().unwrap();
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(over.is_none(), "it ended: {over:?}\n{}", said());
            let met = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
            met.map_err(|e| format!("{port}: {e}\n{}", said()))
        })
        .await;
    }

    /// SIGTERM, so that what it holds is sent.
    pub fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Below what the kernel hands to outgoing connections, so that nobody has it when its server comes.
fn free_port() -> u16 {
    loop {
        let port = rand::random_range(10_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// How OPA is set: whether it traces itself, and how long it holds what it decided.
pub struct Opa {
    pub name: &'static str,
    pub traced: bool,
    pub delays: (u32, u32),
    /// How many decisions a second it logs; the others it drops, and says so in its status.
    pub most: Option<u32>,
    pub ports: [u16; 2],
}

impl Opa {
    pub fn new(name: &'static str, traced: bool, delays: (u32, u32)) -> Opa {
        Opa { name, traced, delays, most: None, ports: [free_port(), free_port()] }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    pub async fn start(&self, place: &Place, door: &str, spans: u16) -> Process {
        let [http, grpc] = self.ports;
        let mut config = json!({
            "services": { "door": { "url": format!("http://{door}") } },
            "labels": { "app": self.name },
            "decision_logs": {
                "service": "door",
                "reporting": { "min_delay_seconds": self.delays.0, "max_delay_seconds": self.delays.1 },
                "request_context": { "http": { "headers": ["traceparent", "x-request-id"] } },
            },
            "plugins": { "envoy_ext_authz_grpc": { "addr": format!("127.0.0.1:{grpc}") } },
        });
        if self.traced {
            config["distributed_tracing"] = json!({
                "type": "http", "address": format!("127.0.0.1:{spans}"),
                "service_name": "opa", "sample_percentage": 100,
            });
        }
        if let Some(most) = self.most {
            config["decision_logs"]["reporting"]["max_decisions_per_second"] = most.into();
            config["status"] = json!({ "service": "door" });
        }
        let path = place.path(&format!("{}.json", self.name));
        std::fs::write(&path, config.to_string()).unwrap();
        let mut command = Command::new(address("ENVOY_OPA_BIN"));
        command.args(["run", "--server", "--skip-version-check", "--addr"]);
        command.arg(format!("127.0.0.1:{http}")).arg("-c").arg(path);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/envoy/policies"));
        let mut process = Process::start(place, self.name, command.stdout(Stdio::null()));
        process.listens(http).await;
        process.listens(grpc).await;
        process
    }
}

/// How Envoy is set.
#[derive(Clone, Copy)]
pub enum Manner {
    /// So many traces in a hundred are sampled.
    Sampled(u8),
    /// It asks, and lets everything pass.
    Shadow,
}

/// Envoy's configuration, with what deploy/envoy has word for word.
fn bootstrap(
    admin: u16,
    listen: u16,
    service: u16,
    spans: u16,
    opas: &[Opa],
    manner: Manner,
) -> String {
    let endpoint = |port: u16| {
        format!(
            "{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}"
        )
    };
    let opas: Vec<String> = opas.iter().map(|opa| endpoint(opa.ports[1])).collect();
    let mut text = String::new();
    for line in file("tests/real/envoy/bootstrap.yaml").lines() {
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        match rest.strip_prefix('$').filter(|name| name.ends_with(".yaml")) {
            Some(name) => {
                for line in file(&format!("deploy/envoy/{name}")).lines() {
                    text.push_str(&format!("{indent}{line}\n"));
                }
            }
            None => text.push_str(&format!("{line}\n")),
        }
    }
    // What users choose.
    let (closed, open) = ("failure_mode_allow: false", "failure_mode_allow: true");
    assert!(text.contains(closed));
    let sampled = match manner {
        Manner::Sampled(sampled) => sampled,
        Manner::Shadow => {
            let filter = "transport_api_version: V3";
            let at = text.find(filter).unwrap();
            let indent = at - text[..at].rfind('\n').unwrap() - 1;
            text.insert_str(at, &format!("shadow_mode: true\n{:indent$}", ""));
            100
        }
    };
    text.replace(closed, open)
        .replace("$ADMIN", &admin.to_string())
        .replace("$LISTEN", &listen.to_string())
        .replace("$SERVICE", &service.to_string())
        .replace("$SPANS", &spans.to_string())
        .replace("$SAMPLED", &sampled.to_string())
        .replace("$OPAS", &opas.join(", "))
}

/// Envoy and the service behind it.
pub struct Fleet {
    pub url: String,
    pub access_log: PathBuf,
    _processes: [Process; 2],
}

impl Fleet {
    /// Envoy asks the OPAs of the first list, the service those of the second.
    pub async fn start(place: &Place, spans: u16, opas: [&[Opa]; 2], manner: Manner) -> Fleet {
        let [admin, listen, service] = [free_port(), free_port(), free_port()];
        let asked: Vec<String> = opas[1].iter().map(Opa::url).collect();
        let mut command = Command::new(address("ENVOY_OPA_BIN"));
        command.args(["service", "-listen", &format!("127.0.0.1:{service}")]);
        command.args(["-opas", &asked.join(","), "-otlp", &format!("127.0.0.1:{spans}")]);
        let mut service_process = Process::start(place, "service", command.stdout(Stdio::null()));
        service_process.listens(service).await;
        let config = place.path("envoy.yaml");
        std::fs::write(&config, bootstrap(admin, listen, service, spans, opas[0], manner)).unwrap();
        let access_log = place.path("access.log");
        let mut command = Command::new(address("ENVOY_BIN"));
        command.arg("-c").arg(config).args(["--file-flush-interval-msec", "100"]);
        command.args(["--concurrency", "2", "--use-dynamic-base-id", "--log-level", "warn"]);
        command.stdout(File::create(&access_log).unwrap());
        let mut envoy = Process::start(place, "envoy", &mut command);
        envoy.listens(listen).await;
        let url = format!("http://127.0.0.1:{listen}");
        Fleet { url, access_log, _processes: [envoy, service_process] }
    }
}

/// Takes spans over OTLP/HTTP, as a collector.
pub async fn collector() -> (u16, Receiver<Vec<u8>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver): (Sender<Vec<u8>>, _) = channel();
    let router = Router::new().fallback(any(move |body: Bytes| {
        // After the test's end nobody takes them.
        let _ = sender.send(body.to_vec());
        async {}
    }));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (port, receiver)
}

/// Brings access log and spans to Kafka, each as late as it likes.
pub struct Agent {
    thread: std::thread::JoinHandle<Vec<Value>>,
    over: Arc<AtomicBool>,
}

/// How late lines are, at least and at most, and how wrong their clock is; and how late spans are at most.
#[derive(Clone, Copy)]
pub struct Lateness {
    pub lines: (u64, u64),
    pub clock: SignedDuration,
    pub spans: u64,
}

impl Agent {
    pub fn start(
        kafka: &str,
        place: &Place,
        log: PathBuf,
        spans: Receiver<Vec<u8>>,
        late: Lateness,
    ) -> Agent {
        let topics = ["access", "spans"].map(|topic| format!("{}-{topic}", place.name));
        let topics = topics.map(|topic| Source::new(kafka, &topic));
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        let thread = std::thread::spawn(move || carry(&topics, &log, &spans, late, &seen));
        Agent { thread, over }
    }

    /// Waits until all that came is in Kafka. The lines as Envoy wrote them.
    pub fn finish(self) -> Vec<Value> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn carry(
    topics: &[Source; 2],
    log: &Path,
    spans: &Receiver<Vec<u8>>,
    late: Lateness,
    over: &AtomicBool,
) -> Vec<Value> {
    let mut lines = Vec::new();
    let (mut log, mut at) = (File::open(log).unwrap(), 0);
    let mut due: BTreeMap<(Instant, u64), (usize, Vec<u8>)> = BTreeMap::new();
    let later =
        |due: &mut BTreeMap<_, _>, which: usize, (least, most): (u64, u64), record: Vec<u8>| {
            let late = Duration::from_millis(rand::random_range(least..=most));
            due.insert((Instant::now() + late, rand::random::<u64>()), (which, record));
        };
    loop {
        // Once more after the end, for what came meanwhile.
        let last = over.load(Ordering::Relaxed);
        let mut text = String::new();
        log.seek(SeekFrom::Start(at)).unwrap();
        log.read_to_string(&mut text).unwrap();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        at += whole as u64;
        for line in text[..whole].lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            let mut sent = line.clone();
            let start: Timestamp = line["start_time"].as_str().unwrap().parse().unwrap();
            sent["start_time"] = (start + late.clock).to_string().into();
            lines.push(line);
            later(&mut due, 0, late.lines, sent.to_string().into_bytes());
        }
        while let Ok(spans) = spans.try_recv() {
            later(&mut due, 1, (0, late.spans), spans);
        }
        while let Some(first) = due.first_entry().filter(|first| first.key().0 <= Instant::now()) {
            let (which, record) = first.remove();
            topics[which].write_to(rand::random_range(0..3), &record);
        }
        if last && due.is_empty() {
            topics.iter().for_each(Source::flush);
            return lines;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
