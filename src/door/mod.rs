//! The door: OPA can't write to Kafka, but it uploads its decision logs over HTTP. They are written to a source topic, and the answer is
//! 200 only once Kafka has acknowledged each of them; with any other answer OPA keeps them and uploads them again.
//!
//! `clients` says who may come in and how often, `body` reads what they send within bounds, `upload` finds the records in it, `status` turns
//! what OPA says of itself into metrics, `lost` tells the join what it lacks.

pub mod body;
pub mod clients;
pub mod config;
mod lost;
pub mod meters;
pub mod status;
pub mod upload;

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json};
use rdkafka::error::{KafkaError, KafkaResult};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::caught::{self, caught};
use crate::clock::now;
use crate::decision::reject::{Reason, Reject};
use crate::decision::time;
use crate::decision::{formats, record};
use crate::http::server::{self, Busy, Certificates, Line, TlsError};
use crate::log::config::{Compression, Kafka};
use crate::log::dead_letter::{cut_to_fit, dead_letter};
use crate::log::headers::Origin;
use crate::log::producer::{self, Acknowledged, Single};
use crate::log::{Outgoing, RecordWriter};
use crate::telemetry::{Health, Meters};
use body::{Bounds, Budget, Content, Unread};
use clients::Clients;
use config::DoorConfig;
use upload::Record;

#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    #[error("door.tls: {0}")]
    Tls(#[from] TlsError),
    #[error("door.listen: {listen} can't be listened on: {error}")]
    Listen { listen: String, error: std::io::Error },
    #[error("the producer failed for good and is made anew")]
    Broken,
}

/// Everything the door's part is made of.
pub struct Door {
    /// The pipeline's name.
    pub pipeline: String,
    pub config: DoorConfig,
    pub kafka: Kafka,
    pub compression: Compression,
    /// Where decisions are written to, and what can't be read.
    pub topic: String,
    pub rejects_topic: String,
    pub limits: formats::Limits,
    pub rules: record::Rules,
    /// What is rejected goes without its content: it may hold what is to be protected.
    pub withholds: bool,
    /// A join is to be told what was lost.
    pub joins: bool,
    pub clients: Arc<Clients>,
    pub meters: Arc<Meters>,
    pub counts: Arc<meters::Meters>,
    pub health: Arc<Health>,
    /// max.message.bytes of the topic that is written to and of the rejects topic, where the broker told.
    pub topic_limit: Option<usize>,
    pub rejects_limit: Option<usize>,
    /// The address, where it was taken before the part began: the first run has it.
    pub bound: Mutex<Option<std::net::TcpListener>>,
}

/// At most so much of one upload waits for Kafka's acknowledgement at once.
const WINDOW: usize = 1 << 20;
/// How often it is looked whether Kafka can be written to, and how long the answer may take.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOK_WAIT: Duration = Duration::from_secs(3);
/// What a record takes beside its bytes and its key.
const RECORD: usize = 64;

