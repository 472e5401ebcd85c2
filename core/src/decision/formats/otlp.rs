//! OTLP logs (opentelemetry-proto 1.x, `ExportLogsServiceRequest`), protobuf or JSON: the Collector's
//! Kafka exporter. The decision is the body, as text or as a structured value. Attributes of resource
//! and record are kept.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Any};
use prost::Message;
use serde_json::{Map, Value, json};

use super::super::record::Agent;
use super::super::reject::Reason;
use super::{Around, Format, Found, Opener, marks, object, reject, weight};

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

pub(super) fn json(bytes: &[u8], most: usize) -> Result<ExportLogsServiceRequest, String> {
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
        let resource = attributes(resource_logs.resource.map(|r| r.attributes).unwrap_or_default());
        for scope_logs in resource_logs.scope_logs {
            for record in scope_logs.log_records {
                if open.is_over() {
                    break;
                }
                let attributes = attributes(record.attributes);
                let stream = format!("{resource}{}", attributes["log.iostream"]);
                let said = attributes.to_string();
                let body = record.body.and_then(|body| body.value);
                if marks::like(said.as_bytes()) {
                    // Parsers put the line's members there, beside the line or instead of it.
                    let body =
                        body.map_or(Value::Null, |body| plain(AnyValue { value: Some(body) }));
                    let whole =
                        json!({ "resource": resource, "attributes": attributes, "body": body });
                    object::envelope(open, &whole.to_string(), around.collected(), found);
                    continue;
                }
                let agent = json!({ "resource": resource, "attributes": attributes });
                let agent = Agent { json: agent.to_string() };
                let around =
                    Around { agent: Some(&agent), collected: true, stream: stream.as_bytes() };
                match body {
                    None => reject(b"", Reason::Empty, "an OTLP log record without a body", found),
                    Some(Any::StringValue(text)) => open.bytes(text.as_bytes(), around, found),
                    Some(Any::BytesValue(bytes)) => open.bytes(&bytes, around, found),
                    Some(other) => {
                        let value = plain(AnyValue { value: Some(other) }).to_string();
                        open.bytes(value.as_bytes(), around, found);
                    }
                }
            }
        }
    }
    open.reading.format = outside;
}

fn attributes(list: Vec<KeyValue>) -> Value {
    let pairs = list.into_iter().map(|kv| (kv.key, kv.value.map_or(Value::Null, plain)));
    Value::Object(pairs.collect::<Map<_, _>>())
}

/// A structured value as JSON. Bytes become text where they are text, and hex where not.
fn plain(value: AnyValue) -> Value {
    match value.value {
        None => Value::Null,
        Some(Any::StringValue(s)) => s.into(),
        Some(Any::BoolValue(b)) => b.into(),
        Some(Any::IntValue(i)) => i.into(),
        Some(Any::DoubleValue(d)) => json!(d),
        Some(Any::ArrayValue(a)) => a.values.into_iter().map(plain).collect(),
        Some(Any::KvlistValue(l)) => attributes(l.values),
        Some(Any::BytesValue(b)) => {
            String::from_utf8(b).unwrap_or_else(|e| super::super::ids::hex(e.as_bytes())).into()
        }
        Some(_) => Value::Null,
    }
}
