//! JSON as the data path needs it: one strict pass over a document that keeps where its members are,
//! and look-ups by pointer in what that pass accepted. No tree is built.
//!
//! Strict means RFC 8259, and more: names within one object are unique at every depth (a log store
//! may keep either of two equal names, so such a document has no one meaning), and nesting is bounded.

use std::borrow::Cow;

/// How deep a document may nest. The same bound as serde_json's.
pub const MAX_DEPTH: usize = 128;

/// Why a document is not acceptable JSON, and at which byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("not valid UTF-8 at byte {0}")]
    Utf8(usize),
    #[error("ends at byte {0}, in the middle of a value")]
    Truncated(usize),
    #[error("{what} at byte {at}")]
    Syntax { what: &'static str, at: usize },
    #[error("the name {name:?} stands twice in one object, the second time at byte {at}")]
    DuplicateKey { name: String, at: usize },
    #[error("nested deeper than {MAX_DEPTH} levels at byte {0}")]
    TooDeep(usize),
}

/// One member of an object: its name as written (escapes and all) and its value as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// Between the quotes, escapes not resolved.
    pub name: &'a str,
    pub value: &'a str,
}

impl<'a> Member<'a> {
    pub fn key(&self) -> Cow<'a, str> {
        unescape(self.name)
    }
}

/// Checks a whole document, and returns the members of the object that it is.
pub fn parse_object(doc: &[u8]) -> Result<Vec<Member<'_>>, JsonError> {
    let text = std::str::from_utf8(doc).map_err(|e| JsonError::Utf8(e.valid_up_to()))?;
    let mut scan = Scan {
        text,
        bytes: doc,
        at: 0,
        names: Vec::with_capacity(32),
        top: Vec::with_capacity(24),
    };
    scan.document()?;
    if !matches!(text.trim_start_matches(is_space).as_bytes().first(), Some(b'{')) {
        return Err(JsonError::Syntax { what: "expected an object", at: 0 });
    }
    Ok(scan.top)
}

/// Checks that `doc` is one JSON value and nothing else.
pub fn check(doc: &[u8]) -> Result<(), JsonError> {
    let text = std::str::from_utf8(doc).map_err(|e| JsonError::Utf8(e.valid_up_to()))?;
    Scan { text, bytes: doc, at: 0, names: Vec::new(), top: Vec::new() }.document()
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// Trims what JSON calls white space.
pub fn trim(bytes: &[u8]) -> &[u8] {
    let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
    let start = bytes.iter().position(|b| !blank(b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|b| !blank(b)).map_or(start, |i| i + 1);
    &bytes[start..end]
}

struct Scan<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// Names of the objects that are open, innermost last; each open object knows where its own begin.
    names: Vec<Name<'a>>,
    top: Vec<Member<'a>>,
}

#[derive(Clone, Copy)]
struct Name<'a> {
    text: &'a str,
    escaped: bool,
}

impl Name<'_> {
    #[inline]
    fn is(&self, other: &Name<'_>) -> bool {
        if self.escaped || other.escaped {
            return unescape(self.text) == unescape(other.text);
        }
        self.text.len() == other.text.len() && self.text == other.text
    }
}

/// Objects with more names than this are checked for repeats by sorting, at their end.
const LINEAR: usize = 16;

enum Open {
    Array,
    Object { names_from: usize },
}

impl<'a> Scan<'a> {
    fn document(&mut self) -> Result<(), JsonError> {
        self.space();
        self.value()?;
        self.space();
        if self.at < self.bytes.len() {
            return self.error("something follows the end of the document");
        }
        Ok(())
    }

    fn error<T>(&self, what: &'static str) -> Result<T, JsonError> {
        Err(JsonError::Syntax { what, at: self.at })
    }

