//! Whether a result is the recorded one, and what may be the reason where it is not.

use std::collections::BTreeSet;

use regorus::Value;
use serde_json::Value as Json;

use super::Recorded;
use super::bundle::Bundle;
use super::doubt::written;
use super::hidden::How;
use super::probe::Prober;
use super::rules::{Definition, Shape};
use super::texts::{json, references};
use crate::decision::json as raw;

/// Sets have no order, and 1 is 1.0.
pub fn same(said: Option<&Value>, recorded: Option<&Json>) -> bool {
    match (said, recorded) {
        (None, None) => true,
        (Some(said), Some(recorded)) => equal(said, recorded),
        _ => false,
    }
}

/// Whether an evaluation fails here as OPA's did. What the engine here can't evaluate at all is its own failure.
pub fn same_failure(here: &str, recorded: Option<&str>) -> bool {
    recorded.is_some_and(|recorded| is_code(recorded, "eval_conflict_error"))
        && ["conflict", "multiple outputs"].iter().any(|word| here.contains(word))
}

/// Whether an error is one of this code. OPA uploads it as an object, and writes it to its console as a text.
fn is_code(recorded: &str, code: &str) -> bool {
    match raw::as_str(recorded) {
        Some(text) => text.contains(code),
        None => raw::get(recorded, "code").and_then(raw::as_str).as_deref() == Some(code),
    }
}

/// That what a decision asked for is a function, and that OPA failed for that reason.
pub fn is_function(
    definitions: &[Definition],
    path: &[&str],
    recorded: Option<&str>,
) -> Option<String> {
    let whole = path.join(".");
    let of = |d: &&Definition| dotted(&d.full_name()) == whole;
    let mut all = definitions.iter().filter(of).peekable();
    let (file, line) = all.peek().map(|first| (&first.file, first.line))?;
    let refused = recorded.is_some_and(|error| is_code(error, "rego_type_error"));
    let (name, all) = (path.last()?, all.all(|d| d.shape == Shape::Function));
    (refused && all).then(|| format!("{name} is a function ({file}:{line}), which can't be asked for without what it is called with: OPA failed for that reason"))
}

fn equal(said: &Value, recorded: &Json) -> bool {
    match (said, recorded) {
        (Value::Set(said), Json::Array(recorded)) => {
            let mut left: Vec<&Json> = recorded.iter().collect();
            said.len() == left.len()
                && said.iter().all(|element| {
                    let at = left.iter().position(|other| equal(element, other));
                    at.map(|at| left.swap_remove(at)).is_some()
                })
        }
        (Value::Array(said), Json::Array(recorded)) => {
            said.len() == recorded.len() && said.iter().zip(recorded).all(|(a, b)| equal(a, b))
        }
        (Value::Object(said), Json::Object(recorded)) => {
            said.len() == recorded.len()
                && said.iter().all(|(name, value)| {
                    let name = match name {
                        Value::String(name) => name.to_string(),
                        other => other.to_json_str().unwrap_or_default(),
                    };
                    recorded.get(&name).is_some_and(|other| equal(value, other))
                })
        }
        (said, recorded) => match (json(said), recorded) {
            (Some(Json::Number(a)), Json::Number(b)) => a == *b || a.as_f64() == b.as_f64(),
            (Some(said), recorded) => said == *recorded,
            (None, _) => false,
        },
    }
}

pub fn reasons(
    bundle: &Bundle,
    prober: &Prober<'_>,
    recorded: &Recorded<'_>,
    failed: Option<&str>,
) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(failed) = failed {
        reasons.push(format!("the policy can't be evaluated here: {failed}"));
        if failed.contains("used before definition") {
            reasons.push("here no variable of `some .. in` may have the name of a rule or of an import, which OPA allows: another name for either helps".into());
        }
    } else if recorded.error.is_some() {
        reasons.push("OPA's evaluation failed, with the error that the decision has".into());
    }
    reasons.extend(hidden(prober));
    if recorded.input.is_none() {
        reasons.push("the record has no input".into());
    }
    let asked = prober.behind(recorded.path);
    let builtins = prober.builtins();
    for (said, is) in [
        (
            "the policies call what answers otherwise now or here",
            &(|name: &str| builtins.changes(name)) as &dyn Fn(&str) -> bool,
        ),
        ("the policies call what this evaluation lacks, and OPA has", &|name| builtins.lacks(name)),
        ("the clock stands still here, at the end of the decision's evaluation", &|name| {
            builtins.is_clock(name)
        }),
    ] {
        let called = called(&asked, is);
        if !called.is_empty() {
            reasons.push(format!("{said}: {}", called.join(", ")));
        }
    }
    reasons.extend(prober.inexact_behind(recorded.path));
    for text in prober.ends_elsewhere(&asked) {
        reasons.push(format!(
            "OPA ends at `{text}`, since what it asks for is not in the input; this evaluation goes on there"
        ));
    }
    let cached = recorded.nd_builtin_cache.into_iter().flat_map(raw::members);
    let cached: Vec<_> = cached.map(|member| member.key().into_owned()).collect();
    if !cached.is_empty() {
        reasons.push(format!("the decision used answers of its moment: {}", cached.join(", ")));
    }
    let missing = missing_data(bundle, prober);
    if !missing.is_empty() {
        reasons
            .push(format!("the bundle lacks data that its policies use: {}", missing.join(", ")));
    }
    for unread in &bundle.unread {
        reasons.push(format!("{unread} is not read: docket evaluates policies in Rego only"));
    }
    if reasons.is_empty() {
        reasons.push("the bundle is not the one that decided, or its data was another".into());
    }
    reasons
}

