//! Asks each sink what it holds.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Decision, Found, Hash, document_hash, hash, logsql};
use crate::decision::json::one_line;
use crate::decision::record::Record;
use crate::decision::time::Nanos;
use crate::pipeline::model::{self, Sink};
use crate::sink::cloudwatch::{self, Api};
use crate::sink::http::Client;
use crate::sink::loki;
use crate::sink::{Cause, Outcome, elasticsearch};

/// Why a sink can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error(transparent)]
    Client(#[from] crate::sink::http::HttpError),
    #[error("{0}")]
    Answer(String),
}

/// How a sink is asked, and what it should hold of each decision.
pub enum Look {
    Elasticsearch {
        client: Client,
        url: String,
        index: String,
    },
    Loki {
        client: Client,
        url: String,
        server: model::LogServer,
        encoder: loki::Encoder,
        streams: BTreeSet<String>,
    },
    Cloudwatch {
        api: Box<Api>,
        group: String,
        encoder: cloudwatch::Encoder,
    },
    File(std::path::PathBuf),
    /// Only a sample: one request a trace.
    Traces {
        client: Client,
        url: String,
    },
    Counts {
        client: Client,
        url: String,
        pipeline: String,
    },
}

fn timeout(config: &model::Delivery) -> Duration {
    config.timeout.0
}

