//! docket's own counters, logs, traces and health.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// Places of detectors' finds that are told apart.
const MOST_PLACES: usize = 500;

/// What docket counts of itself, one set a pipeline. `part` is `intake` or a sink's name.
pub struct Meters {
    pub registry: Registry,
    pub records: IntCounterVec,
    pub bytes: IntCounterVec,
    pub decisions: IntCounterVec,
    pub ignored: IntCounterVec,
    pub dropped: IntCounterVec,
    detected: IntCounterVec,
    /// Places that have a series of their own.
    places: Mutex<BTreeSet<String>>,
    pub rejects: IntCounterVec,
    pub malformed_ids: IntCounterVec,
    pub mismatches: IntCounterVec,
    pub unjudged: IntCounterVec,
    pub transactions: IntCounterVec,
    pub rebalances: IntCounterVec,
    pub delivered: IntCounterVec,
    pub requests: IntCounterVec,
    pub sent_bytes: IntCounterVec,
    pub in_flight: IntGaugeVec,
    pub latency: HistogramVec,
    pub offset: IntGaugeVec,
    pub lag: IntGaugeVec,
    pub oldest: GaugeVec,
    pub failing: IntGaugeVec,
    pub restarts: IntCounterVec,
    pub stalled: IntGaugeVec,
}

/// Makes families of metrics of a pipeline, registered.
pub struct Families<'r> {
    pub pipeline: &'r str,
    pub registry: &'r Registry,
}

impl Families<'_> {
    fn opts(&self, name: &str, help: &str) -> Opts {
        Opts::new(name, help).const_label("pipeline", self.pipeline)
    }

    fn registered<C: Collector + Clone + 'static>(
        &self,
        family: C,
    ) -> Result<C, prometheus::Error> {
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    pub fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.registered(IntCounterVec::new(self.opts(name, help), labels)?)
    }

    pub fn gauge(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.registered(IntGaugeVec::new(self.opts(name, help), labels)?)
    }

    /// Of what is no whole number.
    pub fn measure(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GaugeVec, prometheus::Error> {
        self.registered(GaugeVec::new(self.opts(name, help), labels)?)
    }

    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        let opts = HistogramOpts::new(name, help)
            .const_label("pipeline", self.pipeline)
            .buckets(buckets.to_vec());
        self.registered(HistogramVec::new(opts, labels)?)
    }

    /// One without labels.
    pub fn count(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.registered(IntCounter::with_opts(self.opts(name, help))?)
    }

    pub fn number(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.registered(IntGauge::with_opts(self.opts(name, help))?)
    }
}

impl Meters {
    pub fn new(pipeline: &str, registry: &Registry) -> Result<Meters, prometheus::Error> {
        let all = Families { pipeline, registry };
        Ok(Meters {
            registry: registry.clone(),
            records: all.counter("docket_intake_records_total", "Kafka records read by intake.", &["topic"])?,
            bytes: all.counter("docket_intake_bytes_total", "Bytes of Kafka records read by intake.", &["topic"])?,
            decisions: all.counter("docket_intake_decisions_total", "Decisions that intake wrote to the docket topic.", &["verdict"])?,
            dropped: all.counter("docket_intake_dropped_total", "Decisions that are not to be recorded, by the team's own drop policy.", &["topic"])?,
            detected: all.counter(
                "docket_protect_detected_total",
                "Finds of detectors, by where: a JSON pointer with * for elements and for names that look like data.",
                &["detector", "pointer"],
            )?,
            places: Mutex::default(),
            ignored: all.counter("docket_intake_ignored_total", "Lines of OPA's log on a source topic that are no decisions.", &["topic"])?,
            rejects: all.counter("docket_rejects_total", "Records sent to the rejects topic, by the part that refused them and why.", &["part", "reason"])?,
            malformed_ids: all.counter("docket_trace_ids_malformed_total", "Trace contexts in decisions that were malformed or all zero.", &["topic"])?,
            mismatches: all.counter("docket_trace_mismatches_total", "Decisions whose own trace id differs from the one that the caller sent.", &["topic"])?,
            unjudged: all.counter("docket_results_unjudged_total", "Results that no rule can judge; the verdict is undefined.", &["topic"])?,
            transactions: all.counter("docket_transactions_total", "Intake's Kafka transactions.", &["outcome"])?,
            rebalances: all.counter("docket_rebalances_total", "Changes of a part's partitions.", &["part", "kind"])?,
            delivered: all.counter(
                "docket_sink_records_total",
                "Decisions that are done with for a sink: delivered, refused for good, repeat (sent before), or too_old and sent elsewhere.",
                &["sink", "outcome"],
            )?,
            sent_bytes: all.counter("docket_sink_bytes_total", "Bytes of request bodies sent to a sink, as they are sent, repeats among them.", &["sink"])?,
            requests: all.counter(
                "docket_sink_requests_total",
                "Requests to a sink by outcome: ok, refused, partial, or the cause of a retry.",
                &["sink", "outcome"],
            )?,
            in_flight: all.gauge("docket_sink_in_flight_records", "Decisions sent to a sink and not answered yet.", &["sink"])?,
            latency: all.histogram(
                "docket_delivery_latency_seconds",
                "Time from a decision to its acknowledgement by a sink.",
                &["sink"],
                &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0],
            )?,
            offset: all.gauge("docket_offset", "The offset of a partition below which a part has finished everything.", &["part", "topic", "partition"])?,
            lag: all.gauge("docket_lag_records", "Records of a partition that a part has not finished.", &["part", "topic", "partition"])?,
            oldest: all.measure(
                "docket_oldest_undelivered_seconds",
                "Age of the oldest decision that a sink has taken from a partition and not delivered; 0 if there is none.",
                &["sink", "partition"],
            )?,
            failing: all.gauge("docket_sink_failing", "1 while a sink's requests fail, by cause.", &["sink", "cause"])?,
            stalled: all.gauge("docket_stalled_partitions", "Assigned partitions with records to do that make no progress.", &["part"])?,
            restarts: all.counter("docket_part_restarts_total", "Restarts of a part after an error.", &["part"])?,
        })
    }

    /// Counts what a detector found. Places beyond the first so many are `other`.
    pub fn detected(&self, detector: &str, place: &str, count: u64) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let known = places.contains(place)
            || (places.len() < MOST_PLACES
                && place.len() <= 200
                && places.insert(place.to_owned()));
        self.detected
            .with_label_values(&[detector, if known { place } else { "other" }])
            .inc_by(count);
    }
}

