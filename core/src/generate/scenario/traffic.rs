//! Makes the decisions of a day, second by second.

use rand::Rng;

use super::platform::{
    ACTIONS, CLIENTS, JOB, RESOURCES, SERVICES, USERS, client, poisson, resource,
};
use super::{Burst, DAY, Day, HOUR, JOB_SECONDS, Made, SECOND, Scenario};
use crate::decision::verdict::Verdict;

/// Junk comes in the first so many seconds, before anything else.
const JUNK: i64 = 15;
/// Until new OPAs are there, in seconds.
const RECREATE: i64 = 70;
/// Policies that are asked now and then: each so many seconds for so many, so often a second.
const CRON: [(i64, i64, f64); 3] = [(1200, 5, 20.0), (2700, 60, 2.0), (4200, 120, 1.0)];

impl Day {
    /// The part of the usual traffic at a second.
    fn rhythm(&self, now: i64) -> f64 {
        let hour = (now % DAY) as f64 / HOUR as f64;
        let deep = match self.scenario {
            Scenario::DailyRhythm | Scenario::Autoscaling => 0.8,
            _ => 0.5,
        };
        let daily = 1.0 - deep * ((hour - 3.0) / 24.0 * std::f64::consts::TAU).cos();
        // The days begin on a Wednesday.
        let level = |day: i64| match (day + 2) % 7 {
            _ if self.scenario == Scenario::Holiday && day == 8 => 0.3,
            5 | 6 => 0.3,
            0 => 1.6,
            _ => 1.0,
        };
        let weekly = match self.scenario {
            Scenario::WeeklyRhythm | Scenario::Holiday | Scenario::WeekendAttack => {
                // From one day's level to the next over three hours.
                let into = ((now % DAY) as f64 / (3 * HOUR) as f64).min(1.0);
                level(now / DAY - 1) * (1.0 - into) + level(now / DAY) * into
            }
            _ => 1.0,
        };
        daily * weekly
    }

    /// How far the morning's rush of logins is, 0 to 1: up within ten minutes, an hour and a half, down within an hour.
    fn rush(&self) -> f64 {
        let (day, second) = (self.now / DAY, self.now % DAY);
        let begins = match self.scenario {
            // The days begin on a Wednesday.
            Scenario::LoginRush if (day + 2) % 7 < 5 => 6 * HOUR + (self.salt % 10_800) as i64,
            Scenario::RushAttack if self.from < self.seconds => self.from - 1200,
            _ => return 0.0,
        };
        let steep = 200.0 + 400.0 * (self.salt >> 20 & 0xff) as f64 / 255.0;
        let (up, down) = ((second - begins) as f64, (begins + 3 * HOUR - second) as f64);
        (up / steep).min(down / HOUR as f64 * 2.0 / 3.0).clamp(0.0, 1.0)
    }

    /// Decisions of a service in this second.
    fn load(&self, service: usize) -> f64 {
        let rate = self.rate * self.rhythm(self.now) * SERVICES[service].weight;
        let asleep = match self.scenario {
            Scenario::OldSamples | Scenario::EarlyCalls => self.is_asleep(),
            Scenario::Recreate => (0..RECREATE).contains(&(self.now - self.from)),
            Scenario::JunkPaths => self.since_first() < JUNK,
            _ => false,
        };
        if asleep {
            return 0.0;
        }
        if service != self.victim {
            return rate;
        }
        let active = self.active();
        match self.scenario {
            Scenario::Launch if active => {
                let ramp =
                    ((self.now - self.from) as f64 / (60.0 + 120.0 * self.strength)).min(1.0);
                rate * (1.0 + (4.0 + 5.0 * self.strength) * ramp)
            }
            Scenario::LoginRush | Scenario::RushAttack => {
                rate * (1.0 + (4.0 + 15.0 * self.strength) * self.rush())
            }
            Scenario::Silence if active => 0.0,
            Scenario::LoadHalves if active => rate * 0.5,
            Scenario::NewService if self.now < self.from => 0.0,
            Scenario::ScaleIn => rate * (1.0 - 0.625 * self.scaled_in()),
            _ => rate,
        }
    }

