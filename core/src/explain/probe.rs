//! Asks a bundle how far a body goes: its first statement, its first two, and so on, each as a rule of its own in the
//! same package.

use std::borrow::Cow;
use std::collections::BTreeSet;

use regorus::{Engine, Value};
use serde_json::{Map, Value as Json};

use super::builtins::Builtins;
use super::bundle::Bundle;
use super::engine::{self, LeftOut, Made};
use super::hidden::{self, Hidden};
use super::opa::{AsThen, Opa};
use super::reach::Unread;
use super::rename::Renamed;
use super::rules::{self, Body, Condition, Definition, Every, Shape};
use super::texts::{call, declared, is_word, json, last_line, path, placed, references};
use super::{Policies, Recorded};

const NAME: &str = "docket_asks_this";

/// Where a body ends.
pub struct End<'b> {
    /// The conditions before that.
    pub conditions: &'b [Condition],
    /// The body as written, before that.
    pub before: Option<String>,
    pub every: Option<&'b Every>,
    pub line: u32,
    pub text: String,
    /// As of a condition.
    pub elsewhere: bool,
    /// Its conditions are met, and its value can't be made.
    pub value: bool,
}

impl<'b> End<'b> {
    fn at(conditions: &'b [Condition], at: usize, before: Option<String>) -> End<'b> {
        let Condition { line, ref text, elsewhere, ref every, .. } = conditions[at];
        let (text, every, conditions) = (text.clone(), every.as_ref(), &conditions[..at]);
        End { conditions, before, every, line, text, elsewhere, value: false }
    }
}

/// How a body goes on behind conditions that are taken as met.
pub enum Next<'b> {
    /// At which condition it ends then.
    Ends(usize, End<'b>),
    Met,
    /// What follows can't be asked without these.
    Unknown,
}

/// Who evaluates.
enum By<'b> {
    /// regorus, in here.
    Regorus(Box<Engine>),
    Opa(AsThen<'b>),
}

pub struct Prober<'b> {
    by: By<'b>,
    input: Option<Json>,
    definitions: Cow<'b, [Definition]>,
    data: &'b Json,
    builtins: Builtins,
    hidden: Vec<Hidden>,
    renamed: Renamed,
    left_out: Vec<LeftOut>,
    unread: Cow<'b, [Unread]>,
}

