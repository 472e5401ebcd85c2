//! Text: pieces are found by where JSON values begin and end. Between them there may be nothing, line breaks,
//! or whatever a program or an agent wrote before them on their line.

use super::super::json::{self, JsonError};
use super::super::reject::{Reason, Reject};
use super::labels::labels_end;
use super::layer::Text;
use super::recover::{Effort, torn};
use super::{Around, Found, Ignored, Opener, Piece, console, join, lines, marks, object, reject};

pub(super) fn read(
    open: &mut Opener<'_>,
    text: Text<'_>,
    around: Around<'_>,
    found: &mut Found<'_>,
) {
    let nothing = glue(text.text.as_bytes(), 0) == text.text.len();
    match around.collected {
        true if nothing => return found(Piece::Ignored(Ignored::Blank)),
        false if nothing => {
            return reject(text.bytes, Reason::Empty, "the record is empty", found);
        }
        _ => {}
    }
    let effort = Effort::of(text.text.len());
    let mut reader = Reader {
        text,
        effort,
        name: None,
        broke: false,
        lines: 0,
        array: None,
        asides: MAX_ASIDES,
    };
    let mut others = false;
    reader.all(open, around, &mut |piece| {
        others = true;
        found(piece);
    });
    // Lines of text among decisions are the output of some program. Where nothing else was found, and nothing
    // says that it was collected, it may be anything, and goes to rejects as a whole.
    let lines = reader.lines
        + lines::end_of_text(open, &mut |piece| {
            others = true;
            found(piece);
        });
    if others || around.collected {
        (0..lines).for_each(|_| found(Piece::Ignored(Ignored::Text)));
    } else if lines > 0 {
        let why = match json::parse_object(json::trim(text.bytes)) {
            Err(why) => why.to_string(),
            Ok(_) => "no decision in it".to_owned(),
        };
        let reason = if text.is_damaged() { Reason::InvalidUtf8 } else { Reason::NotJson };
        let detail = format!("neither a decision nor a line of OPA's log: {why}");
        reject(text.bytes, reason, &detail, found);
    }
}

/// The next byte from `at` that means something: white space, byte order marks, commas, and the separators of
/// RFC 7464 don't.
fn glue(bytes: &[u8], mut at: usize) -> usize {
    loop {
        match bytes.get(at) {
            Some(b' ' | b'\t' | b'\n' | b'\r' | b',' | 0 | 0x1e) => at += 1,
            Some(0xef) if bytes[at..].starts_with(b"\xef\xbb\xbf") => at += 3,
            _ => return at,
        }
    }
}

/// How an object's JSON goes on after its brace; `{` alone, or before something else, is some other text.
fn object_begins(text: &str, at: usize) -> bool {
    matches!(json::trim(&text.as_bytes()[at + 1..]).first(), Some(b'"' | b'}'))
}

struct Reader<'t> {
    text: Text<'t>,
    effort: Effort,
    /// The first name of the last object that was read.
    name: Option<&'t str>,
    /// Whether the last object was broken.
    broke: bool,
    /// How many lines were text that can't be a decision.
    lines: usize,
    /// Where the array begins that is being read, and whether it stands beside a decision, once that was asked.
    array: Option<(usize, Option<bool>)>,
    /// How often it is still asked what stands beside something.
    asides: usize,
}

/// What stands beside something on its line is looked for so far away, and so often in a text.
const NEAR: usize = 64 << 10;
const MAX_ASIDES: usize = 1_000;

impl<'t> Reader<'t> {
    fn all(&mut self, open: &mut Opener<'_>, around: Around<'_>, found: &mut Found<'_>) {
        let bytes = self.text.text.as_bytes();
        let mut at = 0;
        loop {
            at = glue(bytes, at);
            at = match bytes.get(at).filter(|_| !open.is_over()) {
                None => return,
                Some(b'{') => self.object(at, open, around, found),
                Some(b'[') if self.array_begins(at) => self.array(at, open, around, found),
                Some(b'"') => match self.string(at, open, around, found) {
                    Some(end) => end,
                    None => self.line(at, open, around, found),
                },
                Some(_) => self.line(at, open, around, found),
            };
        }
    }

    /// Whether an array begins at `at`, and not a line of a log that happens to begin with its bracket.
    fn array_begins(&mut self, at: usize) -> bool {
        let text = self.text.text;
        match json::trim(&text.as_bytes()[at + 1..]).first() {
            Some(b'{') => return true,
            None => return false,
            Some(_) if self.effort.is_spent() => return false,
            Some(_) => {}
        }
        // Some other value: only if the whole of it is JSON, and the line is over then.
        match json::value_prefix(&text[at..]) {
            Ok(len) => {
                let rest = &text[at + len..];
                let after = rest.trim_start_matches([' ', '\t', '\r']);
                after.is_empty()
                    || after.starts_with(['\n', ','])
                    || rest.starts_with(['[', '{', ']'])
            }
            Err(error) => {
                self.effort.spend(place(&error));
                false
            }
        }
    }

