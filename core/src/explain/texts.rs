//! What stands in the text of a policy, or of an error of regorus': words, references, calls, declarations.

use std::collections::BTreeSet;
use std::ops::Range;

use regorus::Value;
use serde_json::Value as Json;

/// regorus draws the place; the last line says what is wrong.
pub fn last_line(message: &str) -> String {
    let line = message.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or(message);
    line.trim().to_owned()
}

/// The same, with the place: `--> authz.rego:35:3` stands before it.
pub fn placed(message: &str) -> String {
    let place = message.lines().find_map(|line| line.trim().strip_prefix("--> "));
    let place = place.and_then(|place| place.rsplit_once(':')).map(|(place, _)| place);
    place.map_or_else(String::new, |place| format!("{place}: ")) + &last_line(message)
}

pub fn json(value: &Value) -> Option<Json> {
    if *value == Value::Undefined {
        return None;
    }
    serde_json::from_str(&value.to_json_str().ok()?).ok()
}

/// A word, and where it stands.
pub type Word<'t> = (Range<usize>, &'t str);

/// The words of a text outside of its strings and comments, with their places.
pub fn words(text: &str) -> Vec<Word<'_>> {
    let bytes = text.as_bytes();
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let from = at;
        match bytes[at] {
            b'#' => at = text[at..].find('\n').map_or(bytes.len(), |end| at + end),
            quote @ (b'"' | b'`') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    at += if bytes[at] == b'\\' && quote == b'"' { 2 } else { 1 };
                }
                at += 1;
            }
            b if is_word(b) => {
                at += bytes[at..].iter().take_while(|b| is_word(**b)).count();
                found.push((from..at, &text[from..at]));
            }
            _ => at += 1,
        }
    }
    found
}

/// A policy without its comments.
pub fn uncommented(policy: &str) -> String {
    let (mut out, mut chars) = (String::with_capacity(policy.len()), policy.chars());
    let mut quote = None;
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '#') => {
                chars.by_ref().find(|c| *c == '\n');
                out.push('\n');
                continue;
            }
            (None, '"' | '`') => quote = Some(c),
            (Some('"'), '\\') => {
                out.push(c);
                out.extend(chars.next());
                continue;
            }
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
        out.push(c);
    }
    out
}

pub fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The words of a condition outside of its strings, each with what is attached to it: `input.user.roles`,
/// `input.headers["x-role"]`, `data.roles[role]`; and at which character it begins.
pub fn references(text: &str) -> Vec<(usize, String)> {
    let bytes: Vec<char> = text.chars().collect();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        match bytes[at] {
            quote @ ('"' | '`') => at = after_string(&bytes, at, quote),
            c if is_word(c) => {
                let start = at;
                at = after_reference(&bytes, at);
                found.push((start, bytes[start..at].iter().collect()));
            }
            _ => at += 1,
        }
    }
    found
}

/// The variables that a text declares: `x := ..`, `[x, y] := ..`, `some x, y in ..`, `every x in ..`.
pub fn declared(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let (chars, mut listed) = (text.chars().collect::<Vec<_>>(), false);
    let (mut last, patterns) = (0, patterns(&chars));
    for (at, word) in references(text) {
        if patterns.iter().any(|pattern| pattern.contains(&at)) {
            found.insert(word.clone());
        }
        // Whether it goes on with `a, b` behind `some`.
        let between = chars.get(last..at).unwrap_or_default();
        listed &= between.iter().all(|c| *c == ',' || c.is_whitespace()) && word != "in";
        last = at + word.chars().count();
        let behind = chars.get(last..).unwrap_or_default().iter().skip_while(|c| **c == ' ');
        let behind: Vec<&char> = behind.take(2).collect();
        if listed || behind == [&':', &'='] {
            found.insert(word.clone());
        }
        listed |= word == "some" || word == "every";
    }
    found
}

