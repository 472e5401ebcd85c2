//! Decisions as spans and log records, by the OPA that decided. Pure.

use std::collections::HashMap;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span, Status, status::StatusCode,
};

use crate::correlate::record::Amends;
use crate::decision::record::Record;
use crate::decision::verdict::Verdict;
use crate::decision::{ids, json};

/// The attributes of a decision's span. OpenTelemetry has no convention for authorization yet
/// (semantic-conventions issue 4022), so all names stand here.
pub mod names {
    pub const ID: &str = "policy.decision.id";
    pub const PATH: &str = "policy.path";
    pub const OUTCOME: &str = "policy.decision.outcome";
    pub const REASONS: &str = "policy.decision.reasons";
    pub const TRACE_FROM: &str = "policy.decision.trace_from";
    pub const ENGINE: &str = "policy.engine.name";
    pub const ENGINE_VERSION: &str = "policy.engine.version";
    pub const RULE: &str = "policy.rule";
    pub const LABEL: &str = "policy.rule.label.";
    pub const BUNDLE: &str = "policy.bundle.";
    pub const TIMER: &str = "policy.timer.";
    pub const SUBJECT: &str = "policy.subject";
    pub const ACTION: &str = "policy.action";
    pub const RESOURCE: &str = "policy.resource";
    pub const TENANT: &str = "policy.tenant";
    pub const AMENDMENT: &str = "docket.amendment";
    pub const MATCH: &str = "docket.match.";
    pub const REQUEST: &str = "docket.request.";
    pub const SCOPE: &str = "docket";

    /// What a span or a log record is about.
    pub fn event(verdict: super::Verdict) -> &'static str {
        if verdict == super::Verdict::Finding { "policy.finding" } else { "policy.decision" }
    }
}

/// At most so many events of evaluated rules a span.
const MAX_RULE_EVENTS: usize = 32;

fn text(key: impl Into<String>, value: impl Into<String>) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.into())) }),
        ..Default::default()
    }
}

fn integer(key: impl Into<String>, value: u64) -> KeyValue {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(Value::IntValue(value)) }),
        ..Default::default()
    }
}

fn texts(key: &str, raw: &str) -> KeyValue {
    let values = json::elements(raw)
        .filter_map(json::as_str)
        .map(|s| AnyValue { value: Some(Value::StringValue(s.into_owned())) });
    KeyValue {
        key: key.into(),
        value: Some(AnyValue {
            value: Some(Value::ArrayValue(ArrayValue { values: values.collect() })),
        }),
        ..Default::default()
    }
}

fn attributes(record: &Record<'_>) -> Vec<KeyValue> {
    let mut all = vec![
        text(names::ID, &*record.decision_id),
        text(names::PATH, &*record.policy),
        text(names::OUTCOME, record.verdict.as_str()),
        text(names::ENGINE, &*record.engine),
        text(names::TRACE_FROM, &*record.trace_from),
    ];
    if record.reasons != "[]" {
        all.push(texts(names::REASONS, record.reasons));
    }
    for (name, value) in [
        (names::SUBJECT, &record.subject),
        (names::ACTION, &record.action),
        (names::RESOURCE, &record.resource),
        (names::TENANT, &record.tenant),
    ] {
        if !value.is_empty() {
            all.push(text(name, &**value));
        }
    }
    if let Some(version) = record.label("version") {
        all.push(text(names::ENGINE_VERSION, version));
    }
    for (bundle, revision) in record.revisions() {
        all.push(text(format!("{}{bundle}.revision", names::BUNDLE), revision));
    }
    for metric in record.get("metrics").into_iter().flat_map(json::members) {
        if let (Some(name), Some(value)) =
            (metric.name.strip_prefix("timer_"), json::as_u64(metric.value))
        {
            all.push(integer(format!("{}{name}", names::TIMER), value));
        }
    }
    all
}

/// Start and end of a decision: OPA logs after it evaluated.
fn times(record: &Record<'_>) -> (u64, u64) {
    let end = u64::try_from(record.timestamp).unwrap_or_default();
    (end.saturating_sub(record.duration.unwrap_or_default()), end)
}

/// A decision as a span: a child of the span that asked.
pub fn span(record: &Record<'_>) -> Span {
    let (start, end) = times(record);
    let events =
        record.get("rule_labels").into_iter().flat_map(json::elements).take(MAX_RULE_EVENTS).map(
            |labels| {
                let attributes = json::members(labels).map(|m| {
                    text(
                        format!("{}{}", names::LABEL, m.key()),
                        json::as_str(m.value).unwrap_or(m.value.into()),
                    )
                });
                Event {
                    time_unix_nano: end,
                    name: names::RULE.into(),
                    attributes: attributes.collect(),
                    dropped_attributes_count: 0,
                }
            },
        );
    let links = record.links.into_iter().flat_map(json::elements).filter_map(|link| {
        let id = |name: &str| json::get(link, name).and_then(json::as_str);
        Some(Link {
            trace_id: ids::trace_id(&id("trace_id")?)?.to_bytes().to_vec(),
            span_id: id("span_id")
                .and_then(|s| ids::span_id(&s))
                .map(|s| s.to_bytes().to_vec())
                .unwrap_or_default(),
            ..Default::default()
        })
    });
    // A denial is a correct answer; only an evaluation that failed is an error.
    let status = match record.verdict {
        Verdict::Error => Status {
            code: StatusCode::Error as i32,
            message: json::elements(record.reasons)
                .next()
                .and_then(json::as_str)
                .unwrap_or_default()
                .into_owned(),
        },
        _ => Status::default(),
    };
    Span {
        trace_id: record.trace_id.to_bytes().to_vec(),
        span_id: record.span_id.to_bytes().to_vec(),
        parent_span_id: record.parent_span_id.map(|s| s.to_bytes().to_vec()).unwrap_or_default(),
        name: format!("{} {}", names::event(record.verdict), record.policy),
        kind: SpanKind::Internal as i32,
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        attributes: attributes(record),
        events: events.collect(),
        links: links.collect(),
        status: Some(status),
        ..Default::default()
    }
}

