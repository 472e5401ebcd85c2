//! What a result says by its shape: one table of names and what they stand for. All that a result says is gathered
//! first, and combined then: an objection denies, whatever stands beside it; answers that contradict each other are
//! no answer.

use std::collections::BTreeSet;

use super::super::event::Event;
use super::super::json::{self, Member};
use super::{Basis, Verdict};

pub(super) struct Judged {
    pub verdict: Verdict,
    pub from: Basis,
    /// Which answers contradict each other.
    pub contradiction: Option<String>,
}

impl Judged {
    fn new(verdict: Option<Verdict>, from: Basis) -> Judged {
        match verdict {
            Some(verdict) => Judged { verdict, from, contradiction: None },
            None => {
                Judged { verdict: Verdict::Undefined, from: Basis::Nothing, contradiction: None }
            }
        }
    }
}

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Means {
    /// `true`, or a word that allows, is a yes.
    Answer,
    /// Reasons to deny: nothing in it is no objection.
    Objection,
    /// Objections by a name of their own, as conftest has them: a set, or a no if it is true (`deny_public`).
    Objections,
    /// The answer is inside.
    Inside,
    /// Several answers, one each.
    Each,
    /// Envoy's own answer, as Kyverno writes it: it is there or not.
    Ok,
    Denied,
}

/// The table. Case, underscores and hyphens don't matter (`isAllowed`).
fn means(name: &str) -> Option<Means> {
    use Means::*;
    const NAMES: [(&str, Means); 41] = [
        ("allow", Answer),
        ("allowed", Answer),
        ("isallowed", Answer),
        ("isallow", Answer),
        ("permit", Answer),
        ("permitted", Answer),
        ("ispermitted", Answer),
        ("authorized", Answer),
        ("isauthorized", Answer),
        ("granted", Answer),
        ("decision", Answer),
        ("decisiontype", Answer),
        ("effect", Answer),
        ("deny", Objection),
        ("denied", Objection),
        ("isdenied", Objection),
        ("denies", Objection),
        ("denials", Objection),
        ("violation", Objection),
        ("violations", Objection),
        ("forbid", Objection),
        ("forbidden", Objection),
        ("isforbidden", Objection),
        ("blocked", Objection),
        ("isblocked", Objection),
        ("disallow", Objection),
        ("disallowed", Objection),
        ("notallowed", Objection),
        ("notauthorized", Objection),
        ("notpermitted", Objection),
        ("unauthorized", Objection),
        ("rejected", Objection),
        ("refused", Objection),
        ("response", Inside),
        ("result", Inside),
        ("outcome", Inside),
        ("evaluations", Each),
        ("decisions", Each),
        ("okresponse", Ok),
        ("deniedresponse", Denied),
        ("results", Each),
    ];
    // Most members of a result are none of these.
    let first = name.as_bytes().first()?.to_ascii_lowercase();
    if !b"adpgeifvbronu".contains(&first) || name.len() > 64 {
        return None;
    }
    let same = |known: &str| {
        let mut letters =
            name.bytes().filter(|b| !b"_-".contains(b)).map(|b| b.to_ascii_lowercase());
        known.bytes().all(|b| letters.next() == Some(b)) && letters.next().is_none()
    };
    let known = NAMES.iter().find(|(known, _)| same(known)).map(|(_, means)| *means);
    known.or_else(|| {
        let rest = |of: &str| {
            let (head, rest) = name.split_at_checked(of.len())?;
            head.eq_ignore_ascii_case(of).then_some(rest.as_bytes())
        };
        // `deny_tags`, `deny-tags`, `denyTags`.
        let apart =
            |rest: &[u8]| rest.first().is_some_and(|b| b"_-".contains(b) || b.is_ascii_uppercase());
        // How something is set is no objection.
        let is_setting = || {
            let last = name.rsplit(['_', '-']).next().unwrap_or_default();
            ["list", "rules", "config", "policy", "policies", "defaults"].contains(&last)
        };
        let denies = rest("deny").or_else(|| rest("violation")).filter(|r| apart(r));
        denies.filter(|_| !is_setting()).map(|_| Objections)
    })
}

