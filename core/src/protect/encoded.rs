//! What stands inside a text: JSON, percent-encoding (forms, URLs), base64, each inside the others, to a
//! bounded depth. What is changed inside is encoded again as it was, so that a form stays a form.

use std::borrow::Cow;
use std::ops::Range;

use ::base64::Engine;

use super::changed::Changed;
use super::escapes;
use super::tree::quoted;
use crate::decision::base64::{self, BASE64};
use crate::decision::json;

/// How deep encodings are opened.
const MAX_DEPTH: usize = 8;

/// How many encodings deep, and how much may still be decoded.
pub struct Budget {
    depth: usize,
    left: usize,
}

impl Budget {
    /// For a document of so many bytes.
    pub fn new(bytes: usize) -> Budget {
        Budget { depth: 0, left: bytes.saturating_mul(16).saturating_add(64 * 1024) }
    }

    /// Whether to open what is encoded in a text of so many bytes; `leave` follows.
    fn enter(&mut self, bytes: usize) -> bool {
        if self.depth >= MAX_DEPTH || self.left < bytes {
            return false;
        }
        self.depth += 1;
        self.left -= bytes;
        true
    }

    fn leave(&mut self) {
        self.depth -= 1;
    }
}

/// The shortest base64 that is opened: `password=x`.
const SHORTEST: usize = 14;

/// JSON in a text that is not opened whole is looked for so often, at most.
const MAX_BEGINNINGS: usize = 32;

/// Who looks into texts. Each answers with the text as it is to be, if it is to change.
pub trait Look {
    /// Whether there may be anything in it, however it is encoded.
    fn wants(&self, text: &str) -> bool;
    fn budget(&mut self) -> &mut Budget;
    /// An object or an array.
    fn json(&mut self, json: &str) -> Option<String>;
    /// Text as it stands, before what is encoded in it is opened,
    fn pairs(&mut self, text: &str) -> Option<String>;
    /// and after.
    fn plain(&mut self, text: &str) -> Option<String>;
}

/// Looks into a text and what is encoded in it.
pub fn look(text: &str, who: &mut dyn Look) -> Option<String> {
    if !who.wants(text) {
        return None;
    }
    if !who.budget().enter(text.len()) {
        return who.plain(text);
    }
    let looked = whole(text, who);
    who.budget().leave();
    looked
}

fn whole(text: &str, who: &mut dyn Look) -> Option<String> {
    // A JSON string, or base64 in lines.
    if text.len() > 2 && text.starts_with('"') && json::check(text.as_bytes()).is_ok() {
        let inner = json::as_str(text.trim_end())?;
        return look(&inner, who).map(|new| quoted(&new).to_text());
    }
    if let Some(joined) = lines_of_base64(text)
        && let Some(inner) = decoded(&joined)
    {
        return look(&inner, who).map(|new| encoded_as(&joined, &new));
    }
    let mut out: Option<String> = None;
    let mut end = 0;
    for part in json_in(text) {
        let flat = flat(&text[end..part.start], who);
        let inner = who.json(&text[part.clone()]);
        if flat.is_some() || inner.is_some() || out.is_some() {
            let out = out.get_or_insert_with(|| text[..end].to_owned());
            out.push_str(flat.as_deref().unwrap_or(&text[end..part.start]));
            out.push_str(inner.as_deref().unwrap_or(&text[part.clone()]));
        }
        end = part.end;
    }
    let rest = flat(&text[end..], who);
    match (out, rest) {
        (None, None) => None,
        (None, Some(rest)) => Some(format!("{}{rest}", &text[..end])),
        (Some(out), rest) => Some(out + rest.as_deref().unwrap_or(&text[end..])),
    }
}

/// Text without JSON in it.
fn flat(text: &str, who: &mut dyn Look) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    let mut now = Cow::Borrowed(text);
    type Step = fn(&str, &mut dyn Look) -> Option<String>;
    let steps: [Step; 7] = [
        |text, who| escapes::backslashes(text, &mut |inner| look(inner, who)),
        |text, who| escapes::entities(text, &mut |inner| look(inner, who)),
        |text, who| who.pairs(text),
        percent,
        |text, who| escapes::hexadecimal(text, &mut |inner| look(inner, who)),
        base64,
        |text, who| who.plain(text),
    ];
    for step in steps {
        if let Some(new) = step(&now, who) {
            now = Cow::Owned(new);
        }
    }
    match now {
        Cow::Borrowed(_) => None,
        Cow::Owned(new) => Some(new),
    }
}

