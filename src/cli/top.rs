//! `docket top`: what each part of a running docket does, from its admin port.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::CommandResult;
use crate::pipeline::{Pipeline, not_set};

/// Show live what each part of a running docket does: rates, lag, age, what fails.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  docket top pipelines/opa.yaml
  docket top --url http://docket:9464 --once
  docket top my.yaml --once --json | jq '.parts[] | select(.failing != [])'

RATE is decisions a second: read by intake, delivered by a sink. LAG is offsets of Kafka that the part has not finished: those of records, and those of the markers with which transactions end (`docket verify` \
reads them, and counts records alone). AGE is that of the oldest decision that a sink has read and not delivered.")]
pub struct Args {
    /// Pipeline file, for the address of its admin port.
    #[arg(value_name = "PIPELINE", required_unless_present = "url")]
    file: Option<PathBuf>,
    /// Address of the admin port, instead of the pipeline file's: host:port, or a URL.
    #[arg(long, value_name = "URL", value_parser = super::url)]
    url: Option<String>,
    /// Time between two looks.
    #[arg(long, value_parser = super::duration, default_value = "2s")]
    interval: Duration,
    /// Look for one interval, print once, and exit.
    #[arg(long)]
    once: bool,
    /// Print one JSON object for each look, on a line of its own.
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> CommandResult {
    super::end_with_the_reader();
    let (base, pipeline) = address(&args)?;
    let interval = args.interval.max(Duration::from_millis(100));
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(5))
        // It is this machine's own port, whose certificate is for another name.
        .tls_danger_accept_invalid_certs(args.url.is_none())
        .build()?;
    let live = std::io::stdout().is_terminal() && !args.once && !args.json;
    let unset = pipeline.as_ref().map(|pipeline| pipeline.unset(&["admin", "listen"]));
    let first = sample(&client, &base).await.map_err(|why| match unset {
        Some(unset) if args.url.is_none() && !unset.is_empty() => {
            format!("{why}; {}", not_set(&unset))
        }
        _ => why,
    })?;
    if let Some(why) = pipeline.and_then(|pipeline| foreign(&first, pipeline.name())) {
        return Err(format!("{base}: {why}").into());
    }
    let mut before = (first, Instant::now());
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            stopped = super::asked_to_stop() => return Ok(stopped?),
        }
        let now = (sample(&client, &base).await?, Instant::now());
        let seconds = now.1.duration_since(before.1).as_secs_f64();
        let seen = Seen {
            ready: now.0.not_ready.is_empty(),
            not_ready: now.0.not_ready.clone(),
            parts: parts(&before.0.series, &now.0, seconds),
        };
        if args.json {
            anstream::println!("{}", serde_json::to_string(&seen)?);
        } else {
            let clear = if live { "\x1b[H\x1b[J" } else { "" };
            anstream::print!("{clear}{}", told(&seen, &base));
        }
        std::io::stdout().flush()?;
        if args.once {
            return Ok(());
        }
        before = now;
    }
}

/// Where to look, and for which pipeline, if one is given.
fn address(args: &Args) -> Result<(String, Option<Pipeline>), Box<dyn std::error::Error>> {
    let pipeline = args.file.as_ref().map(|file| super::load(file)).transpose()?;
    if let Some(url) = &args.url {
        return Ok((url.clone(), pipeline));
    }
    let Some(pipeline) = pipeline else { return Err("name a pipeline file, or --url".into()) };
    let admin = pipeline.file.admin.clone();
    let scheme = if admin.tls.is_some() { "https" } else { "http" };
    let Some((host, port)) = admin.listen.rsplit_once(':') else {
        return Err(format!("admin.listen {} has no port", admin.listen).into());
    };
    if port == "0" {
        return Err(
            "admin.listen has port 0: say with --url which it was (docket run logs it)".into()
        );
    }
    let host = if ["0.0.0.0", "[::]", "::"].contains(&host) { "127.0.0.1" } else { host };
    Ok((format!("{scheme}://{host}:{port}"), Some(pipeline)))
}

