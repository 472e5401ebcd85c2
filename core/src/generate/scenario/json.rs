//! A made-up decision as OPA writes it.

use serde_json::{Value, json};

use super::platform::{SERVICES, uuid};
use super::{Day, Made};
use crate::decision::time;
use crate::decision::verdict::Verdict;

impl Day {
    /// A decision as OPA writes it.
    pub fn json(&self, made: &Made) -> Value {
        let of = &SERVICES[made.service];
        let deny = made.verdict == Verdict::Deny;
        let path: Vec<&str> = made.resource.trim_start_matches('/').split('/').collect();
        let input = match of.policy {
            "envoy/authz/allow" => json!({ "attributes": {
                "request": { "http": { "method": made.action, "path": made.resource, "headers": {} } },
                "source": { "principal": made.subject },
            } }),
            "kubernetes/admission/deny" => {
                json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
                "operation": made.action, "resource": { "group": "", "version": "v1", "resource": made.resource },
                "userInfo": { "username": made.subject },
            } })
            }
            _ => json!({ "user": made.subject, "method": made.action, "path": path }),
        };
        let mut decision = json!({
            "labels": { "app": of.name, "id": self.opa(made.service, made.opa), "version": "1.22.2" },
            "decision_id": uuid(made.id),
            "trace_id": format!("{:032x}", made.trace), "span_id": format!("{:016x}", (made.trace as u64) | 1),
            "bundles": { "authz": { "revision": self.revision(made.revision) } },
            "path": made.policy(),
            "input": input,
            "requested_by": "10.1.2.3:41000",
            "timestamp": time::format(made.at),
            "metrics": { "timer_rego_query_eval_ns": 60_000 + (made.id as u64 % 90_000), "timer_server_handler_ns": 110_000 + (made.id as u64 % 190_000) },
        });
        if matches!(made.verdict, Verdict::Allow | Verdict::Deny) {
            decision["result"] = match of.policy {
                "http/authz/decision" => {
                    json!({ "allow": !deny, "reason": if deny { "no rule matched" } else { "owner" } })
                }
                "kubernetes/admission/deny" if deny => json!(["not allowed here"]),
                "kubernetes/admission/deny" => json!([]),
                _ => (!deny).into(),
            };
        }
        decision
    }
}
