//! The reasons that a result gives, where policies usually put them.

use std::borrow::Cow;

use super::{MAX_REASON_BYTES, MAX_REASONS, json, shape};

/// Reasons where policies usually put them.
pub(super) fn usual_reasons<'a>(result: &'a str, out: &mut Vec<Cow<'a, str>>) {
    match result.as_bytes().first() {
        Some(b'[') => collect(result, out),
        Some(b'{') => {
            in_object(result, out);
            if out.is_empty()
                && let Some(body) = json::get(result, "body")
                && json::get(result, "allowed").is_some()
            {
                // What Envoy's plugin answers instead of the service.
                collect(body, out);
            }
        }
        _ => {}
    }
}

fn in_object<'a>(object: &'a str, out: &mut Vec<Cow<'a, str>>) {
    for member in json::members(object) {
        match member.name {
            "reason" | "reasons" | "message" | "messages" | "msg" => collect(member.value, out),
            // An AdmissionReview's response, AuthZEN's context, Envoy's answer as Kyverno writes it.
            "status" => collect(member.value, out),
            "response" | "context" | "result" | "denied_response"
                if member.value.starts_with('{') =>
            {
                for inner in json::members(member.value) {
                    match inner.name {
                        "status" | "reason" | "reasons" | "message" | "msg" | "body" => {
                            collect(inner.value, out);
                        }
                        name if shape::is_objection(name) => objections(inner.value, out),
                        _ => {}
                    }
                }
            }
            name if shape::is_objection(name) => objections(member.value, out),
            _ => {}
        }
    }
}

/// Texts of objections; of an object that is none itself (`deny[key] := reason`), those of its members.
fn objections<'a>(raw: &'a str, out: &mut Vec<Cow<'a, str>>) {
    let before = out.len();
    collect(raw, out);
    if raw.starts_with('{') && out.len() == before {
        json::members(raw).for_each(|m| collect(m.value, out));
    }
}

/// Adds the texts of a reason: a string, an object with a message, or an array of these.
pub(super) fn collect<'a>(raw: &'a str, out: &mut Vec<Cow<'a, str>>) {
    if out.len() >= MAX_REASONS {
        return;
    }
    match raw.as_bytes().first() {
        Some(b'"') => {
            let Some(text) = json::as_str(raw) else { return };
            if !text.is_empty() {
                out.push(shorten(text));
            }
        }
        Some(b'[') => {
            for element in json::elements(raw) {
                match element.as_bytes().first() {
                    Some(b'"') => collect(element, out),
                    Some(b'{') => message_of(element, out),
                    _ => {}
                }
            }
        }
        Some(b'{') => message_of(raw, out),
        _ => {}
    }
}

fn message_of<'a>(object: &'a str, out: &mut Vec<Cow<'a, str>>) {
    let text = ["message", "msg", "reason", "code"]
        .iter()
        .find_map(|name| json::get(object, name).filter(|raw| raw.starts_with('"')));
    if let Some(raw) = text {
        collect(raw, out);
    }
}

pub(super) fn shorten(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.len() <= MAX_REASON_BYTES {
        return text;
    }
    let end = (0..=MAX_REASON_BYTES - 3).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    Cow::Owned(format!("{}…", &text[..end]))
}
