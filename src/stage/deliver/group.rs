//! What is still to be sent of a batch, and what a failure means for it.
//!
//! No request is sent for ever in the same shape: one that fails again and again is halved until a record stands alone. But a server
//! that is down fails everything, and that is no record's fault: a record alone is rejected only if the sink took others meanwhile.

use std::time::Duration;

use tokio::time::Instant;

use crate::decision::reject::{Reason, Reject};
use crate::http::failure::{Cause, Refusal};
use crate::sink::any::Request;

/// Records that are sent together, in their order.
pub(super) struct Group {
    pub records: Vec<usize>,
    /// Encoded already. It is sent again as it is.
    pub body: Option<Box<dyn Request>>,
    /// How often they were sent.
    pub attempts: u32,
    /// How often since others passed: for the pauses.
    pub backoff: u32,
    /// How long the sink took for its answer, the last time.
    pub took: Duration,
    /// It is not to be sent before.
    pub not_before: Option<Instant>,
    /// What the sink said, the last few.
    pub answers: Vec<String>,
    /// How often in this shape.
    shape: u32,
    /// The last request that was sent when it failed: at first, or, of one record alone, when it failed last. What was sent before
    /// proves nothing.
    since: Option<u64>,
    /// How often it failed alone with others passing in between.
    strikes: u32,
    refusals: u32,
    /// It is a part of one that failed.
    is_half: bool,
    /// What these are of was not there.
    pub absent: Option<Absent>,
}

/// What is known of what is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// It may come.
    Waits,
    /// It would have come by then; if that is not sure, it seems so.
    Past { at: Instant, sure: bool },
}

/// What a failure is judged by. Requests are numbered as they are sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// The last that was sent when the failure was known.
    pub sent: u64,
    /// The last of those that were taken, in whole or in part, when the one that failed was sent: so it was sent, and its answer came,
    /// before the one that failed. What is taken while that one is on its way may mean that the sink has changed its mind.
    pub taken: u64,
}

/// What is to be done with a group that failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is the next again.
    Again,
    /// The next again after the other half, which may pass.
    AfterOther,
    /// After the others.
    Later,
    Halve,
    /// It stands alone, and it is its fault.
    Reject,
}

/// Sent in vain so often, it is halved;
const HALVE_AFTER: u32 = 4;
/// so often, if others pass;
const WHILE_OTHERS_PASS: u32 = 2;
/// and so often if it is small already, and the server has too much to do: it would have more.
const IF_SMALL: u32 = 8;
const SMALL: usize = 16;
/// A record that failed alone so often, each time with others passing in between, is rejected;
const STRIKES: u32 = 8;
/// and so often if the server says or shows that it has too much to do.
const STRIKES_IF_BUSY: u32 = 30;
/// One that stands alone leaves others so many times the time that it took.
const OTHERS: u32 = 3;
/// So many letters are written at once.
pub(super) const AT_ONCE: usize = 64;
/// So many answers are kept.
const ANSWERS: usize = 3;

impl Group {
    pub fn new(records: Vec<usize>, body: Option<Box<dyn Request>>) -> Group {
        Group {
            records,
            body,
            attempts: 0,
            backoff: 0,
            took: Duration::ZERO,
            not_before: None,
            answers: Vec::new(),
            shape: 0,
            since: None,
            strikes: 0,
            refusals: 0,
            is_half: false,
            absent: None,
        }
    }

    /// It waits for others to pass, or for what is not there yet.
    pub fn waits(&self) -> bool {
        self.is_suspect() || self.absent == Some(Absent::Waits)
    }

    /// It stands alone, and waits for others to pass.
    pub fn is_suspect(&self) -> bool {
        self.records.len() == 1
            && (self.strikes > 0 || self.refusals > 0 || self.attempts >= HALVE_AFTER)
    }

    /// It was refused alone, once.
    pub fn is_refused_first(&self) -> bool {
        self.records.len() == 1 && self.refusals == 1
    }

    /// Whether requests have passed that were sent since it failed.
    pub fn others_passed(&mut self, seen: Seen) -> bool {
        seen.taken > *self.since.get_or_insert(seen.sent)
    }

