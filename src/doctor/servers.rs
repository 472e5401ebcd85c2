//! How a server is asked over HTTP, and what its answer or its silence means; and the servers beside sinks: who is told of findings,
//! and OPA. Whether each is there, is what it is taken for, and knows who asks.

use std::sync::Arc;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;

use super::{Check, Clock, Look, PATIENCE, Seen, clocks, shown};
use crate::clock::now;
use crate::http::answer::{Hidden, quoted, whose};
use crate::http::client::{Client, HttpError, kind};
use crate::http::failure::{HTTP_NOT_HTTPS, innermost};
use crate::notify::config::Notify;
use crate::pipeline::Pipeline;

/// What a server answered.
pub struct Answer {
    pub status: StatusCode,
    /// The media type, without parameters.
    pub kind: Option<String>,
    pub text: String,
    pub clock: Option<Clock>,
    hidden: Arc<Hidden>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// The beginning of what it said, and whose words these are.
    fn said(&self) -> String {
        let content = self.text.as_bytes();
        let mut said =
            quoted(content, &self.hidden).map_or_else(String::new, |said| format!(": {said}"));
        if let Some(server) = whose(content) {
            said += &format!("; that looks like {server}");
        }
        said
    }

    pub fn answers(&self) -> String {
        format!("it answers {}{}", self.status, self.said())
    }

    pub fn refuses(&self) -> String {
        format!("it refused the login ({}){}", self.status, self.said())
    }

    /// It is another server than the one that is wanted.
    pub fn not_as(&self, wanted: &str) -> String {
        format!("{} answers there, but not as {wanted} does{}", self.status, self.said())
    }

    /// It does not take what is wanted at this path.
    pub fn at(&self, path: &str) -> String {
        format!("{} answers there, but takes nothing at {path}{}", self.status, self.said())
    }
}

/// Why there is no answer.
pub struct Failed {
    pub why: String,
    pub way_out: String,
    /// The address may be wrong, and not only who may connect to it.
    pub astray: bool,
}

impl Failed {
    pub fn told(self, check: Check) -> Check {
        check.wrong(self.why, self.way_out).astray_if(self.astray)
    }
}

/// Sends a request without a login; or says what went wrong and the way out.
pub async fn ask(what: &str, url: &str, request: RequestBuilder) -> Result<Answer, Failed> {
    ask_as(&Arc::default(), what, url, request).await
}

/// The same with a login, which is not told.
pub async fn ask_as(
    hidden: &Arc<Hidden>,
    what: &str,
    url: &str,
    request: RequestBuilder,
) -> Result<Answer, Failed> {
    let asked = now();
    let sent = async {
        let response = request.send().await?;
        let (status, answered) = (response.status(), now());
        let ahead = clocks::ahead(response.headers(), asked, answered);
        let clock = ahead.map(|ahead| Clock { what: what.to_owned(), address: shown(url), ahead });
        let kind = kind(response.headers());
        let text = response.text().await?;
        Ok::<_, reqwest::Error>(Answer { status, kind, text, clock, hidden: hidden.clone() })
    };
    match tokio::time::timeout(PATIENCE, sent).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(unreachable(innermost(&error))),
        Err(_) => Err(Failed {
            why: "it takes the connection and does not answer".into(),
            way_out: "see whether it is overloaded, or something else listens there".into(),
            astray: true,
        }),
    }
}

/// What a connection that fails is about, and what to do.
pub fn unreachable(why: String) -> Failed {
    let is_any = |signs: &[&str]| signs.iter().any(|sign| why.contains(sign));
    let (way_out, astray) = if is_any(&["UnknownIssuer"]) {
        ("name the authority that issued its certificate in tls.ca_file", false)
    } else if is_any(&["Expired", "expired"]) {
        ("renew the certificate where the server has it", false)
    } else if is_any(&["NotValidForName", "not valid for name"]) {
        ("use the name that stands in its certificate", false)
    } else if is_any(&["certificate required", "CertificateRequired"]) {
        ("it wants a client certificate: set tls.cert_file and tls.key_file", false)
    } else if is_any(&["certificate"]) {
        ("see tls in the pipeline file", false)
    } else if is_any(&["refused"]) {
        ("nothing listens there: correct the host or port, or start it", true)
    } else if is_any(&["dns error", "lookup", "resolve"]) {
        ("there is no such host: correct its name", true)
    } else if is_any(&[HTTP_NOT_HTTPS]) {
        ("write http:// instead of https://, or have the server speak TLS", true)
    } else {
        ("see whether it can be reached from here, and whether it wants https", true)
    };
    Failed { way_out: way_out.into(), why, astray }
}

