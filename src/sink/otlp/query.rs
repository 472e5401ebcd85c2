//! Asks Jaeger or Tempo for the spans of decisions: only a sample, since each trace is a request.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use reqwest::{Method, Url};
use serde_json::Value;

use super::config::{OtlpConfig, Signal};
use crate::decision::ids::hex;
use crate::decision::record::Record;
use crate::http::client::Client;
use crate::sink::query::{
    Answer, Asked, Decision, Hash, Present, QueryError, Question, SinkQuery, UNTOLD, answer,
};

pub struct Query {
    client: Client,
    url: String,
}

impl Query {
    /// Or why it can't be asked.
    pub fn new(config: &OtlpConfig) -> Result<Result<Query, &'static str>, QueryError> {
        let Some(query) = &config.query else {
            return Ok(Err("its setting query, the address of Jaeger or Tempo, is not set"));
        };
        if !config.signals.contains(&Signal::Traces) {
            return Ok(Err("it gets no traces"));
        }
        // Credentials are for the host that they were given for.
        let host = |url: &str| Url::parse(url).ok().and_then(|u| u.host_str().map(str::to_owned));
        let timeout = config.delivery.timeout.0;
        let client = if host(query) == host(&config.endpoint) {
            config.client()?
        } else {
            Client::new(&config.tls, None, &BTreeMap::new(), timeout)?
        };
        Ok(Ok(Query { client, url: query.trim_end_matches('/').to_owned() }))
    }

    /// Whether a trace holds the span of a decision. Jaeger writes ids in hex, Tempo in base64 or hex.
    async fn has_span(&self, decision: &Decision) -> Result<bool, QueryError> {
        let url = format!("{}/api/traces/{}", self.url, hex(&decision.trace_id.to_bytes()));
        let (status, text) = answer(&self.client, Method::GET, &url, None).await?;
        match status.as_u16() {
            404 => Ok(false),
            200 => {
                let trace = serde_json::from_str(&text).map_err(|e| {
                    QueryError::Answer(format!("the answer is not that of a trace: {e}"))
                })?;
                let span = decision.span_id.to_bytes();
                let base64 = base64::engine::general_purpose::STANDARD.encode(span);
                Ok(is_among_spans(&trace, &[hex(&span), base64]))
            }
            _ => Err(QueryError::Answer(format!("the server answered {status}"))),
        }
    }

    async fn sample(&self, question: Question<'_>) -> Result<Answer, QueryError> {
        let mut asked = BTreeSet::new();
        for decision in question.sample {
            if self.has_span(decision).await? {
                (question.take)(Present { id: &decision.id, hash: Some(UNTOLD), at: None });
            }
            asked.insert(decision.id.clone());
            (question.step)(1);
        }
        Ok(Answer::Sample(asked))
    }
}

/// Whether a span has one of these ids. Others may only name it: their parent, or in a link.
fn is_among_spans(answer: &Value, ids: &[String; 2]) -> bool {
    let is_it = |span: &Value| {
        let id = span.get("spanID").or_else(|| span.get("spanId")).and_then(Value::as_str);
        id.is_some_and(|id| ids.iter().any(|one| one == id))
    };
    match answer {
        Value::Object(members) => members.iter().any(|(name, value)| match (&**name, value) {
            ("spans", Value::Array(spans)) => spans.iter().any(is_it),
            _ => is_among_spans(value, ids),
        }),
        Value::Array(all) => all.iter().any(|one| is_among_spans(one, ids)),
        _ => false,
    }
}

impl SinkQuery for Query {
    fn wanted(&mut self, _: &Record<'_>) -> Hash {
        UNTOLD
    }

    fn ask<'q>(&'q self, question: Question<'q>) -> Asked<'q> {
        Box::pin(self.sample(question))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_link_to_a_span_is_not_the_span() {
        let ids = [hex(&[1; 8]), "AQEBAQEBAQE=".to_owned()];
        let jaeger = |span: &str, link: &str| {
            let link = json!([{ "refType": "FOLLOWS_FROM", "spanID": link }]);
            let spans = json!([{ "spanID": "0a", "references": [] }, { "spanID": span, "references": link }]);
            is_among_spans(&json!({ "data": [{ "traceID": "t", "spans": spans }] }), &ids)
        };
        assert!(jaeger(&ids[0], "0b") && !jaeger("0b", &ids[0]));
        let tempo = |span: &str, link: &str| {
            let spans =
                json!([{ "spanId": span, "links": [{ "spanId": link }], "parentSpanId": link }]);
            is_among_spans(&json!({ "batches": [{ "scopeSpans": [{ "spans": spans }] }] }), &ids)
        };
        assert!(tempo(&ids[0], "0b") && tempo(&ids[1], "0b"));
        assert!(!tempo("0b", &ids[0]) && !tempo("0b", &ids[1]));
    }
}
