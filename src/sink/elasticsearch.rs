//! Elasticsearch and OpenSearch: `POST /<index>/_bulk`, `create` with the decision id as `_id`, so that a
//! repeat is a 409, which is success.
//! <https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk>
//!
//! The document is the docket record plus ECS names (Elastic Common Schema 8). `input` and `result` are
//! mapped as `flattened` (`flat_object`), which takes objects only: another value is wrapped as
//! `{"value": ..}`.

use bytes::Bytes;
use serde::Deserialize;

use super::http::{Client, HttpError};
use super::{Cause, One, Outcome, Refusal, Retry, Sink};
use crate::decision::ids::push_hex;
use crate::decision::json::{one_line, push_string};
use crate::decision::record::Record;
use crate::decision::verdict::Verdict;
use crate::pipeline::model::{self, HttpCompression};

/// Appends the document of a record, on one line.
pub fn document(record: &Record<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    let raw = record.raw;
    let mut copied = 0;
    for name in ["input", "result"] {
        let Some(value) = record.get(name).filter(|v| !v.starts_with('{') && *v != "null") else {
            continue;
        };
        // Where the value stands in the record, of which it is a slice. `input` comes before `result` or
        // after it; a second pass handles the order.
        let at = value.as_ptr() as usize - raw.as_ptr() as usize;
        if at < copied {
            out.truncate(start);
            return document_by_member(record, out);
        }
        out.extend_from_slice(&raw.as_bytes()[copied..at]);
        wrapped(value, out);
        copied = at + value.len();
    }
    out.extend_from_slice(&raw.as_bytes()[copied..raw.len() - 1]);
    ecs(record, out);
    one_line(&mut out[start..]);
}

fn wrapped(value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"value\":");
    out.extend_from_slice(value.as_bytes());
    out.push(b'}');
}

/// The same for a record whose `result` stands before its `input`.
fn document_by_member(record: &Record<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    for member in record.members() {
        out.push(if out.len() == start { b'{' } else { b',' });
        out.push(b'"');
        out.extend_from_slice(member.name.as_bytes());
        out.extend_from_slice(b"\":");
        let wrap = matches!(&*member.key(), "input" | "result")
            && !member.value.starts_with('{')
            && member.value != "null";
        if wrap {
            wrapped(member.value, out);
        } else {
            out.extend_from_slice(member.value.as_bytes());
        }
    }
    out.extend_from_slice(&record.raw.as_bytes()[record.own_members()..record.raw.len() - 1]);
    ecs(record, out);
    one_line(&mut out[start..]);
}

/// ECS members beside the original, and the closing brace. A name that the original has is left to it.
fn ecs(record: &Record<'_>, out: &mut Vec<u8>) {
    let taken = |name: &str| record.get(name).is_some();
    if !taken("event") {
        let (kind, outcome) = match record.verdict {
            Verdict::Allow => ("allowed", "success"),
            Verdict::Deny => ("denied", "failure"),
            Verdict::Error => ("error", "failure"),
            Verdict::Undefined | Verdict::Finding => ("info", "unknown"),
        };
        let (class, dataset) = if record.verdict == Verdict::Finding {
            ("alert", "docket.finding")
        } else {
            ("event", "opa.decision")
        };
        out.extend_from_slice(b",\"event\":{\"kind\":\"");
        out.extend_from_slice(class.as_bytes());
        out.extend_from_slice(b"\",\"dataset\":\"");
        out.extend_from_slice(dataset.as_bytes());
        out.extend_from_slice(b"\",\"id\":");
        push_string(out, &record.decision_id);
        out.extend_from_slice(b",\"type\":[\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\"],\"outcome\":\"");
        out.extend_from_slice(outcome.as_bytes());
        out.push(b'"');
        if let Some(duration) = record.duration {
            out.extend_from_slice(b",\"duration\":");
            out.extend_from_slice(duration.to_string().as_bytes());
        }
        out.push(b'}');
    }
    if !taken("trace") {
        out.extend_from_slice(b",\"trace\":{\"id\":\"");
        push_hex(out, &record.trace_id.to_bytes());
        out.extend_from_slice(b"\"}");
    }
    if !taken("span") {
        out.extend_from_slice(b",\"span\":{\"id\":\"");
        push_hex(out, &record.span_id.to_bytes());
        out.extend_from_slice(b"\"}");
    }
    if !taken("service") {
        out.extend_from_slice(b",\"service\":{\"name\":");
        push_string(out, &record.service);
        if let Some(instance) = &record.instance {
            out.extend_from_slice(b",\"node\":{\"name\":");
            push_string(out, instance);
            out.push(b'}');
        }
        out.push(b'}');
    }
    if !taken("rule") {
        out.extend_from_slice(b",\"rule\":{\"name\":");
        push_string(out, &record.policy);
        if let Some((bundle, revision)) = record.revisions().first() {
            out.extend_from_slice(b",\"ruleset\":");
            push_string(out, bundle);
            out.extend_from_slice(b",\"version\":");
            push_string(out, revision);
        }
        out.push(b'}');
    }
    out.push(b'}');
}

