//! Whose request a decision belongs to: the trace contexts that a record carries, in the order of the
//! pipeline file. The first becomes the parent of the decision's span, others become links.
//!
//! `headers` reads them. An all-zero or malformed id is no id; it is counted.

mod headers;

use self::headers::{Headers, in_headers, json_headers, known};
use super::event::Event;
use super::ids::{self, SpanId, TraceId};
use super::json::{self, Paths, Pointer};

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
    pub input_headers: Paths,
}

impl Default for Rules {
    fn default() -> Rules {
        let pointers = [
            "/attributes/request/http/headers",
            // Envoy with raw headers (`pack_as_bytes`, `encode_raw_headers`), as either JSON of protobuf has them.
            "/attributes/request/http/header_map/headers",
            "/attributes/request/http/headerMap/headers",
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
                        all.push((c, *source));
                    });
                }
            }
            Carrier::Input => {
                let mut objects = Vec::new();
                if let Some(input) = event.input {
                    rules.input_headers.walk(input, &mut |number, raw| objects.push((number, raw)));
                }
                objects.sort_unstable_by_key(|(number, _)| *number);
                for (_, headers) in objects {
                    in_headers(&json_headers(headers), &mut found.malformed, &mut |c| {
                        all.push((c, *source));
                    });
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

#[cfg(test)]
mod tests;
