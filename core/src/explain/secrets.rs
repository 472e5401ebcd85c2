//! What of a decision and of its bundle's data is secret, and what stands in the open: by it is told what of an explanation may be shown.

use std::collections::HashSet;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::Value as Json;

use super::Recorded;
use super::bundle::Bundle;
use super::texts::is_word;
use crate::decision::base64;
use crate::decision::json as raw;
use crate::protect::detect::{Act, Detect, is_secret_s};
use crate::protect::detector::{self, mark};
use crate::protect::taken::{BY, Taken, is_protected};

/// All of them, as for a record that is shown.
static DETECTORS: LazyLock<Detect> =
    LazyLock::new(|| Detect::new(detector::ALL.map(|_| Some(Act::Erase))));

/// What stands in the place of what was calculated from a secret.
pub const DERIVED: &str = "[erased:derived]";

/// Shorter ones stand in too many words to be looked for.
const SHORTEST: usize = 4;
/// No part of a secret of so many bytes is shown.
const PART: usize = 6;

/// A text that was erased, and what stands in its place.
struct Secret {
    text: String,
    /// In lower case.
    lower: String,
    instead: String,
}

#[derive(Default)]
pub struct Secrets {
    all: Vec<Secret>,
    known: HashSet<String>,
    /// Those that are looked for in texts, all at once.
    search: Option<AhoCorasick>,
    /// Where the input is not shown as it was.
    pub input: Vec<Vec<String>>,
    /// Where the bundle's data has secrets.
    pub data: Vec<Vec<String>>,
    /// Texts of the record as it is shown: they stand in the open, whatever they are.
    shown: HashSet<String>,
    /// Words of these, of policies, and of data without its secrets, in lower case.
    words: HashSet<String>,
    /// Parts of secrets that are in no such word.
    parts: HashSet<[u8; PART]>,
}

impl Secrets {
    /// `shown` is the record as it is shown, in JSON.
    pub fn of(recorded: &Recorded<'_>, shown: &str, bundle: &Bundle) -> Secrets {
        let mut secrets = Secrets::default();
        let read = |text: &str| serde_json::from_str::<Json>(text).unwrap_or_default();
        let mut shown = read(shown);
        let erased = [
            ("input", recorded.input),
            ("nd_builtin_cache", recorded.nd_builtin_cache),
            ("result", recorded.result),
            ("error", recorded.error),
        ];
        for (name, original) in erased {
            let Some(text) = original else { continue };
            secrets.detected(text);
            let mut differ = Vec::new();
            secrets.differ(&read(text), shown.get(name), &mut Vec::new(), &mut differ);
            if name == "input" {
                secrets.input = differ;
            }
        }
        // Who asks what these show is told by what they are made of.
        if let Some(members) = shown.as_object_mut() {
            members.retain(|name, _| !matches!(name.as_str(), "result" | "error"));
        }
        if let Some(docket) = shown.get_mut("docket").and_then(Json::as_object_mut) {
            docket.retain(|name, _| name != "reasons");
        }
        secrets.data(&bundle.data);
        secrets.open(&shown, true);
        bundle.policies.iter().for_each(|policy| secrets.open_words(&policy.text));
        secrets.finish();
        secrets
    }

    fn data(&mut self, data: &Json) {
        let text = data.to_string();
        let mut masked = self.detected(&text).unwrap_or_else(|| data.clone());
        mask_maps(&mut masked);
        let mut differ = Vec::new();
        self.differ(data, Some(&masked), &mut Vec::new(), &mut differ);
        self.data = differ;
        self.open(&masked, false);
    }

    /// Adds what detectors find in JSON; and the same without it, if they do.
    fn detected(&mut self, text: &str) -> Option<Json> {
        let mut taken = Taken::default();
        let masked = DETECTORS.apply_to_text(text, &mut Vec::new(), &mut taken);
        for secret in taken.all() {
            self.add(&secret.text, &secret.instead);
        }
        serde_json::from_str(&masked?).ok()
    }

