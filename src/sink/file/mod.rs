//! A file or standard output: one docket record a line. A file is flushed to disk before a batch counts
//! as delivered; after a crash the last batches may stand in it twice.
//!
//! A file that was moved away or deleted, as logrotate does, is noticed before the next batch, which begins a new one. Processes that
//! write to one file do so one after the other: a batch is written under a lock (flock). What others wrote stays. `rotate` puts aside
//! what is full or over.

pub mod rotate;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use rotate::Rotate;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;

use super::delivery::Delivery;
use super::query::{Answer, Asked, Hash, QueryError, Question, SinkQuery, hash, note};
use super::{Outcome, Sink};
use crate::decision::json::one_line;
use crate::decision::record::Record;
use crate::http::failure::{Cause, Failure};

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FileSink")]
pub struct FileConfig {
    /// Path of the file to append to; - is standard output. The file may be moved away (logrotate): docket then begins a new one.
    #[schemars(length(min = 1))]
    pub path: PathBuf,
    /// When the file is put aside and a new one begun. Never by default.
    #[serde(default)]
    pub rotate: Option<Rotate>,
    /// How batches are formed and sent.
    #[serde(default)]
    pub delivery: Delivery,
}

impl FileConfig {
    /// What the schema can't say.
    pub fn check(&self, problem: &mut dyn FnMut(&[&str], String)) {
        let Some(rotate) = &self.rotate else { return };
        if self.path.as_os_str() == "-" {
            problem(&["rotate"], "standard output can't be put aside".into());
        } else if let Some(wrong) = rotate.check() {
            problem(&["rotate"], wrong.into());
        }
    }

    /// The file, whichever way its path is written; nothing for standard output.
    pub fn file(&self) -> Option<PathBuf> {
        (self.path.as_os_str() != "-").then(|| whole(&self.path))
    }
}

/// The same file has the same path, as far as can be told without looking.
fn whole(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    match (folder, path.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => path,
    }
}

pub struct File {
    path: PathBuf,
    rotate: Option<Rotate>,
    writer: Arc<Writer>,
}

/// Who writes to a file, in this process: one, whichever sinks write to it.
type Writer = Mutex<Option<Open>>;

static WRITERS: std::sync::Mutex<BTreeMap<PathBuf, Weak<Writer>>> =
    std::sync::Mutex::new(BTreeMap::new());

fn writer(path: &Path) -> Arc<Writer> {
    let mut writers = WRITERS.lock().unwrap_or_else(PoisonError::into_inner);
    writers.retain(|_, writer| writer.strong_count() > 0);
    let path = whole(path);
    if let Some(writer) = writers.get(&path).and_then(Weak::upgrade) {
        return writer;
    }
    let writer = Arc::default();
    writers.insert(path, Arc::downgrade(&writer));
    writer
}

/// An open file.
struct Open {
    file: std::fs::File,
    /// Device and inode.
    id: (u64, u64),
}

fn id(metadata: &std::fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Which file is at a path now.
fn there(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|metadata| id(&metadata))
}

impl Open {
    fn new(path: &Path) -> std::io::Result<Open> {
        // To open one waits for somebody who reads, and nothing in it can be taken back or be there after a crash.
        if std::fs::metadata(path).is_ok_and(|there| there.file_type().is_fifo()) {
            return Err(Error::new(ErrorKind::InvalidInput, "it is a named pipe, and no file"));
        }
        let file = std::fs::OpenOptions::new().create(true).append(true).read(true).open(path)?;
        // A new file is there after a crash only if its folder was written, too.
        std::fs::File::open(rotate::folder(path))?.sync_all()?;
        let id = id(&file.metadata()?);
        Ok(Open { file, id })
    }

