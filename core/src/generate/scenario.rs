//! Days whose events are known: made-up traffic of a platform, with an attack, a bad bundle, a launch or another
//! thing in it, and what a detector should say of it. One seed, one day.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::decision::ids::TraceId;
use crate::decision::time::{self, Nanos};
use crate::decision::verdict::Verdict;
use crate::spike::{Dimension, Kind, Observation};

const SECOND: Nanos = 1_000_000_000;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Nothing happens.
    Calm,
    /// One stranger tries everything it can reach.
    Attack,
    /// Many strangers try passwords at one endpoint.
    Stuffing,
    /// A client asks for the wrong thing, again and again.
    MisconfiguredClient,
    /// A new bundle denies most of a policy's requests, and is rolled back.
    BadBundle,
    /// A new bundle no longer denies anything.
    PermissiveBundle,
    /// A busy client's credential expires; it is denied, and retries.
    ExpiredCredential,
    /// More and more requests for one resource are denied, over hours.
    SlowLeak,
    /// Two days with a strong rhythm, and a nightly job that is denied a lot.
    DailyRhythm,
    /// Eight days: quiet weekends, busy Mondays.
    WeeklyRhythm,
    /// A service gets many times its usual traffic.
    Launch,
    /// One of a service's OPAs dies, and what it was asked with it.
    DeadOpa,
    /// One of a service's OPAs dies; the others take its requests.
    Failover,
    /// A service stops sending requests.
    Silence,
    /// One OPA answers undefined: its data did not load.
    MissingData,
    /// A platform with a decision every few seconds; a client that is denied.
    LowTraffic,
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
    /// It may be found or not: the first night of a nightly job is new.
    pub may: bool,
}

struct Service {
    name: &'static str,
    policy: &'static str,
    /// Part of the traffic.
    weight: f64,
    opas: usize,
    deny: f64,
}

const SERVICES: [Service; 6] = [
    Service { name: "storefront", policy: "envoy/authz/allow", weight: 0.34, opas: 4, deny: 0.05 },
    Service { name: "orders", policy: "http/authz/decision", weight: 0.24, opas: 3, deny: 0.08 },
    Service { name: "search", policy: "app/rbac/allow", weight: 0.18, opas: 3, deny: 0.03 },
    Service { name: "ledger", policy: "http/authz/decision", weight: 0.12, opas: 2, deny: 0.12 },
    Service { name: "profile", policy: "app/rbac/allow", weight: 0.08, opas: 2, deny: 0.06 },
    Service {
        name: "admission",
        policy: "kubernetes/admission/deny",
        weight: 0.04,
        opas: 2,
        deny: 0.10,
    },
];
const ACTIONS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];
const USERS: usize = 400;
const CLIENTS: usize = 12;
const RESOURCES: usize = 24;

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
    scenario: Scenario,
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
    salt: u64,
}

