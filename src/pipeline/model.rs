//! What a pipeline file may say. These types are the one description of it: serde reads them, their
//! comments and bounds become the JSON Schema (`docket schema`), and `check` holds a file to that schema.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

pub use super::door::Door;
use super::protect::Protect;
use super::push::Push;
use super::secrets::{Called, Secret};
use super::spikes::Spikes;
use super::units::{Bytes, Span};
use super::watched::Watched;
use crate::decision::formats::Format;
use crate::protect::redact::Redaction;

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
    pub door: Option<Door>,
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
    pub sinks: BTreeMap<String, Sink>,
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

/// The Kafka cluster.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// Bootstrap servers, host:port, separated by commas.
    #[schemars(length(min = 1))]
    pub brokers: String,
    /// Any librdkafka property, as it is (security.protocol, sasl.*, ssl.*, ..). See librdkafka's CONFIGURATION.md.
    #[serde(default)]
    pub properties: BTreeMap<String, Property>,
}

/// The value of a librdkafka property.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Property {
    Bool(bool),
    Number(i64),
    Text(#[schemars(with = "Called")] Secret),
}

impl Property {
    pub fn value(&self) -> String {
        match self {
            Property::Bool(b) => b.to_string(),
            Property::Number(n) => n.to_string(),
            Property::Text(secret) => secret.expose().to_owned(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The topic.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,249}$"))]
    pub topic: String,
    /// How its records are written.
    #[serde(default)]
    pub format: Format,
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
            transaction_interval: Span(std::time::Duration::from_millis(200)),
            transaction_bytes: Bytes(16 << 20),
            prefetch: Bytes(16 << 20),
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With the oldest record.
    #[default]
    Earliest,
    /// With what comes from now on.
    Latest,
}

/// Bounds on what producers may send.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSection {
    /// A larger decision goes to rejects.
    pub decision_bytes: Bytes,
    /// A Kafka record that is larger once decompressed goes to rejects.
    pub record_bytes: Bytes,
}

impl Default for LimitsSection {
    fn default() -> LimitsSection {
        let limits = crate::decision::formats::Limits::default();
        LimitsSection { decision_bytes: Bytes(limits.decision), record_bytes: Bytes(limits.record) }
    }
}

/// What the results of some policies mean.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerdictRule {
    /// Policies, as a glob on the decision's path: `*` within a part, `**` across parts.
    pub path: String,
    /// JSON pointer (RFC 6901) to the answer in the result; the whole result unless set.
    #[serde(default)]
    pub pointer: String,
    /// Values that mean allow.
    #[serde(default = "just_true")]
    pub allow: Vec<Value>,
    /// Values that mean deny. A value in neither list is undefined.
    #[serde(default = "just_false")]
    pub deny: Vec<Value>,
    /// JSON pointer to the reasons in the result; the usual places unless set.
    pub reasons: Option<String>,
}

fn just_true() -> Vec<Value> {
    vec![true.into()]
}

fn just_false() -> Vec<Value> {
    vec![false.into()]
}

/// A policy in Rego for results that need more than pointers. Its input is the decision as OPA logged it; it says "allow", "deny", "undefined" or "error", true or false, or an object with that as its verdict and a list of reasons. Where it is undefined, the rules and then the defaults say.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerdictPolicy {
    /// Policy files, relative to the pipeline file.
    #[schemars(length(min = 1))]
    pub policies: Vec<PathBuf>,
    /// JSON files with what policies know as data.
    #[serde(default)]
    pub data: Vec<PathBuf>,
    /// The rule that is asked.
    #[serde(default = "verdict_rule")]
    #[schemars(regex(pattern = r"^/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)+$"))]
    pub rule: String,
    /// What the files held; a change of theirs is one of the pipeline.
    #[serde(skip)]
    pub loaded: Vec<crate::rego::SourceFile>,
}

fn verdict_rule() -> String {
    "docket/verdict".into()
}