/// Whether each part of each pipeline can do its work: what /readyz says.
#[derive(Default)]
pub struct Health {
    parts: Mutex<BTreeMap<String, Result<(), String>>>,
}

impl Health {
    pub fn set(&self, part: &str, state: Result<(), String>) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(part.to_owned(), state);
    }

    /// The part is no more.
    pub fn remove(&self, part: &str) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).remove(part);
    }

    /// Each part that is not ready, and why.
    pub fn not_ready(&self) -> Vec<(String, String)> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts
            .iter()
            .filter_map(|(part, state)| Some((part.clone(), state.as_ref().err()?.clone())))
            .collect()
    }
}

/// Keeps docket's own telemetry going; flushes it when dropped.
pub struct Guard {
    tracer: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
    logger: Option<opentelemetry_sdk::logs::SdkLoggerProvider>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(tracer) = &self.tracer {
            let _ = tracer.shutdown();
        }
        if let Some(logger) = &self.logger {
            let _ = logger.shutdown();
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("docket's own telemetry can't be set up: {0}")]
pub struct TelemetryError(String);

/// docket's log goes to standard error, as text or JSON; level by DOCKET_LOG (`info`, `docket=debug`, ..).
/// With an endpoint, logs and traces of docket go there by OTLP/gRPC, too.
pub fn start(json: bool, otlp: Option<&str>) -> Result<Guard, TelemetryError> {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_otlp::WithExportConfig;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::{EnvFilter, Layer, fmt};

    let filter =
        || EnvFilter::try_from_env("DOCKET_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let text = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let log = if json {
        text.json().flatten_event(true).boxed()
    } else {
        text.with_ansi(anstream::stderr().is_terminal()).boxed()
    };
    let mut guard = Guard { tracer: None, logger: None };
    let mut layers = vec![log.with_filter(filter()).boxed()];
    if let Some(endpoint) = otlp {
        let failed = |e: &dyn std::fmt::Display| TelemetryError(e.to_string());
        let resource = opentelemetry_sdk::Resource::builder().with_service_name("docket").build();
        let spans = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .map_err(|e| failed(&e))?;
        let tracer = opentelemetry_sdk::trace::SdkTracerProvider::builder()
            .with_batch_exporter(spans)
            .with_resource(resource.clone())
            .build();
        let logs = opentelemetry_otlp::LogExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .map_err(|e| failed(&e))?;
        let logger = opentelemetry_sdk::logs::SdkLoggerProvider::builder()
            .with_batch_exporter(logs)
            .with_resource(resource)
            .build();
        // The exporter's own client must not log into what it exports.
        let own = || {
            EnvFilter::new(
                "info,hyper=off,tonic=off,h2=off,tower=off,reqwest=off,opentelemetry=off",
            )
        };
        layers.push(
            tracing_opentelemetry::layer()
                .with_tracer(tracer.tracer("docket"))
                .with_filter(own())
                .boxed(),
        );
        layers.push(
            opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge::new(&logger)
                .with_filter(own())
                .boxed(),
        );
        guard = Guard { tracer: Some(tracer), logger: Some(logger) };
    }
    let subscriber = tracing_subscriber::registry().with(layers);
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|e| TelemetryError(e.to_string()))?;
    Ok(guard)
}
