//! A decision in the docket topic: the latest hours first, since that is what is asked about.

use std::collections::BTreeMap;
use std::path::Path;

use rdkafka::message::Message;

use super::again::Again;
use super::opa::Explainer;
use super::{Found, MOST, Wanted, recorded, told};
use crate::cli::rejects::{is_of_the_door, source};
use crate::cli::tail::printable;
use crate::clock;
use crate::correlate::Asked;
use crate::decision::event::Event;
use crate::decision::json;
use crate::decision::record::Record;
use crate::decision::verdict::Verdict;
use crate::log::dead_letter::{Letter, without_receipts};
use crate::log::headers;
use crate::log::scan::{OffsetRange, ScanBound};
use crate::pipeline::Pipeline;
use crate::words::{counted, shell};

const MINUTE: i64 = 60_000_000_000;
/// Slices of the past, by where they begin, in minutes before now.
const SLICES: [i64; 5] = [15, 60, 240, 720, 1440];

/// Shows how far reading is.
pub(super) type Bar = fn(u64, &'static str) -> indicatif::ProgressBar;

/// What the docket topic holds of an ID.
#[derive(Default)]
pub(super) struct Answer {
    pub found: Vec<Found>,
    /// Decisions beyond those that are shown.
    pub more: u64,
    pub decisions: u64,
    /// What a finding says that has this ID.
    pub finding: Option<String>,
    /// What is to be said of what can't be read, if anything.
    pub unread: String,
    /// What came more than once.
    pub again: Again,
}

/// Reads back from now, to `since`; no further once a decision of this very ID is there.
pub(super) fn look(
    pipeline: &Pipeline,
    id: &str,
    since: ScanBound,
    explainer: Option<&Explainer>,
    bar: Bar,
) -> Result<Answer, Box<dyn std::error::Error>> {
    let now = clock::now();
    let wanted = Wanted::new(id);
    let (mut answer, mut records, mut findings) = (Answer::default(), Vec::new(), Vec::new());
    let mut until = ScanBound::End;
    for from in slices(now, since) {
        read(pipeline, &pipeline.docket_topic(), from, until, bar, &mut |bytes| {
            let Some(record) = wanted.holds(bytes).then(|| Record::parse(bytes).ok()).flatten()
            else {
                answer.decisions += 1;
                return;
            };
            if record.verdict == Verdict::Finding {
                findings.extend(of_finding(&record, &wanted));
                if wanted.names_finding(&record.decision_id) {
                    answer.finding.get_or_insert_with(|| told(&record));
                }
                return;
            }
            answer.decisions += 1;
            if !wanted.is_record(&record)
                || !answer.again.is_new(&record.decision_id, record.original())
            {
                return;
            }
            match records.len() {
                MOST => answer.more += 1,
                _ => records.push(bytes.to_vec()),
            }
        })?;
        let exact =
            |bytes: &Vec<u8>| Record::parse(bytes).is_ok_and(|r| wanted.names(&r.decision_id));
        // A finding about it comes later than it: it stands in what was read.
        if records.iter().any(exact) {
            amend(pipeline, from, &mut records, bar)?;
            break;
        }
        if answer.finding.is_some() && records.is_empty() {
            break;
        }
        if from == since {
            amend(pipeline, from, &mut records, bar)?;
        }
        until = from;
    }
    records.sort_by_cached_key(|bytes| Record::parse(bytes).map(|r| r.timestamp).unwrap_or(0));
    for bytes in records {
        answer.found.push(found(bytes, &findings, explainer)?);
    }
    Ok(answer)
}

/// Of rejects, so many of the latest are looked at.
const LETTERS: i64 = 20_000;

/// What rejects have to do with an ID that no decision has: those that hold it, those that may, or that there are any. What can't be read
/// says nothing.
pub(super) fn refused(pipeline: &Pipeline, file: &Path, id: &str, since: ScanBound) -> String {
    let topic = pipeline.rejects_topic();
    let Ok(mut scan) = pipeline.scan("why", &topic, since, ScanBound::End) else {
        return String::new();
    };
    let each = LETTERS / (scan.ranges().len().max(1) as i64);
    scan.narrow(|range| OffsetRange { from: range.from.max(range.to - each), ..*range });
    let (wanted, mut refused) = (Wanted::new(id), Refused::default());
    let read = scan.read(&mut |_| {}, &mut |message| {
        let (letters, _) = without_receipts(vec![Letter::read(message)]);
        letters.into_iter().for_each(|letter| refused.take(letter, &wanted));
        refused.holding.len() < MOST
    });
    match read {
        Ok(_) => refused.told(&shell(&file.display()), &pipeline.file.kafka.brokers),
        Err(_) => String::new(),
    }
}

/// Rejects by what they have to do with an ID.
#[derive(Default)]
struct Refused {
    all: u64,
    holding: Vec<Letter>,
    /// The bytes that could hold it are not all there.
    cut: u64,
    first_cut: Option<Letter>,
}

impl Refused {
    fn take(&mut self, letter: Letter, wanted: &Wanted) {
        self.all += 1;
        if wanted.holds(&letter.value) {
            self.holding.push(letter);
        } else if is_cut(&letter) {
            self.cut += 1;
            self.first_cut.get_or_insert(letter);
        }
    }

    /// Which reject it is and why, and the commands that show it.
    fn told(&self, file: &str, brokers: &str) -> String {
        let first = |n: usize| if n == 1 { "" } else { "; the first:" };
        if let Some(letter) = self.holding.first() {
            let n = self.holding.len();
            let (rejects, verb) =
                (counted(n as u64, "reject"), if n == 1 { "holds" } else { "hold" });
            let said = format!("; {rejects} {verb} it{}{}", first(n), refusal(letter));
            return said + &shows(letter, file, brokers);
        }
        if self.all == 0 {
            return String::new();
        }
        let be = if self.all == 1 { "is" } else { "are" };
        let there = format!("; there {be} {} of that time, too", counted(self.all, "reject"));
        let Some(letter) = &self.first_cut else {
            return format!("{there}:\n  docket rejects {file}");
        };
        let cut = match self.cut {
            1 => "1 does".to_owned(),
            n => format!("{n} do"),
        };
        let (first, refusal) = (first(self.cut as usize), refusal(letter));
        let may = "not hold all its bytes, and may be about this ID";
        format!("{there}, of which {cut} {may}{first}{refusal}") + &shows(letter, file, brokers)
    }
}

/// Its record is whole where it came from.
fn is_cut(letter: &Letter) -> bool {
    letter.is_truncated() && !is_of_the_door(letter)
}

/// ` (intake: too_large, it has ..), from decisions/3/7/0`
fn refusal(letter: &Letter) -> String {
    let (part, reason) = (printable(letter.part()), printable(letter.header(headers::REASON)));
    let detail = printable(letter.header(headers::DETAIL));
    let detail = if detail.is_empty() { detail } else { format!(", {detail}") };
    format!(" ({part}: {reason}{detail}; from {})", source(letter))
}

/// The commands that show a reject, and the record that it was made of where it does not hold it.
fn shows(letter: &Letter, file: &str, brokers: &str) -> String {
    let quoted = |text: &str| shell(&printable(text));
    let (part, reason) = (quoted(letter.part()), quoted(letter.header(headers::REASON)));
    let list = format!(":\n  docket rejects {file} --sink {part} --reason {reason} --list");
    if !is_cut(letter) {
        return list;
    }
    let [topic, partition, offset] =
        [headers::SOURCE_TOPIC, headers::SOURCE_PARTITION, headers::SOURCE_OFFSET]
            .map(|name| quoted(letter.header(name)));
    let brokers = quoted(brokers);
    format!(
        "{list}\n  kcat -b {brokers} -C -t {topic} -p {partition} -o {offset} -c 1     the whole record, as it came"
    )
}

/// From where each slice is read, the latest first. A bound that is no time is read at once.
fn slices(now: i64, since: ScanBound) -> Vec<ScanBound> {
    let ScanBound::At(first) = since else { return vec![since] };
    let starts = SLICES.into_iter().map(|minutes| now - minutes * MINUTE);
    starts.filter(|at| *at > first).map(ScanBound::At).chain([since]).collect()
}

fn read(
    pipeline: &Pipeline,
    topic: &str,
    from: ScanBound,
    to: ScanBound,
    bar: Bar,
    take: &mut dyn FnMut(&[u8]),
) -> Result<(), Box<dyn std::error::Error>> {
    let scan = pipeline.scan("why", topic, from, to)?;
    let bar = bar(scan.offsets(), "reading");
    scan.read(&mut |n| bar.inc(n), &mut |message| {
        take(message.payload().unwrap_or_default());
        true
    })?;
    bar.finish_and_clear();
    Ok(())
}

/// Of which decision a finding is, and what it says, if it is about what is asked for.
fn of_finding(record: &Record<'_>, wanted: &Wanted) -> Option<(String, String)> {
    let body = record.get("finding")?;
    let text = |name: &str| json::get(body, name).and_then(json::as_str).unwrap_or_default();
    let about = [text("decision_id"), text("request_id"), record.trace_id.to_string().into()];
    let is = |one: &std::borrow::Cow<'_, str>| {
        one.eq_ignore_ascii_case(&wanted.id) || wanted.names(one) || wanted.is_trace(one)
    };
    about.iter().any(is).then(|| (about[0].to_string(), text("sentence").into_owned()))
}