    #[inline]
    fn peek(&self) -> Result<u8, JsonError> {
        self.bytes.get(self.at).copied().ok_or(JsonError::Truncated(self.at))
    }

    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// One value and all that is in it, with a stack of its own instead of recursion.
    fn value(&mut self) -> Result<(), JsonError> {
        let mut open: Vec<Open> = Vec::with_capacity(16);
        // The member of the outermost object that is being read: its name, and where its value starts.
        let mut member: (&'a str, usize) = ("", 0);
        loop {
            // At the start of a value.
            match self.peek()? {
                b'{' => {
                    if open.len() == MAX_DEPTH {
                        return Err(JsonError::TooDeep(self.at));
                    }
                    self.at += 1;
                    open.push(Open::Object { names_from: self.names.len() });
                    self.space();
                    if self.peek()? != b'}' {
                        let name = self.name(self.names.len())?;
                        if open.len() == 1 {
                            member = (name, self.at);
                        }
                        continue;
                    }
                    self.at += 1;
                    open.pop();
                }
                b'[' => {
                    if open.len() == MAX_DEPTH {
                        return Err(JsonError::TooDeep(self.at));
                    }
                    self.at += 1;
                    open.push(Open::Array);
                    self.space();
                    if self.peek()? != b']' {
                        continue;
                    }
                    self.at += 1;
                    open.pop();
                }
                b'"' => self.string().map(|_| ())?,
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                b'-' | b'0'..=b'9' => self.number()?,
                _ => return self.error("expected a value"),
            }
            // After a value: close what ends here, or go on to the next one.
            loop {
                if let [Open::Object { .. }] = open.as_slice() {
                    self.top.push(Member { name: member.0, value: &self.text[member.1..self.at] });
                }
                let Some(innermost) = open.last() else { return Ok(()) };
                self.space();
                match (innermost, self.peek()?) {
                    (Open::Array, b',') => {
                        self.at += 1;
                        self.space();
                        break;
                    }
                    (Open::Array, b']') => {}
                    (Open::Object { names_from }, b',') => {
                        let names_from = *names_from;
                        self.at += 1;
                        self.space();
                        let name = self.name(names_from)?;
                        if open.len() == 1 {
                            member = (name, self.at);
                        }
                        break;
                    }
                    (Open::Object { names_from }, b'}') => {
                        let names_from = *names_from;
                        self.close_names(names_from)?;
                    }
                    (Open::Array, _) => return self.error("expected , or ] in an array"),
                    (Open::Object { .. }, _) => return self.error("expected , or } in an object"),
                }
                self.at += 1;
                open.pop();
            }
        }
    }

    /// A member's name, the colon, and the space up to its value. Repeated names are an error.
    fn name(&mut self, names_from: usize) -> Result<&'a str, JsonError> {
        let at = self.at;
        if self.peek()? != b'"' {
            return self.error("expected the name of a member, in quotes");
        }
        let (text, escaped) = self.string()?;
        let name = Name { text, escaped };
        let siblings = &self.names[names_from..];
        if siblings.len() < LINEAR && siblings.iter().any(|other| other.is(&name)) {
            return Err(JsonError::DuplicateKey { name: unescape(text).into_owned(), at });
        }
        self.names.push(name);
        self.space();
        if self.peek()? != b':' {
            return self.error("expected : after a name");
        }
        self.at += 1;
        self.space();
        Ok(text)
    }

