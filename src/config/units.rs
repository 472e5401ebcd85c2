//! Durations and sizes as people write them.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error};

use crate::decision::time::Nanos;

/// A duration: `200ms`, `5s`, `10m`, `2h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// How a duration is written.
pub const SPAN: &str = "a number with ms, s, m, h or d, such as 10m or 7d";

/// A size in bytes: `512KiB`, `4MiB`, `1GB`, `1000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub usize);

fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim()))
}

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let wrong = || format!("{text:?} is no duration: {SPAN}");
        let (number, unit) = split(text).ok_or_else(wrong)?;
        let seconds = number
            * match unit {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                _ => return Err(wrong()),
            };
        Duration::try_from_secs_f64(seconds).map(Span).map_err(|_| wrong())
    }
}

impl std::str::FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Bytes, String> {
        let wrong = || format!("{text:?} is not a size such as 512KiB, 4MiB or 1GB");
        let (number, unit) = split(text).ok_or_else(wrong)?;
        let factor: u64 = match unit {
            "" | "B" => 1,
            "kB" | "KB" => 1000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(wrong()),
        };
        Ok(Bytes((number * factor as f64) as usize))
    }
}

macro_rules! from_text {
    ($type:ident, $name:literal, $expected:literal, $pattern:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $expected, "x-expected": $expected })
            }
        }
    };
}

/// A point in time: `2026-12-01T00:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Nanos);

impl std::str::FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Moment, String> {
        crate::decision::time::parse(text).map(Moment).ok_or_else(|| {
            format!("{text:?} is not a time such as 2026-12-01T00:00:00Z (RFC 3339)")
        })
    }
}

/// A time range of each day, in UTC: `22:00-06:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Daily {
    /// Minutes since midnight.
    from: i64,
    to: i64,
}

impl Daily {
    pub fn has(self, at: Nanos) -> bool {
        let minute = at.div_euclid(60_000_000_000).rem_euclid(24 * 60);
        if self.from <= self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

impl std::str::FromStr for Daily {
    type Err = String;

    fn from_str(text: &str) -> Result<Daily, String> {
        let minute = |text: &str| -> Option<i64> {
            let (hour, minute) = text.trim().split_once(':')?;
            let (hour, minute): (i64, i64) = (hour.parse().ok()?, minute.parse().ok()?);
            let fits =
                (0..60).contains(&minute) && ((0..24).contains(&hour) || (hour, minute) == (24, 0));
            fits.then_some(60 * hour + minute)
        };
        let both = text
            .split_once('-')
            .and_then(|(from, to)| Some(Daily { from: minute(from)?, to: minute(to)? }));
        both.filter(|d| d.from != d.to)
            .ok_or_else(|| format!("{text:?} is not a daily time range such as 22:00-06:00"))
    }
}

from_text!(
    Moment,
    "Moment",
    "a time such as 2026-12-01T00:00:00Z",
    r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})$"
);
from_text!(
    Daily,
    "Daily",
    "a daily time range in UTC such as 22:00-06:00",
    r"^\d{1,2}:\d{2}\s*-\s*\d{1,2}:\d{2}$"
);
from_text!(
    Span,
    "Duration",
    "a duration such as 200ms, 5s, 10m, 2h or 7d",
    r"^\d+(\.\d+)?\s*(ms|s|m|h|d)$"
);
from_text!(
    Bytes,
    "Size",
    "a size such as 512KiB, 4MiB or 1GB",
    r"^\d+(\.\d+)?\s*(B|kB|KB|MB|GB|KiB|MiB|GiB)?$"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_units() {
        assert_eq!("200ms".parse(), Ok(Span(Duration::from_millis(200))));
        assert_eq!("1.5h".parse(), Ok(Span(Duration::from_secs(5400))));
        assert_eq!("512KiB".parse(), Ok(Bytes(524_288)));
        assert_eq!("1000".parse(), Ok(Bytes(1000)));
        for bad in ["", "s", "5", "5 parsecs", "-1s"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
        assert!("1 MIB".parse::<Bytes>().is_err());
    }

    #[test]
    fn a_stretch_of_the_day_may_go_past_midnight() {
        let at = |text: &str| text.parse::<Moment>().unwrap().0;
        let night: Daily = "22:00-06:00".parse().unwrap();
        for (time, inside) in [
            ("2026-11-24T21:59:59Z", false),
            ("2026-11-24T22:00:00Z", true),
            ("2026-11-25T05:59:59Z", true),
            ("2026-11-25T06:00:00Z", false),
        ] {
            assert_eq!(night.has(at(time)), inside, "{time}");
        }
        assert!("02:00-24:00".parse::<Daily>().unwrap().has(at("2026-11-24T23:59:00Z")));
        for bad in ["", "2-4", "25:00-26:00", "02:00-02:00", "02:60-03:00"] {
            assert!(bad.parse::<Daily>().is_err(), "{bad}");
        }
        assert!("2026-02-30T00:00:00Z".parse::<Moment>().is_err());
    }
}
