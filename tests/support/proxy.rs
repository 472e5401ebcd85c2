//! A proxy that stands before a real server and does to it what networks and servers do: it answers with
//! errors, hangs, resets, dribbles, or takes only a part. It keeps count of the decisions that the real
//! server acknowledged through it.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    None,
    /// An answer without asking the server.
    Status(u16, &'static str),
    Hang,
    Reset,
    /// The server's answer, one byte a second.
    Slow,
    /// Larger requests are answered with 413.
    TooLarge(usize),
    /// Only a part is taken, as this kind of server does it.
    Partial,
    /// An answer of another server, of a content type: status, type, body. Nothing is passed on but CloudWatch's other operations.
    Answer(u16, &'static str, &'static str),
    /// A request with this in it is answered with 500, for ever; all others are passed on.
    Marked(String),
    /// Of each item of a bulk answer so many bytes more than the server says.
    Wordy(usize),
}

struct State {
    target: String,
    fault: Mutex<Fault>,
    /// Requests that met a fault.
    faulted: AtomicUsize,
    /// By request that was marked, or answered at length: how often it came, and how many decisions are in it.
    shapes: Mutex<HashMap<u64, (usize, usize)>>,
    acknowledged: Mutex<HashSet<String>>,
    /// How much longer the server takes.
    longer: Mutex<Duration>,
}

#[derive(Clone)]
pub struct Proxy {
    pub url: String,
    state: Arc<State>,
}

struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn json(value: &Value) -> Answer {
        Answer {
            status: 200,
            headers: vec![("content-type".into(), "application/json".into())],
            body: value.to_string().into_bytes(),
        }
    }
}

impl Proxy {
    pub async fn start(target: &str) -> Proxy {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            target: target.trim_end_matches('/').to_owned(),
            fault: Mutex::new(Fault::None),
            faulted: AtomicUsize::new(0),
            shapes: Mutex::default(),
            acknowledged: Mutex::default(),
            longer: Mutex::default(),
        });
        let shared = state.clone();
        tokio::spawn(async move {
            let client = reqwest::Client::new();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone(), client.clone()));
            }
        });
        Proxy { url, state }
    }

    pub fn set(&self, fault: Fault) {
        *self.state.fault.lock().unwrap() = fault;
    }

    /// Whatever is passed on takes so much longer.
    pub fn slow_down(&self, by: Duration) {
        *self.state.longer.lock().unwrap() = by;
    }

    /// How many requests met a fault since `forget_faulted`.
    pub fn faulted(&self) -> usize {
        self.state.faulted.load(Ordering::SeqCst)
    }

    pub fn forget_faulted(&self) {
        self.state.faulted.store(0, Ordering::SeqCst);
    }

    /// How often the same request of several decisions was marked, or answered at length, at most.
    pub fn most_alike(&self) -> usize {
        let shapes = self.state.shapes.lock().unwrap();
        shapes.values().filter(|(_, of)| *of > 1).map(|(times, _)| *times).max().unwrap_or(0)
    }

    /// The decisions that the server acknowledged since the last call.
    pub fn take_acknowledged(&self) -> HashSet<String> {
        std::mem::take(&mut self.state.acknowledged.lock().unwrap())
    }
}

impl State {
    fn fault(&self) -> Fault {
        self.fault.lock().unwrap().clone()
    }

    /// What the request meets.
    fn met(&self, request: &Request) -> Fault {
        let fault = match self.fault() {
            Fault::Marked(mark) if !String::from_utf8_lossy(&plain(request)).contains(&mark) => {
                Fault::None
            }
            Fault::Answer(..) if is_aside(request) => Fault::None,
            Fault::Wordy(_) if !request.path.ends_with("/_bulk") => Fault::None,
            fault => fault,
        };
        if fault != Fault::None {
            self.faulted.fetch_add(1, Ordering::SeqCst);
        }
        if matches!(fault, Fault::Marked(_) | Fault::Wordy(_)) {
            let mut hasher = DefaultHasher::new();
            hasher.write(&request.body);
            let decisions = ids(request).into_iter().collect::<HashSet<_>>().len();
            self.shapes.lock().unwrap().entry(hasher.finish()).or_insert((0, decisions)).0 += 1;
        }
        fault
    }
}

