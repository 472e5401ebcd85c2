//! Trace contexts in headers, each format as its specification says: W3C Trace Context (`traceparent`), B3 single and
//! multi header, AWS X-Ray (`X-Amzn-Trace-Id`), Jaeger (`uber-trace-id`), Datadog (`x-datadog-trace-id`) and Google Cloud
//! (`X-Cloud-Trace-Context`). Names are case-insensitive.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::ids::{self, SpanId, TraceId};
use super::super::json;
use super::Context;

pub(super) type Headers<'a> = Vec<(Header, Cow<'a, str>)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    Traceparent,
    B3,
    B3TraceId,
    B3SpanId,
    Amzn,
    Uber,
    DatadogTraceId,
    DatadogParentId,
    DatadogTags,
    Cloud,
}

pub(super) fn known(name: &str) -> Option<Header> {
    const NAMES: [(&str, Header); 10] = [
        ("traceparent", Header::Traceparent),
        ("b3", Header::B3),
        ("x-b3-traceid", Header::B3TraceId),
        ("x-b3-spanid", Header::B3SpanId),
        ("x-amzn-trace-id", Header::Amzn),
        ("uber-trace-id", Header::Uber),
        ("x-datadog-trace-id", Header::DatadogTraceId),
        ("x-datadog-parent-id", Header::DatadogParentId),
        ("x-datadog-tags", Header::DatadogTags),
        ("x-cloud-trace-context", Header::Cloud),
    ];
    NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, header)| *header)
}

/// A header that stands there more often has at most so many values.
const MAX_VALUES: usize = 8;

/// The trace headers in a JSON object of headers, a value being a string or an array of strings; or in Envoy's array of
/// raw headers, each with its key and its value, plain or in base64.
pub(super) fn json_headers(raw: &str) -> Headers<'_> {
    let mut out = Headers::new();
    for member in json::members(raw) {
        let Some(header) = known(&member.key()) else { continue };
        if member.value.starts_with('[') {
            let values = json::elements(member.value).filter_map(text_or_number);
            out.extend(values.take(MAX_VALUES).map(|value| (header, value)));
        } else if let Some(value) = text_or_number(member.value) {
            out.push((header, value));
        }
    }
    for element in json::elements(raw) {
        let text = |name| json::get(element, name).and_then(json::as_str);
        let Some(header) = text("key").as_deref().and_then(known) else { continue };
        let plain = text("value").filter(|value| !value.is_empty());
        let value = plain.or_else(|| {
            let encoded = text("raw_value").or_else(|| text("rawValue"))?;
            let bytes = STANDARD.decode(encoded.as_bytes()).ok()?;
            String::from_utf8(bytes).ok().map(Cow::Owned)
        });
        out.extend(value.map(|value| (header, value)));
    }
    out
}

/// A header's value. Who reads Datadog's decimal ids makes numbers of them; what their digits are still stands there.
fn text_or_number(raw: &str) -> Option<Cow<'_, str>> {
    let digits = raw.bytes().all(|b| b.is_ascii_digit());
    if digits { Some(Cow::Borrowed(raw)) } else { json::as_str(raw) }
}

/// Reads the contexts; what is malformed is counted, and so is a second `traceparent` that names another trace.
pub(super) fn in_headers(
    headers: &Headers<'_>,
    malformed: &mut u32,
    add: &mut impl FnMut(Context),
) {
    if headers.is_empty() {
        return;
    }
    let values = |wanted: Header| {
        let of = headers.iter().filter(move |(header, _)| *header == wanted);
        of.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    };
    let first = |wanted: Header| values(wanted).next();
    let mut trace = None;
    // Proxies join headers of one name with commas.
    let all = values(Header::Traceparent).flat_map(|value| value.split(',').map(str::trim));
    for value in all.filter(|value| !value.is_empty()).take(MAX_VALUES) {
        match traceparent(value) {
            Parsed::Context(context) => {
                *malformed += u32::from(trace.is_some_and(|trace| trace != context.trace));
                trace.get_or_insert(context.trace);
                add(context);
            }
            Parsed::Partly(_) | Parsed::Absent => {}
            Parsed::Malformed => *malformed += 1,
        }
    }
    let mut read = |parsed: Parsed| match parsed {
        Parsed::Context(context) => {
            add(context);
            true
        }
        Parsed::Partly(context) => {
            *malformed += 1;
            add(context);
            true
        }
        Parsed::Absent => true,
        Parsed::Malformed => {
            *malformed += 1;
            false
        }
    };
    // The first value that is one.
    values(Header::B3).any(|value| read(b3_single(value)));
    values(Header::B3TraceId).any(|trace| read(b3_multi(trace, first(Header::B3SpanId))));
    values(Header::Amzn).any(|value| read(amzn(value)));
    values(Header::Uber).any(|value| read(uber(value)));
    values(Header::DatadogTraceId).any(|trace| {
        read(datadog(trace, first(Header::DatadogParentId), first(Header::DatadogTags)))
    });
    values(Header::Cloud).any(|value| read(cloud(value)));
}

enum Parsed {
    Context(Context),
    /// The trace is known; what stands where its span should is no id.
    Partly(Context),
    /// The header says that there is none, or only whether to sample.
    Absent,
    Malformed,
}

fn parsed(trace: Option<TraceId>, span: Option<SpanId>) -> Parsed {
    match (trace, span) {
        (Some(trace), Some(span)) => Parsed::Context(Context { trace, span: Some(span) }),
        _ => Parsed::Malformed,
    }
}

