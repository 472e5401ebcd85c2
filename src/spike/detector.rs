//! Puts baselines to work: a series for each policy of each service, a pulse for each OPA.

use std::collections::{HashMap, VecDeque};

use sha2::{Digest, Sha256};

use super::baseline::{Counts, Days, Dispersion, Level, MINUTE, SIGNALS, bucket, improbable};
use super::explain::Memory;
use super::{BUCKET, Cause, Change, Dimension, Example, Finding, Kind, Observation, SECOND};
use crate::decision::time::Nanos;
use crate::decision::verdict::Verdict;

/// How sure is sure, and what is worth saying.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Denials (failures) beyond the expected before anything is said.
    pub floor: f64,
    /// How improbable a finding must be: the exponent of e.
    pub certainty: f64,
    /// How long a policy is watched before anything is said of it.
    pub learn: Nanos,
    /// So many policies of services, and as many OPAs, are watched; further ones are not.
    pub max_series: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config { floor: 12.0, certainty: 28.0, learn: 600 * SECOND, max_series: 1000 }
    }
}

impl Config {
    /// Denials come in handfuls, from people who try again; failures do not, so half as many are worth saying.
    fn floor_of(&self, signal: usize) -> f64 {
        if signal == 0 { self.floor } else { self.floor / 2.0 }
    }
}

/// Spans that are looked at, in buckets: 6 s, 10 s, 20 s, 1 min, 5 min, 30 min.
const SPANS: [usize; 6] = [3, 5, 10, 30, 150, 900];
const FIVE_MINUTES: usize = SPANS[4];
const HOUR: Nanos = 3600 * SECOND;
const LONGEST: usize = SPANS[SPANS.len() - 1];
/// What is newer is not learned yet: 5 min.
const DELAY: i64 = 300 * SECOND / BUCKET;
/// What comes late counts when it comes, unless it comes a minute late: that is a backlog, and says nothing of now.
const LATE: i64 = MINUTE;
/// A decision that is an hour ahead has a wrong clock.
const AHEAD: i64 = HOUR / BUCKET;
/// A finding ends when the last minute was usual for so long: half a minute.
const CALM: u32 = MINUTE as u32 / 2;
/// What lasts for so long is the new level: 12 h.
const ADAPT: i64 = 43_200 * SECOND / BUCKET;
/// A new revision is compared with the one before for so long: 10 min.
const TRIAL: i64 = 600 * SECOND / BUCKET;
/// A gap is at least so long: of an OPA or a policy, and of all of them, which may be docket's own intake that moves to
/// another process.
const ONE: Nanos = 10 * SECOND;
const STREAM: Nanos = 90 * SECOND;
/// An OPA that was quiet for so long is gone: 1 h.
const GONE: u32 = (3600 * SECOND / BUCKET) as u32;

pub struct Detector {
    config: Config,
    /// By service, zero byte, policy.
    names: HashMap<String, usize>,
    series: Vec<Series>,
    /// By service, zero byte, instance.
    pulses: HashMap<String, Pulse>,
    /// By service.
    services: HashMap<String, Service>,
    stream: Pulse,
    /// The first bucket that is not closed; none before the first decision.
    next: Option<i64>,
    /// Decisions that came after their bucket was closed, and of how long ago the latest bucket was.
    pub late: u64,
    pub unwatched: u64,
    scratch: String,
}

#[derive(Default)]
struct Service {
    /// Decisions of the bucket that is closed, and a bucket on average over some ten minutes.
    now: u32,
    mean: Fading,
    /// Buckets without any.
    gap: u32,
    /// When the latest OPA of it appeared.
    newest: i64,
}

impl Detector {
    pub fn new(config: Config) -> Detector {
        Detector {
            config,
            names: HashMap::new(),
            series: Vec::new(),
            pulses: HashMap::new(),
            services: HashMap::new(),
            stream: Pulse::new(0),
            next: None,
            late: 0,
            unwatched: 0,
            scratch: String::new(),
        }
    }

