//! Values that only who holds the key can read: AES-256-GCM, in an envelope that names the key.
//!
//! `enc:v1:<key id>:<base64url of nonce, ciphertext and tag>`. The nonce is made of the value and its place (HMAC-SHA-256 under a key of its
//! own), so that a record that is made twice is the same twice, and no nonce is used for two values. Decision id and place are authenticated: an
//! envelope that was moved does not open.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;

use super::tree::{Node, each};
use crate::decision::{ids, json};

const PREFIX: &str = "enc:v1:";

/// A key, and what it is called.
pub struct Key {
    id: String,
    values: LessSafeKey,
    nonces: hmac::Key,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why an envelope does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecryptError {
    #[error("it is sealed with the key {0:?}, which was not given")]
    OtherKey(String),
    #[error(
        "it does not open with the key {0:?}: another key of that name, or it was changed or moved"
    )]
    Broken(String),
}

impl Key {
    /// From 32 bytes, in base64 or hex.
    pub fn new(id: &str, text: &str) -> Result<Key, String> {
        if id.is_empty()
            || id.len() > 64
            || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            return Err("a key's id is made of letters, digits, - _ and .".into());
        }
        let text = text.trim();
        let bytes = zeroize::Zeroizing::new(
            hex(text).or_else(|| STANDARD.decode(text).ok()).unwrap_or_default(),
        );
        if bytes.len() != 32 {
            return Err(
                "a key is 32 bytes, in base64 or hex; make one with: openssl rand -base64 32"
                    .into(),
            );
        }
        let master = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        let part = |of: &str| hmac::sign(&master, of.as_bytes());
        let values = UnboundKey::new(&AES_256_GCM, part("docket values").as_ref())
            .map_err(|_| "the key can't be used".to_owned())?;
        Ok(Key {
            id: id.to_owned(),
            values: LessSafeKey::new(values),
            nonces: hmac::Key::new(hmac::HMAC_SHA256, part("docket nonces").as_ref()),
        })
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// JSON, as it stands at a place of a decision, in an envelope.
    pub fn seal(&self, decision_id: &str, place: &str, text: &str) -> String {
        let bound = bound(decision_id, place);
        let mut context = hmac::Context::with_key(&self.nonces);
        context.update(&(bound.len() as u64).to_be_bytes());
        context.update(&bound);
        context.update(text.as_bytes());
        let tag = context.sign();
        let nonce = tag.as_ref()[..NONCE_LEN].try_into().expect("a tag is longer than a nonce");
        let mut sealed = text.as_bytes().to_vec();
        self.values
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(&bound),
                &mut sealed,
            )
            .expect("a decision is smaller than what AES-GCM takes");
        format!("{PREFIX}{}:{}", self.id, URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat()))
    }

    fn open(&self, decision_id: &str, place: &str, envelope: &str) -> Option<String> {
        let mut bytes = URL_SAFE_NO_PAD.decode(envelope).ok()?;
        let (nonce, sealed) = bytes.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let text =
            self.values.open_in_place(nonce, Aad::from(bound(decision_id, place)), sealed).ok()?;
        String::from_utf8(text.to_vec()).ok()
    }
}

/// A pseudonym: HMAC-SHA-256, the first half of it.
pub fn pseudonym(key: &hmac::Key, text: &str) -> String {
    format!("hmac:{}", ids::hex(&hmac::sign(key, text.as_bytes()).as_ref()[..16]))
}

/// What an envelope is bound to.
fn bound(decision_id: &str, place: &str) -> Vec<u8> {
    [&(decision_id.len() as u64).to_be_bytes()[..], decision_id.as_bytes(), place.as_bytes()]
        .concat()
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    digits.then(|| {
        (0..32).filter_map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()).collect()
    })
}

/// Whether a text may have an envelope in it.
pub fn may_hold(text: &str) -> bool {
    memchr::memmem::find(text.as_bytes(), PREFIX.as_bytes()).is_some()
}

