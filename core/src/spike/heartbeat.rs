//! Whether something still beats: a policy, a service, the stream as a whole. What was never heard for long, or was
//! not watched, is not missed.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::baseline::{Dispersion, MINUTE};
use super::config::Config;
use super::{BUCKET, Change, Finding, SECOND};
use crate::decision::time::Nanos;

/// A gap is at least so long: of a service or a policy, and of all of them, which may be docket's own intake that
/// moves to another process.
pub const ONE: Nanos = 10 * SECOND;
pub const STREAM: Nanos = 90 * SECOND;
/// Silence is claimed of who was heard for so many times as long as is learned (25 minutes).
const BEARS: f64 = 2.5;
/// Who has no gap longer than that is there all the time: 5 min.
const STEADY: u32 = 5 * MINUTE as u32;

/// A mean a bucket that fades with a half-life of ten minutes.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub struct Fading {
    count: f64,
    buckets: f64,
}

impl Fading {
    const FADE: f64 = 0.997_69;
    /// Of one with a half-life of two minutes.
    const FAST: f64 = 0.988_51;

    pub fn add(&mut self, count: f64) {
        self.fade(count, Fading::FADE);
    }

    fn fade(&mut self, count: f64, fades: f64) {
        self.count = self.count * fades + count;
        self.buckets = self.buckets * fades + 1.0;
    }

    pub fn get(&self) -> f64 {
        self.count / self.buckets.max(1.0)
    }

    /// Whether it is the mean of a minute at least.
    pub fn is_known(&self) -> bool {
        self.buckets > MINUTE as f64
    }
}

/// Whether something still beats.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Decisions of the buckets that are not closed.
    #[serde(skip)]
    open: VecDeque<u32>,
    mean: Fading,
    /// The same of the last minutes.
    #[serde(default)]
    lately: Fading,
    dispersion: Dispersion,
    /// Watched buckets from the first to the latest with a decision, of a gap no more than was heard before it: what
    /// silence is measured by.
    heard: u32,
    /// Nobody watched for longer than it was heard: it may be gone for good, as samples are, until it is heard again.
    unheard: bool,
    /// Watched buckets without a decision until now, what they should have brought, and the longest gaps that there
    /// were before.
    pub gap: u32,
    due: f64,
    longest: f64,
    #[serde(default)]
    others: [f64; 3],
    /// Buckets since the last gap that was long.
    #[serde(default)]
    steady: u32,
    /// Buckets with decisions since it went quiet: one alone does not mean that it is back.
    back: u32,
    pub active: Option<Finding>,
}

impl Heartbeat {
    pub fn note(&mut self, index: usize) {
        while self.open.len() <= index {
            self.open.push_back(0);
        }
        self.open[index] += 1;
    }

    /// Learns the next bucket, of which so many are none of its own. Where nothing else is left nobody knows whether it beats.
    pub fn close_beside(&mut self, excess: u32) -> u32 {
        let count = self.open.pop_front().unwrap_or(0);
        self.beat_beside(count, excess);
        count
    }

    pub fn beat_beside(&mut self, count: u32, excess: u32) {
        if count == 0 || count > excess {
            self.beat(count.saturating_sub(excess));
        }
    }

    pub fn beat(&mut self, count: u32) {
        if count == 0 {
            if self.heard > 0 {
                self.gap += 1;
                self.due += self.rate();
            }
            if i64::from(self.gap) > MINUTE {
                self.back = 0;
            }
            return;
        }
        if self.mean.buckets > 30.0 {
            self.dispersion.learn(f64::from(count), self.mean.get());
        }
        self.pause();
        // A gap that is no finding is a part of the rate.
        let quiet = if self.active.is_some() { 0 } else { self.gap };
        for _ in 0..quiet.min(1800) {
            self.learn(0.0);
        }
        self.heard = self.heard.saturating_add(1 + quiet.min(self.heard));
        self.unheard = false;
        self.learn(f64::from(count));
        (self.gap, self.due) = (0, 0.0);
        self.back += 1;
    }

    fn learn(&mut self, count: f64) {
        self.mean.add(count);
        self.lately.fade(count, Fading::FAST);
    }

    /// How many a bucket are due: as many as usual, or as lately, if those are fewer for sure. Who is drained sends less and less.
    pub fn rate(&self) -> f64 {
        if !self.lately.is_known() {
            return self.mean.get();
        }
        let Fading { count, buckets } = self.lately;
        let most = count + 2.0 * count.sqrt() + 2.0;
        self.mean.get().min(most / buckets)
    }

