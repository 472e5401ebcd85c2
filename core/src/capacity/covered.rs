//! Which seconds a review covers, so that a rate is divided by what was really seen: the first and the last minute and hour are cut as a rule.

use super::numbers::{HOUR, SECOND};
use crate::decision::time::Nanos;

/// Whole seconds, from that of the first decision to that of the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Covered {
    first: i64,
    /// The one after the last.
    end: i64,
}

const SECONDS: i64 = HOUR / SECOND;

impl Covered {
    pub fn new(first: Nanos, last: Nanos) -> Covered {
        Covered { first: first.div_euclid(SECOND), end: last.div_euclid(SECOND) + 1 }
    }

    pub fn begin(&self) -> Nanos {
        self.first * SECOND
    }

    pub fn seconds(&self) -> i64 {
        (self.end - self.first).max(1)
    }

    /// Which seconds of an hour are covered, from its begin.
    fn of(&self, hour: i64) -> std::ops::Range<i64> {
        let within = |second: i64| (second - hour * SECONDS).clamp(0, SECONDS);
        within(self.first)..within(self.end)
    }

    pub fn within(&self, hour: i64) -> i64 {
        let of = self.of(hour);
        (of.end - of.start).max(0)
    }

    /// An hour; one at the begin or end, of which less than `least` seconds are covered, together with its neighbour, and that with the other end if
    /// it is its neighbour, too. So the mean of all is never above that of the busiest.
    pub fn stretch(&self, hour: i64, least: i64) -> std::ops::RangeInclusive<i64> {
        let (first, last) = (self.first.div_euclid(SECONDS), (self.end - 1).div_euclid(SECONDS));
        let short = |hour: i64| first < last && self.within(hour) < least;
        let met = short(first) && short(last) && first + 1 >= last - 1;
        if hour == first && short(first) {
            return first..=if met { last } else { first + 1 };
        }
        if hour == last && short(last) {
            return (if met { first } else { last - 1 })..=last;
        }
        hour..=hour
    }

    pub fn of_all(&self, hours: std::ops::RangeInclusive<i64>) -> i64 {
        hours.map(|hour| self.within(hour)).sum()
    }

    /// The minutes of an hour, as seconds from its begin; one that is cut is joined to its neighbour, so that none is shorter than a minute
    /// unless all of the hour is. Together they are all that is covered of it: the busiest is never below the mean.
    pub fn minutes(&self, hour: i64) -> Vec<std::ops::Range<usize>> {
        let of = self.of(hour);
        if of.is_empty() {
            return Vec::new();
        }
        let mut cuts = vec![of.start];
        cuts.extend((0..SECONDS).step_by(60).filter(|at| *at > of.start && *at < of.end));
        cuts.push(of.end);
        if of.start % 60 != 0 && cuts.len() > 2 {
            cuts.remove(1);
        }
        if of.end % 60 != 0 && cuts.len() > 2 {
            cuts.remove(cuts.len() - 2);
        }
        cuts.windows(2).map(|cut| cut[0] as usize..cut[1] as usize).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(first: i64, last: i64) -> Covered {
        Covered::new(first * SECOND + 5, last * SECOND + 7)
    }

    #[test]
    fn what_is_cut_is_joined_to_its_neighbour() {
        let minutes = |first, last, hour| covered(first, last).minutes(hour);
        assert_eq!(minutes(0, 3599, 0).len(), 60);
        assert_eq!(minutes(0, 179, 0), [0..60, 60..120, 120..180]);
        assert_eq!(minutes(30, 179, 0), [30..120, 120..180]);
        assert_eq!(minutes(30, 190, 0), [30..120, 120..191]);
        assert_eq!(
            minutes(30, 70, 0),
            std::iter::once(30..71).collect::<Vec<_>>(),
            "what is cut at both ends"
        );
        assert_eq!(minutes(30, 130, 0), std::iter::once(30..131).collect::<Vec<_>>());
        assert_eq!(minutes(3590, 3700, 1), std::iter::once(0..101).collect::<Vec<_>>());
        assert!(minutes(3590, 3700, 2).is_empty());
    }

    #[test]
    fn hours_at_the_edges_go_with_their_neighbours() {
        let of = covered(3590, 7210);
        assert_eq!((of.seconds(), of.within(0), of.within(1), of.within(2)), (3621, 10, 3600, 11));
        assert_eq!([0, 1, 2].map(|hour| of.stretch(hour, 60)), [0..=2, 1..=1, 0..=2]);
        let long = covered(3590, 10_810);
        assert_eq!([0, 1, 2, 3].map(|hour| long.stretch(hour, 60)), [0..=1, 1..=1, 2..=2, 2..=3]);
        assert_eq!(long.of_all(long.stretch(0, 60)), 3610);
        let alone = covered(10, 20);
        assert_eq!((alone.stretch(0, 60), alone.seconds()), (0..=0, 11));
    }
}
