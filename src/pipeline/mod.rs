//! The pipeline file: what it may say (`file`, and each room's own `config`; also the source of the JSON Schema), how it is read with
//! places kept (`yaml`), what is wrong with it (`check`, `load`), what its sections mean (`rules`, `policies`, `protect`,
//! `spikes`, `join`), how much of the memory each part may use (`memory`), which files it names (`beside`), its `topics`, and a file's own test cases (`cases`).

pub mod addresses;
pub mod beside;
pub mod cases;
pub mod check;
pub mod file;
pub mod join;
pub mod load;
pub mod memory;
pub mod policies;
pub mod protect;
pub mod rules;
pub mod spikes;
pub mod topics;
pub mod yaml;

use std::path::PathBuf;

pub use file::File;
pub use load::{LoadError, load, parse};

use crate::decision::formats::Limits;
use crate::log::ask::Unanswered;
use crate::log::scan::{READER, ScanBound, ScanError, TopicScan};
use crate::protect::record::Rules;
use crate::words::shell;

/// A pipeline file that is right, with its rules compiled.
#[derive(Debug, Clone)]
pub struct Pipeline {
    pub path: PathBuf,
    pub file: File,
    pub rules: Rules,
    pub limits: Limits,
    /// On which lines its tests stand.
    pub test_lines: Vec<usize>,
    /// What the file says only because nobody said otherwise.
    pub defaults: Vec<Defaulted>,
}

/// A variable that is not set, and whose default a setting has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaulted {
    /// The keys that lead to it.
    pub setting: Vec<String>,
    pub variable: String,
}

impl Pipeline {
    pub fn name(&self) -> &str {
        &self.file.name
    }

    pub fn docket_topic(&self) -> String {
        self.file.docket_topic()
    }

    pub fn rejects_topic(&self) -> String {
        self.file.rejects_topic()
    }

    /// The topic that the door writes to, if there is one.
    pub fn door_topic(&self) -> Option<&str> {
        let door = self.file.door.as_ref()?;
        door.topic.as_deref().or_else(|| Some(&self.file.sources.first()?.topic))
    }

    /// Where intake writes decisions: to the docket, or, where they are joined, to where they wait for that.
    pub fn decided_topic(&self) -> String {
        match self.file.join {
            Some(_) => self.file.pending_topic(),
            None => self.docket_topic(),
        }
    }

    /// The consumer group of one part: `intake`, or a sink's name.
    pub fn group(&self, part: &str) -> String {
        match (part, &self.file.intake.group) {
            ("intake", Some(group)) => group.clone(),
            _ => format!("docket.{}.{part}", self.file.name),
        }
    }

    /// The variables that are not set, and whose defaults a setting has.
    pub fn unset(&self, setting: &[&str]) -> Vec<String> {
        let of = |default: &&Defaulted| default.setting == setting;
        self.defaults.iter().filter(of).map(|default| default.variable.clone()).collect()
    }

    /// What to do where nobody answers at an address: who set none does not know the one that fails.
    pub fn astray(&self, setting: &[&str]) -> String {
        let doctor = format!("`docket doctor {}` says more", shell(&self.path.display()));
        match self.unset(setting).as_slice() {
            [] => format!("; {doctor}"),
            unset => {
                let all = unset.join(" and ");
                format!("; {}: set {all} if it is elsewhere; {doctor}", not_set(unset))
            }
        }
    }

    /// The same for Kafka.
    pub fn kafka_astray(&self, error: Unanswered) -> Unanswered {
        match error {
            Unanswered::Unreachable { brokers, why } => {
                let why = why + &self.astray(&["kafka", "brokers"]);
                Unanswered::Unreachable { brokers, why }
            }
            other => other,
        }
    }

    /// A reader of what stands in one of its topics between two bounds.
    pub fn scan(
        &self,
        part: &str,
        topic: &str,
        from: ScanBound,
        to: ScanBound,
    ) -> Result<TopicScan, ScanError> {
        let opened = TopicScan::open(&self.file.kafka, &self.group(READER), part, topic, from, to);
        opened.map_err(|error| match error {
            ScanError::Unanswered(error) => self.kafka_astray(error).into(),
            other => other,
        })
    }
}

/// Says that what stands there was given by nobody.
pub fn not_set(variables: &[String]) -> String {
    let are = if variables.len() > 1 { "are" } else { "is" };
    format!("{} {are} not set, so this is the pipeline file's default", variables.join(" and "))
}
