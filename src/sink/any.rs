//! A sink of whatever kind. A kind is in the lists below and in its folder; nobody else knows which there are.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::cloudwatch::{self, Cloudwatch};
use super::config::SinkConfig;
use super::elasticsearch::{self, Elasticsearch};
use super::file::{self, File};
use super::loki::{self, Loki};
use super::metrics::{self, Metrics};
use super::otlp::{self, Otlp};
use super::query::{QueryError, SinkQuery};
use super::{Outcome, Sink};
use crate::caught;
use crate::decision::record::Record;
use crate::http::client::HttpError;
use crate::http::failure::{Cause, Failure};
use crate::metrics::Decisions;

/// Makes a sink from its settings.
pub fn sink(
    config: &SinkConfig,
    decisions: &Arc<Decisions>,
) -> Result<Arc<dyn AnySink>, HttpError> {
    Ok(match config {
        SinkConfig::Otlp(config) => Arc::new(Otlp::new(config)?),
        SinkConfig::Loki(config) => Arc::new(Loki::new(config)?),
        SinkConfig::Elasticsearch(config) => Arc::new(Elasticsearch::new(config)?),
        SinkConfig::Cloudwatch(config) => Arc::new(Cloudwatch::new(config)?),
        SinkConfig::File(config) => Arc::new(File::new(config)),
        SinkConfig::Metrics(_) => Arc::new(Metrics::new(decisions.clone())),
    })
}

/// Makes what adds late matches to what a sink holds, where its kind can.
pub fn amender(name: &str, config: &SinkConfig) -> Result<Option<Arc<dyn AnySink>>, HttpError> {
    Ok(match config {
        SinkConfig::Elasticsearch(config) => {
            Some(Arc::new(elasticsearch::Amend::new(name, config)?))
        }
        SinkConfig::Otlp(config) => Some(Arc::new(otlp::Amend(Otlp::new(config)?))),
        SinkConfig::Loki(_)
        | SinkConfig::Cloudwatch(_)
        | SinkConfig::File(_)
        | SinkConfig::Metrics(_) => None,
    })
}

/// Sends a sink nothing, to see that it is there and knows who asks.
pub async fn reach(
    config: &SinkConfig,
    decisions: &Arc<Decisions>,
) -> Result<Result<(), Failure>, HttpError> {
    if let SinkConfig::Cloudwatch(config) = config {
        return Ok(Cloudwatch::new(config)?.reach().await);
    }
    let request = sink(config, decisions)?.encode(&[]);
    Ok(match request.send().await {
        Outcome::Failed(failure) => Err(failure),
        Outcome::Delivered | Outcome::Each(_) | Outcome::Changed(_) => Ok(()),
    })
}

/// Makes what asks a sink what it holds; or says why it can't be asked. `amended` is one whose documents late matches change.
pub fn query(
    pipeline: &str,
    config: &SinkConfig,
    amended: bool,
) -> Result<Result<Box<dyn SinkQuery>, &'static str>, QueryError> {
    let counted = matches!(config, SinkConfig::Otlp(_) | SinkConfig::Metrics(_));
    if config.delivery().only_routed && counted {
        return Ok(Err("it gets only what others do not take"));
    }
    Ok(match config {
        SinkConfig::Otlp(config) => otlp::query::Query::new(config)?.map(boxed),
        SinkConfig::Loki(config) => Ok(boxed(loki::query::Query::new(config)?)),
        SinkConfig::Elasticsearch(config) => {
            Ok(boxed(elasticsearch::query::Query::new(config, amended)?))
        }
        SinkConfig::Cloudwatch(config) => Ok(boxed(cloudwatch::query::Query::new(config)?)),
        SinkConfig::File(config) => file::Query::new(config).map(boxed),
        SinkConfig::Metrics(config) => metrics::query::Query::new(pipeline, config)?.map(boxed),
    })
}

fn boxed(query: impl SinkQuery + 'static) -> Box<dyn SinkQuery> {
    Box::new(query)
}

/// A [`Sink`] whose kind is not known: what it encodes knows how to be sent.
pub trait AnySink: Send + Sync {
    fn encode(self: Arc<Self>, batch: &[Record<'_>]) -> Box<dyn Request>;
}

/// An encoded request. It is sent again as it is.
pub trait Request: Send + Sync {
    fn size(&self) -> usize;
    fn send(&self) -> Pin<Box<dyn Future<Output = Outcome> + Send + '_>>;
}

struct Encoded<S: Sink> {
    sink: Arc<S>,
    body: S::Body,
}

/// At whose records docket panicked: it fails like any other request, so that the record ends alone in rejects.
struct Panicked(String);

/// A request that can't be made or sent, or whose answer can't be read, for a bug.
fn failed(panic: &str) -> Outcome {
    let told = format!("a bug in docket or in a library, at a request or its answer: {panic}");
    Outcome::Failed(Failure::retry(Cause::Panic, told))
}

impl<S: Sink> AnySink for S {
    fn encode(self: Arc<S>, batch: &[Record<'_>]) -> Box<dyn Request> {
        match caught::caught(|| Sink::encode(&*self, batch)) {
            Ok(body) => Box::new(Encoded { sink: self, body }),
            Err(panic) => Box::new(Panicked(panic)),
        }
    }
}

impl Request for Panicked {
    fn size(&self) -> usize {
        0
    }

    fn send(&self) -> Pin<Box<dyn Future<Output = Outcome> + Send + '_>> {
        Box::pin(std::future::ready(failed(&self.0)))
    }
}

impl<S: Sink> Request for Encoded<S> {
    fn size(&self) -> usize {
        S::size(&self.body)
    }

    fn send(&self) -> Pin<Box<dyn Future<Output = Outcome> + Send + '_>> {
        Box::pin(async {
            let sent = caught::within(self.sink.send(&self.body)).await;
            sent.unwrap_or_else(|panic| failed(&panic))
        })
    }
}
