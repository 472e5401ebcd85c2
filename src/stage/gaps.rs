//! What is gone from a log that a part has not finished: counted, logged, and told by a letter in the rejects topic and a finding.

use serde_json::json;

use super::events;
use crate::decision::reject::{Reason, Reject};
use crate::log::Gap;
use crate::log::dead_letter::{DeadLetter, dead_letter};
use crate::log::headers::{self, Origin};
use crate::spike::{Finding, Kind};
use crate::telemetry::Meters;

/// The letter that names what is gone.
pub fn letter(stage: &str, sink: Option<&str>, gap: &Gap, received: &str) -> DeadLetter {
    let value = json!({
        "type": "docket.log_gap",
        "topic": gap.topic,
        "partition": gap.partition,
        "from": gap.gap.from,
        "to": gap.gap.to,
        "cause": gap.gap.cause.as_str(),
        "goes_on_at": gap.at,
    });
    let origin =
        Origin { topic: &gap.topic, partition: gap.partition, offset: gap.gap.from, element: 0 };
    let reject = Reject::new(Reason::LogGap, gap.sentence());
    let value = value.to_string();
    let mut letter = dead_letter(stage, value.as_bytes(), &reject, &origin, received, None);
    if let Some(sink) = sink {
        letter.headers = headers::add(letter.headers, headers::SINK, sink);
    }
    letter
}

/// The finding that goes with it. The same for the same gap of the same part.
pub fn finding(part: &str, gap: &Gap, now: i64) -> Finding {
    let named = format!("{part}\0{}\0{}\0{:?}", gap.topic, gap.partition, gap.gap);
    Finding {
        observed: gap.gap.offsets().unwrap_or_default(),
        detail: format!("{part}: {}", gap.sentence()),
        ..events::finding(Kind::LogGap, "", &named, now)
    }
}

/// Once it is told.
pub fn count(meters: &Meters, part: &str, gap: &Gap) {
    let labels = [part, &gap.topic, gap.gap.cause.as_str()];
    meters.gaps.with_label_values(&labels).inc();
    meters.lost.with_label_values(&labels).inc_by(gap.gap.offsets().unwrap_or_default());
    meters.rejects.with_label_values(&[part, Reason::LogGap.as_str()]).inc();
    tracing::error!(
        part,
        topic = gap.topic,
        partition = gap.partition,
        cause = gap.gap.cause.as_str(),
        from = gap.gap.from,
        to = gap.gap.to,
        goes_on_at = gap.at,
        "log_gap: {}",
        gap.sentence()
    );
}
