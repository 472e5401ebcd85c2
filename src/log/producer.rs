//! Writing: intake's transactions, what the door takes, and single records to the rejects topic.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{
    BaseRecord, DeliveryFuture, DeliveryResult, FutureProducer, FutureRecord, Producer,
    ProducerContext, ThreadedProducer,
};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::Notify;

use super::client::{self, Brokers, Context};
use super::config::{Compression, Kafka};
use super::consumer::Membership;
use super::{Committed, Outgoing, RecordWriter, Transactions};
use crate::resume;
use crate::telemetry::outage::Outage;

/// The largest message that a producer takes; what the topic takes is the broker's to say.
const MAX_MESSAGE: &str = "1000000000";

/// Collects what became of the records of the open transaction.
#[derive(Default)]
pub struct Deliveries {
    /// How many failed since the last `take`.
    failed: AtomicUsize,
    /// The tags of records whose batch the broker refused for what is in it, and as what.
    refused: Mutex<Vec<(usize, RDKafkaErrorCode)>>,
    last_error: Mutex<Option<KafkaError>>,
}

/// A batch that is refused for a record in it, and would be again.
fn refused(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    use RDKafkaErrorCode::{
        InvalidMessage, InvalidMessageSize, InvalidRecord, InvalidTimestamp, MessageSizeTooLarge,
    };
    let code = match error {
        KafkaError::MessageProduction(code) => *code,
        error => error.rdkafka_error_code()?,
    };
    let of_record =
        [InvalidMessage, InvalidMessageSize, InvalidRecord, InvalidTimestamp, MessageSizeTooLarge];
    of_record.contains(&code).then_some(code)
}

