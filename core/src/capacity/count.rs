//! Counts decisions as they come, in whatever order, in bounded memory: by the hour for the whole, each service, policy
//! and OPA; by the second while an hour is still being read, for its peaks.

use std::collections::{BTreeMap, HashMap};

use super::aside::{self, Aside, LeftOut};
use super::covered::Covered;
use super::latency::{self, Latency};
use super::numbers::{HOUR, SECOND};
use crate::decision::record::Record;
use crate::decision::time::Nanos;
use crate::decision::verdict::Verdict;

/// Services, policies of services, OPAs, revisions: so many of each are told apart, others are counted as one.
const MOST: usize = 5000;
pub const OTHER: &str = "(other)";
/// So many bytes are kept to count by the second. Then the oldest hours are settled, though more may come of them: partitions are
/// read as they come, and intake that catches up writes them out of order.
const BYTES: usize = 128 << 20;

/// Decisions of an hour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hour {
    pub decisions: u64,
    pub denied: u64,
    /// Errors and undefined.
    pub failed: u64,
    /// Of how many the evaluation time is known, and its sum in nanoseconds, without waiting.
    pub timed: u64,
    pub busy: u64,
    /// How long it waited for others' answers, which is not in `busy`.
    pub waited: u64,
    /// Decisions of its busiest second, and when it begins.
    pub second: (u32, Nanos),
    pub minute: Minute,
}

/// The busiest minute of an hour; longer where the review begins or ends within one, and shorter if no more of the hour is covered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Minute {
    pub decisions: u32,
    pub seconds: u32,
    pub at: Nanos,
}

impl Minute {
    pub fn per_second(&self) -> f64 {
        f64::from(self.decisions) / f64::from(self.seconds.max(1))
    }
}

/// What is counted of something.
#[derive(Debug, Default)]
pub struct Load {
    pub hours: BTreeMap<i64, Hour>,
    pub latency: Option<Latency>,
}

/// A bundle revision of a service.
#[derive(Debug, Default)]
pub struct Revision {
    pub first: Nanos,
    pub last: Nanos,
    pub decisions: u64,
    pub denied: u64,
    pub failed: u64,
    pub latency: Latency,
}

/// Things of a kind, by service and name.
struct Keys {
    ids: HashMap<String, HashMap<String, usize>>,
    count: usize,
}

impl Keys {
    fn new() -> Keys {
        Keys { ids: HashMap::new(), count: 0 }
    }

    /// The number of a thing; `make` gives one to a new thing.
    fn id(&mut self, service: &str, name: &str, make: impl FnOnce() -> usize) -> usize {
        if let Some(id) = self.ids.get(service).and_then(|names| names.get(name)) {
            return *id;
        }
        if self.count >= MOST && (service, name) != (OTHER, OTHER) {
            return self.id(OTHER, OTHER, make);
        }
        self.count += 1;
        *self.ids.entry(service.to_owned()).or_default().entry(name.to_owned()).or_insert_with(make)
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &str, usize)> {
        self.ids.iter().flat_map(|(service, names)| {
            names.iter().map(move |(name, id)| (service.as_str(), name.as_str(), *id))
        })
    }
}

/// Decisions by the second of an hour: the seconds of each while they are few, then how many each second has.
enum Page {
    Few(Vec<u16>),
    Many(Box<[u32; 3600]>),
}

impl Page {
    const FEW: usize = 3600;
    /// With its place in the map.
    const EMPTY: usize = 80;

    /// Adds a decision; returns how many bytes more that takes.
    fn add(&mut self, second: u16) -> usize {
        match self {
            Page::Few(seconds) if seconds.len() < Page::FEW => {
                let had = seconds.capacity();
                seconds.push(second);
                2 * (seconds.capacity() - had)
            }
            Page::Few(seconds) => {
                let had = 2 * seconds.capacity();
                let mut many = Page::Many(self.counts());
                many.add(second);
                *self = many;
                (4 * 3600usize).saturating_sub(had)
            }
            Page::Many(counts) => {
                let count = &mut counts[usize::from(second)];
                *count = count.saturating_add(1);
                0
            }
        }
    }

    fn counts(&self) -> Box<[u32; 3600]> {
        match self {
            Page::Few(seconds) => {
                let mut counts = Box::new([0; 3600]);
                for second in seconds {
                    counts[usize::from(*second)] += 1;
                }
                counts
            }
            Page::Many(counts) => counts.clone(),
        }
    }