    fn close_names(&mut self, names_from: usize) -> Result<(), JsonError> {
        let names = &self.names[names_from..];
        if names.len() > LINEAR {
            let mut keys: Vec<Cow<str>> = names.iter().map(|n| unescape(n.text)).collect();
            keys.sort_unstable();
            if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(JsonError::DuplicateKey { name: pair[0].to_string(), at: self.at });
            }
        }
        self.names.truncate(names_from);
        Ok(())
    }

    /// A string; returns what stands between the quotes, and whether there are escapes in it.
    #[inline]
    fn string(&mut self) -> Result<(&'a str, bool), JsonError> {
        let start = self.at + 1;
        let mut i = start;
        let mut escaped = false;
        loop {
            i += plain_run(&self.bytes[i..]);
            match self.bytes.get(i) {
                None => return Err(JsonError::Truncated(i)),
                Some(b'"') => {
                    self.at = i + 1;
                    return Ok((&self.text[start..i], escaped));
                }
                Some(b'\\') => {
                    escaped = true;
                    match self.bytes.get(i + 1) {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => i += 2,
                        Some(b'u') => i = self.unicode_escape(i)?,
                        Some(_) => {
                            return Err(JsonError::Syntax {
                                what: "an escape that JSON does not have",
                                at: i,
                            });
                        }
                        None => return Err(JsonError::Truncated(i + 1)),
                    }
                }
                Some(_) => {
                    return Err(JsonError::Syntax {
                        what: "a control character in a string",
                        at: i,
                    });
                }
            }
        }
    }

    /// `\uXXXX` at `i`, with its second half when it is a surrogate; returns the position after it.
    fn unicode_escape(&self, i: usize) -> Result<usize, JsonError> {
        let unit = |i: usize| -> Result<u16, JsonError> {
            let hex = self.bytes.get(i + 2..i + 6).ok_or(JsonError::Truncated(self.bytes.len()))?;
            hex.iter()
                .try_fold(0u16, |n, b| (*b as char).to_digit(16).map(|d| n << 4 | d as u16))
                .ok_or(JsonError::Syntax { what: "a \\u escape without four hex digits", at: i })
        };
        let lone = JsonError::Syntax { what: "half of a surrogate pair", at: i };
        match unit(i)? {
            0xD800..=0xDBFF => {
                if self.bytes.get(i + 6..i + 8) != Some(b"\\u") {
                    return Err(lone);
                }
                match unit(i + 6)? {
                    0xDC00..=0xDFFF => Ok(i + 12),
                    _ => Err(lone),
                }
            }
            0xDC00..=0xDFFF => Err(lone),
            _ => Ok(i + 6),
        }
    }

    fn literal(&mut self, word: &'static str) -> Result<(), JsonError> {
        let rest = &self.bytes[self.at..];
        if rest.starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(());
        }
        if word.as_bytes().starts_with(rest) {
            return Err(JsonError::Truncated(self.bytes.len()));
        }
        self.error("expected true, false or null")
    }

    fn number(&mut self) -> Result<(), JsonError> {
        if self.bytes[self.at] == b'-' {
            self.at += 1;
        }
        match self.peek()? {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits()?,
            _ => return self.error("expected a digit"),
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let n = self.bytes[self.at..].iter().take_while(|b| b.is_ascii_digit()).count();
        if n == 0 {
            self.peek()?;
            return self.error("expected a digit");
        }
        self.at += n;
        Ok(())
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The high bit of each byte that is zero; bits above the first such byte may be wrong.
#[inline]
fn zero_byte(v: u64) -> u64 {
    v.wrapping_sub(ONES) & !v & HIGH
}

/// How many bytes from the start are neither a quote, a backslash nor a control character: eight at a time.
#[inline]
fn plain_run(bytes: &[u8]) -> usize {
    let mut n = 0;
    for chunk in bytes.chunks_exact(8) {
        let v = u64::from_le_bytes(chunk.try_into().expect("chunks_exact gives eight bytes"));
        let stop = zero_byte(v ^ (ONES * b'"' as u64))
            | zero_byte(v ^ (ONES * b'\\' as u64))
            | (v.wrapping_sub(ONES * 0x20) & !v & HIGH);
        if stop != 0 {
            return n + (stop.trailing_zeros() / 8) as usize;
        }
        n += 8;
    }
    n + bytes[n..].iter().take_while(|b| !matches!(b, b'"' | b'\\' | 0..0x20)).count()
}

/// Resolves the escapes in what stands between a valid string's quotes.
pub fn unescape(inner: &str) -> Cow<'_, str> {
    // Most names and values are short, and for these a call costs more than a look at each byte.
    let bytes = inner.as_bytes();
    let escaped = if bytes.len() < 32 {
        bytes.contains(&b'\\')
    } else {
        memchr::memchr(b'\\', bytes).is_some()
    };
    if !escaped {
        return Cow::Borrowed(inner);
    }
    let quoted = format!("\"{inner}\"");
    Cow::Owned(serde_json::from_str(&quoted).unwrap_or_else(|_| inner.to_owned()))
}

/// The text of a raw value, if it is a string.
pub fn as_str(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    Some(unescape(inner))
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
    members(raw)
        .find(|m| m.name == name || (m.name.contains('\\') && m.key() == name))
        .map(|m| m.value)
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

    /// Whether a document may hold it: whether its last name stands somewhere in the text, or a name
    /// could be spelt with escapes. Much quicker than `find`.
    pub fn may_be_in(&self, raw: &str) -> bool {
        let holds = |text: &[u8]| memchr::memmem::find(raw.as_bytes(), text).is_some();
        self.0.last().is_none_or(|name| holds(name.as_bytes()) || holds(b"\\u"))
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

/// How many bytes stand before the first quote or backslash: eight at a time, since most strings are short.
#[inline]
fn quote_or_escape(bytes: &[u8]) -> usize {
    let mut n = 0;
    for chunk in bytes.chunks_exact(8) {
        let v = u64::from_le_bytes(chunk.try_into().expect("chunks_exact gives eight bytes"));
        let stop = zero_byte(v ^ (ONES * b'"' as u64)) | zero_byte(v ^ (ONES * b'\\' as u64));
        if stop != 0 {
            return n + (stop.trailing_zeros() / 8) as usize;
        }
        n += 8;
    }
    n + bytes[n..].iter().take_while(|b| !matches!(b, b'"' | b'\\')).count()
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

/// Puts a valid document on one line. Line breaks in it are white space between its parts: inside strings JSON has none.
pub fn one_line(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(n) = memchr::memchr2(b'\n', b'\r', &bytes[at..]) {
        bytes[at + n] = b' ';
        at += n + 1;
    }
}

/// Appends `text` as a JSON string.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    if plain_run(text.as_bytes()) == text.len() {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        serde_json::to_writer(out, text).expect("a string is always written to memory");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
