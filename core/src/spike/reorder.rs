//! Puts the past in order. Who catches up reads partitions one ahead of the other, and OPAs upload what they kept in any
//! order; the detector wants decisions as they were written, or as they happened.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Observation;
use crate::decision::ids::TraceId;
use crate::decision::time::Nanos;
use crate::decision::verdict::Verdict;

/// At most so many are held; then the first go on, whatever may still come.
const HELD: usize = 400_000;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    /// What they are ordered by.
    order: Nanos,
    /// In the order of arrival.
    count: u64,
    written: Nanos,
    kept: Kept,
}

/// An observation that is kept.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kept {
    at: Nanos,
    verdict: Verdict,
    trace_id: [u8; 16],
    /// Service, policy, who, decision id; each ends with a zero byte.
    text: Box<str>,
}

impl Kept {
    pub fn of(seen: &Observation<'_>) -> Kept {
        let texts =
            [seen.service, seen.policy].into_iter().chain(seen.who).chain([seen.decision_id]);
        let mut text = String::with_capacity(160);
        for one in texts {
            text.push_str(one);
            text.push('\0');
        }
        let trace_id = seen.trace_id.to_bytes();
        Kept { at: seen.at, verdict: seen.verdict, trace_id, text: text.into() }
    }

    pub fn seen(&self) -> Observation<'_> {
        let mut texts = self.text.split('\0');
        let mut next = || texts.next().unwrap_or_default();
        let (service, policy) = (next(), next());
        let who = std::array::from_fn(|_| next());
        Observation {
            at: self.at,
            service,
            policy,
            verdict: self.verdict,
            who,
            trace_id: TraceId::from_bytes(self.trace_id),
            decision_id: next(),
        }
    }
}

/// Is given a decision, and when it was written.
type Take<'t> = dyn FnMut(&Observation<'_>, Nanos) + 't;

#[derive(Debug, Default)]
pub struct Reorder {
    heap: BinaryHeap<Reverse<Held>>,
    count: u64,
}

impl Reorder {
    pub fn push(&mut self, order: Nanos, written: Nanos, seen: &Observation<'_>) {
        self.count += 1;
        let held = Held { order, count: self.count, written, kept: Kept::of(seen) };
        self.heap.push(Reverse(held));
    }

    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Hands on, in order, what comes no later than `to`; and the first of what is more than can be held.
    pub fn release(&mut self, to: Nanos, take: &mut Take<'_>) {
        while let Some(Reverse(held)) = self.heap.peek() {
            if held.order > to && self.heap.len() <= HELD {
                break;
            }
            let Some(Reverse(held)) = self.heap.pop() else { break };
            take(&held.kept.seen(), held.written);
        }
    }

    /// Hands on what is more than can be held.
    pub fn hold(&mut self, take: &mut Take<'_>) {
        self.release(Nanos::MIN, take);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spike::SECOND;

    #[test]
    fn what_came_out_of_order_goes_on_in_order() {
        let mut reorder = Reorder::default();
        let mut out = Vec::new();
        for minute in [30, 10, 70, 20, 95, 80] {
            let id = minute.to_string();
            let who = ["r", "", "s", "", "a", "t"];
            let at = minute * 60 * SECOND;
            reorder.push(
                at,
                at + 1,
                &Observation {
                    at,
                    service: "x",
                    policy: "p",
                    verdict: Verdict::Deny,
                    who,
                    trace_id: TraceId::INVALID,
                    decision_id: &id,
                },
            );
            reorder.release((minute - 60) * 60 * SECOND, &mut |seen, written| {
                assert_eq!((seen.service, seen.policy, seen.who), ("x", "p", who));
                assert_eq!(written, seen.at + 1);
                out.push(seen.decision_id.to_owned());
            });
        }
        assert_eq!(out, ["10", "20", "30"]);
        reorder.release(Nanos::MAX, &mut |seen, _| out.push(seen.decision_id.to_owned()));
        assert_eq!(out, ["10", "20", "30", "70", "80", "95"]);
    }
}
