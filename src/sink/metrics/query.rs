//! Asks Prometheus how many decisions it counted.

use std::collections::{BTreeMap, HashMap};

use reqwest::Method;
use serde_json::Value;

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
        let times = [from, until, step].map(|n| n.to_string());
        let counters = format!("docket_decisions_total{{pipeline=\"{}\"}}", self.pipeline);
        let counted = self.range(&counters, &times).await?;
        // A counter that begins again may be higher than it was when it is seen next.
        let begun = format!("process_start_time_seconds and on (job, instance) {counters}");
        let begun: HashMap<Target, Values> = self
            .range(&begun, &times)
            .await?
            .into_iter()
            .map(|(labels, values)| (target(&labels), values))
            .collect();
        let (mut least, mut most) = (Counts::new(), Counts::new());
        for (labels, values) in counted {
            let verdict = labels["verdict"].as_str().unwrap_or_default();
            let begun = begun.get(&target(&labels)).map_or(&[][..], Vec::as_slice);
            let by_then = values.partition_point(|(at, _)| *at <= last);
            *least.entry(verdict.to_owned()).or_default() +=
                increase(&values[..by_then], begun, from as f64);
            *most.entry(verdict.to_owned()).or_default() += increase(&values, begun, from as f64);
        }
        Ok((least, most))
    }

    /// The series of a query from one time until another, so many seconds apart.
    async fn range(
        &self,
        query: &str,
        [from, until, step]: &[String; 3],
    ) -> Result<Vec<(Value, Values)>, QueryError> {
        let range = [("query", query), ("start", from), ("end", until), ("step", step)];
        let url = with_query(&format!("{}/api/v1/query_range", self.url), &range)?;
        let mut answer = get(&self.client, Method::GET, &url, None).await?;
        let series = answer["data"]["result"].as_array_mut().map(std::mem::take);
        let read = |mut series: Value| {
            let values = series["values"].as_array().into_iter().flatten();
            let values =
                values.filter_map(|v| Some((v[0].as_f64()?, v[1].as_str()?.parse().ok()?)));
            let values = values.collect();
            (series["metric"].take(), values)
        };
        Ok(series.into_iter().flatten().map(read).collect())
    }
}

/// Who was scraped: its job and instance.
type Target = [String; 2];
/// Times, and what was scraped last by then.
type Values = Vec<(f64, f64)>;

fn target(labels: &Value) -> Target {
    ["job", "instance"].map(|name| labels[name].as_str().unwrap_or_default().to_owned())
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

/// How much a counter grew. One that is not there at the start of the range began at zero, as one did that falls, or whose process began
/// meanwhile: `begun` is when it did, by the same times.
fn increase(values: &[(f64, f64)], begun: &[(f64, f64)], start: f64) -> f64 {
    let Some((at, first)) = values.first() else { return 0.0 };
    let born = if *at > start { *first } else { 0.0 };
    let process = |at: f64| {
        let i = begun.partition_point(|(when, _)| *when <= at).checked_sub(1)?;
        Some(begun[i].1)
    };
    let grown = |pair: &[(f64, f64)]| {
        let ((from, before), (to, now)) = (pair[0], pair[1]);
        let again = matches!((process(from), process(to)), (Some(a), Some(b)) if a != b);
        if again || now < before { now } else { now - before }
    };
    born + values.windows(2).map(grown).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_begin_or_begin_again_within_the_range_count_whole() {
        let plain = |values: &[(f64, f64)], start| increase(values, &[], start);
        assert_eq!(plain(&[], 0.0), 0.0);
        assert_eq!(plain(&[(0.0, 5.0), (10.0, 8.0)], 1.0), 3.0);
        assert_eq!(plain(&[(10.0, 5.0), (20.0, 8.0)], 1.0), 8.0);
        let falls = [(0.0, 5.0), (10.0, 8.0), (20.0, 2.0), (30.0, 4.0)];
        assert_eq!(plain(&falls, 1.0), 7.0);
        // It was started again, and counted more than before until it was seen.
        let rises = [(0.0, 5.0), (10.0, 8.0), (20.0, 9.0), (30.0, 11.0)];
        let begun = [(0.0, 77.0), (10.0, 77.0), (20.0, 95.0), (30.0, 95.0)];
        assert_eq!((plain(&rises, 1.0), increase(&rises, &begun, 1.0)), (6.0, 14.0));
        assert_eq!(increase(&falls, &begun, 1.0), 7.0);
    }
}
