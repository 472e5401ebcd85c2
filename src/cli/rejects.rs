//! `docket rejects`: what could not be decoded or delivered, grouped or one by one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::shown::{fitted, sentence_columns, wrapped};
use super::tail::printable;
use super::{CommandResult, Exit, sinks};
use crate::decision::reject::Reason;
use crate::decision::time;
use crate::log::dead_letter::{Letter, without_receipts};
use crate::log::headers;
use crate::log::scan::ScanBound;
use crate::log::topics::nearest;
use crate::pipeline::Pipeline;
use crate::pipeline::file::amending;
use crate::words::counted;

/// Show what was rejected: counts by part and reason, or each reject.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  docket rejects pipelines/opa.yaml              how many, by part and reason
  docket rejects pipelines/opa.yaml --from 1h --sink search --list
  docket rejects pipelines/opa.yaml --reason not_json --json | jq -r .value")]
pub struct Args {
    /// Pipeline file.
    #[arg(value_name = "PIPELINE")]
    file: PathBuf,
    #[command(flatten)]
    pub which: Which,
    /// List each reject on a line, instead of counts.
    #[arg(long)]
    list: bool,
    /// Print each reject as a JSON object, one per line, with its headers and original bytes (value, or value_base64 if they are not UTF-8).
    #[arg(long)]
    json: bool,
}

/// Which dead letters.
#[derive(clap::Args, Clone)]
pub struct Which {
    /// Only rejects from here on: start, a duration ago such as 2h, or a time (RFC 3339).
    #[arg(long, default_value = "start", value_parser = super::bound)]
    pub from: ScanBound,
    /// Only rejects before this: end, a duration ago, or a time.
    #[arg(long, default_value = "end", value_parser = super::bound)]
    pub until: ScanBound,
    /// Only rejects with these reasons, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub reason: Vec<String>,
    /// Only rejects of this sink; intake stands for what could not be decoded, door for what the door could not.
    #[arg(long)]
    pub sink: Option<String>,
    /// Include rejects that were already sent again by docket redrive.
    #[arg(long)]
    pub again: bool,
}

/// What refuses decisions beside the sinks.
const PARTS: [&str; 4] = ["intake", "door", "facts", "join"];

impl Which {
    fn takes(&self, letter: &Letter) -> bool {
        (self.reason.is_empty() || self.reason.iter().any(|r| r == letter.header(headers::REASON)))
            && self.sink.as_ref().is_none_or(|wanted| letter.part() == wanted)
    }

    /// What is said of a part or a reason that there is none of, neither in the pipeline nor among its letters: those of a sink
    /// that was removed from the file are still there.
    fn unknown(&self, file: &Path, pipeline: &Pipeline, letters: &[Letter]) -> Option<String> {
        let there = letters.iter().map(Letter::part).chain(PARTS);
        let there = there.chain(pipeline.file.sinks.keys().map(String::as_str));
        let amending: Vec<String> =
            pipeline.file.amended().map(|(name, _)| amending(name)).collect();
        let there = there.chain(amending.iter().map(String::as_str));
        let wanted = self.sink.as_deref();
        if let Some(wanted) = wanted.filter(|wanted| !there.clone().any(|part| part == *wanted)) {
            let parts = format!("; and {}, which are no sinks", PARTS.join(", "));
            return Some(sinks::no_sink_but(file, pipeline, wanted, &parts));
        }
        let known = || Reason::ALL.iter().map(|reason| reason.as_str());
        let there = letters.iter().map(|letter| letter.header(headers::REASON)).chain(known());
        let none = |wanted: &&String| !there.clone().any(|reason| reason == wanted.as_str());
        let wanted = self.reason.iter().find(none)?;
        Some(match nearest(wanted, known()) {
            Some(near) => format!("there is no reason {wanted:?}; did you mean {near}?"),
            None => {
                let all = known().collect::<Vec<_>>().join(", ");
                format!("there is no reason {wanted:?}; there are {all}")
            }
        })
    }

