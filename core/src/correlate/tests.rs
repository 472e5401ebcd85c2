mod findings;
mod model;

use super::*;
use crate::decision::ids::{SpanId, TraceId};
use crate::decision::verdict::Verdict;
use crate::facts::{Fact, Kind, Marks, Packed, Status};

/// 2026-11-24T12:48:50Z
const AT: Nanos = 1_795_524_530_000_000_000;
const MS: Nanos = 1_000_000;

fn trace(n: u64) -> TraceId {
    TraceId::from_bytes(u128::from(n + 1).to_be_bytes())
}

fn span(n: u64) -> SpanId {
    SpanId::from_bytes((n + 1).to_be_bytes())
}

fn asked(id: &str, time: Nanos) -> Asked {
    Asked {
        id: id.into(),
        time,
        verdict: Verdict::Allow,
        trace: None,
        parent: None,
        engines_own: false,
        request_id: "".into(),
        object: "".into(),
        service: "orders".into(),
        policy: "envoy/authz/allow".into(),
        dry_run: false,
        contents: Box::default(),
    }
}

fn pack(fact: &Fact<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    fact.pack(&mut bytes);
    bytes
}

/// What was told, in words.
#[derive(Default)]
struct Told(Vec<String>);

impl Told {
    fn take(&mut self, out: &Out<'_, ()>) {
        let matched = |m: &Matched<'_>| {
            let fact = m.fact.fact().unwrap();
            format!("{} by {}", fact.path, m.class.as_str())
        };
        self.0.push(match out {
            Out::Decision { asked, matched: m, evicted, .. } => {
                let m = m.as_ref().map_or("nothing".to_owned(), matched);
                format!("{}: {m}{}", asked.id, if *evicted { ", evicted" } else { "" })
            }
            Out::Amendment { asked, matched: m, .. } => {
                format!("{} amended: {}", asked.id, matched(m))
            }
            Out::Finding(finding) => format!("{} {}", finding.kind.as_str(), finding.decision_id),
        });
    }

    fn all(&mut self) -> Vec<String> {
        std::mem::take(&mut self.0)
    }
}

struct Bench {
    join: Join<()>,
    told: Told,
    next: [i64; 2],
}

impl Bench {
    fn new(settings: Settings, watch: Watch) -> Bench {
        let mut join = Join::new(settings, watch);
        join.assign(Side::Decisions, 0, Position::default(), AT);
        join.assign(Side::Facts, 0, Position::default(), AT);
        Bench { join, told: Told::default(), next: [0, 0] }
    }

    fn place(&mut self, side: Side) -> Place {
        let offset = self.next[side as usize];
        self.next[side as usize] += 1;
        Place { partition: 0, offset }
    }

    fn decision(&mut self, asked: Asked, now: Nanos) -> Vec<String> {
        let place = self.place(Side::Decisions);
        self.join.decision(place, asked, (), now, &mut |out| self.told.take(&out));
        self.told.all()
    }

    fn fact(&mut self, fact: &Fact<'_>, now: Nanos) -> Vec<String> {
        let place = self.place(Side::Facts);
        assert!(self.join.fact(place, &pack(fact), now, &mut |out| self.told.take(&out)));
        self.told.all()
    }

    fn tick(&mut self, now: Nanos) -> Vec<String> {
        self.join.tick(now, &mut |out| self.told.take(&out));
        self.told.all()
    }
}

