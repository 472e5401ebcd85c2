//! Why a transactional producer can do nothing any more.
//!
//! librdkafka says of two things that "this instance has been fenced by a newer instance": of a second producer with the same transactional
//! ID, and of a transaction that Kafka itself has ended because it was open for too long: it then gives the ID a new epoch, and who comes
//! with the old one is told the same. The second happens whenever Kafka, or this process, is away for longer than that in the middle of a
//! transaction. Only the transactional ID tells them apart: one that a process has made up for itself is no other's.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::ask::ACLS;

/// A transaction that is open for longer is ended by Kafka (transaction.timeout.ms), and until then readers wait for it.
pub const LONGEST_MS: u32 = 15_000;

#[derive(Debug, Clone, thiserror::Error)]
pub enum Ended {
    #[error(
        "Kafka has ended a transaction that was open for more than {} s, because Kafka or this process was away for so long; what was in it is read again. (librdkafka calls it fenced by a newer instance; there is none.)",
        LONGEST_MS / 1000
    )]
    TimedOut,
    #[error(
        "another process has the same intake.instance_id ({instance}); or Kafka has ended a transaction that was open for more than {} s, because Kafka or this process was away for so long: what was in it is read again",
        LONGEST_MS / 1000
    )]
    Fenced { instance: String },
    #[error("the producer failed for good: {error}{denied}")]
    Failed {
        error: KafkaError,
        /// What it had no right to, and the way out.
        denied: String,
    },
}

impl Ended {
    /// `instance` is what the transactional ID is made of, if the pipeline file says so; `topic` the one that the producer had no right to
    /// write to.
    pub fn new(error: KafkaError, instance: Option<&str>, topic: Option<String>) -> Ended {
        let fenced = [
            RDKafkaErrorCode::Fenced,
            RDKafkaErrorCode::ProducerFenced,
            RDKafkaErrorCode::InvalidProducerEpoch,
        ];
        match (error.rdkafka_error_code().filter(|code| fenced.contains(code)), instance) {
            (None, _) => {
                let denied = denied(&error, topic);
                Ended::Failed { error, denied }
            }
            (Some(_), None) => Ended::TimedOut,
            (Some(_), Some(instance)) => Ended::Fenced { instance: instance.to_owned() },
        }
    }
}

/// What is said of rights that are missing: librdkafka's last error may only be that the transaction has failed.
fn denied(error: &KafkaError, topic: Option<String>) -> String {
    use RDKafkaErrorCode::{
        ClusterAuthorizationFailed, TopicAuthorizationFailed, TransactionalIdAuthorizationFailed,
    };
    let rights =
        [ClusterAuthorizationFailed, TopicAuthorizationFailed, TransactionalIdAuthorizationFailed];
    match (topic, error.rdkafka_error_code()) {
        (Some(topic), _) => {
            format!(
                "; docket has no right to write to {topic}: {ACLS} gives it the rights it needs"
            )
        }
        (None, Some(code)) if rights.contains(&code) => {
            format!("; {ACLS} gives docket the rights it needs")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_shares_an_id_can_be_fenced_by_another() {
        let fenced = || KafkaError::Global(RDKafkaErrorCode::Fenced);
        let text = Ended::new(fenced(), None, None).to_string();
        assert!(text.contains("more than 15 s") && !text.contains("another process"), "{text}");
        let text = Ended::new(fenced(), Some("docket-0"), None).to_string();
        assert!(text.starts_with("another process") && text.contains("(docket-0)"), "{text}");
        let rights = KafkaError::Global(RDKafkaErrorCode::TransactionalIdAuthorizationFailed);
        let text = Ended::new(rights, None, None).to_string();
        assert!(text.starts_with("the producer failed for good") && text.contains("uthorization"));
        assert!(
            text.ends_with("; deploy/kafka/acls.sh gives docket the rights it needs"),
            "{text}"
        );
        let state = KafkaError::Global(RDKafkaErrorCode::InvalidTransactionalState);
        assert_eq!(denied(&state, None), "");
        assert!(
            denied(&state, Some("docket.ro".into())).contains("no right to write to docket.ro")
        );
    }
}
