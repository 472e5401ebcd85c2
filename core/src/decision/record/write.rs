//! Writes the docket record: the original decision, byte for byte, plus the two members `"@timestamp"`
//! and `"docket"`. A pure function of the original's bytes and the pipeline file, so that a repeat is
//! byte-identical. The shape is documented in docs/record.md.

use std::borrow::Cow;

use crate::decision::event::Event;
use crate::decision::ids::{self, Derived, push_hex};
use crate::decision::json::{self, push_string};
use crate::decision::request;
use crate::decision::time;
use crate::decision::trace::{self, Carrier, Found};
use crate::decision::verdict::{self, Basis, Judgement, Verdict};

/// What intake needs from the pipeline file to make a docket record of a decision.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    pub verdict: verdict::Rules,
    pub trace: trace::Rules,
    pub service: Service,
    pub request: request::Rules,
}

/// How a decision's service is named.
#[derive(Debug, Clone)]
pub struct Service {
    /// The OPA label that holds the service's name, and the one that tells its instances apart.
    pub name_label: String,
    pub instance_label: String,
}

impl Default for Service {
    fn default() -> Service {
        Service { name_label: "app".into(), instance_label: "id".into() }
    }
}

/// What a log agent wrapped around the decision, kept as `docket.agent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// A JSON object.
    pub json: String,
}

/// What intake counts of a decision that it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The Kafka key: the trace id in hex or, without a trace context, the decision id.
    pub key: String,
    pub verdict: Verdict,
    pub judged_by: Basis,
    pub trace_from: Carrier,
    pub trace_mismatch: bool,
    pub malformed_ids: u32,
}

/// What is found out of a decision: whose request it belongs to, and what it answered.
pub struct Derivation<'a> {
    pub found: Found,
    pub judgement: Judgement<'a>,
}

impl<'a> Derivation<'a> {
    pub fn of(
        event: &Event<'a>,
        record_headers: &[(&str, &[u8])],
        rules: &Rules,
    ) -> Derivation<'a> {
        Derivation {
            found: trace::find(event, record_headers, &rules.trace),
            judgement: verdict::judge(event, &rules.verdict),
        }
    }
}

/// Appends the docket record of a decision to `out`, as it is.
pub fn write(
    event: &Event<'_>,
    record_headers: &[(&str, &[u8])],
    agent: Option<&Agent>,
    rules: &Rules,
    out: &mut Vec<u8>,
) -> Written {
    write_derived(event, &Derivation::of(event, record_headers, rules), agent, rules, out)
}

/// Appends the docket record of a decision of which it is known what is derived from it.
pub fn write_derived(
    event: &Event<'_>,
    derivation: &Derivation<'_>,
    agent: Option<&Agent>,
    rules: &Rules,
    out: &mut Vec<u8>,
) -> Written {
    let Derivation { found, judgement } = derivation;
    let derived = ids::derive(&event.decision_id);
    original(event, out);
    out.extend_from_slice(b"\"@timestamp\":\"");
    time::push(out, event.timestamp);
    out.extend_from_slice(b"\",\"docket\":");
    member(event, found, judgement, &derived, agent, rules, out);
    out.push(b'}');
    let key = match found.parent {
        Some((context, _)) => ids::hex(&context.trace.to_bytes()),
        None => event.decision_id.to_string(),
    };
    Written {
        key,
        verdict: judgement.verdict,
        judged_by: judgement.from,
        trace_from: found.source(),
        trace_mismatch: found.mismatch,
        malformed_ids: found.malformed,
    }
}

