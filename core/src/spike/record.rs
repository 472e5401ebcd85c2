//! A finding as a docket record, so that every sink gets it beside the decisions that it is about; and back.

use serde_json::{Value, json};

use super::{Cause, Finding, Kind};
use crate::decision::record::{self, Record};
use crate::decision::time::{self, Nanos};
use crate::decision::verdict::Verdict;

/// `begins` or `ends`.
pub fn write(finding: &Finding) -> (String, Vec<u8>) {
    let (state, at) = match finding.ended {
        None => ("begins", finding.detected),
        Some(ended) => ("ends", ended),
    };
    let id = format!("finding-{}-{state}", finding.id);
    let mut body = json!(finding);
    body["state"] = state.into();
    body["sentence"] = finding.sentence().into();
    let links = finding.examples.iter().filter(|e| !e.trace_id.is_empty());
    let written = record::finding(record::Found {
        id: &id,
        at,
        body,
        sentence: &finding.sentence(),
        by: "spikes",
        policy: &finding.policy,
        trace: None,
        links: links.map(|e| json!({ "trace_id": e.trace_id })).collect(),
        service: &finding.service,
    });
    (id, written)
}

/// What tells findings of a pipeline apart at one time: kind, service, policy and instance.
pub type Key = (Kind, String, String, String);

impl Finding {
    pub fn key(&self) -> Key {
        let instance = match self.kind {
            Kind::InstanceQuiet => self.causes.first().map(|c| c.value.clone()).unwrap_or_default(),
            _ => String::new(),
        };
        (self.kind, self.service.clone(), self.policy.clone(), instance)
    }
}

/// What was told of a finding before.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub key: Key,
    pub id: String,
    pub onset: Nanos,
    pub causes: Vec<Cause>,
    /// It ended.
    pub over: bool,
}

pub fn told(record: &Record<'_>) -> Option<Told> {
    if record.verdict != Verdict::Finding {
        return None;
    }
    let body: Value = serde_json::from_str(record.get("finding")?).ok()?;
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let kind: Kind = serde_json::from_value(body["kind"].clone()).ok()?;
    let state = body["state"].as_str().filter(|state| matches!(*state, "begins" | "ends"))?;
    let instance = if kind == Kind::InstanceQuiet {
        body["causes"][0]["value"].as_str().unwrap_or_default().to_owned()
    } else {
        String::new()
    };
    Some(Told {
        key: (kind, text("service"), text("policy"), instance),
        id: text("id"),
        onset: time::parse(body["onset"].as_str()?)?,
        // What another version wrote may name causes that this one doesn't know.
        causes: serde_json::from_value(body["causes"].clone()).unwrap_or_default(),
        over: state == "ends",
    })
}

/// A finding that a part of docket came upon, of a record that says that it begins.
pub fn event(record: &Record<'_>, written: Nanos) -> Option<Finding> {
    if record.verdict != Verdict::Finding {
        return None;
    }
    let body = record.get("finding")?;
    let finding: Finding = match serde_json::from_str(body) {
        Ok(finding) => finding,
        Err(_) => of_enforcement(record, body, written)?,
    };
    (finding.kind.is_event() && finding.ended.is_none()).then_some(finding)
}

