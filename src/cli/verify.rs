//! `docket verify`: is the record complete and true?

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::shown::{fitted, lines, say, sentence_columns};
use super::tail::printable;
use super::{CommandResult, Exit};
use crate::decision::time;
use crate::log::scan::{ScanBound, ScanError};
use crate::pipeline::Pipeline;
use crate::verify::behind::{Behind, behind};
use crate::verify::lost::SourceReport;
use crate::verify::probe::{Probed, probe};
use crate::verify::report::Report;
use crate::verify::run::{Outcome, Verified, verify};
use crate::verify::scope::{Scope, VerifyError};
use crate::verify::traced::Lost;
use crate::words::{counted, shell};
use bars::Bars;

mod bars;

/// Check that every decision of the source topics is in the docket topic, and every one of the docket topic in every sink, once and
/// unaltered, or in rejects.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  docket verify pipelines/opa.yaml --from 1h
  docket verify pipelines/opa.yaml --sink search --json | jq .sinks
  docket verify pipelines/opa.yaml --probe http://127.0.0.1:8181

Exit codes:
  0  complete: the docket has all that intake has read, and sinks all of it
  1  something is lost, missing, altered or repeated; or a probe failed
  2  wrong arguments, or an error in the pipeline file
  3  no gap, but a sink can't tell what it holds (--sink leaves it out), or a
     part of the source can't be compared (--no-source leaves it out)
  4  no gap, but a sink, Kafka or OPA could not be reached

The source topics are read up to where intake has committed, and go through the pipeline file's rules again.

