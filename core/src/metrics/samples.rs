//! The registry's families as single samples with their exemplars, for the formats that want them so.

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::exemplars::{Exemplar, Exemplars};

pub struct Sample<'m> {
    /// What follows the family's name: `_total`, `_bucket`, `_count`, `_sum` or nothing.
    pub suffix: &'static str,
    pub metric: &'m Metric,
    /// Of a bucket.
    pub le: Option<f64>,
    pub value: f64,
    pub exemplar: Option<Exemplar>,
}

impl Sample<'_> {
    /// Names and values; a bucket's bound last.
    pub fn labels(&self) -> impl Iterator<Item = (&str, String)> {
        let own = self.metric.get_label().iter().map(|l| (l.name(), l.value().to_owned()));
        own.chain(self.le.map(|le| ("le", number(le))))
    }
}

/// A family's name without the suffix of its samples.
pub fn base(family: &MetricFamily) -> &str {
    let name = family.name();
    if family.get_field_type() == MetricType::COUNTER {
        name.strip_suffix("_total").unwrap_or(name)
    } else {
        name
    }
}

pub fn of<'m>(family: &'m MetricFamily, exemplars: &Exemplars) -> Vec<Sample<'m>> {
    let mut all = Vec::new();
    for metric in family.get_metric() {
        let exemplar = |bucket| exemplar(exemplars, family.name(), metric, bucket);
        let plain = |suffix, value, exemplar| Sample { suffix, metric, le: None, value, exemplar };
        match family.get_field_type() {
            MetricType::COUNTER => {
                all.push(plain("_total", metric.get_counter().get_value(), exemplar(None)))
            }
            MetricType::HISTOGRAM => {
                for (bound, count, exemplar) in buckets(metric, family.name(), exemplars) {
                    all.push(Sample {
                        suffix: "_bucket",
                        metric,
                        le: Some(bound),
                        value: count as f64,
                        exemplar,
                    });
                }
                let histogram = metric.get_histogram();
                all.push(plain("_count", histogram.get_sample_count() as f64, None));
                all.push(plain("_sum", histogram.get_sample_sum(), None));
            }
            // No summaries are kept.
            _ => all.push(plain("", metric.get_gauge().get_value(), None)),
        }
    }
    all
}

/// A histogram's buckets: bound, how many are at or below it, exemplar. The last is infinite.
pub fn buckets(
    metric: &Metric,
    family: &str,
    exemplars: &Exemplars,
) -> Vec<(f64, u64, Option<Exemplar>)> {
    let histogram = metric.get_histogram();
    let of = |bucket| exemplar(exemplars, family, metric, Some(bucket));
    let mut all: Vec<_> = histogram
        .get_bucket()
        .iter()
        .enumerate()
        .map(|(i, b)| (b.upper_bound(), b.cumulative_count(), of(i)))
        .collect();
    if all.last().is_none_or(|(bound, _, _)| bound.is_finite()) {
        all.push((f64::INFINITY, histogram.get_sample_count(), of(all.len())));
    }
    all
}

/// Labels of the families that have exemplars, in their order; the registry sorts them by name.
const SERIES: [(&str, &[&str]); 2] = [
    ("docket_decisions_total", &["service", "policy", "verdict", "revision"]),
    ("docket_decision_duration_seconds", &["service", "policy"]),
];

fn exemplar(
    exemplars: &Exemplars,
    family: &str,
    metric: &Metric,
    bucket: Option<usize>,
) -> Option<Exemplar> {
    let (_, names) = SERIES.iter().find(|(name, _)| *name == family)?;
    let value =
        |name: &str| metric.get_label().iter().find(|l| l.name() == name).map(LabelPair::value);
    let labels: Vec<&str> = names.iter().map(|name| value(name)).collect::<Option<_>>()?;
    exemplars.get(family, value("pipeline")?, &labels, bucket)
}

/// As Prometheus writes numbers.
pub fn number(value: f64) -> String {
    match value {
        v if v.is_infinite() => if v > 0.0 { "+Inf" } else { "-Inf" }.into(),
        v if v.is_nan() => "NaN".into(),
        // A whole bound is written as a float: le="1.0".
        v => format!("{v:?}"),
    }
}
