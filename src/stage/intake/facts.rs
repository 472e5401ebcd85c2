//! Facts: what becomes of a record that says what requests did, and what is counted of it.

use prometheus::{IntCounterVec, Registry};

use super::transaction::TopicTally;
use crate::correlate::Key;
use crate::decision::formats::Limits;
use crate::decision::reject::{Reason, Reject};
use crate::facts::{Format, Piece, read_as};
use crate::telemetry::Families;

/// What is counted of facts.
#[derive(Clone)]
pub struct FactMeters {
    records: IntCounterVec,
    facts: IntCounterVec,
    keyless: IntCounterVec,
}

impl FactMeters {
    pub fn new(pipeline: &str, registry: &Registry) -> Result<FactMeters, prometheus::Error> {
        let all = Families { pipeline, registry };
        Ok(FactMeters {
            records: all.counter(
                "docket_facts_records_total",
                "Kafka records read that say what requests did.",
                &["topic"],
            )?,
            facts: all.counter(
                "docket_facts_total",
                "Facts about requests that were read for the join: access_log, span or audit.",
                &["topic", "kind"],
            )?,
            keyless: all.counter(
                "docket_facts_keyless_total",
                "Facts without any ID by which they could meet a decision.",
                &["topic"],
            )?,
        })
    }

    pub(super) fn count(&self, topic: &str, tally: &TopicTally) {
        self.records.with_label_values(&[topic]).inc_by(tally.records);
        self.keyless.with_label_values(&[topic]).inc_by(tally.keyless);
        for (kind, count) in &tally.facts {
            self.facts.with_label_values(&[topic, kind.as_str()]).inc_by(*count);
        }
    }
}

/// What becomes of a part of a record.
pub(super) enum Found<'p> {
    Fact { kind: crate::facts::Kind, key: Option<String>, bytes: &'p [u8] },
    Reject(Reject),
}

/// Tells what is in a record, piece by piece. What can't be read of it is one reject, with the whole record. `quote` is
/// whether values of it may be told.
pub(super) fn facts(
    value: &[u8],
    source: (Format, Key),
    limits: &Limits,
    quote: bool,
    out: &mut Vec<u8>,
    take: &mut dyn FnMut(usize, Found<'_>),
) {
    let (format, key) = source;
    let (mut element, mut bad) = (0, Vec::new());
    let mut more = 0;
    read_as(value, format, limits, &mut |piece| match piece {
        Piece::Ignored => {}
        Piece::Fact(fact) => {
            out.clear();
            fact.pack(out);
            let key = key.of_fact(&fact).map(std::borrow::Cow::into_owned);
            take(element, Found::Fact { kind: fact.kind, key, bytes: out });
            element += 1;
        }
        Piece::Bad(_) if bad.len() == 3 => more += 1,
        Piece::Bad(what) => bad.push(if quote { what.to_string() } else { what.place }),
    });
    if !bad.is_empty() {
        let mut detail = bad.join("; ");
        if more > 0 {
            detail.push_str(&format!("; and {more} more"));
        }
        take(element, Found::Reject(Reject::new(Reason::BadFact, detail)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(value: &str, quote: bool) -> Vec<String> {
        let mut told = Vec::new();
        let source = (Format::AccessLog, Key::RequestId);
        let take = &mut |element, found: Found<'_>| {
            told.push(match found {
                Found::Fact { key, .. } => format!("{element} {}", key.unwrap_or_default()),
                Found::Reject(reject) => format!("{element} {reject}"),
            });
        };
        facts(value.as_bytes(), source, &Limits::default(), quote, &mut Vec::new(), take);
        told
    }

    #[test]
    fn what_is_bad_in_a_record_is_one_reject_beside_its_facts() {
        let good =
            r#"{"start_time":"2026-11-24T12:48:50Z","response_code":200,"request_id":"r-1"}"#;
        let bad = r#"{"start_time":"noon","response_code":200}"#;
        let value = format!("{good}\n{bad}\n{good}\n{}", format!("{bad}\n").repeat(4));
        let [first, second, reject] = &all(&value, true)[..] else { panic!() };
        assert_eq!((&**first, &**second), ("0 r-1", "1 r-1"));
        assert!(reject.starts_with("2 bad_fact: object 1, start_time: not a time"), "{reject}");
        assert!(reject.ends_with("; and 2 more"), "{reject}");
        assert!(all(&value, false).iter().all(|told| !told.contains("noon")));
        assert!(all("  ", true).is_empty());
    }
}
