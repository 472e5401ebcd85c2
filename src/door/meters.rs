//! What the door counts.

use std::collections::BTreeSet;
use std::sync::{PoisonError, RwLock};

use prometheus::{HistogramVec, IntCounterVec, Registry};

use super::status::Told;
use crate::telemetry::Families;

pub struct Meters {
    pub requests: IntCounterVec,
    pub seconds: HistogramVec,
    pub decisions: IntCounterVec,
    pub bytes: IntCounterVec,
    /// What docket's own code panicked at.
    pub panics: IntCounterVec,
    pub status: Told,
    /// Clients that have series of their own: without tokens anybody is one, by their address.
    clients: RwLock<BTreeSet<String>>,
}

/// At most so many.
const MOST_CLIENTS: usize = 1000;

impl Meters {
    pub fn new(pipeline: &str, registry: &Registry) -> Result<Meters, prometheus::Error> {
        let all = Families { pipeline, registry };
        let meters = Meters {
            requests: all.counter(
                "docket_door_requests_total",
                "Requests to the door, by what they bring (logs, otlp, status) and the status that they got.",
                &["kind", "status"],
            )?,
            seconds: all.histogram(
                "docket_door_request_seconds",
                "How long the door took to answer, from the request's headers on.",
                &["kind"],
                &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0],
            )?,
            decisions: all.counter("docket_door_decisions_total", "Records that Kafka has acknowledged, by who brought them.", &["client"])?,
            bytes: all.counter("docket_door_bytes_total", "Bytes of bodies, as they came over the wire, by who brought them.", &["client"])?,
            panics: all.counter("docket_door_panics_total", "Uploads, and single decisions in them, at which docket itself panicked, by what they bring.", &["kind"])?,
            status: Told::new(&all)?,
            clients: RwLock::default(),
        };
        // What alerts ask for is there before it happens.
        for kind in ["logs", "otlp", "status"] {
            meters.panics.with_label_values(&[kind]);
            for status in ["200", "400", "401", "413", "429", "500", "503"] {
                meters.requests.with_label_values(&[kind, status]);
            }
        }
        Ok(meters)
    }

    /// The label of a client: `other` beyond the first so many.
    pub fn client<'c>(&self, name: &'c str) -> &'c str {
        if self.clients.read().unwrap_or_else(PoisonError::into_inner).contains(name) {
            return name;
        }
        let mut clients = self.clients.write().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MOST_CLIENTS && !clients.contains(name) {
            return "other";
        }
        clients.insert(name.to_owned());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_an_open_door_are_bounded() {
        let meters = Meters::new("p", &Registry::new()).unwrap();
        for n in 0..2 * MOST_CLIENTS {
            let address = format!("10.0.{}.{}", n / 250, n % 250);
            let own = if n < MOST_CLIENTS { address.as_str() } else { "other" };
            assert_eq!(meters.client(&address), own);
        }
        assert_eq!(meters.client("10.0.0.7"), "10.0.0.7", "who was told apart still is");
    }
}