/// Opens every envelope of a decision's record. Returns the record, how many were opened, and what was not, with its place.
pub fn open_all(
    record: &str,
    keys: &BTreeMap<String, Key>,
) -> (String, usize, Vec<(String, DecryptError)>) {
    let id = json::get(record, "decision_id").and_then(json::as_str).unwrap_or_default();
    let mut opener = Opener { id: &id, keys, opened: 0, left: Vec::new() };
    let mut node = Node::Raw(record);
    opener.look(&mut node, &mut String::new());
    let text = if opener.opened > 0 { node.to_text() } else { record.to_owned() };
    (text, opener.opened, opener.left)
}

struct Opener<'o> {
    id: &'o str,
    keys: &'o BTreeMap<String, Key>,
    opened: usize,
    left: Vec<(String, DecryptError)>,
}

impl Opener<'_> {
    fn look(&mut self, node: &mut Node<'_>, at: &mut String) {
        if let Node::Raw(text) = node
            && !may_hold(text)
        {
            return;
        }
        match node.open() {
            Node::Object(_) | Node::Array(_) => {
                each(node, at, &mut |child, at| self.look(child, at))
            }
            other => {
                let text = other.to_text();
                let Some(value) = json::as_str(&text) else { return };
                let Some((id, envelope)) =
                    value.strip_prefix(PREFIX).and_then(|rest| rest.split_once(':'))
                else {
                    return;
                };
                match self.keys.get(id).map(|key| key.open(self.id, at, envelope)) {
                    Some(Some(plain)) => {
                        *other = Node::New(plain);
                        self.opened += 1;
                    }
                    Some(None) => self.left.push((at.clone(), DecryptError::Broken(id.to_owned()))),
                    None => self.left.push((at.clone(), DecryptError::OtherKey(id.to_owned()))),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, fill: u8) -> Key {
        Key::new(id, &STANDARD.encode([fill; 32])).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_where_it_was_and_nowhere_else() {
        let keys = BTreeMap::from([("k1".to_owned(), key("k1", 7))]);
        let sealed = keys["k1"].seal("d1", "/input/a~1b/0", r#"{"n":1.50}"#);
        assert_eq!(
            sealed,
            keys["k1"].seal("d1", "/input/a~1b/0", r#"{"n":1.50}"#),
            "the same twice"
        );
        assert_ne!(sealed, keys["k1"].seal("d2", "/input/a~1b/0", r#"{"n":1.50}"#));
        let record = format!(r#"{{"decision_id":"d1","input":{{"a/b":["{sealed}", 2]}}}}"#);
        assert_eq!(
            open_all(&record, &keys),
            (r#"{"decision_id":"d1","input":{"a/b":[{"n":1.50},2]}}"#.to_owned(), 1, Vec::new())
        );
        for moved in [
            record.replace("d1", "d2"),
            record.replace("a/b", "c"),
            record.replace(&sealed[20..24], "AAAA"),
        ] {
            let (text, opened, left) = open_all(&moved, &keys);
            assert_eq!((text, opened, left.len()), (moved, 0, 1));
            assert!(matches!(&left[0].1, DecryptError::Broken(id) if id == "k1"));
        }
        let others = BTreeMap::from([("k2".to_owned(), key("k2", 7))]);
        assert_eq!(
            open_all(&record, &others).2,
            [("/input/a~1b/0".to_owned(), DecryptError::OtherKey("k1".into()))]
        );
        let same_name = BTreeMap::from([("k1".to_owned(), key("k1", 8))]);
        assert!(matches!(open_all(&record, &same_name).2[0].1, DecryptError::Broken(_)));
    }

    #[test]
    fn keys_have_their_form() {
        assert!(Key::new("k", &"ab".repeat(32)).is_ok());
        for (id, text) in [("", "ab"), ("k", "ab"), ("k k", &"ab".repeat(32)), ("k", "not base64!")]
        {
            assert!(Key::new(id, text).is_err(), "{id} {text}");
        }
    }
}
