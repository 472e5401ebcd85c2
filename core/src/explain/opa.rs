//! OPA itself, asked the same questions as regorus. It stands outside, behind `Opa`.

use std::cell::RefCell;

use regorus::Value;
use serde_json::Value as Json;

use super::builtins::Builtins;
use super::texts;
use crate::rego::SourceFile;

/// An OPA that has a bundle's policies and data.
pub trait Opa {
    /// Adds a policy, or puts it in the place of the one of this name.
    fn put(&self, name: &str, policy: &str) -> Result<(), String>;
    /// What a document is, by its path (`authz/allow`), for an input in JSON; nothing if it is undefined.
    fn data(&self, path: &str, input: Option<&str>) -> Result<Option<Json>, String>;
    /// `OPA 1.22.2`
    fn name(&self) -> &str;
}

const ANSWERS: &str = "docket_answers";
const ASKED: &str = "docket_asked";
const QUERY: &str = "docket_query";

/// An OPA as a decision's evaluation needs it: what builtins answered then, they answer again, and those that ask somebody else don't.
pub struct AsThen<'o> {
    opa: &'o dyn Opa,
    /// As it was logged: its numbers are OPA's to read.
    input: Option<String>,
    /// ` with http.send as data.docket_answers.http_send`, without the clock.
    with: String,
    clock: bool,
    v0: bool,
    /// What was asked last.
    last: RefCell<String>,
}

impl<'o> AsThen<'o> {
    pub fn new(
        opa: &'o dyn Opa,
        (policies, v0): (&[SourceFile], bool),
        builtins: &Builtins,
        input: Option<String>,
    ) -> Result<AsThen<'o>, String> {
        let named = |name: &str| policies.iter().any(|policy| policy.text.contains(name));
        let (mut answers, mut with) = (format!("package {ANSWERS}\n"), String::new());
        let mut replaced = builtins.replaced();
        if builtins.now().is_some() {
            let of_time = OF_THE_TIME.into_iter().map(|(name, ..)| name);
            replaced.extend(of_time.filter(|name| !builtins.has(name)));
        }
        for name in replaced.into_iter().filter(|name| named(name)) {
            let function = name.replace('.', "_");
            with.push_str(&match builtins.recorded(name).next() {
                Some((given, value)) if given.is_empty() => format!(" with {name} as {value}"),
                _ => format!(" with {name} as data.{ANSWERS}.{function}"),
            });
            answers.push_str(&answering(name, &function, builtins, !v0));
        }
        opa.put(ANSWERS, &answers)?;
        // Of the decision before.
        opa.put(ASKED, &format!("package {ASKED}\n"))?;
        let clock = named("time.now_ns") && !builtins.has("time.now_ns");
        let last = RefCell::default();
        Ok(AsThen { opa, input, with, clock, v0, last })
    }

    pub fn query(&self, query: &str, builtins: &Builtins) -> Result<Value, String> {
        let now = builtins.now().filter(|_| self.clock);
        let clock = now.map(|now| format!(" with time.now_ns as {now}")).unwrap_or_default();
        // As a rule: OPA lets no query speak of `http.send`.
        let said = if self.v0 { "said = x" } else { "said := x if" };
        let time = builtins.now().map(|now| format!("now := {now}\n")).unwrap_or_default();
        let with = &self.with;
        let rule = format!("package {QUERY}\n{time}{said} {{ x := {query}{with}{clock} }}\n");
        if *self.last.borrow() != rule {
            self.opa.put(QUERY, &rule)?;
            self.last.replace(rule);
        }
        let said = self.opa.data(&format!("{QUERY}/said"), self.input.as_deref())?;
        Ok(said.map_or(Value::Undefined, Value::from))
    }

    /// The same beside one policy more. OPA refuses what is declared by `some` and stands nowhere else, as in the beginning of a body.
    pub fn ask(&self, policy: &str, query: &str, builtins: &Builtins) -> Result<Value, String> {
        let mut policy = policy.to_owned();
        while let Err(e) = self.opa.put(ASKED, &policy) {
            let unused =
                e.split("declared var ").nth(1).and_then(|rest| rest.split_once(" unused"));
            let fewer = unused.and_then(|(name, _)| undeclared(&policy, name));
            policy = fewer.filter(|fewer| *fewer != policy).ok_or(e)?;
        }
        self.query(query, builtins)
    }
}

