//! The way of a record, from a producer's bytes to what becomes of each piece in them. Intake and the
//! cases of a pipeline file go this way.

use std::cell::Cell;

use crate::decision::formats::{self, Format, Ignored, Limits, Piece, Reading, Within};
use crate::decision::reject::Reject;
use crate::protect::record::{Made, Rules, make};

/// A record of a source topic.
#[derive(Debug, Clone, Copy)]
pub struct Source<'s> {
    pub value: &'s [u8],
    pub headers: &'s [(&'s str, &'s [u8])],
    pub format: Format,
    /// The member of an envelope that holds the decision, where the pipeline file names it.
    pub envelope: Option<&'s str>,
}

/// What becomes of a piece of a record.
#[derive(Debug)]
pub enum Product<'p> {
    /// It can't be a decision.
    Ignored(Ignored),
    /// A decision that the team's policy says not to record.
    Dropped,
    /// A docket record.
    Docket { made: Made, bytes: &'p [u8] },
    /// It goes to rejects, with its bytes.
    Reject { bytes: &'p [u8], reject: Reject },
}

/// Tells what becomes of each piece of a record, in their order, with its element: how many decisions and
/// rejects stood before it. What is ignored is not counted, since it goes nowhere. `refused` says of
/// decisions, by their element, that they go to rejects whatever they are; `out` is room to write to.
///
/// If it returns a reject, the record holds more than the limits allow: then the whole goes to rejects, and what was told of its
/// pieces doesn't count.
pub fn transform(
    source: Source<'_>,
    limits: &Limits,
    rules: &Rules,
    out: &mut Vec<u8>,
    refused: &dyn Fn(usize) -> Option<Reject>,
    take: &mut dyn FnMut(usize, Product<'_>),
) -> Option<Reject> {
    let within = Within { over: &Cell::new(false), among: None };
    transform_within(within, source, limits, rules, out, refused, take)
}

/// The same, within what stands around the record. A line whose parts came in several is the last one's.
pub fn transform_within(
    within: Within<'_>,
    source: Source<'_>,
    limits: &Limits,
    rules: &Rules,
    out: &mut Vec<u8>,
    refused: &dyn Fn(usize) -> Option<Reject>,
    take: &mut dyn FnMut(usize, Product<'_>),
) -> Option<Reject> {
    let mut element = 0;
    let reading = Reading { format: source.format, envelope: source.envelope };
    formats::split_within(within, source.value, reading, limits, &mut |piece| {
        match piece {
            Piece::Ignored(what) => return take(element, Product::Ignored(what)),
            Piece::Reject { bytes, reject } => {
                take(element, Product::Reject { bytes: &bytes, reject });
            }
            Piece::Decision { event, agent } => {
                out.clear();
                let made = match refused(element) {
                    Some(reject) => Err(reject),
                    None => make(&event, source.headers, agent.as_ref(), rules, out),
                };
                let product = match made {
                    Ok(Some(made)) => Product::Docket { made, bytes: out },
                    Ok(None) => Product::Dropped,
                    Err(reject) => Product::Reject { bytes: event.raw.as_bytes(), reject },
                };
                take(element, product);
            }
        }
        element += 1;
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::reject::Reason;

    #[test]
    fn lines_that_go_nowhere_take_no_element() {
        let decision =
            |id| format!(r#"{{"decision_id":"{id}","timestamp":"2026-11-24T12:48:50Z"}}"#);
        let log = r#"{"level":"info","msg":"ready","time":"2026-11-24T12:48:49Z"}"#;
        let lines = format!("{log}\n{}\n{log}\n{}\n", decision("a"), decision("b"));
        let value = lines.as_bytes();
        let source = Source { value, headers: &[], format: Format::Auto, envelope: None };
        let refused = |element| (element == 1).then(|| Reject::new(Reason::TooLarge, "told"));
        let mut seen = Vec::new();
        let (limits, rules) = (Limits::default(), Rules::default());
        transform(source, &limits, &rules, &mut Vec::new(), &refused, &mut |element, product| {
            match product {
                Product::Docket { made, .. } => seen.push((element, made.written.key)),
                Product::Reject { bytes, .. } => {
                    seen.push((element, String::from_utf8_lossy(bytes).into_owned()));
                }
                Product::Ignored(_) | Product::Dropped => {}
            }
        });
        assert_eq!(seen, [(0, "a".to_owned()), (1, decision("b"))]);
    }

    fn told(value: &[u8], limits: &Limits) -> (usize, Vec<Reason>, Option<Reject>) {
        let source = Source { value, headers: &[], format: Format::Auto, envelope: None };
        let (mut made, mut rejects) = (0, Vec::new());
        let take = &mut |_, product: Product<'_>| match product {
            Product::Docket { .. } => made += 1,
            Product::Reject { reject, .. } => rejects.push(reject.reason),
            _ => {}
        };
        let whole = transform(source, limits, &Rules::default(), &mut Vec::new(), &|_| None, take);
        (made, rejects, whole)
    }

    #[test]
    fn a_record_of_too_many_elements_is_told_as_a_whole() {
        let limits = Limits { elements: 1000, ..Limits::default() };
        let many = |n: usize| crate::gzip::gzip(format!("[{}]", vec!["1"; n].join(",")).as_bytes());
        let (_, rejects, whole) = told(&many(1000), &limits);
        assert_eq!((rejects.len(), whole), (1000, None));
        let (_, rejects, whole) = told(&many(1_000_000), &limits);
        assert_eq!(whole.unwrap().reason, Reason::TooLarge);
        assert!(rejects.len() <= 1000);
        // Lines of a log go nowhere, however many they are.
        let decision = r#"{"decision_id":"a","timestamp":"2026-11-24T12:48:50Z"}"#;
        let log = r#"{"level":"info","msg":"ready","time":"2026-11-24T12:48:49Z"}"#;
        let lines = format!("{}{decision}", format!("{log}\n").repeat(3000));
        assert_eq!(told(lines.as_bytes(), &limits), (1, Vec::new(), None));
    }

    #[test]
    fn what_is_compressed_many_times_in_one_record_expands_no_further_than_its_limit() {
        use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
        use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
        use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
        use prost::Message;
        let limits = Limits { record: 1 << 20, ..Limits::default() };
        let bomb = crate::gzip::gzip(&vec![b' '; 600 << 10]);
        let body = Some(AnyValue { value: Some(Value::BytesValue(bomb)) });
        let log_records = vec![LogRecord { body, ..LogRecord::default() }; 20];
        let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
        let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
        let value = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
        let (_, rejects, _) = told(&value, &limits);
        // The first is nothing but blanks, and there is no room for the others.
        assert_eq!(rejects, [Reason::TooLarge; 19]);
    }
}
