//! `docket doctor` on real servers: each of ten mistakes is named with a way out, within five seconds; and what is sound is said to be.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{StatusCode, header};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::net::TcpListener;

use super::support::{Place, create_topic, docket, until};
use super::{address, init, pipeline};

struct Told {
    sound: bool,
    checks: Vec<Value>,
}

impl Told {
    /// The check whose subject begins so, with what it says and the way out.
    fn named(&self, what: &str, level: &str, says: &str, way_out: &str) {
        let way_out_of = |c: &Value| {
            let own = c["way_out"].as_str().unwrap_or_default();
            // What several need is told once.
            let first = own.strip_prefix("the same as for ");
            let first = first.and_then(|f| self.checks.iter().find(|c| c["what"] == f));
            first.map_or(own, |c| c["way_out"].as_str().unwrap()).to_owned()
        };
        let fits = |c: &&Value| {
            let text = |name: &str| c[name].as_str().unwrap_or_default();
            text("what").starts_with(what)
                && text("level") == level
                && text("says").contains(says)
                && way_out_of(c).contains(way_out)
                && !text("address").is_empty()
        };
        let all: Vec<String> = self.checks.iter().map(Value::to_string).collect();
        assert!(
            self.checks.iter().any(|c| fits(&c)),
            "no {level} {what:?} with {says:?} -> {way_out:?} in\n{}",
            all.join("\n")
        );
    }
}

fn doctor(pipeline: &std::path::Path, more: &[&str]) -> Told {
    let began = Instant::now();
    let out = docket()
        .env_remove("OPA_URL")
        .arg("doctor")
        .arg(pipeline)
        .arg("--json")
        .args(more)
        .output()
        .unwrap();
    let took = began.elapsed();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(took < Duration::from_secs(5), "{took:?}: {text}");
    assert!(!text.contains("-password"), "no secret is shown: {text}");
    let told: Value = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&out.stderr)));
    let sound = told["sound"].as_bool().unwrap();
    assert_eq!(out.status.success(), sound, "the exit code tells: {text}");
    Told { sound, checks: told["checks"].as_array().unwrap().clone() }
}

/// A server whose certificate has expired.
async fn expired(place: &Place) -> u16 {
    let config = "[ca]\ndefault_ca = x\n[x]\ndatabase = ./index\nnew_certs_dir = .\ndefault_md = sha256\npolicy = p\nrand_serial = yes\nx509_extensions = e\n[p]\ncommonName = supplied\n[e]\nbasicConstraints = CA:FALSE\nsubjectAltName = DNS:localhost\n";
    std::fs::write(place.path("ca.cnf"), config).unwrap();
    std::fs::write(place.path("index"), "").unwrap();
    let openssl = |args: &str| {
        let out = Command::new("openssl")
            .args(args.split(' '))
            .current_dir(place.dir.path())
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    openssl(
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout old.key -out old.csr",
    );
    openssl(
        "ca -selfsign -config ca.cnf -batch -notext -keyfile old.key -in old.csr -startdate 20200101000000Z -enddate 20210101000000Z -out old.pem",
    );
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(place.path("old.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(place.path("old.key")).unwrap();
    let config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let _ = acceptor.accept(stream).await;
            });
        }
    });
    port
}

