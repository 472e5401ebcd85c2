//! Whether OPAs that went quiet took their load with them: the service's load fell by their part, at once, as they went. The fewer
//! decisions there are, the longer it takes until that is no chance.

use super::{Fate, GONE, MINUTE, Missing, Opa, PAST, Service};
use crate::spike::baseline::improbable;
use crate::spike::config::Config;
use crate::spike::heartbeat::ONE;
use crate::spike::window::FIVE_MINUTES;
use crate::spike::{BUCKET, Cause, Dimension, Finding, Kind};

/// OPAs that go one after another, ten minutes apart or less, are scaled in: the load falls, and they follow it.
const NEAR: usize = 2 * FIVE_MINUTES;
/// For so long it can be said: as long as it is known who else went with them.
pub const OLDEST: usize = GONE as usize - NEAR;
/// What is older than five minutes is looked at every half minute.
const SELDOM: usize = MINUTE / 2;
/// A load falls by so much within minutes without anybody being missing;
const DRIFT: f64 = 0.03;
/// and one that fell by more than so many times their part did not fall for them.
const MORE: f64 = 1.5;
/// Beyond what the slopes before and after explain, it fell by so much of their part.
const STEP: f64 = 0.6;
/// One event is looked at, not many counts: less is as sure.
const SURE: f64 = 0.7;
/// So many decisions, over the square of their part, would have shown it: twice as many as it takes.
const ENOUGH: f64 = 150.0;

/// An OPA that sends nothing, its part of the load, and for how many buckets.
#[derive(Clone)]
struct Quiet {
    name: String,
    share: f64,
    gap: usize,
}

/// OPAs that went quiet within five minutes, their part of the load, and buckets since the first of them did.
struct Group {
    opas: Vec<Quiet>,
    share: f64,
    gap: usize,
}

enum Said {
    Lost(Box<Missing>),
    Replaced,
    Nothing,
}

/// How much load there is, and how much at least, by chance.
#[derive(Clone, Copy)]
struct Level {
    usual: f64,
    surely: f64,
}

impl Level {
    /// Of so many decisions the part that a shorter (or longer) time has; `less`: so many standard deviations are chance.
    fn of(decisions: f64, part: f64, scatter: f64, less: f64) -> Level {
        let surely = (decisions - less * (decisions * scatter).sqrt()).max(0.0);
        Level { usual: decisions * part, surely: surely * part }
    }

    fn or_less(self, other: Level) -> Level {
        Level { usual: self.usual.min(other.usual), surely: self.surely.min(other.surely) }
    }
}

impl Service {
    /// Who went quiet with a part of the service's load. `usual`: the least load a bucket at this time of other days.
    pub(super) fn miss(
        &mut self,
        at: i64,
        config: &Config,
        usual: impl Fn() -> Option<f64>,
    ) -> Option<Missing> {
        let quiet = self.quiet(config);
        let mut gaps: Vec<usize> = quiet.iter().map(|one| one.gap).collect();
        gaps.retain(|gap| *gap <= FIVE_MINUTES || *gap <= OLDEST && gap % SELDOM == 0);
        gaps.sort_unstable();
        gaps.dedup();
        for gap in gaps.into_iter().rev() {
            let Some(group) = self.group(gap, &quiet, config) else { continue };
            let (fate, missing) = match self.judged(at, &group, config, &usual) {
                Said::Nothing => continue,
                Said::Replaced => (Fate::Replaced, None),
                Said::Lost(missing) => (Fate::Missed, Some(*missing)),
            };
            for one in &group.opas {
                if let Some(opa) = self.opas.get_mut(&one.name) {
                    opa.fate = fate;
                }
            }
            if missing.is_some() {
                return missing;
            }
        }
        None
    }

    /// Whether an OPA that lived for long enough sends nothing, and that is no chance.
    fn is_quiet(&self, opa: &Opa, sure: f64, config: &Config) -> bool {
        let lasted = |buckets: u32| i64::from(buckets) * BUCKET;
        lasted(opa.gap) >= ONE
            && lasted(opa.heard) >= config.learn
            && 2 * lasted(opa.heard.saturating_sub(opa.gap)) >= config.learn
            && opa.share * self.load(0, opa.gap as usize) >= config.certainty * sure
    }

    fn quiet(&self, config: &Config) -> Vec<Quiet> {
        let open = |o: &Opa| {
            o.fate == Fate::Open && o.gap as usize <= OLDEST && self.is_quiet(o, SURE, config)
        };
        let quiet = self.opas.iter().filter(|(_, o)| open(o));
        let of = |(name, o): (&String, &Opa)| Quiet {
            name: name.clone(),
            share: o.share,
            gap: o.gap as usize,
        };
        quiet.map(of).collect()
    }

    /// Who of these went quiet so many buckets ago, and in the five minutes that followed. None, if others went before or after them.
    fn group(&self, gap: usize, quiet: &[Quiet], config: &Config) -> Option<Group> {
        let with = |other: usize| other <= gap && gap - other < FIVE_MINUTES;
        let scaled_in = |o: &Opa| {
            o.fate != Fate::Missed
                && o.share >= DRIFT
                && gap.abs_diff(o.gap as usize) <= NEAR
                && !with(o.gap as usize)
                && self.is_quiet(o, SURE / 2.0, config)
        };
        if gap > MINUTE && self.opas.values().any(scaled_in) {
            return None;
        }
        let open = |one: &Quiet| self.opas.get(&one.name).is_some_and(|o| o.fate == Fate::Open);
        let opas: Vec<Quiet> =
            quiet.iter().filter(|one| with(one.gap) && open(one)).cloned().collect();
        let share = opas.iter().map(|one| one.share).sum::<f64>();
        (share >= 2.5 * DRIFT).then(|| Group { opas, share: share.min(0.99), gap })
    }

