//! Names and values in text that is not JSON: forms, queries, cookies, connection strings, headers, what
//! programs log, and JSON that was cut.

use std::cell::LazyCell;
use std::sync::LazyLock;

use regex::Regex;

use super::changed::Changed;
use super::commands;
use super::encoded::{percent_decoded, percent_encoded};
use super::names::{self, Told};

/// A name, what stands between, and the quote that a value begins with. What expressions can't do quickly in long texts
/// without any is done by hand: they are looked for by what stands between.
struct Found<'t> {
    name: &'t str,
    name_at: usize,
    name_is_quoted: bool,
    by: &'t str,
    quote: &'t str,
    /// Where the value begins.
    end: usize,
}

/// The longest name that is looked at.
const LONGEST: usize = 81;

fn is_of_name(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"_.%$[]-".contains(&b) || b >= 0x80
}

/// How long what stands between a name and its value is at a place: `=`, `:`, `:=`, `=>`, `->`, `==`, `!=`.
fn operator(bytes: &[u8]) -> usize {
    match bytes {
        [b'=', b'=', b'=', ..] | [b'!', b'=', b'=', ..] => 3,
        [b'=', b'>' | b'=', ..] | [b'-', b'>', ..] | [b'!' | b':', b'=', ..] => 2,
        [b'=' | b':', ..] => 1,
        _ => 0,
    }
}

/// The first name from `at` on that something follows.
fn next(text: &str, mut at: usize) -> Option<Found<'_>> {
    let bytes = text.as_bytes();
    let from = at;
    loop {
        at += memchr::memchr3(b'=', b':', b'>', bytes.get(at..)?)?;
        // `!=` and `->` begin before what was looked for.
        let before = at.checked_sub(1).filter(|before| *before >= from);
        let begin = match before.map(|before| bytes[before]) {
            Some(b'!') if bytes[at] == b'=' => at - 1,
            Some(b'-') if bytes[at] == b'>' => at - 1,
            _ => at,
        };
        let length = operator(&bytes[begin..]);
        if length == 0 {
            at += 1;
            continue;
        }
        if let Some(found) = around(text, from, begin, length) {
            return Some(found);
        }
        at = begin + length;
    }
}

/// A name before an operator, and the quote behind it.
fn around(text: &str, from: usize, operator: usize, length: usize) -> Option<Found<'_>> {
    let bytes = text.as_bytes();
    let blanks = |b: &&u8| matches!(b, b' ' | b'\t');
    let mut end = operator - bytes[from..operator].iter().rev().take_while(blanks).count();
    let quoted = end;
    if end > from && matches!(bytes[end - 1], b'"' | b'\'') {
        end -= 1;
        end -= bytes[from..end].iter().rev().take_while(|b| **b == b'\\').count();
    }
    let run = bytes[from..end].iter().rev().take(LONGEST).take_while(|b| is_of_name(**b)).count();
    let begins = |b: &u8| b.is_ascii_alphabetic() || *b == b'_' || *b >= 0xC0;
    let start = end - run + bytes[end - run..end].iter().position(begins)?;
    if end - start < 2 {
        return None;
    }
    let mut at = operator + length;
    at += bytes[at..].iter().take_while(blanks).count();
    // SQL's N'x'.
    at += usize::from(matches!(bytes.get(at..at + 2), Some([b'N', b'\''])));
    let escapes = bytes[at..].iter().take_while(|b| **b == b'\\').count();
    let quote = match bytes.get(at + escapes) {
        Some(b'"' | b'\'') => &text[at..at + escapes + 1],
        _ => "",
    };
    Some(Found {
        name: text.get(start..end)?,
        name_at: start,
        name_is_quoted: quoted > end,
        by: &text[operator..operator + length],
        quote,
        end: at + quote.len(),
    })
}

/// A part of multipart/form-data.
static PART: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?s)name="([^"\r\n]{1,80})"[^\r\n]*(?:\r?\n[^\r\n]+)*\r?\n\r?\n(.*?)(?:\r?\n--|\z)"#,
    )
    .expect("the pattern is right")
});

