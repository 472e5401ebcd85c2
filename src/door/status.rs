//! OPA's status (<https://www.openpolicyagent.org/docs/management-status>), as metrics per OPA: what it could not log or load itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::{GaugeVec, IntCounterVec};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::decision::{json, time};
use crate::telemetry::Families;

/// What docket reads of OPA's status; there is more in it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'b"))]
struct Body<'b> {
    labels: BTreeMap<String, String>,
    bundles: Option<BTreeMap<String, Option<Bundle>>>,
    decision_logs: Option<DecisionLogs<'b>>,
    plugins: Option<BTreeMap<String, Option<Plugin>>>,
    /// Most of a status, of which little is wanted.
    metrics: Option<&'b RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Bundle {
    active_revision: String,
    last_successful_activation: String,
    code: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'b"))]
struct DecisionLogs<'b> {
    code: String,
    metrics: Option<&'b RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Plugin {
    state: String,
}

/// One OPA's status.
#[derive(Debug, PartialEq)]
pub struct Status {
    service: String,
    opa: String,
    /// OPA's own counters around decision logs, such as dropped_buffer_size_limit_exceeded.
    counts: BTreeMap<String, u64>,
    /// Whether the last upload went well; not known for an OPA that has made none.
    uploads: Option<bool>,
    /// By name: revision, whether the last download and activation went well, when one did last.
    bundles: BTreeMap<String, (String, bool, Option<f64>)>,
    plugins: BTreeMap<String, bool>,
}

/// A status is no longer than this; OPA's with all of its metrics has some ten KiB.
pub const BODY: usize = 2 << 20;
/// What is kept of one: names and revisions up to this length,
const LONGEST: usize = 200;
/// and so many counts, bundles and plugins.
const MOST_OF_EACH: usize = 100;

/// A name or a revision as a label: without its end, if it is too long.
fn short(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push('…');
        text.shrink_to_fit();
    }
    text
}

/// OPA counts these around decision logs: the prefix is left out.
const PREFIX: &str = "counter_decision_logs_";

impl Status {
    /// Reads a status; `name` and `instance` are labels of OPA.
    pub fn parse(text: &[u8], name: &str, instance: &str) -> Result<Status, String> {
        let body: Body =
            serde_json::from_slice(text).map_err(|e| format!("not OPA's status: {e}"))?;
        let label = |name: &str| short(body.labels.get(name).cloned().unwrap_or_default());
        let opa = label(instance);
        if opa.is_empty() {
            return Err("the status does not say whose it is: it has no label id".into());
        }
        let logs = body.decision_logs.unwrap_or_default();
        let mut counts = BTreeMap::new();
        let mut count = |name: &str, value: &str| {
            let name = json::as_str(name).unwrap_or_default();
            if let (Some(name), Ok(n)) = (name.strip_prefix(PREFIX), value.parse::<u64>())
                && counts.len() < MOST_OF_EACH
            {
                counts.insert(short(name.to_owned()), n);
            }
        };
        each(logs.metrics, &mut count);
        // OPA has its counters among those of Prometheus, which are a level deeper.
        each(body.metrics, &mut |_, value| {
            if value.starts_with('{') {
                each_of(value, &mut count);
            }
        });
        let made_some = !logs.code.is_empty() || counts.contains_key("chunks_uploaded");
        let seconds = |text: &str| time::parse(text).filter(|t| *t > 0).map(|t| t as f64 / 1e9);
        let bundle = |bundle: Option<Bundle>| {
            let bundle = bundle.unwrap_or_default();
            (
                short(bundle.active_revision),
                bundle.code.is_empty(),
                seconds(&bundle.last_successful_activation),
            )
        };
        Ok(Status {
            service: label(name),
            opa,
            counts,
            uploads: made_some.then_some(logs.code.is_empty()),
            bundles: body
                .bundles
                .unwrap_or_default()
                .into_iter()
                .take(MOST_OF_EACH)
                .map(|(name, b)| (short(name), bundle(b)))
                .collect(),
            plugins: body
                .plugins
                .unwrap_or_default()
                .into_iter()
                .take(MOST_OF_EACH)
                .map(|(name, p)| (short(name), p.is_some_and(|p| p.state == "OK")))
                .collect(),
        })
    }
}