    /// Adds what is shown otherwise than it was, and where it stands.
    fn differ(
        &mut self,
        original: &Json,
        shown: Option<&Json>,
        at: &mut Vec<String>,
        differ: &mut Vec<Vec<String>>,
    ) {
        match (original, shown) {
            (original, Some(shown)) if original == shown => {}
            (Json::Object(members), Some(Json::Object(shown))) => {
                for (name, value) in members {
                    let there = shown.get(name);
                    if there.is_none() {
                        // Under another name, or not at all: so is what is around it.
                        differ.push(at.clone());
                        self.add(name, DERIVED);
                    }
                    at.push(name.clone());
                    self.differ(value, there, at, differ);
                    at.pop();
                }
            }
            (Json::Array(list), Some(Json::Array(shown))) if list.len() == shown.len() => {
                for (i, (value, shown)) in list.iter().zip(shown).enumerate() {
                    at.push(i.to_string());
                    self.differ(value, Some(shown), at, differ);
                    at.pop();
                }
            }
            (original, shown) => {
                differ.push(at.clone());
                let instead = shown.and_then(Json::as_str).filter(|text| text.contains("[erased:"));
                self.add_all(original, instead.unwrap_or(DERIVED));
            }
        }
    }

    fn add_all(&mut self, value: &Json, instead: &str) {
        match value {
            Json::String(text) => self.add(text, instead),
            Json::Number(number) => self.add(&number.to_string(), instead),
            Json::Array(list) => list.iter().for_each(|value| self.add_all(value, instead)),
            Json::Object(members) => members.values().for_each(|v| self.add_all(v, instead)),
            _ => {}
        }
    }

