//! Functions that regorus answers otherwise than OPA 1.22: what is a few lines is answered here as OPA does; of the others it is
//! known for which arguments the two may differ.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write;

use regorus::{Engine, Value};

use super::own::{own_of, text};
use super::{SourceFile, re2};

/// A function, with how many arguments, and what it answers.
pub type Answered = (&'static str, u8, fn(&[Value]) -> Value);

pub const ANSWERED: [Answered; 14] = [
    ("count", 1, count),
    ("indexof", 2, |of| match (text(of, 0), text(of, 1)) {
        (Some(within), Some(part)) if !part.is_empty() => match within.find(part) {
            Some(at) => within[..at].chars().count().into(),
            None => Value::from(-1i64),
        },
        _ => Value::Undefined,
    }),
    ("json.marshal", 1, |of| marshalled(&of[0])),
    ("lower", 1, |of| each_char(of, |c| simple(c, c.to_lowercase()))),
    ("regex.find_all_string_submatch_n", 3, re2::find_all),
    ("regex.find_n", 3, re2::find),
    ("regex.is_valid", 1, |of| text(of, 0).map_or(false.into(), |p| re2::read(p).is_some().into())),
    ("regex.match", 2, re2::matches),
    ("regex.replace", 3, re2::replace),
    ("regex.split", 2, re2::split),
    ("semver.is_valid", 1, |of| text(of, 0).is_some_and(is_version).into()),
    ("strings.count", 2, |of| match (text(of, 0), text(of, 1)) {
        (Some(within), Some("")) => (within.chars().count() + 1).into(),
        (Some(within), Some(part)) => within.matches(part).count().into(),
        _ => Value::Undefined,
    }),
    ("to_number", 1, number),
    ("upper", 1, |of| each_char(of, upper)),
];

/// Functions, and whether OPA may answer otherwise to what they are given.
type Differs = (&'static str, u8, fn(&[Value]) -> bool);

const DIFFERING: [Differs; 12] = [
    ("json.marshal_with_options", 2, |_| true),
    ("product", 1, |of| !is_whole(&of[0])),
    ("regex.globs_match", 2, |_| true),
    ("regex.template_match", 4, |_| true),
    ("semver.compare", 2, |of| !(0..2).all(|at| text(of, at).is_some_and(is_plain_version))),
    ("sprintf", 2, |of| !is_plainly_formatted(of)),
    ("sum", 1, |of| !is_whole(&of[0])),
    ("time.add_date", 4, |of| !(1..3).all(|at| of[at] == Value::from(0u64))),
    ("time.format", 1, |of| !is_dated(of[0].as_array().ok().and_then(|of| of.get(2)))),
    ("time.parse_duration_ns", 1, |of| !is(r"^(\d{1,6}(h|ms|m|s))+$", text(of, 0))),
    ("time.parse_ns", 2, |of| {
        !is_dated(of.first()) || !is(r"^(19|20)\d\d-\d\d-\d\d$", text(of, 1))
    }),
    ("time.parse_rfc3339_ns", 1, |of| {
        const PLAIN: &str =
            r"^(19|20)\d\d-\d\d-\d\dT\d\d:\d\d:[0-5]\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$";
        !is(PLAIN, text(of, 0))
    }),
];

thread_local! {
    /// Functions that OPA may have answered otherwise.
    static DIFFERED: RefCell<BTreeSet<&'static str>> = const { RefCell::new(BTreeSet::new()) };
}

/// Puts those in the place of regorus' own that policies name; `not` says which are there already.
pub fn put(
    engine: &mut Engine,
    policies: &[SourceFile],
    not: impl Fn(&str) -> bool,
) -> Result<(), String> {
    let named = |name: &str| policies.iter().any(|policy| names(&policy.text, name)) && !not(name);
    for (name, arguments, answer) in ANSWERED.into_iter().filter(|(name, ..)| named(name)) {
        let call = move |given: Vec<Value>| Ok(answer(&given));
        engine.add_extension(name.into(), arguments, Box::new(call)).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// The same, and notes which functions were given what OPA may answer otherwise.
pub fn put_noting(
    engine: &mut Engine,
    policies: &[SourceFile],
    not: impl Fn(&str) -> bool,
) -> Result<(), String> {
    put(engine, policies, &not)?;
    for (name, arguments, differs) in DIFFERING {
        if not(name) || !policies.iter().any(|policy| names(&policy.text, name)) {
            continue;
        }
        let Ok(own) = own_of(name, arguments) else { continue };
        let call = move |given: Vec<Value>| {
            if differs(&given) {
                DIFFERED.with_borrow_mut(|all| all.insert(name));
            }
            own.eval_with_input(given.into())
        };
        engine.add_extension(name.into(), arguments, Box::new(call)).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// What was noted since it was asked last.
pub fn differed() -> BTreeSet<&'static str> {
    DIFFERED.take()
}

/// Names of functions that OPA may answer otherwise.
pub fn may_differ(name: &str) -> bool {
    DIFFERING.iter().any(|(differing, ..)| *differing == name)
}

/// The same of what a function is given, with nothing in the place of what is not known.
pub fn may_differ_for(name: &str, mut given: Vec<Value>) -> bool {
    let known = DIFFERING.iter().find(|(differing, ..)| *differing == name);
    known.is_some_and(|(_, arguments, differs)| {
        given.resize(usize::from(*arguments), Value::Undefined);
        differs(&given)
    })
}

/// Written with or without blanks around its dots, or in brackets, so its last part is looked for.
fn names(policy: &str, name: &str) -> bool {
    policy.contains(name.rsplit('.').next().unwrap_or(name))
}

/// What stands here for regorus' own.
pub fn answered(name: &str) -> Option<fn(&[Value]) -> Value> {
    ANSWERED.iter().find(|(answered, ..)| *answered == name).map(|(_, _, answer)| *answer)
}

fn is(pattern: &str, text: Option<&str>) -> bool {
    text.is_some_and(|text| re2::read(pattern).is_some_and(|re| re.is_match(text)))
}

fn is_dated(layout: Option<&Value>) -> bool {
    layout.is_some_and(|layout| *layout == Value::from("2006-01-02"))
}

fn count(of: &[Value]) -> Value {
    match &of[0] {
        Value::String(text) => text.chars().count().into(),
        Value::Array(all) => all.len().into(),
        Value::Set(all) => all.len().into(),
        Value::Object(all) => all.len().into(),
        _ => Value::Undefined,
    }
}

/// As Go writes JSON.
fn marshalled(value: &Value) -> Value {
    let Ok(plain) = serde_json::to_string(value) else { return Value::Undefined };
    let mut out = String::with_capacity(plain.len());
    for c in plain.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.into()
}

fn each_char(of: &[Value], map: impl Fn(char) -> char) -> Value {
    text(of, 0).map_or(Value::Undefined, |text| text.chars().map(map).collect::<String>().into())
}

/// Go maps each character to one, by Unicode's simple mappings.
fn simple(c: char, mut mapped: impl Iterator<Item = char>) -> char {
    match (mapped.next(), mapped.next()) {
        (Some(one), None) => one,
        (Some(first), Some(_)) if c == '\u{130}' => first,
        _ => c,
    }
}

fn upper(c: char) -> char {
    let after = |by: u32| char::from_u32(u32::from(c) + by).unwrap_or(c);
    match c {
        '\u{1f80}'..='\u{1f87}' | '\u{1f90}'..='\u{1f97}' | '\u{1fa0}'..='\u{1fa7}' => after(8),
        '\u{1fb3}' | '\u{1fc3}' | '\u{1ff3}' => after(9),
        c => simple(c, c.to_uppercase()),
    }
}

fn is_version(text: &str) -> bool {
    is_plain_version(text.strip_prefix('v').unwrap_or(text))
}

/// As semver.org has it.
fn is_plain_version(text: &str) -> bool {
    const VERSION: &str = r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$";
    is(VERSION, Some(text))
}

/// As Go's `ParseFloat` reads one, in decimal.
fn number(of: &[Value]) -> Value {
    const DECIMAL: &str = r"^[+-]?(\d+(_\d+)*(\.(\d+(_\d+)*)?)?|\.\d+(_\d+)*)([eE][+-]?\d+)?$";
    match &of[0] {
        Value::Null | Value::Bool(false) => 0u64.into(),
        Value::Bool(true) => 1u64.into(),
        Value::Number(_) => of[0].clone(),
        Value::String(text) if is(DECIMAL, Some(text)) => {
            let plain = text.replace('_', "");
            let plain = plain.trim_start_matches('+');
            match plain.parse::<i64>() {
                Ok(whole) => whole.into(),
                Err(_) => match plain.parse::<f64>() {
                    Ok(number) if number.is_finite() => number.into(),
                    _ => Value::Undefined,
                },
            }
        }
        _ => Value::Undefined,
    }
}

/// Whether the numbers in a list are whole.
fn is_whole(list: &Value) -> bool {
    let whole = |value: &Value| value.as_i64().is_ok();
    match list {
        Value::Array(all) => all.iter().all(whole),
        Value::Set(all) => all.iter().all(whole),
        _ => true,
    }
}

/// Whether a format has only verbs that the two fill alike: `%s` with text, `%d` with whole numbers, `%v`.
fn is_plainly_formatted(of: &[Value]) -> bool {
    let (Some(format), Ok(given)) = (text(of, 0), of[1].as_array()) else { return false };
    let mut left = given.iter();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            continue;
        }
        let written = |value: &Value| value.to_json_str().unwrap_or_default();
        let plain = match chars.next() {
            Some('%') => continue,
            Some('s') => left.next().is_some_and(|v| !matches!(v, Value::Number(_))),
            Some('d') => left.next().is_some_and(|value| {
                value.as_i64().is_ok() && !written(value).contains(['.', 'e', 'E'])
            }),
            Some('v') => left.next().is_some_and(|value| match value {
                // Others get an exponent.
                Value::Number(_) if value.as_i64().is_err() => value
                    .as_f64()
                    .is_ok_and(|number| number == 0.0 || (1e-4..1e6).contains(&number.abs())),
                Value::Number(_) => !written(value).contains(['e', 'E']),
                _ => true,
            }),
            _ => false,
        };
        if !plain {
            return false;
        }
    }
    left.next().is_none()
}
