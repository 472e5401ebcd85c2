//! Asks Elasticsearch by id, and by decision id for copies under another id.

use std::collections::{BTreeSet, HashMap};

use reqwest::Method;
use serde_json::json;

use super::config::ElasticsearchConfig;
use super::encode::{decision_id, document, document_id};
use crate::decision::record::Record;
use crate::http::client::Client;
use crate::sink::query::{
    Answer, Asked, Found, Hash, QueryError, Question, SinkQuery, answer, document_hash, get,
};

/// So many ids a request.
const IDS: usize = 400;

pub struct Query {
    client: Client,
    /// The index' address.
    index: String,
    /// By decision id: ids that documents should have.
    ids: HashMap<String, Vec<String>>,
}

impl Query {
    pub fn new(config: &ElasticsearchConfig) -> Result<Query, QueryError> {
        let client = config.client()?;
        let url = config.url.trim_end_matches('/');
        Ok(Query { client, index: format!("{url}/{}", config.index), ids: HashMap::new() })
    }

    async fn documents(&self, question: Question<'_>) -> Result<Found, QueryError> {
        let Query { client, index, .. } = self;
        // What was written last can be searched after a refresh, which may not be allowed here.
        let _ = answer(client, Method::POST, &format!("{index}/_refresh"), None).await;
        let mut found = Found::new();
        let distinct: BTreeSet<&str> = question.decisions.iter().map(|d| d.id.as_str()).collect();
        let distinct: Vec<&str> = distinct.into_iter().collect();
        for ids in distinct.chunks(IDS) {
            let known = ids.iter().filter_map(|id| self.ids.get(*id)).flatten();
            let documents: Vec<&str> =
                known.map(String::as_str).chain(ids.iter().copied()).collect();
            let any = json!([{ "ids": { "values": documents } }, { "terms": { "decision_id": ids } }, { "terms": { "decision_id.keyword": ids } }]);
            let query = json!({ "size": 10_000, "query": { "bool": { "should": any, "minimum_should_match": 1 } } });
            let url = format!("{index}/_search?ignore_unavailable=true");
            let page = get(client, Method::POST, &url, Some(query)).await?;
            for hit in page["hits"]["hits"].as_array().into_iter().flatten() {
                let source = &hit["_source"];
                // An altered document may have lost its decision id; it stands under its own id still.
                let own = hit["_id"].as_str().map(decision_id);
                let id = source["decision_id"].as_str().or(own).unwrap_or_default();
                found.entry(id.to_owned()).or_default().push(document_hash(source));
            }
            (question.step)(ids.len() as u64);
        }
        Ok(found)
    }
}

impl SinkQuery for Query {
    fn wanted(&mut self, record: &Record<'_>) -> Hash {
        let ids = self.ids.entry(record.decision_id.to_string()).or_default();
        let id = document_id(record);
        if !ids.contains(&id) {
            ids.push(id);
        }
        let mut text = Vec::new();
        document(record, &mut text);
        serde_json::from_slice(&text).map_or(0, |value| document_hash(&value))
    }

    fn ask<'q>(&'q self, question: Question<'q>) -> Asked<'q> {
        Box::pin(async move { self.documents(question).await.map(Answer::All) })
    }
}