impl Door {
    /// Listens until told to stop, and then until what came in is answered.
    pub async fn run(self: &Arc<Door>, stop: &CancellationToken) -> Result<(), DoorError> {
        let limits = &self.config.limits;
        let tls = self.config.tls.as_ref().map(Certificates::new).transpose()?;
        let broken = stop.child_token();
        let at = self.open(&broken)?;
        let bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner).take();
        let listener = bound.map_or_else(|| listen(&self.config.listen), Ok)?;
        let failed = |error| DoorError::Listen { listen: self.config.listen.clone(), error };
        let listener = TcpListener::from_std(listener).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tracing::info!(pipeline = self.pipeline, %address, topic = self.topic, "the door is open");
        if let Some(note) = self.config.note(self.limits.record) {
            tracing::info!(pipeline = self.pipeline, "{note}");
        }
        if self.config.tokens.is_empty()
            && !address.ip().is_loopback()
            && self.config.tls.as_ref().is_none_or(|tls| tls.client_ca_file.is_none())
        {
            tracing::warn!(%address, "the door lets in anybody who can reach it; see door.tokens and door.tls.client_ca_file");
        }
        let served = server::Limits {
            connections: limits.connections,
            headers: limits.headers.0,
            drain: limits.kafka.0,
        };
        tokio::select! {
            () = server::serve(listener, tls.map(Arc::new), served, at.router(), broken.clone()) => {}
            () = at.look() => {}
        }
        if broken.is_cancelled() && !stop.is_cancelled() { Err(DoorError::Broken) } else { Ok(()) }
    }

    fn open(self: &Arc<Door>, broken: &CancellationToken) -> Result<Arc<At>, DoorError> {
        let limits = &self.config.limits;
        let name = format!("{}-door", self.pipeline);
        Ok(Arc::new(At {
            door: self.clone(),
            producer: Acknowledged::new(
                &self.kafka,
                &name,
                self.compression,
                self.topic_limit,
                limits.kafka.0,
                limits.queue_bytes.0,
            )?,
            rejects: producer::single(&self.kafka, &format!("{name}-rejects"), self.compression)?,
            requests: Arc::new(Semaphore::new(limits.requests)),
            budget: Budget::new(
                limits.bytes_in_flight.0,
                self.meters.held.with_label_values(&["door"]),
            ),
            probe: Arc::new(Semaphore::new(1)),
            broken: broken.clone(),
            refused: Mutex::default(),
            panicked: AtomicBool::default(),
        }))
    }
}

