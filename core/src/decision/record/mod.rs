//! The docket record: written by intake, read by every sink. Its shape is documented in docs/record.md.

mod finding;
mod read;
mod write;

pub use finding::{Found, finding};
pub use read::{Content, NotARecord, Record, time};
pub use write::{Agent, Derivation, Rules, Service, Written, write, write_derived};
