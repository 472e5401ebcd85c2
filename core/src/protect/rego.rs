//! OPA's own mask and drop policies, in Rego.
//!
//! A policy that never asks for its input (or for the time, or for chance) always answers the same: it is evaluated once, and then costs what
//! its rules cost.

use std::borrow::Cow;

use super::opa::{self, Mask};
use crate::rego::{Input, Policies, Rule, SourceFile};

/// What a policy says of an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Drop,
    Mask(Vec<Mask>),
}

pub struct Policy {
    mask: Option<Rule>,
    drop: Option<Rule>,
    /// Of a policy that always answers the same.
    always: Option<Answer>,
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy").field("always", &self.always).finish_non_exhaustive()
    }
}

/// Words that make an answer depend on more than the policy.
const CHANGING: [&str; 6] = ["input", "time", "rand", "uuid", "http", "opa"];

/// Whether a policy's text names one of these outside of comments and strings.
fn changes(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'#' => at += memchr::memchr(b'\n', &bytes[at..]).unwrap_or(bytes.len() - at),
            // A template string has expressions in it.
            b'$' => return true,
            b'`' => at += 2 + memchr::memchr(b'`', &bytes[at + 1..]).unwrap_or(bytes.len()),
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b if b.is_ascii_alphabetic() || b == b'_' => {
                let end = at
                    + bytes[at..]
                        .iter()
                        .position(|b| !b.is_ascii_alphanumeric() && *b != b'_')
                        .unwrap_or(bytes.len() - at);
                if CHANGING.contains(&&text[at..end]) {
                    return true;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    false
}

impl Policy {
    /// Compiles policies; `mask` and `drop` are where the rules are, such as data.system.log.mask. One of them has to be there.
    pub fn new(
        policies: &[SourceFile],
        data: &[SourceFile],
        mask: &str,
        drop: &str,
    ) -> Result<Policy, String> {
        let mut all = Policies::new(policies, data)?;
        let (mask_rule, drop_rule) = (all.rule(mask)?, all.rule(drop)?);
        if mask_rule.is_none() && drop_rule.is_none() {
            return Err(format!("the policies have neither {mask} nor {drop}"));
        }
        let mut policy = Policy { mask: mask_rule, drop: drop_rule, always: None };
        if !policies.iter().any(|source| changes(&source.text)) {
            policy.always = Some(policy.evaluate(&Input::new("{}")?)?);
        }
        Ok(policy)
    }

    /// Whether the answer is always the same.
    pub fn is_constant(&self) -> bool {
        self.always.is_some()
    }

    /// What becomes of an event.
    pub fn ask(&self, event: &str) -> Result<Cow<'_, Answer>, String> {
        if let Some(always) = &self.always {
            return Ok(Cow::Borrowed(always));
        }
        self.evaluate(&Input::new(event)?).map(Cow::Owned)
    }

    fn evaluate(&self, event: &Input) -> Result<Answer, String> {
        if let Some(drop) = &self.drop
            && drop.ask(event)? == Some(true.into())
        {
            return Ok(Answer::Drop);
        }
        let said = self.mask.as_ref().map(|mask| mask.ask(event)).transpose()?.flatten();
        let Some(said) = said else { return Ok(Answer::Mask(Vec::new())) };
        opa::masks(&said).map(Answer::Mask).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Policy {
        let source = SourceFile {
            name: "mask.rego".into(),
            text: format!("package system.log\nimport rego.v1\n{text}"),
        };
        Policy::new(&[source], &[], "data.system.log.mask", "data.system.log.drop").unwrap()
    }

    #[test]
    fn what_does_not_ask_is_asked_once() {
        let constant = policy(
            "# input is not asked\nmask contains \"/input/password\"\nmask contains {\"op\": \"upsert\", \"path\": \"/input/a\", \"value\": `input`}",
        );
        assert!(constant.is_constant());
        assert!(matches!(&*constant.ask("{}").unwrap(), Answer::Mask(masks) if masks.len() == 2));
        assert!(
            !policy("mask contains \"/input/x\" if input.input.method == \"POST\"").is_constant()
        );
        assert!(!policy("mask contains \"/input/x\" if time.now_ns() > 0").is_constant());
    }

    #[test]
    fn answers_depend_on_the_event() {
        let policy = policy(
            "mask contains \"/input/x\" if input.input.method == \"POST\"\ndrop if input.path == \"healthz\"",
        );
        let ask = |event: &str| match &*policy.ask(event).unwrap() {
            Answer::Mask(masks) => Some(masks.len()),
            Answer::Drop => None,
        };
        assert_eq!(ask(r#"{"input":{"method":"POST"},"path":"a"}"#), Some(1));
        assert_eq!(ask(r#"{"input":{"method":"GET"},"path":"a"}"#), Some(0));
        assert_eq!(ask(r#"{"path":"healthz"}"#), None);
    }

    /// What docket does not know must not look like a rule that does not apply.
    #[test]
    fn unknown_functions_are_no_silence() {
        let text = "package system.log\nimport rego.v1\ndrop if input.a == 2\nmask contains \"/input/x\" if nobody.knows(input.a)";
        let source = SourceFile { name: "mask.rego".into(), text: text.into() };
        match Policy::new(&[source], &[], "data.system.log.mask", "data.system.log.drop") {
            Err(said) => assert!(said.contains("nobody.knows"), "{said}"),
            Ok(policy) => assert!(policy.ask(r#"{"a":1}"#).is_err()),
        }
    }

    #[test]
    fn a_policy_that_can_not_answer_says_so() {
        let conflict = policy("drop := true if input.a\ndrop := false if input.b");
        assert!(conflict.ask(r#"{"a":1,"b":1}"#).is_err());
        assert!(policy("mask contains \"labels\" if input.a").ask(r#"{"a":1}"#).is_err());
        let source =
            SourceFile { name: "x.rego".into(), text: "package x\nimport rego.v1\na := 1".into() };
        assert!(
            Policy::new(&[source], &[], "data.system.log.mask", "data.system.log.drop")
                .unwrap_err()
                .contains("neither")
        );
    }
}
