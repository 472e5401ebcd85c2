//! Which rules stand where in a bundle: the syntax tree as the texts and lines that an explanation needs.

use regorus::Engine;
use regorus::unstable::{Literal, Module, Rule, RuleAssign, RuleBody, RuleHead, Span};

use super::texts::words;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Complete,
    Set,
    Function,
    Default,
}

/// One definition of a rule.
#[derive(Debug, Clone)]
pub struct Definition {
    pub file: String,
    /// `http.authz`
    pub package: String,
    /// The file's imports, as written.
    pub imports: String,
    /// What stands for what by them: `h` for `data.lib.helpers`, `u` for `input.user`.
    pub aliases: Vec<(String, String)>,
    pub v1: bool,
    pub name: String,
    /// The name with what is in its brackets, as written.
    pub head: String,
    /// The names in a function's arguments.
    pub arguments: Vec<String>,
    pub shape: Shape,
    pub line: u32,
    /// The line.
    pub text: String,
    /// The value, or a set's element, as written.
    pub value: String,
    pub bodies: Vec<Body>,
}

impl Definition {
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.package, self.name)
    }

    /// What names the members of an object of which this gives some, as written: `msg` of `violation[msg] := ..`.
    pub fn keys(&self) -> Vec<&str> {
        if self.shape != Shape::Complete {
            return Vec::new();
        }
        let (mut keys, mut depth, mut from) = (Vec::new(), 0_usize, 0);
        for (at, c) in self.head.char_indices() {
            match c {
                '[' if depth == 0 => (depth, from) = (1, at + 1),
                '[' => depth += 1,
                ']' if depth == 1 => {
                    depth = 0;
                    keys.extend(self.head.get(from..at));
                }
                ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        // `a[x].b` is no plain object.
        if self.head.ends_with(']') { keys } else { Vec::new() }
    }

    /// All that it says, without its name.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let bodies = self.bodies.iter().flat_map(|body| {
            let conditions = body.conditions.last().map(|last| last.until_here.as_str());
            [conditions, body.value.as_deref()]
        });
        bodies.flatten().chain([self.value.as_str()])
    }
}

#[derive(Debug, Clone)]
pub struct Body {
    pub line: u32,
    pub text: String,
    pub is_else: bool,
    /// Of a branch that has its own.
    pub value: Option<String>,
    pub conditions: Vec<Condition>,
}

/// A statement of a body.
#[derive(Debug, Clone)]
pub struct Condition {
    pub line: u32,
    pub text: String,
    /// As written.
    pub raw: String,
    /// The body as written, up to its end.
    pub until_here: String,
    /// It is asked of each of several.
    pub every: Option<Every>,
    /// It is asked of another input or other data (`with`), so what these hold says nothing of it.
    pub elsewhere: bool,
}

/// `every key, value in domain { body }`
#[derive(Debug, Clone)]
pub struct Every {
    pub variables: Vec<String>,
    pub domain: String,
    pub body: String,
}

pub fn definitions(engine: &mut Engine) -> Vec<Definition> {
    engine.get_modules().iter().flat_map(|module| of_module(module)).collect()
}

fn of_module(module: &Module) -> Vec<Definition> {
    let imports: Vec<String> = module
        .imports
        .iter()
        .map(|import| {
            let alias = import.r#as.as_ref().map(|name| format!(" as {}", name.text()));
            format!("import {}{}\n", import.refr.span().text(), alias.unwrap_or_default())
        })
        .collect();
    let aliases: Vec<(String, String)> = module
        .imports
        .iter()
        .filter_map(|import| {
            let path = import.refr.span().text();
            let name = import.r#as.as_ref().map(regorus::unstable::Span::text);
            let name = name.or_else(|| path.rsplit('.').next())?;
            let within = path.starts_with("data.") || path.starts_with("input.");
            (within || path == "input" && name != "input")
                .then(|| (name.to_owned(), path.to_owned()))
        })
        .collect();
    let source = &module.package.span.source;
    let base = |name: &Span, shape, span: &Span| Definition {
        file: source.file().clone(),
        package: module.package.refr.span().text().to_owned(),
        imports: imports.concat(),
        aliases: aliases.clone(),
        v1: module.rego_v1,
        arguments: Vec::new(),
        name: name.text().split('[').next().unwrap_or_default().to_owned(),
        head: head(name),
        shape,
        line: span.line,
        text: line_of(span),
        value: String::new(),
        bodies: Vec::new(),
    };
    let read = |rule: &Rule| match rule {
        // What a function gives where no other of it does.
        Rule::Default { span, refr, args, .. } if !args.is_empty() => {
            base(refr.span(), Shape::Function, span)
        }
        Rule::Default { span, refr, .. } => base(refr.span(), Shape::Default, span),
        Rule::Spec { span, head, bodies } => {
            let (refr, shape, value) = match head {
                RuleHead::Compr { refr, assign, .. } => {
                    // v0's `deny[msg] { .. }` and what has a variable in its name are asked for as they are.
                    (refr, Shape::Complete, assigned(assign.as_ref()))
                }
                RuleHead::Set { span, refr, key } => {
                    (refr, Shape::Set, key.as_ref().map(|_| element(refr.span(), span)))
                }
                RuleHead::Func { refr, assign, .. } => {
                    (refr, Shape::Function, assigned(assign.as_ref()))
                }
            };
            let definition = base(refr.span(), shape, span);
            let mut bodies: Vec<Body> =
                bodies.iter().enumerate().map(|(i, b)| body(b, span, i > 0)).collect();
            if bodies.is_empty() {
                // A constant.
                let (line, text) = (span.line, line_of(span));
                let conditions = Vec::new();
                bodies.push(Body { line, text, is_else: false, value: None, conditions });
            }
            let arguments = match head {
                RuleHead::Func { args, .. } => {
                    let words = args.iter().flat_map(|arg| words(arg.span().text()));
                    words.map(|(_, word)| word.to_owned()).collect()
                }
                _ => Vec::new(),
            };
            let definition = Definition { arguments, ..definition };
            Definition { value: value.unwrap_or_else(|| "true".into()), bodies, ..definition }
        }
    };
    module.policy.iter().map(|rule| read(rule.as_ref())).collect()
}