/// Says that other pipelines run there, and not this one.
fn foreign(seen: &Sample, name: &str) -> Option<String> {
    let series = seen.series.iter().map(|series| series.label("pipeline"));
    let parts = seen.causes.keys().map(|(pipeline, _)| pipeline.as_str());
    let there: BTreeSet<&str> = series.chain(parts).filter(|name| !name.is_empty()).collect();
    let others = there.iter().copied().collect::<Vec<_>>().join(", ");
    (!there.is_empty() && !there.contains(name)).then(|| {
        format!(
            "the pipeline {name} does not run there, but {others}: see admin.listen, or give its address with --url"
        )
    })
}

/// What the admin port says at one time.
struct Sample {
    series: Vec<Series>,
    not_ready: Vec<String>,
    /// By pipeline and part.
    causes: BTreeMap<(String, String), Cause>,
}

/// What is wrong with a part, and since when.
type Cause = (String, Option<String>);

/// What is wrong with parts, as `/status` says.
fn causes(status: &str) -> BTreeMap<(String, String), Cause> {
    let status: serde_json::Value = serde_json::from_str(status).unwrap_or_default();
    let parts = status["parts"].as_array().into_iter().flatten();
    let cause = |part: &serde_json::Value| {
        let text = |name: &str| part[name].as_str().map(str::to_owned);
        Some(((text("pipeline")?, text("part")?), (text("cause")?, text("since"))))
    };
    parts.filter_map(cause).collect()
}

async fn sample(client: &reqwest::Client, base: &str) -> Result<Sample, String> {
    let get = async |path: &str| {
        let wrong = |e: reqwest::Error| match crate::http::client::broken(&e) {
            crate::http::failure::Failure::Retry(retry) => {
                format!("{}; does docket run there? See admin.listen", retry.detail)
            }
            crate::http::failure::Failure::Refused(_) => format!("{base}: it was refused"),
        };
        let answer = client.get(format!("{base}{path}")).send().await.map_err(wrong)?;
        let status = answer.status();
        Ok::<_, String>((status, answer.text().await.map_err(wrong)?))
    };
    let (status, metrics) = get("/metrics").await?;
    if !status.is_success() {
        return Err(format!("{base}/metrics answers {status}; is it docket's admin port?"));
    }
    let series: Vec<Series> = metrics.lines().filter_map(Series::parse).collect();
    if !series.iter().any(|series| series.name.starts_with("docket_")) {
        return Err(format!("{base}/metrics has nothing of docket's; is it docket's admin port?"));
    }
    let (status, ready) = get("/readyz").await?;
    let not_ready =
        if status.is_success() { Vec::new() } else { ready.lines().map(str::to_owned).collect() };
    let (_, status) = get("/status?format=json").await?;
    let causes = causes(&status);
    Ok(Sample { causes, series, not_ready })
}

/// A line of /metrics.
#[derive(Debug, PartialEq)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Series {
    /// Of the classic text format.
    fn parse(line: &str) -> Option<Series> {
        if line.starts_with('#') {
            return None;
        }
        let at = line.find(['{', ' '])?;
        let (name, mut rest) = (&line[..at], &line[at..]);
        let mut labels = BTreeMap::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            while !rest.starts_with('}') {
                let (label, behind) = rest.split_once("=\"")?;
                let (mut value, mut escaped, mut end) = (String::new(), false, None);
                for (i, c) in behind.char_indices() {
                    match c {
                        'n' if escaped => value.push('\n'),
                        c if escaped => value.push(c),
                        '\\' => {
                            escaped = true;
                            continue;
                        }
                        '"' => {
                            end = Some(i);
                            break;
                        }
                        c => value.push(c),
                    }
                    escaped = false;
                }
                labels.insert(label.trim_start_matches(',').trim().to_owned(), value);
                rest = &behind[end? + 1..];
            }
            rest = &rest[1..];
        }
        let value = rest.split_whitespace().next()?.parse().ok()?;
        Some(Series { name: name.to_owned(), labels, value })
    }

    fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

