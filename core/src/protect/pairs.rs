//! Names and values that stand beside each other: `{"name":"password","value":"x"}` in all its spellings,
//! `["authorization","Bearer x"]`, lists of such pairs and flat ones, and command lines in lists.

use std::ops::Range;

use super::names::{self, Told, is_opaque};
use super::tree::{Name, Node};
use super::{commands, taken};
use crate::decision::json;

/// Members that hold a name, without case, dashes and underscores.
const NAMING: [&str; 23] = [
    "name",
    "parameterkey",
    "key",
    "k",
    "field",
    "fieldname",
    "param",
    "parameter",
    "parametername",
    "attribute",
    "attributename",
    "attributeid",
    "attr",
    "header",
    "headername",
    "property",
    "prop",
    "variable",
    "var",
    "option",
    "setting",
    "path",
    "label",
];

/// And those that hold its value.
const VALUES: [&str; 20] = [
    "value",
    "val",
    "v",
    "values",
    "rawvalue",
    "stringvalue",
    "intvalue",
    "bytesvalue",
    "arrayvalue",
    "simplevalue",
    "attributevalue",
    "attributevalues",
    "headervalue",
    "paramvalue",
    "parametervalue",
    "propertyvalue",
    "newvalue",
    "oldvalue",
    "defaultvalue",
    "currentvalue",
];

/// What an object of a name that tells may hold the value in.
const WITHIN: [&str; 23] = [
    "value",
    "constantvalue",
    "values",
    "raw",
    "plaintext",
    "text",
    "string",
    "stringvalue",
    "intvalue",
    "bytesvalue",
    "arrayvalue",
    "kvlistvalue",
    "content",
    "data",
    "current",
    "new",
    "old",
    // Avro's and DynamoDB's names of types.
    "bytes",
    "s",
    "n",
    "b",
    "ss",
    "l",
];

fn is_one_of(name: &str, known: &[&str]) -> bool {
    let mut bare = [0u8; 16];
    let mut length = 0;
    for b in name.bytes().filter(|b| !matches!(b, b'_' | b'-' | b' ')) {
        let Some(to) = bare.get_mut(length) else { return false };
        *to = b.to_ascii_lowercase();
        length += 1;
    }
    known.iter().any(|known| known.as_bytes() == &bare[..length])
}

pub fn is_naming(name: &str) -> bool {
    is_one_of(name, &NAMING)
}

pub fn is_value(name: &str) -> bool {
    is_one_of(name, &VALUES)
}

pub fn is_within(name: &str) -> bool {
    is_one_of(name, &WITHIN)
}

/// What a name in a member of its own says of the value beside it, and whether it is a Secret of Kubernetes.
pub fn beside(members: &[(Name<'_>, Node<'_>)]) -> (Told, bool) {
    let mut told = Told::Nothing;
    let mut is_secret = false;
    for (name, node) in members {
        let Node::Raw(text) = node else { continue };
        // Terraform's and others'.
        if name == "sensitive" && *text == "true" {
            told = Told::Secret;
        }
        if !text.starts_with('"') {
            continue;
        }
        if name == "kind" {
            is_secret |= json::as_str(text).is_some_and(|text| text == "Secret");
        } else if told == Told::Nothing && is_naming(name) {
            told = json::as_str(text).map_or(Told::Nothing, |text| {
                // SCIM has a path there.
                names::told(text.rsplit('/').next().unwrap_or_default())
            });
        }
    }
    (told, is_secret)
}

/// Whether an array is a list of pairs: [["host","x"],["authorization","y"]].
pub fn is_list_of_pairs(elements: &[Node<'_>]) -> bool {
    let is_pair = |node: &Node<'_>| {
        let Node::Raw(text) = node else { return false };
        text.starts_with('[')
            && json::elements(text).take(3).count() == 2
            && json::elements(text).next().is_some_and(|name| name.starts_with('"'))
    };
    !elements.is_empty() && elements.iter().all(is_pair)
}

/// The longest command line in a list that is looked at.
const WORDS: usize = 128;