/// What looks at OPA's own clock, with how many arguments, and what says the same of another time.
const OF_THE_TIME: [(&str, usize, &str); 2] = [
    ("io.jwt.decode_verify", 2, "io.jwt.decode_verify(a0, object.union({\"time\": now}, a1))"),
    (
        "crypto.x509.parse_and_verify_certificates",
        1,
        "crypto.x509.parse_and_verify_certificates_with_options(a0, {\"CurrentTime\": now})",
    ),
];

/// A function that answers what was recorded, and nothing else; or what a builtin says of the decision's time.
fn answering(name: &str, function: &str, builtins: &Builtins, v1: bool) -> String {
    let (sign, clause) = if v1 { (":=", " if") } else { ("=", "") };
    let names = |arguments: usize| -> String {
        let names: Vec<String> = (0..arguments).map(|at| format!("a{at}")).collect();
        names.join(", ")
    };
    let defined = |arguments: usize, value: &str, body: &str| {
        format!("{function}({}) {sign} {value}{clause} {{ {body} }}\n", names(arguments))
    };
    let of_time = OF_THE_TIME.iter().find(|(builtin, ..)| *builtin == name);
    let mut recorded = builtins.recorded(name).peekable();
    let mut out = match (of_time, recorded.peek()) {
        (Some((_, arguments, says)), None) => {
            defined(*arguments, "x", &format!("now := data.{QUERY}.now; x := {says}"))
        }
        (_, Some((given, _))) if given.is_empty() => return String::new(),
        // OPA lets nothing stand for a builtin that has no definition.
        (_, first) => defined(first.map_or(1, |(given, _)| given.len()), "null", "false"),
    };
    for (given, answer) in recorded {
        let (arguments, given) = (given.len(), Json::from(given));
        let body = format!("[{}] == {given}", names(arguments));
        out.push_str(&defined(arguments, &answer.to_string(), &body));
    }
    out
}

/// A text without a variable in its declarations: `some a, b` is `some a`.
fn undeclared(policy: &str, name: &str) -> Option<String> {
    let words = texts::words(policy);
    let (mut listed, mut last, mut first) = (false, 0, 0);
    for (at, (range, word)) in words.iter().enumerate() {
        let between = &policy[last..range.start];
        listed &= between.chars().all(|c| c == ',' || c.is_whitespace());
        // A new line without a comma is a new statement.
        listed &= at == first || between.contains(',');
        last = range.end;
        if listed && *word == name {
            let before = policy[..range.start].trim_end();
            return Some(match before.strip_suffix(',') {
                Some(before) => format!("{before}{}", &policy[range.end..]),
                None => match policy[range.end..].trim_start().strip_prefix(',') {
                    Some(behind) => format!("{before} {}", behind.trim_start()),
                    // It was the only one.
                    None => {
                        format!("{}{}", before.strip_suffix("some")?, &policy[range.end..])
                    }
                },
            });
        }
        if *word == "some" {
            (listed, first) = (true, at + 1);
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn a_declaration_loses_what_is_not_used() {
        for (text, name, wanted) in [
            ("x {\nsome a, b\np[a]\n}", "b", "x {\nsome a\np[a]\n}"),
            ("x {\nsome a, b\np[b]\n}", "a", "x {\nsome b\np[b]\n}"),
            ("x {\nsome a\nq\n}", "a", "x {\n\nq\n}"),
            ("x {\nsome a, b, c\na == c\n}", "b", "x {\nsome a, c\na == c\n}"),
        ] {
            assert_eq!(undeclared(text, name).as_deref(), Some(wanted));
        }
        assert_eq!(undeclared("x {\nsome a\nb\n}", "b"), None);
        assert_eq!(undeclared("x {\n\"some b\"\n}", "b"), None);
    }

    #[test]
    fn what_was_recorded_is_answered_again() {
        let recorded = r#"{"http.send":{"[\"a\\\"GIVEN\"]":1},"opa.runtime":{"[]":{}}}"#;
        let builtins = Builtins::of(Some(7), Some(recorded));
        let answering = |name: &str| answering(name, "f", &builtins, true);
        assert_eq!(
            answering("http.send"),
            "f(a0) := null if { false }\nf(a0) := 1 if { [a0] == [\"a\\\"GIVEN\"] }\n"
        );
        assert_eq!(answering("opa.runtime"), "");
        assert_eq!(answering("net.lookup_ip_addr"), "f(a0) := null if { false }\n");
        assert!(answering("io.jwt.decode_verify").contains("\"time\": now"));
    }
}
