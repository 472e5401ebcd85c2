//! A trend through days that single odd days do not move, with levels of the days of the week.

use serde::Serialize;

use super::numbers::weekday;

/// The standard normal's 90th percentile: 80 % lie between it and its negative.
const Z: f64 = 1.2816;

/// How it grows: by as much each week, or by the same part of what there is then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trend {
    Linear,
    Exponential,
}

impl Trend {
    /// What follows a straight line, of what a day has.
    fn straight(self, n: f64) -> f64 {
        match self {
            Trend::Linear => n,
            Trend::Exponential => n.ln(),
        }
    }
}

/// A trend, and levels of the days of the week. Level, slope and spread are of what follows a straight line.
pub(super) struct Fit {
    trend: Trend,
    level: f64,
    slope: f64,
    pub(super) weekdays: [f64; 7],
    pub(super) spread: f64,
    middle: f64,
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
    /// Through days: their numbers since the epoch and what they had, which is not nothing where growth is exponential. With or without
    /// levels of the days of the week.
    pub(super) fn new(days: &[(i64, f64)], weekly: bool, trend: Trend) -> Fit {
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
        let flat =
            |(day, n): &(i64, f64)| (*day as f64, trend.straight(n / weekdays[weekday(*day)]));
        let flat: Vec<(f64, f64)> = days.iter().map(flat).collect();
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
        Fit { trend, level, slope, weekdays, spread, middle, spread_of_days, count }
    }

    pub(super) fn at(&self, day: i64) -> f64 {
        self.off(day, 0.0)
    }

    /// Where 80 % of days are, and between that what is expected: the prediction interval of a line.
    pub(super) fn range(&self, day: i64) -> [f64; 3] {
        let off = (day as f64 - self.middle).powi(2) / self.spread_of_days.max(1.0);
        let margin = Z * self.spread * (1.0 + 1.0 / self.count + off).sqrt();
        [self.off(day, -margin), self.at(day), self.off(day, margin)]
    }

    fn off(&self, day: i64, margin: f64) -> f64 {
        let line = self.level + self.slope * day as f64;
        let of = match self.trend {
            Trend::Linear => (line.max(0.0) + margin).max(0.0),
            Trend::Exponential => (line + margin).exp(),
        };
        of * self.weekdays[weekday(day)]
    }

    /// A fit is better for the days that it was made of than for those to come: it may be off by this part, too.
    pub(super) fn widen(&mut self, part: f64) {
        let off = match self.trend {
            Trend::Linear => part * (self.level + self.slope * self.middle).max(0.0),
            Trend::Exponential => part,
        };
        self.spread = self.spread.max(off);
    }

    /// How much more a day has after a week, as a part of what the last has; none can have less than nothing.
    pub(super) fn growth_per_week(&self, last: i64) -> f64 {
        let now = self.level + self.slope * last as f64;
        match self.trend {
            Trend::Exponential => (7.0 * self.slope).exp() - 1.0,
            Trend::Linear if now > 0.0 => (7.0 * self.slope / now).max(-1.0),
            Trend::Linear if self.slope < 0.0 => -1.0,
            Trend::Linear => 0.0,
        }
    }
}
