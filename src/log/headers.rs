//! The Kafka headers that docket writes. Where a record came from travels in headers, not in the record,
//! so that repeats of a decision are byte-identical.

use rdkafka::message::{Header, Headers, Message, OwnedHeaders};

use crate::caught::answered;

/// Of a docket record: topic/partition/offset/element in one header, since each header costs something on every decision.
pub const SOURCE: &str = "docket-source";
/// Of a reject, one by one.
pub const SOURCE_TOPIC: &str = "docket-source-topic";
pub const SOURCE_PARTITION: &str = "docket-source-partition";
pub const SOURCE_OFFSET: &str = "docket-source-offset";
/// Which decision of a record that held several, from 0.
pub const SOURCE_ELEMENT: &str = "docket-source-element";
/// When intake read it, RFC 3339.
pub const RECEIVED: &str = "docket-received";
/// Of a reject: where it was refused (`intake` or `deliver`), by which sink, why, and what exactly.
pub const STAGE: &str = "docket-stage";
pub const SINK: &str = "docket-sink";
pub const REASON: &str = "docket-reason";
pub const DETAIL: &str = "docket-detail";
/// The status that the sink answered with.
pub const STATUS: &str = "docket-status";
/// How often it was sent before it was given up.
pub const ATTEMPTS: &str = "docket-attempts";
/// Set when the reject was too large for the topic, so that only its start is kept; with the hash of the whole.
pub const TRUNCATED: &str = "docket-truncated";
pub const SHA256: &str = "docket-sha256";

/// A record's place in Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    pub element: usize,
}

pub fn add(headers: OwnedHeaders, key: &str, value: &str) -> OwnedHeaders {
    headers.insert(Header { key, value: Some(value) })
}

/// The headers of a docket record.
pub fn docket(origin: &Origin<'_>, received: &str) -> OwnedHeaders {
    let Origin { topic, partition, offset, element } = origin;
    let headers = add(
        OwnedHeaders::new_with_capacity(2),
        SOURCE,
        &format!("{topic}/{partition}/{offset}/{element}"),
    );
    add(headers, RECEIVED, received)
}

/// The place that the header of a docket record names.
pub fn place(source: &str) -> Option<Origin<'_>> {
    let mut parts = source.rsplitn(4, '/');
    let element = parts.next()?.parse().ok()?;
    let offset = parts.next()?.parse().ok()?;
    let partition = parts.next()?.parse().ok()?;
    Some(Origin { topic: parts.next()?, partition, offset, element })
}

/// The headers that can be read. Kafka takes names of any bytes, and rdkafka panics at those that are not UTF-8.
fn readable<H: Headers>(headers: &H) -> impl Iterator<Item = Header<'_, &[u8]>> {
    (0..headers.count()).filter_map(|at| answered(|| headers.try_get(at)).flatten())
}

/// The value of a message's header that is text.
pub fn text<'m, M: Message>(message: &'m M, name: &str) -> Option<&'m str> {
    let header = readable(message.headers()?).find(|header| header.key == name)?;
    std::str::from_utf8(header.value?).ok()
}

/// The headers of a reject that say where it came from.
pub fn origin(origin: &Origin<'_>, received: &str) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new_with_capacity(5);
    headers = add(headers, SOURCE_TOPIC, origin.topic);
    headers = add(headers, SOURCE_PARTITION, &origin.partition.to_string());
    headers = add(headers, SOURCE_OFFSET, &origin.offset.to_string());
    headers = add(headers, SOURCE_ELEMENT, &origin.element.to_string());
    add(headers, RECEIVED, received)
}

/// A message's headers that have a readable name and a value.
pub fn pairs<M: Message>(message: &M) -> Vec<(&str, &[u8])> {
    match message.headers() {
        None => Vec::new(),
        Some(headers) => readable(headers).filter_map(|h| Some((h.key, h.value?))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let origin = Origin { topic: "opa.decisions", partition: 3, offset: 1 << 40, element: 7 };
        let written = docket(&origin, "now");
        let text = std::str::from_utf8(written.get(0).value.unwrap()).unwrap().to_owned();
        assert_eq!(place(&text), Some(origin));
        for other in ["", "a", "a/b/c/d", "a/1/2", "1/2/3"] {
            assert_eq!(place(other), None, "{other}");
        }
    }
}
