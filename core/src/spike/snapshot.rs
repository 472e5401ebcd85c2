//! What the detector knows, to be kept elsewhere and given back: one piece for each policy of a service, each service,
//! and the stream, each by its key, so that it fits a compacted topic.
//!
//! Who keeps it writes `export` of each of `keys` now and then, in any order and not all at once, and deletes
//! `forgotten`. Who starts gives back every piece by its key (`restore`), says by `resume` from when on it reads the
//! docket, no later than `through` if it can, and reads: of what a piece knows already it takes nothing twice.
//!
//! A piece that is much older than the others is one whose deletion got lost: it is forgotten, so that nobody reads days
//! back for it. One that claims to know the future would be blind until then; it is learned anew.

use serde::{Deserialize, Serialize};

use super::baseline::bucket;
use super::config::HOUR;
use super::detector::Detector;
use super::heartbeat::Heartbeat;
use super::room;
use super::series::Series;
use super::service::Service;
use super::{BUCKET, SECOND, decision_key, service_key};
use crate::decision::time::Nanos;

/// Of how it is written. What another version wrote is learned anew.
pub const VERSION: u32 = 1;
const STREAM: &str = "stream";
/// What is written again and again is not older than the latest by so much.
const STALE: i64 = HOUR / BUCKET;
/// Clocks of processes differ by so much at most.
const AHEAD: i64 = 60 * SECOND / BUCKET;

#[derive(Serialize, Deserialize)]
struct Snapshot<S> {
    version: u32,
    state: S,
}

// One at a time, on the stack.
#[allow(clippy::large_enum_variant)]
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Writing<'d> {
    Policy(&'d Series),
    Service(&'d Service),
    Stream { next: i64, heart: &'d Heartbeat, room: room::Kept },
}

#[allow(clippy::large_enum_variant)]
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Read {
    Policy(Box<Series>),
    Service(Box<Service>),
    Stream {
        next: i64,
        heart: Box<Heartbeat>,
        #[serde(default)]
        room: room::Kept,
    },
}

impl Read {
    fn key(&self) -> String {
        match self {
            Read::Policy(series) => decision_key(&series.service, &series.policy),
            Read::Service(service) => service_key(&service.name),
            Read::Stream { .. } => STREAM.to_owned(),
        }
    }

    fn next(&self) -> i64 {
        match self {
            Read::Policy(series) => series.next,
            Read::Service(service) => service.next,
            Read::Stream { next, .. } => *next,
        }
    }
}

/// Why a piece can't be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("it was written by another version of docket ({0})")]
    Version(u32),
    #[error("it is no state of the detector: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it stands under the key of another")]
    Misplaced,
    #[error("it says to know the future: it was written by a clock that is ahead")]
    Ahead,
}

fn read(key: &str, piece: &[u8], now: Nanos) -> Result<Read, Unreadable> {
    let version: Snapshot<serde::de::IgnoredAny> = serde_json::from_slice(piece)?;
    if version.version != VERSION {
        return Err(Unreadable::Version(version.version));
    }
    let read: Snapshot<Read> = serde_json::from_slice(piece)?;
    if read.state.key() != key {
        return Err(Unreadable::Misplaced);
    }
    if read.state.next() > bucket(now) + AHEAD {
        return Err(Unreadable::Ahead);
    }
    Ok(read.state)
}

impl Detector {
    /// Of everything there is to keep.
    pub fn keys(&self) -> Vec<String> {
        let policies = self.series.iter().map(|s| decision_key(&s.service, &s.policy));
        let services = self.services.iter().map(|s| service_key(&s.name));
        policies.chain(services).chain([STREAM.to_owned()]).collect()
    }

    /// One piece, as JSON. None of what was forgotten meanwhile, or before the first decision.
    pub fn export(&self, key: &str) -> Option<Vec<u8>> {
        let next = self.next?;
        let cooled;
        let state = if key == STREAM {
            Writing::Stream { next, heart: &self.stream, room: self.room.kept() }
        } else if let Some(name) = key.strip_prefix("service\0") {
            Writing::Service(&self.services[*self.service_names.get(name)?])
        } else {
            let series = &self.series[*self.names.get(key.strip_prefix("policy\0")?)?];
            // Heat is told in decisions of now.
            cooled = series.cooled(self.room.weight);
            Writing::Policy(&cooled)
        };
        serde_json::to_vec(&Snapshot { version: VERSION, state }).ok()
    }

    /// Takes pieces back, each by its key, before the first decision. Returns the keys of those that can't be read, and
    /// why; they are learned anew.
    pub fn restore<'p>(
        &mut self,
        pieces: impl Iterator<Item = (&'p str, &'p [u8])>,
        now: Nanos,
    ) -> Vec<(String, Unreadable)> {
        let (mut all, mut wrong) = (Vec::new(), Vec::new());
        for (key, piece) in pieces {
            match read(key, piece, now) {
                Ok(state) => all.push(state),
                Err(error) => wrong.push((key.to_owned(), error)),
            }
        }
        let newest = all.iter().map(Read::next).max().unwrap_or(0);
        for state in all {
            let key = state.key();
            let fresh = newest - state.next() <= STALE;
            let taken = fresh
                && match state {
                    Read::Stream { next, heart, room } => {
                        (self.stream_next, self.stream) = (next, *heart);
                        self.room.take_back(room);
                        true
                    }
                    Read::Service(service) => self.restore_service(*service),
                    Read::Policy(series) => self.restore_series(*series),
                };
            if !taken {
                self.room.forgotten.push(key);
            }
        }
        wrong
    }

    /// Up to when the least of the pieces knows everything; none without any policy.
    pub fn through(&self) -> Option<Nanos> {
        let first = self.series.iter().map(|s| s.next).min()?;
        self.services.iter().map(|s| s.next).chain([first]).min().map(|next| next * BUCKET)
    }

    /// From here on it is given the decisions, now that every piece is back.
    pub fn resume(&mut self, from: Nanos) {
        if !self.series.is_empty() {
            self.next = Some(bucket(from));
        }
    }
}

#[cfg(test)]
mod tests;
