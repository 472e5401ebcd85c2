//! A file or standard output: one docket record a line. A file is flushed to disk before a batch counts
//! as delivered; after a crash the last batches may stand in it twice.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;

use super::{Cause, Outcome, Retry, Sink};
use crate::decision::json::one_line;
use crate::decision::record::Record;
use crate::pipeline::model;

pub struct File {
    path: PathBuf,
    open: Arc<Mutex<Option<tokio::fs::File>>>,
}

impl File {
    pub fn new(config: &model::FileSink) -> File {
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
            Err(e) => Outcome::Retry(Retry {
                cause: Cause::Server,
                detail: format!("{}: {e}", self.path.display()),
                after: None,
            }),
        }
    }
}
