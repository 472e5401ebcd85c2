//! Mask policies mean in docket what they mean in OPA: a real OPA answers and masks, docket masks what OPA would have logged without a
//! policy, and both are compared, event by event.

use std::collections::HashMap;
use std::process::{Command, Stdio};

use docket::decision::event::Event;
use docket::protect::rego::Policy;
use docket::protect::{Protected, Protection};
use docket::rego::SourceFile;
use serde_json::{Map, Value, json};

use super::support::{Place, until};
use super::{address, init};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/mask");

fn read(name: &str) -> String {
    std::fs::read_to_string(format!("{FOLDER}/{name}")).unwrap()
}

/// What masks may touch, and how they say so.
fn touched(event: &Value) -> Value {
    let names = ["input", "result", "nd_builtin_cache", "erased", "masked"];
    names
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), event.get(name)?.clone())))
        .collect::<Map<_, _>>()
        .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn masks_as_opa_does() {
    let _servers = super::together().await;
    init();
    let place = Place::new("mask");
    let cases: Vec<Value> = serde_json::from_str(&read("cases.json")).unwrap();
    let data = place.path("data.json");
    let text = json!({ "cases": cases }).to_string();
    std::fs::write(&data, &text).unwrap();
    let config = place.path("opa.json");
    std::fs::write(
        &config,
        json!({ "decision_logs": { "console": true }, "nd_builtin_cache": true }).to_string(),
    )
    .unwrap();
    let log = place.path("opa.log");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let mut opa = Command::new(address("OPA_BIN"))
        .args([
            "run",
            "--server",
            "--skip-version-check",
            "--log-format",
            "json",
            "--addr",
            &format!("127.0.0.1:{port}"),
            "-c",
        ])
        .arg(&config)
        .args([
            &format!("{FOLDER}/policy.rego"),
            &format!("{FOLDER}/mask.rego"),
            &data.display().to_string(),
        ])
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    until("OPA answers", 20, async || {
        reqwest::get(format!("{url}/health")).await.map_err(|e| e.to_string())
    })
    .await;
    let client = reqwest::Client::new();
    let mut answers = Vec::new();
    for case in &cases {
        let body = json!({ "input": case["input"] }).to_string();
        let answer = client
            .post(format!("{url}/v1/data/t/answer"))
            .body(body)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        answers.push(serde_json::from_str::<Value>(&answer).unwrap());
    }
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    opa.kill().unwrap();
    opa.wait().unwrap();
    let lines = std::fs::read_to_string(&log).unwrap();
    let logged: HashMap<String, Value> = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["msg"] == "Decision Log")
        .map(|line| (line["decision_id"].as_str().unwrap().to_owned(), line))
        .collect();

    let source = |name: &str, text: String| SourceFile { name: name.into(), text };
    let policy = Policy::new(
        &[source("mask.rego", read("mask.rego"))],
        &[source("data.json", text)],
        "data.system.log.mask",
        "data.system.log.drop",
    );
    let protection = Protection { policy: Some(policy.unwrap()), ..Protection::default() };
    let mut wrong = Vec::new();
    let mut unlogged = 0;
    for (case, answer) in cases.iter().zip(&answers) {
        let id = answer["decision_id"].as_str().unwrap();
        // What OPA would have logged without a policy.
        let mut event = json!({ "decision_id": id, "path": "t/answer", "input": case["input"], "timestamp": "2026-11-25T12:00:00Z", "nd_builtin_cache": {} });
        if let Some(result) = answer.get("result") {
            event["result"] = result.clone();
            if case["time"] == true {
                event["nd_builtin_cache"] = json!({ "time.now_ns": { "[]": result } });
            }
        }
        let text = event.to_string();
        let ours = match protection
            .protect(&Event::parse(text.as_bytes()).unwrap(), &mut Vec::new())
        {
            Ok(Protected::AsItWas) => Some(touched(&event)),
            Ok(Protected::Changed(text)) => Some(touched(&serde_json::from_str(&text).unwrap())),
            // OPA does not log what it can't mask; docket rejects it.
            Ok(Protected::Dropped) | Err(_) => None,
        };
        let theirs = logged.get(id).map(touched);
        unlogged += usize::from(theirs.is_none());
        if ours != theirs {
            wrong.push(format!(
                "{}:\n  OPA    {}\n  docket {}",
                case["name"],
                json!(theirs),
                json!(ours)
            ));
        }
    }
    assert!(
        cases.len() >= 60 && (10..20).contains(&unlogged),
        "{} cases, {unlogged} not logged",
        cases.len()
    );
    assert!(wrong.is_empty(), "{} of {} differ\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
