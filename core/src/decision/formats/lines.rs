//! Lines: newline-delimited JSON, and text lines as container runtimes and OPA's console write them.

use super::super::json;
use super::super::record::Agent;
use super::super::reject::Reason;
use super::{Found, Opener, Piece, opa, reject};

/// Text that starts with a brace: one object, or one a line.
pub(super) fn json(
    open: &mut Opener<'_>,
    text: &[u8],
    agent: Option<&Agent>,
    found: &mut Found<'_>,
) {
    // One object, whether on one line or on many, ends where the text does.
    if json::end_of_value(text, 0) == text.len() || memchr::memchr(b'\n', text).is_none() {
        return opa::object(open, text, agent, found);
    }
    self::text(open, text, agent, found);
}

/// Lines: of a container's log, or one object a line.
pub(super) fn text(
    open: &mut Opener<'_>,
    text: &[u8],
    agent: Option<&Agent>,
    found: &mut Found<'_>,
) {
    let mut partial: Vec<u8> = Vec::new();
    for line in text.split(|b| *b == b'\n').map(json::trim).filter(|line| !line.is_empty()) {
        match cri(line) {
            // The runtime splits long lines into parts tagged P; the last one is tagged F.
            Some((b"P", rest)) => partial.extend_from_slice(rest),
            Some((_, rest)) if partial.is_empty() => one(open, rest, line, agent, true, found),
            Some((_, rest)) => {
                partial.extend_from_slice(rest);
                one(open, &partial, line, agent, true, found);
                partial.clear();
            }
            None => one(open, line, line, agent, agent.is_some(), found),
        }
    }
    if !partial.is_empty() {
        reject(
            &partial,
            Reason::NotJson,
            "a line of a container's log whose last part is missing",
            found,
        );
    }
}

/// One line. `collected` says that an agent or a container runtime collected it, so that it is a line of
/// some program's output; text there that is no JSON at all is not a decision gone wrong.
fn one(
    open: &mut Opener<'_>,
    content: &[u8],
    line: &[u8],
    agent: Option<&Agent>,
    collected: bool,
    found: &mut Found<'_>,
) {
    let content = json::trim(content);
    match content.first() {
        Some(b'{') => opa::object(open, content, agent, found),
        Some(b'[') => opa::array(open, content, agent, found),
        _ if collected || opa_text_log(content) => found(Piece::Ignored),
        _ => {
            let why = json::parse_object(content).err().map_or_else(String::new, |e| e.to_string());
            let reason = if std::str::from_utf8(content).is_ok() {
                Reason::NotJson
            } else {
                Reason::InvalidUtf8
            };
            reject(
                line,
                reason,
                &format!("neither a decision nor a line of OPA's log: {why}"),
                found,
            );
        }
    }
}

/// A CRI log line (Kubernetes, containerd, CRI-O): time, stream, tag, content.
fn cri(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let (time, stream, tag, content) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_time =
        time.len() >= 20 && time[4] == b'-' && time[10] == b'T' && time[0].is_ascii_digit();
    (is_time && matches!(stream, b"stdout" | b"stderr") && matches!(tag.first(), Some(b'P' | b'F')))
        .then(|| (&tag[..1], content))
}

/// OPA's text log format: `time="..." level=info msg="..."`, or `[INFO] ...`.
fn opa_text_log(line: &[u8]) -> bool {
    let text = String::from_utf8_lossy(&line[..line.len().min(200)]);
    (text.contains("level=") && text.contains("msg="))
        || ["[DEBUG]", "[INFO]", "[WARN]", "[ERROR]"].iter().any(|tag| text.starts_with(tag))
}
