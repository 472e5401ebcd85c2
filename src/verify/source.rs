//! What the source topics hold that intake has read: the decisions that should be in the docket, in portions. Each record goes the way that
//! it went in intake, by the same rules; what today's rules make of it may differ from what those of then made.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Message;

use super::docket::{Docket, original};
use super::place::{Decided, Spot, id_hash, mark};
use super::scope::{Scope, VerifyError, Watch};
use super::spill::{Portions, Reading, Spill};
use super::traced::Candidates;
use crate::caught::caught;
use crate::decision::formats::{Among, Parts, RecordPlace, Within};
use crate::decision::record::Record;
use crate::log::ask::ACLS;
use crate::log::headers;
use crate::log::resume::{Standing, standing};
use crate::log::scan::{OffsetRange, ScanError, TopicScan};
use crate::pipeline::Pipeline;
use crate::transform::{self, Product, transform, transform_within};

/// Why the source is not compared, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It can't be.
    Skipped(String),
    /// It could not be asked.
    Error(String),
}

/// The source topics, from where the scope begins to where intake has committed.
pub(super) struct Source<'p> {
    pipeline: &'p Pipeline,
    /// By number.
    scans: Vec<(usize, TopicScan)>,
    /// What is compared of each partition: from an offset to before another.
    ranges: BTreeMap<(usize, i32), (i64, i64)>,
    /// The first offsets of partitions that are read from there on.
    first: BTreeMap<(usize, i32), i64>,
    /// What of it is not compared.
    pub apart: Vec<String>,
    /// How many offsets intake has not read yet.
    pub unread: u64,
    /// When intake was asked.
    pub asked: Instant,
}

impl<'p> Source<'p> {
    /// Before the docket is read, so that all that intake has committed is there.
    pub fn open(pipeline: &'p Pipeline, scope: &Scope) -> Result<Result<Self, Why>, VerifyError> {
        let mut source = Source {
            pipeline,
            scans: Vec::new(),
            ranges: BTreeMap::new(),
            first: BTreeMap::new(),
            apart: Vec::new(),
            unread: 0,
            asked: Instant::now(),
        };
        let mut begun = false;
        for (number, one) in pipeline.file.sources.iter().enumerate() {
            match source.topic(number, &one.topic, scope) {
                Ok(some) => begun |= some,
                Err(ScanError::Unanswered(error)) => {
                    return Err(ScanError::Unanswered(error).into());
                }
                Err(ScanError::NoTopic(topic)) => {
                    source.apart.push(format!("there is no source topic {topic}"));
                }
                Err(error) => source.apart.push(error.to_string()),
            }
        }
        if source.apart.is_empty() || begun {
            return Ok(Ok(source));
        }
        Ok(Err(Why::Skipped(source.apart.join("; "))))
    }

    /// Whether there is something to compare of a topic.
    fn topic(&mut self, number: usize, topic: &str, scope: &Scope) -> Result<bool, ScanError> {
        let Pipeline { file, .. } = self.pipeline;
        let group = self.pipeline.group("intake");
        let stands = standing(&file.kafka, "verify", &group, topic);
        let mut scan = self.pipeline.scan("verify", topic, scope.from, scope.until)?;
        let stands = match stands {
            Ok(stands) => stands,
            Err(error) => {
                self.apart.push(format!(
                    "what the group {group} has committed of {topic} can't be asked: {error}; {ACLS} gives docket the rights it needs"
                ));
                return Ok(false);
            }
        };
        let (mut nothing, mut begun) = (Vec::new(), false);
        for range in scan.ranges().iter().filter(|range| range.from < range.to) {
            match stands.get(&range.partition).map(|stands| &stands.next) {
                Some(Ok(Some(_))) => begun = true,
                Some(Err(why)) => self.apart.push(why.clone()),
                Some(Ok(None)) | None => nothing.push(range.partition.to_string()),
            }
        }
        if !nothing.is_empty() {
            self.apart.push(match begun {
                false => format!("intake (group {group}) has committed nothing of {topic}"),
                true => format!(
                    "intake (group {group}) has committed nothing of {topic}, partition {}",
                    nothing.join(", ")
                ),
            });
        }
        let all = scan.offsets();
        scan.narrow(|range| finished(range, stands.get(&range.partition)));
        self.unread += all - scan.offsets();
        for range in scan.ranges() {
            self.ranges.insert((number, range.partition), (range.from, range.to));
            let first = stands.get(&range.partition).map(|stands| stands.first);
            if let Some(first) = first.filter(|first| *first == range.from) {
                self.first.insert((number, range.partition), first);
            }
        }
        self.scans.push((number, scan));
        Ok(begun)
    }

    /// Whether the record that stands there is compared.
    pub fn compares(&self, (topic, partition, offset): Spot) -> bool {
        let range = self.ranges.get(&(topic, partition));
        range.is_some_and(|(from, to)| (*from..*to).contains(&offset))
    }

    /// How many offsets there are.
    pub fn offsets(&self) -> u64 {
        self.scans.iter().map(|(_, scan)| scan.offsets()).sum()
    }

