//! What docket counts of itself.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use super::held::Held;
use crate::decision::formats::Ignored;
use crate::decision::reject::Reason;
use crate::decision::verdict::Verdict;
use crate::http::failure::Cause;

/// Places of detectors' finds that are told apart.
const MOST_PLACES: usize = 500;

/// The value of the label `cause` while a sink refuses everything.
pub const REFUSED: &str = "refused";

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
    pub reused: IntCounterVec,
    pub requests: IntCounterVec,
    pub sent_bytes: IntCounterVec,
    pub in_flight: IntGaugeVec,
    pub held: IntGaugeVec,
    pub share: IntGaugeVec,
    /// By sink: how many partitions it reads with others.
    pub shared: IntGaugeVec,
    pub latency: HistogramVec,
    pub offset: IntGaugeVec,
    pub lag: IntGaugeVec,
    pub oldest: GaugeVec,
    pub failing: IntGaugeVec,
    pub restarts: IntCounterVec,
    pub stalled: IntGaugeVec,
    pub gaps: IntCounterVec,
    pub lost: IntCounterVec,
    /// What a start at the end left out.
    pub skipped: IntCounterVec,
    /// What is left between a part's place and the log's start.
    headroom: IntGaugeVec,
    pub retention: IntGaugeVec,
    /// What retention takes next of rejects.
    aging: IntGaugeVec,
    expected: IntGaugeVec,
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
    pub fn gauge_f64(
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
    pub fn plain_counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.registered(IntCounter::with_opts(self.opts(name, help))?)
    }

    pub fn plain_gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.registered(IntGauge::with_opts(self.opts(name, help))?)
    }
}

