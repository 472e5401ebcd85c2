//! Transactions of a producer that is retired when it is not known what is still on its way.
//!
//! A request to end a transaction that was lost or late is sent again by librdkafka, and the first one may still arrive, when the next transaction is open: the broker
//! would end that one (<https://github.com/confluentinc/librdkafka/issues/5423>). So is one that adds offsets: the next transaction would commit the ones before. A
//! new producer has a new epoch, which fences what is on its way.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::client::{self, Brokers, Context};
use super::closing::within;
use super::config::{Compression, Kafka};
use super::consumer::Membership;
use super::producer::{BATCH, MAX_MESSAGE};
use super::threaded::Threaded;
use super::{Committed, Outgoing, Transactions};
use crate::resume;
use crate::telemetry::outage::Outage;

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
    /// A record was not taken.
    pub fn note(&self, error: &KafkaError, tag: usize) {
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

/// A client with one epoch of a transactional id: librdkafka's, or a simulation's.
pub trait Epoch: Sized {
    /// Proves membership when offsets are committed.
    type Membership;

    /// A new one, with the next epoch: what this one sent and is not there yet is refused.
    fn next(&self) -> KafkaResult<Self>;

    fn begin(&self) -> KafkaResult<()>;

    fn send(&self, partition: Option<i32>, record: Outgoing<'_>, tag: usize) -> KafkaResult<()>;

    /// How many partitions a topic has.
    fn partitions(&self, topic: &str) -> KafkaResult<i32>;

    /// Waits until what was sent is there, or was not taken.
    fn flush(&self) -> KafkaResult<()>;

    /// What became of the records.
    fn deliveries(&self) -> &Deliveries;

    /// What is known of its connections.
    fn brokers(&self) -> &Brokers;

    /// Adds offsets to the open transaction.
    fn add(&self, offsets: &[(&str, i32, Committed)], member: &Self::Membership)
    -> KafkaResult<()>;

    /// A call has not come back, so that nothing can be asked of it any more.
    fn is_stuck(&self) -> bool;

    fn commit(&self) -> KafkaResult<()>;

    fn abort(&self) -> KafkaResult<()>;
}

/// A producer of transactions. After one whose end is in doubt on the wire, its client is made anew under the same id.
pub struct Transactional<E> {
    client: RefCell<Arc<E>>,
    /// The last transaction's offsets or end were sent more than once, or took too long to be sure that they were not.
    doubtful: Cell<bool>,
    /// How many connections had failed when the last transaction was to end.
    failures: Cell<Option<u32>>,
}

/// A producer whose transactions are its own: an open transaction of an earlier producer with the same id is aborted.
pub fn transactional(
    kafka: &Kafka,
    part: &str,
    id: &str,
    compression: Compression,
    topic_limit: Option<usize>,
) -> KafkaResult<Transactional<Librdkafka>> {
    let config = transactional_config(kafka, part, id, compression, topic_limit);
    Ok(Transactional::new(Librdkafka::new(config)?))
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

/// How long one call may wait for Kafka.
const WAIT: Duration = Duration::from_secs(30);
/// The end of a transaction takes no longer, if nothing is wrong.
const END: Duration = Duration::from_secs(5);
/// Nor do its offsets.
const ADDS: Duration = Duration::from_secs(10);
/// librdkafka does not keep to that: where the group's coordinator has gone, it may wait without end
/// (<https://github.com/confluentinc/librdkafka/issues/5511>, <https://github.com/confluentinc/librdkafka/issues/5456>). By then the broker has given
/// up the transaction.
const STUCK: Duration = Duration::from_secs(15);

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

impl<E: Epoch> Transactions for Transactional<E> {
    type Membership = E::Membership;

    fn begin(&self) -> KafkaResult<()> {
        if self.is_doubtful() {
            tracing::warn!(
                "whether a request of the last transaction is still on its way is not known; its producer is made anew"
            );
            let next = self.client().next()?;
            self.client.replace(Arc::new(next));
            self.doubtful.set(false);
            self.failures.set(None);
        }
        self.client().begin()
    }

    fn send_to(
        &self,
        partition: Option<i32>,
        record: Outgoing<'_>,
        tag: usize,
        alone: bool,
    ) -> KafkaResult<()> {
        let client = self.client();
        if alone {
            client.flush()?;
        }
        client.send(partition, record, tag)?;
        if alone {
            client.flush()?;
        }
        Ok(())
    }

    fn partitions(&self, topic: &str) -> KafkaResult<i32> {
        self.client().partitions(topic)
    }

    fn any_failed(&self) -> bool {
        self.client().deliveries().any_failed()
    }

    fn commit_with(
        &self,
        offsets: &[(&str, i32, Committed)],
        member: &E::Membership,
    ) -> KafkaResult<()> {
        let client = self.client();
        client.flush()?;
        if let Some(error) = client.deliveries().error() {
            return Err(error);
        }
        self.add(&client, || client.add(offsets, member))?;
        self.end(&client, || client.commit())
    }

    fn denied(&self) -> Option<String> {
        self.client().brokers().denied()
    }

    fn abort(&self) -> KafkaResult<Vec<(usize, RDKafkaErrorCode)>> {
        let client = self.client();
        if client.is_stuck() {
            // The next one ends what it leaves open.
            self.doubtful.set(true);
        } else if let Err(error) = self.end(&client, || client.abort())
            // The broker knows of none that is open: it was begun so soon after the one before that its partitions were not added yet. To
            // librdkafka that is fatal; the next epoch ends whatever there may be.
            && error.rdkafka_error_code() != Some(RDKafkaErrorCode::InvalidTransactionalState)
        {
            return Err(error);
        }
        Ok(client.deliveries().take())
    }
}

impl<E: Epoch> Transactional<E> {
    pub fn new(client: E) -> Transactional<E> {
        Transactional {
            client: RefCell::new(Arc::new(client)),
            doubtful: Cell::new(false),
            failures: Cell::new(None),
        }
    }

    fn client(&self) -> Arc<E> {
        self.client.borrow().clone()
    }

    /// Adds offsets to a transaction, and takes note of whether they may be on their way again.
    fn add(&self, client: &E, mut call: impl FnMut() -> KafkaResult<()>) -> KafkaResult<()> {
        let brokers = client.brokers();
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
    fn end(&self, client: &E, call: impl FnMut() -> KafkaResult<()>) -> KafkaResult<()> {
        let brokers = client.brokers();
        self.failures.set(Some(brokers.failures()));
        let began = Instant::now();
        let ended = retried(brokers, call);
        self.doubtful.set(self.doubtful.get() || ended.is_err() || began.elapsed() >= END);
        ended
    }

    /// What librdkafka tells of a connection, it may have told since.
    fn is_doubtful(&self) -> bool {
        let now = self.client().brokers().failures();
        self.doubtful.get() || self.failures.get().is_some_and(|before| before != now)
    }
}

/// librdkafka's.
pub struct Librdkafka {
    config: ClientConfig,
    /// With a thread that serves delivery reports: librdkafka waits for these in the middle of a commit.
    client: Arc<Threaded<Context<Deliveries>>>,
    /// So long it waits for a call.
    patience: Duration,
    stuck: Cell<bool>,
}

impl Librdkafka {
    fn new(config: ClientConfig) -> KafkaResult<Librdkafka> {
        let client = Threaded::new(&config, Context::<Deliveries>::default())?;
        client.init_transactions(WAIT)?;
        Ok(Librdkafka {
            config,
            client: Arc::new(client),
            patience: STUCK,
            stuck: Cell::new(false),
        })
    }
}

impl Epoch for Librdkafka {
    type Membership = Membership;

    fn next(&self) -> KafkaResult<Librdkafka> {
        Ok(Librdkafka { patience: self.patience, ..Librdkafka::new(self.config.clone())? })
    }

    fn begin(&self) -> KafkaResult<()> {
        self.client.begin_transaction()
    }

    fn send(&self, partition: Option<i32>, record: Outgoing<'_>, tag: usize) -> KafkaResult<()> {
        let mut record = BaseRecord::<str, [u8], usize> {
            topic: record.topic,
            partition,
            payload: Some(record.payload),
            key: record.key,
            timestamp: None,
            headers: Some(record.headers),
            delivery_opaque: tag,
        };
        // Waits while librdkafka's queue is full.
        while let Err((error, back)) = self.client.send(record) {
            if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(10));
            record = back;
        }
        Ok(())
    }

    fn partitions(&self, topic: &str) -> KafkaResult<i32> {
        let metadata = self.client.client().fetch_metadata(Some(topic), END)?;
        let error = |code| KafkaError::MetadataFetch(RDKafkaErrorCode::from(code));
        let Some(topic) = metadata.topics().first() else {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopic));
        };
        topic.error().map_or(Ok(topic.partitions().len() as i32), |code| Err(error(code)))
    }

    fn flush(&self) -> KafkaResult<()> {
        self.client.flush(WAIT)
    }

    fn deliveries(&self) -> &Deliveries {
        &self.client.context().own
    }

    fn brokers(&self) -> &Brokers {
        &self.client.context().brokers
    }

    fn add(&self, offsets: &[(&str, i32, Committed)], member: &Membership) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for (topic, partition, Committed { offset, metadata }) in offsets {
            let mut element = list.add_partition(topic, *partition);
            element.set_offset(Offset::Offset(*offset))?;
            let id = member.ids.get(*topic).map(String::as_str);
            element.set_metadata(resume::metadata(id, metadata));
        }
        let (client, group) = (self.client.clone(), member.group.clone());
        let add = move || client.send_offsets_to_transaction(&list, &group, ADDS);
        within(self.patience, "docket-offsets", add).unwrap_or_else(|| {
            tracing::warn!("librdkafka does not come back with the offsets of a transaction; its client is left behind");
            self.stuck.set(true);
            Err(KafkaError::Global(RDKafkaErrorCode::OperationTimedOut))
        })
    }

    fn is_stuck(&self) -> bool {
        self.stuck.get()
    }

    fn commit(&self) -> KafkaResult<()> {
        self.client.commit_transaction(END)
    }

    fn abort(&self) -> KafkaResult<()> {
        self.client.abort_transaction(END)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::message::OwnedHeaders;

    use super::*;
    use crate::log::mock::Mock;

    fn membership(bootstrap: &str) -> Membership {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("group.id", "docket.x.intake");
        let consumer: BaseConsumer = config.create().unwrap();
        consumer.subscribe(&["source"]).unwrap();
        while consumer.assignment().unwrap().count() == 0 {
            let _ = consumer.poll(Duration::from_millis(100));
        }
        Membership { group: Arc::new(consumer.group_metadata().unwrap()), ids: HashMap::new() }
    }

    fn begun() -> (Mock, Membership, Transactional<Librdkafka>) {
        let mock = Mock::start(&[("source", 1), ("docket", 1)]).unwrap();
        let kafka = Kafka { brokers: mock.bootstrap(), properties: BTreeMap::new() };
        let member = membership(&mock.bootstrap());
        let producer = transactional(&kafka, "intake", "t", Compression::None, None).unwrap();
        (mock, member, producer)
    }

    fn send(producer: &Transactional<Librdkafka>, alone: bool) {
        let (key, headers) = (None, OwnedHeaders::new());
        let record = Outgoing { topic: "docket", key, payload: b"{}", headers };
        producer.send(record, 0, alone).unwrap();
    }

    #[test]
    fn who_aborts_what_the_broker_knows_nothing_of_goes_on_with_the_next_epoch() {
        let (mock, member, producer) = begun();
        producer.begin().unwrap();
        send(&producer, true);
        let first = Arc::as_ptr(&producer.client());
        mock.knows_no_transaction();
        producer.abort().unwrap();
        producer.begin().unwrap();
        assert_ne!(Arc::as_ptr(&producer.client()), first);
        send(&producer, true);
        producer.commit(&[("source", 0, 1)], &member).unwrap();
    }

    #[test]
    fn offsets_that_were_sent_twice_retire_the_producer() {
        let (mock, member, producer) = begun();
        let run = || {
            producer.begin().unwrap();
            send(&producer, false);
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

    #[test]
    fn who_waits_without_end_for_a_coordinator_that_has_gone_is_left_behind() {
        let mock = Mock::start_brokers(2, &[("source", 1), ("docket", 1)]).unwrap();
        mock.coordinates("transaction", "t", 1);
        mock.coordinates("group", "docket.x.intake", 2);
        let kafka = Kafka { brokers: mock.bootstrap(), properties: BTreeMap::new() };
        let member = membership(&mock.bootstrap());
        let config = transactional_config(&kafka, "intake", "t", Compression::None, None);
        // Longer than librdkafka was told to take.
        let patience = ADDS + Duration::from_secs(2);
        let first = Librdkafka { patience, ..Librdkafka::new(config).unwrap() };
        let producer = Transactional::new(first);
        producer.begin().unwrap();
        mock.stop(2);
        let offsets = [("source", 0, 1)];
        assert!(client::is_outage(&producer.commit(&offsets, &member).unwrap_err()));
        let stuck = producer.client();
        assert!(stuck.is_stuck());
        assert_eq!(producer.abort().unwrap(), []);
        mock.coordinates("group", "docket.x.intake", 1);
        producer.begin().unwrap();
        assert_ne!(Arc::as_ptr(&producer.client()), Arc::as_ptr(&stuck));
        producer.commit(&offsets, &member).unwrap();
    }
}