impl Deliveries {
    fn note(&self, error: &KafkaError, tag: usize) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        if let Some(code) = refused(error) {
            self.refused.lock().unwrap_or_else(PoisonError::into_inner).push((tag, code));
        }
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
    }

    pub fn any_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed) > 0
    }

    /// The last error since the last `take`.
    pub fn error(&self) -> Option<KafkaError> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins anew; returns the tags of the records whose batches the broker refused.
    pub fn take(&self) -> Vec<(usize, RDKafkaErrorCode)> {
        self.failed.store(0, Ordering::Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
        std::mem::take(&mut *self.refused.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ProducerContext for Context<Deliveries> {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        if let Err((error, _)) = result {
            self.own.note(error, tag);
        }
    }
}

/// With a thread that serves delivery reports: librdkafka waits for these in the middle of a commit.
type Client = ThreadedProducer<Context<Deliveries>>;

/// A producer of transactions. After one whose end is in doubt on the wire, librdkafka's is made anew under the same id.
///
/// A request to end a transaction that was lost or late is sent again by librdkafka, and the first one may still arrive, when the next transaction is open: the broker
/// would end that one (<https://github.com/confluentinc/librdkafka/issues/5423>). So is one that adds offsets: the next transaction would commit the ones before. A
/// new producer has a new epoch, which fences what is on its way.
pub struct Transactional {
    config: ClientConfig,
    client: RefCell<Arc<Client>>,
    /// The last transaction's offsets or end were sent more than once, or took too long to be sure that they were not.
    doubtful: Cell<bool>,
    /// How many connections had failed when the last transaction was to end.
    failures: Cell<Option<u32>>,
}

/// A batch is no larger than this, or than what the topics take.
const BATCH: usize = 1_000_000;

/// A producer whose transactions are its own: an open transaction of an earlier producer with the same id is aborted.
pub fn transactional(
    kafka: &Kafka,
    part: &str,
    id: &str,
    compression: Compression,
    topic_limit: Option<usize>,
) -> KafkaResult<Transactional> {
    let config = transactional_config(kafka, part, id, compression, topic_limit);
    let client = RefCell::new(Arc::new(initialized(&config)?));
    Ok(Transactional { config, client, doubtful: Cell::new(false), failures: Cell::new(None) })
}

/// The settings of such a producer.
pub fn transactional_config(
    kafka: &Kafka,
    part: &str,
    id: &str,
    compression: Compression,
    topic_limit: Option<usize>,
) -> ClientConfig {
    let mut config = client::long_lived(kafka, part);
    config
        .set("transactional.id", id)
        .set("transaction.timeout.ms", super::ended::LONGEST_MS.to_string())
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("compression.type", compression.as_str())
        // Of a transaction only what failed is told one by one.
        .set("delivery.report.only.error", "true")
        .set("linger.ms", "50")
        .set("batch.size", topic_limit.unwrap_or(BATCH).clamp(1000, BATCH).to_string())
        .set("batch.num.messages", "100000")
        .set("queue.buffering.max.messages", "1000000")
        .set("queue.buffering.max.kbytes", "1048576")
        .set("message.max.bytes", MAX_MESSAGE);
    client::saying(client::with_properties(config, kafka), "eos,broker")
}

fn initialized(config: &ClientConfig) -> KafkaResult<Client> {
    let client: Client = config.create_with_context(Context::<Deliveries>::default())?;
    client.init_transactions(WAIT)?;
    Ok(client)
}

/// How long one call may wait for Kafka.
const WAIT: Duration = Duration::from_secs(30);
/// The end of a transaction takes no longer, if nothing is wrong.
const END: Duration = Duration::from_secs(5);

/// Calls again while the error says that this is all it takes.
fn retried(brokers: &Brokers, mut call: impl FnMut() -> KafkaResult<()>) -> KafkaResult<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut told = Outage::default();
    loop {
        match call() {
            Err(KafkaError::Transaction(e))
                if e.is_retriable()
                    && !e.txn_requires_abort()
                    && !brokers.lost()
                    && Instant::now() < deadline =>
            {
                if let Some(line) = told.seen((), 1, tokio::time::Instant::now()) {
                    tracing::warn!(error = %e, attempts = line.failures, "a transaction waits for Kafka");
                }
                std::thread::sleep(Duration::from_millis(200));
            }
            other => return other,
        }
    }
}

impl Transactions for Transactional {
    type Membership = Membership;

    fn begin(&self) -> KafkaResult<()> {
        if self.is_doubtful() {
            tracing::warn!(
                "whether a request of the last transaction is still on its way is not known; its producer is made anew"
            );
            let fresh = initialized(&self.config)?;
            self.client.replace(Arc::new(fresh));
            self.doubtful.set(false);
            self.failures.set(None);
        }
        self.client().begin_transaction()
    }

    fn send(&self, record: Outgoing<'_>, tag: usize, alone: bool) -> KafkaResult<()> {
        let client = self.client();
        if alone {
            client.flush(WAIT)?;
        }
        let mut record = BaseRecord::<str, [u8], usize> {
            topic: record.topic,
            partition: None,
            payload: Some(record.payload),
            key: record.key,
            timestamp: None,
            headers: Some(record.headers),
            delivery_opaque: tag,
        };
        // Waits while librdkafka's queue is full.
        while let Err((error, back)) = ThreadedProducer::send(&*client, record) {
            if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(10));
            record = back;
        }
        if alone {
            client.flush(WAIT)?;
        }
        Ok(())
    }

    fn any_failed(&self) -> bool {
        self.client().context().own.any_failed()
    }

    fn commit_with(
        &self,
        offsets: &[(&str, i32, Committed)],
        member: &Membership,
    ) -> KafkaResult<()> {
        let client = self.client();
        client.flush(WAIT)?;
        if let Some(error) = client.context().own.error() {
            return Err(error);
        }
        let mut list = TopicPartitionList::new();
        for (topic, partition, Committed { offset, metadata }) in offsets {
            let mut element = list.add_partition(topic, *partition);
            element.set_offset(Offset::Offset(*offset))?;
            let id = member.ids.get(*topic).map(String::as_str);
            element.set_metadata(resume::metadata(id, metadata));
        }
        self.add(&client, || client.send_offsets_to_transaction(&list, &member.group, WAIT))?;
        self.end(&client, || client.commit_transaction(END))
    }

    fn abort(&self) -> KafkaResult<Vec<(usize, RDKafkaErrorCode)>> {
        let client = self.client();
        self.end(&client, || client.abort_transaction(END))?;
        Ok(client.context().own.take())
    }
}

