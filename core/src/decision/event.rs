//! One OPA decision: the fields of OPA 1.22's decision log event (`EventV1`) that docket reads, as views
//! into the original bytes. The others are kept as they are, known or not.

use std::borrow::Cow;

use super::json::{self, Member};
use super::reject::{Reason, Reject};
use super::time::{self, Nanos};

/// The longest decision id: Elasticsearch's `_id` holds 512 bytes.
const MAX_DECISION_ID: usize = 512;

/// Raw values are slices of the document; `None` where the field is absent or null.
#[derive(Debug, Default)]
pub struct Event<'a> {
    /// The whole object, as written, without space around it.
    pub raw: &'a str,
    pub decision_id: Cow<'a, str>,
    pub timestamp: Nanos,
    /// As written, without slashes at its ends; empty for an ad hoc query.
    pub path: Cow<'a, str>,
    pub trace_id: Option<Cow<'a, str>>,
    pub span_id: Option<Cow<'a, str>>,
    pub labels: Option<&'a str>,
    pub input: Option<&'a str>,
    /// OPA leaves `result` out for an undefined decision; a `null` here is a result that is null.
    pub result: Option<&'a str>,
    pub error: Option<&'a str>,
    pub metrics: Option<&'a str>,
    pub request_context: Option<&'a str>,
    pub requested_by: Option<&'a str>,
    /// Names that the docket record needs for itself, with what the original had there.
    pub reserved: Vec<Member<'a>>,
}

/// A field of EventV1 whose type is checked, or that docket reads or needs for itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    DecisionId,
    Timestamp,
    Path,
    TraceId,
    SpanId,
    Labels,
    Input,
    Result,
    Error,
    Metrics,
    RequestContext,
    RequestedBy,
    Reserved,
    OtherText,
    OtherObject,
    OtherArray,
    OtherNumber,
    Unknown,
}

/// How a value's JSON begins, and what to call that.
type Wanted = (fn(u8) -> bool, &'static str);

impl Field {
    /// By length first: on every member of every decision, one comparison instead of twenty.
    fn of(name: &str) -> Field {
        match (name.len(), name) {
            (4, "path") => Field::Path,
            (5, "input") => Field::Input,
            (5, "query") => Field::OtherText,
            (5, "error") => Field::Error,
            (6, "result") => Field::Result,
            (6, "labels") => Field::Labels,
            (6, "docket") => Field::Reserved,
            (6, "erased" | "masked") => Field::OtherArray,
            (6, "req_id") => Field::OtherNumber,
            (6, "custom") => Field::OtherObject,
            (7, "metrics") => Field::Metrics,
            (7, "bundles") => Field::OtherObject,
            (7, "span_id") => Field::SpanId,
            (8, "trace_id") => Field::TraceId,
            (8, "revision") => Field::OtherText,
            (9, "timestamp") => Field::Timestamp,
            (10, "@timestamp") => Field::Reserved,
            (11, "decision_id") => Field::DecisionId,
            (11, "rule_labels") => Field::OtherArray,
            (12, "requested_by") => Field::RequestedBy,
            (15, "request_context") => Field::RequestContext,
            (16, "nd_builtin_cache") => Field::OtherObject,
            (17, "batch_decision_id") => Field::OtherText,
            (20, "intermediate_results") => Field::OtherObject,
            _ => Field::Unknown,
        }
    }

    /// The type that EventV1 gives it: how its JSON begins, and what to call that. `None` for any type.
    fn wanted(self) -> Option<Wanted> {
        use Field::*;
        match self {
            DecisionId | Timestamp | Path | TraceId | SpanId | RequestedBy | OtherText => {
                Some((|b| b == b'"', "a string"))
            }
            Labels | Metrics | RequestContext | OtherObject => Some((|b| b == b'{', "an object")),
            OtherArray => Some((|b| b == b'[', "an array")),
            OtherNumber => Some((|b| b == b'-' || b.is_ascii_digit(), "a number")),
            Input | Result | Error | Reserved | Unknown => None,
        }
    }
}

/// The first character of what stands in a member that has one type: of an object, a list or a string.
pub fn begins(name: &str) -> Option<char> {
    let (is, _) = Field::of(name).wanted()?;
    ['{', '[', '"'].into_iter().find(|c| is(*c as u8))
}

impl<'a> Event<'a> {
    /// Reads a decision from a JSON object. Unknown fields are fine; known fields must have their type.
    pub fn parse(doc: &'a [u8]) -> Result<Event<'a>, Reject> {
        let doc = json::trim(doc);
        let members = json::parse_object(doc)?;
        let raw = std::str::from_utf8(doc)
            .map_err(|e| Reject::new(Reason::InvalidUtf8, e.to_string()))?;
        Event::from_members(raw, &members)
    }

    pub fn from_members(raw: &'a str, members: &[Member<'a>]) -> Result<Event<'a>, Reject> {
        let mut event = Event { raw, ..Event::default() };
        let mut decision_id = None;
        let mut timestamp = None;
        for member in members {
            let key = member.key();
            let field = Field::of(&key);
            let raw = member.value;
            if raw == "null" && !matches!(field, Field::Result | Field::Reserved) {
                continue;
            }
            if let Some((begins, wanted)) = field.wanted()
                && !raw.bytes().next().is_some_and(begins)
            {
                return Err(Reject::new(
                    Reason::WrongType,
                    format!("{key} is {}; it must be {wanted}", json::kind(raw)),
                ));
            }
            match field {
                Field::DecisionId => decision_id = json::as_str(raw),
                Field::Timestamp => timestamp = json::as_str(raw),
                Field::Path => {
                    event.path = json::as_str(raw).map(without_slashes).unwrap_or_default();
                }
                Field::TraceId => event.trace_id = json::as_str(raw),
                Field::SpanId => event.span_id = json::as_str(raw),
                Field::Labels => event.labels = Some(raw),
                Field::Input => event.input = Some(raw),
                Field::Result => event.result = Some(raw),
                Field::Error => event.error = Some(raw),
                Field::Metrics => event.metrics = Some(raw),
                Field::RequestContext => event.request_context = Some(raw),
                Field::RequestedBy => event.requested_by = Some(raw),
                Field::Reserved => event.reserved.push(*member),
                _ => {}
            }
        }
        event.decision_id = match decision_id {
            None => {
                return Err(Reject::new(
                    Reason::MissingDecisionId,
                    "the record has no decision_id",
                ));
            }
            Some(id) => id,
        };
        check_decision_id(&event.decision_id)?;
        event.timestamp = match timestamp {
            None => {
                return Err(Reject::new(Reason::MissingTimestamp, "the record has no timestamp"));
            }
            Some(text) => time::parse(&text).ok_or_else(|| {
                Reject::new(Reason::BadTimestamp, "timestamp is not an RFC 3339 date and time")
            })?,
        };
        Ok(event)
    }

    /// A label's value, if it is a string.
    pub fn label(&self, name: &str) -> Option<Cow<'a, str>> {
        json::as_str(json::get(self.labels?, name)?)
    }

    /// How long the decision took, in nanoseconds: OPA's handler timer, or the evaluation alone where
    /// there was no handler (OPA as a library, Envoy's plugin).
    pub fn duration(&self) -> Option<u64> {
        let metrics = self.metrics?;
        ["timer_server_handler_ns", "timer_rego_query_eval_ns"]
            .iter()
            .find_map(|name| json::as_u64(json::get(metrics, name)?))
    }
}

