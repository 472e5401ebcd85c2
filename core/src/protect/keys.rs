//! Values that only who holds the key can read: AES-256-GCM-SIV (RFC 8452), in an envelope that names the key.
//!
//! `enc:v2:<key id>:<base64url of nonce, ciphertext and tag>`. The nonce is made of decision id and place (HMAC-SHA-256 under a key of its
//! own), so that a record that is made twice is the same twice. Should two places ever have one nonce, or one place two values, AES-GCM-SIV
//! tells no more than whether the two are the same. Decision id and place are authenticated: an envelope that was moved does not open.
//!
//! `enc:v1:..` is what docket wrote before: AES-256-GCM, with a nonce made of the value, too. It still opens.

use std::collections::BTreeMap;
use std::sync::Arc;

use aes_gcm_siv::aead::{Aead, KeyInit, Payload};
use aes_gcm_siv::{Aes256GcmSiv, Nonce};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, UnboundKey};
use ring::hmac;

use super::tree::{Node, each, quoted};
use crate::decision::{ids, json};

const PREFIX: &str = "enc:v2:";
const OLD_PREFIX: &str = "enc:v1:";
const TAG_LEN: usize = 16;

/// A key, and what it is called.
pub struct Key {
    id: String,
    values: Aes256GcmSiv,
    nonces: hmac::Key,
    /// For envelopes of the first version.
    old_values: LessSafeKey,
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
        if !is_key_id(id) {
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
        let old_values = UnboundKey::new(&AES_256_GCM, part("docket values").as_ref())
            .map_err(|_| "the key can't be used".to_owned())?;
        let values = Aes256GcmSiv::new_from_slice(part("docket values v2").as_ref())
            .map_err(|_| "the key can't be used".to_owned())?;
        Ok(Key {
            id: id.to_owned(),
            values,
            nonces: hmac::Key::new(hmac::HMAC_SHA256, part("docket nonces v2").as_ref()),
            old_values: LessSafeKey::new(old_values),
        })
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// JSON, as it stands at a place of a decision, in an envelope.
    pub fn seal(&self, decision_id: &str, place: &str, text: &str) -> String {
        let bound = bound(decision_id, place);
        let tag = hmac::sign(&self.nonces, &bound);
        let nonce: [u8; NONCE_LEN] =
            tag.as_ref()[..NONCE_LEN].try_into().expect("a tag is longer than a nonce");
        let sealed = self
            .values
            .encrypt(&Nonce::from(nonce), Payload { msg: text.as_bytes(), aad: &bound })
            .expect("a decision is smaller than what AES-GCM-SIV takes");
        format!("{PREFIX}{}:{}", self.id, URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat()))
    }

    fn open(&self, decision_id: &str, place: &str, envelope: &Envelope<'_>) -> Option<String> {
        let mut bytes = URL_SAFE_NO_PAD.decode(envelope.sealed).ok()?;
        let (nonce, sealed) = bytes.split_at_mut_checked(NONCE_LEN)?;
        let nonce: [u8; NONCE_LEN] = (&*nonce).try_into().ok()?;
        let bound = bound(decision_id, place);
        let text = if envelope.is_old {
            let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
            self.old_values.open_in_place(nonce, Aad::from(bound), sealed).ok()?.to_vec()
        } else {
            let payload = Payload { msg: sealed, aad: &bound };
            self.values.decrypt(&Nonce::from(nonce), payload).ok()?
        };
        String::from_utf8(text).ok()
    }
}

/// An envelope's parts.
struct Envelope<'e> {
    is_old: bool,
    key: &'e str,
    sealed: &'e str,
}