    /// How far a service's load has fallen that is scaled in, 0 to 1.
    fn scaled_in(&self) -> f64 {
        let long = 1200.0 + 2400.0 * self.strength;
        ((self.now - self.from) as f64 / long).clamp(0.0, 1.0)
    }

    /// Nothing but samples was there yet.
    fn is_asleep(&self) -> bool {
        matches!(self.scenario, Scenario::OldSamples | Scenario::EarlyCalls)
            && self.from < self.seconds
            && self.now < self.from + HOUR / 4
    }

    /// Seconds since the stretch that is lived through began.
    fn since_first(&self) -> i64 {
        self.now - (self.stretch().0 - self.start) / SECOND
    }

    /// The decisions that are written in the next second, in order.
    pub fn second(&mut self, out: &mut Vec<Made>) {
        out.clear();
        for service in 0..SERVICES.len() {
            let rate = self.load(service);
            for _ in 0..poisson(&mut self.rng, rate) {
                let made = self.usual(service);
                out.push(made);
            }
        }
        self.more(out);
        if !self.is_asleep() {
            self.background(out);
        }
        self.mishaps(out);
        out.sort_unstable_by_key(|m| m.at);
        self.now += 1;
    }

    /// What becomes of decisions on their way.
    fn mishaps(&mut self, out: &mut Vec<Made>) {
        let (victim, active) = (self.victim, self.active());
        let its_first = |m: &Made| m.service == victim && m.opa == 0;
        match self.scenario {
            Scenario::DeadOpa | Scenario::DeadSidecar if active => out.retain(|m| !its_first(m)),
            Scenario::Failover if active => {
                for made in out.iter_mut().filter(|m| its_first(m)) {
                    made.opa = 1 + (made.id % (SERVICES[victim].opas as u128 - 1)) as usize;
                }
            }
            Scenario::Recreate if (0..RECREATE).contains(&(self.now - self.from)) => out.clear(),
            Scenario::FarAhead if self.now == self.from - HOUR / 2 => {
                for (made, hours) in out.iter_mut().zip([2, 2, 2, 24, 8760]) {
                    made.at += hours * HOUR * SECOND;
                }
            }
            Scenario::ClockAhead => {
                out.iter_mut().filter(|m| its_first(m)).for_each(|m| m.at += 1800 * SECOND);
            }
            Scenario::ClockBehind => {
                out.iter_mut().filter(|m| its_first(m)).for_each(|m| m.at -= 1200 * SECOND);
            }
            Scenario::LateUploads => {
                self.held.append(out);
                let now = self.now;
                let uploads = |m: &mut Made| {
                    let opa = (m.service * 7 + m.opa) as i64;
                    (now + 53 * opa) % (300 + 37 * opa % 300) == 0
                };
                out.extend(self.held.extract_if(.., uploads));
            }
            Scenario::DocketPause if active => self.held.append(out),
            Scenario::DocketPause if !self.held.is_empty() => {
                let some = self.held.len().min(1500);
                let mut first: Vec<Made> = self.held.drain(..some).collect();
                if self.held.is_empty() {
                    first.append(out);
                } else {
                    self.held.append(out);
                }
                *out = first;
            }
            _ => {}
        }
    }

    fn made(
        &mut self,
        service: usize,
        subject: String,
        resource: String,
        action: &'static str,
        deny: f64,
    ) -> Made {
        let at = self.start + self.now * SECOND + self.rng.random_range(0..SECOND);
        let opa = self.an_opa(service);
        let kind: f64 = self.rng.random();
        let verdict = match kind {
            k if k < deny => Verdict::Deny,
            k if k > 0.998 => Verdict::Undefined,
            _ => Verdict::Allow,
        };
        let revision = self.bundle(service, opa);
        let (trace, id) = (self.rng.random(), self.rng.random());
        let junk = None;
        Made { at, service, opa, verdict, revision, subject, resource, action, trace, id, junk }
    }

