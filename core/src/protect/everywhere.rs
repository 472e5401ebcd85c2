//! What was taken out at one place of a record is taken out at all of them, in whatever encoding.

use std::borrow::Cow;
use std::collections::HashMap;

use aho_corasick::AhoCorasick;
use base64::Engine;
use memchr::memmem;

use super::changed::Changed;
use super::detect::{is_left, is_note};
use super::encoded::{self, Budget, Look};
use super::opa::Done;
use super::rules::is_opa_s;
use super::taken::{Member, Secret, Taken, meaning};
use super::tree::{Distinct, Name, Node, push, quoted, quoted_inside};
use crate::decision::base64::BASE64;
use crate::decision::ids::hex;
use crate::decision::json;

/// So many are looked for by how they begin.
const MOST_BY_BEGINNING: usize = 96;

/// Shorter texts are taken out where they stand apart from letters and digits.
const ANYWHERE: usize = 12;

/// Where the first four bytes of a text are among all.
fn slot(text: &[u8]) -> usize {
    let four = text.first_chunk().map_or(0, |four| u32::from_le_bytes(*four));
    (four.wrapping_mul(0x9E37_79B1) >> 20) as usize
}

/// A text as it may stand there.
struct Form {
    text: String,
    /// It stands in base64: all around it is taken out with it.
    is_base64: bool,
    instead: String,
}

