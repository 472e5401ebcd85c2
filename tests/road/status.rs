//! Readiness, `/status`, and what alerts ask for.

use super::support::until;
use super::*;

async fn ask(running: &Running, path: &str, accept: &str) -> (u16, String) {
    let url = format!("http://{}{path}", running.admin);
    let request = reqwest::Client::new().get(url).header("accept", accept);
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

async fn status(running: &Running) -> Value {
    serde_json::from_str(&ask(running, "/status", "*/*").await.1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_by_kafka_is_not_ready_from_the_first_second() {
    let place = Place::new("refused");
    let pipeline = place.pipeline(
        "name: $NAME\nkafka: {brokers: \"127.0.0.1:1\"}\nsources: [{topic: source}]\nsinks: {metrics: {type: metrics}}\n",
    );
    let running = Running::start(&place, &pipeline);
    let (code, text) = ask(&running, "/readyz", "*/*").await;
    assert!(code == 503 && text.contains(&format!("{}/kafka: ", place.name)), "{code} {text}");
    assert!(text.contains(" (since 20"), "{text}");
    assert_eq!(running.metrics().await.sum("docket_part_up", &["part=\"kafka\""]), 0);
    let status = status(&running).await;
    assert_eq!((&status["ready"], &status["parts"][0]["part"]), (&false.into(), &"kafka".into()));
    assert!(status["parts"][0]["cause"].is_string() && status["parts"][0]["since"].is_string());
}

/// That it can't be reached, where, and since when; not what docket could not find out.
#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_goes_away_is_told_as_that() {
    let mock = mock();
    let place = Place::new("kafka-gone");
    let pipeline = file_pipeline(&place, &mock, "");
    let running = Running::start(&place, &pipeline);
    running.until("all have joined", 60, |m| m.sum("docket_part_up", &[]) == 4).await;
    let brokers = mock.bootstrap();
    let before = docket::decision::time::format(docket::clock::now());
    drop(mock);
    let kafka = until("status says it", 60, async || {
        let status = status(&running).await;
        let parts = status["parts"].as_array().unwrap();
        let kafka = parts.iter().find(|part| part["part"] == "kafka").unwrap();
        if kafka["well"] == false { Ok(kafka.clone()) } else { Err(status.to_string()) }
    })
    .await;
    let cause = kafka["cause"].as_str().unwrap();
    assert!(cause.starts_with(&format!("Kafka at {brokers} can't be reached: ")), "{cause}");
    assert!(kafka["since"].as_str().unwrap() >= before.as_str(), "{kafka}");
    let url = format!("http://{}", running.admin);
    let top =
        docket().args(["top", "--once", "--interval", "100ms", "--url", &url]).output().unwrap();
    let top = String::from_utf8(top.stdout).unwrap();
    assert!(top.contains("can't be reached: ") && top.contains(" (since 20"), "{top}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_sink_makes_nobody_unready_and_status_says_what_is_wrong() {
    let mock = mock();
    let place = Place::new("dead-sink");
    let dead = "  dead: {type: loki, url: \"http://127.0.0.1:9\", delivery: {timeout: 1s, retry_max: 1s}}\n";
    let pipeline = file_pipeline(&place, &mock, dead);
    produce(&mock.bootstrap(), "source", samples());
    let running = Running::start(&place, &pipeline);
    running.until("the other sink delivers", 60, |m| m.delivered("file") == 1960).await;
    let dead = until("status says what is wrong", 30, async || {
        let status = status(&running).await;
        let parts = status["parts"].as_array().unwrap();
        let dead = parts.iter().find(|part| part["part"] == "dead").unwrap();
        // It failed from the first second, and is behind by everything.
        let told = dead["well"] == false && dead["lag"].as_i64().is_some_and(|lag| lag >= 1960);
        if told { Ok(dead.clone()) } else { Err(status.to_string()) }
    })
    .await;
    assert!(dead["cause"].as_str().unwrap().starts_with("connection: "), "{dead}");
    assert_eq!((&dead["ready"], dead["partitions"].as_array().unwrap().len()), (&true.into(), 2));
    assert_eq!(ask(&running, "/readyz", "*/*").await, (200, "ready\n".to_owned()));
    let (_, page) = ask(&running, "/status", "text/html,*/*;q=0.8").await;
    assert!(page.starts_with("<!doctype html>") && page.contains("connection: "), "{page}");
    let metrics = running.metrics().await;
    for part in ["kafka", "intake", "file", "metrics", "dead"] {
        let part = format!("part=\"{part}\"");
        assert_eq!(metrics.sum("docket_part_up", &[&part]), 1, "{part}");
    }
    assert_eq!(metrics.sum("docket_part_expected", &[]), 4);
}

/// `increase` sees nothing of a series that begins at 1.
#[tokio::test(flavor = "multi_thread")]
async fn what_alerts_ask_for_is_there_at_zero() {
    let rules = include_str!("../../deploy/prometheus/docket.rules.yaml");
    let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let asked: HashSet<&str> =
        rules.split(word).filter(|w| w.starts_with("docket_") && w.ends_with("_total")).collect();
    assert!(asked.contains("docket_rejects_total") && asked.len() > 6, "{asked:?}");
    let topics = [("source", 2), ("docket", 2), ("rejects", 1), ("docket.spikes", 1)];
    let mock = Mock::start(&topics).unwrap();
    let place = Place::new("zero");
    let more = "door: {listen: \"127.0.0.1:0\"}\nspikes: {notify: {hook: {type: webhook, url: \"http://127.0.0.1:9\"}}}\n";
    let pipeline = file_pipeline(&place, &mock, more);
    let running = Running::start(&place, &pipeline);
    // What decisions, OPAs and services are called is not known before they come.
    let known = asked.iter().filter(|name| {
        let of_names = [
            "docket_decisions_total",
            "docket_opa_decision_logs_total",
            "docket_enforcement_findings_total",
        ];
        !of_names.contains(*name)
    });
    let known: Vec<&str> = known.copied().collect();
    let metrics = running
        .until("all are there", 30, |m| {
            known.iter().all(|name| m.0.lines().any(|line| line.starts_with(&format!("{name}{{"))))
        })
        .await;
    for name in known {
        assert_eq!(metrics.sum(name, &[]), 0, "{name}");
    }
    for (name, labels) in [
        ("docket_reloads_total", "outcome=\"refused\""),
        ("docket_notifications_total", "notifier=\"hook\",outcome=\"given_up\""),
        ("docket_rejects_total", "part=\"intake\",pipeline=\""),
        ("docket_part_restarts_total", "part=\"file\""),
        ("docket_intake_decisions_total", "verdict=\"deny\""),
        ("docket_intake_records_total", "topic=\"source\""),
        ("docket_transactions_total", "outcome=\"aborted\""),
    ] {
        let has = |line: &str| line.starts_with(name) && line.contains(labels);
        assert!(metrics.0.lines().any(has), "{name} {labels}\n{}", metrics.docket());
    }
}
