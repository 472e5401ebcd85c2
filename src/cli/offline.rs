//! Decision logs from files, as intake would read them, without Kafka: for `docket demo FILE`, `docket spikes FILE` and
//! `docket capacity FILE`.

mod used;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::Exit;
use crate::config::secrets::Real;
use crate::decision::formats::{Format, Ignored, Limits};
use crate::decision::json;
use crate::decision::record::Record;
use crate::decision::reject::{Reason, Reject};
use crate::decision::time::Nanos;
use crate::log::topics::nearest;
use crate::pipeline::{self, Pipeline};
use crate::protect::record::Rules;
use crate::spike::Finding;
use crate::transform::{Product, Source, transform};
use crate::words::shell;
use serde_json::Value;
pub use used::Used;

/// Of a command's arguments, the pipeline file, if there is one, and the files of decisions behind it. One that stands anywhere
/// else is no file of decisions.
pub fn told_apart<'f>(
    command: &str,
    files: &'f [PathBuf],
) -> Result<(Option<&'f Path>, &'f [PathBuf]), Exit> {
    let (pipeline, decisions) = match files.split_first() {
        Some((first, rest)) if is_pipeline(first) => (Some(first.as_path()), rest),
        _ => (None, files),
    };
    let Some(other) = decisions.iter().find(|file| is_pipeline(file)) else {
        return Ok((pipeline, decisions));
    };
    let said = if let Some(first) = pipeline {
        let (first, other) = (first.display(), other.display());
        format!(
            "{first} and {other} are pipeline files; docket {command} takes one, before the files of decisions"
        )
    } else {
        let names = decisions.iter().filter(|file| *file != other);
        let names = std::iter::once(other).chain(names).map(|file| shell(&file.display()));
        let names: Vec<String> = names.collect();
        format!("the pipeline file comes first:\n  docket {command} {}", names.join(" "))
    };
    Err(Exit::wrong(said))
}

/// What is said of a file with nothing in it, where its name does not say that it is a pipeline file.
pub fn empty(path: &Path) -> Option<String> {
    let named = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
    let none = std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() == 0);
    (none && !named).then(|| format!("{} is empty", path.display()))
}

/// What is said of a file that is not there.
pub fn absent(path: &Path) -> Option<String> {
    if path.as_os_str() == "-" || path.exists() {
        return None;
    }
    let near = near(path).map_or_else(String::new, |near| format!("; did you mean {near}?"));
    Some(format!("{}: there is no such file{near}", path.display()))
}

/// A file beside it that has a name much like its own.
fn near(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let beside = std::fs::read_dir(folder.unwrap_or(Path::new("."))).ok()?.filter_map(Result::ok);
    let beside = beside.filter(|entry| entry.path().is_file());
    let beside: Vec<String> =
        beside.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let near = nearest(path.file_name()?.to_str()?, beside.iter().map(String::as_str))?;
    Some(folder.map_or_else(|| near.into(), |folder| folder.join(near)).display().to_string())
}

/// Whether an object is a finding as docket writes it to its topic, and `docket tail --json` prints it: no decision.
pub fn is_finding(raw: &str) -> bool {
    memchr::memmem::find(raw.as_bytes(), b"docket.finding").is_some()
        && json::get(raw, "type") == Some("\"docket.finding\"")
        && json::get(raw, "finding").is_some()
}

/// By its name; or, whatever that is, by a line that every pipeline file has and no decision.
pub fn is_pipeline(path: &Path) -> bool {
    if path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
        return true;
    }
    begins(path).is_some_and(|b| b.split(|b| *b == b'\n').any(|line| line.starts_with(b"kafka:")))
}

/// How a file begins; nothing of a pipe, which can be read once.
fn begins(path: &Path) -> Option<Vec<u8>> {
    let file = path.is_file().then(|| std::fs::File::open(path).ok()).flatten()?;
    let mut begins = Vec::new();
    file.take(1 << 20).read_to_end(&mut begins).ok()?;
    if !begins.starts_with(GZIP) {
        return Some(begins);
    }
    // Of what is cut, as much as there is.
    let mut plain = Vec::new();
    let _ = MultiGzDecoder::new(&begins[..]).take(1 << 20).read_to_end(&mut plain);
    Some(plain)
}

const GZIP: &[u8] = &[0x1f, 0x8b];

/// Whether it is gzip, which is for decisions only.
fn is_gzip(path: &Path) -> bool {
    let mut begins = [0; 2];
    let file = path.is_file().then(|| std::fs::File::open(path).ok()).flatten();
    file.is_some_and(|mut file| file.read_exact(&mut begins).is_ok()) && begins == *GZIP
}

