//! A revision that is new to a policy: whether it denies another part than others did before it, of all, or nearly everything
//! of some who were allowed. A tenant that a new bundle shuts out has a few hundredths of the traffic: the whole hardly moves, and yet
//! nothing is more certain, since each value of a dimension is compared with its own past.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::baseline::{Counts, improbable_part};
use super::{Dimension, Observation, SECOND};
use crate::decision::time::Nanos;
use crate::words::counted;

/// By whose values a revision is judged.
pub const JUDGED: [Dimension; 3] = [Dimension::Tenant, Dimension::Subject, Dimension::Resource];
/// So many values of a dimension are known.
const KNOWN: usize = 512;
/// A value is known with so many decisions at least; what more of them than the second say is left to doubt.
const LEAST: f64 = 2.0;
const MOST: f64 = 100.0;
/// What is asked within so many buckets (10 s) counts once: who is denied tries again.
const ONCE: i64 = 10 * SECOND / super::BUCKET;
/// Of who is shut out so much is denied.
const DENIED: f64 = 0.95;
/// Perhaps so many of all are shut out.
const PARTS: [f64; 5] = [0.005, 0.02, 0.06, 0.15, 0.4];

/// A value in a dimension, by its hash (FNV-1a, and mixed: the least ones are to be a fair sample). What is kept is told by it: it stays as it is.
pub fn hash(value: &str) -> u64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let hash = value.bytes().fold(0xcbf2_9ce4_8422_2325, fnv);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

/// Decisions and denials of a dimension's values; newer ones weigh more. Of too many values those are known whose hashes are
/// least: a sample, of which each is counted exactly.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, f32, f32)>", into = "Vec<(u64, f32, f32)>")]
pub struct Cohort(BTreeMap<u64, (f32, f32)>);

impl From<Vec<(u64, f32, f32)>> for Cohort {
    fn from(kept: Vec<(u64, f32, f32)>) -> Cohort {
        Cohort(kept.into_iter().map(|(hash, all, denied)| (hash, (all, denied))).collect())
    }
}

impl From<Cohort> for Vec<(u64, f32, f32)> {
    fn from(cohort: Cohort) -> Vec<(u64, f32, f32)> {
        cohort.0.into_iter().map(|(hash, (all, denied))| (hash, all, denied)).collect()
    }
}

impl Cohort {
    pub fn note(&mut self, hash: u64, weight: f64, denied: bool) {
        if self.0.len() >= KNOWN && self.0.last_key_value().is_some_and(|(last, _)| *last < hash) {
            return;
        }
        let known = self.0.entry(hash).or_default();
        known.0 += weight as f32;
        known.1 += if denied { weight as f32 } else { 0.0 };
        if self.0.len() > KNOWN {
            self.0.pop_last();
        }
    }

    /// Who has not been seen for long makes room.
    pub fn fade(&mut self, factor: f64) {
        self.0.retain(|_, (all, denied)| {
            (*all, *denied) = (*all * factor as f32, *denied * factor as f32);
            *all > 0.01
        });
    }

    /// Decisions and denials, where there are enough of them; a decision of now weighs so much.
    pub fn get(&self, hash: u64, weight: f64) -> Option<(f64, f64)> {
        let (all, denied) = self.0.get(&hash)?;
        let (all, denied) = (f64::from(*all) / weight, f64::from(*denied) / weight);
        (all >= LEAST).then_some((all, denied))
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trial {
    pub revision: String,
    pub since: i64,
    /// When its first decision was made.
    #[serde(default)]
    pub began: Nanos,
    pub counts: Counts,
    /// The part that was denied before, and of how many decisions.
    pub before: f64,
    #[serde(default)]
    pub known: f64,
    /// Values that were known before, as `JUDGED`.
    #[serde(default)]
    tried: [BTreeMap<u64, Tried>; JUDGED.len()],
}

/// A value under the new revision.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Tried {
    /// Its decisions and denials before.
    before: (f64, f64),
    all: u32,
    denied: u32,
    /// Times that count once, and those of them that were denied; when the one that goes on is, and its decisions and denials.
    times: u32,
    bad: u32,
    now: i64,
    open: (u32, u32),
}

/// Of the latest time: nearly everything was denied.
fn is_bad((all, denied): (u32, u32)) -> bool {
    f64::from(denied) >= 0.9 * f64::from(all)
}

impl Tried {
    fn note(&mut self, at: i64, is_denied: bool) {
        let now = at.div_euclid(ONCE);
        if now != self.now && self.open.0 > 0 {
            self.times += 1;
            self.bad += u32::from(is_bad(self.open));
            self.open = (0, 0);
        }
        self.now = now;
        self.all += 1;
        self.denied += u32::from(is_denied);
        self.open = (self.open.0 + 1, self.open.1 + u32::from(is_denied));
    }

