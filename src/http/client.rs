//! The HTTP client that sinks share: TLS, credentials, and what each kind of answer means.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use reqwest::{Certificate, Identity, Response, StatusCode};

use super::answer::{Hidden, quoted, stranger};
use super::config::{Auth, Tls};
use super::failure::{Cause, Failure, Refusal, Retry, innermost};
use super::sent::watched;
use crate::config::secrets::Secret;

/// A client can't be made from the pipeline file. Values are not shown.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("{} can't be read: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error("{} holds no usable certificate or key in PEM", path.display())]
    Pem { path: PathBuf },
    #[error("tls.cert_file and tls.key_file belong together")]
    HalfIdentity,
    #[error("the header {name:?} or its value can't be sent")]
    Header { name: String },
    #[error("the HTTP client can't be made: {0}")]
    Client(reqwest::Error),
    #[error("{0}")]
    Other(String),
}

/// An answer longer than this is cut.
const MAX_ANSWER: usize = 16 << 20;

/// An answer of 2xx.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    /// The media type, without parameters; nothing where none is named.
    pub kind: Option<String>,
    pub content: Vec<u8>,
    place: String,
    hidden: Arc<Hidden>,
}

/// Whatever a server answered.
pub struct Reply {
    pub status: StatusCode,
    /// Retry-After.
    pub after: Option<Duration>,
    pub headers: HeaderMap,
    pub content: Vec<u8>,
}

