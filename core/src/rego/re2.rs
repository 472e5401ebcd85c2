//! Regular expressions as RE2 and Go read them: `\w`, `\d`, `\s` and `\b` are ASCII, and nothing in a class has a meaning of Rust's own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::iter::Peekable;
use std::str::Chars;

use regex::Regex;
use regorus::Value;

use super::own::text;

/// So many are kept.
const KEPT: usize = 100;

thread_local! {
    static READ: RefCell<BTreeMap<String, Option<Regex>>> = const { RefCell::new(BTreeMap::new()) };
}

/// Nothing is one that Go refuses, or that can't be read as Go does.
pub fn read(pattern: &str) -> Option<Regex> {
    READ.with_borrow_mut(|all| {
        if let Some(known) = all.get(pattern) {
            return known.clone();
        }
        let read = translated(pattern).and_then(|pattern| Regex::new(&pattern).ok());
        if all.len() >= KEPT {
            all.clear();
        }
        all.insert(pattern.to_owned(), read.clone());
        read
    })
}

fn translated(pattern: &str) -> Option<String> {
    let (mut out, mut chars) = (String::new(), pattern.chars().peekable());
    let mut repeated = false;
    while let Some(c) = chars.next() {
        let was = std::mem::take(&mut repeated);
        match c {
            '\\' if chars.peek() == Some(&'Q') => {
                chars.next();
                let rest: String = chars.clone().collect();
                let literal = rest.split("\\E").next().unwrap_or_default();
                literal.chars().for_each(|c| put(c, &mut out));
                let ends = rest.len() > literal.len();
                let skipped = literal.chars().count() + if ends { 2 } else { 0 };
                chars.by_ref().take(skipped).for_each(drop);
            }
            '\\' => escape(&mut chars, false, &mut out)?,
            '[' => class(&mut chars, &mut out)?,
            '(' => {
                out.push('(');
                group(&mut chars, &mut out)?;
            }
            '*' | '+' | '?' if was => return None,
            '*' | '+' | '?' => {
                out.push(c);
                repeated = true;
            }
            '{' => match counted(&chars) {
                Some(_) if was => return None,
                Some(count) => {
                    chars.by_ref().take(count.chars().count()).for_each(drop);
                    let _ = write!(out, "{{{count}");
                    repeated = true;
                }
                None => put('{', &mut out),
            },
            '}' | ']' => put(c, &mut out),
            c => out.push(c),
        }
        if repeated && chars.peek() == Some(&'?') {
            chars.next();
            out.push('?');
        }
    }
    Some(out)
}

