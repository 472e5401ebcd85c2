//! OTLP over gRPC: the channel, requests that are encoded already, and what a status means.

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, StdError, http};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::config::OtlpConfig;
use crate::http::client::{HttpError, read};
use crate::http::failure::{Cause, Failure, Refusal, Retry, innermost};

pub fn channel(config: &OtlpConfig) -> Result<Channel, HttpError> {
    let invalid = |e: tonic::transport::Error| {
        HttpError::Other(format!("the endpoint or its TLS can't be used: {}", innermost(&e)))
    };
    let mut endpoint = Endpoint::from_shared(config.endpoint.clone())
        .map_err(invalid)?
        .user_agent(concat!("docket/", env!("CARGO_PKG_VERSION")))
        .map_err(invalid)?
        .connect_timeout(config.delivery.timeout.0.min(std::time::Duration::from_secs(10)))
        .http2_keep_alive_interval(std::time::Duration::from_secs(30))
        .keep_alive_while_idle(true);
    if config.endpoint.starts_with("https://") {
        if config.tls.insecure_skip_verify {
            return Err(HttpError::Other(
                "tls.insecure_skip_verify is not there for OTLP over gRPC; name the authority in tls.ca_file, or use protocol: http".into(),
            ));
        }
        let mut tls = ClientTlsConfig::new();
        tls = match &config.tls.ca_file {
            Some(path) => tls.ca_certificate(Certificate::from_pem(read(path)?)),
            None => tls.with_native_roots(),
        };
        tls = match (&config.tls.cert_file, &config.tls.key_file) {
            (None, None) => tls,
            (Some(cert), Some(key)) => tls.identity(Identity::from_pem(read(cert)?, read(key)?)),
            _ => return Err(HttpError::HalfIdentity),
        };
        endpoint = endpoint.tls_config(tls).map_err(invalid)?;
    }
    Ok(endpoint.connect_lazy())
}

/// A channel whose answers are gRPC: what says by its type that it is something else is not read as such.
#[derive(Clone)]
pub struct Spoken(pub Channel);

impl Service<http::Request<Body>> for Spoken {
    type Response = http::Response<Body>;
    type Error = StdError;
    type Future = BoxFuture<Self::Response, StdError>;

    fn poll_ready(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), StdError>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            let kind = answer.headers().get(http::header::CONTENT_TYPE);
            let kind = kind.map(|kind| String::from_utf8_lossy(kind.as_bytes()).into_owned());
            match foreign(answer.status(), kind.as_deref()) {
                Some(status) => Err(status.into()),
                None => Ok(answer),
            }
        })
    }
}

/// The status of an answer over HTTP that is none of gRPC's: a proxy's, or another server's.
fn foreign(status: http::StatusCode, kind: Option<&str>) -> Option<tonic::Status> {
    let kind = kind.unwrap_or("no type");
    if kind.starts_with("application/grpc") {
        return None;
    }
    let code = match status.as_u16() {
        401 | 407 => tonic::Code::Unauthenticated,
        403 => tonic::Code::PermissionDenied,
        408 | 425 | 429 => tonic::Code::ResourceExhausted,
        500.. => tonic::Code::Unavailable,
        _ => tonic::Code::Unimplemented,
    };
    let kind: String = kind.chars().filter(|c| !c.is_control()).take(60).collect();
    Some(tonic::Status::new(code, format!("it answers HTTP {status} of {kind}, which is no gRPC")))
}

/// What a gRPC status means, by the OTLP specification's table; refused credentials are an outage, too.
pub fn meaning(status: &tonic::Status) -> Failure {
    use tonic::Code::*;
    // A message over the receiver's limit is a matter of size, not of load.
    let too_large = matches!(status.code(), ResourceExhausted | OutOfRange)
        && status.message().contains("larger than max");
    let cause = match status.code() {
        _ if too_large => None,
        InvalidArgument | FailedPrecondition | AlreadyExists | Ok => None,
        Unauthenticated | PermissionDenied => Some(Cause::Credentials),
        ResourceExhausted => Some(Cause::Throttled),
        DeadlineExceeded => Some(Cause::Timeout),
        Unavailable | Cancelled => Some(Cause::Connection),
        Unimplemented | NotFound => Some(Cause::Misconfigured),
        Aborted | OutOfRange | DataLoss | Internal | Unknown => Some(Cause::Server),
    };
    match cause {
        None => Failure::Refused(Refusal {
            status: status.code() as u16,
            reason: status.message().chars().take(1000).collect(),
        }),
        Some(cause) => {
            // Of a connection that fails the message says only that it does.
            let mut detail = match std::error::Error::source(status) {
                Some(source) => format!("{:?}: {}", status.code(), innermost(source)),
                None => format!("{:?}: {}", status.code(), status.message()),
            };
            if cause == Cause::Misconfigured || NO_GRPC.iter().any(|sign| detail.contains(sign)) {
                detail +=
                    "; is it another server's address, or one of OTLP over HTTP (protocol: http)?";
            }
            Failure::Retry(Retry { cause, detail, after: retry_info(status) })
        }
    }
}

