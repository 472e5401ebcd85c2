//! What enforcement did wrong, and when that can't be told.
//!
//! A finding is made of evidence only, which is what there is one of for each request, by keys that are exact; and
//! when all of it must have come.

use std::collections::HashMap;

use globset::{GlobMatcher, GlobSet};

use super::asked::Asked;
use crate::decision::ids::TraceId;
use crate::decision::time::Nanos;
use crate::facts::{Fact, Status};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// The answer was no, and the request was served.
    DeniedButServed,
    /// A request that had to be asked for was served, and nobody asked.
    ServedWithoutDecision,
    /// The policy engine could not be asked, and the request passed.
    FailedOpen,
    /// Something was asked for and decided, and there is no such request.
    DecisionWithoutRequest,
    /// The answer was yes, and something else refused.
    AllowedButRefused,
}

impl FindingKind {
    pub const ALL: [FindingKind; 5] = [
        FindingKind::DeniedButServed,
        FindingKind::ServedWithoutDecision,
        FindingKind::FailedOpen,
        FindingKind::DecisionWithoutRequest,
        FindingKind::AllowedButRefused,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            FindingKind::DeniedButServed => "denied_but_served",
            FindingKind::ServedWithoutDecision => "served_without_decision",
            FindingKind::FailedOpen => "failed_open",
            FindingKind::DecisionWithoutRequest => "decision_without_request",
            FindingKind::AllowedButRefused => "allowed_but_refused",
        }
    }
}

/// Why it can't be told whether there is a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Undecidable {
    /// The proxy has a decision id, and the decision never came: it was made, and its log is lost.
    DecisionLost,
    /// Records of the time are missing: an OPA dropped them, they went to rejects, or were gone before they were read.
    Gap,
    /// The memory's budget was too small for the time.
    Evicted,
    /// The request took longer than decisions are kept.
    LongRequest,
    /// Several requests share the id, or the span, or several decisions that say different things.
    SharedId,
    /// The source writes only a part of the requests.
    Sampled,
    /// It lacks the ID by which both sides are brought together, or decisions of its time do.
    NoKey,
    /// It came so late that what bears on it may not be known any more.
    Late,
    /// Its clock is wrong: it happened after it was written down.
    Clock,
}

impl Undecidable {
    pub const ALL: [Undecidable; 9] = [
        Undecidable::DecisionLost,
        Undecidable::Gap,
        Undecidable::Evicted,
        Undecidable::LongRequest,
        Undecidable::SharedId,
        Undecidable::Sampled,
        Undecidable::NoKey,
        Undecidable::Late,
        Undecidable::Clock,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Undecidable::DecisionLost => "decision_lost",
            Undecidable::Gap => "gap",
            Undecidable::Evicted => "evicted",
            Undecidable::LongRequest => "long_request",
            Undecidable::SharedId => "shared_id",
            Undecidable::Sampled => "sampled",
            Undecidable::NoKey => "no_key",
            Undecidable::Late => "late",
            Undecidable::Clock => "clock",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub kind: FindingKind,
    pub at: Nanos,
    pub decision_id: String,
    pub policy: String,
    pub service: String,
    pub path: String,
    pub method: String,
    pub status: Status,
    pub request_id: String,
    pub trace: Option<TraceId>,
    /// Who let it pass, or refused: from the response's flags and details.
    pub by: String,
}

impl Finding {
    pub(super) fn of(kind: FindingKind, fact: Option<&Fact<'_>>, asked: Option<&Asked>) -> Finding {
        let of_fact = |text: fn(&Fact<'_>) -> String| fact.map(text).unwrap_or_default();
        let decision_id = asked.map_or_else(
            || of_fact(|f| f.decision_id.clone().into_owned()),
            |asked| asked.id.to_string(),
        );
        Finding {
            kind,
            at: fact.map_or_else(|| asked.map_or(0, |asked| asked.time), |fact| fact.start),
            decision_id,
            policy: asked.map(|asked| asked.policy.to_string()).unwrap_or_default(),
            service: fact.map_or_else(
                || asked.map(|asked| asked.service.to_string()).unwrap_or_default(),
                |fact| fact.service.clone().into_owned(),
            ),
            path: of_fact(|f| f.path.clone().into_owned()),
            method: of_fact(|f| f.method.clone().into_owned()),
            status: fact.map(|fact| fact.status).unwrap_or_default(),
            request_id: fact.map_or_else(
                || asked.map(|asked| asked.request_id.to_string()).unwrap_or_default(),
                |fact| fact.request_id.clone().into_owned(),
            ),
            trace: fact.and_then(|fact| fact.trace).or(asked.and_then(|asked| asked.trace)),
            by: of_fact(by),
        }
    }
}

/// Envoy's flags and details, in words where they are known (envoyproxy.io, "Access logging": `RESPONSE_FLAGS`).
fn by(fact: &Fact<'_>) -> String {
    let words = match (&*fact.flags, &*fact.details) {
        (_, "via_upstream") => "the service itself",
        ("UAEX", _) => "the external authorization service",
        (_, details) if details.starts_with("rbac_access_denied") => "Envoy's RBAC filter",
        (_, details) if details.starts_with("jwt_authn") => "Envoy's JWT filter",
        ("RL" | "RLSE", _) => "the rate limit",
        ("", details) => details,
        (flags, "") => flags,
        (flags, details) => return format!("{flags} {details}"),
    };
    words.to_owned()
}

/// Requests by service, path and method.
#[derive(Debug, Clone)]
pub struct Pattern {
    pub service: Option<GlobMatcher>,
    pub path: Option<GlobMatcher>,
    pub method: Option<String>,
}

impl Pattern {
    fn fits(&self, fact: &Fact<'_>) -> bool {
        self.service.as_ref().is_none_or(|glob| glob.is_match(&*fact.service))
            && self.path.as_ref().is_none_or(|glob| {
                // As with policies, a slash in front makes no difference.
                glob.is_match(&*fact.path) || glob.is_match(fact.path.trim_start_matches('/'))
            })
            && self.method.as_ref().is_none_or(|method| method.eq_ignore_ascii_case(&fact.method))
    }
}

/// What is watched.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    /// Requests of which each needs a decision.
    pub requests: Vec<Pattern>,
    /// Requests of which there are no findings.
    pub except: Vec<Pattern>,
    /// Policies whose answers are enforced; all if there are none.
    pub policies: GlobSet,
    /// Policies whose answers are not enforced yet.
    pub dry_run: GlobSet,
    /// Services whose access log has only a part of their requests.
    pub sampled: GlobSet,
    /// Whether each decision of an enforced policy has to have a request.
    pub expects_requests: bool,
    /// Findings of a kind and a service in a minute; the others are counted. 0 is no limit.
    pub per_minute: u32,
}

impl Watch {
    pub(super) fn enforces(&self, asked: &Asked) -> bool {
        self.policies.is_empty() || self.policies.is_match(&*asked.policy)
    }