async fn serve(mut stream: TcpStream, state: Arc<State>, client: reqwest::Client) {
    while let Some(request) = read(&mut stream).await {
        let fault = state.met(&request);
        let answer = match &fault {
            Fault::Status(status, retry_after) => {
                let headers = if retry_after.is_empty() {
                    Vec::new()
                } else {
                    vec![("retry-after".to_owned(), (*retry_after).to_owned())]
                };
                Some(Answer { status: *status, headers, body: b"simulated".to_vec() })
            }
            Fault::Hang => {
                while state.fault() == Fault::Hang {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                None
            }
            Fault::Reset => None,
            Fault::TooLarge(limit) if request.body.len() > *limit => {
                Some(Answer { status: 413, headers: Vec::new(), body: Vec::new() })
            }
            Fault::Partial => partial(&state, &client, request).await,
            Fault::Answer(status, kind, body) => Some(Answer {
                status: *status,
                headers: match kind {
                    &"" => Vec::new(),
                    kind => vec![("content-type".to_owned(), (*kind).to_owned())],
                },
                body: body.as_bytes().to_vec(),
            }),
            Fault::Marked(_) => {
                Some(Answer { status: 500, headers: Vec::new(), body: b"simulated".to_vec() })
            }
            Fault::Wordy(more) => wordy(&state, &client, request, *more).await,
            Fault::None | Fault::Slow | Fault::TooLarge(_) => {
                forward(&state, &client, request).await
            }
        };
        let Some(answer) = answer else {
            // Closed without a word, and with a reset.
            let _ = stream.set_zero_linger();
            return;
        };
        let mut head =
            format!("HTTP/1.1 {} x\r\ncontent-length: {}\r\n", answer.status, answer.body.len());
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let bytes = [head.into_bytes(), answer.body].concat();
        if fault == Fault::Slow {
            for byte in bytes {
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        } else if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|l| l.split_once(": "))
        .map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()))
        .collect();
    let length: usize =
        headers.iter().find(|(n, _)| n == "content-length").map_or(0, |(_, v)| v.parse().unwrap());
    let mut body = bytes[end + 4..].to_vec();
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Request { method, path, headers, body })
}

/// Asks the real server; `None` if it can't be reached.
async fn forward(state: &State, client: &reqwest::Client, request: Request) -> Option<Answer> {
    let longer = *state.longer.lock().unwrap();
    tokio::time::sleep(longer).await;
    let mut out = client
        .request(request.method.parse().unwrap(), format!("{}{}", state.target, request.path));
    for (name, value) in &request.headers {
        if !matches!(name.as_str(), "host" | "content-length" | "connection" | "accept-encoding") {
            out = out.header(name, value);
        }
    }
    let response = out.body(request.body.clone()).send().await.ok()?;
    let status = response.status().as_u16();
    let kept = ["content-type", "retry-after"];
    let headers = kept
        .iter()
        .filter_map(|name| {
            Some(((*name).to_owned(), response.headers().get(*name)?.to_str().ok()?.to_owned()))
        })
        .collect();
    let body = response.bytes().await.ok()?.to_vec();
    if (200..300).contains(&status) {
        state.acknowledged.lock().unwrap().extend(ids(&request));
    }
    Some(Answer { status, headers, body })
}

fn plain(request: &Request) -> Vec<u8> {
    if request.headers.iter().any(|(n, v)| n == "content-encoding" && v == "gzip") {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&request.body[..]).read_to_end(&mut plain).unwrap();
        return plain;
    }
    if request.path.ends_with("/push") {
        return snap::raw::Decoder::new().decompress_vec(&request.body).unwrap_or_default();
    }
    request.body.clone()
}

/// The decision ids in a request, whatever its format.
fn ids(request: &Request) -> Vec<String> {
    let plain = plain(request);
    if request.path.ends_with("/v1/traces") {
        return ExportTraceServiceRequest::decode(&plain[..])
            .map(|r| spans(&r))
            .unwrap_or_default();
    }
    let text = String::from_utf8_lossy(&plain);
    // As it stands in JSON, and in JSON in JSON.
    let mark = "decision_id";
    text.match_indices(mark)
        .filter_map(|(at, _)| {
            let rest = text[at + mark.len()..].trim_start_matches(['\\', '"']);
            let rest = rest.strip_prefix(':')?.trim_start_matches(['\\', '"']);
            Some(rest[..rest.find(['\\', '"'])?].to_owned())
        })
        .collect()
}

