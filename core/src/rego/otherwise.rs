//! Where policies say what regorus may calculate otherwise than OPA: found in their text, before anything is asked. What can't differ,
//! whatever the input is, is not told: counts, keys, whole numbers that are written there.

use regorus::unstable::{BoolOp, Expr, Ref};
use regorus::{Engine, Value};

use super::kinds::{Kind, Names, Scope, See, is_division, name, walk};
use super::{SourceFile, as_opa, without_idle_imports};

/// A place in a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub file: String,
    pub line: u32,
    /// An expression, as written.
    pub text: String,
    pub why: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: `{}`: {}", self.file, self.line, self.text, self.why)
    }
}

const ARITHMETIC: &str = "OPA calculates with decimals of any length, docket with 64 bits: with a \
    fraction or a very large number the result may be another; compare whole numbers or texts instead";
const DIVIDES: &str = "OPA divides with more digits than docket, which has 64 bits: the result may be \
    another; multiply the other side instead, by a whole number";
const LONG: &str = "OPA compares numbers of any length, docket those that 64 bits hold; compare texts \
    instead";
const ORDER: &str =
    "OPA orders sets and objects otherwise; compare what `count` says of them instead";
const VERB: &str = "docket fills only plain `%s`, `%d` and `%v` as OPA does; make the text by `concat` \
    or `format_int` instead";
const MISMATCH: &str = "here it is no text that `%s` is filled with, or no whole number that `%d` is, \
    or there are more or fewer values than verbs, which OPA writes otherwise";
const FRACTION: &str = "OPA writes a number with a fraction, if it is large or very small, with an \
    exponent; use `%s` for a text, `%d` for a whole number";
const FORMAT: &str = "how it is filled depends on a format that is not written there: OPA may fill it \
    otherwise; write the format there, with plain `%s`, `%d` and `%v`";

/// All of them, by file and line. Policies that can't be read have none.
pub fn places(policies: &[SourceFile]) -> Vec<Place> {
    let mut engine = Engine::new();
    let added = policies
        .iter()
        .map(|policy| engine.add_policy(policy.name.clone(), without_idle_imports(&policy.text)));
    if added.collect::<Result<Vec<_>, _>>().is_err() {
        return Vec::new();
    }
    let mut all = Vec::new();
    for module in engine.get_modules() {
        let (rules, mut found) = (Names::of_rules(module), Vec::new());
        for rule in &module.policy {
            walk(rule, &mut Search { scope: Scope::of(rule, &rules), found: &mut found });
        }
        found.sort_by_key(|place| place.line);
        all.append(&mut found);
    }
    all
}

struct Search<'s> {
    scope: Scope<'s>,
    found: &'s mut Vec<Place>,
}

impl See for Search<'_> {
    fn expression(&mut self, of: &Expr) {
        let why = match of {
            Expr::ArithExpr { op, lhs, rhs, .. } => self.arithmetic(is_division(op), lhs, rhs),
            Expr::BoolExpr { op, lhs, rhs, .. } => self.ordered(op, lhs, rhs),
            Expr::Number { span, .. } => is_long(span.text()).then(|| LONG.to_owned()),
            Expr::Call { fcn, params, .. } => {
                name(fcn).and_then(|function| self.called(&function, params))
            }
            _ => None,
        };
        let Some(why) = why else { return };
        let span = of.span();
        let place = Place {
            file: span.source.file().clone(),
            line: span.line,
            text: shown(span.text()),
            why,
        };
        // Of what stands within it on the same line, it was said.
        let same = |p: &Place| (&p.file, p.line, &p.why) == (&place.file, place.line, &place.why);
        if !self.found.iter().any(same) {
            self.found.push(place);
        }
    }
}

