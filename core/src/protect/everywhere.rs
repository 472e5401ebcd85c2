//! What was taken out at one place of a record is taken out at all of them, in whatever encoding.

use std::borrow::Cow;
use std::collections::HashSet;

use aho_corasick::AhoCorasick;
use base64::Engine;
use memchr::memmem;

use super::detect::{is_left, is_note};
use super::encoded::{self, BASE64, Budget, Changed, Look};
use super::opa::Done;
use super::taken::{Secret, Taken};
use super::tree::{Distinct, Name, Node, push, quoted, quoted_inside};
use crate::decision::json;

/// Shorter texts are taken out where they stand apart from letters and digits.
const ANYWHERE: usize = 12;

/// A text as it may stand there.
struct Form {
    text: String,
    finder: memmem::Finder<'static>,
    /// It stands in base64: all around it is taken out with it.
    is_base64: bool,
    instead: String,
}

/// Looks for what was taken out.
pub struct Everywhere {
    forms: Vec<Form>,
    /// All forms at once, where they are many.
    search: Option<AhoCorasick>,
    at: String,
    masked: Vec<String>,
    changes: usize,
    budget: Budget,
    inside: usize,
    /// How many objects and lists are open.
    open: usize,
}

impl Everywhere {
    /// Nothing, if nothing was taken out that could stand elsewhere.
    pub fn new(taken: &Taken, bytes: usize) -> Option<Everywhere> {
        if taken.is_empty() {
            return None;
        }
        let mut forms: Vec<Form> = Vec::new();
        let mut known = HashSet::new();
        for secret in taken.all() {
            let mut add = |text: String, is_base64| {
                if known.insert(text.clone()) {
                    let finder = memmem::Finder::new(&text).into_owned();
                    forms.push(Form { text, finder, is_base64, instead: secret.instead.clone() });
                }
            };
            add(secret.text.clone(), false);
            let escaped = quoted_inside(&secret.text);
            // As Go's encoder has it.
            add(
                escaped.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"),
                false,
            );
            add(escaped, false);
            add(encoded::percent_encoded(&secret.text), false);
            in_base64(secret).into_iter().for_each(|text| add(text, true));
        }
        let search = (forms.len() > 64)
            .then(|| AhoCorasick::new(forms.iter().map(|form| &form.text)).ok())
            .flatten();
        Some(Everywhere {
            forms,
            search,
            at: String::new(),
            masked: Vec::new(),
            changes: 0,
            budget: Budget::new(bytes),
            inside: 0,
            open: 0,
        })
    }

    /// A decision without it; what was changed is noted in `masked`.
    pub fn clean(&mut self, event: &mut Node<'_>) -> Done {
        if !self.may_be_in(&event.to_text()) {
            return Done::default();
        }
        let Node::Object(members) = event.open() else { return Done::default() };
        for (name, node) in members {
            let name = json::unescape(name);
            if is_left(&name) {
                continue;
            }
            let noted = usize::from(is_note(&name));
            self.inside += noted;
            self.below(&name, |all| all.value(node));
            self.inside -= noted;
        }
        let done = Done { masked: std::mem::take(&mut self.masked), ..Done::default() };
        done.note(event);
        done
    }

    /// Any other JSON without it.
    pub fn clean_text(&mut self, text: &str) -> Option<String> {
        let mut node = Node::Raw(text);
        self.inside += 1;
        self.value(&mut node);
        self.inside -= 1;
        (std::mem::take(&mut self.changes) > 0).then(|| node.to_text())
    }

    /// Whether it may be in a document's text, as it stands there.
    fn may_be_in(&self, text: &str) -> bool {
        let bytes = text.as_bytes();
        memchr::memchr(b'\\', bytes).is_some()
            || encoded::has_percent(bytes)
            || encoded::may_have_base64(bytes)
            || self.is_in(text)
    }

    fn is_in(&self, text: &str) -> bool {
        if let Some(search) = &self.search {
            return search.is_match(text);
        }
        self.forms.iter().any(|form| form.finder.find(text.as_bytes()).is_some())
    }

    fn below(&mut self, name: &str, look: impl FnOnce(&mut Self)) {
        let at = self.at.len();
        push(&mut self.at, name);
        look(self);
        self.at.truncate(at);
    }

    fn value(&mut self, node: &mut Node<'_>) {
        self.open += 1;
        self.look_at(node);
        self.open -= 1;
    }

    fn look_at(&mut self, node: &mut Node<'_>) {
        let text = match node {
            Node::Raw(text) => Cow::Borrowed(*text),
            Node::New(text) => Cow::Owned(text.clone()),
            Node::Object(members) => return self.members(members),
            Node::Array(elements) => return self.elements(elements),
        };
        if !self.may_be_in(&text) {
            return;
        }
        match text.as_bytes().first() {
            Some(b'"') => {
                let Some(value) = json::as_str(&text) else { return };
                self.inside += 1;
                let new = encoded::look(&value, self);
                self.inside -= 1;
                if let Some(new) = new {
                    self.change(node, &new);
                }
            }
            Some(b'{' | b'[') => match node.open() {
                Node::Object(members) => self.members(members),
                Node::Array(elements) => self.elements(elements),
                _ => {}
            },
            _ => {
                if let Some(form) = self.forms.iter().find(|form| form.text == text) {
                    let instead = form.instead.clone();
                    self.change(node, &instead);
                }
            }
        }
    }

