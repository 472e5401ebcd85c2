use std::collections::BTreeSet;

use globset::{Glob, GlobSet, GlobSetBuilder};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::model::{World, run};
use super::*;
use crate::correlate::finding::Pattern;
use crate::correlate::missing::Missing;

fn glob(text: &str) -> GlobSet {
    GlobSetBuilder::new().add(Glob::new(text).unwrap()).build().unwrap()
}

fn pattern(path: &str) -> Pattern {
    let path = Some(Glob::new(path).unwrap().compile_matcher());
    Pattern { service: None, path, method: None }
}

fn watch() -> Watch {
    Watch {
        requests: vec![pattern("/api/**")],
        except: vec![pattern("/api/health")],
        policies: glob("envoy/**"),
        expects_requests: true,
        ..Watch::default()
    }
}

fn http(code: u16) -> Status {
    Status { http: Some(code), grpc: None }
}

fn deny(id: &str) -> Asked {
    Asked { verdict: Verdict::Deny, ..asked(id, AT) }
}

fn request(code: u16) -> Fact<'static> {
    Fact { status: http(code), decision_id: "a".into(), ..access("/api/items", AT, AT + MS) }
}

/// What is said of one request with its decisions, and of what it was undecidable.
fn said(watch: Watch, decisions: Vec<Asked>, facts: &[Fact<'_>]) -> String {
    said_with(watch, decisions, facts, |_| {})
}

fn said_with(
    watch: Watch,
    decisions: Vec<Asked>,
    facts: &[Fact<'_>],
    before: impl FnOnce(&mut Bench),
) -> String {
    let mut bench = Bench::new(Settings::default(), watch);
    before(&mut bench);
    decisions.into_iter().for_each(|asked| _ = bench.decision(asked, AT));
    facts.iter().for_each(|fact| _ = bench.fact(fact, AT));
    let early = bench.tick(AT + 20 * SECOND);
    assert!(early.iter().all(|told| told.contains(':')), "before all can have come: {early:?}");
    let mut told = bench.tick(AT + 600 * SECOND);
    told.retain(|told| !told.contains(':'));
    let counts = bench.join.counts();
    told.extend(counts.undecidable.iter().map(|(why, n)| format!("? {} {n}", why.as_str())));
    told.extend((counts.by_design > 0).then(|| format!("by design {}", counts.by_design)));
    told.join(", ").trim_end().to_owned()
}

#[test]
fn findings_by_what_was_decided_and_what_happened() {
    let none = || access("/api/items", AT, AT + MS);
    let served = |fact: Fact<'static>| Fact { status: http(200), ..fact };
    let cases: Vec<(&str, Vec<Asked>, Vec<Fact<'_>>, &str)> = vec![
        ("denied and refused", vec![deny("a")], vec![request(403)], ""),
        ("denied and served", vec![deny("a")], vec![request(200)], "denied_but_served a"),
        (
            "denied, redirected to the login",
            vec![deny("a")],
            vec![request(302)],
            "denied_but_served a",
        ),
        (
            "denied, and gRPC says so under HTTP 200",
            vec![deny("a")],
            vec![Fact { status: Status { http: Some(200), grpc: Some(7) }, ..request(200) }],
            "",
        ),
        ("allowed and served", vec![asked("a", AT)], vec![request(200)], ""),
        ("allowed, not found", vec![asked("a", AT)], vec![request(404)], ""),
        (
            "allowed, refused by something else",
            vec![asked("a", AT)],
            vec![Fact {
                details: "rbac_access_denied_matched_policy[none]".into(),
                ..request(403)
            }],
            "allowed_but_refused a",
        ),
        ("served, never asked", vec![], vec![served(none())], "served_without_decision"),
        ("refused, never asked", vec![], vec![Fact { status: http(401), ..none() }], ""),
        ("the client went away", vec![], vec![Fact { status: http(0), ..none() }], ""),
        ("not watched", vec![], vec![served(access("/index.html", AT, AT))], ""),
        ("excepted", vec![], vec![served(access("/api/health", AT, AT))], ""),
        (
            "Envoy let it pass",
            vec![],
            vec![Fact { marks: Marks::FAILURE_MODE_ALLOWED, ..served(none()) }],
            "failed_open",
        ),
        (
            "the API server let it pass, watched or not",
            vec![],
            vec![Fact {
                marks: Marks::FAILED_OPEN,
                path: "pods/a/b".into(),
                ..Fact::new(Kind::Audit, AT, AT)
            }],
            "failed_open",
        ),
        ("decided, and its log is lost", vec![], vec![request(200)], "? decision_lost 1"),
        ("a decision without a request", vec![deny("b")], vec![], "decision_without_request b"),
        (
            "a request that took an hour",
            vec![],
            vec![served(access("/api/items", AT - 3600 * SECOND, AT))],
            "? long_request 1",
        ),
        (
            "denied by a policy that is not enforced, allowed by the one that is",
            vec![Asked { policy: "ui/buttons".into(), ..deny("a") }, asked("a", AT)],
            vec![request(200)],
            "",
        ),
        (
            "a dry run says so",
            vec![Asked { dry_run: true, ..deny("a") }],
            vec![request(200)],
            "by design 1",
        ),
        (
            "the proxy says it is a dry run",
            vec![deny("a")],
            vec![Fact { marks: Marks::DRY_RUN, ..request(200) }],
            "by design 1",
        ),
        (
            "a span is no evidence",
            vec![],
            vec![Fact { status: http(200), ..server("/api/items", (1, 2, None), AT, AT) }],
            "",
        ),
    ];
    for (name, decisions, facts, wanted) in cases {
        assert_eq!(said(watch(), decisions, &facts), wanted, "{name}");
    }
}

#[test]
fn a_shared_request_id_decides_nothing() {
    let hop = |code| Fact {
        status: http(code),
        request_id: "r".into(),
        ..access("/api/items", AT, AT + code as Nanos)
    };
    let denied = || vec![Asked { request_id: "r".into(), ..deny("a") }];
    assert_eq!(said(watch(), denied(), &[hop(200)]), "denied_but_served a");
    assert_eq!(said(watch(), denied(), &[hop(200), hop(201)]), "? shared_id 2");
    let allowed = || vec![Asked { request_id: "r".into(), ..asked("a", AT) }];
    assert_eq!(said(watch(), allowed(), &[hop(200)]), "");
    assert_eq!(said(watch(), allowed(), &[hop(200), hop(201)]), "? shared_id 2");
    // The same line twice is one request.
    assert_eq!(said(watch(), denied(), &[hop(200), hop(200)]), "denied_but_served a");
    assert_eq!(said(watch(), vec![], &[hop(200), hop(200)]), "served_without_decision");
    // A likely match is no evidence of either.
    let traced = vec![Asked { trace: Some(trace(1)), parent: Some(span(9)), ..deny("a") }];
    let same_trace = Fact { trace: Some(trace(1)), request_id: "".into(), ..hop(200) };
    assert_eq!(said(watch(), traced, &[same_trace]), "served_without_decision");
}

/// A record on one of the sides says that others are missing.
fn missing(side: Side, from: Nanos, to: Nanos) -> impl FnOnce(&mut Bench) {
    move |bench| {
        let place = bench.place(side);
        bench.join.missing(side, place, Missing { from, to }, AT);
    }
}

#[test]
fn where_something_is_missing_nothing_is_found() {
    let served = || vec![Fact { decision_id: "".into(), ..request(200) }];
    let gap = |side| missing(side, AT - SECOND, AT + SECOND);
    assert_eq!(said_with(watch(), vec![], &served(), gap(Side::Decisions)), "? gap 1");
    assert_eq!(said_with(watch(), vec![], &served(), gap(Side::Facts)), "served_without_decision");
    assert_eq!(said_with(watch(), vec![deny("b")], &[], gap(Side::Facts)), "? gap 1");
    let elsewhere = missing(Side::Decisions, AT + 60 * SECOND, AT + 70 * SECOND);
    assert_eq!(said_with(watch(), vec![], &served(), elsewhere), "served_without_decision");
    // By the request's ID alone: what is missing may have said something else of it, or be another request.
    let by_request = || Fact { decision_id: "".into(), request_id: "r".into(), ..request(200) };
    let denied = || vec![Asked { request_id: "r".into(), ..deny("a") }];
    for side in [Side::Decisions, Side::Facts] {
        assert_eq!(said_with(watch(), denied(), &[by_request()], gap(side)), "? gap 1");
        let certain = said_with(watch(), vec![deny("a")], &[request(200)], gap(side));
        assert_eq!(certain, "denied_but_served a");
    }
    // What can't be read may have been anything of the last two minutes.
    let unreadable = |bench: &mut Bench| {
        let place = bench.place(Side::Decisions);
        bench.join.lost(Side::Decisions, place, AT + 100 * SECOND);
    };
    assert_eq!(said_with(watch(), vec![], &served(), unreadable), "? gap 1");
}

/// A partition that has nothing but what says so: it is committed no further than that as long as it bears on anything.
#[test]
fn what_is_missing_is_known_after_a_restart() {
    let served = Fact { decision_id: "".into(), ..request(200) };
    for side in [Side::Decisions, Side::Facts] {
        let mut bench = Bench::new(Settings::default(), watch());
        missing(side, AT - SECOND, AT + SECOND)(&mut bench);
        bench.tick(AT + 20 * SECOND);
        assert_eq!(bench.join.position(side, 0).offset, 0, "{side:?}");
        let position = bench.join.position(side, 0);
        let mut again = Bench::new(Settings::default(), watch());
        again.join.assign(side, 0, position, AT + 20 * SECOND);
        missing(side, AT - SECOND, AT + SECOND)(&mut again);
        again.fact(&served, AT + 20 * SECOND);
        let told = again.tick(AT + 600 * SECOND);
        let wanted: &[&str] =
            if side == Side::Decisions { &[] } else { &["served_without_decision "] };
        assert_eq!(told, wanted);
        // It is over, and nothing is kept of it.
        assert_eq!(again.join.size(), (0, 0));
        assert_eq!(again.join.position(side, 0).offset, again.next[side as usize]);
    }
}

#[test]
fn how_much_is_not_known_is_a_share_of_what_is_looked_at() {
    let mut bench = Bench::new(Settings::default(), watch());
    missing(Side::Decisions, AT - SECOND, AT)(&mut bench);
    bench.decision(asked("a", AT), AT);
    let at = |path, start: Nanos| Fact { status: http(200), ..access(path, start, start) };
    // Allowed and served; not to be told; found; not watched; excepted; a copy.
    let other = at("/api/items", AT + 60 * SECOND);
    let all = [request(200), at("/api/b", AT), other.clone(), at("/c", AT), at("/api/health", AT)];
    all.iter().for_each(|fact| _ = bench.fact(fact, AT + 60 * SECOND));
    bench.tick(AT + 600 * SECOND);
    let counts = bench.join.counts();
    // The decision is looked at, too: it has its request.
    assert_eq!((counts.judged, counts.undecidable[&Undecidable::Gap]), (4, 1));
}

#[test]
fn policies_in_dry_run_and_too_many_findings() {
    let dry = Watch { dry_run: glob("envoy/**"), ..watch() };
    assert_eq!(said(dry, vec![deny("a")], &[request(200)]), "by design 1");
    let sampled = Watch { sampled: glob("ord*"), ..watch() };
    assert_eq!(said(sampled, vec![deny("a")], &[]), "? sampled 1");
    let few = Watch { per_minute: 3, ..watch() };
    let mut bench = Bench::new(Settings::default(), few);
    for n in 0..10 {
        let fact = Fact { status: http(200), ..access("/api/items", AT + n, AT + n) };
        bench.fact(&fact, AT);
    }
    assert_eq!(bench.tick(AT + 600 * SECOND).len(), 3);
    let counts = bench.join.counts();
    assert_eq!((counts.findings[&FindingKind::ServedWithoutDecision], counts.suppressed), (10, 7));
}

/// Requests behind a proxy, of which some are let through: clocks that differ by two seconds, spans of one in a
/// hundred, one source a minute behind, crashes.
fn planted(seed: u64, delayed: Side) -> (World, BTreeSet<String>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World { decisions: vec![Vec::new(); 2], facts: vec![Vec::new(); 3] };
    let mut planted = BTreeSet::new();
    let skew = [-2, 2][rng.random_range(0..2)] * SECOND;
    let behind = |side| if side == delayed { 60 * SECOND } else { 0 };
    for n in 0..1500u64 {
        let at = AT + 60 * SECOND + n as Nanos * 40 * MS;
        let id = format!("d{n}");
        let denied = rng.random_bool(0.3);
        let mut fact = Fact {
            request_id: format!("r{n}").into(),
            status: http(if denied { 403 } else { 200 }),
            trace: Some(trace(n)),
            ..access("/api/items", at, at + 20 * MS)
        };
        // Half of the proxies know the decision's id, the others only the request's.
        if n % 2 == 0 {
            fact.decision_id = id.clone().into();
        }
        let mut decided = true;
        match rng.random_range(0..60) {
            0 if denied => {
                fact.status = http(200);
                planted.insert(format!("denied_but_served r{n}"));
            }
            1 if !denied => {
                decided = false;
                fact.decision_id = "".into();
                planted.insert(format!("served_without_decision r{n}"));
            }
            2 if !denied => {
                decided = false;
                fact.decision_id = "".into();
                fact.marks = Marks::FAILURE_MODE_ALLOWED;
                planted.insert(format!("failed_open r{n}"));
            }
            _ => {}
        }
        let mut jitter = |most: Nanos| rng.random_range(0..most) * MS;
        if decided {
            let decision = Asked {
                verdict: if denied { Verdict::Deny } else { Verdict::Allow },
                trace: Some(trace(n)),
                parent: Some(span(n)),
                request_id: format!("r{n}").into(),
                ..asked(&id, at + 5 * MS + skew)
            };
            let arrives = at + jitter(1900) + behind(Side::Decisions);
            world.decisions[n as usize % 2].push((arrives, decision));
        }
        world.facts[n as usize % 2]
            .push((fact.end + jitter(1900) + behind(Side::Facts), pack(&fact)));
        if rng.random_bool(0.01) {
            let sampled = server("/api/items", (n, n, None), at, at + 20 * MS);
            world.facts[2].push((at + 300 * MS, pack(&Fact { status: http(200), ..sampled })));
        }
    }
    (world.sorted(), planted)
}

#[test]
fn exactly_what_was_planted_is_found() {
    for seed in 0..12 {
        let delayed = [Side::Decisions, Side::Facts][seed as usize % 2];
        let (world, planted) = planted(seed, delayed);
        assert!(planted.len() > 15, "{}", planted.len());
        let crash = [0.0, 0.01][seed as usize / 2 % 2];
        let seen = run(&world, &Settings::default(), &watch(), seed, crash);
        let found: Vec<String> =
            seen.findings.iter().map(|f| format!("{} {}", f.kind.as_str(), f.request_id)).collect();
        let set: BTreeSet<String> = found.iter().cloned().collect();
        assert_eq!(
            set.symmetric_difference(&planted).count(),
            0,
            "seed {seed}: {:?}",
            set.symmetric_difference(&planted).collect::<Vec<_>>()
        );
        assert_eq!(set.len(), found.len(), "seed {seed}: one was found twice");
        assert_eq!(seen.undecidable, 0, "seed {seed}");
        assert!(crash == 0.0 || seen.crashes > 0);
    }
}

/// Where both sides are brought together by one ID, what lacks it may have its other half elsewhere.
#[test]
fn without_the_key_nothing_is_missed() {
    let settings = Settings { key: Some(Key::RequestId), ..Settings::default() };
    let said = |decision: Option<Asked>, fact: Fact<'static>| {
        let watch = Watch { expects_requests: false, ..watch() };
        let mut bench = Bench::new(settings.clone(), watch);
        decision.into_iter().for_each(|asked| _ = bench.decision(asked, AT));
        bench.fact(&fact, AT);
        let mut told = bench.tick(AT + 600 * SECOND);
        told.retain(|told| !told.contains(':'));
        let undecidable = &bench.join.counts().undecidable;
        told.extend(undecidable.keys().map(|why| why.as_str().to_owned()));
        told
    };
    let served = || Fact { status: http(200), ..access("/api/items", AT, AT + MS) };
    let with_id = || Fact { request_id: "r".into(), ..served() };
    assert_eq!(said(None, with_id()), ["served_without_decision "]);
    assert_eq!(said(None, served()), ["no_key"]);
    // A decision of the time went elsewhere, and may be about it.
    assert_eq!(said(Some(asked("b", AT)), with_id()), ["no_key"]);
    let elsewhere = Asked { policy: "other/allow".into(), ..asked("b", AT) };
    assert_eq!(said(Some(elsewhere), with_id()), ["served_without_decision "]);
}

#[test]
fn what_is_not_complete_is_not_judged() {
    let mut bench = Bench::new(Settings::default(), watch());
    bench.join.complete(Side::Decisions, AT);
    let fact = Fact { status: http(200), ..access("/api/items", AT, AT + MS) };
    bench.fact(&fact, AT);
    assert_eq!(bench.tick(AT + 3600 * SECOND), NOTHING);
    bench.join.complete(Side::Decisions, AT + 40 * SECOND);
    assert_eq!(bench.tick(AT + 3600 * SECOND), ["served_without_decision "]);
    assert_eq!(bench.tick(AT + 3600 * SECOND), NOTHING);
}

#[test]
fn a_path_is_matched_with_its_slash_or_without() {
    for glob in ["/api/**", "api/**"] {
        let watch = Watch { requests: vec![pattern(glob)], ..Watch::default() };
        assert!(watch.watches(&access("/api/items", AT, AT)), "{glob}");
        assert!(!watch.watches(&access("/web/items", AT, AT)), "{glob}");
    }
}

/// A request that was allowed, and the decision about it.
fn fine(n: u64, at: Nanos) -> (Asked, Fact<'static>) {
    let id = format!("r-{n}");
    let decision =
        Asked { request_id: id.clone().into(), time: at, ..asked(&format!("d-{n}"), at) };
    let fact = access("/api/items", at, at + MS);
    (decision, Fact { status: http(200), request_id: id.into(), ..fact })
}

fn keyed() -> Settings {
    Settings { key: Some(Key::RequestId), ..Settings::default() }
}

fn only_findings(told: Vec<String>) -> Vec<String> {
    told.into_iter().filter(|told| !told.contains(':')).collect()
}

/// One side is known to be complete long before the other: nothing is forgotten that the other still needs.
#[test]
fn evidence_of_one_side_that_comes_late_makes_no_finding() {
    for late in [Side::Decisions, Side::Facts] {
        let mut bench = Bench::new(keyed(), watch());
        bench.join.complete(late, Nanos::MIN);
        for n in 0..600 {
            let at = AT + n as Nanos * SECOND;
            let (decision, fact) = fine(n, at);
            bench.decision(decision, at);
            bench.fact(&fact, at);
            assert_eq!(only_findings(bench.tick(at)), NOTHING);
        }
        bench.join.complete(late, Nanos::MAX);
        assert_eq!(only_findings(bench.tick(AT + 3600 * SECOND)), NOTHING, "{late:?}");
        assert!(bench.join.counts().undecidable.is_empty());
        assert_eq!(bench.join.size(), (0, 0));
    }
}

/// An agent that is late, within what it may be, behind one that isn't: its requests are judged after the other's.
#[test]
fn a_request_that_waits_behind_a_newer_one_keeps_its_decision() {
    let mut bench = Bench::new(keyed(), watch());
    let (decision, slow) = fine(0, AT);
    let unasked = Fact { request_id: "r-x".into(), ..slow.clone() };
    bench.decision(decision, AT);
    let now = AT + 115 * SECOND;
    let (decision, fast) = fine(1, now);
    bench.decision(decision, now);
    bench.fact(&fast, now);
    bench.fact(&slow, now);
    bench.fact(&unasked, now);
    for n in 0..600 {
        let found = only_findings(bench.tick(now + n * SECOND));
        assert!(found.is_empty() || found == ["served_without_decision "], "{found:?}");
    }
    let counts = bench.join.counts();
    assert_eq!((counts.findings.len(), counts.undecidable.len()), (1, 0));
}

/// An agent that lost its place sends its file again.
#[test]
fn lines_that_come_again_much_later_find_nothing() {
    let mut bench = Bench::new(keyed(), watch());
    let (decision, fact) = fine(0, AT);
    let open =
        Fact { marks: Marks::FAILURE_MODE_ALLOWED, request_id: "r-x".into(), ..fact.clone() };
    bench.decision(decision, AT);
    bench.fact(&fact, AT);
    bench.fact(&open, AT);
    assert_eq!(only_findings(bench.tick(AT + 600 * SECOND)), ["failed_open "]);
    let later = AT + 3600 * SECOND;
    bench.fact(&fact, later);
    bench.fact(&open, later);
    assert_eq!(bench.tick(later + 600 * SECOND), NOTHING);
    assert_eq!(bench.join.counts().undecidable[&Undecidable::Late], 2);
}

/// What was evicted is not known any more, nor is it after a restart.
#[test]
fn what_was_evicted_before_a_restart_makes_no_finding() {
    let mut bench = Bench::new(Settings { bytes: 4_000, ..keyed() }, watch());
    for n in 0..40 {
        bench.decision(fine(n, AT + n as Nanos).0, AT + SECOND);
    }
    bench.tick(AT + 6 * SECOND);
    let positions = [Side::Decisions, Side::Facts].map(|side| bench.join.position(side, 0));
    assert!(positions[0].offset > 10);
    let mut again = Bench::new(keyed(), watch());
    again.next = [positions[0].offset as u64, 0].map(|n| n as i64);
    for (side, position) in [Side::Decisions, Side::Facts].into_iter().zip(positions) {
        let read = Position::parse(position.offset, &position.metadata()).unwrap();
        assert_eq!(read, position);
        again.join.assign(side, 0, read, AT + 10 * SECOND);
    }
    for n in again.next[0] as u64..40 {
        again.decision(fine(n, AT + n as Nanos).0, AT + 10 * SECOND);
    }
    for n in 0..40 {
        again.fact(&fine(n, AT + n as Nanos).1, AT + 10 * SECOND);
    }
    assert_eq!(only_findings(again.tick(AT + 600 * SECOND)), NOTHING);
    assert!(again.join.counts().undecidable[&Undecidable::Late] > 10);
}

#[test]
fn decisions_that_contradict_each_other_decide_nothing() {
    // The client asked again with the same ID, and the log of the first request is lost.
    let again = |n: u64, verdict| {
        let (decision, _) = fine(0, AT + n as Nanos * SECOND);
        Asked { id: format!("d-{n}").into(), verdict, ..decision }
    };
    let both = vec![again(0, Verdict::Deny), again(1, Verdict::Allow)];
    let (_, fact) = fine(0, AT + SECOND);
    let watch = Watch { expects_requests: false, ..watch() };
    assert_eq!(said(watch, both, &[fact]), "? shared_id 1");
}

/// The other request of the same ID comes later than the decisions.
#[test]
fn a_shared_request_id_is_waited_for() {
    let mut bench = Bench::new(keyed(), watch());
    let (decision, fact) = fine(0, AT);
    bench.decision(Asked { verdict: Verdict::Deny, ..decision }, AT);
    bench.fact(&fact, AT);
    bench.join.complete(Side::Facts, AT);
    assert_eq!(only_findings(bench.tick(AT + 600 * SECOND)), NOTHING);
    let hop = Fact { status: http(403), path: "/api/stock".into(), ..fact };
    bench.fact(&hop, AT + 600 * SECOND);
    bench.join.complete(Side::Facts, Nanos::MAX);
    assert_eq!(only_findings(bench.tick(AT + 1200 * SECOND)), NOTHING);
    assert_eq!(bench.join.counts().undecidable[&Undecidable::SharedId], 1);
}

/// A clock that is wrong by an hour: of a decision, of a request, ahead or behind.
#[test]
fn wrong_clocks_find_nothing_and_hold_nothing_up() {
    for (decided, happened) in [(3600, 0), (-3600, 0), (0, 3600), (0, -3600)] {
        let watch = Watch { expects_requests: false, ..watch() };
        let mut bench = Bench::new(keyed(), watch);
        let (decision, _) = fine(0, AT + decided * SECOND);
        let (_, fact) = fine(0, AT + happened * SECOND);
        bench.decision(decision, AT);
        bench.fact(&fact, AT + SECOND);
        let (_, unasked) = fine(1, AT);
        bench.fact(&unasked, AT + SECOND);
        let mut found = Vec::new();
        for n in 0..600 {
            found.extend(only_findings(bench.tick(AT + n * SECOND)));
        }
        let name = format!("{decided} {happened}");
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        let undecidable: u64 = bench.join.counts().undecidable.values().sum();
        assert_eq!(undecidable, 1, "{name}");
        assert_eq!(bench.join.size(), (0, 0), "{name}");
    }
}

/// Facts keep 255 bytes of an ID.
#[test]
fn a_long_request_id_meets_its_request() {
    let long = "é".repeat(200);
    let (decision, fact) = fine(0, AT);
    let decision = Asked { request_id: long.clone().into(), ..decision };
    let fact = Fact { request_id: long.into(), ..fact };
    assert_eq!(said(watch(), vec![decision], &[fact]), "");
}
