//! Asks Loki for every line of the streams that hold decisions: stream by stream, page by page, day by day. VictoriaLogs is
//! asked in its own language, by `logsql`.

use std::collections::{BTreeSet, HashMap};

use reqwest::Method;
use serde_json::Value;

use super::config::{LogServer, LokiConfig};
use super::encode::Encoder;
use super::logsql;
use crate::decision::record::Record;
use crate::decision::time::Nanos;
use crate::http::client::Client;
use crate::sink::query::{
    Answer, Asked, Hash, Present, QueryError, Question, SinkQuery, get, hash, note, with_query,
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
            url: config.base().to_owned(),
            server: config.server,
            encoder: Encoder::new(config),
            streams: BTreeSet::new(),
        })
    }

    async fn lines(&self, question: Question<'_>) -> Result<(), QueryError> {
        let take = question.take;
        let mut read = Lines { take, owners: HashMap::new(), border: HashMap::new(), size: PAGE };
        for (number, selector) in self.streams.iter().enumerate() {
            for (first, end) in question.days {
                read.border.clear();
                self.day((selector.as_str(), number), *first, *end, &mut read, question.step)
                    .await?;
            }
        }
        Ok(())
    }

    /// The lines of a stream between two times.
    async fn day(
        &self,
        (selector, number): (&str, usize),
        first: Nanos,
        end: Nanos,
        read: &mut Lines<'_>,
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
            let (count, last) = read.page(&answer, number, start, step);
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
struct Lines<'q> {
    take: &'q (dyn Fn(Present<'_>) + Sync),
    /// A selector finds the streams of another that has more labels: a stream belongs to who found it first.
    owners: HashMap<String, usize>,
    /// Pages share their borders: the lines at the last one's time. Loki itself keeps no two entries with the same stream, time
    /// and line.
    border: HashMap<Hash, Nanos>,
    /// How many are asked for at once.
    size: usize,
}

impl Lines<'_> {
    /// Takes note of a page; how many lines it has, and the last one's time.
    fn page(
        &mut self,
        answer: &Value,
        number: usize,
        start: Nanos,
        step: &dyn Fn(u64),
    ) -> (usize, Nanos) {
        let (mut count, mut last) = (0, start);
        for stream in answer["data"]["result"].as_array().into_iter().flatten() {
            let labels = stream["stream"].to_string();
            let owned = *self.owners.entry(labels.clone()).or_insert(number) == number;
            for value in stream["values"].as_array().into_iter().flatten() {
                let (Some(at), Some(line)) = (value[0].as_str(), value[1].as_str()) else {
                    continue;
                };
                count += 1;
                let time = at.parse().unwrap_or(last);
                last = last.max(time);
                let hash = hash(format!("{labels}\n{at}\n{line}").as_bytes());
                if owned && self.border.insert(hash, time).is_none() {
                    note(self.take, line.as_bytes());
                    step(1);
                }
            }
        }
        self.border.retain(|_, time| *time >= last);
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
            match self.server {
                LogServer::Loki => self.lines(question).await?,
                LogServer::Victorialogs => {
                    let Query { client, url, streams, .. } = self;
                    logsql::lines(client, url, streams, question).await?;
                }
            }
            Ok(Answer::All(Ok(())))
        })
    }
}
