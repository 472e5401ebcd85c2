//! Capacity reviews: what a platform's decisions ask of its OPAs, where that grows to, what it costs, and what is left. Pure:
//! from docket records to numbers, and from numbers to a page.
//!
//! `count` counts, `aside` sees to what is far from the rest, `covered` knows of which seconds, `days` of which days; `latency` has the evaluation
//! times, `forecast` the growth, `level` that the load changed at once, `spare` the headroom of services. `enough` says how much a number has to be
//! of, and `numbers` writes them for people. `report` writes the page with `chart`'s pictures, `table` the CSV.

pub mod aside;
pub mod chart;
pub mod conclusions;
pub mod count;
pub mod covered;
pub mod days;
pub mod enough;
mod fit;
pub mod forecast;
pub mod latency;
pub mod level;
pub mod numbers;
pub mod report;
pub mod spare;
pub mod table;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::decision::time::{self, Nanos};
use aside::LeftOut;
use conclusions::Conclusion;
use count::{Counter, Hour, Load};
use covered::Covered;
use days::Day;
use forecast::Forecast;
use latency::Evaluation;
use level::Changed;
use numbers::{DAY, HOUR};
use spare::Spare;

/// What a decision's time may be when a review is made: of the last 400 days, and not of tomorrow.
pub fn believed(now: Nanos) -> std::ops::Range<Nanos> {
    now - 400 * DAY..now + DAY
}

/// A review: the numbers of the page, and of the JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Review {
    pub pipeline: String,
    /// The first decision's time, and the last's.
    #[serde(serialize_with = "time::serialize")]
    pub from: Nanos,
    #[serde(serialize_with = "time::serialize")]
    pub to: Nanos,
    /// Whole seconds, that of the first and that of the last among them.
    pub seconds: f64,
    /// What it comes to.
    pub conclusions: Vec<Conclusion>,
    pub total: Part,
    /// Most decisions first.
    pub services: Vec<Part>,
    /// By service and policy.
    pub policies: Vec<Part>,
    /// By service and OPA; least headroom first.
    pub opas: Vec<Part>,
    /// By service, in their order of appearance.
    pub revisions: Vec<Revision>,
    pub days: Vec<Day>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
    /// The last time that the load changed at once: the forecast is of the days since, if they are enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed: Option<Changed>,
    /// What the OPAs of a service could take, were one of them gone.
    pub spare: Vec<Spare>,
    pub volumes: Vec<Volume>,
    /// Cores that each OPA may use.
    pub cores: f64,
    pub read: Read,
    /// What the charts show; the CSV has it.
    #[serde(skip)]
    pub hours: Hours,
}

/// Of a service, a policy or an OPA, or of all.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Part {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// Of the policy or OPA.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub decisions: u64,
    pub denied: u64,
    /// Errors and undefined.
    pub failed: u64,
    /// Over the whole review, if that is of a minute or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_per_second: Option<f64>,
    pub peak_second: Peak,
    /// Its busiest minute, as decisions a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_minute: Option<Peak>,
    /// Hours with decisions.
    pub hours: u64,
    /// Where there are enough decisions whose time is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy: Option<Busy>,
    /// Its part of all evaluation time: what it costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Evaluation>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Peak {
    pub per_second: f64,
    #[serde(serialize_with = "time::serialize")]
    pub at: Nanos,
}

/// How many cores were busy with evaluation: decisions a second times seconds a decision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Busy {
    pub mean_cores: f64,
    pub peak_hour_cores: f64,
    /// In the busiest minute: as long as a queue of requests is felt.
    pub peak_minute_cores: f64,
    pub peak_second_cores: f64,
    pub mean_ns: f64,
    /// Which part of the evaluation time is waiting for others' answers; it is not counted as busy.
    pub waiting: f64,
    /// How much longer a decision takes in the busier half of its hours than in the other, as a factor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slower_when_busy: Option<f64>,
    /// Of an OPA alone: how many times its own busiest minute it could take, if evaluation is all it does. That of a service is in `spare`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headroom: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Revision {
    pub service: String,
    pub revision: String,
    #[serde(serialize_with = "time::serialize")]
    pub first: Nanos,
    #[serde(serialize_with = "time::serialize")]
    pub last: Nanos,
    pub decisions: u64,
    pub denied: u64,
    pub failed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Evaluation>,
    /// The one before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Against the one before, in points of a part and as a factor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denied_change: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p95_factor: Option<f64>,
}

