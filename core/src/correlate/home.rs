//! Where a decision and its request meet: both are written under the same key, so that they come to the same
//! partition, and to the same process.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Asked;
use crate::facts::{Fact, Kind};

/// By which of its IDs a record is written first; where it has none, by the other, and then by its decision ID. What
/// asks about objects of Kubernetes is written by resource and namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// The request ID: what proxies log and pass on as x-request-id.
    #[default]
    RequestId,
    /// The trace ID: what spans have.
    TraceId,
}

impl Key {
    /// The key of a decision; it always has one.
    pub fn of_decision(self, asked: &Asked) -> String {
        if let Some(place) = asked.object.rsplit(' ').next().filter(|place| !place.is_empty()) {
            return resource(place).to_owned();
        }
        let request = || Some(&*asked.request_id).filter(|id| !id.is_empty()).map(str::to_owned);
        let trace = || asked.trace.map(|id| id.to_string());
        match self {
            Key::RequestId => request().or_else(trace),
            Key::TraceId => trace().or_else(request),
        }
        .unwrap_or_else(|| asked.id.to_string())
    }

    /// The key of a fact; without one it meets nothing.
    pub fn of_fact<'f>(self, fact: &'f Fact<'_>) -> Option<Cow<'f, str>> {
        if fact.kind == Kind::Audit {
            return Some(resource(&fact.path).into());
        }
        let there = |text: &'f str| Some(text).filter(|text| !text.is_empty()).map(Cow::Borrowed);
        let request = || there(&fact.request_id);
        let trace = || fact.trace.map(|id| Cow::Owned(id.to_string()));
        match self {
            Key::RequestId => request().or_else(trace),
            Key::TraceId => trace().or_else(request),
        }
        .or_else(|| there(&fact.decision_id))
    }

    /// Whether a decision is where all requests that may be its own are.
    pub fn has_decision(self, asked: &Asked) -> bool {
        !asked.object.is_empty()
            || match self {
                Key::RequestId => !asked.request_id.is_empty(),
                Key::TraceId => asked.trace.is_some(),
            }
    }

    /// Whether a fact is where all decisions about it are.
    pub fn has_fact(self, fact: &Fact<'_>) -> bool {
        fact.kind == Kind::Audit
            || match self {
                Key::RequestId => !fact.request_id.is_empty(),
                Key::TraceId => fact.trace.is_some(),
            }
    }
}

/// `pods/shop` of `pods/shop/web-4`: an object that is to be made may not have its name yet.
fn resource(path: &str) -> &str {
    let end = path.match_indices('/').nth(1).map_or(path.len(), |(at, _)| at);
    &path[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::ids;
    use crate::decision::verdict::Verdict;

    fn asked(request: &str, trace: bool, object: &str) -> Asked {
        Asked {
            id: "d-1".into(),
            time: 0,
            verdict: Verdict::Allow,
            trace: trace.then(|| ids::derive("t").trace),
            parent: None,
            engines_own: false,
            request_id: request.into(),
            object: object.into(),
            service: "".into(),
            policy: "".into(),
            dry_run: false,
            contents: Box::default(),
        }
    }

    fn fact(kind: Kind, request: &str, trace: bool, path: &str) -> Fact<'static> {
        Fact {
            trace: trace.then(|| ids::derive("t").trace),
            request_id: request.to_owned().into(),
            path: path.to_owned().into(),
            decision_id: "d-1".into(),
            ..Fact::new(kind, 0, 0)
        }
    }

    #[test]
    fn a_decision_and_its_request_have_the_same_key() {
        let trace = ids::derive("t").trace.to_string();
        for (key, request, traced, home) in [
            (Key::RequestId, "r-1", true, "r-1"),
            (Key::RequestId, "", true, &*trace),
            (Key::TraceId, "r-1", true, &*trace),
            (Key::TraceId, "r-1", false, "r-1"),
            (Key::TraceId, "", false, "d-1"),
        ] {
            assert_eq!(key.of_decision(&asked(request, traced, "")), home);
            let fact = fact(Kind::Access, request, traced, "/a/b/c");
            assert_eq!(key.of_fact(&fact).as_deref(), Some(home));
        }
        let nothing = Fact::new(Kind::Span, 0, 0);
        assert_eq!(Key::TraceId.of_fact(&nothing), None);
    }

    #[test]
    fn what_asks_about_an_object_meets_its_audit_event() {
        let review = asked("uid-1", false, "bob create pods/shop/");
        for path in ["pods/shop/web-4", "pods/shop/web-4/status", "pods/shop"] {
            let event = fact(Kind::Audit, "audit-id", false, path);
            assert_eq!(Key::RequestId.of_fact(&event).as_deref(), Some("pods/shop"));
            assert_eq!(Key::RequestId.of_decision(&review), "pods/shop");
        }
    }
}
