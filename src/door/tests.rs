use prometheus::{IntCounterVec, Opts, Registry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::log::mock::Mock;

/// A door to a Kafka of its own. With `bug` it panics once a decision is written.
fn door(mock: &Mock, bug: bool) -> Arc<Door> {
    let registry = Registry::new();
    let config: DoorConfig = serde_json::from_value(json!({ "listen": "127.0.0.1:0" })).unwrap();
    let mut counts = meters::Meters::new("p", &registry).unwrap();
    if bug {
        counts.decisions = IntCounterVec::new(Opts::new("a", "a"), &["one", "more"]).unwrap();
    }
    Arc::new(Door {
        pipeline: "p".into(),
        kafka: Kafka { brokers: mock.bootstrap(), properties: Default::default() },
        compression: Compression::None,
        topic: "logs".into(),
        rejects_topic: "rejects".into(),
        limits: formats::Limits::default(),
        rules: record::Rules::default(),
        withholds: false,
        clients: Arc::new(Clients::new(&config.tokens, &config.limits)),
        meters: Arc::new(Meters::new("p", &registry).unwrap()),
        counts: Arc::new(counts),
        health: Arc::default(),
        topic_limit: None,
        rejects_limit: None,
        bound: Mutex::default(),
        config,
    })
}

async fn status_of_an_upload(line: &mut TcpStream) -> String {
    let body = r#"[{"decision_id":"d1","timestamp":"2026-11-24T12:00:00Z"}]"#;
    let request = format!(
        "POST /logs HTTP/1.1\r\nhost: door\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    line.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = line.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..length]).split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_answered_and_counted_and_the_connection_goes_on() {
    let mock = Mock::start(&[("logs", 1), ("rejects", 1)]).unwrap();
    for (bug, status) in [(false, "200"), (true, "500")] {
        let door = door(&mock, bug);
        let bound = listen("127.0.0.1:0").unwrap();
        let address = bound.local_addr().unwrap();
        *door.bound.lock().unwrap() = Some(bound);
        let (stop, runs) = (CancellationToken::new(), door.clone());
        let stopped = stop.clone();
        let served = tokio::spawn(async move { runs.run(&stopped).await });
        let mut line = TcpStream::connect(address).await.unwrap();
        for _ in 0..2 {
            assert_eq!(status_of_an_upload(&mut line).await, status);
        }
        drop(line);
        assert_eq!(door.counts.requests.with_label_values(&["logs", status]).get(), 2);
        assert_eq!(door.counts.panics.with_label_values(&["logs"]).get(), if bug { 2 } else { 0 });
        stop.cancel();
        served.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_at_which_docket_panics_goes_on_as_a_whole() {
    let mock = Mock::start(&[("logs", 1), ("rejects", 1)]).unwrap();
    let door = door(&mock, false);
    let at = door.open(&CancellationToken::new()).unwrap();
    let records = at.apart("logs", b"[1,2]", |_| panic!("a bug")).unwrap();
    assert_eq!(records.len(), 1);
    assert!(records[0].key.is_none() && records[0].bytes.as_ref() == b"[1,2]");
    assert_eq!(door.counts.panics.with_label_values(&["logs"]).get(), 1);
    at.write("c", &records).await.unwrap();
    assert_eq!(door.counts.decisions.with_label_values(&["c"]).get(), 1);
}
