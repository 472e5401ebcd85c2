//! What was counted lately: the last half hour by bucket, and the buckets that are still open.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::BUCKET;
use super::SECOND;
use super::baseline::{Counts, SIGNALS};

/// Spans that are looked at, in buckets: 6 s, 10 s, 20 s, 1 min, 5 min, 30 min.
pub const SPANS: [usize; 6] = [3, 5, 10, 30, 150, 900];
pub const FIVE_MINUTES: usize = SPANS[4];
pub const LONGEST: usize = SPANS[SPANS.len() - 1];
/// What is newer is not learned yet: 5 min.
pub const DELAY: i64 = 300 * SECOND / BUCKET;

/// Closed buckets, the latest last, as sums since the beginning, so that any span is one subtraction.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Kept", into = "Kept")]
pub struct Window {
    /// The buckets that are not closed.
    open: VecDeque<Counts>,
    sums: VecDeque<Sum>,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Sum {
    pub all: u64,
    pub good: u64,
    pub bad: [u64; SIGNALS],
}

impl Sum {
    fn plus(mut self, counts: Counts) -> Sum {
        self.all += u64::from(counts.all);
        self.good += u64::from(counts.good());
        (0..SIGNALS).for_each(|i| self.bad[i] += u64::from(counts.bad[i]));
        self
    }
}

impl Window {
    /// Of the bucket that lies so far after the first open one.
    pub fn count(&mut self, index: usize, signal: Option<usize>) {
        while self.open.len() <= index {
            self.open.push_back(Counts::default());
        }
        let counts = &mut self.open[index];
        counts.all += 1;
        if let Some(signal) = signal {
            counts.bad[signal] += 1;
        }
    }

    /// The next bucket is complete.
    pub fn close(&mut self) -> Counts {
        let counts = self.open.pop_front().unwrap_or_default();
        self.push(counts);
        counts
    }

    fn push(&mut self, counts: Counts) {
        if self.sums.is_empty() {
            // What was before the first bucket: nothing.
            self.sums.push_back(Sum::default());
        }
        let last = self.sums.back().copied().unwrap_or_default();
        if self.sums.len() > LONGEST {
            self.sums.pop_front();
        }
        self.sums.push_back(last.plus(counts));
    }

    /// So many buckets passed that nobody watched.
    pub fn skip(&mut self, buckets: usize) {
        self.open.drain(..buckets.min(self.open.len()));
        if buckets > LONGEST {
            self.sums.clear();
        } else {
            (0..buckets).for_each(|_| self.push(Counts::default()));
        }
    }

    /// Closed buckets that are known, and one.
    pub fn known(&self) -> usize {
        self.sums.len()
    }

    /// The last so many buckets.
    pub fn span(&self, buckets: usize) -> Sum {
        let last = self.sums.back().copied().unwrap_or_default();
        let first = self.sums.front().copied().unwrap_or_default();
        let before = self
            .sums
            .len()
            .checked_sub(1 + buckets)
            .and_then(|i| self.sums.get(i))
            .copied()
            .unwrap_or(first);
        let mut sum =
            Sum { all: last.all - before.all, good: last.good - before.good, bad: last.bad };
        (0..SIGNALS).for_each(|i| sum.bad[i] -= before.bad[i]);
        sum
    }

    /// The bucket that lies so far back.
    pub fn one(&self, back: usize) -> Counts {
        let at = |back: usize| {
            self.sums.len().checked_sub(1 + back).and_then(|i| self.sums.get(i)).copied()
        };
        let (Some(this), Some(before)) = (at(back), at(back + 1)) else {
            return Counts::default();
        };
        let mut counts = Counts { all: (this.all - before.all) as u32, bad: [0; SIGNALS] };
        (0..SIGNALS).for_each(|i| counts.bad[i] = (this.bad[i] - before.bad[i]) as u32);
        counts
    }

    /// So many of each signal in so many buckets, the last of which lies so far back.
    pub fn until(&self, back: usize, buckets: usize) -> [u32; SIGNALS] {
        let Some(last) = self.sums.len().checked_sub(1 + back) else { return [0; SIGNALS] };
        let (last, first) = (self.sums[last], self.sums[last.saturating_sub(buckets)]);
        std::array::from_fn(|i| (last.bad[i] - first.bad[i]) as u32)
    }
}

/// What is written of it: the closed buckets, without those that are open; who reads it reads those again.
#[derive(Serialize, Deserialize)]
struct Kept(Vec<Counts>);

impl From<Window> for Kept {
    fn from(window: Window) -> Kept {
        let known = window.sums.len().saturating_sub(1);
        Kept((0..known).rev().map(|back| window.one(back)).collect())
    }
}

impl From<Kept> for Window {
    fn from(kept: Kept) -> Window {
        let mut window = Window::default();
        kept.0.into_iter().rev().take(LONGEST).rev().for_each(|counts| window.push(counts));
        window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_sums_of_buckets_and_survive_being_written() {
        let mut window = Window::default();
        for bucket in 0..2000_u32 {
            (0..bucket % 7).for_each(|n| window.count(0, (n % 3 == 0).then_some(0)));
            window.close();
        }
        window.count(3, None);
        let by_hand: u32 = (1970..2000).map(|b| b % 7).sum();
        assert_eq!(window.span(30).all, u64::from(by_hand));
        assert_eq!(window.span(5000).all, window.span(LONGEST).all, "no more than is known");
        let by_hand: u32 = (1850..1990).map(|b| (b % 7_u32).div_ceil(3)).sum();
        assert_eq!(window.until(10, 140), [by_hand, 0]);
        assert_eq!(window.until(10, 5000), window.until(10, LONGEST - 10), "no more than is known");
        assert_eq!(window.until(5000, 5), [0, 0]);
        let read: Window = serde_json::from_str(&serde_json::to_string(&window).unwrap()).unwrap();
        for span in SPANS {
            assert_eq!(read.span(span).all, window.span(span).all);
            assert_eq!(read.span(span).bad, window.span(span).bad);
        }
        assert!(read.open.is_empty());
        window.skip(10);
        assert_eq!((window.span(10).all, window.one(10).all), (0, 1999 % 7));
        window.skip(1000);
        assert_eq!((window.span(LONGEST).all, window.known()), (0, 0));
    }
}
