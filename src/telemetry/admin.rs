//! The admin port: `/metrics` for Prometheus, `/healthz` (the process lives), `/readyz` (every part can
//! do its work; 503 names those that can't).

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio_util::sync::CancellationToken;

use super::config::Admin;
use crate::http::server::{self, Certificates};
use crate::metrics::exemplars::Exemplars;
use crate::metrics::openmetrics;
use crate::telemetry::Health;

#[derive(Clone)]
struct Shared {
    registry: Registry,
    exemplars: Arc<Exemplars>,
    health: Arc<Health>,
}

/// Listens, and serves until stopped. Returns the address, which matters with port 0.
pub async fn serve(
    config: &Admin,
    registry: Registry,
    exemplars: Arc<Exemplars>,
    health: Arc<Health>,
    stop: CancellationToken,
) -> std::io::Result<SocketAddr> {
    let tls =
        config.tls.as_ref().map(Certificates::new).transpose().map_err(std::io::Error::other)?;
    let listener = tokio::net::TcpListener::bind(&config.listen).await?;
    let address = listener.local_addr()?;
    let shared = Shared { registry, exemplars, health };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(shared);
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
        let text = openmetrics::encode(&shared.registry.gather(), &shared.exemplars);
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

async fn ready(State(shared): State<Shared>) -> (StatusCode, String) {
    let not_ready = shared.health.not_ready();
    if not_ready.is_empty() {
        return (StatusCode::OK, "ready\n".into());
    }
    let lines: String = not_ready.iter().map(|(part, why)| format!("{part}: {why}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines)
}