/// What goes somewhere.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Volume {
    pub sink: String,
    /// Bytes a decision, as they are sent: compressed where the sink is sent compressed bodies.
    pub bytes_per_decision: f64,
    /// If the review is of a day or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_day: Option<f64>,
    /// In the review.
    pub bytes: f64,
    /// Of how many decisions that is known.
    pub of: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Read {
    pub topic: String,
    pub findings: u64,
    pub unreadable: u64,
    /// Left out: the same decisions again, of the last million.
    pub repeats: u64,
    /// Out of order by hours; perhaps missing from peaks.
    pub late: u64,
    /// Left out for timestamps of the future, or of more than 400 days ago.
    pub odd: u64,
    /// Left out for being far from all others in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
    /// Prometheus, if it was asked for the days before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<String>,
}

/// Decisions by the hour, for all, and for each service, policy and OPA.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hours(pub Vec<(&'static str, String, String, BTreeMap<i64, Hour>)>);

/// What a review is made of beside the counts.
pub struct Asked {
    pub pipeline: String,
    pub cores: f64,
    /// How many days ahead to look.
    pub ahead: u64,
    /// Days before the docket's, by number since the epoch.
    pub history: BTreeMap<i64, f64>,
    pub volumes: Vec<Volume>,
    pub read: Read,
    pub now: Nanos,
    /// The review goes on to the present.
    pub current: bool,
}

/// Makes the review; nothing without a decision.
pub fn review(mut counter: Counter, asked: Asked) -> Option<Review> {
    counter.settle();
    let (from, to) = (counter.first, counter.last);
    if from > to {
        return None;
    }
    let covered = counter.covered();
    let seconds = covered.seconds() as f64;
    let whole = counter.whole();
    let timed: u64 = whole.hours.values().map(|h| h.timed).sum();
    let busy: u64 = whole.hours.values().map(|h| h.busy).sum();
    let busy = if enough::for_headroom(timed, covered.seconds()) { busy } else { 0 };
    let part = |service: &str, name: &str, load: &Load| part(service, name, load, covered, busy);
    let total = part("", "", whole);
    let mut services: Vec<Part> =
        counter.services().map(|(service, name, load)| part(service, name, load)).collect();
    let mut policies: Vec<Part> =
        counter.policies().map(|(service, name, load)| part(service, name, load)).collect();
    let mut opas: Vec<Part> =
        counter.opas().map(|(service, name, load)| part(service, name, load)).collect();
    for busy in opas.iter_mut().filter_map(|opa| opa.busy.as_mut()) {
        busy.headroom =
            (busy.peak_minute_cores > 0.0).then(|| asked.cores / busy.peak_minute_cores);
    }
    for parts in [&mut services, &mut policies] {
        parts.sort_by(|a, b| {
            b.decisions
                .cmp(&a.decisions)
                .then_with(|| (&a.service, &a.name).cmp(&(&b.service, &b.name)))
        });
    }
    let headroom = |p: &Part| p.busy.and_then(|b| b.headroom).unwrap_or(f64::INFINITY);
    opas.sort_by(|a, b| {
        headroom(a)
            .total_cmp(&headroom(b))
            .then_with(|| (&a.service, &a.name).cmp(&(&b.service, &b.name)))
    });

    let hours = hours(&counter);
    let days = days::days(whole, from, to, &asked.history);
    let known = days::known(&days);
    let forecast = forecast::forecast(&known, asked.ahead);
    let changed = level::changed(&known);
    let a_day = |bytes: f64| enough::a_day(seconds).then(|| bytes / seconds * 86_400.0);
    let mut volumes = asked.volumes;
    for volume in &mut volumes {
        volume.bytes = volume.bytes_per_decision * total.decisions as f64;
        volume.bytes_per_day = a_day(volume.bytes);
    }
    let docket = counter.bytes as f64;
    let of_docket = Volume {
        sink: format!("{} (the docket topic, before Kafka's compression)", asked.read.topic),
        bytes_per_decision: docket / total.decisions as f64,
        bytes_per_day: a_day(docket),
        bytes: docket,
        of: total.decisions,
        unknown: None,
    };
    volumes.insert(0, of_docket);
    let read =
        Read { late: counter.late, odd: counter.odd, left_out: counter.left_out, ..asked.read };
    let mut review = Review {
        conclusions: Vec::new(),
        pipeline: asked.pipeline,
        from,
        to,
        seconds,
        spare: spare::spare(&services, &counter, &days, asked.cores, asked.ahead),
        total,
        services,
        policies,
        opas,
        revisions: revisions(&counter),
        forecast,
        changed,
        days,
        volumes,
        cores: asked.cores,
        read,
        hours,
    };
    review.conclusions = conclusions::conclusions(&review, asked.now, asked.current);
    Some(review)
}

