//! Every panel of every dashboard asks something that real servers answer with data.

use serde_json::{Value, json};

use super::logs::LogStore;
use super::{address, get, post};
use docket::clock;

const SECOND: i64 = 1_000_000_000;

const VICTORIALOGS: &str = "victoriametrics-logs-datasource";

pub fn dashboards() -> Vec<(String, Value)> {
    let folder = |of: &str| {
        let folder = format!("{}/deploy/grafana/{of}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path())
    };
    let mut all: Vec<_> = folder("dashboards").chain(folder("victorialogs")).collect();
    all.sort();
    let read = |path: std::path::PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
    };
    all.into_iter().map(read).collect()
}

/// As Grafana would: variables are replaced. What is compared with a day or a week before is compared with ten seconds before.
fn asked(expr: &str, pipeline: &str) -> String {
    let mut expr =
        expr.replace("$pipeline", pipeline).replace("$service", ".*").replace("$policy", ".*");
    for (name, value) in [
        ("$__rate_interval", "20s"),
        ("$__range", "2m"),
        ("$__interval", "5s"),
        ("offset 1d", "offset 10s"),
        ("offset 7d", "offset 10s"),
        ("[5m]", "[30s]"),
        (":5m]", ":10s]"),
    ] {
        expr = expr.replace(name, value);
    }
    assert!(!expr.contains('$'), "{expr}");
    expr
}

/// `base` is the server's API.
async fn series(base: &str, expr: &str, instant: bool) -> Vec<Value> {
    let now = clock::now() / SECOND;
    let mut url =
        reqwest::Url::parse(&format!("{base}/{}", if instant { "query" } else { "query_range" }))
            .unwrap();
    {
        let mut pairs = url.query_pairs_mut();
        pairs.append_pair("query", expr);
        if !instant {
            pairs
                .append_pair("start", &(now - 120).to_string())
                .append_pair("end", &now.to_string())
                .append_pair("step", "5");
        }
    }
    let answer = get(url.as_str()).await;
    assert_eq!(answer["status"], "success", "{expr}: {answer}");
    answer["data"]["result"].as_array().unwrap().clone()
}

fn has_values(series: &[Value]) -> bool {
    let number = |v: &Value| v[1].as_str().is_some_and(|text| text != "NaN");
    series.iter().any(|s| {
        s["values"].as_array().is_some_and(|v| v.iter().any(number)) || number(&s["value"])
    })
}

/// How many buckets or documents a query of Grafana's Elasticsearch data source finds in the pipeline's index: the way in which Grafana
/// puts them into a search, each bucket aggregation within the one before.
async fn found(target: &Value, index: &str) -> usize {
    let mut query = target["query"].as_str().unwrap().to_owned();
    for variable in ["$filter", "$service", "$policy"] {
        query = query.replace(variable, "*");
    }
    let field = target["timeField"].as_str().unwrap();
    let now = clock::now() / 1_000_000;
    let filter = json!([
        { "range": { field: { "gte": now - 3_600_000, "lte": now + 60_000, "format": "epoch_millis" } } },
        { "query_string": { "analyze_wildcard": true, "query": query } },
    ]);
    let raw = target["metrics"][0]["type"] == "raw_data";
    let mut search =
        json!({ "size": if raw { 100 } else { 0 }, "query": { "bool": { "filter": filter } } });
    let aggregations = target["bucketAggs"].as_array().unwrap();
    let mut inner = Value::Null;
    for aggregation in aggregations.iter().rev() {
        let mut this = match aggregation["type"].as_str().unwrap() {
            "terms" => {
                json!({ "terms": { "field": aggregation["field"], "size": aggregation["settings"]["size"].as_str().unwrap().parse::<u64>().unwrap() } })
            }
            "date_histogram" => {
                json!({ "date_histogram": { "field": aggregation["field"], "fixed_interval": "30s" } })
            }
            other => panic!("{other}"),
        };
        if !inner.is_null() {
            this["aggs"] = inner;
        }
        inner = json!({ aggregation["id"].as_str().unwrap(): this });
    }
    if !inner.is_null() {
        search["aggs"] = inner;
    }
    let answer = post(&format!("{}/{index}/_search", address("OPENSEARCH_URL")), search).await;
    if raw {
        return answer["hits"]["hits"].as_array().unwrap().len();
    }
    // Something in the innermost buckets.
    let mut buckets = vec![answer["aggregations"].clone()];
    for aggregation in aggregations {
        let id = aggregation["id"].as_str().unwrap();
        buckets = buckets
            .iter()
            .flat_map(|b| b[id]["buckets"].as_array().cloned().unwrap_or_default())
            .collect();
    }
    buckets.iter().filter(|b| b["doc_count"].as_u64() > Some(0)).count()
}

