//! Asks Kafka what is there, once, for who waits for the answer: what it says, or in librdkafka's words why nothing comes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Statistics};

use super::config::Kafka;
use super::{client, told};

/// Why Kafka gave no answer. The way out is said, too.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    #[error("Kafka at {brokers} can't be reached: {why}")]
    Unreachable { brokers: String, why: String },
    /// It is Kafka, takes who asks, and has answered something else before.
    #[error("Kafka at {brokers} is slow: {why}")]
    Slow { brokers: String, why: String },
    #[error("Kafka at {brokers} refused the login: {why}; see {LOGIN}")]
    Login { brokers: String, why: String },
    #[error("the Kafka properties can't be used: {0}")]
    Properties(String),
}

/// Where a login is set.
pub const LOGIN: &str =
    "sasl.mechanism, sasl.username and sasl.password under kafka.properties in the pipeline file";

/// What to think of if something listens there and says nothing that can be read.
const SPEAKS: &str = "if something listens there, it may want TLS or a login (security.protocol under kafka.properties), or be no Kafka";
/// And if it has said nothing at all.
const SILENT: &str = "if something listens there, it may be slow, want TLS or a login (security.protocol under kafka.properties), or be no Kafka";

/// What gives the rights that a pipeline needs.
pub const ACLS: &str = "deploy/kafka/acls.sh";

/// Who has said something waits no longer than this for the contrary: the next address of a name, the next broker.
const SETTLED: Duration = Duration::from_millis(1500);
/// A login with a token first has to fetch it.
const TOKEN: Duration = Duration::from_secs(10);

/// Keeps the last thing that librdkafka said of a connection that fails, and whether a broker has ever answered.
#[derive(Default)]
pub struct Heard {
    last: Mutex<Option<(RDKafkaErrorCode, String)>>,
    answered: AtomicBool,
}

impl Heard {
    pub fn last(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Heard {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        // That all are down says less than why one is.
        if !matches!(code, RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::PartitionEOF) {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((code, told::plain(reason).to_owned()));
        }
    }

    fn stats(&self, statistics: Statistics) {
        // Up is who has said which versions it speaks, and takes the login.
        if statistics.brokers.values().any(|broker| broker.state == "UP") {
            self.answered.store(true, Ordering::Relaxed);
        }
    }
}

impl ConsumerContext for Heard {}

/// A client that asks. It joins no group and commits nothing.
pub struct Asker {
    pub client: BaseConsumer<Heard>,
    brokers: String,
    with_token: bool,
}

impl Asker {
    /// With a group, it can be asked for what the group may do, and read.
    pub fn new(kafka: &Kafka, part: &str, group: Option<&str>) -> Result<Asker, Unanswered> {
        let mut config = client::config(kafka, part);
        config
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .set("statistics.interval.ms", "500")
            .set("fetch.wait.max.ms", "100");
        if let Some(group) = group {
            config.set("group.id", group);
        }
        let client = client::with_properties(config, kafka)
            .create_with_context(Heard::default())
            .map_err(|error| Unanswered::Properties(error.to_string()))?;
        let with_token = kafka.properties.iter().any(|(name, value)| {
            ["sasl.mechanism", "sasl.mechanisms"].contains(&name.as_str())
                && value.value().eq_ignore_ascii_case("OAUTHBEARER")
        });
        Ok(Asker { client, brokers: kafka.brokers.clone(), with_token })
    }

    /// What the cluster says of one topic, or of all that it shows. Asks for so long, but not in vain: an error that stays is the answer.
    pub fn metadata(
        &self,
        topic: Option<&str>,
        patience: Duration,
    ) -> Result<Metadata, Unanswered> {
        let began = Instant::now();
        let mut step = Duration::from_millis(300);
        loop {
            self.hear();
            let left = patience.saturating_sub(began.elapsed()).max(Duration::from_millis(100));
            let error = match self.client.fetch_metadata(topic, step.min(left)) {
                Ok(metadata) => {
                    self.client.context().answered.store(true, Ordering::Relaxed);
                    return Ok(metadata);
                }
                Err(error) => error,
            };
            self.hear();
            let heard = self.client.context().last();
            let refused = |code| code == RDKafkaErrorCode::Authentication && !self.with_token;
            let enough = match &heard {
                Some((code, _)) if refused(*code) => Duration::ZERO,
                Some((_, why)) if self.with_token && !token_refused(why) => TOKEN.min(patience),
                Some(_) => SETTLED.min(patience),
                None => patience,
            };
            if began.elapsed() >= enough {
                return Err(self.unanswered(heard, &error, began.elapsed()));
            }
            step *= 2;
        }
    }

    /// Has librdkafka call back: what went wrong, and that a token is wanted.
    pub fn hear(&self) {
        // Reports of statistics stand before what is wanted, and each ends a poll that may not wait.
        while self.client.poll(Duration::from_millis(50)).is_some() {}
    }