/// Gives decisions that had gone on without their request what came later.
fn amend(
    pipeline: &Pipeline,
    from: ScanBound,
    records: &mut [Vec<u8>],
    bar: Bar,
) -> Result<(), Box<dyn std::error::Error>> {
    let id = |bytes: &Vec<u8>| Record::parse(bytes).ok().map(|r| r.decision_id.into_owned());
    let ids: Vec<Option<String>> = records.iter().map(id).collect();
    if pipeline.file.join.is_none() || records.is_empty() {
        return Ok(());
    }
    let mut last: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    read(pipeline, &pipeline.file.amendments_topic(), from, ScanBound::End, bar, &mut |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let of = json::get(text, "decision_id").and_then(json::as_str).unwrap_or_default();
        if ids.iter().flatten().any(|id| *id == *of) {
            last.insert(of.into_owned(), bytes.to_vec());
        }
    })?;
    for (record, id) in records.iter_mut().zip(&ids) {
        let amendment = id.as_ref().and_then(|id| last.get(id));
        if let Some(amended) = amendment.and_then(|amendment| amended(record, amendment)) {
            *record = amended;
        }
    }
    Ok(())
}

/// A record with the request of its amendment, which is better than what it has.
fn amended(record: &[u8], amendment: &[u8]) -> Option<Vec<u8>> {
    let parsed = Record::parse(record).ok()?;
    let amendment = Record::parse(amendment).ok()?;
    let at = parsed.docket.as_ptr() as usize - parsed.raw.as_ptr() as usize;
    let mut out = parsed.raw[..at].to_owned();
    out.push('{');
    for member in json::members(parsed.docket) {
        if !["request", "match"].contains(&member.name) {
            out.push_str(&format!("\"{}\":{},", member.name, member.value));
        }
    }
    for (i, name) in ["request", "match"].into_iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        out.push_str(&format!("{comma}\"{name}\":{}", json::get(amendment.docket, name)?));
    }
    out.push_str("}}");
    Record::parse(out.as_bytes()).ok()?;
    Some(out.into_bytes())
}

