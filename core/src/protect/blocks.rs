//! YAML in a text: names at the beginnings of lines, and values behind them or in the lines below.

use std::ops::Range;

use super::changed::Changed;
use super::names::{self, Told};
use super::{pairs, taken};

struct Line<'t> {
    start: usize,
    text: &'t str,
    /// How far its name or its text is from the beginning,
    indent: usize,
    /// and where it stands behind the dashes of a list.
    column: usize,
    name: Option<&'t str>,
    /// What follows the name, or all of it.
    rest: &'t str,
    is_item: bool,
}

/// Replaces values whose name tells; `take` says by what.
pub fn replace(text: &str, take: &mut dyn FnMut(&str) -> Option<String>) -> Option<String> {
    if !text.contains('\n') || !text.contains(':') {
        return None;
    }
    let lines = lines(text);
    let is_document = lines.iter().filter(|line| line.name.is_some()).count() > 1;
    let in_secrets = in_secrets(&lines);
    let mut out = Changed::default();
    let mut done = 0;
    for (i, line) in lines.iter().enumerate() {
        let Some(name) = line.name else { continue };
        // What doesn't tell by its own name is quoted, too.
        let (told, by_name) = match names::told(name) {
            Told::Nothing if in_secrets.contains(&i) => (Told::Secret, false),
            Told::Nothing if pairs::is_value(name) => (beside(&lines, i), false),
            told => (told, true),
        };
        if told == Told::Nothing || line.start < done {
            continue;
        }
        let mut put = |range: Range<usize>| {
            let value = &text[range.clone()];
            if names::is_secret(told, value)
                && !taken::is_word(value)
                && let Some(instead) = take(value)
            {
                done = range.end;
                out.put(text, range, &instead);
            }
        };
        if line.rest.is_empty() || line.rest.starts_with(['|', '>']) {
            below(text, &lines[i + 1..], line).into_iter().for_each(&mut put);
        } else if let Some(inner) = quoted(line.rest).filter(|_| !by_name) {
            let start = offset(text, inner);
            put(start..start + inner.len());
        } else if is_document && !line.rest.starts_with(['"', '\'', '{', '[', '*', '&', '!']) {
            let value = line.rest.split(" #").next().unwrap_or_default().trim_end();
            let start = offset(text, value);
            put(start..start + value.len());
        }
    }
    out.end(text)
}

fn quoted(text: &str) -> Option<&str> {
    ['"', '\''].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))
}

/// So far from a value its name is looked for.
const NEAR: usize = 16;

/// What a name in a line of its own says of the value beside it: `- name: API_TOKEN`, and below `value: x`.
fn beside(lines: &[Line<'_>], at: usize) -> Told {
    let column = lines[at].column;
    let is_other = |line: &&Line<'_>| line.column < column && !line.text.trim().is_empty();
    let tells = |line: &Line<'_>| {
        let named = line.column == column && line.name.is_some_and(pairs::is_naming);
        let told = names::told(line.rest.trim_matches(['"', '\'']));
        (named && told != Told::Nothing).then_some(told)
    };
    let mut before = lines[..at].iter().rev().take(NEAR).take_while(|line| !is_other(line));
    if !lines[at].is_item {
        for line in before.by_ref() {
            if let Some(told) = tells(line) {
                return told;
            }
            if line.is_item && line.column == column {
                break;
            }
        }
    }
    let after = lines[at + 1..].iter().take(NEAR);
    let own = after.take_while(|line| !(is_other(line) || line.is_item && line.column == column));
    own.into_iter().find_map(tells).unwrap_or(Told::Nothing)
}

/// Lines that hold what a Secret of Kubernetes does.
fn in_secrets(lines: &[Line<'_>]) -> Vec<usize> {
    let mut all = Vec::new();
    for (at, kind) in lines.iter().enumerate() {
        let is_secret =
            kind.name == Some("kind") && kind.rest.trim_matches(['"', '\'']) == "Secret";
        if !is_secret {
            continue;
        }
        let is_own = |line: &Line<'_>| {
            line.text.trim().is_empty() || line.column >= kind.column && line.text.trim() != "---"
        };
        let from = at - lines[..at].iter().rev().take_while(|line| is_own(line)).count();
        let to = at + lines[at..].iter().take_while(|line| is_own(line)).count();
        let mut within = false;
        for (i, line) in lines.iter().enumerate().take(to).skip(from) {
            if line.column == kind.column && !line.text.trim().is_empty() {
                within = matches!(line.name, Some("data" | "stringData")) && line.rest.is_empty();
            } else if within {
                all.push(i);
            }
        }
    }
    all
}

