//! Denials of a policy of which too little is known to say what is usual, in a service that is known: an attack on what was
//! never asked before. What a new policy denies to everybody is its rollout, and nothing is said of it: a flood is what
//! nearly one subject alone is denied, who is no regular of the service, or more than all of the service decides.

use super::Series;
use crate::decision::time::Nanos;
use crate::spike::baseline::{bucket, improbable_part};
use crate::spike::config::Config;
use crate::spike::explain::Memory;
use crate::spike::window::LONGEST;
use crate::spike::{BUCKET, Change, Dimension, Finding, Kind};

/// It takes so many times the denials that a spike takes; and so many buckets at least.
const FLOORS: f64 = 2.0;
const LASTS: i64 = 5;
/// Who it is has so much of the denials, gets so much of what it asks for denied, and had no more of the service's
/// decisions before.
const SHARE: f64 = 0.8;
const DENIED: f64 = 0.9;
const REGULAR: f64 = 0.25;
/// So many times what all of the service decides.
const TIMES: f64 = 3.0;

/// What is known of the service, or of the OPA, by its other policies.
pub struct Beside<'s> {
    pub series: Vec<&'s Series>,
}

impl Series {
    /// Whether enough is known of it that it tells of its service.
    pub fn is_known(&self, at: i64, config: &Config) -> bool {
        (at - self.born) * BUCKET >= config.learn && self.learner.knows(config)
    }

    /// Whether there is something to look at; asked of each policy in each bucket.
    pub fn may_be_flooded(&self, at: i64, config: &Config) -> bool {
        self.spikes[0].active.is_none()
            && self.window.one(0).bad[0] > 0
            && !self.is_known(at, config)
            && self.window.span(LONGEST).bad[0] as f64 >= FLOORS * config.floor
    }

    /// The OPA that most of its decisions are of.
    pub fn opa(&self) -> Option<String> {
        self.memory.main(Dimension::Instance)
    }

    /// Looks at the denials of a policy that is new beside others.
    pub fn flood(&self, at: i64, beside: &Beside<'_>, config: &Config) -> Option<Finding> {
        if beside.series.is_empty() {
            return None;
        }
        let since = (at + 1 - LONGEST as i64).max(self.said_to[0]) * BUCKET;
        let (who, onset) = self.who(since, beside).or_else(|| self.much(since, at, beside))?;
        let (first, onset) = self.began(since, at, onset);
        let long = usize::try_from(at + 1 - first).ok()?.min(LONGEST);
        let sum = self.window.span(long);
        let (denied, all) = (sum.bad[0] as f64, sum.all as f64);
        let two = |b: usize| self.window.one(b - 1).bad[0] + self.window.one(b).bad[0];
        let one = f64::from((1..long).map(two).max().unwrap_or(0));
        if (at + 1 - first) < LASTS
            || denied < FLOORS * config.floor
            || denied - one < config.floor
            || denied < DENIED * all && who.is_none()
        {
            return None;
        }
        // What the service is used to.
        let (bad, decisions) = beside.series.iter().fold((0.5, 1.0), |(bad, all), s| {
            (bad + s.learner.level.bad[0], all + s.learner.decisions())
        });
        let usual = (1.5 * bad / decisions + 0.01).min(0.99);
        let p = denied / all;
        let score = improbable_part(all, p, usual) / 1.2;
        if p <= usual || score < config.certainty {
            return None;
        }
        let mut finding = Finding::new(Kind::DenialSpike, &self.service, &self.policy);
        finding.begin(first, at);
        (finding.observed, finding.expected, finding.decisions, finding.score) =
            (sum.bad[0], usual * all, sum.all, score);
        let memories: Vec<&Memory> = beside.series.iter().map(|s| &s.memory).collect();
        (finding.causes, finding.examples) =
            self.memory.causes(0, onset, finding.observed, finding.expected, &memories);
        // Among what is new with the policy itself who is denied goes first.
        if let Some(who) = who
            && let Some(i) = finding
                .causes
                .iter()
                .position(|c| c.dimension == Dimension::Subject && c.value == who)
        {
            let cause = finding.causes.remove(i);
            finding.causes.insert(0, cause);
        }
        finding.onset = onset;
        Some(finding)
    }

    /// When it began, and in which bucket, where denials are more than are remembered.
    fn began(&self, since: Nanos, at: i64, onset: Nanos) -> (i64, Nanos) {
        let first = bucket(onset);
        if self.memory.remembers(0, since) {
            return (first, onset);
        }
        let long = usize::try_from(at + 1 - first).unwrap_or(1).max(1);
        let now = self.window.span(long).bad[0] as f64 / long as f64;
        let longer = (at + 1 - self.changed(0, at, 0.02 * now, now) as i64).min(first);
        (longer, if longer < first { longer * BUCKET } else { onset })
    }

    /// One subject that nearly all denials are of, and when they began.
    fn who(&self, since: Nanos, beside: &Beside<'_>) -> Option<(Option<String>, Nanos)> {
        let subject = Dimension::Subject;
        let (who, share, onset) = self.memory.heaviest(0, subject, since)?;
        let denied = self.memory.denied(0, subject, &who);
        let regular = beside.series.iter().map(|s| s.memory.share(subject, &who));
        let regular = regular.fold(0.0, f64::max);
        (share >= SHARE && denied >= DENIED && regular <= REGULAR).then_some((Some(who), onset))
    }

    /// More than all of the service decides, and when it began.
    fn much(&self, since: Nanos, at: i64, beside: &Beside<'_>) -> Option<(Option<String>, Nanos)> {
        let onset = self.memory.first(0, since, None)?;
        let long = usize::try_from(at + 1 - bucket(onset)).ok()?.clamp(1, LONGEST);
        let all: u64 = beside.series.iter().map(|s| s.window.span(long).all).sum();
        let denied = self.window.span(long).bad[0] as f64;
        (denied >= TIMES * all as f64).then_some((None, onset))
    }

    /// It is one.
    pub fn flooded(&mut self, finding: Finding, at: i64) -> Change {
        self.learner.flag(0, bucket(finding.onset));
        self.spikes[0].begins(&finding, LONGEST, at);
        self.spikes[0].flood = true;
        // Nobody misses it when it is over.
        self.heartbeat = Default::default();
        Change::Begins(finding)
    }
}
