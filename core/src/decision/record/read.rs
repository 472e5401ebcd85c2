//! Reads a docket record back, for the sinks: the original's fields and the `docket` member as views.

use std::borrow::Cow;
use std::cell::OnceCell;

use sha2::{Digest, Sha256};

use crate::decision::ids::{self, SpanId, TraceId};
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
    pub service: Cow<'a, str>,
    pub instance: Option<Cow<'a, str>>,
    pub docket: &'a str,
}

/// Of a decision's content, what tells it from another under the same ID.
pub type Content = [u8; 10];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a docket record: {0}")]
pub struct NotARecord(&'static str);

/// Finds docket's own members from the end of a record: where they begin, the timestamp's text, and the
/// `docket` object. What looks like them inside the docket object ends too early, and is passed over.
fn own_members(raw: &str) -> Option<(usize, &str, &str)> {
    const START: &str = ",\"@timestamp\":\"";
    const BETWEEN: &str = "\",\"docket\":";
    let mut end = raw.len();
    while let Some(at) = time::last(&raw.as_bytes()[..end], START.as_bytes(), b'@') {
        end = at;
        let from = at + START.len();
        let Some(len) = raw[from..].find('"') else { continue };
        let Some(docket) = raw[from + len..].strip_prefix(BETWEEN) else { continue };
        if docket.starts_with('{')
            && json::end_of_value(docket.as_bytes(), 0) + 1 == docket.len()
            && docket.ends_with('}')
        {
            return Some((at, &raw[from..from + len], &docket[..docket.len() - 1]));
        }
    }
    None
}

/// When the decision of a docket record was made, at little cost: what looks like docket's members inside them may be
/// taken for it. For the order in which records are read.
pub fn time(bytes: &[u8]) -> Option<Nanos> {
    time::last_after(bytes, b",\"@timestamp\":\"")
}

impl<'a> Record<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Record<'a>, NotARecord> {
        let raw = std::str::from_utf8(bytes).map_err(|_| NotARecord("it is not UTF-8"))?;
        let (original, timestamp, docket) =
            own_members(raw).ok_or(NotARecord("it does not end with @timestamp and docket"))?;
        let timestamp = time::parse(timestamp).ok_or(NotARecord("@timestamp is no time"))?;
        let decision_id = json::get(raw, "decision_id")
            .and_then(json::as_str)
            .ok_or(NotARecord("it has no decision_id"))?;
        let mut record = Record {
            raw,
            original,
            members: OnceCell::new(),
            timestamp,
            decision_id,
            verdict: Verdict::Undefined,
            verdict_from: "".into(),
            reasons: "[]",
            engine: "".into(),
            policy: "".into(),
            trace_id: TraceId::INVALID,
            span_id: SpanId::INVALID,
            parent_span_id: None,
            trace_from: "".into(),
            links: None,
            duration: None,
            subject: "".into(),
            action: "".into(),
            resource: "".into(),
            service: "".into(),
            instance: None,
            docket,
        };
        let mut verdict = None;
        for member in json::members(docket) {
            let text = || json::as_str(member.value);
            match member.name {
                "v" if member.value != "1" => {
                    return Err(NotARecord("docket.v is not 1; a newer docket wrote it"));
                }
                "verdict" => verdict = text().and_then(|t| Verdict::parse(&t)),
                "verdict_from" => record.verdict_from = text().unwrap_or_default(),
                "reasons" => record.reasons = member.value,
                "engine" => record.engine = text().unwrap_or_default(),
                "policy" => record.policy = text().unwrap_or_default(),
                "trace_id" => {
                    record.trace_id =
                        text().and_then(|t| ids::trace_id(&t)).unwrap_or(TraceId::INVALID);
                }
                "span_id" => {
                    record.span_id =
                        text().and_then(|t| ids::span_id(&t)).unwrap_or(SpanId::INVALID);
                }
                "parent_span_id" => record.parent_span_id = text().and_then(|t| ids::span_id(&t)),
                "trace_from" => record.trace_from = text().unwrap_or_default(),
                "links" => record.links = Some(member.value),
                "duration_ns" => record.duration = json::as_u64(member.value),
                "subject" => record.subject = text().unwrap_or_default(),
                "action" => record.action = text().unwrap_or_default(),
                "resource" => record.resource = text().unwrap_or_default(),
                "service" => {
                    record.service =
                        json::get(member.value, "name").and_then(json::as_str).unwrap_or_default();
                    record.instance = json::get(member.value, "instance_id").and_then(json::as_str);
                }
                _ => {}
            }
        }
        record.verdict = verdict.ok_or(NotARecord("docket.verdict is missing or unknown"))?;
        if record.trace_id == TraceId::INVALID || record.span_id == SpanId::INVALID {
            return Err(NotARecord("docket.trace_id or docket.span_id is missing"));
        }
        Ok(record)
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

    /// The original decision's members, in their order. Looked for once, when the first sink wants them.
    pub fn members(&self) -> &[Member<'a>] {
        self.members.get_or_init(|| {
            let mut members = Vec::with_capacity(24);
            members.extend(json::members(&self.raw[..self.original]));
            members
        })
    }

    /// A member of the original decision.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.members()
            .iter()
            .find(|m| m.name == name || (m.name.contains('\\') && m.key() == name))
            .map(|m| m.value)
    }

    /// Name and revision of each bundle that decided. An old OPA writes one `revision` without a name.
    pub fn revisions(&self) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
        let bundles = self.get("bundles").filter(|raw| raw.starts_with('{'));
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
        json::as_str(json::get(self.get("labels")?, name)?)
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
