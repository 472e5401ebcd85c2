//! Rotation: a file that is full, or of a time that is over, is put aside under its name and the time, and a new one is begun.

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::units::{Bytes, Span};
use crate::decision::time::{self, Nanos, nanos};

/// When a file is put aside, as its path with the time appended: decisions.ndjson.20261128T121500.000000000Z. Never by default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// Size that a file is not to exceed, such as 1GiB. One batch that is larger has a file of its own.
    #[serde(default)]
    pub size: Option<Bytes>,
    /// Time that a file covers, such as 1h or 1d, counted from midnight UTC.
    #[serde(default)]
    pub every: Option<Span>,
    /// Number of files that are kept besides the one that is written to; older ones are deleted. Default: all.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub keep: Option<u32>,
}

impl Rotate {
    /// What is wrong with it, if something is.
    pub fn check(&self) -> Option<&'static str> {
        match self {
            Rotate { size: None, every: None, .. } => Some("size or every is needed"),
            Rotate { size: Some(Bytes(0)), .. } => Some("size must be more than 0"),
            Rotate { every: Some(every), .. } if every.0.as_secs() == 0 => {
                Some("every must be a second or more")
            }
            _ => None,
        }
    }

    /// Whether a file is put aside before so many bytes are added now.
    pub fn is_due(&self, file: &std::fs::Metadata, more: usize, now: Nanos) -> bool {
        if file.len() == 0 {
            return false;
        }
        let full = |size: &Bytes| file.len().saturating_add(more as u64) > size.0 as u64;
        let over = |every: &Span| {
            let every = nanos(every.0).max(1);
            let written = file.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            // By a clock that was set back nothing is over.
            written.is_some_and(|at| nanos(at) / every < now / every)
        };
        self.size.as_ref().is_some_and(full) || self.every.as_ref().is_some_and(over)
    }
}

/// The folder that a file is in.
pub fn folder(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// Puts a file aside that nobody else writes to.
pub fn put_aside(path: &Path, now: Nanos) -> std::io::Result<()> {
    for later in 0..1000 {
        let aside = named(path, now + later);
        if !aside.try_exists()? {
            return std::fs::rename(path, aside);
        }
    }
    Err(Error::new(ErrorKind::AlreadyExists, "no name is free to put it aside under"))
}

/// Deletes the oldest that are more than are kept.
pub fn prune(path: &Path, keep: u32) -> std::io::Result<()> {
    let all = aside(path)?;
    for old in &all[..all.len().saturating_sub(keep as usize)] {
        match std::fs::remove_file(old) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// What was put aside of a file, the oldest first.
pub fn aside(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder(path))? {
        let other = entry?.path();
        let other_name = other.file_name().unwrap_or_default().to_string_lossy();
        let rest = other_name.strip_prefix(&*name).and_then(|rest| rest.strip_prefix('.'));
        if rest.is_some_and(is_time) {
            all.push(other);
        }
    }
    all.sort();
    Ok(all)
}

fn named(path: &Path, at: Nanos) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    // Without colons, which not every file system takes.
    name.push(time::format(at).replace([':', '-'], ""));
    path.with_file_name(name)
}

/// Whether it is a time as in `named`.
fn is_time(text: &str) -> bool {
    let like = b"00000000T000000.000000000Z";
    text.len() == like.len()
        && text.bytes().zip(like).all(|(a, b)| match b {
            b'0' => a.is_ascii_digit(),
            _ => a == *b,
        })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_put_aside_is_found_in_its_order_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.ndjson");
        let at = time::parse("2026-11-28T12:15:00Z").unwrap();
        for (text, at) in [("2", at + 1_000_000_000), ("1", at), ("3", at + 1_000_000_000)] {
            std::fs::write(&path, text).unwrap();
            put_aside(&path, at).unwrap();
        }
        for other in
            ["d.ndjson", "d.ndjson.1", "d.ndjson.gz", "e.ndjson.20261128T121500.000000000Z"]
        {
            std::fs::write(folder.path().join(other), "x").unwrap();
        }
        let texts = || -> Vec<String> {
            aside(&path).unwrap().iter().map(|one| std::fs::read_to_string(one).unwrap()).collect()
        };
        assert!(folder.path().join("d.ndjson.20261128T121500.000000000Z").exists());
        assert_eq!(texts(), ["1", "2", "3"]);
        prune(&path, 2).unwrap();
        assert_eq!(texts(), ["2", "3"]);
        assert!(folder.path().join("e.ndjson.20261128T121500.000000000Z").exists());
    }

    #[test]
    fn a_file_is_full_or_of_a_time_that_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.ndjson");
        let rotate = |size: Option<usize>, every: Option<u64>| Rotate {
            size: size.map(Bytes),
            every: every.map(|s| Span(Duration::from_secs(s))),
            keep: None,
        };
        let due = |rotate: &Rotate, more, now| {
            rotate.is_due(&std::fs::metadata(&path).unwrap(), more, now)
        };
        std::fs::write(&path, "").unwrap();
        let now = crate::clock::now();
        let day = 86_400_000_000_000;
        assert!(!due(&rotate(Some(10), Some(60)), 100, now + day), "nothing stands in it");
        std::fs::write(&path, "123456").unwrap();
        assert!(!due(&rotate(Some(10), None), 4, now + day));
        assert!(due(&rotate(Some(10), None), 5, now));
        assert!(due(&rotate(None, Some(86_400)), 5, now + day));
        assert!(!due(&rotate(None, Some(86_400)), 5, now - day), "a clock that was set back");
        assert!(rotate(None, None).check().is_some() && rotate(Some(1), None).check().is_none());
    }
}
