//! Detectors: secrets and personal data that no rule names. Found by how they look, or by the name of the member that holds them.
//!
//! One pass over the text (`prefilter`) says which of them may be in it; most decisions hold none, and cost no more than that. Only then the
//! document is opened, along what is suspect.

use std::borrow::Cow;
use std::ops::Range;

use regex::Regex;
use ring::hmac;

use super::detector::{ALL, Detector, Hit, is_telling};
use super::keys::pseudonym;
use super::opa::Done;
use super::patterns::{Patterns, is_card, is_credential, is_iban, is_ssn};
use super::prefilter::Prefilter;
use super::tree::{Node, push, quoted, quoted_inside};
use crate::decision::json;

/// What is done with what is found.
#[derive(Debug, Clone)]
pub enum Act {
    /// `[erased:<detector>]` in its place.
    Erase,
    /// A pseudonym in its place.
    Hash(hmac::Key),
    /// It stays, and is counted.
    Count,
}

/// Members of a decision that detectors leave alone: they say what was decided when, by which OPA and which rules of which
/// revision, how fast.
fn is_left(name: &str) -> bool {
    matches!(
        name,
        "decision_id"
            | "batch_decision_id"
            | "timestamp"
            | "@timestamp"
            | "path"
            | "trace_id"
            | "span_id"
            | "labels"
            | "bundles"
            | "revision"
            | "metrics"
            | "req_id"
            | "rule_labels"
            | "erased"
            | "masked"
    )
}

#[derive(Debug)]
pub struct Detect {
    /// By detector.
    acts: [Option<Act>; ALL.len()],
    prefilter: Prefilter,
    patterns: Patterns,
}

impl Detect {
    pub fn new(acts: [Option<Act>; ALL.len()]) -> Detect {
        let prefilter = Prefilter::new(ALL.into_iter().filter(|d| acts[*d as usize].is_some()));
        Detect { acts, prefilter, patterns: Patterns::default() }
    }

    fn is_on(&self, detector: Detector) -> bool {
        self.acts[detector as usize].is_some()
    }

    /// Looks through a decision. What is found is acted on, noted in `masked`, and told.
    pub fn apply(&self, raw: &str, event: &mut Node<'_>, hits: &mut Vec<Hit>) -> Done {
        let mut done = Done::default();
        let lower = raw.to_ascii_lowercase();
        let suspect =
            |part: Range<usize>| self.prefilter.within(&raw[part.clone()], &lower[part]) != 0;
        if !json::members(raw).any(|m| !is_left(&m.key()) && suspect(with_name(raw, &m))) {
            return done;
        }
        let Node::Object(members) = event.open() else { return done };
        let mut walk =
            Walk { detect: self, done: &mut done, hits, at: String::new(), place: String::new() };
        for (name, node) in members {
            let name = json::unescape(name);
            if !is_left(&name) {
                walk.member(&name, node);
            }
        }
        done.note(event);
        done
    }

    /// The same for any other text in JSON; what is found is not noted in it.
    pub fn apply_to_text(&self, text: &str, hits: &mut Vec<Hit>) -> Option<String> {
        if self.prefilter.of(text) == 0 {
            return None;
        }
        let mut done = Done::default();
        let mut node = Node::Raw(text);
        Walk {
            detect: self,
            done: &mut done,
            hits,
            at: "/docket/agent".into(),
            place: "/docket/agent".into(),
        }
        .value(&mut node);
        (!done.is_nothing()).then(|| node.to_text())
    }