const SCHEMES: [&str; 8] =
    ["bearer", "basic", "digest", "negotiate", "ntlm", "token", "apikey", "aws4-hmac-sha256"];

/// Replaces values whose name tells; `take` says by what, for a value as it is meant.
pub fn replace(text: &str, take: &mut dyn FnMut(&str) -> Option<String>) -> Option<String> {
    let mut out = Changed::default();
    let mut at = 0;
    let is_list = LazyCell::new(|| is_list(text));
    while let Some(found) = next(text, at) {
        let Found { name, name_at, name_is_quoted, by, quote, end } = found;
        at = end;
        let meant = percent_decoded(name, false);
        let mut told = names::told(meant.as_deref().unwrap_or(name));
        // What a login is finished with.
        if name == "code" && by == "=" && ["grant_type=", "state="].iter().any(|w| text.contains(w))
        {
            told = Told::IfOpaque;
        }
        if told == Told::Nothing {
            continue;
        }
        let place = Place {
            name,
            name_is_quoted,
            by,
            quote,
            is_list: *is_list,
            begins_line: text[..name_at]
                .trim_end_matches(' ')
                .chars()
                .next_back()
                .is_none_or(|c| c == '\n'),
        };
        let value = place.value(&text[at..], told);
        if value.is_empty() {
            continue;
        }
        let is_url = place.quote.is_empty()
            && place.by == "="
            && !text[..name_at].ends_with('-')
            && (text[..name_at].ends_with(['?', '&']) || !text.contains(char::is_whitespace));
        let meant = if is_url { percent_decoded(value, true) } else { None };
        let meant = meant.as_deref().unwrap_or(value);
        // --tls-key=/etc/tls.key
        let is_file = commands::is_path(meant)
            && (text[..name_at].ends_with('-') || FILES.iter().any(|end| meant.ends_with(end)));
        if is_file || !names::is_secret(told, meant) {
            continue;
        }
        let end = at + value.len();
        if let Some(instead) = take(meant) {
            let instead = if is_url { percent_encoded(&instead) } else { instead };
            out.put(text, at..end, &instead);
        }
        at = end;
    }
    out.end(text)
}

/// The same of multipart/form-data.
pub fn replace_in_parts(
    text: &str,
    take: &mut dyn FnMut(&str) -> Option<String>,
) -> Option<String> {
    if !text.contains("form-data") {
        return None;
    }
    let mut out = Changed::default();
    for found in PART.captures_iter(text) {
        let (Some(name), Some(value)) = (found.get(1), found.get(2)) else { continue };
        if names::is_secret(names::told(name.as_str()), value.as_str())
            && let Some(instead) = take(value.as_str())
        {
            out.put(text, value.range(), &instead);
        }
    }
    out.end(text)
}

/// Where a value stands.
struct Place<'t> {
    name: &'t str,
    name_is_quoted: bool,
    by: &'t str,
    quote: &'t str,
    begins_line: bool,
    is_list: bool,
}

/// Whether each line is a name and a value, as programs' environments and settings have them.
fn is_list(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim_start).filter(|l| !l.is_empty()).peekable();
    let is_pair = |line: &str| {
        let line = line.strip_prefix("export ").unwrap_or(line);
        let name = run(line, |c| !(c.is_ascii_alphanumeric() || "_.-".contains(c)));
        !name.is_empty() && line[name.len()..].trim_start().starts_with('=')
    };
    text.contains('\n')
        && lines.peek().is_some()
        && lines.all(|line| line.starts_with(['#', ';', '[']) || is_pair(line))
}

