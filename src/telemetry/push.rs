//! Pushes the process' metrics, for those who can't scrape. What is pushed is cumulative: a push that fails is tried again until the
//! next is due, which says all that it would have said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prometheus::{IntCounterVec, Opts, Registry};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::config;
use crate::caught;
use crate::clock;
use crate::decision::time::Nanos;
use crate::http::client::{self, Client, HttpError};
use crate::http::config::HttpCompression;
use crate::http::failure::{Failure, Refusal};
use crate::metrics::created::Created;
use crate::metrics::exemplars::Exemplars;
use crate::metrics::otlp;
use crate::metrics::remote_write::{self, Labels, Version};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Between tries; it doubles.
const PAUSE: Duration = Duration::from_millis(500);
/// A 2xx answer to remote write 2.0 says with it how much was taken.
const WRITTEN: &str = "x-prometheus-remote-write-samples-written";

/// What is pushed.
#[derive(Clone)]
pub struct Source {
    pub registry: Registry,
    pub exemplars: Arc<Exemplars>,
    /// When the process began.
    pub began: Nanos,
}

/// Pushes to one.
pub struct Pusher {
    name: String,
    to: config::Push,
    client: Client,
    source: Source,
    pushes: IntCounterVec,
    /// Labels of every series, or attributes of the resource: who pushes.
    names: Vec<(String, String)>,
    /// Of remote write: what the server takes, once that is known.
    version: Version,
    created: Created,
    /// Series that the server may have.
    known: BTreeSet<Labels>,
}

/// Pushes to each destination.
pub struct Pushing {
    source: Source,
    pushes: IntCounterVec,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Pushing {
    pub fn start(
        to: &BTreeMap<String, config::Push>,
        source: Source,
    ) -> Result<Pushing, Box<dyn std::error::Error>> {
        let opts = Opts::new(
            "docket_metric_pushes_total",
            "Pushes of metrics, by destination: sent, retried, failed (the next says what this one would have said).",
        );
        let pushes = IntCounterVec::new(opts, &["to", "outcome"])?;
        source.registry.register(Box::new(pushes.clone()))?;
        let mut pushing =
            Pushing { source, pushes, stop: CancellationToken::new(), tasks: JoinSet::new() };
        let pushers = pushing.prepare(to)?;
        pushing.spawn(pushers);
        Ok(pushing)
    }

    /// Pushers to other destinations, or what is wrong with one.
    pub fn prepare(&self, to: &BTreeMap<String, config::Push>) -> Result<Vec<Pusher>, String> {
        let one = |(name, to): (&String, &config::Push)| {
            Pusher::new(name, to, self.source.clone(), self.pushes.clone())
                .map_err(|e| format!("telemetry.push.{name}: {e}"))
        };
        to.iter().map(one).collect()
    }

    /// Goes on with these.
    pub async fn change(&mut self, pushers: Vec<Pusher>) {
        self.end().await;
        self.stop = CancellationToken::new();
        self.spawn(pushers);
    }

    /// Pushes once more, for what was counted last.
    pub async fn end(&mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    fn spawn(&mut self, pushers: Vec<Pusher>) {
        for pusher in pushers {
            self.tasks.spawn(pusher.run(self.stop.clone()));
        }
    }
}

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "docket".into())
}

fn with_defaults(
    set: &BTreeMap<String, String>,
    defaults: &[(&str, String)],
) -> Vec<(String, String)> {
    let missing = defaults
        .iter()
        .filter(|(name, _)| !set.contains_key(*name))
        .map(|(name, value)| ((*name).to_owned(), value.clone()));
    set.iter().map(|(name, value)| (name.clone(), value.clone())).chain(missing).collect()
}

impl Pusher {
    fn new(
        name: &str,
        to: &config::Push,
        source: Source,
        pushes: IntCounterVec,
    ) -> Result<Pusher, HttpError> {
        let (client, names) = match to {
            config::Push::RemoteWrite(r) => {
                let names =
                    with_defaults(&r.labels, &[("job", "docket".into()), ("instance", host())]);
                (Client::new(&r.tls, r.auth.as_ref(), &r.headers, TIMEOUT)?, names)
            }
            config::Push::Otlp(o) => {
                let version = env!("CARGO_PKG_VERSION").into();
                let names = with_defaults(
                    &o.resource,
                    &[
                        ("service.name", "docket".into()),
                        ("service.instance.id", host()),
                        ("service.version", version),
                    ],
                );
                (Client::new(&o.tls, o.auth.as_ref(), &o.headers, TIMEOUT)?, names)
            }
        };
        let version = match to {
            config::Push::RemoteWrite(r) if r.version == config::Version::V1 => Version::V1,
            _ => Version::V2,
        };
        Ok(Pusher {
            name: name.to_owned(),
            to: to.clone(),
            client,
            created: Created::new(source.began),
            source,
            pushes,
            names,
            version,
            known: BTreeSet::new(),
        })
    }

    async fn run(mut self, stop: CancellationToken) {
        let interval = self.to.interval().0.max(Duration::from_secs(1));
        loop {
            let stopped = tokio::select! {
                () = tokio::time::sleep(interval) => false,
                () = stop.cancelled() => true,
            };
            let patience = if stopped { Duration::from_secs(3) } else { interval };
            // The next push says what this one would have said.
            if let Err(error) = caught::within(self.push(patience)).await {
                self.count("failed");
                tracing::error!(to = self.name, error, "docket failed at a push of metrics: a bug");
            }
            if stopped {
                return;
            }
        }
    }

