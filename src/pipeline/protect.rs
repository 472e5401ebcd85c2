//! The pipeline file's `protect:` section: what is taken out of decisions before they get to the docket.

use std::path::{Path, PathBuf};

use globset::GlobBuilder;
use ring::hmac;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::secrets::Secret;
use crate::protect::Shield;
use crate::protect::rego::{Policy, Source};
use crate::protect::rules::{self, Pattern};

/// What must not spread.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Protect {
    /// OPA's own mask and drop policies.
    pub opa: Option<Opa>,
    /// Rules without Rego, applied in their order, after OPA's.
    pub rules: Vec<Rule>,
    /// The key of pseudonyms (action: hash). Whoever has it can find out whose one is, by trying.
    pub hash_key: Option<Secret>,
}

/// Policies in Rego, as OPA's decision_logs has them.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Opa {
    /// Policy files, relative to the pipeline file.
    #[schemars(length(min = 1))]
    pub policies: Vec<PathBuf>,
    /// JSON files with what policies know as data.
    #[serde(default)]
    pub data: Vec<PathBuf>,
    /// Where the mask rules are.
    #[serde(default = "mask")]
    #[schemars(regex(pattern = r"^/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)+$"))]
    pub mask_decision: String,
    /// Where it stands whether a decision is not to be recorded at all.
    #[serde(default = "drop")]
    #[schemars(regex(pattern = r"^/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)+$"))]
    pub drop_decision: String,
    /// What the files held; a change of theirs is one of the pipeline.
    #[serde(skip)]
    pub loaded: Vec<Source>,
}

fn mask() -> String {
    "system/log/mask".into()
}

fn drop() -> String {
    "system/log/drop".into()
}

/// What is done to what.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// JSON pointer into the decision; `*` stands for any one part, `**` for any number of them.
    pub path: String,
    /// Only decisions of these policies, as a glob.
    pub policy: Option<String>,
    pub action: Action,
    /// What it is replaced by; null unless set.
    pub value: Option<Value>,
    /// How many characters of text are kept.
    pub length: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Taken out.
    Erase,
    /// By value.
    Replace,
    /// By a pseudonym: the same value has the same one.
    Hash,
    /// To length.
    Truncate,
}

impl Protect {
    /// Reads what it refers to, and makes the shield. `problem` is told what is wrong, and where.
    pub fn compile(&mut self, folder: &Path, problem: &mut dyn FnMut(&[&str], String)) -> Shield {
        let mut shield = Shield::default();
        if let Some(opa) = &mut self.opa {
            let mut read = |key: &str, paths: &[PathBuf]| {
                let mut sources = Vec::new();
                for (i, path) in paths.iter().enumerate() {
                    match std::fs::read_to_string(folder.join(path)) {
                        Ok(text) => sources.push(Source { name: path.display().to_string(), text }),
                        Err(e) => problem(&["protect", "opa", key, &i.to_string()], format!("{} can't be read: {e}", folder.join(path).display())),
                    }
                }
                sources
            };
            let (policies, data) = (read("policies", &opa.policies), read("data", &opa.data));
            if policies.len() == opa.policies.len() && data.len() == opa.data.len() {
                let rule = |path: &str| format!("data.{}", path.trim_start_matches('/').replace('/', "."));
                match Policy::new(&policies, &data, &rule(&opa.mask_decision), &rule(&opa.drop_decision)) {
                    Ok(policy) => shield.policy = Some(policy),
                    Err(message) => problem(&["protect", "opa"], message),
                }
            }
            opa.loaded = policies.into_iter().chain(data).collect();
        }
        for (i, rule) in self.rules.iter().enumerate() {
            let i = i.to_string();
            let mut wrong = |key: &str, message: String| problem(&["protect", "rules", &i, key], message);
            let path = Pattern::parse(&rule.path).map_err(|e| wrong("path", e)).ok();
            let policy =
                rule.policy.as_ref().map(|text| GlobBuilder::new(text.trim_start_matches('/')).literal_separator(true).build().map(|g| g.compile_matcher()));
            let policy = policy.transpose().map_err(|e| wrong("policy", format!("not a glob: {e}"))).ok();
            if rule.value.is_some() && rule.action != Action::Replace {
                wrong("value", "only replace has a value".into());
            }
            if rule.length.is_some() != (rule.action == Action::Truncate) {
                wrong("length", "truncate has a length, and nothing else has".into());
            }
            let action = match rule.action {
                Action::Erase => rules::Action::Erase,
                Action::Replace => rules::Action::Replace(rule.value.clone().unwrap_or_default().to_string()),
                Action::Truncate => rules::Action::Truncate(rule.length.unwrap_or_default()),
                Action::Hash => match &self.hash_key {
                    Some(key) if key.expose().len() >= 16 => rules::Action::Hash(hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes())),
                    _ => {
                        wrong("action", "hash needs protect.hash_key, of 16 bytes at least".into());
                        continue;
                    }
                },
            };
            if let (Some(path), Some(policy)) = (path, policy) {
                shield.rules.push(rules::Rule { path, policy, action });
            }
        }
        shield
    }
}