/// A server that takes pushes, and whose clock is five minutes ahead.
async fn ahead() -> u16 {
    let router = axum::Router::new().fallback(|| async {
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(5);
        let date = at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        (StatusCode::NO_CONTENT, [(header::DATE, date)])
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_names_ten_mistakes_with_a_way_out() {
    let _servers = super::together().await;
    init();
    let place = Place::new("doctor");
    let name = place.name.clone();
    let kafka = address("KAFKA_BOOTSTRAP");
    create_topic(&kafka, &format!("{name}-source"), 3, &[]).await;
    create_topic(&kafka, &format!("docket.{name}"), 1, &[]).await;
    create_topic(&kafka, &format!("docket.{name}.rejects"), 1, &[]).await;
    let (old, fast) = (expired(&place).await, ahead().await);
    let nothing = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let text = |kafka: &str, source: &str| {
        place.pipeline(&format!(
            "name: $NAME
kafka: {kafka}
sources: [{{topic: {source}}}]
sinks:
  search: {{type: elasticsearch, url: \"{}\", index: $NAME}}
  elsewhere: {{type: loki, url: \"http://127.0.0.1:{nothing}\"}}
  old: {{type: loki, url: \"https://localhost:{old}\", tls: {{ca_file: $DIR/old.pem}}}}
  fast: {{type: loki, url: \"http://127.0.0.1:{fast}\"}}",
            address("OPENSEARCH_URL")
        ))
    };

    // An OPA that logs nothing.
    let opa = format!(
        "127.0.0.1:{}",
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
    );
    let mut silent = Command::new(address("OPA_BIN"))
        .args(["run", "--server", "--skip-version-check", "--addr", &opa])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let url = format!("http://{opa}");
    until("OPA answers", 20, async || {
        reqwest::get(format!("{url}/health")).await.map_err(|e| e.to_string())
    })
    .await;
    let misspelt = format!("{name}-sourec");
    let told = doctor(&text(&format!("{{brokers: \"{kafka}\"}}"), &misspelt), &["--opa", &url]);
    let _ = silent.kill();
    let _ = silent.wait();
    assert!(!told.sound);
    let docket_topic = format!("topic docket.{name}");
    told.named(
        &format!("topic {misspelt}"),
        "wrong",
        &format!("did you mean {name}-source?"),
        "correct sources.topic",
    );
    told.named(&docket_topic, "warning", "one partition", "--alter --topic");
    told.named(&docket_topic, "warning", "replication factor is 1", "three brokers");
    told.named(
        "sink search",
        "wrong",
        &format!("index template docket-{name} is missing"),
        "docket setup",
    );
    told.named("sink elsewhere", "wrong", "Connection refused", "3100");
    told.named("sink old", "wrong", "expired on 2021-01-01", "renew");
    assert!(told.checks.iter().all(|c| c["what"] != "certificate of sink old"), "it is told once");
    told.named("clock", "wrong", "the clock of sink fast is ", "NTP");
    told.named("opa", "wrong", "it logs no decisions", "decision_logs: {service: docket}");
    told.named("kafka", "ok", "1 broker answering", "");

    // Who logs in, and may do what.
    let sasl = |password: &str| {
        format!(
            "{{brokers: \"{}\", properties: {{security.protocol: SASL_PLAINTEXT, sasl.mechanism: PLAIN, sasl.username: docket, sasl.password: {}}}}}",
            address("KAFKA_SASL_BOOTSTRAP"),
            place.secret("password", password)
        )
    };
    let source = format!("{name}-source");
    let told = doctor(&text(&sasl("wrong-password"), &source), &[]);
    told.named("kafka", "wrong", "refused the login", "sasl.password");
    let told = doctor(&text(&sasl("docket-password"), &source), &[]);
    told.named(&format!("topic {source}"), "wrong", "TopicAuthorizationFailed", "");
    let command = "PRINCIPAL=User:docket deploy/kafka/acls.sh";
    let ways = told.checks.iter().filter_map(|c| c["way_out"].as_str());
    assert_eq!(ways.filter(|way| way.contains(command)).count(), 1, "the command is told once");
    told.named("kafka", "ok", "takes the login", "");
    assert!(!told.checks.iter().any(|c| c["says"].as_str().unwrap().contains("no such topic")));

    // The other commands say so, too, and soon.
    let path = text(&sasl("wrong-password"), &source);
    for command in ["setup", "tail", "verify"] {
        let began = Instant::now();
        let out = docket().arg(command).arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && said.contains("refused the login"), "{command}: {said}");
        assert!(began.elapsed() < Duration::from_secs(8), "{command}: {:?}", began.elapsed());
    }
    let path = text(&sasl("docket-password"), &source);
    for command in ["setup", "tail", "verify"] {
        let began = Instant::now();
        let out = docket().arg(command).arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(
            !out.status.success() && said.contains("deploy/kafka/acls.sh"),
            "{command}: {said}"
        );
        assert!(began.elapsed() < Duration::from_secs(8), "{command}: {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_that_what_is_sound_is_and_sees_records_from_the_future() {
    let _servers = super::together().await;
    let place = Place::new("sound");
    let kafka = address("KAFKA_BOOTSTRAP");
    let rest = format!(
        "docket: {{partitions: 3}}
sinks:
  search: {{type: elasticsearch, url: \"{}\", index: $NAME}}
  logs: {{type: loki, server: victorialogs, url: \"{}\"}}
  http: {{type: otlp, endpoint: \"{}\", protocol: http}}
  grpc: {{type: otlp, endpoint: \"{}\"}}
  cloudwatch: {{type: cloudwatch, endpoint: \"{}\", region: us-east-1, group: $NAME}}
  lines: {{type: file, path: $DIR/lines.ndjson}}
  metrics: {{type: metrics, query: \"{}\"}}
spikes: {{notify: {{pager: {{type: alertmanager, urls: [\"{}\"]}}}}}}",
        address("OPENSEARCH_URL"),
        address("VICTORIALOGS_URL"),
        address("OTLP_HTTP_URL"),
        address("OTLP_GRPC_URL"),
        address("CLOUDWATCH_URL"),
        address("PROMETHEUS_URL"),
        address("ALERTMANAGER_URL"),
    );
    let path = pipeline(&place, 3, &rest).await;
    let opa = address("OPA_URL");
    let told = doctor(&path, &["--opa", &opa]);
    let all: Vec<String> = told.checks.iter().map(Value::to_string).collect();
    assert!(told.sound, "{}", all.join("\n"));
    for what in [
        "kafka",
        "sink search",
        "sink logs",
        "sink http",
        "sink grpc",
        "sink cloudwatch",
        "sink lines",
        "sink metrics, query",
        "notifier pager",
        "opa",
        "clock",
        "rights",
    ] {
        told.named(what, "ok", "", "");
    }
    // One broker keeps one copy, and that is said.
    told.named("topic docket.", "warning", "replication factor is 1", "three brokers");
    assert!(!place.path("lines.ndjson").exists(), "nothing is written");

    let source = format!("{}-source", place.name);
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &kafka).create().unwrap();
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(5);
    let record = BaseRecord::<(), str>::to(&source).payload("{}").timestamp(later.as_millisecond());
    producer.send(record).map_err(|(e, _)| e).unwrap();
    producer.flush(Duration::from_secs(10)).unwrap();
    let told = doctor(&path, &[]);
    told.named(&format!("clock of {source}"), "wrong", "more than a minute ahead", "NTP");
}

/// Nothing that answers is taken for something else that answers.
#[tokio::test(flavor = "multi_thread")]
async fn doctor_takes_no_server_for_another() {
    let _servers = super::together().await;
    let place = Place::new("others");
    let mut rest = "sinks:\n".to_owned();
    let mut expected = Vec::new();
    let mut wrong = |name: String, settings: String| {
        rest += &format!("  {name}: {{{settings}}}\n");
        expected.push((name, settings));
    };
    for (at, other) in
        ["OPENSEARCH_URL", "JAEGER_URL", "PROMETHEUS_URL", "ALERTMANAGER_URL"].iter().enumerate()
    {
        let url = address(other);
        wrong(format!("loki{at}"), format!("type: loki, url: \"{url}\""));
        wrong(format!("victoria{at}"), format!("type: loki, server: victorialogs, url: \"{url}\""));
        wrong(format!("otlp{at}"), format!("type: otlp, protocol: http, endpoint: \"{url}\""));
    }
    for (at, other) in ["VICTORIALOGS_URL", "JAEGER_URL", "PROMETHEUS_URL"].iter().enumerate() {
        let url = address(other);
        wrong(format!("search{at}"), format!("type: elasticsearch, url: \"{url}\""));
    }
    let mut asked = Vec::new();
    for (at, other) in ["OPENSEARCH_URL", "JAEGER_URL", "VICTORIALOGS_URL"].iter().enumerate() {
        asked.push(format!("counts{at}"));
        rest += &format!("  counts{at}: {{type: metrics, query: \"{}\"}}\n", address(other));
    }
    for (at, other) in ["OPENSEARCH_URL", "PROMETHEUS_URL"].iter().enumerate() {
        asked.push(format!("traces{at}"));
        let right = address("OTLP_HTTP_URL");
        let settings =
            format!("protocol: http, endpoint: \"{right}\", query: \"{}\"", address(other));
        rest += &format!("  traces{at}: {{type: otlp, {settings}}}\n");
    }
    let right = format!(
        "protocol: http, endpoint: \"{}\", query: \"{}\"",
        address("OTLP_HTTP_URL"),
        address("JAEGER_URL")
    );
    rest += &format!("  right: {{type: otlp, {right}}}\n");
    let pagers = ["PROMETHEUS_URL", "JAEGER_URL", "OPENSEARCH_URL"]
        .map(|other| format!("\"{}\"", address(other)));
    rest += &format!(
        "spikes: {{notify: {{pager: {{type: alertmanager, urls: [{}]}}}}}}",
        pagers.join(", ")
    );
    init();
    let kafka = address("KAFKA_BOOTSTRAP");
    let text =
        format!("name: $NAME\nkafka: {{brokers: \"{kafka}\"}}\nsources: [{{topic: t}}]\n{rest}");
    let told = doctor(&place.pipeline(&text), &[]);
    for (name, settings) in expected {
        let check = told.checks.iter().find(|c| c["what"] == format!("sink {name}")).unwrap();
        assert_eq!(check["level"], "wrong", "{settings}: {check}");
        assert!(check["says"].as_str().unwrap().contains("answers there, but"), "{check}");
    }
    for name in asked {
        told.named(
            &format!("sink {name}, query"),
            "warning",
            "not as",
            "only docket verify asks it",
        );
    }
    told.named("sink right, query", "ok", "answers", "");
    let pagers =
        told.checks.iter().filter(|c| c["what"] == "notifier pager" && c["level"] == "wrong");
    assert_eq!(pagers.count(), 3);
}
