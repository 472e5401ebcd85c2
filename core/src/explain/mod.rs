//! Why a policy answered as it did: which line gave the answer, and which condition was not met. The decision is
//! evaluated again, with the bundle that made it.
//!
//! `bundle` opens what OPA loads (data with `yaml`), `rules` knows which rules stand where, `texts` what stands in them, `probe` asks how far
//! a rule's body goes: an `engine` of regorus', with `builtins` that it lacks and variables that `rename` renames, or `opa` itself. First the
//! recorded result has to be reproduced; if it isn't, `differs` says what may be the reason. `said` asks rule by rule, `values` what stands in a
//! condition, `doubt` what of it nobody can know here: input that is `hidden`, numbers that are `inexact`, unless what they are compared with
//! makes it `certain`. `screen` takes out what is not to be shown: `secrets`, and what is `derived` of them. `story` is what people read, `page`
//! the same for browsers. Which policies a decision may come to, `reach` says.

mod builtins;
mod bundle;
mod certain;
mod derived;
mod differs;
mod doubt;
mod engine;
mod hidden;
mod inexact;
mod opa;
pub mod page;
mod probe;
mod reach;
mod rename;
mod rules;
mod said;
mod screen;
mod secrets;
pub mod story;
mod texts;
mod values;
mod yaml;

pub use bundle::{Bundle, unpack};
pub use opa::Opa;
pub use screen::without_result;

use std::collections::BTreeSet;

use regorus::Value;
use serde::Serialize;
use serde_json::Value as Json;

use self::probe::Prober;
use self::reach::{Reach, Unread};
use self::rules::{Definition, Shape};
use self::secrets::Secrets;
use crate::decision::json as raw;

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
    /// When it was made, in nanoseconds: the end of the evaluation.
    pub timestamp: Option<i64>,
    /// How long it took.
    pub duration: Option<u64>,
    /// What builtins answered whose answers change.
    pub nd_builtin_cache: Option<&'a str>,
    /// The evaluation failed: OPA's error, in JSON.
    pub error: Option<&'a str>,
    /// The record as it is shown, in JSON: what is secret there, or elsewhere, is in no explanation either. Without it all is told.
    pub shown: Option<&'a str>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// `data.http.authz.allow`
    pub query: String,
    /// Who evaluated it: `regorus`, or `OPA 1.22.2`.
    pub evaluated_by: String,
    /// Why OPA itself may know more, where regorus evaluated it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beyond_regorus: Option<String>,
    /// `None` is undefined.
    pub result: Option<Json>,
    /// The recorded result as it may be shown, where that is less than the record shows of it.
    #[serde(skip)]
    pub recorded: Option<Json>,
    /// Whether it is what was recorded.
    pub reproduced: bool,
    /// It may have ended at another condition than what is said: what it rests on is not known here.
    #[serde(skip_serializing_if = "is_false")]
    pub uncertain: bool,
    /// The evaluation fails, and where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// What may be the reason where it is not, and what the bundle lacks.
    pub differs: Vec<String>,
    /// That the bundle has nothing of what was asked for, and what it has instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lacks: Option<String>,
    /// Which of its rules can't be evaluated here, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    pub rules: Vec<RuleSaid>,
}

/// What a rule said, and what each of its definitions had to do with it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleSaid {
    pub name: String,
    pub value: Option<Json>,
    /// Each of its definitions gives members of the value, a set or an object.
    #[serde(skip)]
    pub partial: bool,
    pub definitions: Vec<DefinitionSaid>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DefinitionSaid {
    pub file: String,
    pub line: u32,
    /// The line.
    pub text: String,
    pub outcome: Outcome,
    /// Of a body that was met, the conditions that stand on other lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub met: Vec<Met>,
    pub value: Option<Json>,
    /// What the rules said of which its value is made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub made_of: Vec<RuleSaid>,
    /// It is made of further rules, which are too deep to be shown.
    #[serde(skip_serializing_if = "is_false")]
    pub deeper: bool,
    /// Why it may not have given its value where OPA evaluated it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<Doubt>,
    pub unmet: Option<Unmet>,
}

