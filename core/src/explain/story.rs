//! A decision and why it was made, as text of eighty columns.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::{DefinitionSaid, Explanation, Outcome, RuleSaid, Then, Unmet};
use crate::decision::json;
use crate::decision::record::Record;
use crate::decision::time;
use crate::decision::verdict::Basis;
use crate::words;

const WIDTH: usize = 80;
/// Lines of the input and of the result.
const LINES: usize = 40;
/// Conditions of a body that was met.
const CONDITIONS: usize = 20;
/// Members that a definition gave.
const MEMBERS: usize = 5;

const UNJUDGED: &str = "no rule can judge this result: set `verdict` or `verdict_policy` in the pipeline file (docs/record.md, Verdict)";

/// A decision: what it answered, who asked for what, when and where, and what it was asked.
pub fn decision(record: &Record<'_>) -> String {
    let mut out = String::new();
    let verdict = record.verdict.as_str().to_uppercase();
    line(&mut out, 0, &format!("{verdict}  {}", record.policy));
    let mut row = |name: &str, value: &str| {
        if !value.is_empty() {
            paragraph(&mut out, &format!("  {name:<10}"), 12, value);
        }
    };
    row("decision", &record.decision_id);
    row("time", &time::format(record.timestamp));
    let unsaid = "no text where docket looks; `request.subject` in a pipeline file names the place";
    row("who", if record.subject.is_empty() { unsaid } else { &record.subject });
    let what = format!("{} {}", record.action, record.resource);
    row("what", what.trim());
    let instance = record.instance.as_deref().map(|id| format!(" ({id})")).unwrap_or_default();
    let version = record.label("version").map(|v| format!(", OPA {v}")).unwrap_or_default();
    row("service", &format!("{}{instance}{version}", record.service));
    if record.trace_from != "none" {
        let parent = record.parent_span_id.map(|span| format!(", span {span}")).unwrap_or_default();
        row("trace", &format!("{}{parent}, from {}", record.trace_id, record.trace_from));
    }
    row("bundle", &record.revision());
    if let Some(nanos) = record.duration {
        row("took", &format!("{:.3} ms", nanos as f64 / 1e6));
    }
    for reason in json::elements(record.reasons).filter_map(json::as_str) {
        row("reason", &reason);
    }
    if let Some(request) = json::get(record.docket, "request") {
        row("request", &requested(request));
    }
    if let Some(how) = json::get(record.docket, "match") {
        let text = |name: &str| json::get(how, name).and_then(json::as_str).unwrap_or_default();
        row("matched", format!("by {} {}", text("class"), text("key")).trim());
    }
    for name in ["erased", "masked"] {
        let paths = record.get(name).into_iter().flat_map(json::elements).filter_map(json::as_str);
        row(name, &paths.collect::<Vec<_>>().join(", "));
    }
    if record.verdict_from == Basis::Nothing.name() {
        row("verdict", UNJUDGED);
    }
    for (title, part) in [("result", record.get("result")), ("error", record.get("error"))] {
        if let Some(raw) = part {
            document(&mut out, title, raw);
        }
    }
    if let Some(raw) = record.get("input") {
        document(&mut out, "input", raw);
    }
    out
}

/// `GET /pay of orders: 403 in 12.000 ms, says its access_log`.
fn requested(request: &str) -> String {
    let text = |name: &str| json::get(request, name).and_then(json::as_str).unwrap_or_default();
    let number = |name: &str| json::get(request, name).and_then(json::as_u64);
    let mut out = format!("{} {}", text("method"), text("path")).trim().to_owned();
    if !text("service").is_empty() {
        out.push_str(&format!(" of {}", text("service")));
    }
    let answer = match (number("status"), number("grpc_status")) {
        (_, Some(code)) => format!("gRPC status {code}"),
        (Some(code), None) => code.to_string(),
        (None, None) => "no status".into(),
    };
    let took = number("duration_ns").unwrap_or_default() as f64 / 1e6;
    out.push_str(&format!(": {answer} in {took:.3} ms, says its {}", text("from")));
    for name in ["flags", "details"] {
        if !text(name).is_empty() {
            out.push_str(&format!(", {}", text(name)));
        }
    }
    out
}

