//! Why a policy answered as it did: which line gave the answer, and which condition was not met. The decision is
//! evaluated again, with the bundle that made it.
//!
//! `bundle` opens what OPA loads, `rules` knows which rules stand where, `probe` asks how far a rule's body goes.
//! First the recorded result has to be reproduced; if it isn't, `differs` says what may be the reason. `story` is what
//! people read, `page` the same for browsers.

mod bundle;
mod differs;
pub mod page;
mod probe;
mod rules;
pub mod story;

pub use bundle::{Bundle, unpack};

use serde::Serialize;
use serde_json::Value as Json;

use self::probe::{End, Prober};
use self::rules::{Body, Definition, Shape};

/// What a decision's record says of its evaluation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Recorded<'a> {
    /// `http/authz/allow`.
    pub path: &'a str,
    /// JSON; without one the decision was undefined.
    pub result: Option<&'a str>,
    pub input: Option<&'a str>,
    /// JSON arrays of pointers.
    pub erased: Option<&'a str>,
    pub masked: Option<&'a str>,
    /// What builtins answered whose answers change.
    pub nd_builtin_cache: Option<&'a str>,
    /// The evaluation failed: OPA's error, in JSON.
    pub error: Option<&'a str>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// `data.http.authz.allow`
    pub query: String,
    /// `None` is undefined.
    pub result: Option<Json>,
    /// Whether it is what was recorded.
    pub reproduced: bool,
    /// The evaluation fails, and where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// What may be the reason where it is not, and what the bundle lacks.
    pub differs: Vec<String>,
    /// That the bundle has nothing of what was asked for, and what it has instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lacks: Option<String>,
    pub rules: Vec<RuleSaid>,
}

/// What a rule said, and what each of its definitions had to do with it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleSaid {
    pub name: String,
    pub value: Option<Json>,
    pub definitions: Vec<DefinitionSaid>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DefinitionSaid {
    pub file: String,
    pub line: u32,
    /// The line.
    pub text: String,
    pub outcome: Outcome,
    pub value: Option<Json>,
    /// What the rules said of which its value is made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub made_of: Vec<RuleSaid>,
    pub unmet: Option<Unmet>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its body was met: the value is from here.
    Gave,
    /// No other was met.
    Default,
    NotMet,
    /// An earlier branch of the same rule was met.
    NotReached,
    /// A default that was not needed, or a function.
    Idle,
}

/// The condition at which a body ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Unmet {
    pub line: u32,
    pub text: String,
    /// It is the value, which can't be made, though all conditions are met.
    pub value: bool,
    /// What of the input it speaks of, with what stands there.
    pub input: Vec<(String, Option<Json>)>,
    /// What functions of the bundle said that it calls, with the calls as written.
    pub calls: Vec<(String, Option<Json>)>,
    /// What the rules said that it speaks of.
    pub because: Vec<RuleSaid>,
}

/// Rules within rules within rules.
const DEPTH: usize = 4;
/// Rules of a package that is asked for as a whole.
const RULES: usize = 50;

/// Evaluates a decision again. An error is what can't be read or evaluated at all.
pub fn explain(bundle: &Bundle, recorded: &Recorded<'_>) -> Result<Explanation, String> {
    let prober = Prober::new(bundle, recorded.input)?;
    let path: Vec<&str> = recorded.path.split('/').filter(|part| !part.is_empty()).collect();
    if path.is_empty() {
        return Err("it is the answer to an ad hoc query, which is not recorded in full".into());
    }
    let (result, failed) = match prober.query(&path) {
        Ok(result) => (result, None),
        Err(e) => (None, Some(e)),
    };
    let wanted = recorded.result.and_then(|raw| serde_json::from_str::<Json>(raw).ok());
    let reproduced = match &failed {
        Some(why) => differs::same_failure(why, recorded.error),
        None => recorded.error.is_none() && differs::same(result.as_ref(), wanted.as_ref()),
    };
    let query = rules::query(&path);
    let mut explanation = Explanation {
        query,
        result: result.as_ref().and_then(probe::json),
        reproduced,
        failed,
        differs: Vec::new(),
        lacks: differs::lacks(bundle, prober.definitions(), &path),
        rules: Vec::new(),
    };
    // Where it has nothing of it, there is nothing to guess at.
    if !reproduced && explanation.lacks.is_none() {
        let failed = explanation.failed.as_deref();
        explanation.differs = differs::reasons(bundle, &prober, recorded, failed);
    }
    // Of an evaluation that fails no rule has said anything.
    if explanation.failed.is_some() {
        return Ok(explanation);
    }
    for name in named(prober.definitions(), &path) {
        explanation.rules.push(said(&prober, &name, &mut Vec::new()));
    }
    Ok(explanation)
}

