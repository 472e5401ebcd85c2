//! Settings that every Kafka client of docket has, and what librdkafka says.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{ClientConfig, ClientContext, Statistics};

use super::closing::Abandon;
use super::config::Kafka;
use super::told;
pub use super::told::{failing, log};

/// A client's configuration: docket's defaults, then the pipeline file's properties.
/// `part` tells the clients of one process apart in the broker's logs and metrics.
pub fn config(kafka: &Kafka, part: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &kafka.brokers)
        .set("client.id", format!("docket-{part}"))
        .set("socket.keepalive.enable", "true")
        .set("topic.metadata.refresh.interval.ms", "30000")
        .set("reconnect.backoff.max.ms", "5000");
    config.set_log_level(RDKafkaLogLevel::Info);
    config
}

/// The same for a client that lasts: every two seconds it reports what `Brokers` and others want to know.
pub fn long_lived(kafka: &Kafka, part: &str) -> ClientConfig {
    let mut config = config(kafka, part);
    config.set("statistics.interval.ms", "2000");
    config
}

/// Whether a client can still reach a broker, ever. There are two ways in which librdkafka gives up without a word, so that the client has to be made
/// anew:
/// - A Kafka that starts or stops may answer that there are no brokers; librdkafka then forgets those it had, and never looks for another
///   (<https://github.com/confluentinc/librdkafka/issues/5301>).
/// - A request for an OAuth token that fails without a reason (a connection reset, an empty answer of 500) isn't noted as failed
///   (`rd_kafka_oauthbearer_set_token_failure` takes no empty text), and what isn't noted is never tried again.
#[derive(Default)]
pub struct Brokers {
    /// So many reports named none, one after the other.
    without: AtomicU32,
    tokenless: AtomicBool,
    /// How often a connection or a request failed.
    failures: AtomicU32,
    /// How often a connection to a broker was lost.
    cuts: AtomicU32,
    /// Since when it is in no group, and what it waits for.
    outside: Mutex<Option<(Instant, String)>>,
    /// The topic that a transaction may not write to.
    denied: Mutex<Option<String>>,
}

/// Whoever joins a group waits for the others, who finish what they do; not for so long.
const JOINS: Duration = Duration::from_secs(60);

impl Brokers {
    /// More than one report: a client that looks for its brokers again has none for a moment.
    const LOST: u32 = 3;

    pub fn note(&self, statistics: &Statistics) {
        if let Some(group) = &statistics.cgrp {
            self.stands(&group.state, &group.join_state, Instant::now());
        }
        // A coordinator is called logical: where it is, a broker has to say.
        let known = statistics
            .brokers
            .values()
            .any(|broker| matches!(broker.source.as_str(), "learned" | "configured"));
        if known {
            self.without.store(0, Ordering::Relaxed);
        } else if self.without.fetch_add(1, Ordering::Relaxed) + 1 == Self::LOST {
            tracing::warn!(
                client = statistics.name,
                "Kafka said that it has no brokers; this client is made anew"
            );
        }
    }

    /// How a member stands to its group. It is in it once partitions were shared out, though it may have got none.
    fn stands(&self, coordinator: &str, joining: &str, now: Instant) {
        let mut outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = match (coordinator, joining) {
            ("up", "steady") => return *outside = None,
            ("up", joining) => format!("librdkafka says {joining}"),
            (coordinator, _) => format!("Kafka names no coordinator for it ({coordinator})"),
        };
        let since = outside.as_ref().map_or(now, |(since, _)| *since);
        *outside = Some((since, waits));
    }

    /// Why a member is not in its group, if that lasts.
    pub fn outside(&self) -> Option<String> {
        self.outside_at(Instant::now())
    }

