//! Secrets in command lines: behind a flag whose name tells, and where programs have them.

use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem;
use regex::Regex;

use super::changed::Changed;
use super::names::{self, Told};

/// `--password hunter2`, `-token 'x'`, and in a list: `--password, x`.
static FLAG: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?:^|[\s"'`;(|&,\[])(--?[A-Za-z][A-Za-z0-9_.-]{1,60})(?:[ \t]+|[ \t]*,[ \t]*)(?:"([^"\n]+)"|'([^'\n]+)'|([^\s"'`;|&),\]]+))"#,
    )
    .expect("the pattern is right")
});

/// Where programs and languages have a password without a name; the group is it.
static PLACES: LazyLock<[Place; 14]> = LazyLock::new(|| {
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
        place(
            &["mongo"],
            r#"\bmongo(?:sh|dump|restore|export|import)?\b[^|;&\n]*?\s-p[ =]?["']?([^\s"'-][^\s"']*)"#,
        ),
        place(
            &["psexec", "sqlcmd"],
            r#"(?i)\b(?:psexec|sqlcmd)\b[^|;&\n]*?\s-p\s*["']?([^\s"'-][^\s"']*)"#,
        ),
        place(&["ldap"], r#"\bldap[a-z]+\b[^|;&\n]*?\s-w\s*["']?([^\s"'-][^\s"']*)"#),
        place(&["--from-literal"], r#"--from-literal[= ]["']?[^=\s"']+=([^\s"']+)"#),
        place(&["aws configure set"], r"\baws configure set \S*(?:secret|token)\S* (\S+)"),
        place(&["identified by"], r#"(?i)\bidentified\s+by\s+"?([^\s"';]+)"#),
        place(
            &["convertto-securestring"],
            r#"(?i)\bConvertTo-SecureString\s+(?:-String\s+)?["']([^"']+)["']"#,
        ),
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

/// What follows a program's flag without a name, for the prefilter: `-p x`, `-u a:b`, `-a x`, in a text or in a list.
pub fn may_have(bytes: &[u8]) -> bool {
    let flag = |before: &[u8]| {
        memmem::find_iter(bytes, before).any(|at| {
            let rest = &bytes[at + 1..];
            matches!(rest.get(1), Some(b'p' | b'P' | b'u' | b'a' | b'w'))
                || ["--user", "--proxy-user", "--from-literal"]
                    .iter()
                    .any(|long| rest.starts_with(long.as_bytes()))
        })
    };
    let named = |word: &&str| memmem::find(bytes, word.trim().as_bytes()).is_some();
    (flag(b" -") || flag(b"\"-") || memmem::find(bytes, b"configure").is_some())
        && PLACES.iter().any(|place| place.words.iter().any(named))
}

/// Elements of a list that is a command line, and where secrets are in them.
pub fn in_list(elements: &[&str]) -> Vec<(usize, Range<usize>)> {
    let line = elements.join(" ");
    let lower = line.to_ascii_lowercase();
    let mut found = Vec::new();
    let places = PLACES.iter().filter(|place| place.words.iter().any(|word| lower.contains(word)));
    for group in places.filter_map(|place| place.pattern.captures(&line)?.get(1)) {
        let mut start = 0;
        for (i, element) in elements.iter().enumerate() {
            let end = start + element.len();
            if (start..end).contains(&group.start())
                && names::is_secret(Told::Secret, group.as_str())
            {
                found.push((i, group.start() - start..group.end().min(end) - start));
            }
            start = end + 1;
        }
    }
    found
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
    let has_places = ["'", "login ", "dentified", "DENTIFIED"].iter().any(|w| text.contains(w));
    if !has_flags && !has_places {
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
        // PowerShell's (ConvertTo-SecureString ..)
        let told =
            if value.as_str().starts_with('(') { Told::Nothing } else { told(flag.as_str()) };
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
    fn lists_that_are_command_lines_have_secrets() {
        for (list, at) in [
            (&["docker", "login", "-u", "a", "-p", "S3cret"][..], Some((5, 0..6))),
            (&["mysql", "-h", "db", "-pS3cret"], Some((3, 2..8))),
            (&["curl", "-u", "bob:S3cret", "https://x"], Some((2, 4..10))),
            (&["sqlcmd", "-S", "h", "-P", "S3cret"], Some((4, 0..6))),
            (&["kubectl", "create", "secret", "--from-literal=a=S3cret"], Some((3, 17..23))),
            (&["curl", "-L", "https://x"], None),
            (&["login", "logout"], None),
        ] {
            assert_eq!(in_list(list).first().cloned(), at, "{list:?}");
        }
    }

    #[test]
    fn flags_and_programs_have_secrets() {
        for (text, left) in [
            ("app --password hunter --out x", "app --password [x] --out x"),
            ("vault login -token 'a b' -n", "vault login -token '[x]' -n"),
            ("CREATE USER a IDENTIFIED BY S3c;", "CREATE USER a IDENTIFIED BY [x];"),
            ("CREATE USER a IDENTIFIED BY \"S3c\"", "CREATE USER a IDENTIFIED BY \"[x]\""),
            (
                "New-X -Password (ConvertTo-SecureString \"S3c\" -AsPlainText)",
                "New-X -Password (ConvertTo-SecureString \"[x]\" -AsPlainText)",
            ),
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
