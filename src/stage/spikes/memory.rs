//! What the detector has learned, kept in a compacted topic of one partition: a record for each policy of a service, each
//! service, the stream, and what was told and goes on. Written piece by piece, a few a second, and all of it when this
//! process stops. Who takes over reads it, and then the docket from where the oldest piece ends.
//!
//! A write that fails costs nothing but time: the next round writes that piece again, and until then the one before
//! stands, from whose end on the docket is read. What can't be read is told, deleted, and learned anew.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::DeliveryFuture;
use serde::{Deserialize, Serialize};

use super::{Spikes, SpikesError};
use crate::decision::time::Nanos;
use crate::log::client;
use crate::log::producer::Single;
use crate::log::scan::{ScanBound, ScanError};
use crate::log::topics::TopicError;
use crate::pipeline::topics;
use crate::spike::detector::Detector;
use crate::spike::record::Key;
use crate::spike::{Cause, Dimension, Finding};

/// Pieces by key.
pub type Pieces = BTreeMap<String, Vec<u8>>;

/// The key of what was told and goes on.
const TOLD: &str = "told";
const VERSION: u32 = 1;
/// A round writes each piece once, and takes so long at least.
const ROUND: Duration = Duration::from_secs(60);
/// At most so many pieces a second, of some 50 KiB each.
const A_SECOND: usize = 4;
/// So many may wait for Kafka.
const WAITING: usize = 64;

/// A finding that was told and has not ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    pub key: Key,
    /// As the detector calls it, and as people were told.
    pub own: String,
    pub id: String,
    pub onset: Nanos,
    /// An alert is known by its first cause, too: its end has to name that.
    #[serde(default)]
    pub causes: Vec<Cause>,
}

impl Told {
    pub fn of(finding: &Finding, own: String) -> Told {
        Told {
            key: finding.key(),
            own,
            id: finding.id.clone(),
            onset: finding.onset,
            causes: finding.causes.clone(),
        }
    }

    /// Calls a finding what people were told of it. What an older version wrote holds no causes.
    pub fn rename(&self, finding: &mut Finding) {
        finding.id.clone_from(&self.id);
        if !self.causes.is_empty() {
            finding.causes.clone_from(&self.causes);
        }
    }

    /// It is over, and nothing more is known of it.
    pub fn over(self, now: Nanos) -> Finding {
        let (kind, service, policy, instance) = self.key;
        let mut finding = Finding {
            id: self.id,
            onset: self.onset,
            detected: self.onset,
            ended: Some(now),
            causes: self.causes,
            ..Finding::new(kind, &service, &policy)
        };
        if finding.causes.is_empty() && !instance.is_empty() {
            finding.causes.push(Cause::whole(Dimension::Instance, &instance));
        }
        finding
    }
}

#[derive(Serialize, Deserialize)]
struct AllTold {
    version: u32,
    told: Vec<Told>,
}

pub struct Memory<'s> {
    of: &'s Spikes,
    producer: &'s Single,
    topic: String,
    /// Keys that the round has still to write.
    left: Vec<String>,
    begun: Option<Instant>,
    wrote: Instant,
    waiting: VecDeque<DeliveryFuture>,
    /// The last write failed, and that was said.
    failing: bool,
}

