//! Reads a request's body as it comes in, inflating it on the way: never more than the bounds, never longer than it may take.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use flate2::write::MultiGzDecoder;
use http_body_util::BodyExt;
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Refused;
use crate::decision::reject::{Reason, Reject};
use crate::telemetry::held;

/// What a body may be.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub wire: usize,
    pub plain: usize,
    pub time: Duration,
}

/// Bytes that all bodies together may have.
#[derive(Clone)]
pub struct Budget {
    free: Arc<Semaphore>,
    all: usize,
    /// Where what is taken is accounted.
    gauge: IntGauge,
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub struct Held {
    units: OwnedSemaphorePermit,
    account: held::Held,
}

impl Held {
    fn new(units: OwnedSemaphorePermit, gauge: &IntGauge) -> Held {
        let mut held = Held { units, account: held::Held::new(gauge.clone()) };
        held.account.set(held.bytes());
        held
    }

    fn bytes(&self) -> usize {
        self.units.num_permits() * UNIT
    }

    fn merge(&mut self, other: Held) {
        self.units.merge(other.units);
        self.account.set(self.bytes());
    }
}

/// The budget is counted in these.
const UNIT: usize = 1 << 10;

impl Budget {
    pub fn new(bytes: usize, gauge: IntGauge) -> Budget {
        let all = bytes.div_ceil(UNIT).min(u32::MAX as usize);
        Budget { free: Arc::new(Semaphore::new(all)), all, gauge }
    }

    /// Takes so much of it, now or not at all: who waited would hold what others wait for. `own` is what the same upload holds already: what does
    /// not fit beside that will not when it comes again, and is not to.
    pub fn take(&self, bytes: usize, own: usize) -> Result<Held, Refused> {
        if bytes.saturating_add(own) > self.bytes() {
            let why = format!(
                "more than the {} bytes that the door may hold at once, of this upload alone (door.limits.bytes_in_flight, which is made smaller where memory.budget is too small for it)",
                self.bytes()
            );
            return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, why));
        }
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        match self.free.clone().try_acquire_many_owned(units) {
            Ok(units) => Ok(Held::new(units, &self.gauge)),
            Err(_) => Err(Refused::later(
                StatusCode::SERVICE_UNAVAILABLE,
                "too much is being taken in at once (door.limits.bytes_in_flight)",
                1,
            )),
        }
    }

    /// What one upload may hold, if it is alone.
    fn bytes(&self) -> usize {
        self.all * UNIT
    }

    pub fn in_use(&self) -> usize {
        (self.all - self.free.available_permits()) * UNIT
    }
}

/// A body that was read.
#[derive(Debug)]
pub struct Content {
    text: Vec<u8>,
    /// How long it was on the wire.
    pub wire: usize,
    held: Held,
}

impl Content {
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// What it has of the budget.
    pub fn held(&self) -> usize {
        self.held.bytes()
    }
}

/// A body that came whole and can't be read.
#[derive(Debug)]
pub struct Unread {
    pub reject: Reject,
    /// As it came.
    pub bytes: Vec<u8>,
    _held: Held,
}

/// Memory that grows within a bound and the budget.
struct Bounded {
    bytes: Vec<u8>,
    bound: usize,
    budget: Budget,
    held: Held,
    /// What else the same upload holds.
    beside: usize,
    refused: Option<Refused>,
}

impl Bounded {
    fn new(bound: usize, budget: &Budget) -> Result<Bounded, Refused> {
        Ok(Bounded {
            bytes: Vec::new(),
            bound,
            budget: budget.clone(),
            held: budget.take(0, 0)?,
            beside: 0,
            refused: None,
        })
    }

    fn push(&mut self, more: &[u8]) -> Result<(), Refused> {
        let length = self.bytes.len() + more.len();
        if length > self.bound {
            return Err(Refused::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("more than {} bytes (limits.record_bytes)", self.bound),
            ));
        }
        if length > self.bytes.capacity() {
            // It doubles, but leaves half of what is left where that would be more than there is at all.
            let room = self.budget.bytes().saturating_sub(self.beside + length);
            let doubled = (self.bytes.capacity() * 2).max(4 * UNIT);
            let capacity = doubled.min(length + room / 2).max(length).min(self.bound);
            let more = (capacity.div_ceil(UNIT) * UNIT).saturating_sub(self.held.bytes());
            self.held.merge(self.budget.take(more, self.beside + self.held.bytes())?);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(more);
        Ok(())
    }
}

