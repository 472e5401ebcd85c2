//! How much a number has to be of before it says anything.

use super::numbers::{DAY, HOUR, SECOND, count, human};
use super::{Review, forecast};
use crate::decision::time::Nanos;

/// Rates need a minute.
pub const RATE: i64 = 60;
/// What is busy, headroom and cost need so many decisions whose time is known..
pub const TIMED: u64 = 100;
/// .. over so many seconds.
pub const SPAN: i64 = HOUR / SECOND;
/// What OPA's time goes to needs so many decisions.
pub const TIMERS: u64 = 20;
/// A comparison of revisions needs so many decisions of each.
pub const COMPARED: u64 = 100;
/// Hours in each half are compared if so many decisions of each are timed.
pub const HALF: u64 = 50;

/// A quantile needs ten decisions beyond it.
pub const fn beyond(parts_in_a_hundred: u64) -> u64 {
    1000 / (100 - parts_in_a_hundred)
}

/// What goes somewhere in a day is told of a day, give or take an hour.
pub fn a_day(seconds: f64) -> bool {
    seconds >= ((DAY - HOUR) / SECOND) as f64
}

pub fn for_headroom(timed: u64, seconds: i64) -> bool {
    timed >= TIMED && seconds >= SPAN
}

/// What there is too little for, and what would be enough.
pub fn missing(review: &Review) -> Vec<String> {
    let mut missing = Vec::new();
    if review.seconds < RATE as f64 {
        missing.push("rates need a minute".into());
    }
    let timed = review.total.evaluation.as_ref().map_or(0, |e| e.decisions);
    if timed > 0 && !for_headroom(timed, review.seconds as i64) {
        missing.push(format!(
            "headroom and cost need {TIMED} decisions with their evaluation time, over an hour"
        ));
    }
    let quantiles = [("the median", 50), ("the 95th percentile", 95), ("the 99th percentile", 99)];
    for (name, parts) in quantiles.into_iter().filter(|(_, parts)| timed < beyond(*parts)) {
        if timed > 0 {
            missing.push(format!("{name} needs {}", count(beyond(parts))));
        }
    }
    if !missing.is_empty() && review.forecast.is_none() {
        missing.push(format!("a forecast needs {} whole days", forecast::FEWEST));
    }
    missing
}

/// A time that lasted, for people.
pub fn lasting(nanos: Nanos) -> String {
    let minutes = nanos / (60 * SECOND);
    match minutes {
        0..2 => format!("{} s", (nanos / SECOND).max(1)),
        2..120 => format!("{minutes} min"),
        120..2880 => format!("{} h", minutes / 60),
        _ => format!("{} days", human(minutes as f64 / 1440.0)),
    }
}
