//! Denials that stop although decisions go on.

use super::{ADAPT, Series};
use crate::spike::baseline::{bucket, improbable};
use crate::spike::config::Config;
use crate::spike::window::{FIVE_MINUTES, SPANS};
use crate::spike::{BUCKET, Cause, Change, Dimension, Finding, Kind};

/// What was so for this many times `learn` (an hour) is missed: what docket saw first may have been an attack.
const HELD: i64 = 6;

impl Series {
    pub(super) fn vanish(&mut self, at: i64, config: &Config, changes: &mut Vec<Change>) {
        if self.vanished.active.is_some() {
            let span = usize::try_from(at - self.vanished.since).unwrap_or(0).min(FIVE_MINUTES);
            let sum = self.window.span(span);
            let (by_time, by_traffic) =
                self.learner.level.expected(0, span as f64, sum.good as f64);
            let back = sum.bad[0] as f64 >= (0.5 * by_time.min(by_traffic)).max(3.0);
            let adapted = at - self.vanished.since > ADAPT;
            if back || adapted {
                let mut watch = std::mem::take(&mut self.vanished);
                if let Some(finding) = &mut watch.active {
                    finding.ended = Some((at + 1) * BUCKET);
                    changes.push(Change::Ends(finding.clone()));
                }
                self.learner.flagged_to(0, at);
                self.said_to[0] = at;
                if adapted {
                    self.learner.adapt(0, at);
                }
            }
            return;
        }
        let busy = self.spikes.iter().any(|w| w.active.is_some())
            || self.shift.is_some()
            || self.heartbeat.gap > 0;
        if busy {
            return;
        }
        let found = SPANS
            .into_iter()
            .enumerate()
            .skip(2)
            .take_while(|(_, span)| at - (*span as i64) >= self.said_to[0])
            .find_map(|(i, span)| {
                let sum = self.window.span(span);
                // Who asks no more is not missed.
                let there = 1.0 - self.memory.absent(span as u32 / 2);
                let least = there * self.learner.least(at, span, sum.good as f64);
                let seen = sum.bad[0] as f64;
                let score = if seen < least {
                    improbable(seen, least, self.learner.dispersion[0][i].get())
                } else {
                    0.0
                };
                (least >= 20.0 && seen <= 0.15 * least && score >= config.certainty)
                    .then_some((span, sum, least, score))
            });
        let Some((span, sum, least, score)) = found else { return };
        let usual = least / span as f64;
        let now = (sum.bad[0] as f64 / span as f64).max(0.05 * usual);
        let long = self.changed(0, at, usual, now) as i64;
        if (at + 1 - long - self.born) * BUCKET < HELD * config.learn {
            // So it was at first, and not for long: it was no norm. Nor is it a spike, now that it is over.
            self.learner.without(0, 1.0 - sum.bad[0] as f64 / least);
            self.said_to[0] = at;
            return;
        }
        let mut finding = Finding::new(Kind::DenialsVanished, &self.service, &self.policy);
        finding.begin(at + 1 - long, at);
        (finding.observed, finding.expected, finding.decisions, finding.score) =
            (sum.bad[0], least, sum.all, score);
        finding.causes.extend(
            self.trial.as_ref().map(|trial| Cause::whole(Dimension::Revision, &trial.revision)),
        );
        self.learner.flag(0, bucket(finding.onset));
        self.vanished.begins(&finding, span, at);
        changes.push(Change::Begins(finding));
    }
}
