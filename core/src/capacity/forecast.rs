//! Growth: what days had, a trend through them that single odd days do not move, and how well such a trend would
//! have foretold the days that are known.

use serde::Serialize;

use super::fit::{Fit, Trend, median};
use super::level;

/// A forecast needs so many whole days; from as many on, days of the week have levels of their own.
pub const FEWEST: usize = 14;
/// And so many decisions in them.
pub const FEWEST_DECISIONS: f64 = 100.0;
/// A fit that is only tried needs so many.
const TRIED: usize = 5;
/// Growth is exponential if that would have foretold the known days with so much less error than a line, as a part of that error,
const CLEARLY: f64 = 0.85;
/// .. and by so much less of what the days had; otherwise it is a line.
const LESS: f64 = 0.005;

/// What is expected some days after the last.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    pub days_ahead: u64,
    /// Decisions a day, then; 80 % of days are expected between `low` and `high`.
    pub per_day: f64,
    pub low: f64,
    pub high: f64,
    pub trend: Trend,
    /// How much more (or less) a day has after a week, as a part of what a day has now; -1 where there is nothing left. Along an exponential
    /// of what it has then.
    pub growth_per_week: f64,
    /// Mean absolute error, as a part, of what each day of the last third would have been foretold a week before (a quarter of the days
    /// known, if that is less). Absent where too few days are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
    pub weekly: bool,
}