Elasticsearch is queried by ID; Loki, VictoriaLogs and CloudWatch for every line; files are read; the trace backend is queried for a sample \
(set query of the OTLP sink), and Prometheus for its counts (set query of the metrics sink). --probe sends OPA the requests under probes in \
the pipeline file, and follows their decisions to every sink. What intake has yet to read is not in the docket: then it is complete of what \
intake has read.")]
pub struct Args {
    /// Pipeline file.
    #[arg(value_name = "PIPELINE")]
    file: PathBuf,
    /// Only decisions written to the docket topic from here on: start, a duration ago, or a time (RFC 3339).
    #[arg(long, default_value = "1h", value_parser = super::bound)]
    from: ScanBound,
    /// Only decisions written before this: end, a duration ago, or a time.
    #[arg(long, default_value = "end", value_parser = super::bound)]
    until: ScanBound,
    /// Only these sinks, separated by commas.
    #[arg(long, value_delimiter = ',')]
    sink: Vec<String>,
    /// Do not compare the source topics with the docket topic.
    #[arg(long)]
    no_source: bool,
    /// Number of traces to query.
    #[arg(long, default_value_t = 200)]
    sample: usize,
    /// How long to wait for decisions that may still be on their way; with --probe, how long a decision may take to each sink.
    #[arg(long, value_parser = super::duration, default_value = "30s")]
    settle: Duration,
    /// URL of an OPA to send the pipeline file's probes to, following their decisions.
    #[arg(long, value_name = "OPA_URL", value_parser = super::url)]
    probe: Option<String>,
    /// Print the whole report as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Exit codes; what clap refuses has the second, too.
const GAP: u8 = 1;
const WRONG: u8 = 2;
const NOT_COMPARED: u8 = 3;
const UNREACHABLE: u8 = 4;

impl From<VerifyError> for Exit {
    fn from(error: VerifyError) -> Exit {
        let code = match &error {
            VerifyError::Scan(ScanError::NoTopic(_)) | VerifyError::Scratch(_) => WRONG,
            VerifyError::Scan(_) | VerifyError::Opa(_) => UNREACHABLE,
        };
        Exit::new(code, error.to_string())
    }
}

pub async fn run(args: Args) -> CommandResult {
    if let Some(told) = super::no_pipeline(&args.file) {
        return Err(Exit::wrong(told).into());
    }
    let pipeline =
        crate::pipeline::load(&args.file).map_err(|error| Exit::invalid(WRONG, &error))?;
    super::window(args.from, args.until)?;
    for name in &args.sink {
        if !pipeline.file.sinks.contains_key(name) {
            let told = super::sinks::no_sink(&args.file, &pipeline, name);
            return Err(Exit::new(WRONG, told).into());
        }
    }
    let scope = Scope {
        from: args.from,
        until: args.until,
        sinks: args.sink.clone(),
        sample: args.sample,
        settle: args.settle,
        source: !args.no_source,
    };
    match &args.probe {
        Some(opa) => probes(&args, &pipeline, &scope, opa.trim_end_matches('/')).await,
        None => compared(&args, &pipeline, &scope).await,
    }
}

async fn compared(args: &Args, pipeline: &Pipeline, scope: &Scope) -> CommandResult {
    let bars = Bars::new(pipeline);
    let behind = tokio::task::block_in_place(|| {
        // Whether the docket may be read at all is said at once.
        pipeline.scan("verify", &pipeline.docket_topic(), scope.from, scope.until)?;
        behind(pipeline)
    });
    let behind = behind.map_err(VerifyError::from).map_err(Exit::from)?;
    let verified = verify(pipeline, scope, &bars).await.map_err(Exit::from)?;
    drop(bars);
    let (gaps, outcome) = (verified.gaps(), verified.outcome());
    if args.json {
        let repeats = verified.repeats();
        let Verified { about, unreadable, source, rejects, gone, sinks } = &verified;
        let complete = outcome == Outcome::Complete;
        let all = json!({ "pipeline": pipeline.name(), "complete": complete, "outcome": outcome, "gaps": gaps, "repeats": repeats, "unreadable": unreadable, "intake": behind, "docket": about, "source": source, "rejects": rejects, "gone": gone, "sinks": sinks });
        anstream::println!("{all}");
    } else {
        let said = told(pipeline, args, &verified);
        anstream::print!("{}", lines(&said, sentence_columns()));
        for (topic, why) in &behind.unknown {
            let why = printable(why);
            say(&format!("note: what intake has yet to read of {topic} is not known: {why}"));
        }
    }
    let code = match outcome {
        Outcome::Complete => {
            if !args.json {
                let nothing = verified.reports().all(|report| report.compared.expected == 0);
                let none = if nothing { ": there was no decision in that time" } else { "" };
                let aside = aside(args.no_source, !args.sink.is_empty());
                say(&format!("{}{none}{aside}", complete(&behind)));
            }
            return Ok(());
        }
        Outcome::Gap | Outcome::Repeated => GAP,
        Outcome::Unreachable => UNREACHABLE,
        Outcome::NotCompared => NOT_COMPARED,
    };
    Err(Exit::reported(code, incomplete(&verified, &behind)).into())
}

/// What intake has yet to read.
fn unread(behind: &Behind) -> String {
    let of = |(topic, n): (&String, &u64)| format!("{} of {topic}", counted(*n, "record"));
    behind.unread.iter().map(of).collect::<Vec<_>>().join(", ")
}

fn complete(behind: &Behind) -> String {
    match behind.records() {
        0 => "complete".into(),
        _ => format!("complete of what intake has read; {} yet to be read", unread(behind)),
    }
}

/// What was not to be compared, behind the verdict.
fn aside(no_source: bool, some_sinks: bool) -> &'static str {
    match (no_source, some_sinks) {
        (false, false) => "",
        (true, false) => "; the source was not compared (--no-source)",
        (false, true) => "; other sinks were not compared (--sink)",
        (true, true) => "; neither the source (--no-source) nor other sinks (--sink) were compared",
    }
}

/// What is wrong, in a sentence.
fn incomplete(verified: &Verified, behind: &Behind) -> String {
    let mut wrong: Vec<String> = verified.reports().filter_map(wrong_with).collect();
    if verified.source.as_ref().is_some_and(SourceReport::is_partial) {
        wrong.push("a part of the source not compared".into());
    }
    wrong.extend(
        verified
            .gone
            .iter()
            .take(3)
            .map(|gone| format!("{}: {}", printable(&gone.part), printable(&gone.what))),
    );
    if let more @ 1.. = verified.gone.len().saturating_sub(3) {
        wrong.push(format!(
            "{} more that were gone (`docket rejects`: log_gap)",
            counted(more, "range")
        ));
    }
    if verified.unreadable > 0 {
        let records = counted(verified.unreadable, "record");
        wrong.push(format!("{records} of the docket topic that docket did not write"));
    }
    if verified.sinks.is_empty() {
        wrong.push("there is no sink to compare".into());
    }
    if behind.records() > 0 {
        wrong.push(format!("intake: {} yet to be read", unread(behind)));
    }
    let first = match verified.outcome() {
        Outcome::Repeated => "everything is there, but not only once",
        _ => "not complete",
    };
    format!("{first}: {}", wrong.join("; "))
}

