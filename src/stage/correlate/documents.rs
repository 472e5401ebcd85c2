//! By what amendments name the documents that they are of. A document's ID has a hash of the decision, as its sink gets it: only while the
//! decision is here that can be told.

use std::borrow::Cow;

use crate::config::forms::redaction;
use crate::correlate::Asked;
use crate::decision::record::{Content, Record};
use crate::pipeline::File;
use crate::protect::redact::Redaction;

/// The sinks whose documents are amended, and what each does not get.
pub(super) struct Documents {
    pub sinks: Vec<String>,
    redactions: Vec<Redaction>,
}

impl Documents {
    pub fn of(file: &File) -> Documents {
        let all = file.documents();
        Documents {
            sinks: all.iter().map(|(name, _)| (*name).clone()).collect(),
            redactions: all.iter().map(|(_, redact)| redaction(redact)).collect(),
        }
    }

    /// What the join needs of a decision.
    pub fn asked(&self, record: &Record<'_>) -> Asked {
        let content = |redaction: &Redaction| match redaction.apply(record.raw.as_bytes()) {
            Cow::Borrowed(_) => record.content(),
            Cow::Owned(less) => {
                Record::parse(&less).map_or_else(|_| Content::default(), |less| less.content())
            }
        };
        Asked { contents: self.redactions.iter().map(content).collect(), ..Asked::of(record) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secrets::Real;
    use crate::decision::event::Event;
    use crate::decision::record::{Rules, write};
    use crate::pipeline::parse;

    #[test]
    fn a_document_is_named_by_what_its_sink_gets() {
        let text = "name: p
kafka: {brokers: k}
sources: [{topic: s}]
join: {facts: [{topic: f}]}
sinks:
  a: {type: elasticsearch, url: 'http://e'}
  b: {type: elasticsearch, url: 'http://e', delivery: {redact: [/input/secret]}}
  c: {type: elasticsearch, url: 'http://e', data_stream: true}
  d: {type: otlp, endpoint: 'http://t'}
";
        let pipeline = parse(std::path::Path::new("p.yaml"), text, &Real);
        let documents = Documents::of(&pipeline.map_err(|e| e.to_string()).unwrap().file);
        assert_eq!(documents.sinks, ["a", "b"]);
        let record = |input: &str| {
            let doc = format!(
                r#"{{"decision_id":"d","timestamp":"2026-11-24T12:48:50Z","input":{input},"result":true}}"#
            );
            let mut out = Vec::new();
            let event = Event::parse(doc.as_bytes()).unwrap();
            write(&event, &[], None, &Rules::default(), &mut out);
            out
        };
        let whole = record(r#"{"secret":1,"a":2}"#);
        let asked = documents.asked(&Record::parse(&whole).unwrap());
        assert_eq!(asked.contents[0], Record::parse(&whole).unwrap().content());
        assert_eq!(asked.contents[1], Record::parse(&record(r#"{"a":2}"#)).unwrap().content());
    }
}
