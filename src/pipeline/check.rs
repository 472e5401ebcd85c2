//! Holds a YAML tree to the JSON Schema of the pipeline file and turns it into JSON. Every problem is
//! collected, with its place, the offending text, and the nearest name that would be right.

use regex_lite::Regex;
use serde_json::{Map, Number, Value};
use zeroize::Zeroize;

use super::addresses;
use super::yaml::{Node, Place, Problem, Scalar, Tree};
use crate::config::forms;

/// The JSON Schema of the pipeline file.
pub fn schema() -> Value {
    let settings = schemars::generate::SchemaSettings::draft2020_12();
    settings.into_generator().into_root_schema_for::<super::File>().to_value()
}

/// The tree as JSON, as far as it fits the schema.
pub fn check(node: &Node, root: &Value, problems: &mut Vec<Problem>) -> Value {
    Checker { root, problems }.value(node, root)
}

struct Checker<'s, 'p> {
    root: &'s Value,
    problems: &'p mut Vec<Problem>,
}

impl<'s> Checker<'s, '_> {
    fn problem(&mut self, at: Place, message: String) {
        self.problems.push(Problem::new(at, message));
    }

    /// Follows `$ref`.
    fn resolve(&self, mut schema: &'s Value) -> &'s Value {
        while let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            match reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)) {
                Some(target) => schema = target,
                None => break,
            }
        }
        schema
    }

    fn value(&mut self, node: &Node, schema: &'s Value) -> Value {
        let schema = self.resolve(schema);
        if let Some(options) =
            schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array)
        {
            return self.one_of(node, options);
        }
        match &node.tree {
            Tree::Scalar(scalar) => self.scalar(node.at, scalar, schema),
            Tree::Sequence(nodes) => {
                if !accepts(schema, "array") {
                    self.problem(
                        node.at,
                        format!("a list, where {} is expected", expected(schema)),
                    );
                    return Value::Null;
                }
                if schema
                    .get("minItems")
                    .and_then(Value::as_u64)
                    .is_some_and(|least| (nodes.len() as u64) < least)
                {
                    self.problem(
                        node.at,
                        "an empty list, where at least one entry is needed".into(),
                    );
                }
                let items = schema.get("items").unwrap_or(&Value::Bool(true));
                nodes.iter().map(|n| self.value(n, items)).collect()
            }
            Tree::Mapping(pairs) => {
                if !accepts(schema, "object") {
                    self.problem(
                        node.at,
                        format!("a mapping, where {} is expected", expected(schema)),
                    );
                    return Value::Null;
                }
                self.mapping(node, pairs, schema)
            }
        }
    }

    fn mapping(
        &mut self,
        node: &Node,
        pairs: &[(super::yaml::Key, Node)],
        schema: &'s Value,
    ) -> Value {
        let properties = schema.get("properties").and_then(Value::as_object);
        let rest = schema.get("additionalProperties");
        let names = schema.pointer("/propertyNames/pattern").and_then(Value::as_str);
        let names = names.and_then(|pattern| Regex::new(pattern).ok());
        let mut out = Map::new();
        for (key, child) in pairs {
            if let Some(pattern) = names.as_ref().filter(|pattern| !pattern.is_match(&key.name)) {
                self.problem(key.at, format!("{:?} does not match {pattern}", key.name));
                continue;
            }
            let known = properties.and_then(|p| p.get(&key.name));
            match (known, rest) {
                (Some(schema), _) => self.member(key, child, schema, &mut out),
                (None, Some(Value::Bool(false))) => {
                    let names = properties.into_iter().flat_map(|p| p.keys().map(String::as_str));
                    // Its value may be a secret under a name that is misspelt.
                    self.problems.push(Problem::hidden(
                        key.at,
                        format!("unknown key {:?}{}", key.name, did_you_mean(&key.name, names)),
                    ));
                }
                (None, rest) => {
                    self.member(key, child, rest.unwrap_or(&Value::Bool(true)), &mut out);
                }
            }
        }
        let required = schema.get("required").and_then(Value::as_array);
        let mut whole = true;
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            if !pairs.iter().any(|(key, _)| key.name == name) {
                self.problem(node.at, format!("{name:?} is missing here"));
            }
            whole &= out.contains_key(name);
        }
        if schema
            .get("minProperties")
            .and_then(Value::as_u64)
            .is_some_and(|least| (pairs.len() as u64) < least)
        {
            self.problem(node.at, "an empty mapping, where at least one entry is needed".into());
        }
        // Without a member that it needs there is nothing more to say of it.
        if whole { Value::Object(out) } else { Value::Null }
    }

    /// A member that can't be used is left out, so that the rest can still be looked at.
    fn member(
        &mut self,
        key: &super::yaml::Key,
        child: &Node,
        schema: &'s Value,
        out: &mut Map<String, Value>,
    ) {
        if let Tree::Scalar(scalar) = &child.tree
            && !scalar.resolved
            && !is_null(child)
            && self.is_secret(&key.name, schema)
        {
            let message = format!(
                "{:?} is a secret and must not be in the file; write ${{env:NAME}} or ${{file:PATH}}",
                key.name
            );
            return self.problems.push(Problem::hidden(child.at, message));
        }
        if is_empty(child) && is_typed(self.resolve(schema)) {
            // A section whose lines are commented out is off, and nobody meant that.
            let message = format!(
                "{:?} has no value; give it one ({{}} for the defaults of a section), or remove it",
                key.name
            );
            return self.problem(child.at, message);
        }
        let before = self.problems.len();
        let value = self.value(child, schema);
        if !(value.is_null() && self.problems.len() > before) {
            out.insert(key.name.clone(), value);
        }
    }

    fn is_secret(&self, name: &str, schema: &'s Value) -> bool {
        let schema = self.resolve(schema);
        let alternatives = schema.get("anyOf").and_then(Value::as_array);
        match schema.get("x-secret").and_then(Value::as_str) {
            Some("always") => true,
            Some(_) => tells(name),
            None => alternatives.is_some_and(|all| all.iter().any(|one| self.is_secret(name, one))),
        }
    }

    /// Alternatives: by their tag, by the words they allow, or by the type of what is there.
    fn one_of(&mut self, node: &Node, options: &'s [Value]) -> Value {
        let options: Vec<&'s Value> = options.iter().map(|o| self.resolve(o)).collect();
        let tag =
            |option: &'s Value| option.pointer("/properties/type/const").and_then(Value::as_str);
        if options.iter().any(|o| tag(o).is_some()) {
            let names: Vec<&str> = options.iter().filter_map(|o| tag(o)).collect();
            let Tree::Mapping(pairs) = &node.tree else {
                self.problem(
                    node.at,
                    format!("expected a mapping with a type: {}", names.join(", ")),
                );
                return Value::Null;
            };
            let Some((_, kind)) = pairs.iter().find(|(key, _)| key.name == "type") else {
                self.problem(
                    node.at,
                    format!("\"type\" is missing here; it is one of {}", names.join(", ")),
                );
                return Value::Null;
            };
            let Tree::Scalar(scalar) = &kind.tree else {
                self.problem(kind.at, format!("the type is one of {}", names.join(", ")));
                return Value::Null;
            };
            return match options.iter().find(|o| tag(o) == Some(scalar.value.as_str())) {
                Some(option) => self.mapping(node, pairs, option),
                None => {
                    let nearest = did_you_mean(&scalar.text, names.iter().copied());
                    self.problem(
                        kind.at,
                        format!(
                            "unknown type {:?}{nearest}; there are {}",
                            scalar.text,
                            names.join(", ")
                        ),
                    );
                    Value::Null
                }
            };
        }
        let words: Vec<&str> =
            options.iter().filter_map(|o| o.get("const").and_then(Value::as_str)).collect();
        if !words.is_empty() {
            return self.word(node, &words);
        }
        if is_null(node) && options.iter().any(|o| accepts(o, "null")) {
            return Value::Null;
        }
        // The first alternative of the right type; where there is only one besides null, its problems are the ones to report.
        let real: Vec<&'s Value> = options
            .into_iter()
            .filter(|o| o.get("type").and_then(Value::as_str) != Some("null"))
            .collect();
        let fitting = real.iter().find_map(|option| {
            let mut problems = Vec::new();
            let value = Checker { root: self.root, problems: &mut problems }.value(node, option);
            problems.is_empty().then_some(value)
        });
        match (fitting, real.first()) {
            (Some(value), _) => value,
            (None, Some(option)) => self.value(node, option),
            (None, None) => Value::Null,
        }
    }

    fn word(&mut self, node: &Node, words: &[&str]) -> Value {
        match &node.tree {
            Tree::Scalar(scalar) if words.contains(&scalar.value.as_str()) => {
                Value::String(scalar.value.to_string())
            }
            Tree::Scalar(scalar) => {
                let nearest = did_you_mean(&scalar.text, words.iter().copied());
                self.problem(
                    node.at,
                    format!("{:?} is not one of {}{nearest}", scalar.text, words.join(", ")),
                );
                Value::Null
            }
            _ => {
                self.problem(node.at, format!("expected one of {}", words.join(", ")));
                Value::Null
            }
        }
    }

    fn scalar(&mut self, at: Place, scalar: &Scalar, schema: &'s Value) -> Value {
        if let Some(words) = schema.get("enum").and_then(Value::as_array) {
            let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
            let allows_null =
                accepts(schema, "null") && scalar.plain && is_null_word(&scalar.value);
            let node = Node { at, tree: Tree::Scalar(scalar.clone()) };
            return if allows_null { Value::Null } else { self.word(&node, &words) };
        }
        let value = typed(scalar, schema);
        let kind = kind(&value);
        let fits = accepts(schema, kind) || (kind == "integer" && accepts(schema, "number"));
        if !fits {
            let hint = if kind != "string" && accepts(schema, "string") {
                "; put it in quotes"
            } else {
                ""
            };
            self.problem(
                at,
                format!(
                    "{:?} is {}, where {} is expected{hint}",
                    scalar.text,
                    article(kind),
                    expected(schema)
                ),
            );
            // It may be a secret that another alternative takes.
            if let Value::String(mut text) = value {
                text.zeroize();
            }
            return Value::Null;
        }
        if let Some(number) = value.as_f64() {
            let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
            let (least, most) = (bound("minimum"), bound("maximum"));
            if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
                let range = match (least, most) {
                    (Some(least), Some(most)) => format!("{least} to {most}"),
                    (Some(least), None) => format!("at least {least}"),
                    (None, most) => format!("at most {}", most.unwrap_or_default()),
                };
                self.problem(at, format!("{:?} is out of range: {range}", scalar.text));
            }
        }
        match value.as_str() {
            Some(text) => self.text(at, scalar, text, schema).unwrap_or(value),
            None => value,
        }
    }

    /// What is wrong with text; what stands in for it, if it can't be used.
    fn text(&mut self, at: Place, scalar: &Scalar, text: &str, schema: &Value) -> Option<Value> {
        let form = schema.get("format").and_then(Value::as_str).unwrap_or_default();
        if let Err(wrong) = forms::check(form, text) {
            // The message quotes the value, which may be a secret where it comes from outside.
            let message = if scalar.resolved {
                format!("{:?} does not resolve to a {form}", scalar.text)
            } else {
                wrong.message
            };
            self.problem(at, message);
            return Some(wrong.example.into());
        }
        if schema
            .get("minLength")
            .and_then(Value::as_u64)
            .is_some_and(|least| (text.chars().count() as u64) < least)
        {
            // An unresolved reference has been reported already.
            if !self.problems.iter().any(|problem| problem.at == at) {
                self.problem(at, "empty text, where some is needed".into());
            }
        }
        let pattern = schema.get("pattern").and_then(Value::as_str);
        if pattern.is_some_and(|p| p.starts_with("^https?"))
            && !scalar.resolved
            && reqwest::Url::parse(text).is_ok_and(|url| url.password().is_some())
        {
            let message = "a password must not be in the file; use auth, or write ${env:NAME} or ${file:PATH} in its place";
            self.problems.push(Problem::hidden(at, message.into()));
            return Some(Value::Null);
        }
        // An unresolved reference has been reported already.
        let reported = text.is_empty() && self.problems.iter().any(|problem| problem.at == at);
        let form = pattern;
        let pattern = pattern.and_then(|p| Regex::new(p).ok());
        if let Some(pattern) = pattern.filter(|p| !(p.is_match(text) || reported)) {
            let wanted = schema
                .get("x-expected")
                .and_then(Value::as_str)
                .or_else(|| form.and_then(in_words))
                .map_or_else(|| format!("it must match {pattern}"), |e| format!("it must be {e}"));
            self.problem(at, format!("{:?} can't be used here; {wanted}", scalar.text));
            // What has a form of its own would not be read; other text would.
            if schema.get("x-expected").is_some() {
                return Some(Value::Null);
            }
        } else if let Some(why) = form.filter(|_| !reported).and_then(|f| impossible(f, text)) {
            self.problem(at, format!("{:?} can't be used here: {why}", scalar.text));
        }
        None
    }
}

