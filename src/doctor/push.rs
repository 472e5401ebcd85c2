//! Where metrics are pushed: whether each destination is there, takes metrics, and knows who asks. It is sent nothing, by its own protocol.

use reqwest::Method;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};

use super::servers::{Answer, ask_as, unmade};
use super::sinks::is_export;
use super::{Check, Look, PATIENCE, Seen, shown};
use crate::http::client::Client;
use crate::metrics::remote_write::Version;
use crate::pipeline::Pipeline;
use crate::telemetry::config::{self, Otlp, Push, RemoteWrite};

const LOGIN: &str = "see auth and headers under telemetry.push in the pipeline file";
/// Snappy's form of nothing.
const NOTHING: [u8; 1] = [0];

/// What is to be looked at.
pub fn looks(pipeline: &Pipeline) -> impl Iterator<Item = Look> {
    pipeline.file.telemetry.push.iter().map(|(name, to)| {
        let what = format!("push {name}");
        let of = |key| ["telemetry", "push", name.as_str(), key];
        match to.clone() {
            Push::RemoteWrite(to) => {
                let check = Check::new(what.clone(), shown(&to.url));
                Look::new(what, shown(&to.url), remote_write(check, to)).set_by(&of("url"))
            }
            Push::Otlp(to) => {
                let check = Check::new(what.clone(), shown(&to.endpoint));
                Look::new(what, shown(&to.endpoint), otlp(check, to)).set_by(&of("endpoint"))
            }
        }
    })
}

async fn remote_write(check: Check, to: RemoteWrite) -> Seen {
    let client = match Client::new(&to.tls, to.auth.as_ref(), &to.headers, PATIENCE) {
        Ok(client) => client,
        Err(error) => return unmade(check, &error),
    };
    let version = if to.version == config::Version::V2 { Version::V2 } else { Version::V1 };
    let request = client
        .request(Method::POST, &to.url)
        .header(CONTENT_TYPE, version.content_type())
        .header(CONTENT_ENCODING, "snappy")
        .header("X-Prometheus-Remote-Write-Version", version.header())
        .body(NOTHING.to_vec());
    let answer = match ask_as(client.hidden(), &check.what, &to.url, request).await {
        Ok(answer) => answer,
        Err(failed) => return failed.told(check).into(),
    };
    // Nothing stands in such an answer; a page is another server's.
    let taken = answer.status.is_success() && answer.text.is_empty();
    judged(
        check,
        answer,
        taken,
        "remote write",
        "correct url: Prometheus takes it at /api/v1/write where --web.enable-remote-write-receiver is set, Mimir at /api/v1/push",
    )
}

async fn otlp(check: Check, to: Otlp) -> Seen {
    let client = match Client::new(&to.tls, to.auth.as_ref(), &to.headers, PATIENCE) {
        Ok(client) => client,
        Err(error) => return unmade(check, &error),
    };
    let url = format!("{}/v1/metrics", to.endpoint.trim_end_matches('/'));
    let request = client.request(Method::POST, &url);
    let request = request.header(CONTENT_TYPE, "application/x-protobuf").body(Vec::new());
    let answer = match ask_as(client.hidden(), &check.what, &url, request).await {
        Ok(answer) => answer,
        Err(failed) => return failed.told(check).into(),
    };
    let taken = is_export(&answer);
    judged(
        check,
        answer,
        taken,
        "OTLP metrics",
        "correct endpoint: 4318 is the usual port of OTLP over HTTP; Prometheus takes it below /api/v1/otlp where --web.enable-otlp-receiver is set",
    )
}

fn judged(check: Check, answer: Answer, taken: bool, what: &str, correct: &str) -> Seen {
    let check = match answer.status.as_u16() {
        _ if taken => check.ok(format!("takes {what}")),
        401 | 403 | 407 => check.wrong(answer.refuses(), LOGIN),
        429 | 500..=599 => check.wrong(answer.answers(), "see its log"),
        _ => check.astray(answer.not_as(&format!("who takes {what}")), correct),
    };
    Seen { checks: vec![check], clock: answer.clock }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::response::IntoResponse;
    use reqwest::StatusCode;
    use serde_json::{Value, json};

    use super::super::Level;
    use super::*;

    async fn looked_at(status: StatusCode, text: &'static str, to: &mut Value) -> Check {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let router = Router::new().fallback(move || async move {
            // An answer of text names its type; one of nothing names none.
            if text.is_empty() { status.into_response() } else { (status, text).into_response() }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let key = if to["type"] == "otlp" { "endpoint" } else { "url" };
        to[key] = at.into();
        let text = json!({
            "name": "x", "kafka": {"brokers": "k"}, "sources": [{"topic": "t"}],
            "telemetry": {"push": {"p": to}},
        });
        let outside = &crate::config::secrets::Real;
        let path = std::path::Path::new("x");
        let pipeline = crate::pipeline::parse(path, &text.to_string(), outside).unwrap();
        let look = looks(&pipeline).next().unwrap();
        look.work.await.checks.remove(0)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_takes_metrics_is_told_from_who_does_not() {
        let (ok, none, missing) = (StatusCode::OK, StatusCode::NO_CONTENT, StatusCode::NOT_FOUND);
        let off =
            "remote write receiver needs to be enabled with --web.enable-remote-write-receiver";
        for (kind, status, text, level, says) in [
            ("remote_write", none, "", Level::Ok, "takes remote write"),
            ("remote_write", ok, "", Level::Ok, "takes remote write"),
            (
                "remote_write",
                ok,
                "<html><title>Grafana</title></html>",
                Level::Wrong,
                "\"Grafana\"",
            ),
            ("remote_write", missing, off, Level::Wrong, "needs to be enabled"),
            ("remote_write", StatusCode::UNAUTHORIZED, "", Level::Wrong, "refused the login"),
            ("otlp", ok, "", Level::Ok, "takes OTLP metrics"),
            ("otlp", missing, "404 page not found\n", Level::Wrong, "but not as who takes OTLP"),
            ("otlp", StatusCode::BAD_GATEWAY, "", Level::Wrong, "it answers 502"),
        ] {
            let check = looked_at(status, text, &mut json!({"type": kind})).await;
            let told = format!("{kind} {status} {text}: {check:?}");
            assert_eq!((check.level, check.what.as_str()), (level, "push p"), "{told}");
            assert!(check.says.contains(says), "{told}");
            assert!(level == Level::Ok || !check.way_out.is_empty(), "{told}");
        }
    }
}
