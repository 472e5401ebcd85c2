//! Names of members that tell that what they hold is a secret, by their words: `db_password`, `X-Csrf-Token`, `dbPassword1`, `user[otp]`.

use base64::Engine;

use crate::decision::base64::BASE64;

mod words;

use words::{CODES, CURSORS, ENDINGS, NAMING, OPENING, TRAILING};
pub use words::{ESCAPED, WORDS};

/// What a name says of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Nothing,
    /// It is a secret: text and numbers.
    Secret,
    /// So is a key, unless it is the name of one: `secretKey: password` of an ExternalSecret.
    Key,
    /// Texts in a list are, numbers only count.
    Secrets,
    /// It is one if it looks like one: `pass: yes` does not, `pass: hunter2` does.
    IfOpaque,
    /// So are texts in a list or a map: `tokens: {ci: ..}`.
    EachIfOpaque,
    /// A login in Base64, a long text that looks made: `auth: basic` is neither.
    IfCredential,
    /// A code of digits, or with digits in it: an OTP, a PIN, a card's check value.
    Code,
}

/// The longest name that is looked at whole; of longer ones the end counts.
const LONGEST: usize = 64;

/// A name in its words, in lower case, one after another.
struct Words {
    bare: [u8; LONGEST],
    length: usize,
    /// Where words begin, as bits.
    starts: u64,
}

impl Words {
    fn of(name: &str) -> Words {
        let bytes = &name.as_bytes()[name.len().saturating_sub(LONGEST)..];
        let mut words = Words { bare: [0; LONGEST], length: 0, starts: 0 };
        for (i, b) in bytes.iter().enumerate() {
            if b.is_ascii() && !b.is_ascii_alphanumeric() {
                continue;
            }
            let before = i.checked_sub(1).map(|at| bytes[at]);
            let starts = match before {
                None => true,
                Some(a) if a.is_ascii() && !a.is_ascii_alphanumeric() => true,
                // camelCase and HTTPServer.
                Some(a) if b.is_ascii_uppercase() => {
                    !a.is_ascii_uppercase() || bytes.get(i + 1).is_some_and(u8::is_ascii_lowercase)
                }
                Some(_) => false,
            };
            words.starts |= u64::from(starts) << words.length;
            words.bare[words.length] = b.to_ascii_lowercase();
            words.length += 1;
        }
        words
    }

    fn bare(&self) -> &[u8] {
        &self.bare[..self.length]
    }

    /// The last word; the only one has all of it.
    fn last(&self) -> &[u8] {
        &self.bare[self.last_start()..self.length]
    }

    fn last_start(&self) -> usize {
        let before = self.starts & 1u64.checked_shl(self.length as u32).map_or(u64::MAX, |b| b - 1);
        63usize.saturating_sub(before.leading_zeros() as usize)
    }

    /// Without the last word; false if it is the only one.
    fn shorten(&mut self) -> bool {
        let start = self.last_start();
        if start == 0 {
            return false;
        }
        self.length = start;
        true
    }
}

fn is_one_of(word: &[u8], words: &[&str]) -> bool {
    words.iter().any(|known| known.as_bytes() == word)
}

