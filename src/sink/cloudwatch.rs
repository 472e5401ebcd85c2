//! Amazon CloudWatch Logs: `PutLogEvents`, one event a decision; the message is the docket record.
//! <https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html>
//!
//! Its limits are kept before sending: 1,048,576 bytes a request with 26 bytes an event, 10,000 events,
//! 24 hours, in the order of time. What the service rejects in an answer of 200 (`rejectedLogEventsInfo`)
//! is refused record by record. Credentials and region are `aws`'s; SigV4 is reqsign's.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use axum::http;
use bytes::Bytes;
use reqsign_aws_v4::{Credential, RequestSigner};
use reqsign_core::time::Timestamp;
use reqsign_core::{Context, SignRequest, SigningCredential};
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};

use super::http::{Client, HttpError};
use super::{Cause, One, Outcome, Refusal, Retry, Sink, aws};
use crate::decision::json::{one_line, push_string};
use crate::decision::label::{self, LabelSource};
use crate::decision::record::Record;
use crate::pipeline::model;

/// A request may hold so many bytes,
const REQUEST: usize = 1_048_576;
/// counted as the events' messages and so much for each.
const EVENT: usize = 26;
const EVENTS: usize = 10_000;
const SPAN_MS: i64 = 24 * 3600 * 1000;

/// The pure part: what an event holds, and which stream gets it.
pub struct Encoder {
    stream: Vec<LabelSource>,
    namespace: Option<String>,
}

/// Requests for the records of a batch.
#[derive(Debug, PartialEq)]
pub struct Body {
    puts: Vec<Put>,
    /// Records that fit no request.
    refused: Vec<(usize, Refusal)>,
    records: usize,
}

/// One request.
#[derive(Debug, PartialEq)]
struct Put {
    stream: String,
    /// The content of `logEvents`.
    events: Bytes,
    /// Which records these are, in the order of the events.
    records: Vec<usize>,
}

struct Event {
    record: usize,
    millis: i64,
    message: Vec<u8>,
}

impl Encoder {
    pub fn new(config: &model::Cloudwatch) -> Encoder {
        // The template was checked when the file was loaded.
        Encoder {
            stream: label::template(&config.stream).unwrap_or_default(),
            namespace: config.emf_namespace.clone(),
        }
    }

    fn stream(&self, record: &Record<'_>) -> String {
        let text: String = self.stream.iter().map(|part| part.value(record)).collect();
        // A stream's name has neither of these, 512 characters at most, and at least one.
        let name: String = text
            .chars()
            .map(|c| if matches!(c, ':' | '*') || c.is_control() { '_' } else { c })
            .take(512)
            .collect();
        if name.is_empty() { "unknown".into() } else { name }
    }

    /// What an event says.
    pub fn message(&self, record: &Record<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(record.raw.len() + 400);
        out.extend_from_slice(record.raw.as_bytes());
        if let Some(namespace) = &self.namespace {
            embed(record, namespace, &mut out);
        }
        one_line(&mut out);
        out
    }

