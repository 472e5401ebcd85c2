//! Times, and numbers for people.

use std::fmt;

use crate::decision::time::Nanos;
use crate::words;

pub const SECOND: Nanos = 1_000_000_000;
pub const HOUR: Nanos = 3600 * SECOND;
pub const DAY: Nanos = 24 * HOUR;

/// The day of the week of a day since the epoch.
pub fn weekday(day: i64) -> usize {
    day.rem_euclid(7) as usize
}

/// A whole number, in thousands.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many of something.
pub fn counted(n: u64, what: &str) -> String {
    words::counted(Grouped(n), what)
}

/// A whole number that is written in thousands.
#[derive(Clone, Copy, PartialEq)]
struct Grouped(u64);

impl From<u8> for Grouped {
    fn from(n: u8) -> Grouped {
        Grouped(n.into())
    }
}

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&count(self.0))
    }
}

/// A number for people: 0.012, 1.5, 12,345, 34 M.
pub fn human(n: f64) -> String {
    let (value, unit) = match n.abs() {
        a if a >= 999_500_000_000.0 => (n / 1e12, " T"),
        a if a >= 999_500_000.0 => (n / 1e9, " G"),
        a if a >= 999_999.5 => (n / 1e6, " M"),
        a if a >= 999.5 => {
            let sign = if n < 0.0 { "-" } else { "" };
            return format!("{sign}{}", count(a.round() as u64));
        }
        _ => (n, ""),
    };
    let digits = match value.abs() {
        a if a >= 100.0 => 0,
        a if a >= 10.0 => 1,
        a if a >= 1.0 || a == 0.0 => 2,
        // Two digits that say something.
        a => (1.0 - a.log10().floor()).clamp(2.0, 12.0) as usize,
    };
    let text = format!("{value:.digits$}");
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        for (n, text) in [
            (0.0, "0"),
            (0.0123, "0.012"),
            (0.000_104, "0.0001"),
            (0.5, "0.5"),
            (7.0, "7"),
            (999.4, "999"),
            (999.6, "1,000"),
            (1234.0, "1,234"),
            (12_345.4, "12,345"),
            (-12_345.0, "-12,345"),
            (999_999.4, "999,999"),
            (999_999.6, "1 M"),
            (5_000_000.0, "5 M"),
            (99.96, "100"),
        ] {
            assert_eq!(human(n), text);
        }
    }

    #[test]
    fn whole_numbers_for_people() {
        let counts = [0, 12, 999, 1000, 12_345, 1_234_567].map(count);
        assert_eq!(counts, ["0", "12", "999", "1,000", "12,345", "1,234,567"]);
        assert_eq!([0, 1, 2000].map(|n| counted(n, "day")), ["0 days", "1 day", "2,000 days"]);
    }
}
