//! Finds the decisions in what a producer wrote to Kafka, wherever their JSON stands; `auto` tells formats
//! apart.
//!
//! A Kafka record may hold one decision or many, gzipped or not, wrapped by log agents or not. Each
//! piece ends in exactly one of three ways: a decision, a reject with its own bytes, or ignored, which only
//! what can't be a decision is. `text` finds where values begin and end, `object` tells what one is and opens
//! envelopes, `join` puts lines together that were split on their way, `lines` objects whose lines came one by one.

mod agent;
mod balance;
mod console;
mod elements;
mod join;
mod labels;
mod layer;
mod lines;
mod marks;
mod object;
mod otlp;
mod recover;
mod same;
mod text;
mod weight;

use std::borrow::Cow;
use std::cell::Cell;

pub use elements::Elements;
pub use join::{Missing, Parts, RecordPlace, is_part};

use flate2::bufread::GzDecoder;

use self::join::Joins;
use self::layer::Text;
use self::lines::Spread;
use super::event::Event;
use super::json;
use super::record::Agent;
use super::reject::{Reason, Reject};

/// Format of a source's records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Recognized record by record: JSON decisions (one, an array, or lines), wrapped by a log agent or not, or OTLP logs; each gzipped or not.
    #[default]
    Auto,
    /// JSON: one decision, an array of them as OPA uploads it, or one per line; each gzipped or not, wrapped by a log agent or not.
    Json,
    /// OTLP logs as protobuf (`ExportLogsServiceRequest`), with a decision in each body.
    OtlpProto,
}

/// How a source's records are to be read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading<'s> {
    pub format: Format,
    /// The member of an envelope that holds the decision, for records where two could; any member without it.
    pub envelope: Option<&'s str>,
}

impl From<Format> for Reading<'_> {
    fn from(format: Format) -> Self {
        Reading { format, envelope: None }
    }
}

/// What a piece of a Kafka record turned out to be.
// A piece is handed on at once, never stored: its size is no matter.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum Piece<'a> {
    /// One decision, and what an agent put around it.
    Decision {
        event: Event<'a>,
        agent: Option<Agent>,
    },
    Reject {
        bytes: Cow<'a, [u8]>,
        reject: Reject,
    },
    Ignored(Ignored),
}

/// What can't be a decision, by its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ignored {
    /// A line of OPA's log that is no decision.
    OpaLog,
    /// A line of some program's output.
    Text,
    /// JSON that some program printed, and that has nothing of a decision.
    Json,
    /// An empty line that an agent collected.
    Blank,
}

impl Ignored {
    pub const ALL: [Ignored; 4] = [Ignored::OpaLog, Ignored::Text, Ignored::Json, Ignored::Blank];

    pub fn as_str(self) -> &'static str {
        match self {
            Ignored::OpaLog => "opa_log",
            Ignored::Text => "text",
            Ignored::Json => "json",
            Ignored::Blank => "blank",
        }
    }
}

/// Bounds on what one Kafka record may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one decision.
    pub decision: usize,
    /// Bytes of one Kafka record's content, after decompression: of all that is compressed in it together.
    pub record: usize,
    /// Decisions, or pieces that are none, in one Kafka record.
    pub elements: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { decision: 1 << 20, record: 64 << 20, elements: 100_000 }
    }
}

/// Envelopes inside envelopes are opened so many times (gzip, CRI, an agent's members).
const MAX_LAYERS: usize = 8;

/// So many rejects of one Kafka record are told one by one; what more there is of them is told together.
pub const MAX_REJECTS: usize = 1_000;

/// Values of an OTLP request for each element that a record may have: attributes, and those of structured bodies.
const VALUES: usize = 10;

/// Calls `piece` for each piece of a Kafka record's value. If it returns a reject, the record holds too much: then it is the whole
/// that is rejected, and what was told of its pieces doesn't count.
pub fn split<'a>(
    value: &'a [u8],
    reading: impl Into<Reading<'a>>,
    limits: &Limits,
    piece: &mut dyn FnMut(Piece<'_>),
) -> Option<Reject> {
    split_within(Within { over: &Cell::new(false), among: None }, value, reading, limits, piece)
}

/// What stands around a record.
pub struct Within<'w> {
    /// Once it is set, nothing more is read.
    pub over: &'w Cell<bool>,
    /// Other records may have the rest of its lines.
    pub among: Option<Among<'w>>,
}

/// Parts of lines that came in records before this one.
pub struct Among<'p> {
    pub parts: &'p mut Parts,
    pub place: RecordPlace,
    /// The record's key: parts of one line have the same.
    pub key: &'p [u8],
}

