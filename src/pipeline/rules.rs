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
        let limits = Limits::default();
        LimitsSection { decision_bytes: Bytes(limits.decision), record_bytes: Bytes(limits.record) }
    }
}

/// What the results of some policies mean.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerdictRule {
    /// Policies, as a glob on the decision's path: `*` within a part, `**` across parts.
    pub path: Glob,
    /// JSON pointer (RFC 6901) to the answer in the result; the whole result unless set.
    #[serde(default = "whole")]
    pub pointer: JsonPointer,
    /// Values that mean allow.
    #[serde(default = "just_true")]
    pub allow: Vec<Value>,
    /// Values that mean deny. A value in neither list is undefined.
    #[serde(default = "just_false")]
    pub deny: Vec<Value>,
    /// JSON pointer to the reasons in the result; the usual places unless set.
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
    pub loaded: Vec<SourceFile>,
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
    pub input_headers: Option<Vec<JsonPointer>>,
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
    pub subject: Option<Vec<JsonPointer>>,
    /// To do what; docket.action.
    pub action: Option<Vec<JsonPointer>>,
    /// With what; docket.resource. What follows a question mark is left out.
    pub resource: Option<Vec<JsonPointer>>,
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
            path: (*self.path).clone(),
            pointer: (*self.pointer).clone(),
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            reasons: self.reasons.as_ref().map(|pointer| (**pointer).clone()),
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
            rules.input_headers = pointers.iter().map(|pointer| (**pointer).clone()).collect();
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
        for (key, given) in
            [("subject", &self.subject), ("action", &self.action), ("resource", &self.resource)]
        {
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
            given.as_ref().map(|all| all.iter().map(|pointer| (**pointer).clone()).collect())
        };
        request::Rules::new([
            pointers(&self.subject),
            pointers(&self.action),
            pointers(&self.resource),
        ])
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
