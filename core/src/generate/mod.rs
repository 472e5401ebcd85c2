//! Made-up decisions, as OPA writes them: for load, for the demo and for benches. One seed, one stream.
//! `scenario` makes up days whose events are known, `quality` measures how well they are detected.

pub mod quality;
pub mod scenario;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::decision::ids::hex;
use crate::decision::time;

/// How a record on the topic is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// One JSON object per record.
    Json,
    /// A JSON array of ten decisions, gzipped, as OPA uploads them.
    Upload,
    /// A line of OPA's console log.
    Console,
    /// A console line inside Fluent Bit's envelope.
    FluentBit,
    /// A console line behind a CRI prefix.
    Cri,
    /// All of these in turn.
    Mixed,
}

/// So many decisions an upload holds.
pub const UPLOAD: u64 = 10;

/// What is generated.
#[derive(Debug, Clone)]
pub struct Mix {
    pub seed: u64,
    /// The part of decisions that are denials, 0 to 1.
    pub deny: f64,
    /// The part that is undefined, and the part that is an error.
    pub undefined: f64,
    pub error: f64,
    /// The part that carries a trace context.
    pub traced: f64,
    /// Bytes of padding in each input.
    pub padding: usize,
}

impl Default for Mix {
    fn default() -> Mix {
        Mix { seed: 7, deny: 0.08, undefined: 0.01, error: 0.002, traced: 0.95, padding: 0 }
    }
}

pub struct Generator {
    rng: StdRng,
    pub mix: Mix,
    opas: Vec<(&'static str, String)>,
    revision: String,
    /// A burst of denials for one service, as after a bad rollout.
    pub spike: bool,
    sequence: u64,
    records: usize,
}

const SERVICES: [&str; 6] = ["orders", "ledger", "search", "profile", "storefront", "admission"];
const POLICIES: [&str; 4] =
    ["http/authz/decision", "app/rbac/allow", "envoy/authz/allow", "kubernetes/admission/deny"];
/// The service and policy of a spike.
pub const SPIKE: (&str, &str) = ("ledger", "http/authz/decision");

/// The bundle that was rolled out, and brought it.
const BAD_REVISION: &str = "bad4f1c2a09e37d5b681";

impl Generator {
    pub fn new(mix: Mix) -> Generator {
        let mut rng = StdRng::seed_from_u64(mix.seed);
        let opas = SERVICES.iter().flat_map(|s| [*s, *s]).map(|s| (s, uuid(&mut rng))).collect();
        let revision = random_hex(&mut rng, 20);
        Generator { rng, mix, opas, revision, spike: false, sequence: 0, records: 0 }
    }

    /// The next record of a topic: its bytes, and how many decisions are in it.
    pub fn record(&mut self, shape: Shape, now: time::Nanos) -> (Vec<u8>, u64) {
        self.records += 1;
        let shape = match shape {
            Shape::Mixed => {
                [Shape::Json, Shape::Console, Shape::FluentBit, Shape::Cri, Shape::Upload]
                    [self.records % 5]
            }
            other => other,
        };
        match shape {
            Shape::Json | Shape::Mixed => (self.decision(now).to_string().into_bytes(), 1),
            Shape::Upload => (self.upload(now, UPLOAD), UPLOAD),
            Shape::Console => (self.console(now).into_bytes(), 1),
            Shape::FluentBit => {
                let line = self.console(now) + "\n";
                let pod = json!({ "pod_name": "opa-0", "namespace_name": "policy", "container_name": "opa" });
                (json!({ "log": line, "stream": "stdout", "time": time::format(now), "kubernetes": pod }).to_string().into_bytes(), 1)
            }
            Shape::Cri => {
                (format!("{} stdout F {}", time::format(now), self.console(now)).into_bytes(), 1)
            }
        }
    }

    /// An upload of so many decisions.
    pub fn upload(&mut self, now: time::Nanos, decisions: u64) -> Vec<u8> {
        let chunk: Vec<Value> = (0..decisions).map(|_| self.decision(now)).collect();
        crate::gzip::gzip(Value::from(chunk).to_string().as_bytes())
    }

    fn console(&mut self, now: time::Nanos) -> String {
        let mut decision = self.decision(now);
        if let Value::Object(members) = &mut decision {
            for (name, value) in [
                ("level", "info"),
                ("msg", "Decision Log"),
                ("type", "openpolicyagent.org/decision_logs"),
            ] {
                members.insert(name.into(), value.into());
            }
            members.insert("time".into(), time::format(now).into());
        }
        decision.to_string()
    }

