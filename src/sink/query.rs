//! Asks sinks what they hold, for `docket verify`: what each kind needs for that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;

use reqwest::Method;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::decision::ids::{SpanId, TraceId};
use crate::decision::json;
use crate::decision::record::Record;
use crate::decision::time::Nanos;
use crate::decision::verdict::Verdict;
use crate::http::client::{Client, HttpError};
use crate::http::failure::chain;

/// How a sink is asked, and what it should hold of each decision.
pub trait SinkQuery: Send + Sync {
    /// The hash of what the sink should hold of a record. Called for every record before the sink is asked.
    fn wanted(&mut self, record: &Record<'_>) -> Hash;

    /// Asks the sink.
    fn ask<'q>(&'q self, question: Question<'q>) -> Asked<'q>;

    /// Whether it tells of single decisions, or only how many there are.
    fn tells_decisions(&self) -> bool {
        true
    }
}

pub type Asked<'q> = Pin<Box<dyn Future<Output = Result<Answer, QueryError>> + Send + 'q>>;

/// What a sink is asked for.
#[derive(Clone, Copy)]
pub struct Question<'q> {
    pub decisions: &'q [Decision],
    /// How many are asked for where each is a request of its own.
    pub sample: usize,
    /// Is told how many were asked for.
    pub step: &'q (dyn Fn(u64) + Sync),
}

/// What a sink says.
pub enum Answer {
    /// All that it holds of the decisions.
    All(Found),
    /// The same, of these decisions only.
    Sample(Found, BTreeSet<String>),
    /// How many it counted, by verdict.
    Counts(BTreeMap<String, f64>),
}

/// Why a sink can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error(transparent)]
    Client(#[from] HttpError),
    #[error("{0}")]
    Answer(String),
}

/// 128 bits of a SHA-256.
pub type Hash = u128;

pub fn hash(bytes: &[u8]) -> Hash {
    let digest = Sha256::digest(bytes);
    digest.iter().take(16).fold(0, |hash, byte| hash << 8 | Hash::from(*byte))
}

/// The hash of a JSON document, whatever the order of its members and its white space.
pub fn document_hash(value: &Value) -> Hash {
    fn write(value: &Value, out: &mut Vec<u8>) {
        match value {
            Value::Object(members) => {
                let mut names: Vec<&String> = members.keys().collect();
                names.sort();
                out.push(b'{');
                for name in names {
                    json::push_string(out, name);
                    write(&members[name], out);
                }
                out.push(b'}');
            }
            Value::Array(elements) => {
                out.push(b'[');
                for element in elements {
                    write(element, out);
                    out.push(b',');
                }
                out.push(b']');
            }
            scalar => out.extend_from_slice(scalar.to_string().as_bytes()),
        }
    }
    let mut out = Vec::new();
    write(value, &mut out);
    hash(&out)
}

/// A decision of the docket.
#[derive(Debug, Clone)]
pub struct Decision {
    pub id: String,
    pub timestamp: Nanos,
    /// When Kafka got the docket record, in milliseconds.
    pub kafka: i64,
    pub partition: i32,
    pub verdict: Verdict,
    pub instance: String,
    pub trace_id: TraceId,
    pub span_id: SpanId,
}

impl Decision {
    pub fn new(record: &Record<'_>, partition: i32, kafka: i64) -> Decision {
        Decision {
            id: record.decision_id.to_string(),
            timestamp: record.timestamp,
            kafka,
            partition,
            verdict: record.verdict,
            instance: record.instance.as_deref().unwrap_or_default().to_owned(),
            trace_id: record.trace_id,
            span_id: record.span_id,
        }
    }
}

/// What a sink holds: hashes by decision id.
pub type Found = HashMap<String, Vec<Hash>>;

/// Takes note of a docket record as it was found.
pub(super) fn note(found: &mut Found, line: &[u8]) {
    let Ok(text) = std::str::from_utf8(line) else { return };
    if let Some(id) = json::get(text, "decision_id").and_then(json::as_str) {
        found.entry(id.into_owned()).or_default().push(hash(line));
    }
}

pub(super) fn with_query(url: &str, pairs: &[(&str, &str)]) -> Result<String, QueryError> {
    let mut url = reqwest::Url::parse(url).map_err(|e| QueryError::Answer(e.to_string()))?;
    url.query_pairs_mut().extend_pairs(pairs);
    Ok(url.into())
}

/// The JSON of an answer of 2xx.
pub(super) async fn get(
    client: &Client,
    method: Method,
    url: &str,
    body: Option<Value>,
) -> Result<Value, QueryError> {
    let (status, text) = answer(client, method, url, body).await?;
    if !status.is_success() {
        return Err(QueryError::Answer(format!(
            "the server answered {status}: {}",
            text.chars().take(300).collect::<String>()
        )));
    }
    serde_json::from_str(&text)
        .map_err(|e| QueryError::Answer(format!("the answer is not JSON: {e}")))
}

pub(super) async fn answer(
    client: &Client,
    method: Method,
    url: &str,
    body: Option<Value>,
) -> Result<(reqwest::StatusCode, String), QueryError> {
    let mut request = client.request(method, url);
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let response = request.send().await.map_err(|e| QueryError::Answer(chain(&e.without_url())))?;
    let status = response.status();
    Ok((status, response.text().await.map_err(|e| QueryError::Answer(chain(&e.without_url())))?))
}

/// The stretches of time that hold decisions, each within a day: one that is years old must not make every day since be
/// asked for.
pub(super) fn days(decisions: &[Decision]) -> Vec<(Nanos, Nanos)> {
    const DAY: Nanos = 24 * 3600 * 1_000_000_000;
    let mut days: BTreeMap<Nanos, (Nanos, Nanos)> = BTreeMap::new();
    for at in decisions.iter().map(|d| d.timestamp) {
        let day = days.entry(at.div_euclid(DAY)).or_insert((at, at + 1));
        *day = (day.0.min(at), day.1.max(at + 1));
    }
    days.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_days_with_decisions_are_asked_for() {
        let decision = |timestamp: Nanos| Decision {
            id: String::new(),
            timestamp,
            kafka: 0,
            partition: 0,
            verdict: Verdict::Allow,
            instance: String::new(),
            trace_id: TraceId::INVALID,
            span_id: SpanId::INVALID,
        };
        let day = 24 * 3600 * 1_000_000_000;
        let all =
            [decision(5), decision(3), decision(day), decision(day - 1), decision(1000 * day + 7)];
        assert_eq!(days(&all), [(3, day), (day, day + 1), (1000 * day + 7, 1000 * day + 8)]);
        assert_eq!(days(&[]), []);
    }

    #[test]
    fn documents_are_the_same_whatever_the_order_of_members() {
        let hash = |text: &str| document_hash(&serde_json::from_str(text).unwrap());
        assert_eq!(
            hash(r#"{"a":1,"b":[1,{"c":2,"d":3}]}"#),
            hash(r#"{"b": [1, {"d":3,"c":2}], "a":1}"#)
        );
        assert_ne!(hash(r#"{"a":[1,2]}"#), hash(r#"{"a":[2,1]}"#));
        assert_ne!(hash(r#"{"a":"1"}"#), hash(r#"{"a":1}"#));
        assert_ne!(hash(r#"{"a":[[1],2]}"#), hash(r#"{"a":[[1,2]]}"#));
    }
}