/// An operation of CloudWatch that delivers nothing.
fn is_aside(request: &Request) -> bool {
    request.headers.iter().any(|(n, v)| n == "x-amz-target" && !v.ends_with("PutLogEvents"))
}

/// The server's bulk answer, with more in each item.
async fn wordy(
    state: &State,
    client: &reqwest::Client,
    request: Request,
    more: usize,
) -> Option<Answer> {
    let mut answer = forward(state, client, request).await?;
    if let Ok(mut told) = serde_json::from_slice::<Value>(&answer.body) {
        for item in told["items"].as_array_mut().into_iter().flatten() {
            item["create"]["more"] = "x".repeat(more).into();
        }
        answer.body = told.to_string().into_bytes();
    }
    Some(answer)
}

fn spans(request: &ExportTraceServiceRequest) -> Vec<String> {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let all = request.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans);
    all.filter_map(|span| {
        let attribute = span.attributes.iter().find(|a| a.key == "policy.decision.id")?;
        match attribute.value.as_ref()?.value.as_ref()? {
            Value::StringValue(id) => Some(id.clone()),
            _ => None,
        }
    })
    .collect()
}

async fn partial(state: &State, client: &reqwest::Client, request: Request) -> Option<Answer> {
    if request.path.ends_with("/_bulk") {
        return bulk(state, client, request).await;
    }
    if request.path.ends_with("/push") {
        // Loki's push is not atomic: taken, and the answer is an error.
        forward(state, client, request).await?;
        return Some(Answer { status: 500, headers: Vec::new(), body: b"simulated".to_vec() });
    }
    if request.path.ends_with("/v1/traces") {
        let decoded = ExportTraceServiceRequest::decode(&plain(&request)[..]).unwrap();
        if spans(&decoded).len() <= 100 {
            return forward(state, client, request).await;
        }
        let some =
            ExportTracePartialSuccess { rejected_spans: 1, error_message: "simulated".into() };
        let body = ExportTraceServiceResponse { partial_success: Some(some) }.encode_to_vec();
        return Some(Answer {
            status: 200,
            headers: vec![("content-type".into(), "application/x-protobuf".into())],
            body,
        });
    }
    if request.headers.iter().any(|(n, v)| n == "x-amz-target" && v.ends_with("PutLogEvents")) {
        let mut body: Value = serde_json::from_slice(&request.body).unwrap();
        let events = body["logEvents"].as_array_mut().unwrap();
        let half = events.len().div_ceil(2);
        events.truncate(half);
        let rest = Request { body: body.to_string().into_bytes(), ..request };
        let answer = forward(state, client, rest).await?;
        if answer.status != 200 {
            return Some(answer);
        }
        return Some(Answer::json(
            &json!({ "nextSequenceToken": "x", "rejectedLogEventsInfo": { "tooNewLogEventStartIndex": half } }),
        ));
    }
    forward(state, client, request).await
}

/// Every third document is answered with 429 and not passed on.
async fn bulk(state: &State, client: &reqwest::Client, request: Request) -> Option<Answer> {
    let plain = plain(&request);
    let lines: Vec<&[u8]> = plain.split(|b| *b == b'\n').filter(|l| !l.is_empty()).collect();
    let pairs: Vec<&[&[u8]]> = lines.chunks(2).collect();
    let is_kept = |i: usize| pairs.len() < 3 || !i.is_multiple_of(3);
    let mut body = Vec::new();
    for (_, pair) in pairs.iter().enumerate().filter(|(i, _)| is_kept(*i)) {
        for line in *pair {
            body.extend_from_slice(line);
            body.push(b'\n');
        }
    }
    let headers = request.headers.into_iter().filter(|(n, _)| n != "content-encoding").collect();
    let answer = forward(state, client, Request { body, headers, ..request }).await?;
    if answer.status != 200 {
        return Some(answer);
    }
    let mut told: Value = serde_json::from_slice(&answer.body).unwrap();
    let mut taken = told["items"].take().as_array().unwrap().clone().into_iter();
    let busy = json!({ "create": { "status": 429, "error": { "type": "es_rejected_execution_exception", "reason": "simulated" } } });
    let items: Vec<Value> = (0..pairs.len())
        .map(|i| if is_kept(i) { taken.next().unwrap() } else { busy.clone() })
        .collect();
    Some(Answer::json(&json!({ "took": 1, "errors": true, "items": items })))
}
