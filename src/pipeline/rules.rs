//! Sections that say what a decision means: verdicts, trace contexts, services, who asked for what. Their
//! compiled form is `decision`'s.

use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::File;
use crate::config::forms::{Glob, JsonPointer};
use crate::config::units::Bytes;
use crate::decision::formats::Limits;
use crate::decision::record::{self, Service};
use crate::decision::{request, trace, verdict};
use crate::rego::{self, SourceFile};

/// Size limits on what producers may send.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSection {
    /// Maximum size of a decision. Larger ones go to rejects. Default: 1MiB.
    pub decision_bytes: Bytes,
    /// Maximum size of a Kafka record after decompression. Larger ones go to rejects. Default: 64MiB.
    pub record_bytes: Bytes,
    /// Maximum number of decisions in a Kafka record or an upload. Records with more go to rejects as a whole. Default: 100000.
    #[schemars(range(min = 1, max = 10000000))]
    pub record_elements: usize,
}

impl Default for LimitsSection {
    fn default() -> LimitsSection {
        let limits = Limits::default();
        LimitsSection {
            decision_bytes: Bytes(limits.decision),
            record_bytes: Bytes(limits.record),
            record_elements: limits.elements,
        }
    }
}

/// A rule that maps the results of some policies to verdicts.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerdictRule {
    /// Policies that the rule applies to: a glob on the decision's path, in which `*` matches within a segment and `**` across segments.
    pub path: Glob,
    /// JSON pointer (RFC 6901) to the deciding value within the result. Default: the whole result.
    #[serde(default = "whole")]
    pub pointer: JsonPointer,
    /// Values that mean allow. Default: [true].
    #[serde(default = "just_true")]
    pub allow: Vec<Value>,
    /// Values that mean deny. Default: [false]. The verdict for a value in neither list is undefined.
    #[serde(default = "just_false")]
    pub deny: Vec<Value>,
    /// JSON pointer to the reasons within the result. Default: members named reason, reasons, message, messages or msg, and other customary places.
    pub reasons: Option<JsonPointer>,
}

fn whole() -> JsonPointer {
    JsonPointer::new("").expect("it is one")
}

fn just_true() -> Vec<Value> {
    vec![true.into()]
}

fn just_false() -> Vec<Value> {
    vec![false.into()]
}

/// A Rego policy for results that rules can't express. Its input is the decision as OPA logged it. It returns "allow", "deny", "undefined", "error", true, false, or an object with one of these as verdict and a list of reasons. If it is undefined, the rules under verdict apply, and then the defaults.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerdictPolicy {
    /// Rego files, with paths relative to the pipeline file.
    #[schemars(length(min = 1), inner(length(min = 1)))]
    pub policies: Vec<PathBuf>,
    /// JSON files loaded as data, with paths relative to the pipeline file.
    #[serde(default)]
    #[schemars(inner(length(min = 1)))]
    pub data: Vec<PathBuf>,
    /// Path of the rule to evaluate, without the leading data. Default: docket/verdict.
    #[serde(default = "verdict_rule")]
    #[schemars(regex(pattern = r"^/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)+$"))]
    pub rule: String,
    /// What the files held; a change of theirs is one of the pipeline.
    #[serde(skip)]
    pub loaded: Vec<SourceFile>,
}

fn verdict_rule() -> String {
    "docket/verdict".into()
}

/// Where the trace context of a decision is taken from.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Trace {
    /// Sources in order of precedence. The first context found becomes the parent; contexts of other traces become links. Default: [decision, request_context, input].
    #[schemars(length(min = 1))]
    pub order: Option<Vec<TraceSource>>,
    /// JSON pointers, within the input, to objects that hold HTTP headers. Default: [/attributes/request/http/headers, /request/http/headers, /request/headers, /http/headers, /headers].
    pub input_headers: Option<Vec<JsonPointer>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TraceSource {
    /// trace_id and span_id of the decision, which are OPA's own span.
    Decision,
    /// HTTP headers in request_context.http.headers of the decision.
    RequestContext,
    /// HTTP headers within the input, found by input_headers.
    Input,
    /// Headers of the Kafka record.
    Record,
}

/// How the service and the OPA instance of a decision are identified.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceSection {
    /// OPA label that holds the name of the service. Default: app.
    pub name_label: String,
    /// OPA label that identifies the OPA instance. Default: id.
    pub instance_label: String,
}

