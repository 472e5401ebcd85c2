//! From a decision to its docket record, without what must not spread.

use std::sync::Arc;

use super::detector::Hit;
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
    let protected = protection.protect(event, &mut hits)?;
    let cleaned = agent
        .and_then(|agent| protection.protect_agent(&agent.json, &mut hits))
        .map(|json| Agent { json });
    let agent = cleaned.as_ref().or(agent);
    let written = match protected {
        Protected::AsItWas => write(event, record_headers, agent, rules, out),
        Protected::Changed(text) => {
            let derived = Derivation::of(event, record_headers, rules);
            let changed = Event::parse(text.as_bytes())?;
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
