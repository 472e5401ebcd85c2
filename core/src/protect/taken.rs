//! What was taken out of a record: it may stand elsewhere in it, too.

use std::borrow::Cow;

use super::detector::{ALL, mark};
use super::encoded::{decoded, percent_decoded};
use super::keys::{Sealed, is_envelope, is_pseudonym};
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

pub fn is_word(text: &str) -> bool {
    WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Whether nothing is left of a value but what docket put there.
pub fn is_protected(text: &str) -> bool {
    let is_mark = |by: &str| ALL.iter().any(|d| d.name() == by) || BY.contains(&by);
    text.is_empty()
        || text.strip_prefix("[erased:").and_then(|t| t.strip_suffix(']')).is_some_and(is_mark)
        || is_pseudonym(text)
        || is_envelope(text)
}

/// A text that was taken out, and what stands in its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret {
    pub text: String,
    pub instead: String,
}

/// A member that was taken out: another of that name goes if it has the same value, however short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    /// As JSON.
    pub value: String,
    pub instead: String,
    /// It was in what was taken out, or says yes or no: in OPA's own members others may have it.
    pub only_in_copies: bool,
}

impl Member {
    /// Whether a value is the same.
    pub fn has(&self, value: &str) -> bool {
        if self.value == value {
            return true;
        }
        match (self.value.as_bytes().first(), value.as_bytes().first()) {
            (Some(b'{'), Some(b'{')) | (Some(b'['), Some(b'[')) => {
                let parsed = |text| serde_json::from_str::<serde_json::Value>(text).ok();
                parsed(&self.value).is_some_and(|known| parsed(value) == Some(known))
            }
            (Some(b'{' | b'['), _) | (_, Some(b'{' | b'[')) => false,
            // An agent may have made text of a number.
            _ => meaning(&self.value) == meaning(value),
        }
    }
}

/// What a text says, or how another scalar is written.
pub fn meaning(json: &str) -> Cow<'_, str> {
    if json.starts_with('"') { json::as_str(json).unwrap_or_default() } else { json.into() }
}

/// The name of what a JSON pointer points to; of an element, that of its list.
pub fn name_in(pointer: &str) -> String {
    let is_index = |part: &&str| !part.bytes().all(|b| b.is_ascii_digit());
    let name = pointer.rsplit('/').find(is_index).unwrap_or_default();
    name.replace("~1", "/").replace("~0", "~")
}

#[derive(Debug, Default)]
pub struct Taken {
    secrets: Vec<Secret>,
    members: Vec<Member>,
    /// What was encrypted.
    pub sealed: Vec<Sealed>,
}

impl Taken {
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty() && self.members.is_empty()
    }

    pub fn members(&self) -> &[Member] {
        &self.members
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
        if text.len() >= SHORTEST && self.secrets.len() < MOST && !is_word(text) {
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
                if !is_protected(&value) {
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

    /// What a rule or a policy took out, and the name that it had.
    pub fn node(&mut self, node: &Node<'_>, name: &str, instead: Option<&str>, by: &str) {
        self.member(name, &node.to_text(), instead, by);
    }

    pub fn member(&mut self, name: &str, value: &str, instead: Option<&str>, by: &str) {
        self.json(value, instead, by);
        let mark = mark(by);
        self.add_member(name, value, instead.unwrap_or(&mark), false);
        self.add_members_within(name, value, &mark);
    }

    fn add_members_within(&mut self, name: &str, value: &str, mark: &str) {
        match value.as_bytes().first() {
            Some(b'{') => json::members(value).for_each(|m| {
                self.add_member(&m.key(), m.value, mark, true);
                self.add_members_within(&m.key(), m.value, mark);
            }),
            Some(b'[') => json::elements(value).for_each(|e| {
                self.add_member(name, e, mark, true);
                self.add_members_within(name, e, mark);
            }),
            _ => {}
        }
    }

    fn add_member(&mut self, name: &str, value: &str, instead: &str, is_inner: bool) {
        let says_nothing = matches!(value, "null" | "\"\"" | "{}" | "[]") || name.is_empty();
        if says_nothing || self.members.len() >= MOST || is_protected(&meaning(value)) {
            return;
        }
        self.members.push(Member {
            name: name.to_owned(),
            value: value.to_owned(),
            instead: instead.to_owned(),
            only_in_copies: is_inner || matches!(value, "true" | "false"),
        });
    }
}
