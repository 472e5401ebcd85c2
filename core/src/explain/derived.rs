//! What is calculated from secrets: which variables of a definition, and which rules. Where it can't be told, it is.
//!
//! A variable is, if a condition speaks of it and of a secret, or of another such; a rule is, if its value speaks of one. What is met or not
//! by a secret is not calculated from it.

use std::collections::{BTreeMap, BTreeSet};

use super::probe::Prober;
use super::rules::Definition;
use super::secrets::Secrets;
use super::texts::{call, is_word, path, references};

/// What stands where a variable may, and is none.
const WORDS: [&str; 16] = [
    "input", "data", "not", "some", "in", "every", "as", "with", "true", "false", "null", "if",
    "contains", "else", "default", "_",
];

/// A definition, by its file and line.
type Place<'p> = (&'p str, u32);

/// What a text of a definition speaks of.
#[derive(Default)]
struct Reads {
    /// Of a secret.
    secret: bool,
    /// Where in the data.
    data: Vec<Vec<String>>,
    /// By their full names.
    rules: Vec<String>,
    /// Names that may be variables; what is called is none.
    variables: BTreeSet<String>,
}

struct Texts<'p> {
    place: Place<'p>,
    name: String,
    conditions: Vec<Reads>,
    values: Vec<Reads>,
}

pub struct Derived<'p> {
    prober: &'p Prober<'p>,
    input: Vec<Vec<String>>,
    data: Vec<Vec<String>>,
    /// By their full names, and where they are in the data.
    rules: BTreeMap<String, Vec<String>>,
    variables: BTreeMap<Place<'p>, BTreeSet<String>>,
    /// There are policies that can't be read here.
    unread: bool,
}

impl<'p> Derived<'p> {
    pub fn of(prober: &'p Prober<'p>, secrets: &Secrets) -> Derived<'p> {
        let hidden = prober.hidden().iter().map(|hidden| hidden.path.clone());
        let mut derived = Derived {
            prober,
            input: hidden.chain(secrets.input.iter().cloned()).collect(),
            data: secrets.data.clone(),
            rules: BTreeMap::new(),
            variables: BTreeMap::new(),
            unread: !prober.unread().is_empty(),
        };
        let texts: Vec<Texts<'p>> = prober.definitions().iter().map(|d| derived.texts(d)).collect();
        // Rules speak of others.
        while texts.iter().filter(|of| derived.learn(of)).count() > 0 {}
        derived
    }

    fn texts(&self, definition: &'p Definition) -> Texts<'p> {
        let conditions = definition.bodies.iter().flat_map(|body| &body.conditions);
        let own = definition.bodies.iter().filter_map(|body| body.value.as_deref());
        // An object's names stand in its head.
        let values = own.chain([definition.value.as_str(), definition.head.as_str()]);
        Texts {
            place: (&definition.file, definition.line),
            name: definition.full_name(),
            conditions: conditions.map(|c| self.read(definition, &c.raw)).collect(),
            values: values.map(|text| self.read(definition, text)).collect(),
        }
    }

    /// Whether there was anything to learn of a definition.
    fn learn(&mut self, of: &Texts<'p>) -> bool {
        let mut variables = self.variables.get(&of.place).cloned().unwrap_or_default();
        let before = (variables.len(), self.rules.len(), self.variables.len());
        loop {
            let known = variables.len();
            for reads in &of.conditions {
                if self.is_secret(reads, &variables) {
                    variables.extend(reads.variables.iter().cloned());
                }
            }
            if variables.len() == known {
                break;
            }
        }
        if of.values.iter().any(|reads| self.is_secret(reads, &variables)) {
            let place = path(&format!(".{}", of.name)).unwrap_or_default();
            self.rules.insert(of.name.clone(), place);
        }
        let after = variables.len();
        self.variables.insert(of.place, variables);
        before != (after, self.rules.len(), self.variables.len())
    }

    fn read(&self, definition: &Definition, text: &str) -> Reads {
        let overlap = |secrets: &[Vec<String>], path: &[String]| {
            secrets.iter().any(|secret| secret.iter().zip(path).all(|(a, b)| a == b))
        };
        let mut reads = Reads { secret: self.unread, ..Reads::default() };
        for (root, path) in self.prober.paths_in(definition, &BTreeSet::new(), text) {
            if root == "data" {
                reads.secret |= overlap(&self.data, &path);
                reads.data.push(path);
            } else {
                reads.secret |= overlap(&self.input, &path);
            }
        }
        let builtins = self.prober.builtins();
        for (at, word) in references(text) {
            // What others answered, and the environment.
            reads.secret |= matches!(word.as_str(), "http.send" | "opa.runtime")
                || builtins.has(&word) && word != "time.now_ns";
            let rule = self.prober.meant(definition, &word);
            reads.rules.extend(rule.map(Definition::full_name));
            let first: String = word.chars().take_while(|c| is_word(*c)).collect();
            let number = first.starts_with(|c: char| c.is_ascii_digit());
            if !number && !WORDS.contains(&&*first) && call(text, at, &word).is_none() {
                reads.variables.insert(first);
            }
        }
        reads
    }

    fn is_secret(&self, reads: &Reads, variables: &BTreeSet<String>) -> bool {
        reads.secret
            || !reads.variables.is_disjoint(variables)
            || reads.rules.iter().any(|name| self.rules.contains_key(name))
            || reads.data.iter().any(|path| self.is_rule(path))
    }

    /// Whether what is there in the data, around it or within it, is such a rule.
    pub fn is_rule(&self, at: &[String]) -> bool {
        let here = |place: &Vec<String>| place.iter().zip(at).all(|(a, b)| a == b);
        self.unread || self.rules.values().any(here)
    }

    /// Whether an expression is, as it stands in a definition.
    pub fn is(&self, definition: Option<&Definition>, text: &str) -> bool {
        definition.is_none_or(|definition| {
            let variables = self.variables.get(&(definition.file.as_str(), definition.line));
            let reads = self.read(definition, text);
            variables.is_none_or(|variables| self.is_secret(&reads, variables))
        })
    }
}
