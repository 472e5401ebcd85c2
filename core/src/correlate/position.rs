//! Where a partition stands: what is committed, so that a join that is built again from there gives each decision out
//! once and judges nothing twice.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;

use crate::decision::time::Nanos;

/// Of what is committed.
const VERSION: u8 = 2;

/// The decisions of a partition that have not been given out, as runs: few enough for a commit's metadata.
#[derive(Debug, Default)]
pub struct Open {
    /// Each with the offset seen before it.
    offsets: BTreeMap<i64, Option<i64>>,
    last: Option<i64>,
    runs: usize,
}

impl Open {
    pub fn add(&mut self, offset: i64) {
        let before = self.last.replace(offset);
        if !before.is_some_and(|before| self.offsets.contains_key(&before)) {
            self.runs += 1;
        }
        self.offsets.insert(offset, before);
    }

    /// One that was given out before.
    pub fn add_done(&mut self, offset: i64) {
        self.last = Some(offset);
    }

    pub fn remove(&mut self, offset: i64) {
        let Some(before) = self.offsets.remove(&offset) else { return };
        let first = !before.is_some_and(|before| self.offsets.contains_key(&before));
        let more =
            self.offsets.range(offset..).next().is_some_and(|(_, before)| *before == Some(offset));
        match (first, more) {
            (true, false) => self.runs -= 1,
            (false, true) => self.runs += 1,
            _ => {}
        }
    }

    /// Whether one may be given out before those below it without there being more runs than so many, ever.
    pub fn may_leave(&self, offset: i64, most: usize) -> bool {
        self.runs < most.saturating_sub(1) || self.lowest() == Some(offset)
    }

    pub fn lowest(&self) -> Option<i64> {
        self.offsets.keys().next().copied()
    }

    pub fn runs(&self) -> Vec<(i64, i64)> {
        let mut runs: Vec<(i64, i64)> = Vec::with_capacity(self.runs);
        for (offset, before) in &self.offsets {
            match runs.last_mut() {
                Some(run) if *before == Some(run.1) => run.1 = *offset,
                _ => runs.push((*offset, *offset)),
            }
        }
        runs
    }
}

/// What is committed of a partition: `offset` as Kafka's, and the rest as its metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// What is to be read again begins here.
    pub offset: i64,
    /// What stood below had been judged.
    pub judged: i64,
    /// What stood below had been seen.
    pub next: i64,
    /// What happened before, and stood below `offset`, may bear on what is read from there; 0 is nothing.
    pub since: Nanos,
    /// Decisions below `next` that had not been given out: runs of offsets, first and last.
    pub open: Vec<(i64, i64)>,
}

impl Position {
    /// Whether a decision had been given out.
    pub fn given_out(&self, offset: i64) -> bool {
        let at = self.open.partition_point(|(_, last)| *last < offset);
        offset < self.next && self.open.get(at).is_none_or(|(first, _)| *first > offset)
    }

    /// Where to go on when what stood below `at` is gone: what happened before `now` may lack something. Of another log of
    /// that name, what was known of its places says nothing.
    pub fn gone(self, at: i64, another: bool, now: Nanos) -> Position {
        let was = if another { Position::default() } else { self };
        let there = was.open.into_iter().filter(|(_, last)| *last >= at);
        Position {
            offset: was.offset.max(at),
            judged: was.judged.max(at),
            next: was.next.max(at),
            since: was.since.max(now),
            open: there.map(|(first, last)| (first.max(at), last)).collect(),
        }
    }

    /// The metadata of a commit: printable, and at most four bytes a run as long as runs are near each other.
    pub fn metadata(&self) -> String {
        let mut bytes = vec![VERSION];
        let mut at = self.offset;
        let steps = [self.judged - at, self.next - at, self.since];
        let runs = self.open.iter().flat_map(|(first, last)| {
            let steps = [first - at, last - first];
            at = *last;
            steps
        });
        for n in steps.into_iter().chain(runs) {
            varint(&mut bytes, n.max(0).unsigned_abs());
        }
        BASE64.encode(bytes)
    }

