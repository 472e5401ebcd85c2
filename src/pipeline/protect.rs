//! The pipeline file's `protect:` section: what is taken out of decisions before they get to the docket.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::hmac;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::policies::read_all;
use crate::config::forms::Glob;
use crate::config::secrets::Secret;
use crate::config::units::Bytes;
use crate::protect::Protection;
use crate::protect::detect::{Act, Detect};
use crate::protect::detector;
use crate::protect::keys::Key;
use crate::protect::rego::Policy;
use crate::protect::rules::{self, Pattern};
use crate::rego::{SourceFile, rule_name};

/// Data protection: what is removed from decisions, hashed or encrypted before they reach the docket topic.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Protect {
    /// Mask and drop policies of OPA, evaluated by docket.
    pub opa: Option<Opa>,
    /// Masking rules without Rego, applied in order, after OPA's policies.
    pub rules: Vec<Rule>,
    /// Key for pseudonyms (action: hash), at least 16 bytes. Anyone who has it can check guesses against a pseudonym.
    pub hash_key: Option<Secret>,
    /// Key for action: encrypt.
    pub encryption_key: Option<EncryptionKey>,
    /// What to do with secrets and personal data that no rule names, by detector. Default: erase, for all of them.
    pub detect: Detectors,
    /// Maximum sizes of parts of a decision. A part that exceeds its limit is replaced by its beginning, its length and its SHA-256. Unlimited by default.
    pub sizes: Sizes,
}

/// An encryption key and its ID.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EncryptionKey {
    /// ID of the key, stored with each encrypted value. A new key needs a new ID.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,64}$"))]
    pub id: String,
    /// The key: 32 bytes, in base64 or hex.
    pub key: Secret,
}

/// Maximum sizes of parts of a decision.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sizes {
    /// Maximum size of the input. Default: unlimited.
    pub input: Option<Bytes>,
    /// Maximum size of the result. Default: unlimited.
    pub result: Option<Bytes>,
    /// Maximum size of the cache of non-deterministic built-ins. Default: unlimited.
    pub nd_builtin_cache: Option<Bytes>,
}

/// What to do with what a detector finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Detected {
    /// Replace it with [erased:<detector>].
    Erase,
    /// Replace it with a pseudonym; needs hash_key.
    Hash,
    /// Keep it, and count it in docket_protect_detected_total.
    Count,
    /// Do not look for it.
    Off,
}

/// What to do with secrets and personal data that no rule names, by detector. Default: erase, for all of them.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Detectors {
    /// Values whose name marks them as secret, such as db_password, X-Csrf-Token, api_key, authorization or otp.
    pub named: Detected,
    /// Credentials that follow Bearer, Basic or Negotiate.
    pub authorization: Detected,
    /// JSON Web Tokens.
    pub jwt: Detected,
    /// Private keys in PEM format.
    pub private_key: Detected,
    /// AWS access key IDs.
    pub aws_key: Detected,
    /// API tokens with a known prefix: GitHub, GitLab, Slack, Stripe, Google, npm, Vault, OpenAI and others.
    pub api_token: Detected,
    /// Passwords in URLs: scheme://user:password@host.
    pub url_password: Detected,
    /// Payment card numbers with a valid check digit (Luhn).
    pub card: Detected,
    /// E-mail addresses. If hash_key is set, those of whoever made the request are hashed instead of erased.
    pub email: Detected,
    /// International bank account numbers with valid check digits (ISO 13616).
    pub iban: Detected,
    /// US Social Security numbers, with dashes.
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

/// OPA's mask and drop policies, configured as in OPA's decision_logs.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Opa {
    /// Rego files, with paths relative to the pipeline file.
    #[schemars(length(min = 1), inner(length(min = 1)))]
    pub policies: Vec<PathBuf>,
    /// JSON files loaded as data, with paths relative to the pipeline file.
    #[serde(default)]
    #[schemars(inner(length(min = 1)))]
    pub data: Vec<PathBuf>,
    /// Path of the mask rule, without the leading data. Default: system/log/mask.
    #[serde(default = "mask")]
    #[schemars(regex(pattern = r"^/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)+$"))]
    pub mask_decision: String,
    /// Path of the drop rule, without the leading data; a decision for which it is true is not recorded. Default: system/log/drop.
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

/// A masking rule: what to do with which parts of a decision.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// JSON pointer into the decision, such as /input/**/password. `*` matches one segment, `**` any number of segments.
    pub path: String,
    /// Policies whose decisions the rule applies to: a glob on the decision's path. Default: all.
    pub policy: Option<Glob>,
    /// What to do with the value.
    pub action: Action,
    /// Replacement value, for action: replace. Default: null.
    pub value: Option<Value>,
    /// Number of characters to keep; required for action: truncate.
    pub length: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Remove the value.
    Erase,
    /// Replace the value with the one given as value.
    Replace,
    /// Replace the value with a pseudonym, the same for equal values; needs hash_key.
    Hash,
    /// Cut text to the number of characters given as length.
    Truncate,
    /// Encrypt the value; needs encryption_key. `docket decrypt` restores it.
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
                    "hash needs protect.hash_key of at least 16 bytes".into(),
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
            protection.rules.extend(rule.compile(hash_key.as_ref(), sealing.as_ref(), &mut wrong));
        }
        protection
    }
}

impl Rule {
    fn compile(
        &self,
        hash_key: Option<&hmac::Key>,
        encryption_key: Option<&Arc<Key>>,
        wrong: &mut dyn FnMut(&str, String),
    ) -> Option<rules::Rule> {
        let path = Pattern::parse(&self.path).map_err(|e| wrong("path", e)).ok();
        if self.value.is_some() && self.action != Action::Replace {
            wrong("value", "value is for replace only".into());
        }
        if self.length.is_some() != (self.action == Action::Truncate) {
            wrong("length", "length is required for truncate, and for no other action".into());
        }
        let action = match self.action {
            Action::Erase => Some(rules::Action::Erase),
            Action::Replace => {
                let value = self.value.clone().unwrap_or_default();
                Some(rules::Action::Replace(value.to_string()))
            }
            Action::Truncate => Some(rules::Action::Truncate(self.length.unwrap_or_default())),
            Action::Hash => hash_key.cloned().map(rules::Action::Hash),
            Action::Encrypt => encryption_key.cloned().map(rules::Action::Encrypt),
        };
        if action.is_none() {
            let needs = match self.action {
                Action::Encrypt => "encrypt needs protect.encryption_key",
                _ => "hash needs protect.hash_key of at least 16 bytes",
            };
            wrong("action", needs.into());
        }
        let policy = self.policy.as_ref().map(Glob::value);
        Some(rules::Rule { path: path?, policy, action: action? })
    }
}
