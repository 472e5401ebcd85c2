//! Asks sinks what they hold, for `docket verify`: what each kind needs for that.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;

use reqwest::Method;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::decision::ids::{SpanId, TraceId};
use crate::decision::json;
use crate::decision::record::Record;
use crate::decision::time::{self, Nanos};
use crate::decision::verdict::Verdict;
use crate::http::client::{Client, HttpError, place};
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
    /// The stretches of time to look at, each within a day: a decision that is years old must not make every day since be asked for.
    pub days: &'q [(Nanos, Nanos)],
    /// When Kafka got the first and the last of them, in milliseconds.
    pub written: Option<(i64, i64)>,
    /// Their ids, each once, portion by portion; nothing after the last portion.
    pub ids: &'q Portion<'q>,
    /// Some of them, where each is a request of its own.
    pub sample: &'q [Decision],
    /// What else is there is asked for between these times.
    pub others: Option<(Nanos, Nanos)>,
    /// Is told how many were asked for.
    pub step: &'q (dyn Fn(u64) + Sync),
    /// Takes what is there, one by one.
    pub take: &'q (dyn Fn(Present<'_>) + Sync),
}

pub type Portion<'q> = dyn Fn(usize) -> std::io::Result<Option<Vec<String>>> + Sync + 'q;

/// What a sink holds under an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present<'a> {
    pub id: &'a str,
    /// Nothing where it is only known that it is there.
    pub hash: Option<Hash>,
    /// When it was decided, where that is known.
    pub at: Option<Nanos>,
}

/// What a sink says.
#[derive(Debug)]
pub enum Answer {
    /// It was asked for all; or why it is not known what else it holds.
    All(Result<(), String>),
    /// It was asked for these only.
    Sample(BTreeSet<String>),
    /// How many it counted, by verdict: at least, by when the last of them was written, and at most, once that has been delivered and
    /// seen. What comes meanwhile is in the second.
    Counts { least: BTreeMap<String, f64>, most: BTreeMap<String, f64> },
}