/// Whether a name says no at its end (`access_denied`, `hasViolations`) or by a `not` before what says yes: `true` under it
/// is a no.
fn says_no(name: &str) -> bool {
    const NO: [&str; 23] = [
        "deny",
        "denied",
        "denies",
        "denial",
        "denials",
        "forbid",
        "forbidden",
        "block",
        "blocked",
        "unauthorized",
        "unauthorised",
        "unauthenticated",
        "disallowed",
        "reject",
        "rejected",
        "refused",
        "violation",
        "violations",
        "violated",
        "banned",
        "restricted",
        "failed",
        "invalid",
    ];
    // Where all is in capitals, they begin no words.
    let is_mixed = name.bytes().any(|b| b.is_ascii_lowercase());
    let mut words: Vec<String> = Vec::new();
    let mut apart = true;
    for c in name.chars() {
        if matches!(c, '_' | '-') {
            apart = true;
            continue;
        }
        if apart || is_mixed && c.is_ascii_uppercase() {
            words.push(String::new());
        }
        apart = false;
        words.last_mut().into_iter().for_each(|word| word.push(c.to_ascii_lowercase()));
    }
    let Some((last, before)) = words.split_last() else { return false };
    let negated = before.iter().any(|word| matches!(&**word, "not" | "no" | "non" | "never"));
    if negated { means(last) == Some(Means::Answer) } else { NO.contains(&&**last) }
}

/// All that a result says.
#[derive(Default)]
struct Said<'a> {
    /// The first member that says yes, and the first that says no.
    yes: Option<&'a str>,
    no: Option<&'a str>,
    /// What `allowed` says: of several, Envoy's plugin reads this one.
    allowed: Option<bool>,
    objection: bool,
    no_objection: bool,
}

impl<'a> Said<'a> {
    fn answer(&mut self, name: &'a str, yes: bool) {
        if name == "allowed" {
            self.allowed = Some(yes);
        }
        let side = if yes { &mut self.yes } else { &mut self.no };
        side.get_or_insert(name);
    }

    fn combine(&self, envoy: bool, from: Basis) -> Judged {
        let verdict =
            match (&self.yes, &self.no) {
                _ if self.objection => Verdict::Deny,
                (Some(_), Some(_)) if envoy && self.allowed.is_some() => {
                    if self.allowed == Some(true) { Verdict::Allow } else { Verdict::Deny }
                }
                (Some(yes), Some(no)) => {
                    return Judged {
                        contradiction: Some(format!(
                            "the result contradicts itself: {yes} says yes, {no} says no"
                        )),
                        ..Judged::new(None, from)
                    };
                }
                (Some(_), None) => Verdict::Allow,
                (None, Some(_)) => Verdict::Deny,
                (None, None) if self.no_objection => Verdict::Allow,
                (None, None) => return Judged::new(None, from),
            };
        Judged::new(Some(verdict), from)
    }
}

/// Results in results are looked into so many times.
const MAX_DEPTH: usize = 4;

pub(super) fn judge(event: &Event<'_>, result: &str) -> Judged {
    let path = &*event.path;
    let last = path.rsplit('/').next().unwrap_or_default();
    let (from, mut said) = match result.as_bytes().first() {
        Some(b't' | b'f') => (Basis::Boolean, Said::default()),
        Some(b'[') => (Basis::Set, Said::default()),
        Some(b'{') => (Basis::Object, Said::default()),
        Some(b'"') => (Basis::String, Said::default()),
        _ => (Basis::Nothing, Said::default()),
    };
    if let Some(meant @ (Means::Objection | Means::Objections)) = means(last)
        && objects(result, meant, &mut said)
    {
        // Objects that are objections are sets: a partial object rule, deny[key] := reason.
        let from = if from == Basis::Object { Basis::Set } else { from };
        return said.combine(false, from);
    }
    match result.as_bytes().first() {
        Some(b't') if means(last) == Some(Means::Objections) => said.answer("the result", false),
        // What has no such thing isn't allowed by that.
        Some(b't') if means(last).is_none() && says_no(last) => said.answer("the result", false),
        Some(b'f') if means(last).is_none() && says_no(last) => said.no_objection = true,
        Some(b't' | b'f') => said.answer("the result", result == "true"),
        Some(b'"') => {
            if let Some(yes) = json::as_str(result).and_then(|word| by_word(&word)) {
                said.answer("the result", yes);
            }
        }
        Some(b'{') => {
            gather(result, MAX_DEPTH, &mut said);
            let envoy = said.yes.is_some() && said.no.is_some() && envoy(event, result);
            return said.combine(envoy, from);
        }
        Some(b'[') => match batch(event, last, result) {
            Some(judged) => return judged,
            None => {
                if means(last) == Some(Means::Answer) {
                    booleans(result, "an element", &mut said);
                }
                each(result, "an element", MAX_DEPTH, &mut said);
            }
        },
        _ => {}
    }
    said.combine(false, from)
}

