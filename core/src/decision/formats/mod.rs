//! Finds the decisions in what a producer wrote to Kafka. One file a format; `auto` tells them apart.
//!
//! A Kafka record may hold one decision or many, gzipped or not, wrapped by log agents or not. Each
//! piece ends in exactly one of three ways: a decision, a reject with its own bytes, or ignored (a line
//! of OPA's log that is no decision).

pub mod agent;
pub mod lines;
pub mod opa;
pub mod otlp;

use std::borrow::Cow;

pub use opa::Elements;

use flate2::bufread::MultiGzDecoder;

use super::event::Event;
use super::json;
use super::record::Agent;
use super::reject::{Reason, Reject};

/// How a source's records are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Told from the record: JSON decisions (one, an array, or lines), wrapped by an agent or not, or OTLP logs; any of them gzipped.
    #[default]
    Auto,
    /// JSON: one decision, an array of them as OPA uploads it, or one a line; any of them gzipped, or wrapped by a log agent.
    Json,
    /// OTLP logs as protobuf (`ExportLogsServiceRequest`), a decision in each body.
    OtlpProto,
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
    /// A line of OPA's log that is no decision.
    Ignored,
}

/// Bounds on what one Kafka record may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one decision.
    pub decision: usize,
    /// Bytes of one Kafka record's content, after decompression.
    pub record: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { decision: 1 << 20, record: 64 << 20 }
    }
}

/// Envelopes around envelopes are opened so many times (gzip, CRI, an agent, an array).
const MAX_LAYERS: usize = 8;

/// Calls `piece` for each piece of a Kafka record's value.
pub fn split<'a>(
    value: &'a [u8],
    format: Format,
    limits: &Limits,
    piece: &mut dyn FnMut(Piece<'_>),
) {
    let mut open = Opener { format, limits, layers: 0 };
    open.bytes(value, None, &mut |p| match p {
        Piece::Decision { event, .. } if event.raw.len() > limits.decision => {
            let detail = format!(
                "the decision has {} bytes; limits.decision_bytes is {}",
                event.raw.len(),
                limits.decision
            );
            piece(Piece::Reject {
                bytes: event.raw.as_bytes().into(),
                reject: Reject::new(Reason::TooLarge, detail),
            });
        }
        p => piece(p),
    });
}

/// Opens layer after layer.
pub(crate) struct Opener<'l> {
    format: Format,
    limits: &'l Limits,
    layers: usize,
}

pub(crate) type Found<'f> = dyn FnMut(Piece<'_>) + 'f;

impl Opener<'_> {
    /// Opens bytes of whatever kind. `agent` is what the layers around them said.
    pub(crate) fn bytes(&mut self, value: &[u8], agent: Option<&Agent>, found: &mut Found<'_>) {
        if self.layers >= MAX_LAYERS {
            return reject(value, Reason::TooDeep, "envelopes around envelopes, eight deep", found);
        }
        self.layers += 1;
        self.layer(value, agent, found);
        self.layers -= 1;
    }

    fn layer(&mut self, value: &[u8], agent: Option<&Agent>, found: &mut Found<'_>) {
        if value.starts_with(&[0x1f, 0x8b]) {
            return match gunzip(value, self.limits.record) {
                Ok(plain) => self.bytes(&plain, agent, found),
                Err(e) => found(Piece::Reject { bytes: value.into(), reject: e }),
            };
        }
        if self.format == Format::OtlpProto {
            return match otlp::protobuf(value) {
                Ok(request) => otlp::open(self, request, found),
                Err(e) => {
                    reject(value, Reason::BadOtlp, &format!("not an OTLP logs request: {e}"), found)
                }
            };
        }
        let text = json::trim(value);
        match text.first() {
            None => reject(value, Reason::Empty, "the record is empty", found),
            Some(b'[') => opa::array(self, text, agent, found),
            Some(b'{') => lines::json(self, text, agent, found),
            // A protobuf request starts with the tag of its field 1, which is also a line feed.
            Some(_) => match (self.format, value.first()) {
                (Format::Auto, Some(0x0a)) => match otlp::protobuf(value) {
                    Ok(request) => otlp::open(self, request, found),
                    Err(_) => lines::text(self, text, agent, found),
                },
                _ => lines::text(self, text, agent, found),
            },
        }
    }
}

pub(crate) fn reject(bytes: &[u8], reason: Reason, detail: &str, found: &mut Found<'_>) {
    found(Piece::Reject { bytes: bytes.into(), reject: Reject::new(reason, detail) });
}

/// Inflates gzip (RFC 1952, any number of members), at most `limit` bytes.
pub fn gunzip(value: &[u8], limit: usize) -> Result<Vec<u8>, Reject> {
    use std::io::Read;
    let mut plain = Vec::with_capacity((value.len() * 4).min(limit));
    match MultiGzDecoder::new(value).take(limit as u64 + 1).read_to_end(&mut plain) {
        Err(e) => Err(Reject::new(Reason::BadGzip, format!("gzip data can't be read: {e}"))),
        Ok(n) if n > limit => Err(Reject::new(
            Reason::TooLarge,
            format!("more than {limit} bytes when decompressed; limits.record_bytes is {limit}"),
        )),
        Ok(_) => Ok(plain),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
