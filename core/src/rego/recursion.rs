//! Functions that call themselves, directly or by others. OPA refuses them; regorus calls on until the stack ends, and the process with it.

use std::collections::{BTreeMap, BTreeSet};

use regorus::Engine;
use serde_json::Value;

/// Which functions each function calls, by full names.
type Calls = BTreeMap<String, BTreeSet<String>>;

/// Refuses policies with functions that call themselves.
pub fn refuse(engine: &Engine) -> Result<(), String> {
    let tree = engine.get_ast_as_json().map_err(|e| e.to_string())?;
    // One that nests too deep to be read is taken as it is.
    let modules: Vec<Value> = serde_json::from_str(&tree).unwrap_or_default();
    let mut calls = Calls::new();
    modules.iter().for_each(|module| read(module, &mut calls));
    match calls.keys().find(|function| reaches(&calls, function)) {
        Some(function) => {
            let name = function.rsplit('.').next().unwrap_or(function);
            Err(format!("the function {name} calls itself ({function}); OPA refuses that, too"))
        }
        None => Ok(()),
    }
}

fn read(module: &Value, calls: &mut Calls) {
    let text = module["source"]["contents"].as_str().unwrap_or_default();
    let ast = &module["ast"];
    let package = format!("data.{}", name(text, &ast["package"]["refr"]));
    let imports: BTreeMap<&str, &str> = items(&ast["imports"])
        .filter_map(|import| {
            let path = name(text, &import["refr"]);
            let last = path.rsplit('.').next()?;
            let called = import.get("as").map_or(last, |span| cut(text, span));
            Some((called, path))
        })
        .collect();
    for head in items(&ast["rules"]).map(|rule| &rule["Spec"]).filter(|r| !r.is_null()) {
        let function = &head["head"]["Func"]["refr"];
        if function.is_null() {
            continue;
        }
        let of = calls.entry(format!("{package}.{}", name(text, function))).or_default();
        each_call(head, &mut |called| {
            let called = name(text, called);
            let (first, rest) = called.split_once('.').unwrap_or((called, ""));
            of.insert(match (rest, imports.get(first)) {
                ("", Some(path)) => (*path).to_owned(),
                ("", None) => format!("{package}.{called}"),
                (rest, Some(path)) => format!("{path}.{rest}"),
                (_, None) => called.to_owned(),
            });
        });
    }
}

/// Whether it comes to itself.
fn reaches(calls: &Calls, function: &str) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![function]);
    while let Some(one) = next.pop() {
        for called in calls.get(one).into_iter().flatten() {
            if called == function {
                return true;
            }
            if seen.insert(called.as_str()) {
                next.push(called);
            }
        }
    }
    false
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// What is called, wherever it stands.
fn each_call<'v>(node: &'v Value, take: &mut dyn FnMut(&'v Value)) {
    match node {
        Value::Array(nodes) => nodes.iter().for_each(|node| each_call(node, take)),
        Value::Object(members) => members.iter().for_each(|(kind, node)| {
            if kind == "Call" {
                take(&node["fcn"]);
            }
            each_call(node, take);
        }),
        _ => {}
    }
}

/// An expression as it is written.
fn name<'t>(text: &'t str, expression: &Value) -> &'t str {
    let inner = expression.as_object().and_then(|kinds| kinds.values().next());
    inner.map_or("", |inner| cut(text, &inner["span"]))
}

fn cut<'t>(text: &'t str, span: &Value) -> &'t str {
    let at = |place: &str| span[place].as_u64().and_then(|at| usize::try_from(at).ok());
    at("start").zip(at("end")).and_then(|(start, end)| text.get(start..end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::rego::{Policies, SourceFile};

    fn read(texts: &[&str]) -> Result<(), String> {
        let source = |(i, text): (usize, &&str)| SourceFile {
            name: format!("{i}.rego"),
            text: (*text).to_owned(),
        };
        let sources: Vec<SourceFile> = texts.iter().enumerate().map(source).collect();
        Policies::new(&sources, &[]).map(drop)
    }

    #[test]
    fn a_function_that_calls_itself_is_refused() {
        for texts in [
            &["package p\nf(n) := 0 if n == 0\nf(n) := 1 + f(n - 1) if n > 0"][..],
            &["package p\nf(n) := [x | x := g(n)]\ng(n) := n if { some i in n; f(i) }"],
            &["package p\nf(n) := data.p.f(n)"],
            &["package p\nimport data.q\nf(n) := q.g(n)", "package q\ng(n) := data.p.f(n)"],
            &["package p\nimport data.q.g as h\nf(n) := h(n)", "package q\ng(n) := data.p.f(n)"],
        ] {
            let why = read(texts).unwrap_err();
            assert!(why.contains("calls itself"), "{texts:?}: {why}");
        }
    }

    #[test]
    fn functions_of_one_name_and_calls_within_calls_are_not() {
        for texts in [
            &["package p\nf(n) := g(g(n))\ng(n) := count(n)"][..],
            &["package p\nimport data.q\nf(n) := q.f(n)", "package q\nf(n) := n"],
            &["package p\nf(n) := count(n)\nr := f([1])\ng(n) := r + n"],
            &["package p\nf(f1) := f1\nanswer := f(f(1))"],
        ] {
            assert_eq!(read(texts), Ok(()), "{texts:?}");
        }
    }
}
