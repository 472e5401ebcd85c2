//! The names under which access logs and spans have what a join needs, as people configure them.

use std::borrow::Cow;

use super::{Fact, Kind, Marks, Status};
use crate::decision::ids::{self, SpanId, TraceId};
use crate::decision::json;
use crate::decision::time::{self, Nanos};

/// A member that can't be read: its name, and why.
pub type Problem = (String, String);

/// What has been read of one request so far. Where several names may have the same, the better one wins.
#[derive(Debug, Default)]
pub struct Fields<'a> {
    pub trace: Option<TraceId>,
    pub span: Option<SpanId>,
    pub parent: Option<SpanId>,
    pub start: Option<Nanos>,
    pub end: Option<Nanos>,
    duration: Option<Nanos>,
    pub status: Status,
    pub marks: Marks,
    request_id: Cow<'a, str>,
    decision_id: Cow<'a, str>,
    pub service: Ranked<'a>,
    path: Ranked<'a>,
    method: Cow<'a, str>,
    flags: Cow<'a, str>,
    details: Cow<'a, str>,
}

/// A text, and how good its source is: 0 is none, and more is better.
#[derive(Debug, Default)]
pub struct Ranked<'a>(u8, Cow<'a, str>);

impl<'a> Ranked<'a> {
    pub fn put(&mut self, rank: u8, text: Cow<'a, str>) {
        if rank > self.0 && !text.is_empty() {
            *self = Ranked(rank, text);
        }
    }
}

/// `x-request-id`, `:path` and `http.request.method` as `x_request_id`, `path` and `http_request_method`.
fn plain<'n>(name: &'n str, room: &'n mut [u8; 48]) -> &'n str {
    let name = name.strip_prefix(':').unwrap_or(name);
    if name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        return name;
    }
    let Some(room) = room.get_mut(..name.len()) else { return "" };
    for (to, from) in room.iter_mut().zip(name.bytes()) {
        *to = match from {
            b'-' | b'.' | b':' => b'_',
            b => b.to_ascii_lowercase(),
        };
    }
    std::str::from_utf8(room).unwrap_or_default()
}

impl<'a> Fields<'a> {
    /// Takes a member, if it is one that is needed. `text` is what stands there, without quotes.
    pub fn put(&mut self, name: &str, text: Cow<'a, str>) -> Result<(), Problem> {
        // Envoy writes "-" for what there is not.
        if text.is_empty() || text == "-" || text == "null" {
            return Ok(());
        }
        let mut room = [0; 48];
        let bad = |problem: &str| (name.to_owned(), format!("{problem}: {}", shown(&text)));
        match plain(name, &mut room) {
            "trace_id" | "traceid" | "x_b3_traceid" => {
                self.trace = self.trace.or_else(|| trace_id(&text));
            }
            "span_id" | "spanid" | "x_b3_spanid" => self.span = ids::span_id(&text).or(self.span),
            "parent_span_id" | "parentspanid" | "x_b3_parentspanid" => {
                self.parent = ids::span_id(&text);
            }
            "traceparent" => self.traceparent(&text),
            "request_id"
            | "x_request_id"
            | "requestid"
            | "guid_x_request_id"
            | "http_request_header_x_request_id" => self.request_id = text,
            "decision_id"
            | "decisionid"
            | "opa_decision_id"
            | "ext_authz_decision_id"
            | "policy_decision_id" => self.decision_id = text,
            "start_time" | "starttime" | "start" | "timestamp" | "_timestamp" | "@timestamp"
            | "time" | "ts" => {
                self.start = Some(instant(&text).ok_or_else(|| bad("not a time"))?);
            }
            "end_time" => self.end = Some(instant(&text).ok_or_else(|| bad("not a time"))?),
            // Envoy's %DURATION% is in milliseconds.
            "duration" | "duration_ms" | "total_duration" | "request_duration" => {
                let ms: f64 =
                    text.trim_end_matches("ms").parse().map_err(|_| bad("not a duration"))?;
                if !(0.0..=1e12).contains(&ms) {
                    return Err(bad("not a duration"));
                }
                self.duration = Some((ms * 1e6) as Nanos);
            }
            "response_code"
            | "status"
            | "status_code"
            | "http_status_code"
            | "code"
            | "http_response_status_code" => {
                let code = text.parse().ok().filter(|code| *code < 1000);
                self.status.http = Some(code.ok_or_else(|| bad("not an HTTP status"))?);
            }
            "grpc_status"
            | "grpc_status_number"
            | "grpc_status_code"
            | "rpc_grpc_status_code"
            | "rpc_response_status_code" => {
                self.status.grpc = Some(grpc(&text).ok_or_else(|| bad("not a gRPC status"))?);
            }
            "service" | "service_name" => self.service.put(4, text),
            "cluster" | "upstream_cluster" | "cluster_name" => self.service.put(1, text),
            "authority" | "host" | "server_address" | "http_host" => self.service.put(2, text),
            "route" | "http_route" => self.path.put(4, no_query(text)),
            "path"
            | "http_target"
            | "url_path"
            | "x_envoy_original_path"
            | "x_envoy_origin_path"
            | "http_path" => self.path.put(3, no_query(text)),
            "http_url" | "url_full" => self.path.put(2, no_query(path_of(&text).into())),
            "route_name" | "rpc_method" => self.path.put(1, text),
            "method" | "request_method" | "http_request_method" | "http_method" => {
                self.method = text;
            }
            "response_flags" => self.flags = text,
            "response_code_details" => self.details = text,
            name if yes(&text) => self.mark(name),
            _ => {}
        }
        Ok(())
    }

