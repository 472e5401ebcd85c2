//! How long to wait for a sink that fails, and what is told of it.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use super::send::Sending;
use crate::http::failure::{Cause, Retry};
use crate::log::RecordWriter;
use crate::sink::config::SinkConfig;
use crate::telemetry::outage::Outage;

/// A server may not ask for longer.
const LONGEST: Duration = Duration::from_secs(300);
/// A wait of this length is worth a line by itself.
const LONG: Duration = Duration::from_secs(30);

impl<L: RecordWriter> Sending<L> {
    /// How long to wait before sending again: exponential with full jitter, or as long as the server wants.
    pub(super) fn wait(&self, after: Option<Duration>, attempts: u32) -> Duration {
        let delivery = &self.deliver.delivery;
        let ceiling = delivery
            .retry_initial
            .0
            .saturating_mul(1 << attempts.saturating_sub(1).min(16))
            .min(delivery.retry_max.0);
        let jittered = ceiling
            .mul_f64(self.jitter.lock().unwrap_or_else(PoisonError::into_inner).random::<f64>());
        asked(after, jittered)
    }

    /// Tells of a request that failed, and is sent again after `wait`.
    pub(super) fn tell(&self, retry: &Retry, wait: Duration, attempts: u32, others: bool) {
        let (name, cause) = (self.deliver.name.as_str(), retry.cause.as_str());
        if others {
            tracing::warn!(
                part = name,
                cause,
                detail = retry.detail,
                attempts,
                "a request fails while others pass; what is wrong with it is looked for"
            );
            return;
        }
        self.deliver.meters.failing.with_label_values(&[name, cause]).set(1);
        let address = self.address();
        let mut detail = match retry.detail.contains(&address) {
            true => retry.detail.clone(),
            false => format!("{address}: {}", retry.detail),
        };
        let asked = retry.after.filter(|_| wait >= LONG);
        if let Some(asked) = asked {
            detail.push_str(&waits(asked, wait));
        }
        self.deliver.health.note(&self.requests(), Err(format!("{cause}: {detail}")));
        // The first may be the last for long.
        let attempts = if asked.is_some() { attempts.max(2) } else { attempts };
        let line = self.outage().failed(retry.cause, attempts, Instant::now());
        if let Some(line) = line {
            tracing::warn!(
                part = name,
                cause,
                detail,
                failures = line.failures,
                seconds = line.lasted.as_secs(),
                "the sink can't be served; its decisions wait in Kafka"
            );
        }
    }

    fn outage(&self) -> MutexGuard<'_, Outage<Cause>> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the sink is.
    pub(super) fn address(&self) -> String {
        let sink = self.deliver.pipeline.file.sinks.get(self.deliver.sink_name());
        sink.map(SinkConfig::address).unwrap_or_default()
    }

    /// What health calls the sink's answers.
    pub(super) fn requests(&self) -> String {
        format!("{}/{} requests", self.deliver.pipeline.name(), self.deliver.name)
    }

    pub(super) fn recovered(&self) {
        self.deliver.health.note(&self.requests(), Ok(()));
        let line = self.outage().served(Instant::now());
        if let Some(line) = line {
            tracing::info!(
                part = self.deliver.name,
                failures = line.failures,
                seconds = line.lasted.as_secs(),
                "the sink can be served again"
            );
        }
        self.deliver.meters.served(&self.deliver.name);
    }
}

/// As long as the server wants, but not for ever; a little later, so that not all come at once.
fn asked(after: Option<Duration>, jittered: Duration) -> Duration {
    after.map_or(jittered, |after| after.min(LONGEST) + jittered.min(Duration::from_secs(1)))
}

/// What is said of a server that wants to be left alone for long.
fn waits(asked: Duration, wait: Duration) -> String {
    let wait = wait.as_secs();
    match asked > LONGEST {
        true => format!("; it asks for {} s, and is asked again after {wait} s", asked.as_secs()),
        false => format!("; it is asked again after {wait} s, as it wants"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_not_ask_for_a_year() {
        let seconds = Duration::from_secs;
        assert_eq!(asked(None, seconds(7)), seconds(7));
        assert_eq!(asked(Some(seconds(5)), seconds(7)), seconds(6));
        assert_eq!(asked(Some(Duration::MAX), seconds(0)), seconds(300));
        let said = waits(seconds(25_200), seconds(300));
        assert!(said.contains("asks for 25200 s") && said.ends_with("after 300 s"), "{said}");
    }
}
