//! Canaries: forty kinds of secrets, planted in inputs, results, headers, envelopes, errors, broken records and the pipeline file. None comes
//! out anywhere: no sink, no topic after intake, no log, no metric, no reject.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

use super::logs::LogStore;
use super::support::canaries::{self, noise};
use super::support::{Place, Running, create_topic, docket, read_all};
use super::{address, documents, get, init};

fn upper(length: usize) -> String {
    noise(length).to_uppercase()
}

/// Appends the digit that makes Luhn's sum right.
fn card(prefix: &str, length: usize) -> String {
    let mut digits: Vec<u32> = prefix.chars().filter_map(|c| c.to_digit(10)).collect();
    while digits.len() < length - 1 {
        digits.push(rand::random::<u32>() % 10);
    }
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, d)| if i % 2 == 0 { d * 2 % 10 + d * 2 / 10 } else { *d })
        .sum();
    digits.push((10 - sum % 10) % 10);
    digits.iter().map(u32::to_string).collect()
}

/// A German account with its check digits.
fn iban() -> String {
    let account: String = (0..18).map(|_| (rand::random::<u32>() % 10).to_string()).collect();
    let rest = format!("{account}131400")
        .bytes()
        .fold(0u64, |rest, b| (rest * 10 + u64::from(b - b'0')) % 97);
    format!("DE{:02}{account}", 98 - rest)
}

/// What is planted: kind, the text that holds the secret, and the part of it that must come out nowhere.
fn planted() -> Vec<(&'static str, String, String)> {
    let mut all = Vec::new();
    let mut add = |kind, text: String, secret: &str| all.push((kind, text, secret.to_owned()));
    for (kind, before, length, after) in [
        ("jwt in a sentence", "see eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.", 43, " there"),
        ("jwe", "eyJhbGciOiJSU0EtT0FFUCJ9.T0tB.NDhW.NWV5.", 22, ""),
        ("bearer", "Authorization: Bearer ", 30, ""),
        ("basic", "curl -H 'authorization: basic ", 20, "=='"),
        ("negotiate", "Negotiate ", 40, ""),
        ("RSA key", "-----BEGIN RSA PRIVATE KEY-----\n", 64, "\n-----END RSA PRIVATE KEY-----\n"),
        ("EC key, cut", "-----BEGIN EC PRIVATE KEY-----\n", 64, ""),
        (
            "OpenSSH key",
            "x -----BEGIN OPENSSH PRIVATE KEY-----\n",
            64,
            "\n-----END OPENSSH PRIVATE KEY----- y",
        ),
        (
            "PGP key",
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n",
            64,
            "\n-----END PGP PRIVATE KEY BLOCK-----",
        ),
        ("GitHub", "ghp_", 36, ""),
        ("GitHub, fine-grained", "token=github_pat_", 60, "&x=1"),
        ("GitLab", "glpat-", 20, ""),
        ("Slack", "xoxb-1234567890-", 24, ""),
        ("Stripe", "sk_live_", 24, ""),
        ("Google", "key=AIza", 35, ""),
        ("Google OAuth", "ya29.", 60, ""),
        ("npm", "npm_", 36, ""),
        ("PyPI", "pypi-", 60, ""),
        ("Hugging Face", "hf_", 34, ""),
        ("Vault", "hvs.", 24, ""),
        ("OpenAI", "sk-", 48, ""),
        ("Docker", "dckr_pat_", 27, ""),
        ("database URL", "postgres://app:", 16, "@db:5432/orders"),
        ("URL with userinfo", "fetch https://robot:", 20, "@example.com/x failed"),
    ] {
        let secret = noise(length);
        add(kind, format!("{before}{secret}{after}"), &secret);
    }
    let secret = format!("{}.{}", noise(22), noise(43));
    add("SendGrid", format!("SG.{secret}"), &secret);
    for prefix in ["AKIA", "ASIA"] {
        let secret = format!("{prefix}{}", upper(16));
        add("AWS", format!("id {secret}, region eu"), &secret);
    }
    let number = card("4", 16);
    add(
        "Visa with spaces",
        number
            .as_bytes()
            .chunks(4)
            .map(|c| std::str::from_utf8(c).unwrap())
            .collect::<Vec<_>>()
            .join(" "),
        &number[4..12],
    );
    let number = card("37", 15);
    add("Amex", format!("paid with {number}."), &number);
    let email = format!("{}@mail.example.com", noise(12));
    add("e-mail", format!("write to {email}!"), &email);
    let account = iban();
    add("IBAN", account.clone(), &account);
    let ssn = format!(
        "{}-{}-{}",
        100 + rand::random::<u32>() % 500,
        10 + rand::random::<u32>() % 89,
        1000 + rand::random::<u32>() % 8999
    );
    add("SSN", format!("ssn {ssn}"), &ssn);
    all
}

