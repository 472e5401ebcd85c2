//! Every panel of every dashboard asks something that real servers answer with data.

use serde_json::Value;

use super::{address, get};
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
    let mut expr = expr.replace("$pipeline", pipeline).replace("$service", ".*").replace("$policy", ".*");
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

async fn series(kind: &str, expr: &str, instant: bool) -> Vec<Value> {
    let now = clock::now() / SECOND;
    let base = match kind {
        "prometheus" => format!("{}/api/v1", address("PROMETHEUS_URL")),
        _ => format!("{}/loki/api/v1", address("LOKI_URL")),
    };
    let mut url = reqwest::Url::parse(&format!("{base}/{}", if instant { "query" } else { "query_range" })).unwrap();
    {
        let mut pairs = url.query_pairs_mut();
        pairs.append_pair("query", expr);
        if !instant {
            pairs.append_pair("start", &(now - 120).to_string()).append_pair("end", &now.to_string()).append_pair("step", "5");
        }
    }
    let answer = get(url.as_str()).await;
    assert_eq!(answer["status"], "success", "{expr}: {answer}");
    answer["data"]["result"].as_array().unwrap().clone()
}

fn has_values(series: &[Value]) -> bool {
    let number = |v: &Value| v[1].as_str().is_some_and(|text| text != "NaN");
    series.iter().any(|s| s["values"].as_array().is_some_and(|v| v.iter().any(number)) || number(&s["value"]))
}

pub async fn every_panel_has_data(pipeline: &str) {
    let mut empty = Vec::new();
    let mut panels = 0;
    for (name, dashboard) in dashboards() {
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                let kind = target["datasource"]["type"].as_str().unwrap();
                let instant = target["instant"] == true || target["queryType"] == "instant";
                let expr = asked(target["expr"].as_str().unwrap(), pipeline);
                panels += 1;
                if !has_values(&series(kind, &expr, instant).await) {
                    empty.push(format!("{name}: {}: {expr}", panel["title"]));
                }
            }
        }
        for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
            series("prometheus", &asked(annotation["expr"].as_str().unwrap(), pipeline), false).await;
        }
        for variable in dashboard["templating"]["list"].as_array().unwrap().iter().filter(|v| v["type"] == "query") {
            let query = asked(variable["query"]["query"].as_str().unwrap(), pipeline);
            let (selector, label) = query.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap().rsplit_once(", ").unwrap();
            let mut url = reqwest::Url::parse(&format!("{}/api/v1/label/{label}/values", address("PROMETHEUS_URL"))).unwrap();
            url.query_pairs_mut().append_pair("match[]", selector);
            let values = get(url.as_str()).await;
            assert!(!values["data"].as_array().unwrap().is_empty(), "{name}: {query}");
        }
    }
    assert!(panels > 40, "{panels}");
    assert!(empty.is_empty(), "no data for\n{}", empty.join("\n"));
}
