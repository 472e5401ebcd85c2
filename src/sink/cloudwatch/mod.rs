//! Amazon CloudWatch Logs: `PutLogEvents`, one event a decision; the message is the docket record.
//! <https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html>
//!
//! Its limits are kept before sending: 1,048,576 bytes a request with 26 bytes an event, 10,000 events,
//! 24 hours, in the order of time. What the service rejects in an answer of 200 (`rejectedLogEventsInfo`)
//! is refused record by record. Credentials and region are `aws`'s; SigV4 is reqsign's.

mod api;
mod aws;
mod aws_io;
pub mod config;
mod encode;
pub mod query;

use bytes::Bytes;
use config::CloudwatchConfig;
use serde_json::{Value, json};

use api::Api;
use encode::{Body, Encoder, Put};

use super::{Outcome, Sink};
use crate::decision::record::Record;
use crate::http::client::HttpError;
use crate::http::failure::{Cause, Failure, Refusal, Retry};

/// What became of the records of a request that was answered with 200; nothing if that can't be read: then it is not known which were taken.
fn accepted(answer: &Value, records: usize) -> Option<Vec<Result<(), Failure>>> {
    const ENDS: [&str; 3] =
        ["tooOldLogEventEndIndex", "expiredLogEventEndIndex", "tooNewLogEventStartIndex"];
    let mut ends = [None; 3];
    match &answer["rejectedLogEventsInfo"] {
        Value::Null => {}
        Value::Object(info) => {
            for (name, index) in info.iter().filter(|(_, index)| !index.is_null()) {
                let known = ENDS.iter().position(|end| end == name)?;
                ends[known] = Some(usize::try_from(index.as_u64()?).ok()?);
            }
        }
        _ => return None,
    }
    let [too_old, expired, too_new] = ends;
    let refused =
        |reason: &str| Err(Failure::refused(200, format!("rejectedLogEventsInfo: {reason}")));
    // The ends are exclusive, the start is inclusive.
    let one = |i: usize| {
        if too_old.is_some_and(|end| i < end) {
            refused("the event is older than 14 days, or than the group's retention")
        } else if expired.is_some_and(|end| i < end) {
            refused("the event is older than the group's retention")
        } else if too_new.is_some_and(|start| i >= start) {
            refused("the event is more than 2 hours ahead")
        } else {
            Ok(())
        }
    };
    Some((0..records).map(one).collect())
}

fn is_missing(refusal: &Refusal) -> bool {
    refusal.reason.starts_with("ResourceNotFoundException")
}

pub struct Cloudwatch {
    encoder: Encoder,
    api: Api,
}

impl Cloudwatch {
    pub fn new(config: &CloudwatchConfig) -> Result<Cloudwatch, HttpError> {
        Ok(Cloudwatch { encoder: Encoder::new(config), api: Api::new(config)? })
    }

    /// Asks for one event at most: that is answered to who has the rights that `docket verify` needs. No group yet is no error.
    pub async fn reach(&self) -> Result<(), Failure> {
        let body = json!({ "logGroupName": self.api.config.group, "limit": 1 }).to_string();
        match self.api.call("FilterLogEvents", body.into()).await {
            Err(Failure::Refused(r)) if r.reason.starts_with("ResourceNotFoundException") => {
                if self.api.config.create {
                    return Ok(());
                }
                let group = &self.api.config.group;
                let detail = format!("log group {group} is missing, and create is false");
                Err(Failure::retry(Cause::Misconfigured, detail))
            }
            answer => answer.map(|_| ()),
        }
    }

    async fn put(&self, put: &Put) -> Result<Vec<Result<(), Failure>>, Failure> {
        let mut body =
            json!({ "logGroupName": self.api.config.group, "logStreamName": put.stream })
                .to_string()
                .into_bytes();
        body.truncate(body.len() - 1);
        body.extend_from_slice(b",\"logEvents\":");
        body.extend_from_slice(&put.events);
        body.push(b'}');
        let body = Bytes::from(body);
        let mut answer = self.api.call("PutLogEvents", body.clone()).await;
        if matches!(&answer, Err(Failure::Refused(r)) if is_missing(r)) {
            if !self.api.config.create {
                return Err(Failure::retry(
                    Cause::Misconfigured,
                    format!(
                        "log group {} or stream {} is missing, and create is false",
                        self.api.config.group, put.stream
                    ),
                ));
            }
            self.api.create(&put.stream).await?;
            answer = self.api.call("PutLogEvents", body).await;
            // What was just made may not be known everywhere yet.
            if matches!(&answer, Err(Failure::Refused(r)) if is_missing(r)) {
                let detail = format!("stream {} was made, and is not there yet", put.stream);
                return Err(Failure::retry(Cause::Server, detail));
            }
        }
        match answer {
            Ok(answer) => accepted(&answer, put.records.len()).ok_or_else(|| {
                let detail =
                    "it answered 200, and what it rejected (rejectedLogEventsInfo) can't be read";
                Failure::retry(Cause::Misconfigured, detail)
            }),
            Err(Failure::Refused(r)) if r.reason.starts_with("DataAlreadyAcceptedException") => {
                Ok(vec![Ok(()); put.records.len()])
            }
            Err(failure) => Err(failure),
        }
    }
}

