//! `docket spikes`: what the detector says of the past, and how good it is.

mod evaluate;
mod topic;

use std::path::{Path, PathBuf};

use serde_json::json;

use super::demo::findings::past;
use super::recent;
use super::shown::{note, say_aside};
use super::{CommandResult, offline};
use crate::decision::time::{self, Nanos};
use crate::generate::scenario::Scenario;
use crate::log::scan::ScanBound;
use crate::pipeline::spikes::Spikes;
use crate::spike::Finding;
use crate::spike::config::Config;
use crate::spike::together::together;
use crate::words::counted;

/// Run the spike detector over past decisions, to see what it would have reported before it pages anyone.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  docket spikes pipelines/opa.yaml --since 7d
  docket spikes pipelines/opa.yaml --since 7d --floor 30   fewer findings
  docket spikes pipelines/opa.yaml --since 1d --json | jq .causes
  docket spikes decisions.ndjson.gz                   of a file, without Kafka
  docket spikes --evaluate                            how good is the detector?

The findings are those that `docket run` would report for the same decisions and the same spikes section; docs/spikes.md explains how. \
Denial spikes and silent failures are looked for again. What other parts of docket came upon (decision_id_reused, log_gap, and what the \
join found) is not: it is shown as `docket run` wrote it to the docket topic; of files, IDs that were used twice are looked for. \
--evaluate exits with code 1 if recall or precision is below 0.97, the median time to detection is above 20 s, or the first cause is right \
in less than 95 % of cases; with --quiet, if a scenario has more than one false finding in 30 days.")]
pub struct Args {
    /// Pipeline file (.yaml), to look at its docket topic; or files of decision logs, of which it needs no Kafka, with a pipeline file before them for its rules.
    #[arg(value_name = "FILE", required_unless_present = "evaluate")]
    files: Vec<PathBuf>,
    /// Start of the decisions to look at: start, a duration ago, or a time (RFC 3339). Default: 7d, but all of files.
    #[arg(long, value_parser = super::bound)]
    since: Option<ScanBound>,
    /// Minimum number of denials beyond the expected for a finding, instead of the pipeline's spikes.floor.
    #[arg(long, value_parser = at_least::<1>)]
    floor: Option<f64>,
    /// Minimum improbability of a finding, as a negative exponent of e, instead of the pipeline's spikes.certainty.
    #[arg(long, value_parser = at_least::<5>)]
    certainty: Option<f64>,
    /// Print each finding as a JSON object, one per line, instead of a table.
    #[arg(long)]
    json: bool,
    /// Measure the detector on made-up days with known events.
    #[arg(long, conflicts_with_all = ["files", "since"])]
    evaluate: bool,
    /// Number of days per scenario.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000), requires = "evaluate")]
    days: u64,
    /// Days of each scenario's platform on which nothing happens, instead: every finding is wrong. 30 days of all of them take an hour.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=1000), requires = "evaluate")]
    quiet: Option<u32>,
    /// Seed of the first day.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(..=1_000_000_000_000), requires = "evaluate")]
    seed: u64,
    /// Only these scenarios, separated by commas. Default: all.
    #[arg(long, value_enum, value_delimiter = ',', requires = "evaluate")]
    scenario: Vec<Scenario>,
}

/// As in the pipeline file.
fn at_least<const LEAST: u16>(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if number.is_finite() && number >= f64::from(LEAST) {
        Ok(number)
    } else {
        Err(format!("must be at least {LEAST}"))
    }
}

pub fn run(args: &Args) -> CommandResult {
    let mut spikes = Spikes::default();
    let (file, decisions) = offline::told_apart("spikes", &args.files)?;
    if !decisions.is_empty() {
        return of_files(args, file, decisions);
    }
    let Some(file) = file else {
        return evaluate::evaluate(args, &config(args, &spikes), time::nanos(spikes.lateness.0));
    };
    let pipeline = super::load(file)?;
    if let Some(section) = &pipeline.file.spikes {
        spikes = section.clone();
    }
    topic::of_topic(args, &pipeline, &spikes)
}

/// Of findings that are shown with others in one line; nothing where each has its own.
fn folded(groups: &[Vec<&Finding>]) -> Option<String> {
    let several = groups.iter().filter(|group| group.len() > 1);
    let (lines, all) = several.fold((0, 0), |(lines, all), group| (lines + 1, all + group.len()));
    let lines = counted(lines, "line");
    (all > 0).then(|| {
        format!("{all} of the findings are shown in {lines} with others of the same cause; --json shows each")
    })
}

fn tell_all(args: &Args, findings: &[Finding]) {
    if args.json {
        for finding in findings {
            anstream::println!("{}", json!(finding));
        }
    } else if !findings.is_empty() {
        let groups = together(findings);
        anstream::print!("{}", super::shown::fitted(&rows(&groups), super::columns()));
        folded(&groups).iter().for_each(|told| note(told));
    }
}