/// Where objects and arrays stand in a text.
fn json_in(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let (mut at, mut left) = (0, MAX_BEGINNINGS);
    while left > 0
        && let Some(next) = bytes.get(at..).and_then(|rest| memchr::memchr2(b'{', b'[', rest))
    {
        let start = at + next;
        let end = json::end_of_value(bytes, start);
        left -= 1;
        if end > start + 2 && json::check(&bytes[start..end]).is_ok() {
            found.push(start..end);
            at = end;
        } else {
            at = start + 1;
        }
    }
    found
}

// --- percent-encoding

/// What ends a part of a URL or a form.
fn is_delimiter(b: u8) -> bool {
    b.is_ascii_whitespace() || b"/?&=#;,\"'<>{}[]()|\\".contains(&b)
}

/// Whether there is a percent-encoded character in a text.
pub fn has_percent(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'%', bytes).any(|at| hex_pair(bytes, at).is_some())
}

fn hex_pair(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
    Some((digit(at + 1)? * 16 + digit(at + 2)?) as u8)
}

/// A part without its percent-encoding, if it has any; in a form's value `+` is a space.
pub fn percent_decoded(part: &str, is_form: bool) -> Option<String> {
    let bytes = part.as_bytes();
    memchr::memchr2(b'%', if is_form { b'+' } else { b'%' }, bytes)?;
    let decode = |all: bool| {
        let mut out = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while let Some(b) = bytes.get(at) {
            match (b, hex_pair(bytes, at)) {
                (b'%', Some(code)) if all || code.is_ascii() => {
                    out.push(code);
                    at += 3;
                    continue;
                }
                (b'+', _) if is_form => out.push(b' '),
                _ => out.push(*b),
            }
            at += 1;
        }
        String::from_utf8(out).ok()
    };
    // What is no UTF-8 stays encoded.
    decode(true).or_else(|| decode(false)).filter(|decoded| decoded != part)
}

pub fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

fn percent(text: &str, who: &mut dyn Look) -> Option<String> {
    let bytes = text.as_bytes();
    memchr::memchr2(b'%', b'+', bytes)?;
    let mut out = Changed::default();
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes[at..].iter().position(|b| is_delimiter(*b)).unwrap_or(bytes.len() - at);
        let is_form = at > 0 && bytes[at - 1] == b'=';
        if let Some(inner) = percent_decoded(&text[at..at + length], is_form)
            && let Some(new) = look(&inner, who)
        {
            out.put(text, at..at + length, &percent_encoded(&new));
        }
        at += length + 1;
    }
    out.end(text)
}

// --- base64

fn is_base64(b: u8) -> bool {
    const IS: [bool; 256] = {
        let mut all = [false; 256];
        let mut b = 0;
        while b < 256 {
            all[b] =
                (b as u8).is_ascii_alphanumeric() || matches!(b as u8, b'+' | b'/' | b'-' | b'_');
            b += 1;
        }
        all
    };
    IS[usize::from(b)]
}

fn sextet(b: u8) -> u8 {
    match b {
        b'A'..=b'Z' => b - b'A',
        b'a'..=b'z' => b - b'a' + 26,
        b'0'..=b'9' => b - b'0' + 52,
        b'+' | b'-' => 62,
        _ => 63,
    }
}

