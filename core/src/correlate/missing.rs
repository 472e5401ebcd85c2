//! Times of which decisions or requests are missing, as far as docket knows: what an OPA dropped, what went to rejects, what was
//! gone from a topic before it was read. It may have belonged to any partition, so each gets a record that says so.

use crate::decision::json;
use crate::decision::time::{self, Nanos};

/// Something of a time is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    pub from: Nanos,
    pub to: Nanos,
}

/// How the record begins that stands among decisions or facts; none of these begins so.
const RECORD: &[u8] = b"{\"docket_missing\":";
/// How the line begins that stands in a source topic. Who knows nothing of it takes it for a line of OPA's log.
const LINE: &[u8] = b"{\"msg\":\"docket: decisions are missing\",";

impl Missing {
    /// The record of either topic of the join.
    pub fn record(&self) -> Vec<u8> {
        let (from, to) = (time::format(self.from), time::format(self.to));
        format!(r#"{{"docket_missing":{{"from":"{from}","to":"{to}"}},"@timestamp":"{to}"}}"#)
            .into_bytes()
    }

    /// Of such a record.
    pub fn of_record(bytes: &[u8]) -> Option<Missing> {
        let text = std::str::from_utf8(bytes.starts_with(RECORD).then_some(bytes)?).ok()?;
        Missing::of(json::get(text, "docket_missing")?)
    }

    /// The line of a source topic. `of` is who lost them.
    pub fn line(&self, of: &str) -> String {
        let (from, to) = (time::format(self.from), time::format(self.to));
        let of = serde_json::Value::from(of);
        format!(
            r#"{{"msg":"docket: decisions are missing","level":"error","from":"{from}","to":"{to}","of":{of}}}"#
        )
    }

    /// Of such a line.
    pub fn of_line(bytes: &[u8]) -> Option<Missing> {
        Missing::of(std::str::from_utf8(bytes.starts_with(LINE).then_some(bytes)?).ok()?)
    }

    fn of(text: &str) -> Option<Missing> {
        let at = |name: &str| time::parse(&json::as_str(json::get(text, name)?)?);
        Some(Missing { from: at("from")?, to: at("to")? })
    }
}

/// What is missing of several times, told in few.
#[derive(Debug, Default)]
pub struct Times(Vec<Missing>);

/// Further ones are taken together.
const MOST: usize = 8;

impl Times {
    pub fn add(&mut self, one: Missing) {
        let mut sum = one;
        self.0.retain(|other| {
            let apart = other.from > sum.to || sum.from > other.to;
            if !apart {
                sum = Missing { from: sum.from.min(other.from), to: sum.to.max(other.to) };
            }
            apart
        });
        self.0.push(sum);
        if self.0.len() > MOST {
            let from = self.0.iter().map(|one| one.from).min().unwrap_or(one.from);
            let to = self.0.iter().map(|one| one.to).max().unwrap_or(one.to);
            self.0 = vec![Missing { from, to }];
        }
    }

    pub fn all(&self) -> &[Missing] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::formats::{Format, Ignored, Limits, Piece, split};
    use crate::decision::record::Record;
    use crate::facts::Packed;

    #[test]
    fn it_is_read_as_it_was_written_and_is_nothing_else() {
        for (from, to) in [(0, 5), (1_795_524_530_000_000_001, 1_795_524_531_000_000_000)] {
            let missing = Missing { from, to };
            let (record, line) = (missing.record(), missing.line("o\"1"));
            assert_eq!(Missing::of_record(&record), Some(missing));
            assert_eq!(Missing::of_line(line.as_bytes()), Some(missing));
            assert_eq!(Missing::of_record(line.as_bytes()), None);
            assert_eq!(crate::decision::record::time(&record), Some(to));
            assert!(Record::parse(&record).is_err() && Packed::of(&record).fact().is_err());
            let mut seen = Vec::new();
            let told = &mut |piece: Piece<'_>| match piece {
                Piece::Ignored(what) => seen.push(what),
                other => panic!("{other:?}"),
            };
            assert!(split(line.as_bytes(), Format::Auto, &Limits::default(), told).is_none());
            assert_eq!(seen, [Ignored::OpaLog]);
        }
    }

    #[test]
    fn times_that_touch_are_one_and_there_are_few() {
        let mut times = Times::default();
        let one = |from, to| Missing { from, to };
        [one(0, 10), one(20, 30), one(5, 8)].into_iter().for_each(|one| times.add(one));
        assert_eq!(times.all(), [one(20, 30), one(0, 10)]);
        times.add(one(10, 20));
        assert_eq!(times.all(), [one(0, 30)]);
        (1..20).for_each(|n| times.add(one(n * 100, n * 100 + 1)));
        assert!(times.all().len() <= MOST);
        let covered = |at| times.all().iter().any(|one| one.from <= at && at <= one.to);
        assert!(covered(15) && (1..20).all(|n| covered(n * 100)));
    }
}
