//! What looks like an e-mail address and is none: `git@host:path`, `package@1.2.alpha`, `getty@tty1.service`.

use std::ops::Range;

/// Ends of files and units; none of them is a top-level domain.
const ENDINGS: [&str; 41] = [
    "avif", "bmp", "cfg", "conf", "css", "csv", "deb", "dll", "exe", "gif", "html", "ico", "ini",
    "jar", "jpeg", "jpg", "js", "json", "jsx", "lock", "log", "mjs", "mount", "php", "png", "rpm",
    "scss", "service", "slice", "socket", "svg", "tgz", "timer", "toml", "ts", "tsx", "webp",
    "whl", "xml", "yaml", "yml",
];

/// Users of version control, which nobody is.
const USERS: [&str; 4] = ["git", "hg", "svn", "gitea"];

/// Programs whose arguments are a user and a host.
const REMOTE: [&str; 6] = ["ssh", "scp", "sftp", "rsync", "mosh", "autossh"];

/// Whether what looks like an address, at a place in a text, may be a person's.
pub fn is_person_s(text: &str, range: &Range<usize>) -> bool {
    let (before, after) = (&text[..range.start], &text[range.end..]);
    let Some((user, host)) = text[range.clone()].rsplit_once('@') else { return false };
    let labels: Vec<&str> = host.split('.').collect();
    let ending = labels.last().unwrap_or(&"").to_ascii_lowercase();
    if ENDINGS.contains(&ending.as_str()) || host.ends_with(".svc.cluster.local") {
        return false;
    }
    // Versions: 1.2.alpha, v1.2.3-beta.rc.
    let is_number = |label: &&&str| {
        label.trim_start_matches(['v', 'V']).starts_with(|c: char| c.is_ascii_digit())
    };
    if labels[..labels.len() - 1].iter().filter(is_number).count() > 1 {
        return false;
    }
    if USERS.contains(&user) {
        return false;
    }
    // user@host in a URL. An address in front of a password has another @ behind it.
    if before.ends_with("//") {
        let rest = after.split(['/', '?', '#', '"', '\'', ' ', '\n']).next().unwrap_or_default();
        return rest.contains('@') || rest.contains("%40");
    }
    !is_remote_path(after) && !is_remote_command(before)
}

/// `host:path/to`, as scp and rsync have it.
fn is_remote_path(after: &str) -> bool {
    let Some(path) = after.strip_prefix(':') else { return false };
    let path = path.split(|c: char| c.is_whitespace() || "\"',;<>".contains(c)).next();
    let path = path.unwrap_or_default();
    !path.is_empty() && (path.contains('/') || path.starts_with('~') || path.ends_with(".git"))
}

/// `ssh -i key user@host`
fn is_remote_command(before: &str) -> bool {
    let line = before.rsplit(['\n', ';', '|', '&']).next().unwrap_or_default();
    if !line.ends_with([' ', '\t']) {
        return false;
    }
    let mut words = line.split_ascii_whitespace();
    let Some(at) =
        words.position(|word| REMOTE.contains(&word.rsplit('/').next().unwrap_or_default()))
    else {
        return false;
    };
    // Between the program and the address stand options and what belongs to them.
    let between: Vec<&str> = line.split_ascii_whitespace().skip(at + 1).collect();
    between
        .iter()
        .enumerate()
        .all(|(i, word)| word.starts_with('-') || (i > 0 && between[i - 1].starts_with('-')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_have_an_at_too() {
        let is = |text: &str| {
            let at = text.rfind('@').unwrap();
            let part = |c: char| c.is_ascii_alphanumeric() || "._%+'-".contains(c);
            let start = text[..at].rfind(|c| !part(c)).map_or(0, |i| i + 1);
            let end = text[at + 1..].find(|c| !part(c)).map_or(text.len(), |i| at + 1 + i);
            is_person_s(text, &(start..end))
        };
        for text in [
            "git@github.com:acme/shop.git",
            "clone git@github.com:shop",
            "deploy@build.example:/srv/app",
            "ssh://git@github.com/acme/app",
            "git+ssh://ci@svn.example/repo",
            "https://0123456789abcdef@o42.ingest.sentry.io/1",
            "ssh deploy@build.example",
            "ssh -i k -p 22 deploy@build.example uptime",
            "/usr/bin/rsync -a root@files.example",
            "python@3.12.alpha",
            "lib@v2.0.0-20261124-abc.rc",
            "icon@2x.png",
            "getty@tty1.service",
            "rabbit@rabbit-0.rabbit.shop.svc.cluster.local",
        ] {
            assert!(!is(text), "{text}");
        }
        for text in [
            "ann@163.com",
            "ann@1and1.com",
            "mailto:ann@mail.example",
            "ann@mail.example: hello",
            "ann@mail.example:hunter2",
            "use ssh and write to ann@mail.example",
            "/users/ann@mail.example/",
            "ann@mail.example/x",
            "ann@corp.local",
        ] {
            assert!(is(text), "{text}");
        }
    }
}
