//! Days whose events are known: made-up traffic of a platform, with an attack, a bad bundle, a launch or another
//! thing in it, and what a detector should say of it. One seed, one day.
//!
//! `platform` is who asks for what, `story` what happens and should be said, `traffic` makes the decisions, `json`
//! writes them.

mod json;
mod platform;
mod story;
mod traffic;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::platform::{CLIENTS, JOB, SERVICES, USERS, normal, uuid};
use crate::decision::ids::TraceId;
use crate::decision::time::Nanos;
use crate::decision::verdict::Verdict;
use crate::spike::{Dimension, Kind, Observation};

const SECOND: Nanos = 1_000_000_000;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// How long a job of some minutes takes.
const JOB_SECONDS: i64 = 300;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Nothing happens.
    Calm,
    /// One stranger tries what it can reach.
    Attack,
    /// Many strangers try passwords at one place.
    Stuffing,
    /// From many addresses passwords of known users are tried, once or twice each.
    Spraying,
    /// A client asks for the wrong thing, again and again.
    MisconfiguredClient,
    /// A new bundle denies most of a policy's requests, and is rolled back.
    BadBundle,
    /// A new bundle denies nothing any more.
    PermissiveBundle,
    /// A policy is rolled back, and what clients were allowed since is denied.
    PolicyRollback,
    /// A new bundle denies everything for one tenant.
    TenantDenied,
    /// One OPA answers from the bundle before, and denies what is allowed now.
    StaleBundle,
    /// A new bundle lacks the policy that is asked for.
    MissingPolicy,
    /// A new bundle goes to one OPA first, and all is well.
    Canary,
    /// A busy client's credential expires; it is denied, and retries.
    ExpiredCredential,
    /// Nobody can log in any more, at no service.
    IdentityOutage,
    /// More and more requests for one resource are denied, over hours.
    SlowLeak,
    /// Two of a hundred decisions more are denied with each hour.
    CreepingLeak,
    /// Two days with a strong rhythm, and a nightly job that is denied a lot.
    DailyRhythm,
    /// Eight days: quiet weekends, busy Mondays.
    WeeklyRhythm,
    /// An attack on a quiet Saturday.
    WeekendAttack,
    /// Nine days; the last is a holiday.
    Holiday,
    /// A week in which clocks are changed, and a nightly job that is denied a lot.
    DaylightSaving,
    /// A nightly job that is denied a lot, and a detector that is restarted each day.
    Restarts,
    /// A service gets many times its traffic.
    Launch,
    /// A service loses half of its traffic.
    LoadHalves,
    /// A service that is new is denied a lot from its first second.
    NewService,
    /// OPAs come and go with the traffic.
    Autoscaling,
    /// Every OPA is replaced, one after the other, several times, and gets new bundles.
    Deploys,
    /// Dozens of OPAs beside the services' replicas, which live for an hour or two.
    Sidecars,
    /// One of a service's OPAs dies; the others take its requests.
    Failover,
    /// One of a service's OPAs dies, and what it was asked with it.
    DeadOpa,
    /// A service stops asking.
    Silence,
    /// One OPA answers undefined: its data did not load.
    MissingData,
    /// A platform with a decision every few seconds; a client that is denied.
    LowTraffic,
    /// Before the platform comes to life there are eight seconds of samples, three days old.
    OldSamples,
    /// An OPA uploads hours of old decisions, most of them denied.
    Backfill,
    /// An attack; one OPA's clock is half an hour ahead.
    ClockAhead,
    /// An attack; one OPA's clock is 20 minutes behind.
    ClockBehind,
    /// An attack, after thousands of policies that don't exist were asked for.
    JunkPaths,
    /// Docket itself is down for a while, and then catches up.
    DocketPause,
    /// Hours before the platform comes to life a few calls are made.
    EarlyCalls,
    /// One stranger tries a policy that was never asked for.
    NewPolicyAttack,
    /// A new policy is asked beside the one in force, and denies everybody.
    DryRun,
    /// Policies that are asked for some seconds, now and then.
    CronPolicies,
    /// A file of decisions with an attack, of which a few say to be of an hour or a year later.
    FarAhead,
    /// Five minutes of a job that is denied a lot, from the third night on.
    NightlyJob,
    /// All OPAs are replaced at once, and nobody decides meanwhile.
    Recreate,
    /// An attack on a service that is asked some times an hour, through one of its OPAs.
    TinyAttack,
    /// Half of a service's decisions come to be denied, by 2 % more each hour: two days.
    LastingLeak,
    /// Each OPA uploads what it decided every five to ten minutes, as it does unless it is told otherwise.
    LateUploads,
    /// Each weekday morning many people log in within minutes, and mistype as ever.
    LoginRush,
    /// An attack in the midst of such a morning, the first that is seen.
    RushAttack,
    /// Some minutes of a job that is denied a lot, each night at another moment of two and a half hours.
    JitteringJob,
    /// The same, and a stranger in the sixth night, in the same hours.
    JitteringAttack,
    /// The same, and in the sixth night it is denied three times as much.
    JobGrows,
    /// One of the OPAs of a small service dies, and what it was asked with it: it takes minutes to tell.
    DeadSidecar,
    /// A service's load falls, and its OPAs are scaled in as it falls, from eight to three.
    ScaleIn,
}

