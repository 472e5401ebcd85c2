//! The service's API: where it is, who asks, and what its answers mean. Credentials and region are `aws`'s; SigV4 is reqsign's.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http;
use bytes::Bytes;
use reqsign_aws_v4::{Credential, RequestSigner};
use reqsign_core::time::Timestamp;
use reqsign_core::{Context, SignRequest, SigningCredential};
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};

use super::aws;
use super::config::CloudwatchConfig;
use crate::http::client::{self, Client, HttpError, Reply};
use crate::http::failure::{Cause, Failure, Refusal, Retry};

/// The service's API: where it is, and who asks.
pub struct Api {
    client: Client,
    pub config: CloudwatchConfig,
    resolved: OnceCell<Resolved>,
    credentials: Mutex<Option<Credential>>,
}

struct Resolved {
    endpoint: String,
    signer: RequestSigner,
    source: aws::Source,
}

impl Api {
    pub fn new(config: &CloudwatchConfig) -> Result<Api, HttpError> {
        let client = Client::new(&config.tls, None, &BTreeMap::new(), config.delivery.timeout.0)?;
        Ok(Api {
            client,
            config: config.clone(),
            resolved: OnceCell::new(),
            credentials: Mutex::default(),
        })
    }

    /// Region and source of credentials: asked for once they are needed, since an instance's metadata may be slow to come up.
    async fn resolved(&self) -> Result<&Resolved, Failure> {
        let resolve = async || {
            let (profile, region) = (self.config.profile.as_deref(), self.config.region.as_deref());
            let source = aws::Source::load(profile, region).await.map_err(|e| {
                Failure::retry(Cause::Misconfigured, format!("AWS configuration: {e}"))
            })?;
            let Some(region) = &source.region else {
                return Err(Failure::retry(
                    Cause::Misconfigured,
                    "no region is known; set region in the pipeline file, or AWS_REGION",
                ));
            };
            let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
            let endpoint = self
                .config
                .endpoint
                .clone()
                .unwrap_or_else(|| format!("https://logs.{region}.amazonaws.com{suffix}"));
            Ok(Resolved {
                endpoint: format!("{}/", endpoint.trim_end_matches('/')),
                signer: RequestSigner::new("logs", region),
                source,
            })
        };
        self.resolved.get_or_try_init(resolve).await
    }

    async fn credentials(&self, resolved: &Resolved) -> Result<Credential, Failure> {
        let mut kept = self.credentials.lock().await;
        let soon = Timestamp::now() + Duration::from_secs(300);
        if let Some(credentials) = kept.as_ref().filter(|c| c.is_valid_at(soon)) {
            return Ok(credentials.clone());
        }
        // The error tells which source failed, and no secret.
        let got = resolved.source.credentials().await.map_err(|error| {
            Failure::retry(Cause::Credentials, format!("no AWS credentials: {error}"))
        })?;
        Ok(kept.insert(got).clone())
    }

    /// Calls an operation. A refusal carries the service's error type before its message.
    pub async fn call(&self, operation: &str, body: Bytes) -> Result<Value, Failure> {
        let resolved = self.resolved().await?;
        let credentials = self.credentials(resolved).await?;
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::retry(Cause::Misconfigured, format!("the request can't be signed: {error}"))
        };
        let (mut head, ()) = http::Request::post(&resolved.endpoint)
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("Logs_20140328.{operation}"))
            .header("x-amz-content-sha256", reqsign_core::hash::hex_sha256(&body))
            .body(())
            .map_err(|e| wrong(&e))?
            .into_parts();
        resolved
            .signer
            .sign_request(&Context::new(), &mut head, Some(&credentials), None)
            .await
            .map_err(|e| wrong(&e))?;
        let request = self.client.request(head.method, &resolved.endpoint).headers(head.headers);
        let Reply { status, after, headers, content } =
            self.client.deliver(request, &resolved.endpoint, body).await?;
        if status.is_success() {
            return answered(operation, status, &headers, &content).ok_or_else(|| {
                let detail = format!(
                    "it answered {status}, and not as CloudWatch Logs does; is the endpoint right?"
                );
                Failure::retry(Cause::Misconfigured, detail)
            });
        }
        let outcome = meaning(status, after, &content);
        if matches!(&outcome, Failure::Retry(r) if r.cause == Cause::Credentials) {
            *self.credentials.lock().await = None;
        }
        Err(outcome)
    }

    /// Makes the log group and a stream in it.
    pub async fn create(&self, stream: &str) -> Result<(), Failure> {
        let group = &self.config.group;
        let made = self.unless_there("CreateLogGroup", json!({ "logGroupName": group })).await?;
        if let Some(days) = self.config.retention_days.filter(|_| made) {
            self.call(
                "PutRetentionPolicy",
                json!({ "logGroupName": group, "retentionInDays": days }).to_string().into(),
            )
            .await?;
        }
        self.unless_there(
            "CreateLogStream",
            json!({ "logGroupName": group, "logStreamName": stream }),
        )
        .await?;
        tracing::info!(group, stream, "log stream created");
        Ok(())
    }

    async fn unless_there(&self, operation: &str, body: Value) -> Result<bool, Failure> {
        match self.call(operation, body.to_string().into()).await {
            Ok(_) => Ok(true),
            Err(Failure::Refused(refusal))
                if refusal.reason.starts_with("ResourceAlreadyExistsException") =>
            {
                Ok(false)
            }
            // A name that CloudWatch does not take, say: the stream is missing for good, and so an outage.
            Err(Failure::Refused(refusal)) => Err(Failure::retry(
                Cause::Misconfigured,
                format!("{operation}: {}", refusal.reason),
            )),
            Err(outcome) => Err(outcome),
        }
    }
}

