//! Who and what is behind an excess: which values of which dimension carry more of it than their part of the
//! traffic would be.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::baseline::{MINUTE, improbable};
use super::trial::{self, Cohort, JUDGED};
use super::{Cause, Dimension, Example, Observation, WHO};
use crate::decision::time::Nanos;
use crate::topk::SpaceSaving;

/// Who is denied most is looked at so often: each minute.
const LOOK: u32 = MINUTE as u32;
/// How many values of a dimension are remembered.
const VALUES: usize = 64;

/// A decision that was denied or failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Sample {
    at: Nanos,
    #[serde(deserialize_with = "read_who")]
    who: [Box<str>; WHO],
    trace_id: String,
    decision_id: Box<str>,
    /// What it weighs in what was learned.
    #[serde(default)]
    weight: f64,
}

/// What an older version wrote knows fewer dimensions.
fn read_who<'de, D: serde::Deserializer<'de>>(d: D) -> Result<[Box<str>; WHO], D::Error> {
    let mut who = Vec::<Box<str>>::deserialize(d)?.into_iter();
    Ok(std::array::from_fn(|_| who.next().unwrap_or_default()))
}

const SAMPLES: usize = 512;
/// So many are written of it: enough to say who is behind what goes on.
const KEPT: usize = 64;

/// What is remembered of a policy's decisions.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "Kept", into = "Kept")]
pub struct Memory {
    /// All decisions, by dimension; newer weigh more.
    traffic: [SpaceSaving<String>; WHO],
    /// The denied (failed) ones, by signal.
    bad: [[SpaceSaving<String>; WHO]; 2],
    /// The latest of them.
    samples: [VecDeque<Sample>; 2],
    /// What a decision weighs now.
    weight: f64,
    /// What a new revision is judged by.
    cohorts: [Cohort; JUDGED.len()],
    /// Who is denied most, and for how many buckets he has not asked.
    most_denied: Option<(String, u32)>,
    ticks: u32,
}

/// One who has a part of all denials.
#[derive(Debug)]
pub struct Denied {
    pub who: String,
    /// His part of all denials, and of what he asks for the part that is denied.
    pub share: f64,
    pub denied: f64,
    /// His denials, and what others asked.
    pub denials: f64,
    pub others: f64,
}

/// What was before of a value: its decisions, all, and how many values are known.
struct Before {
    own: f64,
    all: f64,
    known: usize,
}

/// A value that carries more of an excess than of what was before: by so much; and the part that it may have had
/// before, where little is known of that.
struct Carrier {
    carries: f64,
    perhaps: f64,
    cause: Cause,
}

/// Which one is named first: of explanations that are as good as each other the first dimension's. But a revision or an
/// OPA that had its part before goes behind somebody, or something, who had hardly any, and carries nearly as much: since a rollout all has the new revision.
fn first(found: &[Carrier]) -> Option<usize> {
    let best = found.first()?.carries;
    let told = |c: &Carrier| {
        let carrier = matches!(c.cause.dimension, Dimension::Revision | Dimension::Instance);
        let newer = |o: &Carrier| {
            o.cause.dimension > Dimension::Instance
                && o.cause.share >= c.cause.share - 0.25
                && o.perhaps < 0.25 * c.perhaps
        };
        !(carrier && c.perhaps > 0.02 && found.iter().any(newer))
    };
    let near = (0..found.len()).filter(|i| found[*i].carries >= best - 0.2 && told(&found[*i]));
    near.min_by_key(|i| found[*i].cause.dimension)
}

/// What is written of it.
#[derive(Serialize, Deserialize)]
struct Kept {
    weight: f64,
    traffic: Vec<Heavy>,
    bad: Vec<Vec<Heavy>>,
    samples: [VecDeque<Sample>; 2],
    #[serde(default)]
    cohorts: [Cohort; JUDGED.len()],
    #[serde(default)]
    most_denied: Option<(String, u32)>,
}

type Heavy = (f64, Vec<(String, f64, f64)>);