/// A decision as a log record: the docket record is the body, with its trace context.
pub fn log_record(record: &Record<'_>) -> LogRecord {
    let (severity, word) = match record.verdict {
        Verdict::Allow | Verdict::Undefined => (SeverityNumber::Info, "INFO"),
        Verdict::Deny | Verdict::Finding => (SeverityNumber::Warn, "WARN"),
        Verdict::Error => (SeverityNumber::Error, "ERROR"),
    };
    let time = u64::try_from(record.timestamp).unwrap_or_default();
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        severity_number: severity as i32,
        severity_text: word.into(),
        event_name: names::event(record.verdict).into(),
        body: Some(AnyValue { value: Some(Value::StringValue(record.raw.to_owned())) }),
        attributes: attributes(record),
        trace_id: record.trace_id.to_bytes().to_vec(),
        span_id: record.span_id.to_bytes().to_vec(),
        ..Default::default()
    }
}

/// A match that came late, as a span of its own: what was sent can't be changed. It is in the trace of the decision's request, and links to
/// the decision's span.
pub fn amendment(record: &Record<'_>) -> Span {
    let member = |name: &str| json::get(record.docket, name).unwrap_or_default();
    let (request, how) = (member("request"), member("match"));
    let mut attributes = vec![
        text(names::ID, &*record.decision_id),
        text(names::PATH, &*record.policy),
        text(names::OUTCOME, record.verdict.as_str()),
    ];
    for (prefix, object) in [(names::MATCH, how), (names::REQUEST, request)] {
        attributes.extend(json::members(object).map(|member| {
            let key = format!("{prefix}{}", member.key());
            match (json::as_u64(member.value), json::as_str(member.value)) {
                (Some(number), _) => integer(key, number),
                (None, said) => text(key, said.unwrap_or(member.value.into())),
            }
        }));
    }
    // The same for the same match, whenever it is told.
    let id = ids::derive(&format!("{} {how} {request}", record.decision_id)).span;
    let decided = Amends::of(record).map_or(record.trace_id, |amends| amends.trace);
    let at = u64::try_from(record.timestamp).unwrap_or_default();
    Span {
        trace_id: record.trace_id.to_bytes().to_vec(),
        span_id: id.to_bytes().to_vec(),
        parent_span_id: record.parent_span_id.map(|s| s.to_bytes().to_vec()).unwrap_or_default(),
        name: names::AMENDMENT.into(),
        kind: SpanKind::Internal as i32,
        start_time_unix_nano: at,
        end_time_unix_nano: at,
        attributes,
        links: vec![Link {
            trace_id: decided.to_bytes().to_vec(),
            span_id: record.span_id.to_bytes().to_vec(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// Groups records by the OPA that decided: service and instance.
fn by_resource<'r, 'a, T>(
    batch: &'r [Record<'a>],
    make: impl Fn(&'r Record<'a>) -> T,
) -> Vec<(Resource, Vec<T>)> {
    let mut index: HashMap<(&str, Option<&str>), usize> = HashMap::new();
    let mut groups: Vec<(Resource, Vec<T>)> = Vec::new();
    for record in batch {
        let at = *index.entry((&record.service, record.instance.as_deref())).or_insert_with(|| {
            let mut attributes = vec![text("service.name", &*record.service)];
            if let Some(instance) = &record.instance {
                attributes.push(text("service.instance.id", &**instance));
            }
            groups.push((Resource { attributes, ..Default::default() }, Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(make(record));
    }
    groups
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: names::SCOPE.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..Default::default()
    })
}

/// Each record as the span that `make` makes of it.
pub fn traces_request(
    batch: &[Record<'_>],
    make: fn(&Record<'_>) -> Span,
) -> ExportTraceServiceRequest {
    let groups = by_resource(batch, make).into_iter().map(|(resource, spans)| ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![ScopeSpans { scope: scope(), spans, schema_url: String::new() }],
        schema_url: String::new(),
    });
    ExportTraceServiceRequest { resource_spans: groups.collect() }
}

pub fn logs_request(batch: &[Record<'_>]) -> ExportLogsServiceRequest {
    let groups =
        by_resource(batch, log_record).into_iter().map(|(resource, log_records)| ResourceLogs {
            resource: Some(resource),
            scope_logs: vec![ScopeLogs { scope: scope(), log_records, schema_url: String::new() }],
            schema_url: String::new(),
        });
    ExportLogsServiceRequest { resource_logs: groups.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::record::{self, Rules};

    fn with_record(doc: &str, check: impl FnOnce(Record<'_>)) {
        let mut out = Vec::new();
        record::write(
            &crate::decision::event::Event::parse(doc.as_bytes()).unwrap(),
            &[],
            None,
            &Rules::default(),
            &mut out,
        );
        check(Record::parse(&out).unwrap());
    }

    #[test]
    fn a_decision_is_a_span_below_the_one_that_asked() {
        let doc = r#"{"labels":{"app":"orders","id":"i-1","version":"1.22.2"},"decision_id":"d1","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7",
            "bundles":{"authz":{"revision":"r7"}},"path":"http/authz/decision","result":{"allow":false,"reason":"frozen"},"rule_labels":[{"severity":"low"}],
            "input":{"headers":{"traceparent":"00-ffffffffffffffffffffffffffffff01-00f067aa0ba902b7-01"}},
            "timestamp":"2026-11-24T12:48:50.5Z","metrics":{"timer_server_handler_ns":500000000,"counter_x":1}}"#;
        with_record(doc, |record| {
            let request = traces_request(&[record], span);
            let resource = request.resource_spans[0].resource.as_ref().unwrap();
            insta::assert_debug_snapshot!(
                "resource",
                resource
                    .attributes
                    .iter()
                    .map(|kv| (kv.key.as_str(), kv.value.clone().unwrap().value.unwrap()))
                    .collect::<Vec<_>>()
            );
            insta::assert_debug_snapshot!(
                "span",
                request.resource_spans[0].scope_spans[0].spans[0]
            );
        });
    }

    #[test]
    fn only_a_failed_evaluation_is_an_error() {
        let doc = |tail: &str| {
            format!(r#"{{"decision_id":"d1","timestamp":"2026-11-24T12:48:50Z",{tail}}}"#)
        };
        let code = |tail: &str| {
            let mut code = 0;
            with_record(&doc(tail), |record| code = span(&record).status.unwrap().code);
            code
        };
        assert_eq!(code(r#""result":false"#), StatusCode::Unset as i32);
        assert_eq!(code(r#""error":{"message":"boom"}"#), StatusCode::Error as i32);
    }

    #[test]
    fn an_amendment_is_a_span_of_its_own_that_links_to_the_decisions() {
        use crate::correlate::record::amendment as told;
        use crate::correlate::{Asked, Class, Matched};
        use crate::facts::{Fact, Kind, Packed, Status};
        const REQUEST: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let mut bytes = Vec::new();
        let fact = Fact {
            request_id: "r-1".into(),
            path: "/a".into(),
            status: Status { http: Some(200), grpc: None },
            trace: ids::trace_id(REQUEST),
            span: ids::span_id("00f067aa0ba902b7"),
            ..Fact::new(Kind::Access, 1_000, 3_000)
        };
        fact.pack(&mut bytes);
        let matched = Matched { class: Class::RequestId, fact: Packed::of(&bytes) };
        let own = format!(r#","trace_id":"{}","span_id":"00f067aa0ba902b8""#, "a".repeat(32));
        for (more, traced) in [("", false), (&*own, true)] {
            let doc = format!(r#"{{"decision_id":"d1","timestamp":"2026-11-24T12:48:50Z"{more}}}"#);
            with_record(&doc, |record| {
                let decided = span(&record);
                let amendment = told(&Asked::of(&record), &matched, false, &[]);
                let amendment = super::amendment(&Record::parse(&amendment).unwrap());
                assert_eq!(amendment.name, "docket.amendment");
                let link = &amendment.links[0];
                assert_eq!((&link.trace_id, &link.span_id), (&decided.trace_id, &decided.span_id));
                let trace = if traced { decided.trace_id } else { hex_bytes(REQUEST) };
                assert_eq!(amendment.trace_id, trace);
                assert_ne!(amendment.span_id, decided.span_id);
                let said = |key: &str| {
                    let one = amendment.attributes.iter().find(|kv| kv.key == key)?;
                    one.value.clone()?.value
                };
                assert_eq!(
                    said("docket.match.class"),
                    Some(Value::StringValue("request_id".into()))
                );
                assert_eq!(said("docket.request.path"), Some(Value::StringValue("/a".into())));
                assert_eq!(said("docket.request.status"), Some(Value::IntValue(200)));
                assert_eq!(said(names::ID), Some(Value::StringValue("d1".into())));
                // Told again after a crash, it is the same span.
                let again = told(&Asked::of(&record), &matched, true, &[]);
                let again = super::amendment(&Record::parse(&again).unwrap());
                assert_eq!(again.span_id, amendment.span_id);
            });
        }
    }

    fn hex_bytes(id: &str) -> Vec<u8> {
        ids::trace_id(id).unwrap().to_bytes().to_vec()
    }
}
