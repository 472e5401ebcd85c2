//! `docket why`: one decision, what became of its request, and why it was made.

mod again;
mod kafka;
mod opa;
mod policies;
pub mod served;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;

use super::shown::{note, sentence_columns, wrapped};
use super::{Exit, offline};
use crate::decision::event::Event;
use crate::decision::formats::{self, Format, Limits, Piece};
use crate::decision::ids::derive;
use crate::decision::record::{Agent, Record};
use crate::explain::page::{self, Told};
use crate::explain::{Explanation, Recorded, story, without_result};
use crate::log::scan::ScanBound;
use crate::protect::Protection;
use crate::protect::detect::{Act, Detect};
use crate::protect::detector;
use crate::protect::record::{Rules, make};
use crate::words::{counted, shell};
use kafka::Answer;
use opa::Explainer;
use policies::bundle;

/// Show one decision, the request that it ruled on and, given the policies, which line made it and which condition was not met.
#[derive(clap::Args)]
#[command(
    override_usage = "docket why [OPTIONS] <ID> --from <FILE>
       docket why [OPTIONS] <ID> <PIPELINE>",
    after_help = "Examples:
  docket why DECISION_ID --from decisions.ndjson --bundle policies/
  docket why TRACE_ID --from decisions.ndjson
  kubectl logs deploy/opa | docket why ID --from - --bundle bundle.tar.gz
  docket why REQUEST_ID pipelines/opa.yaml --since 2h      from the docket topic

Exit status: 0 the decision was found and, with --bundle, reproduced; 1 it was not found, or something can't be read;
2 wrong usage; 3 it was found, but the policies give another result than the recorded one, or what the condition rests on is not known."
)]
pub struct Args {
    /// Decision ID, trace ID or request ID (x-request-id, or the uid of an AdmissionReview); of the first two the beginning is enough, from 8 characters on.
    id: String,
    /// Pipeline file: the decision is looked for in its docket topic.
    #[arg(value_name = "PIPELINE", conflicts_with = "from")]
    pipeline: Option<PathBuf>,
    /// File of decisions in any format docket reads; - is standard input. Connects to nothing.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// How far back to look in the docket topic: start, how long ago, or a time. The latest is read first.
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = super::bound)]
    since: ScanBound,
    /// Policies that made the decision: a directory or a bundle.tar.gz. The decision is evaluated again.
    #[arg(long, value_name = "DIR|FILE")]
    bundle: Option<PathBuf>,
    /// The `opa` that evaluates, by its path; or none: then regorus does. By default the `opa` on the PATH, if there is one.
    #[arg(long, value_name = "FILE|none", requires = "bundle")]
    opa: Option<PathBuf>,
    /// Print JSON: an array of the decisions as docket records, each with its explanation.
    #[arg(long)]
    json: bool,
    /// Print one page of HTML, which loads and runs nothing.
    #[arg(long, conflicts_with = "json")]
    html: bool,
    /// Show the input as it was logged, without looking for secrets in it.
    #[arg(long, requires = "from")]
    unmasked: bool,
}

/// So much of a decision's ID `tail` and the demo show.
const SHOWN: usize = 8;
/// How the ID of each finding begins.
const FINDING: &str = "finding-";
/// Of a trace with more, the others are only counted.
const MOST: usize = 20;

/// A decision of the file.
struct Found {
    /// The docket record, without secrets.
    record: Vec<u8>,
    explained: Option<Result<Explanation, String>>,
    /// What was found wrong with how it was enforced.
    findings: Vec<String>,
}

impl Found {
    /// Of a record as it is shown. Only its evaluation tells that its result is made of secrets.
    fn of(
        record: Vec<u8>,
        explained: Option<Result<Explanation, String>>,
        findings: Vec<String>,
    ) -> Found {
        let said = explained.as_ref().and_then(|explained| explained.as_ref().ok());
        let text = std::str::from_utf8(&record).ok();
        let without = said.zip(text).and_then(|(said, text)| without_result(text, said));
        Found { record: without.map_or(record, String::into_bytes), explained, findings }
    }
}

