//! What is usual: the recent level, the level at this time of other days, and how much both scatter. And how
//! improbable a count is under that.

use serde::{Deserialize, Serialize};

use super::clocks;
use super::{BUCKET, SECOND};
use crate::decision::time::Nanos;

/// Denials and failures (errors, undefined).
pub const SIGNALS: usize = 2;

/// What one bucket holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "(u32, u32, u32)", into = "(u32, u32, u32)")]
pub struct Counts {
    pub all: u32,
    /// By signal.
    pub bad: [u32; SIGNALS],
}

impl From<(u32, u32, u32)> for Counts {
    fn from((all, denied, failed): (u32, u32, u32)) -> Counts {
        Counts { all, bad: [denied, failed] }
    }
}

impl From<Counts> for (u32, u32, u32) {
    fn from(counts: Counts) -> (u32, u32, u32) {
        (counts.all, counts.bad[0], counts.bad[1])
    }
}

impl Counts {
    pub fn good(&self) -> u32 {
        self.all.saturating_sub(self.bad.iter().sum())
    }
}

/// How improbable it is to see at least (or at most) `seen` where `expected` is the mean, as an exponent of e: Chernoff's
/// bound for a Poisson count, divided by its dispersion (the variance over the mean).
pub fn improbable(seen: f64, expected: f64, dispersion: f64) -> f64 {
    let expected = expected.max(1e-9);
    let divergence =
        if seen > 0.0 { seen * (seen / expected).ln() - seen + expected } else { expected };
    divergence / dispersion.max(1.0)
}

/// How improbable it is that of so many a part is `seen` where `expected` is usual, as an exponent of e: Chernoff's bound for a
/// binomial count.
pub fn improbable_part(all: f64, seen: f64, expected: f64) -> f64 {
    let term = |p: f64, q: f64| if p > 0.0 && q > 0.0 { p * (p / q).ln() } else { 0.0 };
    all * (term(seen, expected) + term(1.0 - seen, 1.0 - expected))
}

/// A level: sums that fade.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Level {
    /// By so much with each bucket.
    fade: f64,
    pub all: f64,
    pub good: f64,
    pub bad: [f64; SIGNALS],
    /// Buckets, by signal: an active finding keeps its own signal from being learned.
    pub buckets: [f64; SIGNALS],
    /// The decisions that go with the denials that were learned.
    pub good_with: [f64; SIGNALS],
}

impl Level {
    pub fn new(half_life: Nanos) -> Level {
        let fade = (-std::f64::consts::LN_2 * BUCKET as f64 / half_life as f64).exp();
        Level {
            fade,
            all: 0.0,
            good: 0.0,
            bad: [0.0; SIGNALS],
            buckets: [0.0; SIGNALS],
            good_with: [0.0; SIGNALS],
        }
    }

    /// Begins anew.
    pub fn forget(&mut self, signal: usize) {
        (self.bad[signal], self.buckets[signal], self.good_with[signal]) = (0.0, 0.0, 0.0);
    }

    pub fn learn(&mut self, counts: Counts, signals: [bool; SIGNALS]) {
        let fade = self.fade;
        self.all = self.all * fade + f64::from(counts.all);
        self.good = self.good * fade + f64::from(counts.good());
        for (i, learned) in signals.into_iter().enumerate() {
            if learned {
                self.bad[i] = self.bad[i] * fade + f64::from(counts.bad[i]);
                self.good_with[i] = self.good_with[i] * fade + f64::from(counts.good());
                self.buckets[i] = self.buckets[i] * fade + 1.0;
            }
        }
    }

    /// Sums that don't fade, of buckets that are added as one.
    pub fn block() -> Level {
        Level { fade: 1.0, ..Level::new(1) }
    }

    /// Learns what a block of so many buckets holds.
    pub fn add(&mut self, block: &Level, buckets: usize) {
        let fade = self.fade.powi(i32::try_from(buckets).unwrap_or(i32::MAX));
        let add = |sum: &mut f64, more: f64| *sum = *sum * fade + more;
        add(&mut self.all, block.all);
        add(&mut self.good, block.good);
        for i in 0..SIGNALS {
            if block.buckets[i] > 0.0 {
                add(&mut self.bad[i], block.bad[i]);
                add(&mut self.good_with[i], block.good_with[i]);
                add(&mut self.buckets[i], block.buckets[i]);
            }
        }
    }

