//! Denial spikes and silent failures: a pure function of the stream of decisions. No socket, no clock: time is
//! what the decisions say (`observe`), and how far all of them have been seen (`advance`).
//!
//! `baseline` learns what is usual and says how improbable something is, `explain` says who and what is
//! behind an excess, `series` puts both to work for a policy of a service, `heartbeat` tells whether
//! something is still there, `detector` runs one of each for whatever it meets, as `config` says;
//! `trial` judges a new revision, `reorder` puts the past in order, `together` is what has one cause, `record` makes a docket record of a finding. How it works, in words
//! and numbers: docs/spikes.md.

mod backlog;
pub mod baseline;
pub mod clocks;
pub mod config;
pub mod detector;
pub mod explain;
pub mod follow;
pub mod heartbeat;
pub mod horizon;
pub mod learner;
mod newcomers;
pub mod record;
pub mod reorder;
pub mod room;
pub mod series;
pub mod service;
pub mod snapshot;
pub mod together;
pub mod trial;
pub mod window;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::decision::ids::TraceId;
use crate::decision::record::Record;
use crate::decision::time::{self, Nanos};
use crate::decision::verdict::Verdict;
pub use detector::Detector;

pub const SECOND: Nanos = 1_000_000_000;
/// The grain of event time.
pub const BUCKET: Nanos = 2 * SECOND;

/// What the detector needs to know of a decision. Empty text where a decision does not say.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    pub at: Nanos,
    pub service: &'a str,
    pub policy: &'a str,
    pub verdict: Verdict,
    /// By `Dimension`.
    pub who: [&'a str; WHO],
    pub trace_id: TraceId,
    pub decision_id: &'a str,
}

impl Observation<'_> {
    /// Of a docket record; nothing for a finding.
    pub fn with<T>(record: &Record<'_>, take: impl FnOnce(&Observation<'_>) -> T) -> Option<T> {
        if record.verdict == Verdict::Finding {
            return None;
        }
        let revision = record.revision();
        let who = [
            &revision,
            record.instance.as_deref().unwrap_or_default(),
            &record.subject,
            &record.resource,
            &record.action,
            &record.tenant,
        ];
        Some(take(&Observation {
            at: record.timestamp,
            service: &record.service,
            policy: &record.policy,
            verdict: record.verdict,
            who,
            trace_id: record.trace_id,
            decision_id: &record.decision_id,
        }))
    }
}

/// What may explain a finding; in the order in which one of several equally good explanations is named first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    Revision,
    Instance,
    Subject,
    Resource,
    Action,
    Tenant,
}

/// How many dimensions there are.
pub const WHO: usize = Dimension::ALL.len();

impl Dimension {
    pub const ALL: [Dimension; 6] = [
        Dimension::Revision,
        Dimension::Instance,
        Dimension::Subject,
        Dimension::Resource,
        Dimension::Action,
        Dimension::Tenant,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Dimension::Revision => "revision",
            Dimension::Instance => "instance",
            Dimension::Subject => "subject",
            Dimension::Resource => "resource",
            Dimension::Action => "action",
            Dimension::Tenant => "tenant",
        }
    }
}

/// Kind of a finding.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// More denials than the baseline explains.
    DenialSpike,
    /// Denials stop although decisions go on.
    DenialsVanished,
    /// More errors and undefined decisions than the baseline explains.
    FailureSpike,
    /// A new bundle revision answers differently from the one before.
    RevisionShift,
    /// There are no more decisions for a policy of a service.
    PolicyQuiet,
    /// An OPA instance sends no more decisions, although its service goes on.
    InstanceQuiet,
    /// No decisions at all.
    StreamQuiet,
    /// There are more policies than there is room for: nobody looks at a part of the decisions.
    Unwatched,
    /// Another decision stands under the id of one before.
    DecisionIdReused,
    /// What stood in a topic is gone, and was not finished.
    LogGap,
    /// A request was denied, and yet served.
    DeniedButServed,
    /// A request was served, and nobody had asked whether it may be.
    ServedWithoutDecision,
    /// The policy engine could not be asked, and the request passed.
    FailedOpen,
    /// There is a decision, and no request.
    DecisionWithoutRequest,
    /// A request was allowed, and something else refused it.
    AllowedButRefused,
}

