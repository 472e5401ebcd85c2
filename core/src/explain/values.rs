//! What stands in a condition: the values that the evaluation knows of its variables, its data and its calls.

use serde_json::Value as Json;

use super::probe::Prober;
use super::rules::{Condition, Definition, Every, Shape};
use super::texts::{call, declared, is_word, json, references, unified};

/// So many values are asked for.
const MOST: usize = 8;
/// Of what has several values, so many are shown.
const EACH: usize = 5;

/// Stands for each value.
const VALUE: &str = "docket_has_this";

const WORDS: [&str; 14] = [
    "_", "not", "some", "in", "every", "as", "with", "true", "false", "null", "if", "contains",
    "else", "default",
];

impl Prober<'_> {
    /// The values of what a condition speaks of, behind what stands before it: variables, data, what builtins gave. What the input
    /// holds at a fixed place, rules, and functions of the bundle are told elsewhere.
    pub fn values_in(
        &self,
        definition: &Definition,
        conditions: &[Condition],
        before: Option<&str>,
        text: &str,
        every: Option<&Every>,
    ) -> Vec<(String, Option<Json>)> {
        let mut found = Vec::new();
        if let Some(every) = every
            && let Some(fails) = self.fails(definition, before, every)
        {
            found.push(fails);
        }
        for asked in self.asked_in(definition, conditions, text).into_iter().chain(keys(text)) {
            if found.len() < MOST
                && let Some(value) = self.value_of(definition, before, &asked)
            {
                found.push(value);
            }
        }
        found
    }

    /// The parts of a condition that have a value of their own, as written.
    fn asked_in(
        &self,
        definition: &Definition,
        conditions: &[Condition],
        text: &str,
    ) -> Vec<String> {
        let unified = conditions.iter().flat_map(|c| unified(&c.raw));
        let unified = unified.filter(|name| self.meant(definition, name).is_none());
        let declared_before = conditions.iter().flat_map(|c| declared(&c.raw));
        let variables: Vec<String> = declared_before.chain(unified).collect();
        let inner = declared(text);
        let whole = text.strip_prefix("not ").unwrap_or(text).trim();
        let mut found: Vec<String> = Vec::new();
        for (at, word) in references(text) {
            let first: String = word.chars().take_while(|c| is_word(*c)).collect();
            if WORDS.contains(&first.as_str()) || first.starts_with(|c: char| c.is_ascii_digit()) {
                continue;
            }
            if inner.contains(&first) && !variables.contains(&first) {
                continue;
            }
            let part = if let Some(call) = call(text, at, &word) {
                let own = self.meant(definition, &word).is_some();
                Some(call).filter(|call| !own && call != whole)
            } else {
                let part = attached(text, at, &word);
                let full = self.unaliased(definition, &part);
                let fixed = part.starts_with("input") && part == word;
                let root = ["input", "data"].iter().any(|root| full.starts_with(root));
                let rule = self.meant(definition, &word).is_some();
                // What is unified is declared nowhere.
                let variable = variables.contains(&first) || part == first && !root && !rule;
                Some(part).filter(|part| {
                    (variable || root && !rule && !fixed)
                        && !matches!(part.as_str(), "input" | "data")
                })
            };
            found.extend(part.filter(|part| !found.contains(part)));
        }
        found
    }

    fn value_of(
        &self,
        definition: &Definition,
        before: Option<&str>,
        asked: &str,
    ) -> Option<(String, Option<Json>)> {
        let one = self.ask(definition, Shape::Complete, asked, before);
        if let Ok(Some(value)) = one.as_ref().map(json) {
            return Some((asked.to_owned(), Some(value)));
        }
        // One after another, those that are there.
        let each = format!("{}\n{VALUE} := {asked}", before.unwrap_or("true"));
        let all = self.ask(definition, Shape::Set, VALUE, Some(&each)).ok();
        match all.as_ref().and_then(json) {
            Some(Json::Array(all)) if !all.is_empty() => {
                Some(several(format!("{asked}, in turn"), all.into()))
            }
            // A variable that nothing has bound yet has none.
            _ => (one.is_ok() && !asked.chars().all(is_word)).then(|| (asked.to_owned(), None)),
        }
    }

    /// The elements of which what is asked of each is not true.
    fn fails(
        &self,
        definition: &Definition,
        before: Option<&str>,
        every: &Every,
    ) -> Option<(String, Option<Json>)> {
        let Every { variables, domain, body } = every;
        let names = variables.join(", ");
        let before = before.map(|before| format!("{before}\n")).unwrap_or_default();
        let text = format!("{before}some {names} in {domain}\ncount([1 | {body}\n]) == 0");
        let element = if variables.len() > 1 { format!("[{names}]") } else { names.clone() };
        let all = json(&self.ask(definition, Shape::Set, &element, Some(&text)).ok()?)?;
        let fails = all.as_array().is_some_and(|all| !all.is_empty());
        fails.then(|| several(format!("{names}, where it fails"), all))
    }
}

/// What has several values, with the first of them, and how many there are.
fn several(name: String, all: Json) -> (String, Option<Json>) {
    match all {
        Json::Array(mut list) if list.len() > EACH => {
            let name = format!("{name} (the first {EACH} of {}),", list.len());
            list.truncate(EACH);
            (name, Some(list.into()))
        }
        all => (name + ",", Some(all)),
    }
}

/// An object that is unified with the whole input has all its names.
fn keys(text: &str) -> Option<String> {
    let (left, right) = text.split_once('=')?;
    let sides = [left.trim_end_matches(':').trim(), right.trim()];
    let is = |a: &str, b: &str| a.starts_with('{') && b == "input";
    let pattern = is(sides[0], sides[1]) || is(sides[1], sides[0]);
    pattern.then(|| "object.keys(input)".to_owned())
}

/// What is named there with all that is attached to it, variables in brackets, too.
pub fn attached(text: &str, at: usize, word: &str) -> String {
    let text: Vec<char> = text.chars().collect();
    let mut end = at + word.chars().count();
    while end < text.len() {
        match text[end] {
            '.' if text.get(end + 1).is_some_and(|c| is_word(*c)) => end += 1,
            c if is_word(c) => end += 1,
            '[' => {
                let mut depth = 0;
                let close = text[end..].iter().position(|c| {
                    depth += i32::from(*c == '[') - i32::from(*c == ']');
                    depth == 0
                });
                match close {
                    Some(close) => end += close + 1,
                    None => break,
                }
            }
            _ => break,
        }
    }
    text[at..end].iter().collect::<String>().trim_end_matches('.').to_owned()
}
