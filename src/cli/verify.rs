//! `docket verify`: is the record complete and true?

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rdkafka::message::Message;
use serde::Serialize;
use serde_json::{Value, json};

use super::CommandResult;
use super::tail::printable;
use crate::clock::now;
use crate::decision::record::Record;
use crate::decision::time::nanos;
use crate::log::past::{Edge, Past};
use crate::pipeline::Pipeline;
use crate::pipeline::model::{self, Probe};
use crate::protect::redact::Redaction;
use crate::stage::rejects::{Letter, without_receipts};
use crate::verify::look::Look;
use crate::verify::{Compared, Decision, Found, Hash, Overview, Wanted, compare, overview};

/// Check that every decision of the docket is in every sink, once and unaltered, or in rejects. Ends with 1 on any gap.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  docket verify pipelines/opa.yaml --from 1h
  docket verify pipelines/opa.yaml --sink search --json | jq .sinks
  docket verify pipelines/opa.yaml --probe http://127.0.0.1:8181

Elasticsearch is asked by id, Loki, VictoriaLogs and CloudWatch for every line, files are read, the trace backend is asked for a sample (set `query` of the
OTLP sink), Prometheus for its counts (set `query` of the metrics sink). --probe asks OPA the questions under `probes` in the pipeline file and
follows the decisions to every sink.")]
pub struct Args {
    #[arg(value_name = "PIPELINE")]
    file: PathBuf,
    /// Decisions that the docket got since: `start`, how long ago, or a time (RFC 3339).
    #[arg(long, default_value = "1h", value_parser = super::edge)]
    from: Edge,
    /// And before.
    #[arg(long, default_value = "end", value_parser = super::edge)]
    until: Edge,
    /// Only these sinks.
    #[arg(long, value_delimiter = ',')]
    sink: Vec<String>,
    /// How many traces are asked for.
    #[arg(long, default_value_t = 200)]
    sample: usize,
    /// How long what is missing may still be on its way; with --probe, how long a decision may take to each sink.
    #[arg(long, value_parser = super::duration, default_value = "30s")]
    settle: Duration,
    /// Ask this OPA the questions of the pipeline file, and follow the decisions.
    #[arg(long, value_name = "OPA_URL")]
    probe: Option<String>,
    /// Print everything as one JSON object.
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> CommandResult {
    let pipeline = super::load(&args.file)?;
    for name in &args.sink {
        if !pipeline.file.sinks.contains_key(name) {
            return Err(format!("there is no sink {name:?} in {}", args.file.display()).into());
        }
    }
    match &args.probe {
        Some(opa) => probe(&args, &pipeline, opa.trim_end_matches('/')).await,
        None => verify(&args, &pipeline).await,
    }
}

/// A sink that is checked.
struct Checked {
    name: String,
    model: model::Sink,
    look: Result<Look, &'static str>,
    /// What the sink alone does not get.
    redaction: Redaction,
    /// By decision, in their order.
    wanted: Vec<Hash>,
}

fn checked(args: &Args, pipeline: &Pipeline) -> Result<Vec<Checked>, Box<dyn std::error::Error>> {
    let mut all = Vec::new();
    for (name, sink) in &pipeline.file.sinks {
        if args.sink.is_empty() || args.sink.contains(name) {
            let look = Look::new(pipeline.name(), sink).map_err(|e| format!("sink {name}: {e}"))?;
            all.push(Checked {
                name: name.clone(),
                model: sink.clone(),
                look,
                redaction: sink.redaction(),
                wanted: Vec::new(),
            });
        }
    }
    Ok(all)
}

/// The result for one sink.
#[derive(Serialize)]
struct Report {
    sink: String,
    r#type: &'static str,
    /// Set if it was not compared, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<String>,
    /// Set if only a sample was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counts: Option<BTreeMap<String, f64>>,
    #[serde(flatten)]
    compared: Compared,
    gaps: usize,
}

async fn verify(args: &Args, pipeline: &Pipeline) -> CommandResult {
    let mut sinks = checked(args, pipeline)?;
    let (decisions, unreadable) = tokio::task::block_in_place(|| read(args, pipeline, &mut sinks))?;
    let rejected = tokio::task::block_in_place(|| rejected(pipeline))?;
    let about = overview(&decisions);
    let mut reports = Vec::new();
    for sink in &sinks {
        reports.push(
            report(args, sink, &decisions, &rejected)
                .await
                .map_err(|e| format!("sink {}: {e}", sink.name))?,
        );
    }
    let gaps = unreadable + reports.iter().map(|r| r.gaps).sum::<usize>();
    if args.json {
        let all = json!({ "pipeline": pipeline.name(), "complete": gaps == 0, "gaps": gaps, "unreadable": unreadable, "docket": about, "sinks": reports });
        anstream::println!("{all}");
    } else {
        anstream::print!("{}", told(pipeline, &about, unreadable, &reports));
    }
    if gaps > 0 {
        return Err(format!("not complete: {gaps} gaps").into());
    }
    if !args.json {
        anstream::println!("complete");
    }
    Ok(())
}

/// The hash of what a sink is to hold of a record.
fn wanted(look: &mut Look, redaction: &Redaction, record: &Record<'_>) -> Hash {
    let value = redaction.apply(record.raw.as_bytes());
    match Record::parse(&value) {
        Ok(redacted) => look.wanted(&redacted),
        Err(_) => look.wanted(record),
    }
}

/// Reads the docket topic; also how many of its records are none.
fn read(
    args: &Args,
    pipeline: &Pipeline,
    sinks: &mut [Checked],
) -> Result<(Vec<Decision>, usize), Box<dyn std::error::Error>> {
    let past = Past::open(pipeline, "verify", &pipeline.docket_topic(), args.from, args.until)?;
    let bar = super::progress(past.offsets(), "reading the docket");
    let (mut decisions, mut unreadable) = (Vec::new(), 0);
    past.read(&mut |n| bar.inc(n), &mut |message| {
        match Record::parse(message.payload().unwrap_or_default()) {
            Ok(record) => {
                for sink in sinks.iter_mut() {
                    if let Ok(look) = &mut sink.look {
                        sink.wanted.push(wanted(look, &sink.redaction, &record));
                    }
                }
                decisions.push(Decision::new(
                    &record,
                    message.partition(),
                    message.timestamp().to_millis().unwrap_or(0),
                ));
            }
            Err(_) => unreadable += 1,
        }
        true
    })?;
    bar.finish_and_clear();
    Ok((decisions, unreadable))
}

/// What stands in rejects: sink and decision id.
fn rejected(pipeline: &Pipeline) -> Result<BTreeSet<(String, String)>, Box<dyn std::error::Error>> {
    let past = Past::open(pipeline, "verify", &pipeline.rejects_topic(), Edge::Start, Edge::End)?;
    let bar = super::progress(past.offsets(), "reading rejects");
    let mut letters = Vec::new();
    past.read(&mut |n| bar.inc(n), &mut |message| {
        letters.push(Letter::read(message));
        true
    })?;
    bar.finish_and_clear();
    let (letters, _) = without_receipts(letters);
    let pair = |letter: &Letter| {
        let text = std::str::from_utf8(&letter.value).ok()?;
        let id = crate::decision::json::get(text, "decision_id")
            .and_then(crate::decision::json::as_str)?;
        Some((letter.sink()?.to_owned(), id.into_owned()))
    };
    Ok(letters.iter().filter_map(pair).collect())
}

async fn report(
    args: &Args,
    sink: &Checked,
    decisions: &[Decision],
    rejected: &BTreeSet<(String, String)>,
) -> Result<Report, Box<dyn std::error::Error>> {
    let mut report = Report {
        sink: sink.name.clone(),
        r#type: sink.model.type_name(),
        skipped: None,
        sample: None,
        counts: None,
        compared: Compared::default(),
        gaps: 0,
    };
    let look = match &sink.look {
        Ok(look) => look,
        Err(why) => {
            report.skipped = Some((*why).to_owned());
            return Ok(report);
        }
    };
    // What the docket got last may still be on its way.
    let newest = decisions.iter().map(|d| d.kafka).max().unwrap_or(0) * 1_000_000;
    let deadline = newest.saturating_add(nanos(args.settle));
    let age = sink.model.max_age().map(nanos);
    let routed = sink.model.delivery().too_old != "rejects";
    loop {
        if let Look::Counts { .. } = look {
            counted(look, decisions, &mut report).await?;
        } else {
            let bar = super::progress(decisions.len() as u64, "asking");
            bar.set_message(format!("asking {}", sink.name));
            let (found, sample) = look.look(decisions, args.sample, &|n| bar.inc(n)).await?;
            bar.finish_and_clear();
            let all = decisions
                .iter()
                .zip(&sink.wanted)
                .filter(|(d, _)| sample.as_ref().is_none_or(|ids| ids.contains(&d.id)));
            let wanted = all.map(|(d, hash)| Wanted {
                id: &d.id,
                hash: *hash,
                rejected: rejected.contains(&(sink.name.clone(), d.id.clone())),
                elsewhere: routed && age.is_some_and(|age| now() - d.timestamp > age),
            });
            report.compared = compare(wanted, &found);
            report.sample = sample.map(|ids| ids.len());
            report.gaps = report.compared.gaps();
        }
        if report.gaps == 0 || now() > deadline {
            return Ok(report);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// Counts of Prometheus are compared as a whole: a gap if they differ by more than a hundredth.
async fn counted(
    look: &Look,
    decisions: &[Decision],
    report: &mut Report,
) -> Result<(), Box<dyn std::error::Error>> {
    let times = || decisions.iter().map(|d| d.kafka * 1_000_000);
    let (Some(from), Some(last)) = (times().min(), times().max()) else { return Ok(()) };
    // What came last is delivered and scraped a little later.
    let Some(counts) = look.counts(from, now().min(last + 15_000_000_000)).await? else {
        return Ok(());
    };
    let mut distinct: HashMap<&str, &'static str> = HashMap::new();
    for decision in decisions {
        distinct.insert(&decision.id, decision.verdict.as_str());
    }
    report.compared.expected = distinct.len();
    report.compared.present = counts.values().sum::<f64>().round() as usize;
    report.gaps = 0;
    for verdict in ["allow", "deny", "undefined", "error"] {
        let expected = distinct.values().filter(|v| **v == verdict).count() as f64;
        let got = counts.get(verdict).copied().unwrap_or(0.0);
        if (expected - got).abs() > (expected / 100.0).max(0.5) {
            report.gaps += 1;
        }
    }
    report.counts = Some(counts);
    Ok(())
}

fn told(pipeline: &Pipeline, about: &Overview, unreadable: usize, reports: &[Report]) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    let verdicts: Vec<String> =
        about.verdicts.iter().map(|(verdict, n)| format!("{n} {verdict}")).collect();
    let span = about
        .first
        .as_ref()
        .zip(about.last.as_ref())
        .map_or_else(String::new, |(first, last)| format!(", decided from {first} to {last}"));
    let _ = writeln!(
        out,
        "{}: {} decisions: {}{span}",
        pipeline.docket_topic(),
        about.decisions,
        if verdicts.is_empty() { "none".into() } else { verdicts.join(", ") }
    );
    if let Some((median, late, greatest)) = about.delay_seconds {
        let _ = writeln!(
            out,
            "from decision to Kafka: median {median:.2} s, 99 % within {late:.2} s, at most {greatest:.2} s"
        );
    }
    for (n, what) in [
        (
            about.repeated,
            "decisions stand in the docket more than once: their producer sent them again",
        ),
        (about.ahead, "decisions are later than Kafka got them: a clock is ahead"),
        (
            about.out_of_order,
            "decisions came ten seconds or more after a later one of the same OPA instance",
        ),
        (unreadable, "records of the docket topic are no docket records"),
    ] {
        if n > 0 {
            let _ = writeln!(out, "note: {n} {what}");
        }
    }
    for verdict in ["allow", "deny"] {
        if about.decisions >= 100 && !about.verdicts.contains_key(verdict) {
            let _ = writeln!(out, "note: not one decision is {verdict}");
        }
    }
    for (instance, last) in &about.quiet {
        let _ = writeln!(
            out,
            "note: OPA instance {} decided regularly until {last}, and no more",
            printable(instance)
        );
    }
    let mut rows = vec![
        [
            "SINK",
            "TYPE",
            "EXPECTED",
            "PRESENT",
            "REJECTED",
            "ELSEWHERE",
            "MISSING",
            "ALTERED",
            "REPEATED",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for r in reports {
        let c = &r.compared;
        let mut row = vec![r.sink.clone(), r.r#type.to_owned()];
        match &r.skipped {
            Some(why) => row.push(format!("not compared: {why}")),
            None => row.extend(
                [
                    c.expected,
                    c.present,
                    c.rejected,
                    c.elsewhere,
                    c.missing.len(),
                    c.altered.len(),
                    c.repeated.len(),
                ]
                .map(|n| n.to_string()),
            ),
        }
        if let Some(sample) = r.sample {
            row.push(format!("(a sample of {sample})"));
        }
        if r.counts.is_some() {
            row.push(if r.gaps > 0 {
                "(counts by verdict differ)".into()
            } else {
                "(counts by verdict agree)".into()
            });
        }
        rows.push(row);
    }
    out.push_str(&super::table(&rows));
    for r in reports {
        for (what, ids) in [
            ("missing in", &r.compared.missing),
            ("altered in", &r.compared.altered),
            ("repeated in", &r.compared.repeated),
        ] {
            if !ids.is_empty() {
                let more = if ids.len() > 10 {
                    format!(" and {} more (--json lists all)", ids.len() - 10)
                } else {
                    String::new()
                };
                let ids: Vec<String> = ids.iter().take(10).map(|id| printable(id)).collect();
                let _ = writeln!(out, "{what} {}: {}{more}", r.sink, ids.join(", "));
            }
        }
    }
    out
}

/// One question, and how long its decision took to everywhere.
#[derive(Serialize)]
struct Probed {
    path: String,
    expect: String,
    verdict: Option<&'static str>,
    decision_id: String,
    trace_id: String,
    /// Seconds from the question to each place; none if it did not get there in time.
    seconds: BTreeMap<String, Option<f64>>,
    ok: bool,
}

async fn probe(args: &Args, pipeline: &Pipeline, opa: &str) -> CommandResult {
    let probes = &pipeline.file.probes;
    for verdict in ["allow", "deny"] {
        if !probes.iter().any(|p| p.expect == verdict) {
            return Err(format!("{} has no probe that expects {verdict}; add one under probes: {{path, input, expect: {verdict}}}", args.file.display()).into());
        }
    }
    let mut all = Vec::new();
    for probe in probes {
        all.push(ask(args, pipeline, opa, probe).await?);
    }
    let failed = all.iter().filter(|p| !p.ok).count();
    if args.json {
        anstream::println!("{}", json!({ "ok": failed == 0, "probes": all }));
    } else {
        let places: BTreeSet<&String> = all.iter().flat_map(|p| p.seconds.keys()).collect();
        let heads = ["PATH", "EXPECTED", "VERDICT"]
            .map(str::to_owned)
            .into_iter()
            .chain(places.iter().map(|p| p.to_uppercase()));
        let mut rows = vec![heads.chain(["DECISION".to_owned()]).collect::<Vec<_>>()];
        for p in &all {
            let mut row =
                vec![p.path.clone(), p.expect.clone(), p.verdict.unwrap_or("-").to_owned()];
            row.extend(places.iter().map(|place| match p.seconds.get(*place) {
                Some(Some(seconds)) => format!("{seconds:.2} s"),
                _ => "not there".into(),
            }));
            row.push(printable(&p.decision_id));
            rows.push(row);
        }
        anstream::print!("{}", super::table(&rows));
    }
    if failed > 0 { Err(format!("{failed} of {} probes failed", all.len()).into()) } else { Ok(()) }
}

async fn ask(
    args: &Args,
    pipeline: &Pipeline,
    opa: &str,
    probe: &Probe,
) -> Result<Probed, Box<dyn std::error::Error>> {
    let mut sinks = checked(args, pipeline)?;
    sinks.retain(|sink| !matches!(sink.look, Err(_) | Ok(Look::Counts { .. })));
    let past = tokio::task::block_in_place(|| {
        Past::open(pipeline, "verify", &pipeline.docket_topic(), Edge::End, Edge::End)
    })?;
    let trace = format!("{:032x}", rand::random::<u128>() | 1);
    let url = format!("{opa}/v1/data/{}", probe.path.trim_matches('/'));
    let asked = Instant::now();
    let request = reqwest::Client::new()
        .post(&url)
        .header("content-type", "application/json")
        .header("traceparent", format!("00-{trace}-{:016x}-01", rand::random::<u64>() | 1))
        .timeout(Duration::from_secs(30))
        .body(json!({ "input": probe.input }).to_string());
    let response = request
        .send()
        .await
        .map_err(|e| format!("OPA at {opa} can't be asked: {}", e.without_url()))?;
    let status = response.status();
    let answer: Value = serde_json::from_str(&response.text().await?)
        .map_err(|_| format!("{url} answered {status} and no JSON"))?;
    let Some(id) = answer["decision_id"].as_str() else {
        return Err(format!(
            "{url} answered {status} without a decision_id; does this OPA write decision logs?"
        )
        .into());
    };
    let mut probed = Probed {
        path: probe.path.clone(),
        expect: probe.expect.clone(),
        verdict: None,
        decision_id: id.to_owned(),
        trace_id: trace,
        seconds: BTreeMap::new(),
        ok: false,
    };
    let mut found: Option<Decision> = None;
    tokio::task::block_in_place(|| {
        past.follow(&mut |message| {
            if let Some(message) = message
                && let Ok(record) = Record::parse(message.payload().unwrap_or_default())
                && record.decision_id == id
            {
                for sink in &mut sinks {
                    if let Ok(look) = &mut sink.look {
                        sink.wanted.push(wanted(look, &sink.redaction, &record));
                    }
                }
                found = Some(Decision::new(
                    &record,
                    message.partition(),
                    message.timestamp().to_millis().unwrap_or(0),
                ));
            }
            found.is_none() && asked.elapsed() < args.settle
        })
    })?;
    let seconds = || Some(asked.elapsed().as_secs_f64());
    probed.seconds.insert("docket".into(), found.as_ref().and_then(|_| seconds()));
    for sink in &sinks {
        probed.seconds.insert(sink.name.clone(), None);
    }
    let Some(decision) = found else { return Ok(probed) };
    probed.verdict = Some(decision.verdict.as_str());
    let one = [decision];
    while probed.seconds.values().any(Option::is_none) && asked.elapsed() < args.settle {
        for sink in &sinks {
            if let (Some(None), Ok(look)) = (probed.seconds.get(&sink.name), &sink.look) {
                let (found, _): (Found, _) = look
                    .look(&one, 1, &|_| {})
                    .await
                    .map_err(|e| format!("sink {}: {e}", sink.name))?;
                if found.contains_key(&probed.decision_id) {
                    probed.seconds.insert(sink.name.clone(), seconds());
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    probed.ok = probed.seconds.values().all(Option::is_some)
        && probed.verdict == Some(probe.expect.as_str());
    Ok(probed)
}
