//! Who and what is behind an excess: which values of which dimension carry more of it than their part of the
//! traffic would be.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{Cause, Dimension, Example, Observation};
use crate::decision::time::Nanos;
use crate::topk::SpaceSaving;

/// How many values of a dimension are remembered.
const VALUES: usize = 64;

/// A decision that was denied or failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Sample {
    at: Nanos,
    who: [Box<str>; 5],
    trace_id: String,
    decision_id: Box<str>,
}

const SAMPLES: usize = 512;
/// So many are written of it: enough to say who is behind what goes on.
const KEPT: usize = 64;

/// What is remembered of a policy's decisions.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "Kept", into = "Kept")]
pub struct Memory {
    /// All decisions, by dimension; newer weigh more.
    traffic: [SpaceSaving<String>; 5],
    /// The denied (failed) ones, by signal.
    bad: [[SpaceSaving<String>; 5]; 2],
    /// The latest of them.
    samples: [VecDeque<Sample>; 2],
    /// What a decision weighs now.
    weight: f64,
}

/// What is written of it.
#[derive(Serialize, Deserialize)]
struct Kept {
    weight: f64,
    traffic: Vec<Heavy>,
    bad: Vec<Vec<Heavy>>,
    samples: [VecDeque<Sample>; 2],
}

type Heavy = (f64, Vec<(String, f64, f64)>);

impl From<Memory> for Kept {
    fn from(mut memory: Memory) -> Kept {
        for samples in &mut memory.samples {
            samples.drain(..samples.len().saturating_sub(KEPT));
        }
        let heavy = |of: &[SpaceSaving<String>; 5]| of.iter().map(SpaceSaving::parts).collect();
        Kept {
            weight: memory.weight,
            traffic: heavy(&memory.traffic),
            bad: memory.bad.iter().map(heavy).collect(),
            samples: memory.samples,
        }
    }
}

impl From<Kept> for Memory {
    fn from(kept: Kept) -> Memory {
        let heavy = |of: Vec<Heavy>| {
            let mut of = of.into_iter();
            std::array::from_fn(|_| {
                let (total, parts) = of.next().unwrap_or_default();
                SpaceSaving::from_parts(VALUES, total, parts)
            })
        };
        let mut bad = kept.bad.into_iter();
        Memory {
            traffic: heavy(kept.traffic),
            bad: std::array::from_fn(|_| heavy(bad.next().unwrap_or_default())),
            samples: kept.samples,
            weight: kept.weight,
        }
    }
}

impl Default for Memory {
    fn default() -> Memory {
        let heavy = || std::array::from_fn(|_| SpaceSaving::new(VALUES));
        Memory {
            traffic: heavy(),
            bad: [heavy(), heavy()],
            samples: Default::default(),
            weight: 1.0,
        }
    }
}

impl Memory {
    /// `learn` is false while a finding is active: what is going on is no baseline.
    pub fn note(&mut self, seen: &Observation<'_>, signal: Option<usize>, learn: bool) {
        for (i, value) in seen.who.iter().enumerate().filter(|(_, v)| !v.is_empty() && learn) {
            self.traffic[i].add(*value, self.weight);
            if let Some(signal) = signal {
                self.bad[signal][i].add(*value, self.weight);
            }
        }
        // A revision that answers in the midst of a finding is not new after it.
        let revision = seen.who[Dimension::Revision as usize];
        if !learn && !revision.is_empty() && self.is_new(Dimension::Revision, revision) {
            self.traffic[Dimension::Revision as usize].add(revision, self.weight * 1e-6);
        }
        if let Some(signal) = signal {
            let samples = &mut self.samples[signal];
            if samples.len() == SAMPLES {
                samples.pop_front();
            }
            let trace_id = if seen.trace_id == crate::decision::ids::TraceId::INVALID {
                String::new()
            } else {
                seen.trace_id.to_string()
            };
            samples.push_back(Sample {
                at: seen.at,
                who: seen.who.map(Into::into),
                trace_id,
                decision_id: seen.decision_id.into(),
            });
        }
    }

    /// Called for each bucket: newer weighs more.
    pub fn tick(&mut self) {
        // What an older version wrote before its first bucket was closed weighs nothing.
        self.weight = if self.weight == 0.0 { 1.0 } else { self.weight * 1.000_385 };
        if self.weight > 1e9 {
            let factor = 1.0 / self.weight;
            self.traffic
                .iter_mut()
                .chain(self.bad.iter_mut().flatten())
                .for_each(|heavy| heavy.fade(factor));
            self.weight = 1.0;
        }
    }

    /// Who and what carries the excess of a signal since `onset` over `expected`.
    pub fn causes(
        &self,
        signal: usize,
        onset: Nanos,
        observed: u64,
        expected: f64,
    ) -> (Vec<Cause>, Vec<Example>) {
        let since: Vec<&Sample> = self.samples[signal].iter().filter(|s| s.at >= onset).collect();
        let seen = since.len() as f64;
        // Where there are more than fit, the latest stand for all.
        let expected = expected * (seen / (observed as f64).max(1.0)).min(1.0);
        let excess = (seen - expected.min(seen * 0.9)).max(1.0);
        let mut found: Vec<(f64, Cause)> = Vec::new();
        for (i, dimension) in Dimension::ALL.into_iter().enumerate() {
            let mut values: HashMap<&str, f64> = HashMap::new();
            since
                .iter()
                .filter(|s| !s.who[i].is_empty())
                .for_each(|s| *values.entry(&s.who[i]).or_default() += 1.0);
            let (traffic, bad) = (&self.traffic[i], &self.bad[signal][i]);
            for (value, count) in values {
                // What is going on has been learned for some seconds, too; it is no past.
                let before = ((traffic.get(value) - count * self.weight).max(0.0)
                    / (traffic.total() - seen * self.weight).max(1.0))
                .min(1.0);
                let usual = (bad.get(value) - count * self.weight).max(0.0)
                    / (bad.total() - seen * self.weight).max(1.0);
                let share = ((count - expected * usual.min(1.0)) / excess).clamp(0.0, 1.0);
                let carries = share - before;
                if carries >= 0.15 {
                    found.push((
                        carries,
                        Cause { dimension, value: value.to_owned(), share, before },
                    ));
                }
            }
        }
        found.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.value.cmp(&b.1.value)));
        // Of explanations that are as good as each other the first dimension's is named first.
        if let Some(best) = found.first().map(|(carries, _)| *carries) {
            let first = (0..found.len())
                .filter(|i| found[*i].0 >= best - 0.2)
                .min_by_key(|i| found[*i].1.dimension as usize);
            if let Some(first) = first {
                let cause = found.remove(first);
                found.insert(0, cause);
            }
        }
        found.truncate(6);
        let causes: Vec<Cause> = found.into_iter().map(|(_, cause)| cause).collect();
        let of_first =
            |s: &&&Sample| causes.first().is_none_or(|c| *s.who[c.dimension as usize] == *c.value);
        let example = |s: &&Sample| Example {
            trace_id: s.trace_id.clone(),
            decision_id: s.decision_id.to_string(),
        };
        let examples = since.iter().rev().filter(of_first).take(3).map(example).collect();
        (causes, examples)
    }

    /// Whether a value is new in a dimension.
    pub fn is_new(&self, dimension: Dimension, value: &str) -> bool {
        self.traffic[dimension as usize].get(value) == 0.0
    }
}