/// Where a decision's trace context comes from.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Trace {
    /// Sources in the order of precedence; the first context found is the parent, others become links. decision, request_context, input unless set.
    #[schemars(length(min = 1))]
    pub order: Option<Vec<TraceSource>>,
    /// JSON pointers to objects of headers inside the input.
    pub input_headers: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TraceSource {
    /// trace_id and span_id of the decision: OPA's own span.
    Decision,
    /// request_context.http.headers of the decision.
    RequestContext,
    /// Headers inside the input.
    Input,
    /// Headers of the Kafka record.
    Record,
}

/// How a decision's service is named.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceSection {
    /// OPA's label that names the service.
    pub name_label: String,
    /// OPA's label that tells its instances apart.
    pub instance_label: String,
}

impl Default for ServiceSection {
    fn default() -> ServiceSection {
        ServiceSection { name_label: "app".into(), instance_label: "id".into() }
    }
}

/// Who asked for what: JSON pointers into a decision (/input, /labels, /request_context, /result, /requested_by). The first that leads to text, a number or a list of these wins. Without one, the usual places of OPA's callers, Envoy and Kubernetes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RequestSection {
    /// Who asked; docket.subject in the record.
    pub subject: Option<Vec<String>>,
    /// To do what; docket.action.
    pub action: Option<Vec<String>>,
    /// With what; docket.resource. What follows a question mark is left out.
    pub resource: Option<Vec<String>>,
}

/// The topics that docket writes.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Docket {
    /// The docket topic; docket.<pipeline> unless set.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,249}$"))]
    pub topic: Option<String>,
    /// The topic for what can't be decoded or delivered; <docket topic>.rejects unless set.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,249}$"))]
    pub rejects: Option<String>,
    /// Create missing topics.
    pub create: bool,
    /// Partitions of topics that are created.
    #[schemars(range(min = 1, max = 10000))]
    pub partitions: u32,
    /// Replicas of topics that are created; the broker's default unless set.
    #[schemars(range(min = 1, max = 15))]
    pub replication: Option<u32>,
    /// How long topics that are created keep records.
    pub retention: Span,
    /// max.message.bytes of topics that are created.
    pub max_message: Bytes,
    /// Compression of what docket writes.
    pub compression: Compression,
}