/// The original object up to where new members go: without its closing brace, with a comma. Members that
/// the record needs for itself are left out here; `member` keeps them under `docket.original`.
fn original(event: &Event<'_>, out: &mut Vec<u8>) {
    if event.reserved.is_empty() {
        let body = event.raw[..event.raw.len() - 1].trim_end();
        out.reserve(body.len() + 512);
        out.extend_from_slice(body.as_bytes());
        // A decision always has members: at least its id and time.
        out.push(b',');
        return;
    }
    out.push(b'{');
    for member in json::members(event.raw) {
        if !event.reserved.contains(&member) {
            out.push(b'"');
            out.extend_from_slice(member.name.as_bytes());
            out.extend_from_slice(b"\":");
            out.extend_from_slice(member.value.as_bytes());
            out.push(b',');
        }
    }
}

fn member(
    event: &Event<'_>,
    found: &Found,
    judgement: &Judgement<'_>,
    derived: &Derived,
    agent: Option<&Agent>,
    rules: &Rules,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"v\":1,\"verdict\":\"");
    out.extend_from_slice(judgement.verdict.as_str().as_bytes());
    out.extend_from_slice(b"\",\"verdict_from\":\"");
    out.extend_from_slice(judgement.from.name().as_bytes());
    out.extend_from_slice(b"\",\"reasons\":[");
    for (i, reason) in judgement.reasons.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_string(out, reason);
    }
    out.extend_from_slice(b"],\"engine\":\"opa\",\"policy\":");
    push_string(out, policy(event));
    let (trace, parent) = match found.parent {
        Some((context, _)) => (context.trace, context.span),
        None => (derived.trace, None),
    };
    out.extend_from_slice(b",\"trace_id\":\"");
    push_hex(out, &trace.to_bytes());
    out.extend_from_slice(b"\",\"span_id\":\"");
    push_hex(out, &derived.span.to_bytes());
    if let Some(parent) = parent {
        out.extend_from_slice(b"\",\"parent_span_id\":\"");
        push_hex(out, &parent.to_bytes());
    }
    out.extend_from_slice(b"\",\"trace_from\":\"");
    out.extend_from_slice(found.source().as_str().as_bytes());
    out.push(b'"');
    if found.mismatch {
        out.extend_from_slice(b",\"trace_mismatch\":true");
    }
    links(&found.links, out);
    if let Some(duration) = event.duration() {
        out.extend_from_slice(b",\"duration_ns\":");
        out.extend_from_slice(duration.to_string().as_bytes());
    }
    for (name, value) in request::NAMES.into_iter().zip(rules.request.find(event)) {
        if let Some(value) = value {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            push_string(out, &value);
        }
    }
    service(event, &rules.service, out);
    if let Some(agent) = agent {
        out.extend_from_slice(b",\"agent\":");
        out.extend_from_slice(agent.json.as_bytes());
    }
    reserved(event, out);
    out.push(b'}');
}

fn links(links: &[trace::Context], out: &mut Vec<u8>) {
    if !links.is_empty() {
        out.extend_from_slice(b",\"links\":[");
        for (i, link) in links.iter().enumerate() {
            out.extend_from_slice(if i > 0 { b",{\"trace_id\":\"" } else { b"{\"trace_id\":\"" });
            push_hex(out, &link.trace.to_bytes());
            if let Some(span) = link.span {
                out.extend_from_slice(b"\",\"span_id\":\"");
                push_hex(out, &span.to_bytes());
            }
            out.extend_from_slice(b"\"}");
        }
        out.push(b']');
    }
}

fn service(event: &Event<'_>, rules: &Service, out: &mut Vec<u8>) {
    let name = event.label(&rules.name_label);
    let instance = event.label(&rules.instance_label);
    out.extend_from_slice(b",\"service\":{\"name\":");
    push_string(out, name.as_deref().filter(|n| !n.is_empty()).unwrap_or("opa"));
    if let Some(instance) = instance {
        out.extend_from_slice(b",\"instance_id\":");
        push_string(out, &instance);
    }
    out.push(b'}');
}

