//! A fact in some hundred bytes: what stands in the topic of facts, and in the join's memory.
//!
//! Byte 0 is the version and the kind, byte 1 the marks, bytes 2 and 3 what is there (little endian, as all), then
//! the start and the end (8 bytes each), the trace (16), the span (8), its parent (8), the HTTP status (2) and
//! gRPC's (1); then the texts, each with its length before it. An id that is 32 hex digits or a UUID takes 17 bytes
//! and usual methods and details one.

use std::borrow::Cow;

use super::{Fact, Kind, Marks, Status};
use crate::decision::ids::{self, SpanId, TraceId};
use crate::decision::time::Nanos;

const VERSION: u8 = 0x10;

const TRACE: u16 = 1;
const SPAN: u16 = 2;
const PARENT: u16 = 4;
const HTTP: u16 = 8;
const GRPC: u16 = 16;
/// The first of the texts' bits, in the order in which they stand.
const FIRST_TEXT: u16 = 32;

const HEAD: usize = 20;

/// Texts that take one byte.
const USUAL: [&str; 24] = [
    "GET",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "HEAD",
    "OPTIONS",
    "CONNECT",
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "via_upstream",
    "ext_authz_denied",
    "ext_authz_error",
    "direct_response",
    "rbac_access_denied_matched_policy[none]",
    "UAEX",
    "kube-apiserver",
    "GRPC",
];

/// Bytes that are no packed fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a fact: {0}")]
pub struct NotAFact(&'static str);

impl Fact<'_> {
    /// Appends it to `out`. Texts longer than 255 bytes are cut.
    pub fn pack(&self, out: &mut Vec<u8>) {
        let kind = match self.kind {
            Kind::Access => 0,
            Kind::Audit => 1,
            Kind::Span => 2,
        };
        out.extend_from_slice(&[VERSION | kind, self.marks.0]);
        let presence = out.len();
        let mut there = 0u16;
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&self.start.to_le_bytes());
        out.extend_from_slice(&self.end.to_le_bytes());
        let mut put = |bit: u16, bytes: Option<&[u8]>| {
            if let Some(bytes) = bytes {
                there |= bit;
                out.extend_from_slice(bytes);
            }
        };
        put(TRACE, self.trace.map(TraceId::to_bytes).as_ref().map(|b| &b[..]));
        put(SPAN, self.span.map(SpanId::to_bytes).as_ref().map(|b| &b[..]));
        put(PARENT, self.parent.map(SpanId::to_bytes).as_ref().map(|b| &b[..]));
        put(HTTP, self.status.http.map(u16::to_le_bytes).as_ref().map(|b| &b[..]));
        put(GRPC, self.status.grpc.map(u8::to_le_bytes).as_ref().map(|b| &b[..]));
        for (n, text) in self.texts().into_iter().enumerate() {
            if !text.is_empty() {
                there |= FIRST_TEXT << n;
                push_text(out, text);
            }
        }
        out[presence..presence + 2].copy_from_slice(&there.to_le_bytes());
    }

    fn texts(&self) -> [&str; 9] {
        [
            &self.request_id,
            &self.decision_id,
            &self.uid,
            &self.service,
            &self.path,
            &self.method,
            &self.user,
            &self.flags,
            &self.details,
        ]
    }
}

/// How a text is written, in its first byte: its length up to 222 and what follows, or one of these.
const LONG: u8 = 223;
const UUID: u8 = 224;
const HEX: u8 = 225;
const FIRST_USUAL: u8 = 226;

fn push_text(out: &mut Vec<u8>, text: &str) {
    if let Some(bytes) = id_bytes(text) {
        out.push(if text.len() == 36 { UUID } else { HEX });
        out.extend_from_slice(&bytes);
    } else if let Some(n) = USUAL.iter().position(|usual| *usual == text) {
        out.push(FIRST_USUAL + n as u8);
    } else {
        let mut end = text.len().min(255);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        if end < usize::from(LONG) {
            out.push(end as u8);
        } else {
            out.extend_from_slice(&[LONG, end as u8]);
        }
        out.extend_from_slice(&text.as_bytes()[..end]);
    }
}

/// The bytes of an id in lower case, with a UUID's hyphens or without, if it is written just as they would be.
fn id_bytes(text: &str) -> Option<[u8; 16]> {
    if text.len() != 36 && text.len() != 32 {
        return None;
    }
    let mut out = [0u8; 16];
    let mut digits = 0;
    for (i, b) in text.bytes().enumerate() {
        if text.len() == 36 && matches!(i, 8 | 13 | 18 | 23) {
            if b != b'-' {
                return None;
            }
            continue;
        }
        let digit = match b {
            b'0'..=b'9' => b - b'0',
            b'a'..=b'f' => b - b'a' + 10,
            _ => return None,
        };
        *out.get_mut(digits / 2)? |= digit << (4 * (1 - digits % 2));
        digits += 1;
    }
    Some(out)
}

/// A packed fact: what a comparison needs is read where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed<'a>(&'a [u8]);

