//! What a message about findings says. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::decision::time::{self, Nanos};
use crate::spike::{Finding, Kind};

/// `ends` is when those that go on are over unless they are said again. The body of Alertmanager's `POST /api/v2/alerts`. Labels tell alerts apart, so they hold nothing that changes while one
/// goes on.
pub fn alerts(
    pipeline: &str,
    labels: &BTreeMap<String, String>,
    findings: &[Finding],
    ends: Nanos,
) -> Value {
    let alert = |finding: &Finding| {
        let mut all = json!({ "alertname": name(finding.kind), "pipeline": pipeline, "kind": finding.kind.as_str(), "severity": severity(finding.kind) });
        let (_, service, policy, instance) = finding.key();
        for (name, value) in [("service", service), ("policy", policy), ("opa", instance)] {
            if !value.is_empty() {
                all[name] = value.into();
            }
        }
        // Alertmanager groups by it, if it is told to.
        if let Some(cause) = finding.cause() {
            all["cause"] = cause.into();
        }
        for (name, value) in labels {
            all[name.as_str()] = value.clone().into();
        }
        let ends = finding.ended.unwrap_or(ends);
        json!({
            "labels": all,
            "annotations": {
                "summary": finding.sentence(),
                "causes": causes(finding),
                "traces": finding.examples.iter().map(|e| e.trace_id.as_str()).collect::<Vec<_>>().join(" "),
                "decisions": finding.examples.iter().map(|e| e.decision_id.as_str()).collect::<Vec<_>>().join(" "),
                "finding": finding.id,
            },
            "startsAt": time::format(finding.onset),
            "endsAt": time::format(ends),
        })
    };
    findings.iter().map(alert).collect()
}

fn name(kind: Kind) -> String {
    kind.as_str()
        .split('_')
        .fold("Docket".to_owned(), |name, word| name + &word[..1].to_uppercase() + &word[1..])
}

fn severity(kind: Kind) -> &'static str {
    match kind {
        Kind::RevisionShift
        | Kind::InstanceQuiet
        | Kind::Unwatched
        | Kind::DecisionIdReused
        | Kind::DecisionWithoutRequest
        | Kind::AllowedButRefused => "warning",
        _ => "critical",
    }
}

fn causes(finding: &Finding) -> String {
    let cause = |c: &crate::spike::Cause| {
        format!(
            "{} {} ({:.0} %, before {:.0} %)",
            c.dimension.as_str(),
            c.value,
            100.0 * c.share,
            100.0 * c.before
        )
    };
    finding.causes.iter().map(cause).collect::<Vec<_>>().join("; ")
}

pub fn document(
    pipeline: &str,
    findings: &[Finding],
    is_active: impl Fn(&Finding) -> bool,
) -> Value {
    let one = |finding: &Finding| {
        let mut one = json!(finding);
        one["state"] = state(finding).into();
        one["active"] = is_active(finding).into();
        one["sentence"] = finding.sentence().into();
        if let Some(cause) = finding.cause() {
            one["cause"] = cause.into();
        }
        one
    };
    json!({ "version": 1, "pipeline": pipeline, "findings": findings.iter().map(one).collect::<Vec<_>>() })
}

fn state(finding: &Finding) -> &'static str {
    if finding.ended.is_some() { "ended" } else { "firing" }
}

/// Of more findings with one cause so many are named.
const NAMED: usize = 10;

/// Slack's text: a line for each finding, and one for all that have one cause.
pub fn lines(template: &str, findings: &[Finding]) -> String {
    let mut groups: Vec<Vec<&Finding>> = Vec::new();
    for finding in findings {
        let is_one = |other: &Finding| {
            state(other) == state(finding)
                && other.cause().is_some()
                && other.cause() == finding.cause()
        };
        match groups.iter_mut().find(|group| is_one(group[0])) {
            Some(group) => group.push(finding),
            None => groups.push(vec![finding]),
        }
    }
    let told = |group: &Vec<&Finding>| {
        let (first, others) = (group[0], &group[1..]);
        let mut text = line(template, first);
        if !others.is_empty() {
            let cause = escaped(&first.cause().unwrap_or_default());
            let named = others.iter().take(NAMED);
            let named: Vec<String> =
                named.map(|f| escaped(&format!("{} of {}", f.policy, f.service))).collect();
            let rest = if others.len() > NAMED { ", ..." } else { "" };
            let findings = crate::words::counted(others.len() as u64, "more finding");
            text.push_str(&format!("; {findings} by {cause}: {}{rest}", named.join(", ")));
        }
        text
    };
    groups.iter().map(told).collect::<Vec<_>>().join("\n")
}