    /// The object at `at`; where to go on.
    fn object(
        &mut self,
        at: usize,
        open: &mut Opener<'_>,
        around: Around<'_>,
        found: &mut Found<'_>,
    ) -> usize {
        let text = self.text.text;
        let error = match json::parse_prefix(&text[at..]) {
            Ok((members, len)) => {
                let end = at + len;
                if !torn(&text[end..]) {
                    self.broke = false;
                    self.name = members.first().map(|m| m.name).or(self.name);
                    if !members.iter().any(|m| m.name == "decision_id") && self.is_beside(at, end) {
                        found(Piece::Ignored(Ignored::Json));
                        return end;
                    }
                    object::open(open, self.text.slice(at, end), &members, around, found);
                    return end;
                }
                JsonError::Syntax { what: "something follows the end of the object", at: len }
            }
            Err(_) if labels_end(text, at).is_some() => return self.line(at, open, around, found),
            Err(error) => error,
        };
        self.broken(at, error, around, found)
    }

    /// Whether an object stands beside a decision on its line, as whoever printed the line wanted it, and has nothing
    /// of one itself; or the array that it is an element of.
    fn is_beside(&mut self, at: usize, end: usize) -> bool {
        match self.array {
            None => self.beside(at, end),
            Some((_, Some(known))) => known,
            Some((array, None)) => {
                let end = json::end_of_value(self.text.text.as_bytes(), array);
                let beside = self.beside(array, end);
                self.array = Some((array, Some(beside)));
                beside
            }
        }
    }

    fn beside(&mut self, from: usize, to: usize) -> bool {
        let bytes = self.text.text.as_bytes();
        let blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
        let behind = blank(bytes.get(to));
        let before = from > 0
            && blank(bytes.get(from - 1))
            && !bytes[..from].trim_ascii_end().ends_with(b",");
        if self.asides == 0 || !(behind || before) || marks::like(&bytes[from..to]) {
            return false;
        }
        self.asides -= 1;
        let until = bytes.len().min(to + NEAR);
        let rest = &bytes[to..until];
        let rest = &rest[..memchr::memchr(b'\n', rest).unwrap_or(rest.len())];
        let head = &bytes[from.saturating_sub(NEAR)..from];
        let head = &head[memchr::memrchr(b'\n', head).map_or(0, |n| n + 1)..];
        (behind && marks::sure(rest)) || (before && marks::sure(head))
    }

    /// An object that can't be read, at `at`.
    fn broken(
        &mut self,
        at: usize,
        error: JsonError,
        around: Around<'_>,
        found: &mut Found<'_>,
    ) -> usize {
        self.broke = true;
        self.effort.spend(place(&error));
        let end = self.effort.end(self.text.text, at, self.name);
        let piece = self.text.slice(at, end);
        let content = json::trim(piece.bytes);
        let may_be_one = object_begins(self.text.text, at) || !around.collected;
        if content == b"{" || !(may_be_one || marks::like(content)) {
            self.lines += 1;
        } else {
            let reject = match std::str::from_utf8(content) {
                Ok(_) => error.into(),
                Err(e) => JsonError::Utf8(e.valid_up_to()).into(),
            };
            found(Piece::Reject { bytes: content.into(), reject });
        }
        end
    }

    /// The array at `at`. Each element is judged alone, so that a bad one does not take the others along.
    fn array(
        &mut self,
        at: usize,
        open: &mut Opener<'_>,
        around: Around<'_>,
        found: &mut Found<'_>,
    ) -> usize {
        let bytes = self.text.text.as_bytes();
        if around.collected {
            let end = json::end_of_value(bytes, at);
            if !marks::like(&bytes[at..end]) {
                found(Piece::Ignored(Ignored::Json));
                return end;
            }
        }
        let outer = self.array.replace((at, None));
        let end = self.elements(at, open, around, found);
        self.array = outer;
        end
    }