impl<'a> Packed<'a> {
    /// Of bytes that `check`ed before, such as those that `pack` wrote.
    pub fn of(bytes: &'a [u8]) -> Packed<'a> {
        Packed(bytes)
    }

    /// Reads all of it.
    pub fn fact(self) -> Result<Fact<'a>, NotAFact> {
        let cut = NotAFact("it is cut off");
        let b = self.0;
        if b.len() < HEAD {
            return Err(cut);
        }
        if b[0] & 0xf0 != VERSION {
            return Err(NotAFact("a newer docket wrote it"));
        }
        let kind = self.kind().ok_or(NotAFact("its kind is unknown"))?;
        let mut fact = Fact::new(kind, self.start(), self.end());
        fact.marks = self.marks();
        let there = self.there();
        let mut rest = &b[HEAD..];
        let mut take = |n: usize| {
            let (head, tail) = rest.split_at_checked(n)?;
            rest = tail;
            Some(head)
        };
        if there & TRACE != 0 {
            fact.trace = Some(TraceId::from_bytes(array(take(16)).ok_or(cut)?));
        }
        if there & SPAN != 0 {
            fact.span = Some(SpanId::from_bytes(array(take(8)).ok_or(cut)?));
        }
        if there & PARENT != 0 {
            fact.parent = Some(SpanId::from_bytes(array(take(8)).ok_or(cut)?));
        }
        fact.status = Status {
            http: match there & HTTP {
                0 => None,
                _ => Some(u16::from_le_bytes(array(take(2)).ok_or(cut)?)),
            },
            grpc: match there & GRPC {
                0 => None,
                _ => Some(take(1).ok_or(cut)?[0]),
            },
        };
        let mut texts = [const { Cow::Borrowed("") }; 9];
        for (n, text) in texts.iter_mut().enumerate() {
            if there & (FIRST_TEXT << n) != 0 {
                *text = take_text(&mut rest)?;
            }
        }
        if !rest.is_empty() {
            return Err(NotAFact("something follows it"));
        }
        let [request_id, decision_id, uid, service, path, method, user, flags, details] = texts;
        Ok(Fact {
            request_id,
            decision_id,
            uid,
            service,
            path,
            method,
            user,
            flags,
            details,
            ..fact
        })
    }

    pub fn kind(self) -> Option<Kind> {
        match self.0.first()? & 0x0f {
            0 => Some(Kind::Access),
            1 => Some(Kind::Audit),
            2 => Some(Kind::Span),
            _ => None,
        }
    }

    pub fn marks(self) -> Marks {
        Marks(self.0.get(1).copied().unwrap_or_default())
    }

    pub fn start(self) -> Nanos {
        array(self.0.get(4..12)).map(Nanos::from_le_bytes).unwrap_or_default()
    }

    pub fn end(self) -> Nanos {
        array(self.0.get(12..20)).map(Nanos::from_le_bytes).unwrap_or_default()
    }

    pub fn trace(self) -> Option<TraceId> {
        self.place(TRACE, 16).and_then(|b| array(Some(b))).map(TraceId::from_bytes)
    }

    pub fn span(self) -> Option<SpanId> {
        self.place(SPAN, 8).and_then(|b| array(Some(b))).map(SpanId::from_bytes)
    }

    pub fn parent(self) -> Option<SpanId> {
        self.place(PARENT, 8).and_then(|b| array(Some(b))).map(SpanId::from_bytes)
    }

    fn there(self) -> u16 {
        array(self.0.get(2..4)).map(u16::from_le_bytes).unwrap_or_default()
    }

    fn place(self, what: u16, len: usize) -> Option<&'a [u8]> {
        let there = self.there();
        let before = |bit: u16, len: usize| if bit < what && there & bit != 0 { len } else { 0 };
        let at = HEAD + before(TRACE, 16) + before(SPAN, 8);
        (there & what != 0).then(|| self.0.get(at..at + len)).flatten()
    }
}

fn array<const N: usize>(bytes: Option<&[u8]>) -> Option<[u8; N]> {
    bytes?.try_into().ok()
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Result<Cow<'a, str>, NotAFact> {
    let cut = NotAFact("it is cut off");
    let mut take = |n: usize| {
        let (head, tail) = rest.split_at_checked(n).ok_or(cut)?;
        *rest = tail;
        Ok(head)
    };
    let how = take(1)?[0];
    let len = match how {
        UUID | HEX => {
            let hex = ids::hex(take(16)?);
            return Ok(Cow::Owned(match how {
                HEX => hex,
                _ => [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"),
            }));
        }
        LONG => take(1)?[0],
        FIRST_USUAL.. => {
            let usual = USUAL.get(usize::from(how - FIRST_USUAL));
            return usual.map(|text| Cow::Borrowed(*text)).ok_or(NotAFact("a text is unknown"));
        }
        len => len,
    };
    let bytes = take(usize::from(len))?;
    std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| NotAFact("a text is not UTF-8"))
}
