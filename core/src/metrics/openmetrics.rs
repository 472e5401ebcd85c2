//! The registry as OpenMetrics 1.0 text, with exemplars (https://prometheus.io/docs/specs/om/open_metrics_spec/). The
//! prometheus crate writes the classic text format only, which has none.

use std::fmt::Write;

use prometheus::proto::{MetricFamily, MetricType};

use super::created::Created;
use super::exemplars::Exemplars;
use super::samples::{self, Sample, number};

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether who asks takes OpenMetrics, by its Accept header. Prometheus does.
pub fn is_accepted(accept: &str) -> bool {
    accept.split(',').any(|part| {
        let mut parameters = part.split(';').map(str::trim);
        let named = parameters
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case("application/openmetrics-text"));
        let refused = parameters
            .any(|p| p.strip_prefix("q=").and_then(|q| q.trim().parse::<f64>().ok()) == Some(0.0));
        named && !refused
    })
}

/// `created`: when each series began, as of the same look at them.
pub fn encode(families: &[MetricFamily], exemplars: &Exemplars, created: &Created) -> String {
    let mut out = String::with_capacity(64 << 10);
    for family in families {
        let word = match family.get_field_type() {
            MetricType::COUNTER => "counter",
            MetricType::GAUGE => "gauge",
            MetricType::HISTOGRAM => "histogram",
            MetricType::SUMMARY => "summary",
            MetricType::UNTYPED => "unknown",
        };
        // A counter's family has no suffix, its samples have.
        let base = samples::base(family);
        let _ = write!(out, "# HELP {base} ");
        escape(&mut out, family.help());
        let _ = write!(out, "\n# TYPE {base} {word}\n");
        for sample in samples::of(family, exemplars) {
            out.push_str(base);
            write_sample(&mut out, &sample);
            if matches!(sample.suffix, "_total" | "_sum")
                && let Some(began) = created.of(family, sample.metric)
            {
                out.push_str(base);
                out.push_str("_created");
                write_labels(&mut out, &sample);
                let _ = writeln!(out, " {:.3}", began as f64 / 1e9);
            }
        }
    }
    out.push_str("# EOF\n");
    out
}

fn write_labels(out: &mut String, sample: &Sample<'_>) {
    let mut open = '{';
    for (name, value) in sample.labels() {
        out.push(open);
        open = ',';
        let _ = write!(out, "{name}=\"");
        escape(out, &value);
        out.push('"');
    }
    if open == ',' {
        out.push('}');
    }
}

fn write_sample(out: &mut String, sample: &Sample<'_>) {
    out.push_str(sample.suffix);
    write_labels(out, sample);
    let _ = write!(out, " {}", number(sample.value));
    if let Some(exemplar) = sample.exemplar {
        let seconds = exemplar.at as f64 / 1e9;
        let _ = write!(
            out,
            " # {{trace_id=\"{}\",span_id=\"{}\"}} {} {seconds:.3}",
            exemplar.trace_id,
            exemplar.span_id,
            number(exemplar.value)
        );
    }
    out.push('\n');
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
    use crate::metrics::exemplars::Exemplar;
    use crate::metrics::{Decisions, Series, Tally};

    #[test]
    fn denials_and_evaluation_times_carry_a_trace() {
        let registry = Registry::new();
        let exemplars: Arc<Exemplars> = Arc::default();
        let decisions = Decisions::new("p", 100, &registry, exemplars.clone()).unwrap();
        let exemplar = |value| Exemplar {
            trace_id: TraceId::from_bytes([0xab; 16]),
            span_id: SpanId::from_bytes([0xcd; 8]),
            at: 1_795_524_530_250_000_000,
            value,
        };
        let mut tally = Tally::default();
        let series = |verdict| Series {
            service: "s\"1".into(),
            policy: "a/b".into(),
            verdict,
            revision: "r".into(),
        };
        tally.counts.insert(series(Verdict::Deny), (3, Some(exemplar(1.0))));
        tally.counts.insert(series(Verdict::Allow), (5, None));
        tally
            .durations
            .entry(("s\"1".into(), "a/b".into()))
            .or_default()
            .add(0.0004, exemplar(0.0004));
        decisions.add(&tally, 0);
        let families: Vec<_> =
            registry.gather().into_iter().filter(|f| f.name() != "docket_bundle_info").collect();
        let mut created = Created::new(1_795_524_500_500_000_000);
        created.look(&families, 1_795_524_531_000_000_000);
        insta::assert_snapshot!(encode(&families, &exemplars, &created));
    }

    #[test]
    fn who_asks_for_it_gets_it() {
        assert!(is_accepted(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ));
        assert!(
            !is_accepted("text/plain, */*")
                && !is_accepted("application/openmetrics-text;q=0")
                && !is_accepted("")
        );
    }
}
