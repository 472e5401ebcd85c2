//! What makes bytes look like a decision, even where they can't be read as one: so that nothing that may be
//! one is passed over.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use super::super::base64;
use super::json::Member;

/// These alone are enough: what only a decision has, as it is written, and in whatever it may be encoded in: Base64 by what
/// stands before it, gzip in it, hexadecimal, escapes, UTF-16, gzip.
const SURE: usize = 12;
/// Names that little else than a decision has; each with the quote before it, as it stands in JSON, and in
/// JSON inside a string.
const STRONG: usize = 9;
const MARKS: [&[u8]; 25] = [
    b"decision_id",
    b"Decision Log",
    b"ZGVjaXNpb25faW",
    b"RlY2lzaW9uX2lk",
    b"kZWNpc2lvbl9pZ",
    b"\"H4sI",
    b" H4sI",
    b"6465636973696f6e5f6964",
    b"6465636973696F6E5F6964",
    b"\\u0064\\u0065\\u0063\\u0069\\u0073\\u0069\\u00",
    b"d\0e\0c\0i\0s\0i\0o\0n\0_\0i\0d",
    b"\x1f\x8b\x08",
    b"\"requested_by",
    b"\"labels",
    b"\"input",
    b"\"result",
    b"\"nd_builtin_cache",
    b"\"bundles",
    b"timer_rego_",
    b"timer_server_handler",
    b"openpolicyagent.org/decision",
    b"\"path",
    b"\"timestamp",
    b"\"query",
    b"\"metrics",
];

static FINDER: LazyLock<AhoCorasick> =
    LazyLock::new(|| AhoCorasick::new(MARKS).expect("the patterns are constant and small"));

/// Whether this may be a decision, or hold one.
pub(super) fn like(bytes: &[u8]) -> bool {
    let (mut seen, mut strong, mut all) = (0u32, 0, 0);
    for hit in FINDER.find_iter(bytes) {
        let mark = hit.pattern().as_usize();
        if mark < SURE {
            return true;
        }
        if seen & 1 << mark == 0 {
            seen |= 1 << mark;
            all += 1;
            strong += usize::from(mark < SURE + STRONG);
            if enough(strong, all) {
                return true;
            }
        }
    }
    false
}

/// What a line of nothing but Base64 or hexadecimal says, if that may be a decision. Behind other text anybody may have
/// written it: a query, a name of a browser.
pub(super) fn decoded(line: &[u8]) -> Option<Vec<u8>> {
    let is_part = |b: &u8| b.is_ascii_alphanumeric() || b"+/-_=".contains(b);
    if line.len() < 16 || !line.iter().all(is_part) {
        return None;
    }
    let is_hexadecimal = line.len().is_multiple_of(2) && line.iter().all(u8::is_ascii_hexdigit);
    let plain = if is_hexadecimal {
        let digit = |b: u8| char::from(b).to_digit(16).unwrap_or_default() as u8;
        line.chunks_exact(2).map(|two| digit(two[0]) << 4 | digit(two[1])).collect()
    } else {
        base64::decode(line)?
    };
    Some(plain).filter(|plain| plain.starts_with(&[0x1f, 0x8b]) || like(plain))
}

/// Whether a decision's id stands in it.
pub(super) fn sure(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, MARKS[0]).is_some()
}

fn enough(strong: usize, all: usize) -> bool {
    strong >= 2 || (strong == 1 && all >= 3)
}

/// Whether an object may be a decision by the names of its own members.
pub(super) fn names(members: &[Member<'_>]) -> bool {
    let (mut strong, mut all) = (0, 0);
    for member in members {
        match member.name {
            "decision_id" => return true,
            "msg" if member.value == "\"Decision Log\"" => return true,
            "requested_by" | "labels" | "input" | "result" | "nd_builtin_cache" | "bundles" => {
                strong += 1;
                all += 1;
            }
            "type" if member.value.contains("openpolicyagent.org/decision") => {
                strong += 1;
                all += 1;
            }
            "path" | "timestamp" | "query" | "metrics" => all += 1,
            _ => {}
        }
    }
    enough(strong, all)
}
