//! A new revision that answers otherwise than the one before.

use super::Series;
use crate::spike::config::Config;
use crate::spike::trial::{ShutOut, Trial};
use crate::spike::window::FIVE_MINUTES;
use crate::spike::{BUCKET, Cause, Change, Dimension, Finding, Kind, SECOND};

/// A new revision is compared with the one before for so long: 10 min.
const TRIAL: i64 = 600 * SECOND / BUCKET;
/// Whether it shuts somebody out is looked at so often: each 10 s.
const LOOK: i64 = 10 * SECOND / BUCKET;
/// Of what is certain for some, all show so much.
const TRACE: f64 = 0.15;

impl Series {
    /// Whether a new revision answers otherwise than the one before.
    pub(super) fn shift(&mut self, at: i64, config: &Config, changes: &mut Vec<Change>) {
        if let Some((finding, since)) = &mut self.shift
            && at - *since > TRIAL
        {
            finding.ended = Some((at + 1) * BUCKET);
            changes.extend(self.shift.take().map(|(f, _)| Change::Ends(f)));
        }
        let Some(trial) = &self.trial else { return };
        if at - trial.since > TRIAL {
            self.trial = None;
            return;
        }
        let busy = self.spikes.iter().chain([&self.vanished]).any(|w| w.active.is_some());
        let (all, denied) = (f64::from(trial.counts.all), f64::from(trial.counts.bad[0]));
        if busy || all < 50.0 || self.shift.is_some() {
            return;
        }
        let (now, before) = (denied / all, trial.before.clamp(1e-4, 1.0 - 1e-4));
        let score = trial.score() / self.learner.dispersion[0][3].get();
        let less = now <= before / 2.0 && (before - now) * all >= 2.0 * config.floor;
        let more = now >= before + 0.05
            && now >= 1.5 * before
            && (now - before) * all >= 2.0 * config.floor;
        let whole = (less || more) && score >= config.certainty;
        let looks = (whole || at % LOOK == 0) && (now - before) * all >= config.floor;
        let shut_out = if looks { trial.shut_out() } else { None };
        let shut_out = shut_out.filter(|some| is_told(some, trial, config));
        if !whole && shut_out.is_none() {
            return;
        }
        let mut finding = Finding::new(Kind::RevisionShift, &self.service, &self.policy);
        finding.causes.push(Cause::whole(Dimension::Revision, &trial.revision));
        finding.begin(trial.since, at);
        finding.onset = finding.onset.max(trial.began);
        (finding.observed, finding.expected, finding.decisions, finding.score) =
            (denied as u64, before * all, all as u64, score);
        if let Some(some) = shut_out {
            finding.score = some.score;
            finding.detail = some.to_string();
        }
        if !less {
            let (causes, examples) =
                self.memory.causes(0, finding.onset, finding.observed, finding.expected, &[]);
            let others = causes.into_iter().filter(|c| c.dimension != Dimension::Revision);
            finding.causes.extend(others);
            finding.examples = examples;
        }
        if less {
            // It is over when denials are back.
            self.learner.flag(0, trial.since);
            self.vanished.begins(&finding, FIVE_MINUTES, at);
        } else {
            self.shift = Some((finding.clone(), at));
        }
        self.trial = None;
        changes.push(Change::Begins(finding));
    }
}

/// Whether it is so certain that some are shut out: of what has its own past a part is denied, and all of the decisions show a trace of it.
fn is_told(some: &ShutOut, trial: &Trial, config: &Config) -> bool {
    some.score >= config.certainty
        && f64::from(some.denied) >= config.floor
        && trial.score() >= TRACE * config.certainty
}
