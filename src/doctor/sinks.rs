//! Sinks: whether each is there, is the kind of server that it is taken for, knows who asks, and has what it needs; and whom `docket
//! verify` asks what a sink holds.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use reqwest::{Method, StatusCode};

use super::servers::{Answer, Failed, ask, ask_as, unmade, unreachable};
use super::{Check, Look, Seen, shown};
use crate::http::answer::is_otlp;
use crate::http::client::Client;
use crate::http::failure::{Cause, Failure};
use crate::metrics::Decisions;
use crate::pipeline::Pipeline;
use crate::sink::any;
use crate::sink::config::SinkConfig;
use crate::sink::elasticsearch::config::ElasticsearchConfig;
use crate::sink::loki::config::{LogServer, LokiConfig};
use crate::sink::otlp::config::{OtlpConfig, OtlpProtocol, Signal};
use crate::words::shell;

const LOGIN: &str = "see auth (and headers, tenant) of the sink in the pipeline file";

fn refused(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 403 | 407)
}

/// What is to be looked at of a sink.
pub fn looks(pipeline: &Pipeline, name: &str, config: &SinkConfig) -> Vec<Look> {
    let what = format!("sink {name}");
    let file = shell(&pipeline.path.display());
    let check = |address: &str| Check::new(what.clone(), shown(address));
    let look = |address: &str, setting: &str, work: Pin<Box<dyn Future<Output = Seen> + Send>>| {
        Look::new(what.clone(), shown(address), work).set_by(&["sinks", name, setting])
    };
    match config.clone() {
        SinkConfig::Elasticsearch(config) => {
            let url = config.url.clone();
            vec![look(&url, "url", Box::pin(elasticsearch(check(&url), config, file)))]
        }
        SinkConfig::Loki(config) => {
            let url = config.url.clone();
            let look = look(&url, "url", Box::pin(loki(check(&url), config)));
            vec![look.set_by(&["sinks", name, "server"])]
        }
        SinkConfig::Otlp(config) => {
            let url = config.endpoint.clone();
            let work: Pin<Box<dyn Future<Output = Seen> + Send>> = match config.protocol {
                OtlpProtocol::Http => Box::pin(otlp_http(check(&url), config.clone())),
                OtlpProtocol::Grpc => {
                    Box::pin(nothing(check(&url), SinkConfig::Otlp(config.clone())))
                }
            };
            let asked = config.query.map(|query| traces(&what, &query));
            let asked = asked.map(|asked| asked.set_by(&["sinks", name, "query"]));
            [Some(look(&url, "endpoint", work)), asked].into_iter().flatten().collect()
        }
        SinkConfig::Cloudwatch(config) => {
            let region = config.region.as_deref().map_or_else(String::new, |r| format!("{r}."));
            let address = config.endpoint.clone();
            let address = address.unwrap_or_else(|| format!("https://logs.{region}amazonaws.com"));
            let whole = SinkConfig::Cloudwatch(config);
            vec![look(&address, "endpoint", Box::pin(nothing(check(&address), whole)))]
        }
        SinkConfig::File(config) => {
            let check = Check::new(what.clone(), config.path.display().to_string());
            vec![Look::new(what.clone(), check.address.clone(), async move {
                file_sink(check, &config.path).into()
            })]
        }
        SinkConfig::Metrics(config) => {
            let asked = config.query.iter().map(|query| counts(&what, query));
            asked.map(|asked| asked.set_by(&["sinks", name, "query"])).collect()
        }
    }
}

async fn elasticsearch(check: Check, config: ElasticsearchConfig, file: String) -> Seen {
    let client = match config.client() {
        Ok(client) => client,
        Err(error) => return unmade(check, &error),
    };
    let base = config.url.trim_end_matches('/').to_owned();
    let about =
        match ask_as(client.hidden(), &check.what, &base, client.request(Method::GET, &base)).await
        {
            Ok(answer) => answer,
            Err(failed) => return usually(failed, &base, 9200).await.told(check).into(),
        };
    let clock = about.clock.clone();
    let seen = |check: Check| Seen { checks: vec![check], clock: clock.clone() };
    if refused(about.status) {
        return seen(check.wrong(about.refuses(), LOGIN));
    }
    let version = about.json()["version"]["number"].as_str().map(str::to_owned);
    let Some(version) = version.filter(|_| about.status.is_success()) else {
        let says = about.not_as("Elasticsearch");
        return seen(check.astray(says, "correct url: 9200 is its usual port"));
    };
    let name = config.template();
    let url = format!("{base}/_index_template/{name}");
    let template =
        match ask_as(client.hidden(), &check.what, &url, client.request(Method::GET, &url)).await {
            Ok(answer) => answer,
            Err(failed) => return seen(failed.told(check)),
        };
    seen(match template.status.as_u16() {
        200..=299 => check.ok(format!("version {version}, index template {name} is there")),
        404 => check.wrong(
            format!(
                "the index template {name} is missing: fields would be mapped by what comes first"
            ),
            format!("docket setup {file}"),
        ),
        401 | 403 => check.warning(
            format!("version {version}; who logs in may not see index templates"),
            format!("give it the right, or see to it that {name} is there (docket setup {file})"),
        ),
        status => check.warning(
            format!("version {version}; asked for index template {name} it answered {status}"),
            "see its log",
        ),
    })
}

