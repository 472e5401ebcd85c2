//! Whose request a decision belongs to: the trace contexts that a record carries, in the order of the
//! pipeline file. The first becomes the parent of the decision's span, others become links.
//!
//! Read are W3C Trace Context (`traceparent`), B3 single and multi header, AWS X-Ray
//! (`X-Amzn-Trace-Id`) and Jaeger (`uber-trace-id`). Header names are case-insensitive. An all-zero or
//! malformed id is no id; it is counted.

use super::event::Event;
use super::ids::{self, SpanId, TraceId};
use super::json::{self, Pointer};

/// Where a context was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// `trace_id` and `span_id` of the decision: OPA's own server span.
    Decision,
    /// `request_context.http.headers`, which OPA copies when told to.
    RequestContext,
    /// Headers inside the input.
    Input,
    /// Headers of the Kafka record.
    Record,
    /// A span that the decision was joined with.
    Join,
    /// Nowhere.
    None,
}

impl Carrier {
    pub fn as_str(self) -> &'static str {
        match self {
            Carrier::Decision => "decision",
            Carrier::RequestContext => "request_context",
            Carrier::Input => "input",
            Carrier::Record => "record",
            Carrier::Join => "join",
            Carrier::None => "none",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    pub trace: TraceId,
    /// The span that asked, where the header names one.
    pub span: Option<SpanId>,
}

/// The pipeline file's `trace:` section.
#[derive(Debug, Clone)]
pub struct Rules {
    pub order: Vec<Carrier>,
    /// Objects inside the input that hold headers.
    pub input_headers: Vec<Pointer>,
}

impl Default for Rules {
    fn default() -> Rules {
        let pointers = [
            "/attributes/request/http/headers",
            "/request/http/headers",
            "/request/headers",
            "/http/headers",
            "/headers",
        ];
        Rules {
            order: vec![Carrier::Decision, Carrier::RequestContext, Carrier::Input],
            input_headers: pointers.iter().filter_map(|p| Pointer::parse(p)).collect(),
        }
    }
}

/// What a record says of its trace.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Found {
    pub parent: Option<(Context, Carrier)>,
    /// Contexts of other traces.
    pub links: Vec<Context>,
    /// OPA's own trace id differs from the one its caller sent.
    pub mismatch: bool,
    /// Ids that were there and were no ids.
    pub malformed: u32,
}

impl Found {
    pub fn source(&self) -> Carrier {
        self.parent.map_or(Carrier::None, |(_, source)| source)
    }
}

/// At most so many links are kept.
const MAX_LINKS: usize = 8;

pub fn find(event: &Event<'_>, record_headers: &[(&str, &[u8])], rules: &Rules) -> Found {
    let mut found = Found::default();
    let mut all: Vec<(Context, Carrier)> = Vec::with_capacity(4);
    for source in &rules.order {
        let before = all.len();
        let all = &mut all;
        match source {
            Carrier::Decision => own(event, &mut found.malformed, &mut |c| all.push((c, *source))),
            Carrier::RequestContext => {
                let headers = event
                    .request_context
                    .and_then(|rc| json::get(json::get(rc, "http")?, "headers"));
                if let Some(headers) = headers {
                    in_headers(&json_headers(headers), &mut found.malformed, &mut |c| {
                        all.push((c, *source))
                    });
                }
            }
            Carrier::Input => {
                for pointer in &rules.input_headers {
                    let found_at = event
                        .input
                        .filter(|input| pointer.may_be_in(input))
                        .and_then(|input| pointer.find(input));
                    if let Some(headers) = found_at {
                        in_headers(&json_headers(headers), &mut found.malformed, &mut |c| {
                            all.push((c, *source))
                        });
                    }
                    if all.len() > before {
                        break;
                    }
                }
            }
            Carrier::Record => {
                let headers: Headers = record_headers
                    .iter()
                    .filter_map(|(name, value)| {
                        Some((known(name)?, std::str::from_utf8(value).ok()?.into()))
                    })
                    .collect();
                in_headers(&headers, &mut found.malformed, &mut |c| all.push((c, *source)));
            }
            Carrier::Join | Carrier::None => {}
        }
    }
    let of = |wanted: fn(Carrier) -> bool| {
        all.iter().find(|(_, source)| wanted(*source)).map(|(context, _)| context.trace)
    };
    if let (Some(own), Some(callers)) = (
        of(|s| s == Carrier::Decision),
        of(|s| s == Carrier::RequestContext || s == Carrier::Input),
    ) {
        found.mismatch = own != callers;
    }
    found.parent = all.first().copied();
    if let Some((parent, _)) = found.parent {
        for (context, _) in &all[1..] {
            let seen = context.trace == parent.trace
                || found.links.iter().any(|link| link.trace == context.trace);
            if !seen && found.links.len() < MAX_LINKS {
                found.links.push(*context);
            }
        }
    }
    found
}

