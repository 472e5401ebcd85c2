//! How `docket run` is stopped: who is waited for, and what a second signal leaves behind.

use std::time::Duration;

use prometheus::Registry;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Exit;
use crate::stage::run::Process;
use crate::telemetry::Health;

/// SIGTERM and SIGINT, each as often as it comes.
pub struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    pub fn new() -> std::io::Result<Signals> {
        let term = signal(SignalKind::terminate())?;
        Ok(Signals { term, int: signal(SignalKind::interrupt())? })
    }

    /// The exit code of who is ended by the next one.
    pub async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.term.recv() => 143,
            _ = self.int.recv() => 130,
        }
    }
}

/// A sink that has not answered for all it was sent, or fails.
#[derive(Debug, PartialEq, Eq)]
struct Waited {
    /// The pipeline's name, a slash and the sink's.
    part: String,
    records: u64,
    why: Option<String>,
}

fn waited(registry: &Registry, health: &Health) -> Vec<Waited> {
    let conditions = health.all();
    let failing = |part: &str| conditions.get(&format!("{part} requests"))?.state.clone().err();
    let families = registry.gather();
    let gauges = families.iter().filter(|family| family.name() == "docket_sink_in_flight_records");
    let mut all = Vec::new();
    for gauge in gauges.flat_map(prometheus::proto::MetricFamily::get_metric) {
        let label = |name: &str| gauge.get_label().iter().find(|label| label.name() == name);
        let (Some(pipeline), Some(sink)) = (label("pipeline"), label("sink")) else { continue };
        let part = format!("{}/{}", pipeline.value(), sink.value());
        let (records, why) = (gauge.get_gauge().get_value() as u64, failing(&part));
        if records > 0 || why.is_some() {
            all.push(Waited { part, records, why });
        }
    }
    all
}

/// The beginning of a stop: how long it may take, and for whom. Who stops is not ready, so that nobody sends it anything more.
pub fn begins(process: &Process) {
    let most = format!("{:?}", process.drain);
    process.health.serve(
        "process",
        Err(format!("stopping: what was read is delivered, for {most} at most (--drain)")),
    );
    tracing::info!(
        "stopping: delivering what was read, for {most} at most (--drain); a second SIGINT or SIGTERM ends at once"
    );
    for Waited { part, records, why } in waited(&process.registry, &process.health) {
        match why {
            Some(detail) => tracing::warn!(
                part,
                records,
                detail,
                "this sink fails, and is waited for until {most} are over; what it does not take by then is sent after the next start"
            ),
            None => {
                tracing::info!(part, records, "this sink has not answered yet, and is waited for");
            }
        }
    }
}

/// When the time for sinks is over, Kafka may take so much longer to answer for what was begun.
pub const LAST: Duration = Duration::from_secs(10);

/// Kafka did not answer in time: what was begun is done again.
pub fn overdue(process: &Process) {
    let most = process.drain + LAST;
    tracing::warn!(
        "stopped, though Kafka has not answered within {most:?}: what was begun there is ended by Kafka, and done again after the next start"
    );
}

/// A second signal: nobody is waited for any more.
pub fn at_once(process: &Process, code: u8) -> Exit {
    let left = waited(&process.registry, &process.health);
    for Waited { part, records, .. } in &left {
        tracing::warn!(
            part,
            records,
            "not delivered; it is in Kafka, and is sent after the next start"
        );
    }
    let records: u64 = left.iter().map(|waited| waited.records).sum();
    Exit::new(
        code,
        format!(
            "ended at once, as asked: {records} decisions were on their way; after the next start they, and what was taken in the last second, are sent again"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Meters;

    #[tokio::test]
    async fn who_stops_is_not_ready() {
        let process = Process { drain: Duration::from_secs(20), ..Process::alone() };
        assert_eq!(process.health.not_ready(), []);
        begins(&process);
        let (part, why) = process.health.not_ready().remove(0);
        assert!(part == "process" && why.starts_with("stopping: ") && why.contains("20s"), "{why}");
    }

    #[test]
    fn who_has_not_answered_or_fails_is_waited_for() {
        let (registry, health) = (Registry::new(), Health::default());
        let meters = Meters::new("p", &registry).unwrap();
        for (sink, records) in [("idle", 0), ("busy", 7), ("down", 0)] {
            meters.in_flight.with_label_values(&[sink]).set(records);
        }
        health.note("p/down requests", Err("connection: refused".into()));
        let waited = |part: &str, records, why: Option<&str>| Waited {
            part: part.into(),
            records,
            why: why.map(str::to_owned),
        };
        let mut all = super::waited(&registry, &health);
        all.sort_by(|a, b| a.part.cmp(&b.part));
        assert_eq!(
            all,
            [waited("p/busy", 7, None), waited("p/down", 0, Some("connection: refused"))]
        );
    }
}
