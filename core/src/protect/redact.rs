//! What is taken out of docket records for one sink alone.

use std::borrow::Cow;

use super::rules::{Acting, Action, Part, Pattern, visit};
use super::taken::Taken;
use super::tree::Node;

/// What is taken out of records for one sink alone.
#[derive(Debug, Clone, Default)]
pub struct Redaction(Vec<Pattern>);

/// Members of `docket` that hold parts of the decision, or of its request.
const OF_DOCKET: [&str; 8] =
    ["subject", "action", "resource", "tenant", "reasons", "agent", "request", "match"];
/// Those of which a member may go.
const OBJECTS: [&str; 2] = ["request", "match"];

fn is_of_docket(members: &str) -> bool {
    match members.split_once('/') {
        None => OF_DOCKET.contains(&members),
        Some((object, member)) => {
            OBJECTS.contains(&object) && !member.is_empty() && !member.contains(['/', '*'])
        }
    }
}

/// A pointer into a docket record: to a part of the decision, or to a member of `docket` that holds one.
pub fn pattern(text: &str) -> Result<Pattern, String> {
    match text.strip_prefix("/docket/") {
        Some(members) if is_of_docket(members) => {
            let names = ["docket"].into_iter().chain(members.split('/'));
            Ok(Pattern(names.map(|name| Part::Name(name.into())).collect()))
        }
        Some(_) => Err(format!(
            "{text:?} is needed; of docket's own there may go {}, and members of {}",
            OF_DOCKET.join(", "),
            OBJECTS.join(" and ")
        )),
        None => Pattern::parse(text),
    }
}

impl Redaction {
    pub fn new(patterns: impl IntoIterator<Item = Pattern>) -> Redaction {
        Redaction(patterns.into_iter().collect())
    }

    /// A docket record without it, where that makes a difference.
    pub fn apply<'v>(&self, record: &'v [u8]) -> Cow<'v, [u8]> {
        if self.0.is_empty() {
            return Cow::Borrowed(record);
        }
        let Ok(text) = std::str::from_utf8(record) else { return Cow::Borrowed(record) };
        let mut node = Node::Raw(text);
        let mut erased = Vec::new();
        for pattern in &self.0 {
            visit(
                &mut node,
                &pattern.0,
                &mut Acting {
                    action: &Action::Erase,
                    decision_id: "",
                    taken: &mut Taken::default(),
                },
                &mut String::new(),
                &mut erased,
            );
        }
        if erased.is_empty() {
            Cow::Borrowed(record)
        } else {
            Cow::Owned(node.to_text().into_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sink_gets_less_and_still_a_docket_record() {
        let record = br#"{"decision_id":"d","input":{"a":1},"result":{"token":"t","allow":true},"@timestamp":"2026-11-24T12:00:00.000000000Z","docket":{"v":1,"verdict":"allow","reasons":[],"trace_id":"0af7651916cd43dd8448eb211c80319c","span_id":"b7ad6b7169203331","subject":"bob"}}"#;
        let redaction =
            |paths: &[&str]| Redaction::new(paths.iter().map(|path| pattern(path).unwrap()));
        let redacted = redaction(&["/input", "/result/token", "/docket/subject"]);
        let less = redacted.apply(record);
        assert_eq!(
            std::str::from_utf8(&less).unwrap(),
            r#"{"decision_id":"d","result":{"allow":true},"@timestamp":"2026-11-24T12:00:00.000000000Z","docket":{"v":1,"verdict":"allow","reasons":[],"trace_id":"0af7651916cd43dd8448eb211c80319c","span_id":"b7ad6b7169203331"}}"#
        );
        crate::decision::record::Record::parse(&less).unwrap();
        assert!(matches!(redaction(&["/nd_builtin_cache"]).apply(record), Cow::Borrowed(_)));
        for wrong in ["/docket/trace_id", "/docket/request/", "/docket/service/name"] {
            assert!(pattern(wrong).is_err(), "{wrong}");
        }
        let joined = br#"{"decision_id":"d","@timestamp":"2026-11-24T12:00:00.000000000Z","docket":{"v":1,"request":{"path":"/a","user":"bob"},"match":{"class":"request_id","key":"r-1"}}}"#;
        let less = redaction(&["/docket/request/user"]).apply(joined).into_owned();
        assert!(String::from_utf8(less).unwrap().contains(r#""request":{"path":"/a"},"match""#));
        let less = redaction(&["/docket/match/key"]).apply(joined).into_owned();
        assert!(String::from_utf8(less).unwrap().contains(r#""match":{"class":"request_id"}"#));
        let less = redaction(&["/docket/request"]).apply(joined).into_owned();
        assert!(String::from_utf8(less).unwrap().contains(r#""docket":{"v":1,"match""#));
    }
}