    pub fn observe(&mut self, seen: &Observation<'_>) {
        let mut at = bucket(seen.at);
        let next = *self.next.get_or_insert(at);
        if at < next {
            self.late += 1;
            if at < next - LATE {
                return;
            }
            at = next;
        }
        at = at.min(next + AHEAD);
        let signal = match seen.verdict {
            Verdict::Deny => Some(0),
            Verdict::Error | Verdict::Undefined => Some(1),
            Verdict::Allow | Verdict::Finding => None,
        };
        key(&mut self.scratch, seen.service, seen.policy);
        let index = match self.names.get(&self.scratch) {
            Some(index) => *index,
            None if self.series.len() >= self.config.max_series => {
                self.unwatched += 1;
                return;
            }
            None => {
                self.series.push(Series::new(seen.service, seen.policy, at));
                self.names.insert(self.scratch.clone(), self.series.len() - 1);
                self.series.len() - 1
            }
        };
        self.series[index].observe(seen, signal, at, next);
        let instance = seen.who[Dimension::Instance as usize];
        if !instance.is_empty() {
            key(&mut self.scratch, seen.service, instance);
            if let Some(pulse) = self.pulses.get_mut(&self.scratch) {
                pulse.note(at, next);
            } else if self.pulses.len() < self.config.max_series {
                self.services.entry(seen.service.to_owned()).or_default().newest = at;
                let mut pulse = Pulse::new(at);
                pulse.note(at, next);
                self.pulses.insert(self.scratch.clone(), pulse);
            }
        }
        self.stream.note(at, next);
    }

    /// All decisions before `watermark` were observed. Says what that makes certain.
    pub fn advance(&mut self, watermark: Nanos) -> Vec<Change> {
        let mut changes = Vec::new();
        let Some(mut next) = self.next else { return changes };
        while next < bucket(watermark) {
            self.close(next, &mut changes);
            next += 1;
            self.next = Some(next);
        }
        changes
    }

    /// What goes on.
    pub fn active(&self) -> Vec<Finding> {
        let mut all: Vec<Finding> = self.series.iter().flat_map(Series::active).cloned().collect();
        all.extend(self.pulses.values().chain([&self.stream]).filter_map(|p| p.active.as_ref()).cloned());
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    fn close(&mut self, at: i64, changes: &mut Vec<Change>) {
        let config = &self.config;
        let stream_went = self.stream.close(at, None);
        let stream_gap = self.stream.gap;
        if let Some(change) = self.stream.judge(at, config, None, STREAM, || Finding::new(Kind::StreamQuiet, "", "", "")) {
            changes.push(change);
        }
        let all_quiet = self.stream.active.is_some() || (stream_gap > 0 && !stream_went);
        self.services.values_mut().for_each(|s| s.now = 0);
        for series in &mut self.series {
            let counts = series.close(at, config, all_quiet, changes);
            if let Some(service) = self.services.get_mut(&series.service) {
                service.now += counts.all;
            }
        }
        for service in self.services.values_mut() {
            service.gap = if service.now == 0 { service.gap + 1 } else { 0 };
            service.mean.add(f64::from(service.now));
        }
        let mut keys: Vec<&String> = self.pulses.keys().collect();
        keys.sort_unstable();
        let keys: Vec<String> = keys.into_iter().cloned().collect();
        for key in keys {
            let Some(pulse) = self.pulses.get_mut(&key) else { continue };
            let (service, instance) = key.split_once('\0').unwrap_or_default();
            let of = self.services.get(service);
            // What it would have got of its service's decisions: whatever happens to the service's traffic, the share stays.
            if pulse.gap == 0 {
                pulse.share = of.map_or(1.0, |s| pulse.mean.get() / s.mean.get().max(1e-9)).min(0.98);
            }
            let share = pulse.share;
            let due = of.map_or(0.0, |s| f64::from(s.now)) * share;
            pulse.close(at, Some((due, due / share.max(1e-9) * -(1.0 - share).ln())));
            let service_quiet = of.is_none_or(|s| s.gap > 0);
            // Another OPA of the service that came about when this one went takes its place.
            let replaced = of.is_some_and(|s| s.newest > pulse.born && s.newest >= at - i64::from(pulse.gap) - DELAY);
            if (all_quiet || service_quiet || replaced) && pulse.active.is_none() {
                if pulse.gap > GONE || (replaced && pulse.gap > 3) {
                    self.pulses.remove(&key);
                }
                continue;
            }
            let change = pulse.judge(at, config, None, ONE, || {
                let mut finding = Finding::new(Kind::InstanceQuiet, service, "", instance);
                finding.causes.push(Cause { dimension: Dimension::Instance, value: instance.to_owned(), share: 1.0, before: 0.0 });
                finding
            });
            let gone = pulse.gap > GONE;
            if gone && let Some(mut finding) = pulse.active.take() {
                finding.ended = Some((at + 1) * BUCKET);
                changes.push(Change::Ends(finding));
            }
            if gone {
                self.pulses.remove(&key);
            }
            changes.extend(change);
        }
    }
}

fn key(out: &mut String, service: &str, name: &str) {
    out.clear();
    out.push_str(service);
    out.push('\0');
    out.push_str(name);
}

impl Finding {
    fn new(kind: Kind, service: &str, policy: &str, instance: &str) -> Finding {
        let mut finding = Finding {
            id: String::new(),
            kind,
            service: service.into(),
            policy: policy.into(),
            onset: 0,
            detected: 0,
            ended: None,
            observed: 0,
            expected: 0.0,
            decisions: 0,
            score: 0.0,
            causes: Vec::new(),
            examples: Vec::new(),
        };
        finding.id = instance.into();
        finding
    }