/// A CloudWatch that keeps what it gets.
async fn keeper() -> (String, Arc<Mutex<Vec<u8>>>) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let keep = kept.clone();
    let router = Router::new().fallback(move |headers: axum::http::HeaderMap, body: Bytes| {
        let mut kept = keep.lock().unwrap();
        if headers.get("content-encoding").is_some_and(|e| e == "gzip") {
            std::io::Read::read_to_end(
                &mut flate2::read::MultiGzDecoder::new(&body[..]),
                &mut kept,
            )
            .unwrap();
        } else {
            kept.extend_from_slice(&body);
        }
        std::future::ready(r#"{"nextSequenceToken":"1"}"#)
    });
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, kept)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_canary_comes_out() {
    let _servers = super::together().await;
    init();
    let place = Place::new("canary");
    let name = place.name.clone();
    let kafka = address("KAFKA_BOOTSTRAP");
    create_topic(&kafka, &format!("{name}-source"), 2, &[]).await;
    let planted = planted();
    // By the name of the member that holds them, whatever they look like.
    let named: Vec<(&str, String)> = [
        "password",
        "Client-Secret",
        "apiKey",
        "refresh_token",
        "private_key",
        "secretAccessKey",
        "sessionToken",
        "X-Api-Key",
    ]
    .map(|n| (n, noise(18)))
    .to_vec();
    // Of the pipeline file.
    let config: Vec<String> = (0..7).map(|_| noise(32)).collect();
    std::fs::write(place.path("hash.key"), &config[0]).unwrap();
    let encryption: String =
        (0..64).map(|_| char::from_digit(rand::random::<u32>() % 16, 16).unwrap()).collect();
    std::fs::write(place.path("encryption.key"), &encryption).unwrap();
    let (cloudwatch, kept) = keeper().await;
    let stores = LogStore::all().await;
    let log_sinks: String = stores
        .iter()
        .map(|store| {
            let password = place.secret("config-2", &config[2]);
            let auth = format!("auth: {{type: basic, username: u, password: {password}}}");
            store.sink(&store.url, &format!("labels: {{run: =$NAME}}, {auth}"))
        })
        .collect();
    let pipeline = place.pipeline(&format!(
        "name: $NAME
kafka:
  brokers: \"{}\"
  properties: {{security.protocol: sasl_ssl, ssl.ca.location: \"{}/ca.pem\", sasl.mechanism: PLAIN, sasl.username: recorder, sasl.password: \"${{env:CANARY_PASSWORD}}\"}}
sources: [{{topic: $NAME-source}}]
docket: {{partitions: 2}}
door: {{listen: \"127.0.0.1:0\", tokens: {{a: {}}}}}
protect:
  hash_key: \"${{file:$DIR/hash.key}}\"
  encryption_key: {{id: k1, key: \"${{file:$DIR/encryption.key}}\"}}
  detect: {{email: hash}}
  rules:
    - {{path: /input/erased, action: erase}}
    - {{path: /input/replaced, action: replace}}
    - {{path: /input/hashed, action: hash}}
    - {{path: /input/sealed, action: encrypt}}
    - {{path: \"/input/**/cut\", action: truncate, length: 4}}
sinks:
{log_sinks}  search: {{type: elasticsearch, url: \"{}\", index: $NAME, headers: {{x-canary: {}}}}}
  traces: {{type: otlp, endpoint: \"{}\", protocol: http, auth: {{type: bearer, token: {}}}}}
  cloudwatch: {{type: cloudwatch, endpoint: \"{cloudwatch}\", region: us-east-1, group: $NAME}}
  file: {{type: file, path: $DIR/out.ndjson}}
  refusing: {{type: loki, url: \"{cloudwatch}/refuse\", auth: {{type: bearer, token: {}}}, delivery: {{max_age: 1ms}}}}
telemetry: {{push: {{p: {{type: remote_write, url: \"{}/api/v1/write\", interval: 1s, headers: {{x-canary: {}}}}}}}}}
",
        address("KAFKA_SASL_SSL_BOOTSTRAP"),
        address("KAFKA_TLS"),
        place.secret("config-1", &config[1]),
        address("OPENSEARCH_URL"),
        config[3],
        address("OTLP_HTTP_URL"),
        place.secret("config-4", &config[4]),
        place.secret("config-5", &config[5]),
        address("RECEIVER_URL"),
        config[6],
    ));
    // Its own places: each in an input, a result, an error, a builtin's cache, a name, with escapes, and in an agent's envelope.
    let mut records: Vec<String> = Vec::new();
    let mut number = 0;
    let mut decision = |members: Value| {
        number += 1;
        let mut all = json!({
            "labels": { "app": name, "id": "i1" },
            "decision_id": format!("{:08x}-0000-4000-8000-{number:012}", rand::random::<u32>() | 1),
            "path": "http/authz/allow",
            "timestamp": "2026-11-25T12:00:00Z",
            "result": true,
        });
        let now = jiff::Timestamp::now();
        all["timestamp"] = now.to_string().into();
        all.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        all.to_string()
    };
    for (_, text, _) in &planted {
        records.push(decision(
            json!({ "input": { "user": "bob", "note": text, "list": [1, { "deep": text }] } }),
        ));
        records.push(decision(json!({ "result": { "allow": false, "reasons": [text] } })));
        records.push(decision(
            json!({ "error": { "code": "eval", "message": format!("can't read {text}") } }),
        ));
        records.push(decision(json!({ "nd_builtin_cache": { "http.send": { "[{\"url\":\"x\"}]": { "body": text } } }, "input": { "user": text } })));
        records.push(decision(json!({ "input": { "sessions": { text.as_str(): { "n": 1 } } } })));
        let escaped: String = text.chars().map(|c| format!("\\u{:04x}", c as u32)).collect();
        records
            .push(decision(json!({ "input": { "note": "ESCAPED" } })).replace("ESCAPED", &escaped));
        let line = decision(json!({ "input": { "a": 1 } }));
        records.push(json!({ "log": line, "stream": "stderr", "kubernetes": { "annotations": { "note": text } } }).to_string());
    }
    for (member, secret) in &named {
        records.push(decision(
            json!({ "input": { *member: secret, "http": { "headers": { *member: [secret, secret] } } }, "result": { "allow": true, *member: secret } }),
        ));
        records.push(decision(json!({ "request_context": { "http": { "headers": { "cookie": [format!("session={secret}")], *member: [secret] } } } })));
    }
    // In every encoding, and in the copies that collectors leave.
    let mut encoded: Vec<(String, String)> = Vec::new();
    for (i, (how, _)) in canaries::inputs("x").into_iter().enumerate() {
        let secret = noise(12);
        let input = canaries::inputs(&secret).swap_remove(i).1;
        records.push(decision(json!({ "input": input })));
        records
            .push(decision(json!({ "result": input, "error": { "message": input.to_string() } })));
        encoded.push((how.to_owned(), secret));
    }
    for i in 0..canaries::copies(&json!({ "input": {} })).len() {
        let secret = noise(12);
        let whole = decision(json!({ "input": { "body": format!("a=1&password={secret}") } }));
        let whole: Value = serde_json::from_str(&whole).unwrap();
        records.push(canaries::copies(&whole).swap_remove(i).to_string());
        encoded.push((format!("copy {i}"), secret));
    }
    let ruled: Vec<String> = (0..5).map(|_| noise(20)).collect();
    records.push(decision(
        json!({ "input": { "erased": ruled[0], "replaced": { "x": ruled[1] }, "hashed": ruled[2], "sealed": { "deep": [ruled[3]] }, "a": { "cut": format!("abcd{}", ruled[4]) } } }),
    ));
    let good = records.len();
    // Broken: they go to rejects, without their content.
    let broken: Vec<String> = (0..3).map(|_| noise(20)).collect();
    records.push(format!("{{\"decision_id\": \"x\", \"input\": {{\"password\": \"{}\"", broken[0]));
    records.push(decision(json!({ "timestamp": 5, "input": { "password": broken[1] } })));
    records.push(decision(json!({ "input": 1 })).replacen(
        '{',
        &format!("{{\"input\":\"{}\",", broken[2]),
        1,
    ));

    let producer: BaseProducer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &kafka).create().unwrap();
    let header = noise(20);
    for record in &records {
        let headers = OwnedHeaders::new()
            .insert(Header { key: "authorization", value: Some(&format!("Bearer {header}")) });
        producer
            .send(
                BaseRecord::<(), [u8]>::to(&format!("{name}-source"))
                    .payload(record.as_bytes())
                    .headers(headers),
            )
            .map_err(|e| e.0)
            .unwrap();
    }
    producer.flush(std::time::Duration::from_secs(30)).unwrap();

    let mut outputs: Vec<(String, String)> = Vec::new();
    let mut output = |of: &str, text: Vec<u8>| {
        outputs.push((of.to_owned(), String::from_utf8_lossy(&text).into_owned()));
    };
    let command = |args: &[&str]| {
        let out = docket()
            .env("CANARY_PASSWORD", "recorder-password")
            .env("DOCKET_LOG", "debug")
            .args(args)
            .arg(&pipeline)
            .output()
            .unwrap();
        [out.stdout, out.stderr].concat()
    };
    output("check", command(&["check"]));
    output("setup", command(&["setup"]));
    let running = Running::start_env(
        &place,
        &pipeline,
        &[],
        &[("CANARY_PASSWORD", "recorder-password"), ("DOCKET_LOG", "debug,rustls=info")],
    );
    let sinks = ["victorialogs", "loki", "search", "traces", "cloudwatch", "file"];
    let metrics = running
        .until("all are delivered", 90, |m| {
            sinks.iter().all(|s| m.delivered(s) == good as u64)
                && m.sum("docket_sink_records_total", &["sink=\"refusing\"", "outcome=\"refused\""])
                    == good as u64
                && m.rejected() == 3
        })
        .await;
    assert!(
        metrics.sum(
            "docket_protect_detected_total",
            &["detector=\"named\"", "pointer=\"/input/password\""]
        ) > 0,
        "{}",
        metrics.docket()
    );
    output("/metrics", metrics.0.into_bytes());
    output(
        "/readyz",
        reqwest::get(format!("http://{}/readyz", running.admin))
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
            .into_bytes(),
    );
    for topic in [format!("docket.{name}"), format!("docket.{name}.rejects")] {
        for record in read_all(&kafka, &topic) {
            output(&topic, record.value);
            output(&topic, format!("{:?} {:?}", record.key, record.headers).into_bytes());
        }
    }
    for store in &stores {
        let lines = store.lines(&format!("{{run=\"{name}\"}}")).await;
        output(store.name(), lines.join("\n").into_bytes());
    }
    output("OpenSearch", json!(documents(&name).await).to_string().into_bytes());
    output(
        "Jaeger",
        get(&format!("{}/api/traces?service={name}&limit=1000", address("JAEGER_URL")))
            .await
            .to_string()
            .into_bytes(),
    );
    output("CloudWatch", std::mem::take(&mut *kept.lock().unwrap()));
    output("file", std::fs::read(place.path("out.ndjson")).unwrap());
    for args in [
        vec!["rejects"],
        vec!["verify", "--from", "start"],
        vec!["redrive", "--sink", "intake"],
        vec!["tail", "--from", "start", "--until-end", "--json"],
    ] {
        output(&args.join(" "), command(&args));
    }
    output("log", running.stop().into_bytes());
    output(
        "help",
        docket()
            .args(["run", "--help"])
            .env("CANARY_PASSWORD", "recorder-password")
            .output()
            .unwrap()
            .stdout,
    );

    let mut secrets: Vec<(String, String)> =
        planted.into_iter().map(|(kind, _, secret)| (kind.to_owned(), secret)).collect();
    secrets.extend(named.into_iter().map(|(kind, secret)| (kind.to_owned(), secret)));
    secrets.extend(encoded);
    secrets.extend(
        config
            .into_iter()
            .map(|s| ("pipeline file".to_owned(), s))
            .chain(ruled.into_iter().map(|s| ("rule".to_owned(), s))),
    );
    secrets.extend(broken.into_iter().map(|s| ("broken record".to_owned(), s)));
    secrets.extend([
        ("encryption key".to_owned(), encryption.clone()),
        ("Kafka header".into(), header),
        ("Kafka password".into(), "recorder-password".into()),
    ]);
    println!("{} secrets, {} places", secrets.len(), outputs.len());
    assert!(secrets.len() >= 40);
    for (of, text) in &outputs {
        let told: Vec<&str> = secrets
            .iter()
            .filter(|(_, secret)| canaries::tells(text, secret))
            .map(|(kind, _)| kind.as_str())
            .collect();
        assert!(
            told.is_empty(),
            "{of} tells {told:?}:\n{}",
            text.chars().take(3000).collect::<String>()
        );
    }
    // What was looked through was no empty room.
    let of_sink = |of: &str| outputs.iter().find(|(o, _)| o == of).unwrap().1.as_str();
    assert!(of_sink("Jaeger").matches("[erased:").count() > 20);
    for of in ["victorialogs", "loki", "OpenSearch", "CloudWatch", "file"] {
        let text = of_sink(of);
        assert!(
            text.matches("[erased:").count() > 100
                && text.contains("hmac:")
                && text.contains("enc:v2:k1:"),
            "{of}"
        );
    }
    // Who holds the key reads what was sealed.
    let key = format!("k1={}", place.path("encryption.key").display());
    let opened =
        docket().args(["decrypt", "--key", &key]).arg(place.path("out.ndjson")).output().unwrap();
    assert!(opened.status.success(), "{}", String::from_utf8_lossy(&opened.stderr));
    assert!(String::from_utf8_lossy(&opened.stdout).contains(&format!(
        "\"sealed\":{{\"deep\":[\"{}\"]}}",
        secrets.iter().filter(|(k, _)| k == "rule").nth(3).unwrap().1
    )));
}