/// The media type, without parameters.
pub fn kind(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().unwrap_or_default();
    Some(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

impl Answer {
    /// It is not what this server answers when it takes something: a proxy's, or that of another service.
    pub fn unexpected(&self, wanted: &str) -> Failure {
        let Answer { status, content, place, hidden, .. } = self;
        let told = stranger(content, hidden);
        let detail =
            format!("{place}: the server answered {} and not {wanted}{told}", status.as_u16());
        Failure::retry(Cause::Misconfigured, detail)
    }
}

#[derive(Clone)]
pub struct Client {
    client: reqwest::Client,
    /// What is sent with each request, and is told nobody.
    hidden: Arc<Hidden>,
}

pub fn read(path: &Path) -> Result<Vec<u8>, HttpError> {
    std::fs::read(path).map_err(|error| HttpError::File { path: path.to_owned(), error })
}

/// Credentials and further headers, as header fields; secrets are marked sensitive, so that no debug output shows them.
pub fn headers(
    auth: Option<&Auth>,
    extra: &BTreeMap<String, Secret>,
) -> Result<HeaderMap, HttpError> {
    let mut headers = HeaderMap::new();
    let secret = |name: &str, text: &str| {
        let mut value =
            HeaderValue::from_str(text).map_err(|_| HttpError::Header { name: name.to_owned() })?;
        value.set_sensitive(true);
        Ok::<_, HttpError>(value)
    };
    match auth {
        None => {}
        Some(Auth::Basic(basic)) => {
            let pair = format!("{}:{}", basic.username.expose(), basic.password.expose());
            headers.insert(
                AUTHORIZATION,
                secret("authorization", &format!("Basic {}", base64(pair.as_bytes())))?,
            );
        }
        Some(Auth::Bearer(bearer)) => {
            headers.insert(
                AUTHORIZATION,
                secret("authorization", &format!("Bearer {}", bearer.token.expose()))?,
            );
        }
        Some(Auth::ApiKey(key)) => {
            headers.insert(
                AUTHORIZATION,
                secret("authorization", &format!("ApiKey {}", key.key.expose()))?,
            );
        }
    }
    for (name, value) in extra {
        let field = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| HttpError::Header { name: name.clone() })?;
        headers.insert(field, secret(name, value.expose())?);
    }
    Ok(headers)
}

/// What is told nobody, as it stands in requests.
fn hidden(auth: Option<&Auth>, extra: &BTreeMap<String, Secret>) -> Hidden {
    let mut secrets: Vec<String> = extra.values().map(|value| value.expose().to_owned()).collect();
    match auth {
        None => {}
        Some(Auth::Basic(basic)) => {
            let (name, password) = (basic.username.expose(), basic.password.expose());
            secrets.push(password.to_owned());
            secrets.push(base64(format!("{name}:{password}").as_bytes()));
        }
        Some(Auth::Bearer(bearer)) => secrets.push(bearer.token.expose().to_owned()),
        Some(Auth::ApiKey(key)) => secrets.push(key.key.expose().to_owned()),
    }
    Hidden::new(secrets)
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

impl Client {
    pub fn new(
        tls: &Tls,
        auth: Option<&Auth>,
        extra: &BTreeMap<String, Secret>,
        timeout: Duration,
    ) -> Result<Client, HttpError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("docket/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers(auth, extra)?)
            .timeout(timeout)
            .connect_timeout(timeout.min(Duration::from_secs(10)))
            // A redirected POST may arrive as a GET.
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true);
        if let Some(path) = &tls.ca_file {
            let authorities =
                Certificate::from_pem_bundle(&read(path)?).ok().filter(|c| !c.is_empty());
            builder = builder.tls_certs_only(
                authorities.ok_or_else(|| HttpError::Pem { path: path.to_path_buf() })?,
            );
        }
        match (&tls.cert_file, &tls.key_file) {
            (None, None) => {}
            (Some(cert), Some(key)) => {
                let mut pem = read(cert)?;
                pem.push(b'\n');
                pem.extend(read(key)?);
                builder = builder.identity(
                    Identity::from_pem(&pem)
                        .map_err(|_| HttpError::Pem { path: cert.to_path_buf() })?,
                );
            }
            _ => return Err(HttpError::HalfIdentity),
        }
        if tls.insecure_skip_verify {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        let hidden = Arc::new(hidden(auth, extra));
        Ok(Client { client: builder.build().map_err(HttpError::Client)?, hidden })
    }

    /// Posts a body; a 2xx answer, or what another means. Whether it acknowledges what was sent, the caller says.
    pub async fn post(
        &self,
        url: &str,
        content_type: &'static str,
        encoding: Option<&'static str>,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let mut request = self.client.post(url).header(CONTENT_TYPE, content_type);
        if let Some(encoding) = encoding {
            request = request.header(CONTENT_ENCODING, encoding);
        }
        let place = reqwest::Url::parse(url).map_or_else(|_| String::new(), |u| place(&u));
        let Reply { status, after, headers, content } = self.deliver(request, &place, body).await?;
        if status.is_success() {
            let (kind, hidden) = (kind(&headers), self.hidden.clone());
            return Ok(Answer { status, kind, content, place, hidden });
        }
        Err(match self.meaning(status, after, &content) {
            Failure::Retry(retry) => {
                Failure::Retry(Retry { detail: format!("{place}: {}", retry.detail), ..retry })
            }
            refused => refused,
        })
    }

    /// What a status other than 2xx means, with what the server said where that is about the address or the login.
    pub fn meaning(&self, status: StatusCode, after: Option<Duration>, answer: &[u8]) -> Failure {
        let mut failure = meaning(status, after, answer);
        if let Failure::Retry(retry) = &mut failure {
            retry.detail += &match retry.cause {
                Cause::Misconfigured => stranger(answer, &self.hidden),
                Cause::Credentials => quoted(answer, &self.hidden)
                    .map_or_else(String::new, |said| format!(": {said}")),
                _ => String::new(),
            };
        }
        failure
    }

    /// Sends a request of `request` with a body. An error is an outage, and so is an answer that it was taken before all of it was sent.
    pub async fn deliver(
        &self,
        request: reqwest::RequestBuilder,
        place: &str,
        body: Bytes,
    ) -> Result<Reply, Failure> {
        let (body, unsent) = watched(body);
        let reply = self.send(request.body(body)).await?;
        let unsent = unsent.bytes();
        if reply.status.is_success() && unsent > 0 {
            let status = reply.status.as_u16();
            let detail = format!(
                "{place}: {status} came while {unsent} bytes of the request were not sent yet; who answers does not read what it is sent"
            );
            return Err(Failure::retry(Cause::Misconfigured, detail));
        }
        Ok(reply)
    }

    /// Sends a request of `request`. An error is an outage.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Result<Reply, Failure> {
        let response = request.send().await.map_err(|e| broken(&e))?;
        let (status, after) = (response.status(), retry_after(&response));
        let headers = response.headers().clone();
        let content = match content(response).await {
            Ok(content) => content,
            // What the status says counts; only of a success the content matters.
            Err(_) if !status.is_success() => Vec::new(),
            Err(e) => return Err(broken(&e)),
        };
        Ok(Reply { status, after, headers, content })
    }

    /// What no quotation of an answer may hold.
    pub fn hidden(&self) -> &Arc<Hidden> {
        &self.hidden
    }

    /// Any request whose answer a command wants as it is.
    pub fn request(&self, method: reqwest::Method, url: &str) -> reqwest::RequestBuilder {
        self.client.request(method, url)
    }
}

async fn content(mut response: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut content = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if content.len() + chunk.len() > MAX_ANSWER {
            break;
        }
        content.extend_from_slice(&chunk);
    }
    Ok(content)
}

