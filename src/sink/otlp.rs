//! OTLP (opentelemetry-proto 1.x): each decision a span in its request's trace, or a log record, or both.
//! gRPC and HTTP with protobuf. <https://opentelemetry.io/docs/specs/otlp/>
//!
//! The SDK's exporter is for a program's own spans: it carries one resource a batch and hides partial
//! success. Here a batch holds the decisions of many OPAs, and each must be accounted for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, BufMut, Bytes};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span, Status, status::StatusCode,
};
use prost::Message;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::http::{self, Client, HttpError};
use super::{Cause, Outcome, Refusal, Retry, Sink};
use crate::decision::record::Record;
use crate::decision::verdict::Verdict;
use crate::decision::{ids, json};
use crate::pipeline::model::{self, HttpCompression, OtlpProtocol, Signal};

/// The attributes of a decision's span. OpenTelemetry has no convention for authorization yet
/// (semantic-conventions issue 4022), so all names stand here.
pub mod names {
    pub const ID: &str = "policy.decision.id";
    pub const PATH: &str = "policy.path";
    pub const OUTCOME: &str = "policy.decision.outcome";
    pub const REASONS: &str = "policy.decision.reasons";
    pub const TRACE_FROM: &str = "policy.decision.trace_from";
    pub const ENGINE: &str = "policy.engine.name";
    pub const ENGINE_VERSION: &str = "policy.engine.version";
    pub const RULE: &str = "policy.rule";
    pub const LABEL: &str = "policy.rule.label.";
    pub const BUNDLE: &str = "policy.bundle.";
    pub const TIMER: &str = "policy.timer.";
    pub const SUBJECT: &str = "policy.subject";
    pub const ACTION: &str = "policy.action";
    pub const RESOURCE: &str = "policy.resource";
    pub const SCOPE: &str = "docket";

    /// What a span or a log record is about.
    pub fn event(verdict: super::Verdict) -> &'static str {
        if verdict == super::Verdict::Finding { "policy.finding" } else { "policy.decision" }
    }
}

/// At most so many events of evaluated rules a span.
const MAX_RULE_EVENTS: usize = 32;

fn text(key: impl Into<String>, value: impl Into<String>) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.into())) }),
        ..Default::default()
    }
}

fn integer(key: impl Into<String>, value: u64) -> KeyValue {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(Value::IntValue(value)) }),
        ..Default::default()
    }
}

fn texts(key: &str, raw: &str) -> KeyValue {
    let values = json::elements(raw)
        .filter_map(json::as_str)
        .map(|s| AnyValue { value: Some(Value::StringValue(s.into_owned())) });
    KeyValue {
        key: key.into(),
        value: Some(AnyValue {
            value: Some(Value::ArrayValue(ArrayValue { values: values.collect() })),
        }),
        ..Default::default()
    }
}

fn attributes(record: &Record<'_>) -> Vec<KeyValue> {
    let mut all = vec![
        text(names::ID, &*record.decision_id),
        text(names::PATH, &*record.policy),
        text(names::OUTCOME, record.verdict.as_str()),
        text(names::ENGINE, &*record.engine),
        text(names::TRACE_FROM, &*record.trace_from),
    ];
    if record.reasons != "[]" {
        all.push(texts(names::REASONS, record.reasons));
    }
    for (name, value) in [
        (names::SUBJECT, &record.subject),
        (names::ACTION, &record.action),
        (names::RESOURCE, &record.resource),
    ] {
        if !value.is_empty() {
            all.push(text(name, &**value));
        }
    }
    if let Some(version) = record.label("version") {
        all.push(text(names::ENGINE_VERSION, version));
    }
    for (bundle, revision) in record.revisions() {
        all.push(text(format!("{}{bundle}.revision", names::BUNDLE), revision));
    }
    for metric in record.get("metrics").into_iter().flat_map(json::members) {
        if let (Some(name), Some(value)) =
            (metric.name.strip_prefix("timer_"), json::as_u64(metric.value))
        {
            all.push(integer(format!("{}{name}", names::TIMER), value));
        }
    }
    all
}

/// Start and end of a decision: OPA logs after it evaluated.
fn times(record: &Record<'_>) -> (u64, u64) {
    let end = u64::try_from(record.timestamp).unwrap_or_default();
    (end.saturating_sub(record.duration.unwrap_or_default()), end)
}