impl Transactional {
    fn client(&self) -> Arc<Client> {
        self.client.borrow().clone()
    }

    /// Adds offsets to a transaction, and takes note of whether they may be on their way again.
    fn add(&self, client: &Client, mut call: impl FnMut() -> KafkaResult<()>) -> KafkaResult<()> {
        let brokers = &client.context().brokers;
        let (cuts, mut calls) = (brokers.cuts(), 0);
        let added = retried(brokers, || {
            calls += 1;
            call()
        });
        // Who is not of the group any more is told so, and nothing is on its way.
        let lost = added.as_ref().is_err_and(client::is_outage);
        let sure = !lost && calls == 1 && brokers.cuts() == cuts;
        self.doubtful.set(self.doubtful.get() || !sure);
        added
    }

    /// Ends a transaction, and takes note of whether that went as it should.
    fn end(&self, client: &Client, call: impl FnMut() -> KafkaResult<()>) -> KafkaResult<()> {
        let brokers = &client.context().brokers;
        self.failures.set(Some(brokers.failures()));
        let began = Instant::now();
        let ended = retried(brokers, call);
        self.doubtful.set(self.doubtful.get() || ended.is_err() || began.elapsed() >= END);
        ended
    }

    /// What librdkafka tells of a connection, it may have told since.
    fn is_doubtful(&self) -> bool {
        let now = self.client().context().brokers.failures();
        self.doubtful.get() || self.failures.get().is_some_and(|before| before != now)
    }
}

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
pub struct Acknowledged(ThreadedProducer<Context<Acks>>);

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
        client::with_properties(config, kafka)
            .create_with_context(Context::<Acks>::default())
            .map(Acknowledged)
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::message::OwnedHeaders;

    use super::*;

    fn membership(bootstrap: &str) -> Membership {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("group.id", "docket.x.intake");
        let consumer: BaseConsumer = config.create().unwrap();
        consumer.subscribe(&["source"]).unwrap();
        while consumer.assignment().unwrap().count() == 0 {
            let _ = consumer.poll(Duration::from_millis(100));
        }
        Membership { group: consumer.group_metadata().unwrap(), ids: HashMap::new() }
    }

    #[test]
    fn offsets_that_were_sent_twice_retire_the_producer() {
        let mock = crate::log::mock::Mock::start(&[("source", 1), ("docket", 1)]).unwrap();
        let kafka = Kafka { brokers: mock.bootstrap(), properties: BTreeMap::new() };
        let member = membership(&mock.bootstrap());
        let producer = transactional(&kafka, "intake", "t", Compression::None, None).unwrap();
        let run = || {
            producer.begin().unwrap();
            let (key, headers) = (None, OwnedHeaders::new());
            let record = Outgoing { topic: "docket", key, payload: b"{}", headers };
            producer.send(record, 0, false).unwrap();
            producer.commit(&[("source", 0, 1)], &member).unwrap();
        };
        run();
        assert!(!producer.is_doubtful());
        let first = Arc::as_ptr(&producer.client());
        // The connection is gone before the answer; librdkafka sends them again by itself, and that goes well.
        mock.cut_at_offsets();
        run();
        assert_eq!(Arc::as_ptr(&producer.client()), first, "nothing was wrong before");
        assert!(producer.is_doubtful());
        let keep = producer.client();
        run();
        assert_ne!(Arc::as_ptr(&producer.client()), Arc::as_ptr(&keep));
        assert!(!producer.is_doubtful());
    }
}