    fn members(&mut self, members: &mut Vec<(Name<'_>, Node<'_>)>) {
        let mut distinct = None;
        for i in 0..members.len() {
            let plain = json::unescape(&members[i].0).into_owned();
            // Names are words; what is made of more is long.
            if plain.len() >= 8 && self.may_be_in(&plain) {
                self.inside += 1;
                let clean = encoded::look(&plain, self);
                self.inside -= 1;
                if let Some(clean) = clean {
                    let name = distinct.get_or_insert_with(|| Distinct::of(members)).name(&clean);
                    members[i].0 = quoted_inside(&name).into();
                    self.changed();
                }
            }
            let name = json::unescape(&members[i].0).into_owned();
            let node = &mut members[i].1;
            self.below(&name, |all| all.value(node));
        }
    }

    fn elements(&mut self, elements: &mut [Node<'_>]) {
        for (i, element) in elements.iter_mut().enumerate() {
            self.below(&i.to_string(), |all| all.value(element));
        }
    }

    fn change(&mut self, node: &mut Node<'_>, new: &str) {
        *node = quoted(new);
        self.changed();
    }

    fn changed(&mut self) {
        self.changes += 1;
        if self.inside == 0 {
            self.masked.push(self.at.clone());
        }
    }
}

impl Look for Everywhere {
    fn wants(&self, text: &str) -> bool {
        text.len() >= super::taken::SHORTEST
    }

    fn budget(&mut self) -> &mut Budget {
        &mut self.budget
    }

    fn json(&mut self, json: &str) -> Option<String> {
        if self.open > json::MAX_DEPTH {
            return self.plain(json);
        }
        let mut node = Node::Raw(json);
        let before = self.changes;
        self.value(&mut node);
        (self.changes > before).then(|| node.to_text())
    }

    fn pairs(&mut self, _: &str) -> Option<String> {
        None
    }

    fn plain(&mut self, text: &str) -> Option<String> {
        if !self.is_in(text) {
            return None;
        }
        let mut now = Cow::Borrowed(text);
        for form in &self.forms {
            if let Some(new) = form.out_of(&now) {
                now = Cow::Owned(new);
            }
        }
        match now {
            Cow::Borrowed(_) => None,
            Cow::Owned(new) => {
                self.changes += 1;
                Some(new)
            }
        }
    }
}

impl Form {
    fn out_of(&self, text: &str) -> Option<String> {
        let mut out = Changed::default();
        let mut end = 0;
        for at in self.finder.find_iter(text.as_bytes()) {
            let (mut from, mut to) = (at, at + self.text.len());
            if at < end || is_in_mark(text, at) {
                continue;
            }
            if self.is_base64 {
                let part = |b: &u8| b.is_ascii_alphanumeric() || b"+/-_=".contains(b);
                from -= text.as_bytes()[..at].iter().rev().take_while(|b| part(b)).count();
                to += text.as_bytes()[to..].iter().take_while(|b| part(b)).count();
                from = from.max(end);
            } else if self.text.len() < ANYWHERE && !stands_apart(text, from, to) {
                continue;
            }
            out.put(text, from..to, &self.instead);
            end = to;
        }
        out.end(text)
    }
}

fn stands_apart(text: &str, from: usize, to: usize) -> bool {
    !text[..from].chars().next_back().is_some_and(char::is_alphanumeric)
        && !text[to..].chars().next().is_some_and(char::is_alphanumeric)
}

/// Whether a place is in what stands for something that was taken out.
fn is_in_mark(text: &str, at: usize) -> bool {
    text[..at].rfind("[erased:").is_some_and(|begin| !text[begin..at].contains(']'))
}

/// What a text's bytes are in base64, whatever stands before them there: what all three ways have in
/// common with what is around.
fn in_base64(secret: &Secret) -> Vec<String> {
    let bytes = secret.text.as_bytes();
    if bytes.len() < 8 {
        return vec![BASE64.encode(bytes)];
    }
    let mut all = Vec::new();
    for before in 0..3 {
        let mut padded = vec![0; before];
        padded.extend_from_slice(bytes);
        // The first characters have bits of what stands before, the last ones of what follows.
        let whole = padded.len() * 8 / 6;
        let encoded = BASE64.encode(&padded);
        let from = (before * 8).div_ceil(6);
        let core = &encoded[from..whole];
        all.push(core.to_owned());
        let url = core.replace('+', "-").replace('/', "_");
        if url != core {
            all.push(url);
        }
    }
    all
}