    /// Waits until nobody else writes to it, for a while.
    fn lock(&self) -> std::io::Result<()> {
        for _ in 0..LOCKED_FOR {
            match self.file.try_lock() {
                Ok(()) => return Ok(()),
                Err(std::fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_AGAIN),
                // A file system without locks.
                Err(std::fs::TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => {
                    return Ok(());
                }
                Err(std::fs::TryLockError::Error(e)) => return Err(e),
            }
        }
        Err(Error::new(ErrorKind::ResourceBusy, "another process holds a lock on it"))
    }

    /// Writes a batch. If it fails, what was written of it is taken back, unless somebody wrote behind it.
    fn append(&mut self, batch: &[u8]) -> std::io::Result<()> {
        let before = self.file.metadata()?.len();
        // A process that died while it wrote left half a line: that one stays as it is, and the next begins on its own.
        let torn = before > 0 && {
            let mut last = [0];
            self.file.seek(SeekFrom::Start(before - 1))?;
            self.file.read(&mut last)? == 1 && last != *b"\n"
        };
        let begin: &[u8] = if torn { b"\n" } else { b"" };
        let mut written = 0;
        let result = self
            .write(begin, &mut written)
            .and_then(|()| self.write(batch, &mut written))
            .and_then(|()| self.file.sync_data());
        if result.is_err() && self.file.metadata().is_ok_and(|now| now.len() == before + written) {
            // If that fails, too, half a batch stands there before the whole.
            let _ = self.file.set_len(before);
        }
        result
    }

    fn write(&mut self, mut part: &[u8], written: &mut u64) -> std::io::Result<()> {
        while !part.is_empty() {
            match self.file.write(part) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => {
                    *written += n as u64;
                    part = &part[n..];
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// So often, and so long after each other, a lock is tried.
const LOCKED_FOR: u32 = 100;
const LOCK_AGAIN: Duration = Duration::from_millis(20);

/// Puts the file aside if that is due, while its lock is held. Whether it did.
fn rotated(path: &Path, file: &Open, rotate: &Rotate, more: usize) -> std::io::Result<bool> {
    let now = crate::clock::now();
    if !rotate.is_due(&file.file.metadata()?, more, now) {
        return Ok(false);
    }
    rotate::put_aside(path, now)?;
    if let Some(keep) = rotate.keep
        && let Err(error) = rotate::prune(path, keep)
    {
        tracing::warn!(path = %path.display(), %error, "old files can't be deleted");
    }
    Ok(true)
}

/// Appends a batch to a file whose lock is held. Not if it is another's by now, or is put aside: then the batch belongs to the next.
fn written(
    path: &Path,
    file: &mut Open,
    rotate: Option<&Rotate>,
    batch: &[u8],
) -> std::io::Result<bool> {
    // While it waited for the lock, it may have been moved away.
    if there(path) != Some(file.id) {
        return Ok(false);
    }
    if let Some(rotate) = rotate
        && rotated(path, file, rotate, batch.len())?
    {
        return Ok(false);
    }
    file.append(batch)?;
    Ok(true)
}

/// Appends a batch to the file that is there now.
fn append(
    path: &Path,
    open: &mut Option<Open>,
    rotate: Option<&Rotate>,
    batch: &[u8],
) -> std::io::Result<()> {
    for _ in 0..10 {
        let there_now = there(path);
        let file = match open.take().filter(|file| Some(file.id) == there_now) {
            Some(file) => open.insert(file),
            None => open.insert(Open::new(path)?),
        };
        file.lock()?;
        let result = written(path, file, rotate, batch);
        let _ = file.file.unlock();
        match result {
            // If it was deleted while it was written to, it is written again.
            Ok(true) if file.file.metadata()?.nlink() > 0 => return Ok(()),
            Ok(_) => {}
            Err(error) => {
                // What a file holds after a write or a flush that failed is known only when it is opened anew.
                *open = None;
                return Err(error);
            }
        }
    }
    Err(Error::other("it is moved away or deleted again and again"))
}

impl File {
    pub fn new(config: &FileConfig) -> File {
        let (path, rotate) = (config.path.clone(), config.rotate.clone());
        File { path, rotate, writer: writer(&config.path) }
    }

    async fn write(&self, body: &Bytes) -> std::io::Result<()> {
        if self.path.as_os_str() == "-" {
            let _one = self.writer.lock().await;
            let mut out = tokio::io::stdout();
            out.write_all(body).await?;
            return out.flush().await;
        }
        let (path, rotate) = (self.path.clone(), self.rotate.clone());
        let (writer, body) = (self.writer.clone(), body.clone());
        let written = tokio::task::spawn_blocking(move || {
            append(&path, &mut writer.blocking_lock(), rotate.as_ref(), &body)
        });
        written.await.map_err(Error::other)?
    }
}

impl Sink for File {
    type Body = Bytes;

    fn encode(&self, batch: &[Record<'_>]) -> Bytes {
        let mut out = Vec::with_capacity(batch.iter().map(|r| r.raw.len() + 1).sum());
        for record in batch {
            let start = out.len();
            out.extend_from_slice(record.raw.as_bytes());
            one_line(&mut out[start..]);
            out.push(b'\n');
        }
        out.into()
    }

    fn size(body: &Bytes) -> usize {
        body.len()
    }

    async fn send(&self, body: &Bytes) -> Outcome {
        match self.write(body).await {
            Ok(()) => Outcome::Delivered,
            Err(e) => {
                let detail = format!("{}: {e}", self.path.display());
                Outcome::Failed(Failure::retry(Cause::Server, detail))
            }
        }
    }
}

/// Reads what the file holds, and what was put aside of it.
pub struct Query(PathBuf);

impl Query {
    /// Or why it can't be read.
    pub fn new(config: &FileConfig) -> Result<Query, &'static str> {
        if config.path.as_os_str() == "-" {
            return Err("standard output can't be read again");
        }
        Ok(Query(config.path.clone()))
    }
}

impl SinkQuery for Query {
    fn wanted(&mut self, record: &Record<'_>) -> Hash {
        let mut line = record.raw.as_bytes().to_vec();
        one_line(&mut line);
        hash(&line)
    }

    fn ask<'q>(&'q self, question: Question<'q>) -> Asked<'q> {
        Box::pin(async move {
            let wrong = |e| QueryError::Answer(format!("{}: {e}", self.0.display()));
            // First what may be put aside meanwhile, so that it is there once.
            let file = std::fs::File::open(&self.0).map_err(wrong)?;
            let current = id(&file.metadata().map_err(wrong)?);
            let mut files = vec![file];
            for aside in rotate::aside(&self.0).map_err(wrong)? {
                let file = std::fs::File::open(&aside).map_err(wrong)?;
                if id(&file.metadata().map_err(wrong)?) != current {
                    files.push(file);
                }
            }
            let mut line = Vec::new();
            for mut file in files.into_iter().map(BufReader::new) {
                while file.read_until(b'\n', &mut line).map_err(wrong)? > 0 {
                    note(question.take, line.strip_suffix(b"\n").unwrap_or(&line));
                    (question.step)(1);
                    line.clear();
                }
            }
            Ok(Answer::All(Ok(())))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(path: &Path) -> File {
        rotating(path, None)
    }

    fn rotating(path: &Path, rotate: Option<Rotate>) -> File {
        File::new(&FileConfig { path: path.to_owned(), rotate, delivery: Delivery::default() })
    }

    async fn sent(file: &File, text: &'static str) -> Result<(), String> {
        match file.send(&Bytes::from_static(text.as_bytes())).await {
            Outcome::Delivered => Ok(()),
            Outcome::Failed(Failure::Retry(retry)) => Err(retry.detail),
            other => panic!("{other:?}"),
        }
    }

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[tokio::test]
    async fn a_file_that_was_moved_or_deleted_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("d.ndjson"), folder.path().join("d.ndjson.1"));
        let file = sink(&path);
        sent(&file, "1\n").await.unwrap();
        std::fs::rename(&path, &moved).unwrap();
        sent(&file, "2\n").await.unwrap();
        assert_eq!((text(&moved), text(&path)), ("1\n".into(), "2\n".into()));
        std::fs::remove_file(&path).unwrap();
        sent(&file, "3\n").await.unwrap();
        // Moved away, and another put in its place.
        std::fs::rename(&path, &moved).unwrap();
        std::fs::write(&path, "theirs\n").unwrap();
        sent(&file, "4\n").await.unwrap();
        assert_eq!((text(&moved), text(&path)), ("3\n".into(), "theirs\n4\n".into()));
        // Emptied in its place, as logrotate's copytruncate does.
        std::fs::File::create(&path).unwrap();
        sent(&file, "5\n").await.unwrap();
        assert_eq!(text(&path), "5\n");
    }

    #[tokio::test]
    async fn what_is_full_is_put_aside_and_read_with_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.ndjson");
        let size = Some(crate::config::units::Bytes(8));
        let file = rotating(&path, Some(Rotate { size, every: None, keep: Some(3) }));
        for line in ["11\n", "22\n", "33\n", "44\n", "55\n", "66666666666\n", "7\n"] {
            sent(&file, line).await.unwrap();
        }
        let all = |path: &Path| -> Vec<String> {
            rotate::aside(path).unwrap().iter().map(|one| text(one)).collect()
        };
        // The first two lines were more than are kept.
        assert_eq!(all(&path), ["33\n44\n", "55\n", "66666666666\n"]);
        assert_eq!(text(&path), "7\n");
        let read = std::sync::atomic::AtomicU64::new(0);
        let question = Question {
            days: &[],
            written: None,
            ids: &|_| Ok(None),
            sample: &[],
            others: None,
            step: &|n| {
                read.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
            },
            take: &|_| {},
        };
        Query(path).ask(question).await.unwrap();
        assert_eq!(read.into_inner(), 5);
    }

    #[tokio::test]
    async fn processes_and_sinks_write_one_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.ndjson");
        let other = std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
        other.lock().unwrap();
        let file = sink(&path);
        let error = sent(&file, "1\n").await.unwrap_err();
        assert!(error.contains("another process"), "{error}");
        drop(other);
        sent(&file, "1\n").await.unwrap();
        // Two sinks of this process have one writer, however the path is written.
        let same = sink(&folder.path().join(".").join("d.ndjson"));
        sent(&same, "2\n").await.unwrap();
        sent(&file, "3\n").await.unwrap();
        assert_eq!(text(&path), "1\n2\n3\n");
    }

    #[tokio::test]
    async fn what_others_wrote_stays_and_a_torn_line_stands_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.ndjson");
        std::fs::write(&path, "whole\nhalf").unwrap();
        let file = sink(&path);
        sent(&file, "1\n").await.unwrap();
        assert_eq!(text(&path), "whole\nhalf\n1\n");
        // Another process that died while it wrote.
        std::fs::write(&path, "1\nhalf").unwrap();
        sent(&file, "2\n").await.unwrap();
        assert_eq!(text(&path), "1\nhalf\n2\n");
        let missing = sink(&folder.path().join("no").join("d.ndjson"));
        assert!(sent(&missing, "1\n").await.is_err());
    }
}
