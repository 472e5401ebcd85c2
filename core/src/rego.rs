//! Policies in Rego, compiled and asked by regorus.
//!
//! What they are asked about comes from outside, so an answer may take no longer than [`LIMIT`], a function that panics is an
//! error of that one question, and one that would make too much is
//! an error before it begins: `bounds`. Functions that call themselves are refused: `recursion`. What regorus answers otherwise than OPA is
//! answered as OPA does where that is a few lines: `as_opa`, `re2`. Where policies say what it may calculate otherwise is found before they are
//! asked: `otherwise`, by what `kinds` of values they speak of.

pub mod as_opa;
mod bounds;
mod kinds;
pub mod otherwise;
mod own;
mod re2;
mod recursion;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;

use regorus::utils::limits::{ExecutionTimerConfig, set_fallback_execution_timer_config};
use regorus::{CompiledPolicy, Engine, Value};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

/// An answer that takes longer is none. It is far more than any policy needs, so that a busy machine does not run into it.
const LIMIT: Duration = Duration::from_secs(1);
/// So many steps are made between two looks at the clock.
const STEPS: NonZeroU32 = NonZeroU32::new(1024).expect("it is not 0");

thread_local! {
    /// A policy is being asked on this thread.
    static ASKING: Cell<bool> = const { Cell::new(false) };
}

/// Sets the limit, and keeps panics of policies out of the log: they may quote what was asked about, and come with every question.
fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let config = ExecutionTimerConfig { limit: LIMIT, check_interval: STEPS };
        set_fallback_execution_timer_config(Some(config));
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !ASKING.get() {
                others(panic);
            }
        }));
    });
}

/// Calls regorus; a panic is an error.
fn caught<T>(call: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    ASKING.set(true);
    // Whatever it had, it made for this call.
    let result = catch_unwind(AssertUnwindSafe(call));
    ASKING.set(false);
    result.unwrap_or_else(|_| Err("a function of the policy panicked".into()))
}

/// A policy file, or one of data.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceFile {
    pub name: String,
    pub text: String,
}

/// A text without its comments and what stands in its strings.
pub fn bare(text: &str) -> String {
    let (mut out, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                while let Some(c) = chars.next() {
                    match c {
                        '\\' => drop(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
                out.push('"');
            }
            '`' => {
                chars.by_ref().find(|c| *c == '`');
                out.push('"');
            }
            '#' => {
                chars.by_ref().find(|c| *c == '\n');
                out.push('\n');
            }
            c => out.push(c),
        }
    }
    out
}

/// Why a policy can't be read, if it has what OPA reads, and regorus does not.
pub fn unread(policy: &str) -> Option<String> {
    bare(policy).contains("$\"").then(|| {
        "docket doesn't read template strings ($\"..\"), which OPA 1.22 does; sprintf says the same"
            .into()
    })
}

/// Whether a policy has keywords of Rego v1 that it does not import, which v0 takes for names.
pub fn wants_v1(policy: &str) -> bool {
    let bare = bare(policy);
    let imports: Vec<&str> =
        bare.lines().map(str::trim).filter(|line| line.starts_with("import ")).collect();
    let imported = |word: &str| {
        let all = ["import rego.v1", "import future.keywords"];
        // Whoever imports every has in, too.
        let own = |line: &str, word| line.strip_prefix("import future.keywords.") == Some(word);
        imports.iter().any(|line| {
            all.contains(line) || own(line, word) || (word == "in" && own(line, "every"))
        })
    };
    let is_of_name = |c: char| c.is_alphanumeric() || c == '_';
    let is_keyword = |word: &str| {
        bare.match_indices(word).any(|(at, _)| {
            let (before, after) = (&bare[..at], &bare[at + word.len()..]);
            // A member, or a function: there was one called contains before.
            let other = before.ends_with(|c: char| is_of_name(c) || c == '.')
                || after.starts_with(|c: char| is_of_name(c) || c == '(');
            !other && after.starts_with(char::is_whitespace)
        })
    };
    ["if", "contains", "in", "every"].iter().any(|word| is_keyword(word) && !imported(word))
}

/// A policy without its `import input`, which says nothing; regorus would print that to standard error. Lines stay where they are.
pub fn without_idle_imports(policy: &str) -> String {
    let idle = |line: &str| line.trim() == "import input";
    let lines = policy.split('\n').map(|line| if idle(line) { "" } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

/// Policies that were read, with what they know as data.
pub struct Policies(Engine);

impl Policies {
    pub fn new(policies: &[SourceFile], data: &[SourceFile]) -> Result<Policies, String> {
        prepare();
        let mut engine = Engine::new();
        engine.set_strict_builtin_errors(false);
        for source in policies {
            engine.add_policy(source.name.clone(), without_idle_imports(&source.text)).map_err(
                |e| {
                    unread(&source.text)
                        .map_or_else(|| e.to_string(), |why| format!("{}: {why}", source.name))
                },
            )?;
        }
        recursion::refuse(&engine)?;
        bounds::put(&mut engine, policies)?;
        as_opa::put(&mut engine, policies, bounds::has)?;
        for source in data {
            let value = json(&source.text).map_err(|e| format!("{}: {e}", source.name))?;
            engine.add_data(value).map_err(|e| format!("{}: {e}", source.name))?;
        }
        Ok(Policies(engine))
    }

    /// A rule such as data.system.log.mask, if there is one.
    pub fn rule(&mut self, name: &str) -> Result<Option<Rule>, String> {
        match self.0.compile_with_entrypoint(&name.into()) {
            Ok(policy) => Ok(Some(Rule(policy))),
            Err(e) if e.to_string().contains("not a valid rule path") => Ok(None),
            Err(e) => Err(e.to_string()),
        }
    }
}

/// A rule that can be asked.
pub struct Rule(CompiledPolicy);

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rule")
    }
}

/// What a rule is asked about.
pub struct Input(Value);

impl Input {
    pub fn new(json: &str) -> Result<Input, String> {
        self::json(json).map(Input).map_err(|e| e.to_string())
    }
}

/// Reads JSON. regorus' own reader takes an object that names itself as serde_json names numbers for one, and calculates it, of any size.
fn json(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text).map(|Json(value)| value)
}