/// Patterns of the schema, for people.
fn in_words(pattern: &str) -> Option<&'static str> {
    Some(match pattern {
        r"^https?://.+" => "a URL such as http://localhost:3100",
        r"^\S+:\d{1,5}$" => "host:port, such as 127.0.0.1:9464",
        r"^[A-Za-z0-9._-]{1,249}$" => {
            "the name of a topic: 1 to 249 letters, digits, dots, hyphens and underscores"
        }
        r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$" => {
            "a name: up to 63 letters, digits, hyphens and underscores"
        }
        _ => return None,
    })
}

/// Why nobody can be at an address, or listen there, though it has the form of one.
fn impossible(pattern: &str, text: &str) -> Option<String> {
    if pattern.starts_with("^https?") {
        return match reqwest::Url::parse(text) {
            Ok(url) => addresses::port(url.port()?).err(),
            Err(error) => Some(error.to_string()),
        };
    }
    // Where docket listens; the system chooses instead of port 0.
    let port = text.rsplit_once(':').filter(|_| pattern.ends_with(r":\d{1,5}$"))?.1;
    port.parse::<u16>().err().map(|_| addresses::beyond(port))
}

/// Whether a header or a property is called so that its value is a secret.
fn tells(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "secret", "token", "key", "authorization", "cookie", "ssl.key.pem"]
        .into_iter()
        .any(|end| name.ends_with(end))
}