    fn elements(
        &mut self,
        at: usize,
        open: &mut Opener<'_>,
        around: Around<'_>,
        found: &mut Found<'_>,
    ) -> usize {
        let bytes = self.text.text.as_bytes();
        let mut depth = 1;
        let mut i = at + 1;
        loop {
            i = glue(bytes, i);
            if open.is_over() {
                return bytes.len();
            }
            i = match bytes.get(i) {
                None => {
                    let detail = format!("the array ends at byte {}, without its ]", i - at);
                    reject(&[], Reason::NotJson, &detail, found);
                    return i;
                }
                Some(b']') => {
                    depth -= 1;
                    if depth == 0 {
                        return i + 1;
                    }
                    i + 1
                }
                Some(b'[') => {
                    depth += 1;
                    i + 1
                }
                Some(b'{') => {
                    let end = self.object(i, open, around, found);
                    // A broken one that took all of the rest along took the array's end, too.
                    if end == bytes.len() && self.broke {
                        return end;
                    }
                    end
                }
                Some(b'"') => match self.string(i, open, around, found) {
                    Some(end) => end,
                    None => self.element(i, found),
                },
                Some(_) => self.element(i, found),
            };
        }
    }

    /// Something else in an array.
    fn element(&mut self, at: usize, found: &mut Found<'_>) -> usize {
        let bytes = self.text.text.as_bytes();
        let mut end = json::end_of_value(bytes, at).max(at + 1);
        while let Some(b) = bytes.get(end) {
            if matches!(b, b',' | b']' | b'\n') {
                break;
            }
            end = json::end_of_value(bytes, end).max(end + 1);
        }
        while !self.text.text.is_char_boundary(end) {
            end += 1;
        }
        let piece = self.text.slice(at, end);
        let detail = "an element of the array is not an object";
        reject(json::trim(piece.bytes), Reason::WrongType, detail, found);
        end
    }

    /// A JSON string that holds a record, as the Collector writes a body that is text.
    fn string(
        &mut self,
        at: usize,
        open: &mut Opener<'_>,
        around: Around<'_>,
        found: &mut Found<'_>,
    ) -> Option<usize> {
        let text = self.text.text;
        let end = at + json::value_prefix(&text[at..]).ok()?;
        let after = text[end..].trim_start_matches([' ', '\t', '\r']);
        let over = after.is_empty()
            || after.starts_with(['\n', ',', ']', '"'])
            || text[end..].starts_with(['{', '[']);
        let inner = json::as_str(&text[at..end]).filter(|_| over)?;
        open.bytes(inner.as_bytes(), around, found);
        Some(end)
    }

    /// A JSON string in the middle of a line (logfmt's `decision=\"{..}\"`), if that may hold a decision.
    fn value(
        &mut self,
        at: usize,
        open: &mut Opener<'_>,
        around: Around<'_>,
        found: &mut Found<'_>,
    ) -> Option<usize> {
        let text = self.text.text;
        let end = at + json::value_prefix(&text[at..]).ok()?;
        let after = text[end..].chars().next();
        if after.is_some_and(|c| !c.is_whitespace() && !",;|)]}'".contains(c)) {
            return None;
        }
        let inner = json::as_str(&text[at..end])?;
        if marks::like(inner.as_bytes()) {
            open.bytes(inner.as_bytes(), around, found);
        }
        Some(end)
    }

    /// A line that begins with something else, at `at`; where to go on.
    fn line(
        &mut self,
        at: usize,
        open: &mut Opener<'_>,
        around: Around<'_>,
        found: &mut Found<'_>,
    ) -> usize {
        let text = self.text.text;
        if let Some(end) = console::block(text, at) {
            let block = self.text.slice(at, end);
            console::told(block.text, block.bytes, found);
            return end;
        }
        let eol = line_end(text, at);
        if join::cri(&text.as_bytes()[at..eol]).is_some() {
            return join::cri_lines(open, self.text.bytes, at, around, found);
        }
        let rest = &text[(eol + 1).min(text.len())..];
        let bytes = &self.text.bytes[at..eol];
        if let Some(lines) = lines::of_text(open, &text[at..eol], bytes, rest, around, found) {
            self.lines += lines;
            return eol;
        }
        if console::decision(&text[at..eol]) {
            let line = self.text.slice(at, eol);
            reject(json::trim(line.bytes), Reason::TextFormat, console::SET, found);
            return eol;
        }
        if let Some(plain) = marks::decoded(json::trim(bytes)) {
            open.bytes(&plain, around.collected(), found);
            return eol;
        }
        let (end, any) = self.within(at, eol, open, around, found);
        let line = self.text.slice(at, end);
        let content = json::trim(line.bytes);
        if any {
        } else if marks::like(content) || debris(line.text, around.collected) {
            found(Piece::Reject { bytes: content.into(), reject: unread(line) });
        } else if console::logrus(line.text) {
            found(Piece::Ignored(Ignored::OpaLog));
        } else {
            self.lines += 1;
        }
        end
    }