    fn judged(
        &self,
        at: i64,
        group: &Group,
        config: &Config,
        usual: impl Fn() -> Option<f64>,
    ) -> Said {
        let (gap, share, scatter) = (group.gap, group.share, self.heart.scatter());
        // While all of the service was quiet none of its OPAs was missed: all may have been replaced. The load of a whole
        // minute after it says whether they were.
        let look = gap.min(self.up as usize);
        if look < gap && look < MINUTE {
            return Said::Nothing;
        }
        let seen = self.load(0, look);
        let of = |n: f64, span: usize, less| Level::of(n, look as f64 / span as f64, scatter, less);
        // What it was before, for as long as it is looked at, but a minute at least, and five: less of both, and somewhat less for
        // chance.
        let before = |span: usize| {
            let span = span.max(gap).min(PAST);
            (self.loads.len() >= gap + span).then(|| of(self.load(gap, span), span, 2.0))
        };
        let (Some(long), Some(short)) = (before(FIVE_MINUTES), before(MINUTE)) else {
            return Said::Nothing;
        };
        let mut expected = long.or_less(short);
        // A job that is over, which one of them had all of, is nobody's loss: the load is what it was before the job.
        if let Some(little) = self.little(gap) {
            expected = expected.or_less(of(little, FIVE_MINUTES, 1.0));
        }
        let fell = |than: Level| {
            let score = improbable(seen, than.surely, scatter);
            let fell = seen < than.surely && seen <= than.usual * (1.0 - 0.6 * share - DRIFT);
            (fell && score >= config.certainty * SURE).then_some(score)
        };
        let is_theirs = || {
            let rest = long.usual * (1.0 - MORE * share - DRIFT);
            seen + 2.0 * (seen * scatter).sqrt() >= rest
                && self.fell_early(look, share, expected.usual)
                && self.is_step(group, look)
        };
        if fell(expected).is_some() && is_theirs() {
            // At noon, day after day, there is less to do, and fewer do it.
            if let Some(usual) = usual() {
                expected = expected.or_less(of(usual, 1, 0.0));
            }
            if let Some(score) = fell(expected) {
                let finding = self.lost(at, group, (expected.usual - seen, score));
                let usual = expected.usual / look as f64;
                return Said::Lost(Box::new(Missing::new(finding, at, usual, share, scatter)));
            }
        }
        let shows = long.usual * share * share > ENOUGH * scatter.min(4.0);
        if gap >= FIVE_MINUTES && shows { Said::Replaced } else { Said::Nothing }
    }

    /// Whether it was less in the first five minutes already, where more were looked at: halfway to what is left without them at least.
    fn fell_early(&self, look: usize, share: f64, expected: f64) -> bool {
        let first = expected * FIVE_MINUTES as f64 / look as f64;
        look <= FIVE_MINUTES
            || self.load(look - FIVE_MINUTES, FIVE_MINUTES) <= first * share / -(1.0 - share).ln()
    }

    /// Whether the load fell at once as they went, and not little by little: by more than its slopes before and after explain.
    fn is_step(&self, group: &Group, look: usize) -> bool {
        let (gap, scatter) = (group.gap, self.heart.scatter());
        let span = gap.min(PAST);
        // By the logarithm, a bucket, and the variance of that.
        let slope = |back: usize, span: usize| {
            let half = span / 2;
            let late = self.load(back, half) + 0.5;
            let early = self.load(back + span - half, half) + 0.5;
            let long = (span - half) as f64;
            ((late / early).ln() / long, (1.0 / late + 1.0 / early) / (long * long))
        };
        let (before, after) = (slope(gap, span), slope(0, look));
        let (now, then) = (self.load(0, look).max(0.5), self.load(gap, span).max(0.5));
        let fell = (now / look as f64).ln() - (then / span as f64).ln();
        let between = gap as f64 + (span as f64 - look as f64) / 2.0;
        let step = fell - between * (before.0 + after.0) / 2.0;
        let slopes = between * between * (before.1 + after.1) / 4.0;
        let chance = (scatter * (1.0 / now + 1.0 / then + slopes)).sqrt();
        step <= -2.5 * chance && step <= STEP * (1.0 - group.share).ln()
    }

    /// The second least load of five minutes in the half hour before: the least may be chance.
    fn little(&self, back: usize) -> Option<f64> {
        let spans = (0..PAST / FIVE_MINUTES).map(|i| back + i * FIVE_MINUTES);
        let full = spans.filter(|back| back + FIVE_MINUTES <= self.loads.len());
        let mut loads: Vec<f64> = full.map(|back| self.load(back, FIVE_MINUTES)).collect();
        loads.sort_by(f64::total_cmp);
        loads.get(1).copied()
    }

    fn lost(&self, at: i64, group: &Group, (expected, score): (f64, f64)) -> Finding {
        let mut finding = Finding::new(Kind::InstanceQuiet, &self.name, "");
        let all: f64 = group.opas.iter().map(|one| one.share).sum();
        let cause = |one: &Quiet| Cause {
            share: one.share / all,
            before: one.share,
            ..Cause::whole(Dimension::Instance, &one.name)
        };
        let mut causes: Vec<Cause> = group.opas.iter().map(cause).collect();
        causes.sort_by(|a, b| b.share.total_cmp(&a.share).then_with(|| a.value.cmp(&b.value)));
        causes.truncate(6);
        finding.causes = causes;
        finding.begin(at + 1 - group.gap as i64, at);
        (finding.expected, finding.score) = (expected, score);
        finding
    }
}