/// What users sent can't mention anyone or make a link: &, < and > are escaped, as Slack says.
fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace(char::is_control, " ")
}

/// A line of Slack's text.
fn line(template: &str, finding: &Finding) -> String {
    let example = finding.examples.first();
    let cause = finding
        .causes
        .first()
        .map(|c| format!("{} {}", c.dimension.as_str(), c.value))
        .unwrap_or_default();
    let values = [
        ("sentence", finding.sentence()),
        ("state", state(finding).to_owned()),
        ("kind", finding.kind.as_str().to_owned()),
        ("service", finding.service.clone()),
        ("policy", finding.policy.clone()),
        ("cause", cause),
        ("trace_id", example.map(|e| e.trace_id.clone()).unwrap_or_default()),
        ("decision_id", example.map(|e| e.decision_id.clone()).unwrap_or_default()),
        ("onset", time::format(finding.onset)[..19].to_owned() + "Z"),
    ];
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        match after.split_once('}').and_then(|(name, after)| {
            values.iter().find(|(n, _)| *n == name).map(|(_, value)| (value, after))
        }) {
            Some((value, after)) => {
                out.push_str(&escaped(value));
                rest = after;
            }
            None => {
                out.push('{');
                rest = after;
            }
        }
    }
    out + rest
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::spike::{Cause, Dimension, Example};

    pub fn finding() -> Finding {
        Finding {
            id: "0011223344556677".into(),
            kind: Kind::DenialSpike,
            service: "orders".into(),
            policy: "http/authz/decision".into(),
            onset: 1_795_524_530_000_000_000,
            detected: 1_795_524_550_000_000_000,
            ended: Some(1_795_524_990_000_000_000),
            observed: 90,
            expected: 4.2,
            decisions: 120,
            score: 180.0,
            causes: vec![Cause {
                dimension: Dimension::Subject,
                value: "<!channel>".into(),
                share: 0.97,
                before: 0.0,
            }],
            examples: vec![Example {
                trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
                decision_id: "d1".into(),
            }],
            detail: String::new(),
        }
    }

    #[test]
    fn what_each_notifier_says() {
        let labels = BTreeMap::from([("team".to_owned(), "platform".to_owned())]);
        insta::assert_snapshot!(
            "alertmanager",
            format!("{:#}", alerts("p", &labels, &[finding()], 0))
        );
        insta::assert_snapshot!("webhook", format!("{:#}", document("p", &[finding()], |_| false)));
        insta::assert_snapshot!(line("*{state}* {sentence} {what} {cause", &finding()), @"*ended* denial spike on http/authz/decision of orders: 90 denials of 120 decisions (75 %), 4.2 expected; 97 % by subject &lt;!channel&gt; {what} {cause");
    }

    #[test]
    fn what_has_one_cause_is_one_line_of_slack() {
        let of = |service: &str, value: &str| {
            let mut one = Finding { service: service.into(), ended: None, ..finding() };
            one.causes[0].value = value.into();
            one
        };
        let mut all: Vec<Finding> = (0..13).map(|i| of(&format!("s{i}"), "m<all>ory")).collect();
        all.insert(1, of("t", "somebody"));
        all.push(Finding { ended: Some(0), ..of("u", "m<all>ory") });
        insta::assert_snapshot!(lines("*{state}* {service}", &all), @r"
        *firing* s0; 12 more findings by subject m&lt;all&gt;ory: http/authz/decision of s1, http/authz/decision of s2, http/authz/decision of s3, http/authz/decision of s4, http/authz/decision of s5, http/authz/decision of s6, http/authz/decision of s7, http/authz/decision of s8, http/authz/decision of s9, http/authz/decision of s10, ...
        *firing* t
        *ended* u
        ");
    }
}
