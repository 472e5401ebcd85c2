//! Adds late matches to what sinks hold: for each such sink a part that reads amendments as the sink's own part reads the docket.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::Offset;
use rdkafka::error::{KafkaError, KafkaResult};

use super::{Parts, RunError};
use crate::caught::caught;
use crate::log::config::{Kafka, Start};
use crate::log::standing::Standing;
use crate::pipeline::file::amending;
use crate::pipeline::memory;
use crate::sink::any;
use crate::sink::config::SinkConfig;
use crate::stage::deliver::Deliver;
use crate::stage::deliver::amends::{Amends, Decisions, Places, Told};

impl Parts {
    /// What adds late matches to what a sink holds, where that is done.
    pub(super) fn amending(
        &self,
        name: &str,
        config: &SinkConfig,
    ) -> Result<Option<Deliver>, RunError> {
        let file = &self.pipeline.file;
        let Some(join) = file.join.as_ref().filter(|_| config.amends()) else { return Ok(None) };
        let wrong = |error| RunError::Sink { sink: name.to_owned(), error };
        let Some(sink) = any::amender(name, config).map_err(wrong)? else { return Ok(None) };
        let decisions = config.has_documents().then(|| {
            Arc::new(OfGroup(Arc::new(Group {
                kafka: file.kafka.clone(),
                group: self.pipeline.group(name),
                topic: self.pipeline.docket_topic(),
                start: config.delivery().start,
                client: Mutex::default(),
            }))) as Arc<dyn Decisions>
        });
        let part = amending(name);
        Ok(Some(Deliver {
            topic: file.amendments_topic(),
            amends: Some(Amends { sink: name.to_owned(), decisions, patience: join.delay.0 }),
            delivery: memory::amending(config.delivery()),
            // In their order: of several of a decision the last holds.
            concurrency: 1,
            repeat_window: 0,
            reuse_window: 0,
            share: self.share(&part),
            max_age: None,
            shared: None,
            name: part,
            ..self.deliver(name, config, sink, None)
        }))
    }
}

/// Asks Kafka how far the group of a sink is.
struct OfGroup(Arc<Group>);

struct Group {
    kafka: Kafka,
    group: String,
    topic: String,
    start: Start,
    client: Mutex<Option<Standing>>,
}

impl Group {
    /// One that fails is made anew.
    fn ask<T>(&self, ask: impl FnOnce(&Standing) -> KafkaResult<T>) -> Option<T> {
        let mut kept = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let client = match kept.take() {
            Some(client) => Ok(client),
            None => Standing::of(&self.kafka, "amendments", &self.group),
        };
        let asked = client.and_then(|client| {
            let told = client.hear().and_then(|()| ask(&client))?;
            *kept = Some(client);
            Ok(told)
        });
        let failed = |error: KafkaError| {
            tracing::debug!(group = self.group, %error, "how far it is is not known");
        };
        asked.map_err(failed).ok()
    }

    fn ends(&self) -> Option<Places> {
        self.ask(|client| {
            let mut ends = Places::new();
            for partition in client.partitions(&self.topic)? {
                let (first, end) = client.range(&self.topic, partition)?;
                if first < end {
                    ends.insert(partition, end);
                }
            }
            Ok(ends)
        })
    }

    fn finished(&self, ends: &Places) -> Option<Places> {
        self.ask(|client| {
            let places: Vec<_> =
                ends.keys().map(|partition| (self.topic.clone(), *partition)).collect();
            let committed = client.committed(places.iter())?;
            let mut finished = Places::new();
            for (partition, end) in ends {
                let element = committed.find_partition(&self.topic, *partition);
                match (element.map(|element| element.offset()), self.start) {
                    (Some(Offset::Offset(offset)), _) => _ = finished.insert(*partition, offset),
                    // It begins with what comes next.
                    (_, Start::Latest) => _ = finished.insert(*partition, *end),
                    (_, Start::Earliest) => {}
                }
            }
            Ok(finished)
        })
    }
}

/// Asks on a thread that may wait.
fn asked(
    group: &Arc<Group>,
    ask: impl FnOnce(&Group) -> Option<Places> + Send + 'static,
) -> Told<'static> {
    let group = group.clone();
    Box::pin(async move {
        let asked = tokio::task::spawn_blocking(move || caught(|| ask(&group)));
        asked.await.ok().and_then(Result::ok).flatten()
    })
}

impl Decisions for OfGroup {
    fn ends(&self) -> Told<'_> {
        asked(&self.0, Group::ends)
    }

    fn finished<'a>(&'a self, ends: &'a Places) -> Told<'a> {
        let ends = ends.clone();
        asked(&self.0, move |group| group.finished(&ends))
    }
}
