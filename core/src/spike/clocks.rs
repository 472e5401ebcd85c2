//! When people change their clocks. What they schedule by the clock then comes an hour sooner or later in UTC.

use crate::decision::time::Nanos;

/// The last week learned the new hour by then: a quarter of an hour is usual once it was so on most of seven days.
const GRACE: i64 = 8;
const DAY: Nanos = 86_400_000_000_000;

/// Whether clocks were changed somewhere within the last days: on the second or last Sunday of March, the first of
/// April, the first or last of September, the first or last of October, the first of November; Europe, America,
/// Australia, New Zealand and Chile, with a day to spare for the time zone.
pub fn changed(at: Nanos) -> bool {
    let today = at.div_euclid(DAY);
    // 1 January 1970 was a Thursday.
    let sunday = today + 1 - (today + 1 + 4).rem_euclid(7);
    [sunday, sunday - 7].into_iter().filter(|day| today - day <= GRACE).any(|day| {
        let (month, day, next) = (civil(day).0, civil(day).1, civil(day + 7).0);
        let (nth, last) = ((day - 1) / 7 + 1, next != month);
        match month {
            3 => nth == 2 || last,
            4 | 11 => nth == 1,
            9 | 10 => nth == 1 || last,
            _ => false,
        }
    })
}

/// Month and day of the month of a day since 1970 (Hinnant's `civil_from_days`).
fn civil(day: i64) -> (i64, i64) {
    let era = (day + 719_468).rem_euclid(146_097);
    let year = (era - era / 1460 + era / 36_524 - era / 146_096) / 365;
    let of_year = era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    (if month < 10 { month + 3 } else { month - 9 }, of_year - (153 * month + 2) / 5 + 1)
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
