//! Decisions as Loki's `logproto.PushRequest`. Pure.

use std::collections::HashMap;

use super::config::LokiConfig;
use crate::decision::ids::push_hex;
use crate::decision::label::LabelSource;
use crate::decision::record::Record;
use crate::sink::wire;

/// The pure part: which labels a stream has.
#[derive(Debug, Clone)]
pub struct Encoder {
    labels: Vec<(String, LabelSource)>,
}

impl Encoder {
    pub fn new(config: &LokiConfig) -> Encoder {
        let labels = config.labels.iter().map(|(name, source)| (name.clone(), source.value()));
        Encoder { labels: labels.collect() }
    }

    /// The labels of a record's stream; an empty value is no label.
    pub fn labels(&self, record: &Record<'_>) -> Vec<(&str, String)> {
        let values = self
            .labels
            .iter()
            .map(|(name, source)| (name.as_str(), source.value(record).into_owned()));
        values.filter(|(_, value)| !value.is_empty()).collect()
    }

    /// The stream's selector, `{a="b"}`, as Loki wants it in a push request.
    pub fn selector(&self, record: &Record<'_>, out: &mut String) {
        out.push('{');
        for (name, source) in &self.labels {
            let value = source.value(record);
            if value.is_empty() {
                continue;
            }
            if out.len() > 1 {
                out.push_str(", ");
            }
            out.push_str(name);
            out.push_str("=\"");
            for c in value.chars() {
                match c {
                    '"' => out.push_str("\\\""),
                    '\\' => out.push_str("\\\\"),
                    '\n' => out.push_str("\\n"),
                    c if c.is_control() => out.push(' '),
                    c => out.push(c),
                }
            }
            out.push('"');
        }
        // Loki refuses a stream without labels.
        if out.len() == 1 {
            out.push_str("service=\"unknown\"");
        }
        out.push('}');
    }