/// The same, within what stands around it. Parts of lines may wait for other records, and what waited and is whole with
/// this one is told as this one's.
pub fn split_within<'a>(
    within: Within<'_>,
    value: &'a [u8],
    reading: impl Into<Reading<'a>>,
    limits: &Limits,
    piece: &mut dyn FnMut(Piece<'_>),
) -> Option<Reject> {
    let (over, reading) = (within.over, reading.into());
    let Some(Among { parts, place, key }) = within.among else {
        let mut joins = Joins::default();
        return read(value, reading, limits, over, (&mut joins, &[]), piece);
    };
    let mut pieces = 0;
    let whole = read(value, reading, limits, over, parts.begin(place, key), &mut |p| {
        pieces += usize::from(!matches!(p, Piece::Ignored(_)));
        piece(p);
    });
    parts.told(pieces);
    whole
}

fn read(
    value: &[u8],
    reading: Reading<'_>,
    limits: &Limits,
    over: &Cell<bool>,
    (joins, stream): (&mut Joins, &[u8]),
    piece: &mut dyn FnMut(Piece<'_>),
) -> Option<Reject> {
    let mut open = Opener {
        reading,
        limits,
        layers: 0,
        probing: false,
        joins,
        spread: Vec::new(),
        expands: limits.record,
        over,
    };
    let mut rejects = Rejects::default();
    let (mut elements, mut too_many) = (0, false);
    let mut found = |p: Piece<'_>| {
        if over.get() {
            return;
        }
        // What is ignored goes nowhere.
        elements += usize::from(!matches!(p, Piece::Ignored(_)));
        if elements > limits.elements {
            too_many = true;
            over.set(true);
            return;
        }
        match p {
            Piece::Decision { event, .. } if event.raw.len() > limits.decision => {
                let detail = format!(
                    "the decision has {} bytes; limits.decision_bytes is {}",
                    event.raw.len(),
                    limits.decision
                );
                let bytes = event.raw.as_bytes().into();
                rejects.tell(bytes, Reject::new(Reason::TooLarge, detail), piece);
            }
            Piece::Reject { bytes, reject } => rejects.tell(bytes, reject, piece),
            p => piece(p),
        }
    };
    open.bytes(value, Around { stream, ..Around::default() }, &mut found);
    lines::flush(&mut open, &mut found);
    open.joins.end_of_record(&mut found);
    if !over.get() {
        rejects.tell_more(piece);
    }
    too_many.then(|| {
        let most = limits.elements;
        let detail = format!("{elements} elements or more in it; limits.record_elements is {most}");
        Reject::new(Reason::TooLarge, detail)
    })
}

/// How many rejects a record made, and what is told together of those that are too many.
#[derive(Default)]
struct Rejects {
    told: usize,
    more: Option<More>,
}

struct More {
    count: usize,
    /// Line by line, so that it can be read again.
    bytes: Vec<u8>,
    first: Reject,
}

impl Rejects {
    fn tell(&mut self, bytes: Cow<'_, [u8]>, reject: Reject, piece: &mut dyn FnMut(Piece<'_>)) {
        if self.told < MAX_REJECTS {
            self.told += 1;
            return piece(Piece::Reject { bytes, reject });
        }
        let more =
            self.more.get_or_insert_with(|| More { count: 0, bytes: Vec::new(), first: reject });
        if more.count > 0 {
            more.bytes.push(b'\n');
        }
        more.count += 1;
        more.bytes.extend_from_slice(&bytes);
    }

    fn tell_more(self, piece: &mut dyn FnMut(Piece<'_>)) {
        let Some(More { count, bytes, first }) = self.more else { return };
        let detail = format!(
            "{count} more rejects of this record, beside {MAX_REJECTS} told before; the first of them: {}",
            first.detail
        );
        piece(Piece::Reject { bytes: bytes.into(), reject: Reject::new(first.reason, detail) });
    }
}

/// Opens layer after layer.
pub(crate) struct Opener<'l> {
    reading: Reading<'l>,
    limits: &'l Limits,
    layers: usize,
    /// It is only asked what stands somewhere: parts of lines are not kept.
    probing: bool,
    joins: &'l mut Joins,
    /// Objects whose lines came one by one, until they are whole.
    spread: Vec<Spread>,
    /// How many bytes may still come of what is compressed.
    expands: usize,
    /// Nothing more is wanted.
    over: &'l Cell<bool>,
}

/// What the layers around some bytes said.
#[derive(Clone, Copy, Default)]
pub(crate) struct Around<'a> {
    agent: Option<&'a Agent>,
    /// An agent or a container runtime collected it, so that it is a line of some program's output: text there
    /// that is no JSON at all is not a decision gone wrong.
    collected: bool,
    /// Which stream of which container it is of, as far as it was said: parts of a line are joined within it.
    stream: &'a [u8],
}

impl<'a> Around<'a> {
    fn collected(self) -> Around<'a> {
        Around { collected: true, ..self }
    }
}

