//! Policies and data in an engine. A rule that regorus can't compile, and OPA can, doesn't take the others with it: it is left out,
//! with what stands in its place never met.

use regorus::unstable::{Rule, RuleHead};
use regorus::{Engine, Value};

use super::builtins::Builtins;
use super::bundle::Bundle;
use super::reach::{self, Unread};
use super::rename::{self, Renamed};
use super::rules::{self, Definition};
use super::texts::{last_line, placed};
use crate::rego::{SourceFile, unread, wants_v1, without_idle_imports};

/// So many rules are left out at most.
const MOST: usize = 20;

/// A rule that can't be evaluated here, and why.
pub struct LeftOut {
    pub definition: Definition,
    pub why: String,
}

pub struct Made {
    pub engine: Engine,
    pub renamed: Renamed,
    pub definitions: Vec<Definition>,
    pub left_out: Vec<LeftOut>,
    pub unread: Vec<Unread>,
}

/// Which Rego policies are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V0,
    /// Some in one, some in the other.
    Mixed,
}

/// Policies that were read.
pub struct Read {
    pub version: Version,
    pub engine: Engine,
    pub policies: Vec<SourceFile>,
    pub unread: Vec<Unread>,
}

/// Those that can be read here, in the version of Rego that they are in. An error is of policies of which none can.
pub fn read(policies: &[SourceFile]) -> Result<Read, String> {
    let error = match versioned(policies) {
        Ok((version, engine)) => {
            return Ok(Read { version, engine, policies: policies.to_vec(), unread: Vec::new() });
        }
        Err(error) => error,
    };
    let (mut readable, mut unread) = (Vec::new(), Vec::new());
    for policy in policies {
        match versioned(std::slice::from_ref(policy)) {
            Ok(_) => readable.push(policy.clone()),
            Err(e) => unread.push(Unread {
                package: reach::package(&policy.text),
                why: format!("{e}: what it says is left out"),
            }),
        }
    }
    if readable.is_empty() || unread.is_empty() {
        return Err(error);
    }
    let (version, engine) = versioned(&readable)?;
    Ok(Read { version, engine, policies: readable, unread })
}

/// All in one version, if that can be. An error is of a policy that is no Rego in either.
fn versioned(policies: &[SourceFile]) -> Result<(Version, Engine), String> {
    let error = match parsed(policies, Version::V1) {
        Ok(engine) => return Ok((Version::V1, engine)),
        Err(error) => error,
    };
    let others = [Version::V0, Version::Mixed].into_iter();
    let mut read = others.filter_map(|version| Some((version, parsed(policies, version).ok()?)));
    read.next().ok_or(error)
}

/// An error is of policies of which none is Rego.
pub fn made(bundle: &Bundle, builtins: &Builtins) -> Result<Made, String> {
    let Read { version, mut engine, policies, unread } = read(&bundle.policies)?;
    let (policies, renamed) = rename::renamed(&policies, &mut engine);
    let complete = |policies: &[SourceFile]| {
        let mut engine = parsed(policies, version)?;
        builtins.register(&mut engine, policies)?;
        let data = Value::from_json_str(&bundle.data.to_string()).map_err(|e| e.to_string())?;
        engine.add_data(data).map_err(|e| e.to_string())?;
        Ok::<Engine, String>(engine)
    };
    let mut engine = complete(&policies)?;
    let (mut now, mut left_out) = (policies.clone(), Vec::new());
    loop {
        // What does not compile fails whatever is asked.
        let Err(e) = engine.eval_query("true".into(), false) else { break };
        let next = without(&now, &mut engine, &placed(&e.to_string()));
        match next.filter(|_| left_out.len() < MOST) {
            Some((fewer, gone)) => {
                engine = complete(&fewer)?;
                now = fewer;
                left_out.push(gone);
            }
            // It is no single rule: it fails as it is.
            None => {
                engine = complete(&policies)?;
                left_out.clear();
                break;
            }
        }
    }
    let mut definitions = rules::definitions(&mut engine);
    let gone = |d: &Definition| {
        left_out.iter().any(|l| (&l.definition.file, l.definition.line) == (&d.file, d.line))
    };
    definitions.retain(|definition| !gone(definition));
    Ok(Made { engine, renamed, definitions, left_out, unread })
}

