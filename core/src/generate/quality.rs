//! How good the detector is: on days whose events are known, beside two plain rules.

use std::collections::BTreeMap;

use super::scenario::{Day, Event, Scenario};
use crate::decision::time::Nanos;
use crate::decision::verdict::Verdict;
use crate::spike::baseline::{MINUTE, bucket};
use crate::spike::config::Config;
use crate::spike::follow::Follower;
use crate::spike::horizon::horizon;
use crate::spike::{Change, Finding, Kind, Observation, SECOND};

/// A denial of a moment before may well belong to it.
const EARLY: Nanos = 10 * SECOND;
/// What is said after an event is still about it: so long.
const AFTER: Nanos = 120 * SECOND;

/// How a detector did on some days.
#[derive(Debug, Clone, Default)]
pub struct Score {
    pub days: usize,
    pub events: usize,
    /// Events that were found, findings that were about an event, and all findings.
    pub found: usize,
    pub right: usize,
    pub said: usize,
    /// Findings whose first cause was the event's, of those that have one.
    pub cause_right: usize,
    pub caused: usize,
    /// Seconds from an event's beginning to its detection.
    pub delays: Vec<f64>,
    /// Right findings that say to have begun before their event.
    pub early: usize,
    /// Right findings of an event of which one was there already.
    pub again: usize,
}

impl Score {
    pub fn recall(&self) -> f64 {
        part(self.found, self.events)
    }

    pub fn precision(&self) -> f64 {
        part(self.right, self.said)
    }

    pub fn cause(&self) -> f64 {
        part(self.cause_right, self.caused)
    }

    pub fn median_delay(&self) -> f64 {
        let mut delays = self.delays.clone();
        delays.sort_unstable_by(f64::total_cmp);
        delays.get(delays.len() / 2).copied().unwrap_or(f64::NAN)
    }

    pub fn add(&mut self, other: &Score) {
        self.days += other.days;
        self.events += other.events;
        self.found += other.found;
        self.right += other.right;
        self.said += other.said;
        self.cause_right += other.cause_right;
        self.caused += other.caused;
        self.delays.extend(&other.delays);
        self.early += other.early;
        self.again += other.again;
    }
}

fn part(some: usize, all: usize) -> f64 {
    if all == 0 { 1.0 } else { some as f64 / all as f64 }
}

/// A day's scores: the detector's and the two rules'; and what the detector said that was about nothing, and missed.
#[derive(Debug)]
pub struct Judged {
    pub scenario: Scenario,
    pub seed: u64,
    pub detector: Score,
    pub ratio: Score,
    pub sigma: Score,
    pub wrong: Vec<Finding>,
    pub missed: Vec<Event>,
    pub right: Vec<Finding>,
}

/// Lives through a day, `lateness` behind the latest decision.
pub fn judge(
    scenario: Scenario,
    seed: u64,
    start: Nanos,
    config: &Config,
    lateness: Nanos,
) -> Judged {
    let day = Day::new(scenario, seed, begins(scenario, start), 1.0);
    if scenario == Scenario::FarAhead {
        return look_at_file(day, seed, config, lateness);
    }
    live(day, seed, config, lateness)
}

/// Lives through days of a scenario's platform on which nothing happens: whatever is said is wrong.
pub fn judge_quiet(
    scenario: Scenario,
    seed: u64,
    start: Nanos,
    days: i64,
    config: &Config,
    lateness: Nanos,
) -> Judged {
    let day = Day::quiet(scenario, seed, begins(scenario, start), days);
    let mut judged = live(day, seed, config, lateness);
    judged.detector.days = usize::try_from(days).unwrap_or_default();
    judged
}

/// Clocks are changed on 25 October 2026, the fifth day from the Wednesday before on; other days begin at `start`.
fn begins(scenario: Scenario, start: Nanos) -> Nanos {
    if scenario == Scenario::DaylightSaving { 1_792_540_800 * SECOND } else { start }
}

