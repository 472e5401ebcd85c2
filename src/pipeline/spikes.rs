//! The pipeline file's `spikes:` section: what is worth saying, and who is told.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::forms::Glob;
use crate::config::units::{Daily, Moment, Span};
use crate::decision::time::{Nanos, nanos};
use crate::notify::config::Notify;
use crate::spike::config::Config;
use crate::spike::{Finding, Kind};

/// Detection of denial spikes and silent failures.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Spikes {
    /// Minimum number of denials beyond the expected for a finding; half as many for errors and undefined results. Default: 12.
    #[schemars(range(min = 1))]
    pub floor: f64,
    /// Minimum improbability of a finding under the baseline, as a negative exponent of e: 28 means a probability of about one in a trillion. Default: 28.
    #[schemars(range(min = 5, max = 1000))]
    pub certainty: f64,
    /// How long a policy is observed before it can have findings. Default: 10m.
    pub learn: Span,
    /// How long decisions may take from OPA to the docket topic. Later ones are counted when they arrive. Default: 3s.
    pub lateness: Span,
    /// How much of the docket topic's past is read at startup at most: to learn the baseline, where nothing was learned before, or to go on where it was left. Default: 1d.
    pub history: Span,
    /// Maximum number of policies of services that are watched, and of services; each takes 50 to 100 KiB of memory. Default: 1000.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_policies: usize,
    /// Name of the compacted topic that keeps what was learned. Default: <docket topic>.spikes.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,249}$"))]
    pub topic: Option<String>,
    /// Findings to ignore, because their source is known to be noisy.
    pub ignore: Vec<Ignore>,
    /// Notifiers by name: who is told of findings.
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
            max_policies: config.max_series,
            topic: None,
            ignore: Vec::new(),
            notify: BTreeMap::new(),
        }
    }
}

pub fn span(seconds: u64) -> Span {
    Span(Duration::from_secs(seconds))
}

/// Findings to ignore: those that match all of these settings at the time they become certain.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ignore {
    /// Services: a glob. Default: all.
    #[serde(default = "any")]
    pub service: Glob,
    /// Policies: a glob, in which `*` matches within a segment and `**` across segments. Default: all.
    #[serde(default = "any")]
    pub policy: Glob,
    /// Kinds of findings. Default: all.
    #[serde(default)]
    pub kinds: Vec<Kind>,
    /// Ignore findings from this time on. Default: no start.
    #[serde(default)]
    pub from: Option<Moment>,
    /// Ignore findings before this time. Default: no end.
    #[serde(default)]
    pub until: Option<Moment>,
    /// Ignore findings only within this daily time range, in UTC. Default: at any hour.
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

pub fn any() -> Glob {
    Glob::new("**").expect("it is one")
}

impl Spikes {
    pub fn config(&self) -> Config {
        Config {
            floor: self.floor,
            certainty: self.certainty,
            learn: nanos(self.learn.0),
            max_series: self.max_policies,
            ..Config::default()
        }
    }

    /// Whether it is of a policy that is known to be noisy.
    pub fn ignores(&self, finding: &Finding) -> bool {
        self.ignore.iter().any(|i| {
            i.service.is_match(&finding.service)
                && i.policy.is_match(&finding.policy)
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
            service: Glob::new("batch").unwrap(),
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
