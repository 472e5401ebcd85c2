//! What becomes of a decision that met its request: a docket record with `docket.request` and `docket.match`; an
//! amendment, for one that had gone on; and a finding as a docket record. docs/record.md and docs/join.md have their shapes.

use std::borrow::Cow;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{Asked, Class, Finding, FindingKind, Matched};
use crate::decision::ids::{self, TraceId};
use crate::decision::json;
use crate::decision::record::{self, Record};
use crate::decision::time;
use crate::facts::{Fact, Status};

/// Appends the docket record with its match, and says under which key it is written. Without one it is as it was.
/// `evicted` is one that had to go on early, for want of memory.
pub fn joined(
    record: &Record<'_>,
    matched: Option<&Matched<'_>>,
    evicted: bool,
    out: &mut Vec<u8>,
) -> String {
    let fact = matched.and_then(|m| Some((m.class, m.fact.fact().ok()?)));
    let own = (record.trace_from != "none").then_some(record.trace_id);
    let brought = fact.as_ref().and_then(|(_, fact)| fact.trace).filter(|_| own.is_none());
    let key = own.or(brought).map_or_else(|| record.decision_id.to_string(), |id| id.to_string());
    if fact.is_none() && !evicted {
        out.extend_from_slice(record.raw.as_bytes());
        return key;
    }
    // Up to the two braces at its end.
    match (&fact, brought) {
        (Some((_, fact)), Some(trace)) => with_trace(record, trace, fact, out),
        _ => out.extend_from_slice(&record.raw.as_bytes()[..record.raw.len() - 2]),
    }
    match &fact {
        Some((class, fact)) => {
            out.extend_from_slice(b",\"request\":");
            out.extend_from_slice(request(fact).to_string().as_bytes());
            out.extend_from_slice(b",\"match\":");
            out.extend_from_slice(how(*class, fact).to_string().as_bytes());
        }
        None => out.extend_from_slice(b",\"match\":{\"class\":\"none\",\"evicted\":true}"),
    }
    out.extend_from_slice(b"}}");
    key
}

/// A decision that had no trace is in that of its request.
fn with_trace(record: &Record<'_>, trace: TraceId, fact: &Fact<'_>, out: &mut Vec<u8>) {
    let at = record.docket.as_ptr() as usize - record.raw.as_ptr() as usize;
    out.extend_from_slice(&record.raw.as_bytes()[..at]);
    let mut separator = b'{';
    let mut put = |name: &str, value: &str| {
        out.push(separator);
        separator = b',';
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        out.extend_from_slice(value.as_bytes());
    };
    for member in json::members(record.docket) {
        match member.name {
            "trace_id" => put("trace_id", &format!("\"{trace}\"")),
            "parent_span_id" => {}
            "trace_from" => {
                if let Some(span) = fact.span {
                    put("parent_span_id", &format!("\"{span}\""));
                }
                put("trace_from", "\"join\"");
            }
            name => put(name, member.value),
        }
    }
}

/// Texts that say something.
fn put_texts<const N: usize>(all: &mut Map<String, Value>, texts: [(&str, &str); N]) {
    for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        all.insert(name.to_owned(), text.into());
    }
}

/// The members of `docket.request` that not every request has.
pub const OPTIONAL: [&str; 9] = [
    "service",
    "method",
    "path",
    "request_id",
    "user",
    "flags",
    "details",
    "status",
    "grpc_status",
];

/// `docket.request`.
fn request(fact: &Fact<'_>) -> Value {
    let mut all = Map::new();
    let texts = [
        ("service", &*fact.service),
        ("method", &fact.method),
        ("path", &fact.path),
        ("request_id", &fact.request_id),
        ("user", &fact.user),
        ("flags", &fact.flags),
        ("details", &fact.details),
    ];
    put_texts(&mut all, texts);
    status(fact.status, &mut all);
    all.insert("start".into(), time::format(fact.start).into());
    all.insert("duration_ns".into(), (fact.end - fact.start).into());
    all.insert("from".into(), fact.kind.as_str().into());
    all.into()
}

fn status(status: Status, out: &mut Map<String, Value>) {
    if let Some(code) = status.http {
        out.insert("status".into(), code.into());
    }
    if let Some(code) = status.grpc {
        out.insert("grpc_status".into(), code.into());
    }
}

