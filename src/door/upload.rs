//! The records in an upload, each with its Kafka key. Pure.

use std::borrow::Cow;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};
use prost::Message;

use crate::caught::caught;
use crate::decision::event::Event;
use crate::decision::formats::{self, Elements, Format, Limits, Piece};
use crate::decision::ids::hex;
use crate::decision::json::{self, JsonError};
use crate::decision::reject::{Reason, Reject};
use crate::decision::trace;

/// A record for Kafka.
#[derive(Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The trace id in hex or, without one, the decision id: as of the docket record. None for what intake will reject.
    pub key: Option<String>,
    pub bytes: Cow<'a, [u8]>,
    /// docket's own code panicked at it. It goes on all the same: intake tries it again, and rejects it alone.
    pub panicked: bool,
}

impl<'a> Record<'a> {
    /// Of what is read, if it can be.
    fn of(
        bytes: impl Into<Cow<'a, [u8]>>,
        key: impl FnOnce() -> Result<Option<String>, Reject>,
    ) -> Result<Record<'a>, Reject> {
        let (key, panicked) = match caught(key) {
            Ok(key) => (key?, false),
            Err(_) => (None, true),
        };
        Ok(Record { key, bytes: bytes.into(), panicked })
    }
}

fn key(event: &Event<'_>, rules: &trace::Rules) -> String {
    match trace::find(event, &[], rules).parent {
        Some((context, _)) => hex(&context.trace.to_bytes()),
        None => event.decision_id.to_string(),
    }
}

/// What OPA uploads: an array of decisions. An element that is none, or no JSON, goes on by itself, for intake to say so of that one: OPA would
/// send the whole again and again. A body whose elements can't be told apart is an error of the whole.
pub fn decisions<'a>(
    text: &'a [u8],
    rules: &trace::Rules,
    limits: &Limits,
) -> Result<Vec<Record<'a>>, Reject> {
    each(text, limits, |element| key_of(element, rules))
}

fn each<'a>(
    text: &'a [u8],
    limits: &Limits,
    key: impl Fn(&[u8]) -> Result<Option<String>, Reject>,
) -> Result<Vec<Record<'a>>, Reject> {
    let text = json::trim(text);
    match text.first() {
        None => Err(Reject::new(Reason::Empty, "the body is empty")),
        Some(b'[') => {
            let mut records = Vec::new();
            for element in Elements::of(text) {
                if records.len() == limits.elements {
                    return Err(too_many(limits));
                }
                let (at, element) =
                    element.map_err(|broken| Reject::new(Reason::NotJson, broken.detail))?;
                if element.is_empty() {
                    let detail = format!("there is nothing in the element at byte {at}");
                    return Err(Reject::new(Reason::NotJson, detail));
                }
                let alone = Record { key: None, bytes: element.into(), panicked: false };
                records.push(Record::of(element, || key(element)).unwrap_or(alone));
            }
            Ok(records)
        }
        Some(b'{') => Ok(vec![Record::of(text, || key(text))?]),
        Some(_) => Err(Reject::new(Reason::NotJson, "the body is not a JSON array of decisions")),
    }
}