/// What an answer other than 2xx means. CloudWatch says with 400 what others say with 429 or 403.
fn meaning(status: reqwest::StatusCode, after: Option<Duration>, answer: &[u8]) -> Failure {
    let content: Value = serde_json::from_slice(answer).unwrap_or_default();
    let kind = content["__type"].as_str().unwrap_or_default();
    let kind = kind.rsplit('#').next().unwrap_or_default();
    let message = content["message"].as_str().or(content["Message"].as_str()).unwrap_or_default();
    let cause = match kind {
        "ThrottlingException"
        | "Throttling"
        | "TooManyRequestsException"
        | "LimitExceededException"
        | "RequestLimitExceeded" => Cause::Throttled,
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "ExpiredTokenException"
        | "ExpiredToken"
        | "AccessDeniedException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "InvalidClientTokenId"
        | "SignatureDoesNotMatch"
        | "NotAuthorized"
        | "RequestTimeTooSkewed"
        | "RequestExpired"
        | "OptInRequired" => Cause::Credentials,
        "ServiceUnavailableException"
        | "ServiceUnavailable"
        | "InternalFailure"
        | "InternalServerError"
        | "OperationAbortedException" => Cause::Server,
        "" => return client::meaning(status, after, answer),
        _ if status.is_server_error() => Cause::Server,
        kind => {
            let reason = format!("{kind}: {message}").chars().take(1000).collect();
            return Failure::Refused(Refusal { status: status.as_u16(), reason });
        }
    };
    // The message may quote what was signed.
    let of_time = ["Signature expired", "Signature not yet current"];
    let clock = match of_time.iter().any(|begins| message.starts_with(begins))
        || ["RequestTimeTooSkewed", "RequestExpired"].contains(&kind)
    {
        true => "; its clock and this machine's differ: is this one right?",
        false => "",
    };
    let detail = format!("the service answered {} {kind}{clock}", status.as_u16());
    Failure::Retry(Retry { cause, detail, after })
}

/// The name of an error, of a reason that begins with it; the rest may quote data.
pub fn kind(reason: &str) -> String {
    let name = reason.split(':').next().unwrap_or_default();
    let is_one = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric());
    if is_one { format!(" {name}") } else { String::new() }
}

