//! What of the input is not what OPA saw: erased or masked before it was logged.

use serde_json::Value as Json;

use super::Recorded;
use crate::decision::json as raw;
use crate::protect::keys::{is_envelope, is_pseudonym};

/// A part of the input that is not what OPA saw.
#[derive(Debug, Clone)]
pub struct Hidden {
    pub path: Vec<String>,
    pub how: How,
}

/// Who took it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// OPA's mask policy, or who wrote the log: it is gone.
    Erased,
    /// The same: something else stands there.
    Masked,
    /// docket's protection: what stands there is what docket writes.
    Protected,
}

impl How {
    /// What is said of a part of the input.
    pub fn told(self, what: &str) -> String {
        match self {
            How::Erased => format!("{what} was erased before it was logged"),
            How::Masked => format!("{what} was masked before it was logged"),
            How::Protected => format!(
                "docket's protection took {what} out of the record (`docket why --from` with OPA's own log can tell more)"
            ),
        }
    }
}

/// What of the input was erased or masked: what the record says, and what stands in it.
pub fn hidden(recorded: &Recorded<'_>, input: Option<&Json>) -> Vec<Hidden> {
    let mut all = Vec::new();
    for (how, pointers) in [(How::Erased, recorded.erased), (How::Masked, recorded.masked)] {
        for pointer in pointers.into_iter().flat_map(raw::elements).filter_map(raw::as_str) {
            let Some(rest) = pointer.strip_prefix("/input") else { continue };
            if rest.is_empty() || rest.starts_with('/') {
                let path = rest.split('/').skip(1).map(decoded).collect();
                all.push(Hidden { path, how });
            }
        }
    }
    if let Some(input) = input {
        marked(input, &mut Vec::new(), &mut all);
    }
    all
}

/// A pointer's part: docket's are RFC 6901's, OPA's percent-encoded.
fn decoded(part: &str) -> String {
    let bytes = part.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let digits = part.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).replace("~1", "/").replace("~0", "~")
}

/// Whether docket put a text there, or a part of it: `[erased:..]`, a pseudonym, an envelope.
fn is_docket_s(text: &str) -> bool {
    text.contains("[erased:") || is_pseudonym(text) || is_envelope(text)
}

/// What docket put there, wherever it stands. What is noted, too, is noted once.
fn marked(value: &Json, at: &mut Vec<String>, all: &mut Vec<Hidden>) {
    let mut found = |at: &[String]| match all.iter_mut().find(|hidden| hidden.path == at) {
        Some(noted) => noted.how = How::Protected,
        None => all.push(Hidden { path: at.to_vec(), how: How::Protected }),
    };
    match value {
        Json::String(text) if is_docket_s(text) => found(at),
        Json::Array(list) => {
            for (i, value) in list.iter().enumerate() {
                at.push(i.to_string());
                marked(value, at, all);
                at.pop();
            }
        }
        Json::Object(members) => {
            if members.keys().any(|name| is_docket_s(name)) {
                found(at);
            }
            for (name, value) in members {
                at.push(name.clone());
                marked(value, at, all);
                at.pop();
            }
        }
        _ => {}
    }
}
