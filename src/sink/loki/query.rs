//! Asks Loki for every line of the streams that hold decisions: stream by stream, page by page, day by day. VictoriaLogs is
//! asked in its own language, by `logsql`.

use std::collections::{BTreeSet, HashSet};

use reqwest::Method;
use serde_json::Value;

use super::config::{LogServer, LokiConfig};
use super::encode::Encoder;
use super::logsql;
use crate::decision::record::Record;
use crate::decision::time::Nanos;
use crate::http::client::Client;
use crate::sink::query::{
    Answer, Asked, Found, Hash, QueryError, Question, SinkQuery, days, get, hash, note, with_query,
};

/// Loki gives 5000 lines at once and passes 4 MiB between its parts, unless it is told otherwise.
const PAGE: usize = 2000;
const LEAST: usize = 20;

pub struct Query {
    client: Client,
    url: String,
    server: LogServer,
    encoder: Encoder,
    streams: BTreeSet<String>,
}

impl Query {
    pub fn new(config: &LokiConfig) -> Result<Query, QueryError> {
        Ok(Query {
            client: config.client()?,
            url: config.url.trim_end_matches('/').to_owned(),
            server: config.server,
            encoder: Encoder::new(config),
            streams: BTreeSet::new(),
        })
    }

    async fn lines(&self, question: Question<'_>) -> Result<Found, QueryError> {
        let mut read = Lines { found: Found::new(), seen: HashSet::new(), size: PAGE };
        for selector in &self.streams {
            for (first, end) in days(question.decisions) {
                self.day(selector, first, end, &mut read, question.step).await?;
            }
        }
        Ok(read.found)
    }

    /// The lines of a stream between two times.
    async fn day(
        &self,
        selector: &str,
        first: Nanos,
        end: Nanos,
        read: &mut Lines,
        step: &(dyn Fn(u64) + Sync),
    ) -> Result<(), QueryError> {
        let mut start = first;
        while start < end {
            let size = read.size;
            let page = [
                ("query", selector),
                ("start", &start.to_string()),
                ("end", &end.to_string()),
                ("limit", &size.to_string()),
                ("direction", "forward"),
            ];
            let url = with_query(&format!("{}/loki/api/v1/query_range", self.url), &page)?;
            let answer = match get(&self.client, Method::GET, &url, None).await {
                Ok(answer) => answer,
                // Large lines: fewer at once.
                Err(_) if size > LEAST => {
                    read.size /= 2;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (count, last) = read.page(&answer, start, step);
            if count < size {
                break;
            }
            if last == start {
                return Err(QueryError::Answer(format!(
                    "more than {size} lines of {selector} have the same time; they can't be read page by page"
                )));
            }
            start = last;
        }
        Ok(())
    }
}

/// The lines that were read.
struct Lines {
    found: Found,
    /// Pages share their borders, and a selector finds the streams of another that has more labels. Loki itself keeps no
    /// two entries with the same stream, time and line.
    seen: HashSet<Hash>,
    /// How many are asked for at once.
    size: usize,
}

impl Lines {
    /// Takes note of a page; how many lines it has, and the last one's time.
    fn page(&mut self, answer: &Value, start: Nanos, step: &dyn Fn(u64)) -> (usize, Nanos) {
        let (mut count, mut last) = (0, start);
        for stream in answer["data"]["result"].as_array().into_iter().flatten() {
            let labels = stream["stream"].to_string();
            for value in stream["values"].as_array().into_iter().flatten() {
                let (Some(at), Some(line)) = (value[0].as_str(), value[1].as_str()) else {
                    continue;
                };
                count += 1;
                last = last.max(at.parse().unwrap_or(last));
                if self.seen.insert(hash(format!("{labels}\n{at}\n{line}").as_bytes())) {
                    note(&mut self.found, line.as_bytes());
                    step(1);
                }
            }
        }
        (count, last)
    }
}

impl SinkQuery for Query {
    fn wanted(&mut self, record: &Record<'_>) -> Hash {
        let mut selector = String::new();
        self.encoder.selector(record, &mut selector);
        self.streams.insert(selector);
        hash(record.raw.as_bytes())
    }

    fn ask<'q>(&'q self, question: Question<'q>) -> Asked<'q> {
        Box::pin(async move {
            let found = match self.server {
                LogServer::Loki => self.lines(question).await?,
                LogServer::Victorialogs => {
                    let days = days(question.decisions);
                    let Query { client, url, streams, .. } = self;
                    logsql::lines(client, url, streams, &days, question.step).await?
                }
            };
            Ok(Answer::All(found))
        })
    }
}
