//! A line through days that single odd days do not move, with levels of the days of the week.

use super::numbers::weekday;

/// The standard normal's 90th percentile: 80 % lie between it and its negative.
const Z: f64 = 1.2816;

/// A trend, and levels of the days of the week.
pub(super) struct Fit {
    pub(super) level: f64,
    pub(super) slope: f64,
    pub(super) weekdays: [f64; 7],
    pub(super) spread: f64,
    pub(super) middle: f64,
    spread_of_days: f64,
    count: f64,
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

impl Fit {
    /// Through days: their numbers since the epoch and what they had. With or without levels of the days of the week.
    pub(super) fn new(days: &[(i64, f64)], weekly: bool) -> Fit {
        let mut weekdays = [1.0; 7];
        if weekly {
            // Each day as a part of the week around it, so that growth is no part of it.
            for (of, level) in weekdays.iter_mut().enumerate() {
                let parts = days
                    .windows(7)
                    .filter(|week| weekday(week[3].0) == of && week[6].0 - week[0].0 == 6)
                    .filter_map(|week| {
                        let mean = week.iter().map(|(_, n)| n).sum::<f64>() / 7.0;
                        (mean > 0.0).then_some(week[3].1 / mean)
                    });
                let parts: Vec<f64> = parts.collect();
                if !parts.is_empty() {
                    *level = median(parts).max(0.01);
                }
            }
        }
        let flat: Vec<(f64, f64)> =
            days.iter().map(|(day, n)| (*day as f64, n / weekdays[weekday(*day)])).collect();
        // Theil and Sen: the median of all slopes.
        let mut slopes = Vec::with_capacity(flat.len() * flat.len() / 2);
        for (i, (x1, y1)) in flat.iter().enumerate() {
            slopes.extend(flat[i + 1..].iter().map(|(x2, y2)| (y2 - y1) / (x2 - x1)));
        }
        let slope = median(slopes);
        let level = median(flat.iter().map(|(x, y)| y - slope * x).collect());
        let spread =
            1.4826 * median(flat.iter().map(|(x, y)| (y - level - slope * x).abs()).collect());
        let count = flat.len() as f64;
        let middle = flat.iter().map(|(x, _)| x).sum::<f64>() / count;
        let spread_of_days = flat.iter().map(|(x, _)| (x - middle).powi(2)).sum();
        Fit { level, slope, weekdays, spread, middle, spread_of_days, count }
    }

    pub(super) fn at(&self, day: i64) -> f64 {
        (self.level + self.slope * day as f64).max(0.0) * self.weekdays[weekday(day)]
    }

    /// How far off a day may be: the prediction interval of a line.
    pub(super) fn margin(&self, day: i64) -> f64 {
        let off = (day as f64 - self.middle).powi(2) / self.spread_of_days.max(1.0);
        Z * self.spread * (1.0 + 1.0 / self.count + off).sqrt() * self.weekdays[weekday(day)]
    }
}
