//! What was lost on the way to the join: what went to rejects may have been a decision or a fact, what an OPA says that it
//! dropped was one, and so was what is gone from a source topic. `gaps` tells of which time that is.

use super::Work;
use crate::clock::now;
use crate::correlate::missing::{Missing, Times};
use crate::decision::time::{Nanos, nanos};
use crate::log::Message;

/// What is missing of an open transaction, where there is a join.
#[derive(Default)]
pub struct Lost {
    times: Times,
    /// When the record was written that is taken now, and all of the transaction: from when to when.
    now: (Nanos, Nanos),
    all: Option<(Nanos, Nanos)>,
}

impl Lost {
    /// A record is taken. One of a source topic may say what an OPA lost.
    pub fn takes(&mut self, message: &Message<'_>, work: Work, delay: Nanos) {
        let at = message.headers.written().unwrap_or_else(now);
        self.now = (at, at);
        self.all = Some(self.all.map_or(self.now, |(from, to)| (from.min(at), to.max(at))));
        if work == Work::Decisions
            && let Some(Missing { from, to }) = Missing::of_line(message.payload)
        {
            self.times.add(Missing { from: from.saturating_sub(delay), to });
        }
    }

    /// What is told from now on may be of any of the records that were taken.
    pub fn of_any(&mut self) {
        self.now = self.all.unwrap_or(self.now);
    }

    /// Something of what is taken now goes to rejects: it may have been of up to `delay` before it was written.
    pub fn rejects(&mut self, delay: Nanos) {
        let (from, to) = self.now;
        self.times.add(Missing { from: from.saturating_sub(delay), to });
    }

    /// What is missing of all that was taken, to be told.
    pub fn take(&mut self) -> Times {
        std::mem::take(&mut self.times)
    }

    /// Something is gone, and nobody knows of what time.
    pub fn gone(&mut self) {
        self.times.add(Missing { from: 0, to: now() });
    }
}

impl super::Intake {
    /// How late decisions and facts may be, where there is a join.
    pub(super) fn delay(&self) -> Option<Nanos> {
        self.pipeline.file.join.as_ref().map(|join| nanos(join.delay.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Headers;

    struct Written(Nanos);

    impl Headers for Written {
        fn pairs(&self) -> Vec<(&str, &[u8])> {
            Vec::new()
        }

        fn written(&self) -> Option<Nanos> {
            Some(self.0)
        }
    }

    fn takes(lost: &mut Lost, written: Nanos, payload: &[u8], work: Work) {
        let headers = &Written(written);
        let message = Message { topic: "source", partition: 0, offset: 7, payload, headers };
        lost.takes(&message, work, 100);
    }

    #[test]
    fn what_went_to_rejects_or_was_dropped_is_missing_of_the_time_before() {
        let one = |from, to| Missing { from, to };
        let line = one(400, 500).line("o");
        let mut lost = Lost::default();
        takes(&mut lost, 1_000, b"{}", Work::Decisions);
        takes(&mut lost, 9_000, b"{", Work::Decisions);
        lost.rejects(100);
        takes(&mut lost, 9_050, line.as_bytes(), Work::Facts);
        assert_eq!(lost.times.all(), [one(8_900, 9_000)]);
        takes(&mut lost, 9_050, line.as_bytes(), Work::Decisions);
        assert_eq!(lost.times.all(), [one(8_900, 9_000), one(300, 500)]);
        // Parts of lines that never came may have been of any record.
        let mut lost = Lost::default();
        takes(&mut lost, 9_000, b"{", Work::Decisions);
        takes(&mut lost, 1_000, b"{", Work::Decisions);
        lost.of_any();
        lost.rejects(100);
        assert_eq!(lost.times.all(), [one(900, 9_000)]);
    }
}
