//! What a decision answered: allow, deny, undefined or error; and the reasons it gave.
//!
//! To OPA a result is any JSON. The pipeline file's rules come first; then what teams commonly return.
//! What no rule can judge is `undefined`, counted, never guessed.

use std::borrow::Cow;

use std::sync::Arc;

use globset::GlobMatcher;
use serde_json::Value;

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
        return Judgement { verdict: Verdict::Error, from: Basis::Error, reasons };
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
        None => by_shape(&event.path, result),
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

/// Names of rules whose results are reasons to deny: empty means allow, and `true` means deny.
fn denies_by_presence(path: &str) -> bool {
    matches!(path.rsplit('/').next(), Some("deny" | "violation" | "violations"))
}

fn by_shape(path: &str, result: &str) -> (Verdict, Basis) {
    let negative = denies_by_presence(path);
    match result.as_bytes().first() {
        Some(b't' | b'f') => (
            if (result == "true") != negative { Verdict::Allow } else { Verdict::Deny },
            Basis::Boolean,
        ),
        Some(b'[') if negative => {
            (empty_is_allow(json::elements(result).next().is_none()), Basis::Set)
        }
        Some(b'{') => {
            if let Some(verdict) = in_object(result) {
                (verdict, Basis::Object)
            } else if negative {
                // A partial object rule: deny[key] := reason.
                (empty_is_allow(json::members(result).next().is_none()), Basis::Set)
            } else {
                (Verdict::Undefined, Basis::Nothing)
            }
        }
        Some(b'"') => match json::as_str(result).and_then(|word| by_word(&word)) {
            Some(verdict) => (verdict, Basis::String),
            None => (Verdict::Undefined, Basis::Nothing),
        },
        _ => (Verdict::Undefined, Basis::Nothing),
    }
}

fn empty_is_allow(empty: bool) -> Verdict {
    if empty { Verdict::Allow } else { Verdict::Deny }
}

/// `allow`, `allowed`, `permit`, `decision`, or an AdmissionReview's `response.allowed`; where there is
/// none of these, a `deny` or `violation` member that is a set.
fn in_object(result: &str) -> Option<Verdict> {
    let answer = |raw: &str| match raw {
        "true" => Some(Verdict::Allow),
        "false" => Some(Verdict::Deny),
        _ => json::as_str(raw).and_then(|word| by_word(&word)),
    };
    for name in ["allow", "allowed", "permit", "decision"] {
        if let Some(raw) = json::get(result, name) {
            return answer(raw).or_else(|| in_object_once(raw));
        }
    }
    if let Some(verdict) = json::get(result, "response").and_then(in_object_once) {
        return Some(verdict);
    }
    ["deny", "violation", "violations"].iter().find_map(|name| match json::get(result, name)? {
        "true" => Some(Verdict::Deny),
        "false" => Some(Verdict::Allow),
        set if set.starts_with('[') => Some(empty_is_allow(json::elements(set).next().is_none())),
        _ => None,
    })
}

fn in_object_once(raw: &str) -> Option<Verdict> {
    match ["allow", "allowed"].iter().find_map(|name| json::get(raw, name))? {
        "true" => Some(Verdict::Allow),
        "false" => Some(Verdict::Deny),
        _ => None,
    }
}

fn by_word(word: &str) -> Option<Verdict> {
    const ALLOW: [&str; 5] = ["allow", "allowed", "permit", "permitted", "effect_allow"];
    const DENY: [&str; 5] = ["deny", "denied", "forbid", "forbidden", "effect_deny"];
    if ALLOW.iter().any(|w| w.eq_ignore_ascii_case(word)) {
        Some(Verdict::Allow)
    } else if DENY.iter().any(|w| w.eq_ignore_ascii_case(word)) {
        Some(Verdict::Deny)
    } else {
        None
    }
}

/// Reasons where policies usually put them.
fn usual_reasons<'a>(result: &'a str, out: &mut Vec<Cow<'a, str>>) {
    match result.as_bytes().first() {
        Some(b'[') => collect(result, out),
        Some(b'{') => {
            for name in [
                "reason",
                "reasons",
                "message",
                "messages",
                "msg",
                "deny",
                "violation",
                "violations",
            ] {
                if let Some(raw) = json::get(result, name) {
                    collect(raw, out);
                }
            }
            if let Some(status) =
                json::get(result, "response").and_then(|response| json::get(response, "status"))
            {
                collect(status, out);
            }
        }
        _ => {}
    }
}

