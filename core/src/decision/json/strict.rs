//! The strict pass: a document is accepted or refused, and where its members are is kept.

use std::borrow::Cow;

use super::bits::plain_run;
use super::{JsonError, MAX_DEPTH, Member, unescape};

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

/// Reads the object that `text` begins with, and tells its members and where it ends; what follows it is not
/// looked at.
pub fn parse_prefix(text: &str) -> Result<(Vec<Member<'_>>, usize), JsonError> {
    if !text.starts_with('{') {
        return Err(JsonError::Syntax { what: "expected an object", at: 0 });
    }
    let mut scan = Scan {
        text,
        bytes: text.as_bytes(),
        at: 0,
        names: Vec::with_capacity(32),
        top: Vec::with_capacity(24),
    };
    scan.value()?;
    Ok((scan.top, scan.at))
}

/// Where the value ends that `text` begins with.
pub fn value_prefix(text: &str) -> Result<usize, JsonError> {
    let bytes = text.as_bytes();
    let mut scan = Scan { text, bytes, at: 0, names: Vec::new(), top: Vec::new() };
    scan.value()?;
    Ok(scan.at)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
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