struct Json(Value);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(JsonVisitor).map(Json)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Json(element)) = elements.next_element()? {
            all.push(element);
        }
        Ok(all.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut all = BTreeMap::new();
        while let Some((Json(name), Json(value))) = members.next_entry()? {
            all.insert(name, value);
        }
        Ok(all.into())
    }
}

impl Rule {
    /// What the rule says of an input; nothing if it is undefined.
    pub fn ask(&self, input: &Input) -> Result<Option<serde_json::Value>, String> {
        let said = caught(|| {
            bounds::begin();
            let said = self.0.eval_with_input(input.0.clone()).map_err(|e| e.to_string())?;
            if said == Value::Undefined {
                return Ok(None);
            }
            if !bounds::is_small(&said) {
                return Err("the answer of the policy is too much".into());
            }
            said.to_json_str().map(Some).map_err(|e| e.to_string())
        })?;
        let Some(said) = said else { return Ok(None) };
        serde_json::from_str(&said).map(Some).map_err(|e| e.to_string())
    }
}

/// A rule's name as policies have it, of one as OPA's configuration has it: system/log/mask.
pub fn rule_name(path: &str) -> String {
    format!("data.{}", path.trim_start_matches('/').replace('/', "."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        let source = SourceFile {
            name: "p.rego".into(),
            text: format!("package p\nimport rego.v1\n{text}"),
        };
        Policies::new(&[source], &[]).unwrap().rule("data.p.answer").unwrap().unwrap()
    }

    #[test]
    fn a_function_that_panics_is_an_error_of_one_question() {
        prepare();
        #[allow(clippy::panic)]
        let error = caught::<()>(|| panic!("secret")).unwrap_err();
        assert!(error.contains("panicked") && !error.contains("secret"), "{error}");
        assert_eq!(caught(|| Ok(2)), Ok(2));
        assert!(!ASKING.get());
        // regorus' own panics there.
        let rule = rule("answer := strings.count(input.text, input.part)");
        let asked = rule.ask(&Input::new(r#"{"text":"abc","part":""}"#).unwrap());
        assert_eq!(asked, Ok(Some(4.into())));
    }

    #[test]
    fn template_strings_are_told() {
        let text = "package p\nimport rego.v1\na := $\"{input.a}-x\"\n".into();
        let source = SourceFile { name: "p.rego".into(), text };
        let error = Policies::new(&[source], &[]).map(drop).unwrap_err();
        assert!(error.starts_with("p.rego: ") && error.contains("sprintf"), "{error}");
        // A pattern may end so, too.
        let text =
            "package p\nimport rego.v1\na if regex.match(\"^x$\", input.a) # $`\nb := )\n".into();
        let source = SourceFile { name: "p.rego".into(), text };
        let error = Policies::new(&[source], &[]).map(drop).unwrap_err();
        assert!(error.contains("p.rego:4") && !error.contains("template"), "{error}");
    }

    #[test]
    fn keywords_that_are_not_imported_are_no_v0() {
        for text in [
            "package p\nallow if { input.a }",
            "package p\ndeny contains \"x\" { input.a }",
            "package p\nallow { some x in input.a }",
            "package p\nimport future.keywords.if\nallow if { every x in input.a { x } }",
        ] {
            assert!(wants_v1(text), "{text}");
        }
        for text in [
            "package p\nallow { input.a }",
            "package p\nallow { contains(input.a, \"b if c\"); input.if == 1; not input.in }",
            "package p\n# if in every\nverify { gift := `allow if x`; notify }",
            "package p\nimport rego.v1\nallow if { some x in input.a }",
            "package p\nimport future.keywords\nallow if { every x in input.a { x } }",
            "package p\nimport future.keywords.every\nallow { every x in input.a { x } }",
        ] {
            assert!(!wants_v1(text), "{text}");
        }
        let text = "package p\n  import input\nimport input.user\n";
        assert_eq!(without_idle_imports(text), "package p\n\nimport input.user\n");
    }

    #[test]
    fn an_answer_that_takes_too_long_is_none() {
        let endless = rule(
            "answer := count([1 | some a in numbers.range(1, input.n); some b in numbers.range(1, input.n); some c in numbers.range(1, input.n); a + b == c])",
        );
        let error = endless.ask(&Input::new(r#"{"n":2000}"#).unwrap()).unwrap_err();
        assert!(error.contains("limit"), "{error}");
        assert_eq!(endless.ask(&Input::new(r#"{"n":3}"#).unwrap()).unwrap(), Some(3.into()));
    }
}
