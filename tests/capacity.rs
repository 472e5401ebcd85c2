//! A capacity review's numbers are those that its input has: counted here again, in the plainest way.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};

use docket::capacity::conclusions::Kind;
use docket::capacity::count::Counter;
use docket::capacity::numbers;
use docket::capacity::{Asked, Part, Read, Review, believed, report, review, table};
use docket::decision::event::Event;
use docket::decision::record::Record;
use docket::decision::record::{Rules, write};
use docket::decision::time;
use docket::generate::scenario::{Day, Scenario};
use serde_json::Value;

const SECOND: i64 = 1_000_000_000;
/// 2026-01-07, a Wednesday.
const START: i64 = 1_767_744_000 * SECOND;

/// What OPA wrote in eight days, out of order by some.
fn decisions() -> Vec<Value> {
    let mut day = Day::new(Scenario::WeeklyRhythm, 5, START, 0.01);
    let (mut all, mut second) = (Vec::new(), Vec::new());
    while !day.is_over() {
        day.second(&mut second);
        for made in &second {
            let mut decision = day.json(made);
            // Some take long, most of it for a call.
            if all.len() % 40 == 0 {
                decision["metrics"]["timer_server_handler_ns"] = 30_000_000.into();
                decision["metrics"]["timer_rego_builtin_http_send_ns"] = 29_000_000.into();
            }
            all.push(decision);
        }
    }
    let last = all.len() - 1;
    for i in (0..last).step_by(3) {
        all.swap(i, (i + 50).min(last));
    }
    all
}

fn reviewed(decisions: &[Value]) -> Review {
    reviewed_after(9, decisions)
}

/// Made so many days after START.
fn reviewed_after(days: i64, decisions: &[Value]) -> Review {
    let now = START + days * 86_400 * SECOND;
    let mut counter = Counter::new(believed(now));
    let mut out = Vec::new();
    for decision in decisions {
        out.clear();
        write(
            &Event::parse(decision.to_string().as_bytes()).unwrap(),
            &[],
            None,
            &Rules::default(),
            &mut out,
        );
        counter.add(&Record::parse(&out).unwrap());
    }
    let read = Read { topic: "docket.test".into(), ..Read::default() };
    let asked = Asked {
        pipeline: "test".into(),
        cores: 2.0,
        ahead: 14,
        history: BTreeMap::new(),
        volumes: Vec::new(),
        read,
        now,
        current: true,
    };
    review(counter, asked).unwrap()
}

fn text<'v>(decision: &'v Value, pointer: &str) -> &'v str {
    decision.pointer(pointer).unwrap().as_str().unwrap()
}

fn at(decision: &Value) -> i64 {
    time::parse(text(decision, "/timestamp")).unwrap()
}

fn nanos(decision: &Value) -> u64 {
    decision["metrics"]["timer_server_handler_ns"].as_u64().unwrap()
}

fn waited(decision: &Value) -> u64 {
    decision["metrics"]["timer_rego_builtin_http_send_ns"].as_u64().unwrap_or_default()
}

fn denied(decision: &Value) -> bool {
    match decision.get("result") {
        Some(Value::Bool(allow)) => !allow,
        Some(Value::Array(denials)) => !denials.is_empty(),
        Some(object) => object["allow"] == false,
        None => false,
    }
}

/// Minutes, of which the first and the last go with the one beside them if they are cut: where each begins, and its seconds.
fn minutes(first: i64, last: i64) -> Vec<(i64, i64)> {
    let mut starts: Vec<i64> = (first..=last).filter(|s| *s == first || s % 60 == 0).collect();
    if first % 60 != 0 && starts.len() > 1 {
        starts.remove(1);
    }
    if (last + 1) % 60 != 0 && starts.len() > 1 {
        starts.pop();
    }
    let ends = starts.iter().skip(1).copied().chain([last + 1]);
    starts.iter().zip(ends).map(|(start, end)| (*start, end - start)).collect()
}