fn live(mut day: Day, seed: u64, config: &Config, lateness: Nanos) -> Judged {
    let scenario = day.scenario;
    let mut config = config.clone();
    if scenario == Scenario::JunkPaths {
        // Room that thousands of junk policies fill, in less time than a thousand series take.
        config.max_series = config.max_series.min(100);
    }
    let config = &config;
    let mut follower = Follower::new(config.clone(), lateness, std::iter::once(0));
    let (mut ratio_rule, mut sigma_rule) = (Rules::default(), Rules::default());
    let (mut second, mut findings) = (Vec::new(), Vec::new());
    let (from, to) = day.stretch();
    day.skip_to(from);
    let mut now = from;
    while now < to {
        day.second(&mut second);
        now += SECOND;
        if scenario == Scenario::Restarts && now / SECOND % 86_400 == 43_200 {
            follower = restarted(&follower, config, lateness, now);
        }
        for made in &second {
            day.observe(made, |seen| {
                follower.observe(0, seen, now);
                ratio_rule.observe(seen);
                sigma_rule.observe(seen);
            });
        }
        follower.ended(0);
        findings.extend(follower.advance(now).into_iter().filter_map(|change| {
            match change {
                // What counts is when it is said.
                Change::Begins(finding) => Some(Finding { detected: now, ..finding }),
                Change::Ends(_) => None,
            }
        }));
        ratio_rule.minute(now, ratio);
        sigma_rule.minute(now, sigma);
    }
    judged(&day, seed, &findings, [&ratio_rule, &sigma_rule])
}

fn judged(day: &Day, seed: u64, findings: &[Finding], [ratio, sigma]: [&Rules; 2]) -> Judged {
    let events = day.events();
    let (detector, wrong, missed, right) = score(&events, findings);
    let (ratio, sigma) = (score(&events, &ratio.said).0, score(&events, &sigma.said).0);
    Judged { scenario: day.scenario, seed, detector, ratio, sigma, wrong, missed, right }
}

/// The same of a file, which says nothing of when its decisions came.
fn look_at_file(mut day: Day, seed: u64, config: &Config, lateness: Nanos) -> Judged {
    let mut follower = Follower::new(config.clone(), lateness, std::iter::once(0));
    let (from, to) = day.stretch();
    day.skip_to(from);
    let (mut all, mut second, mut now) = (Vec::new(), Vec::new(), from);
    while now < to {
        day.second(&mut second);
        all.append(&mut second);
        now += SECOND;
    }
    all.sort_by_key(|made| made.at);
    let times: Vec<Nanos> = all.iter().map(|made| made.at).collect();
    let mut rules = (Rules::default(), Rules::default());
    let changes = follower.look_at_file(&times, |i, take| day.observe(&all[i], take));
    let end = horizon(&times).unwrap_or(Nanos::MAX);
    for made in &all {
        day.observe(made, |seen| {
            rules.0.observe(seen);
            rules.1.observe(seen);
        });
        rules.0.minute(end.min(made.at), ratio);
        rules.1.minute(end.min(made.at), sigma);
    }
    let begins = |change| match change {
        Change::Begins(finding) => Some(finding),
        Change::Ends(_) => None,
    };
    let findings: Vec<Finding> = changes.into_iter().filter_map(begins).collect();
    judged(&day, seed, &findings, [&rules.0, &rules.1])
}

/// More than a fifth of a minute's decisions is denied.
fn ratio(_: &[f64], denied: f64, all: f64) -> bool {
    all >= 10.0 && denied / all > 0.2
}

/// Denials are three standard deviations above the last hour's.
fn sigma(past: &[f64], denied: f64, _: f64) -> bool {
    let n = past.len() as f64;
    let mean = past.iter().sum::<f64>() / n.max(1.0);
    let variance = past.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n.max(1.0);
    n >= 10.0 && denied > mean + 3.0 * variance.sqrt() && denied >= 5.0
}

