//! HTTP ports: TLS with certificates that are read again when they change, client certificates, and clients that are slow or too many.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::ServerTls;

/// What clients of a port may do.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once. One more, and the one that has waited longest without a whole request is closed.
    pub connections: usize,
    /// How long a TLS handshake, and then a request's headers, may take; a connection that waits for its next request, too.
    pub headers: Duration,
    /// How long a stop waits for answers.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connections: 256, headers: Duration::from_secs(60), drain: Duration::from_secs(5) }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{} can't be read: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{} holds no usable {what} in PEM", path.display())]
    Pem { path: PathBuf, what: &'static str },
    #[error("the certificate and key can't be used: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("the client authorities can't be used: {0}")]
    Clients(#[from] rustls::server::VerifierBuilderError),
}

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// A server's certificate, as it stands in its files now.
pub struct Certificates {
    files: ServerTls,
    state: Mutex<State>,
}

struct State {
    config: Arc<rustls::ServerConfig>,
    looked: Instant,
    changed: Vec<Option<SystemTime>>,
}

impl Certificates {
    pub fn new(files: &ServerTls) -> Result<Certificates, TlsError> {
        let state = State {
            config: Arc::new(config(files)?),
            looked: Instant::now(),
            changed: changed(files),
        };
        Ok(Certificates { files: files.clone(), state: Mutex::new(state) })
    }

    fn current(&self) -> Arc<rustls::ServerConfig> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() > LOOK {
            state.looked = Instant::now();
            let now = changed(&self.files);
            if now != state.changed {
                match config(&self.files) {
                    Ok(config) => {
                        state.config = Arc::new(config);
                        state.changed = now;
                        tracing::info!(file = %self.files.cert_file.display(), "the changed certificate is in force");
                    }
                    // Half written, perhaps.
                    Err(error) => {
                        tracing::warn!(%error, "the changed certificate can't be used; the old one stays in force");
                    }
                }
            }
        }
        state.config.clone()
    }
}

fn changed(files: &ServerTls) -> Vec<Option<SystemTime>> {
    let of = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    [Some(&files.cert_file), Some(&files.key_file), files.client_ca_file.as_ref()]
        .into_iter()
        .flatten()
        .map(|path| of(path))
        .collect()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem =
        std::fs::read(path).map_err(|error| TlsError::File { path: path.to_owned(), error })?;
    let all: Option<Vec<_>> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().ok();
    all.filter(|all| !all.is_empty())
        .ok_or_else(|| TlsError::Pem { path: path.to_owned(), what: "certificate" })
}

fn config(files: &ServerTls) -> Result<rustls::ServerConfig, TlsError> {
    let chain = certificates(&files.cert_file)?;
    let pem = zeroize::Zeroizing::new(
        std::fs::read(&files.key_file)
            .map_err(|error| TlsError::File { path: files.key_file.clone(), error })?,
    );
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| TlsError::Pem { path: files.key_file.clone(), what: "private key" })?;
    let builder = rustls::ServerConfig::builder();
    let builder = match &files.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate)?;
            }
            builder
                .with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build()?)
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Connections that are open, and which of them wait for a request.
#[derive(Default)]
struct Open {
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    next: u64,
    all: usize,
    /// By how long they have waited.
    waiting: BTreeMap<u64, CancellationToken>,
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn wait(&mut self, close: CancellationToken) -> u64 {
        self.next += 1;
        self.waiting.insert(self.next, close);
        self.next
    }
}

/// A connection. Handlers have it as an extension of their request.
#[derive(Clone)]
pub struct Line {
    pub peer: SocketAddr,
    open: Arc<Open>,
    close: CancellationToken,
    /// Its place among those that wait.
    place: Arc<Mutex<u64>>,
}

impl Line {
    /// The request is there as a whole: from now on the connection is not closed for others to come in, until the answer is made.
    pub fn busy(&self) -> Busy {
        let place = *self.place.lock().unwrap_or_else(PoisonError::into_inner);
        self.open.lock().waiting.remove(&place);
        Busy(self.clone())
    }
}

pub struct Busy(Line);

impl Drop for Busy {
    fn drop(&mut self) {
        let place = self.0.open.lock().wait(self.0.close.clone());
        *self.0.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }
}

/// A connection's place, given back when it ends.
struct Ended(Line);

impl Drop for Ended {
    fn drop(&mut self) {
        let place = *self.0.place.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = self.0.open.lock();
        lines.waiting.remove(&place);
        lines.all -= 1;
    }
}

/// Serves a port until stopped.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Certificates>>,
    limits: Limits,
    router: Router,
    stop: CancellationToken,
) {
    let open = Arc::new(Open::default());
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: those that wait are closed by and by.
                tracing::warn!(%error, "a connection can't be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let close = CancellationToken::new();
        let place = {
            let mut lines = open.lock();
            if lines.all >= limits.connections {
                match lines.waiting.pop_first() {
                    Some((_, longest)) => longest.cancel(),
                    // All are busy: there is no room.
                    None => continue,
                }
            }
            lines.all += 1;
            lines.wait(close.clone())
        };
        let line = Line { peer, open: open.clone(), close, place: Arc::new(Mutex::new(place)) };
        let router = router.clone().layer(axum::Extension(line.clone()));
        let (tls, stop) = (tls.clone(), stop.clone());
        tasks.spawn(async move {
            let _ended = Ended(line.clone());
            let _ = stream.set_nodelay(true);
            let serve = async {
                match tls {
                    None => connection(stream, limits, router, &stop).await,
                    Some(tls) => {
                        let handshake = tokio_rustls::TlsAcceptor::from(tls.current()).accept(stream);
                        match tokio::time::timeout(limits.headers, handshake).await {
                            Ok(Ok(stream)) => connection(stream, limits, router, &stop).await,
                            Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
                            Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
                        }
                    }
                }
            };
            tokio::select! {
                biased;
                () = line.close.cancelled() => tracing::debug!(%peer, "a connection without a request is closed for others to come in"),
                () = serve => {}
            }
        });
    }
    drop(listener);
    tasks.close();
    let _ = tokio::time::timeout(limits.drain, tasks.wait()).await;
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    limits: Limits,
    router: Router,
    stop: &CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.headers).max_buf_size(64 << 10);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended");
    }
}
