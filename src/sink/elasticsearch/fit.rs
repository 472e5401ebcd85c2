//! What of a docket record Elasticsearch and OpenSearch don't take as it stands, and the same record without it. Pure.
//!
//! An index refuses a document whole for one field: a term beyond Lucene's 32,766 bytes, a name or a number longer than its JSON
//! parser reads, a value that the mapping has another type for, a name that reads as a path into a mapped object. Such parts are
//! left out where they would be indexed; `encode` puts the whole record's text beside what is left, as `event.original`.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::decision::json::{self, Member, push_string};
use crate::decision::record::Record;
use crate::decision::time;
use crate::decision::verdict::Verdict;

/// A term: of a flattened member, path and value. Lucene takes 32,766 bytes; what the server puts around it has to have room.
const TERM: usize = 32_000;
/// The JSON parser (Jackson) takes names of 50,000 bytes.
const NAME: usize = 32_000;
/// And numbers of 1,000 digits.
const NUMBER: usize = 900;
/// What is derived from the decision is cut to this: it stands whole in the original.
const CUT: usize = 8_000;

/// How the index holds a member of a decision.
enum Held {
    /// Under a name that is docket's own, or that is no name of a field.
    Not,
    /// As a term: text.
    Term,
    Terms,
    Date,
    Long,
    Metrics,
    /// As `flattened` (`flat_object`).
    Flattened,
    /// Not at all: it only stands there.
    Stored,
}

fn held(name: &str, verdict: Verdict) -> Held {
    match name {
        "input" | "result" | "labels" | "bundles" => Held::Flattened,
        "path" | "query" | "trace_id" | "span_id" | "revision" | "requested_by" | "decision_id"
        | "batch_decision_id" => Held::Term,
        "metrics" => Held::Metrics,
        "timestamp" => Held::Date,
        "req_id" => Held::Long,
        "erased" | "masked" => Held::Terms,
        "event" | "trace" | "span" | "service" | "rule" => Held::Not,
        "finding" if verdict != Verdict::Finding => Held::Not,
        name if names_a_field(name) => Held::Stored,
        _ => Held::Not,
    }
}

/// Whether a name can stand in a mapped object. With dots it is a path, and a name that begins with an underscore may be
/// one of the index' own.
fn names_a_field(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME
        && !name.starts_with('_')
        && !name.bytes().any(|b| matches!(b, b'.' | 0))
        && !name.chars().all(char::is_whitespace)
}

/// The timers and counters that the index has as `long`.
const METRICS: [&str; 6] = [
    "timer_server_handler_ns",
    "timer_rego_query_eval_ns",
    "timer_rego_input_parse_ns",
    "timer_rego_query_compile_ns",
    "timer_rego_external_resolve_ns",
    "counter_server_query_cache_hit",
];

/// Whether the index surely takes the record as it stands: a quick look. Few others turn out to fit, too.
pub fn fits(record: &Record<'_>) -> bool {
    let raw = record.raw;
    if has_long_number(raw.as_bytes()) || has_nul(raw) || has_empty_name(record.docket) {
        return false;
    }
    let members = record.members();
    if !derived_fits(record) || raw.len() > TERM && !is_whole(record.docket, true) {
        return false;
    }
    members.iter().all(|member| {
        let value = member.value;
        match held(&member.key(), record.verdict) {
            Held::Not => false,
            Held::Term => value.len() <= TERM,
            Held::Terms => terms(value, &mut Vec::new()),
            Held::Date => is_date(value),
            Held::Long => is_long(value),
            Held::Metrics => {
                json::members(value).all(|m| metric_fits(&m) && is_whole(m.value, false))
            }
            Held::Flattened => {
                !has_empty_name(value)
                    && (value.len() < TERM || flattened(value, &mut Vec::new()) == Some(true))
            }
            Held::Stored => value.len() < NAME || is_whole(value, false),
        }
    })
}

/// Whether a run of digits could be longer than a number may be: it covers one of the places looked at.
fn has_long_number(raw: &[u8]) -> bool {
    let of_number = |b: &u8| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
    (NUMBER..raw.len()).step_by(NUMBER / 2).any(|at| {
        let before = raw[..at].iter().rev().take_while(|b| of_number(b)).count();
        let after = raw[at..].iter().take_while(|b| of_number(b)).count();
        before + after > NUMBER
    })
}

/// Flattened names hold no NUL, which separates them from their values.
fn has_nul(raw: &str) -> bool {
    static NUL: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(b"\\u0000"));
    NUL.find(raw.as_bytes()).is_some()
}

