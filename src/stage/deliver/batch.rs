//! Docket records on their way to a sink, in one buffer.

use crate::log::offsets::Segment;

/// Docket records on their way to a sink.
#[derive(Default)]
pub struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) records: Vec<Item>,
    pub(super) segments: Vec<Segment>,
    /// By segment: the time of its oldest decision.
    pub(super) oldest: Vec<i64>,
    /// How many bytes and records it is expected to hold.
    expected: (usize, usize),
}

#[derive(Clone, Copy)]
pub struct Item {
    start: usize,
    end: usize,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) epoch: u64,
    /// When it was decided; 0 until the record was read.
    pub(super) timestamp: i64,
}

impl Batch {
    pub(super) fn value(&self, item: &Item) -> &[u8] {
        &self.bytes[item.start..item.end]
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of docket records.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    pub fn push(&mut self, value: &[u8], partition: i32, offset: i64, epoch: u64) {
        if self.records.is_empty() {
            self.bytes.reserve(self.expected.0);
            self.records.reserve(self.expected.1);
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(value);
        let end = self.bytes.len();
        self.records.push(Item { start, end, partition, offset, epoch, timestamp: 0 });
        match self.segments.iter_mut().find(|s| s.partition == partition && s.epoch == epoch) {
            Some(segment) => segment.last = offset,
            None => {
                self.segments.push(Segment { partition, epoch, first: offset, last: offset });
                self.oldest.push(i64::MAX);
            }
        }
    }

    /// An empty batch that makes room for as much as this one holds once it gets something.
    pub(super) fn another(&self) -> Batch {
        Batch { expected: (self.bytes.len(), self.records.len()), ..Batch::default() }
    }

    /// Forgets all records but these, whose numbers change.
    pub(super) fn keep<'k>(&mut self, kept: impl Iterator<Item = &'k mut Vec<usize>>) {
        let (mut bytes, mut records) = (Vec::new(), Vec::new());
        for i in kept.flatten() {
            let item = self.records[*i];
            let start = bytes.len();
            bytes.extend_from_slice(self.value(&item));
            *i = records.len();
            records.push(Item { start, end: bytes.len(), ..item });
        }
        (self.bytes, self.records) = (bytes, records);
    }

    pub(super) fn saw(&mut self, partition: i32, timestamp: i64) {
        if let Some(at) = self.segments.iter().rposition(|s| s.partition == partition) {
            self.oldest[at] = self.oldest[at].min(timestamp);
        }
    }
}
