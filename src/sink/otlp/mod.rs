//! OTLP (opentelemetry-proto 1.x): each decision a span in its request's trace, or a log record, or both.
//! gRPC and HTTP with protobuf. <https://opentelemetry.io/docs/specs/otlp/>
//!
//! The SDK's exporter is for a program's own spans: it carries one resource a batch and hides partial
//! success. Here a batch holds the decisions of many OPAs, and each must be accounted for.

pub mod config;
mod encode;
mod grpc;
pub mod query;

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use config::{OtlpConfig, OtlpProtocol, Signal};
pub use encode::{amendment, log_record, logs_request, names, span, traces_request};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;

use super::{Outcome, Sink};
use crate::decision::record::Record;
use crate::http::answer::is_otlp;
use crate::http::client::{self, Client, HttpError};
use crate::http::config::HttpCompression;
use crate::http::failure::{Cause, Failure, Retry, innermost};

enum Transport {
    Http { client: Client, base: String },
    Grpc { channel: Channel, headers: reqwest::header::HeaderMap, place: String },
}

pub struct Otlp {
    signals: Vec<Signal>,
    transport: Transport,
    compression: HttpCompression,
    timeout: std::time::Duration,
}

impl Otlp {
    pub fn new(config: &OtlpConfig) -> Result<Otlp, HttpError> {
        let timeout = config.delivery.timeout.0;
        let transport = match config.protocol {
            OtlpProtocol::Http => Transport::Http {
                client: config.client()?,
                base: config.endpoint.trim_end_matches('/').to_owned(),
            },
            OtlpProtocol::Grpc => Transport::Grpc {
                channel: grpc::channel(config)?,
                headers: client::headers(config.auth.as_ref(), &config.headers)?,
                place: reqwest::Url::parse(&config.endpoint)
                    .map_or_else(|_| String::new(), |url| client::place(&url)),
            },
        };
        Ok(Otlp {
            signals: config.signals.clone(),
            transport,
            compression: config.compression,
            timeout,
        })
    }

    fn request(&self, signal: Signal, plain: Vec<u8>) -> Request {
        let by_us = matches!(self.transport, Transport::Http { .. })
            && self.compression == HttpCompression::Gzip;
        let bytes = if by_us { crate::gzip::gzip(&plain).into() } else { plain.into() };
        Request { signal, bytes, taken: AtomicBool::new(false) }
    }

    async fn export(&self, signal: Signal, body: &Bytes) -> Result<(), Failure> {
        match &self.transport {
            Transport::Http { client, base } => {
                let path = match signal {
                    Signal::Traces => "/v1/traces",
                    Signal::Logs => "/v1/logs",
                };
                let encoding = (self.compression == HttpCompression::Gzip).then_some("gzip");
                let url = format!("{base}{path}");
                let answer =
                    client.post(&url, "application/x-protobuf", encoding, body.clone()).await?;
                acknowledged(signal, &answer)
                    .unwrap_or_else(|| Err(answer.unexpected("what an OTLP receiver does")))
            }
            Transport::Grpc { channel, headers, place } => {
                let answer = self.call(channel.clone(), headers, signal, body).await;
                let read = answer.and_then(|answer| {
                    partial_success(signal, &answer).unwrap_or_else(|| {
                        let detail = "the answer is not that of an OTLP receiver; is it another server's address?";
                        Err(Failure::retry(Cause::Misconfigured, detail))
                    })
                });
                read.map_err(|failure| match failure {
                    Failure::Retry(retry) => Failure::Retry(Retry {
                        detail: format!("{place}: {}", retry.detail),
                        ..retry
                    }),
                    refused => refused,
                })
            }
        }
    }

    async fn call(
        &self,
        channel: Channel,
        headers: &reqwest::header::HeaderMap,
        signal: Signal,
        body: &Bytes,
    ) -> Result<Vec<u8>, Failure> {
        let path = match signal {
            Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        };
        let mut client = tonic::client::Grpc::new(grpc::Spoken(channel));
        if self.compression == HttpCompression::Gzip {
            client = client
                .send_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Gzip);
        }
        let mut request = tonic::Request::from_parts(
            tonic::metadata::MetadataMap::from_headers(headers.clone()),
            tonic::Extensions::default(),
            body.clone(),
        );
        request.set_timeout(self.timeout);
        let call = async {
            client.ready().await.map_err(|e| tonic::Status::unavailable(innermost(&*e)))?;
            client
                .unary(
                    request,
                    tonic::codegen::http::uri::PathAndQuery::from_static(path),
                    grpc::Raw,
                )
                .await
        };
        match tokio::time::timeout(self.timeout, call).await {
            Err(_) => Err(Failure::retry(Cause::Timeout, "no answer in time")),
            Ok(Err(status)) => Err(grpc::meaning(&status)),
            Ok(Ok(response)) => Ok(response.into_inner().to_vec()),
        }
    }
}

/// What an answer over HTTP says; nothing if it is no receiver's.
fn acknowledged(signal: Signal, answer: &client::Answer) -> Option<Result<(), Failure>> {
    let client::Answer { status, kind, content, .. } = answer;
    is_otlp(*status, kind.as_deref(), content).then(|| partial_success(signal, content)).flatten()
}

