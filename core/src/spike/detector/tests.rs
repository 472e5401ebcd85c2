use super::*;
use crate::generate::scenario::{Day, Scenario};
use crate::spike::{SECOND, WHO};

/// From 50 minutes before a day's event to five minutes after it.
fn lived(scenario: Scenario, seed: u64) -> (Day, Vec<Change>) {
    let start = 1_767_744_000 * SECOND;
    let mut day = Day::new(scenario, seed, start, 1.0);
    day.skip_to(day.event_at() - 3000 * SECOND);
    let mut detector = Detector::new(Config::default());
    let (mut changes, mut second) = (Vec::new(), Vec::new());
    let mut now = day.event_at() - 3000 * SECOND;
    let end = day.events().first().map_or(now + 6000 * SECOND, |e| e.to + 600 * SECOND);
    while now < end {
        day.second(&mut second);
        now += SECOND;
        second.iter().for_each(|made| day.observe(made, |seen| detector.observe(seen, now)));
        changes.extend(detector.advance(now - 5 * SECOND, now));
    }
    assert_eq!(detector.active(), []);
    (day, changes)
}

#[test]
fn what_happens_is_found_explained_and_ends() {
    for scenario in [
        Scenario::Attack,
        Scenario::MisconfiguredClient,
        Scenario::BadBundle,
        Scenario::PermissiveBundle,
        Scenario::DeadOpa,
        Scenario::Silence,
        Scenario::MissingData,
    ] {
        let (day, mut changes) = lived(scenario, 5);
        if scenario == Scenario::BadBundle {
            // That the revision answers otherwise may be certain sooner, and is said too.
            changes.retain(|change| {
                let (Change::Begins(finding) | Change::Ends(finding)) = change;
                finding.kind == Kind::DenialSpike
            });
        }
        let event = day.events().remove(0);
        let [Change::Begins(begins), Change::Ends(ends)] = changes.as_slice() else {
            panic!("{scenario:?}: {changes:#?}")
        };
        assert!(
            event.kinds.contains(&begins.kind) && begins.service == event.service,
            "{scenario:?}: {begins:#?}"
        );
        let late = (begins.detected - event.from) / SECOND;
        assert!(
            (0..=match scenario {
                Scenario::PermissiveBundle => 600,
                // Whether the others took over shows in the load.
                Scenario::DeadOpa => 120,
                _ => 40,
            })
                .contains(&late),
            "{scenario:?}: {late} s"
        );
        assert!((begins.onset - event.from).abs() <= 40 * SECOND, "{scenario:?}: {begins:#?}");
        let cause = begins.causes.first().map(|c| (c.dimension, c.value.clone()));
        assert_eq!(cause, event.cause, "{scenario:?}");
        assert_eq!((&ends.id, ends.ended.is_some()), (&begins.id, true));
        assert!((ends.ended.unwrap() - event.to).abs() <= 180 * SECOND, "{scenario:?}: {ends:#?}");
    }
    assert_eq!(
        lived(Scenario::Attack, 5).1,
        lived(Scenario::Attack, 5).1,
        "a pure function of the stream"
    );
    assert_eq!(lived(Scenario::Launch, 5).1, [], "more traffic is no spike");
}

#[test]
fn series_are_bounded() {
    let mut detector = Detector::new(Config { max_series: 2, ..Config::default() });
    let mut see = |policy: &str, at: Nanos| {
        detector.observe(&denied("s", policy, at), at);
        detector.advance(at, at);
    };
    ["a", "b", "c"]
        .into_iter()
        .enumerate()
        .for_each(|(i, policy)| see(policy, 1000 * SECOND + i as i64));
    see("a", 2000 * SECOND);
    see("a", 1990 * SECOND);
    see("a", 1500 * SECOND);
    assert_eq!((detector.series.len(), detector.unwatched()), (2, 1));
}

fn denied<'a>(service: &'a str, policy: &'a str, at: Nanos) -> Observation<'a> {
    let trace_id = crate::decision::ids::TraceId::INVALID;
    let verdict = Verdict::Deny;
    Observation { at, service, policy, verdict, who: [""; WHO], trace_id, decision_id: "" }
}

/// So many junk policies, each asked so often, then one that counts; whether that one is watched.
fn found_room(junk: usize, times: usize) -> bool {
    let mut detector = Detector::new(Config { max_series: 50, ..Config::default() });
    let mut now = 1_767_744_000 * SECOND;
    let mut see = |policy: &str, unwatched: bool| {
        now += SECOND / 10;
        let before = detector.unwatched();
        detector.observe(&denied("s", policy, now), now);
        detector.advance(now - SECOND, now);
        assert!(!unwatched || detector.unwatched() > before, "{policy}");
        (detector.unwatched() == before, detector.series.len())
    };
    for _ in 0..times {
        for n in 0..junk {
            assert!(see(&format!("junk/{n}"), false).1 <= 50);
        }
    }
    (0..20).for_each(|_| {
        see("real", false);
    });
    see("real", false).0
}

