//! What requests did, of which decisions are a part: of an access log, a span or an audit event only what a
//! join needs. Pure: bytes in, facts out.
//!
//! `access` reads the access logs of Envoy and Istio, `otlp` spans and access logs as OpenTelemetry writes them,
//! `audit` the audit events of Kubernetes. `source` holds a topic to what it is said to have. `pack` is a fact in some hundred bytes, for the topic of facts and for
//! the join's memory.

mod access;
mod audit;
mod fields;
mod otlp;
mod pack;
mod source;

use std::borrow::Cow;

pub use pack::{NotAFact, Packed};
pub use source::{Format, read_as};

use crate::decision::formats::{Limits, gunzip};
use crate::decision::ids::{SpanId, TraceId};
use crate::decision::json;
use crate::decision::time::Nanos;

/// What a fact was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A line of a proxy's access log: one for each request, so that a missing one means something.
    Access,
    /// An audit event of a Kubernetes API server, the same.
    Audit,
    /// A span: sampled, so that a missing one proves nothing.
    Span,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Access => "access_log",
            Kind::Audit => "audit",
            Kind::Span => "span",
        }
    }

    /// Whether there is one for each request.
    pub fn is_evidence(self) -> bool {
        self != Kind::Span
    }
}

/// What is said of a request by a mark.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Marks(u8);

impl Marks {
    /// Envoy's filter could not ask, and let the request pass (`failure_mode_allowed`).
    pub const FAILURE_MODE_ALLOWED: Marks = Marks(1);
    /// The Kubernetes API server got no answer of a webhook, and let the request pass (`failed-open.*`).
    pub const FAILED_OPEN: Marks = Marks(2);
    /// What was decided is not enforced: a dry run.
    pub const DRY_RUN: Marks = Marks(4);
    /// A span of kind SERVER: it is a request, not a part of one.
    pub const SERVER: Marks = Marks(8);
    /// A span of asking the policy engine, its own or that of who asks: part of a trace, but no request that was ruled on.
    pub const ASKING: Marks = Marks(16);

    pub fn has(self, mark: Marks) -> bool {
        self.0 & mark.0 != 0
    }

    #[must_use]
    pub fn with(self, mark: Marks) -> Marks {
        Marks(self.0 | mark.0)
    }
}

/// What a request was answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// 0 is what Envoy writes where the client went away.
    pub http: Option<u16>,
    pub grpc: Option<u8>,
}

impl Status {
    /// Whether the request was served: gRPC OK, or HTTP 100 to 399. `None` if it isn't known. gRPC comes first, since
    /// HTTP says 200 there whatever happened.
    pub fn served(self) -> Option<bool> {
        match self {
            Status { grpc: Some(code), .. } => Some(code == 0),
            Status { http: Some(code), .. } => Some((100..400).contains(&code)),
            Status { .. } => None,
        }
    }
}

/// One request as something else than the policy engine saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact<'a> {
    pub kind: Kind,
    pub marks: Marks,
    pub start: Nanos,
    pub end: Nanos,
    pub trace: Option<TraceId>,
    pub span: Option<SpanId>,
    pub parent: Option<SpanId>,
    pub status: Status,
    /// `x-request-id`, or the `auditID` of an audit event.
    pub request_id: Cow<'a, str>,
    pub decision_id: Cow<'a, str>,
    /// The uid of an AdmissionReview, where the policy returns it as an audit annotation.
    pub uid: Cow<'a, str>,
    pub service: Cow<'a, str>,
    /// The route, or else the path, without what follows a question mark; an object of Kubernetes as
    /// `resource/namespace/name`.
    pub path: Cow<'a, str>,
    pub method: Cow<'a, str>,
    /// Who asked, of an audit event.
    pub user: Cow<'a, str>,
    /// Envoy's response flags.
    pub flags: Cow<'a, str>,
    /// Envoy's response code details; what failed open, of an audit event.
    pub details: Cow<'a, str>,
}

impl Fact<'_> {
    pub fn new(kind: Kind, start: Nanos, end: Nanos) -> Fact<'static> {
        Fact {
            kind,
            marks: Marks::default(),
            start,
            end: end.max(start),
            trace: None,
            span: None,
            parent: None,
            status: Status::default(),
            request_id: "".into(),
            decision_id: "".into(),
            uid: "".into(),
            service: "".into(),
            path: "".into(),
            method: "".into(),
            user: "".into(),
            flags: "".into(),
            details: "".into(),
        }
    }
}

/// Why something is no fact, and where it stands in its record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct BadFact {
    pub place: String,
    pub problem: String,
}

impl BadFact {
    fn new(place: impl Into<String>, problem: impl Into<String>) -> BadFact {
        BadFact { place: place.into(), problem: problem.into() }
    }
}

/// What became of a part of a record.
// A piece is handed on at once, never stored: its size is no matter.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum Piece<'a> {
    Fact(Fact<'a>),
    /// It tells of no request that is over: an audit event of an earlier stage, a line without anything in it.
    Ignored,
    Bad(BadFact),
}