/// Tells each member of an object, with its name in quotes.
fn each(object: Option<&RawValue>, tell: &mut dyn FnMut(&str, &str)) {
    if let Some(text) = object.map(RawValue::get).filter(|text| text.starts_with('{')) {
        each_of(text, tell);
    }
}

fn each_of(object: &str, tell: &mut dyn FnMut(&str, &str)) {
    for member in json::members(object) {
        tell(&format!("\"{}\"", member.name), member.value);
    }
}

impl Status {
    /// How many decisions it has lost, since it began; some may count twice.
    fn lost(&self) -> u64 {
        let of = |name: &str| name.starts_with("dropped_") || name == "encoding_failure";
        self.counts.iter().filter(|(name, _)| of(name)).map(|(_, n)| *n).sum()
    }

    /// Whose it is.
    pub fn opa(&self) -> &str {
        &self.opa
    }

    /// How many series it has.
    fn size(&self) -> usize {
        2 + self.counts.len() + 3 * self.bundles.len() + self.plugins.len()
    }
}

/// An OPA that has not told anything for so long is gone.
const GONE: Duration = Duration::from_secs(3600);
/// At most so many OPAs are told apart.
const MOST: usize = 5000;
/// And so many series kept of all of them.
const MOST_SERIES: usize = 50_000;

/// The metrics.
pub struct Told {
    at: GaugeVec,
    counts: IntCounterVec,
    uploads: GaugeVec,
    revision: GaugeVec,
    bundle: GaugeVec,
    activated: GaugeVec,
    plugin: GaugeVec,
    /// By OPA: when it told its status, and what it was.
    known: Mutex<HashMap<String, (Status, Instant)>>,
}

/// A family that a series belongs to.
enum Family<'t> {
    Gauge(&'t GaugeVec),
    Counter(&'t IntCounterVec),
}

impl Family<'_> {
    fn set(&self, labels: &[&str], value: f64) {
        match self {
            Family::Gauge(gauge) => gauge.with_label_values(labels).set(value),
            Family::Counter(counter) => counter.with_label_values(labels).inc_by(value as u64),
        }
    }

    fn remove(&self, labels: &[&str]) {
        // One that is gone already is as good.
        let _ = match self {
            Family::Gauge(gauge) => gauge.remove_label_values(labels),
            Family::Counter(counter) => counter.remove_label_values(labels),
        };
    }
}

impl Told {
    pub fn new(all: &Families<'_>) -> Result<Told, prometheus::Error> {
        Ok(Told {
            at: all.gauge_f64("docket_opa_status_timestamp_seconds", "When an OPA told its status last.", &["service", "opa"])?,
            counts: all.counter(
                "docket_opa_decision_logs_total",
                "OPA's own counts around its decision logs: what it dropped, failed to encode, uploaded.",
                &["service", "opa", "event"],
            )?,
            uploads: all.gauge_f64("docket_opa_decision_logs_up", "1 if the last upload of an OPA's decision logs went well, 0 if not.", &["service", "opa"])?,
            revision: all.gauge_f64(
                "docket_opa_bundle_info",
                "The revision of a bundle that an OPA has activated; always 1.",
                &["service", "opa", "bundle", "revision"],
            )?,
            bundle: all.gauge_f64(
                "docket_opa_bundle_up",
                "1 if an OPA's last download and activation of a bundle went well, 0 if not.",
                &["service", "opa", "bundle"],
            )?,
            activated: all.gauge_f64("docket_opa_bundle_activated_timestamp_seconds", "When an OPA activated a bundle last.", &["service", "opa", "bundle"])?,
            plugin: all.gauge_f64("docket_opa_plugin_up", "1 if a plugin of an OPA is OK.", &["service", "opa", "plugin"])?,
            known: Mutex::default(),
        })
    }