    fn bytes(&self) -> usize {
        Page::EMPTY
            + match self {
                Page::Few(seconds) => 2 * seconds.capacity(),
                Page::Many(_) => 4 * 3600,
            }
    }
}

/// Everything that was counted.
pub struct Counter {
    loads: Vec<Load>,
    services: Keys,
    policies: Keys,
    opas: Keys,
    revision_ids: Keys,
    revisions: Vec<Revision>,
    pages: BTreeMap<i64, HashMap<usize, Page>>,
    /// Bytes of pages.
    open: usize,
    /// Hours before are settled.
    settled: i64,
    pub first: Nanos,
    pub last: Nanos,
    /// Bytes of docket records.
    pub bytes: u64,
    /// Decisions that came when their hour was settled already: they count, but may be missing from its peaks.
    pub late: u64,
    /// Decisions of other times than these are left out, and how many there were: they are wrong clocks.
    times: std::ops::Range<Nanos>,
    pub odd: u64,
    /// What may be far from all others.
    aside: Aside,
    /// The first time that came, and the last, whether it is counted or not.
    came: (Nanos, Nanos),
    /// What was far from all others.
    pub left_out: Option<LeftOut>,
}

/// The load that is the whole.
const WHOLE: usize = 0;

impl Counter {
    /// Counts decisions of these times.
    pub fn new(times: std::ops::Range<Nanos>) -> Counter {
        Counter {
            loads: vec![Load { latency: Some(Latency::default()), ..Load::default() }],
            services: Keys::new(),
            policies: Keys::new(),
            opas: Keys::new(),
            revision_ids: Keys::new(),
            revisions: Vec::new(),
            pages: BTreeMap::new(),
            open: 0,
            settled: i64::MIN,
            first: Nanos::MAX,
            last: Nanos::MIN,
            bytes: 0,
            late: 0,
            times,
            odd: 0,
            aside: Aside::default(),
            came: (Nanos::MAX, Nanos::MIN),
            left_out: None,
        }
    }

    /// Takes a decision. It is counted at once if others of its hour are; otherwise when it is known that its time is not far from all others.
    pub fn add(&mut self, record: &Record<'_>) {
        let at = record.timestamp;
        if !self.times.contains(&at) {
            self.odd += 1;
            return;
        }
        self.came = (self.came.0.min(at), self.came.1.max(at));
        let hour = at.div_euclid(HOUR);
        if self.loads[WHOLE].hours.contains_key(&hour) {
            return self.count(record);
        }
        let now = self.aside.add(hour, record.raw);
        self.count_all(&now);
    }

    fn count_all(&mut self, records: &[String]) {
        for record in records.iter().filter_map(|raw| Record::parse(raw.as_bytes()).ok()) {
            self.count(&record);
        }
    }

    /// Counts what was set aside and is not far from the rest; the others are left out.
    fn settle_aside(&mut self) {
        let whole = self.whole().hours.iter().map(|(hour, of)| (*hour, of.decisions));
        let mut together = aside::together(&whole.chain(self.aside.hours()).collect());
        // What is counted stays, and so does what is with it.
        if self.first <= self.last {
            let (first, last) = (self.first.div_euclid(HOUR), self.last.div_euclid(HOUR));
            together = first.min(*together.start())..=last.max(*together.end());
        }
        let hours: Vec<i64> = self.aside.hours().map(|(hour, _)| hour).collect();
        let mut far = Vec::new();
        for hour in hours {
            let records = self.aside.take(hour);
            if together.contains(&hour) {
                self.count_all(&records);
            } else {
                far.extend(records);
            }
        }
        let times: Vec<Nanos> = far
            .iter()
            .filter_map(|raw| Some(Record::parse(raw.as_bytes()).ok()?.timestamp))
            .collect();
        let apart = |at: &Nanos| (self.first - at).max(at - self.last);
        let apart = times.iter().map(apart).min();
        let edges = times.iter().min().copied().zip(times.iter().max().copied());
        self.left_out = edges.zip(apart).map(|((from, to), apart)| LeftOut {
            decisions: times.len() as u64,
            from,
            to,
            apart,
        });
        self.came = (self.first, self.last);
    }