    /// The values behind other text of a line; where the line ends, and whether anything came of them.
    fn within(
        &mut self,
        at: usize,
        mut eol: usize,
        open: &mut Opener<'_>,
        around: Around<'_>,
        found: &mut Found<'_>,
    ) -> (usize, bool) {
        let text = self.text.text;
        let around = around.collected();
        let (mut from, mut i, mut any) = (at, at, false);
        let mut told = |piece: Piece<'_>| {
            if !matches!(piece, Piece::Ignored(_)) {
                any = true;
                found(piece);
            }
        };
        let mut checked = at;
        while let Some(n) = memchr::memchr(b'{', &text.as_bytes()[i..eol]) {
            i += n;
            let before = &text[from..i];
            // What stands behind a piece of broken JSON is within it: whoever wrote it there meant no record.
            if within_json(&text.as_bytes()[from.max(checked)..i]) || self.effort.is_spent() {
                break;
            }
            // What was looked at is not looked at again, but for a few bytes that its end may need.
            checked = i.saturating_sub(16);
            if let Some(end) = labels_end(text, i) {
                (from, i) = (end, end);
                continue;
            }
            // Within a string its quotes are escaped.
            let within = text[i + 1..].trim_start().starts_with('\\');
            if within || before.ends_with('"') {
                let end = match opening_quote(before) {
                    Some(quote) => self.value(from + quote, open, around, &mut told),
                    None => None,
                };
                if let Some(end) = end {
                    (from, i) = (end, end);
                    continue;
                }
                self.effort.spend(eol - at);
            } else if object_begins(text, i) {
                let bracket = before.trim_end();
                let end = if bracket.ends_with('[') {
                    self.array(from + bracket.len() - 1, open, around, &mut told)
                } else {
                    match json::parse_prefix(&text[i..]) {
                        Ok((members, len)) if !torn(&text[i + len..]) => {
                            let object = self.text.slice(i, i + len);
                            if marks::like(object.bytes) {
                                object::open(open, object, &members, around, &mut told);
                            }
                            i + len
                        }
                        Ok(_) => break,
                        Err(error) => {
                            self.effort.spend(place(&error));
                            break;
                        }
                    }
                };
                (from, i) = (end, end);
                eol = eol.max(line_end(text, end));
                continue;
            }
            i += 1;
        }
        (eol, any)
    }
}

/// Whether a line may be what is left of an object. Programs print objects behind text, too; without their beginning they
/// don't.
fn debris(line: &str, collected: bool) -> bool {
    let name = line.find("\":");
    if collected {
        return name.is_some_and(|name| line.find('{').is_none_or(|begin| name < begin));
    }
    name.is_some() || line.contains("{\"") || line.trim_end().ends_with(['}', ']'])
}

/// The last quote that no backslash stands before: where a string begins that is open at the end of the text.
fn opening_quote(text: &str) -> Option<usize> {
    let quotes = text.rmatch_indices('"').map(|(at, _)| at);
    quotes.into_iter().find(|at| {
        let before = &text.as_bytes()[..*at];
        before.iter().rev().take_while(|b| **b == b'\\').count() % 2 == 0
    })
}

/// Whether text is a piece of JSON that something may stand within: names of members, texts in a row, a value before a
/// comma.
fn within_json(before: &[u8]) -> bool {
    let end = before.trim_ascii_end();
    end.ends_with(b"},")
        || end.ends_with(b"],")
        || memchr::memchr_iter(b'"', before).any(|at| match before.get(at + 1) {
            Some(b':') => true,
            Some(b',') => before[at + 2..].trim_ascii_start().starts_with(b"\""),
            _ => false,
        })
}

fn line_end(text: &str, at: usize) -> usize {
    memchr::memchr(b'\n', &text.as_bytes()[at..]).map_or(text.len(), |n| at + n)
}

/// Where an error lies.
fn place(error: &JsonError) -> usize {
    match error {
        JsonError::Utf8(at) | JsonError::Truncated(at) | JsonError::TooDeep(at) => *at,
        JsonError::Syntax { at, .. } | JsonError::DuplicateKey { at, .. } => *at,
    }
}

/// Why a line that tells of a decision could not be read.
fn unread(line: Text<'_>) -> Reject {
    if line.is_damaged() {
        return Reject::new(Reason::InvalidUtf8, "a decision in it is not valid UTF-8");
    }
    let why = line.text.find('{').map(|n| json::parse_object(line.text[n..].trim_end().as_bytes()));
    let detail = match why {
        Some(Err(why)) => format!("it tells of a decision that can't be read: {why}"),
        _ if line.text.trim_start().starts_with('"') => {
            "a part of a decision that was written over many lines: start OPA with --log-format json"
                .to_owned()
        }
        _ => "it may be a part of a decision, and holds no JSON object that is one".to_owned(),
    };
    Reject::new(Reason::NotJson, detail)
}
