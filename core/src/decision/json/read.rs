//! Look-ups in what the strict pass accepted.

use std::borrow::Cow;

use super::Member;
use super::bits::{has_escape, quote_or_escape};

/// Resolves the escapes in what stands between a valid string's quotes.
pub fn unescape(inner: &str) -> Cow<'_, str> {
    if !has_escape(inner.as_bytes()) {
        return Cow::Borrowed(inner);
    }
    let quoted = format!("\"{inner}\"");
    Cow::Owned(serde_json::from_str(&quoted).unwrap_or_else(|_| inner.to_owned()))
}

/// What stands between the quotes of a raw value, if it is a string.
pub fn inner(raw: &str) -> Option<&str> {
    raw.strip_prefix('"')?.strip_suffix('"')
}

/// The text of a raw value, if it is a string.
pub fn as_str(raw: &str) -> Option<Cow<'_, str>> {
    inner(raw).map(unescape)
}

/// The value of a raw value, if it is a whole number that fits.
pub fn as_u64(raw: &str) -> Option<u64> {
    raw.parse().ok().or_else(|| {
        raw.parse::<f64>()
            .ok()
            .filter(|f| f.fract() == 0.0 && (0.0..=1.8e19).contains(f))
            .map(|f| f as u64)
    })
}

/// What kind of value a raw value is, for messages.
pub fn kind(raw: &str) -> &'static str {
    match raw.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// Walks the members of a valid object (nothing for any other value).
pub fn members(raw: &str) -> Members<'_> {
    Members { text: raw, at: usize::from(raw.starts_with('{')), done: !raw.starts_with('{') }
}

/// Walks the elements of a valid array (nothing for any other value).
pub fn elements(raw: &str) -> Elements<'_> {
    Elements { text: raw, at: 1, done: !raw.starts_with('[') }
}

pub struct Members<'a> {
    text: &'a str,
    at: usize,
    done: bool,
}

impl Members<'_> {
    /// Behind the object, once all of its members were told, if it has any.
    pub fn end(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        if self.done {
            return None;
        }
        let bytes = self.text.as_bytes();
        let mut at = skip_space(bytes, self.at);
        if bytes.get(at) != Some(&b'"') {
            self.done = true;
            return None;
        }
        let end = end_of_string(bytes, at);
        let name = self.text.get(at + 1..end.checked_sub(1)?)?;
        at = skip_space(bytes, end);
        at = skip_space(bytes, at + 1);
        let end = end_of_value(bytes, at);
        let value = self.text.get(at..end)?;
        self.at = skip_space(bytes, end) + 1;
        Some(Member { name, value })
    }
}

pub struct Elements<'a> {
    text: &'a str,
    at: usize,
    done: bool,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.done {
            return None;
        }
        let bytes = self.text.as_bytes();
        let at = skip_space(bytes, self.at);
        if matches!(bytes.get(at), None | Some(b']')) {
            self.done = true;
            return None;
        }
        let end = end_of_value(bytes, at);
        self.at = skip_space(bytes, end) + 1;
        self.text.get(at..end)
    }
}

/// The value of the member `name` of a valid object.
pub fn get<'a>(raw: &'a str, name: &str) -> Option<&'a str> {
    members(raw).find(|m| m.is(name)).map(|m| m.value)
}

/// A JSON pointer (RFC 6901), split once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

impl Pointer {
    pub fn parse(text: &str) -> Option<Pointer> {
        if text.is_empty() {
            return Some(Pointer(Vec::new()));
        }
        let rest = text.strip_prefix('/')?;
        Some(Pointer(
            rest.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect(),
        ))
    }

    /// What it is made of.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// What it points at in a valid document.
    pub fn find<'a>(&self, raw: &'a str) -> Option<&'a str> {
        self.0.iter().try_fold(raw, |value, token| match value.as_bytes().first() {
            Some(b'{') => get(value, token),
            Some(b'[') => elements(value).nth(token.parse().ok()?),
            _ => None,
        })
    }
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\t' | b'\r') = bytes.get(at) {
        at += 1;
    }
    at
}

/// The position after the string that starts at `at`.
#[inline]
fn end_of_string(bytes: &[u8], at: usize) -> usize {
    let mut i = at + 1;
    while let Some(rest) = bytes.get(i..) {
        i += quote_or_escape(rest);
        match bytes.get(i) {
            Some(b'"') => return i + 1,
            Some(_) => i += 2,
            None => break,
        }
    }
    bytes.len()
}

/// The position after the value that starts at `at`, by its brackets and strings only; for text that
/// is not valid JSON it is some position that does not go beyond the end.
pub fn end_of_value(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at) {
        Some(b'"') => end_of_string(bytes, at),
        Some(b'{' | b'[') => {
            let mut depth = 0usize;
            let mut i = at;
            while let Some(b) = bytes.get(i) {
                match b {
                    b'"' => {
                        i = end_of_string(bytes, i);
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return i + 1;
                        }
                    }
                    _ => {}
                }
                i += 1;
            }
            bytes.len()
        }
        _ => {
            let rest = bytes.get(at..).unwrap_or_default();
            at + rest
                .iter()
                .take_while(|b| !matches!(b, b',' | b'}' | b']' | b' ' | b'\n' | b'\t' | b'\r'))
                .count()
        }
    }
}