/// The body of a bulk request, not compressed yet.
pub fn bulk(batch: &[Record<'_>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(batch.iter().map(|r| r.raw.len() + 400).sum());
    for record in batch {
        out.extend_from_slice(b"{\"create\":{\"_id\":");
        push_string(&mut out, &record.decision_id);
        out.extend_from_slice(b"}}\n");
        document(record, &mut out);
        out.push(b'\n');
    }
    out
}

pub struct Elasticsearch {
    client: Client,
    url: String,
    compression: HttpCompression,
}

pub struct Body {
    bytes: Bytes,
    records: usize,
}

impl Elasticsearch {
    pub fn new(config: &model::Elasticsearch) -> Result<Elasticsearch, HttpError> {
        let client = Client::new(
            &config.tls,
            config.auth.as_ref(),
            &config.headers,
            config.delivery.timeout.0,
        )?;
        Ok(Elasticsearch {
            client,
            url: format!("{}/{}/_bulk", config.url.trim_end_matches('/'), config.index),
            compression: config.compression,
        })
    }
}

impl Sink for Elasticsearch {
    type Body = Body;

    fn encode(&self, batch: &[Record<'_>]) -> Body {
        let plain = bulk(batch);
        let bytes = match self.compression {
            HttpCompression::None => plain.into(),
            HttpCompression::Gzip => crate::gzip::gzip(&plain).into(),
        };
        Body { bytes, records: batch.len() }
    }

    fn size(body: &Body) -> usize {
        body.bytes.len()
    }

    async fn send(&self, body: &Body) -> Outcome {
        let encoding = (self.compression == HttpCompression::Gzip).then_some("gzip");
        match self
            .client
            .post(&self.url, "application/x-ndjson", encoding, body.bytes.clone())
            .await
        {
            Ok(answer) => read_answer(&answer, body.records),
            Err(outcome) => outcome,
        }
    }
}

#[derive(Deserialize)]
struct Answer<'a> {
    errors: bool,
    #[serde(borrow)]
    items: &'a serde_json::value::RawValue,
}

#[derive(Deserialize)]
struct Item {
    #[serde(alias = "index")]
    create: ItemResult,
}

#[derive(Deserialize)]
struct ItemResult {
    status: u16,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

/// What a bulk answer says of each document.
pub fn read_answer(answer: &[u8], records: usize) -> Outcome {
    let unreadable = || {
        let detail = "the answer is not that of a bulk request; is the address right?".into();
        Outcome::Retry(Retry { cause: Cause::Misconfigured, detail, after: None })
    };
    let Ok(parsed) = serde_json::from_slice::<Answer<'_>>(answer) else { return unreadable() };
    if !parsed.errors {
        return Outcome::Delivered;
    }
    let Ok(items) = serde_json::from_str::<Vec<Item>>(parsed.items.get()) else {
        return unreadable();
    };
    if items.len() != records {
        return unreadable();
    }
    Outcome::Each(items.iter().map(|item| one(&item.create)).collect())
}

fn one(item: &ItemResult) -> One {
    let text = |name: &str| {
        item.error
            .as_ref()
            .and_then(|e| e.get(name))
            .and_then(|t| t.as_str())
            .unwrap_or_default()
            .to_owned()
    };
    let retry = |cause: Cause| {
        One::Retry(Retry {
            cause,
            detail: format!("{} {}", item.status, text("type")),
            after: None,
        })
    };
    match item.status {
        200 | 201 | 409 => One::Delivered,
        401 | 403 => retry(Cause::Credentials),
        // The index is gone and may not be created.
        404 => retry(Cause::Misconfigured),
        408 | 429 => retry(Cause::Throttled),
        500.. => retry(Cause::Server),
        status => One::Refused(Refusal {
            status,
            reason: format!("{}: {}", text("type"), text("reason")),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::event::Event;
    use crate::decision::json;
    use crate::decision::record::{self, Rules};

    fn documented(doc: &str) -> String {
        let mut raw = Vec::new();
        record::write(
            &Event::parse(doc.as_bytes()).unwrap(),
            &[],
            None,
            &Rules::default(),
            &mut raw,
        );
        let mut out = Vec::new();
        document(&Record::parse(&raw).unwrap(), &mut out);
        json::check(&out).unwrap();
        assert!(!out.contains(&b'\n'));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_document_is_the_record_with_ecs_names_beside() {
        let doc = documented(
            "{\"labels\":{\"app\":\"orders\",\"id\":\"i\"},\n\"decision_id\":\"d1\",\"bundles\":{\"authz\":{\"revision\":\"r7\"}},\"path\":\"a/allow\",\"input\":[1],\"result\":true,\"timestamp\":\"2026-11-24T12:48:50Z\",\"metrics\":{\"timer_server_handler_ns\":5}}",
        );
        insta::assert_snapshot!("elasticsearch_document", doc);
    }

    #[test]
    fn values_that_flattened_cannot_take_are_wrapped_whatever_their_order() {
        let base = r#""decision_id":"d1","timestamp":"2026-11-24T12:48:50Z""#;
        for (members, wanted) in [
            (
                r#""result":"x","input":true"#,
                vec![r#""result":{"value":"x"}"#, r#""input":{"value":true}"#],
            ),
            (
                r#""input":7,"result":[]"#,
                vec![r#""input":{"value":7}"#, r#""result":{"value":[]}"#],
            ),
            (
                r#""input":{"a":1},"result":{"allow":true}"#,
                vec![r#""input":{"a":1}"#, r#""result":{"allow":true}"#],
            ),
            (r#""input":null"#, vec![r#""input":null"#]),
        ] {
            let doc = documented(&format!("{{{base},{members}}}"));
            for part in wanted {
                assert!(doc.contains(part), "{doc}");
            }
        }
    }

    #[test]
    fn names_of_the_original_win_over_ecs_names() {
        let doc = documented(
            r#"{"decision_id":"d1","timestamp":"2026-11-24T12:48:50Z","event":"mine","service":1}"#,
        );
        assert!(
            doc.contains(r#""event":"mine""#)
                && !doc.contains(r#""event":{"#)
                && doc.contains(r#""service":1"#)
        );
    }

    #[test]
    fn a_bulk_answer_is_read_item_by_item() {
        let answer = br#"{"took":3,"errors":true,"items":[
            {"create":{"status":201}},{"create":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"x"}}},
            {"create":{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"x"}}},
            {"create":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"failed to parse"}}}]}"#;
        let Outcome::Each(items) = read_answer(answer, 4) else { panic!() };
        assert_eq!(items[..2], [One::Delivered, One::Delivered]);
        assert!(matches!(&items[2], One::Retry(r) if r.cause == Cause::Throttled));
        assert_eq!(
            items[3],
            One::Refused(Refusal {
                status: 400,
                reason: "mapper_parsing_exception: failed to parse".into()
            })
        );
        assert_eq!(read_answer(br#"{"took":1,"errors":false,"items":[]}"#, 9), Outcome::Delivered);
        assert!(matches!(read_answer(b"<html>", 1), Outcome::Retry(_)));
        assert!(matches!(read_answer(br#"{"errors":true,"items":[]}"#, 1), Outcome::Retry(_)));
    }
}
