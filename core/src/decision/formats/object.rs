//! What a JSON object is: a decision, a line of OPA's log, or an envelope, told by what it holds. A record
//! without a decision id of its own is no decision, whatever members it has.

use std::collections::HashSet;

use super::super::event::Event;
use super::super::json::{self, Member};
use super::super::reject::{Reason, Reject};
use super::layer::Text;
use super::same::{Content, content};
use super::{Around, Found, Ignored, MAX_LAYERS, Opener, Piece, agent, join, marks, otlp, reject};

/// Members of envelopes that hold a line of a program's output, in the order they are looked for where none tells
/// of a decision.
const LINE_MEMBERS: [&str; 6] = ["log", "message", "MESSAGE", "event", "line", "textPayload"];

/// Opens an object that was found valid. Its text is all of it.
pub(super) fn open(
    open: &mut Opener<'_>,
    text: Text<'_>,
    members: &[Member<'_>],
    around: Around<'_>,
    found: &mut Found<'_>,
) {
    let find = |name: &str| members.iter().find(|m| m.name == name).map(|m| m.value);
    let mut refused = None;
    if find("decision_id").is_some_and(|id| id != "null") {
        match Event::from_members(text.text, members) {
            Ok(event) => {
                return found(Piece::Decision { event, agent: around.agent.cloned() });
            }
            // An envelope may have a copy of the id.
            Err(reject) if reject.reason == Reason::MissingTimestamp && !tells(members) => {
                refused = Some(reject);
            }
            Err(reject) => {
                return found(Piece::Reject { bytes: text.bytes.into(), reject });
            }
        }
    }
    if find("resourceLogs").is_some() {
        match otlp::from_json(text.bytes, open.most_values()) {
            // Of another form than today's, as before scopeLogs had their name: an envelope like others.
            Ok(request) if !otlp::has_records(&request) && marks::like(text.bytes) => {}
            Ok(request) => return otlp::open(open, request, around, found),
            Err(e) => {
                let detail = format!("not an OTLP logs request: {e}");
                return reject(text.bytes, Reason::BadOtlp, &detail, found);
            }
        }
    }
    let mut may_hold = holding(open, members);
    // It may be a decision whose id is damaged: then only a line in it counts, not an object that belongs to it.
    let like = marks::names(members);
    if like && !may_hold.iter().any(|at| marks::sure(members[*at].value.as_bytes())) {
        may_hold.retain(|at| members[*at].value.starts_with('"'));
    }
    let console = find("level").is_some() && find("msg").is_some();
    if may_hold.is_empty() {
        match line(members).filter(|_| refused.is_none() && !console) {
            Some(line) => member(open, members, line, around, found),
            None => nothing(text, members, refused, around, found),
        }
        return;
    }
    let mut ignored = Vec::new();
    let mut any = false;
    let told = &mut |piece: Piece<'_>| match piece {
        Piece::Ignored(what) => ignored.push(what),
        piece => {
            any = true;
            found(piece);
        }
    };
    match may_hold.as_slice() {
        [one] => member(open, members, *one, around, told),
        many => several(open, text, members, many, around, told),
    }
    if !any && like && !ignored.is_empty() {
        return nothing(text, members, refused, around, found);
    }
    ignored.into_iter().for_each(|what| found(Piece::Ignored(what)));
}

/// Whether an object says more of a decision than its id.
fn tells(members: &[Member<'_>]) -> bool {
    let names = ["input", "result", "labels", "path", "query", "error"];
    members.iter().any(|m| names.contains(&m.name))
}

/// The members that may hold a decision.
fn holding(open: &Opener<'_>, members: &[Member<'_>]) -> Vec<usize> {
    if let Some(name) = open.reading.envelope
        && let Some(named) = members.iter().position(|m| m.name == name)
    {
        return vec![named];
    }
    let may = |m: &Member<'_>| {
        matches!(m.value.as_bytes()[0], b'"' | b'{' | b'[')
            && m.name != "decision_id"
            && marks::like(m.value.as_bytes())
    };
    members.iter().enumerate().filter(|(_, m)| may(m)).map(|(i, _)| i).collect()
}

