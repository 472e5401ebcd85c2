//! `docket protect`: what a pipeline's `protect:` section does to decisions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use similar::{ChangeTag, TextDiff};

use super::shown::note;
use super::{CommandResult, Exit, offline};
use crate::decision::formats::{self, Format, Limits, Piece};
use crate::pipeline::policies;
use crate::protect::opa::Done;
use crate::protect::taken::Taken;
use crate::protect::{By, Protected};
use crate::words::{counted, shell};

/// Show what a pipeline's protect section does to decisions: before and after, and by which rule. Connects to nothing.
#[derive(clap::Args)]
#[command(
    override_usage = "docket protect [OPTIONS] <PIPELINE> <DECISIONS>",
    after_help = "Examples:
  docket protect my.yaml decisions.ndjson             in any format docket reads
  docket protect my.yaml decisions.ndjson --count     only counts
  kcat -b kafka:9092 -t opa-decisions -C -o -99 -eq | docket protect my.yaml -

The output shows decisions unprotected, unless --count or --json is given."
)]
pub struct Args {
    /// Pipeline file.
    #[arg(value_name = "PIPELINE")]
    file: PathBuf,
    /// File of decisions; - is standard input.
    #[arg(value_name = "DECISIONS")]
    decisions: Option<PathBuf>,
    /// Show only counts, and no decisions.
    #[arg(long)]
    count: bool,
    /// Print counts, and no decisions, as one JSON object.
    #[arg(long)]
    json: bool,
}

/// The file of decisions; an error says what was meant.
fn decisions(args: &Args) -> Result<&Path, Exit> {
    let (named, first) = (args.file.display(), shell(&args.file.display()));
    let said = match &args.decisions {
        None if offline::is_decisions(&args.file) => format!(
            "{named} holds decisions; a pipeline file says what is removed from them:\n  docket protect my.yaml {first}\n`docket init my.yaml` writes one"
        ),
        None => format!(
            "of which decisions? A file, or - for standard input:\n  docket protect {first} decisions.ndjson"
        ),
        Some(second) => {
            offline::told_apart("protect", &[args.file.clone(), second.clone()])?;
            return Ok(second);
        }
    };
    Err(Exit::wrong(said))
}