/// What is said of a pipeline file that is compressed.
pub fn zipped(path: &Path) -> Option<String> {
    let named = path.display();
    (is_gzip(path) && is_pipeline(path)).then(|| {
        format!("{named} is a pipeline file in gzip, which is read as plain text only: gunzip it")
    })
}

/// Whether a file holds decisions, or what else a log is: its name, or its first line, says so.
pub fn is_decisions(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if [".ndjson", ".jsonl", ".ndjson.gz", ".json.gz"].iter().any(|end| name.ends_with(end)) {
        return path.is_file();
    }
    if path.as_os_str() == "-" || is_pipeline(path) {
        return false;
    }
    let Some(begins) = begins(path) else { return false };
    let holds = |name: &[u8]| memchr::memmem::find(&begins, name).is_some();
    // A pipeline file may be JSON, and its test cases hold decisions.
    let pipeline =
        || serde_json::from_slice::<Value>(&begins).is_ok_and(|v| v["kafka"].is_object());
    is_gzip(path) || holds(b"\"decision_id\"") && !pipeline()
}

/// What is said where a pipeline file is wanted, and what is given holds decisions.
pub fn no_pipeline(path: &Path) -> String {
    let (named, file) = (path.display(), crate::words::shell(&path.display()));
    format!(
        "{named} holds decisions, and is no pipeline file\n  \
        docket demo {file}                what is in them\n  \
        docket protect my.yaml {file}     what a pipeline removes from them\n  \
        docket why ID --from {file}       why one of them was made"
    )
}

/// The rules of a pipeline file, or those that hold where it says nothing.
pub fn pipeline(path: Option<&Path>) -> Result<Pipeline, Box<dyn std::error::Error>> {
    if let Some(path) = path {
        return super::load(path);
    }
    let text = "name: files\nkafka: {brokers: none}\nsources: [{topic: files}]\n";
    Ok(pipeline::parse(Path::new("files"), text, &Real)?)
}

/// What became of records.
#[derive(Debug, Default)]
pub struct Tally {
    pub records: u64,
    pub decisions: u64,
    pub ignored: u64,
    /// Of them, lines that `docket run` rejects where each comes as a Kafka record of its own.
    pub rejected_alone: u64,
    pub dropped: u64,
    /// Left out: docket wrote them, of decisions.
    pub findings: u64,
    /// By reason: how many, and the first.
    pub rejects: BTreeMap<Reason, (u64, Example)>,
}

impl Tally {
    fn reject(&mut self, bytes: &[u8], reject: &Reject) {
        let entry = self.rejects.entry(reject.reason).or_insert_with(|| {
            let begins = String::from_utf8_lossy(&bytes[..bytes.len().min(400)]);
            let begins = super::tail::printable(begins.trim()).chars().take(60).collect();
            (0, Example { detail: reject.detail.clone(), begins })
        });
        entry.0 += 1;
    }
}

/// A reject: what is wrong with it, and how it begins.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Example {
    pub detail: String,
    pub begins: String,
}

/// Reads records by the rules of a pipeline.
pub struct Reader {
    pipeline: Pipeline,
    out: Vec<u8>,
    pub tally: Tally,
}

impl Reader {
    pub fn new(pipeline: Pipeline) -> Reader {
        Reader { pipeline, out: Vec::new(), tally: Tally::default() }
    }

    /// Hands each docket record of a Kafka record's value to `take`.
    pub fn read(&mut self, value: &[u8], take: &mut dyn FnMut(&[u8])) {
        let Reader { pipeline, out, tally } = self;
        let first = pipeline.file.sources.first();
        let source = Source {
            value,
            headers: &[],
            format: first.map_or(Format::Auto, |source| source.format),
            envelope: first.and_then(|source| source.envelope.as_deref()),
        };
        tally.records += 1;
        let (limits, rules) = (&pipeline.limits, &pipeline.rules);
        // What is told of its pieces counts only if the record is not rejected as a whole.
        let (mut of_it, mut made, mut text) = (Tally::default(), Vec::new(), 0);
        let whole =
            transform(source, limits, rules, out, &|_| None, &mut |_, product| match product {
                Product::Ignored(what) => {
                    of_it.ignored += 1;
                    text += u64::from(what == Ignored::Text);
                }
                Product::Dropped => of_it.dropped += 1,
                Product::Docket { bytes, .. }
                    if std::str::from_utf8(bytes).is_ok_and(is_finding) =>
                {
                    of_it.findings += 1;
                }
                Product::Docket { bytes, .. } => made.push(bytes.to_vec()),
                Product::Reject { bytes, reject } => of_it.reject(bytes, &reject),
            });
        if let Some(reject) = whole {
            return tally.reject(value, &reject);
        }
        tally.ignored += of_it.ignored;
        if text > 0 {
            tally.rejected_alone += text.min(rejected_alone(source, limits, rules, out));
        }
        tally.dropped += of_it.dropped;
        tally.findings += of_it.findings;
        tally.decisions += made.len() as u64;
        for (reason, (n, example)) in of_it.rejects {
            tally.rejects.entry(reason).or_insert((0, example)).0 += n;
        }
        made.iter().for_each(|bytes| take(bytes));
    }
}

