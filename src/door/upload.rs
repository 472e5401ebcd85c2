//! The records in an upload, each with its Kafka key. Pure.

use std::borrow::Cow;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};
use prost::Message;

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
}

fn key(event: &Event<'_>, rules: &trace::Rules) -> String {
    match trace::find(event, &[], rules).parent {
        Some((context, _)) => hex(&context.trace.to_bytes()),
        None => event.decision_id.to_string(),
    }
}

/// What OPA uploads: an array of decisions. An element that is none, or no JSON, goes on by itself, for intake to say so of that one: OPA would
/// send the whole again and again. A body whose elements can't be told apart is an error of the whole.
pub fn decisions<'a>(text: &'a [u8], rules: &trace::Rules) -> Result<Vec<Record<'a>>, Reject> {
    let text = json::trim(text);
    match text.first() {
        None => Err(Reject::new(Reason::Empty, "the body is empty")),
        Some(b'[') => {
            let mut records = Vec::new();
            for element in Elements::of(text) {
                let (at, element) =
                    element.map_err(|broken| Reject::new(Reason::NotJson, broken.detail))?;
                if element.is_empty() {
                    let detail = format!("there is nothing in the element at byte {at}");
                    return Err(Reject::new(Reason::NotJson, detail));
                }
                let alone = Record { key: None, bytes: element.into() };
                records.push(decision(element, rules).unwrap_or(alone));
            }
            Ok(records)
        }
        Some(b'{') => Ok(vec![decision(text, rules)?]),
        Some(_) => Err(Reject::new(Reason::NotJson, "the body is not a JSON array of decisions")),
    }
}

fn decision<'a>(text: &'a [u8], rules: &trace::Rules) -> Result<Record<'a>, Reject> {
    let members = if text.starts_with(b"{") {
        json::parse_object(text)
    } else {
        json::check(text).map(|()| Vec::new())
    };
    let key = match members {
        Ok(members) => {
            let raw = std::str::from_utf8(text).unwrap_or_default();
            Event::from_members(raw, &members).ok().map(|event| key(&event, rules))
        }
        // Where it ends is known; it alone is rejected.
        Err(JsonError::DuplicateKey { .. } | JsonError::TooDeep(_)) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(Record { key, bytes: text.into() })
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
    let request: ExportLogsServiceRequest = if json {
        // serde_json does not mind repeated names, so this goes first.
        json::check(body)?;
        serde_json::from_slice(body).map_err(|e| wrong(e.to_string()))?
    } else {
        ExportLogsServiceRequest::decode(body).map_err(|e| wrong(e.to_string()))?
    };
    let mut records = Vec::new();
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
                let mut found = None;
                formats::split(&bytes, Format::OtlpProto, limits, &mut |piece| {
                    if let Piece::Decision { event, .. } = piece {
                        found.get_or_insert_with(|| key(&event, rules));
                    }
                });
                records.push(Record { key: found, bytes: bytes.into() });
            }
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> Result<Vec<(Option<String>, String)>, String> {
        let records =
            decisions(text.as_bytes(), &trace::Rules::default()).map_err(|e| e.to_string())?;
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
}
