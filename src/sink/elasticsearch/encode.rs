//! Decisions as documents: the docket record plus ECS names (Elastic Common Schema 8). Of a record that the index does not
//! take whole, what it takes, with the record's own text as `event.original`. Pure.

use super::fit::{self, cut, wrapped};
use crate::decision::ids::{hex, push_hex};
use crate::decision::json::{one_line, push_string};
use crate::decision::record::Record;
use crate::decision::verdict::Verdict;

/// Appends the document of a record, on one line.
pub fn document(record: &Record<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    if !fit::fits(record) {
        if !fit::fitting(record, out) {
            ecs(record, Some(record.raw), out);
            return one_line(&mut out[start..]);
        }
        // It fits at a second look.
        out.truncate(start);
    }
    let raw = record.raw;
    let mut copied = 0;
    for name in ["input", "result"] {
        let Some(value) = record.get(name).filter(|v| !v.starts_with('{') && *v != "null") else {
            continue;
        };
        // Where the value stands in the record, of which it is a slice. `input` comes before `result` or
        // after it; a second pass handles the order.
        let at = value.as_ptr() as usize - raw.as_ptr() as usize;
        if at < copied {
            out.truncate(start);
            return document_by_member(record, out);
        }
        out.extend_from_slice(&raw.as_bytes()[copied..at]);
        wrapped(out, |out| out.extend_from_slice(value.as_bytes()));
        copied = at + value.len();
    }
    out.extend_from_slice(&raw.as_bytes()[copied..raw.len() - 1]);
    ecs(record, None, out);
    one_line(&mut out[start..]);
}

/// The document of a record whose `result` stands before its `input`.
fn document_by_member(record: &Record<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    for member in record.members() {
        out.push(if out.len() == start { b'{' } else { b',' });
        out.push(b'"');
        out.extend_from_slice(member.name.as_bytes());
        out.extend_from_slice(b"\":");
        let wrap = matches!(&*member.key(), "input" | "result")
            && !member.value.starts_with('{')
            && member.value != "null";
        if wrap {
            wrapped(out, |out| out.extend_from_slice(member.value.as_bytes()));
        } else {
            out.extend_from_slice(member.value.as_bytes());
        }
    }
    out.extend_from_slice(&record.raw.as_bytes()[record.own_members()..record.raw.len() - 1]);
    ecs(record, None, out);
    one_line(&mut out[start..]);
}

/// ECS members beside the original, and the closing brace; the text of a record that does not stand there whole.
fn ecs(record: &Record<'_>, text: Option<&str>, out: &mut Vec<u8>) {
    let (kind, outcome) = match record.verdict {
        Verdict::Allow => ("allowed", "success"),
        Verdict::Deny => ("denied", "failure"),
        Verdict::Error => ("error", "failure"),
        Verdict::Undefined | Verdict::Finding => ("info", "unknown"),
    };
    let (class, dataset) = if record.verdict == Verdict::Finding {
        ("alert", "docket.finding")
    } else {
        ("event", "opa.decision")
    };
    out.extend_from_slice(b",\"event\":{\"kind\":\"");
    out.extend_from_slice(class.as_bytes());
    out.extend_from_slice(b"\",\"dataset\":\"");
    out.extend_from_slice(dataset.as_bytes());
    out.extend_from_slice(b"\",\"id\":");
    push_string(out, &record.decision_id);
    out.extend_from_slice(b",\"type\":[\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\"],\"outcome\":\"");
    out.extend_from_slice(outcome.as_bytes());
    out.push(b'"');
    if let Some(duration) = record.duration.filter(|d| *d <= i64::MAX as u64) {
        out.extend_from_slice(b",\"duration\":");
        out.extend_from_slice(duration.to_string().as_bytes());
    }
    if let Some(text) = text {
        out.extend_from_slice(b",\"original\":");
        push_string(out, text);
    }
    out.extend_from_slice(b"},\"trace\":{\"id\":\"");
    push_hex(out, &record.trace_id.to_bytes());
    out.extend_from_slice(b"\"},\"span\":{\"id\":\"");
    push_hex(out, &record.span_id.to_bytes());
    out.extend_from_slice(b"\"},\"service\":{\"name\":");
    push_string(out, cut(&record.service));
    if let Some(instance) = &record.instance {
        out.extend_from_slice(b",\"node\":{\"name\":");
        push_string(out, cut(instance));
        out.push(b'}');
    }
    out.extend_from_slice(b"},\"rule\":{\"name\":");
    push_string(out, cut(&record.policy));
    if let Some((bundle, revision)) = record.revisions().first() {
        out.extend_from_slice(b",\"ruleset\":");
        push_string(out, cut(bundle));
        out.extend_from_slice(b",\"version\":");
        push_string(out, cut(revision));
    }
    out.extend_from_slice(b"}}");
}

/// Hex digits of the hash in a document's id.
const HASH: usize = 20;
/// Elasticsearch takes ids of 512 bytes.
const LONGEST: usize = 512 - HASH - 1;

/// The id of a record's document: the decision id, and a hash of what the decision is. A repeat has the same, another decision under the
/// same id has not.
#[cfg(test)]
pub fn document_id(record: &Record<'_>) -> String {
    document_id_of(&record.decision_id, &hex(&record.content()))
}

/// The same of what stands for a decision's content.
pub fn document_id_of(id: &str, content: &str) -> String {
    let mut out = String::with_capacity(id.len() + 1 + HASH);
    let end = (0..=id.len().min(LONGEST)).rev().find(|at| id.is_char_boundary(*at));
    out.push_str(&id[..end.unwrap_or(0)]);
    out.push('-');
    out.push_str(content);
    out
}

/// The decision id in a document's id.
pub fn decision_id(document_id: &str) -> &str {
    let at = document_id.len().saturating_sub(HASH + 1);
    match document_id.split_at_checked(at) {
        Some((id, hash)) if hash.starts_with('-') => id,
        // As ids were before.
        _ => document_id,
    }
}

/// What stands beside a record's text: its action and its names in ECS, as long as most are.
const BESIDE: usize = 720;

/// The body of a bulk request, not compressed yet, and what stands for the contents of its documents.
pub fn bulk(batch: &[Record<'_>]) -> (Vec<u8>, Vec<String>) {
    let mut out = Vec::with_capacity(batch.iter().map(|r| r.raw.len() + BESIDE).sum());
    let mut contents = Vec::with_capacity(batch.len());
    for record in batch {
        let content = hex(&record.content());
        out.extend_from_slice(b"{\"create\":{\"_id\":");
        push_string(&mut out, &document_id_of(&record.decision_id, &content));
        out.extend_from_slice(b"}}\n");
        document(record, &mut out);
        out.push(b'\n');
        contents.push(content);
    }
    (out, contents)
}