impl Kind {
    /// Nobody looks for it: a part of docket comes upon it. It is told, and goes on for no time.
    pub fn is_event(self) -> bool {
        self.is_enforcement() || matches!(self, Kind::DecisionIdReused | Kind::LogGap)
    }

    /// The join comes upon it, for each request that it is about.
    pub fn is_enforcement(self) -> bool {
        matches!(
            self,
            Kind::DeniedButServed
                | Kind::ServedWithoutDecision
                | Kind::FailedOpen
                | Kind::DecisionWithoutRequest
                | Kind::AllowedButRefused
        )
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::DenialSpike => "denial_spike",
            Kind::DenialsVanished => "denials_vanished",
            Kind::FailureSpike => "failure_spike",
            Kind::RevisionShift => "revision_shift",
            Kind::PolicyQuiet => "policy_quiet",
            Kind::InstanceQuiet => "instance_quiet",
            Kind::StreamQuiet => "stream_quiet",
            Kind::Unwatched => "unwatched",
            Kind::DecisionIdReused => "decision_id_reused",
            Kind::LogGap => "log_gap",
            Kind::DeniedButServed => "denied_but_served",
            Kind::ServedWithoutDecision => "served_without_decision",
            Kind::FailedOpen => "failed_open",
            Kind::DecisionWithoutRequest => "decision_without_request",
            Kind::AllowedButRefused => "allowed_but_refused",
        }
    }
}

/// Something improbable, for a policy of a service (or an instance; either is empty where it does not apply).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The same for the same finding of the same stream.
    pub id: String,
    pub kind: Kind,
    pub service: String,
    pub policy: String,
    /// When it began, and when that was certain, in event time.
    #[serde(serialize_with = "time::serialize", deserialize_with = "read_time")]
    pub onset: Nanos,
    #[serde(serialize_with = "time::serialize", deserialize_with = "read_time")]
    pub detected: Nanos,
    #[serde(
        default,
        serialize_with = "maybe_time",
        deserialize_with = "read_maybe_time",
        skip_serializing_if = "Option::is_none"
    )]
    pub ended: Option<Nanos>,
    /// From onset to detection: denials (or failures, or decisions for what went quiet), what the baseline
    /// expected of them at most (at least, for what vanished), and all decisions.
    pub observed: u64,
    pub expected: f64,
    pub decisions: u64,
    /// How improbable: the exponent of e.
    pub score: f64,
    /// Most of it first.
    pub causes: Vec<Cause>,
    pub examples: Vec<Example>,
    /// What exactly, of a finding that no baseline explains; why it ended, of OPAs that were quiet.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// A value that carries a part of the excess.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    pub dimension: Dimension,
    pub value: String,
    /// Its part of the excess, 0 to 1.
    pub share: f64,
    /// Its part of all decisions before.
    pub before: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    pub trace_id: String,
    pub decision_id: String,
}

/// What became of a finding.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Begins(Finding),
    Ends(Finding),
}

fn maybe_time<S: serde::Serializer>(at: &Option<Nanos>, s: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => time::serialize(at, s),
        None => s.serialize_none(),
    }
}

/// The key of what is known of a policy of a service; the part behind the first zero byte tells policies apart.
fn decision_key(service: &str, policy: &str) -> String {
    format!("policy\0{service}\0{policy}")
}

fn service_key(service: &str) -> String {
    format!("service\0{service}")
}

fn read_time<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Nanos, D::Error> {
    let text = String::deserialize(d)?;
    time::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("no time: {text}")))
}

fn read_maybe_time<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Nanos>, D::Error> {
    read_time(d).map(Some)
}

impl Cause {
    /// Something that is behind all of it, by its nature.
    pub fn whole(dimension: Dimension, value: &str) -> Cause {
        Cause { dimension, value: value.to_owned(), share: 1.0, before: 0.0 }
    }
}

impl Finding {
    /// One of which nothing is known yet but what it is about.
    pub fn new(kind: Kind, service: &str, policy: &str) -> Finding {
        Finding {
            id: String::new(),
            kind,
            service: service.into(),
            policy: policy.into(),
            onset: 0,
            detected: 0,
            ended: None,
            observed: 0,
            expected: 0.0,
            decisions: 0,
            score: 0.0,
            causes: Vec::new(),
            examples: Vec::new(),
            detail: String::new(),
        }
    }