/// Retry-After (RFC 9110, section 10.2.3): seconds, or a date.
pub fn retry_after(response: &Response) -> Option<Duration> {
    wait(response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim(), crate::clock::now())
}

/// An hour at most: what says more is not believed.
fn wait(text: &str, now: crate::decision::time::Nanos) -> Option<Duration> {
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_second();
            u64::try_from(at - now / 1_000_000_000).unwrap_or(0)
        }
    };
    Some(Duration::from_secs(seconds.min(3600)))
}

/// What a failed request means: no answer came.
pub fn broken(error: &reqwest::Error) -> Failure {
    let cause = if error.is_timeout() { Cause::Timeout } else { Cause::Connection };
    // The chain of causes says what happened; the error itself names the URL, which may hold credentials.
    let mut detail = std::error::Error::source(error).map(innermost).unwrap_or_default();
    if detail.is_empty() {
        // It has no cause but itself; without its URL.
        detail = if error.is_timeout() { "no answer in time".into() } else { "it broke".into() };
    }
    if let Some(url) = error.url() {
        detail = format!("{}: {detail}", place(url));
    }
    Failure::Retry(Retry { cause, detail, after: None })
}

/// Where a server is: no credentials, no path, which may hold a secret.
pub fn place(url: &reqwest::Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}

