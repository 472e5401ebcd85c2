//! Where decisions go. A sink is one folder: `config` (its settings), an encoder, a client that sends what was encoded and says what
//! became of each record, and `query`, which asks what it holds. Batching, retries, bisection, dead letters and offsets are
//! `stage::deliver`'s; `any` is the one list of the kinds that there are.

pub mod any;
pub mod cloudwatch;
pub mod config;
pub mod delivery;
pub mod elasticsearch;
pub mod file;
pub mod loki;
pub mod metrics;
pub mod otlp;
pub mod query;
pub mod wire;

use std::future::Future;

pub use any::AnySink;

use crate::decision::record::Record;
use crate::http::failure::Failure;

pub trait Sink: Send + Sync + 'static {
    /// An encoded request. It is sent again as it is.
    type Body: Send + Sync + 'static;

    /// Pure: the same records give the same bytes.
    fn encode(&self, batch: &[Record<'_>]) -> Self::Body;

    /// How many bytes are sent, without what the protocol puts around them.
    fn size(body: &Self::Body) -> usize;

    fn send(&self, body: &Self::Body) -> impl Future<Output = Outcome> + Send;
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Every record was acknowledged.
    Delivered,
    /// None was.
    Failed(Failure),
    /// The answer tells of each record, in the order of the batch.
    Each(Vec<Result<(), Failure>>),
    /// The same where something was to be changed: not what is not there, or not yet.
    Changed(Vec<Result<bool, Failure>>),
}

impl From<Result<(), Failure>> for Outcome {
    fn from(result: Result<(), Failure>) -> Outcome {
        result.map_or_else(Outcome::Failed, |()| Outcome::Delivered)
    }
}
