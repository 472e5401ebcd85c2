//! What an expression of a policy is, as far as its text tells.

use std::collections::BTreeMap;

use regorus::unstable::{AssignOp, Expr, Literal, Module, Query, Rule, RuleHead};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number that is not large.
    Whole,
    /// What names an element: a text, or a whole number that is not large.
    Key,
    /// A number with a fraction, or one beyond 64 bits.
    Fraction,
    Text,
    Set,
    /// A list of whole numbers.
    Wholes,
    /// No number.
    Other,
    Unknown,
}

/// Functions, and what they answer.
const ANSWERS: [(&[&str], Kind); 5] = [
    (
        &[
            "bits.and",
            "bits.lsh",
            "bits.negate",
            "bits.or",
            "bits.rsh",
            "bits.xor",
            "ceil",
            "count",
            "floor",
            "indexof",
            "round",
            "semver.compare",
            "strings.count",
            "time.add_date",
            "time.now_ns",
            "time.parse_duration_ns",
            "time.parse_ns",
            "time.parse_rfc3339_ns",
        ],
        Kind::Whole,
    ),
    (
        &[
            "indexof_n",
            "numbers.range",
            "numbers.range_step",
            "time.clock",
            "time.date",
            "time.diff",
        ],
        Kind::Wholes,
    ),
    (
        &[
            "base64.decode",
            "base64.encode",
            "base64url.decode",
            "base64url.encode",
            "base64url.encode_no_pad",
            "concat",
            "format_int",
            "hex.decode",
            "hex.encode",
            "json.marshal",
            "lower",
            "regex.replace",
            "replace",
            "sprintf",
            "strings.replace_n",
            "strings.reverse",
            "substring",
            "time.format",
            "time.weekday",
            "trim",
            "trim_left",
            "trim_prefix",
            "trim_right",
            "trim_space",
            "trim_suffix",
            "type_name",
            "upper",
            "urlquery.decode",
            "urlquery.encode",
            "urlquery.encode_object",
        ],
        Kind::Text,
    ),
    (&["intersection", "object.keys", "union"], Kind::Set),
    (
        &[
            "array.concat",
            "array.slice",
            "contains",
            "endswith",
            "object.filter",
            "object.remove",
            "object.union",
            "regex.match",
            "regex.split",
            "split",
            "startswith",
        ],
        Kind::Other,
    ),
];

/// Names and what they are: one that is more than one thing may be anything.
#[derive(Default)]
pub struct Names(BTreeMap<String, Kind>);

impl Names {
    fn add(&mut self, name: &str, kind: Kind) {
        let known = self.0.entry(name.to_owned()).or_insert(kind);
        if *known != kind {
            *known = Kind::Unknown;
        }
    }

    /// The rules of a module.
    pub fn of_rules(module: &Module) -> Names {
        let mut names = Names::default();
        // What one is made of another may be said by further down.
        for _ in 0..2 {
            let mut now = Names::default();
            for rule in &module.policy {
                now.add_rule(rule, &names);
            }
            names = now;
        }
        names
    }

    fn add_rule(&mut self, rule: &Rule, before: &Names) {
        let of = |value: &Expr| Scope::of(rule, before).kind(value);
        match rule {
            Rule::Default { refr, value, .. } => self.add(first(refr), of(value)),
            Rule::Spec { head: RuleHead::Set { refr, .. }, .. } => {
                self.add(first(refr), Kind::Set);
            }
            Rule::Spec { head, bodies, .. } => {
                let (RuleHead::Compr { refr, assign, .. } | RuleHead::Func { refr, assign, .. }) =
                    head
                else {
                    return;
                };
                // What has more in its name than that is an object.
                let whole = matches!(&**refr, Expr::Var { .. });
                let branches = bodies.iter().filter_map(|body| body.assign.as_ref());
                for assign in assign.iter().chain(branches) {
                    let kind = if whole { of(&assign.value) } else { Kind::Other };
                    self.add(first(refr), kind);
                }
                if assign.is_none() {
                    self.add(first(refr), Kind::Other);
                }
            }
        }
    }
}

/// What a rule's variables are, and the rules around it.
pub struct Scope<'r> {
    rules: &'r Names,
    variables: Names,
}