/// Behind a `{`: `2}`, `2,}`, `2,3}`.
fn counted(chars: &Peekable<Chars<'_>>) -> Option<String> {
    let rest: String = chars.clone().take_while(|c| *c != '}').collect();
    let (from, to) = rest.split_once(',').unwrap_or((&rest, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let ends = chars.clone().nth(rest.chars().count()) == Some('}');
    (ends && !from.is_empty() && digits(from) && digits(to)).then(|| format!("{rest}}}"))
}

fn put(c: char, out: &mut String) {
    let _ = write!(out, "\\x{{{:x}}}", u32::from(c));
}

fn escape(chars: &mut Peekable<Chars<'_>>, within: bool, out: &mut String) -> Option<()> {
    let c = chars.next()?;
    let set = match c.to_ascii_lowercase() {
        'w' => "0-9A-Za-z_",
        'd' => "0-9",
        's' => r"\t\n\f\r\x20",
        _ => "",
    };
    match c {
        'w' | 'd' | 's' if within => out.push_str(set),
        'w' | 'd' | 's' => {
            let _ = write!(out, "[{set}]");
        }
        'W' | 'D' | 'S' => {
            let _ = write!(out, "[^{set}]");
        }
        'b' if !within => out.push_str(r"(?-u:\b)"),
        'A' | 'z' if !within => {
            out.push('\\');
            out.push(c);
        }
        'a' | 'f' | 't' | 'n' | 'r' | 'v' | 'x' | 'p' | 'P' => {
            out.push('\\');
            out.push(c);
            // `\p{Greek}`
            if chars.peek() == Some(&'{') {
                for c in chars.by_ref() {
                    out.push(c);
                    if c == '}' {
                        break;
                    }
                }
            }
        }
        c if c.is_ascii_punctuation() => put(c, out),
        _ => return None,
    }
    Some(())
}

fn class(chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Option<()> {
    out.push('[');
    if chars.peek() == Some(&'^') {
        chars.next();
        out.push('^');
    }
    let mut first = true;
    loop {
        let c = chars.next()?;
        match c {
            ']' if !first => break,
            '[' if chars.peek() == Some(&':') => {
                let name: String = chars.clone().take_while(|c| *c != ']').collect();
                let known = name.ends_with(':') && name.len() > 2;
                if known {
                    chars.by_ref().take(name.chars().count() + 1).for_each(drop);
                    let _ = write!(out, "[{name}]");
                } else {
                    put('[', out);
                }
            }
            '\\' => escape(chars, true, out)?,
            '-' if chars.peek() == Some(&'-') => return None,
            '-' => out.push('-'),
            c => put(c, out),
        }
        first = false;
    }
    out.push(']');
    Some(())
}

/// What Go knows behind `(?`.
fn group(chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Option<()> {
    if chars.peek() != Some(&'?') {
        return Some(());
    }
    let flags: String = chars.clone().skip(1).take_while(|c| !matches!(c, ':' | ')')).collect();
    let named = flags.starts_with("P<") || flags.starts_with('<');
    if !named && !flags.chars().all(|c| "imsU-".contains(c)) {
        return None;
    }
    if named {
        let length = 1 + chars.clone().skip(1).take_while(|c| *c != '>').count();
        out.extend(chars.by_ref().take(length + 1));
    } else {
        out.extend(chars.by_ref().take(flags.chars().count() + 2));
    }
    Some(())
}

fn given(of: &[Value], pattern: usize, within: usize) -> Option<(Regex, &str)> {
    Some((read(text(of, pattern)?)?, text(of, within)?))
}

/// How many are wanted: all of them if it is negative.
fn most(of: &[Value]) -> Option<usize> {
    let n = of.get(2)?.as_i64().ok()?;
    Some(usize::try_from(n).unwrap_or(usize::MAX))
}

pub fn matches(of: &[Value]) -> Value {
    given(of, 0, 1).map_or(Value::Undefined, |(re, text)| re.is_match(text).into())
}

pub fn find(of: &[Value]) -> Value {
    let Some(((re, text), most)) = given(of, 0, 1).zip(most(of)) else { return Value::Undefined };
    let all = re.find_iter(text).take(most).map(|found| found.as_str().into());
    all.collect::<Vec<Value>>().into()
}

pub fn find_all(of: &[Value]) -> Value {
    let Some(((re, text), most)) = given(of, 0, 1).zip(most(of)) else { return Value::Undefined };
    let groups = |found: regex::Captures<'_>| -> Value {
        let each = found.iter().map(|group| group.map_or("", |group| group.as_str()).into());
        each.collect::<Vec<Value>>().into()
    };
    re.captures_iter(text).take(most).map(groups).collect::<Vec<Value>>().into()
}

pub fn replace(of: &[Value]) -> Value {
    match (given(of, 1, 0), text(of, 2)) {
        (Some((re, text)), Some(by)) => re.replace_all(text, by).into_owned().into(),
        _ => Value::Undefined,
    }
}

/// Go's `Split`.
pub fn split(of: &[Value]) -> Value {
    let Some((re, within)) = given(of, 0, 1) else { return Value::Undefined };
    if within.is_empty() && text(of, 0) != Some("") {
        return vec![Value::from("")].into();
    }
    let (mut all, mut begin, mut end): (Vec<Value>, _, _) = (Vec::new(), 0, 0);
    for found in re.find_iter(within) {
        end = found.start();
        if found.end() != 0 {
            all.push(within[begin..end].into());
        }
        begin = found.end();
    }
    if end != within.len() {
        all.push(within[begin..].into());
    }
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As OPA 1.22 has it.
    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        for (pattern, text, matched) in [
            (r"^\w+$", "é", false),
            (r"^\d+$", "٣", false),
            (r"^\S+$", "é", true),
            (r"a{,2}b", "a{,2}b", true),
            (r"\Qa.b\E", "a.b", true),
            (r"\Qa.b\E", "axb", false),
            ("[a&&b]", "&", true),
            ("[[a]", "[", true),
            (r"\/x\_", "/x_", true),
            (r"\<", "<", true),
            ("[[:alpha:]]", "é", false),
            (r"[^\w]", "é", true),
            ("(?i)straße", "STRASSE", false),
            ("(?P<x>a)[]a]", "a]", true),
        ] {
            assert_eq!(read(pattern).unwrap().is_match(text), matched, "{pattern} {text}");
        }
        for refused in ["a(?=b)", "a**", "(?x)a", r"\u0041", "a{2}*", "["] {
            assert!(read(refused).is_none(), "{refused}");
        }
    }
}
