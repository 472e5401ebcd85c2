//! Asks OPA a question and follows its decision to every sink.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::message::Message;
use serde::Serialize;
use serde_json::{Value, json};

use super::scope::{Checked, Scope, VerifyError, checked, decision};
use crate::decision::record::Record;
use crate::log::scan::{ScanBound, ScanError, TopicScan};
use crate::pipeline::Pipeline;
use crate::pipeline::file::Probe;
use crate::sink::query::{Decision, Question};

/// One question, and how long its decision took to everywhere.
#[derive(Serialize)]
pub struct Probed {
    pub path: String,
    pub expect: String,
    pub verdict: Option<&'static str>,
    pub decision_id: String,
    pub trace_id: String,
    /// Seconds from the question to each place; none if it did not get there in time.
    pub seconds: BTreeMap<String, Option<f64>>,
    /// Why the last question to a sink that did not tell of the decision in time failed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, String>,
    pub ok: bool,
}

/// Asks, and follows for as long as the scope has it (`settle`).
pub async fn probe(
    pipeline: &Pipeline,
    scope: &Scope,
    opa: &str,
    probe: &Probe,
) -> Result<Probed, VerifyError> {
    let mut sinks = checked(pipeline, scope);
    sinks.retain(|sink| {
        !sink.config.delivery().only_routed
            && sink.query.as_ref().is_ok_and(|query| query.tells_decisions())
    });
    let (from, until) = (ScanBound::End, ScanBound::End);
    let past = tokio::task::block_in_place(|| {
        pipeline.scan("verify", &pipeline.docket_topic(), from, until)
    })?;
    let asked = Instant::now();
    let (decision_id, trace_id) = ask(opa, probe).await?;
    let mut probed = Probed {
        path: probe.path.clone(),
        expect: probe.expect.clone(),
        verdict: None,
        decision_id,
        trace_id,
        seconds: sinks.iter().map(|sink| (sink.name.to_owned(), None)).collect(),
        errors: BTreeMap::new(),
        ok: false,
    };
    let in_time = || asked.elapsed() < scope.settle;
    let found =
        tokio::task::block_in_place(|| follow(&past, &probed.decision_id, &mut sinks, &in_time))?;
    let seconds = || Some(asked.elapsed().as_secs_f64());
    probed.seconds.insert("docket".into(), found.as_ref().and_then(|_| seconds()));
    let Some(decision) = found else { return Ok(probed) };
    probed.verdict = Some(decision.verdict.as_str());
    let at = decision.timestamp;
    let one = [decision];
    let id = probed.decision_id.clone();
    let ids = |portion: usize| Ok::<_, std::io::Error>((portion == 0).then(|| vec![id.clone()]));
    while probed.seconds.values().any(Option::is_none) && in_time() {
        for sink in &sinks {
            if let (Some(None), Ok(query)) = (probed.seconds.get(sink.name), &sink.query) {
                let there = AtomicBool::new(false);
                let question = Question {
                    days: &[(at, at + 1)],
                    written: None,
                    ids: &ids,
                    sample: &one,
                    others: None,
                    step: &|_| {},
                    take: &|present| {
                        there.fetch_or(present.id == id, Ordering::Relaxed);
                    },
                };
                // One that can't be asked now may be in a moment.
                match query.ask(question).await {
                    Ok(_) => drop(probed.errors.remove(sink.name)),
                    Err(error) => {
                        probed.errors.insert(sink.name.to_owned(), error.to_string());
                    }
                }
                if there.into_inner() {
                    probed.seconds.insert(sink.name.to_owned(), seconds());
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    probed.ok = probed.seconds.values().all(Option::is_some)
        && probed.verdict == Some(probe.expect.as_str());
    Ok(probed)
}

/// Asks OPA: the ids of the decision and of the trace that it was asked in.
async fn ask(opa: &str, probe: &Probe) -> Result<(String, String), VerifyError> {
    let trace = format!("{:032x}", rand::random::<u128>() | 1);
    let url = format!("{opa}/v1/data/{}", probe.path.trim_matches('/'));
    let request = reqwest::Client::new()
        .post(&url)
        .header("content-type", "application/json")
        .header("traceparent", format!("00-{trace}-{:016x}-01", rand::random::<u64>() | 1))
        .timeout(Duration::from_secs(30))
        .body(json!({ "input": probe.input }).to_string());
    let unreachable = |e: reqwest::Error| {
        VerifyError::Opa(format!("OPA at {opa} can't be asked: {}", e.without_url()))
    };
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    let answer: Value = serde_json::from_str(&response.text().await.map_err(unreachable)?)
        .map_err(|_| VerifyError::Opa(format!("{url} answered {status} and no JSON")))?;
    match answer["decision_id"].as_str() {
        Some(id) => Ok((id.to_owned(), trace)),
        None => Err(VerifyError::Opa(format!(
            "{url} answered {status} without a decision_id; does this OPA write decision logs?"
        ))),
    }
}

/// Waits for the decision in the docket topic.
fn follow(
    past: &TopicScan,
    id: &str,
    sinks: &mut [Checked<'_>],
    in_time: &dyn Fn() -> bool,
) -> Result<Option<Decision>, ScanError> {
    let mut found = None;
    past.follow(&mut |message| {
        if let Some(message) = message
            && let Ok(record) = Record::parse(message.payload().unwrap_or_default())
            && record.decision_id == id
        {
            for sink in sinks.iter_mut() {
                sink.want(&record);
            }
            found = Some(decision(&record, message));
        }
        found.is_none() && in_time()
    })?;
    Ok(found)
}