    /// How many records of the source retention took since they came to the docket.
    pub fn removed(&self, docket: &Docket) -> u64 {
        let removed = self.first.iter().filter_map(|(place, first)| {
            let origin = docket.origins.get(place)?;
            u64::try_from(first - origin).ok()
        });
        removed.sum()
    }

    /// Reads all of it, once.
    pub fn read(
        &mut self,
        expected: &mut Expected,
        watch: &dyn Watch,
    ) -> Result<Result<(), Why>, VerifyError> {
        let mut splitter = Splitter::new(self.pipeline);
        // Each reader's memory is free once it is through.
        for (number, scan) in std::mem::take(&mut self.scans) {
            watch.begin("reading the source", scan.offsets());
            let mut failed = Ok(());
            let read = scan.read(&mut |n| watch.step(n), &mut |message| {
                let spot = (number, message.partition(), message.offset());
                let (value, key) = (message.payload(), message.key().unwrap_or_default());
                let pairs = headers::pairs(message);
                let value = value.unwrap_or_default();
                failed = splitter.split(spot, &Bytes { value, key, headers: &pairs }, expected);
                failed.is_ok()
            });
            watch.end();
            failed?;
            match read {
                Err(error @ ScanError::Unanswered(_)) => return Err(error.into()),
                Err(ScanError::Kafka { topic, error })
                    if error.rdkafka_error_code()
                        == Some(RDKafkaErrorCode::TopicAuthorizationFailed) =>
                {
                    let brokers = self.pipeline.file.kafka.brokers.clone();
                    let hidden = ScanError::Hidden { brokers, topic };
                    return Ok(Err(Why::Skipped(hidden.to_string())));
                }
                Err(error) => return Ok(Err(Why::Error(error.to_string()))),
                Ok(()) => {}
            }
        }
        Ok(Ok(()))
    }
}

/// What of a range intake has finished.
fn finished(range: &OffsetRange, stands: Option<&Standing>) -> OffsetRange {
    let next = stands.and_then(|stands| stands.next.clone().ok()?).unwrap_or(range.from);
    OffsetRange { to: range.to.min(next).max(range.from), ..*range }
}

/// The decisions that should be in the docket.
pub struct Expected {
    entries: Spill,
    pub count: usize,
}

impl Expected {
    pub fn new(portions: &Portions) -> Expected {
        Expected { entries: Spill::new(portions), count: 0 }
    }

    pub fn add(&mut self, decided: &Decided<'_>) -> io::Result<()> {
        self.count += 1;
        self.entries.add(decided.id, |out| decided.write(out))
    }

    /// Compares a portion with the same one of the docket: how many there are, each original of an id once, and how many of these
    /// the docket has. The others are candidates.
    pub fn compare(
        &self,
        at: usize,
        docket: &Docket,
        left: &mut Candidates,
    ) -> io::Result<(usize, usize)> {
        let (bytes, entries) = (self.entries.portion(at)?, docket.portion(at)?);
        let mut there = docket.originals(&entries);
        there.sort_unstable();
        let mut wanted = Vec::new();
        let mut reading = Reading(&bytes);
        while !reading.is_empty() {
            wanted.push(Decided::read(&mut reading));
        }
        wanted.sort_unstable_by(|a, b| (a.id, a.original).cmp(&(b.id, b.original)));
        let (mut expected, mut present) = (0, 0);
        for same in wanted.chunk_by(|a, b| (a.id, a.original) == (b.id, b.original)) {
            if there.binary_search(&(same[0].id, same[0].original)).is_ok() {
                expected += 1;
                present += 1;
                continue;
            }
            for decided in same {
                expected += 1;
                left.add(decided)?;
            }
        }
        Ok((expected, present))
    }
}

/// Makes of source records what intake makes of them.
struct Splitter<'p> {
    pipeline: &'p Pipeline,
    parts: Parts,
    out: Vec<u8>,
    /// What the record became: element, id, original.
    found: Vec<(usize, String, u64)>,
}

/// A source record, as far as it matters what becomes of it.
struct Bytes<'m> {
    value: &'m [u8],
    key: &'m [u8],
    headers: &'m [(&'m str, &'m [u8])],
}

impl<'p> Splitter<'p> {
    fn new(pipeline: &'p Pipeline) -> Self {
        Splitter { pipeline, parts: Parts::default(), out: Vec::new(), found: Vec::new() }
    }

    fn split(&mut self, spot: Spot, bytes: &Bytes<'_>, expected: &mut Expected) -> io::Result<()> {
        let waiting = self.parts.wait_in(spot.0, spot.1);
        self.record(spot, bytes, true);
        let found = std::mem::take(&mut self.found);
        let mut alone = Vec::new();
        if waiting && !found.is_empty() {
            self.record(spot, bytes, false);
            alone = std::mem::take(&mut self.found);
        }
        let marks = found.iter().map(|(element, id, _)| mark(*element, id_hash(id)));
        let record = marks.fold(0, u64::wrapping_add);
        for (element, id, original) in &found {
            let by_itself = |(_, i, o): &(usize, String, u64)| (i, o) == (id, original);
            let joined = waiting && !alone.iter().any(by_itself);
            let (element, original) = (*element, *original);
            expected.add(&Decided { spot, element, id, original, record, joined })?;
        }
        Ok(())
    }

