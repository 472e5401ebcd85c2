//! Puts the past in order. Who catches up reads partitions one ahead of the other, so that decisions stand in the docket by
//! up to an hour out of order; the detector wants them as they happened.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Observation, SECOND};
use crate::decision::ids::TraceId;
use crate::decision::time::Nanos;
use crate::decision::verdict::Verdict;

/// What is out of order by more is late.
const SLACK: Nanos = 3600 * SECOND;
/// At most so many are held; then the oldest go on, whatever may still come.
const HELD: usize = 400_000;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    at: Nanos,
    /// In the order of arrival.
    count: u64,
    verdict: Verdict,
    trace_id: [u8; 16],
    /// Service, policy, who, decision id; each ends with a zero byte.
    text: Box<str>,
}

#[derive(Debug, Default)]
pub struct Reorder {
    heap: BinaryHeap<Reverse<Held>>,
    count: u64,
}

impl Reorder {
    pub fn push(&mut self, seen: &Observation<'_>) {
        let texts =
            [seen.service, seen.policy].into_iter().chain(seen.who).chain([seen.decision_id]);
        let mut text = String::with_capacity(160);
        for one in texts {
            text.push_str(one);
            text.push('\0');
        }
        self.count += 1;
        let held = Held {
            at: seen.at,
            count: self.count,
            verdict: seen.verdict,
            trace_id: seen.trace_id.to_bytes(),
            text: text.into(),
        };
        self.heap.push(Reverse(held));
    }

    /// Hands on, in order, what nothing older can be expected of: every partition was read up to `slowest`; all of it
    /// for `Nanos::MAX`. Returns up to which time that is.
    pub fn release(&mut self, slowest: Nanos, take: &mut dyn FnMut(&Observation<'_>)) -> Nanos {
        let mut to = if slowest == Nanos::MAX { slowest } else { slowest.saturating_sub(SLACK) };
        while let Some(Reverse(held)) = self.heap.peek() {
            if held.at >= to && self.heap.len() <= HELD {
                break;
            }
            to = to.max(held.at);
            let Some(Reverse(held)) = self.heap.pop() else { break };
            let mut texts = held.text.split('\0');
            let mut next = || texts.next().unwrap_or_default();
            let (service, policy) = (next(), next());
            let who = [next(), next(), next(), next(), next()];
            take(&Observation {
                at: held.at,
                service,
                policy,
                verdict: held.verdict,
                who,
                trace_id: TraceId::from_bytes(held.trace_id),
                decision_id: next(),
            });
        }
        to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_out_of_order_goes_on_in_order() {
        let mut reorder = Reorder::default();
        let mut out = Vec::new();
        for minute in [30, 10, 70, 20, 95, 80] {
            let id = minute.to_string();
            let who = ["r", "", "s", "", "a"];
            reorder.push(&Observation {
                at: minute * 60 * SECOND,
                service: "x",
                policy: "p",
                verdict: Verdict::Deny,
                who,
                trace_id: TraceId::INVALID,
                decision_id: &id,
            });
            let to = reorder.release(minute * 60 * SECOND, &mut |seen| {
                assert_eq!((seen.service, seen.policy, seen.who), ("x", "p", who));
                out.push(seen.decision_id.to_owned());
            });
            assert_eq!(to, (minute - 60) * 60 * SECOND);
        }
        assert_eq!(out, ["10", "20", "30"]);
        reorder.release(Nanos::MAX, &mut |seen| out.push(seen.decision_id.to_owned()));
        assert_eq!(out, ["10", "20", "30", "70", "80", "95"]);
    }
}
