//! How far the sources are in event time: a watermark for each partition, and the lowest of them.

use std::collections::BTreeMap;

use super::Settings;
use crate::decision::time::Nanos;

#[derive(Debug, Default)]
pub struct Watermarks {
    parts: BTreeMap<u32, Part>,
}

#[derive(Debug)]
struct Part {
    /// The latest time that was seen, which is never beyond the wall clock: one clock that is wrong must not close
    /// every window.
    high: Option<Nanos>,
    /// When something came last, or the partition was assigned.
    heard: Nanos,
}

impl Watermarks {
    pub fn assign(&mut self, partition: u32, now: Nanos) {
        self.parts.entry(partition).or_insert(Part { high: None, heard: now });
    }

    pub fn remove(&mut self, partition: u32) {
        self.parts.remove(&partition);
    }

    /// Takes the time of a record; whether it comes too late to be waited for.
    pub fn saw(&mut self, partition: u32, time: Nanos, now: Nanos, settings: &Settings) -> bool {
        let part = self.parts.entry(partition).or_insert(Part { high: None, heard: now });
        part.heard = part.heard.max(now);
        let late = part.high.is_some_and(|high| time < high.saturating_sub(settings.skew));
        part.high = part.high.max(Some(time.min(now)));
        late
    }

    /// What is older has been seen, of every partition. One that is idle is as far as the wall clock, less what a
    /// source may be behind; nothing is known before there is a partition.
    pub fn lowest(&self, now: Nanos, settings: &Settings) -> Nanos {
        let of = |part: &Part| {
            let seen = part.high.map_or(Nanos::MIN, |high| high.saturating_sub(settings.skew));
            match now.saturating_sub(part.heard) >= settings.idle_after {
                true => seen.max(now.saturating_sub(settings.delay)),
                false => seen,
            }
        };
        self.parts.values().map(of).min().unwrap_or(Nanos::MIN)
    }
}