/// Compares a part with the decisions that it is of, in a review of these seconds.
fn check(part: &Part, of: &[&Value], (first, last): (i64, i64)) {
    let seconds = (last - first + 1) as f64;
    assert_eq!(part.decisions, of.len() as u64, "{part:?}");
    assert_eq!(part.denied, of.iter().filter(|d| denied(d)).count() as u64);
    assert_eq!(part.failed, of.iter().filter(|d| d.get("result").is_none()).count() as u64);
    let mean = part.mean_per_second.unwrap();
    assert!((mean - of.len() as f64 / seconds).abs() < 1e-9);
    let mut by_second: BTreeMap<i64, u32> = BTreeMap::new();
    for decision in of {
        *by_second.entry(at(decision) / SECOND).or_default() += 1;
    }
    // The first of equals.
    let (when, most) = by_second.iter().rev().max_by_key(|(_, n)| **n).unwrap();
    assert_eq!(
        (part.peak_second.per_second, part.peak_second.at),
        (f64::from(*most), when * SECOND)
    );
    let mut busiest = (0.0, 0);
    for (start, seconds) in minutes(first, last) {
        let n: u32 = by_second.range(start..start + seconds).map(|(_, n)| n).sum();
        if f64::from(n) / seconds as f64 > busiest.0 {
            busiest = (f64::from(n) / seconds as f64, start * SECOND);
        }
    }
    let peak = part.peak_minute.unwrap();
    assert_eq!((peak.per_second, peak.at), busiest);
    assert!(mean <= peak.per_second && peak.per_second <= part.peak_second.per_second);
    let mut times: Vec<u64> = of.iter().map(|d| nanos(d)).collect();
    times.sort_unstable();
    let sum: u64 = times.iter().sum();
    let busy = part.busy.unwrap();
    let near = |a: f64, b: f64, within: f64| {
        assert!((a / b - 1.0).abs() <= within, "{a} is not {b}: {part:?}");
    };
    // Waiting for a call is no load.
    let computing = sum - of.iter().map(|d| waited(d)).sum::<u64>();
    near(busy.mean_cores, computing as f64 / 1e9 / seconds, 1e-9);
    near(busy.mean_ns, computing as f64 / times.len() as f64, 1e-9);
    near(busy.waiting, (sum - computing) as f64 / sum as f64, 1e-9);
    near(busy.peak_minute_cores, peak.per_second * busy.mean_ns / 1e9, 1e-9);
    near(busy.peak_second_cores, part.peak_second.per_second * busy.mean_ns / 1e9, 1e-9);
    assert!(busy.mean_cores <= busy.peak_hour_cores);
    if let Some(e) = &part.evaluation {
        assert_eq!((e.decisions, e.sum_ns), (times.len() as u64, sum));
        for (said, q) in
            [(e.p50_ns, 0.5), (e.p95_ns, 0.95), (e.p99_ns, 0.99), (Some(e.max_ns), 1.0)]
        {
            let enough = q == 1.0 || times.len() as f64 * (1.0 - q) > 9.999;
            assert_eq!(said.is_some(), enough, "{q} of {}", times.len());
            let Some(said) = said else { continue };
            assert!(said <= *times.last().unwrap());
            let exact = times[((q * times.len() as f64).ceil() as usize).clamp(1, times.len()) - 1];
            near(said as f64, exact as f64, 0.01);
        }
    }
}