/// What is wrong with a sink.
fn wrong_with(report: &Report) -> Option<String> {
    let sink = &report.sink;
    if report.error.is_some() {
        return Some(format!("{sink} could not be asked"));
    }
    if report.skipped.is_some() {
        return Some(format!("{sink} not compared"));
    }
    let c = &report.compared;
    let yet = (c.unsent > 0).then(|| format!("{} yet to be sent", c.unsent));
    if report.counts.is_some() {
        let verdicts = counted(report.gaps, "verdict");
        let other = (report.gaps > 0).then(|| format!("another count of {verdicts}"));
        let found: Vec<String> = other.into_iter().chain(yet).collect();
        return (!found.is_empty()).then(|| format!("{sink}: {}", found.join(", ")));
    }
    let counts = [(&c.missing, "missing"), (&c.altered, "altered"), (&c.repeated, "repeated")];
    let found: Vec<String> = counts
        .iter()
        .filter(|(ids, _)| ids.count > 0)
        .map(|(ids, what)| format!("{} {what}", ids.count))
        .collect();
    let found: Vec<String> = found.into_iter().chain(yet).collect();
    (!found.is_empty()).then(|| format!("{sink}: {}", found.join(", ")))
}

/// The command that gives a sink what it lacks.
fn sends_again(args: &Args, report: &Report) -> Option<String> {
    if report.compared.missing.count == 0 || report.counts.is_some() {
        return None;
    }
    let bound = |name: &str, bound: ScanBound| match bound {
        ScanBound::At(at) => format!(" --{name} {}", time::format(at)),
        ScanBound::Start | ScanBound::End => String::new(),
    };
    let (from, until) = (bound("from", args.from), bound("until", args.until));
    let (file, sink) = (shell(&args.file.display()), shell(&report.sink));
    Some(format!("docket backfill {file} --sink {sink}{from}{until} --send"))
}

/// What `docket verify` says to people, a sentence on a line.
fn told(pipeline: &Pipeline, args: &Args, verified: &Verified) -> String {
    let (file, about) = (args.file.as_path(), &verified.about);
    let mut out = String::new();
    let verdicts: Vec<String> =
        about.verdicts.iter().map(|(verdict, n)| format!("{n} {verdict}")).collect();
    let span = about
        .first
        .as_ref()
        .zip(about.last.as_ref())
        .map_or_else(String::new, |(first, last)| format!(", decided from {first} to {last}"));
    let findings = match about.findings {
        0 => String::new(),
        n => format!("; and {}", counted(n, "finding")),
    };
    let _ = writeln!(
        out,
        "{}: {}: {}{span}{findings}",
        pipeline.docket_topic(),
        counted(about.decisions, "decision"),
        if verdicts.is_empty() { "none".into() } else { verdicts.join(", ") }
    );
    notes(verified, &mut out);
    out.push_str(&fitted(&rows(verified.reports()), super::columns()));
    if let Some(source) = &verified.source {
        of_source(source, &mut out);
    }
    for (part, n) in &verified.rejects {
        let (records, file) = (counted(*n, "record"), shell(&file.display()));
        let of = if *part == "intake" { "the source" } else { part };
        let _ =
            writeln!(out, "rejects: {records} of {of}, which no sink gets: docket rejects {file}");
    }
    for r in &verified.sinks {
        remarks(r, &mut out);
        for (what, ids) in [
            ("missing in", &r.compared.missing),
            ("altered in", &r.compared.altered),
            ("repeated in", &r.compared.repeated),
            ("not in the docket, but in", &r.compared.only_there),
        ] {
            let shown: Vec<String> = ids.listed.iter().take(10).map(|id| printable(id)).collect();
            if shown.is_empty() {
                continue;
            }
            let more = match ids.count - shown.len() {
                0 => String::new(),
                more => format!(" and {more} more (--json lists more of them)"),
            };
            let told = format!("{what} {}: {}{more}", r.sink, shown.join(", "));
            let _ = writeln!(out, "{told}");
        }
        if let Some(command) = sends_again(args, r) {
            let _ = writeln!(
                out,
                "{}: what is missing is sent again, with all of that time, by: {command}",
                r.sink
            );
        }
        if r.compared.repeated.count > 0 {
            let told = format!(
                "{}: REPEATED is no gap: nothing is lost; a sink is delivered to at least once",
                r.sink
            );
            let _ = writeln!(out, "{told}");
        }
        if r.compared.unsent > 0 {
            let told = format!(
                "{}: {} in the docket that the sink has yet to be sent: not compared, and not lost",
                r.sink,
                counted(r.compared.unsent, "decision")
            );
            let _ = writeln!(out, "{told}");
        }
        if !r.in_source.is_empty() {
            let lost = counted(r.in_source.len(), "decision");
            let told =
                format!("{}: of OTHERS, {lost} is what the docket lacks of the source", r.sink);
            let _ = writeln!(out, "{told}");
        }
        let others = r.compared.only_there.count - r.in_source.len();
        if others > 0 && r.counts.is_none() {
            let others = counted(others, "decision");
            let told = format!(
                "{}: OTHERS is no gap: {others} that another pipeline, or somebody else, wrote to the same place",
                r.sink
            );
            let _ = writeln!(out, "{told}");
        }
    }
    out
}

