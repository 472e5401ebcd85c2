//! What docket itself found as a docket record, so that every sink gets it beside the decisions that it is about.

use serde_json::{Value, json};

use crate::decision::ids::{self, TraceId};
use crate::decision::json::push_string;
use crate::decision::time::{self, Nanos};

/// A finding, and what a docket record says of it.
pub struct Found<'f> {
    /// The record's id; another one under it would be the same finding.
    pub id: &'f str,
    pub at: Nanos,
    pub body: Value,
    pub sentence: &'f str,
    /// What found it.
    pub by: &'f str,
    pub policy: &'f str,
    /// That of what it is about, if that is known.
    pub trace: Option<TraceId>,
    pub links: Vec<Value>,
    pub service: &'f str,
}

pub fn finding(found: Found<'_>) -> Vec<u8> {
    let Found { id, by, .. } = found;
    let timestamp = time::format(found.at);
    let original = json!({ "decision_id": id, "timestamp": timestamp, "type": "docket.finding", "finding": found.body });
    let mut out = original.to_string().into_bytes();
    out.pop();
    out.extend_from_slice(
        format!(",\"@timestamp\":\"{timestamp}\",\"docket\":{{\"v\":1,\"verdict\":\"finding\",\"verdict_from\":\"{by}\",\"reasons\":[").as_bytes(),
    );
    push_string(&mut out, found.sentence);
    out.extend_from_slice(b"],\"engine\":\"docket\",\"policy\":");
    push_string(&mut out, found.policy);
    let derived = ids::derive(id);
    let (trace, from) = found.trace.map_or((derived.trace, "none"), |trace| (trace, by));
    let ids = format!(
        ",\"trace_id\":\"{trace}\",\"span_id\":\"{}\",\"trace_from\":\"{from}\"",
        derived.span
    );
    out.extend_from_slice(ids.as_bytes());
    if !found.links.is_empty() {
        let links = Value::from(found.links);
        out.extend_from_slice(format!(",\"links\":{links}").as_bytes());
    }
    out.extend_from_slice(b",\"service\":{\"name\":");
    push_string(&mut out, if found.service.is_empty() { "docket" } else { found.service });
    out.extend_from_slice(b"}}}");
    out
}
