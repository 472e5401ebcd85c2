//! Kafka: how docket connects, reads as a member of a group, writes in transactions, keeps offsets, and
//! makes its topics; and a broker inside the process for the demo and the hermetic tests.

pub mod client;
pub mod consumer;
pub mod headers;
pub mod mock;
pub mod offsets;
pub mod producer;
pub mod topics;