impl<'s> Memory<'s> {
    pub fn new(of: &'s Spikes, producer: &'s Single) -> Memory<'s> {
        Memory {
            of,
            producer,
            topic: of.pipeline.file.spikes_topic(),
            left: Vec::new(),
            begun: None,
            wrote: Instant::now(),
            waiting: VecDeque::new(),
            failing: false,
        }
    }

    /// Everything that was kept. An outage is an error; a topic that is not there, or not to be read, holds nothing.
    pub fn recall(&self, go_on: &dyn Fn() -> bool) -> Result<Pieces, SpikesError> {
        match self.of.runtime.block_on(topics::ensure_spikes(&self.of.pipeline)) {
            Ok(false) => {}
            Ok(true) => tracing::info!(topic = self.topic, "topic created"),
            Err(error @ TopicError::Unreachable { .. }) => return Err(error.into()),
            Err(error) => {
                self.forgetful(&error);
                return Ok(Pieces::new());
            }
        }
        let mut pieces = Pieces::new();
        let read = self.of.pipeline.scan("spikes", &self.topic, ScanBound::Start, ScanBound::End);
        let read = read.and_then(|scan| {
            scan.read(&mut |_| {}, &mut |message| {
                if let Some(Ok(key)) = message.key().map(std::str::from_utf8) {
                    match message.payload() {
                        Some(piece) => pieces.insert(key.to_owned(), piece.to_vec()),
                        None => pieces.remove(key),
                    };
                }
                go_on()
            })
        });
        match read {
            Ok(()) => Ok(pieces),
            Err(ScanError::Kafka { error, .. }) if client::is_outage(&error) => Err(error.into()),
            Err(error @ (ScanError::NoTopic(_) | ScanError::Kafka { .. })) => {
                self.forgetful(&error);
                Ok(Pieces::new())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn forgetful(&self, error: &dyn std::fmt::Display) {
        self.of.meters.state("unreadable").inc();
        tracing::warn!(
            part = "spikes",
            topic = self.topic,
            %error,
            "what was learned can't be kept or read; it is learned anew from spikes.history"
        );
    }

    /// Writes some of what was learned, if it is time.
    pub fn tick(&mut self, detector: &mut Detector, told: &BTreeMap<Key, Told>) {
        self.answered();
        for key in detector.forgotten() {
            self.write(&key, None);
        }
        if self.wrote.elapsed() < Duration::from_secs(1) {
            return;
        }
        self.wrote = Instant::now();
        if self.left.is_empty() && self.begun.is_none_or(|begun| begun.elapsed() >= ROUND) {
            self.begun = Some(self.wrote);
            self.left = detector.keys();
            self.left.push(TOLD.to_owned());
        }
        for _ in 0..A_SECOND {
            if self.waiting.len() >= WAITING {
                return;
            }
            let Some(key) = self.left.pop() else { return };
            self.keep(&key, detector, told);
        }
    }

    /// What was told changed.
    pub fn told(&mut self, told: &BTreeMap<Key, Told>) {
        let all = AllTold { version: VERSION, told: told.values().cloned().collect() };
        let piece = serde_json::to_vec(&all).unwrap_or_default();
        self.write(TOLD, Some(&piece));
    }

    /// Writes everything, as far as that can be done in time.
    pub fn finish(
        &mut self,
        detector: &mut Detector,
        told: &BTreeMap<Key, Told>,
        within: Duration,
    ) {
        let until = Instant::now() + within;
        let forgotten = detector.forgotten();
        forgotten.iter().for_each(|key| self.write(key, None));
        self.told(told);
        for key in detector.keys() {
            while self.waiting.len() >= WAITING && Instant::now() < until {
                self.answered();
                std::thread::sleep(Duration::from_millis(2));
            }
            if Instant::now() >= until {
                break;
            }
            self.keep(&key, detector, told);
        }
        while !self.waiting.is_empty() && Instant::now() < until {
            self.answered();
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn keep(&mut self, key: &str, detector: &Detector, told: &BTreeMap<Key, Told>) {
        if key == TOLD {
            self.told(told);
        } else if let Some(piece) = detector.export(key) {
            self.write(key, Some(&piece));
        }
    }

    /// A piece, or its deletion.
    pub fn write(&mut self, key: &str, piece: Option<&[u8]>) {
        match self.producer.begin(&self.topic, key, piece) {
            Ok(writing) => self.waiting.push_back(writing),
            Err(error) => self.outcome(Some(&error)),
        }
    }

    /// Looks what became of what was written.
    fn answered(&mut self) {
        while let Some(first) = self.waiting.front_mut() {
            let mut nobody = Context::from_waker(Waker::noop());
            let Poll::Ready(answer) = Pin::new(first).poll(&mut nobody) else { return };
            self.waiting.pop_front();
            match answer {
                Ok(Err((error, _))) => self.outcome(Some(&error)),
                Ok(Ok(_)) => self.outcome(None),
                // The producer was made anew meanwhile.
                Err(_) => self.outcome(Some(&KafkaError::Canceled)),
            }
        }
    }

    fn outcome(&mut self, error: Option<&KafkaError>) {
        self.of.meters.state(if error.is_none() { "written" } else { "failed" }).inc();
        match error {
            Some(error) if !self.failing => tracing::warn!(
                part = "spikes",
                topic = self.topic,
                %error,
                "what was learned can't be written; it is tried again and again"
            ),
            None if self.failing => {
                tracing::info!(part = "spikes", topic = self.topic, "what was learned is written");
            }
            _ => {}
        }
        self.failing = error.is_some();
    }
}

/// Takes what was told and goes on out of the pieces; none, if that is not among them or can't be read.
pub fn take_told(pieces: &mut Pieces) -> Option<Vec<Told>> {
    let all: AllTold = serde_json::from_slice(&pieces.remove(TOLD)?).ok()?;
    (all.version == VERSION).then_some(all.told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spike::Kind;

    #[test]
    fn the_end_of_a_finding_names_its_cause_whoever_leads_then() {
        let begun = Finding {
            id: "f".into(),
            onset: 1,
            causes: vec![Cause::whole(Dimension::Subject, "mallory")],
            ..Finding::new(Kind::DenialSpike, "orders", "authz/allow")
        };
        let piece = AllTold { version: VERSION, told: vec![Told::of(&begun, "f".into())] };
        let kept = serde_json::to_vec(&piece).unwrap();
        let of_memory = take_told(&mut Pieces::from([(TOLD.to_owned(), kept)])).unwrap().remove(0);
        let written = crate::spike::record::write(&begun).1;
        let record = crate::decision::record::Record::parse(&written).unwrap();
        let of_docket = crate::spike::record::told(&record).unwrap().causes;
        assert_eq!(of_docket, begun.causes);
        // Another leader has found it anew, and says otherwise who it is.
        let causes = vec![Cause::whole(Dimension::Action, "GET")];
        let mut found = Finding { id: "g".into(), causes, ended: Some(9), ..begun.clone() };
        of_memory.rename(&mut found);
        for ended in [found, of_memory.over(9)] {
            assert_eq!((&*ended.id, ended.ended), ("f", Some(9)));
            assert_eq!(ended.cause(), begun.cause());
        }
    }

    #[test]
    fn what_was_told_is_read_back_and_what_can_t_be_read_is_none() {
        let told = Told {
            key: (Kind::InstanceQuiet, "orders".into(), String::new(), "opa-1".into()),
            own: "aa".into(),
            id: "bb".into(),
            onset: 1_795_524_530_000_000_000,
            causes: vec![Cause::whole(Dimension::Instance, "opa-1")],
        };
        let piece =
            serde_json::to_vec(&AllTold { version: VERSION, told: vec![told.clone()] }).unwrap();
        let mut pieces = Pieces::from([(TOLD.to_owned(), piece), ("stream".into(), vec![])]);
        assert_eq!(take_told(&mut pieces), Some(vec![told]));
        assert_eq!((take_told(&mut pieces), pieces.len()), (None, 1));
        for wrong in [&b"{\"version\":2,\"told\":[]}"[..], b"\xff", b"[]"] {
            pieces.insert(TOLD.into(), wrong.to_vec());
            assert_eq!(take_told(&mut pieces), None);
        }
    }
}