    pub fn encode(&self, batch: &[Record<'_>]) -> Body {
        let mut streams: BTreeMap<String, Vec<Event>> = BTreeMap::new();
        let mut refused = Vec::new();
        for (i, record) in batch.iter().enumerate() {
            let message = self.message(record);
            if message.len() + EVENT > REQUEST {
                let reason = format!(
                    "an event of {} bytes is larger than CloudWatch takes ({} bytes)",
                    message.len(),
                    REQUEST - EVENT
                );
                refused.push((i, Refusal { status: 413, reason }));
                continue;
            }
            streams.entry(self.stream(record)).or_default().push(Event {
                record: i,
                millis: record.timestamp.div_euclid(1_000_000),
                message,
            });
        }
        let mut puts = Vec::new();
        for (stream, mut events) in streams {
            // Stable: decisions of the same millisecond stay in their order.
            events.sort_by_key(|event| event.millis);
            pack(&stream, &events, &mut puts);
        }
        Body { puts, refused, records: batch.len() }
    }
}

/// Puts events of one stream, in the order of time, into as few requests as the limits allow.
fn pack(stream: &str, events: &[Event], puts: &mut Vec<Put>) {
    let mut rest = events;
    while let Some(first) = rest.first() {
        let mut size = 0;
        let fits = |event: &&Event| {
            size += event.message.len() + EVENT;
            size <= REQUEST && event.millis - first.millis < SPAN_MS
        };
        let count = rest.iter().take(EVENTS).take_while(fits).count().max(1);
        let (now, later) = rest.split_at(count);
        let mut out = Vec::with_capacity(now.iter().map(|e| e.message.len() * 5 / 4 + 64).sum());
        for (i, event) in now.iter().enumerate() {
            out.extend_from_slice(if i == 0 { b"[{\"timestamp\":" } else { b",{\"timestamp\":" });
            out.extend_from_slice(event.millis.to_string().as_bytes());
            out.extend_from_slice(b",\"message\":");
            // A record is JSON, so it is text.
            push_string(&mut out, std::str::from_utf8(&event.message).unwrap_or_default());
            out.push(b'}');
        }
        out.push(b']');
        puts.push(Put {
            stream: stream.to_owned(),
            events: out.into(),
            records: now.iter().map(|e| e.record).collect(),
        });
        rest = later;
    }
}

/// Makes an event carry metrics (embedded metric format), unless the decision has members of these names.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>
fn embed(record: &Record<'_>, namespace: &str, out: &mut Vec<u8>) {
    if ["_aws", "Service", "Policy", "Verdict", "Decisions", "Duration"]
        .iter()
        .any(|name| record.get(name).is_some())
    {
        return;
    }
    let mut metrics = vec![json!({ "Name": "Decisions", "Unit": "Count" })];
    if record.duration.is_some() {
        metrics.push(json!({ "Name": "Duration", "Unit": "Microseconds" }));
    }
    let about = json!({
        "Timestamp": record.timestamp.div_euclid(1_000_000),
        "CloudWatchMetrics": [{ "Namespace": namespace, "Dimensions": [["Service", "Verdict"], ["Service", "Policy", "Verdict"]], "Metrics": metrics }],
    });
    let mut text = format!(",\"_aws\":{about}");
    for (name, value) in [
        ("Service", &*record.service),
        ("Policy", &*record.policy),
        ("Verdict", record.verdict.as_str()),
    ] {
        let _ = write!(text, ",\"{name}\":{}", Value::from(value));
    }
    text.push_str(",\"Decisions\":1");
    if let Some(duration) = record.duration {
        let _ = write!(text, ",\"Duration\":{}", duration as f64 / 1e3);
    }
    out.truncate(out.len() - 1);
    out.extend_from_slice(text.as_bytes());
    out.push(b'}');
}

/// The service's API: where it is, and who asks.
pub struct Api {
    client: Client,
    config: model::Cloudwatch,
    resolved: OnceCell<Resolved>,
    credentials: Mutex<Option<Credential>>,
}

struct Resolved {
    endpoint: String,
    signer: RequestSigner,
    source: aws::Source,
}

fn retry(cause: Cause, detail: impl Into<String>) -> Outcome {
    Outcome::Retry(Retry { cause, detail: detail.into(), after: None })
}

impl Api {
    pub fn new(config: &model::Cloudwatch) -> Result<Api, HttpError> {
        let client = Client::new(&config.tls, None, &BTreeMap::new(), config.delivery.timeout.0)?;
        Ok(Api {
            client,
            config: config.clone(),
            resolved: OnceCell::new(),
            credentials: Mutex::default(),
        })
    }

    /// Region and source of credentials: asked for once they are needed, since an instance's metadata may be slow to come up.
    async fn resolved(&self) -> Result<&Resolved, Outcome> {
        let resolve = async || {
            let (profile, region) = (self.config.profile.as_deref(), self.config.region.as_deref());
            let source = aws::Source::load(profile, region)
                .await
                .map_err(|e| retry(Cause::Misconfigured, format!("AWS configuration: {e}")))?;
            let Some(region) = &source.region else {
                return Err(retry(
                    Cause::Misconfigured,
                    "no region is known; set region in the pipeline file, or AWS_REGION",
                ));
            };
            let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
            let endpoint = self
                .config
                .endpoint
                .clone()
                .unwrap_or_else(|| format!("https://logs.{region}.amazonaws.com{suffix}"));
            Ok(Resolved {
                endpoint: format!("{}/", endpoint.trim_end_matches('/')),
                signer: RequestSigner::new("logs", region),
                source,
            })
        };
        self.resolved.get_or_try_init(resolve).await
    }

