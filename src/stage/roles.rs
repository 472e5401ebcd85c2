//! Which parts of a pipeline a process runs.

use crate::pipeline::Pipeline;

/// Which parts a process runs: all, unless some are named.
#[derive(Debug, Clone, Default)]
pub struct Roles(Vec<Role>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Role {
    Intake,
    Sinks,
    Spikes,
    Door,
    Facts,
    Join,
    Sink(String),
}

impl Roles {
    /// From `door`, `intake`, `sinks`, `spikes`, `facts`, `join` and `sink:NAME`.
    pub fn parse(names: &[String]) -> Result<Roles, String> {
        let role = |name: &String| match name.as_str() {
            "intake" => Ok(Role::Intake),
            "sinks" => Ok(Role::Sinks),
            "spikes" => Ok(Role::Spikes),
            "door" => Ok(Role::Door),
            "facts" => Ok(Role::Facts),
            "join" => Ok(Role::Join),
            other => match other.strip_prefix("sink:") {
                Some(sink) if !sink.is_empty() => Ok(Role::Sink(sink.to_owned())),
                _ => Err(format!(
                    "{other:?} is not a part; the parts are door, intake, facts, join, sinks, spikes and sink:NAME"
                )),
            },
        };
        names.iter().map(role).collect::<Result<_, _>>().map(Roles)
    }

    pub fn intake(&self) -> bool {
        self.0.is_empty() || self.0.contains(&Role::Intake)
    }

    pub fn door(&self) -> bool {
        self.0.is_empty() || self.0.contains(&Role::Door)
    }

    pub fn facts(&self) -> bool {
        self.0.is_empty() || self.0.contains(&Role::Facts)
    }

    pub fn join(&self) -> bool {
        self.0.is_empty() || self.0.contains(&Role::Join)
    }

    pub fn spikes(&self) -> bool {
        self.0.is_empty() || self.0.contains(&Role::Spikes)
    }

    pub fn sink(&self, name: &str) -> bool {
        self.0.is_empty()
            || self.0.contains(&Role::Sinks)
            || self.0.iter().any(|role| matches!(role, Role::Sink(sink) if sink == name))
    }

    /// A role that no part of the pipeline has.
    pub fn unknown(&self, pipeline: &Pipeline) -> Option<String> {
        let missing = |role: &&Role| matches!(role, Role::Sink(name) if !pipeline.file.sinks.contains_key(name));
        let Some(Role::Sink(name)) = self.0.iter().find(missing) else { return None };
        let names: Vec<&str> = pipeline.file.sinks.keys().map(String::as_str).collect();
        Some(format!("there is no sink {name:?}; there are {}", names.join(", ")))
    }
}