#[test]
fn the_numbers_are_those_of_the_input() {
    let decisions = decisions();
    let review = reviewed(&decisions);
    let all: Vec<&Value> = decisions.iter().collect();
    let (first, last) =
        (all.iter().map(|d| at(d)).min().unwrap(), all.iter().map(|d| at(d)).max().unwrap());
    assert_eq!((review.from, review.to), (first, last));
    let seconds = (first / SECOND, last / SECOND);
    check(&review.total, &all, seconds);

    let by = |pointers: &[&str]| {
        let mut groups: BTreeMap<Vec<String>, Vec<&Value>> = BTreeMap::new();
        for decision in &decisions {
            groups
                .entry(pointers.iter().map(|p| text(decision, p).to_owned()).collect())
                .or_default()
                .push(decision);
        }
        groups
    };
    for (parts, pointers) in [
        (&review.services, &["/labels/app"][..]),
        (&review.policies, &["/labels/app", "/path"]),
        (&review.opas, &["/labels/app", "/labels/id"]),
    ] {
        let groups = by(pointers);
        assert_eq!(parts.len(), groups.len());
        for part in parts {
            let key: Vec<String> = [part.service.clone(), part.name.clone()]
                .into_iter()
                .take(pointers.len())
                .collect();
            check(part, &groups[&key], seconds);
        }
        for opa in review.opas.iter() {
            let busy = opa.busy.unwrap();
            assert!((busy.headroom.unwrap() * busy.peak_minute_cores / 2.0 - 1.0).abs() < 1e-9);
        }
        assert!((parts.iter().map(|p| p.cost.unwrap()).sum::<f64>() - 1.0).abs() < 1e-9);
    }

    let days: BTreeMap<String, usize> =
        by(&["/timestamp"]).into_iter().fold(BTreeMap::new(), |mut days, (key, group)| {
            *days.entry(key[0][..10].to_owned()).or_default() += group.len();
            days
        });
    assert_eq!(review.days.len(), days.len());
    for day in &review.days {
        assert_eq!(day.decisions, days[&day.day] as f64);
        assert!(day.whole, "{day:?}");
    }
    assert_eq!(review.forecast, None, "a week is too little");
    let sentences: Vec<&str> = review.conclusions.iter().map(|c| c.sentence.as_str()).collect();
    assert!(sentences[0].starts_with("The newest decision is 24 h old"), "{sentences:?}");
    assert!(sentences[1].contains("takes 14 whole days to say, and there are 8"), "{sentences:?}");

    let revisions: BTreeSet<(String, String)> = by(&["/labels/app", "/bundles/authz/revision"])
        .into_keys()
        .map(|key| (key[0].clone(), key[1].clone()))
        .collect();
    assert_eq!(
        review
            .revisions
            .iter()
            .map(|r| (r.service.clone(), r.revision.clone()))
            .collect::<BTreeSet<_>>(),
        revisions
    );

    // What is slow is slow for a call, which most decisions do not make.
    let timer = |name: &str| {
        review.total.evaluation.as_ref().unwrap().timers.iter().find(|t| t.name == name).unwrap()
    };
    let calls: u64 =
        all.iter().filter_map(|d| d["metrics"]["timer_rego_builtin_http_send_ns"].as_u64()).sum();
    assert!(
        (timer("rego_builtin_http_send").part
            - calls as f64 / all.iter().map(|d| nanos(d)).sum::<u64>() as f64)
            .abs()
            < 1e-9
    );
    let slowest = |name: &str| timer(name).part_of_slowest.unwrap();
    assert!(slowest("rego_builtin_http_send") > timer("rego_builtin_http_send").part);
    assert!(slowest("rego_query_eval") < timer("rego_query_eval").part);
}

#[test]
fn the_page_and_the_csv_say_what_the_json_says() {
    let mut decisions = decisions();
    decisions.truncate(2000);
    decisions[0]["labels"]["app"] = "<script>alert(1)</script>".into();
    let review = reviewed(&decisions);
    let page = report::html(&review, START);
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;"));
    let page = page.replace("<wbr>", "");
    for outside in ["http://", "https://", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside}: the page needs nothing else");
    }
    // An OPA with too few decisions has no headroom.
    let opas: Vec<&Part> = review.opas.iter().filter(|opa| opa.decisions >= 100).collect();
    assert!(!opas.is_empty() && opas.len() < review.opas.len());
    assert!(page.contains(&format!("Not shown: {} OPA", review.opas.len() - opas.len())), "{page}");
    for part in review.services.iter().chain(opas) {
        let name = if part.name.is_empty() { &part.service } else { &part.name };
        let escaped = name.replace('<', "&lt;").replace('>', "&gt;");
        assert!(
            page.contains(&format!(">{escaped}</td><td>{}</td>", part.decisions)),
            "{name}, {}",
            part.decisions
        );
    }
    let csv = table::csv(&review);
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for row in csv.lines().skip(1) {
        let cells: Vec<&str> = row.split(',').collect();
        assert_eq!(cells.len(), 13, "{row}");
        *sums.entry(cells[1]).or_default() += cells[4].parse::<u64>().unwrap();
    }
    assert_eq!(
        sums,
        BTreeMap::from(["all", "service", "policy", "opa"].map(|dimension| (dimension, 2000)))
    );
}

