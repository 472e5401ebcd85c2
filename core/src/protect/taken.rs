//! What was taken out of a record: it may stand elsewhere in it, too.

use super::detect::mark;
use super::encoded::{decoded, percent_decoded};
use super::names;
use super::tree::Node;
use crate::decision::json;

/// Who takes out besides detectors, as marks have it.
pub const RULE: &str = "rule";
pub const POLICY: &str = "policy";
pub const BY: [&str; 2] = [RULE, POLICY];

/// The shortest text that is looked for elsewhere; what is shorter is in too many words.
pub const SHORTEST: usize = 6;

/// More than so many are not looked for.
const MOST: usize = 256;

/// Words that may stand where a secret should, and anywhere else.
const WORDS: [&str; 40] = [
    "access_token",
    "account",
    "allowed",
    "api_key",
    "apikey",
    "authorization",
    "basic",
    "bearer",
    "client_credentials",
    "cookie",
    "credentials",
    "default",
    "delete",
    "denied",
    "disabled",
    "enabled",
    "erased",
    "expired",
    "invalid",
    "masked",
    "missing",
    "negotiate",
    "optional",
    "passwd",
    "password",
    "policy",
    "present",
    "private_key",
    "public",
    "redacted",
    "refresh_token",
    "required",
    "secret",
    "string",
    "token",
    "undefined",
    "unknown",
    "url_password",
    "username",
    "withheld",
];

/// A text that was taken out, and what stands in its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret {
    pub text: String,
    pub instead: String,
}

#[derive(Debug, Default)]
pub struct Taken {
    secrets: Vec<Secret>,
}

impl Taken {
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// The longest first, each once.
    pub fn all(&self) -> Vec<&Secret> {
        let mut all: Vec<&Secret> = self.secrets.iter().collect();
        all.sort_by(|a, b| b.text.len().cmp(&a.text.len()).then_with(|| a.cmp(b)));
        all.dedup_by(|a, b| a.text == b.text);
        all
    }

    pub fn add(&mut self, text: &str, instead: &str) {
        let text = text.trim();
        let is_word = || WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
        if text.len() >= SHORTEST && self.secrets.len() < MOST && !is_word() {
            self.secrets.push(Secret { text: text.to_owned(), instead: instead.to_owned() });
        }
    }

    /// A value of a name that tells, and what in it is the secret: a header's credential, a cookie's
    /// values, the password of Basic.
    pub fn named(&mut self, value: &str, instead: &str, part: &dyn Fn(&str) -> Option<String>) {
        self.add(value, instead);
        let mut add = |text: &str| {
            if let Some(instead) = part(text) {
                self.add(text, &instead);
            }
        };
        if let Some((scheme, credential)) = value.split_once([' ', '\t'])
            && !scheme.is_empty()
            && scheme.len() <= 16
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        {
            let credential = credential.trim();
            if !credential.contains(' ') {
                add(credential);
            }
            if scheme.eq_ignore_ascii_case("basic")
                && let Some((_, password)) =
                    decoded(credential).as_deref().and_then(|pair| pair.split_once(':'))
            {
                add(password);
            }
        }
        for pair in value.split([';', '&', ',']) {
            if let Some((_, value)) = pair.split_once('=') {
                let value = value.trim().trim_matches('"');
                if names::is_opaque(value) && value.len() >= 8 {
                    add(value);
                }
                if let Some(plain) = percent_decoded(value, true) {
                    add(&plain);
                }
            }
        }
    }

    /// What a rule or a policy took out: a text, or what looks made of what is in an object.
    pub fn json(&mut self, text: &str, instead: Option<&str>, by: &str) {
        let mark = mark(by);
        let instead = instead.unwrap_or(&mark);
        match text.as_bytes().first() {
            Some(b'"') => {
                let value = json::as_str(text).unwrap_or_default();
                if !super::walk::is_protected(&value) {
                    self.named(&value, instead, &|_| Some(mark.clone()));
                }
            }
            Some(b'0'..=b'9' | b'-') => self.add(text, instead),
            Some(b'{') => json::members(text).for_each(|m| self.inner(m.value, &mark)),
            Some(b'[') => json::elements(text).for_each(|e| self.inner(e, &mark)),
            _ => {}
        }
    }

    fn inner(&mut self, text: &str, mark: &str) {
        match text.as_bytes().first() {
            Some(b'{') => json::members(text).for_each(|m| self.inner(m.value, mark)),
            Some(b'[') => json::elements(text).for_each(|e| self.inner(e, mark)),
            Some(b'"') => {
                let value = json::as_str(text).unwrap_or_default();
                if value.len() >= 8 && (names::is_opaque(&value) || value.contains('@')) {
                    self.add(&value, mark);
                }
            }
            _ => {}
        }
    }

    pub fn node(&mut self, node: &Node<'_>, instead: Option<&str>, by: &str) {
        self.json(&node.to_text(), instead, by);
    }
}
