//! Decisions meet the requests that they ruled on: a pure state machine. Records come in with their offsets, and so
//! does the time; what is to be written goes out.
//!
//! `join` is the machine. By which key a decision and a fact belong together, and which of several facts is the
//! request, says `rank`. `store` holds one side, `watermark` knows how far the sources are, `position` what is
//! committed. `finding` says what enforcement did wrong, `missing` of which times something is missing. `home` says in
//! which partition both sides meet, and `record` writes what becomes of a decision.
//!
//! A decision goes on once: with its match as soon as there is one that is exact, or without after `wait`. A better
//! match that comes later is an amendment, never a second decision. What the machine knows is a suffix of its input
//! topics: from the committed positions it is built again.

mod asked;
mod finding;
mod home;
mod join;
pub mod missing;
mod position;
mod rank;
pub mod record;
mod store;
mod watermark;

pub use asked::Asked;
pub use finding::{Finding, FindingKind, Pattern, Undecidable, Watch};
pub use home::Key;
pub use join::{Counts, Join, Matched, Out};
pub use position::Position;
pub use rank::Class;

use crate::decision::time::Nanos;

const SECOND: Nanos = 1_000_000_000;

/// Where a record stands in one of the two inputs. Which topic's partition a number means is the caller's to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub partition: u32,
    pub offset: i64,
}

/// One of the two inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    Decisions,
    Facts,
}

/// When a record comes: by the wall clock, and when it was written to its topic.
#[derive(Debug, Clone, Copy)]
pub struct Came {
    pub now: Nanos,
    pub written: Nanos,
}

impl From<Nanos> for Came {
    fn from(now: Nanos) -> Came {
        Came { now, written: now }
    }
}

#[derive(Debug, Clone)]
pub struct Settings {
    /// A decision waits so long for its request; then it goes on without.
    pub wait: Nanos,
    /// So much may clocks differ, and records of a partition be out of order.
    pub skew: Nanos,
    /// The longest request: so far apart in time a decision and its request's end are looked for, and after it is
    /// judged what was enforced.
    pub window: Nanos,
    /// A partition in which nothing came for so long is idle,
    pub idle_after: Nanos,
    /// and is taken to be so far behind the wall clock.
    /// Records are written at most so long after what they tell of.
    pub delay: Nanos,
    /// Bytes of memory for both sides.
    pub bytes: usize,
    /// By which ID both sides were brought together, if by one: then what lacks it may have its other half elsewhere.
    pub key: Option<Key>,
    /// Runs of decisions that were not given out, in the metadata of a commit: Kafka's brokers take 4,096 bytes.
    pub runs: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            wait: 5 * SECOND,
            skew: 2 * SECOND,
            window: 30 * SECOND,
            idle_after: 10 * SECOND,
            delay: 120 * SECOND,
            bytes: 256 << 20,
            key: None,
            runs: 600,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