fn access(path: &'static str, start: Nanos, end: Nanos) -> Fact<'static> {
    Fact { path: path.into(), ..Fact::new(Kind::Access, start, end) }
}

fn server(
    path: &'static str,
    ids: (u64, u64, Option<u64>),
    start: Nanos,
    end: Nanos,
) -> Fact<'static> {
    let (t, s, parent) = ids;
    Fact {
        marks: Marks::default().with(Marks::SERVER),
        trace: Some(trace(t)),
        span: Some(span(s)),
        parent: parent.map(span),
        path: path.into(),
        ..Fact::new(Kind::Span, start, end)
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn an_exact_match_goes_on_at_once_whichever_side_comes_first() {
    let mut bench = Bench::new(Settings::default(), Watch::default());
    assert_eq!(bench.decision(asked("a", AT), AT), NOTHING);
    let fact = Fact { decision_id: "a".into(), ..access("/a", AT, AT + MS) };
    assert_eq!(bench.fact(&fact, AT), ["a: /a by decision_id"]);
    let fact = Fact { request_id: "r".into(), ..access("/b", AT, AT + MS) };
    assert_eq!(bench.fact(&fact, AT), NOTHING);
    let decision = Asked { request_id: "r".into(), ..asked("b", AT) };
    assert_eq!(bench.decision(decision, AT), ["b: /b by request_id"]);
    // A copy of a fact says nothing new.
    assert_eq!(bench.fact(&fact, AT), NOTHING);
    assert_eq!(bench.tick(AT + 3600 * SECOND), NOTHING);
}

#[test]
fn one_without_a_match_goes_on_after_the_wait_and_is_amended() {
    let mut bench = Bench::new(Settings::default(), Watch::default());
    bench.decision(asked("a", AT), AT);
    assert_eq!(bench.tick(AT + 5 * SECOND - 1), NOTHING);
    assert_eq!(bench.tick(AT + 5 * SECOND), ["a: nothing"]);
    let fact = Fact { decision_id: "a".into(), ..access("/a", AT, AT + MS) };
    assert_eq!(bench.fact(&fact, AT + 20 * SECOND), ["a amended: /a by decision_id"]);
    assert_eq!(bench.join.counts().matched[&None], 1);
    assert_eq!(bench.join.counts().amended[&Class::DecisionId], 1);
}

/// In a backlog nobody waits: the facts say themselves that nothing more comes.
#[test]
fn facts_beyond_the_wait_let_it_go_on() {
    let now = AT + 3600 * SECOND;
    let mut bench = Bench::new(Settings::default(), Watch::default());
    bench.decision(asked("a", AT), now);
    bench.fact(&access("/", AT + 7 * SECOND - 1, AT + 7 * SECOND - 1), now);
    assert_eq!(bench.tick(now), NOTHING);
    bench.fact(&access("/", AT + 7 * SECOND, AT + 7 * SECOND), now);
    assert_eq!(bench.tick(now), ["a: nothing"]);
}

#[test]
fn what_is_likely_waits_for_what_is_exact_and_is_the_narrowest() {
    let decision = || Asked { trace: Some(trace(1)), parent: Some(span(7)), ..asked("a", AT) };
    let mut bench = Bench::new(Settings::default(), Watch::default());
    bench.decision(decision(), AT);
    assert_eq!(bench.fact(&server("/wide", (1, 2, None), AT - SECOND, AT + SECOND), AT), NOTHING);
    bench.fact(&server("/narrow", (1, 3, Some(2)), AT - MS, AT + MS), AT);
    bench.fact(&server("/elsewhere", (1, 4, Some(2)), AT - 9 * SECOND, AT - 8 * SECOND), AT);
    bench.fact(&server("/stranger", (9, 3, None), AT, AT), AT);
    assert_eq!(bench.tick(AT + 5 * SECOND), ["a: /narrow by likely"]);
    let exact = server("/exact", (1, 7, Some(3)), AT - MS, AT + MS);
    assert_eq!(bench.fact(&exact, AT + 6 * SECOND), ["a amended: /exact by trace_and_parent"]);
    let better = Fact { decision_id: "a".into(), ..access("/log", AT - MS, AT + MS) };
    assert_eq!(bench.fact(&better, AT + 7 * SECOND), ["a amended: /log by decision_id"]);
}

/// An OPA that traces itself: its own span is not the request, nor is the client's span that called it.
#[test]
fn the_engines_own_span_leads_to_the_request() {
    let mut bench = Bench::new(Settings::default(), Watch::default());
    let decision =
        Asked { trace: Some(trace(1)), parent: Some(span(3)), engines_own: true, ..asked("a", AT) };
    bench.decision(decision, AT);
    assert_eq!(bench.fact(&server("/v1/data", (1, 3, Some(2)), AT - MS, AT), AT), NOTHING);
    let client =
        Fact { marks: Marks::default(), ..server("ext_authz", (1, 2, Some(1)), AT - 2 * MS, AT) };
    assert_eq!(bench.fact(&client, AT), NOTHING);
    assert_eq!(
        bench.fact(&server("/items", (1, 1, None), AT - 3 * MS, AT + MS), AT),
        ["a: /items by trace_and_parent"]
    );
}

/// As a mesh has it whose own trace comes first: what Envoy asks OPA with lies around the decision more narrowly than its request.
#[test]
fn what_the_engine_was_asked_with_is_no_request() {
    let mut bench = Bench::new(Settings::default(), Watch::default());
    bench.decision(Asked { trace: Some(trace(1)), parent: Some(span(9)), ..asked("a", AT) }, AT);
    let asking = |n, above, decision: &'static str| {
        let span = server("ext_authz", (1, n, Some(above)), AT - MS, AT + MS);
        Fact { marks: span.marks.with(Marks::ASKING), decision_id: decision.into(), ..span }
    };
    for span in [asking(3, 2, "a"), asking(2, 1, "")] {
        assert_eq!(bench.fact(&span, AT), NOTHING);
    }
    // Nor is any other span that is no request.
    let inner = server("/inner", (1, 4, Some(1)), AT - 2 * MS, AT + 2 * MS);
    bench.fact(&Fact { marks: Marks::default(), ..inner }, AT);
    bench.fact(&server("/items", (1, 1, Some(9)), AT - 9 * MS, AT + 9 * MS), AT);
    assert_eq!(bench.tick(AT + 5 * SECOND), ["a: /items by likely"]);
}

/// A trace of several requests: one whose ID is another is not the decision's, however well it fits.
#[test]
fn a_request_with_another_id_is_not_even_likely() {
    for (id, told) in
        [("r-2", "a: nothing"), ("r-1", "a: /items by request_id"), ("", "a: /items by likely")]
    {
        let mut bench = Bench::new(Settings::default(), Watch::default());
        let other = Fact {
            request_id: id.into(),
            trace: Some(trace(1)),
            ..access("/items", AT - MS, AT + MS)
        };
        let mut seen = bench.fact(&other, AT);
        let decision = Asked { trace: Some(trace(1)), request_id: "r-1".into(), ..asked("a", AT) };
        seen.extend(bench.decision(decision, AT));
        seen.extend(bench.tick(AT + 5 * SECOND));
        assert_eq!(seen, [told]);
    }
}

#[test]
fn an_audit_event_is_met_by_the_uid_or_likely_by_who_did_what() {
    let audit = |path: &'static str| Fact {
        user: "bob".into(),
        method: "patch".into(),
        request_id: "audit-1".into(),
        path: path.into(),
        ..Fact::new(Kind::Audit, AT, AT + 20 * MS)
    };
    let mut bench = Bench::new(Settings::default(), Watch::default());
    let decision = Asked {
        request_id: "uid-1".into(),
        object: "bob update pods/shop/web-4".into(),
        ..asked("a", AT + MS)
    };
    bench.decision(decision, AT);
    assert_eq!(bench.fact(&audit("pods/shop/web-4"), AT), NOTHING);
    assert_eq!(bench.tick(AT + 5 * SECOND), ["a: pods/shop/web-4 by likely"]);
    let exact = Fact { uid: "uid-1".into(), ..audit("pods/shop/web-5") };
    assert_eq!(bench.fact(&exact, AT + 6 * SECOND), ["a amended: pods/shop/web-5 by request_id"]);
}

