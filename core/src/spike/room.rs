//! Room for so many policies of services and no more: the coldest goes when a warmer one comes. What finds no room is
//! counted, and said when it is a part of the decisions that matters: nobody looks at it.

use serde::{Deserialize, Serialize};

use super::heartbeat::Fading;
use super::series::Series;
use super::{BUCKET, Change, Finding, Kind, SECOND};
use crate::topk::SpaceSaving;

/// Heat halves in a day: a nightly job is as warm in the evening as what junk brings, and a quiet weekend loses little.
const GLOW: f64 = 1.000_016_045;
/// Of so many decisions in ten minutes, and this part of all, it is said that nobody looks at them; until it is half, or
/// there are none for two minutes.
const MANY: f64 = 100.0;
const PART: f64 = 0.02;
const TEN_MINUTES: f64 = (600 * SECOND / BUCKET) as f64;
/// So many of them are told apart.
const STRANGE: usize = 256;
const CALM: u32 = (120 * SECOND / BUCKET) as u32;

/// What is kept of it for who starts again; who waits comes again soon.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Kept {
    all: Fading,
    recent: Fading,
    calm: u32,
    active: Option<Finding>,
}

pub struct Room {
    /// What a decision weighs now, in heat.
    pub weight: f64,
    /// Who waits for room, by service, zero byte, policy.
    waiting: SpaceSaving<String>,
    /// The coldest series and its heat, as of this bucket.
    coldest: Option<(usize, f64)>,
    pub full_of_services: bool,
    pub unwatched: u64,
    /// Which policies these are, by service, zero byte, policy, and how many fit.
    strange: SpaceSaving<String>,
    most: usize,
    /// Unwatched ones of the bucket that is open.
    open: u32,
    all: Fading,
    recent: Fading,
    /// Buckets without any.
    calm: u32,
    pub active: Option<Finding>,
    pub forgotten: Vec<String>,
}

impl Room {
    pub fn new(most: usize) -> Room {
        Room {
            weight: 1.0,
            waiting: SpaceSaving::new(most.max(1)),
            coldest: None,
            full_of_services: false,
            unwatched: 0,
            strange: SpaceSaving::new(STRANGE),
            most,
            open: 0,
            all: Fading::default(),
            recent: Fading::default(),
            calm: 0,
            active: None,
            forgotten: Vec::new(),
        }
    }

    /// A decision of a policy without a place: whose place it gets, and with how much heat, if it has come to be warmer
    /// than that one.
    pub fn instead(&mut self, name: &String, series: &[Series]) -> Option<(usize, f64)> {
        self.waiting.add(name, self.weight);
        let heat = self.waiting.sure(name);
        if self.coldest.is_none() {
            let free = series.iter().enumerate().filter(|(_, s)| s.active().next().is_none());
            let least = free.min_by(|(_, a), (_, b)| a.heat.total_cmp(&b.heat));
            self.coldest = least.map(|(index, s)| (index, s.heat));
        }
        let Some((index, _)) = self.coldest.filter(|(_, cold)| heat > cold + 1.5 * self.weight)
        else {
            self.open += 1;
            self.unwatched += 1;
            self.strange.add(name, 1.0);
            return None;
        };
        self.waiting.remove(name);
        self.coldest = None;
        Some((index, heat - self.weight))
    }

    pub fn kept(&self) -> Kept {
        let active = self.active.clone();
        Kept { all: self.all, recent: self.recent, calm: self.calm, active }
    }

    pub fn take_back(&mut self, kept: Kept) {
        (self.all, self.recent, self.calm, self.active) =
            (kept.all, kept.recent, kept.calm, kept.active);
    }

    /// A bucket with so many decisions is over; none, if it is known already and read again.
    pub fn close(
        &mut self,
        at: i64,
        all: Option<u32>,
        series: &mut [Series],
        changes: &mut Vec<Change>,
    ) {
        self.weight *= GLOW;
        if self.weight > 1e9 {
            let factor = 1.0 / self.weight;
            series.iter_mut().for_each(|s| s.heat *= factor);
            self.waiting.fade(factor);
            self.weight = 1.0;
        }
        (self.coldest, self.full_of_services) = (None, false);
        let open = std::mem::take(&mut self.open);
        let Some(all) = all else { return };
        self.calm = if open == 0 { self.calm + 1 } else { 0 };
        if self.calm == CALM {
            self.strange = SpaceSaving::new(STRANGE);
        }
        self.all.add(f64::from(all));
        self.recent.add(f64::from(open));
        let (all, unwatched) = (self.all.get() * TEN_MINUTES, self.recent.get() * TEN_MINUTES);
        let part = unwatched / all.max(1.0);
        let strange = &self.strange;
        match &mut self.active {
            None if unwatched >= MANY
                && part >= PART
                && self.calm < CALM
                && self.all.is_known() =>
            {
                let mut finding = Finding::new(Kind::Unwatched, "", "");
                finding.begin(at, at);
                (finding.observed, finding.decisions) = (unwatched as u64, all as u64);
                finding.detail = told(strange, self.most);
                self.active = Some(finding.clone());
                changes.push(Change::Begins(finding));
            }
            Some(finding) if part < PART / 2.0 || self.calm >= CALM => {
                finding.ended = Some((at + 1) * BUCKET);
                changes.extend(self.active.take().map(Change::Ends));
            }
            _ => {}
        }
    }
}

/// Which policies are unwatched, and what helps.
fn told(strange: &SpaceSaving<String>, most: usize) -> String {
    let many = match strange.len() {
        1 => "one policy of a service".to_owned(),
        STRANGE => format!("{STRANGE} or more policies of services"),
        n => format!("{n} policies of services"),
    };
    let example = strange.top().into_iter().next().map(|(name, _)| {
        let (service, policy) = name.split_once('\0').unwrap_or(("", &name));
        match service {
            "" => format!(", such as {policy}"),
            _ => format!(", such as {policy} of {service}"),
        }
    });
    format!("{many}{}; spikes.max_policies ({most}) makes room", example.unwrap_or_default())
}
