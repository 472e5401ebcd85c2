//! Settings that every sink has: how batches are made and sent.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::forms::RedactPath;
use crate::config::units::{Bytes, Span};
use crate::log::config::Start;

/// How batches for a sink are formed and sent.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Delivery {
    /// Where to start in the docket topic when the sink has no committed offsets. Default: earliest.
    pub start: Start,
    /// Number of records at which a batch is sent. Default: 2000.
    #[schemars(range(min = 1, max = 100000))]
    pub batch_records: usize,
    /// Size of docket records, before encoding, at which a batch is sent. Default: 2MiB.
    pub batch_bytes: Bytes,
    /// Time after its first record at which a batch is sent. Default: 500ms.
    pub batch_age: Span,
    /// Maximum number of batches in flight. Default: 4, but 1 for Loki itself: if it crashes, it may lose lines that several concurrent requests wrote to the same stream.
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: Option<usize>,
    /// Timeout of a request, after which it is retried. Default: 30s.
    pub timeout: Span,
    /// Initial backoff before a retry; it doubles with each further attempt. Default: 200ms.
    pub retry_initial: Span,
    /// Maximum backoff between retries. Default: 30s.
    pub retry_max: Span,
    /// Maximum amount of data fetched from Kafka ahead of batching. Default: 8MiB.
    pub prefetch: Bytes,
    /// Number of recent decision IDs remembered per partition, so that a decision that is in the docket topic twice is sent once; 0 disables this. Default: 10000, or fewer if memory.budget is tight, but 0 for Elasticsearch, which discards repeats itself.
    #[schemars(range(max = 10000000))]
    pub repeat_window: Option<usize>,
    /// What stands for `repeat_window` where it is not set: less where the memory budget has no room.
    #[serde(skip)]
    pub remembered: usize,
    /// Maximum age of decisions sent to this sink; older ones go where too_old says. Default: 7d for Loki and VictoriaLogs and 14d for CloudWatch, which are their own limits; unlimited for other sinks.
    pub max_age: Option<Span>,
    /// Where decisions older than max_age go: rejects, or the name of another sink. Default: rejects.
    #[serde(default = "rejects")]
    pub too_old: String,
    /// Deliver to this sink only what other sinks pass on to it by too_old. Default: false.
    pub only_routed: bool,
    /// Parts of decisions to withhold from this sink, in addition to what protect removes for all sinks: JSON pointers, in which * matches one segment and ** any number, such as /input or /docket/subject.
    pub redact: Vec<RedactPath>,
}

/// So many decisions of a partition are remembered unless `repeat_window` says otherwise, and memory is tight.
pub const REMEMBERED: usize = 10_000;

fn rejects() -> String {
    "rejects".into()
}

impl Default for Delivery {
    fn default() -> Delivery {
        Delivery {
            start: Start::Earliest,
            batch_records: 2000,
            batch_bytes: Bytes(2 << 20),
            batch_age: Span(Duration::from_millis(500)),
            concurrency: None,
            timeout: Span(Duration::from_secs(30)),
            retry_initial: Span(Duration::from_millis(200)),
            retry_max: Span(Duration::from_secs(30)),
            prefetch: Bytes(8 << 20),
            repeat_window: None,
            remembered: REMEMBERED,
            max_age: None,
            too_old: rejects(),
            only_routed: false,
            redact: Vec::new(),
        }
    }
}

impl Delivery {
    pub fn check(&self, problem: &mut dyn FnMut(&str, String)) {
        for (key, is_nothing) in [
            ("batch_bytes", self.batch_bytes.0 == 0),
            ("prefetch", self.prefetch.0 == 0),
            ("timeout", self.timeout.0.is_zero()),
            ("retry_initial", self.retry_initial.0.is_zero()),
            ("retry_max", self.retry_max.0.is_zero()),
        ] {
            if is_nothing {
                problem(key, "it must be greater than zero".into());
            }
        }
    }
}