impl Look {
    /// `None` with a reason for a sink that can't be asked.
    pub fn new(pipeline: &str, sink: &Sink) -> Result<Result<Look, &'static str>, LookError> {
        let base = |url: &str| url.trim_end_matches('/').to_owned();
        Ok(match sink {
            sink if sink.delivery().only_routed => Err("it gets only what others do not take"),
            Sink::Elasticsearch(c) => {
                let client =
                    Client::new(&c.tls, c.auth.as_ref(), &c.headers, timeout(&c.delivery))?;
                Ok(Look::Elasticsearch { client, url: base(&c.url), index: c.index.clone() })
            }
            Sink::Loki(c) => {
                let headers = loki::headers(c);
                let client = Client::new(&c.tls, c.auth.as_ref(), &headers, timeout(&c.delivery))?;
                Ok(Look::Loki {
                    client,
                    url: base(&c.url),
                    server: c.server,
                    encoder: loki::Encoder::new(c),
                    streams: BTreeSet::new(),
                })
            }
            Sink::Cloudwatch(c) => Ok(Look::Cloudwatch {
                api: Box::new(Api::new(c)?),
                group: c.group.clone(),
                encoder: cloudwatch::Encoder::new(c),
            }),
            Sink::File(c) if c.path.as_os_str() == "-" => {
                Err("standard output can't be read again")
            }
            Sink::File(c) => Ok(Look::File(c.path.clone())),
            Sink::Otlp(c) => match &c.query {
                None => Err("no query address is set for it"),
                Some(_) if !c.signals.contains(&model::Signal::Traces) => Err("it gets no traces"),
                Some(query) => {
                    // Credentials are for the host that they were given for.
                    let host = |url: &str| {
                        reqwest::Url::parse(url)
                            .ok()
                            .and_then(|url| url.host_str().map(str::to_owned))
                    };
                    let client = if host(query) == host(&c.endpoint) {
                        Client::new(&c.tls, c.auth.as_ref(), &c.headers, timeout(&c.delivery))?
                    } else {
                        Client::new(&c.tls, None, &BTreeMap::new(), timeout(&c.delivery))?
                    };
                    Ok(Look::Traces { client, url: base(query) })
                }
            },
            Sink::Metrics(c) => match &c.query {
                None => Err("no query address is set for it"),
                Some(query) => {
                    let client = Client::new(
                        &model::Tls::default(),
                        None,
                        &BTreeMap::new(),
                        timeout(&c.delivery),
                    )?;
                    Ok(Look::Counts { client, url: base(query), pipeline: pipeline.to_owned() })
                }
            },
        })
    }

    /// The hash of what the sink should hold of a record. Called for every record before `look`.
    pub fn wanted(&mut self, record: &Record<'_>) -> Hash {
        match self {
            Look::Elasticsearch { .. } => {
                let mut document = Vec::new();
                elasticsearch::document(record, &mut document);
                serde_json::from_slice(&document).map_or(0, |value| document_hash(&value))
            }
            Look::Loki { encoder, streams, .. } => {
                let mut selector = String::new();
                encoder.selector(record, &mut selector);
                streams.insert(selector);
                hash(record.raw.as_bytes())
            }
            Look::Cloudwatch { encoder, .. } => hash(&encoder.message(record)),
            Look::File(_) => {
                let mut line = record.raw.as_bytes().to_vec();
                one_line(&mut line);
                hash(&line)
            }
            Look::Traces { .. } | Look::Counts { .. } => 0,
        }
    }

    /// What the sink holds of these decisions; `step` is told how many were asked for. A sink that is asked by
    /// sample answers for some only: then these are returned, too.
    pub async fn look(
        &self,
        decisions: &[Decision],
        sample: usize,
        step: &(dyn Fn(u64) + Sync),
    ) -> Result<(Found, Option<BTreeSet<String>>), LookError> {
        match self {
            Look::Elasticsearch { client, url, index } => {
                Ok((elasticsearch_documents(client, url, index, decisions, step).await?, None))
            }
            Look::Loki { client, url, server: model::LogServer::Loki, streams, .. } => {
                Ok((loki_lines(client, url, streams, decisions, step).await?, None))
            }
            Look::Loki { client, url, streams, .. } => {
                Ok((logsql::lines(client, url, streams, &days(decisions), step).await?, None))
            }
            Look::Cloudwatch { api, group, .. } => {
                Ok((cloudwatch_events(api, group, decisions, step).await?, None))
            }
            Look::File(path) => {
                let text = std::fs::read(path)
                    .map_err(|e| LookError::Answer(format!("{}: {e}", path.display())))?;
                let mut found = Found::new();
                text.split(|b| *b == b'\n').for_each(|line| note(&mut found, line));
                step(decisions.len() as u64);
                Ok((found, None))
            }
            Look::Traces { client, url } => {
                let every = decisions.len().div_ceil(sample.max(1)).max(1);
                let asked: Vec<&Decision> = decisions.iter().step_by(every).collect();
                let mut found = Found::new();
                for decision in &asked {
                    if has_span(client, url, decision).await? {
                        found.insert(decision.id.clone(), vec![0]);
                    }
                    step(every as u64);
                }
                Ok((found, Some(asked.iter().map(|d| d.id.clone()).collect())))
            }
            Look::Counts { .. } => Ok((Found::new(), Some(BTreeSet::new()))),
        }
    }

    /// What Prometheus counts since a time, by verdict. What a process counted after it was scraped last and before
    /// it died is not in there.
    pub async fn counts(
        &self,
        from: Nanos,
        until: Nanos,
    ) -> Result<Option<BTreeMap<String, f64>>, LookError> {
        let Look::Counts { client, url, pipeline } = self else { return Ok(None) };
        let (from, until) = (from / 1_000_000_000, until / 1_000_000_000 + 1);
        let step = ((until - from) / 5_000).max(2);
        let query = format!("docket_decisions_total{{pipeline=\"{pipeline}\"}}");
        let range = [
            ("query", query.as_str()),
            ("start", &from.to_string()),
            ("end", &until.to_string()),
            ("step", &step.to_string()),
        ];
        let answer = ask(
            client,
            Method::GET,
            &with_query(&format!("{url}/api/v1/query_range"), &range)?,
            None,
        )
        .await?;
        let mut counts = BTreeMap::new();
        for series in answer["data"]["result"].as_array().into_iter().flatten() {
            let verdict = series["metric"]["verdict"].as_str().unwrap_or_default();
            let values: Vec<(f64, f64)> = series["values"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|v| Some((v[0].as_f64()?, v[1].as_str()?.parse().ok()?)))
                .collect();
            *counts.entry(verdict.to_owned()).or_default() +=
                increase(&values, from as f64 + step as f64);
        }
        Ok(Some(counts))
    }
}

/// How much a counter grew. One that is not there at the start of the range began at zero, as one that falls did.
fn increase(values: &[(f64, f64)], start: f64) -> f64 {
    let Some((at, first)) = values.first() else { return 0.0 };
    let born = if *at > start { *first } else { 0.0 };
    born + values
        .windows(2)
        .map(|pair| if pair[1].1 < pair[0].1 { pair[1].1 } else { pair[1].1 - pair[0].1 })
        .sum::<f64>()
}

/// Takes note of a docket record as it was found.
fn note(found: &mut Found, line: &[u8]) {
    let Ok(text) = std::str::from_utf8(line) else { return };
    if let Some(id) =
        crate::decision::json::get(text, "decision_id").and_then(crate::decision::json::as_str)
    {
        found.entry(id.into_owned()).or_default().push(hash(line));
    }
}

