//! Answers as Loki, Elasticsearch and an OTLP/HTTP receiver would, and reads every body to its end. Prints
//! its address. For `benches/end_to_end`.
#![allow(clippy::unwrap_used)]

use std::io::Read;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    axum::serve(listener, Router::new().fallback(any(answer))).await.unwrap();
}

async fn answer(uri: Uri, headers: HeaderMap, body: Body) -> Response {
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    match uri.path() {
        path if path.ends_with("_bulk") => {
            let created = vec![r#"{"create":{"status":201}}"#; actions(&headers, &body)].join(",");
            let answer = format!(r#"{{"took":1,"errors":false,"items":[{created}]}}"#);
            ([(header::CONTENT_TYPE, "application/json")], answer).into_response()
        }
        path if path.starts_with("/loki") => StatusCode::NO_CONTENT.into_response(),
        _ => ([(header::CONTENT_TYPE, "application/x-protobuf")], "").into_response(),
    }
}

/// How many documents a bulk request has: two lines each.
fn actions(headers: &HeaderMap, body: &Bytes) -> usize {
    let mut plain = body.to_vec();
    if headers.contains_key(header::CONTENT_ENCODING) {
        plain.clear();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
    }
    memchr::memchr_iter(b'\n', &plain).count() / 2
}
