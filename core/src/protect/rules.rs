//! Rules without Rego: JSON pointers (RFC 6901) in which `*` stands for any one part and `**` for any number of them, and what is
//! done to what they lead to.

use std::sync::Arc;

use globset::GlobMatcher;
use ring::hmac;

use super::keys::{Key, Sealed, pseudonym};
use super::opa::Done;
use super::taken::{RULE, Taken, name_in};
use super::tree::{Node, each, index, push, quoted};
use crate::decision::event::{Event, begins};
use crate::decision::json;

/// Members of a decision that rules may touch. Others say what was decided when, by which rules.
pub const PARTS: [&str; 9] = [
    "input",
    "result",
    "nd_builtin_cache",
    "request_context",
    "requested_by",
    "intermediate_results",
    "mapped_result",
    "custom",
    "query",
];

/// Members of OPA's events that are no part that rules reach.
const OTHERS: [&str; 15] = [
    "decision_id",
    "batch_decision_id",
    "timestamp",
    "path",
    "trace_id",
    "span_id",
    "labels",
    "bundles",
    "revision",
    "metrics",
    "req_id",
    "rule_labels",
    "erased",
    "masked",
    "error",
];

/// Whether OPA writes a member of that name.
pub fn is_opa_s(name: &str) -> bool {
    PARTS.contains(&name) || OTHERS.contains(&name)
}

/// Whether a member is none of OPA's, and not one of them misspelt: agents and plugins add theirs.
fn is_other(name: &str) -> bool {
    !name.is_empty()
        && !is_opa_s(name)
        && !matches!(name, "@timestamp" | "docket")
        && PARTS.iter().all(|part| distance(part.as_bytes(), name.as_bytes()) > 2)
}

/// How many letters two words differ by (Levenshtein).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut before = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (before + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            before = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}

/// What has to be an object, a list or a text, and is none any more, in one.
pub fn keep_types(event: &mut Node<'_>) {
    let Node::Object(members) = event else { return };
    for (name, member) in members {
        let Some(wanted) = begins(&json::unescape(name)) else { continue };
        let is = match member {
            Node::Raw(_) => continue,
            Node::Object(_) => '{',
            Node::Array(_) => '[',
            Node::New(text) if text == "null" => continue,
            Node::New(text) => text.chars().next().unwrap_or_default(),
        };
        if is != wanted {
            let text = member.to_text();
            *member = match wanted {
                '{' => Node::New(format!("{{\"masked\":{text}}}")),
                '[' => Node::New(format!("[{text}]")),
                _ => quoted(&text),
            };
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Name(String),
    Any,
    Deep,
}

/// A pointer with wildcards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(pub Vec<Part>);

impl Pattern {
    pub fn parse(text: &str) -> Result<Pattern, String> {
        let not = || {
            format!(
                "{text:?} is not a JSON pointer to a part of a decision; it begins with one of /{}, or with a member that is not OPA's",
                PARTS.join(", /")
            )
        };
        let rest = text.strip_prefix('/').ok_or_else(not)?;
        let part = |part: &str| match part {
            "*" => Part::Any,
            "**" => Part::Deep,
            name => Part::Name(name.replace("~1", "/").replace("~0", "~")),
        };
        let parts: Vec<Part> = rest.split('/').map(part).collect();
        match &parts[0] {
            Part::Name(name) if PARTS.contains(&name.as_str()) || is_other(name) => {}
            _ => return Err(not()),
        }
        if parts.last() == Some(&Part::Deep) {
            return Err(format!(
                "{text:?} ends with **, which stands for the parts between two names; end it with * or a name"
            ));
        }
        Ok(Pattern(parts))
    }
}

#[derive(Debug, Clone)]
pub enum Action {
    Erase,
    /// With JSON.
    Replace(String),
    /// By a pseudonym: the same value has the same one, which nobody can make without the key.
    Hash(hmac::Key),
    /// Text to so many characters.
    Truncate(usize),
    /// Into an envelope that opens for who holds the key.
    Encrypt(Arc<Key>),
}

#[derive(Debug, Clone)]
pub struct Rule {
    pub path: Pattern,
    /// Of these policies only.
    pub policy: Option<GlobMatcher>,
    pub action: Action,
}

impl Rule {
    /// Applies the rule to a decision, and notes what it did in `erased` and `masked`.
    pub fn apply(&self, decision: &Event<'_>, event: &mut Node<'_>, taken: &mut Taken) -> Done {
        let mut done = Done::default();
        if self.policy.as_ref().is_none_or(|p| p.is_match(&*decision.path)) {
            let list = if matches!(self.action, Action::Erase) {
                &mut done.erased
            } else {
                &mut done.masked
            };
            let mut act =
                Acting { action: &self.action, decision_id: &decision.decision_id, taken };
            visit(event, &self.path.0, &mut act, &mut String::new(), list);
            done.note(event);
        }
        done
    }
}

/// An action, and the decision it is done to.
pub struct Acting<'a> {
    pub action: &'a Action,
    pub decision_id: &'a str,
    /// Hears what is taken out.
    pub taken: &'a mut Taken,
}

pub fn visit(
    node: &mut Node<'_>,
    parts: &[Part],
    act: &mut Acting<'_>,
    at: &mut String,
    done: &mut Vec<String>,
) {
    let Some((part, rest)) = parts.split_first() else { return };
    if !may_lead_on(node, parts) {
        return;
    }
    if *part == Part::Deep {
        // Nothing between,
        visit(node, rest, act, at, done);
        // or something.
        each(node, at, &mut |child, at| visit(child, parts, act, at, done));
        return;
    }
    if !rest.is_empty() {
        match part {
            Part::Name(name) => {
                let length = at.len();
                push(at, name);
                if let Some(child) = node.child(name, index) {
                    visit(child, rest, act, at, done);
                }
                at.truncate(length);
            }
            _ => each(node, at, &mut |child, at| visit(child, rest, act, at, done)),
        }
        return;
    }
    // Here it is.
    if matches!(act.action, Action::Erase) {
        erase(node, part, at, act.taken, done);
        return;
    }
    let mut change = |node: &mut Node<'_>, at: &mut String| {
        if act.change(node, at) {
            done.push(at.clone());
        }
    };
    match part {
        Part::Name(name) => {
            let length = at.len();
            push(at, name);
            if let Some(child) = node.child(name, index) {
                change(child, at);
            }
            at.truncate(length);
        }
        _ => each(node, at, &mut change),
    }
}