pub fn run(args: &Args) -> Result<ExitCode, Box<dyn std::error::Error>> {
    placed(args)?;
    let bundle = args.bundle.as_deref().map(bundle).transpose()?;
    let explainer = bundle.map(|bundle| Explainer::new(bundle, args.opa.as_deref()));
    let (from, answer, further) = match (&args.from, &args.pipeline) {
        (Some(from), _) => {
            (from.display().to_string(), in_file(args, from, explainer.as_ref())?, String::new())
        }
        (None, Some(path)) => {
            let pipeline = super::load(path)?;
            let brokers = &pipeline.file.kafka.brokers;
            let waiting = super::waiting(&format!("Kafka at {brokers}"));
            let (since, explainer) = (args.since, explainer.as_ref());
            if args.id.len() < SHOWN {
                anstream::eprintln!("{}", short(&args.id));
            }
            let answer = kafka::look(&pipeline, &args.id, since, explainer, super::progress)?;
            let (written, mut further) = looked(since);
            if answer.found.is_empty() && answer.finding.is_none() {
                further.push_str(&kafka::refused(&pipeline, path, &args.id, since));
            }
            drop(waiting);
            (format!("the docket topic of {}{written}", path.display()), answer, further)
        }
        (None, None) => return Err(nowhere(&args.id).into()),
    };
    let Answer { found, more, decisions, unread, finding, again } = answer;
    if let (true, Some(finding)) = (found.is_empty(), finding) {
        return Err(no_decision(&finding, args.pipeline.as_deref()).into());
    }
    if found.is_empty() {
        let told = match decisions {
            0 => format!("{from} holds no decision that docket can read"),
            1 => format!("the only decision in {from} has another ID than {}", args.id),
            n => format!("none of the {n} decisions in {from} has the ID {}", args.id),
        };
        // Of a topic it was said before.
        let short = match args.from.is_some() && args.id.len() < SHOWN {
            true => format!("; {}", short(&args.id)),
            false => String::new(),
        };
        return Err(format!("{told}{short}{unread}{further}").into());
    }
    let name = args.bundle.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
    let notes = again.notes();
    if args.json {
        print_json(&found)?;
    } else if args.html {
        use std::io::Write;
        let page = page_of(&args.id, &found, more, &notes, explainer.as_ref(), &name)?;
        std::io::stdout().lock().write_all(page.as_bytes())?;
    } else {
        print_story(&found, explainer.as_ref(), &name)?;
    }
    notes.iter().for_each(|told| note(told));
    if more > 0 {
        anstream::eprintln!("{} more; ask for one by its decision ID", counted(more, "decision"));
    }
    let other = |found: &Found| match &found.explained {
        None => false,
        Some(explained) => !explained.as_ref().is_ok_and(|said| said.reproduced && !said.uncertain),
    };
    Ok(if found.iter().any(other) { ExitCode::from(3) } else { ExitCode::SUCCESS })
}

/// What is said of an ID that is too short to be how another begins.
fn short(id: &str) -> String {
    format!(
        "{id} is looked for as a whole ID: the beginning of one is enough from {SHOWN} characters on"
    )
}

/// What is said of a finding that was asked for as if it were a decision.
fn no_decision(finding: &str, pipeline: Option<&Path>) -> String {
    let file = pipeline.map(|path| shell(&path.display()));
    let further = file.map_or_else(String::new, |file| {
        format!(
            "\n  docket spikes {file}     all findings, with what they are about\n  \
            docket tail {file} --verdict finding --from start --until-end --json"
        )
    });
    format!("{finding}{further}")
}