    fn note(&mut self, answer: String) {
        if !self.answers.contains(&answer) {
            self.answers.push(answer);
            let many = self.answers.len().saturating_sub(ANSWERS);
            self.answers.drain(..many);
        }
    }

    /// It was not taken, which may be an outage.
    pub fn failed(&mut self, cause: Cause, answer: &str, seen: Seen) -> Next {
        self.shape += 1;
        self.backoff += 1;
        self.note(answer.to_owned());
        let others = self.others_passed(seen);
        let busy = matches!(cause, Cause::Throttled | Cause::Timeout);
        if self.records.len() == 1 {
            // Those that take longer than its pauses count, too.
            if others {
                self.strikes += 1;
                self.since = Some(seen.sent);
            }
            return match self.strikes >= if busy { STRIKES_IF_BUSY } else { STRIKES } {
                true => Next::Reject,
                false => Next::Later,
            };
        }
        let is_small = self.records.len() <= SMALL;
        let patience = match (cause, others) {
            (Cause::Throttled, _) if is_small => IF_SMALL,
            (_, true) => WHILE_OTHERS_PASS,
            (Cause::Timeout, false) if is_small => IF_SMALL,
            (_, false) => HALVE_AFTER,
        };
        if others {
            self.backoff = self.shape;
        }
        if self.shape < patience {
            return if self.is_half && !others { Next::AfterOther } else { Next::Again };
        }
        self.since = Some(seen.sent);
        Next::Halve
    }

    /// It was refused for what is in it, or so the sink says; `hasty` believes it at once.
    pub fn refused(&mut self, answer: String, seen: Seen, hasty: bool) -> Next {
        self.refusals += 1;
        self.backoff += 1;
        self.note(answer);
        let others = self.others_passed(seen);
        match self.records.len() {
            1 if others || hasty => Next::Reject,
            1 => Next::Later,
            _ => {
                // What passed before says nothing of the halves: the sink may refuse everything from now on.
                self.since = Some(seen.sent);
                Next::Halve
            }
        }
    }

    /// How long it waits for its next turn, if others pass: so long at least that what hangs takes a part of a sink's time, not all of it.
    pub fn pause(&self, wait: Duration) -> Duration {
        if self.is_suspect() { wait.max(self.took * OTHERS) } else { wait }
    }

    /// The same with fewer records: others of it are done with.
    pub fn left(mut self, records: Vec<usize>) -> Group {
        self.records = records;
        self.body = None;
        self
    }

    pub fn halves(mut self) -> [Group; 2] {
        let right = self.records.split_off(self.records.len() / 2);
        let half = |records| Group {
            records,
            body: None,
            answers: self.answers.clone(),
            shape: 0,
            strikes: 0,
            refusals: 0,
            is_half: true,
            ..self
        };
        [half(self.records.clone()), half(right)]
    }
}

/// A record on its way to rejects.
pub(super) struct Letter {
    pub record: usize,
    pub reject: Reject,
    pub status: Option<u16>,
    pub attempts: u32,
}

