//! What the detector knows, to be kept elsewhere and given back: one piece for each policy of a service, each service,
//! and the stream, each by its key, so that it fits a compacted topic.
//!
//! Who keeps it writes `export` of each of `keys` now and then, in any order and not all at once, and deletes
//! `forgotten`. Who starts gives every piece to `import`, says by `resume` from when on it reads the docket, no later
//! than `through` if it can, and reads: of what a piece knows already it takes nothing twice.

use serde::{Deserialize, Serialize};

use super::baseline::bucket;
use super::detector::Detector;
use super::heartbeat::Heartbeat;
use super::series::Series;
use super::service::Service;
use super::{BUCKET, decision_key, service_key};
use crate::decision::time::Nanos;

/// Of how it is written. What another version wrote is learned anew.
pub const VERSION: u32 = 1;
const STREAM: &str = "stream";

#[derive(Serialize, Deserialize)]
struct Snapshot<S> {
    version: u32,
    state: S,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Writing<'d> {
    Policy(&'d Series),
    Service(&'d Service),
    Stream { next: i64, heart: &'d Heartbeat },
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Read {
    Policy(Box<Series>),
    Service(Box<Service>),
    Stream { next: i64, heart: Box<Heartbeat> },
}

/// Why a piece can't be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("it was written by another version of docket ({0})")]
    Version(u32),
    #[error("it is no state of the detector: {0}")]
    Json(#[from] serde_json::Error),
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
            Writing::Stream { next, heart: &self.stream }
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

    /// Takes a piece back, before the first decision.
    pub fn import(&mut self, piece: &[u8]) -> Result<(), Unreadable> {
        let version: Snapshot<serde::de::IgnoredAny> = serde_json::from_slice(piece)?;
        if version.version != VERSION {
            return Err(Unreadable::Version(version.version));
        }
        let read: Snapshot<Read> = serde_json::from_slice(piece)?;
        match read.state {
            Read::Stream { next, heart } => (self.stream_next, self.stream) = (next, *heart),
            Read::Service(service) => self.restore_service(*service),
            Read::Policy(series) => self.restore_series(*series),
        }
        Ok(())
    }

    /// Up to when the least of the pieces knows everything; none without any.
    pub fn through(&self) -> Option<Nanos> {
        let policies = self.series.iter().map(|s| s.next);
        policies.chain(self.services.iter().map(|s| s.next)).min().map(|next| next * BUCKET)
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
