//! The pipeline file's `protect:` section: what is taken out of decisions before they get to the docket.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::hmac;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::load::glob;
use super::secrets::Secret;
use super::units::Bytes;
use crate::protect::Protection;
use crate::protect::detect::{Act, Detect};
use crate::protect::detector;
use crate::protect::keys::Key;
use crate::protect::rego::Policy;
use crate::protect::rules::{self, Pattern};
use crate::rego::{SourceFile, rule_name};

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
    /// The key of action: encrypt.
    pub encryption_key: Option<EncryptionKey>,
    /// What is done with secrets and personal data that no rule names, by detector. All are erased unless set.
    pub detect: Detectors,
    /// What is longer is cut: the record keeps its beginning, its length and its SHA-256.
    pub sizes: Sizes,
}

/// A key, and what it is called in what is encrypted with it.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EncryptionKey {
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,64}$"))]
    pub id: String,
    /// 32 bytes, in base64 or hex.
    pub key: Secret,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sizes {
    pub input: Option<Bytes>,
    pub result: Option<Bytes>,
    pub nd_builtin_cache: Option<Bytes>,
}

/// What is done with what a detector finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Detected {
    /// [erased:<detector>] stands in its place.
    Erase,
    /// A pseudonym stands in its place.
    Hash,
    /// It stays, and is counted.
    Count,
    /// It is not looked for.
    Off,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Detectors {
    /// Values whose name says what they are: db_password, X-Csrf-Token, api_key, authorization, otp, ..
    pub named: Detected,
    /// Credentials after Bearer, Basic or Negotiate.
    pub authorization: Detected,
    /// JSON Web Tokens.
    pub jwt: Detected,
    /// Private keys in PEM.
    pub private_key: Detected,
    /// AWS access keys.
    pub aws_key: Detected,
    /// Tokens that begin as their makers have them: GitHub, GitLab, Slack, Stripe, Google, npm, Vault, OpenAI, ..
    pub api_token: Detected,
    /// The password in scheme://user:password@host.
    pub url_password: Detected,
    /// Card numbers with their check digit (Luhn).
    pub card: Detected,
    /// With erase and hash_key, those of who asked are hashed.
    pub email: Detected,
    /// Account numbers with their check digits (ISO 13616).
    pub iban: Detected,
    /// US social security numbers.
    pub ssn: Detected,
}

impl Default for Detectors {
    fn default() -> Detectors {
        use Detected::Erase;
        Detectors {
            named: Erase,
            authorization: Erase,
            jwt: Erase,
            private_key: Erase,
            aws_key: Erase,
            api_token: Erase,
            url_password: Erase,
            card: Erase,
            email: Erase,
            iban: Erase,
            ssn: Erase,
        }
    }
}

impl Detectors {
    /// In the order of `detector::ALL`.
    fn all(&self) -> [Detected; detector::ALL.len()] {
        [
            self.named,
            self.authorization,
            self.jwt,
            self.private_key,
            self.aws_key,
            self.api_token,
            self.url_password,
            self.card,
            self.email,
            self.iban,
            self.ssn,
        ]
    }
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
    pub loaded: Vec<SourceFile>,
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
    /// With encryption_key; `docket decrypt` opens it for who holds the key.
    Encrypt,
}

impl Protect {
    /// Reads what it refers to, and makes the protection. `problem` is told what is wrong, and where.
    pub fn compile(
        &mut self,
        folder: &Path,
        problem: &mut dyn FnMut(&[&str], String),
    ) -> Protection {
        let mut protection = Protection::default();
        if let Some(opa) = &mut self.opa {
            let mut wrong = |path: &[&str], message: String| {
                problem(&[&["protect", "opa"], path].concat(), message);
            };
            if let Some((policies, data)) = read_all(folder, &opa.policies, &opa.data, &mut wrong) {
                match Policy::new(
                    &policies,
                    &data,
                    &rule_name(&opa.mask_decision),
                    &rule_name(&opa.drop_decision),
                ) {
                    Ok(policy) => protection.policy = Some(policy),
                    Err(message) => wrong(&[], message),
                }
                opa.loaded = policies.into_iter().chain(data).collect();
            }
        }
        let hash_key = self
            .hash_key
            .as_ref()
            .filter(|key| key.expose().len() >= 16)
            .map(|key| hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes()));
        let sealing = self.encryption_key.as_ref().and_then(|key| {
            match Key::new(&key.id, key.key.expose()) {
                Ok(key) => Some(Arc::new(key)),
                Err(message) => {
                    problem(&["protect", "encryption_key"], message);
                    None
                }
            }
        });
        protection.pseudonyms.clone_from(&hash_key);
        let acts = self.detect.all().map(|detected| match detected {
            Detected::Off => Ok(None),
            Detected::Erase => Ok(Some(Act::Erase)),
            Detected::Count => Ok(Some(Act::Count)),
            Detected::Hash => hash_key.clone().map(Act::Hash).map(Some).ok_or(()),
        });
        for (detector, act) in detector::ALL.into_iter().zip(&acts) {
            if act.is_err() {
                problem(
                    &["protect", "detect", detector.name()],
                    "hash needs protect.hash_key, of 16 bytes at least".into(),
                );
            }
        }
        let acts = acts.map(Result::unwrap_or_default);
        if acts.iter().any(Option::is_some) {
            protection.detect = Some(Detect::new(acts));
        }
        let sizes = [
            ("input", self.sizes.input),
            ("result", self.sizes.result),
            ("nd_builtin_cache", self.sizes.nd_builtin_cache),
        ];
        protection.sizes =
            sizes.into_iter().filter_map(|(name, most)| Some((name, most?.0))).collect();
        for (i, rule) in self.rules.iter().enumerate() {
            let i = i.to_string();
            let mut wrong =
                |key: &str, message: String| problem(&["protect", "rules", &i, key], message);
            let path = Pattern::parse(&rule.path).map_err(|e| wrong("path", e)).ok();
            let policy =
                rule.policy.as_deref().map(glob).transpose().map_err(|e| wrong("policy", e)).ok();
            if rule.value.is_some() && rule.action != Action::Replace {
                wrong("value", "only replace has a value".into());
            }
            if rule.length.is_some() != (rule.action == Action::Truncate) {
                wrong("length", "truncate has a length, and nothing else has".into());
            }
            let action = match rule.action {
                Action::Erase => rules::Action::Erase,
                Action::Replace => {
                    rules::Action::Replace(rule.value.clone().unwrap_or_default().to_string())
                }
                Action::Truncate => rules::Action::Truncate(rule.length.unwrap_or_default()),
                Action::Hash => match &hash_key {
                    Some(key) => rules::Action::Hash(key.clone()),
                    None => {
                        wrong("action", "hash needs protect.hash_key, of 16 bytes at least".into());
                        continue;
                    }
                },
                Action::Encrypt => match &sealing {
                    Some(key) => rules::Action::Encrypt(key.clone()),
                    None => {
                        wrong("action", "encrypt needs protect.encryption_key".into());
                        continue;
                    }
                },
            };
            if let (Some(path), Some(policy)) = (path, policy) {
                protection.rules.push(rules::Rule { path, policy, action });
            }
        }
        protection
    }
}

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