/// Whether an object in it has the empty text for a name.
fn has_empty_name(raw: &str) -> bool {
    static EMPTY: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(b"\"\""));
    EMPTY.find_iter(raw.as_bytes()).any(|at| raw[at + 2..].trim_ascii_start().starts_with(':'))
}

fn derived_fits(record: &Record<'_>) -> bool {
    [&record.policy, &record.service].iter().all(|text| text.len() <= TERM)
        && record.instance.as_ref().is_none_or(|text| text.len() <= TERM)
        && record.duration.is_none_or(|nanos| i64::try_from(nanos).is_ok())
        && record.revisions().iter().all(|(name, rev)| name.len() <= TERM && rev.len() <= TERM)
}

fn is_long(value: &str) -> bool {
    value == "null" || value.parse::<i64>().is_ok()
}

fn metric_fits(metric: &Member<'_>) -> bool {
    let (name, value) = (&*metric.key(), metric.value);
    names_a_field(name)
        && (!METRICS.contains(&name) || is_long(value))
        && leaf_fits(false, value, 0)
}

/// What `date_nanos` reads (`strict_date_optional_time_nanos`) and has room for: from 1970 to 2261.
fn is_date(value: &str) -> bool {
    let b = value.as_bytes();
    let Some(rest) = b.get(20..b.len().saturating_sub(1)).filter(|_| !b.contains(&b'\\')) else {
        return value == "null";
    };
    let head_is =
        b[11] == b'T' && b[18] != b'6' && (b"1971"..=b"2261").contains(&&[b[1], b[2], b[3], b[4]]);
    let rest = match rest {
        [b'.', digits @ ..] => {
            let n = digits.iter().take_while(|b| b.is_ascii_digit()).count();
            if !(1..=9).contains(&n) {
                return false;
            }
            &digits[n..]
        }
        rest => rest,
    };
    // Offsets go up to 18 hours.
    let near = |hours: &[u8]| (b"00"..=b"17").contains(&&[hours[0], hours[1]]);
    head_is && (rest == b"Z" || rest.len() == 6 && near(&rest[1..3]))
}

/// Whether everything in a value fits, which does.
fn is_whole(value: &str, flattened: bool) -> bool {
    !value.starts_with(['{', '[']) || pruned(value, flattened, &mut Vec::new())
}

/// Appends a value without what does not fit in it; says whether that is all of it.
fn pruned(value: &str, flattened: bool, out: &mut Vec<u8>) -> bool {
    let mut pruning = Pruning { flattened, whole: true, out };
    pruning.value(value, 0);
    pruning.whole
}

/// Copies a value without what does not fit.
struct Pruning<'o> {
    /// Each leaf is a term, with its path.
    flattened: bool,
    /// Nothing was left out.
    whole: bool,
    out: &'o mut Vec<u8>,
}

impl Pruning<'_> {
    fn leaf_fits(&self, value: &str, path: usize) -> bool {
        leaf_fits(self.flattened, value, path)
    }

    fn name_fits(&self, name: &str, path: usize) -> bool {
        name.len() <= NAME
            && (!self.flattened
                || !name.is_empty() && !name.contains('\0') && path + name.len() < TERM - NUMBER)
    }

    fn value(&mut self, value: &str, path: usize) {
        match value.as_bytes().first() {
            Some(b'{') => {
                self.out.push(b'{');
                let mut first = true;
                for member in json::members(value) {
                    let (name, inner) = (member.key(), path + member.name.len() + 1);
                    if !self.name_fits(&name, path) || !self.leaf_fits(member.value, inner) {
                        self.whole = false;
                        continue;
                    }
                    comma(&mut first, self.out);
                    push_name(member.name, self.out);
                    self.value(member.value, inner);
                }
                self.out.push(b'}');
            }
            Some(b'[') => {
                self.out.push(b'[');
                let mut first = true;
                for element in json::elements(value) {
                    if !self.leaf_fits(element, path) {
                        self.whole = false;
                        continue;
                    }
                    comma(&mut first, self.out);
                    self.value(element, path);
                }
                self.out.push(b']');
            }
            _ => self.out.extend_from_slice(value.as_bytes()),
        }
    }
}

fn comma(first: &mut bool, out: &mut Vec<u8>) {
    if !std::mem::take(first) {
        out.push(b',');
    }
}

