//! One detector's way through a value: members by their names, texts by what is in them.

use std::borrow::Cow;
use std::ops::Range;

use super::acts::{Act, Asked, Detect};
use super::changed::Changed;
use super::detector::{Detector, Hit};
use super::encoded::{self, Budget, Look};
use super::keys::pseudonym;
use super::names::{self, Told};
use super::patterns::LOOKING;
use super::taken::{Taken, is_protected};
use super::tree::{Distinct, Node, push, quoted, quoted_inside};
use super::{assignments, blocks, commands, markup, pairs};
use crate::decision::json;

pub struct Walk<'w> {
    detect: &'w Detect,
    /// The document, and the same in lower case.
    document: (&'w str, &'w str),
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
    /// What is opened next is one of a list of pairs.
    is_pair: bool,
}

impl<'w> Walk<'w> {
    pub fn new(
        detect: &'w Detect,
        asked: Option<&'w Asked<'w>>,
        document: (&'w str, &'w str),
        hits: &'w mut Vec<Hit>,
        taken: &'w mut Taken,
    ) -> Walk<'w> {
        Walk {
            detect,
            document,
            asked,
            who: None,
            hits,
            taken,
            masked: Vec::new(),
            changes: 0,
            at: String::new(),
            place: String::new(),
            budget: Budget::new(document.0.len()),
            inside: 0,
            open: 0,
            is_pair: false,
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

    /// Which detectors may find something, as bits.
    fn suspects(&self, text: &str) -> u16 {
        let (all, lower) = self.document;
        let begin = (text.as_ptr() as usize).wrapping_sub(all.as_ptr() as usize);
        match lower.get(begin..begin.saturating_add(text.len())) {
            Some(lower) => self.detect.prefilter.within(text, lower),
            None => self.detect.prefilter.of(text),
        }
    }

    pub fn value(&mut self, node: &mut Node<'_>) {
        let text = match node {
            Node::Raw(text) => Cow::Borrowed(*text),
            Node::New(text) => Cow::Owned(text.clone()),
            _ => return self.open(node),
        };
        let suspects = self.suspects(&text);
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
        if is_protected(text) {
            return;
        }
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
        let is_pair = std::mem::take(&mut self.is_pair);
        match node.open() {
            Node::Object(members) => self.members(members),
            Node::Array(elements) => {
                let told = match self.detect.act(Detector::Named) {
                    Some(_) => pairs::told(elements, is_pair),
                    None => Vec::new(),
                };
                let are_pairs = pairs::is_list_of_pairs(elements);
                let placed = match self.detect.act(Detector::Named) {
                    Some(_) => pairs::placed(elements),
                    None => Vec::new(),
                };
                self.elements(elements, |walk, i, element| {
                    walk.is_pair = are_pairs;
                    let within = placed.iter().find(|(at, _)| *at == i).map(|(_, range)| range);
                    match told.get(i) {
                        None | Some(Told::Nothing)
                            if within.is_some_and(|r| walk.part(element, r)) => {}
                        None | Some(Told::Nothing) => walk.value(element),
                        Some(told) => walk.named(*told, element),
                    }
                    walk.is_pair = false;
                });
            }
            _ => {}
        }
    }

    fn members(&mut self, members: &mut Vec<(super::tree::Name<'_>, Node<'_>)>) {
        let (beside, is_secret) = match self.detect.act(Detector::Named) {
            Some(_) => pairs::beside(members),
            None => (Told::Nothing, false),
        };
        self.marked(members);
        let mut distinct = None;
        for i in 0..members.len() {
            let plain = json::unescape(&members[i].0).into_owned();
            let mut name = Cow::Borrowed(&*plain);
            if let Some(clean) = self.name(&plain) {
                let clean = distinct.get_or_insert_with(|| Distinct::of(members)).name(&clean);
                members[i].0 = quoted_inside(&clean).into();
                name = Cow::Owned(clean);
                self.changed();
            }
            let node = &mut members[i].1;
            let told = match &*plain {
                "data" | "stringData" if is_secret => Told::Secrets,
                name if beside != Told::Nothing && pairs::is_value(name) => beside,
                _ => Told::Nothing,
            };
            if told == Told::Nothing {
                self.member(&name, node);
            } else {
                self.below(&name, |walk| walk.named(told, node));
            }
        }
    }

    /// What a member beside it says to be sensitive, as Terraform's plans do.
    fn marked(&mut self, members: &mut [(super::tree::Name<'_>, Node<'_>)]) {
        const MARKS: [(&str, &str); 3] = [
            ("after_sensitive", "after"),
            ("before_sensitive", "before"),
            ("sensitive_values", "values"),
        ];
        if self.detect.act(Detector::Named).is_none() {
            return;
        }
        for (mark, of) in MARKS {
            let Some(mask) = members.iter().find(|(name, _)| name == mark) else { continue };
            let mask = mask.1.to_text();
            if let Some((_, node)) = members.iter_mut().find(|(name, _)| name == of) {
                self.below(of, |walk| walk.sensitive(node, &mask));
            }
        }
    }

    /// What stands where a mask has `true`.
    fn sensitive(&mut self, node: &mut Node<'_>, mask: &str) {
        match mask.as_bytes().first() {
            Some(b'{') => {
                for marked in json::members(mask).filter(|m| m.value != "false") {
                    let name = marked.key();
                    if let Some(child) = node.member(&name) {
                        self.below(&name, |walk| walk.sensitive(child, marked.value));
                    }
                }
            }
            Some(b'[') => {
                for (i, marked) in json::elements(mask).enumerate() {
                    let place = i.to_string();
                    if let Some(child) = node.child(&place, super::tree::index) {
                        self.below(&place, |walk| walk.sensitive(child, marked));
                    }
                }
            }
            Some(b't') => match node.open() {
                Node::Object(members) => {
                    for (name, child) in members {
                        let name = json::unescape(name).into_owned();
                        self.below(&name, |walk| walk.sensitive(child, "true"));
                    }
                }
                Node::Array(elements) => {
                    self.elements(elements, |walk, _, element| walk.sensitive(element, "true"));
                }
                _ => self.named(Told::Secret, node),
            },
            _ => {}
        }
    }

    /// A member of the decision has another name now; what is below it is said to be there.
    pub fn renamed(&mut self, name: &str, clean: &str) {
        let (mut before, mut now) = (String::new(), String::new());
        push(&mut before, name);
        push(&mut now, clean);
        for path in &mut self.masked {
            if let Some(rest) = path.strip_prefix(&before)
                && (rest.is_empty() || rest.starts_with('/'))
            {
                *path = format!("{now}{rest}");
            }
        }
        self.masked.push(now);
        self.changes += 1;
    }

    /// A name without what detectors find in it.
    pub fn name(&mut self, name: &str) -> Option<String> {
        // Too short for anything, and nothing else in it.
        if name.len() < 11 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
        {
            return None;
        }
        let from = self.hits.len();
        self.inside += 1;
        let clean = encoded::look(name, self);
        self.inside -= 1;
        self.once(from);
        clean
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
                let each = match told {
                    Told::Secrets => Some(Told::Secret),
                    Told::EachIfOpaque => Some(Told::IfOpaque),
                    _ => None,
                };
                self.open += 1;
                for (name, node) in members.iter_mut() {
                    let plain = json::unescape(name).into_owned();
                    if each.is_some() || pairs::is_within(&plain) {
                        let told = each.unwrap_or(told);
                        self.below(&plain, |walk| walk.named(told, node));
                    }
                }
                self.members(members);
                self.open -= 1;
                return;
            }
            Node::Array(elements) => {
                self.open += 1;
                self.elements(elements, |walk, _, element| {
                    // Objects in a list of secrets say where they are: {"name":..,"valueFrom":..}.
                    let is_object = matches!(element, Node::Raw(text) if text.starts_with('{'));
                    let told = if is_object && told == Told::Secrets { Told::Secret } else { told };
                    walk.named(told, element);
                });
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
            Some(b'0'..=b'9' | b'-') if matches!(told, Told::Secret | Told::Key | Told::Code) => {
                if (told != Told::Code || text.len() >= 3)
                    && let Some(new) = self.secret(&text)
                {
                    self.change(node, &new);
                }
            }
            _ => self.value(node),
        }
    }