    /// `None` for metadata that another program wrote: then everything from the offset on is new.
    pub fn parse(offset: i64, metadata: &str) -> Option<Position> {
        let bytes = BASE64.decode(metadata).ok()?;
        let mut rest = bytes.strip_prefix(&[VERSION])?;
        let mut next = || -> Option<i64> {
            let (mut n, mut shift) = (0u64, 0);
            loop {
                let (byte, tail) = rest.split_first()?;
                rest = tail;
                n |= u64::from(byte & 0x7f).checked_shl(shift)?;
                shift += 7;
                if byte & 0x80 == 0 {
                    return i64::try_from(n).ok();
                }
            }
        };
        let judged = offset.checked_add(next()?)?;
        let seen = offset.checked_add(next()?)?;
        let since = next()?;
        let mut open = Vec::new();
        let mut at = offset;
        while let Some(step) = next() {
            let first = at.checked_add(step)?;
            at = first.checked_add(next()?)?;
            open.push((first, at));
        }
        Some(Position { offset, judged, next: seen, since, open })
    }
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Runs are counted as they are, and their number never exceeds what is allowed.
        #[test]
        fn the_runs_of_what_is_open_stay_few(steps in proptest::collection::vec((1..3i64, 0..4usize, any::<u16>()), 1..300), most in 2..6usize) {
            let mut open = Open::default();
            let mut next = 0;
            let mut seen = Vec::new();
            for (step, leave, which) in steps {
                next += step;
                open.add(next);
                seen.push(next);
                for _ in 0..leave {
                    let all: Vec<i64> = open.offsets.keys().copied().collect();
                    let Some(offset) = all.get(usize::from(which) % all.len().max(1)) else { continue };
                    if open.may_leave(*offset, most) {
                        open.remove(*offset);
                    }
                }
                let runs = open.runs();
                prop_assert_eq!(runs.len(), open.runs);
                prop_assert!(runs.len() <= most, "{} runs", runs.len());
                let position = Position { offset: 0, judged: 0, next: next + 1, since: next << 40, open: runs };
                let read = Position::parse(0, &position.metadata()).unwrap();
                prop_assert_eq!(&read, &position);
                for offset in &seen {
                    prop_assert_eq!(read.given_out(*offset), !open.offsets.contains_key(offset));
                }
                prop_assert!(!read.given_out(next + 1));
            }
        }

        /// What is left is as it was; another log has nothing of it.
        #[test]
        fn what_is_gone_is_not_taken_for_given_out_elsewhere(offset in 0..50i64, open in proptest::collection::vec((1..5i64, 0..4i64), 0..5), at in 0..90i64) {
            let mut to = offset - 1;
            let runs = open.iter().map(|(step, more)| {
                let first = to + step;
                to = first + more;
                (first, to)
            });
            let open: Vec<(i64, i64)> = runs.collect();
            let was = Position { offset, judged: offset, next: to + 3, since: 5, open };
            let same = was.clone().gone(at, false, 9);
            prop_assert_eq!(Position::parse(same.offset, &same.metadata()), Some(same.clone()));
            prop_assert!(same.offset == offset.max(at) && same.since == 9);
            for offset in same.offset..to + 9 {
                prop_assert_eq!(same.given_out(offset), was.given_out(offset) && offset >= at);
            }
            let another = was.gone(at, true, 9);
            prop_assert_eq!(&another, &Position { offset: at, judged: at, next: at, since: 9, open: Vec::new() });
            prop_assert!((at..200).all(|offset| !another.given_out(offset)));
        }

        #[test]
        fn no_metadata_makes_it_panic(text in "[A-Za-z0-9+/]{0,40}", offset in 0..i64::MAX) {
            _ = Position::parse(offset, &text);
        }
    }
}
