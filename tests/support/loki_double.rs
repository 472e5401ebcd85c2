//! A double of Grafana Loki 3.7: takes pushes over HTTP and treats them as Loki does by its documentation and source, and answers the
//! queries that `docket verify` and the suites ask. What it imitates, and where that is written:
//!
//! - limits and their texts: <https://grafana.com/docs/loki/latest/operations/troubleshooting/troubleshoot-ingest/>, with quotes as in
//!   grafana/loki pkg/validation/validate.go; defaults: <https://grafana.com/docs/loki/latest/configure/#limits_config>
//! - several entries refused in one request are told as `2 errors like: ..; 1 errors like: ..`, and the others are stored: grafana/loki
//!   pkg/distributor/distributor.go; a push is not atomic: grafana/loki issue 963
//! - disorder of up to half of `max_chunk_age` behind the newest entry of a stream, and what is told of the rest: grafana/loki
//!   pkg/ingester/stream.go, issue 9869
//! - sharding of busy streams: <https://grafana.com/docs/loki/latest/operations/automatic-stream-sharding/>
//! - lines lost in a crash that several requests wrote to one stream: `counter` in grafana/loki pkg/ingester/stream.go, issue 3974
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use prost::Message;
use serde_json::{Value, json};

#[path = "loki_query.rs"]
mod query;

use query::{query_range, selector};

const SECOND: i64 = 1_000_000_000;
/// The tenant while `auth_enabled` is false.
const TENANT: &str = "fake";
/// `max_recv_msg_size` of Loki's gRPC client: what its parts pass each other in one answer.
const MAX_ANSWER: usize = 4 << 20;

/// `limits_config`, and what else bounds a push.
#[derive(Debug, Clone)]
pub struct Limits {
    /// `reject_old_samples_max_age`; none: `reject_old_samples` is false.
    pub max_age: Option<Duration>,
    pub creation_grace_period: Duration,
    pub max_line_size: usize,
    pub max_label_names: usize,
    pub max_label_name_length: usize,
    pub max_label_value_length: usize,
    pub max_metadata_size: usize,
    pub max_metadata_count: usize,
    pub max_streams: usize,
    /// `ingester.max_chunk_age`.
    pub max_chunk_age: Duration,
    /// Bytes a second, and at once.
    pub rate: (f64, f64),
    /// Over how many shards each stream is spread; 1 is what a stream below `desired_rate` gets.
    pub shards: usize,
    pub max_entries_per_query: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_age: Some(Duration::from_secs(7 * 86_400)),
            creation_grace_period: Duration::from_secs(600),
            max_line_size: 256 << 10,
            max_label_names: 15,
            max_label_name_length: 1024,
            max_label_value_length: 2048,
            max_metadata_size: 64 << 10,
            max_metadata_count: 128,
            max_streams: 5000,
            max_chunk_age: Duration::from_secs(7200),
            rate: (4e6, 6e6),
            shards: 1,
            max_entries_per_query: 5000,
        }
    }
}

impl Limits {
    /// As deploy/local/servers/loki.sh configures a real one.
    pub fn local() -> Limits {
        Limits {
            max_age: None,
            rate: (64e6, 128e6),
            max_entries_per_query: 100_000,
            ..Limits::default()
        }
    }
}

#[derive(Message)]
pub struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    pub streams: Vec<PushStream>,
}

#[derive(Message)]
pub struct PushStream {
    #[prost(string, tag = "1")]
    pub labels: String,
    #[prost(message, repeated, tag = "2")]
    pub entries: Vec<Entry>,
}