    /// Begins at a bucket and is certain at the end of another. `id` held what tells it from others of its kind.
    fn begin(&mut self, onset: i64, detected: i64) {
        self.onset = onset * BUCKET;
        self.detected = (detected + 1) * BUCKET;
        let named = format!("{}\0{}\0{}\0{}\0{}", self.kind.as_str(), self.service, self.policy, self.id, self.onset);
        self.id = crate::decision::docket::hex(&Sha256::digest(named)[..8]);
    }
}

/// A mean a bucket that fades with a half-life of ten minutes.
#[derive(Default, Clone, Copy)]
struct Fading {
    count: f64,
    buckets: f64,
}

impl Fading {
    const FADE: f64 = 0.997_69;

    fn add(&mut self, count: f64) {
        self.count = self.count * Fading::FADE + count;
        self.buckets = self.buckets * Fading::FADE + 1.0;
    }

    fn get(&self) -> f64 {
        self.count / self.buckets.max(1.0)
    }
}

/// Whether something still beats.
struct Pulse {
    /// Decisions of the buckets that are not closed.
    open: VecDeque<u32>,
    born: i64,
    mean: Fading,
    /// Of an OPA: its part of its service's decisions, while it sent some.
    share: f64,
    dispersion: Dispersion,
    /// Buckets without a decision until now, what they should have brought, and how improbable that is; and the longest
    /// gap that there was before.
    gap: u32,
    due: f64,
    doubt: f64,
    longest: f64,
    /// Buckets with decisions since it went quiet: one alone does not mean that it is back.
    back: u32,
    active: Option<Finding>,
}

impl Pulse {
    fn new(born: i64) -> Pulse {
        Pulse {
            open: VecDeque::new(),
            born,
            mean: Fading::default(),
            share: 0.0,
            dispersion: Dispersion::default(),
            gap: 0,
            due: 0.0,
            doubt: 0.0,
            longest: 0.0,
            back: 0,
            active: None,
        }
    }

    fn note(&mut self, at: i64, next: i64) {
        let index = usize::try_from(at - next).unwrap_or(0);
        while self.open.len() <= index {
            self.open.push_back(0);
        }
        self.open[index] += 1;
    }

    /// Learns a bucket; whether there was anything in it.
    fn close(&mut self, at: i64, due: Option<(f64, f64)>) -> bool {
        let count = self.open.pop_front().unwrap_or(0);
        self.beat(at, count, due)
    }

    /// `due`: what it should have been, and how improbable nothing instead is; by the rate unless that is known better.
    fn beat(&mut self, at: i64, count: u32, due: Option<(f64, f64)>) -> bool {
        if self.born == 0 && count > 0 {
            self.born = at;
        }
        let (due, doubt) = due.unwrap_or((self.mean.get(), self.mean.get()));
        if count == 0 {
            self.gap += 1;
            if i64::from(self.gap) > MINUTE {
                self.back = 0;
            }
            self.due += due;
            self.doubt += doubt;
            return false;
        }
        if self.mean.buckets > 30.0 {
            self.dispersion.learn(f64::from(count), due);
            // What was quiet and is back was a gap like others to come; less so if it was a finding.
            let gap = if self.active.is_some() { f64::from(self.gap) / 4.0 } else { f64::from(self.gap) };
            self.longest = self.longest.max(gap) * 0.99996;
        }
        // A gap that is no finding is a part of the rate.
        let quiet = if self.active.is_some() { 0 } else { self.gap };
        for _ in 0..quiet.min(1800) {
            self.mean.add(0.0);
        }
        self.mean.add(f64::from(count));
        (self.gap, self.due, self.doubt) = (0, 0.0, 0.0);
        self.back += 1;
        true
    }

