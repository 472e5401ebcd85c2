//! Asks CloudWatch Logs for every event of the days that hold decisions.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::api::Api;
use super::config::CloudwatchConfig;
use super::encode::Encoder;
use crate::decision::record::Record;
use crate::http::failure::{Cause, Failure};
use crate::sink::query::{Answer, Asked, Hash, QueryError, Question, SinkQuery, hash, note};

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

    async fn events(&self, question: Question<'_>) -> Result<(), QueryError> {
        let Query { api, group, .. } = self;
        // Days share a millisecond at their borders.
        let mut seen = BTreeSet::new();
        for (first, end) in question.days {
            let (first, end) = (first.div_euclid(1_000_000), end.div_euclid(1_000_000) + 1);
            let mut token: Option<String> = None;
            let mut patience = 60;
            loop {
                let mut request = json!({ "logGroupName": group, "startTime": first, "endTime": end, "limit": 10_000 });
                if let Some(token) = &token {
                    request["nextToken"] = token.as_str().into();
                }
                let page = match api.call("FilterLogEvents", request.to_string().into()).await {
                    Ok(page) => page,
                    // Nothing was ever written.
                    Err(Failure::Refused(refusal))
                        if refusal.reason.starts_with("ResourceNotFoundException") =>
                    {
                        return Ok(());
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
                    let text = |name: &str| event[name].as_str().unwrap_or_default();
                    let at = event["timestamp"].as_i64().unwrap_or(first);
                    let border = at <= first + 1 || at >= end - 2;
                    if !border || seen.insert(text("eventId").to_owned()) {
                        note(question.take, text("message").as_bytes());
                        (question.step)(1);
                    }
                }
                match page["nextToken"].as_str() {
                    Some(next) if token.as_deref() != Some(next) => token = Some(next.to_owned()),
                    _ => break,
                }
            }
        }
        Ok(())
    }
}

impl SinkQuery for Query {
    fn wanted(&mut self, record: &Record<'_>) -> Hash {
        hash(&self.encoder.message(record))
    }

    fn ask<'q>(&'q self, question: Question<'q>) -> Asked<'q> {
        Box::pin(async move { self.events(question).await.map(|()| Answer::All(Ok(()))) })
    }
}