    /// The mean count of a signal in so many buckets that hold so many good decisions: by time, and by traffic.
    pub fn expected(&self, signal: usize, buckets: f64, good: f64) -> (f64, f64) {
        let by_time = (self.bad[signal] + 0.5) / (self.buckets[signal] + 1.0) * buckets;
        let by_traffic = (self.bad[signal] + 0.5) / (self.good_with[signal] + 5.0) * good;
        (by_time, by_traffic)
    }

    /// How far above the mean the true level may be, as a factor: much for little evidence.
    pub fn doubt(&self, signal: usize) -> f64 {
        1.0 + 2.0 / (self.bad[signal] + 1.0).sqrt()
    }
}

/// A quarter of an hour of a day.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(from = "SlotRow", into = "SlotRow")]
struct Slot {
    day: i32,
    buckets: u16,
    /// A finding was active: this may be no example of what is usual.
    flagged: [bool; SIGNALS],
    all: u32,
    good: u32,
    bad: [u32; SIGNALS],
    /// The most in a minute, and in five.
    peak: [u32; SIGNALS],
    peak_of_five: [u32; SIGNALS],
}

/// A slot as it is written: no names, since there are a thousand of them. Last the peaks; older versions knew those of a
/// minute only.
type SlotRow = (i32, u16, [bool; SIGNALS], [u32; 2], [u32; SIGNALS], Vec<u32>);

impl From<SlotRow> for Slot {
    fn from((day, buckets, flagged, [all, good], bad, peak): SlotRow) -> Slot {
        let of = |from: usize| std::array::from_fn(|i| peak.get(from + i).copied().unwrap_or(0));
        let (peak, peak_of_five) = (of(0), of(SIGNALS));
        Slot { day, buckets, flagged, all, good, bad, peak, peak_of_five }
    }
}

impl From<Slot> for SlotRow {
    fn from(s: Slot) -> SlotRow {
        let peaks = s.peak.into_iter().chain(s.peak_of_five).collect();
        (s.day, s.buckets, s.flagged, [s.all, s.good], s.bad, peaks)
    }
}

const SLOTS: usize = 96;
const PER_SLOT: i64 = 900 * SECOND / BUCKET;
const DAYS: usize = 15;
/// What has nothing in so many quarters of an hour of a day sleeps: four hours.
const SLEEPS: usize = 16;
/// A minute.
pub const MINUTE: i64 = 60 * SECOND / BUCKET;

/// What was at this time on other days.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Days {
    /// By quarter of an hour; the latest day last.
    slots: Vec<Vec<Slot>>,
}

/// The slot and the day of a bucket.
fn place(bucket: i64) -> (usize, i32) {
    let slot = bucket.div_euclid(PER_SLOT);
    ((slot.rem_euclid(SLOTS as i64)) as usize, (slot.div_euclid(SLOTS as i64)) as i32)
}

impl Days {
    /// `peaks`: how many there were in the minute that ends with the bucket, and in five.
    pub fn learn(
        &mut self,
        bucket: i64,
        counts: Counts,
        peaks: [[u32; SIGNALS]; 2],
        flagged: [bool; SIGNALS],
    ) {
        if self.slots.is_empty() {
            self.slots = vec![Vec::new(); SLOTS];
        }
        let (slot, day) = place(bucket);
        let days = &mut self.slots[slot];
        if days.last().is_none_or(|d| d.day != day) {
            if days.len() == DAYS {
                days.remove(0);
            }
            days.push(Slot { day, ..Slot::default() });
        }
        let Some(slot) = days.last_mut() else { return };
        slot.buckets += 1;
        slot.all += counts.all;
        slot.good += counts.good();
        for i in 0..SIGNALS {
            slot.bad[i] += counts.bad[i];
            slot.peak[i] = slot.peak[i].max(peaks[0][i]);
            slot.peak_of_five[i] = slot.peak_of_five[i].max(peaks[1][i]);
            slot.flagged[i] |= flagged[i];
        }
    }

    /// What was so far is no example of what is usual.
    pub fn flag(&mut self, signal: usize) {
        self.slots.iter_mut().flatten().for_each(|slot| slot.flagged[signal] = true);
    }

    /// How many of them have decisions.
    pub fn quarters(&self) -> usize {
        self.slots.iter().flatten().filter(|slot| slot.all > 0).count()
    }

