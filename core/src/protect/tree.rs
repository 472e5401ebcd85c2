//! A JSON document that is changed in places: opened along the paths that are touched, and byte for byte as it was
//! everywhere else.

use std::collections::{HashMap, HashSet};

use crate::decision::json;

/// A value: as it stands in the original, opened, or new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node<'a> {
    Raw(&'a str),
    /// Names as written between their quotes, escapes and all.
    Object(Vec<(Name<'a>, Node<'a>)>),
    Array(Vec<Node<'a>>),
    /// JSON that was not there before.
    New(String),
}

pub type Name<'a> = std::borrow::Cow<'a, str>;

impl<'a> Node<'a> {
    /// Opens an object or array; its members stay closed. What is neither stays as it is.
    pub fn open(&mut self) -> &mut Node<'a> {
        let opened = match self {
            Node::Raw(raw) => match raw.as_bytes().first() {
                Some(b'{') => Node::Object(
                    json::members(raw)
                        .map(|m| (Name::Borrowed(m.name), Node::Raw(m.value)))
                        .collect(),
                ),
                Some(b'[') => Node::Array(json::elements(raw).map(Node::Raw).collect()),
                _ => return self,
            },
            Node::New(text) => match text.as_bytes().first() {
                Some(b'{') => Node::Object(
                    json::members(text)
                        .map(|m| (Name::Owned(m.name.to_owned()), Node::New(m.value.to_owned())))
                        .collect(),
                ),
                Some(b'[') => {
                    Node::Array(json::elements(text).map(|e| Node::New(e.to_owned())).collect())
                }
                _ => return self,
            },
            Node::Object(_) | Node::Array(_) => return self,
        };
        *self = opened;
        self
    }

    /// The member of that name, if this is an object that has one.
    pub fn member(&mut self, name: &str) -> Option<&mut Node<'a>> {
        self.child(name, |_| None)
    }

    /// The member of an object, or the element of an array by what `index` reads of the name.
    pub fn child(
        &mut self,
        name: &str,
        index: impl Fn(&str) -> Option<usize>,
    ) -> Option<&mut Node<'a>> {
        match self.open() {
            Node::Object(members) => {
                members.iter_mut().find(|(n, _)| is_named(n, name)).map(|(_, node)| node)
            }
            Node::Array(elements) => elements.get_mut(index(name)?),
            _ => None,
        }
    }

    pub fn remove(&mut self, name: &str) -> bool {
        let Node::Object(members) = self.open() else { return false };
        let before = members.len();
        members.retain(|(n, _)| !is_named(n, name));
        members.len() < before
    }

    /// Sets a member of an object; a new one comes last.
    pub fn set(&mut self, name: &str, value: Node<'a>) {
        if let Some(known) = self.member(name) {
            *known = value;
        } else if let Node::Object(members) = self.open() {
            members.push((Name::Owned(quoted_inside(name)), value));
        }
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Node::Raw(text) => out.extend_from_slice(text.as_bytes()),
            Node::New(text) => out.extend_from_slice(text.as_bytes()),
            Node::Object(members) => {
                out.push(b'{');
                for (i, (name, node)) in members.iter().enumerate() {
                    out.extend_from_slice(if i > 0 { b",\"" } else { b"\"" });
                    out.extend_from_slice(name.as_bytes());
                    out.extend_from_slice(b"\":");
                    node.write(out);
                }
                out.push(b'}');
            }
            Node::Array(elements) => {
                out.push(b'[');
                for (i, node) in elements.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    node.write(out);
                }
                out.push(b']');
            }
        }
    }

    pub fn to_text(&self) -> String {
        let mut out = Vec::new();
        self.write(&mut out);
        String::from_utf8(out).expect("it is made of text")
    }
}

/// Whether a name as written is that name.
fn is_named(written: &str, name: &str) -> bool {
    written == name || written.len() > name.len() && json::unescape(written) == name
}

/// A name between its quotes.
pub fn quoted_inside(name: &str) -> String {
    let mut out = Vec::new();
    json::push_string(&mut out, name);
    let text = String::from_utf8(out).expect("a JSON string is text");
    text[1..text.len() - 1].to_owned()
}

/// Names that no other member of an object has.
#[derive(Debug)]
pub struct Distinct {
    names: HashSet<String>,
    last: HashMap<String, usize>,
}

impl Distinct {
    pub fn of(members: &[(Name<'_>, Node<'_>)]) -> Distinct {
        let names = members.iter().map(|(name, _)| json::unescape(name).into_owned()).collect();
        Distinct { names, last: HashMap::new() }
    }

    /// The wanted name, or the same with a number.
    pub fn name(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        while !self.names.insert(name.clone()) {
            let last = self.last.entry(wanted.to_owned()).or_insert(1);
            *last += 1;
            name = format!("{wanted}-{last}");
        }
        name
    }
}

pub fn push(at: &mut String, name: &str) {
    at.push('/');
    if name.contains(['~', '/']) {
        at.push_str(&name.replace('~', "~0").replace('/', "~1"));
    } else {
        at.push_str(name);
    }
}

pub fn index(name: &str) -> Option<usize> {
    name.parse().ok()
}

pub fn each<'a>(
    node: &mut Node<'a>,
    at: &mut String,
    take: &mut dyn FnMut(&mut Node<'a>, &mut String),
) {
    let length = at.len();
    match node.open() {
        Node::Object(members) => {
            for (name, child) in members {
                push(at, &json::unescape(name));
                take(child, at);
                at.truncate(length);
            }
        }
        Node::Array(elements) => {
            for (i, child) in elements.iter_mut().enumerate() {
                push(at, &i.to_string());
                take(child, at);
                at.truncate(length);
            }
        }
        _ => {}
    }
}

pub fn quoted(text: &str) -> Node<'static> {
    let mut out = Vec::new();
    json::push_string(&mut out, text);
    Node::New(String::from_utf8(out).expect("a JSON string is text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_touched_stays_as_it_was() {
        let doc = r#"{"a": {"n": 1.0e+2, "b\u0041": [1,  2]}, "c" : [{"x":12345678901234567890123}, null ]}"#;
        let mut node = Node::Raw(doc);
        node.member("a").unwrap().member("bA").unwrap().open();
        node.member("a").unwrap().set("new \"one\"", Node::New("true".into()));
        assert_eq!(
            node.to_text(),
            r#"{"a":{"n":1.0e+2,"b\u0041":[1,2],"new \"one\"":true},"c":[{"x":12345678901234567890123}, null ]}"#
        );
        assert!(node.remove("c") && !node.remove("c"));
        assert_eq!(node.member("a").unwrap().member("n"), Some(&mut Node::Raw("1.0e+2")));
    }
}
