//! The servers that take Loki's push protocol: VictoriaLogs, and Loki where LOKI_URL says that there is one. Where there is none, a
//! double of it stands in, except for what only a server of its own can show.

use reqwest::Url;
use serde_json::Value;

use super::support::loki_double::{Limits, LokiDouble};
use super::{address, get, init};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    VictoriaLogs,
    Loki,
    Double,
}

#[derive(Clone)]
pub struct LogStore {
    pub kind: Kind,
    pub url: String,
}

impl LogStore {
    pub fn victorialogs() -> LogStore {
        LogStore { kind: Kind::VictoriaLogs, url: address("VICTORIALOGS_URL") }
    }

    fn installed() -> Option<LogStore> {
        std::env::var("LOKI_URL").ok().map(|url| LogStore { kind: Kind::Loki, url })
    }

    /// A real Loki, for what no other shows; or none, and the test says that it skips this.
    pub fn loki() -> Option<LogStore> {
        let loki = LogStore::installed();
        if loki.is_none() {
            println!("skipped: no loki");
        }
        loki
    }

    /// Those that run as servers of their own and can be stopped.
    pub fn servers() -> Vec<LogStore> {
        [LogStore::victorialogs()].into_iter().chain(LogStore::installed()).collect()
    }

    /// VictoriaLogs, and Loki or its double.
    pub async fn all() -> Vec<LogStore> {
        let mut all = LogStore::servers();
        if all.len() == 1 {
            all.push(LogStore {
                kind: Kind::Double,
                url: LokiDouble::start(Limits::local()).await.url,
            });
        }
        all
    }

    /// What its sink is called in the tests, and the server in deploy/local.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::VictoriaLogs => "victorialogs",
            Kind::Loki | Kind::Double => "loki",
        }
    }

    /// Its sink in a pipeline file, with more settings; `url` is its own or that of what stands before it.
    pub fn sink(&self, url: &str, more: &str) -> String {
        let name = self.name();
        format!("  {name}: {{type: loki, server: {name}, url: \"{url}\", {more}}}\n")
    }

    /// Every line of a selector such as `{run="x"}`, repeats included where the server keeps them.
    pub async fn lines(&self, selector: &str) -> Vec<String> {
        self.ask(selector, None).await
    }

    /// Those whose structured metadata has the value.
    pub async fn lines_with(&self, selector: &str, name: &str, value: &str) -> Vec<String> {
        self.ask(selector, Some((name, value))).await
    }

    async fn ask(&self, selector: &str, with: Option<(&str, &str)>) -> Vec<String> {
        if self.kind == Kind::VictoriaLogs {
            let with = with.map_or(String::new(), |(n, v)| format!(" {n}:=\"{v}\""));
            let rows = logsql(&format!("{selector}{with} | fields _msg")).await;
            return rows.iter().map(|row| row["_msg"].as_str().unwrap().to_owned()).collect();
        }
        // Loki does not ask its ingesters for what is older than some hours; flushed chunks it finds.
        reqwest::Client::new().post(format!("{}/flush", self.url)).send().await.unwrap();
        let with = with.map_or(String::new(), |(n, v)| format!(" | {n}=\"{v}\""));
        let now = jiff::Timestamp::now().as_nanosecond();
        let (start, end) = (now - 20 * 86_400_000_000_000, now + 60_000_000_000);
        let mut lines = Vec::new();
        // Loki answers with 4 MB at most.
        for begins in ["[0-3]", "[4-7]", "[89ab]", "[c-f]"] {
            let query = format!("{selector} |~ `\"decision_id\":\"{begins}`{with}");
            let mut url = Url::parse(&format!("{}/loki/api/v1/query_range", self.url)).unwrap();
            url.query_pairs_mut()
                .append_pair("query", &query)
                .append_pair("limit", "100000")
                .append_pair("start", &start.to_string())
                .append_pair("end", &end.to_string());
            let found = get(url.as_str()).await;
            let streams = found["data"]["result"].as_array().unwrap();
            let values = streams.iter().flat_map(|s| s["values"].as_array().unwrap());
            lines.extend(values.map(|v| v[1].as_str().unwrap().to_owned()));
        }
        lines
    }
}

/// The sinks of several in a pipeline file.
pub fn sinks(stores: &[LogStore], more: &str) -> String {
    stores.iter().map(|store| store.sink(&store.url, more)).collect()
}

/// What VictoriaLogs took a moment ago isn't found before it has flushed.
pub async fn flush() {
    let url = format!("{}/internal/force_flush", address("VICTORIALOGS_URL"));
    let flushed = reqwest::get(url).await.unwrap();
    assert!(flushed.status().is_success(), "{}", flushed.status());
}

/// What VictoriaLogs answers to a query in LogsQL.
pub async fn logsql(query: &str) -> Vec<Value> {
    init();
    let at = address("VICTORIALOGS_URL");
    flush().await;
    let url = format!("{at}/select/logsql/query");
    let url = Url::parse_with_params(&url, [("query", query)]).unwrap();
    let response = reqwest::get(url).await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    assert!(status.is_success(), "{query}: {status} {text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
