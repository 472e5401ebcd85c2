//! Timestamps: RFC 3339 in and out, nanoseconds since the Unix epoch in between.

/// Nanoseconds since 1970-01-01T00:00:00Z.
pub type Nanos = i64;

/// A duration; what does not fit is the longest there is.
pub fn nanos(span: std::time::Duration) -> Nanos {
    Nanos::try_from(span.as_nanos()).unwrap_or(Nanos::MAX)
}

/// Reads an RFC 3339 timestamp, any offset, up to nine digits of a second's fraction (more are cut).
pub fn parse(text: &str) -> Option<Nanos> {
    fast(text.as_bytes()).or_else(|| {
        let bytes = text.as_bytes();
        // jiff reads more than RFC 3339; hold it to that.
        if bytes.len() < 20 || !matches!(bytes[10], b'T' | b't' | b' ') || bytes[4] != b'-' {
            return None;
        }
        i64::try_from(text.parse::<jiff::Timestamp>().ok()?.as_nanosecond()).ok()
    })
}

/// `2026-11-24T12:48:50[.123456789]Z`, as OPA writes it.
fn fast(b: &[u8]) -> Option<Nanos> {
    if b.len() < 20 || b.len() > 30 || b[b.len() - 1] != b'Z' {
        return None;
    }
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        b[range]
            .iter()
            .try_fold(0i64, |n, c| c.is_ascii_digit().then(|| n * 10 + i64::from(c - b'0')))
    };
    if [b[4], b[7], b[10], b[13], b[16]] != *b"--T::" {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month_days = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    if !(1..=12).contains(&month)
        || day < 1
        || day > month_days[month as usize - 1]
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let fraction = &b[19..b.len() - 1];
    let nanos = match fraction {
        [] => 0,
        [b'.', digits @ ..] if !digits.is_empty() => {
            number(20..20 + digits.len())? * 10i64.pow(9 - digits.len() as u32)
        }
        _ => return None,
    };
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, counted in years that begin in March.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Appends the timestamp as RFC 3339 in UTC with nine digits of a second: `2026-11-24T12:48:50.163424070Z`.
pub fn push(out: &mut Vec<u8>, nanos: Nanos) {
    let seconds = nanos.div_euclid(1_000_000_000);
    let fraction = nanos.rem_euclid(1_000_000_000);
    let days = seconds.div_euclid(86_400);
    let second_of_day = seconds.rem_euclid(86_400);
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let mp = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let mut digits = |n: i64, width: u32, after: u8| {
        for place in (0..width).rev() {
            out.push(b'0' + (n / 10i64.pow(place) % 10) as u8);
        }
        out.push(after);
    };
    digits(year, 4, b'-');
    digits(month, 2, b'-');
    digits(day, 2, b'T');
    digits(second_of_day / 3600, 2, b':');
    digits(second_of_day / 60 % 60, 2, b':');
    digits(second_of_day % 60, 2, b'.');
    digits(fraction, 9, b'Z');
}

pub fn format(nanos: Nanos) -> String {
    let mut out = Vec::with_capacity(30);
    push(&mut out, nanos);
    String::from_utf8(out).expect("only digits and separators were written")
}

/// For serde's `serialize_with`.
pub fn serialize<S: serde::Serializer>(at: &Nanos, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&format(*at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn opa_trims_zeros_and_others_write_offsets() {
        assert_eq!(parse("2026-11-24T12:48:50.16342407Z"), Some(1_795_524_530_163_424_070));
        assert_eq!(parse("2026-11-24T12:48:50Z"), Some(1_795_524_530_000_000_000));
        assert_eq!(parse("2026-11-24T14:48:50+02:00"), Some(1_795_524_530_000_000_000));
        for bad in [
            "",
            "yesterday",
            "2026-11-24",
            "2026-11-24T12:48:50",
            "2026-02-30T00:00:00Z",
            "2026-11-24T25:00:00Z",
            "2026-11-24T12:48:50.Z",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_and_agrees_with_jiff(nanos in 0i64..4_000_000_000_000_000_000) {
            let text = format(nanos);
            prop_assert_eq!(fast(text.as_bytes()), Some(nanos));
            prop_assert_eq!(text.parse::<jiff::Timestamp>().unwrap().as_nanosecond(), nanos as i128);
        }
    }
}
