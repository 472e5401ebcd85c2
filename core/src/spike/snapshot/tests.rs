use super::*;
use crate::decision::verdict::Verdict;
use crate::spike::config::Config;
use crate::spike::follow::Follower;
use crate::spike::{Change, Observation, SECOND};

const START: Nanos = 1_767_744_000 * SECOND;
const DAY: i64 = 86_400;

/// Eight days of a calm service, with a job every night at two that is denied a lot, and of one that stops for a while
/// each noon. One decision in two seconds, which some second.
fn decisions(second: i64, mut take: impl FnMut(&Observation<'_>)) {
    let time = second % DAY;
    let at = START + second * SECOND;
    let dice = (second as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let mut see = |service, policy, verdict, subject: &str| {
        let trace_id = crate::decision::ids::TraceId::INVALID;
        let who = ["r1", "opa-1", subject, "/x", "GET"];
        take(&Observation { at, service, policy, verdict, who, trace_id, decision_id: "" });
    };
    let verdict = if dice.is_multiple_of(50) { Verdict::Deny } else { Verdict::Allow };
    see("shop", "app/allow", verdict, ["a", "b", "c"][dice as usize % 3]);
    if (7200..8100).contains(&time) {
        see("shop", "app/allow", Verdict::Deny, "job");
    }
    if second % 3 == 0 && !(DAY / 2..DAY / 2 + 120).contains(&time) {
        see("desk", "app/allow", Verdict::Allow, "d");
    }
}

/// What is found, one line each; `restart`: what is kept of the old one for the new one each evening.
fn live(days: i64, restart: impl Fn(Follower, Nanos) -> (Follower, i64)) -> Vec<String> {
    let mut follower = new();
    follower.ended(0);
    follower.advance(START - SECOND);
    let (mut lines, mut second) = (Vec::new(), 0);
    while second < days * DAY {
        let now = START + second * SECOND;
        if second % DAY == 20 * 3600 && second > 0 {
            let (new, from) = restart(follower, now);
            follower = new;
            // It reads what it is told to, and is live again.
            let from = (from - START) / SECOND;
            for again in from..second {
                let written = START + again * SECOND;
                decisions(again, |seen| follower.observe(0, seen, written));
            }
            follower.ended(0);
            assert_eq!(follower.advance(now - SECOND / 2), []);
        }
        decisions(second, |seen| follower.observe(0, seen, now));
        follower.ended(0);
        for change in follower.advance(now) {
            lines.push(match change {
                Change::Begins(f) => {
                    format!("{} {} {:?} {}", f.detected, f.sentence(), f.kind, f.id)
                }
                Change::Ends(f) => format!("{} ends {:?}", f.id, f.ended),
            });
        }
        second += 1;
    }
    lines
}

fn new() -> Follower {
    Follower::new(Config::default(), 3 * SECOND, std::iter::once(0))
}

#[test]
fn who_restarts_and_restores_finds_what_who_never_restarted_finds() {
    let never = live(8, |same, now| (same, now));
    let restored = live(8, |old, now| {
        let pieces: Vec<Vec<u8>> =
            old.detector.keys().iter().map(|key| old.detector.export(key).unwrap()).collect();
        assert_eq!(pieces.len(), 5, "two policies, two services, the stream");
        assert!(pieces.iter().all(|p| p.len() < 200_000), "a piece is bounded");
        let mut new = new();
        // In another order than they were written.
        let wrong = new.restore(pieces.iter().rev().map(Vec::as_slice), |through| {
            assert!((now - through) / SECOND < 10);
            through
        });
        assert!(wrong.is_empty(), "{wrong:?}");
        let from = new.detector.through().unwrap();
        (new, from)
    });
    let forgot = live(8, |_, now| (new(), now - 3600 * SECOND));
    let nights = |lines: &[String]| lines.iter().filter(|l| l.contains("DenialSpike")).count();
    let noons = |lines: &[String]| lines.iter().filter(|l| l.contains("PolicyQuiet")).count();
    assert_eq!((nights(&never), noons(&never)), (2, 8), "{never:#?}");
    assert_eq!(never, restored);
    assert_eq!(nights(&forgot), 8, "who forgets is told every night");
}

/// One piece is ten minutes older than the others: it is caught up with by what is read again, and nothing counts twice.
#[test]
fn pieces_may_be_of_different_times() {
    let mut old = Detector::new(Config::default());
    let mut early = Vec::new();
    let see = |detector: &mut Detector, second: i64| {
        let now = START + second * SECOND;
        decisions(second, |seen| detector.observe(seen, now));
        detector.advance(now, now);
    };
    for second in 0..3600 {
        see(&mut old, second);
        if second == 3000 {
            early = old.export("policy\0shop\0app/allow").unwrap();
        }
    }
    let mut new = Detector::new(Config::default());
    new.import(&early).unwrap();
    new.import(&early).unwrap();
    for key in ["policy\0desk\0app/allow", "service\0shop", "service\0desk", "stream"] {
        new.import(&old.export(key).unwrap()).unwrap();
    }
    let from = new.through().unwrap();
    assert_eq!(from, START + 3000 * SECOND);
    new.resume(from);
    for second in 3000..3600 {
        see(&mut new, second);
    }
    for key in old.keys() {
        let counted = |of: &Detector| {
            let piece: serde_json::Value =
                serde_json::from_slice(&of.export(&key).unwrap()).unwrap();
            let (_, state) = piece["state"].as_object().unwrap().iter().next().unwrap();
            let of = ["next", "window", "loads"].map(|name| state[name].to_string());
            (of, state["heat"].as_f64().unwrap_or_default())
        };
        let ((old, heat), (new, again)) = (counted(&old), counted(&new));
        assert!(old == new, "{key}");
        assert!((heat - again).abs() <= 0.01 * heat, "{key}: {heat} {again}");
    }
}

#[test]
fn what_another_version_wrote_is_learned_anew() {
    let mut detector = Detector::new(Config::default());
    assert!(detector.export("stream").is_none());
    let other = br#"{"version": 99, "state": {"unheard": {}}}"#;
    assert!(matches!(detector.import(other), Err(Unreadable::Version(99))));
    assert!(matches!(detector.import(b"{\"version\":1}"), Err(Unreadable::Json(_))));
    assert!(matches!(detector.import(b"\xff"), Err(Unreadable::Json(_))));
    assert!(detector.is_new() && detector.through().is_none());
}