/// A condition that was met.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Met {
    pub line: u32,
    pub text: String,
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
    /// What else stands in it, as written, and its values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<(String, Option<Json>)>,
    /// What the rules said that it speaks of.
    pub because: Vec<RuleSaid>,
    /// It speaks of further rules, which are too deep to be shown.
    #[serde(skip_serializing_if = "is_false")]
    pub deeper: bool,
    /// Why it may have been met where OPA evaluated it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<Doubt>,
    /// Where it may have been met: how the body goes on then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub then: Option<Then>,
}

/// A sentence that says why a condition may have been met where OPA evaluated it, or may not.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Doubt {
    pub told: String,
    /// regorus may calculate otherwise: an OPA knows.
    #[serde(skip)]
    pub of_regorus: bool,
}

/// How a body goes on behind a condition that may have been met.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// It ends further on.
    Ends(Box<Unmet>),
    /// All other conditions are met.
    Met,
    /// What follows needs what the condition says.
    Unknown,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(value: &bool) -> bool {
    !value
}

/// Rules of a package that is asked for as a whole.
const RULES: usize = 50;

/// A bundle's policies, read once for all the decisions that OPA is asked about.
pub struct Policies {
    v0: bool,
    definitions: Vec<Definition>,
    unread: Vec<Unread>,
    reach: Reach,
}

impl Policies {
    /// An error is of policies of which none is Rego.
    pub fn of(bundle: &Bundle) -> Result<Policies, String> {
        let engine::Read { version, mut engine, unread, .. } = engine::read(&bundle.policies)?;
        let v0 = version != engine::Version::V1;
        let (definitions, reach) = (rules::definitions(&mut engine), Reach::of(&bundle.policies));
        Ok(Policies { v0, definitions, unread, reach })
    }

    pub fn are_v0(&self) -> bool {
        self.v0
    }

    /// Those of the bundle that the evaluation of a decision may come to, by their numbers. For each question OPA compiles all that it has
    /// again.
    pub fn needed(&self, path: &str) -> BTreeSet<usize> {
        self.reach.from(&parts(path)).policies
    }
}

/// Evaluates a decision again. An error is what can't be read or evaluated at all.
pub fn explain(bundle: &Bundle, recorded: &Recorded<'_>) -> Result<Explanation, String> {
    let prober = Prober::new(bundle, recorded)?;
    let mut said = explained(&prober, bundle, recorded, "regorus")?;
    said.beyond_regorus = beyond(&prober, recorded, &said);
    Ok(said)
}

/// The same by OPA itself, which has the bundle.
pub fn explain_by_opa(
    (bundle, policies): (&Bundle, &Policies),
    recorded: &Recorded<'_>,
    opa: &dyn Opa,
) -> Result<Explanation, String> {
    let prober = Prober::by_opa((bundle, policies), recorded, opa)?;
    explained(&prober, bundle, recorded, opa.name())
}

/// Why OPA itself may know more than regorus did.
fn beyond(prober: &Prober<'_>, recorded: &Recorded<'_>, said: &Explanation) -> Option<String> {
    let behind = prober.behind(recorded.path);
    let lacking = differs::called(&behind, |name| prober.builtins().lacks(name));
    if !lacking.is_empty() {
        return Some(format!("regorus lacks {}", lacking.join(", ")));
    }
    if !said.left_out.is_empty() || said.failed.is_some() && !said.reproduced {
        return Some("regorus can't evaluate all of it".into());
    }
    let inexact = !prober.inexact_behind(recorded.path).is_empty();
    if !said.reproduced && said.lacks.is_none() && (inexact || prober.hidden().is_empty()) {
        return Some("regorus gives another result".into());
    }
    // Of what was masked OPA knows no more.
    let doubted = said.rules.iter().any(|rule| said::is_doubted(rule, &|doubt| doubt.of_regorus));
    (said.uncertain && doubted).then(|| "regorus may calculate otherwise than OPA".into())
}

