//! The pipeline file's `spikes:` section: what is worth saying, and who is told.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::model::{Auth, Tls};
use super::secrets::{Called, Secret};
use super::units::{Daily, Moment, Span};
use crate::decision::time::{Nanos, nanos};
use crate::spike::config::Config;
use crate::spike::{Finding, Kind};

/// Denial spikes and silent failures.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Spikes {
    /// Denials beyond the expected before anything is said; of errors and undefined results half as many.
    #[schemars(range(min = 1))]
    pub floor: f64,
    /// How improbable a finding must be under the baseline, as an exponent of e: 28 is once in a million million.
    #[schemars(range(min = 5, max = 1000))]
    pub certainty: f64,
    /// How long a policy is watched before anything is said of it.
    pub learn: Span,
    /// How long decisions may take from OPA to the docket topic. Later ones count when they come.
    pub lateness: Span,
    /// So much of the docket's past is read at start.
    pub history: Span,
    /// What is known to be noisy.
    pub ignore: Vec<Ignore>,
    /// Who is told, by name.
    pub notify: BTreeMap<String, Notify>,
}

impl Default for Spikes {
    fn default() -> Spikes {
        let config = Config::default();
        Spikes {
            floor: config.floor,
            certainty: config.certainty,
            learn: Span(Duration::from_nanos(config.learn.unsigned_abs())),
            lateness: span(3),
            history: span(86_400),
            ignore: Vec::new(),
            notify: BTreeMap::new(),
        }
    }
}

pub fn span(seconds: u64) -> Span {
    Span(Duration::from_secs(seconds))
}

/// Findings that nobody wants to hear of.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ignore {
    /// Services, as a glob.
    #[serde(default = "any")]
    pub service: String,
    /// Policies, as a glob: `*` within a part, `**` across parts.
    #[serde(default = "any")]
    pub policy: String,
    /// All kinds unless set.
    #[serde(default)]
    pub kinds: Vec<Kind>,
    /// From this time on, and only before that one.
    #[serde(default)]
    pub from: Option<Moment>,
    #[serde(default)]
    pub until: Option<Moment>,
    /// Only within these hours of each day, in UTC.
    #[serde(default)]
    pub daily: Option<Daily>,
}

impl Ignore {
    /// By when it was certain: what begins to be ignored is ignored to its end.
    fn applies(&self, at: Nanos) -> bool {
        self.from.is_none_or(|from| from.0 <= at)
            && self.until.is_none_or(|until| at < until.0)
            && self.daily.is_none_or(|daily| daily.has(at))
    }
}

fn any() -> String {
    "**".into()
}

/// Who is told of findings.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Notify {
    /// Prometheus' Alertmanager, which groups, silences and routes.
    Alertmanager(Alertmanager),
    /// Any HTTP endpoint: a JSON document of the findings.
    Webhook(Webhook),
    /// Slack's incoming webhooks, and what takes the same: Mattermost, Rocket.Chat, Discord with /slack.
    Slack(Slack),
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alertmanager {
    /// Addresses of Alertmanager; /api/v2/alerts is added. Of a cluster name every instance: each is told.
    #[schemars(length(min = 1), inner(regex(pattern = r"^https?://.+")))]
    pub urls: Vec<String>,
    /// Labels that every alert gets.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Called>")]
    pub headers: BTreeMap<String, Secret>,
    #[serde(default)]
    pub auth: Option<Auth>,
    #[serde(default)]
    pub tls: Tls,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// POSTed to; it may be a secret.
    #[schemars(with = "String")]
    pub url: Secret,
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Called>")]
    pub headers: BTreeMap<String, Secret>,
    #[serde(default)]
    pub auth: Option<Auth>,
    #[serde(default)]
    pub tls: Tls,
    #[serde(default)]
    pub say: Say,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slack {
    /// The incoming webhook, which is a secret.
    pub url: Secret,
    /// One line of text for each finding; {sentence}, {state}, {kind}, {service}, {policy}, {cause}, {trace_id}, {decision_id}, {onset} stand for what was found.
    #[serde(default = "slack_text")]
    pub text: String,
    #[serde(default)]
    pub tls: Tls,
    #[serde(default)]
    pub say: Say,
}

fn slack_text() -> String {
    "*{state}* {sentence} (since {onset}) trace {trace_id}".into()
}

/// When people are told.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Say {
    /// Findings that come within so long of each other are one message.
    pub group_wait: Span,
    /// What goes on is said again after so long.
    pub repeat: Span,
    /// Say also when it has ended.
    pub ends: bool,
}

impl Default for Say {
    fn default() -> Say {
        Say { group_wait: span(5), repeat: span(4 * 3600), ends: true }
    }
}

impl Spikes {
    pub fn config(&self) -> Config {
        Config {
            floor: self.floor,
            certainty: self.certainty,
            learn: nanos(self.learn.0),
            ..Config::default()
        }
    }

    /// Whether it is of a policy that is known to be noisy.
    pub fn ignores(&self, finding: &Finding) -> bool {
        self.ignore.iter().any(|i| {
            let fits = |glob: &str, text: &str| {
                globset::GlobBuilder::new(glob)
                    .literal_separator(true)
                    .build()
                    .is_ok_and(|g| g.compile_matcher().is_match(text))
            };
            fits(&i.service, &finding.service)
                && fits(&i.policy, &finding.policy)
                && (i.kinds.is_empty() || i.kinds.contains(&finding.kind))
                && i.applies(finding.detected)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_at_some_times_is_said_at_others() {
        let night = Ignore {
            service: "batch".into(),
            policy: any(),
            kinds: vec![Kind::DenialSpike],
            from: None,
            until: Some("2026-12-01T00:00:00Z".parse().unwrap()),
            daily: Some("02:00-04:00".parse().unwrap()),
        };
        let spikes = Spikes { ignore: vec![night], ..Spikes::default() };
        let ignored = |service: &str, kind: Kind, at: &str| {
            let detected = at.parse::<Moment>().unwrap().0;
            spikes.ignores(&Finding { detected, ..Finding::new(kind, service, "a/b") })
        };
        assert!(ignored("batch", Kind::DenialSpike, "2026-11-30T03:00:00Z"));
        assert!(!ignored("batch", Kind::DenialSpike, "2026-11-30T05:00:00Z"), "not at night");
        assert!(!ignored("batch", Kind::DenialSpike, "2026-12-01T03:00:00Z"), "over");
        assert!(
            !ignored("batch", Kind::FailureSpike, "2026-11-30T03:00:00Z")
                && !ignored("orders", Kind::DenialSpike, "2026-11-30T03:00:00Z")
        );
    }
}