fn line(members: &[Member<'_>]) -> Option<usize> {
    LINE_MEMBERS
        .iter()
        .find_map(|name| members.iter().position(|m| m.name == *name && m.value.starts_with('"')))
}

/// An object without a decision in it.
fn nothing(
    text: Text<'_>,
    members: &[Member<'_>],
    refused: Option<Reject>,
    around: Around<'_>,
    found: &mut Found<'_>,
) {
    let has = |name: &str| members.iter().any(|m| m.name == name);
    // OPA logs with level and msg; its decisions with msg "Decision Log". What opa-envoy-plugin says of each
    // decision when it is told to debug has other names.
    let console = has("level") && has("msg");
    if let Some(reject) = refused {
        found(Piece::Reject { bytes: text.bytes.into(), reject });
    } else if console && (has("decision-id") || !marks::names(members)) {
        found(Piece::Ignored(Ignored::OpaLog));
    } else if around.collected && !marks::names(members) {
        found(Piece::Ignored(Ignored::Json));
    } else {
        reject(text.bytes, Reason::MissingDecisionId, "the record has no decision_id", found);
    }
}

/// Opens a member that alone holds what there is.
fn member(
    open: &mut Opener<'_>,
    members: &[Member<'_>],
    at: usize,
    around: Around<'_>,
    found: &mut Found<'_>,
) {
    let rest = agent::around(members, &[at], around.agent);
    let stream = agent::stream(members, at, around.stream);
    let inside = Around { agent: Some(&rest), collected: true, stream: &stream };
    value(open, members, at, inside, found);
}

/// Opens a member's value: a line, an object, or an array of these.
fn value(
    open: &mut Opener<'_>,
    members: &[Member<'_>],
    at: usize,
    around: Around<'_>,
    found: &mut Found<'_>,
) {
    let raw = members[at].value;
    match raw.as_bytes().first() {
        Some(b'"') => {
            let line = json::as_str(raw).unwrap_or_default();
            joined(open, members, &line, around, found);
        }
        Some(b'{') => object(open, raw, around, found),
        Some(b'[') => {
            for element in json::elements(raw) {
                if element.starts_with('{') {
                    object(open, element, around, found);
                } else {
                    open.bytes(element.as_bytes(), around, found);
                }
            }
        }
        // The pipeline file names it, and there is neither a line nor an object in it.
        _ => open.bytes(raw.as_bytes(), around, found),
    }
}

/// A line that an envelope holds: opened, or put together first with others that are parts of it.
fn joined(
    open: &mut Opener<'_>,
    members: &[Member<'_>],
    text: &str,
    around: Around<'_>,
    found: &mut Found<'_>,
) {
    if open.probing {
        return open.bytes(text.as_bytes(), around, found);
    }
    join::line(open, text, agent::part(members), around, found);
}

/// An object inside an envelope.
fn object(open: &mut Opener<'_>, raw: &str, around: Around<'_>, found: &mut Found<'_>) {
    if open.layers > MAX_LAYERS {
        let detail = "envelopes around envelopes, eight deep";
        return reject(raw.as_bytes(), Reason::TooDeep, detail, found);
    }
    open.layers += 1;
    let members: Vec<Member<'_>> = json::members(raw).collect();
    self::open(open, Text::new(raw), &members, around, found);
    open.layers -= 1;
}

/// So many decisions of an envelope are looked for in what can't be read beside them.
const MAX_COPIES: usize = 64;

/// What stands in a member.
#[derive(Default)]
struct Inside {
    decisions: Vec<(String, Content)>,
    rejects: bool,
}

/// Whether a decision's id stands in JSON that can't be read, or in JSON inside its strings, as one.
fn names_id(raw: &str, id: &str) -> bool {
    let punctuation = ['\\', '"', ':', ' ', '\t'];
    memchr::memmem::find_iter(raw.as_bytes(), b"decision_id").any(|at| {
        let value = raw[at + "decision_id".len()..].trim_start_matches(punctuation);
        value
            .strip_prefix(id)
            .is_some_and(|after| after.is_empty() || after.starts_with(punctuation))
    })
}

/// Several members may hold a decision, or a copy of the same one: each decision is found once. Members that
/// held one are no part of what the agent said.
fn several(
    open: &mut Opener<'_>,
    text: Text<'_>,
    members: &[Member<'_>],
    may_hold: &[usize],
    around: Around<'_>,
    found: &mut Found<'_>,
) {
    let quiet = Around { agent: None, collected: true, stream: &[] };
    if open.probing {
        return may_hold.iter().for_each(|at| value(open, members, *at, quiet, found));
    }
    open.probing = true;
    let inside = |at: &usize| {
        let mut inside = Inside::default();
        value(open, members, *at, quiet, &mut |piece| match piece {
            Piece::Decision { event, .. } => {
                let content = content(&event);
                inside.decisions.push((event.decision_id.into_owned(), content));
            }
            Piece::Reject { .. } => inside.rejects = true,
            Piece::Ignored(_) => {}
        });
        (*at, inside)
    };
    let mut all: Vec<(usize, Inside)> = may_hold.iter().map(inside).collect();
    open.probing = false;
    all.retain(|(_, inside)| inside.rejects || !inside.decisions.is_empty());
    // Beside what may be a decision, the message that it came with says nothing of another one.
    let told = all.iter().any(|(at, _)| !is_message(&members[*at]));
    all.retain(|(at, _)| !told || !is_message(&members[*at]));
    let any = all.iter().any(|(_, inside)| !inside.decisions.is_empty());
    // A line is what the producer wrote; an object is what an agent made of it.
    all.sort_by_key(|(at, _)| !members[*at].value.starts_with('"'));
    let ids: Vec<&str> =
        all.iter().flat_map(|(_, i)| i.decisions.iter().map(|(id, _)| id.as_str())).collect();
    // What can't be read, and is of a decision that was read beside it, is a copy.
    let copy = |at: usize| ids.iter().take(MAX_COPIES).any(|id| names_id(members[at].value, id));
    let held: Vec<usize> = all.iter().map(|(at, _)| *at).collect();
    if all.is_empty() {
        return nothing(text, members, None, around, found);
    }
    if !any && all.len() > 1 {
        let detail = "several members tell of a decision, and none of them can be read";
        return reject(text.bytes, Reason::NotJson, detail, found);
    }
    let rest = agent::around(members, &held, around.agent);
    let mut seen: HashSet<Content> = HashSet::new();
    for (at, inside) in &all {
        let stream = agent::stream(members, *at, around.stream);
        let around = Around { agent: Some(&rest), collected: true, stream: &stream };
        let told = match inside.decisions.is_empty() {
            true => copy(*at),
            false => !inside.rejects && inside.decisions.iter().all(|(_, c)| seen.contains(c)),
        };
        if told {
            continue;
        }
        value(open, members, *at, around, &mut |piece| match &piece {
            Piece::Decision { event, .. } => {
                if seen.insert(content(event)) {
                    found(piece);
                }
            }
            _ => found(piece),
        });
    }
}

/// Whether a member is text that no decision can stand in.
fn is_message(member: &Member<'_>) -> bool {
    member.value.starts_with('"')
        && !member.value.contains('{')
        && !marks::sure(member.value.as_bytes())
}
