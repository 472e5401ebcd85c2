//! In transit: TLS, client certificates and SASL, to Kafka, to every sink, and on docket's own ports. Verified unless told otherwise.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};

use super::logs::LogStore;
use super::support::{Place, Running, create_topic, docket, generated, produce, until};
use super::{address, certificate, count, init, tls_client};

/// Ends TLS in front of a server. If `mutual`, only who has a certificate of the local authority comes through.
async fn in_front_of(server: &str, mutual: bool) -> u16 {
    let mut roots = rustls::RootCertStore::empty();
    for known in CertificateDer::pem_file_iter(certificate("ca.pem")).unwrap() {
        roots.add(known.unwrap()).unwrap();
    }
    let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate("server.pem"))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let key = PrivateKeyDer::from_pem_file(certificate("server.key")).unwrap();
    let config = if mutual {
        rustls::ServerConfig::builder().with_client_cert_verifier(verifier)
    } else {
        rustls::ServerConfig::builder().with_no_client_auth()
    };
    let mut config = config.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = server.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, target) = (acceptor.clone(), target.clone());
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(stream).await else { return };
                let Ok(mut plain) = TcpStream::connect(target).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sink_and_port_with_certificates_both_ways() {
    let _servers = super::together().await;
    init();
    let place = Place::new("tls");
    let name = place.name.clone();
    let kafka = address("KAFKA_BOOTSTRAP");
    create_topic(&kafka, &format!("{name}-source"), 2, &[]).await;
    let mut at = Vec::new();
    for server in
        ["OPENSEARCH_URL", "OTLP_HTTP_URL", "OTLP_GRPC_URL", "CLOUDWATCH_URL", "RECEIVER_URL"]
    {
        at.push(format!("https://localhost:{}", in_front_of(&address(server), true).await));
    }
    let mutual = format!(
        "tls: {{ca_file: \"{}\", cert_file: \"{}\", key_file: \"{}\"}}",
        certificate("ca.pem"),
        certificate("client.pem"),
        certificate("client.key")
    );
    let stores = LogStore::all().await;
    let mut log_sinks = String::new();
    for store in &stores {
        let url = format!("https://localhost:{}", in_front_of(&store.url, true).await);
        log_sinks += &store.sink(&url, &format!("{mutual}, labels: {{run: =$NAME}}"));
    }
    let text = format!(
        "name: $NAME
kafka:
  brokers: \"{}\"
  properties: {{security.protocol: ssl, ssl.ca.location: \"{}\", ssl.certificate.location: \"{}\", ssl.key.location: \"{}\"}}
sources: [{{topic: $NAME-source}}]
docket: {{partitions: 2}}
sinks:
{log_sinks}  search: {{type: elasticsearch, url: \"{}\", {mutual}, index: $NAME}}
  http: {{type: otlp, endpoint: \"{}\", protocol: http, {mutual}}}
  grpc: {{type: otlp, endpoint: \"{}\", {mutual}}}
  cloudwatch: {{type: cloudwatch, endpoint: \"{}\", region: us-east-1, group: $NAME, {mutual}}}
telemetry:
  push:
    receiver: {{type: remote_write, url: \"{}/api/v1/write\", interval: 1s, {mutual}}}
",
        address("KAFKA_SSL_BOOTSTRAP"),
        certificate("ca.pem"),
        certificate("client.pem"),
        certificate("client.key"),
        at[0],
        at[1],
        at[2],
        at[3],
        at[4],
    );
    let sinks = ["victorialogs", "loki", "search", "http", "grpc", "cloudwatch"];
    let path = place.pipeline(&text);
    let set = docket().args(["setup", "--yes"]).arg(&path).output().unwrap();
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    produce(&kafka, &format!("{name}-source"), generated(300, 4));
    let running = Running::start(&place, &path);
    running.until("all is delivered", 60, |m| sinks.iter().all(|s| m.delivered(s) == 300)).await;
    running
        .until("metrics are pushed", 30, |m| {
            m.sum("docket_metric_pushes_total", &["outcome=\"sent\""]) > 0
        })
        .await;
    assert_eq!(count(&name, serde_json::json!({ "match_all": {} })).await, 300);
    for store in &stores {
        let selector = format!("{{run=\"{name}\"}}");
        until(&format!("300 lines in {}", store.name()), 10, async || {
            match store.lines(&selector).await.len() {
                300 => Ok(()),
                n => Err(n.to_string()),
            }
        })
        .await;
    }
    running.stop();

    // A certificate of another authority, then the right one: taken up without a restart.
    let known = place.path("authority.pem");
    std::fs::copy(certificate("ca.pem"), &known).unwrap();
    let changed = text.replace(
        &format!("ca_file: \"{}\"", certificate("ca.pem")),
        &format!("ca_file: \"{}\"", known.display()),
    );
    let path = place.pipeline(
        &changed
            .replace("sinks:", "intake: {group: later-$NAME}\nsinks:")
            .replace("name: $NAME", "name: $NAME-later"),
    );
    let set = docket().args(["setup", "--yes"]).arg(&path).output().unwrap();
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    std::fs::copy(certificate("client.pem"), &known).unwrap();
    let running = Running::start(&place, &path);
    let failing = |m: &super::support::Metrics| {
        sinks.iter().all(|s| {
            m.sum("docket_sink_failing", &[&format!("sink=\"{s}\""), "cause=\"connection\""]) == 1
        })
    };
    running.until("without the authority every sink fails", 60, failing).await;
    std::fs::copy(certificate("ca.pem"), &known).unwrap();
    running
        .until("all is delivered after all", 60, |m| sinks.iter().all(|s| m.delivered(s) == 300))
        .await;
    running
        .until("metrics are pushed after all", 30, |m| {
            m.sum("docket_metric_pushes_total", &["outcome=\"sent\""]) > 0
        })
        .await;
    running.stop();

    // Without the authority, or without a certificate of its own, docket delivers nothing, and says so.
    let authority = format!("ca_file: \"{}\", ", certificate("ca.pem"));
    let own = format!(
        ", cert_file: \"{}\", key_file: \"{}\"",
        certificate("client.pem"),
        certificate("client.key")
    );
    for (what, changed) in
        [("authority", text.replace(&authority, "")), ("certificate", text.replace(&own, ""))]
    {
        let text = changed
            .replace("sinks:", &format!("intake: {{group: again-{what}-$NAME}}\nsinks:"))
            .replace("name: $NAME", &format!("name: $NAME-{what}"));
        let path = place.pipeline(&text);
        let running = Running::start(&place, &path);
        let metrics = running.until(&format!("without {what} every sink fails"), 60, failing).await;
        assert!(sinks.iter().all(|s| metrics.delivered(s) == 0), "{}", metrics.docket());
        running.stop();
    }
}

/// Issues tokens that Kafka's validator for tests takes, unsigned; over HTTPS. Of the first nine that `asked` counts, one in three is refused without a word.
async fn issuer(asked: Arc<AtomicU32>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://localhost:{}/token",
        in_front_of(&format!("http://{}", listener.local_addr().unwrap()), false).await
    );
    let router = Router::new().route(
        "/token",
        // The request is read to its end: who answers before that may reset the connection.
        post(async move |_: String| {
            let n = asked.fetch_add(1, Relaxed);
            if n < 9 && n % 3 == 1 {
                return StatusCode::UNAUTHORIZED.into_response();
            }
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
            let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let claims = serde_json::json!({ "sub": "recorder", "iat": now, "exp": now + 3600, "scope": "kafka" });
            let token = format!("{}.{}.", part(serde_json::json!({ "alg": "none" })), part(claims));
            let answer = serde_json::json!({ "access_token": token, "token_type": "Bearer", "expires_in": 3600 });
            ([("content-type", "application/json")], answer.to_string()).into_response()
        }),
    );
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_lets_in_by_every_mechanism_and_is_verified() {
    let _servers = super::together().await;
    init();
    let kafka = address("KAFKA_BOOTSTRAP");
    let ca = certificate("ca.pem");
    let sasl = |mechanism: &str, more: &str| {
        format!(
            "security.protocol: sasl_ssl, ssl.ca.location: \"{ca}\", sasl.mechanism: {mechanism}, {more}"
        )
    };
    let secrets = Place::new("sasl-secrets");
    let user = |password: &str| {
        format!("sasl.username: recorder, sasl.password: {}", secrets.secret(password, password))
    };
    let password = user("recorder-password");
    let asked = Arc::new(AtomicU32::new(100));
    let token = format!(
        "sasl.oauthbearer.method: oidc, sasl.oauthbearer.client.id: docket, sasl.oauthbearer.client.secret: {}, https.ca.location: \"{ca}\", sasl.oauthbearer.token.endpoint.url: \"{}\"",
        secrets.secret("client", "none-needed"),
        issuer(asked.clone()).await
    );
    for (what, properties) in [
        ("plain", sasl("PLAIN", &password)),
        ("scram", sasl("SCRAM-SHA-512", &password)),
        ("oauthbearer", sasl("OAUTHBEARER", &token)),
    ] {
        let place = Place::new(&format!("sasl-{what}"));
        create_topic(&kafka, &format!("{}-source", place.name), 1, &[]).await;
        let path = place.pipeline(&format!(
            "name: $NAME\nkafka: {{brokers: \"{}\", properties: {{{properties}}}}}\nsources: [{{topic: $NAME-source}}]\nsinks: {{out: {{type: file, path: $DIR/out}}}}\n",
            address("KAFKA_SASL_SSL_BOOTSTRAP")
        ));
        let set = docket().args(["setup", "--yes"]).arg(&path).output().unwrap();
        assert!(set.status.success(), "{what}: {}", String::from_utf8_lossy(&set.stderr));
        produce(&kafka, &format!("{}-source", place.name), generated(50, 1));
        if what == "oauthbearer" {
            asked.store(0, Relaxed);
        }
        let running = Running::start(&place, &path);
        running.until(&format!("{what} lets in"), 120, |m| m.delivered("out") == 50).await;
        let log = running.stop();
        println!("{what}: {} clients were made anew", log.matches("made anew").count());
        assert!(!log.contains("recorder-password") && !log.contains("none-needed"), "{log}");
    }
    // A broker whose certificate can't be verified, and a password that is wrong: no more than a message, which says why.
    let place = Place::new("sasl-wrong");
    for (properties, said) in [
        (
            format!("security.protocol: sasl_ssl, sasl.mechanism: PLAIN, {password}"),
            "certificate verify failed",
        ),
        (sasl("PLAIN", &user("not-the-canary")), "uthentication failed"),
    ] {
        let path = place.pipeline(&format!(
            "name: $NAME\nkafka: {{brokers: \"{}\", properties: {{{properties}}}}}\nsources: [{{topic: $NAME-source}}]\n",
            address("KAFKA_SASL_SSL_BOOTSTRAP")
        ));
        let running = Running::start(&place, &path);
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !running.log().contains(said) {
            assert!(std::time::Instant::now() < deadline, "{said}: {}", running.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(!running.log().contains("not-the-canary"));
    }
}

/// The admin port with TLS, as Prometheus scrapes it.
#[tokio::test(flavor = "multi_thread")]
async fn the_admin_port_has_tls() {
    let _servers = super::together().await;
    init();
    let place = Place::new("tls-admin");
    let kafka = address("KAFKA_BOOTSTRAP");
    let path = place.path("p.yaml");
    let text = format!(
        "name: {}\nkafka: {{brokers: \"{kafka}\"}}\nsources: [{{topic: none}}]\nadmin: {{listen: \"127.0.0.1:0\", tls: {{cert_file: \"{}\", key_file: \"{}\", client_ca_file: \"{}\"}}}}\n",
        place.name,
        certificate("server.pem"),
        certificate("server.key"),
        certificate("ca.pem")
    );
    std::fs::write(&path, text).unwrap();
    let running = Running::start(&place, &path);
    let url = format!("https://localhost:{}/metrics", running.admin.rsplit(':').next().unwrap());
    assert!(tls_client(false).get(&url).send().await.is_err());
    let text = tls_client(true).get(&url).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("docket_build_info"), "{text}");
}
