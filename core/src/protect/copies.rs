//! Copies of a decision in its other members: an agent that parses a line and keeps it (Fluent Bit's
//! Merge_Log with Keep_Log) leaves one. No rule reaches into them, so they go.

use std::borrow::Cow;

use super::encoded::{decoded, percent_decoded};
use super::opa::Done;
use super::rules::is_opa_s;
use super::tree::{Name, Node, push};
use crate::decision::json;

/// Names by which a text is a decision's, whole or a piece of it.
const TELLING: [&str; 9] = [
    "decision_id",
    "input",
    "result",
    "requested_by",
    "nd_builtin_cache",
    "request_context",
    "intermediate_results",
    "mapped_result",
    "decision_logger",
];

/// Whether a decision has members that are not OPA's.
pub fn has_others(raw: &str) -> bool {
    json::members(raw).any(|m| !is_opa_s(&m.key()))
}

/// Takes copies out of the members of a decision that are not OPA's.
pub fn erase(event: &mut Node<'_>) -> Done {
    let mut done = Done::default();
    if let Node::Object(members) = event.open() {
        let mut at = String::new();
        members.retain_mut(|(name, node)| {
            let name = json::unescape(name);
            is_opa_s(&name) || !within(&name, node, &mut at, &mut done.erased)
        });
    }
    done.note(event);
    done
}

/// The same of what an agent wrapped around a decision.
pub fn erase_from(text: &str) -> Option<String> {
    let mut node = Node::Raw(text);
    let mut erased = Vec::new();
    children(&mut node, &mut String::new(), &mut erased);
    (!erased.is_empty()).then(|| node.to_text())
}

/// Whether a member is a copy; copies within it are taken out.
fn within(name: &str, node: &mut Node<'_>, at: &mut String, erased: &mut Vec<String>) -> bool {
    let length = at.len();
    push(at, name);
    let is_copy = match node {
        Node::Raw(text) if text.starts_with('"') => {
            json::as_str(text).is_some_and(|text| is_copy(&text, 4))
        }
        Node::Raw(text) if text.starts_with('{') => is_decision(text),
        _ => false,
    };
    if is_copy {
        erased.push(at.clone());
    } else {
        children(node, at, erased);
    }
    at.truncate(length);
    is_copy
}

fn children(node: &mut Node<'_>, at: &mut String, erased: &mut Vec<String>) {
    if !matches!(node, Node::Raw(text) if text.starts_with(['{', '[']) && mentions(text)) {
        return;
    }
    match node.open() {
        Node::Object(members) => members.retain_mut(|(name, node): &mut (Name<'_>, _)| {
            !within(&json::unescape(name), node, at, erased)
        }),
        Node::Array(elements) => {
            let mut i = 0;
            elements.retain_mut(|node| {
                i += 1;
                !within(&(i - 1).to_string(), node, at, erased)
            });
        }
        _ => {}
    }
}

/// An object that has a decision's id, or several of its members.
fn is_decision(text: &str) -> bool {
    let names: Vec<Cow<'_, str>> = json::members(text).map(|m| m.key()).collect();
    let has = |name: &str| names.iter().any(|n| n == name);
    has("decision_id")
        || (has("input") && (has("result") || has("path") || has("requested_by")))
        || (has("result") && has("requested_by"))
}

/// Whether there may be a copy in a document's text. What is encoded may be one.
fn mentions(text: &str) -> bool {
    TELLING.iter().any(|name| memchr::memmem::find(text.as_bytes(), name.as_bytes()).is_some())
        || super::encoded::may_have_base64(text.as_bytes())
        || memchr::memmem::find(text.as_bytes(), b"\\u").is_some()
}

/// Whether a text is a line of a decision, or a piece of one: JSON with a decision's names, however
/// often it is quoted.
fn is_copy(text: &str, depth: usize) -> bool {
    let bytes = text.as_bytes();
    let names = TELLING.iter().any(|name| {
        memchr::memmem::find_iter(bytes, name.as_bytes()).any(|at| {
            let quoted = |b: Option<&u8>| matches!(b, Some(b'"' | b'\'' | b'\\'));
            let end = at + name.len();
            // "input": in JSON, input= in a line of logrus.
            at.checked_sub(1).is_some_and(|before| quoted(bytes.get(before)))
                && quoted(bytes.get(end))
                || (text.contains("decision_id") && bytes.get(end) == Some(&b'='))
        })
    });
    if names || depth == 0 {
        return names;
    }
    let inner = json::as_str(text.trim()).filter(|inner| *inner != text);
    if let Some(inner) = inner {
        return is_copy(&inner, depth - 1);
    }
    [percent_decoded(text, false), decoded(text.trim())]
        .into_iter()
        .flatten()
        .any(|inner| is_copy(&inner, depth - 1))
}