    pub(super) fn is_dry_run(&self, asked: &Asked) -> bool {
        asked.dry_run || self.dry_run.is_match(&*asked.policy)
    }

    pub(super) fn watches(&self, fact: &Fact<'_>) -> bool {
        self.requests.iter().any(|pattern| pattern.fits(fact))
    }

    pub(super) fn excepts(&self, fact: &Fact<'_>) -> bool {
        self.except.iter().any(|pattern| pattern.fits(fact))
    }
}

/// How many findings there were in a minute, by kind and service.
#[derive(Debug, Default)]
pub struct Rates(HashMap<(FindingKind, String), (Nanos, u32)>);

impl Rates {
    /// Whether one more may be told.
    pub fn allow(&mut self, finding: &Finding, per_minute: u32) -> bool {
        const MINUTE: Nanos = 60_000_000_000;
        const SERVICES: usize = 10_000;
        if per_minute == 0 {
            return true;
        }
        let minute = finding.at.div_euclid(MINUTE);
        if self.0.len() >= SERVICES {
            self.0.retain(|_, (at, _)| *at >= minute);
        }
        let seen = self.0.entry((finding.kind, finding.service.clone())).or_insert((minute, 0));
        if seen.0 < minute {
            *seen = (minute, 0);
        }
        seen.1 += 1;
        seen.1 <= per_minute
    }
}

/// Times of which something is missing on one side.
#[derive(Debug, Default)]
pub struct Gaps(Vec<(Nanos, Nanos, Undecidable)>);

impl Gaps {
    pub fn add(&mut self, from: Nanos, to: Nanos, why: Undecidable) {
        // One that goes on is one.
        match self.0.iter_mut().find(|gap| gap.2 == why && gap.0 <= to && from <= gap.1) {
            Some(gap) => *gap = (gap.0.min(from), gap.1.max(to), why),
            None => self.0.push((from, to, why)),
        }
    }

    pub fn over(&self, from: Nanos, to: Nanos) -> Option<Undecidable> {
        self.0.iter().find(|gap| gap.0 <= to && from <= gap.1).map(|gap| gap.2)
    }

    /// Whether records of a time are missing as a source says.
    pub fn gap(&self, from: Nanos, to: Nanos) -> bool {
        self.0.iter().any(|gap| gap.2 == Undecidable::Gap && gap.0 <= to && from <= gap.1)
    }

    pub fn forget(&mut self, before: Nanos) {
        self.0.retain(|gap| gap.1 >= before);
    }
}
