//! How far each part has come in each of its partitions, and what stalls silently: a partition that a part was assigned, that has
//! records to read or records read and not finished, and that makes no progress.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::words::counted;

/// A partition of a topic, as one part reads it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Assigned {
    pub part: String,
    pub topic: String,
    pub partition: i32,
}

#[derive(Debug)]
struct Seen {
    /// Up to where it was read.
    read: i64,
    /// When that moved last.
    moved: Instant,
    /// Below it all is finished.
    done: Option<i64>,
    /// When that moved last, or nothing was open.
    advanced: Instant,
    open: bool,
    end: i64,
    /// Below it all is finished, or was committed before.
    stands: Option<i64>,
    /// Since when there is more than was read.
    behind: Option<Instant>,
}

/// How far each part has come in each of its partitions.
#[derive(Debug, Default)]
pub struct Progress {
    seen: Mutex<BTreeMap<Assigned, Seen>>,
    /// By part and topic: the id of the topic that the part last had offsets of. It outlives restarts of the part.
    ids: Mutex<BTreeMap<(String, String), String>>,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Assigned, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn assigned(&self, place: Assigned, now: Instant) {
        let seen = Seen {
            read: -1,
            moved: now,
            done: None,
            advanced: now,
            open: false,
            end: -1,
            stands: None,
            behind: None,
        };
        self.lock().insert(place, seen);
    }

    pub fn revoked(&self, place: &Assigned) {
        self.lock().remove(place);
    }

    /// The part has offsets of a topic with this id.
    pub fn topic_id(&self, part: &str, topic: &str, id: &str) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.insert((part.to_owned(), topic.to_owned()), id.to_owned());
    }

    /// The id of the topic that the part last had offsets of.
    pub fn known_id(&self, part: &str, topic: &str) -> Option<String> {
        let ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.get(&(part.to_owned(), topic.to_owned())).cloned()
    }

    /// The part stopped.
    pub fn forget(&self, part: &str) {
        self.lock().retain(|place, _| place.part != part);
    }

    /// Everything below `read` was handed to the part.
    pub fn read(&self, place: &Assigned, read: i64, now: Instant) {
        if let Some(seen) = self.lock().get_mut(place)
            && read > seen.read
        {
            seen.read = read;
            seen.moved = now;
            if seen.read >= seen.end {
                seen.behind = None;
            }
        }
    }

    /// It waits for its turn, on purpose.
    pub fn waits(&self, place: &Assigned, now: Instant) {
        if let Some(seen) = self.lock().get_mut(place) {
            seen.moved = now;
        }
    }

    /// Everything below `done` is finished; `open` says whether more was read.
    pub fn finished(&self, place: &Assigned, done: Option<i64>, open: bool, now: Instant) {
        if let Some(seen) = self.lock().get_mut(place) {
            if done != seen.done || !open {
                seen.advanced = now;
            }
            seen.done = done;
            seen.open = open;
        }
    }

    /// Where the part stands: what is before may be deleted.
    pub fn stands(&self, place: &Assigned, at: i64) {
        if let Some(seen) = self.lock().get_mut(place) {
            seen.stands = Some(at);
        }
    }

    /// How many records retention can delete until it deletes one that is not finished. It has to have begun: a log that begins with its first record says
    /// nothing of it.
    pub fn headroom(&self, place: &Assigned, first: i64) -> Option<i64> {
        let stands = self.lock().get(place)?.stands?;
        (first > 0).then(|| (stands - first).max(0))
    }

    /// The log ends here.
    pub fn ends(&self, place: &Assigned, end: i64, now: Instant) {
        if let Some(seen) = self.lock().get_mut(place) {
            seen.end = end;
            seen.behind = if end > seen.read { Some(seen.behind.unwrap_or(now)) } else { None };
        }
    }

    /// Where the log ended when it was last asked.
    pub fn end(&self, place: &Assigned) -> Option<i64> {
        self.lock().get(place).map(|seen| seen.end)
    }

    pub fn has(&self, place: &Assigned) -> bool {
        self.lock().contains_key(place)
    }

    pub fn places(&self) -> Vec<Assigned> {
        self.lock().keys().cloned().collect()
    }

    /// What made no progress for so long, and how that shows.
    pub fn stalled(&self, after: Duration, now: Instant) -> Vec<(Assigned, String)> {
        let long = |since: Instant| now.saturating_duration_since(since) > after;
        let why = |seen: &Seen| {
            if seen.open && long(seen.advanced) {
                return Some(format!(
                    "records were read and none was finished for {} s",
                    now.saturating_duration_since(seen.advanced).as_secs()
                ));
            }
            let since = seen.behind?.max(seen.moved);
            (!seen.open && long(since)).then(|| {
                format!(
                    "{} waiting and none read for {} s",
                    counted(seen.end - seen.read.max(0), "record"),
                    now.saturating_duration_since(since).as_secs()
                )
            })
        };
        self.lock().iter().filter_map(|(place, seen)| Some((place.clone(), why(seen)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(60);

    fn place() -> Assigned {
        Assigned { part: "loki".into(), topic: "docket".into(), partition: 3 }
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    /// Vector 26438, franz-go 1272, Redpanda Connect 3410: assigned, nothing is fetched, nothing is said.
    #[test]
    fn a_partition_that_is_assigned_and_never_read_is_noticed() {
        let (progress, start) = (Progress::default(), Instant::now());
        progress.assigned(place(), start);
        progress.ends(&place(), 100, at(start, 5));
        assert_eq!(progress.stalled(AFTER, at(start, 60)), []);
        let stalled = progress.stalled(AFTER, at(start, 66));
        assert_eq!(stalled, [(place(), "100 records waiting and none read for 61 s".to_owned())]);
        progress.read(&place(), 40, at(start, 67));
        assert_eq!(progress.stalled(AFTER, at(start, 120)), []);
        assert_eq!(progress.stalled(AFTER, at(start, 128)).len(), 1);
        progress.read(&place(), 100, at(start, 130));
        assert_eq!(progress.stalled(AFTER, at(start, 900)), []);
    }

    #[test]
    fn a_quiet_log_is_no_stall_and_one_that_wakes_up_gets_its_time() {
        let (progress, start) = (Progress::default(), Instant::now());
        progress.assigned(place(), start);
        progress.ends(&place(), 10, start);
        progress.read(&place(), 10, at(start, 1));
        progress.ends(&place(), 10, at(start, 500));
        assert_eq!(progress.stalled(AFTER, at(start, 1000)), []);
        progress.ends(&place(), 11, at(start, 1000));
        assert_eq!(progress.stalled(AFTER, at(start, 1050)), []);
        assert_eq!(progress.stalled(AFTER, at(start, 1061)).len(), 1);
    }

    #[test]
    fn records_that_were_read_and_are_never_finished_are_noticed() {
        let (progress, start) = (Progress::default(), Instant::now());
        progress.assigned(place(), start);
        progress.ends(&place(), 100, start);
        progress.read(&place(), 50, start);
        progress.finished(&place(), None, true, at(start, 1));
        progress.finished(&place(), Some(10), true, at(start, 30));
        assert_eq!(progress.stalled(AFTER, at(start, 80)), []);
        progress.finished(&place(), Some(10), true, at(start, 89));
        let stalled = progress.stalled(AFTER, at(start, 91));
        assert_eq!(stalled[0].1, "records were read and none was finished for 61 s");
        progress.revoked(&place());
        assert_eq!(progress.stalled(AFTER, at(start, 900)), []);
    }
}
