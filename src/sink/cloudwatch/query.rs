//! Asks CloudWatch Logs for every event of the days that hold decisions.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::api::Api;
use super::config::CloudwatchConfig;
use super::encode::Encoder;
use crate::decision::record::Record;
use crate::http::failure::{Cause, Failure};
use crate::sink::query::{
    Answer, Asked, Found, Hash, QueryError, Question, SinkQuery, days, hash, note,
};

pub struct Query {
    api: Api,
    group: String,
    encoder: Encoder,
}

impl Query {
    pub fn new(config: &CloudwatchConfig) -> Result<Query, QueryError> {
        Ok(Query {
            api: Api::new(config)?,
            group: config.group.clone(),
            encoder: Encoder::new(config),
        })
    }

    async fn events(&self, question: Question<'_>) -> Result<Found, QueryError> {
        let Query { api, group, .. } = self;
        let mut found = Found::new();
        let mut seen = BTreeSet::new();
        for (first, end) in days(question.decisions) {
            let mut token: Option<String> = None;
            let mut patience = 60;
            loop {
                let mut request = json!({ "logGroupName": group, "startTime": first.div_euclid(1_000_000), "endTime": end.div_euclid(1_000_000) + 1, "limit": 10_000 });
                if let Some(token) = &token {
                    request["nextToken"] = token.as_str().into();
                }
                let page = match api.call("FilterLogEvents", request.to_string().into()).await {
                    Ok(page) => page,
                    // Nothing was ever written.
                    Err(Failure::Refused(refusal))
                        if refusal.reason.starts_with("ResourceNotFoundException") =>
                    {
                        return Ok(found);
                    }
                    // Few requests a second are allowed.
                    Err(Failure::Retry(retry))
                        if retry.cause == Cause::Throttled && patience > 0 =>
                    {
                        patience -= 1;
                        tokio::time::sleep(retry.after.unwrap_or(Duration::from_secs(1))).await;
                        continue;
                    }
                    Err(Failure::Retry(retry)) => return Err(QueryError::Answer(retry.detail)),
                    Err(Failure::Refused(refusal)) => {
                        return Err(QueryError::Answer(refusal.reason));
                    }
                };
                for event in page["events"].as_array().into_iter().flatten() {
                    // Days share a millisecond at their borders.
                    if seen.insert(event["eventId"].as_str().unwrap_or_default().to_owned()) {
                        note(&mut found, event["message"].as_str().unwrap_or_default().as_bytes());
                        (question.step)(1);
                    }
                }
                match page["nextToken"].as_str() {
                    Some(next) if token.as_deref() != Some(next) => token = Some(next.to_owned()),
                    _ => break,
                }
            }
        }
        Ok(found)
    }
}

impl SinkQuery for Query {
    fn wanted(&mut self, record: &Record<'_>) -> Hash {
        hash(&self.encoder.message(record))
    }

    fn ask<'q>(&'q self, question: Question<'q>) -> Asked<'q> {
        Box::pin(async move { self.events(question).await.map(Answer::All) })
    }
}
