//! Why something can't become a docket record. The reasons are values of a metric label and of a
//! record header, so they are few and stable; the detail is for people.

use super::json::JsonError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    Empty,
    NotJson,
    InvalidUtf8,
    DuplicateKey,
    TooDeep,
    BadGzip,
    TooLarge,
    WrongType,
    MissingDecisionId,
    BadDecisionId,
    MissingTimestamp,
    BadTimestamp,
    BadOtlp,
    /// OPA's console in its text format, which can't be read in full.
    TextFormat,
    /// What must not spread can't be taken out of it.
    MaskFailed,
    /// docket itself failed at the record, several times.
    Failed,
    /// A sink refused it for good.
    Refused,
    /// Older than a sink takes.
    TooOld,
    /// A record of the docket topic that docket did not write.
    BadDocketRecord,
    /// What stood in a log is gone and was not finished: it names the range, and holds no record.
    LogGap,
    /// What should say what a request did, and does not.
    BadFact,
}

impl Reason {
    pub const ALL: [Reason; 21] = {
        use Reason::*;
        [
            Empty,
            NotJson,
            InvalidUtf8,
            DuplicateKey,
            TooDeep,
            BadGzip,
            TooLarge,
            WrongType,
            MissingDecisionId,
            BadDecisionId,
            MissingTimestamp,
            BadTimestamp,
            BadOtlp,
            TextFormat,
            MaskFailed,
            Failed,
            Refused,
            TooOld,
            BadDocketRecord,
            LogGap,
            BadFact,
        ]
    };

    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Empty => "empty",
            Reason::NotJson => "not_json",
            Reason::InvalidUtf8 => "invalid_utf8",
            Reason::DuplicateKey => "duplicate_key",
            Reason::TooDeep => "too_deep",
            Reason::BadGzip => "bad_gzip",
            Reason::TooLarge => "too_large",
            Reason::WrongType => "wrong_type",
            Reason::MissingDecisionId => "missing_decision_id",
            Reason::BadDecisionId => "bad_decision_id",
            Reason::MissingTimestamp => "missing_timestamp",
            Reason::BadTimestamp => "bad_timestamp",
            Reason::BadOtlp => "bad_otlp",
            Reason::TextFormat => "text_format",
            Reason::MaskFailed => "mask_failed",
            Reason::Failed => "failed",
            Reason::Refused => "refused",
            Reason::TooOld => "too_old",
            Reason::BadDocketRecord => "bad_docket_record",
            Reason::LogGap => "log_gap",
            Reason::BadFact => "bad_fact",
        }
    }
}

/// A reason and what exactly was found where. The detail never quotes values of the input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.as_str())]
pub struct Reject {
    pub reason: Reason,
    pub detail: String,
}

impl Reject {
    pub fn new(reason: Reason, detail: impl Into<String>) -> Reject {
        Reject { reason, detail: detail.into() }
    }
}

impl From<JsonError> for Reject {
    fn from(error: JsonError) -> Reject {
        let reason = match error {
            JsonError::Utf8(_) => Reason::InvalidUtf8,
            JsonError::DuplicateKey { .. } => Reason::DuplicateKey,
            JsonError::TooDeep(_) => Reason::TooDeep,
            JsonError::Truncated(_) | JsonError::Syntax { .. } => Reason::NotJson,
        };
        Reject::new(reason, error.to_string())
    }
}