    /// A secret, and what it says where it is in base64, or a part of it is.
    fn add(&mut self, text: &str, instead: &str) {
        let mut add = |text: &str, instead: &str| {
            let text = text.trim();
            if !text.is_empty() && !is_protected(text) && self.known.insert(text.to_owned()) {
                let (lower, instead) = (text.to_lowercase(), instead.to_owned());
                self.all.push(Secret { text: text.to_owned(), lower, instead });
            }
        };
        add(text, instead);
        let apart = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '/' | '-' | '_');
        for part in text.split(apart).filter(|part| part.len() >= 8) {
            let decoded = base64::decode(part.as_bytes()).and_then(|b| String::from_utf8(b).ok());
            let Some(plain) = decoded.filter(|text| !text.contains(char::is_control)) else {
                continue;
            };
            add(&plain, DERIVED);
            // A login.
            if let Some((_, password)) = plain.split_once(':').filter(|_| !plain.starts_with('{')) {
                add(password, DERIVED);
            }
        }
    }

    fn open(&mut self, value: &Json, whole: bool) {
        match value {
            Json::String(text) => {
                self.open_words(&without_marks(text));
                if whole {
                    self.shown.insert(text.clone());
                }
            }
            Json::Number(number) => self.open_words(&number.to_string()),
            Json::Array(list) => list.iter().for_each(|value| self.open(value, whole)),
            Json::Object(members) => {
                for (name, value) in members {
                    self.open_words(&without_marks(name));
                    self.open(value, whole);
                }
            }
            _ => {}
        }
    }

    fn open_words(&mut self, text: &str) {
        for word in words(text) {
            if !self.words.contains(&*word) {
                self.words.insert(word);
            }
        }
    }

    /// The longest first; and their parts.
    fn finish(&mut self) {
        // Those that are too short to be looked for come last.
        self.all.sort_by_key(|secret| std::cmp::Reverse(secret.lower.len()));
        let long = self.all.iter().map(|s| &s.lower).filter(|lower| lower.len() >= SHORTEST);
        let mut search = AhoCorasick::builder();
        search.ascii_case_insensitive(true).match_kind(MatchKind::LeftmostLongest);
        self.search = search.build(long).ok();
        let parts = |text: &str| -> Vec<[u8; PART]> {
            let windows = text.as_bytes().windows(PART);
            windows.filter_map(|window| window.try_into().ok()).collect()
        };
        self.parts = self.all.iter().flat_map(|secret| parts(&secret.lower)).collect();
        for word in &self.words {
            for part in parts(word) {
                self.parts.remove(&part);
            }
        }
    }

    /// A value as it may be shown: what its name and its look tell is erased; what holds a secret; and, if it is calculated from what
    /// is secret, what stands nowhere in the open.
    pub fn screened(&self, name: Option<&str>, value: &Json, derived: bool) -> Json {
        let found = detected(name, value);
        self.within(found.as_ref().unwrap_or(value), derived)
    }

    fn within(&self, value: &Json, derived: bool) -> Json {
        match value {
            Json::String(text) => self.text(text, derived).into(),
            Json::Number(number) => {
                let text = number.to_string();
                let secret = self.all.iter().find(|secret| secret.text == text);
                match secret {
                    Some(secret) if text.len() > 1 => secret.instead.as_str().into(),
                    None if derived && text.len() > 1 && !self.words.contains(&text) => {
                        DERIVED.into()
                    }
                    _ => value.clone(),
                }
            }
            Json::Array(list) => list.iter().map(|value| self.within(value, derived)).collect(),
            Json::Object(members) => {
                // What names a member may be a secret as well as what it holds.
                if members.keys().any(|name| self.text(name, derived) != *name) {
                    return DERIVED.into();
                }
                let member =
                    |(name, value): (&String, &Json)| (name.clone(), self.within(value, derived));
                Json::Object(members.iter().map(member).collect())
            }
            other => other.clone(),
        }
    }

    fn text(&self, text: &str, derived: bool) -> String {
        if is_protected(text) || text == DERIVED || self.shown.contains(text) {
            return text.to_owned();
        }
        let lower = text.to_lowercase();
        if let Some(secret) = self.found(&lower) {
            let whole = secret.text == text.trim();
            return if whole { secret.instead.clone() } else { DERIVED.to_owned() };
        }
        let open =
            if derived { self.is_open(text) && !is_cut(text) } else { !self.is_part(&lower) };
        if open || !derived && self.is_open(text) {
            return text.to_owned();
        }
        DERIVED.to_owned()
    }

    /// A secret that a text in lower case is, or has in it.
    fn found(&self, lower: &str) -> Option<&Secret> {
        let found = self.search.as_ref().and_then(|search| search.find(lower));
        let found = found.and_then(|found| self.all.get(found.pattern().as_usize()));
        found.or_else(|| self.all.iter().rev().find(|secret| secret.lower == lower))
    }

    /// Whether it is made of words that stand in the open.
    fn is_open(&self, text: &str) -> bool {
        words(&without_marks(text)).all(|word| self.words.contains(&word))
    }

    /// Whether it is a part of a secret, or has one in it.
    fn is_part(&self, lower: &str) -> bool {
        let within = |secret: &Secret| lower.len() >= SHORTEST && secret.lower.contains(lower);
        self.has_part(lower) || self.all.iter().any(within)
    }

    fn has_part(&self, lower: &str) -> bool {
        let windows = lower.as_bytes().windows(PART);
        windows.filter_map(|w| <&[u8; PART]>::try_from(w).ok()).any(|w| self.parts.contains(w))
    }

    /// A text of a policy, or a sentence: without secrets in it, and without what detectors find in its literals.
    pub fn sentence(&self, text: &str) -> String {
        let clean = without_literals(text);
        let (mut text, mut last) = (String::new(), 0);
        for found in self.search.iter().flat_map(|search| search.find_iter(&clean)) {
            let secret = self.all.get(found.pattern().as_usize());
            let secret = secret.filter(|s| s.text.len() >= PART && !self.shown.contains(&s.text));
            if let Some(secret) = secret {
                text.push_str(&clean[last..found.start()]);
                text.push_str(&secret.instead);
                last = found.end();
            }
        }
        text.push_str(&clean[last..]);
        let parts = text.split_inclusive(' ').map(|part| {
            let is_secret = !self.is_open(part) && self.has_part(&part.to_lowercase());
            match is_secret && !part.contains("[erased:") {
                true => format!("{DERIVED}{}", &part[part.trim_end().len()..]),
                false => part.to_owned(),
            }
        });
        parts.collect()
    }
}

/// The members of a map that is named as a secret are secrets, whoever they are named after: `pw: {kim: ..}`.
fn mask_maps(value: &mut Json) {
    match value {
        Json::Array(list) => list.iter_mut().for_each(mask_maps),
        Json::Object(members) => {
            for (name, value) in members {
                let each = value.as_object_mut().filter(|_| is_secret_s(name));
                for value in each.into_iter().flat_map(|each| each.values_mut()) {
                    if value.as_str().is_some_and(|text| !is_protected(text)) {
                        *value = mark("named").into();
                    }
                }
                mask_maps(value);
            }
        }
        _ => {}
    }
}