fn without_slashes(path: Cow<'_, str>) -> Cow<'_, str> {
    match path {
        Cow::Borrowed(p) => Cow::Borrowed(p.trim_matches('/')),
        Cow::Owned(p) => Cow::Owned(p.trim_matches('/').to_owned()),
    }
}

/// A decision id names one decision in every sink, so one that can't do that is refused.
fn check_decision_id(id: &str) -> Result<(), Reject> {
    let problem = if id.is_empty() {
        "decision_id is empty"
    } else if id.bytes().all(|b| matches!(b, b'0' | b'-')) {
        "decision_id is all zeros"
    } else if id.len() > MAX_DECISION_ID {
        "decision_id is longer than 512 bytes"
    } else if id.chars().any(char::is_control) {
        "decision_id holds a control character"
    } else {
        return Ok(());
    };
    Err(Reject::new(Reason::BadDecisionId, problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_read_as_views_into_its_bytes() {
        let event = Event::parse(
            br#" {"labels":{"app":"orders","id":"i1"},"decision_id":"d1","path":"/http/authz/allow","result":null,
                 "error":null,"timestamp":"2026-11-24T12:48:50.5Z","metrics":{"timer_rego_query_eval_ns":7,"timer_server_handler_ns":9},"brand_new":{"x":1}} "#,
        )
        .unwrap();
        assert_eq!(event.decision_id, "d1");
        assert_eq!(event.path, "http/authz/allow");
        assert_eq!(event.result, Some("null"));
        assert_eq!(event.error, None);
        assert_eq!(event.label("app").unwrap(), "orders");
        assert_eq!(event.label("version"), None);
        assert_eq!(event.duration(), Some(9));
    }

    #[test]
    fn what_is_no_decision_says_why() {
        let reject = |doc: &str| Event::parse(doc.as_bytes()).unwrap_err().to_string();
        insta::assert_snapshot!(
            [
                r#"{"timestamp":"2026-11-24T12:48:50Z"}"#,
                r#"{"decision_id":"","timestamp":"2026-11-24T12:48:50Z"}"#,
                r#"{"decision_id":"00000000-0000-0000-0000-000000000000","timestamp":"2026-11-24T12:48:50Z"}"#,
                r#"{"decision_id":7,"timestamp":"2026-11-24T12:48:50Z"}"#,
                r#"{"decision_id":"d"}"#,
                r#"{"decision_id":"d","timestamp":"noon"}"#,
                r#"{"decision_id":"d","labels":"x"}"#,
                r#"{"decision_id":"d","erased":{}}"#,
                r#"{"decision_id":"d","req_id":"1"}"#,
                r#"{"decision_id":"d","decision_id":"e"}"#,
                r#""decision""#,
            ]
            .map(reject)
            .join("\n"),
            @r#"
        missing_decision_id: the record has no decision_id
        bad_decision_id: decision_id is empty
        bad_decision_id: decision_id is all zeros
        wrong_type: decision_id is a number; it must be a string
        missing_timestamp: the record has no timestamp
        bad_timestamp: timestamp is not an RFC 3339 date and time
        wrong_type: labels is a string; it must be an object
        wrong_type: erased is an object; it must be an array
        wrong_type: req_id is a string; it must be a number
        duplicate_key: the name "decision_id" stands twice in one object, the second time at byte 19
        not_json: expected an object at byte 0
        "#
        );
    }
}
