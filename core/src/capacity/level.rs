//! The load changed at once, and stayed so: what was before says little of what comes.

use serde::Serialize;

use super::fit::{Fit, Trend, median};
use super::numbers::{DAY, weekday};
use crate::decision::time;

/// What is expected of a day comes from so many before, at most.
const BEFORE: usize = 28;
/// And of so many at least; from this on with the rhythm of a week.
const LEAST: usize = 7;
const RHYTHM: usize = 14;
/// A new level holds for so many days, or for as many as there are.
const AFTER: usize = 14;
/// That many of them, as a part, have to depart, the first among them.
const MOST: f64 = 0.8;
/// A day departs if it is off by so much of the level before, and of what was expected then,
const DEPARTS: f64 = 0.4;
/// .. and by so many times what days are off as a rule.
const SPREADS: f64 = 5.0;
/// Days of the week that have less than this of a day's mean tell nothing of the level.
const TELLS: f64 = 0.1;

/// One day or two may be odd days.
const LASTS: usize = 3;

/// From one day to the next, the load was another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Changed {
    pub day: String,
    #[serde(skip)]
    pub number: i64,
    /// Decisions a day that were expected from then on, and that there were.
    pub before: f64,
    pub after: f64,
    /// How many whole days are known since.
    pub days: usize,
}

/// The last change that has lasted, if there was any.
pub fn changed(days: &[(i64, f64)]) -> Option<Changed> {
    changes(days).pop().map(|(_, changed)| changed).filter(|changed| changed.days >= LASTS)
}

/// The days of the present level.
pub fn present(days: &[(i64, f64)]) -> &[(i64, f64)] {
    let lasting = changes(days).into_iter().rfind(|(_, changed)| changed.days >= LASTS);
    &days[lasting.map_or(0, |(at, _)| at)..]
}

fn changes(days: &[(i64, f64)]) -> Vec<(usize, Changed)> {
    let mut found: Vec<(usize, Changed)> = Vec::new();
    for at in LEAST..days.len() {
        let from = found.last().map_or(0, |(at, _)| *at).max(at.saturating_sub(BEFORE));
        if let Some(changed) = change(&days[from..at], &days[at..]) {
            found.push((at, changed));
        }
    }
    found
}

/// Whether the load is another from the first of the later days on.
fn change(before: &[(i64, f64)], later: &[(i64, f64)]) -> Option<Changed> {
    let after = &later[..later.len().min(AFTER)];
    // Where the rhythm of the week is not known, a whole week has to depart.
    if before.len() < LEAST || (before.len() < RHYTHM && after.len() < LEAST) {
        return None;
    }
    let fit = Fit::new(before, before.len() >= RHYTHM, Trend::Linear);
    let share = |day: i64| fit.weekdays[weekday(day)];
    let flat = |days: &[(i64, f64)]| -> Vec<f64> {
        let telling = days.iter().filter(|(day, _)| share(*day) >= TELLS);
        telling.map(|(day, n)| n / share(*day)).collect()
    };
    let level = median(flat(before));
    let (first, n) = *later.first()?;
    let expected = fit.at(first) / share(first).max(TELLS);
    let least = DEPARTS * level.max(expected);
    let least = least.max(SPREADS * fit.spread.max(level.max(1.0).sqrt()));
    let off = |day: i64, n: f64| (n - fit.at(day)) / share(day).max(TELLS);
    let up = off(first, n) > 0.0;
    let departs = |day: i64, n: f64| {
        let off = off(day, n);
        (off > 0.0) == up && off.abs() > least
    };
    let telling = after.iter().filter(|(day, _)| share(*day) >= TELLS);
    let departing: Vec<bool> = telling.map(|(day, n)| departs(*day, *n)).collect();
    let many = departing.iter().filter(|departs| **departs).count();
    if !departs(first, n) || (many as f64) < MOST * departing.len() as f64 {
        return None;
    }
    // What comes back to where it was, after days of another level, did not change.
    let new = median(flat(after));
    if (new - level).abs() <= DEPARTS * level {
        return None;
    }
    Some(Changed {
        day: time::format(first * DAY)[..10].to_owned(),
        number: first,
        before: level,
        after: new,
        days: later.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::forecast::{FEWEST, ahead, forecast};
    use super::*;

    /// Days from a Monday on, with less at weekends, and a noise that repeats after long.
    fn days(count: i64, of: impl Fn(i64) -> f64) -> Vec<(i64, f64)> {
        let made = |day: i64| {
            let noise = 1.0 + 0.1 * ((day * 7919 % 13) as f64 / 6.0 - 1.0);
            let weekend = if day % 7 >= 5 { 0.3 } else { 1.0 };
            (20_454 + day, of(day) * noise * weekend)
        };
        (0..count).map(made).collect()
    }

    #[test]
    fn a_level_that_stays_is_noticed_and_foretold_from() {
        for (before, after) in [(4300.0, 43_000.0), (43_000.0, 4300.0), (4300.0, 9000.0)] {
            let step = |at: i64| move |day: i64| if day < at { before } else { after };
            for known in [3, 7, 13] {
                let days = days(30, step(30 - known));
                let seen = changed(&days).unwrap();
                assert_eq!((seen.number, seen.days), (20_454 + 30 - known, known as usize));
                // The mean of a week: five days and two with less.
                assert!((seen.before / before / 0.8 - 1.0).abs() < 0.15, "{seen:?}");
                assert!((seen.after / after / 0.8 - 1.0).abs() < 0.25, "{seen:?}");
                assert_eq!(forecast(&days, 30), None, "{known} days of the new level");
                assert!(ahead(&days, 30).is_empty());
            }
            let days = days(34, step(20));
            assert_eq!(changed(&days).unwrap().days, FEWEST);
            let seen = forecast(&days, 30).unwrap();
            let week = after * 5.6 / 7.0;
            assert!((seen.per_day / week - 1.0).abs() < 0.3, "{seen:?}, {week}");
            assert_eq!(seen.days_ahead, FEWEST as u64, "as far as the new level goes back");
        }
    }

    #[test]
    fn what_passes_or_creeps_is_no_new_level() {
        type Load = fn(i64) -> f64;
        let whatever: [(&str, Load); 7] = [
            ("flat", |_| 4300.0),
            ("few", |_| 12.0),
            ("growing", |day| 1000.0 + 100.0 * day as f64),
            ("growing fast", |day| 1000.0 * 1.06f64.powi(day as i32)),
            ("shrinking to nothing", |day| (4300.0 - 130.0 * day as f64).max(0.0)),
            ("three odd days", |day| if (14..17).contains(&day) { 43_000.0 } else { 4300.0 }),
            ("a week away", |day| if (16..22).contains(&day) { 0.0 } else { 4300.0 }),
        ];
        for (name, of) in whatever {
            for count in 14..35 {
                // Where the odd days are the last, nobody knows.
                let odd = match name {
                    "three odd days" => (15..22).contains(&count),
                    "a week away" => (17..28).contains(&count),
                    _ => false,
                };
                if !odd {
                    assert_eq!(changed(&days(count, of)), None, "{name}, {count}");
                }
            }
        }
        let odd = days(28, |day| if day == 25 { 43_000.0 } else { 4300.0 });
        assert_eq!(present(&odd[..26]), &odd[..26], "one day is no level");
        assert_eq!((changed(&odd[..26]), changed(&odd)), (None, None));
    }
}