#[test]
fn junk_makes_room_for_what_is_asked_for() {
    assert!(found_room(50, 1) && found_room(1000, 1) && found_room(1000, 5));
    assert!(found_room(20_000, 1), "as many as one likes, once each");
}

#[test]
fn what_nobody_looks_at_is_said() {
    let mut detector = Detector::new(Config { max_series: 10, ..Config::default() });
    let mut now = 1_767_744_000 * SECOND;
    let mut changes = Vec::new();
    for n in 0..20_000 {
        now += SECOND / 10;
        // Ten that are warm; and in the second third as many others, each of which comes once.
        let junk = n % 2 == 0 && (6000..12_000).contains(&n);
        let policy = if junk { format!("junk/{n}") } else { format!("p{}", n / 2 % 10) };
        detector
            .observe(&Observation { verdict: Verdict::Allow, ..denied("s", &policy, now) }, now);
        changes.extend(detector.advance(now - SECOND, now));
    }
    let [Change::Begins(begins), Change::Ends(ends)] = changes.as_slice() else {
        panic!("{changes:#?}")
    };
    assert_eq!((begins.kind, &begins.id), (Kind::Unwatched, &ends.id));
    let sentence = begins.sentence();
    for part in ["policies of services", "such as junk/", " of s;", "spikes.max_policies (10)"] {
        assert!(sentence.contains(part), "{sentence}");
    }
    assert_eq!(detector.unwatched(), 3000);
    let read: Finding = serde_json::from_str(&serde_json::to_string(ends).unwrap()).unwrap();
    assert_eq!(&read, ends);
}

#[test]
fn a_clock_that_is_ahead_blinds_nobody() {
    let mut detector = Detector::new(Config::default());
    let start = 1_767_744_000 * SECOND;
    detector.observe(&denied("s", "p", start + 1800 * SECOND), start);
    let mut found = 0;
    for second in 0..1200 {
        let now = start + second * SECOND;
        for n in 0..5 {
            let verdict = if second > 900 && n > 0 { Verdict::Deny } else { Verdict::Allow };
            detector.observe(&Observation { verdict, ..denied("s", "p", now) }, now);
        }
        found += detector.advance(now + 7200 * SECOND, now).len();
        assert!(detector.next.unwrap() <= bucket(now));
    }
    assert_eq!(found, 1);
}

#[test]
fn years_without_a_decision_are_not_gone_through() {
    let mut detector = Detector::new(Config::default());
    let start = 1_767_744_000 * SECOND;
    for second in 0..1200 {
        let now = start + second * SECOND;
        detector.observe(&denied("s", "p", now), now);
        detector.advance(now, now);
    }
    // As long as nothing was read, it is no time yet.
    assert!(detector.advance(Nanos::MIN, start).is_empty());
    // 200 years.
    let then = start + 200 * 365 * 24 * 3600 * SECOND;
    let changes = detector.advance(then, then);
    assert_eq!(detector.next, Some(bucket(then)));
    // That it was quiet is told, and is over.
    let ends = |change: &&Change| matches!(change, Change::Ends(_));
    assert_eq!(changes.iter().filter(ends).count() * 2, changes.len());
    assert!(detector.active().is_empty());
}

/// Six services for an hour, all of them quiet for so long, then one alone for some seconds, then the others but those that stay away. What is
/// found after the silence, and of whom.
fn found_after(silence: i64, back: &[&str]) -> Vec<(Kind, String)> {
    const ALL: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let start = 1_767_744_000;
    let mut detector = Detector::new(Config::default());
    let (quiet, mut found) = (start + 3600, Vec::new());
    for second in start..quiet + silence + 120 {
        let since = second - quiet - silence;
        for (i, service) in ALL.into_iter().enumerate() {
            let decides = second < quiet
                || since >= 0 && service == "a"
                || since >= 4 && back.contains(&service);
            for n in (0..3 + 2 * i as i64).filter(|_| decides) {
                let at = second * SECOND + n * (SECOND / 20);
                let seen = Observation { verdict: Verdict::Allow, ..denied(service, "p", at) };
                detector.observe(&seen, at);
            }
        }
        let now = (second + 1) * SECOND;
        for change in detector.advance(now - 3 * SECOND, now) {
            if let Change::Begins(finding) = change
                && since >= 0
            {
                found.push((finding.kind, finding.service));
            }
        }
    }
    found
}

#[test]
fn the_return_of_all_is_no_silence_of_each() {
    for silence in [5, 12, 40, 80, 200, 600] {
        assert_eq!(found_after(silence, &["b", "c", "d", "e", "f"]), [], "{silence} s");
        // Who does not come back is missed.
        let missed = [(Kind::PolicyQuiet, "f".to_owned())];
        assert_eq!(found_after(silence, &["b", "c", "d", "e"]), missed, "{silence} s");
    }
}