/// What Loki says of a push of no lines; VictoriaLogs takes it.
const NO_LINES: &str = "valid stream";

async fn loki(check: Check, config: LokiConfig) -> Seen {
    let client = match config.client() {
        Ok(client) => client,
        Err(error) => return unmade(check, &error),
    };
    let (path, port, other) = match config.server {
        LogServer::Loki => ("loki/api/v1/push", 3100, "victorialogs"),
        LogServer::Victorialogs => ("insert/loki/api/v1/push", 9428, "loki"),
    };
    let url = format!("{}/{path}", config.base());
    // A push of no lines: who may push is answered, and nothing is stored.
    let nothing = snap::raw::Encoder::new().compress_vec(&[]).unwrap_or_default();
    let request = client.request(Method::POST, &url);
    let request = request.header("content-type", "application/x-protobuf").body(nothing);
    let answer = match ask_as(client.hidden(), &check.what, &url, request).await {
        Ok(answer) => answer,
        Err(failed) => return usually(failed, &config.url, port).await.told(check).into(),
    };
    let check = match answer.status.as_u16() {
        // All that `docket run` takes for an acknowledgement.
        204 => check.ok("takes pushes"),
        400 | 422 if answer.text.contains(NO_LINES) => check.ok("takes pushes"),
        401 | 403 | 407 => check.wrong(answer.refuses(), LOGIN),
        400 if config.server == LogServer::Loki
            && is_victorialogs(&client, config.base()).await =>
        {
            let says = answer.at(&format!("/{path}"));
            check.astray(says, "that is VictoriaLogs: set server: victorialogs")
        }
        400 | 422 if says_it_is_loki(&client, config.base()).await => check.ok("takes pushes"),
        429 | 500..=599 => check.wrong(answer.answers(), "see its log"),
        _ => check.astray(
            answer.at(&format!("/{path}")),
            format!("correct url: the address alone, as http://host:{port} ({port} is the usual port); or set server: {other}"),
        ),
    };
    Seen { checks: vec![check], clock: answer.clock }
}

/// Whether pushes are taken where VictoriaLogs has them.
async fn is_victorialogs(client: &Client, base: &str) -> bool {
    let url = format!("{base}/insert/loki/api/v1/push");
    let nothing = snap::raw::Encoder::new().compress_vec(&[]).unwrap_or_default();
    let request = client.request(Method::POST, &url);
    let request = request.header("content-type", "application/x-protobuf").body(nothing);
    ask("", &url, request).await.is_ok_and(|answer| answer.status == StatusCode::NO_CONTENT)
}

/// A Loki, or what speaks as it does, that refuses a push of no lines in words of its own.
async fn says_it_is_loki(client: &Client, base: &str) -> bool {
    let url = format!("{base}/loki/api/v1/labels");
    let answer = ask("", &url, client.request(Method::GET, &url)).await;
    answer.is_ok_and(|a| a.status.is_success() && a.json()["status"] == "success")
}

/// Where nobody answers, the usual port may be the right one.
async fn usually(mut failed: Failed, url: &str, port: u16) -> Failed {
    let own = reqwest::Url::parse(url).ok().and_then(|url| url.port_or_known_default());
    if failed.astray && own != Some(port) {
        failed.way_out += &match elsewhere(url, port).await {
            Some(found) => format!("; something listens at {found}, its usual port: correct it"),
            None => format!(" ({port} is its usual port)"),
        };
    }
    failed
}