/// The values below a name: a block, a scalar over several lines, or the items of a list.
fn below(text: &str, lines: &[Line<'_>], parent: &Line<'_>) -> Vec<Range<usize>> {
    let is_block = !parent.rest.is_empty();
    let belongs = |line: &&Line<'_>| {
        line.text.trim().is_empty()
            || line.indent > parent.indent
            || (!is_block && line.is_item && line.indent >= parent.indent)
    };
    let all: Vec<&Line<'_>> = lines.iter().take_while(belongs).collect();
    let range = |line: &Line<'_>| {
        let start = offset(text, line.rest);
        start..start + line.rest.len()
    };
    let written: Vec<&&Line<'_>> = all.iter().filter(|l| !l.text.trim().is_empty()).collect();
    let (Some(first), Some(last)) = (written.first(), written.last()) else { return Vec::new() };
    if !is_block && first.is_item {
        let items = written.iter().filter(|line| line.is_item && line.name.is_none());
        return items.map(|line| range(line)).collect();
    }
    if !is_block && first.name.is_some() {
        // Members of its own.
        return Vec::new();
    }
    let start = offset(text, first.text.trim());
    let end = last.text.trim_end();
    std::iter::once(start..offset(text, end) + end.len()).collect()
}

/// Where a part of a text begins in it.
fn offset(text: &str, part: &str) -> usize {
    part.as_ptr() as usize - text.as_ptr() as usize
}

fn lines(text: &str) -> Vec<Line<'_>> {
    text.split('\n')
        .map(|line| {
            let line = line.strip_suffix('\r').unwrap_or(line);
            let mut bare = line.trim_start_matches(' ');
            let mut is_item = false;
            let indent = line.len() - bare.len();
            while let Some(rest) = bare.strip_prefix("- ") {
                is_item = true;
                bare = rest.trim_start_matches(' ');
            }
            let (name, rest) = match bare.split_once(':') {
                Some((name, rest))
                    if is_name(name) && (rest.is_empty() || rest.starts_with(' ')) =>
                {
                    (Some(name.trim_matches(['"', '\''])), rest.trim())
                }
                _ => (None, bare.trim_end()),
            };
            let column = line.len() - bare.len();
            Line { start: offset(text, line), text: line, indent, column, name, rest, is_item }
        })
        .collect()
}

fn is_name(name: &str) -> bool {
    let bare = name.trim_matches(['"', '\'']);
    !bare.is_empty()
        && bare.len() <= 80
        && bare.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_lines_below_are_found() {
        for (text, left) in [
            ("password:\n  hunter2\n", "password:\n  [x]\n"),
            ("a: 1\npassword: hunter\nb: 2", "a: 1\npassword: [x]\nb: 2"),
            ("private_key: |\n  one\n  two\nport: 1", "private_key: |\n  [x]\nport: 1"),
            ("db:\r\n  password: >-\r\n    a b\r\n", "db:\r\n  password: >-\r\n    [x]\r\n"),
            ("api_keys:\n- k1x\n- k2y\nn: 1", "api_keys:\n- [x]\n- [x]\nn: 1"),
            ("- name: a\n  token: abc # old\n", "- name: a\n  token: [x] # old\n"),
            (
                "- name: API_TOKEN\n  value: Vq7\n- name: x\n  value: y",
                "- name: API_TOKEN\n  value: [x]\n- name: x\n  value: y",
            ),
            ("- value: \"Vq7\"\n  name: API_TOKEN\n", "- value: \"[x]\"\n  name: API_TOKEN\n"),
            (
                "kind: Secret\nmetadata:\n  name: db\nstringData:\n  a: Vq7\n  b: 'x y'\n",
                "kind: Secret\nmetadata:\n  name: db\nstringData:\n  a: [x]\n  b: '[x]'\n",
            ),
        ] {
            assert_eq!(replace(text, &mut |_| Some("[x]".into())).as_deref(), Some(left));
        }
        for text in [
            "password:\n  minLength: 12\n",
            "the password: must\nbe long",
            "error: x\ntoken: expired",
            "password:\nuser: bob",
            "secretName: db\nkeys:\n  - a",
            "- name: LOG_LEVEL\n  value: debug\n",
            "kind: ConfigMap\ndata:\n  a: b\n",
        ] {
            assert_eq!(replace(text, &mut |_| Some("[x]".into())), None, "{text}");
        }
    }
}