/// How many lines of a record are rejected as text where each is a record of its own: text beside decisions is some program's output, and
/// text alone may be anything.
fn rejected_alone(source: Source<'_>, limits: &Limits, rules: &Rules, out: &mut Vec<u8>) -> u64 {
    let mut rejected = 0;
    for value in source.value.split(|byte| *byte == b'\n') {
        let alone = Source { value, ..source };
        transform(alone, limits, rules, out, &|_| None, &mut |_, product| {
            if let Product::Reject { reject, .. } = product {
                rejected += u64::from(reject.reason == Reason::NotJson);
            }
        });
    }
    rejected
}

/// A docket record and the time of its decision.
pub type Timed = (Nanos, Vec<u8>);

/// All docket records of files, by the time of their decisions.
pub fn in_order(pipeline: &Pipeline, files: &[PathBuf]) -> Result<(Vec<Timed>, Tally), Exit> {
    let mut reader = Reader::new(pipeline.clone());
    let mut all = Vec::new();
    for path in files {
        let content = super::feed::read(path)?;
        let records = super::feed::records(&content);
        let bar = super::progress(records.len() as u64, "reading");
        for record in records {
            reader.read(record, &mut |bytes| {
                let at = Record::parse(bytes).map_or(0, |record| record.timestamp);
                all.push((at, bytes.to_vec()));
            });
            bar.inc(1);
        }
        bar.finish_and_clear();
    }
    if let (true, [one]) = (all.is_empty(), files)
        && let Some(told) = empty(one)
    {
        return Err(told.into());
    }
    all.sort_by_key(|(at, _)| *at);
    Ok((all, reader.tally))
}

/// What stands under the ID of another decision.
pub fn reused(all: &[Timed]) -> Vec<Finding> {
    let mut used = Used::default();
    for (_, bytes) in all {
        if let Ok(record) = Record::parse(bytes) {
            used.note(&record);
        }
    }
    used.findings()
}

/// What a size can be too large for.
const SIZES: [&str; 5] = [
    "limits.decision_bytes",
    "limits.record_bytes",
    "limits.record_elements",
    "door.limits.body_bytes",
    "max.message.bytes",
];