/// Why a sink can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error(transparent)]
    Client(#[from] HttpError),
    #[error("{0}")]
    Answer(String),
    #[error("the ids can't be read again: {0}")]
    Ids(#[from] std::io::Error),
}

/// 128 bits of a SHA-256.
pub type Hash = u128;

/// The hash of everything where a sink doesn't tell decisions of one ID apart.
pub const UNTOLD: Hash = 0;

pub fn hash(bytes: &[u8]) -> Hash {
    let digest = Sha256::digest(bytes);
    digest.iter().take(16).fold(0, |hash, byte| hash << 8 | Hash::from(*byte))
}

/// The hash of a valid JSON document, whatever the order of its members, its white space, and the spelling of its strings and
/// numbers. Of any size: no number is read as one.
pub fn document_hash(raw: &str) -> Hash {
    let mut out = Vec::with_capacity(raw.len());
    canonical(raw, 0, &mut out);
    hash(&out)
}

/// Deeper than any document that docket sends.
const DEEPEST: usize = 500;

fn canonical(raw: &str, depth: usize, out: &mut Vec<u8>) {
    match raw.as_bytes().first() {
        Some(b'{' | b'[') if depth == DEEPEST => out.extend_from_slice(raw.as_bytes()),
        Some(b'{') => {
            let mut members: Vec<_> = json::members(raw).map(|m| (m.key(), m.value)).collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            out.push(b'{');
            for (name, value) in members {
                json::push_string(out, &name);
                canonical(value, depth + 1, out);
            }
            out.push(b'}');
        }
        Some(b'[') => {
            out.push(b'[');
            for element in json::elements(raw) {
                canonical(element, depth + 1, out);
                out.push(b',');
            }
            out.push(b']');
        }
        Some(b'"') => json::push_string(out, &json::as_str(raw).unwrap_or_default()),
        Some(b'-' | b'0'..=b'9') => number(raw, out),
        _ => out.extend_from_slice(raw.as_bytes()),
    }
}

/// A number by its digits and their place: 1e2 is 100.0. One whose exponent is out of all bounds stays as it is written.
fn number(raw: &str, out: &mut Vec<u8>) {
    let (mantissa, exponent) = raw.split_once(['e', 'E']).unwrap_or((raw, "0"));
    let Ok(exponent) = exponent.parse::<i64>() else {
        return out.extend_from_slice(raw.as_bytes());
    };
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    let digits = digits.trim_start_matches('0');
    let kept = digits.trim_end_matches('0');
    let place = exponent
        .saturating_sub(fraction.len() as i64)
        .saturating_add((digits.len() - kept.len()) as i64);
    match kept {
        "" => out.push(b'0'),
        kept => out.extend_from_slice(format!("{sign}{kept}e{place}").as_bytes()),
    }
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

/// Tells of a docket record as it was found.
pub(super) fn note(take: &(dyn Fn(Present<'_>) + Sync), line: &[u8]) {
    let Ok(text) = std::str::from_utf8(line) else { return };
    let Some(id) = json::get(text, "decision_id").and_then(json::as_str) else { return };
    let at = json::get(text, "@timestamp").and_then(json::as_str).and_then(|at| time::parse(&at));
    take(Present { id: &id, hash: Some(hash(line)), at });
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
    let text = got(client, method, url, body).await?;
    serde_json::from_str(&text)
        .map_err(|e| QueryError::Answer(format!("the answer is not JSON: {e}")))
}

/// The text of an answer of 2xx.
pub(super) async fn got(
    client: &Client,
    method: Method,
    url: &str,
    body: Option<Value>,
) -> Result<String, QueryError> {
    let (status, text) = answer(client, method, url, body).await?;
    if status.is_success() {
        return Ok(text);
    }
    let told: String = text.chars().take(300).collect();
    Err(QueryError::Answer(format!("the server answered {status}: {told}")))
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
    let failed = |error: reqwest::Error| {
        let at = reqwest::Url::parse(url).map_or_else(|_| String::new(), |url| place(&url) + ": ");
        QueryError::Answer(format!("{at}{}", chain(&error.without_url())))
    };
    let response = request.send().await.map_err(failed)?;
    let status = response.status();
    Ok((status, response.text().await.map_err(failed)?))
}

const DAY: Nanos = 24 * 3600 * 1_000_000_000;

/// The stretches of time that hold decisions, each within a day.
#[derive(Debug, Default)]
pub struct Days(BTreeMap<Nanos, (Nanos, Nanos)>);

impl Days {
    pub fn add(&mut self, at: Nanos) {
        let day = self.0.entry(at.div_euclid(DAY)).or_insert((at, at + 1));
        *day = (day.0.min(at), day.1.max(at + 1));
    }

    /// The day of a time, as far as it is between two others.
    pub fn whole(&mut self, at: Nanos, from: Nanos, until: Nanos) {
        let start = at - at.rem_euclid(DAY);
        self.add(start.max(from));
        self.add((start + DAY).min(until) - 1);
    }

    pub fn stretches(self) -> Vec<(Nanos, Nanos)> {
        self.0.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_days_with_decisions_are_asked_for() {
        let day = 24 * 3600 * 1_000_000_000;
        let stretches = |all: &[Nanos]| {
            let mut days = Days::default();
            all.iter().for_each(|at| days.add(*at));
            days.stretches()
        };
        assert_eq!(
            stretches(&[5, 3, day, day - 1, 1000 * day + 7]),
            [(3, day), (day, day + 1), (1000 * day + 7, 1000 * day + 8)]
        );
        assert_eq!(stretches(&[]), []);
    }

    #[test]
    fn documents_are_the_same_whatever_the_order_of_members() {
        for (one, other) in [
            (r#"{"a":1,"b":[1,{"c":2,"d":3}]}"#, r#"{"b": [1, {"d":3,"c":2}], "a":1}"#),
            (r#"{"a":"\u00e9\/"}"#, r#"{"\u0061":"é/"}"#),
            ("[1e999,-1E+999]", "[10e998,-1e999]"),
            (
                "[100,0.5,0,-0.0,1234567890123456789012]",
                "[1.00e2,5e-1,0e7,0,1234567890123456789012.0]",
            ),
        ] {
            assert_eq!(document_hash(one), document_hash(other), "{one}");
        }
        for (one, other) in [
            (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#),
            (r#"{"a":"1"}"#, r#"{"a":1}"#),
            (r#"{"a":[[1],2]}"#, r#"{"a":[[1,2]]}"#),
            ("[1e999]", "[1e998]"),
            ("[1]", "[-1]"),
            ("[12]", "[1,2]"),
            ("[null]", "[]"),
            ("9007199254740993", "9007199254740992"),
            ("1e99999999999999999999", "1e99999999999999999998"),
            (r#"{"a":null}"#, "{}"),
        ] {
            assert_ne!(document_hash(one), document_hash(other), "{one}");
        }
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(document_hash(&deep), document_hash(&deep));
    }
}