pub(crate) type Found<'f> = dyn FnMut(Piece<'_>) + 'f;

impl Opener<'_> {
    pub(crate) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// How many values a record may have where all of them are read before any is looked at.
    pub(crate) fn most_values(&self) -> usize {
        self.limits.elements.saturating_mul(VALUES)
    }

    /// Opens bytes of whatever kind.
    pub(crate) fn bytes(&mut self, value: &[u8], around: Around<'_>, found: &mut Found<'_>) {
        if self.layers > MAX_LAYERS {
            return reject(value, Reason::TooDeep, "envelopes around envelopes, eight deep", found);
        }
        self.layers += 1;
        self.layer(value, around, found);
        self.layers -= 1;
    }

    fn layer(&mut self, value: &[u8], around: Around<'_>, found: &mut Found<'_>) {
        if value.starts_with(&[0x1f, 0x8b]) {
            return match gunzip(value, self.expands) {
                Ok((plain, rest)) => {
                    self.expands -= plain.len();
                    self.bytes(&plain, around, found);
                    if !rest.is_empty() {
                        self.bytes(rest, around, found);
                    }
                }
                Err(e) => found(Piece::Reject { bytes: value.into(), reject: e }),
            };
        }
        // A protobuf request starts with the tag of its field 1, which is also a line feed.
        let format = self.reading.format;
        if format == Format::OtlpProto || (format == Format::Auto && value.first() == Some(&0x0a)) {
            match otlp::protobuf(value, self.most_values()) {
                Ok(request) => return otlp::open(self, request, around, found),
                Err(e) if format == Format::OtlpProto => {
                    let detail = format!("not an OTLP logs request: {e}");
                    return reject(value, Reason::BadOtlp, &detail, found);
                }
                Err(_) => {}
            }
        }
        // Windows writes UTF-16 with its mark; RFC 8259 has UTF-8 only, but it is plain what is meant.
        if let [0xff, 0xfe, rest @ ..] | [0xfe, 0xff, rest @ ..] = value {
            return match utf16(rest, value[0] == 0xfe) {
                Some(plain) => self.bytes(plain.as_bytes(), around, found),
                None => reject(value, Reason::InvalidUtf8, "neither UTF-8 nor UTF-16", found),
            };
        }
        match std::str::from_utf8(value) {
            Ok(valid) => text::read(self, Text::new(valid), around, found),
            Err(_) => {
                let clean = layer::cleaned(value);
                text::read(self, Text::damaged(&clean, value), around, found);
            }
        }
    }
}

fn utf16(bytes: &[u8], big: bool) -> Option<String> {
    let units = bytes.chunks_exact(2);
    if !units.remainder().is_empty() {
        return None;
    }
    let unit = |b: &[u8]| {
        if big { u16::from_be_bytes([b[0], b[1]]) } else { u16::from_le_bytes([b[0], b[1]]) }
    };
    String::from_utf16(&units.map(unit).collect::<Vec<_>>()).ok()
}

pub(crate) fn reject(bytes: &[u8], reason: Reason, detail: &str, found: &mut Found<'_>) {
    found(Piece::Reject { bytes: bytes.into(), reject: Reject::new(reason, detail) });
}

/// Whether an OTLP request has at most so many values: it may take a hundred times its size once it is read.
pub fn otlp_is_small(bytes: &[u8], json: bool, limits: &Limits) -> bool {
    let most = limits.elements.saturating_mul(VALUES);
    if json { weight::json(bytes, most) } else { weight::protobuf(bytes, most) }
}

/// Inflates gzip (RFC 1952, any number of members), at most `limit` bytes; with what follows it that is none. Zeros and white space,
/// as tapes and editors leave them, are nothing.
pub fn gunzip(value: &[u8], limit: usize) -> Result<(Vec<u8>, &[u8]), Reject> {
    use std::io::Read;
    let mut plain = Vec::with_capacity((value.len() * 4).min(limit));
    let mut rest = value;
    while rest.starts_with(&[0x1f, 0x8b]) {
        let mut member = GzDecoder::new(rest);
        let room = (limit - plain.len()) as u64 + 1;
        (&mut member)
            .take(room)
            .read_to_end(&mut plain)
            .map_err(|e| Reject::new(Reason::BadGzip, format!("gzip data can't be read: {e}")))?;
        if plain.len() > limit {
            let detail = format!(
                "more than {limit} bytes when decompressed; limits.record_bytes is {limit}"
            );
            return Err(Reject::new(Reason::TooLarge, detail));
        }
        rest = member.into_inner();
    }
    let is_nothing = rest.iter().all(|b| *b == 0 || b.is_ascii_whitespace());
    Ok((plain, if is_nothing { &[] } else { rest }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
