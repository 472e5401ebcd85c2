//! The servers that a pipeline talks to over HTTP and gRPC: whether each is there, is what it is taken for, knows who asks, and
//! has what it needs.

use std::path::Path;
use std::sync::Arc;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;

use super::{Check, Clock, Look, PATIENCE, Seen, clocks, shown};
use crate::clock::now;
use crate::http::client::{Client, HttpError};
use crate::http::failure::{Cause, Failure, innermost};
use crate::metrics::Decisions;
use crate::notify::config::Notify;
use crate::pipeline::Pipeline;
use crate::sink::any;
use crate::sink::config::SinkConfig;
use crate::sink::elasticsearch::config::ElasticsearchConfig;
use crate::sink::loki::config::{LogServer, LokiConfig};
use crate::sink::otlp::config::{OtlpConfig, OtlpProtocol, Signal};

/// What a server answered.
struct Answer {
    status: StatusCode,
    text: String,
    clock: Option<Clock>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

/// Sends a request; or says what went wrong and the way out.
async fn ask(what: &str, url: &str, request: RequestBuilder) -> Result<Answer, (String, String)> {
    let asked = now();
    let sent = async {
        let response = request.send().await?;
        let (status, answered) = (response.status(), now());
        let ahead = clocks::ahead(response.headers(), asked, answered);
        let clock = ahead.map(|ahead| Clock { what: what.to_owned(), address: shown(url), ahead });
        let text = response.text().await?;
        Ok::<_, reqwest::Error>(Answer { status, text, clock })
    };
    match tokio::time::timeout(PATIENCE, sent).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(unreachable(innermost(&error))),
        Err(_) => Err((
            "it takes the connection and does not answer".into(),
            "see whether it is overloaded, or something else listens there".into(),
        )),
    }
}

/// What a connection that fails is about, and what to do.
fn unreachable(why: String) -> (String, String) {
    let way_out = if why.contains("UnknownIssuer") {
        "name the authority that issued its certificate in tls.ca_file"
    } else if why.contains("Expired") || why.contains("expired") {
        "renew the certificate where the server has it"
    } else if why.contains("NotValidForName") || why.contains("not valid for name") {
        "use the name that stands in its certificate"
    } else if why.contains("certificate required") || why.contains("CertificateRequired") {
        "it wants a client certificate: set tls.cert_file and tls.key_file"
    } else if why.contains("certificate") {
        "see tls in the pipeline file"
    } else if why.contains("refused") {
        "nothing listens there: correct the host or port, or start it"
    } else if why.contains("dns error") || why.contains("lookup") || why.contains("resolve") {
        "there is no such host: correct its name"
    } else if why.contains("corrupt") || why.contains("InvalidContentType") {
        "it does not speak TLS: use http:// instead of https://"
    } else {
        "see whether it can be reached from here, and whether it wants https"
    };
    (why, way_out.into())
}

const LOGIN: &str = "see auth (and headers, tenant) of the sink in the pipeline file";

fn refused(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 403 | 407)
}

/// What a client that can't be made says.
fn unmade(check: Check, error: &HttpError) -> Seen {
    check.wrong(error.to_string(), "correct it in the pipeline file").into()
}

/// What is to be looked at of a sink.
pub fn sink(pipeline: &Pipeline, name: &str, config: &SinkConfig) -> Vec<Look> {
    let what = format!("sink {name}");
    let file = pipeline.path.display().to_string();
    let check = |address: &str| Check::new(what.clone(), shown(address));
    let look = |address: &str, work: std::pin::Pin<Box<dyn Future<Output = Seen> + Send>>| {
        Look::new(what.clone(), shown(address), work)
    };
    match config.clone() {
        SinkConfig::Elasticsearch(config) => {
            let url = config.url.clone();
            vec![look(&url, Box::pin(elasticsearch(check(&url), config, file)))]
        }
        SinkConfig::Loki(config) => {
            let url = config.url.clone();
            vec![look(&url, Box::pin(loki(check(&url), config)))]
        }
        SinkConfig::Otlp(config) => {
            let url = config.endpoint.clone();
            let mut looks = match config.protocol {
                OtlpProtocol::Http => {
                    vec![look(&url, Box::pin(otlp_http(check(&url), config.clone())))]
                }
                OtlpProtocol::Grpc => {
                    let whole = SinkConfig::Otlp(config.clone());
                    vec![look(&url, Box::pin(nothing(check(&url), whole)))]
                }
            };
            if let Some(query) = config.query {
                looks.push(plain(format!("{what}, query"), &query, "", "query of the sink"));
            }
            looks
        }
        SinkConfig::Cloudwatch(config) => {
            let region = config.region.as_deref().map_or_else(String::new, |r| format!("{r}."));
            let address = config.endpoint.clone();
            let address = address.unwrap_or_else(|| format!("https://logs.{region}amazonaws.com"));
            let whole = SinkConfig::Cloudwatch(config);
            vec![look(&address, Box::pin(nothing(check(&address), whole)))]
        }
        SinkConfig::File(config) => {
            let check = Check::new(what.clone(), config.path.display().to_string());
            vec![Look::new(what.clone(), check.address.clone(), async move {
                file_sink(check, &config.path).into()
            })]
        }
        SinkConfig::Metrics(config) => {
            let query = config.query.iter();
            query
                .map(|query| {
                    let path = "/api/v1/query?query=1";
                    plain(format!("{what}, query"), query, path, "query of the sink")
                })
                .collect()
        }
    }
}

