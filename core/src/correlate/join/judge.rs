//! What is said of a request, and of a decision, once all that bears on it must have come.

use super::super::store::{DECISION, REQUEST, TRACE};
use super::super::{Asked, Finding, FindingKind, Settings, Side, Undecidable, rank};
use super::{Join, Out, Sink};
use crate::decision::time::Nanos;
use crate::decision::verdict::Verdict;
use crate::facts::{Fact, Kind, Marks, Packed, Status};

/// What is to be said of a request or a decision.
enum Judged {
    /// There is nothing to be said of it.
    Unasked,
    Fine,
    ByDesign,
    Undecidable(Undecidable),
    Found(Box<Finding>),
}

/// What ruled on a request.
struct Ruled<'j> {
    by: Vec<&'j Asked>,
    /// They may be another request's.
    shared: bool,
    /// Others may have, and are not known any more.
    missing: Option<Undecidable>,
}

/// An answer that says that somebody may not.
fn refused(status: Status) -> bool {
    match status.grpc {
        Some(code) => matches!(code, 7 | 16),
        None => matches!(status.http, Some(401 | 403)),
    }
}

impl<D> Join<D> {
    pub(super) fn judge_facts(&mut self, whole: Nanos, out: Sink<'_, D>) {
        let after = self.settings.window + self.settings.skew;
        for partition in self.facts.partitions() {
            let judged = self.restored.get(&(Side::Facts, partition)).map_or(0, |p| p.judged);
            while let Some(slot) = self.facts.unjudged(partition) {
                if self.facts.time(slot).saturating_add(after) > whole {
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

    pub(super) fn judge_decisions(&mut self, whole: Nanos, out: Sink<'_, D>) {
        let after = self.settings.window + self.settings.skew;
        for partition in self.decisions.partitions() {
            while let Some(slot) = self.decisions.unjudged(partition) {
                let Some(waiting) = self.decisions.get(slot) else { break };
                if !waiting.given_out() || self.decisions.time(slot).saturating_add(after) > whole {
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
        self.counts.judged += u64::from(!matches!(judged, Judged::Unasked));
        match judged {
            Judged::Unasked | Judged::Fine => {}
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
            return Judged::Unasked;
        };
        if !fact.kind.is_evidence() || self.watch.excepts(&fact) || self.is_copy(slot) {
            return Judged::Unasked;
        }
        if let Some(why) = self.is_late(slot, &fact) {
            return Judged::Undecidable(why);
        }
        let found = |kind, asked| Judged::Found(Box::new(Finding::of(kind, Some(&fact), asked)));
        if fact.marks.has(Marks::FAILURE_MODE_ALLOWED) || fact.marks.has(Marks::FAILED_OPEN) {
            return found(FindingKind::FailedOpen, None);
        }
        let ruled = self.ruled(slot, &fact);
        let served = fact.status.served() == Some(true);
        let enforced = || ruled.by.iter().filter(|asked| self.watch.enforces(asked));
        let denied = enforced().find(|asked| asked.verdict == Verdict::Deny);
        let allowed = enforced().find(|asked| asked.verdict == Verdict::Allow);
        if let Some(denied) = denied {
            let dry_run = fact.marks.has(Marks::DRY_RUN) || self.watch.is_dry_run(denied);
            return match () {
                () if !served => Judged::Fine,
                () if dry_run => Judged::ByDesign,
                // Which of them is this request's is not known.
                () if ruled.shared || allowed.is_some() => {
                    Judged::Undecidable(Undecidable::SharedId)
                }
                () => match ruled.missing {
                    Some(why) => Judged::Undecidable(why),
                    None => found(FindingKind::DeniedButServed, Some(denied)),
                },
            };
        }
        let watched = self.watch.watches(&fact);
        if let Some(allowed) = allowed {
            return match () {
                () if !watched => Judged::Unasked,
                // One hop was allowed; whether the other was is not known.
                () if ruled.shared && (served || refused(fact.status)) => {
                    Judged::Undecidable(Undecidable::SharedId)
                }
                () if refused(fact.status) => match ruled.missing {
                    Some(why) => Judged::Undecidable(why),
                    None => found(FindingKind::AllowedButRefused, Some(allowed)),
                },
                () => Judged::Fine,
            };
        }
        match () {
            () if !watched => return Judged::Unasked,
            () if !served || enforced().next().is_some() => return Judged::Fine,
            () => {}
        }
        match self.why_unasked(slot, &fact, ruled.shared) {
            Some(why) => Judged::Undecidable(why),
            None => found(FindingKind::ServedWithoutDecision, None),
        }
    }

    /// Why it proves nothing that there is no decision about a request.
    fn why_unasked(&self, slot: u32, fact: &Fact<'_>, shared: bool) -> Option<Undecidable> {
        let Settings { window, skew, key, .. } = self.settings;
        let (keys, end) = (self.facts.keys(slot), self.facts.time(slot));
        let gaps = &self.gaps[Side::Decisions as usize];
        let enforced =
            |slot| self.decisions.get(slot).is_some_and(|w| self.watch.enforces(&w.asked));
        let missing = gaps
            .over(fact.start - skew, fact.end + skew)
            .or_else(|| self.is_gone(Side::Decisions, slot, fact));
        match missing {
            Some(why) => Some(why),
            None if key.is_some_and(|key| !key.has_fact(fact)) => Some(Undecidable::NoKey),
            None if !fact.decision_id.is_empty() => Some(Undecidable::DecisionLost),
            None if fact.end > end.saturating_add(skew) => Some(Undecidable::Clock),
            // A decision of another time has its ID: a clock is wrong, or a client chose it twice.
            None if shared || self.decisions.with(REQUEST, keys[REQUEST]).any(enforced) => {
                Some(Undecidable::SharedId)
            }
            None if fact.end - fact.start > window => Some(Undecidable::LongRequest),
            None => None,
        }
    }

    /// Whether what happened at its time on a side is not here any more.
    fn is_gone(&self, side: Side, slot: u32, fact: &Fact<'_>) -> Option<Undecidable> {
        // Both sides are in partitions of one number only where one key brought them together.
        let partition = self.settings.key.map(|_| self.facts.place(slot).partition);
        let since = match side {
            Side::Decisions => self.decisions.since(partition),
            Side::Facts => self.facts.since(partition),
        };
        (self.needs(fact, self.facts.time(slot)) <= since).then_some(Undecidable::Late)
    }

    /// A line that was sent again may come when that of before is forgotten.
    fn is_late(&self, slot: u32, fact: &Fact<'_>) -> Option<Undecidable> {
        let since = self.facts.since(Some(self.facts.place(slot).partition));
        // Its clock may be ahead.
        let late = since > 0 && fact.end <= since.saturating_add(self.settings.skew);
        late.then_some(Undecidable::Late)
    }

    pub(super) fn is_evidence(&self, slot: u32) -> bool {
        let kind = self.facts.get(slot).and_then(|bytes| Packed::of(bytes).kind());
        kind.is_some_and(Kind::is_evidence)
    }

    /// Whether it came before: agents send a line again when they don't know whether it arrived.
    fn is_copy(&self, slot: u32) -> bool {
        let keys = self.facts.keys(slot);
        let by = [DECISION, REQUEST, TRACE].into_iter().find(|which| keys[*which] != 0);
        let Some(which) = by else { return false };
        let mut before = self.facts.with(which, keys[which]).take_while(|other| *other != slot);
        before.any(|other| self.facts.get(other) == self.facts.get(slot))
    }

    /// The decisions that ruled on a request, by keys that are exact.
    fn ruled(&self, slot: u32, fact: &Fact<'_>) -> Ruled<'_> {
        let keys = self.facts.keys(slot);
        let of = |which: usize| {
            self.decisions
                .with(which, keys[which])
                .filter_map(|slot| Some(&self.decisions.get(slot)?.asked))
        };
        let by: Vec<&Asked> = of(DECISION).collect();
        if !by.is_empty() || !fact.decision_id.is_empty() {
            return Ruled { by, shared: false, missing: None };
        }
        let near = |asked: &&Asked| {
            let within = self.settings.window + self.settings.skew;
            asked.time >= fact.start - within && asked.time <= fact.end + within
        };
        let mut by: Vec<&Asked> = of(REQUEST).filter(near).collect();
        let shared = !by.is_empty()
            && self.facts.with(REQUEST, keys[REQUEST]).any(|other| {
                self.is_evidence(other) && self.facts.get(other) != self.facts.get(slot)
            });
        let asked_by =
            |asked: &&Asked| fact.span.is_some() && asked.parent == fact.span && !asked.engines_own;
        by.extend(of(TRACE).filter(asked_by));
        let within = self.settings.window + self.settings.skew;
        let (from, to) = (fact.start - within, fact.end + within);
        let missing = [Side::Decisions, Side::Facts].into_iter().find_map(|side| {
            let gap = self.gaps[side as usize].gap(from, to).then_some(Undecidable::Gap);
            gap.or_else(|| self.is_gone(side, slot, fact))
        });
        Ruled { by, shared, missing }
    }

    fn judge_decision(&self, slot: u32) -> Judged {
        let Some(waiting) = self.decisions.get(slot) else { return Judged::Unasked };
        let asked = &waiting.asked;
        if !self.watch.expects_requests || !self.watch.enforces(asked) {
            return Judged::Unasked;
        }
        let keys = self.decisions.keys(slot);
        if waiting.rank.is_some() || rank::best(&self.facts, asked, keys, &self.settings).is_some()
        {
            return Judged::Fine;
        }
        let Settings { window, skew, key, .. } = self.settings;
        let (at, partition) = (asked.time, self.decisions.place(slot).partition);
        let since = self.facts.since(key.map(|_| partition));
        let happened = self.decisions.time(slot);
        match self.gaps[Side::Facts as usize].over(at - skew, at + window + skew) {
            Some(why) => Judged::Undecidable(why),
            None if happened.min(at) - window - skew <= since => {
                Judged::Undecidable(Undecidable::Late)
            }
            None if at > happened.saturating_add(skew) => Judged::Undecidable(Undecidable::Clock),
            None if key.is_some_and(|key| !key.has_decision(asked)) => {
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
