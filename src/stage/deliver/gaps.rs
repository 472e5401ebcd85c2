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
        let gaps: Vec<(Gap, u64)> = {
            let offsets = self.offsets.lock();
            let with_epoch = |gap: Gap| Some((offsets.epoch(gap.partition)?, gap));
            let all = self.reader.gaps().into_iter().filter_map(with_epoch);
            all.map(|(epoch, gap)| (gap, epoch)).collect()
        };
        for (gap, epoch) in gaps {
            let mut told = false;
            // While others are told, this one's partition may have gone.
            while self.offsets.lock().epoch(gap.partition) == Some(epoch) {
                told = self.tell(&gap).await;
                if told || stop.is_cancelled() {
                    break;
                }
                self.reader.idle()?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let mut offsets = self.offsets.lock();
            if told {
                offsets.begin_at(gap.partition, epoch, gap.at);
            } else if offsets.epoch(gap.partition) == Some(epoch) {
                // It ends here. Nothing behind the gap is committed, so that it is found again.
                offsets.revoke(gap.partition);
            }
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
            let docket = deliver.pipeline.docket_topic();
            events::write(&self.sender.rejects, &docket, &deliver.name, &finding).await;
        }
        true
    }
}
