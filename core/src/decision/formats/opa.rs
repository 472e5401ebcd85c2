//! OPA's own shapes: one object; a JSON array, as OPA uploads it and as EOPA batches it; a console line.

use super::super::event::Event;
use super::super::json::{self, Member};
use super::super::record::Agent;
use super::super::reject::Reason;
use super::{Found, Opener, Piece, agent, otlp, reject};

/// An array of decisions. Each element is judged alone, so that a bad one does not take the others along.
pub(super) fn array(
    open: &mut Opener<'_>,
    text: &[u8],
    agent: Option<&Agent>,
    found: &mut Found<'_>,
) {
    for element in Elements::of(text) {
        match element {
            Ok((_, element)) if element.starts_with(b"{") => object(open, element, agent, found),
            Ok((at, element)) => reject(
                element,
                Reason::WrongType,
                &format!("the array's element at byte {at} is not an object"),
                found,
            ),
            Err(Broken { rest, detail }) => reject(rest, Reason::NotJson, &detail, found),
        }
    }
}

/// The elements of an array that was not looked at yet, with where each begins; what is no array any more comes last.
pub struct Elements<'t> {
    text: &'t [u8],
    at: usize,
    first: bool,
    over: bool,
}

/// What is left of an array, and what is wrong with it.
#[derive(Debug)]
pub struct Broken<'t> {
    pub rest: &'t [u8],
    pub detail: String,
}

impl<'t> Elements<'t> {
    /// `text` begins with its bracket.
    pub fn of(text: &'t [u8]) -> Elements<'t> {
        Elements { text, at: 1, first: true, over: false }
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    fn broken(
        &mut self,
        rest: usize,
        detail: String,
    ) -> Option<Result<(usize, &'t [u8]), Broken<'t>>> {
        self.over = true;
        Some(Err(Broken { rest: &self.text[rest.min(self.text.len())..], detail }))
    }
}

impl<'t> Iterator for Elements<'t> {
    type Item = Result<(usize, &'t [u8]), Broken<'t>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        self.space();
        let at = self.at;
        match self.text.get(at) {
            None => return self.broken(at, format!("the array ends at byte {at}, without its ]")),
            Some(b']') => {
                self.over = true;
                self.at += 1;
                self.space();
                let rest = self.at;
                return if rest == self.text.len() {
                    None
                } else {
                    self.broken(
                        rest,
                        format!("something follows the end of the array at byte {}", at + 1),
                    )
                };
            }
            Some(b',') if !self.first => {
                self.at += 1;
                self.space();
            }
            Some(_) if !self.first => {
                return self.broken(at, format!("expected , or ] in the array at byte {at}"));
            }
            Some(_) => {}
        }
        self.first = false;
        let start = self.at;
        self.at = element_end(self.text, start);
        Some(Ok((start, json::trim(&self.text[start..self.at]))))
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
pub(super) fn object(
    open: &mut Opener<'_>,
    text: &[u8],
    agent: Option<&Agent>,
    found: &mut Found<'_>,
) {
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
            Err(e) => {
                reject(text, Reason::BadOtlp, &format!("not an OTLP logs request: {e}"), found)
            }
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
            if let Some(at) =
                find(name).filter(|at| matches!(members[*at].value.as_bytes()[0], b'"' | b'{'))
            {
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
