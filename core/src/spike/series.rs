//! A policy of a service: puts baselines to work on its counts.

use serde::{Deserialize, Serialize};

use super::baseline::{Counts, MINUTE, SIGNALS, bucket, improbable, improbable_part};
use super::config::Config;
use super::explain::Memory;
use super::heartbeat::{Heartbeat, ONE};
use super::learner::Learner;
use super::trial::Trial;
use super::window::{FIVE_MINUTES, LONGEST, SPANS, Window};
use super::{BUCKET, Change, Dimension, Finding, Kind, Observation, SECOND};

pub mod flood;
mod habit;
mod settle;
mod shift;
mod vanish;
mod watch;

use habit::Habits;
use watch::Watch;

/// What lasts for so long is the new level: 12 h.
const ADAPT: i64 = 43_200 * SECOND / BUCKET;
/// What was found is not gone on with when nobody watched for so long: 10 min.
const FORGOTTEN: i64 = 600 * SECOND / BUCKET;

impl Config {
    /// Denials come in handfuls, from people who try again; failures do not, so half as many are worth saying.
    fn floor_of(&self, signal: usize) -> f64 {
        if signal == 0 { self.floor } else { self.floor / 2.0 }
    }
}

/// A policy of a service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Series {
    pub service: String,
    pub policy: String,
    born: i64,
    /// The first bucket that is not closed.
    pub next: i64,
    /// Decisions, newer ones weigh more: who has least of it makes room for others.
    pub heat: f64,
    window: Window,
    learner: Learner,
    memory: Memory,
    heartbeat: Heartbeat,
    spikes: [Watch; SIGNALS],
    vanished: Watch,
    #[serde(default)]
    habits: Habits,
    trial: Option<Trial>,
    shift: Option<(Finding, i64)>,
    /// What was learned at first was looked at.
    #[serde(default = "settled")]
    settled: bool,
    /// What was before has been said: spans begin here.
    said_to: [i64; SIGNALS],
    /// Decisions of the latest bucket that are of a finding, and none of its own.
    #[serde(skip)]
    pub excess: u32,
}

/// What is told of the others when a bucket is closed.
#[derive(Debug, Clone, Copy)]
pub struct Around<'c> {
    pub config: &'c Config,
    /// The whole service is quiet, or the whole stream: that is not said of each of its policies.
    pub hushed: bool,
    /// In so many of the latest buckets, and that is no chance.
    pub hole: u32,
    /// It was quiet for so long that this is said.
    pub silent: bool,
}

impl Series {
    pub fn new(service: &str, policy: &str, born: i64, next: i64) -> Series {
        Series {
            service: service.into(),
            policy: policy.into(),
            born,
            next,
            heat: 0.0,
            window: Window::default(),
            learner: Learner::new(next),
            memory: Memory::default(),
            heartbeat: Heartbeat::default(),
            spikes: Default::default(),
            vanished: Watch::default(),
            habits: Habits::default(),
            trial: None,
            shift: None,
            settled: false,
            said_to: [i64::MIN; SIGNALS],
            excess: 0,
        }
    }

    /// Quarters of an hour with decisions that it has learned from.
    pub fn quarters(&self) -> usize {
        self.learner.days.quarters()
    }

    /// The fewest decisions a bucket that are usual at this time, if that is known.
    pub fn fewest(&self, at: i64) -> Option<f64> {
        self.learner.days.fewest(at)
    }

    pub fn active(&self) -> impl Iterator<Item = &Finding> {
        let watches = self.spikes.iter().chain([&self.vanished]).filter_map(Watch::told);
        watches.chain(self.heartbeat.active.as_ref()).chain(self.shift.as_ref().map(|(f, _)| f))
    }

    /// Whether it was news: what is known again is read again.
    pub fn observe(&mut self, seen: &Observation<'_>, signal: Option<usize>, at: i64) -> bool {
        let Ok(index) = usize::try_from(at - self.next) else { return false };
        self.window.count(index, signal);
        let revision = seen.who[Dimension::Revision as usize];
        if !revision.is_empty() {
            let tried = self.trial.as_mut().filter(|t| t.revision == revision);
            if let Some(trial) = tried {
                trial.note(seen, signal, at, |judged, hash| self.memory.known(judged, hash));
            } else if self.memory.is_new(Dimension::Revision, revision) && self.learner.compares() {
                let (before, known) = (self.learner.denied(), self.learner.decisions());
                self.trial = Some(Trial::new(revision, at, seen.at, before, known));
            }
        }
        let calm = self.spikes.iter().all(|w| w.active.is_none());
        self.memory.note(seen, signal, calm);
        true
    }

