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
    let points = Points { known, began: unsigned(began), now: unsigned(now) };
    let scope = InstrumentationScope {
        name: "docket".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..Default::default()
    };
    let metrics = ScopeMetrics {
        scope: Some(scope),
        metrics: families.iter().map(|family| points.metric(family)).collect(),
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

/// What all points have in common.
struct Points<'k> {
    known: &'k Exemplars,
    began: u64,
    now: u64,
}

fn attributes(metric: &prometheus::proto::Metric) -> Vec<KeyValue> {
    metric.get_label().iter().map(|l| text(l.name(), l.value())).collect()
}

impl Points<'_> {
    fn metric(&self, family: &MetricFamily) -> Metric {
        let aggregation_temporality = AggregationTemporality::Cumulative as i32;
        let data = match family.get_field_type() {
            MetricType::COUNTER => metric::Data::Sum(Sum {
                data_points: self.numbers(family),
                aggregation_temporality,
                is_monotonic: true,
            }),
            MetricType::HISTOGRAM => metric::Data::Histogram(Histogram {
                data_points: family
                    .get_metric()
                    .iter()
                    .map(|m| self.histogram(family, m))
                    .collect(),
                aggregation_temporality,
            }),
            _ => metric::Data::Gauge(Gauge { data_points: self.numbers(family) }),
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
    }

    fn numbers(&self, family: &MetricFamily) -> Vec<NumberDataPoint> {
        let point = |s: samples::Sample<'_>| NumberDataPoint {
            attributes: attributes(s.metric),
            start_time_unix_nano: self.began,
            time_unix_nano: self.now,
            exemplars: s.exemplar.iter().map(traced).collect(),
            value: Some(number_data_point::Value::AsDouble(s.value)),
            ..Default::default()
        };
        samples::of(family, self.known).into_iter().map(point).collect()
    }

    fn histogram(
        &self,
        family: &MetricFamily,
        metric: &prometheus::proto::Metric,
    ) -> HistogramDataPoint {
        let buckets = samples::buckets(metric, family.name(), self.known);
        let below = std::iter::once(0).chain(buckets.iter().map(|(_, count, _)| *count));
        let within = |((_, count, _), below): (&(f64, u64, _), u64)| count.saturating_sub(below);
        let bounds = buckets.iter().map(|(bound, _, _)| *bound);
        let exemplars = buckets.iter().filter_map(|(_, _, exemplar)| exemplar.as_ref());
        HistogramDataPoint {
            attributes: attributes(metric),
            start_time_unix_nano: self.began,
            time_unix_nano: self.now,
            count: metric.get_histogram().get_sample_count(),
            sum: Some(metric.get_histogram().get_sample_sum()),
            bucket_counts: buckets.iter().zip(below).map(within).collect(),
            explicit_bounds: bounds.filter(|bound| bound.is_finite()).collect(),
            exemplars: exemplars.map(traced).collect(),
            ..Default::default()
        }
    }
}
