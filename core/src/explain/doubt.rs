//! What an evaluation here can't know: data that nobody gave, input that was erased or masked before it was logged, builtins that
//! answer nothing here. A condition that speaks of such may have been met where OPA evaluated it.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::Doubt;
use super::hidden::Hidden;
use super::probe::{Prober, meant};
use super::rules::{Body, Condition, Definition, Shape};
use super::texts::{call, declared, is_word, path, references, unified};

/// `input.headers["x-key"]`
pub fn written(root: &str, path: &[String]) -> String {
    let mut parts = vec![root];
    parts.extend(path.iter().map(String::as_str));
    super::rules::query(&parts[1..]).replacen("data", root, 1)
}

/// How far what is behind a text is looked at: its variables, and further the functions that it calls, or the rules, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Through {
    Variables,
    Functions,
    Rules,
}

/// So many sentences are said of one condition.
const SAID: usize = 3;

impl Prober<'_> {
    /// Why a condition may have been met, though it is not here, or the reverse; `before` stands before it in its body.
    pub fn doubts(
        &self,
        definition: &Definition,
        before: &[Condition],
        text: &str,
        (through, met): (Through, bool),
    ) -> Vec<Doubt> {
        let mut why = Vec::new();
        let mut seen = BTreeSet::new();
        for (definition, text) in self.behind_text(definition, before, text, through) {
            let local: BTreeSet<String> = before.iter().flat_map(|c| declared(&c.raw)).collect();
            let local = &local | &declared(&text);
            for (root, path) in self.paths_in(definition, &local, &text) {
                match root {
                    "data" => why.extend(self.absent(&path)),
                    _ => why.extend(self.was_hidden(&path, met)),
                }
            }
            for (_, word) in references(&text) {
                if self.builtins().lacks(&word) {
                    why.push(format!("{word} can't be evaluated without OPA"));
                } else if self.builtins().changes(&word) {
                    why.push(format!("{word} answers otherwise now or here"));
                }
                let gone = self.left_out().iter().map(|left| &left.definition);
                if let Some(gone) = meant(gone, definition, &word) {
                    let (name, line, file) = (gone.full_name(), gone.line, &gone.file);
                    why.push(format!(
                        "data.{name} can't be evaluated here (line {line} of {file})"
                    ));
                }
            }
        }
        let mut why: Vec<Doubt> =
            why.into_iter().map(|told| Doubt { told, of_regorus: false }).collect();
        if !met {
            let inexact = self.inexact(definition, before, text).into_iter();
            why.extend(inexact.map(|told| Doubt { told, of_regorus: true }));
        }
        why.retain(|doubt| seen.insert(doubt.told.clone()));
        why.truncate(SAID);
        for Doubt { told, .. } in &mut why {
            told.push_str(&match met {
                false => ": this condition may have been met".to_owned(),
                true => format!(": `{text}` may not have been met"),
            });
        }
        why
    }

    /// Why what gave a value may not have: one of its conditions is met here, since something is not there.
    pub fn doubts_of_met(&self, definition: &Definition, body: &Body) -> Vec<Doubt> {
        let conditions = body.conditions.iter().enumerate().filter(|(_, c)| !c.elsewhere);
        let doubts = conditions.flat_map(|(at, condition)| {
            // Of what is not denied another definition may be what met it.
            let denied = condition.text.starts_with("not ");
            let through = if denied { Through::Rules } else { Through::Variables };
            self.doubts(definition, &body.conditions[..at], &condition.text, (through, true))
        });
        let inexact = body.conditions.iter().enumerate().filter(|(_, c)| !c.elsewhere);
        let inexact = inexact.flat_map(|(at, condition)| {
            self.inexact_met(definition, &body.conditions[..at], &condition.text)
        });
        doubts.chain(inexact).take(SAID).collect()
    }

    /// A text, the conditions that declare its variables, and what the functions say, or rules, too, that all these speak of.
    pub fn behind_text<'p>(
        &'p self,
        definition: &'p Definition,
        before: &[Condition],
        text: &str,
        through: Through,
    ) -> Vec<(&'p Definition, String)> {
        let mut all = vec![(definition, text.to_owned())];
        let mut left: Vec<&Condition> = before.iter().collect();
        let mut at = 0;
        // Variables first: they are of this body only.
        while let Some((_, text)) = all.get(at) {
            let words: BTreeSet<String> = first_words(text).collect();
            let binds = |c: &&Condition| {
                !declared(&c.raw).is_disjoint(&words) || !unified(&c.raw).is_disjoint(&words)
            };
            let (declaring, others) = left.into_iter().partition(binds);
            left = others;
            let declaring: Vec<&Condition> = declaring;
            all.extend(declaring.iter().map(|c| (definition, c.raw.clone())));
            at += 1;
        }
        let (mut at, mut seen) = (0, BTreeSet::new());
        while let Some((definition, text)) = all.get(at).cloned() {
            for (_, word) in references(&text) {
                let opened = |d: &&Definition| match through {
                    Through::Variables => false,
                    Through::Functions => d.shape == Shape::Function,
                    Through::Rules => true,
                };
                let Some(rule) = self.meant(definition, &word).filter(opened) else { continue };
                let name = rule.full_name();
                if seen.insert(name.clone()) {
                    let same = self.definitions().iter().filter(|d| d.full_name() == name);
                    all.extend(same.flat_map(|d| d.texts().map(move |t| (d, t.to_owned()))));
                }
            }
            at += 1;
        }
        all
    }

    /// The parts of the input and of data that a text speaks of, up to where a variable stands in them.
    pub fn paths_in(
        &self,
        definition: &Definition,
        local: &BTreeSet<String>,
        text: &str,
    ) -> Vec<(&'static str, Vec<String>)> {
        let mut found = Vec::new();
        let mut asked = BTreeSet::new();
        for (at, word) in references(text) {
            let first: String = word.chars().take_while(|c| is_word(*c)).collect();
            // A variable may have the name of an import.
            if local.contains(&first) || definition.arguments.contains(&first) {
                continue;
            }
            let word = self.unaliased(definition, &word);
            // `object.get(input.headers, "x-key", "")` asks for what its second argument says.
            if word == "object.get"
                && let Some(call) = call(text, at, &word)
                && let Some((from, names)) = got(&call)
            {
                let begin = text.chars().skip(at + word.len() + 1).take_while(|c| *c == ' ');
                let (begin, from) = (begin.count(), self.unaliased(definition, &from));
                if let Some((root, mut path)) = rooted(&from) {
                    asked.insert(at + word.len() + 1 + begin);
                    path.extend(names);
                    found.push((root, path));
                }
                continue;
            }
            if !asked.contains(&at) {
                found.extend(rooted(&word));
            }
        }
        found
    }

    /// That a part of the data is nowhere in what was given, and no rule either.
    fn absent(&self, path: &[String]) -> Option<String> {
        let within = |package: &str| -> Vec<String> {
            super::texts::path(&format!(".{package}")).unwrap_or_default()
        };
        let rules = self.definitions().iter();
        let is_rule = |d: &Definition| {
            let full = within(&d.full_name());
            full.iter().zip(path).all(|(a, b)| a == b)
        };
        let mut there = self.data();
        let mut found = 0;
        while let Some(next) = path.get(found).and_then(|name| there.get(name)) {
            (there, found) = (next, found + 1);
        }
        if path.is_empty() || found == path.len() || rules.clone().any(is_rule) {
            return None;
        }
        // Who gave what is around it has given what there is; but packages are around data that others give.
        let shared =
            |package: Vec<String>| package.iter().zip(path).take_while(|(a, b)| a == b).count();
        let around = rules.map(|d| shared(within(&d.package))).max().unwrap_or(0);
        let name = written("data", &path[..(found.max(around) + 1).min(path.len())]);
        (found == 0 || found <= around).then(|| format!("{name} is not in the bundle, but OPA may have had it (data of another bundle, or of the API; or the bundle's directory is one level too deep or too high)"))
    }

    /// That a part of the input, or something in it or around it, was taken out.
    fn was_hidden(&self, path: &[String], met: bool) -> Option<String> {
        let Hidden { path, how } = self.hidden().iter().find(|hidden| {
            let overlap = hidden.path.starts_with(path) || path.starts_with(&hidden.path);
            overlap && !(met && self.input_at(&hidden.path).is_some())
        })?;
        Some(how.told(&written("input", path)))
    }

    /// A word with what is imported in its place.
    pub fn unaliased(&self, definition: &Definition, word: &str) -> String {
        let found = definition.aliases.iter().find_map(|(alias, path)| {
            let rest = word.strip_prefix(alias.as_str())?;
            let bare = !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            bare.then(|| format!("{path}{rest}"))
        });
        found.unwrap_or_else(|| word.to_owned())
    }
}