    /// What was quiet and is back was a gap like others to come.
    fn pause(&mut self) {
        let [a, b, c] = self.others;
        let mut gaps = [self.longest, a, b, c].map(|gap| gap * 0.99996);
        // In their order; the least goes.
        let mut gap = f64::from(self.gap);
        for known in &mut gaps {
            if gap > *known {
                std::mem::swap(&mut gap, known);
            }
        }
        [self.longest, self.others[0], self.others[1], self.others[2]] = gaps;
        self.steady = if self.gap > STEADY { 0 } else { self.steady.saturating_add(1 + self.gap) };
    }

    /// The longest gap that is usual. One that came once is none, once it goes on without for long: it was an outage, or
    /// the time before it came to life.
    fn usual_gap(&self, config: &Config) -> f64 {
        if !bears(self.steady, config) {
            return self.longest;
        }
        let [a, b, c] = self.others;
        let twice =
            [(self.longest, a), (a, b), (b, c)].into_iter().find(|(one, next)| *one <= 2.0 * next);
        twice.map_or(c, |(one, _)| one)
    }

    /// So many decisions were none of its own: of a finding that is over it misses nothing.
    pub fn discount(&mut self, count: f64) {
        self.mean.count = (self.mean.count - count).max(0.0);
    }

    /// The variance of the count of a bucket over its mean.
    pub fn scatter(&self) -> f64 {
        self.dispersion.get()
    }

    /// Whether its gap until now is no chance.
    fn is_silent(&self) -> bool {
        self.is_missed(self.due)
    }

    /// Whether so much that is due is no chance.
    fn is_missed(&self, due: f64) -> bool {
        due >= 10.0 * self.dispersion.get()
    }

    /// How many of the latest buckets are a silence that is no chance: all of it once that is known, and each that follows.
    pub fn silent_buckets(&self) -> u32 {
        if !self.is_silent() {
            0
        } else if self.is_missed(self.due - self.rate()) {
            1
        } else {
            self.gap
        }
    }

    /// In so many of the latest buckets all that it is a part of was quiet: nothing was due from it alone, and it is missed from the next one on.
    pub fn hold(&mut self, buckets: u32) {
        let held = buckets.min(self.gap);
        self.due = (self.due - self.rate() * f64::from(held)).max(0.0);
        if self.active.is_none() {
            self.gap -= held;
        }
    }

    /// It lives, although it sent nothing that counts.
    pub fn excuse(&mut self) {
        if self.active.is_none() {
            (self.gap, self.due) = (0, 0.0);
        }
    }

    /// So many buckets passed that nobody watched: no silence is known of them, nor one that began before.
    pub fn skip(&mut self, buckets: usize) {
        self.open.drain(..buckets.min(self.open.len()));
        self.unheard |= buckets > self.heard as usize;
        self.excuse();
    }

    /// `usual`: the fewest decisions a bucket at this time of other days, if that is known; asked only where it matters.
    pub fn judge(
        &mut self,
        at: i64,
        config: &Config,
        usual: impl FnOnce() -> Option<f64>,
        least: Nanos,
        finding: impl FnOnce() -> Finding,
    ) -> Option<Change> {
        if let Some(active) = &mut self.active {
            if self.back < 3 {
                return None;
            }
            active.ended = Some(at * BUCKET);
            return self.active.take().map(Change::Ends);
        }
        let gap = f64::from(self.gap);
        // Who was heard for an hour is not missed for longer than that: it may have been all there was.
        let heard = bears(self.heard, config) && self.gap <= self.heard;
        // A gap is one event, not a scan of many counts: less is as sure.
        let sure = |due: f64| due / self.dispersion.get() >= config.certainty * 0.7;
        if heard
            && !self.unheard
            && gap * BUCKET as f64 >= least as f64
            && gap > 2.0 * self.usual_gap(config)
            && sure(self.due)
        {
            let due = usual().map_or(self.due, |usual| self.due.min(usual * gap));
            if !sure(due) {
                return None;
            }
            let mut new = finding();
            new.begin(at + 1 - i64::from(self.gap), at);
            (new.expected, new.score) = (due, due / self.dispersion.get());
            self.active = Some(new.clone());
            self.back = 0;
            return Some(Change::Begins(new));
        }
        None
    }
}