/// Adds the texts of a reason: a string, an object with a message, or an array of these.
fn collect<'a>(raw: &'a str, out: &mut Vec<Cow<'a, str>>) {
    if out.len() >= MAX_REASONS {
        return;
    }
    match raw.as_bytes().first() {
        Some(b'"') => {
            let Some(text) = json::as_str(raw) else { return };
            if !text.is_empty() {
                out.push(shorten(text));
            }
        }
        Some(b'[') => {
            for element in json::elements(raw) {
                match element.as_bytes().first() {
                    Some(b'"') => collect(element, out),
                    Some(b'{') => message_of(element, out),
                    _ => {}
                }
            }
        }
        Some(b'{') => message_of(raw, out),
        _ => {}
    }
}

fn message_of<'a>(object: &'a str, out: &mut Vec<Cow<'a, str>>) {
    let text = ["message", "msg", "reason", "code"]
        .iter()
        .find_map(|name| json::get(object, name).filter(|raw| raw.starts_with('"')));
    if let Some(raw) = text {
        collect(raw, out);
    }
}

fn shorten(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.len() <= MAX_REASON_BYTES {
        return text;
    }
    let end = (0..=MAX_REASON_BYTES - 3).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    Cow::Owned(format!("{}…", &text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(path: &str, result: &str, rules: &[Rule]) -> (Verdict, String, Vec<String>) {
        let doc = format!(
            r#"{{"decision_id":"d","timestamp":"2026-11-24T12:48:50Z","path":"{path}","result":{result}}}"#
        );
        let event = Event::parse(doc.as_bytes()).unwrap();
        let judgement = judge(&event, &Rules { policy: None, rules: rules.to_vec() });
        (
            judgement.verdict,
            judgement.from.name().into_owned(),
            judgement.reasons.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn common_results_are_judged_by_their_shape() {
        use Verdict::*;
        for (path, result, verdict, from, reasons) in [
            ("a/allow", "true", Allow, "boolean", vec![]),
            ("a/allow", "false", Deny, "boolean", vec![]),
            ("a/deny", "true", Deny, "boolean", vec![]),
            ("a/decision", r#"{"allow":false,"reason":"frozen"}"#, Deny, "object", vec!["frozen"]),
            ("a/decision", r#"{"allowed":true,"headers":{}}"#, Allow, "object", vec![]),
            ("a", r#"{"decision":"DENY","reasons":["a","b"]}"#, Deny, "object", vec!["a", "b"]),
            ("a", r#"{"permit":"EFFECT_ALLOW"}"#, Allow, "object", vec![]),
            (
                "system/main",
                r#"{"response":{"allowed":false,"status":{"message":"no"}}}"#,
                Deny,
                "object",
                vec!["no"],
            ),
            ("k8s/deny", "[]", Allow, "set", vec![]),
            ("k8s/deny", r#"["x",{"msg":"y"}]"#, Deny, "set", vec!["x", "y"]),
            ("k8s/violation", r#"[{"msg":"y","details":{}}]"#, Deny, "set", vec!["y"]),
            ("k8s", r#"{"deny":["x"]}"#, Deny, "object", vec!["x"]),
            ("a", r#""EFFECT_DENY""#, Deny, "string", vec![]),
            ("a", r#""maybe""#, Undefined, "nothing", vec![]),
            ("a/roles", r#"["admin"]"#, Undefined, "nothing", vec!["admin"]),
            ("a", r#"{"allow":1}"#, Undefined, "nothing", vec![]),
            ("a", "null", Undefined, "nothing", vec![]),
            ("a", "42", Undefined, "nothing", vec![]),
        ] {
            let reasons: Vec<String> = reasons.into_iter().map(String::from).collect();
            assert_eq!(
                judged(path, result, &[]),
                (verdict, from.to_string(), reasons),
                "{path} {result}"
            );
        }
    }

    #[test]
    fn an_error_and_no_result_are_verdicts_of_their_own() {
        let event = |doc: &'static str| Event::parse(doc.as_bytes()).unwrap();
        let error = event(
            r#"{"decision_id":"d","timestamp":"2026-11-24T12:48:50Z","error":{"code":"internal_error","message":"boom"}}"#,
        );
        let judgement = judge(&error, &Rules::default());
        assert_eq!((judgement.verdict, judgement.reasons), (Verdict::Error, vec!["boom".into()]));
        let none = event(r#"{"decision_id":"d","timestamp":"2026-11-24T12:48:50Z"}"#);
        assert_eq!(judge(&none, &Rules::default()).from, Basis::NoResult);
    }

    #[test]
    fn the_pipeline_files_rule_wins_and_does_not_guess() {
        let rules = [Rule {
            path: globset::GlobBuilder::new("gateway/**")
                .literal_separator(true)
                .build()
                .unwrap()
                .compile_matcher(),
            pointer: Pointer::parse("/status").unwrap(),
            allow: vec![200.into()],
            deny: vec![401.into(), 403.into()],
            reasons: Some(Pointer::parse("/why").unwrap()),
        }];
        assert_eq!(
            judged("gateway/x/y", r#"{"status":403,"why":"role","reason":"not this"}"#, &rules),
            (Verdict::Deny, "rule:0".into(), vec!["role".into()])
        );
        assert_eq!(
            judged("gateway/x", r#"{"status":200.0,"allow":false}"#, &rules).0,
            Verdict::Allow
        );
        assert_eq!(judged("gateway/x", r#"{"status":500}"#, &rules).0, Verdict::Undefined);
        assert_eq!(judged("other", r#"{"allow":true}"#, &rules).0, Verdict::Allow);
    }

    #[test]
    fn reasons_are_bounded() {
        let many: Vec<String> = (0..100).map(|i| format!("{i}-{}", "ü".repeat(600))).collect();
        let (_, _, reasons) = judged("k8s/deny", &serde_json::to_string(&many).unwrap(), &[]);
        assert_eq!(reasons.len(), MAX_REASONS);
        assert!(reasons.iter().all(|r| r.len() <= MAX_REASON_BYTES && r.ends_with('…')));
    }

    #[test]
    fn a_policy_of_the_team_judges_first() {
        let text = "package docket
import rego.v1
verdict := \"deny\" if input.result.score < 5
verdict := {\"verdict\": \"allow\", \"reasons\": [sprintf(\"score %v\", [input.result.score])]} if input.result.score > 9
verdict := \"allow\" if input.result.broken
verdict := \"deny\" if input.result.broken";
        let source = rego::SourceFile { name: "verdict.rego".into(), text: text.into() };
        let rule = rego::Policies::new(&[source], &[])
            .unwrap()
            .rule("data.docket.verdict")
            .unwrap()
            .unwrap();
        let rules = Rules { policy: Some(Arc::new(rule)), rules: Vec::new() };
        for (result, expected) in [
            (r#"{"score":3,"reason":"low"}"#, (Verdict::Deny, Basis::Policy, vec!["low"])),
            (r#"{"score":10}"#, (Verdict::Allow, Basis::Policy, vec!["score 10"])),
            // It says nothing of these: the defaults do.
            (r#"{"score":7,"allow":true}"#, (Verdict::Allow, Basis::Object, vec![])),
            ("false", (Verdict::Deny, Basis::Boolean, vec![])),
            // It contradicts itself.
            (r#"{"broken":true,"allow":true}"#, (Verdict::Undefined, Basis::Nothing, vec![])),
        ] {
            let text = format!(
                r#"{{"decision_id":"d","timestamp":"2026-11-24T12:00:00Z","result":{result}}}"#
            );
            let event = Event::parse(text.as_bytes()).unwrap();
            let judgement = judge(&event, &rules);
            assert_eq!(
                (
                    judgement.verdict,
                    judgement.from,
                    judgement.reasons.iter().map(|r| &**r).collect::<Vec<_>>()
                ),
                expected,
                "{result}"
            );
        }
    }
}