/// What is to be said of the source, beside numbers.
fn of_source(source: &SourceReport, out: &mut String) {
    let mut say = |what: &str| {
        let _ = writeln!(out, "source: {}", printable(what));
    };
    if let Some(why) = &source.report.skipped {
        say(&format!("not compared: {why}"));
    }
    if let Some(why) = &source.report.error {
        say(&format!("could not be read: {why}"));
    }
    for lost in source.lost.iter().take(10) {
        let Lost { decision_id, topic, partition, offset, .. } = lost;
        say(&format!(
            "lost: {decision_id} (topic {topic}, partition {partition}, offset {offset})"
        ));
    }
    if let more @ 1.. = source.report.compared.missing.count.saturating_sub(10) {
        say(&format!("lost: {more} more (--json lists more of them)"));
    }
    source.reasons.iter().for_each(|why| say(&format!("not compared: {why}")));
    source.notes.iter().for_each(|what| say(what));
}

/// What is to be said of a sink, beside numbers.
fn remarks(report: &Report, out: &mut String) {
    let mut say = |what: String| {
        let _ = writeln!(out, "{}: {what}", report.sink);
    };
    if let Some(why) = &report.skipped {
        say(format!("not compared: {why}"));
    }
    if let Some(why) = &report.error {
        say(format!("could not be asked: {}", printable(why)));
    }
    if let Some(why) = &report.others_unknown {
        say(format!("what else it holds is not known: {}", printable(why)));
    }
    if let Some(sample) = report.sample {
        say(format!("a sample of {}", counted(sample, "decision")));
    }
    if report.counts.is_some() {
        let c = &report.compared;
        say(match (report.gaps, c.missing.count + c.only_there.count) {
            (0, 0) => "counts by verdict agree".into(),
            (0, n) => format!("counts by verdict agree to a hundredth: {n} is what scrapes may miss or see twice"),
            _ => "counts by verdict differ; Prometheus knows what it scraped: is it docket's admin port, and was it there all the time?".into(),
        });
    }
}

/// What is to be said of the docket itself.
fn notes(verified: &Verified, out: &mut String) {
    let about = &verified.about;
    if let Some((median, late, greatest)) = about.delay_seconds {
        let _ = writeln!(
            out,
            "from decision to Kafka: median {median:.2} s, 99 % within {late:.2} s, at most {greatest:.2} s"
        );
    }
    for (n, one, what) in [
        (about.repeated, "repeat", "in the docket: a producer sent a decision again"),
        (about.reused_ids, "decision ID", "in the docket for different decisions"),
        (about.ahead, "decision", "of the future, as Kafka's clock has it: a clock is ahead"),
        (
            about.out_of_order,
            "decision",
            "ten seconds or more after a later one of the same OPA instance",
        ),
        (verified.unreadable, "record", "of the docket topic that docket did not write"),
    ] {
        if n > 0 {
            let _ = writeln!(out, "note: {} {what}", counted(n, one));
        }
    }
    for verdict in ["allow", "deny"] {
        if about.decisions >= 100 && !about.verdicts.contains_key(verdict) {
            let _ = writeln!(out, "note: not one decision is {verdict}");
        }
    }
    quiet(&about.quiet, out);
}

/// Instances that ended, as where pods are replaced: a few by name, many as how many there are.
fn quiet(quiet: &BTreeMap<String, String>, out: &mut String) {
    const NAMED: usize = 3;
    if quiet.len() <= NAMED {
        for (instance, last) in quiet {
            let instance = printable(instance);
            let _ = writeln!(
                out,
                "note: OPA instance {instance} decided regularly until {last}, and no more"
            );
        }
        return;
    }
    let Some((instance, last)) = quiet.iter().max_by_key(|(_, last)| *last) else { return };
    let (many, instance) = (quiet.len(), printable(instance));
    let _ = writeln!(
        out,
        "note: {many} OPA instances decided regularly and then no more, as where each is replaced by another; \
        the last was {instance}, until {last} (--json lists them)"
    );
}

