//! Rule by rule: what each said, and what its definitions had to do with it.

use super::doubt::Through;
use super::probe::{End, Next, Prober};
use super::rename::{Renamed, restored};
use super::rules::{Body, Definition, Shape};
use super::{DefinitionSaid, Doubt, Explanation, Json, Met, Outcome, RuleSaid, Then, Unmet};

/// Rules within rules within rules.
const DEPTH: usize = 4;
/// So many conditions of a body are taken as met, one after the other.
const BEYOND: usize = 5;

/// A rule's package, and its name.
type Name = (String, String);

pub fn of(prober: &Prober<'_>, rule: &Name, above: &mut Vec<Name>) -> RuleSaid {
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
    let partial = definitions.iter().any(|d| d.shape == Shape::Set || !d.keys().is_empty());
    RuleSaid { name: format!("data.{}.{}", rule.0, rule.1), value, partial, definitions: all }
}

impl DefinitionSaid {
    fn at(definition: &Definition, line: u32, text: &str, outcome: Outcome) -> DefinitionSaid {
        let (file, text) = (definition.file.clone(), text.to_owned());
        let (value, made_of, deeper, unmet) = (None, Vec::new(), false, None);
        let (met, doubts) = (Vec::new(), Vec::new());
        DefinitionSaid { file, line, text, outcome, met, value, made_of, deeper, doubts, unmet }
    }
}

/// What a definition had to do with it, with its branches.
fn defined(
    prober: &Prober<'_>,
    definition: &Definition,
    above: &mut Vec<Name>,
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
            let (made_of, deeper) = made_of(prober, definition, body, above);
            let doubts = prober.doubts_of_met(definition, body);
            let (met, value) = (conditions(body), Some(value));
            all.push(DefinitionSaid { met, value, made_of, deeper, doubts, ..at(Outcome::Gave) });
            continue;
        }
        let unmet = Some(ended(prober, definition, body, above));
        all.push(DefinitionSaid { unmet, ..at(Outcome::NotMet) });
    }
}

/// What of a body its first line does not show.
fn conditions(body: &Body) -> Vec<Met> {
    let others = body.conditions.iter().filter(|condition| condition.line != body.line);
    others.map(|c| Met { line: c.line, text: c.text.clone() }).collect()
}

/// So many of these rules are shown, and whether that leaves any out since it is too deep.
fn shown(rules: Vec<Name>, above: &[Name]) -> (Vec<Name>, bool) {
    let mut rules: Vec<_> = rules.into_iter().filter(|rule| !above.contains(rule)).collect();
    let most = DEPTH.saturating_sub(above.len()) * 3;
    let deeper = rules.len() > most;
    rules.truncate(most);
    (rules, deeper)
}

/// What the rules said of which a value is made; and of another rule's, that its conditions speak of.
fn made_of(
    prober: &Prober<'_>,
    definition: &Definition,
    body: &Body,
    above: &mut Vec<Name>,
) -> (Vec<RuleSaid>, bool) {
    let before = body.conditions.last().map(|condition| &*condition.until_here);
    let value = body.value.as_deref().unwrap_or(&definition.value);
    let mut rules = prober.rules_in(definition, before, value);
    if above.len() > 1 {
        rules.extend(before.iter().flat_map(|text| prober.rules_in(definition, None, text)));
    }
    let (rules, deeper) = shown(rules, above);
    (rules.iter().map(|rule| of(prober, rule, above)).collect(), deeper)
}

/// Where a body ends; and where it may not have ended there, where it goes then.
fn ended(
    prober: &Prober<'_>,
    definition: &Definition,
    body: &Body,
    above: &mut Vec<Name>,
) -> Unmet {
    let (at, end) = prober.unmet(definition, body);
    let mut ends = vec![unmet(prober, definition, &end, above)];
    let (mut met, mut last) = (vec![at], None);
    while let Some(unmet) = ends.last().filter(|unmet| !unmet.doubts.is_empty()) {
        if unmet.value || ends.len() > BEYOND {
            break;
        }
        match prober.beyond(definition, body, &met) {
            Next::Ends(at, end) => {
                met.push(at);
                ends.push(self::unmet(prober, definition, &end, above));
            }
            Next::Met => {
                last = Some(Then::Met);
                break;
            }
            Next::Unknown => {
                last = Some(Then::Unknown);
                break;
            }
        }
    }
    let mut then = last;
    while let Some(mut unmet) = ends.pop() {
        unmet.then = then;
        if ends.is_empty() {
            // What was met here may not have been.
            for (at, condition) in body.conditions.iter().enumerate().take(at) {
                let (before, text) = (&body.conditions[..at], &condition.text);
                if !condition.elsewhere {
                    unmet.doubts.extend(prober.inexact_met(definition, before, text));
                }
            }
            return unmet;
        }
        then = Some(Then::Ends(Box::new(unmet)));
    }
    Unmet::default()
}

