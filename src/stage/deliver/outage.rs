//! What is said of a sink that can't be served: a line when it begins, one now and then while it lasts, with how often it was tried,
//! and one when it is over. Every request that fails is counted; only few are told.

use std::time::Duration;

use tokio::time::Instant;

use crate::http::failure::Cause;

/// The time between two lines: at first, and at most.
const FIRST: Duration = Duration::from_secs(30);
const MOST: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub struct Outage {
    /// The last cause that was told, when, and the wait until the next line.
    said: Option<(Cause, Instant, Duration)>,
    /// When the failures began, and how many there were.
    since: Option<Instant>,
    failures: u64,
    /// Whether its end is worth a line.
    told: bool,
}

/// A line to be written.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    pub failures: u64,
    pub lasted: Duration,
}

impl Outage {
    pub fn new() -> Outage {
        Outage { said: None, since: None, failures: 0, told: false }
    }

    /// A request failed. The first failure passes by itself more often than not, so it is not told.
    pub fn failed(&mut self, cause: Cause, attempts: u32, now: Instant) -> Option<Line> {
        let since = *self.since.get_or_insert(now);
        self.failures += 1;
        if attempts < 2 {
            return None;
        }
        let every = match self.said {
            Some((said, at, every)) if said == cause => {
                if now.duration_since(at) < every {
                    return None;
                }
                (every * 2).min(MOST)
            }
            // Causes that take turns don't make a line each.
            Some((_, at, _)) if now.duration_since(at) < Duration::from_secs(2) => return None,
            _ => FIRST,
        };
        self.said = Some((cause, now, every));
        self.told = true;
        Some(Line { failures: self.failures, lasted: now.duration_since(since) })
    }

    /// A request was answered.
    pub fn served(&mut self, now: Instant) -> Option<Line> {
        let since = self.since.take()?;
        let failures = std::mem::take(&mut self.failures);
        std::mem::take(&mut self.told).then(|| Line { failures, lasted: now.duration_since(since) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_a_line_and_then_counts() {
        let mut outage = Outage::new();
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(outage.failed(Cause::Connection, 1, began), None);
        let mut lines = Vec::new();
        for second in 1..=400 {
            for _ in 0..4 {
                lines.extend(
                    outage.failed(Cause::Connection, 2, at(second)).map(|l| (second, l.failures)),
                );
            }
        }
        // After 30 s, 60 more, 120 more; and so on, at most five minutes apart.
        assert_eq!(lines, [(1, 2), (31, 122), (91, 362), (211, 842)]);
        let end = outage.served(at(401)).unwrap();
        assert_eq!((end.failures, end.lasted.as_secs()), (1601, 401));
        assert_eq!(outage.served(at(402)), None);
    }

    #[test]
    fn one_failure_that_passes_is_no_line_and_neither_is_its_end() {
        let mut outage = Outage::new();
        let now = Instant::now();
        assert_eq!(outage.failed(Cause::Throttled, 1, now), None);
        assert_eq!(outage.served(now), None);
    }

    #[test]
    fn another_cause_is_told_and_one_that_comes_and_goes_is_not() {
        let mut outage = Outage::new();
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        assert!(outage.failed(Cause::Connection, 2, began).is_some());
        assert!(outage.failed(Cause::Credentials, 3, at(5)).is_some());
        assert!(outage.served(at(6)).is_some());
        assert!(outage.failed(Cause::Credentials, 2, at(7)).is_none());
        assert!(outage.served(at(8)).is_none(), "what was not told does not end");
        assert!(outage.failed(Cause::Credentials, 2, at(40)).is_some());
    }
}