/// The same host at another port, if something listens there.
async fn elsewhere(url: &str, port: u16) -> Option<String> {
    let mut url = reqwest::Url::parse(url).ok()?;
    if url.port_or_known_default() == Some(port) {
        return None;
    }
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    let connected = tokio::net::TcpStream::connect((host, port));
    let wait = std::time::Duration::from_millis(500);
    tokio::time::timeout(wait, connected).await.ok()?.ok()?;
    url.set_port(Some(port)).ok()?;
    Some(shown(url.as_str()))
}

const OTLP_PORTS: &str = "correct endpoint: 4318 is the usual port of OTLP over HTTP, 4317 that of gRPC (protocol: grpc)";

/// What is said of the answers of servers that speak gRPC only.
const NO_HTTP: [&str; 2] = ["received unexpected message from connection", "invalid HTTP version"];

async fn otlp_http(check: Check, config: OtlpConfig) -> Seen {
    let client = match config.client() {
        Ok(client) => client,
        Err(error) => return unmade(check, &error),
    };
    let mut clock = None;
    let mut paths = Vec::new();
    for signal in &config.signals {
        let path = match signal {
            Signal::Logs => "/v1/logs",
            Signal::Traces => "/v1/traces",
        };
        let url = format!("{}{path}", config.endpoint.trim_end_matches('/'));
        let request = client.request(Method::POST, &url);
        let request = request.header("content-type", "application/x-protobuf").body(Vec::new());
        let answer = match ask_as(client.hidden(), &check.what, &url, request).await {
            Ok(answer) => answer,
            Err(failed) if NO_HTTP.iter().any(|sign| failed.why.contains(sign)) => {
                return check.astray(failed.why, OTLP_PORTS).into();
            }
            Err(failed) => return usually(failed, &config.endpoint, 4318).await.told(check).into(),
        };
        clock = clock.or_else(|| answer.clock.clone());
        let wrong = match answer.status.as_u16() {
            200..=299 if is_export(&answer) => None,
            401 | 403 | 407 => Some(check.clone().wrong(answer.refuses(), LOGIN)),
            429 | 500..=599 => Some(check.clone().wrong(answer.answers(), "see its log")),
            _ => Some(check.clone().astray(answer.at(path), OTLP_PORTS)),
        };
        if let Some(wrong) = wrong {
            return Seen { checks: vec![wrong], clock };
        }
        paths.push(path);
    }
    Seen { checks: vec![check.ok(format!("takes {}", paths.join(" and ")))], clock }
}

/// Whether it is what a receiver answers; those of all signals have the same form.
pub fn is_export(answer: &Answer) -> bool {
    let content = answer.text.as_bytes();
    is_otlp(answer.status, answer.kind.as_deref(), content)
        && ExportTraceServiceResponse::decode(content).is_ok()
}

/// Sends a sink nothing, by its own way.
async fn nothing(check: Check, config: SinkConfig) -> Seen {
    let registry = prometheus::Registry::new();
    let decisions = match Decisions::new("doctor", 1, &registry, Arc::default()) {
        Ok(decisions) => Arc::new(decisions),
        Err(error) => return check.wrong(error.to_string(), "this should not happen").into(),
    };
    let reached = match any::reach(&config, &decisions).await {
        Ok(reached) => reached,
        Err(error) => return unmade(check, &error),
    };
    match reached {
        Ok(()) => check.ok("takes what it is sent").into(),
        Err(Failure::Refused(refusal)) => check
            .wrong(
                format!("it refuses an empty request: {} {}", refusal.status, refusal.reason),
                "correct the address, or see its log",
            )
            .into(),
        Err(Failure::Retry(mut retry)) => {
            // The address stands at the beginning of the line.
            let before = format!("{}: ", check.address);
            if let Some(rest) = retry.detail.strip_prefix(&before) {
                retry.detail = rest.to_owned();
            }
            match retry.cause {
                Cause::Credentials => {
                    check.wrong(format!("it refused the login: {}", retry.detail), LOGIN)
                }
                _ if retry.cause == Cause::Misconfigured || retry.detail.contains("another server's") => check.astray(
                    retry.detail,
                    "correct the address: 4317 is the usual port of OTLP over gRPC, 4318 that of HTTP (protocol: http)",
                ),
                _ => unreachable(retry.detail).told(check),
            }
            .into()
        }
    }
}

