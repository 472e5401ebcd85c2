//! What a decision is. Pure: bytes and rules in, values out.
//!
//! In the order a record walks: `formats` finds the decisions in what a producer wrote, `event` reads
//! one (OPA's EventV1), `verdict` says what it answered, `trace` whose request it belongs to, `asked` who asked for what, `docket`
//! writes the docket record, and `record` reads that record back for the sinks.

pub mod asked;
pub mod docket;
pub mod event;
pub mod formats;
pub mod ids;
pub mod json;
pub mod record;
pub mod reject;
pub mod time;
pub mod trace;
pub mod verdict;
