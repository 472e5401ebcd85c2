//! Files that a pipeline file names: a change of what they hold is one of the pipeline.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ring::digest;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// What tells that a file is another, or holds something else, without reading it: device, inode, size, and when it was
/// changed last, in nanoseconds.
type Stamp = (u64, u64, u64, i64);

fn stamp(path: &Path) -> Option<Stamp> {
    let file = std::fs::metadata(path).ok()?;
    let changed = file.ctime().saturating_mul(1_000_000_000).saturating_add(file.ctime_nsec());
    Some((file.dev(), file.ino(), file.size(), changed))
}

/// The files that were read, as they were right before.
#[derive(Debug, Default)]
pub struct Looked {
    files: Vec<(PathBuf, Option<Stamp>)>,
    at: i64,
}

/// A file's clock is as coarse as the system's tick: one that changed so shortly before it was read may have changed after,
/// too.
const SETTLED: i64 = 1_000_000_000;

impl Looked {
    /// Whether there are any, and all are still as they were.
    pub fn unchanged(&self) -> bool {
        if self.files.is_empty() {
            return false;
        }
        let settled = |stamp: &Option<Stamp>| stamp.is_none_or(|s| s.3 < self.at - SETTLED);
        self.files.iter().all(|(path, was)| settled(was) && stamp(path) == *was)
    }
}

thread_local! {
    static LOOKED: RefCell<Option<Looked>> = const { RefCell::new(None) };
}

/// A file that settings come from is about to be read.
pub fn reads(path: &Path) {
    LOOKED.with_borrow_mut(|looked| {
        if let Some(looked) = looked {
            looked.files.push((path.to_owned(), stamp(path)));
        }
    });
}

/// Reads settings, and tells from which files.
pub fn looking<T>(read: impl FnOnce() -> T) -> (T, Looked) {
    LOOKED.set(Some(Looked { files: Vec::new(), at: crate::clock::now() }));
    let result = read();
    (result, LOOKED.take().unwrap_or_default())
}

/// A file's path, equal to another if what the file held when it was named is equal, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackedFile {
    path: PathBuf,
    /// Its SHA-256; who needs what is in it says why it can't be read.
    content: Option<Vec<u8>>,
}

impl Deref for TrackedFile {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl<'de> Deserialize<'de> for TrackedFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TrackedFile, D::Error> {
        let path = PathBuf::deserialize(deserializer)?;
        reads(&path);
        let content = std::fs::read(&path).ok().map(Zeroizing::new);
        let content =
            content.map(|bytes| digest::digest(&digest::SHA256, &bytes).as_ref().to_vec());
        Ok(TrackedFile { path, content })
    }
}

impl JsonSchema for TrackedFile {
    fn schema_name() -> Cow<'static, str> {
        "Path".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "description": "Path of a file. When its content changes, docket reloads it as it does the pipeline file." })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_any_file_that_was_read_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["a", "b", "missing"].map(|name| dir.path().join(name));
        let read = || {
            looking(|| {
                for path in &paths {
                    reads(path);
                    let _ = std::fs::read(path);
                }
            })
            .1
        };
        std::fs::write(&paths[0], "1").unwrap();
        std::fs::write(&paths[1], "1").unwrap();
        assert!(!read().unchanged(), "they were changed right before");
        let old = || Looked { at: i64::MAX, ..read() };
        for change in [
            &(|| std::fs::write(&paths[0], "2").unwrap()) as &dyn Fn(),
            &|| std::fs::write(&paths[2], "").unwrap(),
            &|| std::fs::remove_file(&paths[1]).unwrap(),
            // As an editor does it, or a mounted secret.
            &|| {
                std::fs::write(dir.path().join("new"), "2").unwrap();
                std::fs::rename(dir.path().join("new"), &paths[0]).unwrap();
            },
        ] {
            let looked = old();
            assert_eq!(looked.files.len(), 3);
            assert!(looked.unchanged());
            std::thread::sleep(std::time::Duration::from_millis(20));
            change();
            assert!(!looked.unchanged());
        }
        reads(&paths[0]);
    }
}
