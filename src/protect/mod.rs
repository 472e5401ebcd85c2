//! The shield: what must not spread is taken out of decisions before they get to the docket. Pure.
//!
//! `rego` asks a team's own OPA policies, `opa` applies their rules as OPA would, `rules` are pointers with wildcards; all of them change a
//! `tree`, which stays as it was where nothing is touched. What can't be protected does not go on: it is rejected, without its content.

pub mod opa;
pub mod rego;
pub mod rules;
pub mod tree;

use crate::decision::event::Event;
use crate::decision::reject::{Reason, Reject};
use opa::Done;
use rego::{Answer, Policy};
use rules::Rule;
use tree::Node;

/// What protects a pipeline's decisions.
#[derive(Debug, Default)]
pub struct Shield {
    pub policy: Option<Policy>,
    pub rules: Vec<Rule>,
}

/// What became of a decision.
#[derive(Debug, PartialEq, Eq)]
pub enum Protected {
    AsItWas,
    /// The decision without what must not spread.
    Changed(String),
    /// The team's policy says not to record it.
    Dropped,
}

/// What did something to a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// OPA's mask policy.
    Opa,
    /// A rule of the pipeline file, from 0.
    Rule(usize),
}

impl Shield {
    pub fn protect(&self, event: &Event<'_>) -> Result<Protected, Reject> {
        self.explain(event, &mut |_, _| {})
    }

    /// OPA's policies first, as if OPA had masked the decision itself; then the rules. `tell` hears what each of them did.
    pub fn explain(&self, event: &Event<'_>, tell: &mut dyn FnMut(By, &Done)) -> Result<Protected, Reject> {
        let mut node = Node::Raw(event.raw);
        let mut changed = false;
        let mut heard = |by: By, done: &Done| {
            if !done.is_nothing() {
                changed = true;
                tell(by, done);
            }
        };
        if let Some(policy) = &self.policy {
            // What the policy says of itself may quote the decision.
            let answer = policy.ask(event.raw).map_err(|_| Reject::new(Reason::MaskFailed, "the mask policy can't be evaluated for it; it is withheld"))?;
            match &*answer {
                Answer::Drop => return Ok(Protected::Dropped),
                Answer::Mask(masks) => heard(By::Opa, &opa::apply(masks, &mut node)),
            }
        }
        for (i, rule) in self.rules.iter().enumerate() {
            heard(By::Rule(i), &rule.apply(&event.path, &mut node));
        }
        Ok(if changed { Protected::Changed(node.to_text()) } else { Protected::AsItWas })
    }
}