/// The names that stand beside a `=`, alone or in a pattern: `x = ..`, `[x, _] = ..`, `.. = {"a": x}`. Rules may be among them.
pub fn unified(text: &str) -> BTreeSet<String> {
    let chars: Vec<char> = text.chars().collect();
    let sign = |at: usize| {
        let beside = |c: Option<&char>| c.is_some_and(|c| matches!(c, '=' | ':' | '!' | '<' | '>'));
        chars[at] == '='
            && !beside(chars.get(at + 1))
            && !beside(at.checked_sub(1).and_then(|at| chars.get(at)))
    };
    let (mut at, mut signs) = (0, Vec::new());
    while at < chars.len() {
        match chars[at] {
            quote @ ('"' | '`') => at = after_string(&chars, at, quote),
            _ => {
                signs.extend(sign(at).then_some(at));
                at += 1;
            }
        }
    }
    let sides = signs.into_iter().flat_map(|at| [&chars[..at], &chars[at + 1..]]);
    let names = sides.flat_map(|side| {
        let side: String = side.iter().collect();
        let side = side.trim();
        let pattern = side.starts_with(['[', '{']) && side.ends_with([']', '}']);
        let named = references(side).into_iter().map(|(_, word)| word);
        named.filter(|word| pattern || word == side).collect::<Vec<_>>()
    });
    let is_name = |word: &String| {
        word.chars().all(is_word) && !word.starts_with(|c: char| c.is_ascii_digit())
    };
    names.filter(is_name).collect()
}

/// Where patterns stand: `[x, y]` before `:=`.
fn patterns(text: &[char]) -> Vec<Range<usize>> {
    let (mut found, mut open, mut closed, mut at) = (Vec::new(), Vec::new(), None, 0);
    while at < text.len() {
        match text[at] {
            quote @ ('"' | '`') => {
                at = after_string(text, at, quote);
                closed = None;
                continue;
            }
            '[' | '{' => open.push(at),
            ']' | '}' => closed = open.pop().map(|from| from..at),
            ':' if text.get(at + 1) == Some(&'=') => found.extend(closed.take()),
            ' ' => {}
            _ => closed = None,
        }
        at += 1;
    }
    found
}

/// The call of what is named there, with its arguments.
pub fn call(text: &str, at: usize, name: &str) -> Option<String> {
    let text: Vec<char> = text.chars().collect();
    let open = at + name.chars().count();
    if text.get(open) != Some(&'(') {
        return None;
    }
    let (mut end, mut depth) = (open, 0_usize);
    while end < text.len() {
        match text[end] {
            quote @ ('"' | '`') => end = after_string(&text, end, quote) - 1,
            '(' => depth += 1,
            ')' if depth == 1 => return Some(text[at..=end].iter().collect()),
            ')' => depth -= 1,
            _ => {}
        }
        end += 1;
    }
    None
}

fn after_string(text: &[char], at: usize, quote: char) -> usize {
    let mut at = at + 1;
    while at < text.len() && text[at] != quote {
        at += if text[at] == '\\' && quote == '"' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

fn after_reference(text: &[char], at: usize) -> usize {
    let mut at = at;
    while at < text.len() {
        match text[at] {
            c if is_word(c) || c == '.' => at += 1,
            '[' if text.get(at + 1) == Some(&'"') => {
                let end = after_string(text, at + 1, '"');
                if text.get(end) != Some(&']') {
                    break;
                }
                at = end + 1;
            }
            '[' => {
                let digits = text[at + 1..].iter().take_while(|c| c.is_ascii_digit()).count();
                if digits == 0 || text.get(at + 1 + digits) != Some(&']') {
                    break;
                }
                at += digits + 2;
            }
            _ => break,
        }
    }
    at
}

/// The names in what is attached to `input`; nothing where a variable stands.
pub fn path(rest: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = rest;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("[\"") {
            let (name, after) = after.split_once("\"]")?;
            names.push(name.to_owned());
            rest = after;
        } else if let Some(after) = rest.strip_prefix('[') {
            let (name, after) = after.split_once(']')?;
            names.push(name.to_owned());
            rest = after;
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(|c| !is_word(c)).unwrap_or(after.len());
            names.push(after[..end].to_owned());
            rest = &after[end..];
        }
    }
    Some(names)
}
