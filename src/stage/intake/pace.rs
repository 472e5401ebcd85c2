//! How long intake may be at a record. What is in a transaction has to be committed in time, so a transaction is split; a record that
//! alone takes longer is made before its transaction begins at the broker. Then it is judged by the work that it takes of a processor: by the
//! clock, a good record on a busy machine looks like one that makes docket work for ever.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::transaction::Open;

/// A transaction may take so long before it is committed. The broker aborts it after 15 s, and fences its producer.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// A record that stands alone may take so much of a processor,
pub const WORK: Duration = Duration::from_secs(60);
/// and of the time within which Kafka wants to hear of a member (max.poll.interval.ms) so much in five.
const OF_FIVE: u32 = 4;
/// That time, unless it is set.
const POLL_INTERVAL: Duration = Duration::from_secs(300);
/// How often the work is looked at.
const EVERY: Duration = Duration::from_millis(100);

/// What was not long enough for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlasted {
    Transaction,
    Work,
    Clock,
    /// Docket stops.
    Run,
}

pub(super) enum Pace {
    /// It is made within its transaction, which is to be committed by then.
    Within { began: Instant, patience: Duration },
    /// It is made before.
    Before {
        began: Instant,
        longest: Duration,
        worked: Option<Duration>,
        looked: Cell<Instant>,
        stop: CancellationToken,
    },
}

impl Pace {
    pub(super) fn of(open: &Open) -> Pace {
        let began = open.began.unwrap_or_else(Instant::now);
        Pace::Within { began, patience: PATIENCE + open.waited }
    }

    pub(super) fn before(poll_interval: Option<Duration>, stop: CancellationToken) -> Pace {
        let began = Instant::now();
        let longest = poll_interval.unwrap_or(POLL_INTERVAL) / 5 * OF_FIVE;
        Pace::Before { began, longest, worked: worked(), looked: Cell::new(began), stop }
    }

    /// How long it took already.
    pub(super) fn outlasted(&self) -> Option<Outlasted> {
        match self {
            Pace::Within { began, patience } => {
                (began.elapsed() > *patience).then_some(Outlasted::Transaction)
            }
            Pace::Before { began, longest, worked: before, looked, stop } => {
                if looked.get().elapsed() < EVERY {
                    return None;
                }
                looked.set(Instant::now());
                if stop.is_cancelled() {
                    return Some(Outlasted::Run);
                }
                let work = before.and_then(|before| worked()?.checked_sub(before));
                judged(work, began.elapsed(), *longest)
            }
        }
    }
}

/// Where the work is not known, the clock stands for it.
fn judged(work: Option<Duration>, clock: Duration, longest: Duration) -> Option<Outlasted> {
    if work.unwrap_or(clock) > WORK {
        return Some(Outlasted::Work);
    }
    (clock > longest).then_some(Outlasted::Clock)
}

/// How long this thread has had a processor, where the system says so.
fn worked() -> Option<Duration> {
    let said = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    // Some say nothing but zeros.
    let nanos = said.split_whitespace().next()?.parse().ok().filter(|nanos| *nanos > 0)?;
    Some(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_judged_by_its_work_and_not_by_its_neighbours() {
        let seconds = Duration::from_secs;
        let judged = |work, clock| judged(work, clock, seconds(240));
        assert_eq!(judged(Some(seconds(20)), seconds(200)), None);
        assert_eq!(judged(Some(seconds(61)), seconds(62)), Some(Outlasted::Work));
        assert_eq!(judged(Some(seconds(20)), seconds(241)), Some(Outlasted::Clock));
        assert_eq!(judged(None, seconds(30)), None);
        assert_eq!(judged(None, seconds(61)), Some(Outlasted::Work));
    }

    #[test]
    fn work_is_counted_where_the_system_says_it() {
        let Some(before) = worked() else { return };
        let mut number = 1_u64;
        while worked() == Some(before) {
            number = std::hint::black_box(number.wrapping_mul(3));
        }
        assert!(worked() > Some(before), "{number}");
    }
}