impl Default for ServiceSection {
    fn default() -> ServiceSection {
        ServiceSection { name_label: "app".into(), instance_label: "id".into() }
    }
}

/// Who asked for what. Each setting is a list of JSON pointers into the decision, below /input, /labels, /request_context, /result or /requested_by; the first that leads to a string, a number or a list of these is used. By default, the customary places of OPA's callers, Envoy and Kubernetes are searched.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RequestSection {
    /// JSON pointers to who asked; stored as docket.subject.
    pub subject: Option<Vec<JsonPointer>>,
    /// JSON pointers to the requested action; stored as docket.action.
    pub action: Option<Vec<JsonPointer>>,
    /// JSON pointers to the requested resource; stored as docket.resource, without what follows a question mark.
    pub resource: Option<Vec<JsonPointer>>,
    /// JSON pointers to the tenant on whose behalf; stored as docket.tenant.
    pub tenant: Option<Vec<JsonPointer>>,
}

impl VerdictRule {
    /// What the schema can't say. `problem` is told what is wrong, and where.
    fn check(&self, problem: &mut dyn FnMut(&str, String)) {
        if let Some(both) = self.allow.iter().find(|value| self.deny.contains(value)) {
            problem("deny", format!("{both} means allow and deny"));
        }
    }

    fn compile(&self) -> verdict::Rule {
        verdict::Rule {
            path: self.path.value(),
            pointer: self.pointer.value(),
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            reasons: self.reasons.as_ref().map(JsonPointer::value),
        }
    }
}

impl Trace {
    fn compile(&self) -> trace::Rules {
        let mut rules = trace::Rules::default();
        if let Some(order) = &self.order {
            rules.order = order.iter().map(|source| source.carrier()).collect();
        }
        if let Some(pointers) = &self.input_headers {
            rules.input_headers = pointers.iter().map(JsonPointer::value).collect();
        }
        rules
    }
}

impl TraceSource {
    fn carrier(self) -> trace::Carrier {
        match self {
            TraceSource::Decision => trace::Carrier::Decision,
            TraceSource::RequestContext => trace::Carrier::RequestContext,
            TraceSource::Input => trace::Carrier::Input,
            TraceSource::Record => trace::Carrier::Record,
        }
    }
}

impl RequestSection {
    /// What the schema can't say. `problem` is told what is wrong, and where.
    fn check(&self, problem: &mut dyn FnMut(&[&str], String)) {
        for (key, given) in request::NAMES.into_iter().zip(self.all()) {
            for (i, pointer) in given.iter().flatten().enumerate() {
                let first = pointer.names().first();
                if !first.is_some_and(|name| request::PARTS.contains(&name.as_str())) {
                    let parts = request::PARTS.join(", /");
                    problem(&[key, &i.to_string()], format!("it must begin with one of /{parts}"));
                }
            }
        }
    }

    fn compile(&self) -> request::Rules {
        let pointers = |given: &Option<Vec<JsonPointer>>| {
            given.as_ref().map(|all| all.iter().map(JsonPointer::value).collect())
        };
        request::Rules::new(self.all().map(pointers))
    }

    /// In the order of `request::NAMES`.
    fn all(&self) -> [&Option<Vec<JsonPointer>>; 4] {
        [&self.subject, &self.action, &self.resource, &self.tenant]
    }
}

/// What is wrong with what a file says of decisions. `problem` is told what, and where.
pub fn check(file: &File, problem: &mut dyn FnMut(&[&str], String)) {
    for (i, rule) in file.verdict.iter().enumerate() {
        rule.check(&mut |key, message| problem(&["verdict", &i.to_string(), key], message));
    }
    file.request.check(&mut |path, message| problem(&[&["request"], path].concat(), message));
}

/// How a file's decisions become docket records.
pub fn compile(file: &File, policy: Option<Arc<rego::Rule>>) -> record::Rules {
    record::Rules {
        request: file.request.compile(),
        verdict: verdict::Rules {
            policy,
            rules: file.verdict.iter().map(VerdictRule::compile).collect(),
        },
        trace: file.trace.compile(),
        service: Service {
            name_label: file.service.name_label.clone(),
            instance_label: file.service.instance_label.clone(),
        },
    }
}
