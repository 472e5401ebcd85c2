//! The pipeline file's `join:` section: which topics say what requests did, how decisions meet them, and what is watched.

use globset::{GlobSet, GlobSetBuilder};
use schemars::JsonSchema;
use serde::Deserialize;

use super::spikes::{any, span};
use crate::config::forms::Glob;
use crate::config::units::{Bytes, Span};
use crate::correlate::{self, Key, Settings};
use crate::decision::time::nanos;
use crate::facts::Format;
use crate::log::config::Start;

/// The join of decisions with the requests that they ruled on.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// Topics that say what requests did: access logs, spans, Kubernetes audit events.
    #[schemars(length(min = 1))]
    pub facts: Vec<FactSource>,
    /// Where to start reading the topics under facts when there are no committed offsets. Default: earliest.
    #[serde(default)]
    pub start: Start,
    /// ID by which decisions and requests are brought together: request_id for access logs, trace_id for spans. Findings are about what has it on both sides. Default: request_id.
    #[serde(default)]
    pub key: Key,
    /// How long a decision waits for its request before it goes on without; a match that comes later is an amendment. Default: 5s.
    #[serde(default = "wait")]
    pub wait: Span,
    /// Longest request: how far apart in time a decision and the end of its request may be. Default: 30s.
    #[serde(default = "window")]
    pub window: Span,
    /// How far the clocks of OPAs and proxies may differ. Default: 2s.
    #[serde(default = "skew")]
    pub skew: Span,
    /// How long decisions and logs may take until they are in their topics. Findings are made after it, so that nothing that is late is taken for missing. Default: 2m.
    #[serde(default = "delay")]
    pub delay: Span,
    /// Maximum memory for decisions and requests within the window. What has no room is evicted, and nothing is found of its time. Default: 128MiB.
    #[serde(default = "memory")]
    pub memory: Bytes,
    #[serde(default)]
    pub findings: Findings,
}

fn wait() -> Span {
    span(5)
}

fn window() -> Span {
    span(30)
}

fn skew() -> Span {
    span(2)
}

fn delay() -> Span {
    span(120)
}

fn memory() -> Bytes {
    Bytes(128 << 20)
}

/// A topic that says what requests did.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FactSource {
    /// Name of the topic.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,249}$"))]
    pub topic: String,
    /// What its records are. Default: auto.
    #[serde(default)]
    pub format: Format,
}

/// What is found wrong with enforcement. Requests that were denied and yet served, and what failed open, are found without any of these settings.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Findings {
    /// Requests of which each needs a decision: found if they are served without one, or allowed and yet refused. Default: none.
    pub requests: Vec<Requests>,
    /// Requests that are never part of a finding. Default: none.
    pub except: Vec<Requests>,
    /// Policies whose decisions are enforced: globs, in which `*` matches within a segment and `**` across segments. Default: all.
    pub policies: Vec<Glob>,
    /// Policies whose denials are not enforced yet: globs. Default: none.
    pub dry_run: Vec<Glob>,
    /// Services whose access log has only a part of their requests: globs. Default: none.
    pub sampled: Vec<Glob>,
    /// Whether each decision of an enforced policy must have a request. Default: false.
    pub expect_requests: bool,
    /// Maximum number of findings of a kind and a service per minute; further ones are only counted. 0 is no limit. Default: 60.
    pub per_minute: u32,
}

impl Default for Findings {
    fn default() -> Findings {
        Findings {
            requests: Vec::new(),
            except: Vec::new(),
            policies: Vec::new(),
            dry_run: Vec::new(),
            sampled: Vec::new(),
            expect_requests: false,
            per_minute: 60,
        }
    }
}

/// Requests that match all of these settings.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Requests {
    /// Services: a glob. Default: all.
    #[serde(default = "any")]
    pub service: Glob,
    /// Paths: a glob, in which `*` matches within a segment and `**` across segments. Default: all.
    #[serde(default = "any")]
    pub path: Glob,
    /// Method, such as GET; of Kubernetes the verb. Default: all.
    #[serde(default)]
    pub method: Option<String>,
}

impl Requests {
    fn pattern(&self) -> correlate::Pattern {
        correlate::Pattern {
            service: Some(self.service.value()),
            path: Some(self.path.value()),
            method: self.method.clone(),
        }
    }
}