/// A receiver may take a request and refuse some of its records, without saying which. The batch is then
/// bisected as if it were refused; a span that was taken already keeps its id. Nothing if it is no receiver's answer.
fn partial_success(signal: Signal, answer: &[u8]) -> Option<Result<(), Failure>> {
    let refused = match signal {
        Signal::Traces => ExportTraceServiceResponse::decode(answer)
            .ok()?
            .partial_success
            .map(|p| (p.rejected_spans, p.error_message)),
        Signal::Logs => ExportLogsServiceResponse::decode(answer)
            .ok()?
            .partial_success
            .map(|p| (p.rejected_log_records, p.error_message)),
    };
    // Members that are not known may be a later version's, so they make an answer no other's: what a few bytes of text decode to by chance is taken
    // for one, too, where its type is right.
    match refused {
        Some((count, _)) if count < 0 => None,
        Some((count, reason)) if count > 0 => {
            Some(Err(Failure::refused(200, format!("{count} refused: {reason}"))))
        }
        _ => Some(Ok(())),
    }
}

/// The request of one signal.
pub struct Request {
    signal: Signal,
    bytes: Bytes,
    /// It was acknowledged: when the other signal's is sent again, this is not.
    taken: AtomicBool,
}

impl Sink for Otlp {
    type Body = Vec<Request>;

    fn encode(&self, batch: &[Record<'_>]) -> Self::Body {
        let encode = |signal: &Signal| {
            let plain = match signal {
                Signal::Traces => traces_request(batch, span).encode_to_vec(),
                Signal::Logs => logs_request(batch).encode_to_vec(),
            };
            self.request(*signal, plain)
        };
        self.signals.iter().map(encode).collect()
    }

    fn size(body: &Self::Body) -> usize {
        body.iter().map(|request| request.bytes.len()).sum()
    }

    async fn send(&self, body: &Self::Body) -> Outcome {
        for request in body {
            if request.taken.load(Ordering::Relaxed) {
                continue;
            }
            match self.export(request.signal, &request.bytes).await {
                Ok(()) => request.taken.store(true, Ordering::Relaxed),
                Err(failure) => return Outcome::Failed(failure),
            }
        }
        Outcome::Delivered
    }
}

/// Matches that came late, as spans beside those of their decisions.
pub struct Amend(pub Otlp);

impl Sink for Amend {
    type Body = Vec<Request>;

    fn encode(&self, batch: &[Record<'_>]) -> Self::Body {
        let plain = traces_request(batch, amendment).encode_to_vec();
        vec![self.0.request(Signal::Traces, plain)]
    }

    fn size(body: &Self::Body) -> usize {
        Otlp::size(body)
    }

    async fn send(&self, body: &Self::Body) -> Outcome {
        self.0.send(body).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[tokio::test(flavor = "multi_thread")]
    async fn only_what_a_receiver_answers_is_an_acknowledgement() {
        use axum::http::header::CONTENT_TYPE;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let protobuf = "application/x-protobuf";
        for (status, kind, content, taken) in [
            (200, protobuf, "", true),
            (200, "application/x-protobuf; charset=utf-8", "", true),
            (200, "", "", true),
            (204, "", "", true),
            (202, protobuf, "", false),
            (202, "", "", false),
            (200, "text/html", "", false),
            (200, "text/plain", "hi", false),
            (200, "text/plain", "Accepted\n", false),
            (200, "", "Accepted\n", false),
            (200, "application/json", "{}", false),
            (200, protobuf, "<html>", false),
        ] {
            let status = axum::http::StatusCode::from_u16(status).unwrap();
            let router = axum::Router::new().fallback(move || async move {
                let mut answer = axum::response::Response::new(axum::body::Body::from(content));
                *answer.status_mut() = status;
                if !kind.is_empty() {
                    answer.headers_mut().insert(CONTENT_TYPE, kind.parse().unwrap());
                }
                answer
            });
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let at = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
            for signal in ["traces", "logs"] {
                let config = serde_json::json!({
                    "protocol": "http", "endpoint": at, "signals": [signal]
                });
                let sink = Otlp::new(&serde_json::from_value(config).unwrap()).unwrap();
                let outcome = sink.send(&sink.encode(&[])).await;
                let told = format!("{status} {kind} {content}: {outcome:?}");
                assert_eq!(outcome == Outcome::Delivered, taken, "{told}");
                let retried = matches!(&outcome, Outcome::Failed(Failure::Retry(r)) if r.cause == Cause::Misconfigured);
                assert!(taken || retried, "{told}");
            }
        }
    }

    #[test]
    fn a_partial_success_is_not_taken_for_success() {
        use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
        let answer = |rejected_spans| {
            ExportTraceServiceResponse {
                partial_success: Some(ExportTracePartialSuccess {
                    rejected_spans,
                    error_message: "x".into(),
                }),
            }
            .encode_to_vec()
        };
        let two = partial_success(Signal::Traces, &answer(2));
        assert!(matches!(two, Some(Err(Failure::Refused(_)))));
        assert_eq!(partial_success(Signal::Traces, &answer(0)), Some(Ok(())));
        assert_eq!(partial_success(Signal::Traces, b""), Some(Ok(())));
        // The same message for logs.
        for signal in [Signal::Traces, Signal::Logs] {
            assert_eq!(partial_success(signal, &answer(-1)), None, "fewer than none");
        }
        for page in ["<!doctype html><html>", "OK\n", "{\"status\":\"ok\"}"] {
            for signal in [Signal::Traces, Signal::Logs] {
                assert_eq!(partial_success(signal, page.as_bytes()), None, "{page}");
            }
        }
    }
}
