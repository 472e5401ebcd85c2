//! A request's body that knows how much of it has left. Who answers that it took a request before all of it was sent, has not taken it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// So much is handed out at a time.
const SLICE: usize = 16 << 10;

/// How much of a body is still to be written to its connection.
#[derive(Clone)]
pub struct Unsent(Arc<AtomicUsize>);

impl Unsent {
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// A body, and what tells how much of it is left.
pub fn watched(body: Bytes) -> (reqwest::Body, Unsent) {
    let unsent = Unsent(Arc::new(AtomicUsize::new(body.len())));
    let left = Left { body, unsent: unsent.0.clone() };
    (reqwest::Body::wrap(left), unsent)
}

struct Left {
    body: Bytes,
    unsent: Arc<AtomicUsize>,
}

impl Body for Left {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.body.is_empty() {
            return Poll::Ready(None);
        }
        let len = self.body.len().min(SLICE);
        let bytes = self.body.split_to(len);
        let slice = Slice { bytes, unsent: self.unsent.clone() };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(slice)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.len() as u64)
    }
}

/// Is dropped once it was written, or encrypted.
struct Slice {
    bytes: Bytes,
    unsent: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        self.unsent.fetch_sub(self.bytes.len(), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::http::client::Client;
    use crate::http::config::Tls;
    use crate::http::failure::{Cause, Failure};

    /// The address of a server that reads so many bytes of a request, and takes it.
    async fn reads(bytes: usize) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut asked, _) = listener.accept().await.unwrap();
            let (mut read, mut buffer) = (0, vec![0; 1 << 16]);
            while read < bytes {
                read += asked.read(&mut buffer).await.unwrap();
            }
            asked.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            std::future::pending::<()>().await;
        });
        address
    }

    #[tokio::test]
    async fn what_is_taken_before_all_of_it_was_sent_is_not_taken() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let timeout = Duration::from_secs(20);
        let client = Client::new(&Tls::default(), None, &BTreeMap::new(), timeout).unwrap();
        // More than the buffers of a connection hold.
        let body = Bytes::from(vec![b'x'; 32 << 20]);
        for (read, taken) in [(body.len(), true), (1, false)] {
            let url = reads(read).await;
            match client.post(&url, "text/plain", None, body.clone()).await {
                Ok(_) => assert!(taken),
                Err(Failure::Retry(retry)) if !taken => {
                    assert_eq!(retry.cause, Cause::Misconfigured);
                    let told = format!("{url}: 204 came while ");
                    assert!(retry.detail.starts_with(&told), "{}", retry.detail);
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}