fn explained(
    prober: &Prober<'_>,
    bundle: &Bundle,
    recorded: &Recorded<'_>,
    by: &str,
) -> Result<Explanation, String> {
    let path = parts(recorded.path);
    if path.is_empty() {
        return Err("it is the answer to an ad hoc query, which is not recorded in full".into());
    }
    let (result, mut failed, mut reproduced) = evaluated(prober, recorded, &path);
    if let Some(why) = differs::is_function(prober.definitions(), &path, recorded.error) {
        (failed, reproduced) = (Some(why), true);
    }
    let query = rules::query(&path);
    let mut explanation = Explanation {
        query,
        evaluated_by: by.to_owned(),
        beyond_regorus: None,
        result: result.as_ref().and_then(texts::json),
        recorded: None,
        reproduced,
        uncertain: false,
        failed,
        differs: Vec::new(),
        lacks: None,
        left_out: left_out(prober, bundle, &path),
        rules: Vec::new(),
    };
    if explanation.left_out.is_empty() && !(reproduced && explanation.failed.is_some()) {
        explanation.lacks = differs::lacks(bundle, prober.definitions(), &path);
    }
    // Where it has nothing of it, there is nothing to guess at.
    if !reproduced && explanation.lacks.is_none() {
        let failed = explanation.failed.as_deref();
        explanation.differs = differs::reasons(bundle, prober, recorded, failed);
    }
    // Of an evaluation that fails no rule has said anything.
    if explanation.failed.is_some() {
        return Ok(shown(explanation, prober, bundle, recorded));
    }
    for name in named(prober.definitions(), &path) {
        explanation.rules.push(said::of(prober, &name, &mut Vec::new()));
    }
    explanation.uncertain =
        explanation.rules.iter().any(said::is_uncertain) || !explanation.left_out.is_empty();
    Ok(shown(explanation, prober, bundle, recorded))
}

/// The same as people may see it: without secrets, and with the names that they gave.
fn shown(
    mut explanation: Explanation,
    prober: &Prober<'_>,
    bundle: &Bundle,
    recorded: &Recorded<'_>,
) -> Explanation {
    if let Some(record) = recorded.shown {
        let secrets = Secrets::of(recorded, record, bundle);
        screen::screen(&mut explanation, prober, secrets, raw::get(record, "result"));
    }
    said::restore(&mut explanation, prober.renamed());
    explanation
}

/// `http/authz/allow`
fn parts(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty()).collect()
}

/// The result, or how it fails, and whether that is what was recorded. A decision's time is its end, but what a policy asks the clock for
/// is the beginning of its evaluation: where the recorded result is of that, that one counts.
fn evaluated(
    prober: &Prober<'_>,
    recorded: &Recorded<'_>,
    path: &[&str],
) -> (Option<Value>, Option<String>, bool) {
    let wanted = recorded.result.and_then(|raw| serde_json::from_str::<Json>(raw).ok());
    let evaluate = || {
        let (result, failed) = match prober.query(path) {
            Ok(result) => (result, None),
            Err(e) => (None, Some(e)),
        };
        let reproduced = match &failed {
            Some(why) => differs::same_failure(why, recorded.error),
            None => recorded.error.is_none() && differs::same(result.as_ref(), wanted.as_ref()),
        };
        (result, failed, reproduced)
    };
    let first = evaluate();
    let (Some(end), Some(took), false) = (recorded.timestamp, recorded.duration, first.2) else {
        return first;
    };
    prober.builtins().at(end.saturating_sub_unsigned(took));
    let second = evaluate();
    if second.2 {
        return second;
    }
    prober.builtins().at(end);
    first
}

/// The rules that a path leads to, or into, and that can't be evaluated here; and the files that can't be read, where it may come to what
/// they say.
fn left_out(prober: &Prober<'_>, bundle: &Bundle, path: &[&str]) -> Vec<String> {
    let gone = prober.left_out().iter();
    let gone = gone.filter(|left| !named(std::slice::from_ref(&left.definition), path).is_empty());
    let told = gone.map(|left| {
        let rules::Definition { file, line, .. } = &left.definition;
        format!("{file}:{line} can't be evaluated here, and is left out: {}", left.why)
    });
    let unread = prober.unread();
    let reached = (!unread.is_empty()).then(|| Reach::of(&bundle.policies).from(path));
    let unread =
        unread.iter().filter(|unread| reached.as_ref().is_some_and(|r| r.comes_to(unread)));
    unread.map(|unread| unread.why.clone()).chain(told).collect()
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]
mod found;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]
mod leaks;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]
mod tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]
mod told;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]
mod unknown;