/// The decision's own ids.
fn own(event: &Event<'_>, malformed: &mut u32, add: &mut impl FnMut(Context)) {
    // OPA leaves them out when it does not trace; an empty one is none, too.
    let Some(text) = event.trace_id.as_deref().filter(|t| !t.is_empty()) else { return };
    let Some(trace) = ids::trace_id(text) else {
        *malformed += 1;
        return;
    };
    let span = match event.span_id.as_deref().filter(|s| !s.is_empty()) {
        None => None,
        Some(text) => {
            let span = ids::span_id(text);
            *malformed += u32::from(span.is_none());
            span
        }
    };
    add(Context { trace, span });
}

type Headers<'a> = Vec<(Header, std::borrow::Cow<'a, str>)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Header {
    Traceparent,
    B3,
    B3TraceId,
    B3SpanId,
    Amzn,
    Uber,
}

fn known(name: &str) -> Option<Header> {
    const NAMES: [(&str, Header); 6] = [
        ("traceparent", Header::Traceparent),
        ("b3", Header::B3),
        ("x-b3-traceid", Header::B3TraceId),
        ("x-b3-spanid", Header::B3SpanId),
        ("x-amzn-trace-id", Header::Amzn),
        ("uber-trace-id", Header::Uber),
    ];
    NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, header)| *header)
}

/// The trace headers in a JSON object of headers; a value is a string, or an array whose first element counts.
fn json_headers(raw: &str) -> Headers<'_> {
    json::members(raw)
        .filter_map(|member| {
            let header = known(&member.key())?;
            let value = if member.value.starts_with('[') {
                json::elements(member.value).next()?
            } else {
                member.value
            };
            Some((header, json::as_str(value)?))
        })
        .collect()
}

fn in_headers(headers: &Headers<'_>, malformed: &mut u32, add: &mut impl FnMut(Context)) {
    if headers.is_empty() {
        return;
    }
    let value = |wanted: Header| {
        headers.iter().find(|(header, _)| *header == wanted).map(|(_, value)| value.trim())
    };
    let mut read = |parsed: Parsed| match parsed {
        Parsed::Context(context) => add(context),
        Parsed::Absent => {}
        Parsed::Malformed => *malformed += 1,
    };
    read(value(Header::Traceparent).map_or(Parsed::Absent, traceparent));
    read(value(Header::B3).map_or(Parsed::Absent, b3_single));
    read(
        value(Header::B3TraceId)
            .map_or(Parsed::Absent, |trace| b3_multi(trace, value(Header::B3SpanId))),
    );
    read(value(Header::Amzn).map_or(Parsed::Absent, amzn));
    read(value(Header::Uber).map_or(Parsed::Absent, uber));
}

enum Parsed {
    Context(Context),
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

/// AWS X-Ray: Root=1-{8 hex}-{24 hex};Parent={16 hex};Sampled=..; a load balancer sends no Parent.
fn amzn(value: &str) -> Parsed {
    let mut root = None;
    let mut parent = None;
    for field in value.split(';') {
        match field.trim().split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case("root") => root = Some(value),
            Some((name, value)) if name.eq_ignore_ascii_case("parent") => parent = Some(value),
            _ => {}
        }
    }
    let Some(root) = root else { return Parsed::Malformed };
    let mut parts = root.split('-');
    let trace = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("1"), Some(time), Some(unique), None) if time.len() == 8 && unique.len() == 24 => {
            ids::trace_id(&format!("{time}{unique}"))
        }
        _ => None,
    };
    match (trace, parent) {
        (Some(trace), None) => Parsed::Context(Context { trace, span: None }),
        (trace, Some(parent)) => parsed(trace, ids::span_id(parent)),
        (None, None) => Parsed::Malformed,
    }
}