/// Where secrets are in a list that is a command line.
pub fn placed(elements: &[Node<'_>]) -> Vec<(usize, Range<usize>)> {
    if !(3..=WORDS).contains(&elements.len()) {
        return Vec::new();
    }
    let text = |node: &Node<'_>| match node {
        Node::Raw(text) => json::as_str(text).map(std::borrow::Cow::into_owned),
        _ => None,
    };
    let Some(texts) = elements.iter().map(text).collect::<Option<Vec<String>>>() else {
        return Vec::new();
    };
    commands::in_list(&texts.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What is told of each element of an array by the one before it; nothing if nothing is.
pub fn told(elements: &[Node<'_>], is_pair: bool) -> Vec<Told> {
    let mut all = Vec::new();
    for (i, pair) in elements.windows(2).enumerate() {
        let (Node::Raw(name), Node::Raw(value)) = (&pair[0], &pair[1]) else { continue };
        let Some(name) = json::as_str(name) else { continue };
        let told = if is_pair && i == 0 {
            of_pair(&name, value)
        } else {
            of_next(&name, value, i % 2 == 0)
        };
        if told != Told::Nothing {
            all.resize(elements.len(), Told::Nothing);
            all[i + 1] = told;
        }
    }
    all
}

/// Of a pair among pairs, the value is one.
fn of_pair(name: &str, value: &str) -> Told {
    let told = names::told(name);
    let is_order = || json::as_str(value).is_some_and(|v| taken::is_word(&v) || v.len() < 5);
    if matches!(told, Told::Secret | Told::Key) && value.starts_with('"') && is_order() {
        return Told::IfOpaque;
    }
    told
}

/// Of what follows in a list: the value of a flag, or of a header if it looks like one.
fn of_next(name: &str, value: &str, is_even: bool) -> Told {
    let Some(value) = json::as_str(value) else { return Told::Nothing };
    let flag = commands::told(name);
    if flag != Told::Nothing {
        return if commands::is_value(flag, &value) { flag } else { Told::Nothing };
    }
    let told = names::told(name);
    if told == Told::Nothing || !is_even {
        return Told::Nothing;
    }
    // Names follow names, too: ["authorization","content-type"].
    let last = value.rsplit(' ').next().unwrap_or_default();
    let is_made = is_opaque(&value) || is_opaque(last) || last.contains('=');
    if is_made { told } else { Told::Nothing }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_out(json: &str, is_pair: bool) -> Vec<usize> {
        let mut node = Node::Raw(json);
        let Node::Array(elements) = node.open() else { panic!("{json} is no list") };
        let told = told(elements, is_pair);
        (0..told.len()).filter(|i| told[*i] != Told::Nothing).collect()
    }

    #[test]
    fn lists_have_names_and_values() {
        for (json, is_pair, at) in [
            (r#"["authorization","Bearer a1b2c3"]"#, false, vec![1]),
            (r#"["password","hunter"]"#, true, vec![1]),
            (r#"["password","hunter"]"#, false, vec![]),
            (r#"["app","--password","x","--verbose"]"#, false, vec![2]),
            (r#"["--token","--verbose"]"#, false, vec![]),
            (r#"["Host","a","X-Api-Key","k1k2k3","Accept","*/*"]"#, false, vec![3]),
            (r#"["authorization","content-type"]"#, false, vec![]),
            (r#"["secrets","configmaps","pods"]"#, false, vec![]),
            (r#"["--password-file","/run/p","--tls-private-key","/etc/k.pem"]"#, false, vec![]),
        ] {
            assert_eq!(taken_out(json, is_pair), at, "{json}");
        }
    }

    #[test]
    fn members_name_the_value_beside_them() {
        for (json, told) in [
            (r#"{"Key":"password","Val":"x"}"#, Told::Secret),
            (r#"{"header_name":"X-Api-Key","v":"x"}"#, Told::Secret),
            (r#"{"op":"replace","path":"/password","value":"x"}"#, Told::Secret),
            (r#"{"key":"token.type","value":"x"}"#, Told::Nothing),
        ] {
            let mut node = Node::Raw(json);
            let Node::Object(members) = node.open() else { panic!("{json} is no object") };
            assert_eq!(beside(members).0, told, "{json}");
        }
        assert!(is_value("Val") && is_value("stringValue") && is_value("raw_value"));
        assert!(!is_value("valueFrom") && !is_value("type"));
    }
}
