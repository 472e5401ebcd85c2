//! Tells what of the docket topic is gone that the sink has not got.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{DeliverError, Loop};
use crate::clock::now;
use crate::decision::time;
use crate::log::{Gap, Outgoing, Reader, RecordWriter};
use crate::stage::{events, gaps};

impl<R: Reader, L: RecordWriter> Loop<'_, R, L> {
    /// Puts a letter into rejects for each gap, however long that takes; nothing behind one is committed before.
    pub(super) async fn tell_gaps(&mut self, stop: &CancellationToken) -> Result<(), DeliverError> {
        for gap in self.reader.gaps() {
            let epoch = self.offsets.lock().epoch(gap.partition);
            let Some(epoch) = epoch.filter(|_| gap.topic == self.topic) else { continue };
            while !self.tell(&gap).await {
                // It is found again after the next start.
                if stop.is_cancelled() {
                    return Ok(());
                }
                self.reader.idle()?;
                if self.offsets.lock().epoch(gap.partition) != Some(epoch) {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            self.offsets.lock().begin_at(gap.partition, epoch, gap.at);
        }
        Ok(())
    }

    async fn tell(&self, gap: &Gap) -> bool {
        let deliver = self.deliver;
        let letter = gaps::letter("deliver", Some(&deliver.name), gap, &time::format(now()));
        let topic = deliver.pipeline.rejects_topic();
        let headers = letter.headers;
        let record = Outgoing { topic: &topic, key: None, payload: &letter.value, headers };
        if let Err(error) = self.sender.rejects.write(record).await {
            tracing::error!(part = deliver.name, %error, "what is gone can't be told in rejects yet");
            return false;
        }
        gaps::count(&deliver.meters, &deliver.name, gap);
        if deliver.pipeline.file.spikes.is_some() {
            let finding = gaps::finding(&deliver.name, gap, now());
            events::write(&self.sender.rejects, &self.topic, &deliver.name, &finding).await;
        }
        true
    }
}