impl Search<'_> {
    fn arithmetic(&self, divides: bool, lhs: &Expr, rhs: &Expr) -> Option<String> {
        let exact = |kind| matches!(kind, Kind::Whole | Kind::Key);
        let number = |kind| exact(kind) || matches!(kind, Kind::Fraction | Kind::Unknown);
        let (a, b) = (self.scope.kind(lhs), self.scope.kind(rhs));
        match (number(a) && number(b), divides) {
            // Sets have a difference, others nothing.
            (false, _) => None,
            (true, true) => Some(DIVIDES.to_owned()),
            (true, false) => (!exact(a) || !exact(b)).then(|| ARITHMETIC.to_owned()),
        }
    }

    fn ordered(&self, op: &BoolOp, lhs: &Expr, rhs: &Expr) -> Option<String> {
        let orders = matches!(op, BoolOp::Lt | BoolOp::Le | BoolOp::Ge | BoolOp::Gt);
        let made = |of: &Expr| {
            matches!(of, Expr::Object { .. } | Expr::ObjectCompr { .. })
                || self.scope.kind(of) == Kind::Set
        };
        (orders && (made(lhs) || made(rhs))).then(|| ORDER.to_owned())
    }

    fn called(&self, function: &str, given: &[Ref<Expr>]) -> Option<String> {
        let differs = match (function, given) {
            ("sprintf", [format, values, ..]) => return self.formatted(format, values),
            ("sum" | "product", [list, ..]) => !self.scope.is_of_wholes(list),
            (function, given) => {
                let given: Vec<Value> = given.iter().map(|given| constant(given)).collect();
                as_opa::may_differ_for(function, given)
            }
        };
        differs.then(|| format!("{function} may answer otherwise in OPA{}", way_out(function)))
    }

    fn formatted(&self, format: &Expr, values: &Expr) -> Option<String> {
        let (Expr::String { value: format, .. } | Expr::RawString { value: format, .. }) = format
        else {
            return Some(FORMAT.to_owned());
        };
        let format = format.as_string().ok()?;
        let kinds: Option<Vec<Kind>> = match values {
            Expr::Array { items, .. } => Some(items.iter().map(|i| self.scope.kind(i)).collect()),
            _ => None,
        };
        let (mut chars, mut verbs) = (format.chars(), 0);
        while let Some(c) = chars.next() {
            if c != '%' {
                continue;
            }
            let verb = chars.next();
            if verb == Some('%') {
                continue;
            }
            let kind = match &kinds {
                Some(kinds) => match kinds.get(verbs) {
                    Some(kind) => *kind,
                    None => return Some(MISMATCH.to_owned()),
                },
                None => Kind::Unknown,
            };
            verbs += 1;
            // What OPA itself would write as a mistake is none that works there.
            match (verb, kind) {
                (Some('s'), Kind::Whole | Kind::Fraction) => return Some(MISMATCH.to_owned()),
                (Some('d'), Kind::Whole | Kind::Key | Kind::Unknown) => {}
                (Some('d'), _) => return Some(MISMATCH.to_owned()),
                (Some('v'), Kind::Fraction | Kind::Unknown) => return Some(FRACTION.to_owned()),
                (Some('s' | 'v'), _) => {}
                _ => return Some(VERB.to_owned()),
            }
        }
        kinds.filter(|kinds| kinds.len() != verbs).map(|_| MISMATCH.to_owned())
    }
}

/// What helps instead of a function.
fn way_out(function: &str) -> &'static str {
    match function {
        "sum" | "product" => " of fractions; add up whole numbers",
        "json.marshal_with_options" => "; json.marshal doesn't",
        "regex.globs_match" | "regex.template_match" => "; regex.match doesn't",
        "semver.compare" => " of what is no plain version",
        "time.parse_rfc3339_ns" => " of what is no plain RFC 3339",
        "time.add_date" => "; add nanoseconds, or days alone",
        "time.format" => "; the layout \"2006-01-02\" is the same",
        "time.parse_ns" => "; the layout \"2006-01-02\" is the same, of a plain date",
        "time.parse_duration_ns" => " of what is no plain duration",
        _ => "",
    }
}

