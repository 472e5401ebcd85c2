//! How good the detector is: made-up days with known events, or quiet ones.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use clap::ValueEnum;

use super::Args;
use crate::cli::CommandResult;
use crate::decision::time::{self, Nanos};
use crate::generate::quality::{self, Score};
use crate::generate::scenario::Scenario;
use crate::spike::config::Config;

/// 2026-01-07, a Wednesday.
const FIRST_DAY: Nanos = 1_767_744_000_000_000_000;

/// The detector, and the two simple rules beside it.
type Scores = [Score; 3];

pub(super) fn evaluate(args: &Args, config: &Config, lateness: Nanos) -> CommandResult {
    let scenarios = match args.scenario.as_slice() {
        [] => Scenario::value_variants(),
        some => some,
    };
    let judged = judged(args, scenarios, config, lateness);
    let mut rows = vec![HEADS.map(str::to_owned).to_vec()];
    let mut all = Scores::default();
    for scenario in scenarios {
        let mut scores = Scores::default();
        for day in judged.iter().filter(|day| day.scenario == *scenario) {
            add(&mut scores, [&day.detector, &day.ratio, &day.sigma]);
        }
        rows.push(row(name(*scenario), &scores));
        add(&mut all, scores.each_ref());
    }
    rows.push(row("all".into(), &all));
    anstream::print!("{}", crate::cli::table(&rows));
    anstream::println!("found and, after +, wrong: two plain rules beside docket");
    judged.iter().for_each(tell);
    if let Some(days) = args.quiet {
        // One false page in 30 days.
        let allowed = days.div_ceil(30) as usize;
        return match judged.iter().filter(|day| day.wrong.len() > allowed).count() {
            0 => Ok(()),
            n => Err(format!("{n} runs with more than one false finding in 30 days").into()),
        };
    }
    let [detector, ratio, sigma] = &all;
    for (name, score) in [("docket", detector), ("ratio > 20 %", ratio), ("3 sigma", sigma)] {
        let number = |n: usize, value: f64| dash(n, format!("{value:.3}"));
        anstream::println!(
            "{name}: recall {}, precision {}, median {}, right first cause {}",
            number(score.events, score.recall()),
            number(score.said, score.precision()),
            delay(score),
            number(score.caused, score.cause())
        );
    }
    anstream::println!(
        "begun more than 10 s early: {}, of an event found before: {}, of {} right findings",
        detector.early,
        detector.again,
        detector.right
    );
    let good = detector.recall() >= 0.97
        && detector.precision() >= 0.97
        && (detector.delays.is_empty() || detector.median_delay() <= 20.0)
        && (detector.caused == 0 || detector.cause() >= 0.95);
    if good {
        Ok(())
    } else {
        Err("below the goals: recall and precision 0.97, median detection 20 s, right first cause 0.95".into())
    }
}

/// Lives through the days, on all processors.
fn judged(
    args: &Args,
    scenarios: &[Scenario],
    config: &Config,
    lateness: Nanos,
) -> Vec<quality::Judged> {
    let seeds = args.seed..args.seed + if args.quiet.is_some() { 1 } else { args.days };
    let days: Vec<(Scenario, u64)> =
        scenarios.iter().flat_map(|s| seeds.clone().map(|seed| (*s, seed))).collect();
    let bar = crate::cli::progress(days.len() as u64, "days");
    let (next, judged) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let judge = |(scenario, seed): (Scenario, u64)| match args.quiet {
        Some(days) => {
            quality::judge_quiet(scenario, seed, FIRST_DAY, days.into(), config, lateness)
        }
        None => quality::judge(scenario, seed, FIRST_DAY, config, lateness),
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(day) = days.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = judge(*day);
                    bar.inc(1);
                    judged.lock().unwrap_or_else(PoisonError::into_inner).push(result);
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut judged = judged.into_inner().unwrap_or_else(PoisonError::into_inner);
    judged.sort_by_key(|day| (day.scenario as usize, day.seed));
    judged
}

fn name(scenario: Scenario) -> String {
    scenario.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
}

fn add(sums: &mut Scores, scores: [&Score; 3]) {
    for (sum, score) in sums.iter_mut().zip(scores) {
        sum.add(score);
    }
}

/// What is said of so many.
fn dash(n: usize, text: String) -> String {
    if n == 0 { "-".into() } else { text }
}

fn delay(score: &Score) -> String {
    dash(score.delays.len(), format!("{:.0} s", score.median_delay()))
}

/// In 80 columns.
const HEADS: [&str; 8] =
    ["SCENARIO", "DAYS", "FOUND", "WRONG", "DELAY", "CAUSE", "> 20 %", "3 SIGMA"];

fn row(name: String, [detector, ratio, sigma]: &Scores) -> Vec<String> {
    let wrong = |score: &Score| score.said - score.right;
    let rule = |score: &Score| {
        let found = dash(score.events, score.found.to_string());
        format!("{found} +{}", wrong(score))
    };
    vec![
        name,
        detector.days.to_string(),
        dash(detector.events, format!("{}/{}", detector.found, detector.events)),
        wrong(detector).to_string(),
        delay(detector),
        dash(detector.caused, format!("{}/{}", detector.cause_right, detector.caused)),
        rule(ratio),
        rule(sigma),
    ]
}

/// What was wrong of a day, on standard error.
fn tell(day: &quality::Judged) {
    let name = name(day.scenario);
    for finding in &day.wrong {
        anstream::eprintln!(
            "{name} {}: wrong: {} {} (onset {}, score {:.0})",
            day.seed,
            time::format(finding.detected),
            finding.sentence(),
            time::format(finding.onset),
            finding.score
        );
    }
    for event in &day.missed {
        anstream::eprintln!(
            "{name} {}: missed: {} {} to {}",
            day.seed,
            event.service,
            time::format(event.from),
            time::format(event.to)
        );
    }
    if day.detector.cause_right < day.detector.caused {
        for finding in &day.right {
            anstream::eprintln!("{name} {}: said: {}", day.seed, finding.sentence());
        }
    }
}
