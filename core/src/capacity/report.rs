//! The review as one page that needs nothing else: no script, no font, no picture from elsewhere. Made to be printed.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::chart::{self, Bar, Named, Steps, human};
use super::count::{DAY, HOUR};
use super::latency::Evaluation;
use super::{Part, Peak, Review, forecast};
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
                p class="quiet" { (minute(review.from)) " to " (minute(review.to)) " UTC, " (span(review.seconds)) "; made " (minute(made)) }
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

fn span(seconds: f64) -> String {
    match seconds {
        s if s >= 2.0 * 86_400.0 => format!("{:.1} days", s / 86_400.0),
        s if s >= 2.0 * 3600.0 => format!("{:.1} hours", s / 3600.0),
        s => format!("{:.0} minutes", s / 60.0),
    }
}

pub fn nanos(n: f64) -> String {
    match n {
        n if n >= 1e9 => format!("{:.2} s", n / 1e9),
        n if n >= 1e8 => format!("{:.0} ms", n / 1e6),
        n if n >= 1e7 => format!("{:.1} ms", n / 1e6),
        n if n >= 1e6 => format!("{:.2} ms", n / 1e6),
        n => format!("{:.0} µs", n / 1e3),
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
        a if a >= 10.0 => format!("{p:.0} %"),
        a if a >= 1.0 => format!("{p:.1} %"),
        0.0 => "0 %".into(),
        _ => format!("{p:.2} %"),
    }
}

fn of(part: u64, whole: u64) -> String {
    percent(part as f64 / whole.max(1) as f64)
}

fn signed(part: f64) -> String {
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
    let busy = total.busy.unwrap_or_default();
    html! {
        div class="cards" {
            (card(human(total.decisions as f64), format!("decisions; {} denied, {} failed", of(total.denied, total.decisions), of(total.failed, total.decisions))))
            (card(format!("{}/s", human(total.mean_per_second)), "decisions a second, on average".into()))
            (card(format!("{}/s", human(total.peak_second.per_second)), format!("busiest second, {}", minute(total.peak_second.at))))
            (card(format!("{}/s", human(total.peak_minute.per_second)), format!("busiest minute, {}", minute(total.peak_minute.at))))
            @if let Some(e) = &total.evaluation {
                (card(nanos(e.p50_ns as f64), "median evaluation time".into()))
                (card(nanos(e.p99_ns as f64), format!("99th percentile of evaluation time; 95th: {}", nanos(e.p95_ns as f64))))
                (card(cores(busy.peak_hour_cores), format!("OPA cores busy in the busiest hour; {} on average", cores(busy.mean_cores))))
            }
            @match &review.forecast {
                Some(f) => (card(signed(f.growth_per_week), format!("a week; {}/s on average in {} days", human(f.per_day / 86_400.0), f.days_ahead))),
                None => (card("–".into(), "growth: not enough whole days yet".into())),
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
    let mean = Steps {
        name: "decisions a second, by the hour".into(),
        values: every(&|h| all.get(&h).map_or(0.0, |h| h.decisions as f64 / 3600.0)),
    };
    let peak = Steps {
        name: "its busiest minute".into(),
        values: every(&|h| all.get(&h).map_or(0.0, |h| f64::from(h.minute.0) / 60.0)),
    };
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
                values: every(&|h| {
                    hours
                        .and_then(|hours| hours.get(&h))
                        .map_or(0.0, |h| h.decisions as f64 / 3600.0)
                }),
            }
        })
        .collect();
    if review.services.len() > leading.len() {
        let rest = |h: i64| {
            all.get(&h).map_or(0.0, |h| h.decisions as f64 / 3600.0)
                - stack.iter().map(|s| s.values[(h - first) as usize]).sum::<f64>()
        };
        let values = every(&|h| rest(h).max(0.0));
        stack.push(Steps { name: "all others".into(), values });
    }
    html! {
        h2 { "Load" }
        (chart::load(first * HOUR, HOUR, &mean, &peak))
        h3 { "By service" }
        (chart::stack(first * HOUR, HOUR, &stack))
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
                td { (human(part.mean_per_second)) } td { (human(part.peak_minute.per_second)) } (at(&part.peak_second))
            } } }
        }
        (more(parts.len()))
    }
}