    async fn credentials(&self, resolved: &Resolved) -> Result<Credential, Outcome> {
        let mut kept = self.credentials.lock().await;
        let soon = Timestamp::now() + Duration::from_secs(300);
        if let Some(credentials) = kept.as_ref().filter(|c| c.is_valid_at(soon)) {
            return Ok(credentials.clone());
        }
        // The error tells which source failed, and no secret.
        let got =
            resolved.source.credentials().await.map_err(|error| {
                retry(Cause::Credentials, format!("no AWS credentials: {error}"))
            })?;
        Ok(kept.insert(got).clone())
    }

    /// Calls an operation. A refusal carries the service's error type before its message.
    pub async fn call(&self, operation: &str, body: Bytes) -> Result<Value, Outcome> {
        let resolved = self.resolved().await?;
        let credentials = self.credentials(resolved).await?;
        let wrong = |error: &dyn std::fmt::Display| {
            retry(Cause::Misconfigured, format!("the request can't be signed: {error}"))
        };
        let (mut head, ()) = http::Request::post(&resolved.endpoint)
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("Logs_20140328.{operation}"))
            .header("x-amz-content-sha256", reqsign_core::hash::hex_sha256(&body))
            .body(())
            .map_err(|e| wrong(&e))?
            .into_parts();
        resolved
            .signer
            .sign_request(&Context::new(), &mut head, Some(&credentials), None)
            .await
            .map_err(|e| wrong(&e))?;
        let request = self.client.request(head.method, &resolved.endpoint).headers(head.headers);
        let (status, after, answer) = self.client.send(request.body(body)).await?;
        if status.is_success() {
            return Ok(serde_json::from_slice(&answer).unwrap_or(Value::Null));
        }
        let outcome = meaning(status, after, &answer);
        if matches!(&outcome, Outcome::Retry(r) if r.cause == Cause::Credentials) {
            *self.credentials.lock().await = None;
        }
        Err(outcome)
    }

    /// Makes the log group and a stream in it.
    async fn create(&self, stream: &str) -> Result<(), Outcome> {
        let group = &self.config.group;
        let made = self.unless_there("CreateLogGroup", json!({ "logGroupName": group })).await?;
        if let Some(days) = self.config.retention_days.filter(|_| made) {
            self.call(
                "PutRetentionPolicy",
                json!({ "logGroupName": group, "retentionInDays": days }).to_string().into(),
            )
            .await?;
        }
        self.unless_there(
            "CreateLogStream",
            json!({ "logGroupName": group, "logStreamName": stream }),
        )
        .await?;
        tracing::info!(group, stream, "log stream created");
        Ok(())
    }

    async fn unless_there(&self, operation: &str, body: Value) -> Result<bool, Outcome> {
        match self.call(operation, body.to_string().into()).await {
            Ok(_) => Ok(true),
            Err(Outcome::Refused(refusal))
                if refusal.reason.starts_with("ResourceAlreadyExistsException") =>
            {
                Ok(false)
            }
            // A name that CloudWatch does not take, say: the stream is missing for good, and so an outage.
            Err(Outcome::Refused(refusal)) => {
                Err(retry(Cause::Misconfigured, format!("{operation}: {}", refusal.reason)))
            }
            Err(outcome) => Err(outcome),
        }
    }
}

/// What an answer other than 2xx means. CloudWatch says with 400 what others say with 429 or 403.
fn meaning(status: reqwest::StatusCode, after: Option<Duration>, answer: &[u8]) -> Outcome {
    let content: Value = serde_json::from_slice(answer).unwrap_or_default();
    let kind = content["__type"].as_str().unwrap_or_default();
    let kind = kind.rsplit('#').next().unwrap_or_default();
    let cause = match kind {
        "ThrottlingException"
        | "Throttling"
        | "TooManyRequestsException"
        | "LimitExceededException"
        | "RequestLimitExceeded" => Cause::Throttled,
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "ExpiredTokenException"
        | "ExpiredToken"
        | "AccessDeniedException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "InvalidClientTokenId"
        | "SignatureDoesNotMatch"
        | "NotAuthorized"
        | "OptInRequired" => Cause::Credentials,
        "ServiceUnavailableException"
        | "ServiceUnavailable"
        | "InternalFailure"
        | "InternalServerError"
        | "OperationAbortedException" => Cause::Server,
        "" => return super::http::meaning(status, after, answer),
        _ if status.is_server_error() => Cause::Server,
        kind => {
            let message =
                content["message"].as_str().or(content["Message"].as_str()).unwrap_or_default();
            let reason = format!("{kind}: {message}").chars().take(1000).collect();
            return Outcome::Refused(Refusal { status: status.as_u16(), reason });
        }
    };
    Outcome::Retry(Retry {
        cause,
        detail: format!("the service answered {} {kind}", status.as_u16()),
        after,
    })
}

