//! The pipeline file of the simulation, and what it is changed to while processes run.

use std::path::Path;
use std::sync::Arc;

use docket::pipeline::{self, Pipeline};

pub const PIPELINE: &str = "
name: sim
kafka: {brokers: nowhere}
sources: [{topic: source}]
intake: {transaction_interval: 100ms, transaction_bytes: 8KiB}
limits: {decision_bytes: 16KiB, record_bytes: 64KiB, record_elements: 50}
docket: {topic: docket, rejects: rejects}
sinks:
  whole: {type: file, path: x, delivery: {batch_records: 12, batch_age: 50ms, concurrency: 3, repeat_window: 0, retry_max: 2s}}
  items: {type: file, path: y, delivery: {batch_records: 25, batch_age: 200ms, concurrency: 4, repeat_window: 0, retry_max: 5s}}
  once: {type: file, path: z, delivery: {batch_records: 7, batch_age: 20ms, concurrency: 1, repeat_window: 500, retry_max: 1s, max_age: 7d, too_old: late}}
  late: {type: file, path: o, delivery: {only_routed: true, retry_max: 2s}}
";

/// What a file is changed to: from this to that.
const CHANGES: [&[(&str, &str)]; 4] = [
    &[
        ("batch_records: 12", "batch_records: 3"),
        ("transaction_bytes: 8KiB", "transaction_bytes: 2KiB"),
    ],
    &[("concurrency: 4", "concurrency: 1"), ("repeat_window: 500", "repeat_window: 50")],
    &[
        ("transaction_interval: 100ms", "transaction_interval: 700ms"),
        ("batch_age: 20ms", "batch_age: 2s"),
    ],
    &[("  items: {type: file, path: y, ", "  #")],
];

fn parsed(text: &str) -> Arc<Pipeline> {
    let parsed = pipeline::parse(Path::new("simulated.yaml"), text, &docket::config::secrets::Real);
    Arc::new(parsed.map_err(|e| e.to_string()).unwrap())
}

pub fn usual() -> Arc<Pipeline> {
    parsed(PIPELINE)
}

/// The usual one, and what it may be changed to; with sizes that leave little room.
pub fn all(little: bool) -> Vec<Arc<Pipeline>> {
    let mut text = PIPELINE.to_owned();
    if little {
        text = text.replace("delivery: {", "delivery: {batch_bytes: 4KiB, prefetch: 1KiB, ");
        text = text.replace("transaction_bytes: 8KiB", "transaction_bytes: 8KiB, prefetch: 1KiB");
    }
    let changed = |change: &&[(&str, &str)]| {
        parsed(&change.iter().fold(text.clone(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        }))
    };
    std::iter::once(parsed(&text)).chain(CHANGES.iter().map(changed)).collect()
}
