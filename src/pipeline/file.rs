//! What a pipeline file may say. These types are the one description of it: serde reads them, their
//! comments and bounds become the JSON Schema (`docket schema`), and `check` holds a file to that schema.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::join::Join;
use super::protect::Protect;
use super::rules::{
    LimitsSection, RequestSection, ServiceSection, Trace, VerdictPolicy, VerdictRule,
};
use super::spikes::Spikes;
use crate::config::forms::RedactPath;
use crate::config::units::{Bytes, Span};
use crate::door::config::DoorConfig;
use crate::log::config::{Docket, Kafka, Source, Start};
use crate::sink::config::SinkConfig;
use crate::telemetry::config::{Admin, Telemetry};

/// A docket pipeline: reads OPA decision logs from Kafka, writes each decision once to the docket topic, and delivers it to sinks.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Name of the pipeline. Its consumer groups are named docket.<name>.<part>.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"))]
    pub name: String,
    pub kafka: Kafka,
    /// Topics to read decision logs from.
    #[schemars(length(min = 1))]
    pub sources: Vec<Source>,
    /// HTTP endpoint that accepts decision logs from OPA and writes them to a source topic. Disabled unless set.
    #[serde(default)]
    pub door: Option<DoorConfig>,
    #[serde(default)]
    pub intake: Intake,
    #[serde(default)]
    pub limits: LimitsSection,
    /// Rules that map results to verdicts, tried in order; the first whose path matches applies. A result that no rule applies to is judged by its shape.
    #[serde(default)]
    pub verdict: Vec<VerdictRule>,
    /// Rego policy that maps results to verdicts, evaluated before the rules under verdict.
    #[serde(default)]
    pub verdict_policy: Option<VerdictPolicy>,
    #[serde(default)]
    pub trace: Trace,
    #[serde(default)]
    pub service: ServiceSection,
    #[serde(default)]
    pub request: RequestSection,
    /// Data protection: what is removed from decisions, hashed or encrypted before they reach the docket topic. Nothing is unless this section is present; if it is, even empty, the detectors are on.
    #[serde(default)]
    pub protect: Option<Protect>,
    #[serde(default)]
    pub docket: Docket,
    /// Sinks by name: where decisions are delivered. Each is a separate consumer group on the docket topic. Without any, decisions go to the docket topic only, for others to read.
    #[serde(default)]
    pub sinks: BTreeMap<String, SinkConfig>,
    #[serde(default)]
    pub memory: Memory,
    #[serde(default)]
    pub watchdog: Watchdog,
    /// Detection of denial spikes and silent failures. Findings go to the notifiers and, as records of the docket topic, to all sinks. Disabled unless set.
    #[serde(default)]
    pub spikes: Option<Spikes>,
    /// The join of decisions with the requests that they ruled on, and what it finds wrong with enforcement: denied and yet served, served without a decision, failed open. Disabled unless set.
    #[serde(default)]
    pub join: Option<Join>,
    /// Requests that `docket verify --probe` sends to OPA: at least one that must be allowed and one that must be denied.
    #[serde(default)]
    pub probes: Vec<Probe>,
    #[serde(default)]
    pub admin: Admin,
    #[serde(default)]
    pub telemetry: Telemetry,
    /// Test cases of this file, run by `docket check`.
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

    /// The topic that keeps what the detector of spikes has learned.
    pub fn spikes_topic(&self) -> String {
        let named = self.spikes.as_ref().and_then(|spikes| spikes.topic.clone());
        named.unwrap_or_else(|| format!("{}.spikes", self.docket_topic()))
    }

    /// Where decisions wait to be joined.
    pub fn pending_topic(&self) -> String {
        format!("{}.pending", self.docket_topic())
    }

    /// What requests did.
    pub fn facts_topic(&self) -> String {
        format!("{}.facts", self.docket_topic())
    }

    /// Matches of decisions that had gone on without.
    pub fn amendments_topic(&self) -> String {
        format!("{}.amendments", self.docket_topic())
    }

    /// The sinks that get them.
    pub fn amended(&self) -> impl Iterator<Item = (&String, &SinkConfig)> {
        let sinks = self.join.iter().flat_map(move |_| &self.sinks);
        sinks.filter(|(_, sink)| sink.amends())
    }

    /// The sink for which a part adds late matches, if it does.
    pub fn amended_by(&self, part: &str) -> Option<(&String, &SinkConfig)> {
        self.amended().find(|(name, _)| amending(name) == part)
    }

    /// Those whose documents amendments name, and what each does not get, on which a document's ID depends.
    pub fn documents(&self) -> Vec<(&String, &Vec<RedactPath>)> {
        let all = self.amended().filter(|(_, sink)| sink.has_documents());
        all.map(|(name, sink)| (name, &sink.delivery().redact)).collect()
    }
}

