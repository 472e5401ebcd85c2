//! What is said of something that goes wrong again and again, such as a server that is away: a line when it begins, one now and
//! then while it lasts, with how often it was seen, and one when it is over. Every failure is counted; only few are told.

use std::time::Duration;

use tokio::time::Instant;

/// The time between two lines: at first, and at most.
const FIRST: Duration = Duration::from_secs(30);
const MOST: Duration = Duration::from_secs(300);

/// `C` is what it is by: another cause is told at once.
#[derive(Debug)]
pub struct Outage<C> {
    /// The last cause that was told, when, and the wait until the next line.
    said: Option<(C, Instant, Duration)>,
    /// When the failures began, and how many there were.
    since: Option<Instant>,
    failures: u64,
    last: Option<Instant>,
    /// Whether its end is worth a line.
    told: bool,
}

/// A line to be written.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    pub failures: u64,
    pub lasted: Duration,
}

impl<C> Default for Outage<C> {
    fn default() -> Outage<C> {
        Outage { said: None, since: None, failures: 0, last: None, told: false }
    }
}

impl<C: Copy + PartialEq> Outage<C> {
    /// A request failed. The first failure passes by itself more often than not, so it is not told.
    pub fn failed(&mut self, cause: C, attempts: u32, now: Instant) -> Option<Line> {
        if attempts < 2 {
            self.since.get_or_insert(now);
            self.failures += 1;
            return None;
        }
        self.seen(cause, 1, now)
    }

    /// It was seen so many times more.
    pub fn seen(&mut self, cause: C, times: u64, now: Instant) -> Option<Line> {
        let since = *self.since.get_or_insert(now);
        self.failures += times;
        self.last = Some(now);
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

    /// It is over if it was not seen for so long.
    pub fn quiet(&mut self, wait: Duration, now: Instant) -> Option<Line> {
        let last = self.last.filter(|last| now.duration_since(*last) >= wait)?;
        self.last = None;
        self.served(last)
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
    use crate::http::failure::Cause;

    #[test]
    fn what_comes_in_numbers_is_a_line_and_then_counts_until_it_is_quiet() {
        let mut outage = Outage::default();
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let quiet = Duration::from_secs(60);
        let told: Vec<_> = (0..200)
            .filter_map(|second| {
                assert_eq!(outage.quiet(quiet, at(second)), None);
                outage.seen((), 3, at(second)).map(|line| (second, line.failures))
            })
            .collect();
        assert_eq!(told, [(0, 3), (30, 93), (90, 273)]);
        assert_eq!(outage.quiet(quiet, at(258)), None);
        let end = outage.quiet(quiet, at(259)).unwrap();
        assert_eq!((end.failures, end.lasted.as_secs()), (600, 199));
        assert_eq!(outage.quiet(quiet, at(400)), None);
    }

    #[test]
    fn an_outage_is_a_line_and_then_counts() {
        let mut outage = Outage::default();
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
        let mut outage = Outage::default();
        let now = Instant::now();
        assert_eq!(outage.failed(Cause::Throttled, 1, now), None);
        assert_eq!(outage.served(now), None);
    }

    #[test]
    fn another_cause_is_told_and_one_that_comes_and_goes_is_not() {
        let mut outage = Outage::default();
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