/// Whether so many buckets are enough to be missed.
fn bears(buckets: u32, config: &Config) -> bool {
    f64::from(buckets) * BUCKET as f64 >= BEARS * config.learn as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spike::Kind;

    /// So many buckets with decisions, then silence: whether that is said.
    fn said(heard: usize, skipped: usize, silent: i64) -> bool {
        let mut heart = Heartbeat::default();
        let mut at = 0;
        let judged = |heart: &mut Heartbeat, at| {
            let finding = || Finding::new(Kind::StreamQuiet, "", "");
            heart.judge(at, &Config::default(), || None, STREAM, finding).is_some()
        };
        for _ in 0..heard {
            heart.beat(20);
            assert!(!judged(&mut heart, at));
            at += 1;
        }
        heart.skip(skipped);
        at += skipped as i64;
        (0..silent).any(|n| {
            heart.beat(0);
            judged(&mut heart, at + n)
        })
    }

    #[test]
    fn silence_is_claimed_by_what_was_heard_and_watched() {
        assert!(said(1000, 0, 60));
        assert!(!said(4, 0, 200_000), "8 s of samples teach nothing");
        assert!(!said(749, 0, 200_000), "25 min are needed");
        assert!(said(751, 0, 60));
        assert!(!said(1000, 900, 40), "what nobody watched is no silence");
        assert!(said(1000, 900, 60), "what is watched again is");
        assert!(!said(1000, 1100, 2000), "nobody knows whether it is still there");
    }

    /// Runs of so many buckets, one each so many buckets: when silence is said, in three days of it.
    fn runs(run: i64, period: i64) -> Vec<i64> {
        let mut heart = Heartbeat::default();
        let mut said = Vec::new();
        for at in 0..3 * 43_200 {
            // No run is like the other.
            let jitter = (at / period * 7919) % (period / 20 + 1);
            let on = (jitter..jitter + run).contains(&(at % period));
            heart.beat(if on { 20 } else { 0 });
            let finding = || Finding::new(Kind::PolicyQuiet, "", "");
            let change = heart.judge(at, &Config::default(), || None, ONE, finding);
            if matches!(change, Some(Change::Begins(_))) {
                said.push(at);
            }
        }
        said
    }

    #[test]
    fn what_runs_now_and_then_is_not_missed_in_between() {
        const MINUTES: i64 = 30;
        for minutes in [5, 10, 20, 45, 60, 120, 180] {
            for run in [3, 50, 150, 300] {
                let said = runs(run.min(minutes * MINUTES / 2), minutes * MINUTES);
                assert!(said.is_empty(), "{run} of {minutes} min: {said:?}");
            }
        }
        // Hours on, an hour off: nobody knows in the first pause that there will be more.
        let said = runs(240 * MINUTES, 300 * MINUTES);
        assert!((1..=2).contains(&said.len()) && said[0] < 300 * MINUTES, "{said:?}");
    }

    #[test]
    fn who_was_drained_is_missed_for_what_it_sent_last() {
        let mut heart = Heartbeat::default();
        for at in 0..2100 {
            // Within ten minutes from ten a second to one.
            let part = (1800 - at.clamp(1500, 1800)) as f64 / 300.0;
            heart.beat(if at < 1950 { (2.0 + 18.0 * part) as u32 } else { 0 });
            let finding = || Finding::new(Kind::PolicyQuiet, "", "");
            let change = heart.judge(at, &Config::default(), || None, ONE, finding);
            if let Some(Change::Begins(finding)) = change {
                let silent = f64::from(heart.gap);
                assert!(finding.expected <= 2.5 * 2.0 * silent, "{silent} buckets: {finding:?}");
                assert!(at < 1980);
                return;
            }
        }
        panic!("it is not missed");
    }

    #[test]
    fn an_early_call_and_an_outage_do_not_hide_the_next_one() {
        let mut heart = Heartbeat::default();
        let (mut at, mut said) = (0, Vec::new());
        let mut live = |heart: &mut Heartbeat, buckets: i64, count: u32| {
            for _ in 0..buckets {
                heart.beat(count);
                let finding = || Finding::new(Kind::PolicyQuiet, "", "");
                if let Some(Change::Begins(_)) =
                    heart.judge(at, &Config::default(), || None, ONE, finding)
                {
                    said.push(at);
                }
                at += 1;
            }
        };
        live(&mut heart, 1, 1);
        live(&mut heart, 40_000, 0);
        live(&mut heart, 800, 20);
        live(&mut heart, 100, 0);
        live(&mut heart, 800, 20);
        live(&mut heart, 100, 0);
        let [first, second] = said[..] else { panic!("{said:?}") };
        assert!(first < 40_801 + 20 && second < 41_701 + 20, "{said:?}");
    }
}
