//! What is said of a request, and of a decision, once all that bears on it must have come.

use super::super::store::{DECISION, REQUEST, TRACE};
use super::super::{Asked, Finding, FindingKind, Side, Undecidable, rank};
use super::{Join, Out, Sink};
use crate::decision::time::Nanos;
use crate::decision::verdict::Verdict;
use crate::facts::{Fact, Kind, Marks, Packed, Status};

/// What is to be said of a request or a decision.
enum Judged {
    Fine,
    ByDesign,
    Undecidable(Undecidable),
    Found(Box<Finding>),
}

/// An answer that says that somebody may not.
fn refused(status: Status) -> bool {
    match status.grpc {
        Some(code) => matches!(code, 7 | 16),
        None => matches!(status.http, Some(401 | 403)),
    }
}

impl<D> Join<D> {
    pub(super) fn judge_facts(&mut self, decisions: Nanos, out: Sink<'_, D>) {
        let after = self.settings.window + self.settings.skew;
        for partition in self.facts.partitions() {
            let judged = self.restored.get(&(Side::Facts, partition)).map_or(0, |p| p.judged);
            while let Some(slot) = self.facts.unjudged(partition) {
                if self.facts.time(slot).saturating_add(after) > decisions {
                    break;
                }
                if self.facts.place(slot).offset >= judged {
                    let judged = self.judge_fact(slot);
                    self.conclude(judged, out);
                }
                self.facts.judged(partition);
            }
        }
    }

    pub(super) fn judge_decisions(&mut self, facts: Nanos, out: Sink<'_, D>) {
        let after = self.settings.window + self.settings.skew;
        for partition in self.decisions.partitions() {
            while let Some(slot) = self.decisions.unjudged(partition) {
                let Some(waiting) = self.decisions.get(slot) else { break };
                if !waiting.given_out() || waiting.asked.time.saturating_add(after) > facts {
                    break;
                }
                if !waiting.was_judged {
                    let judged = self.judge_decision(slot);
                    self.conclude(judged, out);
                }
                self.decisions.judged(partition);
            }
        }
    }

    fn conclude(&mut self, judged: Judged, out: Sink<'_, D>) {
        match judged {
            Judged::Fine => {}
            Judged::ByDesign => self.counts.by_design += 1,
            Judged::Undecidable(why) => *self.counts.undecidable.entry(why).or_default() += 1,
            Judged::Found(finding) => {
                *self.counts.findings.entry(finding.kind).or_default() += 1;
                if self.rates.allow(&finding, self.watch.per_minute) {
                    out(Out::Finding(*finding));
                } else {
                    self.counts.suppressed += 1;
                }
            }
        }
    }

    fn judge_fact(&self, slot: u32) -> Judged {
        let Some(fact) = self.facts.get(slot).and_then(|bytes| Packed::of(bytes).fact().ok())
        else {
            return Judged::Fine;
        };
        if !fact.kind.is_evidence() || self.watch.excepts(&fact) || self.is_copy(slot) {
            return Judged::Fine;
        }
        let found = |kind, asked| Judged::Found(Box::new(Finding::of(kind, Some(&fact), asked)));
        if fact.marks.has(Marks::FAILURE_MODE_ALLOWED) || fact.marks.has(Marks::FAILED_OPEN) {
            return found(FindingKind::FailedOpen, None);
        }
        let (ruled, shared) = self.ruled(slot, &fact);
        let served = fact.status.served() == Some(true);
        let enforced = || ruled.iter().filter(|asked| self.watch.enforces(asked));
        if let Some(denied) = enforced().find(|asked| asked.verdict == Verdict::Deny) {
            let dry_run = fact.marks.has(Marks::DRY_RUN) || self.watch.is_dry_run(denied);
            return match () {
                () if !served => Judged::Fine,
                () if dry_run => Judged::ByDesign,
                () if shared => Judged::Undecidable(Undecidable::SharedId),
                () => found(FindingKind::DeniedButServed, Some(denied)),
            };
        }
        let watched = self.watch.watches(&fact);
        if let Some(allowed) = enforced().find(|asked| asked.verdict == Verdict::Allow) {
            return match () {
                () if !watched => Judged::Fine,
                // One hop was allowed; whether the other was is not known.
                () if shared && (served || refused(fact.status)) => {
                    Judged::Undecidable(Undecidable::SharedId)
                }
                () if refused(fact.status) => found(FindingKind::AllowedButRefused, Some(allowed)),
                () => Judged::Fine,
            };
        }
        if !watched || !served || enforced().next().is_some() {
            return Judged::Fine;
        }
        let skew = self.settings.skew;
        let missing = self.gaps[Side::Decisions as usize].over(fact.start - skew, fact.end + skew);
        match missing {
            Some(why) => Judged::Undecidable(why),
            None if self.settings.key.is_some_and(|key| !key.has_fact(&fact)) => {
                Judged::Undecidable(Undecidable::NoKey)
            }
            None if !fact.decision_id.is_empty() => Judged::Undecidable(Undecidable::DecisionLost),
            None if shared => Judged::Undecidable(Undecidable::SharedId),
            None if fact.end - fact.start > self.settings.window => {
                Judged::Undecidable(Undecidable::LongRequest)
            }
            None => found(FindingKind::ServedWithoutDecision, None),
        }
    }

