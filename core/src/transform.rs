//! The way of a record, from a producer's bytes to what becomes of each piece in them. Intake, the cases
//! of a pipeline file and `docket protect` all go this way.

use crate::decision::formats::{self, Format, Limits, Piece};
use crate::decision::reject::Reject;
use crate::protect::record::{Made, Rules, make};

/// A record of a source topic.
#[derive(Debug, Clone, Copy)]
pub struct Source<'s> {
    pub value: &'s [u8],
    pub headers: &'s [(&'s str, &'s [u8])],
    pub format: Format,
}

/// What becomes of a piece of a record.
#[derive(Debug)]
pub enum Product<'p> {
    /// It is no decision.
    Ignored,
    /// A decision that the team's policy says not to record.
    Dropped,
    /// A docket record.
    Docket { made: Made, bytes: &'p [u8] },
    /// It goes to rejects, with its bytes.
    Reject { bytes: &'p [u8], reject: Reject },
}

/// Tells what becomes of each piece of a record, in their order. `refused` says of decisions, by their
/// place in the record, that they go to rejects whatever they are; `out` is room to write to.
pub fn transform(
    source: Source<'_>,
    limits: &Limits,
    rules: &Rules,
    out: &mut Vec<u8>,
    refused: &dyn Fn(usize) -> Option<Reject>,
    take: &mut dyn FnMut(Product<'_>),
) {
    let mut element = 0;
    formats::split(source.value, source.format, limits, &mut |piece| {
        match piece {
            Piece::Ignored => take(Product::Ignored),
            Piece::Reject { bytes, reject } => take(Product::Reject { bytes: &bytes, reject }),
            Piece::Decision { event, agent } => {
                out.clear();
                let made = match refused(element) {
                    Some(reject) => Err(reject),
                    None => make(&event, source.headers, agent.as_ref(), rules, out),
                };
                take(match made {
                    Ok(Some(made)) => Product::Docket { made, bytes: out },
                    Ok(None) => Product::Dropped,
                    Err(reject) => Product::Reject { bytes: event.raw.as_bytes(), reject },
                });
            }
        }
        element += 1;
    });
}
