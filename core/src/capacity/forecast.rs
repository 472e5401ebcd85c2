//! Growth: what days had, a line through them that single odd days do not move, and how well such a line would
//! have foretold the days that are known.

use serde::Serialize;

use super::fit::{Fit, median};
use super::level;

/// A forecast needs so many whole days; from as many on, days of the week have levels of their own.
pub const FEWEST: usize = 14;
/// And so many decisions in them.
pub const FEWEST_DECISIONS: f64 = 100.0;
/// A line that is only tried needs so many.
const LINE: usize = 5;

/// What is expected some days after the last.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    pub days_ahead: u64,
    /// Decisions a day, then; 80 % of days are expected between `low` and `high`.
    pub per_day: f64,
    pub low: f64,
    pub high: f64,
    /// How much more (or less) a day has after a week, as a part of what a day has now; -1 where there is nothing left.
    pub growth_per_week: f64,
    /// Mean absolute error, as a part, of what each day of the last third would have been foretold a week before (a quarter of the days
    /// known, if that is less). Absent where too few days are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
    pub weekly: bool,
}

/// How far off each day of the last third would have been, foretold a week before (a quarter of the days, if that is less):
/// as parts of what it had.
fn errors(days: &[(i64, f64)], weekly: bool) -> Vec<f64> {
    let horizon = (days.len() / 4).clamp(1, 7);
    let tried = (days.len() - days.len() / 3..days.len()).filter_map(|at| {
        let known = &days[..at + 1 - horizon];
        (known.len() >= LINE && days[at].1 > 0.0)
            .then(|| (Fit::new(known, weekly).at(days[at].0) / days[at].1 - 1.0).abs())
    });
    tried.collect()
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The better of the two fits, by what they would have foretold; the error of that, and whether days of the week have levels.
fn fit(days: &[(i64, f64)]) -> (Fit, Option<f64>, bool) {
    let plain = errors(days, false);
    let with_weeks = if days.len() >= FEWEST { errors(days, true) } else { Vec::new() };
    let weekly = mean(&with_weeks).zip(mean(&plain)).is_some_and(|(with, without)| with < without);
    let errors = if weekly { with_weeks } else { plain };
    let mut fit = Fit::new(days, weekly);
    // A line fits the days that it was made of better than those to come.
    let level = (fit.level + fit.slope * fit.middle).max(0.0);
    fit.spread = fit.spread.max(1.4826 * median(errors.clone()) * level);
    (fit, mean(&errors), weekly)
}

/// How far ahead can be looked: as far as what is known goes back.
fn within(days: &[(i64, f64)], ahead: u64) -> u64 {
    let known = days.first().zip(days.last()).map_or(0, |(first, last)| last.0 - first.0 + 1);
    ahead.min(u64::try_from(known).unwrap_or_default())
}

/// How much more a day has after a week; none can have less than nothing.
fn growth_per_week(fit: &Fit, last: i64) -> f64 {
    let now = fit.level + fit.slope * last as f64;
    if now > 0.0 {
        (7.0 * fit.slope / now).max(-1.0)
    } else if fit.slope < 0.0 {
        -1.0
    } else {
        0.0
    }
}

/// Foretells the days after the last, the last of which is `ahead` days later, or fewer: for each, low, expected and high. By the days
/// since the load last changed at once.
pub fn line(days: &[(i64, f64)], ahead: u64) -> Vec<(i64, [f64; 3])> {
    let days = level::present(days);
    let decisions: f64 = days.iter().map(|(_, n)| n).sum();
    let enough = days.len() >= FEWEST && decisions >= FEWEST_DECISIONS;
    let (Some((last, _)), true) = (days.last(), enough) else { return Vec::new() };
    let (fit, _, _) = fit(days);
    let ahead = i64::try_from(within(days, ahead)).unwrap_or_default();
    (last + 1..=last + ahead)
        .map(|day| {
            (
                day,
                [
                    (fit.at(day) - fit.margin(day)).max(0.0),
                    fit.at(day),
                    fit.at(day) + fit.margin(day),
                ],
            )
        })
        .collect()
}

/// What whole days foretell, if there are enough of them.
pub fn forecast(days: &[(i64, f64)], ahead: u64) -> Option<Forecast> {
    let days = level::present(days);
    let line = line(days, ahead);
    // A week's mean, so that it does not matter on which day of the week it ends.
    let end = &line[line.len().saturating_sub(7)..];
    let of = |which: usize| mean(&end.iter().map(|(_, day)| day[which]).collect::<Vec<_>>());
    let (low, per_day, high) = (of(0)?, of(1)?, of(2)?);
    let (fit, error, weekly) = fit(days);
    let growth_per_week = growth_per_week(&fit, days.last()?.0);
    let days_ahead = within(days, ahead);
    Some(Forecast { days_ahead, per_day, low, high, growth_per_week, error, weekly })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Days from a Monday on.
    fn days(count: i64, of: impl Fn(i64) -> f64) -> Vec<(i64, f64)> {
        (0..count).map(|day| (20_000 + day, of(day))).collect()
    }

    #[test]
    fn growth_is_found_through_weekends_and_odd_days() {
        let with = |day: i64| (1000.0 + 10.0 * day as f64) * if day % 7 >= 5 { 0.4 } else { 1.0 };
        let mut days = days(35, with);
        days[17].1 *= 9.0;
        let seen = forecast(&days, 28).unwrap();
        let expected = (56..63).map(with).sum::<f64>() / 7.0;
        assert!((seen.per_day / expected - 1.0).abs() < 0.02, "{seen:?}, {expected}");
        assert!(seen.error.unwrap() < 0.06 && seen.weekly, "{seen:?}");
        assert!(seen.low <= seen.per_day && seen.per_day <= seen.high);
        assert!((seen.growth_per_week - 70.0 / 1340.0).abs() < 0.01, "{seen:?}");
    }

    #[test]
    fn noise_widens_the_band_and_shows_as_error() {
        let noise = |day: i64| 1000.0 + 300.0 * ((day * 7919 % 13) as f64 / 6.0 - 1.0);
        let seen = forecast(&days(20, noise), 14).unwrap();
        assert!(seen.error.unwrap() > 0.05 && seen.high - seen.low > 200.0, "{seen:?}");
    }

    #[test]
    fn nothing_shrinks_by_more_than_all_of_it() {
        let shrinking = |count: i64| days(count, |day| (1000.0 - 50.0 * day as f64).max(0.0));
        for count in 14..24 {
            let seen = forecast(&shrinking(count), 14).unwrap();
            assert!((-1.0..0.0).contains(&seen.growth_per_week), "{seen:?}");
            assert!(seen.low >= 0.0 && seen.per_day < 300.0, "{seen:?}");
        }
        assert_eq!(forecast(&shrinking(20), 14).unwrap().growth_per_week, -1.0);
    }

    #[test]
    fn few_days_foretell_nothing() {
        assert_eq!(forecast(&days(13, |_| 10.0), 30), None);
        assert_eq!(forecast(&[], 30), None);
        assert_eq!(forecast(&days(30, |_| 2.0), 30), None, "60 decisions");
        let flat = forecast(&days(14, |_| 10.0), 30).unwrap();
        assert_eq!((flat.per_day, flat.growth_per_week), (10.0, 0.0));
        assert_eq!(flat.days_ahead, 14, "no further than what is known goes back");
    }
}
