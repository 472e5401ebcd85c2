//! What librdkafka says while Kafka is away. Each client of a process, of which a part has two or three, says it of each of its
//! connections, several times a second, and twice: to its log and to whoever asks for errors. It is told once for each broker, with
//! its address; then with counts; and once when it is over.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::Statistics;
use rdkafka::config::RDKafkaLogLevel;
use tokio::time::Instant;

use crate::telemetry::outage::{Line, Outage};

/// What it is by: refused credentials are told at once, even if Kafka was away before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Connection,
    Login,
}

/// A connection that fails.
#[derive(Debug, PartialEq, Eq)]
struct Failing<'m> {
    /// `host:port`.
    broker: &'m str,
    why: &'m str,
    cause: Cause,
}

impl<'m> Failing<'m> {
    /// Of a line of librdkafka: `[thrd:GroupCoordinator]: GroupCoordinator: host:9092: Connect to .. failed: refused (after 0ms in state
    /// CONNECT, 1 identical error(s) suppressed)`; a broker's own name is `host:9092/1`, with `sasl_ssl://` before it.
    fn parse(message: &'m str) -> Option<Failing<'m>> {
        let mut rest = message;
        if rest.starts_with("[thrd:") {
            rest = rest.split_once("]: ")?.1;
        }
        let mut broker = None;
        for _ in 0..2 {
            let (name, behind) = rest.split_once(": ")?;
            let address = name.rsplit_once("://").map_or(name, |(_, behind)| behind);
            let address = address.split_once('/').map_or(address, |(before, _)| before);
            let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            match port {
                Some(Ok(_)) if !name.contains(' ') => broker = Some(address),
                _ if broker.is_some() || name.contains(' ') => break,
                _ => {}
            }
            rest = behind;
            if broker.is_some() {
                break;
            }
        }
        let why = rest.rsplit_once(" (after ").map_or(rest, |(before, _)| before);
        let cause = if why.to_ascii_lowercase().contains("authentication") {
            Cause::Login
        } else {
            Cause::Connection
        };
        broker.map(|broker| Failing { broker, why, cause })
    }
}

/// What librdkafka says of a connection that fails, without what it says of itself.
pub fn plain(reason: &str) -> &str {
    Failing::parse(reason).map_or(reason, |failing| failing.why)
}

/// By broker. Clients of one process reach it or do not.
#[derive(Debug, Default)]
struct Brokers(BTreeMap<String, (Outage<Cause>, Option<Last>)>);

/// The last failure.
#[derive(Debug)]
struct Last {
    at: Instant,
    why: String,
}

/// A broker that a client has reached since its last failure is back, if that was a while ago: others may still wait to connect.
const SETTLED: Duration = Duration::from_secs(6);

impl Brokers {
    fn failed(&mut self, failing: &Failing<'_>, now: Instant) -> Option<Line> {
        if !self.0.contains_key(failing.broker) {
            self.0.insert(failing.broker.to_owned(), Default::default());
        }
        let (outage, last) = self.0.get_mut(failing.broker)?;
        *last = Some(Last { at: now, why: failing.why.to_owned() });
        outage.seen(failing.cause, 1, now)
    }

    fn reached(&mut self, broker: &str, now: Instant) -> Option<Line> {
        let (outage, last) = self.0.get_mut(broker)?;
        let at = last.as_ref().map(|last| last.at)?;
        if now.duration_since(at) < SETTLED {
            return None;
        }
        *last = None;
        outage.served(at)
    }

    /// Why the one of these fails that failed last, if that is news.
    fn failing(&self, of: &str, now: Instant) -> Option<String> {
        let recent = self.0.iter().filter_map(|(broker, (_, last))| {
            let last = last.as_ref().filter(|last| now.duration_since(last.at) < RECENT)?;
            Some((of.contains(broker.as_str()), last.at, &last.why))
        });
        // A process may know others, of another pipeline.
        let (_, _, why) = recent.max_by_key(|(own, at, _)| (*own, *at))?;
        Some(why.clone())
    }
}

/// Clients that can't connect try again at least every few seconds.
const RECENT: Duration = Duration::from_secs(60);

static TOLD: Mutex<Brokers> = Mutex::new(Brokers(BTreeMap::new()));

fn told() -> std::sync::MutexGuard<'static, Brokers> {
    TOLD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why brokers can't be reached, in librdkafka's words; `of` names those that are asked for.
pub fn failing(of: &str) -> Option<String> {
    told().failing(of, Instant::now())
}

/// The topic of a line such as `Failed to add partition "docket.opa" [8] to transaction: Broker: Topic authorization failed`; there is
/// one for each partition.
pub fn denied_topic(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("Failed to add partition \"")?;
    let (topic, why) = rest.split_once("\" [")?;
    why.ends_with("Topic authorization failed").then_some(topic)
}

/// A connection fails.
fn connection(message: &str) {
    let Some(failing) = Failing::parse(message) else { return };
    let line = told().failed(&failing, Instant::now());
    if let Some(line) = line {
        tracing::warn!(
            broker = failing.broker,
            detail = failing.why,
            failures = line.failures,
            seconds = line.lasted.as_secs(),
            "Kafka can't be reached"
        );
    }
}

/// A broker that was just started, or made its first topic for transactions, has no coordinator yet.
fn is_tried_again(facility: &str, message: &str) -> bool {
    facility == "GETPID" && message.ends_with(": retrying")
}

/// librdkafka's log goes to docket's log, quieter by one level: it reports each lost connection as an error.
pub fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    if facility == "FAIL" && Failing::parse(message).is_some() {
        // One that was not in use and is closed fails nobody.
        if matches!(level, RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info) {
            tracing::debug!(facility, "{message}");
        } else {
            connection(message);
        }
        return;
    }
    // Whose producer it is says what is so (`ended`); what librdkafka tries again is told if it does not come in time.
    if denied_topic(message).is_some()
        || message.contains("fenced by a newer instance")
        || is_tried_again(facility, message)
    {
        tracing::debug!(facility, "{message}");
        return;
    }
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, "{message}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::warn!(facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(facility, "{message}"),
        RDKafkaLogLevel::Debug => tracing::debug!(facility, "{message}"),
    }
}

