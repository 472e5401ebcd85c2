//! `docket check`: validates pipeline files and runs their own tests.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::shown::note;
use super::{CommandResult, Exit};
use crate::config::secrets::Real;
use crate::pipeline::{self, LoadError, Pipeline, addresses, beside, cases, policies};
use crate::sink::config::SinkConfig;
use crate::words::counted;

/// Validate pipeline files and run their test cases, without connecting to anything.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  docket check pipelines/*.yaml
  docket init - --metrics | docket check -
  docket check my.yaml --json | jq '.files[].problems'

Exit codes: 0 all are valid; 1 a file is not valid, or a test failed; 2 wrong arguments, as a file that is not there.")]
pub struct Args {
    /// Pipeline files; - is standard input.
    #[arg(required = true, value_name = "PIPELINE")]
    files: Vec<PathBuf>,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

/// What became of a test case.
#[derive(Serialize)]
struct Test {
    name: String,
    line: usize,
    passed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<String>,
}

/// What is valid, and may not be meant.
pub(super) fn notes(pipeline: &Pipeline) -> Vec<String> {
    let topic = pipeline.docket_topic();
    let nowhere = pipeline.file.sinks.is_empty().then(|| {
        format!("it has no sinks: docket writes decisions to the topic {topic}, and delivers them nowhere else")
    });
    let door = pipeline.file.door.as_ref();
    let open = door.filter(|door| door.is_open()).map(|door| {
        format!(
            "whoever reaches {} can upload decisions: see door.tokens and door.tls (docs/door.md)",
            door.listen
        )
    });
    let small = door.and_then(|door| door.note(pipeline.limits.record));
    let bare = addresses::portless(&pipeline.file.kafka.brokers);
    let bare = (!bare.is_empty()).then(|| {
        format!("kafka.brokers: {} without a port: Kafka is looked for at 9092", bare.join(", "))
    });
    // They may be where docket runs.
    let files = beside::named(&pipeline.file).into_iter().filter(|(_, path)| !path.exists());
    let files = files.map(|(setting, path)| {
        format!("{setting}: there is no {} here; it has to be where docket runs", path.display())
    });
    let otherwise = [policies::masks_otherwise, policies::verdicts_otherwise];
    let otherwise = otherwise.into_iter().flat_map(|of| of(&pipeline.file));
    let joined = pipeline.file.join.iter().flat_map(|_| &pipeline.file.sinks);
    let unamended = joined.filter_map(|(name, sink)| match sink {
        SinkConfig::Elasticsearch(config) if config.data_stream && config.amendments.is_none() => {
            Some(format!(
                "sinks.{name}: matches that come late are not added to its documents: a data stream takes no updates"
            ))
        }
        _ => None,
    });
    [nowhere, open, small, bare]
        .into_iter()
        .flatten()
        .chain(files)
        .chain(otherwise)
        .chain(unamended)
        .collect()
}

/// Why a file is not valid, for people and for programs.
struct Invalid {
    told: String,
    problems: Vec<Value>,
    /// It is no pipeline file, or not there.
    other: bool,
}

impl Invalid {
    fn of(told: String, other: bool) -> Invalid {
        let problems = vec![json!({ "line": 0, "column": 0, "message": told })];
        Invalid { told, problems, other }
    }
}

impl From<LoadError> for Invalid {
    fn from(error: LoadError) -> Invalid {
        Invalid { problems: super::problems(&error), told: error.to_string(), other: false }
    }
}

/// The pipeline of a file.
fn loaded(path: &Path) -> Result<Pipeline, Invalid> {
    if let Some(told) = super::no_pipeline(path) {
        return Err(Invalid::of(told, true));
    }
    if path.as_os_str() != "-" {
        return Ok(pipeline::load(path)?);
    }
    let text = std::io::read_to_string(std::io::stdin().lock());
    let unread = |e| Invalid::of(format!("standard input can't be read: {e}"), false);
    let text = text.map_err(unread)?;
    Ok(pipeline::parse(path, &text, &Real)?)
}

/// What is said of a pipeline file if one before it has the same name: consumer groups, topics and
/// metrics are called by it. Those of two environments may well have one, so `docket check` notes it,
/// and `docket run`, which would run both, refuses it.
pub(super) fn same_name(path: &Path, name: &str, before: &[(PathBuf, String)]) -> Option<String> {
    let (other, _) = before.iter().find(|(_, other)| other == name)?;
    if other == path {
        return Some(format!("{} is given twice", path.display()));
    }
    let (other, path) = (other.display(), path.display());
    Some(format!(
        "{other} and {path} have the same name: {name}; where both run, give each a name of its own"
    ))
}

pub fn run(args: &Args) -> CommandResult {
    let (mut bad_files, mut failed, mut code) = (0_u64, 0_u64, 1);
    let (mut files, mut names) = (Vec::new(), Vec::new());
    for path in &args.files {
        let file = path.display();
        let pipeline = match loaded(path) {
            Ok(pipeline) => pipeline,
            Err(Invalid { told, problems, other }) => {
                bad_files += 1;
                code = if other { 2 } else { code };
                if args.json {
                    files.push(json!({ "file": file.to_string(), "valid": false, "problems": problems, "tests": [] }));
                } else {
                    anstream::eprintln!("{told}");
                }
                continue;
            }
        };
        // One that is given twice is as valid as once.
        let twice = names.iter().any(|(other, _)| other == path);
        let same = same_name(path, pipeline.name(), &names).filter(|_| !twice);
        names.push((path.clone(), pipeline.name().to_owned()));
        let tests: Vec<Test> = pipeline
            .file
            .tests
            .iter()
            .zip(&pipeline.test_lines)
            .map(|(case, line)| {
                let difference = cases::run(&pipeline, case).err();
                let (name, passed) = (case.name.clone(), difference.is_none());
                Test { name, line: *line, passed, difference }
            })
            .collect();
        let passed = tests.iter().filter(|test| test.passed).count();
        failed += (tests.len() - passed) as u64;
        let notes: Vec<String> = notes(&pipeline).into_iter().chain(same).collect();
        if args.json {
            let told = json!({
                "file": file.to_string(), "valid": true, "problems": [], "notes": notes, "tests": tests
            });
            files.push(told);
            continue;
        }
        notes.iter().for_each(|told| note(&format!("{file}: {told}")));
        for test in &tests {
            if let Some(difference) = &test.difference {
                let Test { line, name, .. } = test;
                anstream::eprintln!("{file}:{line}: test {name:?} failed\n{difference}");
            }
        }
        let tests = match tests.len() as u64 {
            0 => "it has no tests".to_owned(),
            total => format!("{passed} of {} passed", counted(total, "test")),
        };
        anstream::println!("{file}: valid, {tests}");
    }
    if args.json {
        let valid = bad_files + failed == 0;
        anstream::println!("{}", json!({ "valid": valid, "files": files }));
    }
    if bad_files + failed > 0 {
        let verb = if bad_files == 1 { "is" } else { "are" };
        let files =
            (bad_files > 0).then(|| format!("{} {verb} not valid", counted(bad_files, "file")));
        let tests = (failed > 0).then(|| format!("{} failed", counted(failed, "test")));
        let told: Vec<String> = files.into_iter().chain(tests).collect();
        return Err(Exit::reported(code, told.join(", ")).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(brokers: &str, more: &str) -> Vec<String> {
        let text = format!(
            "name: m\nkafka: {{brokers: '{brokers}'}}\nsources: [{{topic: t}}]\n{more}\nsinks: {{a: {{type: file, path: a}}}}\n"
        );
        let secrets = &crate::config::secrets::Real;
        notes(&pipeline::parse(std::path::Path::new("m.yaml"), &text, secrets).unwrap())
    }

    #[test]
    fn an_address_without_a_port_and_files_that_are_not_here_are_noted() {
        let said = noted("a:9092,b", "");
        assert_eq!(said, ["kafka.brokers: b without a port: Kafka is looked for at 9092"]);
        let tls =
            "tls: {cert_file: Cargo.toml, key_file: nowhere/k.pem, client_ca_file: nowhere/ca.pem}";
        let said = noted("a:9092", &format!("door: {{listen: '127.0.0.1:0', {tls}}}"));
        let missing = |setting: &str, path: &str| {
            format!("{setting}: there is no {path} here; it has to be where docket runs")
        };
        let expected = [
            missing("door.tls.key_file", "nowhere/k.pem"),
            missing("door.tls.client_ca_file", "nowhere/ca.pem"),
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn a_budget_that_makes_the_largest_upload_smaller_is_told() {
        let notes = |more: &str| noted("x:9092", more);
        let door = "door: {listen: '127.0.0.1:0'}";
        assert!(notes("memory: {budget: 128MiB}").is_empty());
        assert!(notes(&format!("memory: {{budget: 2GiB}}\n{door}")).is_empty());
        let said = notes(&format!("memory: {{budget: 96MiB}}\n{door}")).remove(0);
        assert!(said.contains("memory.budget") && said.contains("67108864"), "{said}");
    }

    #[test]
    fn the_shipped_pipelines_and_policies_say_nothing_that_may_differ() {
        use crate::rego::{SourceFile, otherwise};
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let files = |folder: &str, end: &str| -> Vec<PathBuf> {
            let all = std::fs::read_dir(root.join(folder)).unwrap().map(|e| e.unwrap().path());
            let all: Vec<_> = all.filter(|p| p.extension().is_some_and(|e| e == end)).collect();
            assert!(!all.is_empty(), "{folder}");
            all
        };
        for path in files("pipelines", "yaml") {
            let pipeline = pipeline::load(&path).unwrap();
            assert_eq!(policies::masks_otherwise(&pipeline.file), Vec::<String>::new());
            assert_eq!(policies::verdicts_otherwise(&pipeline.file), Vec::<String>::new());
        }
        let folders = [
            "examples/why/policies",
            "deploy/compose/policy",
            "tests/data/mask",
            "tests/real/envoy/policies",
        ];
        for path in folders.into_iter().flat_map(|folder| files(folder, "rego")) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path).unwrap();
            let places = otherwise::places(&[SourceFile { name: name.clone(), text }]);
            // They are no policies of docket's: one has `%q`, one divides what may be no whole number.
            let differs = ["k8s.rego", "rules.rego"].contains(&name.as_str());
            assert_eq!(places.len(), usize::from(differs), "{places:?}");
        }
    }
}