/// Looks for what was taken out.
pub struct Everywhere {
    forms: Vec<Form>,
    /// How they begin, as bits: most places of a text are told by one look.
    beginnings: Box<[u64; 64]>,
    /// All forms at once, where they are many.
    search: Option<AhoCorasick>,
    /// By their names.
    members: HashMap<String, Vec<Member>>,
    /// It looks at what is not OPA's: what an agent added.
    is_foreign: bool,
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
        let mut forms: Vec<Form> = Vec::with_capacity(32);
        for secret in taken.all() {
            let mut add = |text: String, is_base64| {
                forms.push(Form { text, is_base64, instead: secret.instead.clone() });
            };
            add(secret.text.clone(), false);
            // Letters and digits are the same in every writing.
            if !secret.text.bytes().all(|b| b.is_ascii_alphanumeric()) {
                let escaped = quoted_inside(&secret.text);
                // As Go's encoder has it.
                let go =
                    escaped.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
                let percent = encoded::percent_encoded(&secret.text);
                for (i, form) in [&escaped, &go, &percent].into_iter().enumerate() {
                    if *form != secret.text && (i != 1 || go != escaped) {
                        add(form.clone(), false);
                    }
                }
            }
            in_base64(secret).into_iter().for_each(|text| add(text, true));
            let hexadecimal = hex(secret.text.as_bytes());
            add(hexadecimal.to_ascii_uppercase(), false);
            add(hexadecimal, false);
        }
        let search = (forms.len() > MOST_BY_BEGINNING)
            .then(|| AhoCorasick::new(forms.iter().map(|form| &form.text)).ok())
            .flatten();
        let mut beginnings = Box::new([0; 64]);
        for form in &forms {
            let slot = slot(form.text.as_bytes());
            beginnings[slot / 64] |= 1 << (slot % 64);
        }
        let mut members: HashMap<String, Vec<Member>> = HashMap::new();
        for member in taken.members() {
            members.entry(member.name.clone()).or_default().push(member.clone());
        }
        Some(Everywhere {
            forms,
            beginnings,
            search,
            members,
            is_foreign: false,
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
        let Node::Object(members) = event.open() else { return Done::default() };
        let mut distinct = None;
        for i in 0..members.len() {
            let mut name = json::unescape(&members[i].0).into_owned();
            if is_left(&name) {
                continue;
            }
            self.is_foreign = !is_opa_s(&name);
            if self.is_foreign
                && let Some(clean) = self.name(&name)
            {
                name = distinct.get_or_insert_with(|| Distinct::of(members)).name(&clean);
                members[i].0 = quoted_inside(&name).into();
                self.below(&name, Self::changed);
            }
            let noted = usize::from(is_note(&name));
            self.inside += noted;
            let node = &mut members[i].1;
            self.below(&name, |all| all.value(&name, node));
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
        self.is_foreign = true;
        self.value("", &mut node);
        self.inside -= 1;
        (std::mem::take(&mut self.changes) > 0).then(|| node.to_text())
    }

    /// Whether it may be in a document's text, as it stands there.
    fn may_be_in(&self, text: &str) -> bool {
        let bytes = text.as_bytes();
        memchr::memchr(b'\\', bytes).is_some()
            || encoded::may_be_in(bytes)
            || self.is_in(text)
            || self.may_have_member(text)
    }

    /// Whether a member that was taken out may be in a text.
    fn may_have_member(&self, text: &str) -> bool {
        // Where they are many, it is quicker to look at each member of the text.
        self.members.len() > 16
            || self
                .named_members()
                .any(|m| memmem::find(text.as_bytes(), m.name.as_bytes()).is_some())
    }

    fn is_in(&self, text: &str) -> bool {
        if let Some(search) = &self.search {
            return search.is_match(text);
        }
        let bytes = text.as_bytes();
        bytes.windows(4).enumerate().any(|(at, four)| {
            let slot = slot(four);
            self.beginnings[slot / 64] >> (slot % 64) & 1 == 1
                && self.forms.iter().any(|form| bytes[at..].starts_with(form.text.as_bytes()))
        })
    }

    fn below(&mut self, name: &str, look: impl FnOnce(&mut Self)) {
        let at = self.at.len();
        push(&mut self.at, name);
        look(self);
        self.at.truncate(at);
    }

    /// A value, and the name that it has; an element has its list's.
    fn value(&mut self, name: &str, node: &mut Node<'_>) {
        if let Some(instead) = self.same_member(name, node) {
            return self.change(node, &instead);
        }
        self.open += 1;
        self.look_at(name, node);
        self.open -= 1;
    }

    /// What stands in the place of a member that was taken out elsewhere.
    fn same_member(&self, name: &str, node: &Node<'_>) -> Option<String> {
        let named = self.members.get(name)?;
        let text = node.to_text();
        let member = named.iter().find(|member| self.is_meant(member) && member.has(&text))?;
        Some(member.instead.clone())
    }

    fn is_meant(&self, member: &Member) -> bool {
        self.is_foreign || !member.only_in_copies
    }

    fn named_members(&self) -> impl Iterator<Item = &Member> {
        self.members.values().flatten().filter(|member| self.is_meant(member))
    }

    fn look_at(&mut self, name: &str, node: &mut Node<'_>) {
        let text = match node {
            Node::Raw(text) => Cow::Borrowed(*text),
            Node::New(text) => Cow::Owned(text.clone()),
            Node::Object(members) => return self.members(members),
            Node::Array(elements) => return self.elements(name, elements),
        };
        // An element of a list may be one of its values.
        let in_list = text.starts_with('[') && self.members.contains_key(name);
        if !in_list && !self.may_be_in(&text) {
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
                Node::Array(elements) => self.elements(name, elements),
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
            if let Some(clean) = self.name(&plain) {
                let name = distinct.get_or_insert_with(|| Distinct::of(members)).name(&clean);
                members[i].0 = quoted_inside(&name).into();
                self.changed();
            }
            let name = json::unescape(&members[i].0).into_owned();
            let node = &mut members[i].1;
            self.below(&name, |all| all.value(&name, node));
        }
    }

    /// A name without it.
    fn name(&mut self, name: &str) -> Option<String> {
        if name.len() < super::taken::SHORTEST || !self.may_be_in(name) {
            return None;
        }
        self.inside += 1;
        let clean = encoded::look(name, self);
        self.inside -= 1;
        clean
    }

    fn elements(&mut self, name: &str, elements: &mut [Node<'_>]) {
        for (i, element) in elements.iter_mut().enumerate() {
            self.below(&i.to_string(), |all| all.value(name, element));
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

    /// Text that is another now, and counted.
    fn replaced(&mut self, now: Cow<'_, str>) -> Option<String> {
        match now {
            Cow::Borrowed(_) => None,
            Cow::Owned(new) => {
                self.changes += 1;
                Some(new)
            }
        }
    }
}

impl Look for Everywhere {
    fn wants(&self, text: &str) -> bool {
        text.len() >= super::taken::SHORTEST || !self.members.is_empty()
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
        self.value("", &mut node);
        (self.changes > before).then(|| node.to_text())
    }

    /// Members that were taken out, as text has names and values.
    fn pairs(&mut self, text: &str) -> Option<String> {
        let mut now = Cow::Borrowed(text);
        for member in self.named_members() {
            if let Some(new) = assigned(member, &now) {
                now = Cow::Owned(new);
            }
        }
        self.replaced(now)
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
        self.replaced(now)
    }
}

impl Form {
    fn out_of(&self, text: &str) -> Option<String> {
        let mut out = Changed::default();
        let mut end = 0;
        for at in memmem::find_iter(text.as_bytes(), self.text.as_bytes()) {
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

/// A text without the value of a member that stands behind its name: `pin=1234`, `\"pin\": \"1234\"`.
fn assigned(member: &Member, text: &str) -> Option<String> {
    let value = meaning(&member.value);
    if value.starts_with(['{', '[']) {
        return None;
    }
    let mut out = Changed::default();
    for at in memmem::find_iter(text.as_bytes(), member.name.as_bytes()) {
        let after = &text[at + member.name.len()..];
        let quotes =
            |text: &str| text.len() - text.trim_start_matches(['\\', '"', '\'', ' ']).len();
        let by = quotes(after);
        if !after[by..].starts_with([':', '=']) {
            continue;
        }
        let from = at + member.name.len() + by + 1 + quotes(&after[by + 1..]);
        let to = from + value.len();
        if text[from..].starts_with(&*value) && stands_apart(text, at, to) {
            out.put(text, from..to, &member.instead);
        }
    }
    out.end(text)
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