/// What the join writes of one request; it was found when it was written, since it waits for its evidence.
fn of_enforcement(record: &Record<'_>, body: &str, written: Nanos) -> Option<Finding> {
    let body: Value = serde_json::from_str(body).ok()?;
    let kind: Kind = serde_json::from_value(body["kind"].clone()).ok()?;
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let traced = record.trace_from != "none";
    let trace_id = if traced { record.trace_id.to_string() } else { String::new() };
    let example = super::Example { trace_id, decision_id: text("decision_id") };
    kind.is_enforcement().then(|| Finding {
        id: text("id"),
        onset: record.timestamp,
        detected: written,
        observed: 1,
        examples: vec![example],
        detail: text("sentence"),
        ..Finding::new(kind, &record.service, &record.policy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spike::{Dimension, Example};

    #[test]
    fn a_finding_is_a_docket_record_and_read_back() {
        let mut finding = Finding {
            id: "0011223344556677".into(),
            kind: Kind::InstanceQuiet,
            service: "orders".into(),
            policy: String::new(),
            onset: 1_795_524_530_000_000_000,
            detected: 1_795_524_550_000_000_000,
            ended: None,
            observed: 0,
            expected: 40.0,
            decisions: 0,
            score: 31.5,
            causes: vec![Cause {
                dimension: Dimension::Instance,
                value: "opa-\"1".into(),
                share: 1.0,
                before: 0.0,
            }],
            examples: vec![Example {
                trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
                decision_id: "d".into(),
            }],
            detail: String::new(),
        };
        for ended in [None, Some(1_795_524_990_000_000_000)] {
            finding.ended = ended;
            let (id, bytes) = write(&finding);
            crate::decision::json::check(&bytes).unwrap();
            let record = Record::parse(&bytes).unwrap();
            assert_eq!(
                (&*record.decision_id, record.verdict, &*record.service),
                (id.as_str(), Verdict::Finding, "orders")
            );
            assert!(event(&record, 0).is_none());
            let again = Told {
                key: finding.key(),
                id: finding.id.clone(),
                onset: finding.onset,
                causes: finding.causes.clone(),
                over: ended.is_some(),
            };
            assert_eq!(told(&record), Some(again));
        }
    }
    #[test]
    fn what_a_part_came_upon_is_read_back_whole() {
        let finding = Finding {
            id: "0011223344556677".into(),
            onset: 1_795_524_530_000_000_000,
            detected: 1_795_524_530_000_000_000,
            detail: "another decision under d1".into(),
            ..Finding::new(Kind::DecisionIdReused, "orders", "")
        };
        let (_, bytes) = write(&finding);
        let record = Record::parse(&bytes).unwrap();
        assert_eq!(event(&record, 0), Some(finding.clone()));
        assert_eq!(finding.sentence(), "decision id reused on orders: another decision under d1");
        let over = Finding { ended: Some(finding.onset), ..finding };
        assert_eq!(
            over.sentence(),
            "decision id reused on orders: no more of it came for ten minutes, so it is told as over; it began with this: another decision under d1"
        );
        // Whoever takes over knows only that it was told.
        let heard = Finding { detail: String::new(), ..over.clone() };
        assert!(
            heard
                .sentence()
                .ends_with(": no more of it came for ten minutes, so it is told as over"),
            "{heard:?}"
        );
        let spike = Finding { kind: Kind::DenialSpike, ..heard };
        assert_eq!(
            spike.sentence(),
            "denial spike on orders: it is over; how much it was is said where it began"
        );
        assert_eq!(event(&Record::parse(&write(&over).1).unwrap(), 0), None);
    }

    #[test]
    fn what_enforcement_did_wrong_is_told_of_its_first_request() {
        use crate::correlate;
        let found = correlate::Finding {
            kind: correlate::FindingKind::DeniedButServed,
            at: 1_795_524_530_000_000_000,
            decision_id: "d-1".into(),
            policy: "envoy/authz/allow".into(),
            service: "orders".into(),
            path: "/cart".into(),
            method: "GET".into(),
            status: crate::facts::Status { http: Some(200), grpc: None },
            request_id: "r-1".into(),
            trace: None,
            by: String::new(),
        };
        for kind in correlate::FindingKind::ALL {
            let (id, bytes) = correlate::Finding { kind, ..found.clone() }.record();
            let record = Record::parse(&bytes).unwrap();
            let written = found.at + 150_000_000_000;
            let told = event(&record, written).unwrap();
            assert_eq!((told.kind.as_str(), told.detected), (kind.as_str(), written));
            assert_eq!(format!("finding-{}", told.id), id);
            assert_eq!(
                told.examples,
                [Example { trace_id: String::new(), decision_id: "d-1".into() }]
            );
        }
        let told = event(&Record::parse(&found.record().1).unwrap(), found.at).unwrap();
        assert_eq!(
            told.sentence(),
            "denied but served on envoy/authz/allow of orders: envoy/authz/allow denied GET /cart of orders, and it was served with 200"
        );
        let several = Finding { observed: 12, ..told };
        assert!(several.sentence().ends_with("served with 200; 12 in all"), "{several:?}");
    }
}