    /// `logproto.PushRequest`, not compressed yet.
    pub fn push_request(&self, batch: &[Record<'_>]) -> Vec<u8> {
        let mut index: HashMap<String, usize> = HashMap::new();
        let mut streams: Vec<Stream<'_, '_>> = Vec::new();
        let mut selector = String::new();
        for record in batch {
            selector.clear();
            self.selector(record, &mut selector);
            let at = match index.get(&selector) {
                Some(at) => *at,
                None => {
                    let len = wire::field_len(selector.len());
                    index.insert(selector.clone(), streams.len());
                    streams.push(Stream { selector: selector.clone(), entries: Vec::new(), len });
                    streams.len() - 1
                }
            };
            let entry = Entry::new(record);
            streams[at].len += wire::field_len(entry.len);
            streams[at].entries.push(entry);
        }
        let mut out =
            Vec::with_capacity(streams.iter().map(|stream| wire::field_len(stream.len)).sum());
        for stream in &streams {
            wire::header(&mut out, 1, stream.len);
            wire::bytes(&mut out, 1, stream.selector.as_bytes());
            stream.entries.iter().for_each(|entry| entry.write(&mut out));
        }
        out
    }
}

/// A stream of a request: its length is known before it is written, so that nothing is copied twice.
struct Stream<'r, 'b> {
    selector: String,
    entries: Vec<Entry<'r, 'b>>,
    len: usize,
}

/// An `EntryAdapter`, field 2 of its stream.
struct Entry<'r, 'b> {
    record: &'r Record<'b>,
    seconds: u64,
    nanos: u64,
    len: usize,
}

/// Of 16 and of 8 bytes, in hexadecimal.
const TRACE: usize = 32;
const SPAN: usize = 16;

impl<'r, 'b> Entry<'r, 'b> {
    fn new(record: &'r Record<'b>) -> Entry<'r, 'b> {
        let seconds = record.timestamp.div_euclid(1_000_000_000) as u64;
        let nanos = record.timestamp.rem_euclid(1_000_000_000) as u64;
        let time = wire::number_len(seconds) + wire::number_len(nanos);
        let metadata = [
            ("decision_id", record.decision_id.len()),
            ("policy", record.policy.len()),
            ("span_id", SPAN),
            ("trace_id", TRACE),
        ];
        let metadata: usize =
            metadata.iter().map(|(name, value)| wire::field_len(pair_len(name, *value))).sum();
        let len = wire::field_len(time) + wire::field_len(record.raw.len()) + metadata;
        Entry { record, seconds, nanos, len }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let Entry { record, seconds, nanos, len } = self;
        wire::header(out, 2, *len);
        wire::header(out, 1, wire::number_len(*seconds) + wire::number_len(*nanos));
        wire::number(out, 1, *seconds);
        wire::number(out, 2, *nanos);
        wire::bytes(out, 2, record.raw.as_bytes());
        let mut pair = |name: &str, len, value: &dyn Fn(&mut Vec<u8>)| {
            wire::header(out, 3, pair_len(name, len));
            wire::bytes(out, 1, name.as_bytes());
            wire::header(out, 2, len);
            value(out);
        };
        let (id, policy) = (record.decision_id.as_bytes(), record.policy.as_bytes());
        pair("decision_id", id.len(), &|out| out.extend_from_slice(id));
        pair("policy", policy.len(), &|out| out.extend_from_slice(policy));
        pair("span_id", SPAN, &|out| push_hex(out, &record.span_id.to_bytes()));
        pair("trace_id", TRACE, &|out| push_hex(out, &record.trace_id.to_bytes()));
    }
}

fn pair_len(name: &str, value: usize) -> usize {
    wire::field_len(name.len()) + wire::field_len(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::event::Event;
    use crate::decision::label;
    use crate::decision::record::{self, Rules};

    #[test]
    fn entries_are_grouped_by_stream_and_carry_what_is_looked_up() {
        let docs = [("a", "true"), ("b", "false"), ("a", "true")].map(|(app, result)| {
            let doc = format!(
                r#"{{"decision_id":"d-{app}","labels":{{"app":"{app}\"\n"}},"path":"p/allow","result":{result},"timestamp":"2026-11-24T12:48:50.000000007Z"}}"#
            );
            let mut out = Vec::new();
            record::write(&Event::parse(doc.as_bytes()).unwrap(), &[], None, &Rules::default(), &mut out);
            out
        });
        let records: Vec<Record> = docs.iter().map(|d| Record::parse(d).unwrap()).collect();
        let labels = [("service", "service"), ("verdict", "verdict"), ("env", "=prod")];
        let encoder = Encoder {
            labels: labels
                .iter()
                .map(|(n, s)| (n.to_string(), label::source(s).unwrap()))
                .collect(),
        };
        let request = PushRequest::decode(&*encoder.push_request(&records)).unwrap();

        let streams: Vec<_> =
            request.streams.iter().map(|s| (s.labels.as_str(), s.entries.len())).collect();
        assert_eq!(
            streams,
            [
                (r#"{service="a\"\n", verdict="allow", env="prod"}"#, 2),
                (r#"{service="b\"\n", verdict="deny", env="prod"}"#, 1)
            ]
        );
        let entry = &request.streams[1].entries[0];
        assert_eq!(entry.line.as_bytes(), docs[1]);
        let time = entry.timestamp.as_ref().unwrap();
        assert_eq!((time.seconds, time.nanos), (1_795_524_530, 7));
        let metadata: Vec<_> =
            entry.metadata.iter().map(|m| (m.name.as_str(), m.value.as_str())).collect();
        assert_eq!(metadata[..2], [("decision_id", "d-b"), ("policy", "p/allow")]);
        assert_eq!(
            metadata.iter().map(|m| m.0).collect::<Vec<_>>(),
            ["decision_id", "policy", "span_id", "trace_id"]
        );
    }

    use prost::Message;

    #[derive(prost::Message)]
    struct PushRequest {
        #[prost(message, repeated, tag = "1")]
        streams: Vec<Stream>,
    }

    #[derive(prost::Message)]
    struct Stream {
        #[prost(string, tag = "1")]
        labels: String,
        #[prost(message, repeated, tag = "2")]
        entries: Vec<Entry>,
    }

    #[derive(prost::Message)]
    struct Entry {
        #[prost(message, optional, tag = "1")]
        timestamp: Option<Time>,
        #[prost(string, tag = "2")]
        line: String,
        #[prost(message, repeated, tag = "3")]
        metadata: Vec<Pair>,
    }

    #[derive(prost::Message)]
    struct Time {
        #[prost(int64, tag = "1")]
        seconds: i64,
        #[prost(int32, tag = "2")]
        nanos: i32,
    }

    #[derive(prost::Message)]
    struct Pair {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        value: String,
    }
}
