//! Asks Elasticsearch by decision id, and for what else it holds of a time.

use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::config::ElasticsearchConfig;
use super::encode::{decision_id, document};
use crate::decision::json as text;
use crate::decision::record::Record;
use crate::decision::time::{self, Nanos};
use crate::http::client::Client;
use crate::sink::query::{
    Answer, Asked, Hash, Present, QueryError, Question, SinkQuery, answer, document_hash, got,
};

/// So many ids a request.
const IDS: usize = 400;
/// Documents of more bytes than that are asked for in smaller numbers next time.
const MUCH: usize = 8 << 20;
/// So many ids of what else there is in one answer.
const PAGE: usize = 5000;

pub struct Query {
    client: Client,
    base: String,
    /// The index' address.
    index: String,
    /// Matches that come late change its documents.
    amended: bool,
}

/// What a search answers. Documents stay text: their numbers may be larger than any type here.
#[derive(Deserialize)]
struct Found<'a> {
    #[serde(default)]
    timed_out: bool,
    #[serde(rename = "_shards", default)]
    shards: Shards,
    #[serde(borrow)]
    hits: Hits<'a>,
    #[serde(rename = "_scroll_id", default)]
    scroll: Option<String>,
}

#[derive(Default, Deserialize)]
struct Shards {
    #[serde(default)]
    failed: u64,
}

#[derive(Deserialize)]
struct Hits<'a> {
    #[serde(borrow)]
    hits: Vec<Hit<'a>>,
}

#[derive(Deserialize)]
struct Hit<'a> {
    #[serde(rename = "_id")]
    id: String,
    #[serde(rename = "_source", borrow, default)]
    source: Option<&'a RawValue>,
}

impl Hit<'_> {
    /// An altered document may have lost its decision id; it stands under its own id still.
    fn decision_id(&self) -> String {
        let source = self.source.map_or("", RawValue::get);
        let id = text::get(source, "decision_id").and_then(text::as_str);
        id.map_or_else(|| decision_id(&self.id).to_owned(), std::borrow::Cow::into_owned)
    }
}

/// Reads an answer. One that does not tell all is none: what is missing in it may be there.
fn found(answer: &str) -> Result<Found<'_>, QueryError> {
    let found: Found<'_> = serde_json::from_str(answer)
        .map_err(|e| QueryError::Answer(format!("the answer is not that of a search: {e}")))?;
    match (found.timed_out, found.shards.failed) {
        (false, 0) => Ok(found),
        (true, _) => Err(QueryError::Answer("the search took the server too long".into())),
        (_, n) => Err(QueryError::Answer(format!("the search failed in {n} of the index' shards"))),
    }
}

impl Query {
    pub fn new(config: &ElasticsearchConfig, amended: bool) -> Result<Query, QueryError> {
        let client = config.client()?;
        let base = config.url.trim_end_matches('/').to_owned();
        Ok(Query { client, index: format!("{base}/{}", config.index), base, amended })
    }

    /// The hash of a document, or of what of it stays as it was delivered.
    fn hash(&self, document: &str) -> Hash {
        if self.amended { document_hash(&unamended(document)) } else { document_hash(document) }
    }

    async fn documents(&self, question: Question<'_>) -> Result<(), QueryError> {
        // What was written last can be searched after a refresh, which may not be allowed here.
        let refresh = format!("{}/_refresh", self.index);
        let _ = answer(&self.client, Method::POST, &refresh, None).await;
        let mut size = IDS;
        for portion in 0.. {
            let Some(ids) = (question.ids)(portion)? else { break };
            let mut ids = ids.as_slice();
            while !ids.is_empty() {
                let (these, rest) = ids.split_at(size.min(ids.len()));
                let bytes = self.of(these, question.take).await?;
                (question.step)(these.len() as u64);
                size = if bytes > MUCH { (size / 2).max(1) } else { (size * 2).min(IDS) };
                ids = rest;
            }
        }
        Ok(())
    }

