//! Names and values in text that is not JSON: forms, queries, cookies, connection strings, headers, what
//! programs log, and JSON that was cut.

use std::sync::LazyLock;

use regex::Regex;

use super::commands;
use super::encoded::{Changed, percent_decoded, percent_encoded};
use super::names::{self, Told};

/// A name, what stands between, and the quote that a value begins with.
static NAME: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"([A-Za-z_\x{80}-\x{10ffff}][A-Za-z0-9_.%$\[\]\x{80}-\x{10ffff}-]{1,80})(\\*["'])?[ \t]*(=>|->|===?|!==?|:=|=|:)[ \t]*(\\*["'])?"#,
    )
    .expect("the pattern is right")
});

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
    let is_list = is_list(text);
    while let Some(found) = NAME.captures_at(text, at) {
        let (Some(all), Some(name), Some(by)) = (found.get(0), found.get(1), found.get(3)) else {
            break;
        };
        at = all.end();
        let meant = percent_decoded(name.as_str(), false);
        let told = names::told(meant.as_deref().unwrap_or(name.as_str()));
        if told == Told::Nothing {
            continue;
        }
        let place = Place {
            name: name.as_str(),
            name_is_quoted: found.get(2).is_some(),
            by: by.as_str(),
            quote: found.get(4).map_or("", |q| q.as_str()),
            is_list,
            begins_line: text[..name.start()]
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
            && !text[..name.start()].ends_with('-')
            && (text[..name.start()].ends_with(['?', '&']) || !text.contains(char::is_whitespace));
        let meant = if is_url { percent_decoded(value, true) } else { None };
        let meant = meant.as_deref().unwrap_or(value);
        // --tls-key=/etc/tls.key
        let is_file = text[..name.start()].ends_with('-') && commands::is_path(meant);
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
        if is_all && told == Told::Secret && line.split(' ').any(names::is_opaque) {
            return line;
        }
        // A header has its line.
        let lower = self.name.to_ascii_lowercase();
        let is_header =
            lower.contains('-') || lower.ends_with("authorization") || lower.ends_with("cookie");
        if self.begins_line && is_header && told == Told::Secret {
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
