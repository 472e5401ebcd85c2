//! Where a group stands, and where what it reads ends: asked by a client of the group that joins nothing and commits nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::metadata::{MetadataPartition, MetadataTopic};

use super::client;
use super::config::Kafka;

const TIMEOUT: Duration = Duration::from_secs(10);

/// From the oldest record to the end, by topic and partition.
pub type Ranges = BTreeMap<(String, i32), (i64, i64)>;

pub struct Standing(BaseConsumer<client::Context>);

impl Standing {
    pub fn of(kafka: &Kafka, part: &str, group: &str) -> KafkaResult<Standing> {
        let mut config = client::long_lived(kafka, part);
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            // What is committed behind an open transaction can't be read yet, and is not to be taken for what is not there:
            // the end of a partition is where it is written, not where it can be read.
            .set("isolation.level", "read_uncommitted");
        let client = client::with_properties(config, kafka)
            .create_with_context(client::Context::default())?;
        Ok(Standing(client))
    }

    /// Hears what librdkafka has to say, which would pile up; an error is that it has given up.
    pub fn hear(&self) -> KafkaResult<()> {
        while self.0.poll(Duration::ZERO).is_some() {}
        self.0.context().brokers.check()
    }

    pub fn partitions(&self, topic: &str) -> KafkaResult<Vec<i32>> {
        let metadata = self.0.fetch_metadata(Some(topic), TIMEOUT)?;
        let topics = metadata.topics().iter().flat_map(MetadataTopic::partitions);
        Ok(topics.map(MetadataPartition::id).collect())
    }

    /// Where a partition begins, and where it ends.
    pub fn range(&self, topic: &str, partition: i32) -> KafkaResult<(i64, i64)> {
        self.0.fetch_watermarks(topic, partition, TIMEOUT)
    }

    pub fn committed<'p>(
        &self,
        places: impl Iterator<Item = &'p (String, i32)>,
    ) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in places {
            list.add_partition(topic, *partition);
        }
        self.0.committed_offsets(list, TIMEOUT)
    }
}