    /// Sends what is counted now, within some time.
    async fn push(&mut self, patience: Duration) {
        let deadline = tokio::time::Instant::now() + patience;
        let now = clock::now();
        let (mut requests, there) = self.requests(now);
        // What a push that fails halfway has brought is known, too.
        let before = self.known.clone();
        self.known.extend(there.iter().cloned());
        let mut sent = 0;
        let mut pause = PAUSE;
        while let Some(request) = requests.get(sent) {
            let answer = tokio::time::timeout_at(deadline, self.send(request)).await;
            let detail = match answer {
                Ok(Sent::Taken) => {
                    sent += 1;
                    pause = PAUSE;
                    continue;
                }
                Ok(Sent::OnlyV1) => {
                    tracing::info!(
                        to = self.name,
                        "the server does not take remote write 2.0; going on with 1.0"
                    );
                    self.version = Version::V1;
                    // The same samples at the same time, which it keeps once.
                    self.known = before.clone();
                    requests = self.requests(now).0;
                    self.known.extend(there.iter().cloned());
                    sent = 0;
                    continue;
                }
                Ok(Sent::Failed(Failure::Retry(retry))) => {
                    self.count("retried");
                    let wait = retry.after.unwrap_or(pause);
                    pause *= 2;
                    if tokio::time::Instant::now() + wait < deadline {
                        tokio::time::sleep(wait).await;
                        continue;
                    }
                    retry.detail
                }
                Ok(Sent::Failed(Failure::Refused(Refusal { status, reason }))) => {
                    format!("refused with {status}: {reason}")
                }
                Err(_) => "no answer in time".into(),
            };
            self.count("failed");
            tracing::warn!(
                to = self.name,
                detail,
                "metrics can't be pushed; the next push says what this one would have said"
            );
            return;
        }
        self.count("sent");
        self.known = there;
    }

    fn count(&self, outcome: &str) {
        self.pushes.with_label_values(&[&self.name, outcome]).inc();
    }

    /// And the series that they bring.
    fn requests(&mut self, now: Nanos) -> (Vec<Bytes>, BTreeSet<Labels>) {
        let families = self.source.registry.gather();
        self.created.look(&families, now);
        match &self.to {
            config::Push::RemoteWrite(_) => {
                let push = remote_write::Push {
                    families: &families,
                    exemplars: &self.source.exemplars,
                    created: &self.created,
                    more: &self.names,
                    before: &self.known,
                    millis: now / 1_000_000,
                };
                let (requests, there) = remote_write::requests(&push, self.version);
                (requests.into_iter().map(Bytes::from).collect(), there)
            }
            config::Push::Otlp(o) => {
                let plain = otlp::request(
                    &families,
                    &self.source.exemplars,
                    &self.names,
                    self.source.began,
                    now,
                );
                let gzip = o.compression == HttpCompression::Gzip;
                let body = if gzip { crate::gzip::gzip(&plain).into() } else { plain.into() };
                (vec![body], BTreeSet::new())
            }
        }
    }

    async fn send(&self, body: &Bytes) -> Sent {
        let request = match &self.to {
            config::Push::RemoteWrite(r) => self
                .client
                .request(Method::POST, &r.url)
                .header(CONTENT_TYPE, self.version.content_type())
                .header(CONTENT_ENCODING, "snappy")
                .header("X-Prometheus-Remote-Write-Version", self.version.header()),
            config::Push::Otlp(o) => {
                let request = self.client.request(
                    Method::POST,
                    &format!("{}/v1/metrics", o.endpoint.trim_end_matches('/')),
                );
                let request = request.header(CONTENT_TYPE, "application/x-protobuf");
                if o.compression == HttpCompression::Gzip {
                    request.header(CONTENT_ENCODING, "gzip")
                } else {
                    request
                }
            }
        };
        let response = match request.body(body.clone()).send().await {
            Ok(response) => response,
            Err(error) => return Sent::Failed(client::broken(&error)),
        };
        let (status, after) = (response.status(), client::retry_after(&response));
        let may_fall_back = matches!(&self.to, config::Push::RemoteWrite(r) if r.version == config::Version::Auto)
            && self.version == Version::V2;
        // An old server takes 2.0 for an empty request, and does not say that it wrote anything.
        let silent = status.is_success() && !response.headers().contains_key(WRITTEN);
        if may_fall_back
            && (silent
                || matches!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE | StatusCode::BAD_REQUEST))
        {
            return Sent::OnlyV1;
        }
        if status.is_success() {
            return Sent::Taken;
        }
        let answer = response.bytes().await.unwrap_or_default();
        Sent::Failed(self.client.meaning(status, after, &answer))
    }
}

enum Sent {
    Taken,
    /// Remote write 1.0 only.
    OnlyV1,
    Failed(Failure),
}

#[cfg(test)]
mod tests {
    use prometheus::core::{Collector, Desc};
    use prometheus::proto::MetricFamily;

    use super::*;

    struct Bug(Desc);

    impl Collector for Bug {
        fn desc(&self) -> Vec<&Desc> {
            vec![&self.0]
        }

        fn collect(&self) -> Vec<MetricFamily> {
            panic!("a bug")
        }
    }

    #[tokio::test]
    async fn a_push_that_panics_is_a_failed_one() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let registry = Registry::new();
        let bug = Bug(Desc::new("bug".into(), "a".into(), vec![], Default::default()).unwrap());
        registry.register(Box::new(bug)).unwrap();
        let to = serde_json::json!({ "to": { "type": "otlp", "endpoint": "http://127.0.0.1:1" } });
        let source = Source { registry, exemplars: Arc::default(), began: 0 };
        let mut pushing = Pushing::start(&serde_json::from_value(to).unwrap(), source).unwrap();
        pushing.end().await;
        assert_eq!(pushing.pushes.with_label_values(&["to", "failed"]).get(), 1);
    }
}
