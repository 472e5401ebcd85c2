//! Rejects that nobody sent again, and that retention will take soon: how many there are.
//!
//! Only where the oldest part of the rejects topic is that old is anything read, and then each record once, since a receipt for a letter may stand
//! anywhere behind it. What is kept of a letter is a bit.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::decision::time::{Nanos, nanos};
use crate::log::dead_letter::{Letter, without_receipts};
use crate::log::scan::{OffsetRange, ScanBound, ScanError};
use crate::pipeline::Pipeline;

/// What is older than so much of the topic's retention ages.
fn old(retention: Duration) -> Nanos {
    nanos(retention) / 4 * 3
}

/// Offsets of a partition that are kept together.
const TOGETHER: i64 = 4096;
/// So many of these are kept, 1 KiB each: letters behind them are not counted.
const MOST: usize = 8192;

type Bits = [u64; TOGETHER as usize / 64];

#[derive(Clone)]
struct Piece {
    letters: Bits,
    /// Those that were sent again. A receipt may be read before its letter, which stands in another partition.
    sent: Bits,
}

/// Which offsets hold letters, and which of them were sent again.
#[derive(Default)]
struct Letters(BTreeMap<(i32, i64), Piece>);

impl Letters {
    fn note(&mut self, partition: i32, offset: i64, bits: impl Fn(&mut Piece) -> &mut Bits) {
        let key = (partition, offset.div_euclid(TOGETHER));
        if self.0.len() >= MOST && !self.0.contains_key(&key) {
            return;
        }
        const NONE: Bits = [0; TOGETHER as usize / 64];
        let none = Piece { letters: NONE, sent: NONE };
        let at = offset.rem_euclid(TOGETHER) as usize;
        bits(self.0.entry(key).or_insert(none))[at / 64] |= 1 << (at % 64);
    }

    /// Retention took what was before.
    fn forget(&mut self, partition: i32, before: i64) {
        self.0.retain(|(p, piece), _| *p != partition || (*piece + 1) * TOGETHER > before);
    }

    /// How many of a range were not sent again.
    fn count(&self, range: &OffsetRange) -> u64 {
        let (from, to) = (range.from.div_euclid(TOGETHER), range.to.div_euclid(TOGETHER));
        let pieces = self.0.range((range.partition, from)..=(range.partition, to));
        let of_piece = |((_, number), piece): (&(i32, i64), &Piece)| {
            let open = |at: &i64| {
                let (word, bit) = ((at % TOGETHER) as usize / 64, at % 64);
                (piece.letters[word] & !piece.sent[word]) >> bit & 1 == 1
            };
            let first = number * TOGETHER;
            let its = range.from.max(first)..range.to.min(first + TOGETHER);
            its.filter(open).count() as u64
        };
        pieces.map(of_piece).sum()
    }
}

/// What is known of the rejects topic.
#[derive(Default)]
pub struct Aging {
    /// Up to where it was read.
    next: BTreeMap<i32, i64>,
    letters: Letters,
}

