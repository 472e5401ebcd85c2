//! What a decision is. Pure: bytes and rules in, values out.
//!
//! In the order a record walks: `formats` finds the decisions in what a producer wrote, `event` reads
//! one (OPA's EventV1), `verdict` says what it answered, `trace` whose request it belongs to, `request`
//! who asked for what, `record` writes the docket record and reads it back for the sinks, `label` names
//! what a stream is labelled with.

pub mod base64;
pub mod event;
pub mod formats;
pub mod ids;
pub mod json;
pub mod label;
pub mod record;
pub mod reject;
pub mod request;
pub mod time;
pub mod trace;
pub mod verdict;
