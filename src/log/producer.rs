//! Writing what the door takes, and single records to the rejects topic. `transactional` writes what intake makes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{
    BaseRecord, DeliveryFuture, DeliveryResult, FutureProducer, FutureRecord, Producer,
    ProducerContext,
};
use tokio::sync::Notify;

use super::client::{self, Brokers, Context};
use super::config::{Compression, Kafka};
use super::threaded::Threaded;
use super::{Outgoing, RecordWriter};

/// The largest message that a producer takes; what the topic takes is the broker's to say.
pub(super) const MAX_MESSAGE: &str = "1000000000";

/// A batch is no larger than this, or than what the topics take.
pub(super) const BATCH: usize = 1_000_000;

/// How long one call may wait for Kafka.
const WAIT: Duration = Duration::from_secs(30);

/// An idempotent producer for single records.
pub struct Single {
    config: ClientConfig,
    /// A client is some threads and connections, and most sinks refuse nothing.
    made: Mutex<Option<Made>>,
}

struct Made {
    producer: FutureProducer<Context>,
    brokers: Arc<Brokers>,
}

impl Single {
    fn make(config: &ClientConfig) -> KafkaResult<Made> {
        let brokers = Arc::new(Brokers::default());
        Ok(Made {
            producer: config.create_with_context(Context { own: (), brokers: brokers.clone() })?,
            brokers,
        })
    }

    /// Made when it is needed, and made anew if it can't do anything any more.
    fn producer(&self) -> KafkaResult<FutureProducer<Context>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let works =
            |made: &Made| !made.brokers.lost() && made.producer.client().fatal_error().is_none();
        let kept = match made.take().filter(works) {
            Some(kept) => kept,
            None => Single::make(&self.config)?,
        };
        Ok(made.insert(kept).producer.clone())
    }
}

impl Single {
    /// Writes a record, or deletes its key from a compacted topic: in the order of the calls, and without waiting.
    pub fn begin(
        &self,
        topic: &str,
        key: &str,
        payload: Option<&[u8]>,
    ) -> KafkaResult<DeliveryFuture> {
        let mut out = FutureRecord::<str, [u8]>::to(topic).key(key);
        out.payload = payload;
        self.producer()?.send_result(out).map_err(|(error, _)| error)
    }
}

impl RecordWriter for Single {
    async fn write(&self, record: Outgoing<'_>) -> KafkaResult<()> {
        let mut out = FutureRecord::<str, [u8]>::to(record.topic)
            .payload(record.payload)
            .headers(record.headers);
        if let Some(key) = record.key {
            out = out.key(key);
        }
        self.producer()?.send(out, WAIT).await.map(|_| ()).map_err(|(error, _)| error)
    }
}

pub fn single(kafka: &Kafka, part: &str, compression: Compression) -> KafkaResult<Single> {
    let mut config = client::long_lived(kafka, part);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("compression.type", compression.as_str())
        .set("linger.ms", "5")
        .set("message.max.bytes", MAX_MESSAGE);
    let config = client::with_properties(config, kafka);
    // That it can be made is seen now.
    config.create_native_config()?;
    Ok(Single { config, made: Mutex::default() })
}

/// What became of records that were sent together.
#[derive(Default)]
struct Sent {
    open: AtomicUsize,
    failed: Mutex<Vec<(usize, KafkaError)>>,
    some_done: Notify,
}

/// A record's number among those that were sent together.
pub struct Tag(Arc<Sent>, usize);

/// Tells who sent records what became of them.
#[derive(Default)]
pub struct Acks {
    /// The last record that Kafka said something of, or nothing in time, was not acknowledged.
    failing: AtomicBool,
}

impl ProducerContext for Context<Acks> {
    type DeliveryOpaque = Box<Tag>;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: Box<Tag>) {
        let Tag(sent, number) = *tag;
        let failed = result.as_ref().err().map(|(error, _)| error);
        let failing = failed
            .is_some_and(|e| e.rdkafka_error_code() != Some(RDKafkaErrorCode::MessageSizeTooLarge));
        if failing != self.own.failing.swap(failing, Ordering::Relaxed) {
            match failed.filter(|_| failing) {
                Some(error) => tracing::warn!(%error, "Kafka does not acknowledge what is written"),
                None => tracing::info!("Kafka acknowledges what is written again"),
            }
        }
        if let Some(error) = failed {
            sent.failed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((number, error.clone()));
        }
        sent.open.fetch_sub(1, Ordering::AcqRel);
        sent.some_done.notify_one();
    }
}