    /// A text without what was found in it.
    fn clean(&self, text: &str, suspects: u16, found: &mut Vec<Detector>) -> Option<String> {
        let p = &self.patterns;
        let mut out: Option<String> = None;
        let mut pass = |detector: Detector, regex: &Regex, is: &dyn Fn(&str) -> bool| {
            let Some(act) =
                self.acts[detector as usize].as_ref().filter(|_| suspects & detector.bit() != 0)
            else {
                return;
            };
            let now = out.as_deref().unwrap_or(text);
            let mut cleaned = String::new();
            let mut end = 0;
            let mut any = false;
            for captures in regex.captures_iter(now) {
                let Some(hit) =
                    captures.get(1).or_else(|| captures.get(0)).filter(|m| is(m.as_str()))
                else {
                    continue;
                };
                any = true;
                if let Some(instead) = act.instead(detector, hit.as_str()) {
                    cleaned.push_str(&now[end..hit.start()]);
                    cleaned.push_str(&instead);
                    end = hit.end();
                }
            }
            if any {
                found.push(detector);
            }
            if end > 0 {
                cleaned.push_str(&now[end..]);
                out = Some(cleaned);
            }
        };
        let always = |_: &str| true;
        pass(Detector::PrivateKey, &p.private_key, &always);
        pass(Detector::Jwt, &p.jwt, &always);
        pass(Detector::ApiToken, &p.api_token, &always);
        pass(Detector::AwsKey, &p.aws_key, &always);
        pass(Detector::Authorization, &p.authorization, &is_credential);
        pass(Detector::UrlPassword, &p.url_password, &always);
        pass(Detector::Iban, &p.iban, &is_iban);
        pass(Detector::Card, &p.card, &is_card);
        pass(Detector::Ssn, &p.ssn, &is_ssn);
        pass(Detector::Email, &p.email, &always);
        out
    }
}

impl Act {
    fn instead(&self, detector: Detector, text: &str) -> Option<String> {
        match self {
            Act::Erase => Some(format!("[erased:{}]", detector.name())),
            Act::Hash(key) => Some(pseudonym(key, text)),
            Act::Count => None,
        }
    }
}

struct Walk<'w> {
    detect: &'w Detect,
    done: &'w mut Done,
    hits: &'w mut Vec<Hit>,
    /// The JSON pointer, and the same as metrics have it.
    at: String,
    place: String,
}

impl Walk<'_> {
    fn member(&mut self, name: &str, node: &mut Node<'_>) {
        let (at, place) = (self.at.len(), self.place.len());
        push(&mut self.at, name);
        self.place.push('/');
        self.place.push_str(if looks_like_data(name) { "*" } else { name });
        if self.detect.is_on(Detector::Named) && is_telling(name) {
            self.named(node);
        } else {
            self.value(node);
        }
        self.at.truncate(at);
        self.place.truncate(place);
    }

    fn value(&mut self, node: &mut Node<'_>) {
        let text = match node {
            Node::Raw(text) => Cow::Borrowed(*text),
            Node::New(text) => Cow::Owned(text.clone()),
            _ => return self.inside(node),
        };
        let suspects = self.detect.prefilter.of(&text);
        if suspects == 0 {
            return;
        }
        match text.as_bytes().first() {
            Some(b'{' | b'[') => self.inside(node),
            Some(b'"') => {
                let Some(value) = json::as_str(&text) else { return };
                self.text(node, &value, suspects);
            }
            // A number is a card at most.
            Some(b'0'..=b'9') => self.text(node, &text, suspects & (Detector::Card.bit())),
            _ => {}
        }
    }

    fn text(&mut self, node: &mut Node<'_>, text: &str, suspects: u16) {
        let mut found = Vec::new();
        if let Some(clean) = self.detect.clean(text, suspects, &mut found) {
            *node = quoted(&clean);
            self.done.masked.push(self.at.clone());
        }
        for detector in found {
            self.hit(detector);
        }
    }

    fn inside(&mut self, node: &mut Node<'_>) {
        match node.open() {
            Node::Object(members) => {
                for (name, node) in members {
                    let plain = json::unescape(name).into_owned();
                    let mut found = Vec::new();
                    let suspects = self.detect.prefilter.of(&plain);
                    let clean = if suspects == 0 {
                        None
                    } else {
                        self.detect.clean(&plain, suspects, &mut found)
                    };
                    for detector in found {
                        self.hit(detector);
                    }
                    if let Some(clean) = clean {
                        *name = quoted_inside(&clean).into();
                        self.done.masked.push(self.at.clone());
                        self.member(&clean, node);
                    } else {
                        self.member(&plain, node);
                    }
                }
            }
            Node::Array(elements) => self.elements(elements, Walk::value),
            _ => {}
        }
    }

    fn elements<'n>(&mut self, elements: &mut [Node<'n>], look: impl Fn(&mut Self, &mut Node<'n>)) {
        let (at, place) = (self.at.len(), self.place.len());
        self.place.push_str("/*");
        for (i, element) in elements.iter_mut().enumerate() {
            push(&mut self.at, &i.to_string());
            look(self, element);
            self.at.truncate(at);
        }
        self.place.truncate(place);
    }

    /// The text of a member whose name tells, and texts in a list of it. What holds more is looked through.
    fn named(&mut self, node: &mut Node<'_>) {
        let text = match node {
            Node::Object(_) => return self.inside(node),
            Node::Array(_) => String::from("["),
            _ => node.to_text(),
        };
        match text.as_bytes().first() {
            Some(b'"') => {
                let value = json::as_str(&text).unwrap_or_default();
                let act = self.detect.acts[Detector::Named as usize].as_ref();
                if value.is_empty()
                    || value.starts_with("[erased:")
                    || value.starts_with("hmac:")
                    || value.starts_with("enc:")
                {
                    return;
                }
                self.hit(Detector::Named);
                if let Some(instead) = act.and_then(|act| act.instead(Detector::Named, &value)) {
                    *node = quoted(&instead);
                    self.done.masked.push(self.at.clone());
                } else {
                    self.value(node);
                }
            }
            Some(b'[') => {
                if let Node::Array(elements) = node.open() {
                    self.elements(elements, Walk::named);
                }
            }
            _ => self.value(node),
        }
    }

    fn hit(&mut self, detector: Detector) {
        self.hits.push(Hit { detector, place: self.place.clone() });
    }
}

