//! What is said of a sink that can't be served.

use crate::http::failure::Cause;

pub type Outage = crate::telemetry::outage::Outage<Cause>;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

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
