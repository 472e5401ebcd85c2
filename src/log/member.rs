//! What a member of a consumer group is to others.

use std::collections::HashMap;
use std::sync::Arc;

use rdkafka::consumer::ConsumerGroupMetadata;

use super::Commits;

/// What a stage does when partitions come and go. Called on the thread that polls.
pub trait Assignments: Send + Sync + 'static {
    fn assigned(&self, partitions: &[(String, i32)]);
    /// Before the partitions are given up. Offsets can still be committed for them, unless they are `lost` already.
    fn revoked(&self, commits: &dyn Commits, partitions: &[(String, i32)], lost: bool);
    /// Offsets that were on their way to Kafka are not committed.
    fn not_committed(&self, _partitions: &[(String, i32)]) {}
}

/// What proves membership, and the ids of the topics that it read.
pub struct Membership {
    pub group: Arc<ConsumerGroupMetadata>,
    pub ids: HashMap<String, String>,
}