/// A finding, as it stands in the docket topic, in a sentence.
fn told(finding: &Record<'_>) -> String {
    use crate::decision::{json, time};
    let sentences: Vec<_> = json::elements(finding.reasons).filter_map(json::as_str).collect();
    let (id, at) = (super::tail::printable(&finding.decision_id), time::format(finding.timestamp));
    let said = super::tail::printable(&sentences.join("; "));
    let at = at.get(..19).unwrap_or(&at);
    format!("{id} is a finding of docket's, and no decision: at {at}Z, {said}")
}

/// What is said where a file stands in the place of the ID.
fn swapped(args: &Args) -> Option<String> {
    let first = Path::new(&args.id);
    let decisions = offline::is_decisions(first);
    if !decisions && !offline::is_pipeline(first) {
        return None;
    }
    let other = args.pipeline.as_ref().filter(|id| !id.exists());
    let id = other.map_or_else(|| "ID".to_owned(), |id| shell(&id.display()));
    let place = match (&args.from, decisions) {
        (Some(from), _) => format!("--from {}", shell(&from.display())),
        (None, true) => format!("--from {}", shell(&first.display())),
        (None, false) => shell(&first.display()),
    };
    Some(format!("the ID comes first:\n  docket why {id} {place}"))
}

/// What was looked at of a topic, and how more is.
fn looked(since: ScanBound) -> (String, String) {
    let further = "; --since says how far back to look (start: all that is kept)";
    match since {
        ScanBound::Start => (String::new(), String::new()),
        ScanBound::End => (" from now on".into(), further.into()),
        ScanBound::At(at) => {
            let at = crate::decision::time::format(at);
            (format!(" since {}Z", at.get(..19).unwrap_or(&at)), further.into())
        }
    }
}

/// Whether it is said where to look, and as what: a file of decisions, or a pipeline file.
fn placed(args: &Args) -> Result<(), Exit> {
    let (id, policies) = (&args.id, args.bundle.as_ref());
    let bundle =
        policies.map_or_else(String::new, |path| format!(" --bundle {}", shell(&path.display())));
    if let Some(said) = swapped(args) {
        return Err(Exit::wrong(said + &bundle));
    }
    let said = match (&args.pipeline, &args.from) {
        (None, None) => nowhere(id),
        (Some(file), _) if offline::is_decisions(file) => {
            let (named, file) = (file.display(), shell(&file.display()));
            format!(
                "{named} holds decisions, and is no pipeline file:\n  docket why {id} --from {file}{bundle}"
            )
        }
        (_, Some(file)) if offline::is_pipeline(file) => {
            let (named, file) = (file.display(), shell(&file.display()));
            format!(
                "{named} is a pipeline file, and holds no decisions; to look in its docket topic:\n  docket why {id} {file}{bundle}"
            )
        }
        _ => {
            let absent = policies.and_then(|path| offline::absent(path));
            match absent.or_else(|| args.opa.as_deref().and_then(opa::absent)) {
                Some(said) => said,
                None => return Ok(()),
            }
        }
    };
    Err(Exit::wrong(said))
}

fn nowhere(id: &str) -> String {
    format!(
        "where does the decision stand?\n  docket why {id} --from decisions.ndjson     in a file, without Kafka\n  docket why {id} my.yaml                     in the docket topic of a pipeline"
    )
}