impl Day {
    /// A day that begins at `start`; at `scale` times its usual traffic.
    pub fn new(scenario: Scenario, seed: u64, start: Nanos, scale: f64) -> Day {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003) ^ scenario as u64);
        let (rate, days) = match scenario {
            Scenario::LowTraffic => (0.3, 1),
            Scenario::DailyRhythm => (24.0, 3),
            Scenario::WeeklyRhythm => (6.0, 8),
            _ => (24.0, 1),
        };
        let from = rng.random_range(4 * HOUR..20 * HOUR);
        let minutes = match scenario {
            Scenario::SlowLeak => rng.random_range(150..240),
            Scenario::Launch => 180,
            Scenario::LowTraffic => rng.random_range(30..90),
            _ => rng.random_range(8..40),
        };
        let strength = rng.random_range(0.0..1.0);
        let factor = |rng: &mut StdRng| (1.2 * normal(rng) - 0.6).exp().min(8.0);
        let denied = (0..USERS + CLIENTS).map(|_| factor(&mut rng)).collect();
        let victim = rng.random_range(0..SERVICES.len() - 1);
        let salt = rng.random();
        Day {
            rng,
            scenario,
            start,
            rate: rate * scale,
            now: 0,
            seconds: days * DAY,
            from,
            to: from + minutes * 60,
            victim,
            strength,
            denied,
            bursts: Vec::new(),
            salt,
        }
    }

    /// What happens.
    pub fn events(&self) -> Vec<Event> {
        let service = SERVICES[self.victim].name.to_owned();
        let at = |seconds: i64| self.start + seconds * SECOND;
        let event = |kinds: &'static [Kind], cause: Option<(Dimension, String)>| {
            vec![Event {
                kinds,
                service: service.clone(),
                from: at(self.from),
                to: at(self.to),
                cause,
                may: false,
            }]
        };
        const SPIKE: &[Kind] = &[Kind::DenialSpike];
        match self.scenario {
            Scenario::Calm | Scenario::WeeklyRhythm | Scenario::Launch | Scenario::Failover => {
                Vec::new()
            }
            Scenario::Attack | Scenario::LowTraffic => {
                event(SPIKE, Some((Dimension::Subject, self.stranger(0))))
            }
            Scenario::Stuffing => event(SPIKE, Some((Dimension::Resource, "/login".into()))),
            Scenario::MisconfiguredClient | Scenario::ExpiredCredential => {
                event(SPIKE, Some((Dimension::Subject, client(self.the_client()))))
            }
            Scenario::BadBundle => event(
                &[Kind::DenialSpike, Kind::RevisionShift],
                Some((Dimension::Revision, self.revision(1))),
            ),
            Scenario::PermissiveBundle => event(
                &[Kind::DenialsVanished, Kind::RevisionShift],
                Some((Dimension::Revision, self.revision(1))),
            ),
            Scenario::SlowLeak => {
                event(SPIKE, Some((Dimension::Resource, resource(self.victim, 0))))
            }
            Scenario::DeadOpa => {
                event(&[Kind::InstanceQuiet], Some((Dimension::Instance, self.opa(self.victim, 0))))
            }
            Scenario::Silence => event(&[Kind::PolicyQuiet], None),
            Scenario::MissingData => {
                event(&[Kind::FailureSpike], Some((Dimension::Instance, self.opa(self.victim, 0))))
            }
            Scenario::DailyRhythm => {
                let night = |day: i64| Event {
                    kinds: SPIKE,
                    service: "ledger".into(),
                    from: at(day * DAY + 2 * HOUR),
                    to: at(day * DAY + 2 * HOUR + 900),
                    cause: None,
                    may: true,
                };
                // The second night was not yet seen twice.
                vec![night(0), night(1)]
            }
        }
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

    fn revision(&self, n: u64) -> String {
        format!("{:012x}", (self.salt ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) & 0xffff_ffff_ffff)
    }

    fn opa(&self, service: usize, n: usize) -> String {
        format!("{}-opa-{:04x}-{n}", SERVICES[service].name, self.salt & 0xffff)
    }

    /// The part of the usual traffic at a second.
    fn rhythm(&self, now: i64) -> f64 {
        let hour = (now % DAY) as f64 / HOUR as f64;
        let deep = if self.scenario == Scenario::DailyRhythm { 0.8 } else { 0.5 };
        let daily = 1.0 - deep * ((hour - 3.0) / 24.0 * std::f64::consts::TAU).cos();
        // The days begin on a Wednesday.
        let level = |day: i64| match (day + 2) % 7 {
            5 | 6 => 0.3,
            0 => 1.6,
            _ => 1.0,
        };
        let weekly = if self.scenario == Scenario::WeeklyRhythm {
            // From one day's level to the next over three hours.
            let into = ((now % DAY) as f64 / (3 * HOUR) as f64).min(1.0);
            level(now / DAY - 1) * (1.0 - into) + level(now / DAY) * into
        } else {
            1.0
        };
        daily * weekly
    }

    fn active(&self) -> bool {
        (self.from..self.to).contains(&self.now)
    }

    /// The decisions of the next second, in order.
    pub fn second(&mut self, out: &mut Vec<Made>) {
        out.clear();
        for (service, of) in SERVICES.iter().enumerate() {
            let mut rate = self.rate * self.rhythm(self.now) * of.weight;
            if service == self.victim && self.now >= self.from {
                if self.scenario == Scenario::Launch && self.active() {
                    let ramp =
                        ((self.now - self.from) as f64 / (60.0 + 120.0 * self.strength)).min(1.0);
                    rate *= 1.0 + (4.0 + 5.0 * self.strength) * ramp;
                }
                if self.scenario == Scenario::Silence && self.active() {
                    rate = 0.0;
                }
            }
            for _ in 0..poisson(&mut self.rng, rate) {
                let made = self.usual(service);
                out.push(made);
            }
        }
        self.more(out);
        self.background(out);
        if self.scenario == Scenario::DeadOpa && self.active() {
            out.retain(|m| m.service != self.victim || m.opa != 0);
        }
        if self.scenario == Scenario::Failover && self.active() {
            for made in out.iter_mut().filter(|m| m.service == self.victim && m.opa == 0) {
                made.opa = 1 + (made.id % (SERVICES[made.service].opas as u128 - 1)) as usize;
            }
        }
        out.sort_unstable_by_key(|m| m.at);
        self.now += 1;
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
        let opa = self.rng.random_range(0..SERVICES[service].opas);
        let kind: f64 = self.rng.random();
        let verdict = match kind {
            k if k < deny => Verdict::Deny,
            k if k > 0.998 => Verdict::Undefined,
            _ => Verdict::Allow,
        };
        Made {
            at,
            service,
            opa,
            verdict,
            revision: 0,
            subject,
            resource,
            action,
            trace: self.rng.random(),
            id: self.rng.random(),
        }
    }

    /// A decision as every day.
    fn usual(&mut self, service: usize) -> Made {
        let of = &SERVICES[service];
        let who = if self.rng.random_bool(0.7) {
            (self.rng.random::<f64>().powi(3) * USERS as f64) as usize
        } else {
            USERS + (self.rng.random::<f64>().powi(2) * CLIENTS as f64) as usize
        };
        let what = (self.rng.random::<f64>().powi(2) * RESOURCES as f64) as usize;
        let action = ACTIONS[(self.rng.random::<f64>().powi(2) * 4.0) as usize];
        let mut deny = (of.deny * self.denied[who]).min(0.9);
        let victim = service == self.victim;
        let mut revision = 0;
        let mut verdict = None;
        let opa = self.rng.random_range(0..of.opas);
        if victim && self.now >= self.from {
            let progress = (self.now - self.from) as f64 / (self.to - self.from) as f64;
            // A bundle reaches one OPA after the other.
            let rolled = self.now >= self.from + 8 * opa as i64;
            match self.scenario {
                Scenario::BadBundle if rolled && self.active() => {
                    (deny, revision) = (0.55 + 0.4 * self.strength, 1);
                }
                Scenario::PermissiveBundle if rolled && self.active() => {
                    (deny, revision) = (0.0, 1);
                }
                Scenario::BadBundle | Scenario::PermissiveBundle if !self.active() => revision = 2,
                Scenario::ExpiredCredential
                    if self.active() && who == USERS + self.the_client() =>
                {
                    deny = 1.0;
                }
                Scenario::SlowLeak if self.active() && what == 0 => deny = deny.max(progress),
                Scenario::Launch if self.active() => deny *= 1.0 + 0.3 * self.strength,
                Scenario::MissingData if self.active() && opa == 0 => {
                    verdict = Some(Verdict::Undefined);
                }
                _ => {}
            }
        }
        // Everyone asks for the resource that leaks; nobody else's denials change with it.
        let subject = if who < USERS { format!("user-{who:04}") } else { client(who - USERS) };
        let mut made = self.made(service, subject, resource(service, what), action, deny);
        (made.opa, made.revision) = (opa, revision);
        made.verdict = verdict.unwrap_or(made.verdict);
        made
    }

    /// What comes on top during the event.
    fn more(&mut self, out: &mut Vec<Made>) {
        let usual = self.rate * SERVICES[self.victim].weight;
        let night = self.scenario == Scenario::DailyRhythm
            && (2 * HOUR..2 * HOUR + 900).contains(&(self.now % DAY));
        if night {
            for _ in 0..poisson(&mut self.rng, self.rate / 4.0) {
                let made = self.made(3, "batch".into(), resource(3, 3), "GET", 0.4);
                out.push(made);
            }
        }
        if !self.active() {
            return;
        }
        let (rate, what): (f64, fn(&mut Day) -> Made) = match self.scenario {
            Scenario::Attack => (usual * (0.5 + 2.5 * self.strength), |day| {
                let item: u32 = day.rng.random_range(0..100_000);
                let (service, who) = (day.victim, day.stranger(0));
                day.made(
                    service,
                    who,
                    format!("/v1/{}/items/{item}", SERVICES[service].name),
                    "GET",
                    0.97,
                )
            }),
            Scenario::LowTraffic => (0.15 + 0.35 * self.strength, |day| {
                let (service, who) = (day.victim, day.stranger(0));
                day.made(service, who, resource(service, 2), "GET", 0.98)
            }),
            Scenario::Stuffing => (usual * (0.6 + 2.5 * self.strength), |day| {
                let n: u64 = day.rng.random_range(1..5000);
                let (service, who) = (day.victim, day.stranger(n));
                day.made(service, who, "/login".into(), "POST", 0.985)
            }),
            Scenario::MisconfiguredClient => ((usual * 0.6).max(0.6 + self.strength), |day| {
                let (service, who) = (day.victim, client(day.the_client()));
                day.made(service, who, resource(service, RESOURCES + 1), "GET", 1.0)
            }),
            // It retries.
            Scenario::ExpiredCredential => ((usual * 0.4).max(0.6), |day| {
                let (service, who) = (day.victim, client(day.the_client()));
                let what = day.rng.random_range(0..RESOURCES);
                day.made(service, who, resource(service, what), "POST", 1.0)
            }),
            _ => return,
        };
        for _ in 0..poisson(&mut self.rng, rate) {
            let made = what(self);
            out.push(made);
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
                let made = self.made(
                    burst.service,
                    format!("user-{:04}", burst.user),
                    resource(burst.service, 5),
                    "POST",
                    1.0,
                );
                out.push(made);
            }
        }
        if self.scenario == Scenario::Silence && self.active() {
            out.retain(|made| made.service != self.victim);
        }
        bursts.retain(|b| b.left > 0);
        self.bursts = bursts;
    }

    /// A decision as the detector sees it.
    pub fn observe<T>(&self, made: &Made, take: impl FnOnce(&Observation<'_>) -> T) -> T {
        let (revision, opa) =
            (self.revision(made.revision as u64 % 2), self.opa(made.service, made.opa));
        let id = if made.verdict == Verdict::Allow { String::new() } else { uuid(made.id) };
        take(&Observation {
            at: made.at,
            service: SERVICES[made.service].name,
            policy: SERVICES[made.service].policy,
            verdict: made.verdict,
            who: [&revision, &opa, &made.subject, &made.resource, made.action],
            trace_id: TraceId::from_bytes(made.trace.to_be_bytes()),
            decision_id: &id,
        })
    }

    /// A decision as OPA writes it.
    pub fn json(&self, made: &Made) -> Value {
        let of = &SERVICES[made.service];
        let deny = made.verdict == Verdict::Deny;
        let path: Vec<&str> = made.resource.trim_start_matches('/').split('/').collect();
        let input = match of.policy {
            "envoy/authz/allow" => json!({ "attributes": {
                "request": { "http": { "method": made.action, "path": made.resource, "headers": {} } },
                "source": { "principal": made.subject },
            } }),
            "kubernetes/admission/deny" => {
                json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
                "operation": made.action, "resource": { "group": "", "version": "v1", "resource": made.resource },
                "userInfo": { "username": made.subject },
            } })
            }
            _ => json!({ "user": made.subject, "method": made.action, "path": path }),
        };
        let mut decision = json!({
            "labels": { "app": of.name, "id": self.opa(made.service, made.opa), "version": "1.22.2" },
            "decision_id": uuid(made.id),
            "trace_id": format!("{:032x}", made.trace), "span_id": format!("{:016x}", (made.trace as u64) | 1),
            "bundles": { "authz": { "revision": self.revision(made.revision as u64 % 2) } },
            "path": of.policy,
            "input": input,
            "requested_by": "10.1.2.3:41000",
            "timestamp": time::format(made.at),
            "metrics": { "timer_rego_query_eval_ns": 60_000 + (made.id as u64 % 90_000), "timer_server_handler_ns": 110_000 + (made.id as u64 % 190_000) },
        });
        if matches!(made.verdict, Verdict::Allow | Verdict::Deny) {
            decision["result"] = match of.policy {
                "http/authz/decision" => {
                    json!({ "allow": !deny, "reason": if deny { "no rule matched" } else { "owner" } })
                }
                "kubernetes/admission/deny" if deny => json!(["not allowed here"]),
                "kubernetes/admission/deny" => json!([]),
                _ => (!deny).into(),
            };
        }
        decision
    }
}