/// What an accepted request says; nothing if it is not the service's answer: 200 with a JSON object, or with nothing by operations that
/// tell nothing. Of events that were put, the object has a member that the service's has
/// (<https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html>), or the answer the ID that AWS gives each
/// request.
fn answered(
    operation: &str,
    status: reqwest::StatusCode,
    headers: &http::HeaderMap,
    content: &[u8],
) -> Option<Value> {
    if status != reqwest::StatusCode::OK {
        return None;
    }
    let tells_nothing =
        matches!(operation, "CreateLogGroup" | "CreateLogStream" | "PutRetentionPolicy");
    if content.is_empty() {
        return tells_nothing.then(|| json!({}));
    }
    let answer: Value = serde_json::from_slice(content).ok().filter(Value::is_object)?;
    // An error, whatever its status.
    if answer.get("__type").is_some() {
        return None;
    }
    let known = ["nextSequenceToken", "rejectedLogEventsInfo", "rejectedEntityInfo"];
    let is_its = headers.contains_key("x-amzn-requestid")
        || operation != "PutLogEvents"
        || known.iter().any(|member| answer.get(member).is_some());
    is_its.then_some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_named_and_a_clock_that_is_wrong_is_told() {
        let status = reqwest::StatusCode::BAD_REQUEST;
        let said = |kind: &str, message: &str| {
            let answer = json!({ "__type": format!("com.amazon#{kind}"), "message": message });
            match meaning(status, None, answer.to_string().as_bytes()) {
                Failure::Retry(retry) => (Some(retry.cause), retry.detail),
                Failure::Refused(refusal) => (None, super::kind(&refusal.reason)),
            }
        };
        let (cause, detail) = said("InvalidSignatureException", "Signature expired: 2026 is now");
        assert!(cause == Some(Cause::Credentials) && detail.contains("is this one right?"));
        let (cause, detail) = said("RequestTimeTooSkewed", "");
        assert!(cause == Some(Cause::Credentials) && detail.contains("is this one right?"));
        let (_, detail) = said("InvalidSignatureException", "The Canonical String is x");
        assert!(detail.ends_with("InvalidSignatureException"), "{detail}");
        assert_eq!(
            said("SerializationException", "of secret"),
            (None, " SerializationException".into())
        );
        assert_eq!((kind("<html>: x"), kind("")), (String::new(), String::new()));
    }

    #[test]
    fn only_what_the_service_answers_is_an_answer() {
        let is_one = |operation: &str, status: u16, id: bool, content: &str| {
            let mut headers = http::HeaderMap::new();
            if id {
                headers.insert("x-amzn-requestid", "e2ad8a6e".parse().unwrap());
            }
            let status = reqwest::StatusCode::from_u16(status).unwrap();
            answered(operation, status, &headers, content.as_bytes()).is_some()
        };
        assert!(is_one("PutLogEvents", 200, true, r#"{"nextSequenceToken":"4959"}"#));
        assert!(is_one("PutLogEvents", 200, false, r#"{"nextSequenceToken":"4959"}"#));
        assert!(is_one("PutLogEvents", 200, true, "{}"));
        assert!(
            is_one("CreateLogStream", 200, true, "") && is_one("CreateLogStream", 200, false, "")
        );
        for (status, id, content) in [
            (200, true, ""),
            (200, true, "<html>"),
            (200, true, "[]"),
            (200, false, "{}"),
            (200, false, r#"{"status":"ok"}"#),
            (200, true, r#"{"__type":"ThrottlingException"}"#),
            (200, true, r#"{"__type":null,"nextSequenceToken":"4959"}"#),
            (202, true, "{}"),
            (204, true, ""),
        ] {
            assert!(!is_one("PutLogEvents", status, id, content), "{status} {id} {content}");
        }
    }

    #[test]
    fn errors_mean_outages_by_their_type_not_by_their_status() {
        let cause = |status: u16, kind: &str| {
            let answer = json!({ "__type": kind, "message": "why" }).to_string();
            match meaning(reqwest::StatusCode::from_u16(status).unwrap(), None, answer.as_bytes()) {
                Failure::Retry(retry) => retry.cause.as_str().to_owned(),
                Failure::Refused(refusal) => refusal.reason,
            }
        };
        assert_eq!(cause(400, "ThrottlingException"), "throttled");
        assert_eq!(cause(400, "com.amazonaws.logs#ThrottlingException"), "throttled");
        assert_eq!(cause(400, "UnrecognizedClientException"), "credentials");
        assert_eq!(cause(400, "ExpiredTokenException"), "credentials");
        assert_eq!(cause(403, "AccessDeniedException"), "credentials");
        assert_eq!(cause(503, "ServiceUnavailableException"), "server");
        assert_eq!(cause(500, "SomethingNew"), "server");
        assert_eq!(cause(400, "InvalidParameterException"), "InvalidParameterException: why");
        assert!(
            matches!(meaning(reqwest::StatusCode::UNAUTHORIZED, None, b"proxy"), Failure::Retry(r) if r.cause == Cause::Credentials)
        );
    }
}