/// Whether the last name of a pattern may stand in a text that was not opened yet. A name may be written with escapes.
fn may_lead_on(node: &Node<'_>, parts: &[Part]) -> bool {
    let (Node::Raw(text), Some(Part::Name(name))) =
        (node, parts.iter().rev().find(|p| matches!(p, Part::Name(_))))
    else {
        return true;
    };
    // An index is no name in the text.
    let index = name.bytes().all(|b| b.is_ascii_digit());
    index
        || memchr::memmem::find(text.as_bytes(), name.as_bytes()).is_some()
        || memchr::memchr(b'\\', text.as_bytes()).is_some()
}

fn erase(node: &mut Node<'_>, part: &Part, at: &str, taken: &mut Taken, done: &mut Vec<String>) {
    let mut erased = |name: &str, node: &Node<'_>| {
        let mut path = at.to_owned();
        push(&mut path, name);
        taken.node(node, &name_in(&path), None, RULE);
        done.push(path);
    };
    match (node.open(), part) {
        (Node::Object(_), Part::Name(name)) => {
            if let Some(child) = node.member(name) {
                erased(name, child);
            }
            node.remove(name);
        }
        (Node::Object(members), _) => {
            members.drain(..).for_each(|(name, node)| erased(&json::unescape(&name), &node));
        }
        (Node::Array(elements), Part::Name(name)) => {
            if let Some(i) = index(name).filter(|i| *i < elements.len()) {
                erased(name, &elements.remove(i));
            }
        }
        (Node::Array(elements), _) => {
            let all = elements.drain(..).enumerate();
            all.for_each(|(i, node)| erased(&i.to_string(), &node));
        }
        _ => {}
    }
}

/// A value as its meaning: of text what it says, of others what is written.
fn meaning(node: &Node<'_>) -> String {
    let text = node.to_text();
    json::as_str(&text).map_or_else(|| text.clone(), std::borrow::Cow::into_owned)
}