/// W3C Trace Context level 2, section 3.2: version "-" trace-id "-" parent-id "-" trace-flags, lower case
/// hex. A later version may have more after the flags.
fn traceparent(value: &str) -> Parsed {
    let mut parts = value.split('-');
    let (Some(version), Some(trace), Some(span), Some(flags)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Parsed::Malformed;
    };
    let hex = |s: &str, len: usize| {
        s.len() == len && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let rest = parts.next();
    if !hex(version, 2)
        || version == "ff"
        || !hex(flags, 2)
        || (version == "00" && rest.is_some())
        || !hex(trace, 32)
        || !hex(span, 16)
    {
        return Parsed::Malformed;
    }
    parsed(ids::trace_id(trace), ids::span_id(span))
}

/// A 64-bit trace id is padded on the left.
fn padded(trace: &str) -> Option<TraceId> {
    if trace.is_empty() || trace.len() > 32 {
        return None;
    }
    ids::trace_id(&format!("{trace:0>32}"))
}

/// openzipkin/b3-propagation: {trace id}-{span id}[-{sampling}[-{parent}]], or a sampling decision alone.
fn b3_single(value: &str) -> Parsed {
    if matches!(value, "0" | "1" | "d") {
        return Parsed::Absent;
    }
    let mut parts = value.split('-');
    match (parts.next(), parts.next()) {
        (Some(trace), Some(span)) if matches!(trace.len(), 16 | 32) => {
            parsed(padded(trace), ids::span_id(span))
        }
        _ => Parsed::Malformed,
    }
}

fn b3_multi(trace: &str, span: Option<&str>) -> Parsed {
    match span {
        Some(span) if matches!(trace.len(), 16 | 32) => parsed(padded(trace), ids::span_id(span)),
        _ => Parsed::Malformed,
    }
}

/// AWS X-Ray: Root=1-{8 hex}-{24 hex};Parent={16 hex};Sampled=.., with leading zeros left out or not; a load balancer
/// sends no Parent, and without a usable one Root's trace is known all the same.
fn amzn(value: &str) -> Parsed {
    let mut root = None;
    let mut parent = None;
    for field in value.split(';') {
        match field.trim().split_once('=') {
            Some((name, value)) if name.trim().eq_ignore_ascii_case("root") => {
                root = Some(value.trim());
            }
            Some((name, value)) if name.trim().eq_ignore_ascii_case("parent") => {
                parent = Some(value.trim());
            }
            _ => {}
        }
    }
    let mut parts = root.unwrap_or_default().split('-');
    let trace = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("1"), Some(time), Some(unique), None)
            if (1..=8).contains(&time.len()) && (1..=24).contains(&unique.len()) =>
        {
            ids::trace_id(&format!("{time:0>8}{unique:0>24}"))
        }
        _ => None,
    };
    match trace {
        Some(trace) => {
            let parent = parent.filter(|parent| !parent.is_empty());
            spanned(trace, parent.map(ids::span_id))
        }
        None => Parsed::Malformed,
    }
}

/// Jaeger: {trace id}:{span id}:{parent}:{flags}, hex without leading zeros, sometimes percent-encoded.
fn uber(value: &str) -> Parsed {
    // By a proxy, once more.
    let value = value.replace("%25", "%").replace("%3A", ":").replace("%3a", ":");
    let mut parts = value.split(':');
    match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(trace), Some(span), Some(_), Some(_), None)
            if !span.is_empty() && span.len() <= 16 =>
        {
            parsed(padded(trace), ids::span_id(&format!("{span:0>16}")))
        }
        _ => Parsed::Malformed,
    }
}

/// Datadog: the lower half of the trace id and the span id as decimal numbers; the upper half, where there is one, as hex
/// in the tags.
fn datadog(trace: &str, span: Option<&str>, tags: Option<&str>) -> Parsed {
    let Ok(low) = trace.parse::<u64>() else { return Parsed::Malformed };
    let tag = tags.into_iter().flat_map(|tags| tags.split(','));
    let high = tag
        .filter_map(|tag| tag.trim().strip_prefix("_dd.p.tid="))
        .find_map(|hex| (hex.len() == 16).then(|| u64::from_str_radix(hex, 16).ok())?)
        .unwrap_or(0);
    decimal(ids::trace_id(&format!("{high:016x}{low:016x}")), span)
}

/// Google Cloud: {32 hex}/{decimal span id};o={options}; the span may be missing or 0.
fn cloud(value: &str) -> Parsed {
    let context = value.split(';').next().unwrap_or_default().trim();
    let (trace, span) = match context.split_once('/') {
        Some((trace, span)) => (trace, Some(span)),
        None => (context, None),
    };
    decimal(ids::trace_id(trace), span)
}

fn decimal(trace: Option<TraceId>, span: Option<&str>) -> Parsed {
    let Some(trace) = trace else { return Parsed::Malformed };
    // 0 is no span.
    let span = span.map(str::trim).filter(|span| *span != "0");
    let id = |span: &str| ids::span_id(&format!("{:016x}", span.parse::<u64>().ok()?));
    spanned(trace, span.map(id))
}

/// A trace with its span, if there is one and it is an id.
fn spanned(trace: TraceId, span: Option<Option<SpanId>>) -> Parsed {
    match span {
        None => Parsed::Context(Context { trace, span: None }),
        Some(Some(span)) => Parsed::Context(Context { trace, span: Some(span) }),
        Some(None) => Parsed::Partly(Context { trace, span: None }),
    }
}