impl Letter {
    /// Of a record that the sink refused.
    pub fn of(record: usize, refusal: Refusal, attempts: u32) -> Letter {
        let reject = Reject::new(Reason::Refused, refusal.reason);
        // What was no refusal has no status.
        let status = Some(refusal.status).filter(|status| *status > 0);
        Letter { record, reject, status, attempts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(n: usize) -> Group {
        Group::new((0..n).collect(), None)
    }

    /// So many requests were sent, and all but the last few taken.
    fn seen(sent: u64, taken: u64) -> Seen {
        Seen { sent, taken }
    }

    /// How many failures it takes to halve it.
    fn halved_after(n: usize, cause: Cause, mut see: impl FnMut(u64) -> Seen) -> Option<u64> {
        let mut group = group(n);
        (1..100).find(|i| group.failed(cause, "500", see(*i)) == Next::Halve)
    }

    #[test]
    fn what_fails_again_and_again_is_halved_and_sooner_while_others_pass() {
        assert_eq!(halved_after(2000, Cause::Server, |i| seen(i, 0)), Some(4));
        assert_eq!(halved_after(2000, Cause::Server, |i| seen(2 * i, 2 * i - 1)), Some(2));
        assert_eq!(halved_after(16, Cause::Throttled, |i| seen(i, 0)), Some(8));
        assert_eq!(halved_after(16, Cause::Timeout, |i| seen(i, 0)), Some(8));
        // Who has too much to do takes nothing else, either.
        assert_eq!(halved_after(16, Cause::Timeout, |i| seen(2 * i, 2 * i - 1)), Some(2));
        let mut group = group(3);
        assert_eq!(group.refused("400".into(), seen(1, 0), false), Next::Halve);
        let [left, right] = group.halves();
        assert_eq!((left.records, right.records), (vec![0], vec![1, 2]));
    }

    #[test]
    fn a_record_alone_is_rejected_only_if_others_pass_in_between() {
        let mut down = group(1);
        assert!((8..1000).all(|n| down.failed(Cause::Server, "500", seen(n, 7)) == Next::Later));
        assert!((8..1000).all(|n| down.refused("400".into(), seen(n, 7), false) == Next::Later));
        // What was sent before it failed, and taken after, proves nothing.
        let mut late = group(1);
        assert!(!late.others_passed(seen(8, 3)) && !late.others_passed(seen(9, 8)));
        assert!(late.others_passed(seen(9, 9)));
        // The server comes back for others, and goes away again: each time counts once.
        let mut flaps = group(1);
        for n in 1..=8 {
            assert_eq!(flaps.failed(Cause::Server, "500", seen(10 * n, 10 * n - 1)), Next::Later);
            assert_eq!(
                flaps.failed(Cause::Server, "500", seen(10 * n + 1, 10 * n - 1)),
                Next::Later
            );
        }
        assert_eq!(flaps.failed(Cause::Server, "500", seen(90, 89)), Next::Reject);
        let mut busy = group(1);
        let mut failed = |n: u64| busy.failed(Cause::Throttled, "429", seen(2 * n, 2 * n - 1));
        assert_eq!((1..).find(|n| failed(*n) == Next::Reject), Some(31));
        // Others take longer than its pauses: those that were sent since the last that counted count.
        let mut hasty = group(1);
        let mut failed = |n: u64| hasty.failed(Cause::Server, "500", seen(n, n.saturating_sub(5)));
        assert_eq!((1..500).find(|n| failed(*n) == Next::Reject), Some(49));
    }

    #[test]
    fn the_other_half_has_its_turn_before_one_is_tried_again() {
        let mut whole = group(40);
        assert_eq!(whole.failed(Cause::Timeout, "", seen(1, 0)), Next::Again);
        let [mut left, _] = whole.halves();
        assert_eq!(left.failed(Cause::Timeout, "", seen(5, 0)), Next::AfterOther);
        // It has passed.
        assert_eq!(left.failed(Cause::Timeout, "", seen(7, 6)), Next::Halve);
        let mut alone = group(1);
        alone.took = Duration::from_secs(30);
        assert_eq!(alone.pause(Duration::from_secs(1)), Duration::from_secs(1));
        for n in 1..5 {
            alone.failed(Cause::Timeout, "", seen(2 * n, 2 * n - 1));
        }
        assert_eq!(alone.pause(Duration::from_secs(1)), Duration::from_secs(90));
    }

    #[test]
    fn a_refusal_is_believed_once_others_were_taken_since_it_was_part_of_one() {
        let mut whole = group(2);
        whole.refused("400".into(), seen(5, 4), false);
        let [mut first, mut second] = whole.halves();
        // Nothing was taken since: it may be refused as everything is.
        assert_eq!(first.refused("400".into(), seen(6, 5), false), Next::Later);
        assert!(first.is_suspect() && !second.is_suspect());
        assert_eq!(second.refused("400".into(), seen(8, 7), false), Next::Reject);
        assert_eq!(first.refused("400".into(), seen(9, 7), false), Next::Reject);
        assert_eq!(group(1).refused("400".into(), seen(1, 0), true), Next::Reject);
    }

    #[test]
    fn the_last_answers_are_kept() {
        let mut group = group(1);
        for answer in ["a", "a", "b", "c", "d", "d"] {
            group.failed(Cause::Server, answer, seen(1, 0));
        }
        assert_eq!(group.answers, ["b", "c", "d"]);
    }
}
