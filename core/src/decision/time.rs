//! Timestamps: RFC 3339 in and out, nanoseconds since the Unix epoch in between.

/// Nanoseconds since 1970-01-01T00:00:00Z.
pub type Nanos = i64;

/// A duration; what does not fit is the longest there is.
pub fn nanos(span: std::time::Duration) -> Nanos {
    Nanos::try_from(span.as_nanos()).unwrap_or(Nanos::MAX)
}

/// The times that every sink has room for, the first and the last: 1970 to 2261. Others become the nearest of these.
const FIRST: i64 = 0;
const LAST: i64 = 9_214_646_400 - 1;

/// Reads an RFC 3339 timestamp (5.6): any offset, any number of digits of a second's fraction (more than nine are cut),
/// either case, a space for the T, and a leap second, which is the one after it.
pub fn parse(text: &str) -> Option<Nanos> {
    let b = text.as_bytes();
    let (head, rest) = b.split_at_checked(19)?;
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        head[range]
            .iter()
            .try_fold(0i64, |n, c| c.is_ascii_digit().then(|| n * 10 + i64::from(c - b'0')))
    };
    if [b[4], b[7], b[13], b[16]] != *b"--::" || !matches!(b[10], b'T' | b't' | b' ') {
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
        || second > 60
    {
        return None;
    }
    let (nanos, offset) = match rest {
        [b'.', rest @ ..] => {
            let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            let kept = &rest[..digits.min(9)];
            let nanos = kept.iter().fold(0i64, |n, b| n * 10 + i64::from(b - b'0'));
            let nanos = nanos * 10i64.pow(9 - kept.len() as u32);
            (nanos, &rest[digits..])
        }
        rest => (0, rest),
    };
    let offset = offset_seconds(offset)?;
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let seconds = seconds - offset;
    Some(match seconds {
        ..FIRST => FIRST * 1_000_000_000,
        FIRST..=LAST => seconds * 1_000_000_000 + nanos,
        _ => LAST * 1_000_000_000 + 999_999_999,
    })
}

/// The last time that stands right behind a name, in what may be anything.
pub fn last_after(bytes: &[u8], name: &[u8]) -> Option<Nanos> {
    // Of what is very large the end will do.
    let bytes = &bytes[bytes.len().saturating_sub(64 << 10)..];
    let rest = &bytes[last(bytes, name, b'p')? + name.len()..];
    let len = rest.iter().take(64).position(|b| *b == b'"')?;
    parse(std::str::from_utf8(&rest[..len]).ok()?)
}

/// Where a name stands last that has a byte in it which is rare elsewhere.
pub(in crate::decision) fn last(bytes: &[u8], name: &[u8], rare: u8) -> Option<usize> {
    let within = memchr::memrchr(rare, name)?;
    let mut end = bytes.len();
    // Where it is not so rare, all of it is searched.
    for _ in 0..64 {
        end = memchr::memrchr(rare, &bytes[..end])?;
        let start = end.checked_sub(within)?;
        if bytes[start..].starts_with(name) {
            return Some(start);
        }
    }
    memchr::memmem::rfind(&bytes[..bytes.len().min(end + name.len())], name)
}

/// When a decision was made, at little cost and as far as it stands there in JSON: OPA writes its `timestamp` behind the
/// input and the result. A guess, for the order in which records are read.
pub fn guess(bytes: &[u8]) -> Option<Nanos> {
    last_after(bytes, b"\"timestamp\":\"")
}