impl Acting<'_> {
    fn seal(&mut self, key: &Arc<Key>, place: String, plain: &str) -> Node<'static> {
        let envelope = key.seal(self.decision_id, &place, plain);
        let node = quoted(&envelope);
        let (key, plain) = (key.clone(), plain.to_owned());
        self.taken.sealed.push(Sealed { key, place, plain, envelope });
        node
    }

    fn change(&mut self, node: &mut Node<'_>, at: &str) -> bool {
        let before = node.to_text();
        let mut instead = None;
        let new = match self.action {
            Action::Erase => return false,
            Action::Replace(json) => Node::New(json.clone()),
            Action::Hash(key) => {
                let pseudonym = pseudonym(key, &meaning(node));
                let new = quoted(&pseudonym);
                instead = Some(pseudonym);
                new
            }
            // Where a decision has objects only, the envelope is in one.
            Action::Encrypt(key) if begins(at.trim_start_matches('/')) == Some('{') => {
                let sealed = self.seal(key, format!("{at}/masked"), &before).to_text();
                Node::New(format!("{{\"masked\":{sealed}}}"))
            }
            Action::Encrypt(key) => self.seal(key, at.to_owned(), &before),
            Action::Truncate(length) => {
                let Some(text) =
                    json::as_str(&before).filter(|text| text.chars().count() > *length)
                else {
                    return false;
                };
                let kept: String = text.chars().take(*length).collect();
                *node = quoted(&format!("{kept}… ({} bytes)", text.len()));
                return true;
            }
        };
        if new.to_text() != before {
            self.taken.member(&name_in(at), &before, instead.as_deref(), RULE);
        }
        *node = new;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(event: &str, path: &str, action: Action) -> String {
        let mut node = Node::Raw(event);
        let decision =
            Event { raw: event, decision_id: "d1".into(), path: "a/b".into(), ..Event::default() };
        Rule { path: Pattern::parse(path).unwrap(), policy: None, action }.apply(
            &decision,
            &mut node,
            &mut Taken::default(),
        );
        node.to_text()
    }

    #[test]
    fn wildcards_lead_everywhere_and_say_where_they_led() {
        let event = r#"{"input":{"a":{"token":"x"},"list":[{"token":1},{"other":2}],"t\u006fken":"y"},"result":{"token":"z"}}"#;
        assert_eq!(
            done(event, "/input/**/token", Action::Erase),
            r#"{"input":{"a":{},"list":[{},{"other":2}]},"result":{"token":"z"},"erased":["/input/token","/input/a/token","/input/list/0/token"]}"#
        );
        assert_eq!(
            done(event, "/input/list/*", Action::Replace("null".into())),
            r#"{"input":{"a":{"token":"x"},"list":[null,null],"t\u006fken":"y"},"result":{"token":"z"},"masked":["/input/list/0","/input/list/1"]}"#
        );
        assert_eq!(
            done(event, "/input/none/x", Action::Erase),
            event,
            "what leads nowhere changes nothing"
        );
        assert_eq!(
            done(r#"{"input":{"a/b":{"c~d":1}}}"#, "/input/a~1b/c~0d", Action::Erase),
            r#"{"input":{"a/b":{}},"erased":["/input/a~1b/c~0d"]}"#
        );
    }

    #[test]
    fn pseudonyms_join_and_text_is_cut() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
        let hashed = done(
            r#"{"input":{"a":"bob","b":"b\u006fb","c":"eve"}}"#,
            "/input/*",
            Action::Hash(key),
        );
        let value: serde_json::Value = serde_json::from_str(&hashed).unwrap();
        assert!(
            value["input"]["a"] == value["input"]["b"]
                && value["input"]["a"] != value["input"]["c"],
            "{hashed}"
        );
        assert_eq!(value["input"]["a"].as_str().unwrap().len(), "hmac:".len() + 32);
        assert_eq!(
            done(r#"{"input":{"a":"äöü and more","b":7}}"#, "/input/*", Action::Truncate(3)),
            r#"{"input":{"a":"äöü… (15 bytes)","b":7},"masked":["/input/a"]}"#
        );
    }

    #[test]
    fn rules_reach_what_agents_add() {
        let event = r#"{"input":{},"kubernetes":{"annotations":{"owner":"bob"}}}"#;
        assert_eq!(
            done(event, "/kubernetes/annotations/owner", Action::Replace("null".into())),
            r#"{"input":{},"kubernetes":{"annotations":{"owner":null}},"masked":["/kubernetes/annotations/owner"]}"#
        );
    }

    #[test]
    fn what_says_what_was_decided_is_not_touched() {
        for path in [
            "",
            "/",
            "/decision_id",
            "/timestamp",
            "/bundles/x",
            "/inputs/x",
            "/inptu/x",
            "/results",
            "/docket/subject",
            "/**/token",
            "input/x",
            "/input/**",
        ] {
            assert!(Pattern::parse(path).is_err(), "{path}");
        }
    }
}
