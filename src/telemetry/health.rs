//! Whether each part of each pipeline can do its work.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Whether each part of each pipeline can do its work: what /readyz says.
#[derive(Default)]
pub struct Health {
    parts: Mutex<BTreeMap<String, Result<(), String>>>,
}

impl Health {
    pub fn set(&self, part: &str, state: Result<(), String>) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(part.to_owned(), state);
    }

    /// The part is no more.
    pub fn remove(&self, part: &str) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).remove(part);
    }

    /// Each part that is not ready, and why.
    pub fn not_ready(&self) -> Vec<(String, String)> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts
            .iter()
            .filter_map(|(part, state)| Some((part.clone(), state.as_ref().err()?.clone())))
            .collect()
    }
}
