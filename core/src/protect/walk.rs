//! One detector's way through a value: members by their names, texts by what is in them.

use std::borrow::Cow;

use super::detect::{Act, Asked, Detect};
use super::detector::{ALL, Detector, Hit};
use super::encoded::{self, Budget, Look};
use super::keys::{is_envelope, is_pseudonym, pseudonym};
use super::names::{self, Told};
use super::patterns::LOOKING;
use super::taken::Taken;
use super::tree::{Distinct, Node, push, quoted, quoted_inside};
use super::{assignments, encoded::Changed};
use crate::decision::json;

pub struct Walk<'w> {
    detect: &'w Detect,
    asked: Option<&'w Asked<'w>>,
    /// Who asked, once it is looked for.
    who: Option<Vec<String>>,
    hits: &'w mut Vec<Hit>,
    taken: &'w mut Taken,
    /// Paths of what was changed.
    pub masked: Vec<String>,
    pub changes: usize,
    /// The JSON pointer, and the same as metrics have it.
    at: String,
    pub place: String,
    budget: Budget,
    /// In what is encoded, and in notes, places are those of the text.
    inside: usize,
    /// How many objects and lists are open.
    open: usize,
}

impl<'w> Walk<'w> {
    pub fn new(
        detect: &'w Detect,
        asked: Option<&'w Asked<'w>>,
        bytes: usize,
        hits: &'w mut Vec<Hit>,
        taken: &'w mut Taken,
    ) -> Walk<'w> {
        Walk {
            detect,
            asked,
            who: None,
            hits,
            taken,
            masked: Vec::new(),
            changes: 0,
            at: String::new(),
            place: String::new(),
            budget: Budget::new(bytes),
            inside: 0,
            open: 0,
        }
    }

    pub fn member(&mut self, name: &str, node: &mut Node<'_>) {
        let told = if self.detect.act(Detector::Named).is_some() {
            names::told(name)
        } else {
            Told::Nothing
        };
        self.below(name, |walk| match told {
            Told::Nothing => walk.value(node),
            told => walk.named(told, node),
        });
    }

    /// What says what was taken out.
    pub fn unnoted(&mut self, node: &mut Node<'_>) {
        self.inside += 1;
        self.value(node);
        self.inside -= 1;
    }

    fn below(&mut self, name: &str, look: impl FnOnce(&mut Self)) {
        if self.inside > 0 {
            return look(self);
        }
        let (at, place) = (self.at.len(), self.place.len());
        push(&mut self.at, name);
        self.place.push('/');
        self.place.push_str(if looks_like_data(name) { "*" } else { name });
        look(self);
        self.at.truncate(at);
        self.place.truncate(place);
    }

    pub fn value(&mut self, node: &mut Node<'_>) {
        let text = match node {
            Node::Raw(text) => Cow::Borrowed(*text),
            Node::New(text) => Cow::Owned(text.clone()),
            _ => return self.open(node),
        };
        let suspects = self.detect.prefilter.of(&text);
        if suspects == 0 {
            return;
        }
        match text.as_bytes().first() {
            Some(b'{' | b'[') => self.open(node),
            Some(b'"') => {
                let Some(value) = json::as_str(&text) else { return };
                self.text(node, &value);
            }
            // A number is a card at most.
            Some(b'0'..=b'9') if suspects & Detector::Card.bit() != 0 => {
                if let Some(new) = self.find(&text, Detector::Card) {
                    self.change(node, &new);
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, node: &mut Node<'_>, text: &str) {
        let from = self.hits.len();
        self.inside += 1;
        let new = encoded::look(text, self);
        self.inside -= 1;
        self.once(from);
        if let Some(new) = new {
            self.change(node, &new);
        }
    }

    /// A detector's finds in one text count once.
    fn once(&mut self, from: usize) {
        if self.inside == 0 && self.hits.len() > from + 1 {
            let mut found = self.hits.split_off(from);
            found.sort_by_key(|hit| hit.detector);
            found.dedup_by_key(|hit| hit.detector);
            self.hits.append(&mut found);
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

    fn open(&mut self, node: &mut Node<'_>) {
        self.open += 1;
        self.look_inside(node);
        self.open -= 1;
    }

    fn look_inside(&mut self, node: &mut Node<'_>) {
        match node.open() {
            Node::Object(members) => self.members(members),
            Node::Array(elements) => {
                // ["authorization","Bearer x"]
                let told = match elements.as_slice() {
                    [Node::Raw(name), Node::Raw(value)] if value.starts_with('"') => {
                        json::as_str(name).map_or(Told::Nothing, |name| names::told(&name))
                    }
                    _ => Told::Nothing,
                };
                self.elements(elements, |walk, i, element| {
                    if i == 1 && told != Told::Nothing {
                        walk.named(Told::IfOpaque, element);
                    } else {
                        walk.value(element);
                    }
                });
            }
            _ => {}
        }
    }

    fn members(&mut self, members: &mut Vec<(super::tree::Name<'_>, Node<'_>)>) {
        let (beside, is_secret) = self.beside(members);
        let mut distinct = None;
        for i in 0..members.len() {
            let plain = json::unescape(&members[i].0).into_owned();
            let from = self.hits.len();
            self.inside += 1;
            let clean = encoded::look(&plain, self);
            self.inside -= 1;
            self.once(from);
            if let Some(clean) = clean {
                let name = distinct.get_or_insert_with(|| Distinct::of(members)).name(&clean);
                members[i].0 = quoted_inside(&name).into();
                self.changed();
            }
            let name = json::unescape(&members[i].0).into_owned();
            let node = &mut members[i].1;
            let told = match &*plain {
                "value" | "raw_value" | "rawValue" | "values" => beside,
                "data" | "stringData" if is_secret => Told::Secrets,
                _ => Told::Nothing,
            };
            if told == Told::Nothing {
                self.member(&name, node);
            } else {
                self.below(&name, |walk| walk.named(told, node));
            }
        }
    }

    /// What a name in a member of its own says of the value beside it, {"name":"password","value":"x"},
    /// and whether it is a Secret of Kubernetes.
    fn beside(&self, members: &[(super::tree::Name<'_>, Node<'_>)]) -> (Told, bool) {
        let mut told = Told::Nothing;
        let mut is_secret = false;
        if self.detect.act(Detector::Named).is_none() {
            return (told, is_secret);
        }
        for (name, node) in members {
            let (Node::Raw(text), "name" | "key" | "Name" | "kind") = (node, &**name) else {
                continue;
            };
            let Some(text) = json::as_str(text) else { continue };
            if name == "kind" {
                is_secret = text == "Secret";
            } else if told == Told::Nothing {
                told = names::told(&text);
            }
        }
        (told, is_secret)
    }

    fn elements<'n>(
        &mut self,
        elements: &mut [Node<'n>],
        look: impl Fn(&mut Self, usize, &mut Node<'n>),
    ) {
        let (at, place) = (self.at.len(), self.place.len());
        if self.inside == 0 {
            self.place.push_str("/*");
        }
        for (i, element) in elements.iter_mut().enumerate() {
            if self.inside == 0 {
                push(&mut self.at, &i.to_string());
            }
            look(self, i, element);
            self.at.truncate(at);
        }
        self.place.truncate(place);
    }

    /// The text of a member whose name tells, and texts in a list of it. What holds more is looked through.
    fn named(&mut self, told: Told, node: &mut Node<'_>) {
        if matches!(node, Node::Raw(text) if text.starts_with(['{', '['])) {
            node.open();
        }
        match node {
            Node::Object(members) => {
                let all = told == Told::Secrets;
                self.open += 1;
                for (name, node) in members.iter_mut() {
                    let plain = json::unescape(name).into_owned();
                    if all || matches!(&*plain, "value" | "raw" | "plaintext" | "text" | "string") {
                        let told = if all { Told::Secret } else { told };
                        self.below(&plain, |walk| walk.named(told, node));
                    }
                }
                self.members(members);
                self.open -= 1;
                return;
            }
            Node::Array(elements) => {
                self.open += 1;
                self.elements(elements, |walk, _, element| walk.named(told, element));
                self.open -= 1;
                return;
            }
            _ => {}
        }
        let text = node.to_text();
        match text.as_bytes().first() {
            Some(b'"') => {
                let value = json::as_str(&text).unwrap_or_default();
                if is_protected(&value) {
                    return;
                }
                match names::is_secret(told, &value).then(|| self.secret(&value)) {
                    Some(Some(new)) => self.change(node, &new),
                    _ => self.value(node),
                }
            }
            Some(b'0'..=b'9' | b'-') if told == Told::Secret || told == Told::Code => {
                if (told == Told::Secret || text.len() >= 3)
                    && let Some(new) = self.secret(&text)
                {
                    self.change(node, &new);
                }
            }
            _ => self.value(node),
        }
    }

    /// What stands in the place of a value whose name tells.
    fn secret(&mut self, value: &str) -> Option<String> {
        let act = self.detect.act(Detector::Named)?;
        self.hit(Detector::Named);
        let instead = act.instead(Detector::Named, value)?;
        self.taken.named(value, &instead, &|part| act.instead(Detector::Named, part));
        Some(instead)
    }

    fn hit(&mut self, detector: Detector) {
        self.hits.push(Hit { detector, place: self.place.clone() });
    }

    /// A text without what one detector finds in it.
    fn find(&mut self, text: &str, detector: Detector) -> Option<String> {
        let detect = self.detect;
        let act = detect.act(detector)?;
        let found = detect.patterns.find(detector, text);
        if found.is_empty() {
            return None;
        }
        self.hit(detector);
        let mut out = Changed::default();
        for range in found {
            let secret = &text[range.clone()];
            if let Some(instead) = self.instead(act, detector, secret) {
                self.taken.add(secret, &instead);
                out.put(text, range, &instead);
            }
        }
        out.end(text)
    }

    fn instead(&mut self, act: &Act, detector: Detector, text: &str) -> Option<String> {
        if detector == Detector::Email
            && matches!(act, Act::Erase)
            && let Some(asked) = self.asked
            && self.who.get_or_insert_with(asked.texts).iter().any(|who| who.contains(text))
        {
            return Some(pseudonym(asked.key, text));
        }
        act.instead(detector, text)
    }
}

/// Whether nothing is left of a value but what docket put there.
pub fn is_protected(text: &str) -> bool {
    let is_mark = |by: &str| ALL.iter().any(|d| d.name() == by) || super::taken::BY.contains(&by);
    text.is_empty()
        || text.strip_prefix("[erased:").and_then(|t| t.strip_suffix(']')).is_some_and(is_mark)
        || is_pseudonym(text)
        || is_envelope(text)
}

impl Look for Walk<'_> {
    fn wants(&self, text: &str) -> bool {
        self.detect.prefilter.of(text) != 0
    }

    fn budget(&mut self) -> &mut Budget {
        &mut self.budget
    }

    fn json(&mut self, json: &str) -> Option<String> {
        // As deep as one document may be; deeper, it is text.
        if self.open > json::MAX_DEPTH {
            let paired = self.pairs(json);
            return self.plain(paired.as_deref().unwrap_or(json)).or(paired);
        }
        let mut node = Node::Raw(json);
        let before = self.changes;
        self.value(&mut node);
        (self.changes > before).then(|| node.to_text())
    }

    fn pairs(&mut self, text: &str) -> Option<String> {
        self.detect.act(Detector::Named)?;
        let mut take = |value: &str| {
            if is_protected(value) { None } else { self.secret(value) }
        };
        let replaced = assignments::replace(text, &mut take);
        assignments::replace_in_markup(replaced.as_deref().unwrap_or(text), &mut take).or(replaced)
    }

    fn plain(&mut self, text: &str) -> Option<String> {
        let suspects = self.detect.prefilter.of(text);
        let mut now = Cow::Borrowed(text);
        for detector in LOOKING {
            if suspects & detector.bit() != 0
                && let Some(new) = self.find(&now, detector)
            {
                now = Cow::Owned(new);
            }
        }
        match now {
            Cow::Borrowed(_) => None,
            Cow::Owned(new) => Some(new),
        }
    }
}

/// A name that is more than a name: an id, an address, a token.
fn looks_like_data(name: &str) -> bool {
    name.len() > 40
        || name.bytes().filter(u8::is_ascii_digit).count() > 4
        || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}