    fn judge(&mut self, at: i64, config: &Config, usual: Option<f64>, least: Nanos, finding: impl FnOnce() -> Finding) -> Option<Change> {
        if let Some(active) = &mut self.active {
            if self.back < 3 {
                return None;
            }
            active.ended = Some(at * BUCKET);
            return self.active.take().map(Change::Ends);
        }
        let gap = f64::from(self.gap);
        let (mut due, mut doubt) = (self.due, self.doubt);
        if let Some(usual) = usual {
            (due, doubt) = (due.min(usual * gap), doubt.min(usual * gap));
        }
        let score = doubt / self.dispersion.get();
        let old = (at - self.born) * BUCKET > config.learn;
        // A gap is one event, not a scan of many counts: less is as sure.
        if old && gap * BUCKET as f64 >= least as f64 && gap > 2.0 * self.longest && score >= config.certainty * 0.7 {
            let mut new = finding();
            new.begin(at + 1 - i64::from(self.gap), at);
            (new.expected, new.score) = (due, score);
            self.active = Some(new.clone());
            self.back = 0;
            return Some(Change::Begins(new));
        }
        None
    }
}

/// A revision that is new to a policy.
struct Trial {
    revision: String,
    since: i64,
    counts: Counts,
    /// The part that was denied before.
    before: f64,
}

/// A policy of a service.
struct Series {
    service: String,
    policy: String,
    born: i64,
    /// The buckets that are not closed.
    open: VecDeque<Counts>,
    /// Closed ones, the latest last; sums since the beginning, so that any span is one subtraction.
    sums: VecDeque<Sum>,
    /// Whether a finding was active, by signal, for buckets that are not learned yet.
    learned_to: i64,
    level: Level,
    /// For the longest span: what grows slowly is not learned at once.
    slow: Level,
    days: Days,
    dispersion: [[Dispersion; SPANS.len()]; SIGNALS],
    memory: Memory,
    pulse: Pulse,
    spikes: [Watch; SIGNALS],
    vanished: Watch,
    trial: Option<Trial>,
    shift: Option<(Finding, i64)>,
    /// Buckets until which denials are not learned, since a finding covers them.
    flagged_from: [i64; SIGNALS],
    flagged_to: [i64; SIGNALS],
    /// What was before has been said: spans begin here.
    said_to: [i64; SIGNALS],
}

/// A finding that may go on.
#[derive(Default)]
struct Watch {
    active: Option<Finding>,
    /// The span that showed it.
    span: usize,
    calm: u32,
    since: i64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    all: u64,
    good: u64,
    bad: [u64; SIGNALS],
}

impl Series {
    fn new(service: &str, policy: &str, born: i64) -> Series {
        Series {
            service: service.into(),
            policy: policy.into(),
            born,
            open: VecDeque::new(),
            sums: VecDeque::with_capacity(LONGEST + 1),
            learned_to: born,
            level: Level::new(HOUR),
            slow: Level::new(6 * HOUR),
            days: Days::default(),
            dispersion: Default::default(),
            memory: Memory::default(),
            pulse: Pulse::new(born),
            spikes: Default::default(),
            vanished: Watch::default(),
            trial: None,
            shift: None,
            flagged_from: [i64::MAX; SIGNALS],
            flagged_to: [i64::MIN; SIGNALS],
            said_to: [i64::MIN; SIGNALS],
        }
    }

    fn active(&self) -> impl Iterator<Item = &Finding> {
        let watches = self.spikes.iter().chain([&self.vanished]).filter_map(|w| w.active.as_ref());
        watches.chain(self.pulse.active.as_ref()).chain(self.shift.as_ref().map(|(f, _)| f))
    }

    fn observe(&mut self, seen: &Observation<'_>, signal: Option<usize>, at: i64, next: i64) {
        let index = usize::try_from(at - next).unwrap_or(0);
        while self.open.len() <= index {
            self.open.push_back(Counts::default());
        }
        let counts = &mut self.open[index];
        counts.all += 1;
        if let Some(signal) = signal {
            counts.bad[signal] += 1;
        }
        let revision = seen.who[Dimension::Revision as usize];
        if !revision.is_empty() {
            let known = !self.memory.is_new(Dimension::Revision, revision);
            let tried = self.trial.as_mut().filter(|t| t.revision == revision);
            if let Some(trial) = tried {
                trial.counts.all += 1;
                if let Some(signal) = signal {
                    trial.counts.bad[signal] += 1;
                }
            } else if !known && self.level.buckets[0] * BUCKET as f64 >= 300.0 * SECOND as f64 {
                let before = (self.level.bad[0] + 0.5) / (self.level.bad[0] + self.level.good_with[0] + 1.0);
                self.trial = Some(Trial { revision: revision.into(), since: at, counts: Counts::default(), before });
            }
        }
        let calm = self.spikes.iter().all(|w| w.active.is_none());
        self.memory.note(seen, signal, calm);
    }

    fn span(&self, buckets: usize) -> Sum {
        let last = self.sums.back().copied().unwrap_or_default();
        let before = self.sums.len().checked_sub(1 + buckets).and_then(|i| self.sums.get(i)).copied().unwrap_or_default();
        let mut sum = Sum { all: last.all - before.all, good: last.good - before.good, bad: last.bad };
        (0..SIGNALS).for_each(|i| sum.bad[i] -= before.bad[i]);
        sum
    }

