//! Asks Prometheus how many decisions it counted.

use std::collections::BTreeMap;

use reqwest::Method;

use super::config::MetricsConfig;
use crate::clock;
use crate::decision::record::Record;
use crate::decision::time::Nanos;
use crate::http::client::Client;
use crate::http::config::Tls;
use crate::sink::query::{
    Answer, Asked, Hash, QueryError, Question, SinkQuery, UNTOLD, get, with_query,
};

/// What came last is delivered and scraped a little later: Prometheus scrapes each minute unless it is told otherwise.
const SCRAPED: Nanos = 75_000_000_000;

type Counts = BTreeMap<String, f64>;

pub struct Query {
    client: Client,
    url: String,
    pipeline: String,
}

impl Query {
    /// Or why it can't be asked.
    pub fn new(
        pipeline: &str,
        config: &MetricsConfig,
    ) -> Result<Result<Query, &'static str>, QueryError> {
        let Some(query) = &config.query else {
            return Ok(Err("its setting query, the address of Prometheus, is not set"));
        };
        let timeout = config.delivery.timeout.0;
        let client = Client::new(&Tls::default(), None, &BTreeMap::new(), timeout)?;
        let url = query.trim_end_matches('/').to_owned();
        Ok(Ok(Query { client, url, pipeline: pipeline.to_owned() }))
    }

    /// What Prometheus counts by verdict, from one time until another and until a later one. What a process counted after it was scraped
    /// last and before it died is not in there.
    async fn counts(
        &self,
        from: Nanos,
        last: Nanos,
        until: Nanos,
    ) -> Result<(Counts, Counts), QueryError> {
        let last = last as f64 / 1e9;
        let (from, until) = (from / 1_000_000_000, until / 1_000_000_000 + 1);
        let step = ((until - from) / 5_000).max(2);
        // What is there then was counted before.
        let from = from - step;
        let query = format!("docket_decisions_total{{pipeline=\"{}\"}}", self.pipeline);
        let range = [
            ("query", query.as_str()),
            ("start", &from.to_string()),
            ("end", &until.to_string()),
            ("step", &step.to_string()),
        ];
        let url = with_query(&format!("{}/api/v1/query_range", self.url), &range)?;
        let answer = get(&self.client, Method::GET, &url, None).await?;
        let (mut least, mut most) = (Counts::new(), Counts::new());
        for series in answer["data"]["result"].as_array().into_iter().flatten() {
            let verdict = series["metric"]["verdict"].as_str().unwrap_or_default();
            let values: Vec<(f64, f64)> = series["values"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|v| Some((v[0].as_f64()?, v[1].as_str()?.parse().ok()?)))
                .collect();
            let by_then = values.partition_point(|(at, _)| *at <= last);
            *least.entry(verdict.to_owned()).or_default() +=
                increase(&values[..by_then], from as f64);
            *most.entry(verdict.to_owned()).or_default() += increase(&values, from as f64);
        }
        Ok((least, most))
    }
}

impl SinkQuery for Query {
    fn wanted(&mut self, _: &Record<'_>) -> Hash {
        UNTOLD
    }

    fn ask<'q>(&'q self, question: Question<'q>) -> Asked<'q> {
        let range = question.written.map(|(a, b)| (a * 1_000_000, b * 1_000_000));
        Box::pin(async move {
            let (least, most) = match range {
                None => Default::default(),
                Some((from, last)) => {
                    self.counts(from, last, clock::now().min(last + SCRAPED)).await?
                }
            };
            Ok(Answer::Counts { least, most })
        })
    }

    fn tells_decisions(&self) -> bool {
        false
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_begin_or_begin_again_within_the_range_count_whole() {
        assert_eq!(increase(&[], 0.0), 0.0);
        assert_eq!(increase(&[(0.0, 5.0), (10.0, 8.0)], 1.0), 3.0);
        assert_eq!(increase(&[(10.0, 5.0), (20.0, 8.0)], 1.0), 8.0);
        assert_eq!(increase(&[(0.0, 5.0), (10.0, 8.0), (20.0, 2.0), (30.0, 4.0)], 1.0), 7.0);
    }
}
