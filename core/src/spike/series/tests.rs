use super::*;
use crate::decision::ids::TraceId;
use crate::decision::time::Nanos;
use crate::decision::verdict::Verdict;
use crate::spike::Detector;

const START: Nanos = 1_767_744_000 * SECOND;

/// Who asks for what: so many decisions in ten seconds, of which so many in a hundred are denied.
#[derive(Clone, Copy)]
struct Flow {
    service: &'static str,
    policy: &'static str,
    opa: &'static str,
    /// One of so many, by this name.
    who: (&'static str, u64),
    tenant: &'static str,
    revision: &'static str,
    rate: u64,
    denied: u64,
}

const SHOP: Flow = Flow {
    service: "shop",
    policy: "app/allow",
    opa: "o1",
    who: ("user", 300),
    tenant: "",
    revision: "r1",
    rate: 30,
    denied: 5,
};

struct Life {
    detector: Detector,
    now: Nanos,
    dice: u64,
}

impl Life {
    fn new() -> Life {
        Life { detector: Detector::new(Config::default()), now: START, dice: 1 }
    }

    /// A file, which may begin in the midst of something.
    fn of_a_file() -> Life {
        let mut life = Life::new();
        life.detector.doubt_first();
        life
    }

    fn dice(&mut self, of: u64) -> u64 {
        self.dice = self
            .dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % of
    }

    /// What begins, and what ends.
    fn live(&mut self, seconds: i64, flows: &[Flow]) -> (Vec<Finding>, Vec<Finding>) {
        let (mut begun, mut ended) = (Vec::new(), Vec::new());
        for _ in 0..seconds {
            for flow in flows {
                for _ in 0..100 {
                    if self.dice(1000) < flow.rate {
                        self.one(flow);
                    }
                }
            }
            self.now += SECOND;
            for change in self.detector.advance(self.now, self.now) {
                match change {
                    Change::Begins(finding) => begun.push(finding),
                    Change::Ends(finding) => ended.push(finding),
                }
            }
        }
        (begun, ended)
    }