    /// The usual value at this time, by `value`: the lower median of the last week, so that one bad day teaches
    /// nothing, this weekday's, and what was so on each of the last two days. `None` where nothing is known.
    fn usual(
        &self,
        slot: usize,
        day: i32,
        signal: usize,
        value: impl Fn(&Slot) -> f64,
    ) -> Option<f64> {
        let days: Vec<&Slot> = self
            .slots
            .get(slot)?
            .iter()
            .filter(|s| s.day < day && i64::from(s.buckets) > PER_SLOT / 2)
            .collect();
        let of = |days: &[&Slot]| {
            if let [one] = days {
                return (!one.flagged[signal]).then(|| value(one));
            }
            let mut values: Vec<f64> = days.iter().map(|s| value(s)).collect();
            values.sort_unstable_by(f64::total_cmp);
            values.get(values.len().checked_sub(1)? / 2).copied()
        };
        let week: Vec<&Slot> = days.iter().copied().filter(|s| day - s.day <= 7).collect();
        let weekday: Vec<&Slot> = days.iter().copied().filter(|s| (day - s.day) % 7 == 0).collect();
        let mut last = days.iter().filter(|s| day - s.day <= 2).map(|s| value(s));
        let both = match (last.next(), last.next()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            _ => None,
        };
        [of(&week), of(&weekday), both].into_iter().flatten().reduce(f64::max)
    }

    /// The most that is usual around this time for a signal in so many buckets with so many good decisions.
    pub fn most(&self, bucket: i64, signal: usize, buckets: f64, good: f64) -> f64 {
        let around = |value: &dyn Fn(&Slot) -> f64| {
            let at = |offset: i64| {
                let (slot, day) = place(bucket + offset * PER_SLOT);
                self.usual(slot, day, signal, value)
            };
            let first = -1 - (buckets as i64 - 1).max(0) / PER_SLOT;
            // After clocks were changed what comes by the clock comes an hour sooner or later.
            let hour = if clocks::changed(bucket * BUCKET) {
                3600 * SECOND / BUCKET / PER_SLOT
            } else {
                0
            };
            let hours: &[i64] = if hour == 0 { &[0] } else { &[-hour, 0, hour] };
            hours.iter().flat_map(|h| (first + h)..=(1 + h)).filter_map(at).fold(0.0, f64::max)
        };
        let by_time = around(&|s| f64::from(s.bad[signal]) / f64::from(s.buckets));
        let by_traffic = around(&|s| f64::from(s.bad[signal]) / f64::from(s.good + 5));
        // A job of some minutes is more in these than its quarter of an hour is on average.
        let short = if buckets <= MINUTE as f64 {
            around(&|s| f64::from(s.peak[signal]) / MINUTE as f64)
        } else if buckets <= 5.0 * MINUTE as f64 {
            around(&|s| f64::from(s.peak_of_five[signal]) / (5 * MINUTE) as f64)
        } else {
            0.0
        };
        (by_time.max(short) * buckets).max(by_traffic * good)
    }

    /// Whether it is a Saturday or a Sunday, the first that is known of what sleeps for hours on other days.
    fn is_new_weekend(&self, bucket: i64) -> bool {
        let (_, day) = place(bucket);
        // The first of January 1970 was a Thursday.
        if !matches!((day + 4).rem_euclid(7), 0 | 6) {
            return false;
        }
        let before = |slot: &&Slot| slot.day < day && i64::from(slot.buckets) > PER_SLOT / 2;
        let known = || self.slots.iter().flatten().filter(before);
        let latest = known().map(|slot| slot.day).max();
        known().all(|slot| (day - slot.day) % 7 != 0)
            && known().filter(|slot| Some(slot.day) == latest && slot.all == 0).count() >= SLEEPS
    }

    /// The fewest decisions a bucket that are usual around this time, if that is known.
    pub fn fewest(&self, bucket: i64) -> Option<f64> {
        if self.is_new_weekend(bucket) {
            return Some(0.0);
        }
        let at = |offset: i64| {
            let (slot, day) = place(bucket + offset * PER_SLOT);
            self.usual(slot, day, 0, |s| -f64::from(s.all) / f64::from(s.buckets)).map(|v| -v)
        };
        [-1, 0, 1].into_iter().filter_map(at).reduce(f64::min)
    }