/// How far off each day of the last third would have been, foretold a week before (a quarter of the days, if that is less):
/// as parts of what it had.
fn errors(days: &[(i64, f64)], weekly: bool, trend: Trend) -> Vec<f64> {
    let horizon = (days.len() / 4).clamp(1, 7);
    let tried = (days.len() - days.len() / 3..days.len()).filter_map(|at| {
        let known = &days[..at + 1 - horizon];
        (known.len() >= TRIED && days[at].1 > 0.0)
            .then(|| (Fit::new(known, weekly, trend).at(days[at].0) / days[at].1 - 1.0).abs())
    });
    tried.collect()
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// How days are foretold, and how well that would have been.
struct Chosen {
    fit: Fit,
    trend: Trend,
    error: Option<f64>,
    weekly: bool,
}

/// The fit that would have foretold best.
fn choose(days: &[(i64, f64)]) -> Chosen {
    let plain = errors(days, false, Trend::Linear);
    let with_weeks =
        if days.len() >= FEWEST { errors(days, true, Trend::Linear) } else { Vec::new() };
    let weekly = mean(&with_weeks).zip(mean(&plain)).is_some_and(|(with, without)| with < without);
    let line = if weekly { with_weeks } else { plain };
    // What has a day with nothing does not grow by a part of it.
    let grows = days.iter().all(|(_, n)| *n > 0.0);
    let curve = if grows { errors(days, weekly, Trend::Exponential) } else { Vec::new() };
    let clearly = |curve: f64, line: f64| curve < CLEARLY * line && line - curve > LESS;
    let exponential =
        mean(&curve).zip(mean(&line)).is_some_and(|(curve, line)| clearly(curve, line));
    let (trend, errors) =
        if exponential { (Trend::Exponential, curve) } else { (Trend::Linear, line) };
    let mut fit = Fit::new(days, weekly, trend);
    let error = mean(&errors);
    fit.widen(1.4826 * median(errors));
    Chosen { fit, trend, error, weekly }
}

/// How far ahead can be looked: as far as what is known goes back.
fn within(days: &[(i64, f64)], ahead: u64) -> u64 {
    let known = days.first().zip(days.last()).map_or(0, |(first, last)| last.0 - first.0 + 1);
    ahead.min(u64::try_from(known).unwrap_or_default())
}

/// Foretells the days after the last, the last of which is `ahead` days later, or fewer: for each, low, expected and high. By the days
/// since the load last changed at once.
pub fn ahead(days: &[(i64, f64)], ahead: u64) -> Vec<(i64, [f64; 3])> {
    let days = level::present(days);
    let decisions: f64 = days.iter().map(|(_, n)| n).sum();
    let enough = days.len() >= FEWEST && decisions >= FEWEST_DECISIONS;
    let (Some((last, _)), true) = (days.last(), enough) else { return Vec::new() };
    let fit = choose(days).fit;
    let ahead = i64::try_from(within(days, ahead)).unwrap_or_default();
    (last + 1..=last + ahead).map(|day| (day, fit.range(day))).collect()
}

/// What whole days foretell, if there are enough of them.
pub fn forecast(days: &[(i64, f64)], ahead: u64) -> Option<Forecast> {
    let days = level::present(days);
    let foretold = self::ahead(days, ahead);
    // A week's mean, so that it does not matter on which day of the week it ends.
    let end = &foretold[foretold.len().saturating_sub(7)..];
    let of = |which: usize| mean(&end.iter().map(|(_, day)| day[which]).collect::<Vec<_>>());
    let (low, per_day, high) = (of(0)?, of(1)?, of(2)?);
    let Chosen { fit, trend, error, weekly } = choose(days);
    let growth_per_week = fit.growth_per_week(days.last()?.0);
    let days_ahead = within(days, ahead);
    Some(Forecast { days_ahead, per_day, low, high, trend, growth_per_week, error, weekly })
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

    /// A noise that repeats after long.
    fn noisy(part: f64) -> impl Fn(i64) -> f64 {
        move |day| 1.0 + part * ((day * 7919 % 31) as f64 / 15.0 - 1.0)
    }

    fn of_week(day: i64) -> f64 {
        if day % 7 >= 5 { 0.4 } else { 1.0 }
    }

    #[test]
    fn growth_by_a_part_each_week_is_exponential_and_foretold_so() {
        let with = |day: i64| 1000.0 * 1.1f64.powf(day as f64 / 7.0) * of_week(day);
        for (count, noise) in [(35, 0.0), (42, 0.01), (60, 0.03)] {
            let off = noisy(noise);
            let seen = forecast(&days(count, |day| with(day) * off(day)), 30).unwrap();
            assert_eq!(seen.trend, Trend::Exponential, "{count}: {seen:?}");
            assert!((seen.growth_per_week - 0.1).abs() < 0.02, "{count}: {seen:?}");
            let expected = (count + 23..count + 30).map(with).sum::<f64>() / 7.0;
            assert!((seen.per_day / expected - 1.0).abs() < 0.06, "{count}: {seen:?}, {expected}");
            assert!(seen.low <= expected && expected <= seen.high, "{count}: {seen:?}");
            assert!(seen.error.unwrap() < 0.06, "{seen:?}");
        }
    }

    #[test]
    fn what_may_be_a_line_is_one() {
        type Load = fn(i64) -> f64;
        let loads: [(&str, Load); 5] = [
            ("flat", |_| 1000.0),
            ("linear", |day| 1000.0 * (1.0 + 0.1 * day as f64 / 7.0)),
            ("steep", |day| 1000.0 * (1.0 + 0.3 * day as f64 / 7.0)),
            ("shrinking", |day| 1000.0 - 12.0 * day as f64),
            (
                "closed at weekends",
                |day| if day % 7 >= 5 { 0.0 } else { 1000.0 + 10.0 * day as f64 },
            ),
        ];
        for (name, of) in loads {
            for (count, noise) in [(21, 0.0), (28, 0.0), (28, 0.05), (42, 0.1), (60, 0.2)] {
                let off = noisy(noise);
                let seen = forecast(&days(count, |day| of(day) * off(day) * of_week(day)), 30);
                assert_eq!(seen.unwrap().trend, Trend::Linear, "{name}, {count} days, {noise}");
            }
        }
        // Growth that drowns in noise is a line, too.
        let off = noisy(0.4);
        let lost = days(28, |day| 1000.0 * 1.1f64.powf(day as f64 / 7.0) * off(day));
        assert_eq!(forecast(&lost, 30).unwrap().trend, Trend::Linear);
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