/// What a name says of the value that it has.
pub fn told(name: &str) -> Told {
    if name.len() < 2 {
        return Told::Nothing;
    }
    let mut words = Words::of(name);
    match words.bare() {
        // Kafka's number of what is asked.
        b"requestapikey" => return Told::Nothing,
        bare if bare.ends_with(b"connectionstring") => return Told::IfOpaque,
        _ => {}
    }
    loop {
        let last = words.last();
        // password2, password_v4
        let numbered = last.strip_prefix(b"v").unwrap_or(last).iter().all(u8::is_ascii_digit);
        if !(numbered || is_one_of(last, &TRAILING)) || !words.shorten() {
            break;
        }
    }
    while words.length > 1
        && words.bare[words.length - 1].is_ascii_digit()
        && !is_one_of(words.last(), &["s3"])
    {
        words.length -= 1;
    }
    let (bare, last) = (words.bare(), words.last());
    let ends = |ending: &str| bare.ends_with(ending.as_bytes());
    if ends("token") {
        return if CURSORS.iter().any(|cursor| bare[..bare.len() - 5].ends_with(cursor.as_bytes())) {
            Told::Nothing
        } else {
            Told::Secret
        };
    }
    // The names of Kubernetes' Secrets.
    if ends("existingsecret") || ends("pullsecret") || ends("pullsecrets") {
        return Told::Nothing;
    }
    if ENDINGS.iter().any(|ending| ends(ending)) {
        return Told::Secret;
    }
    if ends("key") {
        return key(bare, last);
    }
    if ends("code") || ends("codes") {
        let before = &bare[..bare.len() - if ends("code") { 4 } else { 5 }];
        let opens = CODES.iter().any(|code| before.ends_with(code.as_bytes()));
        return if opens { Told::Code } else { Told::Nothing };
    }
    match last {
        b"pass" if last.len() == bare.len() => Told::IfOpaque,
        b"pass" | b"cred" | b"creds" | b"jwt" | b"pw" => Told::Secret,
        b"passwords" | b"secrets" | b"cookies" => Told::Secrets,
        b"tokens" => Told::EachIfOpaque,
        b"csrf" | b"xsrf" | b"assertion" | b"bearer" | b"session" | b"ticket" | b"mdp"
        | b"clave" | b"parola" => Told::IfOpaque,
        // REDIS_AUTH, GITHUB_PAT
        b"auth" | b"pat" if last.len() < bare.len() && !ends("basicauth") => Told::IfCredential,
        b"keys" if ends("apikeys") || ends("secretkeys") || ends("privatekeys") => Told::Secrets,
        b"otp" | b"totp" | b"hotp" | b"pin" | b"pincode" | b"2fa" | b"mfa" | b"cvv" | b"cvc"
        | b"ssn" => Told::Code,
        _ => odd(bare),
    }
}

/// Names that are none of a kind.
fn odd(bare: &[u8]) -> Told {
    match bare {
        b"authorization"
        | b"proxyauthorization"
        | b"xauthorization"
        | b"xforwardedauthorization"
        | b"xoriginalauthorization"
        | b"httpauthorization"
        | b"basicauth"
        | b"xbasicauth"
        | b"aspnetsessionid"
        | b"xamzsignature"
        | b"xgoogsignature"
        | b"passphrases"
        | b"secretkeybase"
        | b"codeverifier"
        | b"cookie2" => Told::Secret,
        b"auth" => Told::IfCredential,
        b"plaintextvalue" | b"secretdata" => Told::Secret,
        b"sig" | b"sid" | b"connectsid" | b"samlresponse" | b"kubeconfig" | b"dockercfg"
        | b"dockerconfigjson" => Told::IfOpaque,
        _ if bare.ends_with(b"sessionid") || bare.ends_with(b"connectionstring") => Told::IfOpaque,
        _ if bare.ends_with(b"authorization") => Told::IfOpaque,
        _ => Told::Nothing,
    }
}

fn key(bare: &[u8], last: &[u8]) -> Told {
    let before = &bare[..bare.len() - 3];
    if before.is_empty() {
        return Told::Nothing;
    }
    // In one word, what stands before has to be told from the rest of a word: no key opens a monkey.
    let is_apart = last == b"key";
    let is_before = |word: &&str| {
        before.ends_with(word.as_bytes())
            && (is_apart || word.len() > 3 || before.len() == word.len())
    };
    if NAMING.iter().any(is_before) {
        Told::Nothing
    } else if OPENING.iter().any(is_before) {
        Told::Key
    } else if is_apart {
        Told::IfOpaque
    } else {
        Told::Nothing
    }
}

/// Whether a text, of a member that tells so, is a secret.
pub fn is_secret(told: Told, text: &str) -> bool {
    match told {
        Told::Nothing => false,
        Told::Secret => !is_placeholder(text),
        Told::Secrets => !is_placeholder(text) && !is_name(text),
        Told::Key => !is_placeholder(text) && !is_name(text),
        Told::IfOpaque | Told::EachIfOpaque => is_opaque(text) && !is_placeholder(text),
        Told::IfCredential => is_login(text) || text.len() >= 12 && is_opaque(text),
        Told::Code => {
            (3..=64).contains(&text.len())
                && text.bytes().any(|b| b.is_ascii_digit())
                && !text.bytes().any(|b| b.is_ascii_whitespace())
        }
    }
}