/// Why it was made; `bundle` is what to call the bundle.
pub fn explanation(said: &Explanation, bundle: &str) -> String {
    let mut out = String::new();
    let result = match &said.failed {
        Some(_) => "fails".to_owned(),
        None => format!("is {}", said.result.as_ref().map_or("undefined".to_owned(), short)),
    };
    let by = match said.evaluated_by.as_str() {
        "regorus" => String::new(),
        opa => format!(", by {opa}"),
    };
    let told = format!("Evaluated again with {bundle}{by}: {} {result}", said.query);
    paragraph(&mut out, "", 2, &told);
    if let (Some(failed), true) = (&said.failed, said.reproduced) {
        line(&mut out, 2, "It fails here, too:");
        paragraph(&mut out, "    ", 6, failed);
    } else if said.reproduced && said.uncertain {
        line(&mut out, 2, "as it was recorded. UNCERTAIN: it may have been for another reason.");
    } else if said.reproduced {
        line(&mut out, 2, "as it was recorded.");
        if let Some(lacks) = &said.lacks {
            paragraph(&mut out, "  ", 4, &format!("But {lacks}"));
        }
    } else if let Some(lacks) = &said.lacks {
        line(&mut out, 2, "NOT REPRODUCED: this is not the bundle that decided.");
        paragraph(&mut out, "  - ", 4, lacks);
    } else {
        let what = match said.failed {
            Some(_) => "NOT REPRODUCED.",
            None => "NOT REPRODUCED: another result was recorded. It may be that",
        };
        line(&mut out, 2, what);
        for reason in &said.differs {
            paragraph(&mut out, "  - ", 4, reason);
        }
        if said.failed.is_none() {
            line(&mut out, 2, "What follows is true of the evaluation here, not of the decision.");
        }
    }
    if let Some(why) = &said.beyond_regorus {
        let told =
            format!("{why}: an `opa` on the PATH, or one that --opa names, is asked instead.");
        paragraph(&mut out, "  ", 2, &told);
    }
    for left_out in &said.left_out {
        paragraph(&mut out, "  - ", 4, left_out);
    }
    let mut rules = Rules { out, told: BTreeMap::new() };
    said.rules.iter().for_each(|said| rules.rule(said, 0));
    rules.out
}

/// Rules as they are told, each once.
struct Rules<'s> {
    out: String,
    /// What was told, and where in the policies it is.
    told: BTreeMap<&'s str, String>,
}

impl<'s> Rules<'s> {
    fn rule(&mut self, said: &'s RuleSaid, indent: usize) {
        let value = said.value.as_ref().map_or("undefined".to_owned(), short);
        let (name, indents) = (format!("{} is {value}", said.name), " ".repeat(indent));
        let definitions = move || said.definitions.iter().filter(|d| d.outcome != Outcome::Idle);
        // What was too deep there, or went without saying, is told where it comes again.
        if let Some(place) = self.told.get(&*said.name).filter(|_| self.has_told_within(said)) {
            let told = format!("{name}, as above ({place})");
            return paragraph(&mut self.out, &indents, indent + 2, &told);
        }
        paragraph(&mut self.out, &indents, indent + 2, &name);
        for definition in definitions() {
            self.definition(said, definition, indent + 2);
        }
        if let Some(first) = definitions().next() {
            self.told.insert(&said.name, format!("{}:{}", first.file, first.line));
        }
    }

    fn has_told_within(&self, said: &RuleSaid) -> bool {
        within(said).all(|rule| self.told.contains_key(&*rule.name) && self.has_told_within(rule))
    }

