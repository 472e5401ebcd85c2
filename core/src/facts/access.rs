//! Access logs of Envoy and Istio as JSON (envoyproxy.io, "Access logging": `json_format`; Istio's and Envoy
//! Gateway's default formats). The members' names are the configuration's: `fields` knows the usual ones.

use super::fields::{Fields, Problem, text_of};
use super::{Fact, Kind};
use crate::decision::json::Member;

/// `None` for what is no access log at all: nothing in it says what was answered.
pub fn read<'a>(members: &[Member<'a>]) -> Result<Option<Fact<'a>>, Problem> {
    let mut fields = Fields::default();
    for member in members {
        if let Some(text) = text_of(member.value) {
            // A program's own log has members of these names too: it is judged at the end.
            let put = fields.put(&member.key(), text);
            if put.is_err() && members.iter().any(|m| m.name == "response_code") {
                put?;
            }
        }
    }
    if !fields.is_request() {
        return Ok(None);
    }
    match fields.fact(Kind::Access) {
        Some(fact) => Ok(Some(fact)),
        None => Err(("start_time".into(), "it has none, nor any other time".into())),
    }
}
