use super::*;
use crate::decision::verdict::Verdict;
use crate::generate::scenario::{Day, Scenario};
use crate::spike::WHO;

const START: Nanos = 1_767_744_000 * SECOND;
const LATENESS: Nanos = 3 * SECOND;

/// A decision as it stands in the docket: partition, when it was written, and what it says.
#[derive(Clone)]
struct Written {
    partition: i32,
    written: Nanos,
    at: Nanos,
    service: String,
    policy: String,
    verdict: Verdict,
    who: [String; WHO],
}

impl Written {
    fn see(&self, take: impl FnOnce(&Observation<'_>)) {
        take(&Observation {
            at: self.at,
            service: &self.service,
            policy: &self.policy,
            verdict: self.verdict,
            who: std::array::from_fn(|i| self.who[i].as_str()),
            trace_id: crate::decision::ids::TraceId::INVALID,
            decision_id: "",
        });
    }
}

/// From two hours before a day's event to ten minutes after, over three partitions; some of it late, some with a
/// clock that is wrong.
fn docket(scenario: Scenario, seed: u64) -> Vec<Written> {
    let mut day = Day::new(scenario, seed, START, 1.0);
    let mut now = day.event_at() - 7200 * SECOND;
    day.skip_to(now);
    let end = day.events().first().map_or(now + 9000 * SECOND, |e| e.to + 600 * SECOND);
    let (mut second, mut all, mut n) = (Vec::new(), Vec::new(), 0u64);
    while now < end {
        day.second(&mut second);
        now += SECOND;
        for made in &second {
            n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let dice = n >> 40;
            let wait = match dice % 1000 {
                0 => 120 * SECOND,
                1..=9 => 10 * SECOND,
                _ => (dice % 2000) as Nanos * 1_000_000,
            };
            day.observe(made, |seen| {
                all.push(Written {
                    partition: (dice % 3) as i32,
                    written: seen.at + wait,
                    at: if dice % 5000 == 4999 { seen.at + 1800 * SECOND } else { seen.at },
                    service: seen.service.into(),
                    policy: seen.policy.into(),
                    verdict: seen.verdict,
                    who: seen.who.map(str::to_owned),
                });
            });
        }
    }
    all.sort_by_key(|w| w.written);
    all
}

/// The same, uploaded by each OPA every so many seconds, of which OPAs have their own.
fn uploaded(docket: &[Written], [least, most]: [i64; 2]) -> Vec<Written> {
    let mut all = docket.to_vec();
    for one in &mut all {
        let opa: i64 = one.who[1].bytes().map(i64::from).sum();
        let every = (least + 37 * opa % (most - least + 1)) * SECOND;
        let (now, offset) = (one.written - 2 * SECOND, 53 * opa * SECOND);
        one.written =
            ((now + offset).div_euclid(every) + 1) * every - offset + one.at % SECOND / 10;
    }
    all.sort_by_key(|w| w.written);
    all
}

fn begins(changes: Vec<Change>) -> Vec<Finding> {
    let begins = |c| match c {
        Change::Begins(finding) => Some(finding),
        Change::Ends(_) => None,
    };
    changes.into_iter().filter_map(begins).collect()
}

/// What is raised by who reads as it is written, so many nanoseconds between looks; and whether it was news.
fn run(docket: &[Written], step: Nanos) -> Vec<Change> {
    run_late(docket, step).0
}

/// And how many came late.
fn run_late(docket: &[Written], step: Nanos) -> (Vec<Change>, u64) {
    let mut follower = Follower::new(Config::default(), LATENESS, 0..3);
    (0..3).for_each(|p| follower.ended(p));
    let (mut now, mut changes, mut i) = (docket[0].written, Vec::new(), 0);
    let end = docket[docket.len() - 1].written + 10 * SECOND;
    follower.advance(now - SECOND);
    assert!(follower.is_live());
    while now < end {
        while i < docket.len() && docket[i].written <= now {
            docket[i].see(|seen| follower.observe(docket[i].partition, seen, docket[i].written));
            i += 1;
        }
        (0..3).for_each(|p| follower.ended(p));
        changes.extend(follower.advance(now));
        now += step;
    }
    (changes, follower.late)
}

/// What is raised by who looks back and reads one partition so far ahead of the others.
fn look_back(docket: &[Written], ahead: usize) -> Vec<Change> {
    look_back_late(docket, ahead).0
}

fn look_back_late(docket: &[Written], ahead: usize) -> (Vec<Change>, u64) {
    let mut follower = Follower::new(Config::default(), LATENESS, 0..3);
    let mut parts: Vec<Vec<&Written>> =
        (0..3).map(|p| docket.iter().filter(|w| w.partition == p).collect()).collect();
    parts.iter_mut().for_each(|p| p.reverse());
    let mut changes = Vec::new();
    while parts.iter().any(|p| !p.is_empty()) {
        for (partition, part) in parts.iter_mut().enumerate() {
            for _ in 0..ahead * (3 - partition) {
                match part.pop() {
                    Some(w) => w.see(|seen| follower.observe(w.partition, seen, w.written)),
                    None => follower.closed(partition as i32),
                }
            }
        }
        changes.extend(follower.look_back(false));
    }
    changes.extend(follower.look_back(true));
    (changes, follower.late)
}

#[test]
fn what_comes_late_is_the_same_number_for_whoever_reads_it() {
    // A quarter of an hour of the middle, with some that began before all others.
    let docket = docket(Scenario::ClockBehind, 5);
    let some = &docket[docket.len() / 2..docket.len() / 2 + 30_000];
    let late = some.iter().filter(|w| w.written - w.at > LATENESS).count() as u64;
    assert!(late > 200, "{late}");
    for step in [SECOND / 5, 3 * SECOND, 20 * SECOND] {
        assert_eq!(run_late(some, step).1, late);
    }
    for ahead in [1, 300, 20_000] {
        assert_eq!(look_back_late(some, ahead).1, late);
    }
}

#[test]
fn what_a_run_raises_is_what_a_look_back_raises() {
    for scenario in [
        Scenario::Attack,
        Scenario::BadBundle,
        Scenario::DeadOpa,
        Scenario::Silence,
        Scenario::MissingData,
        Scenario::Failover,
    ] {
        let docket = docket(scenario, 5);
        // The made-up day ends here: after it there are only stragglers, and then a run goes on while a look back ends.
        let in_time = docket.iter().filter(|w| w.written - w.at < 60 * SECOND);
        let last = in_time.map(|w| w.written).max().unwrap();
        let within = |change: &&Change| match change {
            Change::Begins(f) => f.detected <= last,
            Change::Ends(f) => f.ended.is_some_and(|at| at <= last),
        };
        let plain = |changes: &[Change]| -> Vec<String> {
            let text = |c: &Change| match c {
                // A revision is judged by what is read, be its bucket closed or not: its count depends on when one looks.
                Change::Begins(f) if f.kind == Kind::RevisionShift => f.id.clone(),
                Change::Begins(f) => format!("{} {:?} {} {}", f.id, f.kind, f.detected, f.observed),
                Change::Ends(f) => format!("{} ends {:?}", f.id, f.ended),
            };
            changes.iter().filter(within).map(text).collect()
        };
        let live = run(&docket, SECOND / 5);
        assert_eq!(begins(live.clone()).is_empty(), scenario == Scenario::Failover);
        assert_eq!(plain(&live), plain(&run(&docket, 7 * SECOND)), "{scenario:?}: seldom looked");
        assert_eq!(plain(&live), plain(&look_back(&docket, 100)), "{scenario:?}");
        assert_eq!(plain(&live), plain(&look_back(&docket, 20_000)), "{scenario:?}: skewed");
    }
}

/// Where uploads take their time, what is late is no backlog, and what nobody wrote meanwhile is no pause of docket.
#[test]
fn a_run_raises_what_a_look_back_raises_of_late_uploads() {
    let made = docket(Scenario::Attack, 5);
    // All of it, and one service of two OPAs.
    let alone = begins(run(&made, SECOND))[0].service.clone();
    let few: Vec<Written> = made.iter().filter(|w| w.service == alone).cloned().collect();
    for (docket, uploads) in [
        (&made, [5, 30]),
        (&made, [30, 90]),
        (&made, [45, 150]),
        (&made, [300, 600]),
        (&few, [40, 55]),
        (&few, [60, 90]),
        (&few, [90, 120]),
        (&few, [300, 600]),
    ] {
        // After the made-up day there are only stragglers.
        let in_time = docket.iter().filter(|w| w.written - w.at < 60 * SECOND);
        let end = in_time.map(|w| w.written).max().unwrap();
        let docket = uploaded(docket, uploads);
        let said = |changes: Vec<Change>, from: Nanos| -> Vec<(String, Nanos)> {
            let found = begins(changes).into_iter().filter(|f| (from..end).contains(&f.detected));
            let one = |f: Finding| {
                (
                    format!("{:?} {} {:?}", f.kind, f.service, f.causes.first().map(|c| &c.value)),
                    f.detected,
                )
            };
            found.map(one).collect()
        };
        let from = docket[0].written;
        let live = said(run(&docket, SECOND / 5), from);
        // From the beginning; and from an hour later on, where no silence is compared: it is claimed by who heard more before.
        let later = from + 3600 * SECOND;
        let i = docket.iter().position(|w| w.written > later).unwrap();
        for (past, from) in [(&docket[..], from), (&docket[i..], later + 1200 * SECOND)] {
            let silent = |(told, _): &&(String, Nanos)| !told.contains("Quiet");
            let all = past.len() == docket.len();
            let looked = said(look_back(past, 100), from);
            let looked: Vec<_> = looked.iter().filter(|one| all || silent(one)).collect();
            let live: Vec<_> =
                live.iter().filter(|one| one.1 >= from && (all || silent(one))).collect();
            assert_eq!(live.len(), looked.len(), "{uploads:?}, {all}: {live:?} {looked:?}");
            for (one, other) in live.iter().zip(&looked) {
                assert_eq!(one.0, other.0);
                assert!((one.1 - other.1).abs() <= 20 * SECOND, "{uploads:?}: {live:?} {looked:?}");
            }
        }
    }
}

/// Between two uploads nobody is silent.
#[test]
fn who_uploads_every_minute_or_two_is_not_missed() {
    let made = docket(Scenario::Attack, 5);
    for uploads in [[20, 60], [45, 150], [60, 90], [90, 120], [120, 300], [300, 600]] {
        let changes = run(&uploaded(&made, uploads), SECOND / 5);
        let quiet: Vec<Finding> = begins(changes)
            .into_iter()
            .filter(|f| {
                matches!(f.kind, Kind::PolicyQuiet | Kind::InstanceQuiet | Kind::StreamQuiet)
            })
            .collect();
        assert!(quiet.is_empty(), "{uploads:?}: {quiet:?}");
    }
}

/// So many seconds of a calm service, a decision every tenth of a second, by a clock that is `behind`.
fn calm(follower: &mut Follower, from: Nanos, seconds: i64, behind: Nanos) -> Vec<Change> {
    let mut changes = Vec::new();
    let looks = follower.is_live();
    for tick in 0..seconds * 10 {
        let now = from + tick * SECOND / 10;
        let one = Written {
            partition: 0,
            written: now,
            at: now - behind,
            service: "s".into(),
            policy: "p".into(),
            verdict: if tick % 20 == 0 { Verdict::Deny } else { Verdict::Allow },
            who: Default::default(),
        };
        one.see(|seen| follower.observe(0, seen, now));
        if looks && tick % 10 == 9 {
            follower.ended(0);
            changes.extend(follower.advance(now));
        }
    }
    changes
}

fn nothing(follower: &mut Follower, from: Nanos, seconds: i64) -> Vec<Change> {
    (0..seconds).flat_map(|s| follower.advance(from + s * SECOND)).collect()
}

fn live() -> Follower {
    let mut follower = Follower::new(Config::default(), LATENESS, 0..1);
    follower.ended(0);
    follower.advance(START - SECOND);
    follower
}

#[test]
fn old_samples_are_no_silence() {
    // A minute of it is learned as a backlog; what stays as old for longer only comes late.
    for seconds in [8, 120, 3600] {
        let mut follower = live();
        assert_eq!(calm(&mut follower, START, seconds, 3 * 86_400 * SECOND), []);
        assert_eq!(nothing(&mut follower, START + seconds * SECOND, 2000), [], "{seconds} s");
    }
    // A reload: the same is read again.
    let mut follower = Follower::new(Config::default(), LATENESS, 0..1);
    assert_eq!(calm(&mut follower, START, 8, 3 * 86_400 * SECOND), []);
    follower.ended(0);
    assert_eq!(nothing(&mut follower, START + 86_400 * SECOND, 2000), []);
    assert!(follower.is_live());
}

#[test]
fn a_stream_that_was_there_and_stops_is_told_once_it_was_watched() {
    let mut follower = live();
    assert_eq!(calm(&mut follower, START, 1800, 0), []);
    let quiet = nothing(&mut follower, START + 1800 * SECOND, 200);
    let [Change::Begins(finding)] = quiet.as_slice() else { panic!("{quiet:?}") };
    assert_eq!(finding.kind, Kind::StreamQuiet);
    // Another process takes over 20 minutes later, and reads the same.
    for told in [false, true] {
        let mut follower = Follower::new(Config::default(), LATENESS, 0..1);
        calm(&mut follower, START, 1800, 0);
        if told {
            follower.told(Kind::StreamQuiet, false);
        }
        follower.ended(0);
        let now = START + 3000 * SECOND;
        follower.advance(now);
        assert!(follower.is_live());
        assert_eq!(follower.active().len(), usize::from(told), "what was told goes on");
        assert_eq!(nothing(&mut follower, now, 80), [], "it was not watched yet");
        let later = nothing(&mut follower, now + 80 * SECOND, 60);
        assert_eq!(begins(later).len(), usize::from(!told));
    }
}

#[test]
fn a_pause_of_docket_is_no_silence_and_what_it_missed_is_past() {
    let mut follower = Follower::new(Config::default(), LATENESS, 0..1);
    calm(&mut follower, START, 1800, 0);
    // Down for 40 minutes; then what was missed, at once; then as usual.
    let up = START + 4200 * SECOND;
    for tick in 0..24_000 {
        let verdict = if tick % 2 == 0 { Verdict::Deny } else { Verdict::Allow };
        let one = Written {
            partition: 0,
            written: up + tick * SECOND / 800,
            at: START + 1800 * SECOND + tick * SECOND / 10,
            service: "s".into(),
            policy: "p".into(),
            verdict,
            who: Default::default(),
        };
        one.see(|seen| follower.observe(0, seen, one.written));
    }
    calm(&mut follower, up + 30 * SECOND, 600, 0);
    assert_eq!(follower.look_back(true), []);
}

#[test]
fn a_backlog_is_learned_and_what_goes_on_in_it_is_news() {
    // An hour of decisions at once, with denials at its end that go on: as a drill writes them.
    let mut follower = live();
    let now = START + 3600 * SECOND;
    let mut changes = Vec::new();
    for tick in 0..40_000 {
        let at = START + tick * SECOND / 10;
        let attack = tick > 35_400 && tick % 2 == 0;
        let written = at.max(now + tick * 1000);
        let one = Written {
            partition: 0,
            written,
            at,
            service: "s".into(),
            policy: "p".into(),
            verdict: if attack || tick % 20 == 0 { Verdict::Deny } else { Verdict::Allow },
            who: Default::default(),
        };
        one.see(|seen| follower.observe(0, seen, written));
        follower.ended(0);
        changes.extend(follower.advance(written));
    }
    let found = begins(changes);
    let [finding] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!(finding.kind, Kind::DenialSpike);
    assert_eq!(begins(follower.past()).len(), 1, "for who looks back it was found where it began");
}

/// A drill in a docket in which something was before: `others` is watched, and `s` was seen for some seconds days ago. It
/// writes the hour before at once, with or without an attack at its end, that goes on for seven minutes.
fn drill(attack: bool) -> (Follower, Vec<Finding>) {
    let mut follower = live();
    let mut changes = Vec::new();
    let mut see = |follower: &mut Follower, service: &str, at, written, verdict| {
        let (service, policy) = (service.to_owned(), "p".to_owned());
        let who = Default::default();
        let one = Written { partition: 0, written, at, service, policy, verdict, who };
        one.see(|seen| follower.observe(0, seen, written));
        follower.ended(0);
        changes.extend(follower.advance(written));
    };
    let now = START + 3600 * SECOND;
    for tick in 0..80 {
        let written = START - 100 * SECOND + tick * SECOND / 10;
        see(&mut follower, "s", written - 259_200 * SECOND, written, Verdict::Allow);
    }
    let usual = |tick: i64| if tick % 20 == 0 { Verdict::Deny } else { Verdict::Allow };
    for tick in 0..36_000 {
        let at = START + tick * SECOND / 10;
        see(&mut follower, "others", at, at, usual(tick));
    }
    for tick in 0..40_000 {
        let at = START + tick * SECOND / 10;
        let written = at.max(now + tick * 1000);
        let denied = attack && tick > 35_400 && tick % 2 == 0;
        see(&mut follower, "s", at, written, if denied { Verdict::Deny } else { usual(tick) });
        if at > now {
            see(&mut follower, "others", at, written, usual(tick));
        }
    }
    (follower, begins(changes))
}

#[test]
fn the_past_of_a_newcomer_is_learned_beside_others() {
    let (mut follower, found) = drill(true);
    let [finding] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!((finding.kind, &*finding.service), (Kind::DenialSpike, "s"));
    assert_eq!(begins(follower.past()).len(), 1);
    let (follower, found) = drill(false);
    assert_eq!(found, []);
    assert!(
        !follower.detector.is_strange("s", "p") && !follower.detector.is_strange("others", "p")
    );
    assert!(!follower.detector.is_strange("s", "another"));
    assert!(follower.detector.is_strange("somebody", "p"));
}

#[test]
fn a_newcomer_with_a_wrong_clock_is_learned_once() {
    let mut follower = live();
    let mut changes = Vec::new();
    for tick in 0..20_000 {
        let now = START + tick * SECOND / 10;
        for (service, behind) in [("s", 0), ("late", 3000 * SECOND)] {
            if service == "late" && tick < 6000 {
                continue;
            }
            let who = Default::default();
            let (service, policy) = (service.to_owned(), "p".to_owned());
            let verdict = if tick > 15_000 { Verdict::Deny } else { Verdict::Allow };
            let at = now - behind;
            let one = Written { partition: 0, written: now, at, service, policy, verdict, who };
            one.see(|seen| follower.observe(0, seen, now));
        }
        follower.ended(0);
        changes.extend(follower.advance(now));
    }
    let [Change::Begins(finding)] = changes.as_slice() else { panic!("{changes:#?}") };
    assert_eq!((finding.kind, &*finding.service), (Kind::DenialSpike, "s"));
}

#[test]
fn an_opa_whose_clock_is_behind_holds_nobody_back() {
    let mut follower = live();
    let mut changes = Vec::new();
    for tick in 0..20_000 {
        let now = START + tick * SECOND / 10;
        let behind = tick % 3 == 0;
        let one = Written {
            partition: 0,
            written: now,
            at: if behind { now - 1200 * SECOND } else { now },
            service: "s".into(),
            policy: "p".into(),
            verdict: if tick > 15_000 { Verdict::Deny } else { Verdict::Allow },
            who: ["r", if behind { "opa-0" } else { "opa-1" }, "u", "", "", ""].map(str::to_owned),
        };
        one.see(|seen| follower.observe(0, seen, now));
        follower.ended(0);
        changes.extend(follower.advance(now));
    }
    let [Change::Begins(finding)] = changes.as_slice() else { panic!("{changes:#?}") };
    assert_eq!(finding.kind, Kind::DenialSpike);
    assert!((finding.detected - START) / SECOND < 1530);
}

/// Intake that falls behind, by up to so long, and catches up again.
fn behind(docket: &[Written], [from, to]: [Nanos; 2], most: Nanos) -> Vec<Written> {
    let mut all = docket.to_vec();
    for one in all.iter_mut().filter(|one| (from..to).contains(&one.written)) {
        // Up in two thirds of the time, and down in the last.
        let part = (one.written - from) as f64 / (to - from) as f64;
        let late = if part < 2.0 / 3.0 { part * 1.5 } else { (1.0 - part) * 3.0 };
        one.written += (late * most as f64) as Nanos;
    }
    all.sort_by_key(|w| w.written);
    all
}

#[test]
fn what_came_too_late_is_found_by_who_waits_for_it() {
    let made = docket(Scenario::DeadOpa, 5);
    let found = |docket: &[Written], lateness| {
        let mut follower = Follower::new(Config::default(), lateness, 0..3);
        for one in docket {
            one.see(|seen| follower.observe(one.partition, seen, one.written));
        }
        (0..3).for_each(|p| follower.closed(p));
        let found = begins(follower.look_back(true));
        let found: Vec<(Kind, String)> = found.into_iter().map(|f| (f.kind, f.service)).collect();
        (found, follower.waits(docket.len() as u64))
    };
    let (in_time, waits) = found(&made, LATENESS);
    assert_eq!((in_time.len(), waits), (1, None), "a few that are late are no reason to wait");
    let on = begins(run(&made, SECOND))[0].onset;
    let late = behind(&made, [on - 1200 * SECOND, on + 600 * SECOND], 720 * SECOND);
    let (missed, waits) = found(&late, LATENESS);
    assert_eq!((missed.len(), waits), (0, Some(1024 * SECOND)));
    assert_eq!(found(&late, 1024 * SECOND), (in_time, None));
}

/// What is found in a file of three hours in which each service has an OPA of its own; the last one's clock is so far ahead, and the first two are
/// silent for so long in the end.
fn in_a_file(ahead: Nanos, silent: Nanos) -> Vec<(Kind, String)> {
    const END: i64 = 10_800;
    let mut all = Vec::new();
    for second in 0..END {
        for (n, service) in ["a", "b", "c"].into_iter().enumerate() {
            let wrong = if n == 2 { ahead } else { 0 };
            if n == 2 || second < END - silent {
                let at = START + (second + wrong) * SECOND + n as Nanos;
                all.extend([(at, service), (at + SECOND / 2, service)]);
            }
        }
    }
    all.sort_unstable();
    let times: Vec<Nanos> = all.iter().map(|(at, _)| *at).collect();
    let mut follower = Follower::new(Config::default(), LATENESS, std::iter::once(0));
    let changes = follower.look_at_file(&times, |i, take| {
        let (at, service) = all[i];
        let opa = format!("{service}-opa");
        take(&Observation {
            at,
            service,
            policy: "p",
            verdict: Verdict::Allow,
            who: ["", &opa, "", "", "", ""],
            trace_id: crate::decision::ids::TraceId::INVALID,
            decision_id: "",
        });
    });
    begins(changes).into_iter().map(|f| (f.kind, f.service)).collect()
}

#[test]
fn a_producer_that_is_ahead_in_a_file_silences_nobody() {
    for minutes in [6, 20, 40] {
        assert_eq!(in_a_file(minutes * 60, 0), [], "{minutes} min");
        let quiet = |service: &str| (Kind::PolicyQuiet, service.to_owned());
        assert_eq!(in_a_file(0, minutes * 60), [quiet("a"), quiet("b")], "{minutes} min");
    }
}

#[test]
fn a_file_may_begin_in_the_midst_of_an_attack() {
    let mut all = Vec::new();
    for second in 0..7200 {
        for n in 0..5 {
            let user = format!("user-{}", (second * 5 + n) % 97);
            let verdict = if (second * 5 + n) % 40 == 0 { Verdict::Deny } else { Verdict::Allow };
            all.push((START + second * SECOND + n, user, verdict));
        }
        if second < 1800 {
            all.push((START + second * SECOND + 9, "mallory".to_owned(), Verdict::Deny));
        }
    }
    let times: Vec<Nanos> = all.iter().map(|(at, ..)| *at).collect();
    let mut follower = Follower::new(Config::default(), LATENESS, std::iter::once(0));
    let changes = follower.look_at_file(&times, |i, take| {
        let (at, user, verdict) = &all[i];
        take(&Observation {
            at: *at,
            service: "s",
            policy: "p",
            verdict: *verdict,
            who: ["", "opa", user, "", "", ""],
            trace_id: crate::decision::ids::TraceId::INVALID,
            decision_id: "",
        });
    });
    let begun = begins(changes);
    let [found] = &begun[..] else { panic!("{begun:#?}") };
    assert_eq!((found.kind, &*found.causes[0].value), (Kind::DenialSpike, "mallory"));
}