impl Default for Docket {
    fn default() -> Docket {
        Docket {
            topic: None,
            rejects: None,
            create: true,
            partitions: 12,
            replication: None,
            retention: Span(std::time::Duration::from_secs(7 * 86_400)),
            max_message: Bytes(4 << 20),
            compression: Compression::Lz4,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    None,
    Lz4,
    Zstd,
    Snappy,
    Gzip,
}

impl Compression {
    pub fn as_str(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
            Compression::Snappy => "snappy",
            Compression::Gzip => "gzip",
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
        Watchdog { stalled_after: Span(std::time::Duration::from_secs(120)) }
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

/// Where decisions go.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Sink {
    /// OTLP: each decision a span in its request's trace, or a log record, or both.
    Otlp(Otlp),
    /// Grafana Loki, or VictoriaLogs, which speaks its push protocol.
    Loki(Loki),
    /// Elasticsearch or OpenSearch.
    Elasticsearch(Elasticsearch),
    /// Amazon CloudWatch Logs.
    Cloudwatch(Cloudwatch),
    /// A file, or standard output: one docket record a line.
    File(FileSink),
    /// Prometheus metrics on the admin port.
    Metrics(Metrics),
}

impl Sink {
    pub fn type_name(&self) -> &'static str {
        match self {
            Sink::Otlp(_) => "otlp",
            Sink::Loki(_) => "loki",
            Sink::Elasticsearch(_) => "elasticsearch",
            Sink::Cloudwatch(_) => "cloudwatch",
            Sink::File(_) => "file",
            Sink::Metrics(_) => "metrics",
        }
    }

    pub fn delivery(&self) -> &Delivery {
        match self {
            Sink::Otlp(s) => &s.delivery,
            Sink::Loki(s) => &s.delivery,
            Sink::Elasticsearch(s) => &s.delivery,
            Sink::Cloudwatch(s) => &s.delivery,
            Sink::File(s) => &s.delivery,
            Sink::Metrics(s) => &s.delivery,
        }
    }

    pub fn delivery_mut(&mut self) -> &mut Delivery {
        match self {
            Sink::Otlp(s) => &mut s.delivery,
            Sink::Loki(s) => &mut s.delivery,
            Sink::Elasticsearch(s) => &mut s.delivery,
            Sink::Cloudwatch(s) => &mut s.delivery,
            Sink::File(s) => &mut s.delivery,
            Sink::Metrics(s) => &mut s.delivery,
        }
    }

    /// How many decision ids a partition are remembered to send none twice. Elasticsearch keeps one of several by itself;
    /// Loki only while it does not spread a stream over shards.
    pub fn repeat_window(&self) -> usize {
        self.delivery().repeat_window.unwrap_or(match self {
            Sink::Elasticsearch(_) => 0,
            Sink::Loki(_)
            | Sink::Otlp(_)
            | Sink::Cloudwatch(_)
            | Sink::File(_)
            | Sink::Metrics(_) => 10_000,
        })
    }

    /// How many batches are in flight at once. Loki's ingester puts what requests wrote to a stream into its log in any order, and when it reads
    /// that log after a crash, it takes what stands behind something newer for a repeat and drops it.
    pub fn concurrency(&self) -> usize {
        self.delivery().concurrency.unwrap_or(match self {
            Sink::Loki(s) if s.server == LogServer::Loki => 1,
            _ => 4,
        })
    }

    /// What is older is not sent. Loki refuses after a week unless it is told otherwise, CloudWatch after two weeks; VictoriaLogs drops it after a
    /// week, without a word.
    pub fn max_age(&self) -> Option<std::time::Duration> {
        const DAY: u64 = 86_400;
        let default = match self {
            Sink::Loki(_) => Some(7 * DAY),
            Sink::Cloudwatch(_) => Some(14 * DAY),
            _ => None,
        };
        self.delivery().max_age.map(|span| span.0).or(default.map(std::time::Duration::from_secs))
    }

    /// What this sink alone does not get. It was checked when the file was loaded.
    pub fn redaction(&self) -> Redaction {
        Redaction::parse(&self.delivery().redact).unwrap_or_default()
    }
}

/// How a sink's batches are made and sent.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Delivery {
    /// Where a sink without offsets begins in the docket topic.
    pub start: Start,
    /// A batch is sent when it has so many records,
    #[schemars(range(min = 1, max = 100000))]
    pub batch_records: usize,
    /// or so many bytes of docket records,
    pub batch_bytes: Bytes,
    /// or its first record waits so long.
    pub batch_age: Span,
    /// Batches in flight at once. 1 for Loki itself, which may lose lines when it crashes that several requests wrote to one stream at once, 4 for the others unless set.
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: Option<usize>,
    /// A request that takes longer is given up and sent again.
    pub timeout: Span,
    /// The first pause before sending again; it doubles each time,
    pub retry_initial: Span,
    /// up to this.
    pub retry_max: Span,
    /// At most so much is fetched ahead of batching.
    pub prefetch: Bytes,
    /// So many decision ids of each partition are remembered, so that a decision that stands twice in the docket is sent once; 0 for none. 0 for Elasticsearch, which keeps one of several by itself, 10000 for the others unless set.
    #[schemars(range(max = 10000000))]
    pub repeat_window: Option<usize>,
    /// Older decisions are not sent to this sink. 7d for Loki and VictoriaLogs, which do not take them from there on by default, 14d for CloudWatch.
    pub max_age: Option<Span>,
    /// Where they go: rejects, or the name of a sink.
    #[serde(default = "rejects")]
    pub too_old: String,
    /// The sink gets only what others name it for (too_old).
    pub only_routed: bool,
    /// What this sink alone does not get, beside what protect takes out for all: JSON pointers with * and **, such as /input or /docket/subject.
    pub redact: Vec<String>,
}

fn rejects() -> String {
    "rejects".into()
}

impl Default for Delivery {
    fn default() -> Delivery {
        use std::time::Duration;
        Delivery {
            start: Start::Earliest,
            batch_records: 2000,
            batch_bytes: Bytes(2 << 20),
            batch_age: Span(Duration::from_millis(500)),
            concurrency: None,
            timeout: Span(Duration::from_secs(30)),
            retry_initial: Span(Duration::from_millis(200)),
            retry_max: Span(Duration::from_secs(30)),
            prefetch: Bytes(8 << 20),
            repeat_window: None,
            max_age: None,
            too_old: rejects(),
            only_routed: false,
            redact: Vec::new(),
        }
    }
}

/// Credentials for an HTTP request.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Auth {
    Basic(Basic),
    Bearer(Bearer),
    /// Elasticsearch's API key, as it is encoded there.
    ApiKey(ApiKey),
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    #[schemars(with = "String")]
    pub username: Secret,
    pub password: Secret,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bearer {
    pub token: Secret,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    pub key: Secret,
}

/// TLS towards a server. Certificates are verified against the system's authorities unless told otherwise.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the authorities to trust instead of the system's.
    pub ca_file: Option<Watched>,
    /// PEM files of a client certificate and its key.
    pub cert_file: Option<Watched>,
    pub key_file: Option<Watched>,
    /// Do not verify the server's certificate. For tests only.
    pub insecure_skip_verify: bool,
}