#[derive(Serialize)]
struct Seen {
    ready: bool,
    not_ready: Vec<String>,
    parts: Vec<Part>,
}

/// What one part does.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Part {
    pipeline: String,
    part: String,
    /// Decisions a second.
    rate: f64,
    /// Nothing of a part that counts no decisions.
    total: Option<u64>,
    /// Offsets not finished yet, where that is known.
    lag: Option<u64>,
    /// Of the oldest that is not delivered, in seconds.
    age: f64,
    in_flight: u64,
    /// Records that went to rejects.
    rejects: u64,
    /// Why its requests fail, if they do.
    failing: Vec<String>,
    stalled: u64,
    /// What is wrong, in a sentence, and since when.
    cause: Option<String>,
    since: Option<String>,
}

/// The parts of all pipelines, intake first.
fn parts(before: &[Series], now: &Sample, seconds: f64) -> Vec<Part> {
    let Sample { series: now, causes, .. } = now;
    let mut parts: BTreeMap<(String, bool, String), Part> = BTreeMap::new();
    for (series, sign) in before.iter().map(|s| (s, -1.0)).chain(now.iter().map(|s| (s, 1.0))) {
        let (label, counts) = match series.name.as_str() {
            "docket_intake_decisions_total" => ("", true),
            "docket_sink_records_total" => ("sink", series.label("outcome") == "delivered"),
            "docket_lag_records" | "docket_rejects_total" | "docket_stalled_partitions" => {
                ("part", false)
            }
            "docket_oldest_undelivered_seconds"
            | "docket_sink_in_flight_records"
            | "docket_sink_failing" => ("sink", false),
            _ => continue,
        };
        let name = if label.is_empty() { "intake" } else { series.label(label) };
        let pipeline = series.label("pipeline");
        let part =
            parts.entry((pipeline.to_owned(), name != "intake", name.to_owned())).or_insert_with(
                || Part { pipeline: pipeline.to_owned(), part: name.to_owned(), ..Part::default() },
            );
        if counts {
            // Whole numbers, so that what did not change adds up to nothing.
            part.rate += sign * series.value;
        }
        // What is no rate is that of now.
        if sign < 0.0 {
            continue;
        }
        let whole = series.value as u64;
        match series.name.as_str() {
            _ if counts => *part.total.get_or_insert_default() += whole,
            "docket_lag_records" => *part.lag.get_or_insert_default() += whole,
            "docket_rejects_total" => part.rejects += whole,
            "docket_stalled_partitions" => part.stalled += whole,
            "docket_oldest_undelivered_seconds" => part.age = part.age.max(series.value),
            "docket_sink_in_flight_records" => part.in_flight += whole,
            "docket_sink_failing" if series.value > 0.0 => {
                part.failing.push(series.label("cause").to_owned());
            }
            _ => {}
        }
    }
    for ((pipeline, name), cause) in causes {
        let key = (pipeline.clone(), name != "intake", name.clone());
        let part = parts.entry(key).or_insert_with(|| Part {
            pipeline: pipeline.clone(),
            part: name.clone(),
            ..Part::default()
        });
        (part.cause, part.since) = (Some(cause.0.clone()), cause.1.clone());
    }
    // A process that was started anew counts from nothing.
    parts.values_mut().for_each(|part| part.rate = part.rate.max(0.0) / seconds.max(0.001));
    parts.into_values().collect()
}

/// Parts with which something is wrong; with their pipeline, if there are several.
fn unwell(parts: &[Part]) -> Vec<String> {
    let several = parts.iter().any(|part| part.pipeline != parts[0].pipeline);
    let wrong = |part: &&Part| part.cause.is_some() || !part.failing.is_empty() || part.stalled > 0;
    let named = |part: &Part| match several {
        true => format!("{}/{}", part.pipeline, part.part),
        false => part.part.clone(),
    };
    parts.iter().filter(wrong).map(named).collect()
}