    /// One decision of now.
    pub fn decision(&mut self, now: time::Nanos) -> Value {
        self.sequence += 1;
        let spiking = self.spike && self.rng.random_bool(0.5);
        let at = self.rng.random_range(0..self.opas.len());
        let (service, instance) = match spiking {
            true => self
                .opas
                .iter()
                .find(|(s, _)| *s == SPIKE.0)
                .cloned()
                .unwrap_or_else(|| self.opas[at].clone()),
            false => self.opas[at].clone(),
        };
        let policy =
            if spiking { SPIKE.1 } else { POLICIES[self.rng.random_range(0..POLICIES.len())] };
        let deny = self.rng.random_bool(if spiking { 0.9 } else { self.mix.deny.clamp(0.0, 1.0) });
        let user = format!("user-{:04}", (self.rng.random::<f64>().powi(3) * 2000.0) as u32);
        let handler =
            (100_000.0 * (1.0 / (self.rng.random::<f64>() + 0.02)).sqrt()) as u64 + 30_000;
        let mut decision = json!({
            "labels": { "app": service, "id": instance, "region": "eu-west-1", "version": "1.22.2" },
            "decision_id": uuid(&mut self.rng),
            "bundles": { "authz": { "revision": if spiking { BAD_REVISION } else { &self.revision } } },
            "path": policy,
        });
        decision["input"] = self.input(policy, service, &user);
        let kind = self.rng.random::<f64>();
        if kind < self.mix.error {
            decision["error"] = json!({ "code": "internal_error", "message": "eval_conflict_error: complete rules must not produce multiple outputs" });
        } else if kind >= self.mix.error + self.mix.undefined {
            decision["result"] = match policy {
                "http/authz/decision" if deny => {
                    json!({ "allow": false, "reason": if spiking { "frozen account" } else { "no rule matched" } })
                }
                "http/authz/decision" => json!({ "allow": true, "reason": "owner" }),
                "kubernetes/admission/deny" if deny => {
                    json!(["image \"docker.io/nginx:latest\" comes from an untrusted registry"])
                }
                "kubernetes/admission/deny" => json!([]),
                _ => (!deny).into(),
            };
        }
        self.trace(&mut decision);
        decision["requested_by"] = format!(
            "10.1.{}.{}:{}",
            self.rng.random_range(0..255),
            self.rng.random_range(0..255),
            self.rng.random_range(30_000..60_000)
        )
        .into();
        decision["timestamp"] = time::format(now).into();
        decision["metrics"] = json!({
            "counter_server_query_cache_hit": 1, "timer_rego_input_parse_ns": handler / 8,
            "timer_rego_query_eval_ns": handler / 2, "timer_server_handler_ns": handler,
        });
        decision["req_id"] = self.sequence.into();
        decision
    }

    fn input(&mut self, policy: &str, service: &str, user: &str) -> Value {
        let method = ["GET", "POST", "PUT", "DELETE"][self.rng.random_range(0..4)];
        let item = self.rng.random_range(0..10_000).to_string();
        let mut input = match policy {
            "envoy/authz/allow" => json!({
                "attributes": {
                    "request": { "http": { "method": method, "path": format!("/v1/{service}/items/{item}"), "host": format!("{service}.example"), "headers": { "x-request-id": uuid(&mut self.rng), "user-agent": "curl/8.5" } } },
                    "source": { "address": { "socketAddress": { "address": "10.0.3.173", "portValue": 41000 } } },
                },
                "parsed_path": ["v1", service, "items", item],
            }),
            "kubernetes/admission/deny" => json!({
                "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                "request": { "kind": { "group": "", "kind": "Pod", "version": "v1" }, "namespace": "shop", "operation": "CREATE", "userInfo": { "username": user, "groups": ["dev"] },
                    "object": { "metadata": { "name": format!("web-{item}") }, "spec": { "containers": [{ "image": "docker.io/nginx:latest", "name": "web" }] } } },
            }),
            _ => {
                json!({ "method": method, "path": ["v1", service, "items", item], "user": user, "roles": ["reader"], "tenant": format!("t-{:03}", self.rng.random_range(0..200)) })
            }
        };
        if self.mix.padding > 0 {
            input["padding"] = random_hex(&mut self.rng, self.mix.padding / 2).into();
        }
        input
    }

    /// A trace context where OPA would have it: its own ids, the caller's header it copied, or the input's headers.
    fn trace(&mut self, decision: &mut Value) {
        if !self.rng.random_bool(self.mix.traced.clamp(0.0, 1.0)) {
            return;
        }
        let (trace, span) = (random_hex(&mut self.rng, 16), random_hex(&mut self.rng, 8));
        let traceparent = format!("00-{trace}-{span}-01");
        if let Some(headers) = decision.pointer_mut("/input/attributes/request/http/headers") {
            headers["traceparent"] = traceparent.into();
        } else if self.rng.random_bool(0.8) {
            decision["trace_id"] = trace.into();
            decision["span_id"] = span.into();
        } else {
            decision["request_context"] =
                json!({ "http": { "headers": { "traceparent": [traceparent] } } });
        }
    }
}

fn random_hex(rng: &mut StdRng, bytes: usize) -> String {
    hex(&(0..bytes).map(|_| rng.random::<u8>()).collect::<Vec<u8>>())
}

fn uuid(rng: &mut StdRng) -> String {
    uuid::Builder::from_random_bytes(rng.random()).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::formats::{self, Format, Limits, Piece};

    #[test]
    fn one_seed_is_one_stream_of_decisions_in_every_shape() {
        let stream = || {
            let mut generator = Generator::new(Mix::default());
            (0..100).map(|i| generator.record(Shape::Mixed, i)).collect::<Vec<_>>()
        };
        assert_eq!(stream(), stream());
        let (mut promised, mut found) = (0, 0);
        for (record, decisions) in stream() {
            promised += decisions;
            formats::split(&record, Format::Auto, &Limits::default(), &mut |piece| match piece {
                Piece::Decision { .. } => found += 1,
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(promised, found);
    }
}
