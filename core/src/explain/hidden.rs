//! What of the input is not what OPA saw: erased or masked before it was logged.

use serde_json::Value as Json;

use super::Recorded;
use crate::decision::json as raw;
use crate::protect::keys::{is_envelope, is_pseudonym};

/// A part of the input that is not what OPA saw.
#[derive(Debug, Clone)]
pub struct Hidden {
    pub path: Vec<String>,
    pub how: &'static str,
}

/// What of the input was erased or masked: what the record says, and what stands in it.
pub fn hidden(recorded: &Recorded<'_>, input: Option<&Json>) -> Vec<Hidden> {
    let mut all = Vec::new();
    for (how, pointers) in [("erased", recorded.erased), ("masked", recorded.masked)] {
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

/// What docket put in the place of a text, wherever it stands: `[erased:..]`, a pseudonym, an envelope.
fn marked(value: &Json, at: &mut Vec<String>, all: &mut Vec<Hidden>) {
    let how = |text: &str| match text {
        text if text.contains("[erased:") => Some("erased"),
        text if is_pseudonym(text) || is_envelope(text) => Some("masked"),
        _ => None,
    };
    let mut found = |how: &'static str, at: &[String]| {
        if all.iter().all(|hidden| hidden.path != at) {
            all.push(Hidden { path: at.to_vec(), how });
        }
    };
    match value {
        Json::String(text) => {
            how(text).into_iter().for_each(|how| found(how, at));
        }
        Json::Array(list) => {
            for (i, value) in list.iter().enumerate() {
                at.push(i.to_string());
                marked(value, at, all);
                at.pop();
            }
        }
        Json::Object(members) => {
            for (name, value) in members {
                if let Some(how) = how(name)
                    && all.iter().all(|hidden| hidden.path != *at)
                {
                    all.push(Hidden { path: at.clone(), how });
                }
                at.push(name.clone());
                marked(value, at, all);
                at.pop();
            }
        }
        _ => {}
    }
}