    fn mark(&mut self, name: &str) {
        let mark = match name {
            "failure_mode_allowed" | "x_envoy_auth_failure_mode_allowed" => {
                Marks::FAILURE_MODE_ALLOWED
            }
            "dry_run" | "ext_authz_dry_run" | "ext_authz_shadow" | "shadow" | "shadow_mode" => {
                Marks::DRY_RUN
            }
            _ => return,
        };
        self.marks = self.marks.with(mark);
    }

    fn traceparent(&mut self, text: &str) {
        let mut parts = text.split('-').skip(1);
        let context = parts.next().and_then(ids::trace_id).zip(parts.next().and_then(ids::span_id));
        if let Some((trace, span)) = context {
            self.trace = Some(trace);
            self.span = self.span.or(Some(span));
        }
    }

    /// Whether anything of a request stands there.
    pub fn is_request(&self) -> bool {
        self.status != Status::default() || !self.decision_id.is_empty()
    }

    /// The fact, if its time is known.
    pub fn fact(self, kind: Kind) -> Option<Fact<'a>> {
        let start = match (self.start, self.end, self.duration) {
            (Some(start), ..) => start,
            (None, Some(end), duration) => end.saturating_sub(duration.unwrap_or(0)),
            (None, None, _) => return None,
        };
        let end = self.end.unwrap_or_else(|| start.saturating_add(self.duration.unwrap_or(0)));
        Some(Fact {
            marks: self.marks,
            trace: self.trace,
            span: self.span,
            parent: self.parent,
            status: self.status,
            request_id: self.request_id,
            decision_id: self.decision_id,
            service: self.service.1,
            path: self.path.1,
            method: self.method,
            flags: self.flags,
            details: self.details,
            ..Fact::new(kind, start, end)
        })
    }
}

/// 32 hex digits, or 16 as B3 has them.
fn trace_id(text: &str) -> Option<TraceId> {
    match text.len() {
        16 => ids::trace_id(&format!("{:0>32}", text)),
        _ => ids::trace_id(text),
    }
}

/// RFC 3339, or a number since 1970: seconds, milliseconds, micro- or nanoseconds by its size.
fn instant(text: &str) -> Option<Nanos> {
    if let Some(at) = time::parse(text) {
        return Some(at);
    }
    if let Ok(n) = text.parse::<i64>() {
        return match n {
            ..0 => None,
            0..100_000_000_000 => n.checked_mul(1_000_000_000),
            100_000_000_000..100_000_000_000_000 => n.checked_mul(1_000_000),
            100_000_000_000_000..100_000_000_000_000_000 => n.checked_mul(1000),
            _ => Some(n),
        };
    }
    let seconds: f64 = text.parse().ok()?;
    (0.0..9.2e9).contains(&seconds).then_some((seconds * 1e9) as Nanos)
}

const GRPC: [&str; 17] = [
    "ok",
    "canceled",
    "unknown",
    "invalidargument",
    "deadlineexceeded",
    "notfound",
    "alreadyexists",
    "permissiondenied",
    "resourceexhausted",
    "failedprecondition",
    "aborted",
    "outofrange",
    "unimplemented",
    "internal",
    "unavailable",
    "dataloss",
    "unauthenticated",
];

/// A number or a name in any spelling: `7`, `PermissionDenied`, `PERMISSION_DENIED`.
fn grpc(text: &str) -> Option<u8> {
    if let Ok(code) = text.parse() {
        return Some(code);
    }
    let name: String = text.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect();
    let name = if name == "cancelled" { "canceled" } else { &name };
    GRPC.iter().position(|known| *known == name).and_then(|code| code.try_into().ok())
}

fn no_query(text: Cow<'_, str>) -> Cow<'_, str> {
    let end = text.find(['?', '#']).unwrap_or(text.len());
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..end]),
        Cow::Owned(mut text) => {
            text.truncate(end);
            Cow::Owned(text)
        }
    }
}

/// The path of a URL. Its host may hold credentials.
fn path_of(url: &str) -> String {
    let after = url.find("://").map_or(0, |at| at + 3);
    url[after..].find('/').map_or("/", |at| &url[after + at..]).to_owned()
}

fn yes(text: &str) -> bool {
    !matches!(text, "false" | "False" | "0" | "no")
}

/// A value in a message: short, and on one line.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    format!("{short:?}")
}

/// What stands in a JSON value, as text; `None` for what is no text, number or boolean.
pub fn text_of(value: &str) -> Option<Cow<'_, str>> {
    match value.as_bytes().first()? {
        b'"' => json::as_str(value),
        // Values of headers may be lists of one.
        b'[' => json::elements(value).next().and_then(json::as_str),
        b'{' => None,
        _ => Some(Cow::Borrowed(value)),
    }
}