/// What of the input is not what OPA saw, by who took it out.
fn hidden(prober: &Prober<'_>) -> Vec<String> {
    let of = |how: How| {
        let hidden = prober.hidden().iter().filter(|hidden| hidden.how == how);
        let paths: Vec<String> = hidden.map(|hidden| written("input", &hidden.path)).collect();
        (!paths.is_empty()).then(|| how.told(&paths.join(", ")))
    };
    [How::Erased, How::Masked, How::Protected].into_iter().filter_map(of).collect()
}

/// Such of what rules call.
pub fn called(asked: &[&Definition], is: impl Fn(&str) -> bool) -> Vec<String> {
    let words = asked.iter().flat_map(|of| of.texts()).flat_map(references);
    let called: BTreeSet<String> = words.map(|(_, word)| word).filter(|word| is(word)).collect();
    called.into_iter().collect()
}

/// So many packages or rules are named.
const NAMED: usize = 10;

/// What the bundle has instead, if it has nothing of what a decision asked for: no such package, or no such rule in it.
pub fn lacks(bundle: &Bundle, definitions: &[Definition], path: &[&str]) -> Option<String> {
    let whole = path.join(".");
    let within = |long: &str, short: &str| {
        long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let rules = || definitions.iter().filter(|d| d.shape != Shape::Function);
    let has = rules().any(|definition| {
        let full = dotted(&definition.full_name());
        within(&whole, &full) || within(&full, &whole)
    });
    if has || bundle.data.pointer(&format!("/{}", path.join("/"))).is_some() {
        return None;
    }
    let asked = format!("the decision asked for data.{whole}");
    let package = definitions.iter().map(|d| d.package.as_str());
    let package = package.filter(|package| within(&whole, &dotted(package)));
    Some(match package.max_by_key(|package| package.len()) {
        Some(package) => {
            let its = rules().filter(|d| d.package == package).map(|d| d.name.as_str());
            let its = listed(&its.collect());
            format!("{asked}; the bundle has its package {package}, but no such rule: {its}")
        }
        None => {
            let all = listed(&definitions.iter().map(|d| d.package.as_str()).collect());
            format!("{asked}; the bundle has no such package: {all}")
        }
    })
}

/// A name as a path has it: `http["my-api"]` is `http.my-api`.
fn dotted(name: &str) -> String {
    name.replace("[\"", ".").replace("\"]", "")
}

fn listed(names: &BTreeSet<&str>) -> String {
    let shown: Vec<&str> = names.iter().take(NAMED).copied().collect();
    match names.len().saturating_sub(NAMED) {
        _ if names.is_empty() => "it has none".into(),
        0 => format!("it has {}", shown.join(", ")),
        more => format!("it has {}, and {more} more", shown.join(", ")),
    }
}

/// The lines of a policy, without comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.split('#').next().unwrap_or_default())
}

/// What a line imports, by the name that it has in the file.
fn imported(line: &str) -> Option<&str> {
    let path = line.trim().strip_prefix("import ")?.trim();
    path.rsplit([' ', '.', '"', '[', ']']).find(|name| !name.is_empty())
}

/// Whether a policy speaks of a name elsewhere than where it is imported.
fn uses(text: &str, name: &str) -> bool {
    let within = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code(text).filter(|line| imported(line).is_none()).any(|line| {
        line.match_indices(name).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let behind = line[at + name.len()..].chars().next();
            !before.is_some_and(|c| within(c) || c == '.') && !behind.is_some_and(within)
        })
    })
}

/// `data.roles` of policies, where neither data nor a package begins so. An import is used where its name is.
fn missing_data(bundle: &Bundle, prober: &Prober<'_>) -> Vec<String> {
    let mut missing = Vec::new();
    for policy in &bundle.policies {
        for line in code(&policy.text) {
            if imported(line).is_some_and(|name| !uses(&policy.text, name)) {
                continue;
            }
            for (at, _) in line.match_indices("data.") {
                let before = line[..at].chars().next_back();
                if before
                    .is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.' || c == '"')
                {
                    continue;
                }
                let rest = &line[at + 5..];
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let name = &rest[..end.unwrap_or(rest.len())];
                let package = |package: &str| package.split(['.', '[']).next() == Some(name);
                let known = bundle.data.get(name).is_some()
                    || prober.definitions().iter().any(|d| package(&d.package));
                let full = format!("data.{name}");
                if !known && !name.is_empty() && !missing.contains(&full) {
                    missing.push(full);
                }
            }
        }
    }
    missing
}
