//! Policies in Rego that the file names: read once, when it is loaded.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::File;
use super::rules::VerdictPolicy;
use crate::config::tracked;
use crate::rego::{self, Policies, SourceFile, otherwise};

/// Reads policies and data, relative to the pipeline file's folder. `problem` is told what can't be read.
pub fn read_all(
    folder: &Path,
    policies: &[PathBuf],
    data: &[PathBuf],
    problem: &mut dyn FnMut(&[&str], String),
) -> Option<(Vec<SourceFile>, Vec<SourceFile>)> {
    let mut read = |key: &str, paths: &[PathBuf]| {
        let mut sources = Some(Vec::new());
        for (i, path) in paths.iter().enumerate() {
            tracked::reads(&folder.join(path));
            match std::fs::read_to_string(folder.join(path)) {
                Ok(text) => sources.iter_mut().for_each(|all| {
                    all.push(SourceFile { name: path.display().to_string(), text: text.clone() });
                }),
                Err(e) => {
                    problem(
                        &[key, &i.to_string()],
                        format!("{} can't be read: {e}", folder.join(path).display()),
                    );
                    sources = None;
                }
            }
        }
        sources
    };
    let (policies, data) = (read("policies", policies), read("data", data));
    Some((policies?, data?))
}

/// Reads the policy that says what results mean. `problem` is told what is wrong, and where.
pub fn verdict(
    policy: &mut VerdictPolicy,
    folder: &Path,
    problem: &mut dyn FnMut(&[&str], String),
) -> Option<Arc<rego::Rule>> {
    let mut wrong =
        |path: &[&str], message: String| problem(&[&["verdict_policy"], path].concat(), message);
    let (policies, data) = read_all(folder, &policy.policies, &policy.data, &mut wrong)?;
    let name = rego::rule_name(&policy.rule);
    let rule = Policies::new(&policies, &data)
        .and_then(|mut all| all.rule(&name))
        .and_then(|rule| rule.ok_or_else(|| format!("the policies have no {name}")));
    policy.loaded = policies.into_iter().chain(data).collect();
    rule.map(Arc::new).map_err(|e| wrong(&[], e)).ok()
}

/// Where mask and drop policies may be answered otherwise here than by OPA, and what helps.
pub fn masks_otherwise(file: &File) -> Vec<String> {
    let opa = file.protect.as_ref().and_then(|protect| protect.opa.as_ref());
    let places = opa.map(|opa| places(&opa.loaded, opa.policies.len())).unwrap_or_default();
    places.into_iter().map(|place| format!("{place}, or let OPA itself mask by it")).collect()
}

/// The same of the verdict policy.
pub fn verdicts_otherwise(file: &File) -> Vec<String> {
    let policy = file.verdict_policy.as_ref();
    let places = policy.map(|policy| places(&policy.loaded, policy.policies.len()));
    places.into_iter().flatten().map(|place| place.to_string()).collect()
}

/// Policies stand before data.
fn places(loaded: &[SourceFile], policies: usize) -> Vec<otherwise::Place> {
    otherwise::places(loaded.get(..policies).unwrap_or_default())
}
