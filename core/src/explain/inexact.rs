//! What regorus calculates otherwise than OPA, which has decimal numbers of any length: arithmetic with fractions or very large
//! numbers, and functions that are given what the two treat differently (`as_opa`).

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::Doubt;
use super::doubt::Through;
use super::probe::Prober;
use super::rules::{Condition, Definition, Shape};
use super::texts::{is_word, references};
use crate::rego::{as_opa, bare};

impl Prober<'_> {
    /// What in a condition OPA may calculate otherwise.
    pub fn inexact(
        &self,
        definition: &Definition,
        before: &[Condition],
        text: &str,
    ) -> Vec<String> {
        if !self.builtins().by_regorus() {
            return Vec::new();
        }
        let found = self.inexact_through(definition, before, text, Through::Rules);
        if found.is_empty() || self.is_certain(definition, before, text) {
            return Vec::new();
        }
        let own = self.behind_text(definition, before, text, Through::Functions);
        let rules = own.iter().flat_map(|(of, text)| self.rules_in(of, None, text));
        match rules.collect::<BTreeSet<_>>() {
            rules if !rules.is_empty() && rules.iter().all(|rule| self.is_settled(rule)) => {
                self.inexact_through(definition, before, text, Through::Functions)
            }
            _ => found,
        }
    }

    fn inexact_through(
        &self,
        definition: &Definition,
        before: &[Condition],
        text: &str,
        through: Through,
    ) -> Vec<String> {
        let all = self.behind_text(definition, before, text, through);
        let texts: Vec<(&Definition, &str)> = all.iter().map(|(d, text)| (*d, &**text)).collect();
        self.inexact_in(&texts, &[text], || {
            let stands = before.last().map(|last| &*last.until_here).unwrap_or_default();
            let body = format!("{stands}\n{text}");
            let _ = self.ask(definition, Shape::Complete, "true", Some(&body));
        })
    }

    /// Whether a rule says the same however its numbers are calculated. What is assigned counts where it is used.
    fn is_settled(&self, rule: &(String, String)) -> bool {
        let of = |d: &&Definition| (&d.package, &d.name) == (&rule.0, &rule.1);
        self.definitions().iter().filter(of).all(|definition| {
            definition.bodies.iter().all(|body| {
                let (end, _) = self.unmet(definition, body);
                let is = |before: &[Condition], text: &str| {
                    self.inexact(definition, before, text).is_empty()
                };
                let mut asked = body.conditions.iter().enumerate().take(end + 1);
                let conditions = asked
                    .all(|(at, c)| c.text.contains(":=") || is(&body.conditions[..at], &c.text));
                let value = body.value.as_deref().unwrap_or(&definition.value);
                conditions && (end < body.conditions.len() || is(&body.conditions, value))
            })
        })
    }

    /// The same of one that is met here. An assignment is met whatever it gives.
    pub fn inexact_met(
        &self,
        definition: &Definition,
        before: &[Condition],
        text: &str,
    ) -> Vec<Doubt> {
        if text.contains(":=") {
            return Vec::new();
        }
        let why = self.inexact(definition, before, text).into_iter();
        let told = |why| format!("{why}: `{text}` may not have been met");
        why.map(|why| Doubt { told: told(why), of_regorus: true }).collect()
    }

    /// Of all that a decision leads to.
    pub fn inexact_behind(&self, path: &str) -> Vec<String> {
        if !self.builtins().by_regorus() {
            return Vec::new();
        }
        let behind = self.behind(path);
        let texts: Vec<(&Definition, &str)> =
            behind.iter().flat_map(|d| d.texts().map(move |text| (*d, text))).collect();
        let written: Vec<&str> = texts.iter().map(|(_, text)| *text).collect();
        self.inexact_in(&texts, &written, || {
            let _ = self.query(&super::parts(path));
        })
    }

    /// What OPA may calculate otherwise in texts: by their numbers, by what is `written` there, and by what functions are given when they
    /// are evaluated.
    fn inexact_in(
        &self,
        texts: &[(&Definition, &str)],
        written: &[&str],
        evaluate: impl Fn(),
    ) -> Vec<String> {
        let mut why: Vec<String> = self.inexact_numbers(texts).into_iter().collect();
        if why.is_empty() && written.iter().any(|text| compares_made_ones(text)) {
            why.push("OPA orders sets and objects otherwise".into());
        }
        let words = texts.iter().flat_map(|(_, text)| references(text));
        let named: BTreeSet<String> =
            words.map(|(_, word)| word).filter(|word| as_opa::may_differ(word)).collect();
        if !named.is_empty() {
            as_opa::differed();
            evaluate();
            let differed = as_opa::differed().into_iter().filter(|name| named.contains(*name));
            why.extend(differed.map(|name| format!("{name} may answer otherwise in OPA")));
        }
        why
    }

    /// That there is arithmetic, and numbers that only OPA has exactly.
    fn inexact_numbers(&self, texts: &[(&Definition, &str)]) -> Option<String> {
        let written = |of: &(&Definition, &str)| {
            of.1.contains("sprintf(") && self.has_number(*of, |number| number.contains('.'))
        };
        if texts.iter().any(written) {
            return Some("sprintf may write a number with a point otherwise in OPA".into());
        }
        let arithmetic: BTreeSet<char> =
            texts.iter().flat_map(|(_, text)| operators(text)).collect();
        let Some(sign) = arithmetic.first() else {
            let large = texts.iter().any(|of| self.has_number(*of, is_large));
            return large.then(|| "OPA compares large numbers exactly".into());
        };
        let exact = !arithmetic.contains(&'/') && !texts.iter().any(|of| self.has_inexact(*of));
        (!exact).then(|| {
            let sign = if arithmetic.contains(&'/') { '/' } else { *sign };
            format!(
                "OPA calculates `{sign}` with decimals, which may give another number than here"
            )
        })
    }

    /// Whether it holds or speaks of a number that is not whole, or too large.
    fn has_inexact(&self, of: (&Definition, &str)) -> bool {
        self.has_number(of, |number| number.parse::<i64>().is_err())
    }

    fn has_number(
        &self,
        (definition, text): (&Definition, &str),
        is: impl Fn(&str) -> bool,
    ) -> bool {
        if literals(text).any(|literal| is(&literal)) {
            return true;
        }
        let parses = ["to_number", "units.", "unmarshal"].iter().any(|name| text.contains(name));
        let paths = self.paths_in(definition, &BTreeSet::new(), text);
        paths.into_iter().any(|(root, path)| match root {
            "data" => {
                let there = path.iter().try_fold(self.data(), |at, name| at.get(name));
                !path.is_empty() && there.is_some_and(|there| holds(there, parses, &is))
            }
            _ => self.input_at(&path).is_some_and(|there| holds(&there, parses, &is)),
        })
    }
}

