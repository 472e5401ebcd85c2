//! regorus' own functions, and what they are given.

use regorus::{CompiledPolicy, Engine, Value};

/// A policy that calls regorus' own function.
pub fn own_of(name: &str, arguments: u8) -> Result<CompiledPolicy, String> {
    let arguments: Vec<String> = (0..arguments).map(|number| format!("input[{number}]")).collect();
    let text = format!("package own\nanswer = {name}({})", arguments.join(", "));
    let mut engine = Engine::new();
    engine.set_strict_builtin_errors(false);
    engine.add_policy("own.rego".into(), text).map_err(|e| e.to_string())?;
    engine.compile_with_entrypoint(&"data.own.answer".into()).map_err(|e| e.to_string())
}

/// An argument, if it is text.
pub(super) fn text(of: &[Value], at: usize) -> Option<&str> {
    of.get(at)?.as_string().ok().map(|text| &**text)
}