impl<'e> Envelope<'e> {
    fn of(text: &'e str) -> Option<Envelope<'e>> {
        let (is_old, rest) = match text.strip_prefix(PREFIX) {
            Some(rest) => (false, rest),
            None => (true, text.strip_prefix(OLD_PREFIX)?),
        };
        let (key, sealed) = rest.split_once(':')?;
        Some(Envelope { is_old, key, sealed })
    }
}

/// Whether a text is an envelope, and nothing else: `enc:` and anything is none.
pub fn is_envelope(text: &str) -> bool {
    Envelope::of(text).is_some_and(|envelope| {
        is_key_id(envelope.key)
            && URL_SAFE_NO_PAD
                .decode(envelope.sealed)
                .is_ok_and(|bytes| bytes.len() > NONCE_LEN + TAG_LEN)
    })
}

/// Whether a text is a pseudonym, and nothing else.
pub fn is_pseudonym(text: &str) -> bool {
    text.strip_prefix("hmac:").is_some_and(|digits| {
        digits.len() == 32 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn is_key_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= 64
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
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
    [PREFIX, OLD_PREFIX]
        .iter()
        .any(|prefix| memchr::memmem::find(text.as_bytes(), prefix.as_bytes()).is_some())
}

/// What was sealed, to be sealed again where it ends up.
#[derive(Debug)]
pub struct Sealed {
    pub key: Arc<Key>,
    pub place: String,
    pub plain: String,
    pub envelope: String,
}

/// Seals again what was moved since: names above it changed, or elements before it went.
pub fn seal_again(node: &mut Node<'_>, decision_id: &str, sealed: &[Sealed]) {
    fn look(node: &mut Node<'_>, at: &mut String, id: &str, sealed: &[Sealed]) {
        if let Node::Raw(text) = node
            && !may_hold(text)
        {
            return;
        }
        match node.open() {
            Node::Object(_) | Node::Array(_) => {
                each(node, at, &mut |child, at| look(child, at, id, sealed));
            }
            other => {
                let text = other.to_text();
                let Some(value) = json::as_str(&text).filter(|text| is_envelope(text)) else {
                    return;
                };
                if let Some(one) = sealed.iter().find(|one| one.envelope == *value)
                    && one.place != *at
                {
                    *other = quoted(&one.key.seal(id, at, &one.plain));
                }
            }
        }
    }
    if !sealed.is_empty() {
        look(node, &mut String::new(), decision_id, sealed);
    }
}

/// JSON with null for each envelope; nothing if there is none in it.
pub fn without(text: &str) -> Option<String> {
    fn empty(node: &mut Node<'_>, count: &mut usize) {
        match node {
            Node::Raw(text) if !may_hold(text) => {}
            Node::Raw(text) if text.starts_with('"') => {
                if json::as_str(text).is_some_and(|text| is_envelope(&text)) {
                    *node = Node::Raw("null");
                    *count += 1;
                }
            }
            _ => each(node, &mut String::new(), &mut |child, _| empty(child, count)),
        }
    }
    let mut node = Node::Raw(text);
    let mut count = 0;
    empty(&mut node, &mut count);
    (count > 0).then(|| node.to_text())
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
                each(node, at, &mut |child, at| self.look(child, at));
            }
            other => {
                let text = other.to_text();
                let Some(value) = json::as_str(&text) else { return };
                // What docket says of who asked for what may quote the decision: where it quotes an
                // envelope, that one opens where it was sealed.
                let Some(envelope) = Envelope::of(&value).filter(|_| !at.starts_with("/docket/"))
                else {
                    return;
                };
                let id = envelope.key;
                // Anybody may write `enc:v2:`.
                if !self.keys.contains_key(id) && !is_envelope(&value) {
                    return;
                }
                match self.keys.get(id).map(|key| key.open(self.id, at, &envelope)) {
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
        assert_eq!(
            sealed, "enc:v2:k1:0CIFBz9WmuzeIH5w3aSr64dqUpGl9l8ttlebidMlNJ5rOobyqxU",
            "as another implementation of RFC 8452 has it"
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

    /// Sealed by the docket that wrote `enc:v1`, with the key of 32 sevens.
    #[test]
    fn what_an_older_docket_sealed_still_opens() {
        let keys = BTreeMap::from([("k1".to_owned(), key("k1", 7))]);
        let record = r#"{"decision_id":"d1","input":{"a/b":["enc:v1:k1:1g-_qg-DvzEJOEz0Gf_u7tlBZ-MAzTEUmY-yDt1glU-37NhPjfg",2]}}"#;
        assert_eq!(
            open_all(record, &keys),
            (r#"{"decision_id":"d1","input":{"a/b":[{"n":1.50},2]}}"#.to_owned(), 1, Vec::new())
        );
    }

    #[test]
    fn what_docket_quotes_of_an_envelope_is_no_envelope_that_was_moved() {
        let keys = BTreeMap::from([("k1".to_owned(), key("k1", 7))]);
        let sealed = keys["k1"].seal("d1", "/input/user", r#""bob""#);
        let record = format!(
            r#"{{"decision_id":"d1","input":{{"user":"{sealed}"}},"docket":{{"v":1,"subject":"{sealed}","reasons":["{sealed}"]}}}}"#
        );
        let (text, opened, left) = open_all(&record, &keys);
        assert_eq!((opened, left), (1, Vec::new()));
        assert!(
            text.starts_with(r#"{"decision_id":"d1","input":{"user":"bob"},"docket""#),
            "{text}"
        );
    }

    #[test]
    fn only_what_docket_made_is_an_envelope_or_a_pseudonym() {
        let key = key("k1", 7);
        assert!(is_envelope(&key.seal("d1", "/input/a", "1")));
        for text in ["enc:hunter2", "enc:v1:k:x", "enc:v2:k1:", "enc:v2:k 1:AAAA", "enc:v3:k1:AAAA"]
        {
            assert!(!is_envelope(text), "{text}");
        }
        assert!(is_pseudonym(&pseudonym(&hmac::Key::new(hmac::HMAC_SHA256, b"k"), "bob")));
        assert!(!is_pseudonym("hmac:hunter2") && !is_pseudonym("hmac:"));
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
