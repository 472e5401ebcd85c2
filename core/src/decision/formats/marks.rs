//! What makes bytes look like a decision, even where they can't be read as one: so that nothing that may be
//! one is passed over.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use super::json::Member;

/// These alone are enough.
const SURE: usize = 2;
/// Names that little else than a decision has; each with the quote before it, as it stands in JSON, and in
/// JSON inside a string.
const STRONG: usize = 9;
const MARKS: [&str; 15] = [
    "decision_id",
    "Decision Log",
    "\"requested_by",
    "\"labels",
    "\"input",
    "\"result",
    "\"nd_builtin_cache",
    "\"bundles",
    "timer_rego_",
    "timer_server_handler",
    "openpolicyagent.org/decision",
    "\"path",
    "\"timestamp",
    "\"query",
    "\"metrics",
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

/// Whether a decision's id stands in it.
pub(super) fn sure(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, MARKS[0].as_bytes()).is_some()
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