fn in_file(
    args: &Args,
    from: &Path,
    explainer: Option<&Explainer>,
) -> Result<Answer, Box<dyn std::error::Error>> {
    let bytes = super::feed::read(from)?;
    if crate::decision::json::trim(&bytes).is_empty() {
        let from = if from.as_os_str() == "-" {
            "standard input".into()
        } else {
            from.display().to_string()
        };
        return Err(format!("{from} is empty").into());
    }
    let shown = Rules {
        protection: (!args.unmasked).then(|| {
            let detect = Some(Detect::new(detector::ALL.map(|_| Some(Act::Erase))));
            Arc::new(Protection { detect, ..Protection::default() })
        }),
        ..Rules::default()
    };
    let mut answer = Answer::default();
    let wanted = Wanted::new(&args.id);
    let (mut refused, mut first) = (0_u64, None);
    formats::split(&bytes, Format::Auto, &Limits::default(), &mut |piece| {
        let (event, agent) = match piece {
            Piece::Decision { event, agent } => (event, agent),
            Piece::Reject { bytes, reject } => {
                refused += 1;
                // Of those that can't be read, one that has the ID is told rather than the first.
                if first.is_none() || wanted.holds(&bytes) {
                    first = Some(reject);
                }
                return;
            }
            Piece::Ignored(_) => return,
        };
        if offline::is_finding(event.raw) {
            let finding = Record::parse(event.raw.as_bytes()).ok();
            answer.finding = answer.finding.take().or(finding
                .filter(|finding| wanted.names_finding(&finding.decision_id))
                .map(|finding| told(&finding)));
            return;
        }
        answer.decisions += 1;
        if !wanted.may_be(&event) || !wanted.is(&event, agent.as_ref()) {
            return;
        }
        if !answer.again.is_new(&event.decision_id, event.raw) {
            return;
        }
        if answer.found.len() == MOST {
            answer.more += 1;
            return;
        }
        let mut record = Vec::new();
        let made = make(&event, &[], agent.as_ref(), &shown, &mut record);
        if matches!(made, Ok(Some(_))) {
            let shown = std::str::from_utf8(&record).ok().filter(|_| !args.unmasked);
            let explained = explainer.map(|e| e.explain(&recorded(&event, shown)));
            answer.found.push(Found::of(record, explained, Vec::new()));
        }
    });
    if let Some(first) = first {
        let why = super::tail::printable(&first.to_string());
        answer.unread = format!("; {refused} that can't be read (docket demo shows why): {why}");
    }
    Ok(answer)
}

/// What is evaluated; `shown` is the record without secrets, which the explanation has to be without, too.
fn recorded<'a>(event: &'a Event<'_>, shown: Option<&'a str>) -> Recorded<'a> {
    let part = |name: &str| crate::decision::json::get(event.raw, name);
    Recorded {
        path: &event.path,
        result: event.result,
        input: event.input,
        erased: part("erased"),
        masked: part("masked"),
        timestamp: Some(event.timestamp),
        duration: event.duration(),
        nd_builtin_cache: part("nd_builtin_cache"),
        error: event.error,
        shown,
    }
}

fn print_story(
    found: &[Found],
    explainer: Option<&Explainer>,
    name: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    for (i, found) in found.iter().enumerate() {
        let record = Record::parse(&found.record)?;
        if i > 0 {
            writeln!(out)?;
        }
        write!(out, "{}", story::decision(&record))?;
        for sentence in &found.findings {
            let found = format!("FOUND: {}", super::tail::printable(sentence));
            writeln!(out, "\n{}", wrapped(&found, 7, sentence_columns()))?;
        }
        let why = why(found, &record, explainer, name);
        if !why.is_empty() {
            write!(out, "\n{why}")?;
        }
    }
    Ok(())
}

/// What evaluating it again said; empty without a bundle.
fn why(found: &Found, record: &Record<'_>, explainer: Option<&Explainer>, name: &str) -> String {
    let mut out = String::new();
    if let Some(revision) = explainer.and_then(|explainer| explainer.bundle.revision.as_deref())
        && !record.revision().contains(revision)
    {
        let revision = super::tail::printable(revision);
        out.push_str(&format!("The bundle is of revision {revision}.\n\n"));
    }
    match &found.explained {
        None => {}
        Some(Ok(said)) => out.push_str(&story::explanation(said, name)),
        Some(Err(e)) => {
            out.push_str(&format!("Not evaluated again: {}\n", super::tail::printable(e)));
        }
    }
    out
}

fn page_of(
    id: &str,
    found: &[Found],
    more: u64,
    notes: &[String],
    explainer: Option<&Explainer>,
    name: &str,
) -> Result<String, Box<dyn std::error::Error>> {
    let mut told = Vec::new();
    for found in found {
        let record = Record::parse(&found.record)?;
        told.push(Told {
            story: story::decision(&record),
            findings: found.findings.clone(),
            explanation: why(found, &record, explainer, name),
            record,
        });
    }
    Ok(page::page(id, &told, more, notes))
}

