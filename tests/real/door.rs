//! OPA uploads straight in: the door, in front of real Kafka with TLS and SASL, behind a real OPA.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use serde_json::{Value, json};

use super::logs::{self, LogStore};
use super::opa::Opa;
use super::support::{Metrics, Place, Running, generated, read_all, until};
use super::{Stopped, address, certificate, documents, pipeline, tls_client};

const TOKEN: &str = "correct-horse-battery-staple";

/// Where the door is.
pub(super) fn door(running: &Running) -> String {
    let log = running.log();
    let line = log
        .lines()
        .rev()
        .find(|line| line.contains("the door is open"))
        .unwrap_or_else(|| panic!("no door:\n{log}"));
    line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
}

pub(super) async fn opened(running: &Running) -> String {
    until("the door is open", 60, async || {
        if running.log().contains("the door is open") { Ok(()) } else { Err(running.log()) }
    })
    .await;
    door(running)
}

pub(super) fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn id(decision: &str) -> String {
    serde_json::from_str::<Value>(decision).unwrap()["decision_id"].as_str().unwrap().to_owned()
}

pub(super) async fn upload(
    client: &reqwest::Client,
    url: &str,
    decisions: &[String],
) -> Result<u16, String> {
    let body = gzip(format!("[{}]", decisions.join(",")).as_bytes());
    let request = client
        .post(url)
        .bearer_auth(TOKEN)
        .header("content-encoding", "gzip")
        .header("content-type", "application/json");
    request.body(body).send().await.map(|r| r.status().as_u16()).map_err(|e| e.to_string())
}

