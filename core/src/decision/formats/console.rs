//! OPA's console in its text format, and logrus's lines. A decision can't be read from them in full: values
//! are written as Go prints them.

use super::{Found, Ignored, Piece, Reason, reject};

/// Lines that say so go to rejects with this.
pub(super) const SET: &str = "a decision as OPA's text console prints it can't be read in full: start OPA with --log-format json";

const LEVELS: [&str; 8] = ["DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL", "PANIC", "TRACE"];

/// Where the text block ends that begins at `at`: `[INFO] message`, and the lines indented below it.
pub(super) fn block(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at..];
    let after = rest.strip_prefix('[')?;
    let message = LEVELS.iter().find_map(|level| after.strip_prefix(level)?.strip_prefix("] "))?;
    let line = message.split('\n').next().unwrap_or_default();
    // Others print JSON behind such a head.
    if line.contains("{\"") || line.contains("{ \"") {
        return None;
    }
    let mut end = at + (rest.len() - message.len()) + line.len();
    while let Some(next) = text[end..].strip_prefix('\n') {
        let line = next.split('\n').next().unwrap_or_default();
        if line.trim().is_empty() || !line.starts_with([' ', '\t']) {
            break;
        }
        end += 1 + line.len();
    }
    Some(end)
}

/// What a block is; `bytes` are those of `text`.
pub(super) fn told(text: &str, bytes: &[u8], found: &mut Found<'_>) {
    let decision = text.lines().enumerate().any(|(i, line)| match i {
        0 => line.contains("Decision Log"),
        _ => line.trim_start().starts_with("decision_id = "),
    });
    if decision {
        reject(bytes, Reason::TextFormat, SET, found);
    } else {
        found(Piece::Ignored(Ignored::OpaLog));
    }
}

/// A line of logrus's text formatter: `time=".." level=info msg=".."`.
pub(super) fn logrus(line: &str) -> bool {
    let head = &line.as_bytes()[..line.len().min(300)];
    let holds = |name: &[u8]| memchr::memmem::find(head, name).is_some();
    holds(b"level=") && holds(b"msg=")
}

/// Whether a line says a decision in text: logrus's, or one line of a block that an agent sent on its own.
pub(super) fn decision(line: &str) -> bool {
    (logrus(line) && (line.contains("msg=\"Decision Log\"") || line.contains(" decision_id=")))
        || line.trim_start().starts_with("decision_id = ")
        || LEVELS.iter().any(|level| {
            let rest = line.strip_prefix('[').and_then(|rest| rest.strip_prefix(level));
            rest.is_some_and(|rest| rest.trim_end() == "] Decision Log")
        })
}