    /// Reads them from the rejects topic.
    pub fn letters(
        &self,
        file: &Path,
        pipeline: &Pipeline,
    ) -> Result<Vec<Letter>, Box<dyn std::error::Error>> {
        // A receipt may have been written after the stretch that is asked for.
        let past =
            pipeline.scan("rejects", &pipeline.rejects_topic(), self.from, ScanBound::End)?;
        let until = match self.until {
            ScanBound::At(time) => time / 1_000_000,
            ScanBound::Start => i64::MIN,
            ScanBound::End => i64::MAX,
        };
        let bar = super::progress(past.offsets(), "reading rejects");
        let mut all = Vec::new();
        past.read(&mut |n| bar.inc(n), &mut |message| {
            all.push(Letter::read(message));
            true
        })?;
        bar.finish_and_clear();
        let (mut letters, replayed) = without_receipts(all);
        if let Some(told) = self.unknown(file, pipeline, &letters) {
            return Err(Exit::wrong(told).into());
        }
        letters.retain(|l| {
            self.takes(l)
                && l.written < until
                && (self.again || !replayed.contains(&(l.partition, l.offset)))
        });
        letters.sort_by_key(|l| (l.written, l.partition, l.offset));
        Ok(letters)
    }
}

pub fn run(args: &Args) -> CommandResult {
    let pipeline = super::load(&args.file)?;
    let letters = args.which.letters(&args.file, &pipeline)?;
    let mut out = anstream::AutoStream::auto(std::io::stdout()).lock();
    let columns = sentence_columns();
    if args.json {
        for letter in &letters {
            writeln!(out, "{}", as_json(letter))?;
        }
    } else if args.list {
        for letter in &letters {
            writeln!(out, "{}", wrapped(&line(letter), 4, columns))?;
        }
    } else {
        write!(out, "{}", grouped(&letters, columns))?;
    }
    out.flush()?;
    Ok(())
}

fn as_json(letter: &Letter) -> serde_json::Value {
    use base64::Engine;
    let mut object = json!({ "partition": letter.partition, "offset": letter.offset, "written": time::format(letter.written * 1_000_000), "headers": letter.headers() });
    match std::str::from_utf8(&letter.value) {
        Ok(text) => object["value"] = text.into(),
        Err(_) => {
            object["value_base64"] =
                base64::engine::general_purpose::STANDARD.encode(&letter.value).into();
        }
    }
    object
}

/// What was refused at the door stands nowhere in Kafka.
pub(super) fn is_of_the_door(letter: &Letter) -> bool {
    letter.header(headers::SOURCE_PARTITION).starts_with('-')
}

/// Where the record stands that became this letter: topic, partition and offset.
pub(super) fn place(letter: &Letter) -> String {
    let part = |name| printable(letter.header(name));
    let (topic, partition) = (part(headers::SOURCE_TOPIC), part(headers::SOURCE_PARTITION));
    format!("{topic}/{partition}/{}", part(headers::SOURCE_OFFSET))
}

/// The same, and which decision in it.
pub(super) fn source(letter: &Letter) -> String {
    let element = printable(letter.header(headers::SOURCE_ELEMENT));
    if is_of_the_door(letter) {
        let topic = printable(letter.header(headers::SOURCE_TOPIC));
        return format!("an upload to the door for {topic}, decision {element} in it");
    }
    format!("{}/{element}", place(letter))
}

/// How much of it the letter holds.
fn held(letter: &Letter) -> String {
    match (letter.value.len(), letter.is_truncated()) {
        (0, true) if is_of_the_door(letter) => "its bytes were not kept".into(),
        (0, true) => "its bytes are only there".into(),
        (n, true) => format!("its first {}", counted(n, "byte")),
        (n, false) => counted(n, "byte"),
    }
}

fn line(letter: &Letter) -> String {
    let status = match letter.header(headers::STATUS) {
        "" => String::new(),
        status => format!(" status {}", printable(status)),
    };
    format!(
        "{} {} {}{status} from {} ({}): {}",
        time::format(letter.written * 1_000_000),
        printable(letter.part()),
        printable(letter.header(headers::REASON)),
        source(letter),
        held(letter),
        printable(letter.header(headers::DETAIL)),
    )
}