fn found(
    bytes: Vec<u8>,
    findings: &[(String, String)],
    explainer: Option<&Explainer>,
) -> Result<Found, Box<dyn std::error::Error>> {
    let record = Record::parse(&bytes)?;
    let own = findings.iter().filter(|(id, _)| *id == *record.decision_id);
    let findings = own.map(|(_, sentence)| sentence.clone()).collect();
    let explained = explainer.map(|explainer| {
        let original = format!("{}}}", record.original());
        let event = Event::parse(original.as_bytes()).map_err(|reject| reject.to_string())?;
        explainer.explain(&recorded(&event, Some(record.raw)))
    });
    Ok(Found::of(bytes, explained, findings))
}

impl Wanted {
    /// Quick, on each record.
    pub(super) fn holds(&self, bytes: &[u8]) -> bool {
        let holds = |part: &str| memchr::memmem::find(bytes, part.as_bytes()).is_some();
        holds(&self.part) || holds(&self.id) || holds(&self.part.to_ascii_uppercase())
    }

    pub(super) fn is_record(&self, record: &Record<'_>) -> bool {
        if self.names(&record.decision_id) {
            return true;
        }
        let asked = Asked::of(record);
        // Its own, and the one that it has by docket or by its request.
        let traces = asked.trace.into_iter().chain([record.trace_id]);
        let trace = traces.into_iter().any(|id| self.is_trace(&id.to_string()));
        trace || *asked.request_id == *self.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::record::{Rules, write};

    #[test]
    fn the_latest_is_read_first_and_nothing_twice() {
        let now = 10_000 * MINUTE;
        let ago = |minutes: i64| ScanBound::At(now - minutes * MINUTE);
        assert_eq!(slices(now, ago(90)), [ago(15), ago(60), ago(90)]);
        assert_eq!(slices(now, ago(5)), [ago(5)]);
        assert_eq!(slices(now, ScanBound::Start), [ScanBound::Start]);
    }

    #[test]
    fn a_reject_is_told_with_what_shows_it_and_its_record() {
        use crate::decision::reject::{Reason, Reject};
        use crate::log::dead_letter::dead_letter;

        let letter = |stage: &str, partition, value: &str, cut| {
            let origin = headers::Origin { topic: "decisions", partition, offset: 7, element: 0 };
            let reject = Reject::new(Reason::TooLarge, "too many bytes");
            let at = "2026-11-24T12:48:50Z";
            let letter = dead_letter(stage, value.as_bytes(), &reject, &origin, at, cut);
            Letter::of(&letter, 0, 5, 1_795_524_530_000)
        };
        let told = |letters: &[Letter]| {
            let (wanted, mut refused) = (Wanted::new("it-is-this"), Refused::default());
            letters.iter().for_each(|letter| refused.take(letter.clone(), &wanted));
            refused.told("my.yaml", "kafka:9092")
        };
        let kcat = "\n  kcat -b kafka:9092 -C -t decisions -p 3 -o 7 -c 1     the whole record";
        let list = ":\n  docket rejects my.yaml --sink intake --reason too_large --list";
        let it = letter("intake", 3, "it-is-this, whole", None);
        let said = told(&[letter("intake", 3, "another", None), it.clone()]);
        let which = "(intake: too_large, too many bytes; from decisions/3/7/0)";
        assert_eq!(said, format!("; 1 reject holds it {which}{list}"));
        let begins = letter("intake", 3, "it-is-this, cut", Some(12));
        let said = told(&[begins, it]);
        assert!(
            said.starts_with("; 2 rejects hold it; the first:") && said.contains(kcat),
            "{said}"
        );
        // Of those without their bytes nobody can tell here.
        let blind = letter("intake", 3, "it-is-this", Some(0));
        let said = told(&[letter("intake", 3, "another", None), blind]);
        let words = "; there are 2 rejects of that time, too, of which 1 does not hold all its bytes, and may be about this ID (";
        assert!(said.starts_with(words) && said.contains(list) && said.contains(kcat), "{said}");
        // What came to the door stands nowhere else.
        let said = told(&[letter("door", -1, "it-is-this", Some(0))]);
        assert_eq!(said, "; there is 1 reject of that time, too:\n  docket rejects my.yaml");
        assert_eq!(told(&[]), "");
    }

    #[test]
    fn an_amendment_takes_the_place_of_what_was_there() {
        let decision = r#"{"decision_id":"d","timestamp":"2026-11-24T12:48:50Z","result":true}"#;
        let mut record = Vec::new();
        let event = Event::parse(decision.as_bytes()).unwrap();
        write(&event, &[], None, &Rules::default(), &mut record);
        let amendment = |path: &str| {
            let text = std::str::from_utf8(&record).unwrap();
            let own = text.trim_end_matches('}');
            format!(r#"{own}}},"request":{{"path":"{path}"}},"match":{{"class":"request_id"}}}}}}"#)
        };
        let once = amended(&record, amendment("/a").as_bytes()).unwrap();
        let twice = amended(&once, amendment("/b").as_bytes()).unwrap();
        let text = String::from_utf8(twice).unwrap();
        assert!(text.ends_with(r#","request":{"path":"/b"},"match":{"class":"request_id"}}}"#));
        assert!(!text.contains("/a") && text.starts_with(decision.trim_end_matches('}')));
        assert_eq!(amended(&record, b"{}"), None);
    }
}