/// Whether Envoy's plugin asked, which reads `allowed` and nothing else.
fn envoy(event: &Event<'_>, result: &str) -> bool {
    let path = event.path.split('/').any(|part| matches!(part, "envoy" | "istio"));
    let own = ["http_status", "dynamic_metadata", "response_headers_to_add"];
    path || json::members(result).any(|m| own.contains(&m.name))
        || event.input.is_some_and(|input| {
            json::get(input, "attributes")
                .and_then(|a| json::get(json::get(a, "request")?, "http"))
                .is_some()
        })
}

fn gather<'a>(object: &'a str, depth: usize, said: &mut Said<'a>) {
    for member in json::members(object) {
        let name = member.name;
        let Some(means) = means(&member.key()) else {
            if matches!(member.value, "true") && says_no(&member.key()) {
                said.answer(name, false);
            }
            continue;
        };
        match means {
            Means::Answer => answer(&member, name, depth, said),
            // What is true may also be how something is set (`deny_by_default`): beside a yes it is a contradiction.
            Means::Objections if member.value == "true" => said.answer(name, false),
            Means::Objections if member.value == "false" => {}
            Means::Objection | Means::Objections => {
                objects(member.value, means, said);
            }
            Means::Inside if member.value.starts_with('{') && depth > 0 => {
                gather(member.value, depth - 1, said);
            }
            // XACML's has one or several.
            Means::Inside if member.value.starts_with('[') => each(member.value, name, depth, said),
            Means::Each => each(member.value, name, depth, said),
            Means::Ok if member.value != "null" => said.answer(name, true),
            Means::Denied if member.value != "null" => said.answer(name, false),
            _ => {}
        }
    }
}

fn answer<'a>(member: &Member<'a>, name: &'a str, depth: usize, said: &mut Said<'a>) {
    match member.value.as_bytes().first() {
        Some(b't') => said.answer(name, true),
        Some(b'f') => said.answer(name, false),
        Some(b'"') => {
            if let Some(yes) = json::as_str(member.value).and_then(|word| by_word(&word)) {
                said.answer(name, yes);
            }
        }
        Some(b'{') if depth > 0 => {
            let all = || json::members(member.value).map(|m| (m.key(), m.value));
            let is_each =
                all().all(|(key, v)| means(&key).is_none() && matches!(v, "true" | "false"));
            // Answers by what was asked: `{"read": true, "write": false}`.
            match is_each {
                true => all().for_each(|(_, value)| said.answer(name, value == "true")),
                false => gather(member.value, depth - 1, said),
            }
        }
        // Permit's bulk checks.
        Some(b'[') => {
            booleans(member.value, name, said);
            each(member.value, name, depth, said);
        }
        _ => {}
    }
}

/// Answers to several questions.
fn booleans<'a>(array: &'a str, name: &'a str, said: &mut Said<'a>) {
    let all = json::elements(array).filter(|e| matches!(*e, "true" | "false"));
    all.for_each(|element| said.answer(name, element == "true"));
}

/// Answers one each: AuthZEN's evaluations, Topaz's decisions (`is` of a decision by its name), Permit's bulk checks.
fn each<'a>(array: &'a str, name: &'a str, depth: usize, said: &mut Said<'a>) {
    for element in json::elements(array).filter(|e| e.starts_with('{') && depth > 0) {
        match (json::get(element, "is"), json::get(element, "decision")) {
            (Some(is @ ("true" | "false")), Some(decision)) => {
                if json::as_str(decision).and_then(|word| by_word(&word)) == Some(true) {
                    said.answer(name, is == "true");
                }
            }
            // Topaz leaves `is` away where it is false, and "allowed" is the name of what was asked.
            (None, Some("\"allowed\"")) if json::members(element).count() == 1 => {}
            _ => {
                let mut one = Said::default();
                gather(element, depth - 1, &mut one);
                match one.combine(false, Basis::Object).verdict {
                    Verdict::Allow => said.answer(name, true),
                    Verdict::Deny => said.answer(name, false),
                    _ => {}
                }
            }
        }
    }
}