/// Takes an address, before anybody answers there.
pub fn listen(address: &str) -> Result<std::net::TcpListener, DoorError> {
    let failed = |error| DoorError::Listen { listen: address.to_owned(), error };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Says what is taken, and where.
async fn nothing_here(State(at): State<Arc<At>>, mut request: Request) -> Response {
    body::discard(request.body_mut()).await;
    let paths = at.door.config.paths.join(", ");
    let said = format!(
        "nothing is taken here; OPA posts its decision logs to {paths} (door.paths; in OPA services[_].url and decision_logs.resource_path), its status to /status, and OTLP logs go to /v1/logs\n"
    );
    (StatusCode::NOT_FOUND, said).into_response()
}

/// A door that is open.
struct At {
    door: Arc<Door>,
    producer: Acknowledged,
    rejects: Single,
    requests: Arc<Semaphore>,
    budget: Budget,
    /// While Kafka acknowledges nothing, one at a time tries.
    probe: Arc<Semaphore>,
    broken: CancellationToken,
    /// When Kafka did not acknowledge something last.
    refused: Mutex<Option<Instant>>,
    /// It was said that docket panicked at something.
    panicked: AtomicBool,
}

/// Why a request gets no 200.
#[derive(Debug)]
pub struct Refused {
    pub status: StatusCode,
    pub why: Cow<'static, str>,
    /// Seconds.
    pub retry_after: Option<u64>,
}

impl Refused {
    pub fn new(status: StatusCode, why: impl Into<Cow<'static, str>>) -> Refused {
        Refused { status, why: why.into(), retry_after: None }
    }

    /// The client is to come again.
    pub fn later(status: StatusCode, why: impl Into<Cow<'static, str>>, seconds: u64) -> Refused {
        Refused { status, why: why.into(), retry_after: Some(seconds.max(1)) }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response =
            (self.status, Json(json!({ "code": self.status.as_u16(), "message": self.why })))
                .into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Who a request comes from, and on which connection.
#[derive(Clone)]
struct From {
    client: Arc<str>,
    line: Line,
}

impl At {
    fn router(self: &Arc<At>) -> Router {
        let mut inside = Router::new();
        for path in &self.door.config.paths {
            inside =
                inside.route(path, post(logs)).route(&format!("{path}/{{*partition}}"), post(logs));
        }
        inside = inside
            .route("/v1/logs", post(otlp))
            .route("/status", post(opa_status))
            .route("/status/{*partition}", post(opa_status))
            .fallback(nothing_here);
        inside
            .layer(middleware::from_fn_with_state(self.clone(), guard))
            .route("/healthz", get(|| async { "ok\n" }))
            .with_state(self.clone())
    }

    fn ready(&self, state: Result<(), String>) {
        self.door.health.serve(&format!("{}/door", self.door.pipeline), state);
    }

    /// Looks whether Kafka can be written to, also while nobody comes: a door that is not ready gets nothing to try with.
    async fn look(self: &Arc<At>) {
        loop {
            let at = self.clone();
            let asked = tokio::task::spawn_blocking(move || {
                at.producer.reachable(&at.door.topic, LOOK_WAIT)
            });
            let recently = || {
                let refused = *self.refused.lock().unwrap_or_else(PoisonError::into_inner);
                refused.is_some_and(|at| at.elapsed() < LOOK_EVERY * 2)
            };
            match asked.await {
                // What is not acknowledged says more than that Kafka answers.
                Ok(Ok(())) if recently() && self.producer.is_failing() => {}
                Ok(Ok(())) => self.ready(Ok(())),
                Ok(Err(error)) => self.ready(Err(format!("Kafka: {error}"))),
                Err(_) => {}
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn bounds(&self) -> Bounds {
        let limits = &self.door.config.limits;
        Bounds { wire: limits.body_bytes.0, plain: self.door.limits.record, time: limits.body.0 }
    }

    /// Lets a request go on, if there is room for it and what it needs is there.
    fn admit(&self, for_kafka: bool) -> Result<Admitted, Refused> {
        let busy = |_| {
            Refused::later(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many requests at once (door.limits.requests)",
                1,
            )
        };
        let request = self.requests.clone().try_acquire_owned().map_err(busy)?;
        let probe = if for_kafka { self.probe()? } else { None };
        Ok(Admitted { _request: request, _probe: probe })
    }

    /// Leave to try, while Kafka acknowledges nothing.
    fn probe(&self) -> Result<Option<OwnedSemaphorePermit>, Refused> {
        if !self.producer.is_failing() {
            return Ok(None);
        }
        let away = |_| Refused::later(StatusCode::SERVICE_UNAVAILABLE, "Kafka is away", 2);
        self.probe.clone().try_acquire_owned().map(Some).map_err(away)
    }

    /// Reads a body; from then on its connection is busy. The inner error is one of what is in it.
    async fn read(
        &self,
        from: &From,
        request: Request,
        bounds: &Bounds,
    ) -> Result<(Result<Content, Unread>, Busy), Refused> {
        let (parts, body) = request.into_parts();
        let read = body::read(&parts.headers, body, bounds, &self.budget).await;
        let busy = from.line.busy();
        let read = read?;
        let wire = read.as_ref().map_or_else(|unread| unread.bytes.len(), |content| content.wire);
        let counts = &self.door.counts;
        counts.bytes.with_label_values(&[counts.client(&from.client)]).inc_by(wire as u64);
        self.door.clients.pay(&from.client, wire)?;
        Ok((read, busy))
    }

    /// The same of a body that goes to rejects if it can't be read.
    async fn content(&self, from: &From, request: Request) -> Result<(Content, Busy), Refused> {
        match self.read(from, request, &self.bounds()).await? {
            (Ok(content), busy) => Ok((content, busy)),
            (Err(unread), _busy) => Err(self.malformed(&unread.reject, &unread.bytes).await),
        }
    }

    /// Takes an upload apart. One at which docket itself panics goes on as a whole, for intake to try and to reject: OPA would bring it for ever.
    fn apart<'a>(
        &self,
        kind: &str,
        text: &'a [u8],
        read: impl FnOnce(&'a [u8]) -> Result<Vec<Record<'a>>, Reject>,
    ) -> Result<Vec<Record<'a>>, Reject> {
        let whole = || Record { key: None, bytes: text.into(), panicked: true };
        let records = caught(|| read(text)).unwrap_or_else(|_| Ok(vec![whole()]))?;
        self.panics(kind, records.iter().filter(|record| record.panicked).count());
        Ok(records)
    }

    /// What a panic says may quote what it happened at, so it is not told.
    fn panics(&self, kind: &str, count: usize) {
        self.door.counts.panics.with_label_values(&[kind]).inc_by(count as u64);
        if count > 0 && !self.panicked.swap(true, Ordering::Relaxed) {
            tracing::error!(
                pipeline = self.door.pipeline,
                kind,
                "docket panicked at what came to the door: a bug; further panics are counted only (docket_door_panics_total)"
            );
        }
    }

    /// What can't be read goes to rejects as a whole; the client is told why.
    async fn malformed(&self, reject: &Reject, bytes: &[u8]) -> Refused {
        // It would come again and again, and be in rejects each time.
        if reject.reason == Reason::TooLarge {
            return Refused::new(StatusCode::PAYLOAD_TOO_LARGE, reject.to_string());
        }
        match self.reject(reject, bytes, 0).await {
            Ok(()) => Refused::new(StatusCode::BAD_REQUEST, reject.to_string()),
            Err(refused) => refused,
        }
    }

    /// Writes records to the topic; those that are too large for it to rejects.
    async fn write(&self, client: &str, records: &[Record<'_>]) -> Result<(), Refused> {
        let each = records.iter().map(|record| (record.key.clone(), record.bytes.as_ref()));
        let too_large = self.kafka(self.producer.write(&self.door.topic, each, WINDOW).await)?;
        let limit = self.door.topic_limit.map_or_else(
            || " (max.message.bytes)".to_owned(),
            |n| format!(", which takes {n} bytes (max.message.bytes)"),
        );
        for number in &too_large {
            let reject = Reject::new(
                Reason::TooLarge,
                format!(
                    "a decision of {client}, of {} bytes, outgrows the topic {}{limit}",
                    records[*number].bytes.len(),
                    self.door.topic
                ),
            );
            self.reject(&reject, &records[*number].bytes, *number).await?;
        }
        self.door
            .counts
            .decisions
            .with_label_values(&[self.door.counts.client(client)])
            .inc_by((records.len() - too_large.len()) as u64);
        Ok(())
    }

    async fn reject(&self, reject: &Reject, bytes: &[u8], element: usize) -> Result<(), Refused> {
        self.lost("docket", Duration::ZERO).await?;
        // It has no place in Kafka.
        let origin = Origin { topic: &self.door.topic, partition: -1, offset: -1, element };
        // What is protected does not get out by the back door.
        let cut = if self.door.withholds {
            Some(0)
        } else {
            cut_to_fit(bytes.len(), self.door.rejects_limit)
        };
        let letter = dead_letter("door", bytes, reject, &origin, &time::format(now()), cut);
        let record = Outgoing {
            topic: &self.door.rejects_topic,
            key: None,
            payload: &letter.value,
            headers: letter.headers,
        };
        self.kafka(self.rejects.write(record).await)?;
        self.door.meters.rejects.with_label_values(&["door", reject.reason.as_str()]).inc();
        Ok(())
    }

    /// What Kafka said, as an answer.
    fn kafka<T>(&self, result: KafkaResult<T>) -> Result<T, Refused> {
        match result {
            Ok(value) => {
                self.ready(Ok(()));
                Ok(value)
            }
            Err(error) => {
                self.ready(Err(format!("Kafka: {error}")));
                *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                if self.producer.is_broken() {
                    self.broken.cancel();
                }
                Err(Refused::later(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "Kafka did not acknowledge it",
                    2,
                ))
            }
        }
    }
}

struct Admitted {
    _request: OwnedSemaphorePermit,
    _probe: Option<OwnedSemaphorePermit>,
}

/// Who is it, and may they? Counts what becomes of each request.
async fn guard(
    State(at): State<Arc<At>>,
    Extension(line): Extension<Line>,
    mut request: Request,
    next: Next,
) -> Response {
    let kind = match request.uri().path() {
        "/v1/logs" => "otlp",
        path if path == "/status" || path.starts_with("/status/") => "status",
        _ => "logs",
    };
    let began = std::time::Instant::now();
    let admitted = at
        .door
        .clients
        .admit(request.headers(), line.peer.ip())
        .and_then(|client| Ok((client, at.admit(kind != "status")?)));
    let response = match admitted {
        Ok((client, _admitted)) => {
            request.extensions_mut().insert(From { client, line });
            caught::within(next.run(request)).await.unwrap_or_else(|_| {
                at.panics(kind, 1);
                Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "docket itself panicked at it")
                    .into_response()
            })
        }
        Err(refused) => {
            body::discard(request.body_mut()).await;
            refused.into_response()
        }
    };
    let counts = &at.door.counts;
    counts.requests.with_label_values(&[kind, response.status().as_str()]).inc();
    counts.seconds.with_label_values(&[kind]).observe(began.elapsed().as_secs_f64());
    response
}

/// POST /logs: what OPA uploads.
async fn logs(
    State(at): State<Arc<At>>,
    Extension(from): Extension<From>,
    request: Request,
) -> Result<Response, Refused> {
    let (content, _busy) = at.content(&from, request).await?;
    let (trace, limits) = (&at.door.rules.trace, &at.door.limits);
    let apart = at.apart("logs", content.text(), |text| upload::decisions(text, trace, limits));
    let records = match apart {
        Ok(records) => records,
        Err(reject) => return Err(at.malformed(&reject, content.text()).await),
    };
    // Small elements take more than their bytes.
    let beside = records.iter().map(|r| RECORD + r.key.as_ref().map_or(0, String::len)).sum();
    let _held = at.budget.take(beside, content.held())?;
    at.write(&from.client, &records).await?;
    Ok(Json(json!({})).into_response())
}

/// POST /v1/logs: OTLP/HTTP (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>), a decision in the body of each log record.
async fn otlp(
    State(at): State<Arc<At>>,
    Extension(from): Extension<From>,
    request: Request,
) -> Result<Response, Refused> {
    let kind = request.headers().get(header::CONTENT_TYPE).map(|value| {
        value.as_bytes().split(|b| *b == b';').next().unwrap_or_default().trim_ascii()
    });
    let json = match kind {
        Some(b"application/json") => true,
        Some(b"application/x-protobuf") => false,
        _ => {
            return Err(Refused::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "OTLP is application/x-protobuf or application/json",
            ));
        }
    };
    let (content, _busy) = at.content(&from, request).await?;
    let (trace, limits) = (&at.door.rules.trace, &at.door.limits);
    let apart = at.apart("otlp", content.text(), |text| upload::otlp(text, json, trace, limits));
    let records = match apart {
        Ok(records) => records,
        Err(reject) => return Err(at.malformed(&reject, content.text()).await),
    };
    // It may be larger taken apart than it was.
    let apart = records.iter().map(|r| RECORD + r.bytes.len()).sum();
    let _held = at.budget.take(apart, content.held())?;
    at.write(&from.client, &records).await?;
    // An ExportLogsServiceResponse without a partial success.
    Ok(if json {
        Json(json!({})).into_response()
    } else {
        ([(header::CONTENT_TYPE, "application/x-protobuf")], Body::empty()).into_response()
    })
}

/// POST /status: what OPA says of itself.
async fn opa_status(
    State(at): State<Arc<At>>,
    Extension(from): Extension<From>,
    request: Request,
) -> Result<Response, Refused> {
    let wrong = |detail: String| Refused::new(StatusCode::BAD_REQUEST, detail);
    let bounds = Bounds { wire: status::BODY, plain: status::BODY, ..at.bounds() };
    let (read, _busy) = at.read(&from, request, &bounds).await?;
    let content = read.map_err(|unread| wrong(unread.reject.to_string()))?;
    let service = &at.door.rules.service;
    let status =
        status::Status::parse(content.text(), &service.name_label, &service.instance_label)
            .map_err(wrong)?;
    at.lost_by(&status).await?;
    at.door.counts.status.tell(status, std::time::Instant::now());
    Ok(Json(json!({})).into_response())
}

#[cfg(test)]
mod tests;