    /// Whether an OPA has lost decisions since it told its status last, and for how long that has been.
    pub fn lost_for(&self, status: &Status, now: Instant) -> Option<Duration> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.get(&status.opa);
        let (lost, told) = (status.lost(), before.map_or(0, |(last, _)| last.lost()));
        // One that began anew counts from nothing.
        let more = lost > 0 && lost != told;
        more.then(|| before.map_or(Duration::ZERO, |(_, at)| now.duration_since(*at)))
    }

    /// Takes a status up, in place of that OPA's last.
    pub fn tell(&self, status: Status, now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (status, told)| {
            let here = now.duration_since(*told) < GONE;
            if !here {
                self.series(status, &mut |family, labels, _| family.remove(labels));
            }
            here
        });
        if let Some((last, _)) = known.get(&status.opa) {
            self.series(last, &mut |family, labels, _| family.remove(labels));
        } else if known.len() >= MOST {
            tracing::warn!("more than {MOST} OPAs tell their status; the others have no metrics");
            return;
        }
        let others = known.values().filter(|(other, _)| other.opa != status.opa);
        if others.map(|(other, _)| other.size()).sum::<usize>() + status.size() > MOST_SERIES {
            tracing::warn!(
                "OPAs tell more than {MOST_SERIES} series of their status; the rest is left out"
            );
            known.remove(&status.opa);
            return;
        }
        self.series(&status, &mut |family, labels, value| family.set(labels, value));
        known.insert(status.opa.clone(), (status, now));
    }

    /// The series of one OPA: each one's family, labels and value.
    fn series(&self, status: &Status, each: &mut dyn FnMut(Family<'_>, &[&str], f64)) {
        let yes = |is: bool| f64::from(u8::from(is));
        let (service, opa) = (status.service.as_str(), status.opa.as_str());
        each(Family::Gauge(&self.at), &[service, opa], crate::clock::now() as f64 / 1e9);
        for (event, n) in &status.counts {
            each(Family::Counter(&self.counts), &[service, opa, event], *n as f64);
        }
        if let Some(went_well) = status.uploads {
            each(Family::Gauge(&self.uploads), &[service, opa], yes(went_well));
        }
        for (name, (revision, went_well, activated)) in &status.bundles {
            each(Family::Gauge(&self.bundle), &[service, opa, name], yes(*went_well));
            if !revision.is_empty() {
                each(Family::Gauge(&self.revision), &[service, opa, name, revision], 1.0);
            }
            if let Some(seconds) = activated {
                each(Family::Gauge(&self.activated), &[service, opa, name], *seconds);
            }
        }
        for (name, ok) in &status.plugins {
            each(Family::Gauge(&self.plugin), &[service, opa, name], yes(*ok));
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    /// As OPA 1.22.2 sends it; most of what Prometheus would scrape is left out.
    const TOLD: &str = r#"{"labels":{"app":"orders","id":"b774720c","version":"1.22.2"},
        "bundles":{"authz":{"name":"authz","active_revision":"r7","last_successful_activation":"2026-11-25T16:49:46.5Z","last_request":"2026-11-25T16:49:46Z"},
                   "data":{"name":"data","last_successful_activation":"0001-01-01T00:00:00Z","code":"bundle_error","message":"server replied with Not Found"}},
        "decision_logs":{"code":"decision_log_error","message":"log upload failed","http_code":"503"},
        "metrics":{"prometheus":{"counter_decision_logs_chunks_uploaded":3,"counter_decision_logs_dropped_buffer_size_limit_exceeded":7,
                   "go_cpu":{"name":"go_cpu","type":"COUNTER","metric":[{"counter":{"value":0.1}}]}}},
        "plugins":{"bundle":{"state":"OK"},"status":{"state":"NOT_READY"}}}"#;

    #[test]
    fn what_opa_could_not_log_or_load_is_told() {
        let status = Status::parse(TOLD.as_bytes(), "app", "id").unwrap();
        let registry = Registry::new();
        let told = Told::new(&Families { pipeline: "p", registry: &registry }).unwrap();
        told.tell(status, Instant::now());
        let text = |registry: &Registry| {
            let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
            text.lines()
                .filter(|line| !line.starts_with('#') && !line.contains("status_timestamp"))
                .map(|line| format!("{line}\n"))
                .collect::<String>()
        };
        insta::assert_snapshot!(text(&registry), @r#"
        docket_opa_bundle_activated_timestamp_seconds{bundle="authz",opa="b774720c",pipeline="p",service="orders"} 1795625386.5
        docket_opa_bundle_info{bundle="authz",opa="b774720c",pipeline="p",revision="r7",service="orders"} 1
        docket_opa_bundle_up{bundle="authz",opa="b774720c",pipeline="p",service="orders"} 1
        docket_opa_bundle_up{bundle="data",opa="b774720c",pipeline="p",service="orders"} 0
        docket_opa_decision_logs_total{event="chunks_uploaded",opa="b774720c",pipeline="p",service="orders"} 3
        docket_opa_decision_logs_total{event="dropped_buffer_size_limit_exceeded",opa="b774720c",pipeline="p",service="orders"} 7
        docket_opa_decision_logs_up{opa="b774720c",pipeline="p",service="orders"} 0
        docket_opa_plugin_up{opa="b774720c",pipeline="p",plugin="bundle",service="orders"} 1
        docket_opa_plugin_up{opa="b774720c",pipeline="p",plugin="status",service="orders"} 0
        "#);
        // A newer status takes the place of the last; an OPA that has gone is forgotten.
        let newer = TOLD.replace("r7", "r8").replace("b774720c", "other");
        told.tell(Status::parse(newer.as_bytes(), "app", "id").unwrap(), Instant::now() + GONE);
        let after = text(&registry);
        assert!(
            after.contains("r8") && !after.contains("r7") && !after.contains("b774720c"),
            "{after}"
        );
        assert!(Status::parse(b"{}", "app", "id").unwrap_err().contains("whose"));
        assert!(Status::parse(b"[", "app", "id").is_err());
    }

    #[test]
    fn what_an_opa_lost_is_told_once() {
        let told = Told::new(&Families { pipeline: "p", registry: &Registry::new() }).unwrap();
        let status = |counts: &str| {
            let text =
                format!(r#"{{"labels":{{"id":"o"}},"metrics":{{"prometheus":{{{counts}}}}}}}"#);
            Status::parse(text.as_bytes(), "app", "id").unwrap()
        };
        let name = |rest: &str| format!(r#""counter_decision_logs_{rest}"#);
        let limit = |n: u32| name(&format!(r#"dropped_rate_limit_exceeded":{n}"#));
        let (start, mut at) = (Instant::now(), 0);
        let mut hear = |counts: &str| {
            at += 5;
            let now = start + Duration::from_secs(at);
            let lost = told.lost_for(&status(counts), now);
            told.tell(status(counts), now);
            lost.map(|since| since.as_secs())
        };
        let fine = name(r#"nd_builtin_cache_dropped":3"#);
        let failed = name(r#"encoding_failure":1"#);
        let upload = name(r#"chunks_upload_failed":9"#);
        let all = [&*limit(7), &*limit(7), &*fine, &*limit(2), &*limit(3), &*upload, &*failed];
        let said: Vec<_> = all.iter().map(|counts| hear(counts)).collect();
        assert_eq!(said, [Some(0), None, None, Some(5), Some(5), None, Some(5)]);
    }

    #[test]
    fn what_is_kept_of_a_status_is_bounded() {
        let many = |n: usize, value: &str| {
            (0..n)
                .map(|i| format!(r#""{i}{}":{value}"#, "x".repeat(500)))
                .collect::<Vec<_>>()
                .join(",")
        };
        let counts: Vec<_> =
            (0..500).map(|i| format!(r#""counter_decision_logs_{i}":1"#)).collect();
        let counts = counts.join(",");
        let text = |opa: &str| {
            format!(
                r#"{{"labels":{{"id":"{opa}"}},"bundles":{{{}}},"plugins":{{{}}},"decision_logs":{{"metrics":{{{counts}}}}},"metrics":{{"a":[[1]],"b":{{{}}}}}}}"#,
                many(500, r#"{"active_revision":"r"}"#),
                many(500, "null"),
                many(500, "1")
            )
        };
        let status = |opa: &str| Status::parse(text(opa).as_bytes(), "app", "id").unwrap();
        let one = status(&"é".repeat(5000));
        assert_eq!((one.counts.len(), one.bundles.len(), one.plugins.len()), (100, 100, 100));
        assert!(one.opa.len() < 210 && one.bundles.keys().all(|name| name.len() < 210));
        let registry = Registry::new();
        let told = Told::new(&Families { pipeline: "p", registry: &registry }).unwrap();
        (0..300).for_each(|i| told.tell(status(&format!("opa{i}")), Instant::now()));
        let series: usize = registry.gather().iter().map(|family| family.get_metric().len()).sum();
        assert!(series > 10_000 && series <= MOST_SERIES, "{series}");
        // The last one of those that were taken up can still tell its own anew.
        told.tell(status("opa0"), Instant::now());
        let after: usize = registry.gather().iter().map(|family| family.get_metric().len()).sum();
        assert_eq!(after, series);
    }
}