#[derive(Clone, Message)]
pub struct Entry {
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<prost_types::Timestamp>,
    #[prost(string, tag = "2")]
    pub line: String,
    #[prost(message, repeated, tag = "3")]
    pub metadata: Vec<Pair>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Pair {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

impl Entry {
    fn at(&self) -> i64 {
        self.timestamp.as_ref().map_or(0, |t| t.seconds * SECOND + i64::from(t.nanos))
    }

    fn metadata_size(&self) -> usize {
        self.metadata.iter().map(|p| p.name.len() + p.value.len()).sum()
    }
}

type Labels = BTreeMap<String, String>;

/// `{a="b", c="d"}`, as Loki writes labels.
fn written(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(n, v)| format!("{n}={v:?}")).collect();
    format!("{{{}}}", pairs.join(", "))
}

#[derive(Default)]
struct Stream {
    entries: BTreeMap<i64, Vec<Entry>>,
    newest: Option<i64>,
    /// How many entries it accepted, ever.
    counter: usize,
}

impl Stream {
    fn store(&mut self, entry: Entry) {
        let at = entry.at();
        self.newest = self.newest.max(Some(at));
        self.counter += 1;
        let same = self.entries.entry(at).or_default();
        // The same time and line is a repeat.
        if !same.iter().any(|e| e.line == entry.line) {
            same.push(entry);
        }
    }
}

/// What the write-ahead log holds of one push to one stream, and the stream's counter after it.
struct Logged {
    labels: Labels,
    counter: usize,
    entries: Vec<Entry>,
}

struct Memory {
    streams: BTreeMap<Labels, Stream>,
    log: Vec<Logged>,
    /// What may come at once still, and when that was.
    allowance: (f64, Instant),
    pushes: usize,
}

struct Shared {
    limits: Limits,
    memory: Mutex<Memory>,
}

#[derive(Clone)]
pub struct LokiDouble {
    pub url: String,
    shared: Arc<Shared>,
}

impl LokiDouble {
    pub async fn start(limits: Limits) -> LokiDouble {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let memory = Memory {
            streams: BTreeMap::new(),
            log: Vec::new(),
            allowance: (limits.rate.1, Instant::now()),
            pushes: 0,
        };
        let shared = Arc::new(Shared { limits, memory: Mutex::new(memory) });
        let router = axum::Router::new()
            .route("/loki/api/v1/push", post(push))
            .route("/loki/api/v1/query_range", get(query_range))
            .route("/flush", post(|| async { StatusCode::NO_CONTENT }))
            .layer(DefaultBodyLimit::disable())
            .with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        LokiDouble { url, shared }
    }

    /// SIGKILL, and a start that reads the write-ahead log: what stands there behind something newer of its stream is taken for known.
    pub fn crash(&self) {
        let mut memory = self.shared.memory.lock().unwrap();
        let log = std::mem::take(&mut memory.log);
        memory.streams.clear();
        for logged in log {
            let stream = memory.streams.entry(logged.labels.clone()).or_default();
            if logged.counter <= stream.counter {
                continue;
            }
            for entry in &logged.entries {
                stream.store(entry.clone());
            }
            stream.counter = logged.counter;
            memory.log.push(logged);
        }
    }

    /// How many entries it holds.
    pub fn len(&self) -> usize {
        let memory = self.shared.memory.lock().unwrap();
        memory.streams.values().flat_map(|s| s.entries.values()).map(Vec::len).sum()
    }

    /// How many pushes came.
    pub fn pushes(&self) -> usize {
        self.shared.memory.lock().unwrap().pushes
    }
}

fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap()
}

