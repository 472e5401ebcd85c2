//! The admin port: `/metrics` for Prometheus, `/healthz` (the process lives; 503 if a part hangs for good, so that only a
//! restart helps), `/readyz` (it can take what a Service sends it; 503 says why not), `/status` (how each part is doing).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus::{Encoder, Registry, TextEncoder};
use tokio_util::sync::CancellationToken;

use super::config::Admin;
use crate::clock;
use crate::decision::time;
use crate::http::server::{self, Certificates};
use crate::metrics::created::Created;
use crate::metrics::exemplars::Exemplars;
use crate::metrics::openmetrics;
use crate::telemetry::{Health, status};

#[derive(Clone)]
struct Shared {
    registry: Registry,
    exemplars: Arc<Exemplars>,
    health: Arc<Health>,
    created: Arc<Mutex<Created>>,
}

/// Listens, and serves until stopped, what others add, too. Returns the address, which matters with port 0.
pub async fn serve(
    config: &Admin,
    registry: Registry,
    exemplars: Arc<Exemplars>,
    health: Arc<Health>,
    more: Option<Router>,
    stop: CancellationToken,
) -> std::io::Result<SocketAddr> {
    let tls =
        config.tls.as_ref().map(Certificates::new).transpose().map_err(std::io::Error::other)?;
    let listener = tokio::net::TcpListener::bind(&config.listen).await?;
    let address = listener.local_addr()?;
    let created = Arc::new(Mutex::new(Created::new(clock::now())));
    let shared = Shared { registry, exemplars, health, created };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(lives))
        .route("/readyz", get(ready))
        .route("/status", get(how))
        .with_state(shared)
        .merge(more.unwrap_or_default());
    tokio::spawn(server::serve(
        listener,
        tls.map(Arc::new),
        server::Limits::default(),
        router,
        stop,
    ));
    Ok(address)
}

/// OpenMetrics with exemplars for who takes it, as Prometheus does; the classic text for others.
async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> impl IntoResponse {
    let accept =
        headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if openmetrics::is_accepted(accept) {
        let families = shared.registry.gather();
        let mut created = shared.created.lock().unwrap_or_else(PoisonError::into_inner);
        created.look(&families, clock::now());
        let text = openmetrics::encode(&families, &shared.exemplars, &created);
        return (
            StatusCode::OK,
            [(header::CONTENT_TYPE, openmetrics::CONTENT_TYPE)],
            text.into_bytes(),
        );
    }
    let mut text = Vec::new();
    match TextEncoder::new().encode(&shared.registry.gather(), &mut text) {
        Ok(()) => (StatusCode::OK, [(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text),
        Err(e) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            e.to_string().into_bytes(),
        ),
    }
}

/// Who restarts processes asks this: it says no only where that helps.
async fn lives(State(shared): State<Shared>) -> (StatusCode, String) {
    let dead = shared.health.dead();
    if dead.is_empty() {
        return (StatusCode::OK, "ok\n".into());
    }
    let lines = dead.iter().map(|(part, why)| format!("{part}: {why}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines)
}

async fn ready(State(shared): State<Shared>) -> (StatusCode, String) {
    let not_ready = shared.health.not_ready();
    if not_ready.is_empty() {
        return (StatusCode::OK, "ready\n".into());
    }
    let all = shared.health.all();
    let line = |(part, why): &(String, String)| {
        let since = all.get(part).map(|of| time::format(of.since));
        let since = since.map_or_else(String::new, |at| format!(" (since {}Z)", &at[..19]));
        format!("{part}: {why}{since}\n")
    };
    let lines: String = not_ready.iter().map(line).collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines)
}

/// How each part is doing: a page for browsers, JSON for all others.
async fn how(State(shared): State<Shared>, uri: Uri, headers: HeaderMap) -> Response {
    let status = status::of(&shared.health, &shared.registry.gather(), clock::now());
    let accept =
        headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let json = uri.query().is_some_and(|asked| asked.split('&').any(|one| one == "format=json"));
    if accept.contains("text/html") && !json {
        return Html(status::page(&status)).into_response();
    }
    Json(status).into_response()
}
