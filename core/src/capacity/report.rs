//! The review as one page that needs nothing else: no script, no font, no picture from elsewhere. Made to be printed.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::aside::LeftOut;
use super::chart::{self, Bar, Named, Steps};
use super::covered::Covered;
use super::fit::Trend;
use super::latency::Evaluation;
use super::numbers::{DAY, HOUR, SECOND, count, counted, human};
use super::{Hours, Part, Peak, Review, days, enough, forecast, level};
use crate::decision::time::{self, Nanos};

/// Rows of a table; the CSV and the JSON have all.
const ROWS: usize = 25;

const STYLE: &str = "
:root{color-scheme:light}
body{font:14px/1.45 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;color:#1a1a1a;background:#fff;max-width:980px;margin:24px auto;padding:0 20px}
h1{font-size:24px;margin:0 0 2px}h2{font-size:17px;margin:30px 0 4px;border-bottom:2px solid #1a1a1a;padding-bottom:3px}h3{font-size:14px;margin:18px 0 2px}
p{margin:6px 0}.quiet{color:#555}.cards{display:grid;grid-template-columns:repeat(4,1fr);gap:10px;margin:16px 0}
.card{border:1px solid #bbb;border-radius:4px;padding:8px 10px}.card b{display:block;font-size:21px;line-height:1.2}.card span{color:#555;font-size:12px}
svg{width:100%;height:auto;display:block;margin:2px 0 8px}svg text{font-size:12px;fill:#1a1a1a}svg .axis{fill:#555;font-size:11px}
svg .grid{stroke:#ddd;stroke-width:1}svg .tick{stroke:#555}
.legend{margin:8px 0 0;font-size:12px}.legend span{margin-right:16px;white-space:nowrap}.legend i{display:inline-block;width:11px;height:11px;margin-right:5px;vertical-align:-1px}
table{border-collapse:collapse;width:100%;margin:6px 0 4px;font-size:12.5px}th{text-align:right;border-bottom:1px solid #1a1a1a;font-weight:600;padding:3px 6px;vertical-align:bottom}
td{text-align:right;border-bottom:1px solid #e3e3e3;padding:3px 6px;font-variant-numeric:tabular-nums;white-space:nowrap}th.l,td.l{text-align:left;white-space:normal;overflow-wrap:break-word}
td.bad{font-weight:700;color:#a33b00}
@media print{@page{size:A4;margin:14mm}body{margin:0;padding:0;max-width:none;font-size:11px}h2,h3,.legend{break-after:avoid}svg,tr,.cards,.card{break-inside:avoid}table{font-size:10px}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
";

pub fn html(review: &Review, made: Nanos) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { "Capacity review: " (review.pipeline) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Capacity review: " (review.pipeline) }
                p class="quiet" { (minute(review.from)) " to " (minute(review.to)) " UTC, " (enough::lasting(review.seconds as Nanos * SECOND)) "; made " (minute(made)) }
                (cards(review))
                (conclusions(review))
                (load(review))
                (growth(review))
                (evaluation(review))
                (cost(review))
                (headroom(review))
                (rollouts(review))
                (volumes(review))
                (method(review))
            }
        }
    };
    page.into_string()
}

fn minute(at: Nanos) -> String {
    let text = time::format(at);
    format!("{} {}", &text[..10], &text[11..16])
}

/// How many whole days there are, of the present level.
fn whole_days(review: &Review) -> String {
    match level::present(&days::known(&review.days)).len() {
        1 => "is 1".into(),
        n => format!("are {n}"),
    }
}

/// The level that the days have to be of, if the load changed at once.
fn new_level(review: &Review) -> String {
    let new = review.changed.as_ref().filter(|changed| changed.days > 1);
    new.map_or_else(String::new, |changed| format!(" of the level since {}", changed.day))
}

pub fn nanos(n: f64) -> String {
    match n {
        n if n >= 3.6e12 => format!("{} h", human(n / 3.6e12)),
        n if n >= 6e10 => format!("{} min", human(n / 6e10)),
        n if n >= 1e9 => format!("{:.2} s", n / 1e9),
        n if n >= 1e8 => format!("{:.0} ms", n / 1e6),
        n if n >= 1e7 => format!("{:.1} ms", n / 1e6),
        n if n >= 1e6 => format!("{:.2} ms", n / 1e6),
        n if n >= 1e3 => format!("{:.0} µs", n / 1e3),
        n => format!("{n:.0} ns"),
    }
}

fn bytes(n: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut n, mut unit) = (n, 0);
    while n >= 1024.0 && unit + 1 < units.len() {
        n /= 1024.0;
        unit += 1;
    }
    if n >= 100.0 || unit == 0 {
        format!("{n:.0} {}", units[unit])
    } else {
        format!("{n:.1} {}", units[unit])
    }
}

fn percent(part: f64) -> String {
    let p = 100.0 * part;
    match p.abs() {
        a if a >= 9.95 => format!("{p:.0} %"),
        a if a >= 0.995 => format!("{p:.1} %"),
        0.0 => "0 %".into(),
        a if a < 0.005 => "< 0.01 %".into(),
        _ => format!("{p:.2} %"),
    }
}

fn of(part: u64, whole: u64) -> String {
    percent(part as f64 / whole.max(1) as f64)
}

fn signed(part: f64) -> String {
    if part.abs() < 0.000_05 {
        return "0 %".into();
    }
    format!("{}{}", if part >= 0.0 { "+" } else { "−" }, percent(part.abs()))
}

fn maybe<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "–".into(), show)
}

/// Headroom below twice the peak stands out.
fn times(factor: f64) -> String {
    format!("{} ×", human(factor))
}

fn cores(cores: f64) -> String {
    if cores > 0.0 && cores < 0.0005 { "< 0.001".into() } else { format!("{cores:.3}") }
}

/// A name that may be broken where its parts meet.
fn name(text: &str) -> Markup {
    html! { @for part in text.split_inclusive(['/', '-', '.', ':', '_']) { (part) wbr; } }
}

fn named(part: &Part) -> String {
    match (part.service.as_str(), part.name.as_str()) {
        ("", "") => "all".into(),
        (service, "") => service.into(),
        ("", name) => name.into(),
        (service, name) => format!("{service}: {name}"),
    }
}

fn cards(review: &Review) -> Markup {
    let total = &review.total;
    let card =
        |value: String, what: String| html! { div class="card" { b { (value) } span { (what) } } };
    let rate = |rate: Option<f64>| maybe(rate, |n| format!("{}/s", human(n)));
    // Too little to say it: what would be enough.
    let needs =
        |there: bool, what: &str| if there { String::new() } else { format!("; needs {what}") };
    let quantile = |of: Option<u64>| maybe(of, |n| nanos(n as f64));
    html! {
        div class="cards" {
            (card(human(total.decisions as f64), format!("{}; {} denied, {} failed", if total.decisions == 1 { "decision" } else { "decisions" }, of(total.denied, total.decisions), of(total.failed, total.decisions))))
            (card(rate(total.mean_per_second), format!("decisions a second, on average{}", needs(total.mean_per_second.is_some(), "a minute"))))
            (card(format!("{}/s", human(total.peak_second.per_second)), format!("busiest second, {}", minute(total.peak_second.at))))
            @match total.peak_minute {
                Some(peak) => (card(rate(Some(peak.per_second)), format!("busiest minute, {}", minute(peak.at)))),
                None => (card("–".into(), "busiest minute; needs a minute".into())),
            }
            @if let Some(e) = &total.evaluation {
                (card(quantile(e.p50_ns), format!("median evaluation time{}", needs(e.p50_ns.is_some(), &counted(enough::beyond(50), "decision")))))
                (card(quantile(e.p99_ns), format!("99th percentile of evaluation time{}; 95th: {}", needs(e.p99_ns.is_some(), &counted(enough::beyond(99), "decision")), quantile(e.p95_ns))))
                @match total.busy {
                    Some(busy) => (card(cores(busy.peak_hour_cores), format!("OPA cores busy in the busiest hour; {} on average", cores(busy.mean_cores)))),
                    None => (card("–".into(), format!("OPA cores busy; needs {} over an hour", counted(enough::TIMED, "decision")))),
                }
            }
            @match &review.forecast {
                Some(f) => (card(signed(f.growth_per_week), format!("a week; {}/s on average in {}", human(f.per_day / 86_400.0), counted(f.days_ahead, "day")))),
                None => (card("–".into(), format!("growth; needs {} whole days{}, and there {}", forecast::FEWEST, new_level(review), whole_days(review)))),
            }
        }
    }
}

fn conclusions(review: &Review) -> Markup {
    html! {
        @if !review.conclusions.is_empty() {
            h2 { "In short" }
            ul { @for c in &review.conclusions { li { (c.sentence) } } }
        }
    }
}

fn load(review: &Review) -> Markup {
    let (first, last) = (review.from.div_euclid(HOUR), review.to.div_euclid(HOUR));
    let Some((_, _, _, all)) = review.hours.0.first() else { return html! {} };
    let every = |value: &dyn Fn(i64) -> f64| (first..=last).map(value).collect::<Vec<f64>>();
    let covered = Covered::new(review.from, review.to);
    let mean = Steps {
        name: "decisions a second, by the hour".into(),
        values: every(&|h| Hours::rate(all, &covered, h)),
    };
    let minute_of = |h: i64| match all.get(&h) {
        Some(of) if i64::from(of.minute.seconds) >= enough::RATE => of.minute.per_second(),
        _ => Hours::rate(all, &covered, h),
    };
    let peak = Steps { name: "its busiest minute".into(), values: every(&minute_of) };
    let leading: Vec<&Part> = review.services.iter().take(chart::COLOURS.len() - 1).collect();
    let of = |service: &str| {
        review
            .hours
            .0
            .iter()
            .find(|(dimension, s, _, _)| *dimension == "service" && s == service)
            .map(|(_, _, _, hours)| hours)
    };
    let mut stack: Vec<Steps> = leading
        .iter()
        .map(|part| {
            let hours = of(&part.service);
            Steps {
                name: part.service.clone(),
                values: every(&|h| hours.map_or(0.0, |hours| Hours::rate(hours, &covered, h))),
            }
        })
        .collect();
    if review.services.len() > leading.len() {
        let rest = |h: i64| {
            Hours::rate(all, &covered, h)
                - stack.iter().map(|s| s.values[(h - first) as usize]).sum::<f64>()
        };
        let values = every(&|h| rest(h).max(0.0));
        stack.push(Steps { name: "all others".into(), values });
    }
    let rates = review.seconds >= enough::RATE as f64;
    html! {
        h2 { "Load" }
        @if rates { (chart::load(first * HOUR, HOUR, &mean, &peak)) } @else { p { "Rates need a minute." } }
        h3 { "By service" }
        @if rates { (chart::stack(first * HOUR, HOUR, &stack)) }
        (loads(&review.services, &["Service"]))
        h3 { "By policy" }
        (loads(&review.policies, &["Service", "Policy"]))
    }
}

fn loads(parts: &[Part], heads: &[&str]) -> Markup {
    let at = |peak: &Peak| html! { td { (human(peak.per_second)) } td { (minute(peak.at)[5..]) } };
    html! {
        table {
            thead { tr {
                @for head in heads { th class="l" { (head) } }
                th { "Decisions" } th { "Denied" } th { "Failed" } th { "Mean /s" } th { "Busiest minute /s" } th { "Busiest second /s" } th { "at" }
            } }
            tbody { @for part in parts.iter().take(ROWS) { tr {
                td class="l" { (name(&part.service)) }
                @if heads.len() > 1 { td class="l" { (name(&part.name)) } }
                td { (human(part.decisions as f64)) } td { (of(part.denied, part.decisions)) } td { (of(part.failed, part.decisions)) }
                td { (maybe(part.mean_per_second, human)) } td { (maybe(part.peak_minute, |peak| human(peak.per_second))) } (at(&part.peak_second))
            } } }
        }
        (more(parts.len()))
    }
}

fn more(rows: usize) -> Markup {
    html! { @if rows > ROWS { p class="quiet" { (count((rows - ROWS) as u64)) " more are in the JSON and the CSV." } } }
}

fn growth(review: &Review) -> Markup {
    let bars: Vec<Bar> = review
        .days
        .iter()
        .map(|d| Bar {
            at: d.number * DAY,
            value: d.decisions,
            pale: !d.whole || d.from_prometheus,
        })
        .collect();
    let known = days::known(&review.days);
    let present = level::present(&known);
    let gaps = review.days.iter().filter(|d| !d.whole && d.decisions == 0.0).count();
    let ahead = review.forecast.as_ref().map_or(0, |f| f.days_ahead);
    let line: Vec<(Nanos, [f64; 3])> =
        forecast::ahead(&known, ahead).into_iter().map(|(day, of)| (day * DAY, of)).collect();
    let peak = review.total.peak_second.per_second;
    html! {
        h2 { "Growth" }
        // A day alone is no growth.
        @if bars.len() > 1 {
            (chart::growth(&bars, &line))
            p class="quiet" { "Days in UTC. Pale: not all of the day is known, or it is known from Prometheus."
                @if gaps > 0 { " " (counted(gaps as u64, "day")) " without any decision, though such days of the week have some: left out of the forecast." }
            }
        }
        @match &review.forecast {
            Some(f) => {
                p {
                    "Expected in " (counted(f.days_ahead, "day")) ": " b { (human(f.per_day)) " decisions a day" } " (80 % of days between " (human(f.low)) " and " (human(f.high)) "), "
                    (signed(f.growth_per_week)) " a week" @match f.trend { Trend::Linear => { ", along a straight line. " } Trend::Exponential => { ", of what there is then. " } }
                    @let now = present.iter().rev().take(7).map(|(_, n)| n).sum::<f64>() / present.len().clamp(1, 7) as f64;
                    @if now > 0.0 { "If its busiest second grows alike: " (human(peak * f.per_day / now)) "/s. " }
                    @match f.error {
                        Some(error) => { "Foretold this way, the days of the last third would have been wrong by " b { (percent(error)) } " on average." }
                        None => { "There are too few days to say how wrong this may be." }
                    }
                    @if f.weekly { " Days of the week have levels of their own." }
                }
            }
            None => p { "A forecast needs " (forecast::FEWEST) " whole days" (new_level(review)) " with " (human(forecast::FEWEST_DECISIONS)) " decisions or more; there " (whole_days(review)) ". " code { "--prometheus" } " knows those that the docket topic no longer has." },
        }
    }
}

fn evaluation(review: &Review) -> Markup {
    let mut slow: Vec<(&Part, &Evaluation)> =
        review.policies.iter().filter_map(|p| Some((p, p.evaluation.as_ref()?))).collect();
    slow.sort_by_key(|(_, e)| std::cmp::Reverse(e.p99_ns));
    let quantile = |of: Option<u64>| maybe(of, |n| nanos(n as f64));
    let Some(all) = &review.total.evaluation else {
        return html! { h2 { "Evaluation time" } p { "The decisions carry no timers (" code { "metrics.timer_server_handler_ns" } ")." } };
    };
    let rows: Vec<Named> = all
        .timers
        .iter()
        .map(|t| Named {
            name: t.name.clone(),
            value: t.part,
            second: t.part_of_slowest,
            said: [Some(t.part), t.part_of_slowest]
                .into_iter()
                .flatten()
                .map(percent)
                .collect::<Vec<_>>()
                .join(", "),
        })
        .collect();
    html! {
        h2 { "Evaluation time" }
        table {
            thead { tr { th class="l" { "Service" } th class="l" { "Policy" } th { "Decisions" } th { "Mean" } th { "Median" } th { "95th percentile" } th { "99th" } th { "Longest" } th class="l" { "Mostly" } } }
            tbody { @for (part, e) in slow.iter().take(ROWS) { tr {
                td class="l" { (name(&part.service)) } td class="l" { (name(&part.name)) } td { (human(e.decisions as f64)) } td { (nanos(e.mean_ns)) }
                td { (quantile(e.p50_ns)) } td { (quantile(e.p95_ns)) } td { (quantile(e.p99_ns)) } td { (nanos(e.max_ns as f64)) }
                td class="l" { @if let Some(t) = e.timers.first() { (t.name) " " (percent(t.part)) } }
            } } }
        }
        (more(slow.len()))
        @if slow.iter().any(|(_, e)| e.p99_ns.is_none()) {
            p class="quiet" { "–: too few decisions. The median needs " (count(enough::beyond(50))) ", the 95th percentile " (count(enough::beyond(95))) ", the 99th " (count(enough::beyond(99))) ": ten beyond it." }
        }
        @if !rows.is_empty() {
            h3 { "What it goes to" }
            @if rows.iter().any(|row| row.second.is_some()) {
                (chart::bars(&rows, &["of all decisions", "of the slowest twentieth"]))
            } @else {
                (chart::bars(&rows, &["of all decisions"]))
            }
            p class="quiet" { "OPA's timers, as parts of the time of the whole request. Some hold others: " code { "rego_query_eval" } " has in it what built-ins and external data take." }
        }
    }
}

fn cost(review: &Review) -> Markup {
    let mut dear: Vec<(&Part, f64)> =
        review.policies.iter().filter_map(|p| Some((p, p.cost?))).collect();
    dear.sort_by(|a, b| b.1.total_cmp(&a.1));
    let said = |part: &Part, cost: f64| {
        let busy = part.busy.map(|busy| format!("; {} cores", cores(busy.mean_cores)));
        percent(cost) + &busy.unwrap_or_default()
    };
    let rows: Vec<Named> = dear
        .iter()
        .take(12)
        .map(|(p, cost)| Named { name: named(p), value: *cost, second: None, said: said(p, *cost) })
        .collect();
    html! {
        @if !rows.is_empty() {
            h2 { "Cost of each policy" }
            p class="quiet" { "Its part of all evaluation time, and how many cores that keeps busy on average." }
            (chart::bars(&rows, &["part of evaluation time"]))
        } @else if review.total.evaluation.is_some() {
            h2 { "Cost of each policy" }
            (too_little("Cost needs"))
        }
    }
}

/// What would be enough for headroom and cost.
fn too_little(needs: &str) -> Markup {
    html! { p { (needs) " " (counted(enough::TIMED, "decision")) " whose evaluation time is known, over an hour." } }
}

fn headroom(review: &Review) -> Markup {
    let with: Vec<&Part> = review.opas.iter().filter(|p| p.busy.is_some()).collect();
    let without = review.opas.len() - with.len();
    let class = |factor: f64| if factor < 2.0 { "bad" } else { "" };
    html! {
        h2 { "Headroom, by evaluation time" }
        @if with.is_empty() {
            (too_little("Headroom needs"))
        } @else {
            p class="quiet" {
                "How many times a busiest minute could be taken by OPAs with " (human(review.cores)) " core" @if review.cores != 1.0 { "s" } " each (" code { "--cores" }
                ") that did nothing but evaluate: an upper bound, from evaluation times, not from CPU as the system measures it. Cores busy: decisions a second times the mean time of a decision, without waiting for others' answers."
            }
            @if !review.spare.is_empty() {
                h3 { "Of each service: its busiest minute, all its OPAs together" }
                table {
                    thead { tr { th class="l" { "Service" } th { "OPAs" } th { "Cores busy in its busiest minute" } th { "Headroom of the service" } th { "without one OPA" } } }
                    tbody { @for s in review.spare.iter().take(ROWS) { tr {
                        td class="l" { (name(&s.service)) } td { (count(s.opas as u64)) } td { (cores(s.peak_minute_cores)) } td class=(class(s.headroom)) { (times(s.headroom)) }
                        td class=(s.without_one.map_or("", class)) { (maybe(s.without_one, times)) }
                    } } }
                }
                (more(review.spare.len()))
            }
            h3 { "Of each OPA: its own busiest minute, alone" }
            table {
                thead { tr { th class="l" { "Service" } th class="l" { "OPA" } th { "Decisions" } th { "Hours" } th { "Busiest minute /s" } th { "Mean time" } th { "Cores busy, mean" } th { "busiest hour" } th { "busiest minute" } th { "Slower when busy" } th { "Headroom of the OPA" } } }
                tbody { @for part in with.iter().take(ROWS) { @let b = part.busy.unwrap_or_default(); tr {
                    td class="l" { (name(&part.service)) } td class="l" { (name(&part.name)) } td { (human(part.decisions as f64)) } td { (count(part.hours)) } td { (maybe(part.peak_minute, |peak| human(peak.per_second))) }
                    td { (nanos(b.mean_ns)) } td { (cores(b.mean_cores)) } td { (cores(b.peak_hour_cores)) } td { (cores(b.peak_minute_cores)) }
                    td { (maybe(b.slower_when_busy, |f| format!("{f:.2} ×"))) } td class=(b.headroom.map_or("", class)) { (maybe(b.headroom, times)) }
                } } }
            }
            (more(with.len()))
            p class="quiet" {
                "The two differ where load is spread unevenly, since an OPA's busiest minute need not be its service's; of a service that has had one OPA they are the same. Within a minute there are seconds that ask for more than its mean: their decisions wait for each other, and the minute has room for them. A decision that takes longer when an OPA is busy says that the bound is near."
                @if without > 0 { " Not shown: " (counted(without as u64, "OPA")) " with too few decisions. " }
            }
            @if without > 0 { (too_little("Headroom needs")) }
        }
    }
}

fn rollouts(review: &Review) -> Markup {
    let quantile = |of: Option<u64>| maybe(of, |n| nanos(n as f64));
    html! {
        @if !review.revisions.is_empty() {
            h2 { "Bundle revisions" }
            table {
                thead { tr { th class="l" { "Service" } th class="l" { "Revision" } th { "First" } th { "Last" } th { "Decisions" } th { "Denied" } th { "against the one before" } th { "Failed" } th { "Median" } th { "95th percentile" } th { "against the one before" } } }
                tbody { @for r in review.revisions.iter().rev().take(4 * ROWS).rev() { tr {
                    td class="l" { (name(&r.service)) } td class="l" { (name(&r.revision)) } td { (minute(r.first)[5..]) } td { (minute(r.last)[5..]) } td { (human(r.decisions as f64)) }
                    td { (of(r.denied, r.decisions)) } td class=(if r.denied_change.is_some_and(|c| c.abs() >= 0.1) { "bad" } else { "" }) { (maybe(r.denied_change, signed)) }
                    td { (of(r.failed, r.decisions)) } td { (quantile(r.evaluation.as_ref().and_then(|e| e.p50_ns))) } td { (quantile(r.evaluation.as_ref().and_then(|e| e.p95_ns))) }
                    td class=(if r.p95_factor.is_some_and(|f| f >= 1.5) { "bad" } else { "" }) { (maybe(r.p95_factor, |f| format!("{f:.2} ×"))) }
                } } }
            }
        }
    }
}

fn volumes(review: &Review) -> Markup {
    html! {
        h2 { "Data volume" }
        table {
            thead { tr { th class="l" { "To" } th { "Bytes a decision" } th { "A day" } th { "In this review" } th { "Known of" } } }
            tbody { @for v in &review.volumes { tr {
                td class="l" { (v.sink) }
                @match &v.unknown {
                    Some(why) => td class="l" colspan="4" { "not known: " (why) },
                    None => { td { (human(v.bytes_per_decision)) } td { (maybe(v.bytes_per_day, bytes)) } td { (bytes(v.bytes)) } td { (counted(v.of, "decision")) } }
                }
            } } }
        }
        p class="quiet" { "Bodies of requests as the sinks are sent them, without headers and without what is sent again; measured by encoding decisions of this review as docket does." @if !enough::a_day(review.seconds) { " What a day has needs a day." } }
    }
}

fn method(review: &Review) -> Markup {
    let read = &review.read;
    let far = |out: LeftOut| {
        format!(
            "{} from {} to {} UTC, far from all others, left out.",
            counted(out.decisions, "decision"),
            minute(out.from),
            minute(out.to)
        )
    };
    html! {
        h2 { "How this was counted" }
        p {
            "From " code { (read.topic) } ": " (counted(review.total.decisions, "decision")) ", by their own timestamps"
            @if read.findings > 0 { ", " (counted(read.findings, "finding")) " not among them" }
            @if let Some(history) = &read.history { "; whole days before that from Prometheus at " code { (history) } }
            ". Evaluation time is " code { "metrics.timer_server_handler_ns" } ", or " code { "timer_rego_query_eval_ns" } " where there is none; quantiles are right within 1 %. "
            "Growth is the median of the slopes between all whole days (Theil and Sen), along a straight line, or along an exponential where that would have foretold the known days clearly better; the band is the prediction interval. If the load changed at once, growth is of the days since. Rates are over all of the "
            (counted(review.seconds as u64, "second")) " from the first decision to the last; what is cut of a minute or an hour at either end is divided by the seconds that are there, together with the minute or hour beside it."
        }
        @if read.unreadable > 0 { p { (counted(read.unreadable, "record")) " of the topic, not written by docket, left out." } }
        @if read.late > 0 { p { (counted(read.late, "decision")) " came hours out of order: counted, but peaks may be missing some." } }
        @if read.odd > 0 { p { (counted(read.odd, "decision")) " with timestamps of the future, or of more than 400 days ago, left out." } }
        @if let Some(out) = read.left_out { p { (far(out)) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_times_for_people() {
        for (part, text) in [
            (0.0, "0 %"),
            (0.000_01, "< 0.01 %"),
            (0.0012, "0.12 %"),
            (0.009_99, "1.0 %"),
            (0.0999, "10 %"),
            (0.5, "50 %"),
        ] {
            assert_eq!(percent(part), text);
        }
        for (n, text) in [
            (250.0, "250 ns"),
            (25_000.0, "25 µs"),
            (1.5e6, "1.50 ms"),
            (2.5e9, "2.50 s"),
            (9e10, "1.5 min"),
            (7.2e12, "2 h"),
        ] {
            assert_eq!(nanos(n), text);
        }
    }
}