/// `docket.match`: by which class of key, and by which key.
fn how(class: Class, fact: &Fact<'_>) -> Value {
    let span = || fact.span.map(|span| span.to_string());
    let key = match class {
        Class::DecisionId => Some(fact.decision_id.to_string()),
        Class::RequestId if !fact.uid.is_empty() => Some(fact.uid.to_string()),
        Class::RequestId => Some(fact.request_id.to_string()),
        Class::TraceAndParent | Class::Likely => span(),
    };
    match key {
        Some(key) => json!({ "class": class.as_str(), "key": key }),
        None => json!({ "class": class.as_str() }),
    }
}

/// A match that came after the decision had gone on, or a better one; its key is the decision ID. It is a docket record without what was
/// decided, so that a sink's part reads it, and a sink's redaction holds for it, as for any other. `sinks` are those whose documents
/// the decision's `contents` name.
pub fn amendment(
    asked: &Asked,
    matched: &Matched<'_>,
    replaces: bool,
    sinks: &[String],
) -> Vec<u8> {
    let Ok(fact) = matched.fact.fact() else { return Vec::new() };
    let derived = ids::derive(&asked.id);
    let brought = fact.trace.filter(|_| asked.trace.is_none());
    let trace = asked.trace.or(brought).unwrap_or(derived.trace);
    let mut docket = json!({
        "v": 1,
        "verdict": asked.verdict.as_str(),
        "policy": &*asked.policy,
        "trace_id": trace.to_string(),
        "span_id": derived.span.to_string(),
    });
    // What a match changes of the record. Where it changes nothing, it says nothing.
    if asked.trace.is_none() {
        if let Some(span) = fact.span.filter(|_| brought.is_some()) {
            docket["parent_span_id"] = span.to_string().into();
        }
        docket["trace_from"] = if brought.is_some() { "join" } else { "none" }.into();
    }
    docket["service"] = json!({ "name": &*asked.service });
    docket["request"] = request(&fact);
    docket["match"] = how(matched.class, &fact);
    let contents: Map<String, Value> =
        sinks.iter().cloned().zip(asked.contents.iter().map(|c| ids::hex(c).into())).collect();
    // Where its decision's span is: in its own trace, in that which another match brought, or in none's.
    let told = asked.trace.or(brought.filter(|_| replaces)).unwrap_or(derived.trace);
    docket["amends"] =
        json!({ "replaces": replaces, "trace_id": told.to_string(), "contents": contents });
    let mut out = b"{\"decision_id\":".to_vec();
    json::push_string(&mut out, &asked.id);
    let at = time::format(asked.time);
    out.extend_from_slice(format!(",\"@timestamp\":\"{at}\",\"docket\":{docket}}}").as_bytes());
    out
}

/// What an amendment says of the decision that it is of.
pub struct Amends<'a> {
    /// The decision may have another match, which is no more.
    pub replaces: bool,
    /// The trace in which the decision's span is.
    pub trace: TraceId,
    contents: &'a str,
}

impl<'a> Amends<'a> {
    /// Of a record, if it is an amendment.
    pub fn of(record: &Record<'a>) -> Option<Amends<'a>> {
        let amends = json::get(record.docket, "amends")?;
        let trace = json::get(amends, "trace_id").and_then(json::as_str)?;
        Some(Amends {
            replaces: json::get(amends, "replaces") == Some("true"),
            trace: ids::trace_id(&trace)?,
            contents: json::get(amends, "contents")?,
        })
    }

    /// What stands for the decision's content in the ID of its document in a sink, if the join knew of that sink.
    pub fn content(&self, sink: &str) -> Option<Cow<'a, str>> {
        json::get(self.contents, sink).and_then(json::as_str)
    }
}

impl Finding {
    /// The same for the same finding of the same records.
    pub fn id(&self) -> String {
        let mut hash = Sha256::new_with_prefix("docket finding");
        for part in [
            self.kind.as_str(),
            &self.decision_id,
            &self.request_id,
            &self.service,
            &self.path,
            &self.method,
        ] {
            hash.update(part);
            hash.update([0]);
        }
        hash.update(self.at.to_be_bytes());
        format!("finding-{}", ids::hex(&hash.finalize()[..8]))
    }

    pub fn sentence(&self) -> String {
        let mut request = format!("{} {}", self.method, self.path);
        if !self.service.is_empty() {
            request.push_str(&format!(" of {}", self.service));
        }
        let request = request.trim();
        let answer = match self.status {
            Status { grpc: Some(code), .. } => format!("gRPC status {code}"),
            Status { http: Some(code), .. } => code.to_string(),
            Status { .. } => "an unknown status".into(),
        };
        match self.kind {
            FindingKind::DeniedButServed => {
                format!("{} denied {request}, and it was served with {answer}", self.policy)
            }
            FindingKind::ServedWithoutDecision => {
                format!("{request} was served with {answer}, and there is no decision about it")
            }
            FindingKind::FailedOpen => {
                format!("{request} passed without a decision: the policy engine did not answer")
            }
            FindingKind::DecisionWithoutRequest => {
                format!(
                    "{} decided for {}, and there is no such request",
                    self.policy, self.service
                )
            }
            FindingKind::AllowedButRefused => {
                let by = if self.by.is_empty() { "something else" } else { &self.by };
                format!("{} allowed {request}, and {by} refused it with {answer}", self.policy)
            }
        }
    }

