//! docket, the flight recorder for policy decisions. Everything pure is `docket_core`'s; here is what does I/O.
//!
//! From the ground up; a room uses only rooms above it in this list (`tests/house.rs` holds it to that), and any of
//! docket-core. docs/architecture.md says more.
//!
//! - [`clock`]: the time.
//! - [`caught`]: panics as failures.
//! - [`config`]: the values that settings are made of. Which settings there are, each room says in its own `config`.
//! - [`http`]: the client, the server, and what a failure means.
//! - [`telemetry`]: docket's own counters, health, logs and traces; the admin port.
//! - [`log`]: Kafka, the only place where data waits.
//! - [`sink`]: where decisions go: OTLP, Loki, Elasticsearch, CloudWatch Logs, files, Prometheus.
//! - [`door`]: takes decision logs over HTTP from OPAs that can't write to Kafka.
//! - [`notify`]: tells people of findings.
//! - [`pipeline`]: the pipeline file, which says everything below what to do.
//! - [`stage`]: the running parts. `intake` writes the docket topic, `deliver` hands it to one sink.
//! - [`verify`]: whether the sinks hold what the docket holds.
//! - [`doctor`]: what is wrong around a pipeline, and the way out.
//! - [`cli`]: the commands.

pub mod caught;
pub mod cli;
pub mod clock;
pub mod config;
pub mod doctor;
pub mod door;
pub mod http;
pub mod log;
pub mod notify;
pub mod pipeline;
pub mod sink;
pub mod stage;
pub mod telemetry;
pub mod verify;

pub use docket_core::{
    capacity, correlate, decision, explain, facts, generate, gzip, metrics, order, protect, rego,
    resume, ring, spike, topk, transform, words,
};