fn parsed(policies: &[SourceFile], version: Version) -> Result<Engine, String> {
    let mut engine = Engine::new();
    engine.set_strict_builtin_errors(false);
    // What a policy prints is for OPA's console.
    engine.set_gather_prints(true);
    for policy in policies {
        match version {
            Version::V1 => added(&mut engine, policy, false)?,
            Version::V0 => added(&mut engine, policy, true)?,
            Version::Mixed => added(&mut engine, policy, false)
                .or_else(|error| added(&mut engine, policy, true).map_err(|_| error))?,
        }
    }
    Ok(engine)
}

fn added(engine: &mut Engine, policy: &SourceFile, v0: bool) -> Result<(), String> {
    // regorus itself would print warnings to standard error, and not be able to read it all the same.
    if v0 && wants_v1(&policy.text) {
        return Err(format!("{}: it is no Rego v0", policy.name));
    }
    engine.set_rego_v0(v0);
    let added = engine.add_policy(policy.name.clone(), without_idle_imports(&policy.text));
    added.map(|_| ()).map_err(|e| match (unread(&policy.text), placed(&e.to_string())) {
        (Some(why), _) => format!("{}: {why}, and an opa reads them (--opa)", policy.name),
        (None, error) if error.starts_with(&policy.name) => error,
        _ => format!("{}: {}", policy.name, last_line(&e.to_string())),
    })
}

/// The policies without the rule in which an error is: `p.rego:10: error: ..`.
fn without(
    policies: &[SourceFile],
    engine: &mut Engine,
    error: &str,
) -> Option<(Vec<SourceFile>, LeftOut)> {
    let (policy, line) = policies.iter().find_map(|policy| {
        let rest = error.strip_prefix(&policy.name)?.strip_prefix(':')?;
        Some((policy, rest.split(':').next()?.parse::<u32>().ok()?))
    })?;
    let why = error.splitn(3, ':').nth(2)?.trim().trim_start_matches("error: ").to_owned();
    let modules = engine.get_modules();
    let module = modules.iter().find(|m| *m.package.span.source.file() == policy.name)?;
    let spans = module.policy.iter().map(|rule| match rule.as_ref() {
        Rule::Default { span, .. } | Rule::Spec { span, .. } => span,
    });
    let at = spans.clone().rposition(|span| span.line <= line)?;
    let begin = spans.clone().nth(at)?.start as usize;
    let end = spans.clone().nth(at + 1).map_or(policy.text.len(), |span| span.start as usize);
    let region = policy.text.get(begin..end)?;
    let stub = stub(module.policy.get(at)?.as_ref(), module.rego_v1)?;
    let lines = "\n".repeat(region.matches('\n').count());
    let text = format!("{}{stub}{lines}{}", &policy.text[..begin], &policy.text[end..]);
    let (line, name) = (spans.clone().nth(at)?.line, policy.name.clone());
    // Twice the same: it is not the rule.
    if region.trim_end() == stub {
        return None;
    }
    let fewer = policies.iter().map(|policy| match policy.name == name {
        true => SourceFile { name: name.clone(), text: text.clone() },
        false => policy.clone(),
    });
    let fewer = fewer.collect();
    let mut all = rules::definitions(engine).into_iter();
    let definition = all.find(|d| d.file == name && d.line == line)?;
    Some((fewer, LeftOut { definition, why }))
}

/// What is never met, by the name of a rule.
fn stub(rule: &Rule, v1: bool) -> Option<String> {
    let Rule::Spec { head, .. } = rule else { return None };
    let (head, set) = match head {
        RuleHead::Compr { refr, .. } => (refr.span().text().to_owned(), false),
        RuleHead::Set { refr, .. } => (refr.span().text().to_owned(), true),
        RuleHead::Func { refr, args, .. } => {
            let arguments = vec!["_"; args.len()].join(", ");
            (format!("{}({arguments})", refr.span().text()), false)
        }
    };
    Some(match (set, v1) {
        (true, true) => format!("{head} contains 0 if false"),
        (true, false) => format!("{head}[0] {{ false }}"),
        (false, true) => format!("{head} if false"),
        (false, false) => format!("{head} {{ false }}"),
    })
}
