//! What the join needs of a decision.

use std::borrow::Cow;

use crate::decision::ids::{SpanId, TraceId};
use crate::decision::json;
use crate::decision::record::{Content, Record};
use crate::decision::time::Nanos;
use crate::decision::verdict::Verdict;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub id: Box<str>,
    pub time: Nanos,
    pub verdict: Verdict,
    pub trace: Option<TraceId>,
    /// The span that asked,
    pub parent: Option<SpanId>,
    /// or the policy engine's own span below that, where the engine traces itself.
    pub engines_own: bool,
    /// `x-request-id`, or the uid of an AdmissionReview.
    pub request_id: Box<str>,
    /// Of an AdmissionReview who does what to which object.
    pub object: Box<str>,
    pub service: Box<str>,
    pub policy: Box<str>,
    /// Whoever asks does not enforce the answer.
    pub dry_run: bool,
    /// By which an amendment names its document, of each sink that is to have it.
    pub contents: Box<[Content]>,
}

/// Where a decision has the id of its request: a member, and the names that lead to it from there.
const REQUEST_IDS: [(&str, &[&str]); 4] = [
    ("input", &["attributes", "request", "http", "headers", "x-request-id"]),
    ("input", &["request", "uid"]),
    ("request_context", &["http", "headers", "x-request-id"]),
    ("input", &["headers", "x-request-id"]),
];

impl Asked {
    /// Of a docket record.
    pub fn of(record: &Record<'_>) -> Asked {
        let traced = record.trace_from != "none";
        let input = record.get("input").filter(|raw| raw.starts_with('{'));
        let admission = input.and_then(|input| json::get(input, "request"));
        let label = |name: &str| record.label(name).is_some_and(|value| value == "true");
        Asked {
            id: (*record.decision_id).into(),
            time: record.timestamp,
            verdict: record.verdict,
            trace: traced.then_some(record.trace_id),
            parent: record.parent_span_id.filter(|_| traced),
            engines_own: record.trace_from == "decision",
            request_id: request_id(record).unwrap_or_default().into(),
            object: admission.and_then(admission_object).unwrap_or_default().into(),
            service: (*record.service).into(),
            policy: (*record.policy).into(),
            dry_run: label("dry_run") || label("dry-run"),
            contents: Box::default(),
        }
    }

    /// Of nothing that anybody asked: what stands in place of a decision.
    pub(super) fn nothing(time: Nanos) -> Asked {
        let none = || Box::<str>::default();
        Asked {
            id: none(),
            time,
            verdict: Verdict::Undefined,
            trace: None,
            parent: None,
            engines_own: false,
            request_id: none(),
            object: none(),
            service: none(),
            policy: none(),
            dry_run: false,
            contents: Box::default(),
        }
    }

    /// What it takes on the heap.
    pub(super) fn heap(&self) -> usize {
        let texts = [&self.id, &self.request_id, &self.object, &self.service, &self.policy];
        texts.map(|text| text.len()).iter().sum::<usize>() + size_of_val(&*self.contents)
    }
}

fn request_id<'a>(record: &Record<'a>) -> Option<Cow<'a, str>> {
    REQUEST_IDS.iter().find_map(|(part, names)| {
        let found =
            names.iter().try_fold(record.get(part)?, |value, name| json::get(value, name))?;
        // Headers are lists in the request's context.
        let first = json::elements(found).next().unwrap_or(found);
        json::as_str(first).filter(|id| !id.is_empty())
    })
}

/// `bob create pods/shop/web-4`.
fn admission_object(request: &str) -> Option<String> {
    let text = |raw: Option<&str>| raw.and_then(json::as_str).unwrap_or_default().into_owned();
    let resource = json::get(request, "resource")?;
    let mut name = text(json::get(request, "name"));
    if name.is_empty() {
        let metadata = json::get(json::get(request, "object")?, "metadata")?;
        name = text(json::get(metadata, "name"));
    }
    let user = text(json::get(json::get(request, "userInfo")?, "username"));
    let operation = text(json::get(request, "operation"));
    let resource = text(json::get(resource, "resource"));
    let path = format!("{resource}/{}/{name}", text(json::get(request, "namespace")));
    Some(object_key(&user, &operation, &path))
}

/// One text for who does what to what: a patch is an update to the policy engine.
pub(super) fn object_key(user: &str, verb: &str, path: &str) -> String {
    let verb = verb.to_ascii_lowercase();
    let verb = if verb == "patch" { "update" } else { &verb };
    format!("{user} {verb} {path}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::event::Event;
    use crate::decision::record::{Rules, write};

    fn asked(decision: &str) -> Asked {
        let mut record = Vec::new();
        write(
            &Event::parse(decision.as_bytes()).unwrap(),
            &[],
            None,
            &Rules::default(),
            &mut record,
        );
        Asked::of(&Record::parse(&record).unwrap())
    }

    #[test]
    fn what_a_join_needs_is_read_of_a_docket_record() {
        let envoy = asked(
            r#"{"decision_id":"d1","timestamp":"2026-11-24T12:48:50Z","path":"envoy/authz/allow","labels":{"app":"orders","dry_run":"true"},"result":false,
                "input":{"attributes":{"request":{"http":{"headers":{"x-request-id":"r-1","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}}}}}}"#,
        );
        assert_eq!((&*envoy.id, &*envoy.request_id, &*envoy.service), ("d1", "r-1", "orders"));
        assert_eq!((envoy.verdict, envoy.dry_run), (Verdict::Deny, true));
        assert!(envoy.trace.is_some() && envoy.parent.is_some() && !envoy.engines_own);
        let traced = asked(
            r#"{"decision_id":"d2","timestamp":"2026-11-24T12:48:50Z","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7",
                "request_context":{"http":{"headers":{"x-request-id":["r-2"]}}}}"#,
        );
        assert!(traced.engines_own && !traced.dry_run);
        assert_eq!(&*traced.request_id, "r-2");
        // An id that docket made up joins nothing.
        let bare = asked(r#"{"decision_id":"d3","timestamp":"2026-11-24T12:48:50Z"}"#);
        assert_eq!((bare.trace, bare.parent, &*bare.request_id), (None, None, ""));
    }

    #[test]
    fn an_admission_review_has_its_uid_and_who_does_what() {
        let review = |rest: &str| {
            asked(&format!(
                r#"{{"decision_id":"d1","timestamp":"2026-11-24T12:48:50Z","path":"kubernetes/admission","input":{{"request":{{"uid":"u-1","operation":"UPDATE",
                    "namespace":"shop","userInfo":{{"username":"bob"}},"resource":{{"group":"","resource":"pods"}}{rest}}}}}}}"#
            ))
        };
        let named = review(r#","name":"web-4""#);
        assert_eq!((&*named.request_id, &*named.object), ("u-1", "bob update pods/shop/web-4"));
        let inside = review(r#","object":{"metadata":{"name":"web-5"}}"#);
        assert_eq!(&*inside.object, "bob update pods/shop/web-5");
        assert_eq!(object_key("bob", "patch", "pods/shop/web-4"), &*named.object);
    }
}
