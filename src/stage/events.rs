//! Findings that a part comes upon while it does something else, beside those that are looked for: written to the docket topic,
//! so that every sink gets them, and who looks for spikes tells people of them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::decision::ids::hex;
use crate::decision::time::{Nanos, nanos};
use crate::log::{Outgoing, RecordWriter};
use crate::spike::record::{self, Key};
use crate::spike::{Finding, Kind};

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

/// What parts came upon in the past, as it stands in the docket topic, in any order.
#[derive(Default)]
pub struct CameUpon {
    all: Vec<Finding>,
    left_out: u64,
}

impl CameUpon {
    /// So many are kept: the join may write one for each request.
    const MOST: usize = 20_000;

    pub fn add(&mut self, finding: Finding) {
        match self.all.len() {
            CameUpon::MOST => self.left_out += 1,
            _ => self.all.push(finding),
        }
    }

    /// As people were told of it: one of a kind, service and policy goes on until none came for a while. And how many are left out.
    pub fn told(mut self) -> (Vec<Finding>, u64) {
        self.all.sort_by_key(|finding| finding.detected);
        let mut told: Vec<Finding> = Vec::new();
        let mut going: HashMap<Key, (Nanos, usize)> = HashMap::new();
        for finding in self.all {
            let until = finding.detected.saturating_add(nanos(QUIET));
            match going.get_mut(&finding.key()) {
                Some((end, first)) if finding.detected < *end => {
                    *end = until;
                    told[*first].observed += u64::from(finding.kind.is_enforcement());
                }
                _ => {
                    going.insert(finding.key(), (until, told.len()));
                    told.push(finding);
                }
            }
        }
        (told, self.left_out)
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

    #[test]
    fn what_parts_came_upon_is_told_as_it_was_and_no_more_than_there_is_room_for() {
        let minute = nanos(Duration::from_secs(60));
        let at = |kind, minutes: i64| {
            let mut one = finding(kind, "orders", "", minutes * minute);
            one.observed = 1;
            one
        };
        let mut all = CameUpon::default();
        for minutes in [31, 0, 9, 18, 30] {
            all.add(at(Kind::DeniedButServed, minutes));
        }
        all.add(at(Kind::DecisionIdReused, 9));
        let (told, left_out) = all.told();
        let told: Vec<_> =
            told.iter().map(|f| (f.kind.as_str(), f.detected / minute, f.observed)).collect();
        let (served, reused) = ("denied_but_served", "decision_id_reused");
        assert_eq!(told, [(served, 0, 3), (reused, 9, 1), (served, 30, 2)]);
        assert_eq!(left_out, 0);
        let mut many = CameUpon::default();
        (0..CameUpon::MOST as i64 + 7).for_each(|i| many.add(at(Kind::LogGap, 20 * i)));
        let (told, left_out) = many.told();
        assert_eq!((told.len(), left_out), (CameUpon::MOST, 7));
    }
}
