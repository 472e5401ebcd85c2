//! Where the parts of a docket record stand in its text. A record is read once, however many sinks want it: `read` has it as views
//! of the text.

use crate::decision::ids::{self, SpanId, TraceId};
use crate::decision::json::{self, Member};
use crate::decision::time::{self, Nanos};
use crate::decision::verdict::Verdict;

/// What was read of a docket record, apart from its text.
#[derive(Debug, Clone)]
pub struct Outline {
    pub(super) original: u32,
    pub(super) docket: Place,
    pub(super) timestamp: Nanos,
    pub(super) decision_id: Place,
    pub(super) verdict: Verdict,
    pub(super) verdict_from: Place,
    pub(super) reasons: Place,
    pub(super) engine: Place,
    pub(super) policy: Place,
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) parent_span_id: Option<SpanId>,
    pub(super) trace_from: Place,
    pub(super) links: Place,
    pub(super) duration: Option<u64>,
    pub(super) subject: Place,
    pub(super) action: Place,
    pub(super) resource: Place,
    pub(super) tenant: Place,
    pub(super) service: Place,
    pub(super) instance: Option<Place>,
}

/// From where to where; nothing where it is empty. Of a string, what stands between its quotes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place(u32, u32);

impl Place {
    pub(super) fn of(self, raw: &str) -> &str {
        &raw[self.0 as usize..self.1 as usize]
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a docket record: {0}")]
pub struct NotARecord(pub(super) &'static str);

/// Finds what may be docket's own members from the end of a record, before `end`: where they begin; if they are these, the
/// timestamp's text, and what begins with the `docket` object.
fn own_members(raw: &str, end: usize) -> Option<(usize, Option<(&str, &str)>)> {
    const START: &str = ",\"@timestamp\":\"";
    const BETWEEN: &str = "\",\"docket\":";
    let at = time::last(&raw.as_bytes()[..end], START.as_bytes(), b'@')?;
    let rest = &raw[at + START.len()..];
    let split = memchr::memchr(b'"', rest.as_bytes()).map(|len| rest.split_at(len));
    let own = split.and_then(|(timestamp, rest)| Some((timestamp, rest.strip_prefix(BETWEEN)?)));
    Some((at, own.filter(|(_, docket)| docket.starts_with('{') && docket.ends_with("}}"))))
}

impl Outline {
    pub fn of(raw: &str) -> Result<Outline, NotARecord> {
        if u32::try_from(raw.len()).is_err() {
            return Err(NotARecord("it is larger than 4 GiB"));
        }
        let mut end = raw.len();
        while let Some((at, own)) = own_members(raw, end) {
            end = at;
            let Some((timestamp, docket)) = own else { continue };
            let mut reading = Reading::new(raw, at, &docket[..docket.len() - 1]);
            let mut members = json::members(docket);
            let read = members.by_ref().map(|member| reading.take(&member));
            let read = read.fold(Ok(()), Result::and);
            // What looks like them inside the docket object ends too early.
            if members.end() + 1 == docket.len() {
                return read.and_then(|()| reading.outline(timestamp));
            }
        }
        Err(NotARecord("it does not end with @timestamp and docket"))
    }
}

/// An outline while it is made.
struct Reading<'a> {
    raw: &'a str,
    outline: Outline,
    verdict: Option<Verdict>,
}

impl<'a> Reading<'a> {
    fn new(raw: &'a str, original: usize, docket: &'a str) -> Reading<'a> {
        let nothing = Place::default();
        let outline = Outline {
            original: original as u32,
            docket: nothing,
            timestamp: 0,
            decision_id: nothing,
            verdict: Verdict::Undefined,
            verdict_from: nothing,
            reasons: nothing,
            engine: nothing,
            policy: nothing,
            trace_id: TraceId::INVALID,
            span_id: SpanId::INVALID,
            parent_span_id: None,
            trace_from: nothing,
            links: nothing,
            duration: None,
            subject: nothing,
            action: nothing,
            resource: nothing,
            tenant: nothing,
            service: nothing,
            instance: None,
        };
        let mut reading = Reading { raw, outline, verdict: None };
        reading.outline.docket = reading.place(docket);
        reading
    }

    /// Where a slice of the text stands in it.
    fn place(&self, part: &str) -> Place {
        let from = part.as_ptr() as usize - self.raw.as_ptr() as usize;
        Place(from as u32, (from + part.len()) as u32)
    }

    fn text(&self, value: &str) -> Option<Place> {
        json::inner(value).map(|text| self.place(text))
    }

    /// Reads a member of the docket object.
    fn take(&mut self, member: &Member<'a>) -> Result<(), NotARecord> {
        let value = member.value;
        let (place, text) = (self.place(value), self.text(value).unwrap_or_default());
        let out = &mut self.outline;
        match member.name {
            "v" if value != "1" => {
                return Err(NotARecord("docket.v is not 1; a newer docket wrote it"));
            }
            "verdict" => self.verdict = json::as_str(value).and_then(|t| Verdict::parse(&t)),
            "verdict_from" => out.verdict_from = text,
            "reasons" => out.reasons = place,
            "engine" => out.engine = text,
            "policy" => out.policy = text,
            "trace_id" => {
                let id = json::as_str(value).and_then(|t| ids::trace_id(&t));
                out.trace_id = id.unwrap_or(TraceId::INVALID);
            }
            "span_id" => out.span_id = span(value).unwrap_or(SpanId::INVALID),
            "parent_span_id" => out.parent_span_id = span(value),
            "trace_from" => out.trace_from = text,
            "links" => out.links = place,
            "duration_ns" => out.duration = json::as_u64(value),
            "subject" => out.subject = text,
            "action" => out.action = text,
            "resource" => out.resource = text,
            "tenant" => out.tenant = text,
            "service" => {
                let of = |name| json::get(value, name).and_then(|value| self.text(value));
                let (service, instance) = (of("name").unwrap_or_default(), of("instance_id"));
                (self.outline.service, self.outline.instance) = (service, instance);
            }
            _ => {}
        }
        Ok(())
    }

    /// The outline, if the record has all that each has.
    fn outline(mut self, timestamp: &str) -> Result<Outline, NotARecord> {
        let at = time::parse(timestamp).ok_or(NotARecord("@timestamp is no time"))?;
        let id = json::get(self.raw, "decision_id").and_then(|value| self.text(value));
        let id = id.ok_or(NotARecord("it has no decision_id"))?;
        let verdict = self.verdict.ok_or(NotARecord("docket.verdict is missing or unknown"))?;
        let out = &mut self.outline;
        if out.trace_id == TraceId::INVALID || out.span_id == SpanId::INVALID {
            return Err(NotARecord("docket.trace_id or docket.span_id is missing"));
        }
        (out.timestamp, out.decision_id, out.verdict) = (at, id, verdict);
        Ok(self.outline)
    }
}

fn span(value: &str) -> Option<SpanId> {
    json::as_str(value).and_then(|text| ids::span_id(&text))
}