    /// The fewest of a signal that are usual around this time for so many good decisions, if that is known.
    pub fn least(&self, bucket: i64, signal: usize, good: f64) -> Option<f64> {
        let at = |offset: i64| {
            let (slot, day) = place(bucket + offset * PER_SLOT);
            self.usual(slot, day, signal, |s| -f64::from(s.bad[signal]) / f64::from(s.good + 5))
                .map(|v| -v * good)
        };
        [-1, 0, 1].into_iter().filter_map(at).reduce(f64::min)
    }
}

/// The variance of a count over its mean, learned; at least 1.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Dispersion {
    sum: f64,
    weight: f64,
}

impl Default for Dispersion {
    fn default() -> Dispersion {
        Dispersion { sum: 3.6, weight: 3.0 }
    }
}

impl Dispersion {
    pub fn learn(&mut self, seen: f64, expected: f64) {
        // One outlier teaches little.
        let squared = ((seen - expected).powi(2) / expected.max(1.0)).min(16.0);
        const FADE: f64 = 0.9985;
        self.sum = self.sum * FADE + squared;
        self.weight = self.weight * FADE + 1.0;
    }

    pub fn get(&self) -> f64 {
        (self.sum / self.weight).max(1.0)
    }
}

/// The bucket that a time is in.
pub fn bucket(at: Nanos) -> i64 {
    at.div_euclid(BUCKET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_not_improbable_and_what_is_far_from_it_is() {
        assert!(improbable(10.0, 10.0, 1.0).abs() < 1e-9);
        assert!(improbable(100.0, 10.0, 1.0) > 100.0);
        assert!(improbable(0.0, 30.0, 1.0) > 20.0);
        assert!(improbable(100.0, 10.0, 10.0) < 20.0, "where counts scatter, more is needed");
    }

    #[test]
    fn one_bad_day_teaches_nothing_and_two_do() {
        let per_day = SLOTS as i64 * PER_SLOT;
        let mut days = Days::default();
        let mut live = |day: i64, bad: u32, flagged: bool| {
            for bucket in 0..per_day {
                let here = if bucket < PER_SLOT { bad } else { 1 };
                let counts = Counts { all: 20, bad: [here, 0] };
                days.learn(
                    day * per_day + bucket,
                    counts,
                    [[here * MINUTE as u32, 0], [here * 5 * MINUTE as u32, 0]],
                    [flagged && bucket < PER_SLOT, false],
                );
            }
            days.most((day + 1) * per_day, 0, 12.0, 200.0)
        };
        assert!(live(0, 15, true) < 30.0);
        assert!(live(1, 1, false) < 30.0);
        live(2, 15, true);
        assert!(live(3, 15, true) > 150.0, "it comes every night");
    }

    #[test]
    fn two_nights_teach_a_job_of_five_minutes_whatever_was_before() {
        let per_day = SLOTS as i64 * PER_SLOT;
        let five = 5 * MINUTE;
        let mut days = Days::default();
        let mut window = [0u32; 150];
        let mut night = |day: i64, bad: u32| {
            for bucket in 0..per_day {
                // It begins in one quarter of an hour and ends in the next.
                let job = (PER_SLOT - 60..PER_SLOT - 60 + five).contains(&bucket);
                let here = if job { bad } else { 0 };
                window[(bucket % five) as usize] = here;
                let minutes = window.iter().sum();
                let peaks = [[here * MINUTE as u32, 0], [minutes, 0]];
                let counts = Counts { all: 20, bad: [here, 0] };
                days.learn(day * per_day + bucket, counts, peaks, [false; 2]);
            }
            days.most((day + 1) * per_day + PER_SLOT, 0, five as f64, 1000.0)
        };
        for day in 0..8 {
            assert_eq!(night(day, 0), 0.0);
        }
        assert_eq!(night(8, 2), 0.0, "one night teaches nothing");
        assert_eq!(night(9, 2), 300.0);
        // Written by an older version.
        let old: Slot = serde_json::from_str("[1,450,[false,true],[9,7],[1,2],[3,4]]").unwrap();
        assert_eq!((old.peak, old.peak_of_five), ([3, 4], [0, 0]));
        let new = Slot { peak_of_five: [5, 6], ..old };
        let read: Slot = serde_json::from_str(&serde_json::to_string(&new).unwrap()).unwrap();
        assert_eq!((read.peak, read.peak_of_five), ([3, 4], [5, 6]));
    }
}