fn is_text(bytes: &[u8]) -> bool {
    !bytes.iter().any(|b| *b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r') || *b == 0x7F)
}

/// Whether what begins at a place may be text in base64, by its first nine bytes; text begins in ASCII.
fn may_be_text(run: &[u8]) -> bool {
    let mut first = [0u8; 9];
    for (i, quad) in run.chunks_exact(4).take(3).enumerate() {
        let bits = quad.iter().fold(0u32, |bits, b| bits << 6 | u32::from(sextet(*b)));
        let bytes = &bits.to_be_bytes()[1..];
        if i == 0 && !bytes.is_ascii() || !is_text(bytes) {
            return false;
        }
        first[3 * i..3 * i + 3].copy_from_slice(bytes);
    }
    match std::str::from_utf8(&first) {
        Ok(_) => true,
        Err(e) => e.error_len().is_none(),
    }
}

/// Where text may begin in a run: at its start, or after what is no base64 in paths and ids.
///
/// Text in base64 has capitals: what has none is a word, an id, a path.
fn beginnings(run: &[u8]) -> impl Iterator<Item = usize> {
    let run = if run.iter().any(u8::is_ascii_uppercase) { run } else { &[] };
    let inner = run.iter().enumerate().filter(|(_, b)| matches!(b, b'/' | b'-' | b'_' | b'+'));
    std::iter::once(0)
        .chain(inner.map(|(i, _)| i + 1))
        .filter(|at| run.len() >= at + SHORTEST && may_be_text(&run[*at..]))
        .take(8)
}

/// Whether there may be something that has to be decoded to be seen.
pub fn may_be_in(bytes: &[u8]) -> bool {
    has_percent(bytes) || may_have_base64(bytes) || escapes::has_entity(bytes)
}

/// Whether there may be text in base64, or in hexadecimal: one look at every fourteenth byte.
pub fn may_have_base64(bytes: &[u8]) -> bool {
    let mut at = SHORTEST - 1;
    while let Some(byte) = bytes.get(at) {
        if !is_base64(*byte) {
            at += SHORTEST;
            continue;
        }
        let start = at - bytes[..at].iter().rev().take_while(|b| is_base64(**b)).count();
        let end = at + bytes[at..].iter().take_while(|b| is_base64(**b)).count();
        // In JSON as it is written, an escape may stand before it: \n, \u003d.
        let is_escaped = start > 0 && bytes[start - 1] == b'\\';
        let skips: &[usize] = if is_escaped { &[1, 5] } else { &[0] };
        let mut from = skips.iter().map(|skip| start + skip);
        let may_be = |run: &[u8]| {
            run.len() >= SHORTEST
                && (beginnings(run).next().is_some() || escapes::may_have_hex(run))
        };
        if from.any(|from| may_be(bytes.get(from..end).unwrap_or_default())) {
            return true;
        }
        at = end + SHORTEST;
    }
    false
}

/// The text that base64 stands for.
pub fn decoded(run: &str) -> Option<String> {
    let bare = run.trim_end_matches('=');
    let whole = bare.len() - usize::from(bare.len() % 4 == 1);
    let bytes = base64::decode(&bare.as_bytes()[..whole]).filter(|bytes| is_text(bytes))?;
    String::from_utf8(bytes).ok()
}

/// A text in base64, with the alphabet and the padding of another.
fn encoded_as(model: &str, text: &str) -> String {
    let is_url = model.contains(['-', '_']);
    let is_padded = model.ends_with('=') || (!is_url && model.len().is_multiple_of(4));
    let mut out = BASE64.encode(text);
    if is_url {
        out = out.replace('+', "-").replace('/', "_");
    }
    if !is_padded {
        out.truncate(out.trim_end_matches('=').len());
    }
    out
}

/// Base64 in lines, as MIME has it, in one.
fn lines_of_base64(text: &str) -> Option<String> {
    let trimmed = text.trim_end();
    if !trimmed.contains('\n') {
        return None;
    }
    let is_line = |line: &str| {
        let line = line.trim_end();
        line.len() >= 16 && line.bytes().all(|b| is_base64(b) || b == b'=')
    };
    let (before, last) = trimmed.rsplit_once('\n')?;
    let are_lines =
        before.lines().all(is_line) && last.trim_end().bytes().all(|b| is_base64(b) || b == b'=');
    are_lines.then(|| trimmed.split_ascii_whitespace().collect())
}

fn base64(text: &str, who: &mut dyn Look) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Changed::default();
    let mut at = 0;
    while let Some(next) = bytes.get(at..).and_then(|rest| rest.iter().position(|b| is_base64(*b)))
    {
        let start = at + next;
        let end = start + bytes[start..].iter().take_while(|b| is_base64(**b)).count();
        let padding = bytes[end..].iter().take_while(|b| **b == b'=').take(2).count();
        at = end + padding;
        // A token of a maker, or a JSON Web Token, is found whole.
        let is_token = bytes.get(at) == Some(&b'.') && bytes[start..].starts_with(b"eyJ");
        if end - start < SHORTEST || is_token {
            continue;
        }
        let run = &text[start..at];
        'beginnings: for begin in beginnings(&bytes[start..end]) {
            // In a path it ends at the next slash.
            let slash = run[begin..].find('/').map(|at| begin + at);
            for stop in std::iter::once(run.len()).chain(slash) {
                let Some(inner) = decoded(&run[begin..stop]) else { continue };
                if let Some(new) = look(&inner, who) {
                    let new = encoded_as(&run[begin..stop], &new);
                    out.put(text, start + begin..start + stop, &new);
                }
                break 'beginnings;
            }
        }
    }
    out.end(text)
}