/// The same of decisions in files, in the order of their times.
fn of_files(args: &Args, pipeline: Option<&Path>, files: &[PathBuf]) -> CommandResult {
    let pipeline = offline::pipeline(pipeline)?;
    let mut spikes = pipeline.file.spikes.clone().unwrap_or_else(Spikes::default);
    (spikes.floor, spikes.certainty) = {
        let config = config(args, &spikes);
        (config.floor, config.certainty)
    };
    let (mut all, tally) = offline::in_order(&pipeline, files)?;
    if let Some(ScanBound::At(since)) = args.since {
        all.retain(|(at, _)| *at >= since);
    }
    let repeats = recent::once(&mut all);
    let mut findings = past(&spikes, &all);
    findings.extend(offline::reused(&all).into_iter().filter(|f| !spikes.ignores(f)));
    findings.sort_by_key(|f| f.detected);
    tell_all(args, &findings);
    let rejects: u64 = tally.rejects.values().map(|(n, _)| n).sum();
    let mut unread = recent::left_out(repeats);
    if rejects > 0 {
        unread.push_str(&format!("; {rejects} that can't be read (docket demo shows why)"));
    }
    if tally.findings > 0 {
        let written = counted(tally.findings, "finding");
        unread.push_str(&format!("; {written} that docket wrote there, left out"));
    }
    let (span, learn) = (
        all.last().map_or(0, |(at, _)| *at) - all.first().map_or(0, |(at, _)| *at),
        time::nanos(spikes.learn.0),
    );
    let short = if span < learn {
        format!(
            "; they span less than the {} s in which it learns what is usual (spikes.learn)",
            learn / 1_000_000_000
        )
    } else {
        String::new()
    };
    say_aside(&format!(
        "{} in {}{unread}{short}",
        counted(findings.len() as u64, "finding"),
        counted(all.len() as u64, "decision")
    ));
    if all.is_empty() { Err("no decision was found".into()) } else { Ok(()) }
}

fn config(args: &Args, spikes: &Spikes) -> Config {
    let mut config = spikes.config();
    config.floor = args.floor.unwrap_or(config.floor);
    config.certainty = args.certainty.unwrap_or(config.certainty);
    config
}

fn rows(groups: &[Vec<&Finding>]) -> Vec<Vec<String>> {
    let heads = [
        "DETECTED", "KIND", "SERVICE", "POLICY", "AFTER", "LASTED", "SEEN", "EXPECTED", "SCORE",
        "CAUSE", "TRACE",
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(groups.iter().map(|group| told(group)));
    rows
}

/// Findings that have one cause are one row: what is seen and expected is that of all, and of services and policies the first is named.
fn told(group: &[&Finding]) -> Vec<String> {
    let first = group[0];
    let span = |from: Nanos, to: Nanos| format!("{} s", (to - from) / 1_000_000_000);
    let onset = group.iter().map(|f| f.onset).min().unwrap_or(first.onset);
    let ended: Option<Vec<Nanos>> = group.iter().map(|f| f.ended).collect();
    let causes: Vec<String> = first
        .causes
        .iter()
        .map(|c| {
            let value = super::tail::printable(&c.value);
            format!("{} {value} ({:.0} %)", c.dimension.as_str(), 100.0 * c.share)
        })
        .collect();
    let more = |text: &str| match group.len() {
        1 => super::tail::printable(text),
        n => format!("{} +{}", super::tail::printable(text), n - 1),
    };
    vec![
        time::format(first.detected)[..19].to_owned() + "Z",
        first.kind.as_str().to_owned(),
        more(&first.service),
        super::tail::printable(&first.policy),
        span(onset, first.detected),
        match ended.and_then(|all| all.into_iter().max()) {
            Some(ended) => span(onset, ended),
            // What a part came upon goes on for no time.
            None if first.kind.is_event() => String::new(),
            None => "to the end".into(),
        },
        group.iter().map(|f| f.observed).sum::<u64>().to_string(),
        format!("{:.1}", group.iter().map(|f| f.expected).sum::<f64>()),
        format!("{:.0}", first.score),
        [causes.join(", "), super::tail::printable(&first.detail)]
            .into_iter()
            .filter(|said| !said.is_empty())
            .collect::<Vec<_>>()
            .join("; "),
        first.examples.first().map(|e| e.trace_id.clone()).unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_causes_of_a_finding_are_shown() {
        let cause = |dimension: &str, value: &str| json!({ "dimension": dimension, "value": value, "share": 1.0, "before": 0.1 });
        let finding = json!({
            "id": "i", "kind": "denial_spike", "service": "s", "policy": "p",
            "onset": "2026-11-24T12:48:50Z", "detected": "2026-11-24T12:48:52Z",
            "observed": 9, "expected": 1.0, "decisions": 9, "score": 20.0, "examples": [],
            "causes": [cause("revision", "r2"), cause("subject", "mallory")],
        });
        let finding: Finding = serde_json::from_value(finding).unwrap();
        let shown = rows(&together(&[finding]))[1].join("|");
        assert!(shown.contains("revision r2 (100 %), subject mallory (100 %)"), "{shown}");
    }

    #[test]
    fn one_attacker_at_many_services_is_one_row() {
        let all: Vec<Finding> = (0..28)
            .map(|i| Finding {
                detected: i * 1_000_000_000,
                observed: 10,
                expected: 0.5,
                ended: Some((100 + i) * 1_000_000_000),
                causes: vec![crate::spike::Cause::whole(
                    crate::spike::Dimension::Subject,
                    "mallory",
                )],
                ..Finding::new(crate::spike::Kind::DenialSpike, &format!("s{i}"), "p")
            })
            .collect();
        let rows = rows(&together(&all));
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1][2..9].join("|"), "s0 +27|p|0 s|127 s|280|14.0|0");
        assert_eq!(
            folded(&together(&all)).as_deref(),
            Some(
                "28 of the findings are shown in 1 line with others of the same cause; --json shows each"
            )
        );
        assert_eq!(folded(&together(&all[..1])), None);
    }
}
