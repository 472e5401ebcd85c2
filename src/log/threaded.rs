//! A producer whose deliveries are told on a thread of its own.
//!
//! rdkafka has one, too (`ThreadedProducer`). Its thread spins for the last millisecond of each tenth of a second, which is a hundredth of a core for a
//! producer with nothing to do; and its `flush` comes back only when such a tenth is over.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext, PurgeConfig};

/// So long the thread listens at a time; it spins for the last millisecond of it.
const LISTENS: Duration = Duration::from_secs(1);
/// How often it is looked whether all is delivered.
const LOOKS: Duration = Duration::from_millis(1);

pub struct Threaded<C: ProducerContext + 'static> {
    producer: Arc<BaseProducer<C>>,
    stop: Arc<AtomicBool>,
}

impl<C: ProducerContext + 'static> Threaded<C> {
    pub fn new(config: &ClientConfig, context: C) -> KafkaResult<Threaded<C>> {
        let producer: Arc<BaseProducer<C>> = Arc::new(config.create_with_context(context)?);
        let stop = Arc::<AtomicBool>::default();
        let (of, stopped) = (producer.clone(), stop.clone());
        let thread = std::thread::Builder::new().name("docket-producer".into());
        let begun = thread.spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                of.poll(LISTENS);
            }
        });
        begun.map_err(|e| KafkaError::ClientCreation(format!("no thread can be started: {e}")))?;
        Ok(Threaded { producer, stop })
    }

    /// Waits until what was sent is delivered, or was not taken.
    pub fn flush(&self, wait: Duration) -> KafkaResult<()> {
        let until = Instant::now() + wait;
        loop {
            match self.producer.flush(Duration::ZERO) {
                Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut))
                    if Instant::now() < until =>
                {
                    std::thread::sleep(LOOKS);
                }
                flushed => return flushed,
            }
        }
    }
}

impl<C: ProducerContext + 'static> Deref for Threaded<C> {
    type Target = BaseProducer<C>;

    fn deref(&self) -> &BaseProducer<C> {
        &self.producer
    }
}

impl<C: ProducerContext + 'static> Drop for Threaded<C> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The thread closes the client when it has listened long enough; what was not sent by then is not sent any more.
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }
}
