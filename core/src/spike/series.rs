//! A policy of a service: puts baselines to work on its counts.

use std::collections::VecDeque;

use super::baseline::{Counts, Days, Dispersion, Level, MINUTE, SIGNALS, bucket, improbable};
use super::config::{Config, HOUR};
use super::explain::Memory;
use super::heartbeat::{Heartbeat, ONE};
use super::{BUCKET, Cause, Change, Dimension, Example, Finding, Kind, Observation, SECOND};

/// Spans that are looked at, in buckets: 6 s, 10 s, 20 s, 1 min, 5 min, 30 min.
const SPANS: [usize; 6] = [3, 5, 10, 30, 150, 900];
const FIVE_MINUTES: usize = SPANS[4];
const LONGEST: usize = SPANS[SPANS.len() - 1];
/// What is newer is not learned yet: 5 min.
pub const DELAY: i64 = 300 * SECOND / BUCKET;
/// A finding ends when the last minute was usual for so long: half a minute.
const CALM: u32 = MINUTE as u32 / 2;
/// What lasts for so long is the new level: 12 h.
const ADAPT: i64 = 43_200 * SECOND / BUCKET;
/// A new revision is compared with the one before for so long: 10 min.
const TRIAL: i64 = 600 * SECOND / BUCKET;

impl Config {
    /// Denials come in handfuls, from people who try again; failures do not, so half as many are worth saying.
    fn floor_of(&self, signal: usize) -> f64 {
        if signal == 0 { self.floor } else { self.floor / 2.0 }
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
pub struct Series {
    pub service: String,
    policy: String,
    born: i64,
    /// The buckets that are not closed.
    open: VecDeque<Counts>,
    /// Closed ones, the latest last; sums since the beginning, so that any span is one subtraction.
    sums: VecDeque<Sum>,
    /// The first bucket that is not learned yet.
    learned_to: i64,
    level: Level,
    /// For the longest span: what grows slowly is not learned at once.
    slow: Level,
    days: Days,
    dispersion: [[Dispersion; SPANS.len()]; SIGNALS],
    memory: Memory,
    heartbeat: Heartbeat,
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
    pub fn new(service: &str, policy: &str, born: i64) -> Series {
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
            heartbeat: Heartbeat::new(born),
            spikes: Default::default(),
            vanished: Watch::default(),
            trial: None,
            shift: None,
            flagged_from: [i64::MAX; SIGNALS],
            flagged_to: [i64::MIN; SIGNALS],
            said_to: [i64::MIN; SIGNALS],
        }
    }

    pub fn active(&self) -> impl Iterator<Item = &Finding> {
        let watches = self.spikes.iter().chain([&self.vanished]).filter_map(|w| w.active.as_ref());
        watches.chain(self.heartbeat.active.as_ref()).chain(self.shift.as_ref().map(|(f, _)| f))
    }

    pub fn observe(&mut self, seen: &Observation<'_>, signal: Option<usize>, at: i64, next: i64) {
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
                let before =
                    (self.level.bad[0] + 0.5) / (self.level.bad[0] + self.level.good_with[0] + 1.0);
                self.trial = Some(Trial {
                    revision: revision.into(),
                    since: at,
                    counts: Counts::default(),
                    before,
                });
            }
        }
        let calm = self.spikes.iter().all(|w| w.active.is_none());
        self.memory.note(seen, signal, calm);
    }

    fn span(&self, buckets: usize) -> Sum {
        let last = self.sums.back().copied().unwrap_or_default();
        let before = self
            .sums
            .len()
            .checked_sub(1 + buckets)
            .and_then(|i| self.sums.get(i))
            .copied()
            .unwrap_or_default();
        let mut sum =
            Sum { all: last.all - before.all, good: last.good - before.good, bad: last.bad };
        (0..SIGNALS).for_each(|i| sum.bad[i] -= before.bad[i]);
        sum
    }

    /// The bucket that lies so far back.
    fn one(&self, back: usize) -> Counts {
        let at = |back: usize| {
            self.sums.len().checked_sub(1 + back).and_then(|i| self.sums.get(i)).copied()
        };
        let (Some(this), before) = (at(back), at(back + 1).unwrap_or_default()) else {
            return Counts::default();
        };
        let mut counts = Counts { all: (this.all - before.all) as u32, bad: [0; SIGNALS] };
        (0..SIGNALS).for_each(|i| counts.bad[i] = (this.bad[i] - before.bad[i]) as u32);
        counts
    }

    pub fn close(
        &mut self,
        at: i64,
        config: &Config,
        all_quiet: bool,
        changes: &mut Vec<Change>,
    ) -> Counts {
        let counts = self.open.pop_front().unwrap_or_default();
        if self.sums.is_empty() {
            // What was before the first bucket: nothing.
            self.sums.push_back(Sum::default());
        }
        let last = self.sums.back().copied().unwrap_or_default();
        let mut sum = Sum {
            all: last.all + u64::from(counts.all),
            good: last.good + u64::from(counts.good()),
            bad: last.bad,
        };
        (0..SIGNALS).for_each(|i| sum.bad[i] += u64::from(counts.bad[i]));
        if self.sums.len() > LONGEST {
            self.sums.pop_front();
        }
        self.sums.push_back(sum);
        self.memory.tick();

        self.heartbeat.beat(at, counts.all, None);
        if !all_quiet || self.heartbeat.active.is_some() {
            let usual = self.days.fewest(at);
            let (service, policy) = (&self.service, &self.policy);
            changes.extend(self.heartbeat.judge(at, config, usual, ONE, || {
                Finding::new(Kind::PolicyQuiet, service, policy)
            }));
        }
        let old = (at - self.born) * BUCKET >= config.learn
            && self.level.buckets[0] * BUCKET as f64 >= config.learn as f64 * 0.8;
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
            let much = enough
                && (seen >= 2.0 * most || (excess >= 0.1 * sum.all as f64 && seen >= 1.5 * most));
            // Not all of it at once: it lasts.
            let one = (1..span.min(30))
                .map(|back| self.one(back - 1).bad[signal] + self.one(back).bad[signal])
                .max()
                .unwrap_or(0);
            let lasts = seen - f64::from(one) - most >= floor * 0.2;
            let latest = span > 30
                || f64::from(self.one(0).bad[signal] + self.one(1).bad[signal])
                    > 2.0 * most / span as f64;
            if excess >= floor
                && much
                && lasts
                && latest
                && score >= config.certainty
                && best.is_none_or(|(_, s)| score > s)
            {
                best = Some((span, score));
            }
        }
        let Some((span, score)) = best else { return };
        let onset = self.onset(signal, at, span);
        let long = usize::try_from(at + 1 - onset).unwrap_or(span).clamp(1, LONGEST);
        let sum = self.span(long);
        let expected = self.most(signal, at, long, sum.good as f64);
        let kind = if signal == 0 { Kind::DenialSpike } else { Kind::FailureSpike };
        let mut finding = Finding::new(kind, &self.service, &self.policy);
        finding.begin(onset, at);
        (finding.observed, finding.expected, finding.decisions, finding.score) =
            (sum.bad[signal], expected, sum.all, score);
        (finding.causes, finding.examples) =
            self.memory.causes(signal, finding.onset, finding.observed, expected);
        self.flagged_from[signal] = onset;
        self.flagged_to[signal] = i64::MAX;
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
        let dispersion =
            SPANS.iter().position(|s| *s >= span).map_or(1.0, |i| self.dispersion[signal][i].get());
        let usual =
            seen <= 1.1 * most || improbable(seen, most, dispersion) < 0.15 * config.certainty;
        let watch = &mut self.spikes[signal];
        watch.calm = if usual { watch.calm + 1 } else { 0 };
        let adapted = at - watch.since > ADAPT;
        if watch.calm < CALM && !adapted {
            return None;
        }
        if let Some(finding) = &mut watch.active {
            finding.ended =
                Some(if adapted { at + 1 } else { at + 1 - i64::from(watch.calm) } * BUCKET);
        }
        self.flagged_to[signal] = at - i64::from(watch.calm);
        self.said_to[signal] = at;
        if adapted {
            self.adapt(signal, at);
        }
        Some(&mut self.spikes[signal])
    }

    /// It is how things are now: learned anew from what was last.
    fn adapt(&mut self, signal: usize, at: i64) {
        self.flagged_to[signal] = self.flagged_from[signal];
        self.level.forget(signal);
        self.slow.forget(signal);
        self.learned_to = at - DELAY;
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
                    self.adapt(0, at);
                }
            }
            return;
        }
        let busy = self.spikes.iter().any(|w| w.active.is_some())
            || self.shift.is_some()
            || self.heartbeat.gap > 0;
        if busy {
            return;
        }
        let found = SPANS
            .into_iter()
            .enumerate()
            .skip(2)
            .take_while(|(_, span)| at - (*span as i64) >= self.said_to[0])
            .find_map(|(i, span)| {
                let sum = self.span(span);
                let (by_time, by_traffic) = self.level.expected(0, span as f64, sum.good as f64);
                let mut least = by_time.min(by_traffic);
                if let Some(usual) = self.days.least(at, 0, sum.good as f64) {
                    least = least.min(usual);
                }
                least /= self.level.doubt(0);
                let seen = sum.bad[0] as f64;
                let score = if seen < least {
                    improbable(seen, least, self.dispersion[0][i].get())
                } else {
                    0.0
                };
                (least >= 20.0 && seen <= 0.15 * least && score >= config.certainty)
                    .then_some((span, sum, least, score))
            });
        let Some((span, sum, least, score)) = found else { return };
        let mut quiet = 0;
        while quiet < self.sums.len() - 1 && self.one(quiet).bad[0] == 0 {
            quiet += 1;
        }
        let mut finding = Finding::new(Kind::DenialsVanished, &self.service, &self.policy);
        finding.begin(at + 1 - (quiet.max(span.min(FIVE_MINUTES))) as i64, at);
        (finding.observed, finding.expected, finding.decisions, finding.score) =
            (sum.bad[0], least, sum.all, score);
        finding.causes.extend(
            self.trial.as_ref().map(|trial| Cause::whole(Dimension::Revision, &trial.revision)),
        );
        self.flagged_from[0] = bucket(finding.onset);
        self.flagged_to[0] = i64::MAX;
        self.vanished = Watch { active: Some(finding.clone()), span, calm: 0, since: at };
        changes.push(Change::Begins(finding));
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
        let more = now >= before + 0.05
            && now >= 1.5 * before
            && (now - before) * all >= 2.0 * config.floor;
        if score < config.certainty || !(less || more) {
            return;
        }
        let mut finding = Finding::new(Kind::RevisionShift, &self.service, &self.policy);
        finding.causes.push(Cause::whole(Dimension::Revision, &trial.revision));
        finding.begin(trial.since, at);
        (finding.observed, finding.expected, finding.decisions, finding.score) =
            (denied as u64, before * all, all as u64, score);
        if more {
            let (_, examples): (_, Vec<Example>) =
                self.memory.causes(0, finding.onset, finding.observed, finding.expected);
            finding.examples = examples;
        }
        if less {
            // It is over when denials are back.
            self.flagged_from[0] = trial.since;
            self.flagged_to[0] = i64::MAX;
            self.vanished =
                Watch { active: Some(finding.clone()), span: FIVE_MINUTES, calm: 0, since: at };
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
            let flagged: [bool; SIGNALS] =
                std::array::from_fn(|s| self.flagged_from[s] <= one && one <= self.flagged_to[s]);
            let quiet = self.heartbeat.active.is_some() && counts.all == 0;
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
                    let (by_time, by_traffic) =
                        self.level.expected(signal, span as f64, sum.good as f64);
                    let seen = sum.bad[signal] as f64;
                    // The nearer of both models.
                    let expected = if (seen - by_time).abs() < (seen - by_traffic).abs() {
                        by_time
                    } else {
                        by_traffic
                    };
                    self.dispersion[signal][i].learn(seen, expected);
                }
            }
        }
    }
}