fn first_words(text: &str) -> impl Iterator<Item = String> {
    let first = |word: String| word.chars().take_while(|c| is_word(*c)).collect();
    references(text).into_iter().map(move |(_, word)| first(word))
}

/// `input` or `data`, and what is asked of it.
fn rooted(word: &str) -> Option<(&'static str, Vec<String>)> {
    ["input", "data"].into_iter().find_map(|root| {
        let rest = word.strip_prefix(root)?.trim_end_matches('.');
        let bare = rest.is_empty() || rest.starts_with(['.', '[']);
        bare.then(|| path(rest)).flatten().map(|path| (root, path))
    })
}

/// Of a call of `object.get` what it asks, and for which names, where they are written there.
fn got(call: &str) -> Option<(String, Vec<String>)> {
    let within = call.strip_prefix("object.get(")?.strip_suffix(')')?;
    let (at, from) = references(within).into_iter().next()?;
    let rest: String = within.chars().skip(at + from.chars().count()).collect();
    let rest = rest.trim_start().strip_prefix(',')?.trim_start();
    let mut read = serde_json::Deserializer::from_str(rest).into_iter::<Json>();
    let names = match read.next()?.ok()? {
        Json::String(name) => vec![name],
        Json::Array(names) => {
            names.iter().map(|n| n.as_str().map(str::to_owned)).collect::<Option<_>>()?
        }
        _ => return None,
    };
    Some((from, names))
}