/// A value, as far as it is written there.
fn constant(of: &Expr) -> Value {
    match of {
        Expr::String { value, .. }
        | Expr::RawString { value, .. }
        | Expr::Number { value, .. }
        | Expr::Bool { value, .. } => value.clone(),
        Expr::Array { items, .. } => {
            items.iter().map(|item| constant(item)).collect::<Vec<_>>().into()
        }
        _ => Value::Undefined,
    }
}

/// A number that 64 bits don't hold as it is written.
fn is_long(number: &str) -> bool {
    if number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok() {
        return false;
    }
    let digits = number.split(['e', 'E']).next().unwrap_or_default();
    let digits = digits.trim_start_matches(['0', '.']).bytes().filter(u8::is_ascii_digit).count();
    digits > 15 || number.parse::<f64>().is_ok_and(|number| number.abs() > 1e15)
}

/// So much of an expression is shown.
const SHOWN: usize = 60;

fn shown(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of a rule's lines: of each its number, and what is shown.
    fn told(rules: &str) -> Vec<String> {
        let text = format!("package system.log\nimport rego.v1\n{rules}");
        let places = places(&[SourceFile { name: "mask.rego".into(), text }]);
        assert!(places.iter().all(|place| place.file == "mask.rego"));
        places.iter().map(|place| format!("{}: {}", place.line - 2, place.text)).collect()
    }

    #[test]
    fn what_may_differ_is_told_by_its_line() {
        for (rules, wanted) in [
            (
                "mask contains \"/input/a\" if input.input.price * 100 == 1999",
                "input.input.price * 100",
            ),
            ("a if input.n + 1 > 3", "input.n + 1"),
            ("a if { x := input.n; x - count(input.b) > 0 }", "x - count(input.b)"),
            ("a if count(input.b) / 3 > 1", "count(input.b) / 3"),
            ("a if count(input.b) * 0.1 > 1", "count(input.b) * 0.1"),
            ("a if f(input.n)\nf(x) := x * 2", "x * 2"),
            ("a if input.n == 18446744073709551616", "18446744073709551616"),
            ("a if input.n == 0.12345678901234567", "0.12345678901234567"),
            ("a if input.n > 1e30", "1e30"),
            ("a := {1} > {\"a\": 1}", "{1} > {\"a\": 1}"),
            ("a if input.set > {\"a\": 1}", "input.set > {\"a\": 1}"),
            ("a if {1, 2} < input.set", "{1, 2} < input.set"),
            ("a if sum(input.list) == 3", "sum(input.list)"),
            ("a := sprintf(\"%5d\", [input.n])", "sprintf(\"%5d\", [input.n])"),
            ("a := sprintf(\"%.2f\", [input.n])", "sprintf(\"%.2f\", [input.n])"),
            ("a := sprintf(\"%e\", [input.n])", "sprintf(\"%e\", [input.n])"),
            ("a := sprintf(\"%q\", [input.n])", "sprintf(\"%q\", [input.n])"),
            ("a := sprintf(\"%s\", [count(input.n)])", "sprintf(\"%s\", [count(input.n)])"),
            ("a := sprintf(\"%d\", [\"x\"])", "sprintf(\"%d\", [\"x\"])"),
            ("a := sprintf(\"%v\", [input.n])", "sprintf(\"%v\", [input.n])"),
            ("a := sprintf(\"%s %s\", [\"x\"])", "sprintf(\"%s %s\", [\"x\"])"),
            ("a := sprintf(input.f, [\"x\"])", "sprintf(input.f, [\"x\"])"),
            ("a := time.parse_rfc3339_ns(input.t)", "time.parse_rfc3339_ns(input.t)"),
            ("a := time.format([1, \"UTC\", \"RFC822\"])", "time.format([1, \"UTC\", \"RFC822\"])"),
            ("a if regex.globs_match(input.a, \"b*\")", "regex.globs_match(input.a, \"b*\")"),
            ("a contains x + 0.5 if some x in [1, 2]", "x + 0.5"),
            ("a := 1 if true else := input.n % 7", "input.n % 7"),
            ("p[x] := 1 if x := -input.n + 2", "input.n + 2"),
            ("a if every x in input.list { x + 1 > 2 }", "x + 1"),
            ("a := [y | some x in input.list; y := x * 2]", "x * 2"),
            ("a if input.a with input as {\"a\": input.n * 2}", "input.n * 2"),
            ("a if { some k in {1.5, 2}; k * 2 > 3 }", "k * 2"),
        ] {
            assert_eq!(told(rules).len(), 1, "{rules}: {:?}", told(rules));
            assert!(told(rules)[0].ends_with(&format!(": {wanted}")), "{rules}: {:?}", told(rules));
        }
        let both = told("a if {\n\tinput.n == 1\n\tinput.n * 2 == 3\n\tinput.b / 2 == 3\n}");
        assert_eq!(both, ["3: input.n * 2", "4: input.b / 2"]);
    }

    #[test]
    fn what_can_not_differ_is_not_told() {
        for rules in [
            "mask contains \"/input/password\"",
            "a if input.input.n > 1000",
            "a if input.input.price == 19.99",
            "a if input.n == 9007199254740993",
            "a if count(input.list) + 1 > 3",
            "a if { n := count(input.list); m := n * 2; m % 2 == 0 }",
            "a := input.list[i + 1] if some i, _ in input.list",
            "a := input.list[i - 1] if input.list[i] == \"x\"",
            "a if { some i; input.list[i] == \"x\"; i + 1 == count(input.list) }",
            "mask contains sprintf(\"/input/users/%d/ssn\", [i]) if input.input.users[i].ssn",
            "mask contains sprintf(\"/input/%s/%v\", [name, k]) if some k, name in input.input.x",
            "a := sprintf(\"100%% of %s\", [input.a])",
            "a := sprintf(\"%v\", [upper(input.a)])",
            "a if count({\"a\", \"b\"} - input.set) > 0",
            "b contains \"x\"\na if count(b - {\"x\"}) == 0",
            "a if object.keys(input.a) - {\"b\"} == set()",
            "a if sum([count(x) | some x in input.lists]) > 7",
            "a if sum([1, 2]) > 2",
            "a if time.now_ns() - 86400000000000 > 1700000000000000000",
            "a if { [h, _, _] := time.clock(time.now_ns()); h + 1 > 8 }",
            "a if { some n in numbers.range(1, 3); input.list[n - 1] == \"x\" }",
            "a := time.format([time.now_ns(), \"UTC\", \"2006-01-02\"])",
            "a if semver.compare(\"1.2.3\", \"1.2.4\") < 0",
            "a := time.add_date(time.now_ns(), 0, 0, -30)",
            "a if regex.match(\"^a+$\", input.a)",
            "a if to_number(input.a) == 1",
            "a if input.a == -1",
            "a if concat(\"/\", [\"x + 1.5\", \"%e\"]) == \"a * b\" # c * 1.5",
            "n := 3\na if count(input.b) * n > 7",
        ] {
            assert_eq!(told(rules), Vec::<String>::new(), "{rules}");
        }
    }

    /// As OPA's own `sprintf` shows them: 1.2345675e+06, 0.85, 7.
    #[test]
    fn large_and_small_fractions_are_written_otherwise() {
        for (number, differs) in
            [(1_234_567.5, true), (0.000_01, true), (0.85, false), (7.0, false), (0.0, false)]
        {
            let given = vec!["%v".into(), vec![Value::from(number)].into()];
            assert_eq!(as_opa::may_differ_for("sprintf", given), differs, "{number}");
        }
        let given = vec!["%v".into(), vec![Value::from(12_345_678u64)].into()];
        assert!(!as_opa::may_differ_for("sprintf", given));
    }

    /// A policy that can't be read is told elsewhere.
    #[test]
    fn what_can_not_be_read_has_none() {
        assert_eq!(told("a if {"), Vec::<String>::new());
    }
}
