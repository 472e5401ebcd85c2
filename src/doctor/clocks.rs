//! What servers' answers say of the time: the Date of each (RFC 9110, section 6.6.1), which has whole seconds.

use reqwest::header::{DATE, HeaderMap};

use super::{Check, Clock};
use crate::decision::time::Nanos;

const SECOND: Nanos = 1_000_000_000;
/// A Date says the second that has begun, and may have been on its way.
const SLACK: Nanos = 3 * SECOND;
/// What is less is a matter of taste; more misleads.
const TOO_MUCH: Nanos = 60 * SECOND;

/// How far a server's clock is ahead, by its answer to a request that took from `asked` to `answered`.
pub fn ahead(headers: &HeaderMap, asked: Nanos, answered: Nanos) -> Option<Nanos> {
    let date = headers.get(DATE)?.to_str().ok()?;
    let at = jiff::fmt::rfc2822::parse(date).ok()?.timestamp().as_second();
    // The middle of the second, and of the request.
    Some(Nanos::from(at) * SECOND + SECOND / 2 - (asked + answered) / 2)
}

const WAY_OUT: &str = "have both machines keep time with NTP (timedatectl set-ntp true, or chrony): decisions would seem late or not to have \
happened yet, traces not to fit, and stores refuse what is in the future";

/// Says of each clock that differs; or that none does.
pub fn compared(clocks: &[Clock]) -> Vec<Check> {
    if clocks.is_empty() {
        return Vec::new();
    }
    let off: Vec<&Clock> = clocks.iter().filter(|c| c.ahead.abs() > SLACK).collect();
    if off.is_empty() {
        let says = match clocks.len() {
            1 => "that of one server agrees with this machine's".to_owned(),
            n => format!("those of {n} servers agree with this machine's"),
        };
        return vec![Check::new("clock", "this machine").ok(says)];
    }
    let seconds = |ahead: Nanos| (ahead.abs() + SECOND / 2) / SECOND;
    // If all differ in the same way, it is this machine's that is wrong.
    let first = off[0].ahead;
    if off.len() > 1
        && off.len() == clocks.len()
        && off.iter().all(|c| (c.ahead - first).abs() <= 2 * SLACK)
    {
        let way = if first > 0 { "behind" } else { "ahead of" };
        let says = format!("{} s {way} all {} servers", seconds(first), clocks.len());
        let check = Check::new("clock", "this machine");
        return vec![judged(check, first, says)];
    }
    off.into_iter()
        .map(|clock| {
            let way = if clock.ahead > 0 { "ahead of" } else { "behind" };
            let says = format!(
                "the clock of {} is {} s {way} this machine's",
                clock.what,
                seconds(clock.ahead)
            );
            judged(Check::new("clock", &clock.address), clock.ahead, says)
        })
        .collect()
}

fn judged(check: Check, ahead: Nanos, says: String) -> Check {
    if ahead.abs() > TOO_MUCH { check.wrong(says, WAY_OUT) } else { check.warning(says, WAY_OUT) }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn clock(what: &str, seconds: Nanos) -> Clock {
        Clock { what: what.into(), address: format!("http://{what}"), ahead: seconds * SECOND }
    }

    #[test]
    fn a_date_is_compared_with_the_middle_of_the_request() {
        let mut headers = HeaderMap::new();
        headers.insert(DATE, "Tue, 24 Nov 2026 12:53:50 GMT".parse().unwrap());
        let now = 1_795_524_530 * SECOND; // 2026-11-24T12:48:50Z
        assert_eq!(ahead(&headers, now, now + SECOND), Some(300 * SECOND));
        assert_eq!(ahead(&HeaderMap::new(), now, now), None);
    }

    #[test]
    fn one_clock_that_is_off_is_its_own_and_all_are_this_machines() {
        let checks = compared(&[clock("loki", 0), clock("search", 300), clock("opa", 1)]);
        assert_eq!(checks.len(), 1);
        assert_eq!((checks[0].level, checks[0].address.as_str()), (Level::Wrong, "http://search"));
        assert!(checks[0].says.contains("300 s ahead of"), "{checks:?}");

        let checks = compared(&[clock("loki", -299), clock("search", -300)]);
        assert_eq!((checks.len(), checks[0].address.as_str()), (1, "this machine"));
        assert!(checks[0].says.contains("299 s ahead of all 2 servers"), "{checks:?}");

        assert_eq!(compared(&[clock("loki", 2), clock("search", -1)])[0].level, Level::Ok);
        assert_eq!(compared(&[clock("loki", 20), clock("a", 0)])[0].level, Level::Warning);
        assert!(compared(&[]).is_empty());
    }
}