/// Calls `take` for each fact in a Kafka record's value: JSON (one, an array, or one per line) or OTLP as
/// protobuf, gzipped or not.
pub fn read(value: &[u8], limits: &Limits, take: &mut dyn FnMut(Piece<'_>)) {
    if value.starts_with(&[0x1f, 0x8b]) {
        return match gunzip(value, limits.record) {
            Ok((plain, [])) => plain_record(&plain, take),
            Ok(_) => take(Piece::Bad(BadFact::new("record", "something follows the gzip data"))),
            Err(e) => take(Piece::Bad(BadFact::new("record", e.detail))),
        };
    }
    plain_record(value, take);
}

fn plain_record(value: &[u8], take: &mut dyn FnMut(Piece<'_>)) {
    // The tag of field 1 is also a line feed; JSON that begins with one is no protobuf.
    if value.first() == Some(&0x0a) && otlp::protobuf(value, take) {
        return;
    }
    let text = match std::str::from_utf8(value) {
        Ok(text) => text.trim_start_matches('\u{feff}').trim(),
        Err(e) => {
            let problem = format!("neither UTF-8 (byte {}) nor OTLP", e.valid_up_to());
            return take(Piece::Bad(BadFact::new("record", problem)));
        }
    };
    if text.is_empty() {
        return take(Piece::Ignored);
    }
    if text.starts_with('[') {
        return match json::check(text.as_bytes()) {
            Ok(()) => {
                for (i, element) in json::elements(text).enumerate() {
                    object(element, &format!("element {i}"), take);
                }
            }
            Err(e) => take(Piece::Bad(BadFact::new("record", e.to_string()))),
        };
    }
    // Objects one after the other, on lines of their own or not.
    let (mut rest, mut number) = (text, 0);
    while !rest.is_empty() {
        let place = if number == 0 { "record".to_owned() } else { format!("object {number}") };
        let end = json::end_of_value(rest.as_bytes(), 0).max(1);
        let broken = rest.get(..end).is_none() || !rest.starts_with('{');
        // What is no object ends with its line, and so does one that is cut off.
        let line = rest.find('\n').unwrap_or(rest.len());
        let end = if broken || (end == rest.len() && json::check(rest.as_bytes()).is_err()) {
            line
        } else {
            end
        };
        object(rest[..end].trim_end(), &place, take);
        rest = rest[end..].trim_start();
        number += 1;
    }
}

/// A JSON object of whatever kind.
fn object(text: &str, place: &str, take: &mut dyn FnMut(Piece<'_>)) {
    let members = match json::parse_object(text.as_bytes()) {
        Ok(members) => members,
        Err(e) => return take(Piece::Bad(BadFact::new(place, e.to_string()))),
    };
    let has = |name: &str| members.iter().any(|m| m.name == name);
    if has("resourceSpans") || has("resourceLogs") {
        return otlp::json(text, place, take);
    }
    let text_of =
        |name: &str| members.iter().find(|m| m.name == name).and_then(|m| json::as_str(m.value));
    if text_of("apiVersion").is_some_and(|v| v.starts_with("audit.k8s.io/")) {
        return audit::read(text, &members, place, take);
    }
    match access::read(&members) {
        Ok(Some(fact)) => take(Piece::Fact(fact)),
        Ok(None) => enveloped(&members, place, take),
        Err(problem) => {
            let at = |name: &str| format!("{place}, {name}");
            take(Piece::Bad(BadFact::new(at(&problem.0), problem.1)));
        }
    }
}

/// A line as an agent wraps it: the JSON is the text of one member.
fn enveloped(members: &[json::Member<'_>], place: &str, take: &mut dyn FnMut(Piece<'_>)) {
    const NAMES: [&str; 6] = ["log", "message", "msg", "body", "line", "event"];
    for name in NAMES {
        let Some(member) = members.iter().find(|m| m.name == name) else { continue };
        let inner = match member.value.as_bytes().first() {
            Some(b'"') => json::as_str(member.value).unwrap_or_default(),
            Some(b'{') => Cow::Borrowed(member.value),
            _ => continue,
        };
        let inner = inner.trim();
        // One envelope, not many: agents write no others around access logs.
        if !inner.starts_with('{') {
            continue;
        }
        let place = format!("{place}, {name}");
        let Ok(members) = json::parse_object(inner.as_bytes()) else {
            return take(Piece::Bad(BadFact::new(place, "not a whole JSON object")));
        };
        if members.iter().any(|m| m.name == "auditID") {
            return audit::read(inner, &members, &place, take);
        }
        return match access::read(&members) {
            Ok(Some(fact)) => take(Piece::Fact(fact)),
            Ok(None) => take(Piece::Bad(BadFact::new(place, NOTHING))),
            Err((name, problem)) => {
                take(Piece::Bad(BadFact::new(format!("{place}, {name}"), problem)));
            }
        };
    }
    take(Piece::Bad(BadFact::new(place, NOTHING)));
}

const NOTHING: &str =
    "neither an access log (no start_time and response_code), an audit event nor OTLP";

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]
mod tests;
