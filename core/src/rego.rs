//! Policies in Rego, compiled and asked by regorus.

use regorus::{CompiledPolicy, Engine, Value};

/// A policy file, or one of data.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceFile {
    pub name: String,
    pub text: String,
}

/// Policies that were read, with what they know as data.
pub struct Policies(Engine);

impl Policies {
    pub fn new(policies: &[SourceFile], data: &[SourceFile]) -> Result<Policies, String> {
        let mut engine = Engine::new();
        engine.set_strict_builtin_errors(false);
        for source in policies {
            engine
                .add_policy(source.name.clone(), source.text.clone())
                .map_err(|e| e.to_string())?;
        }
        for source in data {
            let value =
                Value::from_json_str(&source.text).map_err(|e| format!("{}: {e}", source.name))?;
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
        Value::from_json_str(json).map(Input).map_err(|e| e.to_string())
    }
}

impl Rule {
    /// What the rule says of an input; nothing if it is undefined.
    pub fn ask(&self, input: &Input) -> Result<Option<serde_json::Value>, String> {
        let said = self.0.eval_with_input(input.0.clone()).map_err(|e| e.to_string())?;
        if said == Value::Undefined {
            return Ok(None);
        }
        let said = said.to_json_str().map_err(|e| e.to_string())?;
        serde_json::from_str(&said).map(Some).map_err(|e| e.to_string())
    }
}

/// A rule's name as policies have it, of one as OPA's configuration has it: system/log/mask.
pub fn rule_name(path: &str) -> String {
    format!("data.{}", path.trim_start_matches('/').replace('/', "."))
}