fn print_json(found: &[Found]) -> Result<(), Box<dyn std::error::Error>> {
    use std::io::Write;
    let mut all = Vec::new();
    for found in found {
        let decision: serde_json::Value = serde_json::from_slice(&found.record)?;
        let mut one = match &found.explained {
            None => json!({ "decision": decision }),
            Some(Ok(said)) => json!({ "decision": decision, "explanation": said }),
            Some(Err(e)) => json!({ "decision": decision, "error": e }),
        };
        if !found.findings.is_empty() {
            one["findings"] = json!(found.findings);
        }
        all.push(one);
    }
    writeln!(std::io::stdout().lock(), "{}", serde_json::to_string_pretty(&all)?)?;
    Ok(())
}

/// What is looked for.
struct Wanted {
    id: String,
    /// A part of it that stands in a decision however its headers write it: X-Ray's have a hyphen inside.
    part: String,
    /// It may be a trace's, or how one begins.
    hex: bool,
}

impl Wanted {
    fn new(id: &str) -> Wanted {
        let hex = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
        let begins =
            id.len() >= SHOWN && id.len() < 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
        let part = match (hex, begins) {
            (true, _) => &id[16..],
            (_, true) => &id[..SHOWN],
            _ => id,
        };
        Wanted { id: id.to_owned(), part: part.to_ascii_lowercase(), hex: hex || begins }
    }

    /// Quick, on each decision of the file.
    fn may_be(&self, event: &Event<'_>) -> bool {
        let holds = |part: &str| memchr::memmem::find(event.raw.as_bytes(), part.as_bytes());
        holds(&self.part).is_some()
            || holds(&self.part.to_ascii_uppercase()).is_some()
            || holds(&self.id).is_some()
            // What docket gives a decision without a trace stands nowhere in it.
            || self.hex && self.is_trace(&derive(&event.decision_id).trace.to_string())
    }

    /// Whether it is the decision's own ID, in capitals or not, or what `tail` shows of one.
    fn names(&self, decision_id: &str) -> bool {
        let begins = decision_id.get(..self.id.len());
        begins.is_some_and(|begin| begin.eq_ignore_ascii_case(&self.id))
            && (self.id.len() >= SHOWN || decision_id.len() == self.id.len())
    }

    /// Whether it is a finding's ID, or how it begins, with or without what is before it.
    fn names_finding(&self, id: &str) -> bool {
        let bare = |id: &str| id.strip_prefix(FINDING).unwrap_or(id).to_owned();
        let (id, wanted) = (bare(id), bare(&self.id.to_ascii_lowercase()));
        id == wanted || (wanted.len() >= SHOWN && id.starts_with(&wanted))
    }

    /// Whether it is the trace's ID, or how it begins.
    fn is_trace(&self, id: &str) -> bool {
        let begins = id.get(..self.id.len()).is_some_and(|s| s.eq_ignore_ascii_case(&self.id));
        begins && self.id.len() >= SHOWN
    }