#[test]
fn what_has_no_room_is_given_out_counted_and_marked() {
    let settings = Settings { bytes: 2_000, ..Settings::default() };
    let mut bench = Bench::new(settings, Watch::default());
    let mut told = Vec::new();
    for n in 0..100 {
        told.extend(bench.decision(asked(&format!("d{n}"), AT + n), AT));
        assert!(bench.join.size().0 <= 2_000);
    }
    assert_eq!(told[0], "d0: nothing, evicted");
    assert_eq!(told.len() as u64, bench.join.counts().evicted[&Side::Decisions]);
    assert_eq!(bench.join.position(Side::Decisions, 0).offset, told.len() as i64);
    told.extend(bench.tick(AT + 5 * SECOND));
    let mut ids: Vec<_> = told.iter().map(|t| t.split(':').next().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), told.len()), (100, 100));
}

#[test]
fn a_clock_far_ahead_closes_no_window_and_late_ones_are_counted() {
    let mut bench = Bench::new(Settings::default(), Watch::default());
    let ahead = AT + 24 * 3600 * SECOND;
    bench.fact(&access("/ahead", ahead, ahead), AT);
    bench.decision(asked("a", AT), AT);
    assert_eq!(bench.tick(AT), NOTHING);
    let fact = Fact { decision_id: "a".into(), ..access("/a", AT, AT) };
    assert_eq!(bench.fact(&fact, AT), ["a: /a by decision_id"]);
    assert!(bench.join.counts().late.is_empty());
    bench.fact(&access("/late", AT - 3 * SECOND, AT - 3 * SECOND), AT);
    assert_eq!(bench.join.counts().late[&Side::Facts], 1);
}

#[test]
fn windows_close_and_commits_move_on() {
    let mut bench = Bench::new(Settings::default(), Watch::default());
    for n in 0..600 {
        let at = AT + n * SECOND;
        let id = format!("d{n}");
        bench.decision(asked(&id, at), at);
        let fact = Fact { decision_id: id.into(), ..access("/", at, at) };
        bench.fact(&fact, at);
        bench.tick(at);
    }
    // Three windows of 30 s and three times what clocks may differ, at one a second on either side.
    assert!(bench.join.size().1 <= 2 * 97, "{:?}", bench.join.size());
    for side in [Side::Decisions, Side::Facts] {
        assert!(bench.join.position(side, 0).offset >= 500);
    }
    // Nothing comes any more: the wall clock closes what is left.
    bench.tick(AT + 600 * SECOND + 220 * SECOND);
    assert_eq!(bench.join.size(), (0, 0));
}

#[test]
fn what_is_no_fact_is_passed() {
    let mut bench = Bench::new(Settings::default(), Watch::default());
    assert!(!bench.join.fact(Place { partition: 0, offset: 7 }, b"x", AT, &mut |_| {}));
    assert_eq!(bench.join.position(Side::Facts, 0).offset, 8);
    bench.join.passed(Side::Decisions, Place { partition: 0, offset: 3 });
    assert_eq!(bench.join.position(Side::Decisions, 0).offset, 4);
}