impl Place<'_> {
    /// The value that a text begins with; nothing if it does not look like one.
    fn value<'t>(&self, rest: &'t str, told: Told) -> &'t str {
        if !self.quote.is_empty() {
            return &rest[..self.end_of_quoted(rest)];
        }
        if self.by == "=" && self.begins_line && self.is_list {
            let line = rest.lines().next().unwrap_or_default().trim_end();
            return line.split(" #").next().unwrap_or_default();
        }
        if self.by != ":" {
            let value = unquoted(rest, |c| c.is_whitespace() || "&;\"'<>".contains(c));
            return self.with_scheme(rest, value.trim_end_matches(BEHIND));
        }
        let value = unquoted(rest, |c| c.is_whitespace() || ",;}]\"'&".contains(c));
        let value = value.trim_end_matches(',');
        if value.starts_with("//") || value.starts_with(['{', '[']) {
            return "";
        }
        if self.name_is_quoted {
            let is_number = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
            return if is_number && told != Told::IfOpaque { value } else { "" };
        }
        // Where a line is all that is there, what looks made need not be the first word.
        let line = rest.trim_end();
        let is_all = self.begins_line && !line.contains(['\n', ':', '=', '"', '{', '[']);
        if is_all
            && matches!(told, Told::Secret | Told::Key)
            && line.split(' ').any(names::is_opaque)
        {
            return line;
        }
        // A header has its line.
        let lower = self.name.to_ascii_lowercase();
        let is_header =
            lower.contains('-') || lower.ends_with("authorization") || lower.ends_with("cookie");
        if self.begins_line && is_header && matches!(told, Told::Secret | Told::Key) {
            return rest.lines().next().unwrap_or_default().trim_end();
        }
        // Words follow words: `token: expired`.
        let value = self.with_scheme(rest, value);
        let last = value.rsplit(' ').next().unwrap_or_default();
        if names::is_opaque(last)
            || (told == Told::Code && last.bytes().all(|b| b.is_ascii_digit()))
        {
            value
        } else {
            ""
        }
    }

    /// What follows a scheme belongs to it.
    fn with_scheme<'t>(&self, rest: &'t str, value: &'t str) -> &'t str {
        if !SCHEMES.iter().any(|scheme| value.eq_ignore_ascii_case(scheme)) {
            return value;
        }
        let after = rest[value.len()..].trim_start_matches([' ', '\t']);
        let more = run(after, |c| c.is_whitespace() || "&;\"'<>,}".contains(c));
        &rest[..rest.len() - after.len() + more.len()]
    }

    fn end_of_quoted(&self, rest: &str) -> usize {
        if self.quote.len() > 1 {
            return rest.find(self.quote).unwrap_or(rest.len());
        }
        let mut escaped = false;
        rest.char_indices()
            .find(|(_, c)| {
                let ends = !escaped && self.quote.starts_with(*c);
                escaped = !escaped && *c == '\\';
                ends
            })
            .map_or(rest.len(), |(at, _)| at)
    }
}

/// What files that hold secrets end in.
const FILES: [&str; 8] = [".json", ".pem", ".key", ".txt", ".p12", ".jks", ".yaml", ".yml"];

/// What stands behind a value, and is none of it.
const BEHIND: [char; 8] = [',', '.', ')', ']', '}', '\\', '&', ';'];

/// A value without quotes. An ampersand, a comma or a semicolon in it ends it where another name and value follow, or
/// nothing does: passwords have them, too.
fn unquoted(text: &str, ends: impl Fn(char) -> bool) -> &str {
    let mut from = 0;
    while let Some(at) = text[from..].find(&ends).map(|at| from + at) {
        let after = &text[at..];
        let Some(by) = after.chars().next().filter(|c| matches!(c, '&' | ',' | ';')) else {
            return &text[..at];
        };
        if pair_follows(&after[1..], by) {
            return &text[..at];
        }
        from = at + 1;
    }
    text
}

fn pair_follows(after: &str, by: char) -> bool {
    let after = after.strip_prefix("amp;").unwrap_or(after).trim_start_matches(' ');
    // `User Id=sa;Password=x`: names have spaces in them there.
    let more = if by == ';' { "_.%[]$- '\"\\" } else { "_.%[]$-'\"\\" };
    let name = run(after, |c| !(c.is_ascii_alphanumeric() || more.contains(c)));
    after.is_empty() || !name.trim().is_empty() && after[name.len()..].starts_with(['=', ':'])
}

