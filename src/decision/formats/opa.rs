//! OPA's own shapes: one object; a JSON array, as OPA uploads it and as EOPA batches it; a console line.

use super::super::docket::Agent;
use super::super::event::Event;
use super::super::json::{self, Member};
use super::super::reject::Reason;
use super::{Found, Opener, Piece, agent, otlp, reject};

/// An array of decisions. Each element is judged alone, so that a bad one does not take the others along.
pub(super) fn array(open: &mut Opener<'_>, text: &[u8], agent: Option<&Agent>, found: &mut Found<'_>) {
    let mut at = 1;
    let mut first = true;
    loop {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = text.get(at) {
            at += 1;
        }
        match text.get(at) {
            None => return reject(&text[at.min(text.len())..], Reason::NotJson, &format!("the array ends at byte {at}, without its ]"), found),
            Some(b']') => {
                let rest = json::trim(&text[at + 1..]);
                if !rest.is_empty() {
                    reject(rest, Reason::NotJson, &format!("something follows the end of the array at byte {}", at + 1), found);
                }
                return;
            }
            Some(b',') if !first => at += 1,
            Some(_) if !first => {
                return reject(&text[at..], Reason::NotJson, &format!("expected , or ] in the array at byte {at}"), found);
            }
            Some(_) => {}
        }
        first = false;
        let start = at + text[at..].iter().take_while(|b| matches!(b, b' ' | b'\n' | b'\t' | b'\r')).count();
        let end = element_end(text, start);
        let element = json::trim(&text[start..end]);
        match element.first() {
            Some(b'{') => object(open, element, agent, found),
            _ => reject(element, Reason::WrongType, &format!("the array's element at byte {start} is not an object"), found),
        }
        at = end;
    }
}

/// Where the element that starts at `start` ends: the comma or bracket after it, as far as brackets and
/// strings tell, so that an element that is not JSON ends somewhere, too.
fn element_end(text: &[u8], start: usize) -> usize {
    let mut at = json::end_of_value(text, start);
    while let Some(b) = text.get(at) {
        if matches!(b, b',' | b']') {
            break;
        }
        at = json::end_of_value(text, at).max(at + 1);
    }
    at.min(text.len())
}

/// One JSON object: a decision, a line of OPA's log, or an agent's envelope.
pub(super) fn object(open: &mut Opener<'_>, text: &[u8], agent: Option<&Agent>, found: &mut Found<'_>) {
    let members = match json::parse_object(text) {
        Ok(members) => members,
        Err(e) => return found(Piece::Reject { bytes: text.into(), reject: e.into() }),
    };
    match classify(&members) {
        Kind::Decision => {
            // parse_object saw that it is UTF-8.
            let raw = std::str::from_utf8(text).unwrap_or_default();
            match Event::from_members(raw, &members) {
                Ok(event) => found(Piece::Decision { event, agent: agent.cloned() }),
                Err(reject) => found(Piece::Reject { bytes: text.into(), reject }),
            }
        }
        Kind::OpaLog => found(Piece::Ignored),
        Kind::Otlp => match otlp::json(text) {
            Ok(request) => otlp::open(open, request, found),
            Err(e) => reject(text, Reason::BadOtlp, &format!("not an OTLP logs request: {e}"), found),
        },
        Kind::Envelope(line) => agent::open(open, &members, line, agent, found),
    }
}

pub(super) enum Kind {
    Decision,
    OpaLog,
    Otlp,
    /// The member that holds the line.
    Envelope(usize),
}

/// What an object is, by the names of its members.
fn classify(members: &[Member<'_>]) -> Kind {
    let find = |name: &str| members.iter().position(|m| m.name == name);
    if find("decision_id").is_some() {
        return Kind::Decision;
    }
    if find("resourceLogs").is_some() {
        return Kind::Otlp;
    }
    // An agent's envelope has its line in a string, and nothing that makes a decision of it.
    let decision = ["result", "labels", "input", "path"].iter().any(|name| find(name).is_some());
    if !decision {
        for name in agent::LINE_MEMBERS {
            if let Some(at) = find(name).filter(|at| matches!(members[*at].value.as_bytes()[0], b'"' | b'{')) {
                return Kind::Envelope(at);
            }
        }
    }
    // OPA logs with level and msg; its decisions with msg "Decision Log".
    match (find("level"), find("msg")) {
        (Some(_), Some(msg)) if members[msg].value != "\"Decision Log\"" => Kind::OpaLog,
        _ => Kind::Decision,
    }
}