    /// How much likelier it is that it is shut out than that it goes on as before, as an exponent of e. `usual`: the part that is
    /// denied of all.
    fn evidence(&self, usual: f64) -> f64 {
        let times = self.times + u32::from(self.open.0 > 0);
        let bad = self.bad + u32::from(self.open.0 > 0 && is_bad(self.open));
        let (all, denied) = self.before;
        let doubt = (MOST / all).min(1.0);
        // As many of each as are known, and one of all: what comes teaches, too (a beta-binomial).
        let mut denials = usual + denied * doubt;
        let mut others = 1.0 - usual + (all - denied).max(0.0) * doubt;
        let (mut total, mut evidence) = (1.0 + all * doubt, 0.0_f64);
        for time in 0..times {
            let (as_before, shut_out) =
                if time < bad { (&mut denials, DENIED) } else { (&mut others, 1.0 - DENIED) };
            evidence += (shut_out * total / *as_before).ln();
            *as_before += 1.0;
            total += 1.0;
        }
        evidence
    }
}

/// Who is shut out by a revision: how many of a dimension's values, and what of theirs is denied.
#[derive(Debug)]
pub struct ShutOut {
    pub dimension: Dimension,
    pub values: usize,
    pub all: u32,
    pub denied: u32,
    /// How much likelier that is than that nothing changed for anybody, as an exponent of e.
    pub score: f64,
}

impl std::fmt::Display for ShutOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let who = counted(self.values as u64, self.dimension.as_str());
        let are = if self.values == 1 { "is" } else { "are" };
        let ShutOut { denied, all, .. } = self;
        write!(f, "{who} {are} denied nearly everything now, {denied} of {all} decisions")
    }
}

impl Trial {
    pub fn new(revision: &str, at: i64, began: Nanos, before: f64, known: f64) -> Trial {
        Trial {
            revision: revision.into(),
            since: at,
            began,
            counts: Counts::default(),
            before,
            known,
            tried: Default::default(),
        }
    }

    /// It decided. `known`: what was known of a value, by its dimension among `JUDGED`.
    pub fn note(
        &mut self,
        seen: &Observation<'_>,
        signal: Option<usize>,
        at: i64,
        known: impl Fn(usize, u64) -> Option<(f64, f64)>,
    ) {
        self.counts.all += 1;
        if let Some(signal) = signal {
            self.counts.bad[signal] += 1;
        }
        for (i, dimension) in JUDGED.into_iter().enumerate() {
            let value = seen.who[dimension as usize];
            if value.is_empty() {
                continue;
            }
            let hash = hash(value);
            let tried = match self.tried[i].get_mut(&hash) {
                Some(tried) => tried,
                None => {
                    let Some(before) = known(i, hash) else { continue };
                    let (all, denied, times, bad) = (0, 0, 0, 0);
                    let new = Tried { before, all, denied, times, bad, now: at, open: (0, 0) };
                    self.tried[i].entry(hash).or_insert(new)
                }
            };
            tried.note(at, signal == Some(0));
        }
    }

    /// How improbable it is that both revisions deny the same part: the likelihood ratio of two parts to one. Where one
    /// of them has decided little that is never much.
    pub fn score(&self) -> f64 {
        let (all, known) = (f64::from(self.counts.all), self.known);
        let now = f64::from(self.counts.bad[0]) / all.max(1.0);
        let both = (now * all + self.before * known) / (all + known).max(1.0);
        improbable_part(all, now, both) + improbable_part(known, self.before, both)
    }

    /// Who is shut out most certainly: each value either is, or goes on as before.
    pub fn shut_out(&self) -> Option<ShutOut> {
        let of = |(tried, dimension): (&BTreeMap<u64, Tried>, Dimension)| {
            let evidence: Vec<(f64, &Tried)> =
                tried.values().map(|t| (t.evidence(self.before), t)).collect();
            let together = |part: f64| {
                evidence.iter().map(|(e, _)| (1.0 - part + part * e.exp()).ln()).sum::<f64>()
            };
            let scores = PARTS.map(|part| (together(part), part));
            let (score, part) = scores
                .into_iter()
                .reduce(|best, this| if this.0 > best.0 { this } else { best })?;
            let those = || evidence.iter().filter(move |(e, _)| part * e.exp() > 1.0 - part);
            Some(ShutOut {
                dimension,
                values: those().count(),
                all: those().map(|(_, t)| t.all).sum(),
                denied: those().map(|(_, t)| t.denied).sum(),
                score: score - (PARTS.len() as f64).ln(),
            })
        };
        let all = self.tried.iter().zip(JUDGED).filter_map(of);
        all.reduce(|best, this| if this.score > best.score { this } else { best })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_values_some_are_counted_exactly_and_those_that_are_gone_make_room() {
        let mut cohort = Cohort::default();
        for round in 0..4 {
            for value in 0..2000 {
                cohort.note(hash(&format!("user-{value}")), 1.0, round == 3);
            }
        }
        assert_eq!(cohort.0.len(), KNOWN);
        assert!(cohort.0.values().all(|counts| *counts == (4.0, 1.0)));
        let one = *cohort.0.first_key_value().unwrap().0;
        assert_eq!(cohort.get(one, 2.0), Some((2.0, 0.5)));
        assert_eq!(cohort.get(one, 4.0), None, "too few");
        let read: Cohort = serde_json::from_str(&serde_json::to_string(&cohort).unwrap()).unwrap();
        assert_eq!(read.0, cohort.0);
        cohort.fade(1e-4);
        assert!(cohort.0.is_empty());
    }
}