/// How many there are of each kind, with an example that is wrapped to so many columns.
pub fn grouped(letters: &[Letter], columns: usize) -> String {
    if letters.is_empty() {
        return "no rejects\n".into();
    }
    let mut groups: BTreeMap<(&str, &str, &str), Vec<&Letter>> = BTreeMap::new();
    for letter in letters {
        groups
            .entry((letter.part(), letter.header(headers::REASON), letter.header(headers::STATUS)))
            .or_default()
            .push(letter);
    }
    let heads = ["PART", "REASON", "STATUS", "RECORDS", "FIRST", "LAST"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let mut examples = String::new();
    for ((part, reason, status), group) in &groups {
        // Month to minute: two of them fit beside the rest.
        let at = |letter: Option<&&Letter>| {
            let text = letter.map_or_else(String::new, |l| time::format(l.written * 1_000_000));
            text.get(5..16).unwrap_or_default().replace('T', " ")
        };
        rows.push(vec![
            printable(part),
            printable(reason),
            printable(status),
            group.len().to_string(),
            at(group.first()),
            at(group.last()),
        ]);
        if let Some(first) = group.first() {
            let detail: String =
                printable(first.header(headers::DETAIL)).chars().take(200).collect();
            let (part, reason) = (printable(part), printable(reason));
            let example = format!("{part} {reason}, first {}: {detail}", source(first));
            let _ = writeln!(examples, "{}", wrapped(&example, 4, columns));
        }
    }
    format!("{}{examples}{} in all\n", fitted(&rows, super::columns()), letters.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::dead_letter::dead_letter;

    #[test]
    fn a_filter_that_nothing_is_called_by_is_told() {
        let text = "name: m\nkafka: {brokers: x}\nsources: [{topic: t}]\nsinks: {search: {type: file, path: a}}\n";
        let file = Path::new("m.yaml");
        let pipeline = crate::pipeline::parse(file, text, &crate::config::secrets::Real).unwrap();
        let origin = headers::Origin { topic: "decisions", partition: 3, offset: 7, element: 0 };
        let reject = crate::decision::reject::Reject::new(Reason::Refused, "no");
        // Of a sink that the file had once.
        let mut letter =
            dead_letter("deliver", b"{}", &reject, &origin, "2026-11-24T12:48:50Z", None);
        letter.headers = headers::add(letter.headers, headers::SINK, "old");
        let letters = [Letter::of(&letter, 0, 5, 1_795_524_530_000)];
        let told = |sink: &str, reasons: &[&str]| {
            let which = Which {
                from: ScanBound::Start,
                until: ScanBound::End,
                reason: reasons.iter().map(ToString::to_string).collect(),
                sink: (!sink.is_empty()).then(|| sink.to_owned()),
                again: false,
            };
            which.unknown(file, &pipeline, &letters)
        };
        for known in ["", "search", "intake", "door", "old"] {
            assert_eq!(told(known, &["not_json", "refused"]), None, "{known}");
        }
        let said = told("serach", &[]).unwrap();
        assert!(said.starts_with("there is no sink \"serach\" in m.yaml; there are search; and "));
        assert!(said.ends_with("; did you mean search?"), "{said}");
        let said = told("", &["not_json", "not_jsn"]).unwrap();
        assert_eq!(said, "there is no reason \"not_jsn\"; did you mean not_json?");
        assert!(told("", &["x"]).unwrap().contains("; there are empty, not_json, "));
    }

    #[test]
    fn the_door_has_no_place_in_kafka() {
        let origin = headers::Origin { topic: "decisions", partition: -1, offset: -1, element: 2 };
        let reject = crate::decision::reject::Reject::new(Reason::NotJson, "no");
        let at = "2026-11-24T12:48:50Z";
        let letter = dead_letter("door", b"x", &reject, &origin, at, Some(0));
        let said = line(&Letter::of(&letter, 0, 5, 1_795_524_530_000));
        let wanted = "from an upload to the door for decisions, decision 2 in it (its bytes were not kept): no";
        assert!(said.ends_with(wanted), "{said}");
    }

    #[test]
    fn the_table_fits_80_columns() {
        let origin = headers::Origin { topic: "decisions", partition: 3, offset: 7, element: 0 };
        let detail = "the record has no decision_id ".repeat(9);
        let reject = crate::decision::reject::Reject::new(Reason::MissingDecisionId, detail);
        let letter = dead_letter("intake", b"{}", &reject, &origin, "2026-11-24T12:48:50Z", None);
        let letters = [Letter::of(&letter, 0, 5, 1_795_524_530_000)];
        let shown = grouped(&letters, 80);
        assert!(shown.lines().all(|line| line.len() <= 80), "{shown}");
        let one = wrapped(&line(&letters[0]), 4, 80);
        assert!(one.lines().count() > 1 && one.lines().all(|line| line.len() <= 80), "{one}");
        let shown = grouped(&letters, usize::MAX);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 4, "{shown}");
        assert!(lines[..2].iter().all(|line| line.len() <= 80), "{shown}");
        assert_eq!(
            lines[1],
            "intake  missing_decision_id          1        11-24 12:48  11-24 12:48"
        );
        assert!(lines[2].starts_with("intake missing_decision_id, first decisions/3/7/0: the"));
        assert_eq!(lines[3], "1 in all");
    }
}