/// Every hour: of all, then of each service, policy and OPA.
fn hours(counter: &Counter) -> Hours {
    let owned = |kind: &'static str| {
        move |(service, name, load): (&str, &str, &Load)| {
            (kind, service.to_owned(), name.to_owned(), load.hours.clone())
        }
    };
    let mut rest: Vec<_> = counter.services().map(owned("service")).collect();
    rest.extend(counter.policies().map(owned("policy")));
    rest.extend(counter.opas().map(owned("opa")));
    rest.sort_by(|a, b| (a.0, &a.1, &a.2).cmp(&(b.0, &b.1, &b.2)));
    let all = ("all", String::new(), String::new(), counter.whole().hours.clone());
    Hours(std::iter::once(all).chain(rest).collect())
}

fn part(service: &str, name: &str, load: &Load, covered: Covered, all_busy: u64) -> Part {
    let seconds = covered.seconds() as f64;
    let sum = |of: fn(&Hour) -> u64| load.hours.values().map(of).sum::<u64>();
    let (decisions, timed, busy) = (sum(|h| h.decisions), sum(|h| h.timed), sum(|h| h.busy));
    let waited = sum(|h| h.waited);
    // The first of equals.
    let (most, at) = load
        .hours
        .values()
        .map(|h| h.second)
        .max_by_key(|(n, at)| (*n, std::cmp::Reverse(*at)))
        .unwrap_or_default();
    let peak_second = Peak { per_second: f64::from(most), at };
    let rates = covered.seconds() >= enough::RATE;
    let peak_minute = peak_minute(load, covered, i64::MIN);
    let busy_of = enough::for_headroom(timed, covered.seconds()).then(|| {
        let mean_ns = busy as f64 / timed as f64;
        Busy {
            mean_cores: cores(busy, timed, decisions, seconds),
            peak_hour_cores: peak_hour_cores(load, covered),
            peak_minute_cores: peak_minute.per_second * mean_ns / 1e9,
            peak_second_cores: peak_second.per_second * mean_ns / 1e9,
            mean_ns,
            waiting: waited as f64 / (busy + waited).max(1) as f64,
            slower_when_busy: slower_when_busy(load),
            headroom: None,
        }
    });
    Part {
        service: service.to_owned(),
        name: name.to_owned(),
        decisions,
        denied: sum(|h| h.denied),
        failed: sum(|h| h.failed),
        mean_per_second: rates.then(|| decisions as f64 / seconds),
        peak_second,
        peak_minute: rates.then_some(peak_minute),
        hours: load.hours.len() as u64,
        busy: busy_of,
        cost: (all_busy > 0).then(|| busy as f64 / all_busy as f64),
        evaluation: load.latency.as_ref().and_then(latency::Latency::evaluation),
    }
}

/// How many cores are busy. Of decisions whose time is not known, it is taken to be the same.
fn cores(busy: u64, timed: u64, decisions: u64, seconds: f64) -> f64 {
    busy as f64 / 1e9 / seconds * decisions as f64 / timed.max(1) as f64
}

