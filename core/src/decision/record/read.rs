//! Reads a docket record back, for the sinks: the original's fields and the `docket` member as views.

use std::borrow::Cow;
use std::cell::OnceCell;

use sha2::{Digest, Sha256};

use super::outline::{NotARecord, Outline, Place};
use crate::decision::ids::{SpanId, TraceId};
use crate::decision::json::{self, Member};
use crate::decision::time::{self, Nanos};
use crate::decision::verdict::Verdict;

/// A docket record that a sink is to deliver.
#[derive(Debug)]
pub struct Record<'a> {
    /// The whole record, as it stands in the docket topic.
    pub raw: &'a str,
    /// Where the original ends and docket's two members begin: at the comma between them.
    original: usize,
    members: OnceCell<Vec<Member<'a>>>,
    pub timestamp: Nanos,
    pub decision_id: Cow<'a, str>,
    pub verdict: Verdict,
    pub verdict_from: Cow<'a, str>,
    /// A JSON array of strings.
    pub reasons: &'a str,
    pub engine: Cow<'a, str>,
    pub policy: Cow<'a, str>,
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub parent_span_id: Option<SpanId>,
    pub trace_from: Cow<'a, str>,
    pub links: Option<&'a str>,
    pub duration: Option<u64>,
    /// Who asked for what; empty where the decision does not say.
    pub subject: Cow<'a, str>,
    pub action: Cow<'a, str>,
    pub resource: Cow<'a, str>,
    pub tenant: Cow<'a, str>,
    pub service: Cow<'a, str>,
    pub instance: Option<Cow<'a, str>>,
    pub docket: &'a str,
}

/// Of a decision's content, what tells it from another under the same ID.
pub type Content = [u8; 10];

/// When the decision of a docket record was made, at little cost: what looks like docket's members inside them may be
/// taken for it. For the order in which records are read.
pub fn time(bytes: &[u8]) -> Option<Nanos> {
    time::last_after(bytes, b",\"@timestamp\":\"")
}

/// The text of a docket record.
pub fn text(bytes: &[u8]) -> Result<&str, NotARecord> {
    std::str::from_utf8(bytes).map_err(|_| NotARecord("it is not UTF-8"))
}

impl<'a> Record<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Record<'a>, NotARecord> {
        let raw = text(bytes)?;
        Ok(Outline::of(raw)?.record(raw))
    }

    /// The decision as it came, apart from what was taken out of it, and without the brace at its end. With the decision id, it is what
    /// tells a decision that came twice from another that came under the same id.
    pub fn original(&self) -> &'a str {
        &self.raw[..self.original]
    }

    /// What stands for the decision's content in the ID of a document: the first bytes of its SHA-256.
    pub fn content(&self) -> Content {
        let mut content = Content::default();
        let digest = Sha256::digest(self.original());
        content.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        content
    }

    /// Where docket's own members begin in `raw`, with the comma before them.
    pub fn own_members(&self) -> usize {
        self.original
    }

    /// The original decision's members, in their order. Looked for once, when a sink wants them all.
    pub fn members(&self) -> &[Member<'a>] {
        self.members.get_or_init(|| {
            let mut members = Vec::with_capacity(24);
            members.extend(json::members(&self.raw[..self.original]));
            members
        })
    }

    /// A member of the original decision.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.members().iter().find(|m| m.is(name)).map(|m| m.value)
    }

    /// The same of one that OPA writes among the first: the others are not looked for.
    fn early(&self, name: &str) -> Option<&'a str> {
        match self.members.get() {
            Some(_) => self.get(name),
            None => json::get(&self.raw[..self.original], name),
        }
    }

    /// Name and revision of each bundle that decided. An old OPA writes one `revision` without a name.
    pub fn revisions(&self) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
        let bundles = self.early("bundles").filter(|raw| raw.starts_with('{'));
        let named = bundles.into_iter().flat_map(json::members).filter_map(|member| {
            let revision = json::get(member.value, "revision").and_then(json::as_str)?;
            Some((member.key(), revision))
        });
        let mut all: Vec<_> = named.filter(|(_, revision)| !revision.is_empty()).collect();
        if all.is_empty() {
            let old = self.get("revision").and_then(json::as_str).filter(|r| !r.is_empty());
            all.extend(old.map(|revision| (Cow::Borrowed("default"), revision)));
        }
        all
    }

    /// The revision of one bundle, `name@revision,..` of several; empty without one.
    pub fn revision(&self) -> String {
        match self.revisions().as_slice() {
            [] => String::new(),
            [(_, revision)] => revision.to_string(),
            several => {
                let mut pairs: Vec<String> =
                    several.iter().map(|(name, revision)| format!("{name}@{revision}")).collect();
                pairs.sort_unstable();
                pairs.join(",")
            }
        }
    }

    pub fn label(&self, name: &str) -> Option<Cow<'a, str>> {
        json::as_str(json::get(self.early("labels")?, name)?)
    }
}