/// What there is to say of where a body ends. Of a value that can't be made, only what is not there.
fn unmet(
    prober: &Prober<'_>,
    definition: &Definition,
    end: &End<'_>,
    above: &mut Vec<Name>,
) -> Unmet {
    let End { conditions, before, every, line, text, elsewhere, value } = end;
    let (before, text) = (before.as_deref(), text.as_str());
    let mut said = Unmet { line: *line, text: text.to_owned(), value: *value, ..Unmet::default() };
    if *elsewhere {
        return said;
    }
    let is_shown = |said: &Option<Json>| !value || said.is_none();
    said.input = prober.input_in(text);
    said.calls = prober.calls_in(definition, before, text);
    said.values = prober.values_in(definition, conditions, before, text, *every);
    for values in [&mut said.input, &mut said.calls, &mut said.values] {
        values.retain(|(_, there)| is_shown(there));
    }
    let (nested, deeper) = shown(prober.rules_in(definition, before, text), above);
    // What is not shown is doubted here.
    let through = if deeper { Through::Rules } else { Through::Functions };
    said.doubts = prober.doubts(definition, conditions, text, (through, false));
    let because = nested.iter().map(|rule| of(prober, rule, above));
    said.because = because.filter(|said| is_shown(&said.value)).collect();
    said.deeper = deeper;
    said
}

/// Whether what a rule said rests on what is not known here. Who gave a value makes the others idle.
pub fn is_uncertain(rule: &RuleSaid) -> bool {
    let gave = rule.definitions.iter().any(|d| d.outcome == Outcome::Gave);
    rule.definitions.iter().any(|definition| match &definition.unmet {
        Some(_) if gave && !rule.partial => false,
        Some(unmet) => !unmet.doubts.is_empty() || unmet.because.iter().any(is_uncertain),
        None => !definition.doubts.is_empty() || definition.made_of.iter().any(is_uncertain),
    })
}

/// Whether anything is doubted so.
pub fn is_doubted(rule: &RuleSaid, so: &dyn Fn(&Doubt) -> bool) -> bool {
    rule.definitions.iter().any(|definition| {
        definition.doubts.iter().any(so)
            || definition.made_of.iter().any(|rule| is_doubted(rule, so))
            || definition.unmet.as_ref().is_some_and(|unmet| is_doubted_at(unmet, so))
    })
}

fn is_doubted_at(unmet: &Unmet, so: &dyn Fn(&Doubt) -> bool) -> bool {
    let next = match &unmet.then {
        Some(Then::Ends(next)) => is_doubted_at(next, so),
        _ => false,
    };
    next || unmet.doubts.iter().any(so) || unmet.because.iter().any(|rule| is_doubted(rule, so))
}

/// Gives variables the names that people gave them.
pub fn restore(explanation: &mut Explanation, renamed: &Renamed) {
    if renamed.is_empty() {
        return;
    }
    let texts = explanation.differs.iter_mut().chain(&mut explanation.failed);
    let texts = texts.chain(&mut explanation.left_out);
    texts.for_each(|text| *text = restored(text, renamed));
    explanation.rules.iter_mut().for_each(|rule| restore_rule(rule, renamed));
}

fn restore_rule(rule: &mut RuleSaid, renamed: &Renamed) {
    for definition in &mut rule.definitions {
        definition.text = restored(&definition.text, renamed);
        for condition in &mut definition.met {
            condition.text = restored(&condition.text, renamed);
        }
        for doubt in &mut definition.doubts {
            doubt.told = restored(&doubt.told, renamed);
        }
        definition.made_of.iter_mut().for_each(|rule| restore_rule(rule, renamed));
        if let Some(unmet) = &mut definition.unmet {
            restore_unmet(unmet, renamed);
        }
    }
}

fn restore_unmet(unmet: &mut Unmet, renamed: &Renamed) {
    let names = [&mut unmet.input, &mut unmet.calls, &mut unmet.values].into_iter().flatten();
    let names = names.map(|(name, _)| name);
    let doubts = unmet.doubts.iter_mut().map(|doubt| &mut doubt.told);
    for text in names.chain([&mut unmet.text]).chain(doubts) {
        *text = restored(text, renamed);
    }
    unmet.because.iter_mut().for_each(|rule| restore_rule(rule, renamed));
    if let Some(Then::Ends(next)) = &mut unmet.then {
        restore_unmet(next, renamed);
    }
}
