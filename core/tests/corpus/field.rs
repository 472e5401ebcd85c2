//! Whole inputs as programs send them: each holds some secrets, and beside them what has to stay. Written
//! from what those programs document, without a look at how docket detects.

use std::cell::RefCell;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

use super::Chance;

mod config;
mod encodings;
mod harmless;
mod requests;

pub struct Document {
    pub kind: &'static str,
    pub input: Value,
    /// What has to be gone, in whatever encoding.
    pub secrets: Vec<String>,
    /// What has to stand in the record still, as it is written here.
    pub harmless: Vec<String>,
}

/// What writes documents: notes what is secret in the one it is about to write, and what is not.
pub struct Field {
    chance: RefCell<Chance>,
    secrets: RefCell<Vec<String>>,
    harmless: RefCell<Vec<String>>,
    documents: RefCell<Vec<Document>>,
}

impl Field {
    /// A secret of a form.
    fn s(&self, form: &str) -> String {
        let secret = self.form(form);
        self.secrets.borrow_mut().push(secret.clone());
        secret
    }

    /// Something harmless of a form.
    fn k(&self, form: &str) -> String {
        let harmless = self.form(form);
        self.harmless.borrow_mut().push(harmless.clone());
        harmless
    }

    /// Something that is neither counted as one nor as the other.
    fn form(&self, form: &str) -> String {
        // Markup has these brackets, too.
        let mut out = String::new();
        for (i, part) in form.split('<').enumerate() {
            let is_form =
                i > 0 && part.split_once('.').is_some_and(|(n, _)| n.parse::<u8>().is_ok());
            if is_form {
                out += &self.chance.borrow_mut().form(&format!("<{part}"));
            } else {
                out += &format!("{}{part}", if i > 0 { "<" } else { "" });
            }
        }
        out
    }

    fn note(&self, secret: String) -> String {
        self.secrets.borrow_mut().push(secret.clone());
        secret
    }

    fn document(&self, kind: &'static str, input: Value) {
        self.documents.borrow_mut().push(Document {
            kind,
            input,
            secrets: self.secrets.take(),
            harmless: self.harmless.take(),
        });
    }
}

pub fn documents(seed: u64) -> Vec<Document> {
    let field = Field {
        chance: RefCell::new(Chance(seed)),
        secrets: RefCell::default(),
        harmless: RefCell::default(),
        documents: RefCell::default(),
    };
    requests::write(&field);
    config::write(&field);
    encodings::write(&field);
    harmless::write(&field);
    field.documents.into_inner()
}

pub fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

pub fn base64_url(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

pub fn hex(text: &str) -> String {
    text.bytes().map(|b| format!("{b:02x}")).collect()
}

pub fn entities(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Whether a value still says a secret to who decodes whatever can be decoded.
pub fn says(value: &Value, secret: &str) -> bool {
    match value {
        Value::String(text) => text_says(text, secret, 0),
        Value::Number(number) => number.to_string().contains(secret),
        Value::Array(items) => items.iter().any(|v| says(v, secret)),
        Value::Object(members) => {
            members.iter().any(|(name, v)| text_says(name, secret, 0) || says(v, secret))
        }
        _ => false,
    }
}

fn text_says(text: &str, secret: &str, depth: usize) -> bool {
    if text.contains(secret) {
        return true;
    }
    if depth == 6 {
        return false;
    }
    let whole = [unescaped(text), unpercented(text), without_entities(text)];
    if whole.iter().any(|t| t != text && text_says(t, secret, depth + 1)) {
        return true;
    }
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"+/-_".contains(c));
    words.filter(|w| w.len() >= 8).any(|word| {
        let standard = word.replace('-', "+").replace('_', "/");
        let decoded = [STANDARD_NO_PAD.decode(standard).ok(), unhexed(word)];
        decoded.into_iter().flatten().any(|bytes| {
            let text = String::from_utf8(bytes);
            text.is_ok_and(|t| text_says(&t, secret, depth + 1))
        })
    })
}

fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let (c, length) = match after.chars().next() {
            Some('n') => ('\n', 1),
            Some('t') => ('\t', 1),
            Some('u') => {
                let code = after.get(1..5).and_then(|h| u32::from_str_radix(h, 16).ok());
                (code.and_then(char::from_u32).unwrap_or('?'), if code.is_some() { 5 } else { 1 })
            }
            Some(c) => (c, c.len_utf8()),
            None => break,
        };
        out.push(c);
        rest = &after[length..];
    }
    out + rest
}

fn unpercented(text: &str) -> String {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let code = text.get(at + 1..at + 3).and_then(|h| u8::from_str_radix(h, 16).ok());
        match (bytes[at], code) {
            (b'%', Some(code)) => {
                out.push(code);
                at += 3;
            }
            (b, _) => {
                out.push(b);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn without_entities(text: &str) -> String {
    let mut out = text.to_owned();
    for (entity, c) in [("&quot;", "\""), ("&#34;", "\""), ("&#39;", "'"), ("&apos;", "'")] {
        out = out.replace(entity, c);
    }
    out.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

fn unhexed(word: &str) -> Option<Vec<u8>> {
    let pairs = (0..word.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(word.get(at..at + 2)?, 16).ok()).collect()
}