    /// The documents of some ids; how many bytes they took.
    async fn of(
        &self,
        ids: &[String],
        take: &(dyn Fn(Present<'_>) + Sync),
    ) -> Result<usize, QueryError> {
        let any = json!([{ "ids": { "values": ids } }, { "terms": { "decision_id": ids } }, { "terms": { "decision_id.keyword": ids } }]);
        let query = json!({ "size": 10_000, "query": { "bool": { "should": any, "minimum_should_match": 1 } } });
        let url = format!("{}/_search?ignore_unavailable=true", self.index);
        let page = got(&self.client, Method::POST, &url, Some(query)).await?;
        for hit in found(&page)?.hits.hits {
            let hash = self.hash(hit.source.map_or("", RawValue::get));
            take(Present { id: &hit.decision_id(), hash: Some(hash), at: None });
        }
        Ok(page.len())
    }

    /// The ids of all decisions of a time.
    async fn others(
        &self,
        (from, until): (Nanos, Nanos),
        take: &(dyn Fn(Present<'_>) + Sync),
    ) -> Result<(), QueryError> {
        let range = json!({ "gte": time::format(from), "lt": time::format(until) });
        let query = json!({ "size": PAGE, "sort": ["_doc"], "_source": ["decision_id"], "query": { "range": { "@timestamp": range } } });
        let url = format!("{}/_search?ignore_unavailable=true&scroll=2m", self.index);
        let mut page = got(&self.client, Method::POST, &url, Some(query)).await?;
        loop {
            let found = found(&page)?;
            for hit in &found.hits.hits {
                take(Present { id: &hit.decision_id(), hash: None, at: None });
            }
            let (scroll, ended) = (found.scroll.unwrap_or_default(), found.hits.hits.is_empty());
            let url = format!("{}/_search/scroll", self.base);
            if ended || scroll.is_empty() {
                let close: Value = json!({ "scroll_id": [scroll] });
                let _ = answer(&self.client, Method::DELETE, &url, Some(close)).await;
                return Ok(());
            }
            let next = json!({ "scroll": "2m", "scroll_id": scroll });
            page = got(&self.client, Method::POST, &url, Some(next)).await?;
        }
    }
}

/// What an amendment changes of `docket`; beside that the trace's own member.
const AMENDED: [&str; 5] = ["request", "match", "trace_id", "parent_span_id", "trace_from"];

/// A document without what an amendment may have changed in it.
fn unamended(document: &str) -> String {
    let mut out = String::with_capacity(document.len());
    let put = |out: &mut String, member: &text::Member<'_>, value: &str| {
        out.push(if out.is_empty() { '{' } else { ',' });
        out.push_str(&format!("\"{}\":{value}", member.name));
    };
    for member in text::members(document).filter(|member| member.name != "trace") {
        if member.name == "docket" {
            let mut docket = String::new();
            let kept = text::members(member.value).filter(|m| !AMENDED.contains(&m.name));
            kept.for_each(|member| put(&mut docket, &member, member.value));
            put(&mut out, &member, &(docket + "}"));
        } else {
            put(&mut out, &member, member.value);
        }
    }
    out + "}"
}

impl SinkQuery for Query {
    fn wanted(&mut self, record: &Record<'_>) -> Hash {
        let mut text = Vec::new();
        document(record, &mut text);
        std::str::from_utf8(&text).map_or(0, |text| self.hash(text))
    }

    fn ask<'q>(&'q self, question: Question<'q>) -> Asked<'q> {
        Box::pin(async move {
            self.documents(question).await?;
            let others = match question.others {
                Some(time) => self.others(time, question.take).await.map_err(|e| e.to_string()),
                None => Ok(()),
            };
            Ok(Answer::All(others))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_was_amended_is_the_one_that_was_delivered() {
        let delivered =
            r#"{"input":{"a":1},"docket":{"v":1,"trace_id":"x","service":{}},"trace":{"id":"x"}}"#;
        let amended = r#"{"input":{"a":1},"docket":{"service":{},"request":{"path":"/a"},"v":1,"match":{},"trace_id":"y","trace_from":"join"},"trace":{"id":"y"}}"#;
        let hash = |document: &str| document_hash(&unamended(document));
        assert_eq!(hash(delivered), hash(amended));
        assert_ne!(hash(delivered), hash(&amended.replace(r#"{"a":1}"#, r#"{"a":2}"#)));
        assert_ne!(hash(delivered), hash(&amended.replace(r#""v":1"#, r#""v":2"#)));
    }

    #[test]
    fn an_answer_that_does_not_tell_all_is_none() {
        let hit = r#"{"hits":[{"_id":"a","_source":{"decision_id":"d","n":1e999}},{"_id":"b","_source":{}},{"_id":"c"}]}"#;
        let all = format!(r#"{{"timed_out":false,"_shards":{{"failed":0}},"hits":{hit}}}"#);
        let ids: Vec<String> =
            found(&all).unwrap().hits.hits.iter().map(Hit::decision_id).collect();
        assert_eq!(ids, ["d", "b", "c"]);
        for part in [
            format!(r#"{{"timed_out":true,"hits":{hit}}}"#),
            format!(r#"{{"_shards":{{"failed":1}},"hits":{hit}}}"#),
            "<html>".into(),
            "{}".into(),
        ] {
            assert!(found(&part).is_err(), "{part}");
        }
    }
}
