//! Elasticsearch and OpenSearch: `POST /<index>/_bulk`, `create` with the decision id and a hash of the decision as `_id`, so
//! that a repeat is a 409, which is success, and another decision under the same id is not.
//! <https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk>
//!
//! The document is the docket record plus ECS names (Elastic Common Schema 8). `input` and `result` are
//! mapped as `flattened` (`flat_object`), which takes objects only: another value is wrapped as
//! `{"value": ..}`. What an index would refuse a document for is left out (`fit`), and the record's text stands beside it.

mod amend;
pub mod config;
mod encode;
mod fit;
pub mod query;

pub use amend::Amend;
use bytes::Bytes;
use config::ElasticsearchConfig;
pub use encode::{bulk, document};
use serde::Deserialize;

use super::{Outcome, Sink};
use crate::decision::record::Record;
use crate::http::client::{Client, HttpError};
use crate::http::config::HttpCompression;
use crate::http::failure::{Cause, Failure};

pub struct Elasticsearch {
    client: Client,
    url: String,
    compression: HttpCompression,
}

pub struct Body {
    bytes: Bytes,
    /// What the IDs of its documents end with, which stands for what is in them.
    contents: Vec<String>,
}

impl Elasticsearch {
    pub fn new(config: &ElasticsearchConfig) -> Result<Elasticsearch, HttpError> {
        let client = config.client()?;
        Ok(Elasticsearch {
            client,
            url: format!("{}/{}/_bulk", config.url.trim_end_matches('/'), config.index),
            compression: config.compression,
        })
    }

    fn body(&self, (plain, contents): (Vec<u8>, Vec<String>)) -> Body {
        let bytes = match self.compression {
            HttpCompression::None => plain.into(),
            HttpCompression::Gzip => crate::gzip::gzip(&plain).into(),
        };
        Body { bytes, contents }
    }

    async fn bulk(&self, body: &Body) -> Outcome {
        let encoding = (self.compression == HttpCompression::Gzip).then_some("gzip");
        let content = body.bytes.clone();
        match self.client.post(&self.url, "application/x-ndjson", encoding, content).await {
            Ok(answer) => read_answer(&answer.content, &body.contents).unwrap_or_else(|| {
                Outcome::Failed(answer.unexpected("what it does to a bulk request"))
            }),
            Err(failure) => Outcome::Failed(failure),
        }
    }
}

impl Sink for Elasticsearch {
    type Body = Body;

