//! What is known of amendments that wait for what they are of.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Of decisions with amendments that wait: how many do, and the place of the newest that was seen.
#[derive(Default)]
pub(super) struct Newest(Mutex<HashMap<String, (usize, i64)>>);

impl Newest {
    pub fn lock(&self) -> MutexGuard<'_, HashMap<String, (usize, i64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Amendments that wait, of these decisions.
pub(super) struct Waiting<'n>(pub &'n Newest, pub Vec<String>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut newest = self.0.lock();
        for id in &self.1 {
            if let Some((waiting, _)) = newest.get_mut(id) {
                *waiting -= 1;
                if *waiting == 0 {
                    newest.remove(id);
                }
            }
        }
    }
}

/// How many batches wait for a group that is known to be on its way: that is no stall of theirs.
#[derive(Default)]
pub(super) struct Awaiting(AtomicUsize);

pub(super) struct Awaits<'a>(&'a AtomicUsize);

impl Awaiting {
    pub fn one(&self) -> Awaits<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Awaits(&self.0)
    }

    pub fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Awaits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
