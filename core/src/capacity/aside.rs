//! Decisions whose time may be far from all others', as that of a wrong clock is: hours with few decisions are set aside as they come, and
//! counted once it is known that they belong to the rest.

use std::collections::BTreeMap;

use super::numbers::{DAY, HOUR};
use crate::decision::time::Nanos;

/// An hour with more is no accident.
const FEW: usize = 1000;
/// So many bytes are kept; then the fullest hour is counted.
const BYTES: usize = 16 << 20;
/// So much of all decisions, at most, may lie far before the rest, and as much after.
const PART: f64 = 0.02;
/// Far is a day, or twice the longest time without a decision among the rest.
const FAR: i64 = DAY / HOUR;

/// Records of hours of which none was counted yet.
#[derive(Default)]
pub struct Aside {
    hours: BTreeMap<i64, Vec<String>>,
    bytes: usize,
}

impl Aside {
    /// Sets a record aside; returns those of an hour that have to be counted now.
    pub fn add(&mut self, hour: i64, record: &str) -> Vec<String> {
        let of = self.hours.entry(hour).or_default();
        of.push(record.to_owned());
        self.bytes += record.len();
        if of.len() > FEW {
            return self.take(hour);
        }
        if self.bytes <= BYTES {
            return Vec::new();
        }
        let fullest = self.hours.iter().max_by_key(|(_, records)| records.len());
        fullest.map(|(hour, _)| *hour).map_or_else(Vec::new, |hour| self.take(hour))
    }

    /// The records of an hour, which are no longer set aside.
    pub fn take(&mut self, hour: i64) -> Vec<String> {
        let records = self.hours.remove(&hour).unwrap_or_default();
        self.bytes -= records.iter().map(String::len).sum::<usize>();
        records
    }

    /// Which hours are set aside, and how many decisions each has.
    pub fn hours(&self) -> impl Iterator<Item = (i64, u64)> {
        self.hours.iter().map(|(hour, records)| (*hour, records.len() as u64))
    }
}

/// The hours that belong together, of hours and their decisions: a few that are far before or after all others are not among them.
pub fn together(hours: &BTreeMap<i64, u64>) -> std::ops::RangeInclusive<i64> {
    let numbers: Vec<i64> = hours.keys().copied().collect();
    let most = PART * hours.values().sum::<u64>() as f64;
    let from = few(hours.values(), most);
    let to = numbers.len().saturating_sub(few(hours.values().rev(), most) + 1);
    let Some(rest) = numbers.get(from..=to) else { return i64::MIN..=i64::MAX };
    let longest = rest.windows(2).map(|two| two[1] - two[0]).max().unwrap_or_default();
    let far = |two: &[i64]| two[1] - two[0] > FAR.max(2 * longest);
    let before = numbers[..=from].windows(2).rposition(far).map_or(0, |at| at + 1);
    let after = numbers[to..].windows(2).position(far).map_or(numbers.len() - 1, |at| to + at);
    numbers[before]..=numbers[after]
}

/// How many of these have no more than so many together.
fn few<'n>(hours: impl Iterator<Item = &'n u64>, most: f64) -> usize {
    let mut sum = 0;
    let few = hours.take_while(|n| {
        sum += **n;
        sum as f64 <= most
    });
    few.count()
}

/// What was left out: how many decisions, from when to when, and how far the nearest of them is from the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct LeftOut {
    pub decisions: u64,
    #[serde(serialize_with = "crate::decision::time::serialize")]
    pub from: Nanos,
    #[serde(serialize_with = "crate::decision::time::serialize")]
    pub to: Nanos,
    #[serde(skip)]
    pub apart: Nanos,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(hours: &[(i64, u64)]) -> std::ops::RangeInclusive<i64> {
        together(&hours.iter().copied().collect())
    }

    #[test]
    fn a_few_far_away_are_apart_and_no_others() {
        assert_eq!(of(&[(0, 1), (7200, 900), (7201, 900)]), 7200..=7201);
        assert_eq!(of(&[(0, 1), (4000, 900), (4001, 900), (7200, 2)]), 4000..=4001, "both ways");
        assert_eq!(of(&[(0, 900), (1, 900), (4, 1)]), 0..=4, "hours later is not far");
        assert_eq!(of(&[(0, 400), (7200, 900)]), 0..=7200, "many are no accident");
        assert_eq!(of(&[(0, 1), (168, 900), (336, 900), (504, 1)]), 0..=504, "once a week");
        assert_eq!(of(&[(0, 1)]), 0..=0);
        assert_eq!(of(&[(0, 1), (7200, 1)]), 0..=7200);
        let days: Vec<(i64, u64)> = (0..60).map(|day| (day * 24, 1)).collect();
        assert_eq!(of(&days), 0..=59 * 24);
    }

    #[test]
    fn what_is_set_aside_is_bounded() {
        let mut aside = Aside::default();
        let record = "x".repeat(BYTES / 100);
        let counted: usize = (0..1000).map(|n| aside.add(n % 90, &record).len()).sum();
        assert!(aside.bytes <= BYTES && counted >= 900, "{counted}");
        let left: u64 = aside.hours().map(|(_, n)| n).sum();
        assert_eq!(counted as u64 + left, 1000);
        let mut aside = Aside::default();
        assert!((0..FEW).all(|_| aside.add(7, "x").is_empty()));
        assert_eq!(aside.add(7, "x").len(), FEW + 1);
        assert_eq!((aside.bytes, aside.hours().count()), (0, 0));
    }
}
