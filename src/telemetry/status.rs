//! `/status`: every part of this process with what it has done, what is left, and what is wrong since when; as JSON, and
//! as a page for people. It says what `health` and the registry know, and nothing else.

use std::collections::BTreeMap;
use std::fmt::Write;

use prometheus::proto::{Metric, MetricFamily};
use serde::Serialize;

use super::health::{Condition, Health};
use crate::decision::time::{self, Nanos};

#[derive(Debug, PartialEq, Serialize)]
pub struct Status {
    pub version: &'static str,
    pub at: String,
    /// As `/readyz` says.
    pub ready: bool,
    pub parts: Vec<Part>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Part {
    pub pipeline: String,
    pub part: String,
    pub ready: bool,
    pub well: bool,
    /// What is wrong.
    pub cause: Option<String>,
    /// Since when it is well, or is not.
    pub since: String,
    /// Records that are not finished, in all partitions.
    pub lag: Option<i64>,
    /// Age of the oldest decision that was read and is not delivered.
    pub oldest_seconds: Option<f64>,
    pub partitions: Vec<Partition>,
}

#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct Partition {
    pub topic: String,
    pub partition: i32,
    /// Below it everything is finished.
    pub offset: Option<i64>,
    pub lag: Option<i64>,
    pub oldest_seconds: Option<f64>,
}

fn label<'m>(metric: &'m Metric, name: &str) -> &'m str {
    metric.get_label().iter().find(|l| l.name() == name).map_or("", |l| l.value())
}

/// By pipeline, part and partition.
type Places = BTreeMap<(String, String, i32), Partition>;

fn places(families: &[MetricFamily]) -> Places {
    let mut all = Places::new();
    for family in families {
        let part = match family.name() {
            "docket_offset" | "docket_lag_records" => "part",
            "docket_oldest_undelivered_seconds" => "sink",
            _ => continue,
        };
        for metric in family.get_metric() {
            let Ok(id) = label(metric, "partition").parse() else { continue };
            let key = (label(metric, "pipeline").to_owned(), label(metric, part).to_owned(), id);
            let place = all.entry(key).or_default();
            place.partition = id;
            let value = metric.get_gauge().get_value();
            match family.name() {
                "docket_offset" => place.offset = Some(value as i64),
                "docket_lag_records" => place.lag = Some(value as i64),
                _ => place.oldest_seconds = Some(value),
            }
            if part == "part" {
                label(metric, "topic").clone_into(&mut place.topic);
            }
        }
    }
    all
}

pub fn of(health: &Health, families: &[MetricFamily], now: Nanos) -> Status {
    let (all, places) = (health.all(), places(families));
    let mut parts: BTreeMap<(&str, &str), (Part, &Condition)> = BTreeMap::new();
    // A note stands behind its part in the order of names: `opa/loki`, `opa/loki progress`.
    for (name, condition) in &all {
        let (pipeline, rest) = name.split_once('/').unwrap_or(("", name));
        let (part, note) = rest.split_once(' ').map_or((rest, false), |(part, _)| (part, true));
        let (of, shown) =
            parts.entry((pipeline, part)).or_insert_with(|| (Part::default(), condition));
        if !note {
            of.ready = condition.is_ready();
            *shown = condition;
        } else if condition.state.is_err() && (shown.state.is_ok() || shown.follows(condition)) {
            *shown = condition;
        }
    }
    let parts = parts.into_iter().map(|((pipeline, name), (mut part, condition))| {
        (part.pipeline, part.part) = (pipeline.to_owned(), name.to_owned());
        part.well = condition.state.is_ok();
        part.cause = condition.state.clone().err();
        part.since = time::format(condition.since);
        let own = places.iter().filter(|((p, n, _), _)| p == pipeline && n == name);
        part.partitions = own.map(|(_, place)| place.clone()).collect();
        part.lag = part.partitions.iter().filter_map(|p| p.lag).reduce(|a, b| a + b);
        part.oldest_seconds =
            part.partitions.iter().filter_map(|p| p.oldest_seconds).reduce(f64::max);
        part
    });
    Status {
        version: env!("CARGO_PKG_VERSION"),
        at: time::format(now),
        ready: health.not_ready().is_empty(),
        parts: parts.collect(),
    }
}

const STYLE: &str = ":root{color-scheme:light dark}body{font:14px/1.5 system-ui,sans-serif;margin:2em;max-width:80em}\
    h1{margin:0;font-size:1.5em}table{border-collapse:collapse;margin-top:1em}\
    th,td{text-align:left;padding:.4em 1.4em .4em 0;vertical-align:top;border-bottom:1px solid #8885}\
    .n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}.t{white-space:nowrap}\
    .bad{color:#d22;overflow-wrap:anywhere}.dim{color:#888}summary{cursor:pointer}details td,details th{border:0;padding:0 1em 0 0}\
    details table{margin:0}";