impl<'b> Prober<'b> {
    pub fn new(bundle: &'b Bundle, recorded: &Recorded<'_>) -> Result<Prober<'b>, String> {
        let builtins = Builtins::of(recorded.timestamp, recorded.nd_builtin_cache);
        let Made { mut engine, renamed, definitions, left_out, unread } =
            engine::made(bundle, &builtins)?;
        if let Some(raw) = recorded.input {
            let value = Value::from_json_str(raw).map_err(|e| format!("input: {e}"))?;
            engine.set_input(value);
        }
        let by = By::Regorus(Box::new(engine));
        let input = input(recorded)?;
        let hidden = hidden::hidden(recorded, input.as_ref());
        let (data, definitions, unread) = (&bundle.data, definitions.into(), unread.into());
        Ok(Prober { by, input, definitions, data, builtins, hidden, renamed, left_out, unread })
    }

    /// The same where OPA evaluates, which has the bundle.
    pub fn by_opa(
        (bundle, policies): (&'b Bundle, &'b Policies),
        recorded: &Recorded<'_>,
        opa: &'b dyn Opa,
    ) -> Result<Prober<'b>, String> {
        let builtins = Builtins::of(recorded.timestamp, recorded.nd_builtin_cache).by_opa();
        let (definitions, unread) = (policies.definitions[..].into(), policies.unread[..].into());
        let input = input(recorded)?;
        let hidden = hidden::hidden(recorded, input.as_ref());
        let then = AsThen::new(
            opa,
            (&bundle.policies, policies.v0),
            &builtins,
            recorded.input.map(str::to_owned),
        )?;
        let (data, renamed, left_out) = (&bundle.data, Renamed::new(), Vec::new());
        let by = By::Opa(then);
        Ok(Prober { by, input, definitions, data, builtins, hidden, renamed, left_out, unread })
    }

    pub fn data(&self) -> &Json {
        self.data
    }

    pub fn builtins(&self) -> &Builtins {
        &self.builtins
    }

    /// What of the input is not what OPA saw.
    pub fn hidden(&self) -> &[Hidden] {
        &self.hidden
    }

    /// Rules that can't be evaluated here.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// Files that can't be read here.
    pub fn unread(&self) -> &[Unread] {
        &self.unread
    }

    /// Variables that have other names here than people gave them.
    pub fn renamed(&self) -> &Renamed {
        &self.renamed
    }

    pub fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    /// What the whole path says.
    pub fn query(&self, path: &[&str]) -> Result<Option<Value>, String> {
        let value = self.evaluate(rules::query(path))?;
        Ok(Some(value).filter(|value| *value != Value::Undefined))
    }

    fn evaluate(&self, query: String) -> Result<Value, String> {
        let engine = match &self.by {
            By::Opa(opa) => return opa.query(&query, &self.builtins),
            By::Regorus(engine) => engine,
        };
        let results = engine.clone().eval_query(query, false);
        let results = results.map_err(|e| placed(&e.to_string()))?;
        let value =
            results.result.first().and_then(|r| r.expressions.first()).map(|e| e.value.clone());
        Ok(value.unwrap_or(Value::Undefined))
    }

    /// The part of the input that a condition denies to a builtin or function, as `not startswith(input.path, "/a")`, and that is not
    /// there: OPA asks for it before it denies, and ends there; regorus does not.
    fn denies_what_is_not_there(&self, text: &str) -> bool {
        let Some(denied) = text.strip_prefix("not ") else { return false };
        if !self.builtins.by_regorus() {
            return false;
        }
        let compares = ["!=", ">", "<", " in "].iter().any(|sign| denied.contains(sign));
        let called = references(denied)
            .into_iter()
            .any(|(at, word)| call(denied, at, &word).is_some_and(|call| call.contains("input")));
        let within = denied.contains('|') || denied.contains(" with ");
        let there = |(_, value): &(String, Option<Json>)| value.is_some();
        (called || compares && !denied.contains("=="))
            && !within
            && !self.input_in(denied).iter().all(there)
    }

    /// The definitions that a path leads to, and those that they speak of.
    pub fn behind(&self, path: &str) -> Vec<&Definition> {
        let mut open = super::named(&self.definitions, &super::parts(path));
        let (mut seen, mut all) = (BTreeSet::new(), Vec::new());
        while let Some(rule) = open.pop() {
            let of = |d: &&Definition| (&d.package, &d.name) == (&rule.0, &rule.1);
            if !seen.insert(rule.clone()) {
                continue;
            }
            for definition in self.definitions.iter().filter(of) {
                for text in definition.texts() {
                    let meant = references(text).into_iter();
                    let meant = meant.filter_map(|(_, word)| self.meant(definition, &word));
                    open.extend(meant.map(|d| (d.package.clone(), d.name.clone())));
                }
                all.push(definition);
            }
        }
        all
    }

    /// The conditions among these at which OPA ends, and this evaluation does not.
    pub fn ends_elsewhere(&self, definitions: &[&Definition]) -> Vec<String> {
        let bodies = definitions.iter().flat_map(|definition| &definition.bodies);
        let texts = bodies.flat_map(|body| &body.conditions).map(|condition| &condition.text);
        texts.filter(|text| self.denies_what_is_not_there(text)).cloned().collect()
    }

    /// What a rule says.
    pub fn value(&self, rule: &(String, String)) -> Option<Json> {
        json(&self.evaluate(format!("data.{}.{}", rule.0, rule.1)).ok()?)
    }

    /// What a body gives; nothing if it isn't met.
    pub fn gives(&self, definition: &Definition, body: &Body) -> Option<Json> {
        let value = body.value.as_deref().unwrap_or(&definition.value);
        let conditions = body.conditions.last().map(|c| &*c.until_here);
        let keys = definition.keys();
        if !keys.is_empty()
            && let Some(members) = self.members(definition, &keys, value, conditions)
        {
            return Some(members).filter(|members| members != &Json::Object(Map::new()));
        }
        match self.ask(definition, definition.shape, value, conditions) {
            Ok(Value::Undefined) => None,
            Ok(Value::Set(set)) if definition.shape == Shape::Set && set.is_empty() => None,
            // OPA's answers have sets as arrays.
            Ok(Value::Array(set)) if definition.shape == Shape::Set && set.is_empty() => None,
            Ok(value) => json(&value),
            // Its value can't be asked for by itself. Who is met has given what the rule has.
            Err(_) => {
                let met = self.meets(definition, conditions) == Ok(Value::from(true));
                let rule = (definition.package.clone(), definition.name.clone());
                self.value(&rule).filter(|_| met)
            }
        }
    }

    /// The members of an object that a body gives; none if it isn't met.
    fn members(
        &self,
        definition: &Definition,
        keys: &[&str],
        value: &str,
        conditions: Option<&str>,
    ) -> Option<Json> {
        let each = format!("[{}, {value}]", keys.join(", "));
        let said = self.ask(definition, Shape::Set, &each, conditions).ok()?;
        let mut object = Json::Object(Map::new());
        for each in json(&said).iter().flat_map(|all| all.as_array().into_iter().flatten()) {
            let (value, keys) = each.as_array()?.split_last()?;
            let mut at = &mut object;
            for key in keys {
                let name = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                let within = at.as_object_mut()?.entry(name);
                at = within.or_insert_with(|| Json::Object(Map::new()));
            }
            *at = value.clone();
        }
        Some(object)
    }

    /// The condition at which a body ends, behind the body as written up to there: its value, if that can't be made.
    pub fn unmet<'d>(&self, definition: &Definition, body: &'d Body) -> (usize, End<'d>) {
        let conditions = &body.conditions;
        let up_to = |at: usize| Some(conditions.get(at)?.until_here.as_str());
        // Statements may use what later ones bind: what can't be asked by itself is not the end.
        let ends = |at: &usize| {
            self.denies_what_is_not_there(&conditions[*at].text)
                || self.meets(definition, up_to(*at)) == Ok(Value::Undefined)
        };
        let last = conditions.len().checked_sub(1);
        let all = last.and_then(up_to);
        let met = || self.meets(definition, all) == Ok(Value::from(true));
        let end = (0..conditions.len()).find(ends);
        match end.or(last.filter(|_| !met())) {
            Some(at) => {
                let before = at.checked_sub(1).and_then(up_to).map(str::to_owned);
                (at, End::at(conditions, at, before))
            }
            None => {
                let value = body.value.as_deref().unwrap_or(&definition.value);
                let (before, line) = (all.map(str::to_owned), body.line);
                let (text, every) = (rules::one_line(value), None);
                let at = conditions.len();
                (at, End { conditions, before, every, line, text, elsewhere: false, value: true })
            }
        }
    }

    /// How a body goes on if these of its conditions were met, whatever they are here.
    pub fn beyond<'d>(&self, definition: &Definition, body: &'d Body, met: &[usize]) -> Next<'d> {
        let (mut kept, mut unknown) = (String::new(), false);
        for (at, condition) in body.conditions.iter().enumerate() {
            if met.contains(&at) {
                continue;
            }
            let with = format!("{kept}{}\n", condition.raw);
            match self.meets(definition, Some(&with)) {
                _ if self.denies_what_is_not_there(&condition.text) => {
                    return Next::Ends(at, End::at(&body.conditions, at, Some(kept)));
                }
                Ok(Value::Undefined) => {
                    return Next::Ends(at, End::at(&body.conditions, at, Some(kept)));
                }
                Ok(_) => kept = with,
                Err(_) => unknown = true,
            }
        }
        if unknown { Next::Unknown } else { Next::Met }
    }

    /// Whether a body is met: true, or undefined.
    fn meets(&self, definition: &Definition, body: Option<&str>) -> Result<Value, String> {
        self.ask(definition, Shape::Complete, "true", body)
    }

    /// What a rule says that stands where the definition does.
    pub fn ask(
        &self,
        definition: &Definition,
        shape: Shape,
        value: &str,
        body: Option<&str>,
    ) -> Result<Value, String> {
        let Definition { package, imports, v1, .. } = definition;
        let body = body.unwrap_or("true");
        let head = match (shape, *v1) {
            (Shape::Set, true) => format!("{NAME} contains {value} if"),
            (Shape::Set, false) => format!("{NAME}[{value}]"),
            (_, true) => format!("{NAME} := {value} if"),
            (_, false) => format!("{NAME} = {value}"),
        };
        let text = format!("package {package}\n{imports}\n{head} {{\n{body}\n}}\n");
        let query = format!("data.{package}.{NAME}");
        let mut engine = match &self.by {
            By::Opa(opa) => return opa.ask(&text, &query, &self.builtins),
            By::Regorus(engine) => engine.clone(),
        };
        let failed = |e: &dyn std::fmt::Display| last_line(&e.to_string());
        engine.add_policy("docket".into(), text).map_err(|e| failed(&e))?;
        engine.eval_rule(query).map_err(|e| failed(&e))
    }

    /// The rules that a text speaks of: of its own package, or by their full names. What is declared in it, or before it, is a variable.
    pub fn rules_in(
        &self,
        definition: &Definition,
        before: Option<&str>,
        text: &str,
    ) -> Vec<(String, String)> {
        let variables = [before.map(declared), Some(declared(text))].into_iter().flatten();
        let variables: BTreeSet<String> = variables.flatten().collect();
        let mut found = Vec::new();
        for (_, word) in references(text) {
            let first: String = word.chars().take_while(|c| is_word(*c)).collect();
            if let Some(rule) = self.meant(definition, &word)
                && rule.shape != Shape::Function
                && !variables.contains(&first)
            {
                let rule = (rule.package.clone(), rule.name.clone());
                if !found.contains(&rule) {
                    found.push(rule);
                }
            }
        }
        found
    }

    /// The rule that a word names: one of the same package, one by its full name, or by what is imported.
    pub fn meant(&self, definition: &Definition, word: &str) -> Option<&Definition> {
        meant(self.definitions.iter(), definition, word)
    }

    /// What the bundle's functions said that a condition calls, behind what stands before it. What has no one answer there, as where
    /// a variable has several values, is not in it.
    pub fn calls_in(
        &self,
        definition: &Definition,
        before: Option<&str>,
        text: &str,
    ) -> Vec<(String, Option<Json>)> {
        let mut found: Vec<(String, Option<Json>)> = Vec::new();
        for (at, word) in references(text) {
            let function = self.meant(definition, &word).map(|d| d.shape) == Some(Shape::Function);
            let Some(call) = call(text, at, &word).filter(|_| function) else { continue };
            if found.iter().all(|(name, _)| *name != call)
                && let Ok(said) = self.ask(definition, Shape::Complete, &call, before)
            {
                found.push((call, json(&said)));
            }
        }
        found
    }

    /// What stands at a place of the input.
    pub fn input_at(&self, path: &[String]) -> Option<Json> {
        let part = |value: &'_ Json, name: &String| match value {
            Json::Array(list) => list.get(name.parse::<usize>().ok()?).cloned(),
            value => value.get(name).cloned(),
        };
        path.iter().try_fold(self.input.clone()?, |value, name| part(&value, name))
    }

    /// The parts of the input that a condition speaks of, and what stands there.
    pub fn input_in(&self, text: &str) -> Vec<(String, Option<Json>)> {
        let mut found: Vec<(String, Option<Json>)> = Vec::new();
        for (_, word) in references(text) {
            let Some(rest) = word.strip_prefix("input") else { continue };
            if (rest.starts_with(is_word)) || found.iter().any(|(name, _)| *name == word) {
                continue;
            }
            if let Some(path) = path(rest)
                && !path.is_empty()
            {
                let value = self.input_at(&path);
                found.push((word, value));
            }
        }
        found
    }
}

fn input(recorded: &Recorded<'_>) -> Result<Option<Json>, String> {
    let parsed = recorded.input.map(serde_json::from_str);
    parsed.transpose().map_err(|e| format!("input: {e}"))
}

/// Which of these definitions a word names, where another stands.
pub(super) fn meant<'d>(
    mut all: impl Iterator<Item = &'d Definition>,
    definition: &Definition,
    word: &str,
) -> Option<&'d Definition> {
    let begins = |word: &str, name: &str| {
        word.strip_prefix(name).is_some_and(|rest| !rest.starts_with(is_word))
    };
    let imported = definition.aliases.iter().find(|(alias, _)| begins(word, alias));
    let word = match imported {
        Some((alias, path)) => format!("{path}{}", &word[alias.len()..]),
        None => word.to_owned(),
    };
    all.find(|d| {
        let short = d.package == definition.package && begins(&word, &d.name);
        let long = word.strip_prefix("data.").is_some_and(|word| begins(word, &d.full_name()));
        short || long
    })
}