/// The value of a rule or branch, as written behind its `:=`. An expression's own place leaves out parentheses around it, and all but the
/// last member of an object.
fn assigned(assign: Option<&RuleAssign>) -> Option<String> {
    let text = assign.map(|assign| written(&assign.span))?;
    Some(text.trim_start_matches(':').trim_start_matches('=').trim().to_owned())
}

/// The element of a set, as written: `name contains element`, `name[element]`.
fn element(name: &Span, head: &Span) -> String {
    let text = between(head.source.contents(), name.end, head.end).trim();
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    bracketed.or(text.strip_prefix("contains")).unwrap_or(text).trim().to_owned()
}

fn body(body: &RuleBody, rule: &Span, further: bool) -> Body {
    let source = rule.source.contents();
    let slice = |from, to| between(source, from, to);
    let statements = &body.query.stmts;
    let begin = statements.first().map_or(0, |first| first.span.start);
    let conditions = statements.iter().map(|statement| Condition {
        line: statement.span.line,
        text: one_line(slice(statement.span.start, end_of(statement))),
        raw: slice(statement.span.start, end_of(statement)).to_owned(),
        until_here: slice(begin, end_of(statement)).to_owned(),
        every: every(source, &statement.literal),
        elsewhere: !statement.with_mods.is_empty(),
    });
    // The first branch is where the rule is.
    let at = if further { &body.span } else { rule };
    Body {
        line: at.line,
        text: line_of(at),
        is_else: body.is_else,
        value: assigned(body.assign.as_ref()),
        conditions: conditions.collect(),
    }
}

fn every(source: &str, literal: &Literal) -> Option<Every> {
    let Literal::Every { key, value, domain, query, .. } = literal else { return None };
    let first = query.stmts.first()?.span.start;
    let last = end_of(query.stmts.last()?);
    let variables = key.iter().chain([value]).map(|span| span.text().to_owned());
    let domain = domain.span();
    Some(Every {
        variables: variables.collect(),
        domain: between(source, domain.start, domain.end).to_owned(),
        body: between(source, first, last).to_owned(),
    })
}

/// regorus' place of a name ends before its last bracket.
fn head(name: &Span) -> String {
    let mut head = written(name);
    if head.matches('[').count() > head.matches(']').count() {
        head.push(']');
    }
    head
}

fn written(span: &Span) -> String {
    between(span.source.contents(), span.start, span.end).to_owned()
}

/// Source between two places. regorus has the places of strings within their quotes, which belong to them.
fn between(source: &str, from: u32, to: u32) -> &str {
    let quote = |at: usize| matches!(source.as_bytes().get(at), Some(b'"' | b'`'));
    let (from, to) = (from as usize, to as usize);
    let from = if from > 0 && quote(from - 1) { from - 1 } else { from };
    let to = if quote(to) { to + 1 } else { to };
    source.get(from..to).unwrap_or_default()
}

/// The end of a statement; of one with a body of its own that body's.
fn end_of(statement: &regorus::unstable::LiteralStmt) -> u32 {
    match &statement.literal {
        Literal::Every { query, .. } => statement.span.end.max(query.span.end),
        _ => statement.span.end,
    }
}

fn line_of(span: &Span) -> String {
    let line = span.source.contents().lines().nth(span.line.saturating_sub(1) as usize);
    line.unwrap_or_default().trim().to_owned()
}

/// Blanks in literals stay as they are.
pub fn one_line(text: &str) -> String {
    let (mut out, mut quote, mut escaped) = (String::new(), None, false);
    for c in text.trim().chars() {
        match quote {
            None if c.is_whitespace() => {
                if !out.ends_with(' ') {
                    out.push(' ');
                }
                continue;
            }
            None => quote = Some(c).filter(|c| matches!(c, '"' | '`')),
            Some(_) if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
        }
        out.push(c);
    }
    out
}

/// `data.http.authz.allow` of `http/authz/allow`.
pub fn query(path: &[&str]) -> String {
    let mut query = "data".to_owned();
    for part in path {
        let first = part.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        if first && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            query.push('.');
            query.push_str(part);
        } else {
            query.push_str(&format!("[{}]", serde_json::Value::from(*part)));
        }
    }
    query
}