fn rfc3339(at: i64) -> String {
    jiff::Timestamp::from_nanosecond(at.into()).unwrap().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// As Go prints a time.
fn go_time(at: i64) -> String {
    let time = jiff::Timestamp::from_nanosecond(at.into()).unwrap();
    time.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string()
}

async fn push(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let plain = snap::raw::Decoder::new().decompress_vec(&body);
    let request = match plain.map(|plain| PushRequest::decode(&plain[..])) {
        Ok(Ok(request)) => request,
        Ok(Err(error)) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let (logged, refused) = {
        let mut memory = shared.memory.lock().unwrap();
        memory.pushes += 1;
        take(&shared.limits, &mut memory, request)
    };
    // Streams are locked while they are written to, the log is written to afterwards: requests may pass each other here.
    tokio::time::sleep(Duration::from_micros(rand::random::<u64>() % 3000)).await;
    shared.memory.lock().unwrap().log.extend(logged);
    match refused {
        None => StatusCode::NO_CONTENT.into_response(),
        Some((status, text)) => (status, text + "\n").into_response(),
    }
}

/// What of a request is stored, and what the answer says of the rest.
fn take(
    limits: &Limits,
    memory: &mut Memory,
    request: PushRequest,
) -> (Vec<Logged>, Option<(StatusCode, String)>) {
    let now = now();
    let mut errors: Vec<(String, usize)> = Vec::new();
    let mut invalid = |text: String, kind: &str| match errors.iter_mut().find(|(t, _)| {
        // Errors that differ in what they quote only are told once, and how many.
        !kind.is_empty() && t.contains(kind)
    }) {
        Some((_, count)) => *count += 1,
        None => errors.push((text, 1)),
    };
    let mut valid: Vec<(Labels, Vec<Entry>)> = Vec::new();
    for stream in request.streams {
        match valid_labels(limits, &stream.labels) {
            Err(text) => invalid(text, ""),
            Ok(labels) => {
                let mut entries = Vec::new();
                for entry in stream.entries {
                    match valid_entry(limits, &labels, &entry, now) {
                        Ok(()) => entries.push(entry),
                        Err((text, kind)) => invalid(text, kind),
                    }
                }
                valid.push((labels, entries));
            }
        }
    }
    valid.retain(|(_, entries)| !entries.is_empty());

    let lines: usize = valid.iter().map(|(_, e)| e.len()).sum();
    let bytes: usize =
        valid.iter().flat_map(|(_, e)| e).map(|e| e.line.len() + e.metadata_size()).sum();
    let (rate, burst) = limits.rate;
    let (left, at) = memory.allowance;
    let left = burst.min(left + rate * at.elapsed().as_secs_f64());
    if bytes as f64 > left {
        memory.allowance = (left, Instant::now());
        let text = format!(
            "ingestion rate limit exceeded for user {TENANT} (limit: {rate} bytes/sec) while attempting to ingest '{lines}' lines totaling '{bytes}' bytes, reduce log volume or contact your Loki administrator to see if the limit can be increased"
        );
        return (Vec::new(), Some((StatusCode::TOO_MANY_REQUESTS, text)));
    }
    memory.allowance = (left - bytes as f64, Instant::now());

    let mut logged = Vec::new();
    // The last word of the ingester; the others streams were stored.
    let mut refused = None;
    for (labels, entries) in sharded(limits, valid) {
        let known = memory.streams.contains_key(&labels);
        if !known && memory.streams.len() >= limits.max_streams {
            let text = format!(
                "maximum active stream limit exceeded when trying to create stream {}, reduce the number of active streams (reduce labels or reduce label values), or contact your Loki administrator to see if the limit can be increased, user: '{TENANT}'",
                written(&labels)
            );
            refused = Some((StatusCode::TOO_MANY_REQUESTS, text));
            continue;
        }
        let stream = memory.streams.entry(labels.clone()).or_default();
        let window = i64::try_from(limits.max_chunk_age.as_nanos()).unwrap() / 2;
        let (total, mut behind, mut stored) = (entries.len(), Vec::new(), Vec::new());
        for entry in entries {
            match stream.newest.map(|newest| newest - window) {
                Some(oldest) if entry.at() < oldest => behind.push(format!(
                    "entry with timestamp {} ignored, reason: 'entry too far behind, entry timestamp is: {}, oldest acceptable timestamp is: {}',\n",
                    go_time(entry.at()),
                    rfc3339(entry.at()),
                    rfc3339(oldest)
                )),
                _ => {
                    stream.store(entry.clone());
                    stored.push(entry);
                }
            }
        }
        if !stored.is_empty() {
            let counter = stream.counter;
            logged.push(Logged { labels: labels.clone(), counter, entries: stored });
        }
        if !behind.is_empty() {
            // `max_returned_stream_errors`.
            let text = format!(
                "{}user '{TENANT}', total ignored: {} out of {total} for stream: {}",
                behind[..behind.len().min(10)].concat(),
                behind.len(),
                written(&labels)
            );
            refused = Some((StatusCode::BAD_REQUEST, text));
        }
    }
    let told = match errors.as_slice() {
        [] => None,
        [(text, 1)] => Some(text.clone()),
        many => Some(
            many.iter()
                .map(|(t, n)| format!("{n} errors like: {t}"))
                .collect::<Vec<_>>()
                .join("; "),
        ),
    };
    (logged, refused.or(told.map(|text| (StatusCode::BAD_REQUEST, text))))
}

fn valid_labels(limits: &Limits, text: &str) -> Result<Labels, String> {
    let (matchers, rest) = selector(text)
        .filter(|(_, rest)| rest.is_empty())
        .ok_or_else(|| format!("error parsing labels '{text}' with error: parse error"))?;
    debug_assert!(rest.is_empty());
    let mut labels = Labels::new();
    for (name, operator, value) in matchers {
        if operator != "=" {
            return Err(format!("error parsing labels '{text}' with error: parse error"));
        }
        if name.len() > limits.max_label_name_length {
            return Err(format!("stream '{text}' has label name too long: '{name}'"));
        }
        if value.len() > limits.max_label_value_length {
            return Err(format!("stream '{text}' has label value too long: '{value}'"));
        }
        if labels.insert(name.clone(), value).is_some() {
            return Err(format!("stream '{text}' has duplicate label name: '{name}'"));
        }
    }
    if labels.is_empty() {
        return Err("error at least one label pair is required per stream".into());
    }
    if labels.len() > limits.max_label_names {
        let (count, limit) = (labels.len(), limits.max_label_names);
        return Err(format!("entry for stream '{text}' has {count} label names; limit {limit}"));
    }
    // `discover_service_name`, whose label does not count.
    if !labels.contains_key("service_name") {
        let from = ["service", "app", "application", "name"].iter().find_map(|n| labels.get(*n));
        let name = from.cloned().unwrap_or_else(|| "unknown_service".into());
        labels.insert("service_name".into(), name);
    }
    Ok(labels)
}

/// With a part of the text that others of this kind share.
fn valid_entry(
    limits: &Limits,
    labels: &Labels,
    entry: &Entry,
    now: i64,
) -> Result<(), (String, &'static str)> {
    let nanos = |d: Duration| i64::try_from(d.as_nanos()).unwrap();
    let at = entry.at();
    let stream = written(labels);
    if let Some(oldest) = limits.max_age.map(|age| now - nanos(age)).filter(|o| at < *o) {
        return Err((
            format!(
                "entry for stream '{stream}' has timestamp too old: {}, oldest acceptable timestamp is: {}",
                rfc3339(at),
                rfc3339(oldest)
            ),
            "has timestamp too old",
        ));
    }
    if at > now + nanos(limits.creation_grace_period) {
        let text = format!("entry for stream '{stream}' has timestamp too new: {}", rfc3339(at));
        return Err((text, "has timestamp too new"));
    }
    let (size, limit) = (entry.line.len(), limits.max_line_size);
    if size > limit {
        return Err((
            format!(
                "max entry size '{limit}' bytes exceeded for stream '{stream}' while adding an entry with length '{size}' bytes"
            ),
            "max entry size",
        ));
    }
    let (size, limit) = (entry.metadata_size(), limits.max_metadata_size);
    if size > limit {
        return Err((
            format!(
                "stream '{stream}' has structured metadata too large: '{size}' bytes, limit: '{limit}' bytes. Please see `limits_config.max_structured_metadata_size` or contact your Loki administrator to increase it."
            ),
            "has structured metadata too large",
        ));
    }
    let (count, limit) = (entry.metadata.len(), limits.max_metadata_count);
    if count > limit {
        return Err((
            format!(
                "stream '{stream}' has too many structured metadata labels: '{count}', limit: '{limit}'. Please see `limits_config.max_structured_metadata_entries_count` or contact your Loki administrator to increase it."
            ),
            "has too many structured metadata labels",
        ));
    }
    Ok(())
}

/// A busy stream's entries go round its shards, from any of them on.
fn sharded(limits: &Limits, streams: Vec<(Labels, Vec<Entry>)>) -> Vec<(Labels, Vec<Entry>)> {
    if limits.shards < 2 {
        return streams;
    }
    let mut all = Vec::new();
    for (labels, entries) in streams {
        let first = rand::random::<u32>() as usize;
        let mut shards: HashMap<usize, Vec<Entry>> = HashMap::new();
        for (i, entry) in entries.into_iter().enumerate() {
            shards.entry((first + i) % limits.shards).or_default().push(entry);
        }
        for (shard, entries) in shards {
            let mut labels = labels.clone();
            labels.insert("__stream_shard__".into(), shard.to_string());
            all.push((labels, entries));
        }
    }
    all
}

/// Name, operator, value.
type Matcher = (String, &'static str, String);