async fn elasticsearch(check: Check, config: ElasticsearchConfig, file: String) -> Seen {
    let client = match config.client() {
        Ok(client) => client,
        Err(error) => return unmade(check, &error),
    };
    let base = config.url.trim_end_matches('/').to_owned();
    let about = match ask(&check.what, &base, client.request(Method::GET, &base)).await {
        Ok(answer) => answer,
        Err((why, way_out)) => return check.wrong(why, way_out).into(),
    };
    let clock = about.clock.clone();
    let seen = |check: Check| Seen { checks: vec![check], clock: clock.clone() };
    if refused(about.status) {
        return seen(check.wrong(format!("it refused the login ({})", about.status), LOGIN));
    }
    let version = about.json()["version"]["number"].as_str().map(str::to_owned);
    let Some(version) = version.filter(|_| about.status.is_success()) else {
        let says = format!("{} answers there, but not as Elasticsearch does", about.status);
        return seen(check.wrong(says, "correct url: 9200 is its usual port"));
    };
    let name = config.template();
    let url = format!("{base}/_index_template/{name}");
    let template = match ask(&check.what, &url, client.request(Method::GET, &url)).await {
        Ok(answer) => answer,
        Err((why, way_out)) => return seen(check.wrong(why, way_out)),
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

async fn loki(check: Check, config: LokiConfig) -> Seen {
    let client = match config.client() {
        Ok(client) => client,
        Err(error) => return unmade(check, &error),
    };
    let (path, port) = match config.server {
        LogServer::Loki => ("loki/api/v1/push", 3100),
        LogServer::Victorialogs => ("insert/loki/api/v1/push", 9428),
    };
    let url = format!("{}/{path}", config.base());
    // A push of no lines: who may push is answered, and nothing is stored.
    let nothing = snap::raw::Encoder::new().compress_vec(&[]).unwrap_or_default();
    let request = client.request(Method::POST, &url);
    let request = request.header("content-type", "application/x-protobuf").body(nothing);
    let answer = match ask(&check.what, &url, request).await {
        Ok(answer) => answer,
        Err((why, way_out)) => {
            let way_out = match elsewhere(&config.url, port).await {
                Some(found) => {
                    format!("{way_out}; something listens at {found}, its usual port: correct url")
                }
                None => format!("{way_out} ({port} is its usual port)"),
            };
            return check.wrong(why, way_out).into();
        }
    };
    let check = match answer.status.as_u16() {
        // VictoriaLogs has no 404.
        400 if answer.text.contains("unsupported path") => check.wrong(
            format!(
                "it takes no pushes at /{path}: {}",
                answer.text.trim().chars().take(200).collect::<String>()
            ),
            match config.server {
                LogServer::Loki => "that is VictoriaLogs: set server: victorialogs".to_owned(),
                LogServer::Victorialogs => {
                    format!("correct url: the address alone, as http://host:{port}")
                }
            },
        ),
        // Loki says that there is nothing in it.
        200 | 204 | 400 | 422 => check.ok("takes pushes"),
        401 | 403 | 407 => check.wrong(format!("it refused the login ({})", answer.status), LOGIN),
        404 | 405 | 301..=308 => check.wrong(
            format!("{} answers there, but takes no pushes at /{path}", answer.status),
            format!("correct url ({port} is the usual port) or server: loki, victorialogs"),
        ),
        _ => check.wrong(format!("it answers {}", answer.status), "see its log"),
    };
    Seen { checks: vec![check], clock: answer.clock }
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

async fn otlp_http(check: Check, config: OtlpConfig) -> Seen {
    let client = match config.client() {
        Ok(client) => client,
        Err(error) => return unmade(check, &error),
    };
    let path = match config.signals.first() {
        Some(Signal::Logs) => "/v1/logs",
        _ => "/v1/traces",
    };
    let url = format!("{}{path}", config.endpoint.trim_end_matches('/'));
    let request = client.request(Method::POST, &url);
    let request = request.header("content-type", "application/x-protobuf").body(Vec::new());
    let answer = match ask(&check.what, &url, request).await {
        Ok(answer) => answer,
        Err((why, way_out)) => return check.wrong(why, way_out).into(),
    };
    let check = match answer.status.as_u16() {
        200..=299 => check.ok(format!("takes {path}")),
        401 | 403 | 407 => {
            check.wrong(format!("it refused the login ({})", answer.status), LOGIN)
        }
        404 | 405 | 415 => check.wrong(
            format!("{} answers there, but takes nothing at {path}", answer.status),
            "correct endpoint: 4318 is the usual port of OTLP over HTTP, 4317 that of gRPC (protocol: grpc)",
        ),
        _ => check.wrong(format!("it answers {}", answer.status), "see its log"),
    };
    Seen { checks: vec![check], clock: answer.clock }
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
            let (says, way_out) = match retry.cause {
                Cause::Credentials => (format!("it refused the login: {}", retry.detail), LOGIN.into()),
                Cause::Misconfigured => (
                    retry.detail,
                    "correct the address: 4317 is the usual port of OTLP over gRPC, 4318 that of HTTP (protocol: http)".into(),
                ),
                _ => unreachable(retry.detail),
            };
            check.wrong(says, way_out).into()
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
        return check.wrong(says, format!("mkdir -p {}", folder.display()));
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

/// A server of which is known only that it should answer with success.
fn plain(what: String, base: &str, path: &str, setting: &'static str) -> Look {
    let url = format!("{}{path}", base.trim_end_matches('/'));
    let check = Check::new(what.clone(), shown(base));
    Look::new(what, shown(base), async move {
        let request = reqwest::Client::new().get(&url);
        let answer = match ask(&check.what, &url, request).await {
            Ok(answer) => answer,
            Err((why, way_out)) => return check.wrong(why, way_out).into(),
        };
        let check = if answer.status.is_server_error() || answer.status == StatusCode::NOT_FOUND {
            check.warning(format!("it answers {}", answer.status), format!("correct {setting}"))
        } else {
            check.ok("answers")
        };
        Seen { checks: vec![check], clock: answer.clock }
    })
}

/// Who is told of findings, and where metrics are pushed.
pub fn others(pipeline: &Pipeline) -> Vec<Look> {
    let mut looks = Vec::new();
    for (name, notify) in pipeline.file.spikes.iter().flat_map(|spikes| &spikes.notify) {
        let what = format!("notifier {name}");
        match notify.clone() {
            Notify::Alertmanager(config) => {
                for url in config.urls.clone() {
                    let (check, config) = (Check::new(what.clone(), shown(&url)), config.clone());
                    looks.push(Look::new(what.clone(), shown(&url), async move {
                        let made = Client::new(
                            &config.tls,
                            config.auth.as_ref(),
                            &config.headers,
                            PATIENCE,
                        );
                        match made {
                            Ok(client) => alertmanager(check, client, url).await,
                            Err(error) => unmade(check, &error),
                        }
                    }));
                }
            }
            // Asking would be telling.
            Notify::Webhook(config) => looks.push(listens(what, config.url.expose())),
            Notify::Slack(config) => looks.push(listens(what, config.url.expose())),
        }
    }
    looks
}

async fn alertmanager(check: Check, client: Client, base: String) -> Seen {
    let url = format!("{}/api/v2/status", base.trim_end_matches('/'));
    let answer = match ask(&check.what, &url, client.request(Method::GET, &url)).await {
        Ok(answer) => answer,
        Err((why, way_out)) => return check.wrong(why, way_out).into(),
    };
    let check = match answer.status.as_u16() {
        200..=299 => check.ok("answers"),
        401 | 403 | 407 => check.wrong(
            format!("it refused the login ({})", answer.status),
            "see auth of the notifier in the pipeline file",
        ),
        _ => check.wrong(
            format!("{} answers there, but not as Alertmanager does", answer.status),
            "correct urls: 9093 is its usual port",
        ),
    };
    Seen { checks: vec![check], clock: answer.clock }
}

/// Whether something listens at an address that holds a secret in its path.
fn listens(what: String, url: &str) -> Look {
    let parsed = reqwest::Url::parse(url).ok();
    let place = parsed.as_ref().and_then(|url| {
        let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
        Some((host, url.port_or_known_default()?))
    });
    let address = place.as_ref().map_or_else(String::new, |(host, port)| format!("{host}:{port}"));
    let check = Check::new(what.clone(), address.clone());
    Look::new(what, address, async move {
        let Some(place) = place else {
            return check.wrong("its url is none", "correct url of the notifier").into();
        };
        match tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect(place)).await {
            Ok(Ok(_)) => check
                .ok("takes connections; what it makes of a message shows when one is sent")
                .into(),
            Ok(Err(error)) => {
                let (why, way_out) = unreachable(error.to_string());
                check.wrong(why, way_out).into()
            }
            Err(_) => check
                .wrong("no connection in 4 s", "see whether it can be reached from here")
                .into(),
        }
    })
}

/// OPA: whether it is there, and logs its decisions at all.
pub fn opa(base: &str) -> Look {
    let base = base.trim_end_matches('/').to_owned();
    let check = Check::new("opa", shown(&base));
    Look::new("opa", shown(&base), async move {
        let url = format!("{base}/v1/config");
        let answer = match ask("opa", &url, reqwest::Client::new().get(&url)).await {
            Ok(answer) => answer,
            Err((why, way_out)) => return check.wrong(why, way_out).into(),
        };
        let check = match answer.status.as_u16() {
            200..=299 => logs_decisions(check, &answer.json()["result"]),
            401 | 403 => check.warning(
                "it does not tell its configuration without a token: whether it logs decisions is not known",
                "see decision_logs in its configuration",
            ),
            status => check.wrong(
                format!("{status} answers there, but not as OPA does"),
                "correct the address: 8181 is its usual port",
            ),
        };
        Seen { checks: vec![check], clock: answer.clock }
    })
}

/// By the configuration that OPA says is in force (its Config API). Without a destination it logs nothing.
fn logs_decisions(check: Check, config: &Value) -> Check {
    let logs = &config["decision_logs"];
    let some = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    let services = match &config["services"] {
        Value::Object(services) => services.keys().cloned().collect::<Vec<_>>(),
        Value::Array(services) => services
            .iter()
            .filter_map(|service| service["name"].as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    };
    let to_console = logs["console"] == true;
    let to = if some(&logs["service"]) {
        logs["service"].as_str().map(|name| format!("service {name}"))
    } else if some(&logs["plugin"]) {
        logs["plugin"].as_str().map(|name| format!("plugin {name}"))
    } else {
        // Without a name it is the first service, if there are any.
        logs.as_object().and(services.first()).map(|name| format!("service {name}"))
    };
    match (to, to_console) {
        (Some(to), false) => check.ok(format!("logs decisions to {to}")),
        (Some(to), true) => check.ok(format!("logs decisions to {to} and to its console")),
        (None, true) => check.ok("logs decisions to its console, from where an agent has to take them to Kafka"),
        (None, false) => check.wrong(
            "it logs no decisions: decision_logs is not set in its configuration",
            "set decision_logs: {service: docket} and services.docket.url to docket's door (docs/door.md), or decision_logs: {console: true}",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use serde_json::json;

    #[test]
    fn an_opa_without_decision_logs_is_told_from_one_with() {
        let level = |config: Value| logs_decisions(Check::new("opa", ""), &config).level;
        for silent in [
            json!({}),
            json!({"decision_logs": null}),
            json!({"decision_logs": {"console": false}}),
            json!({"services": {"bundles": {"url": "http://b"}}}),
            json!({"decision_logs": {"service": ""}}),
        ] {
            assert_eq!(level(silent.clone()), Level::Wrong, "{silent}");
        }
        for speaking in [
            json!({"decision_logs": {"console": true}}),
            json!({"decision_logs": {"service": "docket"}, "services": {"docket": {"url": "http://d"}}}),
            json!({"decision_logs": {"plugin": "kafka"}}),
            json!({"decision_logs": {}, "services": {"docket": {"url": "http://d"}}}),
            json!({"decision_logs": {}, "services": [{"name": "docket", "url": "http://d"}]}),
        ] {
            assert_eq!(level(speaking.clone()), Level::Ok, "{speaking}");
        }
    }

    #[test]
    fn a_failed_connection_has_a_way_out_of_its_own() {
        for (why, way) in [
            ("Connection refused (os error 111)", "nothing listens there"),
            ("invalid peer certificate: UnknownIssuer", "tls.ca_file"),
            ("invalid peer certificate: certificate expired: verification time 1", "renew"),
            ("failed to lookup address information: Name or service not known", "no such host"),
        ] {
            let (_, way_out) = unreachable(why.into());
            assert!(way_out.contains(way), "{why}: {way_out}");
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
