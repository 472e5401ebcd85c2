//! What must not spread is taken out of decisions before they get to the docket. Pure.
//!
//! `rego` asks a team's own OPA policies, `opa` applies their rules as OPA would, `rules` are pointers
//! with wildcards (`keys` encrypts and hashes for them), `detect` finds what no rule names, and `acts` on it: it `walk`s
//! through a decision, by `names` (of members, in `pairs`, `assignments`, `markup`, `blocks` and `commands`) and by
//! how things look (`patterns`, `makers`), in what is `encoded` (`escapes`), too, wherever the `prefilter` says that there may be something. What any of them has
//! `taken` out at one place is taken out `everywhere`, and `copies` of the decision go. All of them change
//! a `tree`, which stays as it was where nothing is touched. `record` makes the docket record of what is
//! left, `redact` takes more out of it for one sink. What can't be protected does not go on: it is
//! rejected, without its content.

mod acts;
mod addresses;
mod assignments;
mod blocks;
mod changed;
mod commands;
mod copies;
pub mod detect;
pub mod detector;
mod encoded;
mod escapes;
mod everywhere;
pub mod keys;
mod makers;
mod markup;
mod names;
pub mod opa;
mod pairs;
mod patterns;
mod prefilter;
pub mod record;
pub mod redact;
pub mod rego;
pub mod rules;
pub mod taken;
pub mod tree;
mod walk;

use std::sync::LazyLock;

use ring::hmac;
use sha2::{Digest, Sha256};

use crate::decision::event::Event;
use crate::decision::ids::hex;
use crate::decision::json;
use crate::decision::reject::{Reason, Reject};
use crate::decision::request;
use detect::{Asked, Detect};
use detector::Hit;
use everywhere::Everywhere;
use opa::Done;
use rego::{Answer, Policy};
use rules::Rule;
use taken::Taken;
use tree::Node;

/// What protects a pipeline's decisions.
#[derive(Debug, Default)]
pub struct Protection {
    pub policy: Option<Policy>,
    pub rules: Vec<Rule>,
    pub detect: Option<Detect>,
    /// By it the e-mail addresses of who asked are hashed where others are erased.
    pub pseudonyms: Option<hmac::Key>,
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
    /// It was a copy of the decision, or stood elsewhere, too, where one of those above took it out.
    Copies,
    /// A bound on a member's size.
    Size,
}

impl Protection {
    pub fn protect(&self, event: &Event<'_>, hits: &mut Vec<Hit>) -> Result<Protected, Reject> {
        static ASKING: LazyLock<request::Rules> = LazyLock::new(request::Rules::default);
        self.take_out(event, &ASKING, &mut Taken::default(), hits, &mut |_, _| {})
    }

    /// OPA's policies first, as if OPA had masked the decision itself; then the rules, the detectors, copies, and what is still too long is
    /// cut. `tell` hears what each of them did, `hits` gets what detectors found, `taken` what was taken out; what is in it already is
    /// taken out, too. `asking` says who asked for what.
    pub fn take_out(
        &self,
        event: &Event<'_>,
        asking: &request::Rules,
        taken: &mut Taken,
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
                Answer::Mask(masks) => heard(By::Opa, &opa::apply(masks, &mut node, taken)),
            }
        }
        for (i, rule) in self.rules.iter().enumerate() {
            heard(By::Rule(i), &rule.apply(event, &mut node, taken));
        }
        if copies::has_others(event.raw) {
            heard(By::Copies, &copies::erase(&mut node));
        }
        if let Some(detect) = &self.detect {
            let texts = || asking.find(event).into_iter().flatten().map(Into::into).collect();
            let asked = self.pseudonyms.as_ref().map(|key| Asked { key, texts: &texts });
            heard(By::Detectors, &detect.apply(event.raw, &mut node, asked.as_ref(), hits, taken));
        }
        if let Some(mut everywhere) = Everywhere::new(taken, event.raw.len()) {
            heard(By::Copies, &everywhere.clean(&mut node));
        }
        // Nothing of it can be longer than all of it.
        if self.sizes.iter().any(|(_, most)| event.raw.len() > *most) {
            heard(By::Size, &self.cut(&mut node));
        }
        if !changed {
            return Ok(Protected::AsItWas);
        }
        rules::keep_types(&mut node);
        keys::seal_again(&mut node, &event.decision_id, &taken.sealed);
        Ok(Protected::Changed(node.to_text()))
    }

    /// What an agent wrapped around a decision, without what detectors find in it, and without copies of the decision.
    pub fn protect_agent(
        &self,
        json: &str,
        hits: &mut Vec<Hit>,
        taken: &mut Taken,
    ) -> Option<String> {
        let copied = copies::erase_from(json);
        let text = copied.as_deref().unwrap_or(json);
        let detected = self.detect.as_ref().and_then(|d| d.apply_to_text(text, hits, taken));
        detected.or(copied)
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