/// Takes what objections say; whether they say anything.
fn objects(raw: &str, means: Means, said: &mut Said<'_>) -> bool {
    if means == Means::Objections && !matches!(raw.as_bytes().first(), Some(b'[' | b'{' | b'f')) {
        return false;
    }
    let any = match raw.as_bytes().first() {
        Some(b't') => true,
        Some(b'f') => false,
        Some(b'[') => json::elements(raw).any(binding),
        // By names of their own, each a set or a reason.
        Some(b'{') => json::members(raw).any(|m| !matches!(m.value, "[]" | "{}")),
        Some(b'"') => match json::as_str(raw) {
            Some(text) if by_word(&text) == Some(true) => return false,
            Some(text) => !text.is_empty(),
            None => return false,
        },
        Some(b'n') | None => return false,
        // A count.
        Some(_) => match raw.parse::<f64>() {
            Ok(count) if count >= 0.0 => count > 0.0,
            _ => return false,
        },
    };
    if any {
        said.objection = true;
    } else {
        said.no_objection = true;
    }
    true
}

/// Gatekeeper's violations of constraints that only warn, or that are tried out, deny nothing. A scoped action is
/// one each for where it is enforced.
fn binding(element: &str) -> bool {
    if !element.starts_with('{') {
        return true;
    }
    let only_warns = |action: &str| matches!(action, "\"dryrun\"" | "\"warn\"");
    match json::get(element, "enforcementAction") {
        Some("\"scoped\"") => {}
        Some(action) => return !only_warns(action),
        None => return true,
    }
    let spec = json::get(element, "constraint").and_then(|c| json::get(c, "spec"));
    let scoped = ["scopedEnforcementActions", "enforcementActions"]
        .iter()
        .find_map(|name| json::get(element, name).or_else(|| json::get(spec?, name)));
    let mut actions = json::elements(scoped.unwrap_or_default()).peekable();
    actions.peek().is_none()
        || actions.any(|action| !only_warns(json::get(action, "action").unwrap_or(action)))
}

fn by_word(word: &str) -> Option<bool> {
    const YES: [&str; 6] = ["allow", "allowed", "permit", "permitted", "effect_allow", "granted"];
    const NO: [&str; 5] = ["deny", "denied", "forbid", "forbidden", "effect_deny"];
    let word = word.trim();
    if YES.iter().any(|w| w.eq_ignore_ascii_case(word)) {
        Some(true)
    } else if NO.iter().any(|w| w.eq_ignore_ascii_case(word)) {
        Some(false)
    } else {
        None
    }
}

/// Trino's batches: which of the resources in the input are allowed, by their places.
fn batch(event: &Event<'_>, last: &str, result: &str) -> Option<Judged> {
    let is_place = |e: &str| e.bytes().all(|b| b.is_ascii_digit());
    if last != "batch" || !json::elements(result).all(is_place) {
        return None;
    }
    let action = json::get(event.input?, "action")?;
    let resources = json::get(action, "filterResources").filter(|r| r.starts_with('['))?;
    let all = match json::get(action, "operation") {
        // One table, and its columns are asked for.
        Some("\"FilterColumns\"") => {
            let table = json::get(json::elements(resources).next()?, "table")?;
            json::elements(json::get(table, "columns")?).count()
        }
        _ => json::elements(resources).count(),
    };
    let undefined =
        |why: String| Judged { contradiction: Some(why), ..Judged::new(None, Basis::Set) };
    let places: BTreeSet<usize> = json::elements(result).filter_map(|e| e.parse().ok()).collect();
    let allowed = places.iter().filter(|place| **place < all).count();
    Some(match allowed {
        _ if all == 0 => Judged::new(None, Basis::Set),
        n if n < places.len() => {
            undefined(format!("a place of the answer is none of the {all} asked for"))
        }
        0 => Judged::new(Some(Verdict::Deny), Basis::Set),
        n if n == all => Judged::new(Some(Verdict::Allow), Basis::Set),
        n => undefined(format!("{n} of {all} are allowed, {} are not", all - n)),
    })
}

/// Whether a member holds reasons to deny.
pub(super) fn is_objection(name: &str) -> bool {
    matches!(means(name), Some(Means::Objection | Means::Objections))
}