fn more(rows: usize) -> Markup {
    html! { @if rows > ROWS { p class="quiet" { (rows - ROWS) " more are in the JSON and the CSV." } } }
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
    let known: Vec<(i64, f64)> =
        review.days.iter().filter(|d| d.whole).map(|d| (d.number, d.decisions)).collect();
    let ahead = review.forecast.as_ref().map_or(0, |f| f.days_ahead);
    let line: Vec<(Nanos, [f64; 3])> =
        forecast::line(&known, ahead).into_iter().map(|(day, of)| (day * DAY, of)).collect();
    let peak = review.total.peak_second.per_second;
    html! {
        h2 { "Growth" }
        (chart::growth(&bars, &line))
        p class="quiet" { "Days in UTC. Pale: not all of the day is known, or it is known from Prometheus." }
        @match &review.forecast {
            Some(f) => {
                p {
                    "Expected in " (f.days_ahead) " days: " b { (human(f.per_day)) " decisions a day" } " (80 % of days between " (human(f.low)) " and " (human(f.high)) "), "
                    (signed(f.growth_per_week)) " a week. "
                    @let now = known.iter().rev().take(7).map(|(_, n)| n).sum::<f64>() / known.len().clamp(1, 7) as f64;
                    @if now > 0.0 { "If its busiest second grows alike: " (human(peak * f.per_day / now)) "/s. " }
                    @match f.error {
                        Some(error) => { "Foretold this way, the days of the last third would have been wrong by " b { (percent(error)) } " on average." }
                        None => { "There are too few days to say how wrong this may be." }
                    }
                    @if f.weekly { " Days of the week have levels of their own." }
                }
            }
            None => p { "A forecast needs " (forecast::FEWEST) " whole days; there are " (known.len()) ". " code { "--prometheus" } " knows those that the docket topic no longer has." },
        }
    }
}

fn evaluation(review: &Review) -> Markup {
    let mut slow: Vec<(&Part, &Evaluation)> =
        review.policies.iter().filter_map(|p| Some((p, p.evaluation.as_ref()?))).collect();
    slow.sort_by_key(|(_, e)| std::cmp::Reverse(e.p99_ns));
    let Some(all) = &review.total.evaluation else {
        return html! { h2 { "Evaluation time" } p { "The decisions carry no timers (" code { "metrics.timer_server_handler_ns" } ")." } };
    };
    let rows: Vec<Named> = all
        .timers
        .iter()
        .map(|t| Named {
            name: t.name.clone(),
            value: t.part,
            second: Some(t.part_of_slowest),
            said: format!("{}, {}", percent(t.part), percent(t.part_of_slowest)),
        })
        .collect();
    html! {
        h2 { "Evaluation time" }
        table {
            thead { tr { th class="l" { "Service" } th class="l" { "Policy" } th { "Decisions" } th { "Mean" } th { "Median" } th { "95th percentile" } th { "99th" } th { "Longest" } th class="l" { "Mostly" } } }
            tbody { @for (part, e) in slow.iter().take(ROWS) { tr {
                td class="l" { (name(&part.service)) } td class="l" { (name(&part.name)) } td { (human(e.decisions as f64)) } td { (nanos(e.mean_ns)) }
                td { (nanos(e.p50_ns as f64)) } td { (nanos(e.p95_ns as f64)) } td { (nanos(e.p99_ns as f64)) } td { (nanos(e.max_ns as f64)) }
                td class="l" { @if let Some(t) = e.timers.first() { (t.name) " " (percent(t.part)) } }
            } } }
        }
        (more(slow.len()))
        @if !rows.is_empty() {
            h3 { "What it goes to" }
            (chart::bars(&rows, &["of all decisions", "of the slowest twentieth"]))
            p class="quiet" { "OPA's timers, as parts of the time of the whole request. Some hold others: " code { "rego_query_eval" } " has in it what built-ins and external data take." }
        }
    }
}

fn cost(review: &Review) -> Markup {
    let mut dear: Vec<(&Part, f64)> =
        review.policies.iter().filter_map(|p| Some((p, p.cost?))).collect();
    dear.sort_by(|a, b| b.1.total_cmp(&a.1));
    let said = |part: &Part, cost: f64| {
        let busy = part.busy.unwrap_or_default();
        format!("{}; {} cores", percent(cost), cores(busy.mean_cores))
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
        }
    }
}

