//! docket, the flight recorder for policy decisions. The floors of the house, from the ground up; a room
//! uses only rooms below it (`tests/house.rs` holds them to that). docs/architecture.md says more.
//!
//! 1. `docket_core`: everything pure. Its own floors stand in its `lib.rs`.
//! 2. [`clock`], [`config`]: the time, and the values that settings are made of.
//! 3. [`http`]: the client, the server, and what a failure means.
//! 4. [`telemetry`]: docket's own counters, health, logs and traces; the admin port.
//! 5. [`log`]: Kafka, the only place where data waits.
//! 6. [`sink`]: where decisions go: OTLP, Loki, Elasticsearch, CloudWatch Logs, files, Prometheus.
//! 7. [`door`]: takes decision logs over HTTP from OPAs that can't write to Kafka.
//! 8. [`notify`]: tells people of findings.
//! 9. [`pipeline`]: the pipeline file, which says everything else what to do.
//! 10. [`stage`]: the running parts. `intake` writes the docket topic, `deliver` hands it to one sink.
//! 11. [`verify`]: whether the sinks hold what the docket holds.
//! 12. [`cli`]: the commands.

pub mod cli;
pub mod clock;
pub mod config;
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
    capacity, decision, generate, gzip, metrics, protect, rego, spike, topk, transform,
};