/// TLS of a port. The files are read again when they change.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// PEM file with the certificate, and those between it and the authority.
    pub cert_file: PathBuf,
    /// PEM file with its key.
    pub key_file: PathBuf,
    /// PEM file with the authorities whose client certificates are let in; others are not. No client certificate is asked for unless set.
    pub client_ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Otlp {
    /// http://host:4317 for gRPC, http://host:4318 for HTTP (/v1/traces and /v1/logs are added).
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub endpoint: String,
    #[serde(default)]
    pub protocol: OtlpProtocol,
    /// What a decision becomes.
    #[serde(default = "only_traces")]
    #[schemars(length(min = 1))]
    pub signals: Vec<Signal>,
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Called>")]
    pub headers: BTreeMap<String, Secret>,
    #[serde(default)]
    pub auth: Option<Auth>,
    #[serde(default)]
    pub tls: Tls,
    #[serde(default = "gzip")]
    pub compression: HttpCompression,
    /// Where traces can be asked for, for `docket verify`: the query address of Jaeger or Tempo; /api/traces/<trace id> is added. The sink's credentials are sent there only if it is the same host.
    #[serde(default)]
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub query: Option<String>,
    #[serde(default)]
    pub delivery: Delivery,
}

fn only_traces() -> Vec<Signal> {
    vec![Signal::Traces]
}

