//! What node agents put around a line of OPA's stdout: Fluent Bit and Docker (`log`), Vector
//! (`message`), Splunk-style collectors (`event`). The envelope's other members are kept.

use super::super::json::{self, Member, push_string};
use super::super::record::Agent;
use super::super::reject::Reason;
use super::{Found, Opener, reject};

/// Members that hold the line, in the order they are looked for.
pub(super) const LINE_MEMBERS: [&str; 4] = ["log", "message", "MESSAGE", "event"];

pub(super) fn open(
    open: &mut Opener<'_>,
    members: &[Member<'_>],
    line: usize,
    outer: Option<&Agent>,
    found: &mut Found<'_>,
) {
    let agent = around(members, line, outer);
    let value = members[line].value;
    match json::as_str(value) {
        // Agents that parse JSON put the object there; others the line as text.
        None => open.bytes(value.as_bytes(), Some(&agent), found),
        Some(text) if text.trim().is_empty() => reject(
            value.as_bytes(),
            Reason::Empty,
            "the agent's envelope holds an empty line",
            found,
        ),
        Some(text) => open.bytes(text.as_bytes(), Some(&agent), found),
    }
}

/// The envelope without its line, as an object; envelopes inside envelopes keep both.
fn around(members: &[Member<'_>], line: usize, outer: Option<&Agent>) -> Agent {
    let mut out = b"{".to_vec();
    for (i, member) in members.iter().enumerate() {
        if i == line {
            continue;
        }
        if out.len() > 1 {
            out.push(b',');
        }
        push_string(&mut out, &member.key());
        out.push(b':');
        out.extend_from_slice(member.value.as_bytes());
    }
    if let Some(outer) = outer {
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