    /// As a docket record, for every sink: its key, and its bytes.
    pub fn record(&self) -> (String, Vec<u8>) {
        let id = self.id();
        let timestamp = time::format(self.at);
        let mut body = Map::new();
        let texts = [
            ("id", id.trim_start_matches("finding-")),
            ("kind", self.kind.as_str()),
            ("state", "seen"),
            ("service", &self.service),
            ("policy", &self.policy),
            ("decision_id", &self.decision_id),
            ("request_id", &self.request_id),
            ("method", &self.method),
            ("path", &self.path),
            ("by", &self.by),
            ("onset", &timestamp),
        ];
        put_texts(&mut body, texts);
        status(self.status, &mut body);
        body.insert("sentence".into(), self.sentence().into());
        let written = record::finding(record::Found {
            id: &id,
            at: self.at,
            body: body.into(),
            sentence: &self.sentence(),
            by: "join",
            policy: &self.policy,
            trace: self.trace,
            links: Vec::new(),
            service: &self.service,
        });
        (id, written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::event::Event;
    use crate::decision::record::{Rules, write};
    use crate::decision::verdict::Verdict;
    use crate::facts::{Kind, Packed};

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn record(more: &str) -> Vec<u8> {
        let decision = format!(
            r#"{{"decision_id":"d-1","timestamp":"2026-11-24T12:48:50Z","path":"envoy/authz/allow","result":false,"a\"b":"}}}}"{more}}}"#
        );
        let mut out = Vec::new();
        let event = Event::parse(decision.as_bytes()).unwrap();
        write(&event, &[], None, &Rules::default(), &mut out);
        out
    }

    fn fact(traced: bool) -> Vec<u8> {
        let at = time::parse("2026-11-24T12:48:50Z").unwrap();
        let fact = Fact {
            request_id: "r-1".into(),
            decision_id: "d-1".into(),
            service: "orders".into(),
            method: "GET".into(),
            path: "/a\"b".into(),
            status: Status { http: Some(200), grpc: None },
            trace: ids::trace_id(TRACE).filter(|_| traced),
            span: ids::span_id("00f067aa0ba902b7").filter(|_| traced),
            ..Fact::new(Kind::Access, at, at + 1_500_000)
        };
        let mut bytes = Vec::new();
        fact.pack(&mut bytes);
        bytes
    }

    fn write_joined(bytes: &[u8], fact: Option<&[u8]>, evicted: bool) -> (String, Vec<u8>) {
        let record = Record::parse(bytes).unwrap();
        let matched = fact.map(|fact| Matched { class: Class::DecisionId, fact: Packed::of(fact) });
        let mut out = Vec::new();
        let key = joined(&record, matched.as_ref(), evicted, &mut out);
        json::check(&out).unwrap();
        Record::parse(&out).unwrap();
        (key, out)
    }

    #[test]
    fn without_a_match_a_record_is_as_it_was() {
        let bytes = record("");
        assert_eq!(write_joined(&bytes, None, false), ("d-1".into(), bytes.clone()));
        let (_, evicted) = write_joined(&bytes, None, true);
        assert!(evicted.ends_with(b",\"match\":{\"class\":\"none\",\"evicted\":true}}}"));
    }

    #[test]
    fn a_match_stands_at_the_end_and_its_trace_only_where_there_was_none() {
        let bytes =
            record(&format!(r#","trace_id":"{}","span_id":"00f067aa0ba902b8""#, "a".repeat(32)));
        let (key, out) = write_joined(&bytes, Some(&fact(true)), false);
        assert_eq!(key, "a".repeat(32));
        assert!(out.starts_with(&bytes[..bytes.len() - 2]));
        insta::assert_snapshot!(String::from_utf8_lossy(&out[bytes.len() - 2..]), @r#","request":{"service":"orders","method":"GET","path":"/a\"b","request_id":"r-1","status":200,"start":"2026-11-24T12:48:50.000000000Z","duration_ns":1500000,"from":"access_log"},"match":{"class":"decision_id","key":"d-1"}}}"#);
        for traced in [false, true] {
            let bytes = record("");
            let (key, out) = write_joined(&bytes, Some(&fact(traced)), false);
            let before = Record::parse(&bytes).unwrap();
            let after = Record::parse(&out).unwrap();
            assert_eq!(after.original(), before.original());
            assert_eq!((after.span_id, after.verdict), (before.span_id, before.verdict));
            if traced {
                assert_eq!((key.as_str(), &*after.trace_from), (TRACE, "join"));
                assert_eq!(after.trace_id.to_string(), TRACE);
                assert_eq!(after.parent_span_id, ids::span_id("00f067aa0ba902b7"));
            } else {
                assert_eq!((key.as_str(), &*after.trace_from), ("d-1", "none"));
            }
        }
    }

    #[test]
    fn an_amendment_is_a_docket_record_with_what_the_decisions_would_have() {
        let bytes = record("");
        let decided = Record::parse(&bytes).unwrap();
        let asked = Asked { contents: [decided.content()].into(), ..Asked::of(&decided) };
        let amended = |traced: bool, replaces: bool| {
            let fact = fact(traced);
            let matched = Matched { class: Class::DecisionId, fact: Packed::of(&fact) };
            let told = amendment(&asked, &matched, replaces, &["search".to_owned()]);
            json::check(&told).unwrap();
            let record = Record::parse(&told).unwrap();
            let amends = Amends::of(&record).unwrap();
            assert_eq!((&*record.decision_id, record.timestamp), ("d-1", asked.time));
            assert_eq!((record.verdict, record.span_id), (Verdict::Deny, decided.span_id));
            let content = ids::hex(&decided.content());
            assert_eq!(amends.content("search").as_deref(), Some(content.as_str()));
            assert_eq!((amends.content("other"), amends.replaces), (None, replaces));
            let (_, joined) = write_joined(&bytes, Some(&fact), false);
            let joined = Record::parse(&joined).unwrap();
            for name in ["request", "match", "trace_id", "trace_from", "parent_span_id"] {
                let of = |docket: &str| json::get(docket, name).map(str::to_owned);
                assert_eq!(of(record.docket), of(joined.docket), "{name}");
            }
            (record.trace_id, amends.trace)
        };
        assert_eq!(amended(false, false), (decided.trace_id, decided.trace_id));
        let brought = ids::trace_id(TRACE).unwrap();
        assert_eq!(amended(true, false), (brought, decided.trace_id));
        assert_eq!(amended(true, true), (brought, brought));
        assert!(Amends::of(&decided).is_none());
    }

    #[test]
    fn an_amendment_of_a_decision_with_a_trace_leaves_that_alone() {
        let own = "a".repeat(32);
        let bytes = record(&format!(r#","trace_id":"{own}","span_id":"00f067aa0ba902b8""#));
        let asked = Asked::of(&Record::parse(&bytes).unwrap());
        let fact = fact(true);
        let matched = Matched { class: Class::TraceAndParent, fact: Packed::of(&fact) };
        let told = amendment(&asked, &matched, true, &[]);
        let record = Record::parse(&told).unwrap();
        assert_eq!((record.trace_id.to_string(), &*record.trace_from), (own.clone(), ""));
        assert_eq!(Amends::of(&record).unwrap().trace.to_string(), own);
    }

    #[test]
    fn a_finding_is_a_docket_record_with_an_id_of_its_own() {
        let at = time::parse("2026-11-24T12:48:50Z").unwrap();
        let mut finding = Finding {
            kind: FindingKind::DeniedButServed,
            at,
            decision_id: "d-1".into(),
            policy: "envoy/authz/allow".into(),
            service: "orders".into(),
            path: "/a\"b".into(),
            method: "GET".into(),
            status: Status { http: Some(200), grpc: None },
            request_id: "r-1".into(),
            trace: ids::trace_id(TRACE),
            by: String::new(),
        };
        let mut seen = std::collections::BTreeSet::new();
        for kind in FindingKind::ALL {
            finding.kind = kind;
            let (id, bytes) = finding.record();
            json::check(&bytes).unwrap();
            let record = Record::parse(&bytes).unwrap();
            assert_eq!((&*record.decision_id, record.verdict), (id.as_str(), Verdict::Finding));
            assert_eq!((&*record.service, record.trace_id.to_string().as_str()), ("orders", TRACE));
            assert!(seen.insert(id));
            // The detector of spikes takes it for none of its own.
            assert!(crate::spike::record::told(&record).is_none());
        }
        let (id, _) = finding.record();
        finding.at += 1;
        assert_ne!(finding.record().0, id);
    }
}
