//! What a pipeline file may say. These types are the one description of it: serde reads them, their
//! comments and bounds become the JSON Schema (`docket schema`), and `check` holds a file to that schema.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::protect::Protect;
use super::rules::{
    LimitsSection, RequestSection, ServiceSection, Trace, VerdictPolicy, VerdictRule,
};
use super::spikes::Spikes;
use crate::config::units::{Bytes, Span};
use crate::door::config::DoorConfig;
use crate::log::config::{Docket, Kafka, Source, Start};
use crate::sink::config::SinkConfig;
use crate::telemetry::config::{Admin, Telemetry};

/// A docket pipeline: from decision logs in Kafka, through the docket topic, to sinks.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Name of the pipeline; consumer groups are named docket.<name>.<part>.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"))]
    pub name: String,
    pub kafka: Kafka,
    /// Topics that hold decision logs.
    #[schemars(length(min = 1))]
    pub sources: Vec<Source>,
    /// Takes decision logs from OPAs over HTTP and writes them to a source topic.
    #[serde(default)]
    pub door: Option<DoorConfig>,
    #[serde(default)]
    pub intake: Intake,
    #[serde(default)]
    pub limits: LimitsSection,
    /// Rules that say what a result means, tried in order before the defaults.
    #[serde(default)]
    pub verdict: Vec<VerdictRule>,
    /// A policy in Rego that says what a result means; asked before the rules.
    #[serde(default)]
    pub verdict_policy: Option<VerdictPolicy>,
    #[serde(default)]
    pub trace: Trace,
    #[serde(default)]
    pub service: ServiceSection,
    #[serde(default)]
    pub request: RequestSection,
    /// What must not spread, and is taken out of decisions before they get to the docket.
    #[serde(default)]
    pub protect: Option<Protect>,
    #[serde(default)]
    pub docket: Docket,
    /// Where decisions go, by name. Each is a consumer group of its own on the docket topic.
    #[serde(default)]
    pub sinks: BTreeMap<String, SinkConfig>,
    #[serde(default)]
    pub memory: Memory,
    #[serde(default)]
    pub watchdog: Watchdog,
    /// Denial spikes and silent failures: found in the docket, told to people and to the sinks. Not looked for unless set.
    #[serde(default)]
    pub spikes: Option<Spikes>,
    /// Questions for `docket verify --probe`: one that must be allowed and one that must be denied.
    #[serde(default)]
    pub probes: Vec<Probe>,
    #[serde(default)]
    pub admin: Admin,
    #[serde(default)]
    pub telemetry: Telemetry,
    /// Test cases, run by `docket check`.
    #[serde(default)]
    pub tests: Vec<Case>,
}

impl File {
    pub fn docket_topic(&self) -> String {
        self.docket.topic.clone().unwrap_or_else(|| format!("docket.{}", self.name))
    }

    pub fn rejects_topic(&self) -> String {
        self.docket.rejects.clone().unwrap_or_else(|| format!("{}.rejects", self.docket_topic()))
    }
}

/// How intake reads.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Intake {
    /// Consumer group; docket.<pipeline>.intake unless set.
    pub group: Option<String>,
    /// Where a group without offsets begins.
    pub start: Start,
    /// Static membership (group.instance.id): a name that only this instance has, so that a quick restart moves no partitions.
    pub instance_id: Option<String>,
    /// Commit a transaction at least so often.
    pub transaction_interval: Span,
    /// Commit a transaction after so many bytes.
    pub transaction_bytes: Bytes,
    /// At most so much is fetched ahead of processing.
    pub prefetch: Bytes,
}

impl Default for Intake {
    fn default() -> Intake {
        Intake {
            group: None,
            start: Start::Earliest,
            instance_id: None,
            transaction_interval: Span(Duration::from_millis(200)),
            transaction_bytes: Bytes(16 << 20),
            prefetch: Bytes(16 << 20),
        }
    }
}

/// How much memory the process may use for this pipeline.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Memory {
    /// Prefetch, transactions and batches are made smaller until the pipeline fits into this, whatever its sinks and sources do.
    pub budget: Bytes,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory { budget: Bytes(512 << 20) }
    }
}

/// Notices partitions that stall silently.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Watchdog {
    /// An assigned partition with something to do that makes no progress for so long is stalled: docket_stalled_partitions, the log, /readyz.
    pub stalled_after: Span,
}

impl Default for Watchdog {
    fn default() -> Watchdog {
        Watchdog { stalled_after: Span(Duration::from_secs(120)) }
    }
}

/// A question that OPA is asked by `docket verify --probe`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// Path of the policy, as in OPA's data API: http/authz/allow.
    pub path: String,
    /// The input.
    #[serde(default)]
    pub input: Value,
    /// The verdict that it must get.
    #[schemars(extend("enum" = ["allow", "deny"]))]
    pub expect: String,
}

/// A test case of the pipeline file.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    /// A decision, or anything else a producer might write: an object, an array, or text as it is.
    pub record: Value,
    /// Kafka headers of the record.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// What is expected. Only what is named is compared.
    pub expect: Expect,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    #[schemars(extend("enum" = ["allow", "deny", "undefined", "error"]))]
    pub verdict: Option<String>,
    pub reasons: Option<Vec<String>>,
    pub policy: Option<String>,
    pub service: Option<String>,
    pub trace_id: Option<String>,
    pub parent_span_id: Option<String>,
    #[schemars(extend("enum" = ["decision", "request_context", "input", "record", "join", "none"]))]
    pub trace_from: Option<String>,
    /// Members of the docket record.
    pub record: Option<BTreeMap<String, Value>>,
    /// Labels of the Loki stream, whole.
    pub labels: Option<BTreeMap<String, String>>,
    /// Members of the Elasticsearch document.
    pub document: Option<BTreeMap<String, Value>>,
    /// The record is rejected for this reason.
    pub rejected: Option<String>,
    /// The record is no decision, and no error either.
    pub ignored: Option<bool>,
    /// How many decisions the record holds, where it is not one.
    pub decisions: Option<usize>,
}
