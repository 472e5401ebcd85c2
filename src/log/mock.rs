//! A Kafka inside the process, for `docket demo` and the hermetic tests: librdkafka's mock cluster, which
//! speaks the wire protocol on a loopback port. It keeps a few MB a partition and forgets the rest, and
//! does not store offsets that are sent in a transaction, so it proves the flow and not exactly-once.

use rdkafka::error::KafkaResult;
use rdkafka::mocking::MockCluster;
#[cfg(test)]
use rdkafka::mocking::MockCoordinator;
use rdkafka::producer::DefaultProducerContext;

pub struct Mock(MockCluster<'static, DefaultProducerContext>);

impl Mock {
    pub fn start(topics: &[(&str, i32)]) -> KafkaResult<Mock> {
        Mock::start_brokers(1, topics)
    }

    /// Several brokers, and as many copies.
    pub fn start_brokers(brokers: i32, topics: &[(&str, i32)]) -> KafkaResult<Mock> {
        let cluster = MockCluster::new(brokers)?;
        for (topic, partitions) in topics {
            cluster.create_topic(topic, *partitions, brokers)?;
        }
        Ok(Mock(cluster))
    }

    /// From now on it takes so long for each answer.
    pub fn slow_down(&self, by: std::time::Duration) -> KafkaResult<()> {
        self.0.broker_round_trip_time(1, by)
    }

    /// It has gone, with the connection, when it is to answer the next offsets of a transaction.
    #[cfg(test)]
    pub fn cut_at_offsets(&self) {
        let gone = rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT;
        self.0.request_errors(rdkafka::types::RDKafkaApiKey::TxnOffsetCommit, &[gone]);
    }

    /// It knows of no open transaction when it is to end the next.
    #[cfg(test)]
    pub fn knows_no_transaction(&self) {
        let none = rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_TXN_STATE;
        self.0.request_errors(rdkafka::types::RDKafkaApiKey::EndTxn, &[none]);
    }

    /// A broker that is to coordinate a "group" or a "transaction", by its name.
    #[cfg(test)]
    pub fn coordinates(&self, what: &str, name: &str, broker: i32) {
        let name = name.to_owned();
        let of = match what {
            "group" => MockCoordinator::Group(name),
            _ => MockCoordinator::Transaction(name),
        };
        let _ = self.0.coordinator(of, broker);
    }

    #[cfg(test)]
    pub fn stop(&self, broker: i32) {
        let _ = self.0.broker_down(broker);
    }

    /// So many times it says that it does not lead a partition whose offsets are asked for.
    #[cfg(test)]
    pub fn leads_not(&self, times: usize) {
        let not = rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
        self.0.request_errors(rdkafka::types::RDKafkaApiKey::ListOffsets, &vec![not; times]);
    }

    pub fn bootstrap(&self) -> String {
        self.0.bootstrap_servers()
    }
}