/// The rules that a path means, each as its package and its name: the one that it names or leads into, or all of a
/// package.
fn named(definitions: &[Definition], path: &[&str]) -> Vec<(String, String)> {
    let whole = path.join(".");
    let mut names: Vec<(String, String)> = Vec::new();
    for definition in definitions.iter().filter(|d| d.shape != Shape::Function) {
        let full = definition.full_name();
        let leads = |long: &str, short: &str| {
            long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if leads(&whole, &full) || (leads(&full, &whole) && definition.package.starts_with(&whole))
        {
            let name = (definition.package.clone(), definition.name.clone());
            if !names.contains(&name) && names.len() < RULES {
                names.push(name);
            }
        }
    }
    names
}

fn said(prober: &Prober, rule: &(String, String), above: &mut Vec<(String, String)>) -> RuleSaid {
    above.push(rule.clone());
    let of = |d: &&Definition| d.package == rule.0 && d.name == rule.1;
    let definitions: Vec<&Definition> = prober.definitions().iter().filter(of).collect();
    let value = prober.value(rule);
    let mut met = false;
    let mut all = Vec::new();
    for definition in definitions.iter().filter(|d| d.shape != Shape::Default) {
        defined(prober, definition, above, &mut met, &mut all);
    }
    for definition in definitions.iter().filter(|d| d.shape == Shape::Default) {
        let outcome = if met { Outcome::Idle } else { Outcome::Default };
        let mut said = DefinitionSaid::at(definition, definition.line, &definition.text, outcome);
        said.value = value.clone().filter(|_| !met);
        all.push(said);
    }
    // What gave the answer comes first.
    all.sort_by_key(|said| !matches!(said.outcome, Outcome::Gave | Outcome::Default));
    above.pop();
    RuleSaid { name: format!("data.{}.{}", rule.0, rule.1), value, definitions: all }
}

impl DefinitionSaid {
    fn at(definition: &Definition, line: u32, text: &str, outcome: Outcome) -> DefinitionSaid {
        let (file, text) = (definition.file.clone(), text.to_owned());
        DefinitionSaid { file, line, text, outcome, value: None, made_of: Vec::new(), unmet: None }
    }
}

/// What a definition had to do with it, with its branches.
fn defined(
    prober: &Prober,
    definition: &Definition,
    above: &mut Vec<(String, String)>,
    met: &mut bool,
    all: &mut Vec<DefinitionSaid>,
) {
    if definition.shape == Shape::Function {
        let (line, text) = (definition.line, &definition.text);
        return all.push(DefinitionSaid::at(definition, line, text, Outcome::Idle));
    }
    let mut branch_met = false;
    for body in &definition.bodies {
        let at = |outcome| DefinitionSaid::at(definition, body.line, &body.text, outcome);
        if body.is_else && branch_met {
            all.push(at(Outcome::NotReached));
            continue;
        }
        if let Some(value) = prober.gives(definition, body) {
            (*met, branch_met) = (true, true);
            let made_of = made_of(prober, definition, body, above);
            all.push(DefinitionSaid { value: Some(value), made_of, ..at(Outcome::Gave) });
            continue;
        }
        let end = prober.unmet(definition, body);
        let unmet = Some(unmet(prober, definition, end, above));
        all.push(DefinitionSaid { unmet, ..at(Outcome::NotMet) });
    }
}

/// What the rules said of which a value is made; and of another rule's, that its conditions speak of.
fn made_of(
    prober: &Prober,
    definition: &Definition,
    body: &Body,
    above: &mut Vec<(String, String)>,
) -> Vec<RuleSaid> {
    let before = body.conditions.last().map(|condition| &*condition.until_here);
    let value = body.value.as_deref().unwrap_or(&definition.value);
    let mut rules = prober.rules_in(definition, before, value);
    if above.len() > 1 {
        rules.extend(before.iter().flat_map(|text| prober.rules_in(definition, None, text)));
    }
    let rules = rules.into_iter();
    let rules: Vec<_> = rules.filter(|rule| !above.contains(rule)).collect();
    let most = DEPTH.saturating_sub(above.len()) * 3;
    rules.iter().take(most).map(|rule| said(prober, rule, above)).collect()
}

/// What there is to say of where a body ends. Of a value that can't be made, only what is not there.
fn unmet(
    prober: &Prober,
    definition: &Definition,
    End { before, line, text, elsewhere, value }: End<'_>,
    above: &mut Vec<(String, String)>,
) -> Unmet {
    let none = Unmet { line, text: text.clone(), value, ..Unmet::default() };
    if elsewhere {
        return none;
    }
    let nested = prober.rules_in(definition, before, &text);
    let nested = nested.into_iter().filter(|rule| !above.contains(rule));
    let nested: Vec<_> = nested.take(DEPTH.saturating_sub(above.len()) * 3).collect();
    let shown = |said: &Option<Json>| !value || said.is_none();
    let mut input = prober.input_in(&text);
    input.retain(|(_, there)| shown(there));
    let mut calls = prober.calls_in(definition, before, &text);
    calls.retain(|(_, gave)| shown(gave));
    let because = nested.iter().map(|rule| said(prober, rule, above));
    Unmet { input, calls, because: because.filter(|said| shown(&said.value)).collect(), ..none }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]
mod found;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]
mod tests;