/// One for the source, and for each sink.
fn rows<'r>(reports: impl Iterator<Item = &'r Report>) -> Vec<Vec<String>> {
    let heads = [
        "SINK", "EXPECTED", "PRESENT", "REJECTED", "ROUTED", "MISSING", "ALTERED", "REPEATED",
        "OTHERS",
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for r in reports {
        let c = &r.compared;
        let gaps = [&c.missing, &c.altered, &c.repeated, &c.only_there].map(|ids| ids.count);
        let counts = [c.expected, c.present, c.rejected, c.elsewhere];
        let cell = |n: usize| {
            if r.skipped.is_some() || r.error.is_some() { "-".to_owned() } else { n.to_string() }
        };
        let mut row = vec![r.sink.clone()];
        row.extend(counts.into_iter().chain(gaps).map(cell));
        rows.push(row);
    }
    rows
}

async fn probes(args: &Args, pipeline: &Pipeline, scope: &Scope, opa: &str) -> CommandResult {
    let probes = &pipeline.file.probes;
    for verdict in ["allow", "deny"] {
        if !probes.iter().any(|p| p.expect == verdict) {
            let told = format!(
                "{} has no probe that expects {verdict}; add one under probes: {{path, input, expect: {verdict}}}",
                args.file.display()
            );
            return Err(Exit::new(WRONG, told).into());
        }
    }
    let mut all = Vec::new();
    for one in probes {
        all.push(probe(pipeline, scope, opa, one).await.map_err(Exit::from)?);
    }
    let failed = all.iter().filter(|p| !p.ok).count();
    if args.json {
        anstream::println!("{}", json!({ "ok": failed == 0, "probes": all }));
    } else {
        anstream::print!("{}", fitted(&probed(&all), super::columns()));
        for (sink, error) in all.iter().flat_map(|p| &p.errors) {
            anstream::eprintln!("{sink}: {}", printable(error));
        }
    }
    if failed == 0 {
        return Ok(());
    }
    let told = format!("{failed} of {} failed", counted(all.len(), "probe"));
    let unasked = |p: &Probed| !p.errors.is_empty() && p.verdict == Some(p.expect.as_str());
    let unasked = all.iter().filter(|p| !p.ok).all(unasked);
    Err(Exit::reported(if unasked { UNREACHABLE } else { GAP }, told).into())
}

fn probed(all: &[Probed]) -> Vec<Vec<String>> {
    let places: BTreeSet<&String> = all.iter().flat_map(|p| p.seconds.keys()).collect();
    let heads = ["PATH", "EXPECTED", "VERDICT"]
        .map(str::to_owned)
        .into_iter()
        .chain(places.iter().map(|p| p.to_uppercase()));
    let mut rows = vec![heads.chain(["DECISION".to_owned()]).collect::<Vec<_>>()];
    for p in all {
        let mut row = vec![p.path.clone(), p.expect.clone(), p.verdict.unwrap_or("-").to_owned()];
        row.extend(places.iter().map(|place| match p.seconds.get(*place) {
            Some(Some(seconds)) => format!("{seconds:.2} s"),
            _ => "not there".into(),
        }));
        row.push(printable(&p.decision_id));
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_intake_has_yet_to_read_is_said_with_the_verdict() {
        let mut behind = Behind::default();
        assert_eq!(complete(&behind), "complete");
        behind.unread.extend([("a".to_owned(), 1), ("b".to_owned(), 12)]);
        let said = complete(&behind);
        assert_eq!(
            said,
            "complete of what intake has read; 1 record of a, 12 records of b yet to be read"
        );
        let not_compared = "; other sinks were not compared (--sink)";
        assert_eq!((aside(false, false), aside(false, true)), ("", not_compared));
    }

    #[test]
    fn instances_that_ended_are_named_while_they_are_few() {
        let said = |n: usize| {
            let mut out = String::new();
            let all = (1..=n).map(|i| (format!("opa-{i}"), format!("2026-11-24T12:{i:02}:00Z")));
            quiet(&all.collect(), &mut out);
            out
        };
        assert_eq!((said(0).as_str(), said(3).lines().count()), ("", 3));
        let many = said(40);
        assert!(many.lines().count() == 1 && many.starts_with("note: 40 OPA instances "), "{many}");
        assert!(many.contains("the last was opa-40, until 2026-11-24T12:40:00Z "), "{many}");
    }
}