    fn is(&self, event: &Event<'_>, agent: Option<&Agent>) -> bool {
        if self.names(&event.decision_id) {
            return true;
        }
        let mut record = Vec::new();
        if !matches!(make(event, &[], agent, &Rules::default(), &mut record), Ok(Some(_))) {
            return false;
        }
        let Ok(record) = Record::parse(&record) else { return false };
        self.is_record(&record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/why").join(path)
    }

    #[test]
    fn a_decision_is_found_by_each_of_its_ids() {
        let text = std::fs::read_to_string(example("decisions.ndjson")).unwrap();
        let found = |id: &str| -> Vec<String> {
            let wanted = Wanted::new(id);
            let events = text.lines().map(|line| Event::parse(line.as_bytes()).unwrap());
            events
                .filter(|event| wanted.may_be(event) && wanted.is(event, None))
                .map(|event| event.decision_id.into_owned())
                .collect()
        };
        let decision = "438ee5cd-9339-40c6-a799-673641a06288";
        for id in [
            decision,
            "1f3b88283ebbd6aba56b22599cfddbff",
            "1F3B88283EBBD6ABA56B22599CFDDBFF",
            "45100358acc6d8f2c74c7ccf32d03fdd",
            "438ee5cd",
            "438EE5CD-9339-40C6-A799-673641A06288",
            "438EE5CD",
            "1f3b88283ebb",
            "1F3B8828",
        ] {
            assert_eq!(found(id), [decision], "{id}");
        }
        assert!(found("438ee5c").is_empty() && found("1f3b882").is_empty());
        // The uid of an AdmissionReview; what stands elsewhere is no id of it.
        assert_eq!(found("0d650372e90794dfed52a24135b00a55").len(), 1);
        assert!(found("DELETE").is_empty() && found("registry.example").is_empty());
        // The trace that docket gives one without.
        let untraced = br#"{"decision_id":"d-1","timestamp":"2026-11-24T12:48:50Z"}"#;
        let event = Event::parse(untraced).unwrap();
        let trace = derive("d-1").trace.to_string();
        for id in [&trace, &trace[..8]] {
            let wanted = Wanted::new(id);
            assert!(wanted.may_be(&event) && wanted.is(&event, None), "{id}");
        }
    }

    #[test]
    fn what_is_not_there_is_told_with_what_was_looked_at() {
        let (written, further) = looked(ScanBound::At(1_795_524_530_000_000_000));
        assert_eq!(written, " since 2026-11-24T12:48:50Z");
        assert!(further.contains("--since"));
        assert_eq!(looked(ScanBound::Start), (String::new(), String::new()));
    }

    #[test]
    fn where_to_look_is_asked_for_and_mixed_up_files_are_told() {
        let parsed = |args: &[&str]| {
            let args = ["why"].iter().chain(args).copied();
            let command = <Args as clap::Args>::augment_args(clap::Command::new("why"));
            let args = <Args as clap::FromArgMatches>::from_arg_matches(
                &command.try_get_matches_from(args).unwrap(),
            );
            placed(&args.unwrap()).err().map(|exit| (exit.code, exit.told))
        };
        let said = |rest: &[&str]| parsed(&[&["ID"], rest].concat());
        let decisions = example("decisions.ndjson").display().to_string();
        let pipeline =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/opa.yaml").display().to_string();
        let (code, told) = said(&[]).unwrap();
        assert!(code == 2 && told.contains("docket why ID --from decisions.ndjson"), "{told}");
        assert!(told.contains("docket why ID my.yaml"), "{told}");
        let (_, told) = said(&[&decisions, "--bundle", "b"]).unwrap();
        assert!(told.ends_with(&format!("docket why ID --from {decisions} --bundle b")), "{told}");
        let (_, told) = said(&["--from", &pipeline]).unwrap();
        assert!(told.ends_with(&format!("docket why ID {pipeline}")), "{told}");
        let spaced = "an examples/decisions of mine.yaml";
        let (_, told) = said(&["--from", spaced]).unwrap();
        assert!(told.ends_with(&format!("docket why ID '{spaced}'")), "{told}");
        assert_eq!(said(&["--from", &decisions]), None);
        assert_eq!(said(&[&pipeline]), None);
        for (args, right) in [
            (&[pipeline.as_str(), "7e669200"][..], format!("7e669200 {pipeline}")),
            (&[&decisions, "7e669200"], format!("7e669200 --from {decisions}")),
            (&[&pipeline, "--from", &decisions], format!("ID --from {decisions}")),
            (&[&decisions], format!("ID --from {decisions}")),
        ] {
            let (code, told) = parsed(args).unwrap();
            let right = format!("the ID comes first:\n  docket why {right}");
            assert_eq!((code, told), (2, right));
        }
    }
}