impl Sink for Cloudwatch {
    type Body = Body;

    fn encode(&self, batch: &[Record<'_>]) -> Body {
        self.encoder.encode(batch)
    }

    fn size(body: &Body) -> usize {
        body.puts.iter().map(|put| put.events.len()).sum()
    }

    async fn send(&self, body: &Body) -> Outcome {
        let mut each = vec![Ok(()); body.records];
        for (i, refusal) in &body.refused {
            each[*i] = Err(Failure::Refused(refusal.clone()));
        }
        let mut outage: Option<Retry> = None;
        for put in &body.puts {
            let result = match &outage {
                Some(retry) => Err(Failure::Retry(retry.clone())),
                None => self.put(put).await,
            };
            match result {
                Ok(ones) => put.records.iter().zip(ones).for_each(|(i, one)| each[*i] = one),
                Err(Failure::Retry(retry)) => {
                    put.records.iter().for_each(|i| each[*i] = Err(Failure::Retry(retry.clone())));
                    outage = Some(retry);
                }
                // The request as a whole; if it is all there is, it is halved.
                Err(failure) if body.puts.len() == 1 && body.refused.is_empty() => {
                    return Outcome::Failed(failure);
                }
                Err(refused) if put.records.len() == 1 => {
                    each[put.records[0]] = Err(refused);
                }
                Err(Failure::Refused(refusal)) => {
                    // Sent again by itself, it will be.
                    let kind = api::kind(&refusal.reason);
                    let told = format!(
                        "a request was refused as a whole, with HTTP {}{kind}",
                        refusal.status
                    );
                    let again = Failure::retry(Cause::Server, told);
                    put.records.iter().for_each(|i| each[*i] = Err(again.clone()));
                }
            }
        }
        if each.iter().all(Result::is_ok) {
            return Outcome::Delivered;
        }
        match outage {
            Some(retry) if each.iter().all(|one| matches!(one, Err(Failure::Retry(_)))) => {
                Outcome::Failed(Failure::Retry(retry))
            }
            _ => Outcome::Each(each),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vector 1483, aws-for-fluent-bit 523: an answer of 200 may have rejected some.
    #[test]
    fn what_an_accepted_request_rejected_is_refused_record_by_record() {
        let kinds = |info: Value, n: usize| -> String {
            let ones = accepted(&json!({ "rejectedLogEventsInfo": info }), n).unwrap();
            ones.iter().map(|one| if one.is_ok() { '.' } else { 'x' }).collect()
        };
        assert_eq!(kinds(json!(null), 3), "...");
        assert_eq!(kinds(json!({ "tooOldLogEventEndIndex": 2 }), 5), "xx...");
        assert_eq!(
            kinds(json!({ "expiredLogEventEndIndex": 1, "tooNewLogEventStartIndex": 3 }), 5),
            "x..xx"
        );
        assert_eq!(kinds(json!({ "tooNewLogEventStartIndex": 0 }), 2), "xx");
        assert_eq!(kinds(json!({ "tooOldLogEventEndIndex": null }), 2), "..");
        for unread in [
            json!("all of them"),
            json!([]),
            json!(true),
            json!({ "tooOldLogEventEndIndex": -5 }),
            json!({ "tooOldLogEventEndIndex": "1" }),
            json!({ "tooNewLogEventStartIndex": 0.5 }),
            json!({ "tooLargeLogEventEndIndex": 1 }),
        ] {
            let answer = json!({ "rejectedLogEventsInfo": unread });
            assert_eq!(accepted(&answer, 2), None, "{answer}");
        }
    }
}
