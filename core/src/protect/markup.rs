//! Names and values in XML and HTML: `<password>x</password>`, `<add key="password" value="x"/>`,
//! `<property name="password">x</property>`, `<key>password</key><string>x</string>`.

use std::ops::Range;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::changed::Changed;
use super::names::{self, Told};
use super::pairs;

/// A tag, its attributes, and the text behind it.
static TAG: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"<(?:[A-Za-z0-9_.-]{1,40}:)?([A-Za-z_][A-Za-z0-9_.-]{0,80})((?:\s+[^\s<>="'/]+\s*=\s*(?:"[^"<>]*"|'[^'<>]*'))*)\s*(/?)>(?:\s*<!\[CDATA\[)?([^<>]*)"#,
    )
    .expect("the pattern is right")
});

static ATTRIBUTE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"([^\s<>="'/]+)\s*=\s*(?:"([^"]*)"|'([^']*)')"#).expect("the pattern is right")
});

/// Replaces values whose name tells; `take` says by what.
pub fn replace(text: &str, take: &mut dyn FnMut(&str) -> Option<String>) -> Option<String> {
    if !text.contains('<') || !text.contains('>') {
        return None;
    }
    let mut out = Changed::default();
    // What the element before said of the one that follows it.
    let mut before = Told::Nothing;
    for found in TAG.captures_iter(text) {
        let Some(element) = Element::of(text, &found) else { continue };
        let told = std::mem::replace(&mut before, element.tells_of_next());
        for (told, range) in element.values(told) {
            let value = &text[range.clone()];
            if names::is_secret(told, value)
                && let Some(instead) = take(value)
            {
                out.put(text, range, &instead);
            }
        }
    }
    out.end(text)
}

struct Element<'t> {
    name: &'t str,
    attributes: Vec<(&'t str, &'t str, Range<usize>)>,
    content: (&'t str, Range<usize>),
    /// Its end tag comes later.
    is_open: bool,
}

impl<'t> Element<'t> {
    fn of(text: &'t str, found: &Captures<'t>) -> Option<Element<'t>> {
        let (attributes, content) = (found.get(2)?, found.get(4)?);
        let attributes = ATTRIBUTE
            .captures_iter(attributes.as_str())
            .filter_map(|one| {
                let value = one.get(2).or(one.get(3))?;
                let from = attributes.start() + value.start();
                Some((one.get(1)?.as_str(), value.as_str(), from..from + value.len()))
            })
            .collect();
        // Only what an end tag follows is an element's text.
        let after = &text[content.end()..];
        let within = content.as_str().strip_suffix("]]").filter(|_| after.starts_with('>'));
        let bare = within.unwrap_or(content.as_str()).trim();
        let is_text = found.get(3)?.is_empty() && (within.is_some() || after.starts_with("</"));
        let from = content.start() + content.as_str().len() - content.as_str().trim_start().len();
        let content = if is_text { (bare, from..from + bare.len()) } else { ("", from..from) };
        let is_open = found.get(3)?.is_empty();
        Some(Element { name: found.get(1)?.as_str(), attributes, content, is_open })
    }

    /// `<key>password</key>` tells of what follows.
    fn tells_of_next(&self) -> Told {
        if pairs::is_naming(self.name) && !self.content.0.is_empty() {
            return names::told(self.content.0);
        }
        // <setting name="ApiKey"><value>x</value></setting>
        let mut naming = self.attributes.iter().filter(|(name, ..)| pairs::is_naming(name));
        match naming.next() {
            Some((_, value, _)) if self.is_open && self.content.0.is_empty() => names::told(value),
            _ => Told::Nothing,
        }
    }

    /// Values, and what names say of them: its own, one in an attribute, that of the element before.
    fn values(&self, before: Told) -> Vec<(Told, Range<usize>)> {
        let naming = self.attributes.iter().filter(|(name, ..)| pairs::is_naming(name));
        let named = naming.map(|(_, value, _)| names::told(value)).find(|t| *t != Told::Nothing);
        let mut all = Vec::new();
        for (name, _, range) in &self.attributes {
            if let Some(told) = named.filter(|_| pairs::is_value(name) || *name == "content") {
                all.push((told, range.clone()));
            }
        }
        let of_text = [names::told(self.name), named.unwrap_or(Told::Nothing), before];
        if let Some(told) = of_text.into_iter().find(|told| *told != Told::Nothing)
            && !self.content.0.is_empty()
        {
            all.push((told, self.content.1.clone()));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_stand_in_many_ways() {
        for (text, left) in [
            (
                "<a:Password Type=\"x\">hunter2</a:Password>",
                "<a:Password Type=\"x\">[x]</a:Password>",
            ),
            ("<password><![CDATA[k1]]></password>", "<password><![CDATA[[x]]]></password>"),
            (
                "<setting name=\"ApiKey\"><value>k1</value></setting>",
                "<setting name=\"ApiKey\"><value>[x]</value></setting>",
            ),
            ("<user>bob</user><apiKey>k1</apiKey>", "<user>bob</user><apiKey>[x]</apiKey>"),
            ("<add key=\"DbPassword\" value=\"k1\"/>", "<add key=\"DbPassword\" value=\"[x]\"/>"),
            ("<input value='k1' name='csrf_token'>", "<input value='[x]' name='csrf_token'>"),
            (
                "<meta name=\"csrf-token\" content=\"k1\"/>",
                "<meta name=\"csrf-token\" content=\"[x]\"/>",
            ),
            (
                "<property name=\"password\">k1</property>",
                "<property name=\"password\">[x]</property>",
            ),
            (
                "<dict><key>user</key><string>bob</string>\n<key>password</key>\n<string> k1 </string></dict>",
                "<dict><key>user</key><string>bob</string>\n<key>password</key>\n<string> [x] </string></dict>",
            ),
            (
                "<property><name>db.password</name><value>k1</value></property>",
                "<property><name>db.password</name><value>[x]</value></property>",
            ),
        ] {
            assert_eq!(replace(text, &mut |_| Some("[x]".into())).as_deref(), Some(left));
        }
        for text in [
            "<token-type>Bearer</token-type>",
            "<add key=\"page_token\" value=\"x\"/>",
            "<name>password</name><hint>",
            "a < b and password > c",
            "<param name=\"secret\"/><b>words</b>",
        ] {
            assert_eq!(replace(text, &mut |_| Some("x".into())), None, "{text}");
        }
    }
}