/// What a status other than 2xx means.
pub fn meaning(status: StatusCode, after: Option<Duration>, answer: &[u8]) -> Failure {
    let cause = match status.as_u16() {
        // These alone are about what was sent.
        status @ (400 | 413 | 422) => {
            let reason: String =
                String::from_utf8_lossy(answer).trim().chars().take(1000).collect();
            return Failure::Refused(Refusal { status, reason });
        }
        401 | 403 | 407 => Cause::Credentials,
        408 | 425 | 429 => Cause::Throttled,
        500.. => Cause::Server,
        _ => Cause::Misconfigured,
    };
    Failure::Retry(Retry { cause, detail: format!("the server answered {status}"), after })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_say_outage_or_refusal() {
        let cause = |status: u16| match meaning(StatusCode::from_u16(status).unwrap(), None, b"why")
        {
            Failure::Retry(retry) => retry.cause.as_str(),
            Failure::Refused(refusal) => {
                assert_eq!(refusal.reason, "why");
                "refused"
            }
        };
        for (status, meaning) in [
            (401, "credentials"),
            (403, "credentials"),
            (408, "throttled"),
            (429, "throttled"),
            (500, "server"),
            (503, "server"),
            (404, "misconfigured"),
            (301, "misconfigured"),
            (402, "misconfigured"),
            (405, "misconfigured"),
            (407, "credentials"),
            (415, "misconfigured"),
            (421, "misconfigured"),
            (425, "throttled"),
            (431, "misconfigured"),
            (451, "misconfigured"),
            (400, "refused"),
            (413, "refused"),
            (422, "refused"),
        ] {
            assert_eq!(cause(status), meaning, "{status}");
        }
    }

    #[tokio::test]
    async fn a_failure_names_the_address_and_the_cause_and_no_secret() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let timeout = Duration::from_secs(5);
        let client = Client::new(&Tls::default(), None, &BTreeMap::new(), timeout).unwrap();
        let url = "http://user:canary@127.0.0.1:1/push/canary?key=canary";
        let failed = client.post(url, "text/plain", None, Bytes::new()).await.unwrap_err();
        let Failure::Retry(retry) = failed else { panic!("{failed:?}") };
        assert_eq!(retry.detail, "http://127.0.0.1:1: Connection refused (os error 111)");
    }

    #[tokio::test]
    async fn what_another_server_answered_is_quoted_with_a_hint_and_no_secret() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let answers = axum::Router::new()
            .route(
                "/none",
                axum::routing::post(|| async { (StatusCode::NOT_FOUND, "404 page\nnot found") }),
            )
            .route(
                "/page",
                axum::routing::post(|| async { "<html><title>Jaeger UI</title></html>" }),
            )
            .route(
                "/login",
                axum::routing::post(|| async { (StatusCode::UNAUTHORIZED, "no org id") }),
            )
            .fallback(|headers: HeaderMap, body: String| async move {
                (StatusCode::NOT_FOUND, format!("{headers:?} {body}"))
            });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, answers).await.unwrap() });
        let auth = Auth::Bearer(crate::http::config::Bearer { token: Secret::new("canary") });
        let (tls, none) = (Tls::default(), BTreeMap::new());
        let client = Client::new(&tls, Some(&auth), &none, Duration::from_secs(5)).unwrap();
        let post = async |path: &str| {
            let url = format!("{base}/{path}");
            match client.post(&url, "text/plain", None, Bytes::from("body")).await {
                Ok(answer) => answer.unexpected("204"),
                Err(failure) => failure,
            }
        };
        for (path, said) in [
            (
                "none",
                "the server answered 404 Not Found: \"404 page not found\"; is it another server's address?",
            ),
            (
                "page",
                "the server answered 200 and not 204: a page, \"Jaeger UI\"; that looks like Jaeger: is the address right?",
            ),
            ("login", "the server answered 401 Unauthorized: \"no org id\""),
            ("echo", "the server answered 404 Not Found; is it another server's address?"),
        ] {
            let Failure::Retry(retry) = post(path).await else { panic!("{path}") };
            assert_eq!(retry.detail, format!("{base}: {said}"));
        }
    }

    #[test]
    fn a_server_says_when_in_seconds_or_as_a_date() {
        let now = 1_795_524_530_000_000_000; // 2026-11-24T12:48:50Z
        let seconds = |text: &str| wait(text, now).map(|w| w.as_secs());
        assert_eq!(seconds("7"), Some(7));
        assert_eq!(seconds("Tue, 24 Nov 2026 12:49:20 GMT"), Some(30));
        assert_eq!(seconds("Tue, 24 Nov 2026 12:00:00 GMT"), Some(0));
        assert_eq!(seconds("999999"), Some(3600));
        assert_eq!(seconds("soon"), None);
    }

    #[test]
    fn credentials_are_sent_and_never_shown() {
        let auth = Auth::Basic(crate::http::config::Basic {
            username: Secret::new("u"),
            password: Secret::new("canary"),
        });
        let headers =
            headers(Some(&auth), &BTreeMap::from([("X-Key".to_owned(), Secret::new("canary"))]))
                .unwrap();
        assert_eq!(headers[AUTHORIZATION], "Basic dTpjYW5hcnk=");
        assert!(!format!("{headers:?}").contains("canary"));
    }
}