fn gzip() -> HttpCompression {
    HttpCompression::Gzip
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OtlpProtocol {
    #[default]
    Grpc,
    /// HTTP with protobuf.
    Http,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    Traces,
    Logs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HttpCompression {
    None,
    Gzip,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Loki {
    /// Address of the server; /loki/api/v1/push is added, for VictoriaLogs /insert/loki/api/v1/push.
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub url: String,
    /// Which server takes the lines. VictoriaLogs is told to keep each as it is, and `docket verify` asks it in LogsQL.
    #[serde(default)]
    pub server: LogServer,
    /// X-Scope-OrgID; for VictoriaLogs <AccountID>:<ProjectID>.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Stream labels and where they come from: service, verdict, engine, policy, instance, label.<OPA label>, or =<fixed text>. Keep them few: each combination is a stream.
    #[serde(default = "loki_labels")]
    #[schemars(length(min = 1))]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Called>")]
    pub headers: BTreeMap<String, Secret>,
    #[serde(default)]
    pub auth: Option<Auth>,
    #[serde(default)]
    pub tls: Tls,
    #[serde(default)]
    pub delivery: Delivery,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogServer {
    #[default]
    Loki,
    Victorialogs,
}

fn loki_labels() -> BTreeMap<String, String> {
    ["service", "verdict", "engine"]
        .iter()
        .map(|name| (name.to_string(), name.to_string()))
        .collect()
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Elasticsearch {
    /// Address of Elasticsearch or OpenSearch.
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub url: String,
    /// The data stream or index that documents are created in.
    #[serde(default = "index")]
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9._-]{0,254}$"))]
    pub index: String,
    /// Whether `docket setup` makes the index a data stream. A data stream's backing index changes at a rollover, and document ids are unique within one only.
    #[serde(default)]
    pub data_stream: bool,
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Called>")]
    pub headers: BTreeMap<String, Secret>,
    #[serde(default)]
    pub auth: Option<Auth>,
    #[serde(default)]
    pub tls: Tls,
    #[serde(default = "gzip")]
    pub compression: HttpCompression,
    #[serde(default)]
    pub delivery: Delivery,
}

fn index() -> String {
    "docket-decisions".into()
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cloudwatch {
    /// Region; from AWS_REGION, the profile or the instance unless set.
    #[serde(default)]
    pub region: Option<String>,
    /// Profile of the AWS configuration files.
    #[serde(default)]
    pub profile: Option<String>,
    /// Address of the service instead of the region's: a VPC endpoint, a proxy.
    #[serde(default)]
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub endpoint: Option<String>,
    /// Log group.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_./#-]{1,512}$"))]
    pub group: String,
    /// Log stream; {service}, {verdict}, {engine}, {policy}, {instance} and {label.<OPA label>} stand for the decision's. Characters that a stream can't have become _.
    #[serde(default = "stream")]
    #[schemars(length(min = 1))]
    pub stream: String,
    /// Create missing groups and streams.
    #[serde(default = "yes")]
    pub create: bool,
    /// Days that a group keeps its events, once it is created here, as CloudWatch has them: 1, 3, 5, 7, 14, 30, .. 3653; for ever unless set.
    #[serde(default)]
    #[schemars(range(min = 1, max = 3653))]
    pub retention_days: Option<u32>,
    /// Metrics in each event, in the embedded metric format: a namespace for Decisions and Duration by Service, Policy and Verdict.
    #[serde(default)]
    pub emf_namespace: Option<String>,
    #[serde(default)]
    pub tls: Tls,
    #[serde(default)]
    pub delivery: Delivery,
}

fn stream() -> String {
    "{service}".into()
}

fn yes() -> bool {
    true
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSink {
    /// Path of the file, appended to; - is standard output.
    pub path: PathBuf,
    #[serde(default)]
    pub delivery: Delivery,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Address of the Prometheus that scrapes docket, for `docket verify`.
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub query: Option<String>,
    /// How many combinations of service, policy, verdict and bundle revision have a series of their own. The heaviest keep theirs, others are counted as `other`, the idle make room.
    #[schemars(range(min = 10, max = 1000000))]
    pub max_series: usize,
    pub delivery: Delivery,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            query: None,
            max_series: crate::metrics::MAX_SERIES,
            delivery: Delivery::default(),
        }
    }
}

/// The admin port: /metrics, /healthz, /readyz.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// host:port to listen on; port 0 takes a free one, which the log names.
    #[schemars(regex(pattern = r"^\S+:\d{1,5}$"))]
    pub listen: String,
    /// Plain HTTP unless set.
    pub tls: Option<ServerTls>,
}

impl Default for Admin {
    fn default() -> Admin {
        Admin { listen: "127.0.0.1:9464".into(), tls: None }
    }
}

/// docket's own logs and traces.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// OTLP/gRPC endpoint for docket's own traces and logs.
    #[schemars(regex(pattern = r"^https?://.+"))]
    pub otlp: Option<String>,
    /// Where the metrics are pushed, by name, for those who can't scrape the admin port.
    pub push: BTreeMap<String, Push>,
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
