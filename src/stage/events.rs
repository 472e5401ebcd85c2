//! Findings that a part comes upon while it does something else, beside those that are looked for: written to the docket topic,
//! so that every sink gets them, and who looks for spikes tells people of them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::decision::ids::hex;
use crate::decision::time::Nanos;
use crate::log::{Outgoing, RecordWriter};
use crate::spike::{Finding, Kind, record};

/// One of a kind and service is told once in so long, whatever process comes upon it.
pub const QUIET: Duration = Duration::from_secs(600);
/// Services that are told apart.
const SERVICES: usize = 1000;
/// A finding that can't be written is told by counter and log alone.
const TRIES: u32 = 3;

/// What was told lately, by all parts of a process.
#[derive(Debug, Default)]
pub struct Events(Mutex<HashMap<(Kind, String), Instant>>);

impl Events {
    /// Whether one is to be told now; then it is taken for told.
    pub fn is_due(&self, kind: Kind, service: &str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        told.retain(|_, at| now.duration_since(*at) < QUIET);
        let key = (kind, service.to_owned());
        if told.contains_key(&key) || told.len() >= SERVICES {
            return false;
        }
        told.insert(key, now);
        true
    }
}

/// One that begins now. `named` tells it from others.
pub fn finding(kind: Kind, service: &str, named: &str, now: Nanos) -> Finding {
    let named = format!("{}\0{service}\0{named}\0{now}", kind.as_str());
    Finding {
        id: hex(&Sha256::digest(named)[..8]),
        onset: now,
        detected: now,
        ..Finding::new(kind, service, "")
    }
}

/// Writes a finding to the docket topic. Who can't does not wait for it.
pub async fn write(writer: &impl RecordWriter, topic: &str, part: &str, finding: &Finding) {
    let (id, payload) = record::write(finding);
    tracing::warn!(part, id = finding.id, "{}", finding.sentence());
    for attempt in 1..=TRIES {
        let headers = rdkafka::message::OwnedHeaders::new();
        let record = Outgoing { topic, key: Some(&id), payload: &payload, headers };
        match writer.write(record).await {
            Ok(()) => return,
            Err(error) if attempt == TRIES => {
                tracing::error!(part, id = finding.id, %error, "a finding could not be written to the docket topic");
            }
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_of_a_service_is_told_once_in_some_minutes() {
        let events = Events::default();
        let due = |service: &str| events.is_due(Kind::DecisionIdReused, service);
        assert!(due("orders") && !due("orders") && due("shop"));
        assert!(events.is_due(Kind::LogGap, "orders"));
        tokio::time::advance(QUIET).await;
        assert!(due("orders") && !due("orders"));
        (0..2 * SERVICES).for_each(|i| {
            due(&i.to_string());
        });
        assert!(events.0.lock().unwrap().len() <= SERVICES);
    }
}