/// The busiest minute from an hour on. Where less than a minute of an hour is covered, it counts with the whole hour beside it.
fn peak_minute(load: &Load, covered: Covered, since: i64) -> Peak {
    let of = |(hour, of): (&i64, &Hour)| {
        let stretch = covered.stretch(*hour, enough::RATE);
        if stretch.start() == stretch.end() {
            return Peak { per_second: of.minute.per_second(), at: of.minute.at };
        }
        let per_second = Hours::rate(&load.hours, &covered, *hour);
        Peak { per_second, at: (stretch.start() * HOUR).max(covered.begin()) }
    };
    load.hours.range(since..).map(of).fold(Peak::default(), |most, peak| {
        if peak.per_second > most.per_second { peak } else { most }
    })
}

impl Hours {
    /// Decisions a second of an hour, by the seconds of it that are covered; with its neighbour, if that is less than a minute.
    pub fn rate(hours: &BTreeMap<i64, Hour>, covered: &Covered, hour: i64) -> f64 {
        let stretch = covered.stretch(hour, enough::RATE);
        let decisions: u64 = hours.range(stretch.clone()).map(|(_, h)| h.decisions).sum();
        decisions as f64 / covered.of_all(stretch).max(1) as f64
    }
}

/// The busiest hour; one of which less than half is covered goes with its neighbour.
fn peak_hour_cores(load: &Load, covered: Covered) -> f64 {
    let of = |hour: &i64| {
        let stretch = covered.stretch(*hour, enough::SPAN / 2);
        let mut sums = (0, 0, 0);
        for (_, of) in load.hours.range(stretch.clone()) {
            sums = (sums.0 + of.busy, sums.1 + of.timed, sums.2 + of.decisions);
        }
        cores(sums.0, sums.1, sums.2, covered.of_all(stretch).max(1) as f64)
    };
    load.hours.keys().map(of).fold(0.0, f64::max)
}

/// By how much a decision takes longer in the busier half of the hours; needs some hours to say so.
fn slower_when_busy(load: &Load) -> Option<f64> {
    let mut hours: Vec<&Hour> = load.hours.values().filter(|h| h.timed > 0).collect();
    if hours.len() < 6 {
        return None;
    }
    hours.sort_by_key(|h| h.decisions);
    let (quiet, busy) = hours.split_at(hours.len() / 2);
    let timed = |hours: &[&Hour]| hours.iter().map(|h| h.timed).sum::<u64>();
    if timed(quiet).min(timed(busy)) < enough::HALF {
        return None;
    }
    let mean = |hours: &[&Hour]| {
        hours.iter().map(|h| h.busy).sum::<u64>() as f64 / timed(hours).max(1) as f64
    };
    let quiet = mean(quiet);
    (quiet > 0.0).then(|| mean(busy) / quiet)
}

fn revisions(counter: &Counter) -> Vec<Revision> {
    let mut all: Vec<Revision> = counter
        .revisions()
        .map(|(service, revision, of)| Revision {
            service: service.to_owned(),
            revision: revision.to_owned(),
            first: of.first,
            last: of.last,
            decisions: of.decisions,
            denied: of.denied,
            failed: of.failed,
            evaluation: of.latency.evaluation(),
            before: None,
            denied_change: None,
            p95_factor: None,
        })
        .collect();
    all.sort_by(|a, b| (&a.service, a.first, &a.revision).cmp(&(&b.service, b.first, &b.revision)));
    for i in 1..all.len() {
        let (known, rest) = all.split_at_mut(i);
        let (before, this) = (&known[i - 1], &mut rest[0]);
        if before.service != this.service {
            continue;
        }
        let part = |r: &Revision| r.denied as f64 / r.decisions.max(1) as f64;
        this.before = Some(before.revision.clone());
        let compared = this.decisions.min(before.decisions) >= enough::COMPARED;
        this.denied_change = compared.then(|| part(this) - part(before));
        let p95 = |r: &Revision| {
            r.evaluation.as_ref().and_then(|e| e.p95_ns).map(|n| n as f64).filter(|n| *n > 0.0)
        };
        this.p95_factor = p95(this).zip(p95(before)).map(|(now, then)| now / then);
    }
    all
}