/// What is said of the answers of servers that speak no gRPC.
const NO_GRPC: [&str; 4] = [
    "grpc-status header missing",
    "frame with invalid size",
    "HTTP_1_1_REQUIRED",
    "stream closed because of a broken pipe",
];

/// `google.rpc.RetryInfo` in the status' details says when to come back.
fn retry_info(status: &tonic::Status) -> Option<std::time::Duration> {
    #[derive(prost::Message)]
    struct RpcStatus {
        #[prost(message, repeated, tag = "3")]
        details: Vec<prost_types::Any>,
    }
    #[derive(prost::Message)]
    struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        retry_delay: Option<prost_types::Duration>,
    }
    let details = RpcStatus::decode(status.details()).ok()?.details;
    let info = details.iter().find(|any| any.type_url.ends_with("google.rpc.RetryInfo"))?;
    RetryInfo::decode(&*info.value).ok()?.retry_delay?.try_into().ok()
}

/// Passes messages that are encoded already.
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = tonic::Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        out.reserve(item.len());
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, tonic::Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks_no_grpc_may_be_another_server() {
        let detail = |code, message: &str| match meaning(&tonic::Status::new(code, message)) {
            Failure::Retry(retry) => retry.detail,
            Failure::Refused(refusal) => refusal.reason,
        };
        let page = "grpc-status header missing, mapped from HTTP status code 400";
        assert!(
            detail(tonic::Code::Internal, page)
                .ends_with("or one of OTLP over HTTP (protocol: http)?")
        );
        assert!(detail(tonic::Code::Unimplemented, "").contains("another server's"));
        let closed = "stream closed because of a broken pipe";
        assert!(detail(tonic::Code::Unknown, closed).contains("protocol: http"));
        assert_eq!(detail(tonic::Code::Unavailable, "away"), "Unavailable: away");
    }

    #[test]
    fn what_is_no_grpc_is_no_message() {
        let cause = |status, kind| {
            let status = http::StatusCode::from_u16(status).unwrap();
            foreign(status, kind).map(|status| match meaning(&status) {
                Failure::Retry(retry) => (retry.cause, retry.detail),
                Failure::Refused(refusal) => panic!("{refusal:?}"),
            })
        };
        assert_eq!(cause(200, Some("application/grpc")), None);
        assert_eq!(cause(503, Some("application/grpc+proto")), None);
        let (away, detail) = cause(503, Some("text/plain")).unwrap();
        assert_eq!(away, Cause::Connection);
        assert!(detail.contains("HTTP 503 Service Unavailable of text/plain"), "{detail}");
        assert!(!detail.contains("another server's"), "{detail}");
        let (page, detail) = cause(200, Some("text/html")).unwrap();
        assert!(page == Cause::Misconfigured && detail.contains("another server's"), "{detail}");
        assert_eq!(cause(407, None).unwrap().0, Cause::Credentials);
        assert_eq!(cause(429, None).unwrap().0, Cause::Throttled);
    }

    #[test]
    fn grpc_statuses_say_outage_or_refusal() {
        let cause = |code, message: &str| match meaning(&tonic::Status::new(code, message)) {
            Failure::Retry(retry) => retry.cause.as_str(),
            Failure::Refused(_) => "refused",
        };
        assert_eq!(cause(tonic::Code::Unavailable, ""), "connection");
        assert_eq!(cause(tonic::Code::Unauthenticated, ""), "credentials");
        assert_eq!(cause(tonic::Code::ResourceExhausted, "slow down"), "throttled");
        assert_eq!(
            cause(
                tonic::Code::ResourceExhausted,
                "grpc: received message larger than max (5 vs. 4)"
            ),
            "refused"
        );
        assert_eq!(cause(tonic::Code::InvalidArgument, ""), "refused");
    }
}