/// Members of the original that have docket's names.
fn reserved(event: &Event<'_>, out: &mut Vec<u8>) {
    if !event.reserved.is_empty() {
        out.extend_from_slice(b",\"original\":{");
        for (i, member) in event.reserved.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            push_string(out, &member.key());
            out.push(b':');
            out.extend_from_slice(member.value.as_bytes());
        }
        out.push(b'}');
    }
}

/// The policy that decided: the path, or a word for an ad hoc query, which has none.
fn policy<'a>(event: &'a Event<'_>) -> &'a str {
    match &event.path {
        Cow::Borrowed("") => "(query)",
        path if path.is_empty() => "(query)",
        path => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(doc: &str) -> (Written, String) {
        let event = Event::parse(doc.as_bytes()).unwrap();
        let mut out = Vec::new();
        let written = write(&event, &[], None, &Rules::default(), &mut out);
        let text = String::from_utf8(out).unwrap();
        json::check(text.as_bytes()).unwrap();
        (written, text)
    }

    #[test]
    fn the_original_stands_unchanged_before_the_two_new_members() {
        let doc = r#"{"labels":{"app":"orders","id":"i-1"}, "decision_id":"d1","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7",
"path":"http/authz/decision","result":{"allow":false,"reason":"frozen \u00fc"},"timestamp":"2026-11-24T12:48:50.16342407Z","metrics":{"timer_server_handler_ns":440784} }"#;
        let (written, text) = written(doc);
        assert!(text.starts_with(doc.strip_suffix(" }").unwrap()));
        insta::assert_snapshot!(&text[doc.len() - 2..], @r#","@timestamp":"2026-11-24T12:48:50.163424070Z","docket":{"v":1,"verdict":"deny","verdict_from":"object","reasons":["frozen ü"],"engine":"opa","policy":"http/authz/decision","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"6cef005826e7d7bb","parent_span_id":"00f067aa0ba902b7","trace_from":"decision","duration_ns":440784,"service":{"name":"orders","instance_id":"i-1"}}}"#);
        assert_eq!(written.key, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(self::written(doc).1, text);
    }

    #[test]
    fn members_that_docket_needs_are_moved_not_lost() {
        let (_, text) = written(
            r#"{"@timestamp":"x","decision_id":"d1","docket":{"v":0},"timestamp":"2026-11-24T12:48:50Z"}"#,
        );
        insta::assert_snapshot!(text, @r#"{"decision_id":"d1","timestamp":"2026-11-24T12:48:50Z","@timestamp":"2026-11-24T12:48:50.000000000Z","docket":{"v":1,"verdict":"undefined","verdict_from":"no_result","reasons":[],"engine":"opa","policy":"(query)","trace_id":"d6377d0c0831bd37876e7203a509e15c","span_id":"6cef005826e7d7bb","trace_from":"none","service":{"name":"opa"},"original":{"@timestamp":"x","docket":{"v":0}}}}"#);
    }

    #[test]
    fn numbers_that_fit_no_double_stay_as_they_are() {
        let (written, text) = written(
            r#"{"decision_id":"d1","timestamp":"2026-11-24T12:48:50Z","input":{"n":1e999,"i":123456789012345678901234567890},"result":-1E+400}"#,
        );
        assert!(
            text.contains(
                r#""input":{"n":1e999,"i":123456789012345678901234567890},"result":-1E+400,"#
            ),
            "{text}"
        );
        assert_eq!(written.verdict, Verdict::Undefined);
    }

    #[test]
    fn a_decision_without_a_trace_is_keyed_by_its_id_and_still_has_one_to_be_found_by() {
        let (written, text) = written(r#"{"decision_id":"d1","timestamp":"2026-11-24T12:48:50Z"}"#);
        assert_eq!((written.key.as_str(), written.trace_from), ("d1", Carrier::None));
        let trace = ids::hex(&ids::derive("d1").trace.to_bytes());
        assert!(text.contains(&format!("\"trace_id\":\"{trace}\"")));
        assert!(text.contains(r#""trace_from":"none""#));
    }
}
