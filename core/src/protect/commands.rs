//! Secrets in command lines: behind a flag whose name tells, and where programs have them.

use std::sync::LazyLock;

use memchr::memmem;
use regex::Regex;

use super::encoded::Changed;
use super::names::{self, Told};

/// `--password hunter2`, `-token 'x'`, and in a list: `--password, x`.
static FLAG: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?:^|[\s"'`;(|&,\[])(--?[A-Za-z][A-Za-z0-9_.-]{1,60})(?:[ \t]+|[ \t]*,[ \t]*)(?:"([^"\n]+)"|'([^'\n]+)'|([^\s"'`;|&),\]]+))"#,
    )
    .expect("the pattern is right")
});

/// Where programs and languages have a password without a name; the group is it.
static PLACES: LazyLock<[Place; 7]> = LazyLock::new(|| {
    let place = |words: &'static [&'static str], pattern: &str| Place {
        words,
        pattern: Regex::new(pattern).expect("the pattern is right"),
    };
    [
        place(
            &["curl", "wget"],
            r#"\b(?:curl|wget)\b[^|;&\n]*?\s(?:-u|--user|--proxy-user)[ =]?["']?[^\s:"']+:([^\s"']+)"#,
        ),
        place(&[" login "], r#"\blogin\b[^|;&\n]*?\s-p[ =]?["']?([^\s"'-][^\s"']*)"#),
        place(
            &["mysql", "mariadb"],
            r#"\b(?:mysql|mariadb)[a-z-]*\b[^|;&\n]*?\s-p["']?([^\s"']+)"#,
        ),
        place(&["redis-cli"], r#"\bredis-cli\b[^|;&\n]*?\s-a[ =]?["']?([^\s"']+)"#),
        place(&["sshpass"], r#"\bsshpass\s+-p[ =]?["']?([^\s"']+)"#),
        // netrc
        place(&["login "], r"\blogin\s+\S+\s+password\s+(\S+)"),
        // SQL
        place(
            &["password '", "identified by"],
            r"(?i)\b(?:password|identified(?:\s+with\s+\S+)?\s+by(?:\s+password)?)\s+'([^']+)'",
        ),
    ]
});

struct Place {
    words: &'static [&'static str],
    pattern: Regex,
}

/// What follows a program's flag without a name, for the prefilter: `-p x`, `-u a:b`, `-a x`.
pub fn may_have(bytes: &[u8]) -> bool {
    memmem::find_iter(bytes, b" -").any(|at| {
        matches!(bytes.get(at + 2), Some(b'p' | b'u' | b'a'))
            || bytes[at..].starts_with(b" --user")
            || bytes[at..].starts_with(b" --proxy-user")
    }) && PLACES
        .iter()
        .any(|place| place.words.iter().any(|word| memmem::find(bytes, word.as_bytes()).is_some()))
}

/// Whether a name is a flag's: `--password`.
pub fn told(flag: &str) -> Told {
    if flag.starts_with('-') && !flag.contains('=') { names::told(flag) } else { Told::Nothing }
}

/// Whether what follows a flag is its value, and no file that holds it.
pub fn is_value(told: Told, value: &str) -> bool {
    !value.starts_with('-') && names::is_secret(told, value) && !is_path(value)
}

/// Replaces secrets; `take` says by what.
pub fn replace(text: &str, take: &mut dyn FnMut(&str) -> Option<String>) -> Option<String> {
    let has_flags = text.contains("--") || text.contains(" -") || text.starts_with('-');
    let flags = if has_flags { replace_flags(text, take) } else { None };
    if !has_flags && !text.contains('\'') && !text.contains("login ") {
        return None;
    }
    let text = flags.as_deref().unwrap_or(text);
    let lower = text.to_ascii_lowercase();
    let mut placed: Option<String> = None;
    for place in PLACES.iter() {
        if !place.words.iter().any(|word| lower.contains(word)) {
            continue;
        }
        let now = placed.as_deref().unwrap_or(text);
        let mut out = Changed::default();
        for found in place.pattern.captures_iter(now).filter_map(|found| found.get(1)) {
            if names::is_secret(Told::Secret, found.as_str())
                && let Some(instead) = take(found.as_str())
            {
                out.put(now, found.range(), &instead);
            }
        }
        if let Some(new) = out.end(now) {
            placed = Some(new);
        }
    }
    placed.or(flags)
}

fn replace_flags(text: &str, take: &mut dyn FnMut(&str) -> Option<String>) -> Option<String> {
    let mut out = Changed::default();
    let mut at = 0;
    while let Some(found) = FLAG.captures_at(text, at) {
        let (Some(flag), Some(value)) = (found.get(1), (2..5).find_map(|group| found.get(group)))
        else {
            break;
        };
        // What follows may be a flag itself.
        at = flag.end();
        let told = told(flag.as_str());
        if told != Told::Nothing
            && is_value(told, value.as_str())
            && let Some(instead) = take(value.as_str())
        {
            out.put(text, value.range(), &instead);
            at = value.end();
        }
    }
    out.end(text)
}

pub fn is_path(text: &str) -> bool {
    ["/", "./", "../", "~/", "file:", "C:\\"].iter().any(|begin| text.starts_with(begin))
        && text.bytes().all(|b| b.is_ascii_graphic() && !b"+=".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_programs_have_secrets() {
        for (text, left) in [
            ("app --password hunter --out x", "app --password [x] --out x"),
            ("vault login -token 'a b' -n", "vault login -token '[x]' -n"),
            ("[ docker, login, --password, hunter ]", "[ docker, login, --password, [x] ]"),
            ("curl -sS -u ann:hunter https://x", "curl -sS -u ann:[x] https://x"),
            ("docker login -u bot -p hunter r.example", "docker login -u bot -p [x] r.example"),
            ("mysqldump -uroot -phunter db", "mysqldump -uroot -p[x] db"),
            ("machine h login bot password hunter", "machine h login bot password [x]"),
            ("ALTER USER a PASSWORD 'hunter'", "ALTER USER a PASSWORD '[x]'"),
            ("create user a identified by 'hunter'", "create user a identified by '[x]'"),
        ] {
            assert_eq!(replace(text, &mut |_| Some("[x]".into())).as_deref(), Some(left));
        }
        for text in [
            "app --token-ttl 3600 --password-file /run/p",
            "app --private-key /etc/k.pem --password-stdin",
            "app --password --verbose",
            "the user -p flag",
            "docker run -p 8080:80 login",
            "SELECT password FROM users",
        ] {
            assert_eq!(replace(text, &mut |_| Some("[x]".into())), None, "{text}");
        }
    }
}