/// What happens on a day, and what should be said of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Any of these is right.
    pub kinds: &'static [Kind],
    pub service: String,
    pub from: Nanos,
    pub to: Nanos,
    pub cause: Option<(Dimension, String)>,
    /// As right as `cause`.
    pub or: Option<(Dimension, String)>,
    /// It may be found or not: the first night of a nightly job is new.
    pub may: bool,
}

/// A decision of the day.
#[derive(Debug, Clone)]
pub struct Made {
    pub at: Nanos,
    service: usize,
    opa: usize,
    pub verdict: Verdict,
    revision: usize,
    subject: String,
    resource: String,
    action: &'static str,
    trace: u128,
    id: u128,
    /// Another policy than the service's.
    junk: Option<String>,
}

impl Scenario {
    /// How many days it takes.
    pub fn days(self) -> i64 {
        match self {
            Scenario::LastingLeak => 2,
            Scenario::DailyRhythm => 3,
            Scenario::WeekendAttack => 4,
            Scenario::Restarts => 5,
            Scenario::NightlyJob
            | Scenario::LoginRush
            | Scenario::JitteringAttack
            | Scenario::JobGrows => 6,
            Scenario::DaylightSaving => 7,
            Scenario::WeeklyRhythm | Scenario::JitteringJob => 8,
            Scenario::Holiday => 9,
            _ => 1,
        }
    }
}

impl Made {
    fn policy(&self) -> &str {
        self.junk.as_deref().unwrap_or(SERVICES[self.service].policy)
    }
}

/// A user who tries a few times, as users do.
struct Burst {
    from: i64,
    seconds: i64,
    left: u32,
    service: usize,
    user: usize,
}

pub struct Day {
    rng: StdRng,
    pub scenario: Scenario,
    start: Nanos,
    /// Decisions a second, on average.
    rate: f64,
    /// Seconds since the start, and how many there are.
    now: i64,
    pub seconds: i64,
    /// When the event is, and in which service.
    from: i64,
    to: i64,
    victim: usize,
    strength: f64,
    /// How likely each user and client is denied, as a factor.
    denied: Vec<f64>,
    bursts: Vec<Burst>,
    /// What docket did not read yet.
    held: Vec<Made>,
    salt: u64,
}