    /// The bucket that lies so far back.
    fn one(&self, back: usize) -> Counts {
        let at = |back: usize| self.sums.len().checked_sub(1 + back).and_then(|i| self.sums.get(i)).copied();
        let (Some(this), before) = (at(back), at(back + 1).unwrap_or_default()) else { return Counts::default() };
        let mut counts = Counts { all: (this.all - before.all) as u32, bad: [0; SIGNALS] };
        (0..SIGNALS).for_each(|i| counts.bad[i] = (this.bad[i] - before.bad[i]) as u32);
        counts
    }

    fn close(&mut self, at: i64, config: &Config, all_quiet: bool, changes: &mut Vec<Change>) -> Counts {
        let counts = self.open.pop_front().unwrap_or_default();
        if self.sums.is_empty() {
            // What was before the first bucket: nothing.
            self.sums.push_back(Sum::default());
        }
        let last = self.sums.back().copied().unwrap_or_default();
        let mut sum = Sum { all: last.all + u64::from(counts.all), good: last.good + u64::from(counts.good()), bad: last.bad };
        (0..SIGNALS).for_each(|i| sum.bad[i] += u64::from(counts.bad[i]));
        if self.sums.len() > LONGEST {
            self.sums.pop_front();
        }
        self.sums.push_back(sum);
        self.memory.tick();

        self.pulse.beat(at, counts.all, None);
        if !all_quiet || self.pulse.active.is_some() {
            let usual = self.days.fewest(at);
            let (service, policy) = (&self.service, &self.policy);
            changes.extend(self.pulse.judge(at, config, usual, ONE, || Finding::new(Kind::PolicyQuiet, service, policy, "")));
        }
        let old = (at - self.born) * BUCKET >= config.learn && self.level.buckets[0] * BUCKET as f64 >= config.learn as f64 * 0.8;
        if old {
            for signal in 0..SIGNALS {
                self.spike(signal, at, config, changes);
            }
            self.vanish(at, config, changes);
        }
        self.shift(at, config, changes);
        self.learn(at, config);
        counts
    }

    fn spike(&mut self, signal: usize, at: i64, config: &Config, changes: &mut Vec<Change>) {
        if let Some(watch) = self.goes_on(signal, at, config) {
            let finding = std::mem::take(watch).active;
            changes.extend(finding.map(Change::Ends));
            return;
        }
        if self.spikes[signal].active.is_some() {
            return;
        }
        let floor = config.floor_of(signal);
        let total: u64 = self.span(LONGEST).bad[signal];
        if (total as f64) < floor {
            return;
        }
        let mut best: Option<(usize, f64)> = None;
        for (i, span) in SPANS.into_iter().enumerate() {
            let sum = self.span(span);
            let seen = sum.bad[signal] as f64;
            if at - (span as i64) < self.said_to[signal] {
                break;
            }
            if seen < floor {
                continue;
            }
            let most = self.most(signal, at, span, sum.good as f64);
            let dispersion = self.dispersion[signal][i].get();
            let score = improbable(seen, most, dispersion);
            let excess = seen - most;
            // Of a hundred decisions one that fails is worth a word, of a thousand not.
            let enough = signal == 0 || excess >= 0.01 * sum.all as f64;
            let much = enough && (seen >= 2.0 * most || (excess >= 0.1 * sum.all as f64 && seen >= 1.5 * most));
            // Not all of it at once: it lasts.
            let one = (1..span.min(30)).map(|back| self.one(back - 1).bad[signal] + self.one(back).bad[signal]).max().unwrap_or(0);
            let lasts = seen - f64::from(one) - most >= floor * 0.2;
            let latest = span > 30 || f64::from(self.one(0).bad[signal] + self.one(1).bad[signal]) > 2.0 * most / span as f64;
            if excess >= floor && much && lasts && latest && score >= config.certainty && best.is_none_or(|(_, s)| score > s) {
                best = Some((span, score));
            }
        }
        let Some((span, score)) = best else { return };
        let onset = self.onset(signal, at, span);
        let long = usize::try_from(at + 1 - onset).unwrap_or(span).clamp(1, LONGEST);
        let sum = self.span(long);
        let expected = self.most(signal, at, long, sum.good as f64);
        let kind = if signal == 0 { Kind::DenialSpike } else { Kind::FailureSpike };
        let mut finding = Finding::new(kind, &self.service, &self.policy, "");
        finding.begin(onset, at);
        (finding.observed, finding.expected, finding.decisions, finding.score) = (sum.bad[signal], expected, sum.all, score);
        (finding.causes, finding.examples) = self.memory.causes(signal, finding.onset, finding.observed, expected);
        self.flagged_from[signal] = onset;
        self.flagged_to[signal] = i64::MAX;
        // What was going on already when it was found is no past either.
        self.spikes[signal] = Watch { active: Some(finding.clone()), span, calm: 0, since: at };
        if signal == 0 {
            self.trial = None;
        }
        changes.push(Change::Begins(finding));
    }