/// Whatever is cut: the busiest minute and hour are not below the mean, nor above the busiest second, on the page as in the numbers.
#[test]
fn what_is_cut_is_divided_by_what_is_there() {
    let one = decisions().swap_remove(0);
    let made = |seconds: &[i64]| -> Vec<Value> {
        let at = |second: &i64| {
            let mut decision = one.clone();
            decision["timestamp"] = time::format(START + second * SECOND + 7).into();
            decision
        };
        seconds.iter().map(at).collect()
    };
    let every = |from: i64, to: i64| (from..to).collect::<Vec<i64>>();
    let cases = [
        // All in a part of a minute; in parts of two; hot at both ends of what is cut.
        every(20, 59),
        every(50, 110),
        every(50, 130),
        [every(45, 60), every(120, 135)].concat(),
        // The last second of an hour, and the first of one, with little between.
        [vec![3599; 50], every(3600, 7200), vec![7200; 900]].concat(),
        [vec![3599; 500], vec![7200; 500]].concat(),
        [vec![3599; 500], vec![3600; 500], vec![3700; 3]].concat(),
        // Hours that are cut, and a quiet time between.
        [every(1800, 5000), every(90_000, 92_000)].concat(),
        vec![0],
    ];
    for seconds in cases {
        let decisions = made(&seconds);
        let review = reviewed(&decisions);
        let (first, last) = (seconds.iter().min().unwrap(), seconds.iter().max().unwrap());
        assert_eq!(review.seconds, (last - first + 1) as f64);
        for part in [&review.total, &review.services[0]] {
            let (mean, minute) = (part.mean_per_second, part.peak_minute.map(|p| p.per_second));
            assert_eq!(mean.is_some(), review.seconds >= 60.0, "a rate is of a minute or more");
            assert!(mean <= minute, "{mean:?} {minute:?} {seconds:?}");
            assert!(minute.is_none_or(|m| m <= part.peak_second.per_second + 1e-9));
            assert!(part.busy.is_none_or(|b| b.mean_cores <= b.peak_hour_cores + 1e-12));
        }
        let mut covered = 0.0;
        for row in table::csv(&review).lines().skip(1).filter(|row| row.contains(",all,")) {
            let cells: Vec<&str> = row.split(',').collect();
            let of: f64 = cells[12].parse().unwrap();
            covered += of;
            assert_eq!(cells[7].is_empty(), of < 60.0, "{row}");
            if of >= 60.0 {
                let number = |i: usize| cells[i].parse::<f64>().unwrap();
                assert!((number(7) - number(4) / of).abs() < 1e-4, "{row}");
                assert!(number(7) <= number(9) + 1e-4, "{row}");
            }
        }
        assert!(covered <= review.seconds);
    }
}

#[test]
fn the_page_speaks_in_numbers_for_people() {
    let mut decisions = decisions();
    decisions.truncate(1);
    let page = |decisions: &[Value]| report::html(&reviewed(decisions), START).replace("<wbr>", "");
    let one = page(&decisions);
    assert!(one.contains(": 1 decision, by their own") && !one.contains("1 decisions"), "{one}");
    assert!(one.contains("median evaluation time; needs 20 decisions"), "{one}");
    let decisions = self::decisions();
    let seconds = numbers::count(reviewed(&decisions).seconds as u64);
    let all = page(&decisions);
    assert!(seconds.len() == 7 && all.contains(&format!("the {seconds} seconds")), "{seconds}");
    let thousand = regex_lite::Regex::new(r">[0-9]{4,}[ <]").unwrap();
    assert_eq!(thousand.find(&all).map(|m| m.as_str()), None, "thousands have a comma");
}