    /// One of the OPAs that a service has now: a number, of which the hundreds say which life it is.
    fn an_opa(&mut self, service: usize) -> usize {
        let usual = SERVICES[service].opas;
        match self.scenario {
            Scenario::Autoscaling => {
                let wanted = (usual as f64 * 2.0 * self.rhythm(self.now)).ceil() as usize;
                self.rng.random_range(0..wanted.max(1))
            }
            Scenario::Sidecars => {
                let n = self.rng.random_range(0..usual * 10);
                let life = HOUR + (n as i64 * 397) % HOUR;
                n + 100 * ((self.now + n as i64 * 1223) / life) as usize
            }
            Scenario::Deploys => {
                let n = self.rng.random_range(0..usual);
                n + 100 * ((self.now - 40 * n as i64).max(0) / (2 * HOUR)) as usize
            }
            // One goes each fifth of the way.
            Scenario::ScaleIn if service == self.victim => {
                let gone = (5.0 * self.scaled_in()).ceil() as usize;
                self.rng.random_range(0..8 - gone)
            }
            Scenario::Recreate => {
                self.rng.random_range(0..usual) + if self.now >= self.from { 100 } else { 0 }
            }
            _ => self.rng.random_range(0..usual),
        }
    }

    /// The revision that an OPA has now.
    fn bundle(&self, service: usize, opa: usize) -> usize {
        if self.scenario == Scenario::Deploys {
            // A new bundle every three hours, which reaches one OPA after the other.
            return ((self.now - 8 * (opa % 100) as i64).max(0) / (3 * HOUR)) as usize;
        }
        if service != self.victim {
            return 0;
        }
        let rolled = self.active() && self.now >= self.from + 8 * opa as i64;
        match self.scenario {
            Scenario::BadBundle
            | Scenario::PermissiveBundle
            | Scenario::TenantDenied
            | Scenario::MissingPolicy => usize::from(rolled),
            Scenario::PolicyRollback => usize::from(!rolled),
            Scenario::StaleBundle => usize::from(rolled && opa != 0),
            Scenario::Canary => usize::from(rolled && opa == 0),
            _ => 0,
        }
    }

    /// A decision as every day.
    fn usual(&mut self, service: usize) -> Made {
        let who = if self.rng.random_bool(0.7) {
            (self.rng.random::<f64>().powi(3) * USERS as f64) as usize
        } else {
            USERS + (self.rng.random::<f64>().powi(2) * CLIENTS as f64) as usize
        };
        let what = (self.rng.random::<f64>().powi(2) * RESOURCES as f64) as usize;
        let action = ACTIONS[(self.rng.random::<f64>().powi(2) * 4.0) as usize];
        // Everyone asks for the resource that leaks; nobody else's denials change with it.
        let subject = if who < USERS { format!("user-{who:04}") } else { client(who - USERS) };
        let mut made = self.made(service, subject, resource(service, what), action, 0.0);
        let deny = (SERVICES[service].deny * self.denied[who]).min(0.9);
        let deny = self.denied_now(&made, who, what, deny);
        if made.verdict == Verdict::Allow && self.rng.random_bool(deny.clamp(0.0, 1.0)) {
            made.verdict = Verdict::Deny;
        }
        let undefined = match self.scenario {
            Scenario::MissingData => made.opa == 0,
            Scenario::MissingPolicy => made.revision == 1,
            _ => false,
        };
        if undefined && self.active() && service == self.victim {
            made.verdict = Verdict::Undefined;
        }
        made
    }

    /// How likely somebody is denied, given what happens.
    fn denied_now(&self, made: &Made, who: usize, what: usize, deny: f64) -> f64 {
        let active = self.active();
        if self.scenario == Scenario::IdentityOutage && active {
            return if who < USERS { 0.95 } else { deny };
        }
        if made.service != self.victim {
            return deny;
        }
        let progress = (self.now - self.from) as f64 / (self.to - self.from) as f64;
        match self.scenario {
            Scenario::NewService => 0.35,
            Scenario::BadBundle if made.revision == 1 => 0.55 + 0.4 * self.strength,
            Scenario::PermissiveBundle if made.revision == 1 => 0.0,
            Scenario::TenantDenied if made.revision == 1 && who % 8 == 3 => 1.0,
            Scenario::PolicyRollback if made.revision == 0 && who >= USERS => 1.0,
            Scenario::ExpiredCredential if active && who == USERS + self.the_client() => 1.0,
            Scenario::SlowLeak if active && what == 0 => deny.max(progress),
            Scenario::CreepingLeak | Scenario::LastingLeak if active => {
                deny + 0.02 * (self.now - self.from) as f64 / HOUR as f64
            }
            Scenario::Launch if active => deny * (1.0 + 0.3 * self.strength),
            Scenario::LoginRush | Scenario::RushAttack => {
                deny * (1.0 + 0.2 * (self.salt >> 30 & 0xff) as f64 / 255.0 * self.rush())
            }
            _ => deny,
        }
    }

