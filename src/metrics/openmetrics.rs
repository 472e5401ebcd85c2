//! The registry as OpenMetrics 1.0 text, with exemplars (https://prometheus.io/docs/specs/om/open_metrics_spec/). The
//! prometheus crate writes the classic text format only, which has none.

use std::fmt::Write;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::exemplars::{Exemplar, Exemplars};

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether who asks takes OpenMetrics, by its Accept header. Prometheus does.
pub fn is_accepted(accept: &str) -> bool {
    accept.split(',').any(|part| {
        let mut parameters = part.split(';').map(str::trim);
        let named = parameters.next().is_some_and(|name| name.eq_ignore_ascii_case("application/openmetrics-text"));
        let refused = parameters.any(|p| p.strip_prefix("q=").and_then(|q| q.trim().parse::<f64>().ok()) == Some(0.0));
        named && !refused
    })
}

pub fn encode(families: &[MetricFamily], exemplars: &Exemplars) -> String {
    let mut out = String::with_capacity(64 << 10);
    for family in families {
        let kind = family.get_field_type();
        let name = family.name();
        // A counter's family has no suffix, its samples have.
        let base = if kind == MetricType::COUNTER { name.strip_suffix("_total").unwrap_or(name) } else { name };
        let word = match kind {
            MetricType::COUNTER => "counter",
            MetricType::GAUGE => "gauge",
            MetricType::HISTOGRAM => "histogram",
            MetricType::SUMMARY => "summary",
            MetricType::UNTYPED => "unknown",
        };
        let _ = write!(out, "# HELP {base} ");
        escape(&mut out, family.help());
        let _ = write!(out, "\n# TYPE {base} {word}\n");
        for metric in family.get_metric() {
            let of = |bucket| exemplar(exemplars, name, metric, bucket);
            match kind {
                MetricType::COUNTER => sample(&mut out, &format!("{base}_total"), metric, None, metric.get_counter().get_value(), of(None)),
                MetricType::HISTOGRAM => {
                    let histogram = metric.get_histogram();
                    let mut infinite = false;
                    for (i, bucket) in histogram.get_bucket().iter().enumerate() {
                        let bound = bucket.upper_bound();
                        infinite |= bound.is_infinite();
                        let le = number(bound);
                        sample(&mut out, &format!("{base}_bucket"), metric, Some(("le", &le)), bucket.cumulative_count() as f64, of(Some(i)));
                    }
                    if !infinite {
                        let last = of(Some(histogram.get_bucket().len()));
                        sample(&mut out, &format!("{base}_bucket"), metric, Some(("le", "+Inf")), histogram.get_sample_count() as f64, last);
                    }
                    sample(&mut out, &format!("{base}_count"), metric, None, histogram.get_sample_count() as f64, None);
                    sample(&mut out, &format!("{base}_sum"), metric, None, histogram.get_sample_sum(), None);
                }
                // No summaries are kept.
                _ => sample(&mut out, base, metric, None, metric.get_gauge().get_value(), None),
            }
        }
    }
    out.push_str("# EOF\n");
    out
}

/// Labels of the families that have exemplars, in their order; the registry sorts them by name.
const SERIES: [(&str, &[&str]); 2] =
    [("docket_decisions_total", &["service", "policy", "verdict", "revision"]), ("docket_decision_duration_seconds", &["service", "policy"])];

fn exemplar(exemplars: &Exemplars, family: &str, metric: &Metric, bucket: Option<usize>) -> Option<Exemplar> {
    let (_, names) = SERIES.iter().find(|(name, _)| *name == family)?;
    let value = |name: &str| metric.get_label().iter().find(|l| l.name() == name).map(LabelPair::value);
    let labels: Vec<&str> = names.iter().map(|name| value(name)).collect::<Option<_>>()?;
    exemplars.get(family, value("pipeline")?, &labels, bucket)
}

fn sample(out: &mut String, name: &str, metric: &Metric, more: Option<(&str, &str)>, value: f64, exemplar: Option<Exemplar>) {
    out.push_str(name);
    let labels = metric.get_label().iter().map(|l| (l.name(), l.value())).chain(more);
    let mut open = '{';
    for (name, value) in labels {
        out.push(open);
        open = ',';
        let _ = write!(out, "{name}=\"");
        escape(out, value);
        out.push('"');
    }
    if open == ',' {
        out.push('}');
    }
    let _ = write!(out, " {}", number(value));
    if let Some(exemplar) = exemplar {
        let seconds = exemplar.at as f64 / 1e9;
        let _ = write!(out, " # {{trace_id=\"{}\",span_id=\"{}\"}} {} {seconds:.3}", exemplar.trace_id, exemplar.span_id, number(exemplar.value));
    }
    out.push('\n');
}

fn number(value: f64) -> String {
    match value {
        v if v.is_infinite() => if v > 0.0 { "+Inf" } else { "-Inf" }.into(),
        v if v.is_nan() => "NaN".into(),
        // A whole bound is written as a float: le="1.0".
        v => format!("{v:?}"),
    }
}

fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus::Registry;

    use super::*;
    use crate::decision::ids::{SpanId, TraceId};
    use crate::decision::verdict::Verdict;
    use crate::metrics::{Decisions, Series, Tally};

    #[test]
    fn denials_and_evaluation_times_carry_a_trace() {
        let registry = Registry::new();
        let exemplars: Arc<Exemplars> = Arc::default();
        let decisions = Decisions::new("p", 100, &registry, exemplars.clone()).unwrap();
        let exemplar =
            |value| Exemplar { trace_id: TraceId::from_bytes([0xab; 16]), span_id: SpanId::from_bytes([0xcd; 8]), at: 1_795_524_530_250_000_000, value };
        let mut tally = Tally::default();
        let series = |verdict| Series { service: "s\"1".into(), policy: "a/b".into(), verdict, revision: "r".into() };
        tally.counts.insert(series(Verdict::Deny), (3, Some(exemplar(1.0))));
        tally.counts.insert(series(Verdict::Allow), (5, None));
        tally.durations.entry(("s\"1".into(), "a/b".into())).or_default().add(0.0004, exemplar(0.0004));
        decisions.add(&tally, 0);
        let families: Vec<_> = registry.gather().into_iter().filter(|f| f.name() != "docket_bundle_info").collect();
        insta::assert_snapshot!(encode(&families, &exemplars));
    }

    #[test]
    fn who_asks_for_it_gets_it() {
        assert!(is_accepted(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ));
        assert!(!is_accepted("text/plain, */*") && !is_accepted("application/openmetrics-text;q=0") && !is_accepted(""));
    }
}