    fn one(&mut self, flow: &Flow) {
        let verdict = if self.dice(100) < flow.denied { Verdict::Deny } else { Verdict::Allow };
        let who = match flow.who {
            ("", _) => String::new(),
            (name, of) => format!("{name}-{}", self.dice(of)),
        };
        let at = self.now + self.dice(1000) as Nanos * (SECOND / 1000);
        self.detector.observe(
            &Observation {
                at,
                service: flow.service,
                policy: flow.policy,
                verdict,
                who: [flow.revision, flow.opa, &who, "/x", "GET", flow.tenant],
                trace_id: TraceId::INVALID,
                decision_id: "d",
            },
            self.now + SECOND,
        );
    }
}

fn nothing((begun, ended): (Vec<Finding>, Vec<Finding>)) {
    let all = [begun, ended].concat();
    assert!(all.is_empty(), "{all:#?}");
}

#[test]
fn a_few_early_decisions_are_no_past_to_compare_with() {
    for revision in ["r1", "r0"] {
        for (early, wait, denied) in [(1, 700, 5), (1, 3 * 86_400, 0), (3, 7200, 30), (20, 5000, 5)]
        {
            let mut life = Life::new();
            let flow = Flow { revision, denied: 100, ..SHOP };
            (0..early).for_each(|_| life.one(&flow));
            nothing(life.live(wait, &[]));
            nothing(life.live(2000, &[Flow { denied, rate: 50, ..SHOP }]));
        }
    }
}

#[test]
fn a_revision_is_new_beside_real_traffic_of_another_and_only_once() {
    let mut life = Life::new();
    nothing(life.live(1500, &[SHOP]));
    let new = Flow { revision: "r2", denied: 20, ..SHOP };
    let (begun, _) = life.live(300, &[new]);
    let kinds: Vec<Kind> = begun.iter().map(|f| f.kind).collect();
    assert!(
        kinds.contains(&Kind::RevisionShift) || kinds.contains(&Kind::DenialSpike),
        "{kinds:?}"
    );
    assert!(begun.iter().all(|f| f.causes[0].value == "r2" && f.onset >= START + 1500 * SECOND));
    // It goes on, and is rolled back: neither is new.
    let (begun, _) = life.live(600, &[new]);
    assert!(begun.iter().all(|f| f.kind != Kind::RevisionShift), "{begun:#?}");
    let (begun, _) = life.live(1200, &[SHOP]);
    assert!(begun.is_empty(), "{begun:#?}");
}

const ADMIN: Flow =
    Flow { policy: "admin/allow", who: ("mallory", 1), rate: 10, denied: 100, ..SHOP };

#[test]
fn a_flood_of_denials_of_a_policy_that_is_new_is_found_and_its_end_is_no_silence() {
    for seconds in [60, 2400] {
        let mut life = Life::new();
        nothing(life.live(1200, &[SHOP]));
        let from = life.now;
        let (begun, ended) = life.live(seconds, &[SHOP, ADMIN]);
        let [found] = &begun[..] else { panic!("{begun:#?}") };
        assert!(ended.is_empty());
        assert_eq!((found.kind, &*found.policy), (Kind::DenialSpike, "admin/allow"));
        assert_eq!(
            (found.causes[0].dimension, &*found.causes[0].value),
            (Dimension::Subject, "mallory-0")
        );
        assert!((found.detected - from) / SECOND < 45, "{found:#?}");
        assert!((0..5 * SECOND).contains(&(found.onset - from)), "{found:#?}");
        let (begun, ended) = life.live(4000, &[SHOP]);
        assert!(begun.is_empty(), "{begun:#?}");
        assert_eq!(ended.len(), 1);
        assert!((ended[0].ended.unwrap() - from) / SECOND - seconds < 120);
    }
}

#[test]
fn what_is_rolled_out_or_nothing_is_known_of_is_no_flood() {
    // A new policy that denies everybody, as long as nobody has adjusted it.
    let rollout = Flow { who: SHOP.who, ..ADMIN };
    // A tenant, and a service, of which nothing is known.
    let tenant = Flow { service: "tenant", opa: "o9", ..ADMIN };
    // Everything is asked for by one gateway.
    let gateway = Flow { who: ("gateway", 1), ..SHOP };
    let behind = Flow { policy: "admin/allow", denied: 100, rate: 10, ..gateway };
    for (usual, new) in [(SHOP, rollout), (SHOP, tenant), (gateway, behind)] {
        let mut life = Life::new();
        nothing(life.live(1200, &[usual]));
        nothing(life.live(400, &[usual, new]));
        nothing(life.live(1000, &[usual]));
    }
}

#[test]
fn more_than_all_of_the_service_decides_is_a_flood_whoever_it_is() {
    let mut life = Life::new();
    nothing(life.live(1200, &[SHOP]));
    let many = Flow { who: ("", 0), rate: 150, ..ADMIN };
    let (begun, _) = life.live(30, &[SHOP, many]);
    assert_eq!(begun.iter().map(|f| f.kind).collect::<Vec<_>>(), [Kind::DenialSpike]);
    // An OPA that is known, though not with this service.
    let mut life = Life::new();
    nothing(life.live(1200, &[SHOP]));
    let (begun, _) = life.live(60, &[SHOP, Flow { service: "other", ..ADMIN }]);
    assert_eq!(begun.iter().map(|f| &*f.service).collect::<Vec<_>>(), ["other"]);
}

#[test]
fn an_attack_that_is_most_of_the_traffic_is_not_missed_when_it_ends() {
    let tiny = Flow { service: "tiny", rate: 1, denied: 0, opa: "t1", ..SHOP };
    // One in some two minutes.
    let mut life = Life::new();
    for _ in 0..60 {
        life.live(40, &[SHOP]);
        life.one(&tiny);
        life.live(60, &[SHOP]);
    }
    let attack = Flow { who: ("eve", 1), denied: 100, rate: 20, ..tiny };
    let (begun, _) = life.live(1200, &[SHOP, attack]);
    let [found] = &begun[..] else { panic!("{begun:#?}") };
    assert_eq!((&*found.service, &*found.causes[0].value), ("tiny", "eve-0"));
    for _ in 0..30 {
        let (begun, _) = life.live(100, &[SHOP]);
        assert!(begun.is_empty(), "{begun:#?}");
        life.one(&tiny);
    }
}

#[test]
fn opas_that_are_all_replaced_are_no_silence_and_one_that_stays_away_is() {
    let pay = Flow { service: "pay", opa: "p1", ..SHOP };
    let of = |flow: Flow, opas: [&'static str; 3]| opas.map(|opa| Flow { opa, rate: 20, ..flow });
    let all = |shop, pays| [of(SHOP, shop), of(pay, pays)].concat();
    let mut life = Life::new();
    nothing(life.live(1800, &all(["a", "b", "c"], ["d", "e", "f"])));
    nothing(life.live(70, &[]));
    nothing(life.live(900, &all(["g", "h", "i"], ["j", "k", "l"])));
    nothing(life.live(900, &all(["g", "h", "i"], ["j", "k", "l"])));
    nothing(life.live(70, &[]));
    // One of the service's three does not come back, and nobody takes its place.
    let (begun, _) = life.live(200, &all(["m", "n", "o"], ["j", "k", "l"])[1..]);
    assert!(
        begun.iter().all(|f| f.kind == Kind::InstanceQuiet && f.service == "shop"),
        "{begun:#?}"
    );
    assert!(begun.len() <= 1);
}

#[test]
fn the_onset_is_when_it_began() {
    for (seed, rate, denied) in [(1, 10, 100), (2, 3, 100), (3, 4, 100), (4, 60, 30)] {
        let mut life = Life::new();
        life.dice = seed;
        nothing(life.live(3000, &[SHOP]));
        let from = life.now;
        let attack = Flow { who: ("mallory", 1), rate, denied, ..SHOP };
        let (begun, _) = life.live(1200, &[SHOP, attack]);
        let onset = (begun[0].onset - from) as f64 / SECOND as f64;
        let slack = 100.0 / rate as f64;
        assert!((0.0..slack).contains(&onset), "{rate}: {onset} s, {:#?}", begun[0]);
    }
}

#[test]
fn more_traffic_is_no_spike_where_most_is_denied() {
    for (seed, denied) in [(1, 90), (2, 95), (3, 95), (4, 99)] {
        let mut life = Life::new();
        life.dice = seed;
        let flow = Flow { rate: 20, denied, ..SHOP };
        nothing(life.live(3000, &[flow]));
        nothing(life.live(3000, &[Flow { rate: 40, ..flow }]));
    }
}

#[test]
fn an_attack_in_the_midst_of_another_finding_is_one_of_its_own() {
    for (seed, rate) in [(1, 100), (2, 200)] {
        let mut life = Life::new();
        life.dice = seed;
        nothing(life.live(3000, &[SHOP]));
        let client = Flow { who: ("client", 1), rate: 8, denied: 100, ..SHOP };
        let (begun, _) = life.live(2000, &[SHOP, client]);
        let [first] = &begun[..] else { panic!("{begun:#?}") };
        assert_eq!(first.causes[0].value, "client-0");
        let attack = Flow { who: ("mallory", 1), rate, denied: 100, ..SHOP };
        let from = life.now;
        let (begun, ended) = life.live(600, &[SHOP, client, attack]);
        let [second] = &begun[..] else { panic!("{begun:#?}") };
        assert_eq!((&*second.causes[0].value, &*ended[0].id), ("mallory-0", &*first.id));
        assert!((second.onset - from) / SECOND < 20 && second.detected - from < 90 * SECOND);
        let (begun, ended) = life.live(2000, &[SHOP]);
        assert!(begun.is_empty() && ended.len() == 1, "{begun:#?}");
    }
}

#[test]
fn what_comes_again_and_again_is_told_a_few_times_and_somebody_else_in_between_at_once() {
    let mut life = Life::new();
    nothing(life.live(3000, &[SHOP]));
    let client = Flow { who: ("client", 1), rate: 80, denied: 100, ..SHOP };
    let mut told = 0;
    for _ in 0..24 {
        told += life.live(40, &[SHOP, client]).0.len();
        told += life.live(1200, &[SHOP]).0.len();
    }
    assert!((1..=5).contains(&told), "{told}");
    let (begun, _) = life.live(120, &[SHOP, Flow { who: ("mallory", 1), ..client }]);
    let [other] = &begun[..] else { panic!("{begun:#?}") };
    assert_eq!(other.causes[0].value, "mallory-0");
}

#[test]
fn what_was_over_long_ago_is_not_said_when_the_hour_changes() {
    let mut life = Life::new();
    let job = Flow { who: ("batch", 1), rate: 10, denied: 80, ..SHOP };
    // Each night it begins at another minute, and lasts for eight.
    for (night, minute) in [2, 5, 9, 33].into_iter().enumerate() {
        let midnight = START + night as i64 * 86_400 * SECOND;
        let (begun, _) = life.live((midnight - life.now) / SECOND + 3600 + minute * 60, &[SHOP]);
        assert!(begun.is_empty(), "{begun:#?}");
        let (begun, _) = life.live(480, &[SHOP, job]);
        assert!(night < 2 || begun.len() <= 1, "{begun:#?}");
        let (begun, _) = life.live(3 * 3600, &[SHOP]);
        assert!(begun.is_empty(), "{begun:#?}");
    }
}

#[test]
fn a_job_that_comes_at_another_hour_each_night_is_known_after_three_and_nothing_else_is() {
    const CALM: Flow = Flow { rate: 3, ..SHOP };
    const JOB: Flow = Flow { who: ("batch", 1), rate: 10, denied: 90, ..SHOP };
    const OTHER: Flow = Flow { who: ("mallory", 1), ..JOB };
    let mut life = Life::new();
    // What begins from midnight to midnight, if these come so many minutes after it.
    let mut night = |minutes: i64, seconds: i64, flows: &[Flow]| {
        let mut begun = life.live(minutes * 60, &[CALM]).0;
        begun.extend(life.live(seconds, &[&[CALM], flows].concat()).0);
        begun.extend(life.live(86_400 - minutes * 60 - seconds, &[CALM]).0);
        let who = |f: &Finding| f.causes.first().map(|c| c.value.clone()).unwrap_or_default();
        begun.iter().map(who).collect::<Vec<_>>()
    };
    for minutes in [60, 190, 125] {
        assert_eq!(night(minutes, 300, &[JOB]), ["batch-0"], "{minutes}");
    }
    for minutes in [90, 170] {
        assert!(night(minutes, 300, &[JOB]).is_empty(), "{minutes}");
    }
    assert_eq!(night(100, 300, &[OTHER]), ["mallory-0"]);
    assert_eq!(night(150, 300, &[JOB, OTHER]).len(), 1, "somebody else beside it");
    assert_eq!(night(110, 300, &[Flow { rate: 40, ..JOB }]), ["batch-0"], "it grew");
    assert_eq!(night(140, 1800, &[JOB]), ["batch-0"], "it does not end");
    assert!(night(80, 300, &[JOB]).is_empty());
}

/// Of a service that denies some of everything, one tenant has so much.
const OTHERS: Flow = Flow { rate: 94, denied: 20, tenant: "others", ..SHOP };
const ACME: Flow = Flow { rate: 6, tenant: "acme", ..OTHERS };

#[test]
fn a_tenant_that_a_new_revision_shuts_out_is_found_though_the_whole_hardly_moves() {
    // The same people ask for all tenants; or a tenant has its own, and nobody says which one that is.
    let own = Flow { who: ("acme", 40), ..ACME };
    let untold = (Flow { tenant: "", ..OTHERS }, Flow { tenant: "", ..own });
    for (others, acme) in [(OTHERS, ACME), (OTHERS, own), untold] {
        for seed in 1..4 {
            let mut life = Life::new();
            life.dice = seed;
            nothing(life.live(3000, &[others, acme]));
            let from = life.now;
            let (others, acme) =
                (Flow { revision: "r2", ..others }, Flow { revision: "r2", denied: 100, ..acme });
            let (begun, _) = life.live(600, &[others, acme]);
            let [found] = &begun[..] else { panic!("{begun:#?}") };
            assert_eq!((found.kind, &*found.causes[0].value), (Kind::RevisionShift, "r2"));
            assert!((found.detected - from) / SECOND < 400, "{found:#?}");
            let tenant = found.causes.iter().any(|c| c.value == "acme" && c.share > 0.5);
            assert_eq!(tenant, !acme.tenant.is_empty(), "{found:#?}");
            let sentence = found.sentence();
            assert!(sentence.contains(" denied nearly everything now, "), "{sentence}");
        }
    }
}

#[test]
fn a_revision_that_changes_nothing_shuts_nobody_out() {
    for seed in 1..6 {
        let mut life = Life::new();
        life.dice = seed;
        // Some are denied always, and some are new.
        let barred = Flow { who: ("barred", 20), rate: 3, denied: 100, ..ACME };
        let few = Flow { who: ("few", 3), rate: 1, denied: 90, ..ACME };
        nothing(life.live(3000, &[OTHERS, ACME, barred]));
        let new = [OTHERS, ACME, barred, few].map(|flow| Flow { revision: "r2", ..flow });
        nothing(life.live(100, &new));
        // Somebody tries again and again.
        let again = Flow { who: ("user", 1), rate: 2, denied: 100, ..new[0] };
        nothing(life.live(40, &[&new[..], &[again]].concat()));
        nothing(life.live(600, &new));
    }
}

#[test]
fn an_attack_with_which_a_file_begins_is_told_and_not_missed() {
    let attack = Flow { who: ("mallory", 1), rate: 30, denied: 100, ..SHOP };
    for (seed, seconds) in [(1, 500), (2, 900), (3, 1800), (4, 4000)] {
        let mut life = Life::of_a_file();
        life.dice = seed;
        let (mut begun, mut ended) = life.live(seconds, &[SHOP, attack]);
        let after = life.live(3 * 3600, &[SHOP]);
        begun.extend(after.0);
        ended.extend(after.1);
        let [found] = &begun[..] else { panic!("{seconds}: {begun:#?}") };
        assert_eq!((found.kind, &*found.causes[0].value), (Kind::DenialSpike, "mallory-0"));
        let end = (ended[0].ended.unwrap() - START) / SECOND;
        assert!(ended.len() == 1 && end < seconds.max(600) + 1000, "{seconds}: {end}");
        // The norm is what it was without: a second one is told, too.
        let (begun, _) = life.live(60, &[SHOP, Flow { who: ("eve", 1), rate: 15, ..attack }]);
        assert_eq!(begun.len(), 1, "{begun:#?}");
    }
}

#[test]
fn who_is_denied_all_the_time_from_the_first_decision_on_wakes_nobody() {
    let scanner = Flow { who: ("scanner", 1), rate: 30, denied: 100, ..SHOP };
    for (seed, seconds) in [(1, 500), (2, 1800), (3, 4000), (4, 20_000)] {
        let mut life = Life::new();
        life.dice = seed;
        nothing(life.live(seconds, &[SHOP, scanner]));
        nothing(life.live(3 * 3600, &[SHOP]));
    }
}

#[test]
fn the_end_of_what_docket_saw_first_is_no_silent_failure() {
    // Many at once, for half an hour; one who is too slow to be told of, for hours.
    let many = Flow { who: ("bot", 500), rate: 60, denied: 100, ..SHOP };
    let slow = Flow { who: ("slow", 1), rate: 1, denied: 35, ..SHOP };
    for (attack, seconds) in [(many, 1800), (slow, 3 * 3600)] {
        let mut life = Life::new();
        let quiet = Flow { denied: 0, ..SHOP };
        nothing(life.live(seconds, &[quiet, attack]));
        nothing(life.live(2 * 3600, &[quiet]));
    }
    // But who goes on to ask, and is denied nothing any more, is.
    let mut life = Life::new();
    let usual = Flow { who: ("batch", 1), rate: 30, denied: 30, ..SHOP };
    nothing(life.live(2 * 3600, &[usual]));
    let (begun, _) = life.live(900, &[Flow { denied: 0, ..usual }]);
    assert_eq!(begun.iter().map(|f| f.kind).collect::<Vec<_>>(), [Kind::DenialsVanished]);
}

#[test]
fn a_leak_that_creeps_is_found_within_hours_though_it_is_learned_on_its_way() {
    let mut life = Life::new();
    nothing(life.live(9000, &[Flow { denied: 12, ..SHOP }]));
    // One of a hundred more each half hour, for five hours.
    let more = |half: u64| Flow { denied: 12 + half, ..SHOP };
    let mut found = (1..=10).map(|half| (half, life.live(1800, &[more(half)]).0));
    let (half, begun) = found.find(|(_, begun)| !begun.is_empty()).expect("a leak");
    assert_eq!(begun[0].kind, Kind::DenialSpike);
    assert!(half >= 4, "{begun:#?}");
}
