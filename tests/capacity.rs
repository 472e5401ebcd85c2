//! A capacity review's numbers are those that its input has: counted here again, in the plainest way.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use docket::capacity::count::Counter;
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
    let mut counter = Counter::new(believed(START + 9 * 86_400 * SECOND));
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
        now: START + 9 * 86_400 * SECOND,
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

/// Compares a part with the decisions that it is of.
fn check(part: &Part, of: &[&Value], seconds: f64) {
    assert_eq!(part.decisions, of.len() as u64, "{part:?}");
    assert_eq!(part.denied, of.iter().filter(|d| denied(d)).count() as u64);
    assert_eq!(part.failed, of.iter().filter(|d| d.get("result").is_none()).count() as u64);
    assert!((part.mean_per_second - of.len() as f64 / seconds).abs() < 1e-9);
    let busiest = |width: i64| {
        let mut counts: HashMap<i64, u32> = HashMap::new();
        for decision in of {
            *counts.entry(at(decision) / SECOND / width).or_default() += 1;
        }
        let most = counts.values().copied().max().unwrap();
        (
            most,
            counts
                .into_iter()
                .filter(|(_, n)| *n == most)
                .map(|(at, _)| at * width * SECOND)
                .min()
                .unwrap(),
        )
    };
    let (most, when) = busiest(1);
    assert_eq!((part.peak_second.per_second, part.peak_second.at), (f64::from(most), when));
    let (most, when) = busiest(60);
    assert_eq!((part.peak_minute.per_second, part.peak_minute.at), (f64::from(most) / 60.0, when));
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
    near(busy.headroom.unwrap(), 2.0 / (part.peak_second.per_second * busy.mean_ns / 1e9), 1e-9);
    if let Some(e) = &part.evaluation {
        assert_eq!((e.decisions, e.sum_ns), (times.len() as u64, sum));
        for (said, q) in [(e.p50_ns, 0.5), (e.p95_ns, 0.95), (e.p99_ns, 0.99), (e.max_ns, 1.0)] {
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
    let seconds = (last - first) as f64 / 1e9;
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
    assert!(sentences[1].contains("too few whole days"), "{sentences:?}");

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
    assert!(timer("rego_builtin_http_send").part_of_slowest > timer("rego_builtin_http_send").part);
    assert!(timer("rego_query_eval").part_of_slowest < timer("rego_query_eval").part);
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
    for part in review.services.iter().chain(&review.opas) {
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
        assert_eq!(cells.len(), 12, "{row}");
        *sums.entry(cells[1]).or_default() += cells[4].parse::<u64>().unwrap();
    }
    assert_eq!(
        sums,
        BTreeMap::from(["all", "service", "policy", "opa"].map(|dimension| (dimension, 2000)))
    );
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
