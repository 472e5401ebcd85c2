//! Functions that could take all memory at once, or all time. regorus stops none in the middle, and an allocation that fails, or a stack
//! that ends, ends the process: the record would be met again after each start. So it is weighed first what each would make of what it is
//! given, and what one question makes altogether; too much is an error of that question.

use std::cell::Cell;

use regorus::{Engine, Value};

use super::own::own_of;
use super::{SourceFile, as_opa, json};

/// So many bytes all functions of one question may make together, and its answer may have.
const BYTES: usize = 128 << 20;
/// What an element of an array takes.
const ELEMENT: usize = 64;
/// More than anything may be.
const NEVER: usize = usize::MAX;
/// Bits that a number may be shifted by.
const BITS: i64 = 1 << 16;
/// Nodes on a way through a graph.
const WAY: usize = 256;
/// Copies in a JSON patch, each of which may double the whole, and members on a path in it.
const COPIES: u32 = 8;
const PATH: usize = 32;

thread_local! {
    /// What the functions of this question have made.
    static MADE: Cell<usize> = const { Cell::new(0) };
}

struct Function {
    name: &'static str,
    arguments: u8,
    /// How much it makes, at most.
    bytes: fn(&[Value]) -> usize,
    /// Where it is not regorus' own that is called.
    here: Option<fn(&[Value]) -> Value>,
}

const fn own(name: &'static str, arguments: u8, bytes: fn(&[Value]) -> usize) -> Function {
    Function { name, arguments, bytes, here: None }
}

const fn here(
    name: &'static str,
    arguments: u8,
    bytes: fn(&[Value]) -> usize,
    make: fn(&[Value]) -> Value,
) -> Function {
    Function { name, arguments, bytes, here: Some(make) }
}

static FUNCTIONS: [Function; 22] = [
    own("numbers.range", 2, |of| elements(&of[0], &of[1], None)),
    own("numbers.range_step", 3, |of| elements(&of[0], &of[1], Some(&of[2]))),
    own("bits.lsh", 2, |of| unless(of[1].as_i64().is_ok_and(|by| by > BITS), BITS as usize / 8)),
    own("units.parse", 1, |of| unless(has_large_exponent(text(&of[0])), ELEMENT)),
    own("units.parse_bytes", 1, |of| unless(has_large_exponent(text(&of[0])), ELEMENT)),
    own("net.cidr_expand", 1, |of| addresses(text(&of[0])).saturating_mul(ELEMENT)),
    own("graph.reachable_paths", 2, ways),
    // regorus takes it for more than a function.
    here(
        "walk",
        1,
        |of| walked(&of[0], 1),
        |of| {
            let mut all = Vec::new();
            walk(&of[0], &mut Vec::new(), &mut all);
            all.into()
        },
    ),
    own("json.patch", 2, patched),
    own("json.filter", 2, |of| unless(names_a_number(&of[1]), ELEMENT)),
    own("json.remove", 2, |of| unless(names_a_number(&of[1]), ELEMENT)),
    own("json.marshal", 1, |of| weight(&of[0])),
    own("json.marshal_with_options", 2, marshalled),
    own("sprintf", 2, |of| widths(text(&of[0])).saturating_add(weight(&of[1]))),
    own("strings.replace_n", 2, replaced_n),
    own("regex.replace", 3, replaced_by_pattern),
    here(
        "json.unmarshal",
        1,
        |of| text(&of[0]).len(),
        |of| {
            let parsed = of[0].as_string().ok().and_then(|text| json(text).ok());
            parsed.unwrap_or(Value::Undefined)
        },
    ),
    here(
        "json.is_valid",
        1,
        |_| ELEMENT,
        |of| of[0].as_string().map_or(Value::Undefined, |text| json(text).is_ok().into()),
    ),
    own("to_number", 1, |_| ELEMENT),
    here("concat", 2, joined, |of| match texts(&of[1]) {
        Some(texts) if of[0].as_string().is_ok() => texts.join(text(&of[0])).into(),
        _ => Value::Undefined,
    }),
    here(
        "replace",
        3,
        |of| replaced(text(&of[0]), text(&of[1]), text(&of[2])),
        |of| {
            if of.iter().any(|one| one.as_string().is_err()) {
                return Value::Undefined;
            }
            text(&of[0]).replace(text(&of[1]), text(&of[2])).into()
        },
    ),
    here(
        "split",
        2,
        |of| pieces(text(&of[0]), text(&of[1])).saturating_mul(ELEMENT),
        |of| {
            let pieces: Vec<Value> = match (of[0].as_string(), of[1].as_string()) {
                // As Go does.
                (Ok(text), Ok(by)) if by.is_empty() => {
                    text.chars().map(|c| c.to_string().into()).collect()
                }
                (Ok(text), Ok(by)) => text.split(&**by).map(Value::from).collect(),
                _ => return Value::Undefined,
            };
            pieces.into()
        },
    ),
];