/// Another process goes on with what the old one kept.
fn restarted(old: &Follower, config: &Config, lateness: Nanos, now: Nanos) -> Follower {
    let piece = |key: String| old.detector.export(&key).map(|piece| (key, piece));
    let pieces: Vec<(String, Vec<u8>)> =
        old.detector.keys().into_iter().filter_map(piece).collect();
    let mut new = Follower::new(config.clone(), lateness, std::iter::once(0));
    new.restore(pieces.iter().map(|(k, p)| (k.as_str(), p.as_slice())), now, |through| through);
    new
}

fn score(
    events: &[Event],
    findings: &[Finding],
) -> (Score, Vec<Finding>, Vec<Event>, Vec<Finding>) {
    let about = |event: &Event, finding: &Finding| {
        event.kinds.contains(&finding.kind)
            && event.service == finding.service
            && (event.from..event.to + AFTER).contains(&finding.detected)
    };
    let mut score =
        Score { days: 1, events: events.iter().filter(|e| !e.may).count(), ..Score::default() };
    let (mut wrong, mut missed, mut good) = (Vec::new(), Vec::new(), Vec::new());
    for finding in findings {
        match events.iter().find(|e| about(e, finding)) {
            Some(event) if event.may => {}
            Some(event) => {
                score.said += 1;
                score.right += 1;
                score.early += usize::from(finding.onset < event.from - EARLY);
                good.push(finding.clone());
                if event.cause.is_some() {
                    score.caused += 1;
                    let said = finding.causes.first().map(|c| (c.dimension, c.value.clone()));
                    let right = said.is_some() && (said == event.cause || said == event.or);
                    score.cause_right += usize::from(right);
                }
            }
            None => {
                score.said += 1;
                wrong.push(finding.clone());
            }
        }
    }
    for event in events.iter().filter(|e| !e.may) {
        let found = findings.iter().filter(|f| about(event, f)).map(|f| f.detected);
        score.again += found.clone().count().saturating_sub(1);
        match found.min() {
            Some(at) => {
                score.found += 1;
                score.delays.push((at - event.from) as f64 / SECOND as f64);
            }
            None => missed.push(event.clone()),
        }
    }
    (score, wrong, missed, good)
}

/// A rule on each minute of a service's policy, with the 60 minutes before; as alert rules are commonly written.
#[derive(Default)]
struct Rules {
    /// By service, zero byte, policy.
    series: BTreeMap<String, Minutes>,
    said: Vec<Finding>,
    minute: i64,
    scratch: String,
}

#[derive(Default)]
struct Minutes {
    denied: f64,
    all: f64,
    past: Vec<f64>,
    /// So many minutes without a denial since the last one.
    calm: usize,
    firing: bool,
}

impl Rules {
    fn observe(&mut self, seen: &Observation<'_>) {
        self.scratch.clear();
        self.scratch.extend([seen.service, "\0", seen.policy]);
        if !self.series.contains_key(&self.scratch) {
            self.series.insert(self.scratch.clone(), Minutes::default());
        }
        let Some(series) = self.series.get_mut(&self.scratch) else { return };
        series.all += 1.0;
        series.denied += f64::from(u8::from(seen.verdict == Verdict::Deny));
    }

    fn minute(&mut self, now: Nanos, fires: impl Fn(&[f64], f64, f64) -> bool) {
        let minute = bucket(now) / MINUTE;
        if minute == self.minute {
            return;
        }
        self.minute = minute;
        for (name, series) in &mut self.series {
            // Nothing changes: of junk there may be thousands.
            if series.calm >= 60 && series.denied == 0.0 && !series.firing {
                series.all = 0.0;
                continue;
            }
            series.calm = if series.denied == 0.0 { series.calm + 1 } else { 0 };
            let (service, policy) = name.split_once('\0').unwrap_or_default();
            let firing = fires(&series.past, series.denied, series.all);
            if firing && !series.firing {
                let new = Finding::new(Kind::DenialSpike, service, policy);
                self.said.push(Finding { onset: now, detected: now, ..new });
            }
            series.firing = firing;
            series.past.push(series.denied);
            if series.past.len() > 60 {
                series.past.remove(0);
            }
            (series.denied, series.all) = (0.0, 0.0);
        }
    }
}
