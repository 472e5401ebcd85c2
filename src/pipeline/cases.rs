//! A pipeline file's own test cases: a record in, what is expected out, and a readable difference.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Pipeline;
use super::file::{Case, Expect};
use crate::decision::formats::Format;
use crate::decision::record::Record;
use crate::sink::config::SinkConfig;
use crate::sink::loki::config::LokiConfig;
use crate::sink::{elasticsearch, loki};
use crate::transform::{Product, Source, transform};

/// What became of a case's record.
#[derive(Debug, Default)]
struct Actual {
    records: Vec<Vec<u8>>,
    rejected: Vec<String>,
    ignored: usize,
}

/// Runs one case; the difference, if it fails.
pub fn run(pipeline: &Pipeline, case: &Case) -> Result<(), String> {
    let bytes = match &case.record {
        Value::String(text) => text.clone().into_bytes(),
        other => other.to_string().into_bytes(),
    };
    let headers: Vec<(&str, &[u8])> =
        case.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let mut actual = Actual::default();
    let first = pipeline.file.sources.first();
    let format = first.map_or(Format::Auto, |source| source.format);
    let envelope = first.and_then(|source| source.envelope.as_deref());
    let source = Source { value: &bytes, headers: &headers, format, envelope };
    let whole = transform(
        source,
        &pipeline.limits,
        &pipeline.rules,
        &mut Vec::new(),
        &|_| None,
        &mut |_, product| match product {
            Product::Ignored(_) | Product::Dropped => actual.ignored += 1,
            Product::Docket { bytes, .. } => actual.records.push(bytes.to_vec()),
            Product::Reject { reject, .. } => {
                actual.rejected.push(reject.reason.as_str().to_owned());
            }
        },
    );
    if let Some(reject) = whole {
        actual = Actual { rejected: vec![reject.reason.as_str().to_owned()], ..Actual::default() };
    }
    compare(&expected(&case.expect), &seen(pipeline, &case.expect, &actual))
}

/// The expectation as JSON; only what is named.
fn expected(expect: &Expect) -> Value {
    let mut out = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            out.insert(name.to_owned(), value);
        }
    };
    put("verdict", expect.verdict.clone().map(Value::from));
    put("reasons", expect.reasons.clone().map(Value::from));
    put("policy", expect.policy.clone().map(Value::from));
    put("service", expect.service.clone().map(Value::from));
    put("trace_id", expect.trace_id.clone().map(Value::from));
    put("parent_span_id", expect.parent_span_id.clone().map(Value::from));
    put("trace_from", expect.trace_from.clone().map(Value::from));
    put("record", expect.record.as_ref().map(|m| json!(m)));
    put("labels", expect.labels.as_ref().map(|m| json!(m)));
    put("document", expect.document.as_ref().map(|m| json!(m)));
    put("rejected", expect.rejected.clone().map(Value::from));
    put("ignored", expect.ignored.map(Value::from));
    put("decisions", expect.decisions.map(Value::from));
    Value::Object(out)
}

/// What was seen of what is expected, in the same shape.
fn seen(pipeline: &Pipeline, expect: &Expect, actual: &Actual) -> Value {
    let mut out = Map::new();
    let record = actual.records.first().and_then(|bytes| Record::parse(bytes).ok());
    let whole: Value = actual
        .records
        .first()
        .and_then(|bytes| serde_json::from_slice(bytes).ok())
        .unwrap_or(Value::Null);
    let docket = &whole["docket"];
    let mut put = |name: &str, wanted: bool, value: Value| {
        if wanted {
            out.insert(name.to_owned(), value);
        }
    };
    put("verdict", expect.verdict.is_some(), docket["verdict"].clone());
    put("reasons", expect.reasons.is_some(), docket["reasons"].clone());
    put("policy", expect.policy.is_some(), docket["policy"].clone());
    put("service", expect.service.is_some(), docket["service"]["name"].clone());
    put("trace_id", expect.trace_id.is_some(), docket["trace_id"].clone());
    put("parent_span_id", expect.parent_span_id.is_some(), docket["parent_span_id"].clone());
    put("trace_from", expect.trace_from.is_some(), docket["trace_from"].clone());
    if let Some(members) = &expect.record {
        put("record", true, only(&whole, &json!(members)));
    }
    if let Some(record) = &record {
        put("labels", expect.labels.is_some(), labels(pipeline, record));
        if let Some(members) = &expect.document {
            let mut document = Vec::new();
            elasticsearch::document(record, &mut document);
            let document: Value = serde_json::from_slice(&document).unwrap_or(Value::Null);
            put("document", true, only(&document, &json!(members)));
        }
    }
    put(
        "rejected",
        expect.rejected.is_some() || !actual.rejected.is_empty(),
        actual.rejected.first().cloned().into(),
    );
    put(
        "ignored",
        expect.ignored.is_some(),
        (actual.ignored > 0 && actual.records.is_empty()).into(),
    );
    put("decisions", expect.decisions.is_some(), actual.records.len().into());
    Value::Object(out)
}

