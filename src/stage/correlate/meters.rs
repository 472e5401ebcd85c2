//! What is counted of the join.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGauge, Registry};

use crate::correlate::{Class, Counts, FindingKind, Side, Undecidable};
use crate::decision::time::Nanos;
use crate::telemetry::Families;

/// Services that are told apart; further ones are `other`, since whoever sends requests may name them.
const MOST_SERVICES: usize = 200;

pub struct JoinMeters {
    decisions: IntCounterVec,
    amendments: IntCounterVec,
    late: IntCounterVec,
    evicted: IntCounterVec,
    findings: IntCounterVec,
    suppressed: IntCounter,
    undecidable: IntCounterVec,
    judged: IntCounter,
    by_design: IntCounter,
    held: IntCounter,
    bytes: IntGauge,
    entries: IntGauge,
    waiting: IntGauge,
    complete: GaugeVec,
    services: Mutex<BTreeSet<String>>,
}

fn side(side: Side) -> &'static str {
    match side {
        Side::Decisions => "decisions",
        Side::Facts => "facts",
    }
}

fn class(class: Option<Class>) -> &'static str {
    class.map_or("none", Class::as_str)
}

impl JoinMeters {
    pub fn new(pipeline: &str, registry: &Registry) -> Result<JoinMeters, prometheus::Error> {
        let all = Families { pipeline, registry };
        let meters = JoinMeters {
            decisions: all.counter(
                "docket_join_decisions_total",
                "Decisions that went on to the docket topic, by what joined them with their request; none is without.",
                &["match"],
            )?,
            amendments: all.counter(
                "docket_join_amendments_total",
                "Matches that came after their decision had gone on.",
                &["match"],
            )?,
            late: all.counter(
                "docket_join_late_total",
                "Records that came out of order by more than join.skew.",
                &["side"],
            )?,
            evicted: all.counter(
                "docket_join_evicted_total",
                "Records for which join.memory had no room within the window.",
                &["side"],
            )?,
            findings: all.counter(
                "docket_enforcement_findings_total",
                "What is wrong with enforcement: denied and yet served, served without a decision, failed open.",
                &["kind", "service"],
            )?,
            suppressed: all.plain_counter(
                "docket_enforcement_suppressed_total",
                "Findings beyond join.findings.per_minute, which are only counted.",
            )?,
            undecidable: all.counter(
                "docket_enforcement_undecidable_total",
                "Requests and decisions of which it can't be told whether there is a finding, by why.",
                &["reason"],
            )?,
            judged: all.plain_counter(
                "docket_enforcement_judged_total",
                "Requests and decisions that were looked at for findings, with those of which it can't be told.",
            )?,
            by_design: all.plain_counter(
                "docket_enforcement_dry_run_total",
                "Requests that were denied and served, as a dry run does.",
            )?,
            held: all.plain_counter(
                "docket_join_held_total",
                "How often decisions with a match waited for those before them.",
            )?,
            bytes: all.plain_gauge("docket_join_memory_bytes", "Memory of what is within the window.")?,
            entries: all.plain_gauge(
                "docket_join_entries",
                "Decisions and requests within the window.",
            )?,
            waiting: all.plain_gauge(
                "docket_join_waiting_bytes",
                "Bytes of decisions that wait for their request.",
            )?,
            complete: all.gauge_f64(
                "docket_join_complete_timestamp_seconds",
                "Up to when a side is known to be complete, less join.delay: findings are made up to there.",
                &["side"],
            )?,
            services: Mutex::default(),
        };
        meters.at_zero();
        Ok(meters)
    }

    /// What alerts ask of is there before it happens: `increase` sees nothing of a series that begins at 1.
    fn at_zero(&self) {
        use Class::{DecisionId, Likely, RequestId, TraceAndParent};
        for one in [None, Some(DecisionId), Some(TraceAndParent), Some(RequestId), Some(Likely)] {
            self.decisions.with_label_values(&[class(one)]);
        }
        for one in [Side::Decisions, Side::Facts] {
            self.late.with_label_values(&[side(one)]);
            self.evicted.with_label_values(&[side(one)]);
        }
        for kind in FindingKind::ALL {
            self.findings.with_label_values(&[kind.as_str(), "other"]);
        }
        for why in Undecidable::ALL {
            self.undecidable.with_label_values(&[why.as_str()]);
        }
    }

    /// Adds what was counted since.
    pub(super) fn count(&self, before: &Counts, now: &Counts) {
        fn each<K: Ord + Copy>(
            family: &IntCounterVec,
            name: impl Fn(K) -> &'static str,
            before: &BTreeMap<K, u64>,
            now: &BTreeMap<K, u64>,
        ) {
            for (key, count) in now {
                let more = count.saturating_sub(before.get(key).copied().unwrap_or(0));
                if more > 0 {
                    family.with_label_values(&[name(*key)]).inc_by(more);
                }
            }
        }
        each(&self.decisions, class, &before.matched, &now.matched);
        each(&self.amendments, |one| class(Some(one)), &before.amended, &now.amended);
        each(&self.late, side, &before.late, &now.late);
        each(&self.evicted, side, &before.evicted, &now.evicted);
        each(&self.undecidable, Undecidable::as_str, &before.undecidable, &now.undecidable);
        self.suppressed.inc_by(now.suppressed - before.suppressed);
        self.judged.inc_by(now.judged - before.judged);
        self.by_design.inc_by(now.by_design - before.by_design);
        self.held.inc_by(now.held - before.held);
    }

    pub(super) fn size(&self, bytes: usize, entries: usize, waiting: usize) {
        self.bytes.set(bytes as i64);
        self.entries.set(entries as i64);
        self.waiting.set(waiting as i64);
    }

    pub(super) fn found(&self, kind: FindingKind, service: &str) {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let known = services.contains(service)
            || (services.len() < MOST_SERVICES && services.insert(service.to_owned()));
        let service = if known { service } else { "other" };
        self.findings.with_label_values(&[kind.as_str(), service]).inc();
    }

    pub(super) fn complete(&self, of: Side, through: Nanos) {
        self.complete.with_label_values(&[side(of)]).set(through as f64 / 1e9);
    }
}