/// A name as it is written, with its escapes.
fn push_name(name: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn leaf_fits(flattened: bool, value: &str, path: usize) -> bool {
    match value.as_bytes().first() {
        // Intake takes no more levels than the template's `depth_limit`.
        Some(b'{' | b'[') => true,
        Some(b'"') => !flattened || path + value.len() <= TERM,
        _ => value.len() <= NUMBER,
    }
}

/// Appends the record's members and the `docket` member without what the index does not take; the object stays open. Says
/// whether that is all of the record.
pub fn fitting(record: &Record<'_>, out: &mut Vec<u8>) -> bool {
    let mut whole = true;
    out.push(b'{');
    for member in record.members() {
        let (start, value) = (out.len(), member.value);
        push_name(member.name, out);
        // Nothing of it, or what of it fits.
        let kept = match held(&member.key(), record.verdict) {
            Held::Not => None,
            _ if value == "null" => plain(true, value, out),
            Held::Term => plain(value.len() <= TERM, value, out),
            Held::Date => plain(is_date(value), value, out),
            Held::Long => plain(is_long(value), value, out),
            Held::Terms => Some(terms(value, out)),
            Held::Metrics => Some(metrics(value, out)),
            Held::Flattened => flattened(value, out),
            Held::Stored if leaf_fits(false, value, 0) => Some(pruned(value, false, out)),
            Held::Stored => None,
        };
        match kept {
            Some(_) => out.push(b','),
            None => out.truncate(start),
        }
        whole &= kept == Some(true);
    }
    out.extend_from_slice(b"\"@timestamp\":\"");
    time::push(out, record.timestamp);
    out.extend_from_slice(b"\",\"docket\":");
    docket(record, out) && whole
}

fn plain(fits: bool, value: &str, out: &mut Vec<u8>) -> Option<bool> {
    out.extend_from_slice(value.as_bytes());
    fits.then_some(true)
}

/// The name of a value that `flattened` can't hold as it is.
const VALUE: &str = "value";

pub fn wrapped(out: &mut Vec<u8>, value: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"{\"");
    out.extend_from_slice(VALUE.as_bytes());
    out.extend_from_slice(b"\":");
    value(out);
    out.push(b'}');
}

fn flattened(value: &str, out: &mut Vec<u8>) -> Option<bool> {
    if value.starts_with('{') || value == "null" {
        return Some(pruned(value, true, out));
    }
    if !leaf_fits(true, value, VALUE.len()) {
        return None;
    }
    let mut whole = true;
    wrapped(out, |out| whole = pruned(value, true, out));
    Some(whole)
}

fn terms(value: &str, out: &mut Vec<u8>) -> bool {
    let (mut whole, mut first) = (true, true);
    out.push(b'[');
    for element in json::elements(value) {
        if !element.starts_with('"') || element.len() > TERM {
            whole = false;
            continue;
        }
        comma(&mut first, out);
        out.extend_from_slice(element.as_bytes());
    }
    out.push(b']');
    whole
}

fn metrics(value: &str, out: &mut Vec<u8>) -> bool {
    let (mut whole, mut first) = (true, true);
    out.push(b'{');
    for member in json::members(value) {
        if !metric_fits(&member) {
            whole = false;
            continue;
        }
        comma(&mut first, out);
        push_name(member.name, out);
        whole &= pruned(member.value, false, out);
    }
    out.push(b'}');
    whole
}

/// The `docket` member. What in it is derived from the decision is cut.
fn docket(record: &Record<'_>, out: &mut Vec<u8>) -> bool {
    let (mut whole, mut first) = (derived_fits(record), true);
    out.push(b'{');
    let long = |m: &Member<'_>| m.name != "duration_ns" || is_long(m.value);
    for member in json::members(record.docket).filter(long) {
        comma(&mut first, out);
        push_name(member.name, out);
        match member.name {
            "policy" => push_string(out, cut(&record.policy)),
            "service" => {
                out.extend_from_slice(b"{\"name\":");
                push_string(out, cut(&record.service));
                if let Some(instance) = &record.instance {
                    out.extend_from_slice(b",\"instance_id\":");
                    push_string(out, cut(instance));
                }
                out.push(b'}');
            }
            name => whole &= pruned(member.value, name == "agent", out),
        }
    }
    out.push(b'}');
    whole
}

/// What is kept of a text that is derived from the decision, where it stands whole.
pub fn cut(text: &str) -> &str {
    if text.len() <= TERM {
        return text;
    }
    let end = (0..=CUT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