/// A decision as a span: a child of the span that asked.
pub fn span(record: &Record<'_>) -> Span {
    let (start, end) = times(record);
    let events =
        record.get("rule_labels").into_iter().flat_map(json::elements).take(MAX_RULE_EVENTS).map(
            |labels| {
                let attributes = json::members(labels).map(|m| {
                    text(
                        format!("{}{}", names::LABEL, m.key()),
                        json::as_str(m.value).unwrap_or(m.value.into()),
                    )
                });
                Event {
                    time_unix_nano: end,
                    name: names::RULE.into(),
                    attributes: attributes.collect(),
                    dropped_attributes_count: 0,
                }
            },
        );
    let links = record.links.into_iter().flat_map(json::elements).filter_map(|link| {
        let id = |name: &str| json::get(link, name).and_then(json::as_str);
        Some(Link {
            trace_id: ids::trace_id(&id("trace_id")?)?.to_bytes().to_vec(),
            span_id: id("span_id")
                .and_then(|s| ids::span_id(&s))
                .map(|s| s.to_bytes().to_vec())
                .unwrap_or_default(),
            ..Default::default()
        })
    });
    // A denial is a correct answer; only an evaluation that failed is an error.
    let status = match record.verdict {
        Verdict::Error => Status {
            code: StatusCode::Error as i32,
            message: json::elements(record.reasons)
                .next()
                .and_then(json::as_str)
                .unwrap_or_default()
                .into_owned(),
        },
        _ => Status::default(),
    };
    Span {
        trace_id: record.trace_id.to_bytes().to_vec(),
        span_id: record.span_id.to_bytes().to_vec(),
        parent_span_id: record.parent_span_id.map(|s| s.to_bytes().to_vec()).unwrap_or_default(),
        name: format!("{} {}", names::event(record.verdict), record.policy),
        kind: SpanKind::Internal as i32,
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        attributes: attributes(record),
        events: events.collect(),
        links: links.collect(),
        status: Some(status),
        ..Default::default()
    }
}

/// A decision as a log record: the docket record is the body, with its trace context.
pub fn log_record(record: &Record<'_>) -> LogRecord {
    let (severity, word) = match record.verdict {
        Verdict::Allow | Verdict::Undefined => (SeverityNumber::Info, "INFO"),
        Verdict::Deny | Verdict::Finding => (SeverityNumber::Warn, "WARN"),
        Verdict::Error => (SeverityNumber::Error, "ERROR"),
    };
    let time = u64::try_from(record.timestamp).unwrap_or_default();
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        severity_number: severity as i32,
        severity_text: word.into(),
        event_name: names::event(record.verdict).into(),
        body: Some(AnyValue { value: Some(Value::StringValue(record.raw.to_owned())) }),
        attributes: attributes(record),
        trace_id: record.trace_id.to_bytes().to_vec(),
        span_id: record.span_id.to_bytes().to_vec(),
        ..Default::default()
    }
}

