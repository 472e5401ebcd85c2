//! Entries in portions that fit into memory: by the hash of a key, in memory while they are few, then in a file that has no name.
//! Entries of one key are in one portion, whoever adds them.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicU32, Ordering};

/// So much is held before anything is written.
const HELD: usize = 8 << 20;
/// What is written at once.
const BLOCK: usize = 32 << 10;
/// Entries of the docket in a portion.
const PORTION: u64 = 100_000;
const PORTIONS: u64 = 256;

/// Which portion a key is in. Nobody who chooses keys can know.
#[derive(Clone)]
pub struct Portions {
    hasher: RandomState,
    count: usize,
}

impl Portions {
    /// For about so many entries.
    pub fn of(entries: u64) -> Portions {
        let count = entries.div_ceil(PORTION).clamp(1, PORTIONS);
        Portions { hasher: RandomState::new(), count: count as usize }
    }

    pub fn count(&self) -> usize {
        self.count
    }
}

pub struct Spill {
    portions: Portions,
    parts: Vec<Part>,
    held: usize,
    file: Option<File>,
    written: u64,
}

#[derive(Default, Clone)]
struct Part {
    held: Vec<u8>,
    /// Where the rest stands in the file: offset and length.
    blocks: Vec<(u64, usize)>,
}

impl Spill {
    pub fn new(portions: &Portions) -> Spill {
        Spill {
            portions: portions.clone(),
            parts: vec![Part::default(); portions.count],
            held: 0,
            file: None,
            written: 0,
        }
    }

    /// Adds an entry, which `write` appends.
    pub fn add(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let at = self.portions.hasher.hash_one(key) % self.portions.count as u64;
        let part = &mut self.parts[at as usize];
        let before = part.held.len();
        write(&mut part.held);
        self.held += part.held.len() - before;
        if self.held < HELD || part.held.len() < BLOCK {
            return Ok(());
        }
        let file: &File = match &self.file {
            Some(file) => file,
            None => self.file.insert(nameless()?),
        };
        file.write_all_at(&part.held, self.written)?;
        part.blocks.push((self.written, part.held.len()));
        self.written += part.held.len() as u64;
        self.held -= part.held.len();
        part.held.clear();
        Ok(())
    }

    /// The entries of a portion, in the order in which they were added.
    pub fn portion(&self, at: usize) -> io::Result<Vec<u8>> {
        let Some(part) = self.parts.get(at) else { return Ok(Vec::new()) };
        let blocks: usize = part.blocks.iter().map(|(_, len)| len).sum();
        let mut all = vec![0; blocks];
        let mut rest = all.as_mut_slice();
        for (offset, len) in &part.blocks {
            let (block, after) = rest.split_at_mut(*len);
            if let Some(file) = &self.file {
                file.read_exact_at(block, *offset)?;
            }
            rest = after;
        }
        all.extend_from_slice(&part.held);
        Ok(all)
    }
}

/// A file in the folder for temporary ones (`TMPDIR`) that is gone with its last handle.
fn nameless() -> io::Result<File> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("docket-verify-{}-{number}-{:x}", std::process::id(), rand::random::<u64>());
    let path = std::env::temp_dir().join(name);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Reads what `write_*` wrote, from the front.
pub struct Reading<'e>(pub &'e [u8]);

impl<'e> Reading<'e> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => {
                self.0 = &[];
                [0; N]
            }
        }
    }

    pub fn text(&mut self) -> &'e str {
        let len = (u32::from_le_bytes(self.bytes()) as usize).min(self.0.len());
        let (text, rest) = self.0.split_at(len);
        self.0 = rest;
        std::str::from_utf8(text).unwrap_or_default()
    }
}

pub fn write_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_found_in_its_portion_whether_it_was_written_or_not() {
        for (entries, padding) in [(1000, 10), (60_000, 500)] {
            let portions = Portions::of(700_000);
            assert_eq!(portions.count(), 7);
            let (mut spill, mut beside) = (Spill::new(&portions), Spill::new(&portions));
            let pad = "p".repeat(padding);
            for i in 0..entries {
                let key = format!("k{i}");
                spill
                    .add(&key, |out| {
                        write_text(out, &key);
                        write_text(out, &pad);
                    })
                    .unwrap();
                beside.add(&key, |out| write_text(out, &key)).unwrap();
            }
            assert_eq!(spill.file.is_some(), entries * padding > HELD);
            assert!(spill.held < HELD + 7 * BLOCK, "{}", spill.held);
            let mut seen = 0;
            for at in 0..portions.count() {
                let (all, other) = (spill.portion(at).unwrap(), beside.portion(at).unwrap());
                let (mut reading, mut other) = (Reading(&all), Reading(&other));
                while !reading.is_empty() {
                    assert_eq!(reading.text(), other.text());
                    assert_eq!(reading.text(), pad);
                    seen += 1;
                }
                assert!(other.is_empty());
            }
            assert_eq!(seen, entries);
        }
    }
}
