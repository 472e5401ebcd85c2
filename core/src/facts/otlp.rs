//! Spans and access logs as OpenTelemetry writes them (opentelemetry-proto 1.x): the Collector's Kafka exporter,
//! Envoy's OpenTelemetry access logger; protobuf and JSON. Semantic conventions old and new.

use std::borrow::Cow;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use prost::Message;

use super::fields::{Fields, text_of};
use super::{BadFact, Kind, Marks, NOTHING, Piece};
use crate::decision::ids::{SpanId, TraceId};
use crate::decision::json;
use crate::decision::time::Nanos;

/// Whether it was OTLP.
pub fn protobuf(value: &[u8], take: &mut dyn FnMut(Piece<'_>)) -> bool {
    // The two requests look alike down to the ids of a span, whose wire types differ.
    if let Ok(request) = ExportTraceServiceRequest::decode(value)
        && request.resource_spans.iter().any(|r| !r.scope_spans.is_empty())
    {
        spans(&request, "", take);
        return true;
    }
    match ExportLogsServiceRequest::decode(value) {
        Ok(request) if !request.resource_logs.is_empty() => {
            logs(&request, "", take);
            true
        }
        _ => false,
    }
}

pub fn json(text: &str, place: &str, take: &mut dyn FnMut(Piece<'_>)) {
    let at = if place == "record" { String::new() } else { format!("{place}, ") };
    let result = if json::get(text, "resourceSpans").is_some() {
        serde_json::from_str(text).map(|request| spans(&request, &at, take))
    } else {
        serde_json::from_str(text).map(|request| logs(&request, &at, take))
    };
    if let Err(e) = result {
        take(Piece::Bad(BadFact::new(place, format!("not OTLP: {e}"))));
    }
}

fn spans(request: &ExportTraceServiceRequest, at: &str, take: &mut dyn FnMut(Piece<'_>)) {
    for (i, resource) in request.resource_spans.iter().enumerate() {
        let attributes = resource.resource.as_ref().map_or(&[][..], |r| &r.attributes);
        for (j, scope) in resource.scope_spans.iter().enumerate() {
            for (k, found) in scope.spans.iter().enumerate() {
                let place = || format!("{at}resourceSpans[{i}].scopeSpans[{j}].spans[{k}]");
                span(found, attributes, &place, take);
            }
        }
    }
}

fn span(
    span: &Span,
    resource: &[KeyValue],
    place: &dyn Fn() -> String,
    take: &mut dyn FnMut(Piece<'_>),
) {
    let bad = |problem: &str| Piece::Bad(BadFact::new(place(), problem));
    let (Some(trace), Some(id)) = (trace_id(&span.trace_id), span_id(&span.span_id)) else {
        return take(bad("traceId or spanId is missing or not of its length"));
    };
    if span.start_time_unix_nano == 0 {
        return take(bad("startTimeUnixNano is missing"));
    }
    let mut fields = Fields::default();
    // What can't be read of a span's attributes is not needed: it is no evidence.
    for attribute in &span.attributes {
        // OPA's own span has the ID of what it decided.
        if attribute.key == "opa.decision_id" {
            fields.marks = fields.marks.with(Marks::ASKING);
            continue;
        }
        if let Some(text) = plain(attribute.value.as_ref())
            && attribute.key != "code"
            && attribute.key != "status"
        {
            _ = fields.put(&attribute.key, text);
        }
    }
    service(resource, &mut fields);
    fields.trace = Some(trace);
    fields.span = Some(id);
    fields.parent = span_id(&span.parent_span_id);
    fields.start = Some(nanos(span.start_time_unix_nano));
    fields.end = Some(nanos(span.end_time_unix_nano.max(span.start_time_unix_nano)));
    // Envoy's ext_authz filter asks with one, and the plugin answers with one.
    if span.name.contains("envoy.service.auth.v") {
        fields.marks = fields.marks.with(Marks::ASKING);
    }
    if span.kind == SpanKind::Server as i32 {
        fields.marks = fields.marks.with(Marks::SERVER);
    }
    if let Some(mut fact) = fields.fact(Kind::Span) {
        // OPA's API, of whoever calls it.
        if ["/v1/data/", "/v0/data/"].iter().any(|api| fact.path.starts_with(api)) {
            fact.marks = fact.marks.with(Marks::ASKING);
        }
        take(Piece::Fact(fact));
    }
}

fn logs(request: &ExportLogsServiceRequest, at: &str, take: &mut dyn FnMut(Piece<'_>)) {
    for (i, resource) in request.resource_logs.iter().enumerate() {
        let attributes = resource.resource.as_ref().map_or(&[][..], |r| &r.attributes);
        for (j, scope) in resource.scope_logs.iter().enumerate() {
            for (k, record) in scope.log_records.iter().enumerate() {
                let place = format!("{at}resourceLogs[{i}].scopeLogs[{j}].logRecords[{k}]");
                if let Err(bad) = log(record, attributes, take) {
                    let place =
                        if bad.0.is_empty() { place } else { format!("{place}, {}", bad.0) };
                    take(Piece::Bad(BadFact::new(place, bad.1)));
                }
            }
        }
    }
}

/// A log record whose attributes or body are the members of an access log.
fn log(
    record: &LogRecord,
    resource: &[KeyValue],
    take: &mut dyn FnMut(Piece<'_>),
) -> Result<(), (String, String)> {
    let mut fields = Fields::default();
    let body = record.body.as_ref().and_then(|body| body.value.as_ref());
    if let Some(Any::StringValue(text)) = body
        && let Ok(members) = json::parse_object(text.trim().as_bytes())
    {
        for member in members {
            if let Some(text) = text_of(member.value) {
                fields.put(&member.key(), text)?;
            }
        }
    }
    let listed = match body {
        Some(Any::KvlistValue(list)) => &list.values[..],
        _ => &[],
    };
    for attribute in record.attributes.iter().chain(listed) {
        if let Some(text) = plain(attribute.value.as_ref()) {
            fields.put(&attribute.key, text)?;
        }
    }
    service(resource, &mut fields);
    fields.trace = fields.trace.or_else(|| trace_id(&record.trace_id));
    fields.span = fields.span.or_else(|| span_id(&record.span_id));
    // Envoy stamps the record with the request's start.
    let stamped = [record.time_unix_nano, record.observed_time_unix_nano];
    fields.start = fields.start.or(stamped.into_iter().find(|t| *t > 0).map(nanos));
    if !fields.is_request() {
        return Err((String::new(), NOTHING.to_owned()));
    }
    let fact = fields.fact(Kind::Access);
    take(Piece::Fact(fact.ok_or(("timeUnixNano".to_owned(), "it has no time".to_owned()))?));
    Ok(())
}

fn service<'a>(resource: &'a [KeyValue], fields: &mut Fields<'a>) {
    for attribute in resource {
        if let Some(text) = plain(attribute.value.as_ref()) {
            match attribute.key.as_str() {
                "service.name" => fields.service.put(5, text),
                "cluster_name" => fields.service.put(3, text),
                _ => {}
            }
        }
    }
}

fn plain(value: Option<&AnyValue>) -> Option<Cow<'_, str>> {
    match value?.value.as_ref()? {
        Any::StringValue(text) => Some(Cow::Borrowed(text)),
        Any::IntValue(n) => Some(Cow::Owned(n.to_string())),
        Any::BoolValue(b) => Some(Cow::Borrowed(if *b { "true" } else { "false" })),
        Any::DoubleValue(d) => Some(Cow::Owned(d.to_string())),
        Any::ArrayValue(list) => plain(list.values.first()),
        _ => None,
    }
}

fn trace_id(bytes: &[u8]) -> Option<TraceId> {
    let id = TraceId::from_bytes(bytes.try_into().ok()?);
    (id != TraceId::INVALID).then_some(id)
}

fn span_id(bytes: &[u8]) -> Option<SpanId> {
    let id = SpanId::from_bytes(bytes.try_into().ok()?);
    (id != SpanId::INVALID).then_some(id)
}

fn nanos(unix: u64) -> Nanos {
    Nanos::try_from(unix).unwrap_or(Nanos::MAX)
}