fn set(globs: &[Glob]) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        set.add(glob.glob().clone());
    }
    // Each of them is valid, and so are they together.
    set.build().unwrap_or_default()
}

impl Join {
    pub fn settings(&self) -> Settings {
        Settings {
            wait: nanos(self.wait.0),
            skew: nanos(self.skew.0),
            window: nanos(self.window.0),
            delay: nanos(self.delay.0),
            bytes: self.memory.0,
            key: Some(self.key),
            ..Settings::default()
        }
    }

    pub fn watch(&self) -> correlate::Watch {
        let Findings { requests, except, policies, dry_run, sampled, expect_requests, per_minute } =
            &self.findings;
        correlate::Watch {
            requests: requests.iter().map(Requests::pattern).collect(),
            except: except.iter().map(Requests::pattern).collect(),
            policies: set(policies),
            dry_run: set(dry_run),
            sampled: set(sampled),
            expects_requests: *expect_requests,
            per_minute: *per_minute,
        }
    }

    /// What the schema can't say.
    pub fn check(&self, problem: &mut dyn FnMut(&[&str], String)) {
        if self.wait.0 > self.window.0 {
            let message = "it is longer than join.window, in which a request is looked for";
            problem(&["join", "wait"], message.into());
        }
        if self.window.0.is_zero() {
            problem(&["join", "window"], "no request takes no time at all".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::secrets::Real;
    use crate::pipeline::{LoadError, Pipeline, parse};

    const FILE: &str = "name: opa
kafka: {brokers: k}
sources: [{topic: decisions}]
";

    fn file(rest: &str) -> Result<Pipeline, LoadError> {
        parse(Path::new("p.yaml"), &format!("{FILE}{rest}"), &Real)
    }

    #[test]
    fn without_the_section_decisions_go_to_the_docket() {
        let pipeline = file("").map_err(|e| e.to_string()).unwrap();
        assert_eq!(
            (pipeline.file.join.is_none(), &*pipeline.decided_topic()),
            (true, "docket.opa")
        );
        // Names of parts are taken only where there are such parts.
        assert!(file("sinks: {join: {type: file, path: x}}").is_ok());
    }

    #[test]
    fn the_section_becomes_what_the_join_needs() {
        let text = "join:
  facts: [{topic: access, format: access_log}, {topic: spans}]
  key: trace_id
  wait: 1s
  findings:
    requests: [{path: '/api/**', method: get}, {service: shop}]
    policies: [envoy/**]
";
        let pipeline = file(text).map_err(|e| e.to_string()).unwrap();
        assert_eq!(pipeline.decided_topic(), "docket.opa.pending");
        let join = pipeline.file.join.as_ref().unwrap();
        let (settings, watch) = (join.settings(), join.watch());
        assert_eq!((settings.wait, settings.window), (1_000_000_000, 30_000_000_000));
        assert_eq!(settings.key, Some(crate::correlate::Key::TraceId));
        assert_eq!((watch.requests.len(), watch.per_minute), (2, 60));
        assert!(watch.policies.is_match("envoy/authz") && !watch.policies.is_match("other"));
        assert!(watch.dry_run.is_empty() && watch.except.is_empty());
    }

    #[test]
    fn what_can_not_work_is_told_with_its_place() {
        let text = "kafka: {brokers: k, properties: {partition.assignment.strategy: roundrobin}}
name: opa
sources: [{topic: decisions}, {topic: docket.opa.pending}]
join:
  facts: [{topic: decisions}, {topic: docket.opa.facts}, {topic: a}, {topic: a}]
  wait: 1m
sinks: {facts: {type: file, path: x}}
";
        let error = parse(Path::new("p.yaml"), text, &Real).unwrap_err().to_string();
        for said in [
            "p.yaml:1:",
            "the join needs range",
            "\"decisions\" is another topic",
            "\"docket.opa.facts\" is another topic",
            "\"a\" is another topic",
            "\"docket.opa.pending\" is a topic that the join writes itself",
            "p.yaml:6:9: it is longer than join.window",
            "\"facts\" can't be the name of a sink",
        ] {
            assert!(error.contains(said), "{said}:\n{error}");
        }
        assert!(file("join: {facts: []}").is_err());
    }
}