#[test]
fn wrong_clocks_are_left_out_and_said() {
    let mut decisions = decisions();
    decisions.truncate(100);
    decisions[7]["timestamp"] = "1970-01-01T00:00:00Z".into();
    decisions[8]["timestamp"] = "2106-02-07T06:28:15Z".into();
    let review = reviewed(&decisions);
    assert_eq!((review.total.decisions, review.read.odd), (98, 2));
    assert!(report::html(&review, START).contains("2 decisions with timestamps of the future"));
}

/// A decision of a service that has one OPA, so many seconds after START.
fn decision(service: &str, seconds: f64, nanos: u64) -> Value {
    serde_json::json!({
        "decision_id": format!("{service}-{seconds}"),
        "labels": {"app": service, "id": format!("{service}-1")},
        "bundles": {"authz": {"revision": "r1"}},
        "path": "http/authz/allow",
        "result": true,
        "timestamp": time::format(START + (seconds * SECOND as f64) as i64),
        "metrics": {"timer_server_handler_ns": nanos}
    })
}

/// As many decisions on each day as `of` says, give or take some.
fn daily(service: &str, days: i64, of: impl Fn(i64) -> i64) -> Vec<Value> {
    let day = |day: i64| {
        let n = of(day) * (100 + day * 7919 % 7) / 100;
        (0..n).map(move |i| 86_400.0 * (day as f64 + (i as f64 + 0.5) / n as f64))
    };
    (0..days).flat_map(day).map(|at| decision(service, at, 1_000_000)).collect()
}

fn sentences(review: &Review, kind: Kind) -> Vec<&str> {
    let of = review.conclusions.iter().filter(|c| c.kind == kind);
    of.map(|c| c.sentence.as_str()).collect()
}

/// Days of which nothing is known are no days without load, and a sentence's error is that of the JSON.
#[test]
fn review_of_days_with_a_gap_says_one_error() {
    let decisions = daily("shop", 24, |day| if (6..12).contains(&day) { 0 } else { 120 });
    let review = reviewed_after(24, &decisions);
    let gap = |day: &docket::capacity::days::Day| !day.whole;
    assert_eq!(review.days.iter().filter(|d| gap(d)).count(), 6);
    let forecast = review.forecast.clone().unwrap();
    assert!(forecast.error.unwrap() < 0.1, "{forecast:?}");
    assert_eq!(review.spare[0].forecast, review.forecast, "all there is is one service");
    let said = format!("off by {:.0} % on average", 100.0 * forecast.error.unwrap());
    let told = sentences(&review, Kind::RunsOut);
    assert!(told[0].contains(&said) || told[0].contains("nothing grows"), "{told:?}, {said}");
    assert!(report::html(&review, START).contains("6 days without any decision"));

    // Of a service among others that is what is known of it: it had nothing, while others had.
    let mut both = daily("other", 24, |_| 100);
    both.extend(daily("shop", 24, |day| if (14..18).contains(&day) { 0 } else { 120 + 5 * day }));
    let review = reviewed_after(24, &both);
    assert!(review.days.iter().all(|d| d.whole));
    let spare = review.spare.iter().find(|s| s.service == "shop").unwrap();
    let error = spare.forecast.as_ref().unwrap().error.unwrap();
    let told = sentences(&review, Kind::RunsOut)[0];
    assert!(told.starts_with("shop runs out first"), "{told}");
    assert!(told.contains(&format!("off by {:.0} % on average", 100.0 * error)), "{told}, {error}");
}