    fn definition(&mut self, rule: &RuleSaid, said: &'s DefinitionSaid, indent: usize) {
        let mark = match said.outcome {
            // Which of its members.
            Outcome::Gave if rule.partial && said.value != rule.value => {
                format!("gave {}", said.value.as_ref().map_or_else(String::new, members))
            }
            Outcome::Gave => "gave it".to_owned(),
            Outcome::Default => "gave it, since no other was met".to_owned(),
            Outcome::NotMet => "not met".to_owned(),
            Outcome::NotReached => "not reached".to_owned(),
            Outcome::Idle => String::new(),
        };
        let place = format!("{}{}:{}", " ".repeat(indent), said.file, said.line);
        let out = &mut self.out;
        paragraph(out, "", indent + 2, &format!("{place}  {mark}"));
        paragraph(out, &" ".repeat(indent + 4), indent + 6, &said.text);
        for condition in said.met.iter().take(CONDITIONS) {
            let place = format!("{}line {}: ", " ".repeat(indent + 4), condition.line);
            paragraph(out, &place, indent + 6, &condition.text);
        }
        if said.met.len() > CONDITIONS {
            line(out, indent + 4, &format!(".. {} conditions more", said.met.len() - CONDITIONS));
        }
        for part in &said.made_of {
            self.rule(part, indent + 4);
        }
        if said.deeper {
            line(&mut self.out, indent + 4, DEEPER);
        }
        for doubt in &said.doubts {
            paragraph(&mut self.out, &" ".repeat(indent + 4), indent + 6, &doubt.told);
        }
        if let Some(unmet) = &said.unmet {
            // A rule of one line has its condition there.
            let place = match unmet {
                unmet if unmet.value => "no value: ".to_owned(),
                unmet if unmet.line != said.line => format!("line {}: ", unmet.line),
                _ => "ends at: ".to_owned(),
            };
            self.unmet(unmet, &place, indent + 4);
        }
    }

    fn unmet(&mut self, unmet: &'s Unmet, place: &str, indent: usize) {
        let out = &mut self.out;
        paragraph(out, &format!("{}{place}", " ".repeat(indent)), indent + 2, &unmet.text);
        let mut values = |values: &[(String, Option<Json>)], none: &str| {
            for (name, value) in values {
                let value = value.as_ref().map_or(none.to_owned(), short);
                paragraph(out, &" ".repeat(indent + 2), indent + 4, &format!("{name} is {value}"));
            }
        };
        values(&unmet.input, "not there");
        values(&unmet.values, "not there");
        values(&unmet.calls, "undefined");
        for nested in &unmet.because {
            self.rule(nested, indent + 2);
        }
        let out = &mut self.out;
        if unmet.deeper {
            line(out, indent + 2, DEEPER);
        }
        for doubt in &unmet.doubts {
            paragraph(out, &" ".repeat(indent + 2), indent + 4, &doubt.told);
        }
        match &unmet.then {
            Some(Then::Ends(next)) => {
                let place = match next.value {
                    true => "if it was, there is no value: ".to_owned(),
                    false => format!("if it was, the next that is not met, line {}: ", next.line),
                };
                self.unmet(next, &place, indent + 2);
            }
            Some(Then::Met) => line(out, indent + 2, "if it was, all other conditions are met"),
            Some(Then::Unknown) => {
                let told = "if it was, what follows can't be told: it needs what this gives";
                line(out, indent + 2, told);
            }
            None => {}
        }
    }
}

const DEEPER: &str = "deeper rules are not shown";

/// The rules that are told with a rule.
fn within(said: &RuleSaid) -> impl Iterator<Item = &RuleSaid> {
    said.definitions.iter().flat_map(|definition| {
        let (mut unmet, mut nested) = (definition.unmet.as_ref(), Vec::new());
        while let Some(this) = unmet {
            nested.extend(&this.because);
            unmet = match &this.then {
                Some(Then::Ends(next)) => Some(next),
                _ => None,
            };
        }
        definition.made_of.iter().chain(nested)
    })
}