#[derive(Debug, thiserror::Error)]
#[error("{0} would make too much of what it is given")]
struct TooMuch(&'static str);

/// Puts bounds to the functions that policies name.
pub fn put(engine: &mut Engine, policies: &[SourceFile]) -> Result<(), String> {
    for function in &FUNCTIONS {
        let word = function.name.rsplit('.').next().unwrap_or(function.name);
        if !policies.iter().any(|policy| policy.text.contains(word)) {
            continue;
        }
        let own = own_of(function.name, function.arguments)?;
        let call = move |arguments: Vec<Value>| {
            called(function, &arguments, |input| own.eval_with_input(input))
        };
        engine
            .add_extension(function.name.into(), function.arguments, Box::new(call))
            .map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Whether a function is among them.
pub fn has(name: &str) -> bool {
    FUNCTIONS.iter().any(|function| function.name == name)
}

fn called<E: From<TooMuch>>(
    function: &Function,
    arguments: &[Value],
    own: impl FnOnce(Value) -> Result<Value, E>,
) -> Result<Value, E> {
    let made = MADE.get().saturating_add((function.bytes)(arguments));
    if made > BYTES {
        return Err(TooMuch(function.name).into());
    }
    MADE.set(made);
    let here = function.here.or_else(|| as_opa::answered(function.name));
    here.map_or_else(|| own(arguments.to_vec().into()), |make| Ok(make(arguments)))
}

/// A question begins.
pub fn begin() {
    MADE.set(0);
}

/// Whether an answer is one to read: what stands in it many times is one thing only until it is written.
pub fn is_small(answer: &Value) -> bool {
    weight(answer) <= BYTES
}

fn unless(too_much: bool, bytes: usize) -> usize {
    if too_much { NEVER } else { bytes }
}

fn text(value: &Value) -> &str {
    value.as_string().map_or("", |text| &**text)
}

/// What a value takes once it is written, or more than may be.
fn weight(value: &Value) -> usize {
    fn add(value: &Value, sum: &mut usize) {
        let own = match value {
            Value::String(text) => text.len() + 2,
            // Large ones came of small texts.
            _ => 24,
        };
        *sum = sum.saturating_add(own);
        each(value, &mut |inner| {
            if *sum <= BYTES {
                add(inner, sum);
            }
        });
    }
    let mut sum = 0;
    add(value, &mut sum);
    sum
}

/// What stands in a value, names among it.
fn each<'v>(value: &'v Value, take: &mut dyn FnMut(&'v Value)) {
    match value {
        Value::Array(array) => array.iter().for_each(take),
        Value::Set(set) => set.iter().for_each(take),
        Value::Object(object) => object.iter().for_each(|(name, value)| {
            take(name);
            take(value);
        }),
        _ => {}
    }
}

/// Of a range of numbers.
fn elements(from: &Value, to: &Value, step: Option<&Value>) -> usize {
    // Beyond, neighbours can't be told apart.
    let whole = |value: &Value| value.as_f64().ok().filter(|n| n.abs() < 9e15).map(|n| n as i64);
    let Some(length) = whole(from).zip(whole(to)).map(|(from, to)| from.abs_diff(to)) else {
        // What is no number makes nothing.
        return unless([from, to].iter().all(|v| matches!(v, Value::Number(_))), 0);
    };
    let step = step.map_or(1, |step| whole(step).unwrap_or(1).unsigned_abs().max(1));
    usize::try_from(length / step).map_or(NEVER, |n| (n + 1).saturating_mul(ELEMENT))
}

/// Such as 1e999999999, or more digits than a number has.
fn has_large_exponent(text: &str) -> bool {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let text = text.replace('_', "");
    let exponents = text.split(['e', 'E']).skip(1);
    text.len() > 64 || exponents.into_iter().any(|e| digits(e.trim_start_matches(['+', '-'])) > 3)
}

fn addresses(network: &str) -> usize {
    let Some((address, prefix)) = network.split_once('/') else { return 1 };
    let bits = if address.contains(':') { 128 } else { 32u32 };
    let host = bits.saturating_sub(prefix.parse().unwrap_or(bits));
    1usize.checked_shl(host).unwrap_or(NEVER)
}

/// All ways through a graph.
fn ways(of: &[Value]) -> usize {
    fn go<'v>(graph: &'v Value, node: &'v Value, way: &mut Vec<&'v Value>, sum: &mut usize) {
        *sum = sum.saturating_add(ELEMENT * (way.len() + 1));
        let next = graph.as_object().ok().and_then(|graph| graph.get(node));
        let Some(next) = next.filter(|_| !way.contains(&node)) else { return };
        if way.len() == WAY {
            *sum = NEVER;
        }
        way.push(node);
        each(next, &mut |node| {
            if *sum <= BYTES {
                go(graph, node, way, sum);
            }
        });
        way.pop();
    }
    let mut sum = 0;
    each(&of[1], &mut |node| {
        if sum <= BYTES {
            go(&of[0], node, &mut Vec::new(), &mut sum);
        }
    });
    sum
}

/// Each value with its path.
fn walked(value: &Value, depth: usize) -> usize {
    let mut sum = 2 * ELEMENT + 24 * depth;
    each(value, &mut |inner| {
        if sum <= BYTES {
            sum = sum.saturating_add(walked(inner, depth + 1));
        }
    });
    sum
}

fn walk(value: &Value, path: &mut Vec<Value>, all: &mut Vec<Value>) {
    all.push(vec![path.clone().into(), value.clone()].into());
    let mut inside = |step: Value, value: &Value| {
        path.push(step);
        walk(value, path, all);
        path.pop();
    };
    match value {
        Value::Array(array) => {
            array.iter().enumerate().for_each(|(at, value)| inside(at.into(), value));
        }
        Value::Set(set) => set.iter().for_each(|value| inside(value.clone(), value)),
        Value::Object(object) => {
            object.iter_sorted().for_each(|(name, value)| inside(name.clone(), value));
        }
        _ => {}
    }
}

fn patched(of: &[Value]) -> usize {
    let mut copies = 0;
    let mut deep = false;
    each(&of[1], &mut |operation| {
        let Ok(operation) = operation.as_object() else { return };
        let member = |name: &str| operation.get(&name.into());
        copies += u32::from(member("op").is_some_and(|op| text(op) == "copy"));
        for path in ["path", "from"].into_iter().filter_map(member) {
            let members =
                path.as_array().map_or(text(path).matches('/').count(), regorus::value::Array::len);
            deep |= members > PATH;
        }
    });
    let all = weight(&of[0]).saturating_add(weight(&of[1]));
    unless(deep || copies > COPIES, all.saturating_mul(1 << copies.min(COPIES)))
}

/// Steps of paths are read as JSON, in which an object may call itself a number of any size.
fn names_a_number(paths: &Value) -> bool {
    let mut found = text(paths).contains('{') && text(paths).contains('"');
    each(paths, &mut |path| found |= names_a_number(path));
    found
}

fn marshalled(of: &[Value]) -> usize {
    fn lines(value: &Value) -> usize {
        let mut sum = 2usize;
        each(value, &mut |inner| sum = sum.saturating_add(lines(inner)));
        sum
    }
    let plain = weight(&of[0]);
    if plain > BYTES {
        return NEVER;
    }
    let option = |name: &str| of[1].as_object().ok().and_then(|o| o.get(&name.into()));
    let prefix = option("prefix").map_or(0, |prefix| text(prefix).len());
    let indent = option("indent").map_or(1, |indent| text(indent).len());
    // No value nests deeper than what is read.
    let line = prefix.saturating_add(indent.saturating_mul(128));
    plain.saturating_add(lines(&of[0]).saturating_mul(line))
}

/// Of a format, with what its verbs are filled up to.
fn widths(format: &str) -> usize {
    let verbs = format.split('%').skip(1).map(|verb| {
        let verb = verb.strip_prefix('.').unwrap_or(verb);
        let end = verb.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(verb.len());
        // Too many digits for a number are too much.
        if end == 0 { 0 } else { verb[..end].parse().unwrap_or(NEVER) }
    });
    verbs.fold(format.len(), usize::saturating_add)
}

fn texts(value: &Value) -> Option<Vec<&str>> {
    if !matches!(value, Value::Array(_) | Value::Set(_)) {
        return None;
    }
    let mut all = Some(Vec::new());
    each(value, &mut |one| match one.as_string() {
        Ok(text) => all.iter_mut().for_each(|texts: &mut Vec<&str>| texts.push(text)),
        Err(_) => all = None,
    });
    all
}

fn joined(of: &[Value]) -> usize {
    let texts = texts(&of[1]).unwrap_or_default();
    let between = text(&of[0]).len().saturating_mul(texts.len());
    texts.iter().fold(between, |sum, text| sum.saturating_add(text.len()))
}

fn replaced(text: &str, old: &str, new: &str) -> usize {
    text.matches(old).count().saturating_mul(new.len()).saturating_add(text.len())
}

/// One after the other, each in what the one before made.
fn replaced_n(of: &[Value]) -> usize {
    let Ok(pairs) = of[0].as_object() else { return 0 };
    let mut now = text(&of[1]).to_owned();
    let mut sum = now.len();
    for (old, new) in pairs.iter_sorted() {
        sum = sum.saturating_add(replaced(&now, text(old), text(new)));
        if sum > BYTES {
            return NEVER;
        }
        now = now.replace(text(old), text(new));
    }
    sum
}

fn replaced_by_pattern(of: &[Value]) -> usize {
    let (text, by) = (text(&of[0]), text(&of[2]));
    // Of each group at most what was found.
    let groups = text.len().saturating_mul(1 + by.matches('$').count());
    let most = (text.len() + 1).saturating_mul(by.len()).saturating_add(groups);
    if most <= BYTES / 16 {
        return most;
    }
    let found = super::re2::read(self::text(&of[1])).map_or(0, |re| re.find_iter(text).count());
    found.saturating_mul(by.len()).saturating_add(groups)
}

fn pieces(text: &str, by: &str) -> usize {
    if by.is_empty() { text.len() } else { text.matches(by).count() + 1 }
}

#[cfg(test)]
mod tests;