impl From<Memory> for Kept {
    fn from(mut memory: Memory) -> Kept {
        for samples in &mut memory.samples {
            samples.drain(..samples.len().saturating_sub(KEPT));
        }
        let heavy = |of: &[SpaceSaving<String>; WHO]| of.iter().map(SpaceSaving::parts).collect();
        Kept {
            weight: memory.weight,
            traffic: heavy(&memory.traffic),
            bad: memory.bad.iter().map(heavy).collect(),
            samples: memory.samples,
            cohorts: memory.cohorts,
            most_denied: memory.most_denied,
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
            cohorts: kept.cohorts,
            most_denied: kept.most_denied,
            ticks: 0,
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
            cohorts: Default::default(),
            most_denied: None,
            ticks: 0,
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
        if let Some((who, quiet)) = &mut self.most_denied
            && who.as_str() == seen.who[Dimension::Subject as usize]
        {
            *quiet = 0;
        }
        let revision = seen.who[Dimension::Revision as usize];
        if learn && !revision.is_empty() {
            for (cohort, dimension) in self.cohorts.iter_mut().zip(JUDGED) {
                let value = seen.who[dimension as usize];
                if !value.is_empty() {
                    cohort.note(trial::hash(value), self.weight, signal == Some(0));
                }
            }
        }
        // A revision that answers in the midst of a finding is not new after it.
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
                weight: if learn { self.weight } else { 0.0 },
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
            self.samples.iter_mut().flatten().for_each(|sample| sample.weight *= factor);
            self.cohorts.iter_mut().for_each(|cohort| cohort.fade(factor));
            self.weight = 1.0;
        }
        if let Some((_, quiet)) = &mut self.most_denied {
            *quiet = quiet.saturating_add(1);
        }
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks % LOOK == 1 {
            let most = self.bad[0][Dimension::Subject as usize].surest().map(|(who, _)| who);
            let same = |(who, _): &(String, u32)| most.is_some_and(|most| most == who);
            if self.most_denied.as_ref().is_none_or(|known| !same(known)) {
                self.most_denied = most.map(|who| (who.clone(), 0));
            }
        }
    }

    /// Who has most of what was denied, for certain.
    pub fn most_denied(&self) -> Option<Denied> {
        let i = Dimension::Subject as usize;
        let (bad, traffic) = (&self.bad[0][i], &self.traffic[i]);
        let (who, denials) = bad.surest()?;
        Some(Denied {
            who: who.clone(),
            share: denials / bad.total().max(1e-9),
            denied: denials / traffic.get(who).max(1e-9),
            denials: denials / self.weight,
            others: (traffic.total() - traffic.get(who)).max(0.0) / self.weight,
        })
    }

    /// The part of what was denied that is of one who has not asked for so many buckets.
    pub fn absent(&self, buckets: u32) -> f64 {
        let bad = &self.bad[0][Dimension::Subject as usize];
        let gone = self.most_denied.as_ref().filter(|(_, quiet)| *quiet >= buckets);
        gone.map_or(0.0, |(who, _)| bad.sure(who) / bad.total().max(1e-9))
    }

    /// What one did is no past.
    pub fn forget(&mut self, who: &str) {
        let i = Dimension::Subject as usize;
        self.traffic[i].take(who);
        self.bad.iter_mut().for_each(|bad| bad[i].take(who));
        let its = self.samples.iter_mut().flatten().filter(|s| *s.who[i] == *who);
        its.for_each(|s| s.weight = 0.0);
    }

    /// Who and what carries the excess of a signal since `onset` over `expected`. `beside`: what is remembered of other
    /// policies of the service, where this one has no past.
    pub fn causes(
        &self,
        signal: usize,
        onset: Nanos,
        observed: u64,
        expected: f64,
        beside: &[&Memory],
    ) -> (Vec<Cause>, Vec<Example>) {
        let since: Vec<&Sample> = self.samples[signal].iter().filter(|s| s.at >= onset).collect();
        let seen = since.len() as f64;
        // Where there are more than fit, the latest stand for all.
        let expected = expected * (seen / (observed as f64).max(1.0)).min(1.0);
        let excess = (seen - expected.min(seen * 0.9)).max(1.0);
        // What is going on has been learned for some seconds, too; it is no past.
        let all: f64 = since.iter().map(|s| s.weight).sum();
        let mut found: Vec<Carrier> = Vec::new();
        for (i, dimension) in Dimension::ALL.into_iter().enumerate() {
            let mut values: HashMap<&str, (f64, f64)> = HashMap::new();
            since.iter().filter(|s| !s.who[i].is_empty()).for_each(|s| {
                let (count, weight) = values.entry(&s.who[i]).or_default();
                (*count, *weight) = (*count + 1.0, *weight + s.weight);
            });
            let bad = &self.bad[signal][i];
            let many = values.len() as f64;
            for (value, (count, weight)) in values {
                let past = self.past(i, value, weight, all, beside);
                let before = (past.own / past.all.max(1.0)).min(1.0);
                let usual = (bad.get(value) - weight).max(0.0) / (bad.total() - all).max(1.0);
                let share = ((count - expected * usual.min(1.0)) / excess).clamp(0.0, 1.0);
                let carries = share - before;
                // Of many values some have more than their part by chance.
                let due = seen * before.max(usual).min(1.0);
                let is_chance = count <= due || improbable(count, due, 1.0) < 2.0 * many.ln();
                if carries >= 0.15 && !is_chance {
                    let known = past.known as f64;
                    let perhaps = (past.own + 1.0 / (known + 1.0)) / (past.all + 1.0);
                    let cause = Cause { dimension, value: value.to_owned(), share, before };
                    found.push(Carrier { carries, perhaps, cause });
                }
            }
        }
        found.sort_by(|a, b| {
            b.carries.total_cmp(&a.carries).then_with(|| a.cause.value.cmp(&b.cause.value))
        });
        if let Some(first) = first(&found) {
            let cause = found.remove(first);
            found.insert(0, cause);
        }
        found.truncate(6);
        let causes: Vec<Cause> = found.into_iter().map(|carrier| carrier.cause).collect();
        let of_first =
            |s: &&&Sample| causes.first().is_none_or(|c| *s.who[c.dimension as usize] == *c.value);
        let example = |s: &&Sample| Example {
            trace_id: s.trace_id.clone(),
            decision_id: s.decision_id.to_string(),
        };
        let examples = since.iter().rev().filter(of_first).take(3).map(example).collect();
        (causes, examples)
    }