    /// Looks whether an active spike has ended. The ended one, if so.
    fn goes_on(&mut self, signal: usize, at: i64, config: &Config) -> Option<&mut Watch> {
        self.spikes[signal].active.as_ref()?;
        let span = self.spikes[signal].span.clamp(MINUTE as usize, 3 * FIVE_MINUTES);
        let sum = self.span(span);
        let seen = sum.bad[signal] as f64;
        let most = self.most(signal, at, span, sum.good as f64);
        // What may well be chance is usual again.
        let dispersion = SPANS.iter().position(|s| *s >= span).map_or(1.0, |i| self.dispersion[signal][i].get());
        let usual = seen <= 1.1 * most || improbable(seen, most, dispersion) < 0.15 * config.certainty;
        let watch = &mut self.spikes[signal];
        watch.calm = if usual { watch.calm + 1 } else { 0 };
        let adapted = at - watch.since > ADAPT;
        if watch.calm < CALM && !adapted {
            return None;
        }
        if let Some(finding) = &mut watch.active {
            finding.ended = Some(if adapted { at + 1 } else { at + 1 - i64::from(watch.calm) } * BUCKET);
        }
        self.flagged_to[signal] = at - i64::from(watch.calm);
        self.said_to[signal] = at;
        if adapted {
            // It is how things are now.
            self.flagged_to[signal] = self.flagged_from[signal];
            self.level.forget(signal);
            self.slow.forget(signal);
            self.learned_to = at - DELAY;
        }
        Some(watch)
    }

    /// The most that the baseline explains.
    fn most(&self, signal: usize, at: i64, span: usize, good: f64) -> f64 {
        let level = if span == LONGEST { &self.slow } else { &self.level };
        let (by_time, by_traffic) = level.expected(signal, span as f64, good);
        let recent = by_time.max(by_traffic) * level.doubt(signal);
        recent.max(self.days.most(at, signal, span as f64, good))
    }

    /// Back from now, as long as there is more than usual, but for a lull.
    fn onset(&self, signal: usize, at: i64, span: usize) -> i64 {
        let step = (span / 10).max(1);
        let (mut back, mut first, mut calm) = (0, 0, 0);
        while back + step < self.sums.len() && back < LONGEST && calm < 3 {
            let (mut bad, mut good) = (0.0, 0.0);
            for counts in (back..back + step).map(|b| self.one(b)) {
                bad += f64::from(counts.bad[signal]);
                good += f64::from(counts.good());
            }
            back += step;
            if bad > self.most(signal, at, step, good).max(0.5) {
                (first, calm) = (back, 0);
            } else if back >= span {
                calm += 1;
            }
        }
        at + 1 - if first == 0 { span } else { first } as i64
    }

    fn vanish(&mut self, at: i64, config: &Config, changes: &mut Vec<Change>) {
        let (least, seen, sum, score, span) = {
            let mut found = (0.0, 0.0, Sum::default(), 0.0, 0);
            for (i, span) in SPANS.into_iter().enumerate().skip(2) {
                if at - (span as i64) < self.said_to[0] {
                    break;
                }
                let sum = self.span(span);
                let (by_time, by_traffic) = self.level.expected(0, span as f64, sum.good as f64);
                let mut least = by_time.min(by_traffic);
                if let Some(usual) = self.days.least(at, 0, sum.good as f64) {
                    least = least.min(usual);
                }
                least /= self.level.doubt(0);
                let seen = sum.bad[0] as f64;
                let score = if seen < least { improbable(seen, least, self.dispersion[0][i].get()) } else { 0.0 };
                if least >= 20.0 && seen <= 0.15 * least && score >= config.certainty {
                    found = (least, seen, sum, score, span);
                    break;
                }
            }
            found
        };
        if self.vanished.active.is_some() {
            let span = usize::try_from(at - self.vanished.since).unwrap_or(0).min(FIVE_MINUTES);
            let sum = self.span(span);
            let (by_time, by_traffic) = self.level.expected(0, span as f64, sum.good as f64);
            let back = sum.bad[0] as f64 >= (0.5 * by_time.min(by_traffic)).max(3.0);
            let adapted = at - self.vanished.since > ADAPT;
            if back || adapted {
                let mut watch = std::mem::take(&mut self.vanished);
                if let Some(finding) = &mut watch.active {
                    finding.ended = Some((at + 1) * BUCKET);
                    changes.push(Change::Ends(finding.clone()));
                }
                self.flagged_to[0] = at;
                self.said_to[0] = at;
                if adapted {
                    self.flagged_to[0] = self.flagged_from[0];
                    self.level.forget(0);
                    self.slow.forget(0);
                    self.learned_to = at - DELAY;
                }
            }
            return;
        }
        let busy = self.spikes.iter().any(|w| w.active.is_some()) || self.shift.is_some() || self.pulse.gap > 0;
        if score < config.certainty || busy {
            return;
        }
        let mut quiet = 0;
        while quiet < self.sums.len() - 1 && self.one(quiet).bad[0] == 0 {
            quiet += 1;
        }
        let mut finding = Finding::new(Kind::DenialsVanished, &self.service, &self.policy, "");
        finding.begin(at + 1 - (quiet.max(span.min(FIVE_MINUTES))) as i64, at);
        (finding.observed, finding.expected, finding.decisions, finding.score) = (seen as u64, least, sum.all, score);
        self.explain_by_revision(&mut finding);
        self.flagged_from[0] = bucket(finding.onset);
        self.flagged_to[0] = i64::MAX;
        self.vanished = Watch { active: Some(finding.clone()), span, calm: 0, since: at };
        changes.push(Change::Begins(finding));
    }

