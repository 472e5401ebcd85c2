//! Days: which of them are known, and what each had, of all decisions and of a service's.

use std::collections::BTreeMap;

use serde::Serialize;

use super::count::{Hour, Load};
use super::numbers::{DAY, HOUR, weekday};
use crate::decision::time::{self, Nanos};

/// A day, in UTC.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Day {
    pub day: String,
    #[serde(skip)]
    pub number: i64,
    pub decisions: f64,
    /// All of it is known: it counts for the forecast. A day without a decision is not, unless most such days of the week are without.
    pub whole: bool,
    /// From Prometheus: the docket does not reach so far back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub from_prometheus: bool,
}

/// The days of a review, and those before that Prometheus knows.
pub fn days(whole: &Load, from: Nanos, to: Nanos, history: &BTreeMap<i64, f64>) -> Vec<Day> {
    let mut sums: BTreeMap<i64, f64> = BTreeMap::new();
    for (hour, of) in &whole.hours {
        *sums.entry(hour.div_euclid(DAY / HOUR)).or_default() += of.decisions as f64;
    }
    let (first, last) = (from.div_euclid(DAY), to.div_euclid(DAY));
    // A first day that begins late, and a last one that ends early, are not whole.
    let whole = |day: i64| {
        (day > first || from - first * DAY < HOUR) && (day < last || (last + 1) * DAY - to < HOUR)
    };
    let named = |day: i64| time::format(day * DAY)[..10].to_owned();
    let mut days: Vec<Day> = (first..=last)
        .map(|day| Day {
            day: named(day),
            number: day,
            decisions: sums.get(&day).copied().unwrap_or_default(),
            whole: whole(day),
            from_prometheus: false,
        })
        .collect();
    for empty in gaps(&days) {
        days[empty].whole = false;
    }
    // Prometheus knows whole days that the docket does not.
    for (number, decisions) in history.range(..last) {
        match days.iter_mut().find(|day| day.number == *number) {
            Some(day) if day.whole => {}
            Some(day) => {
                *day =
                    Day { decisions: *decisions, whole: true, from_prometheus: true, ..day.clone() }
            }
            None => days.push(Day {
                day: named(*number),
                number: *number,
                decisions: *decisions,
                whole: true,
                from_prometheus: true,
            }),
        }
    }
    days.sort_by_key(|day| day.number);
    days
}

/// Days without any decision, where that is not the rule for the day of the week: nobody knows what they had.
fn gaps(days: &[Day]) -> Vec<usize> {
    let mut of: [(usize, usize); 7] = [(0, 0); 7];
    for day in days {
        let (all, empty) = &mut of[weekday(day.number)];
        *all += 1;
        *empty += usize::from(day.decisions == 0.0);
    }
    let gap = |day: &Day| {
        let (all, empty) = of[weekday(day.number)];
        day.decisions == 0.0 && 2 * empty <= all
    };
    days.iter().enumerate().filter(|(_, day)| gap(day)).map(|(at, _)| at).collect()
}

/// The whole days, and what each had of all decisions.
pub fn known(days: &[Day]) -> Vec<(i64, f64)> {
    days.iter().filter(|d| d.whole).map(|d| (d.number, d.decisions)).collect()
}

/// The whole days, and what each had of a service's decisions, from its first on; what Prometheus knows is of all.
pub fn of_service(days: &[Day], hours: &BTreeMap<i64, Hour>) -> Vec<(i64, f64)> {
    let mut sums = BTreeMap::<i64, f64>::new();
    for (hour, of) in hours {
        *sums.entry(hour.div_euclid(DAY / HOUR)).or_default() += of.decisions as f64;
    }
    let first = sums.keys().next().copied().unwrap_or_default();
    days.iter()
        .filter(|d| d.whole && !d.from_prometheus && d.number >= first)
        .map(|d| (d.number, sums.get(&d.number).copied().unwrap_or_default()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(decisions: &[f64]) -> Vec<Day> {
        let day = |(number, decisions): (usize, &f64)| Day {
            day: String::new(),
            number: number as i64,
            decisions: *decisions,
            whole: true,
            from_prometheus: false,
        };
        decisions.iter().enumerate().map(day).collect()
    }

    #[test]
    fn a_day_without_decisions_is_unknown_unless_it_is_the_rule() {
        let week = [9.0, 9.0, 9.0, 9.0, 9.0, 0.0, 0.0];
        let mut days = [week; 3].concat();
        assert_eq!(gaps(&made(&days)), Vec::<usize>::new());
        days[8] = 0.0;
        days[9] = 0.0;
        assert_eq!(gaps(&made(&days)), [8, 9]);
    }
}
