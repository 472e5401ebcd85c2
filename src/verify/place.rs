//! Places of the source, and the decisions that stand there, as they wait to be compared.

use super::spill::{Reading, write_text};
use crate::pipeline::file::File;
use crate::sink::query::hash;

/// Where a source record stands: its topic (by number), partition, offset.
pub type Spot = (usize, i32, i64);

/// Which of the pipeline's sources a topic is.
pub fn number(file: &File, topic: &str) -> Option<usize> {
    file.sources.iter().position(|source| source.topic == topic)
}

/// As it waits to be compared.
pub fn write_spot(out: &mut Vec<u8>, (topic, partition, offset): Spot) {
    out.extend_from_slice(&(topic as u32).to_le_bytes());
    out.extend_from_slice(&partition.to_le_bytes());
    out.extend_from_slice(&offset.to_le_bytes());
}

pub fn read_spot(reading: &mut Reading<'_>) -> Spot {
    let topic = u32::from_le_bytes(reading.bytes()) as usize;
    let partition = i32::from_le_bytes(reading.bytes());
    (topic, partition, i64::from_le_bytes(reading.bytes()))
}

pub fn id_hash(id: &str) -> u64 {
    hash(id.as_bytes()) as u64
}

/// What a decision is to its record: which element has which id.
pub fn mark(element: usize, id: u64) -> u64 {
    (id ^ (element as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xff51_afd7_ed55_8ccd)
}

/// A decision that a source record should have become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided<'e> {
    pub spot: Spot,
    pub element: usize,
    pub id: &'e str,
    pub original: u64,
    /// The sum of `mark` over all that its record should have become.
    pub record: u64,
    /// It is there only together with records before it: parts of lines, which intake may have waited for in vain.
    pub joined: bool,
}

impl<'e> Decided<'e> {
    pub fn write(&self, out: &mut Vec<u8>) {
        write_text(out, self.id);
        out.extend_from_slice(&self.original.to_le_bytes());
        out.extend_from_slice(&self.record.to_le_bytes());
        write_spot(out, self.spot);
        out.extend_from_slice(&(self.element as u32).to_le_bytes());
        out.push(u8::from(self.joined));
    }

    pub fn read(reading: &mut Reading<'e>) -> Decided<'e> {
        let id = reading.text();
        let original = u64::from_le_bytes(reading.bytes());
        let record = u64::from_le_bytes(reading.bytes());
        let spot = read_spot(reading);
        let element = u32::from_le_bytes(reading.bytes()) as usize;
        let [joined] = reading.bytes();
        Decided { spot, element, id, original, record, joined: joined == 1 }
    }

    pub fn mark(&self) -> u64 {
        mark(self.element, id_hash(self.id))
    }
}
