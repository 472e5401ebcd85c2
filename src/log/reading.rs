//! How a member of a consumer group reads.

use std::sync::Arc;

use super::config::{Kafka, Start};
use super::shared::Shared;
use crate::decision::time::Nanos;

/// How a group member reads.
pub struct Reading<'a> {
    pub kafka: &'a Kafka,
    pub part: &'a str,
    pub group: &'a str,
    pub topics: &'a [&'a str],
    pub start: Start,
    /// A topic that only this group's readers write.
    pub writes: Option<&'a str>,
    /// What is gone from the log ends the part, instead of being told and passed over.
    pub stops_at_gaps: bool,
    pub instance_id: Option<&'a str>,
    pub prefetch: usize,
    /// Whether partitions of the same number, of all topics, come to the same member. Such topics are read together or not at
    /// all.
    pub together: bool,
    /// Where the same topic is read for several parts of the process.
    pub shared: Option<&'a Arc<Shared>>,
    /// When what stands in a record happened, if it says so.
    pub time: fn(&[u8]) -> Option<Nanos>,
}