/// The part that adds late matches to what a sink holds.
pub fn amending(sink: &str) -> String {
    format!("{sink}-amendments")
}

/// How decision logs are read from the source topics.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Intake {
    /// Consumer group. Default: docket.<pipeline>.intake.
    pub group: Option<String>,
    /// Where to start reading when the group has no committed offsets. Default: earliest.
    pub start: Start,
    /// Static group membership (group.instance.id) for intake and the sinks: a name unique to this process, so that a quick restart does not cause a rebalance. Default: dynamic membership.
    pub instance_id: Option<String>,
    /// Maximum time before a transaction is committed. Default: 200ms.
    pub transaction_interval: Span,
    /// Size at which a transaction is committed. Default: 16MiB.
    pub transaction_bytes: Bytes,
    /// Maximum amount of data fetched from Kafka ahead of processing. Default: 16MiB.
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

/// Memory budget of the pipeline.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Memory {
    /// Maximum memory for this pipeline in one process. If prefetch, transactions and batches could exceed it, they are scaled down. Default: 512MiB.
    pub budget: Bytes,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory { budget: Bytes(512 << 20) }
    }
}

/// Detection of partitions that stall silently, and of records that are gone.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Watchdog {
    /// How long an assigned partition with pending records may make no progress before it is reported as stalled: in docket_stalled_partitions, in the log and in /status. Default: 2m.
    pub stalled_after: Span,
    /// What a part does when records that it has not finished are gone from Kafka (deleted by retention, or the topic was recreated or truncated). go_on counts and logs what is gone, writes it to the rejects topic, and reads on from the oldest record there is; stop has the part fail, with what is gone as its error, until the group's offsets or this setting are changed. Default: go_on.
    pub log_gap: LogGap,
}

/// What a part does when records that it has not finished are gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogGap {
    /// Tell it, and read on from the oldest record there is.
    #[default]
    GoOn,
    /// Read no more.
    Stop,
}

impl Default for Watchdog {
    fn default() -> Watchdog {
        Watchdog { stalled_after: Span(Duration::from_secs(120)), log_gap: LogGap::GoOn }
    }
}

/// A request that `docket verify --probe` sends to OPA.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// Path of the policy, as in OPA's data API, such as http/authz/allow.
    pub path: String,
    /// Input document of the request.
    #[serde(default)]
    pub input: Value,
    /// Expected verdict.
    #[schemars(extend("enum" = ["allow", "deny"]))]
    pub expect: String,
}

/// A test case: a record, and what docket must make of it.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Name of the test case, shown when it fails.
    pub name: String,
    /// The record as a producer would write it: an object, an array, or a string, which is taken literally.
    pub record: Value,
    /// Kafka headers of the record.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Expected outcome. Only the members that are given are compared.
    pub expect: Expect,
}

/// Expected outcome of a test case. Only the members that are given are compared.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// Expected verdict.
    #[schemars(extend("enum" = ["allow", "deny", "undefined", "error"]))]
    pub verdict: Option<String>,
    /// Expected reasons, in order.
    pub reasons: Option<Vec<String>>,
    /// Expected policy path, without a leading slash.
    pub policy: Option<String>,
    /// Expected service name.
    pub service: Option<String>,
    /// Expected trace ID: 32 hex digits.
    pub trace_id: Option<String>,
    /// Expected parent span ID: 16 hex digits.
    pub parent_span_id: Option<String>,
    /// Expected source of the trace context.
    #[schemars(extend("enum" = ["decision", "request_context", "input", "record", "join", "none"]))]
    pub trace_from: Option<String>,
    /// Expected members of the docket record. Within objects, only the members that are given are compared.
    pub record: Option<BTreeMap<String, Value>>,
    /// Expected labels of the Loki stream, all of them, as set by the first Loki sink.
    pub labels: Option<BTreeMap<String, String>>,
    /// Expected members of the Elasticsearch document. Within objects, only the members that are given are compared.
    pub document: Option<BTreeMap<String, Value>>,
    /// Expected reason for a reject. Without it, a reject fails the test case.
    pub rejected: Option<String>,
    /// Whether the record is expected to be ignored: it holds no decision, and is not rejected either.
    pub ignored: Option<bool>,
    /// Expected number of decisions in the record.
    pub decisions: Option<usize>,
}
