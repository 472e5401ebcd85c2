//! Whether two decisions of one envelope are the same, or only have one id: a line, and what an agent made of it.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::super::event::Event;
use super::super::json::{self, push_string};

/// What a decision says, whatever its JSON looks like.
pub(super) type Content = [u8; 32];

/// What makes one decision another. Agents leave out others of its members.
const TOLD: [&str; 7] = ["path", "query", "input", "result", "error", "labels", "requested_by"];

pub(super) fn content(event: &Event<'_>) -> Content {
    let mut out = Vec::with_capacity(event.raw.len());
    push_string(&mut out, &event.decision_id);
    // Agents keep milliseconds.
    out.extend_from_slice(&event.timestamp.div_euclid(1_000_000).to_le_bytes());
    let mut told: Vec<(Cow<'_, str>, &str)> =
        json::members(event.raw).map(|m| (m.key(), m.value)).collect();
    told.retain(|(name, _)| TOLD.contains(&&**name));
    // Agents make text of objects.
    let texts: Vec<Option<Cow<'_, str>>> = told.iter().map(|(_, raw)| as_json(raw)).collect();
    let told = told.into_iter().zip(&texts);
    let told = told.map(|((name, raw), text)| (name, text.as_deref().unwrap_or(raw))).collect();
    members(&mut out, told);
    Sha256::digest(&out).into()
}

/// The object or array that a string holds.
fn as_json(raw: &str) -> Option<Cow<'_, str>> {
    let text = json::as_str(raw).filter(|text| text.starts_with(['{', '[']))?;
    json::check(text.as_bytes()).is_ok().then_some(text)
}

/// Members by their names; one that is null is as good as none.
fn members(out: &mut Vec<u8>, mut all: Vec<(Cow<'_, str>, &str)>) {
    all.retain(|(_, value)| *value != "null");
    all.sort_unstable();
    out.push(b'{');
    for (name, value) in all {
        push_string(out, &name);
        self::value(out, value);
    }
    out.push(b'}');
}

fn value(out: &mut Vec<u8>, raw: &str) {
    match raw.as_bytes().first() {
        Some(b'{') => members(out, json::members(raw).map(|m| (m.key(), m.value)).collect()),
        Some(b'[') => {
            out.push(b'[');
            for element in json::elements(raw) {
                value(out, element);
                out.push(b',');
            }
            out.push(b']');
        }
        Some(b'"') => push_string(out, &json::as_str(raw).unwrap_or_default()),
        Some(b'-' | b'0'..=b'9') => number(out, raw),
        _ => out.extend_from_slice(raw.as_bytes()),
    }
}

/// Beyond this, doubles have no room for each whole number.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// 1, 1.0 and 1e0 are one number, and so are whole numbers that only differ beyond what a double holds.
fn number(out: &mut Vec<u8>, raw: &str) {
    match raw.parse::<f64>() {
        Ok(n) if n.is_finite() => {
            // -0 is 0.
            let n = if n == 0.0 { 0.0 } else { n };
            let whole = n.fract() == 0.0 && n.abs() < EXACT;
            let text = if whole { format!("{n:.0}") } else { format!("{n:e}") };
            out.extend_from_slice(text.as_bytes());
        }
        _ => out.extend_from_slice(raw.as_bytes()),
    }
}
