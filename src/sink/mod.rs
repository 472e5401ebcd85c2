//! Where decisions go. A sink is a pure encoder and a client that sends what was encoded and says what
//! became of each record. Batching, retries, bisection, dead letters and offsets are `stage::deliver`'s.

mod aws;
pub mod cloudwatch;
pub mod elasticsearch;
pub mod file;
pub mod http;
pub mod loki;
pub mod metrics;
pub mod otlp;
pub mod wire;

use std::future::Future;
use std::time::Duration;

use crate::decision::record::Record;

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
    /// Nothing is known to have been taken, and the cause is an outage.
    Retry(Retry),
    /// The request was refused because of what is in it: by one record, or by its size.
    Refused(Refusal),
    /// The answer tells of each record, in the order of the batch.
    Each(Vec<One>),
}

/// What became of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum One {
    Delivered,
    Retry(Retry),
    Refused(Refusal),
}

/// Why to try again: the server or the way to it, not the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    pub cause: Cause,
    /// For people; quotes no data.
    pub detail: String,
    /// When the server wants it: Retry-After, RetryInfo.
    pub after: Option<Duration>,
}

/// A value of the metric label `cause`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// No connection, or it broke.
    Connection,
    Timeout,
    /// 401, 403: refused credentials are an outage, not a verdict on the data.
    Credentials,
    /// 408, 429.
    Throttled,
    /// 5xx.
    Server,
    /// The address or path is wrong: 404, 405, a redirect.
    Misconfigured,
}

impl Cause {
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Connection => "connection",
            Cause::Timeout => "timeout",
            Cause::Credentials => "credentials",
            Cause::Throttled => "throttled",
            Cause::Server => "server",
            Cause::Misconfigured => "misconfigured",
        }
    }
}

/// A refusal for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP or gRPC status.
    pub status: u16,
    /// In the server's words; may quote data, so it goes to the reject's headers and nowhere else.
    pub reason: String,
}