/// Writes records of which each is acknowledged by all replicas, in their order and once each.
pub struct Acknowledged(Threaded<Context<Acks>>);

impl Acknowledged {
    /// `timeout` is how long a record may wait for its acknowledgement, `queue` how many bytes may do so.
    pub fn new(
        kafka: &Kafka,
        part: &str,
        compression: Compression,
        topic_limit: Option<usize>,
        timeout: Duration,
        queue: usize,
    ) -> KafkaResult<Acknowledged> {
        let mut config = client::long_lived(kafka, part);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("compression.type", compression.as_str())
            .set("linger.ms", "5")
            .set("message.timeout.ms", timeout.as_millis().max(1).to_string())
            .set("batch.size", topic_limit.unwrap_or(BATCH).clamp(1000, BATCH).to_string())
            .set("queue.buffering.max.messages", "1000000")
            .set("queue.buffering.max.kbytes", (queue >> 10).clamp(1024, 2_097_151).to_string())
            .set("message.max.bytes", MAX_MESSAGE);
        let config = client::with_properties(config, kafka);
        Threaded::new(&config, Context::<Acks>::default()).map(Acknowledged)
    }

    /// Writes records, and waits until each is acknowledged. At most `window` bytes wait at once. Returns the numbers of those that are too
    /// large for the topic; any other error is one of the whole.
    pub async fn write<'r>(
        &self,
        topic: &str,
        records: impl Iterator<Item = (Option<String>, &'r [u8])>,
        window: usize,
    ) -> KafkaResult<Vec<usize>> {
        let sent = Arc::new(Sent::default());
        let mut waiting = 0;
        for (number, (key, payload)) in records.enumerate() {
            if waiting + payload.len() > window && waiting > 0 {
                sent.all_done().await;
                waiting = 0;
            }
            waiting += payload.len();
            sent.open.fetch_add(1, Ordering::AcqRel);
            let tag = Box::new(Tag(sent.clone(), number));
            let mut record = BaseRecord::<str, [u8], Box<Tag>> {
                topic,
                partition: None,
                payload: Some(payload),
                key: key.as_deref(),
                timestamp: None,
                headers: None,
                delivery_opaque: tag,
            };
            while let Err((error, back)) = self.0.send(record) {
                if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
                    return Err(error);
                }
                // Room comes with the next acknowledgement, or when the records before run into their timeout.
                tokio::time::sleep(Duration::from_millis(10)).await;
                record = back;
            }
        }
        sent.all_done().await;
        let mut too_large = Vec::new();
        for (number, error) in sent.failed.lock().unwrap_or_else(PoisonError::into_inner).drain(..)
        {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::MessageSizeTooLarge) {
                return Err(error);
            }
            too_large.push(number);
        }
        too_large.sort_unstable();
        Ok(too_large)
    }

    /// Whether a topic could be written to: Kafka answers, and knows who leads it. Blocks.
    pub fn reachable(&self, topic: &str, within: Duration) -> KafkaResult<()> {
        let metadata = self.0.client().fetch_metadata(Some(topic), within)?;
        let error = |code| KafkaError::MetadataFetch(RDKafkaErrorCode::from(code));
        let Some(topic) = metadata.topics().first() else {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopic));
        };
        if let Some(code) = topic.error() {
            return Err(error(code));
        }
        if topic.partitions().iter().all(|p| p.leader() < 0) {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable));
        }
        Ok(())
    }

    /// Kafka did not acknowledge the last record.
    pub fn is_failing(&self) -> bool {
        self.0.context().own.failing.load(Ordering::Relaxed)
    }

    /// The producer can do nothing any more.
    pub fn is_broken(&self) -> bool {
        self.0.client().fatal_error().is_some() || self.0.context().brokers.lost()
    }
}

impl Sent {
    async fn all_done(&self) {
        while self.open.load(Ordering::Acquire) > 0 {
            self.some_done.notified().await;
        }
    }
}
