//! Answers as Loki, Elasticsearch and an OTLP/HTTP receiver would, and reads every body to its end. Prints
//! its address. For `benches/end_to_end`.
#![allow(clippy::unwrap_used)]

use axum::Router;
use axum::body::Body;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    axum::serve(listener, Router::new().fallback(any(answer))).await.unwrap();
}

async fn answer(uri: Uri, body: Body) -> Response {
    let mut stream = body.into_data_stream();
    while futures_lite::StreamExt::next(&mut stream).await.is_some() {}
    match uri.path() {
        path if path.ends_with("_bulk") => (
            [(header::CONTENT_TYPE, "application/json")],
            r#"{"took":1,"errors":false,"items":[]}"#,
        )
            .into_response(),
        path if path.starts_with("/loki") => StatusCode::NO_CONTENT.into_response(),
        _ => ([(header::CONTENT_TYPE, "application/x-protobuf")], "").into_response(),
    }
}
