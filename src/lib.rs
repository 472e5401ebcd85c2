//! docket, the flight recorder for policy decisions. The map of the house, in the order data walks it:
//!
//! - [`pipeline`]: the pipeline file, which says everything below what to do.
//! - [`door`]: takes decision logs over HTTP from OPAs that can't write to Kafka.
//! - [`log`]: Kafka, the only place where data waits.
//! - [`decision`]: what a decision is; from a producer's bytes to the docket record. Pure.
//! - [`rego`]: teams' own policies, asked.
//! - [`protect`]: what must not spread is taken out of it. Pure.
//! - [`transform`]: a record's way, from its bytes to what becomes of each piece. Pure.
//! - [`stage`]: the running parts. `intake` writes the docket topic, `deliver` hands it to one sink.
//! - [`sink`]: where decisions go: OTLP, Loki, Elasticsearch, CloudWatch Logs, files, Prometheus.
//! - [`topk`]: the heaviest of many, in bounded memory; for series and for what explains a finding.
//! - [`metrics`]: what Prometheus scrapes of the decisions.
//! - [`spike`]: denial spikes and silent failures. Pure.
//! - [`notify`]: tells people of them.
//! - [`telemetry`]: docket's own counters, logs, traces and health.
//! - [`admin`]: the port that serves them; [`push`] sends them where nobody can scrape. [`serve`] is what ports share.
//! - [`capacity`]: capacity reviews: rates, growth, cost, headroom. Pure.
//! - [`verify`]: whether the sinks hold what the docket holds.
//! - [`generate`]: made-up decisions, for load and the demo.
//! - [`cli`]: the commands.

pub mod admin;
pub mod cli;
pub mod clock;
pub mod door;
pub mod log;
pub mod notify;
pub mod pipeline;
pub mod push;
pub mod serve;
pub mod sink;
pub mod stage;
pub mod telemetry;
pub mod verify;

pub use docket_core::{
    capacity, decision, generate, gzip, metrics, protect, rego, spike, topk, transform,
};