/// What became of the records of a request that was answered with 200.
fn accepted(answer: &Value, records: usize) -> Vec<One> {
    let info = &answer["rejectedLogEventsInfo"];
    let at = |name: &str| info[name].as_u64().and_then(|n| usize::try_from(n).ok());
    let (too_old, expired, too_new) = (
        at("tooOldLogEventEndIndex"),
        at("expiredLogEventEndIndex"),
        at("tooNewLogEventStartIndex"),
    );
    let refused = |reason: &str| {
        One::Refused(Refusal { status: 200, reason: format!("rejectedLogEventsInfo: {reason}") })
    };
    // The ends are exclusive, the start is inclusive.
    let one = |i: usize| {
        if too_old.is_some_and(|end| i < end) {
            refused("the event is older than 14 days, or than the group's retention")
        } else if expired.is_some_and(|end| i < end) {
            refused("the event is older than the group's retention")
        } else if too_new.is_some_and(|start| i >= start) {
            refused("the event is more than 2 hours ahead")
        } else {
            One::Delivered
        }
    };
    (0..records).map(one).collect()
}

pub struct Cloudwatch {
    encoder: Encoder,
    api: Api,
}

impl Cloudwatch {
    pub fn new(config: &model::Cloudwatch) -> Result<Cloudwatch, HttpError> {
        Ok(Cloudwatch { encoder: Encoder::new(config), api: Api::new(config)? })
    }

    async fn put(&self, put: &Put) -> Result<Vec<One>, Outcome> {
        let mut body =
            json!({ "logGroupName": self.api.config.group, "logStreamName": put.stream })
                .to_string()
                .into_bytes();
        body.truncate(body.len() - 1);
        body.extend_from_slice(b",\"logEvents\":");
        body.extend_from_slice(&put.events);
        body.push(b'}');
        let body = Bytes::from(body);
        let mut answer = self.api.call("PutLogEvents", body.clone()).await;
        if matches!(&answer, Err(Outcome::Refused(r)) if r.reason.starts_with("ResourceNotFoundException"))
        {
            if !self.api.config.create {
                return Err(retry(
                    Cause::Misconfigured,
                    format!(
                        "log group {} or stream {} is missing, and create is false",
                        self.api.config.group, put.stream
                    ),
                ));
            }
            self.api.create(&put.stream).await?;
            answer = self.api.call("PutLogEvents", body).await;
        }
        match answer {
            Ok(answer) => Ok(accepted(&answer, put.records.len())),
            Err(Outcome::Refused(r)) if r.reason.starts_with("DataAlreadyAcceptedException") => {
                Ok(vec![One::Delivered; put.records.len()])
            }
            Err(outcome) => Err(outcome),
        }
    }
}

impl Sink for Cloudwatch {
    type Body = Body;