pub(super) fn with_query(url: &str, pairs: &[(&str, &str)]) -> Result<String, LookError> {
    let mut url = reqwest::Url::parse(url).map_err(|e| LookError::Answer(e.to_string()))?;
    url.query_pairs_mut().extend_pairs(pairs);
    Ok(url.into())
}

async fn ask(
    client: &Client,
    method: Method,
    url: &str,
    body: Option<Value>,
) -> Result<Value, LookError> {
    let (status, text) = answer(client, method, url, body).await?;
    if !status.is_success() {
        return Err(LookError::Answer(format!(
            "the server answered {status}: {}",
            text.chars().take(300).collect::<String>()
        )));
    }
    serde_json::from_str(&text)
        .map_err(|e| LookError::Answer(format!("the answer is no JSON: {e}")))
}

async fn answer(
    client: &Client,
    method: Method,
    url: &str,
    body: Option<Value>,
) -> Result<(reqwest::StatusCode, String), LookError> {
    let mut request = client.request(method, url);
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let response = request.send().await.map_err(|e| LookError::Answer(chain(&e.without_url())))?;
    let status = response.status();
    Ok((status, response.text().await.map_err(|e| LookError::Answer(chain(&e.without_url())))?))
}

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// By id, and by decision id for copies under another id.
async fn elasticsearch_documents(
    client: &Client,
    url: &str,
    index: &str,
    decisions: &[Decision],
    step: &(dyn Fn(u64) + Sync),
) -> Result<Found, LookError> {
    const IDS: usize = 400;
    // What was written last can be searched after a refresh, which may not be allowed here.
    let _ = answer(client, Method::POST, &format!("{url}/{index}/_refresh"), None).await;
    let mut found = Found::new();
    let distinct: BTreeSet<&str> = decisions.iter().map(|d| d.id.as_str()).collect();
    let distinct: Vec<&str> = distinct.into_iter().collect();
    for ids in distinct.chunks(IDS) {
        let any = json!([{ "ids": { "values": ids } }, { "terms": { "decision_id": ids } }, { "terms": { "decision_id.keyword": ids } }]);
        let query = json!({ "size": 10_000, "query": { "bool": { "should": any, "minimum_should_match": 1 } } });
        let page = ask(
            client,
            Method::POST,
            &format!("{url}/{index}/_search?ignore_unavailable=true"),
            Some(query),
        )
        .await?;
        for hit in page["hits"]["hits"].as_array().into_iter().flatten() {
            let source = &hit["_source"];
            // An altered document may have lost its decision id; it stands under its own id still.
            let id = source["decision_id"].as_str().or(hit["_id"].as_str()).unwrap_or_default();
            found.entry(id.to_owned()).or_default().push(document_hash(source));
        }
        step(ids.len() as u64);
    }
    Ok(found)
}