pub fn run(args: &Args) -> CommandResult {
    let file = decisions(args)?;
    let pipeline = super::load(&args.file)?;
    let Some(protection) = &pipeline.rules.protection else {
        return Err(format!(
            "{} has no protect section; `protect: {{}}` in it is one to begin with (docs/protect.md)",
            args.file.display()
        )
        .into());
    };
    policies::masks_otherwise(&pipeline.file).iter().for_each(|told| note(told));
    let bytes = super::feed::read(file)?;
    if crate::decision::json::trim(&bytes).is_empty() {
        return Err("no decision was found: it is empty".into());
    }
    let quiet = args.count || args.json;
    let mut counts: BTreeMap<(String, &str, String), u64> = BTreeMap::new();
    let (mut decisions, mut dropped, mut withheld, mut unread) = (0u64, 0u64, 0u64, 0u64);
    let mut findings = 0u64;
    let mut took = Duration::ZERO;
    // A file is no record.
    let limits = Limits { elements: usize::MAX, ..pipeline.limits };
    formats::split(&bytes, Format::Auto, &limits, &mut |piece| match piece {
        Piece::Ignored(_) => {}
        Piece::Reject { .. } => unread += 1,
        Piece::Decision { event, .. } if offline::is_finding(event.raw) => findings += 1,
        Piece::Decision { event, agent } => {
            decisions += 1;
            let mut told = Vec::new();
            let began = Instant::now();
            let mut hits = Vec::new();
            // As intake does: what stands in the envelope is looked at first, and taken out of both.
            let mut taken = Taken::default();
            if let Some(agent) = &agent {
                protection.protect_agent(&agent.json, &mut hits, &mut taken);
            }
            let asking = &pipeline.rules.record.request;
            let mut tell = |by, done: &Done| told.push((by, done.clone()));
            let result = protection.take_out(&event, asking, &mut taken, &mut hits, &mut tell);
            took += began.elapsed();
            for hit in hits {
                *counts
                    .entry((format!("detector {}", hit.detector.name()), "found", hit.place))
                    .or_default() += 1;
            }
            for (by, done) in &told {
                let by = match by {
                    By::Opa => "opa".to_owned(),
                    By::Rule(i) => format!("rule {i}"),
                    By::Detectors => "detectors".to_owned(),
                    By::Copies => "copies".to_owned(),
                    By::Size => "size".to_owned(),
                };
                for (what, paths) in [("erased", &done.erased), ("masked", &done.masked)] {
                    for path in paths {
                        if by != "detectors" {
                            *counts.entry((by.clone(), what, path.clone())).or_default() += 1;
                        }
                        if !quiet {
                            anstream::println!(
                                "{}: {by} {what} {path}",
                                super::tail::printable(&event.decision_id)
                            );
                        }
                    }
                }
            }
            match result {
                Ok(Protected::AsItWas) => {}
                Ok(Protected::Changed(after)) if !quiet => {
                    anstream::print!("{}", difference(event.raw, &after));
                }
                Ok(Protected::Changed(_)) => {}
                Ok(Protected::Dropped) => dropped += 1,
                Err(reject) => {
                    withheld += 1;
                    if !args.json {
                        let id = super::tail::printable(&event.decision_id);
                        anstream::println!("{id}: {reject}");
                    }
                }
            }
        }
    });
    if args.json {
        let did = |((by, what, path), n): (&(String, &str, String), &u64)| json!({ "by": by, "did": what, "where": path, "decisions": n });
        let counts: Vec<_> = counts.iter().map(did).collect();
        let all = json!({ "decisions": decisions, "dropped": dropped, "withheld": withheld, "unread": unread, "findings": findings, "counts": counts });
        anstream::println!("{all}");
        return if decisions == 0 { Err("no decision was found".into()) } else { Ok(()) };
    }
    let mut rows = vec![["WHAT", "WHERE", "DECISIONS"].map(str::to_owned).to_vec()];
    rows.extend(counts.iter().map(|((by, what, path), n)| {
        vec![format!("{what} by {by}"), super::tail::printable(path), n.to_string()]
    }));
    if rows.len() > 1 {
        anstream::print!("{}", super::shown::fitted(&rows, super::columns()));
    }
    let each = took.as_secs_f64() * 1e6 / decisions.max(1) as f64;
    let each = if decisions > 0 { format!("; {each:.1} µs a decision") } else { String::new() };
    let written = match findings {
        0 => String::new(),
        n => format!(", {} that docket wrote there left out", counted(n, "finding")),
    };
    anstream::eprintln!(
        "{}, {dropped} dropped, {withheld} withheld, {unread} that can't be read{written}{each}",
        counted(decisions, "decision")
    );
    if decisions == 0 { Err("no decision was found".into()) } else { Ok(()) }
}

/// Lines that differ, of both as indented JSON.
fn difference(before: &str, after: &str) -> String {
    let pretty = |text: &str| {
        serde_json::from_str::<serde_json::Value>(text)
            .and_then(|v| serde_json::to_string_pretty(&v))
            .unwrap_or_else(|_| text.to_owned())
    };
    let (before, after) = (pretty(before), pretty(after));
    let lines = TextDiff::from_lines(&before, &after);
    let mut out = String::new();
    for change in lines.iter_all_changes() {
        let sign = match change.tag() {
            ChangeTag::Equal => continue,
            ChangeTag::Delete => '-',
            ChangeTag::Insert => '+',
        };
        out.push_str(&format!("  {sign} {}\n", super::tail::printable(change.value().trim_end())));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_said_where_a_file_is_missing_or_another() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (pipeline, log) =
            (root.join("pipelines/opa.yaml"), root.join("examples/why/decisions.ndjson"));
        let said = |file: &Path, decisions: Option<&Path>| {
            let decisions = decisions.map(Path::to_owned);
            let args = Args { file: file.to_owned(), decisions, count: false, json: false };
            super::decisions(&args).map(Path::to_owned).map_err(|exit| exit.told)
        };
        let told = said(&log, None).unwrap_err();
        assert!(told.contains(&format!("  docket protect my.yaml {}\n", log.display())), "{told}");
        let told = said(&pipeline, None).unwrap_err();
        assert!(told.starts_with("of which decisions?"), "{told}");
        let told = said(&log, Some(&pipeline)).unwrap_err();
        let right = format!("docket protect {} {}", pipeline.display(), log.display());
        assert!(told.ends_with(&right), "{told}");
        assert_eq!(said(&pipeline, Some(&log)), Ok(log));
    }
}
