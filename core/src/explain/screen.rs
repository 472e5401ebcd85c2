//! The one gate between an explanation and who reads it: what of it is secret, or calculated from what is, goes out of all of it, before it is
//! text, JSON or HTML.

use std::borrow::Cow;

use serde_json::Value as Json;

use super::derived::Derived;
use super::probe::Prober;
use super::rename::restored;
use super::rules::Definition;
use super::secrets::{DERIVED, Secrets, named};
use super::texts::path;
use super::{DefinitionSaid, Explanation, RuleSaid, Then, Unmet};
use crate::decision::json as raw;
use crate::protect::tree::{Node, quoted};

type Valued = (String, Option<Json>);

struct Screen<'p> {
    prober: &'p Prober<'p>,
    secrets: Secrets,
    derived: Derived<'p>,
}

/// Takes secrets out of an explanation; and out of the recorded result, as its record shows it.
pub fn screen(said: &mut Explanation, prober: &Prober<'_>, secrets: Secrets, result: Option<&str>) {
    let derived = Derived::of(prober, &secrets);
    let screen = Screen { prober, secrets, derived };
    let derived = screen.derived.is_rule(&within(&said.query));
    screen.value(&said.query, &mut said.result, derived);
    let shown = result.and_then(|raw| serde_json::from_str::<Json>(raw).ok());
    let mut recorded = shown.clone();
    screen.value(&said.query, &mut recorded, derived);
    if recorded != shown {
        said.recorded = recorded;
    }
    let sentences = said.differs.iter_mut().chain(&mut said.left_out);
    for sentence in sentences.chain(&mut said.failed).chain(&mut said.lacks) {
        screen.sentence(sentence);
    }
    said.rules.iter_mut().for_each(|rule| screen.rule(rule));
}

/// A record without what in its result is calculated from secrets; nothing if nothing is. What is no part of the rest is no reason either.
pub fn without_result(record: &str, said: &Explanation) -> Option<String> {
    let result = said.recorded.as_ref()?;
    let mut node = Node::Raw(record);
    node.set("result", Node::New(result.to_string()));
    if let Some(reasons) = node.member("docket").and_then(|docket| docket.member("reasons"))
        && let Node::Array(reasons) = reasons.open()
    {
        for reason in reasons {
            let told = raw::as_str(&reason.to_text()).map(Cow::into_owned);
            if told.is_none_or(|told| !says(result, &told)) {
                *reason = quoted(DERIVED);
            }
        }
    }
    Some(node.to_text())
}

fn says(value: &Json, text: &str) -> bool {
    match value {
        Json::String(said) => said == text,
        Json::Array(list) => list.iter().any(|value| says(value, text)),
        Json::Object(members) => members.iter().any(|(k, v)| k == text || says(v, text)),
        _ => false,
    }
}

/// Where a rule is in the data.
fn within(name: &str) -> Vec<String> {
    name.strip_prefix("data").and_then(path).unwrap_or_default()
}

impl Screen<'_> {
    fn value(&self, name: &str, value: &mut Option<Json>, derived: bool) {
        if let Some(value) = value {
            let name = named(&restored(name, self.prober.renamed()));
            *value = self.secrets.screened(name.as_deref(), value, derived);
        }
    }

    fn sentence(&self, sentence: &mut String) {
        *sentence = self.secrets.sentence(sentence);
    }

    fn rule(&self, said: &mut RuleSaid) {
        let derived = self.derived.is_rule(&within(&said.name));
        self.value(&said.name, &mut said.value, derived);
        for definition in &mut said.definitions {
            self.definition(&said.name, derived, definition);
        }
    }

    fn definition(&self, name: &str, derived: bool, said: &mut DefinitionSaid) {
        self.value(name, &mut said.value, derived);
        self.sentence(&mut said.text);
        said.met.iter_mut().for_each(|met| self.sentence(&mut met.text));
        said.doubts.iter_mut().for_each(|doubt| self.sentence(&mut doubt.told));
        said.made_of.iter_mut().for_each(|rule| self.rule(rule));
        let is = |d: &&Definition| {
            let lines = d.bodies.iter().map(|body| body.line);
            d.file == said.file && lines.chain([d.line]).any(|line| line == said.line)
        };
        let of = self
            .prober
            .definitions()
            .iter()
            .filter(|d| within(&format!("data.{}", d.full_name())) == within(name));
        let definition = of.into_iter().find(is);
        if let Some(unmet) = &mut said.unmet {
            self.unmet(definition, unmet);
        }
    }

    fn unmet(&self, definition: Option<&Definition>, said: &mut Unmet) {
        self.sentence(&mut said.text);
        said.doubts.iter_mut().for_each(|doubt| self.sentence(&mut doubt.told));
        let lists: [&mut Vec<Valued>; 3] = [&mut said.input, &mut said.calls, &mut said.values];
        for (name, value) in lists.into_iter().flatten() {
            self.value(name, value, self.derived.is(definition, name));
            self.sentence(name);
        }
        said.because.iter_mut().for_each(|rule| self.rule(rule));
        if let Some(Then::Ends(next)) = &mut said.then {
            self.unmet(definition, next);
        }
    }
}