    /// What comes on top.
    fn more(&mut self, out: &mut Vec<Made>) {
        let into = self.now % DAY - self.night(self.now / DAY);
        let (long, rate, deny) = match self.scenario {
            Scenario::NightlyJob => (JOB_SECONDS, 0.5 + 1.5 * self.strength, 0.8),
            _ if self.jitters() => {
                let grown = self.scenario == Scenario::JobGrows && self.active();
                let times = if grown { 3.0 } else { 1.0 };
                (JOB_SECONDS, times * (0.5 + 1.5 * self.strength), 0.8)
            }
            _ => (900, self.rate / 4.0, 0.4),
        };
        let works = self.has_nights() && self.now / DAY >= self.first_night();
        if works && (0..long).contains(&into) {
            for _ in 0..poisson(&mut self.rng, rate) {
                let made = self.made(JOB, "batch".into(), resource(JOB, 3), "GET", deny);
                out.push(made);
            }
        }
        if self.scenario == Scenario::JunkPaths {
            let many = if self.since_first() < JUNK { 100 } else { 1 };
            for _ in 0..many {
                let mut made = self.made(5, self.stranger(0), "/".into(), "GET", 0.0);
                made.junk = Some(format!("junk/p{:08x}", made.id as u32));
                out.push(made);
            }
        }
        if self.scenario == Scenario::OldSamples && (0..8).contains(&(self.now - self.from)) {
            for service in 0..SERVICES.len() {
                for _ in 0..10 {
                    let mut made = self.usual(service);
                    made.at -= 3 * DAY * SECOND;
                    out.push(made);
                }
            }
        }
        self.more_policies(out);
        if self.active() {
            self.event_more(out);
        }
    }

    /// What is asked of other policies than usual.
    fn more_policies(&mut self, out: &mut Vec<Made>) {
        match self.scenario {
            Scenario::EarlyCalls if self.is_asleep() && (60..63).contains(&self.since_first()) => {
                for service in 0..SERVICES.len() {
                    let made = self.usual(service);
                    out.push(made);
                }
            }
            Scenario::DryRun if self.now >= self.from => {
                let asked = out.iter().filter(|made| made.service == self.victim);
                let asked: Vec<Made> = asked.cloned().collect();
                for mut made in asked {
                    (made.id, made.verdict) = (self.rng.random(), Verdict::Deny);
                    made.junk = Some("next/authz/allow".into());
                    out.push(made);
                }
            }
            Scenario::CronPolicies => {
                for (i, (period, run, rate)) in CRON.into_iter().enumerate() {
                    if self.now % period >= run {
                        continue;
                    }
                    for _ in 0..poisson(&mut self.rng, rate) {
                        let (victim, what) = (self.victim, resource(self.victim, i));
                        let mut made = self.made(victim, client(i), what, "GET", 0.05);
                        made.junk = Some(format!("batch/job{i}/allow"));
                        out.push(made);
                    }
                }
            }
            _ => {}
        }
    }

    /// What comes on top during the event.
    fn event_more(&mut self, out: &mut Vec<Made>) {
        let usual = self.rate * SERVICES[self.victim].weight;
        let strength = self.strength;
        let rate = match self.scenario {
            Scenario::Attack
            | Scenario::WeekendAttack
            | Scenario::ClockAhead
            | Scenario::ClockBehind
            | Scenario::JunkPaths => usual * (0.5 + 2.5 * strength),
            Scenario::LowTraffic => 0.15 + 0.35 * strength,
            Scenario::FarAhead => usual * (0.5 + 2.5 * strength),
            Scenario::NewPolicyAttack => 1.0 + 2.0 * strength,
            Scenario::TinyAttack => 0.5 + 0.5 * strength,
            Scenario::JitteringAttack => 0.5 + strength,
            // Against what everybody asks for in these minutes.
            Scenario::RushAttack => self.load(self.victim) * (0.3 + 0.7 * strength),
            Scenario::Stuffing | Scenario::Spraying => usual * (0.6 + 2.5 * strength),
            Scenario::MisconfiguredClient => (usual * 0.6).max(0.6 + strength),
            // It retries.
            Scenario::ExpiredCredential => (usual * 0.4).max(0.6),
            Scenario::StaleBundle => usual * (0.5 + strength),
            Scenario::Backfill => usual * 3.0,
            _ => return,
        };
        for _ in 0..poisson(&mut self.rng, rate) {
            let made = self.one_more(self.victim);
            out.push(made);
        }
    }