fn headroom(review: &Review) -> Markup {
    let with: Vec<&Part> = review.opas.iter().filter(|p| p.busy.is_some()).collect();
    let class = |factor: f64| if factor < 2.0 { "bad" } else { "" };
    html! {
        h2 { "Headroom" }
        @if !review.spare.is_empty() {
            table {
                thead { tr { th class="l" { "Service" } th { "OPAs" } th { "Cores busy in its busiest second" } th { "Headroom" } th { "Without one OPA" } } }
                tbody { @for s in review.spare.iter().take(ROWS) { tr {
                    td class="l" { (name(&s.service)) } td { (s.opas) } td { (cores(s.peak_second_cores)) } td class=(class(s.headroom)) { (times(s.headroom)) }
                    td class=(s.without_one.map_or("", class)) { (maybe(s.without_one, times)) }
                } } }
            }
        }
        table {
            thead { tr { th class="l" { "Service" } th class="l" { "OPA" } th { "Decisions" } th { "Hours" } th { "Busiest second /s" } th { "Mean time" } th { "Cores busy, mean" } th { "busiest hour" } th { "busiest second" } th { "Slower when busy" } th { "Headroom" } } }
            tbody { @for part in with.iter().take(ROWS) { @let b = part.busy.unwrap_or_default(); tr {
                td class="l" { (name(&part.service)) } td class="l" { (name(&part.name)) } td { (human(part.decisions as f64)) } td { (part.hours) } td { (human(part.peak_second.per_second)) }
                td { (nanos(b.mean_ns)) } td { (cores(b.mean_cores)) } td { (cores(b.peak_hour_cores)) } td { (cores(b.peak_second_cores)) }
                td { (maybe(b.slower_when_busy, |f| format!("{f:.2} ×"))) } td class=(b.headroom.map_or("", class)) { (maybe(b.headroom, times)) }
            } } }
        }
        (more(with.len()))
        p class="quiet" {
            "Cores busy: decisions a second times the mean time of a decision, without waiting for others' answers. A service with one OPA has that OPA's numbers. Headroom: how many times its busiest second an OPA with " (human(review.cores))
            " core" @if review.cores != 1.0 { "s" } " (" code { "--cores" } ") could take if it did nothing but evaluate; an upper bound. A decision that takes longer when an OPA is busy says that the bound is near."
        }
    }
}

fn rollouts(review: &Review) -> Markup {
    html! {
        @if !review.revisions.is_empty() {
            h2 { "Bundle revisions" }
            table {
                thead { tr { th class="l" { "Service" } th class="l" { "Revision" } th { "First" } th { "Last" } th { "Decisions" } th { "Denied" } th { "against the one before" } th { "Failed" } th { "p50" } th { "p95" } th { "against the one before" } } }
                tbody { @for r in review.revisions.iter().rev().take(4 * ROWS).rev() { tr {
                    td class="l" { (name(&r.service)) } td class="l" { (name(&r.revision)) } td { (minute(r.first)[5..]) } td { (minute(r.last)[5..]) } td { (human(r.decisions as f64)) }
                    td { (of(r.denied, r.decisions)) } td class=(if r.denied_change.is_some_and(|c| c.abs() >= 0.1) { "bad" } else { "" }) { (maybe(r.denied_change, signed)) }
                    td { (of(r.failed, r.decisions)) } td { (maybe(r.evaluation.as_ref(), |e| nanos(e.p50_ns as f64))) } td { (maybe(r.evaluation.as_ref(), |e| nanos(e.p95_ns as f64))) }
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
                    None => { td { (human(v.bytes_per_decision)) } td { (bytes(v.bytes_per_day)) } td { (bytes(v.bytes)) } td { (human(v.of as f64)) " decisions" } }
                }
            } } }
        }
        p class="quiet" { "Bodies of requests as the sinks are sent them, without headers and without what is sent again; measured by encoding decisions of this review as docket does." }
    }
}

fn method(review: &Review) -> Markup {
    let read = &review.read;
    html! {
        h2 { "How this was counted" }
        p {
            "From " code { (read.topic) } ": " (review.total.decisions) " decisions by their own timestamps"
            @if read.findings > 0 { ", " (read.findings) " findings not among them" }
            @if let Some(history) = &read.history { "; whole days before that from Prometheus at " code { (history) } }
            ". Evaluation time is " code { "metrics.timer_server_handler_ns" } ", or " code { "timer_rego_query_eval_ns" } " where there is none; quantiles are right within 1 %. "
            "Growth is the median of the slopes between all whole days (Theil and Sen); the band is a line's prediction interval. Of " (span(review.seconds)) ", rates are over all of it."
        }
        @if read.unreadable > 0 { p { (read.unreadable) " records of the topic were not written by docket, and were left out." } }
        @if read.late > 0 { p { (read.late) " decisions came hours out of order; they count, but peaks may be missing some of them." } }
        @if read.odd > 0 { p { (read.odd) " decisions with timestamps of the future, or of more than 400 days ago, were left out." } }
    }
}