    fn count(&mut self, record: &Record<'_>) {
        let at = record.timestamp;
        self.first = self.first.min(at);
        self.last = self.last.max(at);
        self.bytes += record.raw.len() as u64;
        let (denied, failed) = (
            record.verdict == Verdict::Deny,
            matches!(record.verdict, Verdict::Error | Verdict::Undefined),
        );
        let loads = &mut self.loads;
        let mut new = |timed: bool| {
            loads.push(Load { latency: timed.then(Latency::default), ..Load::default() });
            loads.len() - 1
        };
        let instance = record.instance.as_deref().unwrap_or_default();
        let service = self.services.id(&record.service, "", || new(true));
        let policy = self.policies.id(&record.service, &record.policy, || new(true));
        let opa = self.opas.id(&record.service, instance, || new(false));
        let timers = Latency::timers(record);
        let waited = latency::waiting(&timers).min(record.duration.unwrap_or_default());
        let hour = at.div_euclid(HOUR);
        // What was set aside is not late: its hour comes at once.
        let known = self.loads[WHOLE].hours.contains_key(&hour);
        self.late += u64::from(hour < self.settled && known && !self.pages.contains_key(&hour));
        let pages = self.pages.entry(hour).or_default();
        let second = u16::try_from(at.rem_euclid(HOUR) / SECOND).unwrap_or_default();
        for id in [WHOLE, service, policy, opa] {
            let load = &mut self.loads[id];
            let of = load.hours.entry(hour).or_default();
            of.decisions += 1;
            of.denied += u64::from(denied);
            of.failed += u64::from(failed);
            if let Some(duration) = record.duration {
                of.timed += 1;
                of.busy = of.busy.saturating_add(duration - waited);
                of.waited = of.waited.saturating_add(waited);
                if let Some(latency) = &mut load.latency {
                    latency.add(duration, &timers);
                }
            }
            let page = pages.entry(id).or_insert_with(|| {
                self.open += Page::EMPTY;
                Page::Few(Vec::new())
            });
            self.open += page.add(second);
        }
        let revision = record.revision();
        if !revision.is_empty() {
            let revisions = &mut self.revisions;
            let id = self.revision_ids.id(&record.service, &revision, || {
                revisions.push(Revision { first: at, last: at, ..Revision::default() });
                revisions.len() - 1
            });
            let of = &mut self.revisions[id];
            of.first = of.first.min(at);
            of.last = of.last.max(at);
            of.decisions += 1;
            of.denied += u64::from(denied);
            of.failed += u64::from(failed);
            if let Some(duration) = record.duration {
                of.latency.add(duration, &[]);
            }
        }
        while self.open > BYTES && self.pages.len() > 1 {
            self.settle_first();
        }
    }

    /// Nothing comes any more: all peaks stand.
    pub fn settle(&mut self) {
        self.settle_aside();
        while !self.pages.is_empty() {
            self.settle_first();
        }
    }

    fn settle_first(&mut self) {
        let Some((hour, pages)) = self.pages.pop_first() else { return };
        self.settled = self.settled.max(hour + 1);
        let minutes = self.covered().minutes(hour);
        for (id, page) in pages {
            self.open = self.open.saturating_sub(page.bytes());
            let page = page.counts();
            let of = self.loads[id].hours.entry(hour).or_default();
            let at = |second: usize| hour * HOUR + second as Nanos * SECOND;
            // The first of equals.
            let (second, most) = page
                .iter()
                .enumerate()
                .max_by_key(|(at, n)| (**n, std::cmp::Reverse(*at)))
                .unwrap_or((0, &0));
            of.second = of.second.max((*most, at(second)));
            for minute in &minutes {
                let minute = Minute {
                    decisions: page[minute.clone()].iter().sum(),
                    seconds: u32::try_from(minute.len()).unwrap_or_default(),
                    at: at(minute.start),
                };
                if minute.per_second() > of.minute.per_second() {
                    of.minute = minute;
                }
            }
        }
    }

    /// What is covered, as far as it is known.
    pub fn covered(&self) -> Covered {
        Covered::new(self.came.0, self.came.1)
    }

    pub fn whole(&self) -> &Load {
        &self.loads[WHOLE]
    }

    /// By service; the name is empty.
    pub fn services(&self) -> impl Iterator<Item = (&str, &str, &Load)> {
        self.services.iter().map(|(service, name, id)| (service, name, &self.loads[id]))
    }

    pub fn policies(&self) -> impl Iterator<Item = (&str, &str, &Load)> {
        self.policies.iter().map(|(service, name, id)| (service, name, &self.loads[id]))
    }

    pub fn opas(&self) -> impl Iterator<Item = (&str, &str, &Load)> {
        self.opas.iter().map(|(service, name, id)| (service, name, &self.loads[id]))
    }

    pub fn revisions(&self) -> impl Iterator<Item = (&str, &str, &Revision)> {
        self.revision_ids.iter().map(|(service, name, id)| (service, name, &self.revisions[id]))
    }
}