/// The same for people.
pub fn page(status: &Status) -> String {
    let mut out = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>docket</title><style>{STYLE}</style>"
    );
    let ready = if status.ready { "ready" } else { "<span class=bad>not ready</span>" };
    let _ = write!(
        out,
        "<h1>docket {}: {ready}</h1><div class=dim>{} UTC; <a href=\"?format=json\">JSON</a>, <a href=metrics>metrics</a></div>",
        status.version,
        to_the_second(&status.at)
    );
    out.push_str(
        "<table><tr><th>pipeline<th>part<th>state<th>since<th class=n>records left<th class=n>oldest<th>partitions",
    );
    for part in &status.parts {
        let state = match &part.cause {
            None => "well".to_owned(),
            Some(cause) => format!("<span class=bad>{}</span>", escaped(cause)),
        };
        let oldest = part.oldest_seconds.map_or(String::new(), |s| format!("{s:.0} s"));
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td>{state}<td class=t>{}<td class=n>{}<td class=n>{oldest}<td class=t>",
            escaped(&part.pipeline),
            escaped(&part.part),
            to_the_second(&part.since),
            number(part.lag),
        );
        for places in part.partitions.chunk_by(|a, b| a.topic == b.topic) {
            out.push_str(&folded(places));
        }
    }
    out.push_str("</table></html>\n");
    out
}

/// The partitions of one topic, to be opened.
fn folded(places: &[Partition]) -> String {
    let topic = places.first().map_or("", |place| &place.topic);
    let mut out = format!(
        "<details><summary>{} of {}</summary><table><tr><th class=n>partition<th class=n>offset<th class=n>left",
        places.len(),
        escaped(topic)
    );
    for place in places {
        let (offset, lag) = (number(place.offset), number(place.lag));
        let _ =
            write!(out, "<tr><td class=n>{}<td class=n>{offset}<td class=n>{lag}", place.partition);
    }
    out.push_str("</table></details>");
    out
}

fn number(n: Option<i64>) -> String {
    n.map_or(String::new(), |n| n.to_string())
}

/// Of a time in RFC 3339.
fn to_the_second(at: &str) -> String {
    at.get(..19).unwrap_or(at).replace('T', " ")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;
    use crate::telemetry::Meters;

    #[test]
    fn each_part_says_what_is_left_and_what_is_wrong_with_it() {
        let (health, registry) = (Health::default(), Registry::new());
        let meters = Meters::new("opa", &registry).unwrap();
        for (partition, offset, lag, age) in [("0", 10, 3, 2.5), ("1", 20, 40, 61.0)] {
            let labels = ["loki", "docket.opa", partition];
            meters.offset.with_label_values(&labels).set(offset);
            meters.lag.with_label_values(&labels).set(lag);
            meters.oldest.with_label_values(&["loki", partition]).set(age);
        }
        health.set("opa/intake", Ok(()));
        health.set("opa/loki", Ok(()));
        health.note("opa/loki progress", Ok(()));
        health.note("opa/loki requests", Err("connection: <refused>".into()));
        let status = of(&health, &registry.gather(), 0);
        let [intake, loki] = &status.parts[..] else { panic!("{status:?}") };
        assert!(status.ready && intake.well && intake.partitions.is_empty());
        assert_eq!((intake.part.as_str(), intake.lag), ("intake", None));
        assert_eq!(
            (loki.ready, loki.well, loki.cause.as_deref()),
            (true, false, Some("connection: <refused>"))
        );
        assert_eq!((loki.lag, loki.oldest_seconds), (Some(43), Some(61.0)));
        assert_eq!(
            loki.partitions[1],
            Partition {
                topic: "docket.opa".into(),
                partition: 1,
                offset: Some(20),
                lag: Some(40),
                oldest_seconds: Some(61.0)
            }
        );
        let page = page(&status);
        assert!(page.contains("connection: &lt;refused&gt;") && page.contains("43"), "{page}");

        // What comes of it does not hide it.
        health.note("opa/loki progress", Err("partition 1 is stalled".into()));
        let status = of(&health, &registry.gather(), 0);
        assert_eq!(status.parts[1].cause.as_deref(), Some("connection: <refused>"));

        health.set("opa/loki", Err("it panicked".into()));
        let status = of(&health, &registry.gather(), 0);
        assert_eq!(status.parts[1].cause.as_deref(), Some("it panicked"));
    }
}
