//! From a decision to its docket record, without what must not spread.

use std::sync::Arc;

use super::detector::Hit;
use super::everywhere::Everywhere;
use super::keys;
use super::taken::Taken;
use super::{Protected, Protection};
use crate::decision::event::Event;
use crate::decision::record::{self, Agent, Derivation, Written, write, write_derived};
use crate::decision::reject::Reject;
use crate::decision::verdict::{self, Judgement};

/// What intake needs from the pipeline file to make a docket record of a decision.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    pub record: record::Rules,
    /// What takes out what must not spread.
    pub protection: Option<Arc<Protection>>,
}

/// A docket record that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    pub written: Written,
    /// What detectors found in the decision.
    pub hits: Vec<Hit>,
}

/// Appends the docket record of a decision to `out`, without what must not spread; nothing if it is not
/// to be recorded.
pub fn make(
    event: &Event<'_>,
    record_headers: &[(&str, &[u8])],
    agent: Option<&Agent>,
    rules: &Rules,
    out: &mut Vec<u8>,
) -> Result<Option<Made>, Reject> {
    let Rules { record: rules, protection } = rules;
    let Some(protection) = protection else {
        let written = write(event, record_headers, agent, rules, out);
        return Ok(Some(Made { written, hits: Vec::new() }));
    };
    let mut hits = Vec::new();
    let mut taken = Taken::default();
    // What is found in the one is taken out of the other.
    let mut cleaned = agent
        .and_then(|agent| protection.protect_agent(&agent.json, &mut hits, &mut taken))
        .map(|json| Agent { json });
    let protected =
        protection.take_out(event, &rules.request, &mut taken, &mut hits, &mut |_, _| {})?;
    if let Some(around) = cleaned.as_ref().or(agent)
        && let Some(mut everywhere) = Everywhere::new(&taken, around.json.len())
        && let Some(json) = everywhere.clean_text(&around.json)
    {
        cleaned = Some(Agent { json });
    }
    let agent = cleaned.as_ref().or(agent).filter(|agent| agent.json != "{}");
    let written = match protected {
        Protected::AsItWas => write(event, record_headers, agent, rules, out),
        Protected::Changed(text) => {
            let derived = Derivation::of(event, record_headers, rules);
            let mut changed = Event::parse(text.as_bytes())?;
            // What is sealed is not quoted: its envelope opens nowhere else.
            let unsealed = Unsealed::of(&changed);
            unsealed.put_into(&mut changed);
            // Reasons are a part of the result, which may have changed; what was decided has not.
            let judgement = Judgement {
                reasons: verdict::judge(&changed, &rules.verdict).reasons,
                ..derived.judgement
            };
            write_derived(&changed, &Derivation { judgement, ..derived }, agent, rules, out)
        }
        Protected::Dropped => return Ok(None),
    };
    Ok(Some(Made { written, hits }))
}

/// The parts of a decision that docket quotes, without what is sealed in them.
#[derive(Default)]
struct Unsealed {
    input: Option<String>,
    result: Option<String>,
    request_context: Option<String>,
    requested_by: Option<String>,
}

impl Unsealed {
    fn of(event: &Event<'_>) -> Unsealed {
        if !keys::may_hold(event.raw) {
            return Unsealed::default();
        }
        let without = |part: Option<&str>| part.and_then(keys::without);
        Unsealed {
            input: without(event.input),
            result: without(event.result),
            request_context: without(event.request_context),
            requested_by: without(event.requested_by),
        }
    }

    fn put_into<'u>(&'u self, event: &mut Event<'u>) {
        let put = |part: &mut Option<&'u str>, unsealed: &'u Option<String>| {
            if let Some(text) = unsealed {
                *part = Some(text);
            }
        };
        put(&mut event.input, &self.input);
        put(&mut event.result, &self.result);
        put(&mut event.request_context, &self.request_context);
        put(&mut event.requested_by, &self.requested_by);
    }
}