    fn explain_by_revision(&self, finding: &mut Finding) {
        if let Some(trial) = &self.trial {
            finding.causes.push(Cause { dimension: Dimension::Revision, value: trial.revision.clone(), share: 1.0, before: 0.0 });
        }
    }

    /// Whether a new revision answers otherwise than the one before.
    fn shift(&mut self, at: i64, config: &Config, changes: &mut Vec<Change>) {
        if let Some((finding, since)) = &mut self.shift
            && at - *since > TRIAL
        {
            finding.ended = Some((at + 1) * BUCKET);
            changes.extend(self.shift.take().map(|(f, _)| Change::Ends(f)));
        }
        let Some(trial) = &self.trial else { return };
        if at - trial.since > TRIAL {
            self.trial = None;
            return;
        }
        let busy = self.spikes.iter().chain([&self.vanished]).any(|w| w.active.is_some());
        let (all, denied) = (f64::from(trial.counts.all), f64::from(trial.counts.bad[0]));
        if busy || all < 50.0 || self.shift.is_some() {
            return;
        }
        let (now, before) = (denied / all, trial.before.clamp(1e-4, 1.0 - 1e-4));
        let term = |p: f64, q: f64| if p > 0.0 { p * (p / q).ln() } else { 0.0 };
        let dispersion = self.dispersion[0][3].get();
        let score = all * (term(now, before) + term(1.0 - now, 1.0 - before)) / dispersion;
        let less = now <= before / 2.0 && (before - now) * all >= 2.0 * config.floor;
        let more = now >= before + 0.05 && now >= 1.5 * before && (now - before) * all >= 2.0 * config.floor;
        if score < config.certainty || !(less || more) {
            return;
        }
        let mut finding = Finding::new(Kind::RevisionShift, &self.service, &self.policy, &trial.revision);
        finding.begin(trial.since, at);
        (finding.observed, finding.expected, finding.decisions, finding.score) = (denied as u64, before * all, all as u64, score);
        self.explain_by_revision(&mut finding);
        if more {
            let (_, examples): (_, Vec<Example>) = self.memory.causes(0, finding.onset, finding.observed, finding.expected);
            finding.examples = examples;
        }
        if less {
            // It is over when denials are back.
            self.flagged_from[0] = trial.since;
            self.flagged_to[0] = i64::MAX;
            self.vanished = Watch { active: Some(finding.clone()), span: FIVE_MINUTES, calm: 0, since: at };
        } else {
            self.shift = Some((finding.clone(), at));
        }
        self.trial = None;
        changes.push(Change::Begins(finding));
    }

