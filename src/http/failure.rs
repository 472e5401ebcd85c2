//! Why a request failed: the server or the way to it, or what was sent.

use std::time::Duration;

/// A request that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Nothing is known to have been taken, and the cause is an outage.
    Retry(Retry),
    /// The request was refused because of what is in it: by one record, or by its size.
    Refused(Refusal),
}

impl Failure {
    pub fn retry(cause: Cause, detail: impl Into<String>) -> Failure {
        Failure::Retry(Retry { cause, detail: detail.into(), after: None })
    }

    pub fn refused(status: u16, reason: impl Into<String>) -> Failure {
        Failure::Refused(Refusal { status, reason: reason.into() })
    }
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
    /// docket or a library panicked at the request or its answer: a bug.
    Panic,
}

impl Cause {
    pub const ALL: [Cause; 7] = [
        Cause::Connection,
        Cause::Timeout,
        Cause::Credentials,
        Cause::Throttled,
        Cause::Server,
        Cause::Misconfigured,
        Cause::Panic,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Connection => "connection",
            Cause::Timeout => "timeout",
            Cause::Credentials => "credentials",
            Cause::Throttled => "throttled",
            Cause::Server => "server",
            Cause::Misconfigured => "misconfigured",
            Cause::Panic => "panic",
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

impl Refusal {
    /// Its status, as people know it.
    pub fn named(&self) -> String {
        named(self.status)
    }
}

/// A status of HTTP, or of gRPC, as people know it.
pub fn named(status: u16) -> String {
    match status {
        0..=16 => format!("gRPC status {status} ({:?})", tonic::Code::from(i32::from(status))),
        200 => "a 200 that takes nothing".to_owned(),
        _ => format!("HTTP {status}"),
    }
}

/// What is behind an error that itself says only that something failed.
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