impl Meters {
    /// Accounts for what a part holds.
    pub fn holding(&self, part: &str) -> Held {
        Held::new(self.held.with_label_values(&[part]))
    }

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
            ignored: all.counter("docket_intake_ignored_total", "What stood on a source topic and can't be a decision, by kind: lines of OPA's log (opa_log), other text or JSON, blank lines.", &["topic", "kind"])?,
            rejects: all.counter("docket_rejects_total", "Records sent to the rejects topic, by the part that refused them and why.", &["part", "reason"])?,
            malformed_ids: all.counter("docket_trace_ids_malformed_total", "Trace contexts in decisions that were malformed or all zero.", &["topic"])?,
            mismatches: all.counter("docket_trace_mismatches_total", "Decisions whose own trace id differs from the one that the caller sent.", &["topic"])?,
            unjudged: all.counter("docket_results_unjudged_total", "Results that no rule can judge; the verdict is undefined.", &["topic"])?,
            transactions: all.counter("docket_transactions_total", "Intake's Kafka transactions.", &["outcome"])?,
            rebalances: all.counter("docket_rebalances_total", "Changes of a part's partitions.", &["part", "kind"])?,
            delivered: all.counter(
                "docket_sink_records_total",
                "Decisions that are done with for a sink: delivered, refused for good, repeat (sent before), or too_old and sent elsewhere. Of amendments also missing (the sink has no such decision) and superseded (by a newer one).",
                &["sink", "outcome"],
            )?,
            reused: all.counter(
                "docket_decision_ids_reused_total",
                "Decisions delivered under the id of another that a sink got lately (repeat_window): ids are made up, or somebody hides one behind another.",
                &["sink"],
            )?,
            sent_bytes: all.counter("docket_sink_bytes_total", "Bytes of request bodies sent to a sink, as they are sent, repeats among them.", &["sink"])?,
            requests: all.counter(
                "docket_sink_requests_total",
                "Requests to a sink by outcome: ok, refused, partial, or the cause of a retry.",
                &["sink", "outcome"],
            )?,
            in_flight: all.gauge("docket_sink_in_flight_records", "Decisions sent to a sink and not answered yet.", &["sink"])?,
            held: all.gauge("docket_memory_held_bytes", "Bytes of records that a part holds: prefetched, in batches and transactions, on their way.", &["part"])?,
            share: all.gauge("docket_memory_share_bytes", "Bytes that a part may hold: its share of memory.budget.", &["part"])?,
            shared: all.gauge("docket_sink_shared_partitions", "Partitions of the docket topic that a sink reads with others of its process, fetched once for all of them.", &["sink"])?,
            latency: all.histogram(
                "docket_delivery_latency_seconds",
                "Time from a decision to its acknowledgement by a sink.",
                &["sink"],
                &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0],
            )?,
            offset: all.gauge("docket_offset", "The offset of a partition below which a part has finished everything.", &["part", "topic", "partition"])?,
            lag: all.gauge("docket_lag_records", "Offsets of a partition that a part has not finished: those of records, and of the markers with which transactions end.", &["part", "topic", "partition"])?,
            oldest: all.gauge_f64(
                "docket_oldest_undelivered_seconds",
                "Age of the oldest decision that a sink has taken from a partition and not delivered; 0 if there is none.",
                &["sink", "partition"],
            )?,
            failing: all.gauge("docket_sink_failing", "1 while a sink's requests fail, by cause.", &["sink", "cause"])?,
            stalled: all.gauge("docket_stalled_partitions", "Assigned partitions with records to do that make no progress.", &["part"])?,
            gaps: all.counter(
                "docket_log_gaps_total",
                "Ranges of a topic that are gone from Kafka and that a part had not finished, by why: retention, recreated, truncated, expired.",
                &["part", "topic", "cause"],
            )?,
            lost: all.counter(
                "docket_log_lost_offsets_total",
                "Offsets in those ranges, as far as it is known how many; transaction markers among them.",
                &["part", "topic", "cause"],
            )?,
            skipped: all.counter(
                "docket_start_skipped_offsets_total",
                "Offsets of a topic that were there and are not read, since a part whose group had committed nothing began at the end (start: latest).",
                &["part", "topic"],
            )?,
            headroom: all.gauge(
                "docket_log_headroom_records",
                "Records that retention can still delete of a partition before it deletes one that a part has not finished.",
                &["part", "topic", "partition"],
            )?,
            retention: all.gauge(
                "docket_topic_retention_seconds",
                "How long a topic keeps records (retention.ms), where docket may ask; -1 for ever.",
                &["topic"],
            )?,
            aging: all.gauge(
                "docket_rejects_aging_records",
                "Rejects that were not sent again and are older than three quarters of their topic's retention.",
                &["topic"],
            )?,
            expected: all.gauge("docket_part_expected", "1 for each part that the pipeline file has, in every process, whichever runs it.", &["part"])?,
            restarts: all.counter("docket_part_restarts_total", "Restarts of a part after an error.", &["part"])?,
        })
    }

    /// What alerts ask of a part is there at 0 before it happens: `increase` sees nothing of a series that begins at 1.
    pub fn part(&self, part: &str) {
        self.restarts.with_label_values(&[part]);
        let joins = matches!(part, "facts" | "join");
        for reason in Reason::ALL.into_iter().filter(|r| joins || *r != Reason::BadFact) {
            self.rejects.with_label_values(&[part, reason.as_str()]);
        }
    }

    /// The same of what it reads.
    pub fn reads(&self, part: &str, topic: &str) {
        for cause in crate::resume::Cause::ALL {
            self.gaps.with_label_values(&[part, topic, cause.as_str()]);
            self.lost.with_label_values(&[part, topic, cause.as_str()]);
        }
    }

    /// The same of intake, by its sources.
    pub fn intake<'n>(&self, topics: impl Iterator<Item = &'n str>) {
        for topic in topics {
            let of_topic = [
                &self.records,
                &self.bytes,
                &self.dropped,
                &self.malformed_ids,
                &self.mismatches,
                &self.unjudged,
            ];
            of_topic.into_iter().for_each(|family| drop(family.with_label_values(&[topic])));
            for kind in Ignored::ALL {
                self.ignored.with_label_values(&[topic, kind.as_str()]);
            }
        }
        for verdict in Verdict::ALL {
            self.decisions.with_label_values(&[verdict.as_str()]);
        }
        for outcome in ["committed", "aborted"] {
            self.transactions.with_label_values(&[outcome]);
        }
    }

    /// The same of a sink. What it failed for before it was started, or stopped, is over.
    pub fn sink(&self, sink: &str) {
        self.failing.with_label_values(&[sink, REFUSED]).set(0);
        self.served(sink);
        for outcome in ["delivered", "refused", "repeat", "too_old"] {
            self.delivered.with_label_values(&[sink, outcome]);
        }
        for outcome in ["ok", "refused", "partial"] {
            self.requests.with_label_values(&[sink, outcome]);
        }
        for cause in Cause::ALL {
            self.requests.with_label_values(&[sink, cause.as_str()]);
        }
    }

    /// The same of a part that amends what a sink holds.
    pub fn amending(&self, part: &str) {
        for outcome in ["missing", "superseded"] {
            self.delivered.with_label_values(&[part, outcome]);
        }
    }

    /// The sink can be served: none of the causes holds for which it could not.
    pub fn served(&self, sink: &str) {
        for cause in Cause::ALL {
            self.failing.with_label_values(&[sink, cause.as_str()]).set(0);
        }
    }

    /// The pipeline has these parts, whichever process runs them.
    pub fn expect<'n>(&self, parts: impl Iterator<Item = &'n str>) {
        self.expected.reset();
        parts.for_each(|part| self.expected.with_label_values(&[part]).set(1));
    }

    /// What is left between a part's place and the log's start, of part, topic and partition: nothing while that is not known, so that no old value
    /// stands for a new one.
    pub fn headroom(&self, labels: &[&str; 3], records: Option<i64>) {
        match records {
            Some(records) => self.headroom.with_label_values(labels).set(records),
            None => drop(self.headroom.remove_label_values(labels)),
        }
    }

    /// How many rejects age in a topic: nothing while that is not known.
    pub fn aging(&self, topic: &str, count: Option<u64>) {
        match count {
            Some(count) => {
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                self.aging.with_label_values(&[topic]).set(count);
            }
            None => drop(self.aging.remove_label_values(&[topic])),
        }
    }

    /// The part has this partition no more: what it said of it is another's to say.
    pub fn gave_up(&self, part: &str, topic: &str, partition: i32) {
        let id = partition.to_string();
        for family in [&self.offset, &self.lag, &self.headroom] {
            let _ = family.remove_label_values(&[part, topic, &id]);
        }
        let _ = self.oldest.remove_label_values(&[part, &id]);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_any_more_is_not_told() {
        let registry = Registry::new();
        let meters = Meters::new("p", &registry).unwrap();
        let told = || {
            let families = registry.gather();
            let family =
                families.into_iter().find(|f| f.name() == "docket_log_headroom_records")?;
            family.get_metric().first().map(|m| m.get_gauge().get_value())
        };
        let labels = ["loki", "docket.p", "0"];
        meters.headroom(&labels, None);
        assert_eq!(told(), None);
        meters.headroom(&labels, Some(7));
        assert_eq!(told(), Some(7.0));
        meters.headroom(&labels, None);
        assert_eq!(told(), None, "Kafka does not answer");
    }
}