/// What a client that can't be made says.
pub fn unmade(check: Check, error: &HttpError) -> Seen {
    check.wrong(error.to_string(), "correct it in the pipeline file").into()
}

/// Who is told of findings.
pub fn others(pipeline: &Pipeline) -> Vec<Look> {
    let mut looks = Vec::new();
    for (name, notify) in pipeline.file.spikes.iter().flat_map(|spikes| &spikes.notify) {
        let what = format!("notifier {name}");
        match notify.clone() {
            Notify::Alertmanager(config) => {
                for (i, url) in config.urls.iter().cloned().enumerate() {
                    let (check, config) = (Check::new(what.clone(), shown(&url)), config.clone());
                    let setting = ["spikes", "notify", name, "urls", &i.to_string()];
                    let look = Look::new(what.clone(), shown(&url), async move {
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
                    });
                    looks.push(look.set_by(&setting));
                }
            }
            // Asking would be telling.
            Notify::Webhook(config) => {
                let look = listens(what, config.url.expose());
                looks.push(look.set_by(&["spikes", "notify", name, "url"]));
            }
            Notify::Slack(config) => {
                let look = listens(what, config.url.expose());
                looks.push(look.set_by(&["spikes", "notify", name, "url"]));
            }
        }
    }
    looks
}

async fn alertmanager(check: Check, client: Client, base: String) -> Seen {
    let url = format!("{}/api/v2/status", base.trim_end_matches('/'));
    let answer =
        match ask_as(client.hidden(), &check.what, &url, client.request(Method::GET, &url)).await {
            Ok(answer) => answer,
            Err(failed) => return failed.told(check).into(),
        };
    let check = match answer.status.as_u16() {
        200..=299 if answer.json()["versionInfo"].is_object() => check.ok("answers"),
        401 | 403 | 407 => {
            check.wrong(answer.refuses(), "see auth of the notifier in the pipeline file")
        }
        _ => check.astray(answer.not_as("Alertmanager"), "correct urls: 9093 is its usual port"),
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
            Ok(Err(error)) => unreachable(error.to_string()).told(check).into(),
            Err(_) => check
                .astray("no connection in 4 s", "see whether it can be reached from here")
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
            Err(failed) => return failed.told(check).into(),
        };
        let config = &answer.json()["result"];
        let check = match answer.status.as_u16() {
            200..=299 if config.is_object() => logs_decisions(check, config),
            401 | 403 => check.warning(
                "it does not tell its configuration without a token: whether it logs decisions is not known",
                "see decision_logs in its configuration",
            ),
            _ => check.astray(
                answer.not_as("OPA"),
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

    #[tokio::test]
    async fn a_server_that_speaks_http_where_https_is_wanted_is_told_as_that() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let _ = rustls::crypto::ring::default_provider().install_default();
        let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", plain.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = plain.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            }
        });
        let failed = ask("it", &url, reqwest::Client::new().get(&url)).await.map(drop).unwrap_err();
        assert_eq!(failed.why, "the server there speaks http, not https");
        assert!(
            failed.way_out.starts_with("write http:// instead of https://"),
            "{}",
            failed.way_out
        );
        assert!(failed.astray);
    }

    #[test]
    fn a_failed_connection_has_a_way_out_of_its_own() {
        for (why, way) in [
            ("Connection refused (os error 111)", "nothing listens there"),
            ("invalid peer certificate: UnknownIssuer", "tls.ca_file"),
            ("invalid peer certificate: certificate expired: verification time 1", "renew"),
            ("failed to lookup address information: Name or service not known", "no such host"),
        ] {
            let way_out = unreachable(why.into()).way_out;
            assert!(way_out.contains(way), "{why}: {way_out}");
        }
    }
}
