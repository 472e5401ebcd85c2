//! Docket records on their way to a sink.

use std::sync::Arc;

use crate::decision::record::{NotARecord, Record};
use crate::log::Value;
use crate::log::offsets::Segment;
use crate::log::value::{Identity, identity};

/// Docket records on their way to a sink.
#[derive(Default)]
pub struct Batch {
    pub(super) records: Vec<Item>,
    /// Bytes of these.
    bytes: usize,
    pub(super) segments: Vec<Segment>,
    /// By segment: the time of its oldest decision.
    pub(super) oldest: Vec<i64>,
    /// How many records it is expected to hold.
    expected: usize,
}

#[derive(Clone)]
pub struct Item {
    value: Arc<Value>,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) epoch: u64,
    /// When it was decided; 0 until the record was read.
    pub(super) timestamp: i64,
}

impl Item {
    pub(super) fn bytes(&self) -> &[u8] {
        self.value.bytes()
    }

    /// The record, and which it is, given what is left of it for the sink, if that is less.
    pub(super) fn record<'a>(
        &'a self,
        less: Option<&'a [u8]>,
    ) -> Result<(Record<'a>, Identity), NotARecord> {
        match less {
            None => self.value.record(),
            Some(less) => Record::parse(less).map(|record| {
                let identity = identity(&record);
                (record, identity)
            }),
        }
    }
}

impl Batch {
    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of docket records.
    pub fn size(&self) -> usize {
        self.bytes
    }

    /// What it takes. What other sinks have, too, counts all the same: they may be done with it before.
    pub(super) fn held(&self) -> usize {
        self.bytes + self.records.capacity() * (size_of::<Item>() + size_of::<Value>())
    }

    pub fn push(&mut self, value: Arc<Value>, partition: i32, offset: i64, epoch: u64) {
        if self.records.is_empty() {
            self.records.reserve(self.expected);
        }
        self.bytes += value.bytes().len();
        self.records.push(Item { value, partition, offset, epoch, timestamp: 0 });
        match self.segments.iter_mut().find(|s| s.partition == partition && s.epoch == epoch) {
            Some(segment) => segment.last = offset,
            None => {
                self.segments.push(Segment { partition, epoch, first: offset, last: offset });
                self.oldest.push(i64::MAX);
            }
        }
    }

    /// An empty batch that makes room for as many as this one holds once it gets something.
    pub(super) fn another(&self) -> Batch {
        Batch { expected: self.records.len(), ..Batch::default() }
    }

    /// Forgets all records but these, whose numbers change.
    pub(super) fn keep<'k>(&mut self, kept: impl Iterator<Item = &'k mut Vec<usize>>) {
        let mut records = Vec::new();
        for i in kept.flatten() {
            records.push(self.records[*i].clone());
            *i = records.len() - 1;
        }
        self.bytes = records.iter().map(|item| item.bytes().len()).sum();
        self.records = records;
    }

    pub(super) fn saw(&mut self, partition: i32, timestamp: i64) {
        if let Some(at) = self.segments.iter().rposition(|s| s.partition == partition) {
            self.oldest[at] = self.oldest[at].min(timestamp);
        }
    }
}