/// What VictoriaLogs answers of the last hour, as its data source for Grafana asks it: each value of a count with its labels, or lines.
async fn in_victorialogs(target: &Value, expr: &str) -> Vec<Value> {
    super::logs::flush().await;
    let now = clock::now() / SECOND;
    let (at, more) = match target["queryType"].as_str().unwrap() {
        "stats" => ("stats_query", ("time", now.to_string())),
        "instant" => ("query", ("limit", target["maxLines"].to_string())),
        other => panic!("{other}"),
    };
    let url = format!("{}/select/logsql/{at}", address("VICTORIALOGS_URL"));
    let asked = [
        ("query", expr),
        ("start", &(now - 3600).to_string()),
        ("end", &(now + 60).to_string()),
        (more.0, &more.1),
    ];
    let response =
        reqwest::get(reqwest::Url::parse_with_params(&url, asked).unwrap()).await.unwrap();
    let (status, text) = (response.status(), response.text().await.unwrap());
    assert!(status.is_success(), "{expr}: {status} {text}");
    if at == "query" {
        return text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    }
    let answer: Value = serde_json::from_str(&text).unwrap();
    answer["data"]["result"].as_array().unwrap().clone()
}

/// 100,000 subjects are denied, one of them most: the panel names that one, soon.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_denied_is_told_among_100_000_subjects() {
    let _servers = super::together().await;
    super::init();
    let at = clock::now();
    let service = format!("crowd-{:08x}", rand::random::<u32>());
    let line = |subject: &str, n: usize| {
        let stream = json!({ "verdict": "deny", "service": &service });
        let decision = json!({ "decision_id": n.to_string(), "docket": { "verdict": "deny", "subject": subject, "policy": "a/b" } });
        let when = docket::decision::time::format(at - n as i64 * 1_000_000);
        let mut row = json!({ "_time": when, "_msg": decision.to_string() });
        row.as_object_mut().unwrap().extend(stream.as_object().unwrap().clone());
        row.to_string() + "\n"
    };
    let base = address("VICTORIALOGS_URL");
    let into = format!("{base}/insert/jsonline?_stream_fields=verdict,service");
    let client = reqwest::Client::new();
    let ordinary = (0..100_000).map(|n| format!("user-{n}"));
    let most = (0..500).map(|_| "attacker".to_owned());
    let subjects: Vec<String> = ordinary.chain(most).collect();
    for (i, some) in subjects.chunks(10_000).enumerate() {
        let body: String = some.iter().enumerate().map(|(n, s)| line(s, i * 10_000 + n)).collect();
        let answer = client.post(&into).body(body).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
    }
    let (_, dashboard) = dashboards()
        .into_iter()
        .find(|(_, d)| d["panels"].to_string().contains("| stats by (docket.subject)"))
        .unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let target = &panels.iter().find(|p| p["title"] == "Who is denied").unwrap()["targets"][0];
    let expr =
        target["expr"].as_str().unwrap().replace("$service", &service).replace("$policy", ".*");
    let began = std::time::Instant::now();
    let told = in_victorialogs(target, &expr).await;
    let took = began.elapsed();
    println!("told in {took:?}: {}", told[0]);
    assert_eq!(told.len(), 10);
    assert_eq!(told[0]["metric"]["docket.subject"], "attacker");
    assert_eq!(told[0]["value"][1], "500");
    assert!(took < std::time::Duration::from_secs(10), "{took:?}");
}

pub async fn every_panel_has_data(pipeline: &str) {
    let mut empty = Vec::new();
    let mut panels = 0;
    let prometheus = format!("{}/api/v1", address("PROMETHEUS_URL"));
    let loki = LogStore::loki().map(|loki| format!("{}/loki/api/v1", loki.url));
    for (name, dashboard) in dashboards() {
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                let kind = target["datasource"]["type"].as_str().unwrap();
                let instant = target["instant"] == true || target["queryType"] == "instant";
                if kind == "elasticsearch" {
                    panels += 1;
                    if found(target, pipeline).await == 0 {
                        empty.push(format!("{name}: {}: {}", panel["title"], target["query"]));
                    }
                    continue;
                }
                let expr = asked(target["expr"].as_str().unwrap(), pipeline);
                if kind == VICTORIALOGS {
                    panels += 1;
                    if in_victorialogs(target, &expr).await.is_empty() {
                        empty.push(format!("{name}: {}: {expr}", panel["title"]));
                    }
                    continue;
                }
                let base = if kind == "loki" { loki.as_ref() } else { Some(&prometheus) };
                let Some(base) = base else { continue };
                panels += 1;
                if !has_values(&series(base, &expr, instant).await) {
                    empty.push(format!("{name}: {}: {expr}", panel["title"]));
                }
            }
        }
        for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
            series(&prometheus, &asked(annotation["expr"].as_str().unwrap(), pipeline), false)
                .await;
        }
        for variable in dashboard["templating"]["list"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|v| v["type"] == "query" && v["datasource"]["type"] == "prometheus")
        {
            let query = asked(variable["query"]["query"].as_str().unwrap(), pipeline);
            let (selector, label) = query
                .strip_prefix("label_values(")
                .unwrap()
                .strip_suffix(')')
                .unwrap()
                .rsplit_once(", ")
                .unwrap();
            let mut url = reqwest::Url::parse(&format!(
                "{}/api/v1/label/{label}/values",
                address("PROMETHEUS_URL")
            ))
            .unwrap();
            url.query_pairs_mut().append_pair("match[]", selector);
            let values = get(url.as_str()).await;
            assert!(!values["data"].as_array().unwrap().is_empty(), "{name}: {query}");
        }
    }
    assert!(panels > 40, "{panels}");
    assert!(empty.is_empty(), "no data for\n{}", empty.join("\n"));
}