    /// Learns what is old enough, and what was not part of a finding.
    fn learn(&mut self, at: i64, config: &Config) {
        let young = self.level.buckets[0] * (BUCKET as f64) < config.learn as f64;
        let delay = if young { 2 } else { DELAY };
        while self.learned_to <= at - delay {
            let one = self.learned_to;
            self.learned_to += 1;
            let Ok(back) = usize::try_from(at - one) else { continue };
            if back + 1 >= self.sums.len() {
                continue;
            }
            let counts = self.one(back);
            let flagged: [bool; SIGNALS] = std::array::from_fn(|s| self.flagged_from[s] <= one && one <= self.flagged_to[s]);
            let quiet = self.pulse.active.is_some() && counts.all == 0;
            if !quiet {
                self.level.learn(counts, flagged.map(|f| !f));
                self.slow.learn(counts, flagged.map(|f| !f));
            }
            let mut minute = [0; SIGNALS];
            for b in back..(back + MINUTE as usize).min(self.sums.len() - 1) {
                let counts = self.one(b);
                (0..SIGNALS).for_each(|i| minute[i] += counts.bad[i]);
            }
            self.days.learn(one, counts, minute, flagged);
        }
        if young {
            return;
        }
        for (i, span) in SPANS.into_iter().enumerate() {
            if at % span as i64 != 0 || self.sums.len() <= span {
                continue;
            }
            let sum = self.span(span);
            for signal in 0..SIGNALS {
                if self.spikes[signal].active.is_none() && self.vanished.active.is_none() {
                    let (by_time, by_traffic) = self.level.expected(signal, span as f64, sum.good as f64);
                    let seen = sum.bad[signal] as f64;
                    // The nearer of both models.
                    let expected = if (seen - by_time).abs() < (seen - by_traffic).abs() { by_time } else { by_traffic };
                    self.dispersion[signal][i].learn(seen, expected);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::scenario::{Day, Scenario};

    /// From 50 minutes before a day's event to five minutes after it.
    fn lived(scenario: Scenario, seed: u64) -> (Day, Vec<Change>) {
        let start = 1_767_744_000 * SECOND;
        let mut day = Day::new(scenario, seed, start, 1.0);
        day.skip_to(day.event_at() - 3000 * SECOND);
        let mut detector = Detector::new(Config::default());
        let (mut changes, mut second) = (Vec::new(), Vec::new());
        let mut now = day.event_at() - 3000 * SECOND;
        let end = day.events().first().map_or(now + 6000 * SECOND, |e| e.to + 600 * SECOND);
        while now < end {
            day.second(&mut second);
            now += SECOND;
            second.iter().for_each(|made| day.observe(made, |seen| detector.observe(seen)));
            changes.extend(detector.advance(now - 5 * SECOND));
        }
        assert_eq!(detector.active(), []);
        (day, changes)
    }

    #[test]
    fn what_happens_is_found_explained_and_ends() {
        for scenario in [
            Scenario::Attack,
            Scenario::MisconfiguredClient,
            Scenario::BadBundle,
            Scenario::PermissiveBundle,
            Scenario::DeadOpa,
            Scenario::Silence,
            Scenario::MissingData,
        ] {
            let (day, changes) = lived(scenario, 5);
            let event = day.events().remove(0);
            let [Change::Begins(begins), Change::Ends(ends)] = changes.as_slice() else { panic!("{scenario:?}: {changes:#?}") };
            assert!(event.kinds.contains(&begins.kind) && begins.service == event.service, "{scenario:?}: {begins:#?}");
            let late = (begins.detected - event.from) / SECOND;
            assert!((0..=if scenario == Scenario::PermissiveBundle { 300 } else { 40 }).contains(&late), "{scenario:?}: {late} s");
            assert!((begins.onset - event.from).abs() <= 40 * SECOND, "{scenario:?}: {begins:#?}");
            let cause = begins.causes.first().map(|c| (c.dimension, c.value.clone()));
            assert_eq!(cause, event.cause, "{scenario:?}");
            assert_eq!((&ends.id, ends.ended.is_some()), (&begins.id, true));
            assert!((ends.ended.unwrap() - event.to).abs() <= 180 * SECOND, "{scenario:?}: {ends:#?}");
        }
        assert_eq!(lived(Scenario::Attack, 5).1, lived(Scenario::Attack, 5).1, "a pure function of the stream");
        assert_eq!(lived(Scenario::Launch, 5).1, [], "more traffic is no spike");
    }

    #[test]
    fn series_are_bounded_and_what_comes_late_is_counted() {
        let mut detector = Detector::new(Config { max_series: 2, ..Config::default() });
        let mut see = |policy: &str, at: Nanos| {
            let trace_id = crate::decision::ids::TraceId::INVALID;
            detector.observe(&Observation { at, service: "s", policy, verdict: Verdict::Deny, who: [""; 5], trace_id, decision_id: "" });
            detector.advance(at);
        };
        ["a", "b", "c"].into_iter().enumerate().for_each(|(i, policy)| see(policy, 1000 * SECOND + i as i64));
        see("a", 2000 * SECOND);
        see("a", 1990 * SECOND);
        see("a", 1500 * SECOND);
        assert_eq!((detector.series.len(), detector.unwatched, detector.late), (2, 1, 2));
    }
}