fn words(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase)
}

/// A text without what docket put in it.
fn without_marks(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, behind)) = rest.split_once("[erased:") {
        out.push_str(before);
        rest = behind.split_once(']').map_or("", |(_, behind)| behind);
    }
    out + rest
}

/// Whether it is made of a part of what docket puts in the place of a text: `:named]`.
fn is_cut(text: &str) -> bool {
    let rest = without_marks(text);
    let by = detector::ALL.map(detector::Detector::name).into_iter().chain(BY);
    by.map(mark).any(|mark| {
        let cut = 3..mark.len() - 2;
        let within = rest.len() > 3 && rest.contains(':') && mark.contains(&rest);
        within || cut.clone().any(|at| rest.ends_with(&mark[..at]) || rest.starts_with(&mark[at..]))
    })
}

/// A text whose literals are without what detectors find in them, by their look, or by the name of what they are compared with.
fn without_literals(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(['"', '`']) {
        let quote = rest.as_bytes()[at];
        let end = literal(&rest.as_bytes()[at..], quote);
        let (before, behind) = rest.split_at(at);
        let (written, behind) = behind.split_at(end.min(behind.len()));
        out.push_str(before);
        let clean = clean(compared(before).as_deref(), written, quote);
        out.push_str(&clean.unwrap_or_else(|| written.to_owned()));
        rest = behind;
    }
    out + rest
}

/// The name of what a literal behind this is compared with, or given to.
fn compared(before: &str) -> Option<String> {
    let before = before.trim_end();
    let bare = before.trim_end_matches(['=', '!', ':']);
    let reference = bare.trim_end().rsplit([' ', '\t', '(', '{', ',', ';']).next();
    named(reference?).filter(|_| bare.len() < before.len())
}

/// How long it is, with its quotes.
fn literal(text: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < text.len() && text[at] != quote {
        at += if text[at] == b'\\' && quote == b'"' { 2 } else { 1 };
    }
    at + 1
}

fn clean(name: Option<&str>, written: &str, quote: u8) -> Option<String> {
    let text = match quote {
        b'"' => serde_json::from_str(written).ok()?,
        _ => written.trim_matches('`').to_owned(),
    };
    Some(detected(name, &Json::String(text))?.to_string())
}

/// A value, and the name that it has, without what detectors find in it; nothing if that is nothing.
fn detected(name: Option<&str>, value: &Json) -> Option<Json> {
    let text = match name {
        Some(name) => serde_json::json!({ name: value }).to_string(),
        None => value.to_string(),
    };
    let found = DETECTORS.apply_to_text(&text, &mut Vec::new(), &mut Taken::default())?;
    match (name, serde_json::from_str(&found).ok()?) {
        (Some(_), Json::Object(one)) => one.into_iter().next().map(|(_, value)| value),
        (_, found) => Some(found),
    }
}

/// What names the value of a reference: its last member, or what is asked for each of its members.
pub fn named(reference: &str) -> Option<String> {
    // `role, in turn (the first 5 of 9),`
    let of_several = |how: &str| {
        let (name, rest) = reference.strip_suffix(',')?.rsplit_once(how)?;
        (rest.is_empty() || rest.starts_with(" (the first ")).then_some(name)
    };
    let each = [", in turn", ", where it fails"].into_iter().find_map(of_several);
    let mut rest = each.unwrap_or(reference).trim();
    while rest.ends_with(']') {
        let mut depth = 0;
        let open = rest.rfind(|c: char| {
            depth += i32::from(c == ']') - i32::from(c == '[');
            c == '[' && depth == 0
        })?;
        let within = &rest[open + 1..rest.len() - 1];
        if let Some(name) = raw::as_str(within).filter(|_| within.starts_with('"')) {
            return Some(name.into_owned());
        }
        rest = &rest[..open];
    }
    let last = rest.rsplit('.').next().unwrap_or_default();
    (!last.is_empty() && last.chars().all(is_word)).then(|| last.to_owned())
}