    /// Finds what a record becomes: among those before it, or alone. What intake would send to rejects as a whole is nothing.
    fn record(&mut self, spot: Spot, bytes: &Bytes<'_>, among: bool) {
        let Splitter { pipeline, parts, out, found } = self;
        let Some(one) = pipeline.file.sources.get(spot.0) else { return };
        let (format, envelope) = (one.format, one.envelope.as_deref());
        let source =
            transform::Source { value: bytes.value, headers: bytes.headers, format, envelope };
        let (limits, rules) = (&pipeline.limits, &pipeline.rules);
        found.clear();
        let told = caught(|| {
            let take = &mut |element, product: Product<'_>| {
                if let Product::Docket { bytes, .. } = product
                    && let Ok(record) = Record::parse(bytes)
                {
                    let original = original(&record);
                    found.push((element, record.decision_id.into_owned(), original));
                }
            };
            if !among {
                return transform(source, limits, rules, out, &|_| None, take);
            }
            let place = RecordPlace { topic: spot.0, partition: spot.1, offset: spot.2 };
            let among = Some(Among { parts: &mut *parts, place, key: bytes.key });
            let within = Within { over: &Cell::new(false), among };
            transform_within(within, source, limits, rules, out, &|_| None, take)
        });
        if told.is_err() {
            self.parts = Parts::default();
        }
        // Of lines whose rest does not come nothing is expected.
        self.parts.missing().for_each(drop);
        if !matches!(told, Ok(None)) {
            self.found.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline() -> Pipeline {
        let text = "name: opa\nkafka: {brokers: localhost:9092}\nsources: [{topic: decisions}]\n";
        let outside = &crate::config::secrets::Real;
        crate::pipeline::parse(std::path::Path::new("x.yaml"), text, outside).unwrap()
    }

    fn decision(id: &str) -> String {
        format!(r#"{{"decision_id":"{id}","path":"a","timestamp":"2026-11-24T12:48:50Z"}}"#)
    }

    /// What the records of one partition become: element, id, and whether it came in parts.
    fn all(records: &[(&str, String)]) -> Vec<(i64, usize, String, bool)> {
        let pipeline = pipeline();
        let mut splitter = Splitter::new(&pipeline);
        let mut expected = Expected::new(&Portions::of(1));
        for (offset, (key, value)) in records.iter().enumerate() {
            let bytes = Bytes { value: value.as_bytes(), key: key.as_bytes(), headers: &[] };
            splitter.split((0, 0, offset as i64), &bytes, &mut expected).unwrap();
        }
        let entries = expected.entries.portion(0).unwrap();
        let (mut all, mut reading) = (Vec::new(), Reading(&entries));
        while !reading.is_empty() {
            let d = Decided::read(&mut reading);
            all.push((d.spot.2, d.element, d.id.to_owned(), d.joined));
        }
        assert_eq!(all.len(), expected.count);
        all
    }

    #[test]
    fn decisions_are_expected_where_intake_would_make_them() {
        let records = [
            ("", format!("[{},{{\"decision_id\":1}},{}]", decision("a"), decision("b"))),
            ("", "nothing".to_owned()),
            ("", decision("c")),
        ];
        let found = all(&records);
        let found: Vec<_> =
            found.iter().map(|(o, e, id, joined)| (*o, *e, &**id, *joined)).collect();
        assert_eq!(found, [(0, 0, "a", false), (0, 2, "b", false), (2, 0, "c", false)]);
    }

    #[test]
    fn what_was_put_together_is_known_as_such_and_what_stands_between_is_not() {
        let whole = decision("joined");
        let time = "2026-11-24T12:48:50.1Z stdout";
        let records = [
            ("k", format!("{time} P {}", &whole[..30])),
            ("other", format!("{time} F {}", decision("between"))),
            ("k", format!("{time} F {}", &whole[30..])),
            ("k", format!("{time} F {}", decision("after"))),
        ];
        let found = all(&records);
        let found: Vec<_> = found.iter().map(|(o, _, id, joined)| (*o, &**id, *joined)).collect();
        assert_eq!(found, [(1, "between", false), (2, "joined", true), (3, "after", false)]);
    }

    #[test]
    fn no_more_is_read_than_intake_has_finished() {
        let range = OffsetRange { partition: 0, from: 5, to: 20 };
        let to = |next| finished(&range, Some(&Standing { first: 0, next })).to;
        assert_eq!(to(Ok(Some(12))), 12);
        assert_eq!(to(Ok(Some(99))), 20);
        assert_eq!(to(Ok(Some(3))), 5);
        assert_eq!(to(Ok(None)), 5);
        assert_eq!(to(Err("made anew".into())), 5);
        assert_eq!(finished(&range, None).to, 5);
    }
}
