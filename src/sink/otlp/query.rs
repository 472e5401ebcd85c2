//! Asks Jaeger or Tempo for the spans of decisions: only a sample, since each trace is a request.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use reqwest::{Method, Url};

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
                let span = decision.span_id.to_bytes();
                let base64 = base64::engine::general_purpose::STANDARD.encode(span);
                let quoted = |id: &str| text.contains(&format!("\"{id}\""));
                Ok(quoted(&hex(&span)) || quoted(&base64))
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

impl SinkQuery for Query {
    fn wanted(&mut self, _: &Record<'_>) -> Hash {
        UNTOLD
    }

    fn ask<'q>(&'q self, question: Question<'q>) -> Asked<'q> {
        Box::pin(self.sample(question))
    }
}