    /// Begins at a bucket and is certain at the end of another.
    fn begin(&mut self, onset: i64, detected: i64) {
        self.onset = onset * BUCKET;
        self.detected = (detected + 1) * BUCKET;
        // What tells it from others of its kind at the same time.
        let which = match self.kind {
            Kind::InstanceQuiet | Kind::RevisionShift => {
                self.causes.first().map_or("", |c| &c.value)
            }
            _ => "",
        };
        let named = format!(
            "{}\0{}\0{}\0{which}\0{}",
            self.kind.as_str(),
            self.service,
            self.policy,
            self.onset
        );
        self.id = crate::decision::ids::hex(&Sha256::digest(named)[..8]);
    }

    /// What is more than expected.
    fn excess(&self) -> f64 {
        (self.observed as f64 - self.expected).max(0.0)
    }

    /// It ended while nobody looked: whoever says so knows of it only that it began.
    fn is_over_unseen(&self) -> bool {
        let numbers = self.observed == 0 && self.decisions == 0 && self.expected == 0.0;
        self.ended.is_some() && !self.kind.is_event() && numbers
    }

    fn came_upon(&self) -> String {
        match self.observed {
            // Of several requests the first is told; of IDs and gaps each is, or how many.
            2.. if self.kind.is_enforcement() => {
                format!("{}; {} in all", self.detail, self.observed)
            }
            _ => self.detail.clone(),
        }
    }

    fn no_more(&self) -> String {
        let began = match self.came_upon() {
            nothing if nothing.is_empty() => String::new(),
            detail => format!("; it began with this: {detail}"),
        };
        format!("no more of it came for ten minutes, so it is told as over{began}")
    }

    /// One sentence for people.
    pub fn sentence(&self) -> String {
        let on = match (self.service.is_empty(), self.policy.is_empty()) {
            (false, false) => format!("{} of {}", self.policy, self.service),
            (false, true) => self.service.clone(),
            _ => "the stream".into(),
        };
        let ratio = |n: f64| 100.0 * n / (self.decisions.max(1) as f64);
        let (observed, expected) = (self.observed as f64, self.expected);
        let what = match self.kind {
            _ if self.is_over_unseen() => {
                "it is over; how much it was is said where it began".to_owned()
            }
            Kind::DenialSpike => format!(
                "{observed} denials of {} decisions ({:.0} %), {expected:.1} expected",
                self.decisions,
                ratio(observed)
            ),
            Kind::DenialsVanished => format!(
                "{observed} denials of {} decisions, {expected:.0} expected",
                self.decisions
            ),
            Kind::FailureSpike => format!(
                "{observed} errors and undefined of {} decisions ({:.0} %), {expected:.1} expected",
                self.decisions,
                ratio(observed)
            ),
            Kind::RevisionShift => format!(
                "{:.1} % denied by the new revision, {:.1} % before{}{}",
                ratio(observed),
                ratio(expected),
                if self.detail.is_empty() { "" } else { "; " },
                self.detail
            ),
            Kind::PolicyQuiet | Kind::StreamQuiet | Kind::InstanceQuiet => {
                format!("no decisions, {expected:.0} expected")
            }
            Kind::Unwatched => format!(
                "{observed} of {} decisions in ten minutes are of what there is no room to watch{}{}",
                self.decisions,
                if self.detail.is_empty() { "" } else { ": " },
                self.detail
            ),
            // What a part came upon is no state that ends: no more of it came.
            _ if self.ended.is_some() => self.no_more(),
            _ => self.came_upon(),
        };
        let cause = self.causes.first().map(|c| match self.kind {
            Kind::InstanceQuiet | Kind::RevisionShift => {
                format!("; {} {}", c.dimension.as_str(), c.value)
            }
            _ => format!("; {:.0} % by {} {}", 100.0 * c.share, c.dimension.as_str(), c.value),
        });
        // How it ended is told of OPAs, which may be back, or gone for good.
        let end = match self.kind {
            Kind::InstanceQuiet if !self.detail.is_empty() => format!("; {}", self.detail),
            _ => String::new(),
        };
        format!(
            "{} on {on}: {what}{}{end}",
            self.kind.as_str().replace('_', " "),
            cause.unwrap_or_default()
        )
    }
}
