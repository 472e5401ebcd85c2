//! OPA's own mask rules, as OPA 1.22 applies them (v1/plugins/logs/mask.go): remove and upsert below /input, /result and
//! /nd_builtin_cache; what was done goes to `erased` and `masked`.
//!
//! OPA splits a path at its slashes and path-escapes each part (RFC 3986, as Go's url.PathEscape does); `~1` and `~0` of JSON pointers mean
//! nothing to it. So it is here, since a team's mask policy has to mean the same in both places.

use serde_json::Value;

use super::taken::{POLICY, Taken};
use super::tree::Node;
use crate::decision::json;

#[derive(Debug, Clone, PartialEq)]
pub struct Mask {
    /// Path-escaped; the first is the document.
    parts: Vec<String>,
    op: Op,
}

#[derive(Debug, Clone, PartialEq)]
enum Op {
    Remove,
    /// JSON.
    Upsert(String),
}

/// What a mask policy may not say. OPA drops the decision then, and says so in its log only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    #[error("the mask policy answered {0}, which is no list of rules")]
    Format(&'static str),
    #[error("a mask rule is {0}; it must be a string or an object")]
    Rule(&'static str),
    #[error("the op of a mask rule is {0:?}; it must be remove or upsert")]
    Op(String),
    #[error(
        "the path of a mask rule is {0:?}; it must begin with /input, /result or /nd_builtin_cache"
    )]
    Path(String),
}

const DOCUMENTS: [&str; 3] = ["input", "result", "nd_builtin_cache"];

/// The rules of a mask policy's answer.
pub fn masks(answer: &Value) -> Result<Vec<Mask>, MaskError> {
    let Value::Array(rules) = answer else { return Err(MaskError::Format(kind(answer))) };
    let mask = |rule: &Value| match rule {
        Value::String(path) => Mask::new(path, Op::Remove),
        Value::Object(rule) => {
            let text = |name: &str| rule.get(name).and_then(Value::as_str).unwrap_or_default();
            let op = match text("op") {
                "remove" => Op::Remove,
                // Without a value it is null.
                "upsert" => Op::Upsert(rule.get("value").unwrap_or(&Value::Null).to_string()),
                other => return Err(MaskError::Op(other.to_owned())),
            };
            Mask::new(text("path"), op)
        }
        other => Err(MaskError::Rule(kind(other))),
    };
    rules.iter().map(mask).collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

impl Mask {
    fn new(path: &str, op: Op) -> Result<Mask, MaskError> {
        let wrong = || MaskError::Path(path.to_owned());
        let rest = path.strip_prefix('/').ok_or_else(wrong)?;
        let parts: Vec<&str> = rest.split('/').collect();
        if !DOCUMENTS.contains(&parts[0]) || !parts.iter().all(|part| unescapes(part)) {
            return Err(wrong());
        }
        Ok(Mask { parts: parts.into_iter().map(escape).collect(), op })
    }

    fn path(&self) -> String {
        format!("/{}", self.parts.join("/"))
    }

    /// Applies the rule to an event; whether it did anything.
    fn apply(&self, event: &mut Node<'_>, taken: &mut Taken) -> bool {
        let document = self.parts[0].as_str();
        let Some(root) = event.member(document) else { return false };
        let path = &self.parts[1..];
        match &self.op {
            Op::Remove if path.is_empty() => {
                taken.node(root, document, None, POLICY);
                event.remove(document)
            }
            Op::Remove => remove(root, path, taken),
            Op::Upsert(value) if path.is_empty() => {
                taken.node(root, document, None, POLICY);
                *root = Node::New(value.clone());
                true
            }
            Op::Upsert(value) => {
                matches!(root.open(), Node::Object(_) | Node::Array(_))
                    && upsert(root, path, value, taken)
            }
        }
    }
}

/// Applies rules in their order, and notes what they did in `erased` and `masked`.
pub fn apply(rules: &[Mask], event: &mut Node<'_>, taken: &mut Taken) -> Done {
    let mut done = Done::default();
    for rule in rules {
        if rule.apply(event, taken) {
            match rule.op {
                Op::Remove => done.erased.push(rule.path()),
                Op::Upsert(_) => done.masked.push(rule.path()),
            }
        }
    }
    done.note(event);
    done
}

/// Paths of what was taken out and of what was changed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Done {
    pub erased: Vec<String>,
    pub masked: Vec<String>,
}

impl Done {
    pub fn is_nothing(&self) -> bool {
        self.erased.is_empty() && self.masked.is_empty()
    }

    /// Appends them to the event's lists.
    pub fn note(&self, event: &mut Node<'_>) {
        note(event, "erased", &self.erased);
        note(event, "masked", &self.masked);
    }
}

fn note(event: &mut Node<'_>, list: &str, paths: &[String]) {
    if paths.is_empty() {
        return;
    }
    let text = |path: &String| {
        let mut out = Vec::new();
        json::push_string(&mut out, path);
        Node::New(String::from_utf8(out).expect("a JSON string is text"))
    };
    if let Some(Node::Array(known)) = event.member(list).map(Node::open) {
        known.extend(paths.iter().map(text));
    } else {
        event.set(list, Node::Array(paths.iter().map(text).collect()));
    }
}

