//! docket without its I/O. Pure: bytes, times and rules come in as arguments, values go out.
//!
//! From the ground up; a room uses only rooms above it in this list:
//!
//! - [`words`]: numbers with their nouns, for people.
//! - [`topk`]: the heaviest of many, in bounded memory.
//! - [`rego`]: policies in Rego, compiled and evaluated.
//! - [`gzip`]: compression that several rooms share.
//! - [`decision`]: what a decision is; from a producer's bytes to the docket record.
//! - [`order`]: which partition is read next.
//! - [`ring`]: the newest records of a partition, for all who follow it.
//! - [`resume`]: where a reader goes on in a log, and what of it is gone.
//! - [`facts`]: what requests did, of access logs, spans and audit events.
//! - [`correlate`]: decisions meet the requests that they ruled on, and what enforcement did wrong.
//! - [`protect`]: what must not spread is taken out of it.
//! - [`explain`]: why a policy answered as it did: the line, and the condition that was not met.
//! - [`transform`]: the way of a record, from a producer's bytes to what becomes of each piece.
//! - [`spike`]: denial spikes and silent failures.
//! - [`metrics`]: what Prometheus scrapes of the decisions, and how it is written.
//! - [`capacity`]: capacity reviews: rates, growth, cost, headroom.
//! - [`generate`]: made-up decisions, for load, drills and the demo, and how well they are detected.

pub mod capacity;
pub mod correlate;
pub mod decision;
pub mod explain;
pub mod facts;
pub mod generate;
pub mod gzip;
pub mod metrics;
pub mod order;
pub mod protect;
pub mod rego;
pub mod resume;
pub mod ring;
pub mod spike;
pub mod topk;
pub mod transform;
pub mod words;