impl Write for Bounded {
    fn write(&mut self, more: &[u8]) -> std::io::Result<usize> {
        match self.push(more) {
            Ok(()) => Ok(more.len()),
            Err(refused) => {
                self.refused = Some(refused);
                Err(std::io::Error::other("no room"))
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Reads a body, plain or gzipped (Content-Encoding). The inner error is one of what is in it.
pub async fn read(
    headers: &HeaderMap,
    mut body: Body,
    bounds: &Bounds,
    budget: &Budget,
) -> Result<Result<Content, Unread>, Refused> {
    let read = taken(headers, &mut body, bounds, budget).await;
    if read.is_err() {
        discard(&mut body).await;
    }
    read
}

async fn taken(
    headers: &HeaderMap,
    body: &mut Body,
    bounds: &Bounds,
    budget: &Budget,
) -> Result<Result<Content, Unread>, Refused> {
    let gzip =
        match headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes().trim_ascii()) {
            None | Some(b"" | b"identity") => false,
            // RFC 9110, section 8.4.1.3: x-gzip is gzip.
            Some(encoding)
                if [&b"gzip"[..], b"x-gzip"].iter().any(|e| encoding.eq_ignore_ascii_case(e)) =>
            {
                true
            }
            Some(_) => {
                return Err(Refused::new(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "Content-Encoding is gzip or none",
                ));
            }
        };
    let told = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if told.is_some_and(|length| length > bounds.wire) {
        return Err(Refused::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("more than {} bytes (door.limits.body_bytes)", bounds.wire),
        ));
    }
    let reading = async {
        if gzip { inflated(body, bounds, budget).await } else { plain(body, bounds, budget).await }
    };
    match tokio::time::timeout(bounds.time, reading).await {
        Ok(result) => result,
        Err(_) => Err(Refused::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body took more than {:?} (door.limits.body)", bounds.time),
        )),
    }
}

/// Who still writes does not read the answer, and a connection that is closed under it takes the answer along: so the rest is read, for a
/// while, and forgotten.
pub async fn discard(body: &mut Body) {
    let all = async {
        let mut left = DISCARDED;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, bytes::Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DISCARDING, all).await;
}

const DISCARDED: usize = 16 << 20;
const DISCARDING: Duration = Duration::from_secs(2);

async fn next(body: &mut Body) -> Result<Option<bytes::Bytes>, Refused> {
    match body.frame().await {
        None => Ok(None),
        Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
        Some(Err(_)) => Err(Refused::new(StatusCode::BAD_REQUEST, "the body ended before its end")),
    }
}

async fn plain(
    body: &mut Body,
    bounds: &Bounds,
    budget: &Budget,
) -> Result<Result<Content, Unread>, Refused> {
    let mut text = Bounded::new(bounds.wire, budget)?;
    while let Some(data) = next(body).await? {
        text.push(&data)?;
    }
    Ok(Ok(Content { wire: text.bytes.len(), text: text.bytes, held: text.held }))
}

async fn inflated(
    body: &mut Body,
    bounds: &Bounds,
    budget: &Budget,
) -> Result<Result<Content, Unread>, Refused> {
    // What came in is kept until it is known to be gzip: if it is not, it is what goes to rejects.
    let mut wire = Bounded::new(bounds.wire, budget)?;
    let mut decoder = MultiGzDecoder::new(Bounded::new(bounds.plain, budget)?);
    let mut broken = None;
    while let Some(data) = next(body).await? {
        wire.beside = decoder.get_ref().held.bytes();
        wire.push(&data)?;
        decoder.get_mut().beside = wire.held.bytes();
        if broken.is_none() {
            broken = decoder.write_all(&data).err();
        }
        if let Some(refused) = decoder.get_mut().refused.take() {
            return Err(refused);
        }
        // Between two pieces others get their turn: a small piece may inflate to a large one.
        tokio::task::yield_now().await;
    }
    let broken = broken.or_else(|| decoder.try_finish().err());
    if let Some(refused) = decoder.get_mut().refused.take() {
        return Err(refused);
    }
    if broken.is_some() || wire.bytes.is_empty() {
        let reject =
            Reject::new(Reason::BadGzip, "the body is not gzip, or ends in the middle of it");
        return Ok(Err(Unread { reject, bytes: wire.bytes, _held: wire.held }));
    }
    let length = wire.bytes.len();
    drop(wire);
    match decoder.finish() {
        Ok(text) => Ok(Ok(Content { text: text.bytes, wire: length, held: text.held })),
        Err(_) => Err(Refused::new(StatusCode::BAD_REQUEST, "the body is not gzip")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gzip::gzip;

    const BOUNDS: Bounds =
        Bounds { wire: 64 << 10, plain: 1 << 20, time: Duration::from_millis(200) };

    async fn sent(
        encoding: &str,
        body: impl Into<Body>,
        budget: &Budget,
    ) -> Result<Result<Content, Unread>, Refused> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
        read(&headers, body.into(), &BOUNDS, budget).await
    }

    fn budget(bytes: usize) -> Budget {
        Budget::new(bytes, IntGauge::new("held", "held").unwrap())
    }

    #[tokio::test]
    async fn bodies_are_inflated_and_the_budget_comes_back() {
        let budget = budget(4 << 20);
        let text = b"[1,2,3]".repeat(1000);
        drop(sent("X-Gzip", gzip(&text), &budget).await.unwrap().unwrap());
        let content = sent("gzip", gzip(&text), &budget).await.unwrap().unwrap();
        assert_eq!((content.text(), content.wire), (&text[..], gzip(&text).len()));
        assert!(budget.in_use() >= text.len());
        drop(content);
        assert_eq!((budget.in_use(), budget.gauge.get()), (0, 0));
        assert_eq!(sent("", text.clone(), &budget).await.unwrap().unwrap().text(), text);
        // Two members, one after the other.
        assert_eq!(
            sent("GZIP", [gzip(b"[1,"), gzip(b"2]")].concat(), &budget)
                .await
                .unwrap()
                .unwrap()
                .text(),
            b"[1,2]"
        );
    }

    #[tokio::test]
    async fn what_is_no_gzip_is_told_with_its_bytes() {
        let budget = budget(4 << 20);
        let whole = gzip(b"[1,2,3]");
        for bytes in [b"[1]".to_vec(), whole[..whole.len() - 3].to_vec(), Vec::new()] {
            let unread = sent("gzip", bytes.clone(), &budget).await.unwrap().unwrap_err();
            assert_eq!((unread.reject.reason, &unread.bytes), (Reason::BadGzip, &bytes));
        }
    }

    #[tokio::test]
    async fn bombs_slow_bodies_and_crowds_are_bounded() {
        let budget = budget(4 << 20);
        let bomb = gzip(&vec![b' '; 32 << 20]);
        let bounds = Bounds { wire: 1 << 20, ..BOUNDS };
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        let refused = read(&headers, Body::from(bomb), &bounds, &budget).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(
            sent("", vec![b' '; BOUNDS.wire + 1], &budget).await.unwrap_err().status,
            StatusCode::PAYLOAD_TOO_LARGE
        );
        assert_eq!(
            sent("br", "x", &budget).await.unwrap_err().status,
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        );
        let never = Body::from_stream(futures_lite::stream::pending::<
            Result<bytes::Bytes, std::io::Error>,
        >());
        assert_eq!(sent("", never, &budget).await.unwrap_err().status, StatusCode::REQUEST_TIMEOUT);
        let _held = budget.take((4 << 20) - 1024, 0).unwrap();
        let refused = sent("", vec![b' '; 8000], &budget).await.unwrap_err();
        assert_eq!(
            (refused.status, refused.retry_after),
            (StatusCode::SERVICE_UNAVAILABLE, Some(1))
        );
    }

    /// OPA brings for ever what gets 503.
    #[tokio::test]
    async fn what_can_never_fit_is_too_large_and_does_not_come_again() {
        use std::io::Error;
        let budget = budget(256 << 10);
        let bounds = Bounds { wire: 1 << 20, plain: 1 << 20, time: Duration::from_secs(600) };
        let sent = async |encoding: &str, bytes: Vec<u8>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
            let pieces: Vec<_> = bytes.chunks(1000).map(|c| Ok::<_, Error>(c.to_vec())).collect();
            let body = Body::from_stream(futures_lite::stream::iter(pieces));
            read(&headers, body, &bounds, &budget).await
        };
        let dense: Vec<u8> = (0..60_000_u32).flat_map(|n| (n * n).to_le_bytes()).collect();
        // Alone, it may have all there is, in whatever steps it comes.
        for size in [129, 200, 255, 256] {
            let content = sent("", vec![b' '; size << 10]).await.unwrap().unwrap();
            assert_eq!(content.text().len(), size << 10);
            drop(content);
            let packed = sent("gzip", gzip(&vec![b' '; (size - 4) << 10])).await;
            assert_eq!(packed.unwrap().unwrap().text().len(), (size - 4) << 10);
        }
        // Plain, a bomb, and what comes and what it becomes together.
        for (encoding, bytes) in [
            ("", vec![b' '; (256 << 10) + 1]),
            ("gzip", gzip(&vec![b' '; 900 << 10])),
            ("gzip", gzip(&dense)),
        ] {
            let refused = sent(encoding, bytes).await.unwrap_err();
            assert_eq!(
                (refused.status, refused.retry_after),
                (StatusCode::PAYLOAD_TOO_LARGE, None)
            );
            assert!(
                refused.why.contains("262144 bytes") && refused.why.contains("memory.budget"),
                "{}",
                refused.why
            );
        }
        let content = sent("", vec![b' '; 200 << 10]).await.unwrap().unwrap();
        assert_eq!(
            budget.take(60 << 10, content.held()).unwrap_err().status,
            StatusCode::PAYLOAD_TOO_LARGE
        );
        // Others are in the way of what would fit.
        let refused = sent("", vec![b' '; 100 << 10]).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        drop(content);
        assert_eq!(budget.in_use(), 0);
    }
}
