//! Records that intake fails at. One that fails three times is a reject, as a whole, so that no record stops those behind it. A
//! transaction that fails as one of many is begun again with half as many, until the one stands alone.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::pace::{Outlasted, PATIENCE, WORK};
use super::transaction::Open;
use crate::decision::reject::{Reason, Reject};

/// A source record: topic (by number), partition, offset.
pub type Spot = (usize, i32, i64);

/// Another record may come to stand at a place, once its topic was deleted and created again.
pub fn fingerprint(record: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(record);
    hasher.finish()
}

/// After so many failures a record is a reject.
const STRIKES: u32 = 3;
/// With so many records a transaction is as large as it ever gets.
const MANY: usize = 1 << 20;

/// It outlives the run that failed.
#[derive(Default)]
pub struct Trouble(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    failures: BTreeMap<Spot, Failure>,
    /// Records that alone take longer than a transaction may, and their fingerprints: they are made before it begins.
    slow: BTreeMap<Spot, u64>,
    /// A transaction takes so many records.
    most: Option<usize>,
    /// A transaction of one record, and of those that its line goes on in, failed.
    apart: bool,
}

struct Failure {
    /// Of the record.
    fingerprint: u64,
    strikes: u32,
    reject: Reject,
}

/// Records that are rejects as a whole: which, and why.
pub type Condemned = BTreeMap<Spot, (u64, Reject)>;

impl Trouble {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn condemned(&self) -> Condemned {
        let kept = self.kept();
        let condemned = kept.failures.iter().filter(|(_, failure)| failure.strikes >= STRIKES);
        condemned.map(|(spot, f)| (*spot, (f.fingerprint, f.reject.clone()))).collect()
    }

    /// What intake failed at and is not through.
    pub fn failed_at(&self) -> BTreeSet<Spot> {
        self.kept().failures.keys().copied().collect()
    }

    /// How many records a transaction takes.
    pub fn most(&self) -> usize {
        let kept = self.kept();
        if kept.slow.is_empty() { kept.most.unwrap_or(usize::MAX) } else { 1 }
    }

    /// Whether parts of lines are taken one by one: what intake fails at stands among them.
    pub fn apart(&self) -> bool {
        self.kept().apart
    }

    pub fn is_slow(&self, spot: Spot, fingerprint: impl Fn() -> u64) -> bool {
        self.kept().slow.get(&spot).is_some_and(|of| *of == fingerprint())
    }

    /// It was not done in time, as the last of so many records of a transaction.
    pub fn outlasted(&self, spot: Spot, fingerprint: u64, what: Outlasted, records: usize) {
        let (_, partition, offset) = spot;
        match what {
            Outlasted::Transaction if records > 1 => self.shrink(records),
            Outlasted::Transaction => {
                tracing::info!(
                    partition,
                    offset,
                    "a record takes longer than a transaction may: it is made before one begins"
                );
                self.kept().slow.insert(spot, fingerprint);
            }
            Outlasted::Work => {
                let detail = format!("it takes more than {} s of a processor", WORK.as_secs());
                tracing::error!(partition, offset, detail, "intake gave up a record");
                self.condemn(spot, fingerprint, Reject::new(Reason::Failed, detail));
            }
            Outlasted::Run => {}
            Outlasted::Clock => self.strike(
                spot,
                fingerprint,
                "it takes longer than a member of a group may be silent (max.poll.interval.ms)",
            ),
        }
    }

    /// It can never become anything else.
    pub fn condemn(&self, spot: Spot, fingerprint: u64, reject: Reject) {
        self.kept().failures.insert(spot, Failure { fingerprint, strikes: STRIKES, reject });
    }

    /// It failed, and it alone was the cause.
    pub fn strike(&self, spot: Spot, fingerprint: u64, why: &str) {
        let mut kept = self.kept();
        let before = kept.failures.get(&spot).filter(|f| f.fingerprint == fingerprint);
        let strikes = before.map_or(0, |failure| failure.strikes) + 1;
        let detail = format!("docket failed at it {STRIKES} times: {why}");
        let reject = Reject::new(Reason::Failed, detail);
        kept.failures.insert(spot, Failure { fingerprint, strikes, reject });
        let (_, partition, offset) = spot;
        tracing::error!(partition, offset, why, strikes, "intake failed at a record");
    }

    /// A transaction of so many records failed, and any of them may be the cause.
    pub fn shrink(&self, records: usize) {
        let mut kept = self.kept();
        // It may have taken more, for parts of lines.
        let taken = kept.most.map_or(records, |most| most.min(records));
        kept.apart = taken == 1 && records > 1;
        kept.most = Some((taken / 2).max(1));
    }

    /// What is known of a transaction that could not be committed.
    pub fn failed(&self, open: &Open) {
        let slow = open.began.is_some_and(|began| began.elapsed() > PATIENCE * 2);
        if slow {
            self.shrink(open.records);
        }
    }

    /// A transaction was committed.
    pub fn passed(&self, open: &Open) {
        let mut kept = self.kept();
        let ahead = |(topic, partition, offset): &Spot| {
            open.offsets.get(&(*topic, *partition)).is_none_or(|(_, next)| offset >= next)
        };
        kept.failures.retain(|spot, _| ahead(spot));
        kept.slow.retain(|spot, _| ahead(spot));
        kept.apart = false;
        kept.most = kept.most.map(|most| most.max(open.records) * 2).filter(|most| *most < MANY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(records: usize, next: i64) -> Open {
        let offsets = [((0, 0), (next - records as i64, next))].into_iter().collect();
        Open { records, offsets, ..Open::default() }
    }

    #[test]
    fn one_of_many_is_found_by_halving_and_condemned_at_its_third_failure() {
        let trouble = Trouble::default();
        for (records, most) in [(8, 4), (4, 2), (2, 1)] {
            trouble.shrink(records);
            assert_eq!(trouble.most(), most);
        }
        assert!(!trouble.apart());
        trouble.shrink(8);
        assert!(trouble.most() == 1 && trouble.apart());
        for _ in 0..3 {
            assert!(trouble.condemned().is_empty());
            trouble.strike((0, 0, 0), 7, "it panicked");
        }
        let (fingerprint, reject) = trouble.condemned()[&(0, 0, 0)].clone();
        assert_eq!((fingerprint, reject.reason), (7, Reason::Failed));
        // Through, it is forgotten; transactions grow again.
        trouble.passed(&open(1, 1));
        assert!(trouble.condemned().is_empty() && !trouble.apart());
        assert_eq!(trouble.most(), 2);
        (0..20).for_each(|_| trouble.passed(&open(1, 2)));
        assert_eq!(trouble.most(), usize::MAX);
    }

    #[test]
    fn what_another_record_at_its_place_did_is_not_held_against_a_record() {
        let trouble = Trouble::default();
        (0..2).for_each(|_| trouble.strike((0, 0, 0), fingerprint(b"one"), "it panicked"));
        trouble.strike((0, 0, 0), fingerprint(b"another"), "it panicked");
        assert!(trouble.condemned().is_empty());
    }

    #[test]
    fn what_is_kafkas_is_no_records_fault() {
        let trouble = Trouble::default();
        (0..9).for_each(|_| trouble.failed(&open(1, 1)));
        assert!(trouble.condemned().is_empty() && trouble.most() == usize::MAX);
    }
}
