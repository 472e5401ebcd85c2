//! How many values stand in an OTLP request, before it is read: read, the smallest takes a hundred times its bytes.

/// A message of an OTLP request, as far as there are others in it.
#[derive(Clone, Copy)]
enum Kind {
    Request,
    ResourceLogs,
    Resource,
    ScopeLogs,
    Scope,
    LogRecord,
    KeyValue,
    AnyValue,
    List,
    KeyValues,
    Leaf,
}

impl Kind {
    /// What a member of it is, by its number in opentelemetry-proto.
    fn member(self, number: u64) -> Kind {
        match (self, number) {
            (Kind::Request, 1) => Kind::ResourceLogs,
            (Kind::ResourceLogs, 1) => Kind::Resource,
            (Kind::ResourceLogs, 2) => Kind::ScopeLogs,
            (Kind::ScopeLogs, 1) => Kind::Scope,
            (Kind::ScopeLogs, 2) => Kind::LogRecord,
            (Kind::Resource | Kind::KeyValues, 1) | (Kind::Scope, 3) | (Kind::LogRecord, 6) => {
                Kind::KeyValue
            }
            (Kind::LogRecord, 5) | (Kind::KeyValue, 2) | (Kind::List, 1) => Kind::AnyValue,
            (Kind::AnyValue, 5) => Kind::List,
            (Kind::AnyValue, 6) => Kind::KeyValues,
            _ => Kind::Leaf,
        }
    }
}

/// Deeper than this no reader of protobuf goes.
const DEEPEST: usize = 100;

/// Whether a request in protobuf has at most so many values. One that is malformed has few.
pub(super) fn protobuf(bytes: &[u8], most: usize) -> bool {
    let mut left = most;
    fits(Kind::Request, bytes, DEEPEST, &mut left)
}

fn fits(kind: Kind, mut bytes: &[u8], depth: usize, left: &mut usize) -> bool {
    while let Some(tag) = varint(&mut bytes) {
        let length = match tag & 7 {
            0 => {
                varint(&mut bytes);
                continue;
            }
            1 => 8,
            2 => varint(&mut bytes).unwrap_or(0),
            5 => 4,
            // A group, or nothing that there is: whoever reads it will say so.
            _ => return true,
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some((content, rest)) = bytes.split_at_checked(length) else { return true };
        bytes = rest;
        if tag & 7 != 2 {
            continue;
        }
        let Some(fewer) = left.checked_sub(1) else { return false };
        *left = fewer;
        let member = kind.member(tag >> 3);
        if depth > 0 && !matches!(member, Kind::Leaf) && !fits(member, content, depth - 1, left) {
            return false;
        }
    }
    true
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Whether a JSON text has at most so many values.
pub(super) fn json(bytes: &[u8], most: usize) -> bool {
    // The shortest takes two bytes.
    if bytes.len() / 2 <= most {
        return true;
    }
    let (mut values, mut at) = (0, 0);
    while let Some(found) = bytes.get(at) {
        match found {
            b',' | b'[' | b'{' => {
                values += 1;
                if values > most {
                    return false;
                }
            }
            b'"' => at = end_of_string(bytes, at),
            _ => {}
        }
        at += 1;
    }
    true
}

/// Where the string ends that begins at `at`: the place of its second quote.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    loop {
        at += 1;
        match memchr::memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default()) {
            None => return bytes.len(),
            Some(more) => at += more,
        }
        if bytes[at] == b'"' {
            return at;
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, any_value::Value};
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use prost::Message;

    use super::*;

    fn request(records: Vec<LogRecord>) -> Vec<u8> {
        let scope = ScopeLogs { log_records: records, ..ScopeLogs::default() };
        let resource = ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() };
        ExportLogsServiceRequest { resource_logs: vec![resource] }.encode_to_vec()
    }

    #[test]
    fn what_takes_much_more_once_it_is_read_is_counted_before() {
        let bytes = request(vec![LogRecord::default(); 1000]);
        // The records, the one that holds them, and the one that holds that.
        assert!(protobuf(&bytes, 1002) && !protobuf(&bytes, 1001));
        let values = vec![AnyValue { value: None }; 500];
        let body = AnyValue { value: Some(Value::ArrayValue(ArrayValue { values })) };
        let bytes = request(vec![LogRecord { body: Some(body), ..LogRecord::default() }]);
        assert!(protobuf(&bytes, 600) && !protobuf(&bytes, 400));
        // What is no protobuf has nothing in it.
        for bytes in
            [&b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..], b"\x0b", b"\x0a\x05a", b"{}"]
        {
            assert!(protobuf(bytes, 1), "{bytes:?}");
        }
    }

    #[test]
    fn values_of_json_are_counted_outside_of_strings() {
        let text = br#"[{"a":"[,[,[,[,[,[,[,[,[,[,\",{,{,{"},1,2]"#;
        assert!(json(text, 4) && !json(text, 3));
        assert!(!json(br#"[,,,,,,,,,"never ended"#, 3));
        assert!(json(br#"["never ended ,,,,,,,,,,,,,,"#, 3));
    }
}
