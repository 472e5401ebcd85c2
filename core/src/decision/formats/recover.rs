//! Where the next piece begins after one that is broken.

use super::json;

/// Where a value that the strict pass refused ends by its brackets and strings, if these are whole: then only
/// something within is wrong. A line break inside a string means that they aren't.
fn structural_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut open: Vec<u8> = Vec::new();
    let mut i = at;
    while let Some(&b) = bytes.get(i) {
        match b {
            b'"' => {
                i += 1;
                loop {
                    match bytes.get(i) {
                        Some(b'"') => break,
                        Some(b'\\') => i += 1,
                        Some(b'\n') | None => return None,
                        Some(_) => {}
                    }
                    i += 1;
                }
            }
            b'{' => open.push(b'}'),
            b'[' => open.push(b']'),
            b'}' | b']' => {
                if open.pop() != Some(b) {
                    return None;
                }
                if open.is_empty() {
                    return Some(i + 1);
                }
            }
            _ => {}
        }
        i += 1;
    }
    None
}

/// What follows an object without a break tells that it was none, or not all of it.
pub(super) fn torn(rest: &str) -> bool {
    let space = [' ', '\t', '\r', '\n'];
    match rest.as_bytes().first() {
        Some(b'"' | b':') => true,
        Some(b',') => {
            let next = rest[1..].trim_start_matches(space);
            next.starts_with('"')
                && !json::value_prefix(next)
                    .is_ok_and(|len| next[len..].trim_start_matches(space).starts_with([',', ']']))
        }
        _ => false,
    }
}

/// How much a reader may look at twice to find where to go on.
pub(super) struct Effort(usize);

impl Effort {
    pub(super) fn of(len: usize) -> Effort {
        Effort(len.saturating_mul(16).saturating_add(1 << 16))
    }

    pub(super) fn spend(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub(bytes);
    }

    pub(super) fn is_spent(&self) -> bool {
        self.0 == 0
    }

    /// Where the broken object ends that begins at `at`. `name` is how objects here begin, if that is known.
    pub(super) fn end(&mut self, text: &str, at: usize, name: Option<&str>) -> usize {
        let bytes = text.as_bytes();
        if self.0 == 0 {
            return bytes.len();
        }
        let line = self.line(bytes, at);
        if let Some(end) = structural_end(&bytes[..line], at) {
            let rest = &bytes[end..];
            let next = json::trim(rest).first();
            let fits = rest.first().is_none_or(u8::is_ascii_whitespace)
                || matches!(next, None | Some(b',' | b']' | b'{' | b'['));
            if fits && !torn(&text[end..]) {
                return end;
            }
        }
        // Text of another object of the same making: a quote can't stand in a string, so it begins one.
        let Some(name) = name else { return line };
        let opening = format!("{{\"{name}\"");
        let found = memchr::memmem::find_iter(&bytes[at + 1..line], opening.as_bytes())
            .map(|n| at + 1 + n)
            .find(|n| {
                let before = bytes[at..*n].trim_ascii_end();
                let before = before.strip_suffix(b",").unwrap_or(before).trim_ascii_end();
                before.ends_with(b"}")
            });
        self.spend(found.unwrap_or(line) - at);
        found.unwrap_or(line)
    }

    /// The next line that doesn't belong to the object: one that is not indented below its first, nor closes it.
    fn line(&mut self, bytes: &[u8], at: usize) -> usize {
        let begin = memchr::memrchr(b'\n', &bytes[..at]).map_or(0, |n| n + 1);
        let blank = |line: &[u8]| line.len() - line.trim_ascii_start().len();
        let indent = match blank(&bytes[begin..at]) {
            n if begin + n == at => n,
            _ => 0,
        };
        let mut from = at;
        while let Some(n) = memchr::memchr(b'\n', &bytes[from..]) {
            from += n + 1;
            let end = memchr::memchr(b'\n', &bytes[from..]).map_or(bytes.len(), |n| from + n);
            let line = &bytes[from..end];
            let spaces = blank(line);
            let closes = matches!(line.get(spaces), Some(b'}' | b']'));
            if spaces < line.len() && (spaces < indent || (spaces == indent && !closes)) {
                self.spend(from - at);
                return from;
            }
        }
        self.spend(bytes.len() - at);
        bytes.len()
    }
}