/// Jaeger: {trace id}:{span id}:{parent}:{flags}, hex without leading zeros, sometimes percent-encoded.
fn uber(value: &str) -> Parsed {
    let value = value.replace("%3A", ":").replace("%3a", ":");
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

#[cfg(test)]
mod tests {
    use super::*;

    const T: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const S: &str = "00f067aa0ba902b7";

    fn found(extra: &str) -> Found {
        let doc = format!(r#"{{"decision_id":"d","timestamp":"2026-11-24T12:48:50Z",{extra}}}"#);
        find(&Event::parse(doc.as_bytes()).unwrap(), &[], &Rules::default())
    }

    fn in_input(name: &str, value: &str) -> Found {
        found(&format!(
            r#""input":{{"attributes":{{"request":{{"http":{{"headers":{{"{name}":"{value}"}}}}}}}}}}"#
        ))
    }

    #[test]
    fn five_families_of_headers_are_read_whatever_their_case() {
        for (name, value, trace, span) in [
            ("traceparent", format!("00-{T}-{S}-01"), T, S),
            ("TraceParent", format!("cc-{T}-{S}-01-what-the-future-brings"), T, S),
            ("b3", format!("{T}-{S}-1-05e3ac9a4f6e3b90"), T, S),
            ("B3", format!("a3ce929d0e0e4736-{S}"), "0000000000000000a3ce929d0e0e4736", S),
            (
                "X-Amzn-Trace-Id",
                format!("Self=1-1-1;Root=1-{}-{};Parent={S};Sampled=1", &T[..8], &T[8..]),
                T,
                S,
            ),
            ("uber-trace-id", format!("{T}:f067aa0ba902b7:0:1"), T, S),
            ("Uber-Trace-Id", format!("{T}%3A{S}%3A0%3A1"), T, S),
        ] {
            let context =
                Context { trace: ids::trace_id(trace).unwrap(), span: ids::span_id(span) };
            assert_eq!(
                in_input(name, &value).parent,
                Some((context, Carrier::Input)),
                "{name}: {value}"
            );
        }
        let b3 = found(&format!(
            r#""request_context":{{"http":{{"headers":{{"X-B3-TraceId":["{T}"],"x-b3-spanid":["{S}"]}}}}}}"#
        ));
        assert_eq!(b3.source(), Carrier::RequestContext);
        let alb = in_input("x-amzn-trace-id", &format!("Root=1-{}-{}", &T[..8], &T[8..]));
        assert_eq!(alb.parent.unwrap().0.span, None);
    }

    #[test]
    fn malformed_and_zero_ids_are_counted_and_are_no_ids() {
        for value in [
            format!("00-{}-{S}-01", "0".repeat(32)),
            format!("00-{T}-{}-01", "0".repeat(16)),
            format!("ff-{T}-{S}-01"),
            format!("00-{}-{S}-01", T.to_uppercase()),
            format!("00-{T}-{S}-01-x"),
            format!("00-{T}-{S}"),
            "garbage".into(),
        ] {
            let found = in_input("traceparent", &value);
            assert_eq!((found.parent, found.malformed), (None, 1), "{value}");
        }
        let zero =
            found(r#""trace_id":"00000000000000000000000000000000","span_id":"0000000000000000""#);
        assert_eq!((zero.parent, zero.malformed), (None, 1));
        let half = found(&format!(r#""trace_id":"{T}","span_id":"xyz""#));
        assert_eq!((half.parent.unwrap().0.span, half.malformed), (None, 1));
        assert_eq!(in_input("b3", "0").malformed, 0);
    }

    #[test]
    fn the_first_is_the_parent_and_other_traces_are_links() {
        let other = "ffffffffffffffffffffffffffffff01";
        let own = format!(r#""trace_id":"{T}","span_id":"{S}","#);
        let same = found(&format!(
            r#"{own}"request_context":{{"http":{{"headers":{{"traceparent":["00-{T}-73ab48767734d7c1-01"]}}}}}}"#
        ));
        assert_eq!((same.source(), same.links.len(), same.mismatch), (Carrier::Decision, 0, false));

        let doc = format!(
            r#"{{"decision_id":"d","timestamp":"2026-11-24T12:48:50Z",{own}"input":{{"headers":{{"traceparent":"00-{other}-{S}-01"}}}}}}"#
        );
        let event = Event::parse(doc.as_bytes()).unwrap();
        let opa_wins = find(&event, &[], &Rules::default());
        assert!(opa_wins.mismatch);
        assert_eq!(opa_wins.parent.unwrap().0.trace, ids::trace_id(T).unwrap());
        assert_eq!(opa_wins.links[0].trace, ids::trace_id(other).unwrap());

        let caller_first =
            Rules { order: vec![Carrier::Input, Carrier::Decision], ..Rules::default() };
        let caller_wins = find(&event, &[], &caller_first);
        assert!(caller_wins.mismatch);
        assert_eq!(
            (caller_wins.parent.unwrap().0.trace, caller_wins.source()),
            (ids::trace_id(other).unwrap(), Carrier::Input)
        );
    }

    #[test]
    fn record_headers_count_only_if_the_pipeline_says_so() {
        let doc = br#"{"decision_id":"d","timestamp":"2026-11-24T12:48:50Z"}"#;
        let event = Event::parse(doc).unwrap();
        let value = format!("00-{T}-{S}-01");
        let headers: [(&str, &[u8]); 1] = [("traceparent", value.as_bytes())];
        assert_eq!(find(&event, &headers, &Rules::default()).source(), Carrier::None);
        let rules = Rules { order: vec![Carrier::Record], ..Rules::default() };
        assert_eq!(find(&event, &headers, &rules).source(), Carrier::Record);
    }
}