fn file_sink(check: Check, path: &Path) -> Check {
    if path.as_os_str() == "-" {
        return check.ok("standard output");
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        let says = format!("there is no folder {}", folder.display());
        return check.wrong(says, format!("mkdir -p {}", shell(&folder.display())));
    }
    // Opened to append, and nothing is; what is not there yet is not made.
    match std::fs::OpenOptions::new().append(true).open(path) {
        Ok(_) => check.ok("can be written"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let writable = std::fs::metadata(folder).is_ok_and(|m| !m.permissions().readonly());
            if writable {
                check.ok("will be made")
            } else {
                check.wrong(
                    format!("{} can't be written", folder.display()),
                    "give docket's user the right to",
                )
            }
        }
        Err(error) => check.wrong(error.to_string(), "give docket's user the right to write it"),
    }
}

/// Who is asked for what by `docket verify` alone.
fn for_verify(
    check: Check,
    answer: Result<Answer, Failed>,
    is: impl Fn(&Answer) -> bool,
    server: &str,
) -> Seen {
    const ONLY: &str = "only docket verify asks it, docket run does not need it";
    match answer {
        Err(failed) => {
            let way_out = format!("{}; {ONLY}", failed.way_out);
            check.warning(failed.why, way_out).astray_if(failed.astray).into()
        }
        Ok(answer) => {
            let clock = answer.clock.clone();
            let check = if is(&answer) {
                check.ok("answers")
            } else if refused(answer.status) {
                check.warning(answer.refuses(), format!("see auth of the sink; {ONLY}"))
            } else {
                let way_out = format!("correct query of the sink; {ONLY}");
                check.warning(answer.not_as(server), way_out).astray_if(true)
            };
            Seen { checks: vec![check], clock }
        }
    }
}

/// A trace that nobody has.
const NOBODYS: &str = "00000000000000000000000000000001";

/// Jaeger or Tempo: they say that they don't find it.
fn traces(sink: &str, base: &str) -> Look {
    let base = base.trim_end_matches('/').to_owned();
    let check = Check::new(format!("{sink}, query"), shown(&base));
    Look::new(check.what.clone(), shown(&base), async move {
        let get = async |path: &str| {
            let url = format!("{base}{path}");
            ask(&check.what, &url, reqwest::Client::new().get(&url)).await
        };
        let answer = get(&format!("/api/traces/{NOBODYS}")).await;
        let silent = answer
            .as_ref()
            .is_ok_and(|a| a.status == StatusCode::NOT_FOUND && a.text.trim().is_empty());
        // Tempo says no more, and has this to be known by.
        let is_tempo = silent && get("/api/echo").await.is_ok_and(|a| a.text.trim() == "echo");
        for_verify(check, answer, |answer| is_tempo || tells_traces(answer), "Jaeger or Tempo")
    })
}

fn tells_traces(answer: &Answer) -> bool {
    match answer.status.as_u16() {
        200 => answer.json().as_object().is_some_and(|told| {
            ["data", "batches", "trace", "resourceSpans"].iter().any(|key| told.contains_key(*key))
        }),
        404 => answer.text.to_ascii_lowercase().contains("trace not found"),
        _ => false,
    }
}