    fn encode(&self, batch: &[Record<'_>]) -> Body {
        self.body(bulk(batch))
    }

    fn size(body: &Body) -> usize {
        body.bytes.len()
    }

    async fn send(&self, body: &Body) -> Outcome {
        self.bulk(body).await
    }
}

#[derive(Deserialize)]
struct Answer {
    errors: bool,
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Item {
    #[serde(alias = "index")]
    Create(ItemResult),
    Update(ItemResult),
}

#[derive(Deserialize)]
struct ItemResult {
    #[serde(rename = "_id", default)]
    id: Option<String>,
    status: u16,
    /// `noop` where a document says all that already.
    #[serde(default)]
    result: String,
    #[serde(default)]
    error: Option<serde_json::Value>,
    #[serde(rename = "_shards", default)]
    shards: Option<Shards>,
}

#[derive(Deserialize)]
struct Shards {
    successful: u64,
}

/// What a bulk answer says of each document; nothing if it is none. Every one of them has to be in it: a proxy that leaves the items away
/// (`filter_path`) leaves away what acknowledges them. Nor is an answer to another request one.
pub fn read_answer(answer: &[u8], contents: &[String]) -> Option<Outcome> {
    let Answer { errors, items } = serde_json::from_slice(answer).ok()?;
    let of_it = |(item, content): (&Item, &String)| {
        let (Item::Create(item) | Item::Update(item)) = item;
        item.id.as_ref().is_none_or(|id| id.ends_with(content.as_str()))
    };
    if items.len() != contents.len() || !items.iter().zip(contents).all(of_it) {
        return None;
    }
    let each: Vec<_> = items.iter().map(one).collect();
    // What it says in all has to agree with what it says of each.
    if !errors && each.iter().any(|one| *one != Ok(true)) {
        return None;
    }
    Some(match each.iter().all(|one| *one == Ok(true)) {
        true => Outcome::Delivered,
        false if items.iter().any(|item| matches!(item, Item::Update(_))) => Outcome::Changed(each),
        false => Outcome::Each(each.into_iter().map(|one| one.map(|_| ())).collect()),
    })
}

/// What is said of a document; not `true` of one that was to be changed, and is not there.
fn one(item: &Item) -> Result<bool, Failure> {
    let (item, updates) = match item {
        Item::Create(item) => (item, false),
        Item::Update(item) => (item, true),
    };
    let text = |name: &str| {
        item.error
            .as_ref()
            .and_then(|e| e.get(name))
            .and_then(|t| t.as_str())
            .unwrap_or_default()
            .to_owned()
    };
    let retry = |cause| Err(Failure::retry(cause, format!("{} {}", item.status, text("type"))));
    let is_nowhere = item.shards.as_ref().is_some_and(|shards| shards.successful == 0);
    match item.status {
        // Nothing was to be written, so no shard has written it.
        200 if updates && item.result == "noop" && item.error.is_none() => Ok(true),
        200 | 201 if item.error.is_some() || is_nowhere => retry(Cause::Server),
        // Others change the document as often as it is tried.
        409 if updates => retry(Cause::Throttled),
        200 | 201 | 409 => Ok(true),
        404 if updates && text("type") == "document_missing_exception" => Ok(false),
        401 | 403 => retry(Cause::Credentials),
        // The index is gone and may not be created.
        404 => retry(Cause::Misconfigured),
        408 | 429 => retry(Cause::Throttled),
        500.. => retry(Cause::Server),
        status if is_of_document(&text("type"), &text("reason")) => {
            Err(Failure::refused(status, format!("{}: {}", text("type"), text("reason"))))
        }
        // The index or the cluster can't take it, whatever it is: too many shards, a closed index, no write index.
        _ => Err(Failure::retry(
            Cause::Misconfigured,
            format!("{} {}: {}", item.status, text("type"), text("reason")),
        )),
    }
}

/// Whether an error is about the document. Others of the same status are about the index or the cluster.
fn is_of_document(kind: &str, reason: &str) -> bool {
    match kind {
        "mapper_parsing_exception"
        | "document_parsing_exception"
        | "strict_dynamic_mapping_exception"
        | "parse_exception"
        | "parsing_exception"
        | "x_content_parse_exception"
        | "json_parse_exception"
        | "not_x_content_exception"
        | "max_bytes_length_exceeded_exception"
        | "number_format_exception"
        | "date_time_parse_exception"
        | "arithmetic_exception"
        | "input_coercion_exception"
        | "stream_constraints_exception" => true,
        "illegal_argument_exception" => {
            !["no write index", "is not allowed", "alias [", "pipeline with id", "data stream"]
                .iter()
                .any(|of_index| reason.contains(of_index))
        }
        _ => false,
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
    fn a_repeat_has_the_same_id_and_another_decision_under_its_id_has_not() {
        let id = |doc: &str| {
            let mut raw = Vec::new();
            let event = Event::parse(doc.as_bytes()).unwrap();
            record::write(&event, &[], None, &Rules::default(), &mut raw);
            encode::document_id(&Record::parse(&raw).unwrap())
        };
        let decision = |id: &str, result: &str| {
            format!(
                r#"{{"decision_id":"{id}","timestamp":"2026-11-24T12:48:50Z","result":{result}}}"#
            )
        };
        let allowed = id(&decision("d1", "true"));
        assert_eq!(allowed, id(&decision("d1", "true")));
        let denied = id(&decision("d1", "false"));
        assert!(allowed != denied && denied.starts_with("d1-") && denied.len() == 23);
        assert_eq!(encode::decision_id(&denied), "d1");
        assert_eq!(encode::decision_id("d1"), "d1");
        let long = id(&decision(&"é".repeat(255), "true"));
        assert!(long.len() <= 512 && long != id(&decision(&"é".repeat(255), "false")));
    }

    fn read_of(answer: &[u8], records: usize) -> Option<Outcome> {
        read_answer(answer, &vec![String::new(); records])
    }

    #[test]
    fn an_answer_about_other_documents_acknowledges_none() {
        let contents = ["aa".to_owned(), "bb".to_owned()];
        let read = |ids: [&str; 2]| {
            let [one, other] = ids.map(|id| format!(r#"{{"create":{{{id}"status":201}}}}"#));
            let answer = format!(r#"{{"errors":false,"items":[{one},{other}]}}"#);
            read_answer(answer.as_bytes(), &contents)
        };
        let of = [r#""_id":"d1-aa","#, r#""_id":"d2-bb","#];
        assert_eq!(read(of), Some(Outcome::Delivered));
        assert_eq!(read(["", ""]), Some(Outcome::Delivered));
        assert_eq!(read([of[1], of[0]]), None);
        assert_eq!(read([of[0], r#""_id":"d2-cc","#]), None);
    }

    #[test]
    fn a_bulk_answer_is_read_item_by_item() {
        let answer = br#"{"took":3,"errors":true,"items":[
            {"create":{"status":201}},{"create":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"x"}}},
            {"create":{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"x"}}},
            {"create":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"failed to parse"}}}]}"#;
        let Some(Outcome::Each(items)) = read_of(answer, 4) else { panic!() };
        assert_eq!(items[..2], [Ok(()), Ok(())]);
        assert!(matches!(&items[2], Err(Failure::Retry(r)) if r.cause == Cause::Throttled));
        assert_eq!(
            items[3],
            Err(Failure::refused(400, "mapper_parsing_exception: failed to parse"))
        );
        let taken = br#"{"took":1,"errors":false,"items":[{"create":{"status":201}}]}"#;
        assert_eq!(read_of(taken, 1), Some(Outcome::Delivered));
        // An answer that does not tell of each record acknowledges none.
        for answer in [&taken[..], br#"{"took":1,"errors":true,"items":[]}"#, b"{}", b"[]", b""] {
            assert_eq!(read_of(answer, 2), None);
        }
        assert_eq!(read_of(b"<html>", 1), None);
        for errors in [true, false] {
            let without = format!(r#"{{"took":1,"errors":{errors},"items":[]}}"#);
            assert_eq!(read_of(without.as_bytes(), 1), None);
            let filtered = format!(r#"{{"took":1,"errors":{errors}}}"#);
            assert_eq!(read_of(filtered.as_bytes(), 1), None);
        }
        // Nor does one that contradicts itself.
        let but = |item: &str| {
            let answer = format!(r#"{{"errors":true,"items":[{{"create":{item}}}]}}"#);
            match read_of(answer.as_bytes(), 1) {
                Some(Outcome::Each(each)) => matches!(each[..], [Err(Failure::Retry(_))]),
                _ => false,
            }
        };
        assert!(but(r#"{"status":201,"error":{"type":"x","reason":"y"}}"#));
        assert!(but(r#"{"status":201,"_shards":{"total":2,"successful":0,"failed":2}}"#));
        assert!(!but(r#"{"status":201,"_shards":{"total":2,"successful":1,"failed":0}}"#));
        let none = br#"{"errors":false,"items":[{"create":{"status":429}}]}"#;
        assert_eq!(read_of(none, 1), None);
    }

    #[test]
    fn errors_of_the_index_or_the_cluster_are_outages() {
        let refused = |kind: &str, reason: &str| {
            let answer = serde_json::json!({ "errors": true, "items": [{ "create": { "status": 400, "error": { "type": kind, "reason": reason } } }] });
            match read_of(answer.to_string().as_bytes(), 1) {
                Some(Outcome::Each(each)) => matches!(each[0], Err(Failure::Refused(_))),
                other => panic!("{other:?}"),
            }
        };
        assert!(refused("document_parsing_exception", "[1:2] failed to parse field [a]"));
        assert!(refused("strict_dynamic_mapping_exception", "mapping set to strict"));
        assert!(refused(
            "illegal_argument_exception",
            "Document contains at least one immense term"
        ));
        assert!(refused(
            "illegal_argument_exception",
            "Limit of total fields [1000] has been exceeded"
        ));
        let full = "this action would add [2] shards, but this cluster currently has [1000]/[1000] maximum normal shards open;";
        assert!(!refused("validation_exception", full));
        assert!(!refused("illegal_argument_exception", "no write index is defined for alias [a]"));
        assert!(!refused("index_closed_exception", "closed"));
        assert!(!refused("something_new", "?"));
    }
}
