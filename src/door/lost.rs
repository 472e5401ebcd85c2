//! What the join is told of decisions that never come: an OPA says in its status how many it dropped, and what the door can't
//! take goes to rejects. A line in the topic that decisions go to says so, so that it is read in its turn, whoever reads it.

use std::time::{Duration, Instant};

use super::status::Status;
use super::{At, Refused, WINDOW};
use crate::clock::now;
use crate::correlate::missing::Missing;
use crate::decision::time::nanos;

impl At {
    /// Tells what an OPA lost since it told its status last. What was not told is told with its next status.
    pub(super) async fn lost_by(&self, status: &Status) -> Result<(), Refused> {
        let lost = self.door.counts.status.lost_for(status, Instant::now());
        let Some(since) = lost.filter(|_| self.door.joins) else { return Ok(()) };
        let _probe = self.probe()?;
        self.lost(status.opa(), since).await
    }

    /// Tells that decisions were lost within so long, if there is a join.
    pub(super) async fn lost(&self, of: &str, within: Duration) -> Result<(), Refused> {
        if !self.door.joins {
            return Ok(());
        }
        let to = now();
        let line = Missing { from: to.saturating_sub(nanos(within)), to }.line(of);
        let each = std::iter::once((None, line.as_bytes()));
        let too_large = self.kafka(self.producer.write(&self.door.topic, each, WINDOW).await)?;
        if !too_large.is_empty() {
            tracing::error!(
                topic = self.door.topic,
                "the topic is too small to say that decisions were lost"
            );
        }
        Ok(())
    }
}