/// Prometheus, or what speaks as it does.
fn counts(sink: &str, base: &str) -> Look {
    let url = format!("{}/api/v1/query?query=1", base.trim_end_matches('/'));
    let check = Check::new(format!("{sink}, query"), shown(base));
    Look::new(check.what.clone(), shown(base), async move {
        let answer = ask(&check.what, &url, reqwest::Client::new().get(&url)).await;
        let is = |answer: &Answer| answer.json()["data"]["resultType"].is_string();
        for_verify(check, answer, is, "Prometheus")
    })
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::response::IntoResponse;

    use super::super::Level;
    use super::*;

    /// A server that answers everything so.
    async fn answering(status: StatusCode, text: &'static str) -> String {
        let router = Router::new().fallback(move || async move {
            // An answer of text names its type; one of nothing names none.
            if text.is_empty() { status.into_response() } else { (status, text).into_response() }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        address
    }

    async fn looked_at(sink: serde_json::Value) -> Vec<Check> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let text = serde_json::json!({
            "name": "x", "kafka": {"brokers": "k"}, "sources": [{"topic": "t"}], "sinks": {"s": sink},
        });
        let outside = &crate::config::secrets::Real;
        let pipeline = crate::pipeline::parse(Path::new("x"), &text.to_string(), outside).unwrap();
        let mut checks = Vec::new();
        for look in looks(&pipeline, "s", &pipeline.file.sinks["s"]) {
            checks.extend(look.work.await.checks);
        }
        checks
    }

    /// What real servers answer to what they don't know.
    const OTHERS: [(StatusCode, &str); 6] = [
        (StatusCode::OK, "<!doctype html><html><head><title>Jaeger UI</title></head></html>"),
        (StatusCode::BAD_REQUEST, r#"{"error":"no handler found for uri [/x] and method [POST]"}"#),
        (
            StatusCode::BAD_REQUEST,
            r#"remoteAddr: "127.0.0.1:9"; requestURI: /x; unsupported path requested: "/x""#,
        ),
        (StatusCode::NOT_FOUND, "404 page not found\n"),
        (StatusCode::METHOD_NOT_ALLOWED, ""),
        (StatusCode::OK, "OK"),
    ];

    #[tokio::test(flavor = "multi_thread")]
    async fn another_server_is_taken_for_no_sinks_and_its_answer_is_quoted() {
        use serde_json::json;
        for (status, text) in OTHERS {
            let at = answering(status, text).await;
            for sink in [
                json!({"type": "loki", "url": at}),
                json!({"type": "loki", "server": "victorialogs", "url": at}),
                json!({"type": "elasticsearch", "url": at}),
                json!({"type": "otlp", "protocol": "http", "endpoint": at}),
                json!({"type": "otlp", "protocol": "http", "signals": ["logs"], "endpoint": at}),
            ] {
                let checks = looked_at(sink.clone()).await;
                let (check, told) = (&checks[0], format!("{sink} at {status} {text}: {checks:?}"));
                assert_eq!(
                    (checks.len(), check.level, check.astray),
                    (1, Level::Wrong, true),
                    "{told}"
                );
                let quote = [&text[..text.len().min(8)], "a page, \"Jaeger UI\""];
                assert!(quote.iter().any(|quote| check.says.contains(quote)), "{told}");
                assert!(check.way_out.contains("correct "), "{told}");
            }
            // What only `docket verify` asks is no more than a warning.
            for sink in [
                json!({"type": "metrics", "query": at}),
                json!({"type": "otlp", "endpoint": "http://127.0.0.1:1", "query": at}),
            ] {
                let checks = looked_at(sink).await;
                let check = checks.iter().find(|check| check.what == "sink s, query").unwrap();
                assert_eq!(
                    (check.level, check.astray),
                    (Level::Warning, true),
                    "{status} {text}: {check:?}"
                );
                assert!(check.way_out.contains("only docket verify asks it"), "{check:?}");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_is_asked_by_verify_alone_and_is_away_is_a_warning() {
        let checks =
            looked_at(serde_json::json!({"type": "metrics", "query": "http://127.0.0.1:1"})).await;
        assert_eq!((checks.len(), checks[0].level), (1, Level::Warning), "{checks:?}");
        assert!(checks[0].way_out.contains("docket run does not need it"), "{checks:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_right_servers_answer_is_taken() {
        use serde_json::json;
        let (ok, missing) = (StatusCode::OK, StatusCode::NOT_FOUND);
        for (sink, status, text) in [
            (
                json!({"type": "loki"}),
                StatusCode::UNPROCESSABLE_ENTITY,
                "error at least one valid stream is required for ingestion\n",
            ),
            (json!({"type": "loki"}), StatusCode::NO_CONTENT, ""),
            (json!({"type": "loki", "server": "victorialogs"}), StatusCode::NO_CONTENT, ""),
            (json!({"type": "otlp", "protocol": "http"}), ok, ""),
            (
                json!({"type": "metrics"}),
                ok,
                r#"{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}"#,
            ),
            (
                json!({"type": "otlp"}),
                missing,
                r#"{"data":null,"errors":[{"code":404,"msg":"trace not found"}]}"#,
            ),
        ] {
            let at = answering(status, text).await;
            let mut sink = sink;
            let asked =
                if text.contains("trace") || text.contains("scalar") { "query" } else { "" };
            if sink["type"] == "otlp" {
                sink["endpoint"] = at.clone().into();
            } else if sink["type"] == "loki" {
                sink["url"] = at.clone().into();
            }
            if asked == "query" {
                sink["query"] = at.into();
            }
            let checks = looked_at(sink.clone()).await;
            let check = checks.iter().find(|check| check.what.ends_with(asked)).unwrap();
            assert_eq!(check.level, Level::Ok, "{sink}: {checks:?}");
        }
    }

    #[test]
    fn a_file_that_can_be_made_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.ndjson");
        assert_eq!(file_sink(Check::new("", ""), &path).level, Level::Ok);
        assert!(!path.exists());
        let check = file_sink(Check::new("", ""), &dir.path().join("no/out.ndjson"));
        assert!(check.level == Level::Wrong && check.way_out.starts_with("mkdir -p"), "{check:?}");
    }
}