    fn unanswered(
        &self,
        heard: Option<(RDKafkaErrorCode, String)>,
        error: &KafkaError,
        after: Duration,
    ) -> Unanswered {
        let brokers = self.brokers.clone();
        match heard {
            Some((RDKafkaErrorCode::Authentication, why)) => Unanswered::Login { brokers, why },
            // What a listener does to who does not speak TLS, or to whom it is no Kafka.
            Some((_, why))
                if ["Broken pipe", "Invalid response size", "Disconnected"]
                    .iter()
                    .any(|how| why.contains(how)) =>
            {
                let why = format!("{why}; {SPEAKS}");
                Unanswered::Unreachable { brokers, why }
            }
            Some((_, why)) => Unanswered::Unreachable { brokers, why },
            None => {
                let why = format!("no answer in {:.1} s ({error})", after.as_secs_f64());
                if self.client.context().answered.load(Ordering::Relaxed) {
                    return Unanswered::Slow { brokers, why };
                }
                Unanswered::Unreachable { brokers, why: format!("{why}; {SILENT}") }
            }
        }
    }
}

/// Whether there is no token to wait for: whoever gives them gives none, or Kafka does not take it.
fn token_refused(why: &str) -> bool {
    ["Failed to acquire SASL OAUTHBEARER token", "SASL authentication error"]
        .iter()
        .any(|how| why.contains(how))
}

/// Whether an error of a topic says that it may be there, but not for who asks.
pub fn hides(error: Option<RDKafkaRespErr>) -> bool {
    error == Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED)
}

#[cfg(test)]
mod tests {
    use super::super::config::Property;
    use super::*;
    use crate::config::secrets::Secret;

    fn kafka(brokers: &str) -> Kafka {
        Kafka { brokers: brokers.into(), properties: std::collections::BTreeMap::new() }
    }

    #[test]
    fn a_refused_connection_is_told_in_time_with_the_reason() {
        let began = Instant::now();
        let asker = Asker::new(&kafka("127.0.0.1:1"), "test", None).unwrap();
        let error = asker.metadata(None, Duration::from_secs(15)).map(|_| ()).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("Kafka at 127.0.0.1:1 can't be reached: "), "{text}");
        assert!(text.contains("Connection refused"), "{text}");
        assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    }

    #[test]
    fn who_is_silent_is_given_the_time_and_no_more() {
        // Takes connections, and never answers.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let began = Instant::now();
        let asker =
            Asker::new(&kafka(&silent.local_addr().unwrap().to_string()), "test", None).unwrap();
        let error = asker.metadata(None, Duration::from_secs(1)).map(|_| ()).unwrap_err();
        // A busy machine takes longer; librdkafka alone would take a minute.
        assert!(error.to_string().contains("no answer in "), "{error}");
        assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    }

    /// A wrong secret is told as soon as a wrong password is, though a login with a token may take longer.
    #[test]
    fn a_token_that_is_refused_is_told_in_time() {
        use std::io::{Read, Write};
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let tokens = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/token", tokens.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut stream in tokens.incoming().flatten() {
                let _ = stream.read(&mut [0; 4096]);
                let body = r#"{"error":"invalid_client"}"#;
                let head = "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\nconnection: close";
                let _ = write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            }
        });
        let properties = [
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "OAUTHBEARER"),
            ("sasl.oauthbearer.method", "oidc"),
            ("sasl.oauthbearer.client.id", "docket"),
            ("sasl.oauthbearer.client.secret", "wrong"),
            ("sasl.oauthbearer.token.endpoint.url", endpoint.as_str()),
        ];
        let brokers = silent.local_addr().unwrap().to_string();
        let properties = properties
            .map(|(name, value)| (name.to_owned(), Property::Text(Secret::new(value))))
            .into();
        let asker = Asker::new(&Kafka { brokers, properties }, "test", None).unwrap();
        let began = Instant::now();
        let error = asker.metadata(None, Duration::from_secs(15)).map(|_| ()).unwrap_err();
        assert!(
            error.to_string().contains("refused the login")
                && error.to_string().contains("invalid_client"),
            "{error}"
        );
        // It takes two; a busy machine longer.
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    }

    #[test]
    fn a_topic_that_is_there_and_one_that_is_not() {
        let mock = crate::log::mock::Mock::start(&[("here", 3)]).unwrap();
        let asker = Asker::new(&kafka(&mock.bootstrap()), "test", None).unwrap();
        let all = asker.metadata(None, Duration::from_secs(10)).unwrap();
        assert_eq!(
            all.topics().iter().map(rdkafka::metadata::MetadataTopic::name).collect::<Vec<_>>(),
            ["here"]
        );
    }
}