fn client(n: usize) -> String {
    format!("svc-{:02}", n)
}

fn resource(service: usize, n: usize) -> String {
    format!("/v1/{}/r{n:02}", SERVICES[service].name)
}

fn uuid(bytes: u128) -> String {
    uuid::Builder::from_random_bytes(bytes.to_be_bytes()).into_uuid().to_string()
}

/// A standard normal variate (Box and Muller).
fn normal(rng: &mut StdRng) -> f64 {
    let (a, b): (f64, f64) = (rng.random_range(1e-12..1.0), rng.random());
    (-2.0 * a.ln()).sqrt() * (b * std::f64::consts::TAU).cos()
}

/// How many there are of something whose mean is `mean` (Knuth; for large means the normal approximation).
fn poisson(rng: &mut StdRng, mean: f64) -> u32 {
    if mean > 40.0 {
        return (mean + mean.sqrt() * normal(rng)).round().max(0.0) as u32;
    }
    let (limit, mut product, mut count) = ((-mean).exp(), 1.0, 0);
    loop {
        product *= rng.random::<f64>();
        if product <= limit {
            return count;
        }
        count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::event::Event as Decision;
    use crate::decision::record::Record;
    use crate::decision::record::{self, Rules};

    /// What is generated as JSON is read back as what the detector is measured on.
    #[test]
    fn the_json_of_a_decision_is_the_decision() {
        for scenario in [Scenario::Attack, Scenario::BadBundle] {
            let mut day = Day::new(scenario, 3, 1_795_000_000 * SECOND, 1.0);
            day.skip_to(day.event_at() + 30 * SECOND);
            let mut second = Vec::new();
            day.second(&mut second);
            assert!(second.len() > 3);
            for made in &second {
                let json = day.json(made).to_string();
                let mut out = Vec::new();
                record::write(
                    &Decision::parse(json.as_bytes()).unwrap(),
                    &[],
                    None,
                    &Rules::default(),
                    &mut out,
                );
                let record = Record::parse(&out).unwrap();
                let read = Observation::with(&record, |o| format!("{o:?}")).unwrap();
                let id = uuid(made.id);
                let made =
                    day.observe(made, |o| format!("{:?}", Observation { decision_id: &id, ..*o }));
                assert_eq!(read, made);
            }
        }
    }
}
