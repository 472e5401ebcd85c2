//! The registry as an OTLP metrics request (opentelemetry-proto 1.x): sums, gauges and histograms with explicit buckets, cumulative since
//! the process began, under the names that Prometheus has for them.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, Gauge, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, exemplar, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prometheus::proto::{MetricFamily, MetricType};
use prost::Message;

use super::exemplars::{self, Exemplars};
use super::samples;
use crate::decision::time::Nanos;

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) }),
        ..Default::default()
    }
}

fn unsigned(at: Nanos) -> u64 {
    u64::try_from(at).unwrap_or_default()
}

fn traced(known: &exemplars::Exemplar) -> Exemplar {
    Exemplar {
        time_unix_nano: unsigned(known.at),
        trace_id: known.trace_id.to_bytes().to_vec(),
        span_id: known.span_id.to_bytes().to_vec(),
        value: Some(exemplar::Value::AsDouble(known.value)),
        ..Default::default()
    }
}

/// A request of everything. The unit is the last word of the name, as Prometheus names things.
pub fn request(
    families: &[MetricFamily],
    known: &Exemplars,
    resource: &[(String, String)],
    began: Nanos,
    now: Nanos,
) -> Vec<u8> {
    let (start_time_unix_nano, time_unix_nano) = (unsigned(began), unsigned(now));
    let cumulative = AggregationTemporality::Cumulative as i32;
    let one = |family: &MetricFamily| {
        let attributes = |metric: &prometheus::proto::Metric| {
            metric.get_label().iter().map(|l| text(l.name(), l.value())).collect()
        };
        let points = || {
            let point = |s: samples::Sample<'_>| NumberDataPoint {
                attributes: attributes(s.metric),
                start_time_unix_nano,
                time_unix_nano,
                exemplars: s.exemplar.iter().map(traced).collect(),
                value: Some(number_data_point::Value::AsDouble(s.value)),
                ..Default::default()
            };
            samples::of(family, known).into_iter().map(point).collect()
        };
        let data = match family.get_field_type() {
            MetricType::COUNTER => metric::Data::Sum(Sum {
                data_points: points(),
                aggregation_temporality: cumulative,
                is_monotonic: true,
            }),
            MetricType::HISTOGRAM => {
                let point = |metric: &prometheus::proto::Metric| {
                    let buckets = samples::buckets(metric, family.name(), known);
                    let below =
                        std::iter::once(0).chain(buckets.iter().map(|(_, count, _)| *count));
                    HistogramDataPoint {
                        attributes: attributes(metric),
                        start_time_unix_nano,
                        time_unix_nano,
                        count: metric.get_histogram().get_sample_count(),
                        sum: Some(metric.get_histogram().get_sample_sum()),
                        bucket_counts: buckets
                            .iter()
                            .zip(below)
                            .map(|((_, count, _), below)| count.saturating_sub(below))
                            .collect(),
                        explicit_bounds: buckets
                            .iter()
                            .map(|(bound, _, _)| *bound)
                            .filter(|bound| bound.is_finite())
                            .collect(),
                        exemplars: buckets
                            .iter()
                            .filter_map(|(_, _, exemplar)| exemplar.as_ref().map(traced))
                            .collect(),
                        ..Default::default()
                    }
                };
                let data_points = family.get_metric().iter().map(point).collect();
                metric::Data::Histogram(Histogram {
                    data_points,
                    aggregation_temporality: cumulative,
                })
            }
            _ => metric::Data::Gauge(Gauge { data_points: points() }),
        };
        let named = family.name().strip_suffix("_total").unwrap_or(family.name());
        let unit = if named.ends_with("_seconds") {
            "s"
        } else if named.ends_with("_bytes") {
            "By"
        } else {
            ""
        };
        Metric {
            name: family.name().to_owned(),
            description: family.help().to_owned(),
            unit: unit.to_owned(),
            data: Some(data),
            ..Default::default()
        }
    };
    let scope = InstrumentationScope {
        name: "docket".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..Default::default()
    };
    let metrics = ScopeMetrics {
        scope: Some(scope),
        metrics: families.iter().map(one).collect(),
        ..Default::default()
    };
    let resource = Resource {
        attributes: resource.iter().map(|(key, value)| text(key, value)).collect(),
        ..Default::default()
    };
    let all = ResourceMetrics {
        resource: Some(resource),
        scope_metrics: vec![metrics],
        ..Default::default()
    };
    ExportMetricsServiceRequest { resource_metrics: vec![all] }.encode_to_vec()
}
