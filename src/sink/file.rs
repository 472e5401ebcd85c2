//! A file or standard output: one docket record a line. A file is flushed to disk before a batch counts
//! as delivered; after a crash the last batches may stand in it twice.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::sync::Arc;

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
    /// Path of the file to append to; - is standard output.
    pub path: PathBuf,
    /// How batches are formed and sent.
    #[serde(default)]
    pub delivery: Delivery,
}

pub struct File {
    path: PathBuf,
    open: Arc<Mutex<Option<tokio::fs::File>>>,
}

impl File {
    pub fn new(config: &FileConfig) -> File {
        File { path: config.path.clone(), open: Arc::default() }
    }

    async fn write(&self, body: &[u8]) -> std::io::Result<()> {
        let mut open = self.open.lock().await;
        if self.path.as_os_str() == "-" {
            let mut out = tokio::io::stdout();
            out.write_all(body).await?;
            return out.flush().await;
        }
        let file = match &mut *open {
            Some(file) => file,
            None => open.insert(
                tokio::fs::OpenOptions::new().create(true).append(true).open(&self.path).await?,
            ),
        };
        let before = file.metadata().await?.len();
        let written = async {
            file.write_all(body).await?;
            file.sync_data().await
        };
        let result = written.await;
        if result.is_err() {
            // Half a batch must not stand before the whole one that is tried next.
            let _ = file.set_len(before).await;
            *open = None;
        }
        result
    }
}

impl Sink for File {
    type Body = Vec<u8>;

    fn encode(&self, batch: &[Record<'_>]) -> Vec<u8> {
        let mut out = Vec::with_capacity(batch.iter().map(|r| r.raw.len() + 1).sum());
        for record in batch {
            let start = out.len();
            out.extend_from_slice(record.raw.as_bytes());
            one_line(&mut out[start..]);
            out.push(b'\n');
        }
        out
    }

    fn size(body: &Vec<u8>) -> usize {
        body.len()
    }

    async fn send(&self, body: &Vec<u8>) -> Outcome {
        match self.write(body).await {
            Ok(()) => Outcome::Delivered,
            Err(e) => {
                let detail = format!("{}: {e}", self.path.display());
                Outcome::Failed(Failure::retry(Cause::Server, detail))
            }
        }
    }
}

/// Reads what the file holds.
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
            let mut file = BufReader::new(std::fs::File::open(&self.0).map_err(wrong)?);
            let mut line = Vec::new();
            while file.read_until(b'\n', &mut line).map_err(wrong)? > 0 {
                note(question.take, line.strip_suffix(b"\n").unwrap_or(&line));
                (question.step)(1);
                line.clear();
            }
            Ok(Answer::All(Ok(())))
        })
    }
}