    pub fn excuse(&mut self) {
        self.heartbeat.excuse();
    }

    /// As it is kept: heat in decisions of now.
    pub fn cooled(&self, weight: f64) -> Series {
        Series { heat: self.heat / weight, ..self.clone() }
    }

    /// Nobody watched from the first open bucket to `to`.
    pub fn skip(&mut self, to: i64, changes: &mut Vec<Change>) {
        let Ok(buckets) = usize::try_from(to - self.next) else { return };
        self.window.skip(buckets);
        self.learner.skip(to);
        self.heartbeat.skip(buckets);
        self.trial = None;
        if to - self.next > FORGOTTEN {
            let last = self.next * BUCKET;
            let watches = self.spikes.iter_mut().chain([&mut self.vanished]);
            let gone = watches.filter_map(|w| std::mem::take(w).into_told());
            let gone = gone.chain(self.shift.take().map(|(f, _)| f));
            let gone: Vec<Finding> = gone.chain(self.heartbeat.active.take()).collect();
            for mut finding in gone {
                finding.ended = Some(last);
                changes.push(Change::Ends(finding));
            }
            (0..SIGNALS).for_each(|s| self.learner.flagged_to(s, self.next));
        }
        self.next = to;
    }

    /// The next bucket is complete.
    pub fn close(&mut self, around: Around<'_>, changes: &mut Vec<Change>) {
        let (at, config) = (self.next, around.config);
        self.next += 1;
        let counts = self.window.close();
        self.memory.tick();
        self.excess = self.excess_of(counts);
        self.heartbeat.beat_beside(counts.all, self.excess);
        self.heartbeat.hold(around.hole);
        if !around.hushed || self.heartbeat.active.is_some() {
            let (service, policy, days) = (&self.service, &self.policy, &self.learner.days);
            changes.extend(self.heartbeat.judge(
                at,
                config,
                || days.fewest(at),
                ONE,
                || Finding::new(Kind::PolicyQuiet, service, policy),
            ));
        }
        if self.is_known(at, config) {
            self.settle(config);
            for signal in 0..SIGNALS {
                self.spike(signal, at, config, changes);
            }
            self.vanish(at, config, changes);
        } else if self.spikes[0].active.is_some() {
            self.spike(0, at, config, changes);
        }
        self.shift(at, config, changes);
        let calm = std::array::from_fn(|s| {
            self.spikes[s].active.is_none() && self.vanished.active.is_none()
        });
        let quiet = around.silent || self.heartbeat.active.is_some();
        self.learner.learn(at, &self.window, quiet, calm, config);
    }

    /// What is of a finding that goes on, of these.
    fn excess_of(&self, counts: Counts) -> u32 {
        let of = |signal: usize| {
            let watch = &self.spikes[signal];
            let usual = match &watch.active {
                None => return 0,
                Some(_) if watch.flood => 0.0,
                Some(_) => self.learner.recent_as(watch.span, signal, 1, f64::from(counts.good())),
            };
            counts.bad[signal].saturating_sub(usual.ceil() as u32)
        };
        (0..SIGNALS).map(of).sum()
    }

    fn spike(&mut self, signal: usize, at: i64, config: &Config, changes: &mut Vec<Change>) {
        let known = self.spikes[signal].known;
        if self.spikes[signal].active.is_none() {
            if let Some((finding, span)) = self.found(signal, at, config) {
                self.learner.flag(signal, bucket(finding.onset));
                self.spikes[signal].begins(&finding, span, at);
                self.heartbeat.discount(finding.excess());
                if signal == 0 {
                    self.trial = None;
                }
                let known = self.is_habit(signal, at, &finding);
                self.spikes[signal].known = known;
                changes.extend((!known).then_some(Change::Begins(finding)));
            }
        } else if let Some(ended) = self.goes_on(signal, at, config) {
            changes.extend((!known).then_some(Change::Ends(ended)));
        } else if let Some(new) = self.another(signal, at, config) {
            let watch = &mut self.spikes[signal];
            let old = watch.active.take().filter(|_| !known);
            changes
                .extend(old.map(|old| Change::Ends(Finding { ended: Some(new.detected), ..old })));
            watch.begins(&new, MINUTE as usize, at);
            self.heartbeat.discount(new.excess());
            changes.push(Change::Begins(new));
        } else {
            self.departs(signal, at, config, changes);
        }
        self.remember(signal, at, config);
    }

