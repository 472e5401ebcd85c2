//! What is taken out of docket records for one sink alone.

use std::borrow::Cow;

use super::rules::{Acting, Action, Part, Pattern, visit};
use super::taken::Taken;
use super::tree::Node;

/// What is taken out of records for one sink alone.
#[derive(Debug, Clone, Default)]
pub struct Redaction(Vec<Pattern>);

/// Members of `docket` that hold parts of the decision.
const OF_DOCKET: [&str; 5] = ["subject", "action", "resource", "reasons", "agent"];

impl Redaction {
    /// An error says which of the pointers is wrong, too.
    pub fn parse(pointers: &[String]) -> Result<Redaction, (usize, String)> {
        let one = |(i, text): (usize, &String)| match text.strip_prefix("/docket/") {
            Some(member) if OF_DOCKET.contains(&member) => {
                Ok(Pattern(vec![Part::Name("docket".into()), Part::Name(member.into())]))
            }
            Some(_) => Err((
                i,
                format!(
                    "{text:?} is needed; of docket's own there may go {}",
                    OF_DOCKET.join(", ")
                ),
            )),
            None => Pattern::parse(text).map_err(|e| (i, e)),
        };
        pointers.iter().enumerate().map(one).collect::<Result<_, _>>().map(Redaction)
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
            Redaction::parse(&["/input".into(), "/result/token".into(), "/docket/subject".into()])
                .unwrap();
        let less = redaction.apply(record);
        assert_eq!(
            std::str::from_utf8(&less).unwrap(),
            r#"{"decision_id":"d","result":{"allow":true},"@timestamp":"2026-11-24T12:00:00.000000000Z","docket":{"v":1,"verdict":"allow","reasons":[],"trace_id":"0af7651916cd43dd8448eb211c80319c","span_id":"b7ad6b7169203331"}}"#
        );
        crate::decision::record::Record::parse(&less).unwrap();
        assert!(matches!(
            Redaction::parse(&["/nd_builtin_cache".into()]).unwrap().apply(record),
            Cow::Borrowed(_)
        ));
        assert_eq!(
            Redaction::parse(&["/input".into(), "/docket/trace_id".into()]).unwrap_err().0,
            1
        );
    }
}