/// The labels of the first Loki sink, or of a Loki sink without settings.
fn labels(pipeline: &Pipeline, record: &Record<'_>) -> Value {
    let config = pipeline.file.sinks.values().find_map(|sink| match sink {
        SinkConfig::Loki(config) => Some(config.clone()),
        _ => None,
    });
    let default =
        || serde_json::from_value::<LokiConfig>(json!({ "url": "http://127.0.0.1" })).ok();
    let Some(config) = config.or_else(default) else { return Value::Null };
    let encoder = loki::Encoder::new(&config);
    let labels: BTreeMap<&str, String> = encoder.labels(record).into_iter().collect();
    json!(labels)
}

/// The part of `value` that `pattern` names, at every depth.
fn only(value: &Value, pattern: &Value) -> Value {
    match (value, pattern) {
        (Value::Object(value), Value::Object(pattern)) => Value::Object(
            pattern
                .iter()
                .map(|(key, inner)| {
                    (key.clone(), value.get(key).map_or(Value::Null, |v| only(v, inner)))
                })
                .collect(),
        ),
        (value, _) => value.clone(),
    }
}

fn compare(expected: &Value, actual: &Value) -> Result<(), String> {
    if expected == actual {
        return Ok(());
    }
    let mut out = String::from("  (- expected, + actual)\n");
    differences("", expected, actual, &mut out);
    Err(out)
}

/// Each member that differs, at every depth, by the names that lead to it.
fn differences(at: &str, expected: &Value, actual: &Value, out: &mut String) {
    if expected == actual {
        return;
    }
    let below = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
    match (expected, actual) {
        (Value::Object(wanted), Value::Object(got)) => {
            let more = got.keys().filter(|name| !wanted.contains_key(*name));
            for name in wanted.keys().chain(more) {
                let of = |all: &Map<String, Value>| all.get(name).cloned().unwrap_or_default();
                differences(&below(name), &of(wanted), &of(got), out);
            }
        }
        (Value::Array(wanted), Value::Array(got)) if wanted.len() == got.len() => {
            for (i, (wanted, got)) in wanted.iter().zip(got).enumerate() {
                differences(&below(&i.to_string()), wanted, got, out);
            }
        }
        (wanted, got) => {
            out.push_str(&format!("  - {at}: {wanted}\n  + {at}: {got}\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(expect: &str) -> Result<(), String> {
        let text = format!(
            "name: t\nkafka: {{brokers: x}}\nsources: [{{topic: t}}]\ntests:\n  - name: one\n    record: {{decision_id: d, labels: {{app: orders}}, path: a/allow, result: false, timestamp: \"2026-11-24T12:48:50Z\"}}\n    expect: {expect}\n"
        );
        let pipeline = crate::pipeline::parse(
            std::path::Path::new("t.yaml"),
            &text,
            &crate::config::secrets::Real,
        )
        .map_err(|e| e.to_string())?;
        run(&pipeline, &pipeline.file.tests[0])
    }

    #[test]
    fn a_case_compares_what_it_names() {
        case("{verdict: deny, service: orders, trace_from: none, labels: {service: orders, verdict: deny, engine: opa}, document: {event: {outcome: failure}, result: {value: false}}}").unwrap();
        let told = case(
            "{verdict: allow, policy: a/allow, labels: {verdict: allow, service: orders, engine: opa}}",
        );
        insta::assert_snapshot!(told.unwrap_err(), @r#"
        (- expected, + actual)
        - verdict: "allow"
        + verdict: "deny"
        - labels.verdict: "allow"
        + labels.verdict: "deny"
        "#);
    }
}