/// Whether a text is the name of a secret: `db_password`.
fn is_name(text: &str) -> bool {
    text.len() <= LONGEST
        && text.bytes().all(|b| b.is_ascii_alphabetic() || b"_-.".contains(&b))
        && told(text) != Told::Nothing
}

/// Whether a text is a name and a password in Base64.
fn is_login(text: &str) -> bool {
    text.len() >= 8
        && BASE64.decode(text.trim_end_matches('=')).is_ok_and(|bytes| {
            bytes.contains(&b':') && bytes.iter().all(|b| b.is_ascii_graphic() || *b == b' ')
        })
}

/// How what says where a secret is begins.
const REFERENCES: [&str; 16] = [
    "${",
    "{{",
    "$(",
    "%(",
    "vault:",
    "sm://",
    "op://",
    "ref+",
    "arn:aws",
    "ssm:",
    "secretref:",
    "awssm://",
    "gcpsm://",
    "azurekeyvault://",
    "env://",
    "file://",
];

/// What programs call the values that they have: `var.password`, `input.token`, `io.jwt.decode(..)`.
fn is_expression(text: &str) -> bool {
    const ROOTS: [&str; 19] = [
        "var", "local", "data", "input", "module", "env", "os", "process", "config", "settings",
        "self", "this", "io", "params", "request", "ctx", "secrets", "vars", "Values",
    ];
    let (root, rest) = text.trim_start_matches('.').split_once('.').unwrap_or_default();
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b"_.[]\"'".contains(&b);
    (ROOTS.contains(&root) || root.starts_with("random_"))
        && rest.bytes().take_while(|b| *b != b'(').all(is_part)
}

/// Whether it stands for a secret that is elsewhere, or that somebody else has masked.
fn is_placeholder(text: &str) -> bool {
    let text = text.trim();
    let inner = text.trim_matches(|c| matches!(c, '[' | ']' | '<' | '>' | '(' | ')' | '*' | ' '));
    inner.is_empty()
        || (inner.len() >= 3 && inner.chars().all(|c| "xX.\u{2022}-_?".contains(c)))
        || REFERENCES.iter().any(|begin| text.starts_with(begin))
        || is_expression(text)
        || matches!(text, "?" | "%s")
        || [
            "redacted",
            "masked",
            "hidden",
            "filtered",
            "removed",
            "inherit",
            "null",
            "none",
            "nil",
            "undefined",
            "true",
            "false",
            "yes",
            "no",
            "on",
            "off",
            "read",
            "write",
            "required",
            "optional",
            "expired",
            "missing",
            "invalid",
            "revoked",
            "include",
            "omit",
            "same-origin",
        ]
        .iter()
        .any(|word| inner.eq_ignore_ascii_case(word))
}

/// Whether a text looks made, not written: letters and digits in turn, no words, no path, no UUID.
pub fn is_opaque(text: &str) -> bool {
    let bytes = text.as_bytes();
    // Windows' ids of accounts are no ids of sessions.
    let is_id = is_uuid(bytes) || text.starts_with("S-1-");
    if bytes.len() < 6 || !bytes.iter().all(u8::is_ascii_graphic) || is_id {
        return false;
    }
    let has = |is: fn(&u8) -> bool| bytes.iter().any(is);
    if !has(u8::is_ascii_digit) || !has(u8::is_ascii_alphabetic) {
        return false;
    }
    let parts = bytes.iter().any(|b| matches!(b, b'-' | b':' | b'.' | b'/' | b'@' | b' '));
    let turns = bytes.windows(2).filter(|w| w[0].is_ascii_digit() != w[1].is_ascii_digit()).count();
    if parts {
        // Names with a number at their end are no secrets.
        return bytes.len() >= 16 && turns >= 4 && (has(u8::is_ascii_uppercase) || turns >= 6);
    }
    true
}

fn is_uuid(bytes: &[u8]) -> bool {
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests;
