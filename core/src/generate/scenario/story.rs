//! What happens on a day, and what should be said of it.

use super::platform::{JOB, SERVICES, client, resource};
use super::{DAY, Day, Event, HOUR, SECOND, Scenario};
use crate::spike::{Dimension, Kind};

const SPIKE: &[Kind] = &[Kind::DenialSpike];
const BUNDLE: &[Kind] = &[Kind::DenialSpike, Kind::RevisionShift];

impl Day {
    /// What happens.
    pub fn events(&self) -> Vec<Event> {
        let unwatched = Event {
            kinds: &[Kind::Unwatched],
            service: String::new(),
            from: self.start,
            to: self.start + self.seconds * SECOND,
            cause: None,
            or: None,
            may: true,
        };
        if self.from >= self.seconds {
            let is_junk = self.scenario == Scenario::JunkPaths;
            return if is_junk { vec![unwatched] } else { self.nights() };
        }
        let what = |kinds, cause| self.event(kinds, self.victim, cause, None);
        let one = |kinds, cause| vec![what(kinds, cause)];
        let revision = |n| Some((Dimension::Revision, self.revision(n)));
        let opa = || Some((Dimension::Instance, self.opa(self.victim, 0)));
        let stranger = || Some((Dimension::Subject, self.stranger(0)));
        match self.scenario {
            Scenario::Calm
            | Scenario::WeeklyRhythm
            | Scenario::Holiday
            | Scenario::Launch
            | Scenario::LoadHalves
            | Scenario::NewService
            | Scenario::Autoscaling
            | Scenario::Deploys
            | Scenario::Sidecars
            | Scenario::Failover
            | Scenario::Canary
            | Scenario::OldSamples
            | Scenario::EarlyCalls
            | Scenario::DryRun
            | Scenario::CronPolicies
            | Scenario::Recreate
            | Scenario::ScaleIn
            | Scenario::LateUploads
            | Scenario::LoginRush
            | Scenario::Backfill => Vec::new(),
            // Whoever watches sees nothing come.
            Scenario::DocketPause => {
                vec![Event { kinds: &[Kind::StreamQuiet], from: self.event_at(), ..unwatched }]
            }
            Scenario::DailyRhythm
            | Scenario::DaylightSaving
            | Scenario::Restarts
            | Scenario::NightlyJob
            | Scenario::JitteringJob => self.nights(),
            Scenario::JitteringAttack => [self.nights(), one(SPIKE, stranger())].concat(),
            Scenario::JobGrows => {
                let job = Some((Dimension::Subject, "batch".into()));
                [self.nights(), one(SPIKE, job)].concat()
            }
            Scenario::Attack
            | Scenario::WeekendAttack
            | Scenario::LowTraffic
            | Scenario::ClockAhead
            | Scenario::ClockBehind
            | Scenario::NewPolicyAttack
            | Scenario::FarAhead
            | Scenario::RushAttack
            | Scenario::TinyAttack => one(SPIKE, stranger()),
            Scenario::JunkPaths => vec![what(SPIKE, stranger()), unwatched],
            Scenario::Stuffing | Scenario::Spraying => {
                one(SPIKE, Some((Dimension::Resource, "/login".into())))
            }
            Scenario::MisconfiguredClient | Scenario::ExpiredCredential => {
                one(SPIKE, Some((Dimension::Subject, client(self.the_client()))))
            }
            Scenario::BadBundle | Scenario::TenantDenied => one(BUNDLE, revision(1)),
            Scenario::PolicyRollback => one(BUNDLE, revision(0)),
            Scenario::PermissiveBundle => {
                one(&[Kind::DenialsVanished, Kind::RevisionShift], revision(1))
            }
            Scenario::StaleBundle => {
                vec![self.event(SPIKE, self.victim, opa(), revision(0))]
            }
            Scenario::MissingPolicy => one(&[Kind::FailureSpike], revision(1)),
            Scenario::IdentityOutage => {
                (0..SERVICES.len()).map(|s| self.event(SPIKE, s, None, None)).collect()
            }
            Scenario::SlowLeak => one(SPIKE, Some((Dimension::Resource, resource(self.victim, 0)))),
            Scenario::CreepingLeak => one(SPIKE, None),
            Scenario::LastingLeak => {
                let leak = what(SPIKE, None);
                // What was so for a day is how things are, and then it stops.
                let kinds = &[Kind::DenialsVanished];
                let (from, to) = (leak.to, leak.to + HOUR * SECOND);
                vec![Event { kinds, from, to, may: true, ..leak.clone() }, leak]
            }
            Scenario::DeadOpa | Scenario::DeadSidecar => one(&[Kind::InstanceQuiet], opa()),
            Scenario::Silence => one(&[Kind::PolicyQuiet], None),
            Scenario::MissingData => one(&[Kind::FailureSpike], opa()),
        }
    }

    fn event(
        &self,
        kinds: &'static [Kind],
        service: usize,
        cause: Option<(Dimension, String)>,
        or: Option<(Dimension, String)>,
    ) -> Event {
        let at = |second: i64| self.start + second * SECOND;
        let service = SERVICES[service].name.to_owned();
        Event { kinds, service, from: at(self.from), to: at(self.to), cause, or, may: false }
    }

    /// The first nights of a nightly job: what was not yet seen twice, or, where it comes at any time of some hours, three times.
    fn nights(&self) -> Vec<Event> {
        if !self.has_nights() {
            return Vec::new();
        }
        let night = |day: i64| {
            let from = self.start + (day * DAY + self.night(day)) * SECOND;
            let to = from + 900 * SECOND;
            let service = SERVICES[JOB].name.into();
            Event { kinds: SPIKE, service, from, to, cause: None, or: None, may: true }
        };
        let (first, new) = (self.first_night(), if self.jitters() { 3 } else { 2 });
        (first..first + new).map(night).collect()
    }

    pub(super) fn has_nights(&self) -> bool {
        matches!(
            self.scenario,
            Scenario::DailyRhythm
                | Scenario::DaylightSaving
                | Scenario::Restarts
                | Scenario::NightlyJob
        ) || self.jitters()
    }

    /// Whether the nightly job comes at another moment each night.
    pub(super) fn jitters(&self) -> bool {
        matches!(
            self.scenario,
            Scenario::JitteringJob | Scenario::JitteringAttack | Scenario::JobGrows
        )
    }

    /// The first day with a nightly job.
    pub(super) fn first_night(&self) -> i64 {
        if self.scenario == Scenario::NightlyJob { 2 } else { 0 }
    }

    /// When the nightly job begins, in seconds of a day: at two, until clocks are changed in the fifth night; or at some moment from one to
    /// half past three.
    pub(super) fn night(&self, day: i64) -> i64 {
        if self.jitters() {
            let dice = (self.salt ^ day as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            return HOUR + (dice % 9000) as i64;
        }
        if self.scenario == Scenario::DaylightSaving && day >= 4 { 3 * HOUR } else { 2 * HOUR }
    }
}