fn run(text: &str, ends: impl Fn(char) -> bool) -> &str {
    &text[..text.find(ends).unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str) -> (String, Vec<String>) {
        let mut taken = Vec::new();
        let new = replace(text, &mut |value| {
            taken.push(value.to_owned());
            Some("[x]".into())
        });
        (new.unwrap_or_else(|| text.to_owned()), taken)
    }

    #[test]
    fn values_are_found_wherever_names_and_values_stand() {
        for (text, left, secret) in [
            (
                "grant_type=password&password=hunter2&x=1",
                "grant_type=password&password=%5Bx%5D&x=1",
                "hunter2",
            ),
            ("/cb?access_token=a%2Fb+c&page=2", "/cb?access_token=%5Bx%5D&page=2", "a/b c"),
            ("DB_PASSWORD=Tr0ub&4dor;x9\nX=1", "DB_PASSWORD=[x]\nX=1", "Tr0ub&4dor;x9"),
            ("user=a; password=Tr0u;4d&r; mode=1", "user=a; password=[x]; mode=1", "Tr0u;4d&r"),
            ("x=1 password=ab&&c && y", "x=1 password=[x] && y", "ab&&c"),
            ("user%5Bpassword%5D=x1", "user%5Bpassword%5D=%5Bx%5D", "x1"),
            (
                "Server=db;User Id=sa;Password=p@ss,w;Encrypt=yes",
                "Server=db;User Id=sa;Password=[x];Encrypt=yes",
                "p@ss,w",
            ),
            ("x=1 password=Tr0ub&4dor y=2", "x=1 password=[x] y=2", "Tr0ub&4dor"),
            ("DB_PASSWORD=a horse or two\nX=1", "DB_PASSWORD=[x]\nX=1", "a horse or two"),
            ("--token=abc123", "--token=[x]", "abc123"),
            ("level=info token=abc123 user=bob", "level=info token=[x] user=bob", "abc123"),
            (
                "{\"username\":\"alice\",\"password\":\"hun",
                "{\"username\":\"alice\",\"password\":\"[x]",
                "hun",
            ),
            (
                r#"..\"password\":\"hunter2\",\"n\":1.."#,
                r#"..\"password\":\"[x]\",\"n\":1.."#,
                "hunter2",
            ),
            ("{'password': 'it''s', 'n': 1}", "{'password': '[x]''s', 'n': 1}", "it"),
            (r#"login(password: "a\"b")"#, r#"login(password: "[x]")"#, r#"a\"b"#),
            (
                "GET / HTTP/1.1\r\nAuthorization: Digest a b\r\nHost: x",
                "GET / HTTP/1.1\r\nAuthorization: [x]\r\nHost: x",
                "Digest a b",
            ),
            ("password: hunter2", "password: [x]", "hunter2"),
            ("password: ab,Zq9xsecret", "password: [x]", "ab,Zq9xsecret"),
            ("login, password: a1,b2c3d4, user: x", "login, password: [x], user: x", "a1,b2c3d4"),
            ("password: correct horse Zq9xse", "password: [x]", "correct horse Zq9xse"),
            ("contraseña=Zq9xse&x=1", "contraseña=%5Bx%5D&x=1", "Zq9xse"),
            ("sent authorization=Bearer abc123, ok", "sent authorization=[x], ok", "Bearer abc123"),
            (r#"{"pin": 1234, "otp":"#, r#"{"pin": [x], "otp":"#, "1234"),
        ] {
            assert_eq!(replaced(text), (left.to_owned(), vec![secret.to_owned()]), "{text}");
        }
    }

    #[test]
    fn parts_of_forms_have_names_and_values_too() {
        let part = |name: &str, value: &str| {
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let form = |password| format!("{}{}--b--", part("user", "bob"), part("password", password));
        let left = replace_in_parts(&form("a\r\nb"), &mut |_| Some("[x]".into()));
        assert_eq!(left, Some(form("[x]")));
    }

    #[test]
    fn words_after_words_stay() {
        for text in [
            "token: expired",
            "the password: must be long",
            "secret=",
            "password=${DB}",
            "token://x",
            "status_code=200&page_token=abc123",
            "key=value&keys=1",
            "password: {",
            "monkey=abc123",
        ] {
            assert_eq!(replaced(text), (text.to_owned(), Vec::new()));
        }
    }
}
