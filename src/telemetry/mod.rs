//! What docket says of itself: `meters`, `health`, logs and traces; `admin` is the port that serves them (and `status`, for people),
//! `push` sends them where nobody can scrape. `outage` says which lines of what fails again and again are written.

pub mod admin;
pub mod config;
pub mod health;
pub mod held;
pub mod meters;
pub mod outage;
pub mod push;
pub mod status;

pub use health::Health;
pub use meters::{Families, Meters, REFUSED};

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