    /// A value's decisions before, without so much that is going on, and all.
    fn past(&self, i: usize, value: &str, weight: f64, all: f64, beside: &[&Memory]) -> Before {
        let unit = self.weight.max(1e-9);
        let traffic = &self.traffic[i];
        let mut before = Before {
            own: (traffic.get(value) - weight).max(0.0) / unit,
            all: (traffic.total() - all).max(0.0) / unit,
            known: traffic.len(),
        };
        for other in beside {
            let unit = other.weight.max(1e-9);
            before.own += other.traffic[i].get(value) / unit;
            before.all += other.traffic[i].total() / unit;
            before.known += other.traffic[i].len();
        }
        before
    }

    /// Whose denials (failures) are most since then: who, the part of all, and when the first of them was.
    pub fn heaviest(
        &self,
        signal: usize,
        dimension: Dimension,
        since: Nanos,
    ) -> Option<(String, f64, Nanos)> {
        let samples = || self.samples[signal].iter().filter(|s| s.at >= since);
        let mut values: HashMap<&str, (u32, Nanos)> = HashMap::new();
        for sample in samples() {
            let (count, first) =
                values.entry(&sample.who[dimension as usize]).or_insert((0, sample.at));
            (*count, *first) = (*count + 1, sample.at.min(*first));
        }
        let (who, (count, first)) =
            values.into_iter().max_by(|a, b| a.1.0.cmp(&b.1.0).then_with(|| b.0.cmp(a.0)))?;
        let all = samples().count() as f64;
        (!who.is_empty()).then(|| (who.to_owned(), f64::from(count) / all, first))
    }

    /// The first denial (failure) since then, as far as is remembered, of anybody or of whom a cause names.
    pub fn first(&self, signal: usize, since: Nanos, cause: Option<&Cause>) -> Option<Nanos> {
        let is_it = |s: &&Sample| {
            s.at >= since && cause.is_none_or(|c| *s.who[c.dimension as usize] == *c.value)
        };
        self.samples[signal].iter().filter(is_it).map(|s| s.at).min()
    }

    /// Whether everything since then is still remembered.
    pub fn remembers(&self, signal: usize, since: Nanos) -> bool {
        let samples = &self.samples[signal];
        samples.len() < SAMPLES || samples.front().is_some_and(|s| s.at < since)
    }

    /// The part of a value's decisions that are denied (fail).
    pub fn denied(&self, signal: usize, dimension: Dimension, value: &str) -> f64 {
        let i = dimension as usize;
        self.bad[signal][i].get(value) / self.traffic[i].get(value).max(1e-9)
    }

    /// A value's part of all decisions.
    pub fn share(&self, dimension: Dimension, value: &str) -> f64 {
        let traffic = &self.traffic[dimension as usize];
        traffic.get(value) / traffic.total().max(1e-9)
    }

    /// Which value is of most decisions.
    pub fn main(&self, dimension: Dimension) -> Option<String> {
        self.traffic[dimension as usize].top().into_iter().next().map(|(value, _)| value)
    }

    /// Decisions and denials of a value by which a revision is judged.
    pub fn known(&self, judged: usize, hash: u64) -> Option<(f64, f64)> {
        self.cohorts[judged].get(hash, self.weight)
    }

    /// Whether a value is new in a dimension.
    pub fn is_new(&self, dimension: Dimension, value: &str) -> bool {
        self.traffic[dimension as usize].get(value) == 0.0
    }
}
