//! Asks VictoriaLogs, in LogsQL, for the lines of streams: `POST /select/logsql/query` answers with a JSON object a line.
//! <https://docs.victoriametrics.com/victorialogs/querying/#querying-logs>

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;

use crate::decision::json;
use crate::decision::time::{self, Nanos};
use crate::http::client::Client;
use crate::http::failure::chain;
use crate::sink::query::{Hash, Present, QueryError, Question, hash, with_query};

const SECOND: Nanos = 1_000_000_000;

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(rename = "_msg", borrow)]
    line: Cow<'a, str>,
    #[serde(rename = "_stream_id", borrow)]
    stream: Cow<'a, str>,
}

/// More lines are asked for in shorter stretches, as long as there are.
const LINES: usize = 50_000;

/// A line that was found: its stream, the decision, when it was decided, and the hash of the whole.
type Line = (String, String, Option<Nanos>, Hash);

/// Stream by stream, in stretches of time: what takes the server too long is asked for in halves.
pub(super) async fn lines(
    client: &Client,
    url: &str,
    streams: &BTreeSet<String>,
    question: Question<'_>,
) -> Result<(), QueryError> {
    // A selector finds the streams of another that has more labels, too. A stream belongs to who found it first.
    let mut owners: HashMap<String, &str> = HashMap::new();
    for selector in streams {
        let mut left: Vec<(Nanos, Nanos)> = question.days.iter().rev().copied().collect();
        while let Some((first, end)) = left.pop() {
            match stretch(client, url, selector, first, end).await? {
                Ok(lines) => {
                    (question.step)(lines.len() as u64);
                    for (stream, id, at, hash) in lines {
                        if *owners.entry(stream).or_insert(selector) == selector {
                            (question.take)(Present { id: &id, hash: Some(hash), at });
                        }
                    }
                }
                Err(_) if end - first > SECOND => {
                    let middle = first + (end - first) / 2;
                    left.extend([(middle, end), (first, middle)]);
                }
                Err(why) => {
                    let at = time::format(first);
                    return Err(QueryError::Answer(format!(
                        "the lines of {selector} at {at} can't be read to their end: {why}"
                    )));
                }
            }
        }
    }
    Ok(())
}

/// The lines, or why the answer broke off.
async fn stretch(
    client: &Client,
    url: &str,
    selector: &str,
    first: Nanos,
    end: Nanos,
) -> Result<Result<Vec<Line>, String>, QueryError> {
    let (from, until) = (time::format(first), time::format(end));
    let query = format!("{selector} _time:[{from}, {until}) | fields _msg, _stream_id");
    let url = with_query(&format!("{url}/select/logsql/query"), &[("query", &query)])?;
    // The answer comes as fast as it is read.
    let request = client.request(Method::POST, &url).timeout(Duration::from_secs(3600));
    let mut response =
        request.send().await.map_err(|e| QueryError::Answer(chain(&e.without_url())))?;
    let status = response.status();
    if !status.is_success() {
        let text = response.bytes().await.unwrap_or_default();
        let why = format!("the server answered {status}: {}", shown(&text));
        return if status.is_server_error() { Ok(Err(why)) } else { Err(QueryError::Answer(why)) };
    }
    let (mut lines, mut rest) = (Vec::new(), Vec::new());
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => rest.extend_from_slice(&chunk),
            Ok(None) if rest.is_empty() => return Ok(Ok(lines)),
            Ok(None) => return Ok(Err(shown(&rest))),
            Err(e) => return Ok(Err(chain(&e.without_url()))),
        }
        let Some(whole) = memchr::memrchr(b'\n', &rest) else { continue };
        for row in rest[..whole].split(|b| *b == b'\n') {
            // What is no row is the server's word that it gave up.
            let Ok(row) = serde_json::from_slice::<Row<'_>>(row) else {
                return Ok(Err(shown(row)));
            };
            let text = |name| json::get(&row.line, name).and_then(json::as_str);
            if let Some(id) = text("decision_id") {
                let (id, hash) = (id.into_owned(), hash(row.line.as_bytes()));
                let at = text("@timestamp").and_then(|at| time::parse(&at));
                lines.push((row.stream.into_owned(), id, at, hash));
            }
        }
        rest.drain(..=whole);
        if lines.len() > LINES && end - first > SECOND {
            return Ok(Err(format!("it has more than {LINES} lines")));
        }
    }
}

/// What a server says, cut.
fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).trim().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{StatusCode, Uri};
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    /// Has one line a second for ten seconds, in a stream that two selectors find, and gives up in the middle of an answer of more than
    /// three; `asked` are the seconds that it was asked for.
    async fn server(asked: Arc<Mutex<Vec<i64>>>) -> String {
        let answer = move |uri: Uri| {
            let url = reqwest::Url::parse(&format!("http://x{uri}")).unwrap();
            let query = url.query_pairs().next().unwrap().1.into_owned();
            if query.starts_with("{wrong") {
                return std::future::ready((StatusCode::BAD_REQUEST, "cannot parse".to_owned()));
            }
            let range = query.split_once("_time:[").unwrap().1.split_once(')').unwrap().0;
            let (from, until) = range.split_once(", ").unwrap();
            let (from, until) = (time::parse(from).unwrap(), time::parse(until).unwrap());
            asked.lock().unwrap().push((until - from) / SECOND);
            let row = |i: i64| {
                let line = format!("{{\\\"decision_id\\\":\\\"d{i}\\\"}}");
                format!("{{\"_msg\":\"{line}\",\"_stream_id\":\"s\"}}\n")
            };
            let mut rows: Vec<String> =
                (0..10).filter(|i| (from..until).contains(&(i * SECOND))).map(row).collect();
            if rows.len() > 3 {
                rows.truncate(2);
                rows.push("cannot execute query: timeout\n".to_owned());
            }
            std::future::ready((StatusCode::OK, rows.concat()))
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new().fallback(axum::routing::post(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    #[tokio::test]
    async fn what_is_too_much_is_asked_for_in_halves_and_each_line_counts_once() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let asked: Arc<Mutex<Vec<i64>>> = Arc::default();
        let url = server(asked.clone()).await;
        let timeout = Duration::from_secs(5);
        let client = Client::new(&Default::default(), None, &BTreeMap::new(), timeout).unwrap();
        let streams = ["{a=\"b\"}", "{a=\"b\", c=\"d\"}"].map(str::to_owned).into();
        let taken = Mutex::new(Vec::new());
        let take = |present: Present<'_>| taken.lock().unwrap().push(present.id.to_owned());
        let asking = |days| Question {
            days,
            written: None,
            ids: &|_| Ok(None),
            sample: &[],
            others: None,
            step: &|_| {},
            take: &take,
        };
        let days = [(0, 8 * SECOND), (8 * SECOND, 9 * SECOND)];
        lines(&client, &url, &streams, asking(&days)).await.unwrap();
        let mut ids = taken.lock().unwrap().clone();
        ids.sort_unstable();
        let wanted: Vec<String> = (0..9).map(|i| format!("d{i}")).collect();
        assert_eq!(ids, wanted);
        assert_eq!(asked.lock().unwrap()[..8], [8, 4, 2, 2, 4, 2, 2, 1]);

        let wrong = ["{wrong".to_owned()].into();
        let error = lines(&client, &url, &wrong, asking(&[(0, SECOND)])).await.unwrap_err();
        let told = error.to_string();
        assert!(told.contains("400") && told.contains("cannot parse"), "{told}");
    }
}