impl<'r> Scope<'r> {
    pub fn of(rule: &Rule, rules: &'r Names) -> Scope<'r> {
        let mut scope = Scope { rules, variables: Names::default() };
        // One after the other, in whatever order they stand.
        for _ in 0..3 {
            let mut found = Found { scope: &scope, names: Names::default(), keys: Vec::new() };
            if let Rule::Spec { head: RuleHead::Func { args, .. }, .. } = rule {
                args.iter().for_each(|argument| found.unknown(argument));
            }
            walk(rule, &mut found);
            let Found { mut names, keys, .. } = found;
            for key in keys {
                // What is bound elsewhere is that.
                names.0.entry(key).or_insert(Kind::Key);
            }
            scope.variables = names;
        }
        scope
    }

    pub fn kind(&self, of: &Expr) -> Kind {
        match of {
            Expr::Number { span, .. } => match span.text().parse::<i64>() {
                Ok(_) => Kind::Whole,
                Err(_) => Kind::Fraction,
            },
            Expr::String { .. } | Expr::RawString { .. } => Kind::Text,
            Expr::Set { .. } | Expr::SetCompr { .. } | Expr::BinExpr { .. } => Kind::Set,
            Expr::Array { items, .. } if self.are_whole(items) => Kind::Wholes,
            Expr::ArrayCompr { term, .. } if self.kind(term) == Kind::Whole => Kind::Wholes,
            Expr::Var { span, .. } => {
                let known = self.variables.0.get(span.text());
                *known.or_else(|| self.rules.0.get(span.text())).unwrap_or(&Kind::Unknown)
            }
            Expr::UnaryExpr { expr, .. } => self.kind(expr),
            Expr::ArithExpr { op, lhs, rhs, .. } => match (self.kind(lhs), self.kind(rhs)) {
                (Kind::Set, _) | (_, Kind::Set) => Kind::Set,
                (Kind::Whole | Kind::Key, Kind::Whole | Kind::Key) if !is_division(op) => {
                    Kind::Whole
                }
                _ => Kind::Unknown,
            },
            Expr::Call { fcn, params, .. } => self.answer(&name(fcn).unwrap_or_default(), params),
            Expr::RefDot { .. } => Kind::Unknown,
            Expr::RefBrack { refr, .. } if self.kind(refr) == Kind::Wholes => Kind::Whole,
            Expr::RefBrack { .. } => Kind::Unknown,
            _ => Kind::Other,
        }
    }

    fn answer(&self, function: &str, given: &[regorus::unstable::Ref<Expr>]) -> Kind {
        if function == "abs" {
            return given.first().map_or(Kind::Unknown, |of| self.kind(of));
        }
        let known = ANSWERS.iter().find(|(names, _)| names.contains(&function));
        let own = self.rules.0.get(function);
        known.map(|(_, kind)| *kind).or(own.copied()).unwrap_or(Kind::Unknown)
    }

    /// Whether all of a list or a set is whole numbers.
    pub fn is_of_wholes(&self, list: &Expr) -> bool {
        match list {
            Expr::Set { items, .. } => self.are_whole(items),
            Expr::SetCompr { term, .. } => self.kind(term) == Kind::Whole,
            list => self.kind(list) == Kind::Wholes,
        }
    }

    fn are_whole(&self, items: &[regorus::unstable::Ref<Expr>]) -> bool {
        !items.is_empty() && items.iter().all(|item| self.kind(item) == Kind::Whole)
    }
}

pub fn is_division(op: &regorus::unstable::ArithOp) -> bool {
    *op == regorus::unstable::ArithOp::Div
}

/// A name as a call has it: `time.now_ns`.
pub fn name(of: &Expr) -> Option<String> {
    match of {
        Expr::Var { span, .. } => Some(span.text().to_owned()),
        Expr::RefDot { refr, field, .. } => Some(format!("{}.{}", name(refr)?, field.0.text())),
        _ => None,
    }
}

/// The first part of a rule's name.
fn first(refr: &Expr) -> &str {
    match refr {
        Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } => first(refr),
        other => other.span().text(),
    }
}

/// What is found of variables.
struct Found<'f> {
    scope: &'f Scope<'f>,
    names: Names,
    /// Those that stand in brackets, or are declared as keys.
    keys: Vec<String>,
}

