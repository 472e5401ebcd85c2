//! Decisions as `PutLogEvents` requests that keep its limits: 1,048,576 bytes a request with 26 bytes an event, 10,000 events,
//! 24 hours, in the order of time. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use bytes::Bytes;
use serde_json::{Value, json};

use super::config::CloudwatchConfig;
use crate::decision::json::{one_line, push_string};
use crate::decision::label::LabelSource;
use crate::decision::record::Record;
use crate::http::failure::Refusal;

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
    pub puts: Vec<Put>,
    /// Records that fit no request.
    pub refused: Vec<(usize, Refusal)>,
    pub records: usize,
}

/// One request.
#[derive(Debug, PartialEq)]
pub struct Put {
    pub stream: String,
    /// The content of `logEvents`.
    pub events: Bytes,
    /// Which records these are, in the order of the events.
    pub records: Vec<usize>,
}

struct Event {
    record: usize,
    millis: i64,
    message: Vec<u8>,
}

impl Encoder {
    pub fn new(config: &CloudwatchConfig) -> Encoder {
        Encoder { stream: config.stream.value(), namespace: config.emf_namespace.clone() }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::event::Event as Decision;
    use crate::decision::label;
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
