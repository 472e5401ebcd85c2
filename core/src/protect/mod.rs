//! What must not spread is taken out of decisions before they get to the docket. Pure.
//!
//! `rego` asks a team's own OPA policies, `opa` applies their rules as OPA would, `rules` are pointers
//! with wildcards (`keys` encrypts and hashes for them), `detect` finds what no rule names (`detector`
//! says what there is, `patterns` how it looks, `prefilter` quickly where it may be); all of them change
//! a `tree`, which stays as it was where nothing is touched. `record` makes the docket record of what is
//! left, `redact` takes more out of it for one sink. What can't be protected does not go on: it is
//! rejected, without its content.

pub mod detect;
pub mod detector;
pub mod keys;
pub mod opa;
mod patterns;
mod prefilter;
pub mod record;
pub mod redact;
pub mod rego;
pub mod rules;
pub mod tree;

use sha2::{Digest, Sha256};

use crate::decision::event::Event;
use crate::decision::ids::hex;
use crate::decision::json;
use crate::decision::reject::{Reason, Reject};
use detect::Detect;
use detector::Hit;
use opa::Done;
use rego::{Answer, Policy};
use rules::Rule;
use tree::Node;

/// What protects a pipeline's decisions.
#[derive(Debug, Default)]
pub struct Protection {
    pub policy: Option<Policy>,
    pub rules: Vec<Rule>,
    pub detect: Option<Detect>,
    /// Members of a decision that are cut if they are longer, in bytes.
    pub sizes: Vec<(&'static str, usize)>,
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
    Detectors,
    /// A bound on a member's size.
    Size,
}

impl Protection {
    pub fn protect(&self, event: &Event<'_>, hits: &mut Vec<Hit>) -> Result<Protected, Reject> {
        self.explain(event, hits, &mut |_, _| {})
    }

    /// OPA's policies first, as if OPA had masked the decision itself; then the rules, the detectors, and what is still too long is cut. `tell`
    /// hears what each of them did, `hits` gets what detectors found.
    pub fn explain(
        &self,
        event: &Event<'_>,
        hits: &mut Vec<Hit>,
        tell: &mut dyn FnMut(By, &Done),
    ) -> Result<Protected, Reject> {
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
            let answer = policy.ask(event.raw).map_err(|_| {
                Reject::new(
                    Reason::MaskFailed,
                    "the mask policy can't be evaluated for it; it is withheld",
                )
            })?;
            match &*answer {
                Answer::Drop => return Ok(Protected::Dropped),
                Answer::Mask(masks) => heard(By::Opa, &opa::apply(masks, &mut node)),
            }
        }
        for (i, rule) in self.rules.iter().enumerate() {
            heard(By::Rule(i), &rule.apply(event, &mut node));
        }
        if let Some(detect) = &self.detect {
            heard(By::Detectors, &detect.apply(event.raw, &mut node, hits));
        }
        // Nothing of it can be longer than all of it.
        if self.sizes.iter().any(|(_, most)| event.raw.len() > *most) {
            heard(By::Size, &self.cut(&mut node));
        }
        Ok(if changed { Protected::Changed(node.to_text()) } else { Protected::AsItWas })
    }

    /// What an agent wrapped around a decision, without what detectors find in it.
    pub fn protect_agent(&self, json: &str, hits: &mut Vec<Hit>) -> Option<String> {
        self.detect.as_ref()?.apply_to_text(json, hits)
    }

    /// Cuts members that are too long: what is left says how long they were, their SHA-256, and how they began.
    fn cut(&self, event: &mut Node<'_>) -> Done {
        let mut done = Done::default();
        for (name, most) in &self.sizes {
            let Some(member) = event.member(name) else { continue };
            let text = member.to_text();
            if text.len() > *most {
                let begin = (0..=most / 2).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
                let mut marker = format!(
                    "{{\"truncated\":true,\"bytes\":{},\"sha256\":\"{}\",\"begins\":",
                    text.len(),
                    hex(&Sha256::digest(&text))
                );
                let mut quoted = Vec::new();
                json::push_string(&mut quoted, &text[..begin]);
                marker.push_str(&String::from_utf8(quoted).expect("a JSON string is text"));
                marker.push('}');
                *member = Node::New(marker);
                done.masked.push(format!("/{name}"));
            }
        }
        done.note(event);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_says_what_it_was() {
        let protection =
            Protection { sizes: vec![("input", 40), ("result", 40)], ..Protection::default() };
        let event = format!(
            r#"{{"decision_id":"d","timestamp":"2026-11-24T12:00:00Z","input":{{"a":"{}"}},"result":true}}"#,
            "ä\"".replace('"', "\\\"").repeat(30)
        );
        let parsed = Event::parse(event.as_bytes()).unwrap();
        let Protected::Changed(text) = protection.protect(&parsed, &mut Vec::new()).unwrap() else {
            panic!("nothing was cut")
        };
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let input = parsed.input.unwrap();
        assert_eq!(value["input"]["bytes"], input.len());
        assert_eq!(value["input"]["sha256"], hex(&Sha256::digest(input)));
        assert!(
            input.starts_with(value["input"]["begins"].as_str().unwrap())
                && value["result"] == true,
            "{text}"
        );
        assert_eq!(value["masked"], serde_json::json!(["/input"]));
    }
}