/// Stream by stream, page by page, day by day.
async fn loki_lines(
    client: &Client,
    url: &str,
    streams: &BTreeSet<String>,
    decisions: &[Decision],
    step: &(dyn Fn(u64) + Sync),
) -> Result<Found, LookError> {
    // Loki gives 5000 lines at once and passes 4 MiB between its parts, unless it is told otherwise.
    const PAGE: usize = 2000;
    const LEAST: usize = 20;
    let mut found = Found::new();
    let mut size = PAGE;
    // Pages share their borders, and a selector finds the streams of another that has more labels. Loki itself keeps no
    // two entries with the same stream, time and line.
    let mut seen: HashSet<Hash> = HashSet::new();
    let days = days(decisions);
    for (selector, (first, end)) in
        streams.iter().flat_map(|selector| days.iter().map(move |day| (selector, *day)))
    {
        let mut start = first;
        while start < end {
            let page = [
                ("query", selector.as_str()),
                ("start", &start.to_string()),
                ("end", &end.to_string()),
                ("limit", &size.to_string()),
                ("direction", "forward"),
            ];
            let answer = match ask(
                client,
                Method::GET,
                &with_query(&format!("{url}/loki/api/v1/query_range"), &page)?,
                None,
            )
            .await
            {
                Ok(answer) => answer,
                // Large lines: fewer at once.
                Err(_) if size > LEAST => {
                    size /= 2;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (mut count, mut last) = (0, start);
            for stream in answer["data"]["result"].as_array().into_iter().flatten() {
                let labels = stream["stream"].to_string();
                for value in stream["values"].as_array().into_iter().flatten() {
                    let (Some(at), Some(line)) = (value[0].as_str(), value[1].as_str()) else {
                        continue;
                    };
                    count += 1;
                    last = last.max(at.parse().unwrap_or(last));
                    if seen.insert(hash(format!("{labels}\n{at}\n{line}").as_bytes())) {
                        note(&mut found, line.as_bytes());
                        step(1);
                    }
                }
            }
            if count < size {
                break;
            }
            if last == start {
                return Err(LookError::Answer(format!(
                    "more than {size} lines of {selector} have the same time; they can't be read page by page"
                )));
            }
            start = last;
        }
    }
    Ok(found)
}

async fn cloudwatch_events(
    api: &Api,
    group: &str,
    decisions: &[Decision],
    step: &(dyn Fn(u64) + Sync),
) -> Result<Found, LookError> {
    let mut found = Found::new();
    let mut seen = BTreeSet::new();
    for (first, end) in days(decisions) {
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
                Err(Outcome::Refused(refusal))
                    if refusal.reason.starts_with("ResourceNotFoundException") =>
                {
                    return Ok(found);
                }
                // Few requests a second are allowed.
                Err(Outcome::Retry(retry)) if retry.cause == Cause::Throttled && patience > 0 => {
                    patience -= 1;
                    tokio::time::sleep(retry.after.unwrap_or(Duration::from_secs(1))).await;
                    continue;
                }
                Err(Outcome::Retry(retry)) => return Err(LookError::Answer(retry.detail)),
                Err(Outcome::Refused(refusal)) => return Err(LookError::Answer(refusal.reason)),
                Err(Outcome::Delivered | Outcome::Each(_)) => {
                    return Err(LookError::Answer("an answer without sense".into()));
                }
            };
            for event in page["events"].as_array().into_iter().flatten() {
                // Days share a millisecond at their borders.
                if seen.insert(event["eventId"].as_str().unwrap_or_default().to_owned()) {
                    note(&mut found, event["message"].as_str().unwrap_or_default().as_bytes());
                    step(1);
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

/// The stretches of time that hold decisions, each within a day: one that is years old must not make every day since be
/// asked for.
fn days(decisions: &[Decision]) -> Vec<(Nanos, Nanos)> {
    const DAY: Nanos = 24 * 3600 * 1_000_000_000;
    let mut days: BTreeMap<Nanos, (Nanos, Nanos)> = BTreeMap::new();
    for at in decisions.iter().map(|d| d.timestamp) {
        let day = days.entry(at.div_euclid(DAY)).or_insert((at, at + 1));
        *day = (day.0.min(at), day.1.max(at + 1));
    }
    days.into_values().collect()
}

/// Whether a trace holds the span of a decision. Jaeger writes ids in hex, Tempo in base64 or hex.
async fn has_span(client: &Client, url: &str, decision: &Decision) -> Result<bool, LookError> {
    use base64::Engine;
    let hex = |bytes: &[u8]| crate::decision::ids::hex(bytes);
    let trace = hex(&decision.trace_id.to_bytes());
    let (status, text) =
        answer(client, Method::GET, &format!("{url}/api/traces/{trace}"), None).await?;
    match status.as_u16() {
        404 => Ok(false),
        200 => {
            let span = decision.span_id.to_bytes();
            let quoted = |id: String| text.contains(&format!("\"{id}\""));
            Ok(quoted(hex(&span)) || quoted(base64::engine::general_purpose::STANDARD.encode(span)))
        }
        _ => Err(LookError::Answer(format!("the server answered {status}"))),
    }
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
            verdict: crate::decision::verdict::Verdict::Allow,
            instance: String::new(),
            trace_id: crate::decision::ids::TraceId::INVALID,
            span_id: crate::decision::ids::SpanId::INVALID,
        };
        let day = 24 * 3600 * 1_000_000_000;
        let all =
            [decision(5), decision(3), decision(day), decision(day - 1), decision(1000 * day + 7)];
        assert_eq!(days(&all), [(3, day), (day, day + 1), (1000 * day + 7, 1000 * day + 8)]);
        assert_eq!(days(&[]), []);
    }

    #[test]
    fn counters_that_begin_or_begin_again_within_the_range_count_whole() {
        assert_eq!(increase(&[], 0.0), 0.0);
        assert_eq!(increase(&[(0.0, 5.0), (10.0, 8.0)], 1.0), 3.0);
        assert_eq!(increase(&[(10.0, 5.0), (20.0, 8.0)], 1.0), 8.0);
        assert_eq!(increase(&[(0.0, 5.0), (10.0, 8.0), (20.0, 2.0), (30.0, 4.0)], 1.0), 7.0);
    }
}