impl Aging {
    /// How many letters age and were not sent again; nothing while not all was read: it reads as long as `goes_on` says so, and the rest another
    /// time. Those that name what is gone from a topic hold no record, and are not counted.
    pub fn look(
        &mut self,
        pipeline: &Pipeline,
        retention: Duration,
        now: Nanos,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Option<u64>, ScanError> {
        let topic = pipeline.rejects_topic();
        let aged = ScanBound::At(now.saturating_sub(old(retention)));
        let aging = pipeline.scan("watchdog", &topic, ScanBound::Start, aged)?;
        if aging.offsets() == 0 {
            *self = Aging::default();
            return Ok(Some(0));
        }
        let all = pipeline.scan("watchdog", &topic, ScanBound::Start, ScanBound::End)?;
        let ends: BTreeMap<i32, i64> = all.ranges().iter().map(|r| (r.partition, r.to)).collect();
        if self.next.iter().any(|(p, next)| ends.get(p).is_none_or(|end| end < next)) {
            // The topic was made anew.
            *self = Aging::default();
        }
        for range in all.ranges() {
            self.letters.forget(range.partition, range.from);
            let next = self.next.entry(range.partition).or_insert(range.from);
            *next = range.from.max(*next);
        }
        all.starting_at(&self.next).read_ends(&mut |_| {}, &mut |partition, message| {
            let next = match message {
                Some(message) => {
                    self.letter(Letter::read(message));
                    Some(rdkafka::message::Message::offset(message) + 1)
                }
                None => ends.get(&partition).copied(),
            };
            self.next.extend(next.map(|next| (partition, next)));
            goes_on()
        })?;
        let all_read = ends.iter().all(|(p, end)| self.next.get(p).is_some_and(|n| n >= end));
        Ok(all_read.then(|| aging.ranges().iter().map(|range| self.letters.count(range)).sum()))
    }

    fn letter(&mut self, letter: Letter) {
        let (letters, receipts) = without_receipts(vec![letter]);
        for letter in letters.iter().filter(|letter| !letter.is_gap()) {
            self.letters.note(letter.partition, letter.offset, |piece| &mut piece.letters);
        }
        for (partition, offset) in receipts {
            self.letters.note(partition, offset, |piece| &mut piece.sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::decision::reject::{Reason, Reject};
    use crate::log::dead_letter::{DeadLetter, dead_letter, receipt};
    use crate::log::headers::Origin;
    use crate::log::mock::Mock;
    use crate::log::producer::{self, Single};
    use crate::log::{Outgoing, RecordWriter};

    #[test]
    fn letters_are_counted_by_their_bits() {
        let mut letters = Letters::default();
        for offset in [0, 63, 64, 4095, 4096, 9000] {
            letters.note(3, offset, |piece| &mut piece.letters);
        }
        letters.note(4, 5, |piece| &mut piece.letters);
        // Its letter comes later.
        letters.note(3, 9001, |piece| &mut piece.sent);
        letters.note(3, 9001, |piece| &mut piece.letters);
        let count =
            |letters: &Letters, from, to| letters.count(&OffsetRange { partition: 3, from, to });
        assert_eq!(count(&letters, 0, 10_000), 6);
        assert_eq!([count(&letters, 63, 4096), count(&letters, 1, 63)], [3, 0]);
        letters.note(3, 64, |piece| &mut piece.sent);
        assert_eq!(count(&letters, 0, 4097), 4);
        letters.forget(3, 4096);
        assert_eq!(count(&letters, 0, 10_000), 2);
        letters.forget(3, 4097);
        assert_eq!(count(&letters, 0, 10_000), 2, "a piece goes as a whole");
        // However many there are.
        (0..2 * MOST as i64).for_each(|n| letters.note(5, n * TOGETHER, |p| &mut p.letters));
        assert_eq!(letters.0.len(), MOST);
    }

    fn letter(reason: Reason) -> DeadLetter {
        let origin = Origin { topic: "decisions", partition: 0, offset: 0, element: 0 };
        dead_letter("intake", b"{}", &Reject::new(reason, ""), &origin, "", None)
    }

    fn write(runtime: &tokio::runtime::Runtime, out: &Single, letter: &DeadLetter) {
        let headers = letter.headers.clone();
        let record = Outgoing { topic: "r", key: None, payload: &letter.value, headers };
        runtime.block_on(out.write(record)).unwrap();
    }

    #[test]
    fn rejects_that_were_not_sent_again_are_counted_once_they_are_all_read() {
        let mock = Mock::start(&[("r", 1)]).unwrap();
        let text = format!(
            "name: x\nkafka: {{brokers: '{}'}}\nsources: [{{topic: s}}]\ndocket: {{rejects: r}}\n",
            mock.bootstrap()
        );
        let outside = &crate::config::secrets::Real;
        let pipeline = crate::pipeline::parse(std::path::Path::new("x"), &text, outside).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let kafka = &pipeline.file.kafka;
        let out = producer::single(kafka, "test", pipeline.file.docket.compression).unwrap();
        let mut aging = Aging::default();
        // The mock knows no times: whatever it holds is old.
        let mut look = |goes_on: &dyn Fn() -> bool| {
            aging.look(&pipeline, Duration::from_secs(4), crate::clock::now(), goes_on).unwrap()
        };
        assert_eq!(look(&|| true), Some(0));
        for reason in [Reason::NotJson, Reason::LogGap, Reason::NotJson, Reason::TooLarge] {
            write(&runtime, &out, &letter(reason));
        }
        assert_eq!(look(&|| false), None, "not all was read");
        let reads = Cell::new(0);
        let counted = || {
            reads.set(reads.get() + 1);
            true
        };
        assert_eq!(look(&counted), Some(3));
        assert!(reads.get() < 5, "the first is not read again");
        write(&runtime, &out, &receipt(&[(0, 0), (0, 3)]));
        assert_eq!(look(&|| true), Some(1));
        write(&runtime, &out, &receipt(&[(0, 2)]));
        assert_eq!(look(&|| true), Some(0));
    }
}
