//! What a decision answered: allow, deny, undefined or error; and the reasons it gave.
//!
//! To OPA a result is any JSON. The pipeline file's rules come first; then what teams commonly return.
//! What no rule can judge is `undefined`, counted, never guessed. `shape` has what teams commonly return, `reasons`
//! where they say why.

mod reasons;
mod shape;

use std::borrow::Cow;

use std::sync::Arc;

use globset::GlobMatcher;
use serde_json::Value;

use self::reasons::{collect, shorten, usual_reasons};
use super::event::Event;
use super::json::{self, Pointer};
use crate::rego;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    Allow,
    Deny,
    Undefined,
    Error,
    /// No decision: something that docket found in many (`spike`).
    Finding,
}

impl Verdict {
    /// Of decisions.
    pub const ALL: [Verdict; 4] =
        [Verdict::Allow, Verdict::Deny, Verdict::Undefined, Verdict::Error];

    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
            Verdict::Undefined => "undefined",
            Verdict::Error => "error",
            Verdict::Finding => "finding",
        }
    }

    pub fn parse(text: &str) -> Option<Verdict> {
        Verdict::ALL.into_iter().chain([Verdict::Finding]).find(|v| v.as_str() == text)
    }
}

/// At most so many reasons are kept, of so many bytes each.
pub const MAX_REASONS: usize = 16;
pub const MAX_REASON_BYTES: usize = 512;

/// A rule of the pipeline file.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Which policies: a glob on the path, `/` between the parts.
    pub path: GlobMatcher,
    /// Where in the result the answer stands.
    pub pointer: Pointer,
    /// Values that mean allow, and values that mean deny, as canonical JSON. A value in neither is undefined.
    pub allow: Vec<Value>,
    pub deny: Vec<Value>,
    /// Where in the result the reasons stand; without it, the usual places.
    pub reasons: Option<Pointer>,
}

/// What the pipeline file says of results.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// A policy of the team's own, asked first.
    pub policy: Option<Arc<rego::Rule>>,
    pub rules: Vec<Rule>,
}

/// What judged the result: value of `docket.verdict_from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The record has an `error`.
    Error,
    /// The record has no result.
    NoResult,
    /// The team's own policy.
    Policy,
    /// The rule of the pipeline file at this place, counted from 0.
    Rule(usize),
    /// A default, by the shape of the result.
    Boolean,
    Object,
    Set,
    String,
    /// There is a result, and nothing can judge it.
    Nothing,
}

impl Basis {
    pub fn name(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Basis::Error => "error",
            Basis::NoResult => "no_result",
            Basis::Policy => "policy",
            Basis::Rule(n) => return Cow::Owned(format!("rule:{n}")),
            Basis::Boolean => "boolean",
            Basis::Object => "object",
            Basis::Set => "set",
            Basis::String => "string",
            Basis::Nothing => "nothing",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement<'a> {
    pub verdict: Verdict,
    pub from: Basis,
    pub reasons: Vec<Cow<'a, str>>,
}

pub fn judge<'a>(event: &Event<'a>, rules: &Rules) -> Judgement<'a> {
    let mut reasons = Vec::new();
    if let Some(error) = event.error {
        collect(error, &mut reasons);
        // A decision that is undefined is no error to OPA, though it logs it as one. Its console has code and message
        // in one string.
        let code = json::get(error, "code").unwrap_or(error);
        let code = json::as_str(code).unwrap_or_default();
        let (verdict, from) = match code.split(':').next() {
            Some("undefined_document" | "opa_undefined_error") => {
                (Verdict::Undefined, Basis::NoResult)
            }
            _ => (Verdict::Error, Basis::Error),
        };
        return Judgement { verdict, from, reasons };
    }
    let Some(result) = event.result else {
        return Judgement { verdict: Verdict::Undefined, from: Basis::NoResult, reasons };
    };
    if let Some(policy) = &rules.policy {
        match rego::Input::new(event.raw)
            .and_then(|input| policy.ask(&input))
            .map(|said| said.as_ref().and_then(said_by_policy))
        {
            Ok(Some((verdict, mut reasons))) => {
                if reasons.is_empty() {
                    usual_reasons(result, &mut reasons);
                }
                return Judgement { verdict, from: Basis::Policy, reasons };
            }
            // It says nothing of this one.
            Ok(None) => {}
            // Never guessed.
            Err(_) => {
                return Judgement { verdict: Verdict::Undefined, from: Basis::Nothing, reasons };
            }
        }
    }
    let by_rule = rules.rules.iter().enumerate().find(|(_, rule)| rule.path.is_match(&*event.path));
    let (verdict, from) = match by_rule {
        Some((n, rule)) => (by_rule_values(rule, result), Basis::Rule(n)),
        None => {
            let judged = shape::judge(event, result);
            reasons.extend(judged.contradiction.map(|text| shorten(text.into())));
            (judged.verdict, judged.from)
        }
    };
    match by_rule.and_then(|(_, rule)| rule.reasons.as_ref()) {
        Some(pointer) => {
            if let Some(found) = pointer.find(result) {
                collect(found, &mut reasons);
            }
        }
        None => usual_reasons(result, &mut reasons),
    }
    Judgement { verdict, from, reasons }
}

/// A policy says allow, deny, undefined or error, or true or false; or an object with that as its verdict, and reasons.
fn said_by_policy(said: &Value) -> Option<(Verdict, Vec<Cow<'static, str>>)> {
    let word = |value: &Value| match value {
        Value::Bool(true) => Some(Verdict::Allow),
        Value::Bool(false) => Some(Verdict::Deny),
        Value::String(word) => Verdict::ALL.into_iter().find(|v| v.as_str() == word),
        _ => None,
    };
    let Value::Object(said) = said else {
        return Some((word(said).unwrap_or(Verdict::Undefined), Vec::new()));
    };
    let verdict =
        said.get("verdict").map_or(Verdict::Undefined, |v| word(v).unwrap_or(Verdict::Undefined));
    let text = |value: &Value| value.as_str().map(|text| shorten(text.to_owned().into()));
    let reasons = said
        .get("reasons")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(text)
        .take(MAX_REASONS);
    Some((verdict, reasons.collect()))
}

fn by_rule_values(rule: &Rule, result: &str) -> Verdict {
    let Some(found) = rule.pointer.find(result) else { return Verdict::Undefined };
    let Ok(found) = serde_json::from_str::<Value>(found) else { return Verdict::Undefined };
    let equal = |wanted: &Value| match (wanted, &found) {
        // 200 and 200.0 are one number.
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    };
    if rule.allow.iter().any(equal) {
        Verdict::Allow
    } else if rule.deny.iter().any(equal) {
        Verdict::Deny
    } else {
        Verdict::Undefined
    }
}

#[cfg(test)]
mod tests;