#[test]
fn review_notices_that_the_load_changed() {
    let step = |days: i64, since: i64| {
        let of = move |day: i64| if day < since { 60 } else { 600 };
        reviewed_after(days, &daily("shop", days, of))
    };
    let review = step(20, 17);
    assert_eq!(review.forecast, None, "no forecast from a level that is no more");
    assert_eq!(review.changed.as_ref().map(|c| (c.day.as_str(), c.days)), Some(("2026-01-24", 3)));
    let told = sentences(&review, Kind::Changed);
    assert!(told[0].starts_with("The load of shop rose from 6"), "{told:?}");
    assert!(
        told[0].contains("on 2026-01-24")
            && told[0].contains("14 whole days of the new level")
            && told[0].ends_with("there are 3."),
        "{told:?}"
    );
    let told = sentences(&review, Kind::RunsOut);
    assert!(told[0].contains("can't be said") && !told[0].contains("week"), "{told:?}");
    let page = report::html(&review, START);
    assert!(
        page.contains("14 whole days of the level since 2026-01-24, and there are 3"),
        "{page}"
    );

    // Once the new level is known for long enough, growth is of that.
    let review = step(31, 17);
    let forecast = review.forecast.clone().unwrap();
    assert!((500.0..800.0).contains(&forecast.per_day) && forecast.low > 400.0, "{forecast:?}");
    assert!(sentences(&review, Kind::Changed)[0].contains("are of the days since"));

    // So is headroom: what was much before is no longer asked for.
    let of = |day: i64| if day < 8 { 3000 } else { 300 };
    let review = reviewed_after(24, &daily("shop", 24, of));
    let (spare, busy) = (&review.spare[0], review.services[0].busy.unwrap());
    assert!(spare.peak_minute_cores < busy.peak_minute_cores, "{spare:?} {busy:?}");
}

/// A few decisions of a wrong clock don't make a review of two hours one of months.
#[test]
fn review_leaves_out_what_is_far_from_the_rest() {
    let every = |n: i64| (0..n).map(|i| decision("shop", 2.0 * i as f64, 1_000_000));
    let clean: Vec<Value> = every(3600).collect();
    let mut decisions = clean.clone();
    decisions.insert(1000, decision("shop", -300.0 * 86_400.0, 9_000_000_000));
    decisions.insert(2000, decision("shop", 4.0 * 86_400.0, 9_000_000_000));
    let (review, clean) = (reviewed(&decisions), reviewed(&clean));
    assert_eq!((&review.total, review.from, review.to), (&clean.total, clean.from, clean.to));
    assert_eq!((&review.revisions, &review.days), (&clean.revisions, &clean.days));
    let out = review.read.left_out.unwrap();
    assert_eq!((out.decisions, out.from), (2, START - 300 * 86_400 * SECOND));
    let told = sentences(&review, Kind::LeftOut);
    assert!(
        told[0].starts_with("2 decisions of 2025-03-13 to 2026-01-11 were left out"),
        "{told:?}"
    );
    assert!(report::html(&review, START).contains("2 decisions from 2025-03-13 00:00 to"));
    assert_eq!((clean.read.left_out, sentences(&clean, Kind::LeftOut).len()), (None, 0));
}

/// Arrivals by chance have seconds with many; a queue holds them for a moment, and nothing has run out.
#[test]
fn review_takes_no_crowded_second_for_the_end() {
    let mut decisions: Vec<Value> =
        (0..5400).map(|i| decision("shop", i as f64 / 0.75, 475_000_000)).collect();
    decisions.extend((0..9).map(|i| decision("shop", 3000.0 + f64::from(i) / 10.0, 475_000_000)));
    let review = reviewed(&decisions);
    let busy = review.services[0].busy.unwrap();
    assert!(busy.peak_second_cores > 4.0 && busy.peak_minute_cores < 0.5, "{busy:?}");
    assert!(review.spare[0].headroom > 4.0, "{:?}", review.spare);
    let told = sentences(&review, Kind::RunsOut);
    assert!(!told[0].contains("has run out") && told[0].contains("busiest minute"), "{told:?}");
}