impl Day {
    /// A day that begins at `start`; at `scale` times its usual traffic.
    pub fn new(scenario: Scenario, seed: u64, start: Nanos, scale: f64) -> Day {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003) ^ scenario as u64);
        let rate = match scenario {
            Scenario::LowTraffic => 0.3,
            Scenario::TinyAttack => 0.06,
            Scenario::NightlyJob => 1.0,
            Scenario::JitteringJob | Scenario::JitteringAttack | Scenario::JobGrows => 1.0,
            Scenario::DailyRhythm => 12.0,
            Scenario::WeekendAttack | Scenario::LastingLeak => 6.0,
            Scenario::LoginRush => 3.0,
            Scenario::RushAttack => 8.0,
            Scenario::DaylightSaving | Scenario::Restarts => 4.0,
            Scenario::DeadSidecar => 7.0,
            Scenario::WeeklyRhythm | Scenario::Holiday => 3.0,
            _ => 24.0,
        };
        let mut from = rng.random_range(4 * HOUR..20 * HOUR);
        let minutes = match scenario {
            Scenario::SlowLeak => rng.random_range(150..240),
            Scenario::CreepingLeak => 600,
            Scenario::LastingLeak => 30 * 60,
            Scenario::Launch => 180,
            Scenario::LowTraffic => rng.random_range(30..90),
            Scenario::DeadSidecar => 50,
            _ => rng.random_range(8..40),
        };
        match scenario {
            Scenario::WeekendAttack => from += 3 * DAY,
            Scenario::CreepingLeak | Scenario::LastingLeak => from = from / 2 + HOUR,
            _ => {}
        }
        let strength = rng.random_range(0.0..1.0);
        let factor = |rng: &mut StdRng| (1.2 * normal(rng) - 0.6).exp().min(8.0);
        let denied = (0..USERS + CLIENTS).map(|_| factor(&mut rng)).collect();
        let mut victim = rng.random_range(0..SERVICES.len() - 1);
        let salt = rng.random();
        match scenario {
            // In the hours of the job, and where it is.
            Scenario::JitteringAttack => {
                (from, victim) = (5 * DAY + HOUR + (from - 4 * HOUR) * 5 / 32, JOB);
            }
            Scenario::JobGrows => victim = JOB,
            _ => {}
        }
        let mut day = Day {
            rng,
            scenario,
            start,
            rate: rate * scale,
            now: 0,
            seconds: scenario.days() * DAY,
            from,
            to: from + minutes * 60,
            victim,
            strength,
            denied,
            bursts: Vec::new(),
            held: Vec::new(),
            salt,
        };
        if scenario == Scenario::JobGrows {
            day.from = 5 * DAY + day.night(5);
            day.to = day.from + JOB_SECONDS;
        }
        day
    }

    /// So many days of a scenario's platform on which nothing happens.
    pub fn quiet(scenario: Scenario, seed: u64, start: Nanos, days: i64) -> Day {
        let mut day = Day::new(scenario, seed, start, 1.0);
        let never = 2 * days * DAY;
        (day.seconds, day.from, day.to) = (days * DAY, never, never);
        day
    }

    /// What has to be lived through: what happens, and some hours to learn before. All of several days.
    pub fn stretch(&self) -> (Nanos, Nanos) {
        let at = |second: i64| self.start + second * SECOND;
        if self.seconds > DAY || self.from >= self.seconds {
            return (self.start, at(self.seconds));
        }
        if self.scenario == Scenario::TinyAttack {
            return (self.start, at((self.to + HOUR).min(self.seconds)));
        }
        let after = if self.scenario == Scenario::NewService { 2 * HOUR } else { HOUR / 2 };
        (at((self.from - 5 * HOUR / 2).max(0)), at((self.to + after).min(self.seconds)))
    }

    pub fn is_over(&self) -> bool {
        self.now >= self.seconds
    }

    /// When the event begins; the middle of the day where there is none.
    pub fn event_at(&self) -> Nanos {
        self.start + self.from * SECOND
    }

    /// Goes to a second of the day, without what was before.
    pub fn skip_to(&mut self, at: Nanos) {
        self.now = self.now.max((at - self.start) / SECOND);
    }

    fn stranger(&self, n: u64) -> String {
        format!("ext-{:06x}", (self.salt ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) & 0xff_ffff)
    }

    fn the_client(&self) -> usize {
        (self.salt % CLIENTS as u64) as usize
    }

    fn revision(&self, n: usize) -> String {
        let n = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!("{:012x}", (self.salt ^ n) & 0xffff_ffff_ffff)
    }

    fn opa(&self, service: usize, n: usize) -> String {
        format!("{}-opa-{:04x}-{n}", SERVICES[service].name, self.salt & 0xffff)
    }

    fn active(&self) -> bool {
        (self.from..self.to).contains(&self.now)
    }

    /// A decision as the detector sees it.
    pub fn observe<T>(&self, made: &Made, take: impl FnOnce(&Observation<'_>) -> T) -> T {
        let (revision, opa) = (self.revision(made.revision), self.opa(made.service, made.opa));
        let id = if made.verdict == Verdict::Allow { String::new() } else { uuid(made.id) };
        take(&Observation {
            at: made.at,
            service: SERVICES[made.service].name,
            policy: made.policy(),
            verdict: made.verdict,
            who: [&revision, &opa, &made.subject, &made.resource, made.action, ""],
            trace_id: TraceId::from_bytes(made.trace.to_be_bytes()),
            decision_id: &id,
        })
    }
}

#[cfg(test)]
mod tests;
