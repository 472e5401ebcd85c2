//! OTLP logs (opentelemetry-proto 1.x, `ExportLogsServiceRequest`), protobuf or JSON: the Collector's
//! Kafka exporter. The decision is the body, as text or as a structured value. Attributes of resource
//! and record are kept.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message;

use super::super::ids;
use super::super::json::{self, push_string};
use super::super::record::Agent;
use super::super::reject::Reason;
use super::agent::{self, Part};
use super::{Around, Format, Found, Opener, Piece, join, lines, marks, reject, weight};

const TOO_MANY: &str = "there are too many values in it";

pub(super) fn protobuf(bytes: &[u8], most: usize) -> Result<ExportLogsServiceRequest, String> {
    if !weight::protobuf(bytes, most) {
        return Err(TOO_MANY.into());
    }
    let request = ExportLogsServiceRequest::decode(bytes).map_err(|e| e.to_string())?;
    if request.resource_logs.is_empty() {
        return Err("it has no resource_logs".into());
    }
    Ok(request)
}

pub(super) fn from_json(bytes: &[u8], most: usize) -> Result<ExportLogsServiceRequest, String> {
    if !weight::json(bytes, most) {
        return Err(TOO_MANY.into());
    }
    serde_json::from_slice(bytes).map_err(|e| e.to_string())
}

pub(super) fn has_records(request: &ExportLogsServiceRequest) -> bool {
    let scopes = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
    scopes.flat_map(|scope| &scope.log_records).next().is_some()
}

pub(super) fn open(
    open: &mut Opener<'_>,
    request: ExportLogsServiceRequest,
    around: Around<'_>,
    found: &mut Found<'_>,
) {
    // What stands in a body is text, whatever the record was.
    let outside = std::mem::replace(&mut open.reading.format, Format::Json);
    for resource_logs in request.resource_logs {
        let resource =
            attributes(&resource_logs.resource.map(|r| r.attributes).unwrap_or_default());
        for scope_logs in resource_logs.scope_logs {
            for record in scope_logs.log_records {
                if open.is_over() {
                    break;
                }
                self::record(open, &resource, record, around, found);
            }
        }
    }
    open.reading.format = outside;
}

/// A log record: its body is the line, or its attributes are the decision.
fn record(
    open: &mut Opener<'_>,
    resource: &str,
    record: LogRecord,
    around: Around<'_>,
    found: &mut Found<'_>,
) {
    let attributes = attributes(&record.attributes);
    let said = format!("{{\"resource\":{resource},\"attributes\":{attributes}}}");
    let body = record.body.and_then(|body| body.value);
    // Names may stand twice in these lists, which a log store would keep either of.
    let sound = json::check(said.as_bytes());
    if sound.is_err() || marks::like(attributes.as_bytes()) {
        // Parsers put the line's members there, beside the line or instead of it.
        let mut whole = said.strip_suffix('}').unwrap_or_default().as_bytes().to_vec();
        whole.extend_from_slice(b",\"body\":");
        write(&mut whole, &AnyValue { value: body });
        whole.push(b'}');
        let whole = String::from_utf8(whole).expect("made of text");
        return match json::check(whole.as_bytes()) {
            // An envelope like others.
            Ok(()) => open.bytes(whole.as_bytes(), around.collected(), found),
            Err(error) => {
                found(Piece::Reject { bytes: whole.as_bytes().into(), reject: error.into() });
            }
        };
    }
    let text = |name| json::get(&attributes, name).and_then(json::as_str).unwrap_or_default();
    let of = text("log.iostream");
    let stream = [around.stream, &[agent::NAMED], resource.as_bytes(), of.as_bytes()].concat();
    let tag = text("logtag");
    let part = if tag.starts_with('P') { Some(Part::More) } else { None };
    let part = if tag.starts_with('F') { Some(Part::Last) } else { part };
    let agent = Agent { json: said };
    let around = Around { agent: Some(&agent), collected: true, stream: &stream };
    match body {
        None => reject(b"", Reason::Empty, "an OTLP log record without a body", found),
        Some(Any::StringValue(text)) if part.is_some() && !open.probing => {
            join::line(open, &text, part, around, found);
        }
        Some(Any::StringValue(text)) => {
            if open.probing || !lines::of_stream(open, &text, around, found) {
                open.bytes(text.as_bytes(), around, found);
            }
        }
        Some(Any::BytesValue(bytes)) => open.bytes(&bytes, around, found),
        Some(other) => {
            let mut value = Vec::new();
            write(&mut value, &AnyValue { value: Some(other) });
            open.bytes(&value, around, found);
        }
    }
}

/// Attributes as an object; names that stand twice stay so.
fn attributes(list: &[KeyValue]) -> String {
    let mut out = Vec::new();
    write_list(&mut out, list);
    String::from_utf8(out).expect("made of text")
}

fn write_list(out: &mut Vec<u8>, list: &[KeyValue]) {
    out.push(b'{');
    for (i, pair) in list.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_string(out, &pair.key);
        out.push(b':');
        match &pair.value {
            Some(value) => write(out, value),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
}

/// A structured value as JSON. Bytes become text where they are text, and hex where not.
fn write(out: &mut Vec<u8>, value: &AnyValue) {
    match &value.value {
        Some(Any::StringValue(s)) => push_string(out, s),
        Some(Any::BoolValue(b)) => out.extend_from_slice(b.to_string().as_bytes()),
        Some(Any::IntValue(i)) => out.extend_from_slice(i.to_string().as_bytes()),
        Some(Any::DoubleValue(d)) => {
            out.extend_from_slice(serde_json::Value::from(*d).to_string().as_bytes());
        }
        Some(Any::ArrayValue(array)) => {
            out.push(b'[');
            for (i, value) in array.values.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write(out, value);
            }
            out.push(b']');
        }
        Some(Any::KvlistValue(list)) => write_list(out, &list.values),
        Some(Any::BytesValue(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => push_string(out, text),
            Err(_) => push_string(out, &ids::hex(bytes)),
        },
        _ => out.extend_from_slice(b"null"),
    }
}
