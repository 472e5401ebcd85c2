//! HTTP both ways: the `client` that sinks and notifiers share, what a `failure` means, what of a request was `sent` when its answer came, and how the `answer` of a server that is
//! not meant is told, the `server` that ports share, and the settings of both.

pub mod answer;
pub mod client;
pub mod config;
pub mod failure;
mod sent;
pub mod server;
