//! `/why/ID` at the admin port: the page of `docket why --html`, for who has the token or a client certificate.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;

use super::{kafka, no_decision, page_of};
use crate::clock;
use crate::log::scan::ScanBound;
use crate::telemetry::config::Admin;

/// Of those who ask at once, so many are answered; each may read a day of the docket topic.
const AT_ONCE: usize = 2;
const DAY: i64 = 86_400_000_000_000;
/// Bytes of an ID.
const LONGEST: usize = 256;

struct Shared {
    files: Vec<PathBuf>,
    /// A token is compared by its HMAC under a key of this process: how long that takes tells nothing of it.
    token: Option<(hmac::Key, hmac::Tag)>,
    few: Arc<Semaphore>,
}

/// `None` where nothing says who may see decisions.
pub fn router(files: &[PathBuf], admin: &Admin) -> Option<Router> {
    let certificates = admin.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
    if admin.why_token.is_none() && !certificates {
        return None;
    }
    let token = admin.why_token.as_ref().map(|token| {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .expect("the system has random numbers");
        let tag = hmac::sign(&key, token.expose().as_bytes());
        (key, tag)
    });
    let shared = Shared { files: files.to_vec(), token, few: Arc::new(Semaphore::new(AT_ONCE)) };
    Some(Router::new().route("/why/{id}", get(why)).with_state(Arc::new(shared)))
}

async fn why(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let mut response = answer(shared, id, &headers).await;
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        ),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn answer(shared: Arc<Shared>, id: String, headers: &HeaderMap) -> Response {
    if !shared.may(headers) {
        // A browser asks for a name and a password: any name, and the token.
        let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"docket\", charset=\"UTF-8\"")];
        return (StatusCode::UNAUTHORIZED, ask, "the token of admin.why_token is needed\n")
            .into_response();
    }
    if id.len() > LONGEST {
        return (StatusCode::BAD_REQUEST, "this is no ID\n").into_response();
    }
    let Ok(permit) = shared.few.clone().try_acquire_owned() else {
        let later = [(header::RETRY_AFTER, "5")];
        return (StatusCode::SERVICE_UNAVAILABLE, later, "others are asking\n").into_response();
    };
    let looked = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        page(&shared.files, &id, ScanBound::At(clock::now() - DAY))
    });
    match looked.await {
        Ok(Ok(Some(page))) => Html(page).into_response(),
        Ok(Ok(None)) => {
            (StatusCode::NOT_FOUND, "no decision of the last day has this ID\n").into_response()
        }
        Ok(Err(error)) => {
            tracing::warn!(error, "why: the docket topic can't be read");
            (StatusCode::BAD_GATEWAY, "the docket topic can't be read; see the log\n")
                .into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// What the pipelines' docket topics hold since then: decisions, or a finding.
fn page(files: &[PathBuf], id: &str, since: ScanBound) -> Result<Option<String>, String> {
    let (mut found, mut more, mut notes, mut finding) = (Vec::new(), 0, Vec::new(), None);
    for file in files {
        let look = || -> Result<kafka::Answer, Box<dyn std::error::Error>> {
            let hidden = |_, _| indicatif::ProgressBar::hidden();
            kafka::look(&super::super::load(file)?, id, since, None, hidden)
        };
        let answer = look().map_err(|e| format!("{}: {e}", file.display()))?;
        found.extend(answer.found);
        more += answer.more;
        notes.extend(answer.again.notes());
        finding = finding.or(answer.finding.map(|finding| no_decision(&finding, Some(file))));
    }
    if found.is_empty() {
        let Some(finding) = finding else { return Ok(None) };
        notes.push(finding);
    }
    page_of(id, &found, more, &notes, None, "").map(Some).map_err(|e| e.to_string())
}

impl Shared {
    /// As a bearer token, or as a password.
    fn may(&self, headers: &HeaderMap) -> bool {
        let Some((key, tag)) = &self.token else { return true };
        let given = || -> Option<Vec<u8>> {
            let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
            let (scheme, rest) = text.split_once(' ')?;
            if scheme.eq_ignore_ascii_case("bearer") {
                return Some(rest.trim().as_bytes().to_vec());
            }
            let both =
                BASE64.decode(rest.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
            let colon = both.iter().position(|b| *b == b':')?;
            Some(both[colon + 1..].to_vec())
        };
        given().is_some_and(|given| hmac::verify(key, &given, tag.as_ref()).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secrets::Secret;

    fn shared(token: &str) -> Shared {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).unwrap();
        let tag = hmac::sign(&key, token.as_bytes());
        Shared { files: Vec::new(), token: Some((key, tag)), few: Arc::new(Semaphore::new(1)) }
    }

    #[test]
    fn only_who_has_the_token_is_told() {
        let shared = shared("s3:cret");
        let basic = |text: &str| format!("Basic {}", BASE64.encode(text));
        for (given, may) in [
            ("Bearer s3:cret", true),
            ("bearer s3:cret", true),
            (&*basic("anybody:s3:cret"), true),
            (&*basic(":s3:cret"), true),
            (&*basic("s3:cret"), false),
            ("Bearer s3:cre", false),
            ("Bearer s3:cret2", false),
            ("Bearer", false),
            ("Bearer ", false),
            ("Basic !", false),
            ("s3:cret", false),
            ("Digest s3:cret", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(given).unwrap());
            assert_eq!(shared.may(&headers), may, "{given}");
        }
        assert!(!shared.may(&HeaderMap::new()));
    }

    #[test]
    fn a_finding_is_explained_and_what_is_not_there_has_no_page() {
        use rdkafka::ClientConfig;
        use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

        let mock = crate::log::mock::Mock::start(&[("docket.served", 1)]).unwrap();
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", mock.bootstrap()).create().unwrap();
        let finding = crate::decision::record::finding(crate::decision::record::Found {
            id: "finding-5a76131eb4faa59d-begins",
            at: clock::now(),
            body: serde_json::json!({"kind": "denial_spike"}),
            sentence: "denial spike on <x> of orders",
            by: "spikes",
            policy: "x",
            trace: None,
            links: Vec::new(),
            service: "orders",
        });
        producer.send(BaseRecord::<(), [u8]>::to("docket.served").payload(&finding)).unwrap();
        producer.flush(std::time::Duration::from_secs(60)).unwrap();
        let file = std::env::temp_dir().join(format!("docket-served-{}.yaml", std::process::id()));
        let brokers = mock.bootstrap();
        let text =
            format!("name: served\nkafka: {{brokers: '{brokers}'}}\nsources: [{{topic: t}}]\n");
        std::fs::write(&file, text).unwrap();
        let page = |id: &str| page(std::slice::from_ref(&file), id, ScanBound::Start);
        for id in ["finding-5a76131eb4faa59d-begins", "5a76131eb4"] {
            let page = page(id).unwrap().unwrap();
            assert!(page.contains("is a finding of docket&#39;s, and no decision"), "{page}");
            assert!(page.contains("denial spike on &lt;x&gt; of orders"), "{page}");
            assert!(page.contains("<pre>  docket spikes "), "{page}");
        }
        assert_eq!(page("nothing-of-it"), Ok(None));
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn without_a_token_or_client_certificates_it_is_off() {
        let mut admin = Admin::default();
        assert!(router(&[], &admin).is_none());
        admin.why_token = Some(Secret::new("t"));
        assert!(router(&[], &admin).is_some());
    }
}
