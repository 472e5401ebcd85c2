//! Sources that are not there. Kafka says nothing of them to who joins a group: a name that is misspelt looks like one to which nobody
//! writes. So whoever reads asks for those of which no partition was assigned.
//!
//! What is missing is noted of the part (`/status`, `docket top`). A part that has joined its group with the other sources is ready all the
//! same: it takes what comes there. With none of them it has joined nothing, and is not ready.

use std::sync::Arc;
use std::time::Duration;

use crate::caught;
use crate::log::config::Kafka;
use crate::log::progress::Progress;
use crate::log::topics::{self, Absent};
use crate::telemetry::Health;

/// Between two questions: while a source is missing, and while none is. Others may have all partitions of one.
const SOON: Duration = Duration::from_secs(5);
const LATER: Duration = Duration::from_secs(60);
/// A group that forms has assigned its partitions by then.
const FIRST: Duration = Duration::from_secs(2);

/// What health calls it.
pub fn note(pipeline: &str, part: &str) -> String {
    format!("{pipeline}/{part} sources")
}

pub struct Sources {
    pub kafka: Kafka,
    pub pipeline: String,
    pub part: &'static str,
    pub topics: Vec<String>,
    pub health: Arc<Health>,
    pub progress: Arc<Progress>,
}

/// Watches until it is dropped.
pub struct Watching(tokio::task::JoinHandle<()>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Sources {
    pub fn watch(self) -> Watching {
        Watching(tokio::spawn(async move {
            let mut wait = FIRST;
            let mut told = None;
            loop {
                tokio::time::sleep(wait).await;
                // Kafka that is away says nothing of sources; what is known of them stays.
                let state = caught::within(self.state()).await.unwrap_or_else(|error| {
                    tracing::error!(
                        part = self.part,
                        error,
                        "docket failed at looking for sources: a bug"
                    );
                    None
                });
                if let Some(state) = state {
                    wait = if state.is_ok() { LATER } else { SOON };
                    self.tell(&mut told, state);
                }
            }
        }))
    }

    fn unassigned(&self) -> Vec<String> {
        let places = self.progress.places();
        let mine =
            |topic: &&String| places.iter().any(|p| p.part == self.part && p.topic == **topic);
        self.topics.iter().filter(|topic| !mine(topic)).cloned().collect()
    }

    async fn state(&self) -> Option<Result<(), String>> {
        let asked = self.unassigned();
        if asked.is_empty() {
            return Some(Ok(()));
        }
        let kafka = self.kafka.clone();
        let absent = tokio::task::spawn_blocking(move || topics::unseen(&kafka, &asked)).await;
        Some(said(&absent.ok()?.ok()?))
    }

    fn tell(&self, told: &mut Option<String>, state: Result<(), String>) {
        self.health.note(&note(&self.pipeline, self.part), state.clone());
        let new = state.err();
        if *told == new {
            return;
        }
        match &new {
            Some(why) => tracing::warn!(pipeline = self.pipeline, part = self.part, "{why}"),
            None => {
                tracing::info!(pipeline = self.pipeline, part = self.part, "all sources are there");
            }
        }
        *told = new;
    }
}

fn said(absent: &[Absent]) -> Result<(), String> {
    if absent.is_empty() {
        return Ok(());
    }
    let each = absent.iter().map(|topic| match topic {
        Absent { name, hidden: true, .. } => format!(
            "Kafka hides the source topic {name} for want of rights (TopicAuthorizationFailed): {} gives docket the rights it needs",
            crate::log::ask::ACLS
        ),
        Absent { name, near: Some(near), .. } => {
            format!("there is no source topic {name}; did you mean {near}?")
        }
        Absent { name, .. } => format!("there is no source topic {name}"),
    });
    Err(each.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::mock::Mock;

    #[test]
    fn a_source_that_is_missing_is_told_with_what_it_may_be_called() {
        let absent = |name: &str, near: Option<&str>, hidden| Absent {
            name: name.into(),
            near: near.map(str::to_owned),
            hidden,
        };
        assert_eq!(said(&[]), Ok(()));
        let why = said(&[absent("a", Some("aa"), false), absent("b", None, false)]).unwrap_err();
        assert_eq!(why, "there is no source topic a; did you mean aa?; there is no source topic b");
        let why = said(&[absent("c", None, true)]).unwrap_err();
        assert!(why.contains("want of rights") && why.contains("acls.sh"), "{why}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_what_nobody_assigned_is_asked_for() {
        let mock = Mock::start(&[("opa-decisions", 2)]).unwrap();
        let sources = |topics: &[&str]| Sources {
            kafka: Kafka { brokers: mock.bootstrap(), properties: Default::default() },
            pipeline: "p".into(),
            part: "intake",
            topics: topics.iter().map(|t| (*t).to_owned()).collect(),
            health: Arc::default(),
            progress: Arc::default(),
        };
        assert_eq!(sources(&["opa-decisions"]).state().await, Some(Ok(())));
        let misspelt = sources(&["opa-decisions", "opa-decision"]);
        let why = misspelt.state().await.unwrap().unwrap_err();
        assert_eq!(why, "there is no source topic opa-decision; did you mean opa-decisions?");
        let mut told = None;
        misspelt.tell(&mut told, Err(why.clone()));
        assert_eq!(misspelt.health.noted(&note("p", "intake")), Some(why));
        misspelt.tell(&mut told, Ok(()));
        assert_eq!(misspelt.health.noted(&note("p", "intake")), None);
        let away = Sources {
            kafka: Kafka { brokers: "127.0.0.1:1".into(), properties: Default::default() },
            ..sources(&["opa-decision"])
        };
        assert_eq!(away.state().await, None);
    }
}