/// What to do about a reject, whose detail names the setting that it outgrew.
pub fn way_out(reason: Reason, detail: &str) -> String {
    let told = match reason {
        Reason::Empty => "nothing stands in it: see what writes empty records",
        Reason::NotJson => {
            "it is no JSON: see whether the agent cuts long lines, or whether this is a decision log at all"
        }
        Reason::InvalidUtf8 => {
            "it is not UTF-8: see what the agent does to the text, or whether this is a log at all"
        }
        Reason::DuplicateKey => {
            "two members have one name, so readers would disagree: see who adds members"
        }
        Reason::TooDeep => {
            "it is nested too deeply: log less of the input (mask, drop), or raise limits.depth"
        }
        Reason::BadGzip => {
            "it begins as gzip and can't be decompressed: the file or upload was cut"
        }
        Reason::TooLarge => {
            let setting = match SIZES.into_iter().find(|name| detail.contains(name)) {
                Some("max.message.bytes") => "the topic's max.message.bytes",
                Some(name) => name,
                None => "the limit that is named",
            };
            return format!("raise {setting}, or log less of the input (mask, drop)");
        }
        Reason::WrongType => {
            "a member has a type that OPA does not write: see what rewrites decisions on the way"
        }
        Reason::MissingDecisionId => "it has no decision_id: is it a decision log of OPA?",
        Reason::BadDecisionId => {
            "its decision_id is empty or too long: see what rewrites decisions on the way"
        }
        Reason::MissingTimestamp => "it has no timestamp: see what removes it on the way",
        Reason::BadTimestamp => {
            "its timestamp is no time in RFC 3339: see what rewrites it on the way"
        }
        Reason::BadFact => {
            "it does not say what a request did: see join.facts, and the log format in deploy/envoy"
        }
        Reason::BadOtlp => {
            "it is no OTLP logs request: see the exporter's encoding (otlp_proto or otlp_json)"
        }
        Reason::TextFormat => "OPA's console writes text: start it with --log-format json",
        Reason::MaskFailed => {
            "what must be removed could not be: see protect, or OPA's mask policy (docket protect shows it)"
        }
        Reason::Failed => {
            "docket failed at it three times: docket rejects has its bytes; please report it"
        }
        Reason::Refused => "a sink refused it for good: docket rejects shows why",
        Reason::TooOld => "it is older than the sink takes (max_age, too_old)",
        Reason::LogGap => {
            "it is gone from Kafka: keep topics longer (retention.ms), or see why the part was behind"
        }
        Reason::BadDocketRecord => {
            "docket did not write it: somebody else writes to the docket topic"
        }
    };
    told.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_file_is_told_from_decisions_by_its_name() {
        let files = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let both = files(&["my.yaml", "a.ndjson", "-"]);
        fn apart(files: &[PathBuf]) -> Result<(Option<&Path>, &[PathBuf]), String> {
            told_apart("spikes", files).map_err(|exit| exit.told)
        }
        assert_eq!(apart(&both), Ok((Some(Path::new("my.yaml")), &both[1..])));
        let only = files(&["a.ndjson"]);
        assert_eq!(apart(&only), Ok((None, &only[..])));
        assert_eq!(apart(&files(&["my.yml"])).unwrap().1.len(), 0);
        let told = apart(&files(&["a.ndjson", "b c.gz", "my.yaml"])).unwrap_err();
        let right = "the pipeline file comes first:\n  docket spikes my.yaml a.ndjson 'b c.gz'";
        assert_eq!(told, right);
        let told = apart(&files(&["my.yaml", "a.ndjson", "b.yaml"])).unwrap_err();
        assert!(told.starts_with("my.yaml and b.yaml are pipeline files; "), "{told}");
    }

    #[test]
    fn findings_of_the_docket_topic_are_no_decisions() {
        let found = crate::decision::record::finding(crate::decision::record::Found {
            id: "finding-5a76131eb4faa59d-begins",
            at: 1_795_524_530_000_000_000,
            body: serde_json::json!({"kind": "denial_spike"}),
            sentence: "denial spike on x",
            by: "spikes",
            policy: "x",
            trace: None,
            links: Vec::new(),
            service: "orders",
        });
        // A decision may speak of one.
        let decision = br#"{"decision_id":"d1","path":"a/b","input":{"type":"docket.finding","finding":{}},"result":true,"timestamp":"2026-11-24T12:48:50Z"}"#;
        let mut reader = Reader::new(pipeline(None).unwrap());
        let mut taken = 0;
        reader.read(&[&found, &decision[..]].join(&b'\n'), &mut |_| taken += 1);
        let tally = &reader.tally;
        assert_eq!((taken, tally.decisions, tally.findings), (1, 1, 1));
        assert!(tally.rejects.is_empty() && tally.ignored == 0, "{tally:?}");
    }

    #[test]
    fn text_beside_decisions_is_told_as_what_it_is_alone() {
        let decision =
            r#"{"decision_id":"d","path":"a","result":true,"timestamp":"2026-11-24T12:48:50Z"}"#;
        let read = |record: &str| {
            let mut reader = Reader::new(pipeline(None).unwrap());
            reader.read(record.as_bytes(), &mut |_| ());
            (reader.tally.ignored, reader.tally.rejected_alone, reader.tally.rejects.len())
        };
        assert_eq!(read("hello"), (0, 0, 1), "a record of its own");
        assert_eq!(read(&format!("{decision}\nhello\nthere\n{decision}")), (2, 2, 0));
        // A line of OPA's log, or of a container's, is ignored wherever it stands.
        let log = r#"{"level":"info","msg":"ready","time":"2026-11-24T12:48:49Z"}"#;
        assert_eq!(read(&format!("{decision}\n{log}")), (1, 0, 0));
        let container = "2026-11-24T12:48:50.000000000Z stdout F ";
        assert_eq!(read(&format!("{container}hello\n{container}{decision}")), (1, 0, 0));
    }

    #[test]
    fn decisions_are_told_from_what_is_none() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (file, are) in [
            ("examples/why/decisions.ndjson", true),
            ("tests/data/decisions-opa-1.22.2.ndjson.gz", true),
            ("pipelines/opa.yaml", false),
            ("Cargo.toml", false),
            ("examples", false),
            ("nowhere.ndjson", false),
        ] {
            assert_eq!(is_decisions(&root.join(file)), are, "{file}");
        }
        let own = std::env::temp_dir().join(format!("docket-offline-{}", std::process::id()));
        for (text, are) in [
            ("{\"decision_id\":\"d\"}\n", true),
            ("name: x\nkafka: {}\ntests: [{decision: {\"decision_id\": d}}]", false),
            ("{\"kafka\": {}, \"tests\": [{\"decision_id\": 1}]}", false),
        ] {
            std::fs::write(&own, text).unwrap();
            assert_eq!(is_decisions(&own), are, "{text}");
        }
        std::fs::remove_file(&own).unwrap();
        let said = no_pipeline(Path::new("x.ndjson"));
        assert!(said.contains("docket protect my.yaml x.ndjson "), "{said}");
    }

    #[test]
    fn what_is_too_large_says_by_how_much_and_which_setting_that_is() {
        let mut pipeline = pipeline(None).unwrap();
        (pipeline.limits.decision, pipeline.limits.elements) = (200, 2);
        let mut reader = Reader::new(pipeline);
        let long = "x".repeat(300);
        let record = format!(
            r#"{{"decision_id":"d1","path":"a/b","input":"{long}","result":true,"timestamp":"2026-11-24T12:48:50Z"}}"#
        );
        reader.read(record.as_bytes(), &mut |_| panic!("it is too large"));
        let told = |reader: &Reader| reader.tally.rejects[&Reason::TooLarge].1.detail.clone();
        let detail = told(&reader);
        assert!(detail.contains(&record.len().to_string()) && detail.contains("200"), "{detail}");
        let way_out = |detail: &str| way_out(Reason::TooLarge, detail);
        assert!(way_out(&detail).starts_with("raise limits.decision_bytes, "), "{detail}");
        reader.tally = Tally::default();
        let small =
            r#"{"decision_id":"d","path":"a","result":true,"timestamp":"2026-11-24T12:48:50Z"}"#;
        let three = format!("[{small},{small},{small}]");
        reader.read(three.as_bytes(), &mut |_| panic!("the whole is rejected"));
        let detail = told(&reader);
        assert!(way_out(&detail).starts_with("raise limits.record_elements, "), "{detail}");
        let topic = way_out("it outgrows the topic t, which takes 10 bytes (max.message.bytes)");
        assert!(topic.starts_with("raise the topic's max.message.bytes, "), "{topic}");
    }

    #[test]
    fn each_kind_of_reject_has_an_example_and_a_way_out() {
        let mut reader = Reader::new(pipeline(None).unwrap());
        let mut ids = Vec::new();
        for record in [
            r#"{"decision_id":"d1","path":"a/b","result":true,"timestamp":"2026-11-24T12:48:50Z"}"#,
            r#"{"path":"a/b","result":true,"timestamp":"2026-11-24T12:48:50Z"}"#,
            r#"{"path":"a/c","result":true,"timestamp":"2026-11-24T12:48:50Z"}"#,
            r#"{"decision_id":"d2","path":"a/b","result":true,"timestamp":"yesterday"}"#,
        ] {
            reader.read(record.as_bytes(), &mut |bytes| {
                ids.push(Record::parse(bytes).unwrap().decision_id.to_string());
            });
        }
        assert_eq!(ids, ["d1"]);
        let rejects: Vec<_> = reader.tally.rejects.iter().map(|(r, (n, e))| (*r, *n, e)).collect();
        assert_eq!(rejects.len(), 2, "{rejects:?}");
        assert_eq!((rejects[0].0, rejects[0].1), (Reason::MissingDecisionId, 2));
        assert!(rejects[0].2.begins.starts_with(r#"{"path":"a/b""#), "{rejects:?}");
        assert_eq!((rejects[1].0, rejects[1].1), (Reason::BadTimestamp, 1));
        let mut said: Vec<_> = Reason::ALL.iter().map(|reason| way_out(*reason, "")).collect();
        said.sort_unstable();
        said.dedup();
        assert_eq!(said.len(), Reason::ALL.len(), "each has its own");
    }
}
