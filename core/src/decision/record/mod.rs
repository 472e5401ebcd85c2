//! The docket record: written by intake, read by every sink. Its shape is documented in docs/record.md.

mod finding;
mod outline;
mod read;
mod write;

pub use finding::{Found, finding};
pub use outline::{NotARecord, Outline};
pub use read::{Content, Record, text, time};
pub use write::{Agent, Derivation, Rules, Service, Written, write, write_derived};