    fn encode(&self, batch: &[Record<'_>]) -> Body {
        self.encoder.encode(batch)
    }

    fn size(body: &Body) -> usize {
        body.puts.iter().map(|put| put.events.len()).sum()
    }

    async fn send(&self, body: &Body) -> Outcome {
        let mut each = vec![One::Delivered; body.records];
        for (i, refusal) in &body.refused {
            each[*i] = One::Refused(refusal.clone());
        }
        let mut outage: Option<Retry> = None;
        for put in &body.puts {
            let result = match &outage {
                Some(retry) => Err(Outcome::Retry(retry.clone())),
                None => self.put(put).await,
            };
            match result {
                Ok(ones) => put.records.iter().zip(ones).for_each(|(i, one)| each[*i] = one),
                Err(Outcome::Retry(retry)) => {
                    put.records.iter().for_each(|i| each[*i] = One::Retry(retry.clone()));
                    outage = Some(retry);
                }
                // The request as a whole; if it is all there is, it is halved.
                Err(outcome) if body.puts.len() == 1 && body.refused.is_empty() => return outcome,
                Err(Outcome::Refused(refusal)) if put.records.len() == 1 => {
                    each[put.records[0]] = One::Refused(refusal)
                }
                Err(_) => {
                    // Sent again by itself, it will be.
                    let again = Retry {
                        cause: Cause::Server,
                        detail: "a request was refused as a whole".into(),
                        after: None,
                    };
                    put.records.iter().for_each(|i| each[*i] = One::Retry(again.clone()));
                }
            }
        }
        if each.iter().all(|one| *one == One::Delivered) {
            return Outcome::Delivered;
        }
        match outage {
            Some(retry) if each.iter().all(|one| matches!(one, One::Retry(_))) => {
                Outcome::Retry(retry)
            }
            _ => Outcome::Each(each),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::event::Event as Decision;
    use crate::decision::record::{self, Rules};

    fn records(docs: &[String]) -> Vec<Vec<u8>> {
        docs.iter()
            .map(|doc| {
                let mut raw = Vec::new();
                record::write(
                    &Decision::parse(doc.as_bytes()).unwrap(),
                    &[],
                    None,
                    &Rules::default(),
                    &mut raw,
                );
                raw
            })
            .collect()
    }

    fn decision(id: usize, app: &str, at: &str, pad: usize) -> String {
        format!(
            r#"{{"decision_id":"d{id}","labels":{{"app":"{app}"}},"path":"a/allow","result":true,"timestamp":"{at}","metrics":{{"timer_server_handler_ns":1500}},"pad":"{}"}}"#,
            "x".repeat(pad)
        )
    }

    fn encoder(emf: Option<&str>) -> Encoder {
        Encoder { stream: label::template("{service}").unwrap(), namespace: emf.map(str::to_owned) }
    }

    fn encoded(docs: &[String], emf: Option<&str>) -> Body {
        let raw = records(docs);
        let parsed: Vec<Record<'_>> = raw.iter().map(|r| Record::parse(r).unwrap()).collect();
        encoder(emf).encode(&parsed)
    }

    fn events(put: &Put) -> Vec<Value> {
        serde_json::from_slice(&put.events).unwrap()
    }

    #[test]
    fn events_of_a_stream_are_in_the_order_of_time_and_no_request_spans_a_day() {
        let docs = [
            decision(0, "a", "2026-11-24T12:00:00.002Z", 0),
            decision(1, "b", "2026-11-24T12:00:00Z", 0),
            decision(2, "a", "2026-11-24T12:00:00.001Z", 0),
            decision(3, "a", "2026-11-25T12:00:00.001Z", 0),
            decision(4, "a", "2026-11-25T12:00:00Z", 0),
        ];
        let body = encoded(&docs, None);
        let shape: Vec<(&str, &[usize])> =
            body.puts.iter().map(|p| (p.stream.as_str(), p.records.as_slice())).collect();
        assert_eq!(shape, [("a", &[2, 0, 4][..]), ("a", &[3][..]), ("b", &[1][..])]);
        let times: Vec<i64> =
            events(&body.puts[0]).iter().map(|e| e["timestamp"].as_i64().unwrap()).collect();
        assert!(times.is_sorted() && times[2] - times[0] < SPAN_MS);
        let message: Value =
            serde_json::from_str(events(&body.puts[2])[0]["message"].as_str().unwrap()).unwrap();
        assert_eq!(message["decision_id"], "d1");
    }

    #[test]
    fn requests_keep_the_limits_of_bytes_and_events_to_the_byte() {
        let raw = records(&[decision(0, "a", "2026-11-24T12:00:00Z", 0)]);
        let small = raw[0].len();
        // Two events that together fill a request exactly, and one byte more.
        for (more, requests) in [(0, 1), (1, 2)] {
            let docs = [
                decision(0, "a", "2026-11-24T12:00:00Z", REQUEST - 2 * (small + EVENT) + more),
                decision(1, "a", "2026-11-24T12:00:00Z", 0),
            ];
            assert_eq!(encoded(&docs, None).puts.len(), requests, "{more}");
        }
        // Vector 2394: one event as large as it may be, and one byte more.
        let fits = |more: usize| {
            encoded(
                &[decision(0, "a", "2026-11-24T12:00:00Z", REQUEST - small - EVENT + more)],
                None,
            )
        };
        assert_eq!((fits(0).puts.len(), fits(0).refused.len()), (1, 0));
        assert_eq!((fits(1).puts.len(), fits(1).refused[0].1.status), (0, 413));
        let many: Vec<String> =
            (0..EVENTS + 1).map(|i| decision(i, "a", "2026-11-24T12:00:00Z", 0)).collect();
        let raw = records(&many);
        let events: Vec<Event> = raw
            .iter()
            .enumerate()
            .map(|(i, _)| Event { record: i, millis: 0, message: b"{}".to_vec() })
            .collect();
        let mut puts = Vec::new();
        pack("a", &events, &mut puts);
        assert_eq!(puts.iter().map(|p| p.records.len()).collect::<Vec<_>>(), [EVENTS, 1]);
    }

    /// Vector 1483, aws-for-fluent-bit 523: an answer of 200 may have rejected some.
    #[test]
    fn what_an_accepted_request_rejected_is_refused_record_by_record() {
        let kinds = |info: Value, n: usize| -> String {
            let ones = accepted(&json!({ "rejectedLogEventsInfo": info }), n);
            ones.iter().map(|one| if *one == One::Delivered { '.' } else { 'x' }).collect()
        };
        assert_eq!(kinds(json!(null), 3), "...");
        assert_eq!(kinds(json!({ "tooOldLogEventEndIndex": 2 }), 5), "xx...");
        assert_eq!(
            kinds(json!({ "expiredLogEventEndIndex": 1, "tooNewLogEventStartIndex": 3 }), 5),
            "x..xx"
        );
        assert_eq!(kinds(json!({ "tooNewLogEventStartIndex": 0 }), 2), "xx");
    }

    #[test]
    fn errors_mean_outages_by_their_type_not_by_their_status() {
        let cause = |status: u16, kind: &str| {
            let answer = json!({ "__type": kind, "message": "why" }).to_string();
            match meaning(reqwest::StatusCode::from_u16(status).unwrap(), None, answer.as_bytes()) {
                Outcome::Retry(retry) => retry.cause.as_str().to_owned(),
                Outcome::Refused(refusal) => refusal.reason,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(cause(400, "ThrottlingException"), "throttled");
        assert_eq!(cause(400, "com.amazonaws.logs#ThrottlingException"), "throttled");
        assert_eq!(cause(400, "UnrecognizedClientException"), "credentials");
        assert_eq!(cause(400, "ExpiredTokenException"), "credentials");
        assert_eq!(cause(403, "AccessDeniedException"), "credentials");
        assert_eq!(cause(503, "ServiceUnavailableException"), "server");
        assert_eq!(cause(500, "SomethingNew"), "server");
        assert_eq!(cause(400, "InvalidParameterException"), "InvalidParameterException: why");
        assert!(
            matches!(meaning(reqwest::StatusCode::UNAUTHORIZED, None, b"proxy"), Outcome::Retry(r) if r.cause == Cause::Credentials)
        );
    }

    #[test]
    fn events_carry_metrics_when_told_unless_the_decision_has_these_names() {
        let body = encoded(&[decision(0, "a", "2026-11-24T12:00:00Z", 0)], Some("docket"));
        let message: Value =
            serde_json::from_str(events(&body.puts[0])[0]["message"].as_str().unwrap()).unwrap();
        assert_eq!(message["_aws"]["CloudWatchMetrics"][0]["Namespace"], "docket");
        assert_eq!(
            (&message["Service"], &message["Verdict"], &message["Decisions"], &message["Duration"]),
            (&json!("a"), &json!("allow"), &json!(1), &json!(1.5))
        );
        let own =
            r#"{"decision_id":"d","timestamp":"2026-11-24T12:00:00Z","Service":"mine"}"#.to_owned();
        let body = encoded(&[own], Some("docket"));
        assert!(!String::from_utf8_lossy(&body.puts[0].events).contains("_aws"));
    }

    #[test]
    fn a_streams_name_has_no_characters_that_it_may_not_have() {
        let body = encoded(&[decision(0, "a:b*c", "2026-11-24T12:00:00Z", 0)], None);
        assert_eq!(body.puts[0].stream, "a_b_c");
    }
}