/// `Z`, or how far local time is ahead.
fn offset_seconds(b: &[u8]) -> Option<i64> {
    let (sign, digits) = match b {
        [b'Z' | b'z'] => return Some(0),
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let [a, b, b':', c, d] = digits else { return None };
    if ![a, b, c, d].into_iter().all(u8::is_ascii_digit) {
        return None;
    }
    let two = |a: &u8, b: &u8| i64::from(a - b'0') * 10 + i64::from(b - b'0');
    let (hours, minutes) = (two(a, b), two(c, d));
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
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
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    let mut digits = |places: std::ops::Range<usize>, mut n: u32| {
        for place in text[places].iter_mut().rev() {
            *place += (n % 10) as u8;
            n /= 10;
        }
    };
    digits(0..4, year as u32);
    digits(5..7, month as u32);
    digits(8..10, day as u32);
    digits(11..13, second_of_day as u32 / 3600);
    digits(14..16, second_of_day as u32 / 60 % 60);
    digits(17..19, second_of_day as u32 % 60);
    digits(20..29, fraction as u32);
    out.extend_from_slice(&text);
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

    #[test]
    fn a_name_is_found_where_it_stands_last() {
        let name = b",\"@timestamp\":\"";
        let many = "@".repeat(200);
        for text in [
            "",
            "@",
            ",\"@timestamp\":\"",
            "x,\"@timestamp\":\"1,\"@timestamp\":\"2",
            "@timestamp\":\"",
            ",\"@timestamp\":",
            &format!(",\"@timestamp\":\"{many}"),
            &format!("{many},\"@timestamp\":\"{many}@"),
            &many,
        ] {
            let bytes = text.as_bytes();
            assert_eq!(last(bytes, name, b'@'), memchr::memmem::rfind(bytes, name), "{text}");
            assert_eq!(last(bytes, name, b'p'), memchr::memmem::rfind(bytes, name), "{text}");
        }
    }

    #[test]
    fn a_decision_says_when_it_was_made_behind_its_input() {
        let doc = br#"{"input":{"timestamp":"2020-01-01T00:00:00Z"},"timestamp":"2026-11-24T12:48:50Z","metrics":{}}"#;
        assert_eq!(guess(doc), parse("2026-11-24T12:48:50Z"));
        for none in [
            &b""[..],
            b"\"timestamp\":\"",
            b"\"timestamp\":\"now\"",
            b"\"timestamp\": 5",
            b"\xff\"timestamp\":\"\xff\"",
        ] {
            assert_eq!(guess(none), None);
        }
    }
    use proptest::prelude::*;

    #[test]
    fn all_of_rfc_3339_is_read() {
        const AT: Nanos = 1_795_524_530_000_000_000;
        for (text, nanos) in [
            ("2026-11-24T12:48:50.16342407Z", AT + 163_424_070),
            ("2026-11-24T12:48:50Z", AT),
            ("2026-11-24T14:48:50+02:00", AT),
            ("2026-11-24T12:48:50-00:00", AT),
            ("2026-11-24 12:48:50z", AT),
            ("2026-11-24t12:48:50.5z", AT + 500_000_000),
            ("2026-11-24T12:48:50.1234567899999Z", AT + 123_456_789),
            ("2026-11-24T07:18:50.000000001-05:30", AT + 1),
            ("1990-12-31T23:59:60Z", 662_688_000_000_000_000),
            ("1990-12-31T15:59:60-08:00", 662_688_000_000_000_000),
            // There is no room for these: the nearest.
            ("0001-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59.9Z", 0),
            ("9999-12-31T23:59:59Z", 9_214_646_399_999_999_999),
            ("2261-12-31T23:59:59.999999999Z", 9_214_646_399_999_999_999),
        ] {
            assert_eq!(parse(text), Some(nanos), "{text}");
        }
        for bad in [
            "",
            "yesterday",
            "2026-11-24",
            "2026-11-24T12:48:50",
            "2026-02-30T00:00:00Z",
            "2026-11-24T25:00:00Z",
            "2026-11-24T12:48:61Z",
            "2026-11-24T12:48:50.Z",
            "2026-11-24T12:48:50+0200",
            "2026-11-24T12:48:50+24:00",
            "2026-11-24T12:48:50Zulu",
            "26-11-24T12:48:50Z",
            "2026-11-24T12:48:50 Z",
            "２026-11-24T12:48:50Z",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_and_agrees_with_jiff(nanos in 0i64..9_214_646_400_000_000_000) {
            let text = format(nanos);
            prop_assert_eq!(parse(&text), Some(nanos));
            prop_assert_eq!(text.parse::<jiff::Timestamp>().unwrap().as_nanosecond(), nanos as i128);
        }
    }
}