    /// A finding that the last buckets show, and the span that shows it.
    fn found(&self, signal: usize, at: i64, config: &Config) -> Option<(Finding, usize)> {
        let total: u64 = self.window.span(LONGEST).bad[signal];
        if (total as f64) < config.floor_of(signal) {
            return None;
        }
        let spans = SPANS
            .into_iter()
            .enumerate()
            .take_while(|(_, span)| at - (*span as i64) >= self.said_to[signal]);
        let scores = spans.filter_map(|(i, span)| Some((span, self.score(signal, at, i, config)?)));
        // Of the same score the shortest.
        let (span, score) =
            scores.reduce(|best, this| if this.1 > best.1 { this } else { best })?;
        let onset = self.onset(signal, at, span);
        let long = usize::try_from(at + 1 - onset).unwrap_or(span).clamp(1, LONGEST);
        let sum = self.window.span(long);
        let expected = self.learner.most(signal, at, long, sum.good as f64);
        // What a part of it shows, all of it has to bear out.
        if !much(long, sum.bad[signal] as f64, expected, sum.all as f64) {
            return None;
        }
        let kind = if signal == 0 { Kind::DenialSpike } else { Kind::FailureSpike };
        let mut finding = Finding::new(kind, &self.service, &self.policy);
        finding.begin(onset, at);
        (finding.observed, finding.expected, finding.decisions, finding.score) =
            (sum.bad[signal], expected, sum.all, score);
        self.explained(signal, &mut finding);
        Some((finding, span))
    }

    /// How improbable a signal's count in the last so many buckets is, if it is enough to be said where so many are usual.
    fn beyond(&self, signal: usize, index: usize, most: f64, config: &Config) -> Option<f64> {
        let (span, floor) = (SPANS[index], config.floor_of(signal));
        let sum = self.window.span(span);
        let (seen, all) = (sum.bad[signal] as f64, sum.all as f64);
        let dispersion = self.learner.scatter_of(signal, index);
        let excess = seen - most;
        // Of a hundred decisions one that fails is worth a word, of a thousand not.
        let enough = signal == 0 || excess >= 0.01 * all;
        let score = improbable(seen, most, dispersion);
        // More traffic alone is none: their part of it must have grown.
        let (part, usual) = (seen / all.max(1.0), self.learner.part(span, signal));
        let grew = part > usual
            && improbable_part(all, part, usual) / dispersion >= 0.5 * config.certainty;
        let enough = enough && grew;
        (enough && much(span, seen, most, all) && excess >= floor && score >= config.certainty)
            .then_some(score)
    }

    /// The same beyond what the recent level explains, which needs no look at other days.
    fn is_new(&self, signal: usize, index: usize, config: &Config) -> bool {
        let good = self.window.span(SPANS[index]).good as f64;
        let recent = self.learner.recent(signal, SPANS[index], good);
        self.beyond(signal, index, recent, config).is_some()
    }

    /// The same beyond all that is usual, and not over yet.
    fn score(&self, signal: usize, at: i64, index: usize, config: &Config) -> Option<f64> {
        if !self.is_new(signal, index, config) {
            return None;
        }
        let (span, floor) = (SPANS[index], config.floor_of(signal));
        let sum = self.window.span(span);
        let seen = sum.bad[signal] as f64;
        let most = self.learner.most(signal, at, span, sum.good as f64);
        let score = self.beyond(signal, index, most, config)?;
        // Not all of it at once: it lasts.
        let two = |back: usize| {
            f64::from(self.window.one(back - 1).bad[signal] + self.window.one(back).bad[signal])
        };
        let one = (1..span.min(30)).map(two).fold(0.0, f64::max);
        let lasts = seen - one - most >= floor * 0.2;
        let latest = match span {
            ..=30 => two(1) > 2.0 * most / span as f64,
            // What was half an hour ago and is over is not to be said any more.
            LONGEST => !self.is_usual(signal, at, LONGEST, config),
            _ => true,
        };
        (lasts && latest).then_some(score)
    }

