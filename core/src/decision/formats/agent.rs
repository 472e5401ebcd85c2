//! What node agents and log stores put around a line of OPA's output. The envelope's other members are kept.

use super::super::json::{self, Member, push_string};
use super::super::record::Agent;

/// What is known of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// More of it comes.
    More,
    /// It ends with this, whether others came before or not.
    Last,
}

/// What the envelope says of its line: whether it is a part, and whether more of it comes. Docker's fluentd
/// driver and FireLens, Docker's journald driver, and what Fluent Bit and Fluentd call CRI's tag.
pub(super) fn part(members: &[Member<'_>]) -> Option<Part> {
    let mut part = None;
    for member in members {
        let said = member.value.trim_matches('"');
        match member.name {
            "partial_last" if said == "true" => return Some(Part::Last),
            "partial_message" | "CONTAINER_PARTIAL_MESSAGE" if said == "true" => {
                part = Some(Part::More);
            }
            "logtag" | "_p" if said.starts_with('P') => part = Some(Part::More),
            "logtag" | "_p" if said.starts_with('F') => part = Some(Part::Last),
            _ => {}
        }
    }
    part
}

/// Stands in a stream before what names a container.
pub(super) const NAMED: u8 = 1;

/// Which stream of which container a line is of, as far as its envelope says.
pub(super) fn stream(members: &[Member<'_>], line: usize, outer: &[u8]) -> Vec<u8> {
    const CONTAINERS: [&str; 7] = [
        "container_id",
        "container_name",
        "CONTAINER_ID",
        "partial_id",
        "CONTAINER_PARTIAL_ID",
        "kubernetes",
        "attrs",
    ];
    let mut key = outer.to_vec();
    for (i, member) in members.iter().enumerate() {
        let names = CONTAINERS.contains(&member.name);
        if i != line && (names || matches!(member.name, "stream" | "source")) {
            key.push(if names { NAMED } else { 0 });
            key.extend_from_slice(member.value.as_bytes());
        }
    }
    key
}

/// The envelope without what it holds, as an object; envelopes inside envelopes keep both.
pub(super) fn around(members: &[Member<'_>], held: &[usize], outer: Option<&Agent>) -> Agent {
    let mut out = b"{".to_vec();
    for (i, member) in members.iter().enumerate() {
        if held.contains(&i) {
            continue;
        }
        if out.len() > 1 {
            out.push(b',');
        }
        push_string(&mut out, &member.key());
        out.push(b':');
        out.extend_from_slice(member.value.as_bytes());
    }
    if let Some(outer) = outer.filter(|outer| outer.json != "{}") {
        if out.len() > 1 {
            out.push(b',');
        }
        // A name of docket's own, since the envelope's names are the agent's.
        push_string(
            &mut out,
            if members.iter().any(|m| m.name == "outer") { "docket.outer" } else { "outer" },
        );
        out.push(b':');
        out.extend_from_slice(outer.json.as_bytes());
    }
    out.push(b'}');
    Agent { json: String::from_utf8(out).expect("made of pieces of a valid document") }
}

/// Whether a line is a whole record by itself.
pub(super) fn whole(text: &str) -> bool {
    let text = text.trim();
    text.starts_with('{') && json::parse_prefix(text).is_ok_and(|(_, len)| len == text.len())
}