/// The key of a decision; none of what intake will reject.
fn key_of(text: &[u8], rules: &trace::Rules) -> Result<Option<String>, Reject> {
    let members = if text.starts_with(b"{") {
        json::parse_object(text)
    } else {
        json::check(text).map(|()| Vec::new())
    };
    match members {
        Ok(members) => {
            let raw = std::str::from_utf8(text).unwrap_or_default();
            Ok(Event::from_members(raw, &members).ok().map(|event| key(&event, rules)))
        }
        // Where it ends is known; it alone is rejected.
        Err(JsonError::DuplicateKey { .. } | JsonError::TooDeep(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What is too much for one upload: it goes nowhere, since it would come again and again.
fn too_many(limits: &Limits) -> Reject {
    let most = limits.elements;
    Reject::new(Reason::TooLarge, format!("more than {most} elements (limits.record_elements)"))
}

/// The log records of an OTLP request, each a request of its own with its resource and scope.
pub fn otlp(
    body: &[u8],
    json: bool,
    rules: &trace::Rules,
    limits: &Limits,
) -> Result<Vec<Record<'static>>, Reject> {
    let wrong = |detail: String| {
        Reject::new(Reason::BadOtlp, format!("not an OTLP logs request: {detail}"))
    };
    if !formats::otlp_is_small(body, json, limits) {
        return Err(too_many(limits));
    }
    let request: ExportLogsServiceRequest = if json {
        // serde_json does not mind repeated names, so this goes first.
        json::check(body)?;
        serde_json::from_slice(body).map_err(|e| wrong(e.to_string()))?
    } else {
        ExportLogsServiceRequest::decode(body).map_err(|e| wrong(e.to_string()))?
    };
    // Each gets its resource and scope, which may be most of the request.
    let (mut records, mut left) = (Vec::new(), limits.record);
    for resource in request.resource_logs {
        for scope in resource.scope_logs {
            for record in scope.log_records {
                let scope = ScopeLogs {
                    scope: scope.scope.clone(),
                    log_records: vec![record],
                    schema_url: scope.schema_url.clone(),
                };
                let resource = ResourceLogs {
                    resource: resource.resource.clone(),
                    scope_logs: vec![scope],
                    schema_url: resource.schema_url.clone(),
                };
                let bytes =
                    ExportLogsServiceRequest { resource_logs: vec![resource] }.encode_to_vec();
                left = left.checked_sub(bytes.len()).ok_or_else(|| {
                    let detail = "its log records have more than limits.record_bytes, each with its resource";
                    Reject::new(Reason::TooLarge, detail)
                })?;
                if records.len() == limits.elements {
                    return Err(too_many(limits));
                }
                let found = caught(|| {
                    let mut found = None;
                    formats::split(&bytes, Format::OtlpProto, limits, &mut |piece| {
                        if let Piece::Decision { event, .. } = piece {
                            found.get_or_insert_with(|| key(&event, rules));
                        }
                    });
                    found
                });
                let panicked = found.is_err();
                let key = found.ok().flatten();
                records.push(Record { key, bytes: bytes.into(), panicked });
            }
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> Result<Vec<(Option<String>, String)>, String> {
        let records = decisions(text.as_bytes(), &trace::Rules::default(), &Limits::default())
            .map_err(|e| e.to_string())?;
        Ok(records
            .into_iter()
            .map(|r| (r.key, String::from_utf8_lossy(&r.bytes).into_owned()))
            .collect())
    }

    #[test]
    fn each_decision_has_the_key_of_its_trace_or_its_id() {
        let plain = r#"{"decision_id":"d1","timestamp":"2026-11-24T12:00:00Z","n":1.50}"#;
        let traced = r#"{"decision_id":"d2","timestamp":"2026-11-24T12:00:00Z","trace_id":"0af7651916cd43dd8448eb211c80319c"}"#;
        let records = taken(&format!(" [{plain} , {traced},{{\"decision_id\":7}}, 1 ] ")).unwrap();
        assert_eq!(
            records,
            [
                (Some("d1".into()), plain.into()),
                (Some("0af7651916cd43dd8448eb211c80319c".into()), traced.into()),
                (None, r#"{"decision_id":7}"#.into()),
                (None, "1".into())
            ]
        );
        assert_eq!(taken("[]").unwrap(), []);
        assert_eq!(taken(plain).unwrap().len(), 1);
    }

    #[test]
    fn what_is_not_json_says_where() {
        for (text, said) in [
            ("", "empty"),
            ("decisions", "not a JSON array"),
            ("[{\"a\":1}", "without its ]"),
            ("{\"a\":tru}", "byte"),
            ("[{\"a\":1}] x", "something follows"),
            ("[{\"a\":1},]", "nothing in the element at byte 9"),
        ] {
            let error = taken(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        // One that is no decision, or no JSON, does not take the others along.
        let good = r#"{"decision_id":"d1","timestamp":"2026-11-24T12:00:00Z"}"#;
        for bad in [r#"{"a":1,"a":2}"#, r#"{"a":"\ud800"}"#, r#"{"a":tru}"#, "{} {}", "nul"] {
            let records = taken(&format!("[{good},{bad},{good}]")).unwrap();
            let keys: Vec<_> = records.iter().map(|(key, _)| key.as_deref()).collect();
            assert_eq!(keys, [Some("d1"), None, Some("d1")], "{bad}");
            assert_eq!(records[1].1, bad);
        }
    }

    #[test]
    fn a_decision_at_which_docket_panics_goes_on_and_so_do_the_others() {
        let key = |text: &[u8]| match text {
            b"13" => panic!("a bug"),
            text => Ok(Some(String::from_utf8_lossy(text).into_owned())),
        };
        for (text, keys) in [("[1,13,2]", vec![Some("1"), None, Some("2")]), ("[13]", vec![None])] {
            let records = each(text.as_bytes(), &Limits::default(), key).unwrap();
            assert_eq!(records.iter().map(|r| r.key.as_deref()).collect::<Vec<_>>(), keys);
            assert_eq!(records.iter().filter(|r| r.panicked).count(), 1);
            assert!(records.iter().all(|r| r.panicked == (r.bytes.as_ref() == b"13")));
        }
    }

    #[test]
    fn an_upload_of_more_than_the_limits_goes_nowhere() {
        let rules = trace::Rules::default();
        let limits = Limits { elements: 1000, record: 1 << 20, ..Limits::default() };
        let many = |n: usize| format!("[{}]", vec!["1"; n].join(",")).into_bytes();
        assert_eq!(decisions(&many(1000), &rules, &limits).unwrap().len(), 1000);
        let refused = decisions(&many(1001), &rules, &limits).unwrap_err();
        assert_eq!(refused.reason, Reason::TooLarge);
        // Two bytes each, and some hundreds once they are read.
        let request = |records: usize, resource: usize| {
            use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
            use opentelemetry_proto::tonic::logs::v1::LogRecord;
            use opentelemetry_proto::tonic::resource::v1::Resource;
            let value = Some(AnyValue { value: Some(Value::StringValue("x".repeat(resource))) });
            let attributes = vec![KeyValue { key: "k".into(), value, ..KeyValue::default() }];
            let resource = Some(Resource { attributes, ..Resource::default() });
            let log_records = vec![LogRecord::default(); records];
            let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
            let logs = ResourceLogs { resource, scope_logs, ..ResourceLogs::default() };
            ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec()
        };
        let told = |bytes: &[u8]| {
            otlp(bytes, false, &rules, &limits).map(|r| r.len()).map_err(|e| e.reason)
        };
        assert_eq!(told(&request(900, 10)), Ok(900));
        assert_eq!(told(&request(1001, 10)), Err(Reason::TooLarge));
        assert_eq!(told(&request(50_000, 10)), Err(Reason::TooLarge));
        // Each is sent with its resource.
        assert_eq!(told(&request(900, 10_000)), Err(Reason::TooLarge));
        let json = format!(
            r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{}]}}]}}]}}"#,
            vec!["{}"; 20_000].join(",")
        );
        let refused = otlp(json.as_bytes(), true, &rules, &limits).unwrap_err();
        assert_eq!(refused.reason, Reason::TooLarge);
    }
}
