//! When people change their clocks. What they schedule by the clock then comes an hour sooner or later in UTC.

use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;

use crate::decision::time::Nanos;

/// The last week learned the new hour by then: a quarter of an hour is usual once it was so on most of seven days.
const GRACE: i8 = 8;

/// Whether clocks were changed somewhere within the last days: on the second or last Sunday of March, the first of
/// April, the last of September, the first or last of October, the first of November; Europe, America, Australia,
/// New Zealand and Chile, with a day to spare for the time zone.
pub fn changed(at: Nanos) -> bool {
    let Ok(time) = Timestamp::from_nanosecond(i128::from(at)) else { return false };
    let today = TimeZone::UTC.to_datetime(time).date();
    (-1..=GRACE).any(|ago| {
        let day = today.saturating_sub(jiff::Span::new().days(ago));
        let (nth, last) = ((day.day() - 1) / 7 + 1, day.day() + 7 > day.days_in_month());
        day.weekday() == Weekday::Sunday
            && match day.month() {
                3 => nth == 2 || last,
                4 | 11 => nth == 1,
                9 => last || nth == 1,
                10 => nth == 1 || last,
                _ => false,
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_begins_with_the_change_and_ends() {
        let at = |text: &str| changed(crate::decision::time::parse(text).unwrap());
        // In 2026 Europe changes on 29 March and 25 October, America on 8 March and 1 November.
        for (day, grace) in [
            ("2026-03-06T12:00:00Z", false),
            ("2026-03-08T12:00:00Z", true),
            ("2026-03-16T12:00:00Z", true),
            ("2026-03-17T12:00:00Z", false),
            ("2026-03-27T23:00:00Z", false),
            ("2026-03-29T01:30:00Z", true),
            ("2026-10-25T01:30:00Z", true),
            ("2026-11-09T12:00:00Z", true),
            ("2026-11-10T12:00:00Z", false),
            ("2026-06-14T12:00:00Z", false),
            ("2026-01-14T12:00:00Z", false),
        ] {
            assert_eq!(at(day), grace, "{day}");
        }
    }
}