fn told(seen: &Seen, base: &str) -> String {
    let heads = ["PIPELINE", "PART", "RATE/S", "TOTAL", "LAG", "AGE", "FLYING", "REJECTS", "STATE"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(seen.parts.iter().map(|part| {
        let state = match (part.failing.is_empty(), part.stalled, &part.cause) {
            (false, ..) => format!("failing: {}", part.failing.join(", ")),
            (true, 0, None) => "ok".to_owned(),
            (true, 0, Some(_)) => "not well".to_owned(),
            (true, n, _) => format!("{n} stalled"),
        };
        vec![
            part.pipeline.clone(),
            part.part.clone(),
            part.total.map_or_else(|| "-".to_owned(), |_| format!("{:.1}", part.rate)),
            part.total.map_or_else(|| "-".to_owned(), |total| total.to_string()),
            part.lag.map_or_else(|| "-".to_owned(), |lag| lag.to_string()),
            if part.age < 1.0 { "-".to_owned() } else { format!("{:.0}s", part.age.floor()) },
            part.in_flight.to_string(),
            part.rejects.to_string(),
            state,
        ]
    }));
    let ready = if seen.ready {
        // Readiness is about the process: parts may wait for what is not there.
        match unwell(&seen.parts).join(", ") {
            none if none.is_empty() => "ready".to_owned(),
            unwell => format!("ready; not well: {unwell}"),
        }
    } else {
        format!("not ready: {}", seen.not_ready.join("; "))
    };
    let line = |text: String| super::shown::wrapped(&text, 4, super::shown::sentence_columns());
    let table = super::shown::fitted(&rows, super::columns());
    let mut out = format!("{}\n{table}", line(format!("{base}: {ready}")));
    for part in &seen.parts {
        if let Some(cause) = &part.cause {
            let since = part.since.as_ref().and_then(|at| at.get(..19));
            let since =
                since.map_or_else(String::new, |at| format!(" (since {}Z)", at.replace('T', " ")));
            out.push_str(&line(format!("{}/{}: {cause}{since}", part.pipeline, part.part)));
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(text: &str) -> Vec<Series> {
        text.lines().filter_map(Series::parse).collect()
    }

    #[test]
    fn what_did_not_change_has_no_rate_and_what_counts_nothing_has_no_total() {
        let text: Vec<String> = (1..8)
            .map(|i| {
                format!(
                    "docket_intake_decisions_total{{pipeline=\"p\",verdict=\"v{i}\"}} {}",
                    i * 333_337
                )
            })
            .collect();
        let before = series(&text.join("\n"));
        let spikes = "\ndocket_lag_records{part=\"spikes\",pipeline=\"p\"} 0";
        let now = series(&(text.join("\n") + spikes));
        let now = Sample { series: now, not_ready: Vec::new(), causes: BTreeMap::new() };
        let parts = parts(&before, &now, 2.1);
        assert_eq!((parts[0].rate, parts[1].part.as_str(), parts[1].total), (0.0, "spikes", None));
        let text = told(&Seen { ready: true, not_ready: Vec::new(), parts }, "http://h:1");
        let spikes = text.lines().find(|line| line.contains(" spikes ")).unwrap();
        assert!(spikes.split_whitespace().skip(2).take(2).all(|cell| cell == "-"), "{text}");
    }

    #[test]
    fn a_pipeline_that_does_not_run_there_is_told() {
        let sample = |text: &str| Sample {
            series: series(text),
            not_ready: Vec::new(),
            causes: BTreeMap::new(),
        };
        let opa = sample("docket_build_info 1\ndocket_rejects_total{pipeline=\"opa\"} 0");
        let told = foreign(&opa, "a").unwrap();
        assert!(told.contains("pipeline a does not run there, but opa"), "{told}");
        assert_eq!(foreign(&opa, "opa"), None);
        // It has only begun.
        assert_eq!(foreign(&sample("docket_build_info 1"), "a"), None);
    }

    #[tokio::test]
    async fn what_is_no_docket_is_told() {
        let page = || async { "go_threads 7\n" };
        let server = axum::Router::new().route("/metrics", axum::routing::get(page));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, server).await });
        let told = sample(&reqwest::Client::new(), &base).await.err().unwrap();
        assert!(told.contains("nothing of docket's"), "{told}");
    }

    #[test]
    fn a_line_is_read_with_whatever_its_labels_hold() {
        let one = Series::parse(r#"a_total{x="a\"b\\,}",y="\n"} 1.5e3"#).unwrap();
        assert_eq!((one.name.as_str(), one.value), ("a_total", 1500.0));
        assert_eq!((one.label("x"), one.label("y")), ("a\"b\\,}", "\n"));
        assert_eq!(Series::parse("plain 7").unwrap().value, 7.0);
        for bad in ["# HELP a b", "", "a{x=\"", "a{x=\"1\"} NaNo", "a{x} 1"] {
            assert_eq!(Series::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn parts_have_rates_of_what_was_between_and_the_rest_of_now() {
        let before = series(
            "docket_intake_decisions_total{pipeline=\"p\",verdict=\"allow\"} 100
docket_intake_decisions_total{pipeline=\"p\",verdict=\"deny\"} 10
docket_sink_records_total{outcome=\"delivered\",pipeline=\"p\",sink=\"loki\"} 50
docket_lag_records{part=\"loki\",partition=\"0\",pipeline=\"p\",topic=\"d\"} 999",
        );
        let now = series(
            "docket_intake_decisions_total{pipeline=\"p\",verdict=\"allow\"} 300
docket_intake_decisions_total{pipeline=\"p\",verdict=\"deny\"} 30
docket_sink_records_total{outcome=\"delivered\",pipeline=\"p\",sink=\"loki\"} 60
docket_sink_records_total{outcome=\"refused\",pipeline=\"p\",sink=\"loki\"} 5
docket_rejects_total{part=\"loki\",pipeline=\"p\",reason=\"refused\"} 5
docket_lag_records{part=\"loki\",partition=\"0\",pipeline=\"p\",topic=\"d\"} 30
docket_lag_records{part=\"loki\",partition=\"1\",pipeline=\"p\",topic=\"d\"} 12
docket_oldest_undelivered_seconds{partition=\"0\",pipeline=\"p\",sink=\"loki\"} 3
docket_oldest_undelivered_seconds{partition=\"1\",pipeline=\"p\",sink=\"loki\"} 75.5
docket_sink_failing{cause=\"connection\",pipeline=\"p\",sink=\"loki\"} 1
docket_sink_failing{cause=\"server\",pipeline=\"p\",sink=\"loki\"} 0",
        );
        let causes = causes(
            r#"{"parts":[{"pipeline":"p","part":"loki","cause":"nobody is there","since":"2026-11-24T12:48:50.163424070Z"},{"pipeline":"p","part":"reload","cause":"why"},{"pipeline":"p","part":"intake","cause":null}]}"#,
        );
        let now = Sample { series: now, not_ready: Vec::new(), causes };
        let parts = parts(&before, &now, 2.0);
        assert_eq!(
            parts.iter().map(|p| p.part.as_str()).collect::<Vec<_>>(),
            ["intake", "loki", "reload"]
        );
        assert_eq!((parts[0].rate, parts[0].total), (110.0, Some(330)));
        let loki = &parts[1];
        assert_eq!((loki.rate, loki.total, loki.lag, loki.age), (5.0, Some(60), Some(42), 75.5));
        assert_eq!((loki.rejects, loki.failing.as_slice()), (5, &["connection".to_owned()][..]));
        let mut seen = Seen { ready: true, not_ready: Vec::new(), parts };
        let text = told(&seen, "http://h:1");
        assert!(text.starts_with("http://h:1: ready; not well: loki, reload\n"), "{text}");
        (seen.ready, seen.not_ready) = (false, vec!["p/loki: why".into()]);
        let text = told(&seen, "http://h:1");
        assert!(text.starts_with("http://h:1: not ready: p/loki: why\n"), "{text}");
        assert!(text.contains("75s") && text.contains("failing: connection"), "{text}");
        assert!(
            text.ends_with("p/loki: nobody is there (since 2026-11-24 12:48:50Z)\np/reload: why\n"),
            "{text}"
        );
    }
}