impl Outline {
    /// The record whose text this is the outline of.
    pub fn record<'a>(&self, raw: &'a str) -> Record<'a> {
        let text = |place: Place| json::unescape(place.of(raw));
        let value = |place: Place| Some(place.of(raw)).filter(|value| !value.is_empty());
        Record {
            raw,
            original: self.original as usize,
            members: OnceCell::new(),
            timestamp: self.timestamp,
            decision_id: text(self.decision_id),
            verdict: self.verdict,
            verdict_from: text(self.verdict_from),
            reasons: value(self.reasons).unwrap_or("[]"),
            engine: text(self.engine),
            policy: text(self.policy),
            trace_id: self.trace_id,
            span_id: self.span_id,
            parent_span_id: self.parent_span_id,
            trace_from: text(self.trace_from),
            links: value(self.links),
            duration: self.duration,
            subject: text(self.subject),
            action: text(self.action),
            resource: text(self.resource),
            tenant: text(self.tenant),
            service: text(self.service),
            instance: self.instance.map(text),
            docket: self.docket.of(raw),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::event::Event;
    use crate::decision::record::{self, Rules};

    #[test]
    fn what_intake_writes_the_sinks_read() {
        let doc = r#"{"labels":{"app":"orders","id":"i-1","version":"1.22.2"},"decision_id":"d1","bundles":{"authz":{"revision":"r7"}},"path":"a/allow","result":true,"timestamp":"2026-11-24T12:48:50Z"}"#;
        let mut out = Vec::new();
        record::write(
            &Event::parse(doc.as_bytes()).unwrap(),
            &[],
            None,
            &Rules::default(),
            &mut out,
        );
        let record = Record::parse(&out).unwrap();
        assert_eq!(time(&out), Some(record.timestamp));
        assert_eq!(
            (record.verdict, &*record.policy, &*record.service),
            (Verdict::Allow, "a/allow", "orders")
        );
        assert_eq!(record.revisions(), [("authz".into(), "r7".into())]);
        assert_eq!(record.instance.as_deref(), Some("i-1"));
        assert_eq!(record.get("docket"), None);
    }

    #[test]
    fn what_looks_like_dockets_members_inside_them_is_passed_over() {
        let doc = r#"{"decision_id":"d1","timestamp":"2026-11-24T12:48:50Z","docket":{"a":[{"x":1,"@timestamp":"y","docket":{"v":1,"verdict":"allow"}}]},"@timestamp":"z"}"#;
        let mut out = Vec::new();
        record::write(
            &Event::parse(doc.as_bytes()).unwrap(),
            &[],
            None,
            &Rules::default(),
            &mut out,
        );
        let record = Record::parse(&out).unwrap();
        assert_eq!(
            (record.verdict, record.timestamp),
            (Verdict::Undefined, 1_795_524_530_000_000_000)
        );
        assert_eq!(record.members().len(), 2);
    }

    #[test]
    fn what_docket_did_not_write_is_no_record() {
        for doc in [
            "",
            "{}",
            "{}}",
            r#"{"a":{}}"#,
            r#"{"@timestamp":"x","docket":{}}"#,
            "\u{0}}}",
            r#"{"@timestamp":"2026-11-24T12:48:50Z","docket":{"v":1}}"#,
        ] {
            assert!(Record::parse(doc.as_bytes()).is_err(), "{doc}");
        }
    }
}
