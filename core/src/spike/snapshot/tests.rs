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
        let who = ["r1", "opa-1", subject, "/x", "GET", ""];
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

fn kept(detector: &Detector) -> Vec<(String, Vec<u8>)> {
    let piece = |key: String| (key.clone(), detector.export(&key).unwrap());
    detector.keys().into_iter().map(piece).collect()
}

fn pairs(pieces: &[(String, Vec<u8>)]) -> impl DoubleEndedIterator<Item = (&str, &[u8])> {
    pieces.iter().map(|(key, piece)| (key.as_str(), piece.as_slice()))
}

#[test]
fn who_restarts_and_restores_finds_what_who_never_restarted_finds() {
    let never = live(8, |same, now| (same, now));
    let restored = live(8, |old, now| {
        let pieces = kept(&old.detector);
        assert_eq!(pieces.len(), 5, "two policies, two services, the stream");
        assert!(pieces.iter().all(|(_, p)| p.len() < 200_000), "a piece is bounded");
        let mut new = new();
        // In another order than they were written.
        let (from, wrong) = new.restore(pairs(&pieces).rev(), now, |through| {
            assert!((now - through) / SECOND < 10);
            through
        });
        assert!(wrong.is_empty(), "{wrong:?}");
        (new, from.unwrap())
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
    let mut pieces = kept(&old);
    for (_, piece) in pieces.iter_mut().filter(|(key, _)| key == "policy\0shop\0app/allow") {
        piece.clone_from(&early);
    }
    pieces.push(pieces[0].clone());
    assert!(new.restore(pairs(&pieces), START + 3600 * SECOND).is_empty());
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
fn what_can_t_be_read_is_said_and_learned_anew() {
    let mut detector = Detector::new(Config::default());
    assert!(detector.export("stream").is_none());
    let mut wrong = |piece: &[u8]| {
        let mut wrong = detector.restore(std::iter::once(("stream", piece)), START);
        assert_eq!(wrong.len(), 1);
        wrong.remove(0)
    };
    let other = br#"{"version": 99, "state": {"unheard": {}}}"#;
    assert!(matches!(wrong(other), (key, Unreadable::Version(99)) if key == "stream"));
    assert!(matches!(wrong(b"{\"version\":1}").1, Unreadable::Json(_)));
    assert!(matches!(wrong(b"\xff").1, Unreadable::Json(_)));
    assert!(detector.is_new() && detector.through().is_none());
}

/// The deletion of a piece got lost, a clock was ahead, a piece stands where it does not belong: none of that makes
/// anybody read days back, or blind.
#[test]
fn pieces_that_lie_about_their_time_or_their_key_are_not_believed() {
    let at = |second: i64| START + second * SECOND;
    let watched = |from: i64, service: &str| {
        let mut detector = Detector::new(Config::default());
        for second in from..from + 60 {
            decisions(second, |seen| {
                detector.observe(&Observation { service, ..*seen }, at(second));
            });
            detector.advance(at(second), at(second));
        }
        kept(&detector)
    };
    let mut pieces = watched(2 * DAY, "new");
    pieces.extend(watched(DAY, "gone").into_iter().filter(|(key, _)| key != "stream"));
    pieces.extend(watched(3 * DAY, "ahead").into_iter().filter(|(key, _)| key != "stream"));
    pieces.push(("policy\0other\0app/allow".into(), pieces[0].1.clone()));
    let mut detector = Detector::new(Config::default());
    let now = at(2 * DAY + 70);
    let wrong = detector.restore(pairs(&pieces), now);
    let said: Vec<(&str, bool)> =
        wrong.iter().map(|(key, why)| (key.as_str(), matches!(why, Unreadable::Ahead))).collect();
    assert_eq!(
        said,
        [
            ("policy\0ahead\0app/allow", true),
            ("service\0ahead", true),
            ("policy\0other\0app/allow", false)
        ]
    );
    assert_eq!(detector.forgotten(), ["policy\0gone\0app/allow", "service\0gone"]);
    assert!(now - detector.through().unwrap() < 20 * SECOND);
    assert_eq!(detector.keys(), ["policy\0new\0app/allow", "service\0new", "stream"]);
}

/// That there are decisions which nobody looks at was said before a restart: it is not said again, nor that it is over.
#[test]
fn what_finds_no_room_is_still_said_after_a_restart() {
    let config = || Config { max_series: 2, ..Config::default() };
    let crowd = |detector: &mut Detector, seconds: std::ops::Range<i64>| {
        let mut said = Vec::new();
        for second in seconds {
            let at = START + second * SECOND;
            for n in 0..6 {
                // Two that are busy, and more that nobody has room for.
                let policy = if n < 4 { format!("p{}", n % 2) } else { format!("junk{second}{n}") };
                decisions(second, |seen| {
                    detector.observe(&Observation { policy: &policy, ..*seen }, at);
                });
            }
            said.extend(detector.advance(at, at));
        }
        said
    };
    let mut old = Detector::new(config());
    let said = crowd(&mut old, 0..1200);
    assert!(
        matches!(&said[..], [Change::Begins(f)] if f.kind == crate::spike::Kind::Unwatched),
        "{said:?}"
    );
    let pieces = kept(&old);
    let mut new = Detector::new(config());
    assert!(new.restore(pairs(&pieces), START + 1200 * SECOND).is_empty());
    let through = new.through().unwrap();
    new.resume(through);
    assert_eq!(new.active(), old.active());
    assert_eq!(crowd(&mut new, (through - START) / SECOND..1500), []);
}

/// As the version before wrote it, which knew less.
fn older(value: &mut serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::Object(all) => {
            let sample = all.contains_key("who");
            let new = [
                "busy",
                "others",
                "steady",
                "flood",
                "up",
                "began",
                "known",
                "missed",
                "fate",
                "lately",
                "ahead",
                "cohorts",
                "most_denied",
                "settled",
                "tried",
            ];
            new.iter().for_each(|key| drop(all.remove(*key)));
            if sample {
                all.remove("weight");
            }
            // Of fewer dimensions.
            for name in ["who", "traffic", "bad"] {
                let Some(Value::Array(dimensions)) = all.get_mut(name) else { continue };
                dimensions.truncate(5);
                dimensions.iter_mut().filter_map(Value::as_array_mut).for_each(|d| d.truncate(5));
            }
            all.values_mut().for_each(older);
        }
        Value::Array(all) => {
            if all.len() == 6
                && let Some(Value::Array(peaks)) = all.last_mut()
            {
                assert_eq!(peaks.len(), 4);
                peaks.truncate(2);
            }
            all.iter_mut().for_each(older);
        }
        _ => {}
    }
}

#[test]
fn what_an_older_version_wrote_is_gone_on_with() {
    let nights = |older_ones: bool| {
        let lines = live(4, |old, now| {
            let mut pieces = kept(&old.detector);
            if older_ones {
                for (_, piece) in &mut pieces {
                    let mut value = serde_json::from_slice(piece).unwrap();
                    older(&mut value);
                    let new = value.to_string().into_bytes();
                    assert_ne!(&new, piece);
                    *piece = new;
                }
            }
            let mut new = new();
            let (from, wrong) = new.restore(pairs(&pieces), now, |through| through);
            assert!(wrong.is_empty(), "{wrong:?}");
            (new, from.unwrap())
        });
        lines.iter().filter(|l| l.contains("DenialSpike")).count()
    };
    assert_eq!((nights(true), nights(false)), (2, 2));
}