    /// A part of a text that is a secret where it stands. Whether it was taken out.
    fn part(&mut self, node: &mut Node<'_>, range: &Range<usize>) -> bool {
        let text = node.to_text();
        let Some(value) = json::as_str(&text) else { return false };
        let Some(secret) = value.get(range.clone()).filter(|secret| !is_protected(secret)) else {
            return false;
        };
        let Some(new) = self.secret(secret) else { return false };
        self.change(node, &format!("{}{new}{}", &value[..range.start], &value[range.end..]));
        true
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
            && self.who.get_or_insert_with(|| who_asked(asked)).iter().any(|who| who.contains(text))
        {
            return Some(pseudonym(asked.key, text));
        }
        act.instead(detector, text)
    }
}

/// Who asked for what, as it is written and without percent-encoding: a path may have an address in it.
fn who_asked(asked: &Asked<'_>) -> Vec<String> {
    let mut all = (asked.texts)();
    let decoded: Vec<String> =
        all.iter().filter_map(|text| encoded::percent_decoded(text, false)).collect();
    all.extend(decoded);
    all
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
        type Step = fn(&str, &mut dyn FnMut(&str) -> Option<String>) -> Option<String>;
        let steps: [Step; 5] = [
            assignments::replace,
            assignments::replace_in_parts,
            markup::replace,
            blocks::replace,
            commands::replace,
        ];
        let mut now = Cow::Borrowed(text);
        for step in steps {
            if let Some(new) = step(&now, &mut take) {
                now = Cow::Owned(new);
            }
        }
        match now {
            Cow::Borrowed(_) => None,
            Cow::Owned(new) => Some(new),
        }
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