    fn outside_at(&self, now: Instant) -> Option<String> {
        let outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, waits) = outside.as_ref()?;
        let long = now.saturating_duration_since(*since);
        (long > JOINS)
            .then(|| format!("not in its consumer group for {} s: {waits}", long.as_secs()))
    }

    /// The topic that the client had no right to write to.
    pub fn denied(&self) -> Option<String> {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What librdkafka logs: the only place where the second way shows, and which topic it was.
    pub fn logged(&self, facility: &str, message: &str) {
        if let Some(topic) = told::denied_topic(message) {
            *self.denied.lock().unwrap_or_else(PoisonError::into_inner) = Some(topic.to_owned());
        }
        let failed = matches!(facility, "OIDC" | "JWT") && message.contains("Failed to retrieve");
        let reason = message.rsplit_once(" (").map_or(message, |(before, _code)| before);
        if failed && reason.ends_with(": ") {
            self.tokenless.store(true, Ordering::Relaxed);
            tracing::warn!("no token, and librdkafka won't ask again; this client is made anew");
        }
    }

    /// What librdkafka logs of transactions and connections, where it is made to (`debug: eos,broker`): a request that got no answer is sent
    /// again, and the first may arrive yet. Of one for offsets only the connection tells, which was there and is lost; one that can't be made
    /// had no request.
    pub fn heard(&self, facility: &str, message: &str) {
        if message.split("EndTxn returned ").nth(1).is_some_and(|code| code.starts_with('_')) {
            self.failures.fetch_add(1, Ordering::AcqRel);
        }
        let lost = ["(_TRANSPORT)", "(_TIMED_OUT)"].iter().any(|code| message.ends_with(code));
        if facility == "FAIL" && lost && message.contains("in state UP)") {
            self.cuts.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Takes note of an error that is no record's.
    pub fn failed(&self, error: &KafkaError) {
        if is_outage(error) {
            self.failures.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub fn failures(&self) -> u32 {
        self.failures.load(Ordering::Acquire)
    }

    pub fn cuts(&self) -> u32 {
        self.cuts.load(Ordering::Acquire)
    }

    pub fn lost(&self) -> bool {
        self.without.load(Ordering::Relaxed) >= Self::LOST || self.tokenless.load(Ordering::Relaxed)
    }

    /// An error if the client can't do anything any more.
    pub fn check(&self) -> KafkaResult<()> {
        if self.lost() { Err(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown)) } else { Ok(()) }
    }
}

/// Of a client that lasts, and what else it has to keep.
#[derive(Default)]
pub struct Context<T = ()> {
    pub own: T,
    pub brokers: Arc<Brokers>,
}

impl<T: Send + Sync + 'static> ClientContext for Context<T> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // What docket listens to is no news for people.
        if matches!(level, RDKafkaLogLevel::Debug) {
            return self.brokers.heard(facility, message);
        }
        log(level, facility, message);
        self.brokers.logged(facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.brokers.note(&statistics);
        told::statistics(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.brokers.failed(&error);
        let code = error.rdkafka_error_code();
        if code != Some(RDKafkaErrorCode::PartitionEOF) && !told::error(code, reason) {
            tracing::warn!("Kafka: {error}: {reason}");
        }
    }
}

impl ConsumerContext for Context {}

impl Abandon for Context {}

/// Has librdkafka log more, so that it can be listened to.
pub fn saying(mut config: ClientConfig, what: &str) -> ClientConfig {
    let debug = config.get("debug").map_or_else(|| what.to_owned(), |own| format!("{own},{what}"));
    config.set("debug", debug).set_log_level(RDKafkaLogLevel::Debug);
    config
}

/// Puts the pipeline file's properties on top: last, so that they win.
pub fn with_properties(mut config: ClientConfig, kafka: &Kafka) -> ClientConfig {
    for (name, value) in &kafka.properties {
        config.set(name, value.value());
    }
    config
}

/// Whether an error says that Kafka is away or slow, so that trying again is all there is to do.
pub fn is_outage(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::*;
    matches!(
        error.rdkafka_error_code(),
        Some(
            BrokerTransportFailure
                | AllBrokersDown
                | OperationTimedOut
                | RequestTimedOut
                | Resolve
                | NetworkException
                | BrokerNotAvailable
                | LeaderNotAvailable
                | NotLeaderForPartition
                | CoordinatorNotAvailable
                | CoordinatorLoadInProgress
                | NotCoordinator
                | NotEnoughReplicas
                | NotEnoughReplicasAfterAppend
                | MessageTimedOut
                | UnknownTopicOrPartition
                | UnknownTopic
                | UnknownPartition
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(sources: &[&str]) -> Statistics {
        let broker = |source: &&str| {
            (
                (*source).to_owned(),
                rdkafka::statistics::Broker { source: (*source).to_owned(), ..Default::default() },
            )
        };
        Statistics { brokers: sources.iter().map(broker).collect(), ..Default::default() }
    }

    #[test]
    fn a_client_without_brokers_is_lost_once_that_lasts() {
        let brokers = Brokers::default();
        for known in [&["configured"][..], &["learned", "logical"]] {
            brokers.note(&report(&["logical"]));
            brokers.note(&report(&[]));
            assert!(!brokers.lost());
            brokers.note(&report(known));
        }
        for _ in 0..3 {
            assert_eq!(brokers.check(), Ok(()));
            brokers.note(&report(&["logical", "internal"]));
        }
        assert!(brokers.lost() && brokers.check().is_err());
    }

    #[test]
    fn a_member_that_stays_outside_of_its_group_says_so() {
        let (brokers, began) = (Brokers::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        let why = |seconds| brokers.outside_at(at(seconds));
        brokers.stands("query-coord", "init", at(0));
        brokers.stands("up", "wait-join", at(30));
        assert_eq!(why(60), None, "others may have much to finish");
        let told = "not in its consumer group for 61 s: librdkafka says wait-join";
        assert_eq!(why(61).as_deref(), Some(told));
        brokers.stands("wait-coord", "steady", at(70));
        assert!(why(71).unwrap().ends_with("names no coordinator for it (wait-coord)"));
        brokers.stands("up", "steady", at(72));
        brokers.stands("up", "wait-sync", at(80));
        assert_eq!(why(130), None);
    }

    #[test]
    fn an_end_of_a_transaction_without_an_answer_is_a_failure() {
        let brokers = Brokers::default();
        let returned = |code: &str| {
            brokers.heard("ENDTXN", &format!(
                "[thrd:TxnCoordinator]: EndTxn returned {code} in state CommittingTransaction (may_retry=true)"
            ));
            brokers.failures()
        };
        assert_eq!(returned("NO_ERROR"), 0);
        assert_eq!(returned("CONCURRENT_TRANSACTIONS"), 0, "it was answered");
        assert_eq!(returned("_TRANSPORT"), 1);
        assert_eq!(returned("_TIMED_OUT"), 2);
        brokers.failed(&KafkaError::Global(RDKafkaErrorCode::UnknownTopic));
        assert_eq!(brokers.failures(), 3);
        let failed = |what: &str| {
            brokers.heard("FAIL", &format!("[thrd:127.0.0.1:9092/1]: 127.0.0.1:9092/1: {what}"));
            brokers.cuts()
        };
        assert_eq!(
            failed(
                "Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT) (_TRANSPORT)"
            ),
            0
        );
        assert_eq!(
            failed("Decommissioning this broker (after 7ms in state UP) (_DESTROY_BROKER)"),
            0
        );
        assert_eq!(
            failed(
                "Disconnected: connection closed by peer: receive 0 after POLLIN (after 206ms in state UP) (_TRANSPORT)"
            ),
            1
        );
        assert_eq!(
            failed(
                "1 request(s) timed out: disconnect (average rtt 1.2ms) (after 60009ms in state UP) (_TIMED_OUT)"
            ),
            2
        );
        assert_eq!(brokers.failures(), 3);
    }

    #[test]
    fn a_client_whose_token_failed_without_a_reason_is_lost() {
        let failed = |why: &str| {
            format!(
                "[thrd:background]: Failed to retrieve OIDC token from \"https://idp/token\": {why}"
            )
        };
        let brokers = Brokers::default();
        brokers.logged("OIDC", &failed("Couldn't connect to server (-1)"));
        brokers.logged("OIDC", &failed("{\"error\":\"invalid_client\"} (401)"));
        brokers.logged("FAIL", &failed(" (-1)"));
        assert!(!brokers.lost());
        for why in [" (-1)", " (500)"] {
            let brokers = Brokers::default();
            brokers.logged("OIDC", &failed(why));
            brokers.note(&report(&["configured"]));
            assert!(brokers.lost(), "{why}");
        }
    }
}