    /// Looks whether an active spike has ended. The ended one, if so.
    fn goes_on(&mut self, signal: usize, at: i64, config: &Config) -> Option<Finding> {
        let usual = self.is_usual_again(signal, at, config);
        let watch = &mut self.spikes[signal];
        watch.goes_on(at, usual, self.window.one(0).bad[signal]);
        let adapted = at - watch.since > ADAPT;
        if !watch.is_over() && !adapted {
            return None;
        }
        let calm = i64::from(watch.calm);
        let mut finding = watch.ends(at)?;
        finding.ended = Some(if adapted { at + 1 } else { at + 1 - calm } * BUCKET);
        self.learner.flagged_to(signal, at - calm);
        self.said_to[signal] = at;
        if adapted {
            self.learner.adapt(signal, at);
        }
        Some(finding)
    }

    fn is_usual_again(&self, signal: usize, at: i64, config: &Config) -> bool {
        let watch = &self.spikes[signal];
        let Some(finding) = watch.active.as_ref().filter(|_| watch.flood) else {
            return self.is_usual(signal, at, watch.span, config);
        };
        let seen = self.window.span(MINUTE as usize).bad[signal] as f64;
        let long = ((finding.detected - finding.onset) / BUCKET).max(1) as f64;
        let most = 0.25 * finding.observed as f64 / long * MINUTE as f64;
        let dispersion = self.learner.dispersion[signal][3].get();
        may_be_chance(seen, most, dispersion, config)
    }

    /// Whether what `shown` showed is usual, or may well be chance: in the last minute, or in the last minutes of longer spans.
    fn is_usual(&self, signal: usize, at: i64, shown: usize, config: &Config) -> bool {
        let span = shown.clamp(MINUTE as usize, 3 * FIVE_MINUTES);
        let sum = self.window.span(span);
        let seen = sum.bad[signal] as f64;
        // What crept in is not over for what has been learned of it meanwhile.
        let most = self.learner.most_as(shown, signal, at, span, sum.good as f64);
        let dispersion = SPANS
            .iter()
            .position(|s| *s >= span)
            .map_or(1.0, |i| self.learner.dispersion[signal][i].get());
        may_be_chance(seen, most, dispersion, config)
    }

    /// The first bucket of what `span` shows.
    fn onset(&self, signal: usize, at: i64, span: usize) -> i64 {
        let sum = self.window.span(span);
        let usual = self.learner.most(signal, at, span, sum.good as f64).max(0.1) / span as f64;
        let now = (sum.bad[signal] as f64 / span as f64).max(1.5 * usual);
        // At first its rate is known by the span, which may be longer than it is.
        let long = self.changed(signal, at, usual, now);
        let now = (self.window.span(long).bad[signal] as f64 / long as f64).max(1.5 * usual);
        at + 1 - self.changed(signal, at, usual, now) as i64
    }

    /// How many of the last buckets are told best by another rate than the usual one: where the likelihood of a change is
    /// largest.
    fn changed(&self, signal: usize, at: i64, usual: f64, now: f64) -> usize {
        let known = self.window.known().saturating_sub(1).min(LONGEST);
        let said = usize::try_from(at.saturating_sub(self.said_to[signal])).unwrap_or(LONGEST);
        let (each, bucket) = ((now / usual).ln(), usual - now);
        let (mut sum, mut best, mut long) = (0.0, f64::MIN, 1);
        for back in 0..known.min(said) {
            sum += f64::from(self.window.one(back).bad[signal]) * each + bucket;
            if sum > best {
                (best, long) = (sum, back + 1);
            }
        }
        long
    }
}

/// An older version learned what it knows long ago.
fn settled() -> bool {
    true
}

/// Whether so many are usual where `most` is the most that is, or may well be by chance.
fn may_be_chance(seen: f64, most: f64, dispersion: f64, config: &Config) -> bool {
    seen <= 1.1 * most || improbable(seen, most, dispersion) < 0.15 * config.certainty
}

/// Whether so many are much more than the most that is usual: twice as many, or half as many again, if that is a tenth of all
/// decisions. Half an hour says more: what creeps shows there first.
fn much(span: usize, seen: f64, most: f64, all: f64) -> bool {
    let (part, times) = if span >= LONGEST { (0.05, 1.4) } else { (0.1, 1.5) };
    seen >= 2.0 * most || (seen - most >= part * all && seen >= times * most)
}

#[cfg(test)]
mod tests;
