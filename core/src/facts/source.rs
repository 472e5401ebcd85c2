//! What a topic of facts is said to hold.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{BadFact, Fact, Kind, Piece, read};
use crate::decision::formats::Limits;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Recognized record by record.
    #[default]
    Auto,
    /// Access log lines of Envoy, Istio or Envoy Gateway as JSON, or as an OTLP access log service writes them.
    AccessLog,
    /// OpenTelemetry spans and access logs, as protobuf or JSON.
    Otlp,
    /// Kubernetes audit events as JSON.
    Audit,
}

impl Format {
    fn may_be(self, kind: Kind) -> bool {
        match self {
            Format::Auto => true,
            Format::AccessLog => kind == Kind::Access,
            Format::Otlp => kind != Kind::Audit,
            Format::Audit => kind == Kind::Audit,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Format::Auto => "auto",
            Format::AccessLog => "access_log",
            Format::Otlp => "otlp",
            Format::Audit => "audit",
        }
    }
}

/// As `read`; what is of another kind than it is said to be is bad.
pub fn read_as(value: &[u8], format: Format, limits: &Limits, take: &mut dyn FnMut(Piece<'_>)) {
    read(value, limits, &mut |piece| match piece {
        Piece::Fact(fact) if !format.may_be(fact.kind) => take(Piece::Bad(other(&fact, format))),
        piece => take(piece),
    });
}

fn other(fact: &Fact<'_>, format: Format) -> BadFact {
    let problem = format!(
        "it is of kind {}, and the topic's format is {}",
        fact.kind.as_str(),
        format.as_str()
    );
    BadFact::new("record", problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_another_kind_is_told() {
        let line = br#"{"start_time":"2026-11-24T12:48:50Z","response_code":200}"#;
        let read = |format| {
            let mut seen = Vec::new();
            read_as(line, format, &Limits::default(), &mut |piece| {
                seen.push(match piece {
                    Piece::Fact(fact) => fact.kind.as_str().to_owned(),
                    Piece::Ignored => "ignored".into(),
                    Piece::Bad(bad) => bad.to_string(),
                });
            });
            seen
        };
        for format in [Format::Auto, Format::AccessLog, Format::Otlp] {
            assert_eq!(read(format), ["access_log"]);
        }
        assert_eq!(
            read(Format::Audit),
            ["record: it is of kind access_log, and the topic's format is audit"]
        );
    }
}