impl Found<'_> {
    fn unknown(&mut self, pattern: &Expr) {
        self.bound(pattern, Kind::Unknown);
    }

    /// What a pattern binds.
    fn bound(&mut self, pattern: &Expr, kind: Kind) {
        match pattern {
            Expr::Var { span, .. } => self.names.add(span.text(), kind),
            Expr::Array { items, .. } => {
                let each = if kind == Kind::Wholes { Kind::Whole } else { Kind::Unknown };
                items.iter().for_each(|item| self.bound(item, each));
            }
            Expr::Object { fields, .. } => {
                fields.iter().for_each(|(_, _, value)| self.unknown(value));
            }
            _ => {}
        }
    }

    fn element(&mut self, key: Option<&Expr>, value: &Expr, collection: &Expr) {
        if let Some(Expr::Var { span, .. }) = key {
            // The keys of a set are its elements.
            match self.scope.kind(collection) {
                Kind::Set => self.names.add(span.text(), Kind::Unknown),
                _ => self.keys.push(span.text().to_owned()),
            }
        }
        let kind = match self.scope.is_of_wholes(collection) {
            true => Kind::Whole,
            false => Kind::Unknown,
        };
        self.bound(value, kind);
    }
}

impl See for Found<'_> {
    fn expression(&mut self, of: &Expr) {
        match of {
            Expr::AssignExpr { op, lhs, rhs, .. } => {
                self.bound(lhs, self.scope.kind(rhs));
                if *op == AssignOp::Eq {
                    self.bound(rhs, self.scope.kind(lhs));
                }
            }
            Expr::RefBrack { refr, index, .. } => {
                if let Expr::Var { span, .. } = &**index {
                    match self.scope.kind(refr) {
                        Kind::Set => self.names.add(span.text(), Kind::Unknown),
                        _ => self.keys.push(span.text().to_owned()),
                    }
                }
            }
            _ => {}
        }
    }

    fn literal(&mut self, of: &Literal) {
        match of {
            Literal::SomeIn { key, value, collection, .. } => {
                self.element(key.as_deref(), value, collection);
            }
            Literal::Every { key, value, .. } => {
                self.keys.extend(key.iter().map(|key| key.text().to_owned()));
                self.names.add(value.text(), Kind::Unknown);
            }
            _ => {}
        }
    }
}

/// Who looks at all that a rule says, the outer before the inner.
pub trait See {
    fn expression(&mut self, of: &Expr);
    fn literal(&mut self, _of: &Literal) {}
}

pub fn walk(rule: &Rule, see: &mut dyn See) {
    match rule {
        Rule::Default { value, .. } => expression(value, see),
        Rule::Spec { head, bodies, .. } => {
            match head {
                RuleHead::Set { refr, key, .. } => {
                    expression(refr, see);
                    key.iter().for_each(|key| expression(key, see));
                }
                RuleHead::Compr { refr, assign, .. } | RuleHead::Func { refr, assign, .. } => {
                    expression(refr, see);
                    assign.iter().for_each(|assign| expression(&assign.value, see));
                }
            }
            for body in bodies {
                body.assign.iter().for_each(|assign| expression(&assign.value, see));
                query(&body.query, see);
            }
        }
    }
}

fn query(of: &Query, see: &mut dyn See) {
    for statement in &of.stmts {
        see.literal(&statement.literal);
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { key, value, collection, .. } => {
                key.iter().for_each(|key| expression(key, see));
                expression(value, see);
                expression(collection, see);
            }
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => expression(expr, see),
            Literal::Every { domain, query, .. } => {
                expression(domain, see);
                self::query(query, see);
            }
        }
        statement.with_mods.iter().for_each(|with| expression(&with.r#as, see));
    }
}

fn expression(of: &Expr, see: &mut dyn See) {
    see.expression(of);
    match of {
        Expr::Array { items, .. } | Expr::Set { items, .. } => {
            items.iter().for_each(|item| expression(item, see));
        }
        Expr::Object { fields, .. } => fields.iter().for_each(|(_, name, value)| {
            expression(name, see);
            expression(value, see);
        }),
        Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
            expression(term, see);
            self::query(query, see);
        }
        Expr::ObjectCompr { key, value, query, .. } => {
            expression(key, see);
            expression(value, see);
            self::query(query, see);
        }
        Expr::Call { params, .. } => params.iter().for_each(|given| expression(given, see)),
        Expr::UnaryExpr { expr, .. } => expression(expr, see),
        Expr::RefDot { refr, .. } => expression(refr, see),
        Expr::RefBrack { refr, index, .. } => {
            expression(refr, see);
            expression(index, see);
        }
        Expr::BinExpr { lhs, rhs, .. }
        | Expr::BoolExpr { lhs, rhs, .. }
        | Expr::ArithExpr { lhs, rhs, .. }
        | Expr::AssignExpr { lhs, rhs, .. } => {
            expression(lhs, see);
            expression(rhs, see);
        }
        Expr::Membership { key, value, collection, .. } => {
            key.iter().for_each(|key| expression(key, see));
            expression(value, see);
            expression(collection, see);
        }
        _ => {}
    }
}