/// A member of a document as it stands there, its name with it.
fn with_name(raw: &str, member: &json::Member<'_>) -> Range<usize> {
    let from = member.name.as_ptr() as usize - raw.as_ptr() as usize;
    let to = member.value.as_ptr() as usize - raw.as_ptr() as usize + member.value.len();
    from..to
}

/// A name that is more than a name: an id, an address, a token.
fn looks_like_data(name: &str) -> bool {
    name.len() > 40
        || name.bytes().filter(u8::is_ascii_digit).count() > 4
        || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    fn all() -> Detect {
        Detect::new(ALL.map(|_| Some(Act::Erase)))
    }

    fn cleaned(event: &str) -> (String, Vec<(&'static str, String)>) {
        let mut node = Node::Raw(event);
        let mut hits = Vec::new();
        all().apply(event, &mut node, &mut hits);
        (node.to_text(), hits.into_iter().map(|h| (h.detector.name(), h.place)).collect())
    }

    #[test]
    fn each_finds_its_own() {
        for (detector, secret, left) in [
            (
                "jwt",
                "x eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk y",
                "x [erased:jwt] y",
            ),
            (
                "jwt",
                "eyJhbGciOiJSU0EtT0FFUCJ9.OKOawDo13gRp2ojaHV7LFpZcgV7T6DVZKTyKOMTYUmKoTCVJRgckCL9kiMT03JGe.48V1_ALb6US04U3b.5eym8TW_c8SuK0lt.XFBoMYUZ",
                "[erased:jwt]",
            ),
            ("authorization", "Basic dXNlcjpwYXNzd29yZA==", "Basic [erased:authorization]"),
            ("authorization", "bearer 2YotnFZFEjr1zCsicMWpAA", "bearer [erased:authorization]"),
            (
                "private_key",
                "-----BEGIN EC PRIVATE KEY-----\\nMHcCAQEE\\n-----END EC PRIVATE KEY-----\\n",
                "[erased:private_key]\\n",
            ),
            (
                "private_key",
                "-----BEGIN OPENSSH PRIVATE KEY-----\\nb3Blbn cut",
                "[erased:private_key]",
            ),
            ("aws_key", "id=AKIAIOSFODNN7EXAMPLE;", "id=[erased:aws_key];"),
            ("api_token", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "[erased:api_token]"),
            ("api_token", "xoxb-123456789012-abcdefghijkl", "[erased:api_token]"),
            (
                "url_password",
                "postgres://app:hunter2@db:5432/x",
                "postgres://app:[erased:url_password]@db:5432/x",
            ),
            ("card", "4111 1111 1111 1111", "[erased:card]"),
            ("card", "card 378282246310005.", "card [erased:card]."),
            ("email", "mail bob.smith+x@mail.example.co.uk now", "mail [erased:email] now"),
            ("iban", "GB82 WEST 1234 5698 7654 32", "[erased:iban]"),
            ("iban", "DE89370400440532013000", "[erased:iban]"),
            ("ssn", "ssn 219-09-9999", "ssn [erased:ssn]"),
        ] {
            let (text, hits) =
                cleaned(&format!(r#"{{"decision_id":"d","input":{{"a":["{secret}"]}}}}"#));
            assert_eq!(
                text,
                format!(
                    r#"{{"decision_id":"d","input":{{"a":["{left}"]}},"masked":["/input/a/0"]}}"#
                ),
                "{secret}"
            );
            assert_eq!(hits, [(detector, "/input/a/*".to_owned())], "{secret}");
        }
    }

    #[test]
    fn names_tell_and_names_hold() {
        let (text, hits) = cleaned(
            r#"{"input":{"Client-Secret":"hunter2","headers":{"cookie":["a=b","c=d"],"authorization":"Digest x"},"token":{"valid":true},"password":null,"bob@example.com":1,"n":4111111111111111}}"#,
        );
        assert_eq!(
            text,
            r#"{"input":{"Client-Secret":"[erased:named]","headers":{"cookie":["[erased:named]","[erased:named]"],"authorization":"[erased:named]"},"token":{"valid":true},"password":null,"[erased:email]":1,"n":"[erased:card]"},"masked":["/input/Client-Secret","/input/headers/cookie/0","/input/headers/cookie/1","/input/headers/authorization","/input","/input/n"]}"#
        );
        assert!(
            hits.contains(&("email", "/input".into()))
                && hits.contains(&("named", "/input/headers/cookie/*".into())),
            "{hits:?}"
        );
    }

    #[test]
    fn escapes_hide_nothing() {
        let (text, _) = cleaned(
            r#"{"input":{"a":"bob\u0040example.com","b":"\u0041KIAIOSFODNN7EXAMPLE","p\u0061ssword":"x"}}"#,
        );
        assert!(
            text.contains(
                r#""a":"[erased:email]","b":"[erased:aws_key]","p\u0061ssword":"[erased:named]""#
            ),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_secret_stays_as_it_was() {
        for text in [
            r#"{"decision_id":"4ca636c1-55e4-417a-b1d8-4aceb67960d1","labels":{"id":"bob"},"input":{"user":"bob","path":["salary","bob"],"n":1764086400000000000}}"#,
            r#"{"input":{"message":"Bearer authentication is basic knowledge; token expired at 12:00","at":"@","card":"4111 1111 1111 1112"}}"#,
            r#"{"input":{"uuid":"12345678-1234-1234-1234-123456789012","phone":"+49 30 1234567","ref":"DE89370400440532013001","url":"https://example.com:8080/a@b"}}"#,
            r#"{"input":{"tokens":3,"secret":"","resource":{"kind":"Secret","name":"db"},"sk":"sk-short"},"path":"token/secret","metrics":{"n":4111111111111111}}"#,
        ] {
            assert_eq!(cleaned(text), (text.to_owned(), Vec::new()));
        }
    }

    #[test]
    fn hashes_join_and_counts_change_nothing() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef");
        let mut acts = ALL.map(|_| None);
        acts[Detector::Email as usize] = Some(Act::Hash(key));
        acts[Detector::Jwt as usize] = Some(Act::Count);
        let detect = Detect::new(acts);
        let event = r#"{"input":{"a":"bob@example.com","b":"bob@example.com","c":"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.x","password":"stays"}}"#;
        let mut node = Node::Raw(event);
        let mut hits = Vec::new();
        detect.apply(event, &mut node, &mut hits);
        let value: serde_json::Value = serde_json::from_str(&node.to_text()).unwrap();
        assert!(
            value["input"]["a"] == value["input"]["b"]
                && value["input"]["a"].as_str().unwrap().starts_with("hmac:"),
            "{value}"
        );
        assert!(
            value["input"]["c"].as_str().unwrap().starts_with("eyJ")
                && value["input"]["password"] == "stays"
        );
        assert_eq!(hits.len(), 3);
    }

    /// Whatever is found when all is looked for was suspected, however it is written in JSON.
    fn suspected(detect: &Detect, text: &str) -> Result<(), String> {
        let mut found = Vec::new();
        detect.clean(text, u16::MAX, &mut found);
        let plain = serde_json::to_string(text).unwrap();
        let go = plain.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
        let ascii: String = plain
            .chars()
            .map(|c| if c.is_ascii() { c.to_string() } else { format!("\\u{:04x}", c as u32) })
            .collect();
        for written in [text, &plain, &go, &ascii, &format!("{{\"n\":{plain}}}")] {
            let suspects = detect.prefilter.of(written);
            if let Some(missed) = found.iter().find(|d| suspects & d.bit() == 0) {
                return Err(format!("{missed:?} is not suspected in {written}"));
            }
        }
        Ok(())
    }

    const FRAGMENTS: [&str; 40] = [
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ",
        "Bearer 2YotnFZFEjr1zCsicMWpAA",
        "BASIC\tdXNlcjpwYXNzd29yZA==",
        "bearer ",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE",
        "-----begin private key-----x-----end private key-----",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_0123456789abcdefghij0123456789abcdef",
        "sk-0123456789abcdefghij",
        "SG.0123456789abcdefghij.0123456789abcdefghij",
        "xoxb-0123456789ab",
        "postgres://u:p@h",
        "bob@example.com",
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "378282246310005",
        "4222222222222",
        "DE89370400440532013000",
        "GB82 WEST 1234 5698 7654 32",
        "NO9386011117947",
        "078-05-1120",
        "1",
        "23",
        "456",
        "7890",
        "-",
        " ",
        "_",
        "A",
        "\n",
        "\t",
        "\"",
        "\\",
        "<",
        "&",
        "\u{2028}",
        "é",
        "x",
        "key",
    ];

    proptest::proptest! {
        #[test]
        fn nothing_is_found_that_was_not_suspected(parts in proptest::collection::vec(0..FRAGMENTS.len(), 1..9)) {
            static ALL_ON: LazyLock<Detect> = LazyLock::new(all);
            let text: String = parts.iter().map(|i| FRAGMENTS[*i]).collect();
            proptest::prop_assert_eq!(suspected(&ALL_ON, &text), Ok(()));
        }
    }

    #[test]
    fn names_that_tell_are_suspected() {
        let joints = [("key", 3), ("token", 5), ("secret", 6), ("password", 8)];
        let detect = all();
        for name in crate::protect::detector::NAMES {
            let joint = joints
                .iter()
                .find(|(end, _)| name.ends_with(end) && name != *end)
                .map(|(_, length)| name.len() - length);
            let written = |by: &str| {
                joint.map_or_else(
                    || name.to_owned(),
                    |at| format!("{}{by}{}", &name[..at], &name[at..]),
                )
            };
            for name in
                [name.to_owned(), written("_"), written("-").to_ascii_uppercase(), written(".")]
            {
                for text in
                    [format!("{{\"{name}\":\"x\"}}"), format!("{{\"a\":1,\"{name}\" : [\"x\"]}}")]
                {
                    assert_ne!(detect.prefilter.of(&text) & Detector::Named.bit(), 0, "{text}");
                }
            }
            assert_eq!(
                detect.prefilter.of(&format!("{{\"{name}\":{{\"x\":\"{name}\"}}}}")),
                0,
                "{name}"
            );
        }
    }

    #[test]
    fn what_is_no_secret_is_not_suspected() {
        for text in [
            r#"{"a":"task-1 msg. asia basics eyjafjallajokull","path":"/x?a=1\u0026b=2","monkey":"x","keys":["a"],"passed":"yes"}"#,
            r#"{"id":"550e8400-e29b-41d4-a716-44665544000f","at":"2026-11-25T12:00:00.123456789Z","n":[1,23,456789],"ip":"10.0.0.1"}"#,
        ] {
            assert_eq!(all().prefilter.of(text), 0, "{text}");
        }
    }
}
