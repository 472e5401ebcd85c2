//! HTTP both ways: the `client` that sinks and notifiers share and what a `failure` means, the `server`
//! that ports share, and the settings of both.

pub mod client;
pub mod config;
pub mod failure;
pub mod server;
