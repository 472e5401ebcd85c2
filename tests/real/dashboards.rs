//! Every panel of every dashboard asks something that real servers answer with data.

use serde_json::{Value, json};

use super::logs::LogStore;
use super::{address, get, post};
use docket::clock;

const SECOND: i64 = 1_000_000_000;

pub fn dashboards() -> Vec<(String, Value)> {
    let folder = format!("{}/deploy/grafana/dashboards", env!("CARGO_MANIFEST_DIR"));
    let mut all: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
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
    let query = target["query"].as_str().unwrap().replace("$filter", "*");
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
            .filter(|v| v["type"] == "query")
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
