//! Numbers with their nouns, for people; names in commands that can be pasted; and text of others on a line.

use std::fmt::Display;

/// A number of things: `1 file`, `2 files`, `0 queries`.
pub fn counted<N: Copy + Display + PartialEq + From<u8>>(n: N, one: &str) -> String {
    if n == N::from(1) { format!("1 {one}") } else { format!("{n} {}", several(one)) }
}

/// A name as a shell takes it for one word.
pub fn shell(name: &(impl Display + ?Sized)) -> String {
    let name = name.to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:@%,".contains(c);
    if !name.is_empty() && name.chars().all(plain) {
        return name;
    }
    format!("'{}'", name.replace('\'', "'\\''"))
}

/// What others wrote, on one line: line ends are spaces, and control characters, which a terminal would obey, are replaced.
pub fn visible(text: &str) -> impl Iterator<Item = char> {
    text.chars().map(|c| match c {
        '\n' | '\r' | '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    })
}

/// The plural of a noun, whose last word is the one that changes.
pub fn several(one: &str) -> String {
    let consonant = |c: char| !matches!(c, 'a' | 'e' | 'i' | 'o' | 'u');
    match one.strip_suffix('y') {
        Some(stem) if stem.chars().last().is_some_and(consonant) => format!("{stem}ies"),
        _ if ["s", "x", "ch", "sh"].iter().any(|end| one.ends_with(end)) => format!("{one}es"),
        _ => format!("{one}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_word_to_a_shell() {
        for (name, word) in [
            ("pipelines/opa.yaml", "pipelines/opa.yaml"),
            ("my file.yaml", "'my file.yaml'"),
            ("it's.yaml", "'it'\\''s.yaml'"),
            ("$(x)", "'$(x)'"),
            ("", "''"),
        ] {
            assert_eq!(shell(name), word);
        }
    }

    #[test]
    fn lines_become_one_and_nothing_is_obeyed() {
        let said: String = visible("an error\n\tin p.rego\u{1b}[2J").collect();
        assert_eq!(said, "an error  in p.rego\u{fffd}[2J");
    }

    #[test]
    fn one_is_not_several() {
        for (n, one, said) in [
            (1, "file", "1 file"),
            (0, "file", "0 files"),
            (2, "decision ID", "2 decision IDs"),
            (2, "query", "2 queries"),
            (2, "day", "2 days"),
            (3, "match", "3 matches"),
        ] {
            assert_eq!(counted::<u64>(n, one), said);
        }
        assert_eq!(counted(1_usize, "byte"), "1 byte");
    }
}