/// Whether what a client was told as an error is told already: what its connections say stands in its log, too, and that none is left
/// says nothing more.
pub fn error(code: Option<rdkafka::types::RDKafkaErrorCode>, reason: &str) -> bool {
    use rdkafka::types::RDKafkaErrorCode::{
        AllBrokersDown, BrokerTransportFailure, Fenced, Resolve,
    };
    match code {
        Some(AllBrokersDown | Fenced) => true,
        Some(BrokerTransportFailure | Resolve) => Failing::parse(reason).is_some(),
        _ => false,
    }
}

/// Which brokers a client has reached.
pub fn statistics(statistics: &Statistics) {
    let mut told = told();
    if told.0.values().all(|(_, last)| last.is_none()) {
        return;
    }
    let now = Instant::now();
    for broker in statistics.brokers.values().filter(|broker| broker.state == "UP") {
        if let Some(line) = told.reached(&broker.nodename, now) {
            tracing::info!(
                broker = broker.nodename,
                failures = line.failures,
                seconds = line.lasted.as_secs(),
                "Kafka can be reached again"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topic_that_may_not_be_written_to_is_known() {
        let line = r#"[thrd:main]: Failed to add partition "docket.ro" [8] to transaction: Broker: Topic authorization failed"#;
        assert_eq!(denied_topic(line), Some("docket.ro"));
        assert_eq!(denied_topic(&line.replace("Topic authorization", "Something else")), None);
        assert_eq!(denied_topic("Failed to add partition"), None);
    }

    #[test]
    fn a_connection_that_fails_is_known_by_its_broker_and_why() {
        let refused = "Connect to ipv4#127.0.0.1:20404 failed: Connection refused";
        let behind = "(after 0ms in state CONNECT, 1 identical error(s) suppressed)";
        for before in [
            "[thrd:127.0.0.1:20404/1]: 127.0.0.1:20404/1: ",
            "[thrd:127.0.0.1:20404/bootstrap]: 127.0.0.1:20404/bootstrap: ",
            "[thrd:GroupCoordinator]: GroupCoordinator: 127.0.0.1:20404: ",
            "TxnCoordinator: 127.0.0.1:20404: ",
            "[thrd:sasl_ssl://127.0.0.1:20404/1]: sasl_ssl://127.0.0.1:20404/1: ",
        ] {
            let line = format!("{before}{refused} {behind}");
            let expected =
                Failing { broker: "127.0.0.1:20404", why: refused, cause: Cause::Connection };
            assert_eq!(Failing::parse(&line), Some(expected), "{line}");
        }
        let login = "[thrd:sasl_plaintext://k:9092/bootstrap]: sasl_plaintext://k:9092/bootstrap: SASL authentication error: Authentication failed (after 3ms in state AUTH_REQ)";
        let failing = Failing::parse(login).unwrap();
        assert_eq!((failing.broker, failing.cause), ("k:9092", Cause::Login));
        assert_eq!(failing.why, "SASL authentication error: Authentication failed");
        for other in [
            "[thrd:main]: Failed to acquire transactional PID from broker TxnCoordinator/1: Broker: Coordinator load in progress: retrying",
            "Subscribed topic not available: opa-decision: Broker: Unknown topic or partition",
            "1/1 brokers are down",
            "",
            "]: [thrd:",
        ] {
            assert_eq!(Failing::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_coordinator_that_is_not_there_yet_is_asked_again_without_a_word() {
        let of = "[thrd:main]: Failed to acquire transactional PID from broker TxnCoordinator/1: Broker:";
        let told = |why: &str| is_tried_again("GETPID", &format!("{of} {why}"));
        assert!(told("Coordinator load in progress: retrying"));
        assert!(!told("Transactional Id authorization failed"));
        assert!(!is_tried_again("FAIL", "retrying"));
    }

    #[test]
    fn a_broker_that_is_away_is_a_line_then_counts_and_a_line_when_it_is_back() {
        let mut brokers = Brokers::default();
        let began = Instant::now();
        let at = |ms: u64| began + Duration::from_millis(ms);
        let failing = |broker| Failing { broker, why: "refused", cause: Cause::Connection };
        let mut told = Vec::new();
        for n in 0..600 {
            let line = brokers.failed(&failing("a:1"), at(n * 100));
            told.extend(line.map(|line| (n / 10, line.failures)));
            // A client that has not noticed yet.
            assert_eq!(brokers.reached("a:1", at(n * 100)), None);
        }
        assert_eq!(told, [(0, 1), (30, 301)]);
        assert_eq!(brokers.reached("b:1", at(90_000)), None);
        let line = brokers.reached("a:1", at(66_000)).unwrap();
        assert_eq!((line.failures, line.lasted.as_secs()), (600, 59));
        assert_eq!(brokers.reached("a:1", at(90_000)), None);
        assert!(brokers.failed(&failing("a:1"), at(100_000)).is_some(), "another day");
    }
}