fn holds(value: &Json, parses: bool, is: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Json::Number(number) => is(&number.to_string()),
        Json::String(text) => parses && text.contains(|c: char| c.is_ascii_digit()) && is(text),
        Json::Array(all) => all.iter().any(|value| holds(value, parses, is)),
        Json::Object(all) => all.values().any(|value| holds(value, parses, is)),
        _ => false,
    }
}

/// Beyond what 64 bits hold.
fn is_large(number: &str) -> bool {
    let whole = number.trim_start_matches('-').parse::<u64>().is_ok();
    !whole && number.parse::<f64>().is_ok_and(|number| number.abs() > 1e15)
}

/// The arithmetic in a text. A sign before a number is none.
fn operators(text: &str) -> Vec<char> {
    let bare = bare(text);
    let (mut found, mut last) = (Vec::new(), ' ');
    for c in bare.chars() {
        let behind = is_word(last) || matches!(last, ')' | ']' | '}' | '"');
        if matches!(c, '*' | '/' | '%' | '+') || c == '-' && behind {
            found.push(c);
        }
        if !c.is_whitespace() {
            last = c;
        }
    }
    found
}

/// The numbers in a text, as written.
fn literals(text: &str) -> impl Iterator<Item = String> {
    let bare = bare(text);
    let (mut found, mut now, mut last) = (Vec::new(), String::new(), ' ');
    for c in bare.chars().chain([' ']) {
        let first = now.is_empty() && c.is_ascii_digit() && !is_word(last) && last != '.';
        let on = !now.is_empty()
            && (is_word(c) || c == '.' || matches!(c, '+' | '-') && now.ends_with(['e', 'E']));
        if first || on {
            now.push(c);
        } else if !now.is_empty() {
            found.push(std::mem::take(&mut now));
        }
        last = c;
    }
    found.into_iter()
}

/// Whether a set or an object that is written there is ordered: `{1} > x`.
fn compares_made_ones(text: &str) -> bool {
    let bare = bare(text);
    let mut signs = bare.match_indices(['<', '>']);
    signs.any(|(at, _)| {
        let behind = bare[at + 1..].trim_start_matches('=').trim_start();
        behind.starts_with('{') || bare[..at].trim_end().ends_with('}')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_and_numbers_are_found_outside_of_strings() {
        for (text, signs, numbers) in [
            (r#"x == -1; "a+1.5" # 2*3"#, "", "1"),
            ("input.n + 0.2 == 0.3", "+", "0.2 0.3"),
            ("a - b; x[0] * 1e9", "-*", "0 1e9"),
            ("count(x) % 2 == 0", "%", "2 0"),
            ("x := `1+1`; a1 > 7", "", "7"),
        ] {
            let found: String = operators(text).into_iter().collect();
            assert_eq!(found, signs, "{text}");
            assert_eq!(literals(text).collect::<Vec<_>>().join(" "), numbers, "{text}");
        }
        assert!(compares_made_ones(r#"{1} > {"a": 1}"#));
        assert!(!compares_made_ones("count({x | x := input.a[_]}) > 3"));
    }
}