    /// Whether it came before: agents send a line again when they don't know whether it arrived.
    fn is_copy(&self, slot: u32) -> bool {
        let keys = self.facts.keys(slot);
        let by = [DECISION, REQUEST, TRACE].into_iter().find(|which| keys[*which] != 0);
        let Some(which) = by else { return false };
        let mut before = self.facts.with(which, keys[which]).take_while(|other| *other != slot);
        before.any(|other| self.facts.get(other) == self.facts.get(slot))
    }

    /// The decisions that ruled on a request, by keys that are exact; and whether they may be another request's.
    fn ruled(&self, slot: u32, fact: &Fact<'_>) -> (Vec<&Asked>, bool) {
        let keys = self.facts.keys(slot);
        let of = |which: usize| {
            self.decisions
                .with(which, keys[which])
                .filter_map(|slot| Some(&self.decisions.get(slot)?.asked))
        };
        let by_id: Vec<&Asked> = of(DECISION).collect();
        if !by_id.is_empty() || !fact.decision_id.is_empty() {
            return (by_id, false);
        }
        let near = |asked: &&Asked| {
            let within = self.settings.window + self.settings.skew;
            asked.time >= fact.start - within && asked.time <= fact.end + within
        };
        let mut ruled: Vec<&Asked> = of(REQUEST).filter(near).collect();
        let shared = !ruled.is_empty()
            && self.facts.with(REQUEST, keys[REQUEST]).any(|other| {
                let kind = self.facts.get(other).and_then(|bytes| Packed::of(bytes).kind());
                kind.is_some_and(Kind::is_evidence) && self.facts.get(other) != self.facts.get(slot)
            });
        let asked_by =
            |asked: &&Asked| fact.span.is_some() && asked.parent == fact.span && !asked.engines_own;
        ruled.extend(of(TRACE).filter(asked_by));
        (ruled, shared)
    }

    fn judge_decision(&self, slot: u32) -> Judged {
        let Some(waiting) = self.decisions.get(slot) else { return Judged::Fine };
        let asked = &waiting.asked;
        if !self.watch.expects_requests || !self.watch.enforces(asked) {
            return Judged::Fine;
        }
        let keys = self.decisions.keys(slot);
        if waiting.rank.is_some() || rank::best(&self.facts, asked, keys, &self.settings).is_some()
        {
            return Judged::Fine;
        }
        let skew = self.settings.skew;
        let to = asked.time + self.settings.window + skew;
        match self.gaps[Side::Facts as usize].over(asked.time - skew, to) {
            Some(why) => Judged::Undecidable(why),
            None if self.settings.key.is_some_and(|key| !key.has_decision(asked)) => {
                Judged::Undecidable(Undecidable::NoKey)
            }
            None if self.watch.sampled.is_match(&*asked.service) => {
                Judged::Undecidable(Undecidable::Sampled)
            }
            None => {
                let kind = FindingKind::DecisionWithoutRequest;
                Judged::Found(Box::new(Finding::of(kind, None, Some(asked))))
            }
        }
    }
}
