//! Four weeks of a growing platform, reviewed: the numbers are those of the input, and a Prometheus that knows more days is asked
//! for them.

use std::collections::{BTreeMap, HashMap};
use std::process::{Command, Stdio};

use docket::clock;
use docket::decision::time;
use docket::generate::scenario::{Day, Scenario};
use serde_json::Value;

use super::support::{Place, Running, docket, produce, until};
use super::{address, get, pipeline};

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;

/// Weeks of traffic up to the last midnight, each more than the one before.
fn weeks(count: i64) -> Vec<Value> {
    let midnight = clock::now() / DAY * DAY;
    let (mut all, mut second) = (Vec::new(), Vec::new());
    for week in 0..count {
        let start = midnight - (count - week) * 7 * DAY;
        let mut day = Day::new(
            Scenario::WeeklyRhythm,
            11 + week as u64,
            start,
            0.01 * 1.1f64.powi(week as i32),
        );
        let mut now = start;
        while now < start + 7 * DAY {
            day.second(&mut second);
            now += SECOND;
            all.extend(second.iter().map(|made| day.json(made)));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capacity_review_has_the_numbers_of_its_input() {
    let _servers = super::together().await;
    let place = Place::new("capacity");
    let (kafka, name) = (address("KAFKA_BOOTSTRAP"), place.name.clone());
    let rest = "docket: {partitions: 4}
sinks:
  loki: {type: loki, url: \"http://127.0.0.1:9\"}
  search: {type: elasticsearch, url: \"$OPENSEARCH\", index: $NAME}
  lines: {type: file, path: $DIR/lines.ndjson}
";
    let rest = rest
        .replace("$DIR", &place.path("").display().to_string())
        .replace("$OPENSEARCH", &address("OPENSEARCH_URL"));
    let path = pipeline(&place, 4, &rest).await;
    let decisions = weeks(4);
    produce(&kafka, &format!("{name}-source"), decisions.iter().map(Value::to_string));
    let running = Running::start_with(&place, &path, &["--only", "intake", "--only", "sink:lines"]);
    running
        .until("all is in the docket and the file", 120, |m| {
            m.delivered("lines") == decisions.len() as u64
        })
        .await;
    running.stop();

    let out = place.path("review");
    let review = |more: &[&str]| -> Value {
        let run = docket()
            .arg("capacity")
            .arg(&path)
            .args(["--since", "start", "--cores", "2", "--force", "--out"])
            .arg(&out)
            .args(more)
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        serde_json::from_str(&std::fs::read_to_string(out.with_extension("json")).unwrap()).unwrap()
    };
    let seen = review(&[]);
    if let Some(keep) = std::env::var_os("DOCKET_KEEP") {
        std::fs::copy(
            out.with_extension("html"),
            std::path::Path::new(&keep).join("capacity.html"),
        )
        .unwrap();
    }

    // Counted from the input.
    let count = |pointers: &[&str]| {
        let mut counts: BTreeMap<Vec<&str>, u64> = BTreeMap::new();
        for decision in &decisions {
            *counts
                .entry(
                    pointers
                        .iter()
                        .map(|p| decision.pointer(p).unwrap().as_str().unwrap())
                        .collect(),
                )
                .or_default() += 1;
        }
        counts
    };
    assert_eq!(seen["total"]["decisions"], decisions.len());
    for (parts, pointers) in [
        ("services", &["/labels/app"][..]),
        ("policies", &["/labels/app", "/path"]),
        ("opas", &["/labels/app", "/labels/id"]),
    ] {
        let counts = count(pointers);
        let said = seen[parts].as_array().unwrap();
        assert_eq!(said.len(), counts.len(), "{parts}");
        for part in said {
            let key: Vec<&str> =
                [&part["service"], &part["name"]].into_iter().filter_map(Value::as_str).collect();
            assert_eq!(part["decisions"], counts[&key], "{parts} {key:?}");
        }
    }
    let mut seconds: HashMap<&str, u64> = HashMap::new();
    for decision in &decisions {
        *seconds.entry(&decision["timestamp"].as_str().unwrap()[..19]).or_default() += 1;
    }
    assert_eq!(
        seen["total"]["peak_second"]["per_second"],
        *seconds.values().max().unwrap() as f64,
        "partitions are read as they come"
    );
    assert_eq!(seen["read"]["late"], 0);
    let sum: u64 =
        decisions.iter().map(|d| d["metrics"]["timer_server_handler_ns"].as_u64().unwrap()).sum();
    assert_eq!(seen["total"]["evaluation"]["sum_ns"], sum);
    let days = seen["days"].as_array().unwrap();
    assert_eq!(days.len(), 28);
    let growth = seen["forecast"]["growth_per_week"].as_f64().unwrap();
    assert!((0.05..0.12).contains(&growth), "10 % of what it was, each week: {growth}");
    assert!(seen["forecast"]["error"].as_f64().unwrap() < 0.1, "{}", seen["forecast"]);

    // What the file holds is what it weighs; compressed bodies are smaller.
    let volume = |sink: &str| {
        seen["volumes"]
            .as_array()
            .unwrap()
            .iter()
            .find(|v| v["sink"].as_str().unwrap().starts_with(sink))
            .unwrap()["bytes_per_decision"]
            .as_f64()
            .unwrap()
    };
    let written = std::fs::metadata(place.path("lines.ndjson")).unwrap().len() as f64
        / decisions.len() as f64;
    assert!((volume("lines") / written - 1.0).abs() < 0.01, "{} {written}", volume("lines"));
    assert!(volume("search") < volume("lines") / 2.0 && volume("loki") < volume("lines") / 2.0);

    // Prometheus has two weeks more, with a thousand decisions an hour.
    let first = clock::now() / DAY * DAY - 42 * DAY;
    let metrics = place.path("prometheus");
    std::fs::create_dir(&metrics).unwrap();
    let mut text = String::from("# TYPE docket_decisions counter\n");
    for hour in 0..=42 * 24 {
        text += &format!(
            "docket_decisions_total{{pipeline=\"{name}\"}} {} {}\n",
            hour * 1000,
            first / SECOND + hour * 3600
        );
    }
    text += "# EOF\n";
    std::fs::write(metrics.join("past.om"), text).unwrap();
    std::fs::write(metrics.join("prometheus.yml"), "{}\n").unwrap();
    let made = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .arg(metrics.join("past.om"))
        .arg(metrics.join("data"))
        .output();
    assert!(made.as_ref().unwrap().status.success(), "{made:?}");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let mut server = Command::new("prometheus")
        .arg(format!("--config.file={}", metrics.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", metrics.join("data").display()))
        .args([
            "--storage.tsdb.retention.time=400d",
            &format!("--web.listen-address=127.0.0.1:{port}"),
            "--log.level=error",
        ])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let ready = format!("{url}/-/ready");
    until("Prometheus answers", 30, || async {
        reqwest::get(&ready).await.map_err(|e| e.to_string()).and_then(|r| {
            if r.status().is_success() { Ok(()) } else { Err(r.status().to_string()) }
        })
    })
    .await;
    let since = time::format(clock::now());
    let none = docket()
        .arg("capacity")
        .arg(&path)
        .args(["--since", &since, "--force", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    assert!(
        !none.status.success()
            && String::from_utf8_lossy(&none.stderr).contains("there are no decisions in docket."),
        "{none:?}"
    );
    let longer = review(&["--prometheus", &url]);
    let stored = get(&format!(
        "{url}/api/v1/query?query=count(docket_decisions_total)&time={}",
        first / SECOND + 86_400
    ))
    .await;
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(stored["data"]["result"][0]["value"][1], "1");
    let longer_days = longer["days"].as_array().unwrap();
    let (before, same) = longer_days.split_at(longer_days.len() - 28);
    assert_eq!(same, days);
    assert!((13..=14).contains(&before.len()), "{before:?}");
    for day in before {
        assert!(
            (day["decisions"].as_f64().unwrap() / 24_000.0 - 1.0).abs() < 0.01
                && day["from_prometheus"] == true,
            "{day}"
        );
    }
    assert_eq!(longer["total"], seen["total"], "the rest of the review is the docket's");
    assert_eq!(longer["read"]["history"], format!("{url}/"));
}