/// Groups records by the OPA that decided: service and instance.
fn by_resource<'r, 'a, T>(
    batch: &'r [Record<'a>],
    make: impl Fn(&'r Record<'a>) -> T,
) -> Vec<(Resource, Vec<T>)> {
    let mut index: HashMap<(&str, Option<&str>), usize> = HashMap::new();
    let mut groups: Vec<(Resource, Vec<T>)> = Vec::new();
    for record in batch {
        let at = *index.entry((&record.service, record.instance.as_deref())).or_insert_with(|| {
            let mut attributes = vec![text("service.name", &*record.service)];
            if let Some(instance) = &record.instance {
                attributes.push(text("service.instance.id", &**instance));
            }
            groups.push((Resource { attributes, ..Default::default() }, Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(make(record));
    }
    groups
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: names::SCOPE.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..Default::default()
    })
}

pub fn traces_request(batch: &[Record<'_>]) -> ExportTraceServiceRequest {
    let groups = by_resource(batch, span).into_iter().map(|(resource, spans)| ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![ScopeSpans { scope: scope(), spans, schema_url: String::new() }],
        schema_url: String::new(),
    });
    ExportTraceServiceRequest { resource_spans: groups.collect() }
}

pub fn logs_request(batch: &[Record<'_>]) -> ExportLogsServiceRequest {
    let groups =
        by_resource(batch, log_record).into_iter().map(|(resource, log_records)| ResourceLogs {
            resource: Some(resource),
            scope_logs: vec![ScopeLogs { scope: scope(), log_records, schema_url: String::new() }],
            schema_url: String::new(),
        });
    ExportLogsServiceRequest { resource_logs: groups.collect() }
}

enum Transport {
    Http { client: Client, base: String },
    Grpc { channel: Channel, headers: reqwest::header::HeaderMap },
}

pub struct Otlp {
    signals: Vec<Signal>,
    transport: Transport,
    compression: HttpCompression,
    timeout: std::time::Duration,
}

impl Otlp {
    pub fn new(config: &model::Otlp) -> Result<Otlp, HttpError> {
        let timeout = config.delivery.timeout.0;
        let transport = match config.protocol {
            OtlpProtocol::Http => Transport::Http {
                client: Client::new(&config.tls, config.auth.as_ref(), &config.headers, timeout)?,
                base: config.endpoint.trim_end_matches('/').to_owned(),
            },
            OtlpProtocol::Grpc => Transport::Grpc {
                channel: channel(config)?,
                headers: http::headers(config.auth.as_ref(), &config.headers)?,
            },
        };
        Ok(Otlp {
            signals: config.signals.clone(),
            transport,
            compression: config.compression,
            timeout,
        })
    }

    async fn export(&self, signal: Signal, body: &Bytes) -> Outcome {
        let answer = match &self.transport {
            Transport::Http { client, base } => {
                let path = match signal {
                    Signal::Traces => "/v1/traces",
                    Signal::Logs => "/v1/logs",
                };
                let encoding = (self.compression == HttpCompression::Gzip).then_some("gzip");
                client
                    .post(
                        &format!("{base}{path}"),
                        "application/x-protobuf",
                        encoding,
                        body.clone(),
                    )
                    .await
            }
            Transport::Grpc { channel, headers } => {
                self.call(channel.clone(), headers, signal, body).await
            }
        };
        match answer {
            Ok(answer) => partial_success(signal, &answer),
            Err(outcome) => outcome,
        }
    }

    async fn call(
        &self,
        channel: Channel,
        headers: &reqwest::header::HeaderMap,
        signal: Signal,
        body: &Bytes,
    ) -> Result<Vec<u8>, Outcome> {
        let path = match signal {
            Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        };
        let mut client = tonic::client::Grpc::new(channel);
        if self.compression == HttpCompression::Gzip {
            client = client
                .send_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Gzip);
        }
        let mut request = tonic::Request::from_parts(
            tonic::metadata::MetadataMap::from_headers(headers.clone()),
            tonic::Extensions::default(),
            body.clone(),
        );
        request.set_timeout(self.timeout);
        let call = async {
            client.ready().await.map_err(|e| tonic::Status::unavailable(innermost(&e)))?;
            client
                .unary(request, tonic::codegen::http::uri::PathAndQuery::from_static(path), Raw)
                .await
        };
        match tokio::time::timeout(self.timeout, call).await {
            Err(_) => Err(Outcome::Retry(Retry {
                cause: Cause::Timeout,
                detail: "no answer in time".into(),
                after: None,
            })),
            Ok(Err(status)) => Err(meaning(&status)),
            Ok(Ok(response)) => Ok(response.into_inner().to_vec()),
        }
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn channel(config: &model::Otlp) -> Result<Channel, HttpError> {
    let invalid = |e: tonic::transport::Error| {
        HttpError::Other(format!("the endpoint or its TLS can't be used: {}", innermost(&e)))
    };
    let mut endpoint = Endpoint::from_shared(config.endpoint.clone())
        .map_err(invalid)?
        .user_agent(concat!("docket/", env!("CARGO_PKG_VERSION")))
        .map_err(invalid)?
        .connect_timeout(config.delivery.timeout.0.min(std::time::Duration::from_secs(10)))
        .http2_keep_alive_interval(std::time::Duration::from_secs(30))
        .keep_alive_while_idle(true);
    if config.endpoint.starts_with("https://") {
        if config.tls.insecure_skip_verify {
            return Err(HttpError::Other(
                "tls.insecure_skip_verify is not there for OTLP over gRPC; name the authority in tls.ca_file, or use protocol: http".into(),
            ));
        }
        let mut tls = ClientTlsConfig::new();
        tls = match &config.tls.ca_file {
            Some(path) => tls.ca_certificate(Certificate::from_pem(http::read(path)?)),
            None => tls.with_native_roots(),
        };
        tls = match (&config.tls.cert_file, &config.tls.key_file) {
            (None, None) => tls,
            (Some(cert), Some(key)) => {
                tls.identity(Identity::from_pem(http::read(cert)?, http::read(key)?))
            }
            _ => return Err(HttpError::HalfIdentity),
        };
        endpoint = endpoint.tls_config(tls).map_err(invalid)?;
    }
    Ok(endpoint.connect_lazy())
}

/// What a gRPC status means, by the OTLP specification's table; refused credentials are an outage, too.
fn meaning(status: &tonic::Status) -> Outcome {
    use tonic::Code::*;
    // A message over the receiver's limit is a matter of size, not of load.
    let too_large = matches!(status.code(), ResourceExhausted | OutOfRange)
        && status.message().contains("larger than max");
    let cause = match status.code() {
        _ if too_large => None,
        InvalidArgument | FailedPrecondition | AlreadyExists | Ok => None,
        Unauthenticated | PermissionDenied => Some(Cause::Credentials),
        ResourceExhausted => Some(Cause::Throttled),
        DeadlineExceeded => Some(Cause::Timeout),
        Unavailable | Cancelled => Some(Cause::Connection),
        Unimplemented | NotFound => Some(Cause::Misconfigured),
        Aborted | OutOfRange | DataLoss | Internal | Unknown => Some(Cause::Server),
    };
    match cause {
        None => Outcome::Refused(Refusal {
            status: status.code() as u16,
            reason: status.message().chars().take(1000).collect(),
        }),
        Some(cause) => Outcome::Retry(Retry {
            cause,
            detail: format!("{:?}: {}", status.code(), status.message()),
            after: retry_info(status),
        }),
    }
}

/// `google.rpc.RetryInfo` in the status' details says when to come back.
fn retry_info(status: &tonic::Status) -> Option<std::time::Duration> {
    #[derive(prost::Message)]
    struct RpcStatus {
        #[prost(message, repeated, tag = "3")]
        details: Vec<prost_types::Any>,
    }
    #[derive(prost::Message)]
    struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        retry_delay: Option<prost_types::Duration>,
    }
    let details = RpcStatus::decode(status.details()).ok()?.details;
    let info = details.iter().find(|any| any.type_url.ends_with("google.rpc.RetryInfo"))?;
    RetryInfo::decode(&*info.value).ok()?.retry_delay?.try_into().ok()
}

/// A receiver may take a request and refuse some of its records, without saying which. The batch is then
/// bisected as if it were refused; a span that was taken already keeps its id.
fn partial_success(signal: Signal, answer: &[u8]) -> Outcome {
    let refused = match signal {
        Signal::Traces => ExportTraceServiceResponse::decode(answer)
            .ok()
            .and_then(|r| r.partial_success)
            .map(|p| (p.rejected_spans, p.error_message)),
        Signal::Logs => ExportLogsServiceResponse::decode(answer)
            .ok()
            .and_then(|r| r.partial_success)
            .map(|p| (p.rejected_log_records, p.error_message)),
    };
    match refused {
        Some((count, reason)) if count > 0 => {
            Outcome::Refused(Refusal { status: 200, reason: format!("{count} refused: {reason}") })
        }
        _ => Outcome::Delivered,
    }
}

/// The request of one signal.
pub struct Request {
    signal: Signal,
    bytes: Bytes,
    /// It was acknowledged: when the other signal's is sent again, this is not.
    taken: AtomicBool,
}

impl Sink for Otlp {
    type Body = Vec<Request>;

    fn encode(&self, batch: &[Record<'_>]) -> Self::Body {
        let encode = |signal: &Signal| {
            let plain = match signal {
                Signal::Traces => traces_request(batch).encode_to_vec(),
                Signal::Logs => logs_request(batch).encode_to_vec(),
            };
            let by_us = matches!(self.transport, Transport::Http { .. })
                && self.compression == HttpCompression::Gzip;
            Request {
                signal: *signal,
                bytes: if by_us { crate::gzip::gzip(&plain).into() } else { plain.into() },
                taken: AtomicBool::new(false),
            }
        };
        self.signals.iter().map(encode).collect()
    }

    fn size(body: &Self::Body) -> usize {
        body.iter().map(|request| request.bytes.len()).sum()
    }

    async fn send(&self, body: &Self::Body) -> Outcome {
        for request in body {
            if request.taken.load(Ordering::Relaxed) {
                continue;
            }
            match self.export(request.signal, &request.bytes).await {
                Outcome::Delivered => request.taken.store(true, Ordering::Relaxed),
                other => return other,
            }
        }
        Outcome::Delivered
    }
}

/// Passes messages that are encoded already.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = tonic::Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        out.reserve(item.len());
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, tonic::Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::record::{self, Rules};

    fn with_record(doc: &str, check: impl FnOnce(Record<'_>)) {
        let mut out = Vec::new();
        record::write(
            &crate::decision::event::Event::parse(doc.as_bytes()).unwrap(),
            &[],
            None,
            &Rules::default(),
            &mut out,
        );
        check(Record::parse(&out).unwrap());
    }

    #[test]
    fn a_decision_is_a_span_below_the_one_that_asked() {
        let doc = r#"{"labels":{"app":"orders","id":"i-1","version":"1.22.2"},"decision_id":"d1","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7",
            "bundles":{"authz":{"revision":"r7"}},"path":"http/authz/decision","result":{"allow":false,"reason":"frozen"},"rule_labels":[{"severity":"low"}],
            "input":{"headers":{"traceparent":"00-ffffffffffffffffffffffffffffff01-00f067aa0ba902b7-01"}},
            "timestamp":"2026-11-24T12:48:50.5Z","metrics":{"timer_server_handler_ns":500000000,"counter_x":1}}"#;
        with_record(doc, |record| {
            let request = traces_request(&[record]);
            let resource = request.resource_spans[0].resource.as_ref().unwrap();
            insta::assert_debug_snapshot!(
                "resource",
                resource
                    .attributes
                    .iter()
                    .map(|kv| (kv.key.as_str(), kv.value.clone().unwrap().value.unwrap()))
                    .collect::<Vec<_>>()
            );
            insta::assert_debug_snapshot!(
                "span",
                request.resource_spans[0].scope_spans[0].spans[0]
            );
        });
    }

    #[test]
    fn only_a_failed_evaluation_is_an_error() {
        let doc = |tail: &str| {
            format!(r#"{{"decision_id":"d1","timestamp":"2026-11-24T12:48:50Z",{tail}}}"#)
        };
        let code = |tail: &str| {
            let mut code = 0;
            with_record(&doc(tail), |record| code = span(&record).status.unwrap().code);
            code
        };
        assert_eq!(code(r#""result":false"#), StatusCode::Unset as i32);
        assert_eq!(code(r#""error":{"message":"boom"}"#), StatusCode::Error as i32);
    }

    #[test]
    fn grpc_statuses_say_outage_or_refusal() {
        let cause = |code, message: &str| match meaning(&tonic::Status::new(code, message)) {
            Outcome::Retry(retry) => retry.cause.as_str(),
            _ => "refused",
        };
        assert_eq!(cause(tonic::Code::Unavailable, ""), "connection");
        assert_eq!(cause(tonic::Code::Unauthenticated, ""), "credentials");
        assert_eq!(cause(tonic::Code::ResourceExhausted, "slow down"), "throttled");
        assert_eq!(
            cause(
                tonic::Code::ResourceExhausted,
                "grpc: received message larger than max (5 vs. 4)"
            ),
            "refused"
        );
        assert_eq!(cause(tonic::Code::InvalidArgument, ""), "refused");
    }

    #[test]
    fn a_partial_success_is_not_taken_for_success() {
        use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
        let answer = |rejected_spans| {
            ExportTraceServiceResponse {
                partial_success: Some(ExportTracePartialSuccess {
                    rejected_spans,
                    error_message: "x".into(),
                }),
            }
            .encode_to_vec()
        };
        assert!(matches!(partial_success(Signal::Traces, &answer(2)), Outcome::Refused(_)));
        assert_eq!(partial_success(Signal::Traces, &answer(0)), Outcome::Delivered);
        assert_eq!(partial_success(Signal::Traces, b""), Outcome::Delivered);
    }
}