    fn one_more(&mut self, service: usize) -> Made {
        match self.scenario {
            Scenario::LowTraffic => {
                self.made(service, self.stranger(0), resource(service, 2), "GET", 0.98)
            }
            Scenario::TinyAttack => {
                let what = resource(service, 2);
                let mut made = self.made(service, self.stranger(0), what, "GET", 0.98);
                made.opa = 0;
                made
            }
            Scenario::NewPolicyAttack => {
                let mut made = self.made(service, self.stranger(0), "/admin".into(), "GET", 0.98);
                made.junk = Some("admin/authz/allow".into());
                made
            }
            Scenario::Stuffing => {
                let n: u64 = self.rng.random_range(1..5000);
                self.made(service, self.stranger(n), "/login".into(), "POST", 0.985)
            }
            Scenario::Spraying => {
                let who = format!("user-{:04}", self.rng.random_range(0..USERS));
                self.made(service, who, "/login".into(), "POST", 0.985)
            }
            Scenario::MisconfiguredClient => {
                let who = client(self.the_client());
                self.made(service, who, resource(service, RESOURCES + 1), "GET", 1.0)
            }
            Scenario::ExpiredCredential => {
                let who = client(self.the_client());
                let what = self.rng.random_range(0..RESOURCES);
                self.made(service, who, resource(service, what), "POST", 1.0)
            }
            Scenario::StaleBundle => {
                // Many people begin to use what they are allowed now, but for one OPA.
                let who = format!("user-{:04}", self.rng.random_range(0..USERS / 2) * 2);
                let what = resource(service, self.rng.random_range(0..RESOURCES));
                let action = ACTIONS[(self.rng.random::<f64>().powi(2) * 4.0) as usize];
                let mut made = self.made(service, who, what, action, 0.0);
                if made.opa == 0 {
                    made.verdict = Verdict::Deny;
                }
                made
            }
            Scenario::Backfill => {
                let mut made = self.usual(service);
                made.at -= self.rng.random_range(HOUR..2 * HOUR) * SECOND;
                if self.rng.random_bool(0.6) {
                    made.verdict = Verdict::Deny;
                }
                made
            }
            _ => {
                let item: u32 = self.rng.random_range(0..100_000);
                let what = format!("/v1/{}/items/{item}", SERVICES[service].name);
                self.made(service, self.stranger(0), what, "GET", 0.97)
            }
        }
    }

    /// Users who try again: a few denials at once, several times an hour.
    fn background(&mut self, out: &mut Vec<Made>) {
        if self.rng.random_bool((self.rate / 24.0 * 12.0 / HOUR as f64).min(1.0)) {
            let (service, user) =
                (self.rng.random_range(0..SERVICES.len()), self.rng.random_range(0..USERS));
            let (seconds, left) = (self.rng.random_range(3..40), self.rng.random_range(3..10));
            self.bursts.push(Burst { from: self.now, seconds, left, service, user });
        }
        let mut bursts = std::mem::take(&mut self.bursts);
        for burst in &mut bursts {
            let rest = (burst.from + burst.seconds - self.now).max(1);
            if self.rng.random_bool((f64::from(burst.left) / rest as f64).min(1.0))
                && burst.left > 0
            {
                burst.left -= 1;
                let (who, what) = (format!("user-{:04}", burst.user), resource(burst.service, 5));
                let made = self.made(burst.service, who, what, "POST", 1.0);
                out.push(made);
            }
        }
        let silent = match self.scenario {
            Scenario::Silence => self.active(),
            Scenario::NewService => self.now < self.from,
            _ => false,
        };
        if silent {
            out.retain(|made| made.service != self.victim);
        }
        bursts.retain(|b| b.left > 0);
        self.bursts = bursts;
    }
}