/// An index as Go's strconv.Atoi reads it, which takes a sign and leading zeros.
fn index(part: &str) -> Option<usize> {
    let digits = part.strip_prefix('+').unwrap_or(part);
    let zero = part
        .strip_prefix('-')
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b == b'0'));
    if zero {
        return Some(0);
    }
    digits.bytes().next()?.is_ascii_digit().then(|| digits.parse().ok()).flatten()
}

/// The name of the list that a path leads to.
fn name_of(path: &[String]) -> &str {
    path.iter().rev().find(|part| index(part).is_none()).map_or("", String::as_str)
}

fn remove(root: &mut Node<'_>, path: &[String], taken: &mut Taken) -> bool {
    let Some((last, before)) = path.split_last() else { return false };
    let mut node = root;
    for part in before {
        let Some(next) = node.child(part, index) else { return false };
        node = next;
    }
    match node.open() {
        Node::Array(elements) => match index(last).filter(|at| *at < elements.len()) {
            Some(at) => {
                taken.node(&elements.remove(at), name_of(before), None, POLICY);
                true
            }
            None => false,
        },
        _ => {
            if let Some(child) = node.member(last) {
                taken.node(child, last, None, POLICY);
            }
            node.remove(last)
        }
    }
}

/// Missing parents become objects, even if it fails further down: so does OPA.
fn upsert(root: &mut Node<'_>, path: &[String], value: &str, taken: &mut Taken) -> bool {
    let Some((last, before)) = path.split_last() else { return false };
    let mut node = root;
    for part in before {
        if matches!(node.open(), Node::Object(_)) && node.member(part).is_none() {
            node.set(part, Node::Object(Vec::new()));
        }
        let Some(next) = node.child(part, index) else { return false };
        node = next;
    }
    match node.open() {
        Node::Object(_) => {
            if let Some(child) = node.member(last).filter(|child| child.to_text() != value) {
                taken.node(child, last, None, POLICY);
            }
            node.set(last, Node::New(value.to_owned()));
            true
        }
        Node::Array(elements) => match index(last).and_then(|at| elements.get_mut(at)) {
            Some(element) => {
                taken.node(element, name_of(before), None, POLICY);
                *element = Node::New(value.to_owned());
                true
            }
            None => false,
        },
        _ => false,
    }
}

/// Go's url.PathEscape: everything but unreserved characters and `$&+:=@` is written as `%XX`.
fn escape(part: &str) -> String {
    let mut out = String::with_capacity(part.len());
    for b in part.bytes() {
        match b {
            b'A'..=b'Z'
            | b'a'..=b'z'
            | b'0'..=b'9'
            | b'-'
            | b'_'
            | b'.'
            | b'~'
            | b'$'
            | b'&'
            | b'+'
            | b':'
            | b'='
            | b'@' => out.push(char::from(b)),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

/// Whether Go's url.PathUnescape takes it: each `%` is followed by two hex digits.
fn unescapes(part: &str) -> bool {
    let bytes = part.as_bytes();
    (0..bytes.len())
        .filter(|i| bytes[*i] == b'%')
        .all(|i| bytes.get(i + 1..i + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn masked(event: &str, rules: &Value) -> String {
        let mut node = Node::Raw(event);
        apply(&masks(rules).unwrap(), &mut node, &mut Taken::default());
        node.to_text()
    }

    #[test]
    fn as_opa_does() {
        let event = r#"{"input":{"password":"x","list":[1,{"a":2},3],"keep":1.50},"result":{"allow":true},"erased":["/input/old"]}"#;
        for (rules, expected) in [
            (
                json!(["/input/password", "/input/none"]),
                r#"{"input":{"list":[1,{"a":2},3],"keep":1.50},"result":{"allow":true},"erased":["/input/old","/input/password"]}"#,
            ),
            (
                json!(["/input/list/1/a"]),
                r#"{"input":{"password":"x","list":[1,{},3],"keep":1.50},"result":{"allow":true},"erased":["/input/old","/input/list/1/a"]}"#,
            ),
            (
                json!(["/input/list/7"]),
                r#"{"input":{"password":"x","list":[1,{"a":2},3],"keep":1.50},"result":{"allow":true},"erased":["/input/old"]}"#,
            ),
            (json!(["/input"]), r#"{"result":{"allow":true},"erased":["/input/old","/input"]}"#),
            (
                json!([{"op": "upsert", "path": "/input/a/b", "value": {"c": [1]}}]),
                r#"{"input":{"password":"x","list":[1,{"a":2},3],"keep":1.50,"a":{"b":{"c":[1]}}},"result":{"allow":true},"erased":["/input/old"],"masked":["/input/a/b"]}"#,
            ),
            (
                json!([{"op": "upsert", "path": "/result", "value": "gone"}]),
                r#"{"input":{"password":"x","list":[1,{"a":2},3],"keep":1.50},"result":"gone","erased":["/input/old"],"masked":["/result"]}"#,
            ),
        ] {
            assert_eq!(masked(event, &rules), expected, "{rules}");
        }
    }

    #[test]
    fn what_opa_refuses() {
        for rules in [
            json!({}),
            json!([1]),
            json!([""]),
            json!(["input/a"]),
            json!(["/labels/a"]),
            json!(["/input/%zz"]),
            json!([{ "path": "/input/a" }]),
            json!([{ "op": "replace", "path": "/input/a" }]),
            json!([{ "op": "remove" }]),
        ] {
            assert!(masks(&rules).is_err(), "{rules}");
        }
    }
}