/// What OPA decided, it keeps until Kafka has it: through the door, TLS and SASL, and a minute without Kafka.
#[tokio::test(flavor = "multi_thread")]
async fn opa_to_backends_through_the_door_with_kafka_away_for_a_minute() {
    let _servers = super::alone().await;
    let stores = LogStore::all().await;
    let place = Place::new("door");
    let name = place.name.clone();
    let rest = format!(
        "kafka:
  brokers: \"{}\"
  properties:
    security.protocol: SASL_SSL
    sasl.mechanism: SCRAM-SHA-512
    sasl.username: recorder
    sasl.password: {password}
    ssl.ca.location: \"{ca}\"
docket: {{partitions: 4}}
door:
  listen: \"127.0.0.1:0\"
  tls: {{cert_file: \"{}\", key_file: \"{}\"}}
  tokens: {{opa: {token}}}
sinks:
{}  search: {{type: elasticsearch, url: \"{}\", index: $NAME}}
  file: {{type: file, path: \"$DIR/out.ndjson\"}}
",
        address("KAFKA_SASL_SSL_BOOTSTRAP"),
        certificate("server.pem"),
        certificate("server.key"),
        logs::sinks(&stores, "labels: {service: service, verdict: verdict, run: =$NAME}"),
        address("OPENSEARCH_URL"),
        ca = certificate("ca.pem"),
        password = place.secret("password", "recorder-password"),
        token = place.secret("token", TOKEN),
    );
    let pipeline = pipeline(&place, 4, &rest).await;
    let running = Running::start(&place, &pipeline);
    let at = opened(&running).await;
    let service = json!({
        "url": format!("https://localhost:{}", at.rsplit(':').next().unwrap()),
        "credentials": { "bearer": { "token": TOKEN } },
        "tls": { "ca_cert": certificate("ca.pem") },
    });
    let opa = Opa::start_with(&place, &service, &json!({ "status": { "service": "sink" } })).await;

    let total = 5000;
    let (asker, url) = (reqwest::Client::new(), opa.url.clone());
    let asked = Arc::new(Mutex::new(HashSet::new()));
    let asking = {
        let asked = asked.clone();
        tokio::spawn(async move {
            for i in 0..total {
                let user = if i % 3 == 0 { "mallory" } else { "bob" };
                let body = json!({ "input": { "method": "GET", "path": ["salary", "bob"], "user": user } });
                let request = asker
                    .post(format!("{url}/v1/data/http/authz/decision"))
                    .header("content-type", "application/json");
                let answer =
                    request.body(body.to_string()).send().await.unwrap().text().await.unwrap();
                let answer: Value = serde_json::from_str(&answer).unwrap();
                asked.lock().unwrap().insert(answer["decision_id"].as_str().unwrap().to_owned());
                // Over some 75 seconds, before, while and after Kafka is away.
                tokio::time::sleep(Duration::from_millis(14)).await;
            }
        })
    };
    running.until("some are through", 60, |m| m.delivered("file") > 200).await;
    let refused =
        |m: &Metrics| m.sum("docket_door_requests_total", &["kind=\"logs\"", "status=\"503\""]);
    let before = refused(&running.metrics().await);
    let stopped = tokio::task::spawn_blocking(|| Stopped::killed("kafka")).await.unwrap();
    let away = Instant::now();
    running.until("the door says 503", 60, |m| refused(m) > before).await;
    until("the door is not ready", 30, async || {
        let ready = reqwest::get(format!("http://{}/readyz", running.admin))
            .await
            .map_err(|e| e.to_string())?;
        let (status, text) =
            (ready.status().as_u16(), ready.text().await.map_err(|e| e.to_string())?);
        if status == 503 && text.contains(&format!("{name}/door: Kafka")) {
            Ok(())
        } else {
            Err(format!("{status} {text}"))
        }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(60).saturating_sub(away.elapsed())).await;
    tokio::task::spawn_blocking(|| drop(stopped)).await.unwrap();
    asking.await.unwrap();
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.len(), total);
    running
        .until("all are delivered", 120, |m| {
            ["victorialogs", "loki", "search", "file"]
                .iter()
                .all(|s| m.delivered(s) >= total as u64)
        })
        .await;
    let found: HashSet<String> = documents(&name)
        .await
        .iter()
        .map(|d| d["decision_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(found, asked, "OpenSearch");
    for store in &stores {
        // What was acknowledged last can be read a little later.
        until(store.name(), 60, async || {
            let lines = store.lines(&format!("{{run=\"{name}\"}}")).await;
            let ids: HashSet<String> = lines.iter().map(|line| id(line)).collect();
            if ids == asked { Ok(()) } else { Err(format!("{} of {}", ids.len(), asked.len())) }
        })
        .await;
    }

    // What OPA says of itself.
    let metrics = running
        .until("OPA told its status", 60, |m| {
            m.sum("docket_opa_decision_logs_total", &["event=\"chunks_uploaded\""]) > 0
        })
        .await;
    let service = format!("service=\"{name}\"");
    assert!(
        metrics
            .sum("docket_opa_decision_logs_total", &["event=\"chunks_upload_failed\"", &service])
            > 0,
        "{}",
        metrics.docket()
    );
    running
        .until("OPA's uploads go well again", 60, |m| {
            m.sum("docket_opa_decision_logs_up", &[&service]) == 1
        })
        .await;
    assert!(metrics.sum("docket_door_decisions_total", &["client=\"opa\""]) >= total as u64);
    drop(opa);
    let log = running.stop();
    assert!(!log.contains(TOKEN) && !log.contains("recorder-password"));
}

/// Killed with SIGKILL in the middle of uploads, again and again: what it said 200 to is in Kafka.
#[tokio::test(flavor = "multi_thread")]
async fn killed_doors_have_what_they_acknowledged() {
    let _servers = super::together().await;
    let place = Place::new("door-kill");
    let pipeline = pipeline(&place, 4, "door: {listen: \"127.0.0.1:0\"}\n").await;
    let acknowledged = Arc::new(Mutex::new(HashSet::new()));
    let decisions = Arc::new(generated(20_000, 3));
    let client = tls_client(false);
    let mut running = Running::start_with(&place, &pipeline, &["--only", "door"]);
    let url = Arc::new(Mutex::new(format!("http://{}/logs", opened(&running).await)));
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let uploading: Vec<_> = (0..8)
        .map(|_| {
            let (acknowledged, decisions, client, url, next) = (
                acknowledged.clone(),
                decisions.clone(),
                client.clone(),
                url.clone(),
                next.clone(),
            );
            tokio::spawn(async move {
                loop {
                    let from = next.fetch_add(50, Ordering::SeqCst);
                    let Some(chunk) = decisions.get(from..from + 50) else { return };
                    // As OPA does: again until it is taken.
                    loop {
                        let at = url.lock().unwrap().clone();
                        if upload(&client, &at, chunk).await == Ok(200) {
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    acknowledged.lock().unwrap().extend(chunk.iter().map(|d| id(d)));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            })
        })
        .collect();
    for round in 0..6u64 {
        tokio::time::sleep(Duration::from_millis(150 + round * 130)).await;
        running.kill();
        running = Running::start_with(&place, &pipeline, &["--only", "door"]);
        *url.lock().unwrap() = format!("http://{}/logs", opened(&running).await);
    }
    for one in uploading {
        one.await.unwrap();
    }
    let acknowledged = acknowledged.lock().unwrap().clone();
    assert_eq!(acknowledged.len(), 20_000);
    let records = read_all(&address("KAFKA_BOOTSTRAP"), &format!("{}-source", place.name));
    let there: HashSet<String> =
        records.iter().map(|r| id(std::str::from_utf8(&r.value).unwrap())).collect();
    assert_eq!(acknowledged.difference(&there).count(), 0, "acknowledged and not in Kafka");
    assert!(records.iter().all(|r| r.key.is_some()));
    println!("{} records for 20000 decisions", records.len());
    running.stop();
}

/// Who may come in, what is refused and why, and what becomes of it.
#[tokio::test(flavor = "multi_thread")]
async fn the_door_says_what_is_wrong() {
    let _servers = super::together().await;
    let place = Place::new("door-says");
    let text = format!(
        "door:
  listen: \"127.0.0.1:0\"
  paths: [/logs, /custom/path]
  tls: {{cert_file: \"$DIR/server.pem\", key_file: \"$DIR/server.key\", client_ca_file: \"{}\"}}
  tokens: {{opa: {}, other: {}}}
  limits: {{body_bytes: 2MiB, requests_per_second: 50}}
",
        certificate("ca.pem"),
        place.secret("token", TOKEN),
        place.secret("other", "another-token-entirely"),
    );
    for file in ["server.pem", "server.key"] {
        std::fs::copy(certificate(file), place.path(file)).unwrap();
    }
    let pipeline = pipeline(&place, 4, &text).await;
    let running = Running::start_with(&place, &pipeline, &["--only", "door"]);
    let at = opened(&running).await;
    let base = format!("https://localhost:{}", at.rsplit(':').next().unwrap());
    let mutual = tls_client(true);
    let send = async |path: &str, token: &str, kind: &str, body: Vec<u8>| {
        let request = mutual
            .post(format!("{base}{path}"))
            .bearer_auth(token)
            .header("content-type", kind)
            .body(body);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.text().await.unwrap())
    };
    let json_type = "application/json";
    let decisions = generated(8, 77);
    let one = |i: usize| format!("[{}]", decisions[i]).into_bytes();

    // Without a client certificate nobody gets as far as a token.
    assert!(tls_client(false).get(format!("{base}/healthz")).send().await.is_err());
    assert!(mutual.get(format!("{base}/healthz")).send().await.unwrap().status().is_success());
    assert_eq!(send("/logs", "wrong", json_type, one(0)).await.0, 401);
    assert_eq!(send("/logs", TOKEN, json_type, one(0)).await.0, 200);
    assert_eq!(send("/logs/some/partition", TOKEN, json_type, one(1)).await.0, 200);
    assert_eq!(send("/custom/path", "another-token-entirely", json_type, one(2)).await.0, 200);
    assert_eq!(send("/elsewhere", TOKEN, json_type, one(2)).await.0, 404);
    let (status, said) =
        send("/logs", TOKEN, json_type, b"[{\"decision_id\": \"cut\"".to_vec()).await;
    assert!(status == 400 && said.contains("not_json") && said.contains("byte"), "{status} {said}");
    let response = mutual
        .post(format!("{base}/logs"))
        .bearer_auth(TOKEN)
        .header("content-encoding", "gzip")
        .body(b"no gzip".to_vec())
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(send("/logs", TOKEN, json_type, vec![b' '; 3 << 20]).await.0, 413);
    assert_eq!(send("/status", TOKEN, json_type, b"{}".to_vec()).await.0, 400);

    // A decision that the topic does not take goes to rejects, the others through.
    let large =
        decisions[3].replacen('{', &format!("{{\"large\":\"{}\",", hex_noise(1_400_000)), 1);
    assert_eq!(
        send(
            "/logs",
            TOKEN,
            json_type,
            format!("[{},{large},{}]", decisions[4], decisions[5]).into_bytes()
        )
        .await
        .0,
        200
    );

    // OTLP, as protobuf and as JSON.
    let record = |text: &str| LogRecord {
        body: Some(AnyValue { value: Some(Any::StringValue(text.to_owned())) }),
        ..Default::default()
    };
    let request = |texts: &[&str]| ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs {
                log_records: texts.iter().map(|t| record(t)).collect(),
                ..Default::default()
            }],
            ..Default::default()
        }],
    };
    let (status, body) = send(
        "/v1/logs",
        TOKEN,
        "application/x-protobuf",
        request(&[&decisions[6], "some other line"]).encode_to_vec(),
    )
    .await;
    assert_eq!((status, body.as_str()), (200, ""));
    let (status, body) = send(
        "/v1/logs",
        TOKEN,
        "application/json",
        serde_json::to_vec(&request(&[&decisions[7]])).unwrap(),
    )
    .await;
    assert_eq!((status, body.as_str()), (200, "{}"));
    assert_eq!(send("/v1/logs", TOKEN, "text/plain", Vec::new()).await.0, 415);
    assert_eq!(
        send("/v1/logs", TOKEN, "application/x-protobuf", b"no protobuf".to_vec()).await.0,
        400
    );

    // More than fifty a second.
    let mut many = Vec::new();
    for _ in 0..120 {
        many.push(send("/status", TOKEN, json_type, b"{}".to_vec()).await.0);
    }
    assert!(many.contains(&429), "{many:?}");
    tokio::time::sleep(Duration::from_secs(2)).await;

    // Tokens change without a restart,
    place.secret("token", "a-new-token-of-some-length");
    until("the new token lets in", 20, async || {
        match send("/logs", "a-new-token-of-some-length", json_type, one(0)).await {
            (200, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(send("/logs", TOKEN, json_type, one(0)).await.0, 401);
    assert_eq!(running.log().matches("the door is open").count(), 1, "{}", running.log());
    // and so does the certificate.
    renew(&place);
    until("the new certificate is shown", 20, async || {
        // A pooled connection keeps the old one.
        match tls_client(true).get(format!("{base}/healthz")).send().await {
            Ok(_) => Err("the old one is".to_owned()),
            Err(e)
                if format!("{e:?}").contains("UnknownIssuer")
                    || format!("{e:?}").contains("InvalidCertificate") =>
            {
                Ok(())
            }
            Err(e) => Err(format!("{e:?}")),
        }
    })
    .await;

    let metrics = running.metrics().await;
    assert_eq!(metrics.sum("docket_rejects_total", &["part=\"door\""]), 4, "{}", metrics.docket());
    assert!(metrics.sum("docket_door_requests_total", &["status=\"401\""]) >= 2);
    let log = running.stop();
    assert!(!log.contains(TOKEN) && !log.contains("another-token-entirely"), "{log}");
    let kafka = address("KAFKA_BOOTSTRAP");
    let letters = read_all(&kafka, &format!("docket.{}.rejects", place.name));
    let mut reasons: Vec<&str> =
        letters.iter().map(|l| l.headers["docket-reason"].as_str()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["bad_gzip", "bad_otlp", "not_json", "too_large"]);
    assert!(letters.iter().all(|l| l.headers["docket-stage"] == "door"));

    // Intake reads what the door wrote: eight decisions but the large one, one of them twice, one line that is no decision.
    let running = Running::start_with(&place, &pipeline, &["--only", "intake"]);
    let metrics = running.until("all are in the docket", 30, |m| m.written() == 8).await;
    assert_eq!(
        (metrics.rejected(), metrics.sum("docket_intake_ignored_total", &[])),
        (0, 1),
        "{}",
        metrics.docket()
    );
    running.stop();
}

pub(super) fn hex_noise(length: usize) -> String {
    (0..length / 16).map(|_| format!("{:016x}", rand::random::<u64>())).collect()
}

/// A certificate of another authority, as if it had been renewed.
pub(super) fn renew(place: &Place) {
    let (key, pem) = (place.path("server.key"), place.path("server.pem"));
    let args = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
    ];
    let made = std::process::Command::new("openssl")
        .args(args)
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&pem)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// What reads at once is closed for a client that waits too long.
#[tokio::test(flavor = "multi_thread")]
async fn headers_have_their_time() {
    let _servers = super::together().await;
    let place = Place::new("door-headers");
    let pipeline =
        pipeline(&place, 4, "door: {listen: \"127.0.0.1:0\", limits: {headers: 1s}}\n").await;
    let running = Running::start_with(&place, &pipeline, &["--only", "door"]);
    let at = opened(&running).await;
    let ended = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(&at).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(b"POST /logs HTTP/1.1\r\nhost:").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).is_ok()
    });
    assert!(ended.await.unwrap());
    running.stop();
}

/// A changed pipeline file that begins to protect: from then on what the door rejects is without its content.
#[tokio::test(flavor = "multi_thread")]
async fn protecting_begins_while_the_door_is_open() {
    let _servers = super::together().await;
    let place = Place::new("door-protect");
    let pipeline = pipeline(&place, 4, "door: {listen: \"127.0.0.1:0\"}\n").await;
    let running = Running::start_with(&place, &pipeline, &["--only", "door"]);
    let client = reqwest::Client::new();
    let broken = async |at: &str| {
        client
            .post(format!("http://{at}/logs"))
            .body("{\"secret\": canary}")
            .send()
            .await
            .map(|r| r.status().as_u16())
    };
    assert_eq!(broken(&opened(&running).await).await.unwrap(), 400);
    let text = std::fs::read_to_string(&pipeline).unwrap();
    std::fs::write(&pipeline, text + "protect: {}\n").unwrap();
    until("the door is opened anew", 20, async || {
        match running.log().matches("the door is open").count() {
            2 => Ok(()),
            other => Err(format!("{other}: {}", running.log())),
        }
    })
    .await;
    assert_eq!(broken(&door(&running)).await.unwrap(), 400);
    running.stop();
    let letters = read_all(&address("KAFKA_BOOTSTRAP"), &format!("docket.{}.rejects", place.name));
    let with_content =
        letters.iter().filter(|l| String::from_utf8_lossy(&l.value).contains("canary")).count();
    assert_eq!((letters.len(), with_content), (2, 1), "{letters:?}");
    assert!(
        letters.iter().all(|l| l.headers.values().all(|v| !v.contains("canary"))),
        "{letters:?}"
    );
}