/// The members of a set or an object, without what is around them.
fn members(value: &Json) -> String {
    let all: Vec<String> = match value {
        Json::Array(list) => list.iter().map(short).collect(),
        Json::Object(members) => members
            .iter()
            .map(|(k, v)| format!("{}: {}", Json::from(k.as_str()), short(v)))
            .collect(),
        other => vec![short(other)],
    };
    let more = all.len().saturating_sub(MEMBERS);
    let told = all[..all.len() - more].join(", ");
    if more > 0 { format!("{told} and {more} more") } else { told }
}

fn short(value: &Json) -> String {
    const MOST: usize = 200;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}..", &text[..at]),
        None => text,
    }
}

/// JSON, indented; long ones are cut.
fn document(out: &mut String, title: &str, raw: &str) {
    let Ok(value) = serde_json::from_str::<Json>(raw) else { return };
    let one = value.to_string();
    if title.len() + one.chars().count() < WIDTH - 14 {
        return paragraph(out, &format!("  {title:<10}"), 12, &one);
    }
    line(out, 2, title);
    let pretty = serde_json::to_string_pretty(&value).unwrap_or_default();
    let lines: Vec<&str> = pretty.lines().collect();
    for text in lines.iter().take(LINES) {
        // A value is to be copied: it is not broken, however long it is.
        out.push_str("    ");
        out.extend(words::visible(text));
        out.push('\n');
    }
    if lines.len() > LINES {
        line(out, 4, &format!(".. {} lines more; --json has all", lines.len() - LINES));
    }
}

fn line(out: &mut String, indent: usize, text: &str) {
    paragraph(out, &" ".repeat(indent), indent + 2, text);
}

/// Text behind `first`, broken at spaces where there are some; further lines are indented. Its own line ends are spaces; control
/// characters, which a terminal would obey, are replaced.
fn paragraph(out: &mut String, first: &str, indent: usize, text: &str) {
    let clean: Vec<char> = words::visible(text).collect();
    let indent = indent.min(WIDTH / 2);
    let mut rest = &clean[..];
    let mut head = first.to_owned();
    loop {
        let room = WIDTH.saturating_sub(head.chars().count()).max(20);
        if rest.len() <= room {
            let tail: String = rest.iter().collect();
            out.push_str(format!("{head}{tail}").trim_end());
            out.push('\n');
            return;
        }
        // Literals of policies stay as they are.
        let mut within = false;
        let is_space = |c: &char| {
            within ^= matches!(c, '"' | '`');
            *c == ' ' && !within
        };
        let spaces: Vec<bool> = rest[..room].iter().map(is_space).collect();
        let space = spaces.iter().rposition(|is| *is).filter(|at| *at > room / 3);
        // A single blank of a long literal, if there is no other place.
        let single = |three: &[char]| three[1] == ' ' && three[0] != ' ' && three[2] != ' ';
        let inner = || rest[..room].windows(3).rposition(single).map(|at| at + 1);
        let space = space.or_else(|| inner().filter(|at| *at > room / 3));
        let part: String = rest[..space.unwrap_or(room)].iter().collect();
        let cut = space.map_or(room, |at| at + 1);
        out.push_str(&format!("{head}{part}\n"));
        rest = &rest[cut..];
        head = " ".repeat(indent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_in_literals_stay() {
        let text = "input.kind == \"    a|\"";
        assert_eq!(crate::explain::rules::one_line("input.kind  ==\n\t\"    a|\""), text);
        let mut out = String::new();
        paragraph(&mut out, &" ".repeat(66), 4, text);
        assert!(out.contains("\n    \"    a|\""), "{out}");
    }

    #[test]
    fn an_error_of_several_lines_is_a_paragraph() {
        let mut out = String::new();
        paragraph(&mut out, "  reason    ", 12, "1 error occurred:\np.rego:3: it conflicts");
        assert_eq!(out, "  reason    1 error occurred: p.rego:3: it conflicts\n");
    }
}