/// A scalar's value: by YAML's core schema when it is plain, by what is wanted when it came from outside.
fn typed(scalar: &Scalar, schema: &Value) -> Value {
    let text = scalar.value.as_str();
    if !scalar.plain || (scalar.resolved && accepts(schema, "string")) {
        return Value::String(text.to_owned());
    }
    // A size or duration without a unit looks like a number.
    if schema.get("x-expected").is_some() {
        return Value::String(text.to_owned());
    }
    match text {
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if is_null_word(text) => Value::Null,
        _ => {
            let digits =
                text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
            let number = digits
                .then(|| {
                    text.parse::<i64>()
                        .ok()
                        .map(Number::from)
                        .or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64))
                })
                .flatten();
            number.map_or_else(|| Value::String(text.to_owned()), Value::Number)
        }
    }
}

fn is_null_word(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// Nothing stands there at all.
fn is_empty(node: &Node) -> bool {
    matches!(&node.tree, Tree::Scalar(scalar) if scalar.plain && scalar.text.is_empty())
}

/// Whether it says what is to stand there.
fn is_typed(schema: &Value) -> bool {
    ["type", "anyOf", "oneOf", "enum"].iter().any(|key| schema.get(key).is_some())
}

fn is_null(node: &Node) -> bool {
    matches!(&node.tree, Tree::Scalar(s) if s.plain && !s.resolved && is_null_word(&s.value))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_i64() || n.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn article(kind: &str) -> &'static str {
    match kind {
        "null" => "nothing",
        "boolean" => "a boolean",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "text",
        "array" => "a list",
        "object" => "a mapping",
        _ => "a value",
    }
}

fn accepts(schema: &Value, kind: &str) -> bool {
    match schema.get("type") {
        None => true,
        Some(Value::String(only)) => only == kind,
        Some(Value::Array(several)) => several.iter().any(|t| t == kind),
        Some(_) => false,
    }
}

fn expected(schema: &Value) -> String {
    if let Some(text) = schema.get("x-expected").and_then(Value::as_str) {
        return text.to_owned();
    }
    let kinds: Vec<&str> = match schema.get("type") {
        Some(Value::String(only)) => vec![article(only)],
        Some(Value::Array(several)) => {
            several.iter().filter_map(Value::as_str).filter(|k| *k != "null").map(article).collect()
        }
        _ => vec!["something else"],
    };
    kinds.join(" or ")
}

fn did_you_mean<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> String {
    let nearest = names.map(|n| (strsim::damerau_levenshtein(name, n), n)).min();
    match nearest {
        Some((distance, nearest)) if distance <= 1 + name.len() / 3 => {
            format!("; did you mean {nearest:?}?")
        }
        _ => String::new(),
    }
}
